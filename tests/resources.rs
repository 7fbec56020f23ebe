//! What hostile peers may cost: memory, calls to the system, turns. Each crowd of them lives on the
//! simulated network, so what is asserted is counted, and time is virtual. Tests carry the id of
//! their scenario; what the same attacks cost on real sockets is measured by `benches/resources`.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
mod resources {
    mod common;

    mod floods;
}
