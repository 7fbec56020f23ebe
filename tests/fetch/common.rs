//! A handler that keeps what it is told, and a stranger who listens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::http::head::ResponseHead;
use wsloop::sim::{Net, SimPeer, SimPeerListener};
use wsloop::{
    Context, ContextConfig, Cx, FetchAbort, FetchError, FetchId, FetchInfo, Fetched,
    HttpClientHandle, HttpClientHandler, PoolConfig, PoolMetrics, TimerTag, VhostConfig, VhostId,
};

pub const THERE: &str = "10.0.0.7:80";
pub const URL: &str = "http://10.0.0.7/a";
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What a [`Keeper`] was told.
#[derive(Debug)]
pub enum Told {
    Interim(u16),
    Head(u16),
    Data(Vec<u8>),
    Writable,
    Done(Result<Fetched, FetchError>),
    Timer(u64),
    Wake,
}

type Act = Box<dyn FnMut(&mut Cx<'_>, FetchId) -> Result<(), FetchAbort> + Send>;
type OnCx = Box<dyn FnMut(&mut Cx<'_>) + Send>;

/// What a test has a [`Keeper`] do.
#[derive(Default)]
pub struct Acts {
    pub response: Option<Act>,
    pub body: Option<Act>,
    pub writable: Option<Act>,
    pub done: Option<Act>,
    pub wake: Option<OnCx>,
}

#[derive(Clone, Default)]
pub struct Keeper {
    told: Arc<Mutex<Vec<Told>>>,
    acts: Arc<Mutex<Acts>>,
}

impl Keeper {
    pub fn set(&self, set: impl FnOnce(&mut Acts)) {
        set(&mut self.acts.lock().unwrap());
    }

    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn put(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    fn act(
        &self,
        pick: impl FnOnce(&mut Acts) -> &mut Option<Act>,
        cx: &mut Cx<'_>,
        id: FetchId,
    ) -> Result<(), FetchAbort> {
        let mut acts = self.acts.lock().unwrap();
        pick(&mut acts).as_mut().map_or(Ok(()), |act| act(cx, id))
    }

    /// The same with what it was told, after a panic has poisoned its locks.
    pub fn recovered(&self) -> Self {
        self.told.clear_poison();
        self.acts.clear_poison();
        self.clone()
    }

    /// The outcomes, in order, others dropped.
    pub fn outcomes(&self) -> Vec<Result<Fetched, FetchError>> {
        let done = |told| match told {
            Told::Done(outcome) => Some(outcome),
            _ => None,
        };
        self.take().into_iter().filter_map(done).collect()
    }

    /// The one outcome, which is a response.
    pub fn fetched(&self) -> Fetched {
        let mut outcomes = self.outcomes();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        outcomes.remove(0).unwrap()
    }

    /// The one outcome, which is a failure.
    pub fn error(&self) -> FetchError {
        let mut outcomes = self.outcomes();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        outcomes.remove(0).unwrap_err()
    }
}

impl HttpClientHandler for Keeper {
    fn on_interim(
        &mut self,
        _: &mut Cx<'_>,
        _: FetchId,
        head: &ResponseHead<'_>,
    ) -> Result<(), FetchAbort> {
        self.put(Told::Interim(head.status()));
        Ok(())
    }

    fn on_response(
        &mut self,
        cx: &mut Cx<'_>,
        id: FetchId,
        head: &ResponseHead<'_>,
    ) -> Result<(), FetchAbort> {
        self.put(Told::Head(head.status()));
        self.act(|acts| &mut acts.response, cx, id)
    }

    fn on_body(&mut self, cx: &mut Cx<'_>, id: FetchId, data: &[u8]) -> Result<(), FetchAbort> {
        self.put(Told::Data(data.to_vec()));
        self.act(|acts| &mut acts.body, cx, id)
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        self.put(Told::Writable);
        self.act(|acts| &mut acts.writable, cx, id)
    }

    fn on_done(&mut self, cx: &mut Cx<'_>, id: FetchId, outcome: Result<Fetched, FetchError>) {
        assert!(cx.cancel_fetch(id).is_err(), "the id is stale");
        self.put(Told::Done(outcome));
        let _ = self.act(|acts| &mut acts.done, cx, id);
    }

    fn on_free_timer(&mut self, _: &mut Cx<'_>, tag: TimerTag) {
        self.put(Told::Timer(tag.0));
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.put(Told::Wake);
        if let Some(act) = &mut self.acts.lock().unwrap().wake {
            act(cx);
        }
    }
}

/// A context with a client vhost, and a stranger who listens at [`THERE`].
pub struct Site {
    pub net: Net,
    pub context: Context,
    pub vhost: VhostId,
    pub keeper: Keeper,
    pub handle: HttpClientHandle<Keeper>,
    pub there: SimPeerListener,
}

impl Site {
    pub fn new() -> Self {
        Self::with(PoolConfig::new())
    }

    pub fn with(pool: PoolConfig) -> Self {
        Self::shaped(|config| config.http_pool(pool))
    }

    pub fn shaped(shape: impl FnOnce(VhostConfig) -> VhostConfig) -> Self {
        let net = Net::new(1);
        let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
        let keeper = Keeper::default();
        let mut config = VhostConfig::new("client");
        let handle = config.add_http_client(keeper.clone());
        let vhost = context.create_vhost(shape(config)).unwrap();
        let there = net.listen(THERE.parse().unwrap()).unwrap();
        Self {
            net,
            context,
            vhost,
            keeper,
            handle,
            there,
        }
    }

    pub fn turn(&mut self) {
        crate::support::turn(&mut self.context, 32);
    }

    /// Lets time pass in small steps.
    pub fn pass(&mut self, time: Duration) {
        crate::support::pass(&self.net, &mut self.context, time);
    }

    pub fn fetch(&mut self, info: FetchInfo) -> FetchId {
        let id = self.context.fetch(self.vhost, info).unwrap();
        self.turn();
        id
    }

    pub fn get(&mut self) -> FetchId {
        self.fetch(get())
    }

    pub fn cx<R>(&mut self, f: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let done = self.context.with_http_client(self.handle, |_, cx| f(cx));
        let done = done.unwrap();
        self.turn();
        done
    }

    /// Whoever has dialled.
    pub fn accept(&mut self) -> SimPeer {
        self.turn();
        self.there.accept().expect("somebody has dialled")
    }

    pub fn nobody_dials(&mut self) {
        self.turn();
        assert!(self.there.accept().is_none());
    }

    /// A connection that has served one request and is idle.
    pub fn idle(&mut self) -> SimPeer {
        self.get();
        let peer = self.accept();
        self.answer(&peer, OK);
        assert_eq!(self.keeper.fetched().status, 200);
        peer
    }

    /// Reads the request away and answers.
    pub fn answer(&mut self, peer: &SimPeer, response: &[u8]) -> String {
        let request = read(peer);
        assert!(
            request.contains("\r\n\r\n"),
            "no whole request: {request:?}"
        );
        peer.write(response).unwrap();
        self.turn();
        request
    }

    pub fn metrics(&self) -> PoolMetrics {
        self.context.http_pool_metrics(self.vhost).unwrap()
    }

    /// Open, idle, waiting.
    pub fn counts(&self) -> (usize, usize, usize) {
        let metrics = self.metrics();
        (metrics.open, metrics.idle, metrics.waiting)
    }
}

pub fn get() -> FetchInfo {
    FetchInfo::get(URL).unwrap()
}

pub fn read(peer: &SimPeer) -> String {
    String::from_utf8(peer.read()).unwrap()
}

/// A response with a body that declares its length.
pub fn response(status: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}
