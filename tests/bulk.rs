//! Large messages: read to where they are assembled, written from there, however little the
//! sockets take and whatever is between them.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says where it is"
)]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use support::{Log, Recorder, World, addr, close_payload, masked, plain, turn};
use wsloop::sim::{Call, Fault, Net, Selector};
use wsloop::{
    Close, Context, ContextConfig, Established, Limits, Message, Protocol, VhostConfig, Wsi,
};

fn world(log: &Log) -> World {
    let limits = Limits::default().with_output_bytes(1 << 22);
    World::with(|_| {
        VhostConfig::new("a.test")
            .listen(addr())
            .limits(limits)
            .protocol("p", Recorder::echo(log))
    })
}

fn bytes(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn large_messages_come_back_whole_and_in_order_however_they_are_cut() {
    let text = "\u{e9}\u{1f600}x".repeat(30_000).into_bytes();
    let messages = [
        (0x82, bytes(300_000)),
        (0x82, bytes(300_001)),
        (0x82, b"small".to_vec()),
        (0x82, bytes(1 << 20)),
        (0x81, text.clone()),
        (0x82, bytes(150_000)),
        (0x81, text),
        (0x82, bytes(70_000)),
        (0x82, Vec::new()),
    ];
    let frames = |frame: fn(u8, &[u8]) -> Vec<u8>| {
        let all = messages
            .iter()
            .map(|(first, payload)| frame(*first, payload));
        all.collect::<Vec<_>>().concat()
    };
    let (sent, expected) = (frames(masked), frames(plain));
    for (piece, io, capacity) in [
        (usize::MAX, usize::MAX, 1 << 23),
        (50_000, usize::MAX, 100_000),
        (1 << 20, 30_000, 1 << 20),
        (7_001, 16_384, 40_000),
    ] {
        let log = Log::default();
        let mut world = world(&log);
        let peer = world.open();
        world.net.set_capacity(capacity);
        world.net.limit_io(io);
        let (mut left, mut heard, mut silent) = (sent.as_slice(), Vec::new(), 0);
        while silent < 10 || !left.is_empty() {
            let len = left.len().min(piece);
            if peer.write(&left[..len]).is_ok() {
                left = &left[len..];
            }
            world.turn();
            let came = peer.read_up_to(piece);
            silent = if came.is_empty() { silent + 1 } else { 0 };
            heard.extend(came);
        }
        assert!(heard == expected, "{} of {}", heard.len(), expected.len());
    }
}

/// Fragments of any length with pings between them, in pieces of any length, through calls that
/// fail: what comes back is what was sent, up to the longest message, and nothing that is longer.
#[test]
fn p6_large_messages_in_random_pieces_are_what_was_sent_whatever_calls_fail() {
    for seed in 1..=60 {
        println!("seed {seed}");
        let mut rng = Rng(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut world = bounded(&mut rng);
        let peer = world.open();
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let longest = rng.pick(&[LONGEST, LONGEST, LONGEST - 1, 70_000, 33_000, 200]);
            let payload: Vec<u8> = bytes(LONGEST)[..longest as usize].to_vec();
            let (mut first, mut rest) = (0x02, payload.as_slice());
            for _ in 0..rng.below(4) {
                let (piece, behind) = rest.split_at(rng.below(rest.len() + 1));
                sent.extend(masked(first, piece));
                if rng.below(2) == 0 {
                    let payload = masked(0x82, b"no message");
                    sent.extend(bare(0x89, &payload));
                    expected.extend(plain(0x8a, &payload));
                }
                (first, rest) = (0, behind);
            }
            sent.extend(masked(0x80 | first, rest));
            expected.extend(plain(0x82, &payload));
        }
        // One more, of one byte too many: nothing of it is given.
        sent.extend(masked(0x02, &bytes(LONGEST)));
        sent.extend(masked(0x80, b"!"));
        let reason = format!("message is over the limit of {LONGEST} bytes");
        expected.extend(plain(0x88, &close_payload(1009, &reason)));
        let mut left = sent.as_slice();
        let (mut heard, mut silent) = (Vec::new(), 0);
        while silent < 5 || !left.is_empty() {
            let len = rng.pick(&[1, 9, 700, 16_384, 65_536, 400_000]);
            let (piece, behind) = left.split_at(len.min(left.len()));
            if piece.is_empty() || peer.write(piece).is_ok() {
                left = behind;
            }
            if rng.below(4) == 0 {
                let call = rng.pick(&[Call::Read, Call::Write]);
                let kind = rng.pick(&[ErrorKind::WouldBlock, ErrorKind::Interrupted]);
                let nth = world.net.calls(call) + 1 + rng.below(4) as u64;
                world.net.fail(call, nth, kind);
            }
            let before = calls(&world.net);
            turn(&mut world.context, 3);
            heard.extend(peer.read_up_to(100_000));
            silent = if calls(&world.net) == before {
                silent + 1
            } else {
                0
            };
        }
        assert!(heard == expected, "{} of {}", heard.len(), expected.len());
    }
}

/// A short frame whose payload looks on the wire as it is.
fn bare(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

fn calls(net: &Net) -> [u64; 2] {
    [Call::Read, Call::Write].map(|call| net.calls(call))
}

/// A context that takes messages of up to [`LONGEST`] bytes.
fn bounded(rng: &mut Rng) -> World {
    let config = ContextConfig::new()
        .receive_buffer(rng.pick(&[1024, 16_384, 65_536, 262_144]))
        .turn_budget(rng.pick(&[1000, 100_000, 1 << 20]));
    let limits = Limits::default()
        .with_message_bytes(LONGEST as usize)
        .with_output_bytes(1 << 24);
    let net = Net::new(rng.next());
    let mut context = Context::simulated(&net, config).unwrap();
    let vhost = VhostConfig::new("a.test").listen(addr()).limits(limits);
    let vhost = context.create_vhost(vhost.protocol("p", Echo)).unwrap();
    let log = Log::default();
    let world = World {
        net,
        context,
        vhost,
        log,
    };
    world
        .net
        .set_selector(rng.pick(&[Selector::Epoll, Selector::Poll]));
    world.net.set_capacity(rng.pick(&[5_000, 65_536, 1 << 20]));
    world.net.limit_io(rng.pick(&[usize::MAX, 16_384, 3_000]));
    world
}

/// Sends back what comes, and writes no log of it.
struct Echo;

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        (): &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        wsi.send(message)?;
        Ok(())
    }
}

/// xorshift.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const LONGEST: u32 = 300_001;

#[test]
fn a_large_message_behind_another_takes_a_read_for_its_header_and_one_for_the_rest() {
    let log = Log::default();
    let mut world = world(&log);
    world.net.set_capacity(1 << 22);
    let peer = world.open();
    let message = masked(0x82, &bytes(1 << 20));
    let mut reads = Vec::new();
    for _ in 0..3 {
        peer.write(&message).unwrap();
        let before = world.net.calls(Call::Read);
        world.turn();
        reads.push(world.net.calls(Call::Read) - before);
        assert_eq!(peer.read().len(), (1 << 20) + 10);
    }
    // One more says that there is nothing: here a short read does not.
    assert_eq!(reads[1..], [3, 3], "{reads:?}");
    // Who goes on with small ones is a calm connection again.
    peer.write(&masked(0x82, b"small")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x82, b"small"));
    let before = world.net.calls(Call::Read);
    peer.write(&masked(0x82, b"small")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x82, b"small"));
    assert!(world.net.calls(Call::Read) - before <= 2);
}

#[test]
fn what_follows_a_large_message_in_the_same_read_is_not_lost() {
    let log = Log::default();
    let mut world = world(&log);
    world.net.set_capacity(1 << 22);
    let peer = world.open();
    let large = masked(0x82, &bytes(200_000));
    peer.write(&large).unwrap();
    world.turn();
    peer.read();
    let behind = [
        masked(0x89, b"ping"),
        masked(0x81, b"one"),
        large.clone(),
        masked(0x81, b"two"),
    ];
    peer.write(&[large, behind.concat()].concat()).unwrap();
    world.turn();
    let expected = [
        plain(0x82, &bytes(200_000)),
        plain(0x8a, b"ping"),
        plain(0x81, b"one"),
        plain(0x82, &bytes(200_000)),
        plain(0x81, b"two"),
    ];
    let mut heard = peer.read();
    world.pass(Duration::from_millis(200));
    heard.extend(peer.read());
    assert!(heard == expected.concat());
}

#[test]
fn a_large_message_that_stops_ends_at_its_deadline() {
    let log = Log::default();
    let mut world = world(&log);
    world.net.set_capacity(1 << 22);
    let peer = world.open();
    let large = masked(0x82, &bytes(500_000));
    peer.write(&large[..20_000]).unwrap();
    world.turn();
    for piece in large[20_000..400_000].chunks(40_000) {
        peer.write(piece).unwrap();
        world.pass(Duration::from_secs(2));
    }
    world.pass(Duration::from_secs(60));
    let lines = log.take();
    let end = lines.last().unwrap();
    assert!(
        end.starts_with("closed ") && end.contains("message"),
        "{end}"
    );
}

#[test]
fn a_large_reply_that_cannot_be_written_ends_the_connection_with_the_reason() {
    // Sent from the received bytes, and from where it was assembled.
    for len in [20_000, 300_000] {
        let log = Log::default();
        let mut world = world(&log);
        world.net.set_capacity(1 << 22);
        let peer = world.open();
        let fault = Fault::from(ErrorKind::BrokenPipe);
        world
            .net
            .fail(Call::Write, world.net.calls(Call::Write) + 1, fault);
        peer.write(&masked(0x82, &bytes(len))).unwrap();
        world.turn();
        let lines = log.take();
        let end = lines.last().unwrap();
        let told = end.starts_with("closed ") && end.contains("broken pipe");
        assert!(told, "{len}: {lines:?}");
        assert_eq!(world.context.connections(), 0, "{len}");
    }
}
