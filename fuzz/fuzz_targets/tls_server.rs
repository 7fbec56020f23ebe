//! Arbitrary bytes to a server's TLS session.
#![no_main]

mod tls_configs;

use std::sync::LazyLock;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use tls_configs::Configs;
use wsloop::tls::fuzzing::server_session;

static CONFIGS: LazyLock<(Configs, Instant)> = LazyLock::new(|| (Configs::new(), Instant::now()));

fuzz_target!(|wire: &[u8]| {
    let (configs, now) = &*CONFIGS;
    server_session(&configs.server, *now, wire);
});
