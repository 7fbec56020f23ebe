//! What a handshake has come to.

use rustls::pki_types::CertificateDer;

use super::Session;
use crate::tls::hello::TlsVersion;
use crate::tls::trace::TlsHandshake;

impl Session {
    /// The application protocol agreed on, once it is.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.common()?.alpn_protocol()
    }

    /// The version agreed on, once it is.
    pub(crate) fn version(&self) -> Option<TlsVersion> {
        let version = self.common()?.protocol_version()?;
        Some(TlsVersion::new(version.into()))
    }

    /// The name of the cipher suite agreed on, as rustls writes it.
    pub(crate) fn suite(&self) -> Option<&'static str> {
        self.common()?.negotiated_cipher_suite()?.suite().as_str()
    }

    /// The name of the group of the key exchange, once the handshake is complete. `None` in a
    /// session of TLS 1.2 that was resumed.
    pub(crate) fn group(&self) -> Option<&'static str> {
        let group = self.common()?.negotiated_key_exchange_group()?;
        group.name().as_str()
    }

    /// How the handshake came about, once that is decided.
    pub(crate) fn handshake_kind(&self) -> Option<TlsHandshake> {
        self.common()?.handshake_kind().map(Into::into)
    }

    /// The peer's certificates, its own first, verified. Empty if it gave none. In a resumed
    /// session, those of the first.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        let certificates = self.common().and_then(|common| common.peer_certificates());
        certificates.unwrap_or_default()
    }
}
