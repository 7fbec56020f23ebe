//! Frames as a server gets them: masked.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use wsloop::ws::Side;

fuzz_target!(|stream: &[u8]| common::check(Side::Server, stream));
