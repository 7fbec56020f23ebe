//! A simulated network with a virtual clock, for tests of protocols.
//!
//! A [`Net`] takes the place of the operating system under one or several contexts: sockets, names,
//! time and randomness. Everything happens in memory and on one thread, and the same seed gives
//! the same run, so a test that failed once fails again, and an hour passes in no time.
//!
//! The test plays the strangers: [`Net::dial`] reaches a server under test as a raw [`SimPeer`],
//! [`Net::listen`] waits for a client under test. What one [`SimPeer::write`] sends arrives as one
//! segment: no read returns bytes of two, so the test decides how a message is cut.
//!
//! ```
//! use std::time::Duration;
//! use wsloop::sim::Net;
//!
//! let net = Net::new(1);
//! let addr = "192.0.2.1:80".parse()?;
//! let server = net.listen(addr)?;
//! let client = net.dial(addr)?;
//! client.write(b"hel")?;
//! client.write(b"lo")?;
//! assert_eq!(server.accept().expect("somebody has dialled").read(), b"hello");
//! net.advance(Duration::from_secs(3600));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A protocol under test
//!
//! [`Context::simulated`](crate::Context::simulated) makes a context on such a network; all else is
//! as on a real one. Serve it with a zero timeout and let the test be the other side:
//!
//! ```
//! # use std::time::Duration;
//! use wsloop::sim::Net;
//! use wsloop::{Close, Context, ContextConfig, Established, Message, Protocol, VhostConfig, Wsi};
//!
//! /// Sends every message back.
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     type Session = ();
//!
//!     fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
//!         Ok(())
//!     }
//!
//!     fn on_message(&mut self, wsi: &mut Wsi<'_>, _: &mut (), message: Message<'_>) -> Result<(), Close> {
//!         wsi.send(message)?;
//!         Ok(())
//!     }
//! }
//!
//! let net = Net::new(1);
//! let addr = "192.0.2.1:80".parse()?;
//! let mut context = Context::simulated(&net, ContextConfig::new())?;
//! context.create_vhost(VhostConfig::new("a.test").listen(addr).protocol("echo", Echo))?;
//!
//! let client = net.dial(addr)?;
//! client.write(
//!     b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
//!       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
//! )?;
//! let mut turn = || {
//!     for _ in 0..5 {
//!         context.service(Some(Duration::ZERO))?;
//!     }
//!     assert!(context.check_invariants().is_empty());
//!     Ok::<(), std::io::Error>(())
//! };
//! turn()?;
//! assert!(client.read().starts_with(b"HTTP/1.1 101 "));
//! // A client's text frame, masked with zeros, in two segments.
//! client.write(b"\x81\x82\0\0")?;
//! client.write(b"\0\0hi")?;
//! turn()?;
//! assert_eq!(client.read(), b"\x81\x02hi");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Clients are tested the same way round: [`Net::listen`] is their server, and [`Net::name`],
//! [`Net::name_delay`] and [`Net::connect_delay`] decide what they find and when. Several contexts
//! may share a network and talk to each other.
//!
//! # Calls that fail
//!
//! Every call that a context makes of the network is counted by kind ([`Net::calls`]), and any of
//! them can be told to fail ([`Net::fail`]) with any error of the system. That makes it possible to
//! try them all: play a scenario once, count its calls, and play it again once for each of them.
//!
//! ```
//! use std::io::ErrorKind;
//! use wsloop::sim::{Call, Net};
//! # fn scenario(net: &Net) -> Result<(), Box<dyn std::error::Error>> {
//! #     let _ = wsloop::Context::simulated(net, wsloop::ContextConfig::new())?;
//! #     Ok(())
//! # }
//!
//! let calm = Net::new(1);
//! scenario(&calm)?;
//! for call in Call::ALL {
//!     for nth in 1..=calm.calls(*call) {
//!         let net = Net::new(1);
//!         net.fail(*call, nth, ErrorKind::Interrupted);
//!         scenario(&net)?;
//!         assert_eq!(net.sockets(), Default::default(), "everything was closed");
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Net::limit_io`] makes every read and write a short one, [`Net::set_capacity`] makes streams
//! that hold little, so that writers have to wait; [`SimPeer::reset`], [`SimPeer::shutdown_write`]
//! and dropping a [`SimPeer`] are the three ways in which a stranger leaves.
//! [`Context::check_invariants`](crate::Context::check_invariants) says what in the loop's own books
//! has become wrong, which is a defect of this crate; please report it with the seed.
//!
//! # How it behaves
//!
//! * Events are those of a strict edge-triggered selector: one when bytes, a connection or an end
//!   arrive, one when there is room again after a write was refused, and never a second one to
//!   remind.
//! * When nothing is ready, a context that waits does not wait: the clock jumps to the end of the
//!   timeout or to the next thing that was scheduled, whichever is first. Without either,
//!   service returns at once. With several contexts on one net, serve them with a zero timeout and
//!   [`advance`](Net::advance) the clock by hand.
//! * Closing an end whose incoming bytes were not all read resets the connection, and a reset
//!   destroys what the other side has not read yet. Systems differ in this; the simulation is as
//!   harsh as the harshest of them.
//! * Seed 0 reports events in the order in which they came about; any other seed shuffles those of
//!   each turn.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::listen::ListenOptions;
use super::poller::WakeHandle;
use super::random::Random;
use world::{Action, End, ListenSocket, SimResolverState, World};

pub(crate) use ours::{SimListener, SimPoller, SimResolver, SimStream, SimWaker};
pub(crate) use world::split_mix;

mod ours;
mod world;

/// A simulated network. Clones are handles of the same one.
#[derive(Clone)]
pub struct Net {
    world: Arc<Mutex<World>>,
}

impl Net {
    /// An empty network at some point in time.
    pub fn new(seed: u64) -> Self {
        // The virtual clock has to start somewhere.
        let world = World::new(seed, Clock::Os.now());
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.lock().now
    }

    /// How much virtual time has passed since the network was made.
    pub fn elapsed(&self) -> Duration {
        let world = self.lock();
        world.now - world.start
    }

    /// Lets time pass. What is scheduled in between happens, in order.
    pub fn advance(&self, time: Duration) {
        let mut world = self.lock();
        let until = world.now + time;
        world.advance_to(until);
    }

    /// Connects to a listener as a stranger.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` when nobody listens on `addr`, or its backlog is full.
    pub fn dial(&self, addr: SocketAddr) -> io::Result<SimPeer> {
        let mut world = self.lock();
        let local = world.ephemeral(addr);
        let id = world.new_end(End::new(local, addr));
        world.establish(id);
        if world.end(id).dead {
            world.ends.remove(&id);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        drop(world);
        Ok(SimPeer {
            net: self.clone(),
            id,
        })
    }

    /// Waits for connections as a stranger. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when somebody listens there already.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<SimPeerListener> {
        let inner = self.open_listener(addr, ListenOptions::default())?;
        self.lock().listener_mut(inner.id).strange = true;
        Ok(SimPeerListener { inner })
    }

    /// Gives `host` these addresses, in the order of the resolver's preference. None at all is an
    /// answer without addresses; a host never named is not found.
    pub fn name(&self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.lock().name_mut(host).answer = Ok(addresses.into_iter().collect());
    }

    /// Lets look-ups of `host` fail.
    pub fn name_fails(&self, host: &str, error: impl Into<Fault>) {
        self.lock().name_mut(host).answer = Err(error.into());
    }

    /// Lets look-ups of `host` take some time; `None` is for ever. Default: none.
    pub fn name_delay(&self, host: &str, delay: impl Into<Option<Duration>>) {
        self.lock().name_mut(host).delay = delay.into();
    }

    /// Lets connects to `addr` take some time; `None` is for ever, like a firewall that drops
    /// everything. Default: none. Strangers' [`dial`](Self::dial) is not delayed.
    pub fn connect_delay(&self, addr: SocketAddr, delay: impl Into<Option<Duration>>) {
        self.lock().routes.insert(addr, delay.into());
    }

    /// How many bytes a stream holds that the other end has not read, before a write is refused.
    /// Default 64 KiB. Does not bind a [`SimPeer::write`].
    pub fn set_capacity(&self, bytes: usize) {
        let mut world = self.lock();
        world.capacity = bytes.max(1);
        let blocked = world.ends.iter().filter(|(_, end)| end.blocked);
        let blocked: Vec<u64> = blocked.map(|(id, _)| *id).collect();
        for id in blocked {
            world.notify_end(id);
        }
    }

    /// Lets no read or write of a context move more than this many bytes.
    pub fn limit_io(&self, bytes: usize) {
        self.lock().io_max = bytes.max(1);
    }

    /// What contexts may take from a read or write that moved less than it was offered. Default
    /// [`Selector::Poll`].
    pub fn set_selector(&self, selector: Selector) {
        self.lock().selector = selector;
    }

    /// Lets the `nth` call of this kind, counted from 1 over all sockets of all contexts, fail.
    /// A `WouldBlock` is followed by a new event; nothing else about the socket changes.
    pub fn fail(&self, call: Call, nth: u64, error: impl Into<Fault>) {
        self.lock().faults.push((call, nth, error.into()));
    }

    /// Forgets the calls that were to fail and have not been made.
    pub fn forget_faults(&self) {
        self.lock().faults.clear();
    }

    /// How many calls of this kind the contexts have made. A run without faults tells how many
    /// there are to fail.
    pub fn calls(&self, call: Call) -> u64 {
        self.lock().calls[call as usize]
    }

    /// What the contexts hold of the network now. With the last context everything goes.
    pub fn sockets(&self) -> Sockets {
        let world = self.lock();
        let listeners = world.listeners.values();
        Sockets {
            streams: world.ends.values().filter(|end| end.held).count(),
            listeners: listeners.filter(|socket| !socket.strange).count(),
            pollers: world.pollers.len(),
            resolvers: world.resolvers.len(),
        }
    }

    /// See [`Stream::connect`](super::stream::Stream::connect). A scripted failure is returned
    /// here; a refusal comes later, as it does on a real network.
    pub(crate) fn connect(
        &self,
        addr: SocketAddr,
        bind: Option<SocketAddr>,
    ) -> io::Result<SimStream> {
        let mut world = self.lock();
        world.begin_call(Call::Connect)?;
        let local = match bind {
            Some(bind) if bind.port() != 0 => bind,
            Some(bind) => SocketAddr::new(bind.ip(), world.free_port()),
            None => world.ephemeral(addr),
        };
        let id = world.new_end(End {
            held: true,
            ..End::new(local, addr)
        });
        match world.routes.get(&addr).copied() {
            None => world.establish(id),
            Some(Some(delay)) => world.schedule(delay, Action::Connect(id)),
            Some(None) => {}
        }
        drop(world);
        Ok(SimStream {
            net: self.clone(),
            id,
        })
    }

    /// See [`Listener::bind`](super::listen::Listener::bind).
    pub(crate) fn bind(&self, addr: SocketAddr, options: ListenOptions) -> io::Result<SimListener> {
        self.lock().begin_call(Call::Bind)?;
        self.open_listener(addr, options)
    }

    fn open_listener(
        &self,
        mut addr: SocketAddr,
        options: ListenOptions,
    ) -> io::Result<SimListener> {
        let mut world = self.lock();
        if addr.port() == 0 {
            addr.set_port(world.free_port());
        }
        let shares = |other: &ListenSocket| options.reuse_port && other.reuse_port;
        if world
            .listeners
            .values()
            .any(|other| other.addr == addr && !shares(other))
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = world.fresh_id();
        let socket = ListenSocket {
            addr,
            backlog: usize::try_from(options.backlog).unwrap_or(0).max(1),
            reuse_port: options.reuse_port,
            queue: VecDeque::new(),
            strange: false,
            watch: None,
        };
        world.listeners.insert(id, socket);
        drop(world);
        Ok(SimListener {
            net: self.clone(),
            id,
            addr,
        })
    }

    /// See [`Resolver::new`](super::resolve::Resolver::new).
    pub(crate) fn resolver(&self, wake: WakeHandle) -> SimResolver {
        let mut world = self.lock();
        let id = world.fresh_id();
        let poller = match wake {
            WakeHandle::Sim(waker) => Some(waker.poller),
            WakeHandle::Os(_) => None,
        };
        world.resolvers.insert(
            id,
            SimResolverState {
                poller,
                answers: Vec::new(),
            },
        );
        drop(world);
        SimResolver {
            net: self.clone(),
            id,
        }
    }

    /// Randomness that follows from the seed, different at each call.
    pub(crate) fn random(&self) -> Random {
        Random::seeded(split_mix(&mut self.lock().rng))
    }

    /// A panic in a test must not hide behind a second one about the mutex.
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.lock();
        f.debug_struct("Net")
            .field("elapsed", &(world.now - world.start))
            .field("ends", &world.ends.len())
            .field("listeners", &world.listeners.len())
            .finish_non_exhaustive()
    }
}

/// A stranger's end of a connection. Dropping it closes it: with a reset if bytes that it had not
/// read were waiting.
#[derive(Debug)]
pub struct SimPeer {
    net: Net,
    id: u64,
}

impl SimPeer {
    /// Sends one segment. There is always room.
    ///
    /// # Errors
    ///
    /// `ConnectionReset` or `BrokenPipe` when nothing can be sent any more.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.net.lock();
        world.check_writable(self.id)?;
        if !bytes.is_empty() {
            world.deliver(self.id, bytes.to_vec());
        }
        Ok(())
    }

    /// Takes all that has arrived.
    pub fn read(&self) -> Vec<u8> {
        self.read_up_to(usize::MAX)
    }

    /// Takes the first `max` bytes of what has arrived, like somebody slow.
    pub fn read_up_to(&self, max: usize) -> Vec<u8> {
        let mut world = self.net.lock();
        let mut out = Vec::new();
        while out.len() < max {
            let taken = world.take_incoming(self.id, max - out.len());
            if taken.is_empty() {
                break;
            }
            out.extend(taken);
        }
        out
    }

    /// Sends no more, but may still read.
    pub fn shutdown_write(&self) {
        self.net.lock().shutdown_write(self.id);
    }

    /// Closes the connection.
    pub fn close(self) {}

    /// Breaks the connection off; the other end finds an error.
    pub fn reset(self) {
        let mut world = self.net.lock();
        let peer = world.end(self.id).peer;
        world.reset(peer);
    }

    /// The other end has said that it sends no more, and all it sent was read.
    pub fn ended(&self) -> bool {
        let world = self.net.lock();
        let end = world.end(self.id);
        end.fin && end.incoming.is_empty()
    }

    /// The other end has broken the connection off.
    pub fn was_reset(&self) -> bool {
        self.net.lock().end(self.id).dead
    }

    /// The address of this end.
    pub fn local_addr(&self) -> SocketAddr {
        self.net.lock().end(self.id).local
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.net.lock().end(self.id).remote
    }
}

impl Drop for SimPeer {
    fn drop(&mut self) {
        self.net.lock().close(self.id);
    }
}

/// A stranger who listens.
#[derive(Debug)]
pub struct SimPeerListener {
    inner: SimListener,
}

impl SimPeerListener {
    /// Takes the connection that has waited longest.
    pub fn accept(&self) -> Option<SimPeer> {
        let net = &self.inner.net;
        let id = net.lock().listener_mut(self.inner.id).queue.pop_front()?;
        Some(SimPeer {
            net: net.clone(),
            id,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.addr
    }
}

/// The calls of a context that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Taking a connection from a listener.
    Accept,
    /// Beginning to listen.
    Bind,
    /// Beginning to connect.
    Connect,
    /// Waiting for events. `Interrupted` ends the wait with none, as a signal does; anything else
    /// leaves [`Context::service`](crate::Context::service) as an error.
    Poll,
    /// Reading from a stream.
    Read,
    /// Having the poller watch a stream or a listener.
    Register,
    /// Ending the own side of a stream.
    Shutdown,
    /// Writing to a stream.
    Write,
}

impl Call {
    /// All of them, for a test that lets each of them fail.
    pub const ALL: &[Self] = &[
        Self::Accept,
        Self::Bind,
        Self::Connect,
        Self::Poll,
        Self::Read,
        Self::Register,
        Self::Shutdown,
        Self::Write,
    ];
}

/// Which of the system's selectors a network is like, see [`Net::set_selector`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// Like epoll and kqueue: a read or write that comes back short has emptied or filled the
    /// stream, and what changes that has an event.
    Epoll,
    /// Like the others: only a read or write that would block has.
    #[default]
    Poll,
}

/// What the contexts on a network hold of it, see [`Net::sockets`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sockets {
    /// Streams, those that are being connected included. Connections that nobody has accepted yet
    /// are the network's.
    pub streams: usize,
    /// Listeners.
    pub listeners: usize,
    /// Pollers: one of each context.
    pub pollers: usize,
    /// Resolvers: one of each context.
    pub resolvers: usize,
}

/// An error of the system, to be returned by a call that is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// By kind.
    Kind(io::ErrorKind),
    /// By the platform's number, for those without a kind.
    Errno(i32),
}

impl From<io::ErrorKind> for Fault {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Kind(kind)
    }
}

impl From<i32> for Fault {
    fn from(errno: i32) -> Self {
        Self::Errno(errno)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Kind(kind) => kind.into(),
            Fault::Errno(errno) => Self::from_raw_os_error(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::super::System;
    use super::super::poller::{Ready, ReadyFlags};
    use super::super::stream::Stream;
    use super::super::testing::{CLIENT, LISTENER, Loop, SERVER};
    use super::*;

    const ADDR: &str = "192.0.2.1:80";

    #[test]
    fn a_segment_is_read_alone_and_the_next_one_has_an_event_of_its_own() {
        let (net, mut pair) = server_and_stranger();
        let peer = net.dial(addr()).unwrap();
        pair.wait(LISTENER, ReadyFlags::READABLE);
        let (mut stream, _) = pair.listener.accept().unwrap();
        pair.poller.register_stream(&mut stream, 7).unwrap();
        peer.write(b"one").unwrap();
        peer.write(b"two").unwrap();
        let mut buf = [0; 100];
        for expected in [b"one", b"two"] {
            pair.wait(7, ReadyFlags::READABLE);
            assert_eq!(stream.read(&mut buf).unwrap(), 3);
            assert_eq!(&buf[..3], expected);
        }
        assert_eq!(kind_of(stream.read(&mut buf)), io::ErrorKind::WouldBlock);
        assert!(pair.now().is_empty());
    }

    #[test]
    fn events_are_edges_one_for_each_arrival_and_none_to_remind() {
        let (_, mut pair) = server_and_stranger();
        pair.client.write(b"a").unwrap();
        pair.wait(SERVER, ReadyFlags::READABLE);
        assert!(
            pair.now().is_empty(),
            "not read, and yet not reported again"
        );
        pair.client.write(b"b").unwrap();
        pair.wait(SERVER, ReadyFlags::READABLE);
    }

    #[test]
    fn a_writer_that_found_no_room_is_told_when_there_is_some() {
        let (net, mut pair) = server_and_stranger();
        net.set_capacity(10);
        assert_eq!(pair.client.write(&[1; 25]).unwrap(), 10);
        assert_eq!(kind_of(pair.client.write(b"x")), io::ErrorKind::WouldBlock);
        pair.quiet();
        let mut buf = [0; 4];
        assert_eq!(pair.server.read(&mut buf).unwrap(), 4);
        pair.wait(CLIENT, ReadyFlags::WRITABLE);
        assert_eq!(pair.client.write(&[1; 25]).unwrap(), 4);
    }

    #[test]
    fn a_write_that_was_made_to_wait_is_told_of_room_that_comes_later() {
        let (net, mut pair) = server_and_stranger();
        net.set_capacity(4);
        net.fail(Call::Write, 2, io::ErrorKind::WouldBlock);
        assert_eq!(pair.client.write(b"full").unwrap(), 4);
        assert_eq!(kind_of(pair.client.write(b"x")), io::ErrorKind::WouldBlock);
        pair.quiet();
        assert_eq!(pair.server.read(&mut [0; 4]).unwrap(), 4);
        pair.wait(CLIENT, ReadyFlags::WRITABLE);
    }

    #[test]
    fn a_writer_is_told_of_room_also_when_the_capacity_changes_meanwhile() {
        let (net, mut pair) = server_and_stranger();
        net.set_capacity(4);
        assert_eq!(pair.client.write(b"full!").unwrap(), 4);
        assert_eq!(pair.server.read(&mut [0; 1]).unwrap(), 1);
        net.set_capacity(1);
        pair.quiet();
        net.set_capacity(4);
        pair.wait(CLIENT, ReadyFlags::WRITABLE);
    }

    #[test]
    fn io_07_limited_writes_end_inside_any_slice_and_every_byte_arrives_in_order() {
        for limit in 1..=7 {
            let (net, mut pair) = server_and_stranger();
            net.limit_io(limit);
            let parts = [&b"abc"[..], b"", b"defgh", b"i"];
            let mut slices = parts.map(IoSlice::new);
            let (mut left, mut got) = (&mut slices[..], Vec::new());
            while got.len() < 9 {
                if !left.is_empty() {
                    let n = pair.client.write_vectored(left).unwrap();
                    assert!(n <= limit);
                    IoSlice::advance_slices(&mut left, n);
                }
                let mut buf = [0; 100];
                if let Ok(n) = pair.server.read(&mut buf) {
                    got.extend_from_slice(&buf[..n]);
                }
            }
            assert_eq!(got, b"abcdefghi", "limit {limit}");
        }
    }

    #[test]
    fn the_end_of_a_stream_comes_with_its_last_bytes_and_has_no_second_event() {
        let (_, mut pair) = server_and_stranger();
        pair.client.write(b"bye").unwrap();
        pair.client.shutdown_write().unwrap();
        pair.wait(SERVER, ReadyFlags::READABLE | ReadyFlags::READ_CLOSED);
        let mut buf = [0; 100];
        assert_eq!(pair.server.read(&mut buf).unwrap(), 3);
        assert!(pair.now().is_empty());
        assert_eq!(pair.server.read(&mut buf).unwrap(), 0);
        assert_eq!(pair.server.write(b"the other way is open").unwrap(), 21);
        assert_eq!(kind_of(pair.client.write(b"x")), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn closing_with_unread_bytes_resets_and_a_reset_destroys_what_was_not_read() {
        let (net, pair) = server_and_stranger();
        let peer = net.dial(addr()).unwrap();
        let (mut stream, _) = pair.listener.accept().unwrap();
        pair.poller.register_stream(&mut stream, 7).unwrap();
        peer.write(b"nobody reads this").unwrap();
        stream.write(b"and so this is lost").unwrap();
        drop(stream);
        assert!(peer.was_reset());
        assert_eq!(peer.read(), b"");
        assert_eq!(
            peer.write(b"x").unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }

    #[test]
    fn a_write_to_somebody_gone_is_taken_and_then_answered_by_a_reset() {
        let (_, pair) = server_and_stranger();
        let Loop {
            mut poller,
            client,
            mut server,
            ..
        } = pair;
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0, "an orderly end");
        assert_eq!(server.write(b"x").unwrap(), 1);
        let mut out = Vec::new();
        poller.poll(None, &mut out).unwrap();
        assert!(
            out.iter()
                .any(|ready| ready.flags.contains(ReadyFlags::ERROR))
        );
        assert_eq!(kind_of(server.write(b"x")), io::ErrorKind::ConnectionReset);
        assert_eq!(kind_of(server.write(b"x")), io::ErrorKind::BrokenPipe);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn dn_06_nobody_there_is_refused_as_an_event_and_scripted_failures_at_once() {
        let net = Net::new(0);
        let system = System::Sim(net.clone());
        let mut poller = system.poller(8).unwrap();
        let mut stream = system.connect(addr(), None).unwrap();
        poller.register_stream(&mut stream, CLIENT).unwrap();
        let mut out = Vec::new();
        poller.poll(None, &mut out).unwrap();
        assert!(
            out[0]
                .flags
                .contains(ReadyFlags::WRITABLE | ReadyFlags::ERROR)
        );
        assert_eq!(
            stream.connected().unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        net.fail(Call::Connect, 2, io::ErrorKind::NetworkUnreachable);
        let error = system.connect(addr(), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        assert_eq!(
            net.dial(addr()).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn dn_04_a_slow_connect_takes_its_virtual_time_and_a_black_hole_for_ever() {
        let net = Net::new(0);
        let system = System::Sim(net.clone());
        let mut poller = system.poller(8).unwrap();
        let _listener = net.listen(addr()).unwrap();
        net.connect_delay(addr(), Duration::from_secs(3));
        let mut stream = system.connect(addr(), None).unwrap();
        poller.register_stream(&mut stream, CLIENT).unwrap();
        assert!(!stream.connected().unwrap());
        let mut out = Vec::new();
        poller
            .poll(Some(Duration::from_secs(60)), &mut out)
            .unwrap();
        assert_eq!(net.elapsed(), Duration::from_secs(3), "not a minute");
        assert!(stream.connected().unwrap());

        net.connect_delay(addr(), None);
        let mut stream = system.connect(addr(), None).unwrap();
        poller.register_stream(&mut stream, CLIENT).unwrap();
        poller
            .poll(Some(Duration::from_secs(60)), &mut out)
            .unwrap();
        assert_eq!((out.len(), net.elapsed()), (0, Duration::from_secs(63)));
        poller.poll(None, &mut out).unwrap();
        assert_eq!(
            net.elapsed(),
            Duration::from_secs(63),
            "nothing to wait for"
        );
    }

    #[test]
    fn the_nth_call_fails_and_the_one_after_it_does_not() {
        let (net, mut pair) = server_and_stranger();
        net.fail(Call::Write, net.calls(Call::Write) + 2, 105);
        pair.client.write(b"a").unwrap();
        assert_eq!(
            pair.client.write(b"b").unwrap_err().raw_os_error(),
            Some(105)
        );
        pair.client.write(b"c").unwrap();
        net.fail(
            Call::Read,
            net.calls(Call::Read) + 1,
            io::ErrorKind::Interrupted,
        );
        let mut buf = [0; 1];
        assert_eq!(
            pair.server.read(&mut buf).unwrap(),
            1,
            "an interruption is not noticed"
        );
        assert_eq!(&buf, b"a");
    }

    #[test]
    fn io_05_a_scripted_would_block_is_followed_by_an_event() {
        let (net, mut pair) = server_and_stranger();
        pair.client.write(b"a").unwrap();
        for _ in 0..100 {
            pair.wait(SERVER, ReadyFlags::READABLE);
            net.fail(
                Call::Read,
                net.calls(Call::Read) + 1,
                io::ErrorKind::WouldBlock,
            );
            assert!(pair.server.read(&mut [0; 1]).is_err());
        }
        pair.wait(SERVER, ReadyFlags::READABLE);
        assert_eq!(pair.server.read(&mut [0; 1]).unwrap(), 1);
    }

    #[test]
    fn dn_01_names_have_addresses_or_errors_or_keep_one_waiting() {
        let net = Net::new(0);
        let system = System::Sim(net.clone());
        let mut poller = system.poller(8).unwrap();
        let mut resolver = system.resolver(poller.waker(9).unwrap());
        net.name("good", [addr().ip()]);
        net.name("slow", [addr().ip()]);
        net.name_delay("slow", Duration::from_secs(5));
        net.name_fails("bad", io::ErrorKind::TimedOut);
        net.name("never", []);
        net.name_delay("never", None);
        for (id, host) in (1..).zip(["slow", "good", "bad", "unknown", "192.0.2.1", "never"]) {
            resolver.start(id, host, 80).unwrap();
        }
        let mut out = Vec::new();
        poller.poll(None, &mut out).unwrap();
        assert_eq!(
            out,
            [Ready {
                token: 9,
                flags: ReadyFlags::READABLE
            }],
            "wakes are one"
        );
        let kinds: Vec<_> = resolver
            .drain()
            .into_iter()
            .map(|r| (r.id, r.result.map_err(|error| error.kind())))
            .collect();
        let found = || Ok(vec![addr()]);
        assert_eq!(kinds[0], (2, found()));
        assert_eq!(kinds[1], (3, Err(io::ErrorKind::TimedOut)));
        assert_eq!(kinds[2], (4, Err(io::ErrorKind::NotFound)));
        assert_eq!(kinds[3], (5, found()));
        poller.poll(None, &mut out).unwrap();
        assert_eq!(net.elapsed(), Duration::from_secs(5));
        assert_eq!(resolver.drain()[0].id, 1);
    }

    #[test]
    fn a_small_event_buffer_is_reported_full_and_the_rest_comes_next() {
        let net = Net::new(0);
        let system = System::Sim(net.clone());
        let mut poller = system.poller(2).unwrap();
        let _server = net.listen(addr()).unwrap();
        let mut streams: Vec<Stream> = (0..3)
            .map(|_| system.connect(addr(), None).unwrap())
            .collect();
        for (token, stream) in streams.iter_mut().enumerate() {
            poller.register_stream(stream, token).unwrap();
        }
        let mut out = Vec::new();
        assert!(poller.poll(None, &mut out).unwrap());
        assert_eq!(
            out.iter().map(|ready| ready.token).collect::<Vec<_>>(),
            [0, 1]
        );
        assert!(!poller.poll(None, &mut out).unwrap());
        assert_eq!(out[0].token, 2);
    }

    #[test]
    fn a_seed_gives_one_order_of_events_and_seeds_differ() {
        let order = |seed| {
            let net = Net::new(seed);
            let system = System::Sim(net.clone());
            let mut poller = system.poller(100).unwrap();
            let _server = net.listen(addr()).unwrap();
            let mut streams: Vec<Stream> = (0..50)
                .map(|_| system.connect(addr(), None).unwrap())
                .collect();
            for (token, stream) in streams.iter_mut().enumerate() {
                poller.register_stream(stream, token).unwrap();
            }
            let mut out = Vec::new();
            poller.poll(None, &mut out).unwrap();
            let random = system.random().unwrap().u64();
            (
                out.iter().map(|ready| ready.token).collect::<Vec<_>>(),
                random,
            )
        };
        assert_eq!(order(5), order(5));
        assert_ne!(order(5), order(6));
        assert_eq!(order(0).0, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_listener_that_closes_resets_those_it_had_not_accepted() {
        let net = Net::new(0);
        let server = net.listen(addr()).unwrap();
        let waiting = net.dial(addr()).unwrap();
        assert_eq!(
            net.listen(addr()).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(server);
        assert!(waiting.was_reset());
        let again = net.listen(addr()).unwrap();
        let peer = net.dial(addr()).unwrap();
        let accepted = again.accept().unwrap();
        assert_eq!(accepted.peer_addr(), peer.local_addr());
        peer.reset();
        assert!(accepted.was_reset());
    }

    #[test]
    fn nothing_is_left_when_everybody_has_gone() {
        let (net, pair) = server_and_stranger();
        let peer = net.dial(addr()).unwrap();
        peer.write(b"x").unwrap();
        drop((pair, peer));
        let world = net.lock();
        assert_eq!(
            (world.ends.len(), world.listeners.len(), world.pollers.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_socket_of_the_system_is_not_registered_with_a_simulation() {
        let (_, pair) = server_and_stranger();
        let mut real = System::Os
            .bind("127.0.0.1:0".parse().unwrap(), Default::default())
            .unwrap();
        let error = pair.poller.register_listener(&mut real, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    fn server_and_stranger() -> (Net, Loop) {
        let net = Net::new(0);
        let pair = Loop::on(&System::Sim(net.clone()), ADDR);
        (net, pair)
    }

    fn kind_of(result: io::Result<usize>) -> io::ErrorKind {
        result.expect_err("it has to fail").kind()
    }

    fn addr() -> SocketAddr {
        ADDR.parse().unwrap()
    }
}
