//! Who the other side is, as far as its certificates say.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::der::{Fields, UtcTime};
use super::sha256;

/// The certificates that the other side of a connection presented, and whether they were verified.
///
/// That the peer has the private key of the first certificate is certain in either case, but for
/// verifiers of the application's that do not look ([`ServerTls::from_rustls`] and
/// [`ClientTls::from_rustls`]). What the certificate says is worth no more than who verified it:
/// without [`is_verified`](Self::is_verified), anybody may have written it.
///
/// [`ServerTls::from_rustls`]: super::ServerTls::from_rustls
/// [`ClientTls::from_rustls`]: super::ClientTls::from_rustls
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    chain: Vec<Vec<u8>>,
    verified: bool,
}

impl PeerIdentity {
    pub(crate) const fn new(chain: Vec<Vec<u8>>, verified: bool) -> Self {
        Self { chain, verified }
    }

    pub(crate) fn from_handshake(
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        verified: bool,
    ) -> Self {
        let mut chain = vec![leaf.to_vec()];
        chain.extend(rest.iter().map(|der| der.to_vec()));
        Self::new(chain, verified)
    }

    /// The certificates as they were sent, DER, the peer's own first. Others may have been used to
    /// verify it.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The peer's own certificate, DER.
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// Whether the chain was verified up to a root that is trusted here, at the time of the
    /// handshake. False where a `danger_` option accepted it without that, and where a configuration
    /// of rustls accepted it ([`ServerTls::from_rustls`](super::ServerTls::from_rustls),
    /// [`ClientTls::from_rustls`](super::ClientTls::from_rustls)): what that has verified is known
    /// to whoever made it, and not here.
    pub const fn is_verified(&self) -> bool {
        self.verified
    }

    /// The DNS names among the subject alternative names. Empty for a certificate that cannot be
    /// parsed.
    pub fn dns_names(&self) -> Vec<String> {
        self.names(|leaf| leaf.valid_dns_names().map(str::to_owned).collect())
    }

    /// The URIs among the subject alternative names, such as SPIFFE ids.
    pub fn uri_names(&self) -> Vec<String> {
        self.names(|leaf| leaf.valid_uri_names().map(str::to_owned).collect())
    }

    /// The common name (CN) of the subject.
    pub fn common_name(&self) -> Option<&str> {
        self.fields()?.common_name()
    }

    /// The serial number, big-endian. Unique among the certificates of one issuer only.
    pub fn serial(&self) -> Option<&[u8]> {
        Some(self.fields()?.serial)
    }

    /// When the certificate ceases to be valid.
    pub fn not_after(&self) -> Option<UtcTime> {
        Some(self.fields()?.not_after)
    }

    /// The public key, as DER of a SubjectPublicKeyInfo: what stays the same when a certificate is
    /// renewed for the same key, and therefore what to pin.
    pub fn public_key(&self) -> Option<&[u8]> {
        Some(self.fields()?.public_key)
    }

    /// The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint -sha256` prints
    /// it. `None` without a crypto provider that has SHA-256.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        sha256(self.leaf())
    }

    fn fields(&self) -> Option<Fields<'_>> {
        Fields::read(self.leaf())
    }

    fn names(&self, read: impl FnOnce(&EndEntityCert<'_>) -> Vec<String>) -> Vec<String> {
        match EndEntityCert::try_from(&CertificateDer::from(self.leaf())) {
            Ok(leaf) => read(&leaf),
            Err(_) => Vec::new(),
        }
    }
}

/// Names, not certificates.
impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("common_name", &self.common_name())
            .field("dns_names", &self.dns_names())
            .field("certificates", &self.chain.len())
            .field("verified", &self.verified)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testpki::Pki;
    use super::*;

    #[test]
    fn an_identity_gives_names_serial_and_key() {
        let leaf = Pki::new("ca")
            .leaf(&["a.test", "b.test"])
            .common_name("device 7")
            .issue();
        let peer = PeerIdentity::new(leaf.chain_der().to_vec(), true);
        assert_eq!(peer.common_name(), Some("device 7"));
        assert_eq!(peer.dns_names(), ["a.test", "b.test"]);
        assert_eq!(peer.uri_names(), <[String; 0]>::default());
        assert_eq!(peer.serial(), Some(leaf.serial()));
        assert_eq!(
            peer.not_after().unwrap().to_string(),
            "2090-01-01 00:00:00 UTC"
        );
        let expected = "PeerIdentity { common_name: Some(\"device 7\"), dns_names: [\"a.test\", \
             \"b.test\"], certificates: 1, verified: true }";
        assert_eq!(format!("{peer:?}"), expected);
    }

    #[test]
    fn a_renewed_certificate_has_the_same_key_and_another_fingerprint() {
        let pki = Pki::new("ca");
        let old = pki.leaf(&["a.test"]).issue();
        let new = pki.leaf(&["a.test"]).reissue(&old);
        let [old, new] = [old, new].map(|leaf| PeerIdentity::new(leaf.chain_der().to_vec(), true));
        assert_eq!(old.public_key(), new.public_key());
        assert!(old.public_key().is_some());
        assert_ne!(old.sha256(), new.sha256());
    }

    #[test]
    fn uri_names_are_read() {
        let leaf = Pki::new("ca")
            .leaf(&["a.test"])
            .uri("spiffe://a.test/device/7")
            .issue();
        let peer = PeerIdentity::new(leaf.chain_der().to_vec(), true);
        assert_eq!(peer.uri_names(), ["spiffe://a.test/device/7"]);
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        for junk in [vec![], vec![vec![0x30, 0x00]]] {
            let peer = PeerIdentity::new(junk, false);
            assert!(peer.dns_names().is_empty() && peer.uri_names().is_empty());
            assert_eq!((peer.common_name(), peer.serial()), (None, None));
            assert_eq!((peer.not_after(), peer.public_key()), (None, None));
        }
    }
}
