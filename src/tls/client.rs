//! TLS of a vhost as a client: whom it trusts, what it shows when asked, which names it says and
//! verifies.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::SignatureScheme;
use rustls::client::{ClientConfig, ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use super::error::{RootsNeededBy, TlsConfigError};
use super::hello::TlsVersion;
use super::identity::Identity;
use super::peer::PeerIdentity;
use super::roots::{RevocationLists, Roots};
use super::trace::{TlsStep, note};
use super::verify::{
    AdmitHook, FailureHook, Refused, ServerCheck, ServerVerifier, Verdict, VerifyFailure,
};
use super::{Terms, TlsEnv, check_alpn, library};

/// TLS of a vhost as a client.
///
/// ```no_run
/// # fn main() -> Result<(), wsloop::tls::TlsConfigError> {
/// use wsloop::tls::{ClientTls, Identity, Roots};
/// let tls = ClientTls::new(Roots::from_pem_file("ca.pem")?)
///     .identity(Identity::from_pem_files("client.pem", "client.key")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientTls {
    rules: Rules,
}

#[derive(Clone)]
enum Rules {
    Own(Box<Own>),
    Expert(Arc<ClientConfig>),
}

#[derive(Clone, Debug)]
struct Own {
    roots: Roots,
    revoked: RevocationLists,
    identity: Option<Identity>,
    sni: Sni,
    verify_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    terms: Terms,
    sessions: usize,
    on_failure: Option<FailureHook>,
    admit: Option<AdmitHook>,
    danger: Danger,
}

#[derive(Clone, Copy, Debug, Default)]
struct Danger {
    allow_override: bool,
    no_hostname_check: bool,
    accept_any_certificate: bool,
}

impl ClientTls {
    /// The defaults: servers are verified against these roots, by the name or address that was
    /// dialled; no certificate is shown; TLS 1.2 and 1.3; ALPN `http/1.1`.
    pub fn new(roots: Roots) -> Self {
        Self {
            rules: Rules::Own(Box::new(Own {
                roots,
                revoked: RevocationLists::default(),
                identity: None,
                sni: Sni::Default,
                verify_name: None,
                alpn: vec![b"http/1.1".to_vec()],
                terms: Terms::default(),
                sessions: SESSIONS,
                on_failure: None,
                admit: None,
                danger: Danger::default(),
            })),
        }
    }

    /// Everything as this configuration of rustls has it, which follows the versions of rustls and
    /// not those of this crate. The other settings, and the key log of the context, are without
    /// effect on it, the handshake trace lacks what it does about certificates, and a connection
    /// cannot verify another name than it sends. What it verifies is not known:
    /// [`PeerIdentity::is_verified`] is false.
    pub const fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self {
            rules: Rules::Expert(config),
        }
    }

    /// The certificate to show to servers that ask for one. Default: none.
    pub fn identity(self, identity: Identity) -> Self {
        self.set(|own| own.identity = Some(identity))
    }

    /// Looks servers' certificates up in these lists. Default: none.
    pub fn revocation_lists(self, lists: RevocationLists) -> Self {
        self.set(|own| own.revoked = lists)
    }

    /// The name to send as SNI, where a connection does not say. Default [`Sni::Default`].
    pub fn sni(self, sni: Sni) -> Self {
        self.set(|own| own.sni = sni)
    }

    /// The host name or IP address that servers' certificates have to be for, where a connection
    /// does not say. Default: what was dialled.
    pub fn verify_name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.set(|own| own.verify_name = Some(name))
    }

    /// The application protocols to offer (RFC 7301), best first. Empty: no ALPN. Default
    /// `http/1.1`.
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

    /// Offers the key exchange X25519MLKEM768, which is thought to withstand quantum computers,
    /// first, for a ClientHello that is 1.2 KB longer. Without, it is offered last, if the crypto
    /// provider has it: aws-lc-rs does, ring does not, and then this is without effect. TLS 1.3
    /// only. Servers of this crate take the first of their client's that they know, so the choice
    /// is the client's. Default `false`.
    pub fn prefer_post_quantum(self, prefer: bool) -> Self {
        self.set(|own| own.terms.post_quantum = prefer)
    }

    /// How many sessions to remember for resumption, 0 for none. Default 256. With any of the
    /// `danger_` options nothing is resumed, so that every server is looked at.
    pub fn sessions(self, sessions: usize) -> Self {
        self.set(|own| own.sessions = sessions)
    }

    /// Asks the application about every server that verification has let pass. It can refuse; a
    /// panic refuses. It runs in the middle of the handshake, once per full handshake, on the
    /// thread of the loop.
    pub fn after_verification(
        self,
        check: impl Fn(&PeerIdentity) -> Result<(), Refused> + Send + Sync + 'static,
    ) -> Self {
        self.set(|own| own.admit = Some(AdmitHook::new(check)))
    }

    /// Shows the application every server whose certificate is not accepted. Whatever it answers,
    /// the connection fails, unless
    /// [`danger_allow_override`](Self::danger_allow_override) was set too. A panic rejects.
    pub fn on_verify_failure(
        self,
        look: impl Fn(&VerifyFailure<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.set(|own| own.on_failure = Some(FailureHook::new(look)))
    }

    /// Heeds [`Verdict::Accept`] of [`on_verify_failure`](Self::on_verify_failure): the
    /// application takes over what verification is for.
    pub fn danger_allow_override(self, allow: bool) -> Self {
        self.set(|own| own.danger.allow_override = allow)
    }

    /// Does not check that the certificate is for the name: whoever has any certificate of a
    /// trusted root can be the server. Roots, dates, purpose and revocation are checked.
    pub fn danger_no_hostname_check(self, skip: bool) -> Self {
        self.set(|own| own.danger.no_hostname_check = skip)
    }

    /// Accepts every certificate, checking only that the server has its key: anybody on the way
    /// can be the server. With [`after_verification`](Self::after_verification), one known
    /// certificate can be told from all others.
    pub fn danger_accept_any_certificate(self, accept: bool) -> Self {
        self.set(|own| own.danger.accept_any_certificate = accept)
    }

    /// The identity, if there is one; `None` for a configuration of rustls.
    pub const fn current_identity(&self) -> Option<&Identity> {
        match &self.rules {
            Rules::Own(own) => own.identity.as_ref(),
            Rules::Expert(_) => None,
        }
    }

    /// Checks everything and makes the configurations that handshakes use. Each call makes an empty
    /// session store, so that no session is resumed under another identity than its own.
    pub(crate) fn build(&self, env: &TlsEnv) -> Result<ClientConfigs, TlsConfigError> {
        match &self.rules {
            Rules::Own(own) => own.build(env),
            Rules::Expert(config) => Ok(ClientConfigs::expert(config)),
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
    fn build(&self, env: &TlsEnv) -> Result<ClientConfigs, TlsConfigError> {
        check_alpn(&self.alpn)?;
        let names = DefaultNames {
            sni: SniName::parse(&self.sni)?,
            verify: self.verify_name.as_deref().map(server_name).transpose()?,
        };
        let verifier = self.verifier(env)?;
        let provider = self.terms.provider(env);
        let identity = self.identity.as_ref();
        let resolver = ClientResolver {
            certified: identity.map(|identity| Arc::clone(identity.certified())),
        };
        let mut named = ClientConfig::builder_with_details(provider, Arc::clone(&env.clock))
            .with_protocol_versions(&self.terms.versions()?)
            .map_err(library)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.clone()))
            .with_client_cert_resolver(Arc::new(resolver));
        named.alpn_protocols.clone_from(&self.alpn);
        let sessions = if self.danger.is_any() {
            0
        } else {
            self.sessions
        };
        named.resumption = resumption(sessions);
        if let Some(log) = &env.key_log {
            named.key_log = Arc::new(log.clone());
        }
        Ok(ClientConfigs::new(named, names, sessions, Some(verifier)))
    }

    fn verifier(&self, env: &TlsEnv) -> Result<ServerVerifier, TlsConfigError> {
        let check = if self.danger.accept_any_certificate {
            ServerCheck::Anything
        } else if self.danger.no_hostname_check {
            ServerCheck::NoName(self.webpki(env)?)
        } else {
            ServerCheck::Full(self.webpki(env)?)
        };
        Ok(ServerVerifier {
            check,
            name: None,
            algorithms: env.provider.signature_verification_algorithms,
            on_failure: self.on_failure.clone(),
            may_override: self.danger.allow_override,
            admit: self.admit.clone(),
        })
    }

    fn webpki(&self, env: &TlsEnv) -> Result<Arc<WebPkiServerVerifier>, TlsConfigError> {
        if self.roots.is_empty() {
            return Err(TlsConfigError::NoRoots(RootsNeededBy::Client));
        }
        let roots = Arc::clone(self.roots.store());
        let provider = Arc::clone(&env.provider);
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let builder = self.revoked.apply_to_server_verifier(builder);
        builder.build().map_err(library)
    }
}

impl Danger {
    const fn is_any(self) -> bool {
        self.allow_override || self.no_hostname_check || self.accept_any_certificate
    }
}

/// The name that a client sends in the clear, so that the server can choose among its certificates
/// (SNI, RFC 6066 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sni {
    /// The host that is dialled; none if that is an IP address.
    #[default]
    Default,
    /// This host name.
    Name(String),
    /// None.
    None,
}

/// The names of one connection. What is `None` is as the vhost has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerNames<'a> {
    /// The host name or IP address of the URL.
    pub(crate) host: &'a str,
    pub(crate) sni: Option<&'a Sni>,
    pub(crate) verify_name: Option<&'a str>,
}

/// What to begin a handshake with.
#[derive(Debug)]
pub(crate) struct ClientHandshake {
    pub(crate) config: Arc<ClientConfig>,
    /// For rustls: what it sends as SNI, if the configuration has it send one, and what it keeps
    /// sessions by.
    pub(crate) name: ServerName<'static>,
    /// Whether servers are verified by rules that are known here.
    pub(crate) verifies: bool,
}

/// The checked settings of a vhost, ready for handshakes.
#[derive(Debug)]
pub(crate) struct ClientConfigs {
    /// Verifies the name that it sends as SNI.
    named: Arc<ClientConfig>,
    /// Sends no SNI.
    unnamed: Arc<ClientConfig>,
    names: DefaultNames,
    sessions: usize,
    /// `None` for a configuration of rustls.
    verifier: Option<ServerVerifier>,
    /// Those that verify another name than they send, newest first. Sessions are kept by the name
    /// that is sent, so each verified name needs a store of its own.
    split: Mutex<VecDeque<Split>>,
}

#[derive(Debug)]
struct Split {
    sni: ServerName<'static>,
    verify: ServerName<'static>,
    config: Arc<ClientConfig>,
}

#[derive(Clone, Debug)]
struct DefaultNames {
    sni: SniName,
    verify: Option<ServerName<'static>>,
}

/// A checked [`Sni`].
#[derive(Clone, Debug)]
enum SniName {
    Default,
    Name(ServerName<'static>),
    None,
}

impl SniName {
    fn parse(sni: &Sni) -> Result<Self, TlsConfigError> {
        match sni {
            Sni::Default => Ok(Self::Default),
            Sni::None => Ok(Self::None),
            Sni::Name(text) => match server_name(text)? {
                name @ ServerName::DnsName(_) => Ok(Self::Name(name)),
                _ => Err(TlsConfigError::SniIsAddress { name: text.clone() }),
            },
        }
    }
}

impl ClientConfigs {
    fn new(
        named: ClientConfig,
        names: DefaultNames,
        sessions: usize,
        verifier: Option<ServerVerifier>,
    ) -> Self {
        let mut unnamed = named.clone();
        unnamed.enable_sni = false;
        unnamed.resumption = resumption(sessions);
        Self {
            named: Arc::new(named),
            unnamed: Arc::new(unnamed),
            names,
            sessions,
            verifier,
            split: Mutex::default(),
        }
    }

    fn expert(config: &Arc<ClientConfig>) -> Self {
        let names = DefaultNames {
            sni: SniName::Default,
            verify: None,
        };
        Self {
            named: Arc::clone(config),
            ..Self::new(ClientConfig::clone(config), names, 0, None)
        }
    }

    /// What a connection with these names begins its handshake with.
    pub(crate) fn handshake(
        &self,
        names: PeerNames<'_>,
    ) -> Result<ClientHandshake, TlsConfigError> {
        let (sni, verify) = self.checked(names)?;
        let (config, name) = match sni {
            None => (Arc::clone(&self.unnamed), verify),
            Some(sni) if sni == verify => (Arc::clone(&self.named), sni),
            Some(sni) => (self.split(&sni, &verify)?, sni),
        };
        Ok(ClientHandshake {
            config,
            name,
            verifies: self.verifier.is_some(),
        })
    }

    /// Whether a connection can have these names.
    pub(crate) fn check(&self, names: PeerNames<'_>) -> Result<(), TlsConfigError> {
        match self.checked(names)? {
            (Some(sni), verify) if sni != verify && self.verifier.is_none() => {
                Err(TlsConfigError::VerifyNameOfRustls)
            }
            _ => Ok(()),
        }
    }

    /// What to send as SNI and what to verify.
    fn checked(
        &self,
        names: PeerNames<'_>,
    ) -> Result<(Option<ServerName<'static>>, ServerName<'static>), TlsConfigError> {
        let host = server_name(names.host)?;
        let verify = match (names.verify_name, &self.names.verify) {
            (Some(name), _) => server_name(name)?,
            (None, Some(name)) => name.clone(),
            (None, None) => host.clone(),
        };
        let sni = match names.sni {
            Some(sni) => SniName::parse(sni)?,
            None => self.names.sni.clone(),
        };
        let sni = match sni {
            SniName::Default => Some(host).filter(|host| matches!(host, ServerName::DnsName(_))),
            SniName::Name(name) => Some(name),
            SniName::None => None,
        };
        Ok((sni, verify))
    }

    /// Pairs of names that have a configuration of their own.
    #[cfg(test)]
    pub(crate) fn pairs_of_names(&self) -> usize {
        self.split.lock().unwrap().len()
    }

    /// A configuration that sends one name and verifies another.
    fn split(
        &self,
        sni: &ServerName<'static>,
        verify: &ServerName<'static>,
    ) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let Some(verifier) = &self.verifier else {
            return Err(TlsConfigError::VerifyNameOfRustls);
        };
        let mut known = self.split.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known
            .iter()
            .find(|split| split.sni == *sni && split.verify == *verify);
        if let Some(split) = found {
            return Ok(Arc::clone(&split.config));
        }
        let verifier = ServerVerifier {
            name: Some(verify.clone()),
            ..verifier.clone()
        };
        let mut config = ClientConfig::clone(&self.named);
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(verifier));
        config.resumption = resumption(self.sessions);
        let config = Arc::new(config);
        known.truncate(SPLITS - 1);
        known.push_front(Split {
            sni: sni.clone(),
            verify: verify.clone(),
            config: Arc::clone(&config),
        });
        Ok(config)
    }
}

/// Shows the identity, if there is one that the server can verify, and tells of it.
#[derive(Debug)]
struct ClientResolver {
    certified: Option<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for ClientResolver {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        note(TlsStep::CertificateRequested);
        let usable = |certified: &&Arc<CertifiedKey>| {
            let key = &certified.key;
            key.choose_scheme(schemes).is_some()
        };
        let certified = self.certified.as_ref().filter(usable);
        let count = certified.map_or(0, |certified| certified.cert.len());
        note(TlsStep::CertificateSent { count });
        certified.map(Arc::clone)
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

/// A host name in lower case without its trailing dot, or an IP address with or without brackets
/// and zone.
fn server_name(text: &str) -> Result<ServerName<'static>, TlsConfigError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.split_once('%').map_or(bare, |(address, _)| address);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    ServerName::try_from(name).map_err(|_| TlsConfigError::name(text))
}

fn resumption(sessions: usize) -> rustls::client::Resumption {
    match sessions {
        0 => rustls::client::Resumption::disabled(),
        sessions => rustls::client::Resumption::in_memory_sessions(sessions),
    }
}

const SESSIONS: usize = 256;
/// Pairs of names whose sessions are remembered.
const SPLITS: usize = 32;
