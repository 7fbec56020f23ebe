//! Peers that are no contexts: some keep the rules, some do not.

use wsloop::MessageKind;
use wsloop::sim::{Net, SimPeer, SimPeerListener};

use super::model::{Digest, Model, Rng, payload, some_length};
use super::tricks::message;
use super::world::{pattern, plain, strange};
use crate::support::{masked, plain as unmasked, request};

/// Somebody at the other end of a connection.
struct Stranger {
    peer: SimPeer,
    /// What it is going to say.
    script: Vec<u8>,
    said: usize,
    /// It has to be asked first, for it is a server.
    answers: bool,
    reads: bool,
}

/// All of them.
pub(crate) struct Strangers {
    peers: Vec<Stranger>,
    listener: SimPeerListener,
}

impl Strangers {
    pub(crate) fn new(net: &Net) -> Self {
        Self {
            peers: Vec::new(),
            listener: net.listen(strange()).unwrap(),
        }
    }

    /// One of them does something.
    pub(crate) fn act(&mut self, net: &Net, model: &mut Model) {
        if let Some(peer) = self.listener.accept() {
            let reads = !model.rng.once_in(6);
            self.peers.push(Stranger {
                peer,
                script: Vec::new(),
                said: 0,
                answers: true,
                reads,
            });
        }
        if self.peers.is_empty() || self.peers.len() < 6 && model.rng.once_in(4) {
            self.arrive(net, model);
        }
        if self.peers.is_empty() {
            return;
        }
        let at = model.rng.below(self.peers.len());
        match model.rng.below(30) {
            0 => {
                let stranger = self.peers.swap_remove(at);
                model.note(format!("stranger {} leaves", stranger.peer.local_addr()));
            }
            1 => self.peers.swap_remove(at).peer.reset(),
            2 => self.peers[at].peer.shutdown_write(),
            3..=8 => {
                let most = model.rng.pick(&[1, 50, 100_000]);
                drop(self.peers[at].peer.read_up_to(most));
            }
            _ => self.peers[at].go_on(&mut model.rng),
        }
    }

    /// All of them go.
    pub(crate) fn leave(&mut self) {
        self.peers.clear();
        while self.listener.accept().is_some() {}
    }

    fn arrive(&mut self, net: &Net, model: &mut Model) {
        let node = model.rng.below(2);
        let Ok(peer) = net.dial(plain(node)) else {
            return;
        };
        let link = (peer.local_addr(), plain(node));
        let wild = model.rng.once_in(3);
        model.flow(link).wild = wild;
        let mut script = match model.rng.below(4) {
            0 => http(&mut model.rng),
            1 => request("/?c"),
            _ => request("/"),
        };
        for _ in 0..model.rng.below(8) {
            let kind = model.rng.pick(&[MessageKind::Binary, MessageKind::Text]);
            let len = some_length(&mut model.rng);
            let bytes = payload(&mut model.rng, kind, len);
            model.stranger_sent(link, Digest::of(message(kind, &bytes)));
            frames(&mut model.rng, kind, &bytes, &mut script);
        }
        if model.rng.once_in(2) {
            script.extend(masked(0x88, &[0x03, 0xe8]));
        }
        if wild {
            spoil(&mut model.rng, &mut script);
        }
        model.note(format!("stranger {} comes to {node}, wild {wild}", link.0));
        self.peers.push(Stranger {
            peer,
            script,
            said: 0,
            answers: false,
            reads: !model.rng.once_in(4),
        });
    }
}

impl Stranger {
    fn go_on(&mut self, rng: &mut Rng) {
        if self.answers {
            let asked = self.peer.read();
            if !asked.is_empty() {
                self.script.extend(answer(rng, &asked));
            }
        } else if self.reads {
            drop(self.peer.read());
        }
        let rest = &self.script[self.said..];
        let most = rng.pick(&[1, 7, 500, 100_000]);
        let piece = &rest[..rest.len().min(most)];
        if !piece.is_empty() && self.peer.write(piece).is_ok() {
            self.said += piece.len();
        }
    }
}

/// What a server says, more or less.
fn answer(rng: &mut Rng, asked: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(asked);
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let mut said = match (key, rng.below(8)) {
        (_, 0) => b"\x15\x03\x01\x00\x02\x02\x28".to_vec(),
        (_, 1) => b"HTTP/1.1 2".to_vec(),
        (_, 2) => b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".to_vec(),
        (Some(key), _) => {
            let accept = wsloop::ws::handshake::accept_key(key.as_bytes());
            let accept = std::str::from_utf8(&accept).unwrap();
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            let mut said = head.into_bytes();
            for first in [0x89, 0x01, 0x80, 0x88] {
                said.extend(unmasked(first, b"ab"));
            }
            said
        }
        (None, 3) => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n".to_vec(),
        (None, _) => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
    };
    if rng.once_in(4) {
        spoil(rng, &mut said);
    }
    said
}

/// Requests, one behind the other.
fn http(rng: &mut Rng) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..1 + rng.below(4) {
        match rng.below(3) {
            0 => script.extend(b"GET /h HTTP/1.1\r\nHost: n0.test\r\n\r\n"),
            1 => {
                let body = pattern(0, rng.below(3000));
                let head = format!(
                    "POST /h HTTP/1.1\r\nHost: n0.test\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                script.extend(head.into_bytes());
                script.extend(body);
            }
            _ => script.extend(
                b"POST /h HTTP/1.1\r\nHost: n1.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n0\r\n\r\n",
            ),
        }
    }
    script
}

/// A message in one frame or several, with pings between them.
fn frames(rng: &mut Rng, kind: MessageKind, bytes: &[u8], script: &mut Vec<u8>) {
    let opcode = match kind {
        MessageKind::Binary => 2,
        MessageKind::Text => 1,
    };
    let (mut rest, mut code) = (bytes, opcode);
    while rng.once_in(3) {
        let (piece, tail) = rest.split_at(rng.below(rest.len() + 1));
        script.extend(masked(code, piece));
        if rng.once_in(3) {
            script.extend(masked(0x89, b"ping"));
        }
        (rest, code) = (tail, 0);
    }
    script.extend(masked(0x80 | code, rest));
}

/// Breaks something.
fn spoil(rng: &mut Rng, script: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(script.len());
        match rng.below(4) {
            0 => script[at] ^= 1 << rng.below(8),
            1 => script.truncate(at + 1),
            2 => drop(script.drain(at..(at + 3).min(script.len()))),
            _ => script.insert(at, rng.next() as u8),
        }
        if script.is_empty() {
            script.push(0);
        }
    }
}
