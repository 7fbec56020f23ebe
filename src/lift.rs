//! A connection lifted out of its slot: what happens to it in one visit of the loop.
//!
//! Reading, dialling, writing, `on_writable` and the end of a connection all happen here, in
//! [`Lift::pump`], whatever the occasion: an event, work left over, something a callback did.

mod bulk;
mod calm;
mod ending;
mod run;

use std::time::Instant;

#[cfg(feature = "tls")]
pub(crate) use self::bulk::place_of_payload;
use self::ending::{abnormal_end, transport_end};
pub(crate) use self::run::{Run, Stop};
use crate::conn::{Aside, Conn, Flags, Phase, Role, STASHED_HEADER, SendHalf, Stash};
use crate::context::Parts;
use crate::dial::clone_error;
use crate::error::{CloseCause, CloseKind, ConnectFailure, Deadline, DeadlineStage, RefusalReason};
use crate::handler::ExchangeOutcome;
use crate::id::TimerTag;
use crate::inner::{Inner, LiftMark, Out};
use crate::net::transport::{Io, ReadEnd};
use crate::retry::{PingState, Validity};
use crate::timer::{Alarm, TimerKey, saturating_add};
use crate::ws::{Close, CloseCode, Side};
use crate::wsi::Wsi;

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
        self.pump_all(0)
    }

    /// The same, when `spent` bytes of the visit's budget for reading are used up.
    #[inline(never)]
    pub(crate) fn pump_all(&mut self, spent: usize) -> Fate {
        self.apply_hook_answer();
        self.apply_verdict();
        self.dial();
        self.probe_idle();
        // Who has spent the budget reads on when it is its turn, whatever else leads here before.
        if !self.conn.send.flags.contains(Flags::READY) {
            self.read(spent);
        }
        self.look_for_the_lost();
        self.begin_fetch();
        self.after_reading();
        self.settle_exchange();
        self.write();
        self.after_write_failure();
        if self.conclude() {
            return Fate::Drop;
        }
        self.conn.refile(&mut self.inner.out);
        if self.wants_stash() || self.wants_reading() {
            Fate::KeepReady
        } else {
            if self.conn.is_calm() && !self.was_bulky() {
                self.settle();
            }
            Fate::Keep
        }
    }

    /// It is calm.
    fn settle(&mut self) {
        let Conn { io, send, .. } = &mut *self.conn;
        send.flags |= Flags::CALM;
        // What it needed before it was established. Who gets deadlines again keeps the room.
        if !send.settled {
            send.settled = true;
            send.deadlines.trim();
            let is_plain = io.as_ref().is_some_and(|io| io.secure.is_none());
            if is_plain && send.side == Side::Server {
                send.runs_with = send.protocol;
            }
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
    fn read(&mut self, spent: usize) {
        self.allow_inflating();
        if self.wants_stash() {
            self.process_stash();
        }
        let mut budget = self.parts.turn_budget.saturating_sub(spent);
        while self.wants_reading() && budget > 0 {
            match self.read_once(budget) {
                0 => break,
                n => budget = budget.saturating_sub(n),
            }
        }
    }

    /// How many bytes came: not many more than `budget` past what the receive buffer takes.
    fn read_once(&mut self, budget: usize) -> usize {
        let mut buffer = self.parts.take_buffer();
        let room = buffer.get_mut(STASHED_HEADER..).unwrap_or_default();
        let (direct, n) = self.read_to_place(room, budget);
        if direct + n > 0 {
            self.conn.send.last_received = self.inner.out.moment;
            self.conn.send.flags -= Flags::PING_SENT;
        }
        if n > 0 {
            if self.is_secure_or_sniffing() {
                self.received_records(&mut buffer, n);
            } else {
                self.received(&mut buffer, n);
            }
        }
        self.parts.buffer = buffer;
        direct + n
    }

    /// Where nothing is read now, the end of a peer that is gone would not be found before that
    /// changes. What it has said before is put aside first, as far as one read takes it.
    fn look_for_the_lost(&mut self) {
        let waits = match &self.conn.role {
            Role::Http(http) => http.is_waiting(),
            Role::Ws(_) => self.is_ws_paused() && !self.is_held_back(),
            Role::Client(_) | Role::HttpClient(_) | Role::Linger => false,
        };
        let Some(io) = self.conn.io.as_mut().filter(|io| waits && io.is_broken()) else {
            return;
        };
        let loss = io.loss().map(clone_error);
        if let Role::Http(http) = &mut self.conn.role {
            if let Some(error) = loss {
                if !http.has_served() {
                    http.refused = Some(RefusalReason::Io(error));
                }
                self.end_now();
            }
        } else {
            self.read_once(self.parts.turn_budget);
        }
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
            Stash::Heap(aside) => {
                let Aside {
                    mut bytes,
                    mut done,
                } = *aside;
                if done > bytes.len() / 2 {
                    // A stream of requests that are never cut at their ends must not pile up.
                    bytes.drain(..done);
                    done = 0;
                }
                let new = buffer.get(STASHED_HEADER..end).unwrap_or_default();
                bytes.extend_from_slice(new);
                self.process_owned(bytes, done);
            }
        }
    }

    fn process_stash(&mut self) {
        if let Stash::Heap(aside) = std::mem::take(&mut self.conn.stash) {
            self.process_owned(aside.bytes, aside.done);
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
                Role::HttpClient(_) => self.on_fetch_bytes(rest),
                Role::Linger => rest.len(),
                Role::Ws(_) => {
                    let Self { conn, inner, parts } = self;
                    calm::on_frames(conn, inner, &mut parts.protocols, &mut parts.pool, rest)
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
        let aside = matches!(self.conn.stash, Stash::Heap(_));
        let wanted = match &self.conn.role {
            Role::Ws(_) => true,
            Role::Http(http) => http.wants_stash(),
            Role::HttpClient(http) => http.wants_stash(),
            Role::Client(_) | Role::Linger => false,
        };
        aside && wanted && self.is_willing()
    }

    fn wants_reading(&self) -> bool {
        let readable = self.conn.io.as_ref().is_some_and(Io::is_readable);
        readable && self.is_willing() && !self.is_suspended()
    }

    fn is_suspended(&self) -> bool {
        self.conn.is_suspended()
    }

    fn is_waiting(&self) -> bool {
        self.conn.is_waiting()
    }

    fn is_willing(&self) -> bool {
        let send = &self.conn.send;
        if send.flags.contains(Flags::ABORT) {
            return false;
        }
        match &self.conn.role {
            Role::Client(client) => client.is_reading(),
            Role::Http(http) => http.is_reading(send, self.conn.stash.len()),
            Role::HttpClient(_) => self.is_fetch_reading(),
            Role::Linger => true,
            Role::Ws(_) => self.conn.takes_frames(),
        }
    }

    /// The ends of streams, seen by the role.
    fn after_reading(&mut self) {
        if self.read_ended() {
            self.records_ended(self.inner.out.now);
        }
        // The end comes in its turn, behind what the application does not want yet.
        if self.is_held_back() {
            return self.limit_holding();
        }
        let Some(io) = &self.conn.io else { return };
        let Some(end) = io.read_end() else { return };
        let has_aside = matches!(self.conn.stash, Stash::Heap(_));
        match &mut self.conn.role {
            Role::Client(_) => self.dial_ended(),
            Role::HttpClient(_) => self.fetch_stream_ended(),
            Role::Http(http) if http.has_exchange() => self.exchange_ended(),
            // Its client may only have said that nothing follows.
            Role::Http(http) if http.is_plain_asked() && matches!(end, ReadEnd::Eof) => {}
            // The answers to the requests before them have to leave first.
            Role::Http(http) if matches!(end, ReadEnd::Eof) && has_aside && http.wants_stash() => {}
            // All that was asked was answered; the answers may be on their way yet.
            Role::Http(http) if http.has_served() && !http.is_responding() => self.close_http(),
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
                let cause = self.truncation().unwrap_or(cause);
                // A peer that sends no more may still read what it was answered.
                self.flush();
                self.conn.send.ws_ended(cause);
            }
        }
    }

    /// Whether received bytes wait: until the application resumes reading, or for their turn to be
    /// inflated.
    fn is_held_back(&self) -> bool {
        matches!(self.conn.stash, Stash::Heap(_)) && self.is_ws_paused()
    }

    fn is_ws_paused(&self) -> bool {
        let send = &self.conn.send;
        let is_ws = matches!(self.conn.role, Role::Ws(_));
        let held = send.flags.contains(Flags::PAUSED) || self.is_suspended() || self.is_waiting();
        is_ws && send.is_open() && held
    }

    /// What a peer that is gone has left is kept for as long as a peer that takes nothing is: once
    /// for all of it, however often reading is resumed.
    fn limit_holding(&mut self) {
        let broken = self.conn.io.as_ref().is_some_and(Io::is_broken);
        let send = &mut self.conn.send;
        if broken && send.deadlines.stage.is_none() {
            send.deadlines.stage = saturating_add(self.inner.out.now, send.settings.timeouts.write);
        }
    }

    /// Nobody wanted what the peer has left.
    fn stop_holding(&mut self) {
        let truncation = self.truncation();
        let Some(io) = &mut self.conn.io else { return };
        let cause = match io.loss() {
            Some(error) => transport_end(error),
            None => {
                truncation.unwrap_or_else(|| abnormal_end(io.read_end().unwrap_or(&ReadEnd::Eof)))
            }
        };
        self.conn.send.ws_ended(cause);
    }

    /// Writes what waits; asks the application for more; writes that.
    fn write(&mut self) {
        self.pull_upload();
        self.announce_end();
        self.flush();
        let send = &mut self.conn.send;
        let low = send.settings.limits.output_low_water;
        let wanted = send.flags.contains(Flags::WANT_WRITABLE);
        if wanted && send.tx.len() <= low {
            match &self.conn.role {
                Role::Ws(_) if self.conn.send.is_open() => self.on_writable(),
                Role::Http(_) => self.on_http_writable(),
                Role::HttpClient(_) => self.on_fetch_writable(),
                Role::Client(_) | Role::Linger | Role::Ws(_) => {}
            }
        }
        self.flush();
        if self.conn.send.release_pong(&mut self.inner.out) {
            self.flush();
        }
        self.begin_idling();
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

    /// Writes what waits. What is lent, and the first write of a calm visit, do not come by here.
    pub(crate) fn flush(&mut self) {
        let Conn { io, send, .. } = &mut *self.conn;
        let Some(io) = io else { return };
        if io.is_flushed(&send.tx) {
            send.no_output_waits();
            return;
        }
        if send.flags.contains(Flags::ABORT) {
            return;
        }
        let ping_waited = send.is_ping_unsent();
        let (_, taken) = io.flush(&mut send.tx, &mut self.inner.out.pool);
        if ping_waited && !send.is_ping_unsent() {
            send.ping_left(self.inner.out.now);
        }
        send.note_output(self.inner.out.now, taken, io);
    }

    /// Nothing can be sent any more. What the peer said before it went away comes first: a Close
    /// frame or a refusal that lies there is the real reason.
    fn after_write_failure(&mut self) {
        let failed = self.conn.io.as_ref().and_then(|io| io.write_error());
        let Some(error) = failed.map(clone_error) else {
            return;
        };
        self.read(0);
        if self.wants_reading() || self.is_suspended() {
            return;
        }
        self.look_for_the_lost();
        self.after_reading();
        self.records_ended(self.inner.out.now);
        if self.is_held_back() {
            return;
        }
        match &mut self.conn.role {
            Role::Client(_) => self.stop_dialling(ConnectFailure::Io(error)),
            Role::HttpClient(_) => self.fetch_write_failed(error),
            Role::Http(http) => {
                if !http.has_served() {
                    http.refused.get_or_insert(RefusalReason::Io(error));
                } else {
                    self.set_outcome(ExchangeOutcome::Io(error));
                }
                self.end_now();
            }
            Role::Linger => self.end_now(),
            Role::Ws(_) => self.conn.send.ws_ended(transport_end(&error)),
        }
    }

    /// The connection's alarm came; it may be early for what it is about now.
    pub(crate) fn on_deadline(&mut self) {
        let now = self.inner.out.now;
        self.conn.send.armed = None;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.conn.send.deadlines.stage) {
            self.conn.send.deadlines.stage = None;
            self.stage_is_over();
        }
        let waiting = self.is_waiting();
        let send = &mut self.conn.send;
        if due(send.deadlines.message) {
            send.deadlines.message = None;
            let limit = send.settings.timeouts.message;
            if send.flags.contains(Flags::PAUSED) {
                // It is we who do not take it.
                send.deadlines.message = saturating_add(now, limit);
                return;
            }
            let close = if waiting {
                Close::new(CloseCode::TRY_AGAIN_LATER, "too many compressed messages")
            } else {
                Close::new(CloseCode::POLICY_VIOLATION, "the message took too long")
            };
            let kind = CloseKind::Timeout(Deadline::new(DeadlineStage::Message, limit));
            send.close(&mut self.inner.out, &close, kind);
            send.phase = Phase::Failed;
        }
        let stage = if due(send.deadlines.write) {
            Some(DeadlineStage::Write)
        } else if due(send.deadlines.rate) {
            Some(DeadlineStage::OutputRate)
        } else {
            None
        };
        if let Some(stage) = stage {
            send.no_output_waits();
            send.time_out(Deadline::new(stage, send.settings.timeouts.write));
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
            Role::HttpClient(_) => self.time_out_fetch(),
            Role::Linger => self.end_now(),
            Role::Ws(_) if self.conn.send.phase == Phase::Open => {
                if self.is_held_back() {
                    self.stop_holding();
                }
            }
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
        if self.is_waiting() {
            return;
        }
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
                let limit = send.settings.retry.hang_up_after().unwrap_or_default();
                send.time_out(Deadline::new(DeadlineStage::Silence, limit));
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
        let ws = match role {
            Role::Ws(ws) if send.is_open() => ws,
            Role::Http(_) => return self.on_http_timer(tag),
            Role::Client(_) | Role::HttpClient(_) | Role::Linger | Role::Ws(_) => return,
        };
        if let Some(bound) = self.parts.protocols.get_mut(send.protocol as usize) {
            let mut wsi = Wsi::new(self.inner, send, io.as_mut());
            bound.dispatch.timer(&mut wsi, ws.session, tag);
        }
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

impl Conn {
    /// Makes sure that its one alarm is not later than its next deadline. One that is too early
    /// costs a visit; moving it for every message would cost more.
    pub(crate) fn refile(&mut self, out: &mut Out) {
        let Some(at) = self.next_deadline() else {
            return;
        };
        let at = out.epoch.moment(at);
        let send = &mut self.send;
        if let Some(armed) = send.armed {
            if armed <= at {
                return;
            }
            out.alarms.forget();
        }
        out.alarms.set(Alarm::new(at, send.id.index));
        send.armed = Some(at);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let send = &self.send;
        let deadlines = &send.deadlines;
        let role = match &self.role {
            Role::Client(client) => client.wakes_at(),
            Role::Ws(_) if self.is_waiting() => None,
            Role::Ws(_) if send.phase == Phase::Open && !send.flags.contains(Flags::PAUSED) => {
                send.validity_at()
            }
            Role::Http(_) | Role::HttpClient(_) | Role::Linger | Role::Ws(_) => None,
        };
        let output = [deadlines.write, deadlines.rate];
        let all = [deadlines.stage, deadlines.message, role];
        all.into_iter().chain(output).flatten().min()
    }
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
                self.deadlines.cause = Some(Box::new(cause));
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
        self.settings
            .retry
            .validity(self.last_received(), now, ping)
    }

    fn validity_at(&self) -> Option<Instant> {
        let last = self.last_received();
        match self.validity(last) {
            Validity::Wait(at) => at,
            Validity::HangUp | Validity::SendPing => Some(last),
        }
    }
}
