//! What the tests share: a context on a simulated network, a protocol that writes down what it is
//! told, and a stranger who speaks raw bytes.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its own part of this, and a failed unwrap fails the test"
)]

mod endpoint;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::sim::{Net, SimPeer};
use wsloop::{
    Accept, Chunk, Close, CloseCause, CloseFrame, ConnectError, Context, ContextConfig,
    ContextObserver, Cx, Established, Handshake, HookError, Message, Protocol, Refuse, Request,
    ServerRefusal, TimerTag, VhostConfig, VhostId, Wsi, WsiId,
};

pub use self::endpoint::Endpoint;

pub const ADDR: &str = "10.0.0.1:80";

pub fn addr() -> SocketAddr {
    ADDR.parse().unwrap()
}

/// The events of a test, in order, one line each.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How many lines begin with that.
    pub fn count(&self, prefix: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.starts_with(prefix))
            .count()
    }
}

type OnEstablished = Box<dyn FnMut(&mut Wsi<'_>) -> Result<(), Close> + Send>;
type OnMessage = Box<dyn FnMut(&mut Wsi<'_>, Message<'_>) -> Result<(), Close> + Send>;
type OnWsi = Box<dyn FnMut(&mut Wsi<'_>) -> Result<(), Close> + Send>;
type OnTag = Box<dyn FnMut(&mut Wsi<'_>, TimerTag) -> Result<(), Close> + Send>;
type OnCx = Box<dyn FnMut(&mut Cx<'_>) + Send>;
type OnCxTag = Box<dyn FnMut(&mut Cx<'_>, TimerTag) + Send>;
type OnEnd = Box<dyn FnMut(&mut Cx<'_>, WsiId) + Send>;
type Filter = Box<dyn FnMut(&mut Cx<'_>, &Request<'_>) -> Result<Accept, Refuse> + Send>;

/// Writes every callback into a log, then does what the test gave it to do.
#[derive(Default)]
pub struct Recorder {
    pub log: Log,
    pub filter: Option<Filter>,
    pub established: Option<OnEstablished>,
    pub message: Option<OnMessage>,
    pub chunk: Option<OnWsi>,
    pub writable: Option<OnWsi>,
    pub pong: Option<OnWsi>,
    pub peer_close: Option<OnWsi>,
    pub timer: Option<OnTag>,
    pub free_timer: Option<OnCxTag>,
    pub closed: Option<OnEnd>,
    pub connect_error: Option<OnEnd>,
    pub wake: Option<OnCx>,
}

impl Recorder {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            ..Self::default()
        }
    }

    /// Sends every message back.
    pub fn echo(log: &Log) -> Self {
        Self {
            message: Some(Box::new(|wsi, message| {
                wsi.send(message)?;
                Ok(())
            })),
            ..Self::new(log)
        }
    }
}

impl Protocol for Recorder {
    /// The session says who it is when it comes back.
    type Session = WsiId;

    fn filter_upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        self.log.push(format!("filter {}", request.head().target()));
        match &mut self.filter {
            Some(filter) => filter(cx, request),
            None => Ok(Accept::new()),
        }
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<WsiId, Close> {
        let what = match &how.head {
            Handshake::Request(head) => head.target().to_owned(),
            Handshake::Response(head) => head.status().to_string(),
            other => panic!("unknown handshake {other:?}"),
        };
        self.log
            .push(format!("established {what} {:?}", how.subprotocol));
        if let Some(act) = &mut self.established {
            act(wsi)?;
        }
        Ok(wsi.id())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut WsiId,
        message: Message<'_>,
    ) -> Result<(), Close> {
        assert_eq!(*session, wsi.id());
        self.log.push(match message {
            Message::Text(text) => format!("text {text:?}"),
            Message::Binary(bytes) => format!("binary {bytes:02x?}"),
        });
        self.message
            .as_mut()
            .map_or(Ok(()), |act| act(wsi, message))
    }

    fn on_chunk(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut WsiId,
        chunk: Chunk<'_>,
    ) -> Result<(), Close> {
        self.log.push(format!(
            "chunk {:?} first={} last={} {:02x?}",
            chunk.kind, chunk.first, chunk.last, chunk.data
        ));
        self.chunk.as_mut().map_or(Ok(()), |act| act(wsi))
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, _: &mut WsiId) -> Result<(), Close> {
        self.log.push("writable");
        self.writable.as_mut().map_or(Ok(()), |act| act(wsi))
    }

    fn on_pong(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut WsiId,
        payload: &[u8],
        round_trip: Option<Duration>,
    ) -> Result<(), Close> {
        self.log.push(format!("pong {payload:02x?} {round_trip:?}"));
        self.pong.as_mut().map_or(Ok(()), |act| act(wsi))
    }

    fn on_peer_close(&mut self, wsi: &mut Wsi<'_>, _: &mut WsiId, frame: Option<CloseFrame<'_>>) {
        let frame = frame.map(|frame| format!("{} {:?}", frame.code(), frame.reason()));
        self.log.push(format!("peer_close {frame:?}"));
        if let Some(act) = &mut self.peer_close {
            let _ = act(wsi);
        }
    }

    fn on_timer(&mut self, wsi: &mut Wsi<'_>, _: &mut WsiId, tag: TimerTag) -> Result<(), Close> {
        self.log.push(format!("timer {}", tag.0));
        self.timer.as_mut().map_or(Ok(()), |act| act(wsi, tag))
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        self.log.push(format!("free_timer {}", tag.0));
        if let Some(act) = &mut self.free_timer {
            act(cx, tag);
        }
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, id: WsiId, session: WsiId, cause: &CloseCause) {
        assert_eq!(
            session, id,
            "the session that comes back is the connection's own"
        );
        let text = cause.to_string();
        assert!(
            text.contains(cause.reason()),
            "{:?} in {text}",
            cause.reason()
        );
        self.log.push(format!("closed {:?} {text}", cause.side()));
        if let Some(act) = &mut self.closed {
            act(cx, id);
        }
    }

    fn on_connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError) {
        self.log.push(format!("connect_error {error}"));
        if let Some(act) = &mut self.connect_error {
            act(cx, id);
        }
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.log.push("wake");
        if let Some(act) = &mut self.wake {
            act(cx);
        }
    }
}

/// Writes refusals into a log.
pub struct Observer(pub Log);

impl ContextObserver for Observer {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        self.0.push(format!("refused {}", refusal.reason));
    }

    fn on_hook_error(&mut self, _: &mut Cx<'_>, _: VhostId, hook: &str, error: &HookError) {
        self.0.push(format!("hook error {hook}: {error}"));
    }

    fn on_timer(&mut self, _: &mut Cx<'_>, tag: TimerTag) {
        self.0.push(format!("observer timer {}", tag.0));
    }
}

/// A context on a simulated network with one vhost that listens on [`ADDR`].
pub struct World {
    pub net: Net,
    pub context: Context,
    pub vhost: VhostId,
    pub log: Log,
}

impl World {
    /// One protocol, a [`Recorder`] as the test makes it.
    pub fn new(make: impl FnOnce(&Log) -> Recorder) -> Self {
        Self::with(|log| {
            VhostConfig::new("a.test")
                .listen(addr())
                .protocol("p", make(log))
        })
    }

    pub fn with(make: impl FnOnce(&Log) -> VhostConfig) -> Self {
        let net = Net::new(1);
        let log = Log::default();
        let config = ContextConfig::new().observer(Observer(log.clone()));
        let mut context = Context::simulated(&net, config).unwrap();
        let vhost = context.create_vhost(make(&log)).unwrap();
        Self {
            net,
            context,
            vhost,
            log,
        }
    }

    /// Turns without waiting until nothing is left to do; no time passes.
    pub fn turn(&mut self) {
        turn(&mut self.context, 64);
    }

    /// Lets time pass in small steps, turning after each.
    pub fn pass(&mut self, time: Duration) {
        pass(&self.net, &mut self.context, time);
    }

    /// A stranger's TCP connection to the vhost.
    pub fn dial(&mut self) -> SimPeer {
        let peer = self.net.dial(addr()).unwrap();
        self.turn();
        peer
    }

    /// A stranger's established WebSocket connection; the response and the callbacks about it are
    /// read away.
    pub fn open(&mut self) -> SimPeer {
        let peer = self.dial();
        peer.write(&request("/")).unwrap();
        self.turn();
        let response = String::from_utf8(peer.read()).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        self.log.take();
        peer
    }
}

/// Turns without waiting, so often; then a look at the loop's books.
pub fn turn(context: &mut Context, times: usize) {
    for _ in 0..times {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    let wrong = context.check_invariants();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lets time pass in small steps, turning after each.
pub fn pass(net: &Net, context: &mut Context, time: Duration) {
    let step = Duration::from_millis(100);
    let mut left = time;
    while !left.is_zero() {
        let now = left.min(step);
        net.advance(now);
        left -= now;
        for _ in 0..2 {
            context.service(Some(Duration::ZERO)).unwrap();
        }
    }
}

/// The request of RFC 6455 section 1.3 for a target.
pub fn request(target: &str) -> Vec<u8> {
    request_with(target, "")
}

/// The same with further header lines, each with its CRLF.
pub fn request_with(target: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

/// A client's frame: `first` is the byte with FIN and opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(first, payload.len(), 0x80);
    frame.extend_from_slice(&key);
    frame.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// A server's frame.
pub fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, len: usize, mask: u8) -> Vec<u8> {
    let mut header = vec![first];
    match len {
        0..=125 => header.push(mask | len as u8),
        126..=65_535 => {
            header.push(mask | 126);
            header.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    header
}

/// A Close payload.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload
}

/// Thirty frames of a peer, of all kinds, that end with a Close; `compressed` with some that
/// permessage-deflate made, without takeover (the examples of RFC 7692 section 7.2.3).
pub fn thirty_frames(compressed: bool) -> Vec<(u8, Vec<u8>)> {
    let stored = [&[0x00, 0x05, 0x00, 0xfa, 0xff][..], b"Hello\x00"].concat();
    let fixed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let rsv1 = if compressed { 0x40 } else { 0 };
    let (one, two) = if compressed {
        (stored, fixed.to_vec())
    } else {
        (b"Hello".to_vec(), b"Hello".to_vec())
    };
    let text = "one \u{20ac} two \u{1f600} three".as_bytes();
    let mut frames = vec![
        (0x81 | rsv1, one),
        (0x82, (0..=255).collect()),
        // The first cut is inside the euro sign, the second inside the emoji.
        (0x01, text[..5].to_vec()),
        (0x89, b"one".to_vec()),
        (0x00, text[5..14].to_vec()),
        (0x89, b"two".to_vec()),
        (0x00, Vec::new()),
        (0x80, text[14..].to_vec()),
        (0x81 | rsv1, two.clone()),
        (0x01 | rsv1, two[..3].to_vec()),
        (0x8a, b"unasked".to_vec()),
        (0x00, two[3..4].to_vec()),
        (0x80, two[4..].to_vec()),
        (0x81, Vec::new()),
        (0x82, Vec::new()),
        (0x89, Vec::new()),
        (0x02, vec![1; 130]),
        (0x80, vec![2; 3]),
    ];
    frames.extend((0..11_u8).map(|n| (0x82, vec![n; n.into()])));
    frames.push((0x88, close_payload(1000, "bye")));
    assert_eq!(frames.len(), 30);
    frames
}
