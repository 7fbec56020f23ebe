//! Why a server turned a connection away.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use super::Deadline;
#[cfg(feature = "tls")]
use super::TlsError;
use crate::hook::HookRefusal;
use crate::http::body::BodyError;
use crate::http::head::HeadError;
use crate::id::{VhostId, WsiId};
use crate::ws::handshake::UpgradeError;

/// A connection that ended before a protocol owned it. Given to
/// [`ContextObserver::on_refused`](crate::ContextObserver::on_refused).
#[derive(Debug)]
#[non_exhaustive]
pub struct ServerRefusal {
    /// The connection.
    pub id: WsiId,
    /// Where it came from.
    pub peer: SocketAddr,
    /// The vhost; `None` on a listener that several share, while neither SNI nor a request has
    /// chosen one of them.
    pub vhost: Option<VhostId>,
    /// Why.
    pub reason: RefusalReason,
    /// The name that the client sent in its TLS handshake (SNI), as far as that came.
    #[cfg(feature = "tls")]
    pub server_name: Option<String>,
    /// What the TLS handshake agreed on, if it was complete.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::TlsInfo>,
    /// Whose certificate the client has shown, where TLS still knows it.
    #[cfg(feature = "tls")]
    pub peer_identity: Option<crate::tls::PeerIdentity>,
}

impl RefusalReason {
    /// Whether a whole request has come when this is told, which chose the vhost.
    pub(crate) const fn knows_vhost(&self) -> bool {
        match self {
            Self::Closed | Self::Head(_) | Self::Io(_) | Self::Shutdown | Self::Timeout(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(_) => false,
            Self::Body(_)
            | Self::Hook(_)
            | Self::Misdirected
            | Self::PlainHttp(_)
            | Self::Plaintext
            | Self::Protocol(_)
            | Self::SubprotocolNotOffered(_)
            | Self::TooManyConnections
            | Self::Upgrade(_) => true,
        }
    }
}

/// Why a server ended a connection before a protocol owned it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The request's body is declared in a way that two readers could take differently.
    #[error("{0}")]
    Body(#[source] BodyError),
    /// The peer ended the stream before its request was complete.
    #[error("the peer closed the connection before its request was complete")]
    Closed,
    /// The request head is not one that can be served.
    #[error("{}{}", .0, .0.advice())]
    Head(#[source] HeadError),
    /// The vhost's hooks refused the upgrade, or could not tell.
    #[error("{0}")]
    Hook(#[source] Box<HookRefusal>),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// A plain HTTP request, answered with this status.
    #[error("answered a plain HTTP request with status {0}")]
    PlainHttp(u16),
    /// A protocol's filter refused the upgrade.
    #[error("the protocol refused the upgrade with status {0}")]
    Protocol(u16),
    /// The context is shutting down, or the vhost was destroyed.
    #[error("the context is shutting down or the vhost was destroyed")]
    Shutdown,
    /// A protocol's verdict names a subprotocol that the client has not offered; answered with 500.
    #[error(
        "the protocol chose the subprotocol {0:?}, which the client does not offer; name one of \
         Request::subprotocols"
    )]
    SubprotocolNotOffered(String),
    /// A deadline passed.
    #[error("{0}")]
    Timeout(Deadline),
    /// The vhost has as many connections as it may.
    #[error("the vhost has as many connections as it may")]
    TooManyConnections,
    /// The TLS handshake or session failed.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[source] Box<TlsError>),
    /// A plain HTTP request to a listener that speaks TLS only. One that is answered with a
    /// redirect to `https` is not refused.
    #[error(
        "plain HTTP to a listener that speaks TLS: use wss:// or https://, or have the listener \
         serve both (PlaintextPolicy::Serve)"
    )]
    Plaintext,
    /// The request is for another vhost than the TLS handshake was.
    #[error("the request is for another vhost than the TLS handshake was")]
    Misdirected,
    /// The upgrade request is not a valid one.
    #[error("{0}")]
    Upgrade(#[source] UpgradeError),
}
