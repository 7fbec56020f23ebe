//! Frames as a client gets them: not masked.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use wsloop::ws::Side;

fuzz_target!(|stream: &[u8]| common::check(Side::Client, stream));
