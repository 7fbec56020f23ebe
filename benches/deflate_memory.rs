//! What permessage-deflate keeps in memory, for every window: `cargo bench --bench deflate_memory`.
//!
//! Prints the table of the README, counted by the allocator.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wsloop::ws::deflate::{Compressing, CompressorPool, SendOptions};
use wsloop::ws::{Delivery, Item, Recv, RecvLimits, RecvPool};
use wsloop::{DeflateConfig, DeflateParams, Side};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    println!(
        "| Window bits | compressor | inflater | both, of a connection with context takeover |"
    );
    println!("|--:|--:|--:|--:|");
    for bits in 8..=15 {
        let (compressor, inflater) = owned(bits);
        let both = compressor + inflater;
        println!(
            "| {bits} | {} | {} | {} |",
            kib(compressor),
            kib(inflater),
            kib(both)
        );
    }
    let (compressors, inflaters) = shared();
    println!();
    println!(
        "Without context takeover, for a whole loop: {} for compressing, {} for inflating",
        kib(compressors),
        kib(inflaters)
    );
    println!("(the buffers for one message of 64 KiB included), and nothing for a connection.");
}

/// What a connection with context takeover keeps, in bytes: made by its first message.
fn owned(bits: u8) -> (usize, usize) {
    let config = DeflateConfig::new().kept_window_bits(bits);
    let config = config.expect("bits of a window");
    let params = DeflateParams::new();
    let mut pools = Pools::default();
    // Makes the buffers that all connections share.
    exchange(&mut pools, &params, &config, 256);
    exchange(&mut pools, &params, &config, 256).1
}

/// What a loop keeps for all connections without context takeover, in bytes.
fn shared() -> (usize, usize) {
    let (config, mut params) = (DeflateConfig::new(), DeflateParams::new());
    params.server_no_context_takeover = true;
    exchange(&mut Pools::default(), &params, &config, 64 * 1024).1
}

#[derive(Default)]
struct Pools {
    compressors: CompressorPool,
    receiving: RecvPool,
}

/// Sends and receives a message on a new connection: both ends, and what they have come to hold.
fn exchange(
    pools: &mut Pools,
    params: &DeflateParams,
    config: &DeflateConfig,
    len: usize,
) -> ((Compressing, Recv), (usize, usize)) {
    let message: Vec<u8> = (0..len).map(|at| b"what is held"[at % 12]).collect();
    let mut frame = Vec::with_capacity(len);
    let mut sender = Compressing::new(Side::Server, *params, *config);
    let mut receiver = Recv::with_deflate(Side::Client, params, config);
    let region = Region::new(ALLOCATOR);
    let payload = sender.compress(&mut pools.compressors, &message, SendOptions::new());
    let payload = payload.expect("a text that gets shorter");
    let bytes = payload.as_slice();
    frame.push(0xc2);
    match bytes.len() {
        short @ ..126 => frame.push(short as u8),
        long => {
            frame.push(126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(bytes);
    pools.compressors.put_back(payload);
    let sending = held(&region);
    let region = Region::new(ALLOCATOR);
    let limits = RecvLimits::default();
    let mut feed = receiver.feed(
        Side::Client,
        Delivery::Messages,
        &limits,
        &mut pools.receiving,
        &mut frame,
    );
    let item = feed.next();
    assert!(matches!(item, Ok(Some(Item::Message(_)))), "{item:?}");
    drop(feed);
    let receiving = held(&region);
    ((sender, receiver), (sending, receiving))
}

fn held(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated - change.bytes_deallocated
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", (bytes + 512) / 1024)
}
