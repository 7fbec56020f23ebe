//! Handshakes in memory: what the settings of this room do to the wire and to both sides.

mod callbacks;
mod matrix;
mod names;
mod rotation;

use std::sync::Arc;
use std::time::Instant;

use rustls::client::ClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ServerConnection;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, Connection, Error, HandshakeKind, RootCertStore, ServerConfig,
    SupportedProtocolVersion, version,
};

use super::TlsEnv;
use super::client::{ClientConfigs, PeerNames};
use super::hello::{ClientHello, HelloScan};
use super::identity::{Identity, IdentityOptions};
use super::server::ServerConfigs;
use super::testpki::{Leaf, Pki};
use super::trace::{Recorder, Scope, TlsStep};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn env() -> TlsEnv {
    TlsEnv::system().unwrap()
}

/// Also of certificates that are out of date.
fn identity(leaf: &Leaf) -> Identity {
    IdentityOptions::new()
        .accept_out_of_date()
        .from_pem(leaf.chain_pem(), leaf.key_pem())
        .unwrap()
}

/// What both sides have to say when neither has anything more to send.
struct Outcome {
    client: Result<(), Error>,
    server: Result<(), Error>,
    client_steps: Vec<TlsStep>,
    server_steps: Vec<TlsStep>,
    kind: Option<HandshakeKind>,
    alpn: Option<Vec<u8>>,
    /// Everything that went either way.
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// The certificates that the server has of the client.
    client_chain: Option<Vec<Vec<u8>>>,
    /// And the client of the server.
    server_chain: Option<Vec<Vec<u8>>>,
    /// Whether the client let an unverified server pass.
    unverified: bool,
}

impl Outcome {
    fn hello(&self) -> ClientHello {
        hello(&self.to_server)
    }

    fn is_established(&self) -> bool {
        self.client.is_ok() && self.server.is_ok()
    }
}

/// A handshake of our client, with these names, with a server.
fn handshake(client: &ClientConfigs, names: PeerNames<'_>, server: &Server<'_>) -> Outcome {
    let begin = client.handshake(names).unwrap();
    let client = ClientConnection::new(begin.config, begin.name).unwrap();
    run(client, server)
}

enum Server<'a> {
    Ours(&'a ServerConfigs),
    Theirs(Arc<ServerConfig>),
}

fn run(client: ClientConnection, server: &Server<'_>) -> Outcome {
    let mut client = Side::new(client.into());
    let mut to_server = client.output();
    let config = match server {
        Server::Ours(configs) => configs.for_hello(&hello(&to_server)),
        Server::Theirs(config) => Arc::clone(config),
    };
    let mut server = Side::new(ServerConnection::new(config).unwrap().into());
    let mut to_client = Vec::new();
    let (mut sent, mut answered) = (0, 0);
    while sent < to_server.len() || answered < to_client.len() {
        server.input(&to_server[sent..]);
        sent = to_server.len();
        to_client.extend(server.output());
        client.input(&to_client[answered..]);
        answered = to_client.len();
        to_server.extend(client.output());
    }
    let chain = |connection: &Connection| {
        let chain = connection.peer_certificates()?;
        Some(chain.iter().map(|der| der.to_vec()).collect())
    };
    Outcome {
        kind: server.connection.handshake_kind(),
        alpn: client.connection.alpn_protocol().map(<[u8]>::to_vec),
        client_chain: chain(&server.connection),
        server_chain: chain(&client.connection),
        unverified: super::verify::take_unverified(),
        client: client.result,
        server: server.result,
        client_steps: client.steps,
        server_steps: server.steps,
        to_server,
        to_client,
    }
}

struct Side {
    connection: Connection,
    result: Result<(), Error>,
    steps: Vec<TlsStep>,
}

impl Side {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            result: Ok(()),
            steps: Vec::new(),
        }
    }

    fn input(&mut self, mut wire: &[u8]) {
        let scope = Scope::enter(Box::new(Recorder::new(now())), now());
        while !wire.is_empty() && self.result.is_ok() {
            self.connection.read_tls(&mut wire).unwrap();
            self.result = self.connection.process_new_packets().map(|_| ());
        }
        let trace = scope.leave().unwrap().into_trace();
        self.steps
            .extend(trace.steps().map(|(_, step)| step.clone()));
    }

    fn output(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire).unwrap();
        }
        wire
    }
}

#[expect(clippy::disallowed_methods, reason = "any point in time will do")]
fn now() -> Instant {
    Instant::now()
}

fn hello(wire: &[u8]) -> ClientHello {
    HelloScan::default().scan(wire).unwrap().unwrap()
}

const fn names(host: &str) -> PeerNames<'_> {
    PeerNames {
        host,
        sni: None,
        verify_name: None,
    }
}

/// A client of plain rustls, which trusts `roots` and speaks one version.
fn their_client(
    roots: &Pki,
    leaf: Option<&Leaf>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from(roots.ca_der())).unwrap();
    let builder = ClientConfig::builder_with_provider(env().provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(store);
    Arc::new(match leaf {
        Some(leaf) => {
            let resolver = SingleCertAndKey::from(certified(leaf));
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
        None => builder.with_no_client_auth(),
    })
}

/// A server of plain rustls, which asks for no certificate and speaks one version.
fn their_server(leaf: &Leaf, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(env().provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(leaf))));
    Arc::new(config)
}

/// Unchecked, so that the other side has something to refuse.
fn certified(leaf: &Leaf) -> CertifiedKey {
    let chain = leaf.chain_der().iter().cloned().map(CertificateDer::from);
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
    let key = env().provider.key_provider.load_private_key(key).unwrap();
    CertifiedKey::new(chain.collect(), key)
}

fn connect(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}
