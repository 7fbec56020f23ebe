//! Large messages over TLS: opened to where they are assembled, encrypted from there, however
//! little the sockets take and whatever is between them.

use rustls::version::{TLS12, TLS13};
use wsloop::sim::{Call, Fault};
use wsloop::{Limits, ListenConfig, PlaintextPolicy, VhostConfig};

use crate::lab::{Lab, TlsStranger, rustls_client, server_tls};
use crate::support::{Log, Recorder, addr, masked, plain, request};
use crate::testpki::Pki;

#[test]
fn large_messages_over_tls_come_back_whole_and_in_order_however_they_are_cut() {
    let pki = Pki::new("ca");
    for version in [&TLS12, &TLS13] {
        for (read, io, capacity) in [
            (usize::MAX, usize::MAX, 1 << 22),
            (50_000, usize::MAX, 100_000),
            (1 << 20, 30_000, 1 << 20),
            (7_000, 16_406, 40_000),
        ] {
            let log = Log::default();
            let mut lab = Lab::new();
            let limits = Limits::default().with_output_bytes(1 << 22);
            let config = VhostConfig::new("a.test")
                .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
                .server_tls(server_tls(&pki, &["a.test"]))
                .limits(limits)
                .protocol("p", Recorder::echo(&log));
            lab.add(config);
            lab.net.set_capacity(capacity);
            let stranger = rustls_client(&pki, None, &[version]);
            let mut stranger = TlsStranger::new(lab.stranger(), stranger, "a.test");
            stranger.tls.set_buffer_limit(None);
            stranger.say(&request("/"));
            stranger.exchange(&mut lab).unwrap();
            stranger.heard();
            lab.net.limit_io(io);
            let mut expected = Vec::new();
            for (first, payload) in messages() {
                stranger.say(&masked(first, &payload));
                expected.extend(plain(first, &payload));
            }
            let heard = talk(&mut lab, &mut stranger, read);
            assert!(heard == expected, "{} of {}", heard.len(), expected.len());
        }
    }
}

#[test]
fn a_large_reply_that_cannot_be_written_ends_the_connection_with_the_reason() {
    let pki = Pki::new("ca");
    let log = Log::default();
    let mut lab = Lab::new();
    let config = VhostConfig::new("a.test")
        .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
        .server_tls(server_tls(&pki, &["a.test"]))
        .protocol("p", Recorder::echo(&log));
    lab.add(config);
    lab.net.set_capacity(1 << 22);
    let mut stranger = TlsStranger::new(
        lab.stranger(),
        rustls_client(&pki, None, &[&TLS13]),
        "a.test",
    );
    stranger.tls.set_buffer_limit(None);
    stranger.say(&request("/"));
    stranger.exchange(&mut lab).unwrap();
    stranger.heard();
    let fault = Fault::from(std::io::ErrorKind::BrokenPipe);
    let next = lab.net.calls(Call::Write) + 1;
    lab.net.fail(Call::Write, next, fault);
    stranger.say(&masked(0x82, &vec![7; 300_000]));
    let flight = stranger.flight();
    stranger.peer.write(&flight).unwrap();
    lab.turn();
    let lines = log.take();
    let end = lines.last().unwrap();
    let told = end.starts_with("closed ") && end.contains("broken pipe");
    assert!(told, "{lines:?}");
}

/// Sends what waits, as it is taken, and hears what comes until there is no more.
fn talk(lab: &mut Lab, stranger: &mut TlsStranger, read: usize) -> Vec<u8> {
    let flight = stranger.flight();
    let mut left = flight.as_slice();
    let (mut heard, mut silent) = (Vec::new(), 0);
    while silent < 10 || !left.is_empty() {
        let len = left.len().min(read);
        if stranger.peer.write(&left[..len]).is_ok() {
            left = &left[len..];
        }
        lab.turn();
        let bytes = stranger.peer.read_up_to(read);
        silent = if bytes.is_empty() { silent + 1 } else { 0 };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            stranger.tls.read_tls(&mut rest).unwrap();
            stranger.tls.process_new_packets().unwrap();
            heard.extend(stranger.heard());
        }
    }
    heard
}

fn messages() -> Vec<(u8, Vec<u8>)> {
    let bytes = |len: u32| (0..len).map(|n| (n % 251) as u8).collect();
    let text = "\u{e9}\u{1f600}x".repeat(30_000).into_bytes();
    vec![
        (0x82, bytes(300_000)),
        (0x82, bytes(300_001)),
        (0x82, b"small".to_vec()),
        (0x82, bytes(700_000)),
        (0x81, text.clone()),
        (0x82, bytes(150_000)),
        (0x81, text),
        (0x82, bytes(70_000)),
        (0x82, Vec::new()),
    ]
}
