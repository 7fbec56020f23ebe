//! Several vhosts on one TLS listener: which one a client gets, and that it stays with it.

use wsloop::tls::{Alert, ChosenBy, ClientAuth, ClientTls, ClientTrust, Sni, TlsFailure, TlsStep};
use wsloop::{
    ClientConnectInfo, ListenConfig, NamePolicy, PlaintextPolicy, Side, VhostConfig, VhostId,
};

use crate::lab::{Lab, Probe, TlsStranger, clear_alert, roots, rustls_client, server_tls, url};
use crate::support::{addr, request};
use crate::testpki::Pki;

const POLICIES: [NamePolicy; 3] = [
    NamePolicy::ServeDefault,
    NamePolicy::RefuseUnknown,
    NamePolicy::RefuseUnknownAndMissing,
];

/// The default first. Each has its own certificate, for its names only.
const VHOSTS: [(&str, &[&str]); 4] = [
    ("default.test", &["default.test"]),
    ("a.test", &["a.test", "also-a.test"]),
    ("*.w.test", &["*.w.test", "w.test"]),
    ("x.w.test", &["x.w.test"]),
];

struct Site {
    lab: Lab,
    pki: Pki,
    client: VhostId,
}

impl Site {
    fn new(policy: NamePolicy) -> Self {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        for (name, covered) in VHOSTS {
            let listen = ListenConfig::new(addr()).tls(PlaintextPolicy::Serve);
            let config = VhostConfig::new(name)
                .listen(listen.names(policy))
                .server_tls(server_tls(&pki, covered))
                .trace_tls()
                .protocol("p", Probe::echo(name, &lab.journal));
            let config = match name {
                "a.test" => config.name("also-a.test"),
                _ => config,
            };
            lab.add(config);
        }
        let client = lab.client("client", ClientTls::new(roots(&pki)));
        Self { lab, pki, client }
    }

    fn dial(&mut self, sni: Option<&str>, verify: &str, host: &str) {
        let sni = sni.map_or(Sni::None, |name| Sni::Name(name.to_owned()));
        let info = ClientConnectInfo::from_url("wss://10.0.0.1:80/").unwrap();
        let info = info.sni(sni).verify_name(verify).host(host).unwrap();
        self.lab.connect(self.client, info);
    }

    /// The only vhost that was reached by a request.
    fn reached(&self) -> Option<&'static str> {
        let names = VHOSTS.map(|(name, _)| name);
        let mut reached = names
            .into_iter()
            .filter(|name| self.lab.journal.filters(name) > 0);
        let first = reached.next();
        assert_eq!(reached.next(), None);
        first
    }
}

#[test]
fn a_name_leads_to_its_vhost_and_its_certificate() {
    use ChosenBy as By;
    for policy in POLICIES {
        for (sni, verify, vhost, by) in [
            ("a.test", "a.test", "a.test", By::ExactName),
            ("A.Test", "a.test", "a.test", By::ExactName),
            ("also-a.test", "a.test", "a.test", By::ExactName),
            ("y.w.test", "y.w.test", "*.w.test", By::WildcardName),
            ("x.w.test", "x.w.test", "x.w.test", By::ExactName),
            ("z.y.w.test", "w.test", "*.w.test", By::WildcardName),
            (
                "default.test",
                "default.test",
                "default.test",
                By::ExactName,
            ),
        ] {
            let mut site = Site::new(policy);
            site.dial(Some(sni), verify, sni);
            assert_eq!(site.reached(), Some(vhost), "{sni}");
            assert_eq!(site.lab.journal.opens("client"), 1);
            let report = site.lab.journal.report(Side::Server).unwrap();
            let chosen = report.trace.steps().find_map(|(_, step)| match step {
                TlsStep::VhostChosen { vhost, by } => Some((vhost.to_string(), *by)),
                _ => None,
            });
            assert_eq!(chosen, Some((vhost.to_owned(), by)), "{sni}");
            let open = site.lab.journal.open(vhost).unwrap();
            assert_eq!(open.vhost, report.vhost);
            let said = open.info.unwrap().server_name;
            assert_eq!(said, Some(sni.to_ascii_lowercase()));
        }
    }
}

#[test]
fn tl_07_unknown_and_missing_names_are_served_or_refused_as_the_listener_says() {
    for policy in POLICIES {
        for sni in [Some("unknown.test"), Some("w.test"), Some("test"), None] {
            let refused = match sni {
                Some(_) => policy != NamePolicy::ServeDefault,
                None => policy == NamePolicy::RefuseUnknownAndMissing,
            };
            let mut site = Site::new(policy);
            site.dial(sni, "default.test", "default.test");
            let failure = TlsFailure::UnrecognizedName {
                name: sni.map(Into::into),
            };
            if !refused {
                assert_eq!(site.reached(), Some("default.test"), "{policy:?} {sni:?}");
                let report = site.lab.journal.report(Side::Server).unwrap();
                let by = match sni {
                    Some(_) => ChosenBy::DefaultForUnknownName,
                    None => ChosenBy::DefaultForNoName,
                };
                let vhost = "default.test".into();
                let step = TlsStep::VhostChosen { vhost, by };
                assert!(crate::lab::has_step(&report.trace, |found| *found == step));
                continue;
            }
            assert_eq!(site.reached(), None, "{policy:?} {sni:?}");
            assert_eq!(site.lab.journal.refused().unwrap().tls, Some(failure));
            let failed = site.lab.journal.connect_error().unwrap();
            let alert = TlsFailure::PeerAlert(Alert::UNRECOGNIZED_NAME);
            assert_eq!(failed.tls, Some(alert), "{}", failed.text);
            assert!(failed.text.contains("unrecognized_name"), "{}", failed.text);
        }
    }
}

#[test]
fn the_alert_about_an_unknown_name_is_on_the_wire_and_then_the_end() {
    let mut site = Site::new(NamePolicy::RefuseUnknown);
    let config = rustls_client(&site.pki, None, &[&rustls::version::TLS13]);
    let peer = site.lab.stranger();
    let mut stranger = TlsStranger::new(peer, config, "unknown.test");
    let hello = stranger.flight();
    stranger.peer.write(&hello).unwrap();
    site.lab.turn();
    let answer = stranger.peer.read();
    assert_eq!(answer.len(), 7, "an alert and nothing else");
    assert_eq!(clear_alert(&answer), Some(Alert::UNRECOGNIZED_NAME));
    assert!(stranger.peer.ended() && !stranger.peer.was_reset());
}

#[test]
fn tl_07_the_default_vhost_is_not_a_way_around_required_certificates() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let trust = ClientTrust::new(roots(&pki));
    let strict = server_tls(&pki, &["a.test"]).client_auth(ClientAuth::Required(trust));
    lab.server("a.test", strict);
    lab.server("open.test", server_tls(&pki, &["open.test"]));
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    for sni in [
        Sni::None,
        Sni::Name("unknown.test".into()),
        Sni::Name("a.test".into()),
    ] {
        let info = ClientConnectInfo::from_url(&url("a.test")).unwrap();
        lab.connect(client, info.sni(sni));
        let refused = lab.journal.refused().unwrap();
        assert_eq!(refused.tls, Some(TlsFailure::NoCertificate));
    }
    assert_eq!(lab.journal.filters("a.test"), 0);
    // Nor is the open vhost, whatever its client says afterwards.
    let info = ClientConnectInfo::from_url(&url("open.test")).unwrap();
    lab.connect(client, info.host("a.test").unwrap());
    assert_eq!(lab.journal.refused().unwrap().kind, "Misdirected");
    assert_eq!(
        lab.journal.filters("a.test") + lab.journal.opens("client"),
        0
    );
}

#[test]
fn a_request_for_another_vhost_than_the_handshake_gets_421_and_reaches_neither() {
    for (sni, verify, host) in [
        (Some("a.test"), "a.test", "default.test"),
        (Some("a.test"), "a.test", "x.w.test"),
        (Some("a.test"), "a.test", "y.w.test"),
        (Some("a.test"), "a.test", "X.W.TEST:80"),
        (Some("default.test"), "default.test", "a.test"),
        (Some("x.w.test"), "x.w.test", "y.w.test"),
        (Some("y.w.test"), "y.w.test", "x.w.test"),
        // RFC 6066 section 3 or not: who says no name has the default vhost, and only that.
        (None, "default.test", "a.test"),
        (None, "default.test", "y.w.test"),
        (Some("unknown.test"), "default.test", "a.test"),
    ] {
        let mut site = Site::new(NamePolicy::ServeDefault);
        site.dial(sni, verify, host);
        assert_eq!(site.reached(), None, "{sni:?} {host}");
        let refused = site.lab.journal.refused().unwrap();
        assert_eq!(refused.kind, "Misdirected");
        let failed = site.lab.journal.connect_error().unwrap();
        assert!(failed.text.contains("421"), "{}", failed.text);
        assert_eq!(site.lab.journal.opens("client"), 0);
    }
}

#[test]
fn other_ways_to_write_the_same_host_are_not_another_vhost() {
    for (sni, verify, host, vhost) in [
        (Some("a.test"), "a.test", "A.TEST", "a.test"),
        (Some("a.test"), "a.test", "a.test:80", "a.test"),
        (Some("a.test"), "a.test", "a.test.", "a.test"),
        (Some("a.test"), "a.test", "also-a.test", "a.test"),
        (Some("y.w.test"), "y.w.test", "z.w.test", "*.w.test"),
        (None, "default.test", "default.test", "default.test"),
        (None, "default.test", "10.0.0.1", "default.test"),
        (
            Some("unknown.test"),
            "default.test",
            "unknown.test",
            "default.test",
        ),
    ] {
        let mut site = Site::new(NamePolicy::ServeDefault);
        site.dial(sni, verify, host);
        assert_eq!(site.reached(), Some(vhost), "{sni:?} {host}");
    }
}

#[test]
fn a_host_that_no_vhost_is_named_for_stays_with_the_vhost_of_the_handshake() {
    let mut site = Site::new(NamePolicy::ServeDefault);
    site.dial(Some("a.test"), "a.test", "unknown.test");
    assert_eq!(site.reached(), Some("a.test"));
}

#[test]
fn plain_connections_on_the_same_port_are_led_by_host_alone() {
    let mut site = Site::new(NamePolicy::RefuseUnknownAndMissing);
    for (host, vhost) in [
        ("a.test", "a.test"),
        ("q.w.test", "*.w.test"),
        ("b.test", "default.test"),
    ] {
        let peer = site.lab.stranger();
        let text = String::from_utf8(request("/")).unwrap();
        let text = text.replace("Host: a.test", &format!("Host: {host}"));
        peer.write(text.as_bytes()).unwrap();
        site.lab.turn();
        assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
        let open = site.lab.journal.open(vhost).unwrap();
        assert!(!open.is_tls);
    }
}

#[test]
fn a_session_of_one_vhost_is_not_resumed_on_another() {
    let mut site = Site::new(NamePolicy::ServeDefault);
    // Sessions are kept by the name that is sent; the names of one vhost share nothing with those
    // of another even if the client thinks they do.
    for (name, expected) in [
        ("a.test", "full handshake"),
        ("a.test", "resumed"),
        ("x.w.test", "full handshake"),
        ("x.w.test", "resumed"),
    ] {
        site.dial(Some(name), name, name);
        let open = site.lab.journal.open(name).unwrap();
        assert_eq!(open.info.unwrap().handshake.to_string(), expected, "{name}");
    }
}

#[test]
fn tl_12_no_application_protocol_in_common_is_a_reason_of_its_own() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.server("a.test", server_tls(&pki, &["a.test"]));
    let tls = ClientTls::new(roots(&pki));
    let client = lab.client("client", tls.alpn(["h2", "other"]));
    lab.dial(client, &url("a.test"));
    let refused = lab.journal.refused().unwrap();
    assert_eq!(refused.tls, Some(TlsFailure::NoApplicationProtocol));
    let failed = lab.journal.connect_error().unwrap();
    let alert = TlsFailure::PeerAlert(Alert::NO_APPLICATION_PROTOCOL);
    assert_eq!(failed.tls, Some(alert));
    let none: [&str; 0] = [];
    for (alpn, agreed) in [
        (vec![], None),
        (vec!["h2", "http/1.1"], Some(b"http/1.1".to_vec())),
    ] {
        let tls =
            ClientTls::new(roots(&pki)).alpn(if alpn.is_empty() { none.to_vec() } else { alpn });
        let client = lab.client("client", tls);
        lab.dial(client, &url("a.test"));
        for side in ["a.test", "client"] {
            assert_eq!(lab.journal.open(side).unwrap().info.unwrap().alpn, agreed);
        }
    }
}

/// TLS 1.2 has the choice in the clear, so that it can be changed on the way.
#[test]
fn tl_12_a_protocol_that_was_not_offered_is_refused() {
    use rustls::version::TLS12;
    for offered in [
        vec![b"http/1.1".to_vec()],
        vec![b"http/1.1".to_vec(), b"h2".to_vec()],
    ] {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        lab.net.name("a.test", [addr().ip()]);
        let listener = lab.net.listen(addr()).unwrap();
        let client = lab.client("client", ClientTls::new(roots(&pki)).alpn(offered));
        lab.dial(client, &url("a.test"));
        let mut config = crate::lab::rustls_server(&pki.leaf(&["a.test"]).issue(), &[&TLS12]);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut stranger = TlsStranger::server(listener.accept().unwrap(), config);
        stranger.take().unwrap();
        let mut flight = stranger.flight();
        let chosen = b"http/1.1";
        let at = flight
            .windows(chosen.len())
            .position(|window| window == chosen);
        let at = at.unwrap();
        flight[at..at + chosen.len()].copy_from_slice(b"http/1.0");
        stranger.peer.write(&flight).unwrap();
        lab.turn();
        let failed = lab.journal.connect_error().unwrap();
        let alert = Some(Alert::ILLEGAL_PARAMETER);
        assert!(
            matches!(&failed.tls, Some(TlsFailure::PeerMisbehaved { alert: sent, .. }) if *sent == alert),
            "{}",
            failed.text
        );
        assert_eq!(clear_alert(&stranger.peer.read()), alert);
        assert_eq!(lab.context.connections(), 0);
    }
}
