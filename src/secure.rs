//! A connection over TLS: its handshake, its records and its end, in a visit of the loop.

mod calm;
mod records;

use std::io;
use std::time::Instant;

use crate::arena::Arena;
use crate::client::ClientConnectInfo;
use crate::config::{NamePolicy, PlaintextPolicy};
use crate::conn::{Conn, Flags, Phase, Role, STASHED_HEADER};
use crate::context::ListenerSlot;
use crate::error::{
    CloseCause, CloseKind, CloseSide, ConnectFailure, Deadline, RefusalReason, TlsError,
};
use crate::handler::ExchangeOutcome;
use crate::id::VhostId;
use crate::inner::{Inner, Owner, Vhost};
use crate::lift::{Lift, place_of_payload};
use crate::net::transport::{Io, ReadEnd};
use crate::protocol::TlsReport;
use crate::tls::client::PeerNames;
use crate::tls::hello::{FirstByte, Sniffed, first_byte, sniff_client};
use crate::tls::session::{Chosen, Received};
use crate::tls::trace::{self, ChosenBy, TlsStep};
use crate::tls::unbuffered::Place;
use crate::tls::{ClientHello, ForeignProtocol, ServerCell, TlsFailure, TlsTrace};
use crate::ws::Side;
use crate::wsi::Cx;

pub(crate) use records::Secure;

impl Lift<'_> {
    /// Whether what is read are records, or may turn out to be.
    pub(crate) fn is_secure_or_sniffing(&self) -> bool {
        let secure = self.conn.io.as_ref().is_some_and(|io| io.secure.is_some());
        secure || matches!(&self.conn.role, Role::Http(http) if http.sniffs.is_some())
    }

    /// Whether nothing can be said yet, for it would have to be encrypted.
    pub(crate) fn is_in_tls_handshake(&self) -> bool {
        let secure = self.conn.io.as_ref().and_then(|io| io.secure.as_ref());
        secure.is_some_and(|secure| secure.is_handshaking())
    }

    /// `n` bytes of a TLS listener or of a TLS connection lie in the buffer behind the room for a
    /// stashed header.
    pub(crate) fn received_records(&mut self, buffer: &mut [u8], n: usize) {
        if !self.decide_transport(buffer) {
            return self.received(buffer, n);
        }
        let secure = self.conn.io.as_ref().and_then(|io| io.secure.as_ref());
        if secure.is_some_and(|secure| secure.has_failed()) {
            // The failure was told, and the alert is on its way: what still comes is dropped.
            return;
        }
        let mut plain = self.parts.take_plain();
        let input = buffer.get_mut(STASHED_HEADER..STASHED_HEADER + n);
        let outcome = self.open_records(input.unwrap_or_default(), &mut plain);
        self.records_opened(plain, outcome);
    }

    /// What came of received records.
    fn records_opened(&mut self, mut plain: Vec<u8>, outcome: Result<Received, TlsFailure>) {
        let came = plain.len() - STASHED_HEADER;
        if matches!(
            outcome,
            Ok(Received {
                established_now: true,
                ..
            })
        ) {
            self.secure_established();
        }
        if came > 0 {
            // The handshake is past even for those who hear of a refusal late (TLS 1.3).
            drop(self.take_trace());
            self.received(&mut plain, came);
        }
        self.parts.put_plain(plain);
        match outcome {
            Ok(Received {
                closed_by_peer: true,
                ..
            }) => {
                if let Some(io) = &mut self.conn.io {
                    io.end_reading(ReadEnd::Eof);
                }
            }
            Ok(_) => {}
            Err(failure) => self.secure_failed(failure),
        }
    }

    /// The first byte of a connection says what it is (RFC 8446 section 5.1: a ClientHello comes
    /// in a record of type 22). Whether it is TLS.
    fn decide_transport(&mut self, buffer: &[u8]) -> bool {
        let now = self.inner.out.now;
        let Role::Http(http) = &mut self.conn.role else {
            return true;
        };
        let Some(policy) = http.sniffs.take() else {
            return true;
        };
        let Some(io) = &mut self.conn.io else {
            return false;
        };
        let first = buffer.get(STASHED_HEADER).copied().map(first_byte);
        let is_tls = match first {
            Some(FirstByte::Tls) => true,
            // Where nothing else is spoken, the session says what it is in place of TLS.
            Some(FirstByte::MaybeSslV2 | FirstByte::Other) => policy == PlaintextPolicy::Reject,
            Some(FirstByte::MaybeHttp) | None => false,
        };
        if is_tls {
            io.secure = Some(Box::new(Secure::server(now)));
            let settings = &self.conn.send.settings;
            let ends = http.stage_ends(now, settings.timeouts.tls, settings);
            self.conn.send.deadlines.stage = ends;
            return true;
        }
        match policy {
            PlaintextPolicy::Serve => {}
            PlaintextPolicy::RedirectToHttps => http.redirects = true,
            PlaintextPolicy::Reject => http.rejects = true,
        }
        self.leave_handshake();
        false
    }

    /// On a listener that speaks TLS only: whether these first bytes are neither that nor HTTP,
    /// which would be answered. Then that is why the connection ends.
    pub(crate) fn is_foreign(&mut self, input: &[u8]) -> bool {
        let now = self.inner.out.now;
        let text = input.trim_ascii_start();
        let guess = match sniff_client(text) {
            Sniffed::Foreign(ForeignProtocol::PlainHttp) | Sniffed::Tls | Sniffed::Undecided => {
                return false;
            }
            Sniffed::Foreign(guess) => guess,
        };
        let Some(io) = &mut self.conn.io else {
            return false;
        };
        let secure = io.secure.insert(Box::new(Secure::server(now)));
        let failure = secure.session.give_up(now, TlsFailure::NotTls(guess));
        self.secure_failed(failure);
        true
    }

    /// It is no TLS handshake in progress any more: another one may have its place.
    fn leave_handshake(&mut self) {
        if self.conn.send.flags.contains(Flags::HANDSHAKING) {
            self.conn.send.flags -= Flags::HANDSHAKING;
            self.inner.handshakes -= 1;
            self.mark_lifted();
        }
    }

    fn open_records(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Received, TlsFailure> {
        let Conn {
            io,
            role,
            send,
            stash,
        } = &mut *self.conn;
        let Some(secure) = io.as_mut().and_then(|io| io.secure.as_mut()) else {
            return Ok(Received::default());
        };
        let listener = match role {
            Role::Http(http) => {
                let (index, generation) = http.listener;
                self.parts.listeners.get(index, generation)
            }
            Role::Client(_) | Role::HttpClient(_) | Role::Linger | Role::Ws(_) => None,
        };
        let Inner { vhosts, out, .. } = &mut *self.inner;
        let mut chosen = None;
        let mut select = |hello: &ClientHello| {
            let (id, cell) = choose_by_name(hello, listener, send.vhost(), vhosts)?;
            let configs = cell.configs();
            chosen = Some((id, cell.generation(), configs.verifies()));
            Ok(Chosen {
                config: configs.for_hello(hello),
                requests_certificate: configs.asks(hello),
            })
        };
        let now = out.now;
        let mut place = Place::new(place_of_payload(role, send, stash, input.len()));
        let pool = &mut out.pool;
        let received = secure.receive(input, &mut place, plain, pool, now, &mut select);
        let filled = place.filled();
        if let (Role::Ws(ws), 1..) = (role, filled) {
            ws.recv.filled(send.side, filled);
        }
        if let Some((id, generation, verifies)) = chosen {
            secure.generation = generation;
            secure.verified = verifies;
            secure.share_name(&mut self.parts.last_name);
            self.move_to_vhost(id);
        }
        received
    }

    /// The handshake is complete, as far as this side can tell.
    fn secure_established(&mut self) {
        self.leave_handshake();
        let now = self.inner.out.now;
        let settings = &self.conn.send.settings;
        match &self.conn.role {
            Role::Client(_) => self.send_request(),
            Role::Http(http) => {
                let ends = http.stage_ends(now, settings.timeouts.head, settings);
                self.conn.send.deadlines.stage = ends;
            }
            Role::HttpClient(_) | Role::Linger | Role::Ws(_) => {}
        }
        match self.judge_established() {
            Ok(()) => self.report_handshake(None),
            Err(failure) => {
                let secure = self.conn.io.as_mut().and_then(|io| io.secure.as_mut());
                if let Some(secure) = secure {
                    secure.refuse(&failure, &mut self.inner.out.pool, now);
                }
                self.report_handshake(Some(&failure));
                self.secure_failed(failure);
            }
        }
    }

    fn judge_established(&mut self) -> Result<(), TlsFailure> {
        let is_server = self.conn.send.side == Side::Server;
        let vhost = self
            .inner
            .vhost(self.conn.send.vhost())
            .filter(|_| is_server);
        let cell = vhost.and_then(|vhost| vhost.server_tls.as_ref());
        let configs = cell
            .map(|cell| &**cell.configs())
            .zip(self.parts.tls.as_ref());
        let secure = self.conn.io.as_mut().and_then(|io| io.secure.as_mut());
        secure.map_or(Ok(()), |secure| secure.established(configs))
    }

    /// The session has failed: what goes to the peer (an alert) is queued already.
    fn secure_failed(&mut self, failure: TlsFailure) {
        self.leave_handshake();
        // What still comes is dropped: ending with it unread would be a reset, which may cost the
        // peer our alert.
        let is_told = match &self.conn.role {
            Role::Http(http) => http.is_responding(),
            Role::Linger => true,
            Role::Client(_) | Role::HttpClient(_) | Role::Ws(_) => false,
        };
        if is_told {
            return;
        }
        // A client hears of its rejection when it thinks that the handshake is complete.
        let hears_late = match &self.conn.role {
            Role::Client(_) => true,
            Role::HttpClient(http) => http.may_be_rejected(),
            Role::Http(_) | Role::Linger | Role::Ws(_) => false,
        };
        if self.is_in_tls_handshake() || hears_late {
            self.report_handshake(Some(&failure));
        }
        let trace = self.take_trace();
        match &mut self.conn.role {
            Role::Client(_) => {
                self.stop_dialling(ConnectFailure::Tls(Box::new(TlsError { failure, trace })));
            }
            Role::Http(http) if http.has_exchange() => {
                let error = TlsError { failure, trace };
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                self.set_outcome(ExchangeOutcome::Io(error));
                self.close_http();
            }
            Role::Http(_) => {
                self.refused(RefusalReason::Tls(Box::new(TlsError { failure, trace })));
            }
            Role::HttpClient(_) => {
                self.fetch_tls_failed(TlsError { failure, trace });
                self.flush();
            }
            Role::Linger => {}
            Role::Ws(_) => {
                let kind = CloseKind::Tls(Box::new(TlsError { failure, trace }));
                self.conn
                    .send
                    .set_cause(CloseCause::abnormal(CloseSide::Peer, kind));
                self.flush();
                self.end_now();
            }
        }
    }

    /// The stream under the records has ended, or takes no more.
    pub(crate) fn records_ended(&mut self, now: Instant) {
        let Some(io) = &mut self.conn.io else { return };
        let failed = match (io.read_end(), io.write_error()) {
            (Some(ReadEnd::Failed(error)), _) | (None, Some(error)) => Some(error.kind()),
            _ => None,
        };
        let Some(secure) = &mut io.secure else { return };
        let handshaking = secure.is_handshaking();
        let ended = match failed {
            Some(kind) => secure.lost(now, kind),
            None => secure.eof(now),
        };
        let Err(failure) = ended else { return };
        match &mut self.conn.role {
            // RFC 9112 section 9.8: a response that ends with its connection may have been cut.
            Role::HttpClient(http) => http.note_truncation(),
            Role::Client(client) if client.is_dialling_tls() => self.secure_failed(failure),
            Role::Http(http) if handshaking && !http.is_responding() => self.secure_failed(failure),
            // Without a close_notify the end of the stream proves nothing, but the closing
            // handshake of RFC 6455 has its own proof.
            _ => {}
        }
    }

    /// The stream of a WebSocket has ended without a close_notify (RFC 8446 section 6.1): somebody
    /// between the peers may have cut it.
    pub(crate) fn truncation(&mut self) -> Option<CloseCause> {
        let now = self.inner.out.now;
        let io = self.conn.io.as_mut()?;
        if !matches!(io.read_end(), Some(ReadEnd::Eof)) {
            return None;
        }
        let failure = io.secure.as_mut()?.eof(now).err()?;
        let error = TlsError {
            failure,
            trace: None,
        };
        let kind = CloseKind::Tls(Box::new(error));
        Some(CloseCause::abnormal(CloseSide::Peer, kind))
    }

    /// The time for a TLS handshake is over; whether there is one. Silence on a port that speaks
    /// nothing else is one that has not begun.
    pub(crate) fn time_out_handshake(&mut self, deadline: Deadline) -> bool {
        let now = self.inner.out.now;
        let came = self.conn.send.last_received();
        let Some(io) = &mut self.conn.io else {
            return false;
        };
        if let Role::Http(http) = &self.conn.role {
            if http.sniffs == Some(PlaintextPolicy::Reject) {
                io.secure = Some(Box::new(Secure::server(came)));
            }
        }
        let Some(secure) = io.secure.as_mut().filter(|secure| secure.is_handshaking()) else {
            return false;
        };
        let failure = secure.time_out(now, deadline);
        self.secure_failed(failure);
        if let Role::Http(_) = self.conn.role {
            self.end_now();
        }
        true
    }

    /// Begins TLS on a client's fresh transport.
    pub(crate) fn start_client_tls(&mut self, mut io: Io) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        let vhost = self.inner.vhosts.get(
            self.conn.send.vhost().index,
            self.conn.send.vhost().generation,
        );
        let Some(cell) = vhost.and_then(|vhost| vhost.client_tls.as_ref()) else {
            return client.fail(ConnectFailure::NoClientTls);
        };
        let host = client.info.name().to_string();
        let names = names_of(&client.info, &host);
        let handshake = match cell.configs().handshake(names) {
            Ok(handshake) => handshake,
            Err(error) => return client.fail(ConnectFailure::TlsConfig(Box::new(error))),
        };
        match Secure::client(handshake, cell.generation(), now) {
            Ok(mut secure) => {
                secure.share_name(&mut self.parts.last_name);
                io.secure = Some(Box::new(secure));
                self.conn.io = Some(io);
                self.await_handshake();
            }
            Err(failure) => {
                let trace = None;
                client.fail(ConnectFailure::Tls(Box::new(TlsError { failure, trace })));
            }
        }
    }

    /// If nothing follows what waits, TLS ends with it and not after it.
    pub(crate) fn announce_end(&mut self) {
        let Conn { io, role, send, .. } = &mut *self.conn;
        let Some(secure) = io.as_mut().and_then(|io| io.secure.as_mut()) else {
            return;
        };
        let is_last = match role {
            Role::Ws(_) => matches!(send.phase, Phase::CloseDone | Phase::Failed),
            Role::Http(http) => http.is_responding(),
            Role::Client(_) | Role::HttpClient(_) | Role::Linger => false,
        };
        if is_last {
            secure.end_after_this();
        }
    }

    fn take_trace(&mut self) -> Option<TlsTrace> {
        let secure = self.conn.io.as_mut().and_then(|io| io.secure.as_mut())?;
        secure.take_trace()
    }

    /// Tells the observer about a handshake, if the vhost wants that.
    fn report_handshake(&mut self, failure: Option<&TlsFailure>) {
        let id = self.conn.send.vhost();
        if !self.inner.vhost(id).is_some_and(|vhost| vhost.traces_tls) {
            return;
        }
        let Some(io) = &mut self.conn.io else { return };
        let peer = io.peer();
        let Some(secure) = &mut io.secure else { return };
        let trace = secure.trace();
        if trace.steps().len() == 0 {
            // The peer's data have shown that the handshake had come to its end long ago.
            return;
        }
        let report = TlsReport {
            id: self.conn.send.id,
            vhost: id,
            side: self.conn.send.side,
            peer,
            trace,
            info: secure.info(),
            failure: failure.cloned(),
        };
        let mut cx = Cx::new(self.inner, Owner::Observer);
        self.parts.observer.on_tls_handshake(&mut cx, &report);
    }
}

impl Vhost {
    /// Whether a client of this vhost can begin a handshake with the names that it has.
    pub(crate) fn check_names(&self, info: &ClientConnectInfo) -> Result<(), ConnectFailure> {
        let Some(cell) = self.client_tls.as_ref().filter(|_| info.is_tls()) else {
            return Ok(());
        };
        let host = info.name().to_string();
        let checked = cell.configs().check(names_of(info, &host));
        checked.map_err(|error| ConnectFailure::TlsConfig(Box::new(error)))
    }
}

fn names_of<'a>(info: &'a ClientConnectInfo, host: &'a str) -> PeerNames<'a> {
    PeerNames {
        host,
        sni: info.sni_choice(),
        verify_name: info.verified_name(),
    }
}

/// The vhost for a ClientHello, decided before any configuration is: by SNI, exactly or by `*.`.
fn choose_by_name<'v>(
    hello: &ClientHello,
    listener: Option<&ListenerSlot>,
    fallback: VhostId,
    vhosts: &'v Arena<Vhost>,
) -> Result<(VhostId, &'v ServerCell), TlsFailure> {
    let refuse = || TlsFailure::UnrecognizedName {
        name: hello.server_name().map(Into::into),
    };
    let listener = listener.ok_or_else(refuse)?;
    let named = hello
        .server_name()
        .and_then(|name| listener.best_vhost(vhosts, name));
    let (id, by) = match (named, hello.server_name()) {
        (Some((id, true)), _) => (id, ChosenBy::ExactName),
        (Some((id, false)), _) => (id, ChosenBy::WildcardName),
        (None, Some(_)) if listener.names >= NamePolicy::RefuseUnknown => return Err(refuse()),
        (None, None) if listener.names >= NamePolicy::RefuseUnknownAndMissing => {
            return Err(refuse());
        }
        (None, Some(_)) => (listener.default, ChosenBy::DefaultForUnknownName),
        (None, None) => (listener.default, ChosenBy::DefaultForNoName),
    };
    let id = if listener.vhosts.contains(&id) {
        id
    } else {
        fallback
    };
    let vhost = vhosts.get(id.index, id.generation).ok_or_else(refuse)?;
    let cell = vhost.server_tls.as_ref().ok_or_else(refuse)?;
    trace::note(TlsStep::VhostChosen {
        vhost: vhost.label().into(),
        by,
    });
    Ok((id, cell))
}
