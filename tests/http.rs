//! Plain HTTP beside WebSocket, on a simulated network.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap fails the test, which is what it is for"
)]

#[path = "http/bodies.rs"]
mod bodies;
#[path = "http/common.rs"]
mod common;
#[path = "http/elsewhere.rs"]
mod elsewhere;
#[path = "http/embedded.rs"]
mod embedded;
#[path = "http/ends.rs"]
mod ends;
#[path = "http/exchanges.rs"]
mod exchanges;
#[path = "http/files.rs"]
mod files;
#[path = "http/guards.rs"]
mod guards;
#[path = "http/pipelines.rs"]
mod pipelines;
#[path = "http/probe.rs"]
mod probe;
mod support;
