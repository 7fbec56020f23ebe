//! HTTP requests as a client: begun by [`Cx::fetch`](crate::Cx::fetch), sent over connections of
//! the vhost's pool, told to an [`HttpClientHandler`].
//!
//! `info` says what to fetch, `handler` who is told, `error` why it failed; `table` keeps the
//! requests, `route` finds connections for them, `exchange`, `receive` and `over` are a connection
//! at work.

mod cx;
mod error;
mod exchange;
mod handler;
mod info;
mod over;
mod receive;
mod route;
mod table;

pub use error::{FetchError, FetchFailure, FetchStage, FetchWriteError};
pub(crate) use exchange::HttpClientRole;
pub(crate) use handler::{BoundClient, FetchDispatch};
pub use handler::{FetchAbort, Fetched, HttpClientHandle, HttpClientHandler};
pub use info::{FetchInfo, FetchTimeouts};
#[cfg(feature = "sim")]
pub(crate) use table::Place;
pub(crate) use table::{FetchOwner, Fetches, VhostPool};
