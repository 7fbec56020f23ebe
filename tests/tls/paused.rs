//! Reading that the application has paused, over TLS: what came in the same segment as the end of
//! the stream is not lost.

use rustls::version::{TLS12, TLS13};
use wsloop::{ListenConfig, PlaintextPolicy, VhostConfig};

use crate::lab::{Lab, TlsStranger, rustls_client, server_tls};
use crate::support::{Log, Recorder, addr, close_payload, masked, request};
use crate::testpki::Pki;

#[test]
fn a_pause_keeps_what_came_with_the_close_notify() {
    for version in [&TLS12, &TLS13] {
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
