//! The header fields of a head.

use std::fmt;

use httparse::Header;
use memchr::memchr_iter;

use super::{HeadError, HeadLimits, field_error, header_limit};
use crate::http::trim_blanks;

/// The header fields of a head, at most [`MAX_HEADERS`](super::MAX_HEADERS).
pub struct Headers<'a> {
    list: List<'a>,
    count: usize,
}

/// Heads are handed on by value, so few fields do not pay for the room of many.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and lives on the stack"
)]
enum List<'a> {
    Few([Header<'a>; FEW_HEADERS]),
    Many(Vec<Header<'a>>),
}

impl<'a> List<'a> {
    /// Room for `count` fields.
    fn with_room(count: usize) -> Self {
        if count <= FEW_HEADERS {
            Self::Few([httparse::EMPTY_HEADER; FEW_HEADERS])
        } else {
            Self::Many(vec![httparse::EMPTY_HEADER; count])
        }
    }

    fn as_slice(&self) -> &[Header<'a>] {
        match self {
            Self::Few(list) => list,
            Self::Many(list) => list,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Header<'a>] {
        match self {
            Self::Few(list) => list,
            Self::Many(list) => list,
        }
    }
}

impl<'a> Headers<'a> {
    /// Names and values in the order of the head; values without the blanks around them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'_, 'a> {
        let list = self.list.as_slice();
        let list = list.get(..self.count).unwrap_or_default();
        list.iter().map(|field| (field.name, field.value))
    }

    /// The value of the first field of that name, case aside.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The value of the first field of that name when it is UTF-8.
    pub fn first_str(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.first(name)?).ok()
    }

    /// The values of all fields of that name, case aside.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'_, 'a, 'n> {
        self.iter()
            .filter(move |(other, _)| other.len() == name.len() && other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The value of the only field of that name.
    pub(crate) fn only(&self, name: &str) -> Only<'a> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Only::Missing,
            (Some(value), None) => Only::One(value),
            (Some(_), Some(_)) => Only::Several,
        }
    }

    /// The elements of the comma-separated lists of that name (RFC 9110 section 5.6.1): all lines
    /// count, empty elements do not.
    pub fn elements<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'_, 'a, 'n> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim_blanks)
            .filter(|element| !element.is_empty())
    }

    /// Whether one of the [`elements`](Self::elements) is the token, whole and case aside.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let is_it =
            |element: &[u8]| !element.is_empty() && element.eq_ignore_ascii_case(token.as_bytes());
        // Most lists have one element.
        self.all(name)
            .any(|list| is_it(list) || list.split(|&byte| byte == b',').map(trim_blanks).any(is_it))
    }

    pub(super) fn parse(fields: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        let limit = header_limit(limits);
        // No more fields than lines.
        let lines = memchr_iter(b'\n', fields).count();
        let mut headers = Self {
            list: List::with_room(lines.min(limit)),
            count: 0,
        };
        let list = headers.list.as_mut_slice();
        let room = list.len().min(limit);
        let room = list.get_mut(..room).unwrap_or_default();
        let (length, list) = match httparse::parse_headers(fields, room) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            Ok(httparse::Status::Partial) => return Err(HeadError::Truncated),
            Err(error) => return Err(field_error(fields, error)),
        };
        if length != fields.len() {
            return Err(HeadError::BytesAfterHead);
        }
        headers.count = list.len();
        Ok(headers)
    }
}

impl fmt::Debug for Headers<'_> {
    /// Shows the names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

/// How often a field that may come once is there.
pub(crate) enum Only<'a> {
    Missing,
    One(&'a [u8]),
    Several,
}

/// Fields that are listed without an allocation: more than browsers send.
const FEW_HEADERS: usize = 24;
