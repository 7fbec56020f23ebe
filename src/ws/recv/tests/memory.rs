//! What a connection keeps, and what is a slice of the input.

use super::*;

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
