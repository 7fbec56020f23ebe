//! What a client takes for an answer, and what that says about the connection.

use thiserror::Error;

use crate::http::body::{BodyDecoder, BodyError, Framing};
use crate::http::excerpt;
use crate::http::head::{Guess, HeadError, HeadLimits, HeadScanner, HttpVersion, ResponseHead};

/// What kind of request is answered: that decides whether the response has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseTo {
    /// `HEAD`: no body, whatever the head says.
    Head,
    /// Any other method.
    Other,
}

/// Reads the response to one request out of bytes that arrive in any pieces.
///
/// The same bytes give the same items in every split, but for where the pieces of the body are cut.
#[derive(Clone, Debug)]
pub struct ResponseReader {
    to: ResponseTo,
    limits: HeadLimits,
    max_body: u64,
    state: State,
    interim: usize,
    /// Bytes of the body so far.
    length: u64,
    began: bool,
    keeps: bool,
    until_close: bool,
    /// What the head declares, held against the limit when the body is wanted: that of a redirect
    /// which is followed is not.
    declared: u64,
}

#[derive(Clone, Debug)]
enum State {
    Body(BodyDecoder),
    Done,
    Failed(ResponseReadError),
    Head(HeadScanner),
}

/// What one call to [`ResponseReader::next`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReadProgress<'a> {
    /// Bytes of the input that are used up.
    pub consumed: usize,
    /// What they were; `None`: nothing whole yet.
    pub item: Option<ResponseItem<'a>>,
}

/// A part of a response.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResponseItem<'a> {
    /// A piece of the body.
    Data(&'a [u8]),
    /// The response is complete. Comes once.
    End,
    /// The final head.
    Head(ResponseHead<'a>),
    /// An interim head (RFC 9110 section 15.2), which says nothing about the outcome.
    Interim(ResponseHead<'a>),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a stream ends by its sender or by accident"
)]
pub enum Eof {
    /// The peer said that it sends no more (over TLS: with `close_notify`).
    Orderly,
    /// It was cut off, or over TLS nobody vouches for the end.
    Truncated,
}

impl ResponseReader {
    /// A reader for one response, whose body may have `max_body` bytes.
    pub fn new(to: ResponseTo, limits: HeadLimits, max_body: u64) -> Self {
        Self {
            to,
            limits,
            max_body,
            state: State::Head(HeadScanner::response()),
            interim: 0,
            length: 0,
            began: false,
            keeps: false,
            until_close: false,
            declared: 0,
        }
    }

    /// Takes the next item out of the input. Call again with the rest of the input until there is
    /// none; a head that is not complete stays in the input, to be given again with what follows.
    ///
    /// # Errors
    /// [`ResponseReadError`] when the input is not a response that can be trusted to end where it
    /// says; the reader then repeats the error.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<ReadProgress<'a>, ResponseReadError> {
        self.began |= !input.is_empty();
        let progress = match &self.state {
            State::Body(_) => self.next_of_body(input),
            State::Done => Ok(ReadProgress {
                consumed: 0,
                item: None,
            }),
            State::Failed(error) => Err(error.clone()),
            State::Head(_) => self.next_head(input),
        };
        if let Err(error) = &progress {
            self.state = State::Failed(error.clone());
            self.keeps = false;
        }
        progress
    }

    /// Tells that the connection has ended. `Ok` when that is how the response ends.
    ///
    /// # Errors
    /// [`ResponseReadError::Closed`] when no final response was there, [`BodyError::CutShort`]
    /// when its body is not complete.
    pub fn end(&mut self, eof: Eof) -> Result<(), ResponseReadError> {
        self.keeps = false;
        match &self.state {
            State::Head(_) => Err(ResponseReadError::Closed),
            State::Failed(error) => Err(error.clone()),
            State::Done => Ok(()),
            // RFC 9112 section 9.8: over TLS an end without close_notify may be an attacker's.
            State::Body(_) if eof == Eof::Truncated => {
                Err(ResponseReadError::Body(BodyError::CutShort))
            }
            State::Body(decoder) => {
                decoder.end()?;
                self.state = State::Done;
                Ok(())
            }
        }
    }

    /// Whether any byte has come.
    pub fn began(&self) -> bool {
        self.began
    }

    /// Whether the final head has come.
    pub fn has_head(&self) -> bool {
        matches!(self.state, State::Body(_) | State::Done)
    }

    /// Whether the response is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the body ends with the connection.
    pub fn ends_with_connection(&self) -> bool {
        self.until_close
    }

    /// Whether the peer lets the connection be used for another request (RFC 9112 section 9.3),
    /// once the response [is done](Self::is_done).
    pub fn keeps_connection(&self) -> bool {
        self.keeps && self.is_done()
    }

    fn next_head<'a>(&mut self, input: &'a [u8]) -> Result<ReadProgress<'a>, ResponseReadError> {
        let State::Head(scanner) = &mut self.state else {
            return Err(ResponseReadError::Closed);
        };
        let waiting = ReadProgress {
            consumed: 0,
            item: None,
        };
        if input.is_empty() {
            return Ok(waiting);
        }
        let scanned = scanner.scan(input, &self.limits);
        let Some(length) = scanned.map_err(|error| ResponseReadError::of_head(error, input))?
        else {
            return Ok(waiting);
        };
        let head = input.get(..length).unwrap_or_default();
        let head = ResponseHead::parse(head, &self.limits)?;
        let item = match head.status() {
            101 => return Err(ResponseReadError::UnexpectedUpgrade),
            100..=199 => {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(ResponseReadError::TooManyInterim);
                }
                self.state = State::Head(HeadScanner::response());
                ResponseItem::Interim(head)
            }
            _ => {
                self.begin_body(&head)?;
                ResponseItem::Head(head)
            }
        };
        Ok(ReadProgress {
            consumed: length,
            item: Some(item),
        })
    }

    /// Decides what follows the final head. The declarations are checked even where they do not
    /// count: a peer that cannot frame one message is not trusted with the next.
    fn begin_body(&mut self, head: &ResponseHead<'_>) -> Result<(), ResponseReadError> {
        let declares =
            head.header("content-length").is_some() || head.header("transfer-encoding").is_some();
        let declared = Framing::of_declaration(head)?;
        let (framing, trusted) = match (self.to, head.status()) {
            // RFC 9112 section 6.3, rule 1.
            (ResponseTo::Head, _) | (_, 304) => (Framing::Length(0), true),
            // RFC 9110 section 8.6 forbids a server to declare a body here; one that does may
            // send it, too.
            (_, 204) => {
                let empty = !declares || declared == Framing::Length(0);
                (Framing::Length(0), empty)
            }
            _ => (declared, true),
        };
        if let Framing::Length(length) = framing {
            self.declared = length;
        }
        self.until_close = framing == Framing::UntilClose;
        self.keeps = trusted && !self.until_close && persists(head);
        self.state = State::Body(BodyDecoder::new(framing));
        Ok(())
    }

    fn next_of_body<'a>(&mut self, input: &'a [u8]) -> Result<ReadProgress<'a>, ResponseReadError> {
        self.check_length(self.declared)?;
        let State::Body(decoder) = &mut self.state else {
            return Err(ResponseReadError::Closed);
        };
        let mut consumed = 0;
        while !decoder.is_done() {
            let rest = input.get(consumed..).unwrap_or_default();
            let decoded = decoder.decode(rest)?;
            consumed += decoded.consumed;
            if !decoded.data.is_empty() {
                self.length = self.length.saturating_add(decoded.data.len() as u64);
                self.check_length(self.length)?;
                return Ok(ReadProgress {
                    consumed,
                    item: Some(ResponseItem::Data(decoded.data)),
                });
            }
            if decoded.consumed == 0 {
                return Ok(ReadProgress {
                    consumed,
                    item: None,
                });
            }
        }
        self.state = State::Done;
        Ok(ReadProgress {
            consumed,
            item: Some(ResponseItem::End),
        })
    }

    fn check_length(&self, length: u64) -> Result<(), ResponseReadError> {
        if length > self.max_body {
            return Err(ResponseReadError::BodyTooLong {
                limit: self.max_body,
            });
        }
        Ok(())
    }
}

/// RFC 9112 section 9.3: HTTP/1.1 persists unless it says `close`, HTTP/1.0 only if it says so.
fn persists(head: &ResponseHead<'_>) -> bool {
    if head.has_token("connection", "close") {
        return false;
    }
    head.version() == HttpVersion::Http11 || head.has_token("connection", "keep-alive")
}

/// Why bytes are not taken for a response.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseReadError {
    /// The body is not framed as it should be, or is not complete.
    #[error("the response body is bad: {0}")]
    Body(#[from] BodyError),
    /// The body is longer than the caller allows.
    #[error("the response body is longer than the limit of {limit} bytes")]
    BodyTooLong {
        /// The limit in force.
        limit: u64,
    },
    /// The connection ended before the final head.
    #[error("the peer closed the connection before its response was complete")]
    Closed,
    /// The head is not a response head.
    #[error("the response head is bad: {0}")]
    Head(#[from] HeadError),
    /// The peer speaks something else.
    #[error("the peer does not speak HTTP{guess}; it sent \"{excerpt}\"")]
    NotHttp {
        /// What it seems to speak.
        guess: Guess,
        /// The first bytes, printable.
        excerpt: String,
    },
    /// More interim responses than are tolerated.
    #[error("more than {MAX_INTERIM} interim responses came before the final one")]
    TooManyInterim,
    /// A 101 that nobody asked for.
    #[error("the peer switched to another protocol, which was not asked for")]
    UnexpectedUpgrade,
}

impl ResponseReadError {
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

/// Interim responses before a final one.
const MAX_INTERIM: usize = 16;

#[cfg(test)]
mod tests;
