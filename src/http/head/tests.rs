use super::*;
use crate::http::test_support::Rng;

const GOOD: &[u8] =
    b"GET /chat?room=1 HTTP/1.1\r\nHost: example.com:8080\r\nX-A: one\r\nx-a:  two \t\r\n\r\n";

fn limits() -> HeadLimits {
    HeadLimits::default()
}

fn request(head: &str) -> Result<(), HeadError> {
    whole_request(head.as_bytes(), &limits())
}

/// Scans and parses, as a server does.
fn whole_request(bytes: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
    let length = HeadScanner::request()
        .scan(bytes, limits)?
        .ok_or(HeadError::Truncated)?;
    RequestHead::parse(&bytes[..length], limits).map(drop)
}

fn with_line(line: &str) -> Result<(), HeadError> {
    request(&format!("{line}\r\nHost: h\r\n\r\n"))
}

fn with_field(field: &str) -> Result<(), HeadError> {
    request(&format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n"))
}

fn with_host(fields: &str) -> Result<(), HeadError> {
    request(&format!("GET / HTTP/1.1\r\n{fields}\r\n"))
}

/// Scans growing prefixes whose lengths come from `cuts`; the answer and the prefix it came at.
fn scan_cut(
    mut scanner: HeadScanner,
    bytes: &[u8],
    limits: &HeadLimits,
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<usize>, HeadError> {
    for cut in cuts.into_iter().chain([bytes.len()]) {
        match scanner.scan(&bytes[..cut], limits) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

/// The same answer for the whole, for single bytes and for every two-way split.
fn assert_same_in_every_split(scanner: HeadScanner, bytes: &[u8], limits: &HeadLimits) {
    let whole = scan_cut(scanner, bytes, limits, []);
    assert_eq!(
        whole,
        scan_cut(scanner, bytes, limits, 0..bytes.len()),
        "{}",
        bytes.escape_ascii()
    );
    for cut in 0..bytes.len() {
        assert_eq!(
            whole,
            scan_cut(scanner, bytes, limits, [cut]),
            "{cut} {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_request_head_is_taken_apart() {
    let head = RequestHead::parse(GOOD, &limits()).unwrap();
    assert_eq!((head.method(), head.target()), ("GET", "/chat?room=1"));
    assert_eq!((head.path(), head.query()), ("/chat", Some("room=1")));
    assert_eq!(
        (head.host(), head.port()),
        (Some("example.com"), Some(8080))
    );
    assert_eq!(head.version(), HttpVersion::Http11);
    assert_eq!(head.authority(), None);
    assert_eq!(head.header("x-A"), Some(b"one".as_slice()));
    assert_eq!(head.header_str("host"), Some("example.com:8080"));
    assert_eq!(
        head.header_values("X-a").collect::<Vec<_>>(),
        [b"one", b"two"]
    );
    assert_eq!(head.headers().count(), 3);
}

#[test]
fn a_response_head_is_taken_apart() {
    let text = b"HTTP/1.1 404 Not Here\r\nServer: x\r\n\r\n";
    let head = ResponseHead::parse(text, &limits()).unwrap();
    assert_eq!((head.status(), head.reason()), (404, "Not Here"));
    assert_eq!(head.header("server"), Some(b"x".as_slice()));
    assert_eq!(
        (head.header_str("server"), head.header_str("age")),
        (Some("x"), None)
    );
    assert!(head.headers().eq([("Server", b"x".as_slice())]));
    for line in ["HTTP/1.1 204", "HTTP/1.0 204 ", "HTTP/1.9 204 \u{e9}\t"] {
        let text = format!("{line}\r\n\r\n");
        assert_eq!(
            ResponseHead::parse(text.as_bytes(), &limits())
                .unwrap()
                .status(),
            204
        );
    }
}

#[test]
fn bad_status_lines_are_refused() {
    for (line, error) in [
        ("HTTP/1.1 99 x", HeadError::BadStatusLine),
        ("HTTP/1.1 099 x", HeadError::BadStatusLine),
        ("HTTP/1.1 600 x", HeadError::BadStatusLine),
        ("HTTP/1.1 2000", HeadError::BadStatusLine),
        ("HTTP/1.1  200 OK", HeadError::BadStatusLine),
        ("HTTP/1.1 20x OK", HeadError::BadStatusLine),
        ("HTTP/1.1 200 a\u{1}b", HeadError::BadStatusLine),
        ("HTTP/1.1", HeadError::BadStatusLine),
        ("HTTP/2.0 200 OK", HeadError::UnsupportedVersion),
    ] {
        let text = format!("{line}\r\n\r\n");
        let parsed = ResponseHead::parse(text.as_bytes(), &limits()).map(drop);
        assert_eq!(parsed, Err(error), "{line}");
        let scanned = HeadScanner::response().scan(text.as_bytes(), &limits());
        assert_eq!(scanned, Err(error), "{line}");
    }
}

#[test]
fn hs_01_hs_02_any_split_finds_the_same_end() {
    assert_same_in_every_split(HeadScanner::request(), GOOD, &limits());
    let mut followed = GOOD.to_vec();
    followed.extend_from_slice(b"\x81\x80\0\0\0\0\r\n\r\n");
    assert_eq!(
        HeadScanner::request().scan(&followed, &limits()),
        Ok(Some(GOOD.len()))
    );
    assert_same_in_every_split(HeadScanner::request(), &followed, &limits());
}

#[test]
fn hs_04_lists_are_read_over_all_lines_and_in_any_case() {
    let text = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive , ,\tUpGrade\r\n\
        connection: te\r\nUpgrade: websocketx, web\r\n\r\n";
    let head = RequestHead::parse(text, &limits()).unwrap();
    assert!(head.has_token("CONNECTION", "upgrade"));
    assert!(head.has_token("connection", "TE"));
    assert!(head.has_token("connection", "keep-alive"));
    assert!(!head.has_token("connection", "keep"));
    assert!(!head.has_token("connection", ""));
    assert!(!head.has_token("upgrade", "websocket"));
}

#[test]
fn hs_15_too_many_headers_are_refused_before_the_head_ends() {
    let many = |count: usize| {
        let fields = "a:\r\n".repeat(count - 1);
        format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    };
    let wide = HeadLimits {
        bytes: 1 << 20,
        ..limits()
    };
    assert_eq!(whole_request(many(100).as_bytes(), &wide), Ok(()));
    let error = whole_request(many(101).as_bytes(), &wide).unwrap_err();
    assert_eq!((error, error.status()), (HeadError::TooManyHeaders, 431));
    let hostile = many(2000);
    let mut scanner = HeadScanner::request();
    let cut = many(101).len() - 2;
    assert_eq!(
        scanner.scan(&hostile.as_bytes()[..cut], &wide),
        Err(HeadError::TooManyHeaders)
    );
    let hard = HeadLimits {
        headers: 1000,
        ..wide
    };
    assert_eq!(whole_request(many(MAX_HEADERS).as_bytes(), &hard), Ok(()));
    let over = many(MAX_HEADERS + 1);
    assert_eq!(
        whole_request(over.as_bytes(), &hard),
        Err(HeadError::TooManyHeaders)
    );
    let parsed = RequestHead::parse(over.as_bytes(), &hard).map(drop);
    assert_eq!(parsed, Err(HeadError::TooManyHeaders));
}

#[test]
fn hs_17_a_dribbled_head_is_looked_at_once() {
    let mut text = b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Protocol: b".to_vec();
    text.resize(60_000, b' ');
    text.extend_from_slice(b"x\r\n");
    text.extend("a:\r\n".repeat(90).bytes());
    text.extend_from_slice(b"\r\n");
    let wide = HeadLimits {
        bytes: 1 << 20,
        ..limits()
    };
    let mut scanner = HeadScanner::request();
    let mut looked_at = 0;
    for end in 1..=text.len() {
        looked_at += end - scanner.looked;
        let answer = scanner.scan(&text[..end], &wide).unwrap();
        assert_eq!(answer.is_some(), end == text.len());
    }
    assert!(looked_at <= 2 * text.len(), "{looked_at} of {}", text.len());
    let error = HeadScanner::request().scan(&text, &limits()).unwrap_err();
    assert_eq!((error, error.status()), (HeadError::TooLong, 431));
}

#[test]
fn the_length_limit_is_exact() {
    let exact = HeadLimits {
        bytes: GOOD.len(),
        ..limits()
    };
    let short = HeadLimits {
        bytes: GOOD.len() - 1,
        ..limits()
    };
    assert_eq!(whole_request(GOOD, &exact), Ok(()));
    assert_eq!(whole_request(GOOD, &short), Err(HeadError::TooLong));
    assert_eq!(
        RequestHead::parse(GOOD, &short).map(drop),
        Err(HeadError::TooLong)
    );
    for bytes in [GOOD.len(), GOOD.len() - 1, 3, 0] {
        let limits = HeadLimits { bytes, ..limits() };
        assert_same_in_every_split(HeadScanner::request(), GOOD, &limits);
    }
    let all_but_end = HeadScanner::request().scan(&GOOD[..GOOD.len() - 1], &short);
    assert_eq!(all_but_end, Err(HeadError::TooLong));
}

#[test]
fn hs_23_an_absolute_target_wins_over_host() {
    let parse = |line: &str| {
        let text = format!("{line}\r\nHost: inner\r\n\r\n");
        let head = RequestHead::parse(text.as_bytes(), &limits())?;
        let host = (head.host().map(str::to_owned), head.port());
        Ok::<_, HeadError>((
            host,
            head.path().to_owned(),
            head.query().map(str::to_owned),
        ))
    };
    let outer = |port| (Some("outer".to_owned()), port);
    assert_eq!(
        parse("GET http://outer/chat?x HTTP/1.1"),
        Ok((outer(None), "/chat".to_owned(), Some("x".to_owned())))
    );
    assert_eq!(
        parse("GET WS://outer:81 HTTP/1.1"),
        Ok((outer(Some(81)), "/".to_owned(), None))
    );
    assert_eq!(
        parse("GET http://outer?x HTTP/1.1"),
        Ok((outer(None), "/".to_owned(), Some("x".to_owned())))
    );
    assert_eq!(
        parse("CONNECT outer:443 HTTP/1.1"),
        Ok((outer(Some(443)), String::new(), None))
    );
    assert_eq!(
        parse("GET http://u@outer/ HTTP/1.1"),
        Err(HeadError::BadHost)
    );
    assert_eq!(parse("GET http:///x HTTP/1.1"), Err(HeadError::BadHost));
    assert_eq!(parse("CONNECT /x HTTP/1.1"), Err(HeadError::BadHost));
    assert_eq!(
        parse("GET ftp://outer/ HTTP/1.1"),
        Err(HeadError::BadTarget)
    );
    assert_eq!(parse("GET * HTTP/1.1"), Err(HeadError::BadTarget));
    assert!(parse("OPTIONS * HTTP/1.1").is_ok());
}

#[test]
fn ht_10_bad_names_are_refused_each_by_its_rule() {
    for (field, error) in [
        ("Name : x", HeadError::SpaceBeforeColon),
        ("Name\t: x", HeadError::SpaceBeforeColon),
        (": x", HeadError::EmptyHeaderName),
        ("Na\u{1}me: x", HeadError::BadHeaderName),
        ("Na\u{7f}me: x", HeadError::BadHeaderName),
        ("N\u{e4}me: x", HeadError::BadHeaderName),
        ("Na me: x", HeadError::BadHeaderName),
        ("Na(me): x", HeadError::BadHeaderName),
        ("colonless", HeadError::MissingColon),
    ] {
        assert_eq!(with_field(field), Err(error), "{field:?}");
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn ht_11_folded_lines_are_refused() {
    assert_eq!(with_field("A: b\r\n c"), Err(HeadError::ObsFold));
    assert_eq!(with_field("A: b\r\n\tc: d"), Err(HeadError::ObsFold));
    assert_eq!(with_field("A: b\r\n : d"), Err(HeadError::ObsFold));
    assert_eq!(
        request("GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
        Err(HeadError::ObsFold)
    );
    assert_eq!(
        request("GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n"),
        Err(HeadError::ObsFold)
    );
}

#[test]
fn ht_12_line_ends_other_than_crlf_are_refused() {
    for (text, error) in [
        ("GET / HTTP/1.1\nHost: h\n\n", HeadError::BareLf),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", HeadError::BareLf),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n", HeadError::BareLf),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::BareLf),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
            HeadError::BareCr,
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", HeadError::BareCr),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\r\n", HeadError::BareCr),
        ("\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::BareCr),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n",
            HeadError::Nul,
        ),
        ("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Nul),
    ] {
        assert_eq!(request(text), Err(error), "{text:?}");
        assert!(
            RequestHead::parse(text.as_bytes(), &limits()).is_err(),
            "{text:?}"
        );
        assert_same_in_every_split(HeadScanner::request(), text.as_bytes(), &limits());
    }
    assert_eq!(with_field("A: b\u{1}c"), Err(HeadError::BadHeaderValue));
    assert_eq!(with_field("A: b\u{7f}c"), Err(HeadError::BadHeaderValue));
    assert_eq!(with_field("A: b\tc"), Ok(()));
    let text = b"GET / HTTP/1.1\r\nHost: h\r\nA: \xff\x80\r\n\r\n";
    assert_eq!(whole_request(text, &limits()), Ok(()));
}

#[test]
fn ht_14_hosts_that_are_none_are_refused() {
    for fields in [
        "Host: user@h\r\n",
        "Host: h/path\r\n",
        "Host:\r\n",
        "Host: \t \r\n",
        "Host: :80\r\n",
        "Host: h:80:80\r\n",
        "Host: h:+80\r\n",
        "Host: h:65536\r\n",
        "Host: h:8x\r\n",
        "Host: a b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: a\\b\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [::1]x\r\n",
        "Host: [h]\r\n",
        "Host: []\r\n",
        "Host: h\u{e9}\r\n",
    ] {
        assert_eq!(with_host(fields), Err(HeadError::BadHost), "{fields:?}");
    }
    assert_eq!(with_host("A: b\r\n"), Err(HeadError::MissingHost));
    assert_eq!(
        with_host("Host: h\r\nhost: h\r\n"),
        Err(HeadError::SeveralHosts)
    );
    for fields in [
        "Host: h:\r\n",
        "Host: [::1]:80\r\n",
        "Host: 1.2.3.4\r\n",
        "Host: a_b.c.\r\n",
    ] {
        assert_eq!(with_host(fields), Ok(()), "{fields:?}");
    }
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n"), Ok(()));
    assert_eq!(
        request("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        Err(HeadError::SeveralHosts)
    );
}

#[test]
fn ht_15_bad_request_lines_are_refused_with_their_status() {
    for (line, error, status) in [
        ("GET  / HTTP/1.1", HeadError::BadRequestLine, 400),
        ("GET /  HTTP/1.1", HeadError::BadRequestLine, 400),
        ("GET / HTTP/1.1 ", HeadError::BadRequestLine, 400),
        ("GET / x HTTP/1.1", HeadError::BadRequestLine, 400),
        ("GET  HTTP/1.1", HeadError::BadRequestLine, 400),
        ("GET /", HeadError::BadRequestLine, 400),
        ("GET", HeadError::BadRequestLine, 400),
        ("GET\t/\tHTTP/1.1", HeadError::BadRequestLine, 400),
        ("GET\t/ x HTTP/1.1", HeadError::BadMethod, 400),
        ("GE(T / HTTP/1.1", HeadError::BadMethod, 400),
        ("GET /\t HTTP/1.1", HeadError::BadTarget, 400),
        ("GET /\u{e9} HTTP/1.1", HeadError::BadTarget, 400),
        ("GET /\u{7f} HTTP/1.1", HeadError::BadTarget, 400),
        ("GET chat HTTP/1.1", HeadError::BadTarget, 400),
        ("GET /x#y HTTP/1.1", HeadError::FragmentInTarget, 400),
        ("GET / http/1.1", HeadError::BadVersion, 400),
        ("GET / HTTP/01.1", HeadError::BadVersion, 400),
        ("GET / HTTP/1", HeadError::BadVersion, 400),
        ("GET / HTTP/1.10", HeadError::BadVersion, 400),
        ("GET / HTTP-1.1", HeadError::BadVersion, 400),
        ("GET / HTTP/2.0", HeadError::UnsupportedVersion, 505),
        ("GET / HTTP/0.9", HeadError::UnsupportedVersion, 505),
    ] {
        assert_eq!(with_line(line), Err(error), "{line:?}");
        assert_eq!(error.status(), status);
    }
    let parse = |line: &str| with_line(line);
    assert_eq!(parse("GET / HTTP/1.2"), Ok(()));
    assert_eq!(parse(&format!("{} / HTTP/1.1", "M".repeat(32))), Ok(()));
    assert_eq!(
        parse(&format!("{} / HTTP/1.1", "M".repeat(33))),
        Err(HeadError::BadMethod)
    );
}

#[test]
fn ht_15_a_long_target_is_refused_before_it_ends() {
    let line = |length: usize| format!("GET /{} HTTP/1.1", "x".repeat(length - 1));
    assert_eq!(with_line(&line(8192)), Ok(()));
    assert_eq!(with_line(&line(8193)), Err(HeadError::TargetTooLong));
    assert_eq!(with_line(&line(1 << 20)), Err(HeadError::TargetTooLong));
    assert_eq!(HeadError::TargetTooLong.status(), 414);
    let endless = line(9000);
    let found = HeadScanner::request().scan(&endless.as_bytes()[..8300], &limits());
    assert_eq!(found, Err(HeadError::TargetTooLong));
    let small = HeadLimits {
        target: 20,
        ..limits()
    };
    for length in [19, 20, 21, 22, 40, 60, 61, 62, 63, 64, 100] {
        let text = format!("{}\r\nHost: h\0\r\n\r\n", line(length));
        assert_same_in_every_split(HeadScanner::request(), text.as_bytes(), &small);
    }
}

#[test]
fn ht_16_an_http2_preface_is_refused_as_such() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let error = HeadScanner::request().scan(preface, &limits()).unwrap_err();
    assert_eq!((error, error.status()), (HeadError::Http2Preface, 505));
    assert_same_in_every_split(HeadScanner::request(), preface, &limits());
}

#[test]
fn other_protocols_are_recognised_by_their_first_bytes() {
    for (bytes, guess) in [
        (b"\x16\x03\x01\x02\0\x01".as_slice(), Guess::Tls),
        (b"\x80\x2e\x01\x03\x01", Guess::Ssl2),
        (b"\x05\x01\x00", Guess::Socks),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Guess::ProxyProtocol),
        (b"\r\n\r\n\0\r\nQUIT\n\x21", Guess::ProxyProtocol),
        (b"(hello)", Guess::Unknown),
        (b"\0\xff\x13\x37", Guess::Unknown),
        (b"\0\0\x12\x04\0\0\0\0\0", Guess::Unknown),
        (b" GET / HTTP/1.1\r\n", Guess::Unknown),
    ] {
        let found = HeadScanner::request().scan(bytes, &limits());
        assert_eq!(found, Err(HeadError::NotHttp(guess)));
        assert_same_in_every_split(HeadScanner::request(), bytes, &limits());
    }
    for (bytes, error) in [
        (
            b"\x15\x03\x01\0\x02".as_slice(),
            HeadError::NotHttp(Guess::Tls),
        ),
        (b"SSH-2.0-OpenSSH_9\r\n", HeadError::NotHttp(Guess::Unknown)),
        (b"220 mail ESMTP\r\n", HeadError::NotHttp(Guess::Unknown)),
        (b"<html>", HeadError::NotHttp(Guess::Unknown)),
        (
            b"\r\nHTTP/1.1 101 x\r\n\r\n",
            HeadError::NotHttp(Guess::Unknown),
        ),
        (b"\0\0\x12\x04\0\0\0\0\0", HeadError::NotHttp(Guess::Http2)),
        (b"\0\x01\x02\x03\x04", HeadError::NotHttp(Guess::Unknown)),
        (b"\0\0\x12\x05\0\0", HeadError::NotHttp(Guess::Unknown)),
        (b"HTTP/2 200\r\n\r\n", HeadError::UnsupportedVersion),
    ] {
        assert_eq!(HeadScanner::response().scan(bytes, &limits()), Err(error));
        assert_same_in_every_split(HeadScanner::response(), bytes, &limits());
    }
}

#[test]
fn a_bad_request_line_is_refused_without_waiting_for_the_headers() {
    let found = HeadScanner::request().scan(b"EHLO mail\r\n", &limits());
    assert_eq!(found, Err(HeadError::BadRequestLine));
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped() {
    for count in 0..8 {
        let mut text = b"\r\n".repeat(count);
        text.extend_from_slice(GOOD);
        let expected = match count {
            0..=MAX_LEADING_EMPTY_LINES => Ok(()),
            _ => Err(HeadError::LeadingEmptyLines),
        };
        assert_eq!(whole_request(&text, &limits()), expected, "{count}");
        assert_eq!(
            RequestHead::parse(&text, &limits()).map(drop),
            expected,
            "{count}"
        );
        assert_same_in_every_split(HeadScanner::request(), &text, &limits());
    }
}

#[test]
fn parse_wants_one_whole_head_and_no_more() {
    for end in 0..GOOD.len() {
        let found = RequestHead::parse(&GOOD[..end], &limits()).map(drop);
        assert!(
            matches!(found, Err(HeadError::Truncated | HeadError::BareLf)),
            "{end} {found:?}"
        );
    }
    let mut more = GOOD.to_vec();
    more.push(b'x');
    assert_eq!(
        RequestHead::parse(&more, &limits()).map(drop),
        Err(HeadError::BytesAfterHead)
    );
}

#[test]
fn debug_shows_no_header_values() {
    let text = b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: secret\r\n\r\n";
    let shown = format!("{:?}", RequestHead::parse(text, &limits()).unwrap());
    assert!(
        shown.contains("Authorization") && !shown.contains("secret"),
        "{shown}"
    );
}

/// What the scanner should say, by rescanning everything for every prefix.
fn naive(bytes: &[u8]) -> Option<Result<usize, HeadError>> {
    let start = bytes.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2;
    (start..=bytes.len()).find_map(|end| {
        let seen = &bytes[..end];
        let bad = |pattern: &dyn Fn(u8, Option<u8>) -> bool| {
            (0..end).any(|at| pattern(seen[at], at.checked_sub(1).map(|before| seen[before])))
        };
        if bad(&|byte, before| byte == b'\n' && before != Some(b'\r')) {
            return Some(Err(HeadError::BareLf));
        }
        if bad(&|byte, before| byte != b'\n' && before == Some(b'\r')) {
            return Some(Err(HeadError::BareCr));
        }
        if bad(&|byte, _| byte == 0) {
            return Some(Err(HeadError::Nul));
        }
        (end > start && seen[start..].ends_with(b"\r\n\r\n")).then_some(Ok(end))
    })
}

#[test]
fn mangled_heads_give_the_naive_answer_in_random_splits() {
    let mut rng = Rng::new(0x5eed_0001);
    let small = HeadLimits {
        bytes: 120,
        headers: 4,
        target: 30,
    };
    for _ in 0..4000 {
        let mut bytes = GOOD.to_vec();
        for _ in 0..rng.below(4) {
            let at = rng.below(bytes.len());
            match rng.below(3) {
                0 => bytes[at] = b"\r\n\0 :/\xff\x16H"[rng.below(9)],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n\0 :a\tz"[rng.below(8)]),
            }
        }
        for limits in [&limits(), &small] {
            let whole = scan_cut(HeadScanner::request(), &bytes, limits, []);
            let single = scan_cut(HeadScanner::request(), &bytes, limits, 0..bytes.len());
            let mut cuts: Vec<_> = (0..4).map(|_| rng.below(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let cut = scan_cut(HeadScanner::request(), &bytes, limits, cuts);
            assert_eq!(
                (whole, whole),
                (single, cut),
                "{rng:?} {}",
                bytes.escape_ascii()
            );
            // Who parses what was found is told the same, too.
            let parse = |found: Option<usize>| match found {
                Some(end) => RequestHead::parse(&bytes[..end], limits).map(|_| Some(end)),
                None => Ok(None),
            };
            let to_parse = HeadScanner::request().scan_to_parse(&bytes, limits);
            assert_eq!(
                to_parse.and_then(parse),
                whole.and_then(parse),
                "{rng:?} {}",
                bytes.escape_ascii()
            );
        }
        let found = scan_cut(HeadScanner::request(), &bytes, &limits(), []);
        let simple = matches!(
            found,
            Ok(_) | Err(HeadError::Nul | HeadError::BareCr | HeadError::BareLf)
        );
        if simple {
            let expected = naive(&bytes).transpose();
            assert_eq!(found, expected, "{rng:?} {}", bytes.escape_ascii());
        }
    }
}

#[test]
fn a_head_gives_its_fields_in_their_order_and_as_text() {
    let head = RequestHead::parse(GOOD, &limits()).unwrap();
    let fields: Vec<_> = head.headers().collect();
    assert_eq!(
        fields,
        [
            ("Host", &b"example.com:8080"[..]),
            ("X-A", b"one"),
            ("x-a", b"two")
        ]
    );
    assert_eq!(head.header_str("x-a"), Some("one"));
    assert_eq!(head.header_str("x-b"), None);
}

#[test]
fn what_a_stranger_seems_to_speak_is_named_in_the_error() {
    for (guess, name) in [
        (Guess::Http2, "HTTP/2"),
        (Guess::ProxyProtocol, "PROXY protocol"),
        (Guess::Socks, "SOCKS"),
        (Guess::Ssl2, "SSL 2.0"),
        (Guess::Tls, "TLS on a plain port"),
    ] {
        let text = HeadError::NotHttp(guess).to_string();
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn a_status_line_without_an_end_is_refused_before_the_head_is_too_large() {
    let mut limits = limits();
    limits.target = 10;
    let mut line = b"HTTP/1.1 200 ".to_vec();
    line.extend([b'x'; 500]);
    let scanned = HeadScanner::response().scan(&line, &limits);
    assert_eq!(scanned, Err(HeadError::BadStatusLine));
}

#[test]
fn a_request_line_that_is_too_long_is_told_so_whatever_else_is_wrong_with_it() {
    let line = format!("{}\r\nHost: h\r\n\r\n", "x".repeat(9000));
    let parsed = RequestHead::parse(line.as_bytes(), &limits());
    assert_eq!(parsed.unwrap_err(), HeadError::TargetTooLong);
}
