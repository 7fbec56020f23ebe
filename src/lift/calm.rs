//! The short way of a visit: that of an established connection without compression on which
//! nothing but received bytes is due. What it leaves open [`Lift::pump_all`] does.
//!
//! Whether it may be taken is one comparison of a connection's flags: the long way asks all there
//! is to ask at its end, and notes the answer as [`Flags::CALM`].

use slab::Slab;

use super::Lift;
use crate::conn::{Conn, Flags, Phase, Rare, Role, STASHED_HEADER, SendHalf, Stash};
use crate::context::Keyed;
use crate::inner::{Inner, Out};
use crate::net::transport::Io;
use crate::protocol::Dispatch;
use crate::timer::saturating_add;
use crate::upgrade::NO_SESSION;
use crate::ws::recv::{RecvPool, has_front};
use crate::wsi::Wsi;

impl Conn {
    /// Whether nothing but received bytes, or its timer, can give it work: what nearly every visit
    /// leaves behind. [`Flags::CALM`] remembers it.
    pub(crate) fn is_calm(&self) -> bool {
        let Self {
            io: Some(io),
            role: Role::Ws(ws),
            send,
            stash: Stash::Empty,
        } = self
        else {
            return false;
        };
        let holds_pong = |rare: &Rare| rare.held_pong.is_some();
        send.phase == Phase::Open
            && Flags::CALM_VISIT.contains(send.flags)
            && send.tx.is_empty()
            && send.fragment.is_none()
            && send.has_no_output_deadline()
            // So it waits for no inflater, and is not in the middle of inflating.
            && send.sends_plain()
            && has_front(send.settings.short_way)
            && io.is_calm()
            && !io.is_readable()
            && ws.recv.is_between_messages()
            && !send.rare.as_deref().is_some_and(holds_pong)
            && self.is_filed()
    }

    /// Whether its timer, set by an earlier visit, is not later than its next deadline. For a calm
    /// connection deadlines only ever move away.
    fn is_filed(&self) -> bool {
        self.send.armed.is_some() || self.next_deadline().is_none()
    }
}

impl Lift<'_> {
    /// The visit of a calm connection that is not one of a [`Run`](super::Run), for which the poller has told
    /// nothing but that it is readable (or writable, as it was): reads once, gives what came, and
    /// sends what that led to. `None` if it is calm then. If not, [`Lift::pump_all`] has the rest to
    /// do, and gets how many bytes were read.
    pub(crate) fn visit_calmly(&mut self, is_writable: bool) -> Option<usize> {
        let Some(io) = &mut self.conn.io else {
            return Some(0);
        };
        if io.secure.is_some() {
            return self.visit_records_calmly(is_writable);
        }
        // A buffer that a panic lost is made by the other path.
        let Some(room @ [_, ..]) = self.parts.buffer.get_mut(STASHED_HEADER..) else {
            return Some(0);
        };
        let n = io.read_calmly(is_writable, room).len();
        if n == 0 {
            return Some(0);
        }
        self.conn.send.last_received = self.inner.out.moment;
        self.go_on_calmly(n, 0)
    }

    /// A calm visit after `n` bytes were read, of which `used` are done: what is no whole message, and
    /// what follows anything out of the ordinary.
    #[cold]
    #[inline(never)]
    pub(crate) fn go_on_calmly(&mut self, n: usize, used: usize) -> Option<usize> {
        let Self { conn, inner, parts } = self;
        conn.send.flags -= Flags::CALM | Flags::SENDS;
        let input = parts
            .buffer
            .get_mut(STASHED_HEADER + used..STASHED_HEADER + n);
        if let Some(input @ [_, ..]) = input {
            let used = on_frames(conn, inner, &mut parts.protocols, &mut parts.pool, input);
            let rest = input.get(used..).unwrap_or_default();
            if !rest.is_empty() {
                conn.stash = conn.put_aside(rest);
            }
        }
        let Conn { io, send, .. } = &mut **conn;
        if let (Some(io), false) = (io, send.flags.contains(Flags::ABORT)) {
            if send.tx.is_empty() {
                send.tx.give_back(&mut inner.out.pool);
            } else if io.is_calm() {
                let taken = io.flush_at_once(&mut send.tx, &mut inner.out.pool);
                if !send.tx.is_empty() {
                    send.note_output(inner.out.now, taken, io);
                }
            }
        }
        (!self.conn.is_calm()).then_some(n)
    }

    /// Gives received bytes to the protocol and puts aside what is left.
    #[cfg(feature = "tls")]
    pub(crate) fn give_aside(&mut self, input: &mut [u8]) {
        let Self { conn, inner, parts } = self;
        let used = on_frames(conn, inner, &mut parts.protocols, &mut parts.pool, input);
        let rest = input.get(used..).unwrap_or_default();
        if !rest.is_empty() {
            conn.stash = conn.put_aside(rest);
        }
    }
}

/// Sends what was lent of the received bytes. Whether something waits yet that was queued then.
#[inline(never)]
pub(super) fn end_lending(
    out: &mut Out,
    send: &mut SendHalf,
    io: &mut Io,
    input: &mut [u8],
) -> bool {
    out.lender = 0..0;
    if out.lent.is_empty() {
        return false;
    }
    send.flush_lent_calmly(out, io, input);
    !send.tx.is_empty()
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
        send.flags |= Flags::TALKS_ON;
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
    // While closing, the deadline of the closing handshake is the only one.
    if !has_begun || send.phase != Phase::Open {
        send.deadlines.no_message();
    } else if send.deadlines.message.is_none() {
        let at = saturating_add(inner.out.now, send.settings.timeouts.message);
        send.deadlines.message = at;
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
