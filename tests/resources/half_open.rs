//! Connections that are opened and not used.

use wsloop::ContextConfig;
use wsloop::sim::Call;

use super::common::{Site, batches, dial, millis, secs};
use crate::support::{addr, request};

const CAP: usize = 1000;
const FLOOD: usize = 5000;

#[test]
fn dp_02_five_thousand_silent_connections_are_five_caps_full_and_each_goes_at_its_deadline() {
    let mut site = Site::with(ContextConfig::new().max_connections(CAP), |vhost| vhost);
    let well = site.open(10);
    let idle = site.context.memory();
    let silent = dial(&site.net, addr(), FLOOD);
    let turns = site.settle();
    assert!(turns <= CAP / 64 + 10, "{turns} turns");
    let begin = site.net.elapsed();
    // Somebody honest comes last, with the whole flood before him.
    let honest = site.net.dial(addr()).unwrap();
    honest.write(&request("/")).unwrap();

    let mut most = 0;
    let mut waves = 0;
    while site.tally.told().ended() < FLOOD {
        // At the cap the listener is not asked, however many wait, and nobody is busy.
        site.settle();
        assert!(site.context.connections() <= CAP);
        most = most.max(site.context.memory() - idle);
        let before = site.calls();
        for _ in 0..100 {
            site.net.advance(millis(1));
            site.turn();
        }
        assert_eq!(site.calls(), before, "calls while nothing happens");
        assert_eq!(site.round(&well), 1);
        // Those who are told to go take their time: the next come when the close has timed out.
        site.pass(secs(15), millis(500));
        waves += 1;
        assert!(
            waves <= FLOOD / (CAP - well.len()) + 1,
            "{:?}",
            site.tally.told()
        );
        assert!(site.tally.told().ended() <= waves * CAP);
    }
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Head", FLOOD));
    assert!(end.first >= begin + secs(10), "{end:?}");
    drop(told);
    assert!(
        most / CAP <= 1024,
        "{} bytes for each that is silent",
        most / CAP
    );
    site.settle();
    assert!(honest.read().starts_with(b"HTTP/1.1 101 "), "his turn came");
    for peer in silent {
        assert!(peer.read().starts_with(b"HTTP/1.1 408 "));
    }
    println!("a silent connection costs {} bytes", most / CAP);
}

/// Without a cap in the way they cost what they cost, and nobody waits for them.
#[test]
fn dp_02_silent_connections_below_the_cap_are_accepted_by_the_batch_beside_the_others() {
    let mut site = Site::new();
    let well = site.open(10);
    let _silent = dial(&site.net, addr(), FLOOD);
    let mut turns = 0;
    while site.context.connections() < FLOOD + well.len() {
        let accepts = site.net.calls(Call::Accept);
        let took = site.round(&well);
        assert!(took <= batches(well.len() + 64), "{took}");
        let accepts = site.net.calls(Call::Accept) - accepts;
        assert!(accepts <= 2 * 64 * took as u64, "{accepts} in {took} turns");
        turns += took;
        assert!(turns <= 2 * FLOOD / 64, "{turns} turns");
    }
    site.pass(secs(10), secs(1));
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Head", FLOOD));
}

/// Who hangs up at once costs an accept and nothing that stays.
#[test]
fn rs_05_connections_that_are_gone_when_they_are_accepted_take_no_place() {
    let mut site = Site::with(ContextConfig::new().max_connections(CAP), |vhost| vhost);
    for round in 0..10 {
        let gone = dial(&site.net, addr(), FLOOD);
        for (n, peer) in gone.into_iter().enumerate() {
            if n % 2 == 0 {
                peer.reset();
            }
        }
        site.settle();
        assert_eq!(site.context.connections(), 0, "round {round}");
        let ended: usize = site.tally.told().ended();
        assert_eq!(ended, (round + 1) * FLOOD, "each was told once");
    }
    assert_eq!(site.context.memory(), 0);
}
