//! The requests of a context: what is known of each, wherever it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{FetchError, FetchFailure, FetchStage, FetchWriteError};
use super::handler::{Fetched, HttpClientHandler};
use super::info::{FetchInfo, PoolKey};
use crate::arena::Arena;
use crate::conn::Queued;
use crate::context::Parts;
use crate::error::{ConnectError, ConnectStage, Gone, VhostError};
use crate::hook::HookPlace;
use crate::http::HeaderList;
use crate::http::client::{BodyWriteError, Freshness, Pool, PoolMetrics, Redirects};
use crate::id::{FetchId, VhostId, WsiId};
use crate::inner::{Inner, Owner, TimerKind, Vhost, VhostState};
use crate::timer::{TimerKey, saturating_add};
use crate::wsi::Cx;

/// The pool of a vhost.
pub(crate) type VhostPool = Pool<Arc<PoolKey>, WsiId, FetchId>;

/// The requests of a context.
#[derive(Debug)]
pub(crate) struct Fetches {
    table: Arena<Box<Fetch>>,
    /// Those that somebody has to find a connection for, or to give up.
    queue: VecDeque<FetchId>,
    /// Pools where something has changed: those who wait may have their turn.
    changed: Vec<VhostId>,
}

/// Who is told about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchOwner {
    /// The handler of that index.
    Handler(u32),
    /// A hook of the library's own that asks an endpoint.
    Hook(HookPlace),
}

impl FetchOwner {
    /// The hook whose callback runs.
    pub(crate) const fn hook(running: Owner) -> Option<Self> {
        match running {
            Owner::Hook(place) => Some(Self::Hook(place)),
            _ => None,
        }
    }
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a connection, or on one that is being dialled for it.
    On(WsiId),
    /// In the queue of those that were just begun, or begin again.
    Queued,
    /// In the queue of its pool.
    Waiting,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) vhost: VhostId,
    pub(crate) owner: FetchOwner,
    /// The hop that is asked for now.
    pub(crate) info: FetchInfo,
    pub(crate) key: Arc<PoolKey>,
    pub(crate) redirects: Option<Redirects>,
    pub(crate) place: Place,
    pub(crate) freshness: Freshness,
    pub(crate) attempts: u32,
    /// It was sent again after a connection that was there before had failed it.
    pub(crate) repeated: bool,
    pub(crate) reused: bool,
    pub(crate) paused: bool,
    pub(crate) cancelled: bool,
    pub(crate) upload: Option<Upload>,
    pub(crate) status: u16,
    pub(crate) headers: HeaderList,
    pub(crate) body: Vec<u8>,
    began: Instant,
    total: Option<Instant>,
    /// Until when it may wait for a connection.
    pub(crate) wait: Option<Instant>,
    timer: Option<(Instant, TimerKey)>,
}

/// A request's body that comes in pieces, as far as the connection has not taken it.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) pending: Vec<u8>,
    /// What the declared length leaves room for.
    left: Option<u64>,
    pub(crate) finished: bool,
    /// The peer has answered with a refusal: it wants no more.
    pub(crate) refused: bool,
    pub(crate) wants_writable: bool,
    /// Bytes that the connection has taken and not sent yet.
    pub(crate) in_flight: usize,
}

impl Upload {
    fn new(length: Option<u64>) -> Self {
        Self {
            pending: Vec::new(),
            left: length,
            finished: false,
            refused: false,
            wants_writable: true,
            in_flight: 0,
        }
    }

    fn write(&mut self, data: &[u8], limit: usize) -> Result<Queued, FetchWriteError> {
        if self.refused {
            return Err(FetchWriteError::Gone);
        }
        let left = match self.left {
            _ if self.finished => return Err(BodyWriteError::TooLong.into()),
            None => None,
            Some(left) => {
                let rest = left.checked_sub(data.len() as u64);
                Some(rest.ok_or(BodyWriteError::TooLong)?)
            }
        };
        let buffered = self.pending.len() + self.in_flight;
        if buffered > 0 && buffered.saturating_add(data.len()) > limit {
            return Err(FetchWriteError::Full { buffered, limit });
        }
        self.left = left;
        self.pending.extend_from_slice(data);
        Ok(Queued {
            buffered: buffered + data.len(),
        })
    }

    fn finish(&mut self) -> Result<(), FetchWriteError> {
        if self.refused {
            return Err(FetchWriteError::Gone);
        }
        if let Some(left @ 1..) = self.left {
            return Err(BodyWriteError::TooShort { left }.into());
        }
        self.finished = true;
        Ok(())
    }
}

impl Fetches {
    pub(crate) const fn new() -> Self {
        Self {
            table: Arena::new(),
            queue: VecDeque::new(),
            changed: Vec::new(),
        }
    }

    pub(crate) fn get(&self, id: FetchId) -> Option<&Fetch> {
        Some(self.table.get(id.index, id.generation)?)
    }

    pub(crate) fn get_mut(&mut self, id: FetchId) -> Option<&mut Fetch> {
        Some(self.table.get_mut(id.index, id.generation)?)
    }

    /// Whether nothing has to be done about any of them.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.changed.is_empty()
    }

    pub(crate) fn recycle(&mut self) {
        self.table.recycle();
    }

    /// How many have to be looked at.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn next_queued(&mut self) -> Option<FetchId> {
        self.queue.pop_front()
    }

    pub(crate) fn next_changed(&mut self) -> Option<VhostId> {
        self.changed.pop()
    }

    pub(crate) fn note_change(&mut self, pool: VhostId) {
        if !self.changed.contains(&pool) {
            self.changed.push(pool);
        }
    }

    /// Has it look for a connection again, behind the others.
    pub(crate) fn requeue(&mut self, id: FetchId) {
        if let Some(fetch) = self.get_mut(id) {
            fetch.place = Place::Queued;
            self.queue.push_back(id);
        }
    }

    /// The same, before the others: it had its turn already.
    pub(crate) fn requeue_first(&mut self, id: FetchId) {
        if let Some(fetch) = self.get_mut(id) {
            fetch.place = Place::Queued;
            self.queue.push_front(id);
        }
    }

    /// All of them; see [`Context::check_invariants`](crate::Context::check_invariants).
    #[cfg(feature = "sim")]
    pub(crate) fn all(&self) -> impl Iterator<Item = (FetchId, &Fetch)> {
        let all = self.table.iter();
        all.map(|(index, generation, fetch)| (FetchId { index, generation }, &**fetch))
    }

    /// What contradicts itself in the table.
    #[cfg(feature = "sim")]
    pub(crate) fn contradiction(&self) -> Option<String> {
        self.table.contradiction()
    }

    /// Whether somebody will look for a connection for it.
    #[cfg(feature = "sim")]
    pub(crate) fn is_queued(&self, id: FetchId) -> bool {
        self.queue.contains(&id)
    }

    /// Whether somebody will look at that pool.
    #[cfg(feature = "sim")]
    pub(crate) fn has_changed(&self, pool: VhostId) -> bool {
        self.changed.contains(&pool)
    }

    pub(crate) fn ids(&self, wanted: impl Fn(&Fetch) -> bool) -> Vec<FetchId> {
        let all = self.table.iter().filter(|(_, _, fetch)| wanted(fetch));
        all.map(|(index, generation, _)| FetchId { index, generation })
            .collect()
    }
}

impl Fetch {
    fn outcome(self, now: Instant, failed: Option<(FetchStage, FetchFailure)>) -> Outcome {
        let elapsed = now.saturating_duration_since(self.began);
        let redirects = self.redirects.as_ref().map_or(0, Redirects::count);
        match failed {
            Some((stage, failure)) => {
                let error = FetchError::new(stage, failure, self.info.shown_url());
                Err(error.after(elapsed, self.attempts))
            }
            None => Ok(Fetched {
                status: self.status,
                headers: self.headers,
                body: self.body,
                url: self.info.url(),
                redirects: u32::try_from(redirects).unwrap_or(u32::MAX),
                reused: self.reused,
                attempts: self.attempts,
                elapsed,
            }),
        }
    }

    /// Its armed timer.
    #[cfg(feature = "sim")]
    pub(crate) fn armed(&self) -> Option<(Instant, TimerKey)> {
        self.timer
    }

    /// When somebody has to come by although it has no connection.
    #[cfg(feature = "sim")]
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = self.wait.filter(|_| self.place == Place::Waiting);
        [self.total, waits].into_iter().flatten().min()
    }

    /// Whether its time is over altogether.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.total.is_some_and(|total| total <= now)
    }

    pub(crate) fn total_limit(&self) -> Duration {
        self.info.own_timeouts().total.unwrap_or(Duration::MAX)
    }
}

type Outcome = Result<Fetched, FetchError>;

impl Vhost {
    /// The HTTP client handler of that key, or the first one.
    fn http_client(&self, key: Option<u64>) -> Option<u32> {
        let mut clients = self.http_clients.iter();
        let found = match key {
            None => clients.next(),
            Some(key) => clients.find(|(known, _)| *known == key),
        };
        found.map(|(_, index)| *index)
    }
}

impl Inner {
    /// Begins a request: checked and named now, sent when no callback runs.
    pub(crate) fn fetch(&mut self, vhost: VhostId, info: FetchInfo) -> Result<FetchId, FetchError> {
        let handler = self.vhost(vhost);
        let handler = handler.and_then(|vhost| vhost.http_client(info.handler_key()));
        self.fetch_for(handler.map(FetchOwner::Handler), vhost, info)
    }

    /// The same for a certain owner.
    pub(crate) fn fetch_for(
        &mut self,
        owner: Option<FetchOwner>,
        vhost: VhostId,
        info: FetchInfo,
    ) -> Result<FetchId, FetchError> {
        let refuse = |info: &FetchInfo, failure| {
            Err(FetchError::new(
                FetchStage::Argument,
                failure,
                info.shown_url(),
            ))
        };
        if self.shutting_down {
            return refuse(&info, FetchFailure::Shutdown);
        }
        let active = |vhost: &&Vhost| vhost.state == VhostState::Active;
        let (Some(known), Some(owner)) = (self.vhost(vhost).filter(active), owner) else {
            return refuse(&info, FetchFailure::UnknownHandler);
        };
        if info.connect().is_tls() && !known.has_client_tls() {
            return refuse(&info, FetchFailure::NoClientTls);
        }
        if let Err(failure) = known.check_names(info.connect()) {
            let target = info.connect().dial_target();
            let error = ConnectError::new(ConnectStage::Argument, failure, target);
            return refuse(&info, FetchFailure::Connect(error));
        }
        if let Err(error) = info.outgoing(&info.connect().host_header()) {
            return refuse(&info, error.into());
        }
        let url = info.shown_url();
        self.insert_fetch(vhost, owner, info).ok_or_else(|| {
            let failure = FetchFailure::TooManyConnections(self.max_connections);
            FetchError::new(FetchStage::Argument, failure, url)
        })
    }

    fn insert_fetch(
        &mut self,
        vhost: VhostId,
        owner: FetchOwner,
        info: FetchInfo,
    ) -> Option<FetchId> {
        let now = self.out.now;
        let total = info.own_timeouts().total;
        let redirects = info.redirect_policy().cloned();
        let fetch = Box::new(Fetch {
            vhost,
            owner,
            key: info.pool_key(),
            redirects: redirects.map(Redirects::new),
            place: Place::Queued,
            freshness: Freshness::Any,
            attempts: 0,
            repeated: false,
            reused: false,
            paused: false,
            cancelled: false,
            upload: info.streams_body().map(Upload::new),
            status: 0,
            headers: HeaderList::new(),
            body: Vec::new(),
            began: now,
            total: total.and_then(|total| saturating_add(now, total)),
            wait: None,
            timer: None,
            info,
        });
        let (index, generation) = self.fetches.table.insert(|_, _| fetch)?;
        let id = FetchId { index, generation };
        if let Some(vhost) = self.vhost_mut(vhost) {
            vhost.fetches += 1;
        }
        self.fetches.queue.push_back(id);
        self.arm_fetch(id);
        Some(id)
    }

    /// Makes sure that somebody comes by at its deadlines that no connection looks after.
    pub(crate) fn arm_fetch(&mut self, id: FetchId) {
        let Some(fetch) = self.fetches.get_mut(id) else {
            return;
        };
        let waits = fetch.wait.filter(|_| fetch.place == Place::Waiting);
        let Some(at) = [fetch.total, waits].into_iter().flatten().min() else {
            return;
        };
        match fetch.timer {
            Some((armed, _)) if armed <= at => return,
            Some((_, key)) => {
                self.out.timers.cancel(key);
            }
            None => {}
        }
        let key = self.out.timers.arm(at, TimerKind::Fetch(id));
        if let Some(fetch) = self.fetches.get_mut(id) {
            fetch.timer = Some((at, key));
        }
    }

    /// Its timer came; it may be early for what it is about now.
    pub(crate) fn fetch_timer_fired(&mut self, id: FetchId) {
        if let Some(fetch) = self.fetches.get_mut(id) {
            fetch.timer = None;
        }
    }

    /// Takes a request off all accounts.
    pub(crate) fn remove_fetch(&mut self, id: FetchId) -> Option<Box<Fetch>> {
        let fetch = self.fetches.table.remove(id.index, id.generation)?;
        if let Some((_, key)) = fetch.timer {
            self.out.timers.cancel(key);
        }
        if let Some(vhost) = self.vhost_mut(fetch.vhost) {
            vhost.fetches -= 1;
            if fetch.place == Place::Waiting {
                vhost.http_pool.remove_waiter(id);
            }
        }
        Some(fetch)
    }

    pub(crate) fn cancel_fetch(&mut self, id: FetchId) -> Result<(), Gone> {
        let fetch = self.fetches.get_mut(id).filter(|fetch| !fetch.cancelled);
        let fetch = fetch.ok_or(Gone)?;
        fetch.cancelled = true;
        match fetch.place {
            Place::On(wsi) => self.mark_conn(wsi),
            Place::Queued => {}
            Place::Waiting => self.fetches.queue.push_back(id),
        }
        Ok(())
    }

    pub(crate) fn write_fetch(
        &mut self,
        id: FetchId,
        data: &[u8],
    ) -> Result<Queued, FetchWriteError> {
        let fetch = self.fetches.get(id).ok_or(FetchWriteError::Gone)?;
        let vhost = self.vhost(fetch.vhost).ok_or(FetchWriteError::Gone)?;
        let limit = vhost.settings.limits.output_bytes;
        self.upload(id, |upload| upload.write(data, limit))
    }

    pub(crate) fn finish_fetch(&mut self, id: FetchId) -> Result<(), FetchWriteError> {
        self.upload(id, Upload::finish)
    }

    pub(crate) fn request_fetch_writable(&mut self, id: FetchId) -> Result<(), FetchWriteError> {
        self.upload(id, |upload| {
            if upload.refused || upload.finished {
                return Err(FetchWriteError::Gone);
            }
            upload.wants_writable = true;
            Ok(())
        })
    }

    pub(crate) fn pause_fetch(&mut self, id: FetchId, paused: bool) -> Result<(), Gone> {
        let fetch = self.fetches.get_mut(id).ok_or(Gone)?;
        fetch.paused = paused;
        if let Place::On(wsi) = fetch.place {
            self.mark_conn(wsi);
        }
        Ok(())
    }

    fn upload<T>(
        &mut self,
        id: FetchId,
        change: impl FnOnce(&mut Upload) -> Result<T, FetchWriteError>,
    ) -> Result<T, FetchWriteError> {
        let fetch = self.fetches.get_mut(id).filter(|fetch| !fetch.cancelled);
        let fetch = fetch.ok_or(FetchWriteError::Gone)?;
        let place = fetch.place;
        let upload = fetch.upload.as_mut().ok_or(FetchWriteError::NotStreamed)?;
        let changed = change(upload)?;
        if let Place::On(wsi) = place {
            self.mark_conn(wsi);
        }
        Ok(changed)
    }

    /// Has the loop come by at a connection; the one that a callback is about is looked after
    /// anyway.
    pub(crate) fn mark_conn(&mut self, id: WsiId) {
        if let Some(conn) = self.conns.get_mut(id.index, id.generation) {
            conn.send.mark(&mut self.out);
        }
    }

    pub(crate) fn http_pool_metrics(&self, id: VhostId) -> Result<PoolMetrics, VhostError> {
        let vhost = self.vhost(id).ok_or(VhostError::Gone)?;
        Ok(vhost.http_pool.metrics())
    }
}

/// Calls the owner of a request that goes on.
pub(crate) fn tell<R>(
    inner: &mut Inner,
    parts: &mut Parts,
    id: FetchId,
    call: impl FnOnce(&mut dyn HttpClientHandler, &mut Cx<'_>) -> R,
) -> Option<R> {
    let owner = inner.fetches.get(id)?.owner;
    if let Some(mark) = &mut inner.lifted {
        mark.fetch = Some(id);
    }
    tell_owner(inner, parts, owner, call)
}

fn tell_owner<R>(
    inner: &mut Inner,
    parts: &mut Parts,
    owner: FetchOwner,
    call: impl FnOnce(&mut dyn HttpClientHandler, &mut Cx<'_>) -> R,
) -> Option<R> {
    match owner {
        FetchOwner::Handler(index) => {
            let slot = parts.http_clients.get_mut(index as usize)?;
            let mut cx = Cx::new(inner, Owner::HttpClient(index));
            Some(call(slot.dispatch.handler(), &mut cx))
        }
        FetchOwner::Hook(place) => {
            let chain = parts.hooks.get_mut(place.chain as usize)?;
            let hook = chain.hooks.get_mut(place.at)?;
            let mut cx = Cx::new(inner, Owner::Hook(place));
            Some(call(hook.dispatch.fetching()?, &mut cx))
        }
    }
}

/// The final event of a request. It is off all accounts before its owner hears of it.
pub(crate) fn end(
    inner: &mut Inner,
    parts: &mut Parts,
    id: FetchId,
    failed: Option<(FetchStage, FetchFailure)>,
) {
    let Some(fetch) = inner.remove_fetch(id) else {
        return;
    };
    let (owner, vhost) = (fetch.owner, fetch.vhost);
    let outcome = fetch.outcome(inner.out.now, failed);
    tell_owner(inner, parts, owner, |handler, cx| {
        handler.on_done(cx, id, outcome);
    });
    crate::vhost::bury(inner, parts, vhost);
}
