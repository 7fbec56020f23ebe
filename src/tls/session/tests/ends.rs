//! How a session ends: orderly, cut off, or with a peer that speaks no TLS.

use super::*;
use crate::tls::hello::ForeignProtocol;

#[test]
fn close_notify_is_an_orderly_end_and_leaves_the_other_direction_open() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::No));
        let mut client = Ours::client(&Arc::new(pki.client_config(&[version])));
        let mut server = Ours::server(&server_config);
        connect(&mut client, &mut server);
        client.send(b"last words");
        client.session.close(&mut client.out);
        client.session.close(&mut client.out);
        let mut wire = client.take_out();
        wire.extend(b"ignored, RFC 8446 section 6.1");
        server.feed(&wire);
        assert!(server.was_closed());
        assert_eq!(server.failure, None);
        assert_eq!(server.plain, b"last words");
        assert_eq!(server.session.stash().len(), 0);
        server.send(b"an answer");
        assert!(!server.take_out().is_empty());
        server.feed(b"ignored too");
        assert_eq!(server.eof(), Ok(()));
        assert_eq!(client.eof(), Ok(()));
        let closed = client.session.seal(b"more", &mut client.out);
        assert_eq!(closed, Err(SealError::Closed));
        assert!(client.out.is_empty());
    }
}

#[test]
fn after_our_close_the_peer_can_say_what_it_likes() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let mut client = Ours::client(&Arc::new(pki.client_config(&VERSIONS)));
    let mut server = Ours::server(&server_config);
    connect(&mut client, &mut server);
    server.session.close(&mut server.out);
    server.feed(&[23, 3, 3, 0, 100]);
    server.feed(&[7; 100]);
    assert_eq!(server.failure, None);
    assert!(server.plain.is_empty());
}

#[test]
fn tl_22_an_end_without_close_notify_is_a_truncation() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let mut client = Ours::client(&Arc::new(pki.client_config(&VERSIONS)));
    let mut server = Ours::server(&server_config);
    connect(&mut client, &mut server);
    client.send(b"half of it");
    let wire = client.take_out();
    server.feed(&wire[..wire.len() - 1]);
    assert_eq!(server.eof(), Err(TlsFailure::Truncated));
    assert_eq!(client.eof(), Err(TlsFailure::Truncated));
    assert_eq!(client.eof(), Err(TlsFailure::Truncated));
    assert_eq!(server.session.stash().len(), 0);
}

#[test]
fn tl_02_the_end_of_a_handshake_names_the_stage() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::No));
        let client_config = Arc::new(pki.client_config(&[version]));
        let closed = |stage| Err(TlsFailure::Closed(stage));
        // The server's view, after each of the client's flights and within them.
        let mut client = Theirs::client(&client_config);
        let hello = client.take_out();
        assert_eq!(
            Ours::server(&server_config).eof(),
            closed(TlsStage::BeforeHello)
        );
        let mut server = Ours::server(&server_config);
        server.feed(&hello[..hello.len() - 1]);
        assert_eq!(server.eof(), closed(TlsStage::ClientHello));
        let mut server = Ours::server(&server_config);
        server.feed(&hello);
        let flight = server.take_out();
        client.feed(&flight);
        let mut answer = client.take_out();
        answer.pop();
        server.feed(&answer);
        assert_eq!(server.eof(), closed(TlsStage::ClientFlight));
        let mut server = Ours::server(&server_config);
        server.feed(&hello);
        assert_eq!(server.eof(), closed(TlsStage::ClientFlight));
        // The client's view.
        assert_eq!(
            Ours::client(&client_config).eof(),
            closed(TlsStage::ServerHello)
        );
        let mut client = Ours::client(&client_config);
        let mut server = Theirs::server(&server_config);
        server.feed(&client.take_out());
        let mut flight = server.take_out();
        flight.pop();
        client.feed(&flight[..3]);
        assert_eq!(
            client.session.eof(client.now),
            closed(TlsStage::ServerHello)
        );
        let mut client = Ours::client(&client_config);
        let mut server = Theirs::server(&server_config);
        server.feed(&client.take_out());
        let mut flight = server.take_out();
        let last = flight.pop().unwrap();
        client.feed(&flight);
        if version.version == ProtocolVersion::TLSv1_3 {
            assert_eq!(client.eof(), closed(TlsStage::ServerFlight));
        } else {
            client.feed(&[last]);
            assert_eq!(client.eof(), closed(TlsStage::ServerFinished));
        }
    }
}

#[test]
fn a_client_that_ends_on_our_certificate_request_is_taken_for_a_browser() {
    let pki = Pki::new();
    for version in VERSIONS {
        for asks in [Asks::Optional, Asks::Required] {
            let server_config = Arc::new(pki.server_config(&[version], asks));
            let client_config = Arc::new(pki.client_config(&[version]));
            let mut client = Theirs::client(&client_config);
            let mut server = Ours::asking(&server_config);
            server.feed(&client.take_out());
            client.feed(&server.take_out());
            let cancelled = Err(TlsFailure::CertificateRequestCancelled);
            assert_eq!(server.eof(), cancelled);
            let trace = server.session.take_trace().unwrap().to_string();
            assert!(trace.contains("certificate requested"), "{trace}");
            // Whoever answers anything is no such browser.
            let mut client = Theirs::client(&client_config);
            let mut server = Ours::asking(&server_config);
            server.feed(&client.take_out());
            client.feed(&server.take_out());
            server.feed(&client.take_out()[..1]);
            let closed = Err(TlsFailure::Closed(TlsStage::ClientFlight));
            assert_eq!(server.eof(), closed);
        }
        // Nor does it count where nothing was asked.
        let server_config = Arc::new(pki.server_config(&[version], Asks::No));
        let mut client = Theirs::client(&Arc::new(pki.client_config(&[version])));
        let mut server = Ours::server(&server_config);
        server.feed(&client.take_out());
        let closed = Err(TlsFailure::Closed(TlsStage::ClientFlight));
        assert_eq!(server.eof(), closed);
    }
}

fn foreign(wire: &[u8], size: usize) -> (TlsFailure, Vec<u8>) {
    let config = Arc::new(Pki::new().server_config(&VERSIONS, Asks::No));
    let mut server = Ours::server(&config);
    wire.chunks(size).for_each(|piece| server.feed(piece));
    assert!(server.hellos.is_empty());
    (server.failure.clone().unwrap(), server.out)
}

#[test]
fn tl_03_whoever_speaks_no_tls_is_guessed_at() {
    use ForeignProtocol as Guess;
    let table: [(&[u8], Guess, &[u8]); 8] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Guess::PlainHttp, b""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Guess::Http2, b""),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Guess::Ssh, b""),
        (
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
            Guess::SslV2,
            &[21, 3, 3, 0, 2, 2, 70],
        ),
        (
            &[21, 3, 1, 0, 2, 2, 70],
            Guess::Alert(Alert::PROTOCOL_VERSION),
            b"",
        ),
        (
            &[23, 3, 3, 0, 1, 0],
            Guess::TlsRecord(23),
            &[21, 3, 3, 0, 2, 2, 10],
        ),
        (&[0; 10], Guess::Unknown, b""),
        (&[0xFF; 10], Guess::Unknown, b""),
    ];
    for (wire, guess, answer) in table {
        for size in [1, 2, 100] {
            let (failure, out) = foreign(wire, size);
            assert_eq!(failure, TlsFailure::NotTls(guess), "{size}");
            assert_eq!(out, answer, "{guess}");
        }
    }
}

#[test]
fn tl_03_a_client_tells_what_a_server_without_tls_says() {
    let config = Arc::new(Pki::new().client_config(&VERSIONS));
    for size in [1, 3, 100] {
        let mut client = Ours::client(&config);
        client.take_out();
        let wire = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        wire.chunks(size).for_each(|piece| client.feed(piece));
        let guess = ForeignProtocol::PlainHttp;
        assert_eq!(client.failure, Some(TlsFailure::NotTls(guess)));
        assert!(client.out.is_empty());
    }
}

#[test]
fn a_servers_alert_in_the_clear_is_its_reason() {
    let config = Arc::new(Pki::new().client_config(&VERSIONS));
    let mut client = Ours::client(&config);
    client.feed(&[21, 3, 3, 0, 2, 2, 40]);
    let failure = TlsFailure::PeerAlert(Alert::HANDSHAKE_FAILURE);
    assert_eq!(client.failure, Some(failure));
}
