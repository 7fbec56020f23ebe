//! What the TLS tests share: a context with a journal of everything it tells, and a stranger who
//! speaks TLS with a library of his own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every module uses another part of it"
)]

use std::io::{Cursor, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use wsloop::sim::{Net, SimPeer};
use wsloop::tls::{
    Alert, ClientTls, Expiring, Identity, IdentityOptions, IdentityWarning, PeerIdentity, Roots,
    ServerTls, TlsConfigError, TlsFailure, TlsInfo, TlsStep, TlsTrace,
};
use wsloop::{
    Accept, ClientConnectInfo, Close, CloseCause, CloseKind, CloseSide, ConnectError,
    ConnectFailure, ConnectStage, Context, ContextConfig, ContextObserver, Cx, DeadlineStage,
    Established, ListenConfig, Message, PlaintextPolicy, Protocol, ProtocolHandle, RefusalReason,
    Refuse, Request, ServerRefusal, Side, TlsReport, VhostConfig, VhostId, Wsi, WsiId,
};

use crate::support::addr;
use crate::testpki::{Leaf, Pki};

/// Something that a context told.
#[derive(Debug)]
pub enum Event {
    /// `filter_upgrade`.
    Filter {
        who: String,
        is_tls: bool,
        host: Option<String>,
    },
    Open(Open),
    Text(String, String),
    /// A binary message of that length.
    Binary(String, usize),
    Closed(End),
    ConnectError(Failed),
    Refused(Refused),
    Report(Reported),
    Expiring(VhostId, Side, Expiring),
    Identity(VhostId, Side, Result<(), String>),
    Warning(VhostId, Side, IdentityWarning),
}

/// An established WebSocket.
#[derive(Debug)]
pub struct Open {
    pub who: String,
    pub id: WsiId,
    pub vhost: VhostId,
    pub is_tls: bool,
    pub peer: Option<PeerIdentity>,
    pub info: Option<TlsInfo>,
}

impl Open {
    pub fn peer_name(&self) -> Option<&str> {
        self.peer.as_ref()?.common_name()
    }
}

#[derive(Debug)]
pub struct End {
    pub who: String,
    pub side: CloseSide,
    pub code: u16,
    pub clean: bool,
    pub undelivered: u64,
    pub kind: String,
    pub tls: Option<TlsFailure>,
}

#[derive(Debug)]
pub struct Failed {
    pub who: String,
    pub stage: ConnectStage,
    pub is_timeout: bool,
    pub tls: Option<TlsFailure>,
    pub trace: Option<TlsTrace>,
    pub text: String,
}

#[derive(Debug)]
pub struct Refused {
    pub vhost: Option<VhostId>,
    pub tls: Option<TlsFailure>,
    pub trace: Option<TlsTrace>,
    /// The variant's name.
    pub kind: String,
    pub deadline: Option<DeadlineStage>,
    pub text: String,
}

/// A handshake that has ended.
#[derive(Debug)]
pub struct Reported {
    pub vhost: VhostId,
    pub side: Side,
    pub trace: TlsTrace,
    pub info: Option<TlsInfo>,
    pub failure: Option<TlsFailure>,
}

/// Everything that was told, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Vec<Event>>>);

impl Journal {
    pub fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// What `pick` makes of the events that it picks; the events stay.
    pub fn pick<T>(&self, pick: impl FnMut(&Event) -> Option<T>) -> Vec<T> {
        self.0.lock().unwrap().iter().filter_map(pick).collect()
    }

    pub fn count(&self, mut is: impl FnMut(&Event) -> bool) -> usize {
        self.pick(|event| is(event).then_some(())).len()
    }

    /// Takes the first event that `pick` picks out, with what it picks.
    pub fn one<T>(&self, mut pick: impl FnMut(Event) -> Result<T, Box<Event>>) -> Option<T> {
        let mut events = self.0.lock().unwrap();
        let mut rest = Vec::new();
        let mut found = None;
        for event in events.drain(..) {
            if found.is_some() {
                rest.push(event);
                continue;
            }
            match pick(event) {
                Ok(picked) => found = Some(picked),
                Err(event) => rest.push(*event),
            }
        }
        *events = rest;
        found
    }

    pub fn open(&self, of: &str) -> Option<Open> {
        self.one(|event| match event {
            Event::Open(open) if open.who == of => Ok(open),
            other => Err(other.into()),
        })
    }

    pub fn closed(&self, of: &str) -> Option<End> {
        self.one(|event| match event {
            Event::Closed(end) if end.who == of => Ok(end),
            other => Err(other.into()),
        })
    }

    pub fn refused(&self) -> Option<Refused> {
        self.one(|event| match event {
            Event::Refused(refused) => Ok(refused),
            other => Err(other.into()),
        })
    }

    pub fn connect_error(&self) -> Option<Failed> {
        self.one(|event| match event {
            Event::ConnectError(failed) => Ok(failed),
            other => Err(other.into()),
        })
    }

    pub fn report(&self, of: Side) -> Option<Reported> {
        self.one(|event| match event {
            Event::Report(report) if report.side == of => Ok(report),
            other => Err(other.into()),
        })
    }

    pub fn texts(&self, of: &str) -> Vec<String> {
        self.pick(|event| match event {
            Event::Text(who, text) if who == of => Some(text.clone()),
            _ => None,
        })
    }

    pub fn opens(&self, of: &str) -> usize {
        self.count(|event| matches!(event, Event::Open(open) if open.who == of))
    }

    pub fn filters(&self, of: &str) -> usize {
        self.count(|event| matches!(event, Event::Filter { who, .. } if who == of))
    }

    /// Names of the peers of connections that were opened, in order.
    pub fn peers(&self, of: &str) -> Vec<Option<String>> {
        self.pick(|event| match event {
            Event::Open(open) if open.who == of => Some(open.peer_name().map(str::to_owned)),
            _ => None,
        })
    }
}

/// Writes everything down under its name; says `greeting` first and sends messages back if it is
/// to.
#[derive(Debug)]
pub struct Probe {
    pub who: String,
    pub journal: Journal,
    pub greeting: Option<String>,
    pub echoes: bool,
}

impl Probe {
    pub fn echo(who: &str, journal: &Journal) -> Self {
        Self {
            who: who.to_owned(),
            journal: journal.clone(),
            greeting: None,
            echoes: true,
        }
    }

    pub fn quiet(who: &str, journal: &Journal) -> Self {
        Self {
            echoes: false,
            ..Self::echo(who, journal)
        }
    }

    pub fn greeting(who: &str, journal: &Journal, greeting: &str) -> Self {
        Self {
            greeting: Some(greeting.to_owned()),
            ..Self::quiet(who, journal)
        }
    }
}

impl Protocol for Probe {
    type Session = ();

    fn filter_upgrade(&mut self, _: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        let over_tls = matches!(request.transport(), wsloop::http::origin::Transport::Tls);
        assert_eq!(over_tls, request.is_tls());
        self.journal.push(Event::Filter {
            who: self.who.clone(),
            is_tls: request.is_tls(),
            host: request.head().header_str("Host").map(str::to_owned),
        });
        Ok(Accept::new())
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.journal.push(Event::Open(Open {
            who: self.who.clone(),
            id: wsi.id(),
            vhost: wsi.vhost(),
            is_tls: wsi.is_tls(),
            peer: wsi.peer_identity(),
            info: wsi.tls(),
        }));
        if let Some(greeting) = &self.greeting {
            wsi.send_text(greeting)?;
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        (): &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        self.journal.push(match message {
            Message::Text(text) => Event::Text(self.who.clone(), text.to_owned()),
            Message::Binary(bytes) => Event::Binary(self.who.clone(), bytes.len()),
        });
        if self.echoes {
            wsi.send(message)?;
        }
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, (): (), cause: &CloseCause) {
        self.journal.push(Event::Closed(End {
            who: self.who.clone(),
            side: cause.side(),
            code: cause.code(),
            clean: cause.is_clean(),
            undelivered: cause.undelivered(),
            kind: cause.kind().to_string(),
            tls: match cause.kind() {
                CloseKind::Tls(error) => Some(error.failure.clone()),
                _ => None,
            },
        }));
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        let (tls, trace) = match error.failure() {
            ConnectFailure::Tls(tls) => (Some(tls.failure.clone()), tls.trace.clone()),
            _ => (None, None),
        };
        self.journal.push(Event::ConnectError(Failed {
            who: self.who.clone(),
            stage: error.stage(),
            is_timeout: error.is_timeout(),
            tls,
            trace,
            text: error.to_string(),
        }));
    }
}

struct Watcher(Journal);

impl ContextObserver for Watcher {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        let (tls, trace) = match &refusal.reason {
            RefusalReason::Tls(tls) => (Some(tls.failure.clone()), tls.trace.clone()),
            _ => (None, None),
        };
        self.0.push(Event::Refused(Refused {
            vhost: refusal.vhost,
            tls,
            trace,
            kind: variant(&refusal.reason),
            deadline: match &refusal.reason {
                RefusalReason::Timeout(deadline) => Some(deadline.stage),
                RefusalReason::Tls(tls) => match &tls.failure {
                    TlsFailure::Timeout { deadline, .. } => Some(deadline.stage),
                    _ => None,
                },
                _ => None,
            },
            text: refusal.reason.to_string(),
        }));
    }

    fn on_tls_handshake(&mut self, _: &mut Cx<'_>, report: &TlsReport) {
        self.0.push(Event::Report(Reported {
            vhost: report.vhost,
            side: report.side,
            trace: report.trace.clone(),
            info: report.info.clone(),
            failure: report.failure.clone(),
        }));
    }

    fn on_certificate_expiring(
        &mut self,
        _: &mut Cx<'_>,
        id: VhostId,
        side: Side,
        what: &Expiring,
    ) {
        self.0.push(Event::Expiring(id, side, *what));
    }

    fn on_identity_warning(
        &mut self,
        _: &mut Cx<'_>,
        id: VhostId,
        side: Side,
        warning: &IdentityWarning,
    ) {
        self.0.push(Event::Warning(id, side, warning.clone()));
    }

    fn on_identity_changed(
        &mut self,
        _: &mut Cx<'_>,
        id: VhostId,
        side: Side,
        outcome: Result<(), &TlsConfigError>,
    ) {
        let outcome = outcome.map_err(ToString::to_string);
        self.0.push(Event::Identity(id, side, outcome));
    }
}

/// A context on a simulated network.
pub struct Lab {
    pub net: Net,
    pub context: Context,
    pub journal: Journal,
}

impl Lab {
    pub fn new() -> Self {
        Self::seeded(1)
    }

    pub fn seeded(seed: u64) -> Self {
        Self::with(seed, ContextConfig::new())
    }

    /// With the lab's observer in place of the configuration's.
    pub fn with(seed: u64, config: ContextConfig) -> Self {
        let net = Net::new(seed);
        let journal = Journal::default();
        let config = config.observer(Watcher(journal.clone()));
        let context = Context::simulated(&net, config).unwrap();
        Self {
            net,
            context,
            journal,
        }
    }

    pub fn add(&mut self, config: VhostConfig) -> VhostId {
        self.context.create_vhost(config).unwrap()
    }

    /// A vhost that echoes over TLS on [`addr`], which its name leads to.
    pub fn server(&mut self, name: &str, tls: ServerTls) -> VhostId {
        let (config, _) = self.server_config(name, tls, PlaintextPolicy::Reject);
        self.add(config)
    }

    pub fn server_config(
        &self,
        name: &str,
        tls: ServerTls,
        policy: PlaintextPolicy,
    ) -> (VhostConfig, ProtocolHandle<Probe>) {
        self.net.name(name, [addr().ip()]);
        let mut config = VhostConfig::new(name)
            .listen(ListenConfig::new(addr()).tls(policy))
            .server_tls(tls)
            .trace_tls();
        let handle = config.add_protocol("p", Probe::echo(name, &self.journal));
        (config, handle)
    }

    /// A vhost for clients, which say hello and whose events go by this name.
    pub fn client(&mut self, name: &str, tls: ClientTls) -> VhostId {
        self.client_with(name, tls).0
    }

    pub fn client_with(&mut self, name: &str, tls: ClientTls) -> (VhostId, ProtocolHandle<Probe>) {
        let mut config = VhostConfig::new(name).client_tls(tls).trace_tls();
        let probe = Probe::greeting(name, &self.journal, "hello");
        let handle = config.add_protocol("c", probe);
        (self.add(config), handle)
    }

    pub fn dial(&mut self, vhost: VhostId, url: &str) -> WsiId {
        let info = ClientConnectInfo::from_url(url).unwrap();
        self.connect(vhost, info)
    }

    pub fn connect(&mut self, vhost: VhostId, info: ClientConnectInfo) -> WsiId {
        let id = self.context.client_connect(vhost, info).unwrap();
        self.turn();
        id
    }

    /// Turns without waiting until nothing is left to do; no time passes.
    pub fn turn(&mut self) {
        for _ in 0..40 {
            self.context.service(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Lets time pass in steps of 100 ms, turning after each.
    pub fn pass(&mut self, time: Duration) {
        crate::support::pass(&self.net, &mut self.context, time);
    }

    /// A stranger's raw connection to [`addr`].
    pub fn stranger(&mut self) -> SimPeer {
        let peer = self.net.dial(addr()).unwrap();
        self.turn();
        peer
    }

    /// Closes the connection in order, as the application of `handle` does.
    pub fn close(&mut self, handle: ProtocolHandle<Probe>, id: WsiId) {
        let acted = self
            .context
            .with_protocol(handle, |_, cx| cx.close(id, Close::normal()));
        acted.unwrap().unwrap();
        self.turn();
    }

    pub fn say(&mut self, handle: ProtocolHandle<Probe>, id: WsiId, text: &str) {
        let sent = self
            .context
            .with_protocol(handle, |_, cx| cx.peer(id).unwrap().send_text(text));
        sent.unwrap().unwrap();
        self.turn();
    }
}

pub fn identity(leaf: &Leaf) -> Identity {
    Identity::from_pem(leaf.chain_pem(), leaf.key_pem()).unwrap()
}

/// Also one whose time is over or has not come.
pub fn any_identity(leaf: &Leaf) -> Identity {
    let options = IdentityOptions::new().accept_out_of_date();
    options.from_pem(leaf.chain_pem(), leaf.key_pem()).unwrap()
}

pub fn roots(pki: &Pki) -> Roots {
    Roots::from_pem(pki.ca_pem()).unwrap()
}

pub fn server_tls(pki: &Pki, names: &[&str]) -> ServerTls {
    ServerTls::new(identity(&pki.leaf(names).issue()))
}

/// What rustls makes of a leaf.
pub fn rustls_identity(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    use rustls::pki_types::pem::PemObject;
    let chain = leaf.chain_der().iter().cloned().map(CertificateDer::from);
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
    (chain.collect(), key)
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// rustls' own configuration of a client.
pub fn rustls_client(
    pki: &Pki,
    leaf: Option<&Leaf>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut store = RootCertStore::empty();
    store
        .add(CertificateDer::from(pki.ca_der().to_vec()))
        .unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store);
    match leaf {
        Some(leaf) => {
            let (chain, key) = rustls_identity(leaf);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}

/// The trace of a stranger's choice.
pub fn has_step(trace: &TlsTrace, is: impl Fn(&TlsStep) -> bool) -> bool {
    trace.steps().any(|(_, step)| is(step))
}

/// The steps by their kinds, for comparison.
pub fn steps(trace: &TlsTrace) -> Vec<String> {
    trace.steps().map(|(_, step)| variant(step)).collect()
}

/// rustls' own configuration of a server.
pub fn rustls_server(leaf: &Leaf, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let (chain, key) = rustls_identity(leaf);
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

/// A stranger who speaks TLS over a simulated connection.
pub struct TlsStranger {
    pub peer: SimPeer,
    pub tls: Connection,
}

impl TlsStranger {
    pub fn new(peer: SimPeer, config: ClientConfig, name: &'static str) -> Self {
        let name = ServerName::try_from(name).unwrap();
        let tls = ClientConnection::new(Arc::new(config), name)
            .unwrap()
            .into();
        Self { peer, tls }
    }

    pub fn server(peer: SimPeer, config: ServerConfig) -> Self {
        let tls = ServerConnection::new(Arc::new(config)).unwrap().into();
        Self { peer, tls }
    }

    /// The records that wait to be sent.
    pub fn flight(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        out
    }

    /// Sends what waits and takes what came; an error is that of the TLS library.
    pub fn exchange(&mut self, lab: &mut Lab) -> Result<(), rustls::Error> {
        for _ in 0..6 {
            let out = self.flight();
            let _ = self.peer.write(&out);
            lab.turn();
            self.take()?;
        }
        Ok(())
    }

    pub fn take(&mut self) -> Result<(), rustls::Error> {
        let bytes = self.peer.read();
        let mut cursor = Cursor::new(bytes);
        loop {
            let n = self.tls.read_tls(&mut cursor).unwrap_or(0);
            self.tls.process_new_packets()?;
            if n == 0 {
                return Ok(());
            }
        }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
    }

    /// The plaintext that has come.
    pub fn heard(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = self.tls.reader().read_to_end(&mut out);
        out
    }
}

/// An alert in the clear, as the last record of `wire`.
pub fn clear_alert(wire: &[u8]) -> Option<Alert> {
    match wire {
        [.., 21, 3, _, 0, 2, _, code] => Some(Alert::new(*code)),
        _ => None,
    }
}

/// The records' types in `wire`.
pub fn record_types(mut wire: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = wire {
        types.push(*kind);
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        wire = rest.get(len..).unwrap_or_default();
    }
    types
}

/// The name in the server name extension of a ClientHello that is alone in `wire`; `Err` if it is
/// none.
pub fn sni_of(wire: &[u8]) -> Result<Option<String>, &'static str> {
    let mut hello = Cut(wire);
    if hello.u8()? != 22 {
        return Err("no handshake record");
    }
    hello.u16()?;
    let mut body = hello.vector16()?;
    if body.u8()? != 1 {
        return Err("no ClientHello");
    }
    body.take(3)?;
    body.take(2 + 32)?;
    let session = body.u8()?;
    body.take(session.into())?;
    body.vector16()?;
    let compressions = body.u8()?;
    body.take(compressions.into())?;
    let mut extensions = body.vector16()?;
    let mut names = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut content = extensions.vector16()?;
        if kind != 0 {
            continue;
        }
        let mut list = content.vector16()?;
        while !list.0.is_empty() {
            if list.u8()? != 0 {
                return Err("a name that is no host name");
            }
            let name = list.vector16()?.0.to_vec();
            names.push(String::from_utf8(name).map_err(|_| "not ASCII")?);
        }
    }
    match names.len() {
        0 => Ok(None),
        1 => Ok(names.pop()),
        _ => Err("several names"),
    }
}

struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector16(&mut self) -> Result<Self, &'static str> {
        let len = self.u16()?;
        Ok(Self(self.take(len.into())?))
    }
}

/// The port that a URL needs to reach [`addr`].
pub fn url(host: &str) -> String {
    format!("wss://{host}:{}/", addr().port())
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The name of an enum's variant.
fn variant(value: &dyn std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find([' ', '(', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}
