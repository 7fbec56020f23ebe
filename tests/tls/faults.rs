//! What goes wrong under TLS, on the wire and at the sockets, and what becomes of large and slow
//! transfers.

use std::io;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use wsloop::sim::Call;
use wsloop::tls::{Alert, ClientTls, ForeignProtocol, TlsFailure, TlsStage};
use wsloop::{
    ClientConnectInfo, ConnectStage, Limits, PlaintextPolicy, ProtocolHandle, VhostId, WsiId,
};

use crate::lab::{
    Event, Failed, Lab, Probe, Refused, TlsStranger, roots, rustls_client, rustls_server,
    server_tls, url,
};
use crate::support::{addr, close_payload, masked, plain, request};
use crate::testpki::Pki;

struct Site {
    lab: Lab,
    pki: Pki,
    handle: ProtocolHandle<Probe>,
}

impl Site {
    fn new() -> Self {
        let pki = Pki::new("ca");
        Self::on(pki, Lab::new())
    }

    fn on(pki: Pki, mut lab: Lab) -> Self {
        let tls = server_tls(&pki, &["a.test"]);
        let (config, handle) = lab.server_config("a.test", tls, PlaintextPolicy::Reject);
        lab.add(config);
        Self { lab, pki, handle }
    }

    fn client(&mut self) -> (VhostId, ProtocolHandle<Probe>) {
        let tls = ClientTls::new(roots(&self.pki));
        self.lab.client_with("client", tls)
    }

    fn stranger(&mut self, version: &'static SupportedProtocolVersion) -> TlsStranger {
        let config = rustls_client(&self.pki, None, &[version]);
        TlsStranger::new(self.lab.stranger(), config, "a.test")
    }

    /// A stranger with an established WebSocket.
    fn open(&mut self, version: &'static SupportedProtocolVersion) -> TlsStranger {
        let mut stranger = self.stranger(version);
        stranger.say(&request("/"));
        stranger.exchange(&mut self.lab).unwrap();
        assert!(stranger.heard().starts_with(b"HTTP/1.1 101 "));
        self.lab.journal.take();
        stranger
    }
}

/// What a whole short session tells, for comparison.
fn session(journal: &crate::lab::Journal) -> Vec<String> {
    let told = journal.pick(|event| match event {
        Event::Open(open) => Some(format!("open {} {}", open.who, open.is_tls)),
        Event::Text(who, text) => Some(format!("text {who} {text}")),
        Event::Binary(who, len) => Some(format!("binary {who} {len}")),
        Event::Closed(end) => Some(format!("closed {} {} {}", end.who, end.code, end.clean)),
        Event::Report(report) => Some(format!("report {:?} {:?}", report.side, report.failure)),
        Event::ConnectError(failed) => Some(failed.text.clone()),
        Event::Refused(refused) => Some(refused.text.clone()),
        Event::Filter { who, .. } => Some(format!("filter {who}")),
        Event::Expiring(..) | Event::Identity(..) | Event::Warning(..) => None,
    });
    journal.take();
    told
}

/// In records of one byte each.
fn in_small_records(flight: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in &flight[5..] {
        out.extend_from_slice(&[22, 3, 1, 0, 1, *byte]);
    }
    out
}

#[test]
fn tl_01_a_client_hello_may_come_in_any_pieces() {
    for version in [&TLS12, &TLS13] {
        type Shape = fn(Vec<u8>) -> Vec<Vec<u8>>;
        let shapes: [Shape; 4] = [
            |hello| hello.iter().map(|byte| vec![*byte]).collect(),
            |hello| vec![in_small_records(&hello)],
            |hello| {
                in_small_records(&hello)
                    .chunks(7)
                    .map(<[u8]>::to_vec)
                    .collect()
            },
            |hello| {
                in_small_records(&hello)
                    .iter()
                    .map(|byte| vec![*byte])
                    .collect()
            },
        ];
        for shape in shapes {
            let mut site = Site::new();
            let mut stranger = site.stranger(version);
            let hello = stranger.flight();
            for piece in shape(hello) {
                stranger.peer.write(&piece).unwrap();
                site.lab.context.service(Some(Duration::ZERO)).unwrap();
            }
            stranger.say(&request("/"));
            stranger.exchange(&mut site.lab).unwrap();
            assert!(stranger.heard().starts_with(b"HTTP/1.1 101 "));
        }
    }
}

#[test]
fn tl_01_a_client_hello_with_more_behind_it_is_served_or_refused_in_order() {
    let change_cipher_spec = [20, 3, 3, 0, 1, 1];
    let garbage = [23, 3, 3, 0, 20]
        .iter()
        .copied()
        .chain([0xaa; 20])
        .collect::<Vec<u8>>();
    for (more, served) in [(change_cipher_spec.as_slice(), true), (&garbage, false)] {
        let mut site = Site::new();
        let mut stranger = site.stranger(&TLS13);
        let mut hello = stranger.flight();
        hello.extend_from_slice(more);
        stranger.peer.write(&hello).unwrap();
        site.lab.turn();
        stranger.say(&request("/"));
        let _ = stranger.exchange(&mut site.lab);
        assert_eq!(site.lab.journal.opens("a.test") == 1, served);
        if !served {
            let refused = site.lab.journal.refused().unwrap();
            assert!(refused.tls.is_some(), "{}", refused.text);
        }
    }
}

/// How a stranger goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Closing,
    Silently,
    Reset,
}

const WAYS: [Leaves; 3] = [Leaves::Closing, Leaves::Silently, Leaves::Reset];

fn leave(lab: &mut Lab, mut stranger: TlsStranger, way: Leaves) {
    if way == Leaves::Closing {
        stranger.tls.send_close_notify();
        let out = stranger.flight();
        let _ = stranger.peer.write(&out);
    }
    stranger.peer.read();
    match way {
        Leaves::Reset => stranger.peer.reset(),
        _ => stranger.peer.close(),
    }
    lab.turn();
}

/// What a server is told about a client that came `far` bytes into its flights and left. Exactly
/// one thing.
fn server_told(
    version: &'static SupportedProtocolVersion,
    way: Leaves,
    prepare: fn(&mut Site, &mut TlsStranger),
) -> Refused {
    let mut site = Site::new();
    let mut stranger = site.stranger(version);
    prepare(&mut site, &mut stranger);
    leave(&mut site.lab, stranger, way);
    let refused = site.lab.journal.refused().expect("somebody left");
    assert!(site.lab.journal.refused().is_none(), "told twice");
    assert_eq!(site.lab.journal.opens("a.test"), 0);
    assert_eq!(site.lab.context.connections(), 0);
    refused
}

#[test]
fn tl_02_a_client_that_leaves_is_told_with_the_stage_it_left_at() {
    for version in [&TLS12, &TLS13] {
        for way in [Leaves::Silently, Leaves::Reset] {
            let stage = |refused: Refused| match refused.tls {
                Some(TlsFailure::Closed(stage)) if way == Leaves::Silently => stage,
                Some(TlsFailure::Lost {
                    stage,
                    kind: io::ErrorKind::ConnectionReset,
                }) if way == Leaves::Reset => stage,
                other => panic!("{version:?} {way:?}: {other:?} {}", refused.text),
            };
            let refused = server_told(version, way, |site, stranger| {
                let hello = stranger.flight();
                stranger.peer.write(&hello[..40]).unwrap();
                site.lab.turn();
            });
            assert_eq!(stage(refused), TlsStage::ClientHello);
            let refused = server_told(version, way, |site, stranger| {
                let hello = stranger.flight();
                stranger.peer.write(&hello).unwrap();
                site.lab.turn();
            });
            assert_eq!(stage(refused), TlsStage::ClientFlight);
            let refused = server_told(version, way, |site, stranger| {
                let hello = stranger.flight();
                stranger.peer.write(&hello).unwrap();
                site.lab.turn();
                stranger.take().unwrap();
                let answer = stranger.flight();
                stranger.peer.write(&answer[..answer.len() - 1]).unwrap();
                site.lab.turn();
            });
            assert_eq!(stage(refused), TlsStage::ClientFlight);
            // Nothing has said yet that it would be TLS.
            let refused = server_told(version, way, |_, _| {});
            let expected = match way {
                Leaves::Reset => "Io",
                _ => "Closed",
            };
            assert_eq!(refused.kind, expected, "{}", refused.text);
        }
    }
}

#[test]
fn tl_02_a_client_that_leaves_before_its_request_is_told_like_one_without_tls() {
    for version in [&TLS12, &TLS13] {
        for way in WAYS {
            for sent in [0, 30] {
                let mut site = Site::new();
                let mut stranger = site.stranger(version);
                stranger.exchange(&mut site.lab).unwrap();
                stranger.say(&request("/")[..sent]);
                stranger.exchange(&mut site.lab).unwrap();
                leave(&mut site.lab, stranger, way);
                let refused = site.lab.journal.refused().expect("somebody left");
                println!("{version:?} {way:?} {sent}: {}", refused.text);
                let expected: &[&str] = match way {
                    Leaves::Reset => &["Io", "Closed", "Tls"],
                    Leaves::Silently => &["Closed", "Tls"],
                    Leaves::Closing => &["Closed"],
                };
                assert!(
                    expected.contains(&refused.kind.as_str()),
                    "{way:?} {}",
                    refused.text
                );
                assert!(site.lab.journal.refused().is_none());
                assert_eq!(site.lab.context.connections(), 0);
            }
        }
    }
}

#[test]
fn tl_02_a_close_notify_in_the_middle_of_a_handshake_ends_it() {
    for version in [&TLS12, &TLS13] {
        for sent_hello in [0, 1, 40, usize::MAX] {
            let mut site = Site::new();
            let mut stranger = site.stranger(version);
            let mut hello = stranger.flight();
            hello.truncate(sent_hello);
            hello.extend_from_slice(&[21, 3, 3, 0, 2, 1, 0]);
            stranger.peer.write(&hello).unwrap();
            stranger.peer.shutdown_write();
            site.lab.turn();
            site.lab.pass(Duration::from_secs(6));
            let refused = site.lab.journal.refused().expect("somebody left");
            assert!(!refused.text.is_empty());
            assert!(site.lab.journal.refused().is_none());
            drop(stranger);
            site.lab.pass(Duration::from_secs(6));
            assert_eq!(
                site.lab.context.connections(),
                0,
                "{version:?} {sent_hello}"
            );
        }
    }
}

/// What a client is told about a server that went along until `prepare` and left.
fn client_told(
    version: &'static SupportedProtocolVersion,
    way: Leaves,
    prepare: fn(&mut Lab, &mut TlsStranger),
) -> Failed {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.net.name("a.test", [addr().ip()]);
    let listener = lab.net.listen(addr()).unwrap();
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    let leaf = pki.leaf(&["a.test"]).issue();
    let config = rustls_server(&leaf, &[version]);
    let mut stranger = TlsStranger::server(listener.accept().unwrap(), config);
    prepare(&mut lab, &mut stranger);
    leave(&mut lab, stranger, way);
    let failed = lab.journal.connect_error().expect("the server left");
    assert!(lab.journal.connect_error().is_none(), "told twice");
    assert_eq!(lab.context.connections(), 0);
    failed
}

fn nothing(_: &mut Lab, stranger: &mut TlsStranger) {
    stranger.peer.read();
}

fn half_a_server_hello(lab: &mut Lab, stranger: &mut TlsStranger) {
    stranger.take().unwrap();
    let flight = stranger.flight();
    stranger.peer.write(&flight[..20]).unwrap();
    lab.turn();
}

fn half_a_flight(lab: &mut Lab, stranger: &mut TlsStranger) {
    stranger.take().unwrap();
    let flight = with_server_hello_alone(&stranger.flight());
    stranger.peer.write(&flight[..flight.len() - 4]).unwrap();
    lab.turn();
}

/// With the first message in a record of its own.
fn with_server_hello_alone(flight: &[u8]) -> Vec<u8> {
    let record = usize::from(u16::from_be_bytes([flight[3], flight[4]]));
    let message = 4 + usize::from(u16::from_be_bytes([flight[7], flight[8]]));
    if message == record {
        return flight.to_vec();
    }
    let mut out = flight.to_vec();
    let [first, second] = [message, record - message].map(|len| (len as u16).to_be_bytes());
    out[3..5].copy_from_slice(&first);
    out.splice(
        5 + message..5 + message,
        [22, 3, 3].into_iter().chain(second),
    );
    out
}

fn a_flight(lab: &mut Lab, stranger: &mut TlsStranger) {
    stranger.take().unwrap();
    let flight = stranger.flight();
    stranger.peer.write(&flight).unwrap();
    lab.turn();
}

fn everything(lab: &mut Lab, stranger: &mut TlsStranger) {
    stranger.exchange(lab).unwrap();
}

#[test]
fn tl_02_a_server_that_leaves_is_told_with_the_stage_it_left_at() {
    type Prepare = fn(&mut Lab, &mut TlsStranger);
    for way in [Leaves::Silently, Leaves::Reset] {
        let cases: [(_, Prepare, _); 7] = [
            (&TLS12, nothing, TlsStage::ServerHello),
            (&TLS13, nothing, TlsStage::ServerHello),
            (&TLS12, half_a_server_hello, TlsStage::ServerHello),
            (&TLS13, half_a_server_hello, TlsStage::ServerHello),
            (&TLS12, half_a_flight, TlsStage::ServerFlight),
            (&TLS13, half_a_flight, TlsStage::ServerFlight),
            (&TLS12, a_flight, TlsStage::ServerFinished),
        ];
        for (version, prepare, stage) in cases {
            let failed = client_told(version, way, prepare);
            let kind = io::ErrorKind::ConnectionReset;
            let expected = match way {
                Leaves::Reset => TlsFailure::Lost { stage, kind },
                _ => TlsFailure::Closed(stage),
            };
            let told = failed.tls.as_ref();
            assert_eq!(
                told,
                Some(&expected),
                "{version:?} {way:?}: {}",
                failed.text
            );
            assert_eq!(failed.stage, ConnectStage::Tls);
        }
    }
}

#[test]
fn tl_02_a_server_that_leaves_after_the_handshake_is_told_at_the_response() {
    for version in [&TLS12, &TLS13] {
        for way in WAYS {
            let failed = client_told(version, way, everything);
            assert_eq!(failed.stage, ConnectStage::Response, "{}", failed.text);
            match way {
                // An orderly end is no failure of TLS.
                Leaves::Closing => assert_eq!(failed.tls, None, "{}", failed.text),
                Leaves::Silently => assert_eq!(failed.tls, Some(TlsFailure::Truncated)),
                Leaves::Reset => {
                    assert_eq!(failed.tls, None, "{version:?}: {}", failed.text);
                    assert!(failed.text.contains("reset"), "{}", failed.text);
                }
            }
        }
    }
}

#[test]
fn tl_03_what_is_no_tls_is_named() {
    let cases: [(&[u8], ForeignProtocol); 6] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            ForeignProtocol::PlainHttp,
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ForeignProtocol::Ssh),
        (b"220 mail.test ESMTP\r\n", ForeignProtocol::Text),
        (&[0x80, 0x2e, 1, 3, 1], ForeignProtocol::SslV2),
        (&[0, 1, 2, 3, 4, 5, 6, 7, 8], ForeignProtocol::Unknown),
        (&[0, 0, 0x12, 4, 0, 0, 0, 0, 0], ForeignProtocol::Unknown),
    ];
    for (bytes, guess) in cases {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        lab.net.name("a.test", [addr().ip()]);
        let listener = lab.net.listen(addr()).unwrap();
        let client = lab.client("client", ClientTls::new(roots(&pki)));
        lab.dial(client, &url("a.test"));
        let stranger = listener.accept().unwrap();
        stranger.read();
        stranger.write(bytes).unwrap();
        lab.turn();
        let failed = lab.journal.connect_error().unwrap();
        assert_eq!(
            failed.tls,
            Some(TlsFailure::NotTls(guess)),
            "{}",
            failed.text
        );
        assert!(failed.text.contains(&guess.to_string()), "{}", failed.text);
        assert_eq!(failed.stage, ConnectStage::Tls);
    }
}

/// Each in one piece and byte by byte: what the server makes of it, what it answers.
#[test]
fn tl_03_what_comes_to_a_tls_port_is_named_answered_if_that_helps_and_closed() {
    use ForeignProtocol as F;
    let foreign = |guess| Some(TlsFailure::NotTls(guess));
    let protocol_version = &[21, 3, 3, 0, 2, 2, 70];
    let cases: [(&[u8], Option<TlsFailure>, &[u8]); 13] = [
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            None,
            b"HTTP/1.1 400 ",
        ),
        (
            b"\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            None,
            b"HTTP/1.1 400 ",
        ),
        (b"GET /\r\n", None, b"HTTP/1.1 400 "),
        (b"SSH-2.0-OpenSSH_9.6\r\n", foreign(F::Ssh), b""),
        (b"EHLO mail.test\r\n", foreign(F::Text), b""),
        (b"220 mail.test ESMTP\r\n", foreign(F::Text), b""),
        (
            b"PROXY TCP4 10.0.0.2 10.0.0.1 1 80\r\n",
            foreign(F::Proxy),
            b"",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", foreign(F::Http2), b""),
        (
            &[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10],
            foreign(F::SslV2),
            protocol_version,
        ),
        (&[0, 0xff, 0x13, 0x37, 0, 0, 0, 0], foreign(F::Unknown), b""),
        (&[0xff, 0xfe, 0xfd, 0xfc], foreign(F::Unknown), b""),
        (
            &[0x15, 3, 1, 0, 2, 2, 40],
            foreign(F::Alert(Alert::HANDSHAKE_FAILURE)),
            b"",
        ),
        (
            &[0x16, 0xff, 0xff, 0, 5, 1, 0, 0, 1, 0],
            foreign(F::Unknown),
            b"",
        ),
    ];
    for (bytes, expected, answer) in cases {
        for size in [1, 3, bytes.len()] {
            let mut site = Site::new();
            let peer = site.lab.stranger();
            for piece in bytes.chunks(size) {
                let _ = peer.write(piece);
                site.lab.turn();
            }
            let refused = site.lab.journal.refused().expect("nobody serves that");
            assert_eq!(
                refused.tls, expected,
                "{bytes:x?} by {size}: {}",
                refused.text
            );
            match &expected {
                None => assert!(refused.text.contains("wss://"), "{}", refused.text),
                Some(failure) => {
                    let report = site.lab.journal.report(wsloop::Side::Server).unwrap();
                    assert_eq!(report.failure.as_ref(), Some(failure));
                    let again = site.lab.journal.report(wsloop::Side::Server);
                    assert!(again.is_none(), "reported twice");
                    assert!(refused.trace.is_some());
                }
            }
            let said = peer.read();
            let fits = said.starts_with(answer) && said.is_empty() == answer.is_empty();
            assert!(fits, "{bytes:x?} by {size}: {said:x?}");
            site.lab.pass(Duration::from_secs(6));
            assert!(peer.ended() || peer.was_reset());
            assert_eq!(site.lab.context.connections(), 0);
            assert_eq!(site.lab.context.tls_handshakes(), 0);
        }
    }
}

/// Beside plain HTTP, which is served, what is no TLS is judged by the parser of HTTP.
#[test]
fn tl_03_what_comes_to_a_port_for_both_is_named() {
    for (bytes, word) in [
        (&[0x80, 0x2e, 1, 3, 1, 0][..], "SSL 2.0"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "request line"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (&[0, 0xff, 0x13, 0x37], "does not speak HTTP"),
        (&[0x15, 3, 1, 0, 2, 2, 40], "TLS"),
    ] {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        let tls = server_tls(&pki, &["a.test"]);
        let (config, _) = lab.server_config("a.test", tls, PlaintextPolicy::Serve);
        lab.add(config);
        let peer = lab.stranger();
        peer.write(bytes).unwrap();
        lab.turn();
        let refused = lab.journal.refused().expect("nobody serves that");
        assert!(refused.text.contains(word), "{bytes:x?}: {}", refused.text);
        assert!(
            bytes[0] != 0 || !refused.text.contains("HTTP/2"),
            "{}",
            refused.text
        );
        lab.pass(Duration::from_secs(6));
        assert_eq!(lab.context.connections(), 0);
    }
}

#[test]
fn tl_22_cl_10_an_end_without_close_notify_is_no_clean_one_unless_the_websocket_was_closed() {
    for version in [&TLS12, &TLS13] {
        let frame = masked(0x81, b"half of this");
        let mut kinds = std::collections::BTreeSet::new();
        for (sent, way) in [
            (&frame[..9], Leaves::Silently),
            (&frame[..9], Leaves::Closing),
            (&frame[..9], Leaves::Reset),
            (&frame, Leaves::Silently),
            (&frame, Leaves::Closing),
            (&frame, Leaves::Reset),
        ] {
            let mut site = Site::new();
            let mut stranger = site.open(version);
            stranger.say(sent);
            stranger.exchange(&mut site.lab).unwrap();
            leave(&mut site.lab, stranger, way);
            let end = site.lab.journal.closed("a.test").unwrap();
            assert_eq!((end.code, end.clean), (1006, false), "{way:?} {end:?}");
            let whole = usize::from(sent.len() == frame.len());
            assert_eq!(site.lab.journal.texts("a.test").len(), whole);
            kinds.insert(end.kind);
        }
        assert_eq!(kinds.len(), 3, "each has a reason of its own: {kinds:?}");
        let truncated = TlsFailure::Truncated.to_string();
        assert!(kinds.contains(&format!("TLS: {truncated}")), "{kinds:?}");
        let mut site = Site::new();
        let mut stranger = site.open(version);
        stranger.say(&masked(0x88, &close_payload(1000, "bye")));
        stranger.exchange(&mut site.lab).unwrap();
        assert_eq!(stranger.heard(), plain(0x88, &close_payload(1000, "bye")));
        leave(&mut site.lab, stranger, Leaves::Silently);
        let end = site.lab.journal.closed("a.test").unwrap();
        assert_eq!(
            (end.code, end.clean),
            (1000, true),
            "the Close frames are proof enough"
        );
    }
}

#[test]
fn a_record_that_was_changed_on_the_way_ends_the_connection() {
    for version in [&TLS12, &TLS13] {
        let mut site = Site::new();
        let mut stranger = site.open(version);
        stranger.say(&masked(0x81, b"hello"));
        let mut out = stranger.flight();
        let last = out.len() - 1;
        out[last] ^= 1;
        stranger.peer.write(&out).unwrap();
        site.lab.turn();
        let end = site.lab.journal.closed("a.test").unwrap();
        assert_eq!(end.tls, Some(TlsFailure::BadRecord), "{end:?}");
        assert_eq!((end.code, end.clean), (1006, false));
        // The alert says so to the peer.
        let error = stranger.take().unwrap_err();
        let alert = rustls::AlertDescription::BadRecordMac;
        assert_eq!(error, rustls::Error::AlertReceived(alert));
        assert!(site.lab.journal.texts("a.test").is_empty());
    }
}

#[test]
fn the_end_of_a_websocket_is_also_an_orderly_end_of_tls() {
    for version in [&TLS12, &TLS13] {
        let mut site = Site::new();
        let mut stranger = site.open(version);
        stranger.say(&masked(0x88, &close_payload(1000, "")));
        stranger.exchange(&mut site.lab).unwrap();
        assert!(stranger.peer.ended());
        let state = stranger.tls.process_new_packets().unwrap();
        assert!(state.peer_has_closed(), "close_notify comes before the end");
    }
}

#[test]
fn tm_03_a_server_that_does_not_answer_the_hello_is_given_up() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    lab.net.name("a.test", [addr().ip()]);
    let listener = lab.net.listen(addr()).unwrap();
    let client = lab.client("client", ClientTls::new(roots(&pki)));
    lab.dial(client, &url("a.test"));
    let _stranger = listener.accept().unwrap();
    lab.pass(Duration::from_secs(9));
    assert!(lab.journal.connect_error().is_none());
    lab.pass(Duration::from_secs(2));
    let failed = lab.journal.connect_error().unwrap();
    assert_eq!(failed.stage, ConnectStage::Tls);
    assert!(
        failed.text.contains("TLS handshake took longer than 10s"),
        "{}",
        failed.text
    );
    assert_eq!(lab.context.connections(), 0);
}

/// A whole session of our client with our server.
fn whole_session(site: &mut Site) -> Vec<String> {
    let (client, handle) = site.client();
    let info = ClientConnectInfo::from_url(&url("a.test")).unwrap();
    let id = site.lab.context.client_connect(client, info).unwrap();
    settle(&mut site.lab);
    let sent = site.lab.context.with_protocol(handle, |_, cx| {
        let mut peer = cx.peer(id)?;
        peer.send_binary(&[7; 3000]).ok()?;
        Some(())
    });
    settle(&mut site.lab);
    if sent.flatten().is_some() {
        site.lab
            .context
            .with_protocol(handle, |_, cx| cx.close(id, wsloop::Close::normal()));
    }
    settle(&mut site.lab);
    let told = session(&site.lab.journal);
    site.lab.context.destroy_vhost(client).unwrap();
    site.lab.turn();
    told
}

/// Turns until nothing moves any more.
fn settle(lab: &mut Lab) {
    let calls =
        |lab: &Lab| [Call::Read, Call::Write, Call::Connect].map(|call| lab.net.calls(call));
    for _ in 0..20_000 {
        let before = calls(lab);
        for _ in 0..4 {
            lab.context.service(Some(Duration::ZERO)).unwrap();
        }
        if calls(lab) == before {
            return;
        }
    }
    panic!("it never settles");
}

#[test]
fn however_little_moves_at_once_the_callbacks_are_the_same() {
    let whole = whole_session(&mut Site::new());
    for side in ["client", "a.test"] {
        assert!(
            whole
                .iter()
                .any(|line| line == &format!("closed {side} 1000 true")),
            "{whole:?}"
        );
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let of = |lines: &[String], who: &str| -> Vec<String> {
        lines
            .iter()
            .filter(|line| line.contains(who))
            .cloned()
            .collect()
    };
    for limit in (1..=70).chain([100, 255, 1000, 1029]) {
        let mut site = Site::new();
        site.lab.net.limit_io(limit);
        let told = whole_session(&mut site);
        for who in ["client", "a.test"] {
            assert_eq!(of(&told, who), of(&whole, who), "{limit}");
        }
        assert_eq!(sorted(told), sorted(whole.clone()), "{limit}");
    }
}

#[test]
fn ciphertext_may_be_cut_at_every_byte() {
    for version in [&TLS12, &TLS13] {
        let mut site = Site::new();
        let mut stranger = site.open(version);
        let mut script = masked(0x81, b"one");
        script.extend(masked(0x89, b"ping"));
        script.extend(masked(0x01, b"tw"));
        script.extend(masked(0x80, b"o"));
        let mut answer = plain(0x81, b"one");
        answer.extend(plain(0x8a, b"ping"));
        answer.extend(plain(0x81, b"two"));
        let mut cut = 1;
        loop {
            stranger.say(&script);
            let out = stranger.flight();
            if cut >= out.len() {
                break;
            }
            let (one, two) = out.split_at(cut);
            stranger.peer.write(one).unwrap();
            few_turns(&mut site.lab);
            stranger.peer.write(two).unwrap();
            few_turns(&mut site.lab);
            assert_eq!(site.lab.journal.texts("a.test"), ["one", "two"], "{cut}");
            site.lab.journal.take();
            stranger.take().unwrap();
            assert_eq!(stranger.heard(), answer, "{cut}");
            cut += 1;
        }
        assert!(cut > 50);
    }
}

#[test]
fn the_handshake_of_a_client_may_be_cut_at_every_byte() {
    for version in [&TLS12, &TLS13] {
        let mut site = Site::new();
        for flight in [0, 1] {
            let mut cut = 1;
            loop {
                let peer = site.lab.net.dial(addr()).unwrap();
                let config = rustls_client(&site.pki, None, &[version]);
                let mut stranger = TlsStranger::new(peer, config, "a.test");
                stranger.say(&request("/"));
                if flight == 1 {
                    let hello = stranger.flight();
                    stranger.peer.write(&hello).unwrap();
                    few_turns(&mut site.lab);
                    stranger.take().unwrap();
                }
                let out = stranger.flight();
                if cut >= out.len() {
                    break;
                }
                let (one, two) = out.split_at(cut);
                stranger.peer.write(one).unwrap();
                few_turns(&mut site.lab);
                stranger.peer.write(two).unwrap();
                few_turns(&mut site.lab);
                stranger.take().unwrap();
                let out = stranger.flight();
                stranger.peer.write(&out).unwrap();
                few_turns(&mut site.lab);
                stranger.take().unwrap();
                let out = stranger.flight();
                stranger.peer.write(&out).unwrap();
                few_turns(&mut site.lab);
                assert_eq!(
                    site.lab.journal.opens("a.test"),
                    1,
                    "{version:?} {flight} {cut}"
                );
                drop(stranger);
                few_turns(&mut site.lab);
                site.lab.journal.take();
                cut += 3;
            }
            assert!(cut > 50);
        }
    }
}

#[test]
fn the_flight_of_a_server_may_be_cut_at_every_byte() {
    for version in [&TLS12, &TLS13] {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        lab.net.name("a.test", [addr().ip()]);
        let listener = lab.net.listen(addr()).unwrap();
        let client = lab.client("client", ClientTls::new(roots(&pki)).sessions(0));
        let config = rustls_server(&pki.leaf(&["a.test"]).issue(), &[version]);
        let mut cut = 1;
        loop {
            let info = ClientConnectInfo::from_url(&url("a.test")).unwrap();
            lab.context.client_connect(client, info).unwrap();
            few_turns(&mut lab);
            let peer = listener.accept().unwrap();
            let mut stranger = TlsStranger::server(peer, config.clone());
            stranger.take().unwrap();
            let out = stranger.flight();
            if cut >= out.len() {
                break;
            }
            let (one, two) = out.split_at(cut);
            stranger.peer.write(one).unwrap();
            few_turns(&mut lab);
            stranger.peer.write(two).unwrap();
            few_turns(&mut lab);
            stranger.take().unwrap();
            let out = stranger.flight();
            stranger.peer.write(&out).unwrap();
            few_turns(&mut lab);
            stranger.take().unwrap();
            let heard = stranger.heard();
            assert!(
                heard.starts_with(b"GET / HTTP/1.1\r\n"),
                "{version:?} {cut}"
            );
            assert!(lab.journal.connect_error().is_none());
            drop(stranger);
            few_turns(&mut lab);
            lab.journal.take();
            cut += 5;
        }
        assert!(cut > 500);
    }
}

fn few_turns(lab: &mut Lab) {
    for _ in 0..4 {
        lab.context.service(Some(Duration::ZERO)).unwrap();
    }
}

/// Every connection ends in exactly one way, and nothing is left.
#[test]
fn whichever_read_or_write_fails_everybody_is_told_once() {
    for call in [Call::Read, Call::Write] {
        let mut site = Site::new();
        let before = site.lab.net.calls(call);
        whole_session(&mut site);
        let all = site.lab.net.calls(call) - before;
        assert!(all > 5, "{all}");
        for nth in 1..=all {
            for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
                let mut site = Site::new();
                site.lab.net.fail(call, nth, kind);
                let mut told = whole_session(&mut site);
                site.lab.pass(Duration::from_secs(20));
                told.extend(session(&site.lab.journal));
                let count =
                    |begin: &str| told.iter().filter(|line| line.starts_with(begin)).count();
                assert_eq!(
                    count("open client"),
                    count("closed client"),
                    "{call:?} {nth} {told:?}"
                );
                assert_eq!(
                    count("open a.test"),
                    count("closed a.test"),
                    "{call:?} {nth} {told:?}"
                );
                let errors = count("a.test:80: ");
                assert_eq!(count("open client") + errors, 1, "{call:?} {nth} {told:?}");
                assert_eq!(site.lab.context.connections(), 0, "{call:?} {nth}");
            }
        }
    }
}

#[test]
fn a_call_that_only_has_to_be_made_again_changes_nothing() {
    let whole = whole_session(&mut Site::new());
    for call in [Call::Read, Call::Write] {
        let mut site = Site::new();
        whole_session(&mut site);
        let all = site.lab.net.calls(call);
        for nth in 1..=all {
            for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
                let mut site = Site::new();
                site.lab.net.fail(call, nth, kind);
                let mut told = whole_session(&mut site);
                let mut expected = whole.clone();
                told.sort();
                expected.sort();
                assert_eq!(told, expected, "{call:?} {nth} {kind}");
            }
        }
    }
}

const MIB: usize = 1024 * 1024;

/// Opens a WebSocket of our client with our server, whose messages come back.
fn pair(site: &mut Site) -> (ProtocolHandle<Probe>, WsiId) {
    let (client, handle) = site.client();
    let id = site.lab.dial(client, &url("a.test"));
    settle(&mut site.lab);
    assert_eq!(site.lab.journal.texts("client"), ["hello"]);
    site.lab.journal.take();
    (handle, id)
}

fn send_binary(lab: &mut Lab, handle: ProtocolHandle<Probe>, id: WsiId, bytes: &[u8]) {
    let sent = lab
        .context
        .with_protocol(handle, |_, cx| cx.peer(id).unwrap().send_binary(bytes));
    sent.unwrap().unwrap();
}

fn binaries(lab: &Lab, of: &str) -> Vec<usize> {
    lab.journal.pick(|event| match event {
        Event::Binary(who, len) if who == of => Some(*len),
        _ => None,
    })
}

#[test]
fn a_large_message_goes_there_and_back_through_small_pipes() {
    for (capacity, limit, len) in [
        (64 * 1024, usize::MAX, MIB),
        (4096, usize::MAX, MIB),
        (64 * 1024, 1500, MIB),
        (1000, 333, MIB / 4),
        (64 * 1024, 1, 5000),
        (1, usize::MAX, 5000),
    ] {
        let mut site = Site::new();
        site.lab.net.set_capacity(capacity);
        site.lab.net.limit_io(limit);
        let (handle, id) = pair(&mut site);
        send_binary(&mut site.lab, handle, id, &vec![0x5a; len]);
        for _ in 0..20 {
            settle(&mut site.lab);
        }
        assert_eq!(binaries(&site.lab, "a.test"), [len], "{capacity} {limit}");
        assert_eq!(binaries(&site.lab, "client"), [len], "{capacity} {limit}");
    }
}

/// TL-20: what a paused connection has taken out of the socket is not forgotten, although no event
/// will remind of it.
#[test]
fn tl_20_a_paused_reader_gets_everything_after_it_resumes_and_nothing_before() {
    for limit in [usize::MAX, 1000] {
        let mut site = Site::new();
        site.lab.net.limit_io(limit);
        let (handle, id) = pair(&mut site);
        site.lab.context.with_protocol(site.handle, |_, cx| {
            cx.for_each_peer(|mut peer| peer.pause_reading());
        });
        for n in 0..100 {
            let text = format!("message {n}");
            let sent = site
                .lab
                .context
                .with_protocol(handle, |_, cx| cx.peer(id).unwrap().send_text(&text));
            sent.unwrap().unwrap();
        }
        settle(&mut site.lab);
        assert!(site.lab.journal.texts("a.test").is_empty());
        site.lab.context.with_protocol(site.handle, |_, cx| {
            cx.for_each_peer(|mut peer| peer.resume_reading());
        });
        settle(&mut site.lab);
        let expected: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
        assert_eq!(site.lab.journal.texts("a.test"), expected);
        assert_eq!(site.lab.journal.texts("client"), expected);
    }
}

/// Many small records in one segment, and a record with many messages: one turn is enough.
#[test]
fn tl_20_whatever_one_segment_holds_is_delivered_without_another_event() {
    let mut site = Site::new();
    let mut stranger = site.open(&TLS13);
    let mut out = Vec::new();
    for n in 0..50 {
        stranger.say(&masked(0x81, format!("r{n}").as_bytes()));
        out.extend(stranger.flight());
    }
    let many: Vec<u8> = (0..50)
        .flat_map(|n| masked(0x81, format!("m{n}").as_bytes()))
        .collect();
    stranger.say(&many);
    out.extend(stranger.flight());
    stranger.peer.write(&out).unwrap();
    site.lab.context.service(Some(Duration::ZERO)).unwrap();
    let expected: Vec<String> = (0..50)
        .map(|n| format!("r{n}"))
        .chain((0..50).map(|n| format!("m{n}")))
        .collect();
    assert_eq!(site.lab.journal.texts("a.test"), expected);
}

/// What a stranger can decrypt of what has come, and what the closing said was not delivered, is
/// all there was.
#[test]
fn what_is_not_delivered_is_counted_by_whole_records() {
    for version in [&TLS12, &TLS13] {
        for capacity in [1000, 16_000, 20_000, 40_000, 100_000, 400_000] {
            let mut site = Site::new();
            let mut stranger = site.open(version);
            site.lab.net.set_capacity(capacity);
            let frame = plain(0x82, &vec![1; 300_000]).len();
            let mut id = None;
            site.lab.context.with_protocol(site.handle, |_, cx| {
                cx.for_each_peer(|mut peer| {
                    peer.send_binary(&vec![1; 300_000]).unwrap();
                    id = Some(peer.id());
                });
            });
            settle(&mut site.lab);
            site.lab
                .context
                .with_protocol(site.handle, |_, cx| cx.abort(id.unwrap()).unwrap());
            let arrived = stranger.peer.read();
            let mut cursor = io::Cursor::new(arrived);
            let mut heard = 0;
            while stranger.tls.read_tls(&mut cursor).unwrap_or(0) > 0 {
                stranger.tls.process_new_packets().unwrap();
                heard += stranger.heard().len();
            }
            settle(&mut site.lab);
            let end = site.lab.journal.closed("a.test").unwrap();
            assert_eq!(
                end.undelivered as usize,
                frame - heard,
                "{version:?} {capacity} {heard}"
            );
        }
    }
}

#[test]
fn a_reader_that_takes_nothing_fills_the_queue_and_is_found_out() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let tls = server_tls(&pki, &["a.test"]);
    let (config, handle) = lab.server_config("a.test", tls, PlaintextPolicy::Reject);
    lab.add(config.limits(Limits::default().with_output_bytes(10_000)));
    lab.net.set_capacity(4000);
    let mut site = Site { lab, pki, handle };
    let _stranger = site.open(&TLS13);
    let mut accepted = 0;
    let mut refused = false;
    for _ in 0..1000 {
        site.lab.context.with_protocol(site.handle, |_, cx| {
            cx.for_each_peer(|mut peer| match peer.send_binary(&[0; 1000]) {
                Ok(_) => accepted += 1,
                Err(error) => refused = matches!(error, wsloop::SendError::Full { .. }),
            });
        });
        site.lab.turn();
    }
    assert!(refused && accepted < 200, "{accepted}");
}

/// Server side: after the handshake has failed, what the client goes on sending changes nothing.
#[test]
fn a_failed_handshake_is_told_once_and_its_alert_survives_what_the_client_goes_on_sending() {
    let mut site = Site::new();
    let peer = site.lab.stranger();
    // A record of a type that does not belong here, behind a record header that looks right.
    peer.write(&[22, 3, 1, 0, 4, 2, 0, 0, 0]).unwrap();
    site.lab.turn();
    assert_eq!(
        site.lab
            .journal
            .count(|event| matches!(event, Event::Refused(_))),
        1
    );
    for _ in 0..10 {
        let _ = peer.write(&[22, 3, 1, 0, 4, 2, 0, 0, 0]);
        site.lab.pass(Duration::from_millis(100));
    }
    let reports = site
        .lab
        .journal
        .count(|event| matches!(event, Event::Report(_)));
    assert_eq!(reports, 1, "one report of one handshake");
    assert!(!peer.was_reset(), "a reset destroys the alert");
    assert!(crate::lab::clear_alert(&peer.read()).is_some());
    assert_eq!(site.lab.context.connections(), 1, "it lingers");
    drop(peer);
    site.lab.turn();
    assert_eq!(site.lab.context.connections(), 0);
}

/// A handshake ends once: what goes wrong later is told by the final event.
#[test]
fn a_bad_record_after_the_handshake_is_no_second_handshake() {
    for version in [&TLS12, &TLS13] {
        let mut site = Site::new();
        let stranger = site.open(version);
        stranger.peer.write(&[23, 3, 3, 0, 20]).unwrap();
        stranger.peer.write(&[0xaa; 20]).unwrap();
        site.lab.turn();
        let reports = site
            .lab
            .journal
            .count(|event| matches!(event, Event::Report(_)));
        assert_eq!(reports, 0, "{version:?}");
        assert!(site.lab.journal.closed("a.test").unwrap().tls.is_some());
    }
}
