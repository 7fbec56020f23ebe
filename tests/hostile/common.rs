//! One connection under test, in either role, with the stranger at its other end.

use std::time::Duration;

use wsloop::sim::{Net, SimPeer};
use wsloop::ws::handshake::accept_key;
use wsloop::{ClientConnectInfo, Side, VhostConfig};

use crate::support::{Log, Recorder, World, addr, masked, plain, request};

pub(crate) const SIDES: [Side; 2] = [Side::Server, Side::Client];

/// An established connection.
pub(crate) struct Session {
    pub(crate) world: World,
    pub(crate) peer: SimPeer,
    pub(crate) side: Side,
}

impl Session {
    pub(crate) fn open(side: Side, make: impl FnOnce(&Log) -> Recorder) -> Self {
        Self::tuned(side, |config| config, make)
    }

    /// With a vhost as the test wants it.
    pub(crate) fn tuned(
        side: Side,
        tune: impl FnOnce(VhostConfig) -> VhostConfig,
        make: impl FnOnce(&Log) -> Recorder,
    ) -> Self {
        match side {
            Side::Client => {
                let dialled = Dialled::new(tune, make);
                let response = dialled.response();
                dialled.peer.write(&response).unwrap();
                let Dialled {
                    mut world, peer, ..
                } = dialled;
                world.turn();
                assert_eq!(world.log.take(), ["established 101 None"]);
                Self { world, peer, side }
            }
            Side::Server => {
                let mut world = World::with(|log| {
                    tune(VhostConfig::new("a.test").listen(addr())).protocol("p", make(log))
                });
                let peer = world.open();
                Self { world, peer, side }
            }
        }
    }

    /// A frame as this connection's peer has to send it.
    pub(crate) fn frame(&self, first: u8, payload: &[u8]) -> Vec<u8> {
        match self.side {
            Side::Server => masked(first, payload),
            Side::Client => plain(first, payload),
        }
    }

    /// Lets the peer send a frame, and the context deal with it.
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&self.frame(first, payload));
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.peer.write(bytes).unwrap();
        self.world.turn();
    }

    /// What the peer was sent since the last call: whole frames, unmasked.
    pub(crate) fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        frames(self.side, &self.peer.read())
    }

    /// The peer ends its stream; nothing may be left after that. Gives what was still sent.
    pub(crate) fn end(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.peer.shutdown_write();
        self.world.turn();
        let frames = self.frames();
        assert!(self.peer.ended(), "our stream has ended too");
        assert_eq!(self.world.context.connections(), 0);
        frames
    }

    /// The only final event, and the last line of all.
    pub(crate) fn final_event(&self) -> String {
        final_event(&self.world.log)
    }
}

pub(crate) fn final_event(log: &Log) -> String {
    let lines = log.lines();
    assert_eq!(finals(log), 1, "exactly one final event in {lines:?}");
    let last = lines.last().cloned().unwrap_or_default();
    assert!(
        is_final(&last),
        "nothing comes after the final event: {lines:?}"
    );
    last
}

pub(crate) fn finals(log: &Log) -> usize {
    log.lines().iter().filter(|line| is_final(line)).count()
}

fn is_final(line: &str) -> bool {
    ["closed ", "connect_error ", "refused "]
        .iter()
        .any(|begin| line.starts_with(begin))
}

/// Frames that `side` sent; all of them whole.
pub(crate) fn frames(side: Side, sent: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (frames, rest) = frames_of(side, sent);
    assert!(
        rest.is_empty(),
        "{} bytes of an unfinished frame",
        rest.len()
    );
    frames
}

/// The same, with what is left of an unfinished frame.
pub(crate) fn frames_of(side: Side, sent: &[u8]) -> (Vec<(u8, Vec<u8>)>, &[u8]) {
    let mut frames = Vec::new();
    let mut rest = sent;
    while let Some((first, payload, tail)) = frame_of(side, rest) {
        frames.push((first, payload));
        rest = tail;
    }
    (frames, rest)
}

fn frame_of(side: Side, bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&[first, second], tail) = bytes.split_first_chunk()?;
    assert_eq!(
        second & 0x80 != 0,
        side == Side::Client,
        "clients mask, servers do not"
    );
    let (len, tail) = match second & 0x7f {
        126 => {
            let (len, tail) = tail.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*len)), tail)
        }
        127 => {
            let (len, tail) = tail.split_first_chunk()?;
            (u64::from_be_bytes(*len), tail)
        }
        len => (u64::from(len), tail),
    };
    let (key, tail) = match side {
        Side::Client => tail.split_at_checked(4)?,
        Side::Server => (&[0; 4][..], tail),
    };
    let (payload, tail) = tail.split_at_checked(usize::try_from(len).unwrap())?;
    let payload = payload
        .iter()
        .zip(key.iter().cycle())
        .map(|(byte, key)| byte ^ key);
    Some((first, payload.collect(), tail))
}

/// A client's attempt whose request has arrived.
pub(crate) struct Dialled {
    pub(crate) world: World,
    pub(crate) peer: SimPeer,
    pub(crate) request: String,
}

impl Dialled {
    pub(crate) fn new(
        tune: impl FnOnce(VhostConfig) -> VhostConfig,
        make: impl FnOnce(&Log) -> Recorder,
    ) -> Self {
        let mut world =
            World::with(|log| tune(VhostConfig::new("c.test")).protocol("p", make(log)));
        let listener = world.net.listen(addr()).unwrap();
        let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
        world.context.client_connect(world.vhost, info).unwrap();
        world.turn();
        let peer = listener.accept().unwrap();
        let request = String::from_utf8(peer.read()).unwrap();
        Self {
            world,
            peer,
            request,
        }
    }

    pub(crate) fn response(&self) -> Vec<u8> {
        response(&self.request)
    }
}

/// The response that accepts a request.
pub(crate) fn response(request: &str) -> Vec<u8> {
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    let accept = accept_key(key.as_bytes());
    let accept = std::str::from_utf8(&accept).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// A stranger's established connection to a server that shares its context with others.
pub(crate) fn join(world: &mut World) -> SimPeer {
    let peer = world.net.dial(addr()).unwrap();
    peer.write(&request("/")).unwrap();
    world.turn();
    assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
    peer
}

/// Turns several contexts on one network until all are quiet.
pub(crate) fn settle(net: &Net, contexts: &mut [&mut wsloop::Context]) {
    for _ in 0..16 {
        for context in &mut *contexts {
            context.service(Some(Duration::ZERO)).unwrap();
        }
    }
    net.advance(Duration::ZERO);
}

/// Closes the connection with these words when such a text comes, sends any other one back.
pub(crate) fn closes_on(word: &'static str, close: wsloop::Close) -> impl FnOnce(&Log) -> Recorder {
    move |log| Recorder {
        message: Some(Box::new(move |wsi, message| match message {
            wsloop::Message::Text(text) if text == word => Err(close.clone()),
            other => {
                wsi.send(other)?;
                Ok(())
            }
        })),
        ..Recorder::new(log)
    }
}
