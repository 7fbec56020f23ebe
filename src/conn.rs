//! One connection: its transport, its receiving and sending halves, its deadlines, and the role
//! that it plays now.

mod deadlines;
mod message;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitflags::bitflags;
use bytes::Bytes;

use self::deadlines::Deadlines;
use crate::compression::Agreed;
use crate::config::Settings;
use crate::dial::ClientRole;
use crate::error::{ABNORMAL, CloseCause, CloseKind, CloseSide, Deadline, NO_STATUS, SendError};
use crate::fetch::HttpClientRole;
use crate::hook::{Attributes, NO_ATTRIBUTES};
use crate::id::{VhostId, WsiId};
use crate::inner::{Out, TimerKind};
use crate::net::transport::Io;
use crate::timer::{Moment, TimerKey, Timers, saturating_add};
use crate::upgrade::{HttpRole, NO_SESSION};
use crate::ws::close::write_close_payload;
use crate::ws::frame::Opcode;
use crate::ws::recv::Recv;
use crate::ws::send::{Coding, Fin, TxQueue, append_frame, encode_header, opcode};
use crate::ws::{Close, CloseCode, CloseFrame, MessageKind, ProtocolError, Side};

/// A connection, in its slot or lifted out of it.
#[derive(Debug)]
pub(crate) struct Conn {
    /// `None` while a client has no connected transport yet.
    pub(crate) io: Option<Io>,
    pub(crate) role: Role,
    pub(crate) send: SendHalf,
    /// Received and not processed: a partial frame header, or what came while reading paused.
    pub(crate) stash: Stash,
}

/// The state machine that a connection runs now.
#[derive(Debug)]
pub(crate) enum Role {
    /// A client before its connection is established.
    Client(Box<ClientRole>),
    /// A client's connection that speaks HTTP.
    HttpClient(Box<HttpClientRole>),
    /// A server connection before it is upgraded.
    Http(Box<HttpRole>),
    /// Everything was said and the writing side is shut down: what the peer still sends is
    /// dropped until it ends the stream, so that no reset destroys our last words.
    Linger,
    /// An established WebSocket.
    Ws(WsRole),
}

#[derive(Debug)]
pub(crate) struct WsRole {
    pub(crate) recv: Recv,
    /// Where the protocol keeps the session.
    pub(crate) session: usize,
}

impl Conn {
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.role, Role::Ws(_)) && self.send.phase != Phase::Ended
    }

    /// Whether its final event has been given, or will never come.
    pub(crate) fn is_told(&self) -> bool {
        match &self.role {
            Role::Client(_) | Role::Http(_) | Role::HttpClient(_) => false,
            Role::Linger => true,
            Role::Ws(ws) => ws.session == NO_SESSION,
        }
    }

    /// Heap and inline bytes that this connection costs the library; the session is not counted.
    pub(crate) fn memory(&self) -> usize {
        let role = match &self.role {
            Role::Client(client) => size_of_val(&**client),
            Role::Http(http) => size_of_val(&**http),
            Role::HttpClient(http) => http.memory(),
            Role::Linger => 0,
            Role::Ws(ws) => ws.recv.memory(),
        };
        let io = self.io.as_ref().map_or(0, |io| io.memory());
        let secure = self.io.as_ref().and_then(|io| io.secure.as_ref());
        let secure = secure.map_or(0, |secure| secure.memory());
        size_of::<Self>() + role + io + secure + self.stash.memory() + self.send.memory()
    }
}

/// Bytes that wait to be processed.
#[derive(Debug, Default)]
pub(crate) enum Stash {
    #[default]
    Empty,
    /// Short of a frame header: kept in place, put in front of what is read next.
    Header {
        len: u8,
        bytes: [u8; STASHED_HEADER],
    },
    /// Anything longer.
    Heap(Box<Aside>),
}

/// What was put aside.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) bytes: Vec<u8>,
    /// How many of them are used up.
    pub(crate) done: usize,
}

/// A frame header is at most 14 bytes, so an incomplete one is shorter.
pub(crate) const STASHED_HEADER: usize = 14;

impl Stash {
    /// Keeps the begin of a frame header, which has at most 13 bytes.
    pub(crate) fn header(begin: &[u8]) -> Self {
        let mut bytes = [0; STASHED_HEADER];
        match bytes.get_mut(..begin.len()) {
            Some([]) | None => Self::Empty,
            Some(place) => {
                place.copy_from_slice(begin);
                let len = begin.len() as u8;
                Self::Header { len, bytes }
            }
        }
    }

    /// Keeps what nobody wants now, but for the first `done` bytes.
    pub(crate) fn aside(bytes: Vec<u8>, done: usize) -> Self {
        if done >= bytes.len() {
            return Self::Empty;
        }
        Self::Heap(Box::new(Aside { bytes, done }))
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Header { len, .. } => *len as usize,
            Self::Heap(aside) => aside.bytes.len() - aside.done,
        }
    }

    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Empty | Self::Header { .. } => 0,
            Self::Heap(aside) => size_of::<Aside>() + aside.bytes.capacity(),
        }
    }
}

/// How far the WebSocket connection is in its life, seen from the sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not established: nothing can be sent.
    Opening,
    /// Messages go both ways.
    Open,
    /// Our Close frame is queued or sent; the peer's is awaited.
    CloseSent,
    /// Both Close frames are there, ours perhaps still in the queue.
    CloseDone,
    /// The peer broke the protocol: after our Close frame nothing more is expected of it.
    Failed,
    /// The final event is due or has been given.
    Ended,
}

bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Flags: u16 {
        /// In the list of connections to settle.
        const DIRTY = 1;
        /// Being worked on: whoever lifted it settles it too.
        const LIFTED = 1 << 1;
        /// `on_writable` was asked for.
        const WANT_WRITABLE = 1 << 2;
        /// The application does not want data now.
        const PAUSED = 1 << 3;
        /// Ends now, without a closing handshake.
        const ABORT = 1 << 4;
        /// In the list of connections with work left over.
        const READY = 1 << 5;
        /// A validity ping is out.
        const PING_SENT = 1 << 6;
        /// Counts as a TLS handshake in progress.
        const HANDSHAKING = 1 << 7;
        /// At the end of its last visit there was nothing about it but that it waits for bytes
        /// ([`Conn::is_calm`]), and nothing has happened to it since. Whatever gives it something
        /// else to do takes this away ([`SendHalf::mark`]) or sets another flag; messages to
        /// write leave it and set `DIRTY`.
        const CALM = 1 << 8;
        /// Messages may be appended to the queue without asking whether they may, as far as
        /// [`TxQueue::open`] has said. Whatever changes that goes by [`SendHalf::mark`].
        const SENDS = 1 << 9;
        /// The peer has sent more behind its Close frame.
        const TALKS_ON = 1 << 10;
    }
}

impl Flags {
    /// What a calm connection may have set while it is visited.
    pub(crate) const CALM_VISIT: Self = Self::CALM.union(Self::LIFTED).union(Self::SENDS);

    /// Whether a calm connection is being visited because bytes came, and nothing but messages that
    /// may be sent at once has come of them yet.
    #[inline]
    pub(crate) fn is_calm_visit(self) -> bool {
        self - Self::SENDS == Self::CALM.union(Self::LIFTED)
    }

    /// Whether all that has happened to a calm connection is that messages were queued.
    #[inline]
    pub(crate) fn is_calm_output(self) -> bool {
        self == Self::CALM.union(Self::DIRTY)
    }
}

/// The half of a connection that callbacks may touch: what it sends, how it ends, its clock.
#[derive(Debug)]
pub(crate) struct SendHalf {
    pub(crate) id: WsiId,
    /// Index of the protocol; [`NO_PROTOCOL`] while none owns the connection.
    pub(crate) protocol: u32,
    pub(crate) side: Side,
    pub(crate) phase: Phase,
    pub(crate) flags: Flags,
    /// The fragmented message that is open.
    pub(crate) fragment: Option<MessageKind>,
    /// Those of its vhost, which they name.
    pub(crate) settings: Arc<Settings>,
    pub(crate) tx: TxQueue,
    pub(crate) last_received: Moment,
    pub(crate) deadlines: Deadlines,
    /// When the one alarm is set for that serves them all and the validity; it may be early, then
    /// it moves on.
    pub(crate) armed: Option<Moment>,
    /// Whether it has been calm as what it is now.
    pub(crate) settled: bool,
    /// The protocol whose runs its calm visits are part of (see `Run`); [`NO_PROTOCOL`] over TLS and
    /// on a client, which have none.
    pub(crate) runs_with: u32,
    pub(crate) rare: Option<Box<Rare>>,
    /// What was agreed on about compression.
    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "nothing"))]
    pub(crate) compression: Agreed,
}

pub(crate) const NO_PROTOCOL: u32 = u32::MAX;

/// What few connections have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) timers: Vec<TimerKey>,
    pub(crate) ping: Option<SentPing>,
    pub(crate) held_pong: Option<Vec<u8>>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) subprotocol: Option<Box<str>>,
    /// What a hook said about it.
    pub(crate) attributes: Attributes,
    /// What a client needs to dial again.
    pub(crate) redial: Option<Box<crate::dial::Redial>>,
}

#[derive(Debug)]
pub(crate) struct SentPing {
    pub(crate) payload: Box<[u8]>,
    pub(crate) at: Instant,
}

/// What an accepted send tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// Bytes that wait to be sent on this connection, frame headers included.
    pub buffered: usize,
}

impl SendHalf {
    pub(crate) fn new(id: WsiId, side: Side, settings: Arc<Settings>, now: Moment) -> Self {
        Self {
            id,
            protocol: NO_PROTOCOL,
            side,
            phase: Phase::Opening,
            flags: Flags::empty(),
            fragment: None,
            settings,
            tx: TxQueue::default(),
            last_received: now,
            deadlines: Deadlines::default(),
            armed: None,
            settled: false,
            runs_with: NO_PROTOCOL,
            rare: None,
            compression: Agreed::default(),
        }
    }

    #[inline]
    pub(crate) fn vhost(&self) -> VhostId {
        self.settings.home.vhost
    }

    /// When the last byte came, or what counts as one.
    pub(crate) fn last_received(&self) -> Instant {
        let epoch = self.settings.home.epoch;
        let last = epoch.instant(self.last_received);
        last.expect("it was made of an instant")
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        let rare = self.rare.as_ref();
        rare.map_or(&NO_ATTRIBUTES, |rare| &rare.attributes)
    }

    /// Notes a timer of the connection, so that it can be cancelled with it.
    pub(crate) fn keep_timer(&mut self, timers: &Timers<TimerKind>, key: TimerKey) {
        let own = &mut self.rare().timers;
        if own.len() == own.capacity() {
            // Cancelled ones are swept out before the list grows, and seldom enough to be cheap.
            own.retain(|timer| timers.is_armed(*timer));
            own.reserve(own.len().max(4));
        }
        own.push(key);
    }

    fn memory(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            let timers = rare.timers.capacity() * size_of::<TimerKey>();
            size_of::<Rare>() + timers + rare.attributes.len()
        });
        self.tx.memory() + self.deadlines.memory() + rare + self.compression_memory()
    }

    /// Established, and nobody has begun to end it.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open && !self.flags.contains(Flags::ABORT)
    }

    /// Whether messages are given to the application now.
    #[inline]
    pub(crate) fn is_giving(&self) -> bool {
        self.phase == Phase::Open && !self.flags.intersects(Flags::PAUSED | Flags::ABORT)
    }

    /// Whether data and control frames are taken from the peer now.
    pub(crate) fn is_reading(&self) -> bool {
        match self.phase {
            Phase::Open => !self.flags.intersects(Flags::PAUSED | Flags::ABORT),
            Phase::CloseSent => !self.flags.contains(Flags::ABORT),
            Phase::Opening | Phase::CloseDone | Phase::Failed | Phase::Ended => false,
        }
    }

    /// Makes sure that the loop comes by: once per turn, however often this is called.
    #[inline]
    pub(crate) fn mark(&mut self, out: &mut Out) {
        self.flags -= Flags::CALM | Flags::SENDS;
        if !self.flags.intersects(Flags::DIRTY | Flags::LIFTED) {
            self.flags |= Flags::DIRTY;
            out.dirty.push(self.id);
        }
    }

    /// The same after a message has been queued. Who was calm has nothing else to do but to write
    /// it.
    #[inline]
    fn mark_message(&mut self, out: &mut Out) {
        if self.flags == Flags::CALM {
            self.flags |= Flags::DIRTY;
            out.dirty.push(self.id);
        } else if !self.flags.is_calm_output() {
            self.mark(out);
        }
    }

    pub(crate) fn send_owned(
        &mut self,
        out: &mut Out,
        kind: MessageKind,
        payload: Bytes,
    ) -> Result<Queued, SendError> {
        self.admit(payload.len())?;
        #[cfg(feature = "deflate")]
        if self.push_compressed(out, kind, &payload, Default::default()) {
            return Ok(self.queued());
        }
        if self.side == Side::Client {
            self.push_plain(out, Fin::Last, opcode(kind), &payload);
        } else {
            let len = payload.len();
            self.tx.append(&mut out.pool, |tail| {
                let mut header = [0; 14];
                let (opcode, plain) = (opcode(kind), Coding::Plain);
                let used = encode_header(&mut header, Fin::Last, opcode, plain, None, len);
                tail.extend_from_slice(header.get(..used).unwrap_or_default());
            });
            self.tx.append_shared(&mut out.pool, payload);
            self.mark_message(out);
        }
        Ok(self.queued())
    }

    pub(crate) fn send_fragment(
        &mut self,
        out: &mut Out,
        kind: MessageKind,
        payload: &[u8],
        fin: Fin,
    ) -> Result<Queued, SendError> {
        self.admit_bytes(payload.len())?;
        let code = match self.fragment {
            Some(open) if open != kind => return Err(SendError::FragmentOpen),
            Some(_) => Opcode::Continuation,
            None => opcode(kind),
        };
        self.fragment = match fin {
            Fin::Last => None,
            Fin::More => Some(kind),
        };
        #[cfg(feature = "deflate")]
        {
            let begins = (code != Opcode::Continuation).then_some(kind);
            if self.push_compressed_fragment(out, begins, payload, fin) {
                return Ok(self.queued());
            }
        }
        self.push_plain(out, fin, code, payload);
        Ok(self.queued())
    }

    pub(crate) fn send_ping(&mut self, out: &mut Out, payload: &[u8]) -> Result<Queued, SendError> {
        if payload.len() > MAX_CONTROL {
            return Err(SendError::ControlTooLong { len: payload.len() });
        }
        self.admit_bytes(payload.len())?;
        self.push_ping(out, payload);
        Ok(self.queued())
    }

    /// The library's own ping, which no cap holds back: there is one at a time.
    pub(crate) fn push_ping(&mut self, out: &mut Out, payload: &[u8]) {
        let at = out.now;
        self.rare().ping = Some(SentPing {
            payload: payload.into(),
            at,
        });
        self.push_plain(out, Fin::Last, Opcode::Ping, payload);
        self.tx.note_ping();
    }

    /// Whether our ping is behind what else waits: the peer cannot have seen it.
    pub(crate) fn is_ping_unsent(&self) -> bool {
        let rare = self.rare.as_ref();
        let waits = self.tx.holds_ping() && rare.is_some_and(|rare| rare.ping.is_some());
        waits && self.flags.contains(Flags::PING_SENT)
    }

    /// Our ping has left the queue: from now on the peer has as long as it always has.
    pub(crate) fn ping_left(&mut self, now: Instant) {
        let before = self.settings.retry.ping_after().unwrap_or_default();
        let since = now.checked_sub(before).unwrap_or(now);
        let since = self.settings.home.epoch.moment(since);
        self.last_received = self.last_received.max(since);
    }

    /// RFC 6455 section 5.5.3: a ping is answered with its payload; of several unanswered ones the
    /// latest is enough.
    pub(crate) fn push_pong(&mut self, out: &mut Out, payload: &[u8]) {
        if self.phase != Phase::Open {
            return;
        }
        let held = self
            .rare
            .as_ref()
            .is_some_and(|rare| rare.held_pong.is_some());
        let limit = self.settings.limits.pong_bytes;
        let unsent = self.tx.pong_bytes();
        if held || unsent > 0 && unsent + payload.len() > limit {
            self.rare().held_pong = Some(payload.to_vec());
            self.flags -= Flags::CALM;
            return;
        }
        self.push_plain(out, Fin::Last, Opcode::Pong, payload);
        self.tx.note_pong(payload.len() + 6);
    }

    /// Queues the pong that was held back, once those before it have left. Whether it did.
    pub(crate) fn release_pong(&mut self, out: &mut Out) -> bool {
        if self.tx.pong_bytes() > 0 {
            return false;
        }
        let held = self.rare.as_mut().and_then(|rare| rare.held_pong.take());
        if let Some(payload) = &held {
            self.push_pong(out, payload);
        }
        held.is_some()
    }

    /// The round trip time if this answers our last ping.
    pub(crate) fn match_pong(&mut self, now: Instant, payload: &[u8]) -> Option<Duration> {
        let rare = self.rare.as_mut()?;
        rare.ping
            .take_if(|ping| *ping.payload == *payload)
            .map(|ping| {
                let rtt = now.saturating_duration_since(ping.at);
                rare.rtt = Some(rtt);
                rtt
            })
    }

    /// Begins the closing handshake. Later calls change nothing.
    pub(crate) fn close(&mut self, out: &mut Out, close: &Close, kind: CloseKind) {
        match self.phase {
            // Aborted already: nothing is sent any more.
            Phase::Open if !self.is_open() => {}
            Phase::Open => {
                let code = close.code().value();
                if !matches!(kind, CloseKind::Timeout(_) | CloseKind::IdentityReplaced) {
                    self.stay_away();
                }
                self.set_cause(CloseCause::new(
                    CloseSide::Local,
                    code,
                    close.reason(),
                    kind,
                ));
                self.push_close(out, close.code(), close.reason());
                self.phase = Phase::CloseSent;
                self.begin_close(out);
            }
            Phase::Opening => self.abort(out, kind),
            Phase::CloseSent | Phase::CloseDone | Phase::Failed | Phase::Ended => {
                // What this side began for another reason, to dial again, is now the end.
                let cause = self.deadlines.cause.as_ref();
                let is_drain =
                    |cause: &CloseCause| matches!(cause.kind, CloseKind::IdentityReplaced);
                if cause.is_some_and(|cause| is_drain(cause)) {
                    self.stay_away();
                }
            }
        }
    }

    /// Ends the connection at the next opportunity, without a closing handshake.
    pub(crate) fn abort(&mut self, out: &mut Out, kind: CloseKind) {
        if self.phase == Phase::Ended {
            return;
        }
        self.stay_away();
        self.set_cause(CloseCause::abnormal(CloseSide::Local, kind));
        self.flags |= Flags::ABORT;
        self.mark(out);
    }

    /// The end is wanted on this side, however it comes about now: a client does not dial again.
    fn stay_away(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.redial = None;
        }
    }

    /// RFC 6455 section 7.1.7: fails the connection.
    pub(crate) fn fail(&mut self, out: &mut Out, error: ProtocolError) {
        let close = Close::new(error.close_code(), error.peer_reason());
        let code = close.code().value();
        match self.phase {
            Phase::Open => {
                let kind = CloseKind::Protocol(error);
                self.set_cause(CloseCause::new(
                    CloseSide::Local,
                    code,
                    close.reason(),
                    kind,
                ));
                self.push_close(out, close.code(), close.reason());
            }
            // Our Close is on its way already; the peer's bad frame ends the wait for its own.
            Phase::CloseSent => {}
            Phase::Opening | Phase::CloseDone | Phase::Failed | Phase::Ended => return,
        }
        self.phase = Phase::Failed;
        self.begin_close(out);
    }

    /// The peer's Close frame came. Whether the peer began it.
    pub(crate) fn peer_closed(&mut self, out: &mut Out, frame: Option<CloseFrame<'_>>) -> bool {
        match self.phase {
            Phase::Open => {
                let (code, reason) = match &frame {
                    Some(frame) => (frame.code().value(), frame.reason()),
                    None => (NO_STATUS, ""),
                };
                self.set_cause(CloseCause::new(
                    CloseSide::Peer,
                    code,
                    reason,
                    CloseKind::Peer,
                ));
                // RFC 6455 section 5.5.1: "it typically echos the status code it received"; the
                // reason goes with it, since browsers show their users what comes back.
                match frame {
                    Some(frame) => self.push_close(out, frame.code(), frame.reason()),
                    None => self.push_plain(out, Fin::Last, Opcode::Close, &[]),
                }
                self.phase = Phase::CloseDone;
                self.begin_close(out);
                true
            }
            Phase::CloseSent => {
                self.phase = Phase::CloseDone;
                self.mark(out);
                false
            }
            Phase::Opening | Phase::CloseDone | Phase::Failed | Phase::Ended => false,
        }
    }

    /// Keeps the first cause: what comes later is its consequence.
    pub(crate) fn set_cause(&mut self, cause: CloseCause) {
        if self.deadlines.cause.is_none() {
            self.deadlines.cause = Some(Box::new(cause));
        }
    }

    /// The final cause, with what was left in the queue and in records.
    pub(crate) fn take_cause(&mut self, sealed: usize) -> CloseCause {
        let cause = self.deadlines.cause.take().map(|cause| *cause);
        let mut cause =
            cause.unwrap_or_else(|| CloseCause::abnormal(CloseSide::Peer, CloseKind::EndOfStream));
        cause.undelivered = (self.tx.len() + sealed) as u64;
        cause.clean =
            self.phase == Phase::CloseDone && cause.undelivered == 0 && cause.code != ABNORMAL;
        cause
    }

    /// Of the output `taken` bytes have left since the last call, and `waiting` have not.
    pub(crate) fn output_waits(&mut self, now: Instant, taken: usize, waiting: usize) {
        let begin = saturating_add(now, self.settings.timeouts.write);
        if taken > 0 || self.deadlines.write.is_none() {
            self.deadlines.write = begin;
        }
        let rate = self.settings.limits.output_rate as u64;
        let time = |bytes: usize| {
            let millis = (bytes as u64).saturating_mul(1000).checked_div(rate);
            millis.map_or(Duration::MAX, Duration::from_millis)
        };
        let due = self.deadlines.rate.or(begin);
        let due = due.and_then(|due| saturating_add(due, time(taken)));
        // Who was fast long ago, or once, has not earned more than the rest takes.
        let most = begin.and_then(|begin| saturating_add(begin, time(waiting)));
        self.deadlines.rate = [due, most].into_iter().flatten().min();
    }

    /// A write that took `taken` bytes of the output has ended.
    pub(crate) fn note_output(&mut self, now: Instant, taken: usize, io: &Io) {
        if io.is_flushed(&self.tx) || io.write_error().is_some() {
            self.no_output_waits();
        } else {
            self.output_waits(now, taken, io.waiting(&self.tx));
        }
    }

    #[inline]
    pub(crate) fn has_no_output_deadline(&self) -> bool {
        self.deadlines.write.is_none() && self.deadlines.rate.is_none()
    }

    pub(crate) fn no_output_waits(&mut self) {
        self.deadlines.no_output();
    }

    /// A deadline passed: the cause says so unless the connection was closing cleanly.
    pub(crate) fn time_out(&mut self, deadline: Deadline) {
        if self.deadlines.cause.is_none() || self.phase == Phase::CloseSent {
            self.deadlines.cause = Some(Box::new(CloseCause::abnormal(
                CloseSide::Local,
                CloseKind::Timeout(deadline),
            )));
        }
    }

    fn begin_close(&mut self, out: &mut Out) {
        self.flags -= Flags::WANT_WRITABLE;
        self.deadlines.message = None;
        self.deadlines.stage = saturating_add(out.now, self.settings.timeouts.close);
        self.mark(out);
    }

    /// May a whole message of that length be queued now?
    #[inline]
    pub(crate) fn admit(&self, len: usize) -> Result<(), SendError> {
        let limits = &self.settings.limits;
        let is_first = self.tx.is_empty() && self.fragment.is_none();
        if is_first && self.is_open() && len <= limits.message_bytes {
            return Ok(());
        }
        self.judge(len)
    }

    #[inline(never)]
    fn judge(&self, len: usize) -> Result<(), SendError> {
        if self.fragment.is_some() {
            return Err(SendError::FragmentOpen);
        }
        self.admit_bytes(len)
    }

    fn admit_bytes(&self, len: usize) -> Result<(), SendError> {
        match self.phase {
            Phase::Open if self.flags.contains(Flags::ABORT) => return Err(SendError::Closing),
            Phase::Open => {}
            Phase::Opening => return Err(SendError::NotEstablished),
            Phase::CloseSent | Phase::CloseDone | Phase::Failed => return Err(SendError::Closing),
            Phase::Ended => return Err(SendError::Gone),
        }
        let limits = &self.settings.limits;
        if len > limits.message_bytes {
            return Err(SendError::TooLarge {
                len,
                limit: limits.message_bytes,
            });
        }
        let buffered = self.tx.len();
        if buffered > 0 && buffered.saturating_add(len) > limits.output_bytes {
            return Err(SendError::Full {
                buffered,
                limit: limits.output_bytes,
            });
        }
        Ok(())
    }

    pub(crate) fn queued(&self) -> Queued {
        Queued {
            buffered: self.tx.len(),
        }
    }

    fn push_close(&mut self, out: &mut Out, code: CloseCode, reason: &str) {
        let mut payload = [0; MAX_CONTROL];
        let len = write_close_payload(code, reason, &mut payload);
        let payload = payload.get(..len).unwrap_or_default();
        self.push_plain(out, Fin::Last, Opcode::Close, payload);
    }

    fn push_plain(&mut self, out: &mut Out, fin: Fin, opcode: Opcode, payload: &[u8]) {
        self.push_frame(out, fin, opcode, Coding::Plain, payload);
    }

    #[inline(never)]
    pub(crate) fn push_frame(
        &mut self,
        out: &mut Out,
        fin: Fin,
        opcode: Opcode,
        coding: Coding,
        payload: &[u8],
    ) {
        let mask = match self.side {
            Side::Client => Some(out.random.mask()),
            Side::Server => None,
        };
        self.tx.append(&mut out.pool, |tail| {
            append_frame(tail, fin, opcode, coding, mask, payload)
        });
        match (fin, opcode) {
            (Fin::Last, Opcode::Text | Opcode::Binary) => self.mark_message(out),
            _ => self.mark(out),
        }
    }
}

/// RFC 6455 section 5.5: the payload of a control frame.
const MAX_CONTROL: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    /// There are many of them.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn what_every_connection_has_stays_small() {
        assert!(size_of::<SendHalf>() <= 88, "{}", size_of::<SendHalf>());
        assert!(size_of::<Stash>() <= 16, "{}", size_of::<Stash>());
        // A stream of mio's or of the simulation may be larger than a descriptor.
        let io = size_of::<Option<Io>>() - size_of::<crate::net::stream::Stream>();
        assert!(io <= 32, "{io}");
        #[cfg(feature = "tls")]
        {
            let secure = size_of::<crate::secure::Secure>();
            assert!(secure <= 40, "{secure}");
        }
    }
}
