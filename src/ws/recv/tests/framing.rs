//! What RFC 6455 says of frames: its examples, headers, order, sizes and fragments.

use super::*;

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
