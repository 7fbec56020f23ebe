//! One alarm for each of many connections: twelve bytes each, and nothing that points to them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Moment;

/// Alarms by time, of things that have small numbers.
///
/// Whose alarm it is knows for when it is set. One that was set anew, or whose thing has gone,
/// leaves a stale entry behind, told of by [`Alarms::forget`]; there are never many more of them
/// than of the others ([`Alarms::tidy`]).
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    heap: BinaryHeap<Reverse<Alarm>>,
    stale: usize,
}

/// An alarm. Of equal ones the least number goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, packed(4))]
pub(crate) struct Alarm {
    at: Moment,
    index: u32,
}

impl Alarm {
    pub(crate) const fn new(at: Moment, index: u32) -> Self {
        Self { at, index }
    }

    pub(crate) const fn at(self) -> Moment {
        self.at
    }

    pub(crate) const fn index(self) -> u32 {
        self.index
    }
}

impl Alarms {
    pub(crate) fn set(&mut self, alarm: Alarm) {
        self.heap.push(Reverse(alarm));
    }

    /// One that was set counts no longer.
    pub(crate) const fn forget(&mut self) {
        self.stale += 1;
    }

    /// The earliest, which may be stale.
    #[inline]
    pub(crate) fn first(&self) -> Option<Alarm> {
        self.heap.peek().map(|alarm| alarm.0)
    }

    /// Moves those that are due into `due`, the latest first.
    #[inline]
    pub(crate) fn take_due(&mut self, now: Moment, due: &mut Vec<Alarm>) {
        if self.first().is_some_and(|first| first.at() <= now) {
            self.take_all_due(now, due);
        }
    }

    #[inline(never)]
    fn take_all_due(&mut self, now: Moment, due: &mut Vec<Alarm>) {
        while let Some(first) = self.first().filter(|first| first.at() <= now) {
            self.heap.pop();
            due.push(first);
        }
        due.reverse();
    }

    /// One that was due was stale.
    pub(crate) const fn was_stale(&mut self) {
        self.stale = self.stale.saturating_sub(1);
    }

    #[inline]
    pub(crate) const fn has_stale(&self) -> bool {
        self.stale > 0
    }

    /// Takes stale ones out, if they are many, or first; what `is_set` says is not.
    pub(crate) fn tidy(&mut self, is_set: impl Fn(Alarm) -> bool) {
        if self.stale > MANY && self.stale > self.heap.len() / 2 {
            return self.sweep(is_set);
        }
        while self.first().is_some_and(|first| !is_set(first)) {
            self.heap.pop();
            self.was_stale();
        }
    }

    /// Takes all stale ones out.
    pub(crate) fn sweep(&mut self, is_set: impl Fn(Alarm) -> bool) {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        all.retain(|alarm| is_set(alarm.0));
        // One that is the same as a stale one before it.
        all.sort_unstable();
        all.dedup();
        self.heap = all.into();
        self.stale = 0;
    }

    /// All, in no order.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Alarm> {
        self.heap.iter().map(|alarm| alarm.0)
    }
}

/// How many stale ones are no matter.
const MANY: usize = 64;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "times have to be counted from somewhere"
)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::super::Epoch;
    use super::*;

    #[test]
    fn an_alarm_takes_twelve_bytes() {
        assert_eq!(size_of::<Alarm>(), 12);
    }

    #[test]
    fn a_moment_is_the_instant_it_was_made_of() {
        let begin = Instant::now();
        let epoch = Epoch::new(begin);
        for after in [0, 1, 999_999_999, 1_000_000_000, u64::MAX / 16] {
            let at = begin + Duration::from_nanos(after);
            assert_eq!(epoch.instant(epoch.moment(at)), Some(at));
        }
        let before = begin.checked_sub(Duration::from_secs(1)).unwrap_or(begin);
        assert_eq!(epoch.moment(before), epoch.moment(begin));
        let never = epoch.moment(begin + Duration::from_secs(1 << 40));
        assert!(never > epoch.moment(begin + Duration::from_secs(1 << 33)));
    }

    /// A model that has the right alarm of everybody.
    #[test]
    fn any_sequence_agrees_with_a_sorted_map_and_keeps_few_stale_ones() {
        let begin = Instant::now();
        let epoch = Epoch::new(begin);
        let at = |ms: u64| epoch.moment(begin + Duration::from_millis(ms));
        let mut rng = 0x9e37_79b9_7f4a_7c15_u64;
        println!("seed {rng:#x}");
        let (mut alarms, mut model) = (Alarms::default(), BTreeMap::new());
        let (mut now, mut due) = (0, Vec::new());
        for _ in 0..20_000 {
            let random = xorshift(&mut rng);
            let index = (random >> 8) as u32 % 100;
            match random % 8 {
                0..=4 => {
                    let alarm = Alarm::new(at(now + (random >> 16) % 50), index);
                    if model.get(&index) != Some(&alarm) {
                        if model.insert(index, alarm).is_some() {
                            alarms.forget();
                        }
                        alarms.set(alarm);
                    }
                }
                5 if model.remove(&index).is_some() => alarms.forget(),
                5 => {}
                _ => {
                    now += (random >> 16) % 10;
                    alarms.take_due(at(now), &mut due);
                    let mut rung = Vec::new();
                    while let Some(alarm) = due.pop() {
                        if model.get(&alarm.index()) == Some(&alarm) {
                            model.remove(&alarm.index());
                            rung.push(alarm);
                        } else {
                            alarms.was_stale();
                        }
                    }
                    assert!(rung.is_sorted());
                    assert!(model.values().all(|alarm| alarm.at() > at(now)));
                }
            }
            alarms.tidy(|alarm| model.get(&alarm.index()) == Some(&alarm));
            assert_eq!(alarms.first(), model.values().min().copied());
            assert!(alarms.iter().count() <= 2 * model.len() + MANY + 1);
        }
    }

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }
}
