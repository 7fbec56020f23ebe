//! What an application implements to be told about its requests: [`HttpClientHandler`].

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::error::FetchError;
use crate::http::HeaderList;
use crate::http::head::ResponseHead;
use crate::id::{FetchId, TimerTag};
use crate::wsi::Cx;

/// Is told about the requests of a vhost that were made with [`Cx::fetch`].
///
/// Every fetch ends in exactly one [`on_done`](Self::on_done), also when the context is dropped,
/// and never inside the call that began it. Callbacks never nest. One object serves all requests;
/// what belongs to one of them it keeps under its [`FetchId`]. A panic in a callback leaves
/// [`Context::service`](crate::Context::service) as a panic; the request that it was about is
/// dropped with its connection and without `on_done`, everything else goes on.
///
/// ```
/// use wsloop::{Cx, FetchError, FetchId, Fetched, HttpClientHandler};
///
/// struct Print;
///
/// impl HttpClientHandler for Print {
///     fn on_done(&mut self, _: &mut Cx<'_>, _: FetchId, outcome: Result<Fetched, FetchError>) {
///         match outcome {
///             Ok(done) => println!("{} {}", done.status, String::from_utf8_lossy(&done.body)),
///             Err(error) => eprintln!("{error}"),
///         }
///     }
/// }
/// ```
pub trait HttpClientHandler: Send + 'static {
    /// An interim response has come (100, 102, 103): it says nothing about the outcome.
    ///
    /// # Errors
    ///
    /// `Err(FetchAbort)` gives the request up.
    fn on_interim(
        &mut self,
        cx: &mut Cx<'_>,
        id: FetchId,
        head: &ResponseHead<'_>,
    ) -> Result<(), FetchAbort> {
        let _ = (cx, id, head);
        Ok(())
    }

    /// The head of the final response has come, whatever its status. Redirects that are followed
    /// are not shown.
    ///
    /// # Errors
    ///
    /// `Err(FetchAbort)` gives the request up.
    fn on_response(
        &mut self,
        cx: &mut Cx<'_>,
        id: FetchId,
        head: &ResponseHead<'_>,
    ) -> Result<(), FetchAbort> {
        let _ = (cx, id, head);
        Ok(())
    }

    /// A piece of the response's body, for a fetch that asked for it with
    /// [`FetchInfo::streamed`](crate::FetchInfo::streamed). Where it is cut has no meaning. It is
    /// not known to be whole before [`on_done`](Self::on_done) says so.
    ///
    /// # Errors
    ///
    /// `Err(FetchAbort)` gives the request up.
    fn on_body(&mut self, cx: &mut Cx<'_>, id: FetchId, data: &[u8]) -> Result<(), FetchAbort> {
        let _ = (cx, id, data);
        Ok(())
    }

    /// There is room for more of a streamed request body: once when the connection is there, then
    /// after each [`Cx::request_fetch_writable`].
    ///
    /// # Errors
    ///
    /// `Err(FetchAbort)` gives the request up.
    fn on_writable(&mut self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        let _ = (cx, id);
        Ok(())
    }

    /// The fetch is over: the last callback about it.
    fn on_done(&mut self, cx: &mut Cx<'_>, id: FetchId, outcome: Result<Fetched, FetchError>);

    /// A timer of this handler ([`Cx::set_timer`]) is due.
    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let _ = (cx, tag);
    }

    /// Somebody called [`CancelService::cancel_service`](crate::CancelService::cancel_service).
    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// A handler's way to give a request up; [`on_done`](HttpClientHandler::on_done) follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it says all there is to say")]
pub struct FetchAbort;

/// A response that has come whole.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderList,
    /// The body, without its framing; empty if it was streamed.
    pub body: Vec<u8>,
    /// The URL that gave it, after redirects.
    pub url: String,
    /// How many redirects led there.
    pub redirects: u32,
    /// Whether the connection had served another request before.
    pub reused: bool,
    /// How often the request was sent; over 1 after it met a connection that the peer had closed.
    pub attempts: u32,
    /// Time from the call.
    pub elapsed: Duration,
}

impl Fetched {
    /// Whether the status is of the 2xx kind.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// The value of the first header of that name, case aside.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name)
    }
}

impl fmt::Debug for Fetched {
    /// Leaves out the query and the body, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("Fetched")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body.len())
            .field("url", &url)
            .field("redirects", &self.redirects)
            .field("reused", &self.reused)
            .field("attempts", &self.attempts)
            .field("elapsed", &self.elapsed)
            .finish()
    }
}

/// Reaches a handler that was given to a vhost, with its type.
///
/// Made by [`VhostConfig::add_http_client`](crate::VhostConfig::add_http_client), used with
/// [`Context::http_client`](crate::Context::http_client) and
/// [`FetchInfo::handled_by`](crate::FetchInfo::handled_by).
pub struct HttpClientHandle<H> {
    pub(crate) key: u64,
    marker: PhantomData<fn() -> H>,
}

impl<H> HttpClientHandle<H> {
    pub(crate) const fn new(key: u64) -> Self {
        Self {
            key,
            marker: PhantomData,
        }
    }
}

impl<H> Clone for HttpClientHandle<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for HttpClientHandle<H> {}

impl<H> fmt::Debug for HttpClientHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpClientHandle({})", self.key)
    }
}

/// A handler whose type the loop does not know.
pub(crate) trait FetchDispatch: Any + Send {
    fn handler(&mut self) -> &mut dyn HttpClientHandler;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl fmt::Debug for dyn FetchDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClientHandler")
    }
}

pub(crate) struct BoundClient<H>(pub(crate) H);

impl<H: HttpClientHandler> FetchDispatch for BoundClient<H> {
    fn handler(&mut self) -> &mut dyn HttpClientHandler {
        &mut self.0
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
