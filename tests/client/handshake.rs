//! The opening handshake as the client sees it.

use std::collections::BTreeSet;

use wsloop::ClientConnectInfo;

use crate::support::plain;
use crate::{Site, Told, field, switching, there};

#[test]
fn the_request_says_what_was_asked_for_and_no_more() {
    let mut site = Site::new();
    let info = ClientConnectInfo::from_url("ws://Example.test:8080/chat?x=%20")
        .unwrap()
        .addresses(vec!["10.0.0.7:80".parse().unwrap()])
        .unwrap()
        .origin("https://page.test")
        .unwrap()
        .subprotocols(["v2", "v1"])
        .unwrap()
        .header("Authorization", "Bearer abc")
        .unwrap();
    let (_peer, request) = site.dial(info);
    let (line, rest) = request.split_once("\r\n").unwrap();
    assert_eq!(line, "GET /chat?x=%20 HTTP/1.1");
    assert!(rest.ends_with("\r\n\r\n"));
    assert!(
        field(&request, "Host")
            .unwrap()
            .eq_ignore_ascii_case("example.test:8080")
    );
    assert_eq!(field(&request, "Upgrade"), Some("websocket"));
    assert_eq!(field(&request, "Connection"), Some("Upgrade"));
    assert_eq!(field(&request, "Origin"), Some("https://page.test"));
    assert_eq!(field(&request, "Sec-WebSocket-Version"), Some("13"));
    assert_eq!(field(&request, "Sec-WebSocket-Protocol"), Some("v2, v1"));
    assert_eq!(field(&request, "Authorization"), Some("Bearer abc"));
    assert_eq!(field(&request, "Sec-WebSocket-Extensions"), None);
    let key = field(&request, "Sec-WebSocket-Key").unwrap();
    assert!(key.len() == 24 && key.ends_with("=="), "{key}");
    assert_eq!(request.lines().count(), 10, "{request}");
}

#[test]
fn hc_17_keys_are_never_the_same() {
    let mut site = Site::new();
    let mut keys = BTreeSet::new();
    for _ in 0..200 {
        let (_peer, request) = site.dial(there());
        assert!(keys.insert(field(&request, "Sec-WebSocket-Key").unwrap().to_owned()));
        site.caller.take();
    }
}

/// HC-09: whatever the cut, the same comes out.
#[test]
fn hc_09_the_response_and_the_first_frames_arrive_however_they_are_cut() {
    let frames = [
        plain(0x81, b"one"),
        plain(0x01, b"t"),
        plain(0x89, b"?"),
        plain(0x80, b"wo"),
    ];
    let mut cut = 0;
    loop {
        let mut site = Site::new();
        let info = there().subprotocols(["v1"]).unwrap();
        let (peer, request) = site.dial(info);
        let mut bytes = switching(&request, "Sec-WebSocket-Protocol: v1\r\n");
        for frame in &frames {
            bytes.extend_from_slice(frame);
        }
        if cut > bytes.len() {
            break;
        }
        let (a, b) = bytes.split_at(cut);
        peer.write(a).unwrap();
        site.world.turn();
        peer.write(b).unwrap();
        site.world.turn();
        let told = site.caller.take();
        let [
            Told::Established(Some(name)),
            Told::Text(one),
            Told::Text(two),
        ] = &told[..]
        else {
            panic!("cut at {cut}: {told:?}");
        };
        assert_eq!(
            (name.as_str(), one.as_str(), two.as_str()),
            ("v1", "one", "two")
        );
        assert_eq!(crate::frames(&peer.read())[0].2, b"?", "cut at {cut}");
        cut += 1;
    }
    assert!(cut > 150);
}

#[test]
fn hc_09_the_same_byte_by_byte() {
    let mut site = Site::new();
    let (peer, request) = site.dial(there());
    let mut bytes = switching(&request, "");
    bytes.extend(plain(0x81, b"one"));
    bytes.extend(plain(0x88, &[0x03, 0xe8]));
    for byte in bytes {
        peer.write(&[byte]).unwrap();
        site.world
            .context
            .service(Some(std::time::Duration::ZERO))
            .unwrap();
    }
    peer.shutdown_write();
    site.world.turn();
    let told = site.caller.take();
    assert!(
        matches!(
            &told[..],
            [Told::Established(None), Told::Text(_), Told::Closed(..)]
        ),
        "{told:?}"
    );
}

/// Answers a request with these bytes; how the attempt ends.
fn answered(bytes: &[u8], end: bool) -> crate::Summary {
    let mut site = Site::new();
    let (peer, _) = site.dial(there());
    peer.write(bytes).unwrap();
    if end {
        peer.shutdown_write();
    }
    site.world.turn();
    let error = site.caller.error();
    assert_eq!(site.world.context.connections(), 0);
    error
}

/// Most often the path is one of the server's pages.
#[test]
fn an_answer_that_is_no_websocket_s_has_one_ask_for_the_path() {
    for (status, asks) in [("200 OK", true), ("404 Not Found", true), ("403 No", false)] {
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let text = answered(response.as_bytes(), false).text;
        assert_eq!(text.contains("is the path right?"), asks, "{text}");
    }
}

#[test]
fn hc_05_a_refusal_brings_status_headers_and_body() {
    let chunked = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\n{\"a\":\r\n3\r\n 1,\r\n1\r\n}\r\n0\r\n\r\n";
    let error = answered(chunked, false);
    assert_eq!(error.stage, "response");
    assert_eq!(
        error.failure,
        "the peer refused with status 401 Unauthorized: {\"a\": 1,}"
    );
    assert!(!error.retryable);
    let refusal = error.refusal.unwrap();
    assert_eq!(
        (refusal.status, refusal.reason.as_str()),
        (401, "Unauthorized")
    );
    assert_eq!(
        refusal.headers.get("www-authenticate"),
        Some(&b"Bearer"[..])
    );
    assert_eq!(refusal.body, b"{\"a\": 1,}");
    assert!(!refusal.truncated);
}

#[test]
fn hc_05_a_refusal_whose_body_comes_in_pieces_is_waited_for() {
    let mut site = Site::new();
    let (peer, _) = site.dial(there());
    for piece in [
        "HTTP/1.1 503 Busy\r\nContent-",
        "Length: 6\r\n\r\n",
        "abc",
        "def",
    ] {
        assert!(site.caller.take().is_empty());
        peer.write(piece.as_bytes()).unwrap();
        site.world.turn();
    }
    let error = site.caller.error();
    assert!(error.retryable, "503 may be over soon");
    assert_eq!(error.refusal.unwrap().body, b"abcdef");
}

#[test]
fn a_refusals_body_is_kept_up_to_a_cap_and_cut_bodies_are_told() {
    let long = [&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], &[b'x'; 10_000]].concat();
    let refusal = answered(&long, false).refusal.unwrap();
    assert_eq!((refusal.body.len(), refusal.truncated), (4096, true));
    let short = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nabc";
    let refusal = answered(short, true).refusal.unwrap();
    assert_eq!((&refusal.body[..], refusal.truncated), (&b"abc"[..], true));
    let until_end = b"HTTP/1.1 404 Not Found\r\n\r\nabc";
    let refusal = answered(until_end, true).refusal.unwrap();
    assert_eq!((&refusal.body[..], refusal.truncated), (&b"abc"[..], false));
    let redirect = b"HTTP/1.1 302 Found\r\nLocation: ws://evil.test/\r\nContent-Length: 0\r\n\r\n";
    let refusal = answered(redirect, false).refusal.unwrap();
    assert_eq!((refusal.status, refusal.body.len()), (302, 0));
}

#[test]
fn a_refusal_whose_body_never_ends_is_told_at_the_deadline_with_what_there_is() {
    let mut site = Site::new();
    let (peer, _) = site.dial(there());
    peer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nbecause")
        .unwrap();
    site.world.turn();
    site.world.pass(std::time::Duration::from_secs(16));
    let refusal = site.caller.error().refusal.unwrap();
    assert_eq!(
        (&refusal.body[..], refusal.truncated),
        (&b"because"[..], true)
    );
}

#[test]
fn hc_07_interim_responses_are_skipped_up_to_a_cap() {
    for (count, good) in [(1, true), (3, true), (500, false)] {
        let mut site = Site::new();
        let (peer, request) = site.dial(there());
        for _ in 0..count {
            // A stranger that was given up on has its connection reset.
            let _ = peer.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        }
        let _ = peer.write(&switching(&request, ""));
        site.world.turn();
        let told = site.caller.take();
        match (&told[..], good) {
            ([Told::Established(None)], true) => {}
            ([Told::Error(error)], false) => {
                assert!(error.failure.contains("interim"), "{error:?}");
            }
            _ => panic!("{count}: {told:?}"),
        }
    }
}

#[test]
fn hc_10_a_peer_that_does_not_speak_http_is_named() {
    for (bytes, expected) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "SSH"),
        (&b"220 mail.test ESMTP\r\n"[..], "does not speak HTTP"),
        (&[0x15, 3, 3, 0, 2, 2, 70][..], "TLS"),
        (
            &b"hello there, this is not it\r\n"[..],
            "does not speak HTTP",
        ),
    ] {
        let error = answered(bytes, true);
        assert_eq!(error.stage, "response");
        assert!(error.failure.contains("does not speak HTTP"), "{error:?}");
        assert!(error.failure.contains(expected), "{error:?}");
        assert!(!error.retryable);
    }
}

#[test]
fn hc_01_hc_03_hc_04_a_101_that_breaks_a_rule_is_no_connection() {
    type Change = fn(&str) -> String;
    let cases: [(Change, &str); 10] = [
        (
            |head| head.replace("Accept: ", "Accept: x"),
            "Sec-WebSocket-Accept does not answer",
        ),
        (
            |head| head.to_lowercase().replacen("http/1.1", "HTTP/1.1", 1),
            "does not answer",
        ),
        (
            |head| head.replace("Sec-WebSocket-Accept", "X"),
            "no Sec-WebSocket-Accept",
        ),
        (
            |head| {
                let line = head
                    .lines()
                    .find(|line| line.starts_with("Sec-"))
                    .unwrap()
                    .to_owned();
                head.replacen(&line, &format!("{line}\r\n{line}"), 1)
            },
            "more than one Sec-WebSocket-Accept",
        ),
        (
            |head| head.replace("Upgrade: websocket", "Upgrade: h2c"),
            "does not upgrade",
        ),
        (
            |head| head.replace("Connection: Upgrade\r\n", ""),
            "no \"Connection: Upgrade\"",
        ),
        (
            |head| head.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: no\r\n\r\n"),
            "not offered",
        ),
        (
            |head| {
                let two = "\r\nSec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v1\r\n\r\n";
                head.replace("\r\n\r\n", two)
            },
            "more than one subprotocol",
        ),
        (
            |head| head.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: foo\r\n\r\n"),
            "\"foo\", which was not offered",
        ),
        (|head| head.replacen("HTTP/1.1", "HTTP/1.0", 1), "HTTP/1.0"),
    ];
    for (change, expected) in cases {
        let mut site = Site::new();
        let (peer, request) = site.dial(there().subprotocols(["v1"]).unwrap());
        let head = String::from_utf8(switching(&request, "")).unwrap();
        peer.write(change(&head).as_bytes()).unwrap();
        peer.write(&plain(0x81, b"never delivered"))
            .unwrap_or_default();
        site.world.turn();
        let error = site.caller.error();
        assert!(error.failure.contains(expected), "{expected}: {error:?}");
        assert_eq!((error.stage.as_str(), error.retryable), ("response", false));
    }
}

#[test]
fn hc_02_a_connection_field_may_list_more_and_case_is_free() {
    let mut site = Site::new();
    let (peer, request) = site.dial(there());
    let head = String::from_utf8(switching(&request, "")).unwrap();
    let head = head
        .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE")
        .replace("Upgrade: websocket", "upgrade: WebSocket");
    peer.write(head.as_bytes()).unwrap();
    site.world.turn();
    assert!(matches!(site.caller.take()[..], [Told::Established(None)]));
}

#[test]
fn a_peer_that_goes_away_before_its_response_is_complete_is_told_with_the_stage() {
    for (bytes, reset) in [
        (&b""[..], false),
        (b"", true),
        (b"HTTP/1.1 101 Swit", false),
    ] {
        let mut site = Site::new();
        let (peer, _) = site.dial(there());
        peer.write(bytes).unwrap();
        site.world.turn();
        if reset {
            peer.reset();
        } else {
            peer.close();
        }
        site.world.turn();
        let error = site.caller.error();
        assert_eq!(
            (error.stage.as_str(), error.retryable),
            ("response", true),
            "{error:?}"
        );
        assert_eq!(error.attempts, 1);
    }
}
