//! Handshakes that succeed, at every size of pieces; what they may be asked for.

use rustls::HandshakeKind;

use super::*;

#[test]
fn tl_01_our_server_serves_rustls_client_at_every_size_of_pieces() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::No));
        let client_config = Arc::new(pki.client_config(&[version]));
        for size in SIZES {
            let mut client = Theirs::client(&client_config);
            let mut server = Ours::server(&server_config);
            exchange(&mut client, &mut server, size);
            assert_eq!(client.failure, None);
            assert_idle(&server);
            assert!(server.plain == forth() && client.plain == back());
            assert_eq!(server.session.server_name(), Some("a.test"));
            assert_eq!(server.hellos.len(), 1);
        }
    }
}

#[test]
fn tl_01_our_client_uses_rustls_server_at_every_size_of_pieces() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::No));
        let client_config = Arc::new(pki.client_config(&[version]));
        for size in SIZES {
            let mut client = Ours::client(&client_config);
            let mut server = Theirs::server(&server_config);
            exchange(&mut client, &mut server, size);
            assert_eq!(server.failure, None);
            assert_idle(&client);
            assert!(server.plain == forth() && client.plain == back());
        }
    }
}

#[test]
fn tl_01_our_ends_talk_to_each_other_with_certificates_on_both_sides() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::Required));
        let client_config = Arc::new(pki.client_config_with(&[version], &pki.client));
        for size in SIZES {
            let mut client = Ours::client(&client_config);
            let mut server = Ours::asking(&server_config);
            exchange(&mut client, &mut server, size);
            assert_idle(&client);
            assert_idle(&server);
            assert!(server.plain == forth() && client.plain == back());
            assert_eq!(server.session.peer_certificates(), pki.client.chain);
            assert_eq!(client.session.peer_certificates(), pki.server.chain);
            assert_eq!(client.session.version(), server.session.version());
            let full = Some(TlsHandshake::Full);
            assert_eq!(client.session.handshake_kind(), full);
            assert_eq!(server.session.handshake_kind(), full);
            assert!(client.session.suite().is_some() && client.session.group().is_some());
        }
    }
}

/// Cuts a plaintext handshake record into records of `size` bytes.
fn rerecord(wire: &[u8], size: usize) -> Vec<u8> {
    let payload = &wire[RECORD_HEADER_LEN..];
    let record = |piece: &[u8]| {
        let len = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&wire[..3], &len, piece].concat()
    };
    payload.chunks(size).flat_map(record).collect()
}

#[test]
fn tl_01_a_hello_in_records_of_one_byte_is_served() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let client_config = Arc::new(pki.client_config(&VERSIONS));
    for size in [1, 2, 3, 100] {
        for piece in [1, 5, 6, 7, usize::MAX] {
            let mut client = Theirs::client(&client_config);
            let mut server = Ours::server(&server_config);
            let hello = rerecord(&client.take_out(), size);
            hello.chunks(piece).for_each(|piece| server.feed(piece));
            exchange(&mut client, &mut server, 1777);
            assert_idle(&server);
            assert!(server.plain == forth() && client.plain == back());
        }
    }
}

#[test]
fn tl_17_a_client_chain_longer_than_a_record_is_put_together() {
    let pki = Pki::new();
    let other = Ca::new("other");
    let mut client = pki.ca.leaf("client");
    client
        .chain
        .extend((0..99).map(|_| other.leaf("filler").chain[0].clone()));
    let bytes: usize = client.chain.iter().map(|der| der.len()).sum();
    assert!(bytes > 24_000, "{bytes}");
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::Required));
        let client_config = Arc::new(pki.client_config_with(&[version], &client));
        for size in SIZES {
            let mut client = Theirs::client(&client_config);
            let mut server = Ours::asking(&server_config);
            exchange(&mut client, &mut server, size);
            assert_idle(&server);
            assert_eq!(server.session.peer_certificates().len(), 100);
            assert!(server.session.memory() > bytes);
        }
    }
}

/// The begin of a TLS 1.2 handshake with a server that asks, up to where the client's certificate
/// comes, in the clear.
fn server_awaiting_certificate(pki: &Pki) -> Ours {
    let server_config = Arc::new(pki.server_config(&[&TLS12], Asks::Required));
    let mut client = Theirs::client(&Arc::new(pki.client_config(&[&TLS12])));
    let mut server = Ours::asking(&server_config);
    server.feed(&client.take_out());
    assert!(!server.take_out().is_empty());
    server
}

#[test]
fn tl_17_a_certificate_message_of_a_megabyte_is_refused_by_its_length() {
    let mut server = server_awaiting_certificate(&Pki::new());
    let mut wire = vec![22, 3, 3, 0x40, 0, 11, 0x0F, 0xFF, 0xFF];
    wire.resize(wire.len() + 0x4000 - 4, 0);
    server.feed(&wire);
    let failure = server.failure.clone().unwrap();
    assert!(
        matches!(failure, TlsFailure::PeerMisbehaved { .. }),
        "{failure}"
    );
    assert_eq!(server.session.stash().len(), 0);
}

#[test]
fn tl_17_a_message_in_tiny_records_is_given_up_at_the_limit() {
    let mut server = server_awaiting_certificate(&Pki::new());
    let mut fed = 0;
    server.feed(&[22, 3, 3, 0, 4, 11, 0, 0xFF, 0xF0]);
    while server.failure.is_none() {
        server.feed(&[22, 3, 3, 0, 1, 0].repeat(100));
        fed += 600;
        assert!(server.session.stash().len() <= MAX_HANDSHAKE_STASH + 5);
        assert!(fed < 200_000);
    }
    let limit = MAX_HANDSHAKE_STASH;
    assert_eq!(server.failure, Some(TlsFailure::StashOverflow { limit }));
}

#[test]
fn resumption_is_seen_on_both_sides() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::Optional));
        let mut client_config = pki.client_config_with(&[version], &pki.client);
        client_config.resumption = Resumption::in_memory_sessions(8);
        let client_config = Arc::new(client_config);
        for expected in [TlsHandshake::Full, TlsHandshake::Resumed] {
            let mut client = Ours::client(&client_config);
            let mut server = Ours::asking(&server_config);
            exchange(&mut client, &mut server, 100);
            assert_idle(&server);
            assert_eq!(client.session.handshake_kind(), Some(expected));
            assert_eq!(server.session.handshake_kind(), Some(expected));
            assert_eq!(server.session.peer_certificates(), pki.client.chain);
        }
    }
}

#[test]
fn a_retry_is_part_of_the_handshake() {
    let (client_config, server_config) = retrying(&Pki::new());
    for size in SIZES {
        let mut client = Ours::client(&client_config);
        let mut server = Ours::server(&server_config);
        exchange(&mut client, &mut server, size);
        assert_idle(&client);
        assert_idle(&server);
        let kind = Some(TlsHandshake::FullWithRetry);
        assert_eq!(client.session.handshake_kind(), kind);
        assert_eq!(server.session.handshake_kind(), kind);
        assert_eq!(server.hellos.len(), 1, "chosen by the first hello");
    }
    let mut client = Ours::client(&client_config);
    let mut server = Ours::server(&server_config);
    server.feed(&client.take_out());
    let closed = Err(TlsFailure::Closed(TlsStage::SecondClientHello));
    assert_eq!(server.eof(), closed);
}

#[test]
fn a_session_can_move_to_its_thread() {
    fn check<T: Send>() {}
    check::<Session>();
}

#[test]
fn tl_06_a_client_sends_names_without_dot_and_never_an_address() {
    let config = Arc::new(Pki::new().client_config(&VERSIONS));
    for (name, sent) in [
        ("A.Test.", "SNI a.test"),
        ("a.test", "SNI a.test"),
        ("10.0.0.1", "no SNI"),
        ("2001:db8::7", "no SNI"),
    ] {
        let (now, mut out) = (now(), Vec::new());
        let server_name = ServerName::try_from(name).unwrap();
        let session = Session::client(Arc::clone(&config), server_name, now, &mut out);
        let mut session = session.unwrap();
        assert_eq!(session.server_name(), Some(name));
        let trace = session.take_trace().unwrap().to_string();
        assert!(
            trace.contains(&format!("ClientHello sent: {sent},")),
            "{trace}"
        );
    }
}

#[test]
fn an_unusable_configuration_is_our_fault() {
    let pki = Pki::new();
    let mut config = pki.server_config(&VERSIONS, Asks::No);
    config.max_fragment_size = Some(1);
    let mut client = Ours::client(&Arc::new(pki.client_config(&VERSIONS)));
    let (server, client) = refusals(&mut Ours::server(&Arc::new(config)), &mut client);
    assert!(matches!(server, TlsFailure::Internal { .. }), "{server}");
    assert_eq!(client, TlsFailure::PeerAlert(Alert::INTERNAL_ERROR));
}

#[test]
fn rustls_and_we_agree_on_what_happened() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let mut client = Theirs::client(&Arc::new(pki.client_config(&VERSIONS)));
    let mut server = Ours::server(&server_config);
    exchange(&mut client, &mut server, usize::MAX);
    let theirs = &client.connection;
    let version = theirs
        .protocol_version()
        .map(|version| TlsVersion::new(version.into()));
    assert_eq!(server.session.version(), version);
    assert_eq!(server.session.version(), Some(TlsVersion::TLS_1_3));
    let suite = theirs
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str());
    assert_eq!(server.session.suite(), suite);
    let group = theirs
        .negotiated_key_exchange_group()
        .and_then(|group| group.name().as_str());
    assert_eq!(server.session.group(), group);
    assert_eq!(theirs.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(server.session.alpn(), None);
    let debug = format!("{:?}", server.session);
    assert!(debug.contains("server_name: Some(\"a.test\")"), "{debug}");
}
