//! How a connection ends once nothing is left to be said on it.

use std::io;

use super::Lift;
use crate::conn::{Conn, Flags, NO_PROTOCOL, Phase, Rare, Role, Stash};
use crate::dial::clone_error;
use crate::error::{CloseCause, CloseKind, CloseSide, RefusalReason};
use crate::inner::Owner;
use crate::net::transport::{Io, ReadEnd};
use crate::timer::saturating_add;
use crate::ws::Side;
use crate::wsi::Cx;

impl Lift<'_> {
    /// Whether the connection is over; if so its final event has been delivered.
    pub(super) fn conclude(&mut self) -> bool {
        match &self.conn.role {
            Role::Client(_) => self.conclude_dial(),
            Role::Http(_) => self.conclude_http(),
            Role::HttpClient(_) => self.conclude_fetch(),
            Role::Linger => self.conn.send.flags.contains(Flags::ABORT) || self.read_ended(),
            Role::Ws(_) => self.conclude_ws(),
        }
    }

    /// Whether the last byte that is queued has left.
    pub(crate) fn is_flushed(&self) -> bool {
        let Conn { io, send, .. } = &*self.conn;
        io.as_ref().is_none_or(|io| io.is_flushed(&send.tx))
    }

    pub(super) fn read_ended(&self) -> bool {
        self.conn
            .io
            .as_ref()
            .is_none_or(|io| io.read_end().is_some())
    }

    fn conclude_http(&mut self) -> bool {
        let Role::Http(http) = &mut self.conn.role else {
            return false;
        };
        if self.conn.send.flags.contains(Flags::ABORT) {
            let is_silent = http.has_served() || http.is_responding();
            if http.refused.is_none() && !is_silent {
                let cause = self
                    .conn
                    .send
                    .deadlines
                    .cause
                    .as_ref()
                    .map(|cause| &cause.kind);
                http.refused = Some(match cause {
                    Some(CloseKind::Timeout(deadline)) => RefusalReason::Timeout(*deadline),
                    _ => RefusalReason::Shutdown,
                });
            }
            self.abandon_hooks();
            self.abandon_exchange();
            self.report_refusal();
            return true;
        }
        if !http.is_responding() || !self.is_all_said() {
            return false;
        }
        self.report_refusal();
        self.linger()
    }

    fn conclude_ws(&mut self) -> bool {
        if self.conn.send.flags.contains(Flags::ABORT) {
            self.close_ws();
            return true;
        }
        let over = matches!(self.conn.send.phase, Phase::CloseDone | Phase::Failed);
        let sent = over && self.is_all_said();
        let ended = self.read_ended();
        let send = &self.conn.send;
        match (send.phase, send.side) {
            // RFC 6455 section 7.1.1: the server closes first; a client waits for it.
            (Phase::CloseDone, Side::Client) if sent => {
                if ended {
                    self.close_ws();
                }
                ended
            }
            (Phase::CloseDone | Phase::Failed, _) if sent => {
                let nothing_follows = self.has_peer_done();
                self.close_ws();
                nothing_follows || self.linger()
            }
            _ => false,
        }
    }

    /// Whether the peer's Close frame was the last that came, all that came was read, and no ping of
    /// ours may be answered yet: then the transport can be closed, as RFC 6455 section 5.5.1 has no
    /// data follow that frame. What follows all the same, later, is answered with a reset, which
    /// may cost such a peer our Close frame. Over TLS a `close_notify` follows.
    fn has_peer_done(&self) -> bool {
        let Conn { io, send, .. } = &*self.conn;
        let is_drained = |io: &Io| io.secure.is_none() && !io.is_readable();
        let is_pinged = |rare: &Rare| rare.ping.is_some();
        send.phase == Phase::CloseDone
            && !send.flags.contains(Flags::TALKS_ON)
            && !send.rare.as_deref().is_some_and(is_pinged)
            && io.as_ref().is_some_and(is_drained)
    }

    /// Whether the last byte has left, over TLS with the word that it is the last.
    pub(crate) fn is_all_said(&mut self) -> bool {
        let Conn { io, send, .. } = &mut *self.conn;
        let Some(io) = io else { return true };
        if !io.is_flushed(&send.tx) {
            return false;
        }
        let Some(secure) = &mut io.secure else {
            return true;
        };
        secure.say_goodbye(&mut self.inner.out.pool);
        self.flush();
        let Conn { io, send, .. } = &*self.conn;
        io.as_ref().is_none_or(|io| io.is_flushed(&send.tx))
    }

    /// The final event of a WebSocket connection.
    pub(super) fn close_ws(&mut self) {
        let sealed = self.conn.io.as_ref().and_then(|io| io.secure.as_ref());
        let sealed = sealed.map_or(0, |secure| secure.undelivered());
        let mut cause = self.conn.send.take_cause(sealed);
        self.conn.send.phase = Phase::Ended;
        let (protocol, id) = (self.conn.send.protocol, self.conn.send.id);
        let Role::Ws(ws) = &self.conn.role else {
            return;
        };
        let session = ws.session;
        self.cancel_timers();
        cause.reconnect = self.redial();
        // From here on a panic must not end the session again.
        if let Some(mark) = &mut self.inner.lifted {
            mark.session = None;
        }
        if let Some(bound) = self.parts.protocols.get_mut(protocol as usize) {
            let mut cx = Cx::new(self.inner, Owner::protocol(protocol));
            bound.dispatch.closed(&mut cx, id, session, &cause);
        }
    }

    /// Everything is said: ends our stream and waits a while for the peer's end, so that no reset
    /// destroys our last words. Whether there is nothing to wait for.
    pub(super) fn linger(&mut self) -> bool {
        if self.read_ended() {
            return true;
        }
        let Some(io) = &self.conn.io else { return true };
        if io.stream.shutdown_write().is_err() {
            return true;
        }
        let send = &mut self.conn.send;
        send.protocol = NO_PROTOCOL;
        send.phase = Phase::Ended;
        send.deadlines.message = None;
        send.no_output_waits();
        send.deadlines.stage = saturating_add(self.inner.out.now, send.settings.timeouts.close);
        self.conn.role = Role::Linger;
        self.conn.stash = Stash::Empty;
        false
    }
}

pub(super) fn abnormal_end(end: &ReadEnd) -> CloseCause {
    match end {
        ReadEnd::Eof => CloseCause::abnormal(CloseSide::Peer, CloseKind::EndOfStream),
        ReadEnd::Failed(error) => transport_end(error),
    }
}

pub(super) fn transport_end(error: &io::Error) -> CloseCause {
    CloseCause::abnormal(CloseSide::Peer, CloseKind::Transport(clone_error(error)))
}
