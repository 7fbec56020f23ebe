//! Exact timers: a 4-ary heap whose entries can be taken out from the middle. And [`Alarms`], of
//! which every connection has one.
//!
//! Sans-IO: `now` is an argument. A cancelled timer is gone at once, so memory follows the number
//! of live timers, and nothing is allocated once the tables have grown to their peak.

mod alarms;

use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

use slab::Slab;

pub(crate) use self::alarms::{Alarm, Alarms};

/// Timers that each carry a `K` saying what to do when they are due.
#[derive(Debug)]
pub(crate) struct Timers<K: Copy> {
    /// What stays put while the heap moves; a `TimerKey` points here.
    entries: Slab<Entry<K>>,
    /// Ordered by `(at, seq)`.
    heap: Vec<Node>,
    /// What times are counted from.
    base: Instant,
    /// Number of the next timer to be armed; never reused, so it is also the key's generation.
    next_seq: u64,
    /// The time of the latest round. Nothing is armed for earlier than this.
    floor: Option<Instant>,
}

/// Names one arming of one timer. A key whose timer has fired or was cancelled is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey {
    /// One more than the index of its entry.
    place: NonZeroU32,
    seq: u64,
}

impl TimerKey {
    const fn new(index: u32, seq: u64) -> Self {
        let place = NonZeroU32::MIN.saturating_add(index);
        Self { place, seq }
    }

    const fn index(self) -> usize {
        self.place.get() as usize - 1
    }
}

/// One pass over the timers that were due, and armed, when it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    now: Instant,
    before_seq: u64,
}

impl<K: Copy> Timers<K> {
    /// No timers. Times 292 years from `base` on are all one, and are never.
    pub(crate) const fn new(base: Instant) -> Self {
        Self {
            entries: Slab::new(),
            heap: Vec::new(),
            base,
            next_seq: 0,
            floor: None,
        }
    }

    /// Arms a timer for `at`. A time that has passed counts as the time of the latest round, so
    /// that the timer fires in the next one, after those that were due before it.
    pub(crate) fn arm(&mut self, at: Instant, key: K) -> TimerKey {
        let at = self.floor.map_or(at, |floor| at.max(floor));
        let seq = self.next_seq;
        self.next_seq += 1;
        let place = self.heap.len();
        let index = to_u32(self.entries.insert(Entry {
            key,
            seq,
            place: to_u32(place),
        }));
        let at = self.ticks(at);
        self.heap.push(Node { at, index });
        self.sift_up(place);
        TimerKey::new(index, seq)
    }

    /// Takes a timer out; false if it has fired or was cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> bool {
        match self.entries.get(key.index()) {
            Some(entry) if entry.seq == key.seq => {
                let place = entry.place as usize;
                self.remove_at(place);
                true
            }
            _ => false,
        }
    }

    /// Whether a timer has neither fired nor been cancelled.
    pub(crate) fn is_armed(&self, key: TimerKey) -> bool {
        let entry = self.entries.get(key.index());
        entry.is_some_and(|entry| entry.seq == key.seq)
    }

    /// Takes out every timer whose key is one of those; looks at all of them.
    pub(crate) fn cancel_matching(&mut self, wanted: impl Fn(K) -> bool) {
        let keys = self.entries.iter().filter(|(_, entry)| wanted(entry.key));
        let found = keys
            .map(|(index, entry)| (index, entry.seq))
            .collect::<Vec<_>>();
        for (index, seq) in found {
            if let Ok(index) = u32::try_from(index) {
                self.cancel(TimerKey::new(index, seq));
            }
        }
    }

    /// When the earliest timer is due; `None` without timers.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().and_then(|node| self.time(node.at))
    }

    /// When a timer is due that has neither fired nor been cancelled.
    #[cfg(test)]
    pub(crate) fn due(&self, key: TimerKey) -> Option<Instant> {
        let entry = self.entries.get(key.index());
        let entry = entry.filter(|entry| entry.seq == key.seq)?;
        self.time(self.heap.get(entry.place as usize)?.at)
    }

    /// Begins a round: [`pop_due`](Self::pop_due) with its result gives the timers due at `now`,
    /// but none that is armed from here on. What a callback arms for `now` or earlier waits for
    /// the next round, so a callback that always does that cannot keep the loop busy for ever.
    pub(crate) fn begin_round(&mut self, now: Instant) -> Round {
        let now = self.floor.map_or(now, |floor| now.max(floor));
        self.floor = Some(now);
        Round {
            now,
            before_seq: self.next_seq,
        }
    }

    /// When the next timer of this round is due.
    pub(crate) fn next_due(&self, round: Round) -> Option<Instant> {
        let first = self.first_due(round)?;
        self.time(first.at)
    }

    fn first_due(&self, round: Round) -> Option<Node> {
        // Whatever was armed after the round began lies at or behind `round.now` (the floor) with
        // a higher number, hence behind every timer that belongs to the round.
        let first = *self.heap.first()?;
        let is_of_round = self.seq(first) < round.before_seq && first.at <= self.ticks(round.now);
        is_of_round.then_some(first)
    }

    /// The next timer of this round in order of due time, among equals in order of arming.
    pub(crate) fn pop_due(&mut self, round: Round) -> Option<(TimerKey, K)> {
        let first = self.first_due(round)?;
        let seq = self.seq(first);
        let key = self.remove_at(0);
        let index = first.index;
        Some((TimerKey::new(index, seq), key))
    }

    /// Every armed timer with its time; `None` if the tables contradict each other. See
    /// `Context::check_invariants`.
    #[cfg(feature = "sim")]
    pub(crate) fn all(&self) -> Option<Vec<(TimerKey, Instant, K)>> {
        if self.entries.len() != self.heap.len() {
            return None;
        }
        let all = self.heap.iter().enumerate().map(|(place, node)| {
            let entry = self.entries.get(node.index as usize)?;
            let above = self.heap.get(place.saturating_sub(1) / ARITY)?;
            let fits = entry.place == to_u32(place) && !self.is_before(*node, *above);
            let key = TimerKey::new(node.index, entry.seq);
            fits.then_some((key, self.time(node.at)?, entry.key))
        });
        all.collect()
    }

    /// How many timers are armed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    fn remove_at(&mut self, place: usize) -> K {
        let node = self.heap.swap_remove(place);
        if place < self.heap.len() {
            // The one moved here came from the bottom of some branch, not always of this one.
            let place = self.sift_down(place);
            self.sift_up(place);
        }
        self.entries.remove(node.index as usize).key
    }

    fn sift_up(&mut self, mut place: usize) {
        let node = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if !self.is_before(node, self.heap[parent]) {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, node);
    }

    fn sift_down(&mut self, mut place: usize) -> usize {
        let node = self.heap[place];
        loop {
            let first = place * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let earlier = |a: usize, b: usize| match self.is_before(self.heap[b], self.heap[a]) {
                true => b,
                false => a,
            };
            let Some(least) = (first..last).reduce(earlier) else {
                break;
            };
            if !self.is_before(self.heap[least], node) {
                break;
            }
            self.put(place, self.heap[least]);
            place = least;
        }
        self.put(place, node);
        place
    }

    fn is_before(&self, one: Node, other: Node) -> bool {
        one.at < other.at || one.at == other.at && self.seq(one) < self.seq(other)
    }

    fn seq(&self, node: Node) -> u64 {
        self.entries[node.index as usize].seq
    }

    /// Nanoseconds from the base: 292 years either way.
    fn ticks(&self, at: Instant) -> i64 {
        let base = self.base;
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match at.checked_duration_since(base) {
            Some(after) => nanos(after),
            None => -nanos(base.saturating_duration_since(at)),
        }
    }

    fn time(&self, ticks: i64) -> Option<Instant> {
        let distance = Duration::from_nanos(ticks.unsigned_abs());
        if ticks < 0 {
            self.base.checked_sub(distance)
        } else {
            self.base.checked_add(distance)
        }
    }

    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.entries[node.index as usize].place = to_u32(place);
    }
}

/// What moments are counted from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(Instant);

/// A time in half the room of an `Instant`: nanoseconds since an epoch, and one. What is before the
/// epoch is the epoch, and times 584 years after it are all one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

impl Epoch {
    pub(crate) const fn new(begin: Instant) -> Self {
        Self(begin)
    }

    #[inline]
    pub(crate) fn moment(self, at: Instant) -> Moment {
        let after = at.saturating_duration_since(self.0);
        let nanos = after.as_secs().saturating_mul(1_000_000_000);
        let nanos = nanos.saturating_add(u64::from(after.subsec_nanos()));
        Moment(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// `None` if the clock cannot say it.
    pub(crate) fn instant(self, at: Moment) -> Option<Instant> {
        self.0.checked_add(Duration::from_nanos(at.0.get() - 1))
    }
}

impl Moment {
    /// How long after `earlier` it is, if it is.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// `now + d`, or `None` ("never") when the clock cannot say a time that far away.
pub(crate) fn saturating_add(now: Instant, d: Duration) -> Option<Instant> {
    now.checked_add(d)
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    seq: u64,
    place: u32,
}

/// Small: the order among equals is in the entry.
#[derive(Debug, Clone, Copy)]
struct Node {
    at: i64,
    index: u32,
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).expect("four thousand million timers do not fit in memory")
}

/// Four children a node: half the levels of a binary heap, and siblings share cache lines.
const ARITY: usize = 4;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn timers_fire_in_due_order_and_equals_in_order_of_arming() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        timers.arm(t0 + ms(20), "late");
        timers.arm(t0 + ms(10), "first");
        timers.arm(t0 + ms(10), "second");
        assert_eq!(timers.next_deadline(), Some(t0 + ms(10)));
        assert_eq!(fire(&mut timers, t0 + ms(9)), Vec::<&str>::new());
        assert_eq!(fire(&mut timers, t0 + ms(30)), ["first", "second", "late"]);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn tm_08_a_first_timer_for_the_end_of_time_does_not_move_those_that_follow() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        timers.arm(t0 + Duration::from_secs(1 << 40), "never");
        let soon = timers.arm(t0 + ms(10), "soon");
        assert_eq!(timers.due(soon), Some(t0 + ms(10)));
        assert_eq!(fire(&mut timers, t0 + ms(9)), Vec::<&str>::new());
        assert_eq!(fire(&mut timers, t0 + ms(10)), ["soon"]);
    }

    #[test]
    fn a_timer_for_before_they_were_made_is_due_at_once_and_ahead_of_others() {
        let t0 = Instant::now() + ms(50);
        let mut timers = Timers::new(t0);
        timers.arm(t0, "now");
        let past = timers.arm(t0 - ms(30), "past");
        timers.arm(t0 - ms(40), "longer past");
        assert_eq!(timers.due(past), Some(t0 - ms(30)));
        assert_eq!(timers.next_deadline(), Some(t0 - ms(40)));
        assert_eq!(fire(&mut timers, t0), ["longer past", "past", "now"]);
    }

    #[test]
    fn tm_08_a_hundred_thousand_timers_on_one_tick_fire_once_each_in_order() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        for n in 0..100_000_u32 {
            timers.arm(t0, n);
        }
        assert_eq!(fire(&mut timers, t0), (0..100_000).collect::<Vec<_>>());
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn tm_08_a_timer_cancelled_by_an_earlier_one_of_the_same_tick_does_not_fire() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        let keys: Vec<_> = (0..100).map(|n| timers.arm(t0, n)).collect();
        let round = timers.begin_round(t0);
        let mut fired = Vec::new();
        while let Some((key, n)) = timers.pop_due(round) {
            assert_eq!(key, keys[n]);
            assert!(!timers.cancel(key), "it has fired");
            fired.push(n);
            if n % 2 == 0 {
                assert!(timers.cancel(keys[n + 1]));
                assert!(!timers.cancel(keys[n + 1]));
            }
        }
        assert_eq!(fired, (0..100).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn tm_08_a_timer_rearmed_for_now_or_the_past_waits_for_the_next_round() {
        let t0 = Instant::now() + ms(1000);
        let mut timers = Timers::new(t0);
        timers.arm(t0, 0);
        timers.arm(t0, 100);
        let mut fired = Vec::new();
        for _ in 0..3 {
            let round = timers.begin_round(t0);
            while let Some((_, n)) = timers.pop_due(round) {
                fired.push(n);
                // An hour ago, and yet not before the other one that is due.
                timers.arm(t0.checked_sub(ms(900)).unwrap_or(t0), n + 1);
            }
            assert_eq!(
                timers.next_deadline(),
                Some(t0),
                "due at once, in the next round"
            );
        }
        assert_eq!(fired, [0, 100, 1, 101, 2, 102]);
    }

    #[test]
    fn a_clock_that_steps_back_between_rounds_is_taken_to_stand_still() {
        let t0 = Instant::now() + ms(1000);
        let mut timers = Timers::new(t0);
        let _ = timers.begin_round(t0);
        timers.arm(t0, 'a');
        assert_eq!(fire(&mut timers, t0 - ms(1)), ['a']);
    }

    #[test]
    fn tm_08_the_far_future_is_never_and_does_not_overflow() {
        let t0 = Instant::now();
        assert_eq!(saturating_add(t0, Duration::MAX), None);
        assert_eq!(saturating_add(t0, Duration::ZERO), Some(t0));
        let mut timers = Timers::new(t0);
        let century = saturating_add(t0, Duration::from_secs(100 * 366 * 86_400));
        timers.arm(century.expect("the clock reaches that far"), ());
        assert_eq!(fire(&mut timers, t0 + ms(1)).len(), 0);
        assert_eq!(timers.next_deadline(), century);
    }

    #[test]
    fn a_stale_key_never_cancels_the_timer_that_took_its_place() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        let old = timers.arm(t0, 1);
        assert!(timers.cancel(old));
        let new = timers.arm(t0, 2);
        assert!(!timers.cancel(old));
        assert_eq!(timers.len(), 1);
        assert!(timers.cancel(new));
    }

    #[test]
    fn memory_follows_the_live_timers_not_the_cancelled_ones() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        let mut live: Vec<_> = (0..10).map(|n| timers.arm(t0 + ms(n), n)).collect();
        let (entries, heap) = (timers.entries.capacity(), timers.heap.capacity());
        for n in 0..100_000 {
            let which = n as usize % live.len();
            assert!(timers.cancel(live[which]));
            live[which] = timers.arm(t0 + ms(n), n);
        }
        assert_eq!(timers.len(), 10);
        assert_eq!(
            (timers.entries.capacity(), timers.heap.capacity()),
            (entries, heap)
        );
    }

    #[test]
    fn any_sequence_agrees_with_a_sorted_map() {
        let t0 = Instant::now();
        let seed = 0x9e37_79b9_7f4a_7c15_u64;
        println!("seed {seed:#x}");
        let mut rng = seed;
        let (mut timers, mut model, mut keys) = (Timers::new(t0), BTreeMap::new(), Vec::new());
        let mut now = t0;
        for seq in 0..20_000_u64 {
            match xorshift(&mut rng) % 8 {
                0..=3 => {
                    let at = now + ms(xorshift(&mut rng) % 50);
                    keys.push((timers.arm(at, seq), (at, seq)));
                    model.insert((at, seq), seq);
                }
                4..=5 if !keys.is_empty() => {
                    let which = xorshift(&mut rng) as usize % keys.len();
                    let (key, place) = keys.swap_remove(which);
                    assert_eq!(timers.cancel(key), model.remove(&place).is_some());
                }
                _ => {
                    now += ms(xorshift(&mut rng) % 10);
                    let later = model.split_off(&(now + Duration::from_nanos(1), 0));
                    let due: Vec<_> = std::mem::replace(&mut model, later).into_values().collect();
                    assert_eq!(fire(&mut timers, now), due);
                }
            }
            assert_eq!(timers.len(), model.len());
            assert_eq!(
                timers.next_deadline(),
                model.keys().next().map(|place| place.0)
            );
        }
    }

    fn fire<K: Copy>(timers: &mut Timers<K>, now: Instant) -> Vec<K> {
        let round = timers.begin_round(now);
        std::iter::from_fn(|| timers.pop_due(round).map(|(_, key)| key)).collect()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }
}
