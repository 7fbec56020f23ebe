//! What a callback may reach: the connections, the vhosts' registry, timers, and what waits for
//! the loop to settle it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::arena::Arena;
use crate::client::ClientConnectInfo;
use crate::config::{NamePattern, Settings, VhostConfig};
use crate::conn::{Conn, Flags, NO_PROTOCOL, Role};
use crate::dial::{self, Bound as BoundTo};
use crate::error::{ConnectError, ConnectFailure, ConnectStage};
use crate::fetch::{Fetches, VhostPool};
use crate::hook::HookPlace;
use crate::http::client::PoolConfig;
use crate::id::{FetchId, TimerTag, VhostId, WsiId};
use crate::mount::{Route, RouteTarget};
use crate::net::random::Random;
use crate::pool::BufferPool;
use crate::timer::{Alarm, Alarms, Epoch, Moment, TimerKey, Timers, saturating_add};
use crate::ws::Side;
use crate::ws::send::Lent;

/// Everything but sockets, protocols and the connection that is being worked on.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) conns: Arena<Box<Conn>>,
    pub(crate) vhosts: Arena<Vhost>,
    pub(crate) fetches: Fetches,
    pub(crate) out: Out,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) per_ip: BTreeMap<IpAddr, u32>,
    pub(crate) max_connections: usize,
    /// Accepted connections whose TLS handshake is not over.
    pub(crate) handshakes: usize,
    pub(crate) max_handshakes: usize,
    /// Nothing new begins any more.
    pub(crate) shutting_down: bool,
    /// The connection that is out of its slot. Still set when a turn begins only if a callback
    /// panicked.
    pub(crate) lifted: Option<LiftMark>,
}

/// What has to be undone for a connection whose callback panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiftMark {
    pub(crate) id: WsiId,
    pub(crate) vhost: VhostId,
    pub(crate) protocol: u32,
    pub(crate) session: Option<usize>,
    pub(crate) side: Side,
    /// The handler and the place of its exchange.
    pub(crate) exchange: Option<(u32, usize)>,
    /// The request that a client's connection works for.
    pub(crate) fetch: Option<FetchId>,
    peer: Option<SocketAddr>,
    /// Whether it counts as a TLS handshake in progress.
    pub(crate) handshaking: bool,
}

impl LiftMark {
    #[inline]
    pub(crate) fn of(conn: &Conn) -> Self {
        let session = match &conn.role {
            Role::Ws(ws) => Some(ws.session),
            Role::Client(_) | Role::Http(_) | Role::HttpClient(_) | Role::Linger => None,
        };
        let exchange = match &conn.role {
            Role::Http(http) => http.exchange_place(),
            Role::Client(_) | Role::HttpClient(_) | Role::Linger | Role::Ws(_) => None,
        };
        let fetch = match &conn.role {
            Role::Client(client) => client.fetch(),
            Role::HttpClient(http) => http.fetch(),
            Role::Http(_) | Role::Linger | Role::Ws(_) => None,
        };
        Self {
            id: conn.send.id,
            vhost: conn.send.vhost(),
            protocol: conn.send.protocol,
            session,
            side: conn.send.side,
            exchange,
            fetch,
            peer: conn.io.as_ref().map(|io| io.peer()),
            handshaking: conn.send.flags.contains(Flags::HANDSHAKING),
        }
    }

    /// The address it counts for, if it was accepted.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let peer = self.peer.filter(|_| self.side == Side::Server)?;
        Some(peer.ip())
    }
}

/// What sending needs beside the connection itself.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) dirty: Vec<WsiId>,
    pub(crate) now: Instant,
    /// The date for responses, right to the second at the begin of a turn.
    pub(crate) date: String,
    /// When it is not right any more.
    pub(crate) redate_at: Option<Instant>,
    pub(crate) pool: BufferPool,
    #[cfg(feature = "deflate")]
    pub(crate) compressors: crate::ws::deflate::compress::CompressorPool,
    pub(crate) random: Random,
    pub(crate) timers: Timers<TimerKind>,
    /// When somebody must look at a connection again.
    pub(crate) alarms: Alarms,
    pub(crate) epoch: Epoch,
    /// `now`, as connections note it.
    pub(crate) moment: Moment,
    /// Where received bytes lie that the connection being visited may send from there: addresses.
    pub(crate) lender: Range<usize>,
    /// What it has queued of them.
    pub(crate) lent: Vec<Lent>,
}

impl Out {
    pub(crate) fn new(now: Instant, date: String, pool: BufferPool, random: Random) -> Self {
        let epoch = Epoch::new(now);
        Self {
            dirty: Vec::new(),
            now,
            date,
            redate_at: None,
            pool,
            #[cfg(feature = "deflate")]
            compressors: Default::default(),
            random,
            timers: Timers::new(now),
            alarms: Alarms::default(),
            epoch,
            moment: epoch.moment(now),
            lender: 0..0,
            lent: Vec::new(),
        }
    }

    /// When a timer or an alarm is due next.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let timer = self.timers.next_deadline();
        let timer = timer.map(|timer| self.epoch.moment(timer));
        let alarm = self.alarms.first().map(Alarm::at);
        match (timer, alarm) {
            (Some(timer), Some(alarm)) => Some(timer.min(alarm)),
            (timer, alarm) => timer.or(alarm),
        }
    }
}

/// What a callback asked for and the loop does when no callback runs.
#[derive(Debug)]
pub(crate) enum Command {
    CreateVhost(VhostId, Box<VhostConfig>),
    DestroyVhost(VhostId),
    /// A vhost has an identity that nobody has been warned about yet.
    #[cfg(feature = "tls")]
    NewIdentity(VhostId, Side),
    #[cfg(feature = "tls")]
    SetTls(VhostId, Box<NewTls>),
    #[cfg(feature = "tls")]
    DrainOldIdentity(VhostId),
    Shutdown(Duration),
}

/// TLS settings to be exchanged.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub(crate) enum NewTls {
    Client(crate::tls::ClientTls),
    ClientIdentity(crate::tls::Identity),
    Server(crate::tls::ServerTls),
    ServerIdentity(crate::tls::Identity),
}

/// Whose callback it is that runs, whose timer, and who is told of a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An HTTP handler.
    Handler(u32),
    Hook(HookPlace),
    /// A handler of HTTP requests that are ours.
    HttpClient(u32),
    /// The context itself, whose callbacks the observer has.
    Observer,
    Protocol(u32),
}

impl Owner {
    /// The protocol of a connection, if it has one.
    #[inline]
    pub(crate) const fn protocol(index: u32) -> Self {
        match index {
            NO_PROTOCOL => Self::Observer,
            index => Self::Protocol(index),
        }
    }
}

/// Whose timer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerKind {
    /// The deadlines of a request.
    Fetch(FetchId),
    /// A free-standing one.
    Free(Owner, TimerTag),
    /// A listener that rests because the system is out of descriptors.
    Listener { index: u32, generation: u64 },
    /// The end of a shutdown's grace.
    Shutdown,
    /// A vhost's identities want to be looked after.
    #[cfg(feature = "tls")]
    Upkeep(VhostId),
    /// A connection's own.
    Wsi(WsiId, TimerTag),
}

/// A vhost as the loop keeps it.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub(crate) names: Vec<NamePattern>,
    pub(crate) protocols: Vec<VhostProtocol>,
    pub(crate) default_protocol: Option<u32>,
    pub(crate) routes: Vec<Route>,
    /// Index of its chain of hooks.
    pub(crate) hooks: Option<u32>,
    /// Vhosts that its hooks have for their own connections.
    pub(crate) hook_clients: Vec<VhostId>,
    pub(crate) settings: Arc<Settings>,
    /// Names of its listeners.
    pub(crate) listeners: Vec<(u32, u64)>,
    /// Connections that belong to it.
    pub(crate) live: usize,
    /// Requests that it makes as a client.
    pub(crate) fetches: usize,
    /// Its HTTP client handlers: key and index.
    pub(crate) http_clients: Vec<(u64, u32)>,
    pub(crate) http_pool: VhostPool,
    pub(crate) state: VhostState,
    #[cfg(feature = "tls")]
    pub(crate) server_tls: Option<crate::tls::ServerCell>,
    #[cfg(feature = "tls")]
    pub(crate) client_tls: Option<crate::tls::ClientCell>,
    #[cfg(feature = "tls")]
    pub(crate) traces_tls: bool,
    #[cfg(feature = "tls")]
    pub(crate) watch_interval: Option<Duration>,
    #[cfg(feature = "tls")]
    /// Other ones than the default.
    pub(crate) expiry_thresholds: Option<Vec<Duration>>,
    #[cfg(feature = "tls")]
    pub(crate) server_upkeep: crate::rotation::Upkeep,
    #[cfg(feature = "tls")]
    pub(crate) client_upkeep: crate::rotation::Upkeep,
    #[cfg(feature = "tls")]
    pub(crate) upkeep_timer: Option<TimerKey>,
}

/// What the connections of a vhost have in common for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    pub(crate) vhost: VhostId,
    /// What their moments are counted from.
    pub(crate) epoch: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VhostState {
    Active,
    /// Asked for in a callback, not made yet.
    Announced,
    /// Destroyed; it goes when its last connection has gone.
    Going,
}

#[derive(Debug)]
pub(crate) struct VhostProtocol {
    pub(crate) name: String,
    pub(crate) index: u32,
}

impl Vhost {
    /// Holds a place for a vhost that is made when no callback runs.
    pub(crate) fn announced(home: Home) -> Self {
        Self {
            names: Vec::new(),
            protocols: Vec::new(),
            default_protocol: None,
            routes: Vec::new(),
            hooks: None,
            hook_clients: Vec::new(),
            settings: Arc::new(Settings::new(
                home,
                Default::default(),
                Default::default(),
                Default::default(),
            )),
            listeners: Vec::new(),
            live: 0,
            fetches: 0,
            http_clients: Vec::new(),
            http_pool: VhostPool::new(PoolConfig::new()),
            state: VhostState::Announced,
            #[cfg(feature = "tls")]
            server_tls: None,
            #[cfg(feature = "tls")]
            client_tls: None,
            #[cfg(feature = "tls")]
            traces_tls: false,
            #[cfg(feature = "tls")]
            watch_interval: None,
            #[cfg(feature = "tls")]
            expiry_thresholds: None,
            #[cfg(feature = "tls")]
            server_upkeep: Default::default(),
            #[cfg(feature = "tls")]
            client_upkeep: Default::default(),
            #[cfg(feature = "tls")]
            upkeep_timer: None,
        }
    }

    /// What to call it in a trace.
    #[cfg(feature = "tls")]
    pub(crate) fn label(&self) -> String {
        self.names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// Whether `wss` can be dialled.
    pub(crate) fn has_client_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        {
            self.client_tls.is_some()
        }
        #[cfg(not(feature = "tls"))]
        {
            false
        }
    }

    /// Whether upgrades have paths of their own.
    pub(crate) fn has_protocol_routes(&self) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|route| matches!(route.target, RouteTarget::Protocol(_)))
    }

    /// How well a name fits it, if it does.
    pub(crate) fn fit(&self, name: &str) -> Option<usize> {
        self.names
            .iter()
            .filter_map(|pattern| pattern.fit(name))
            .max()
    }

    /// The protocol of that name, or the default one for no name.
    pub(crate) fn protocol(&self, name: Option<&str>) -> Option<u32> {
        match name {
            None => self.default_protocol,
            Some(name) => {
                let found = self.protocols.iter().find(|protocol| protocol.name == name);
                found.map(|protocol| protocol.index)
            }
        }
    }
}

impl Inner {
    pub(crate) fn vhost(&self, id: VhostId) -> Option<&Vhost> {
        self.vhosts.get(id.index, id.generation)
    }

    pub(crate) fn vhost_mut(&mut self, id: VhostId) -> Option<&mut Vhost> {
        self.vhosts.get_mut(id.index, id.generation)
    }

    /// Holds a place for a vhost. `None` if there is none.
    pub(crate) fn announce_vhost(&mut self) -> Option<VhostId> {
        let epoch = self.out.epoch;
        let made = self.vhosts.insert(|index, generation| {
            let vhost = VhostId { index, generation };
            Vhost::announced(Home { vhost, epoch })
        });
        made.map(|(index, generation)| VhostId { index, generation })
    }

    pub(crate) const fn home(&self, vhost: VhostId) -> Home {
        let epoch = self.out.epoch;
        Home { vhost, epoch }
    }

    /// Begins a client's attempt: checked and named now, dialled when no callback runs.
    pub(crate) fn client_connect(
        &mut self,
        vhost: VhostId,
        info: ClientConnectInfo,
    ) -> Result<WsiId, ConnectError> {
        let target = info.dial_target();
        let refuse = |failure| ConnectError::new(ConnectStage::Argument, failure, target.clone());
        if self.shutting_down {
            return Err(refuse(ConnectFailure::Shutdown));
        }
        let found = self.vhosts.get(vhost.index, vhost.generation);
        let active = found.filter(|vhost| vhost.state == VhostState::Active);
        let unknown = || refuse(ConnectFailure::UnknownProtocol);
        let known = active.ok_or_else(unknown)?;
        if info.is_tls() && !known.has_client_tls() {
            return Err(refuse(ConnectFailure::NoClientTls));
        }
        known.check_names(&info).map_err(refuse)?;
        let settings = self
            .room_for_client(vhost)
            .map_err(|limit| refuse(ConnectFailure::TooManyConnections(limit)))?;
        let protocol = known
            .protocol(info.local_protocol_name())
            .ok_or_else(unknown)?;
        let bound = BoundTo { protocol, settings };
        dial::begin(self, bound, Arc::new(info))
            .ok_or_else(|| refuse(ConnectFailure::TooManyConnections(self.max_connections)))
    }

    /// The settings of a vhost that may have one more connection, or the limit that is reached.
    pub(crate) fn room_for_client(&self, vhost: VhostId) -> Result<Arc<Settings>, usize> {
        if self.conns.len() >= self.max_connections {
            return Err(self.max_connections);
        }
        let vhost = self.vhost(vhost).ok_or(0_usize)?;
        let limit = vhost.settings.limits.connections;
        if vhost.live >= limit {
            return Err(limit);
        }
        Ok(Arc::clone(&vhost.settings))
    }

    pub(crate) fn arm(&mut self, after: Duration, kind: TimerKind) -> Option<TimerKey> {
        let at = saturating_add(self.out.now, after)?;
        Some(self.out.timers.arm(at, kind))
    }
}
