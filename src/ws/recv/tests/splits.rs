//! Every split of the same bytes gives the same items, and those that a naive decoder gives.

use super::*;

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
