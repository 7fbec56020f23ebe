//! Opening handshakes that a server gets to see (RFC 6455 section 4.2), and responses that a
//! client does.

use std::time::Duration;

use wsloop::sim::SimPeer;
use wsloop::ws::handshake::origin_matches;
use wsloop::{Accept, Refuse, VhostConfig};

use super::common::{Dialled, final_event};
use crate::support::{Log, Recorder, World, addr, masked, plain, request, request_with};

/// The status line's number, once a response is there.
fn status(peer: &SimPeer) -> (u16, String) {
    let response = String::from_utf8(peer.read()).unwrap();
    let status = response.get(9..12).and_then(|digits| digits.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no response: {response:?}")),
        response,
    )
}

/// A request that is refused: with one of these statuses, the end of the stream, one event for the
/// observer and none for the protocol.
fn refused(id: &str, bytes: &[u8], statuses: &[u16]) -> String {
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    peer.write(bytes).unwrap();
    world.turn();
    let (code, response) = status(&peer);
    assert!(statuses.contains(&code), "{id}: {response}");
    assert!(peer.ended(), "{id}: the connection is closed");
    assert!(
        response
            .to_ascii_lowercase()
            .contains("\r\nconnection: close\r\n"),
        "{id} {response}"
    );
    let told = final_event(&world.log);
    assert!(told.starts_with("refused "), "{id}: {told}");
    assert_eq!(
        world.log.lines().len(),
        1,
        "{id}: the protocol hears nothing"
    );
    drop(peer);
    world.turn();
    assert_eq!(world.context.connections(), 0, "{id}");
    response
}

fn upgrade(method_and_version: (&str, &str), fields: &str) -> Vec<u8> {
    let (method, version) = method_and_version;
    format!("{method} / {version}\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

const GET: (&str, &str) = ("GET", "HTTP/1.1");
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

#[test]
fn hs_01_a_request_of_single_bytes_is_accepted() {
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    for byte in request("/chat") {
        assert!(peer.read().is_empty());
        peer.write(&[byte]).unwrap();
        world.pass(Duration::from_millis(1));
    }
    assert_eq!(status(&peer).0, 101);
    assert_eq!(world.log.take(), ["filter /chat", "established /chat None"]);
}

#[test]
fn hs_02_a_request_cut_anywhere_is_the_same_request() {
    let mut bytes = request("/chat");
    bytes.extend(masked(0x81, b"right behind"));
    let mut whole = None;
    for cut in 0..=bytes.len() {
        let mut world = World::new(Recorder::echo);
        let peer = world.dial();
        peer.write(&bytes[..cut]).unwrap();
        world.turn();
        peer.write(&bytes[cut..]).unwrap();
        world.turn();
        let outcome = (world.log.take(), peer.read());
        assert_eq!(outcome.0.len(), 3);
        assert_eq!(
            *whole.get_or_insert_with(|| outcome.clone()),
            outcome,
            "cut at {cut}"
        );
    }
}

#[test]
fn hs_04_lists_and_letter_case_do_not_matter() {
    for lines in [
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n",
        "upgrade: WebSocket\r\nCONNECTION: UPGRADE\r\n",
    ] {
        let mut world = World::new(Recorder::new);
        let peer = world.dial();
        peer.write(&upgrade(GET, &format!("{lines}{KEY}{VERSION}")))
            .unwrap();
        world.turn();
        assert_eq!(status(&peer).0, 101, "{lines}");
    }
}

#[test]
fn hs_06_to_21_faulty_requests_are_refused_before_the_protocol() {
    let all = |fields: &str| upgrade(GET, &format!("{UPGRADE}{KEY}{VERSION}{fields}"));
    let bad = &[400][..];
    let rows: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "hs_06",
            upgrade(
                GET,
                &format!("Upgrade: websocketx\r\nConnection: Upgrade\r\n{KEY}{VERSION}"),
            ),
            &[400, 426],
        ),
        (
            "hs_06",
            upgrade(
                GET,
                &format!("Upgrade: websocket\r\nConnection: up\r\n{KEY}{VERSION}"),
            ),
            &[400, 426],
        ),
        ("hs_07", upgrade(GET, &format!("{UPGRADE}{VERSION}")), bad),
        (
            "hs_07",
            upgrade(
                GET,
                &format!("{UPGRADE}{VERSION}Sec-WebSocket-Key: c2hvcnQ=\r\n"),
            ),
            bad,
        ),
        (
            "hs_09",
            upgrade(GET, &format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 8\r\n")),
            &[426],
        ),
        (
            "hs_09",
            upgrade(
                GET,
                &format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 13abc\r\n"),
            ),
            bad,
        ),
        (
            "hs_11",
            upgrade(("POST", "HTTP/1.1"), &format!("{UPGRADE}{KEY}{VERSION}")),
            &[400, 405],
        ),
        (
            "hs_11",
            upgrade(("GET", "HTTP/1.0"), &format!("{UPGRADE}{KEY}{VERSION}")),
            &[400, 426, 505],
        ),
        (
            "hs_17",
            all(&format!(
                "Sec-WebSocket-Protocol: b{}x\r\n",
                " ".repeat(60_000)
            )),
            &[400, 431],
        ),
        ("hs_18", all("Sec-WebSocket-Protocol: a b\r\n"), bad),
        (
            "not http",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and more\r\n\r\n".to_vec(),
            bad,
        ),
    ];
    for (id, bytes, statuses) in rows {
        let response = refused(id, &bytes, statuses);
        if id == "hs_09" && statuses == [426] {
            let low = response.to_ascii_lowercase();
            assert!(
                low.contains("\r\nsec-websocket-version: 13\r\n"),
                "{response}"
            );
        }
    }
}

#[test]
fn hs_12_a_body_is_neither_frames_nor_a_request() {
    let frame = masked(0x81, b"smuggled");
    let framings = ["Content-Length: 14\r\n", "Transfer-Encoding: chunked\r\n"];
    for framing in framings {
        for body in [frame.clone(), request("/smuggled")] {
            let mut bytes = request_with("/", framing);
            bytes.extend(body);
            refused("hs_12", &bytes, &[400]);
        }
    }
}

/// The application keeps what it was asked with, while requests that are none come and go.
#[test]
fn hs_14_other_upgrades_are_refused_while_the_application_holds_a_request() {
    use std::sync::{Arc, Mutex};
    use wsloop::RequestId;

    type Held = Arc<Mutex<Vec<(RequestId, String, Vec<u8>)>>>;
    let held: Held = Arc::default();
    let holds = Arc::clone(&held);
    let (log, net) = (Log::default(), wsloop::sim::Net::new(1));
    let config = wsloop::ContextConfig::new().observer(crate::support::Observer(log.clone()));
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let mut config = VhostConfig::new("a.test").listen(addr());
    let handle = config.add_protocol(
        "p",
        Recorder {
            filter: Some(Box::new(move |_, request| {
                let head = request.head();
                let target = head.target().to_owned();
                let key = head.header("Sec-WebSocket-Key").unwrap().to_vec();
                holds.lock().unwrap().push((request.id(), target, key));
                Ok(Accept::later())
            })),
            ..Recorder::new(&log)
        },
    );
    context.create_vhost(config).unwrap();
    let mut turn = || {
        for _ in 0..8 {
            context.service(Some(Duration::ZERO)).unwrap();
        }
    };
    let [good, gone] = ["/good", "/gone"].map(|target| {
        let peer = net.dial(addr()).unwrap();
        peer.write(&request(target)).unwrap();
        peer
    });
    turn();
    assert_eq!(log.take().len(), 2, "both are asked about");
    for other in ["h2c", "web", "websocketx", "TLS/1.0", ""] {
        let peer = net.dial(addr()).unwrap();
        let fields = format!("Upgrade: {other}\r\nConnection: Upgrade\r\n{KEY}{VERSION}");
        peer.write(&upgrade(GET, &fields)).unwrap();
        turn();
        assert_eq!(status(&peer).0, 400, "{other}");
        let told = log.take();
        assert!(
            matches!(&told[..], [one] if one.starts_with("refused ")),
            "{told:?}"
        );
    }
    gone.reset();
    turn();
    let held = std::mem::take(&mut *held.lock().unwrap());
    for (id, target, key) in held {
        assert_eq!(key, b"dGhlIHNhbXBsZSBub25jZQ==");
        let decided = context.with_protocol(handle, |_, cx| cx.decide(id, Ok(Accept::new())));
        assert_eq!(decided.unwrap().is_ok(), target == "/good", "{target}");
    }
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(status(&good).0, 101);
    assert_eq!(log.count("established /good"), 1);
    assert_eq!(log.count("established"), 1);
}

#[test]
fn hs_15_two_thousand_headers_are_too_many() {
    let many: String = (0..2000).map(|n| format!("x{n}: y\r\n")).collect();
    let bytes = upgrade(GET, &format!("{many}{UPGRADE}{KEY}{VERSION}"));
    refused("hs_15", &bytes, &[431]);
}

#[test]
fn hs_15_a_head_without_end_is_stopped_at_its_limit() {
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    let before = world.context.memory();
    peer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ")
        .unwrap();
    let mut most = 0;
    for _ in 0..100 {
        peer.write(&[b'x'; 10_000]).unwrap();
        world.turn();
        most = most.max(world.context.memory());
    }
    assert_eq!(status(&peer).0, 431);
    assert!(most < before + 64 * 1024, "{most} after {before}");
    assert!(final_event(&world.log).starts_with("refused "));
}

#[test]
fn hs_18_the_server_s_preference_decides_among_subprotocols() {
    let mut world = World::with(|log| {
        let config = VhostConfig::new("a.test").listen(addr());
        config
            .protocol("first", Recorder::new(log))
            .protocol("second", Recorder::new(log))
    });
    let peer = world.dial();
    let offer = "Sec-WebSocket-Protocol: other, second,, first, second\r\n";
    peer.write(&request_with("/", offer)).unwrap();
    world.turn();
    let (code, response) = status(&peer);
    assert_eq!(code, 101);
    assert!(
        response.contains("Sec-WebSocket-Protocol: first\r\n"),
        "{response}"
    );
    assert_eq!(
        world.log.take(),
        ["filter /", "established / Some(\"first\")"]
    );
}

#[test]
fn hs_20_a_filter_compares_origins_exactly() {
    let guarded = |log: &Log| Recorder {
        filter: Some(Box::new(|_, request| {
            let origin = request
                .header("Origin")
                .and_then(|value| std::str::from_utf8(value).ok());
            if origin.is_some_and(|origin| origin_matches(origin, "https://good.example")) {
                Ok(Accept::new())
            } else {
                Err(Refuse::new(403))
            }
        })),
        ..Recorder::new(log)
    };
    for (line, expected) in [
        ("", 403),
        ("Origin: null\r\n", 403),
        ("Origin: https://good.example.evil.com\r\n", 403),
        ("Origin: http://good.example\r\n", 403),
        ("Origin: https://good.example:8443\r\n", 403),
        ("Origin: https://good.example\r\n", 101),
        ("Origin: HTTPS://Good.Example\r\n", 101),
        ("Origin: https://good.example:443\r\n", 101),
    ] {
        let mut world = World::new(guarded);
        let peer = world.dial();
        peer.write(&request_with("/", line)).unwrap();
        world.turn();
        assert_eq!(status(&peer).0, expected, "{line}");
        if expected == 403 {
            assert!(peer.ended());
            assert_eq!(
                final_event(&world.log),
                "refused the protocol refused the upgrade with status 403"
            );
        }
    }
}

#[test]
fn hs_21_extensions_that_nobody_knows_are_ignored() {
    let offers = "permessage-deflate, ".repeat(200) + "x-unknown; a=1; b=\"2\"";
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    peer.write(&request_with(
        "/",
        &format!("Sec-WebSocket-Extensions: {offers}\r\n"),
    ))
    .unwrap();
    world.turn();
    let (code, response) = status(&peer);
    assert_eq!(code, 101, "{response}");
    assert!(
        !response.to_ascii_lowercase().contains("extensions"),
        "{response}"
    );
}

#[test]
fn hs_23_a_target_in_absolute_form_chooses_the_vhost() {
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::new(log))
    });
    let other = Log::default();
    let config = VhostConfig::new("b.test")
        .listen(addr())
        .protocol("p", Recorder::new(&other));
    world.context.create_vhost(config).unwrap();
    for (target, host, here) in [
        ("/", "a.test", true),
        ("/", "b.test", false),
        ("http://b.test/chat", "a.test", false),
        ("http://a.test/chat", "b.test", true),
    ] {
        let peer = world.dial();
        let fields = format!("{UPGRADE}{KEY}{VERSION}");
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        peer.write(head.as_bytes()).unwrap();
        world.turn();
        assert_eq!(status(&peer).0, 101, "{target} {host}");
        let told = (world.log.count("established"), other.count("established"));
        assert_eq!(told, if here { (1, 0) } else { (0, 1) }, "{target} {host}");
        drop(peer);
        world.turn();
        world.log.take();
        other.take();
    }
}

#[test]
fn hc_01_to_10_faulty_responses_end_the_attempt_once() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (id, response, words) in [
        (
            "hc_01",
            format!("{head}Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"),
            "does not answer our key",
        ),
        ("hc_01", format!("{head}\r\n"), "no Sec-WebSocket-Accept"),
        (
            "hc_05",
            "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno".to_owned(),
            "status 401",
        ),
        ("hc_07", "HTTP/1.1 103 Early\r\n\r\n".repeat(500), "interim"),
        (
            "hc_10",
            "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
            "does not speak HTTP",
        ),
    ] {
        let mut dialled = Dialled::new(|config| config, Recorder::new);
        // Frames behind it are never looked at.
        dialled.peer.write(response.as_bytes()).unwrap();
        let _ = dialled.peer.write(&plain(0x81, b"never"));
        dialled.world.turn();
        let told = final_event(&dialled.world.log);
        assert!(
            told.starts_with("connect_error ") && told.contains(words),
            "{id}: {told}"
        );
        assert_eq!(dialled.world.log.lines().len(), 1, "{id}");
        assert_eq!(dialled.world.context.connections(), 0, "{id}");
    }
}

#[test]
fn hc_09_frames_behind_the_response_are_not_lost_however_it_is_cut() {
    let whole = Dialled::new(|config| config, Recorder::new)
        .response()
        .len();
    let frame = plain(0x81, b"behind");
    for cut in 0..=whole + frame.len() {
        let mut dialled = Dialled::new(|config| config, Recorder::new);
        let mut bytes = dialled.response();
        bytes.extend_from_slice(&frame);
        dialled.peer.write(&bytes[..cut]).unwrap();
        dialled.world.turn();
        dialled.peer.write(&bytes[cut..]).unwrap();
        dialled.world.turn();
        let told = ["established 101 None", "text \"behind\""];
        assert_eq!(dialled.world.log.take(), told, "cut at {cut}");
    }
}

/// The head is read by the limits of the listener's vhost and then belongs to the one that `Host`
/// names, which may have tighter ones.
#[test]
fn a_deferred_verdict_is_carried_out_although_the_named_vhost_has_tighter_head_limits() {
    use std::sync::{Arc, Mutex};
    use wsloop::{Limits, RequestId};

    let mut world = World::new(Recorder::new);
    let asked: Arc<Mutex<Option<RequestId>>> = Arc::default();
    let seen = Arc::clone(&asked);
    let recorder = Recorder {
        filter: Some(Box::new(move |_, request| {
            *seen.lock().unwrap() = Some(request.id());
            Ok(Accept::later())
        })),
        ..Recorder::new(&world.log)
    };
    let mut limits = Limits::default();
    limits.head.headers = 5;
    let mut config = VhostConfig::new("b.test").listen(addr()).limits(limits);
    let handle = config.add_protocol("p", recorder);
    world.context.create_vhost(config).unwrap();
    let peer = world.dial();
    let request = String::from_utf8(request_with("/", "X-More: 1\r\n")).unwrap();
    peer.write(request.replace("a.test", "b.test").as_bytes())
        .unwrap();
    world.turn();
    let decided = asked.lock().unwrap().take();
    if let Some(id) = decided {
        let told = world
            .context
            .with_protocol(handle, |_, cx| cx.decide(id, Ok(Accept::new())));
        told.unwrap().unwrap();
        world.turn();
    }
    // Either the tighter limit holds at once, or the verdict is carried out.
    let answer = String::from_utf8(peer.read()).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 101 ") || answer.starts_with("HTTP/1.1 431 "),
        "{answer:?}"
    );
}
