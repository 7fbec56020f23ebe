//! One TLS connection between buffers that belong to somebody else.
//!
//! A session keeps no buffer of its own but for the begin of a record whose end has not come.
//! Plaintext is appended to a buffer of the loop, and what goes to the wire is encrypted to the
//! end of another.
//!
//! Next to rustls' buffered connections (`benches/tls.rs`, aws-lc-rs, TLS 1.3 with AES-256-GCM),
//! an idle connection takes 2.4 KB as a server and 2.8 KB as a client in place of 6.3 KB and 7.0
//! KB; opening a record of 16 KiB takes one allocation and 1.25 us in place of five and 1.65 us;
//! sealing, and opening records of 125 bytes, differ by less than a tenth in either direction.

mod agreed;
mod calm;
mod handshake;
mod unsettled;

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, ProtocolVersion, ServerConfig};

use self::handshake::Handshake;
use self::unsettled::Unsettled;
use super::alert::Alert;
use super::failure::{TlsFailure, TlsStage};
use super::hello::{self, ClientHello, HelloScan, Sniffed, TlsVersion};
use super::info::TlsInfo;
use super::last_alert;
use super::tap::{ALERT, MAX_FRAGMENT_LEN, RECORD_HEADER_LEN};
use super::trace::{self, HelloSummary, Recorder, Scope, TlsHandshake, TlsStep, TlsTrace};
use super::unbuffered::{self, Buffers, Place, SealError, SentAlert, Turn, Unbuffered};
use crate::error::Deadline;

/// One TLS connection, client or server.
///
/// It does no I/O and has no clock. After a failure it takes and gives nothing any more.
pub(crate) struct Session {
    /// rustls' half. A server has none until its client's hello is there, and none any more once
    /// it has refused its client after the handshake.
    engine: Option<Box<Engine>>,
    /// All that is not over yet.
    unsettled: Option<Box<Unsettled>>,
    server_name: Option<Arc<Name>>,
}

/// rustls' half, by the side of the connection.
enum Engine {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// The name of a server. Connections that follow each other mostly ask for the same one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name(Box<str>);

/// What the chooser of a server's configuration answers. An error refuses the connection, with the
/// alert that [`TlsFailure::alert`] names.
pub(crate) type Selection = Result<Chosen, TlsFailure>;

/// The configuration for a connection.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) config: Arc<ServerConfig>,
    /// Whether it asks the client for a certificate. rustls does not tell, and TLS 1.3 hides it on
    /// the wire; `false` if it is not known.
    pub(crate) requests_certificate: bool,
}

/// What came of received bytes, besides plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// The handshake was completed by them. There may be plaintext already.
    pub(crate) established_now: bool,
    /// The peer has ended its side in order (`close_notify`); no more plaintext will come. Stays
    /// set.
    pub(crate) closed_by_peer: bool,
}

impl Session {
    /// A server's session: it waits for a ClientHello.
    pub(crate) fn server(now: Instant) -> Self {
        Self::new(None, now)
    }

    /// A client's session for the server `name`, which is what goes out as SNI and what the
    /// certificate is verified for, unless `config` says otherwise. Its ClientHello is appended to
    /// `out`.
    ///
    /// # Errors
    ///
    /// [`TlsFailure::Internal`] if rustls finds the configuration unusable.
    pub(crate) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Self, TlsFailure> {
        let refused = |error| TlsFailure::from_rustls(error, SentAlert::Nothing);
        let server_name = Arc::new(Name(name.to_str().into()));
        let client = UnbufferedClientConnection::new(config, name).map_err(refused)?;
        let mut session = Self::new(Some(Engine::Client(client)), now);
        session.server_name = Some(server_name);
        session.traced(now, |session| session.begin(out))?;
        Ok(session)
    }

    fn new(engine: Option<Engine>, now: Instant) -> Self {
        let unsettled = Unsettled {
            handshake: Some(Box::default()),
            recorder: Some(Box::new(Recorder::new(now))),
            ..Unsettled::default()
        };
        Self {
            engine: engine.map(Box::new),
            unsettled: Some(Box::new(unsettled)),
            server_name: None,
        }
    }

    /// Takes `input`, the bytes that have just come. Plaintext goes to `place`, and what there is
    /// no room for is appended to `plain`; what goes to the peer (handshake messages, alerts, tickets) is appended to `out`. Both also on
    /// failure: data ahead of what failed is good, and the alert wants to be sent.
    ///
    /// `input` is used as working memory. All of its complete records are worked off: nothing
    /// waits for another call. After [`close`](Self::close) it is ignored.
    ///
    /// `select` chooses a server's configuration when the ClientHello is complete, once; a
    /// client's session never calls it. During the call [`trace::note`] writes to this session's
    /// trace.
    ///
    /// # Errors
    ///
    /// Why the connection cannot go on. The same failure is answered to all later calls.
    pub(crate) fn receive(
        &mut self,
        input: &mut [u8],
        place: &mut Place<'_>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
        now: Instant,
        select: &mut dyn FnMut(&ClientHello) -> Selection,
    ) -> Result<Received, TlsFailure> {
        if self.is_calm() {
            return match self.receive_calmly(input, place, plain) {
                Ok(()) => Ok(Received::default()),
                Err(odd) => self.received_oddly(*odd, input, out),
            };
        }
        if let Some(failure) = self.failure() {
            return Err(failure.clone());
        }
        let handshaking = self.is_handshaking();
        if self.is_open() && !input.is_empty() {
            let result = self.traced(now, |session| {
                let mut buffers = Buffers { place, plain, out };
                let result = session.take(input, &mut buffers, select);
                result.map_err(|stop| session.fail(stop, buffers.out))
            });
            self.settle();
            result?;
        }
        Ok(Received {
            established_now: handshaking && !self.is_handshaking(),
            closed_by_peer: self.is_closed_by_peer(),
        })
    }

    /// Whether nothing but application data is on anybody's mind: established, in order, not in
    /// the middle of a record, and past all that the trace is kept for.
    #[inline]
    pub(crate) const fn is_calm(&self) -> bool {
        self.unsettled.is_none()
    }

    /// Encrypts `plaintext` to the end of `out`, in records of at most 16 KiB (or what the
    /// configuration says). Answers to the peer's key updates go ahead of it.
    ///
    /// # Errors
    ///
    /// When the session cannot send: not yet, or not any more.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if !self.is_open() {
            return Err(SealError::Closed);
        }
        if self.is_handshaking() {
            return Err(SealError::NotEstablished);
        }
        let stash = stash_of(&mut self.unsettled);
        let result = match self.engine.as_deref_mut() {
            Some(Engine::Client(client)) => unbuffered::seal(client, stash, plaintext, out),
            Some(Engine::Server(server)) => unbuffered::seal(server, stash, plaintext, out),
            None => Err(SealError::NotEstablished),
        };
        if result.is_err() {
            self.unsettled().closed_by_us = true;
        }
        result
    }

    /// As [`seal`](Self::seal), to the begin of `room`; how many bytes the records take. `None` if
    /// nothing was encrypted, because it does not fit or something has to go ahead of it: `seal`
    /// does it then.
    ///
    /// # Errors
    ///
    /// As for `seal`.
    pub(crate) fn seal_into(
        &mut self,
        plaintext: &[u8],
        room: &mut [u8],
    ) -> Result<Option<usize>, SealError> {
        if !self.can_send() {
            return Ok(None);
        }
        let stash = stash_of(&mut self.unsettled);
        let result = match self.engine.as_deref_mut() {
            Some(Engine::Server(server)) => unbuffered::seal_into(server, stash, plaintext, room),
            Some(Engine::Client(client)) => unbuffered::seal_into(client, stash, plaintext, room),
            None => Ok(None),
        };
        if result.is_err() {
            self.unsettled().closed_by_us = true;
        }
        result
    }

    /// Ends our side in order: `close_notify` is appended to `out`, once. Call it when nothing
    /// more is wanted from the peer either: what still comes is ignored.
    ///
    /// Does nothing to a handshake, which has no orderly end, nor after a failure.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        if !self.can_send() {
            return;
        }
        let stash = stash_of(&mut self.unsettled);
        match self.engine.as_deref_mut() {
            Some(Engine::Client(client)) => unbuffered::close(client, stash, out),
            Some(Engine::Server(server)) => unbuffered::close(server, stash, out),
            None => {}
        }
        let unsettled = self.unsettled();
        unsettled.closed_by_us = true;
        unsettled.stash = Vec::new();
    }

    /// A server refuses its client although the handshake is complete and in order: the alert that
    /// says why is appended to `out`. What still comes is ignored.
    pub(crate) fn refuse(&mut self, failure: &TlsFailure, out: &mut Vec<u8>, now: Instant) {
        if !self.can_send() {
            return;
        }
        let info = TlsInfo::of(self).map(Box::new);
        let sent = match (self.engine.take().map(|engine| *engine), failure.alert()) {
            (Some(Engine::Server(server)), Some(alert)) => last_alert::write(server, alert, out),
            _ => SentAlert::Nothing,
        };
        self.traced(now, |_| note_failure(failure, sent));
        let unsettled = self.unsettled();
        unsettled.refused = info;
        unsettled.stash = Vec::new();
        unsettled.failure = Some(Box::new(failure.clone()));
    }

    /// What the handshake agreed on, after [`refuse`](Self::refuse).
    pub(crate) fn refused_info(&self) -> Option<&TlsInfo> {
        self.unsettled.as_ref()?.refused.as_deref()
    }

    /// The peer's end of stream has come.
    ///
    /// # Errors
    ///
    /// What the end means, unless it is an orderly one: `close_notify` had come, or we had closed.
    /// After a failure, that failure.
    pub(crate) fn eof(&mut self, now: Instant) -> Result<(), TlsFailure> {
        let truncated = Err(TlsFailure::Truncated);
        self.transport_ended(now, truncated, TlsFailure::Closed)
    }

    /// The transport has failed: a reset, say.
    ///
    /// # Errors
    ///
    /// What that means to a handshake; once it is complete, the transport's own error says all.
    pub(crate) fn lost(&mut self, now: Instant, kind: io::ErrorKind) -> Result<(), TlsFailure> {
        self.transport_ended(now, Ok(()), |stage| TlsFailure::Lost { stage, kind })
    }

    /// The handshake has taken too long: makes that its failure.
    pub(crate) fn time_out(&mut self, now: Instant, deadline: Deadline) -> TlsFailure {
        let stage = match self.handshake() {
            Some(handshake) => self.stage(handshake),
            None => TlsStage::ServerFinished,
        };
        self.give_up(now, TlsFailure::Timeout { deadline, stage })
    }

    /// Makes final what somebody else has found out about the peer. Nothing is said to it.
    pub(crate) fn give_up(&mut self, now: Instant, failure: TlsFailure) -> TlsFailure {
        if let Some(failure) = self.failure() {
            return failure.clone();
        }
        self.traced(now, |session| session.fail(failure.into(), &mut Vec::new()))
    }

    fn transport_ended(
        &mut self,
        now: Instant,
        established: Result<(), TlsFailure>,
        handshaking: impl FnOnce(TlsStage) -> TlsFailure,
    ) -> Result<(), TlsFailure> {
        if let Some(failure) = self.failure() {
            return Err(failure.clone());
        }
        if self.is_closed_by_peer() || !self.is_open() {
            return Ok(());
        }
        let failure = match self.handshake() {
            None => match established {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
            Some(handshake) if handshake.is_unanswered() => TlsFailure::CertificateRequestCancelled,
            Some(handshake) => handshaking(self.stage(handshake)),
        };
        Err(self.give_up(now, failure))
    }

    /// Whether [`seal`](Self::seal) works: the handshake is complete, and neither a failure nor
    /// our own `close` came after. The peer's `close_notify` changes nothing about it.
    pub(crate) fn can_send(&self) -> bool {
        let unsettled = self.unsettled.as_ref();
        unsettled.is_none_or(|state| state.handshake.is_none() && state.is_open())
    }

    /// Whether a call has failed: all later ones do too.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// Whether the handshake is not complete.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.handshake().is_some()
    }

    /// The server's name: what a client asked for (SNI), or what we ask for as a client.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_ref().map(|name| &*name.0)
    }

    /// Keeps its name together with the `last` session that had the same one.
    pub(crate) fn share_name(&mut self, last: &mut Option<Arc<Name>>) {
        if self.server_name == *last {
            self.server_name.clone_from(last);
        } else {
            last.clone_from(&self.server_name);
        }
    }

    /// The trace so far. It grows until it is taken: a TLS 1.3 client learns that its certificate
    /// is rejected only after the handshake, so take it when the peer's first data has come.
    pub(crate) fn take_trace(&mut self) -> Option<TlsTrace> {
        let recorder = self.unsettled.as_mut()?.recorder.take()?;
        self.settle();
        Some(recorder.into_trace())
    }

    /// A copy of the trace so far.
    pub(crate) fn trace(&self) -> TlsTrace {
        let unsettled = self.unsettled.as_ref();
        let recorder = unsettled.and_then(|state| state.recorder.as_ref());
        recorder
            .map(|recorder| recorder.trace())
            .unwrap_or_default()
    }

    /// Bytes that this session takes, rustls' own included as an estimate.
    pub(crate) fn memory(&self) -> usize {
        let certificates = self.peer_certificates().iter().map(|der| der.len());
        let rustls = match self.engine.as_deref() {
            None => 0,
            Some(Engine::Client(_)) => CLIENT_MEMORY,
            Some(Engine::Server(_)) => SERVER_MEMORY,
        };
        let unsettled = self.unsettled.as_ref().map_or(0, |state| state.memory());
        size_of::<Self>() + rustls + certificates.sum::<usize>() + unsettled
    }

    /// Does `work` with this session's trace as the one that is written to, if it still has one.
    fn traced<R>(&mut self, now: Instant, work: impl FnOnce(&mut Self) -> R) -> R {
        let unsettled = self.unsettled.as_mut();
        let Some(recorder) = unsettled.and_then(|state| state.recorder.take()) else {
            return work(self);
        };
        let scope = Scope::enter(recorder, now);
        let result = work(self);
        self.unsettled().recorder = scope.leave();
        result
    }

    fn common(&self) -> Option<&CommonState> {
        match self.engine.as_deref()? {
            Engine::Client(client) => Some(client.common()),
            Engine::Server(server) => Some(server.common()),
        }
    }

    fn unsettled(&mut self) -> &mut Unsettled {
        self.unsettled.get_or_insert_default()
    }

    /// Gives back what is not needed any more.
    fn settle(&mut self) {
        self.unsettled.take_if(|state| state.is_over());
    }

    fn handshake(&self) -> Option<&Handshake> {
        self.unsettled.as_ref()?.handshake.as_deref()
    }

    fn handshake_mut(&mut self) -> Option<&mut Handshake> {
        self.unsettled.as_mut()?.handshake.as_deref_mut()
    }

    fn failure(&self) -> Option<&TlsFailure> {
        self.unsettled.as_ref()?.failure.as_deref()
    }

    /// Whether neither a failure nor our own end has come.
    fn is_open(&self) -> bool {
        self.unsettled.as_ref().is_none_or(|state| state.is_open())
    }

    fn is_closed_by_peer(&self) -> bool {
        let unsettled = self.unsettled.as_ref();
        unsettled.is_some_and(|state| state.closed_by_peer)
    }

    fn stash(&self) -> &[u8] {
        let unsettled = self.unsettled.as_ref();
        unsettled.map_or(&[], |state| &state.stash)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.engine.as_deref() {
            None | Some(Engine::Server(_)) => "server",
            Some(Engine::Client(_)) => "client",
        };
        f.debug_struct("Session")
            .field("side", &side)
            .field("server_name", &self.server_name())
            .field("version", &self.version())
            .field("handshaking", &self.is_handshaking())
            .field("stash", &self.stash().len())
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

/// Why work ended, and what was said to the peer about it.
struct Stop {
    failure: TlsFailure,
    sent: SentAlert,
}

impl From<TlsFailure> for Stop {
    fn from(failure: TlsFailure) -> Self {
        Self {
            failure,
            sent: SentAlert::Nothing,
        }
    }
}

/// Receiving.
impl Session {
    /// Sends a client's hello.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), TlsFailure> {
        let begin = out.len();
        let mut buffers = Buffers {
            place: &mut Place::default(),
            plain: &mut Vec::new(),
            out,
        };
        let result = self.process(&mut [], &mut buffers);
        result.map_err(|stop| stop.failure)?;
        let sent = out.get(begin..).unwrap_or_default();
        if let Ok(Some(hello)) = HelloScan::default().scan(sent) {
            trace::note(TlsStep::HelloSent(HelloSummary::from(&hello)));
        }
        Ok(())
    }

    fn take(
        &mut self,
        input: &mut [u8],
        buffers: &mut Buffers<'_, '_>,
        select: &mut dyn FnMut(&ClientHello) -> Selection,
    ) -> Result<(), Stop> {
        if self.handshake().is_none_or(|state| state.heard) {
            return self.deliver(input, buffers);
        }
        let stash = &mut self.unsettled().stash;
        if stash.is_empty() {
            return match self.listen(input, select)? {
                true => self.deliver(input, buffers),
                false => {
                    self.unsettled().stash.extend_from_slice(input);
                    Ok(())
                }
            };
        }
        stash.extend_from_slice(input);
        let mut wire = mem::take(stash);
        match self.listen(&wire, select)? {
            true => self.deliver(&mut wire, buffers),
            false => {
                self.unsettled().stash = wire;
                Ok(())
            }
        }
    }

    /// Whether enough has come, in `wire`, to let rustls begin. A server's configuration is chosen
    /// then.
    fn listen(
        &mut self,
        wire: &[u8],
        select: &mut dyn FnMut(&ClientHello) -> Selection,
    ) -> Result<bool, TlsFailure> {
        let is_asked = self.engine.is_none();
        if let (true, Some(handshake)) = (is_asked, self.handshake_mut()) {
            let Some(hello) = handshake.hello.scan(wire)? else {
                return Ok(false);
            };
            trace::note_with(|| TlsStep::HelloReceived(HelloSummary::from(&hello)));
            let name = hello.server_name();
            self.server_name = name.map(|name| Arc::new(Name(name.into())));
            let chosen = select(&hello)?;
            let server = UnbufferedServerConnection::new(chosen.config);
            let server = server.map_err(|error| TlsFailure::Internal {
                detail: error.to_string().into(),
                alert: Some(Alert::INTERNAL_ERROR),
            })?;
            self.engine = Some(Box::new(Engine::Server(server)));
            if let Some(handshake) = self.handshake_mut() {
                handshake.requests_certificate = chosen.requests_certificate;
            }
        } else {
            match hello::sniff_server(wire) {
                Sniffed::Undecided => return Ok(false),
                Sniffed::Foreign(guess) => return Err(TlsFailure::NotTls(guess)),
                Sniffed::Tls => {}
            }
        }
        if let Some(handshake) = self.handshake_mut() {
            handshake.heard = true;
        }
        Ok(true)
    }

    /// Gives bytes to rustls: in place if nothing is pending, else as much as completes the
    /// pending record, so that a stash never grows by more than a record.
    fn deliver(&mut self, mut input: &mut [u8], buffers: &mut Buffers<'_, '_>) -> Result<(), Stop> {
        loop {
            let unsettled = self.unsettled();
            if unsettled.stash.is_empty() {
                unsettled.feed(input);
                let used = self.process(input, buffers)?;
                if let Some(left @ [_, ..]) = input.get(used..) {
                    self.unsettled().stash.extend_from_slice(left);
                    return self.check_stash();
                }
                return Ok(());
            }
            let missing = match unsettled.missing() {
                0 => RECORD_HEADER_LEN,
                missing => missing,
            };
            let (now, later) = input.split_at_mut(missing.min(input.len()));
            unsettled.feed(now);
            unsettled.stash.extend_from_slice(now);
            self.check_stash()?;
            // Also for a header alone: rustls refuses a bad one without waiting for the rest.
            let mut stash = mem::take(&mut self.unsettled().stash);
            let used = self.process(&mut stash, buffers)?;
            if used < stash.len() {
                stash.drain(..used);
                self.unsettled().stash = stash;
            }
            if later.is_empty() {
                return Ok(());
            }
            input = later;
        }
    }

    fn check_stash(&self) -> Result<(), Stop> {
        // A server gets nothing long after the handshake; a client gets tickets, which may hold
        // its own certificates.
        let limit = match (self.engine.as_deref(), self.handshake()) {
            (Some(Engine::Server(_)), None) => MAX_STASH,
            _ => MAX_HANDSHAKE_STASH,
        };
        match self.stash().len() > limit {
            true => Err(TlsFailure::StashOverflow { limit }.into()),
            false => Ok(()),
        }
    }

    /// Lets rustls work on `bytes` until it needs more; answers how many it has done with.
    fn process(&mut self, bytes: &mut [u8], buffers: &mut Buffers<'_, '_>) -> Result<usize, Stop> {
        let begin = buffers.out.len();
        let handshake = self.unsettled.as_mut();
        let handshake = handshake.and_then(|state| state.handshake.as_deref_mut());
        let early = handshake.map(|state| &mut state.early);
        let turn = match self.engine.as_deref_mut() {
            Some(Engine::Client(client)) => unbuffered::run(client, bytes, early, buffers),
            Some(Engine::Server(server)) => unbuffered::run(server, bytes, early, buffers),
            None => Turn::default(),
        };
        if self.is_handshaking() {
            let sent = buffers.out.get(begin..).unwrap_or_default();
            self.observe(sent, buffers.plain);
        }
        self.conclude(turn, bytes.len())
    }

    /// How many of `len` bytes that rustls has worked on are done with.
    fn conclude(&mut self, turn: Turn, len: usize) -> Result<usize, Stop> {
        if turn.closed_by_peer && !self.is_closed_by_peer() {
            self.unsettled().closed_by_peer = true;
            trace::note(TlsStep::PeerClosed);
        }
        match turn.error {
            Some((error, sent)) => Err(Stop {
                failure: TlsFailure::from_rustls(error, sent),
                sent,
            }),
            // RFC 8446 section 6.1: "Any data received after a closure alert has been received
            // MUST be ignored."
            None if self.is_closed_by_peer() => Ok(len),
            None => Ok(turn.used),
        }
    }

    /// Notes what rustls has done to a handshake, and ends it when it is complete.
    fn observe(&mut self, sent: &[u8], plain: &mut Vec<u8>) {
        let Some(mut handshake) = self.unsettled().handshake.take() else {
            return;
        };
        handshake.outgoing.feed(sent);
        let Some(common) = self.common() else {
            self.unsettled().handshake = Some(handshake);
            return;
        };
        let kind = common.handshake_kind().map(TlsHandshake::from);
        if kind == Some(TlsHandshake::FullWithRetry) {
            trace::note(TlsStep::HelloRetryRequest);
        }
        let is_server = matches!(self.engine.as_deref(), Some(Engine::Server(_)));
        if is_server {
            handshake.observe_flight(common);
        }
        handshake.certificate_requested |= handshake.incoming.seen().certificate_request;
        if handshake.certificate_requested {
            trace::note(TlsStep::CertificateRequested);
        }
        let chain = common.peer_certificates().map(<[_]>::len);
        if let (Some(count), Some(TlsHandshake::Full | TlsHandshake::FullWithRetry)) = (chain, kind)
        {
            // Who has verified them says so, if that is one of ours.
            trace::note(TlsStep::CertificateReceived { count });
        }
        if common.is_handshaking() {
            self.unsettled().handshake = Some(handshake);
            return;
        }
        if is_server && handshake.certificate_requested && chain.is_none() {
            trace::note(TlsStep::CertificateReceived { count: 0 });
        }
        trace::note_with(|| self.established());
        plain.append(&mut handshake.early);
        self.unsettled().incoming = handshake.incoming.boundary();
    }

    fn established(&self) -> TlsStep {
        let alpn = self.alpn().map(|name| name.escape_ascii().to_string());
        TlsStep::Established {
            version: self.version().unwrap_or(TlsVersion::new(0)),
            suite: self.suite().unwrap_or("unknown"),
            group: self.group(),
            alpn: alpn.map(Into::into),
            handshake: self.handshake_kind().unwrap_or(TlsHandshake::Full),
        }
    }
}

/// Ending.
impl Session {
    /// Makes a failure final. rustls has said what it says to the peer; before it had anything to
    /// say, the alert is ours and goes in the clear.
    fn fail(&mut self, stop: Stop, out: &mut Vec<u8>) -> TlsFailure {
        let Stop { failure, mut sent } = stop;
        let heard = self.handshake().is_none_or(|state| state.heard);
        if let (false, Some(alert)) = (heard, failure.alert()) {
            out.extend([ALERT, 3, 3, 0, 2, FATAL, alert.value()]);
            sent = SentAlert::Clear(alert);
        }
        note_failure(&failure, sent);
        let unsettled = self.unsettled();
        unsettled.stash = Vec::new();
        unsettled.failure = Some(Box::new(failure.clone()));
        failure
    }

    /// How far the handshake has come.
    fn stage(&self, handshake: &Handshake) -> TlsStage {
        match self.engine.as_deref() {
            None if self.stash().is_empty() => TlsStage::BeforeHello,
            None => TlsStage::ClientHello,
            Some(Engine::Server(_)) if handshake.flight_at.is_none() => TlsStage::SecondClientHello,
            Some(Engine::Server(_)) => TlsStage::ClientFlight,
            Some(Engine::Client(client)) => match client.protocol_version() {
                None => TlsStage::ServerHello,
                Some(ProtocolVersion::TLSv1_2) if handshake.outgoing.seen().change_cipher_spec => {
                    TlsStage::ServerFinished
                }
                Some(_) => TlsStage::ServerFlight,
            },
        }
    }
}

/// What rustls has left of the input so far.
#[inline]
fn stash_of(unsettled: &mut Option<Box<Unsettled>>) -> &mut [u8] {
    unsettled
        .as_mut()
        .map_or(&mut [], |state| &mut state.stash[..])
}

fn note_failure(failure: &TlsFailure, sent: SentAlert) {
    if let Some(alert) = failure.peer_alert() {
        trace::note(TlsStep::AlertReceived(alert));
    }
    match failure {
        TlsFailure::Certificate(problem) => {
            trace::note(TlsStep::VerificationFailed(problem.clone()));
        }
        TlsFailure::NoCertificate => trace::note(TlsStep::CertificateReceived { count: 0 }),
        _ => {}
    }
    let alert = match sent {
        SentAlert::Nothing => None,
        SentAlert::Clear(alert) => Some(alert),
        SentAlert::Encrypted => failure.alert(),
    };
    if let Some(alert) = alert {
        trace::note(TlsStep::AlertSent(alert));
    }
    trace::note_with(|| TlsStep::Failed(failure.to_string().into()));
}

/// A handshake message of 64 KiB, the longest that rustls takes, and one record.
const MAX_HANDSHAKE_STASH: usize = (64 + 16) * 1024 + 261;

/// One record: header, data and what TLS 1.3 adds (RFC 8446 section 5.2).
const MAX_STASH: usize = MAX_FRAGMENT_LEN + RECORD_HEADER_LEN + 256;

/// The level of a fatal alert (RFC 8446 section 6).
const FATAL: u8 = 2;

/// What rustls keeps on the heap for an idle TLS 1.3 connection without the peer's certificates,
/// as measured.
const CLIENT_MEMORY: usize = 3900;
const SERVER_MEMORY: usize = 3400;

#[cfg(test)]
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod tests;
