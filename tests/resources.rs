//! What hostile peers may cost: memory, calls to the system, turns. Each crowd of them lives on the
//! simulated network, so what is asserted is counted, and time is virtual. Tests carry the id of
//! their scenario; what the same attacks cost on real sockets is measured by `benches/resources`.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[path = "support/testpki.rs"]
mod testpki;

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[path = "tls/lab.rs"]
mod lab;

mod resources {
    mod common;

    mod descriptors;
    mod floods;
    mod half_open;
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    mod half_open_tls;
    mod readers;
    mod slowloris;
}
