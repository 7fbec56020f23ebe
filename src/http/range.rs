//! Byte ranges (RFC 9110 section 14): what a `Range` field asks for, and how it is answered.
//!
//! Several ranges are answered as `multipart/byteranges`, as nginx and Apache do, but only when the
//! list is one that an honest client sends: at most [`MAX_RANGES`], in ascending order, none
//! overlapping another. Everything else gets the whole, as section 14.2 allows, so that no request
//! can ask for more bytes than the file has.

use std::cmp::Ordering;

use super::trim_blanks;

/// A part of a representation that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte behind the last one; greater than `start`.
    pub end: u64,
}

impl ByteRange {
    /// How many bytes it has.
    pub const fn length(self) -> u64 {
        self.end - self.start
    }

    /// The value of `Content-Range` beside it (RFC 9110 section 14.4).
    pub fn content_range(self, complete: u64) -> String {
        format!("bytes {}-{}/{complete}", self.start, self.end - 1)
    }
}

/// How a request with or without a `Range` is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeAnswer {
    /// 206 with this part.
    One(ByteRange),
    /// 206 with these parts, two to [`MAX_RANGES`] in ascending order, as `multipart/byteranges`.
    Several(Vec<ByteRange>),
    /// 416 with the `Content-Range` of [`unsatisfied`].
    Unsatisfiable,
    /// 200 with all of it: no range was asked for, or none that is understood or reasonable.
    Whole,
}

/// What the `Range` fields of a request ask of a representation of `complete` bytes.
///
/// The caller has checked that the method is GET and that `If-Range` holds
/// ([`conditional`](super::conditional)).
pub fn answer<'a>(fields: impl IntoIterator<Item = &'a [u8]>, complete: u64) -> RangeAnswer {
    let mut fields = fields.into_iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return RangeAnswer::Whole;
    };
    let Some(set) = byte_ranges(field) else {
        return RangeAnswer::Whole;
    };
    let mut ranges: Vec<ByteRange> = Vec::new();
    for (count, part) in set.split(|&byte| byte == b',').enumerate() {
        if count == MAX_RANGES {
            return RangeAnswer::Whole;
        }
        let part = trim_blanks(part);
        if part.is_empty() {
            continue; // RFC 9110 section 5.6.1.2: empty list elements are ignored.
        }
        match Spec::parse(part) {
            None => return RangeAnswer::Whole,
            Some(spec) => ranges.extend(spec.within(complete)),
        }
    }
    answer_with(ranges, complete)
}

/// The value of `Content-Range` in a 416 (RFC 9110 section 15.5.17).
pub fn unsatisfied(complete: u64) -> String {
    format!("bytes */{complete}")
}

/// How many ranges one request may ask for.
pub const MAX_RANGES: usize = 16;

fn answer_with(ranges: Vec<ByteRange>, complete: u64) -> RangeAnswer {
    let ascending = ranges
        .iter()
        .zip(ranges.iter().skip(1))
        .all(|(before, after)| before.end <= after.start);
    match ranges.as_slice() {
        // RFC 9110 section 14.1.2: an empty representation satisfies no range; answering 200 with
        // nothing is what a client of "everything from 0 on" can use.
        [] if complete == 0 => RangeAnswer::Whole,
        [] => RangeAnswer::Unsatisfiable,
        [one] => RangeAnswer::One(*one),
        _ if ascending => RangeAnswer::Several(ranges),
        _ => RangeAnswer::Whole,
    }
}

/// The set behind `bytes=`; the unit's case does not matter (RFC 9110 section 14.1).
fn byte_ranges(field: &[u8]) -> Option<&[u8]> {
    let (unit, set) = field.split_at_checked(6)?;
    let set = unit.eq_ignore_ascii_case(b"bytes=").then_some(set)?;
    // `1#range-spec` has one element at least.
    set.iter().any(u8::is_ascii_digit).then_some(set)
}

/// `int-range / suffix-range` (RFC 9110 section 14.1.1).
#[derive(Clone, Copy, Debug)]
enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

impl Spec {
    fn parse(part: &[u8]) -> Option<Self> {
        let dash = part.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (part.get(..dash)?, part.get(dash + 1..)?);
        if first.is_empty() {
            return Some(Self::Suffix(number(last)?));
        }
        let first = number(first)?;
        let last = if last.is_empty() {
            None
        } else {
            Some(number(last)?)
        };
        // "An int-range is invalid if the last-pos value is present and less than first-pos."
        match last.map(|last| last.cmp(&first)) {
            Some(Ordering::Less) => None,
            _ => Some(Self::From { first, last }),
        }
    }

    /// The bytes that there are of it, if there are any.
    fn within(self, complete: u64) -> Option<ByteRange> {
        let (start, end) = match self {
            Self::From { first, last } => {
                let end = last.map_or(complete, |last| last.saturating_add(1));
                (first, end.min(complete))
            }
            Self::Suffix(length) => (complete.saturating_sub(length), complete),
        };
        (start < end).then_some(ByteRange { start, end })
    }
}

/// `1*DIGIT`; a number that does not fit is as good as the largest one.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::super::test_support::Rng;
    use super::*;

    fn ask(field: &str, complete: u64) -> RangeAnswer {
        answer([field.as_bytes()], complete)
    }

    fn one(start: u64, end: u64) -> RangeAnswer {
        RangeAnswer::One(ByteRange { start, end })
    }

    fn several(ranges: &[(u64, u64)]) -> RangeAnswer {
        let ranges = ranges.iter().map(|&(start, end)| ByteRange { start, end });
        RangeAnswer::Several(ranges.collect())
    }

    #[test]
    fn the_forms_of_one_range_are_understood() {
        for (field, expected) in [
            ("bytes=0-499", one(0, 500)),
            ("bytes=500-999", one(500, 1000)),
            ("bytes=-500", one(9500, 10_000)),
            ("bytes=9500-", one(9500, 10_000)),
            ("bytes=0-0", one(0, 1)),
            ("bytes=-1", one(9999, 10_000)),
            ("bytes=0-", one(0, 10_000)),
            ("bytes=9999-10000", one(9999, 10_000)),
            ("bytes=-20000", one(0, 10_000)),
            ("BYTES=1-2", one(1, 3)),
            ("bytes= 1-2 ", one(1, 3)),
            ("bytes=,1-2,,", one(1, 3)),
            ("bytes=5-99999999999999999999999999", one(5, 10_000)),
            ("bytes=-99999999999999999999999999", one(0, 10_000)),
            ("bytes=007-9", one(7, 10)),
            // What cannot be satisfied is left out as long as something can.
            ("bytes=0-1,20000-", one(0, 2)),
        ] {
            assert_eq!(ask(field, 10_000), expected, "{field}");
        }
    }

    #[test]
    fn what_lies_behind_the_end_is_not_satisfiable() {
        for field in [
            "bytes=10000-",
            "bytes=10000-10001",
            "bytes=-0",
            "bytes=20000-,30000-",
            "bytes=18446744073709551615-",
            "bytes=99999999999999999999999999-",
        ] {
            assert_eq!(ask(field, 10_000), RangeAnswer::Unsatisfiable, "{field}");
        }
        assert_eq!(unsatisfied(10_000), "bytes */10000");
    }

    #[test]
    fn nothing_has_no_ranges_and_is_sent_whole() {
        for field in ["bytes=0-", "bytes=-1", "bytes=5-6"] {
            assert_eq!(ask(field, 0), RangeAnswer::Whole, "{field}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=2-1",
            "bytes=0-1,2-1",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes 0-1",
            "bytes: 0-1",
            "items=0-1",
            "bytes=0-1;",
            "bytes=1.5-2",
            "bytes=0-1 2-3",
            "bytes=\u{661}-2",
        ] {
            assert_eq!(ask(field, 10_000), RangeAnswer::Whole, "{field}");
        }
        assert_eq!(answer([], 10_000), RangeAnswer::Whole);
        assert_eq!(
            answer([b"bytes=0-1".as_slice(), b"bytes=5-6"], 10_000),
            RangeAnswer::Whole
        );
    }

    #[test]
    fn several_ranges_are_answered_when_they_ascend() {
        assert_eq!(ask("bytes=0-1,5-6", 10), several(&[(0, 2), (5, 7)]));
        assert_eq!(
            ask("bytes=0-1 , 2-3,-1", 10),
            several(&[(0, 2), (2, 4), (9, 10)])
        );
        assert_eq!(ask("bytes=5-6,0-1", 10), RangeAnswer::Whole);
        assert_eq!(ask("bytes=0-5,5-6", 10), RangeAnswer::Whole);
        assert_eq!(ask("bytes=0-,0-", 10), RangeAnswer::Whole);
        assert_eq!(ask("bytes=0-,-5", 10), RangeAnswer::Whole);
    }

    #[test]
    fn a_list_of_very_many_ranges_is_ignored() {
        let list = |count: u64| {
            let parts: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 2, n * 2)).collect();
            format!("bytes={}", parts.join(","))
        };
        assert!(matches!(ask(&list(16), 1000), RangeAnswer::Several(parts) if parts.len() == 16));
        assert_eq!(ask(&list(17), 1000), RangeAnswer::Whole);
        assert_eq!(ask(&list(1300), 10_000), RangeAnswer::Whole);
        // The list that brought servers down in 2011: overlapping, each nearly everything.
        let killer = format!(
            "bytes=0-{}",
            (5..1300).map(|n| format!(",5-{n}")).collect::<String>()
        );
        assert_eq!(ask(&killer, 10_000), RangeAnswer::Whole);
        assert_eq!(
            ask(&format!("bytes={}", ",".repeat(10_000)), 10),
            RangeAnswer::Whole
        );
    }

    #[test]
    fn a_content_range_names_the_last_byte() {
        let range = ByteRange { start: 0, end: 500 };
        assert_eq!(range.content_range(1234), "bytes 0-499/1234");
        assert_eq!(range.length(), 500);
    }

    #[test]
    fn no_answer_has_more_bytes_than_there_are() {
        let seed = 0x7261_6e67;
        let mut rng = Rng::new(seed);
        let pieces = [
            "0", "1", "9", "-", "-", ",", ",", " ", "5-6", "0-", "-3", "bytes=",
        ];
        for _ in 0..30_000 {
            let mut field = String::from("bytes=");
            for _ in 0..rng.below(10) {
                field.push_str(pieces[rng.below(pieces.len())]);
            }
            let complete = rng.below(100) as u64;
            let parts = match ask(&field, complete) {
                RangeAnswer::One(range) => vec![range],
                RangeAnswer::Several(ranges) => {
                    assert!((2..=MAX_RANGES).contains(&ranges.len()));
                    ranges
                }
                RangeAnswer::Unsatisfiable | RangeAnswer::Whole => Vec::new(),
            };
            let mut behind = 0;
            for range in parts {
                assert!(
                    range.start >= behind && range.start < range.end,
                    "{field} (seed {seed:#x})"
                );
                behind = range.end;
            }
            assert!(behind <= complete, "{field} of {complete} (seed {seed:#x})");
        }
    }
}
