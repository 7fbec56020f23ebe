#![expect(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "what is cut or not foreseen here fails the test"
)]

use super::*;
use crate::ws::MAX_HEADER_LEN;

mod contents;
#[cfg(feature = "deflate")]
mod deflate;
mod direct;
mod discarding;
mod framing;
mod memory;
mod splits;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIDES: [Side; 2] = [Side::Client, Side::Server];
const DELIVERIES: [Delivery; 2] = [Delivery::Chunks, Delivery::Messages];

/// An item without borrows. The chunks of a message are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Close(Option<(u16, String)>),
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn text(data: &str) -> Got {
    Got::Message(MessageKind::Text, data.as_bytes().to_vec())
}

fn binary(data: &[u8]) -> Got {
    Got::Message(MessageKind::Binary, data.to_vec())
}

type Outcome = (Vec<Got>, Option<ProtocolError>);

/// A caller as the loop is one: keeps what a feed leaves and puts it in front of the next bytes.
struct Peer {
    side: Side,
    delivery: Delivery,
    limits: RecvLimits,
    recv: Recv,
    pool: RecvPool,
    spill: Vec<u8>,
    chunks: Option<(MessageKind, Vec<u8>)>,
    got: Vec<Got>,
    error: Option<ProtocolError>,
}

impl Peer {
    fn new(side: Side, delivery: Delivery) -> Self {
        Self::limited(side, delivery, RecvLimits::default())
    }

    fn limited(side: Side, delivery: Delivery, limits: RecvLimits) -> Self {
        Self {
            side,
            delivery,
            limits,
            recv: Recv::default(),
            pool: RecvPool::default(),
            spill: Vec::new(),
            chunks: None,
            got: Vec::new(),
            error: None,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut input = mem::take(&mut self.spill);
        input.extend_from_slice(bytes);
        let mut feed = self.recv.feed(
            self.side,
            self.delivery,
            &self.limits,
            &mut self.pool,
            &mut input,
        );
        loop {
            match feed.next() {
                Ok(Some(item)) => collect(item, &mut self.chunks, &mut self.got),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(feed.next(), Err(error), "an error is not final");
                    assert!(
                        self.error.is_none_or(|before| before == error),
                        "the error changed"
                    );
                    self.error = Some(error);
                    break;
                }
            }
        }
        assert_eq!(feed.next().is_err(), self.error.is_some());
        let consumed = feed.finish();
        self.spill = input.split_off(consumed);
        assert!(
            self.spill.len() < MAX_HEADER_LEN,
            "more than a header was left"
        );
    }

    fn outcome(self) -> Outcome {
        (self.got, self.error)
    }
}

fn collect(item: Item<'_>, chunks: &mut Option<(MessageKind, Vec<u8>)>, got: &mut Vec<Got>) {
    match item {
        Item::Chunk(chunk) => {
            assert_eq!(
                chunk.first,
                chunks.is_none(),
                "first is set on the first chunk alone"
            );
            assert!(
                !chunk.data.is_empty() || chunk.last,
                "an empty chunk inside a message"
            );
            assert!(!chunk.last || chunk.frame_remaining == 0);
            let (kind, data) = chunks.get_or_insert((chunk.kind, Vec::new()));
            assert_eq!(*kind, chunk.kind);
            data.extend_from_slice(chunk.data);
            if chunk.last {
                got.extend(chunks.take().map(|(kind, data)| Got::Message(kind, data)));
            }
        }
        Item::Close(frame) => {
            got.push(Got::Close(
                frame.map(|f| (f.code().value(), f.reason().to_owned())),
            ));
        }
        Item::Message(message) => {
            got.push(Got::Message(message.kind(), message.as_bytes().to_vec()))
        }
        Item::Ping(data) => got.push(Got::Ping(data.to_vec())),
        Item::Pong(data) => got.push(Got::Pong(data.to_vec())),
    }
}

fn run<'p>(
    side: Side,
    delivery: Delivery,
    limits: &RecvLimits,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Outcome {
    let mut peer = Peer::limited(side, delivery, *limits);
    for piece in pieces {
        peer.receive(piece);
    }
    peer.outcome()
}

/// A frame as the peer of `side` sends it: first byte as given, length and mask as they must be.
fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(side, first, payload.len() as u64);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    if side == Side::Server {
        mask::apply(KEY, 0, &mut bytes[start..]);
    }
    bytes
}

fn header(side: Side, first: u8, len: u64) -> Vec<u8> {
    let masked = if side == Side::Server { 0x80 } else { 0 };
    let mut bytes = vec![first];
    if len < 126 {
        bytes.push(masked | len as u8);
    } else if len < 65536 {
        bytes.push(masked | 126);
        bytes.extend_from_slice(&(len as u16).to_be_bytes());
    } else {
        bytes.push(masked | 127);
        bytes.extend_from_slice(&len.to_be_bytes());
    }
    if side == Side::Server {
        bytes.extend_from_slice(&KEY);
    }
    bytes
}

fn frames(side: Side, list: &[(u8, &[u8])]) -> Vec<u8> {
    list.iter()
        .flat_map(|(first, payload)| frame(side, *first, payload))
        .collect()
}

/// Expects this outcome whole, byte by byte and in every two-way split, for both deliveries.
#[track_caller]
fn expect_everywhere(
    side: Side,
    limits: &RecvLimits,
    bytes: &[u8],
    items: &[Got],
    error: Option<ProtocolError>,
) {
    for delivery in DELIVERIES {
        let expected = (items.to_vec(), error);
        assert_eq!(
            run(side, delivery, limits, [bytes]),
            expected,
            "{side:?} {delivery:?} whole"
        );
        assert_eq!(
            run(side, delivery, limits, bytes.chunks(1)),
            expected,
            "{side:?} {delivery:?} by bytes"
        );
        for cut in 1..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(
                run(side, delivery, limits, [head, tail]),
                expected,
                "{side:?} {delivery:?} at {cut}"
            );
        }
    }
}

#[track_caller]
fn expect_frames(list: &[(u8, &[u8])], items: &[Got], error: Option<ProtocolError>) {
    for side in SIDES {
        expect_everywhere(
            side,
            &RecvLimits::default(),
            &frames(side, list),
            items,
            error,
        );
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Cuts `bytes` into pieces, short and long.
    fn pieces<'p>(&mut self, mut bytes: &'p [u8]) -> Vec<&'p [u8]> {
        let longest = [2, 8, 40, 1 + bytes.len()][self.below(4)];
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let len = (1 + self.below(longest)).min(bytes.len());
            let (piece, rest) = bytes.split_at(len);
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
