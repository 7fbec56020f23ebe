//! One port for TLS and plain connections: the first byte decides, and nothing else.

use std::time::Duration;

use wsloop::sim::SimPeer;
use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, ServerTls, TlsFailure};
use wsloop::{
    ClientConnectInfo, DeadlineStage, ListenConfig, PlaintextPolicy, Timeouts, VhostConfig,
    VhostError, VhostId,
};

use crate::lab::{Event, Lab, Probe, TlsStranger, roots, rustls_client, server_tls, url};
use crate::support::{addr, masked, plain, request};
use crate::testpki::Pki;

const POLICIES: [PlaintextPolicy; 3] = [
    PlaintextPolicy::Reject,
    PlaintextPolicy::Serve,
    PlaintextPolicy::RedirectToHttps,
];

struct Site {
    lab: Lab,
    pki: Pki,
    vhost: VhostId,
}

impl Site {
    fn new(policy: PlaintextPolicy) -> Self {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        let (config, _) = lab.server_config("a.test", server_tls(&pki, &["a.test"]), policy);
        let vhost = lab.add(config.page("/", "text/plain", "a page"));
        Self { lab, pki, vhost }
    }

    /// What a stranger is answered who sends `bytes`.
    fn answer(&mut self, bytes: &[u8]) -> (String, SimPeer) {
        let peer = self.lab.stranger();
        peer.write(bytes).unwrap();
        self.lab.turn();
        let answer = peer.read();
        (String::from_utf8_lossy(&answer).into_owned(), peer)
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").into_bytes()
}

/// Status line, body and whether the body is as long as the response says.
fn response(text: &str) -> (u16, String, bool) {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let says = format!("\r\nContent-Length: {}\r\n", body.len());
    let whole = format!("{head}\r\n").contains(&says);
    (status, body.to_owned(), whole)
}

#[test]
fn dp_01_the_first_byte_decides() {
    for policy in POLICIES {
        for first in [0x16_u8, b'G', b'g', 0x80, 0x00, b'\n', 0xff] {
            println!("{policy:?} {first:#x}");
            let mut site = Site::new(policy);
            let mut bytes = get("/");
            bytes[0] = first;
            let (answer, peer) = site.answer(&bytes);
            let refused = site.lab.journal.refused();
            if first == 0x16 {
                // A record that is no ClientHello: TLS says what it says.
                let refused = refused.unwrap();
                assert!(refused.tls.is_some(), "{}", refused.text);
                assert!(!answer.contains("HTTP"), "{answer:?}");
            } else if first == b'G' {
                let (status, _, whole) = response(&answer);
                assert!(whole, "{answer:?}");
                let expected = match policy {
                    PlaintextPolicy::Serve => 200,
                    PlaintextPolicy::RedirectToHttps => 308,
                    _ => 400,
                };
                assert_eq!(status, expected);
                let kind = refused.map(|refused| refused.kind);
                let expected = (policy == PlaintextPolicy::Reject).then_some("Plaintext");
                assert_eq!(kind.as_deref(), expected);
            } else if first == b'g' && policy == PlaintextPolicy::Serve {
                // A method that nobody knows, and HTTP all the same.
                assert_eq!(response(&answer).0, 405);
                assert!(refused.is_none());
            } else {
                assert_eq!(
                    site.lab
                        .journal
                        .count(|event| matches!(event, Event::Open(_))),
                    0
                );
                // A redirect is an answer, everything else is refused.
                let redirected = answer.starts_with("HTTP/1.1 308");
                assert_eq!(refused.is_none(), redirected, "{answer:?}");
                assert!(refused.is_none_or(|refused| !refused.text.is_empty()));
                if !answer.is_empty() {
                    let (status, _, whole) = response(&answer);
                    assert!(
                        whole && (400..500).contains(&status) || status == 308,
                        "{answer:?}"
                    );
                }
            }
            site.lab.pass(Duration::from_secs(60));
            assert!(peer.ended() || peer.was_reset());
            assert_eq!(site.lab.context.connections(), 0);
        }
    }
}

#[test]
fn dp_02_silence_ends_at_the_deadline_whatever_came_before() {
    for policy in POLICIES {
        for (sent, stage) in [
            (&b""[..], DeadlineStage::Head),
            (b"G", DeadlineStage::Head),
            (b"GET / HTTP/1.1\r\n", DeadlineStage::Head),
            (b"\x16", DeadlineStage::Tls),
            (b"\x16\x03\x01\x02", DeadlineStage::Tls),
        ] {
            let mut site = Site::new(policy);
            let (answer, peer) = site.answer(sent);
            assert_eq!(answer, "");
            site.lab.pass(Duration::from_secs(9));
            assert!(!peer.ended() && site.lab.journal.refused().is_none());
            site.lab.pass(Duration::from_secs(2));
            let refused = site.lab.journal.refused();
            let refused = refused.unwrap_or_else(|| panic!("{sent:?} is not refused"));
            assert_eq!(refused.deadline, Some(stage), "{sent:x?}: {}", refused.text);
            let answer = String::from_utf8_lossy(&peer.read()).into_owned();
            assert!(
                !sent.starts_with(b"\x16") || !answer.contains("HTTP"),
                "{answer:?}"
            );
            site.lab.pass(Duration::from_secs(10));
            assert!(peer.ended() || peer.was_reset());
            assert_eq!(site.lab.context.connections(), 0, "{sent:?}");
        }
    }
}

#[test]
fn tm_03_slow_bytes_do_not_extend_the_deadline_of_a_handshake() {
    let mut site = Site::new(PlaintextPolicy::Reject);
    let peer = site.lab.stranger();
    let config = rustls_client(&site.pki, None, &[&rustls::version::TLS13]);
    let mut stranger = TlsStranger::new(peer, config, "a.test");
    let hello = stranger.flight();
    for byte in &hello[..30] {
        if stranger.peer.write(&[*byte]).is_err() {
            break;
        }
        site.lab.pass(Duration::from_millis(500));
    }
    let refused = site.lab.journal.refused().unwrap();
    assert_eq!(
        refused.deadline,
        Some(DeadlineStage::Tls),
        "{}",
        refused.text
    );
    assert!(site.lab.net.elapsed() <= Duration::from_secs(15));
}

#[test]
fn the_deadline_of_a_handshake_can_be_set() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let mut timeouts = Timeouts::default();
    timeouts.tls = Duration::from_secs(2);
    let (config, _) = lab.server_config(
        "a.test",
        server_tls(&pki, &["a.test"]),
        PlaintextPolicy::Reject,
    );
    lab.add(config.timeouts(timeouts));
    let peer = lab.stranger();
    peer.write(b"\x16\x03").unwrap();
    lab.pass(Duration::from_millis(1500));
    assert!(lab.journal.refused().is_none());
    lab.pass(Duration::from_secs(1));
    let refused = lab.journal.refused().unwrap();
    assert_eq!(refused.deadline, Some(DeadlineStage::Tls));
}

#[test]
fn dp_05_a_redirect_is_a_whole_response_to_the_same_place() {
    let mut site = Site::new(PlaintextPolicy::RedirectToHttps);
    for (sent, location) in [
        (get("/"), "https://a.test:80/"),
        (get("/chat?a=b"), "https://a.test:80/chat?a=b"),
        (request("/chat"), "https://a.test:80/chat"),
        (
            b"HEAD /x HTTP/1.1\r\nHost: a.test:80\r\n\r\n".to_vec(),
            "https://a.test:80/x",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: b.test:99\r\n\r\n".to_vec(),
            "https://b.test:80/",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n".to_vec(),
            "https://[::1]:80/",
        ),
    ] {
        let (answer, peer) = site.answer(&sent);
        let (status, body, whole) = response(&answer);
        assert_eq!(
            (status, body.as_str(), whole),
            (308, "", true),
            "{answer:?}"
        );
        let line = format!("\r\nLocation: {location}\r\n");
        assert!(answer.contains(&line), "{answer:?}");
        site.lab.pass(Duration::from_millis(200));
        assert!(peer.ended());
        assert!(site.lab.journal.refused().is_none(), "a redirect is none");
    }
    assert_eq!(site.lab.journal.filters("a.test"), 0);
}

#[test]
fn dp_05_a_redirect_to_the_usual_port_does_not_name_it() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let listener = ListenConfig::new(usual()).tls(PlaintextPolicy::RedirectToHttps);
    let config = VhostConfig::new("a.test").listen(listener);
    lab.add(config.server_tls(server_tls(&pki, &["a.test"])));
    for (sent, location) in [
        (get("/chat?a=b"), "https://a.test/chat?a=b"),
        // There is no such place, so the redirect is to the whole of it.
        (
            b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
            "https://a.test/",
        ),
    ] {
        let peer = lab.net.dial(usual()).unwrap();
        peer.write(&sent).unwrap();
        lab.turn();
        let answer = String::from_utf8(peer.read()).unwrap();
        let line = format!("\r\nLocation: {location}\r\n");
        assert!(answer.contains(&line), "{answer:?}");
    }
}

fn usual() -> std::net::SocketAddr {
    "10.0.0.1:443".parse().unwrap()
}

#[test]
fn dp_05_a_rejected_request_is_told_what_the_port_speaks() {
    let mut site = Site::new(PlaintextPolicy::Reject);
    for sent in [get("/"), request("/")] {
        let (answer, _peer) = site.answer(&sent);
        let (status, body, whole) = response(&answer);
        assert_eq!((status, whole), (400, true));
        assert!(body.contains("wss"), "{body}");
        assert_eq!(site.lab.journal.refused().unwrap().kind, "Plaintext");
    }
    assert_eq!(site.lab.journal.filters("a.test"), 0);
}

#[test]
fn dp_05_a_websocket_over_plain_tcp_is_served_if_the_policy_says_so() {
    let mut site = Site::new(PlaintextPolicy::Serve);
    let (answer, peer) = site.answer(&request("/"));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    peer.write(&masked(0x81, b"in the clear")).unwrap();
    site.lab.turn();
    assert_eq!(peer.read(), plain(0x81, b"in the clear"));
    let open = site.lab.journal.open("a.test").unwrap();
    assert!(!open.is_tls && open.info.is_none() && open.peer.is_none());
}

#[test]
fn dp_07_is_tls_is_the_truth_in_all_four_combinations() {
    let pki = Pki::new("ca");
    for (policy, tls_port) in [(Some(PlaintextPolicy::Serve), true), (None, false)] {
        for scheme in ["ws", "wss"] {
            let mut lab = Lab::new();
            let mut listen = ListenConfig::new(addr());
            if let Some(policy) = policy {
                listen = listen.tls(policy);
            }
            lab.net.name("a.test", [addr().ip()]);
            let mut config = VhostConfig::new("a.test")
                .listen(listen)
                .protocol("p", Probe::echo("server", &lab.journal));
            if tls_port {
                config = config.server_tls(server_tls(&pki, &["a.test"]));
            }
            lab.add(config);
            let client = lab.client("client", ClientTls::new(roots(&pki)));
            lab.dial(client, &format!("{scheme}://a.test:80/"));
            let secure = scheme == "wss";
            if secure && !tls_port {
                assert!(lab.journal.open("server").is_none());
                continue;
            }
            let filtered = lab.journal.one(|event| match event {
                Event::Filter { is_tls, .. } => Ok(is_tls),
                other => Err(other.into()),
            });
            assert_eq!(filtered, Some(secure));
            for side in ["client", "server"] {
                let open = lab.journal.open(side).unwrap();
                assert_eq!(
                    (open.is_tls, open.info.is_some()),
                    (secure, secure),
                    "{side}"
                );
            }
        }
    }
}

/// TL-03: TLS where none is spoken.
#[test]
fn tl_03_tls_to_a_plain_port_names_the_guess_on_both_sides() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.net.name("a.test", [addr().ip()]);
    let probe = Probe::echo("server", &lab.journal);
    lab.add(
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", probe),
    );
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    let failed = lab.journal.connect_error().unwrap();
    let guess = wsloop::tls::ForeignProtocol::PlainHttp;
    assert_eq!(
        failed.tls,
        Some(TlsFailure::NotTls(guess)),
        "{}",
        failed.text
    );
    let refused = lab.journal.refused().unwrap();
    assert!(refused.text.contains("TLS"), "{}", refused.text);
}

#[test]
fn dp_04_all_kinds_of_clients_from_one_address_are_always_served_right() {
    let mut site = Site::new(PlaintextPolicy::Serve);
    let tls = ClientTls::new(roots(&site.pki));
    let (client, handle) = site.lab.client_with("client", tls);
    let stranger = rustls_client(&site.pki, None, &[&rustls::version::TLS13]);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut kinds = [0; 4];
    for round in 0..1000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let kind = (seed >> 33) as usize % 4;
        kinds[kind] += 1;
        match kind {
            0 | 1 => {
                let scheme = ["ws", "wss"][kind];
                let info = ClientConnectInfo::from_url(&format!("{scheme}://a.test:80/"));
                let id = site
                    .lab
                    .context
                    .client_connect(client, info.unwrap())
                    .unwrap();
                few_turns(&mut site.lab);
                let secure = kind == 1;
                for side in ["client", "a.test"] {
                    let open = site.lab.journal.open(side);
                    let open = open.unwrap_or_else(|| panic!("round {round}: no {scheme}"));
                    assert_eq!(open.is_tls, secure, "round {round}");
                }
                assert_eq!(site.lab.journal.texts("client"), ["hello"]);
                site.lab
                    .context
                    .with_protocol(handle, |_, cx| cx.abort(id).unwrap());
                few_turns(&mut site.lab);
            }
            2 => {
                let peer = site.lab.net.dial(addr()).unwrap();
                peer.write(&get("/")).unwrap();
                few_turns(&mut site.lab);
                let answer = String::from_utf8(peer.read()).unwrap();
                assert_eq!(response(&answer), (200, "a page".to_owned(), true));
            }
            _ => {
                let peer = site.lab.net.dial(addr()).unwrap();
                let mut peer = TlsStranger::new(peer, stranger.clone(), "a.test");
                peer.say(&get("/"));
                for _ in 0..3 {
                    let out = peer.flight();
                    peer.peer.write(&out).unwrap();
                    few_turns(&mut site.lab);
                    peer.take().unwrap();
                }
                let answer = String::from_utf8(peer.heard()).unwrap();
                assert_eq!(response(&answer), (200, "a page".to_owned(), true));
            }
        }
        assert!(site.lab.journal.refused().is_none(), "round {round}");
        site.lab.journal.take();
    }
    assert!(kinds.iter().all(|&count| count > 200), "{kinds:?}");
    site.lab.pass(Duration::from_secs(10));
    assert_eq!(site.lab.context.connections(), 0);
}

fn few_turns(lab: &mut Lab) {
    for _ in 0..14 {
        lab.context.service(Some(Duration::ZERO)).unwrap();
    }
}

fn requiring(pki: &Pki) -> ServerTls {
    let trust = ClientTrust::new(roots(pki));
    server_tls(pki, &["a.test"]).client_auth(ClientAuth::Required(trust))
}

fn is_contradiction(result: &Result<impl Sized, VhostError>) -> bool {
    matches!(result, Err(VhostError::PlaintextWithRequired { address }) if *address == addr())
}

#[test]
fn a_certificate_that_no_listener_shows_is_an_error() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let config = |name: &str| VhostConfig::new(name).server_tls(server_tls(&pki, &[name]));
    let plain = "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap();
    let made = lab.context.create_vhost(config("a.test").listen(plain));
    let text = made.unwrap_err().to_string();
    assert!(text.contains("127.0.0.1"), "{text}");
    assert!(!text.contains(":0"), "{text}");
    // One of several is enough, and clients need none.
    let secure = ListenConfig::new(addr()).tls(PlaintextPolicy::Reject);
    let both = config("a.test").listen(plain).listen(secure);
    lab.context.create_vhost(both).unwrap();
    lab.context
        .create_vhost(config("b.test").listen(addr()))
        .unwrap();
    lab.context.create_vhost(config("c.test")).unwrap();
}

#[test]
fn plaintext_and_required_certificates_contradict_each_other_wherever_they_meet() {
    let pki = Pki::new("ca");
    for policy in POLICIES {
        let bad = policy == PlaintextPolicy::Serve;
        // When the vhost is made.
        let mut lab = Lab::new();
        let (config, _) = lab.server_config("a.test", requiring(&pki), policy);
        let made = lab.context.create_vhost(config);
        assert_eq!(is_contradiction(&made), bad, "{made:?}");
        assert_eq!(made.is_err(), bad);
        // When it comes to a listener that is there.
        let mut lab = Lab::new();
        let (config, _) = lab.server_config("b.test", server_tls(&pki, &["b.test"]), policy);
        lab.add(config);
        let (config, _) = lab.server_config("a.test", requiring(&pki), policy);
        let made = lab.context.create_vhost(config);
        assert_eq!(is_contradiction(&made), bad, "{made:?}");
        // When its settings are exchanged; then the old ones stay.
        let mut site = Site::new(policy);
        let set = site
            .lab
            .context
            .set_server_tls(site.vhost, requiring(&site.pki));
        assert_eq!(is_contradiction(&set), bad, "{set:?}");
        let client = site.lab.client("client", ClientTls::new(roots(&site.pki)));
        site.lab.dial(client, &url("a.test"));
        assert_eq!(site.lab.journal.opens("client") == 1, bad);
    }
}

#[test]
fn a_listener_s_policy_cannot_be_undermined_by_the_second_vhost_on_it() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let (config, _) = lab.server_config("b.test", requiring(&pki), PlaintextPolicy::Reject);
    lab.add(config);
    let tls = server_tls(&pki, &["a.test"]);
    let (config, _) = lab.server_config("a.test", tls, PlaintextPolicy::Serve);
    if lab.context.create_vhost(config).is_ok() {
        let peer = lab.stranger();
        let mut ask = request("/");
        let host = b"Host: a.test";
        let at = ask
            .windows(host.len())
            .position(|window| window == host)
            .unwrap();
        ask[at..at + host.len()].copy_from_slice(b"Host: b.test");
        peer.write(&ask).unwrap();
        lab.turn();
        assert_eq!(lab.journal.filters("b.test"), 0, "served in the clear");
    }
}

#[test]
fn a_vhost_on_a_tls_listener_needs_a_certificate() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.server("a.test", server_tls(&pki, &["a.test"]));
    for listen in [
        ListenConfig::new(addr()),
        ListenConfig::new(addr()).tls(PlaintextPolicy::Serve),
    ] {
        let made = lab
            .context
            .create_vhost(VhostConfig::new("b.test").listen(listen));
        assert!(
            matches!(made, Err(VhostError::NoServerTls { .. })),
            "{made:?}"
        );
    }
}

/// A vhost that asks for TLS is not put on a plain listener because somebody else opened it first.
#[test]
fn a_vhost_that_asks_for_tls_is_not_made_on_a_plain_listener() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let echo = Probe::echo("plain", &lab.journal);
    lab.add(VhostConfig::new("plain").listen(addr()).protocol("p", echo));
    let trust = ClientTrust::new(roots(&pki));
    let tls = server_tls(&pki, &["a.test"]).client_auth(ClientAuth::Required(trust));
    let (config, _) = lab.server_config("a.test", tls, PlaintextPolicy::Reject);
    let made = lab.context.create_vhost(config);
    let peer = lab.stranger();
    peer.write(&request("/")).unwrap();
    lab.turn();
    let answer = String::from_utf8_lossy(&peer.read()).into_owned();
    assert_eq!(
        lab.journal.opens("a.test"),
        0,
        "a client without TLS and without a certificate is in: {answer}"
    );
    assert!(made.is_err());
}

/// The same for what a listener does with plain connections.
#[test]
fn a_vhost_that_rejects_plaintext_is_not_made_on_a_listener_that_serves_it() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let tls = server_tls(&pki, &["b.test"]);
    let (config, _) = lab.server_config("b.test", tls, PlaintextPolicy::Serve);
    lab.add(config);
    let tls = server_tls(&pki, &["a.test"]);
    let (config, _) = lab.server_config("a.test", tls, PlaintextPolicy::Reject);
    let made = lab.context.create_vhost(config);
    let peer = lab.stranger();
    peer.write(&request("/")).unwrap();
    lab.turn();
    assert_eq!(lab.journal.opens("a.test"), 0);
    assert!(made.is_err());
}

/// Whoever forgets the listener's `tls` would let everybody in.
#[test]
fn a_vhost_that_requires_certificates_has_no_plain_listener() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let trust = ClientTrust::new(roots(&pki));
    let tls = server_tls(&pki, &["a.test"]).client_auth(ClientAuth::Required(trust));
    let echo = Probe::echo("a.test", &lab.journal);
    let config = VhostConfig::new("a.test")
        .listen(addr())
        .server_tls(tls)
        .protocol("p", echo);
    let made = lab.context.create_vhost(config);
    assert!(
        matches!(made, Err(VhostError::PlaintextWithRequired { .. })),
        "{made:?}"
    );
}

/// `Timeouts::head`: "from the accept to the complete request head", and `Timeouts::tls`: together
/// 20 s by default, wherever in them the peer is slow.
#[test]
fn a_stranger_holds_a_tls_port_no_longer_than_head_and_tls_together() {
    let mut site = Site::new(PlaintextPolicy::Reject);
    let config = rustls_client(&site.pki, None, &[&rustls::version::TLS13]);
    let mut stranger = TlsStranger::new(site.lab.stranger(), config, "a.test");
    let hello = stranger.flight();
    site.lab.pass(Duration::from_millis(9_800));
    stranger.peer.write(&hello[..1]).unwrap();
    site.lab.pass(Duration::from_millis(9_800));
    stranger.peer.write(&hello[1..]).unwrap();
    let _ = stranger.exchange(&mut site.lab);
    site.lab.pass(Duration::from_millis(9_800));
    let left = site.lab.context.connections();
    assert_eq!(left, 0, "29 s and not one byte of a request");
}
