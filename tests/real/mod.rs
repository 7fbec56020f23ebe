//! What the tests on real sockets share: a protocol that writes down what it is told, a stranger
//! who speaks raw bytes, a process of one's own, and what the system says about this one.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use wsloop::http::HeaderList;
use wsloop::http::head::RequestHead;
use wsloop::ws::handshake::{check_request, write_accept};
use wsloop::{
    Accept, ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig,
    ContextObserver, Cx, Established, ListenerTrouble, Message, Protocol, ProtocolHandle, Refuse,
    Request, ServerRefusal, VhostConfig, VhostId, Wsi, WsiId,
};

/// The events of a test, in order, one line each.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How many lines begin with that.
    pub fn count(&self, prefix: &str) -> usize {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(prefix)).count()
    }
}

type OnMessage = Box<dyn FnMut(&mut Wsi<'_>, Message<'_>) -> Result<(), Close> + Send>;
type OnWsi = Box<dyn FnMut(&mut Wsi<'_>) -> Result<(), Close> + Send>;

/// Writes down every event, and sends every message back unless told to do something else.
#[derive(Default)]
pub struct Probe {
    pub log: Log,
    pub open: Vec<WsiId>,
    /// Lets requests wait for a verdict that does not come.
    pub defers: bool,
    pub established: Option<OnWsi>,
    pub message: Option<OnMessage>,
    pub writable: Option<OnWsi>,
}

impl Probe {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            ..Self::default()
        }
    }
}

impl Protocol for Probe {
    type Session = ();

    fn filter_upgrade(&mut self, _: &mut Cx<'_>, _: &Request<'_>) -> Result<Accept, Refuse> {
        if self.defers {
            self.log.push("deferred");
            return Ok(Accept::later_within(Duration::MAX));
        }
        Ok(Accept::new())
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.log.push("established");
        self.open.push(wsi.id());
        match &mut self.established {
            Some(act) => act(wsi),
            None => Ok(()),
        }
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        self.log.push(match message {
            Message::Text(text) => format!("text {text}"),
            Message::Binary(bytes) => format!("binary {}", bytes.len()),
        });
        match &mut self.message {
            Some(act) => act(wsi, message),
            None => Ok(wsi.send(message).map(drop)?),
        }
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, _: &mut ()) -> Result<(), Close> {
        match &mut self.writable {
            Some(act) => act(wsi),
            None => Ok(()),
        }
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, id: WsiId, _: (), cause: &CloseCause) {
        self.open.retain(|open| *open != id);
        self.log.push(format!("closed {:?}: {cause}", cause.side()));
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.log.push(format!("no connection: {error}"));
    }
}

impl ContextObserver for Log {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        self.push(format!("refused {}", refusal.reason));
    }

    fn on_listener_trouble(&mut self, _: &mut Cx<'_>, trouble: &ListenerTrouble) {
        self.push(format!("trouble {}", trouble.error));
    }
}

/// A context with one vhost and one probe.
pub struct Host {
    pub context: Context,
    pub vhost: VhostId,
    pub probe: ProtocolHandle<Probe>,
    pub log: Log,
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Host {
    /// Listens on a port that the system chooses.
    pub fn server() -> Self {
        Self::with(ContextConfig::new(), |_| {})
    }

    pub fn with(config: ContextConfig, adapt: impl FnOnce(&mut Probe)) -> Self {
        Self::made(
            config,
            VhostConfig::new("localhost").listen(loopback()),
            adapt,
        )
    }

    pub fn client() -> Self {
        Self::made(ContextConfig::new(), VhostConfig::new("client"), |_| {})
    }

    pub fn made(
        config: ContextConfig,
        mut vhost: VhostConfig,
        adapt: impl FnOnce(&mut Probe),
    ) -> Self {
        let log = Log::default();
        let mut probe = Probe::new(&log);
        adapt(&mut probe);
        let probe = vhost.add_protocol("probe", probe);
        let mut context = Context::new(config.observer(log.clone())).unwrap();
        let vhost = context.create_vhost(vhost).unwrap();
        Self {
            context,
            vhost,
            probe,
            log,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.context.listen_addrs(self.vhost)[0]
    }

    pub fn dial(&mut self, addr: SocketAddr) -> WsiId {
        let info = ClientConnectInfo::from_url(&format!("ws://{addr}/")).unwrap();
        self.context.client_connect(self.vhost, info).unwrap()
    }

    /// One turn that waits a little for something to happen.
    pub fn turn(&mut self) {
        self.context
            .service(Some(Duration::from_millis(5)))
            .unwrap();
    }

    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("it never came to it; {:#?}", self.log.lines());
    }

    /// Turns until there are so many lines that begin with that.
    pub fn until_logged(&mut self, prefix: &str, count: usize) {
        let log = self.log.clone();
        self.until(|_| log.count(prefix) >= count);
    }

    /// An upgraded connection of a stranger.
    pub fn open(&mut self) -> Peer {
        let addr = self.addr();
        self.upgrade(Peer::connect(addr))
    }

    pub fn upgrade(&mut self, mut peer: Peer) -> Peer {
        peer.write(REQUEST);
        self.until(|_| peer.take_head().is_some());
        peer
    }

    /// What the stranger gets, up to that length.
    pub fn read(&mut self, peer: &mut Peer, len: usize) -> Vec<u8> {
        self.until(|_| peer.fill() >= len || peer.ended);
        peer.got.drain(..len.min(peer.got.len())).collect()
    }

    /// What the stranger gets until its stream ends.
    pub fn read_to_end(&mut self, peer: &mut Peer) -> Vec<u8> {
        self.until(|_| {
            peer.fill();
            peer.ended
        });
        std::mem::take(&mut peer.got)
    }
}

/// More than any test needs; with the wait of a turn it is some ten seconds.
const TURNS: usize = 2000;

/// RFC 6455 section 1.2, with its key.
pub const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The 101 that a client's request asks for.
pub fn response_to(request: &str) -> Vec<u8> {
    let limits = wsloop::Limits::default().head;
    let head = RequestHead::parse(request.as_bytes(), &limits).unwrap();
    let upgrade = check_request(&head).unwrap();
    let mut response = Vec::new();
    write_accept(&mut response, &upgrade.accept, None, &HeaderList::new());
    response
}

/// A stranger on a socket of the standard library.
pub struct Peer {
    pub stream: TcpStream,
    pub got: Vec<u8>,
    /// Its stream has ended, cleanly or not.
    pub ended: bool,
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect(addr).unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            got: Vec::new(),
            ended: false,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads what is there; how much has come and was not taken.
    pub fn fill(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => self.got.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        self.got.len()
    }

    /// The head of the response, once it is complete.
    pub fn take_head(&mut self) -> Option<String> {
        self.fill();
        let end = self.got.windows(4).position(|four| four == END_OF_HEAD)?;
        let head = self.got.drain(..end + END_OF_HEAD.len()).collect();
        Some(String::from_utf8(head).unwrap())
    }

    /// Closes so that the other side gets a reset.
    pub fn reset(self) {
        let socket = SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A client's frame with that first byte, masked with zeros, which leave the payload readable.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, 0x80, payload)
}

/// A server's frame with that first byte.
pub fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, 0, payload)
}

fn frame(first: u8, mask: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(mask | len as u8),
        len @ ..=0xffff => {
            out.push(mask | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(mask | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if mask != 0 {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
    out
}

/// Runs `body` in a process of its own: this test binary again, with this test only. `name` is
/// the whole name of the test.
pub fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some_and(|test| test == name) {
        return body();
    }
    let output = child(name).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The command that runs that test of this binary in a process of its own.
pub fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, name);
    command
}

/// Names the test that a child process is to run.
pub const CHILD: &str = "WSLOOP_TEST_CHILD";

/// The open descriptors of this process.
#[cfg(target_os = "linux")]
pub fn descriptors() -> Vec<u32> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut numbers: Vec<u32> = all
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    numbers.sort_unstable();
    // The one that read the directory was the lowest free one; it is closed by now.
    numbers.retain(|number| std::fs::metadata(format!("/proc/self/fd/{number}")).is_ok());
    numbers
}

/// Waits until so many connections lie in the queue of the listener there. `connect` returns before
/// the end of the handshake has reached it, on a busy machine long before.
#[cfg(target_os = "linux")]
pub fn await_queued(addr: SocketAddr, count: usize) {
    let queued = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", addr.port());
        table.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            let (local, state) = (fields.nth(1)?, fields.nth(1)?);
            let (_, length) = fields.next()?.split_once(':')?;
            let listens = local.ends_with(&port) && state == "0A";
            listens.then(|| usize::from_str_radix(length, 16).unwrap())
        })
    };
    for _ in 0..20_000 {
        if queued() == Some(count) {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{:?} and not {count} wait for {addr}", queued());
}

/// Resident memory of this process in bytes.
#[cfg(target_os = "linux")]
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
