//! Who may connect: hooks that are asked, one after the other, before a vhost accepts an upgrade.
//!
//! A [`HookChain`] belongs to a vhost ([`VhostConfig::hooks`](crate::VhostConfig::hooks)). Every
//! request for an upgrade goes through it before
//! [`Protocol::filter_upgrade`](crate::Protocol::filter_upgrade) sees it, and so does every plain
//! request to a mount that is [`hooked`](crate::Mount::hooked). Each hook allows the request,
//! denies it, leaves it to the next one, or says so later; the first that decides has decided.
//!
//! What fails is refused: a hook that fails or does not answer in time is answered with 503 unless
//! its [`OnFailure`] says otherwise, and a request about which no hook decided with 403 unless the
//! chain [says otherwise](HookChain::otherwise_allow).
//!
//! ```
//! use wsloop::VhostConfig;
//! use wsloop::hook::{AllowPeers, FnHook, HookAnswer, HookChain};
//!
//! let chain = HookChain::new()
//!     .hook("local", AllowPeers::new(["127.0.0.0/8", "::1"])?)
//!     .hook("token", FnHook::new(|_, request| match request.header("x-token") {
//!         Some(b"secret") => Ok(HookAnswer::allow()),
//!         _ => Ok(HookAnswer::Next),
//!     }));
//! let config = VhostConfig::new("localhost").hooks(chain);
//! # Ok::<(), wsloop::hook::RangeError>(())
//! ```

mod ask;
mod attributes;
mod ready;
mod webhook;

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;

pub(crate) use ask::Asking;
pub(crate) use attributes::NO_ATTRIBUTES;
pub use attributes::{AttributeError, Attributes};
#[cfg(feature = "tls")]
pub use ready::AllowIdentity;
pub use ready::{AllowAll, AllowPeers, DenyAll, FnHook, RangeError};

pub use webhook::{Webhook, WebhookMetrics};

use crate::error::Deadline;
use crate::fetch::HttpClientHandler;
use crate::http::head::RequestHead;
use crate::http::path::one_spelling;
use crate::http::{HeaderError, HeaderList};
pub use crate::id::{HookHandle, HookRequestId};
use crate::id::{TimerTag, VhostId};
use crate::net::transport::Io;
use crate::protocol::Refuse;
use crate::wsi::Cx;

/// Decides whether a request may become a connection.
///
/// Like the other callbacks, those of a hook never nest and must not block. One that has to wait
/// for something answers [`HookAnswer::Later`], and with [`Cx::answer_hook`] when it knows.
pub trait Hook: Send + 'static {
    /// A request has come, and no hook before this one has decided about it.
    ///
    /// # Errors
    ///
    /// [`HookError`] if it cannot tell; [`OnFailure`] says what comes of that.
    fn ask(&mut self, cx: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError>;

    /// Nobody waits any more for an answer that was to come later: its deadline has passed, the
    /// connection has ended, or the vhost goes. Comes at most once for a request, and not after
    /// the answer.
    fn on_abandoned(&mut self, cx: &mut Cx<'_>, id: HookRequestId) {
        let _ = (cx, id);
    }

    /// A timer of this hook ([`Cx::set_timer`]) is due.
    fn on_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let _ = (cx, tag);
    }

    /// Somebody called [`CancelService::cancel_service`](crate::CancelService::cancel_service):
    /// another thread may have found an answer.
    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// What a hook has to say about a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HookAnswer {
    /// It is allowed; no further hook is asked. For an upgrade
    /// [`filter_upgrade`](crate::Protocol::filter_upgrade) follows, and may still refuse.
    Allow(Grant),
    /// It is answered with this; no further hook is asked.
    Deny(Refuse),
    /// The next hook decides.
    Next,
    /// [`Cx::answer_hook`] will say. Until then nothing is read from the connection.
    Later,
}

impl HookAnswer {
    /// Allows, and says nothing else.
    pub fn allow() -> Self {
        Self::Allow(Grant::new())
    }

    /// Denies with this status and no body.
    pub const fn deny(status: u16) -> Self {
        Self::Deny(Refuse::new(status))
    }
}

/// What a hook gives to what it allows.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Grant {
    pub(crate) headers: HeaderList,
    pub(crate) subprotocol: Option<String>,
    pub(crate) attributes: Attributes,
}

impl Grant {
    /// Nothing but leave.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds headers to the response: the 101 of an upgrade, or whatever the handler answers unless
    /// that has one of the name itself. Those that only the library writes are left out.
    pub fn headers(mut self, headers: HeaderList) -> Self {
        self.headers = headers;
        self
    }

    /// Chooses the subprotocol, and with it the protocol of that name if the vhost has one for
    /// this path. It must be one that the client offers, or the hook has failed.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Gives attributes, for the session to read: [`Wsi::attributes`](crate::Wsi::attributes),
    /// [`HttpRequest::attributes`](crate::HttpRequest::attributes).
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }
}

/// Why a hook could not tell.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HookError {
    /// It did not answer in time, or the whole chain did not.
    #[error("{0}")]
    Deadline(Deadline),
    /// Its own reason.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// It chose a subprotocol that the client does not offer.
    #[error("it chose the subprotocol {0:?}, which the client does not offer")]
    Subprotocol(String),
}

impl HookError {
    /// A failure with this reason.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(reason.into())
    }
}

impl From<AttributeError> for HookError {
    fn from(error: AttributeError) -> Self {
        Self::new(error)
    }
}

impl From<HeaderError> for HookError {
    fn from(error: HeaderError) -> Self {
        Self::new(error)
    }
}

/// What comes of a hook that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// The request is answered with 503.
    #[default]
    Refuse,
    /// The next hook decides.
    Next,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookPurpose {
    /// A response, from a mount that is [`hooked`](crate::Mount::hooked).
    Http,
    /// The upgrade to WebSocket.
    Upgrade,
}

/// A request, as [`Hook::ask`] sees it: its head has come, nothing of a body.
#[derive(Debug)]
pub struct HookRequest<'a> {
    pub(crate) id: HookRequestId,
    pub(crate) vhost: VhostId,
    pub(crate) vhost_name: &'a str,
    pub(crate) purpose: HookPurpose,
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) io: &'a Io,
}

impl<'a> HookRequest<'a> {
    /// Names the request, for an answer that comes later.
    pub const fn id(&self) -> HookRequestId {
        self.id
    }

    /// What it asks for.
    pub const fn purpose(&self) -> HookPurpose {
        self.purpose
    }

    /// The vhost that its `Host` chose.
    pub const fn vhost(&self) -> VhostId {
        self.vhost
    }

    /// The first name of that vhost.
    pub const fn vhost_name(&self) -> &'a str {
        self.vhost_name
    }

    /// Where it came from.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.io.peer()
    }

    /// Whether it came over TLS.
    pub const fn is_tls(&self) -> bool {
        self.io.secure.is_some()
    }

    /// Who the client is, by the certificate that it has shown; `None` if it has shown none.
    #[cfg(feature = "tls")]
    pub fn peer_identity(&self) -> Option<crate::tls::PeerIdentity> {
        self.io.secure.as_ref()?.peer_identity()
    }

    /// The whole head.
    pub const fn head(&self) -> &'a RequestHead<'a> {
        self.head
    }

    /// The method, as it was sent.
    pub fn method(&self) -> &'a str {
        self.head.method()
    }

    /// The path of the target, without the query, with every octet spelled in one way: what is
    /// visible stands for itself (`/%61dmin` is `/admin`, as it is for mounts), but for `%2F`,
    /// `%3F`, `%23` and `%25`, which would mean something else. As it was sent it is in the
    /// [`head`](Self::head).
    pub fn path(&self) -> Cow<'a, str> {
        one_spelling(self.head.path())
    }

    /// The query of the target, without its `?` and not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The first header of that name, case-insensitively.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// The subprotocols that the client offers, in its order of preference; none for a plain
    /// request.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        offered(self.head, self.purpose)
    }
}

fn offered<'a>(
    head: &'a RequestHead<'a>,
    purpose: HookPurpose,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let offers = head.fields().elements("sec-websocket-protocol");
    let offers = offers.filter(move |_| purpose == HookPurpose::Upgrade);
    offers.filter_map(|name| std::str::from_utf8(name).ok())
}

/// The hooks of a vhost and their rules.
///
/// Hooks are asked in the order of their priorities, the lowest first, and those of the same
/// priority in the order in which they were added.
#[derive(Debug)]
#[must_use]
pub struct HookChain {
    pub(crate) hooks: Vec<HookConfig>,
    pub(crate) deadline: Duration,
    /// The answer when no hook decided; `None` allows.
    pub(crate) otherwise: Option<Refuse>,
}

impl HookChain {
    /// No hooks yet. As it is, it denies everything with 403.
    pub fn new() -> Self {
        Self {
            hooks: Vec::new(),
            deadline: Duration::from_secs(15),
            otherwise: Some(Refuse::new(403)),
        }
    }

    /// Adds a hook with the defaults of [`HookConfig`].
    pub fn hook(self, name: impl Into<String>, hook: impl Hook) -> Self {
        self.with(HookConfig::new(name, hook))
    }

    /// Adds a hook.
    pub fn with(mut self, hook: HookConfig) -> Self {
        self.hooks.push(hook);
        self
    }

    /// How long the whole chain may take for a request; then 503. `Duration::MAX` is never.
    /// Default 15 s.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Allows what no hook decided about.
    pub fn otherwise_allow(mut self) -> Self {
        self.otherwise = None;
        self
    }

    /// Answers what no hook decided about with this. Default: 403.
    pub fn otherwise_deny(mut self, refuse: Refuse) -> Self {
        self.otherwise = Some(refuse);
        self
    }

    /// What is wrong with it, if something is: the name and the problem.
    pub(crate) fn problem(&self) -> Option<(String, &'static str)> {
        let mut seen = BTreeSet::new();
        for hook in &self.hooks {
            let problem = if hook.name.is_empty() {
                "a hook needs a name"
            } else if !seen.insert(hook.name.as_str()) {
                "two hooks have the name"
            } else {
                continue;
            };
            return Some((hook.name.clone(), problem));
        }
        None
    }
}

impl Default for HookChain {
    fn default() -> Self {
        Self::new()
    }
}

/// A hook in a chain: its name, its place, its deadline, and what comes of its failures.
#[derive(Debug)]
#[must_use]
pub struct HookConfig {
    pub(crate) name: String,
    pub(crate) priority: i32,
    pub(crate) deadline: Duration,
    pub(crate) on_failure: OnFailure,
    pub(crate) key: u64,
    pub(crate) dispatch: Box<dyn HookDispatch>,
}

impl HookConfig {
    /// A hook under a name, which is what the observer is told. Priority 0, 5 s to answer,
    /// requests are refused when it fails.
    pub fn new(name: impl Into<String>, hook: impl Hook) -> Self {
        Self::with_handle(name, hook).0
    }

    /// As [`HookConfig::new`], with the handle that reaches the hook later.
    pub fn with_handle<H: Hook>(name: impl Into<String>, hook: H) -> (Self, HookHandle<H>) {
        let key = NEXT_HOOK.fetch_add(1, Ordering::Relaxed);
        let config = Self {
            name: name.into(),
            priority: 0,
            deadline: Duration::from_secs(5),
            on_failure: OnFailure::default(),
            key,
            dispatch: Box::new(hook),
        };
        (config, HookHandle::new(key))
    }

    /// Hooks of lower priority are asked first. Default 0.
    pub const fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// How long it may take to answer a request. `Duration::MAX` is never: the chain's deadline
    /// counts then. Default 5 s.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What comes of its failures, late answers included. Default: [`OnFailure::Refuse`].
    pub const fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }
}

/// Why the hooks of a vhost refused a request.
#[derive(Debug)]
#[non_exhaustive]
pub struct HookRefusal {
    /// The hook that decided or failed; `None` when none decided.
    pub hook: Option<String>,
    /// The status of the response.
    pub status: u16,
    /// Why it failed, if it did.
    pub error: Option<HookError>,
}

impl fmt::Display for HookRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        match (&self.hook, &self.error) {
            (Some(hook), Some(error)) => {
                write!(f, "the hook {hook:?} failed ({error}): status {status}")
            }
            (Some(hook), None) => write!(f, "the hook {hook:?} refused with status {status}"),
            (None, _) => write!(f, "no hook decided: status {status}"),
        }
    }
}

impl Error for HookRefusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_ref().map(|error| error as &dyn Error)
    }
}

/// A chain as the loop keeps it.
#[derive(Debug)]
pub(crate) struct ChainSlot {
    /// The first name of its vhost.
    pub(crate) vhost_name: String,
    /// In the order in which they are asked.
    pub(crate) hooks: Vec<HookConfig>,
    pub(crate) deadline: Duration,
    pub(crate) otherwise: Option<Refuse>,
}

impl ChainSlot {
    pub(crate) fn new(vhost_name: String, mut chain: HookChain) -> Self {
        // Stable: those of the same priority keep their order.
        chain.hooks.sort_by_key(|hook| hook.priority);
        Self {
            vhost_name,
            hooks: chain.hooks,
            deadline: chain.deadline,
            otherwise: chain.otherwise,
        }
    }
}

/// Where the loop keeps a hook: which chain, and which hook of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HookPlace {
    pub(crate) chain: u32,
    pub(crate) at: usize,
}

/// A hook whose type the loop does not know.
pub(crate) trait HookDispatch: Hook + Any {
    fn as_any(&mut self) -> &mut dyn Any;

    fn webhook(&mut self) -> Option<&mut Webhook> {
        self.as_any().downcast_mut()
    }

    /// Who is told about the requests that the hook has made.
    fn fetching(&mut self) -> Option<&mut dyn HttpClientHandler> {
        Some(self.webhook()?.answers())
    }
}

impl<H: Hook> HookDispatch for H {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl fmt::Debug for dyn HookDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// Makes the keys of hook handles, which must differ in the whole process.
static NEXT_HOOK: AtomicU64 = AtomicU64::new(0);
