//! What hostile peers and faulty networks can do to a whole context: what the peer sees on the
//! wire, and what the application is told. Tests carry the id of their scenario.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod hostile {
    mod common;

    mod callbacks;
    mod closing;
    mod crowds;
    mod faults;
    mod framing;
    mod handshake;
    mod last_words;
    mod time;
}
