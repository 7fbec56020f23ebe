//! The client side before the connection is established: name, addresses, transport, handshake,
//! and another try when a policy says so.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{Address, ClientConnectInfo};
use crate::config::{Settings, Timeouts};
use crate::conn::{Conn, Flags, Phase, Role, SendHalf, Stash};
use crate::error::{
    CloseKind, ConnectDetails, ConnectError, ConnectFailure, ConnectStage, Deadline, DeadlineStage,
};
use crate::fetch::FetchStage;
use crate::http::head::ResponseHead;
use crate::id::{FetchId, Token, WsiId};
use crate::inner::{Inner, Owner, VhostState};
use crate::lift::Lift;
use crate::net::connect::Race;
use crate::net::resolve::ResolveRefused;
use crate::net::stream::Stream;
use crate::net::transport::{Io, ReadEnd};
use crate::protocol::Handshake;
use crate::retry::{RetryPolicy, RetryState};
use crate::timer::saturating_add;
use crate::ws::Side;
use crate::ws::handshake::{RefusalCollector, ResponseError, ResponseScanner};
use crate::wsi::Current;

/// Where a client belongs: decided by the call, fixed for the connection.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) protocol: u32,
    pub(crate) settings: Arc<Settings>,
}

/// A client before its connection is established.
#[derive(Debug)]
pub(crate) struct ClientRole {
    pub(crate) info: Arc<ClientConnectInfo>,
    goal: Goal,
    timeouts: Timeouts,
    stage: Stage,
    began: Instant,
    total: Option<Instant>,
    tried: Vec<(SocketAddr, io::Error)>,
    retry: RetryState,
    /// Why the attempt ends, once that is known.
    failure: Option<(ConnectStage, ConnectFailure)>,
}

/// What the connection is dialled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// To send this request.
    Fetch(FetchId),
    WebSocket,
}

enum Stage {
    /// The request is on its way or sent; the response is awaited.
    Handshake(Box<Awaited>),
    /// Several addresses may be connected to at once; the first that answers wins.
    Racing(Box<Race>, Vec<(SocketAddr, Stream)>),
    /// The peer refused; its reasons are still arriving.
    Refused(Box<RefusalCollector>),
    /// The name is being resolved; the number says which answer is ours.
    Resolving(u64),
    /// Nothing was done yet.
    Start,
    /// The TLS handshake is under way.
    #[cfg(feature = "tls")]
    Tls,
    /// Waiting for the next attempt.
    Waiting,
}

#[derive(Debug)]
struct Awaited {
    scanner: ResponseScanner,
    key: [u8; 24],
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake(_) => "Handshake",
            Self::Racing(..) => "Racing",
            Self::Refused(_) => "Refused",
            Self::Resolving(_) => "Resolving",
            Self::Start => "Start",
            #[cfg(feature = "tls")]
            Self::Tls => "Tls",
            Self::Waiting => "Waiting",
        })
    }
}

/// What a client needs to dial again after an established connection has ended.
#[derive(Debug)]
pub(crate) struct Redial {
    info: Arc<ClientConnectInfo>,
    retry: RetryState,
    established: Instant,
}

/// Makes the connection of a new attempt, to be dialled when the loop comes by.
pub(crate) fn begin(
    inner: &mut Inner,
    bound: Bound,
    info: Arc<ClientConnectInfo>,
) -> Option<WsiId> {
    let goal = Goal::WebSocket;
    let id = insert(inner, bound, info, goal, RetryState::new(), Stage::Start)?;
    inner.mark_conn(id);
    Some(id)
}

/// The same for an HTTP request.
pub(crate) fn begin_fetch(
    inner: &mut Inner,
    bound: Bound,
    info: Arc<ClientConnectInfo>,
    fetch: FetchId,
) -> Option<WsiId> {
    let goal = Goal::Fetch(fetch);
    let id = insert(inner, bound, info, goal, RetryState::new(), Stage::Start)?;
    inner.mark_conn(id);
    Some(id)
}

fn insert(
    inner: &mut Inner,
    bound: Bound,
    info: Arc<ClientConnectInfo>,
    goal: Goal,
    retry: RetryState,
    stage: Stage,
) -> Option<WsiId> {
    let now = inner.out.now;
    let timeouts = timeouts(&bound.settings, &info);
    let total = saturating_add(now, timeouts.connect);
    let Bound { protocol, settings } = bound;
    let settings = judged_by(settings, info.retry_policy());
    let (vhost, moment) = (settings.home.vhost, inner.out.moment);
    let (index, generation) = inner.conns.insert(|index, generation| {
        let id = WsiId { index, generation };
        let mut send = SendHalf::new(id, Side::Client, settings, moment);
        send.protocol = protocol;
        Box::new(Conn {
            io: None,
            role: Role::Client(Box::new(ClientRole {
                info,
                goal,
                timeouts,
                stage,
                began: now,
                total,
                tried: Vec::new(),
                retry,
                failure: None,
            })),
            send,
            stash: Stash::Empty,
        })
    })?;
    if let Some(vhost) = inner.vhost_mut(vhost) {
        vhost.live += 1;
    }
    Some(WsiId { index, generation })
}

/// The vhost's settings with the connection's own policy, which rules its silence, too.
fn judged_by(settings: Arc<Settings>, own: Option<&RetryPolicy>) -> Arc<Settings> {
    match own {
        Some(policy) if *policy != settings.retry => Arc::new(settings.with_retry(policy)),
        _ => settings,
    }
}

/// The vhost's deadlines with those of the description in their place.
fn timeouts(settings: &Settings, info: &ClientConnectInfo) -> Timeouts {
    let mut timeouts = settings.timeouts.clone();
    let own = info.timeout_overrides();
    let set = |place: &mut Duration, own: Option<Duration>| *place = own.unwrap_or(*place);
    set(&mut timeouts.dns, own.dns);
    set(&mut timeouts.tcp, own.tcp);
    set(&mut timeouts.tls, own.tls);
    set(&mut timeouts.response, own.handshake);
    set(&mut timeouts.connect, own.total);
    timeouts
}

impl ClientRole {
    /// The request that it is dialled for.
    pub(crate) fn fetch(&self) -> Option<FetchId> {
        match self.goal {
            Goal::Fetch(id) => Some(id),
            Goal::WebSocket => None,
        }
    }

    pub(crate) fn fetch_stage(&self) -> FetchStage {
        self.connect_stage().into()
    }

    /// When something has to be done although no event comes.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Racing(race, _) => race.deadline(),
            _ => None,
        }
    }

    pub(crate) fn is_reading(&self) -> bool {
        let reads = match self.stage {
            Stage::Handshake(_) | Stage::Refused(_) => true,
            #[cfg(feature = "tls")]
            Stage::Tls => true,
            Stage::Racing(..) | Stage::Resolving(_) | Stage::Start | Stage::Waiting => false,
        };
        reads && self.failure.is_none()
    }

    /// Whether the TLS handshake, or the answer to it, is what is awaited: a server that does not
    /// like our certificate says so after we think that it does.
    #[cfg(feature = "tls")]
    pub(crate) fn is_dialling_tls(&self) -> bool {
        matches!(self.stage, Stage::Tls | Stage::Handshake(_))
    }

    fn connect_stage(&self) -> ConnectStage {
        match self.stage {
            Stage::Start | Stage::Resolving(_) => ConnectStage::Dns,
            Stage::Waiting => ConnectStage::BackOff,
            Stage::Racing(..) => ConnectStage::Tcp,
            #[cfg(feature = "tls")]
            Stage::Tls => ConnectStage::Tls,
            Stage::Handshake(_) | Stage::Refused(_) => ConnectStage::Response,
        }
    }

    /// The deadline of the current stage.
    fn limit(&self) -> Deadline {
        match self.stage {
            Stage::Start | Stage::Resolving(_) | Stage::Waiting => {
                Deadline::new(DeadlineStage::Dns, self.timeouts.dns)
            }
            Stage::Racing(..) => Deadline::new(DeadlineStage::Tcp, self.timeouts.tcp),
            #[cfg(feature = "tls")]
            Stage::Tls => Deadline::new(DeadlineStage::Tls, self.timeouts.tls),
            Stage::Handshake(_) | Stage::Refused(_) => {
                Deadline::new(DeadlineStage::Response, self.timeouts.response)
            }
        }
    }

    pub(crate) fn fail(&mut self, failure: ConnectFailure) {
        if self.failure.is_none() {
            self.failure = Some((self.connect_stage(), failure));
        }
    }
}

impl Lift<'_> {
    /// Does what the stage of the dialling allows now.
    pub(crate) fn dial(&mut self) {
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        if client.failure.is_some() || self.conn.send.flags.contains(Flags::ABORT) {
            return;
        }
        match &client.stage {
            Stage::Start => self.dial_start(),
            Stage::Racing(..) => self.dial_race(),
            #[cfg(feature = "tls")]
            Stage::Tls => {}
            Stage::Handshake(_) | Stage::Refused(_) | Stage::Resolving(_) | Stage::Waiting => {}
        }
    }

    fn dial_start(&mut self) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        let info = Arc::clone(&client.info);
        match (info.dial_addresses(), info.dial_address()) {
            ([], Address::Name(name)) => {
                let number = self.parts.lookup_for(self.conn.send.id);
                match self.parts.resolver.start(number, name, info.dial_port()) {
                    Ok(()) => {
                        client.stage = Stage::Resolving(number);
                        let at = saturating_add(now, client.timeouts.dns);
                        self.set_dial_deadline(at);
                    }
                    Err(ResolveRefused::Busy) => client.fail(ConnectFailure::ResolverBusy),
                    Err(ResolveRefused::NoThread(error)) => {
                        client.fail(ConnectFailure::Resolve(error));
                    }
                }
            }
            ([], Address::Ip(ip)) => {
                let address = SocketAddr::new(*ip, info.dial_port());
                self.start_race(&[address]);
            }
            (addresses, _) => self.start_race(addresses),
        }
    }

    /// An answer of the resolver; a late one is for nobody.
    pub(crate) fn on_resolved(&mut self, number: u64, result: io::Result<Vec<SocketAddr>>) {
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        if !matches!(client.stage, Stage::Resolving(ours) if ours == number) {
            return;
        }
        match result {
            Ok(addresses) if addresses.is_empty() => client.fail(ConnectFailure::NoAddress),
            Ok(addresses) => self.start_race(&addresses),
            Err(error) => client.fail(ConnectFailure::Resolve(error)),
        }
    }

    fn start_race(&mut self, addresses: &[SocketAddr]) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        client.stage = Stage::Racing(Box::new(Race::new(addresses, now)), Vec::new());
        let at = saturating_add(now, client.timeouts.tcp);
        self.set_dial_deadline(at);
        self.dial_race();
    }

    fn set_dial_deadline(&mut self, stage: Option<Instant>) {
        if let Role::Client(client) = &self.conn.role {
            let both = [stage, client.total].into_iter().flatten();
            self.conn.send.deadlines.stage = both.min();
        }
    }

    fn dial_race(&mut self) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        let Stage::Racing(race, flights) = &mut client.stage else {
            return;
        };
        let won = judge_flights(race, flights, now);
        if let Some((peer, stream)) = won {
            return self.transport_is_there(Io::new(stream, peer));
        }
        while let Some(address) = race.next_start(now) {
            let id = self.conn.send.id;
            let token = Token::Wsi {
                index: id.index,
                generation: id.generation,
            };
            let started = self
                .parts
                .system
                .connect(address, None)
                .and_then(|mut stream| {
                    self.parts
                        .poller
                        .register_stream(&mut stream, token.pack())?;
                    Ok(stream)
                });
            match started {
                Ok(stream) => flights.push((address, stream)),
                Err(error) => race.failed(address, error, now),
            }
        }
        if race.all_failed() {
            if let Stage::Racing(race, _) = std::mem::replace(&mut client.stage, Stage::Start) {
                let mut tried = race.into_tried();
                client.tried.append(&mut tried);
            }
            let last = client.tried.last().map(|(_, error)| clone_error(error));
            let failure = match last {
                Some(error) => ConnectFailure::NoneConnected(error),
                None => ConnectFailure::NoAddress,
            };
            client.failure = Some((ConnectStage::Tcp, failure));
        }
    }

    fn transport_is_there(&mut self, io: Io) {
        #[cfg(feature = "tls")]
        if matches!(&self.conn.role, Role::Client(client) if client.info.is_tls()) {
            return self.start_client_tls(io);
        }
        self.conn.io = Some(io);
        self.send_request();
    }

    /// TLS has begun; what it needs to say is queued.
    #[cfg(feature = "tls")]
    pub(crate) fn await_handshake(&mut self) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        client.stage = Stage::Tls;
        let at = saturating_add(now, client.timeouts.tls);
        self.set_dial_deadline(at);
    }

    /// The connection is ready for it: the opening handshake goes out.
    pub(crate) fn send_request(&mut self) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        if let Goal::Fetch(id) = client.goal {
            return self.become_http_client(id);
        }
        let mut key = [0; 24];
        let nonce = self.inner.out.random.nonce();
        let extensions = client.offered_extensions(&self.conn.send);
        self.conn.send.tx.append(&mut self.inner.out.pool, |tail| {
            key = client
                .info
                .write_request_with(tail, nonce, extensions.as_deref());
        });
        client.stage = Stage::Handshake(Box::new(Awaited {
            scanner: ResponseScanner::new(),
            key,
        }));
        let at = saturating_add(now, client.timeouts.response);
        self.set_dial_deadline(at);
    }

    /// Bytes of a response; how many are done.
    pub(crate) fn on_response_bytes(&mut self, input: &[u8]) -> usize {
        let limits = self.conn.send.settings.limits.head;
        let Role::Client(client) = &mut self.conn.role else {
            return 0;
        };
        if client.failure.is_some() {
            return input.len();
        }
        let awaited = match &mut client.stage {
            Stage::Handshake(awaited) => awaited,
            Stage::Refused(collector) => {
                if collector.push(input) {
                    self.finish_refusal();
                }
                return input.len();
            }
            _ => return 0,
        };
        let range = match awaited.scanner.scan(input, &limits) {
            Ok(None) => return 0,
            Ok(Some(range)) => range,
            Err(error) => {
                client.fail(ConnectFailure::Response(error));
                return input.len();
            }
        };
        let end = range.end;
        match ResponseHead::parse(input.get(range).unwrap_or_default(), &limits) {
            Ok(head) => self.on_response(&head),
            Err(error) => client.fail(ConnectFailure::Response(error.into())),
        }
        end
    }

    fn on_response(&mut self, head: &ResponseHead<'_>) {
        let cap = self.conn.send.settings.limits.refusal_body;
        let Role::Client(client) = &self.conn.role else {
            return;
        };
        let Stage::Handshake(awaited) = &client.stage else {
            return;
        };
        let key = awaited.key;
        let outcome = self.judge_response(head, &key);
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        match outcome {
            Ok(subprotocol) => self.welcome(head, subprotocol),
            Err(ResponseError::Refused { .. }) => {
                let collector = RefusalCollector::new(head, cap);
                let done = collector.is_done();
                client.stage = Stage::Refused(Box::new(collector));
                if done {
                    self.finish_refusal();
                }
            }
            Err(error) => client.fail(ConnectFailure::Response(error)),
        }
    }

    fn welcome(&mut self, head: &ResponseHead<'_>, subprotocol: Option<&str>) {
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        if client.info.retry_policy().is_some() {
            let redial = Redial {
                info: Arc::clone(&client.info),
                retry: client.retry,
                established: self.inner.out.now,
            };
            self.conn.send.rare().redial = Some(Box::new(redial));
        }
        let protocol = self.conn.send.protocol;
        let refused = self.establish(protocol, Handshake::Response(head), subprotocol);
        if let Some(close) = refused {
            let failure = ConnectFailure::NotWanted(close.clone());
            let error = self.connect_error(ConnectStage::Response, failure);
            self.conn.send.rare().redial = None;
            self.send_last_words(&close);
            self.deliver_connect_error(protocol, &error);
        }
    }

    fn finish_refusal(&mut self) {
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        if let Stage::Refused(collector) = std::mem::replace(&mut client.stage, Stage::Start) {
            let refusal = collector.finish_at_eof();
            client.failure = Some((ConnectStage::Response, ConnectFailure::Refused(refusal)));
        }
    }

    /// The transport ended before the handshake did.
    pub(crate) fn dial_ended(&mut self) {
        let end = self.conn.io.as_ref().and_then(|io| io.read_end());
        let Some(end) = end else { return };
        let failure = match end {
            ReadEnd::Eof => ConnectFailure::Closed,
            ReadEnd::Failed(error) => ConnectFailure::Io(clone_error(error)),
        };
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        match client.stage {
            Stage::Refused(_) => self.finish_refusal(),
            _ => client.fail(failure),
        }
    }

    /// The stage took too long, or the wait for the next attempt is over.
    pub(crate) fn time_out_dial(&mut self) {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        let over = client.total.is_some_and(|total| total <= now);
        match &client.stage {
            Stage::Waiting => {
                client.stage = Stage::Start;
                client.began = now;
                client.total = saturating_add(now, client.timeouts.connect);
                return self.dial();
            }
            // What has come of its reasons is worth more than the lateness of the rest.
            Stage::Refused(_) => return self.finish_refusal(),
            _ => {}
        }
        let deadline = if over {
            Deadline::new(DeadlineStage::Connect, client.timeouts.connect)
        } else {
            client.limit()
        };
        let stage = client.connect_stage();
        if stage == ConnectStage::Tls && self.time_out_handshake(deadline) {
            return;
        }
        let Role::Client(client) = &mut self.conn.role else {
            return;
        };
        if let Stage::Racing(..) = client.stage {
            if let Stage::Racing(race, _) = std::mem::replace(&mut client.stage, Stage::Start) {
                client.tried.append(&mut race.into_tried());
            }
        }
        client.failure = Some((stage, ConnectFailure::Timeout(deadline)));
    }

    /// The application, a shutdown or the end of the vhost stops the attempt.
    pub(crate) fn stop_dialling(&mut self, failure: ConnectFailure) {
        if let Role::Client(client) = &mut self.conn.role {
            client.fail(failure);
        }
    }

    /// Ends the attempt if it has failed: by another one, or by telling the protocol. Whether
    /// the connection is over.
    pub(crate) fn conclude_dial(&mut self) -> bool {
        self.note_abort();
        let Role::Client(client) = &mut self.conn.role else {
            return false;
        };
        let fetch = client.fetch();
        let fetches = &self.inner.fetches;
        if fetch.is_some_and(|id| fetches.get(id).is_none_or(|fetch| fetch.cancelled)) {
            client.fail(ConnectFailure::Aborted);
        }
        let Some((stage, failure)) = client.failure.take() else {
            return false;
        };
        let error = self.connect_error(stage, failure);
        if let Some(id) = fetch {
            self.conn.send.phase = Phase::Ended;
            self.fetch_not_connected(id, error);
            return true;
        }
        let protocol = self.conn.send.protocol;
        if let Some(delay) = self.retry_dial(&error) {
            self.deliver_retry(protocol, &error, delay);
            let ended = self.conn.send.flags.contains(Flags::ABORT);
            return ended && self.conclude_dial();
        }
        self.conn.send.phase = Phase::Ended;
        self.deliver_connect_error(protocol, &error);
        true
    }

    /// Somebody ends the attempt: what this side wants counts more than what else has failed.
    fn note_abort(&mut self) {
        if !self.conn.send.flags.contains(Flags::ABORT) {
            return;
        }
        let kind = self
            .conn
            .send
            .deadlines
            .cause
            .as_ref()
            .map(|cause| &cause.kind);
        let failure = match kind {
            // The deadline of output. The next attempt, if there is one, begins without it.
            Some(CloseKind::Timeout(deadline)) => {
                let failure = ConnectFailure::Timeout(*deadline);
                self.conn.send.flags -= Flags::ABORT;
                self.conn.send.deadlines.cause = None;
                return self.stop_dialling(failure);
            }
            Some(CloseKind::Shutdown) => ConnectFailure::Shutdown,
            Some(CloseKind::VhostDestroyed) => ConnectFailure::VhostDestroyed,
            Some(CloseKind::ContextDropped) => ConnectFailure::ContextDropped,
            _ => ConnectFailure::Aborted,
        };
        if let Role::Client(client) = &mut self.conn.role {
            client.failure = Some((client.connect_stage(), failure));
        }
    }

    /// Waits for another attempt if the policy has one left; how long.
    fn retry_dial(&mut self, error: &ConnectError) -> Option<Duration> {
        let random = self.inner.out.random.u64();
        let now = self.inner.out.now;
        let stopping = self.inner.shutting_down;
        let Role::Client(client) = &mut self.conn.role else {
            return None;
        };
        let policy = client.info.retry_policy().filter(|_| !stopping)?;
        let delay = if error.is_retryable() {
            client.retry.next_delay(policy, random)?
        } else if error.is_about_certificates() {
            client.retry.last_delay(policy, random)?
        } else {
            return None;
        };
        client.stage = Stage::Waiting;
        client.tried.clear();
        self.conn.io = None;
        self.conn.stash = Stash::Empty;
        self.conn.send.tx.clear(&mut self.inner.out.pool);
        self.conn.send.no_output_waits();
        self.conn.send.deadlines.stage = saturating_add(now, delay);
        Some(delay)
    }

    fn deliver_retry(&mut self, protocol: u32, error: &ConnectError, delay: Duration) {
        let id = self.conn.send.id;
        if let Some(bound) = self.parts.protocols.get_mut(protocol as usize) {
            let mut cx = crate::wsi::Cx::new(self.inner, Owner::protocol(protocol));
            cx.current = Some(Current {
                send: &mut self.conn.send,
                io: None,
                response: None,
            });
            bound.dispatch.retry(&mut cx, id, error, delay);
        }
    }

    fn connect_error(&mut self, stage: ConnectStage, failure: ConnectFailure) -> ConnectError {
        let now = self.inner.out.now;
        let Role::Client(client) = &mut self.conn.role else {
            return ConnectError::new(stage, failure, String::new());
        };
        // While the next one is waited for, it has not been made.
        let current = u32::from(!matches!(client.stage, Stage::Waiting));
        ConnectError {
            details: Box::new(ConnectDetails {
                stage,
                failure,
                target: client.info.dial_target(),
                tried: std::mem::take(&mut client.tried),
                elapsed: now.saturating_duration_since(client.began),
                attempts: client.retry.attempts().saturating_add(current),
            }),
        }
    }

    fn deliver_connect_error(&mut self, protocol: u32, error: &ConnectError) {
        let id = self.conn.send.id;
        if let Some(bound) = self.parts.protocols.get_mut(protocol as usize) {
            let mut cx = crate::wsi::Cx::new(self.inner, Owner::protocol(protocol));
            bound.dispatch.connect_error(&mut cx, id, error);
        }
    }

    /// Begins the attempt that replaces an established connection, if its client asked for that
    /// and nobody on this side wanted the end.
    pub(crate) fn redial(&mut self) -> Option<WsiId> {
        let redial = self.conn.send.rare.as_mut()?.redial.take()?;
        let vhost = self.inner.vhost(self.conn.send.vhost());
        let stays = vhost.is_some_and(|vhost| vhost.state == VhostState::Active);
        if !stays || self.inner.shutting_down {
            return None;
        }
        let Redial {
            info,
            mut retry,
            established,
        } = *redial;
        let policy = info.retry_policy()?.clone();
        let now = self.inner.out.now;
        retry.succeeded(&policy, now.saturating_duration_since(established));
        let delay = retry.next_delay(&policy, self.inner.out.random.u64())?;
        let send = &self.conn.send;
        let bound = Bound {
            protocol: send.protocol,
            settings: Arc::clone(&send.settings),
        };
        let id = insert(
            self.inner,
            bound,
            info,
            Goal::WebSocket,
            retry,
            Stage::Waiting,
        )?;
        let Inner { conns, out, .. } = &mut *self.inner;
        let send = &mut conns.get_mut(id.index, id.generation)?.send;
        send.deadlines.stage = saturating_add(now, delay);
        send.mark(out);
        Some(id)
    }
}

/// Takes the flights that have ended out of the air; the one that arrived, if any.
fn judge_flights(
    race: &mut Race,
    flights: &mut Vec<(SocketAddr, Stream)>,
    now: Instant,
) -> Option<(SocketAddr, Stream)> {
    let mut at = 0;
    while let Some((address, stream)) = flights.get(at) {
        match stream.connected() {
            Ok(true) => return Some(flights.swap_remove(at)),
            Ok(false) => at += 1,
            Err(error) => {
                race.failed(*address, error, now);
                flights.remove(at);
            }
        }
    }
    None
}

/// `io::Error` is not `Clone`; its kind, number and text are what matters.
pub(crate) fn clone_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
