//! A webhook at work: its questions, on their way and waiting for another attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::cache::{Cache, freshness};
use super::question::{self, Told};
use super::{WebhookMetrics, verdict};
use crate::fetch::{FetchError, FetchFailure, FetchInfo, FetchOwner, Fetched, HttpClientHandler};
use crate::hook::{Hook, HookAnswer, HookError, HookRequest};
use crate::http::client::ResponseReadError;
use crate::id::{FetchId, HookRequestId, TimerId, TimerTag, VhostId};
use crate::retry::{RetryPolicy, RetryState};
use crate::wsi::Cx;

/// What asks, waits and answers.
#[derive(Debug)]
pub(super) struct Engine {
    /// What every question has in common.
    pub(super) info: FetchInfo,
    pub(super) told: Told,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) cache: Cache,
    pub(super) client: Client,
    asked: BTreeMap<HookRequestId, Asked>,
    fetches: BTreeMap<FetchId, HookRequestId>,
    sleeping: BTreeMap<TimerTag, HookRequestId>,
    next_tag: u64,
    metrics: WebhookMetrics,
}

/// The vhost whose client connections it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// One of the application.
    Given(VhostId),
    Own(VhostId),
    /// Its own, which is not made yet.
    Unmade,
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    body: Bytes,
    retries: RetryState,
    /// It was asked again because its connection had been closed.
    repeated: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Fetching(FetchId),
    Sleeping(TimerTag, Option<TimerId>),
}

impl Engine {
    pub(super) fn new(info: FetchInfo, cache: Cache) -> Self {
        Self {
            info,
            told: Told::default(),
            retry: None,
            cache,
            client: Client::Unmade,
            asked: BTreeMap::new(),
            fetches: BTreeMap::new(),
            sleeping: BTreeMap::new(),
            next_tag: 0,
            metrics: WebhookMetrics::default(),
        }
    }

    pub(super) fn metrics(&self) -> WebhookMetrics {
        WebhookMetrics {
            pending: self.asked.len(),
            cached: self.cache.len(),
            cached_bytes: self.cache.bytes(),
            ..self.metrics
        }
    }

    pub(super) const fn client_vhost(&self) -> Option<VhostId> {
        match self.client {
            Client::Given(vhost) | Client::Own(vhost) => Some(vhost),
            Client::Unmade => None,
        }
    }

    /// Begins an attempt; gives the reason if that cannot be.
    fn begin(
        &mut self,
        cx: &mut Cx<'_>,
        id: HookRequestId,
        body: Bytes,
    ) -> Result<FetchId, HookError> {
        let vhost = self.client_vhost().ok_or(WebhookError::NoClient);
        let vhost = vhost.map_err(HookError::new)?;
        let info = self.info.clone().body(body);
        let owner = FetchOwner::hook(cx.owner);
        let fetch = cx.inner.fetch_for(owner, vhost, info);
        let fetch = fetch.map_err(HookError::new)?;
        self.fetches.insert(fetch, id);
        Ok(fetch)
    }

    /// What comes of a whole response.
    fn judge(
        &mut self,
        cx: &Cx<'_>,
        body: &[u8],
        response: &Fetched,
    ) -> Result<HookAnswer, Failed> {
        if response.status != 200 {
            let is_passing = matches!(response.status, 429 | 502 | 503 | 504);
            return Err(Failed {
                error: HookError::new(WebhookError::Status(response.status)),
                again: if is_passing { Again::Later } else { Again::No },
            });
        }
        let answer = verdict::read(&response.body).map_err(|error| Failed {
            error: HookError::new(error),
            again: Again::No,
        })?;
        let age = freshness(&response.headers);
        self.cache.keep(body, &answer, age, cx.now());
        Ok(answer)
    }

    /// Asks again if that is allowed and worth it; gives the reason if not.
    fn try_again(
        &mut self,
        cx: &mut Cx<'_>,
        id: HookRequestId,
        mut asked: Asked,
        failed: Failed,
    ) -> Result<(), HookError> {
        let delay = match (failed.again, &self.retry) {
            (Again::AtOnce, _) if !asked.repeated => {
                asked.repeated = true;
                Duration::ZERO
            }
            (Again::AtOnce | Again::Later, Some(policy)) => {
                let random = cx.inner.out.random.u64();
                match asked.retries.next_delay(policy, random) {
                    Some(delay) => delay,
                    None => return Err(failed.error),
                }
            }
            _ => return Err(failed.error),
        };
        self.metrics.retries += 1;
        asked.place = if delay.is_zero() {
            Place::Fetching(self.begin(cx, id, asked.body.clone())?)
        } else {
            self.next_tag += 1;
            let tag = TimerTag(self.next_tag);
            self.sleeping.insert(tag, id);
            Place::Sleeping(tag, cx.set_timer(delay, tag))
        };
        self.asked.insert(id, asked);
        Ok(())
    }

    fn finish(
        &mut self,
        cx: &mut Cx<'_>,
        id: HookRequestId,
        answer: Result<HookAnswer, HookError>,
    ) {
        if answer.is_err() {
            self.metrics.failures += 1;
        }
        // Nobody waiting any more is not this hook's business.
        let _ = cx.answer_hook(id, answer);
    }
}

impl Hook for Engine {
    fn ask(&mut self, cx: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        self.metrics.questions += 1;
        let body = Bytes::from(question::write(request, &self.told));
        if let Some(answer) = self.cache.find(&body, cx.now()) {
            self.metrics.cache_hits += 1;
            return Ok(answer);
        }
        let id = request.id();
        let fetch = self.begin(cx, id, body.clone());
        let fetch = fetch.inspect_err(|_| self.metrics.failures += 1)?;
        let asked = Asked {
            body,
            retries: RetryState::new(),
            repeated: false,
            place: Place::Fetching(fetch),
        };
        self.asked.insert(id, asked);
        Ok(HookAnswer::Later)
    }

    fn on_abandoned(&mut self, cx: &mut Cx<'_>, id: HookRequestId) {
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        self.metrics.failures += 1;
        match asked.place {
            Place::Fetching(fetch) => {
                self.fetches.remove(&fetch);
                // One that is over has nothing to be given up.
                let _ = cx.cancel_fetch(fetch);
            }
            Place::Sleeping(tag, timer) => {
                self.sleeping.remove(&tag);
                if let Some(timer) = timer {
                    cx.cancel_timer(timer);
                }
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let Some(id) = self.sleeping.remove(&tag) else {
            return;
        };
        let Some(mut asked) = self.asked.remove(&id) else {
            return;
        };
        match self.begin(cx, id, asked.body.clone()) {
            Ok(fetch) => {
                asked.place = Place::Fetching(fetch);
                self.asked.insert(id, asked);
            }
            Err(error) => self.finish(cx, id, Err(error)),
        }
    }
}

/// The answers of the endpoint.
impl HttpClientHandler for Engine {
    fn on_done(&mut self, cx: &mut Cx<'_>, fetch: FetchId, outcome: Result<Fetched, FetchError>) {
        // One that was given up is nobody's.
        let Some(id) = self.fetches.remove(&fetch) else {
            return;
        };
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        let judged = match outcome {
            Ok(response) => self.judge(cx, &asked.body, &response),
            Err(error) => Err(Failed::by(error)),
        };
        match judged {
            Ok(answer) => self.finish(cx, id, Ok(answer)),
            Err(failed) => {
                if let Err(error) = self.try_again(cx, id, asked, failed) {
                    self.finish(cx, id, Err(error));
                }
            }
        }
    }
}

/// An attempt without an answer.
struct Failed {
    error: HookError,
    again: Again,
}

/// Whether a further attempt makes sense.
enum Again {
    /// The endpoint closed the connection, which says little about its state.
    AtOnce,
    Later,
    No,
}

impl Failed {
    fn by(error: FetchError) -> Self {
        let again = match error.failure() {
            FetchFailure::Io(_) | FetchFailure::Response(ResponseReadError::Closed) => {
                Again::AtOnce
            }
            _ if error.is_retryable() => Again::Later,
            _ => Again::No,
        };
        Self {
            error: HookError::new(error),
            again,
        }
    }
}

#[derive(Debug, Error)]
enum WebhookError {
    #[error("the webhook has no vhost for its connections")]
    NoClient,
    #[error("the endpoint answered with status {0} instead of 200")]
    Status(u16),
}
