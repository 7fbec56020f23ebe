//! What permessage-deflate says that it holds is what it holds: counted by the allocator.
//!
//! A binary of its own with one test, so that nobody else allocates meanwhile.
#![cfg(feature = "deflate")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wsloop::ws::deflate::{Compressing, CompressorPool, SendOptions};
use wsloop::ws::{Delivery, Item, Recv, RecvLimits, RecvPool};
use wsloop::{DeflateConfig, DeflateParams, Side};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn pm_09_windows_are_counted_as_what_they_take() {
    let message = b"a message that is worth to be compressed ".repeat(5);
    let config = DeflateConfig::new().kept_window_bits(15).unwrap();
    let mut rows = Vec::new();
    let mut table = String::new();
    for bits in 8..=15 {
        let mut params = DeflateParams::new();
        params.server_max_window_bits = bits;
        let mut pool = CompressorPool::default();
        let mut sender = Compressing::new(Side::Server, params, config);
        let first = sender.compress(&mut pool, &message, SendOptions::new());
        let mut receiver = Recv::with_deflate(Side::Client, &params, &config);
        // Another one, whose buffers are the first one's.
        pool.put_back(first.unwrap());
        let region = Region::new(ALLOCATOR);
        let mut own = Compressing::new(Side::Server, params, config);
        let before = own.memory();
        let payload = own
            .compress(&mut pool, &message, SendOptions::new())
            .unwrap();
        let taken = held(&region);
        let told = own.memory() - before;
        rows.push(("compressor", bits, taken, told));
        let mut frame = vec![0xc2, payload.as_slice().len() as u8];
        assert!(payload.as_slice().len() < 126);
        frame.extend_from_slice(payload.as_slice());
        let (mut shared, limits) = (RecvPool::default(), RecvLimits::default());
        // The buffer that all inflaters write to is not the connection's.
        receive(
            &mut Recv::with_deflate(Side::Client, &params, &config),
            &mut shared,
            &limits,
            &frame,
        );
        let region = Region::new(ALLOCATOR);
        let before = receiver.memory();
        receive(&mut receiver, &mut shared, &limits, &frame);
        let taken = held(&region);
        rows.push(("inflater", bits, taken, receiver.memory() - before));
    }
    for (what, bits, taken, told) in &rows {
        table.push_str(&format!("{what} {bits}: {taken} taken, {told} told\n"));
    }
    println!("{table}");
    for (_, _, taken, told) in rows {
        let error = taken.abs_diff(told);
        assert!(error * 50 <= taken, "more than two per cent off:\n{table}");
    }
}

fn held(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated - change.bytes_deallocated
}

fn receive(recv: &mut Recv, pool: &mut RecvPool, limits: &RecvLimits, frame: &[u8]) {
    let mut input = [0; 256];
    let input = &mut input[..frame.len()];
    input.copy_from_slice(frame);
    let mut feed = recv.feed(Side::Client, Delivery::Messages, limits, pool, input);
    let item = feed.next();
    assert!(matches!(item, Ok(Some(Item::Message(_)))), "{item:?}");
}
