//! TLS through a whole context, on the simulated network: both sides, one port for ws and wss,
//! client certificates, names, rotation, traces.
#![cfg(all(feature = "sim", any(feature = "aws-lc-rs", feature = "ring")))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/testpki.rs"]
mod testpki;

#[path = "tls/asked.rs"]
mod asked;
#[path = "tls/bulk.rs"]
mod bulk;
#[path = "tls/crowd.rs"]
mod crowd;
#[path = "tls/cuts.rs"]
mod cuts;
#[cfg(feature = "deflate")]
#[path = "tls/deflate.rs"]
mod deflate;
#[path = "tls/faults.rs"]
mod faults;
#[path = "tls/fetch.rs"]
mod fetch;
#[path = "tls/http.rs"]
mod http;
#[path = "tls/key_log.rs"]
mod key_log;
#[path = "tls/lab.rs"]
mod lab;
#[path = "tls/limits.rs"]
mod limits;
#[path = "tls/matrix.rs"]
mod matrix;
#[path = "tls/names.rs"]
mod names;
#[path = "tls/paused.rs"]
mod paused;
#[path = "tls/port.rs"]
mod port;
#[path = "tls/renegotiation.rs"]
mod renegotiation;
#[path = "tls/rotation.rs"]
mod rotation;
#[path = "tls/silence.rs"]
mod silence;
#[path = "tls/sni.rs"]
mod sni;
#[path = "tls/traces.rs"]
mod traces;
#[path = "tls/trust.rs"]
mod trust;
#[path = "tls/webhooks.rs"]
mod webhooks;
