//! What a handshake agreed on.

use super::alert::Alert;
use super::failure::TlsFailure;
use super::hello::TlsVersion;
use super::session::Session;
use super::trace::TlsHandshake;
use super::unbuffered::SentAlert;

/// What a TLS handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version.
    pub version: TlsVersion,
    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub suite: &'static str,
    /// The group of the key exchange, such as `X25519`; `None` in a resumed TLS 1.2 session.
    pub group: Option<&'static str>,
    /// The application protocol (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// The name that the client sent (SNI); for a client, the name that it verified or sent.
    pub server_name: Option<String>,
    /// How the handshake came about; `Resumed` says that no certificate was sent.
    pub handshake: TlsHandshake,
}

impl TlsInfo {
    /// `None` before the handshake is complete.
    pub(crate) fn of(session: &Session) -> Option<Self> {
        if session.is_handshaking() {
            return None;
        }
        if let Some(info) = session.refused_info() {
            return Some(info.clone());
        }
        Some(Self {
            version: session.version()?,
            suite: session.suite()?,
            group: session.group(),
            alpn: session.alpn().map(<[u8]>::to_vec),
            server_name: session.server_name().map(str::to_owned),
            handshake: session.handshake_kind()?,
        })
    }
}

impl TlsFailure {
    /// Whether the same handshake can succeed later without a change on either side: the stream
    /// ended, or the peer had trouble of its own.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Closed(_)
                | Self::Lost { .. }
                | Self::PeerAlert(Alert::INTERNAL_ERROR)
                | Self::Timeout { .. }
                | Self::Truncated
        )
    }

    /// Whether a certificate is not accepted, by this side or the other: exchanging one can mend
    /// that.
    pub(crate) const fn is_about_certificates(&self) -> bool {
        matches!(
            self,
            Self::Certificate(_)
                | Self::PeerAlert(
                    Alert::BAD_CERTIFICATE
                        | Alert::UNSUPPORTED_CERTIFICATE
                        | Alert::CERTIFICATE_REVOKED
                        | Alert::CERTIFICATE_EXPIRED
                        | Alert::CERTIFICATE_UNKNOWN
                        | Alert::UNKNOWN_CA
                        | Alert::CERTIFICATE_REQUIRED
                )
        )
    }

    /// Why a resumed session is not accepted. rustls has sent no alert: the handshake is over.
    pub(crate) fn of_resumption(error: rustls::Error) -> Self {
        Self::from_rustls(error, SentAlert::Nothing)
    }
}
