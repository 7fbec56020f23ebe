//! What a session keeps while its handshake lasts.

use rustls::CommonState;

use super::super::hello::HelloScan;
use super::super::tap::Tap;

/// The state of a handshake that rustls does not show.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Server: where its client's hello is.
    pub(super) hello: HelloScan,
    pub(super) incoming: Tap,
    pub(super) outgoing: Tap,
    /// Whether the peer has been seen to speak TLS.
    pub(super) heard: bool,
    /// Server: whether the configuration asks for a certificate, as far as is known.
    pub(super) requests_certificate: bool,
    /// Whether a certificate has been asked for.
    pub(super) certificate_requested: bool,
    /// Server: how much had come when our flight went out.
    pub(super) flight_at: Option<u64>,
    /// Server: data sent ahead of the handshake (0-RTT). Anybody can replay it until the handshake
    /// is complete, so it waits for that (RFC 8446 section 8).
    pub(super) early: Vec<u8>,
}

impl Handshake {
    /// Notes when a server's flight has gone out, and whether it asked for a certificate.
    pub(super) fn observe_flight(&mut self, common: &CommonState) {
        let sent = self.outgoing.seen();
        let resumed = common.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        if self.flight_at.is_none() && (sent.ciphertext || sent.server_hello_done || resumed) {
            self.flight_at = Some(self.incoming.bytes());
        }
        // TLS 1.2 shows a request on the wire; TLS 1.3 encrypts it, and sends one in every full
        // handshake of such a configuration.
        let hidden = self.requests_certificate && sent.ciphertext && !resumed;
        self.certificate_requested |= sent.certificate_request || hidden;
    }

    /// Whether a certificate was asked for and not one byte has come since.
    pub(super) fn is_unanswered(&self) -> bool {
        self.certificate_requested && self.flight_at == Some(self.incoming.bytes())
    }
}
