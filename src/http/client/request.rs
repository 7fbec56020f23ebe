//! What a client says: a head with nothing in it that the caller did not ask for, and a body that
//! is as long as the head says.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use crate::http::{HeaderList, check_header, is_token, write_field, write_headers};

/// A request method: a token (RFC 9110 section 9.1). Methods are case-sensitive.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(Cow<'static, str>);

impl Method {
    /// `DELETE`
    pub const DELETE: Self = Self(Cow::Borrowed("DELETE"));
    /// `GET`
    pub const GET: Self = Self(Cow::Borrowed("GET"));
    /// `HEAD`
    pub const HEAD: Self = Self(Cow::Borrowed("HEAD"));
    /// `OPTIONS`
    pub const OPTIONS: Self = Self(Cow::Borrowed("OPTIONS"));
    /// `PATCH`
    pub const PATCH: Self = Self(Cow::Borrowed("PATCH"));
    /// `POST`
    pub const POST: Self = Self(Cow::Borrowed("POST"));
    /// `PUT`
    pub const PUT: Self = Self(Cow::Borrowed("PUT"));

    /// Any other method.
    ///
    /// # Errors
    /// [`RequestProblem::Method`] when it is not a token of at most 32 bytes;
    /// [`RequestProblem::Connect`] for `CONNECT`, which asks for a tunnel and not for a response.
    pub fn new(name: &str) -> Result<Self, RequestProblem> {
        if name.len() > MAX_METHOD || !is_token(name.as_bytes()) {
            return Err(RequestProblem::Method);
        }
        if name == "CONNECT" {
            return Err(RequestProblem::Connect);
        }
        Ok(Self(Cow::Owned(name.to_owned())))
    }

    /// The method as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.as_str(),
            "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PUT" | "TRACE"
        )
    }

    /// Whether a request without a body says so: the method gives a body a meaning (RFC 9110
    /// section 8.6).
    pub fn expects_body(&self) -> bool {
        matches!(self.as_str(), "PATCH" | "POST" | "PUT")
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a request's body is, as its head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyLength {
    /// Nobody knows yet (`Transfer-Encoding: chunked`).
    Chunked,
    /// So many bytes (`Content-Length`), perhaps 0.
    Known(u64),
    /// There is none, and nothing is said about it.
    #[default]
    None,
}

/// One request head, checked part by part.
#[derive(Clone, Debug)]
#[must_use]
pub struct OutgoingRequest<'a> {
    method: &'a Method,
    target: &'a str,
    host: &'a str,
    headers: Option<&'a HeaderList>,
    body: BodyLength,
    closes: bool,
}

impl<'a> OutgoingRequest<'a> {
    /// A request for a target (path and query, or `*`) of a host, which is sent verbatim in `Host`.
    ///
    /// # Errors
    /// [`RequestProblem`] when the target or the host could not be sent on one line.
    pub fn new(method: &'a Method, target: &'a str, host: &'a str) -> Result<Self, RequestProblem> {
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RequestProblem::Target);
        }
        if host.is_empty() || check_header("Host", host.as_bytes()).is_err() {
            return Err(RequestProblem::Host);
        }
        Ok(Self {
            method,
            target,
            host,
            headers: None,
            body: BodyLength::None,
            closes: false,
        })
    }

    /// Adds the caller's own fields.
    ///
    /// # Errors
    /// [`RequestProblem::Reserved`] for a field that frames the message, see
    /// [`reserved_in_request`].
    pub fn headers(mut self, headers: &'a HeaderList) -> Result<Self, RequestProblem> {
        let reserved = headers
            .iter()
            .find_map(|(name, _)| reserved_in_request(name));
        if let Some(instead) = reserved {
            return Err(RequestProblem::Reserved(instead));
        }
        self.headers = Some(headers);
        Ok(self)
    }

    /// Says how long the body is.
    pub const fn body(mut self, length: BodyLength) -> Self {
        self.body = length;
        self
    }

    /// Says that the connection will not be used again (`Connection: close`).
    pub const fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Appends the head and gives the writer of its body.
    pub fn write(&self, out: &mut Vec<u8>) -> BodyWriter {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(out, "Host", self.host.as_bytes());
        if let Some(headers) = self.headers {
            write_headers(out, headers.iter());
        }
        if self.closes {
            write_field(out, "Connection", b"close");
        }
        match self.body {
            BodyLength::Chunked => write_field(out, "Transfer-Encoding", b"chunked"),
            BodyLength::Known(length) => {
                write_field(out, "Content-Length", length.to_string().as_bytes());
            }
            BodyLength::None => {}
        }
        out.extend_from_slice(b"\r\n");
        BodyWriter::new(self.body)
    }
}

/// Frames the pieces of a request's body as its head said, and never lets it be longer or shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyWriter {
    state: Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    Chunks,
    Nothing,
}

impl BodyWriter {
    /// The writer of no body, or of one that is complete.
    pub const fn none() -> Self {
        Self {
            state: Left::Nothing,
        }
    }

    fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::Chunked => Left::Chunks,
            BodyLength::Known(0) | BodyLength::None => Left::Nothing,
            BodyLength::Known(length) => Left::Bytes(length),
        };
        Self { state }
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// [`BodyWriteError::TooLong`] when the body would be longer than the head says; nothing is
    /// appended then.
    pub fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyWriteError> {
        if piece.is_empty() {
            return Ok(());
        }
        match &mut self.state {
            Left::Bytes(left) => {
                let rest = left.checked_sub(piece.len() as u64);
                let rest = rest.ok_or(BodyWriteError::TooLong)?;
                out.extend_from_slice(piece);
                self.state = match rest {
                    0 => Left::Nothing,
                    rest => Left::Bytes(rest),
                };
                Ok(())
            }
            Left::Chunks => {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            Left::Nothing => Err(BodyWriteError::TooLong),
        }
    }

    /// Appends the end. More calls do nothing.
    ///
    /// # Errors
    /// [`BodyWriteError::TooShort`] when the head promised more.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyWriteError> {
        match self.state {
            Left::Bytes(left) => Err(BodyWriteError::TooShort { left }),
            Left::Chunks => {
                out.extend_from_slice(b"0\r\n\r\n");
                self.state = Left::Nothing;
                Ok(())
            }
            Left::Nothing => Ok(()),
        }
    }

    /// Whether the request is complete.
    pub fn is_done(&self) -> bool {
        self.state == Left::Nothing
    }

    /// The bytes that the head still promises; `None` where it does not say.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            Left::Bytes(left) => Some(left),
            Left::Chunks => None,
            Left::Nothing => Some(0),
        }
    }
}

/// A body that is not as long as the head says.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyWriteError {
    /// Longer.
    #[error("the body is longer than its Content-Length says, or was finished already")]
    TooLong,
    /// Shorter.
    #[error("the body was finished {left} bytes short of its Content-Length")]
    TooShort {
        /// Bytes that are missing.
        left: u64,
    },
}

/// What is wrong with a request that is to be sent; its text says what to do instead.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestProblem {
    /// `CONNECT` asks for a tunnel.
    #[error("CONNECT asks a proxy for a tunnel; it cannot be fetched")]
    Connect,
    /// The host cannot be a header value.
    #[error("the host is empty or has a byte that no header value may have")]
    Host,
    /// The method is not a token of at most 32 bytes.
    #[error("the method is not a token of at most 32 bytes; use letters and \"-\"")]
    Method,
    /// A field that frames the message, and what to do instead.
    #[error("a header is sent by the library: {0}")]
    Reserved(&'static str),
    /// The target has bytes that need percent-encoding.
    #[error("the request target is empty or has an unencoded byte; percent-encode it")]
    Target,
}

/// Why the caller may not set a field in a request, and what to do instead, or `None` when it may.
/// These fields say where the message ends and what becomes of the connection.
pub fn reserved_in_request(name: &str) -> Option<&'static str> {
    RESERVED
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, instead)| *instead)
}

const RESERVED: [(&str, &str); 11] = [
    (
        "Connection",
        "it says what becomes of the connection; leave it out",
    ),
    ("Content-Length", "it follows from the body; leave it out"),
    ("Expect", "the body is sent without waiting; leave it out"),
    ("Host", "call host(..) instead"),
    (
        "HTTP2-Settings",
        "no other protocol is upgraded to; leave it out",
    ),
    (
        "Keep-Alive",
        "it says what becomes of the connection; leave it out",
    ),
    (
        "Proxy-Connection",
        "it says what becomes of the connection; leave it out",
    ),
    ("TE", "only chunked is decoded; leave it out"),
    ("Trailer", "no trailers are sent; leave it out"),
    (
        "Transfer-Encoding",
        "it follows from the body; leave it out",
    ),
    (
        "Upgrade",
        "call client_connect for a WebSocket; leave it out",
    ),
];

/// Bytes of the longest method, as servers allow.
const MAX_METHOD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{BodyDecoder, Framing};
    use crate::http::head::{HeadLimits, RequestHead};

    fn headers(fields: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::new();
        for (name, value) in fields {
            list.push(*name, *value).unwrap();
        }
        list
    }

    fn write(method: &str, length: BodyLength, pieces: &[&[u8]]) -> Vec<u8> {
        let method = Method::new(method).unwrap();
        let request = OutgoingRequest::new(&method, "/a?b", "h:81").unwrap();
        let mut out = Vec::new();
        let mut body = request.body(length).write(&mut out);
        for piece in pieces {
            body.write(piece, &mut out).unwrap();
        }
        body.finish(&mut out).unwrap();
        assert!(body.is_done());
        out
    }

    #[test]
    fn a_request_says_nothing_that_was_not_asked_for() {
        let out = write("GET", BodyLength::None, &[]);
        assert_eq!(out, b"GET /a?b HTTP/1.1\r\nHost: h:81\r\n\r\n");
        let out = write("POST", BodyLength::Known(0), &[]);
        assert!(out.ends_with(b"Host: h:81\r\nContent-Length: 0\r\n\r\n"));
        let list = headers(&[("X-B", "2"), ("x-a", "1"), ("X-B", "3")]);
        let request = OutgoingRequest::new(&Method::GET, "*", "h").unwrap();
        let mut out = Vec::new();
        request.headers(&list).unwrap().closing().write(&mut out);
        let expected = "GET * HTTP/1.1\r\nHost: h\r\nX-B: 2\r\nx-a: 1\r\nX-B: 3\r\n\
            Connection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn ht_25_nothing_that_would_split_a_request_can_be_set() {
        for method in [
            "",
            "G T",
            "GET\r\n",
            "G\0",
            "CONNECT",
            "GÉT",
            &"X".repeat(33),
        ] {
            assert!(Method::new(method).is_err(), "{method:?}");
        }
        for target in ["", "/a b", "/a\r\nX: y", "/\0", "/é", "/a\tb"] {
            let error = OutgoingRequest::new(&Method::GET, target, "h").unwrap_err();
            assert_eq!(error, RequestProblem::Target, "{target:?}");
        }
        for host in ["", "h\r\nX: y", "h\n", " h", "h\0"] {
            let error = OutgoingRequest::new(&Method::GET, "/", host).unwrap_err();
            assert_eq!(error, RequestProblem::Host, "{host:?}");
        }
    }

    #[test]
    fn ht_25_framing_fields_are_the_librarys() {
        for name in [
            "content-length",
            "TRANSFER-ENCODING",
            "Connection",
            "Host",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "HTTP2-Settings",
        ] {
            let list = headers(&[("X-A", "1"), (name, "1")]);
            let request = OutgoingRequest::new(&Method::GET, "/", "h").unwrap();
            let error = request.headers(&list).unwrap_err();
            assert!(matches!(error, RequestProblem::Reserved(_)), "{name}");
        }
        for name in ["Authorization", "Cookie", "Content-Type", "Accept-Encoding"] {
            assert_eq!(reserved_in_request(name), None, "{name}");
        }
    }

    #[test]
    fn a_body_arrives_as_it_was_written() {
        let pieces: [&[u8]; 5] = [b"ab", b"", &[b'x'; 300], b"\r\n0\r\n\r\n", b"z"];
        let whole = pieces.concat();
        for length in [BodyLength::Known(whole.len() as u64), BodyLength::Chunked] {
            let out = write("POST", length, &pieces);
            let end = out.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let head = RequestHead::parse(&out[..end], &HeadLimits::default()).unwrap();
            let mut decoder = BodyDecoder::new(Framing::of_request(&head).unwrap());
            let (mut at, mut body) = (end, Vec::new());
            while !decoder.is_done() {
                let decoded = decoder.decode(&out[at..]).unwrap();
                body.extend_from_slice(decoded.data);
                at += decoded.consumed;
            }
            assert_eq!((body.as_slice(), at), (whole.as_slice(), out.len()));
        }
    }

    #[test]
    fn a_body_is_never_longer_or_shorter_than_the_head_says() {
        let mut out = Vec::new();
        let mut body = BodyWriter::new(BodyLength::Known(3));
        body.write(b"ab", &mut out).unwrap();
        assert_eq!(
            body.finish(&mut out),
            Err(BodyWriteError::TooShort { left: 1 })
        );
        assert_eq!(body.write(b"cd", &mut out), Err(BodyWriteError::TooLong));
        assert_eq!(body.left(), Some(1));
        body.write(b"c", &mut out).unwrap();
        assert_eq!(body.finish(&mut out), Ok(()));
        assert_eq!(body.write(b"d", &mut out), Err(BodyWriteError::TooLong));
        assert_eq!(out, b"abc");
        for length in [BodyLength::None, BodyLength::Known(0)] {
            let mut none = BodyWriter::new(length);
            assert_eq!(none.write(b"x", &mut out), Err(BodyWriteError::TooLong));
            assert_eq!(none.finish(&mut out), Ok(()));
        }
        let mut chunked = BodyWriter::new(BodyLength::Chunked);
        out.clear();
        chunked.write(b"", &mut out).unwrap();
        assert!(out.is_empty(), "an empty chunk would end the body");
        chunked.finish(&mut out).unwrap();
        chunked.finish(&mut out).unwrap();
        assert_eq!(out, b"0\r\n\r\n");
        assert_eq!(chunked.write(b"x", &mut out), Err(BodyWriteError::TooLong));
    }

    #[test]
    fn only_methods_that_may_be_sent_twice_are_idempotent() {
        for name in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            assert!(Method::new(name).unwrap().is_idempotent(), "{name}");
        }
        for name in ["POST", "PATCH", "get", "LOCK", "X"] {
            assert!(!Method::new(name).unwrap().is_idempotent(), "{name}");
        }
    }

    #[test]
    fn a_writer_says_how_much_is_missing() {
        let mut out = Vec::new();
        for (length, begun, ended) in [
            (BodyLength::Known(5), Some(5), Some(2)),
            (BodyLength::Chunked, None, None),
            (BodyLength::None, Some(0), Some(0)),
        ] {
            let mut writer = BodyWriter::new(length);
            assert_eq!(writer.left(), begun);
            if length != BodyLength::None {
                writer.write(b"abc", &mut out).unwrap();
            }
            assert_eq!(writer.left(), ended, "{length:?}");
        }
    }

    #[test]
    fn a_method_is_shown_as_it_is_sent() {
        assert_eq!(format!("{} {:?}", Method::PATCH, Method::GET), "PATCH GET");
    }
}
