//! A hook that asks an HTTP endpoint: [`Webhook`].

mod cache;
mod engine;
mod json;
mod question;
mod verdict;

use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use self::cache::Cache;
use self::engine::{Client, Engine};
use super::{Hook, HookAnswer, HookError, HookRequest};
use crate::client::ArgumentError;
use crate::config::VhostConfig;
use crate::error::VhostError;
use crate::fetch::{FetchInfo, FetchTimeouts, HttpClientHandler};
use crate::http::client::PoolConfig;
use crate::id::{HookRequestId, TimerTag, VhostId};
use crate::retry::RetryPolicy;
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
/// [`include_header`](Self::include_header) that the request has. `path` has its percent-encoding
/// undone where that changes nothing else, as mounts compare it: `/%61dmin` is `/admin`. The
/// endpoint answers with 200 and
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
    engine: Engine,
    pool: PoolConfig,
    #[cfg(feature = "tls")]
    tls: TlsFiles,
    cache_limits: CacheLimits,
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

/// Where its identity and those that it trusts come from.
#[cfg(feature = "tls")]
#[derive(Debug, Default)]
struct TlsFiles {
    settings: Option<crate::tls::ClientTls>,
    cafile: Option<PathBuf>,
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
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
            engine: Engine::new(info, cache_limits.cache()),
            pool: PoolConfig::new(),
            #[cfg(feature = "tls")]
            tls: TlsFiles::default(),
            cache_limits,
        })
    }

    /// Tells the endpoint this header of the request; may be called several times. Default: none.
    /// Several fields of the name are joined to one string.
    pub fn include_header(mut self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if !self.engine.told.headers.contains(&name) {
            self.engine.told.headers.push(name);
        }
        self
    }

    /// Tells the endpoint the port of the client too, which makes nearly every question another
    /// one for the cache.
    pub const fn include_peer_port(mut self) -> Self {
        self.engine.told.peer_port = true;
        self
    }

    /// Sends this header to the endpoint: a key of its API, say.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::header`].
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Result<Self, ArgumentError> {
        self.engine.info = self.engine.info.header(name, value)?;
        Ok(self)
    }

    /// Dials this name or IP address instead of the URL's host, which stays in `Host`.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::address`].
    pub fn address(mut self, address: &str) -> Result<Self, ArgumentError> {
        self.engine.info = self.engine.info.address(address)?;
        Ok(self)
    }

    /// Dials these addresses instead, in this order of preference, and looks up no name.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::addresses`].
    pub fn addresses(mut self, addresses: Vec<SocketAddr>) -> Result<Self, ArgumentError> {
        self.engine.info = self.engine.info.addresses(addresses)?;
        Ok(self)
    }

    /// Deadlines of one attempt. Default: those of [`FetchTimeouts`]; the deadline of the hook
    /// ends all attempts.
    ///
    /// # Errors
    ///
    /// As [`FetchInfo::timeouts`].
    pub fn timeouts(mut self, timeouts: FetchTimeouts) -> Result<Self, ArgumentError> {
        self.engine.info = self.engine.info.timeouts(timeouts)?;
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
        self.engine.retry = Some(policy);
        self
    }

    /// How many answers are kept for as long as the endpoint allows, and in how many bytes;
    /// 0 keeps none. Default 1024 in 1 MiB.
    pub fn cache(mut self, answers: usize, bytes: usize) -> Self {
        self.cache_limits.entries = answers;
        self.cache_limits.bytes = bytes;
        self.engine.cache = self.cache_limits.cache();
        self
    }

    /// Keeps no answer longer than this, whatever the endpoint allows. Default: one hour.
    pub fn cache_age(mut self, age: Duration) -> Self {
        self.cache_limits.age = age;
        self.engine.cache = self.cache_limits.cache();
        self
    }

    /// Uses the client connections of this vhost, with its TLS settings and its pool, instead of
    /// connections of its own. `cafile`, `certfile`, `keyfile` and `pool` then have no effect.
    pub const fn on_vhost(mut self, vhost: VhostId) -> Self {
        self.engine.client = Client::Given(vhost);
        self
    }

    /// The vhost that has its client connections, once it is made: for
    /// [`Context::http_pool_metrics`](crate::Context::http_pool_metrics) and for rotating its
    /// identity. It goes with the vhost that the hook belongs to.
    pub const fn client_vhost(&self) -> Option<VhostId> {
        self.engine.client_vhost()
    }

    /// Forgets the answers that were kept.
    pub fn clear_cache(&mut self) {
        self.engine.cache.clear();
    }

    /// What it has done, and what it does now.
    pub fn metrics(&self) -> WebhookMetrics {
        self.engine.metrics()
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
    pub(crate) fn client_config(&self, name: &str) -> Result<Option<VhostConfig>, VhostError> {
        if self.engine.client != Client::Unmade {
            return Ok(None);
        }
        let mut config = VhostConfig::new("");
        config.names.clear();
        let config = config.http_pool(self.pool.clone());
        self.with_tls(config, name).map(Some)
    }

    pub(crate) fn set_client(&mut self, vhost: VhostId) {
        self.engine.client = Client::Own(vhost);
    }

    #[cfg(feature = "tls")]
    fn with_tls(&self, config: VhostConfig, name: &str) -> Result<VhostConfig, VhostError> {
        if !self.engine.info.connect().is_tls() {
            return Ok(config);
        }
        let problem = |problem| VhostError::Hook {
            name: name.to_owned(),
            problem,
        };
        let files = &self.tls;
        if let Some(settings) = &files.settings {
            return Ok(config.client_tls(settings.clone()));
        }
        let failed = |error| VhostError::Tls(Box::new(error));
        let roots = match &files.cafile {
            Some(path) => crate::tls::Roots::from_pem_file(path).map_err(failed)?,
            None => system_roots().ok_or_else(|| problem(NO_ROOTS))?,
        };
        let mut tls = crate::tls::ClientTls::new(roots);
        let identity = match (&files.certfile, &files.keyfile) {
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
    fn with_tls(&self, config: VhostConfig, name: &str) -> Result<VhostConfig, VhostError> {
        if self.engine.info.connect().is_tls() {
            return Err(VhostError::Hook {
                name: name.to_owned(),
                problem: "an https endpoint needs a crate feature that has TLS",
            });
        }
        Ok(config)
    }

    /// Who is told about its requests.
    pub(crate) const fn answers(&mut self) -> &mut dyn HttpClientHandler {
        &mut self.engine
    }
}

impl Hook for Webhook {
    fn ask(&mut self, cx: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        self.engine.ask(cx, request)
    }

    fn on_abandoned(&mut self, cx: &mut Cx<'_>, id: HookRequestId) {
        self.engine.on_abandoned(cx, id);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        self.engine.on_timer(cx, tag);
    }
}

/// What it is set up with, without secrets, and what it has done.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("info", &self.engine.info)
            .field("pool", &self.pool)
            .field("client", &self.engine.client)
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
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
