//! One peer sends as much as it can, in the form that costs most; others have their turn.

use wsloop::sim::{Call, SimPeer};
use wsloop::{ContextConfig, Limits, VhostConfig};

use super::common::{Site, millis, secs};
use crate::support::{masked, plain};

/// A turn's budget of received bytes in these tests, and the buffer that they are read into.
const BUDGET: usize = 64 * 1024;
const BUFFER: usize = 16 * 1024;
/// What of a flood one turn takes at most.
const TURN: usize = BUDGET + BUFFER;
const NEIGHBOURS: usize = 100;

fn site() -> Site {
    let config = ContextConfig::new()
        .turn_budget(BUDGET)
        .receive_buffer(BUFFER);
    Site::with(config, |vhost| vhost)
}

/// A million pings within a second, a thousand in each millisecond.
#[test]
fn fr_09_a_million_pings_in_a_second_cost_bounded_turns_and_one_batch_of_pongs_each() {
    let mut site = site();
    let flooder = site.open(1).remove(0);
    let others = site.open(NEIGHBOURS);
    let idle = site.context.memory();
    let pings = masked(0x89, b"????????").repeat(1000);
    let begin = site.net.elapsed();
    let (mut pongs, mut most_pongs, mut most_reads, mut most_memory) = (0, 0, 0, 0);
    for tick in 0..1000_usize {
        site.net.advance(millis(1));
        flooder.write(&pings).unwrap();
        let reads = site.net.calls(Call::Read);
        // A tenth of the neighbours speak in each tick.
        let speakers = &others[tick % 10 * 10..][..10];
        assert_eq!(site.round(speakers), 1, "tick {tick}");
        most_reads = most_reads.max(site.net.calls(Call::Read) - reads);
        let answers = flooder.read();
        assert_eq!(answers.len() % 10, 0, "whole pongs");
        assert_eq!(answers.get(..10), Some(&plain(0x8a, b"????????")[..]));
        most_pongs = most_pongs.max(answers.len());
        pongs += answers.len() / 10;
        most_memory = most_memory.max(site.context.memory() - idle);
    }
    assert_eq!(site.net.elapsed() - begin, secs(1));
    // Two reads for each speaker and what the flood's fourteen thousand bytes take.
    assert!(most_reads <= 2 * 10 + 2, "{most_reads} reads in a turn");
    // The bytes of pongs that may wait, with their headers' share, and the latest one.
    let most = Limits::default().pong_bytes + 2 * 10;
    assert!(most_pongs <= most, "{most_pongs} bytes of pongs in a turn");
    assert!(most_memory <= 16 * 1024, "{most_memory} bytes more");
    assert_eq!(site.tally.told().ended(), 0);
    println!("1 000 000 pings: {pongs} pongs, {most_pongs} bytes in a turn, {most_memory} held");
}

/// The same from somebody who does not read the pongs.
#[test]
fn tm_02_a_million_pings_of_somebody_who_does_not_read_are_answered_with_what_his_window_takes() {
    let mut site = site();
    site.net.set_capacity(1000);
    let flooder = site.open(1).remove(0);
    let others = site.open(10);
    let idle = site.context.memory();
    let pings = masked(0x89, b"????????").repeat(1000);
    let begin = site.net.elapsed();
    for _ in 0..1000 {
        site.net.advance(millis(30));
        let _ = flooder.write(&pings);
        assert_eq!(site.round(&others), 1);
        let held = site.context.memory().saturating_sub(idle);
        assert!(held <= 16 * 1024, "{held}");
    }
    site.pass(secs(2), secs(1));
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Write", 1));
    assert!(end.last <= begin + secs(31), "{end:?}");
    let written = flooder.read().len();
    assert!(written <= 1000, "{written}");
}

/// What a flood is made of: bytes that never end, cut anywhere.
struct Flood {
    name: &'static str,
    unit: Vec<u8>,
    /// How often it is sent in each turn, so that always more waits than a turn takes.
    times: usize,
    /// Bytes come as an HTTP connection's.
    http: bool,
}

impl Flood {
    fn new(name: &'static str, unit: Vec<u8>) -> Self {
        let times = 2 * TURN / unit.len() + 1;
        Self {
            name,
            unit,
            times,
            http: false,
        }
    }
}

fn floods() -> Vec<Flood> {
    let get = b"GET /page HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec();
    let fragments = [
        masked(0x02, b""),
        masked(0x00, b"x").repeat(500),
        masked(0x80, b""),
    ];
    vec![
        Flood::new("messages of a byte", masked(0x82, b"x")),
        Flood::new("empty messages", masked(0x81, b"")),
        Flood::new("messages of 60 000 bytes", masked(0x82, &[1; 60_000])),
        Flood::new("fragments of a byte", fragments.concat()),
        Flood::new("pings as long as they may be", masked(0x89, &[2; 125])),
        Flood::new("pongs that nobody asked for", masked(0x8a, b"")),
        Flood {
            http: true,
            ..Flood::new("pipelined requests", get)
        },
    ]
}

#[test]
fn rs_12_whatever_one_peer_floods_a_thousand_others_have_their_answers_in_the_same_turn() {
    for flood in floods() {
        let page = |vhost: VhostConfig| vhost.page("/page", "text/plain", "hello");
        let config = ContextConfig::new()
            .turn_budget(BUDGET)
            .receive_buffer(BUFFER);
        let mut site = Site::with(config, page);
        site.net.set_capacity(1024 * 1024);
        let others = site.open(1000);
        let flooder = match flood.http {
            true => site.dial(1).remove(0),
            false => site.open(1).remove(0),
        };
        let idle = site.context.memory();
        let (mut held, mut answered) = (0, 0);
        // Large payloads are read to their place, more of them at once than the buffer takes.
        let is_large = flood.unit.len() > 2 * BUFFER;
        let least = if is_large { 1 } else { BUDGET / BUFFER };
        let wave = flood.unit.repeat(flood.times);
        for turn in 0..40 {
            flooder.write(&wave).unwrap();
            let before = site.net.calls(Call::Read);
            let speakers = &others[turn % 10 * 100..][..100];
            assert_eq!(site.round(speakers), 1, "{}, turn {turn}", flood.name);
            // Each speaker is read twice, the second time for nothing.
            let reads = (site.net.calls(Call::Read) - before) as usize - 2 * speakers.len();
            // The last of them may be cut short by the end of a segment.
            let allowed = least..=TURN / BUFFER + 1;
            assert!(allowed.contains(&reads), "{}: {reads} reads", flood.name);
            answered += flooder.read().len();
            held = held.max(site.context.memory().saturating_sub(idle));
            let taken = (turn + 1) * TURN;
            assert!(!is_large || answered <= taken, "turn {turn}: {answered}");
            assert!(!is_large || answered + 60_000 >= (turn + 1) * BUDGET);
        }
        assert_eq!(site.tally.told().ended(), 0, "{}", flood.name);
        assert!(held <= 512 * 1024, "{}: {held} bytes held", flood.name);
    }
}

/// Many who flood share what there is: each turn gives each of them as much as it gives one.
#[test]
fn rs_12_of_fifty_flooders_none_is_served_twice_before_the_others_once() {
    let mut site = site();
    site.net.set_capacity(1024 * 1024);
    let flooders = site.open(50);
    let others = site.open(NEIGHBOURS);
    let wave = masked(0x82, &[1; 1000]).repeat(4 * TURN / 1000);
    for turn in 0..5 {
        for peer in &flooders {
            peer.write(&wave).unwrap();
        }
        assert_eq!(site.round(&others), 1, "turn {turn}");
        for peer in &flooders {
            // As much as was taken came back, up to the message that is cut.
            let taken = peer.read().len();
            assert!(
                (BUDGET - 1008..=TURN).contains(&taken),
                "turn {turn}: {taken}"
            );
        }
    }
}

/// Those who come and go as fast as they can do not keep those who are there from their turn.
#[test]
fn rs_12_a_flood_of_connections_is_accepted_by_the_batch_and_others_are_served_meanwhile() {
    let mut site = Site::new();
    let others = site.open(NEIGHBOURS);
    let mut flood: Vec<SimPeer> = Vec::new();
    for turn in 0..50 {
        flood.extend(super::common::dial(&site.net, crate::support::addr(), 500));
        let accepts = site.net.calls(Call::Accept);
        assert_eq!(site.round(&others), 1, "turn {turn}");
        let accepts = site.net.calls(Call::Accept) - accepts;
        assert!(
            (1..=64).contains(&accepts),
            "turn {turn}: {accepts} accepts"
        );
    }
}
