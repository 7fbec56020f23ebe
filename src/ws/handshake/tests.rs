use super::*;
use crate::http::head::{Guess, HeadError, HeadLimits, HeadScanner, ResponseHead};
use crate::http::test_support::Rng;

/// The example of RFC 6455 section 1.2.
const REQUEST: &str = "GET /chat HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Parses and checks; the accept value and the offers.
fn check(request: &str) -> Result<(String, Vec<String>), UpgradeError> {
    let head = RequestHead::parse(request.as_bytes(), &HeadLimits::default()).unwrap();
    let upgrade = check_request(&head)?;
    let accept = String::from_utf8(upgrade.accept.to_vec()).unwrap();
    Ok((accept, upgrade.offered().map(str::to_owned).collect()))
}

/// The example with one of its lines replaced.
fn with(line: &str, replacement: &str) -> Result<(String, Vec<String>), UpgradeError> {
    assert!(REQUEST.contains(line));
    check(&REQUEST.replace(line, replacement))
}

fn refused(line: &str, replacement: &str) -> (UpgradeError, u16) {
    let error = with(line, replacement).expect_err(replacement);
    (error, error.status())
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn check_answer(response: &str, offered: &[&str]) -> Result<Option<String>, ResponseError> {
    let head = ResponseHead::parse(response.as_bytes(), &HeadLimits::default())?;
    Ok(check_response(&head, KEY, &names(offered))?.map(str::to_owned))
}

/// The example's response with one of its lines replaced.
fn answer(line: &str, replacement: &str) -> Result<Option<String>, ResponseError> {
    assert!(RESPONSE.contains(line));
    check_answer(&RESPONSE.replace(line, replacement), &["a", "b"])
}

/// The example's response with one line more.
fn answer_and(line: &str) -> Result<Option<String>, ResponseError> {
    answer(
        "Upgrade: websocket\r\n",
        &format!("Upgrade: websocket\r\n{line}\r\n"),
    )
}

#[test]
fn the_accept_value_of_rfc_6455_section_1_3() {
    assert_eq!(accept_key(KEY), ACCEPT.as_bytes());
}

#[test]
fn the_example_of_rfc_6455_is_accepted() {
    assert_eq!(
        check(REQUEST),
        Ok((ACCEPT.to_owned(), names(&["chat", "superchat"])))
    );
}

#[test]
fn hs_04_connection_and_upgrade_are_lists_in_any_case() {
    for connection in [
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: UPGRADE\r\n",
        "connection: ,,upgrade ,\r\n",
    ] {
        assert!(
            with("Connection: Upgrade\r\n", connection).is_ok(),
            "{connection:?}"
        );
    }
    for upgrade in ["upgrade: WebSocket\r\n", "Upgrade: h2c, websocket\r\n"] {
        assert!(
            with("Upgrade: websocket\r\n", upgrade).is_ok(),
            "{upgrade:?}"
        );
    }
}

#[test]
fn hs_06_hs_14_other_upgrades_are_refused_or_plain_requests() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let keyless = |line: &str, replacement: &str| {
        check(&REQUEST.replace(key, "").replace(line, replacement)).unwrap_err()
    };
    let line = "Upgrade: websocket\r\n";
    for upgrade in [
        "Upgrade: web\r\n",
        "Upgrade: websocketx\r\n",
        "Upgrade: h2c\r\n",
        "Upgrade:\r\n",
        "",
    ] {
        let found = refused(line, upgrade);
        assert_eq!(found, (UpgradeError::MissingUpgrade, 400), "{upgrade:?}");
        assert_eq!(
            keyless(line, upgrade),
            UpgradeError::NotAnUpgrade,
            "{upgrade:?}"
        );
    }
    let line = "Connection: Upgrade\r\n";
    for connection in ["Connection: up\r\n", "Connection: upgrades\r\n", ""] {
        let found = refused(line, connection);
        assert_eq!(
            found,
            (UpgradeError::MissingConnection, 400),
            "{connection:?}"
        );
        assert_eq!(
            keyless(line, connection),
            UpgradeError::NotAnUpgrade,
            "{connection:?}"
        );
    }
    assert_eq!(
        check("GET / HTTP/1.0\r\n\r\n"),
        Err(UpgradeError::NotAnUpgrade)
    );
}

#[test]
fn hs_07_keys_that_are_not_sixteen_bytes_are_refused() {
    let line = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for key in [
        "",
        "AAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25j Q==",
        "dGhlIHNhbXBsZSBub25j-Q==",
        "dGhlIHNhbXBsZSBub25=ZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        let found = refused(line, &format!("Sec-WebSocket-Key: {key}\r\n"));
        assert_eq!(found, (UpgradeError::BadKey, 400), "{key:?}");
    }
    assert_eq!(refused(line, ""), (UpgradeError::MissingKey, 400));
    assert_eq!(
        refused(line, &line.repeat(2)),
        (UpgradeError::SeveralKeys, 400)
    );
}

#[test]
fn hs_09_versions_other_than_13_are_told_the_right_one() {
    let line = "Sec-WebSocket-Version: 13\r\n";
    for version in ["8", "0", "25", "7", "100", "249", "255"] {
        let found = refused(line, &format!("Sec-WebSocket-Version: {version}\r\n"));
        assert_eq!(found, (UpgradeError::Version, 426), "{version}");
    }
    for version in [
        "13abc", "13, 8", "", "013", "00", "256", "260", "300", "1000", "-1", "1.3",
    ] {
        let found = refused(line, &format!("Sec-WebSocket-Version: {version}\r\n"));
        assert_eq!(found, (UpgradeError::BadVersion, 400), "{version}");
    }
    assert_eq!(refused(line, ""), (UpgradeError::MissingVersion, 426));
    assert_eq!(
        refused(line, &line.repeat(2)),
        (UpgradeError::BadVersion, 400)
    );
    let fields = UpgradeError::Version.headers();
    assert!(fields.contains(&("Sec-WebSocket-Version", "13")));
    assert!(fields.contains(&("Upgrade", "websocket")));
}

#[test]
fn hs_11_only_get_in_http_1_1_can_upgrade() {
    for method in ["POST", "PUT", "HEAD", "get"] {
        let found = refused("GET", method);
        assert_eq!(found, (UpgradeError::Method, 405), "{method}");
    }
    assert_eq!(
        refused("GET /chat", "CONNECT h:80"),
        (UpgradeError::Method, 405)
    );
    assert_eq!(UpgradeError::Method.headers(), [("Allow", "GET")]);
    assert_eq!(refused("HTTP/1.1", "HTTP/1.0"), (UpgradeError::Http10, 400));
}

#[test]
fn hs_12_an_upgrade_request_with_a_body_is_refused() {
    for field in [
        "Content-Length: 5",
        "Content-Length: x",
        "Content-Length: 0\r\nContent-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
    ] {
        let found = refused(
            "Connection: Upgrade\r\n",
            &format!("Connection: Upgrade\r\n{field}\r\n"),
        );
        assert_eq!(found, (UpgradeError::Body, 400), "{field}");
    }
    assert!(
        with(
            "Connection: Upgrade\r\n",
            "Connection: Upgrade\r\nContent-Length: 0\r\n"
        )
        .is_ok()
    );
}

#[test]
fn hs_17_hs_18_subprotocol_lists_are_read_leniently_and_bounded() {
    let line = "Sec-WebSocket-Protocol: chat, superchat\r\n";
    let offered = |value: &str| {
        with(line, &format!("Sec-WebSocket-Protocol: {value}\r\n")).map(|(_, names)| names)
    };
    assert_eq!(offered("b, a,, b ,\tc,a"), Ok(names(&["b", "a", "c"])));
    assert_eq!(
        offered("b\r\nsec-websocket-protocol: a, b"),
        Ok(names(&["b", "a"]))
    );
    assert_eq!(offered("Chat, chat"), Ok(names(&["Chat", "chat"])));
    assert_eq!(offered(""), Ok(vec![]));
    assert_eq!(with(line, "").map(|(_, names)| names), Ok(vec![]));
    for value in [
        "a b",
        "a/b",
        "\"a\"",
        "a;q=1",
        "\u{e9}",
        &format!("b{}x", " ".repeat(6000)),
    ] {
        assert_eq!(
            offered(value),
            Err(UpgradeError::BadSubprotocol),
            "{value:?}"
        );
    }
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("p{n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(offered(&many(64)).unwrap().len(), 64);
    assert_eq!(offered(&many(65)), Err(UpgradeError::TooManySubprotocols));
    assert_eq!(offered(&many(1000)), Err(UpgradeError::TooManySubprotocols));
}

#[test]
fn hs_20_origins_compare_whole() {
    for (origin, allowed) in [
        ("https://good.example", "https://good.example"),
        ("HTTPS://Good.Example", "https://good.example"),
        ("https://good.example:443", "https://good.example"),
        ("https://good.example", "https://good.example:443"),
        ("http://good.example:80", "http://good.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ] {
        assert!(origin_matches(origin, allowed), "{origin} {allowed}");
    }
    for origin in [
        "https://good.example.evil.com",
        "https://evil.good.example",
        "https://good.exampl",
        "http://good.example",
        "https://good.example:80",
        "https://good.example:4433",
        "https://good.example:",
        "https://good.example:x",
        "https://good.example:443:443",
        "https://good.example/",
        "https://good.example\\@evil.com",
        "https://good.example@evil.com",
        "https://user@good.example",
        "https://good.example#",
        " https://good.example",
        "https://good.example https://evil.com",
        "good.example",
        "://good.example",
        "https://",
        "null",
        "",
    ] {
        assert!(!origin_matches(origin, "https://good.example"), "{origin}");
    }
    assert!(!origin_matches("null", "null"));
}

#[test]
fn hs_21_offered_extensions_are_declined() {
    let offers = "permessage-deflate; client_max_window_bits=\"99, x; ; =,".to_owned()
        + &"permessage-deflate,".repeat(400);
    let found = with(
        "Connection: Upgrade\r\n",
        &format!("Connection: Upgrade\r\nSec-WebSocket-Extensions: {offers}\r\n"),
    );
    assert!(found.is_ok());
}

#[test]
fn an_acceptance_is_what_the_client_expects() {
    let mut extra = HeaderList::new();
    extra.push("X-Session", "1").unwrap();
    extra.push("sec-websocket-accept", "evil").unwrap();
    extra.push("Content-Length", "5").unwrap();
    let mut out = Vec::new();
    write_accept(&mut out, &accept_key(KEY), Some("a"), &extra);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(check_answer(&text, &["b", "a"]), Ok(Some("a".to_owned())));
    assert!(text.contains("\r\nX-Session: 1\r\n"));
    assert!(
        !text.contains("evil") && !text.contains("Content-Length"),
        "{text}"
    );
    let mut out = Vec::new();
    write_accept(&mut out, &accept_key(KEY), None, &HeaderList::new());
    assert_eq!(String::from_utf8(out).unwrap(), RESPONSE);
}

#[test]
fn a_refusal_says_why_and_what_would_do() {
    let mut out = Vec::new();
    write_refusal(&mut out, &UpgradeError::Version);
    let head_length = HeadScanner::response()
        .scan(&out, &HeadLimits::default())
        .unwrap()
        .unwrap();
    let head = ResponseHead::parse(&out[..head_length], &HeadLimits::default()).unwrap();
    assert_eq!(head.status(), 426);
    assert_eq!(head.header("sec-websocket-version"), Some(b"13".as_slice()));
    assert!(head.has_token("connection", "close") && head.has_token("connection", "upgrade"));
    let mut collector = RefusalCollector::new(&head, 1000);
    assert!(collector.push(&out[head_length..]));
    let body = String::from_utf8(collector.finish().body).unwrap();
    assert!(body.contains("13"), "{body}");
}

#[test]
fn a_written_request_is_one_that_a_server_accepts() {
    let offered = names(&["a", "b"]);
    let mut headers = HeaderList::new();
    headers.push("Authorization", "Bearer x").unwrap();
    headers.push("Sec-WebSocket-Key", "evil").unwrap();
    let request = ClientRequest::new("h:8080", "/chat?x=1")
        .and_then(|request| request.origin("http://h"))
        .and_then(|request| request.subprotocols(&offered))
        .map(|request| request.headers(&headers))
        .unwrap();
    let mut out = Vec::new();
    let key = request.write(&mut out, *b"the sample nonce");
    assert_eq!(&key, KEY);
    let head = RequestHead::parse(&out, &HeadLimits::default()).unwrap();
    let upgrade = check_request(&head).unwrap();
    assert_eq!(upgrade.accept, ACCEPT.as_bytes());
    assert_eq!(upgrade.offered().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        (head.target(), head.host(), head.port()),
        ("/chat?x=1", Some("h"), Some(8080))
    );
    assert_eq!(head.header_str("authorization"), Some("Bearer x"));
    assert_eq!(head.header_str("origin"), Some("http://h"));
}

#[test]
fn hc_14_ht_25_a_request_that_would_split_is_refused() {
    assert!(ClientRequest::new("h\r\nX: y", "/").is_err());
    assert!(ClientRequest::new("h", "/ HTTP/1.1\r\nX:").is_err());
    assert!(ClientRequest::new("h", "/a b").is_err());
    assert!(ClientRequest::new("h", "").is_err());
    let request = ClientRequest::new("h", "/").unwrap();
    assert!(request.clone().origin("a\nb").is_err());
    assert!(request.clone().subprotocols(&names(&["a\r\nb"])).is_err());
    assert!(request.subprotocols(&names(&["a, b"])).is_err());
}

#[test]
fn hc_01_only_the_right_accept_value_once_will_do() {
    let line = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    assert_eq!(check_answer(RESPONSE, &[]), Ok(None));
    assert_eq!(answer(line, ""), Err(ResponseError::MissingAccept));
    assert_eq!(
        answer(line, &line.repeat(2)),
        Err(ResponseError::SeveralAccepts)
    );
    for value in [
        ACCEPT.to_ascii_lowercase(),
        String::new(),
        "x".to_owned(),
        format!("{ACCEPT}="),
    ] {
        let found = answer(line, &format!("Sec-WebSocket-Accept: {value}\r\n"));
        assert_eq!(found, Err(ResponseError::WrongAccept), "{value}");
    }
}

#[test]
fn hc_02_connection_is_a_list_and_upgrade_in_any_case() {
    assert_eq!(
        answer("Connection: Upgrade", "Connection: Upgrade, Keep-Alive"),
        Ok(None)
    );
    assert_eq!(answer("Upgrade: websocket", "upgrade: WebSocket"), Ok(None));
    assert_eq!(
        answer("Connection: Upgrade", "X: y"),
        Err(ResponseError::Connection)
    );
    for upgrade in [
        "X: y",
        "Upgrade: websocket, h2c",
        "Upgrade: web",
        "Upgrade: websocket\r\nUpgrade: x",
    ] {
        assert_eq!(
            answer("Upgrade: websocket", upgrade),
            Err(ResponseError::Upgrade),
            "{upgrade}"
        );
    }
    assert_eq!(answer("HTTP/1.1", "HTTP/1.0"), Err(ResponseError::Http10));
}

#[test]
fn hc_03_only_one_offered_subprotocol_can_be_chosen() {
    assert_eq!(
        answer_and("Sec-WebSocket-Protocol: b"),
        Ok(Some("b".to_owned()))
    );
    for value in ["c", "B", "", "a b"] {
        let found = answer_and(&format!("Sec-WebSocket-Protocol: {value}"));
        assert_eq!(
            found,
            Err(ResponseError::Subprotocol {
                subprotocol: value.to_owned()
            })
        );
    }
    for lines in [
        "Sec-WebSocket-Protocol: a, b",
        "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a",
    ] {
        assert_eq!(answer_and(lines), Err(ResponseError::SeveralSubprotocols));
    }
    let unasked = RESPONSE.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\r\n\r\n");
    assert!(matches!(
        check_answer(&unasked, &[]),
        Err(ResponseError::Subprotocol { .. })
    ));
}

#[test]
fn hc_04_an_extension_that_was_not_offered_fails() {
    let found = answer_and("Sec-WebSocket-Extensions: permessage-deflate");
    assert_eq!(
        found,
        Err(ResponseError::Extension {
            extension: "permessage-deflate".to_owned()
        })
    );
    assert_eq!(answer_and("Sec-WebSocket-Extensions: ,"), Ok(None));
}

/// Scans prefixes that end at the cuts, then the whole.
fn scan_cut(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<std::ops::Range<usize>>, ResponseError> {
    let mut scanner = ResponseScanner::new();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        match scanner.scan(&bytes[..cut], &HeadLimits::default()) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

#[test]
fn hc_07_interim_responses_are_skipped_up_to_a_cap() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n";
    let text = format!("{interim}{RESPONSE}frames");
    let range = interim.len()..interim.len() + RESPONSE.len();
    assert_eq!(scan_cut(text.as_bytes(), []), Ok(Some(range.clone())));
    assert_eq!(scan_cut(text.as_bytes(), 0..text.len()), Ok(Some(range)));
    let hints = |count| format!("{}{RESPONSE}", "HTTP/1.1 103 x\r\n\r\n".repeat(count));
    assert!(matches!(scan_cut(hints(16).as_bytes(), []), Ok(Some(_))));
    for count in [17, 500] {
        assert_eq!(
            scan_cut(hints(count).as_bytes(), []),
            Err(ResponseError::TooManyInterim)
        );
    }
}

#[test]
fn hc_07_all_heads_together_are_bounded() {
    let big = format!("HTTP/1.1 103 x\r\nLink: {}\r\n\r\n", "x".repeat(10_000));
    let text = format!("{big}{big}{RESPONSE}");
    assert_eq!(
        scan_cut(text.as_bytes(), []),
        Err(ResponseError::Head(HeadError::TooLong))
    );
    assert_eq!(
        scan_cut(text.as_bytes(), 0..text.len()),
        Err(ResponseError::Head(HeadError::TooLong))
    );
}

#[test]
fn hc_09_frames_after_the_response_are_not_taken() {
    let text = format!("{RESPONSE}\u{1}\u{2}\r\n\r\n");
    for cut in 0..text.len() {
        assert_eq!(
            scan_cut(text.as_bytes(), [cut]),
            Ok(Some(0..RESPONSE.len())),
            "{cut}"
        );
    }
}

#[test]
fn hc_10_a_peer_that_speaks_something_else_is_named() {
    for (bytes, guess, shown) in [
        (
            b"SSH-2.0-OpenSSH_9.6\r\n".as_slice(),
            Guess::Unknown,
            "SSH-2.0-OpenSSH_9.6\\r\\n",
        ),
        (
            b"220 mail.example ESMTP\r\n",
            Guess::Unknown,
            "220 mail.example ESMTP\\r\\n",
        ),
        (b"<html>hello</html>", Guess::Unknown, "<html>hello</html>"),
        (
            b"\x15\x03\x01\0\x02\x02\x46",
            Guess::Tls,
            "\\x15\\x03\\x01\\x00\\x02\\x02F",
        ),
        (b"\x16\x03\x03\0", Guess::Tls, "\\x16\\x03\\x03\\x00"),
    ] {
        let error = scan_cut(bytes, []).unwrap_err();
        assert_eq!(
            error,
            ResponseError::NotHttp {
                guess,
                excerpt: shown.to_owned()
            }
        );
        let text = error.to_string();
        assert!(text.contains(shown), "{text}");
        assert_eq!(
            text.contains("speaks TLS on a plain port"),
            guess == Guess::Tls,
            "{text}"
        );
        let single = scan_cut(bytes, 0..bytes.len());
        assert!(matches!(single, Err(ResponseError::NotHttp { guess: g, .. }) if g == guess));
    }
}

/// Collects a response in pieces that end at the cuts.
fn collect_cut(
    response: &[u8],
    cap: usize,
    cuts: impl IntoIterator<Item = usize>,
) -> (Refusal, bool) {
    let range = scan_cut(response, []).unwrap().unwrap();
    let head = ResponseHead::parse(&response[range.clone()], &HeadLimits::default()).unwrap();
    let body = &response[range.end..];
    let mut collector = RefusalCollector::new(&head, cap);
    let mut at = 0;
    for cut in cuts.into_iter().chain([body.len()]) {
        let cut = cut.clamp(at, body.len());
        collector.push(&body[at..cut]);
        at = cut;
    }
    let done = collector.is_done();
    (collector.finish_at_eof(), done)
}

fn collect(response: &str, cap: usize) -> (Refusal, bool) {
    let whole = collect_cut(response.as_bytes(), cap, []);
    assert_eq!(
        whole,
        collect_cut(response.as_bytes(), cap, 0..response.len())
    );
    for cut in 0..response.len() {
        assert_eq!(whole, collect_cut(response.as_bytes(), cap, [cut]));
    }
    whole
}

#[test]
fn hc_05_a_refusal_keeps_status_headers_and_body() {
    let response = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"x\"\r\n\
        Transfer-Encoding: chunked\r\n\r\n6\r\n{\"why\"\r\n1\r\n:\r\n5\r\n\"no\"}\r\n0\r\n\r\n";
    let head_end = response.find("\r\n\r\n").unwrap() + 4;
    let head =
        ResponseHead::parse(&response.as_bytes()[..head_end], &HeadLimits::default()).unwrap();
    assert_eq!(
        check_response(&head, KEY, &[]),
        Err(ResponseError::Refused { status: 401 })
    );
    let (refusal, done) = collect(response, 4096);
    assert_eq!(
        (refusal.status, refusal.reason.as_str()),
        (401, "Unauthorized")
    );
    assert_eq!(
        refusal.headers.get("www-authenticate"),
        Some(b"Bearer realm=\"x\"".as_slice())
    );
    assert_eq!(refusal.body, b"{\"why\":\"no\"}");
    assert!(done && !refusal.truncated);
}

#[test]
fn hc_12_a_redirect_is_a_refusal_with_its_location() {
    let response = "HTTP/1.1 302 Found\r\nLocation: javascript:x\r\nContent-Length: 0\r\n\r\n";
    let (refusal, done) = collect(response, 10);
    assert_eq!(
        refusal.headers.get("Location"),
        Some(b"javascript:x".as_slice())
    );
    assert!(done && !refusal.truncated && refusal.body.is_empty());
}

#[test]
fn ht_22_a_refusal_says_whether_its_body_is_whole() {
    let length = |body: &str| format!("HTTP/1.1 500 x\r\nContent-Length: 5\r\n\r\n{body}");
    let close = |body: &str| format!("HTTP/1.1 500 x\r\n\r\n{body}");
    let chunked =
        |body: &str| format!("HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let both = "HTTP/1.1 500 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello";
    for (response, cap, body, truncated, done) in [
        (length("hello"), 9, "hello", false, true),
        (length("hello more"), 9, "hello", false, true),
        (length("hell"), 9, "hell", true, false),
        (length("hello"), 5, "hello", false, true),
        (length("hello"), 4, "hell", true, true),
        (length("hello"), 0, "", true, true),
        (close("hello"), 9, "hello", false, false),
        (close(""), 9, "", false, false),
        (close("hello"), 3, "hel", true, true),
        (chunked("5\r\nhello\r\n"), 9, "hello", true, false),
        (chunked("5\r\nhello\r\n0\r\n\r\n"), 5, "hello", false, true),
        (chunked("5\r\nhellox"), 9, "hello", true, true),
        (both.to_owned(), 9, "", true, true),
    ] {
        let (refusal, finished) = collect(&response, cap);
        let found = (
            String::from_utf8(refusal.body).unwrap(),
            refusal.truncated,
            finished,
        );
        assert_eq!(
            found,
            (body.to_owned(), truncated, done),
            "{response:?} {cap}"
        );
    }
}

#[test]
fn a_refusal_given_up_on_is_truncated() {
    let head = ResponseHead::parse(b"HTTP/1.1 500 x\r\n\r\n", &HeadLimits::default()).unwrap();
    let mut collector = RefusalCollector::new(&head, 10);
    assert!(!collector.push(b"part"));
    assert!(collector.finish().truncated);
}

#[test]
fn mangled_requests_never_panic_and_accept_values_are_answered() {
    let mut rng = Rng::new(0x5eed_0003);
    let mut accepted = 0;
    for _ in 0..4000 {
        let mut bytes = REQUEST.as_bytes().to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len());
            bytes[at] = b"\r\n\0 :,=aA1\xff"[rng.below(11)];
        }
        let limits = HeadLimits::default();
        let Ok(Some(length)) = HeadScanner::request().scan(&bytes, &limits) else {
            continue;
        };
        let Ok(head) = RequestHead::parse(&bytes[..length], &limits) else {
            continue;
        };
        if let Ok(upgrade) = check_request(&head) {
            let key = head.header("sec-websocket-key").unwrap();
            assert_eq!(upgrade.accept, accept_key(key), "{rng:?}");
            assert!(upgrade.offered().count() <= 64);
            accepted += 1;
        }
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn a_refusal_shows_its_body_as_text() {
    let refusal = Refusal {
        status: 403,
        reason: String::new(),
        headers: HeaderList::new(),
        body: b"not \xff you".to_vec(),
        truncated: false,
    };
    assert_eq!(refusal.to_string(), "status 403: not \u{fffd} you");
    let debug = format!("{refusal:?}");
    assert!(debug.contains("body: \"not \u{fffd} you\""), "{debug}");
}

#[test]
fn an_upgrade_request_leads_back_to_its_head() {
    let head = RequestHead::parse(REQUEST.as_bytes(), &HeadLimits::default()).unwrap();
    let upgrade = check_request(&head).unwrap();
    assert_eq!(
        upgrade.head().header("origin"),
        Some(&b"http://example.com"[..])
    );
}

#[cfg(feature = "deflate")]
#[test]
fn a_request_offers_the_extensions_that_it_is_given() {
    let request = ClientRequest::new("a.test", "/").unwrap();
    let mut out = Vec::new();
    let request = request.extensions("permessage-deflate").unwrap();
    request.write(&mut out, [0; 16]);
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"));
}
