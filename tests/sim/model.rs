//! The contract, as a model that every callback is checked against.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wsloop::{
    ExchangeId, FetchId, HookRequestId, Message, MessageKind, RequestId, TimerId, VhostId, WsiId,
};

use super::judge::Verdict;

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Which of the contexts.
pub(crate) type Node = usize;

/// One direction of a connection: from this address to that.
pub(crate) type Link = (SocketAddr, SocketAddr);

/// How far a connection or an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// A client's, asked for and not decided.
    Attempt,
    Open,
    /// Its final event came, or its callback panicked.
    Over,
}

#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) life: Life,
    /// No message may come any more: a close was asked for, or the peer's has come.
    pub(crate) closing: bool,
    pub(crate) peer_closed: bool,
    pub(crate) paused: bool,
    /// `on_writable` was asked for.
    pub(crate) writable: bool,
    /// What it sends goes this way, what it receives the other.
    pub(crate) out: Option<Link>,
}

impl Conn {
    fn new(life: Life) -> Self {
        Self {
            life,
            closing: false,
            peer_closed: false,
            paused: false,
            writable: false,
            out: None,
        }
    }
}

/// A message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) kind: MessageKind,
    pub(crate) len: usize,
    hash: u64,
}

impl Digest {
    pub(crate) const fn new(kind: MessageKind) -> Self {
        Self {
            kind,
            len: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub(crate) fn of(message: Message<'_>) -> Self {
        let mut digest = Self::new(message.kind());
        digest.add(message.as_bytes());
        digest
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What was accepted for one direction and has not been received.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    waiting: VecDeque<Digest>,
    /// The sender breaks rules: what comes is not known.
    pub(crate) wild: bool,
    /// The sender is one of the contexts.
    pub(crate) ours: bool,
}

/// A timer that was set.
#[derive(Debug)]
pub(crate) struct Timer {
    pub(crate) node: Node,
    /// Whose, if not free-standing.
    pub(crate) conn: Option<WsiId>,
    pub(crate) due: Instant,
    pub(crate) id: Option<TimerId>,
}

/// A request that was begun.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) head: bool,
    pub(crate) received: usize,
    pub(crate) sent: usize,
    pub(crate) streams: bool,
    /// It goes to one of the contexts.
    pub(crate) ours: bool,
    pub(crate) status: u16,
}

/// Everything that is known.
pub(crate) struct Model {
    pub(crate) rng: Rng,
    /// What callbacks may still do.
    pub(crate) budget: u32,
    pub(crate) step: usize,
    pub(crate) log: Vec<String>,
    pub(crate) echo: bool,
    pub(crate) conns: BTreeMap<(Node, WsiId), Conn>,
    flows: BTreeMap<Link, Flow>,
    pub(crate) timers: BTreeMap<u64, Timer>,
    next_tag: u64,
    pub(crate) fetches: BTreeMap<(Node, FetchId), Request>,
    pub(crate) exchanges: BTreeMap<(Node, ExchangeId), usize>,
    pub(crate) questions: Vec<(Node, HookRequestId)>,
    /// Questions of webhooks at their endpoint.
    pub(crate) hearings: BTreeSet<(Node, ExchangeId)>,
    /// What endpoints have said about requests that have a tag.
    pub(crate) verdicts_of_judges: BTreeMap<u64, Verdict>,
    pub(crate) verdicts: Vec<(Node, RequestId)>,
    pub(crate) vhosts: Vec<(Node, VhostId)>,
    /// Whose callback has panicked by the script.
    pub(crate) victims: Vec<Victim>,
    /// Calls are made to fail once in so many times.
    pub(crate) faults: usize,
    /// Some connections are made with TLS.
    pub(crate) tls: bool,
    /// The longest message that the contexts allow.
    pub(crate) longest: usize,
    /// How much may wait on a connection.
    pub(crate) output_bytes: usize,
    /// No surprises: nobody panics, closes or breaks rules.
    pub(crate) gentle: bool,
    /// Much is said and little happens: connections are calm nearly always.
    pub(crate) fair: bool,
}

/// What goes with a panic in a callback.
#[derive(Debug)]
pub(crate) enum Victim {
    Conn(Node, WsiId),
    Exchange(Node, ExchangeId),
    Fetch(Node, FetchId),
    Nobody,
}

/// A handle of the model.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Model>>);

impl Shared {
    pub(crate) fn new(model: Model) -> Self {
        Self(Arc::new(Mutex::new(model)))
    }

    /// Panics in callbacks are part of the script.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    pub(crate) fn new(seed: u64, echo: bool) -> Self {
        Self {
            rng: Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d),
            budget: 700,
            step: 0,
            log: Vec::new(),
            echo,
            conns: BTreeMap::new(),
            flows: BTreeMap::new(),
            timers: BTreeMap::new(),
            next_tag: 0,
            fetches: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            questions: Vec::new(),
            hearings: BTreeSet::new(),
            verdicts_of_judges: BTreeMap::new(),
            verdicts: Vec::new(),
            vhosts: Vec::new(),
            victims: Vec::new(),
            faults: 1,
            tls: false,
            longest: MESSAGE_BYTES,
            output_bytes: 64 * 1024,
            gentle: false,
            fair: false,
        }
    }

    pub(crate) fn note(&mut self, line: String) {
        let line = format!("{:4} {line}", self.step);
        if self.echo {
            println!("{line}");
        }
        self.log.push(line);
    }

    /// Whether somebody does harm now who might.
    pub(crate) fn harms(&mut self) -> bool {
        !self.gentle && (!self.fair || self.rng.once_in(8))
    }

    /// Whether a callback does something of its own now.
    pub(crate) fn spend(&mut self) -> bool {
        let does = self.budget > 0 && self.rng.once_in(3);
        self.budget -= u32::from(does);
        does
    }

    pub(crate) fn flow(&mut self, link: Link) -> &mut Flow {
        self.flows.entry(link).or_default()
    }

    pub(crate) fn attempt(&mut self, node: Node, id: WsiId) {
        let before = self.conns.insert((node, id), Conn::new(Life::Attempt));
        assert!(before.is_none(), "{node} {id}: an id is given once");
    }

    /// A connection is established. Whether it was an attempt of a client.
    pub(crate) fn opened(&mut self, node: Node, id: WsiId, out: Link, dialled: bool) {
        let known = self.conns.remove(&(node, id));
        match (&known, dialled) {
            (Some(conn), true) => assert_eq!(conn.life, Life::Attempt, "{node} {id}"),
            (None, false) => {}
            _ => panic!("{node} {id}: established, dialled {dialled}, was {known:?}"),
        }
        let conn = Conn {
            out: Some(out),
            ..Conn::new(Life::Open)
        };
        self.conns.insert((node, id), conn);
        self.flow(out).ours = true;
    }

    /// A callback about an open connection.
    pub(crate) fn open(&mut self, node: Node, id: WsiId) -> &mut Conn {
        let conn = self.conns.get_mut(&(node, id));
        let conn = conn.unwrap_or_else(|| panic!("{node} {id}: a callback about nobody"));
        assert_eq!(conn.life, Life::Open, "{node} {id}: a callback too much");
        conn
    }

    /// The final event.
    pub(crate) fn ended(&mut self, node: Node, id: WsiId, was: Life) {
        let conn = self.conns.get_mut(&(node, id));
        let conn = conn.unwrap_or_else(|| panic!("{node} {id}: the end of nobody"));
        assert_eq!(conn.life, was, "{node} {id}: another end");
        conn.life = Life::Over;
        self.timers
            .retain(|_, timer| (timer.node, timer.conn) != (node, Some(id)));
    }

    /// A send was accepted.
    pub(crate) fn sent(&mut self, node: Node, id: WsiId, digest: Digest) {
        let conn = self.open(node, id);
        assert!(!conn.closing, "{node} {id}: a send after the close");
        let link = conn.out.expect("it is open");
        self.flow(link).waiting.push_back(digest);
        self.note(format!("{node} {id} sends {}", digest.len));
    }

    /// A stranger sends a message over this link.
    pub(crate) fn stranger_sent(&mut self, link: Link, digest: Digest) {
        self.flow(link).waiting.push_back(digest);
    }

    /// A whole message came.
    pub(crate) fn received(&mut self, node: Node, id: WsiId, digest: Digest) {
        let conn = self.open(node, id);
        assert!(!conn.closing, "{node} {id}: a message after the close");
        let (from, to) = conn.out.expect("it is open");
        let flow = self.flow((to, from));
        if flow.wild {
            return;
        }
        let sent = flow.waiting.pop_front();
        assert_eq!(sent, Some(digest), "{node} {id}: sent and received");
    }

    /// The peer's Close frame came: everything before it has.
    pub(crate) fn peer_closed(&mut self, node: Node, id: WsiId) {
        let conn = self.open(node, id);
        assert!(!conn.closing && !conn.peer_closed, "{node} {id}");
        (conn.closing, conn.peer_closed) = (true, true);
        let (from, to) = conn.out.expect("it is open");
        self.nothing_waits(node, id, (to, from));
    }

    /// Whatever was sent that way has come.
    pub(crate) fn nothing_waits(&mut self, node: Node, id: WsiId, link: Link) {
        let flow = self.flow(link);
        let lost = flow.waiting.len();
        let may = flow.wild || !flow.ours;
        assert!(lost == 0 || may, "{node} {id}: {lost} messages are lost");
    }

    /// A length of a message, some of which are read to their place and written from there.
    pub(crate) fn some_length(&mut self) -> usize {
        match self.longest > MESSAGE_BYTES && self.rng.once_in(8) {
            true => {
                let most = self.longest;
                let around = self.rng.pick(&[36_000, 70_000, 140_000, most]);
                around - self.rng.below(3)
            }
            false => some_length(&mut self.rng),
        }
    }

    pub(crate) fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    pub(crate) fn timer_fired(&mut self, node: Node, tag: u64, conn: Option<WsiId>, now: Instant) {
        let timer = self.timers.remove(&tag);
        let timer = timer.unwrap_or_else(|| panic!("{node}: timer {tag} is not set"));
        assert_eq!((timer.node, timer.conn), (node, conn), "timer {tag}");
        assert!(now >= timer.due, "timer {tag} is early");
    }

    pub(crate) fn exchange_ended(&mut self, node: Node, id: ExchangeId) {
        let known = self.exchanges.remove(&(node, id));
        assert!(known.is_some(), "{node} {id:?}: the end of no exchange");
    }

    /// What is said about a request; the same whenever it is asked about.
    pub(crate) fn judge(&mut self, tag: Option<u64>) -> Verdict {
        let mut verdict = match self.rng.below(if self.gentle { 3 } else { 4 }) {
            0 | 1 => Verdict::Allow,
            2 => Verdict::Next,
            _ => Verdict::Deny,
        };
        if let Some(tag) = tag {
            verdict = *self.verdicts_of_judges.entry(tag).or_insert(verdict);
        }
        verdict
    }

    pub(crate) fn fetch_ended(&mut self, node: Node, id: FetchId) -> Request {
        let known = self.fetches.remove(&(node, id));
        known.unwrap_or_else(|| panic!("{node} {id:?}: the end of no request"))
    }

    /// What a scripted panic takes with it.
    pub(crate) fn bury_victims(&mut self) {
        for victim in std::mem::take(&mut self.victims) {
            match victim {
                Victim::Conn(node, id) => {
                    if let Some(conn) = self.conns.get_mut(&(node, id)) {
                        conn.life = Life::Over;
                    }
                    self.timers
                        .retain(|_, timer| (timer.node, timer.conn) != (node, Some(id)));
                }
                Victim::Exchange(node, id) => {
                    self.exchanges.remove(&(node, id));
                    self.hearings.remove(&(node, id));
                }
                Victim::Fetch(node, id) => drop(self.fetches.remove(&(node, id))),
                Victim::Nobody => {}
            }
        }
    }
}

/// A payload that shows where it was cut or mixed up: short or long, dull or not.
pub(crate) fn payload(rng: &mut Rng, kind: MessageKind, len: usize) -> Vec<u8> {
    let (mut state, dull) = (Rng(rng.next()), rng.once_in(2));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        let word = state.next().to_be_bytes();
        match dull {
            true => bytes.extend_from_slice(&[word[0]; 61]),
            false => bytes.extend_from_slice(&word),
        }
    }
    bytes.truncate(len);
    if kind == MessageKind::Text {
        for byte in &mut bytes {
            *byte = b' ' + *byte % 95;
        }
        if let Some(tail) = len.checked_sub(2) {
            bytes[tail..].copy_from_slice("\u{e9}".as_bytes());
        }
    }
    bytes
}

/// A length of a message.
pub(crate) fn some_length(rng: &mut Rng) -> usize {
    match rng.below(12) {
        0 => 0,
        1..=5 => rng.below(126),
        6..=8 => 126 + rng.below(1000),
        9 => 4096 + rng.below(4000),
        10 => 10_000 + rng.below(10_000),
        _ => rng.pick(&[125, 126, 127, 4095, 4096, MESSAGE_BYTES]),
    }
}

/// The longest message that all contexts allow.
pub(crate) const MESSAGE_BYTES: usize = 32 * 1024;
