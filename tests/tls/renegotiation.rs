//! TLS 1.2: a client that asks for a renegotiation is told that there is none, and goes on.

use std::sync::Arc;

use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};

use crate::lab::{Lab, TlsStranger, rustls_client, server_tls};
use crate::support::{masked, request_with};
use crate::testpki::Pki;

/// Both directions of a session, whose keys the stranger has taken out of rustls.
struct Bare {
    tx: (u64, Box<dyn MessageEncrypter>),
    rx: (u64, Box<dyn MessageDecrypter>),
}

impl Bare {
    fn new(tls: ClientConnection) -> Self {
        let Some(SupportedCipherSuite::Tls12(suite)) = tls.negotiated_cipher_suite() else {
            panic!("TLS 1.2 was asked for");
        };
        let secrets = tls.dangerous_extract_secrets().unwrap();
        let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
        let parts = |secrets| match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another cipher"),
        };
        let (key, iv) = parts(secrets.tx.1);
        let (iv, explicit) = iv.as_ref().split_at(fixed);
        let tx = suite.aead_alg.encrypter(key, iv, explicit);
        let (key, iv) = parts(secrets.rx.1);
        let rx = suite.aead_alg.decrypter(key, &iv.as_ref()[..fixed]);
        Self {
            tx: (secrets.tx.0, tx),
            rx: (secrets.rx.0, rx),
        }
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::from(payload),
        };
        let record = self.tx.1.encrypt(message, self.tx.0).unwrap();
        self.tx.0 += 1;
        record.encode()
    }

    /// What the records hold, in their order.
    fn open(&mut self, mut wire: Vec<u8>) -> Vec<(ContentType, Vec<u8>)> {
        let mut all = Vec::new();
        let mut rest = &mut wire[..];
        while let [kind, _, _, high, low, behind @ ..] = rest {
            let typ = ContentType::from(*kind);
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let (payload, later) = behind.split_at_mut(len);
            let record = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, payload);
            let opened = self.rx.1.decrypt(record, self.rx.0).unwrap();
            self.rx.0 += 1;
            all.push((opened.typ, opened.payload.to_vec()));
            rest = later;
        }
        all
    }
}

/// The warning that says that there is none has a number in the order of records, and whatever is
/// encrypted after it must not leave ahead of it.
#[test]
fn a_refused_renegotiation_is_answered_ahead_of_the_data_behind_it() {
    let pki = Pki::new("Root");
    for comes_first in [true, false] {
        let mut lab = Lab::new();
        lab.server("a.test", server_tls(&pki, &["a.test"]));
        let mut config = rustls_client(&pki, None, &[&rustls::version::TLS12]);
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("a.test").unwrap();
        let mut other = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        let mut hello = Vec::new();
        other.write_tls(&mut hello).unwrap();

        let peer = lab.stranger();
        let mut stranger = TlsStranger::new(peer, config, "a.test");
        stranger.exchange(&mut lab).unwrap();
        stranger.say(&request_with("/", ""));
        stranger.exchange(&mut lab).unwrap();
        assert!(stranger.heard().starts_with(b"HTTP/1.1 101 "));
        stranger.say(&masked(0x82, b"first"));
        stranger.exchange(&mut lab).unwrap();
        assert_eq!(stranger.heard(), b"\x82\x05first");

        let TlsStranger { peer, tls } = stranger;
        let rustls::Connection::Client(tls) = tls else {
            panic!("it is a client");
        };
        let mut bare = Bare::new(tls);
        let again = |bare: &mut Bare| bare.record(ContentType::Handshake, &hello[5..]);
        let data = |bare: &mut Bare| {
            let frame = masked(0x82, b"second");
            bare.record(ContentType::ApplicationData, &frame)
        };
        let wire = match comes_first {
            true => [again(&mut bare), data(&mut bare)].concat(),
            false => [data(&mut bare), again(&mut bare)].concat(),
        };
        peer.write(&wire).unwrap();
        lab.turn();
        // RFC 5246 section 7.2.2: no_renegotiation is a warning.
        let warning = (ContentType::Alert, vec![1, 100]);
        let echo = (ContentType::ApplicationData, b"\x82\x06second".to_vec());
        assert_eq!(bare.open(peer.read()), [warning, echo]);
    }
}
