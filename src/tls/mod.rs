//! TLS, client and server side: identities, trust, and what a handshake decided.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod alert;
pub(crate) mod client;
mod der;
mod error;
pub(crate) mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod hello;
mod identity;
mod info;
mod key_log;
mod last_alert;
mod peer;
mod pem;
mod roots;
pub(crate) mod rotate;
pub(crate) mod server;
pub(crate) mod session;
mod tap;
#[cfg(test)]
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod test_support;
#[cfg(test)]
#[path = "../../tests/support/testpki.rs"]
pub(crate) mod testpki;
#[cfg(test)]
mod tests;
pub(crate) mod trace;
pub(crate) mod unbuffered;
pub(crate) mod verify;

use std::sync::Arc;

use rustls::NamedGroup;
use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;
use rustls::pki_types::UnixTime;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{SupportedProtocolVersion, version};

pub use alert::Alert;
pub use client::{ClientTls, Sni};
pub use der::UtcTime;
pub use error::{InputProblem, PemSource, RootsNeededBy, TlsConfigError};
pub use failure::{CertificateProblem, TlsFailure, TlsParameter, TlsStage};
pub use hello::{ClientHello, ForeignProtocol, HelloError, ServerNameIndication, TlsVersion};
pub use identity::{Identity, IdentityFiles, IdentityOptions, IdentityWarning};
pub use info::TlsInfo;
pub(crate) use key_log::SharedKeyLog;
pub use key_log::{KeyLog, KeyLogFile};
pub use peer::PeerIdentity;
pub use roots::{RevocationLists, Roots};
pub use rotate::Expiring;
pub(crate) use rotate::{ClientCell, ServerCell};
pub use server::{ClientAuth, ClientSelector, ClientTrust, Resumption, ServerTls};
pub use trace::{ChosenBy, HelloSummary, TlsHandshake, TlsStep, TlsTrace};
pub use verify::{Refused, Verdict, VerifyFailure};

/// What all TLS settings of a context have in common.
#[derive(Clone, Debug)]
pub(crate) struct TlsEnv {
    pub(crate) provider: Arc<CryptoProvider>,
    /// The wall clock that certificates and tickets are judged by.
    pub(crate) clock: Arc<dyn TimeProvider>,
    /// Where secrets are written to, if the application wants them written.
    pub(crate) key_log: Option<SharedKeyLog>,
}

impl TlsEnv {
    /// The default provider and the system's clock.
    pub(crate) fn system() -> Result<Self, TlsConfigError> {
        Ok(Self {
            provider: provider()?,
            clock: Arc::new(DefaultTimeProvider),
            key_log: None,
        })
    }

    pub(crate) fn now(&self) -> Result<UtcTime, TlsConfigError> {
        let now = self.clock.current_time().ok_or(TlsConfigError::Clock)?;
        Ok(utc(now))
    }
}

/// The crypto provider: the application's process-wide default if it has installed one, else
/// aws-lc-rs, else ring. None is ever installed from here.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    match CryptoProvider::get_default() {
        Some(provider) => Ok(Arc::clone(provider)),
        None => compiled_in(),
    }
}

#[cfg(feature = "aws-lc-rs")]
fn compiled_in() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn compiled_in() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    Ok(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
const fn compiled_in() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    Err(TlsConfigError::NoProvider)
}

/// SHA-256 out of the provider's cipher suites, all of which need a hash.
fn sha256(bytes: &[u8]) -> Option<[u8; 32]> {
    let provider = provider().ok()?;
    let hash = |suite: &SupportedCipherSuite| {
        let hash = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        };
        (hash.algorithm() == HashAlgorithm::SHA256).then_some(hash)
    };
    let hash = provider.cipher_suites.iter().find_map(hash)?;
    hash.hash(bytes).as_ref().try_into().ok()
}

/// What the peers agree on in a handshake, as far as it is a choice.
#[derive(Clone, Copy, Debug)]
struct Terms {
    min: TlsVersion,
    max: TlsVersion,
    post_quantum: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            min: TlsVersion::TLS_1_2,
            max: TlsVersion::TLS_1_3,
            post_quantum: false,
        }
    }
}

impl Terms {
    /// The versions, for rustls.
    fn versions(self) -> Result<Vec<&'static SupportedProtocolVersion>, TlsConfigError> {
        let Self { min, max, .. } = self;
        let known = [
            (TlsVersion::TLS_1_3, &version::TLS13),
            (TlsVersion::TLS_1_2, &version::TLS12),
        ];
        let is_unknown = |end: &TlsVersion| known.iter().all(|(version, _)| version != end);
        if let Some(end) = [min, max].into_iter().find(is_unknown) {
            return Err(TlsConfigError::Version(end));
        }
        let within = known.into_iter().filter(|(v, _)| (min..=max).contains(v));
        let versions: Vec<_> = within.map(|(_, version)| version).collect();
        match versions.is_empty() {
            true => Err(TlsConfigError::VersionRange { min, max }),
            false => Ok(versions),
        }
    }

    /// The provider, with the groups for key exchange in the order that is wanted.
    fn provider(self, env: &TlsEnv) -> Arc<CryptoProvider> {
        if !self.post_quantum {
            return Arc::clone(&env.provider);
        }
        let mut provider = CryptoProvider::clone(&env.provider);
        // Stable: the others stay in the order that the provider has.
        let is_classic = |name: NamedGroup| name != NamedGroup::X25519MLKEM768;
        provider
            .kx_groups
            .sort_by_key(|group| is_classic(group.name()));
        Arc::new(provider)
    }
}

fn check_alpn(protocols: &[Vec<u8>]) -> Result<(), TlsConfigError> {
    let bad = |protocol: &&Vec<u8>| protocol.is_empty() || protocol.len() > 255;
    match protocols.iter().find(bad) {
        Some(protocol) => Err(TlsConfigError::Alpn {
            len: protocol.len(),
        }),
        None => Ok(()),
    }
}

fn library(error: impl std::fmt::Display) -> TlsConfigError {
    TlsConfigError::Library(error.to_string())
}

fn utc(time: UnixTime) -> UtcTime {
    UtcTime::from_unix(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
