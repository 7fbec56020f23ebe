//! WebSocket on a poll loop.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod arena;
pub mod client;
mod config;
mod conn;
mod context;
mod dial;
mod error;
pub mod http;
mod id;
mod inner;
mod lift;
mod net;
mod pool;
mod protocol;
mod retry;
mod service;
mod timer;
mod upgrade;
mod vhost;
mod waker;
pub mod ws;
mod wsi;

#[cfg(feature = "sim")]
pub use net::sim;

pub use client::{Address, ArgumentError, ArgumentProblem, ClientConnectInfo, ClientTimeouts};
pub use config::{ContextConfig, Limits, ListenConfig, Timeouts, VhostConfig};
pub use conn::Queued;
pub use context::Context;
pub use error::{
    CloseCause, CloseKind, CloseSide, ConnectError, ConnectFailure, ConnectStage, ContextError,
    Deadline, DeadlineStage, Gone, NotPending, RefusalReason, SendError, ServerRefusal, Unsent,
    VhostError,
};
pub use http::HeaderList;
pub use id::{ProtocolHandle, RequestId, TimerId, TimerTag, VhostId, WsiId};
pub use protocol::{
    Accept, ContextObserver, Established, Handshake, ListenerTrouble, Protocol, Refuse, Request,
};
pub use retry::{RetryPolicy, RetryPolicyBuilder, RetryPolicyError};
pub use waker::CancelService;
pub use ws::handshake::Refusal;
pub use ws::send::Fin;
pub use ws::{Chunk, Close, CloseCode, CloseFrame, Message, MessageKind, Side};
pub use wsi::{Broadcast, Cx, Peer, Wsi};
