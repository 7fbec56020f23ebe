//! Steady traffic allocates nothing: counted over a thousand messages of each kind, in both roles.
//!
//! A binary of its own without the harness, so that nobody else allocates meanwhile: a harness tells
//! of a test that takes its time, and allocates for that.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::alloc::System;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use real::{Peer, loopback, masked, plain};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wsloop::{
    ClientConnectInfo, Close, Context, ContextConfig, Established, Message, Protocol, VhostConfig,
    Wsi,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let mut failures = compressed::failures();
    for traffic in table() {
        for side in [Side::Server, Side::Client] {
            let allocations = measure(side, &traffic);
            if allocations > 0 {
                let measured = traffic.messages_measured();
                let Traffic {
                    name, size, depth, ..
                } = traffic;
                failures.push(format!(
                    "{side:?}, {measured} of {name} of {size} bytes, {depth} at a time: {allocations}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "allocations:\n{}", failures.join("\n"));
}

/// The role of the side that is measured.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

struct Traffic {
    name: &'static str,
    size: usize,
    depth: usize,
    /// First bytes of the frames that a message is made of.
    frames: &'static [u8],
    /// First byte of the answer.
    answer: u8,
}

fn table() -> Vec<Traffic> {
    let kinds: [(&str, &[u8], u8); 4] = [
        ("text", &[0x81], 0x81),
        ("binary", &[0x82], 0x82),
        ("text in three fragments", &[0x01, 0x00, 0x80], 0x81),
        ("binary in two fragments", &[0x02, 0x80], 0x82),
    ];
    let mut table = Vec::new();
    for (name, frames, answer) in kinds {
        for size in [20, 1024, 16 * 1024] {
            for depth in [1, 16] {
                table.push(Traffic::new(name, size, depth, frames, answer));
            }
        }
        // Comes in several reads.
        table.push(Traffic::new(name, 100 * 1024, 1, frames, answer));
    }
    for depth in [1, 16] {
        table.push(Traffic::new("ping", 20, depth, &[0x89], 0x8a));
    }
    table
}

/// Echoes without writing anything down.
struct Echo;

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        Ok(wsi.send(message).map(drop)?)
    }
}

/// Messages with permessage-deflate. Their lengths are not known before, so the answers are
/// counted.
#[cfg(feature = "deflate")]
mod compressed {
    use stats_alloc::Region;
    use wsloop::ws::deflate::{Compressing, CompressorPool, DeflateParams, SendOptions};
    use wsloop::{Context, DeflateConfig, Takeover, VhostConfig};

    use crate::real::{Peer, masked, plain};
    use crate::{ALLOCATOR, Echo, Side, TURNS, client, patience, progress, server};
    use std::io::{Read, Write};
    use std::time::Duration;

    pub(crate) fn failures() -> Vec<String> {
        let mut failures = Vec::new();
        for takeover in [Takeover::None, Takeover::Both] {
            for side in [Side::Server, Side::Client] {
                for size in [1024, 16 * 1024] {
                    for depth in [1, 16] {
                        let allocations = measure(side, takeover, size, depth);
                        if allocations > 0 {
                            failures.push(format!(
                                "{side:?}, compressed, takeover {takeover:?}, {size} bytes, \
                                 {depth} at a time: {allocations}"
                            ));
                        }
                    }
                }
            }
        }
        failures
    }

    fn measure(side: Side, takeover: Takeover, size: usize, depth: usize) -> usize {
        let config = DeflateConfig::new().context_takeover(takeover);
        let mut extensions = String::from("Sec-WebSocket-Extensions: permessage-deflate");
        if takeover == Takeover::None {
            extensions.push_str("; server_no_context_takeover; client_no_context_takeover");
        }
        extensions.push_str("\r\n");
        let vhost = VhostConfig::new("localhost")
            .deflate(config)
            .protocol("echo", Echo);
        let (mut context, mut peer) = match side {
            Side::Server => server(vhost, &extensions),
            Side::Client => client(vhost, &extensions),
        };
        let output = message(side, size).repeat(depth);
        let mut answers = Answers {
            bytes: vec![0; 64 * 1024],
            filled: 0,
        };
        let turns = 320 / depth;
        // The window is full then.
        for _ in 0..turns {
            exchange(&mut context, &mut peer, &output, &mut answers, depth);
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..turns {
            exchange(&mut context, &mut peer, &output, &mut answers, depth);
        }
        let change = region.change();
        change.allocations + change.reallocations
    }

    /// One that refers to nothing before it, so that it may come again and again.
    fn message(side: Side, size: usize) -> Vec<u8> {
        let mut text = String::new();
        for n in 0.. {
            text.push_str(&format!("{{\"n\":{},\"ok\":true}},", n * 7919 % 10_007));
            if text.len() >= size {
                break;
            }
        }
        text.truncate(size);
        let their_side = match side {
            Side::Client => wsloop::Side::Server,
            Side::Server => wsloop::Side::Client,
        };
        let mut pool = CompressorPool::default();
        let mut sender = Compressing::new(their_side, DeflateParams::new(), DeflateConfig::new());
        let payload = sender.compress(&mut pool, text.as_bytes(), SendOptions::new());
        let payload = payload.unwrap();
        match side {
            Side::Client => plain(0xc1, payload.as_slice()),
            Side::Server => masked(0xc1, payload.as_slice()),
        }
    }

    /// As the other `exchange`, until so many answers have come.
    fn exchange(
        context: &mut Context,
        peer: &mut Peer,
        output: &[u8],
        answers: &mut Answers,
        wanted: usize,
    ) {
        let (mut written, mut got) = (0, 0);
        let mut wait = Duration::ZERO;
        for _ in 0..TURNS {
            let before = (written, got);
            if written < output.len() {
                written += progress(peer.stream.write(&output[written..]));
            }
            context.service(Some(wait)).unwrap();
            got += answers.read(&mut peer.stream);
            if got == wanted && written == output.len() {
                return;
            }
            wait = patience((written, got) == before);
        }
        panic!("{written} bytes written and {got} answers, then no more");
    }

    /// Frames that are not there as a whole yet.
    struct Answers {
        bytes: Vec<u8>,
        filled: usize,
    }

    impl Answers {
        /// How many came, each a compressed text in one frame.
        fn read(&mut self, stream: &mut impl Read) -> usize {
            self.filled += progress(stream.read(&mut self.bytes[self.filled..]));
            let (mut count, mut at) = (0, 0);
            while let Some(len) = frame_len(&self.bytes[at..self.filled]) {
                assert_eq!(self.bytes[at], 0xc1);
                at += len;
                count += 1;
            }
            self.bytes.copy_within(at..self.filled, 0);
            self.filled -= at;
            count
        }
    }

    fn frame_len(bytes: &[u8]) -> Option<usize> {
        let second = *bytes.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let len = match second & 0x7f {
            126 => 4 + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
            short => 2 + usize::from(short),
        };
        (bytes.len() >= len + mask).then_some(len + mask)
    }
}

#[cfg(not(feature = "deflate"))]
mod compressed {
    pub(crate) fn failures() -> Vec<String> {
        Vec::new()
    }
}

fn measure(side: Side, traffic: &Traffic) -> usize {
    let vhost = VhostConfig::new("localhost").protocol("echo", Echo);
    let (mut context, mut peer) = match side {
        Side::Server => server(vhost, ""),
        Side::Client => client(vhost, ""),
    };
    let output = traffic.messages(side);
    let answers = traffic.answers(side);
    let mut input = vec![0; answers.len()];
    let turns = traffic.messages_measured() / traffic.depth;
    for _ in 0..=turns / 5 {
        exchange(&mut context, &mut peer, &output, &mut input);
        if let Side::Server = side {
            assert!(input == answers, "not what was sent");
        }
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..=turns {
        exchange(&mut context, &mut peer, &output, &mut input);
    }
    let change = region.change();
    change.allocations + change.reallocations
}

impl Traffic {
    const fn new(
        name: &'static str,
        size: usize,
        depth: usize,
        frames: &'static [u8],
        answer: u8,
    ) -> Self {
        Self {
            name,
            size,
            depth,
            frames,
            answer,
        }
    }

    /// A thousand; fewer long ones, of which each would allocate too if any did.
    const fn messages_measured(&self) -> usize {
        if self.size > 16 * 1024 { 100 } else { 1000 }
    }

    fn messages(&self, side: Side) -> Vec<u8> {
        let payload = vec![b'x'; self.size];
        let mut pieces = payload.chunks(self.size.div_ceil(self.frames.len()));
        let mut message = Vec::new();
        for first in self.frames {
            let piece = pieces.next().unwrap_or_default();
            message.extend(match side {
                Side::Server => masked(*first, piece),
                Side::Client => plain(*first, piece),
            });
        }
        message.repeat(self.depth)
    }

    /// What a server answers; a client's answers have keys that nobody knows.
    fn answers(&self, side: Side) -> Vec<u8> {
        let payload = vec![b'x'; self.size];
        let answer = match side {
            Side::Server => plain(self.answer, &payload),
            Side::Client => masked(self.answer, &payload),
        };
        answer.repeat(self.depth)
    }
}

/// A server and a stranger who is connected, with further header lines in its request.
fn server(vhost: VhostConfig, headers: &str) -> (Context, Peer) {
    let vhost = vhost.listen(loopback());
    let mut context = Context::new(ContextConfig::new()).unwrap();
    let vhost = context.create_vhost(vhost).unwrap();
    let mut peer = Peer::connect(context.listen_addrs(vhost)[0]);
    peer.write(&with_headers(real::REQUEST.to_vec(), headers));
    for _ in 0..TURNS {
        context.service(Some(Duration::from_millis(5))).unwrap();
        if peer.take_head().is_some() {
            return (context, peer);
        }
    }
    panic!("no answer to the request");
}

/// A client and a stranger that it has dialled, with further header lines in its response.
fn client(vhost: VhostConfig, headers: &str) -> (Context, Peer) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let mut context = Context::new(ContextConfig::new()).unwrap();
    let vhost = context.create_vhost(vhost).unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    context
        .client_connect(vhost, ClientConnectInfo::from_url(&url).unwrap())
        .unwrap();
    context.service(Some(Duration::ZERO)).unwrap();
    let mut peer = Peer::new(listener.accept().unwrap().0);
    for _ in 0..TURNS {
        context.service(Some(Duration::from_millis(5))).unwrap();
        if let Some(request) = peer.take_head() {
            peer.write(&with_headers(real::response_to(&request), headers));
            return (context, peer);
        }
    }
    panic!("no request");
}

/// A head with further lines before its end.
fn with_headers(mut head: Vec<u8>, lines: &str) -> Vec<u8> {
    head.truncate(head.len() - 2);
    head.extend_from_slice(lines.as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

/// Writes all of `output` and reads `input` full, the context turning in between. Does not
/// allocate.
fn exchange(context: &mut Context, peer: &mut Peer, output: &[u8], input: &mut [u8]) {
    let (mut written, mut read) = (0, 0);
    let mut wait = Duration::ZERO;
    for _ in 0..TURNS {
        let before = (written, read);
        written += progress(peer.stream.write(&output[written..]));
        context.service(Some(wait)).unwrap();
        read += progress(peer.stream.read(&mut input[read..]));
        if read == input.len() {
            return;
        }
        wait = patience((written, read) == before);
    }
    panic!("{written} bytes written and {read} read, then no more");
}

/// How long the next turn waits: loopback on a busy machine delivers late.
fn patience(nothing_moved: bool) -> Duration {
    Duration::from_millis(if nothing_moved { 5 } else { 0 })
}

fn progress(outcome: io::Result<usize>) -> usize {
    match outcome {
        Ok(n) => n,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

const TURNS: usize = 20_000;
