//! Peers that stop in the middle of a handshake: whoever waits is told how far it came.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, TlsFailure, TlsStage};
use wsloop::{ClientConnectInfo, ClientTimeouts, DeadlineStage, PlaintextPolicy, Side};

use crate::lab::{Event, Lab, TlsStranger, roots, rustls_client, rustls_server, server_tls, steps};
use crate::lab::{Reported, url};
use crate::support::addr;
use crate::testpki::Pki;

const AFTER_THE_DEADLINE: Duration = Duration::from_secs(11);

fn stage(failure: Option<&TlsFailure>) -> (TlsStage, DeadlineStage) {
    match failure {
        Some(TlsFailure::Timeout { deadline, stage }) => (*stage, deadline.stage),
        other => panic!("{other:?}"),
    }
}

/// The one report of that side, which ends with the failure.
fn only_report(lab: &Lab, side: Side) -> Reported {
    let report = lab.journal.report(side).expect("a report");
    assert!(lab.journal.report(side).is_none(), "told twice");
    assert_eq!(steps(&report.trace).last().unwrap(), "Failed");
    report
}

#[test]
fn tl_02_a_client_that_goes_silent_is_told_with_its_steps_and_reported() {
    for (version, far, expected, trace) in [
        (&TLS13, 0, TlsStage::BeforeHello, &["Failed"][..]),
        (&TLS13, 1, TlsStage::ClientHello, &["Failed"]),
        (&TLS12, 60, TlsStage::ClientHello, &["Failed"]),
        (
            &TLS13,
            usize::MAX,
            TlsStage::ClientFlight,
            &[
                "HelloReceived",
                "VhostChosen",
                "CertificateRequested",
                "Failed",
            ],
        ),
        (
            &TLS12,
            usize::MAX,
            TlsStage::ClientFlight,
            &[
                "HelloReceived",
                "VhostChosen",
                "CertificateRequested",
                "Failed",
            ],
        ),
    ] {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        let trust = ClientTrust::new(roots(&pki));
        let tls = server_tls(&pki, &["a.test"]).client_auth(ClientAuth::Required(trust));
        lab.server("a.test", tls);
        let peer = lab.stranger();
        let mut stranger = TlsStranger::new(peer, rustls_client(&pki, None, &[version]), "a.test");
        let mut hello = stranger.flight();
        hello.truncate(far);
        stranger.peer.write(&hello).unwrap();
        lab.pass(AFTER_THE_DEADLINE);
        let refused = lab.journal.refused().expect("nobody waits for ever");
        let awaited = match far {
            0 => DeadlineStage::Head,
            _ => DeadlineStage::Tls,
        };
        assert_eq!(stage(refused.tls.as_ref()), (expected, awaited));
        assert_eq!(steps(&refused.trace.unwrap()), trace);
        let report = only_report(&lab, Side::Server);
        assert_eq!(steps(&report.trace), trace);
        assert_eq!(report.failure, refused.tls);
        let (at, _) = report.trace.steps().last().unwrap();
        assert!(
            at >= Duration::from_secs(10) && at <= AFTER_THE_DEADLINE,
            "{at:?}"
        );
        assert_eq!(lab.context.connections(), 0);
        stranger.peer.read();
        assert!(stranger.peer.ended() || stranger.peer.was_reset());
    }
}

/// On a port that serves both, silence says nothing about TLS.
#[test]
fn silence_on_a_port_for_both_is_no_handshake() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let tls = server_tls(&pki, &["a.test"]);
    let (config, _) = lab.server_config("a.test", tls, PlaintextPolicy::Serve);
    lab.add(config);
    let _peer = lab.stranger();
    lab.pass(AFTER_THE_DEADLINE);
    let refused = lab.journal.refused().unwrap();
    assert_eq!((refused.kind.as_str(), refused.tls), ("Timeout", None));
    assert!(lab.journal.report(Side::Server).is_none());
}

#[test]
fn tl_02_a_server_that_goes_silent_is_told_with_its_steps_and_reported() {
    for (version, far, expected, trace) in [
        (
            &TLS13,
            0,
            TlsStage::ServerHello,
            &["HelloSent", "Failed"][..],
        ),
        (&TLS12, 1, TlsStage::ServerHello, &["HelloSent", "Failed"]),
        (&TLS12, 20, TlsStage::ServerHello, &["HelloSent", "Failed"]),
        (
            &TLS12,
            usize::MAX,
            TlsStage::ServerFinished,
            &["HelloSent", "CertificateReceived", "Verified", "Failed"],
        ),
    ] {
        for total in [None, Some(Duration::from_secs(3))] {
            let pki = Pki::new("ca");
            let mut lab = Lab::new();
            lab.net.name("a.test", [addr().ip()]);
            let listener = lab.net.listen(addr()).unwrap();
            let client = lab.client("client", ClientTls::new(roots(&pki)));
            let mut timeouts = ClientTimeouts::default();
            timeouts.total = total;
            let info = ClientConnectInfo::from_url(&url("a.test")).unwrap();
            lab.connect(client, info.timeouts(timeouts).unwrap());
            let config = rustls_server(&pki.leaf(&["a.test"]).issue(), &[version]);
            let mut stranger = TlsStranger::server(listener.accept().unwrap(), config);
            stranger.take().unwrap();
            let mut flight = stranger.flight();
            flight.truncate(far);
            stranger.peer.write(&flight).unwrap();
            lab.pass(AFTER_THE_DEADLINE);
            let failed = lab.journal.connect_error().expect("nobody waits for ever");
            let awaited = match total {
                None => DeadlineStage::Tls,
                Some(_) => DeadlineStage::Connect,
            };
            assert_eq!(stage(failed.tls.as_ref()), (expected, awaited));
            assert!(failed.is_timeout, "{}", failed.text);
            assert_eq!(steps(&failed.trace.unwrap()), trace, "{}", failed.text);
            let report = only_report(&lab, Side::Client);
            assert_eq!(report.failure, failed.tls);
            assert_eq!(lab.context.connections(), 0);
        }
    }
}

/// A write that fails is the end of a handshake like one of reading.
#[test]
fn a_handshake_that_cannot_be_written_keeps_its_steps() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.net.name("a.test", [addr().ip()]);
    let _listener = lab.net.listen(addr()).unwrap();
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    let nth = lab.net.calls(wsloop::sim::Call::Write) + 1;
    let kind = std::io::ErrorKind::BrokenPipe;
    lab.net.fail(wsloop::sim::Call::Write, nth, kind);
    lab.dial(client, &url("a.test"));
    let failed = lab.journal.connect_error().unwrap();
    let stage = TlsStage::ServerHello;
    assert_eq!(failed.tls, Some(TlsFailure::Lost { stage, kind }));
    assert_eq!(steps(&failed.trace.unwrap()), ["HelloSent", "Failed"]);
    assert_eq!(
        lab.journal.count(|event| matches!(event, Event::Report(_))),
        1
    );
}
