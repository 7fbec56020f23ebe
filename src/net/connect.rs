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
    let mut unique: Vec<SocketAddr> = Vec::new();
    // Far more than that cannot change the first sixteen of either family by much, and the
    // comparison is quadratic.
    for addr in addrs.iter().take(ADDRESSES_MAX * ADDRESSES_MAX) {
        if !unique.contains(addr) {
            unique.push(*addr);
        }
    }
    let first_is_v6 = unique.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = unique
        .into_iter()
        .partition(|addr| addr.is_ipv6() == first_is_v6);
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
