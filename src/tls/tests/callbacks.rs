//! What the application may say to verification, and what it may not.

use std::sync::Mutex;

use rustls::{AlertDescription, CertificateError};

use super::super::client::ClientTls;
use super::super::failure::CertificateProblem;
use super::super::roots::Roots;
use super::super::server::{ClientAuth, ClientTrust, ServerTls};
use super::super::verify::{Refused, Verdict};
use super::*;

const REFUSED: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
const DENIED: Error = Error::AlertReceived(AlertDescription::AccessDenied);

/// Our client against a server of `a.test` with a certificate of `issuer`, in both versions.
fn outcomes(tls: &ClientTls, issuer: &Pki, host: &str) -> Vec<Outcome> {
    let leaf = issuer.leaf(&["a.test"]).issue();
    let configs = tls.build(&env()).unwrap();
    let against = |version| {
        let server = Server::Theirs(their_server(&leaf, version));
        handshake(&configs, names(host), &server)
    };
    VERSIONS.into_iter().map(against).collect()
}

fn client(pki: &Pki) -> ClientTls {
    ClientTls::new(Roots::from_pem(pki.ca_pem()).unwrap())
}

fn problem(outcome: &Outcome) -> CertificateProblem {
    match &outcome.client {
        Err(Error::InvalidCertificate(error)) => error.clone().into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tl_18_a_failure_is_shown_with_problem_name_and_chain() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let shown = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&shown);
    let tls = client(&ca).on_verify_failure(move |failure| {
        let names = failure.peer().dns_names();
        assert!(!failure.peer().is_verified());
        let line = (failure.problem().clone(), failure.name().to_owned(), names);
        log.lock().unwrap().push(line);
        Verdict::Reject
    });
    for outcome in outcomes(&tls, &junk, "a.test") {
        assert_eq!(problem(&outcome), CertificateProblem::UnknownIssuer);
    }
    for outcome in outcomes(&tls, &ca, "a.test") {
        assert!(outcome.is_established());
    }
    for outcome in outcomes(&tls, &ca, "10.0.0.1") {
        assert!(!outcome.is_established());
    }
    let shown = shown.lock().unwrap();
    let problems: Vec<_> = shown.iter().map(|(problem, ..)| problem.alert()).collect();
    use super::super::alert::Alert;
    let expected = [Alert::UNKNOWN_CA, Alert::UNKNOWN_CA];
    assert_eq!(problems[..2], expected);
    assert_eq!(
        problems[2..],
        [Alert::BAD_CERTIFICATE, Alert::BAD_CERTIFICATE]
    );
    let names: Vec<_> = shown.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.test", "a.test", "10.0.0.1", "10.0.0.1"]);
    assert!(shown.iter().all(|(.., presented)| presented == &["a.test"]));
}

#[test]
fn tl_18_accepting_without_the_dangerous_option_is_rejecting() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let tls = client(&ca).on_verify_failure(|_| Verdict::Accept);
    for outcome in outcomes(&tls, &junk, "a.test") {
        assert_eq!(problem(&outcome), CertificateProblem::UnknownIssuer);
        let alert = Error::AlertReceived(AlertDescription::UnknownCA);
        assert_eq!(outcome.server, Err(alert));
        assert!(!outcome.unverified);
    }
    let tls = tls.danger_allow_override(true).danger_allow_override(false);
    for outcome in outcomes(&tls, &junk, "a.test") {
        assert!(!outcome.is_established());
    }
}

#[test]
fn an_override_that_was_allowed_lets_pass_and_is_on_record() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let tls = client(&ca)
        .on_verify_failure(|failure| match failure.problem() {
            CertificateProblem::UnknownIssuer => Verdict::Accept,
            _ => Verdict::Reject,
        })
        .danger_allow_override(true);
    for outcome in outcomes(&tls, &junk, "a.test") {
        assert!(outcome.is_established());
        assert!(outcome.unverified);
        let problem = Some(CertificateProblem::UnknownIssuer);
        let expected = [
            TlsStep::CertificateReceived { count: 1 },
            TlsStep::AcceptedUnverified { problem },
        ];
        assert_eq!(outcome.client_steps, expected);
    }
    for outcome in outcomes(&tls, &ca, "b.test") {
        assert!(!outcome.is_established());
        assert!(!outcome.unverified);
    }
    for outcome in outcomes(&tls, &ca, "a.test") {
        assert!(outcome.is_established());
        assert!(!outcome.unverified);
    }
}

#[test]
fn tl_18_a_panic_in_a_callback_rejects() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let panics = client(&ca)
        .on_verify_failure(|_| panic!("of the test"))
        .danger_allow_override(true);
    for outcome in outcomes(&panics, &junk, "a.test") {
        assert_eq!(problem(&outcome), CertificateProblem::UnknownIssuer);
    }
    let panics = client(&ca).after_verification(|_| panic!("of the test"));
    for outcome in outcomes(&panics, &ca, "a.test") {
        assert_eq!(outcome.client, Err(REFUSED));
        let reason = "the check after verification panicked".into();
        assert_eq!(outcome.client_steps.last(), Some(&TlsStep::Refused(reason)));
    }
}

#[test]
fn a_check_after_verification_refuses_good_servers_with_its_reason() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let tls = client(&ca).after_verification(|peer| {
        assert!(peer.is_verified());
        Err(Refused::new(format!(
            "{:?} is not pinned",
            peer.dns_names()
        )))
    });
    for outcome in outcomes(&tls, &ca, "a.test") {
        assert_eq!(outcome.client, Err(REFUSED));
        assert_eq!(outcome.server, Err(DENIED));
        let refused = TlsStep::Refused("[\"a.test\"] is not pinned".into());
        let expected = [TlsStep::CertificateReceived { count: 1 }, refused];
        assert_eq!(outcome.client_steps, expected);
    }
    for outcome in outcomes(&tls, &junk, "a.test") {
        assert_eq!(problem(&outcome), CertificateProblem::UnknownIssuer);
    }
}

#[test]
fn without_the_check_of_the_name_everything_else_is_checked() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let tls = client(&ca).danger_no_hostname_check(true);
    for outcome in outcomes(&tls, &ca, "other.test") {
        assert!(outcome.is_established());
    }
    for outcome in outcomes(&tls, &junk, "a.test") {
        assert_eq!(problem(&outcome), CertificateProblem::UnknownIssuer);
    }
    let configs = tls.build(&env()).unwrap();
    let client_only = ca.leaf(&["b.test"]).for_clients_only().issue();
    let server = Server::Theirs(their_server(&client_only, &version::TLS13));
    let outcome = handshake(&configs, names("a.test"), &server);
    assert!(matches!(
        problem(&outcome),
        CertificateProblem::WrongPurpose { .. }
    ));
}

#[test]
fn any_certificate_is_accepted_only_by_that_option_and_with_proof_of_its_key() {
    let (ca, junk) = (Pki::new("ca"), Pki::new("junk"));
    let tls = ClientTls::new(Roots::default()).danger_accept_any_certificate(true);
    for outcome in outcomes(&tls, &junk, "other.test") {
        assert!(outcome.is_established());
        assert!(outcome.unverified);
        let step = TlsStep::AcceptedUnverified { problem: None };
        assert!(outcome.client_steps.contains(&step));
    }
    // A certificate with somebody else's key.
    let (one, two) = (ca.leaf(&["a.test"]).issue(), ca.leaf(&["a.test"]).issue());
    let stolen = CertifiedKey::new(certified(&one).cert, certified(&two).key);
    let configs = tls.build(&env()).unwrap();
    for version in VERSIONS {
        let server = ServerConfig::builder_with_provider(env().provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(stolen.clone())));
        let server = Server::Theirs(Arc::new(server));
        let outcome = handshake(&configs, names("a.test"), &server);
        assert_eq!(problem(&outcome), CertificateProblem::BadSignature);
        let step = TlsStep::VerificationFailed(CertificateProblem::BadSignature);
        assert_eq!(outcome.client_steps.last(), Some(&step));
    }
}

#[test]
fn one_certificate_can_be_pinned_in_place_of_roots() {
    let (mine, other) = (Pki::new("mine"), Pki::new("other"));
    let leaf = mine.leaf(&["a.test"]).issue();
    let pinned = leaf.leaf_der().to_vec();
    let tls = ClientTls::new(Roots::default())
        .danger_accept_any_certificate(true)
        .after_verification(move |peer| {
            assert!(!peer.is_verified());
            match peer.leaf() == pinned {
                true => Ok(()),
                false => Err(Refused::new("another certificate")),
            }
        });
    for outcome in outcomes(&tls, &other, "a.test") {
        assert_eq!(outcome.client, Err(REFUSED));
    }
    let configs = tls.build(&env()).unwrap();
    let server = Server::Theirs(their_server(&leaf, &version::TLS13));
    assert!(handshake(&configs, names("a.test"), &server).is_established());
}

#[test]
fn nothing_is_resumed_where_servers_may_pass_unverified() {
    let pki = Pki::new("ca");
    let leaf = pki.leaf(&["a.test"]).issue();
    let safe = client(&pki);
    for (tls, resumes) in [
        (safe.clone(), true),
        (safe.clone().sessions(0), false),
        (safe.clone().danger_allow_override(true), false),
        (safe.clone().danger_no_hostname_check(true), false),
        (safe.danger_accept_any_certificate(true), false),
    ] {
        let configs = tls.build(&env()).unwrap();
        let server = Server::Theirs(their_server(&leaf, &version::TLS13));
        handshake(&configs, names("a.test"), &server);
        let second = handshake(&configs, names("a.test"), &server);
        assert_eq!(second.kind == Some(HandshakeKind::Resumed), resumes);
    }
}

#[test]
fn a_server_refuses_good_clients_by_its_own_check_and_lets_no_bad_one_in() {
    let (ca, clients, junk) = (Pki::new("ca"), Pki::new("clients"), Pki::new("junk"));
    let roots = Roots::from_pem(clients.ca_pem()).unwrap();
    let trust = ClientTrust::new(roots).after_verification(|peer| match peer.common_name() {
        Some("good") => Ok(()),
        Some("panic") => panic!("of the test"),
        other => Err(Refused::new(format!("{other:?} is not on the list"))),
    });
    let tls = ServerTls::new(identity(&ca.leaf(&["a.test"]).issue()));
    for auth in [
        ClientAuth::Required(trust.clone()),
        ClientAuth::Optional(trust),
    ] {
        let configs = tls.clone().client_auth(auth).build(&env()).unwrap();
        for version in VERSIONS {
            let enter = |issuer: &Pki, name: &str| {
                let leaf = issuer.leaf(&["device"]).common_name(name).issue();
                let client = their_client(&ca, Some(&leaf), version);
                run(connect(&client, "a.test"), &Server::Ours(&configs))
            };
            assert!(enter(&clients, "good").is_established());
            for (name, reason) in [
                ("bad", "Some(\"bad\") is not on the list"),
                ("panic", "the check after verification panicked"),
            ] {
                let outcome = enter(&clients, name);
                assert_eq!(outcome.server, Err(REFUSED));
                assert_eq!(outcome.client, Err(DENIED));
                let step = TlsStep::Refused(reason.into());
                assert_eq!(outcome.server_steps.last(), Some(&step));
            }
            let outcome = enter(&junk, "good");
            let error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
            assert_eq!(outcome.server, Err(error));
        }
    }
}

#[test]
fn a_client_shows_its_certificate_only_when_asked() {
    let (ca, clients) = (Pki::new("ca"), Pki::new("clients"));
    let own = clients.intermediate("between").leaf(&["device"]).issue();
    let trust = ClientTrust::new(Roots::from_pem(clients.ca_pem()).unwrap());
    let server = ServerTls::new(identity(&ca.leaf(&["a.test"]).issue()));
    let asking = server.clone().client_auth(ClientAuth::Optional(trust));
    let (server, asking) = (server.build(&env()).unwrap(), asking.build(&env()).unwrap());
    let with = client(&ca).identity(identity(&own)).build(&env()).unwrap();
    let without = client(&ca).build(&env()).unwrap();
    let (received, verified) = (TlsStep::CertificateReceived { count: 1 }, TlsStep::Verified);
    let outcome = handshake(&with, names("a.test"), &Server::Ours(&server));
    assert_eq!(outcome.client_steps, [received.clone(), verified.clone()]);
    for (client, count) in [(with, 2), (without, 0)] {
        let outcome = handshake(&client, names("a.test"), &Server::Ours(&asking));
        let expected = [
            TlsStep::CertificateRequested,
            TlsStep::CertificateSent { count },
            received.clone(),
            verified.clone(),
        ];
        for step in &expected {
            assert!(outcome.client_steps.contains(step), "{step:?}");
        }
        assert_eq!(outcome.client_steps.len(), expected.len());
        let chain = outcome.client_chain.map_or(0, |chain| chain.len());
        assert_eq!(chain, count);
    }
}
