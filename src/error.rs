//! Outcomes: what a call, an attempt or a connection ended in, grouped by who can act on it.

mod advice;
mod refusal;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::client::ArgumentError;
use crate::id::WsiId;
use crate::ws::handshake::{Refusal, ResponseError};
use crate::ws::{Close, CloseCode, ProtocolError};

pub use refusal::{RefusalReason, ServerRefusal};

/// Why a message was not queued.
///
/// Nothing of a refused message was sent; a borrowed payload is untouched and an owned one comes
/// back in [`Unsent`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The closing handshake has begun: RFC 6455 section 5.5.1 forbids data after a Close frame.
    #[error("the connection is closing; nothing can be sent after the Close frame")]
    Closing,
    /// A ping payload is longer than the 125 bytes that RFC 6455 section 5.5 allows.
    #[error("a ping of {len} bytes is longer than the 125 that a control frame may have")]
    ControlTooLong {
        /// Length of the refused payload.
        len: usize,
    },
    /// A fragmented message is open: finish it before another message begins (RFC 6455 5.4).
    #[error("a fragmented message is open; send its last fragment first")]
    FragmentOpen,
    /// The output queue is at its cap; wait for `on_writable`.
    #[error(
        "the output queue holds {buffered} of at most {limit} bytes; call request_writable and \
         send from on_writable"
    )]
    Full {
        /// Bytes that wait to be sent.
        buffered: usize,
        /// The cap, [`Limits::output_bytes`](crate::Limits::output_bytes).
        limit: usize,
    },
    /// The id names no connection (any more).
    #[error("no such connection: it has ended, or the id belongs to another context")]
    Gone,
    /// The connection is not established yet; send from `on_established` or later.
    #[error("the connection is not established yet; send from on_established or later")]
    NotEstablished,
    /// The message is over the limit for messages.
    #[error("a message of {len} bytes is over the limit of {limit}; raise Limits::message_bytes")]
    TooLarge {
        /// Length of the refused message.
        len: usize,
        /// The limit, [`Limits::message_bytes`](crate::Limits::message_bytes).
        limit: usize,
    },
}

impl From<SendError> for Close {
    /// Lets a callback use `?` on a send: the connection then closes with 1011, or with 1013 when
    /// the peer reads too slowly.
    #[cold]
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full { .. } => Self::new(CloseCode::TRY_AGAIN_LATER, "reading too slowly"),
            SendError::Closing => Self::normal(),
            SendError::ControlTooLong { .. }
            | SendError::FragmentOpen
            | SendError::Gone
            | SendError::NotEstablished
            | SendError::TooLarge { .. } => Self::new(CloseCode::INTERNAL_ERROR, "cannot answer"),
        }
    }
}

/// An owned message that was not queued, handed back.
#[derive(Debug, Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Unsent<T> {
    /// Why.
    #[source]
    pub error: SendError,
    /// The message, untouched.
    pub message: T,
}

impl<T> Unsent<T> {
    pub(crate) const fn new(error: SendError, message: T) -> Self {
        Self { error, message }
    }
}

impl<T> From<Unsent<T>> for Close {
    fn from(unsent: Unsent<T>) -> Self {
        unsent.error.into()
    }
}

/// The id names nothing (any more), so nothing was done.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("nothing has this id: it has ended, or the id belongs to another context")]
#[non_exhaustive]
pub struct Gone;

/// A verdict that came for a request that nobody waits for: it was decided, timed out or its
/// connection ended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("this request is not waiting for a verdict: it was decided, timed out or has ended")]
#[non_exhaustive]
pub struct NotPending;

/// Which side began the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum CloseSide {
    /// This program: the application, or the library on its behalf.
    Local,
    /// The other end, or the network between.
    Peer,
}

/// How a connection ended, in the detail that a log line or a metric wants.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CloseKind {
    /// The application called `abort`: no closing handshake was tried.
    #[error("aborted by the application")]
    Aborted,
    /// The application closed it: `close`, or `Err(Close)` from a callback.
    #[error("closed by the application")]
    Application,
    /// The context was dropped while the connection was open.
    #[error("the context was dropped")]
    ContextDropped,
    /// The stream ended without a Close frame.
    #[error("the peer ended the stream without a Close frame")]
    EndOfStream,
    /// The certificate that it was made with was replaced.
    #[error("its certificate was replaced")]
    IdentityReplaced,
    /// The peer sent a Close frame.
    #[error("closed by the peer")]
    Peer,
    /// The peer broke the protocol; the Close code follows from the error.
    #[error("protocol error: {0}")]
    Protocol(#[source] ProtocolError),
    /// A graceful shutdown of the context.
    #[error("the context is shutting down")]
    Shutdown,
    /// A deadline passed.
    #[error("{0}")]
    Timeout(Deadline),
    /// The TLS session failed.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[source] Box<TlsError>),
    /// The transport failed.
    #[error("transport error: {0}")]
    Transport(#[source] io::Error),
    /// The vhost was destroyed.
    #[error("its vhost was destroyed")]
    VhostDestroyed,
}

/// A deadline that passed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{stage} took longer than {limit:?}")]
#[non_exhaustive]
pub struct Deadline {
    /// What took too long.
    pub stage: DeadlineStage,
    /// The limit in force.
    pub limit: Duration,
}

impl Deadline {
    pub(crate) const fn new(stage: DeadlineStage, limit: Duration) -> Self {
        Self { stage, limit }
    }
}

/// What a deadline was about. Each is a total, which slow bytes do not extend, but for
/// [`Write`](Self::Write).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeadlineStage {
    /// The body of a request, by its lowest rate.
    Body,
    /// The closing handshake.
    Close,
    /// From the call to the established connection, all stages together.
    Connect,
    /// A whole fetch, from the call to the end of the response.
    Fetch,
    /// The body of the response to a fetch.
    FetchBody,
    /// The head of the response to a fetch.
    FetchResponse,
    /// Name resolution.
    Dns,
    /// The request head, counted from the accept.
    Head,
    /// The answer of one hook.
    Hook,
    /// The answers of all hooks of a vhost.
    Hooks,
    /// A message, from its first byte to its last.
    Message,
    /// Output of which the peer takes less than [`Limits::output_rate`](crate::Limits::output_rate):
    /// how far it may lag behind.
    OutputRate,
    /// Waiting for a connection of the pool.
    PoolWait,
    /// The begin of an HTTP handler's response.
    Respond,
    /// The response to our opening handshake.
    Response,
    /// The peer's silence: neither bytes nor the answer to a ping.
    Silence,
    /// TCP connect, all addresses together.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// An application's verdict on an upgrade request.
    Verdict,
    /// Output of which the peer takes nothing.
    Write,
}

impl fmt::Display for DeadlineStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body => "the request body",
            Self::Close => "the closing handshake",
            Self::Connect => "the whole connection attempt",
            Self::Fetch => "the whole fetch",
            Self::FetchBody => "the body of the response",
            Self::FetchResponse => "the head of the response",
            Self::Dns => "name resolution",
            Self::Head => "the request head",
            Self::Hook => "the answer of a hook",
            Self::Hooks => "the answers of the hooks",
            Self::Message => "one message",
            Self::OutputRate => "the lag behind the lowest rate of output",
            Self::PoolWait => "the wait for a connection of the pool",
            Self::Respond => "the begin of the response",
            Self::Response => "the response to the opening handshake",
            Self::Silence => "the peer's silence",
            Self::Tcp => "the TCP connect",
            Self::Tls => "the TLS handshake",
            Self::Verdict => "the verdict on an upgrade request",
            Self::Write => "writing without progress",
        })
    }
}

/// How and why an established connection ended. Given to
/// [`Protocol::on_closed`](crate::Protocol::on_closed), exactly once per connection.
#[derive(Debug)]
pub struct CloseCause {
    pub(crate) side: CloseSide,
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
    pub(crate) clean: bool,
    pub(crate) undelivered: u64,
    pub(crate) kind: CloseKind,
    pub(crate) reconnect: Option<WsiId>,
}

impl CloseCause {
    pub(crate) fn new(side: CloseSide, code: u16, reason: &str, kind: CloseKind) -> Self {
        Self {
            side,
            code,
            reason: reason.into(),
            clean: false,
            undelivered: 0,
            kind,
            reconnect: None,
        }
    }

    /// A connection that ends without a Close frame from either side.
    pub(crate) fn abnormal(side: CloseSide, kind: CloseKind) -> Self {
        Self::new(side, ABNORMAL, "", kind)
    }

    /// Which side began it.
    pub const fn side(&self) -> CloseSide {
        self.side
    }

    /// The close code of RFC 6455 section 7.1.5: that of the first Close frame; 1005 if it had
    /// none; 1006 if the connection ended without one.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The reason text of the first Close frame; empty if it had none.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether both sides completed the closing handshake (RFC 6455 section 7.1.4).
    pub const fn is_clean(&self) -> bool {
        self.clean
    }

    /// Bytes that were queued and never handed to the kernel: frame headers and the library's own
    /// frames (pongs, Close) included.
    pub const fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// What happened, with its source where there is one.
    pub const fn kind(&self) -> &CloseKind {
        &self.kind
    }

    /// The attempt that a client with a [`RetryPolicy`](crate::RetryPolicy) has begun in place of
    /// this connection. Abort it to stay disconnected.
    pub const fn reconnect(&self) -> Option<WsiId> {
        self.reconnect
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, code {}", self.kind, self.code)?;
        // The reason that goes with a protocol error is the error's own text.
        if !self.reason.is_empty() && !matches!(self.kind, CloseKind::Protocol(_)) {
            write!(f, " {:?}", self.reason)?;
        }
        f.write_str(if self.clean { ", clean" } else { ", not clean" })?;
        if self.undelivered > 0 {
            write!(f, ", {} bytes not delivered", self.undelivered)?;
        }
        Ok(())
    }
}

/// RFC 6455 section 7.1.5: a Close frame without a code.
pub(crate) const NO_STATUS: u16 = 1005;
/// RFC 6455 section 7.1.5: no Close frame.
pub(crate) const ABNORMAL: u16 = 1006;

/// How far a client's attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConnectStage {
    /// The description of what to dial.
    Argument,
    /// Between two attempts of a [`RetryPolicy`](crate::RetryPolicy).
    BackOff,
    /// Name resolution.
    Dns,
    /// TCP connect.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// Sending the opening handshake.
    Request,
    /// Waiting for, or judging, the response.
    Response,
}

impl fmt::Display for ConnectStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argument => "argument",
            Self::BackOff => "back-off",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Request => "request",
            Self::Response => "response",
        })
    }
}

/// What stopped a client's attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The application aborted it.
    #[error("aborted by the application")]
    Aborted,
    /// The description does not say what to dial.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The peer closed the connection before its response was complete.
    #[error("the peer closed the connection before its response was complete")]
    Closed,
    /// The context was dropped.
    #[error("the context was dropped")]
    ContextDropped,
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// `on_established` refused the connection.
    #[error("refused by on_established: {0}")]
    NotWanted(#[source] Close),
    /// No address could be connected to; [`ConnectError::tried`] has each one's reason.
    #[error("no address answered: {0}")]
    NoneConnected(#[source] io::Error),
    /// The peer answered the opening handshake with something else than 101.
    #[error("the peer refused with {}", .0)]
    Refused(Refusal),
    /// The name could not be resolved.
    #[error("name resolution failed: {0}")]
    Resolve(#[source] io::Error),
    /// Too many names wait for resolution.
    #[error("too many names wait for resolution; try again later")]
    ResolverBusy,
    /// The response broke the protocol.
    #[error("{0}")]
    Response(#[source] ResponseError),
    /// The context is shutting down.
    #[error("the context is shutting down")]
    Shutdown,
    /// A deadline passed.
    #[error("{0}")]
    Timeout(Deadline),
    /// A `wss` URL on a vhost that has no client TLS.
    #[error("this vhost has no client TLS: give it client_tls(..), which needs the feature tls")]
    NoClientTls,
    /// The TLS handshake failed.
    #[cfg(feature = "tls")]
    #[error("{0}")]
    Tls(#[source] Box<TlsError>),
    /// The names of the connection cannot be used for TLS.
    #[cfg(feature = "tls")]
    #[error("{0}")]
    TlsConfig(#[source] Box<crate::tls::TlsConfigError>),
    /// The context or the vhost has as many connections as it may.
    #[error(
        "there are {0} connections, as many as ContextConfig::max_connections or Limits::connections allows"
    )]
    TooManyConnections(usize),
    /// The vhost or the protocol that the attempt was bound to does not exist.
    #[error("the vhost does not exist, or has no protocol of that name")]
    UnknownProtocol,
    /// The vhost was destroyed.
    #[error("its vhost was destroyed")]
    VhostDestroyed,
}

/// Why a client's attempt ended without a connection. Given to
/// [`Protocol::on_connect_error`](crate::Protocol::on_connect_error).
#[derive(Debug)]
pub struct ConnectError {
    pub(crate) details: Box<ConnectDetails>,
}

#[derive(Debug)]
pub(crate) struct ConnectDetails {
    pub(crate) stage: ConnectStage,
    pub(crate) failure: ConnectFailure,
    pub(crate) target: String,
    pub(crate) tried: Vec<(SocketAddr, io::Error)>,
    pub(crate) elapsed: Duration,
    pub(crate) attempts: u32,
}

impl ConnectError {
    pub(crate) fn new(stage: ConnectStage, failure: ConnectFailure, target: String) -> Self {
        Self {
            details: Box::new(ConnectDetails {
                stage,
                failure,
                target,
                tried: Vec::new(),
                elapsed: Duration::ZERO,
                attempts: 1,
            }),
        }
    }

    /// Where it failed.
    pub fn stage(&self) -> ConnectStage {
        self.details.stage
    }

    /// What failed.
    pub fn failure(&self) -> &ConnectFailure {
        &self.details.failure
    }

    /// What was dialled, as `host:port`.
    pub fn target(&self) -> &str {
        &self.details.target
    }

    /// The addresses that were tried and what each answered, in the order of their failures.
    pub fn tried(&self) -> &[(SocketAddr, io::Error)] {
        &self.details.tried
    }

    /// Time from the call (with a retry policy: from the begin of the last attempt).
    pub fn elapsed(&self) -> Duration {
        self.details.elapsed
    }

    /// How many attempts a retry policy made; 1 without one.
    pub fn attempts(&self) -> u32 {
        self.details.attempts
    }

    /// Whether the failure is one that passes: a transport that failed or ended, a deadline, a
    /// name without an address now, a server that says "later" (408, 425, 429, 5xx). A
    /// [`RetryPolicy`](crate::RetryPolicy) tries these again.
    ///
    /// What a certificate is refused for is none of them, since somebody has to exchange it; a
    /// policy that goes on [`forever`](crate::RetryPolicyBuilder::forever) tries those again, too,
    /// with its last delay. So `on_retry` may tell of an error that is not retryable.
    pub fn is_retryable(&self) -> bool {
        match &self.details.failure {
            ConnectFailure::Closed
            | ConnectFailure::Io(_)
            | ConnectFailure::NoAddress
            | ConnectFailure::NoneConnected(_)
            | ConnectFailure::Resolve(_)
            | ConnectFailure::ResolverBusy
            | ConnectFailure::Timeout(_)
            | ConnectFailure::TooManyConnections(_) => true,
            ConnectFailure::Refused(refusal) => {
                matches!(refusal.status, 408 | 425 | 429 | 500..=599)
            }
            // A handshake that the network cut off can succeed next time; a verdict will not change.
            #[cfg(feature = "tls")]
            ConnectFailure::Tls(error) => error.failure.is_retryable(),
            #[cfg(feature = "tls")]
            ConnectFailure::TlsConfig(_) => false,
            ConnectFailure::Aborted
            | ConnectFailure::Argument(_)
            | ConnectFailure::ContextDropped
            | ConnectFailure::NoClientTls
            | ConnectFailure::NotWanted(_)
            | ConnectFailure::Response(_)
            | ConnectFailure::Shutdown
            | ConnectFailure::UnknownProtocol
            | ConnectFailure::VhostDestroyed => false,
        }
    }

    /// Whether a certificate is not accepted, the server's by us or ours by the server: that ends
    /// when one of them is exchanged.
    pub(crate) fn is_about_certificates(&self) -> bool {
        match &self.details.failure {
            #[cfg(feature = "tls")]
            ConnectFailure::Tls(error) => error.failure.is_about_certificates(),
            _ => false,
        }
    }

    /// Whether a deadline ended it.
    pub fn is_timeout(&self) -> bool {
        match &self.details.failure {
            ConnectFailure::Timeout(_) => true,
            #[cfg(feature = "tls")]
            ConnectFailure::Tls(error) => {
                matches!(error.failure, crate::tls::TlsFailure::Timeout { .. })
            }
            _ => false,
        }
    }

    /// The response of a peer that refused the upgrade: status, headers, first part of the body.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.details.failure {
            ConnectFailure::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectDetails {
            stage,
            failure,
            target,
            tried,
            attempts,
            ..
        } = &*self.details;
        write!(f, "{target}: {stage} stage: {failure}")?;
        if let ([_, _, ..], ConnectFailure::NoneConnected(_)) = (tried.as_slice(), failure) {
            for (address, error) in tried {
                write!(f, "; {address}: {error}")?;
            }
        }
        if let Some(advice) = failure.advice() {
            write!(f, "; {advice}")?;
        }
        if *attempts > 1 {
            write!(f, " (after {attempts} attempts)")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.details.failure)
    }
}

/// Why a context could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The operating system has no poller or no randomness for us.
    #[error("cannot make the poll loop: {0}")]
    Os(#[from] io::Error),
}

/// Why a vhost could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VhostError {
    /// The address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// [`VhostConfig::default_protocol`](crate::VhostConfig::default_protocol) names no protocol.
    #[error("the default protocol {0:?} is not among the vhost's protocols; add it first")]
    DefaultProtocol(String),
    /// A certificate, key or other part of the TLS settings is not fit.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[source] Box<crate::tls::TlsConfigError>),
    /// A vhost on a TLS listener has no TLS settings.
    #[error("the listener on {} speaks TLS; give the vhost server_tls(..)", Place(*.address))]
    NoServerTls {
        /// The listener.
        address: SocketAddr,
    },
    /// A vhost with a certificate for servers listens, but nowhere with TLS: everything would be
    /// served in the clear.
    #[error(
        "the vhost has server_tls(..), but no listener of it speaks TLS: make the one on {} with \
         ListenConfig::new(..).tls(..), or drop server_tls",
        Place(*.address)
    )]
    ServerTlsUnused {
        /// The first of its listeners.
        address: SocketAddr,
    },
    /// A listener serves plaintext to a vhost that requires client certificates.
    #[error(
        "the listener on {} serves plaintext, where nobody can show the certificate that the vhost \
         requires; give it ListenConfig::tls(PlaintextPolicy::Reject) or RedirectToHttps",
        Place(*.address)
    )]
    PlaintextWithRequired {
        /// The listener.
        address: SocketAddr,
    },
    /// Another vhost has opened the listener, without TLS or with laxer policies than this one
    /// asks for.
    #[error(
        "another vhost listens on {address} without TLS, or with other policies for plaintext and \
         names; ask for the same"
    )]
    ListenerDiffers {
        /// The listener.
        address: SocketAddr,
    },
    /// The vhost's chain of hooks has a hook that cannot be told from another.
    #[error("hook {name:?}: {problem}")]
    Hook {
        /// The hook.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no such vhost.
    #[error("no such vhost: it was destroyed, or the id belongs to another context")]
    Gone,
    /// The vhost has no TLS settings for that side.
    #[error("the vhost has no TLS settings for that side; give it server_tls or client_tls")]
    NoTls,
    /// Files were to be watched without a pause.
    #[error("the interval is zero; files are looked at every second at most")]
    ZeroInterval,
    /// Two protocols have one name.
    #[error("two protocols are named {0:?}; subprotocol names choose, so they must differ")]
    DuplicateProtocol(String),
    /// A name that is neither a host name, nor an address without port, nor `*.` and a domain.
    #[error("{0}")]
    Name(ArgumentError),
    /// Another vhost of the same listener has the name.
    #[error("another vhost on {address} has the name {name:?}")]
    NameTaken {
        /// The contested name.
        name: String,
        /// The listener.
        address: SocketAddr,
    },
    /// A mount that cannot serve.
    #[error("mount {prefix:?}: {problem}")]
    Mount {
        /// The prefix of the mount.
        prefix: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A page's path, content type or body cannot be served.
    #[error("page {path:?}: {problem}")]
    Page {
        /// The path of the page.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A protocol's name is not a token, which RFC 6455 section 4.1 asks of subprotocols.
    #[error("the protocol name {0:?} is not a token; use letters, digits and -._ only")]
    ProtocolName(String),
    /// The context is shutting down.
    #[error("the context is shutting down")]
    Shutdown,
    /// Another vhost is already the default of the listener.
    #[error("{address} has a default vhost already; drop default_vhost() from one of them")]
    TwoDefaults {
        /// The listener.
        address: SocketAddr,
    },
    /// As many vhosts or listeners as the context can name.
    #[error("the context cannot hold more vhosts or listeners")]
    TooMany,
}

/// An address for people: port 0 is none yet.
struct Place(SocketAddr);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            0 => write!(f, "{} (any port)", self.0.ip()),
            _ => self.0.fmt(f),
        }
    }
}

/// Why TLS failed, and how far it had come.
#[cfg(feature = "tls")]
#[derive(Debug, Error)]
#[error("{failure}")]
#[non_exhaustive]
pub struct TlsError {
    /// Why.
    #[source]
    pub failure: crate::tls::TlsFailure,
    /// The steps of the handshake, as far as it came.
    pub trace: Option<crate::tls::TlsTrace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_can_travel_between_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<ConnectError>();
        check::<CloseCause>();
        check::<SendError>();
        check::<VhostError>();
        check::<ContextError>();
    }

    #[test]
    fn a_cause_reads_as_one_line() {
        let mut cause = CloseCause::new(CloseSide::Peer, 1001, "bye", CloseKind::Peer);
        cause.clean = true;
        assert_eq!(
            cause.to_string(),
            "closed by the peer, code 1001 \"bye\", clean"
        );
        let timeout = Deadline::new(DeadlineStage::Close, Duration::from_secs(5));
        let mut cause = CloseCause::abnormal(CloseSide::Local, CloseKind::Timeout(timeout));
        cause.undelivered = 7;
        assert_eq!(
            cause.to_string(),
            "the closing handshake took longer than 5s, code 1006, not clean, 7 bytes not delivered"
        );
    }
}
