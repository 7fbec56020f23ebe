//! Data in records, and what comes between them.

use super::*;

#[test]
fn tl_20_all_that_has_come_is_given_out_in_one_call() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&[&TLS13], Asks::No));
    let mut client = Theirs::client(&Arc::new(pki.client_config(&[&TLS13])));
    let mut server = Ours::server(&server_config);
    server.feed(&client.take_out());
    client.feed(&server.take_out());
    for _ in 0..50 {
        client.send(&text(300));
    }
    let wire = client.take_out();
    server.feed(&wire);
    assert_eq!(server.got.len(), 2);
    assert!(server.was_established(), "Finished and data came together");
    assert_eq!(server.plain.len(), 15_000);
}

#[test]
fn a_record_that_was_changed_is_a_bad_record() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::No));
        let mut client = Ours::client(&Arc::new(pki.client_config(&[version])));
        let mut server = Ours::server(&server_config);
        connect(&mut client, &mut server);
        client.send(b"from the client");
        let mut wire = client.take_out();
        wire[20] ^= 1;
        server.feed(&wire);
        assert_eq!(server.failure, Some(TlsFailure::BadRecord));
        client.feed(&server.take_out());
        let alert = TlsFailure::PeerAlert(Alert::BAD_RECORD_MAC);
        assert_eq!(client.failure, Some(alert));
    }
}

#[test]
fn key_updates_are_answered_ahead_of_the_next_data() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&[&TLS13], Asks::No));
    let mut client = Theirs::client(&Arc::new(pki.client_config(&[&TLS13])));
    let mut server = Ours::server(&server_config);
    exchange(&mut client, &mut server, 100);
    client.connection.refresh_traffic_keys().unwrap();
    exchange(&mut client, &mut server, 1);
    assert_eq!(client.failure, None);
    assert_eq!(server.plain, forth().repeat(2));
    assert_eq!(client.plain, back().repeat(2));
}

#[test]
fn sealing_between_the_pieces_of_a_ticket_works() {
    let pki = Pki::new();
    let mut server_config = pki.server_config(&[&TLS13], Asks::No);
    server_config.max_fragment_size = Some(64);
    let mut client = Ours::client(&Arc::new(pki.client_config(&[&TLS13])));
    let mut server = Theirs::server(&Arc::new(server_config));
    server.feed(&client.take_out());
    client.feed(&server.take_out());
    server.feed(&client.take_out());
    let tickets = server.take_out();
    assert!(tickets.len() > 200, "in several records");
    for piece in tickets.chunks(1) {
        client.feed(piece);
        client.send(b"x");
        server.feed(&client.take_out());
    }
    assert_eq!(server.plain.len(), tickets.len());
    exchange(&mut client, &mut server, 3);
    assert_idle(&client);
}

#[test]
fn replayable_data_waits_for_the_end_of_the_handshake() {
    let pki = Pki::new();
    let mut server_config = pki.server_config(&[&TLS13], Asks::No);
    server_config.max_early_data_size = 1000;
    let server_config = Arc::new(server_config);
    let mut client_config = pki.client_config(&[&TLS13]);
    client_config.enable_early_data = true;
    client_config.resumption = Resumption::in_memory_sessions(8);
    let client_config = Arc::new(client_config);
    for round in 0..2 {
        let mut client = Theirs::client(&client_config);
        if let rustls::Connection::Client(client) = &mut client.connection {
            let early = client.early_data();
            assert_eq!(early.is_some(), round == 1);
            if let Some(mut early) = early {
                io::Write::write_all(&mut early, b"early, ").unwrap();
            }
        }
        client.send(b"late");
        let mut server = Ours::server(&server_config);
        server.feed(&client.take_out());
        assert!(server.plain.is_empty());
        connect(&mut server, &mut client);
        let expected: &[u8] = if round == 1 { b"early, late" } else { b"late" };
        assert_eq!(server.plain, expected);
        assert_idle(&server);
    }
}

#[test]
fn records_are_as_long_as_the_configuration_says() {
    let pki = Pki::new();
    for version in VERSIONS {
        for max in [None, Some(64), Some(1024)] {
            let mut server_config = pki.server_config(&[version], Asks::No);
            server_config.max_fragment_size = max;
            let mut client = Theirs::client(&Arc::new(pki.client_config(&[version])));
            let mut server = Ours::server(&Arc::new(server_config));
            connect(&mut client, &mut server);
            server.send(&text(50_000));
            server.send(b"");
            let mut wire = server.take_out();
            client.feed(&wire);
            assert_eq!(client.plain, text(50_000));
            let limit = max.unwrap_or(MAX_FRAGMENT_LEN + RECORD_HEADER_LEN) + 25;
            while !wire.is_empty() {
                let len = usize::from(u16::from_be_bytes([wire[3], wire[4]]));
                assert!(RECORD_HEADER_LEN + len <= limit);
                wire.drain(..RECORD_HEADER_LEN + len);
            }
        }
    }
}

#[test]
fn sealing_before_the_handshake_is_refused() {
    let pki = Pki::new();
    let mut client = Ours::client(&Arc::new(pki.client_config(&VERSIONS)));
    let before = client.out.len();
    let refused = client.session.seal(b"early", &mut client.out);
    assert_eq!(refused, Err(SealError::NotEstablished));
    client.session.close(&mut client.out);
    assert_eq!(client.out.len(), before);
    assert!(!client.session.can_send());
}
