//! Finding connections for requests: idle ones, new ones, or a place in the queue.

use std::sync::Arc;

use super::error::{FetchFailure, FetchStage};
use super::table::{self, Place};
use crate::conn::{NO_PROTOCOL, Role};
use crate::context::Context;
use crate::dial::{self, Bound};
use crate::error::{Deadline, DeadlineStage};
use crate::http::client::{Acquired, Freshness, GrantKind};
use crate::id::{FetchId, VhostId, WsiId};
use crate::inner::VhostState;
use crate::timer::saturating_add;

impl Context {
    /// Serves those who wait, then those who are new. Only those who are there now: what their
    /// callbacks begin waits for the next turn.
    pub(crate) fn on_fetches(&mut self) {
        while let Some(vhost) = self.inner.fetches.next_changed() {
            self.serve_waiting(vhost);
        }
        for _ in 0..self.inner.fetches.queued() {
            if let Some(id) = self.inner.fetches.next_queued() {
                self.route(id);
            }
        }
    }

    /// The deadline of a request that no connection looks after.
    pub(crate) fn on_fetch_timer(&mut self, id: FetchId) {
        let now = self.inner.out.now;
        self.inner.fetch_timer_fired(id);
        let Some(fetch) = self.inner.fetches.get(id) else {
            return;
        };
        if fetch.is_overdue(now) {
            let limit = Deadline::new(DeadlineStage::Fetch, fetch.total_limit());
            let failure = FetchFailure::Timeout(limit);
            return match fetch.place {
                Place::On(conn) => self.fail_on(conn, id, failure),
                Place::Queued | Place::Waiting => self.end_fetch(id, FetchStage::PoolWait, failure),
            };
        }
        let overdue = fetch.wait.is_some_and(|wait| wait <= now);
        if fetch.place == Place::Waiting && overdue {
            let limit = self.queue_limit(id);
            let failure = FetchFailure::Timeout(Deadline::new(DeadlineStage::PoolWait, limit));
            return self.end_fetch(id, FetchStage::PoolWait, failure);
        }
        self.inner.arm_fetch(id);
    }

    /// Ends the requests that have no connection, because of a shutdown or the end of their vhost.
    pub(crate) fn end_waiting(&mut self, of: Option<VhostId>, failure: fn() -> FetchFailure) {
        let ids = self.inner.fetches.ids(|fetch| {
            !matches!(fetch.place, Place::On(_)) && of.is_none_or(|vhost| vhost == fetch.vhost)
        });
        for id in ids {
            self.end_fetch(id, FetchStage::PoolWait, failure());
        }
    }

    /// The settings of a vhost's client side have changed: its connections are not used again.
    #[cfg(feature = "tls")]
    pub(crate) fn retire_http_pool(&mut self, id: VhostId) {
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        if let Some(cell) = &vhost.client_tls {
            vhost.http_pool.retire(cell.generation().into());
            self.inner.fetches.note_change(id);
        }
    }

    fn end_fetch(&mut self, id: FetchId, stage: FetchStage, failure: FetchFailure) {
        table::end(&mut self.inner, &mut self.parts, id, Some((stage, failure)));
    }

    fn route(&mut self, id: FetchId) {
        let now = self.inner.out.now;
        let shutting_down = self.inner.shutting_down;
        let Some(fetch) = self.inner.fetches.get(id) else {
            return;
        };
        if fetch.cancelled && !matches!(fetch.place, Place::On(_)) {
            return self.end_fetch(id, FetchStage::PoolWait, FetchFailure::Aborted);
        }
        if fetch.place != Place::Queued {
            return;
        }
        if shutting_down {
            return self.end_fetch(id, FetchStage::PoolWait, FetchFailure::Shutdown);
        }
        let (vhost, key, freshness) = (fetch.vhost, Arc::clone(&fetch.key), fetch.freshness);
        if !fetch.info.is_pooled() {
            return self.dial_for(id);
        }
        let active = |state| state == VhostState::Active;
        let known = self.inner.vhost_mut(vhost);
        let Some(known) = known.filter(|known| active(known.state)) else {
            return self.end_fetch(id, FetchStage::PoolWait, FetchFailure::VhostDestroyed);
        };
        let waiting = known.http_pool.config().waiting_limit();
        let acquired = known.http_pool.acquire(&key, id, freshness, now);
        self.close_retired(vhost);
        match acquired {
            Acquired::Dial => self.dial_for(id),
            Acquired::Reuse(conn) => self.assign(conn, id),
            Acquired::Wait => self.wait_in_pool(id),
            Acquired::QueueFull => {
                self.end_fetch(id, FetchStage::PoolWait, FetchFailure::QueueFull(waiting));
            }
        }
    }

    fn wait_in_pool(&mut self, id: FetchId) {
        let now = self.inner.out.now;
        let limit = self.queue_limit(id);
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            fetch.place = Place::Waiting;
            fetch.wait = saturating_add(now, limit);
        }
        self.inner.arm_fetch(id);
    }

    fn queue_limit(&self, id: FetchId) -> std::time::Duration {
        let Some(fetch) = self.inner.fetches.get(id) else {
            return std::time::Duration::MAX;
        };
        let of_pool = self.inner.vhost(fetch.vhost);
        let of_pool = of_pool.map(|vhost| vhost.http_pool.config().queue_limit());
        let own = fetch.info.own_timeouts().pool;
        own.or(of_pool).unwrap_or(std::time::Duration::MAX)
    }

    fn serve_waiting(&mut self, id: VhostId) {
        let now = self.inner.out.now;
        self.close_retired(id);
        while let Some(vhost) = self.inner.vhost_mut(id) {
            let Some(grant) = vhost.http_pool.next_grant(now) else {
                break;
            };
            self.close_retired(id);
            if let Some(fetch) = self.inner.fetches.get_mut(grant.who) {
                fetch.place = Place::Queued;
            }
            match grant.kind {
                GrantKind::Dial => self.dial_for(grant.who),
                GrantKind::Reuse(conn) => self.assign(conn, grant.who),
            }
        }
    }

    /// Closes what the pool has given up.
    fn close_retired(&mut self, id: VhostId) {
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        for conn in vhost.http_pool.take_closing() {
            if let Some(conn) = self.inner.conns.get_mut(conn.index, conn.generation) {
                if let Role::HttpClient(http) = &mut conn.role {
                    http.retire();
                }
                conn.send.mark(&mut self.inner.out);
            }
        }
    }

    /// Gives an idle connection a request. It is looked at before anything is sent.
    fn assign(&mut self, conn: WsiId, id: FetchId) {
        let found = self.inner.conns.get_mut(conn.index, conn.generation);
        let taken = found.is_some_and(|conn| match &mut conn.role {
            Role::HttpClient(http) => http.assign(id),
            Role::Client(_) | Role::Http(_) | Role::Linger | Role::Ws(_) => false,
        });
        if !taken {
            return self.inner.fetches.requeue_first(id);
        }
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            fetch.place = Place::On(conn);
        }
        self.inner.mark_conn(conn);
    }

    /// Dials a connection for a request.
    fn dial_for(&mut self, id: FetchId) {
        let Some(fetch) = self.inner.fetches.get_mut(id) else {
            return;
        };
        // The next attempt may use anything again: this one gets what nobody has used.
        fetch.freshness = Freshness::Any;
        let (vhost, key, pooled) = (fetch.vhost, Arc::clone(&fetch.key), fetch.info.is_pooled());
        let connect = Arc::new(fetch.info.connect().clone());
        let dialled = match self.inner.room_for_client(vhost) {
            Err(limit) => Err(limit),
            Ok(settings) => {
                let bound = Bound {
                    protocol: NO_PROTOCOL,
                    settings,
                };
                let begun = dial::begin_fetch(&mut self.inner, bound, connect, id);
                begun.ok_or(self.inner.max_connections)
            }
        };
        match dialled {
            Ok(conn) => {
                if let Some(fetch) = self.inner.fetches.get_mut(id) {
                    fetch.place = Place::On(conn);
                    fetch.attempts += 1;
                }
                if let Some(vhost) = self.inner.vhost_mut(vhost).filter(|_| pooled) {
                    vhost.http_pool.opened(&key, conn);
                }
            }
            Err(limit) => {
                let failure = FetchFailure::TooManyConnections(limit);
                self.end_fetch(id, FetchStage::PoolWait, failure);
                self.inner.fetches.note_change(vhost);
            }
        }
    }
}
