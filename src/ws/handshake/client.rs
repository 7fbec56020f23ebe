//! The client's half: what it says, and what it takes for an answer.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::{PROTOCOL, accept_key, reserved};
use crate::http::body::{BodyDecoder, Framing};
use crate::http::head::{
    Guess, HeadError, HeadLimits, HeadScanner, HttpVersion, Only, ResponseHead,
};
use crate::http::{
    HeaderError, HeaderList, HeaderProblem, check_header, excerpt, is_token, write_field,
    write_headers,
};
#[cfg(feature = "deflate")]
use crate::ws::deflate::{DeflateConfig, DeflateParams, ExtensionError, check_answer};

/// What a client says when it asks for an upgrade.
#[derive(Clone, Debug)]
pub struct ClientRequest<'a> {
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) origin: Option<&'a str>,
    pub(crate) subprotocols: &'a [String],
    pub(crate) extensions: Option<&'a str>,
    pub(crate) headers: Option<&'a HeaderList>,
}

impl<'a> ClientRequest<'a> {
    /// A request for a target (path and query) of a host, which is sent verbatim in `Host`.
    ///
    /// # Errors
    /// [`HeaderError`] when the host or the target could not be sent on one line.
    pub fn new(host: &'a str, target: &'a str) -> Result<Self, HeaderError> {
        check_header("Host", host.as_bytes())?;
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            let name = excerpt(target.as_bytes());
            return Err(HeaderError {
                name,
                problem: HeaderProblem::Target,
            });
        }
        Ok(Self {
            host,
            target,
            origin: None,
            subprotocols: &[],
            extensions: None,
            headers: None,
        })
    }

    /// Sends an `Origin`.
    ///
    /// # Errors
    /// [`HeaderError`] when it is not fit to be a header value.
    pub fn origin(mut self, origin: &'a str) -> Result<Self, HeaderError> {
        check_header("Origin", origin.as_bytes())?;
        self.origin = Some(origin);
        Ok(self)
    }

    /// Offers subprotocols in order of preference.
    ///
    /// # Errors
    /// [`HeaderError`] when one is not a token.
    pub fn subprotocols(mut self, names: &'a [String]) -> Result<Self, HeaderError> {
        if let Some(bad) = names.iter().find(|name| !is_token(name.as_bytes())) {
            let name = excerpt(bad.as_bytes());
            return Err(HeaderError {
                name,
                problem: HeaderProblem::Subprotocol,
            });
        }
        self.subprotocols = names;
        Ok(self)
    }

    /// Offers permessage-deflate; [`check_response_with`] judges the answer.
    ///
    /// # Errors
    /// [`HeaderError`] when it is not a value that [`offer`](crate::ws::deflate::offer) makes.
    #[cfg(feature = "deflate")]
    pub fn extensions(mut self, offer: &'a str) -> Result<Self, HeaderError> {
        check_header("Sec-WebSocket-Extensions", offer.as_bytes())?;
        self.extensions = Some(offer);
        Ok(self)
    }

    /// Adds the application's own fields; those that [`reserved_in_request`] names are left out.
    pub fn headers(mut self, headers: &'a HeaderList) -> Self {
        self.headers = Some(headers);
        self
    }

    /// Appends the request and returns its key, which [`check_response`] needs. The nonce must be
    /// random and new for each connection (RFC 6455 section 4.1).
    pub fn write(&self, out: &mut Vec<u8>, nonce: [u8; 16]) -> [u8; 24] {
        let mut key = [0; 24];
        STANDARD
            .encode_slice(nonce, &mut key)
            .expect("16 bytes are 24 in base64");
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(out, "Host", self.host.as_bytes());
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
        write_field(out, "Sec-WebSocket-Key", &key);
        out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n");
        if let Some(origin) = self.origin {
            write_field(out, "Origin", origin.as_bytes());
        }
        if !self.subprotocols.is_empty() {
            write_field(
                out,
                "Sec-WebSocket-Protocol",
                self.subprotocols.join(", ").as_bytes(),
            );
        }
        if let Some(extensions) = self.extensions {
            write_field(out, "Sec-WebSocket-Extensions", extensions.as_bytes());
        }
        let own = self.headers.into_iter().flat_map(HeaderList::iter);
        write_headers(
            out,
            own.filter(|(name, _)| reserved_in_request(name).is_none()),
        );
        out.extend_from_slice(b"\r\n");
        key
    }
}

/// Finds the final response to an upgrade request in bytes that arrive in any pieces, and skips the
/// interim ones (RFC 9110 section 15.2) before it.
#[derive(Clone, Debug)]
pub struct ResponseScanner {
    head: HeadScanner,
    /// Where the current head begins.
    start: usize,
    interim: usize,
}

impl Default for ResponseScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseScanner {
    /// A scanner for the response to one request.
    pub fn new() -> Self {
        Self {
            head: HeadScanner::response(),
            start: 0,
            interim: 0,
        }
    }

    /// Looks at the bytes not looked at before and returns where the final head lies once it is
    /// complete; give that range to [`ResponseHead::parse`]. `bytes` are all bytes since the request
    /// was sent; those after the range are frames, or the body of a refusal.
    ///
    /// # Errors
    /// [`ResponseError::NotHttp`], [`ResponseError::Head`], or
    /// [`ResponseError::TooManyInterim`]. [`HeadLimits::bytes`] bounds all heads together.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<Range<usize>>, ResponseError> {
        loop {
            let mut left = *limits;
            left.bytes = limits.bytes.saturating_sub(self.start);
            let current = bytes.get(self.start..).unwrap_or_default();
            let length = match self.head.scan(current, &left) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(None),
                Err(error) => return Err(ResponseError::of_head(error, current)),
            };
            let range = self.start..self.start + length;
            let head = current.get(..length).unwrap_or_default();
            let status = ResponseHead::parse(head, limits)?.status();
            if !matches!(status, 100 | 102..=199) {
                return Ok(Some(range));
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(ResponseError::TooManyInterim);
            }
            self.start = range.end;
            self.head = HeadScanner::response();
        }
    }
}

/// Checks the final response to an upgrade request (RFC 6455 section 4.1) and returns the
/// subprotocol that the server chose, if any.
///
/// # Errors
/// [`ResponseError::Refused`] for any status but 101, whose body a [`RefusalCollector`] keeps; else
/// the first rule that the response breaks.
pub fn check_response<'a>(
    head: &ResponseHead<'a>,
    key: &[u8; 24],
    offered: &[String],
) -> Result<Option<&'a str>, ResponseError> {
    check_upgrade(head, key)?;
    if let Some(extension) = head.fields().elements(EXTENSIONS).next() {
        return Err(ResponseError::Extension {
            extension: excerpt(extension),
        });
    }
    chosen_subprotocol(head, offered)
}

/// What a server's response agrees to.
#[cfg(feature = "deflate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Welcome<'a> {
    /// The subprotocol that it chose.
    pub subprotocol: Option<&'a str>,
    /// What permessage-deflate comes to, if it accepted that.
    pub deflate: Option<DeflateParams>,
}

/// As [`check_response`], for a request that offered permessage-deflate with that configuration.
///
/// # Errors
/// As [`check_response`], and [`ResponseError::Deflate`] for an answer to something else.
#[cfg(feature = "deflate")]
pub fn check_response_with<'a>(
    head: &ResponseHead<'a>,
    key: &[u8; 24],
    offered: &[String],
    deflate: Option<&DeflateConfig>,
) -> Result<Welcome<'a>, ResponseError> {
    let Some(config) = deflate else {
        let subprotocol = check_response(head, key, offered)?;
        return Ok(Welcome {
            subprotocol,
            deflate: None,
        });
    };
    check_upgrade(head, key)?;
    let deflate = match check_answer(head.fields().all(EXTENSIONS), config) {
        Ok(deflate) => deflate,
        Err(ExtensionError::NotOffered(extension)) => {
            return Err(ResponseError::Extension { extension });
        }
        Err(error) => return Err(ResponseError::Deflate(error)),
    };
    let subprotocol = chosen_subprotocol(head, offered)?;
    Ok(Welcome {
        subprotocol,
        deflate,
    })
}

/// What does not depend on what was offered.
fn check_upgrade(head: &ResponseHead<'_>, key: &[u8; 24]) -> Result<(), ResponseError> {
    if head.status() != 101 {
        return Err(ResponseError::Refused {
            status: head.status(),
        });
    }
    if head.version() != HttpVersion::Http11 {
        return Err(ResponseError::Http10);
    }
    match head.fields().only("upgrade") {
        Only::One(value) if value.eq_ignore_ascii_case(b"websocket") => {}
        Only::Missing | Only::One(_) | Only::Several => return Err(ResponseError::Upgrade),
    }
    if !head.has_token("connection", "upgrade") {
        return Err(ResponseError::Connection);
    }
    match head.fields().only("sec-websocket-accept") {
        Only::Missing => return Err(ResponseError::MissingAccept),
        Only::Several => return Err(ResponseError::SeveralAccepts),
        Only::One(value) if value == accept_key(key) => {}
        Only::One(_) => return Err(ResponseError::WrongAccept),
    }
    Ok(())
}

/// Why a response does not open a WebSocket connection.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// `Connection` does not list `upgrade`.
    #[error("the 101 response has no \"Connection: Upgrade\"")]
    Connection,
    /// An answer to the offer of permessage-deflate that is none.
    #[cfg(feature = "deflate")]
    #[error("the server's answer about compression is wrong: {0}")]
    Deflate(#[from] ExtensionError),
    /// An extension that was not offered.
    #[error("the server turned on the extension \"{extension}\", which was not offered")]
    Extension {
        /// What the server named, cut to a readable length.
        extension: String,
    },
    /// The response is not HTTP as it should be.
    #[error("the response head is bad: {0}")]
    Head(#[from] HeadError),
    /// A 101 in HTTP/1.0, which has no upgrade.
    #[error("the 101 response is HTTP/1.0")]
    Http10,
    /// `Sec-WebSocket-Accept` is missing.
    #[error("the 101 response has no Sec-WebSocket-Accept: the peer may not be a WebSocket server")]
    MissingAccept,
    /// The peer speaks something else.
    #[error("the peer does not speak HTTP{guess}; it sent \"{excerpt}\"")]
    NotHttp {
        /// What it seems to speak.
        guess: Guess,
        /// The first bytes received so far, printable.
        excerpt: String,
    },
    /// A final response other than 101.
    #[error("the server refused the upgrade with status {status}")]
    Refused {
        /// The status.
        status: u16,
    },
    /// More than one `Sec-WebSocket-Accept`.
    #[error("the 101 response has more than one Sec-WebSocket-Accept")]
    SeveralAccepts,
    /// More than one subprotocol.
    #[error("the server chose more than one subprotocol")]
    SeveralSubprotocols,
    /// A subprotocol that was not offered.
    #[error("the server chose the subprotocol \"{subprotocol}\", which was not offered")]
    Subprotocol {
        /// What the server named, cut to a readable length.
        subprotocol: String,
    },
    /// More interim responses than are tolerated.
    #[error("more than {MAX_INTERIM} interim responses came before the final one")]
    TooManyInterim,
    /// `Upgrade` is missing or names another protocol.
    #[error("the 101 response does not upgrade to \"websocket\"")]
    Upgrade,
    /// `Sec-WebSocket-Accept` does not answer the key that was sent.
    #[error("Sec-WebSocket-Accept does not answer our key: a cache or another server answered")]
    WrongAccept,
}

impl ResponseError {
    fn of_head(error: HeadError, bytes: &[u8]) -> Self {
        if let HeadError::NotHttp(guess) = error {
            return Self::NotHttp {
                guess,
                excerpt: excerpt(bytes),
            };
        }
        Self::Head(error)
    }
}

/// What a server said when it refused an upgrade.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: String,
    /// The header fields.
    pub headers: HeaderList,
    /// The first part of the body.
    pub body: Vec<u8>,
    /// Whether the body was longer than was kept, cut short, or not decodable.
    pub truncated: bool,
}

impl Refusal {
    /// The first line of the body that has something in it, cut to a readable length.
    fn first_line(&self) -> Option<String> {
        let mut lines = self.body.split(|byte| matches!(byte, b'\r' | b'\n'));
        let line = lines.find(|line| !line.trim_ascii().is_empty())?;
        let text = String::from_utf8_lossy(line.trim_ascii());
        Some(text.chars().filter(|c| !c.is_control()).take(120).collect())
    }
}

/// Status and reason, where a redirect leads, and the first line of the body.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        if let (300..=399, Some(to)) = (self.status, self.headers.get("location")) {
            write!(f, " to {}", excerpt(to))?;
        }
        match self.first_line() {
            Some(line) => write!(f, ": {line}"),
            None => Ok(()),
        }
    }
}

/// The body as text.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("reason", &self.reason)
            .field("headers", &self.headers)
            .field("body", &String::from_utf8_lossy(&self.body))
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// Collects the first part of the body of a response that refused the upgrade.
#[derive(Debug)]
pub struct RefusalCollector {
    refusal: Refusal,
    decoder: BodyDecoder,
    cap: usize,
    state: Collected,
}

impl RefusalCollector {
    /// Starts with a head; at most `cap` bytes of the body are kept.
    pub fn new(head: &ResponseHead<'_>, cap: usize) -> Self {
        let refusal = Refusal {
            status: head.status(),
            reason: head.reason().to_owned(),
            headers: HeaderList::from(head.fields()),
            body: Vec::new(),
            truncated: false,
        };
        let (decoder, state) = match Framing::of_response(head) {
            Ok(framing) => {
                let decoder = BodyDecoder::new(framing);
                let state = if decoder.is_done() {
                    Collected::Whole
                } else {
                    Collected::Part
                };
                (decoder, state)
            }
            Err(_) => (BodyDecoder::new(Framing::Length(0)), Collected::Cut),
        };
        Self {
            refusal,
            decoder,
            cap,
            state,
        }
    }

    /// Takes bytes that follow the head, and says whether nothing more is wanted: the body is
    /// complete, the cap is reached, or the body cannot be decoded.
    pub fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.state == Collected::Part && !bytes.is_empty() {
            let Ok(decoded) = self.decoder.decode(bytes) else {
                self.state = Collected::Cut;
                break;
            };
            let room = self.cap - self.refusal.body.len();
            match decoded.data.get(..room) {
                Some(kept) if kept.len() < decoded.data.len() => {
                    self.refusal.body.extend_from_slice(kept);
                    self.state = Collected::Cut;
                }
                _ => self.refusal.body.extend_from_slice(decoded.data),
            }
            if decoded.done && self.state == Collected::Part {
                self.state = Collected::Whole;
            }
            bytes = bytes.get(decoded.consumed..).unwrap_or_default();
        }
        self.is_done()
    }

    /// Whether nothing more is wanted.
    pub fn is_done(&self) -> bool {
        self.state != Collected::Part
    }

    /// Ends because the connection did, which is how some bodies end.
    pub fn finish_at_eof(mut self) -> Refusal {
        if self.state == Collected::Part && self.decoder.end().is_ok() {
            self.state = Collected::Whole;
        }
        self.finish()
    }

    /// Ends with what is there: because nothing more is wanted, or a deadline passed.
    pub fn finish(mut self) -> Refusal {
        self.refusal.truncated = self.state != Collected::Whole;
        self.refusal
    }
}

/// How much of a refusal's body is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Collected {
    Cut,
    Part,
    Whole,
}

/// Why the application may not set a field in its upgrade request, and what to call instead, or
/// `None` when it may.
pub fn reserved_in_request(name: &str) -> Option<&'static str> {
    reserved(
        name,
        &[
            ("Connection", "the library sends it; leave it out"),
            (
                "Content-Length",
                "an upgrade request has no body; leave it out",
            ),
            ("Host", "call host(..) instead"),
            ("Origin", "call origin(..) instead"),
            (
                "Sec-WebSocket-Extensions",
                "extensions are negotiated by the library; leave it out",
            ),
            (
                "Sec-WebSocket-Key",
                "the library makes a new one for each attempt; leave it out",
            ),
            ("Sec-WebSocket-Protocol", "call subprotocols(..) instead"),
            ("Sec-WebSocket-Version", "it is always 13; leave it out"),
            (
                "Transfer-Encoding",
                "an upgrade request has no body; leave it out",
            ),
            ("Upgrade", "the library sends it; leave it out"),
        ],
    )
}

fn chosen_subprotocol<'a>(
    head: &ResponseHead<'a>,
    offered: &[String],
) -> Result<Option<&'a str>, ResponseError> {
    let value = match head.fields().only(PROTOCOL) {
        Only::Missing => return Ok(None),
        Only::Several => return Err(ResponseError::SeveralSubprotocols),
        Only::One(value) => value,
    };
    if value.contains(&b',') {
        return Err(ResponseError::SeveralSubprotocols);
    }
    match std::str::from_utf8(value) {
        Ok(name) if offered.iter().any(|offer| offer == name) => Ok(Some(name)),
        _ => Err(ResponseError::Subprotocol {
            subprotocol: excerpt(value),
        }),
    }
}

const EXTENSIONS: &str = "sec-websocket-extensions";
/// Interim responses that a client skips before it gives up.
const MAX_INTERIM: usize = 16;
