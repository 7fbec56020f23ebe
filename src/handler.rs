//! What an application implements to serve plain HTTP beside WebSocket: [`HttpHandler`].

mod failure;

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use crate::conn::{Flags, Queued, SendHalf};
use crate::error::CloseKind;
use crate::hook::Attributes;
use crate::http::HeaderList;
use crate::http::body::{BodyError, Framing};
use crate::http::head::RequestHead;
use crate::http::response::{BodyLength, RespondError, Response, ResponseHalf};
use crate::id::{ExchangeId, TimerId, TimerTag, VhostId, WsiId};
use crate::inner::{Inner, Out, Owner, TimerKind};
use crate::net::transport::Io;
use crate::timer::saturating_add;
use crate::wsi::{Current, Cx};

pub use failure::HttpFailure;

/// Serves HTTP requests below a [`Mount`](crate::Mount)'s prefix.
///
/// `self` is what all requests share, `Exchange` what one request keeps from its head to its end.
/// The requests of a connection come one after the other, those of several connections interleave.
/// Like those of [`Protocol`](crate::Protocol), callbacks never nest and must not block.
///
/// An exchange is over when its response is complete; [`on_done`](HttpHandler::on_done) then gives
/// it back. A handler that needs no state per request can be a closure: [`Mount::call`](crate::Mount::call).
pub trait HttpHandler: Send + 'static {
    /// What one request keeps.
    type Exchange: Send + 'static;

    /// A request head has come; its body, if there is one, comes to
    /// [`on_body`](HttpHandler::on_body). The response may be given here, in a later callback of
    /// this exchange, or from anywhere through [`Cx::exchange`]. A client that waits for
    /// `100 Continue` gets it when this has returned `Ok` without a response.
    ///
    /// # Errors
    ///
    /// [`HttpFailure`] answers the request, or drops its connection; the exchange then does not
    /// come about, and nothing else is called for it.
    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Self::Exchange, HttpFailure>;

    /// A piece of the request's body, as it arrived; where it is cut has no meaning. Without an
    /// implementation bodies are dropped.
    ///
    /// # Errors
    ///
    /// [`HttpFailure`] answers the request, or drops its connection.
    fn on_body(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Self::Exchange,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        let _ = (http, exchange, data);
        Ok(())
    }

    /// The request is complete. Called for every request, also for one without a body, unless it
    /// has been answered before.
    ///
    /// # Errors
    ///
    /// [`HttpFailure`] answers the request, or drops its connection.
    fn on_body_end(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Self::Exchange,
    ) -> Result<(), HttpFailure> {
        let _ = (http, exchange);
        Ok(())
    }

    /// There is room to send, after [`Http::request_writable`].
    ///
    /// # Errors
    ///
    /// [`HttpFailure`] answers the request, or drops its connection.
    fn on_writable(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Self::Exchange,
    ) -> Result<(), HttpFailure> {
        let _ = (http, exchange);
        Ok(())
    }

    /// A timer of [`Http::set_timer`] is due.
    ///
    /// # Errors
    ///
    /// [`HttpFailure`] answers the request, or drops its connection.
    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Self::Exchange,
        tag: TimerTag,
    ) -> Result<(), HttpFailure> {
        let _ = (http, exchange, tag);
        Ok(())
    }

    /// The client has ended its stream while the response is not complete. Nearly always it has
    /// gone; the default drops the connection. A handler for clients that only half-close returns
    /// `Ok` and goes on.
    ///
    /// # Errors
    ///
    /// [`HttpFailure`] answers the request, or drops its connection.
    fn on_read_closed(
        &mut self,
        http: &mut Http<'_>,
        exchange: &mut Self::Exchange,
    ) -> Result<(), HttpFailure> {
        let _ = (http, exchange);
        Err(HttpFailure::abort())
    }

    /// The exchange is over: the last callback about it, with its state back.
    fn on_done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ExchangeId,
        exchange: Self::Exchange,
        outcome: &ExchangeOutcome,
    ) {
        let _ = (cx, id, exchange, outcome);
    }

    /// A timer of this handler ([`Cx::set_timer`]) is due.
    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let _ = (cx, tag);
    }

    /// Somebody called [`CancelService::cancel_service`](crate::CancelService::cancel_service).
    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// How an exchange ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExchangeOutcome {
    /// The response is complete and queued; the status that it had.
    Responded(u16),
    /// The application gave it up ([`HttpFailure::abort`], [`Http::abort`], [`Cx::abort`]).
    Aborted,
    /// The request's body is not one: refused with 400, 413 or 501.
    Body(BodyError),
    /// The body is longer than [`Limits::body_bytes`](crate::Limits::body_bytes) or the mount
    /// allows: refused with 413.
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The connection ended before the exchange did.
    Disconnected,
    /// The transport failed: the connection, or TLS on it, whose [`TlsError`](crate::TlsError) it has
    /// inside then.
    Io(io::Error),
    /// The context is shutting down, or the vhost was destroyed.
    Shutdown,
    /// The body came too slowly, the response did not begin in time, or the client took nothing of
    /// it for too long.
    Timeout(crate::Deadline),
}

/// A request, as [`HttpHandler::on_request`] sees it.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    pub(crate) id: ExchangeId,
    pub(crate) vhost: VhostId,
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) framing: Framing,
    /// Length of the mount's prefix in the path.
    pub(crate) prefix: usize,
    pub(crate) attributes: &'a Attributes,
    pub(crate) io: &'a Io,
}

impl<'a> HttpRequest<'a> {
    /// Names the exchange, for a response that comes later.
    pub const fn id(&self) -> ExchangeId {
        self.id
    }

    /// The vhost that its `Host` chose.
    pub const fn vhost(&self) -> VhostId {
        self.vhost
    }

    /// Where it came from.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.io.peer()
    }

    /// Whether it came over TLS.
    pub const fn is_tls(&self) -> bool {
        self.io.secure.is_some()
    }

    /// What the TLS handshake agreed on: version, SNI, suite; `None` without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<crate::tls::TlsInfo> {
        self.io.secure.as_ref()?.info()
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

    /// The method, as it was sent: methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.head.method()
    }

    /// The path of the target, without the query and not decoded.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// What follows the mount's prefix in the path: empty, or beginning with a slash.
    pub fn path_below(&self) -> &'a str {
        let path = self.head.path();
        path.get(self.prefix..).unwrap_or_default()
    }

    /// The query of the target, without its `?` and not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The first header of that name, case-insensitively.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// What the hook that allowed the request said about it; empty where the mount is not
    /// [`hooked`](crate::Mount::hooked).
    pub const fn attributes(&self) -> &'a Attributes {
        self.attributes
    }

    /// The length of the body: 0 without one, `None` when only its end will tell.
    pub const fn body_len(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(len) => Some(len),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }
}

/// One exchange, inside one of its callbacks, with the loop behind it.
///
/// Nothing here blocks or calls back: what is written leaves when the callback has returned.
#[derive(Debug)]
pub struct Http<'a> {
    cx: Cx<'a>,
    id: ExchangeId,
    io: Option<&'a Io>,
}

impl<'a> Http<'a> {
    pub(crate) fn new(
        inner: &'a mut Inner,
        handler: u32,
        id: ExchangeId,
        send: &'a mut SendHalf,
        io: Option<&'a Io>,
        response: &'a mut ResponseHalf,
    ) -> Self {
        let mut cx = Cx::new(inner, Owner::Handler(handler));
        cx.current = Some(Current {
            send,
            io: None,
            response: Some((id, response)),
        });
        Self { cx, id, io }
    }

    /// The exchange's id, to keep.
    pub const fn id(&self) -> ExchangeId {
        self.id
    }

    /// The loop: timers, client connections, other exchanges.
    pub const fn cx(&mut self) -> &mut Cx<'a> {
        &mut self.cx
    }

    /// The time of this turn of the loop.
    pub const fn now(&self) -> Instant {
        self.cx.inner.out.now
    }

    /// The value of `Date` in this turn's responses.
    pub(crate) fn date(&self) -> &str {
        &self.cx.inner.out.date
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.io?.peer())
    }

    /// Whether the transport is TLS.
    pub fn is_tls(&self) -> bool {
        self.io.is_some_and(|io| io.secure.is_some())
    }

    /// What the TLS handshake agreed on: version, SNI, suite; `None` without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<crate::tls::TlsInfo> {
        self.io?.secure.as_ref()?.info()
    }

    /// Who the client is, by the certificate that it has shown; `None` if it has shown none.
    #[cfg(feature = "tls")]
    pub fn peer_identity(&self) -> Option<crate::tls::PeerIdentity> {
        self.io?.secure.as_ref()?.peer_identity()
    }

    /// Gives the whole response, of any length: what a pipelining client has not read yet does not
    /// count against it.
    ///
    /// # Errors
    ///
    /// [`RespondError`]; nothing of a refused response is sent.
    pub fn respond(&mut self, response: Response) -> Result<Queued, RespondError> {
        self.responder()?.respond(response)
    }

    /// Begins a response whose body follows in pieces: [`Http::write`], then [`Http::finish`].
    ///
    /// # Errors
    ///
    /// [`RespondError`]; nothing is sent then.
    pub fn start(
        &mut self,
        status: u16,
        headers: &HeaderList,
        length: BodyLength,
    ) -> Result<Queued, RespondError> {
        self.responder()?.start(status, headers, length)
    }

    /// Queues a piece of the body.
    ///
    /// # Errors
    ///
    /// [`RespondError::Full`] at the cap ([`Limits::output_bytes`](crate::Limits::output_bytes)):
    /// call [`Http::request_writable`] and write from `on_writable`. The others say what is wrong
    /// with the order of calls. Nothing of a refused piece is sent.
    pub fn write(&mut self, data: &[u8]) -> Result<Queued, RespondError> {
        self.responder()?.write(data)
    }

    /// Ends the body: the response is complete, and after this callback the exchange is over.
    ///
    /// # Errors
    ///
    /// [`RespondError::TooShort`] when less was written than declared, and wrong order of calls.
    pub fn finish(&mut self) -> Result<Queued, RespondError> {
        self.responder()?.finish()
    }

    /// Whether the response has begun.
    pub fn is_started(&mut self) -> bool {
        self.responder()
            .is_ok_and(|responder| responder.response.is_started())
    }

    /// Closes the connection after this response, and says so in its head if that has not left.
    pub fn close_after(&mut self) {
        if let Ok(responder) = self.responder() {
            responder.response.close_after();
        }
    }

    /// Asks for one [`on_writable`](HttpHandler::on_writable), which comes when at most
    /// [`Limits::output_low_water`](crate::Limits::output_low_water) bytes wait.
    pub fn request_writable(&mut self) {
        if let Ok(mut responder) = self.responder() {
            responder.request_writable();
        }
    }

    /// Bytes of the connection that wait to be sent.
    pub fn buffered_out(&self) -> usize {
        let current = self.cx.current.as_ref();
        current.map_or(0, |current| current.send.tx.len())
    }

    /// Takes nothing more of the request's body until [`Http::resume_reading`]. Meanwhile the
    /// deadline of the body rests.
    pub fn pause_reading(&mut self) {
        if let Some(current) = &mut self.cx.current {
            current.send.flags |= Flags::PAUSED;
        }
    }

    /// Undoes [`Http::pause_reading`].
    pub fn resume_reading(&mut self) {
        if let Some(current) = &mut self.cx.current {
            current.send.flags -= Flags::PAUSED;
            current.send.mark(&mut self.cx.inner.out);
        }
    }

    /// Drops the connection after this callback.
    pub fn abort(&mut self) {
        if let Some(current) = &mut self.cx.current {
            current
                .send
                .abort(&mut self.cx.inner.out, CloseKind::Aborted);
        }
    }

    /// Arms a timer of this exchange; [`on_timer`](HttpHandler::on_timer) gets the tag. It is
    /// cancelled when the exchange ends. `None` for a time that never comes (`Duration::MAX`).
    pub fn set_timer(&mut self, after: Duration, tag: TimerTag) -> Option<TimerId> {
        let current = self.cx.current.as_mut()?;
        let out = &mut self.cx.inner.out;
        let at = saturating_add(out.now, after)?;
        let key = out.timers.arm(at, TimerKind::Wsi(self.id.wsi, tag));
        current.send.keep_timer(&out.timers, key);
        Some(TimerId(key))
    }

    fn responder(&mut self) -> Result<Responder<'_>, RespondError> {
        let id = self.id;
        self.cx.exchange(id).ok_or(RespondError::Gone)
    }
}

/// The response of an exchange, reached from anywhere in the loop: see [`Cx::exchange`].
#[derive(Debug)]
pub struct Responder<'a> {
    pub(crate) send: &'a mut SendHalf,
    pub(crate) out: &'a mut Out,
    pub(crate) response: &'a mut ResponseHalf,
}

impl Responder<'_> {
    /// See [`Http::respond`].
    ///
    /// # Errors
    ///
    /// [`RespondError`]; nothing of a refused response is sent.
    pub fn respond(&mut self, response: Response) -> Result<Queued, RespondError> {
        // The next request is not begun while the queue is over its cap, so that this is the only
        // response that can be.
        self.admit(0)?;
        self.answer(&response)?;
        Ok(self.queued())
    }

    /// A whole response, also of a connection that will not send it.
    pub(crate) fn answer(&mut self, response: &Response) -> Result<(), RespondError> {
        let follows = self.append(|half, tail, date| half.respond(tail, date, response))?;
        if follows {
            let body = response.body.clone();
            self.send.tx.append_shared(&mut self.out.pool, body);
        }
        Ok(())
    }

    /// See [`Http::start`].
    ///
    /// # Errors
    ///
    /// [`RespondError`]; nothing is sent then.
    pub fn start(
        &mut self,
        status: u16,
        headers: &HeaderList,
        length: BodyLength,
    ) -> Result<Queued, RespondError> {
        self.admit(0)?;
        self.append(|half, tail, date| half.start(tail, date, status, headers, length))?;
        Ok(self.queued())
    }

    /// See [`Http::write`].
    ///
    /// # Errors
    ///
    /// [`RespondError`]; nothing of a refused piece is sent.
    pub fn write(&mut self, data: &[u8]) -> Result<Queued, RespondError> {
        // Before the cap: nobody is told of room that comes after the end.
        if self.response.is_done() {
            return Err(RespondError::Finished);
        }
        self.admit(data.len())?;
        self.append(|half, tail, _| half.write(tail, data))?;
        Ok(self.queued())
    }

    /// See [`Http::finish`].
    ///
    /// # Errors
    ///
    /// [`RespondError`].
    pub fn finish(&mut self) -> Result<Queued, RespondError> {
        self.admit(0)?;
        self.append(|half, tail, _| half.finish(tail))?;
        Ok(self.queued())
    }

    /// See [`Http::request_writable`].
    pub fn request_writable(&mut self) {
        self.send.flags |= Flags::WANT_WRITABLE;
        self.send.mark(self.out);
    }

    /// Bytes of the connection that wait to be sent.
    pub fn buffered_out(&self) -> usize {
        self.send.tx.len()
    }

    /// Drops the connection.
    pub fn abort(&mut self) {
        self.send.abort(self.out, CloseKind::Aborted);
    }

    /// An empty queue takes anything, as for messages.
    fn admit(&self, len: usize) -> Result<(), RespondError> {
        if self.send.flags.contains(Flags::ABORT) {
            return Err(RespondError::Gone);
        }
        let buffered = self.send.tx.len();
        let limit = self.send.settings.limits.output_bytes;
        if len > 0 && buffered > 0 && buffered.saturating_add(len) > limit {
            return Err(RespondError::Full { buffered, limit });
        }
        Ok(())
    }

    fn append<T>(
        &mut self,
        write: impl FnOnce(&mut ResponseHalf, &mut Vec<u8>, &str) -> Result<T, RespondError>,
    ) -> Result<T, RespondError> {
        let Out { pool, date, .. } = &mut *self.out;
        let mut written = Err(RespondError::Gone);
        self.send.tx.append(pool, |tail| {
            written = write(self.response, tail, date);
        });
        self.send.mark(self.out);
        written
    }

    fn queued(&self) -> Queued {
        Queued {
            buffered: self.send.tx.len(),
        }
    }
}

/// A handler whose types the loop does not know.
pub(crate) trait HttpDispatch: Any + Send {
    /// Gives the place of the new exchange.
    fn request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<usize, HttpFailure>;
    fn body(
        &mut self,
        http: &mut Http<'_>,
        exchange: usize,
        data: &[u8],
    ) -> Result<(), HttpFailure>;
    fn body_end(&mut self, http: &mut Http<'_>, exchange: usize) -> Result<(), HttpFailure>;
    fn writable(&mut self, http: &mut Http<'_>, exchange: usize) -> Result<(), HttpFailure>;
    fn timer(
        &mut self,
        http: &mut Http<'_>,
        exchange: usize,
        tag: TimerTag,
    ) -> Result<(), HttpFailure>;
    fn read_closed(&mut self, http: &mut Http<'_>, exchange: usize) -> Result<(), HttpFailure>;
    fn done(&mut self, cx: &mut Cx<'_>, id: ExchangeId, exchange: usize, outcome: &ExchangeOutcome);
    fn free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag);
    fn wake(&mut self, cx: &mut Cx<'_>);
    /// Drops an exchange without telling anybody: its callback panicked.
    fn forget(&mut self, exchange: usize);
    fn as_any(&mut self) -> &mut dyn Any;
    /// How many exchanges are kept; see `Context::check_invariants`.
    #[cfg(feature = "sim")]
    fn exchanges(&self) -> usize;
}

impl fmt::Debug for dyn HttpDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpHandler")
    }
}

/// A handler with the exchanges of its connections.
pub(crate) struct BoundHandler<H: HttpHandler> {
    pub(crate) handler: H,
    exchanges: Slab<H::Exchange>,
}

impl<H: HttpHandler> BoundHandler<H> {
    pub(crate) const fn new(handler: H) -> Self {
        Self {
            handler,
            exchanges: Slab::new(),
        }
    }
}

impl<H: HttpHandler> HttpDispatch for BoundHandler<H> {
    fn request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<usize, HttpFailure> {
        let exchange = self.handler.on_request(http, request)?;
        Ok(self.exchanges.insert(exchange))
    }

    fn body(
        &mut self,
        http: &mut Http<'_>,
        exchange: usize,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        match self.exchanges.get_mut(exchange) {
            Some(exchange) => self.handler.on_body(http, exchange, data),
            None => Ok(()),
        }
    }

    fn body_end(&mut self, http: &mut Http<'_>, exchange: usize) -> Result<(), HttpFailure> {
        match self.exchanges.get_mut(exchange) {
            Some(exchange) => self.handler.on_body_end(http, exchange),
            None => Ok(()),
        }
    }

    fn writable(&mut self, http: &mut Http<'_>, exchange: usize) -> Result<(), HttpFailure> {
        match self.exchanges.get_mut(exchange) {
            Some(exchange) => self.handler.on_writable(http, exchange),
            None => Ok(()),
        }
    }

    fn timer(
        &mut self,
        http: &mut Http<'_>,
        exchange: usize,
        tag: TimerTag,
    ) -> Result<(), HttpFailure> {
        match self.exchanges.get_mut(exchange) {
            Some(exchange) => self.handler.on_timer(http, exchange, tag),
            None => Ok(()),
        }
    }

    fn read_closed(&mut self, http: &mut Http<'_>, exchange: usize) -> Result<(), HttpFailure> {
        match self.exchanges.get_mut(exchange) {
            Some(exchange) => self.handler.on_read_closed(http, exchange),
            None => Ok(()),
        }
    }

    fn done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ExchangeId,
        exchange: usize,
        outcome: &ExchangeOutcome,
    ) {
        if let Some(exchange) = self.exchanges.try_remove(exchange) {
            self.handler.on_done(cx, id, exchange, outcome);
        }
    }

    fn free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        self.handler.on_free_timer(cx, tag);
    }

    fn wake(&mut self, cx: &mut Cx<'_>) {
        self.handler.on_wake(cx);
    }

    fn forget(&mut self, exchange: usize) {
        drop(self.exchanges.try_remove(exchange));
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    #[cfg(feature = "sim")]
    fn exchanges(&self) -> usize {
        self.exchanges.len()
    }
}

/// A function as a handler: [`Mount::call`](crate::Mount::call).
pub(crate) struct FnHandler<F>(pub(crate) F);

impl<F> HttpHandler for FnHandler<F>
where
    F: FnMut(&HttpRequest<'_>) -> Response + Send + 'static,
{
    type Exchange = ();

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<(), HttpFailure> {
        let response = (self.0)(request);
        http.respond(response)?;
        Ok(())
    }
}

/// Bytes shared with the response of a page.
pub(crate) fn page(content_type: &str, body: &Bytes) -> Response {
    let mut headers = HeaderList::new();
    // Checked when the vhost was made.
    let pushed = headers.push("Content-Type", content_type);
    debug_assert!(pushed.is_ok(), "a page's type was checked");
    Response::new(200).headers(headers).body(body.clone())
}

impl ExchangeId {
    /// The connection that the exchange runs on.
    pub const fn wsi(&self) -> WsiId {
        self.wsi
    }
}
