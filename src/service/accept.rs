//! Listeners and the connections that come of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::conn::{Conn, Flags, Role, SendHalf, Stash};
use crate::context::{Context, ListenerState};
use crate::error::RefusalReason;
use crate::id::{Token, VhostId, WsiId};
use crate::inner::{Out, TimerKind};
use crate::net::listen::AcceptError;
use crate::net::stream::Stream;
use crate::net::transport::Io;
use crate::protocol::ListenerTrouble;
use crate::timer::saturating_add;
use crate::upgrade::HttpRole;
use crate::ws::Side;

impl Context {
    pub(super) fn accept(&mut self, index: u32, generation: u64) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(slot) = self.parts.listeners.get_mut(index, generation) else {
                return;
            };
            if slot.state == ListenerState::Resting {
                return;
            }
            if self.inner.conns.len() >= self.inner.max_connections {
                slot.state = ListenerState::Full;
                self.turn.full = true;
                return;
            }
            if slot.tls.is_some() && self.inner.handshakes >= self.inner.max_handshakes {
                slot.state = ListenerState::Crowded;
                self.turn.crowded = true;
                return;
            }
            match slot.listener.accept() {
                Ok((stream, peer)) => {
                    let (vhost, tls) = (slot.default, slot.tls);
                    let role = HttpRole::new((index, generation), tls, self.inner.out.moment);
                    self.adopt(role, vhost, stream, peer);
                }
                Err(AcceptError::WouldBlock) => return,
                Err(AcceptError::Retry(_)) => {}
                Err(AcceptError::Exhausted(error)) => return self.rest(index, generation, error),
                Err(AcceptError::Fatal(error)) => return self.lose(index, generation, error),
            }
        }
        self.turn.accepting.push((index, generation));
    }

    /// A new server connection.
    pub(super) fn adopt(
        &mut self,
        role: HttpRole,
        vhost: VhostId,
        stream: Stream,
        peer: SocketAddr,
    ) {
        let counts = self.turn.max_per_ip;
        let has = |limit| self.inner.per_ip.get(&peer.ip()).copied().unwrap_or(0) >= limit;
        if counts.is_some_and(has) {
            return;
        }
        let Out { now, moment, .. } = self.inner.out;
        let Some(owner) = self.inner.vhost_mut(vhost) else {
            return;
        };
        owner.live += 1;
        let settings = std::sync::Arc::clone(&owner.settings);
        let head = settings.timeouts.head;
        if counts.is_some() {
            *self.inner.per_ip.entry(peer.ip()).or_default() += 1;
        }
        let mut io = Io::accepted(stream, peer);
        let poller = &self.parts.poller;
        let sniffs = role.sniffs.is_some();
        let mut registered = Ok(());
        let made = self.inner.conns.insert(|index, generation| {
            let token = Token::Wsi { index, generation }.pack();
            registered = poller.register_stream(&mut io.stream, token);
            let id = WsiId { index, generation };
            let mut send = SendHalf::new(id, Side::Server, settings, moment);
            send.deadlines.stage = saturating_add(now, head);
            send.flags.set(Flags::HANDSHAKING, sniffs);
            Box::new(Conn {
                io: Some(io),
                role: Role::Http(Box::new(role)),
                send,
                stash: Stash::Empty,
            })
        });
        let Some((index, generation)) = made else {
            return self.disown(vhost, peer);
        };
        self.inner.handshakes += usize::from(sniffs);
        let id = WsiId { index, generation };
        if let Err(error) = registered {
            self.lift(id, |lift| {
                if let Role::Http(http) = &mut lift.conn.role {
                    http.refused = Some(RefusalReason::Io(error));
                }
                lift.end_now();
                lift.pump()
            });
        } else if let Some(conn) = self.inner.conns.get_mut(index, generation) {
            // Nothing else is to be done before an event comes.
            conn.refile(&mut self.inner.out);
        }
    }

    /// Takes back the accounts of a connection that found no slot.
    pub(super) fn disown(&mut self, vhost: VhostId, peer: SocketAddr) {
        if let Some(owner) = self.inner.vhost_mut(vhost) {
            owner.live -= 1;
        }
        self.uncount(peer.ip());
    }

    /// An address has one connection less, where that counts.
    pub(super) fn uncount(&mut self, ip: IpAddr) {
        if let Some(count) = self.inner.per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.inner.per_ip.remove(&ip);
            }
        }
    }

    /// The system has no descriptor left: those who wait are turned away with the spare one, and
    /// the listener rests, since no event would tell when it is worth trying again.
    pub(super) fn rest(&mut self, index: u32, generation: u64, error: io::Error) {
        let Some(slot) = self.parts.listeners.get_mut(index, generation) else {
            return;
        };
        self.parts.spare.shed(&slot.listener, SHED_AT_ONCE);
        slot.state = ListenerState::Resting;
        let address = slot.address;
        self.inner
            .arm(REST, TimerKind::Listener { index, generation });
        self.report(&ListenerTrouble::new(address, error, Some(REST)));
    }

    /// The listener itself is broken: nothing can be done but to say so.
    pub(super) fn lose(&mut self, index: u32, generation: u64, error: io::Error) {
        if let Some(slot) = self.parts.listeners.remove(index, generation) {
            self.report(&ListenerTrouble::new(slot.address, error, None));
        }
    }

    pub(super) fn report(&mut self, trouble: &ListenerTrouble) {
        #[cfg(feature = "log")]
        log::warn!("{trouble}");
        let mut cx = Self::bare_cx(&mut self.inner);
        self.parts.observer.on_listener_trouble(&mut cx, trouble);
    }

    /// Connections or handshakes have ended: listeners that waited for that go on.
    pub(super) fn reopen(&mut self) {
        self.turn.full = false;
        self.turn.crowded = false;
        for (index, generation, slot) in self.parts.listeners.iter_mut() {
            if matches!(slot.state, ListenerState::Full | ListenerState::Crowded) {
                slot.state = ListenerState::Active;
                self.turn.accepting.push((index, generation));
            }
        }
    }
}

/// Connections that one listener accepts before others have their turn.
const ACCEPTS_PER_TURN: usize = 64;
/// How long a listener rests when the system is out of descriptors.
const REST: Duration = Duration::from_millis(100);
/// How many of those that wait are turned away then.
const SHED_AT_ONCE: usize = 16;
