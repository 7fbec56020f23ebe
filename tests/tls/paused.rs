//! Reading that the application has paused, over TLS: what came in the same segment as the end of
//! the stream is not lost.

use std::io::ErrorKind;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use wsloop::sim::Call;
use wsloop::{ListenConfig, PlaintextPolicy, ProtocolHandle, VhostConfig};

use crate::lab::{Lab, TlsStranger, rustls_client, server_tls};
use crate::support::{Log, Recorder, addr, close_payload, masked, request};
use crate::testpki::Pki;

#[test]
fn a_pause_keeps_what_came_with_the_close_notify() {
    for version in [&TLS12, &TLS13] {
        let (mut lab, log, handle, mut stranger) = pausing(version);
        let mut all = masked(0x81, b"one");
        all.extend(masked(0x81, b"two"));
        all.extend(masked(0x88, &close_payload(1000, "")));
        stranger.say(&all);
        stranger.tls.send_close_notify();
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        lab.turn();
        assert_eq!(log.take(), ["text \"one\""], "the rest waits");
        for expected in [
            &["text \"two\""][..],
            &[
                "peer_close Some(\"1000 \\\"\\\"\")",
                "closed Peer closed by the peer, code 1000, clean",
            ],
        ] {
            lab.context.with_protocol(handle, |_, cx| {
                cx.for_each_peer(|mut peer| peer.resume_reading());
            });
            lab.turn();
            stranger.peer.read();
            assert_eq!(log.take(), expected);
        }
    }
}

#[test]
fn a_pause_keeps_what_came_before_a_reset_or_a_write_that_failed() {
    for (version, reset) in [
        (&TLS12, true),
        (&TLS13, true),
        (&TLS12, false),
        (&TLS13, false),
    ] {
        let (mut lab, log, handle, mut stranger) = pausing(version);
        stranger.say(&masked(0x81, b"one"));
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        lab.turn();
        let mut more = masked(0x81, b"two");
        more.extend(masked(0x88, &close_payload(1000, "")));
        stranger.say(&more);
        let flight = stranger.flight();
        if reset {
            // What the reset finds unread is lost, so this comes in with what was resumed for.
            lab.context.with_protocol(handle, |_, cx| {
                cx.for_each_peer(|mut peer| peer.resume_reading());
            });
            stranger.say(&masked(0x81, b"not taken any more"));
            let all = [flight, stranger.flight()].concat();
            stranger.peer.write(&all).unwrap();
            lab.turn();
            assert_eq!(log.take(), ["text \"one\"", "text \"two\""]);
            let TlsStranger { peer, .. } = stranger;
            peer.reset();
        } else {
            stranger.peer.write(&flight).unwrap();
            lab.turn();
            assert_eq!(log.take(), ["text \"one\""]);
            let writes = lab.net.calls(Call::Write);
            lab.net.fail(Call::Write, writes + 1, ErrorKind::BrokenPipe);
            lab.context.with_protocol(handle, |_, cx| {
                cx.for_each_peer(|mut peer| {
                    peer.send_text("lost").unwrap();
                });
            });
        }
        lab.pass(Duration::from_secs(20));
        assert_eq!(log.take(), [""; 0], "it waits");
        for _ in 0..2 {
            lab.context.with_protocol(handle, |_, cx| {
                cx.for_each_peer(|mut peer| peer.resume_reading());
            });
            lab.turn();
        }
        let lines = log.take();
        let end = "closed Peer closed by the peer, code 1000, not clean";
        let last = lines.last().unwrap();
        assert!(last.starts_with(end), "{reset} {lines:?}");
        assert_eq!(lines.len(), 2 + usize::from(!reset), "{lines:?}");
        assert_eq!(lab.context.connections(), 0);
    }
}

/// A connection whose server pauses at every message.
fn pausing(
    version: &'static SupportedProtocolVersion,
) -> (Lab, Log, ProtocolHandle<Recorder>, TlsStranger) {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let log = Log::default();
    let mut config = VhostConfig::new("a.test")
        .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
        .server_tls(server_tls(&pki, &["a.test"]));
    let recorder = Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.pause_reading();
            Ok(())
        })),
        ..Recorder::new(&log)
    };
    let handle = config.add_protocol("p", recorder);
    lab.add(config);
    let stranger = rustls_client(&pki, None, &[version]);
    let mut stranger = TlsStranger::new(lab.stranger(), stranger, "a.test");
    stranger.say(&request("/"));
    stranger.exchange(&mut lab).unwrap();
    log.take();
    (lab, log, handle, stranger)
}
