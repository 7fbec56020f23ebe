//! Why a TLS connection failed, in terms of what a user can act on.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};
use thiserror::Error;

use super::alert::Alert;
use super::hello::{ForeignProtocol, HelloError};
use super::unbuffered::SentAlert;
use crate::error::Deadline;

/// Why a handshake, or an established TLS connection, failed.
///
/// The side that verifies something reports the exact reason; the other side learns an
/// [alert](Self::PeerAlert), which is all that TLS tells it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// A record does not decrypt: something between the peers changed it, or the keys differ.
    #[error("a record from the peer does not decrypt: changed on the way, or made with other keys")]
    BadRecord,
    /// We do not accept the peer's certificate.
    #[error("the peer's certificate is not accepted: {0}")]
    Certificate(CertificateProblem),
    /// The client ended the connection in answer to our request for a certificate, without an
    /// alert. Chromium does this to every `wss://` connection for whose server it has no remembered
    /// choice of certificate; do not ask browsers (`OptionalIf`), or ask on another name.
    #[error(
        "the client closed on our request for a certificate, without an alert: browsers do so on \
         wss://; do not ask browsers for certificates"
    )]
    CertificateRequestCancelled,
    /// The peer closed the connection before the handshake was complete, without an alert.
    #[error("the peer closed the connection {0}")]
    Closed(TlsStage),
    /// The ClientHello breaks the protocol.
    #[error("{0}")]
    Hello(#[source] HelloError),
    /// The ClientHello is longer than we accept.
    #[error("the ClientHello takes more than {limit} bytes")]
    HelloTooLarge {
        /// The limit that it is over, in bytes.
        limit: usize,
    },
    /// Something failed on our side: configuration, clock, randomness.
    #[error("TLS cannot go on for a reason on this side: {detail}")]
    Internal {
        /// The TLS library's words.
        detail: Box<str>,
        /// The alert that was sent, where that is known.
        alert: Option<Alert>,
    },
    /// The connection failed before the handshake was complete: most often it was reset.
    #[error("the connection was lost {stage}: {kind}")]
    Lost {
        /// How far the handshake had come.
        stage: TlsStage,
        /// The system's reason.
        kind: io::ErrorKind,
    },
    /// No application protocol (ALPN) in common.
    #[error("the peers have no application protocol (ALPN) in common")]
    NoApplicationProtocol,
    /// A certificate is required and the peer gave none.
    #[error("the peer gave no certificate and one is required")]
    NoCertificate,
    /// No cipher suite, key exchange group or signature scheme in common.
    #[error("the peers have no {0} in common")]
    NoCommonParameters(TlsParameter),
    /// No version of TLS in common.
    #[error("the peers have no version of TLS in common; we speak 1.2 and 1.3, as configured")]
    NoCommonVersion,
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS, but {0}")]
    NotTls(ForeignProtocol),
    /// The peer gave up and said why: it does not accept what we sent.
    #[error("the peer refused with {0}{meaning}", meaning = Meaning(*.0))]
    PeerAlert(Alert),
    /// The peer broke the protocol.
    #[error("the peer broke the TLS protocol: {detail}")]
    PeerMisbehaved {
        /// The TLS library's words.
        detail: Box<str>,
        /// The alert that was sent, where that is known.
        alert: Option<Alert>,
    },
    /// A message in many pieces is longer than we keep.
    #[error(
        "the peer's message takes more than the {limit} bytes that are kept of an incomplete one"
    )]
    StashOverflow {
        /// The limit that it is over, in bytes.
        limit: usize,
    },
    /// The handshake was not complete in time.
    #[error("{deadline}; the peer stopped {stage}")]
    Timeout {
        /// The deadline that passed: that of the handshake, of the whole attempt, or, where not one
        /// byte came, that of the first request.
        deadline: Deadline,
        /// How far the handshake had come.
        stage: TlsStage,
    },
    /// The connection ended without the peer's `close_notify`: what came before may be incomplete
    /// (RFC 8446 section 6.1).
    #[error("the connection ended without close_notify; the last data may be missing")]
    Truncated,
    /// The client asked for a name that no vhost of the listener has, or for none, and the
    /// listener refuses that.
    #[error("{}", Asked(.name.as_deref()))]
    UnrecognizedName {
        /// The name in SNI; `None` if there was none.
        name: Option<Box<str>>,
    },
}

impl TlsFailure {
    /// The alert that we answer with. `None` where none is sent: the peer is gone, gave an alert
    /// itself, would not understand one, or the TLS library does not say which it sent.
    pub fn alert(&self) -> Option<Alert> {
        match self {
            Self::BadRecord => Some(Alert::BAD_RECORD_MAC),
            Self::Certificate(problem) => Some(problem.alert()),
            Self::Hello(error) => error.alert(),
            Self::HelloTooLarge { .. } => Some(Alert::ILLEGAL_PARAMETER),
            Self::Internal { alert, .. } | Self::PeerMisbehaved { alert, .. } => *alert,
            Self::NoApplicationProtocol => Some(Alert::NO_APPLICATION_PROTOCOL),
            Self::NoCertificate => Some(Alert::CERTIFICATE_REQUIRED),
            Self::NoCommonParameters(_) => Some(Alert::HANDSHAKE_FAILURE),
            Self::NoCommonVersion => Some(Alert::PROTOCOL_VERSION),
            Self::NotTls(guess) => HelloError::NotTls(*guess).alert(),
            Self::UnrecognizedName { .. } => Some(Alert::UNRECOGNIZED_NAME),
            Self::CertificateRequestCancelled
            | Self::Closed(_)
            | Self::Lost { .. }
            | Self::PeerAlert(_)
            | Self::StashOverflow { .. }
            | Self::Timeout { .. }
            | Self::Truncated => None,
        }
    }

    /// The alert that the peer sent.
    pub const fn peer_alert(&self) -> Option<Alert> {
        match self {
            Self::PeerAlert(alert) | Self::NotTls(ForeignProtocol::Alert(alert)) => Some(*alert),
            _ => None,
        }
    }

    /// What rustls' error means.
    pub(crate) fn from_rustls(error: Error, sent: SentAlert) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::PeerAlert(alert.into()),
            // The same error stands for a Finished message that does not verify.
            Error::DecryptError if sent != SentAlert::Clear(Alert::DECRYPT_ERROR) => {
                Self::BadRecord
            }
            Error::InvalidCertificate(error) => Self::Certificate(error.into()),
            Error::NoApplicationProtocol => Self::NoApplicationProtocol,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::PeerIncompatible(what) => Self::incompatible(&what, sent),
            error => {
                let alert = sent_alert(&error, sent);
                let detail = error.to_string().into();
                match is_our_fault(&error) {
                    true => Self::Internal { detail, alert },
                    false => Self::PeerMisbehaved { detail, alert },
                }
            }
        }
    }

    fn incompatible(what: &PeerIncompatible, sent: SentAlert) -> Self {
        use PeerIncompatible as P;
        match what {
            P::ServerDoesNotSupportTls12Or13
            | P::ServerTlsVersionIsDisabledByOurConfig
            | P::SupportedVersionsExtensionRequired
            | P::Tls12NotOffered
            | P::Tls12NotOfferedOrEnabled => Self::NoCommonVersion,
            P::NoCipherSuitesInCommon => Self::NoCommonParameters(TlsParameter::CipherSuite),
            P::KeyShareExtensionRequired
            | P::NamedGroupsExtensionRequired
            | P::NoEcPointFormatsInCommon
            | P::NoKxGroupsInCommon => Self::NoCommonParameters(TlsParameter::KeyExchangeGroup),
            P::NoCertificateRequestSignatureSchemesInCommon
            | P::NoSignatureSchemesInCommon
            | P::SignatureAlgorithmsExtensionRequired => {
                Self::NoCommonParameters(TlsParameter::SignatureScheme)
            }
            other => {
                let error = Error::PeerIncompatible(other.clone());
                Self::PeerMisbehaved {
                    detail: error.to_string().into(),
                    alert: sent_alert(&error, sent),
                }
            }
        }
    }
}

impl From<HelloError> for TlsFailure {
    fn from(error: HelloError) -> Self {
        match error {
            HelloError::NotTls(guess) => Self::NotTls(guess),
            HelloError::TooLarge { limit } => Self::HelloTooLarge { limit },
            error => Self::Hello(error),
        }
    }
}

/// The alert that went out with an error: the one seen, or what rustls sends in most places.
fn sent_alert(error: &Error, sent: SentAlert) -> Option<Alert> {
    match (sent, error) {
        (SentAlert::Nothing, _) => None,
        (SentAlert::Clear(alert), _) => Some(alert),
        (
            SentAlert::Encrypted,
            Error::InappropriateHandshakeMessage { .. } | Error::InappropriateMessage { .. },
        ) => Some(Alert::UNEXPECTED_MESSAGE),
        (SentAlert::Encrypted, Error::InvalidMessage(message)) => {
            Some(AlertDescription::from(*message).into())
        }
        (SentAlert::Encrypted, Error::PeerSentOversizedRecord) => Some(Alert::RECORD_OVERFLOW),
        (SentAlert::Encrypted, _) => None,
    }
}

fn is_our_fault(error: &Error) -> bool {
    !matches!(
        error,
        Error::DecryptError
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InappropriateMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
    )
}

/// Writes what an alert means behind it.
struct Meaning(Alert);

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.meaning() {
            Some(meaning) => write!(f, ": {meaning}"),
            None => Ok(()),
        }
    }
}

/// Writes a server name, or that there was none.
struct Asked<'a>(Option<&'a str>);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(
                f,
                "no vhost has the name {name:?}, which the client asked for"
            ),
            None => f.write_str("the client named no vhost (SNI), and this listener wants a name"),
        }
    }
}

/// What a handshake agrees on besides the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsParameter {
    /// The cipher suite.
    CipherSuite,
    /// The group of the key exchange.
    KeyExchangeGroup,
    /// The signature scheme. Also when the server's key is of a kind that the client does not
    /// verify.
    SignatureScheme,
}

impl fmt::Display for TlsParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CipherSuite => "cipher suite",
            Self::KeyExchangeGroup => "key exchange group",
            Self::SignatureScheme => "signature scheme",
        })
    }
}

/// How far a handshake had come. Each names what did not come any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsStage {
    /// Server: not one byte had come. Port scans and health checks do this.
    BeforeHello,
    /// Server: the ClientHello had begun.
    ClientHello,
    /// Server: it had asked for another ClientHello (HelloRetryRequest).
    SecondClientHello,
    /// Server: it had sent its certificate, and the client's answer was missing.
    ClientFlight,
    /// Client: it had sent its ClientHello, and no answer had come.
    ServerHello,
    /// Client: the ServerHello had come, and the rest of the server's flight was missing.
    ServerFlight,
    /// Client, TLS 1.2: it had sent everything, and the server's Finished was missing.
    ServerFinished,
}

impl fmt::Display for TlsStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeHello => "before its first byte",
            Self::ClientHello => "in the middle of its ClientHello",
            Self::SecondClientHello => "when asked for another ClientHello",
            Self::ClientFlight => "after our certificate, without completing the handshake",
            Self::ServerHello => "without an answer to our ClientHello",
            Self::ServerFlight => "in the middle of the handshake, after its ServerHello",
            Self::ServerFinished => "in place of completing the handshake",
        })
    }
}

/// What is wrong with a certificate. Times are `None` where the verifier did not give them.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It, or a certificate above it, cannot be decoded.
    #[error("it cannot be decoded")]
    BadEncoding,
    /// The OCSP response that came with it is not valid.
    #[error("the OCSP response that came with it is not valid")]
    BadOcspResponse,
    /// A signature in the chain, or the proof that the peer has the key, does not verify.
    #[error("a signature in the chain, or with its key, does not verify")]
    BadSignature,
    /// A CA's certificate stands where one of a server or client belongs. What
    /// `openssl req -x509` makes is such a one, unless told otherwise.
    #[error(
        "it is a CA's certificate in place of a server's or client's; make it with \
         basicConstraints=CA:FALSE"
    )]
    CaUsedAsEndEntity,
    /// Its time is over.
    #[error("it expired{}", Ended(*.not_after, *.checked_at))]
    Expired {
        /// The last moment of its validity.
        not_after: Option<SystemTime>,
        /// The time it was compared with.
        checked_at: Option<SystemTime>,
    },
    /// Its time has not come. A clock may be wrong.
    #[error("it is not valid yet{}; is the clock right?", Begins(*.not_before, *.checked_at))]
    NotYetValid {
        /// The first moment of its validity.
        not_before: Option<SystemTime>,
        /// The time it was compared with.
        checked_at: Option<SystemTime>,
    },
    /// A certificate above it is no CA's, so whoever it belongs to may not issue any.
    #[error("its issuer is no authority: that one's certificate has no basicConstraints=CA:TRUE")]
    IssuerNotAuthority,
    /// It is for other names.
    #[error("it is not valid for {expected:?}, only for {}", Listed(.presented))]
    NotValidForName {
        /// The name or address that was looked for; empty where the verifier did not give it.
        expected: Box<str>,
        /// The names in the certificate, at most 16 of them.
        presented: Box<[Box<str>]>,
    },
    /// The application's own check refused it.
    #[error("the application refuses it")]
    RefusedByApplication,
    /// The revocation list of its issuer is out of date.
    #[error("the revocation list of its issuer ended{}", Ended(*.next_update, *.checked_at))]
    RevocationListExpired {
        /// When the next list was due.
        next_update: Option<SystemTime>,
        /// The time it was compared with.
        checked_at: Option<SystemTime>,
    },
    /// There is no revocation list of its issuer.
    #[error("there is no revocation list of its issuer")]
    RevocationUnknown,
    /// Its issuer has revoked it.
    #[error("it is revoked")]
    Revoked,
    /// It has a critical extension that is not understood.
    #[error("it has a critical extension that is not understood")]
    UnknownCriticalExtension,
    /// No trusted root has issued it; or a certificate between is missing in what the peer sent.
    #[error("no trusted root has issued it, or an intermediate certificate is missing")]
    UnknownIssuer,
    /// It is signed with an algorithm that is not accepted, such as SHA-1.
    #[error("it is signed with an algorithm that is not accepted")]
    UnsupportedSignature,
    /// It is for another purpose, such as a server's certificate used by a client.
    #[error("it is not for {required}, only for {}", Listed(.presented))]
    WrongPurpose {
        /// The purpose that it must have, such as "client authentication".
        required: Box<str>,
        /// The purposes that it has, at most 16 of them.
        presented: Box<[Box<str>]>,
    },
    /// Anything else, in the verifier's words.
    #[error("{0}")]
    Other(Box<str>),
}

impl CertificateProblem {
    /// The alert that goes with it (RFC 8446 section 6.2).
    pub const fn alert(&self) -> Alert {
        match self {
            Self::BadEncoding | Self::NotValidForName { .. } => Alert::BAD_CERTIFICATE,
            Self::BadOcspResponse => Alert::BAD_CERTIFICATE_STATUS_RESPONSE,
            Self::BadSignature | Self::UnsupportedSignature => Alert::DECRYPT_ERROR,
            Self::CaUsedAsEndEntity
            | Self::IssuerNotAuthority
            | Self::Other(_)
            | Self::UnknownCriticalExtension => Alert::CERTIFICATE_UNKNOWN,
            Self::Expired { .. } | Self::NotYetValid { .. } => Alert::CERTIFICATE_EXPIRED,
            Self::RefusedByApplication => Alert::ACCESS_DENIED,
            Self::RevocationListExpired { .. } | Self::RevocationUnknown | Self::UnknownIssuer => {
                Alert::UNKNOWN_CA
            }
            Self::Revoked => Alert::CERTIFICATE_REVOKED,
            Self::WrongPurpose { .. } => Alert::UNSUPPORTED_CERTIFICATE,
        }
    }
}

impl From<CertificateError> for CertificateProblem {
    fn from(error: CertificateError) -> Self {
        use CertificateError as C;
        match error {
            C::ApplicationVerificationFailure => Self::RefusedByApplication,
            C::BadEncoding => Self::BadEncoding,
            C::BadSignature => Self::BadSignature,
            C::Expired => Self::expired(None, None),
            C::ExpiredContext { time, not_after } => Self::expired(Some(not_after), Some(time)),
            C::ExpiredRevocationList => Self::list_expired(None, None),
            C::ExpiredRevocationListContext { time, next_update } => {
                Self::list_expired(Some(next_update), Some(time))
            }
            C::InvalidOcspResponse => Self::BadOcspResponse,
            C::InvalidPurpose => Self::purpose("this purpose".into(), Vec::new()),
            C::InvalidPurposeContext {
                required,
                presented,
            } => Self::purpose(
                required.to_string(),
                presented.iter().map(ToString::to_string).collect(),
            ),
            C::NotValidForName => Self::name("", Vec::new()),
            C::NotValidForNameContext {
                expected,
                presented,
            } => Self::name(&expected.to_str(), presented),
            C::NotValidYet => Self::not_yet(None, None),
            C::NotValidYetContext { time, not_before } => {
                Self::not_yet(Some(not_before), Some(time))
            }
            C::Other(error) => Self::other(&error),
            C::Revoked => Self::Revoked,
            C::UnhandledCriticalExtension => Self::UnknownCriticalExtension,
            C::UnknownIssuer => Self::UnknownIssuer,
            C::UnknownRevocationStatus => Self::RevocationUnknown,
            C::UnsupportedSignatureAlgorithmContext { .. }
            | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::UnsupportedSignature
            }
            #[expect(deprecated, reason = "verifiers of applications may still use it")]
            C::UnsupportedSignatureAlgorithm => Self::UnsupportedSignature,
            other => Self::Other(other.to_string().into()),
        }
    }
}

/// One place for each pair of forms, with and without context.
impl CertificateProblem {
    fn expired(not_after: Option<UnixTime>, time: Option<UnixTime>) -> Self {
        Self::Expired {
            not_after: not_after.and_then(system_time),
            checked_at: time.and_then(system_time),
        }
    }

    fn not_yet(not_before: Option<UnixTime>, time: Option<UnixTime>) -> Self {
        Self::NotYetValid {
            not_before: not_before.and_then(system_time),
            checked_at: time.and_then(system_time),
        }
    }

    fn list_expired(next_update: Option<UnixTime>, time: Option<UnixTime>) -> Self {
        Self::RevocationListExpired {
            next_update: next_update.and_then(system_time),
            checked_at: time.and_then(system_time),
        }
    }

    fn name(expected: &str, presented: Vec<String>) -> Self {
        Self::NotValidForName {
            expected: expected.into(),
            presented: first(presented.iter().map(|name| bare(name))),
        }
    }

    fn purpose(required: String, presented: Vec<String>) -> Self {
        Self::WrongPurpose {
            required: required.into(),
            presented: first(presented.iter().map(String::as_str)),
        }
    }

    fn other(error: &OtherError) -> Self {
        match error.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => Self::CaUsedAsEndEntity,
            Some(webpki::Error::EndEntityUsedAsCa) => Self::IssuerNotAuthority,
            Some(webpki::Error::UnsupportedCriticalExtension) => Self::UnknownCriticalExtension,
            _ => Self::Other(error.to_string().into()),
        }
    }
}

/// The first of what a certificate lists; a hostile one lists thousands. Control characters are
/// escaped, since names end up in logs.
fn first<'a>(listed: impl Iterator<Item = &'a str>) -> Box<[Box<str>]> {
    let escaped = |name: &str| name.escape_debug().to_string().into();
    listed.take(MAX_LISTED).map(escaped).collect()
}

/// The name alone of what webpki writes as `DnsName("a.test")` and `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> &str {
    let inside = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

fn system_time(time: UnixTime) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}

/// Writes when something ended, and how long before it was looked at.
struct Ended(Option<SystemTime>, Option<SystemTime>);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(end), now) = self else {
            return Ok(());
        };
        write!(f, " on {}", Utc(*end))?;
        match now.and_then(|now| now.duration_since(*end).ok()) {
            Some(ago) => write!(f, ", {} ago", Rough(ago)),
            None => Ok(()),
        }
    }
}

/// Writes when something begins, and how long after it was looked at.
struct Begins(Option<SystemTime>, Option<SystemTime>);

impl fmt::Display for Begins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(begin), now) = self else {
            return Ok(());
        };
        write!(f, " but from {}", Utc(*begin))?;
        match now.and_then(|now| begin.duration_since(now).ok()) {
            Some(wait) => write!(f, ", in {}", Rough(wait)),
            None => Ok(()),
        }
    }
}

/// Writes names with commas, or that there are none.
struct Listed<'a>(&'a [Box<str>]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nothing that it names"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

/// Writes a length of time in its largest unit.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            0..60 => (seconds, "second"),
            60..3600 => (seconds / 60, "minute"),
            3600..86_400 => (seconds / 3600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

/// Writes a time as `2026-11-20 07:45:00 UTC`.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar: counted in
/// eras of 400 years that begin with March, so that the leap day is the last of its year.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let january = (month <= 2) as u64;
    (era * 400 + year + january, month, day)
}

/// How much of a certificate's lists is kept.
const MAX_LISTED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_763_624_700, "2025-11-20 07:45:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Utc(time).to_string(), text);
        }
    }

    #[test]
    fn both_forms_of_a_certificate_error_are_one_problem() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let pairs = [
            (
                CertificateError::Expired,
                CertificateError::ExpiredContext {
                    time: at(200_000),
                    not_after: at(100_000),
                },
            ),
            (
                CertificateError::NotValidYet,
                CertificateError::NotValidYetContext {
                    time: at(1),
                    not_before: at(2),
                },
            ),
            (
                CertificateError::NotValidForName,
                CertificateError::NotValidForNameContext {
                    expected: "a.test".try_into().unwrap(),
                    presented: vec![r#"DnsName("b.test")"#.into()],
                },
            ),
            (
                CertificateError::InvalidPurpose,
                CertificateError::InvalidPurposeContext {
                    required: rustls::ExtendedKeyPurpose::ClientAuth,
                    presented: vec![rustls::ExtendedKeyPurpose::ServerAuth],
                },
            ),
            (
                CertificateError::ExpiredRevocationList,
                CertificateError::ExpiredRevocationListContext {
                    time: at(2),
                    next_update: at(1),
                },
            ),
        ];
        for (plain, context) in pairs {
            let alert = Alert::from(AlertDescription::from(plain.clone()));
            let (plain, context) = (
                CertificateProblem::from(plain),
                CertificateProblem::from(context),
            );
            assert_eq!(
                std::mem::discriminant(&plain),
                std::mem::discriminant(&context)
            );
            assert_eq!((plain.alert(), context.alert()), (alert, alert));
        }
    }

    #[test]
    fn a_problem_gets_the_alert_that_rustls_sends() {
        for error in [
            CertificateError::ApplicationVerificationFailure,
            CertificateError::BadEncoding,
            CertificateError::BadSignature,
            CertificateError::InvalidOcspResponse,
            CertificateError::Revoked,
            CertificateError::UnknownIssuer,
            CertificateError::UnknownRevocationStatus,
        ] {
            let sent = Alert::from(AlertDescription::from(error.clone()));
            assert_eq!(
                CertificateProblem::from(error.clone()).alert(),
                sent,
                "{error:?}"
            );
        }
    }

    #[test]
    fn names_of_a_hostile_certificate_are_few_and_escaped() {
        let presented = vec!["DnsName(\"a\nb\")".to_owned(); 1000];
        let CertificateProblem::NotValidForName { presented, .. } =
            CertificateProblem::name("a.test", presented)
        else {
            panic!("another problem");
        };
        assert_eq!(presented.len(), MAX_LISTED);
        assert_eq!(*presented[0], *"a\\nb");
        assert_eq!(bare("IpAddress(10.0.0.1)"), "10.0.0.1");
        assert_eq!(bare("DirectoryName"), "DirectoryName");
    }

    #[test]
    fn failures_read_well() {
        let day = |days: u64| Some(UNIX_EPOCH + Duration::from_secs(days * 86_400));
        let expired = CertificateProblem::Expired {
            not_after: day(20_000),
            checked_at: day(20_003),
        };
        for (failure, text) in [
            (
                TlsFailure::PeerAlert(Alert::CERTIFICATE_REQUIRED),
                "the peer refused with certificate_required (116): it requires a certificate and we gave none",
            ),
            (
                TlsFailure::PeerAlert(Alert::new(99)),
                "the peer refused with unknown alert (99)",
            ),
            (
                TlsFailure::Certificate(expired),
                "the peer's certificate is not accepted: it expired on 2024-10-04 00:00:00 UTC, 3 days ago",
            ),
            (
                TlsFailure::Certificate(CertificateProblem::Expired {
                    not_after: None,
                    checked_at: None,
                }),
                "the peer's certificate is not accepted: it expired",
            ),
            (
                TlsFailure::Certificate(CertificateProblem::NotYetValid {
                    not_before: day(20_001),
                    checked_at: day(20_000),
                }),
                "the peer's certificate is not accepted: it is not valid yet but from 2024-10-05 00:00:00 UTC, in 1 day; is the clock right?",
            ),
            (
                TlsFailure::UnrecognizedName {
                    name: Some("a.test".into()),
                },
                r#"no vhost has the name "a.test", which the client asked for"#,
            ),
            (
                TlsFailure::UnrecognizedName { name: None },
                "the client named no vhost (SNI), and this listener wants a name",
            ),
            (
                TlsFailure::NotTls(ForeignProtocol::PlainHttp),
                "the peer does not speak TLS, but HTTP without TLS; use wss:// or https:// with a port \
                 that speaks TLS, and ws:// or http:// with one that does not",
            ),
            (
                TlsFailure::Closed(TlsStage::ServerHello),
                "the peer closed the connection without an answer to our ClientHello",
            ),
        ] {
            assert_eq!(failure.to_string(), text);
        }
    }
}
