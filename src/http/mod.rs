//! HTTP/1.1 heads and bodies without I/O.
//!
//! [`head`] finds, parses and checks request and response heads, [`body`] decodes the bodies that
//! follow them, [`client`] is the client's half, and this module writes short responses. Everything takes bytes and gives bytes or
//! values; every decoder gives the same items for any split of the same bytes.
//!
//! The rules are RFC 9110 and RFC 9112, read strictly wherever two readers of the same bytes could
//! disagree (line ends, lengths, host), and tolerantly where the RFC asks for it (case, lists).
#![warn(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm
)]

pub mod auth;
pub mod body;
pub mod client;
pub mod conditional;
pub mod date;
pub mod event_stream;
pub mod head;
pub mod mime;
pub mod origin;
pub mod path;
pub mod range;
pub mod response;
mod start_line;

use std::fmt;

use thiserror::Error;

use head::Headers;

/// An owned list of header fields whose names and values are fit to be sent.
///
/// Names keep their case and order; names may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderList {
    fields: Vec<(String, Vec<u8>)>,
}

impl HeaderList {
    /// An empty list.
    pub const fn new() -> Self {
        Self { fields: Vec::new() }
    }

    /// Appends a field.
    ///
    /// # Errors
    /// [`HeaderError`] when the name is not a token (RFC 9110 section 5.6.2) or the value holds a
    /// control character or begins or ends with a blank (section 5.5). Bytes over 0x7f are allowed.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        check_header(&name, &value)?;
        self.fields.push((name, value));
        Ok(())
    }

    /// Appends all fields of another list.
    pub fn extend(&mut self, other: &Self) {
        self.fields.extend_from_slice(&other.fields);
    }

    /// The fields in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The value of the first field of that name, case aside.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl From<&Headers<'_>> for HeaderList {
    /// Copies the fields of a parsed head.
    fn from(headers: &Headers<'_>) -> Self {
        let fields = headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect();
        Self { fields }
    }
}

impl fmt::Debug for HeaderList {
    /// Shows the names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.fields.iter().map(|(name, _)| name))
            .finish()
    }
}

/// A header field that must not be sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("header {name:?}: {problem}")]
#[non_exhaustive]
pub struct HeaderError {
    /// The name of the field, cut to a readable length.
    pub name: String,
    /// What is wrong with it.
    pub problem: HeaderProblem,
}

/// What is wrong with a header field.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The name is empty.
    #[error("the name is empty; give one")]
    EmptyName,
    /// The name is not a token.
    #[error("the name has a byte that no header name may have; use letters, digits and \"-\"")]
    Name,
    /// The value begins or ends with a blank, which the reader would drop.
    #[error("the value begins or ends with a blank; trim it")]
    OuterBlank,
    /// A subprotocol is not a token.
    #[error("the subprotocol is not a token; use letters, digits and \"-._\"")]
    Subprotocol,
    /// The request target is empty or has a byte that needs percent-encoding.
    #[error("the request target is empty or has an unencoded byte; percent-encode it")]
    Target,
    /// The value has CR, LF, NUL or another control character.
    #[error(
        "the value has a line break or another control character, which would end the field; \
         remove or encode it"
    )]
    Value,
}

/// Checks one header field that is to be sent.
///
/// # Errors
/// The same as [`HeaderList::push`].
pub fn check_header(name: &str, value: &[u8]) -> Result<(), HeaderError> {
    let problem = if name.is_empty() {
        HeaderProblem::EmptyName
    } else if !is_token(name.as_bytes()) {
        HeaderProblem::Name
    } else if !is_field_value(value) {
        HeaderProblem::Value
    } else if trim_blanks(value).len() != value.len() {
        HeaderProblem::OuterBlank
    } else {
        return Ok(());
    };
    Err(HeaderError {
        name: excerpt(name.as_bytes()),
        problem,
    })
}

/// Appends a whole final response with its body, after which the connection is to be closed:
/// `Content-Length` and `Connection: close` are written here.
///
/// A field that [`check_header`] refuses is left out, so that no caller can be made to split the
/// response. A status outside 200..=599 becomes 500: only a final response can end a connection.
pub fn write_response<N, V>(
    out: &mut Vec<u8>,
    status: u16,
    headers: impl IntoIterator<Item = (N, V)>,
    body: &[u8],
) where
    N: AsRef<str>,
    V: AsRef<[u8]>,
{
    let status = if (200..600).contains(&status) {
        status
    } else {
        500
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    write_headers(out, headers);
    let has_body = !matches!(status, 204 | 304);
    if has_body {
        write_field(out, "Content-Length", body.len().to_string().as_bytes());
    }
    write_field(out, "Connection", b"close");
    out.extend_from_slice(b"\r\n");
    if has_body {
        out.extend_from_slice(body);
    }
}

/// The reason phrase of a status code (RFC 9110 section 15), empty for an unknown one.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// Whether the bytes are a token (RFC 9110 section 5.6.2): a method, a header name, a subprotocol.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// Whether the bytes may stand in a header value: no control character but the tab
/// (RFC 9110 section 5.5).
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}

/// The first bytes of what a peer or a caller gave, printable, for an error text.
pub fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

/// Appends fields, leaving out what must not be sent.
pub(crate) fn write_headers<N, V>(out: &mut Vec<u8>, headers: impl IntoIterator<Item = (N, V)>)
where
    N: AsRef<str>,
    V: AsRef<[u8]>,
{
    for (name, value) in headers {
        let (name, value) = (name.as_ref(), value.as_ref());
        if is_token(name.as_bytes()) && is_field_value(value) {
            write_field(out, name, value);
        }
    }
}

/// Appends one field that is known to be fit to be sent.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether the byte may stand in a token.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// The bytes without the blanks (OWS, RFC 9110 section 5.6.3) around them.
pub(crate) fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Bytes of foreign input that an error text shows.
const EXCERPT_BYTES: usize = 64;

#[cfg(test)]
pub(crate) mod test_support {
    /// A xorshift generator; its `Debug` form is the seed to replay from.
    #[derive(Debug)]
    pub(crate) struct Rng(u64);

    impl Rng {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed)
        }

        /// A number below `bound`, which is not 0.
        pub(crate) fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound as u64).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, value: &[u8]) -> Option<HeaderProblem> {
        HeaderList::new()
            .push(name, value)
            .err()
            .map(|error| error.problem)
    }

    #[test]
    fn hc_14_ht_25_fields_that_would_split_a_message_are_refused() {
        assert_eq!(problem("X-A", b"a\r\nb: c"), Some(HeaderProblem::Value));
        assert_eq!(problem("X-A", b"a\nb"), Some(HeaderProblem::Value));
        assert_eq!(problem("X-A", b"a\0b"), Some(HeaderProblem::Value));
        assert_eq!(problem("X-A", b"a\x7fb"), Some(HeaderProblem::Value));
        assert_eq!(problem("X A", b"a"), Some(HeaderProblem::Name));
        assert_eq!(problem("X:", b"a"), Some(HeaderProblem::Name));
        assert_eq!(problem("X\r\n", b"a"), Some(HeaderProblem::Name));
        assert_eq!(problem("N\u{e4}me", b"a"), Some(HeaderProblem::Name));
        assert_eq!(problem("", b"a"), Some(HeaderProblem::EmptyName));
        assert_eq!(problem("X-A", b" a"), Some(HeaderProblem::OuterBlank));
        assert_eq!(problem("X-A", b"a\t"), Some(HeaderProblem::OuterBlank));
        assert_eq!(problem("X-A", b"a \t b \xe9\xff"), None);
        assert_eq!(problem("X-A", b""), None);
    }

    #[test]
    fn a_header_error_names_the_field_and_what_to_do() {
        let error = HeaderList::new().push("X-A", "a\r\n").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("\"X-A\"") && text.contains("remove or encode"),
            "{text}"
        );
    }

    #[test]
    fn a_response_is_written_with_its_length_and_its_end() {
        let mut out = Vec::new();
        write_response(&mut out, 403, [("X-Why", "no")], b"go away\n");
        let expected = "HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 8\r\n\
            Connection: close\r\n\r\ngo away\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_response_never_carries_a_split_field_or_an_interim_status() {
        let mut out = Vec::new();
        write_response(
            &mut out,
            101,
            [("X", "a\r\nSet-Cookie: b"), ("Y Z", "c")],
            b"",
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(
            !text.contains("Set-Cookie") && !text.contains("Y Z"),
            "{text}"
        );
    }

    #[test]
    fn a_response_that_has_no_body_declares_none() {
        let mut out = Vec::new();
        write_response(&mut out, 204, [("", ""); 0], b"x");
        assert!(!String::from_utf8(out).unwrap().contains("Content-Length"));
    }

    #[test]
    fn an_excerpt_is_short_and_printable() {
        assert_eq!(excerpt(b"a\r\n\xff\"\x1b"), "a\\r\\n\\xff\\\"\\x1b");
        assert_eq!(excerpt(&[b'x'; 100]), format!("{}...", "x".repeat(64)));
    }

    #[test]
    fn every_status_that_is_given_a_name_has_that_of_its_rfc() {
        for (status, phrase) in [
            (100, "Continue"),
            (101, "Switching Protocols"),
            (200, "OK"),
            (202, "Accepted"),
            (303, "See Other"),
            (307, "Temporary Redirect"),
            (308, "Permanent Redirect"),
            (406, "Not Acceptable"),
            (409, "Conflict"),
            (411, "Length Required"),
            (413, "Content Too Large"),
            (415, "Unsupported Media Type"),
            (421, "Misdirected Request"),
            (422, "Unprocessable Content"),
            (425, "Too Early"),
            (428, "Precondition Required"),
            (429, "Too Many Requests"),
            (431, "Request Header Fields Too Large"),
            (451, "Unavailable For Legal Reasons"),
            (511, "Network Authentication Required"),
            (299, ""),
            (999, ""),
        ] {
            assert_eq!(reason_phrase(status), phrase, "{status}");
        }
    }

    #[test]
    fn a_list_knows_how_many_fields_it_has() {
        let mut list = HeaderList::new();
        assert!(list.is_empty());
        list.push("X-A", "1").unwrap();
        list.push("X-A", "2").unwrap();
        assert_eq!((list.len(), list.is_empty()), (2, false));
    }
}
