//! How a client's HTTP connection ends, and what that is to the request that it had.

use std::io;

use super::error::{FetchFailure, FetchStage};
use super::exchange::State;
use super::table;
use crate::conn::{Flags, Phase, Role, Stash};
use crate::error::{CloseKind, Deadline, DeadlineStage};
use crate::http::client::{Attempt, Freshness, ResponseReadError};
use crate::id::FetchId;
use crate::lift::Lift;
use crate::timer::saturating_add;

impl Lift<'_> {
    /// Nothing can be sent any more, and what the peer had said before was read. A response that
    /// has begun is worth waiting for.
    pub(crate) fn fetch_write_failed(&mut self, error: io::Error) {
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        match &mut http.state {
            State::Busy(exchange) if exchange.reader.has_head() => {}
            State::Busy(exchange) => exchange.fail(FetchFailure::Io(error)),
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Assigned(_) | State::Over => {}
        }
    }

    /// The TLS session has failed.
    #[cfg(feature = "tls")]
    pub(crate) fn fetch_tls_failed(&mut self, error: crate::error::TlsError) {
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        let rejected = http.may_be_rejected();
        match &mut http.state {
            State::Busy(exchange) => {
                let stage = if rejected {
                    FetchStage::Tls
                } else {
                    exchange.stage()
                };
                let failure = FetchFailure::Tls(Box::new(error));
                exchange.failure.get_or_insert((stage, failure));
            }
            State::Assigned(_) => http.spoiled = true,
            State::Draining(..) | State::Idle | State::Over => http.state = State::Over,
        }
    }

    /// Ends a request from outside of its connection: its time is over.
    pub(crate) fn fail_fetch(&mut self, id: FetchId, failure: FetchFailure) {
        if let Role::HttpClient(http) = &self.conn.role {
            return match http.state {
                State::Assigned(own) if own == id => {
                    self.give_back(http.pooled);
                    let failed = (FetchStage::PoolWait, failure);
                    table::end(self.inner, self.parts, id, Some(failed));
                }
                _ => self.fail_own_fetch(failure),
            };
        }
        // It is being dialled for.
        if let Role::Client(client) = &self.conn.role {
            let stage = client.fetch_stage();
            table::end(self.inner, self.parts, id, Some((stage, failure)));
            self.end_now();
        }
    }

    /// The stage took too long, or the connection was idle for too long.
    pub(crate) fn time_out_fetch(&mut self) {
        let now = self.inner.out.now;
        let (response, body) = (self.response_limit(), self.body_limit());
        let paused = self.own_fetch().is_some_and(|id| self.is_paused(id));
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        match &mut http.state {
            State::Busy(exchange) if exchange.reader.has_head() && paused => {
                // It is we who do not take it.
                self.conn.send.deadlines.stage = saturating_add(now, body);
            }
            State::Busy(exchange) => {
                let limit = match exchange.reader.has_head() {
                    true => Deadline::new(DeadlineStage::FetchBody, body),
                    false => Deadline::new(DeadlineStage::FetchResponse, response),
                };
                exchange.fail(FetchFailure::Timeout(limit));
            }
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Assigned(_) | State::Over => {}
        }
    }

    /// The vhost or the context goes: what is idle ends now; what is at work ends with the vhost,
    /// and has the grace of a shutdown.
    pub(crate) fn wind_down_fetch(&mut self, failure: FetchFailure) {
        let shutdown = matches!(failure, FetchFailure::Shutdown);
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        match &mut http.state {
            State::Busy(_) if shutdown => {}
            State::Busy(exchange) => exchange.fail(failure),
            State::Assigned(id) => {
                let id = *id;
                http.state = State::Over;
                let failed = Some((FetchStage::PoolWait, failure));
                table::end(self.inner, self.parts, id, failed);
            }
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Over => {}
        }
    }

    /// Whether the connection is over; the request that it had has then gone on or ended.
    pub(crate) fn conclude_fetch(&mut self) -> bool {
        let aborted = self.conn.send.flags.contains(Flags::ABORT);
        let cancelled = self.own_fetch().is_some_and(|id| self.is_cancelled(id));
        let cause = aborted.then(|| self.abort_failure());
        let Role::HttpClient(http) = &mut self.conn.role else {
            return false;
        };
        if let Some(exchange) = http.exchange() {
            if cancelled {
                exchange.failure = Some((exchange.stage(), FetchFailure::Aborted));
            } else if let Some(cause) = cause {
                exchange.fail(cause);
            }
            return exchange.failure.is_some() && self.end_own_fetch();
        }
        match http.state {
            State::Assigned(id) => {
                http.state = State::Over;
                let failure = cause.unwrap_or(FetchFailure::Aborted);
                let failed = Some((FetchStage::PoolWait, failure));
                table::end(self.inner, self.parts, id, failed);
            }
            State::Idle if http.spoiled => {}
            State::Idle | State::Draining(..) if !aborted => return false,
            _ => {}
        }
        self.leave();
        true
    }

    fn abort_failure(&self) -> FetchFailure {
        match self
            .conn
            .send
            .deadlines
            .cause
            .as_ref()
            .map(|cause| &cause.kind)
        {
            Some(CloseKind::ContextDropped) => FetchFailure::ContextDropped,
            Some(CloseKind::Shutdown) => FetchFailure::Shutdown,
            Some(CloseKind::Timeout(deadline)) => FetchFailure::Timeout(*deadline),
            Some(CloseKind::VhostDestroyed) => FetchFailure::VhostDestroyed,
            _ => FetchFailure::Aborted,
        }
    }

    /// The request has failed on this connection: it begins again if that is provably safe, or it
    /// is over. The connection is.
    fn end_own_fetch(&mut self) -> bool {
        let waits = self.conn.send.tx.len();
        let Role::HttpClient(http) = &mut self.conn.role else {
            return true;
        };
        let reused = http.served > 0;
        let State::Busy(exchange) = std::mem::replace(&mut http.state, State::Over) else {
            return true;
        };
        let id = exchange.fetch;
        let Some(failed) = exchange.failure else {
            return true;
        };
        self.leave();
        let stopping = self.inner.shutting_down;
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            let attempt = Attempt {
                reused,
                answered: exchange.reader.began(),
                sent: waits < exchange.queued,
                idempotent: fetch.info.method().is_idempotent(),
                replayable: fetch.upload.is_none(),
                repeated: fetch.repeated,
            };
            if is_lost_connection(&failed.1) && attempt.may_be_repeated() && !stopping {
                fetch.repeated = true;
                fetch.freshness = Freshness::New;
                self.inner.fetches.requeue_first(id);
                return true;
            }
        }
        table::end(self.inner, self.parts, id, Some(failed));
        true
    }

    /// Says goodbye where that is the custom, and waits for nothing.
    fn leave(&mut self) {
        self.conn.send.phase = Phase::Ended;
        self.conn.stash = Stash::Empty;
        if !self.conn.send.flags.contains(Flags::ABORT) {
            self.conn.send.tx.clear(&mut self.inner.out.pool);
            self.is_all_said();
        }
    }
}

/// Whether the connection went away, rather than the request being wrong.
fn is_lost_connection(failure: &FetchFailure) -> bool {
    matches!(
        failure,
        FetchFailure::Io(_) | FetchFailure::Response(ResponseReadError::Closed)
    )
}
