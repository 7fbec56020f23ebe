//! However the bytes of a session are cut into reads, the application is told the same and the
//! peer is sent the same (RFC 6455 knows frames, TCP does not).
//!
//! A session is recorded once as what the peer sends. The short one is cut at every offset and at
//! thousands of random sets of offsets. The long one, with a message of 64 KiB, costs much more to
//! play: it is cut at every offset around the ends of that message, and at samples inside it,
//! where every byte is like the next but for the place in the mask and in a block of the unmasking.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "deflate")]
use support::thirty_frames;
use support::{Log, addr, close_payload, masked, plain, request_with};
use wsloop::sim::{Call, Net, Selector, SimPeer};
use wsloop::ws::handshake::accept_key;
use wsloop::{
    Chunk, ClientConnectInfo, Close, CloseCause, CloseFrame, Context, ContextConfig, Cx,
    Established, Message, MessageKind, Protocol, Side, VhostConfig, Wsi, WsiId,
};

#[test]
fn the_short_session_is_what_was_recorded() {
    for side in SIDES {
        for delivery in DELIVERIES {
            let golden = Golden::short(side, delivery);
            let told = [
                "established".to_owned(),
                format!("text {TEXT:?}"),
                format!("binary {:02x?}", medium()),
                "pong [75, 6e, 61, 73, 6b, 65, 64] None".to_owned(),
                format!("pong {:02x?} Some(0ns)", b"rtt"),
                format!("text {FRAGMENTED:?}"),
                "text \"\"".to_owned(),
                "binary []".to_owned(),
                "peer_close Some((1000, \"bye\"))".to_owned(),
                "closed Peer closed by the peer, code 1000 \"bye\", clean".to_owned(),
            ];
            assert_eq!(golden.outcome.told, told, "{side:?} {delivery:?}");
            assert!(golden.outcome.complete, "{side:?} {delivery:?}");
            let sent = opened(side, &golden.outcome.sent);
            let mut expected = Vec::new();
            if side == Side::Client {
                expected.push((0x81, b"first".to_vec()));
            }
            expected.push((0x89, b"rtt".to_vec()));
            expected.push((0x81, TEXT.as_bytes().to_vec()));
            expected.push((0x82, medium()));
            expected.push((0x8a, b"one".to_vec()));
            expected.push((0x8a, b"two".to_vec()));
            expected.push((0x81, FRAGMENTED.as_bytes().to_vec()));
            expected.push((0x81, Vec::new()));
            expected.push((0x82, Vec::new()));
            expected.push((0x8a, Vec::new()));
            expected.push((0x88, close_payload(1000, "bye")));
            assert_eq!(sent, expected, "{side:?} {delivery:?}");
        }
    }
}

#[test]
fn io_01_every_cut_in_two_of_a_server_s_session_is_the_same_session() {
    every_cut_in_two(Side::Server);
}

#[test]
fn io_01_every_cut_in_two_of_a_client_s_session_is_the_same_session() {
    every_cut_in_two(Side::Client);
}

fn every_cut_in_two(side: Side) {
    for delivery in DELIVERIES {
        let golden = Golden::short(side, delivery);
        for cut in 0..=golden.bytes.len() {
            golden.check(&[cut], Pace::Apart, None);
            golden.check(&[cut], Pace::Together, None);
        }
    }
}

#[test]
fn io_01_random_cuts_of_a_server_s_session_are_the_same_session() {
    random_cuts(Side::Server);
}

#[test]
fn io_01_random_cuts_of_a_client_s_session_are_the_same_session() {
    random_cuts(Side::Client);
}

fn random_cuts(side: Side) {
    eprintln!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for delivery in DELIVERIES {
        let golden = Golden::short(side, delivery);
        for _ in 0..2000 {
            let cuts = random.cuts(golden.bytes.len());
            golden.check(&cuts, random.pace(), None);
        }
    }
}

#[test]
fn io_01_small_reads_and_writes_are_the_same_session() {
    for side in SIDES {
        for delivery in DELIVERIES {
            let golden = Golden::short(side, delivery);
            for limit in 1..=7 {
                golden.check(&[], Pace::Together, Some(limit));
                golden.check(&[golden.bytes.len() / 3], Pace::Apart, Some(limit));
            }
        }
    }
}

#[test]
fn io_01_cuts_around_and_inside_a_long_message_are_the_same_session() {
    eprintln!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for side in SIDES {
        for delivery in DELIVERIES {
            let golden = Golden::long(side, delivery);
            let told = format!("binary of {LONG} bytes, intact");
            assert!(
                golden.outcome.told.contains(&told),
                "{:?}",
                golden.outcome.told
            );
            let end = golden.bytes.len();
            let begin = end - LONG - CLOSE_AND_HEADER;
            let edges = (begin..begin + 32).chain(end - 32..=end);
            let inside = (begin + 32..end - 32).step_by(1021);
            for cut in edges.chain(inside) {
                golden.check(&[cut], Pace::Apart, None);
            }
            for _ in 0..40 {
                golden.check(&random.cuts(end), random.pace(), None);
            }
        }
    }
}

#[test]
fn io_01_small_reads_and_writes_of_a_long_message_are_the_same_session() {
    for side in SIDES {
        for limit in 1..=7 {
            Golden::long(side, Delivery::Messages).check(&[], Pace::Together, Some(limit));
        }
        Golden::long(side, Delivery::Chunks).check(&[], Pace::Together, Some(3));
    }
}

#[cfg(feature = "deflate")]
#[test]
fn the_compressed_session_is_what_was_recorded() {
    for side in SIDES {
        for delivery in DELIVERIES {
            let told = Golden::compressed(side, delivery).outcome.told;
            let hello = told.iter().filter(|line| *line == "text \"Hello\"");
            assert_eq!(hello.count(), 3, "{side:?} {delivery:?} {told:?}");
            let end = "closed Peer closed by the peer, code 1000 \"bye\", clean";
            assert_eq!(told.last().unwrap(), end, "{side:?} {delivery:?}");
        }
    }
}

#[cfg(feature = "deflate")]
#[test]
fn io_01_every_cut_in_two_of_a_compressed_session_is_the_same_session() {
    for side in SIDES {
        for delivery in DELIVERIES {
            let golden = Golden::compressed(side, delivery);
            for cut in 0..=golden.bytes.len() {
                golden.check(&[cut], Pace::Apart, None);
            }
        }
    }
}

#[cfg(feature = "deflate")]
#[test]
fn io_01_random_cuts_of_a_compressed_session_are_the_same_session() {
    eprintln!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for side in SIDES {
        for delivery in DELIVERIES {
            let golden = Golden::compressed(side, delivery);
            for _ in 0..500 {
                let cuts = random.cuts(golden.bytes.len());
                golden.check(&cuts, random.pace(), None);
            }
        }
    }
}

const SIDES: [Side; 2] = [Side::Server, Side::Client];
const DELIVERIES: [Delivery; 2] = [Delivery::Messages, Delivery::Chunks];
const SEED: u64 = 0x5eed_0001;
const TEXT: &str = "h\u{e9}llo \u{2603} \u{1f600}";
const FRAGMENTED: &str = "one \u{20ac} two \u{1f600} three";
const LONG: usize = 65_536;
/// More than the headers before the long message and the Close frame behind it.
const CLOSE_AND_HEADER: usize = 40;

fn medium() -> Vec<u8> {
    (0..=255).collect()
}

fn long() -> Vec<u8> {
    (0..LONG).map(|n| (n % 251) as u8).collect()
}

#[derive(Clone, Copy, Debug)]
enum Delivery {
    Chunks,
    Messages,
}

/// Whether the context comes by after every piece, or when all are there.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Apart,
    Together,
}

/// What came of a session.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    told: Vec<String>,
    sent: Vec<u8>,
    /// Our stream ended, and nothing of the connection was left in the context.
    complete: bool,
}

/// A session as it was recorded.
struct Golden {
    side: Side,
    delivery: Delivery,
    compressed: bool,
    /// What the peer sends, the opening handshake included.
    bytes: Vec<u8>,
    outcome: Outcome,
}

impl Golden {
    fn short(side: Side, delivery: Delivery) -> Self {
        Self::record(side, delivery, false, &short_frames(side))
    }

    fn long(side: Side, delivery: Delivery) -> Self {
        let mut frames = frame(side, 0x81, b"before");
        frames.extend(frame(side, 0x82, &long()));
        frames.extend(frame(side, 0x88, &close_payload(1000, "bye")));
        Self::record(side, delivery, false, &frames)
    }

    /// Thirty frames, with permessage-deflate.
    #[cfg(feature = "deflate")]
    fn compressed(side: Side, delivery: Delivery) -> Self {
        let frames = thirty_frames(true);
        let frames = frames
            .iter()
            .flat_map(|(b, payload)| frame(side, *b, payload));
        Self::record(side, delivery, true, &frames.collect::<Vec<u8>>())
    }

    fn record(side: Side, delivery: Delivery, compressed: bool, frames: &[u8]) -> Self {
        let stage = Stage::new(side, delivery, compressed, None);
        let mut bytes = stage.handshake.clone();
        bytes.extend_from_slice(frames);
        stage.peer.write(&bytes).unwrap();
        Self {
            side,
            delivery,
            compressed,
            bytes,
            outcome: stage.finish(),
        }
    }

    /// Plays it again, cut at these offsets.
    fn check(&self, cuts: &[usize], pace: Pace, io: Option<usize>) {
        let selectors = [Selector::Epoll, Selector::Poll];
        // Where there are thousands, each half of them is enough.
        let chosen = match cuts.len() {
            0 | 1 => &selectors[..],
            n => &selectors[n % 2..=n % 2],
        };
        for selector in chosen {
            self.check_on(*selector, cuts, pace, io);
        }
    }

    fn check_on(&self, selector: Selector, cuts: &[usize], pace: Pace, io: Option<usize>) {
        let mut stage = Stage::new(self.side, self.delivery, self.compressed, io);
        stage.net.set_selector(selector);
        assert!(
            self.bytes.starts_with(&stage.handshake),
            "every run begins alike"
        );
        let mut from = 0;
        for &to in cuts.iter().chain([&self.bytes.len()]) {
            stage.peer.write(&self.bytes[from..to]).unwrap();
            from = to;
            if let Pace::Apart = pace {
                stage.turn();
            }
        }
        let outcome = stage.finish();
        let Self { side, delivery, .. } = self;
        let how = format!(
            "{side:?} {delivery:?} {pace:?} {selector:?} cut at {cuts:?}, I/O limit {io:?}"
        );
        assert_eq!(outcome.told, self.outcome.told, "{how}");
        assert!(outcome == self.outcome, "other bytes were sent: {how}");
    }
}

fn short_frames(side: Side) -> Vec<u8> {
    let fragmented = FRAGMENTED.as_bytes();
    let frames: [(u8, &[u8]); 14] = [
        (0x81, TEXT.as_bytes()),
        (0x82, &medium()),
        (0x8a, b"unasked"),
        // The first cut is inside the euro sign, the second inside the emoji.
        (0x01, &fragmented[..5]),
        (0x89, b"one"),
        (0x00, &fragmented[5..14]),
        (0x8a, b"rtt"),
        (0x89, b"two"),
        (0x00, b""),
        (0x80, &fragmented[14..]),
        (0x81, b""),
        (0x82, b""),
        (0x89, b""),
        (0x88, &close_payload(1000, "bye")),
    ];
    frames
        .iter()
        .flat_map(|(first, payload)| frame(side, *first, payload))
        .collect()
}

/// A frame of the peer of that side.
fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    match side {
        Side::Server => masked(first, payload),
        Side::Client => plain(first, payload),
    }
}

/// The frames that a side sent behind its part of the opening handshake.
fn opened(side: Side, sent: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let head = sent
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let mut rest = &sent[head..];
    let mut frames = Vec::new();
    while let [first, second, tail @ ..] = rest {
        let (len, tail) = match second & 0x7f {
            126 => (usize::from(tail[0]) << 8 | usize::from(tail[1]), &tail[2..]),
            127 => panic!("no frame of the short session is that long"),
            len => (usize::from(len), tail),
        };
        assert_eq!(
            second & 0x80 != 0,
            side == Side::Client,
            "only a client masks"
        );
        let (key, tail) = match side {
            Side::Client => tail.split_at(4),
            Side::Server => (&[0_u8; 4][..], tail),
        };
        let payload = tail[..len]
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key);
        frames.push((*first, payload.collect()));
        rest = &tail[len..];
    }
    frames
}

/// A context, ready for the peer's first byte.
struct Stage {
    net: Net,
    context: Context,
    peer: SimPeer,
    log: Log,
    /// What the peer's bytes begin with.
    handshake: Vec<u8>,
    sent: Vec<u8>,
}

impl Stage {
    fn new(side: Side, delivery: Delivery, compressed: bool, io: Option<usize>) -> Self {
        let net = Net::new(7);
        // Nobody here is slow: what waits is not the subject.
        net.set_capacity(1 << 20);
        let log = Log::default();
        let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
        let mut config = VhostConfig::new("a.test");
        if compressed {
            config = with_deflate(config);
        }
        let extension = if compressed { EXTENSION } else { "" };
        let witness = Witness {
            log: log.clone(),
            long: long().into(),
        };
        match delivery {
            Delivery::Chunks => drop(config.add_chunk_protocol("p", witness)),
            Delivery::Messages => drop(config.add_protocol("p", witness)),
        }
        if let Some(limit) = io {
            net.limit_io(limit);
        }
        let (peer, handshake, sent) = match side {
            Side::Server => {
                context.create_vhost(config.listen(addr())).unwrap();
                let bytes = request_with("/", extension);
                (net.dial(addr()).unwrap(), bytes, Vec::new())
            }
            Side::Client => {
                let vhost = context.create_vhost(config).unwrap();
                let listener = net.listen(addr()).unwrap();
                let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
                context.client_connect(vhost, info).unwrap();
                for _ in 0..4 {
                    context.service(Some(Duration::ZERO)).unwrap();
                }
                let peer = listener.accept().unwrap();
                let request = peer.read();
                let response = response(&request, extension);
                (peer, response, request)
            }
        };
        Self {
            net,
            context,
            peer,
            log,
            handshake,
            sent,
        }
    }

    /// Turns until nothing is read or written any more.
    fn turn(&mut self) {
        let mut before = None;
        loop {
            for _ in 0..2 {
                self.context.service(Some(Duration::ZERO)).unwrap();
            }
            let calls = [Call::Read, Call::Write].map(|call| self.net.calls(call));
            if before.replace(calls) == Some(calls) {
                break;
            }
        }
        self.sent.extend(self.peer.read());
    }

    /// The peer ends its stream when it has read all there is.
    fn finish(mut self) -> Outcome {
        self.turn();
        self.peer.shutdown_write();
        self.turn();
        Outcome {
            told: self.log.take(),
            sent: self.sent,
            complete: self.peer.ended() && self.context.connections() == 0,
        }
    }
}

/// What the peer offers or answers. Nobody keeps a window, so that each message is as recorded.
const EXTENSION: &str = "Sec-WebSocket-Extensions: permessage-deflate; \
    server_no_context_takeover; client_no_context_takeover\r\n";

#[cfg(feature = "deflate")]
fn with_deflate(config: VhostConfig) -> VhostConfig {
    config.deflate(wsloop::DeflateConfig::new())
}

#[cfg(not(feature = "deflate"))]
fn with_deflate(config: VhostConfig) -> VhostConfig {
    config
}

fn response(request: &[u8], extension: &str) -> Vec<u8> {
    let request = std::str::from_utf8(request).unwrap();
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    let accept = accept_key(key.as_bytes());
    let accept = std::str::from_utf8(&accept).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
    )
    .into_bytes()
}

/// Writes down what it is told, whole messages as whole messages, and sends them back.
struct Witness {
    log: Log,
    long: Arc<[u8]>,
}

impl Witness {
    fn on_whole(&self, wsi: &mut Wsi<'_>, message: Message<'_>) -> Result<(), Close> {
        self.log.push(match message {
            Message::Text(text) => format!("text {text:?}"),
            Message::Binary(bytes) if bytes == &*self.long => {
                format!("binary of {} bytes, intact", bytes.len())
            }
            Message::Binary(bytes) if bytes.len() > 1000 => "binary, broken".to_owned(),
            Message::Binary(bytes) => format!("binary {bytes:02x?}"),
        });
        wsi.send(message)?;
        Ok(())
    }
}

impl Protocol for Witness {
    /// The chunks of the message that has begun.
    type Session = Option<(MessageKind, Vec<u8>)>;

    fn on_established(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &Established<'_>,
    ) -> Result<Self::Session, Close> {
        self.log.push("established");
        if wsi.side() == Side::Client {
            wsi.send_text("first")?;
        }
        wsi.send_ping(b"rtt")?;
        Ok(None)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut Self::Session,
        message: Message<'_>,
    ) -> Result<(), Close> {
        self.on_whole(wsi, message)
    }

    fn on_chunk(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Self::Session,
        chunk: Chunk<'_>,
    ) -> Result<(), Close> {
        assert_eq!(
            chunk.first,
            session.is_none(),
            "first is what begins a message"
        );
        let (kind, bytes) = session.get_or_insert((chunk.kind, Vec::new()));
        assert_eq!(*kind, chunk.kind);
        bytes.extend_from_slice(chunk.data);
        if !chunk.last {
            return Ok(());
        }
        match session.take() {
            Some((MessageKind::Binary, bytes)) => self.on_whole(wsi, Message::Binary(&bytes)),
            Some((MessageKind::Text, bytes)) => {
                self.on_whole(wsi, Message::Text(std::str::from_utf8(&bytes).unwrap()))
            }
            None => Ok(()),
        }
    }

    fn on_pong(
        &mut self,
        _: &mut Wsi<'_>,
        _: &mut Self::Session,
        payload: &[u8],
        round_trip: Option<Duration>,
    ) -> Result<(), Close> {
        self.log.push(format!("pong {payload:02x?} {round_trip:?}"));
        Ok(())
    }

    fn on_peer_close(
        &mut self,
        _: &mut Wsi<'_>,
        _: &mut Self::Session,
        frame: Option<CloseFrame<'_>>,
    ) {
        let frame = frame.map(|frame| (frame.code().value(), frame.reason()));
        self.log.push(format!("peer_close {frame:?}"));
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: Self::Session, cause: &CloseCause) {
        self.log.push(format!("closed {:?} {cause}", cause.side()));
    }
}

/// Xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn cuts(&mut self, len: usize) -> Vec<usize> {
        let count = 1 + self.below(12);
        let mut cuts: Vec<usize> = (0..count).map(|_| self.below(len + 1)).collect();
        cuts.sort_unstable();
        cuts
    }

    fn pace(&mut self) -> Pace {
        if self.below(2) == 0 {
            Pace::Apart
        } else {
            Pace::Together
        }
    }
}
