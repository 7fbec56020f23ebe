//! A connection lifted out of its slot: what happens to it in one visit of the loop.
//!
//! Reading, dialling, writing, `on_writable` and the end of a connection all happen here, in
//! [`Lift::pump`], whatever the occasion: an event, work left over, something a callback did.

use std::time::Instant;

use slab::Slab;

use crate::conn::{Conn, Flags, NO_PROTOCOL, Phase, Rare, Role, STASHED_HEADER, SendHalf, Stash};
use crate::context::{Parts, ProtocolSlot};
use crate::dial::clone_error;
use crate::error::{
    CloseCause, CloseKind, CloseSide, ConnectFailure, Deadline, DeadlineStage, RefusalReason,
};
use crate::id::TimerTag;
use crate::inner::{Inner, LiftMark, TimerKind};
use crate::net::transport::{Flushed, Io, ReadEnd};
use crate::pool::BufferPool;
use crate::retry::{PingState, Validity};
use crate::timer::{TimerKey, saturating_add};
use crate::upgrade::NO_SESSION;
use crate::ws::{Close, CloseCode, Side};
use crate::wsi::{Cx, Wsi};

/// One connection with everything it may need, none of which is another connection.
pub(crate) struct Lift<'a> {
    pub(crate) conn: &'a mut Conn,
    pub(crate) inner: &'a mut Inner,
    pub(crate) parts: &'a mut Parts,
}

/// What becomes of a connection after a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is over: its slot is freed.
    Drop,
    Keep,
    /// There is more to do; others come first.
    KeepReady,
}

impl Lift<'_> {
    /// Does all that can be done now.
    pub(crate) fn pump(&mut self) -> Fate {
        if self.is_calm() && self.read_calmly() && self.is_filed() {
            return Fate::Keep;
        }
        self.pump_all()
    }

    /// Whether nothing but received bytes can give work: what nearly every visit finds, and
    /// leaves behind.
    #[inline]
    fn is_calm(&self) -> bool {
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
            && io.is_calm()
            && !ws.recv.is_inside_message()
            && !send.rare.as_deref().is_some_and(holds_pong)
    }

    /// Whether its timer, set by an earlier visit, is not later than its next deadline. For a calm
    /// connection deadlines only ever move away.
    #[inline]
    fn is_filed(&self) -> bool {
        self.conn.send.deadlines.armed.is_some() || self.next_deadline().is_none()
    }

    /// Reads once, gives what came, and sends what that led to. For a calm connection that is all
    /// that [`Lift::pump_all`] would do, if it is calm yet, and nothing more can be read: whether
    /// that is so.
    #[inline]
    fn read_calmly(&mut self) -> bool {
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
        conn.send.last_received = inner.out.now;
        let input = room.get_mut(..n).unwrap_or_default();
        let used = on_frames(conn, inner, &mut parts.protocols, &mut parts.pool, input);
        let rest = input.get(used..).unwrap_or_default();
        if !rest.is_empty() {
            conn.stash = conn.put_aside(rest);
        }
        if let (Some(io), false) = (&mut conn.io, conn.send.flags.contains(Flags::ABORT)) {
            io.flush_at_once(&mut conn.send.tx, &mut inner.out.pool);
        }
        self.is_calm() && !self.conn.io.as_ref().is_some_and(Io::is_readable)
    }

    #[inline(never)]
    fn pump_all(&mut self) -> Fate {
        self.apply_verdict();
        self.dial();
        self.read();
        self.after_reading();
        self.write();
        self.after_write_failure();
        if self.conclude() {
            return Fate::Drop;
        }
        self.refile();
        if self.wants_stash() || self.wants_reading() {
            Fate::KeepReady
        } else {
            Fate::Keep
        }
    }

    /// Remembers who is in the air, so that a panic of a callback leaves nothing behind.
    pub(crate) fn mark_lifted(&mut self) {
        self.inner.lifted = Some(LiftMark::of(self.conn));
    }

    /// Ends the connection at the end of this visit, whatever still waits to be sent.
    pub(crate) fn end_now(&mut self) {
        self.conn.send.flags |= Flags::ABORT;
    }

    /// Reads and processes until there is no more, nobody wants more, or the budget is spent.
    fn read(&mut self) {
        if self.wants_stash() {
            self.process_stash();
        }
        let mut budget = self.parts.turn_budget;
        let mut buffer = self.parts.take_buffer();
        while self.wants_reading() {
            let Some(io) = &mut self.conn.io else { break };
            let Some(room) = buffer.get_mut(STASHED_HEADER..) else {
                break;
            };
            let n = io.read(room);
            if n == 0 {
                break;
            }
            self.conn.send.last_received = self.inner.out.now;
            self.conn.send.flags -= Flags::PING_SENT;
            if self.is_secure_or_sniffing() {
                self.received_records(&mut buffer, n);
            } else {
                self.received(&mut buffer, n);
            }
            budget = budget.saturating_sub(n);
            if budget == 0 {
                break;
            }
        }
        self.parts.buffer = buffer;
    }

    /// `n` bytes lie in the buffer behind the room for a stashed header.
    pub(crate) fn received(&mut self, buffer: &mut [u8], n: usize) {
        let end = STASHED_HEADER + n;
        match std::mem::take(&mut self.conn.stash) {
            Stash::Empty => {
                let input = buffer.get_mut(STASHED_HEADER..end).unwrap_or_default();
                self.process(input);
            }
            Stash::Header { len, bytes } => {
                let len = len as usize;
                let start = STASHED_HEADER - len;
                let input = buffer.get_mut(start..end).unwrap_or_default();
                for (place, byte) in input.iter_mut().zip(bytes.into_iter().take(len)) {
                    *place = byte;
                }
                self.process(input);
            }
            Stash::Heap { mut bytes, done } => {
                let new = buffer.get(STASHED_HEADER..end).unwrap_or_default();
                bytes.extend_from_slice(new);
                self.process_owned(bytes, done);
            }
        }
    }

    fn process_stash(&mut self) {
        if let Stash::Heap { bytes, done } = std::mem::take(&mut self.conn.stash) {
            self.process_owned(bytes, done);
        }
    }

    fn process(&mut self, input: &mut [u8]) {
        let used = self.consume(input);
        let rest = input.get(used..).unwrap_or_default();
        self.conn.stash = self.conn.put_aside(rest);
    }

    /// As [`Lift::process`] for bytes that were put aside, of which `done` are used up. Those who
    /// take one message at a time are not charged a copy of the rest for each.
    fn process_owned(&mut self, mut bytes: Vec<u8>, done: usize) {
        let used = self.consume(bytes.get_mut(done..).unwrap_or_default());
        let done = done + used;
        let rest = bytes.get(done..).unwrap_or_default();
        self.conn.stash = if self.conn.is_short_of_header(rest) {
            Stash::header(rest)
        } else {
            Stash::aside(bytes, done)
        };
    }

    /// Gives bytes to whatever role the connection has, and what is left to the next role; how
    /// many are done.
    fn consume(&mut self, input: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest @ [_, ..]) = input.get_mut(done..) {
            let used = match &mut self.conn.role {
                Role::Client(_) => self.on_response_bytes(rest),
                Role::Http(_) => self.on_request_bytes(rest),
                Role::Linger => rest.len(),
                Role::Ws(_) => {
                    let Self { conn, inner, parts } = self;
                    on_frames(conn, inner, &mut parts.protocols, &mut parts.pool, rest)
                }
            };
            if used == 0 {
                break;
            }
            done += used;
        }
        done
    }

    /// What was put aside while nobody wanted it. Heads that are incomplete stay: they are of use
    /// only with what comes next.
    fn wants_stash(&self) -> bool {
        let aside = matches!(self.conn.stash, Stash::Heap { .. });
        aside && matches!(self.conn.role, Role::Ws(_)) && self.conn.is_willing()
    }

    fn wants_reading(&self) -> bool {
        let readable = self.conn.io.as_ref().is_some_and(Io::is_readable);
        readable && self.conn.is_willing()
    }

    /// The ends of streams, seen by the role.
    fn after_reading(&mut self) {
        if self.read_ended() {
            self.records_ended(self.inner.out.now);
        }
        // The end comes in its turn, behind what the application does not want yet. Only TLS tells
        // of it that early.
        if self.is_held_back() {
            return;
        }
        let Some(io) = &self.conn.io else { return };
        let Some(end) = &io.read_end else { return };
        match &mut self.conn.role {
            Role::Client(_) => self.dial_ended(),
            Role::Http(http) => {
                if http.refused.is_none() && !http.is_responding() {
                    http.refused = Some(match end {
                        ReadEnd::Eof => RefusalReason::Closed,
                        ReadEnd::Failed(error) => RefusalReason::Io(clone_error(error)),
                    });
                    self.conn.send.flags |= Flags::ABORT;
                }
            }
            Role::Linger => {}
            Role::Ws(_) => {
                let cause = abnormal_end(end);
                // A peer that sends no more may still read what it was answered.
                self.flush();
                self.conn.send.ws_ended(cause);
            }
        }
    }

    /// Whether received bytes wait until the application resumes reading.
    fn is_held_back(&self) -> bool {
        let send = &self.conn.send;
        let waits = matches!(self.conn.stash, Stash::Heap { .. });
        let is_ws = matches!(self.conn.role, Role::Ws(_));
        is_ws && waits && send.is_open() && send.flags.contains(Flags::PAUSED)
    }

    /// Writes what waits; asks the application for more; writes that.
    fn write(&mut self) {
        self.flush();
        let send = &mut self.conn.send;
        let low = send.settings.limits.output_low_water;
        let wanted = send.flags.contains(Flags::WANT_WRITABLE) && send.is_open();
        if wanted && send.tx.len() <= low {
            self.on_writable();
        }
        self.flush();
        if self.conn.send.release_pong(&mut self.inner.out) {
            self.flush();
        }
    }

    fn on_writable(&mut self) {
        let Conn { io, role, send, .. } = &mut *self.conn;
        let Role::Ws(ws) = role else { return };
        send.flags -= Flags::WANT_WRITABLE;
        if let Some(bound) = self.parts.protocols.get_mut(send.protocol as usize) {
            let mut wsi = Wsi::new(self.inner, send, io.as_mut());
            bound.dispatch.writable(&mut wsi, ws.session);
        }
    }

    /// The only place that writes to a socket.
    pub(crate) fn flush(&mut self) {
        let Conn { io, send, .. } = &mut *self.conn;
        let Some(io) = io else { return };
        if io.is_flushed(&send.tx) {
            send.deadlines.write = None;
            return;
        }
        if send.flags.contains(Flags::ABORT) {
            return;
        }
        let ping_waited = send.is_ping_unsent();
        let flushed = io.flush(&mut send.tx, &mut self.inner.out.pool);
        if ping_waited && !send.is_ping_unsent() {
            send.ping_left(self.inner.out.now);
        }
        send.deadlines.write = match flushed {
            Flushed::All => None,
            Flushed::Nothing if send.deadlines.write.is_some() => send.deadlines.write,
            Flushed::Nothing | Flushed::Some => {
                saturating_add(self.inner.out.now, send.settings.timeouts.write)
            }
        };
        if io.write_error.is_some() {
            send.deadlines.write = None;
        }
    }

    /// Nothing can be sent any more. What the peer said before it went away comes first: a Close
    /// frame or a refusal that lies there is the real reason.
    fn after_write_failure(&mut self) {
        let failed = self.conn.io.as_ref().and_then(|io| io.write_error.as_ref());
        let Some(error) = failed.map(clone_error) else {
            return;
        };
        self.read();
        if self.wants_reading() {
            return;
        }
        self.after_reading();
        match &mut self.conn.role {
            Role::Client(_) => self.stop_dialling(ConnectFailure::Io(error)),
            Role::Http(http) => {
                http.refused.get_or_insert(RefusalReason::Io(error));
                self.end_now();
            }
            Role::Linger => self.end_now(),
            Role::Ws(_) => {
                let cause = CloseCause::abnormal(CloseSide::Peer, CloseKind::Transport(error));
                self.conn.send.ws_ended(cause);
            }
        }
    }

    /// Whether the connection is over; if so its final event has been delivered.
    fn conclude(&mut self) -> bool {
        match &self.conn.role {
            Role::Client(_) => self.conclude_dial(),
            Role::Http(_) => self.conclude_http(),
            Role::Linger => self.conn.send.flags.contains(Flags::ABORT) || self.read_ended(),
            Role::Ws(_) => self.conclude_ws(),
        }
    }

    fn read_ended(&self) -> bool {
        self.conn.io.as_ref().is_none_or(|io| io.read_end.is_some())
    }

    fn conclude_http(&mut self) -> bool {
        let Role::Http(http) = &mut self.conn.role else {
            return false;
        };
        if self.conn.send.flags.contains(Flags::ABORT) {
            if http.refused.is_none() && !http.is_responding() {
                http.refused = Some(RefusalReason::Shutdown);
            }
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
                self.close_ws();
                self.linger()
            }
            _ => false,
        }
    }

    /// Whether the last byte has left, over TLS with the word that it is the last.
    fn is_all_said(&mut self) -> bool {
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
    fn close_ws(&mut self) {
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
            let mut cx = Cx::new(self.inner, protocol);
            bound.dispatch.closed(&mut cx, id, session, &cause);
        }
    }

    /// Everything is said: ends our stream and waits a while for the peer's end, so that no reset
    /// destroys our last words. Whether there is nothing to wait for.
    fn linger(&mut self) -> bool {
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
        send.deadlines.write = None;
        send.deadlines.stage = saturating_add(self.inner.out.now, send.settings.timeouts.close);
        self.conn.role = Role::Linger;
        self.conn.stash = Stash::Empty;
        false
    }

    /// The connection's deadline timer came; it may be early for what it is about now.
    pub(crate) fn on_deadline(&mut self) {
        let now = self.inner.out.now;
        self.conn.send.deadlines.armed = None;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.conn.send.deadlines.stage) {
            self.conn.send.deadlines.stage = None;
            self.stage_is_over();
        }
        let send = &mut self.conn.send;
        if due(send.deadlines.message) {
            send.deadlines.message = None;
            let limit = send.settings.timeouts.message;
            if send.flags.contains(Flags::PAUSED) {
                // It is we who do not take it.
                send.deadlines.message = saturating_add(now, limit);
                return;
            }
            let close = Close::new(CloseCode::POLICY_VIOLATION, "the message took too long");
            let kind = CloseKind::Timeout(Deadline::new(DeadlineStage::Message, limit));
            send.close(&mut self.inner.out, &close, kind);
            send.phase = Phase::Failed;
        }
        if due(send.deadlines.write) {
            send.deadlines.write = None;
            let limit = send.settings.timeouts.write;
            send.time_out(Deadline::new(DeadlineStage::Write, limit));
            send.flags |= Flags::ABORT;
        }
        if let Role::Ws(_) = self.conn.role {
            self.check_validity(now);
        }
    }

    fn stage_is_over(&mut self) {
        match &self.conn.role {
            Role::Client(_) => self.time_out_dial(),
            Role::Http(_) => self.time_out_request(),
            Role::Linger => self.end_now(),
            Role::Ws(_) => {
                let limit = self.conn.send.settings.timeouts.close;
                self.conn
                    .send
                    .time_out(Deadline::new(DeadlineStage::Close, limit));
                self.end_now();
            }
        }
    }

    fn check_validity(&mut self, now: Instant) {
        let send = &mut self.conn.send;
        if send.phase != Phase::Open || send.flags.contains(Flags::PAUSED) {
            return;
        }
        match send.validity(now) {
            Validity::Wait(_) => {}
            Validity::SendPing => {
                send.flags |= Flags::PING_SENT;
                let payload = self.inner.out.random.u64().to_be_bytes();
                send.push_ping(&mut self.inner.out, &payload);
            }
            Validity::HangUp => {
                let silence = now.saturating_duration_since(send.last_received);
                send.time_out(Deadline::new(DeadlineStage::Silence, silence));
                send.flags |= Flags::ABORT;
            }
        }
    }

    /// One of the connection's own timers is due.
    pub(crate) fn on_timer(&mut self, key: TimerKey, tag: TimerTag) {
        let Conn { io, role, send, .. } = &mut *self.conn;
        if let Some(rare) = &mut send.rare {
            rare.timers.retain(|timer| *timer != key);
        }
        let Role::Ws(ws) = role else { return };
        if !send.is_open() {
            return;
        }
        if let Some(bound) = self.parts.protocols.get_mut(send.protocol as usize) {
            let mut wsi = Wsi::new(self.inner, send, io.as_mut());
            bound.dispatch.timer(&mut wsi, ws.session, tag);
        }
    }

    /// Makes sure that the connection's one timer is not later than its next deadline. One that
    /// is too early costs a visit; moving it for every message would cost more.
    fn refile(&mut self) {
        let Some(at) = self.next_deadline() else {
            return;
        };
        let deadlines = &mut self.conn.send.deadlines;
        match deadlines.armed {
            Some((armed, _)) if armed <= at => return,
            Some((_, key)) => {
                self.inner.out.timers.cancel(key);
            }
            None => {}
        }
        let kind = TimerKind::Deadline(self.conn.send.id);
        deadlines.armed = Some((at, self.inner.out.timers.arm(at, kind)));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let send = &self.conn.send;
        let deadlines = &send.deadlines;
        let role = match &self.conn.role {
            Role::Client(client) => client.wakes_at(),
            Role::Ws(_) if send.phase == Phase::Open && !send.flags.contains(Flags::PAUSED) => {
                send.validity_at()
            }
            Role::Http(_) | Role::Linger | Role::Ws(_) => None,
        };
        let all = [deadlines.stage, deadlines.message, deadlines.write, role];
        all.into_iter().flatten().min()
    }

    pub(crate) fn cancel_timers(&mut self) {
        let timers = &mut self.inner.out.timers;
        if let Some(rare) = &mut self.conn.send.rare {
            for key in rare.timers.drain(..) {
                timers.cancel(key);
            }
        }
    }
}

/// Gives bytes to the protocol of a WebSocket connection; how many are done.
#[inline]
fn on_frames(
    conn: &mut Conn,
    inner: &mut Inner,
    protocols: &mut Slab<ProtocolSlot>,
    pool: &mut BufferPool,
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
    let lends = !send.flags.contains(Flags::PING_SENT);
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
    let deadline = &mut send.deadlines.message;
    // While closing, the deadline of the closing handshake is the only one.
    if !ws.recv.is_inside_message() || send.phase != Phase::Open {
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
    fn put_aside(&self, rest: &[u8]) -> Stash {
        if self.is_short_of_header(rest) {
            Stash::header(rest)
        } else {
            Stash::aside(rest.to_vec(), 0)
        }
    }

    /// Whether bytes are left because they do not make a frame header yet, and not because nobody
    /// wants them now: those may be whole frames, however few they are.
    fn is_short_of_header(&self, rest: &[u8]) -> bool {
        let parsed = matches!(self.role, Role::Ws(_)) && self.is_willing();
        parsed && rest.len() < STASHED_HEADER
    }

    fn is_willing(&self) -> bool {
        let send = &self.send;
        if send.flags.contains(Flags::ABORT) {
            return false;
        }
        match &self.role {
            Role::Client(client) => client.is_reading(),
            Role::Http(http) => http.is_reading(),
            Role::Linger => true,
            Role::Ws(_) => {
                send.is_reading() || matches!(send.phase, Phase::CloseDone | Phase::Failed)
            }
        }
    }
}

fn abnormal_end(end: &ReadEnd) -> CloseCause {
    let kind = match end {
        ReadEnd::Eof => CloseKind::EndOfStream,
        ReadEnd::Failed(error) => CloseKind::Transport(clone_error(error)),
    };
    CloseCause::abnormal(CloseSide::Peer, kind)
}

impl SendHalf {
    /// The peer's stream has ended (or failed): what that means to the closing handshake.
    fn ws_ended(&mut self, cause: CloseCause) {
        match self.phase {
            // Complete, but for what is still on its way out: the peer may be reading yet.
            Phase::CloseDone | Phase::Failed if !matches!(cause.kind, CloseKind::Transport(_)) => {}
            Phase::CloseDone | Phase::Failed | Phase::Ended => self.flags |= Flags::ABORT,
            // RFC 6455 section 7.1.5: without the peer's Close frame the code is 1006.
            Phase::CloseSent => {
                self.cause = Some(Box::new(cause));
                self.flags |= Flags::ABORT;
            }
            Phase::Open | Phase::Opening => {
                self.set_cause(cause);
                self.flags |= Flags::ABORT;
            }
        }
    }

    fn validity(&self, now: Instant) -> Validity {
        if self.is_ping_unsent() {
            // Until then the deadline of output is the one that counts.
            return Validity::Wait(None);
        }
        let ping = if self.flags.contains(Flags::PING_SENT) {
            PingState::Outstanding
        } else {
            PingState::None
        };
        self.settings.retry.validity(self.last_received, now, ping)
    }

    fn validity_at(&self) -> Option<Instant> {
        match self.validity(self.last_received) {
            Validity::Wait(at) => at,
            Validity::HangUp | Validity::SendPing => Some(self.last_received),
        }
    }
}
