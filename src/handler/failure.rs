//! How a handler gives a request up.

use crate::http::HeaderError;
use crate::http::response::{RespondError, Response};

/// A handler's way out: an answer instead of what it was doing, or none at all.
///
/// `?` turns a [`HeaderError`], and a [`RespondError`] that says that the
/// response can never be sent, into a 500; any other `RespondError` drops the connection.
#[derive(Debug)]
#[must_use]
pub struct HttpFailure {
    /// The answer; `None` drops the connection.
    pub(crate) response: Option<Box<Response>>,
}

impl HttpFailure {
    /// Answers with this response, or with a 500 if it can never be sent, or drops the connection if
    /// another one has begun. What is left of the request's body is not wanted any more.
    pub fn respond(response: Response) -> Self {
        Self {
            response: Some(Box::new(response)),
        }
    }

    /// Drops the connection, which tells the client that the response is not complete.
    pub const fn abort() -> Self {
        Self { response: None }
    }

    /// The application's mistake.
    fn internal() -> Self {
        Self::respond(Response::text(500, "internal error\n"))
    }
}

impl From<Response> for HttpFailure {
    fn from(response: Response) -> Self {
        Self::respond(response)
    }
}

impl From<RespondError> for HttpFailure {
    fn from(error: RespondError) -> Self {
        match error {
            RespondError::FramingField(_) | RespondError::NoBody(_) => Self::internal(),
            RespondError::AlreadyStarted
            | RespondError::Finished
            | RespondError::Full { .. }
            | RespondError::Gone
            | RespondError::NotStarted
            | RespondError::TooShort { .. }
            | RespondError::TooLong { .. } => Self::abort(),
        }
    }
}

impl From<HeaderError> for HttpFailure {
    fn from(_: HeaderError) -> Self {
        Self::internal()
    }
}
