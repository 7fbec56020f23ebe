//! Racing the addresses of one host (RFC 8305, "Happy Eyeballs").
//!
//! A pure state machine: it says which address to try when, and keeps account of the failures.
//! The caller opens the sockets, and drops the losers when one has won.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The attempts to reach one host by its addresses.
#[derive(Debug)]
pub(crate) struct Race {
    waiting: VecDeque<SocketAddr>,
    in_flight: Vec<SocketAddr>,
    failed: Vec<(SocketAddr, io::Error)>,
    next_at: Instant,
}

impl Race {
    /// Lines the addresses up: families in turn, beginning with the first address given, which the
    /// resolver has sorted (RFC 8305, section 4); the same address only once; at most
    /// [`ADDRESSES_MAX`].
    pub(crate) fn new(addrs: &[SocketAddr], now: Instant) -> Self {
        Self {
            waiting: line_up(addrs),
            in_flight: Vec::new(),
            failed: Vec::new(),
            next_at: now,
        }
    }

    /// The address to start with now, if one is due. Ask until it says `None`.
    pub(crate) fn next_start(&mut self, now: Instant) -> Option<SocketAddr> {
        if now < self.next_at {
            return None;
        }
        let addr = self.waiting.pop_front()?;
        self.in_flight.push(addr);
        self.next_at = now + ATTEMPT_DELAY;
        Some(addr)
    }

    /// An attempt failed, so the next may start at once: ask [`next_start`](Self::next_start).
    pub(crate) fn failed(&mut self, addr: SocketAddr, error: io::Error, now: Instant) {
        self.in_flight.retain(|&other| other != addr);
        self.failed.push((addr, error));
        self.next_at = now;
    }

    /// When the next attempt is due; `None` when all have been started.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }

    /// Nothing waits and nothing is under way: the race is lost. True at once for a host without
    /// addresses.
    pub(crate) fn all_failed(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Ends a race that was lost or took too long: what was tried, in the order in which it
    /// failed, and then what was still under way, as timed out.
    pub(crate) fn into_tried(self) -> Vec<(SocketAddr, io::Error)> {
        let mut tried = self.failed;
        let unfinished = self.in_flight.into_iter();
        tried.extend(unfinished.map(|addr| (addr, io::ErrorKind::TimedOut.into())));
        tried
    }
}

fn line_up(addrs: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for addr in addrs {
        let family = if addr.is_ipv6() == first_is_v6 {
            &mut first
        } else {
            &mut second
        };
        if family.len() < ADDRESSES_MAX && !family.contains(addr) {
            family.push(*addr);
        }
    }
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut line = VecDeque::new();
    while line.len() < ADDRESSES_MAX {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            break;
        }
        line.extend(a);
        line.extend(b);
    }
    line.truncate(ADDRESSES_MAX);
    line
}

/// RFC 8305, section 5: "One recommended value for a default delay is 250 milliseconds."
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many addresses of one host are tried.
pub(crate) const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use super::*;

    const V6: &str = "[2001:db8::1]:1";
    const V4: &str = "192.0.2.1:1";

    #[test]
    fn families_take_turns_beginning_with_the_preferred_one() {
        let line = |list: &str| Vec::from(line_up(&addrs(list)));
        assert_eq!(
            line("[2001:db8::1]:1 [2001:db8::2]:1 [2001:db8::3]:1 192.0.2.1:1"),
            addrs("[2001:db8::1]:1 192.0.2.1:1 [2001:db8::2]:1 [2001:db8::3]:1")
        );
        assert_eq!(
            line("192.0.2.1:1 192.0.2.2:1 [2001:db8::1]:1"),
            addrs("192.0.2.1:1 [2001:db8::1]:1 192.0.2.2:1")
        );
    }

    #[test]
    fn dn_01_a_thousand_addresses_are_cut_to_a_few_of_both_families() {
        let mut many: Vec<_> = (0..1000_u32)
            .map(|n| SocketAddr::new(std::net::Ipv4Addr::from(0xc000_0200 + n).into(), 1))
            .collect();
        assert_eq!(
            line_up(&vec![many[0]; 1000]).len(),
            1,
            "the same one is tried once"
        );
        many.extend(addrs(V6));
        let line = line_up(&many);
        assert_eq!(line.len(), ADDRESSES_MAX);
        assert_eq!(line[1], addrs(V6)[0], "the other family is not crowded out");
    }

    #[test]
    fn dn_01_a_host_without_addresses_has_lost_before_the_start() {
        let now = Instant::now();
        let mut race = Race::new(&[], now);
        assert_eq!((race.next_start(now), race.deadline()), (None, None));
        assert!(race.all_failed());
        assert!(race.into_tried().is_empty());
    }

    #[test]
    fn dn_04_a_black_hole_is_overtaken_after_the_attempt_delay() {
        let now = Instant::now();
        let mut race = Race::new(&addrs(&format!("{V6} {V4}")), now);
        assert_eq!(race.next_start(now), Some(addrs(V6)[0]));
        assert_eq!(race.next_start(now), None);
        assert_eq!(race.deadline(), Some(now + ATTEMPT_DELAY));
        assert_eq!(
            race.next_start(now + ATTEMPT_DELAY - Duration::from_nanos(1)),
            None
        );
        assert_eq!(race.next_start(now + ATTEMPT_DELAY), Some(addrs(V4)[0]));
        assert_eq!(race.deadline(), None, "all have been started");
        assert!(!race.all_failed());
    }

    #[test]
    fn dn_04_a_refusal_lets_the_next_one_start_at_once() {
        let now = Instant::now();
        let mut race = Race::new(&addrs(&format!("{V6} {V4}")), now);
        let first = race.next_start(now).unwrap();
        race.failed(first, io::ErrorKind::ConnectionRefused.into(), now);
        assert_eq!(race.deadline(), Some(now));
        assert!(!race.all_failed(), "one has not been tried");
        assert_eq!(race.next_start(now), Some(addrs(V4)[0]));
        race.failed(addrs(V4)[0], io::ErrorKind::NetworkUnreachable.into(), now);
        assert!(race.all_failed());
        assert_eq!(
            outcome(race),
            [
                (addrs(V6)[0], io::ErrorKind::ConnectionRefused),
                (addrs(V4)[0], io::ErrorKind::NetworkUnreachable)
            ]
        );
    }

    #[test]
    fn dn_04_a_late_refusal_of_the_first_does_not_hold_up_or_end_the_race() {
        let now = Instant::now();
        let mut race = Race::new(&addrs(&format!("{V6} {V4}")), now);
        let first = race.next_start(now).unwrap();
        let second = race.next_start(now + ATTEMPT_DELAY).unwrap();
        race.failed(
            first,
            io::ErrorKind::ConnectionRefused.into(),
            now + ATTEMPT_DELAY,
        );
        assert!(!race.all_failed());
        assert_eq!(
            outcome(race),
            [
                (first, io::ErrorKind::ConnectionRefused),
                (second, io::ErrorKind::TimedOut)
            ]
        );
    }

    fn outcome(race: Race) -> Vec<(SocketAddr, io::ErrorKind)> {
        race.into_tried()
            .into_iter()
            .map(|(addr, error)| (addr, error.kind()))
            .collect()
    }

    fn addrs(list: &str) -> Vec<SocketAddr> {
        list.split_whitespace()
            .map(|addr| addr.parse().unwrap())
            .collect()
    }
}
