//! HTTP requests as a client, on a simulated network: against a stranger, byte by byte.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap fails the test, which is what it is for"
)]

#[path = "fetch/bodies.rs"]
mod bodies;
#[path = "fetch/common.rs"]
mod common;
#[path = "fetch/deadlines.rs"]
mod deadlines;
#[path = "fetch/ends.rs"]
mod ends;
#[path = "fetch/faults.rs"]
mod faults;
#[path = "fetch/ours.rs"]
mod ours;
#[path = "fetch/pooling.rs"]
mod pooling;
#[path = "fetch/redirects.rs"]
mod redirects;
#[path = "fetch/storm.rs"]
mod storm;
mod support;
