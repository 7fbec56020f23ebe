//! Request and response heads: where they end, what they say, and everything that is wrong with them.
//!
//! [`HeadScanner`] watches the bytes of one head arrive, refuses what can never become one as early
//! as it shows, and says where the head ends. [`RequestHead`] and [`ResponseHead`] parse the
//! complete head; they keep no copy, and allocate nothing but the list of more than 24 fields.

mod fields;

use std::fmt;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr3};
use thiserror::Error;

pub use self::fields::Headers;
pub(crate) use self::fields::Only;
use super::start_line::{Authority, RequestLine, START_LINE_REST, StatusLine};
use super::{is_token, is_token_byte, trim_blanks};

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadLimits {
    /// Bytes of the whole head with its empty line. Default 16384.
    pub bytes: usize,
    /// Header fields. Default 100; more than [`MAX_HEADERS`] counts as [`MAX_HEADERS`].
    pub headers: usize,
    /// Bytes of the request target. Default 8192.
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            bytes: 16_384,
            headers: 100,
            target: 8192,
        }
    }
}

/// Finds the end of a head in bytes that arrive in any pieces.
///
/// One per head; it remembers how far it looked, so a head that comes byte by byte costs as much as
/// one that comes whole. The same bytes give the same answer in every split.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    kind: Kind,
    /// Everything before this offset has been looked at.
    looked: usize,
    /// Where the current line begins.
    line: usize,
    /// Lines seen, the start line included.
    lines: usize,
}

impl HeadScanner {
    /// A scanner for a request head; the same as the default.
    pub fn request() -> Self {
        Self::default()
    }

    /// A scanner for a response head.
    pub fn response() -> Self {
        Self {
            kind: Kind::Response,
            ..Self::default()
        }
    }

    /// Looks at the bytes not looked at before and returns the length of the head, its empty line
    /// included, once it is complete. `bytes` are all bytes since the head's start; what follows the
    /// head is not looked at.
    ///
    /// # Errors
    /// The first thing, in the order of the bytes, that no head may contain. The scanner must not be
    /// used afterwards.
    pub fn scan(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
        let mut start_line = 0..0;
        let found = self.scan_lines(bytes, limits, &mut start_line);
        self.judge(start_line, bytes, limits)?;
        found
    }

    /// The same for who parses the head next: the start line of one that is there is not judged.
    pub(crate) fn scan_to_parse(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        let mut start_line = 0..0;
        let found = self.scan_lines(bytes, limits, &mut start_line);
        if !matches!(found, Ok(Some(_))) {
            self.judge(start_line, bytes, limits)?;
        }
        found
    }

    /// Whatever is wrong with a start line comes before whatever is behind it.
    fn judge(
        &self,
        line: Range<usize>,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<(), HeadError> {
        match (self.kind, bytes.get(line).unwrap_or_default()) {
            (_, []) => Ok(()),
            (Kind::Request, line) => RequestLine::parse(line, limits).map(drop),
            (Kind::Response, line) => StatusLine::parse(line).map(drop),
        }
    }

    /// Puts the start line into its place, if it ends here.
    fn scan_lines(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
        start_line: &mut Range<usize>,
    ) -> Result<Option<usize>, HeadError> {
        let window = bytes.get(..limits.bytes).unwrap_or(bytes);
        loop {
            if self.lines == 0 && !self.sniff(window)? {
                break;
            }
            let unseen = window.get(self.looked..).unwrap_or_default();
            let Some(found) = memchr3(b'\r', b'\n', 0, unseen) else {
                self.looked = window.len();
                self.check_start_line_length(limits)?;
                break;
            };
            self.looked += found;
            self.check_start_line_length(limits)?;
            match unseen.get(found..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    if let Some(length) = self.line_ended(limits, start_line)? {
                        return Ok(Some(length));
                    }
                }
                [b'\r'] => break,
                [b'\r', ..] => return Err(HeadError::BareCr),
                [b'\n', ..] => return Err(HeadError::BareLf),
                _ => return Err(HeadError::Nul),
            }
        }
        if bytes.len() >= limits.bytes {
            return Err(HeadError::TooLong);
        }
        Ok(None)
    }

    /// Judges the first bytes of the start line; whether there are enough of them.
    fn sniff(&self, window: &[u8]) -> Result<bool, HeadError> {
        let start = window.get(self.line..).unwrap_or_default();
        let Some(&first) = start.first() else {
            return Ok(true);
        };
        match self.kind {
            Kind::Request if first == b'\r' || first == b'\n' => Ok(true),
            Kind::Request if !is_token_byte(first) => {
                // The signature of PROXY protocol version 2 begins with two empty lines and a NUL.
                let is_proxy = first == 0 && self.line == 4;
                Err(HeadError::NotHttp(if is_proxy {
                    Guess::ProxyProtocol
                } else {
                    Guess::of(first)
                }))
            }
            Kind::Request if start.starts_with(b"PRI * HTTP/2.0") => Err(HeadError::Http2Preface),
            Kind::Request if start.starts_with(b"PROXY TCP") => {
                Err(HeadError::NotHttp(Guess::ProxyProtocol))
            }
            Kind::Request => Ok(true),
            // RFC 9113 section 3.4: a server begins with a SETTINGS frame, whose length comes first.
            Kind::Response if matches!(start, [0] | [0, 0] | [0, 0, _]) => Ok(false),
            Kind::Response if matches!(start, [0, 0, _, 4, ..]) => {
                Err(HeadError::NotHttp(Guess::Http2))
            }
            Kind::Response => match start.iter().zip(b"HTTP/1.").position(|(a, b)| a != b) {
                None => Ok(true),
                Some(0..5) => Err(HeadError::NotHttp(Guess::of(first))),
                Some(_) => Err(HeadError::UnsupportedVersion),
            },
        }
    }

    /// Refuses a start line that is too long even before its end is here.
    fn check_start_line_length(&self, limits: &HeadLimits) -> Result<(), HeadError> {
        let longest = limits.target.saturating_add(START_LINE_REST);
        if self.lines > 0 || self.looked - self.line <= longest {
            return Ok(());
        }
        Err(match self.kind {
            Kind::Request => HeadError::TargetTooLong,
            Kind::Response => HeadError::BadStatusLine,
        })
    }

    /// Takes the line that ends where the scanner looks; the head's length when it was the last one.
    fn line_ended(
        &mut self,
        limits: &HeadLimits,
        start_line: &mut Range<usize>,
    ) -> Result<Option<usize>, HeadError> {
        let line = self.line..self.looked;
        self.looked += 2;
        self.line = self.looked;
        match (self.lines, line.is_empty()) {
            (0, true) if self.looked > 2 * MAX_LEADING_EMPTY_LINES => {
                return Err(HeadError::LeadingEmptyLines);
            }
            (0, true) => return Ok(None),
            (0, false) => *start_line = line,
            (_, true) => return Ok(Some(self.looked)),
            (seen, false) if seen > header_limit(limits) => return Err(HeadError::TooManyHeaders),
            (_, false) => {}
        }
        self.lines += 1;
        Ok(None)
    }
}

/// Which start line is expected.
#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    #[default]
    Request,
    Response,
}

/// A parsed and checked request head. Borrows the bytes it was parsed from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    line: RequestLine<'a>,
    host: Option<Authority<'a>>,
    headers: Headers<'a>,
}

impl<'a> RequestHead<'a> {
    /// Parses one complete head: the bytes up to and including the empty line, no more.
    ///
    /// # Errors
    /// One [`HeadError`] per rule of RFC 9112 that the head breaks, or per limit that it exceeds.
    pub fn parse(head: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        let (line, fields) = split_head(skip_empty_lines(head)?, head.len(), limits)?;
        let line = RequestLine::parse(line, limits)?;
        let headers = Headers::parse(fields, limits)?;
        let host = effective_host(&line, &headers)?;
        Ok(Self {
            line,
            host,
            headers,
        })
    }

    /// The method, as sent; methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.line.method
    }

    /// The request target, as sent.
    pub fn target(&self) -> &'a str {
        self.line.target
    }

    /// The path of the target, percent-encoded as sent; `/` when an absolute target has none, `*`
    /// for the asterisk form, empty for the authority form of `CONNECT`.
    pub fn path(&self) -> &'a str {
        self.line.path
    }

    /// The query of the target without its question mark.
    pub fn query(&self) -> Option<&'a str> {
        self.line.query
    }

    /// The authority of an absolute or authority target, as sent.
    pub fn authority(&self) -> Option<&'a str> {
        self.line.authority
    }

    /// The host that the request is for, without port: of the target when that is absolute, else of
    /// the `Host` field (RFC 9112 section 3.2.2). IPv6 literals keep their brackets. `None` only for
    /// HTTP/1.0, which need not say.
    pub fn host(&self) -> Option<&'a str> {
        self.host.map(|authority| authority.host)
    }

    /// The port given with [`host`](Self::host).
    pub fn port(&self) -> Option<u16> {
        self.host.and_then(|authority| authority.port)
    }

    /// The protocol version.
    pub fn version(&self) -> HttpVersion {
        self.line.version
    }

    /// All header fields.
    pub fn fields(&self) -> &Headers<'a> {
        &self.headers
    }

    /// Names and values in the order of the head; values without the blanks around them.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter()
    }

    /// The value of the first field of that name, case aside.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.first(name)
    }

    /// The values of all fields of that name, case aside.
    pub fn header_values<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a [u8]> + use<'_, 'a, 'n> {
        self.headers.all(name)
    }

    /// The value of the first field of that name when it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.headers.first_str(name)
    }

    /// Whether the comma-separated lists of that name have the token, case aside; see
    /// [`Headers::has_token`].
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers.has_token(name, token)
    }
}

/// A parsed and checked response head. Borrows the bytes it was parsed from.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    line: StatusLine<'a>,
    headers: Headers<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Parses one complete head: the bytes up to and including the empty line, no more.
    ///
    /// # Errors
    /// One [`HeadError`] per rule of RFC 9112 that the head breaks, or per limit that it exceeds.
    pub fn parse(head: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        let (line, fields) = split_head(head, head.len(), limits)?;
        let line = StatusLine::parse(line)?;
        let headers = Headers::parse(fields, limits)?;
        Ok(Self { line, headers })
    }

    /// The status code, 100 to 599.
    pub fn status(&self) -> u16 {
        self.line.status
    }

    /// The reason phrase when it is UTF-8, else empty.
    pub fn reason(&self) -> &'a str {
        self.line.reason
    }

    /// The protocol version.
    pub fn version(&self) -> HttpVersion {
        self.line.version
    }

    /// All header fields.
    pub fn fields(&self) -> &Headers<'a> {
        &self.headers
    }

    /// Names and values in the order of the head; values without the blanks around them.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter()
    }

    /// The value of the first field of that name, case aside.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.first(name)
    }

    /// The values of all fields of that name, case aside.
    pub fn header_values<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a [u8]> + use<'_, 'a, 'n> {
        self.headers.all(name)
    }

    /// The value of the first field of that name when it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.headers.first_str(name)
    }

    /// Whether the comma-separated lists of that name have the token, case aside; see
    /// [`Headers::has_token`].
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers.has_token(name, token)
    }
}

/// An HTTP/1 protocol version. A minor version over 1 is read as 1.1 (RFC 9110 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "HTTP/1 has no third version")]
pub enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl HttpVersion {
    /// `None` when the bytes are no version at all.
    pub(super) fn parse(bytes: &[u8]) -> Option<Result<Self, HeadError>> {
        match bytes {
            b"HTTP/1.0" => Some(Ok(Self::Http10)),
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Some(Ok(Self::Http11)),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Some(Err(HeadError::UnsupportedVersion))
            }
            _ => None,
        }
    }
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// A header name has a byte that is not of a token.
    #[error("a header name has a byte that no token may have")]
    BadHeaderName,
    /// A header value has a control character.
    #[error("a header value has a control character")]
    BadHeaderValue,
    /// The host is not `host [":" port]`: it is empty, or has a user, a path or a bad port.
    #[error("the Host field or the authority of the target is not a host and a port")]
    BadHost,
    /// The method is not a token of at most 32 bytes.
    #[error("the method is not a token of at most 32 bytes")]
    BadMethod,
    /// The request line is not three parts with single spaces between them.
    #[error("the request line is not method, target and version with single spaces between")]
    BadRequestLine,
    /// The status line is not a version, three digits and a reason.
    #[error("the status line is not version, status and reason")]
    BadStatusLine,
    /// The target is none of the forms that the method allows, or has bytes that need encoding.
    #[error("the request target is not a path, a URL or an asterisk, or has unencoded bytes")]
    BadTarget,
    /// The version is not `HTTP/` and two digits.
    #[error("the protocol version is malformed")]
    BadVersion,
    /// A CR without LF.
    #[error("a carriage return stands without a line feed")]
    BareCr,
    /// A LF without CR.
    #[error("a line ends with a line feed alone")]
    BareLf,
    /// More bytes than one head were given to be parsed.
    #[error("bytes follow the head")]
    BytesAfterHead,
    /// A header line begins with its colon.
    #[error("a header line has an empty name")]
    EmptyHeaderName,
    /// The target has a fragment.
    #[error("the request target has a fragment (\"#\"), which is never sent")]
    FragmentInTarget,
    /// The client speaks HTTP/2 without having been asked to.
    #[error("the peer speaks HTTP/2 with prior knowledge, this port speaks HTTP/1.1")]
    Http2Preface,
    /// More empty lines before the request line than are tolerated.
    #[error("more than {MAX_LEADING_EMPTY_LINES} empty lines stand before the request line")]
    LeadingEmptyLines,
    /// A header line has no colon.
    #[error("a header line has no colon")]
    MissingColon,
    /// An HTTP/1.1 request without `Host`.
    #[error("the request has no Host field, which HTTP/1.1 requires")]
    MissingHost,
    /// The first bytes are not of HTTP.
    #[error("the peer does not speak HTTP{0}")]
    NotHttp(Guess),
    /// A NUL.
    #[error("the head has a NUL byte")]
    Nul,
    /// A line that begins with a blank: a folded header, or a blank before the first one.
    #[error("a header line begins with a blank (obsolete line folding)")]
    ObsFold,
    /// More than one `Host` line.
    #[error("the request has more than one Host field")]
    SeveralHosts,
    /// A blank between header name and colon.
    #[error("a header line has a blank before its colon")]
    SpaceBeforeColon,
    /// The target is longer than [`HeadLimits::target`].
    #[error("the request target is longer than is allowed here")]
    TargetTooLong,
    /// The head is longer than [`HeadLimits::bytes`].
    #[error("the head is longer than is allowed here")]
    TooLong,
    /// More header fields than [`HeadLimits::headers`].
    #[error("the head has more fields than are allowed here")]
    TooManyHeaders,
    /// Fewer bytes than one head were given to be parsed.
    #[error("the head is incomplete")]
    Truncated,
    /// A protocol version other than HTTP/1.
    #[error("the protocol version is not HTTP/1")]
    UnsupportedVersion,
}

impl HeadError {
    /// What this side can do about it, which is not the peer's business.
    pub(crate) const fn advice(&self) -> &'static str {
        if matches!(self, Self::TargetTooLong) {
            "; raise HeadLimits::target to accept it"
        } else if matches!(self, Self::TooLong) {
            "; raise HeadLimits::bytes to accept it"
        } else if matches!(self, Self::TooManyHeaders) {
            "; raise HeadLimits::headers to accept it"
        } else {
            ""
        }
    }

    /// The status of the response that a server gives before it closes the connection.
    pub fn status(&self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::TooLong | Self::TooManyHeaders => 431,
            Self::Http2Preface | Self::UnsupportedVersion => 505,
            Self::BadHeaderName
            | Self::BadHeaderValue
            | Self::BadHost
            | Self::BadMethod
            | Self::BadRequestLine
            | Self::BadStatusLine
            | Self::BadTarget
            | Self::BadVersion
            | Self::BareCr
            | Self::BareLf
            | Self::BytesAfterHead
            | Self::EmptyHeaderName
            | Self::FragmentInTarget
            | Self::LeadingEmptyLines
            | Self::MissingColon
            | Self::MissingHost
            | Self::NotHttp(_)
            | Self::Nul
            | Self::ObsFold
            | Self::SeveralHosts
            | Self::SpaceBeforeColon
            | Self::Truncated => 400,
        }
    }
}

/// What a peer that does not speak HTTP seems to speak, judged by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guess {
    /// HTTP/2 frames.
    Http2,
    /// The PROXY protocol of a load balancer.
    ProxyProtocol,
    /// A SOCKS proxy's client.
    Socks,
    /// SSL 2.0, or a TLS hello in its format.
    Ssl2,
    /// TLS: a handshake or an alert record.
    Tls,
    /// Nothing known.
    Unknown,
}

impl Guess {
    fn of(first: u8) -> Self {
        match first {
            0x04 | 0x05 => Self::Socks,
            0x15 | 0x16 => Self::Tls,
            0x80 => Self::Ssl2,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http2 => "; the bytes look like HTTP/2",
            Self::ProxyProtocol => {
                "; the bytes look like the PROXY protocol: turn it off in the load balancer"
            }
            Self::Socks => "; the bytes look like SOCKS",
            Self::Ssl2 => "; the bytes look like SSL 2.0",
            Self::Tls => "; the bytes look like TLS: the peer speaks TLS on a plain port",
            Self::Unknown => "",
        })
    }
}

/// RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
/// request message that lacks a Host header field and to any request message that contains more than
/// one Host header field line or a Host header field with an invalid field value."
fn effective_host<'a>(
    line: &RequestLine<'a>,
    headers: &Headers<'a>,
) -> Result<Option<Authority<'a>>, HeadError> {
    let field = match headers.only("host") {
        Only::Several => return Err(HeadError::SeveralHosts),
        Only::One(value) => Some(Authority::parse(value)?),
        Only::Missing if line.version == HttpVersion::Http11 => {
            return Err(HeadError::MissingHost);
        }
        Only::Missing => None,
    };
    match line.authority {
        Some(authority) => Authority::parse(authority.as_bytes()).map(Some),
        None => Ok(field),
    }
}

/// RFC 9112 section 2.2: "a server that is expecting to receive and parse a request-line SHOULD
/// ignore at least one empty line (CRLF) received prior to the request-line."
fn skip_empty_lines(mut head: &[u8]) -> Result<&[u8], HeadError> {
    for _ in 0..=MAX_LEADING_EMPTY_LINES {
        match head {
            [b'\r', b'\n', rest @ ..] => head = rest,
            _ => return Ok(head),
        }
    }
    Err(HeadError::LeadingEmptyLines)
}

/// Cuts a head into its start line and the rest, and refuses every LF that has no CR.
fn split_head<'a>(
    head: &'a [u8],
    length: usize,
    limits: &HeadLimits,
) -> Result<(&'a [u8], &'a [u8]), HeadError> {
    if length > limits.bytes {
        return Err(HeadError::TooLong);
    }
    let mut before =
        memchr_iter(b'\n', head).map(|at| at.checked_sub(1).and_then(|at| head.get(at)));
    if before.any(|byte| byte != Some(&b'\r')) {
        return Err(HeadError::BareLf);
    }
    let end = memchr(b'\n', head).ok_or(HeadError::Truncated)?;
    let (line, fields) = head.split_at_checked(end + 1).ok_or(HeadError::Truncated)?;
    let line = line.strip_suffix(b"\r\n").ok_or(HeadError::BareLf)?;
    if memchr(b'\r', line).is_some() {
        return Err(HeadError::BareCr);
    }
    Ok((line, fields))
}

/// Names the rule that the first bad header line breaks.
fn field_error(fields: &[u8], error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::HeaderValue => HeadError::BadHeaderValue,
        httparse::Error::NewLine => HeadError::BareCr,
        httparse::Error::HeaderName
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => fields
            .split(|&byte| byte == b'\n')
            .find_map(name_error)
            .unwrap_or(HeadError::BadHeaderName),
    }
}

/// What is wrong with the name of a header line, if anything.
fn name_error(line: &[u8]) -> Option<HeadError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return None;
    }
    if matches!(line, [b' ' | b'\t', ..]) {
        return Some(HeadError::ObsFold);
    }
    let Some(colon) = memchr(b':', line) else {
        return Some(HeadError::MissingColon);
    };
    let name = line.get(..colon).unwrap_or_default();
    match name {
        [] => Some(HeadError::EmptyHeaderName),
        _ if is_token(name) => None,
        [token @ .., b' ' | b'\t'] if is_token(trim_blanks(token)) => {
            Some(HeadError::SpaceBeforeColon)
        }
        _ => Some(HeadError::BadHeaderName),
    }
}

fn header_limit(limits: &HeadLimits) -> usize {
    limits.headers.min(MAX_HEADERS)
}

/// The most header fields that a head can hold, whatever [`HeadLimits::headers`] says.
pub const MAX_HEADERS: usize = 128;

/// Empty lines tolerated before a request line.
pub const MAX_LEADING_EMPTY_LINES: usize = 4;

#[cfg(test)]
mod tests;
