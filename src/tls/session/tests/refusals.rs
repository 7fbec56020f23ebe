//! Certificates, names, protocols and versions that do not fit.

use rustls::{AlertDescription, Error};

use super::*;
use crate::tls::failure::CertificateProblem;

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
