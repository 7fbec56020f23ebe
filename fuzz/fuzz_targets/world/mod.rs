//! What the targets with a whole context share: the script that drives them, and a model of what a
//! context promises to tell.
#![allow(dead_code, reason = "each target uses a part")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use wsloop::sim::{Call, Fault, Net, Selector, SimPeer};
use wsloop::{Context, ExchangeId, FetchId, Side, WsiId};

use crate::tls_configs::Configs;

pub static CONFIGS: LazyLock<Configs> = LazyLock::new(Configs::new);

/// A network with one of four seeds, like epoll or not, as the variant's upper bits say.
pub fn net(variant: u8) -> Net {
    let net = Net::new(u64::from(variant >> 5 & 3));
    net.set_selector(match variant & LIKE_EPOLL {
        0 => Selector::Poll,
        _ => Selector::Epoll,
    });
    net
}

const LIKE_EPOLL: u8 = 1 << 7;

/// The fuzzer's input, read from the front. What is missing at its end is 0, which every reader
/// takes for "nothing more".
#[derive(Debug, Default)]
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
        }
    }

    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub fn size(&mut self) -> usize {
        usize::from(self.byte())
    }

    /// Of no use when there is nothing to choose from.
    pub fn choose<T: Clone>(&mut self, among: &[T]) -> Option<T> {
        let nth = self.size();
        among.get(nth % among.len().max(1)).cloned()
    }

    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let start = self.at.min(self.bytes.len());
        let end = (start + len).min(self.bytes.len());
        self.at = end;
        self.bytes[start..end].to_vec()
    }
}

/// What a context has told so far. Panics when it tells what it must not.
#[derive(Debug, Default)]
pub struct Model {
    sockets: HashMap<WsiId, Life>,
    exchanges: HashMap<ExchangeId, Life>,
    fetches: HashMap<FetchId, Life>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Dialling,
    Open,
    Over,
}

impl Model {
    /// A client's attempt, from the call that began it or the end that it makes up for.
    pub fn dialled(&mut self, id: WsiId) {
        assert_eq!(self.sockets.insert(id, Life::Dialling), None, "{id:?}");
    }

    pub fn established(&mut self, id: WsiId) {
        let before = self.sockets.insert(id, Life::Open);
        assert!(matches!(before, None | Some(Life::Dialling)), "{id:?}");
    }

    pub fn closed(&mut self, id: WsiId) {
        step(&mut self.sockets, id, Life::Open, Life::Over);
    }

    /// `on_established` has refused: a client is told by `on_connect_error`, a server by nothing.
    pub fn not_wanted(&mut self, id: WsiId, side: Side) {
        let then = match side {
            Side::Client => Life::Dialling,
            Side::Server => Life::Over,
        };
        step(&mut self.sockets, id, Life::Open, then);
    }

    pub fn connect_failed(&mut self, id: WsiId) {
        step(&mut self.sockets, id, Life::Dialling, Life::Over);
    }

    /// Something between a connection's establishment and its end.
    pub fn heard_of(&self, id: WsiId) {
        assert_eq!(self.sockets.get(&id), Some(&Life::Open), "{id:?}");
    }

    pub fn retries(&self, id: WsiId) {
        assert_eq!(self.sockets.get(&id), Some(&Life::Dialling), "{id:?}");
    }

    pub fn asked(&mut self, id: ExchangeId) {
        assert_eq!(self.exchanges.insert(id, Life::Open), None, "{id:?}");
    }

    pub fn answering(&self, id: ExchangeId) {
        assert_eq!(self.exchanges.get(&id), Some(&Life::Open), "{id:?}");
    }

    pub fn answered(&mut self, id: ExchangeId) {
        step(&mut self.exchanges, id, Life::Open, Life::Over);
    }

    pub fn fetching(&mut self, id: FetchId) {
        assert_eq!(self.fetches.insert(id, Life::Open), None, "{id:?}");
    }

    pub fn fetches(&self, id: FetchId) {
        assert_eq!(self.fetches.get(&id), Some(&Life::Open), "{id:?}");
    }

    pub fn fetched(&mut self, id: FetchId) {
        step(&mut self.fetches, id, Life::Open, Life::Over);
    }

    /// Everything that began has ended.
    pub fn check_over(&self) {
        all_over(&self.sockets);
        all_over(&self.exchanges);
        all_over(&self.fetches);
    }
}

fn step<K: Copy + Debug + Eq + Hash>(map: &mut HashMap<K, Life>, id: K, from: Life, to: Life) {
    assert_eq!(map.insert(id, to), Some(from), "{id:?}");
}

fn all_over<K: Debug>(map: &HashMap<K, Life>) {
    for (id, life) in map {
        assert_eq!(*life, Life::Over, "{id:?}");
    }
}

pub type Shared<T> = Arc<Mutex<T>>;

pub fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("a panic ends the fuzzer")
}

/// Turns until only events or time can bring something new: soon, or the loop is busy for nothing.
pub fn turn(context: &mut Context, net: &Net) {
    for _ in 0..TURNS {
        let before = calls(net);
        context
            .service(Some(Duration::ZERO))
            .expect("no peer can cause an error");
        let made = calls(net) - before;
        assert!(made < CALLS, "{made} calls in one turn");
        assert_eq!(context.check_invariants(), [""; 0]);
        if context
            .next_deadline()
            .is_none_or(|deadline| deadline > net.now())
        {
            return;
        }
    }
    panic!("there is no end of work");
}

/// Lets time pass until every connection has met some deadline.
pub fn drain(context: &mut Context, net: &Net) {
    net.limit_io(usize::MAX);
    for _ in 0..DRAINING {
        turn(context, net);
        // Those who could not be accepted before may be now.
        turn(context, net);
        if context.connections() == 0 {
            break;
        }
        net.advance(Duration::from_secs(5));
    }
    assert_eq!(context.connections(), 0, "a connection without an end");
    assert_eq!(net.sockets().streams, 0, "a stream of nobody");
    // Compressors and inflaters are kept for the next connection; nothing else is.
    assert!(context.memory() <= KEPT, "{} bytes", context.memory());
}

fn calls(net: &Net) -> u64 {
    Call::ALL.iter().map(|call| net.calls(*call)).sum()
}

/// Lets a call of the near future fail.
pub fn fault(script: &mut Script, net: &Net) {
    let kind = script.byte();
    // A poll that fails is told to the caller, who decides; a signal is not.
    let rare =
        [Call::Connect, Call::Register, Call::Shutdown, Call::Connect][usize::from(kind >> 6)];
    let call = [Call::Read, Call::Write, Call::Accept, rare][usize::from(kind & 3)];
    let faults: [Fault; 10] = [
        io::ErrorKind::WouldBlock.into(),
        io::ErrorKind::Interrupted.into(),
        io::ErrorKind::ConnectionReset.into(),
        io::ErrorKind::BrokenPipe.into(),
        io::ErrorKind::ConnectionAborted.into(),
        io::ErrorKind::TimedOut.into(),
        EMFILE.into(),
        ENOBUFS.into(),
        ENOMEM.into(),
        EIO.into(),
    ];
    let fault = faults[usize::from(kind >> 2) % faults.len()];
    let (skip, times) = (script.byte(), 1 + script.byte() % 16);
    let first = net.calls(call) + 1 + u64::from(skip % 32);
    for nth in first..first + u64::from(times) {
        net.fail(call, nth, fault);
    }
}

pub fn let_time_pass(script: &mut Script, net: &Net) {
    let times = [
        1, 20, 90, 101, 500, 1000, 2600, 5001, 10_001, 15_001, 30_001, 60_001,
    ];
    let time = times[script.size() % times.len()];
    net.advance(Duration::from_millis(time));
}

/// A client that the context did not make.
pub struct Stranger {
    peer: SimPeer,
    tls: Option<Box<ClientConnection>>,
}

impl Stranger {
    pub fn new(peer: SimPeer, config: Option<&Arc<ClientConfig>>) -> Self {
        let name = || ServerName::try_from("a.test").expect("a name");
        let begin = |config: &Arc<_>| ClientConnection::new(Arc::clone(config), name());
        let tls = config.map(|config| Box::new(begin(config).expect("a configuration that fits")));
        Self { peer, tls }
    }

    /// Bytes on the wire, whatever it speaks.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        let _ = self.peer.write(bytes);
    }

    /// Over TLS if that is what it speaks. The records go out in pieces of `piece` bytes.
    pub fn write(&mut self, bytes: &[u8], piece: usize) {
        let mut wire = Vec::new();
        match &mut self.tls {
            None => wire.extend_from_slice(bytes),
            Some(tls) => {
                let _ = tls.writer().write_all(bytes);
                while tls.wants_write() && tls.write_tls(&mut wire).is_ok() {}
            }
        }
        for piece in wire.chunks(piece.max(1)) {
            let _ = self.peer.write(piece);
        }
    }

    pub fn read(&mut self, max: usize) {
        let got = self.peer.read_up_to(max);
        let Some(tls) = &mut self.tls else {
            return;
        };
        let mut rest = got.as_slice();
        while !rest.is_empty() {
            let read = tls.read_tls(&mut rest);
            if !matches!(read, Ok(1..)) || tls.process_new_packets().is_err() {
                break;
            }
            let _ = tls.reader().read_to_end(&mut Vec::new());
        }
        self.write(&[], usize::MAX);
    }

    pub fn shutdown_write(&mut self) {
        self.peer.shutdown_write();
    }

    pub fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.write(&[], usize::MAX);
    }

    pub fn reset(self) {
        self.peer.reset();
    }
}

/// A frame of a client, with a mask that changes nothing.
pub fn frame(script: &mut Script) -> Vec<u8> {
    let (first, len) = (script.byte(), script.byte());
    let payload = match len {
        0..=200 => script.take(len.into()),
        _ => vec![first; usize::from(len - 200) * 400],
    };
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len => {
            out.push(0xfe);
            out.extend((len as u16).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

pub const HEADS: [&[u8]; 12] = [
    b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
    b"GET /later HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\r\n",
    b"GET /ask HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      Sec-WebSocket-Protocol: chunks\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      Sec-WebSocket-Protocol: chunks\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    b"GET /e HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"POST /e/5 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n",
    b"POST /e/later HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /e/stream HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300\r\nExpect: 100-continue\r\n\r\n",
    b"GET /e/stream HTTP/1.0\r\n\r\n",
    b"HEAD /page HTTP/1.1\r\nHost: a.test\r\n\r\nGET /r HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"5\r\nabcde\r\n0\r\n\r\n",
];

/// Of one turn, in which everybody may send all that waits byte by byte.
const CALLS: u64 = 500_000;
const TURNS: usize = 1000;
/// Each of them five seconds.
const DRAINING: usize = 120;
const KEPT: usize = 8 * 1024 * 1024;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;
