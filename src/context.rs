//! The owner: vhosts, listeners, protocols, client connections, shutdown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::arena::Arena;
use crate::client::ClientConnectInfo;
use crate::config::{ContextConfig, ListenConfig, NamePolicy, PlaintextPolicy, VhostConfig};
use crate::conn::{Conn, STASHED_HEADER};
use crate::error::{ConnectError, ContextError, Gone, VhostError};
use crate::fetch::{
    BoundClient, FetchDispatch, FetchError, FetchInfo, Fetches, HttpClientHandle, HttpClientHandler,
};
use crate::handler::{BoundHandler, HttpDispatch, HttpHandler};
use crate::hook::{ChainSlot, Hook, HookDispatch, HookPlace};
use crate::http::client::PoolMetrics;
use crate::id::{
    FetchId, HandlerHandle, HookHandle, ProtocolHandle, TimerId, TimerTag, Token, VhostId, WsiId,
};
use crate::inner::{Command, Inner, Out, Owner, TimerKind, Vhost};
use crate::net::System;
use crate::net::clock::Clock;
use crate::net::listen::{ListenOptions, Listener, SpareDescriptor};
use crate::net::poller::Poller;
use crate::net::resolve::Resolver;
use crate::pool::BufferPool;
use crate::protocol::{Bound, ContextObserver, Dispatch, Protocol};
use crate::service::Turn;
use crate::vhost;
use crate::waker::CancelService;
use crate::ws::RecvPool;
#[cfg(feature = "deflate")]
use crate::ws::deflate::InflaterPool;
use crate::wsi::Cx;

/// The loop and the owner of everything in it.
///
/// A context is used by one thread at a time, which the compiler enforces: it is `Send`, and every
/// call that does something takes `&mut self`. The exception is [`CancelService`], which wakes it
/// from anywhere.
///
/// Dropping a context ends everything: every established connection gets its `on_closed`, every
/// client's attempt its `on_connect_error`. No Close frames are sent then; for that, see
/// [`Context::shutdown`].
///
/// A context belongs to the process that made it. All of its descriptors are closed on exec. After a
/// fork without exec the child must not use it, nor drop it: both processes have the same sockets
/// and the same selector, TLS would encrypt twice with the same keys, and the threads that look up
/// names are the parent's. Fork first, and make one context in each process.
///
/// ```
/// use std::time::Duration;
/// use wsloop::{Close, Context, ContextConfig, Established, Message, Protocol, VhostConfig, Wsi};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     type Session = ();
///
///     fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
///         Ok(())
///     }
///
///     fn on_message(&mut self, wsi: &mut Wsi<'_>, _: &mut (), message: Message<'_>) -> Result<(), Close> {
///         wsi.send(message)?;
///         Ok(())
///     }
/// }
///
/// let mut context = Context::new(ContextConfig::new())?;
/// let address: std::net::SocketAddr = "127.0.0.1:0".parse()?;
/// let vhost = context.create_vhost(VhostConfig::new("localhost").listen(address).protocol("echo", Echo))?;
/// println!("listening on {:?}", context.listen_addrs(vhost));
/// context.service(Some(Duration::ZERO))?; // one turn; `context.run()` for all of them
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Context {
    pub(crate) inner: Inner,
    pub(crate) parts: Parts,
    pub(crate) turn: Turn,
    /// The connection of a calm visit. When a turn begins it is still there only if its callback
    /// has panicked.
    pub(crate) air: Option<Box<Conn>>,
    pub(crate) clock: Clock,
    pub(crate) cancel: CancelService,
}

/// What the loop needs beside the connections: sockets, protocols, buffers.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) system: System,
    pub(crate) poller: Poller,
    pub(crate) resolver: Resolver,
    pub(crate) listeners: Arena<ListenerSlot>,
    pub(crate) protocols: Slab<Keyed<dyn Dispatch>>,
    pub(crate) handlers: Slab<Keyed<dyn HttpDispatch>>,
    pub(crate) hooks: Slab<ChainSlot>,
    pub(crate) http_clients: Slab<Keyed<dyn FetchDispatch>>,
    pub(crate) observer: Box<dyn ContextObserver>,
    /// For messages that are being assembled.
    pub(crate) pool: RecvPool,
    #[cfg(feature = "deflate")]
    pub(crate) takeovers: crate::compression::Takeovers,
    /// The loop's receive buffer, with room for a stashed header in front.
    pub(crate) buffer: Vec<u8>,
    buffer_len: usize,
    pub(crate) turn_budget: usize,
    pub(crate) spare: SpareDescriptor,
    /// Which attempt waits for which answer of the resolver.
    pub(crate) lookups: BTreeMap<u64, WsiId>,
    next_lookup: u64,
    /// What all TLS settings have in common; made with the first of them.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::TlsEnv>,
    #[cfg(feature = "tls")]
    key_log: Option<crate::tls::SharedKeyLog>,
    /// Where records are opened into, with room for a stashed header in front.
    #[cfg(feature = "tls")]
    pub(crate) plain: Vec<u8>,
    /// The name that the last TLS session was for.
    #[cfg(feature = "tls")]
    pub(crate) last_name: Option<std::sync::Arc<crate::tls::session::Name>>,
}

/// [`Parts::plain`] with nothing but the room for a stashed header, whatever the last user left.
#[cfg(feature = "tls")]
#[inline(always)]
pub(crate) fn ready_plain(plain: &mut Vec<u8>) -> &mut Vec<u8> {
    if plain.len() < STASHED_HEADER {
        plain.resize(STASHED_HEADER, 0);
    }
    plain.truncate(STASHED_HEADER);
    plain
}

#[derive(Debug)]
pub(crate) struct ListenerSlot {
    pub(crate) listener: Listener,
    pub(crate) address: SocketAddr,
    pub(crate) vhosts: Vec<VhostId>,
    /// Whose connections they are before, or without, a `Host` that says otherwise.
    pub(crate) default: VhostId,
    pub(crate) explicit_default: bool,
    pub(crate) state: ListenerState,
    pub(crate) tls: Option<PlaintextPolicy>,
    pub(crate) names: NamePolicy,
}

impl ListenerSlot {
    /// The vhost that is named for a host, and whether exactly (else by `*.`).
    pub(crate) fn best_vhost(&self, vhosts: &Arena<Vhost>, host: &str) -> Option<(VhostId, bool)> {
        let fit = |id: &VhostId| vhosts.get(id.index, id.generation)?.fit(host);
        let fits = self.vhosts.iter().filter_map(|id| Some((fit(id)?, *id)));
        let (fit, id) = fits.max()?;
        Some((id, fit == usize::MAX))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerState {
    Active,
    /// Waits for TLS handshakes to end.
    Crowded,
    /// Waits for connections of the context to end.
    Full,
    /// Waits for its timer.
    Resting,
}

/// What the application gave to a vhost, and the key by which its handle finds it.
#[derive(Debug)]
pub(crate) struct Keyed<D: ?Sized> {
    pub(crate) key: u64,
    pub(crate) dispatch: Box<D>,
}

impl<D: ?Sized> Keyed<D> {
    /// The one with that key, and its index.
    fn find(slots: &mut Slab<Self>, key: u64) -> Option<(u32, &mut D)> {
        let (index, slot) = slots.iter_mut().find(|(_, slot)| slot.key == key)?;
        Some((u32::try_from(index).ok()?, &mut *slot.dispatch))
    }
}

impl Parts {
    /// The receive buffer, for the time of one visit. One that a panic lost is made again.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            return vec![0; self.buffer_len + STASHED_HEADER];
        }
        buffer
    }

    /// The buffer for opened records, for the time of one read.
    #[cfg(feature = "tls")]
    pub(crate) fn take_plain(&mut self) -> Vec<u8> {
        ready_plain(&mut self.plain);
        std::mem::take(&mut self.plain)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn put_plain(&mut self, mut plain: Vec<u8>) {
        plain.truncate(STASHED_HEADER);
        self.plain = plain;
    }

    /// The environment of TLS settings.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_env(&mut self) -> Result<crate::tls::TlsEnv, crate::tls::TlsConfigError> {
        if let Some(env) = &self.tls {
            return Ok(env.clone());
        }
        let mut env = crate::tls::TlsEnv::system()?;
        env.key_log.clone_from(&self.key_log);
        self.tls = Some(env.clone());
        Ok(env)
    }

    /// Everybody who is told of a wake.
    pub(crate) fn owners(&self) -> Vec<Owner> {
        // As many of any kind as a u32 counts do not fit into memory.
        let short = |index| u32::try_from(index).unwrap_or(u32::MAX);
        let protocols = self
            .protocols
            .iter()
            .map(|(at, _)| Owner::Protocol(short(at)));
        let handlers = self
            .handlers
            .iter()
            .map(|(at, _)| Owner::Handler(short(at)));
        let clients = self
            .http_clients
            .iter()
            .map(|(at, _)| Owner::HttpClient(short(at)));
        let hooks = self.hooks.iter().flat_map(|(chain, slot)| {
            let chain = short(chain);
            (0..slot.hooks.len()).map(move |at| Owner::Hook(HookPlace { chain, at }))
        });
        protocols
            .chain(handlers)
            .chain(clients)
            .chain(hooks)
            .collect()
    }

    pub(crate) fn hook_at(&mut self, place: HookPlace) -> Option<&mut dyn HookDispatch> {
        let chain = self.hooks.get_mut(place.chain as usize)?;
        let hook = chain.hooks.get_mut(place.at)?;
        Some(&mut *hook.dispatch)
    }

    fn hook_mut(&mut self, key: u64) -> Option<(HookPlace, &mut dyn HookDispatch)> {
        for (index, chain) in &mut self.hooks {
            let mut hooks = chain.hooks.iter_mut().enumerate();
            if let Some((at, hook)) = hooks.find(|(_, hook)| hook.key == key) {
                let chain = u32::try_from(index).ok()?;
                return Some((HookPlace { chain, at }, &mut *hook.dispatch));
            }
        }
        None
    }

    /// A number for a look-up that `id` makes.
    pub(crate) fn lookup_for(&mut self, id: WsiId) -> u64 {
        let number = self.next_lookup;
        self.next_lookup += 1;
        self.lookups.insert(number, id);
        number
    }
}

impl Context {
    /// Makes a context without vhosts.
    ///
    /// # Errors
    ///
    /// If the system gives no poller or no randomness.
    pub fn new(config: ContextConfig) -> Result<Self, ContextError> {
        Self::on(System::Os, config)
    }

    /// Makes a context on a simulated network, whose clock it lives by.
    ///
    /// # Errors
    ///
    /// None in practice; the signature is that of [`Context::new`].
    #[cfg(feature = "sim")]
    pub fn simulated(net: &crate::sim::Net, config: ContextConfig) -> Result<Self, ContextError> {
        Self::on(System::Sim(net.clone()), config)
    }

    fn on(system: System, config: ContextConfig) -> Result<Self, ContextError> {
        let clock = system.clock();
        let poller = system.poller(EVENTS)?;
        let wake = poller.waker(Token::Waker.pack())?;
        let resolver = system.resolver(wake.clone());
        let random = system.random()?;
        let mut date = String::new();
        clock.http_date(&mut date);
        let inner = Inner {
            conns: Arena::new(),
            vhosts: Arena::new(),
            fetches: Fetches::new(),
            out: Out::new(clock.now(), date, spare_buffers(), random),
            commands: Default::default(),
            per_ip: BTreeMap::new(),
            max_connections: config.max_connections,
            handshakes: 0,
            max_handshakes: config.max_tls_handshakes,
            shutting_down: false,
            lifted: None,
        };
        let pool = recv_pool(&config);
        let parts = Parts {
            system,
            poller,
            resolver,
            listeners: Arena::new(),
            protocols: Slab::new(),
            handlers: Slab::new(),
            hooks: Slab::new(),
            http_clients: Slab::new(),
            observer: config.observer,
            pool,
            #[cfg(feature = "deflate")]
            takeovers: crate::compression::Takeovers::new(config.max_takeovers),
            buffer: Vec::new(),
            buffer_len: config.receive_buffer,
            turn_budget: config.turn_budget,
            spare: SpareDescriptor::new(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            key_log: config.key_log,
            #[cfg(feature = "tls")]
            plain: Vec::new(),
            #[cfg(feature = "tls")]
            last_name: None,
        };
        Ok(Self {
            inner,
            turn: Turn::new(parts.poller.room(), config.max_connections_per_ip),
            parts,
            air: None,
            clock,
            cancel: CancelService::new(wake),
        })
    }

    /// Makes a vhost: checks its description, binds its listeners, takes its protocols.
    ///
    /// # Errors
    ///
    /// [`VhostError`] says what is wrong; nothing was made then.
    pub fn create_vhost(&mut self, config: VhostConfig) -> Result<VhostId, VhostError> {
        let id = self.inner.announce_vhost().ok_or(VhostError::TooMany)?;
        let outcome = vhost::create(&mut self.inner, &mut self.parts, id, config);
        if outcome.is_err() {
            self.inner.vhosts.remove(id.index, id.generation);
        }
        outcome.map(|()| id)
    }

    /// Destroys a vhost: its listeners close now, its connections get a Close frame with 1001,
    /// and it is gone when the last of them has ended.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn destroy_vhost(&mut self, id: VhostId) -> Result<(), Gone> {
        self.inner.vhost(id).ok_or(Gone)?;
        self.close_vhost(id);
        self.inner.commands.push_back(Command::DestroyVhost(id));
        Ok(())
    }

    /// Where a vhost listens, in the order of its configuration; with the port that the system
    /// chose for port 0.
    pub fn listen_addrs(&self, id: VhostId) -> Vec<SocketAddr> {
        let listeners = self.inner.vhost(id).map(|vhost| vhost.listeners.as_slice());
        let slots = listeners.unwrap_or_default().iter();
        slots
            .filter_map(|&(index, generation)| self.parts.listeners.get(index, generation))
            .map(|slot| slot.address)
            .collect()
    }

    /// The protocol object behind a handle, between turns; `None` when its vhost is gone.
    pub fn protocol<P: Protocol>(&mut self, handle: ProtocolHandle<P>) -> Option<&mut P> {
        let (_, dispatch) = Keyed::find(&mut self.parts.protocols, handle.key)?;
        let bound: &mut Bound<P> = dispatch.as_any().downcast_mut()?;
        Some(&mut bound.protocol)
    }

    /// Runs `f` as if it were a callback of that protocol: with the object and the view of the
    /// loop that callbacks have, so that it can reach the protocol's connections. What it sends
    /// leaves with the next [`Context::service`]. `None` when the vhost is gone.
    pub fn with_protocol<P: Protocol, R>(
        &mut self,
        handle: ProtocolHandle<P>,
        f: impl FnOnce(&mut P, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        self.read_clock();
        let (index, dispatch) = Keyed::find(&mut self.parts.protocols, handle.key)?;
        let bound: &mut Bound<P> = dispatch.as_any().downcast_mut()?;
        let mut cx = Cx::new(&mut self.inner, Owner::Protocol(index));
        Some(f(&mut bound.protocol, &mut cx))
    }

    /// The HTTP handler behind a handle, between turns; `None` when its vhost is gone.
    pub fn handler<H: HttpHandler>(&mut self, handle: HandlerHandle<H>) -> Option<&mut H> {
        let (_, dispatch) = Keyed::find(&mut self.parts.handlers, handle.key)?;
        let bound: &mut BoundHandler<H> = dispatch.as_any().downcast_mut()?;
        Some(&mut bound.handler)
    }

    /// As [`Context::with_protocol`], for an HTTP handler.
    pub fn with_handler<H: HttpHandler, R>(
        &mut self,
        handle: HandlerHandle<H>,
        f: impl FnOnce(&mut H, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        self.read_clock();
        let (index, dispatch) = Keyed::find(&mut self.parts.handlers, handle.key)?;
        let bound: &mut BoundHandler<H> = dispatch.as_any().downcast_mut()?;
        let mut cx = Cx::new(&mut self.inner, Owner::Handler(index));
        Some(f(&mut bound.handler, &mut cx))
    }

    /// The hook behind a handle, between turns; `None` when its vhost is gone.
    pub fn hook<H: Hook>(&mut self, handle: HookHandle<H>) -> Option<&mut H> {
        let (_, hook) = self.parts.hook_mut(handle.key)?;
        hook.as_any().downcast_mut()
    }

    /// As [`Context::with_protocol`], for a hook.
    pub fn with_hook<H: Hook, R>(
        &mut self,
        handle: HookHandle<H>,
        f: impl FnOnce(&mut H, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        self.read_clock();
        let (place, hook) = self.parts.hook_mut(handle.key)?;
        let hook = hook.as_any().downcast_mut()?;
        let mut cx = Cx::new(&mut self.inner, Owner::Hook(place));
        Some(f(hook, &mut cx))
    }

    /// The HTTP client handler behind a handle, between turns; `None` when its vhost is gone.
    pub fn http_client<H: HttpClientHandler>(
        &mut self,
        handle: HttpClientHandle<H>,
    ) -> Option<&mut H> {
        let (_, dispatch) = Keyed::find(&mut self.parts.http_clients, handle.key)?;
        let bound: &mut BoundClient<H> = dispatch.as_any().downcast_mut()?;
        Some(&mut bound.0)
    }

    /// As [`Context::with_protocol`], for an HTTP client handler.
    pub fn with_http_client<H: HttpClientHandler, R>(
        &mut self,
        handle: HttpClientHandle<H>,
        f: impl FnOnce(&mut H, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        self.read_clock();
        let (index, dispatch) = Keyed::find(&mut self.parts.http_clients, handle.key)?;
        let bound: &mut BoundClient<H> = dispatch.as_any().downcast_mut()?;
        let mut cx = Cx::new(&mut self.inner, Owner::HttpClient(index));
        Some(f(&mut bound.0, &mut cx))
    }

    /// Begins an HTTP request as a client of a vhost; see [`Cx::fetch`].
    ///
    /// # Errors
    ///
    /// As [`Cx::fetch`].
    pub fn fetch(&mut self, vhost: VhostId, info: FetchInfo) -> Result<FetchId, FetchError> {
        self.read_clock();
        self.inner.fetch(vhost, info)
    }

    /// What the pool of a vhost's HTTP client holds now, and what it did.
    ///
    /// # Errors
    ///
    /// [`VhostError::Gone`] if there is no such vhost.
    pub fn http_pool_metrics(&self, id: VhostId) -> Result<PoolMetrics, VhostError> {
        self.inner.http_pool_metrics(id)
    }

    /// Begins a client connection on a vhost; see [`Cx::client_connect`]. The next
    /// [`Context::service`] dials.
    ///
    /// # Errors
    ///
    /// If nothing can be dialled at all: unknown vhost or protocol, no client TLS or a name that TLS
    /// cannot use, too many connections, shutdown. No callback follows then.
    pub fn client_connect(
        &mut self,
        vhost: VhostId,
        info: ClientConnectInfo,
    ) -> Result<WsiId, ConnectError> {
        self.read_clock();
        self.inner.client_connect(vhost, info)
    }

    /// A handle that wakes this context from any thread.
    pub fn cancel_service_handle(&self) -> CancelService {
        self.cancel.clone()
    }

    /// Arms a timer that belongs to no protocol;
    /// [`ContextObserver::on_timer`] gets the tag. `None` for a time that never comes
    /// (`Duration::MAX`).
    pub fn set_timer(&mut self, after: Duration, tag: TimerTag) -> Option<TimerId> {
        self.read_clock();
        self.inner
            .arm(after, TimerKind::Free(Owner::Observer, tag))
            .map(TimerId)
    }

    /// Cancels a timer; `false` if it has fired or was cancelled.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.inner.out.timers.cancel(timer.0)
    }

    /// When [`Context::service`] has to be called next although no event comes: for another loop
    /// that watches the descriptor of [`AsFd`]. A time that has passed says: now. `None`: only
    /// events matter.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_work() {
            return Some(self.inner.out.now);
        }
        let out = &self.inner.out;
        out.epoch.instant(out.next_deadline()?)
    }

    /// Connections of the context, in whatever state: accepted, dialling, established, closing.
    pub fn connections(&self) -> usize {
        self.inner.conns.len()
    }

    /// TLS handshakes of the context as a server that are in progress, those that wait for their
    /// first byte included; see
    /// [`ContextConfig::max_tls_handshakes`](crate::ContextConfig::max_tls_handshakes).
    #[cfg(feature = "tls")]
    pub const fn tls_handshakes(&self) -> usize {
        self.inner.handshakes
    }

    /// Bytes of memory that the library holds for its connections, with what they share for
    /// compression; sessions not counted.
    pub fn memory(&self) -> usize {
        let conns = self.inner.conns.iter();
        let owned: usize = conns.map(|(_, _, conn)| conn.memory()).sum();
        owned + self.compression_memory()
    }

    /// The view of the loop without a protocol.
    pub(crate) fn bare_cx(inner: &mut Inner) -> Cx<'_> {
        Cx::new(inner, Owner::Observer)
    }
}

#[cfg(unix)]
impl AsFd for Context {
    /// The poller's own descriptor: readable when [`Context::service`] has something to do. Watch
    /// it for reading, level-triggered, and do not read from it.
    ///
    /// # Panics
    ///
    /// On a simulated network, and on systems where mio polls with poll(2): they have none.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.parts
            .poller
            .as_fd()
            .expect("no descriptor: a simulated network, or a system with poll(2) only")
    }
}

/// What binding a listener takes.
pub(crate) fn listen_options(config: &ListenConfig) -> ListenOptions {
    ListenOptions {
        backlog: config.backlog,
        reuse_port: config.reuse_port,
        only_v6: Some(config.only_v6),
    }
}

/// What connections share for receiving.
fn recv_pool(config: &ContextConfig) -> RecvPool {
    #[cfg_attr(
        not(feature = "deflate"),
        expect(unused_mut, reason = "inflaters only")
    )]
    let mut pool = RecvPool::new(spare_buffers());
    #[cfg(feature = "deflate")]
    {
        pool.inflaters = InflaterPool::new(config.max_inflaters);
    }
    #[cfg(not(feature = "deflate"))]
    let _ = config;
    pool
}

/// The buffers that the loop keeps for the next connection that needs one.
const fn spare_buffers() -> BufferPool {
    BufferPool::new(POOLED, POOLED_CAPACITY).with_max_total(POOLED_TOTAL)
}

/// Events of one poll.
const EVENTS: usize = 1024;
/// How many of them: a broadcast of a short message takes one for each of its receivers.
const POOLED: usize = 1024;
/// The largest one that is kept: what a full receive buffer makes of pipelined messages fits.
const POOLED_CAPACITY: usize = 1024 * 1024;
/// All of them together.
const POOLED_TOTAL: usize = 8 * 1024 * 1024;
