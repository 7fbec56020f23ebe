//! Two TLS sessions of ours, with somebody between them who changes what they say.
#![no_main]

mod tls_configs;

use std::sync::LazyLock;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use tls_configs::Configs;
use wsloop::tls::fuzzing::conversation;

static CONFIGS: LazyLock<(Configs, Instant)> = LazyLock::new(|| (Configs::new(), Instant::now()));

fuzz_target!(|script: &[u8]| {
    let (configs, now) = &*CONFIGS;
    let client = match script.first() {
        Some(0..128) => &configs.client_of_tls12,
        _ => &configs.client,
    };
    conversation(&configs.server, client, *now, script);
});
