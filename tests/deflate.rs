//! permessage-deflate (RFC 7692) in the loop, on a simulated network.
#![cfg(all(feature = "sim", feature = "deflate"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "hostile/common.rs"]
#[allow(dead_code, reason = "shared with the hostile tests")]
mod common;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::ws::{Delivery, Item, ProtocolError, Recv, RecvLimits, RecvPool};
use wsloop::{
    Accept, ClientConnectInfo, Close, Compression, Context, ContextConfig, Cx, DeflateConfig,
    DeflateParams, Established, Fin, Limits, Message, MessageKind, Protocol, Refuse, Request,
    SendOptions, Side, Takeover, Timeouts, VhostConfig, Wsi,
};

use common::{SIDES, frames};
use support::{Recorder, World, addr, close_payload, masked, plain};

const TAKEOVERS: [Takeover; 4] = [
    Takeover::None,
    Takeover::Client,
    Takeover::Server,
    Takeover::Both,
];

fn upgrade_with(extensions: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: {extensions}\r\n\r\n"
    )
    .into_bytes()
}

/// What both ends of a connection in one context got, and what they agreed on.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Notes>>);

type Notes = (Vec<String>, Vec<Option<DeflateParams>>);

/// Sends what it gets back, twice.
struct Twice(Seen);

impl Protocol for Twice {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<(), Close> {
        assert_eq!(how.deflate, wsi.deflate());
        self.0.0.lock().unwrap().1.push(how.deflate);
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        (): &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        wsi.send(message)?;
        wsi.send(message)?;
        Ok(())
    }
}

/// Says something at first and writes down what comes.
struct Says(Seen, Vec<String>);

impl Protocol for Says {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<(), Close> {
        assert_eq!(how.deflate, wsi.deflate());
        self.0.0.lock().unwrap().1.push(how.deflate);
        for (at, text) in self.1.iter().enumerate() {
            match at % 3 {
                0 => wsi.send_text(text)?,
                1 => wsi.send_with(
                    Message::Text(text),
                    SendOptions::new().compression(Compression::Never),
                )?,
                _ => {
                    let cut = (0..=text.len() / 2)
                        .rev()
                        .find(|at| text.is_char_boundary(*at));
                    let (a, b) = text.split_at(cut.unwrap());
                    wsi.send_fragment(MessageKind::Text, a.as_bytes(), Fin::More)?;
                    wsi.send_fragment(MessageKind::Text, b.as_bytes(), Fin::More)?;
                    wsi.send_fragment(MessageKind::Text, b"", Fin::Last)?
                }
            };
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        _: &mut Wsi<'_>,
        (): &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        if let Message::Text(text) = message {
            self.0.0.lock().unwrap().0.push(text.to_owned());
        }
        Ok(())
    }
}

fn texts() -> Vec<String> {
    vec![
        "{\"id\":1,\"name\":\"sensor\",\"value\":0.25}".repeat(30),
        "never compressed ".repeat(100),
        "{\"id\":2,\"name\":\"sensor\",\"value\":0.75}".repeat(30),
        String::new(),
        "short".to_owned(),
        "\u{1f600}".repeat(100_000),
        "a".repeat(1 << 20),
    ]
}

/// A client and a server of one context with these settings; what they agreed on.
fn exchange(server: Option<DeflateConfig>, client: Option<DeflateConfig>) -> Option<DeflateParams> {
    let net = wsloop::sim::Net::new(7);
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let seen = Seen::default();
    let limits = Limits::default().with_output_bytes(16 << 20);
    let mut config = VhostConfig::new("a.test")
        .listen(addr())
        .limits(limits.clone());
    config = config.protocol("twice", Twice(seen.clone()));
    if let Some(deflate) = server {
        config = config.deflate(deflate);
    }
    context.create_vhost(config).unwrap();
    let config = VhostConfig::new("c.test").limits(limits);
    let vhost = context
        .create_vhost(config.protocol("says", Says(seen.clone(), texts())))
        .unwrap();
    let mut info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
    if let Some(deflate) = client {
        info = info.deflate(deflate);
    }
    context.client_connect(vhost, info).unwrap();
    for _ in 0..400 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    let (got, agreed) = std::mem::take(&mut *seen.0.lock().unwrap());
    let expected: Vec<_> = texts()
        .into_iter()
        .flat_map(|text| [text.clone(), text])
        .collect();
    assert!(got == expected, "{} texts came back", got.len());
    assert_eq!(context.connections(), 2);
    let [one, other] = agreed[..] else {
        panic!("{agreed:?}");
    };
    assert_eq!(one.is_some(), other.is_some());
    // The client may promise more than it was asked for.
    one.zip(other).map(|(server, client)| {
        let bits = client
            .client_max_window_bits
            .min(server.client_max_window_bits);
        assert_eq!(server.server_max_window_bits, client.server_max_window_bits);
        let mut agreed = server;
        agreed.client_max_window_bits = bits;
        agreed.client_no_context_takeover |= client.client_no_context_takeover;
        agreed
    })
}

#[test]
fn every_agreement_carries_every_kind_of_message_both_ways() {
    for server in TAKEOVERS {
        for client in TAKEOVERS {
            let config = |takeover| DeflateConfig::new().context_takeover(takeover);
            let agreed = exchange(Some(config(server)), Some(config(client))).unwrap();
            let keeps = |of: fn(Takeover) -> bool| of(server) && of(client);
            let by_server = |takeover| matches!(takeover, Takeover::Both | Takeover::Server);
            let by_client = |takeover| matches!(takeover, Takeover::Both | Takeover::Client);
            assert_eq!(agreed.server_no_context_takeover, !keeps(by_server));
            assert_eq!(agreed.client_no_context_takeover, !keeps(by_client));
        }
    }
}

#[test]
fn pm_02_every_window_carries_messages_both_ways() {
    for takeover in [Takeover::None, Takeover::Both] {
        for bits in 8..=15 {
            let config = DeflateConfig::new().context_takeover(takeover);
            let server = config.server_max_window_bits(bits).unwrap();
            let client = config.client_max_window_bits(23 - bits).unwrap();
            let agreed = exchange(Some(server), Some(client)).unwrap();
            assert_eq!(agreed.server_max_window_bits, bits);
            assert_eq!(agreed.client_max_window_bits, 23 - bits);
        }
    }
}

#[test]
fn without_both_sides_wish_messages_go_as_they_are() {
    let config = DeflateConfig::new();
    for (server, client) in [(None, None), (Some(config), None), (None, Some(config))] {
        assert_eq!(exchange(server, client), None);
    }
}

/// A stranger at the other end, who compresses and inflates.
struct Stranger {
    deflate: zlib_rs::Deflate,
    side: Side,
}

impl Stranger {
    /// At the other end of a connection of that side.
    fn of(side: Side) -> Self {
        let deflate = zlib_rs::Deflate::new(6, false, 15);
        Self { deflate, side }
    }

    fn payload(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0; data.len() * 2 + 100];
        self.deflate.reset();
        let flush = zlib_rs::DeflateFlush::SyncFlush;
        self.deflate.compress(data, &mut out, flush).unwrap();
        out.truncate(usize::try_from(self.deflate.total_out()).unwrap());
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        out
    }

    /// A compressed text message.
    fn text(&mut self, text: &str) -> Vec<u8> {
        let payload = self.payload(text.as_bytes());
        match self.side {
            Side::Server => masked(0xc1, &payload),
            Side::Client => plain(0xc1, &payload),
        }
    }

    /// The messages among what was sent to it, each compressed by itself.
    fn read(&self, sent: &[u8]) -> Vec<String> {
        let side = match self.side {
            Side::Server => Side::Client,
            Side::Client => Side::Server,
        };
        let params = DeflateParams::new();
        let mut recv = Recv::with_deflate(side, &params, &DeflateConfig::new());
        let mut pool = RecvPool::default();
        let limits = RecvLimits::default().with_message_bytes(8 << 20);
        let mut input = sent.to_vec();
        let mut feed = recv.feed(side, Delivery::Messages, &limits, &mut pool, &mut input);
        let mut texts = Vec::new();
        while let Some(item) = feed.next().unwrap() {
            match item {
                Item::Message(Message::Text(text)) => texts.push(text.to_owned()),
                other => panic!("{other:?}"),
            }
        }
        texts
    }
}

const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// A server's world whose vhost compresses, and perhaps more.
fn world(
    context: ContextConfig,
    tune: impl FnOnce(VhostConfig) -> VhostConfig,
    make: impl FnOnce(&support::Log) -> Recorder,
) -> World {
    let net = wsloop::sim::Net::new(1);
    let log = support::Log::default();
    let mut context = Context::simulated(&net, context).unwrap();
    let config = VhostConfig::new("a.test")
        .listen(addr())
        .deflate(DeflateConfig::new());
    let vhost = context
        .create_vhost(tune(config).protocol("p", make(&log)))
        .unwrap();
    World {
        net,
        context,
        vhost,
        log,
    }
}

fn enter(world: &mut World, extensions: &str) -> wsloop::sim::SimPeer {
    let peer = world.dial();
    peer.write(&upgrade_with(extensions)).unwrap();
    world.turn();
    let response = String::from_utf8(peer.read()).unwrap();
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert_eq!(
        response.contains("permessage-deflate"),
        extensions.contains("permessage-deflate")
    );
    world.log.take();
    peer
}

#[test]
fn a_stranger_s_compressed_message_is_answered_with_a_compressed_one() {
    for side in SIDES {
        let mut stranger = Stranger::of(side);
        let (mut session, peer);
        let (world, peer) = match side {
            Side::Server => {
                session = world(ContextConfig::new(), |config| config, Recorder::echo);
                peer = enter(&mut session, OFFER);
                (&mut session, &peer)
            }
            Side::Client => {
                let tune = |config: VhostConfig| config.deflate(DeflateConfig::new());
                let dialled = common::Dialled::new(tune, Recorder::echo);
                let asked = "Sec-WebSocket-Extensions: permessage-deflate; \
                             server_no_context_takeover; client_no_context_takeover; \
                             client_max_window_bits\r\n";
                assert!(dialled.request.contains(asked), "{}", dialled.request);
                let mut response = String::from_utf8(dialled.response()).unwrap();
                response.truncate(response.len() - 2);
                response.push_str("Sec-WebSocket-Extensions: permessage-deflate;server_no_context_takeover\r\n\r\n");
                dialled.peer.write(response.as_bytes()).unwrap();
                session = dialled.world;
                session.turn();
                session.log.take();
                peer = dialled.peer;
                (&mut session, &peer)
            }
        };
        let long = "long enough to be compressed ".repeat(10);
        let mut sent = stranger.text(&long);
        sent.extend(stranger.text("short"));
        sent.extend(stranger.text(""));
        // Byte by byte.
        for byte in sent {
            peer.write(&[byte]).unwrap();
            world.turn();
        }
        let got = peer.read();
        assert_eq!(stranger.read(&got), [&long, "short", ""]);
        let frames = frames(side, &got);
        let first: Vec<u8> = frames.iter().map(|(first, _)| *first).collect();
        assert_eq!(first, [0xc1, 0x81, 0x81]);
        assert!(frames[0].1.len() < long.len() / 4);
    }
}

#[test]
fn fr_02_pm_01_pm_04_what_is_wrong_with_a_compressed_message_reaches_both_ends() {
    let bomb = Stranger::of(Side::Server).payload(&vec![0; 4 << 20]);
    let limit = 1 << 20;
    let ratio = DeflateConfig::new().ratio_limit(50).unwrap();
    for (config, frame, error) in [
        (None, masked(0xc2, &bomb), ProtocolError::ReservedBit(1)),
        (
            Some(DeflateConfig::new()),
            masked(0xc2, &bomb),
            ProtocolError::MessageTooLarge { limit },
        ),
        (
            Some(ratio),
            masked(0xc2, &bomb),
            ProtocolError::DeflateRatio { limit: 50 },
        ),
        (
            Some(DeflateConfig::new()),
            masked(0xc9, b""),
            ProtocolError::CompressedControl,
        ),
        (
            Some(DeflateConfig::new()),
            masked(0xc2, &[6]),
            ProtocolError::DeflateData,
        ),
    ] {
        let tune = |vhost: VhostConfig| match config {
            Some(config) => vhost.deflate(config),
            None => vhost,
        };
        let mut world = World::with(|log| {
            tune(VhostConfig::new("a.test").listen(addr())).protocol("p", Recorder::echo(log))
        });
        let offer = if config.is_some() { OFFER } else { "none" };
        let peer = enter(&mut world, offer);
        peer.write(&frame).unwrap();
        world.turn();
        let (code, reason) = (error.close_code().value(), error.peer_reason());
        let expected = [(0x88, close_payload(code, &reason))];
        assert_eq!(frames(Side::Server, &peer.read()), expected);
        let told = format!("closed Local protocol error: {error}, code {code}, not clean");
        assert_eq!(world.log.take(), [told]);
        peer.shutdown_write();
        world.turn();
        assert_eq!(world.context.connections(), 0);
        assert!(
            world.context.memory() <= 48 * 1024 + 64 * 1024,
            "the inflater is shared"
        );
    }
}

#[test]
fn pm_02_pm_03_an_answer_to_another_offer_ends_the_attempt() {
    for (answer, reason) in [
        ("permessage-deflate", "server_no_context_takeover"),
        (
            "permessage-deflate; server_no_context_takeover; x",
            "no parameter \"x\"",
        ),
        ("foo", "\"foo\", which was not offered"),
        (
            "permessage-deflate; server_no_context_takeover, permessage-deflate",
            "twice",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=7",
            "client_max_window_bits",
        ),
    ] {
        let tune = |config: VhostConfig| config.deflate(DeflateConfig::new());
        let mut dialled = common::Dialled::new(tune, Recorder::new);
        let mut response = String::from_utf8(dialled.response()).unwrap();
        response.truncate(response.len() - 2);
        response.push_str(&format!("Sec-WebSocket-Extensions: {answer}\r\n\r\n"));
        dialled.peer.write(response.as_bytes()).unwrap();
        dialled.world.turn();
        let told = dialled.world.log.take();
        assert!(
            told.len() == 1 && told[0].starts_with("connect_error "),
            "{told:?}"
        );
        assert!(told[0].contains(reason), "{told:?}");
    }
}

#[test]
fn pm_01_what_inflates_to_much_takes_turns_with_others() {
    let context = ContextConfig::new().turn_budget(64 * 1024);
    let limits = Limits::default()
        .with_message_bytes(4 << 20)
        .with_output_bytes(16 << 20);
    let mut world = world(
        context,
        |config| config.limits(limits),
        |log| Recorder {
            message: Some(Box::new(|wsi, message| {
                if message.len() < 100 {
                    wsi.send(message)?;
                }
                Ok(())
            })),
            ..Recorder::new(log)
        },
    );
    let (greedy, modest) = (enter(&mut world, OFFER), enter(&mut world, OFFER));
    let payload = Stranger::of(Side::Server).payload(&vec![0; 4 << 20]);
    let mut sent = masked(0xc2, &payload);
    sent.extend(masked(0x81, b"behind"));
    greedy.write(&sent).unwrap();
    greedy.shutdown_write();
    let mut turns = 0;
    while world.log.count("closed") == 0 {
        turns += 1;
        assert!(turns < 200, "it comes to an end");
        modest.write(&masked(0x81, b"still there?")).unwrap();
        let _ = world.context.service(Some(Duration::ZERO));
        let _ = world.context.service(Some(Duration::ZERO));
        assert_eq!(
            frames(Side::Server, &modest.read()),
            [(0x81, b"still there?".to_vec())]
        );
    }
    assert!(turns >= 4 << 20 >> 18, "{turns} turns");
    assert_eq!(world.log.count("binary [00, 00"), 1);
    assert_eq!(world.log.count("text \"behind\""), 1);
}

/// Each message is within the limit, and a thousand times as long as what came; all come at once.
#[test]
fn pm_01_many_small_frames_that_grow_a_thousandfold_cost_one_message_at_a_time() {
    const COUNT: usize = 16;
    let mut world = world(ContextConfig::new(), |config| config, Recorder::new);
    let (greedy, modest) = (enter(&mut world, OFFER), enter(&mut world, OFFER));
    let payload = Stranger::of(Side::Server).payload(&vec![0; 1 << 20]);
    assert!(payload.len() < 1100, "{}", payload.len());
    world.net.set_capacity(1 << 20);
    greedy.write(&masked(0xc2, &payload).repeat(COUNT)).unwrap();
    let mut most = 0;
    for turn in 0.. {
        modest.write(&masked(0x89, b"there?")).unwrap();
        world.context.service(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            frames(Side::Server, &modest.read()),
            [(0x8a, b"there?".to_vec())],
            "turn {turn}"
        );
        most = most.max(world.context.memory());
        if world.log.count("binary") == COUNT {
            assert!(turn + 2 >= COUNT, "all in {turn} turns");
            break;
        }
        assert!(turn < 4 * COUNT, "it does not get on");
    }
    assert!(most < 3 << 20, "{most}");
}

#[test]
fn at_the_cap_compressed_messages_wait_in_the_order_in_which_they_came() {
    let mut world = world(
        ContextConfig::new().max_inflaters(1),
        |config| config,
        Recorder::new,
    );
    let mut stranger = Stranger::of(Side::Server);
    let peers: Vec<_> = (0..4).map(|_| enter(&mut world, OFFER)).collect();
    let (first, rest) = peers.split_first().unwrap();
    let mut begun = stranger.text("the first message");
    let end = begun.split_off(begun.len() - 1);
    first.write(&begun).unwrap();
    world.turn();
    for (at, peer) in rest.iter().enumerate() {
        let mut sent = stranger.text(&format!("waits {at}"));
        sent.extend(masked(0x81, format!("behind {at}").as_bytes()));
        peer.write(&sent).unwrap();
        world.turn();
    }
    assert_eq!(world.log.lines(), [""; 0]);
    assert_eq!(
        world.context.next_deadline().map(|at| at > world.net.now()),
        Some(true),
        "nobody spins"
    );
    first.write(&end).unwrap();
    first
        .write(&stranger.text("the next one has to wait, too"))
        .unwrap();
    world.turn();
    let expected = [
        "text \"the first message\"",
        "text \"waits 0\"",
        "text \"behind 0\"",
        "text \"waits 1\"",
        "text \"behind 1\"",
        "text \"waits 2\"",
        "text \"behind 2\"",
        "text \"the next one has to wait, too\"",
    ];
    assert_eq!(world.log.take(), expected);
}

/// A message of somebody else is begun and not ended; the rest of it comes back.
fn occupy(world: &mut World) -> (wsloop::sim::SimPeer, Vec<u8>) {
    let blocker = enter(world, OFFER);
    let mut whole = Stranger::of(Side::Server).text("blocks");
    let end = whole.split_off(whole.len() - 1);
    blocker.write(&whole).unwrap();
    world.turn();
    (blocker, end)
}

#[test]
fn who_waits_too_long_for_an_inflater_is_closed_with_1013() {
    let context = ContextConfig::new().max_inflaters(1);
    let mut world = world(context, |config| config, Recorder::new);
    let mut timeouts = Timeouts::default();
    timeouts.message = Duration::from_secs(3);
    let hasty = VhostConfig::new("b.test")
        .listen("10.0.0.1:81".parse::<std::net::SocketAddr>().unwrap())
        .deflate(DeflateConfig::new())
        .timeouts(timeouts)
        .protocol("p", Recorder::new(&world.log));
    world.context.create_vhost(hasty).unwrap();
    let (blocker, end) = occupy(&mut world);
    let peer = world.net.dial("10.0.0.1:81".parse().unwrap()).unwrap();
    peer.write(&upgrade_with(OFFER)).unwrap();
    world.turn();
    peer.read();
    world.log.take();
    let hello = Stranger::of(Side::Server).text("hello");
    peer.write(&hello).unwrap();
    world.pass(Duration::from_millis(2900));
    assert_eq!(peer.read(), b"");
    world.pass(Duration::from_millis(200));
    let close = close_payload(1013, "too many compressed messages");
    assert_eq!(frames(Side::Server, &peer.read()), [(0x88, close)]);
    assert!(world.log.take()[0].contains("one message took longer than 3s, code 1013"));
    blocker.write(&end).unwrap();
    blocker.write(&hello).unwrap();
    world.turn();
    assert_eq!(world.log.take(), ["text \"blocks\"", "text \"hello\""]);
}

#[test]
fn who_goes_in_the_middle_of_a_message_leaves_its_inflater_to_others() {
    let context = ContextConfig::new().max_inflaters(1);
    let mut world = world(context, |config| config, Recorder::new);
    let (blocker, _) = occupy(&mut world);
    let peer = enter(&mut world, OFFER);
    peer.write(&Stranger::of(Side::Server).text("hello"))
        .unwrap();
    world.turn();
    assert_eq!(world.log.count("text"), 0);
    blocker.reset();
    world.turn();
    assert_eq!(world.log.count("text \"hello\""), 1);
}

#[test]
fn a_callback_that_panics_in_the_middle_of_a_message_leaves_its_inflater_to_others() {
    let context = ContextConfig::new().max_inflaters(1);
    let mut world = world(
        context,
        |config| config,
        |log| Recorder {
            pong: Some(Box::new(|_| panic!("as the test wants"))),
            ..Recorder::new(log)
        },
    );
    let blocker = enter(&mut world, OFFER);
    let payload = Stranger::of(Side::Server).payload(b"blocks");
    blocker.write(&masked(0x41, &payload)).unwrap();
    world.turn();
    let peer = enter(&mut world, OFFER);
    peer.write(&Stranger::of(Side::Server).text("hello"))
        .unwrap();
    world.turn();
    assert_eq!(world.log.count("text"), 0);
    blocker.write(&masked(0x8a, b"")).unwrap();
    let turn = || world.context.service(Some(Duration::ZERO));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(turn));
    assert!(panicked.is_err());
    world.turn();
    assert_eq!(world.log.count("text \"hello\""), 1);
}

/// Compresses with all but those who ask for `/plain`.
struct Choosy(support::Log);

impl Protocol for Choosy {
    type Session = ();

    fn filter_upgrade(&mut self, _: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        match request.path() {
            "/plain" => Ok(Accept::new().no_deflate()),
            _ => Ok(Accept::new()),
        }
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<(), Close> {
        self.0.push(how.deflate.is_some().to_string());
        assert_eq!(how.deflate, wsi.deflate());
        Ok(())
    }

    fn on_message(&mut self, wsi: &mut Wsi<'_>, (): &mut (), _: Message<'_>) -> Result<(), Close> {
        wsi.abort();
        Ok(())
    }
}

#[test]
fn the_application_may_decline_compression_for_one_request() {
    let mut world = World::with(|log| {
        let vhost = VhostConfig::new("a.test").listen(addr());
        let deflate = vhost.deflate(DeflateConfig::new());
        deflate.protocol("p", Choosy(log.clone()))
    });
    for (target, compressed) in [("/", true), ("/plain", false)] {
        let peer = world.dial();
        let request = String::from_utf8(upgrade_with(OFFER)).unwrap();
        peer.write(
            request
                .replace("GET / ", &format!("GET {target} "))
                .as_bytes(),
        )
        .unwrap();
        world.turn();
        let response = String::from_utf8(peer.read()).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert_eq!(response.contains("permessage-deflate"), compressed);
        assert_eq!(world.log.take(), [compressed.to_string()]);
        if !compressed {
            peer.write(&masked(0xc1, b"")).unwrap();
            world.turn();
            let error = ProtocolError::ReservedBit(1);
            let close = close_payload(error.close_code().value(), &error.to_string());
            assert_eq!(frames(Side::Server, &peer.read()), [(0x88, close)]);
        }
    }
}

#[test]
fn a_broadcast_is_compressed_once_for_all_who_can_share_it() {
    let tune =
        |config: VhostConfig| config.deflate(DeflateConfig::new().context_takeover(Takeover::Both));
    let text = "what everybody is told ".repeat(20);
    let said = text.clone();
    let mut world = world(ContextConfig::new(), tune, move |log| Recorder {
        message: Some(Box::new(move |wsi, _| {
            let sent = wsi.cx().broadcast(Message::Text(&said), |_| true);
            assert_eq!(sent.queued, 5);
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let alone = "permessage-deflate; server_no_context_takeover";
    let small = "permessage-deflate; server_no_context_takeover; server_max_window_bits=9";
    let peers = [alone, alone, small, "permessage-deflate", "none"];
    let peers = peers.map(|offer| enter(&mut world, offer));
    peers[0].write(&masked(0x81, b"tell them")).unwrap();
    world.turn();
    let got = peers.each_ref().map(|peer| peer.read());
    assert_eq!(got[0], got[1]);
    assert_eq!(got[3], got[4]);
    assert_eq!(
        got[3][0], 0x81,
        "where the windows are kept it goes uncompressed"
    );
    for sent in [&got[0], &got[2]] {
        assert_eq!(sent[0], 0xc1);
        assert!(sent.len() < text.len() / 4);
    }
    for sent in got {
        assert_eq!(Stranger::of(Side::Server).read(&sent), [&*text]);
    }
}

#[test]
fn pm_09_so_many_connections_keep_windows_and_no_more() {
    let context = ContextConfig::new().max_context_takeovers(2);
    let takeover = DeflateConfig::new().context_takeover(Takeover::Both);
    let mut world = world(context, |config| config.deflate(takeover), Recorder::new);
    let answer = |world: &mut World, peers: &mut Vec<wsloop::sim::SimPeer>| {
        let peer = world.dial();
        peer.write(&upgrade_with("permessage-deflate")).unwrap();
        world.turn();
        let response = String::from_utf8(peer.read()).unwrap();
        peers.push(peer);
        let none = "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
        assert!(response.contains("permessage-deflate\r\n") != response.contains(none));
        response.contains(none)
    };
    let mut peers = Vec::new();
    let alone: Vec<_> = (0..4).map(|_| answer(&mut world, &mut peers)).collect();
    assert_eq!(alone, [false, false, true, true]);
    peers.remove(0).reset();
    world.turn();
    assert!(!answer(&mut world, &mut peers), "one has gone");
}

#[test]
fn pm_09_idle_connections_with_shared_compression_cost_little_more_than_without() {
    let memory = |offer: &str| {
        let mut world = world(ContextConfig::new(), |config| config, Recorder::echo);
        let peers: Vec<_> = (0..50).map(|_| enter(&mut world, offer)).collect();
        let long = Stranger::of(Side::Server).text(&"to and fro ".repeat(50));
        if offer == OFFER {
            for peer in &peers {
                peer.write(&long).unwrap();
                world.turn();
                assert_eq!(peer.read()[0], 0xc1);
            }
        }
        let shared = 410 * 1024;
        world
            .context
            .memory()
            .saturating_sub(if offer == OFFER { shared } else { 0 })
    };
    let (with, without) = (memory(OFFER), memory("none"));
    assert!(with * 10 <= without * 12, "{with} to {without}");
}

#[test]
fn pm_09_a_window_that_is_kept_is_counted() {
    let tune =
        |config: VhostConfig| config.deflate(DeflateConfig::new().context_takeover(Takeover::Both));
    let log = support::Log::default();
    let told = log.clone();
    let mut world = world(ContextConfig::new(), tune, move |_| Recorder {
        message: Some(Box::new(move |wsi, message| {
            told.push(format!("{}", wsi.memory() / 1024));
            wsi.send(message)?;
            Ok(())
        })),
        ..Recorder::default()
    });
    let peer = enter(&mut world, OFFER);
    let long = Stranger::of(Side::Server).text(&"to and fro ".repeat(50));
    for _ in 0..2 {
        peer.write(&long).unwrap();
        world.turn();
    }
    let told: Vec<usize> = log
        .take()
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    assert!(told[0] < 4 && (200..225).contains(&told[1]), "{told:?}");
    assert!(world.context.memory() > 200 * 1024);
}

#[test]
fn chunks_of_a_compressed_message_come_one_at_a_time_to_who_pauses_after_each() {
    let net = wsloop::sim::Net::new(1);
    let log = support::Log::default();
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let limits = Limits::default().with_message_bytes(4 << 20);
    let mut config = VhostConfig::new("a.test").listen(addr()).limits(limits);
    config = config.deflate(DeflateConfig::new());
    config.add_chunk_protocol(
        "p",
        Recorder {
            chunk: Some(Box::new(|wsi| {
                wsi.pause_reading();
                wsi.set_timer(Duration::from_millis(1), wsloop::TimerTag(1));
                Ok(())
            })),
            timer: Some(Box::new(|wsi, _| {
                wsi.resume_reading();
                Ok(())
            })),
            ..Recorder::new(&log)
        },
    );
    let vhost = context.create_vhost(config).unwrap();
    let mut world = World {
        net,
        context,
        vhost,
        log,
    };
    let peer = enter(&mut world, OFFER);
    let payload = Stranger::of(Side::Server).payload(&vec![7; 1 << 20]);
    peer.write(&masked(0xc2, &payload)).unwrap();
    peer.shutdown_write();
    world.turn();
    assert_eq!(world.log.count("chunk"), 1);
    for _ in 0..100 {
        let before = world.log.count("chunk");
        world.net.advance(Duration::from_millis(1));
        world.turn();
        assert!(world.log.count("chunk") <= before + 1);
    }
    let lines = world.log.take();
    let mut chunks = lines.iter().filter(|line| line.starts_with("chunk"));
    let total: usize = chunks.clone().map(|line| line.matches("07").count()).sum();
    assert_eq!(total, 1 << 20);
    assert!(chunks.clone().count() > 16);
    assert!(chunks.next_back().unwrap().contains("last=true"));
}

#[test]
fn a_close_is_not_held_up_by_who_waits_for_an_inflater() {
    let mut world = world(
        ContextConfig::new().max_inflaters(1),
        |config| config,
        |log| Recorder {
            timer: Some(Box::new(|_, _| Err(Close::normal()))),
            established: Some(Box::new(|wsi| {
                wsi.set_timer(Duration::from_secs(3), wsloop::TimerTag(1));
                Ok(())
            })),
            ..Recorder::new(log)
        },
    );
    let mut stranger = Stranger::of(Side::Server);
    let blocker = enter(&mut world, OFFER);
    let whole = stranger.text("hello");
    blocker.write(&whole[..whole.len() - 1]).unwrap();
    world.pass(Duration::from_secs(2));
    let waits = enter(&mut world, OFFER);
    let mut sent = whole;
    sent.extend(masked(0x88, &close_payload(1000, "")));
    waits.write(&sent).unwrap();
    world.turn();
    assert_eq!(waits.read(), b"");
    world.pass(Duration::from_secs(4));
    assert_eq!(
        frames(Side::Server, &waits.read()),
        [(0x88, close_payload(1000, ""))]
    );
    assert_eq!(
        world
            .log
            .count("closed Local closed by the application, code 1000, clean"),
        1,
        "{:?}",
        world.log.lines()
    );
}

#[test]
fn pm_12_a_message_with_a_secret_can_be_left_out_of_compression() {
    let long = "token=0123456789 ".repeat(20);
    let text = long.clone();
    let mut world = world(
        ContextConfig::new(),
        |config| config,
        move |log| Recorder {
            message: Some(Box::new(move |wsi, _| {
                for compression in [Compression::Never, Compression::Auto] {
                    let options = SendOptions::new().compression(compression);
                    wsi.send_with(Message::Text(&text), options)?;
                }
                Ok(())
            })),
            ..Recorder::new(log)
        },
    );
    let peer = enter(&mut world, OFFER);
    peer.write(&masked(0x81, b"go")).unwrap();
    world.turn();
    let got = frames(Side::Server, &peer.read());
    assert_eq!((got[0].0, got[0].1.as_slice()), (0x81, long.as_bytes()));
    assert_eq!(got[1].0, 0xc1, "the next one is compressed again");
}

/// What one visit brings is answered in ways that are short where nothing is compressed.
#[test]
fn answers_within_one_visit_are_compressed_as_those_of_many() {
    let noise = |len: u32| -> String {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'0' + (state >> 24) as u8 % 75)
        };
        (0..len).map(|_| next()).collect()
    };
    let mut texts = vec![String::new(), "short".to_owned(), noise(5_000)];
    for n in 0..20 {
        texts.push(format!("the value of the {n}th sensor is {n}"));
        texts.push(format!("{{\"id\":{n},\"name\":\"sensor\"}}").repeat(n * 20));
    }
    texts.extend(texts.clone());
    for takeover in TAKEOVERS {
        let config = DeflateConfig::new().context_takeover(takeover);
        let answers = |visits: bool| {
            let limits = Limits::default().with_output_bytes(16 << 20);
            let tune = |vhost: VhostConfig| vhost.deflate(config).limits(limits);
            let mut world = world(ContextConfig::new(), tune, Recorder::echo);
            let peer = enter(&mut world, OFFER);
            let mut answers = Vec::new();
            for text in &texts {
                peer.write(&masked(0x81, text.as_bytes())).unwrap();
                if visits {
                    world.turn();
                    answers.extend(peer.read());
                }
            }
            for _ in 0..10 {
                world.turn();
                answers.extend(peer.read());
            }
            answers
        };
        let mut together = answers(false);
        assert!(together == answers(true), "{takeover:?}");
        let plain: usize = texts.iter().map(String::len).sum();
        assert!(together.len() < plain / 2, "{} of {plain}", together.len());

        let mut params = DeflateParams::new();
        params.server_no_context_takeover = !matches!(takeover, Takeover::Both | Takeover::Server);
        let mut recv = Recv::with_deflate(Side::Client, &params, &DeflateConfig::new());
        let (mut pool, limits) = (RecvPool::default(), RecvLimits::default());
        let mut feed = recv.feed(
            Side::Client,
            Delivery::Messages,
            &limits,
            &mut pool,
            &mut together,
        );
        for text in &texts {
            let item = feed.next().unwrap();
            assert!(matches!(item, Some(Item::Message(Message::Text(got))) if got == text));
        }
        assert_eq!(feed.next().unwrap(), None);
    }
}

#[test]
fn who_waited_for_an_inflater_and_went_leaves_nothing_behind() {
    let context = ContextConfig::new().max_inflaters(1);
    let mut timeouts = Timeouts::default();
    timeouts.message = Duration::MAX;
    timeouts.write = Duration::from_millis(100);
    let patient = |config: VhostConfig| config.timeouts(timeouts);
    let mut world = world(context, patient, Recorder::new);
    let (_blocker, _end) = occupy(&mut world);
    let mut visit = |times: usize| {
        for _ in 0..times {
            let peer = enter(&mut world, OFFER);
            let hello = Stranger::of(Side::Server).text("hello");
            peer.write(&hello).unwrap();
            world.turn();
            peer.reset();
        }
        world.pass(Duration::from_secs(1));
        assert_eq!(world.context.connections(), 1);
        world.context.memory()
    };
    let before = visit(50);
    let after = (0..40).map(|_| visit(50)).max();
    // The queue is swept when it is longer than twice the connections and 64.
    assert!(
        after.is_some_and(|after| after <= before + 4096),
        "{before} {after:?}"
    );
}
