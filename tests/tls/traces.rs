//! Traces: what the observer is told of a handshake, and what a failed one keeps.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use wsloop::tls::{
    Alert, CertificateProblem, ClientAuth, ClientTls, ClientTrust, TlsFailure, TlsHandshake,
    TlsStep, TlsVersion,
};
use wsloop::{Side, VhostConfig};

use crate::lab::{Event, Lab, Probe, identity, roots, rustls_client, server_tls, steps, url};
use crate::support::addr;
use crate::testpki::Pki;

struct Site {
    lab: Lab,
    pki: Pki,
}

impl Site {
    fn new(auth: fn(ClientTrust) -> ClientAuth) -> Self {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        let trust = ClientTrust::new(roots(&pki));
        lab.server(
            "a.test",
            server_tls(&pki, &["a.test"]).client_auth(auth(trust)),
        );
        Self { lab, pki }
    }

    fn own(&self, name: &str) -> ClientTls {
        ClientTls::new(roots(&self.pki)).identity(identity(&self.pki.leaf(&[name]).issue()))
    }

    /// The steps of both sides.
    fn dial(&mut self, tls: ClientTls) -> (Vec<String>, Vec<String>) {
        let client = self.lab.client("client", tls);
        self.lab.dial(client, &url("a.test"));
        self.steps()
    }

    fn steps(&self) -> (Vec<String>, Vec<String>) {
        let of = |side| steps(&self.lab.journal.report(side).unwrap().trace);
        (of(Side::Server), of(Side::Client))
    }
}

#[test]
fn tl_23_a_full_handshake_without_client_certificates() {
    let mut site = Site::new(|_| ClientAuth::None);
    let tls = ClientTls::new(roots(&site.pki));
    let (server, client) = site.dial(tls);
    assert_eq!(server, ["HelloReceived", "VhostChosen", "Established"]);
    assert_eq!(
        client,
        [
            "HelloSent",
            "CertificateReceived",
            "Verified",
            "Established"
        ]
    );
}

#[test]
fn tl_23_a_full_handshake_with_both_certificates() {
    let mut site = Site::new(ClientAuth::Required);
    let (server, client) = site.dial(site.own("client"));
    let expected = [
        "HelloReceived",
        "VhostChosen",
        "CertificateRequested",
        "CertificateReceived",
        "Verified",
        "Established",
    ];
    assert_eq!(server, expected);
    let expected = [
        "HelloSent",
        "CertificateReceived",
        "Verified",
        "CertificateRequested",
        "CertificateSent",
        "Established",
    ];
    assert_eq!(client.len(), expected.len(), "{client:?}");
    for step in expected {
        assert!(
            client.iter().any(|found| found == step),
            "{step}: {client:?}"
        );
    }
    assert_eq!(client.first().unwrap(), "HelloSent");
    assert_eq!(client.last().unwrap(), "Established");
}

#[test]
fn tl_23_an_optional_certificate_that_nobody_has_is_requested_and_missing() {
    let mut site = Site::new(ClientAuth::Optional);
    let tls = ClientTls::new(roots(&site.pki));
    let client = site.lab.client("client", tls);
    site.lab.dial(client, &url("a.test"));
    let report = site.lab.journal.report(Side::Server).unwrap();
    let has = |step: TlsStep| crate::lab::has_step(&report.trace, |found| *found == step);
    assert!(has(TlsStep::CertificateRequested));
    assert!(has(TlsStep::CertificateReceived { count: 0 }));
    assert!(!has(TlsStep::Verified));
}

#[test]
fn tl_23_a_resumed_handshake_has_no_certificates_in_it() {
    let mut site = Site::new(ClientAuth::Required);
    let tls = site.own("client");
    let client = site.lab.client("client", tls);
    site.lab.dial(client, &url("a.test"));
    site.lab.journal.take();
    site.lab.dial(client, &url("a.test"));
    let server = site.lab.journal.report(Side::Server).unwrap();
    let client = site.lab.journal.report(Side::Client).unwrap();
    assert_eq!(
        steps(&server.trace),
        ["HelloReceived", "VhostChosen", "Established"]
    );
    assert_eq!(steps(&client.trace), ["HelloSent", "Established"]);
    for report in [&server, &client] {
        let info = report.info.as_ref().unwrap();
        assert_eq!(info.handshake, TlsHandshake::Resumed);
        assert_eq!(info.version, TlsVersion::TLS_1_3);
        assert!(info.group.is_some() && !info.suite.is_empty());
    }
    // Who it is has not been forgotten.
    let open = site.lab.journal.open("a.test").unwrap();
    assert_eq!(open.peer_name(), Some("client"));
}

#[test]
fn tl_23_the_retry_for_another_group_is_in_the_trace() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    // A server that knows one group only, and not the one that clients begin with.
    let mut provider = (*crate::lab::provider()).clone();
    provider
        .kx_groups
        .retain(|group| group.name() == rustls::NamedGroup::secp384r1);
    let (chain, key) = crate::lab::rustls_identity(&pki.leaf(&["a.test"]).issue());
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    lab.server("a.test", wsloop::tls::ServerTls::from_rustls(config.into()));
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    assert_eq!(lab.journal.texts("client"), ["hello"]);
    for side in [Side::Server, Side::Client] {
        let report = lab.journal.report(side).unwrap();
        let steps = steps(&report.trace);
        assert!(
            steps.iter().any(|step| step == "HelloRetryRequest"),
            "{steps:?}"
        );
        let info = report.info.unwrap();
        assert_eq!(info.handshake, TlsHandshake::FullWithRetry);
        assert_eq!(info.group, Some("secp384r1"));
    }
}

#[test]
fn tl_23_a_failed_handshake_keeps_its_steps_in_the_error() {
    let mut site = Site::new(ClientAuth::Required);
    let stranger = Pki::new("another ca");
    let tls = ClientTls::new(roots(&site.pki)).identity(identity(&stranger.leaf(&["x"]).issue()));
    let client = site.lab.client("client", tls);
    site.lab.dial(client, &url("a.test"));
    let refused = site.lab.journal.refused().unwrap();
    let trace = refused.trace.unwrap();
    let server = steps(&trace);
    let expected = [
        "HelloReceived",
        "VhostChosen",
        "CertificateRequested",
        "CertificateReceived",
        "VerificationFailed",
        "AlertSent",
        "Failed",
    ];
    assert_eq!(server, expected, "{trace}");
    let problem = CertificateProblem::UnknownIssuer;
    assert!(crate::lab::has_step(&trace, |step| *step
        == TlsStep::VerificationFailed(problem.clone())));
    assert!(trace.to_string().contains("unknown_ca"), "{trace}");

    let failed = site.lab.journal.connect_error().unwrap();
    let trace = failed.trace.unwrap();
    let client = steps(&trace);
    // The client thinks that it is through, and then is told.
    let tail = &client[client.len() - 3..];
    assert_eq!(tail, ["Established", "AlertReceived", "Failed"], "{trace}");
    assert!(crate::lab::has_step(&trace, |step| *step
        == TlsStep::CertificateSent { count: 1 }));
}

#[test]
fn tl_23_a_server_that_is_not_accepted_is_told_so() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.server("a.test", server_tls(&Pki::new("another ca"), &["a.test"]));
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    let failed = lab.journal.connect_error().unwrap();
    let problem = CertificateProblem::UnknownIssuer;
    assert_eq!(failed.tls, Some(TlsFailure::Certificate(problem)));
    let expected = [
        "HelloSent",
        "CertificateReceived",
        "VerificationFailed",
        "AlertSent",
        "Failed",
    ];
    assert_eq!(steps(&failed.trace.unwrap()), expected);
    let refused = lab.journal.refused().unwrap();
    assert_eq!(refused.tls, Some(TlsFailure::PeerAlert(Alert::UNKNOWN_CA)));
    let expected = ["HelloReceived", "VhostChosen", "AlertReceived", "Failed"];
    assert_eq!(steps(&refused.trace.unwrap()), expected);
    // The observer is told once, with the failure.
    let reports = lab.journal.pick(|event| match event {
        Event::Report(report) => Some((report.side, report.failure.is_some())),
        _ => None,
    });
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports.iter().all(|(_, failed)| *failed));
}

#[test]
fn the_times_of_a_trace_are_those_of_the_network() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.server("a.test", server_tls(&pki, &["a.test"]));
    let peer = lab.stranger();
    let config = rustls_client(&pki, None, &[&TLS12]);
    let mut stranger = crate::lab::TlsStranger::new(peer, config, "a.test");
    let hello = stranger.flight();
    let (first, second) = hello.split_at(50);
    stranger.peer.write(first).unwrap();
    lab.turn();
    lab.pass(Duration::from_secs(2));
    stranger.peer.write(second).unwrap();
    lab.turn();
    lab.pass(Duration::from_secs(1));
    stranger.exchange(&mut lab).unwrap();
    let report = lab.journal.report(Side::Server).unwrap();
    let at = |name: &str| {
        let mut steps = report.trace.steps().zip(steps(&report.trace));
        let ((at, _), _) = steps.find(|(_, found)| found == name).unwrap();
        at
    };
    assert_eq!(at("HelloReceived"), Duration::from_secs(2));
    assert_eq!(at("Established"), Duration::from_secs(3));
}

#[test]
fn nobody_is_told_who_does_not_want_to_be() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.net.name("a.test", [addr().ip()]);
    let listen = wsloop::ListenConfig::new(addr()).tls(wsloop::PlaintextPolicy::Reject);
    lab.add(
        VhostConfig::new("a.test")
            .listen(listen)
            .server_tls(server_tls(&pki, &["a.test"]))
            .protocol("p", Probe::echo("a.test", &lab.journal)),
    );
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    assert!(lab.journal.report(Side::Client).is_some());
    assert!(lab.journal.report(Side::Server).is_none());
}
