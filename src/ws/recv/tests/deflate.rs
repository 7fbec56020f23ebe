//! Compressed messages.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use super::*;
use crate::ws::deflate::inflate::INFLATER_BYTES;
use crate::ws::deflate::{DeflateConfig, DeflateParams, InflaterPool};

const RSV1: u8 = 0x40;

/// A sender of whole payloads, as RFC 7692 section 7.2.1 says.
struct Sender {
    deflate: Deflate,
    takeover: bool,
}

impl Sender {
    fn new(takeover: bool, level: i32) -> Self {
        let deflate = Deflate::new(level, false, 15);
        Self { deflate, takeover }
    }

    fn payload(&mut self, data: &[u8]) -> Vec<u8> {
        if data.is_empty() {
            return vec![0];
        }
        let mut out = self.flush(data, DeflateFlush::SyncFlush);
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        if !self.takeover {
            self.deflate.reset();
        }
        out
    }

    /// The message as one final block and the padding (section 7.2.3.4).
    fn final_block(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = self.flush(data, DeflateFlush::Finish);
        out.push(0);
        self.deflate.reset();
        out
    }

    fn flush(&mut self, data: &[u8], flush: DeflateFlush) -> Vec<u8> {
        let mut out = vec![0; data.len() * 2 + 1024];
        let before = (self.deflate.total_in(), self.deflate.total_out());
        self.deflate.compress(data, &mut out, flush).unwrap();
        assert_eq!(self.deflate.total_in() - before.0, data.len() as u64);
        out.truncate((self.deflate.total_out() - before.1) as usize);
        out
    }
}

fn receiver(side: Side, takeover: bool) -> Recv {
    let config = DeflateConfig::new();
    let params = DeflateParams {
        server_no_context_takeover: !takeover,
        client_no_context_takeover: !takeover,
        ..DeflateParams::new()
    };
    Recv::with_deflate(side, &params, &config)
}

fn peer(side: Side, delivery: Delivery, takeover: bool, limits: RecvLimits) -> Peer {
    Peer {
        recv: receiver(side, takeover),
        ..Peer::limited(side, delivery, limits)
    }
}

fn receive(
    side: Side,
    delivery: Delivery,
    takeover: bool,
    pieces: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Outcome {
    let mut peer = peer(side, delivery, takeover, RecvLimits::default());
    for piece in pieces {
        peer.receive(piece.as_ref());
    }
    assert_eq!(
        peer.pool.inflaters.lent(),
        0,
        "an inflater was not given back"
    );
    peer.outcome()
}

impl Random {
    /// Short ones are as likely as long ones.
    fn length(&mut self, bits: usize) -> usize {
        let end = 1 << self.below(bits);
        self.below(end)
    }
}

/// Kinds of data that compress well, a little and not at all.
fn sample(random: &mut Random, len: usize) -> Vec<u8> {
    match random.below(4) {
        0 => vec![b'a'; len],
        1 => "{\"id\":17,\"name\":\"sensor\",\"value\":0.25},"
            .bytes()
            .cycle()
            .take(len)
            .collect(),
        2 => (0..len).map(|_| b'a' + random.below(8) as u8).collect(),
        _ => (0..len).map(|_| random.below(128) as u8).collect(),
    }
}

#[test]
fn the_examples_of_rfc_7692_are_hello() {
    // Sections 7.2.3.1 to 7.2.3.5, the second of two with the window of the first.
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let fragments = [(0x41_u8, &hello[..3]), (0x80, &hello[3..])];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let stored = [
        0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
    ];
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let two = [
        0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
    ];
    for side in SIDES {
        for delivery in DELIVERIES {
            for (takeover, list, count) in [
                (false, vec![(0xc1, &hello[..])], 1),
                (false, fragments.to_vec(), 1),
                (false, vec![(0xc1, &hello[..]), (0xc1, &hello[..])], 2),
                (true, vec![(0xc1, &hello[..]), (0xc1, &again[..])], 2),
                (true, vec![(0xc1, &hello[..]), (0xc1, &hello[..])], 2),
                (false, vec![(0xc1, &stored[..])], 1),
                (false, vec![(0xc1, &last[..])], 1),
                (true, vec![(0xc1, &last[..]), (0xc1, &hello[..])], 2),
                (false, vec![(0xc1, &two[..])], 1),
            ] {
                let bytes = frames(side, &list);
                let expected = (vec![text("Hello"); count], None);
                assert_eq!(receive(side, delivery, takeover, [&bytes]), expected);
                let bytewise = receive(side, delivery, takeover, bytes.chunks(1));
                assert_eq!(bytewise, expected);
            }
        }
    }
}

#[test]
fn pm_10_every_split_of_a_session_gives_the_same_messages() {
    for takeover in [false, true] {
        let mut sender = Sender::new(takeover, 6);
        let first = sender.payload("h\u{e9}llo h\u{e9}llo h\u{e9}llo".as_bytes());
        let second = sender.payload(b"hello hello hello, hello!");
        let (a, b) = second.split_at(5);
        for side in SIDES {
            let bytes = frames(
                side,
                &[
                    (0xc1, &first),
                    (0x01, b"pl"),
                    (0x89, b"ping"),
                    (0x80, b"ain"),
                    (0x42, a),
                    (0x00, b""),
                    (0x89, b"pong"),
                    (0x80, b),
                    (0xc1, &[0]),
                    (0x88, b""),
                ],
            );
            let expected = vec![
                text("h\u{e9}llo h\u{e9}llo h\u{e9}llo"),
                Got::Ping(b"ping".to_vec()),
                text("plain"),
                Got::Ping(b"pong".to_vec()),
                binary(b"hello hello hello, hello!"),
                text(""),
                Got::Close(None),
            ];
            for delivery in DELIVERIES {
                for one in 0..=bytes.len() {
                    let (head, rest) = bytes.split_at(one);
                    for two in (0..=rest.len()).step_by(3) {
                        let (middle, tail) = rest.split_at(two);
                        let got = receive(side, delivery, takeover, [head, middle, tail]);
                        assert_eq!(got, (expected.clone(), None), "{one} {two}");
                    }
                }
            }
        }
    }
}

#[test]
fn pm_10_random_sessions_in_random_pieces_are_what_the_backend_makes_of_the_whole() {
    for seed in 1..=60_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let takeover = random.below(2) == 0;
        let side = SIDES[random.below(2)];
        let delivery = DELIVERIES[random.below(2)];
        let mut sender = Sender::new(takeover, 1 + random.below(9) as i32);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..6 {
            let len = random.length(19);
            let data = sample(&mut random, len);
            let payload = match random.below(5) {
                0 => sender.final_block(&data),
                _ => sender.payload(&data),
            };
            assert_eq!(
                naive(&payload).len(),
                if takeover { naive(&payload).len() } else { len }
            );
            let mut first = 0x42;
            let mut rest = payload.as_slice();
            while random.below(3) == 0 {
                let (piece, tail) = rest.split_at(random.below(rest.len() + 1));
                bytes.extend(frame(side, first, piece));
                (first, rest) = (0x00, tail);
            }
            bytes.extend(frame(side, first | 0x80, rest));
            expected.push(binary(&data));
        }
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at((1 + random.length(17)).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        let got = receive(side, delivery, takeover, pieces);
        assert_eq!(got.1, None, "seed {seed}");
        assert!(got.0 == expected, "seed {seed}");
    }
}

/// The whole payload in one call of the backend; with a window of its own.
fn naive(payload: &[u8]) -> Vec<u8> {
    let mut whole = payload.to_vec();
    whole.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut inflate = Inflate::new(false, 15);
    let mut out = vec![0; 4 << 20];
    let _ = inflate.decompress(&whole, &mut out, InflateFlush::SyncFlush);
    out.truncate(inflate.total_out() as usize);
    out
}

#[test]
fn fr_02_pm_06_rsv1_belongs_on_the_first_frame_of_a_message_and_nowhere_else() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    type Case<'a> = (&'a [(u8, &'a [u8])], ProtocolError);
    let cases: [Case<'_>; 7] = [
        (&[(0x89 | RSV1, b"")], ProtocolError::CompressedControl),
        (&[(0x8a | RSV1, b"")], ProtocolError::CompressedControl),
        (&[(0x88 | RSV1, b"")], ProtocolError::CompressedControl),
        (
            &[(0x41, &hello[..3]), (0xc0, &hello[3..])],
            ProtocolError::CompressedContinuation,
        ),
        (
            &[(0x01, b"plain"), (0xc0, &hello)],
            ProtocolError::CompressedContinuation,
        ),
        (
            &[(0x41, &hello[..3]), (0xc1, &hello)],
            ProtocolError::DataInsideMessage,
        ),
        (
            &[(0x80 | RSV1, &hello)],
            ProtocolError::CompressedContinuation,
        ),
    ];
    for side in SIDES {
        for (list, error) in cases {
            let bytes = frames(side, list);
            for delivery in DELIVERIES {
                let got = receive(side, delivery, false, bytes.chunks(1));
                assert_eq!(got.1, Some(error));
                assert_eq!(error.close_code().value(), 1002);
            }
        }
        let bytes = frames(side, &[(0xc1, &hello)]);
        let got = run(
            side,
            Delivery::Messages,
            &RecvLimits::default(),
            [&bytes[..]],
        );
        assert_eq!(got, (vec![], Some(ProtocolError::ReservedBit(1))));
    }
}

#[test]
fn pm_04_what_is_not_deflate_is_refused() {
    let mut random = Sender::new(false, 6);
    let good = random.payload(&b"some text that is worth to be compressed, some text".repeat(3));
    let mut unstripped = good.clone();
    unstripped.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut trailing = random.final_block(b"Hello");
    trailing.push(0);
    let mut wrong_padding = random.final_block(b"Hello");
    *wrong_padding.last_mut().unwrap() = 1;
    let mut second = random.final_block(b"Hello");
    second.pop();
    second.extend(random.final_block(b"Hello"));
    for (payload, error) in [
        // A reserved block type.
        (vec![0x06], ProtocolError::DeflateData),
        (vec![0x07, 0x00], ProtocolError::DeflateData),
        // LEN and NLEN that do not fit.
        (
            vec![0x00, 0x05, 0x00, 0xfa, 0xfe, 1, 2, 3, 4, 5, 0],
            ProtocolError::DeflateData,
        ),
        // A distance beyond everything there is: fixed codes, length 3, distance 1.
        (vec![0x02, 0x04, 0x00], ProtocolError::DeflateData),
        (
            good[..good.len() / 2].to_vec(),
            ProtocolError::DeflateUnfinished,
        ),
        (
            vec![0x00, 0x05, 0x00, 0xfa, 0xff, 1, 2],
            ProtocolError::DeflateUnfinished,
        ),
        (unstripped, ProtocolError::DeflateUnfinished),
        (trailing, ProtocolError::DeflateTrailing),
        (wrong_padding, ProtocolError::DeflateTrailing),
        (second, ProtocolError::DeflateTrailing),
    ] {
        for takeover in [false, true] {
            for delivery in DELIVERIES {
                let bytes = frame(Side::Server, 0xc2, &payload);
                let got = receive(Side::Server, delivery, takeover, [&bytes]).1;
                assert_eq!(got, Some(error), "{payload:02x?}");
                let got = receive(Side::Server, delivery, takeover, bytes.chunks(1)).1;
                assert_eq!(got, Some(error), "{payload:02x?}");
                assert_eq!(error.close_code().value(), 1007);
            }
        }
    }
}

#[test]
fn pm_07_a_window_of_before_is_out_of_reach_also_if_it_is_another_connections() {
    // The second refers to the first.
    let mut sender = Sender::new(true, 6);
    let secret = sender.payload(b"a secret of this connection");
    let stolen = sender.payload(b"a secret of this connection");
    assert!(stolen.len() < 8);
    let mut pool = RecvPool::default();
    for (payload, expected) in [(secret, None), (stolen, Some(ProtocolError::DeflateData))] {
        let mut peer = peer(
            Side::Server,
            Delivery::Messages,
            false,
            RecvLimits::default(),
        );
        mem::swap(&mut peer.pool, &mut pool);
        peer.receive(&frame(Side::Server, 0xc2, &payload));
        mem::swap(&mut peer.pool, &mut pool);
        assert_eq!(peer.error, expected);
    }
}

#[test]
fn text_is_validated_after_inflating_and_as_soon_as_it_is_there() {
    let mut bad = vec![b'a'; 200_000];
    bad[150_000] = 0xff;
    for (data, valid) in [
        ("\u{1f600}".repeat(50_000).into_bytes(), true),
        (b"caf\xe9".to_vec(), false),
        (b"cut \xe2\x82".to_vec(), false),
        (bad, false),
    ] {
        let payload = Sender::new(false, 1).payload(&data);
        let bytes = frame(Side::Server, 0xc1, &payload);
        for delivery in DELIVERIES {
            for piece in [bytes.len(), 7] {
                let got = receive(Side::Server, delivery, false, bytes.chunks(piece));
                let error = (!valid).then_some(ProtocolError::InvalidUtf8);
                assert_eq!(got.1, error);
                assert_eq!(got.0.len(), usize::from(valid));
            }
        }
    }
}

#[test]
fn pm_10_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    for limit in [1, 100, FULL_LEN - 1, FULL_LEN, FULL_LEN + 1, 100_000] {
        let limits = RecvLimits::default()
            .with_message_bytes(limit)
            .with_frame_bytes(limit as u64);
        let mut random = Random(limit as u64 * 0x9e37_79b9);
        for level in [1, 6] {
            for over in [0, 1] {
                for noisy in [false, true] {
                    let data: Vec<u8> = (0..limit + over)
                        .map(|_| if noisy { random.below(256) as u8 } else { 7 })
                        .collect();
                    let payload = Sender::new(false, level).payload(&data);
                    let bytes = frame(Side::Server, 0xc2, &payload);
                    for delivery in DELIVERIES {
                        for piece in [bytes.len(), 1] {
                            let mut peer = peer(Side::Server, delivery, false, limits);
                            bytes.chunks(piece).for_each(|piece| peer.receive(piece));
                            let error = ProtocolError::MessageTooLarge { limit };
                            assert_eq!(peer.error, (over == 1).then_some(error));
                            assert_eq!(peer.got.len(), 1 - over);
                        }
                    }
                }
            }
        }
    }
}

const FULL_LEN: usize = crate::ws::deflate::inflate::FULL;

#[test]
fn pm_01_a_bomb_ends_at_the_limit_having_used_no_more_than_the_limit_and_a_constant() {
    // 1 GiB of zeros: flushed blocks can be repeated.
    let megabyte = Sender::new(true, 9).flush(&vec![0; 1 << 20], DeflateFlush::SyncFlush);
    let bomb = megabyte.repeat(1024);
    assert!(bomb.len() < 2 << 20);
    let limit = 4 << 20;
    let limits = RecvLimits::default()
        .with_message_bytes(limit)
        .with_frame_bytes(1 << 30);
    for delivery in DELIVERIES {
        let mut peer = peer(Side::Client, delivery, false, limits);
        let bytes = frame(Side::Client, 0xc2, &bomb);
        let mut most = 0;
        for piece in bytes.chunks(1000) {
            let mut input = piece.to_vec();
            let mut feed =
                peer.recv
                    .feed(Side::Client, delivery, &limits, &mut peer.pool, &mut input);
            loop {
                match feed.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        peer.error = Some(error);
                        break;
                    }
                }
            }
            drop(feed);
            let shared = peer.pool.inflaters.memory() + peer.pool.buffers.memory();
            most = most.max(peer.recv.memory() + shared);
        }
        assert_eq!(peer.error, Some(ProtocolError::MessageTooLarge { limit }));
        assert_eq!(peer.error.unwrap().close_code().value(), 1009);
        let constant = INFLATER_BYTES + 64 * 1024 + 1024;
        let kept = if delivery == Delivery::Messages {
            limit
        } else {
            0
        };
        assert!(most <= kept + constant, "{most} bytes");
        assert_eq!(peer.pool.inflaters.lent(), 0);
    }
}

#[test]
fn a_message_over_the_ratio_limit_fails_once_it_is_worth_looking_at() {
    let config = DeflateConfig::new().ratio_limit(100).unwrap();
    for (len, fails) in [(60_000, false), (200_000, true)] {
        let payload = Sender::new(false, 9).payload(&vec![0; len]);
        assert!(payload.len() * 100 < len);
        let mut peer = Peer::new(Side::Server, Delivery::Messages);
        peer.recv = Recv::with_deflate(Side::Server, &DeflateParams::new(), &config);
        peer.receive(&frame(Side::Server, 0xc2, &payload));
        let error = ProtocolError::DeflateRatio { limit: 100 };
        assert_eq!(peer.error, fails.then_some(error));
    }
    let data: Vec<u8> = (0..200_000_u32).map(|i| (i / 7) as u8).collect();
    let mut peer = Peer::new(Side::Server, Delivery::Messages);
    peer.recv = Recv::with_deflate(Side::Server, &DeflateParams::new(), &config);
    peer.receive(&frame(
        Side::Server,
        0xc2,
        &Sender::new(false, 6).payload(&data),
    ));
    assert_eq!((peer.error, peer.got.len()), (None, 1));
}

#[test]
fn chunks_of_a_message_are_bounded_whatever_it_inflates_to() {
    let payload = Sender::new(false, 9).payload(&vec![0; 1 << 20]);
    let mut input = frame(Side::Server, 0xc2, &payload);
    let (mut recv, mut pool) = (receiver(Side::Server, false), RecvPool::default());
    let limits = RecvLimits::default();
    let mut feed = recv.feed(
        Side::Server,
        Delivery::Chunks,
        &limits,
        &mut pool,
        &mut input,
    );
    let (mut total, mut last) = (0, false);
    while let Some(Item::Chunk(chunk)) = feed.next().unwrap() {
        assert!(!last && chunk.data.len() <= 64 * 1024);
        assert!(chunk.data.iter().all(|&byte| byte == 0));
        total += chunk.data.len();
        last = chunk.last;
    }
    assert!(last);
    assert_eq!(total, 1 << 20);
}

/// Feeds as a loop does: what is left is offered again, alone, as long as the feed is suspended.
fn suspending(
    bytes: &[u8],
    piece: usize,
    allowance: usize,
    delivery: Delivery,
) -> (Vec<u8>, usize) {
    let (mut recv, mut pool) = (receiver(Side::Server, false), RecvPool::default());
    let limits = RecvLimits::default();
    let (mut data, mut spill, mut turns) = (Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        let mut input: Vec<u8> = mem::take(&mut spill);
        input.extend_from_slice(piece);
        loop {
            turns += 1;
            pool.inflaters.allow(allowance);
            let before = data.len();
            let mut feed = recv.feed(Side::Server, delivery, &limits, &mut pool, &mut input);
            while let Some(item) = feed.next().unwrap() {
                match item {
                    Item::Chunk(chunk) => data.extend_from_slice(chunk.data),
                    Item::Message(message) => data.extend_from_slice(message.as_bytes()),
                    other => panic!("{other:?}"),
                }
            }
            let used = feed.finish();
            input = input.split_off(used);
            assert!(delivery == Delivery::Messages || data.len() - before <= allowance + FULL_LEN);
            if !recv.is_suspended() {
                break;
            }
            assert!(!input.is_empty(), "nothing brings the caller back");
        }
        spill = input;
    }
    assert!(!recv.is_inside_message());
    (data, turns)
}

#[test]
fn an_allowance_cuts_the_work_and_not_the_message() {
    let mut random = Random(0x5eed_0005);
    let noise: Vec<u8> = (0..100_000).map(|_| random.below(4) as u8).collect();
    for data in [vec![0; 1 << 20], noise] {
        let payload = Sender::new(false, 9).payload(&data);
        let bytes = frame(Side::Server, 0xc2, &payload);
        for delivery in DELIVERIES {
            for piece in [bytes.len(), 100, 1] {
                let (got, turns) = suspending(&bytes, piece, 10_000, delivery);
                assert!(got == data);
                assert!(turns >= data.len() / (10_000 + FULL_LEN));
            }
        }
    }
}

#[test]
fn a_caller_that_stops_in_the_middle_of_an_output_gets_the_rest_later() {
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i >> 12) as u8).collect();
    let payload = Sender::new(false, 9).payload(&data);
    let mut input = frame(Side::Server, 0xc2, &payload);
    let (mut recv, mut pool) = (receiver(Side::Server, false), RecvPool::default());
    let limits = RecvLimits::default();
    let mut got = Vec::new();
    loop {
        let mut feed = recv.feed(
            Side::Server,
            Delivery::Chunks,
            &limits,
            &mut pool,
            &mut input,
        );
        let Some(Item::Chunk(chunk)) = feed.next().unwrap() else {
            break;
        };
        got.extend_from_slice(chunk.data);
        let last = chunk.last;
        let used = feed.finish();
        input.drain(..used);
        assert_eq!(input.is_empty(), last, "only bytes bring the caller back");
    }
    assert!(got == data);
}

#[test]
fn at_the_cap_a_message_waits_unconsumed_until_an_inflater_is_free() {
    let mut pool = RecvPool {
        inflaters: InflaterPool::new(1),
        ..RecvPool::default()
    };
    let limits = RecvLimits::default();
    let payload = Sender::new(false, 6).payload(b"Hello Hello Hello");
    let whole = frame(Side::Server, 0xc1, &payload);
    let (mut first, mut second) = (receiver(Side::Server, false), receiver(Side::Server, false));
    let mut feed = |recv: &mut Recv, bytes: &[u8]| {
        let mut input = bytes.to_vec();
        let mut feed = recv.feed(
            Side::Server,
            Delivery::Messages,
            &limits,
            &mut pool,
            &mut input,
        );
        let mut messages = 0;
        while feed.next().unwrap().is_some() {
            messages += 1;
        }
        (messages, feed.finish())
    };
    let (head, tail) = whole.split_at(whole.len() - 1);
    assert_eq!(feed(&mut first, head), (0, head.len()));
    assert_eq!(feed(&mut second, &whole), (0, 0));
    assert!(second.is_waiting() && !first.is_waiting());
    assert_eq!(feed(&mut first, tail), (1, 1));
    assert_eq!(feed(&mut second, &whole), (1, whole.len()));
    assert!(!second.is_waiting());
    // One that goes with its message half received leaves its place to others.
    assert_eq!(feed(&mut first, head), (0, head.len()));
    drop(first);
    assert_eq!(feed(&mut second, &whole), (1, whole.len()));
    // Context takeover is not counted.
    let mut owner = receiver(Side::Server, true);
    assert_eq!(feed(&mut second, head), (0, head.len()));
    assert_eq!(feed(&mut owner, &whole), (1, whole.len()));
}

#[test]
fn a_connection_owns_a_window_from_its_first_compressed_message_on_or_never() {
    let payload = Sender::new(false, 6).payload(b"Hello Hello Hello");
    let bytes = frame(Side::Server, 0xc1, &payload);
    for (takeover, window) in [(false, 0), (true, INFLATER_BYTES)] {
        let mut peer = peer(
            Side::Server,
            Delivery::Messages,
            takeover,
            RecvLimits::default(),
        );
        let before = peer.recv.memory();
        assert!(before <= 48, "{before}");
        peer.receive(&frame(Side::Server, 0x81, b"plain"));
        assert_eq!(peer.recv.memory(), before);
        peer.receive(&bytes);
        assert_eq!(peer.recv.memory(), before + window);
        peer.recv.discard_data();
        assert_eq!(peer.recv.memory(), before, "nobody needs it any more");
    }
}

#[test]
fn what_is_discarded_is_not_inflated() {
    let payload = Sender::new(false, 6).payload(&[7; 100_000]);
    let bytes = frames(
        Side::Server,
        &[(0xc2, &payload), (0xc2, b"\xff\xff"), (0x88, b"")],
    );
    for at in 0..bytes.len() {
        let mut peer = peer(
            Side::Server,
            Delivery::Messages,
            false,
            RecvLimits::default(),
        );
        peer.receive(&bytes[..at]);
        if peer.error.is_some() {
            break;
        }
        let before = peer.got.len();
        peer.recv.discard_data();
        assert_eq!(peer.pool.inflaters.lent(), 0);
        peer.receive(&bytes[at..]);
        assert_eq!(peer.error, None);
        assert_eq!(peer.got[before..], [Got::Close(None)]);
    }
}
