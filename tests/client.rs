//! The client: against a stranger, byte by byte, and against our own server.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "client/dialling.rs"]
mod dialling;
#[path = "client/handshake.rs"]
mod handshake;
#[path = "client/retry.rs"]
mod retry;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Log, Recorder, World, plain};
use wsloop::sim::{SimPeer, SimPeerListener};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Cx, Established, Message, Protocol,
    VhostConfig, VhostId, Wsi, WsiId,
};

pub(crate) const THERE: &str = "10.0.0.7:80";

/// What a [`Caller`] was told, one after the other.
#[derive(Debug)]
pub(crate) enum Told {
    Closed(String, Option<WsiId>),
    Error(Summary),
    Established(Option<String>),
    Text(String),
}

/// What a test wants to know of a `ConnectError`.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) id: WsiId,
    pub(crate) text: String,
    pub(crate) target: String,
    pub(crate) stage: String,
    pub(crate) failure: String,
    pub(crate) tried: Vec<String>,
    pub(crate) elapsed: Duration,
    pub(crate) attempts: u32,
    pub(crate) retryable: bool,
    pub(crate) timeout: bool,
    pub(crate) refusal: Option<wsloop::Refusal>,
}

/// A protocol for clients that keeps what it is told.
#[derive(Clone, Default)]
pub(crate) struct Caller(Arc<Mutex<Vec<Told>>>);

impl Caller {
    fn put(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }

    pub(crate) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The one thing that happened, which is a failed attempt.
    pub(crate) fn error(&self) -> Summary {
        let mut told = self.take();
        assert_eq!(told.len(), 1, "{told:#?}");
        match told.remove(0) {
            Told::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

impl Protocol for Caller {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<(), Close> {
        assert_eq!(wsi.subprotocol(), how.subprotocol);
        self.put(Told::Established(how.subprotocol.map(str::to_owned)));
        Ok(())
    }

    fn on_message(
        &mut self,
        _: &mut Wsi<'_>,
        (): &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        self.put(Told::Text(
            String::from_utf8_lossy(message.as_bytes()).into_owned(),
        ));
        Ok(())
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, id: WsiId, (): (), cause: &CloseCause) {
        assert!(cx.abort(id).is_err(), "the id is stale");
        self.put(Told::Closed(cause.to_string(), cause.reconnect()));
    }

    fn on_connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError) {
        assert!(cx.abort(id).is_err(), "the id is stale");
        self.put(Told::Error(Summary {
            id,
            text: error.to_string(),
            target: error.target().to_owned(),
            stage: error.stage().to_string(),
            failure: error.failure().to_string(),
            tried: error
                .tried()
                .iter()
                .map(|(address, _)| address.to_string())
                .collect(),
            elapsed: error.elapsed(),
            attempts: error.attempts(),
            retryable: error.is_retryable(),
            timeout: error.is_timeout(),
            refusal: error.refusal().cloned(),
        }));
    }
}

/// A context with a client vhost, and a stranger who listens at [`THERE`].
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) vhost: VhostId,
    pub(crate) caller: Caller,
    pub(crate) there: SimPeerListener,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut world = World::new(Recorder::echo);
        let caller = Caller::default();
        let config = VhostConfig::new("client").protocol("c", caller.clone());
        let vhost = world.context.create_vhost(config).unwrap();
        let there = world.net.listen(THERE.parse().unwrap()).unwrap();
        Self {
            world,
            vhost,
            caller,
            there,
        }
    }

    pub(crate) fn connect(&mut self, info: ClientConnectInfo) -> WsiId {
        self.world.context.client_connect(self.vhost, info).unwrap()
    }

    /// Dials the stranger; the stranger's end and the request that came there.
    pub(crate) fn dial(&mut self, info: ClientConnectInfo) -> (SimPeer, String) {
        self.connect(info);
        self.accept()
    }

    pub(crate) fn accept(&mut self) -> (SimPeer, String) {
        self.world.turn();
        let peer = self.there.accept().expect("somebody has dialled");
        let request = String::from_utf8(peer.read()).unwrap();
        (peer, request)
    }

    /// An established connection to the stranger.
    pub(crate) fn open(&mut self, info: ClientConnectInfo) -> SimPeer {
        let (peer, request) = self.dial(info);
        self.welcome(&peer, &request);
        peer
    }

    pub(crate) fn welcome(&mut self, peer: &SimPeer, request: &str) {
        peer.write(&switching(request, "")).unwrap();
        self.world.turn();
        let told = self.caller.take();
        assert!(matches!(told[..], [Told::Established(_)]), "{told:?}");
    }
}

pub(crate) fn there() -> ClientConnectInfo {
    ClientConnectInfo::from_url("ws://10.0.0.7/chat?x=1").unwrap()
}

/// The value of a header of a request.
pub(crate) fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The 101 that answers a request.
pub(crate) fn switching(request: &str, more: &str) -> Vec<u8> {
    let key = field(request, "Sec-WebSocket-Key").unwrap();
    let accept = wsloop::ws::handshake::accept_key(key.as_bytes());
    let accept = std::str::from_utf8(&accept).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
    .into_bytes()
}

/// The frames of a client, unmasked: first byte, mask, payload.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, [u8; 4], Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        assert_eq!(
            len & 0x80,
            0x80,
            "a client masks every frame (RFC 6455 section 5.3)"
        );
        let (len, rest) = match len & 0x7f {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => (
                u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize,
                &rest[8..],
            ),
            len => (usize::from(len), rest),
        };
        let (mask, rest) = rest.split_at(4);
        let mask: [u8; 4] = mask.try_into().unwrap();
        let (payload, rest) = rest.split_at(len);
        let payload = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key);
        frames.push((*first, mask, payload.collect()));
        bytes = rest;
    }
    frames
}

#[test]
fn a_message_goes_there_and_back_between_two_of_our_contexts() {
    let mut world = World::new(Recorder::echo);
    let log = Log::default();
    let mut other = wsloop::Context::simulated(&world.net, wsloop::ContextConfig::new()).unwrap();
    let recorder = Recorder {
        established: Some(Box::new(|wsi| {
            wsi.send_text("hello")?;
            Ok(())
        })),
        message: Some(Box::new(|_, _| Err(Close::normal()))),
        ..Recorder::new(&log)
    };
    let vhost = other
        .create_vhost(VhostConfig::new("client").protocol("c", recorder))
        .unwrap();
    world.net.name("a.test", ["10.0.0.1".parse().unwrap()]);
    let info = ClientConnectInfo::from_url("ws://a.test/x").unwrap();
    other.client_connect(vhost, info).unwrap();
    for _ in 0..32 {
        other.service(Some(Duration::ZERO)).unwrap();
        world.context.service(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(
        log.take(),
        [
            "established 101 None",
            "text \"hello\"",
            "closed Local closed by the application, code 1000, clean"
        ]
    );
    assert_eq!(
        world.log.take(),
        [
            "filter /x",
            "established /x None",
            "text \"hello\"",
            "peer_close Some(\"1000 \\\"\\\"\")",
            "closed Peer closed by the peer, code 1000, clean"
        ]
    );
    assert_eq!(other.connections() + world.context.connections(), 0);
}

#[test]
fn one_context_can_dial_itself() {
    let mut world = World::new(Recorder::new);
    let caller = Caller::default();
    let config = VhostConfig::new("client").protocol("c", caller.clone());
    let vhost = world.context.create_vhost(config).unwrap();
    let info = ClientConnectInfo::from_url("ws://10.0.0.1/x").unwrap();
    world.context.client_connect(vhost, info).unwrap();
    assert!(
        caller.take().is_empty(),
        "nothing runs inside client_connect"
    );
    world.turn();
    assert!(matches!(caller.take()[..], [Told::Established(None)]));
    assert_eq!(world.log.take(), ["filter /x", "established /x None"]);
}

#[test]
fn fr_17_every_frame_is_masked_with_a_fresh_mask() {
    let mut world = World::new(Recorder::new);
    let mut config = VhostConfig::new("client");
    let handle = config.add_protocol("c", Recorder::new(&world.log));
    let vhost = world.context.create_vhost(config).unwrap();
    let there = world.net.listen(THERE.parse().unwrap()).unwrap();
    world.context.client_connect(vhost, self::there()).unwrap();
    world.turn();
    let peer = there.accept().unwrap();
    let request = String::from_utf8(peer.read()).unwrap();
    peer.write(&switching(&request, "")).unwrap();
    world.turn();
    let bytes = bytes::Bytes::from(vec![7; 5000]);
    world.context.with_protocol(handle, |_, cx| {
        cx.for_each_peer(|mut peer| {
            for _ in 0..300 {
                peer.send_text("same").unwrap();
            }
            peer.send_binary(&bytes).unwrap();
            peer.send_ping(b"?").unwrap();
        });
        cx.broadcast(Message::Text("all"), |_| true);
    });
    world.turn();
    peer.write(&plain(0x89, b"ping")).unwrap();
    peer.write(&plain(0x88, &[0x03, 0xe8])).unwrap();
    world.turn();
    let frames = frames(&peer.read());
    let kinds: Vec<u8> = frames[300..].iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [0x82, 0x89, 0x81, 0x8a, 0x88]);
    assert!(
        frames[..300]
            .iter()
            .all(|frame| frame.0 == 0x81 && frame.2 == b"same")
    );
    assert_eq!(frames[300].2, bytes);
    let mut masks: Vec<_> = frames.iter().map(|frame| frame.1).collect();
    masks.sort_unstable();
    masks.dedup();
    assert_eq!(masks.len(), frames.len(), "no mask twice");
}

#[test]
fn fr_01_a_masked_frame_from_the_server_fails_the_connection() {
    let mut site = Site::new();
    let peer = site.open(there());
    peer.write(&support::masked(0x81, b"x")).unwrap();
    site.world.turn();
    let frames = frames(&peer.read());
    assert_eq!((frames[0].0, &frames[0].2[..2]), (0x88, &[0x03, 0xea][..]));
    let told = site.caller.take();
    assert!(
        matches!(&told[..], [Told::Closed(cause, None)] if cause.contains("code 1002")),
        "{told:?}"
    );
}

#[test]
fn cl_05_a_client_waits_for_the_server_to_end_the_stream_but_not_for_ever() {
    for server_ends in [true, false] {
        let mut site = Site::new();
        let peer = site.open(there());
        peer.write(&plain(0x88, &[0x03, 0xe8])).unwrap();
        site.world.turn();
        assert_eq!(frames(&peer.read())[0].0, 0x88);
        assert!(
            !peer.ended(),
            "the server goes first (RFC 6455 section 7.1.1)"
        );
        site.world.pass(Duration::from_secs(4));
        assert!(site.caller.take().is_empty());
        if server_ends {
            peer.shutdown_write();
            site.world.turn();
        } else {
            site.world.pass(Duration::from_secs(2));
        }
        let told = site.caller.take();
        let [Told::Closed(cause, None)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(cause, "closed by the peer, code 1000, clean");
        site.world.pass(Duration::from_secs(6));
        assert!(peer.ended() || peer.was_reset());
        assert_eq!(site.world.context.connections(), 0);
    }
}

#[test]
fn on_established_that_refuses_ends_the_attempt_in_on_connect_error() {
    let mut world = World::new(Recorder::new);
    let recorder = Recorder {
        connect_error: Some(Box::new(|cx, id| {
            assert!(
                cx.abort(id).is_err() && cx.peer(id).is_none(),
                "the id is stale"
            );
        })),
        established: Some(Box::new(|_| {
            Err(Close::new(wsloop::CloseCode::POLICY_VIOLATION, "no"))
        })),
        ..Recorder::new(&world.log)
    };
    let config = VhostConfig::new("client").protocol("c", recorder);
    let vhost = world.context.create_vhost(config).unwrap();
    let there = world.net.listen(THERE.parse().unwrap()).unwrap();
    let policy = wsloop::RetryPolicy::default();
    world
        .context
        .client_connect(vhost, self::there().reconnect(policy))
        .unwrap();
    world.turn();
    let peer = there.accept().unwrap();
    let request = String::from_utf8(peer.read()).unwrap();
    peer.write(&switching(&request, "")).unwrap();
    peer.write(&plain(0x81, b"early")).unwrap();
    world.turn();
    let frames = frames(&peer.read());
    assert_eq!((frames[0].0, &frames[0].2[..]), (0x88, &b"\x03\xf0no"[..]));
    drop(peer);
    world.pass(Duration::from_secs(60));
    assert_eq!(
        world.log.take(),
        [
            "established 101 None",
            "connect_error 10.0.0.7:80: response stage: refused by on_established: close 1008: no"
        ]
    );
    assert!(there.accept().is_none(), "and it is not dialled again");
}

#[test]
fn a_local_protocol_is_chosen_by_name_and_an_unknown_one_is_refused_at_once() {
    let mut world = World::new(Recorder::new);
    let (first, second) = (Caller::default(), Caller::default());
    let config = VhostConfig::new("client")
        .protocol("first", first.clone())
        .protocol("second", second.clone());
    let vhost = world.context.create_vhost(config).unwrap();
    let info = || ClientConnectInfo::from_url("ws://10.0.0.66/").unwrap();
    world
        .context
        .client_connect(vhost, info().local_protocol("second").unwrap())
        .unwrap();
    let unknown = info().local_protocol("third").unwrap();
    let refused = world.context.client_connect(vhost, unknown).unwrap_err();
    assert!(matches!(
        refused.failure(),
        wsloop::ConnectFailure::UnknownProtocol
    ));
    world.turn();
    assert!(first.take().is_empty());
    assert_eq!(second.error().stage, "tcp");
}

#[test]
fn a_wss_url_is_never_dialled_in_the_clear() {
    let mut site = Site::new();
    let info = ClientConnectInfo::from_url("wss://10.0.0.7:80/").unwrap();
    let refused = site
        .world
        .context
        .client_connect(site.vhost, info)
        .unwrap_err();
    assert!(!refused.is_retryable());
    assert!(refused.to_string().contains("TLS"), "{refused}");
    site.world.turn();
    assert!(site.there.accept().is_none());
    assert!(site.caller.take().is_empty());
}
