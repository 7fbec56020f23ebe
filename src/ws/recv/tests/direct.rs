//! Payloads that are read to their place, as the loop does it: where there is room, and what is
//! behind it to a feed.

use super::*;

/// Receives `bytes` in pieces; of each, `most` bytes at most go to their place.
fn receive_directly(peer: &mut Peer, bytes: &[u8], mut piece: impl FnMut() -> (usize, usize)) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (len, most) = piece();
        let (now, later) = rest.split_at(len.clamp(1, rest.len()));
        rest = later;
        peer.arrive(now, most);
    }
}

impl Peer {
    fn arrive(&mut self, bytes: &[u8], most: usize) -> usize {
        let room = self.recv.room(&self.limits, 0, most);
        let direct = room.len().min(bytes.len());
        let (here, behind) = bytes.split_at(direct);
        room[..direct].copy_from_slice(here);
        assert!(direct == 0 || self.spill.is_empty(), "a header waits");
        self.recv.filled(self.side, direct);
        if !behind.is_empty() {
            self.receive(behind);
        }
        direct
    }
}

fn numbers(mut seed: u64) -> impl FnMut(u64) -> usize {
    println!("seed {seed}");
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below) as usize
    }
}

#[test]
fn what_is_read_to_its_place_gives_the_same_items_however_it_is_cut() {
    let data: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8).collect();
    let words = "two bytes: \u{e9}, four: \u{1f600}. ".repeat(300);
    let list: &[(u8, &[u8])] = &[
        (0x82, &data),
        (0x82, &data[..5]),
        (0x02, &data[..20_000]),
        (0x89, b"ping"),
        (0x00, &[]),
        (0x00, &data[..1]),
        (0x00, &data[..30_000]),
        (0x80, &data[..10_000]),
        (0x81, words.as_bytes()),
        (0x01, &words.as_bytes()[..12]),
        (0x80, &words.as_bytes()[12..]),
        (0x82, &data[..40_000]),
        (0x88, b"\x03\xe8"),
    ];
    let mut number = numbers(0x9e37_79b9_7f4a_7c15);
    for side in SIDES {
        let bytes = frames(side, list);
        let mut whole = Peer::new(side, Delivery::Messages);
        whole.receive(&bytes);
        let whole = whole.outcome();
        assert_eq!(whole.0.len(), 8);
        for most in [1, 7, 4096, 100_000] {
            for round in 0..8 {
                let mut peer = Peer::new(side, Delivery::Messages);
                let longest = [30, 2000, 30_000][round % 3];
                receive_directly(&mut peer, &bytes, || (number(longest), most));
                assert!(peer.outcome() == whole, "most {most}, round {round}");
            }
        }
    }
}

#[test]
fn errors_behind_what_is_read_to_its_place_are_the_same() {
    for bad in [
        (0x83, b"reserved".as_slice()),
        (0x82, b"not continued"),
        (0xc0, b"rsv1"),
        (0x80, &[0; 9000]),
    ] {
        let limits = RecvLimits::default().with_message_bytes(10_000);
        let bytes = frames(Side::Server, &[(0x02, &[1; 2000]), bad, (0x80, b"")]);
        let mut whole = Peer::limited(Side::Server, Delivery::Messages, limits);
        whole.receive(&bytes);
        let mut peer = Peer::limited(Side::Server, Delivery::Messages, limits);
        receive_directly(&mut peer, &bytes, || (100, 70));
        assert!(peer.recv.room(&limits, 0, usize::MAX).is_empty());
        assert_eq!(peer.outcome(), whole.outcome());
    }
}

#[test]
fn room_goes_by_what_has_come_and_not_by_what_was_announced() {
    let mut peer = Peer::new(Side::Server, Delivery::Messages);
    peer.receive(&header(Side::Server, 0x82, 1 << 20));
    assert_eq!(peer.recv.room(&peer.limits, 0, usize::MAX).len(), 0);
    peer.receive(&[1]);
    let mut arrived = 1;
    while peer.recv.remaining > 1 {
        let room = peer.recv.room(&peer.limits, 0, usize::MAX).len();
        assert!(room > 0 && room < (1 << 20) - arrived);
        assert!(peer.recv.memory() <= 2 * arrived + 4096 + size_of::<More>());
        // A slow peer has it grow no oftener than a fast one.
        peer.arrive(&vec![1; room.div_ceil(3)], usize::MAX);
        arrived += room.div_ceil(3);
    }
    assert_eq!(arrived, (1 << 20) - 1);
    assert!(peer.recv.memory() <= (1 << 20) + size_of::<More>());
}

#[test]
fn room_is_asked_for_in_vain_where_bytes_have_to_be_looked_at() {
    let limits = RecvLimits::default();
    let none = |peer: &mut Peer| peer.recv.room(&limits, 0, usize::MAX).is_empty();
    for side in SIDES {
        let cut = |first: u8| {
            let bytes = frame(side, first, &[b'x'; 5000]);
            bytes[..1000].to_vec()
        };
        for first in [0x81, 0x01] {
            let mut peer = Peer::new(side, Delivery::Messages);
            peer.receive(&cut(first));
            assert!(none(&mut peer), "text");
        }
        let mut peer = Peer::new(side, Delivery::Chunks);
        peer.receive(&cut(0x82));
        assert!(none(&mut peer), "chunks");
        let mut peer = Peer::new(side, Delivery::Messages);
        assert!(none(&mut peer), "no message");
        peer.receive(&cut(0x82));
        assert!(!none(&mut peer));
        assert!(peer.recv.room(&limits, 5000, usize::MAX).is_empty());
        peer.recv.discard_data();
        assert!(none(&mut peer), "discarding");
        peer.receive(&[0; 5000]);
        assert_eq!(peer.outcome().0, []);
    }
}

#[test]
fn nothing_of_an_earlier_message_is_in_a_later_one() {
    let mut peer = Peer::new(Side::Server, Delivery::Messages);
    let long = frame(Side::Server, 0x82, &[0xaa; 50_000]);
    let short = frame(Side::Server, 0x82, &[0xbb; 3000]);
    for bytes in [&long, &short, &long, &short] {
        receive_directly(&mut peer, bytes, || (2000, 1500));
    }
    peer.receive(&frames(Side::Server, &[(0x01, b"te"), (0x80, b"xt")]));
    receive_directly(&mut peer, &short, || (500, 500));
    let (a, b) = (binary(&[0xaa; 50_000]), binary(&[0xbb; 3000]));
    let expected = vec![a.clone(), b.clone(), a, b.clone(), text("text"), b];
    assert_eq!(peer.outcome(), (expected, None));
}

#[test]
fn who_has_sent_a_large_message_is_expected_to_send_another() {
    let large = frame(Side::Server, 0x82, &[7; 200_000]);
    let mut peer = Peer::new(Side::Server, Delivery::Messages);
    assert!(!peer.recv.expects_bulk(1000));
    peer.receive(&large[..14]);
    assert!(peer.recv.expects_bulk(1000), "its header is here");
    peer.receive(&large[14..20]);
    assert!(!peer.recv.expects_bulk(1000), "there is room for it");
    peer.receive(&large[20..]);
    assert!(peer.recv.expects_bulk(1000) && peer.recv.was_bulky());
    peer.recv.forget_bulk();
    assert!(!peer.recv.expects_bulk(1000));
}
