//! Throw-away certificates, and connections in memory.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::failure::TlsFailure;
use super::hello::ClientHello;
use super::session::{Chosen, Received, Selection, Session};
use super::unbuffered::Place;

pub(crate) use rustls::version::{TLS12, TLS13};

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

pub(crate) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "aws-lc-rs"))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

#[expect(clippy::disallowed_methods, reason = "any point in time will do")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A certificate authority.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        Self { issuer }
    }

    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        self.leaf_with(name, |_| {})
    }

    pub(crate) fn leaf_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        static SERIAL: AtomicU64 = AtomicU64::new(1000);
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// How a test's server treats client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    No,
    Optional,
    Required,
}

/// One CA, a server `a.test` and a client, and configurations made of them.
pub(crate) struct Pki {
    pub(crate) ca: Ca,
    pub(crate) server: Leaf,
    pub(crate) client: Leaf,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let ca = Ca::new("ca");
        let (server, client) = (ca.leaf("a.test"), ca.leaf("client"));
        Self { ca, server, client }
    }

    pub(crate) fn server_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        asks: Asks,
    ) -> ServerConfig {
        self.server_config_of(&self.server, versions, asks)
    }

    pub(crate) fn server_config_of(
        &self,
        leaf: &Leaf,
        versions: &[&'static SupportedProtocolVersion],
        asks: Asks,
    ) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.ca.roots(), provider());
        let builder = match asks {
            Asks::No => builder.with_no_client_auth(),
            Asks::Optional => {
                let verifier = verifier.allow_unauthenticated().build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
            Asks::Required => builder.with_client_cert_verifier(verifier.build().unwrap()),
        };
        let key = leaf.key.clone_key();
        builder.with_single_cert(leaf.chain.clone(), key).unwrap()
    }

    pub(crate) fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(self.ca.roots());
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::disabled();
        config
    }

    pub(crate) fn client_config_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        leaf: &Leaf,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(self.ca.roots());
        let key = leaf.key.clone_key();
        let config = builder.with_client_auth_cert(leaf.chain.clone(), key);
        let mut config = config.unwrap();
        config.resumption = Resumption::disabled();
        config
    }
}

/// One end of a connection in memory.
pub(crate) trait End {
    /// Takes bytes from the wire. Errors are kept by the end.
    fn feed(&mut self, wire: &[u8]);
    /// What goes to the wire.
    fn take_out(&mut self) -> Vec<u8>;
    /// Queues plaintext.
    fn send(&mut self, plaintext: &[u8]);
}

/// Our end.
pub(crate) struct Ours {
    pub(crate) session: Session,
    pub(crate) plain: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) got: Vec<Received>,
    pub(crate) failure: Option<TlsFailure>,
    pub(crate) hellos: Vec<ClientHello>,
    pub(crate) now: Instant,
    choice: Option<Selection>,
}

impl Ours {
    pub(crate) fn server(config: &Arc<ServerConfig>) -> Self {
        Self::server_of(Ok(Chosen {
            config: Arc::clone(config),
            requests_certificate: false,
        }))
    }

    pub(crate) fn asking(config: &Arc<ServerConfig>) -> Self {
        Self::server_of(Ok(Chosen {
            config: Arc::clone(config),
            requests_certificate: true,
        }))
    }

    pub(crate) fn server_of(choice: Selection) -> Self {
        let now = now();
        Self::new(Session::server(now), Vec::new(), now, Some(choice))
    }

    pub(crate) fn client(config: &Arc<ClientConfig>) -> Self {
        let (now, mut out) = (now(), Vec::new());
        let name = ServerName::try_from("a.test").unwrap();
        let session = Session::client(Arc::clone(config), name, now, &mut out).unwrap();
        Self::new(session, out, now, None)
    }

    fn new(session: Session, out: Vec<u8>, now: Instant, choice: Option<Selection>) -> Self {
        Self {
            session,
            plain: Vec::new(),
            out,
            got: Vec::new(),
            failure: None,
            hellos: Vec::new(),
            now,
            choice,
        }
    }

    pub(crate) fn eof(&mut self) -> Result<(), TlsFailure> {
        self.session.eof(self.now)
    }

    pub(crate) fn was_established(&self) -> bool {
        self.got.iter().any(|got| got.established_now)
    }

    pub(crate) fn was_closed(&self) -> bool {
        self.got.last().is_some_and(|got| got.closed_by_peer)
    }
}

impl End for Ours {
    fn feed(&mut self, wire: &[u8]) {
        let Self {
            session,
            plain,
            out,
            hellos,
            choice,
            ..
        } = self;
        let mut select = |hello: &ClientHello| {
            hellos.push(hello.clone());
            choice.clone().expect("a client chooses no configuration")
        };
        match session.receive(
            &mut wire.to_vec(),
            &mut Place::default(),
            plain,
            out,
            self.now,
            &mut select,
        ) {
            Ok(received) => self.got.push(received),
            Err(failure) => {
                let before = self.failure.replace(failure.clone());
                assert!(before.is_none_or(|before| before == failure), "it is final");
            }
        }
    }

    fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn send(&mut self, plaintext: &[u8]) {
        self.session.seal(plaintext, &mut self.out).unwrap();
    }
}

/// rustls' buffered connection.
pub(crate) struct Theirs {
    pub(crate) connection: Connection,
    pub(crate) plain: Vec<u8>,
    pub(crate) closed: bool,
    pub(crate) failure: Option<rustls::Error>,
}

impl Theirs {
    pub(crate) fn client(config: &Arc<ClientConfig>) -> Self {
        Self::client_for(config, "a.test")
    }

    pub(crate) fn client_for(config: &Arc<ClientConfig>, name: &'static str) -> Self {
        let name = ServerName::try_from(name).unwrap();
        let client = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self::new(client.into())
    }

    pub(crate) fn server(config: &Arc<ServerConfig>) -> Self {
        Self::new(ServerConnection::new(Arc::clone(config)).unwrap().into())
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            plain: Vec::new(),
            closed: false,
            failure: None,
        }
    }
}

impl End for Theirs {
    fn feed(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() && self.failure.is_none() {
            if self.connection.read_tls(&mut wire).unwrap() == 0 {
                return;
            }
            match self.connection.process_new_packets() {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(error) => self.failure = Some(error),
            }
            // A short read that would block is the end of what is there.
            let _ = self.connection.reader().read_to_end(&mut self.plain);
        }
    }

    fn take_out(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire).unwrap();
        }
        wire
    }

    fn send(&mut self, plaintext: &[u8]) {
        self.connection.set_buffer_limit(None);
        self.connection.writer().write_all(plaintext).unwrap();
    }
}

/// Carries bytes both ways, in pieces of `size`, until neither end has any. Returns what went in
/// each direction.
pub(crate) fn pump(a: &mut dyn End, b: &mut dyn End, size: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let from_a = a.take_out();
        from_a.chunks(size).for_each(|piece| b.feed(piece));
        let from_b = b.take_out();
        from_b.chunks(size).for_each(|piece| a.feed(piece));
        if from_a.is_empty() && from_b.is_empty() {
            return (forth, back);
        }
        forth.extend(from_a);
        back.extend(from_b);
    }
    panic!("the two ends never come to rest");
}

/// Carries everything in one piece.
pub(crate) fn connect(a: &mut dyn End, b: &mut dyn End) -> (Vec<u8>, Vec<u8>) {
    pump(a, b, usize::MAX)
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}
