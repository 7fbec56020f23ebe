//! The ClientHello before rustls sees it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|wire: &[u8]| wsloop::tls::fuzzing::client_hello(wire));
