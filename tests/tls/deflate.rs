//! Compressed messages over TLS: what waits for an inflater, or for its turn, is not lost when the
//! stream ends meanwhile.

use rustls::version::{TLS12, TLS13};
use wsloop::ws::deflate::{Compressing, CompressorPool, SendOptions};
use wsloop::ws::{Delivery, Item, Message, Recv, RecvLimits, RecvPool};
use wsloop::{
    ContextConfig, DeflateConfig, DeflateParams, Limits, ListenConfig, PlaintextPolicy, Side,
    VhostConfig,
};

use crate::lab::{Lab, TlsStranger, rustls_client, server_tls};
use crate::support::{Log, Recorder, addr, close_payload, masked, request_with};
use crate::testpki::Pki;

const END: &str = "closed Peer closed by the peer, code 1000, clean";

#[test]
fn what_inflates_to_much_is_given_whole_although_the_stream_has_ended() {
    for version in [&TLS12, &TLS13] {
        let context = ContextConfig::new().turn_budget(64 * 1024);
        let mut world = World::with(context, Recorder::new);
        let mut stranger = world.enter(version);
        // 4 MiB come in a few KiB, and so does what is behind them.
        let mut sent = masked(0xc2, &compressed(&vec![0; 4 << 20]));
        sent.extend(masked(0x81, b"behind"));
        stranger.say(&sent);
        stranger.say(&masked(0x88, &close_payload(1000, "")));
        stranger.tls.send_close_notify();
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        stranger.peer.shutdown_write();
        let mut turns = 0;
        while world.log.count("closed") == 0 {
            turns += 1;
            assert!(turns < 100, "it comes to an end");
            world.lab.turn();
        }
        assert!(turns > 1, "others have had turns");
        let lines = world.log.take();
        assert_eq!(lines.len(), 4, "{}", lines.len());
        assert!(lines[0].starts_with("binary [00, 00"));
        assert_eq!(lines[1], "text \"behind\"");
        assert_eq!(lines[3], END);
    }
}

#[test]
fn a_large_message_comes_back_as_it_went() {
    let text: String = (0..200_000).map(|n| format!("{{\"n\":{n}}},")).collect();
    for version in [&TLS12, &TLS13] {
        let mut world = World::with(ContextConfig::new(), Recorder::echo);
        let mut stranger = world.enter(version);
        stranger.tls.set_buffer_limit(None);
        stranger.say(&masked(0xc1, &compressed(text.as_bytes())));
        let heard = world.all_of(&mut stranger);
        assert_eq!(heard[0], 0xc1);
        assert!(heard.len() < text.len() / 2, "{} bytes", heard.len());
        assert_eq!(inflated(&heard), text);
    }
}

#[test]
fn who_waits_for_an_inflater_gets_one_although_the_stream_has_ended() {
    for version in [&TLS12, &TLS13] {
        let context = ContextConfig::new().max_inflaters(1);
        let mut world = World::with(context, Recorder::new);
        let mut blocker = world.enter(version);
        let mut stranger = world.enter(version);
        let mut whole = masked(0xc1, &compressed(b"a message that has begun"));
        let end = whole.split_off(whole.len() - 1);
        world.send(&mut blocker, &whole);
        stranger.say(&masked(0xc1, &compressed(b"waits")));
        stranger.say(&masked(0x81, b"behind"));
        stranger.say(&masked(0x88, &close_payload(1000, "")));
        stranger.tls.send_close_notify();
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        stranger.peer.shutdown_write();
        world.lab.turn();
        assert_eq!(world.log.take(), [""; 0], "it waits");
        world.send(&mut blocker, &end);
        let lines = world.log.take();
        assert_eq!(lines.len(), 5, "{lines:?}");
        let texts = ["\"a message that has begun\"", "\"waits\"", "\"behind\""];
        assert_eq!(lines[..3], texts.map(|text| format!("text {text}")));
        assert_eq!(lines[4], END);
    }
}

struct World {
    lab: Lab,
    log: Log,
    pki: Pki,
}

impl World {
    fn with(context: ContextConfig, recorder: fn(&Log) -> Recorder) -> Self {
        let (pki, log) = (Pki::new("ca"), Log::default());
        let mut lab = Lab::with(7, context);
        let limits = Limits::default()
            .with_message_bytes(8 << 20)
            .with_output_bytes(16 << 20);
        let listen = ListenConfig::new(addr()).tls(PlaintextPolicy::Reject);
        let config = VhostConfig::new("a.test")
            .listen(listen)
            .server_tls(server_tls(&pki, &["a.test"]))
            .limits(limits)
            .deflate(DeflateConfig::new())
            .protocol("p", recorder(&log));
        lab.add(config);
        Self { lab, log, pki }
    }

    fn enter(&mut self, version: &'static rustls::SupportedProtocolVersion) -> TlsStranger {
        let config = rustls_client(&self.pki, None, &[version]);
        let mut stranger = TlsStranger::new(self.lab.stranger(), config, "a.test");
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        stranger.say(&request_with("/", offer));
        stranger.exchange(&mut self.lab).unwrap();
        let heard = String::from_utf8(stranger.heard()).unwrap();
        assert!(heard.contains("permessage-deflate"), "{heard}");
        self.log.take();
        stranger
    }

    /// Lets everything go both ways that there is; what the stranger has got.
    fn all_of(&mut self, stranger: &mut TlsStranger) -> Vec<u8> {
        let mut heard = Vec::new();
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        loop {
            self.lab.turn();
            let bytes = stranger.peer.read();
            if bytes.is_empty() {
                return heard;
            }
            // No more at once than is taken out of it again.
            for mut piece in bytes.chunks(4096) {
                while !piece.is_empty() {
                    stranger.tls.read_tls(&mut piece).unwrap();
                    stranger.tls.process_new_packets().unwrap();
                    heard.extend(stranger.heard());
                }
            }
        }
    }

    fn send(&mut self, stranger: &mut TlsStranger, bytes: &[u8]) {
        stranger.say(bytes);
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        self.lab.turn();
    }
}

/// A payload that refers to nothing before it.
fn compressed(message: &[u8]) -> Vec<u8> {
    let mut pool = CompressorPool::default();
    let config = DeflateConfig::new().level(6).unwrap().threshold(0);
    let mut sender = Compressing::new(Side::Client, DeflateParams::new(), config);
    let payload = sender.compress(&mut pool, message, SendOptions::new());
    payload.unwrap().as_slice().to_vec()
}

/// The one text in what a server has sent.
fn inflated(sent: &[u8]) -> String {
    let mut recv = Recv::with_deflate(Side::Client, &DeflateParams::new(), &DeflateConfig::new());
    let limits = RecvLimits::default().with_message_bytes(8 << 20);
    let (mut pool, mut input) = (RecvPool::default(), sent.to_vec());
    let mut feed = recv.feed(
        Side::Client,
        Delivery::Messages,
        &limits,
        &mut pool,
        &mut input,
    );
    match feed.next().unwrap() {
        Some(Item::Message(Message::Text(text))) => text.to_owned(),
        other => panic!("{other:?}"),
    }
}
