//! The state of a simulated network, and what happens in it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::poller::{Ready, ReadyFlags};
use super::super::resolve::Resolved;
use super::{Call, Fault, Selector};

/// The next of a sequence of well mixed numbers (SplitMix64).
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// All state of a network. Ids are never used twice, so whatever holds one that is gone finds
/// nothing.
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) rng: u64,
    pub(super) shuffle: bool,
    pub(super) next_id: u64,
    pub(super) next_port: u16,
    pub(super) ends: BTreeMap<u64, End>,
    pub(super) listeners: BTreeMap<u64, ListenSocket>,
    pub(super) pollers: BTreeMap<u64, PollerState>,
    pub(super) resolvers: BTreeMap<u64, SimResolverState>,
    pub(super) names: BTreeMap<String, Name>,
    pub(super) routes: BTreeMap<SocketAddr, Option<Duration>>,
    pub(super) later: BTreeMap<(Instant, u64), Action>,
    pub(super) faults: Vec<(Call, u64, Fault)>,
    pub(super) calls: [u64; Call::ALL.len()],
    pub(super) capacity: usize,
    pub(super) io_max: usize,
    pub(super) selector: Selector,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The other end, which may be gone; 0 while connecting.
    pub(super) peer: u64,
    /// What arrived, by segment; none is empty.
    pub(super) incoming: VecDeque<VecDeque<u8>>,
    pub(super) incoming_len: usize,
    /// The other end sends no more.
    pub(super) fin: bool,
    /// This end sends no more.
    pub(super) shut: bool,
    /// Reset or refused.
    pub(super) dead: bool,
    /// The reason, until somebody has been told.
    pub(super) error: Option<Fault>,
    /// A write found too little room since there last was news about it.
    pub(super) blocked: bool,
    /// A context has it.
    pub(super) held: bool,
    pub(super) watch: Option<Watch>,
}

pub(super) struct ListenSocket {
    pub(super) addr: SocketAddr,
    pub(super) backlog: usize,
    pub(super) reuse_port: bool,
    pub(super) queue: VecDeque<u64>,
    /// A stranger has it.
    pub(super) strange: bool,
    pub(super) watch: Option<Watch>,
}

pub(super) struct Watch {
    pub(super) poller: u64,
    pub(super) token: usize,
    pub(super) queued: bool,
}

#[derive(Default)]
pub(super) struct PollerState {
    pub(super) ready: VecDeque<Source>,
    pub(super) waker: Option<usize>,
    pub(super) woken: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Source {
    End(u64),
    Listener(u64),
    Waker,
}

pub(super) struct SimResolverState {
    pub(super) poller: Option<u64>,
    pub(super) answers: Vec<Resolved>,
}

pub(super) struct Name {
    pub(super) answer: Result<Vec<IpAddr>, Fault>,
    pub(super) delay: Option<Duration>,
}

pub(super) enum Action {
    Connect(u64),
    Answer {
        resolver: u64,
        id: u64,
        port: u16,
        result: Result<Vec<IpAddr>, Fault>,
    },
}

impl World {
    pub(super) fn new(seed: u64, start: Instant) -> Self {
        Self {
            start,
            now: start,
            rng: seed,
            shuffle: seed != 0,
            next_id: 0,
            next_port: FIRST_PORT,
            ends: BTreeMap::new(),
            listeners: BTreeMap::new(),
            pollers: BTreeMap::new(),
            resolvers: BTreeMap::new(),
            names: BTreeMap::new(),
            routes: BTreeMap::new(),
            later: BTreeMap::new(),
            faults: Vec::new(),
            calls: [0; Call::ALL.len()],
            capacity: DEFAULT_CAPACITY,
            io_max: usize::MAX,
            selector: Selector::default(),
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn free_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }

    pub(super) fn ephemeral(&mut self, towards: SocketAddr) -> SocketAddr {
        let ip = match towards {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(ip, self.free_port())
    }

    pub(super) fn new_end(&mut self, end: End) -> u64 {
        let id = self.fresh_id();
        self.ends.insert(id, end);
        id
    }

    pub(super) fn end(&self, id: u64) -> &End {
        self.ends
            .get(&id)
            .expect("whoever holds a stream holds its end")
    }

    pub(super) fn end_mut(&mut self, id: u64) -> &mut End {
        self.ends
            .get_mut(&id)
            .expect("whoever holds a stream holds its end")
    }

    pub(super) fn listener_mut(&mut self, id: u64) -> &mut ListenSocket {
        self.listeners
            .get_mut(&id)
            .expect("whoever holds a listener holds its socket")
    }

    pub(super) fn name_mut(&mut self, host: &str) -> &mut Name {
        let unnamed = || Name {
            answer: Ok(Vec::new()),
            delay: Some(Duration::ZERO),
        };
        self.names.entry(host.to_owned()).or_insert_with(unnamed)
    }

    pub(super) fn schedule(&mut self, delay: Duration, action: Action) {
        let seq = self.fresh_id();
        if let Some(at) = self.now.checked_add(delay) {
            self.later.insert((at, seq), action);
        }
    }

    pub(super) fn advance_to(&mut self, until: Instant) {
        while let Some(entry) = self.later.first_entry() {
            let at = entry.key().0;
            if at > until {
                break;
            }
            let action = entry.remove();
            self.now = at;
            self.run(action);
        }
        self.now = until;
    }

    pub(super) fn run(&mut self, action: Action) {
        match action {
            Action::Connect(id) => self.establish(id),
            Action::Answer {
                resolver,
                id,
                port,
                result,
            } => {
                let Some(state) = self.resolvers.get_mut(&resolver) else {
                    return;
                };
                let to_addr = |ip| SocketAddr::new(ip, port);
                let result = result.map(|ips| ips.into_iter().map(to_addr).collect());
                state.answers.push(Resolved {
                    id,
                    result: result.map_err(io::Error::from),
                });
                if let Some(poller) = state.poller {
                    self.wake(poller);
                }
            }
        }
    }

    /// Ends a connect: the other end is put into the queue of whoever listens.
    pub(super) fn establish(&mut self, id: u64) {
        let Some(end) = self.ends.get(&id) else {
            return;
        };
        let (local, remote) = (end.local, end.remote);
        let Some(listener) = self.find_listener(remote) else {
            let end = self.end_mut(id);
            end.dead = true;
            end.error = Some(io::ErrorKind::ConnectionRefused.into());
            self.notify_end(id);
            return;
        };
        let accepted = self.new_end(End {
            peer: id,
            ..End::new(remote, local)
        });
        self.end_mut(id).peer = accepted;
        self.listener_mut(listener).queue.push_back(accepted);
        self.notify_listener(listener);
        self.notify_end(id);
    }

    pub(super) fn find_listener(&mut self, addr: SocketAddr) -> Option<u64> {
        let serves = |socket: &ListenSocket| {
            let ip = socket.addr.ip();
            let any = ip.is_unspecified() && ip.is_ipv4() == addr.is_ipv4();
            socket.addr.port() == addr.port()
                && (any || ip == addr.ip())
                && socket.queue.len() < socket.backlog
        };
        let found: Vec<u64> = self
            .listeners
            .iter()
            .filter(|(_, socket)| serves(socket))
            .map(|(id, _)| *id)
            .collect();
        match found.len() {
            0 | 1 => found.first().copied(),
            n => Some(found[pick(&mut self.rng, n)]),
        }
    }

    /// Counts a call, and fails it if the script says so.
    pub(super) fn begin_call(&mut self, call: Call) -> io::Result<()> {
        let count = &mut self.calls[call as usize];
        *count += 1;
        let scripted = self
            .faults
            .iter()
            .find(|fault| (fault.0, fault.1) == (call, *count));
        scripted.map_or(Ok(()), |fault| Err(fault.2.into()))
    }

    pub(super) fn begin_stream_call(&mut self, call: Call, id: u64) -> io::Result<()> {
        if let Err(error) = self.begin_call(call) {
            if error.kind() == io::ErrorKind::WouldBlock {
                // There may be no room by the time of the event: then there is another one.
                self.end_mut(id).blocked |= call == Call::Write;
                self.notify_end(id);
            }
            return Err(error);
        }
        match self.end_mut(id).error.take() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    pub(super) fn check_writable(&self, id: u64) -> io::Result<()> {
        let end = self.end(id);
        if end.dead || end.shut {
            return Err(end
                .error
                .map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::from));
        }
        Ok(())
    }

    /// How much a write at this end can still add to what the other end has not read.
    pub(super) fn room(&self, id: u64) -> usize {
        let end = self.end(id);
        match self.ends.get(&end.peer) {
            Some(peer) => self.capacity.saturating_sub(peer.incoming_len),
            None if end.is_connected() => usize::MAX,
            None => 0,
        }
    }

    /// Brings bytes from this end to the other; if that is gone, the answer is a reset.
    pub(super) fn deliver(&mut self, from: u64, bytes: Vec<u8>) {
        let to = self.end(from).peer;
        let Some(peer) = self.ends.get_mut(&to) else {
            self.reset(from);
            return;
        };
        peer.incoming_len += bytes.len();
        peer.incoming.push_back(bytes.into());
        self.notify_end(to);
    }

    /// Takes up to `max` bytes of the first segment.
    pub(super) fn take_incoming(&mut self, id: u64, max: usize) -> Vec<u8> {
        let end = self.end_mut(id);
        let Some(segment) = end.incoming.front_mut() else {
            return Vec::new();
        };
        let n = segment.len().min(max);
        let taken: Vec<u8> = segment.drain(..n).collect();
        if segment.is_empty() {
            end.incoming.pop_front();
        }
        end.incoming_len -= n;
        let peer = end.peer;
        let writer_waits = self.ends.get(&peer).is_some_and(|end| end.blocked);
        if writer_waits && self.room(peer) > 0 {
            self.notify_end(peer);
        }
        taken
    }

    pub(super) fn shutdown_write(&mut self, id: u64) {
        let end = self.end_mut(id);
        end.shut = true;
        let peer = end.peer;
        if let Some(peer_end) = self.ends.get_mut(&peer) {
            peer_end.fin = true;
            self.notify_end(peer);
        }
    }

    pub(super) fn close(&mut self, id: u64) {
        let Some(end) = self.ends.remove(&id) else {
            return;
        };
        if end.dead {
            return;
        }
        if !end.incoming.is_empty() {
            self.reset(end.peer);
        } else if let Some(peer) = self.ends.get_mut(&end.peer) {
            peer.fin = true;
            self.notify_end(end.peer);
        }
    }

    pub(super) fn reset(&mut self, id: u64) {
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        if end.dead {
            return;
        }
        end.dead = true;
        end.error = Some(io::ErrorKind::ConnectionReset.into());
        end.incoming.clear();
        end.incoming_len = 0;
        self.notify_end(id);
    }

    pub(super) fn notify_end(&mut self, id: u64) {
        let watch = self.ends.get_mut(&id).and_then(|end| end.watch.as_mut());
        enqueue(&mut self.pollers, watch, Source::End(id));
    }

    pub(super) fn notify_listener(&mut self, id: u64) {
        let watch = self
            .listeners
            .get_mut(&id)
            .and_then(|socket| socket.watch.as_mut());
        enqueue(&mut self.pollers, watch, Source::Listener(id));
    }

    pub(super) fn wake(&mut self, poller: u64) {
        if let Some(state) = self.pollers.get_mut(&poller) {
            if !state.woken {
                state.woken = true;
                state.ready.push_back(Source::Waker);
            }
        }
    }

    /// Turns what has happened into events. What they say is how things are now, not how they were
    /// when it happened, as with a real selector; what is over by now is not reported.
    pub(super) fn take_ready(&mut self, poller: u64, capacity: usize, out: &mut Vec<Ready>) {
        let Some(state) = self.pollers.get_mut(&poller) else {
            return;
        };
        let mut ready = std::mem::take(&mut state.ready);
        if self.shuffle {
            for place in 1..ready.len() {
                ready.swap(place, pick(&mut self.rng, place + 1));
            }
        }
        while out.len() < capacity {
            let Some(source) = ready.pop_front() else {
                break;
            };
            out.extend(
                self.ready_of(poller, source)
                    .filter(|ready| !ready.flags.is_empty()),
            );
        }
        if let Some(state) = self.pollers.get_mut(&poller) {
            state.ready = ready;
        }
    }

    pub(super) fn ready_of(&mut self, poller: u64, source: Source) -> Option<Ready> {
        match source {
            Source::End(id) => {
                let watch = self.ends.get_mut(&id)?.watch.as_mut()?;
                watch.queued = false;
                let token = watch.token;
                let flags = self.end_flags(id);
                if flags.contains(ReadyFlags::WRITABLE) {
                    self.end_mut(id).blocked = false;
                }
                Some(Ready { token, flags })
            }
            Source::Listener(id) => {
                let socket = self.listeners.get_mut(&id)?;
                let waiting = !socket.queue.is_empty();
                let watch = socket.watch.as_mut()?;
                watch.queued = false;
                let flags = if waiting {
                    ReadyFlags::READABLE
                } else {
                    ReadyFlags::empty()
                };
                Some(Ready {
                    token: watch.token,
                    flags,
                })
            }
            Source::Waker => {
                let state = self.pollers.get_mut(&poller)?;
                state.woken = false;
                state.waker.map(|token| Ready {
                    token,
                    flags: ReadyFlags::READABLE,
                })
            }
        }
    }

    pub(super) fn end_flags(&self, id: u64) -> ReadyFlags {
        let end = self.end(id);
        let mut flags = ReadyFlags::empty();
        if end.dead {
            flags = ReadyFlags::all();
            flags.set(ReadyFlags::ERROR, end.error.is_some());
        } else if end.is_connected() {
            // An end of stream that comes with the last bytes has no event of its own.
            let over = end.fin && end.incoming.len() <= 1;
            flags.set(ReadyFlags::READABLE, end.fin || !end.incoming.is_empty());
            flags.set(ReadyFlags::WRITABLE, self.room(id) > 0);
            flags.set(ReadyFlags::READ_CLOSED, over);
            flags.set(ReadyFlags::WRITE_CLOSED, end.fin && end.shut);
        }
        flags
    }
}

impl End {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            peer: 0,
            incoming: VecDeque::new(),
            incoming_len: 0,
            fin: false,
            shut: false,
            dead: false,
            error: None,
            blocked: false,
            held: false,
            watch: None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.peer != 0 && !self.dead
    }
}

fn enqueue(pollers: &mut BTreeMap<u64, PollerState>, watch: Option<&mut Watch>, source: Source) {
    let Some(watch) = watch else { return };
    if watch.queued {
        return;
    }
    if let Some(poller) = pollers.get_mut(&watch.poller) {
        watch.queued = true;
        poller.ready.push_back(source);
    }
}

/// A number below `n`.
fn pick(rng: &mut u64, n: usize) -> usize {
    let n = u64::try_from(n).expect("a length fits 64 bits");
    usize::try_from(split_mix(rng) % n).expect("it is less than a length")
}

/// Ports for whoever does not choose one.
const FIRST_PORT: u16 = 49_152;

/// What a stream holds before it refuses more.
const DEFAULT_CAPACITY: usize = 64 * 1024;
