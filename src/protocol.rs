//! What an application implements, and the typed box in which the loop keeps it.

mod give;
mod sessions;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use self::give::{give_calmly, give_next, give_whole};
use self::sessions::Sessions;
use crate::conn::Phase;
use crate::error::{CloseCause, ConnectError, ServerRefusal, VhostError};
use crate::hook::{Attributes, HookError};
use crate::http::HeaderList;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::origin::{OriginError, Transport};
use crate::http::response::Response;
use crate::id::{RequestId, TimerTag, VhostId, WsiId};
use crate::lift::{Run, Stop};
use crate::net::transport::Io;

#[cfg(feature = "tls")]
use crate::tls::{Expiring, IdentityWarning, TlsConfigError};
#[cfg(feature = "tls")]
use crate::ws::Side;
use crate::ws::handshake::UpgradeRequest;
use crate::ws::recv::{Delivery, Recv, RecvPool};
use crate::ws::{Chunk, Close, CloseFrame, Message};
use crate::wsi::{Cx, Wsi};

/// A handler for WebSocket connections: what libwebsockets calls a protocol.
///
/// `self` is the data per vhost, [`Protocol::Session`] the data per connection. One object serves
/// all connections that are bound to it, accepted and dialled, and every callback borrows it, the
/// session and the connection at the same time.
///
/// # Contract
///
/// * Callbacks never nest. What a callback does to other connections (send, close, connect, ask
///   for writable) reaches them after it has returned.
/// * [`on_established`](Self::on_established) comes before anything else of a connection; exactly
///   one [`on_closed`](Self::on_closed) comes last, also when the context is dropped. A client's
///   attempt ends in exactly one of `on_established` and
///   [`on_connect_error`](Self::on_connect_error), with an [`on_retry`](Self::on_retry) for each
///   failure that a retry follows. If `on_established` itself refuses with `Err`,
///   there is no session and no `on_closed`; a client's attempt then ends in `on_connect_error`.
/// * `Err(Close)` from a callback begins the closing handshake with that code and reason. `?`
///   works on a [`SendError`](crate::SendError).
/// * After a close, from whichever side, no more messages are delivered.
/// * A panic in a callback leaves [`Context::service`](crate::Context::service) as a panic. The
///   connection it was about is dropped without `on_closed`; everything else goes on with the
///   next `service`.
pub trait Protocol: Send + 'static {
    /// What belongs to one connection.
    type Session: Send + 'static;

    /// A client asks for the upgrade to WebSocket, and its request is a valid one. Only servers.
    ///
    /// Accept it (perhaps with a subprotocol and headers), refuse it with a status, headers and a
    /// body, or decide later. The default accepts.
    ///
    /// # Errors
    ///
    /// `Err(Refuse)` answers the request with that response and closes the connection.
    fn filter_upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        let _ = (cx, request);
        Ok(Accept::new())
    }

    /// The opening handshake is complete; messages can be sent from here on.
    ///
    /// # Errors
    ///
    /// `Err(Close)` closes the connection at once; there is no `on_closed` then.
    fn on_established(
        &mut self,
        wsi: &mut Wsi<'_>,
        how: &Established<'_>,
    ) -> Result<Self::Session, Close>;

    /// A whole message, whose text is valid UTF-8. The default ignores it.
    ///
    /// # Errors
    ///
    /// `Err(Close)` begins the closing handshake.
    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Self::Session,
        message: Message<'_>,
    ) -> Result<(), Close> {
        let _ = (wsi, session, message);
        Ok(())
    }

    /// A piece of a message, for a protocol that was added with
    /// [`add_chunk_protocol`](crate::VhostConfig::add_chunk_protocol); there it comes instead of
    /// `on_message`. The default ignores it.
    ///
    /// # Errors
    ///
    /// `Err(Close)` begins the closing handshake.
    fn on_chunk(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Self::Session,
        chunk: Chunk<'_>,
    ) -> Result<(), Close> {
        let _ = (wsi, session, chunk);
        Ok(())
    }

    /// The answer to [`Wsi::request_writable`]: few enough bytes wait
    /// ([`Limits::output_low_water`](crate::Limits::output_low_water)) that more may be sent.
    /// Comes once per request.
    ///
    /// # Errors
    ///
    /// `Err(Close)` begins the closing handshake.
    fn on_writable(&mut self, wsi: &mut Wsi<'_>, session: &mut Self::Session) -> Result<(), Close> {
        let _ = (wsi, session);
        Ok(())
    }

    /// A pong came. With `round_trip` it answers the latest ping of this side, the application's
    /// or the library's; without, it is unsolicited or an old one.
    ///
    /// # Errors
    ///
    /// `Err(Close)` begins the closing handshake.
    fn on_pong(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Self::Session,
        payload: &[u8],
        round_trip: Option<Duration>,
    ) -> Result<(), Close> {
        let _ = (wsi, session, payload, round_trip);
        Ok(())
    }

    /// The peer began the closing handshake, with this code and reason if it gave any. The answer
    /// is queued already; nothing can be sent any more. `on_closed` follows.
    fn on_peer_close(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Self::Session,
        frame: Option<CloseFrame<'_>>,
    ) {
        let _ = (wsi, session, frame);
    }

    /// A timer of this connection, set with [`Wsi::set_timer`], is due.
    ///
    /// # Errors
    ///
    /// `Err(Close)` begins the closing handshake.
    fn on_timer(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Self::Session,
        tag: TimerTag,
    ) -> Result<(), Close> {
        let _ = (wsi, session, tag);
        Ok(())
    }

    /// A timer that belongs to no connection, set with [`Cx::set_timer`], is due.
    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let _ = (cx, tag);
    }

    /// The connection has ended: the last callback about it, with its session back.
    fn on_closed(
        &mut self,
        cx: &mut Cx<'_>,
        id: WsiId,
        session: Self::Session,
        cause: &CloseCause,
    ) {
        let _ = (cx, id, session, cause);
    }

    /// A client's attempt has ended without a connection: the last callback about it.
    fn on_connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError) {
        let _ = (cx, id, error);
    }

    /// An attempt of a client with a [`RetryPolicy`](crate::RetryPolicy) has failed, and another
    /// one follows after `next_delay`, under the same id: `error` is what would have been told
    /// otherwise. [`Cx::abort`] ends it; `on_connect_error` comes then. The default does nothing.
    ///
    /// The first attempt in place of a connection that was lost is told by
    /// [`CloseCause::reconnect`].
    fn on_retry(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError, next_delay: Duration) {
        let _ = (cx, id, error, next_delay);
    }

    /// Somebody called [`CancelService::cancel_service`](crate::CancelService::cancel_service).
    /// Calls may have been merged; at least one `on_wake` begins after the last of them.
    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// Told about what no protocol owns. Every method has a default that does nothing.
pub trait ContextObserver: Send + 'static {
    /// A server connection ended before a protocol owned it.
    fn on_refused(&mut self, cx: &mut Cx<'_>, refusal: &ServerRefusal) {
        let _ = (cx, refusal);
    }

    /// A listener cannot accept for want of descriptors or memory, or cannot at all. Comes when it
    /// begins to rest, not once per connection: while the want lasts, about ten times a second.
    fn on_listener_trouble(&mut self, cx: &mut Cx<'_>, trouble: &ListenerTrouble) {
        let _ = (cx, trouble);
    }

    /// A vhost that was asked for in a callback could not be made; its id is stale now. Also when
    /// TLS settings that were asked for in a callback do not go with the vhost, which stays as it
    /// was then.
    fn on_vhost_error(&mut self, cx: &mut Cx<'_>, id: VhostId, error: &VhostError) {
        let _ = (cx, id, error);
    }

    /// A TLS handshake has ended, on a vhost with [`trace_tls`](crate::VhostConfig::trace_tls).
    #[cfg(feature = "tls")]
    fn on_tls_handshake(&mut self, cx: &mut Cx<'_>, report: &TlsReport) {
        let _ = (cx, report);
    }

    /// The certificate of a vhost has come closer to its end than one of the thresholds of
    /// [`Context::warn_before_expiry`](crate::Context::warn_before_expiry), by default 30 days, 7
    /// days, one day and 0, and never more than a third of its lifetime.
    #[cfg(feature = "tls")]
    fn on_certificate_expiring(
        &mut self,
        cx: &mut Cx<'_>,
        id: VhostId,
        side: Side,
        what: &Expiring,
    ) {
        let _ = (cx, id, side, what);
    }

    /// A hook has failed, or has not answered in time. What comes of that is up to its
    /// [`OnFailure`](crate::hook::OnFailure); this is how one learns of failures that only made
    /// the next hook decide.
    fn on_hook_error(&mut self, cx: &mut Cx<'_>, id: VhostId, hook: &str, error: &HookError) {
        let _ = (cx, id, hook, error);
    }

    /// The identity of a vhost has something that peers may object to: it does not cover a name of
    /// the vhost, say. Comes once for each warning and each identity that is taken into use: with
    /// the first turn after the vhost is made, and after every exchange.
    #[cfg(feature = "tls")]
    fn on_identity_warning(
        &mut self,
        cx: &mut Cx<'_>,
        id: VhostId,
        side: Side,
        warning: &IdentityWarning,
    ) {
        let _ = (cx, id, side, warning);
    }

    /// A vhost that watches its files ([`Context::watch_identity`](crate::Context::watch_identity))
    /// has found a new pair, or a callback asked for an exchange
    /// ([`Cx::set_server_identity`] and the like): what is new is in use now, or it is not fit and
    /// the old stays.
    #[cfg(feature = "tls")]
    fn on_identity_changed(
        &mut self,
        cx: &mut Cx<'_>,
        id: VhostId,
        side: Side,
        outcome: Result<(), &TlsConfigError>,
    ) {
        let _ = (cx, id, side, outcome);
    }

    /// A timer of [`Context::set_timer`](crate::Context::set_timer) is due.
    fn on_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let _ = (cx, tag);
    }
}

impl ContextObserver for () {}

impl fmt::Debug for dyn ContextObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextObserver")
    }
}

/// A TLS handshake that has ended.
#[cfg(feature = "tls")]
#[derive(Debug)]
#[non_exhaustive]
pub struct TlsReport {
    /// The connection.
    pub id: WsiId,
    /// The vhost, as far as it was chosen.
    pub vhost: VhostId,
    /// Which side this program is.
    pub side: Side,
    /// The other end.
    pub peer: SocketAddr,
    /// The steps, in order.
    pub trace: crate::tls::TlsTrace,
    /// What was agreed on; `None` if the handshake failed before that.
    pub info: Option<crate::tls::TlsInfo>,
    /// Why it failed, if it did.
    pub failure: Option<crate::tls::TlsFailure>,
}

/// A listener in trouble. Its `Display` is a line for a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListenerTrouble {
    /// Where it listens.
    pub address: SocketAddr,
    /// The system's reason.
    pub error: std::io::Error,
    /// After how long it accepts again; `None` if it never does.
    pub resumes_after: Option<Duration>,
}

impl ListenerTrouble {
    pub(crate) const fn new(
        address: SocketAddr,
        error: std::io::Error,
        resumes_after: Option<Duration>,
    ) -> Self {
        Self {
            address,
            error,
            resumes_after,
        }
    }
}

impl fmt::Display for ListenerTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error, .. } = self;
        match self.resumes_after {
            Some(after) => write!(f, "cannot accept on {address}: {error}; again in {after:?}"),
            None => write!(f, "cannot accept on {address} any more: {error}"),
        }
    }
}

/// An upgrade request, as [`Protocol::filter_upgrade`] sees it.
#[derive(Debug)]
pub struct Request<'a> {
    pub(crate) id: RequestId,
    pub(crate) vhost: VhostId,
    pub(crate) peer: SocketAddr,
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) upgrade: &'a UpgradeRequest<'a>,
    pub(crate) selected: Option<&'a str>,
    pub(crate) attributes: &'a Attributes,
    pub(crate) io: &'a Io,
}

impl<'a> Request<'a> {
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

    /// What it came over, for [`OriginPolicy::check`](crate::http::origin::OriginPolicy::check).
    pub const fn transport(&self) -> Transport {
        match self.is_tls() {
            true => Transport::Tls,
            false => Transport::Plain,
        }
    }

    /// Names the request, for a verdict that comes later.
    pub const fn id(&self) -> RequestId {
        self.id
    }

    /// The vhost that its `Host` chose.
    pub const fn vhost(&self) -> VhostId {
        self.vhost
    }

    /// Where it came from.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The whole head: target, headers.
    pub const fn head(&self) -> &'a RequestHead<'a> {
        self.head
    }

    /// The path of the target, without the query.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// The query of the target, without its `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The first header of that name, case-insensitively.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.upgrade.offered()
    }

    /// What the hook that allowed the request said about it.
    pub const fn attributes(&self) -> &'a Attributes {
        self.attributes
    }

    /// The subprotocol that a hook or this vhost chose among them, the vhost by the protocols'
    /// names.
    pub const fn selected_subprotocol(&self) -> Option<&'a str> {
        self.selected
    }
}

/// The verdict that lets an upgrade happen.
#[derive(Debug, Default)]
#[must_use]
pub struct Accept {
    pub(crate) subprotocol: Subprotocol,
    pub(crate) headers: HeaderList,
    pub(crate) later: Option<Option<Duration>>,
    #[cfg(feature = "deflate")]
    pub(crate) deflate: DeflateChoice,
}

/// Whether messages of the connection may be compressed.
#[cfg(feature = "deflate")]
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum DeflateChoice {
    Declined,
    #[default]
    AsConfigured,
}

#[derive(Debug, Default)]
pub(crate) enum Subprotocol {
    Named(String),
    None,
    /// What the vhost selected by its protocols' names.
    #[default]
    Selected,
}

impl Accept {
    /// Accepts, with the subprotocol that the vhost selected and no headers of one's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does not decide yet: [`Cx::decide`] does, with the request's id. Until then nothing is
    /// read from the connection. After the deadline
    /// ([`Timeouts::verdict`](crate::Timeouts::verdict)) the request is answered with 503.
    pub fn later() -> Self {
        Self {
            later: Some(None),
            ..Self::default()
        }
    }

    /// As [`Accept::later`], with a deadline of its own.
    pub fn later_within(deadline: Duration) -> Self {
        Self {
            later: Some(Some(deadline)),
            ..Self::default()
        }
    }

    /// Answers with this subprotocol instead of the one that the vhost selected. It must be one
    /// that the client offered, or the upgrade is refused with 500.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Subprotocol::Named(name.into());
        self
    }

    /// Answers without a subprotocol.
    pub fn no_subprotocol(mut self) -> Self {
        self.subprotocol = Subprotocol::None;
        self
    }

    /// Does not compress the messages of this connection, although its vhost does
    /// ([`VhostConfig::deflate`](crate::VhostConfig::deflate)) and the client offers it: for those
    /// that carry what is compressed already, or secrets beside what a stranger chose.
    #[cfg(feature = "deflate")]
    pub fn no_deflate(mut self) -> Self {
        self.deflate = DeflateChoice::Declined;
        self
    }

    /// Adds headers to the 101 response. Those of the handshake itself, such as `Connection`, are
    /// left out: the library writes them.
    pub fn headers(mut self, headers: HeaderList) -> Self {
        self.headers = headers;
        self
    }
}

/// The verdict that refuses an upgrade with an HTTP response.
#[derive(Clone, Debug)]
#[must_use]
pub struct Refuse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderList,
    pub(crate) body: Vec<u8>,
}

impl Refuse {
    /// Refuses with this status. One that is not of the 3xx, 4xx or 5xx kind is sent as 403.
    pub const fn new(status: u16) -> Self {
        Self {
            status: if matches!(status, 300..=599) {
                status
            } else {
                403
            },
            headers: HeaderList::new(),
            body: Vec::new(),
        }
    }

    /// Adds headers to the response. Those that frame it, such as `Content-Length`, are left out:
    /// the library writes them.
    pub fn headers(mut self, headers: HeaderList) -> Self {
        self.headers = headers;
        self
    }

    /// The body of the response; give its type in the headers. At most 64 KiB are sent.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.body.truncate(64 * 1024);
        self
    }
}

impl From<OriginError> for Refuse {
    /// Refuses with 403 and the reason.
    fn from(error: OriginError) -> Self {
        Response::text(error.status(), format!("{error}\n")).into()
    }
}

impl From<Response> for Refuse {
    fn from(response: Response) -> Self {
        Self::new(response.status)
            .headers(response.headers)
            .body(response.body)
    }
}

/// What the opening handshake brought.
#[derive(Debug)]
#[non_exhaustive]
pub struct Established<'a> {
    /// The head that came from the other side.
    pub head: Handshake<'a>,
    /// The subprotocol that both sides agreed on.
    pub subprotocol: Option<&'a str>,
    /// What the hook that allowed the connection said about it; empty on a client.
    pub attributes: &'a Attributes,
    /// What both sides agreed on about compression; `None` if messages go as they are.
    #[cfg(feature = "deflate")]
    pub deflate: Option<crate::ws::deflate::DeflateParams>,
}

/// The other side's part of the opening handshake.
#[derive(Debug)]
#[non_exhaustive]
pub enum Handshake<'a> {
    /// We are the server: the request.
    Request(&'a RequestHead<'a>),
    /// We are the client: the response.
    Response(&'a ResponseHead<'a>),
}

/// A protocol whose types the loop does not know.
pub(crate) trait Dispatch: Any + Send {
    fn filter(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse>;
    /// Gives the place of the new session.
    fn established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<usize, Close>;
    /// Processes received bytes; how many of them are done.
    fn drive(
        &mut self,
        recv: &mut Recv,
        pool: &mut RecvPool,
        input: &mut [u8],
        wsi: &mut Wsi<'_>,
        session: usize,
    ) -> usize;
    /// Gives the messages that lie whole at the front, in a calm visit of a server's connection, until
    /// it is not calm any more: that is a break. How many bytes are left.
    fn drive_calmly(
        &mut self,
        input: &mut [u8],
        wsi: &mut Wsi<'_>,
        session: usize,
    ) -> ControlFlow<usize, usize>;
    /// Visits the calm connections that events are about.
    fn visit_calmly<'e>(&mut self, run: Run<'_, 'e>) -> Stop<'e>;
    fn writable(&mut self, wsi: &mut Wsi<'_>, session: usize);
    fn timer(&mut self, wsi: &mut Wsi<'_>, session: usize, tag: TimerTag);
    fn free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag);
    fn closed(&mut self, cx: &mut Cx<'_>, id: WsiId, session: usize, cause: &CloseCause);
    fn connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError);
    fn retry(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError, next_delay: Duration);
    fn wake(&mut self, cx: &mut Cx<'_>);
    /// Drops a session without telling anybody: its callback panicked.
    fn forget(&mut self, session: usize);
    fn as_any(&mut self) -> &mut dyn Any;
    /// How many sessions are kept; see `Context::check_invariants`.
    #[cfg(feature = "sim")]
    fn sessions(&self) -> usize;
}

impl fmt::Debug for dyn Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol")
    }
}

/// A protocol with the sessions of its connections.
pub(crate) struct Bound<P: Protocol> {
    pub(crate) protocol: P,
    sessions: Sessions<P::Session>,
    delivery: Delivery,
}

impl<P: Protocol> Bound<P> {
    pub(crate) const fn new(protocol: P, delivery: Delivery) -> Self {
        Self {
            protocol,
            sessions: Sessions::new(),
            delivery,
        }
    }
}

impl<P: Protocol> Dispatch for Bound<P> {
    fn filter(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        self.protocol.filter_upgrade(cx, request)
    }

    fn established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<usize, Close> {
        let session = self.protocol.on_established(wsi, how)?;
        Ok(self.sessions.insert(session))
    }

    fn drive(
        &mut self,
        recv: &mut Recv,
        pool: &mut RecvPool,
        input: &mut [u8],
        wsi: &mut Wsi<'_>,
        session: usize,
    ) -> usize {
        let Self {
            protocol,
            sessions,
            delivery,
        } = self;
        let Some(session) = sessions.get_mut(session) else {
            return input.len();
        };
        let limits = wsi.recv_limits();
        let mut feed = recv.feed(wsi.side(), *delivery, &limits, pool, input);
        // Nobody wants what comes to a connection that closes, whoever began that.
        if wsi.send_half().phase != Phase::Open {
            feed.discard_data();
        }
        loop {
            let is_done = wsi.send_half().is_giving()
                && give_whole(protocol, wsi, session, &mut feed)
                && feed.is_drained();
            if is_done || !wsi.send_half().is_reading() {
                break;
            }
            if !give_next(protocol, wsi, session, &mut feed) {
                break;
            }
        }
        feed.finish()
    }

    #[inline(always)]
    fn drive_calmly(
        &mut self,
        input: &mut [u8],
        wsi: &mut Wsi<'_>,
        session: usize,
    ) -> ControlFlow<usize, usize> {
        let Self {
            protocol,
            sessions,
            delivery,
        } = self;
        match (sessions.get_mut(session), delivery) {
            (Some(session), Delivery::Messages) => give_calmly(protocol, wsi, session, input),
            _ => ControlFlow::Continue(input.len()),
        }
    }

    fn visit_calmly<'e>(&mut self, run: Run<'_, 'e>) -> Stop<'e> {
        run.each(self)
    }

    fn writable(&mut self, wsi: &mut Wsi<'_>, session: usize) {
        if let Some(session) = self.sessions.get_mut(session) {
            if let Err(close) = self.protocol.on_writable(wsi, session) {
                wsi.close(close);
            }
        }
    }

    fn timer(&mut self, wsi: &mut Wsi<'_>, session: usize, tag: TimerTag) {
        if let Some(session) = self.sessions.get_mut(session) {
            if let Err(close) = self.protocol.on_timer(wsi, session, tag) {
                wsi.close(close);
            }
        }
    }

    fn free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        self.protocol.on_free_timer(cx, tag);
    }

    fn closed(&mut self, cx: &mut Cx<'_>, id: WsiId, session: usize, cause: &CloseCause) {
        if let Some(session) = self.sessions.try_remove(session) {
            self.protocol.on_closed(cx, id, session, cause);
        }
    }

    fn connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError) {
        self.protocol.on_connect_error(cx, id, error);
    }

    fn retry(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError, next_delay: Duration) {
        self.protocol.on_retry(cx, id, error, next_delay);
    }

    fn wake(&mut self, cx: &mut Cx<'_>) {
        self.protocol.on_wake(cx);
    }

    fn forget(&mut self, session: usize) {
        drop(self.sessions.try_remove(session));
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    #[cfg(feature = "sim")]
    fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_in_trouble_says_where_why_and_for_how_long() {
        let error = || std::io::Error::other("no room");
        let at = SocketAddr::from(([127, 0, 0, 1], 80));
        for (resumes_after, text) in [
            (
                Some(Duration::from_millis(100)),
                "cannot accept on 127.0.0.1:80: no room; again in 100ms",
            ),
            (None, "cannot accept on 127.0.0.1:80 any more: no room"),
        ] {
            let trouble = ListenerTrouble::new(at, error(), resumes_after);
            assert_eq!(trouble.to_string(), text);
        }
    }
}
