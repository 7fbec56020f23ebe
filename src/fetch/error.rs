//! Why a fetch gave no response.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::client::ArgumentError;
use crate::error::{ConnectError, ConnectStage, Deadline};
use crate::http::client::{BodyWriteError, RedirectError, ResponseReadError};

/// Why a fetch ended without a whole response. Given to
/// [`HttpClientHandler::on_done`](crate::HttpClientHandler::on_done), or by
/// [`Cx::fetch`](crate::Cx::fetch) when it did not even begin.
#[derive(Debug)]
pub struct FetchError {
    details: Box<Details>,
}

#[derive(Debug)]
struct Details {
    stage: FetchStage,
    failure: FetchFailure,
    url: String,
    elapsed: Duration,
    attempts: u32,
}

impl FetchError {
    pub(crate) fn new(stage: FetchStage, failure: FetchFailure, url: String) -> Self {
        Self {
            details: Box::new(Details {
                stage,
                failure,
                url,
                elapsed: Duration::ZERO,
                attempts: 0,
            }),
        }
    }

    pub(crate) fn after(mut self, elapsed: Duration, attempts: u32) -> Self {
        self.details.elapsed = elapsed;
        self.details.attempts = attempts;
        self
    }

    /// Where it failed.
    pub fn stage(&self) -> FetchStage {
        self.details.stage
    }

    /// What failed.
    pub fn failure(&self) -> &FetchFailure {
        &self.details.failure
    }

    /// The URL that was asked for last, without its query.
    pub fn url(&self) -> &str {
        &self.details.url
    }

    /// Time from the call.
    pub fn elapsed(&self) -> Duration {
        self.details.elapsed
    }

    /// How often the request was sent, or begun to be dialled for.
    pub fn attempts(&self) -> u32 {
        self.details.attempts
    }

    /// Whether the same call can succeed later without a change on this side. Whether it may be
    /// made again is another question: a request that was sent may have been acted on.
    pub fn is_retryable(&self) -> bool {
        match &self.details.failure {
            FetchFailure::Connect(error) => error.is_retryable(),
            FetchFailure::Io(_)
            | FetchFailure::QueueFull(_)
            | FetchFailure::Timeout(_)
            | FetchFailure::TooManyConnections(_) => true,
            FetchFailure::Response(error) => matches!(
                error,
                ResponseReadError::Closed
                    | ResponseReadError::Body(crate::http::body::BodyError::CutShort)
            ),
            #[cfg(feature = "tls")]
            FetchFailure::Tls(error) => error.failure.is_retryable(),
            FetchFailure::Aborted
            | FetchFailure::Argument(_)
            | FetchFailure::ContextDropped
            | FetchFailure::NoClientTls
            | FetchFailure::Redirect(_)
            | FetchFailure::Shutdown
            | FetchFailure::UnknownHandler
            | FetchFailure::VhostDestroyed => false,
        }
    }

    /// Whether a deadline ended it.
    pub fn is_timeout(&self) -> bool {
        match &self.details.failure {
            FetchFailure::Timeout(_) => true,
            FetchFailure::Connect(error) => error.is_timeout(),
            _ => false,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details {
            stage,
            failure,
            url,
            attempts,
            ..
        } = &*self.details;
        write!(f, "{url}: {stage} stage: {failure}")?;
        if let FetchFailure::Connect(error) = failure {
            if let Some(advice) = error.failure().advice() {
                write!(f, "; {advice}")?;
            }
        }
        if *attempts > 1 {
            write!(f, " (after {attempts} attempts)")?;
        }
        Ok(())
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.details.failure)
    }
}

/// How far a fetch had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FetchStage {
    /// The description of what to fetch.
    Argument,
    /// Waiting for a connection of the pool.
    PoolWait,
    /// Name resolution.
    Dns,
    /// TCP connect.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Request,
    /// Waiting for the head of the response.
    Response,
    /// Judging a redirect.
    Redirect,
    /// Receiving the body of the response.
    Body,
}

impl From<ConnectStage> for FetchStage {
    fn from(stage: ConnectStage) -> Self {
        match stage {
            ConnectStage::Argument => Self::Argument,
            ConnectStage::BackOff | ConnectStage::Dns => Self::Dns,
            ConnectStage::Tcp => Self::Tcp,
            ConnectStage::Tls => Self::Tls,
            ConnectStage::Request => Self::Request,
            ConnectStage::Response => Self::Response,
        }
    }
}

impl fmt::Display for FetchStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argument => "argument",
            Self::PoolWait => "pool wait",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Request => "request",
            Self::Response => "response",
            Self::Redirect => "redirect",
            Self::Body => "body",
        })
    }
}

/// What stopped a fetch.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchFailure {
    /// The application gave it up.
    #[error("given up by the application")]
    Aborted,
    /// The description does not say what can be fetched.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// No connection could be made; [`ConnectError`] says where and why.
    #[error("{}", .0.failure())]
    Connect(#[source] ConnectError),
    /// The context was dropped.
    #[error("the context was dropped")]
    ContextDropped,
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// An `https` URL on a vhost that has no client TLS.
    #[error("this vhost has no client TLS: give it client_tls(..), which needs the feature tls")]
    NoClientTls,
    /// As many requests wait for a connection of the pool as may.
    #[error("{0} requests wait for a connection, as many as PoolConfig::waiting allows")]
    QueueFull(usize),
    /// A redirect that must not be followed.
    #[error("{0}")]
    Redirect(#[source] RedirectError),
    /// The response broke the protocol, or ended before it was whole.
    #[error("{0}")]
    Response(#[source] ResponseReadError),
    /// The context is shutting down.
    #[error("the context is shutting down")]
    Shutdown,
    /// A deadline passed.
    #[error("{0}")]
    Timeout(Deadline),
    /// The TLS session failed.
    #[cfg(feature = "tls")]
    #[error("{0}")]
    Tls(#[source] Box<crate::error::TlsError>),
    /// The context or the vhost has as many connections as it may.
    #[error(
        "there are {0} connections, as many as ContextConfig::max_connections or Limits::connections allows"
    )]
    TooManyConnections(usize),
    /// The vhost does not exist, or has no such handler.
    #[error("the vhost does not exist or has no such handler; call VhostConfig::add_http_client")]
    UnknownHandler,
    /// The vhost was destroyed.
    #[error("its vhost was destroyed")]
    VhostDestroyed,
}

/// Why a piece of a streamed request body was not queued.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchWriteError {
    /// The body would not be as long as was declared, or was finished already.
    #[error("{0}")]
    Body(#[from] BodyWriteError),
    /// Too much waits to be sent; wait for `on_writable`.
    #[error(
        "{buffered} of at most {limit} bytes wait; call request_fetch_writable and write from \
         on_writable"
    )]
    Full {
        /// Bytes that wait to be sent.
        buffered: usize,
        /// The cap, [`Limits::output_bytes`](crate::Limits::output_bytes).
        limit: usize,
    },
    /// The fetch is over, or the peer wants no more of its body: the response says why.
    #[error("the fetch is over, or the peer wants no more of its body")]
    Gone,
    /// The body was given with the request.
    #[error("the body was given with the request; call FetchInfo::streamed_body to write it here")]
    NotStreamed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_one_line_and_travels_between_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<FetchError>();
        let failure = FetchFailure::Response(ResponseReadError::Closed);
        let error = FetchError::new(FetchStage::Response, failure, "http://h/a".to_owned());
        let error = error.after(Duration::from_secs(1), 2);
        assert_eq!(
            error.to_string(),
            "http://h/a: response stage: the peer closed the connection before its response was \
             complete (after 2 attempts)"
        );
        assert!(error.is_retryable() && !error.is_timeout());
    }
}
