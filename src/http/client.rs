//! The client's half of HTTP/1.1 without I/O: what it says, what it takes for an answer, where a
//! redirect leads, and which connection may be used again.
//!
//! [`OutgoingRequest`] and [`BodyWriter`] write requests that nobody can split. [`ResponseReader`]
//! reads responses, strictly wherever two readers could disagree about where they end: on a
//! connection that is used again the next response would be somebody else's. [`Redirects`] follows
//! redirects by a policy, and [`Pool`] keeps account of connections and of those who wait for one.

mod pool;
mod redirect;
mod request;
mod response;

pub use pool::{
    Acquired, Attempt, Freshness, Grant, GrantKind, Pool, PoolConfig, PoolMetrics, Released,
    Reusable,
};
pub use redirect::{
    AbsoluteUrl, BodyReplay, LocationError, NextHop, RedirectError, RedirectPolicy, Redirects,
    Scheme,
};
pub use request::{
    BodyLength, BodyWriteError, BodyWriter, Method, OutgoingRequest, RequestProblem,
    reserved_in_request,
};
pub use response::{
    Eof, ReadProgress, ResponseItem, ResponseReadError, ResponseReader, ResponseTo,
};
