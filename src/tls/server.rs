//! TLS of a vhost as a server: its identity, whom it asks for certificates, what it agrees to.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ServerConfig, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::SingleCertAndKey;

use super::error::{RootsNeededBy, TlsConfigError};
use super::hello::{ClientHello, TlsVersion};
use super::identity::Identity;
use super::peer::PeerIdentity;
use super::roots::{RevocationLists, Roots};
use super::verify::{AdmitHook, ClientVerifier, Refused};
use super::{Terms, TlsEnv, check_alpn, library};

/// TLS of a vhost as a server.
///
/// ```no_run
/// # fn main() -> Result<(), wsloop::tls::TlsConfigError> {
/// use wsloop::tls::{ClientAuth, ClientTrust, Identity, Roots, ServerTls};
/// let identity = Identity::from_pem_files("chain.pem", "key.pem")?;
/// let trust = ClientTrust::new(Roots::from_pem_file("client-ca.pem")?);
/// let tls = ServerTls::new(identity).client_auth(ClientAuth::Required(trust));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerTls {
    rules: Rules,
}

#[derive(Clone)]
enum Rules {
    Own(Own),
    Expert(Arc<ServerConfig>),
}

#[derive(Clone, Debug)]
struct Own {
    identity: Identity,
    client_auth: ClientAuth,
    alpn: Vec<Vec<u8>>,
    terms: Terms,
    resumption: Resumption,
}

impl ServerTls {
    /// The defaults: no client is asked for a certificate; TLS 1.2 and 1.3; ALPN `http/1.1` and
    /// `http/1.0`, and clients without ALPN; resumption by tickets.
    pub fn new(identity: Identity) -> Self {
        Self {
            rules: Rules::Own(Own {
                identity,
                client_auth: ClientAuth::None,
                alpn: vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()],
                terms: Terms::default(),
                resumption: Resumption::Tickets,
            }),
        }
    }

    /// Everything as this configuration of rustls has it, which follows the versions of rustls and
    /// not those of this crate. The other settings, and the key log of the context, are without
    /// effect on it, certificates are neither watched nor exchanged, and the handshake trace lacks
    /// what it does about certificates. Neither whether it requires client certificates nor what it
    /// thinks of them is known: [`PeerIdentity::is_verified`] is false, and who comes with a ticket
    /// is not looked at again.
    pub const fn from_rustls(config: Arc<ServerConfig>) -> Self {
        Self {
            rules: Rules::Expert(config),
        }
    }

    /// Whether clients are asked for certificates, and which are good. Default
    /// [`ClientAuth::None`].
    pub fn client_auth(self, client_auth: ClientAuth) -> Self {
        self.set(|own| own.client_auth = client_auth)
    }

    /// The application protocols to agree to (RFC 7301), best first. A client that offers only
    /// others is refused; one that offers none is served. Empty: ALPN is ignored. Default
    /// `http/1.1`, `http/1.0`.
    pub fn alpn<P: Into<Vec<u8>>>(self, protocols: impl IntoIterator<Item = P>) -> Self {
        let protocols = protocols.into_iter().map(Into::into).collect();
        self.set(|own| own.alpn = protocols)
    }

    /// The lowest version to agree to: [`TlsVersion::TLS_1_2`], the default, or
    /// [`TlsVersion::TLS_1_3`].
    pub fn min_version(self, version: TlsVersion) -> Self {
        self.set(|own| own.terms.min = version)
    }

    /// The highest version to agree to: [`TlsVersion::TLS_1_2`], or [`TlsVersion::TLS_1_3`], the
    /// default. For peers or boxes between that cannot do with 1.3.
    pub fn max_version(self, version: TlsVersion) -> Self {
        self.set(|own| own.terms.max = version)
    }

    /// How clients may resume sessions. Default [`Resumption::Tickets`].
    pub fn resumption(self, resumption: Resumption) -> Self {
        self.set(|own| own.resumption = resumption)
    }

    /// The identity; `None` for a configuration of rustls.
    pub const fn current_identity(&self) -> Option<&Identity> {
        match &self.rules {
            Rules::Own(own) => Some(&own.identity),
            Rules::Expert(_) => None,
        }
    }

    /// The same with another identity; without effect on a configuration of rustls.
    pub fn with_identity(self, identity: Identity) -> Self {
        self.set(|own| own.identity = identity)
    }

    /// Checks everything and makes the configurations that handshakes use. Each call makes new
    /// ticket keys and an empty session cache, so what was agreed under earlier settings is never
    /// resumed under these.
    pub(crate) fn build(&self, env: &TlsEnv) -> Result<ServerConfigs, TlsConfigError> {
        match &self.rules {
            Rules::Own(own) => own.build(env),
            Rules::Expert(config) => Ok(ServerConfigs {
                asking: Arc::clone(config),
                quiet: None,
                demand: Demand::Unknown,
                verifier: None,
            }),
        }
    }

    fn set(mut self, change: impl FnOnce(&mut Own)) -> Self {
        if let Rules::Own(own) = &mut self.rules {
            change(own);
        }
        self
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(own) => own.fmt(f),
            Self::Expert(_) => f.write_str("a configuration of rustls"),
        }
    }
}

impl Own {
    fn build(&self, env: &TlsEnv) -> Result<ServerConfigs, TlsConfigError> {
        check_alpn(&self.alpn)?;
        let (trust, demand, selector) = match &self.client_auth {
            ClientAuth::None => {
                return Ok(ServerConfigs {
                    asking: self.config(env, None)?,
                    quiet: None,
                    demand: Demand::Nothing,
                    verifier: None,
                });
            }
            ClientAuth::Optional(trust) => (trust, Demand::Optional, None),
            ClientAuth::OptionalIf(selector, trust) => (trust, Demand::Optional, Some(selector)),
            ClientAuth::Required(trust) => (trust, Demand::Required, None),
        };
        let verifier = trust.verifier(env, demand)?;
        let quiet = |selector: &ClientSelector| {
            Ok(Quiet {
                config: self.config(env, None)?,
                selector: selector.clone(),
            })
        };
        Ok(ServerConfigs {
            asking: self.config(env, Some(&verifier))?,
            quiet: selector.map(quiet).transpose()?,
            demand,
            verifier: Some(verifier),
        })
    }

    fn config(
        &self,
        env: &TlsEnv,
        verifier: Option<&Arc<ClientVerifier>>,
    ) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let provider = Arc::clone(&env.provider);
        let builder = ServerConfig::builder_with_details(provider, Arc::clone(&env.clock))
            .with_protocol_versions(&self.terms.versions()?)
            .map_err(library)?;
        let builder = match verifier {
            Some(verifier) => {
                builder.with_client_cert_verifier(Arc::<ClientVerifier>::clone(verifier))
            }
            None => builder.with_no_client_auth(),
        };
        let may_refuse = verifier.is_some();
        let certified = Arc::clone(self.identity.certified());
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&self.alpn);
        // For the alert to a client whose session may not be resumed any more.
        config.enable_secret_extraction = may_refuse;
        self.resumption.apply(&mut config)?;
        if let Some(log) = &env.key_log {
            config.key_log = Arc::new(log.clone());
        }
        Ok(Arc::new(config))
    }
}

/// Whether a server asks its clients for certificates.
///
/// Asking has a price: Chromium gives up every `wss://` connection whose server asks, even if the
/// certificate is optional. A vhost for browsers must not ask them, see
/// [`OptionalIf`](Self::OptionalIf).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Nobody is asked.
    #[default]
    None,
    /// All are asked, and may answer that they have none. A certificate that is not good is not
    /// better than none: it fails the handshake.
    Optional(ClientTrust),
    /// As [`Optional`](Self::Optional) for the clients that the selector picks by their
    /// ClientHello; the others are not asked. A session of one kind is not resumed in the other.
    ///
    /// A ClientHello can be made up, so this decides who is *asked*; what a connection without
    /// [`peer identity`](PeerIdentity) may do has to be decided as for `Optional`.
    OptionalIf(ClientSelector, ClientTrust),
    /// All are asked, and whoever has none is refused.
    Required(ClientTrust),
}

/// Picks clients by their ClientHello, see [`ClientAuth::OptionalIf`].
#[derive(Clone)]
pub struct ClientSelector(Arc<dyn Fn(&ClientHello) -> bool + Send + Sync>);

impl ClientSelector {
    /// Picks those for whom `pick` is true.
    pub fn new(pick: impl Fn(&ClientHello) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(pick))
    }

    /// Picks all but browsers, as far as a ClientHello tells: see
    /// [`ClientHello::looks_like_browser`].
    pub fn not_a_browser() -> Self {
        Self::new(|hello| !hello.looks_like_browser())
    }

    fn picks(&self, hello: &ClientHello) -> bool {
        (self.0)(hello)
    }
}

impl fmt::Debug for ClientSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSelector")
    }
}

/// Which certificates of clients are good: those that lead to a root, for client authentication
/// (extended key usage), in date, not revoked; and that the application does not refuse.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientTrust {
    roots: Roots,
    revoked: RevocationLists,
    admit: Option<AdmitHook>,
}

impl ClientTrust {
    /// Those that were issued under these roots. Clients are told the names of the roots.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            revoked: RevocationLists::default(),
            admit: None,
        }
    }

    /// Looks certificates up in these lists. Default: none.
    pub fn revocation_lists(mut self, lists: RevocationLists) -> Self {
        self.revoked = lists;
        self
    }

    /// Asks the application about every client whose certificate is good. It can refuse, and
    /// cannot accept what is not good. A panic refuses. It runs once per handshake, in the middle of
    /// a full one and at the end of one that resumes a session, on the thread of the loop.
    pub fn after_verification(
        mut self,
        check: impl Fn(&PeerIdentity) -> Result<(), Refused> + Send + Sync + 'static,
    ) -> Self {
        self.admit = Some(AdmitHook::new(check));
        self
    }

    fn verifier(
        &self,
        env: &TlsEnv,
        demand: Demand,
    ) -> Result<Arc<ClientVerifier>, TlsConfigError> {
        if self.roots.is_empty() {
            return Err(TlsConfigError::NoRoots(RootsNeededBy::Server));
        }
        let roots = Arc::clone(self.roots.store());
        let provider = Arc::clone(&env.provider);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let mut builder = self.revoked.apply_to_client_verifier(builder);
        if demand != Demand::Required {
            builder = builder.allow_unauthenticated();
        }
        Ok(Arc::new(ClientVerifier {
            inner: builder.build().map_err(library)?,
            admit: self.admit.clone(),
        }))
    }
}

/// How a server lets clients resume sessions, which saves both sides the certificates and a
/// signature.
///
/// The certificate of a client that resumes its session is verified again, with the time and the
/// application's opinion of now: who is not let pass any more gets the alert that a full handshake
/// would have ended with. Keys and caches belong to one vhost and its settings at the time: when its identity or
/// trust is replaced, nobody resumes from before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumption {
    /// At most that many sessions are kept in memory here.
    Cache(usize),
    /// Not at all.
    Off,
    /// The state is in tickets that clients keep, encrypted with keys that change every six hours
    /// and are forgotten after twelve. Clients that know no tickets share a small cache.
    #[default]
    Tickets,
}

impl Resumption {
    fn apply(self, config: &mut ServerConfig) -> Result<(), TlsConfigError> {
        match self {
            Self::Cache(sessions) => {
                config.session_storage = ServerSessionMemoryCache::new(sessions);
            }
            Self::Off => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Self::Tickets => {
                config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
                set_ticketer(config)?;
            }
        }
        Ok(())
    }
}

/// Sessions kept beside tickets, for TLS 1.2 clients without them.
const SESSIONS: usize = 256;

#[cfg(feature = "aws-lc-rs")]
fn set_ticketer(config: &mut ServerConfig) -> Result<(), TlsConfigError> {
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(library)?;
    Ok(())
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn set_ticketer(config: &mut ServerConfig) -> Result<(), TlsConfigError> {
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(library)?;
    Ok(())
}

/// A provider of the application's has no ticket keys that could be asked for; the cache serves.
#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn set_ticketer(_: &mut ServerConfig) -> Result<(), TlsConfigError> {
    Ok(())
}

/// What a vhost demands of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    Nothing,
    Optional,
    Required,
    /// A configuration of rustls does not say.
    Unknown,
}

/// The checked settings of a vhost, ready for handshakes.
#[derive(Debug)]
pub(crate) struct ServerConfigs {
    /// For all, or for those who are asked.
    asking: Arc<ServerConfig>,
    /// For those who are not asked.
    quiet: Option<Quiet>,
    demand: Demand,
    verifier: Option<Arc<ClientVerifier>>,
}

#[derive(Debug)]
struct Quiet {
    config: Arc<ServerConfig>,
    selector: ClientSelector,
}

impl ServerConfigs {
    /// The configuration for this client.
    pub(crate) fn for_hello(&self, hello: &ClientHello) -> Arc<ServerConfig> {
        match &self.quiet {
            Some(quiet) if !quiet.selector.picks(hello) => Arc::clone(&quiet.config),
            _ => Arc::clone(&self.asking),
        }
    }

    /// Whether this client is asked for a certificate, as far as is known.
    pub(crate) fn asks(&self, hello: &ClientHello) -> bool {
        let quiet = self
            .quiet
            .as_ref()
            .is_some_and(|quiet| !quiet.selector.picks(hello));
        !quiet && matches!(self.demand, Demand::Optional | Demand::Required)
    }

    /// Whether a client without a certificate is always refused.
    pub(crate) fn requires_client_cert(&self) -> bool {
        self.demand == Demand::Required
    }

    /// Whether the certificates of clients are verified by rules that are known here.
    pub(crate) const fn verifies(&self) -> bool {
        self.verifier.is_some()
    }

    /// Verifies the chain of a resumed session again, as if it had been presented now: time has
    /// passed since, and the application may have changed its mind.
    pub(crate) fn verify_resumed(
        &self,
        chain: &[CertificateDer<'_>],
        env: &TlsEnv,
    ) -> Result<(), rustls::Error> {
        let (verifier, leaf, rest) = match (&self.verifier, chain.split_first()) {
            (Some(verifier), Some((leaf, rest))) => (verifier, leaf, rest),
            (_, None) if self.requires_client_cert() => {
                return Err(rustls::Error::NoCertificatesPresented);
            }
            _ => return Ok(()),
        };
        let now = env.clock.current_time();
        let now = now.ok_or(rustls::Error::FailedToGetCurrentTime)?;
        verifier.verify_client_cert(leaf, rest, now).map(|_| ())
    }
}
