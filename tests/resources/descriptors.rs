//! The system has no descriptors left, for a while.

use wsloop::sim::Call;

use super::common::{Site, dial, millis, secs};
use crate::support::addr;

/// Numbers of Linux; the classes are the same elsewhere.
const EMFILE: i32 = 24;

#[test]
#[cfg(target_os = "linux")]
fn rs_01_a_minute_without_descriptors_is_ten_tries_a_second_and_ends_with_the_next_one() {
    let mut site = Site::new();
    let well = site.open(10);
    let begin = site.net.calls(Call::Accept);
    // The listener tries, and sheds in vain, since no descriptor is spare either.
    for nth in 1..=FAILURES {
        site.net.fail(Call::Accept, begin + nth, EMFILE);
    }
    let waiting = dial(&site.net, addr(), 500);
    for second in 1..=60_u64 {
        let (accepts, turns) = (site.net.calls(Call::Accept), site.turns);
        for _ in 0..1000 {
            site.net.advance(millis(1));
            // Turns only when the loop would wake: for events and for timers.
            let due = site.context.next_deadline();
            if due.is_some_and(|at| at <= site.net.now()) {
                site.turn();
            }
        }
        assert_eq!(site.round(&well), 1, "others are served");
        let accepts = site.net.calls(Call::Accept) - accepts;
        // One try and one for shedding, ten times.
        assert!(accepts <= 2 * 11, "second {second}: {accepts} accepts");
        let turns = site.turns - turns;
        assert!(turns <= 2 * 11, "second {second}: {turns} turns");
    }
    let troubles = site.tally.told().troubles;
    assert!((590..=610).contains(&troubles), "{troubles} in a minute");
    while site.net.calls(Call::Accept) < begin + FAILURES {
        site.pass(millis(100), millis(100));
        assert_eq!(site.round(&well), 1);
    }
    // Descriptors have come free, and nobody says so.
    let free = site.net.elapsed();
    site.pass(millis(100), millis(100));
    assert_eq!(site.context.connections(), waiting.len() + well.len());
    site.pass(secs(10), secs(1));
    let told = site.tally.told();
    let (reason, end) = told.only_end();
    assert_eq!((reason, end.count), ("timeout Head", waiting.len()));
    assert!(end.first <= free + secs(11), "{end:?} {free:?}");
}

/// What fails of the calls to accept: enough for more than a minute.
const FAILURES: u64 = 2000;
