//! Writes responses: heads with the right framing, and bodies that keep to it (RFC 9112 section 6).

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::head::{HttpVersion, RequestHead};
use super::{HeaderError, HeaderList, reason_phrase, write_field, write_headers};

/// A whole, short response.
///
/// ```
/// use wsloop::Response;
///
/// let hello = Response::text(200, "hello\n");
/// let moved = Response::new(308).header("Location", "/new")?;
/// # Ok::<(), wsloop::http::HeaderError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderList,
    pub(crate) body: Bytes,
}

impl Response {
    /// A response without a body. A status outside 200..=599 is sent as 500: it would not be a
    /// final one.
    pub const fn new(status: u16) -> Self {
        Self {
            status: final_status(status),
            headers: HeaderList::new(),
            body: Bytes::new(),
        }
    }

    /// A response with a body of plain text in UTF-8.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::typed(status, TEXT, Bytes::from(body.into()))
    }

    /// A response with a JSON body, which the caller has written.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::typed(status, "application/json", body.into())
    }

    /// A response with an HTML body in UTF-8.
    pub fn html(status: u16, body: impl Into<Bytes>) -> Self {
        Self::typed(status, "text/html; charset=utf-8", body.into())
    }

    fn typed(status: u16, kind: &str, body: Bytes) -> Self {
        let mut headers = HeaderList::new();
        // The types above are fit to be sent.
        let pushed = headers.push("Content-Type", kind);
        debug_assert!(pushed.is_ok(), "a content type of our own is a field value");
        Self {
            headers,
            ..Self::new(status)
        }
        .body(body)
    }

    /// Adds a header field. The framing fields ([`is_framing_field`]) are the library's; one of
    /// them makes the response fail when it is sent.
    ///
    /// # Errors
    /// [`HeaderError`] for a name or a value that must not be sent.
    pub fn header(
        mut self,
        name: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Self, HeaderError> {
        self.headers.push(name, value)?;
        Ok(self)
    }

    /// Replaces all header fields.
    pub fn headers(mut self, headers: HeaderList) -> Self {
        self.headers = headers;
        self
    }

    /// The body; give its type in the headers. With a status that has none (204, 304) it makes the
    /// response fail when it is sent.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Whether it is one that a connection can send.
    pub(crate) fn can_be_sent(&self) -> bool {
        let framing = self.headers.iter().any(|(name, _)| is_framing_field(name));
        !framing && (self.body.is_empty() || !has_no_body(self.status))
    }

    /// The status code.
    pub const fn status(&self) -> u16 {
        self.status
    }
}

/// How long the body of a response will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "known or not")]
pub enum BodyLength {
    /// So many bytes, sent as `Content-Length`.
    Known(u64),
    /// Not known yet: sent in chunks (RFC 9112 section 7.1), and to an HTTP/1.0 client until the
    /// connection ends.
    Unknown,
}

/// Why a response, or a part of it, was not taken. Nothing of what was refused is sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RespondError {
    /// The response has begun already.
    #[error("the response has begun already; each request has one")]
    AlreadyStarted,
    /// The response is complete.
    #[error("the response is complete; nothing can follow it")]
    Finished,
    /// A framing header, which only the library writes.
    #[error("{0} is written by the library; remove it (the length goes into BodyLength)")]
    FramingField(String),
    /// The output queue is at its cap.
    #[error(
        "the output queue holds {buffered} of at most {limit} bytes; call request_writable and \
         write from on_writable"
    )]
    Full {
        /// Bytes that wait to be sent.
        buffered: usize,
        /// The cap, [`Limits::output_bytes`](crate::Limits::output_bytes).
        limit: usize,
    },
    /// The exchange has ended, or the connection has.
    #[error("the exchange has ended; nobody waits for this response any more")]
    Gone,
    /// A status that has no body (204, 304), and a body.
    #[error("a response with status {0} has no body")]
    NoBody(u16),
    /// The response has not begun.
    #[error("the response has not begun; call start first")]
    NotStarted,
    /// The body ended before its declared length.
    #[error("the body is {missing} bytes shorter than the length that was declared")]
    TooShort {
        /// Bytes that are missing.
        missing: u64,
    },
    /// The body is longer than declared.
    #[error("{excess} bytes more than the length that was declared")]
    TooLong {
        /// Bytes that are too many.
        excess: u64,
    },
}

/// The sending half of one exchange on a server: what of the response is written.
#[derive(Debug)]
pub(crate) struct ResponseHalf {
    state: State,
    status: u16,
    version: HttpVersion,
    /// The request was HEAD: a head like that of GET, and nothing after it.
    is_head: bool,
    /// Whether the connection may serve another request afterwards.
    persists: bool,
    /// What every response says here that does not say it itself.
    always: Arc<HeaderList>,
    /// The client waits for a 100 before it sends the body. As long as it has not got one, nobody
    /// knows whether a body follows a final response.
    awaits_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Chunked,
    Done,
    Length(u64),
    NotStarted,
    /// The body is that of a response which has none on the wire.
    Silent,
    UntilClose,
}

impl ResponseHalf {
    pub(crate) fn to(request: &RequestHead<'_>) -> Self {
        Self {
            state: State::NotStarted,
            status: 0,
            version: request.version(),
            is_head: request.method() == "HEAD",
            persists: wants_to_persist(request),
            always: Arc::default(),
            awaits_continue: false,
        }
    }

    /// Adds these fields to responses that have none of their names.
    pub(crate) fn always(mut self, headers: Arc<HeaderList>) -> Self {
        self.always = headers;
        self
    }

    /// Whether the client waits for a 100.
    pub(crate) const fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// The client waits for a 100 before it sends the body, or not any more.
    pub(crate) const fn set_awaits_continue(&mut self, awaits: bool) {
        self.awaits_continue = awaits;
    }

    pub(crate) fn is_started(&self) -> bool {
        self.state != State::NotStarted
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(crate) const fn status(&self) -> u16 {
        self.status
    }

    pub(crate) const fn persists(&self) -> bool {
        self.persists && !self.awaits_continue
    }

    /// The connection is closed after this response, which says so if it has not begun.
    pub(crate) const fn close_after(&mut self) {
        self.persists = false;
    }

    /// Writes a whole response but for its body, and says whether that follows on the wire.
    pub(crate) fn respond(
        &mut self,
        out: &mut Vec<u8>,
        date: &str,
        response: &Response,
    ) -> Result<bool, RespondError> {
        let len = response.body.len() as u64;
        if len > 0 && has_no_body(response.status) {
            return Err(RespondError::NoBody(response.status));
        }
        let headers = &response.headers;
        self.start(out, date, response.status, headers, BodyLength::Known(len))?;
        let follows = self.state != State::Silent;
        self.state = State::Done;
        Ok(follows)
    }

    /// Writes a head.
    pub(crate) fn start(
        &mut self,
        out: &mut Vec<u8>,
        date: &str,
        status: u16,
        headers: &HeaderList,
        length: BodyLength,
    ) -> Result<(), RespondError> {
        match self.state {
            State::NotStarted => {}
            State::Done => return Err(RespondError::Finished),
            State::Chunked | State::Length(_) | State::Silent | State::UntilClose => {
                return Err(RespondError::AlreadyStarted);
            }
        }
        if let Some((name, _)) = headers.iter().find(|(name, _)| is_framing_field(name)) {
            return Err(RespondError::FramingField(name.to_owned()));
        }
        let status = final_status(status);
        self.status = status;
        self.state = self.framing(status, length);
        if self.state == State::UntilClose {
            self.persists = false;
        }
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason_phrase(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if headers.get("date").is_none() {
            write_field(out, "Date", date.as_bytes());
        }
        write_headers(out, headers.iter());
        let always = self.always.iter();
        write_headers(out, always.filter(|(name, _)| headers.get(name).is_none()));
        self.write_framing(out, status, length);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn framing(&self, status: u16, length: BodyLength) -> State {
        match length {
            _ if self.is_head || has_no_body(status) => State::Silent,
            BodyLength::Known(len) => State::Length(len),
            BodyLength::Unknown if self.version < HttpVersion::Http11 => State::UntilClose,
            BodyLength::Unknown => State::Chunked,
        }
    }

    fn write_framing(&self, out: &mut Vec<u8>, status: u16, length: BodyLength) {
        let chunks = self.version >= HttpVersion::Http11;
        match length {
            // RFC 9110 section 8.6: no Content-Length in a 204.
            _ if status == 204 => {}
            // Of a 304 it would be the length that a 200 has, which nobody counted.
            BodyLength::Known(0) if status == 304 => {}
            BodyLength::Known(len) => {
                write_field(out, "Content-Length", len.to_string().as_bytes());
            }
            BodyLength::Unknown if chunks && status != 304 => {
                write_field(out, "Transfer-Encoding", b"chunked");
            }
            BodyLength::Unknown => {}
        }
        // RFC 9110 section 15.5.22: a 426 has an Upgrade, and section 7.8: which Connection lists.
        let is_offer = status == 426;
        if is_offer {
            write_field(out, "Upgrade", b"websocket");
        }
        let connection: &[u8] = match (self.persists(), is_offer) {
            (false, false) => b"close",
            (false, true) => b"close, Upgrade",
            (true, true) => b"Upgrade",
            (true, false) if chunks => return,
            (true, false) => b"keep-alive",
        };
        write_field(out, "Connection", connection);
    }

    /// Writes a piece of the body. An empty one writes nothing: it would end a chunked body.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Result<(), RespondError> {
        match &mut self.state {
            State::NotStarted => Err(RespondError::NotStarted),
            State::Done => Err(RespondError::Finished),
            State::Silent => Ok(()),
            State::UntilClose => {
                out.extend_from_slice(data);
                Ok(())
            }
            State::Length(left) => {
                let len = data.len() as u64;
                let Some(rest) = left.checked_sub(len) else {
                    let excess = len - *left;
                    return Err(RespondError::TooLong { excess });
                };
                *left = rest;
                out.extend_from_slice(data);
                Ok(())
            }
            State::Chunked => {
                if !data.is_empty() {
                    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                    out.extend_from_slice(data);
                    out.extend_from_slice(b"\r\n");
                }
                Ok(())
            }
        }
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RespondError> {
        match self.state {
            State::NotStarted => return Err(RespondError::NotStarted),
            State::Done => return Err(RespondError::Finished),
            State::Length(missing @ 1..) => return Err(RespondError::TooShort { missing }),
            State::Length(0) | State::Silent | State::UntilClose => {}
            State::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        }
        self.state = State::Done;
        Ok(())
    }
}

/// Whether responses with this status have no body (RFC 9110 sections 15.3.5 and 15.4.5).
pub(crate) const fn has_no_body(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// Whether a header field belongs to the connection or delimits the message, so that only the
/// library may write it: `Connection`, `Content-Length`, `Keep-Alive`, `Proxy-Connection`, `TE`,
/// `Trailer`, `Transfer-Encoding`, `Upgrade`.
pub fn is_framing_field(name: &str) -> bool {
    FRAMING_FIELDS
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
}

const FRAMING_FIELDS: [&str; 8] = [
    "Connection",
    "Content-Length",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// RFC 9112 section 9.3: whether the connection persists, as far as the request goes.
pub(crate) fn wants_to_persist(request: &RequestHead<'_>) -> bool {
    if request.has_token("connection", "close") {
        return false;
    }
    request.version() >= HttpVersion::Http11 || request.has_token("connection", "keep-alive")
}

/// The interim response that asks for the body (RFC 9110 section 15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const fn final_status(status: u16) -> u16 {
    if matches!(status, 200..=599) {
        status
    } else {
        500
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::HeadLimits;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn half(request: &str) -> ResponseHalf {
        let head = RequestHead::parse(request.as_bytes(), &HeadLimits::default()).unwrap();
        ResponseHalf::to(&head)
    }

    fn get() -> ResponseHalf {
        half("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    fn respond(half: &mut ResponseHalf, response: &Response) -> String {
        let mut out = Vec::new();
        if half.respond(&mut out, DATE, response).unwrap() {
            out.extend_from_slice(&response.body);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_short_response_declares_its_length_and_keeps_the_connection() {
        let mut half = get();
        let text = respond(&mut half, &Response::text(200, "hi"));
        let want = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(text, want);
        assert!(half.is_done() && half.persists());
    }

    #[test]
    fn head_gets_the_head_of_get_and_nothing_after_it() {
        let mut half = half("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let text = respond(&mut half, &Response::text(200, "hi"));
        assert!(
            text.contains("Content-Length: 2\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_streamed_body_is_chunked_and_an_empty_piece_does_not_end_it() {
        let (mut half, mut out) = (get(), Vec::new());
        half.start(&mut out, DATE, 200, &HeaderList::new(), BodyLength::Unknown)
            .unwrap();
        out.clear();
        half.write(&mut out, b"0123456789abcdef").unwrap();
        half.write(&mut out, b"").unwrap();
        half.write(&mut out, b"x").unwrap();
        half.finish(&mut out).unwrap();
        assert_eq!(out, b"10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n");
        assert!(half.persists());
    }

    #[test]
    fn a_client_of_1_0_gets_a_streamed_body_until_the_connection_ends() {
        let mut half = half("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let mut out = Vec::new();
        half.start(&mut out, DATE, 200, &HeaderList::new(), BodyLength::Unknown)
            .unwrap();
        half.write(&mut out, b"abc").unwrap();
        half.finish(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("Connection: close") && text.ends_with("\r\n\r\nabc"),
            "{text}"
        );
        assert!(!text.contains("chunked") && !half.persists());
    }

    #[test]
    fn a_client_of_1_0_keeps_the_connection_when_it_asks_for_that() {
        let mut keeps = half("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert!(respond(&mut keeps, &Response::new(200)).contains("Connection: keep-alive\r\n"));
        let mut closes = half("GET / HTTP/1.0\r\n\r\n");
        assert!(respond(&mut closes, &Response::new(200)).contains("Connection: close\r\n"));
        let mut asked = half("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n");
        assert!(respond(&mut asked, &Response::new(200)).contains("Connection: close\r\n"));
    }

    #[test]
    fn a_body_is_held_to_its_declared_length() {
        let (mut half, mut out) = (get(), Vec::new());
        let none = HeaderList::new();
        assert_eq!(
            half.write(&mut out, b"x"),
            Err(RespondError::NotStarted),
            "before the head"
        );
        half.start(&mut out, DATE, 200, &none, BodyLength::Known(3))
            .unwrap();
        let before = out.len();
        assert_eq!(
            half.write(&mut out, b"abcd"),
            Err(RespondError::TooLong { excess: 1 })
        );
        half.write(&mut out, b"ab").unwrap();
        assert_eq!(
            half.finish(&mut out),
            Err(RespondError::TooShort { missing: 1 })
        );
        half.write(&mut out, b"c").unwrap();
        half.finish(&mut out).unwrap();
        assert_eq!(&out[before..], b"abc");
        assert_eq!(half.finish(&mut out), Err(RespondError::Finished));
    }

    #[test]
    fn ht_25_framing_fields_of_the_application_are_refused() {
        for name in ["content-length", "Transfer-Encoding", "connection", "TE"] {
            let response = Response::new(200).header(name, "1").unwrap();
            let refused = get().respond(&mut Vec::new(), DATE, &response);
            assert_eq!(refused, Err(RespondError::FramingField(name.to_owned())));
        }
    }

    #[test]
    fn statuses_without_a_body_declare_none() {
        for status in [204, 304] {
            let text = respond(&mut get(), &Response::new(status));
            assert!(
                !text.contains("Content-Length") && !text.contains("chunked"),
                "{text}"
            );
            let full = Response::new(status).body("x");
            let refused = get().respond(&mut Vec::new(), DATE, &full);
            assert_eq!(refused, Err(RespondError::NoBody(status)));
        }
    }

    #[test]
    fn a_response_begins_once_and_ends_once() {
        let mut out = Vec::new();
        let mut half = get();
        let none = HeaderList::new();
        assert_eq!(half.write(&mut out, b"x"), Err(RespondError::NotStarted));
        assert_eq!(half.finish(&mut out), Err(RespondError::NotStarted));
        assert!(out.is_empty());
        half.start(&mut out, DATE, 200, &none, BodyLength::Unknown)
            .unwrap();
        let again = half.start(&mut out, DATE, 200, &none, BodyLength::Unknown);
        assert_eq!(again, Err(RespondError::AlreadyStarted));
        half.finish(&mut out).unwrap();
        let len = out.len();
        assert_eq!(half.write(&mut out, b"x"), Err(RespondError::Finished));
        assert_eq!(half.finish(&mut out), Err(RespondError::Finished));
        assert_eq!(out.len(), len);
    }

    #[test]
    fn an_offer_to_upgrade_on_a_connection_that_ends_says_both() {
        let mut out = Vec::new();
        let mut half = half("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let length = BodyLength::Known(0);
        half.start(&mut out, DATE, 426, &HeaderList::new(), length)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("\r\nConnection: close, Upgrade\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_status_that_is_not_final_is_sent_as_500() {
        assert_eq!(Response::new(200).status(), 200);
        for status in [0, 100, 101, 199, 600] {
            assert_eq!(Response::new(status).status(), 500, "{status}");
        }
    }
}
