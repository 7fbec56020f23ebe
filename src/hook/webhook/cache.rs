//! Verdicts that may be used again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hook::HookAnswer;
use crate::http::HeaderList;
use crate::timer::saturating_add;

/// Answers by the whole question, bounded in number and in bytes. The oldest goes first.
#[derive(Debug)]
pub(super) struct Cache {
    max_entries: usize,
    max_bytes: usize,
    max_age: Duration,
    entries: BTreeMap<Arc<[u8]>, Entry>,
    /// The order in which they came.
    order: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    answer: HookAnswer,
    /// `None`: never.
    expires: Option<Instant>,
    number: u64,
    cost: usize,
}

impl Cache {
    pub(super) fn new(max_entries: usize, max_bytes: usize, max_age: Duration) -> Self {
        Self {
            max_entries,
            max_bytes,
            max_age,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
            bytes: 0,
        }
    }

    /// The answer to the same question, if it still holds.
    pub(super) fn find(&mut self, question: &[u8], now: Instant) -> Option<HookAnswer> {
        let entry = self.entries.get(question)?;
        if entry.expires.is_none_or(|expires| expires > now) {
            return Some(entry.answer.clone());
        }
        self.remove(question);
        None
    }

    /// Keeps an answer for as long as its endpoint says, and not longer than is allowed here.
    pub(super) fn keep(
        &mut self,
        question: &[u8],
        answer: &HookAnswer,
        age: Duration,
        now: Instant,
    ) {
        let age = age.min(self.max_age);
        let cost = question.len() * 2 + answer_bytes(answer) + OVERHEAD;
        self.remove(question);
        if age.is_zero() || self.max_entries == 0 || cost > self.max_bytes {
            return;
        }
        while self.entries.len() >= self.max_entries || self.bytes + cost > self.max_bytes {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.remove(&oldest);
        }
        let question: Arc<[u8]> = question.into();
        let number = self.next;
        self.next += 1;
        self.bytes += cost;
        self.order.insert(number, Arc::clone(&question));
        let entry = Entry {
            answer: answer.clone(),
            expires: saturating_add(now, age),
            number,
            cost,
        };
        self.entries.insert(question, entry);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, question: &[u8]) {
        if let Some(entry) = self.entries.remove(question) {
            self.order.remove(&entry.number);
            self.bytes -= entry.cost;
        }
    }
}

/// How long a response may be used again, by its `Cache-Control` and `Age` (RFC 9111 sections 4.2
/// and 5.2.2). Only `max-age` allows it.
pub(super) fn freshness(headers: &HeaderList) -> Duration {
    let mut max_age = None;
    for directive in directives(headers, "cache-control") {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (directive, None),
        };
        if ["no-store", "no-cache"]
            .iter()
            .any(|no| name.eq_ignore_ascii_case(no))
        {
            return Duration::ZERO;
        }
        if name.eq_ignore_ascii_case("max-age") {
            // Of two, or of something that is no number, nothing is made.
            let parsed = value.and_then(seconds).filter(|_| max_age.is_none());
            max_age = Some(parsed.unwrap_or(0));
        }
    }
    let age = directives(headers, "age").next().and_then(seconds);
    Duration::from_secs(max_age.unwrap_or(0).saturating_sub(age.unwrap_or(0)))
}

/// RFC 9111 section 1.2.2: digits; what is too large is very long.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(VERY_LONG))
}

fn directives<'h>(headers: &'h HeaderList, name: &'h str) -> impl Iterator<Item = &'h str> {
    let fields = headers.iter();
    let fields = fields.filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    let texts = fields.filter_map(|(_, value)| std::str::from_utf8(value).ok());
    texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn answer_bytes(answer: &HookAnswer) -> usize {
    let fields = |headers: &HeaderList| -> usize {
        let lens = headers.iter().map(|(name, value)| name.len() + value.len());
        lens.sum()
    };
    match answer {
        HookAnswer::Allow(grant) => {
            let name = grant.subprotocol.as_ref().map_or(0, String::len);
            fields(&grant.headers) + name + grant.attributes.len()
        }
        HookAnswer::Deny(refuse) => fields(&refuse.headers) + refuse.body.len(),
        HookAnswer::Later | HookAnswer::Next => 0,
    }
}

/// RFC 9111 section 1.2.2: what stands for a number that is too large.
const VERY_LONG: u64 = 1 << 31;
/// What an entry costs beside its question and its answer.
const OVERHEAD: usize = 256;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use super::*;
    use crate::http::test_support::Rng;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn status(answer: Option<HookAnswer>) -> Option<u16> {
        match answer {
            Some(HookAnswer::Deny(refuse)) => Some(refuse.status),
            _ => None,
        }
    }

    #[test]
    fn an_answer_holds_until_its_age_and_not_longer_than_allowed() {
        let now = Instant::now();
        let mut cache = Cache::new(8, 100_000, SECOND * 10);
        cache.keep(b"short", &HookAnswer::deny(401), SECOND * 2, now);
        cache.keep(b"long", &HookAnswer::deny(402), SECOND * 99, now);
        cache.keep(b"none", &HookAnswer::deny(403), Duration::ZERO, now);
        let mut find =
            |question: &[u8], after: u32| status(cache.find(question, now + SECOND * after));
        assert_eq!(find(b"none", 0), None);
        assert_eq!(find(b"short", 1), Some(401));
        assert_eq!(find(b"short", 2), None);
        assert_eq!(find(b"long", 9), Some(402));
        assert_eq!(find(b"long", 10), None);
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
        let now = Instant::now();
        let mut cache = Cache::new(3, 2000, DAY);
        for (number, question) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            let answer = HookAnswer::deny(400 + u16::try_from(number).unwrap());
            cache.keep(question, &answer, DAY, now);
        }
        assert_eq!(status(cache.find(b"a", now)), None);
        assert_eq!(status(cache.find(b"b", now)), Some(401));
        cache.keep(&[b'x'; 700], &HookAnswer::deny(410), DAY, now);
        assert_eq!(cache.len(), 2, "the large one drove two out");
        cache.keep(&[b'y'; 6000], &HookAnswer::deny(411), DAY, now);
        assert_eq!(cache.len(), 2, "and one that is too large is not kept");
        assert!(cache.bytes() <= 2000);
        cache.keep(b"d", &HookAnswer::deny(499), DAY, now);
        assert_eq!(status(cache.find(b"d", now)), Some(499));
        cache.clear();
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn the_bounds_hold_whatever_comes() {
        let mut rng = Rng::new(0x5eed_0003);
        let start = Instant::now();
        let mut cache = Cache::new(10, 5000, SECOND * 30);
        for step in 0..5000_u32 {
            let now = start + Duration::from_millis(u64::from(step) * 10);
            let question = vec![u8::try_from(rng.below(20)).unwrap(); rng.below(800)];
            if rng.below(3) == 0 {
                let _ = cache.find(&question, now);
            } else {
                let age = SECOND * u32::try_from(rng.below(40)).unwrap();
                cache.keep(&question, &HookAnswer::Next, age, now);
            }
            assert!(cache.len() <= 10 && cache.bytes() <= 5000, "{rng:?}");
            assert_eq!(cache.order.len(), cache.entries.len());
            let sum: usize = cache.entries.values().map(|entry| entry.cost).sum();
            assert_eq!(sum, cache.bytes());
        }
    }

    #[test]
    fn only_max_age_allows_it_to_be_used_again() {
        let cases: [(&[(&str, &str)], u64); 14] = [
            (&[], 0),
            (&[("Cache-Control", "max-age=60")], 60),
            (&[("cache-control", "private, Max-Age = 60")], 60),
            (&[("Cache-Control", "max-age=\"60\"")], 60),
            (&[("Cache-Control", "max-age=60"), ("Age", "50")], 10),
            (&[("Cache-Control", "max-age=60"), ("Age", "70")], 0),
            (&[("Cache-Control", "max-age=60, no-store")], 0),
            (
                &[
                    ("Cache-Control", "no-cache"),
                    ("Cache-Control", "max-age=60"),
                ],
                0,
            ),
            (&[("Cache-Control", "max-age=60, max-age=70")], 0),
            (&[("Cache-Control", "max-age=-1")], 0),
            (&[("Cache-Control", "max-age=1.5")], 0),
            (&[("Cache-Control", "max-age")], 0),
            (&[("Cache-Control", "s-maxage=60")], 0),
            (
                &[("Cache-Control", "max-age=99999999999999999999")],
                1 << 31,
            ),
        ];
        for (fields, expected) in cases {
            let mut headers = HeaderList::new();
            for (name, value) in fields {
                headers.push(*name, *value).unwrap();
            }
            assert_eq!(freshness(&headers).as_secs(), expected, "{fields:?}");
        }
    }
}
