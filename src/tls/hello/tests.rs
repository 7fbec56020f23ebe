#![allow(
    clippy::cast_possible_truncation,
    reason = "a byte of a random number is what is meant"
)]

use super::*;
use crate::tls::test_support::{End, Pki, Rng, Theirs, VERSIONS};

/// The parts of a hello, to be put together well or badly.
#[derive(Clone)]
struct Parts {
    suites: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Parts {
    fn new() -> Self {
        Self {
            suites: vec![0x1301, 0xC02B],
            extensions: vec![(13, vec![0, 2, 4, 3]), (10, vec![0, 2, 0, 29])],
        }
    }

    fn with(mut self, kind: u16, data: &[u8]) -> Self {
        self.extensions.push((kind, data.to_vec()));
        self
    }

    fn with_name(self, name: &[u8]) -> Self {
        self.with(SERVER_NAME, &server_names(&[(0, name)]))
    }

    fn body(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        let suites: Vec<u8> = self.suites.iter().flat_map(|s| s.to_be_bytes()).collect();
        body.extend(block16(&suites));
        body.extend([1, 0]);
        let mut block = Vec::new();
        for (kind, data) in &self.extensions {
            block.extend(kind.to_be_bytes());
            block.extend(block16(data));
        }
        body.extend(block16(&block));
        body
    }

    fn message(&self) -> Vec<u8> {
        message(1, &self.body())
    }

    fn wire(&self) -> Vec<u8> {
        records(&self.message(), MAX_FRAGMENT_LEN)
    }
}

fn block16(data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&len, data].concat()
}

fn server_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, &[u8])| [vec![*kind], block16(name)].concat();
    block16(&names.iter().flat_map(entry).collect::<Vec<_>>())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &len[1..], body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1][..], &block16(piece)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn whole(wire: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    HelloScan::default().scan(wire)
}

/// Scans prefixes that grow by `size`.
fn cut(wire: &[u8], size: usize) -> Result<Option<ClientHello>, HelloError> {
    let mut scan = HelloScan::default();
    for end in (size..wire.len()).step_by(size) {
        match scan.scan(&wire[..end]) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    scan.scan(wire)
}

fn hello(parts: &Parts) -> ClientHello {
    whole(&parts.wire()).unwrap().unwrap()
}

#[test]
fn a_hello_is_shown_as_it_is() {
    let parts = Parts::new()
        .with_name(b"Chat.Example.")
        .with(ALPN, b"\x00\x0c\x02h2\x08http/1.1")
        .with(SUPPORTED_VERSIONS, &[6, 0x8A, 0x8A, 3, 4, 3, 3])
        .with(0xFF01, &[0]);
    let hello = hello(&parts);
    assert_eq!(hello.server_name(), Some("chat.example"));
    let alpn: Vec<_> = hello.alpn().collect();
    assert_eq!(alpn, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(hello.cipher_suites(), [0x1301, 0xC02B]);
    assert_eq!(hello.extensions(), [13, 10, 0, 16, 43, 0xFF01]);
    assert_eq!(hello.versions(), [TlsVersion::TLS_1_3, TlsVersion::TLS_1_2]);
    assert!(hello.has_extension(0xFF01) && !hello.has_extension(5));
    assert!(!hello.looks_like_browser());
}

#[test]
fn a_hello_without_extensions_is_one_of_tls_1_2() {
    let mut body = Parts::new().body();
    body.truncate(2 + 32 + 1 + 2 + 4 + 2);
    let hello = whole(&records(&message(1, &body), 100)).unwrap().unwrap();
    assert_eq!(hello.versions(), [TlsVersion::TLS_1_2]);
    assert_eq!(
        hello.server_name_indication(),
        &ServerNameIndication::Absent
    );
    assert_eq!(hello.alpn().len(), 0);
}

#[test]
fn browsers_are_known_by_a_reserved_suite_or_an_encrypted_hello() {
    let mut grease = Parts::new();
    grease.suites.insert(0, 0x5A5A);
    assert!(hello(&grease).has_grease_cipher());
    assert!(hello(&grease).looks_like_browser());
    let encrypted = hello(&Parts::new().with(65037, &[0; 40]));
    assert!(!encrypted.has_grease_cipher() && encrypted.looks_like_browser());
    for near in [0x5A4A, 0x5B5B, 0x0A0B, 0xFFFF] {
        let mut parts = Parts::new();
        parts.suites.push(near);
        assert!(!hello(&parts).looks_like_browser(), "{near:04x}");
    }
    // A reserved extension alone is no sign: libraries send it too.
    assert!(!hello(&Parts::new().with(0x3A3A, &[])).looks_like_browser());
}

#[test]
fn every_split_and_every_size_of_records_gives_the_same_hello() {
    let parts = Parts::new().with_name(b"a.test").with(0x1234, &[9; 300]);
    let expected = whole(&parts.wire());
    assert!(matches!(expected, Ok(Some(_))));
    for record in [1, 2, 3, 4, 5, 50, 1000] {
        let wire = records(&parts.message(), record);
        for size in [1, 2, 3, 7, 100, 1777, wire.len()] {
            assert_eq!(cut(&wire, size), expected, "{record} {size}");
        }
        let mut more = wire.clone();
        more.extend(b"whatever follows");
        assert_eq!(whole(&more), expected);
        assert_eq!(whole(&wire[..wire.len() - 1]), Ok(None));
    }
}

#[test]
fn tl_06_server_names_are_normalized_ignored_or_refused() {
    use ServerNameIndication as S;
    let long = [&[b'a'; 63][..]; 4].join(&b'.');
    let name = |name: &str| Ok(S::Name(name.into()));
    let ip = |ip: &str| Ok(S::IpLiteral(ip.into()));
    let refused = || Err(HelloError::ServerName);
    let table: [(&[u8], Result<S, HelloError>); 24] = [
        (b"a.test", name("a.test")),
        (b"A.TeSt", name("a.test")),
        (b"a.test.", name("a.test")),
        (b"under_score.a.test", name("under_score.a.test")),
        (b"xn--bcher-kva.example", name("xn--bcher-kva.example")),
        (b"localhost", name("localhost")),
        (b"1.2.3.a4", name("1.2.3.a4")),
        (b"10.0.0.1", ip("10.0.0.1")),
        (b"::1", ip("::1")),
        (b"2001:db8::7", ip("2001:db8::7")),
        (b"[::1]", refused()),
        (b"1.2.3.4.", refused()),
        (b"a.b.123", refused()),
        (b"", refused()),
        (b".", refused()),
        (b"a..test", refused()),
        (b".a.test", refused()),
        (b"-a.test", refused()),
        (b"a-.test", refused()),
        (b"a test", refused()),
        (b"*.a.test", refused()),
        (b"a.test:443", refused()),
        ("b\u{fc}cher.example".as_bytes(), refused()),
        (&long, refused()),
    ];
    for (given, expected) in table {
        let wire = Parts::new().with_name(given).wire();
        let got = whole(&wire).map(|hello| hello.unwrap().server_name);
        assert_eq!(got, expected, "{}", given.escape_ascii());
    }
    let label = [b'a'; 63];
    assert!(whole(&Parts::new().with_name(&label).wire()).is_ok());
    let label = [b'a'; 64];
    assert!(whole(&Parts::new().with_name(&label).wire()).is_err());
}

#[test]
fn tl_06_one_name_is_all_there_may_be() {
    let table: [(Vec<u8>, HelloError); 6] = [
        (
            server_names(&[(0, b"a.test"), (0, b"b.test")]),
            HelloError::ServerName,
        ),
        (
            server_names(&[(0, b"a.test"), (0, b"a.test")]),
            HelloError::ServerName,
        ),
        (server_names(&[]), HelloError::ServerName),
        (server_names(&[(1, b"a.test")]), HelloError::ServerName),
        (vec![], HelloError::Malformed("server name")),
        (
            [server_names(&[(0, b"a.test")]), vec![0]].concat(),
            HelloError::Malformed("server name"),
        ),
    ];
    for (data, expected) in table {
        let wire = Parts::new().with(SERVER_NAME, &data).wire();
        assert_eq!(whole(&wire), Err(expected), "{data:?}");
    }
    // What stands behind a name of unknown type cannot be read.
    let data = server_names(&[(0, b"a.test"), (9, b"?")]);
    let hello = hello(&Parts::new().with(SERVER_NAME, &data));
    assert_eq!(hello.server_name(), Some("a.test"));
}

#[test]
fn an_extension_may_be_there_once() {
    let twice = Parts::new()
        .with(0x1234, &[])
        .with(5, &[])
        .with(0x1234, &[1]);
    let error = HelloError::DuplicateExtension(0x1234);
    assert_eq!(whole(&twice.wire()), Err(error));
    assert_eq!(error.alert(), Some(Alert::ILLEGAL_PARAMETER));
}

#[test]
fn every_truncation_of_the_body_is_malformed_or_another_hello() {
    let parts = Parts::new()
        .with_name(b"a.test")
        .with(ALPN, b"\x00\x03\x02h2")
        .with(SUPPORTED_VERSIONS, &[2, 3, 4]);
    let body = parts.body();
    for end in 0..body.len() {
        let wire = records(&message(1, &body[..end]), MAX_FRAGMENT_LEN);
        match whole(&wire) {
            Err(error) => assert_eq!(error.alert(), Some(Alert::DECODE_ERROR), "{end}"),
            // Where the extensions would begin.
            Ok(hello) => assert_eq!(hello.unwrap().extensions(), [0; 0], "{end}"),
        }
    }
    let longer = [&body[..], &[0]].concat();
    let wire = records(&message(1, &longer), MAX_FRAGMENT_LEN);
    assert_eq!(whole(&wire), Err(HelloError::Malformed("extensions")));
}

#[test]
fn lists_that_are_empty_or_odd_are_malformed() {
    let with = |kind, data: &[u8]| whole(&Parts::new().with(kind, data).wire());
    for data in [
        &[0, 0][..],
        &[0, 1, 0],
        &[0, 2, 5, b'h'],
        &[0, 3, 2, b'h', b'2', 0],
    ] {
        assert_eq!(
            with(ALPN, data),
            Err(HelloError::Malformed("ALPN")),
            "{data:?}"
        );
    }
    let error = Err(HelloError::Malformed("supported versions"));
    for data in [&[][..], &[0], &[1, 3], &[2, 3, 4, 0]] {
        assert_eq!(with(SUPPORTED_VERSIONS, data), error, "{data:?}");
    }
    let mut parts = Parts::new();
    parts.suites.clear();
    assert_eq!(
        whole(&parts.wire()),
        Err(HelloError::Malformed("cipher suites"))
    );
}

#[test]
fn records_that_carry_no_hello_are_refused() {
    let message = Parts::new().message();
    let begin = records(&message[..20], 20);
    let then = |more: &[u8]| [&begin, more].concat();
    let table = [
        (records(&[2, 0, 0, 0], 4), HelloError::NotAClientHello(2)),
        (records(&[0], 1), HelloError::NotAClientHello(0)),
        (then(&[23, 3, 3, 0, 1, 0]), HelloError::Interrupted(23)),
        (then(&[20, 3, 3, 0, 1, 1]), HelloError::Interrupted(20)),
        (then(&[22, 3, 3, 0, 0]), HelloError::EmptyRecord),
        (vec![22, 3, 1, 0, 0], HelloError::EmptyRecord),
        (vec![22, 3, 1, 0x40, 1], HelloError::RecordTooLong(0x4001)),
    ];
    for (wire, error) in table {
        for size in [1, 3, 100] {
            assert_eq!(cut(&wire, size), Err(error));
        }
    }
    // SSL 3.0's version number in the record is what old stacks send; 2.0's is not TLS.
    assert!(whole(&[22, 3, 0, 0]).is_ok());
    let unknown = HelloError::NotTls(ForeignProtocol::Unknown);
    assert_eq!(whole(&[22, 2, 0, 0]), Err(unknown));
}

#[test]
fn tl_17_a_hello_is_bounded_in_itself_and_on_the_wire() {
    let padded = |len: usize| {
        let empty = Parts::new().with(21, &[]).message().len();
        Parts::new().with(21, &vec![0; len - empty])
    };
    let wire = padded(MAX_HELLO_LEN).wire();
    assert!(whole(&wire).unwrap().is_some());
    let wire = padded(MAX_HELLO_LEN + 1).wire();
    let limit = MAX_HELLO_LEN;
    assert_eq!(whole(&wire), Err(HelloError::TooLarge { limit }));
    // Refused by its header, before any of it is kept.
    let announced = records(&[1, 0xFF, 0xFF, 0xFF], 4);
    assert_eq!(whole(&announced), Err(HelloError::TooLarge { limit }));
    let limit = MAX_HELLO_WIRE_LEN;
    let tiny = records(&padded(12_000).message(), 1);
    for size in [1000, tiny.len()] {
        assert_eq!(cut(&tiny, size), Err(HelloError::TooLarge { limit }));
    }
    let small = records(&padded(12_000).message(), 2);
    assert!(whole(&small).unwrap().is_some());
}

#[test]
fn many_extensions_take_no_quadratic_time() {
    let mut parts = Parts::new();
    parts.extensions = (0..4000).map(|kind| (60 + kind, Vec::new())).collect();
    assert_eq!(hello(&parts).extensions().len(), 4000);
}

#[test]
fn the_first_byte_sorts_a_connection() {
    assert_eq!(first_byte(0x16), FirstByte::Tls);
    assert_eq!(first_byte(b'G'), FirstByte::MaybeHttp);
    assert_eq!(first_byte(b'\r'), FirstByte::MaybeHttp);
    assert_eq!(first_byte(0x80), FirstByte::MaybeSslV2);
    assert_eq!(first_byte(0x15), FirstByte::Other);
    assert_eq!(first_byte(0), FirstByte::Other);
}

#[test]
fn a_guess_never_changes_with_more_bytes() {
    for seed in 1..=5000 {
        let mut rng = Rng::new(seed);
        let mut wire: Vec<u8> = (0..40)
            .map(|_| b"GET HTP/1.RI*\r\n\x16\x15\x03\x80\x01\xFF"[rng.below(21)])
            .collect();
        if seed % 4 == 0 {
            wire[..6].copy_from_slice(b"HTTP/1");
        }
        for sniff in [sniff_client, sniff_server] {
            let whole = sniff(&wire);
            assert_ne!(whole, Sniffed::Undecided);
            for end in 0..wire.len() {
                let part = sniff(&wire[..end]);
                assert!(part == whole || part == Sniffed::Undecided, "seed {seed}");
                assert!(end < 24 || part == whole);
            }
        }
    }
}

/// What rustls' own parser makes of the same bytes.
fn rustls_view(wire: &[u8]) -> Option<Result<Option<String>, rustls::Error>> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = wire;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return None;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Some(Ok(name));
            }
            Err((error, _)) => return Some(Err(error)),
        }
    }
    None
}

#[test]
fn what_rustls_accepts_is_read_the_same() {
    let pki = Pki::new();
    let config = std::sync::Arc::new(pki.client_config(&VERSIONS));
    let mut agreed = 0;
    for seed in 1..=3000 {
        let mut rng = Rng::new(seed);
        let mut client = Theirs::client_for(&config, "long-enough-to-be-hit.a.test");
        let mut wire = client.take_out();
        for _ in 0..rng.below(3) {
            let at = 5 + rng.below(wire.len() - 5);
            wire[at] = match rng.below(3) {
                0 => wire[at] ^ (1 << rng.below(8)),
                1 => b"aA1-_.*: "[rng.below(9)],
                _ => rng.next() as u8,
            };
        }
        let ours = cut(&wire, 1 + rng.below(300));
        match (rustls_view(&wire), ours) {
            (Some(Ok(theirs)), Ok(Some(ours))) => {
                let theirs = theirs.as_deref().map(|name| name.trim_end_matches('.'));
                assert_eq!(ours.server_name(), theirs, "seed {seed}");
                agreed += 1;
            }
            (Some(Ok(_)), ours) => panic!("seed {seed}: rustls accepts, we say {ours:?}"),
            (None, ours) => assert!(!matches!(ours, Ok(Some(_))), "seed {seed}"),
            // rustls looks at more extensions, and judges what is in them.
            (Some(Err(_)), _) => {}
        }
    }
    assert!(agreed > 1000, "{agreed}");
}

#[test]
fn versions_read_as_people_write_them() {
    let texts = [0x0300, 0x0301, 0x0303, 0x0304, 0x7F1C].map(|v| TlsVersion::new(v).to_string());
    assert_eq!(
        texts,
        ["SSL 3.0", "TLS 1.0", "TLS 1.2", "TLS 1.3", "version 0x7f1c"]
    );
}
