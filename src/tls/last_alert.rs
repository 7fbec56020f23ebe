//! A fatal alert after a handshake that rustls finds nothing wrong with.
//!
//! Once a handshake is complete, rustls sends no alert but `close_notify` for the application. A
//! session that was resumed and is not accepted any more needs one: else its client cannot tell a
//! refusal from an orderly end, and goes on showing its ticket. So the connection gives up its keys,
//! and the one record that is left to say is encrypted here, by rustls' own cipher, with the next
//! number of its sequence.

use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::server::UnbufferedServerConnection;
use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite};

use super::alert::Alert;
use super::unbuffered::SentAlert;

/// Ends the connection with this alert at the end of `out`. Everything that it had to send must be
/// there already; nothing is sent where it does not give its keys away.
pub(crate) fn write(
    connection: UnbufferedServerConnection,
    alert: Alert,
    out: &mut Vec<u8>,
) -> SentAlert {
    match record(connection, alert) {
        Some(record) => {
            out.extend(record);
            SentAlert::Encrypted
        }
        None => SentAlert::Nothing,
    }
}

fn record(connection: UnbufferedServerConnection, alert: Alert) -> Option<Vec<u8>> {
    let suite = connection.negotiated_cipher_suite()?;
    let (secrets, _) = connection.dangerous_into_kernel_connection().ok()?;
    let (number, secrets) = secrets.tx;
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
    else {
        return None;
    };
    let payload = [FATAL, alert.value()];
    let message = OutboundPlainMessage {
        typ: ContentType::Alert,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::from(&payload[..]),
    };
    let mut cipher = encrypter(suite, key, iv)?;
    Some(cipher.encrypt(message, number).ok()?.encode())
}

fn encrypter(
    suite: SupportedCipherSuite,
    key: AeadKey,
    iv: Iv,
) -> Option<Box<dyn MessageEncrypter>> {
    match suite {
        SupportedCipherSuite::Tls12(suite) => {
            // What is fixed, and where the explicit part of the nonces begins (RFC 5288 section 3).
            let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
            let (fixed, explicit) = iv.as_ref().split_at_checked(fixed)?;
            Some(suite.aead_alg.encrypter(key, fixed, explicit))
        }
        SupportedCipherSuite::Tls13(suite) => Some(suite.aead_alg.encrypter(key, iv)),
    }
}

/// The level of a fatal alert (RFC 8446 section 6).
const FATAL: u8 = 2;
