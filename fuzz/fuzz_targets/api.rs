//! Everything an application can call, in any order, from inside callbacks and from outside: a
//! context that serves and dials itself, strangers and nobody, on a simulated network.
//!
//! No call panics, every attempt, connection, exchange and request ends in one final event, there
//! is an end to the work of every turn, and nothing is left when it has shut down.
#![no_main]

mod tls_configs;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wsloop::hook::{Hook, HookAnswer, HookChain, HookConfig, HookError, HookRequestId};
use wsloop::sim::{Net, SimPeer, SimPeerListener};
use wsloop::tls::{ClientTls, ServerTls};
use wsloop::{
    Accept, BodyLength, Broadcast, Chunk, ClientConnectInfo, Close, CloseCause, CloseCode,
    CloseFrame, Compression, ConnectError, Context, ContextConfig, ContextObserver, Cx,
    DeflateConfig, Established, ExchangeId, ExchangeOutcome, FetchAbort, FetchError, FetchId,
    FetchInfo, FetchTimeouts, Fetched, Fin, HandlerHandle, Http, HttpClientHandle,
    HttpClientHandler, HttpFailure, HttpHandler, HttpRequest, Limits, ListenConfig, Message,
    MessageKind, Mount, PlaintextPolicy, PoolConfig, Protocol, ProtocolHandle, RedirectPolicy,
    Refuse, Request, RequestId, Response, RetryPolicy, SendOptions, TimerId, TimerTag, VhostConfig,
    VhostId, Wsi, WsiId,
};

use world::{
    CONFIGS, HEADS, Model, Script, Shared, Stranger, drain, fault, frame, let_time_pass, lock, net,
    turn,
};

const TLS: u8 = 1;
const DEFLATE: u8 = 2;
const HERE: &str = "10.0.0.1:80";
const THERE: &str = "10.0.0.9:80";

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let variant = script.byte();
    let net = net(variant);
    net.name("a.test", ["10.0.0.1".parse().expect("an address")]);
    net.name(
        "many.test",
        ["10.0.0.3", "10.0.0.9"].map(|address| address.parse().expect("an address")),
    );
    net.name_delay("slow.test", None);
    net.connect_delay("10.0.0.4:80".parse().expect("an address"), None);
    let world = World {
        variant,
        script,
        ..World::default()
    };
    let mut scene = Scene::new(&net, Actor(Arc::new(world.into())));
    while !lock(&scene.actor.0).script.is_over() {
        scene.act();
        scene.turn();
    }
    scene.end();
});

/// What callbacks and the outside share.
#[derive(Default)]
struct World {
    variant: u8,
    script: Script,
    model: Model,
    sockets: Vec<WsiId>,
    requests: Vec<RequestId>,
    questions: Vec<HookRequestId>,
    exchanges: Vec<ExchangeId>,
    fetches: Vec<FetchId>,
    timers: Vec<TimerId>,
    vhosts: Vec<VhostId>,
    clients: Option<HttpClientHandle<Actor>>,
}

/// Every callback of every kind: does what the script says next.
#[derive(Clone)]
struct Actor(Shared<World>);

impl Actor {
    fn byte(&self) -> u8 {
        lock(&self.0).script.byte()
    }

    fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut lock(&self.0))
    }

    fn choose<T: Clone>(&self, pick: impl FnOnce(&World) -> &[T]) -> Option<T> {
        let mut world = lock(&self.0);
        let nth = world.script.size();
        let among = pick(&world);
        among.get(nth % among.len().max(1)).cloned()
    }

    /// Up to three calls.
    fn act(&self, cx: &mut Cx<'_>) {
        for _ in 0..self.byte() % 4 {
            self.call(cx);
        }
    }

    fn call(&self, cx: &mut Cx<'_>) {
        match self.byte() % 16 {
            0 => {
                if let Some(id) = self.choose(|world| &world.sockets) {
                    let _ = cx.close(id, self.close());
                }
            }
            1 => {
                if let Some(id) = self.choose(|world| &world.sockets) {
                    let _ = cx.abort(id);
                }
            }
            2 | 3 => self.call_peer(cx),
            4 => {
                let text = self.text();
                let with = self.byte();
                let Broadcast { .. } =
                    cx.broadcast(Message::Binary(&text), |_| with.is_multiple_of(2));
            }
            5 | 6 => self.connect(|vhost, info| cx.client_connect(vhost, info)),
            7 => self.decide(cx),
            8 => self.respond(cx),
            9 => {
                let timer = cx.set_timer(self.time(), TimerTag(9));
                self.with(|world| world.timers.extend(timer));
            }
            10 => {
                if let Some(timer) = self.choose(|world| &world.timers) {
                    cx.cancel_timer(timer);
                }
            }
            11 => self.vhosts(cx),
            12 => self.fetch(|vhost, info| cx.fetch(vhost, info)),
            13 | 14 => self.call_fetch(cx),
            _ => {
                let what = self.byte();
                cx.for_each_peer(|mut peer| match what % 4 {
                    0 => drop(peer.send_text("all")),
                    1 => peer.pause_reading(),
                    2 => peer.resume_reading(),
                    _ => peer.request_writable(),
                });
            }
        }
    }

    fn call_peer(&self, cx: &mut Cx<'_>) {
        let Some(id) = self.choose(|world| &world.sockets) else {
            return;
        };
        let (what, text, close) = (self.byte(), self.text(), self.close());
        let Some(mut peer) = cx.peer(id) else {
            return;
        };
        assert_eq!(peer.id(), id);
        match what % 8 {
            0 => drop(peer.send_binary(&text)),
            1 => drop(peer.send_text("peer")),
            2 => drop(peer.send_ping(&text)),
            3 => peer.request_writable(),
            4 => peer.pause_reading(),
            5 => peer.resume_reading(),
            6 => peer.close(close),
            _ => peer.abort(),
        }
    }

    fn connect(
        &self,
        connect: impl FnOnce(VhostId, ClientConnectInfo) -> Result<WsiId, ConnectError>,
    ) {
        let (Some(vhost), how) = (self.choose(|world| &world.vhosts), self.byte()) else {
            return;
        };
        let url = [
            "ws://10.0.0.1/",
            "wss://a.test:80/later",
            "ws://10.0.0.1/ask",
            "ws://10.0.0.9/",
            "ws://10.0.0.3/",
            "ws://10.0.0.4/",
            "ws://slow.test/",
            "ws://none.test/",
            "ws://many.test/?x",
            "wss://10.0.0.9:80/",
        ][usize::from(how % 10)];
        let mut info = ClientConnectInfo::from_url(url).expect("a good URL");
        if how & 16 != 0 {
            let policy = RetryPolicy::builder()
                .delays([Duration::from_secs(1)])
                .conceal_count(2);
            info = info.reconnect(policy.build().expect("a policy"));
        }
        if how & 32 != 0 {
            info = info.subprotocols(["chunks"]).expect("a token");
        }
        if how & 64 != 0 {
            info = info.deflate(DeflateConfig::new().threshold(4));
        }
        if how & 128 != 0 {
            info = info.local_protocol("chunks").expect("a name");
        }
        if let Ok(id) = connect(vhost, info) {
            self.with(|world| {
                world.model.dialled(id);
                world.sockets.push(id);
            });
        }
    }

    fn decide(&self, cx: &mut Cx<'_>) {
        let what = self.byte();
        if what & 1 == 0 {
            if let Some(id) = self.choose(|world| &world.requests) {
                let verdict = match what >> 1 & 3 {
                    0 => Ok(Accept::new()),
                    1 => Ok(Accept::later_within(Duration::from_secs(2))),
                    2 => Err(Refuse::new(403)),
                    _ => Ok(Accept::new().subprotocol("nobody offered")),
                };
                let _ = cx.decide(id, verdict);
            }
        } else if let Some(id) = self.choose(|world| &world.questions) {
            let answer = match what >> 1 & 3 {
                0 => Ok(HookAnswer::allow()),
                1 => Ok(HookAnswer::deny(401)),
                2 => Ok(HookAnswer::Later),
                _ => Err(HookError::new("it broke")),
            };
            let _ = cx.answer_hook(id, answer);
        }
    }

    fn respond(&self, cx: &mut Cx<'_>) {
        let Some(id) = self.choose(|world| &world.exchanges) else {
            return;
        };
        let (what, data) = (self.byte(), self.text());
        let Some(mut responder) = cx.exchange(id) else {
            return;
        };
        match what % 8 {
            0 => drop(responder.respond(Response::new(200).body(data))),
            1 => drop(responder.start(200, &Default::default(), BodyLength::Unknown)),
            2 => drop(responder.start(200, &Default::default(), BodyLength::Known(100))),
            3 | 4 => drop(responder.write(&data)),
            5 => drop(responder.finish()),
            6 => responder.request_writable(),
            _ => responder.abort(),
        }
    }

    fn vhosts(&self, cx: &mut Cx<'_>) {
        match self.byte() {
            // Rarely: nothing is served after it.
            255 => cx.shutdown(Duration::from_secs(2)),
            what if what % 4 == 0 => {
                if let Some(id) = self.choose(|world| &world.vhosts) {
                    let _ = cx.destroy_vhost(id);
                }
            }
            what => {
                let config = self.vhost(what.is_multiple_of(2));
                let made = cx.create_vhost(config);
                self.with(|world| world.vhosts.extend(made));
            }
        }
    }

    fn vhost(&self, listens: bool) -> VhostConfig {
        let config = VhostConfig::new("b.test").protocol("messages", self.clone());
        if listens {
            let address: SocketAddr = HERE.parse().expect("an address");
            config.listen(address)
        } else {
            config.http_client(self.clone())
        }
    }

    fn fetch(&self, fetch: impl FnOnce(VhostId, FetchInfo) -> Result<FetchId, FetchError>) {
        let (Some(vhost), how) = (self.choose(|world| &world.vhosts), self.byte()) else {
            return;
        };
        let url = [
            "http://10.0.0.1/e",
            "http://10.0.0.1/r",
            "http://10.0.0.9/x",
            "https://a.test:80/e",
            "http://none.test/",
            "http://10.0.0.4/",
        ][usize::from(how % 6)];
        let mut info = match how & 24 {
            0 => FetchInfo::get(url),
            8 => FetchInfo::post(url, vec![b'f'; 300]),
            _ => FetchInfo::post(url, "").map(|info| info.streamed_body(None)),
        }
        .expect("a good URL");
        if how & 32 != 0 {
            info = info.streamed();
        }
        if how & 64 != 0 {
            info = info.redirects(RedirectPolicy::new().max(2));
        }
        if how & 128 != 0 {
            info = info.no_pool();
        }
        let mut timeouts = FetchTimeouts::default();
        timeouts.total = Some(Duration::from_secs(60));
        let mut info = info.timeouts(timeouts).expect("some time");
        if let Some(handle) = self.with(|world| world.clients) {
            if how & 4 != 0 {
                info = info.handled_by(handle);
            }
        }
        if let Ok(id) = fetch(vhost, info) {
            self.with(|world| {
                world.model.fetching(id);
                world.fetches.push(id);
            });
        }
    }

    fn call_fetch(&self, cx: &mut Cx<'_>) {
        let Some(id) = self.choose(|world| &world.fetches) else {
            return;
        };
        match self.byte() % 8 {
            0 => drop(cx.cancel_fetch(id)),
            1 => drop(cx.pause_fetch(id)),
            2 | 3 => drop(cx.resume_fetch(id)),
            4 => drop(cx.fetch_finish(id)),
            5 => drop(cx.request_fetch_writable(id)),
            _ => drop(cx.fetch_write(id, &self.text())),
        }
    }

    fn close(&self) -> Close {
        match self.byte() % 4 {
            0 => Close::normal(),
            1 => Close::new(CloseCode::GOING_AWAY, "going"),
            2 => Close::new(CloseCode::INTERNAL_ERROR, ""),
            _ => Close::new(CloseCode::NORMAL, "x".repeat(200)),
        }
    }

    fn text(&self) -> Vec<u8> {
        let len = match self.byte() {
            len @ 0..=200 => len.into(),
            len => usize::from(len - 200) * 500,
        };
        vec![b't'; len]
    }

    fn time(&self) -> Duration {
        let times = [0, 1, 50, 1000, 5000, 20_000, 60_000, u64::MAX];
        Duration::from_millis(times[usize::from(self.byte()) % times.len()])
    }

    /// Up to three calls on a connection, and how its callback ends.
    fn act_on(&self, wsi: &mut Wsi<'_>) -> Result<(), Close> {
        self.with(|world| world.model.heard_of(wsi.id()));
        for _ in 0..self.byte() % 4 {
            self.call_on(wsi);
        }
        match self.byte() {
            255 => Err(self.close()),
            _ => Ok(()),
        }
    }

    fn call_on(&self, wsi: &mut Wsi<'_>) {
        let what = self.byte() % 16;
        let data = if what < 8 { self.text() } else { Vec::new() };
        match what {
            0 => drop(wsi.send_binary(&data)),
            1 => drop(wsi.send_text(&String::from_utf8_lossy(&data))),
            2 => drop(wsi.send_bytes(data.into())),
            3 => drop(wsi.send_string(String::from_utf8_lossy(&data).into_owned())),
            4 => drop(wsi.send_fragment(MessageKind::Binary, &data, Fin::More)),
            5 => drop(wsi.send_fragment(MessageKind::Binary, &data, Fin::Last)),
            6 => {
                let options = SendOptions::default().compression(Compression::Always);
                let _ = wsi.send_with(Message::Binary(&data), options);
            }
            7 => drop(wsi.send_ping(&data)),
            8 => wsi.request_writable(),
            9 => wsi.pause_reading(),
            10 => wsi.resume_reading(),
            11 => wsi.close(self.close()),
            12 => wsi.abort(),
            13 => {
                let timer = wsi.set_timer(self.time(), TimerTag(3));
                self.with(|world| world.timers.extend(timer));
            }
            _ => self.call(wsi.cx()),
        }
    }

    /// Up to three calls on an exchange, and how its callback ends.
    fn act_http(&self, http: &mut Http<'_>) -> Result<(), HttpFailure> {
        self.with(|world| world.model.answering(http.id()));
        for _ in 0..self.byte() % 4 {
            self.call_http(http);
        }
        match self.byte() {
            255 => Err(HttpFailure::abort()),
            254 => Err(Response::text(500, "as the script says\n").into()),
            _ => Ok(()),
        }
    }

    fn call_http(&self, http: &mut Http<'_>) {
        match self.byte() % 16 {
            0 => drop(http.respond(Response::new(200).body(self.text()))),
            1 => drop(http.start(200, &Default::default(), BodyLength::Unknown)),
            2 => drop(http.start(200, &Default::default(), BodyLength::Known(100))),
            3 | 4 => drop(http.write(&self.text())),
            5 | 6 => drop(http.finish()),
            7 => http.request_writable(),
            8 => http.pause_reading(),
            9 => http.resume_reading(),
            10 => http.abort(),
            11 => http.close_after(),
            12 => {
                let timer = http.set_timer(self.time(), TimerTag(4));
                self.with(|world| world.timers.extend(timer));
            }
            _ => self.call(http.cx()),
        }
    }

    fn act_fetch(&self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        self.with(|world| world.model.fetches(id));
        self.act(cx);
        match self.byte() {
            255 => Err(FetchAbort),
            _ => Ok(()),
        }
    }
}

impl Protocol for Actor {
    type Session = WsiId;

    fn filter_upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        self.act(cx);
        match (request.path(), self.byte()) {
            ("/later", _) => {
                self.with(|world| world.requests.push(request.id()));
                Ok(Accept::later())
            }
            (_, 255) => Err(Refuse::new(403)),
            (_, 254) => Ok(Accept::new().no_deflate().no_subprotocol()),
            _ => Ok(Accept::new()),
        }
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<WsiId, Close> {
        self.with(|world| {
            world.model.established(wsi.id());
            world.sockets.push(wsi.id());
        });
        let verdict = self.act_on(wsi);
        if verdict.is_err() {
            self.with(|world| world.model.not_wanted(wsi.id(), wsi.side()));
        }
        verdict.map(|()| wsi.id())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        id: &mut WsiId,
        _: Message<'_>,
    ) -> Result<(), Close> {
        assert_eq!(wsi.id(), *id);
        self.act_on(wsi)
    }

    fn on_chunk(&mut self, wsi: &mut Wsi<'_>, id: &mut WsiId, _: Chunk<'_>) -> Result<(), Close> {
        assert_eq!(wsi.id(), *id);
        self.act_on(wsi)
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, id: &mut WsiId) -> Result<(), Close> {
        assert_eq!(wsi.id(), *id);
        self.act_on(wsi)
    }

    fn on_pong(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut WsiId,
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<(), Close> {
        self.act_on(wsi)
    }

    fn on_peer_close(&mut self, wsi: &mut Wsi<'_>, _: &mut WsiId, _: Option<CloseFrame<'_>>) {
        let _ = self.act_on(wsi);
        assert!(wsi.send_text("too late").is_err());
    }

    fn on_timer(&mut self, wsi: &mut Wsi<'_>, id: &mut WsiId, _: TimerTag) -> Result<(), Close> {
        assert_eq!(wsi.id(), *id);
        self.act_on(wsi)
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, _: TimerTag) {
        self.act(cx);
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, id: WsiId, session: WsiId, cause: &CloseCause) {
        assert_eq!(id, session);
        self.with(|world| {
            world.model.closed(id);
            if let Some(next) = cause.reconnect() {
                world.model.dialled(next);
                world.sockets.push(next);
            }
        });
        self.act(cx);
    }

    fn on_connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, _: &ConnectError) {
        self.with(|world| world.model.connect_failed(id));
        self.act(cx);
    }

    fn on_retry(&mut self, cx: &mut Cx<'_>, id: WsiId, _: &ConnectError, _: Duration) {
        self.with(|world| world.model.retries(id));
        self.act(cx);
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.act(cx);
    }
}

impl HttpHandler for Actor {
    type Exchange = ExchangeId;

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        _: &HttpRequest<'_>,
    ) -> Result<ExchangeId, HttpFailure> {
        let id = http.id();
        self.with(|world| {
            world.model.asked(id);
            world.exchanges.push(id);
        });
        let verdict = self.act_http(http);
        if verdict.is_err() {
            // It does not come about then.
            self.with(|world| world.model.answered(id));
        }
        verdict.map(|()| id)
    }

    fn on_body(
        &mut self,
        http: &mut Http<'_>,
        _: &mut ExchangeId,
        _: &[u8],
    ) -> Result<(), HttpFailure> {
        self.act_http(http)
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, _: &mut ExchangeId) -> Result<(), HttpFailure> {
        self.act_http(http)
    }

    fn on_writable(&mut self, http: &mut Http<'_>, _: &mut ExchangeId) -> Result<(), HttpFailure> {
        self.act_http(http)
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        _: &mut ExchangeId,
        _: TimerTag,
    ) -> Result<(), HttpFailure> {
        self.act_http(http)
    }

    fn on_read_closed(
        &mut self,
        http: &mut Http<'_>,
        _: &mut ExchangeId,
    ) -> Result<(), HttpFailure> {
        self.act_http(http)
    }

    fn on_done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ExchangeId,
        exchange: ExchangeId,
        _: &ExchangeOutcome,
    ) {
        assert_eq!(id, exchange);
        self.with(|world| world.model.answered(id));
        self.act(cx);
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, _: TimerTag) {
        self.act(cx);
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.act(cx);
    }
}

impl HttpClientHandler for Actor {
    fn on_response(
        &mut self,
        cx: &mut Cx<'_>,
        id: FetchId,
        _: &wsloop::http::head::ResponseHead<'_>,
    ) -> Result<(), FetchAbort> {
        self.act_fetch(cx, id)
    }

    fn on_body(&mut self, cx: &mut Cx<'_>, id: FetchId, _: &[u8]) -> Result<(), FetchAbort> {
        self.act_fetch(cx, id)
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        self.act_fetch(cx, id)
    }

    fn on_done(&mut self, cx: &mut Cx<'_>, id: FetchId, _: Result<Fetched, FetchError>) {
        self.with(|world| world.model.fetched(id));
        self.act(cx);
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, _: TimerTag) {
        self.act(cx);
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.act(cx);
    }
}

impl Hook for Actor {
    fn ask(
        &mut self,
        cx: &mut Cx<'_>,
        request: &wsloop::HookRequest<'_>,
    ) -> Result<HookAnswer, HookError> {
        self.act(cx);
        match (&*request.path(), self.byte()) {
            ("/ask", _) => {
                self.with(|world| world.questions.push(request.id()));
                Ok(HookAnswer::Later)
            }
            (_, 255) => Ok(HookAnswer::deny(403)),
            (_, 254) => Err(HookError::new("it broke")),
            _ => Ok(HookAnswer::Next),
        }
    }

    fn on_abandoned(&mut self, cx: &mut Cx<'_>, _: HookRequestId) {
        self.act(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, _: TimerTag) {
        self.act(cx);
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.act(cx);
    }
}

impl ContextObserver for Actor {
    fn on_refused(&mut self, cx: &mut Cx<'_>, _: &wsloop::ServerRefusal) {
        self.act(cx);
    }

    fn on_listener_trouble(&mut self, cx: &mut Cx<'_>, _: &wsloop::ListenerTrouble) {
        self.act(cx);
    }

    fn on_vhost_error(&mut self, cx: &mut Cx<'_>, _: VhostId, _: &wsloop::VhostError) {
        self.act(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, _: TimerTag) {
        self.act(cx);
    }
}

/// The outside: the context, its network, the strangers.
struct Scene {
    net: Net,
    actor: Actor,
    context: Context,
    sockets: ProtocolHandle<Actor>,
    handlers: HandlerHandle<Actor>,
    clients: HttpClientHandle<Actor>,
    there: SimPeerListener,
    /// Whom the context has dialled.
    dialled: Vec<SimPeer>,
    /// Who has dialled the context.
    strangers: Vec<Stranger>,
}

impl Scene {
    fn new(net: &Net, actor: Actor) -> Self {
        let config = ContextConfig::new()
            .observer(actor.clone())
            .max_connections(24)
            .max_inflaters(2)
            .max_context_takeovers(2)
            .receive_buffer(4096)
            .turn_budget(16 * 1024);
        let mut context = Context::simulated(net, config).expect("nothing is opened");
        let variant = lock(&actor.0).variant;
        let mut vhost = VhostConfig::new("a.test");
        let sockets = vhost.add_protocol("messages", actor.clone());
        let _ = vhost.add_chunk_protocol("chunks", actor.clone());
        let clients = vhost.add_http_client(actor.clone());
        let (mount, handlers) = Mount::handler_with("/e", actor.clone());
        let vhost = furnish(vhost.mount(mount), variant, &actor);
        let vhost = context.create_vhost(vhost).expect("it is fit to be made");
        let client = client_vhost(variant, &actor);
        let client = context.create_vhost(client).expect("it is fit to be made");
        actor.with(|world| {
            world.vhosts = vec![vhost, client];
            world.clients = Some(clients);
        });
        let there = THERE.parse().expect("an address");
        Self {
            net: net.clone(),
            actor,
            context,
            sockets,
            handlers,
            clients,
            there: net.listen(there).expect("nobody listens there"),
            dialled: Vec::new(),
            strangers: Vec::new(),
        }
    }

    fn act(&mut self) {
        let actor = self.actor.clone();
        match actor.byte() % 16 {
            0..=2 => drop(
                self.context
                    .with_protocol(self.sockets, |actor, cx| actor.call(cx)),
            ),
            3 => drop(
                self.context
                    .with_handler(self.handlers, |actor, cx| actor.call(cx)),
            ),
            4 => drop(
                self.context
                    .with_http_client(self.clients, |actor, cx| actor.call(cx)),
            ),
            5 => actor.connect(|vhost, info| self.context.client_connect(vhost, info)),
            6 => actor.fetch(|vhost, info| self.context.fetch(vhost, info)),
            7 => self.of_the_context(),
            8 | 9 => actor.with(|world| let_time_pass(&mut world.script, &self.net)),
            10 => actor.with(|world| fault(&mut world.script, &self.net)),
            11 => self
                .net
                .limit_io([usize::MAX, 1, 100, 5000][usize::from(actor.byte() % 4)]),
            12 => self
                .net
                .set_capacity([64 * 1024, 1, 5000][usize::from(actor.byte() % 3)]),
            13 => self.dial(),
            14 => self.speak(),
            _ => self.answer(),
        }
    }

    fn of_the_context(&mut self) {
        let actor = self.actor.clone();
        match actor.byte() {
            255 => self.context.shutdown(Duration::from_secs(3)),
            what => match what % 6 {
                0 => drop(self.context.set_timer(actor.time(), TimerTag(7))),
                1 => self.context.cancel_service_handle().cancel_service(),
                2 => {
                    let made = self.context.create_vhost(actor.vhost(what >= 128));
                    actor.with(|world| world.vhosts.extend(made));
                }
                3 => {
                    if let Some(id) = actor.choose(|world| &world.vhosts) {
                        let _ = self.context.destroy_vhost(id);
                    }
                }
                4 => {
                    if let Some(timer) = actor.choose(|world| &world.timers) {
                        self.context.cancel_timer(timer);
                    }
                }
                _ => {
                    if let Some(id) = actor.choose(|world| &world.vhosts) {
                        let _ = self.context.http_pool_metrics(id);
                        let _ = self.context.listen_addrs(id);
                    }
                }
            },
        }
    }

    fn dial(&mut self) {
        let here = HERE.parse().expect("an address");
        if let (Ok(peer), true) = (self.net.dial(here), self.strangers.len() < 8) {
            let tls = (lock(&self.actor.0).variant & TLS != 0).then_some(&CONFIGS.client);
            let mut stranger = Stranger::new(peer, tls);
            stranger.write(&[], usize::MAX);
            self.strangers.push(stranger);
        }
    }

    /// Somebody who has dialled the context.
    fn speak(&mut self) {
        let actor = self.actor.clone();
        let count = self.strangers.len().max(1);
        self.strangers
            .rotate_left(usize::from(actor.byte()) % count);
        let Some(stranger) = self.strangers.last_mut() else {
            return;
        };
        match actor.byte() % 8 {
            0 => stranger.read(usize::MAX),
            1..=3 => stranger.write(HEADS[usize::from(actor.byte()) % HEADS.len()], usize::MAX),
            4 | 5 => {
                let frame = actor.with(|world| frame(&mut world.script));
                stranger.write(&frame, usize::MAX);
            }
            6 => stranger.shutdown_write(),
            _ => drop(self.strangers.pop()),
        }
    }

    /// Somebody whom the context has dialled.
    fn answer(&mut self) {
        while let Some(peer) = self.there.accept() {
            self.dialled.push(peer);
        }
        let actor = self.actor.clone();
        let count = self.dialled.len().max(1);
        self.dialled.rotate_left(usize::from(actor.byte()) % count);
        let Some(peer) = self.dialled.last() else {
            return;
        };
        match actor.byte() % 8 {
            0 => drop(peer.read()),
            1..=5 => {
                let answer = ANSWERS[usize::from(actor.byte()) % ANSWERS.len()];
                let _ = peer.write(answer);
            }
            6 => drop(self.dialled.pop()),
            _ => drop(self.dialled.pop().map(SimPeer::reset)),
        }
    }

    fn turn(&mut self) {
        turn(&mut self.context, &self.net);
    }

    /// Shuts down; what is left then is too much.
    fn end(mut self) {
        self.strangers.clear();
        self.dialled.clear();
        self.context.shutdown(Duration::from_secs(1));
        drain(&mut self.context, &self.net);
        assert!(self.context.is_shut_down());
        self.actor.with(|world| world.model.check_over());
    }
}

fn furnish(config: VhostConfig, variant: u8, actor: &Actor) -> VhostConfig {
    let mut limits = Limits::default().with_message_bytes(16 * 1024);
    limits.output_bytes = 32 * 1024;
    limits.output_low_water = 2048;
    limits.body_bytes = 1024;
    let here: SocketAddr = HERE.parse().expect("an address");
    let mut listen = ListenConfig::new(here);
    if variant & TLS != 0 {
        listen = listen.tls(PlaintextPolicy::Serve);
    }
    let hook = HookConfig::new("asks", actor.clone()).deadline(Duration::from_secs(4));
    let hooks = HookChain::new().with(hook).otherwise_allow();
    let mut config = config
        .listen(listen)
        .limits(limits)
        .hooks(hooks)
        .http_pool(PoolConfig::new().total(3).per_origin(2).waiting(4))
        .default_protocol("messages")
        .mount(Mount::redirect("/r", 308, "/e"));
    if variant & TLS != 0 {
        config = config
            .server_tls(ServerTls::from_rustls(Arc::clone(&CONFIGS.server)))
            .client_tls(ClientTls::from_rustls(Arc::clone(&CONFIGS.client)));
    }
    if variant & DEFLATE != 0 {
        config = config.deflate(DeflateConfig::new().threshold(8));
    }
    config
}

fn client_vhost(variant: u8, actor: &Actor) -> VhostConfig {
    let mut config = VhostConfig::new("client")
        .protocol("messages", actor.clone())
        .http_client(actor.clone());
    if variant & TLS != 0 {
        config = config.client_tls(ClientTls::from_rustls(Arc::clone(&CONFIGS.client_of_tls12)));
    }
    if variant & DEFLATE != 0 {
        config = config.deflate(DeflateConfig::new().threshold(8));
    }
    config
}

/// What strangers say to those who dial them.
const ANSWERS: [&[u8]; 10] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/e\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early\r\n\r\n",
    b"HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nno\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"HTTP/1.1 2",
];
