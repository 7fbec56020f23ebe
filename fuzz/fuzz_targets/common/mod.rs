//! The segmentation oracle: any split of the same bytes gives the same items and the same error.

use wsloop::ws::{
    Delivery, Item, MAX_HEADER_LEN, MessageKind, ProtocolError, Recv, RecvLimits, RecvPool, Side,
};

/// Receives `stream` whole, byte by byte, and cut as its own bytes say, as messages and as
/// chunks, and with what has its place read there. All must agree.
pub fn check(side: Side, stream: &[u8]) {
    let limits = RecvLimits::default()
        .with_frame_bytes(1 << 16)
        .with_message_bytes(1 << 17)
        .with_fragments(16);
    let expected = run(side, Delivery::Messages, &limits, std::iter::once(stream));
    for delivery in [Delivery::Messages, Delivery::Chunks] {
        assert_eq!(
            run(side, delivery, &limits, std::iter::once(stream)),
            expected
        );
        assert_eq!(run(side, delivery, &limits, stream.chunks(1)), expected);
        assert_eq!(
            run(side, delivery, &limits, cuts(stream).into_iter()),
            expected
        );
    }
    for most in [3, usize::MAX] {
        assert_eq!(run_directly(side, &limits, cuts(stream), most), expected);
    }
    check_discarding(side, &limits, stream);
}

/// After `discard_data` no data is given out, at whatever byte it begins.
fn check_discarding(side: Side, limits: &RecvLimits, stream: &[u8]) {
    let at = stream
        .last()
        .map_or(0, |&last| usize::from(last))
        .min(stream.len());
    let (before, after) = stream.split_at(at);
    let mut peer = Peer::new(side, Delivery::Messages, limits);
    peer.receive(before);
    let given = peer.messages();
    peer.recv.discard_data();
    peer.receive(after);
    assert_eq!(peer.messages(), given);
}

/// Pieces whose lengths are the bytes of the stream itself.
fn cuts(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some(&first) = stream.first() {
        let len = (1 + usize::from(first) % 37).min(stream.len());
        let (piece, rest) = stream.split_at(len);
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

fn run<'p>(
    side: Side,
    delivery: Delivery,
    limits: &RecvLimits,
    pieces: impl Iterator<Item = &'p [u8]>,
) -> (Vec<Got>, Option<ProtocolError>) {
    let mut peer = Peer::new(side, delivery, limits);
    for piece in pieces {
        peer.receive(piece);
    }
    (peer.got, peer.error)
}

/// Bytes go where the payload of a message is assembled, `most` of a piece at most, and what is
/// behind them, or has no such place, to a feed.
fn run_directly(
    side: Side,
    limits: &RecvLimits,
    pieces: Vec<&[u8]>,
    most: usize,
) -> (Vec<Got>, Option<ProtocolError>) {
    let mut peer = Peer::new(side, Delivery::Messages, limits);
    for piece in pieces {
        let room = peer.recv.room(limits, 0, most);
        let direct = room.len().min(piece.len());
        let (here, behind) = piece.split_at(direct);
        room[..direct].copy_from_slice(here);
        assert!(direct == 0 || peer.spill.is_empty());
        peer.recv.filled(side, direct);
        peer.arrived += direct;
        if !behind.is_empty() {
            peer.receive(behind);
        }
    }
    (peer.got, peer.error)
}

/// An item without borrows. The chunks of a message are joined.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Close(Option<(u16, String)>),
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

struct Peer<'l> {
    side: Side,
    delivery: Delivery,
    limits: &'l RecvLimits,
    recv: Recv,
    pool: RecvPool,
    spill: Vec<u8>,
    arrived: usize,
    chunks: Option<(MessageKind, Vec<u8>)>,
    got: Vec<Got>,
    error: Option<ProtocolError>,
}

impl<'l> Peer<'l> {
    fn new(side: Side, delivery: Delivery, limits: &'l RecvLimits) -> Self {
        Self {
            side,
            delivery,
            limits,
            recv: Recv::default(),
            pool: RecvPool::default(),
            spill: Vec::new(),
            arrived: 0,
            chunks: None,
            got: Vec::new(),
            error: None,
        }
    }

    fn messages(&self) -> usize {
        self.got
            .iter()
            .filter(|got| matches!(got, Got::Message(..)))
            .count()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.arrived += bytes.len();
        let mut input = std::mem::take(&mut self.spill);
        input.extend_from_slice(bytes);
        let mut feed = self.recv.feed(
            self.side,
            self.delivery,
            self.limits,
            &mut self.pool,
            &mut input,
        );
        loop {
            match feed.next() {
                Ok(Some(item)) => collect(item, &mut self.chunks, &mut self.got),
                Ok(None) => break,
                Err(error) => {
                    assert!(self.error.is_none_or(|before| before == error));
                    self.error = Some(error);
                    break;
                }
            }
        }
        assert_eq!(feed.next().err(), self.error);
        let consumed = feed.finish();
        self.spill = input.split_off(consumed);
        assert!(self.spill.len() < MAX_HEADER_LEN);
        // Twice what arrived, a least buffer, and the bookkeeping.
        assert!(self.recv.memory() <= 2 * self.arrived + 4096 + 256);
    }
}

fn collect(item: Item<'_>, chunks: &mut Option<(MessageKind, Vec<u8>)>, got: &mut Vec<Got>) {
    match item {
        Item::Chunk(chunk) => {
            assert_eq!(chunk.first, chunks.is_none());
            let (kind, data) = chunks.get_or_insert((chunk.kind, Vec::new()));
            assert_eq!(*kind, chunk.kind);
            data.extend_from_slice(chunk.data);
            if chunk.last {
                assert!(*kind == MessageKind::Binary || std::str::from_utf8(data).is_ok());
                got.extend(chunks.take().map(|(kind, data)| Got::Message(kind, data)));
            }
        }
        Item::Close(frame) => {
            got.push(Got::Close(
                frame.map(|f| (f.code().value(), f.reason().to_owned())),
            ));
        }
        Item::Message(message) => {
            got.push(Got::Message(message.kind(), message.as_bytes().to_vec()));
        }
        Item::Ping(data) => got.push(Got::Ping(data.to_vec())),
        Item::Pong(data) => got.push(Got::Pong(data.to_vec())),
        other => panic!("an item nobody knows: {other:?}"),
    }
}
