//! Peers that ask and do not read the answer.

use std::time::Duration;

use wsloop::sim::SimPeer;
use wsloop::{ContextConfig, Limits, VhostConfig};

use super::common::{MORE, PIECE, Site, batches, millis, secs};
use crate::support::masked;

const CROWD: usize = 500;
/// The cap on a connection's output in these tests.
const OUTPUT: usize = 64 * 1024;
/// What a stream takes before its reader has to read.
const WINDOW: usize = 16 * 1024;
/// What a full queue may hold beside the bytes in it: a vector that grew has twice its length at
/// most, and the connection itself.
const HELD: usize = 2 * (OUTPUT + PIECE) + 1024;

fn site() -> Site {
    let limits = Limits::default().with_output_bytes(OUTPUT);
    let site = Site::with(ContextConfig::new(), |vhost| vhost.limits(limits));
    site.net.set_capacity(WINDOW);
    site
}

/// Time passes; every second all are asked for their word, the well ones are served at once.
fn pass(site: &mut Site, seconds: u64, well: &[SimPeer], mut meanwhile: impl FnMut(&mut Site)) {
    for _ in 0..seconds {
        site.net.advance(secs(1));
        meanwhile(site);
        let turns = site.round(well);
        assert!(turns <= batches(CROWD + well.len()), "{turns} turns");
        site.settle();
    }
}

#[test]
fn tm_02_who_never_reads_holds_a_full_queue_at_most_and_not_for_long() {
    let mut site = site();
    let well = site.open(10);
    let idle = site.context.memory();
    let deaf = site.open(CROWD);
    let begin = site.net.elapsed();
    let mut most = 0;
    // They ask again and again. What they say keeps no deadline away.
    pass(&mut site, 29, &well, |site| {
        for peer in &deaf {
            let _ = peer.write(&masked(0x81, MORE));
        }
        site.settle();
        most = most.max((site.context.memory() - idle) / CROWD);
    });
    assert!((OUTPUT..=HELD).contains(&most), "{most} bytes each");
    assert_eq!(site.tally.told().ended(), 0);
    pass(&mut site, 4, &well, |_| {});
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Write", CROWD));
    // Thirty seconds from the last byte that was taken, which was in the first of them.
    assert!(end.first >= begin + secs(30), "{end:?} {begin:?}");
    assert!(end.last <= begin + secs(32), "{end:?} {begin:?}");
    drop(told);
    assert_eq!(site.context.connections(), well.len());
    assert_eq!(site.context.memory(), idle);
    println!("a full queue of {OUTPUT} bytes costs {most} bytes");
}

#[test]
fn tm_02_who_reads_a_byte_a_second_lags_behind_the_lowest_rate_and_ends() {
    let mut site = site();
    let well = site.open(10);
    let slow = site.open(CROWD);
    let begin = site.net.elapsed();
    for peer in &slow {
        peer.write(&masked(0x81, MORE)).unwrap();
    }
    let sip = |_: &mut Site| {
        for peer in &slow {
            peer.read_up_to(1);
        }
    };
    // What the network took at first pays for that much time at the lowest rate.
    let credit = (WINDOW / Limits::default().output_rate) as u64;
    pass(&mut site, 29 + credit, &well, sip);
    assert_eq!(site.tally.told().ended(), 0);
    pass(&mut site, 5, &well, sip);
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout OutputRate", CROWD));
    let limit = begin + secs(30 + credit);
    assert!(end.first >= limit && end.last <= limit + secs(2), "{end:?}");
    drop(told);
    assert_eq!(site.context.connections(), well.len());
}

/// A page is not copied for those who do not read it, however long it is.
#[test]
fn tm_02_a_page_that_nobody_reads_costs_no_copy_and_ends_at_the_deadline() {
    let page = vec![b'p'; 4 * 1024 * 1024];
    let mut site = Site::with(ContextConfig::new(), |vhost: VhostConfig| {
        vhost.page("/page", "text/plain", page)
    });
    site.net.set_capacity(WINDOW);
    let well = site.open(10);
    let idle = site.context.memory();
    let deaf = site.dial(CROWD);
    // Pipelined, so that more and more is asked for.
    let requests = b"GET /page HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(20);
    let mut most = 0;
    pass(&mut site, 29, &well, |site| {
        for peer in &deaf {
            let _ = peer.write(&requests);
        }
        site.settle();
        most = most.max((site.context.memory() - idle) / CROWD);
    });
    assert!(most <= AHEAD, "{most} bytes each");
    pass(&mut site, 8, &well, |_| {});
    assert_eq!(site.context.connections(), well.len());
    assert_eq!(site.context.memory(), idle);
    println!("an unread page costs {most} bytes, requests read ahead included");
}

/// The requests that are read ahead of their turn: a head's length, and what the last read brought.
const AHEAD: usize = 16 * 1024 + 1024 + 4096;

/// A broadcast reaches who reads, whoever does not.
#[test]
fn tm_02_broadcasts_are_bounded_by_each_queue_and_reach_the_others_in_one_turn() {
    let mut site = site();
    let deaf = site.open(CROWD);
    for peer in &deaf {
        peer.write(&masked(0x81, MORE)).unwrap();
    }
    site.settle();
    let full = site.context.memory();
    let well = site.open(100);
    for _ in 0..100 {
        let turns = site.round(&well);
        assert_eq!(turns, 1);
    }
    let idle = well.len() * 1024;
    assert!(site.context.memory() <= full + idle);
    let before = site.calls();
    // A connection that cannot be written to is not tried again without news about it.
    for _ in 0..1000 {
        site.net.advance(millis(1));
        site.turn();
    }
    assert_eq!(site.calls(), before, "calls for nothing");
    drop(deaf);
}

/// Silence on one side and a deadline on the other: nobody stays for ever.
#[test]
fn tm_02_a_reader_that_vanishes_in_the_middle_is_forgotten_with_its_queue() {
    let mut site = site();
    let idle = site.context.memory();
    let gone = site.open(CROWD);
    for peer in &gone {
        peer.write(&masked(0x81, MORE)).unwrap();
    }
    site.settle();
    for (n, peer) in gone.into_iter().enumerate() {
        match n % 3 {
            0 => drop(peer),
            1 => peer.reset(),
            // Only its process is gone; its system never says so.
            _ => std::mem::forget(peer),
        }
    }
    site.settle();
    assert_eq!(site.context.connections(), CROWD / 3);
    site.pass(Duration::from_secs(36), secs(1));
    assert_eq!(site.context.connections(), 0);
    assert_eq!(site.context.memory(), idle);
}
