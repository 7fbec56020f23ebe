//! Verification of peers' certificates: what the TLS library decides, what is told of it, and where
//! the application may be stricter or, in danger, laxer.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use thiserror::Error as ThisError;

use super::failure::CertificateProblem;
use super::peer::PeerIdentity;
use super::trace::{TlsStep, note};

/// The application does not want this peer, although its certificate is in order.
#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Refused {
    /// Why, for the log of this side. The peer is told no more than `access_denied`.
    pub reason: Box<str>,
}

impl Refused {
    /// For that reason.
    pub fn new(reason: impl Into<Box<str>>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// A server's certificate that was not accepted, for the application to look at.
#[derive(Debug)]
pub struct VerifyFailure<'a> {
    problem: &'a CertificateProblem,
    peer: &'a PeerIdentity,
    name: &'a str,
}

impl VerifyFailure<'_> {
    /// What is wrong.
    pub const fn problem(&self) -> &CertificateProblem {
        self.problem
    }

    /// The certificates, unverified.
    pub const fn peer(&self) -> &PeerIdentity {
        self.peer
    }

    /// The host name or address that the certificate was to be for.
    pub const fn name(&self) -> &str {
        self.name
    }
}

/// What becomes of a server whose certificate was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The connection is made nevertheless. Heeded only with
    /// [`danger_allow_override`](super::ClientTls::danger_allow_override); otherwise it is
    /// [`Reject`](Self::Reject).
    Accept,
    /// The connection fails.
    Reject,
}

/// A check by the application of peers that verification has let pass.
#[derive(Clone)]
pub(crate) struct AdmitHook(Arc<Admit>);

type Admit = dyn Fn(&PeerIdentity) -> Result<(), Refused> + Send + Sync;

impl AdmitHook {
    pub(crate) fn new(
        hook: impl Fn(&PeerIdentity) -> Result<(), Refused> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(hook))
    }

    /// Asks the application. A panic is a no.
    fn admit(&self, peer: &PeerIdentity) -> Result<(), Error> {
        let answer = catch_unwind(AssertUnwindSafe(|| (self.0)(peer)));
        let refused = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(refused)) => refused,
            Err(_panic) => Refused::new("the check after verification panicked"),
        };
        note(TlsStep::Refused(refused.reason));
        let error = CertificateError::ApplicationVerificationFailure;
        Err(Error::InvalidCertificate(error))
    }
}

impl fmt::Debug for AdmitHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmitHook")
    }
}

/// The application's look at servers that verification has not let pass.
#[derive(Clone)]
pub(crate) struct FailureHook(Arc<dyn Fn(&VerifyFailure<'_>) -> Verdict + Send + Sync>);

impl FailureHook {
    pub(crate) fn new(
        hook: impl Fn(&VerifyFailure<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(hook))
    }

    /// Asks the application. A panic is a no.
    fn ask(&self, failure: &VerifyFailure<'_>) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| (self.0)(failure))).unwrap_or(Verdict::Reject)
    }
}

impl fmt::Debug for FailureHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailureHook")
    }
}

/// Verifies clients, and tells of it.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) admit: Option<AdmitHook>,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    /// Called when the CertificateRequest is written, and at no other time.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        note(TlsStep::CertificateRequested);
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        note_received(rest);
        self.inner
            .verify_client_cert(leaf, rest, now)
            .inspect_err(note_failed)?;
        if let Some(hook) = &self.admit {
            hook.admit(&PeerIdentity::from_handshake(leaf, rest, true))?;
        }
        note(TlsStep::Verified);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, leaf, signature)
            .inspect_err(note_failed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, leaf, signature)
            .inspect_err(note_failed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// How a client verifies servers.
#[derive(Clone, Debug)]
pub(crate) enum ServerCheck {
    /// Nothing but that the server has the key of the certificate it shows.
    Anything,
    /// Everything.
    Full(Arc<WebPkiServerVerifier>),
    /// Everything but that the certificate is for the name.
    NoName(Arc<WebPkiServerVerifier>),
}

/// Verifies servers, and tells of it.
#[derive(Clone, Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) check: ServerCheck,
    /// The name to verify, where it is not the one that is sent as SNI.
    pub(crate) name: Option<ServerName<'static>>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    pub(crate) on_failure: Option<FailureHook>,
    /// Whether the application's `Accept` is heeded.
    pub(crate) may_override: bool,
    pub(crate) admit: Option<AdmitHook>,
}

impl ServerVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<Checked, Error> {
        match &self.check {
            ServerCheck::Anything => {
                note_unverified(None);
                Ok(Checked::Not)
            }
            ServerCheck::Full(verifier) => verifier
                .verify_server_cert(leaf, rest, name, ocsp, now)
                .map(|_| Checked::Verified),
            ServerCheck::NoName(verifier) => {
                match verifier.verify_server_cert(leaf, rest, name, ocsp, now) {
                    // The name is checked last, so these say that all else is in order.
                    Err(Error::InvalidCertificate(
                        CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. },
                    ))
                    | Ok(_) => Ok(Checked::Verified),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Verification has failed: the application may know better, if it was allowed to.
    fn failed(
        &self,
        error: Error,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<Checked, Error> {
        let (Some(hook), Error::InvalidCertificate(what)) = (&self.on_failure, &error) else {
            note_failed(&error);
            return Err(error);
        };
        let problem = CertificateProblem::from(what.clone());
        let failure = VerifyFailure {
            problem: &problem,
            peer: &PeerIdentity::from_handshake(leaf, rest, false),
            name: &name.to_str(),
        };
        match hook.ask(&failure) {
            Verdict::Accept if self.may_override => {
                note_unverified(Some(problem));
                Ok(Checked::Not)
            }
            Verdict::Accept | Verdict::Reject => {
                note(TlsStep::VerificationFailed(problem));
                Err(error)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Not,
    Verified,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        note_received(rest);
        let name = self.name.as_ref().unwrap_or(name);
        let checked = self
            .check(leaf, rest, name, ocsp, now)
            .or_else(|error| self.failed(error, leaf, rest, name))?;
        if let Some(hook) = &self.admit {
            let verified = checked == Checked::Verified;
            hook.admit(&PeerIdentity::from_handshake(leaf, rest, verified))?;
        }
        if checked == Checked::Verified {
            note(TlsStep::Verified);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms).inspect_err(note_failed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms).inspect_err(note_failed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn note_received(rest: &[CertificateDer<'_>]) {
    note(TlsStep::CertificateReceived {
        count: rest.len() + 1,
    });
}

fn note_unverified(problem: Option<CertificateProblem>) {
    UNVERIFIED.set(true);
    note(TlsStep::AcceptedUnverified { problem });
}

/// Whether a server was let pass without verification on this thread since this was last asked. The
/// session asks after each step of its handshake: rustls has no place for it.
pub(crate) fn take_unverified() -> bool {
    UNVERIFIED.take()
}

thread_local! {
    static UNVERIFIED: Cell<bool> = const { Cell::new(false) };
}

fn note_failed(error: &Error) {
    if let Error::InvalidCertificate(what) = error {
        note(TlsStep::VerificationFailed(what.clone().into()));
    }
}
