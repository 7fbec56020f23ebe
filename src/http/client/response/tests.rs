use super::*;
use crate::http::test_support::Rng;

/// What a whole connection gave: heads, body, how many bytes were used, whether it may be used
/// again; or the error.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    interim: Vec<u16>,
    status: Option<u16>,
    body: Vec<u8>,
    used: usize,
    done: bool,
    keeps: bool,
    error: Option<ResponseReadError>,
}

fn read_cut(
    reader: &mut ResponseReader,
    input: &[u8],
    cuts: impl Iterator<Item = usize>,
) -> Outcome {
    let mut outcome = Outcome {
        interim: Vec::new(),
        status: None,
        body: Vec::new(),
        used: 0,
        done: false,
        keeps: false,
        error: None,
    };
    for cut in cuts.chain([input.len()]) {
        while let Some(rest) = input.get(outcome.used..cut.max(outcome.used)) {
            match reader.next(rest) {
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
                Ok(progress) => {
                    outcome.used += progress.consumed;
                    match progress.item {
                        None => break,
                        Some(ResponseItem::Interim(head)) => outcome.interim.push(head.status()),
                        Some(ResponseItem::Head(head)) => outcome.status = Some(head.status()),
                        Some(ResponseItem::Data(data)) => outcome.body.extend_from_slice(data),
                        Some(ResponseItem::End) => outcome.done = true,
                    }
                }
            }
        }
    }
    assert_eq!(outcome.done, reader.is_done());
    outcome.keeps = reader.keeps_connection();
    outcome
}

fn reader(to: ResponseTo, max: u64) -> ResponseReader {
    ResponseReader::new(to, HeadLimits::default(), max)
}

/// The outcome, which must be the same for every split.
fn read_to(to: ResponseTo, input: &str) -> Outcome {
    let input = input.as_bytes();
    let whole = read_cut(&mut reader(to, 1000), input, std::iter::empty());
    let single = read_cut(&mut reader(to, 1000), input, 0..input.len());
    assert_same(&whole, &single, input);
    for cut in 0..input.len().min(300) {
        let cut = read_cut(&mut reader(to, 1000), input, std::iter::once(cut));
        assert_same(&whole, &cut, input);
    }
    whole
}

/// The text of what is no HTTP depends on how much of it has come.
fn assert_same(one: &Outcome, other: &Outcome, input: &[u8]) {
    let not_http =
        |outcome: &Outcome| matches!(outcome.error, Some(ResponseReadError::NotHttp { .. }));
    if not_http(one) && not_http(other) {
        return;
    }
    // An error in the body may be found before or behind the data in front of it.
    if one.error.is_some() && one.error == other.error {
        return;
    }
    assert_eq!(one, other, "{}", input.escape_ascii());
}

fn read(input: &str) -> Outcome {
    read_to(ResponseTo::Other, input)
}

fn error(input: &str) -> ResponseReadError {
    let outcome = read(input);
    outcome
        .error
        .unwrap_or_else(|| panic!("{input:?} was accepted"))
}

#[test]
fn each_framing_gives_its_body_and_leaves_what_follows() {
    for (input, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "abcde",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1;x=y\r\na\r\n0\r\nX-T: 1\r\n\r\n",
            "a",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            "no",
        ),
        ("HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        let outcome = read(&format!("{input}HTTP/1.1 200 of somebody else"));
        assert_eq!(outcome.body, body.as_bytes(), "{input:?}");
        assert_eq!(outcome.used, input.len(), "{input:?}");
        assert!(outcome.done && outcome.keeps, "{input:?}");
    }
}

#[test]
fn ht_22_a_body_that_ends_with_the_connection_ends_with_its_orderly_end_only() {
    let input = b"HTTP/1.1 200 OK\r\n\r\nall of it";
    let mut orderly = reader(ResponseTo::Other, 1000);
    let outcome = read_cut(&mut orderly, input, std::iter::empty());
    assert!(!outcome.done && orderly.ends_with_connection());
    let mut truncated = orderly.clone();
    assert_eq!(orderly.end(Eof::Orderly), Ok(()));
    assert!(orderly.is_done() && !orderly.keeps_connection());
    let cut = ResponseReadError::Body(BodyError::CutShort);
    assert_eq!(truncated.end(Eof::Truncated), Err(cut));
}

#[test]
fn ht_22_a_connection_that_ends_early_is_an_error_wherever_it_ends() {
    for input in [
        "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        for cut in 0..input.len() {
            let part = &input.as_bytes()[..cut];
            let mut reader = reader(ResponseTo::Other, 1000);
            let outcome = read_cut(&mut reader, part, std::iter::empty());
            assert!(!outcome.done);
            assert_eq!(reader.began(), cut > 0);
            let expected = if reader.has_head() {
                ResponseReadError::Body(BodyError::CutShort)
            } else {
                ResponseReadError::Closed
            };
            assert_eq!(reader.end(Eof::Orderly), Err(expected), "cut at {cut}");
            assert!(!reader.keeps_connection());
        }
    }
}

#[test]
fn what_has_no_body_has_none_whatever_it_declares() {
    for (to, input, keeps) in [
        (
            ResponseTo::Head,
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
            true,
        ),
        (
            ResponseTo::Head,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        (ResponseTo::Head, "HTTP/1.1 200 OK\r\n\r\n", true),
        (
            ResponseTo::Other,
            "HTTP/1.1 304 Same\r\nContent-Length: 500\r\n\r\n",
            true,
        ),
        (ResponseTo::Other, "HTTP/1.1 204 None\r\n\r\n", true),
        (
            ResponseTo::Other,
            "HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        // Such a server may well send the five bytes: nobody's response may follow them.
        (
            ResponseTo::Other,
            "HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n",
            false,
        ),
        (
            ResponseTo::Other,
            "HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        ),
    ] {
        let outcome = read_to(to, input);
        assert!(outcome.done && outcome.body.is_empty(), "{input:?}");
        assert_eq!(outcome.keeps, keeps, "{to:?} {input:?}");
    }
}

#[test]
fn hc_07_interim_responses_are_told_and_counted() {
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let outcome = read(&format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{last}"
    ));
    assert_eq!(
        (outcome.interim.as_slice(), outcome.status),
        ([100, 102, 103].as_slice(), Some(200))
    );
    assert!(outcome.done && outcome.keeps);
    let many = "HTTP/1.1 103 Early\r\n\r\n".repeat(16);
    assert!(read(&format!("{many}{last}")).done);
    let many = "HTTP/1.1 103 Early\r\n\r\n".repeat(500);
    assert_eq!(
        error(&format!("{many}{last}")),
        ResponseReadError::TooManyInterim
    );
    assert_eq!(
        error("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ResponseReadError::UnexpectedUpgrade
    );
}

#[test]
fn ht_26_smuggling_forms_are_refused_in_responses_too() {
    use BodyError as B;
    for (fields, problem) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            B::LengthAndCoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            B::LengthAndCoding,
        ),
        ("Content-Length: 5\r\nContent-Length: 5", B::SeveralLengths),
        ("Content-Length: 5\r\ncontent-length: 6", B::SeveralLengths),
        ("Content-Length: 5, 5", B::Length),
        ("Content-Length: 5,6", B::Length),
        ("Content-Length: +5", B::Length),
        ("Content-Length: -5", B::Length),
        ("Content-Length: 0x5", B::Length),
        ("Content-Length: 5 5", B::Length),
        ("Content-Length: ", B::Length),
        ("Content-Length: 1_0", B::Length),
        ("Content-Length: 18446744073709551616", B::Length),
        ("Transfer-Encoding: xchunked", B::NotChunked),
        ("Transfer-Encoding: chunked, chunked", B::Coding),
        ("Transfer-Encoding: gzip, chunked", B::Coding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            B::Coding,
        ),
        ("Transfer-Encoding: identity", B::NotChunked),
        ("Transfer-Encoding: ", B::NotChunked),
        ("Transfer-Encoding: chunked;q=1", B::NotChunked),
    ] {
        for status in ["200 OK", "204 None", "304 Same", "404 No"] {
            let input = format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\nhello");
            assert_eq!(error(&input), ResponseReadError::Body(problem), "{input:?}");
        }
    }
    assert_eq!(
        error("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ResponseReadError::Body(B::CodingOnHttp10)
    );
}

#[test]
fn ht_26_malformed_heads_and_chunks_are_refused_in_responses_too() {
    use HeadError as H;
    for (input, problem) in [
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", H::BareLf),
        ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", H::BareCr),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", H::Nul),
        (
            "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            H::SpaceBeforeColon,
        ),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", H::ObsFold),
        ("HTTP/1.1 200 OK\r\n: a\r\n\r\n", H::EmptyHeaderName),
        ("HTTP/1.1 200 OK\r\nX\r\n\r\n", H::MissingColon),
        ("HTTP/1.1 20 OK\r\n\r\n", H::BadStatusLine),
        ("HTTP/1.1 099 OK\r\n\r\n", H::BadStatusLine),
        ("HTTP/1.1 600 OK\r\n\r\n", H::BadStatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n", H::BadStatusLine),
        ("HTTP/2.0 200 OK\r\n\r\n", H::UnsupportedVersion),
    ] {
        assert_eq!(error(input), ResponseReadError::Head(problem), "{input:?}");
    }
    use BodyError as B;
    for (chunks, problem) in [
        ("0x5\r\nhello\r\n0\r\n\r\n", B::ChunkSize),
        ("5 \r\nhello\r\n0\r\n\r\n", B::ChunkSize),
        ("+5\r\nhello\r\n0\r\n\r\n", B::ChunkSize),
        ("FFFFFFFFFFFFFFFFF\r\n", B::ChunkSize),
        ("5\nhello\r\n0\r\n\r\n", B::ChunkSize),
        ("5\r\nhelloX\r\n", B::ChunkEnd),
        ("5;\x01\r\nhello\r\n", B::ChunkExtension),
        ("0\r\nbad trailer\r\n\r\n", B::Trailer),
    ] {
        let input = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(error(&input), ResponseReadError::Body(problem), "{input:?}");
    }
}

#[test]
fn hc_10_what_is_no_http_is_shown() {
    for (input, excerpt) in [
        ("SSH-2.0-OpenSSH_9\r\n", "SSH"),
        ("220 mail ESMTP\r\n", "220"),
        ("<html>", "<html>"),
        ("\x15\x03\x01\0\x02\x02", "\\x15"),
    ] {
        let shown = read_cut(
            &mut reader(ResponseTo::Other, 10),
            input.as_bytes(),
            std::iter::empty(),
        );
        let text = shown.error.unwrap().to_string();
        assert!(
            text.contains("does not speak HTTP") && text.contains(excerpt),
            "{text}"
        );
    }
    let tls = error("\x15\x03\x01\0\x02").to_string();
    assert!(tls.contains("TLS on a plain port"), "{tls}");
}

#[test]
fn a_body_over_the_limit_is_refused_as_early_as_it_shows() {
    let limit = ResponseReadError::BodyTooLong { limit: 1000 };
    assert_eq!(
        error("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"),
        limit
    );
    let long = "x".repeat(1001);
    assert_eq!(error(&format!("HTTP/1.1 200 OK\r\n\r\n{long}")), limit);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(error(&format!("{chunked}3e9\r\n{long}")), limit);
    let fits = "x".repeat(1000);
    assert!(
        read(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{fits}"
        ))
        .done
    );
    // What is not sent cannot be too long.
    assert!(
        read_to(
            ResponseTo::Head,
            "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"
        )
        .done
    );
}

#[test]
fn a_connection_is_kept_when_both_versions_rules_say_so() {
    for (version, fields, keeps) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: x, CLOSE\r\n", false),
        ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Connection: closed\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.2", "", true),
    ] {
        let outcome = read(&format!(
            "{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n"
        ));
        assert_eq!(outcome.keeps, keeps, "{version} {fields:?}");
        assert!(outcome.done);
    }
    assert!(!read("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nx").keeps);
}

#[test]
fn random_bytes_never_panic_and_never_keep_a_connection_that_they_broke() {
    let base: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
    ];
    let mut rng = Rng::new(0x5eed_0001);
    for round in 0..20_000 {
        let mut bytes = base[round % 3].to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len());
            match rng.below(3) {
                0 => bytes[at] = u8::try_from(rng.below(256)).unwrap(),
                1 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, b"\r\n 0:;,5"[rng.below(8)]),
            }
        }
        let mut one = reader(ResponseTo::Other, 100);
        let whole = read_cut(&mut one, &bytes, std::iter::empty());
        let mut two = reader(ResponseTo::Other, 100);
        let split = read_cut(&mut two, &bytes, 0..bytes.len());
        assert_same(&whole, &split, &bytes);
        assert!(
            !(one.keeps_connection() && whole.error.is_some()),
            "{rng:?}"
        );
    }
}

#[test]
fn what_has_failed_or_is_complete_stays_so() {
    let mut reader = ResponseReader::new(ResponseTo::Other, HeadLimits::default(), 100);
    let error = reader.next(b"SSH-2.0-OpenSSH\r\n").unwrap_err();
    let again = reader.next(b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(again.unwrap_err(), error);
    assert_eq!(reader.end(Eof::Orderly), Err(error));

    let mut reader = ResponseReader::new(ResponseTo::Other, HeadLimits::default(), 100);
    let whole = b"HTTP/1.1 204 No Content\r\n\r\n";
    let outcome = read_cut(&mut reader, whole, std::iter::empty());
    assert!(outcome.done && outcome.keeps, "{outcome:?}");
    assert_eq!(reader.end(Eof::Orderly), Ok(()));
    assert!(!reader.keeps_connection());
}
