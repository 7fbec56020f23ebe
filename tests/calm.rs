//! The short way of a visit against the long one: the same peers say the same to the same
//! application, once where connections can be calm and once where none ever is. When bytes leave
//! may differ, and so when a queue is full and what an abort leaves undelivered; that is not asked.
#![cfg(all(feature = "sim", feature = "deflate"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says where it is"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{Log, addr, masked, request_with, turn};
use wsloop::sim::{Net, Selector, SimPeer};
use wsloop::{
    Close, CloseCause, CloseCode, Context, ContextConfig, Cx, DeflateConfig, Established, Fin,
    Limits, Message, MessageKind, Protocol, Queued, SendError, TimerTag, VhostConfig, Wsi, WsiId,
};

#[test]
fn p6_p7_the_short_way_does_what_the_long_one_does() {
    for seed in 1..=200 {
        let [short, long] = [Way::Short, Way::Long].map(|way| play(seed, way));
        let differs = short.log.iter().zip(&long.log).position(|(a, b)| a != b);
        if let Some(at) = differs {
            let at = at.saturating_sub(3);
            println!("{:#?}", &short.log[at..short.log.len().min(at + 6)]);
            println!("{:#?}", &long.log[at..long.log.len().min(at + 6)]);
        }
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(short.log.len(), long.log.len(), "seed {seed}");
        assert!(short.heard == long.heard, "seed {seed}: other bytes");
        assert_eq!(short.ends, long.ends, "seed {seed}");
        assert_eq!(short.ended, long.ended, "seed {seed}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Short,
    /// Who agreed on compression is never calm. No message is long enough for it.
    Long,
}

/// What could be seen of a run.
struct Seen {
    log: Vec<String>,
    /// How connections ended, in no order: a Close frame leaves when what is before it has.
    ends: Vec<String>,
    heard: [Vec<u8>; 2],
    ended: [bool; 2],
}

fn play(seed: u64, way: Way) -> Seen {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (net, log) = (Net::new(1), Log::default());
    net.set_selector(rng.pick(&[Selector::Epoll, Selector::Epoll, Selector::Poll]));
    let capacity = rng.pick(&[700, 30_000, 1 << 22]);
    let config = ContextConfig::new().receive_buffer(rng.pick(&[4096, 65_536]));
    let mut context = Context::simulated(&net, config).unwrap();
    let limits = Limits::default()
        .with_message_bytes(20_000)
        .with_output_bytes(1 << 26);
    let mut config = VhostConfig::new("a.test").listen(addr()).limits(limits);
    if way == Way::Long {
        config = config.deflate(DeflateConfig::new().threshold(usize::MAX));
    }
    let player = Player {
        log: log.clone(),
        rng: Rng(rng.next() | 1),
    };
    context.create_vhost(config.protocol("p", player)).unwrap();
    let peers = [(); 2].map(|()| open(&net, &mut context));
    net.set_capacity(capacity);
    let mut left = [(); 2].map(|()| script(&mut rng));
    let mut heard = [Vec::new(), Vec::new()];
    let mut silent = 0;
    while silent < 8 {
        let who = rng.below(2);
        let len = rng.pick(&[1, 30, 4_000, 50_000]).min(left[who].len());
        let piece: Vec<u8> = left[who].drain(..len).collect();
        if !piece.is_empty() {
            peers[who].write(&piece).unwrap_or_default();
        }
        turn(&mut context, 3);
        let who = rng.below(2);
        let came = peers[who].read_up_to(rng.pick(&[100, 100_000]));
        let rests = came.is_empty() && left.iter().all(Vec::is_empty);
        silent = if rests { silent + 1 } else { 0 };
        heard[who].extend(came);
    }
    for (peer, heard) in peers.iter().zip(&mut heard) {
        while let came @ [_, ..] = &*peer.read() {
            heard.extend_from_slice(came);
            turn(&mut context, 30);
        }
    }
    let ended = [0, 1].map(|who: usize| peers[who].ended());
    let (mut ends, log): (Vec<_>, Vec<_>) = log
        .take()
        .into_iter()
        .partition(|line| line.contains("closed "));
    ends.sort();
    Seen {
        log,
        ends,
        heard,
        ended,
    }
}

fn open(net: &Net, context: &mut Context) -> SimPeer {
    let peer = net.dial(addr()).unwrap();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; \
                 server_no_context_takeover; client_no_context_takeover\r\n";
    peer.write(&request_with("/", offer)).unwrap();
    turn(context, 10);
    assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
    peer
}

/// What a peer says: mostly messages, whole or not, and seldom what it must not.
fn script(rng: &mut Rng) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..5 + rng.below(30) {
        let len = rng.pick(&[0, 5, 5, 125, 126, 1000, 4095, 4096, 5000, 20_000]);
        let payload: Vec<u8> = (0..len).map(|_| b'a' + rng.below(26) as u8).collect();
        let (first, payload) = (rng.pick(&[1, 2, 2]), payload.as_slice());
        match rng.below(40) {
            0..=29 => script.extend(masked(0x80 | first, payload)),
            30..=33 => {
                let (begin, rest) = payload.split_at(rng.below(len + 1));
                script.extend(masked(first, begin));
                script.extend(masked(0x80, rest));
            }
            34 | 35 => {
                // On the wire its payload is what it is: a message.
                let inner = masked(0x82, &payload[..len.min(100)]);
                script.extend([0x89, 0x80 | inner.len() as u8, 0, 0, 0, 0]);
                script.extend(inner);
            }
            36 | 37 => script.extend(masked(0x89, &payload[..len.min(125)])),
            38 if rng.below(3) == 0 => script.extend(masked(0x88, &[3, 232])),
            39 if rng.below(3) == 0 => script.extend(rng.pick(&[
                b"\x81\x82\0\0\0\0\xc3\xc3".as_slice(),
                b"\x83\x80\0\0\0\0",
                b"\x82\x01x",
                b"\x82\xfe\0\x05\0\0\0\0",
                b"\x82\xfe\x4e\x21\0\0\0\0",
            ])),
            _ => {}
        }
    }
    script
}

/// Does this and that with every message, and notes what came of it.
struct Player {
    log: Log,
    rng: Rng,
}

impl Player {
    fn note(&self, what: impl std::fmt::Debug) {
        self.log.push(format!("{what:?}"));
    }

    fn sent(&self, sent: Result<Queued, SendError>) {
        self.note(sent.map(|_| ()));
    }

    fn act(&mut self, wsi: &mut Wsi<'_>, open: &mut bool, message: Message<'_>) -> Option<Close> {
        let (id, bytes) = (wsi.id(), message.as_bytes());
        match self.rng.below(17) {
            0..=3 => self.sent(wsi.send(message)),
            4 => {
                let (_, part) = bytes.split_at(self.rng.below(bytes.len() + 1));
                self.sent(wsi.send_binary(part));
            }
            5 | 6 => {
                let text = "t".repeat(self.rng.pick(&[0, 20, 125, 126, 3000]));
                for _ in 0..self.rng.below(40) {
                    self.sent(wsi.send_text(&text));
                }
            }
            7 => {
                let bytes = Bytes::from(vec![7; self.rng.pick(&[50, 5000])]);
                self.sent(wsi.send_bytes(bytes).map_err(|unsent| unsent.error));
            }
            8 => {
                let fin = if self.rng.below(2) == 0 {
                    Fin::Last
                } else {
                    Fin::More
                };
                let sent = wsi.send_fragment(MessageKind::Binary, b"a part", fin);
                *open = sent.is_ok() && matches!(fin, Fin::More);
                self.sent(sent);
            }
            9 if *open => {
                *open = wsi
                    .send_fragment(MessageKind::Binary, b"", Fin::Last)
                    .is_err();
            }
            9 => self.sent(wsi.send_ping(b"ping")),
            10 => self.note(wsi.cx().broadcast(message, |_| true)),
            11 => wsi.request_writable(),
            12 => {
                wsi.pause_reading();
                let after = Duration::ZERO;
                self.note(wsi.set_timer(after, TimerTag(1)).is_some());
            }
            13 => self.sent(wsi.cx().peer(id).unwrap().send(message)),
            14 => wsi.cx().for_each_peer(|mut peer| {
                self.sent(peer.send(message));
            }),
            _ if self.rng.below(8) > 0 => {}
            15 => match self.rng.below(2) {
                0 => wsi.close(CloseCode::NORMAL.into()),
                _ => self.note(wsi.cx().close(id, CloseCode::NORMAL.into())),
            },
            _ => return Some(Close::new(CloseCode::POLICY_VIOLATION, "enough")),
        }
        None
    }
}

impl Protocol for Player {
    /// Whether a message in fragments is open.
    type Session = bool;

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<bool, Close> {
        Ok(false)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        open: &mut bool,
        message: Message<'_>,
    ) -> Result<(), Close> {
        let id = wsi.id();
        let sum = message.as_bytes().iter().fold(0_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        self.note((id, message.kind(), message.len(), sum));
        for _ in 0..self.rng.below(4) {
            if let Some(close) = self.act(wsi, open, message) {
                return Err(close);
            }
        }
        Ok(())
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, open: &mut bool) -> Result<(), Close> {
        self.note((wsi.id(), "writable"));
        self.act(wsi, open, Message::Text("writable"))
            .map_or(Ok(()), Err)
    }

    fn on_pong(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut bool,
        payload: &[u8],
        _: Option<Duration>,
    ) -> Result<(), Close> {
        self.note((wsi.id(), "pong", payload));
        Ok(())
    }

    fn on_timer(&mut self, wsi: &mut Wsi<'_>, _: &mut bool, _: TimerTag) -> Result<(), Close> {
        self.note((wsi.id(), "goes on"));
        wsi.resume_reading();
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, id: WsiId, _: bool, cause: &CloseCause) {
        self.note((id, cause.to_string()));
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
