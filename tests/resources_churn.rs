//! A hundred thousand connections come and go, in every way there is to go: what is held afterwards
//! is what was held before, counted by the allocator.
//!
//! A binary of its own with one test, so that nobody else allocates meanwhile.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "resources/common.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod common;
mod support;

use std::alloc::System;

use common::{MORE, Site, secs};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{close_payload, masked, plain, request};
use wsloop::sim::SimPeer;
use wsloop::{ContextConfig, Limits};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 100_000;
/// How many of each kind come at a time.
const EACH: usize = 100;
const ROUND: usize = EACH * WAYS.len();
const ROUNDS: usize = CONNECTIONS / ROUND;
/// After this many the tables have grown to their size.
const WARM: usize = 3;

#[test]
fn rs_14_a_hundred_thousand_connections_leave_nothing_behind_and_no_two_share_an_id() {
    let limits = Limits::default().with_output_bytes(16 * 1024);
    let mut site = Site::with(ContextConfig::new(), |vhost| vhost.limits(limits));
    // Not to grow while it is measured.
    site.tally.told().ids.reserve_exact(CONNECTIONS);
    let region = Region::new(ALLOCATOR);
    let mut warm = 0;
    for round in 1..=ROUNDS {
        churn(&mut site);
        let told = site.tally.told();
        assert_eq!(told.ids.len(), round * ROUND, "each is told once");
        drop(told);
        if round == WARM {
            warm = live(&region);
        }
    }
    let end = live(&region);
    let told = site.tally.told();
    println!(
        "{:#?}\nlive bytes: {warm} after {WARM} rounds, {end} at the end",
        told.ends
    );
    assert!(
        end <= warm,
        "{warm} bytes after {WARM} rounds, {end} at the end"
    );
    let mut ids: Vec<String> = told.ids.iter().map(|id| format!("{id:?}")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), CONNECTIONS);
}

fn live(region: &Region<'_, System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

/// All kinds at once; afterwards nobody is left.
fn churn(site: &mut Site) {
    let mut peers: Vec<(SimPeer, &Way)> = Vec::with_capacity(ROUND);
    for way in &WAYS {
        peers.extend(site.dial(EACH).into_iter().map(|peer| (peer, way)));
    }
    for step in 0..3 {
        for (peer, way) in &peers {
            let said = match step {
                0 => (way.first)(),
                1 => (way.second)(),
                _ => Vec::new(),
            };
            // It may have been told to go.
            let _ = peer.write(&said);
        }
        site.settle();
    }
    for (peer, way) in peers {
        match way.end {
            How::Reads => drop(peer.read()),
            How::Resets => {
                peer.reset();
                continue;
            }
            How::Leaves => {}
        }
        drop(peer);
    }
    site.settle();
    // For those who were waited for.
    site.pass(secs(6), secs(6));
    assert_eq!(site.context.connections(), 0);
    assert_eq!(site.context.memory(), 0);
}

/// What a peer says, and how it goes.
struct Way {
    first: fn() -> Vec<u8>,
    second: fn() -> Vec<u8>,
    end: How,
}

enum How {
    /// Reads what it was sent, then closes.
    Reads,
    Resets,
    /// Closes without reading, which resets if something was there to be read.
    Leaves,
}

const WAYS: [Way; 10] = [
    // A conversation with a proper end.
    Way {
        first: upgrade,
        second: || {
            [
                masked(0x81, b"hello"),
                masked(0x88, &close_payload(1000, "")),
            ]
            .concat()
        },
        end: How::Reads,
    },
    // A frame without a mask.
    Way {
        first: upgrade,
        second: || plain(0x81, b"hello"),
        end: How::Reads,
    },
    Way {
        first: upgrade,
        second: Vec::new,
        end: How::Resets,
    },
    Way {
        first: upgrade,
        second: Vec::new,
        end: How::Reads,
    },
    // Half a message.
    Way {
        first: upgrade,
        second: || masked(0x01, &[b'x'; 2000]),
        end: How::Resets,
    },
    // A queue full of what nobody has read.
    Way {
        first: upgrade,
        second: || masked(0x81, MORE),
        end: How::Leaves,
    },
    // Half a head.
    Way {
        first: || request("/")[..60].to_vec(),
        second: Vec::new,
        end: How::Leaves,
    },
    // Nothing.
    Way {
        first: Vec::new,
        second: Vec::new,
        end: How::Leaves,
    },
    // No page is there.
    Way {
        first: || b"GET /page HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_vec(),
        second: Vec::new,
        end: How::Reads,
    },
    // No request at all.
    Way {
        first: || b"hello\r\n\r\n".to_vec(),
        second: Vec::new,
        end: How::Resets,
    },
];

fn upgrade() -> Vec<u8> {
    request("/")
}
