#![allow(
    clippy::cast_possible_truncation,
    reason = "a byte of a random number is what is meant"
)]

use std::time::Duration;

use rustls::client::Resumption;
use rustls::{AlertDescription, Error, HandshakeKind, SupportedProtocolVersion};

use super::*;
use crate::tls::failure::CertificateProblem;
use crate::tls::hello::ForeignProtocol;
use crate::tls::test_support::*;
use crate::tls::trace::ChosenBy;

const SIZES: [usize; 7] = [1, 2, 3, 7, 100, 1777, usize::MAX];

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Both ways, in records that fill, end within and begin within what was read.
fn exchange(client: &mut dyn End, server: &mut dyn End, size: usize) {
    pump(client, server, size);
    client.send(&text(40_000));
    client.send(b"!");
    server.send(&text(20_000));
    server.send(b"?");
    pump(client, server, size);
}

fn assert_idle(end: &Ours) {
    assert_eq!(end.failure, None);
    assert!(end.session.can_send());
    assert_eq!(end.session.stash.capacity(), 0);
    assert!(end.session.handshake.is_none());
    let established = end.got.iter().filter(|got| got.established_now);
    assert_eq!(established.count(), 1);
}

fn forth() -> Vec<u8> {
    [text(40_000), b"!".to_vec()].concat()
}

fn back() -> Vec<u8> {
    [text(20_000), b"?".to_vec()].concat()
}

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
    assert_eq!(server.session.stash.capacity(), 0);
}

#[test]
fn tl_17_a_message_in_tiny_records_is_given_up_at_the_limit() {
    let mut server = server_awaiting_certificate(&Pki::new());
    let mut fed = 0;
    server.feed(&[22, 3, 3, 0, 4, 11, 0, 0xFF, 0xF0]);
    while server.failure.is_none() {
        server.feed(&[22, 3, 3, 0, 1, 0].repeat(100));
        fed += 600;
        assert!(server.session.stash.len() <= MAX_HANDSHAKE_STASH + 5);
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
fn tl_10_a_client_without_a_certificate_learns_that_one_is_required() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server_config = Arc::new(pki.server_config(&[version], Asks::Required));
        let mut client = Ours::client(&Arc::new(pki.client_config(&[version])));
        let mut server = Ours::asking(&server_config);
        server.feed(&client.take_out());
        client.feed(&server.take_out());
        let tls13 = version.version == ProtocolVersion::TLSv1_3;
        assert_eq!(client.was_established(), tls13);
        if tls13 {
            client.send(b"GET / HTTP/1.1\r\n\r\n");
        }
        connect(&mut client, &mut server);
        assert_eq!(server.failure, Some(TlsFailure::NoCertificate));
        assert!(server.plain.is_empty(), "nothing of it was believed");
        let alert = Alert::CERTIFICATE_REQUIRED;
        assert_eq!(client.failure, Some(TlsFailure::PeerAlert(alert)));
        assert_eq!(server.failure.unwrap().alert(), Some(alert));
    }
}

/// What the two sides report when one refuses the other's certificate.
fn refusals(server: &mut Ours, client: &mut Ours) -> (TlsFailure, TlsFailure) {
    connect(client, server);
    let [server, client] = [&server.failure, &client.failure];
    (server.clone().unwrap(), client.clone().unwrap())
}

#[test]
fn the_side_that_verifies_has_the_reason_and_the_other_its_alert() {
    let pki = Pki::new();
    let stranger = Ca::new("stranger");
    let year = rcgen::date_time_ymd;
    let bad = [
        (stranger.leaf("a.test"), Alert::UNKNOWN_CA),
        (
            pki.ca.leaf_with("a.test", |params| {
                params.not_before = year(2001, 1, 1);
                params.not_after = year(2002, 1, 1);
            }),
            Alert::CERTIFICATE_EXPIRED,
        ),
        (
            pki.ca.leaf_with("a.test", |params| {
                params.not_before = year(2090, 1, 1);
                params.not_after = year(2091, 1, 1);
            }),
            Alert::CERTIFICATE_EXPIRED,
        ),
        (
            pki.ca.leaf_with("a.test", |params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
            }),
            Alert::UNSUPPORTED_CERTIFICATE,
        ),
        (
            pki.ca.leaf_with("a.test", |params| {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }),
            Alert::CERTIFICATE_UNKNOWN,
        ),
    ];
    for version in VERSIONS {
        for (leaf, alert) in &bad {
            let config = Arc::new(pki.server_config_of(leaf, &[version], Asks::No));
            let mut client = Ours::client(&Arc::new(pki.client_config(&[version])));
            let (server, client) = refusals(&mut Ours::server(&config), &mut client);
            assert_eq!(server, TlsFailure::PeerAlert(*alert), "{client}");
            assert_eq!(client.alert(), Some(*alert));
            let config = Arc::new(pki.server_config(&[version], Asks::Optional));
            let mut client = Ours::client(&Arc::new(pki.client_config_with(&[version], leaf)));
            let (server, client) = refusals(&mut Ours::asking(&config), &mut client);
            assert_eq!(client, TlsFailure::PeerAlert(*alert), "{server}");
            assert_eq!(server.alert(), Some(*alert));
            check_problem(&server);
        }
    }
}

/// The problem that belongs to the alert, with what there is to know about it.
fn check_problem(failure: &TlsFailure) {
    let TlsFailure::Certificate(problem) = failure else {
        panic!("{failure}");
    };
    match problem {
        CertificateProblem::UnknownIssuer | CertificateProblem::CaUsedAsEndEntity => {}
        CertificateProblem::Expired {
            not_after: Some(_),
            checked_at: Some(_),
        } => assert!(
            failure
                .to_string()
                .contains("expired on 2002-01-01 00:00:00 UTC")
        ),
        CertificateProblem::NotYetValid {
            not_before: Some(_),
            checked_at: Some(_),
        } => assert!(
            failure
                .to_string()
                .contains("but from 2090-01-01 00:00:00 UTC")
        ),
        CertificateProblem::WrongPurpose {
            required,
            presented,
        } => {
            assert_eq!(**required, *"client authentication");
            assert_eq!(presented.len(), 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_for_another_name_names_both() {
    let pki = Pki::new();
    let leaf = pki.ca.leaf("b.test");
    for version in VERSIONS {
        let config = Arc::new(pki.server_config_of(&leaf, &[version], Asks::No));
        let mut client = Ours::client(&Arc::new(pki.client_config(&[version])));
        let (server, client) = refusals(&mut Ours::server(&config), &mut client);
        assert_eq!(server, TlsFailure::PeerAlert(Alert::BAD_CERTIFICATE));
        let expected = "the peer's certificate is not accepted: it is not valid for \"a.test\", \
                        only for b.test";
        assert_eq!(client.to_string(), expected);
    }
}

#[test]
fn a_refused_name_is_answered_with_unrecognized_name() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut client = Theirs::client(&Arc::new(pki.client_config(&[version])));
        let refusal = TlsFailure::UnrecognizedName {
            name: Some("a.test".into()),
        };
        let mut server = Ours::server_of(Err(refusal.clone()));
        let (_, answer) = connect(&mut client, &mut server);
        assert_eq!(server.failure, Some(refusal));
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 112]);
        let alert = Error::AlertReceived(AlertDescription::UnrecognisedName);
        assert_eq!(client.failure, Some(alert));
    }
}

fn with_alpn(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[test]
fn tl_12_no_application_protocol_in_common_fails_with_its_alert() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut server_config = pki.server_config(&[version], Asks::No);
        server_config.alpn_protocols = with_alpn(&["h2"]);
        let mut client_config = pki.client_config(&[version]);
        client_config.alpn_protocols = with_alpn(&["http/1.1"]);
        let mut client = Ours::client(&Arc::new(client_config));
        let mut server = Ours::server(&Arc::new(server_config));
        let (server, client) = refusals(&mut server, &mut client);
        assert_eq!(server, TlsFailure::NoApplicationProtocol);
        let alert = Alert::NO_APPLICATION_PROTOCOL;
        assert_eq!(client, TlsFailure::PeerAlert(alert));
        assert_eq!(server.alert(), Some(alert));
    }
}

#[test]
fn tl_12_a_protocol_that_was_not_offered_fails() {
    let pki = Pki::new();
    let mut server_config = pki.server_config(&[&TLS12], Asks::No);
    server_config.alpn_protocols = with_alpn(&["http/1.1"]);
    let mut client_config = pki.client_config(&[&TLS12]);
    client_config.alpn_protocols = with_alpn(&["http/1.1"]);
    let mut client = Ours::client(&Arc::new(client_config));
    let mut server = Ours::server(&Arc::new(server_config));
    server.feed(&client.take_out());
    let mut flight = server.take_out();
    let at = flight.windows(8).position(|word| word == b"http/1.1");
    flight[at.unwrap() + 7] = b'0';
    client.feed(&flight);
    let failure = client.failure.clone().unwrap();
    assert!(
        matches!(failure, TlsFailure::PeerMisbehaved { .. }),
        "{failure}"
    );
    assert_eq!(failure.alert(), Some(Alert::ILLEGAL_PARAMETER));
    assert_eq!(client.out, [21, 3, 3, 0, 2, 2, 47]);
}

#[test]
fn versions_and_suites_without_overlap_are_told_apart() {
    let pki = Pki::new();
    let mut client = Ours::client(&Arc::new(pki.client_config(&[&TLS13])));
    let mut server = Ours::server(&Arc::new(pki.server_config(&[&TLS12], Asks::No)));
    let (server, client) = refusals(&mut server, &mut client);
    assert_eq!(server, TlsFailure::NoCommonVersion);
    assert_eq!(client, TlsFailure::PeerAlert(Alert::PROTOCOL_VERSION));
    let mut some = (*provider()).clone();
    some.cipher_suites.truncate(1);
    let mut other = (*provider()).clone();
    other
        .cipher_suites
        .retain(|suite| suite.suite() != some.cipher_suites[0].suite());
    let config = ClientConfig::builder_with_provider(Arc::new(some));
    let config = config.with_protocol_versions(&[&TLS13]).unwrap();
    let config = config
        .with_root_certificates(pki.ca.roots())
        .with_no_client_auth();
    let mut client = Ours::client(&Arc::new(config));
    let config = ServerConfig::builder_with_provider(Arc::new(other));
    let config = config
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth();
    let key = pki.server.key.clone_key();
    let config = config
        .with_single_cert(pki.server.chain.clone(), key)
        .unwrap();
    let (server, client) = refusals(&mut Ours::server(&Arc::new(config)), &mut client);
    assert!(
        matches!(server, TlsFailure::NoCommonParameters(_)),
        "{server}"
    );
    assert_eq!(client, TlsFailure::PeerAlert(Alert::HANDSHAKE_FAILURE));
    assert_eq!(server.alert(), Some(Alert::HANDSHAKE_FAILURE));
}

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
        assert_eq!(server.session.stash.capacity(), 0);
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
    assert_eq!(server.session.stash.capacity(), 0);
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

/// A client whose first key share is of a group that the server lacks.
fn retrying(pki: &Pki) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let groups = provider().kx_groups.clone();
    let classic = |name| move |group: &&&dyn rustls::crypto::SupportedKxGroup| group.name() == name;
    let find = |name| *groups.iter().find(classic(name)).unwrap();
    let (first, second) = (
        find(rustls::NamedGroup::secp384r1),
        find(rustls::NamedGroup::X25519),
    );
    let mut both = (*provider()).clone();
    both.kx_groups = vec![first, second];
    let mut one = (*provider()).clone();
    one.kx_groups = vec![second];
    let client = ClientConfig::builder_with_provider(Arc::new(both));
    let client = client.with_protocol_versions(&[&TLS13]).unwrap();
    let client = client.with_root_certificates(pki.ca.roots());
    let mut client = client.with_no_client_auth();
    client.resumption = Resumption::disabled();
    let server = ServerConfig::builder_with_provider(Arc::new(one));
    let server = server
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth();
    let key = pki.server.key.clone_key();
    let server = server
        .with_single_cert(pki.server.chain.clone(), key)
        .unwrap();
    (Arc::new(client), Arc::new(server))
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

/// The lines of a trace without their times.
fn lines(end: &mut Ours) -> Vec<String> {
    let trace = end.session.take_trace().unwrap();
    trace.steps().map(|(_, step)| step.to_string()).collect()
}

fn versions_of(version: &'static SupportedProtocolVersion) -> &'static str {
    match version.version {
        ProtocolVersion::TLSv1_2 => "TLS 1.2",
        _ => "TLS 1.3",
    }
}

#[test]
fn tl_23_traces_of_full_and_resumed_handshakes() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut server_config = pki.server_config(&[version], Asks::Required);
        server_config.alpn_protocols = with_alpn(&["http/1.1"]);
        let server_config = Arc::new(server_config);
        let mut client_config = pki.client_config_with(&[version], &pki.client);
        client_config.alpn_protocols = with_alpn(&["h2", "http/1.1"]);
        client_config.resumption = Resumption::in_memory_sessions(8);
        let client_config = Arc::new(client_config);
        let name = versions_of(version);
        let hello = format!("SNI a.test, ALPN h2 http/1.1, {name}");
        for resumed in [false, true] {
            let mut client = Ours::client(&client_config);
            let mut server = Ours::asking(&server_config);
            exchange(&mut client, &mut server, 1777);
            let suite = client.session.suite().unwrap();
            let group = client.session.group();
            let group = group.map_or_else(String::new, |group| format!(", {group}"));
            let kind = if resumed { "resumed" } else { "full handshake" };
            let done = format!("established: {name}, {suite}, {kind}{group}, ALPN http/1.1");
            // The verifiers are rustls' own: what they have verified is not known.
            let certificates = ["certificate received: 1"];
            let asked = match (resumed, name) {
                (true, _) => vec![],
                (false, _) => [&["certificate requested"][..], &certificates].concat(),
            };
            let received = format!("ClientHello received: {hello}");
            let expected = [&[&*received][..], &asked, &[&done]].concat();
            assert_eq!(lines(&mut server), expected);
            let asked = match (resumed, name) {
                (true, _) => vec![],
                // Without hooks in its configuration, a client does not see what TLS 1.3 encrypts.
                (false, "TLS 1.3") => certificates.to_vec(),
                (false, _) => [&["certificate requested"][..], &certificates].concat(),
            };
            let sent = format!("ClientHello sent: {hello}");
            let expected = [&[&*sent][..], &asked, &[&done]].concat();
            assert_eq!(lines(&mut client), expected);
        }
    }
}

#[test]
fn tl_23_traces_of_failed_handshakes() {
    let pki = Pki::new();
    let stranger = Ca::new("stranger").leaf("client");
    let server_config = Arc::new(pki.server_config(&[&TLS13], Asks::Required));
    let mut client = Ours::client(&Arc::new(pki.client_config_with(&[&TLS13], &stranger)));
    let mut server = Ours::asking(&server_config);
    connect(&mut client, &mut server);
    let why = "no trusted root has issued it, or an intermediate certificate is missing";
    let expected = [
        "ClientHello received: SNI a.test, no ALPN, TLS 1.3".to_owned(),
        "certificate requested".into(),
        format!("certificate not accepted: {why}"),
        "alert sent: unknown_ca (48)".into(),
        format!("failed: the peer's certificate is not accepted: {why}"),
    ];
    assert_eq!(lines(&mut server), expected);
    let trace = lines(&mut client);
    assert!(trace[2].starts_with("established: TLS 1.3"), "{trace:?}");
    assert_eq!(trace[3], "alert received: unknown_ca (48)");
    assert!(trace[4].starts_with("failed: the peer refused with unknown_ca (48)"));
    assert_eq!(trace.len(), 5);
}

#[test]
fn tl_23_traces_of_a_retry_and_of_silence() {
    let pki = Pki::new();
    let (client_config, server_config) = retrying(&pki);
    let mut client = Ours::client(&client_config);
    let mut server = Ours::server(&server_config);
    connect(&mut client, &mut server);
    assert_eq!(lines(&mut server)[1], "HelloRetryRequest");
    assert_eq!(lines(&mut client)[1], "HelloRetryRequest");
    let mut server = Ours::server(&server_config);
    server.now += Duration::from_secs(5);
    assert!(server.eof().is_err());
    let trace = server.session.take_trace().unwrap();
    let steps: Vec<_> = trace.steps().collect();
    let text = "the peer closed the connection before its first byte";
    let failed = TlsStep::Failed(text.into());
    assert_eq!(steps, [(Duration::from_secs(5), &failed)]);
}

#[test]
fn whoever_chooses_the_vhost_writes_to_the_trace() {
    let pki = Pki::new();
    let config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let mut client = Theirs::client(&Arc::new(pki.client_config(&VERSIONS)));
    let (start, mut session) = (now(), Session::server(now()));
    let mut select = |hello: &ClientHello| {
        trace::note(TlsStep::VhostChosen {
            vhost: hello.server_name().unwrap().into(),
            by: ChosenBy::ExactName,
        });
        let config = Arc::clone(&config);
        Ok(Chosen {
            config,
            requests_certificate: false,
        })
    };
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut wire = client.take_out();
    session
        .receive(
            &mut wire,
            &mut Place::default(),
            &mut plain,
            &mut out,
            start,
            &mut select,
        )
        .unwrap();
    let trace = session.take_trace().unwrap().to_string();
    assert!(
        trace.contains("vhost \"a.test\" chosen by exact name"),
        "{trace}"
    );
}

/// Changes, drops, repeats and inserts bytes of a good connection.
fn damage(rng: &mut Rng, wire: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        if wire.is_empty() {
            return;
        }
        let at = rng.below(wire.len());
        match rng.below(5) {
            0 => wire[at] ^= 1 << rng.below(8),
            1 => wire[at] = rng.next() as u8,
            2 => drop(wire.drain(at..(at + rng.below(40)).min(wire.len()))),
            3 => {
                let copy = wire[at..(at + 40).min(wire.len())].to_vec();
                wire.splice(at..at, copy);
            }
            _ => {
                let noise: Vec<u8> = (0..rng.below(40)).map(|_| rng.next() as u8).collect();
                wire.splice(at..at, noise);
            }
        }
    }
}

#[test]
fn damaged_connections_fail_cleanly_on_both_sides() {
    let pki = Pki::new();
    let mut failed = 0;
    for seed in 1..=400 {
        eprintln!("seed {seed}");
        let mut rng = Rng::new(seed * 0x9E37_79B9);
        let version = VERSIONS[rng.below(2)];
        let asks = [Asks::No, Asks::Optional, Asks::Required][rng.below(3)];
        let server_config = Arc::new(pki.server_config(&[version], asks));
        let client_config = Arc::new(pki.client_config_with(&[version], &pki.client));
        let mut client = Ours::client(&client_config);
        let mut server = Ours::asking(&server_config);
        let victim = rng.below(8);
        for turn in 0..8 {
            let (from, to) = match turn % 2 {
                0 => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            if from.session.can_send() {
                from.send(&text(rng.below(3000)));
            }
            let mut wire = from.take_out();
            if turn == victim {
                damage(&mut rng, &mut wire);
            }
            let size = 1 + rng.below(2000);
            wire.chunks(size).for_each(|piece| to.feed(piece));
            assert!(to.session.stash.len() <= MAX_HANDSHAKE_STASH);
            let _ = to.session.seal(b"x", &mut to.out);
        }
        for end in [&mut client, &mut server] {
            failed += usize::from(end.failure.is_some());
            let _ = end.eof();
        }
    }
    assert!(failed > 100, "{failed}");
}

#[test]
fn noise_is_refused_or_waited_on() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&VERSIONS, Asks::No));
    let client_config = Arc::new(pki.client_config(&VERSIONS));
    for seed in 1..=2000 {
        let mut rng = Rng::new(seed);
        let mut wire: Vec<u8> = (0..1 + rng.below(200)).map(|_| rng.next() as u8).collect();
        // Most noise should look like records.
        if rng.below(4) > 0 {
            let kind = 20 + rng.below(5) as u8;
            wire.splice(..0, [kind, 3, rng.below(5) as u8, 0, rng.below(100) as u8]);
        }
        let size = 1 + rng.below(20);
        for mut end in [Ours::server(&server_config), Ours::client(&client_config)] {
            wire.chunks(size).for_each(|piece| end.feed(piece));
            assert!(!end.was_established() && end.plain.is_empty());
            assert!(end.session.stash.len() <= wire.len(), "seed {seed}");
            assert!(end.eof().is_err());
        }
    }
}

#[test]
fn the_same_bytes_fail_the_same_way_at_every_split() {
    let pki = Pki::new();
    let server_config = Arc::new(pki.server_config(&[&TLS12], Asks::No));
    let hello = Theirs::client(&Arc::new(pki.client_config(&[&TLS12]))).take_out();
    for seed in 1..=300 {
        let mut rng = Rng::new(seed);
        let mut wire = hello.clone();
        damage(&mut rng, &mut wire);
        let outcome = |size| {
            let mut server = Ours::server(&server_config);
            wire.chunks(size).for_each(|piece| server.feed(piece));
            (server.failure.take(), server.hellos)
        };
        let whole = outcome(usize::MAX);
        for size in [1, 3, 50] {
            let cut = outcome(size);
            assert_eq!(cut, whole, "seed {seed}, size {size}: {wire:?}");
        }
    }
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
