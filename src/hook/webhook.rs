//! A hook that asks an HTTP endpoint: [`Webhook`].

mod cache;
mod json;
mod question;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use self::cache::{Cache, freshness};
use self::question::Told;
use super::{Hook, HookAnswer, HookError, HookRequest};
use crate::client::ArgumentError;
use crate::config::VhostConfig;
use crate::error::VhostError;
use crate::fetch::{
    FetchError, FetchFailure, FetchInfo, FetchTimeouts, Fetched, HttpClientHandler,
};
use crate::http::client::{PoolConfig, ResponseReadError};
use crate::id::{FetchId, HookRequestId, TimerId, TimerTag, VhostId};
use crate::retry::{RetryPolicy, RetryState};
use crate::wsi::Cx;

/// Asks an HTTP endpoint whether a request may become a connection.
///
/// The endpoint gets a `POST` with JSON about the request:
///
/// ```json
/// {"purpose":"upgrade",
///  "peer":{"address":"192.0.2.7"},
///  "tls":{"identity":{"verified":true,"common_name":"device 7","dns_names":[],"uris":[],
///                     "sha256":"9f86d08..."}},
///  "vhost":"chat.example","method":"GET","path":"/room","query":"id=7",
///  "headers":{"authorization":"Bearer abc"},
///  "subprotocols":["chat"]}
/// ```
///
/// `purpose` is `"upgrade"` or `"http"`; `tls` is `null` on a plain connection and its `identity`
/// is `null` if the client has shown no certificate; `headers` has those of
/// [`include_header`](Self::include_header) that the request has. The endpoint answers with 200
/// and
///
/// ```json
/// {"result":"allow","headers":{"X-User":"ada"},"subprotocol":"chat","attributes":{"user":"ada"}}
/// {"result":"deny","status":401,"headers":{"WWW-Authenticate":"Bearer"},"body":"who are you?"}
/// {"result":"next"}
/// ```
///
/// where only `result` is needed. Any other status, and an answer in which something is wrong, is
/// a failure of the hook, and so is an endpoint that cannot be reached:
/// [`OnFailure`](super::OnFailure) says what comes of it. Names that are not known are ignored.
///
/// With `Cache-Control: max-age` in its answer the endpoint allows it to be used again for the
/// same question: one whose JSON is the same, byte for byte. The port of the client is therefore
/// not told unless [asked for](Self::include_peer_port).
///
/// A webhook has connections of its own, in a pool of its own. Asking twice is harmless, so a
/// question that met a connection which the endpoint was just closing is asked again at once.
/// Further attempts are made as [`retry`](Self::retry) says, within the deadline of the hook.
///
/// ```no_run
/// use std::time::Duration;
/// use wsloop::VhostConfig;
/// use wsloop::hook::{HookChain, HookConfig, Webhook};
///
/// let webhook = Webhook::new("https://auth.example/upgrade")?
///     .cafile("ca.pem")
///     .certfile("client.pem")
///     .keyfile("client.key")
///     .include_header("Authorization");
/// let hook = HookConfig::new("auth", webhook).deadline(Duration::from_secs(3));
/// let config = VhostConfig::new("chat.example").hooks(HookChain::new().with(hook));
/// # Ok::<(), wsloop::ArgumentError>(())
/// ```
#[must_use]
pub struct Webhook {
    info: FetchInfo,
    told: Told,
    pool: PoolConfig,
    retry: Option<RetryPolicy>,
    #[cfg(feature = "tls")]
    tls: TlsFiles,
    cache: Cache,
    cache_limits: CacheLimits,
    client: Client,
    asked: BTreeMap<HookRequestId, Asked>,
    fetches: BTreeMap<FetchId, HookRequestId>,
    sleeping: BTreeMap<TimerTag, HookRequestId>,
    next_tag: u64,
    metrics: WebhookMetrics,
}

#[derive(Clone, Copy, Debug)]
struct CacheLimits {
    entries: usize,
    bytes: usize,
    age: Duration,
}

impl CacheLimits {
    fn cache(self) -> Cache {
        Cache::new(self.entries, self.bytes, self.age)
    }
}

/// The vhost whose client connections it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// One of the application.
    Given(VhostId),
    Own(VhostId),
    /// Its own, which is not made yet.
    Unmade,
}

/// Where its identity and those that it trusts come from.
#[cfg(feature = "tls")]
#[derive(Debug, Default)]
struct TlsFiles {
    settings: Option<crate::tls::ClientTls>,
    cafile: Option<PathBuf>,
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
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

/// What a webhook has done, and what it does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookMetrics {
    /// Questions that the hook was asked.
    pub questions: u64,
    /// Those of them that the cache answered.
    pub cache_hits: u64,
    /// Those that failed after all attempts.
    pub failures: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Questions that wait for their answer.
    pub pending: usize,
    /// Answers in the cache.
    pub cached: usize,
    /// Bytes of memory that the cache takes.
    pub cached_bytes: usize,
}

impl Webhook {
    /// Asks this `https://` or `http://` URL.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] if it is not one.
    pub fn new(url: &str) -> Result<Self, ArgumentError> {
        let cache_limits = CacheLimits {
            entries: 1024,
            bytes: 1024 * 1024,
            age: Duration::from_secs(3600),
        };
        let info = FetchInfo::post(url, Bytes::new())?
            .header("Content-Type", "application/json")?
            .header("Accept", "application/json")?
            .max_body(MAX_ANSWER);
        Ok(Self {
            info,
            told: Told::default(),
            pool: PoolConfig::new(),
            retry: None,
            #[cfg(feature = "tls")]
            tls: TlsFiles::default(),
            cache: cache_limits.cache(),
            cache_limits,
            client: Client::Unmade,
            asked: BTreeMap::new(),
            fetches: BTreeMap::new(),
            sleeping: BTreeMap::new(),
            next_tag: 0,
            metrics: WebhookMetrics::default(),
        })
    }

    /// Tells the endpoint this header of the request; may be called several times. Default: none.
    /// Several fields of the name are joined to one string.
    pub fn include_header(mut self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if !self.told.headers.contains(&name) {
            self.told.headers.push(name);
        }
        self
    }

    /// Tells the endpoint the port of the client too, which makes nearly every question another
    /// one for the cache.
    pub const fn include_peer_port(mut self) -> Self {
        self.told.peer_port = true;
        self
    }

    /// Sends this header to the endpoint: a key of its API, say.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::header`].
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Result<Self, ArgumentError> {
        self.info = self.info.header(name, value)?;
        Ok(self)
    }

    /// Dials this name or IP address instead of the URL's host, which stays in `Host`.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::address`].
    pub fn address(mut self, address: &str) -> Result<Self, ArgumentError> {
        self.info = self.info.address(address)?;
        Ok(self)
    }

    /// Deadlines of one attempt. Default: those of [`FetchTimeouts`]; the deadline of the hook
    /// ends all attempts.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::timeouts`].
    pub fn timeouts(mut self, timeouts: FetchTimeouts) -> Result<Self, ArgumentError> {
        self.info = self.info.timeouts(timeouts)?;
        Ok(self)
    }

    /// Caps of its pool of connections. Default: those of [`PoolConfig`].
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.pool = pool;
        self
    }

    /// Asks again, after the delays of the policy and as often as it says, when an attempt failed
    /// in a way that may pass: the endpoint could not be reached, broke off, or answered with 429,
    /// 502, 503 or 504. Default: one attempt.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// How many answers are kept for as long as the endpoint allows, and in how many bytes;
    /// 0 keeps none. Default 1024 in 1 MiB.
    pub fn cache(mut self, answers: usize, bytes: usize) -> Self {
        self.cache_limits.entries = answers;
        self.cache_limits.bytes = bytes;
        self.cache = self.cache_limits.cache();
        self
    }

    /// Keeps no answer longer than this, whatever the endpoint allows. Default: one hour.
    pub fn cache_age(mut self, age: Duration) -> Self {
        self.cache_limits.age = age;
        self.cache = self.cache_limits.cache();
        self
    }

    /// Uses the client connections of this vhost, with its TLS settings and its pool, instead of
    /// connections of its own. `cafile`, `certfile`, `keyfile` and `pool` then have no effect.
    pub const fn on_vhost(mut self, vhost: VhostId) -> Self {
        self.client = Client::Given(vhost);
        self
    }

    /// The vhost that has its client connections, once it is made: for
    /// [`Context::http_pool_metrics`](crate::Context::http_pool_metrics) and for rotating its
    /// identity. It goes with the vhost that the hook belongs to.
    pub const fn client_vhost(&self) -> Option<VhostId> {
        match self.client {
            Client::Given(vhost) | Client::Own(vhost) => Some(vhost),
            Client::Unmade => None,
        }
    }

    /// Forgets the answers that were kept.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    /// What it has done, and what it does now.
    pub fn metrics(&self) -> WebhookMetrics {
        WebhookMetrics {
            pending: self.asked.len(),
            cached: self.cache.len(),
            cached_bytes: self.cache.bytes(),
            ..self.metrics
        }
    }
}

#[cfg(feature = "tls")]
impl Webhook {
    /// Trusts the certificates of this PEM file, and no others.
    pub fn cafile(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.cafile = Some(path.into());
        self
    }

    /// Shows the certificate chain of this PEM file, which also has the key unless there is a
    /// [`keyfile`](Self::keyfile).
    pub fn certfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.certfile = Some(path.into());
        self
    }

    /// The private key of the [`certfile`](Self::certfile).
    pub fn keyfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.keyfile = Some(path.into());
        self
    }

    /// Uses these TLS settings instead of files.
    pub fn client_tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.tls.settings = Some(tls);
        self
    }
}

impl Webhook {
    /// How the vhost for its connections is made, if it wants one of its own.
    pub(crate) fn client_config(&mut self, name: &str) -> Result<Option<VhostConfig>, VhostError> {
        if self.client != Client::Unmade {
            return Ok(None);
        }
        let mut config = VhostConfig::new("");
        config.names.clear();
        let config = config.http_pool(self.pool.clone());
        self.with_tls(config, name).map(Some)
    }

    pub(crate) fn set_client(&mut self, vhost: VhostId) {
        self.client = Client::Own(vhost);
    }

    #[cfg(feature = "tls")]
    fn with_tls(&mut self, config: VhostConfig, name: &str) -> Result<VhostConfig, VhostError> {
        if !self.info.connect().is_tls() {
            return Ok(config);
        }
        let problem = |problem| VhostError::Hook {
            name: name.to_owned(),
            problem,
        };
        let files = std::mem::take(&mut self.tls);
        if let Some(settings) = files.settings {
            return Ok(config.client_tls(settings));
        }
        let failed = |error| VhostError::Tls(Box::new(error));
        let roots = match &files.cafile {
            Some(path) => crate::tls::Roots::from_pem_file(path).map_err(failed)?,
            None => system_roots().ok_or_else(|| problem(NO_ROOTS))?,
        };
        let mut tls = crate::tls::ClientTls::new(roots);
        let identity = match (files.certfile, files.keyfile) {
            (Some(cert), Some(key)) => Some(crate::tls::Identity::from_pem_files(cert, key)),
            (Some(bundle), None) => Some(crate::tls::Identity::from_pem_bundle_file(bundle)),
            (None, Some(_)) => return Err(problem("it has a keyfile and no certfile")),
            (None, None) => None,
        };
        if let Some(identity) = identity {
            tls = tls.identity(identity.map_err(failed)?);
        }
        Ok(config.client_tls(tls))
    }

    #[cfg(not(feature = "tls"))]
    fn with_tls(&mut self, config: VhostConfig, name: &str) -> Result<VhostConfig, VhostError> {
        if self.info.connect().is_tls() {
            return Err(VhostError::Hook {
                name: name.to_owned(),
                problem: "an https endpoint needs a crate feature that has TLS",
            });
        }
        Ok(config)
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
        let fetch = cx.fetch_for_hook(vhost, info).map_err(HookError::new)?;
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

impl Hook for Webhook {
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
impl HttpClientHandler for Webhook {
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

/// What it is set up with, without secrets, and what it has done.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("info", &self.info)
            .field("pool", &self.pool)
            .field("client", &self.client)
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
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

#[cfg(all(feature = "tls", feature = "native-certs"))]
fn system_roots() -> Option<crate::tls::Roots> {
    crate::tls::Roots::system().ok()
}

#[cfg(all(feature = "tls", not(feature = "native-certs")))]
const fn system_roots() -> Option<crate::tls::Roots> {
    None
}

#[cfg(feature = "tls")]
const NO_ROOTS: &str =
    "nobody is trusted to be the https endpoint; call cafile(..) or client_tls(..)";
/// Bytes of an answer.
const MAX_ANSWER: u64 = 64 * 1024;
