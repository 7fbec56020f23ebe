//! What a session says of its own accord between the records of an application.

use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::version::TLS12;
use rustls::{
    Connection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};
use wsloop::{ListenConfig, PlaintextPolicy, VhostConfig};

use crate::lab::{Lab, TlsStranger, record_types, rustls_client, server_tls};
use crate::support::{Log, Recorder, addr, masked, plain, request};
use crate::testpki::Pki;

/// RFC 5246 section 7.4.1.1: whoever does not want to renegotiate may say `no_renegotiation`, and
/// the connection goes on. The record says it with the next number of the sequence, so it has to be
/// the next that leaves.
#[test]
fn a_refused_renegotiation_goes_ahead_of_the_answer_to_what_came_with_it() {
    let (log, mut lab) = (Log::default(), Lab::new());
    let pki = Pki::new("ca");
    let config = VhostConfig::new("a.test")
        .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
        .server_tls(server_tls(&pki, &["a.test"]))
        .protocol("p", Recorder::echo(&log));
    lab.add(config);
    let mut config = rustls_client(&pki, None, &[&TLS12]);
    config.enable_secret_extraction = true;
    let mut stranger = TlsStranger::new(lab.stranger(), config, "a.test");
    let flight = stranger.flight();
    let hello = flight.get(RECORD_HEADER..).unwrap().to_vec();
    stranger.peer.write(&flight).unwrap();
    stranger.say(&request("/"));
    stranger.exchange(&mut lab).unwrap();
    stranger.heard();
    // From here on it is calm.
    stranger.say(&masked(0x82, b"calm"));
    stranger.exchange(&mut lab).unwrap();
    assert_eq!(stranger.heard(), plain(0x82, b"calm"));
    let TlsStranger { peer, tls } = stranger;
    let mut sealer = Sealer::new(tls);
    let asks = sealer.record(ContentType::Handshake, &hello);
    let says = sealer.record(ContentType::ApplicationData, &masked(0x82, b"and on"));
    peer.write(&[asks, says].concat()).unwrap();
    lab.turn();
    assert_eq!(record_types(&peer.read()), [ALERT, APPLICATION_DATA]);
    let says = sealer.record(ContentType::ApplicationData, &masked(0x82, b"and on"));
    peer.write(&says).unwrap();
    lab.turn();
    assert_eq!(record_types(&peer.read()), [APPLICATION_DATA]);
}

/// Encrypts records of any type with the keys of a connection.
struct Sealer {
    cipher: Box<dyn MessageEncrypter>,
    next: u64,
}

impl Sealer {
    fn new(tls: Connection) -> Self {
        let Some(SupportedCipherSuite::Tls12(suite)) = tls.negotiated_cipher_suite() else {
            panic!("it is TLS 1.2");
        };
        let (next, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("another cipher");
        };
        let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
        let (fixed, explicit) = iv.as_ref().split_at(fixed);
        let cipher = suite.aead_alg.encrypter(key, fixed, explicit);
        Self { cipher, next }
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::from(payload),
        };
        let record = self.cipher.encrypt(message, self.next).unwrap().encode();
        self.next += 1;
        record
    }
}

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const RECORD_HEADER: usize = 5;
