//! What can be set, with its defaults; checked once, when the thing it configures is made.

use std::marker::PhantomData;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::client::{ArgumentError, ArgumentProblem, check_name};
use crate::context::Keyed;
use crate::error::VhostError;
use crate::fetch::{BoundClient, FetchDispatch, HttpClientHandle, HttpClientHandler};
use crate::hook::HookChain;
use crate::http::client::PoolConfig;
use crate::http::head::HeadLimits;
use crate::id::ProtocolHandle;
use crate::inner::Home;
use crate::mount::Mount;
use crate::protocol::{Bound, ContextObserver, Dispatch, Protocol};
use crate::retry::RetryPolicy;
#[cfg(feature = "deflate")]
use crate::ws::deflate::DeflateConfig;
use crate::ws::recv::{Delivery, RecvLimits};
use crate::ws::send::LEND_FROM;

/// How a [`Context`](crate::Context) is made.
///
/// ```
/// let config = wsloop::ContextConfig::new().max_connections(10_000);
/// let context = wsloop::Context::new(config)?;
/// # Ok::<(), wsloop::ContextError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct ContextConfig {
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: Option<u32>,
    pub(crate) receive_buffer: usize,
    pub(crate) turn_budget: usize,
    #[cfg(feature = "deflate")]
    pub(crate) max_inflaters: usize,
    #[cfg(feature = "deflate")]
    pub(crate) max_takeovers: usize,
    pub(crate) observer: Box<dyn ContextObserver>,
    #[cfg(feature = "tls")]
    pub(crate) key_log: Option<crate::tls::SharedKeyLog>,
    pub(crate) max_tls_handshakes: usize,
}

impl ContextConfig {
    /// The defaults: 100 000 connections, no limit per address, 128 KiB receive buffer, 1 MiB
    /// read per connection and turn, 1024 TLS handshakes at once, nobody observing.
    pub fn new() -> Self {
        Self {
            max_connections: 100_000,
            max_connections_per_ip: None,
            receive_buffer: 128 * 1024,
            turn_budget: 1024 * 1024,
            #[cfg(feature = "deflate")]
            max_inflaters: 256,
            #[cfg(feature = "deflate")]
            max_takeovers: 1024,
            observer: Box::new(()),
            #[cfg(feature = "tls")]
            key_log: None,
            max_tls_handshakes: 1024,
        }
    }

    /// How many connections there may be at once: accepted and dialled, in whatever state, the
    /// upgraded ones included. At the cap nothing is accepted (peers wait in the listeners'
    /// backlogs) and `client_connect` answers with an error. A connection that a
    /// [`RetryPolicy`] dials in place of a lost one has that one's place, also while the last
    /// words of the lost one are still leaving. Default 100 000.
    pub const fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How many accepted connections one IP address may have at once; further ones are closed
    /// without an answer. Default: no limit.
    pub const fn max_connections_per_ip(mut self, connections: u32) -> Self {
        self.max_connections_per_ip = Some(connections);
        self
    }

    /// Size in bytes of the one receive buffer of the loop, clamped to 4 KiB..16 MiB. A
    /// connection owns no receive buffer while it is idle. Default 128 KiB.
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes.clamp(4 * 1024, 16 * 1024 * 1024);
        self
    }

    /// How many bytes are read from one connection before the others have their turn, and how
    /// many its compressed messages are inflated to; at least 4 KiB. What the last read brings, up
    /// to the receive buffer, is taken whole. Default 1 MiB.
    pub fn turn_budget(mut self, bytes: usize) -> Self {
        self.turn_budget = bytes.max(4 * 1024);
        self
    }

    /// How many connections without context takeover may be in the middle of receiving a
    /// compressed message at a time, each with an inflater of 48 KB of the loop. Further ones wait
    /// for their turn; one that has waited for as long as a message may take
    /// ([`Timeouts::message`]) is closed with 1013. Default 256.
    #[cfg(feature = "deflate")]
    pub fn max_inflaters(mut self, inflaters: usize) -> Self {
        self.max_inflaters = inflaters.max(1);
        self
    }

    /// How many connections may keep windows between their messages (context takeover): up to
    /// 430 KB each. Clients that come when there are so many are answered without. Client
    /// connections are counted, and not held back. Default 1024.
    #[cfg(feature = "deflate")]
    pub fn max_context_takeovers(mut self, connections: usize) -> Self {
        self.max_takeovers = connections;
        self
    }

    /// Who is told about what no protocol owns: refused connections, listeners in trouble,
    /// free-standing timers. Default: nobody.
    pub fn observer(mut self, observer: impl ContextObserver) -> Self {
        self.observer = Box::new(observer);
        self
    }
}

#[cfg(feature = "tls")]
impl ContextConfig {
    /// Tells the secrets of all TLS connections of the context, of both sides, to `log`: a closure
    /// or a [`KeyLogFile`](crate::tls::KeyLogFile). For debugging, since whoever has the secrets
    /// reads the traffic. Default: nobody is told, and the environment variable `SSLKEYLOGFILE` is
    /// not looked at.
    ///
    /// ```no_run
    /// use wsloop::{ContextConfig, tls::KeyLogFile};
    ///
    /// let mut config = ContextConfig::new();
    /// if let Some(path) = std::env::var_os("SSLKEYLOGFILE") {
    ///     config = config.key_log(KeyLogFile::append(path)?);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn key_log(mut self, log: impl crate::tls::KeyLog + 'static) -> Self {
        self.key_log = Some(crate::tls::SharedKeyLog::new(log));
        self
    }

    /// How many TLS handshakes there may be at once as a server, from the accept until the
    /// handshake is complete or has failed, or the first byte shows that it is none; at least 1. At
    /// the cap TLS listeners accept nobody: peers wait in their backlogs, and nothing is computed
    /// for them. Default 1024.
    ///
    /// Silent peers take their places for as long as [`Timeouts::head`] and [`Timeouts::tls`] allow:
    /// [`max_connections_per_ip`](Self::max_connections_per_ip) keeps one address from taking all.
    pub fn max_tls_handshakes(mut self, handshakes: usize) -> Self {
        self.max_tls_handshakes = handshakes.max(1);
        self
    }
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Caps on what one connection of a vhost may cost. Every one is enforced, and has a test.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Request and response heads: 16 KiB, 100 headers, 8 KiB of request target. Until a request
    /// on a plain listener names its host, the limits of the listener's default vhost hold; those of
    /// the vhost that it names hold besides.
    pub head: HeadLimits,
    /// A message, received or sent, in bytes. A longer one that is received closes the connection
    /// with 1009. Default 1 MiB.
    pub message_bytes: usize,
    /// A received frame's payload, in bytes; more closes with 1009. Default: no limit but that of
    /// the message.
    pub frame_bytes: u64,
    /// Fragments of a received message; more closes the connection. Default 1024.
    pub fragments: u32,
    /// Bytes that wait to be sent. When reached, sends answer `Full`; an empty queue accepts any
    /// message within the message limit. Default 1 MiB.
    pub output_bytes: usize,
    /// `on_writable` comes when at most this many bytes wait. Default 64 KiB.
    pub output_low_water: usize,
    /// Bytes a second that a peer has to take of what waits for it, on average. Who lags behind that
    /// for [`Timeouts::write`] ends the connection: with nothing taken at all after that time, with
    /// every `output_rate` bytes a second later, and at the latest when as much time has passed as
    /// what waits takes at this rate. It begins anew when nothing waits any more. 0 is no limit.
    /// Default 256.
    pub output_rate: usize,
    /// Bytes of unsent pongs; past that only the latest ping is answered (RFC 6455 5.5.3).
    /// Default 4 KiB.
    pub pong_bytes: usize,
    /// Connections of the vhost, accepted and dialled. An upgrade over the cap is answered 503.
    /// Default: as many as the context's.
    pub connections: usize,
    /// The longest body of a request to an HTTP handler, in bytes; a longer one is refused with
    /// 413. A [`Mount`](crate::Mount::body_bytes) may allow another length. Default 1 MiB.
    pub body_bytes: u64,
    /// The lowest rate, in bytes per second, at which a request's body may come after
    /// [`Timeouts::body`]; a slower one is refused with 408. Default 1024.
    pub body_rate: u32,
    /// Body of a refused upgrade that a client keeps, in bytes. Default 4 KiB.
    pub refusal_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            message_bytes: 1024 * 1024,
            frame_bytes: u64::MAX,
            fragments: 1024,
            output_bytes: 1024 * 1024,
            output_low_water: 64 * 1024,
            output_rate: 256,
            pong_bytes: 4 * 1024,
            connections: usize::MAX,
            body_bytes: 1024 * 1024,
            body_rate: 1024,
            refusal_body: 4 * 1024,
        }
    }
}

impl Limits {
    /// Sets the limit for messages, see [`Limits::message_bytes`].
    #[must_use]
    pub const fn with_message_bytes(mut self, bytes: usize) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// Sets the cap of the output queue, see [`Limits::output_bytes`].
    #[must_use]
    pub const fn with_output_bytes(mut self, bytes: usize) -> Self {
        self.output_bytes = bytes;
        self
    }

    /// Sets the number of fragments, see [`Limits::fragments`].
    #[must_use]
    pub const fn with_fragments(mut self, fragments: u32) -> Self {
        self.fragments = fragments;
        self
    }
}

/// Deadlines. `Duration::MAX` is never; zero has always passed, so that what it is about always fails.
///
/// Each is a total, which bytes that trickle in do not extend, but for [`write`](Self::write): that
/// is about a peer that takes nothing, and [`Limits::output_rate`] about one that takes too little.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// Client: name resolution. Default 5 s.
    pub dns: Duration,
    /// Client: TCP connect, all addresses together. Default 10 s.
    pub tcp: Duration,
    /// The TLS handshake: of a client from the connected transport, of a server from the first byte.
    /// Default 10 s.
    pub tls: Duration,
    /// Client: from the established transport to the checked response. Default 15 s.
    pub response: Duration,
    /// Client: from the call to the established connection. Default: never, since its stages have
    /// theirs.
    pub connect: Duration,
    /// Server: from the accept to the complete request head. Default 10 s.
    pub head: Duration,
    /// Server: a request's body, from its head on; [`Limits::body_rate`] gives a long one more.
    /// Default 30 s.
    pub body: Duration,
    /// Server: from the complete request to the begin of its response; then 503. Default 60 s.
    pub respond: Duration,
    /// Server: an HTTP connection on which no request has begun, from when the response before it
    /// has left. Default 30 s.
    pub keep_alive: Duration,
    /// Server: a deferred verdict, where [`Accept::later`](crate::Accept::later) does not say.
    /// Default 15 s.
    pub verdict: Duration,
    /// The closing handshake, and after it the peer's end of stream. Default 5 s.
    pub close: Duration,
    /// A received message, from its first byte to its last. Default 60 s.
    pub message: Duration,
    /// Output of which the peer takes nothing; also how far it may lag behind
    /// [`Limits::output_rate`], and how long a peer that is gone is remembered for what it said
    /// before, see [`Wsi::pause_reading`](crate::Wsi::pause_reading). Default 30 s.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dns: Duration::from_secs(5),
            tcp: Duration::from_secs(10),
            tls: Duration::from_secs(10),
            response: Duration::from_secs(15),
            connect: Duration::MAX,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            respond: Duration::from_secs(60),
            keep_alive: Duration::from_secs(30),
            verdict: Duration::from_secs(15),
            close: Duration::from_secs(5),
            message: Duration::from_secs(60),
            write: Duration::from_secs(30),
        }
    }
}

/// One address to listen on.
#[derive(Clone, Debug)]
#[must_use]
pub struct ListenConfig {
    pub(crate) address: SocketAddr,
    pub(crate) backlog: i32,
    pub(crate) reuse_port: bool,
    pub(crate) only_v6: bool,
    /// What a TLS listener does with what is not TLS; `None` for a plain listener.
    pub(crate) tls: Option<PlaintextPolicy>,
    pub(crate) names: NamePolicy,
}

impl ListenConfig {
    /// Listens on `address`; port 0 lets the system choose, see
    /// [`Context::listen_addrs`](crate::Context::listen_addrs).
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            backlog: 1024,
            reuse_port: false,
            only_v6: true,
            tls: None,
            names: NamePolicy::ServeDefault,
        }
    }

    /// How many connections may wait to be accepted. Default 1024 (the system may lower it).
    pub const fn backlog(mut self, connections: i32) -> Self {
        self.backlog = connections;
        self
    }

    /// Shares the port with other sockets that set this too (`SO_REUSEPORT`): one context per
    /// thread, each with its own listener. Default off.
    pub const fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// Lets an IPv6 wildcard address serve IPv4 as well. Default off.
    pub const fn dual_stack(mut self) -> Self {
        self.only_v6 = false;
        self
    }
}

#[cfg(feature = "tls")]
impl ListenConfig {
    /// Speaks TLS: the first byte of a connection says what it is, and what is not TLS is treated
    /// as `plaintext` says. Every vhost on the listener needs
    /// [`server_tls`](VhostConfig::server_tls).
    pub const fn tls(mut self, plaintext: PlaintextPolicy) -> Self {
        self.tls = Some(plaintext);
        self
    }

    /// What happens to clients whose SNI names no vhost, or that send none. Default: the default
    /// vhost serves them.
    pub const fn names(mut self, policy: NamePolicy) -> Self {
        self.names = policy;
        self
    }
}

/// What a TLS listener does with a connection that does not begin with a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, unreachable_pub, reason = "TLS listeners only")
)]
pub enum PlaintextPolicy {
    /// Answers HTTP with a response that says so, and closes; closes what is neither, and names it in
    /// the reason.
    Reject,
    /// Serves it in the clear, on the same vhosts. Not together with a vhost that requires client
    /// certificates.
    Serve,
    /// Answers every request with a redirect to `https`.
    RedirectToHttps,
}

/// What a TLS listener does with clients that name no vhost of it (SNI, RFC 6066 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, unreachable_pub, reason = "TLS listeners only")
)]
pub enum NamePolicy {
    /// The default vhost serves them.
    #[default]
    ServeDefault,
    /// A name that no vhost has is refused with the alert `unrecognized_name`.
    RefuseUnknown,
    /// So is a client that sends no name.
    RefuseUnknownAndMissing,
}

impl From<SocketAddr> for ListenConfig {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

/// How a vhost is made: its names, where it listens, its protocols, its limits.
///
/// A vhost without a listener is for clients. Vhosts that listen on the same address share the
/// listener: each is described with the same [`ListenConfig`], the SNI of a TLS client chooses among
/// them, and without TLS the `Host` of a request.
#[derive(Debug)]
#[must_use]
pub struct VhostConfig {
    pub(crate) names: Vec<String>,
    pub(crate) default_vhost: bool,
    pub(crate) listen: Vec<ListenConfig>,
    pub(crate) inherited: Vec<TcpListener>,
    pub(crate) protocols: Vec<ProtocolConfig>,
    pub(crate) default_protocol: Option<String>,
    pub(crate) pages: Vec<Page>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Option<HookChain>,
    pub(crate) http_clients: Vec<Keyed<dyn FetchDispatch>>,
    pub(crate) http_pool: PoolConfig,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: RetryPolicy,
    #[cfg(feature = "deflate")]
    pub(crate) deflate: Option<DeflateConfig>,
    #[cfg(feature = "tls")]
    pub(crate) server_tls: Option<crate::tls::ServerTls>,
    #[cfg(feature = "tls")]
    pub(crate) client_tls: Option<crate::tls::ClientTls>,
    #[cfg(feature = "tls")]
    pub(crate) traces_tls: bool,
}

#[cfg(feature = "tls")]
impl VhostConfig {
    /// The certificate and the rules for clients that come over TLS.
    pub fn server_tls(mut self, tls: crate::tls::ServerTls) -> Self {
        self.server_tls = Some(tls);
        self
    }

    /// Whom its client connections trust over TLS, and what they show: `wss` URLs need it.
    pub fn client_tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.client_tls = Some(tls);
        self
    }

    /// Tells [`ContextObserver::on_tls_handshake`] about every TLS handshake of the vhost, step by
    /// step.
    pub fn trace_tls(mut self) -> Self {
        self.traces_tls = true;
        self
    }
}

impl VhostConfig {
    /// A vhost of that name: a host name (`"a.test"`), a whole domain (`"*.a.test"`) or an IP
    /// address. Names are compared without regard to case. The first vhost of a listener also
    /// serves what no other vhost is named for.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            names: vec![name.into()],
            default_vhost: false,
            listen: Vec::new(),
            inherited: Vec::new(),
            protocols: Vec::new(),
            default_protocol: None,
            pages: Vec::new(),
            mounts: Vec::new(),
            hooks: None,
            http_clients: Vec::new(),
            http_pool: PoolConfig::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            #[cfg(feature = "deflate")]
            deflate: None,
            #[cfg(feature = "tls")]
            server_tls: None,
            #[cfg(feature = "tls")]
            client_tls: None,
            #[cfg(feature = "tls")]
            traces_tls: false,
        }
    }

    /// A further name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Serves what no vhost of its listeners is named for, although another vhost was there first.
    pub const fn default_vhost(mut self) -> Self {
        self.default_vhost = true;
        self
    }

    /// Listens on one more address.
    pub fn listen(mut self, listen: impl Into<ListenConfig>) -> Self {
        self.listen.push(listen.into());
        self
    }

    /// Accepts from a socket that listens already: one inherited from a supervisor, say.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.inherited.push(listener);
        self
    }

    /// Adds a protocol; see [`VhostConfig::add_protocol`].
    pub fn protocol<P: Protocol>(mut self, name: impl Into<String>, protocol: P) -> Self {
        self.add_protocol(name, protocol);
        self
    }

    /// Adds a protocol under a subprotocol's name (`Sec-WebSocket-Protocol`, RFC 6455 1.9), and
    /// gives the handle that reaches it later. Of several names that a client offers, the one
    /// that was added first wins. The first protocol (or
    /// [`default_protocol`](Self::default_protocol)) also serves clients that offer none, or only
    /// names that are unknown here: the response then names no subprotocol.
    ///
    /// Any path that is not mounted upgrades to it, unless there is a [`Mount::protocol`]: then
    /// upgrades happen below those mounts only.
    pub fn add_protocol<P: Protocol>(
        &mut self,
        name: impl Into<String>,
        protocol: P,
    ) -> ProtocolHandle<P> {
        self.add_protocol_with(name, protocol, Delivery::Messages)
    }

    /// As [`VhostConfig::add_protocol`], for a protocol that wants the data as it arrives: its
    /// [`on_chunk`](Protocol::on_chunk) is called instead of `on_message`, and the message limit
    /// bounds the sum of a message's chunks.
    pub fn add_chunk_protocol<P: Protocol>(
        &mut self,
        name: impl Into<String>,
        protocol: P,
    ) -> ProtocolHandle<P> {
        self.add_protocol_with(name, protocol, Delivery::Chunks)
    }

    fn add_protocol_with<P: Protocol>(
        &mut self,
        name: impl Into<String>,
        protocol: P,
        delivery: Delivery,
    ) -> ProtocolHandle<P> {
        let key = NEXT_PROTOCOL.fetch_add(1, Ordering::Relaxed);
        self.protocols.push(ProtocolConfig {
            name: name.into(),
            key,
            dispatch: Box::new(Bound::new(protocol, delivery)),
        });
        ProtocolHandle {
            key,
            marker: PhantomData,
        }
    }

    /// The protocol for clients that offer no subprotocol, or none that is known here. Default:
    /// the first one.
    pub fn default_protocol(mut self, name: impl Into<String>) -> Self {
        self.default_protocol = Some(name.into());
        self
    }

    /// Answers a plain `GET` (or `HEAD`) of `path` with this body: enough for the page that opens
    /// the WebSocket. It is for exactly that path, and so goes before a mount there.
    pub fn page(
        mut self,
        path: impl Into<String>,
        content_type: impl Into<String>,
        body: impl Into<Bytes>,
    ) -> Self {
        self.pages.push(Page {
            path: path.into(),
            content_type: content_type.into(),
            body: body.into(),
        });
        self
    }

    /// Serves plain HTTP below a prefix, beside WebSocket.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Who may connect: asked about every upgrade before
    /// [`Protocol::filter_upgrade`], and about plain requests to mounts that are
    /// [`hooked`](Mount::hooked). Default: no hooks.
    pub fn hooks(mut self, chain: HookChain) -> Self {
        self.hooks = Some(chain);
        self
    }

    /// Adds a handler for HTTP requests that the vhost makes as a client; see
    /// [`VhostConfig::add_http_client`].
    pub fn http_client<H: HttpClientHandler>(mut self, handler: H) -> Self {
        self.add_http_client(handler);
        self
    }

    /// Adds a handler for HTTP requests that the vhost makes as a client ([`Cx::fetch`](crate::Cx::fetch)),
    /// and gives the handle that reaches it later. The first one is told about requests that name
    /// none.
    pub fn add_http_client<H: HttpClientHandler>(&mut self, handler: H) -> HttpClientHandle<H> {
        let key = NEXT_PROTOCOL.fetch_add(1, Ordering::Relaxed);
        self.http_clients.push(Keyed {
            key,
            dispatch: Box::new(BoundClient(handler)),
        });
        HttpClientHandle::new(key)
    }

    /// Caps of the pool of connections for HTTP requests as a client.
    pub fn http_pool(mut self, pool: PoolConfig) -> Self {
        self.http_pool = pool;
        self
    }

    /// Caps per connection.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Deadlines.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Compresses messages with those peers that can (permessage-deflate, RFC 7692): accepts it
    /// when a client offers it, and offers it where the vhost's clients do not say otherwise
    /// ([`ClientConnectInfo::deflate`](crate::ClientConnectInfo::deflate)). Default: not.
    #[cfg(feature = "deflate")]
    pub fn deflate(mut self, config: DeflateConfig) -> Self {
        self.deflate = Some(config);
        self
    }

    /// When a silent connection is pinged and given up (its validity), for all connections of the
    /// vhost that have no policy of their own. Default: [`RetryPolicy::default`], so a ping after
    /// 30 s of silence and the end after 45 s.
    ///
    /// Nothing else of the policy is used here: a client that is to dial again needs one of its
    /// own, [`ClientConnectInfo::reconnect`](crate::ClientConnectInfo::reconnect), and that one
    /// judges its silence, too.
    pub fn retry_and_idle_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }
}

#[derive(Debug)]
pub(crate) struct ProtocolConfig {
    pub(crate) name: String,
    pub(crate) key: u64,
    pub(crate) dispatch: Box<dyn Dispatch>,
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// What a connection needs of its vhost, shared by all of them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) home: Home,
    pub(crate) limits: Limits,
    pub(crate) recv: RecvLimits,
    /// The longest message that the short way of a visit takes from a peer.
    pub(crate) short_way: u16,
    /// How many bytes may wait for messages to be queued without looking at them: none if some of
    /// those messages could be too long.
    pub(crate) open_to: usize,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: RetryPolicy,
    #[cfg(feature = "deflate")]
    pub(crate) deflate: Option<DeflateConfig>,
}

impl Settings {
    pub(crate) fn new(home: Home, limits: Limits, timeouts: Timeouts, retry: RetryPolicy) -> Self {
        let recv = RecvLimits::default()
            .with_frame_bytes(limits.frame_bytes.min(limits.message_bytes as u64))
            .with_message_bytes(limits.message_bytes)
            .with_fragments(limits.fragments);
        let longest = recv.frame_bytes.min(limits.message_bytes as u64);
        let takes_all = limits.message_bytes >= LEND_FROM;
        let open_to = if takes_all { limits.output_bytes } else { 0 };
        Self {
            home,
            limits,
            recv,
            short_way: u16::try_from(longest).unwrap_or(u16::MAX),
            open_to,
            timeouts,
            retry,
            #[cfg(feature = "deflate")]
            deflate: None,
        }
    }

    /// The same with another policy.
    pub(crate) fn with_retry(&self, retry: &RetryPolicy) -> Self {
        let mut settings = self.clone();
        settings.retry = retry.clone();
        settings
    }

    /// With the compression of its vhost.
    #[cfg(feature = "deflate")]
    pub(crate) const fn with_deflate(mut self, deflate: Option<DeflateConfig>) -> Self {
        self.deflate = deflate;
        self
    }
}

/// The names of a vhost, parsed: lower case, exact or `*.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NamePattern {
    Exact(String),
    /// Holds the part behind `*`, with its dot.
    Under(String),
}

impl NamePattern {
    pub(crate) fn parse(name: &str) -> Result<Self, VhostError> {
        let refuse = |problem| VhostError::Name(ArgumentError::new("vhost name", name, problem));
        let lower = name.to_ascii_lowercase();
        if lower.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self::Exact(lower));
        }
        if lower.is_empty() {
            return Err(refuse(ArgumentProblem::Empty));
        }
        let under = lower.strip_prefix("*.");
        let host = under.unwrap_or(&lower);
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.contains('*') || (under.is_some() && host.is_empty()) {
            return Err(refuse(ArgumentProblem::Wildcard));
        }
        check_name(host).map_err(refuse)?;
        Ok(match under {
            Some(_) => Self::Under(format!(".{host}")),
            None => Self::Exact(host.to_owned()),
        })
    }

    /// How well `host` (as it came, without port) fits: longer is better, `None` is not at all.
    pub(crate) fn fit(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Exact(name) => name.eq_ignore_ascii_case(host).then_some(usize::MAX),
            Self::Under(dotted) => {
                let at = host.len().checked_sub(dotted.len())?;
                let fits = at > 0 && host.get(at..)?.eq_ignore_ascii_case(dotted);
                fits.then_some(dotted.len())
            }
        }
    }
}

/// Makes the keys of protocol handles, which must differ in the whole process: a handle used on
/// another context then finds nothing instead of something else.
static NEXT_PROTOCOL: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ArgumentProblem as Problem;

    #[test]
    fn vhost_names_fit_exactly_or_below_a_star_and_the_longer_wins() {
        let exact = NamePattern::parse("A.Test").unwrap();
        let under = NamePattern::parse("*.a.test").unwrap();
        let wider = NamePattern::parse("*.test").unwrap();
        assert_eq!(exact.fit("a.TEST"), Some(usize::MAX));
        assert_eq!(exact.fit("a.test."), Some(usize::MAX));
        assert_eq!(exact.fit("aa.test"), None);
        assert_eq!(exact.fit("a.tes"), None);
        assert_eq!(under.fit("a.test"), None);
        assert_eq!(under.fit(".a.test"), None);
        assert_eq!(under.fit("ba.test"), None);
        assert!(under.fit("b.A.test") > wider.fit("b.A.test"));
        assert!(under.fit("c.b.a.test").is_some());
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for (name, problem) in [
            ("", Problem::Empty),
            (".", Problem::EmptyLabel),
            ("*", Problem::Wildcard),
            ("*.", Problem::Wildcard),
            ("*a.test", Problem::Wildcard),
            ("a.*.test", Problem::Wildcard),
            ("a..b", Problem::EmptyLabel),
            ("a.test:80", Problem::BadHost),
            ("http://a", Problem::BadHost),
            ("a b", Problem::BadHost),
            ("[::1]", Problem::BadHost),
            ("b\u{fc}cher.example", Problem::NotAscii),
            (&"a".repeat(64), Problem::LabelTooLong),
            (&"a.".repeat(128), Problem::NameTooLong),
        ] {
            match NamePattern::parse(name) {
                Err(VhostError::Name(error)) => assert_eq!(error.problem, problem, "{name:?}"),
                other => panic!("{name:?}: {other:?}"),
            }
        }
        for name in [
            "localhost",
            "127.0.0.1",
            "::1",
            "xn--bcher-kva.example",
            "_sip.a",
            "a.",
        ] {
            assert!(NamePattern::parse(name).is_ok(), "{name:?}");
        }
    }
}
