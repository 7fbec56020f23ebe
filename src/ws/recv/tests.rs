#![expect(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "what is cut or not foreseen here fails the test"
)]

use super::*;
use crate::ws::MAX_HEADER_LEN;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIDES: [Side; 2] = [Side::Client, Side::Server];
const DELIVERIES: [Delivery; 2] = [Delivery::Chunks, Delivery::Messages];

#[cfg(feature = "deflate")]
mod deflate;
mod direct;

// ---- helpers ----

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

// ---- RFC 6455 section 5.7 ----

#[test]
fn examples_of_rfc_6455_section_5_7() {
    let limits = RecvLimits::default();
    let cases: [(Side, &[u8], Got); 5] = [
        (Side::Client, b"\x81\x05\x48\x65\x6c\x6c\x6f", text("Hello")),
        (
            Side::Server,
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            text("Hello"),
        ),
        (
            Side::Client,
            b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f",
            text("Hello"),
        ),
        (
            Side::Client,
            b"\x89\x05\x48\x65\x6c\x6c\x6f",
            Got::Ping(b"Hello".to_vec()),
        ),
        (
            Side::Server,
            b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            Got::Pong(b"Hello".to_vec()),
        ),
    ];
    for (side, bytes, got) in cases {
        expect_everywhere(side, &limits, bytes, &[got], None);
    }
    for (head, len) in [
        (b"\x82\x7e\x01\x00".as_slice(), 256),
        (b"\x82\x7f\0\0\0\0\0\x01\0\0", 65536),
    ] {
        let payload = vec![0xa5; len];
        let outcome = run(
            Side::Client,
            Delivery::Messages,
            &limits,
            [[head, &payload].concat().as_slice()],
        );
        assert_eq!(outcome, (vec![binary(&payload)], None));
    }
}

// ---- framing ----

#[test]
fn fr_01_an_unmasked_frame_to_a_server_and_a_masked_one_to_a_client_are_refused() {
    let limits = RecvLimits::default();
    for first in [0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8a] {
        let unmasked = frame(Side::Client, first, b"");
        expect_everywhere(
            Side::Server,
            &limits,
            &unmasked,
            &[],
            Some(ProtocolError::UnmaskedByClient),
        );
        let masked = frame(Side::Server, first, b"");
        expect_everywhere(
            Side::Client,
            &limits,
            &masked,
            &[],
            Some(ProtocolError::MaskedByServer),
        );
    }
}

#[test]
fn fr_02_reserved_bits_are_refused() {
    for opcode in [1, 2, 8, 9, 10] {
        for (bits, number) in [
            (0x40, 1),
            (0x20, 2),
            (0x10, 3),
            (0x60, 2),
            (0x50, 3),
            (0x70, 2),
        ] {
            let error = ProtocolError::ReservedBit(number);
            expect_frames(&[(0x80 | bits | opcode, b"ab")], &[], Some(error));
            assert_eq!(error.close_code().value(), 1002);
        }
    }
    expect_frames(
        &[(0x01, b"a"), (0xc0, b"b")],
        &[],
        Some(ProtocolError::ReservedBit(1)),
    );
}

#[test]
fn fr_03_reserved_opcodes_are_refused() {
    for opcode in (3..=7).chain(11..=15) {
        for fin in [0, 0x80] {
            for payload in [b"".as_slice(), b"x"] {
                expect_frames(
                    &[(fin | opcode, payload)],
                    &[],
                    Some(ProtocolError::ReservedOpcode(opcode)),
                );
            }
        }
    }
}

#[test]
fn fr_04_a_length_over_the_limit_is_refused_with_the_header() {
    let limit = RecvLimits::default().message_bytes;
    for side in SIDES {
        for len in [(1 << 63) - 1, 1 << 32, limit as u64 + 1] {
            let bytes = header(side, 0x82, len);
            let error = ProtocolError::MessageTooLarge { limit };
            expect_everywhere(side, &RecvLimits::default(), &bytes, &[], Some(error));
            assert_eq!(error.close_code().value(), 1009);
        }
        let top_bit = header(side, 0x82, 1 << 63);
        expect_everywhere(
            side,
            &RecvLimits::default(),
            &top_bit,
            &[],
            Some(ProtocolError::LengthTopBitSet),
        );
    }
}

#[test]
fn fr_04_exactly_the_limit_is_accepted() {
    let limits = RecvLimits::default()
        .with_frame_bytes(5)
        .with_message_bytes(8)
        .with_fragments(3);
    for side in SIDES {
        let fits = frames(
            side,
            &[
                (0x02, b"12345"),
                (0x00, b"6"),
                (0x80, b"78"),
                (0x81, b"12345"),
            ],
        );
        expect_everywhere(
            side,
            &limits,
            &fits,
            &[binary(b"12345678"), text("12345")],
            None,
        );
        let frame_over = header(side, 0x82, 6);
        let error = ProtocolError::FrameTooLarge { len: 6, limit: 5 };
        expect_everywhere(side, &limits, &frame_over, &[], Some(error));
        let narrow = limits.with_message_bytes(4);
        let error = ProtocolError::MessageTooLarge { limit: 4 };
        expect_everywhere(side, &narrow, &header(side, 0x81, 5), &[], Some(error));
    }
}

#[test]
fn fr_06_memory_grows_with_arrived_bytes_only() {
    let len = RecvLimits::default().frame_bytes - 1;
    for first in [0x81, 0x82] {
        let mut peer = Peer::new(Side::Server, Delivery::Messages);
        peer.receive(&header(Side::Server, first, len));
        assert_eq!(peer.recv.memory(), 0, "nothing has arrived");
        for arrived in 1..20_000 {
            // A byte of 'a' under the mask.
            peer.receive(&[b'a' ^ KEY[(arrived - 1) % 4]]);
            let held = peer.recv.memory();
            assert!(
                held <= (2 * arrived).max(4096) + size_of::<More>(),
                "{held} for {arrived}"
            );
        }
        assert!(peer.recv.is_inside_message());
        assert_eq!(peer.outcome(), (vec![], None));
    }
}

#[test]
fn fr_06_a_message_of_known_length_gets_no_more_room_than_it_needs() {
    let mut peer = Peer::new(Side::Client, Delivery::Messages);
    let bytes = frame(Side::Client, 0x82, &[1; 100_000]);
    peer.receive(&bytes[..60_000]);
    assert!(peer.recv.memory() <= 100_000 + size_of::<More>());
    peer.receive(&bytes[60_000..]);
    assert_eq!(
        peer.pool.buffers.memory(),
        100_000,
        "the buffer went to the pool"
    );
    assert_eq!(peer.outcome(), (vec![binary(&[1; 100_000])], None));
}

#[test]
fn fr_07_fragmented_and_long_control_frames_are_refused() {
    for opcode in [8, 9, 10] {
        expect_frames(
            &[(opcode, b"")],
            &[],
            Some(ProtocolError::ControlFragmented),
        );
        expect_frames(
            &[(0x80 | opcode, &[0; 126])],
            &[],
            Some(ProtocolError::ControlTooLong),
        );
        expect_frames(
            &[(0x80 | opcode, &[0; 200])],
            &[],
            Some(ProtocolError::ControlTooLong),
        );
    }
    expect_frames(&[(0x89, &[7; 125])], &[Got::Ping(vec![7; 125])], None);
}

#[test]
fn fr_08_fragments_out_of_order_are_refused() {
    for fin in [0, 0x80] {
        let error = Some(ProtocolError::ContinuationWithoutStart);
        expect_frames(&[(fin, b"a")], &[], error);
        expect_frames(&[(0x81, b"whole"), (fin, b"a")], &[text("whole")], error);
        for opcode in [1, 2] {
            let error = Some(ProtocolError::DataInsideMessage);
            expect_frames(&[(0x01, b"a"), (fin | opcode, b"b")], &[], error);
        }
    }
}

#[test]
fn fr_09_control_frames_between_fragments_keep_their_order() {
    expect_frames(
        &[
            (0x01, b"He"),
            (0x89, b"1"),
            (0x00, b"l"),
            (0x8a, b""),
            (0x89, b"2"),
            (0x80, b"lo"),
        ],
        &[
            Got::Ping(b"1".to_vec()),
            Got::Pong(vec![]),
            Got::Ping(b"2".to_vec()),
            text("Hello"),
        ],
        None,
    );
    expect_frames(
        &[(0x01, b"He"), (0x88, b"\x03\xe8"), (0x80, b"llo")],
        &[Got::Close(Some((1000, String::new())))],
        None,
    );
}

#[test]
fn fr_09_ten_thousand_pings_between_fragments_hold_no_memory() {
    let mut peer = Peer::new(Side::Server, Delivery::Messages);
    peer.receive(&frame(Side::Server, 0x01, b"a"));
    let held = peer.recv.memory();
    for _ in 0..10_000 {
        peer.receive(&frame(Side::Server, 0x89, b"ping"));
    }
    assert_eq!(peer.recv.memory(), held);
    peer.receive(&frame(Side::Server, 0x80, b"b"));
    assert_eq!(
        (peer.got.len(), peer.got.last()),
        (10_001, Some(&text("ab")))
    );
}

#[test]
fn fr_10_endless_fragments_stop_at_the_cap() {
    for payload in [b"x".as_slice(), b""] {
        for delivery in DELIVERIES {
            let mut peer = Peer::new(Side::Server, delivery);
            peer.receive(&frame(Side::Server, 0x02, payload));
            let mut sent = 1;
            while peer.error.is_none() {
                peer.receive(&frame(Side::Server, 0x00, payload));
                sent += 1;
            }
            let error = ProtocolError::TooManyFragments { limit: 1024 };
            assert_eq!((sent, peer.error), (1025, Some(error)));
            assert_eq!(error.close_code().value(), 1008);
            assert!(peer.recv.memory() <= 8192);
        }
    }
}

#[test]
fn fr_10_exactly_the_cap_of_fragments_is_accepted() {
    let limits = RecvLimits::default().with_fragments(2);
    let two: &[(u8, &[u8])] = &[(0x02, b"a"), (0x80, b"b")];
    let three: &[(u8, &[u8])] = &[(0x02, b"a"), (0x00, b"b"), (0x80, b"c")];
    let error = Some(ProtocolError::TooManyFragments { limit: 2 });
    for side in SIDES {
        let bytes = [frames(side, two), frames(side, two)].concat();
        expect_everywhere(side, &limits, &bytes, &[binary(b"ab"), binary(b"ab")], None);
        expect_everywhere(side, &limits, &frames(side, three), &[], error);
        // With no fragments allowed, a message in one frame still is.
        let none = limits.with_fragments(0);
        let bytes = frames(side, &[(0x82, b"a"), (0x02, b"b")]);
        let error = Some(ProtocolError::TooManyFragments { limit: 0 });
        expect_everywhere(side, &none, &bytes, &[binary(b"a")], error);
    }
}

#[test]
fn fr_12_empty_messages_and_empty_fragments() {
    expect_frames(&[(0x81, b""), (0x82, b"")], &[text(""), binary(b"")], None);
    expect_frames(&[(0x01, b""), (0x80, b"")], &[text("")], None);
    expect_frames(
        &[
            (0x01, b""),
            (0x00, b""),
            (0x00, b"a"),
            (0x00, b""),
            (0x00, b"b"),
            (0x80, b""),
        ],
        &[text("ab")],
        None,
    );
    expect_frames(
        &[(0x02, b""), (0x80, b"tail"), (0x81, b"z")],
        &[binary(b"tail"), text("z")],
        None,
    );
}

#[test]
fn fr_12_an_empty_message_is_one_empty_chunk() {
    for list in [
        [(0x81, b"".as_slice())].as_slice(),
        &[(0x01, b""), (0x80, b"")],
    ] {
        let mut input = frames(Side::Server, list);
        let (mut recv, mut pool, limits) =
            (Recv::default(), RecvPool::default(), RecvLimits::default());
        let mut feed = recv.feed(
            Side::Server,
            Delivery::Chunks,
            &limits,
            &mut pool,
            &mut input,
        );
        let Ok(Some(Item::Chunk(chunk))) = feed.next() else {
            panic!("no chunk");
        };
        assert_eq!(
            (chunk.data, chunk.first, chunk.last, chunk.frame_remaining),
            (&[][..], true, true, 0)
        );
        assert_eq!(feed.next(), Ok(None));
    }
}

#[test]
fn fr_13_unaligned_buffers_give_the_same_message() {
    let payload: Vec<u8> = (0..=255).collect();
    for offset in 0..40 {
        for len in 0..70 {
            let bytes = frame(Side::Server, 0x82, &payload[..len]);
            let mut buffer = vec![0x55; offset];
            buffer.extend_from_slice(&bytes);
            buffer.extend_from_slice(&[0x81]);
            let (mut recv, mut pool, limits) =
                (Recv::default(), RecvPool::default(), RecvLimits::default());
            let input = &mut buffer[offset..];
            let mut feed = recv.feed(Side::Server, Delivery::Messages, &limits, &mut pool, input);
            assert_eq!(
                feed.next(),
                Ok(Some(Item::Message(Message::Binary(&payload[..len]))))
            );
            assert_eq!(feed.next(), Ok(None));
            assert_eq!(feed.finish(), bytes.len());
            assert_eq!(
                buffer.last(),
                Some(&0x81),
                "a byte behind the frame was touched"
            );
        }
    }
}

#[test]
fn fr_15_a_total_that_crosses_the_cap_by_one_is_refused_with_the_header() {
    let limits = RecvLimits::default().with_message_bytes(10);
    let error = Some(ProtocolError::MessageTooLarge { limit: 10 });
    for side in SIDES {
        let mut bytes = frames(side, &[(0x02, b"12345"), (0x00, b"67890")]);
        bytes.extend_from_slice(&header(side, 0x80, 1));
        expect_everywhere(side, &limits, &bytes, &[], error);
        let fits = frames(side, &[(0x02, b"12345"), (0x00, b"67890"), (0x80, b"")]);
        expect_everywhere(side, &limits, &fits, &[binary(b"1234567890")], None);
    }
}

#[test]
fn fr_15_sums_near_the_end_of_u64_do_not_wrap() {
    let limits = RecvLimits::default()
        .with_frame_bytes(u64::MAX)
        .with_message_bytes(1 << 40);
    let mut recv = Recv {
        announced: u64::MAX - 1,
        ..Recv::default()
    };
    let header = FrameHeader::new(Opcode::Continuation, 3);
    let error = ProtocolError::MessageTooLarge { limit: 1 << 40 };
    assert_eq!(recv.count_frame(&header, &limits), Err(error));
}

#[test]
fn fr_20_nothing_behind_a_close_is_delivered() {
    expect_frames(
        &[
            (0x88, b"\x03\xe9bye"),
            (0x81, b"late"),
            (0x83, b"garbage"),
            (0x88, b""),
        ],
        &[Got::Close(Some((1001, "bye".to_owned())))],
        None,
    );
    let mut peer = Peer::new(Side::Client, Delivery::Messages);
    peer.receive(&frame(Side::Client, 0x88, b""));
    for _ in 0..100 {
        peer.receive(&[0xff; 1000]);
    }
    assert_eq!((peer.recv.memory(), peer.spill.len()), (0, 0));
}

// ---- UTF-8 ----

#[test]
fn u8_01_invalid_text_is_refused() {
    for bad in [
        b"\xc0\x80".as_slice(),
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xfe",
        b"\xff",
    ] {
        let error = Some(ProtocolError::InvalidUtf8);
        let within = [b"ok ".as_slice(), bad, b" not"].concat();
        expect_frames(
            &[(0x89, b"p"), (0x81, &within)],
            &[Got::Ping(b"p".to_vec())],
            error,
        );
        expect_frames(
            &[(0x01, b"ok "), (0x00, &within), (0x89, b"late")],
            &[],
            error,
        );
    }
}

#[test]
fn u8_01_the_first_bad_byte_fails_in_the_middle_of_a_frame() {
    for delivery in DELIVERIES {
        for (good, bad) in [
            (b"\xce\xba\xf4".as_slice(), 0x90),
            (b"a\xed", 0xa0),
            (b"", 0xc0),
        ] {
            let mut peer = Peer::new(Side::Client, delivery);
            peer.receive(&header(Side::Client, 0x01, 100));
            peer.receive(good);
            assert_eq!(peer.error, None);
            peer.receive(&[bad]);
            assert_eq!(peer.error, Some(ProtocolError::InvalidUtf8));
        }
    }
}

#[test]
fn u8_02_code_points_split_over_fragments_and_reads_are_accepted() {
    let whole = "\u{e9}\u{20ac}\u{1f600}";
    for cut in 0..=whole.len() {
        let (head, tail) = whole.as_bytes().split_at(cut);
        expect_frames(&[(0x01, head), (0x80, tail)], &[text(whole)], None);
    }
    let bytes: Vec<&[u8]> = whole.as_bytes().chunks(1).collect();
    let mut list = vec![(0x01, bytes[0])];
    list.extend(bytes[1..].iter().map(|byte| (0x00, *byte)));
    list.push((0x80, b""));
    expect_frames(&list, &[text(whole)], None);
}

#[test]
fn u8_03_a_text_that_ends_inside_a_code_point_is_refused() {
    let error = Some(ProtocolError::InvalidUtf8);
    for cut in [b"a\xc3".as_slice(), b"\xe2\x82", b"\xf0\x9f\x98"] {
        expect_frames(&[(0x81, cut)], &[], error);
        expect_frames(&[(0x01, cut), (0x80, b"")], &[], error);
        expect_frames(&[(0x01, b"a"), (0x80, cut)], &[], error);
    }
}

#[test]
fn u8_05_an_invalid_close_reason_is_refused() {
    let error = Some(ProtocolError::InvalidUtf8);
    expect_frames(&[(0x88, b"\x03\xe8\xff")], &[], error);
    expect_frames(&[(0x88, b"\x03\xe8cut \xe2\x82")], &[], error);
}

#[test]
fn u8_07_binary_and_ping_payloads_are_untouched_bytes() {
    let bytes = b"\xc0\x80\xed\xa0\x80\xff";
    expect_frames(
        &[
            (0x82, bytes),
            (0x89, bytes),
            (0x02, bytes),
            (0x8a, bytes),
            (0x80, bytes),
        ],
        &[
            binary(bytes),
            Got::Ping(bytes.to_vec()),
            Got::Pong(bytes.to_vec()),
            binary(&[bytes.as_slice(), bytes].concat()),
        ],
        None,
    );
}

#[test]
fn u8_08_noncharacters_bom_and_nul_are_delivered_unchanged() {
    let odd = "\u{feff}\0\u{fffe}\u{10ffff}";
    expect_frames(&[(0x81, odd.as_bytes())], &[text(odd)], None);
}

// ---- Close ----

#[test]
fn cl_01_close_payload_lengths() {
    expect_frames(&[(0x88, b"")], &[Got::Close(None)], None);
    expect_frames(
        &[(0x88, b"\x03")],
        &[],
        Some(ProtocolError::InvalidCloseLength),
    );
    expect_frames(
        &[(0x88, b"\x03\xe8")],
        &[Got::Close(Some((1000, String::new())))],
        None,
    );
    let longest = [b"\x0f\xa0".as_slice(), &[b'r'; 123]].concat();
    expect_frames(
        &[(0x88, &longest)],
        &[Got::Close(Some((4000, "r".repeat(123))))],
        None,
    );
}

#[test]
fn cl_02_close_codes_that_must_not_be_sent_are_refused() {
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let error = ProtocolError::InvalidCloseCode(code);
        expect_frames(&[(0x88, &code.to_be_bytes())], &[], Some(error));
        assert_eq!(error.close_code().value(), 1002);
    }
    for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
        expect_frames(
            &[(0x88, &code.to_be_bytes())],
            &[Got::Close(Some((code, String::new())))],
            None,
        );
    }
}

#[test]
fn a_close_inside_a_message_gives_its_memory_back() {
    let mut peer = Peer::new(Side::Client, Delivery::Messages);
    peer.receive(&frame(Side::Client, 0x02, &[0; 50_000]));
    peer.receive(&frame(Side::Client, 0x88, b""));
    assert!(!peer.recv.is_inside_message());
    assert!(peer.recv.memory() <= size_of::<More>());
}

// ---- memory and borrowing ----

#[test]
fn the_state_of_a_connection_stays_small() {
    assert!(size_of::<Recv>() <= 56, "{}", size_of::<Recv>());
}

#[test]
fn a_message_whole_in_the_input_is_a_slice_of_it() {
    for len in [0, 20, 125, 126, 5000, 70_000] {
        for side in SIDES {
            for delivery in DELIVERIES {
                let mut input = frame(side, 0x81, &vec![b'a'; len]);
                let within = input.as_ptr_range();
                let (mut recv, mut pool, limits) =
                    (Recv::default(), RecvPool::default(), RecvLimits::default());
                let mut feed = recv.feed(side, delivery, &limits, &mut pool, &mut input);
                let data = match feed.next().unwrap().unwrap() {
                    Item::Message(message) => message.as_bytes(),
                    Item::Chunk(chunk) => chunk.data,
                    other => panic!("{other:?}"),
                };
                assert!(within.start <= data.as_ptr() && data.as_ptr() <= within.end);
                assert_eq!(data.len(), len);
                drop(feed);
                assert_eq!((recv.memory(), pool.buffers.memory()), (0, 0));
            }
        }
    }
}

#[test]
fn an_assembled_message_goes_back_to_the_pool_when_the_feed_ends() {
    let (mut recv, mut pool, limits) =
        (Recv::default(), RecvPool::default(), RecvLimits::default());
    let mut input = frames(Side::Client, &[(0x01, b"a"), (0x80, b"b"), (0x82, b"next")]);
    let mut feed = recv.feed(
        Side::Client,
        Delivery::Messages,
        &limits,
        &mut pool,
        &mut input,
    );
    assert_eq!(feed.next(), Ok(Some(Item::Message(Message::Text("ab")))));
    let used = feed.finish();
    assert_eq!(used, 6, "the feed was ended before the next message");
    assert!(recv.memory() <= size_of::<More>());
    let lent = pool.buffers.memory();
    assert!(lent > 0);
    let mut feed = recv.feed(
        Side::Client,
        Delivery::Messages,
        &limits,
        &mut pool,
        &mut input[used..],
    );
    assert_eq!(
        feed.next(),
        Ok(Some(Item::Message(Message::Binary(b"next"))))
    );
    assert_eq!(feed.next(), Ok(None));
    drop(feed);
    assert_eq!(pool.buffers.memory(), lent);
}

#[test]
fn chunks_keep_nothing() {
    let mut peer = Peer::new(Side::Server, Delivery::Chunks);
    let bytes = frame(Side::Server, 0x82, &[3; 10_000]);
    for piece in bytes.chunks(100) {
        peer.receive(piece);
        assert_eq!(peer.recv.memory(), 0);
    }
    assert_eq!(peer.outcome(), (vec![binary(&[3; 10_000])], None));
}

#[test]
fn a_chunk_tells_what_its_frame_still_owes() {
    let (mut recv, mut pool, limits) =
        (Recv::default(), RecvPool::default(), RecvLimits::default());
    let mut input = header(Side::Client, 0x02, 10);
    input.extend_from_slice(b"abc");
    let mut feed = recv.feed(
        Side::Client,
        Delivery::Chunks,
        &limits,
        &mut pool,
        &mut input,
    );
    let expected = Chunk {
        kind: MessageKind::Binary,
        data: b"abc",
        first: true,
        last: false,
        frame_remaining: 7,
    };
    assert_eq!(feed.next(), Ok(Some(Item::Chunk(expected))));
}

#[test]
fn inside_a_message_means_from_its_header_to_its_last_byte() {
    let mut peer = Peer::new(Side::Client, Delivery::Messages);
    assert!(!peer.recv.is_inside_message());
    for (bytes, inside) in [
        (b"\x81\x02".as_slice(), true),
        (b"ab", false),
        (b"\x01\x00", true),
        (b"\x89\x00", true),
        (b"\x80\x01", true),
        (b"c", false),
    ] {
        peer.receive(bytes);
        assert_eq!(peer.recv.is_inside_message(), inside, "after {bytes:?}");
    }
}

// ---- discarding ----

#[test]
fn discarding_drops_data_without_limits_and_gives_control_frames() {
    for side in SIDES {
        let mut peer = Peer::limited(
            side,
            Delivery::Messages,
            RecvLimits::default().with_frame_bytes(10),
        );
        peer.recv.discard_data();
        let mut bytes = frames(
            side,
            &[(0x81, b"\xff not text"), (0x89, b"p"), (0x82, &[0; 1000])],
        );
        bytes.extend(frames(
            side,
            &[(0x01, b"a"), (0x8a, b""), (0x80, b"b"), (0x88, b"\x03\xe8")],
        ));
        let expected = [
            Got::Ping(b"p".to_vec()),
            Got::Pong(vec![]),
            Got::Close(Some((1000, String::new()))),
        ];
        for piece in bytes.chunks(7) {
            peer.receive(piece);
            assert!(peer.recv.memory() <= size_of::<More>() + MAX_PAYLOAD_LEN);
        }
        assert_eq!(peer.outcome(), (expected.to_vec(), None));
    }
}

#[test]
fn discarding_may_begin_at_every_byte() {
    let list: &[(u8, &[u8])] = &[
        (0x81, b"one"),
        (0x01, b"t"),
        (0x89, b"ping"),
        (0x80, b"wo"),
        (0x82, b"three"),
        (0x88, b""),
    ];
    for side in SIDES {
        let bytes = frames(side, list);
        for delivery in DELIVERIES {
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                let mut peer = Peer::new(side, delivery);
                peer.receive(head);
                let before = peer
                    .got
                    .iter()
                    .filter(|got| matches!(got, Got::Message(..)))
                    .count();
                peer.recv.discard_data();
                assert!(peer.recv.memory() <= size_of::<More>() + MAX_PAYLOAD_LEN);
                peer.receive(tail);
                assert_eq!(peer.error, None, "{side:?} {delivery:?} at {cut}");
                let after = peer
                    .got
                    .iter()
                    .filter(|got| matches!(got, Got::Message(..)))
                    .count();
                assert_eq!(before, after);
                assert_eq!(
                    peer.got
                        .iter()
                        .filter(|got| matches!(got, Got::Ping(_)))
                        .count(),
                    1
                );
                assert_eq!(peer.got.last(), Some(&Got::Close(None)));
            }
        }
    }
}

#[test]
fn discarding_may_begin_while_an_item_was_just_given() {
    for list in [
        [(0x01, b"a".as_slice()), (0x80, b"b")].as_slice(),
        &[(0x81, b"ab")],
    ] {
        let mut input = frames(Side::Client, list);
        input.extend(frames(Side::Client, &[(0x82, b"dropped"), (0x89, b"p")]));
        let (mut recv, mut pool, limits) =
            (Recv::default(), RecvPool::default(), RecvLimits::default());
        let mut feed = recv.feed(
            Side::Client,
            Delivery::Messages,
            &limits,
            &mut pool,
            &mut input,
        );
        assert_eq!(feed.next(), Ok(Some(Item::Message(Message::Text("ab")))));
        feed.discard_data();
        assert_eq!(feed.next(), Ok(Some(Item::Ping(b"p"))));
        assert_eq!(feed.next(), Ok(None));
    }
}

#[test]
fn discarding_still_refuses_broken_headers() {
    for bytes in [
        b"\x83\x00".as_slice(),
        b"\x81\x80\0\0\0\0",
        b"\xc1\x00",
        b"\x80\x00",
    ] {
        let mut peer = Peer::new(Side::Client, Delivery::Messages);
        peer.recv.discard_data();
        peer.receive(bytes);
        assert!(peer.error.is_some(), "{bytes:?}");
    }
}

// ---- segmentation and differential ----

/// A naive decoder of a whole stream: no state, no speed, no in-place work.
fn reference(side: Side, limits: &RecvLimits, stream: &[u8]) -> Outcome {
    let mut got = Vec::new();
    let error = reference_frames(side, limits, stream, &mut got).err();
    (got, error)
}

fn reference_frames(
    side: Side,
    limits: &RecvLimits,
    mut rest: &[u8],
    got: &mut Vec<Got>,
) -> Result<(), ProtocolError> {
    let mut open = None;
    while let Some(header) = reference_header(rest)? {
        reference_order(side, limits, &header, &mut open)?;
        let here = (rest.len() - header.header_len).min(header.len as usize);
        let mut payload = rest[header.header_len..header.header_len + here].to_vec();
        for (i, byte) in payload.iter_mut().enumerate().filter(|_| header.masked) {
            *byte ^= rest[header.header_len - 4 + i % 4];
        }
        let whole = here as u64 == header.len;
        rest = &rest[header.header_len + here..];
        match header.opcode {
            0..8 => reference_data(&header, &payload, whole, &mut open, got)?,
            8 if whole => {
                let frame = CloseFrame::parse(&payload)?;
                let frame = frame.map(|f| (f.code().value(), f.reason().to_owned()));
                got.push(Got::Close(frame));
                return Ok(());
            }
            9 if whole => got.push(Got::Ping(payload)),
            10 if whole => got.push(Got::Pong(payload)),
            _ => {}
        }
    }
    Ok(())
}

struct ReferenceHeader {
    fin: bool,
    rsv1: bool,
    opcode: u8,
    masked: bool,
    len: u64,
    header_len: usize,
}

/// The message that is open: its opcode, its bytes, the sum of its frames' lengths, their number.
type ReferenceMessage = Option<(u8, Vec<u8>, u64, u32)>;

/// What the bytes of a header show by themselves, in their order.
fn reference_header(rest: &[u8]) -> Result<Option<ReferenceHeader>, ProtocolError> {
    let Some(&first) = rest.first() else {
        return Ok(None);
    };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    for (bit, number) in [(0x20, 2), (0x10, 3)] {
        if first & bit != 0 {
            return Err(ProtocolError::ReservedBit(number));
        }
    }
    if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
        return Err(ProtocolError::ReservedOpcode(opcode));
    }
    if opcode >= 8 && !fin {
        return Err(ProtocolError::ControlFragmented);
    }
    let Some(&second) = rest.get(1) else {
        return Ok(None);
    };
    let (masked, short) = (second & 0x80 != 0, second & 0x7f);
    if opcode >= 8 && short > 125 {
        return Err(ProtocolError::ControlTooLong);
    }
    let (len_bytes, min) = match short {
        126 => (2, 126),
        127 => (8, 65536),
        _ => (0, 0),
    };
    if short == 127 && rest.get(2).is_some_and(|byte| byte & 0x80 != 0) {
        return Err(ProtocolError::LengthTopBitSet);
    }
    let Some(bytes) = rest.get(2..2 + len_bytes) else {
        return Ok(None);
    };
    let long = bytes
        .iter()
        .fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
    if long < min {
        return Err(ProtocolError::LengthNotMinimal);
    }
    let header = ReferenceHeader {
        fin,
        rsv1: first & 0x40 != 0,
        opcode,
        masked,
        len: if len_bytes == 0 {
            u64::from(short)
        } else {
            long
        },
        header_len: 2 + len_bytes + if masked { 4 } else { 0 },
    };
    Ok((rest.len() >= header.header_len).then_some(header))
}

/// What a whole header shows together with what came before it.
fn reference_order(
    side: Side,
    limits: &RecvLimits,
    header: &ReferenceHeader,
    open: &mut ReferenceMessage,
) -> Result<(), ProtocolError> {
    if header.rsv1 {
        return Err(ProtocolError::ReservedBit(1));
    }
    match side {
        Side::Server if !header.masked => return Err(ProtocolError::UnmaskedByClient),
        Side::Client if header.masked => return Err(ProtocolError::MaskedByServer),
        _ => {}
    }
    if header.opcode >= 8 {
        return Ok(());
    }
    match (&open, header.opcode) {
        (None, 0) => return Err(ProtocolError::ContinuationWithoutStart),
        (Some(_), 1 | 2) => return Err(ProtocolError::DataInsideMessage),
        (None, _) => *open = Some((header.opcode, Vec::new(), 0, 0)),
        (Some(_), _) => {}
    }
    let (len, limit) = (header.len, limits.frame_bytes);
    if len > limit && limit < limits.message_bytes as u64 {
        return Err(ProtocolError::FrameTooLarge { len, limit });
    }
    let (_, _, total, count) = open.as_mut().unwrap();
    *total += len;
    if *total > limits.message_bytes as u64 {
        let limit = limits.message_bytes;
        return Err(ProtocolError::MessageTooLarge { limit });
    }
    *count += 1;
    if (*count > 1 || !header.fin) && *count > limits.fragments {
        let limit = limits.fragments;
        return Err(ProtocolError::TooManyFragments { limit });
    }
    Ok(())
}

fn reference_data(
    header: &ReferenceHeader,
    payload: &[u8],
    whole: bool,
    open: &mut ReferenceMessage,
    got: &mut Vec<Got>,
) -> Result<(), ProtocolError> {
    let (kind, data, ..) = open.as_mut().unwrap();
    data.extend_from_slice(payload);
    let verdict = std::str::from_utf8(data);
    let ends = header.fin && whole;
    if *kind == 1 && verdict.is_err_and(|error| ends || error.error_len().is_some()) {
        return Err(ProtocolError::InvalidUtf8);
    }
    let kind = match *kind {
        1 => MessageKind::Text,
        _ => MessageKind::Binary,
    };
    if ends {
        got.extend(open.take().map(|(_, data, ..)| Got::Message(kind, data)));
    }
    Ok(())
}

fn golden(side: Side) -> Vec<u8> {
    let long = "\u{3ba}\u{1f600}x".repeat(20);
    frames(
        side,
        &[
            (0x81, b"Hello"),
            (0x82, b""),
            (0x01, long.as_bytes()),
            (0x89, b"are you there"),
            (0x80, &long.as_bytes()[..6]),
            (0x82, &[0xee; 130]),
            (0x02, &[1; 33]),
            (0x00, b""),
            (0x8a, &[9; 125]),
            (0x00, &[2; 3]),
            (0x80, b""),
            (0x81, "\u{fffd}".as_bytes()),
            (0x88, b"\x03\xe8done"),
        ],
    )
}

#[test]
fn fr_13_a_golden_stream_gives_the_same_items_in_every_two_way_split() {
    for side in SIDES {
        let bytes = golden(side);
        let (items, error) = reference(side, &RecvLimits::default(), &bytes);
        assert_eq!((items.len(), error), (9, None));
        expect_everywhere(side, &RecvLimits::default(), &bytes, &items, None);
    }
}

#[test]
fn fr_13_a_golden_stream_gives_the_same_items_in_random_splits() {
    let limits = RecvLimits::default();
    let mut random = Random(0x5eed_0001);
    for side in SIDES {
        let bytes = golden(side);
        let expected = reference(side, &limits, &bytes);
        for delivery in DELIVERIES {
            for turn in 0..2_000 {
                let seed = random.0;
                let pieces = random.pieces(&bytes);
                let outcome = run(side, delivery, &limits, pieces);
                assert_eq!(
                    outcome, expected,
                    "{side:?} {delivery:?} turn {turn} seed {seed:#x}"
                );
            }
        }
    }
}

#[test]
fn fr_13_large_messages_give_the_same_items_in_random_splits() {
    let limits = RecvLimits::default();
    let mut random = Random(0x5eed_0002);
    let long = "\u{3ba}\u{1f600}x text ".repeat(9_000);
    for side in SIDES {
        let list: &[(u8, &[u8])] = &[
            (0x82, &[5; 65_535]),
            (0x81, long.as_bytes()),
            (0x02, &[6; 65_536]),
            (0x80, b""),
        ];
        let bytes = frames(side, list);
        let expected = reference(side, &limits, &bytes);
        assert_eq!(expected.0.len(), 3);
        for delivery in DELIVERIES {
            for _ in 0..20 {
                let seed = random.0;
                let mut pieces = Vec::new();
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at((1 + random.below(50_000)).min(rest.len()));
                    pieces.push(piece);
                    rest = behind;
                }
                assert_eq!(
                    run(side, delivery, &limits, pieces),
                    expected,
                    "seed {seed:#x}"
                );
            }
        }
    }
}

/// Mostly legal frames, with a few faults.
fn random_stream(random: &mut Random, side: Side) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut inside = false;
    for _ in 0..1 + random.below(12) {
        let control = random.below(4) == 0;
        let fin = random.below(3) > 0;
        let first = match (control, inside) {
            (true, _) => 0x80 | [8, 9, 9, 10, 10, 10][random.below(6)],
            (false, true) => u8::from(fin) << 7,
            (false, false) => u8::from(fin) << 7 | [1, 1, 2][random.below(3)],
        };
        if !control {
            inside = !fin;
        }
        let long = if control { 0 } else { random.below(10) / 8 };
        let len = random.below([12, 300][long]);
        let close = first == 0x88 && len > 1;
        let mut payload: Vec<u8> = match random.below(8) {
            0 => (0..len).map(|_| random.next() as u8).collect(),
            _ => "\u{e9}\u{20ac}a\u{1f600}bc"
                .bytes()
                .cycle()
                .skip(random.below(3))
                .take(len)
                .collect(),
        };
        if close {
            payload[..2].copy_from_slice(&1000_u16.to_be_bytes());
        }
        bytes.extend(frame(side, first, &payload));
    }
    for _ in 0..[0, 0, 1, 3][random.below(4)] {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    bytes.truncate(bytes.len() - random.below(4).min(bytes.len() - 1));
    bytes
}

#[test]
fn random_streams_give_what_a_naive_decoder_gives_in_random_splits() {
    let mut random = Random(0x5eed_0003);
    let mut failed = 0;
    for turn in 0..20_000 {
        let seed = random.0;
        let side = SIDES[random.below(2)];
        let limits = RecvLimits::default()
            .with_frame_bytes([20, 200, 1000][random.below(3)])
            .with_message_bytes([20, 200, 1000][random.below(3)])
            .with_fragments([1, 3, 100][random.below(3)]);
        let bytes = random_stream(&mut random, side);
        let expected = reference(side, &limits, &bytes);
        failed += usize::from(expected.1.is_some());
        for delivery in DELIVERIES {
            let context = format!("turn {turn} seed {seed:#x} {side:?} {delivery:?} {bytes:x?}");
            assert_eq!(
                run(side, delivery, &limits, [bytes.as_slice()]),
                expected,
                "{context}"
            );
            let pieces = random.pieces(&bytes);
            assert_eq!(run(side, delivery, &limits, pieces), expected, "{context}");
        }
    }
    assert!(
        (2_000..18_000).contains(&failed),
        "{failed} streams of 20000 were faulty"
    );
}

#[test]
fn random_bytes_give_what_a_naive_decoder_gives() {
    let limits = RecvLimits::default();
    let mut random = Random(0x5eed_0004);
    for _ in 0..20_000 {
        let seed = random.0;
        let bytes: Vec<u8> = (0..1 + random.below(30))
            .map(|_| random.next() as u8)
            .collect();
        for side in SIDES {
            let expected = reference(side, &limits, &bytes);
            for delivery in DELIVERIES {
                assert_eq!(
                    run(side, delivery, &limits, [bytes.as_slice()]),
                    expected,
                    "seed {seed:#x}"
                );
                assert_eq!(
                    run(side, delivery, &limits, bytes.chunks(1)),
                    expected,
                    "seed {seed:#x}"
                );
            }
        }
    }
}
