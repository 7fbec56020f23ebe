//! Validators and conditional requests (RFC 9110 sections 8.8 and 13).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

use super::date::parse_date;
use super::head::Headers;
use super::trim_blanks;

/// A strong entity tag: it changes whenever a byte of the representation does.
#[derive(Clone, PartialEq, Eq)]
pub struct ETag {
    quoted: String,
}

impl ETag {
    /// The tag of a file, from what the file system says about it: its length, its modification
    /// time to the nanosecond, and a number that tells files of the same name apart (the inode),
    /// or 0.
    ///
    /// As strong as the file system's clock is fine: a file that changes twice within one tick and
    /// keeps its length keeps its tag.
    pub fn of_file(length: u64, modified: u64, nanoseconds: u32, identity: u64) -> Self {
        Self {
            quoted: format!("\"{modified:x}.{nanoseconds:x}-{length:x}-{identity:x}\""),
        }
    }

    /// The tag of bytes, from their digest.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let digest = URL_SAFE_NO_PAD.encode(Sha1::digest(bytes));
        Self {
            quoted: format!("\"{digest}\""),
        }
    }

    /// A tag that the application has chosen; `None` when it has a byte that no tag may have: a
    /// quote, a blank or a control character (RFC 9110 section 8.8.3), or one beyond ASCII.
    pub fn strong(opaque: &str) -> Option<Self> {
        opaque
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"')
            .then(|| Self {
                quoted: format!("\"{opaque}\""),
            })
    }

    /// The value of the `ETag` field, in its quotes.
    pub fn as_str(&self) -> &str {
        &self.quoted
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.quoted)
    }
}

/// What can be said about the current representation, to compare conditions with.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Validators<'a> {
    /// Its entity tag.
    pub etag: Option<&'a ETag>,
    /// When it was last modified, in seconds since 1970.
    pub last_modified: Option<u64>,
}

impl<'a> Validators<'a> {
    /// The validators of a representation.
    pub const fn new(etag: Option<&'a ETag>, last_modified: Option<u64>) -> Self {
        Self {
            etag,
            last_modified,
        }
    }

    /// Judges the conditions of a request for a representation that exists, in the order of
    /// RFC 9110 section 13.2.2.
    pub fn judge(&self, method: &str, headers: &Headers<'_>) -> Judgement {
        let reads = matches!(method, "GET" | "HEAD");
        if headers.first("If-Match").is_some() {
            if !self.matches(headers, "If-Match", Comparison::Strong) {
                return Judgement::Failed;
            }
        } else if self.modified_since(headers, "If-Unmodified-Since") == Some(true) {
            return Judgement::Failed;
        }
        if headers.first("If-None-Match").is_some() {
            if self.matches(headers, "If-None-Match", Comparison::Weak) {
                return if reads {
                    Judgement::NotModified
                } else {
                    Judgement::Failed
                };
            }
        } else if reads && self.modified_since(headers, "If-Modified-Since") == Some(false) {
            return Judgement::NotModified;
        }
        // RFC 9110 section 14.2: a Range is ignored with every method but GET.
        if method == "GET" && self.range_applies(headers) {
            Judgement::Serve(Ranges::Allowed)
        } else {
            Judgement::Serve(Ranges::Ignored)
        }
    }

    /// Whether a member of the list has our tag, or the list is `*`.
    fn matches(&self, headers: &Headers<'_>, name: &str, comparison: Comparison) -> bool {
        let is_ours = |tag: Tag<'_>| {
            let weak_counts = matches!(comparison, Comparison::Weak);
            self.etag
                .is_some_and(|etag| etag.quoted.as_bytes() == tag.quoted)
                && (weak_counts || !tag.weak)
        };
        headers
            .all(name)
            .any(|list| list == b"*" || Tags { rest: list }.any(is_ours))
    }

    /// Whether it was modified after the date in the field; `None` when there is nothing to compare.
    fn modified_since(&self, headers: &Headers<'_>, name: &str) -> Option<bool> {
        let since = single(headers, name).and_then(parse_date)?;
        Some(self.last_modified? > since)
    }

    /// `If-Range` (RFC 9110 section 13.1.5): the same strong tag, or exactly the same date.
    fn range_applies(&self, headers: &Headers<'_>) -> bool {
        if headers.first("If-Range").is_none() {
            return true;
        }
        let Some(field) = single(headers, "If-Range") else {
            return false;
        };
        if self
            .etag
            .is_some_and(|etag| etag.quoted.as_bytes() == field)
        {
            return true;
        }
        let date = parse_date(field);
        date.is_some() && date == self.last_modified
    }
}

/// How a conditional request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Judgement {
    /// 412: what the client wants to change is not what it thinks.
    Failed,
    /// 304: the client has it.
    NotModified,
    /// As if there were no condition.
    Serve(Ranges),
}

/// Whether a `Range` of the request is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ranges {
    /// It is.
    Allowed,
    /// It is not: the method is not GET, or the client's part is of another representation.
    Ignored,
}

/// RFC 9110 section 8.8.3.2.
#[derive(Clone, Copy, Debug)]
enum Comparison {
    Strong,
    Weak,
}

/// The value of a field that may be there once; more than one is as none.
fn single<'a>(headers: &Headers<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// An entity tag as a client sent it.
#[derive(Clone, Copy, Debug)]
struct Tag<'a> {
    weak: bool,
    /// With its quotes.
    quoted: &'a [u8],
}

/// The members of a list of entity tags, up to the first that is none.
#[derive(Debug)]
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        let mut rest = trim_blanks(self.rest);
        while let Some(behind) = rest.strip_prefix(b",") {
            rest = trim_blanks(behind);
        }
        let (weak, rest) = match rest.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let inside = rest.strip_prefix(b"\"")?;
        let close = inside.iter().position(|&byte| byte == b'"')?;
        let (quoted, behind) = rest.split_at_checked(close + 2)?;
        let behind = trim_blanks(behind);
        if !matches!(behind, [] | [b',', ..]) {
            return None;
        }
        self.rest = behind;
        Some(Tag { weak, quoted })
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::{HeadLimits, RequestHead};
    use super::super::test_support::Rng;
    use super::*;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    /// Judges a request with these fields against the tag `"a"` and the date `MODIFIED`.
    fn judge(method: &str, fields: &[(&str, &str)]) -> Judgement {
        let etag = ETag::strong("a").unwrap();
        judge_with(
            Validators::new(Some(&etag), Some(784_111_777)),
            method,
            fields,
        )
    }

    fn judge_with(ours: Validators<'_>, method: &str, fields: &[(&str, &str)]) -> Judgement {
        let mut text = format!("{method} / HTTP/1.1\r\nHost: h\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default()).unwrap();
        ours.judge(method, head.fields())
    }

    const SERVE: Judgement = Judgement::Serve(Ranges::Allowed);
    const WHOLE: Judgement = Judgement::Serve(Ranges::Ignored);

    #[test]
    fn if_none_match_compares_weakly() {
        for (value, expected) in [
            ("\"a\"", Judgement::NotModified),
            ("W/\"a\"", Judgement::NotModified),
            ("\"b\", \"a\"", Judgement::NotModified),
            ("\"b\",W/\"a\",\"c\"", Judgement::NotModified),
            (", ,\"a\"", Judgement::NotModified),
            ("\"x,y\", \"a\"", Judgement::NotModified),
            ("*", Judgement::NotModified),
            ("\"b\"", SERVE),
            ("\"A\"", SERVE),
            ("a", SERVE),
            ("w/\"a\"", SERVE),
            ("\"b,\"a\"", SERVE),
            ("\"a", SERVE),
            ("\"b\" \"a\"", SERVE),
            ("\"a\"\"b\"", SERVE),
            ("\"\"", SERVE),
            ("", SERVE),
        ] {
            assert_eq!(
                judge("GET", &[("If-None-Match", value)]),
                expected,
                "{value}"
            );
        }
        let lines = [("If-None-Match", "\"b\""), ("if-none-match", "\"a\"")];
        assert_eq!(judge("GET", &lines), Judgement::NotModified);
    }

    #[test]
    fn if_match_compares_strongly() {
        for (value, expected) in [
            ("\"a\"", SERVE),
            ("\"b\", \"a\"", SERVE),
            ("*", SERVE),
            ("W/\"a\"", Judgement::Failed),
            ("\"b\"", Judgement::Failed),
            ("a", Judgement::Failed),
            ("", Judgement::Failed),
        ] {
            assert_eq!(judge("GET", &[("If-Match", value)]), expected, "{value}");
        }
    }

    #[test]
    fn dates_are_compared_to_the_second() {
        for (value, since, unmodified) in [
            (BEFORE, SERVE, Judgement::Failed),
            (MODIFIED, Judgement::NotModified, SERVE),
            (AFTER, Judgement::NotModified, SERVE),
            ("yesterday", SERVE, SERVE),
            ("", SERVE, SERVE),
        ] {
            assert_eq!(
                judge("GET", &[("If-Modified-Since", value)]),
                since,
                "{value}"
            );
            assert_eq!(
                judge("GET", &[("If-Unmodified-Since", value)]),
                unmodified,
                "{value}"
            );
        }
        let twice = [("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)];
        assert_eq!(judge("GET", &twice), SERVE);
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_rfc() {
        let (im, inm) = ("If-Match", "If-None-Match");
        let (ims, ius) = ("If-Modified-Since", "If-Unmodified-Since");
        for (fields, expected) in [
            // A tag makes the date beside it void.
            (&[(im, "\"a\""), (ius, BEFORE)], SERVE),
            (&[(im, "\"b\""), (ius, AFTER)], Judgement::Failed),
            (&[(inm, "\"b\""), (ims, AFTER)], SERVE),
            (&[(inm, "\"a\""), (ims, BEFORE)], Judgement::NotModified),
            // What guards against lost updates comes before what saves bytes.
            (&[(im, "\"b\""), (inm, "\"a\"")], Judgement::Failed),
            (&[(im, "\"a\""), (inm, "\"a\"")], Judgement::NotModified),
            (&[(ius, BEFORE), (ims, AFTER)], Judgement::Failed),
            (&[(ius, AFTER), (inm, "\"a\"")], Judgement::NotModified),
            (&[(im, "\"a\""), (ims, AFTER)], Judgement::NotModified),
        ] {
            assert_eq!(judge("GET", fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn methods_that_change_something_fail_where_readers_are_told_not_modified() {
        assert_eq!(judge("PUT", &[("If-None-Match", "*")]), Judgement::Failed);
        assert_eq!(judge("PUT", &[("If-Modified-Since", AFTER)]), WHOLE);
        assert_eq!(
            judge("HEAD", &[("If-None-Match", "*")]),
            Judgement::NotModified
        );
        assert_eq!(
            judge("HEAD", &[("If-Modified-Since", AFTER)]),
            Judgement::NotModified
        );
        assert_eq!(judge("HEAD", &[]), WHOLE);
    }

    #[test]
    fn a_range_is_of_the_representation_that_if_range_names_or_void() {
        for (value, expected) in [
            ("\"a\"", SERVE),
            (MODIFIED, SERVE),
            ("Sun Nov  6 08:49:37 1994", SERVE),
            ("W/\"a\"", WHOLE),
            ("\"b\"", WHOLE),
            ("\"b\", \"a\"", WHOLE),
            ("*", WHOLE),
            (BEFORE, WHOLE),
            (AFTER, WHOLE),
            ("", WHOLE),
        ] {
            assert_eq!(judge("GET", &[("If-Range", value)]), expected, "{value}");
        }
        assert_eq!(
            judge("GET", &[("If-Range", "\"a\""), ("If-Range", "\"a\"")]),
            WHOLE
        );
    }

    #[test]
    fn what_has_no_validators_matches_nothing_but_the_star() {
        let none = Validators::default();
        assert_eq!(
            judge_with(none, "GET", &[("If-Match", "\"a\"")]),
            Judgement::Failed
        );
        assert_eq!(judge_with(none, "GET", &[("If-Match", "*")]), SERVE);
        assert_eq!(
            judge_with(none, "GET", &[("If-None-Match", "\"a\"")]),
            SERVE
        );
        assert_eq!(
            judge_with(none, "GET", &[("If-Modified-Since", AFTER)]),
            SERVE
        );
        assert_eq!(
            judge_with(none, "GET", &[("If-Unmodified-Since", BEFORE)]),
            SERVE
        );
        assert_eq!(judge_with(none, "GET", &[("If-Range", MODIFIED)]), WHOLE);
    }

    #[test]
    fn a_tag_changes_with_everything_that_it_is_made_of() {
        let tags = [
            ETag::of_file(1, 2, 3, 4),
            ETag::of_file(2, 2, 3, 4),
            ETag::of_file(1, 3, 3, 4),
            ETag::of_file(1, 2, 4, 4),
            ETag::of_file(1, 2, 3, 5),
            ETag::of_bytes(b""),
            ETag::of_bytes(b"a"),
        ];
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags[..at].contains(tag));
            let inside = tag
                .as_str()
                .strip_prefix('"')
                .unwrap()
                .strip_suffix('"')
                .unwrap();
            assert_eq!(ETag::strong(inside).as_ref(), Some(tag));
        }
        assert_eq!(ETag::strong("a\"b"), None);
        assert_eq!(ETag::strong("a\r\n"), None);
        assert_eq!(ETag::strong("a b"), None);
    }

    #[test]
    fn random_lists_never_panic_and_end() {
        let mut rng = Rng::new(0x6574_6167);
        let pieces = ["\"", "W/", ",", " ", "a", "*", "\"a\"", "\t", "w"];
        for _ in 0..20_000 {
            let list: String = (0..rng.below(12))
                .map(|_| pieces[rng.below(pieces.len())])
                .collect();
            let count = Tags {
                rest: list.as_bytes(),
            }
            .count();
            assert!(count <= list.len() / 2, "{list}");
        }
    }
}
