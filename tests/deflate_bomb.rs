//! A gibibyte of zeros in a mebibyte, on real sockets: refused, at the cost of the message limit
//! and little more, counted by the allocator.
//!
//! A binary of its own with one test, so that nobody else allocates meanwhile.
#![cfg(feature = "deflate")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::alloc::System;
use std::io::{ErrorKind, Write};

use real::{Host, Peer, loopback, masked};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wsloop::ws::deflate::{Compressing, CompressorPool, SendOptions};
use wsloop::{ContextConfig, DeflateConfig, DeflateParams, Limits, Side, VhostConfig};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LIMIT: usize = 4 << 20;
/// What DESIGN.md names: an inflater, the buffer that it writes to, a receive buffer, and a bit.
const CONSTANT: usize = 256 * 1024;

#[test]
fn pm_01_a_gibibyte_in_a_mebibyte_is_closed_with_1009_and_costs_the_limit_and_a_constant() {
    let bomb = masked(0xc2, &gibibyte_of_zeros());
    assert!(bomb.len() < 5 << 18, "{} bytes", bomb.len());
    let limits = Limits::default().with_message_bytes(LIMIT);
    let vhost = VhostConfig::new("localhost")
        .listen(loopback())
        .limits(limits)
        .deflate(DeflateConfig::new());
    let mut host = Host::made(ContextConfig::new(), vhost, |_| {});
    let mut peer = enter(&mut host);
    let region = Region::new(ALLOCATOR);
    let mut written = 0;
    host.until(|host| {
        match peer.stream.write(&bomb[written..]) {
            Ok(n) => written += n,
            // It is not read any more.
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ),
                "{error}"
            ),
        }
        host.log.count("closed") == 1
    });
    // All that was ever taken, whatever was given back.
    let change = region.change();
    let taken = change.bytes_allocated;
    assert!(taken < LIMIT + CONSTANT, "{taken} bytes");
    let got = host.read(&mut peer, 4);
    assert_eq!((got[0], &got[2..4]), (0x88, &1009_u16.to_be_bytes()[..]));
    let told = host.log.lines();
    assert!(told[1].contains("code 1009"), "{told:?}");
}

fn enter(host: &mut Host) -> Peer {
    let mut peer = Peer::connect(host.addr());
    let request = String::from_utf8(real::REQUEST.to_vec()).unwrap();
    let request = request.trim_end();
    peer.write(
        format!("{request}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n").as_bytes(),
    );
    let mut head = None;
    host.until(|_| {
        head = peer.take_head();
        head.is_some()
    });
    assert!(head.unwrap().contains("permessage-deflate"));
    peer
}

/// A compressed mebibyte 1024 times: each ends at a byte's end and refers to zeros only.
fn gibibyte_of_zeros() -> Vec<u8> {
    let config = DeflateConfig::new().level(9).unwrap();
    let mut pool = CompressorPool::default();
    let mut sender = Compressing::new(Side::Client, DeflateParams::new(), config);
    let payload = sender.compress(&mut pool, &vec![0; 1 << 20], SendOptions::new());
    let mut piece = payload.unwrap().as_slice().to_vec();
    piece.extend_from_slice(&[0, 0, 0xff, 0xff]);
    piece.repeat(1024)
}
