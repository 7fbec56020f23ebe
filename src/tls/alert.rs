//! Alerts by name (RFC 8446 section 6.2).

use std::fmt;

/// What a TLS alert says (RFC 8446 section 6): the reason one side gives the other for ending a
/// handshake or a connection.
///
/// ```text
/// certificate_required (116)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alert(u8);

impl Alert {
    /// 0: no more data will come; the orderly end.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// 10: a message that has no place there.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// 20: a record that cannot be decrypted.
    pub const BAD_RECORD_MAC: Self = Self(20);
    /// 22: a record longer than allowed.
    pub const RECORD_OVERFLOW: Self = Self(22);
    /// 40: no acceptable set of parameters.
    pub const HANDSHAKE_FAILURE: Self = Self(40);
    /// 42: a corrupt certificate, or one for another name.
    pub const BAD_CERTIFICATE: Self = Self(42);
    /// 43: a certificate of a kind, or for a purpose, that is not accepted.
    pub const UNSUPPORTED_CERTIFICATE: Self = Self(43);
    /// 44: a certificate that its issuer has revoked.
    pub const CERTIFICATE_REVOKED: Self = Self(44);
    /// 45: a certificate that has expired or is not yet valid.
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    /// 46: a certificate that is not accepted for another reason.
    pub const CERTIFICATE_UNKNOWN: Self = Self(46);
    /// 47: a field that is out of range or contradicts another.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// 48: a certificate whose issuer is not trusted.
    pub const UNKNOWN_CA: Self = Self(48);
    /// 49: a valid certificate that the application does not admit.
    pub const ACCESS_DENIED: Self = Self(49);
    /// 50: a message that cannot be decoded.
    pub const DECODE_ERROR: Self = Self(50);
    /// 51: a signature or a Finished message that does not verify.
    pub const DECRYPT_ERROR: Self = Self(51);
    /// 70: no common version of the protocol.
    pub const PROTOCOL_VERSION: Self = Self(70);
    /// 71: a server asks for stronger ciphers than the client has.
    pub const INSUFFICIENT_SECURITY: Self = Self(71);
    /// 80: something failed that has nothing to do with the peer.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// 86: a retry at a lower version than needed (RFC 7507).
    pub const INAPPROPRIATE_FALLBACK: Self = Self(86);
    /// 90: the user cancelled the handshake.
    pub const USER_CANCELED: Self = Self(90);
    /// 100: a TLS 1.2 renegotiation is refused.
    pub const NO_RENEGOTIATION: Self = Self(100);
    /// 109: a mandatory extension is missing.
    pub const MISSING_EXTENSION: Self = Self(109);
    /// 110: an extension that was not asked for.
    pub const UNSUPPORTED_EXTENSION: Self = Self(110);
    /// 112: no server of the name in SNI (RFC 6066 section 3).
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// 113: an OCSP response that is not acceptable.
    pub const BAD_CERTIFICATE_STATUS_RESPONSE: Self = Self(113);
    /// 115: a pre-shared key that nobody knows.
    pub const UNKNOWN_PSK_IDENTITY: Self = Self(115);
    /// 116: a client certificate is required and none was given.
    pub const CERTIFICATE_REQUIRED: Self = Self(116);
    /// 120: no application protocol in common (RFC 7301).
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);
    /// 121: Encrypted Client Hello is required (RFC 9849).
    pub const ECH_REQUIRED: Self = Self(121);

    /// The alert with this number; every number is one.
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// The number on the wire.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// The name that the RFCs give it, such as `"certificate_required"`.
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|(_, name, _)| *name)
    }

    /// What it means, in a clause that can follow a colon.
    pub fn meaning(self) -> Option<&'static str> {
        self.entry().map(|(_, _, meaning)| *meaning)
    }

    /// Whether it ends the connection as failed. RFC 8446 section 6: every alert does but
    /// `close_notify` and `user_canceled`; TLS 1.2 knows one more warning, `no_renegotiation`.
    pub const fn is_fatal(self) -> bool {
        !matches!(
            self,
            Self::CLOSE_NOTIFY | Self::USER_CANCELED | Self::NO_RENEGOTIATION
        )
    }

    fn entry(self) -> Option<&'static (u8, &'static str, &'static str)> {
        let at = NAMES.binary_search_by_key(&self.0, |entry| entry.0).ok()?;
        NAMES.get(at)
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "unknown alert ({})", self.0),
        }
    }
}

impl From<rustls::AlertDescription> for Alert {
    fn from(description: rustls::AlertDescription) -> Self {
        Self(description.into())
    }
}

/// Number, name and meaning, by number. The retired ones are there because peers still send them.
const NAMES: &[(u8, &str, &str)] = &[
    (0, "close_notify", "it has nothing more to say"),
    (
        10,
        "unexpected_message",
        "it did not expect our message there",
    ),
    (20, "bad_record_mac", "it could not decrypt what arrived"),
    (21, "decryption_failed", "it could not decrypt what arrived"),
    (22, "record_overflow", "our record was too long for it"),
    (
        30,
        "decompression_failure",
        "it could not decompress what arrived",
    ),
    (
        40,
        "handshake_failure",
        "it found no parameters that both sides accept, or wants a certificate",
    ),
    (41, "no_certificate", "it has no certificate for us"),
    (
        42,
        "bad_certificate",
        "it finds our certificate corrupt or made for another name",
    ),
    (
        43,
        "unsupported_certificate",
        "it does not accept our certificate for this purpose",
    ),
    (
        44,
        "certificate_revoked",
        "our certificate is revoked, it says",
    ),
    (
        45,
        "certificate_expired",
        "our certificate has expired or is not yet valid by its clock",
    ),
    (
        46,
        "certificate_unknown",
        "it does not accept our certificate",
    ),
    (
        47,
        "illegal_parameter",
        "a field of our message made no sense to it",
    ),
    (
        48,
        "unknown_ca",
        "it does not trust the issuer of our certificate",
    ),
    (
        49,
        "access_denied",
        "it knows our certificate and does not admit it",
    ),
    (50, "decode_error", "it could not decode our message"),
    (
        51,
        "decrypt_error",
        "our signature or Finished message did not verify there",
    ),
    (60, "export_restriction", "export rules forbid it"),
    (
        70,
        "protocol_version",
        "it speaks none of our versions of TLS",
    ),
    (
        71,
        "insufficient_security",
        "it wants stronger ciphers than ours",
    ),
    (80, "internal_error", "it failed for reasons of its own"),
    (
        86,
        "inappropriate_fallback",
        "it supports a higher version than we came with",
    ),
    (90, "user_canceled", "its user cancelled"),
    (100, "no_renegotiation", "it refuses to renegotiate"),
    (109, "missing_extension", "it misses an extension"),
    (
        110,
        "unsupported_extension",
        "it got an extension that it had not asked for",
    ),
    (
        111,
        "certificate_unobtainable",
        "it could not fetch our certificate",
    ),
    (
        112,
        "unrecognized_name",
        "it has no server of the name that we asked for",
    ),
    (
        113,
        "bad_certificate_status_response",
        "it does not accept our OCSP response",
    ),
    (
        114,
        "bad_certificate_hash_value",
        "the hash of our certificate does not match",
    ),
    (
        115,
        "unknown_psk_identity",
        "it does not know our pre-shared key",
    ),
    (
        116,
        "certificate_required",
        "it requires a certificate and we gave none",
    ),
    (120, "no_application_protocol", "it speaks none of our ALPN"),
    (
        121,
        "ech_required",
        "it could not use our encrypted ClientHello",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_reads_as_name_and_number() {
        assert_eq!(
            Alert::CERTIFICATE_REQUIRED.to_string(),
            "certificate_required (116)"
        );
        assert_eq!(Alert::new(200).to_string(), "unknown alert (200)");
        assert_eq!(Alert::new(200).meaning(), None);
    }

    #[test]
    fn the_table_is_sorted_and_names_every_constant() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(
            Alert::UNRECOGNIZED_NAME.name(),
            Some("unrecognized_name"),
            "RFC 6066 spells it with z"
        );
        for value in 0..=u8::MAX {
            let known = NAMES.iter().any(|entry| entry.0 == value);
            assert_eq!(Alert::new(value).name().is_some(), known, "{value}");
        }
    }

    #[test]
    fn rustls_numbers_are_kept() {
        for value in 0..=u8::MAX {
            let description = rustls::AlertDescription::from(value);
            assert_eq!(Alert::from(description).value(), value);
            assert_eq!(
                description.as_str().is_some(),
                Alert::new(value).name().is_some(),
                "{value}"
            );
        }
    }

    #[test]
    fn only_closure_alerts_are_not_fatal() {
        assert!(!Alert::CLOSE_NOTIFY.is_fatal());
        assert!(!Alert::USER_CANCELED.is_fatal());
        assert!(Alert::CERTIFICATE_REQUIRED.is_fatal());
        assert!(Alert::new(200).is_fatal());
    }
}
