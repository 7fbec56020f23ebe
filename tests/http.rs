//! Plain HTTP beside WebSocket, on a simulated network.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap fails the test, which is what it is for"
)]

#[path = "http/common.rs"]
mod common;
#[path = "http/exchanges.rs"]
mod exchanges;
mod support;
