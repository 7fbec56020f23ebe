//! The short way of a visit: that of an established connection without TLS and without
//! compression on which nothing but received bytes is due. What it leaves open
//! [`Lift::pump_all`] does.

use slab::Slab;

use super::Lift;
use crate::conn::{Conn, Flags, Phase, Rare, Role, STASHED_HEADER, Stash};
use crate::context::Keyed;
use crate::inner::Inner;
use crate::net::transport::Io;
use crate::protocol::Dispatch;
use crate::timer::saturating_add;
use crate::upgrade::NO_SESSION;
use crate::ws::recv::RecvPool;
use crate::wsi::Wsi;

impl Lift<'_> {
    /// Whether nothing but received bytes can give work: what nearly every visit finds, and
    /// leaves behind.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        let Conn {
            io: Some(io),
            role: Role::Ws(ws),
            send,
            stash: Stash::Empty,
        } = &*self.conn
        else {
            return false;
        };
        let holds_pong = |rare: &Rare| rare.held_pong.is_some();
        send.phase == Phase::Open
            && send.flags == Flags::LIFTED
            && send.tx.is_empty()
            && send.has_no_output_deadline()
            // So it waits for no inflater, and is not in the middle of inflating.
            && send.sends_plain()
            && io.is_calm()
            && !ws.recv.is_inside_message()
            && !send.rare.as_deref().is_some_and(holds_pong)
    }

    /// Whether its timer, set by an earlier visit, is not later than its next deadline. For a calm
    /// connection deadlines only ever move away.
    #[inline]
    pub(super) fn is_filed(&self) -> bool {
        self.conn.send.deadlines.armed.is_some() || self.conn.next_deadline().is_none()
    }

    /// Reads once, gives what came, and sends what that led to. For a calm connection that is all
    /// that [`Lift::pump_all`] would do, if it is calm yet, and nothing more can be read: whether
    /// that is so. Adds to `spent` what was read.
    #[inline]
    pub(super) fn read_calmly(&mut self, spent: &mut usize) -> bool {
        let Self { conn, inner, parts } = self;
        let Some(io) = &mut conn.io else { return false };
        // A buffer that a panic lost is made by the other path.
        let Some(room @ [_, ..]) = parts.buffer.get_mut(STASHED_HEADER..) else {
            return false;
        };
        let n = io.read(room);
        if n == 0 {
            return false;
        }
        *spent += n;
        conn.send.last_received = inner.out.now;
        let input = room.get_mut(..n).unwrap_or_default();
        let used = on_frames(conn, inner, &mut parts.protocols, &mut parts.pool, input);
        let rest = input.get(used..).unwrap_or_default();
        if !rest.is_empty() {
            conn.stash = conn.put_aside(rest);
        }
        let Conn { io, send, .. } = &mut **conn;
        if let (Some(io), false) = (io, send.flags.contains(Flags::ABORT)) {
            let taken = io.flush_at_once(&mut send.tx, &mut inner.out.pool);
            if !send.tx.is_empty() {
                send.note_output(inner.out.now, taken, io);
            }
        }
        self.is_calm() && !self.conn.io.as_ref().is_some_and(Io::is_readable)
    }
}

/// Gives bytes to the protocol of a WebSocket connection; how many are done.
#[inline]
pub(super) fn on_frames(
    conn: &mut Conn,
    inner: &mut Inner,
    protocols: &mut Slab<Keyed<dyn Dispatch>>,
    pool: &mut RecvPool,
    input: &mut [u8],
) -> usize {
    let Conn { io, role, send, .. } = conn;
    let Role::Ws(ws) = role else { return 0 };
    if matches!(send.phase, Phase::CloseDone | Phase::Failed) || ws.session == NO_SESSION {
        return input.len();
    }
    let Some(bound) = protocols.get_mut(send.protocol as usize) else {
        return input.len();
    };
    // When an unsent ping leaves has to be seen where all else is written.
    let lends = send.sends_plain() && !send.flags.contains(Flags::PING_SENT);
    if lends && io.as_ref().is_some_and(|io| io.secure.is_none()) {
        let addresses = input.as_ptr_range();
        inner.out.lender = addresses.start.addr()..addresses.end.addr();
    }
    let mut wsi = Wsi::new(inner, send, io.as_mut());
    let used = bound
        .dispatch
        .drive(&mut ws.recv, pool, input, &mut wsi, ws.session);
    inner.out.lender = 0..0;
    if !inner.out.lent.is_empty() {
        send.flush_lent(&mut inner.out, io.as_mut(), input);
    }
    #[cfg(feature = "deflate")]
    if ws.recv.enters_queue() {
        pool.inflaters.queue.push_back(send.id);
    }
    send.note_window(&ws.recv);
    let has_begun = ws.recv.is_inside_message() || ws.recv.is_waiting();
    let deadline = &mut send.deadlines.message;
    // While closing, the deadline of the closing handshake is the only one.
    if !has_begun || send.phase != Phase::Open {
        *deadline = None;
    } else if deadline.is_none() {
        *deadline = saturating_add(inner.out.now, send.settings.timeouts.message);
    }
    if matches!(send.phase, Phase::CloseDone | Phase::Failed) {
        return input.len();
    }
    used
}

impl Conn {
    /// Keeps what is left of received bytes.
    pub(super) fn put_aside(&self, rest: &[u8]) -> Stash {
        if self.is_short_of_header(rest) {
            Stash::header(rest)
        } else {
            Stash::aside(rest.to_vec(), 0)
        }
    }

    /// Whether bytes are left because they do not make a frame header yet, and not because nobody
    /// wants them now: those may be whole frames, however few they are.
    pub(super) fn is_short_of_header(&self, rest: &[u8]) -> bool {
        let parsed = matches!(self.role, Role::Ws(_)) && self.takes_frames();
        parsed && !self.is_suspended() && rest.len() < STASHED_HEADER
    }

    /// Whether an established connection wants frames now, if only to drop them.
    pub(super) fn takes_frames(&self) -> bool {
        let send = &self.send;
        if send.flags.contains(Flags::ABORT) || self.is_waiting() {
            return false;
        }
        send.is_reading() || matches!(send.phase, Phase::CloseDone | Phase::Failed)
    }

    /// Whether the rest of what was received is inflated in the next turn.
    pub(super) fn is_suspended(&self) -> bool {
        matches!(&self.role, Role::Ws(ws) if ws.recv.is_suspended())
    }

    /// Whether the next message waits for an inflater. One that closes waits for none.
    pub(crate) fn is_waiting(&self) -> bool {
        let open = self.send.phase == Phase::Open;
        open && matches!(&self.role, Role::Ws(ws) if ws.recv.is_waiting())
    }
}
