//! Frames and text that a peer must not send, and what it may send at its worst (RFC 6455
//! sections 5 and 8). Which value is refused is the frame reader's own test; here is that the
//! refusal reaches both ends.

use std::time::Duration;

use wsloop::ws::ProtocolError;
use wsloop::{Limits, Side, VhostConfig};

use super::common::{SIDES, Session, frames_of, join};
use crate::support::{Recorder, World, close_payload, masked, plain};

/// What the peer of that side sends, and what is wrong with it.
fn violations(side: Side) -> Vec<(&'static str, Vec<u8>, ProtocolError)> {
    let frame = |first: u8, payload: &[u8]| match side {
        Side::Server => masked(first, payload),
        Side::Client => plain(first, payload),
    };
    let mask = if side == Side::Server { 0x80 } else { 0 };
    let huge = |len: u64| {
        let mut header = vec![0x82, mask | 127];
        header.extend_from_slice(&len.to_be_bytes());
        // The length alone is enough to know.
        header.extend_from_slice(&[0; 4][..usize::from(mask / 32)]);
        header
    };
    let wrong_mask = match side {
        Side::Server => (plain(0x81, b"x"), ProtocolError::UnmaskedByClient),
        Side::Client => (masked(0x81, b"x"), ProtocolError::MaskedByServer),
    };
    let limit = 1024 * 1024;
    let mut started = frame(0x01, b"begun");
    started.extend(frame(0x81, b"again"));
    vec![
        ("fr_01", wrong_mask.0, wrong_mask.1),
        ("fr_02", frame(0xc1, b"x"), ProtocolError::ReservedBit(1)),
        ("fr_03", frame(0x83, b""), ProtocolError::ReservedOpcode(3)),
        ("fr_03", frame(0x8f, b""), ProtocolError::ReservedOpcode(15)),
        ("fr_04", huge(1 << 63), ProtocolError::LengthTopBitSet),
        (
            "fr_04",
            huge(1 << 32),
            ProtocolError::MessageTooLarge { limit },
        ),
        (
            "fr_04",
            huge(limit as u64 + 1),
            ProtocolError::MessageTooLarge { limit },
        ),
        ("fr_07", frame(0x09, b""), ProtocolError::ControlFragmented),
        (
            "fr_07",
            frame(0x8a, &[0; 200]),
            ProtocolError::ControlTooLong,
        ),
        (
            "fr_08",
            frame(0x80, b"x"),
            ProtocolError::ContinuationWithoutStart,
        ),
        ("fr_08", started, ProtocolError::DataInsideMessage),
        (
            "u8_01",
            frame(0x81, &[0xc0, 0x80]),
            ProtocolError::InvalidUtf8,
        ),
        (
            "u8_01",
            frame(0x81, &[0xed, 0xa0, 0x80]),
            ProtocolError::InvalidUtf8,
        ),
        (
            "u8_03",
            frame(0x81, &[0xe2, 0x82]),
            ProtocolError::InvalidUtf8,
        ),
        (
            "u8_05",
            frame(0x88, &[3, 0xe8, 0xe2, 0x82]),
            ProtocolError::InvalidUtf8,
        ),
    ]
}

#[test]
fn fr_u8_a_violation_fails_the_connection_with_its_code_at_both_ends() {
    for side in SIDES {
        for (id, bytes, error) in violations(side) {
            let mut session = Session::open(side, Recorder::echo);
            // What is behind the violation is not even looked at.
            let mut sent = bytes.clone();
            sent.extend(session.frame(0x81, b"too late"));
            session.write(&sent);
            let (code, reason) = (error.close_code().value(), error.peer_reason());
            let expected = [(0x88, close_payload(code, &reason))];
            assert_eq!(session.frames(), expected, "{side:?} {id} {error}");
            assert!(session.peer.ended(), "{side:?} {id} {error}");
            let told = format!("closed Local protocol error: {error}, code {code}, not clean");
            assert_eq!(session.world.log.lines(), [told], "{side:?} {id}");
            session.end();
        }
    }
}

#[test]
fn fr_u8_the_close_frame_leaves_although_the_peer_has_ended_its_stream() {
    for side in SIDES {
        for (id, bytes, error) in violations(side) {
            let mut session = Session::open(side, Recorder::echo);
            session.peer.write(&bytes).unwrap();
            let (code, reason) = (error.close_code().value(), error.peer_reason());
            let expected = [(0x88, close_payload(code, &reason))];
            assert_eq!(session.end(), expected, "{side:?} {id} {error}");
            let told = format!("closed Local protocol error: {error}, code {code}, not clean");
            assert_eq!(session.world.log.lines(), [told], "{side:?} {id}");
        }
    }
}

#[test]
fn fr_15_a_message_over_the_limit_by_one_byte_is_refused() {
    for side in SIDES {
        let tune = |config: VhostConfig| config.limits(Limits::default().with_message_bytes(100));
        let mut session = Session::tuned(side, tune, Recorder::new);
        session.send(0x02, &[1; 60]);
        session.send(0x80, &[1; 40]);
        assert_eq!(session.world.log.count("binary"), 1);
        session.world.log.take();
        session.send(0x02, &[1; 60]);
        session.send(0x80, &[1; 41]);
        let error = ProtocolError::MessageTooLarge { limit: 100 };
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1009, &error.peer_reason()))]
        );
        assert!(
            session.final_event().contains(", code 1009, "),
            "{}",
            session.final_event()
        );
        assert_eq!(session.world.log.count("binary"), 0);
    }
}

#[test]
fn fr_06_a_declared_length_costs_no_memory_and_has_a_deadline() {
    let mut world = World::new(Recorder::new);
    let peers: Vec<_> = (0..1000).map(|_| join(&mut world)).collect();
    let before = world.context.memory();
    // 1 MiB is announced, a byte comes now and then.
    let announced = 1024 * 1024 - 1_u64;
    let mut header = vec![0x82, 0x80 | 127];
    header.extend_from_slice(&announced.to_be_bytes());
    header.extend_from_slice(&[1, 2, 3, 4]);
    for peer in &peers {
        peer.write(&header).unwrap();
    }
    world.turn();
    for _ in 0..5 {
        for peer in &peers {
            peer.write(&[0]).unwrap();
        }
        world.pass(Duration::from_secs(10));
    }
    let cost = (world.context.memory() - before) / peers.len();
    assert!(cost < 8 * 1024, "{cost} bytes for 5 received");
    assert_eq!(world.log.count("closed"), 0, "50 s are within the deadline");
    for peer in &peers {
        peer.write(&[0]).unwrap();
    }
    world.pass(Duration::from_millis(10_200));
    let told = "closed Local one message took longer than 60s, code 1008 \"the message took too \
                long\", not clean";
    assert_eq!(world.log.count(told), peers.len());
    for peer in &peers {
        let sent = peer.read();
        let (frames, _) = frames_of(Side::Server, &sent);
        assert_eq!(
            frames.last(),
            Some(&(0x88, close_payload(1008, "the message took too long")))
        );
    }
    drop(peers);
    world.turn();
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn fr_09_pings_between_fragments_are_answered_in_order() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.send(0x01, b"be");
        session.send(0x89, b"first");
        session.send(0x89, b"second");
        let pongs = [(0x8a, b"first".to_vec()), (0x8a, b"second".to_vec())];
        assert_eq!(session.frames(), pongs, "{side:?}");
        session.send(0x80, b"gun");
        assert_eq!(session.world.log.take(), ["text \"begun\""], "{side:?}");
    }
}

#[test]
fn fr_09_a_close_between_fragments_is_honoured() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.send(0x01, b"be");
        session.send(0x88, &close_payload(1000, ""));
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1000, ""))],
            "{side:?}"
        );
        session.end();
        let told = "closed Peer closed by the peer, code 1000, clean";
        assert_eq!(session.final_event(), told, "{side:?}");
        assert_eq!(session.world.log.count("text"), 0, "{side:?}");
    }
}

#[test]
fn fr_09_ten_thousand_pings_at_once_are_answered_as_far_as_section_5_5_3_asks() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.world.net.set_capacity(1 << 20);
        let mut bytes = session.frame(0x01, b"be");
        for n in 0..10_000_u32 {
            bytes.extend(session.frame(0x89, &n.to_be_bytes()));
        }
        bytes.extend(session.frame(0x80, b"gun"));
        session.write(&bytes);
        let numbers: Vec<u32> = session
            .frames()
            .iter()
            .map(|(first, payload)| {
                assert_eq!(*first, 0x8a);
                u32::from_be_bytes(payload.as_slice().try_into().unwrap())
            })
            .collect();
        assert!(
            numbers.windows(2).all(|two| two[0] < two[1]),
            "in order, none twice"
        );
        assert_eq!(
            numbers.last(),
            Some(&9999),
            "the latest ping is always answered"
        );
        assert_eq!(session.world.log.take(), ["text \"begun\""], "{side:?}");
        assert!(session.world.context.memory() < 64 * 1024);
    }
}

#[test]
fn fr_09_pings_of_a_peer_that_reads_nothing_do_not_pile_up() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.world.net.set_capacity(100);
        let many: Vec<u8> = (0..1000_u32)
            .flat_map(|n| session.frame(0x89, &n.to_be_bytes()))
            .collect();
        for _ in 0..20 {
            session.write(&many);
        }
        let memory = session.world.context.memory();
        assert!(memory < 32 * 1024, "{memory} bytes for pongs");
        let mut sent = Vec::new();
        for _ in 0..1000 {
            sent.extend(session.peer.read());
            session.world.turn();
        }
        let (frames, rest) = frames_of(side, &sent);
        assert!(rest.is_empty());
        let last = frames.last().map(|(_, payload)| payload.clone());
        assert_eq!(last, Some(999_u32.to_be_bytes().to_vec()), "{side:?}");
    }
}

#[test]
fn fr_10_a_million_fragments_stop_at_the_limit() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.write(&session.frame(0x02, b"a"));
        let before = session.world.context.memory();
        let some = session.frame(0x00, b"a").repeat(10_000);
        let mut most = 0;
        for _ in 0..100 {
            session.write(&some);
            most = most.max(session.world.context.memory());
        }
        let error = ProtocolError::TooManyFragments { limit: 1024 };
        let reason = error.peer_reason();
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1008, &reason))],
            "{side:?}"
        );
        let told = format!("closed Local protocol error: {error}, code 1008, not clean");
        assert_eq!(session.world.log.lines(), [told], "{side:?}");
        assert!(most < before + 16 * 1024, "{most} bytes after {before}");
        session.end();
    }
}

#[test]
fn fr_20_what_follows_the_peer_s_close_frame_is_dropped() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::echo);
        let mut bytes = session.frame(0x88, &close_payload(1000, ""));
        bytes.extend(session.frame(0x81, b"behind"));
        session.write(&bytes);
        let before = session.world.context.memory();
        for _ in 0..100 {
            session.send(0x82, &[0; 10_000]);
            // Not even frames any more.
            session.write(&[0xff; 1000]);
        }
        assert!(session.world.context.memory() <= before, "{side:?}");
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1000, ""))],
            "{side:?}"
        );
        session.end();
        let told = [
            "peer_close Some(\"1000 \\\"\\\"\")",
            "closed Peer closed by the peer, code 1000, clean",
        ];
        assert_eq!(session.world.log.lines(), told, "{side:?}");
    }
}

#[test]
fn u8_02_a_code_point_cut_over_fragments_and_reads_is_delivered() {
    let text = "\u{20ac}\u{1f600}";
    for side in SIDES {
        for cut in 1..text.len() {
            let mut session = Session::open(side, Recorder::new);
            let (head, tail) = text.as_bytes().split_at(cut);
            let mut bytes = session.frame(0x01, head);
            bytes.extend(session.frame(0x80, tail));
            for byte in bytes {
                session.write(&[byte]);
            }
            assert_eq!(
                session.world.log.take(),
                [format!("text {text:?}")],
                "{side:?} {cut}"
            );
        }
    }
}

#[test]
fn u8_07_what_is_no_text_is_left_alone() {
    let bytes = [0xc0, 0x80, 0xed, 0xa0, 0x80, 0xff, 0xfe];
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.send(0x82, &bytes);
        session.send(0x89, &bytes);
        assert_eq!(session.world.log.take(), [format!("binary {bytes:02x?}")]);
        assert_eq!(session.frames(), [(0x8a, bytes.to_vec())], "{side:?}");
    }
}

#[test]
fn u8_08_odd_but_valid_text_is_delivered_unchanged() {
    let text = "\u{feff}nul\0 \u{fffe} \u{ffff} \u{10ffff}";
    for side in SIDES {
        let mut session = Session::open(side, Recorder::echo);
        session.send(0x81, text.as_bytes());
        assert_eq!(session.world.log.take(), [format!("text {text:?}")]);
        assert_eq!(
            session.frames(),
            [(0x81, text.as_bytes().to_vec())],
            "{side:?}"
        );
    }
}

#[test]
fn fr_12_empty_frames_make_empty_messages() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::echo);
        session.send(0x81, b"");
        session.send(0x02, b"");
        session.send(0x00, b"x");
        session.send(0x80, b"");
        assert_eq!(
            session.world.log.take(),
            ["text \"\"", "binary [78]"],
            "{side:?}"
        );
        assert_eq!(
            session.frames(),
            [(0x81, Vec::new()), (0x82, b"x".to_vec())],
            "{side:?}"
        );
    }
}
