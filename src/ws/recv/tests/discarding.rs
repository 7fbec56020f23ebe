//! The rest of a message that nobody wants.

use super::*;

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
