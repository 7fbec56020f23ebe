//! Message bodies: how long they are by their head, and incremental decoders for the three ways in
//! which HTTP/1.1 delimits them (RFC 9112 section 6).

use thiserror::Error;

use super::head::{Headers, HttpVersion, Only, RequestHead, ResponseHead};
use super::is_token_byte;

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// Chunks, each with its size (`Transfer-Encoding: chunked`).
    Chunked,
    /// So many bytes (`Content-Length`), or none.
    Length(u64),
    /// All bytes until the connection ends; responses only.
    UntilClose,
}

impl Framing {
    /// The framing of a request's body; `Length(0)` when it declares none.
    ///
    /// # Errors
    /// [`BodyError`] for every declaration that two readers could take differently; the connection
    /// must be closed after the response.
    pub fn of_request(head: &RequestHead<'_>) -> Result<Self, BodyError> {
        Ok(Self::declared(head.fields(), head.version())?.unwrap_or(Self::Length(0)))
    }

    /// The framing of the body of a response to a `GET` or `POST`.
    ///
    /// # Errors
    /// As [`Framing::of_request`].
    pub fn of_response(head: &ResponseHead<'_>) -> Result<Self, BodyError> {
        // RFC 9112 section 6.3: "any response with a 1xx (Informational), 204 (No Content), or 304
        // (Not Modified) status code is always terminated by the first empty line after the header
        // fields, regardless of the header fields present".
        if matches!(head.status(), 100..=199 | 204 | 304) {
            return Ok(Self::Length(0));
        }
        Ok(Self::declared(head.fields(), head.version())?.unwrap_or(Self::UntilClose))
    }

    fn declared(headers: &Headers<'_>, version: HttpVersion) -> Result<Option<Self>, BodyError> {
        let length = match headers.only("content-length") {
            Only::Missing => None,
            Only::One(value) => Some(parse_length(value)?),
            Only::Several => return Err(BodyError::SeveralLengths),
        };
        let coding = match headers.only("transfer-encoding") {
            Only::Missing => return Ok(length.map(Self::Length)),
            Only::One(value) => value,
            Only::Several => return Err(BodyError::Coding),
        };
        if version < HttpVersion::Http11 {
            return Err(BodyError::CodingOnHttp10);
        }
        if length.is_some() {
            return Err(BodyError::LengthAndCoding);
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            Ok(Some(Self::Chunked))
        } else {
            Err(BodyError::Coding)
        }
    }
}

/// Decodes one message body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
}

impl BodyDecoder {
    /// A decoder for a body framed so.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Chunked => State::Chunked(Chunked::default()),
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length(left),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Takes the next piece of body data out of the input: at most one run of bytes a call, so call
    /// again with the rest of the input until nothing was consumed or the body is done. What comes
    /// after the body is not consumed.
    ///
    /// # Errors
    /// [`BodyError`] when the input is not a body framed so; the decoder then repeats the error.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, BodyError> {
        match &mut self.state {
            State::Done => Ok(Decoded {
                consumed: 0,
                data: &[],
                done: true,
            }),
            State::Failed(error) => Err(*error),
            State::Length(left) => {
                let data = take(input, left);
                let done = *left == 0;
                if done {
                    self.state = State::Done;
                }
                Ok(Decoded {
                    consumed: data.len(),
                    data,
                    done,
                })
            }
            State::UntilClose => Ok(Decoded {
                consumed: input.len(),
                data: input,
                done: false,
            }),
            State::Chunked(chunked) => {
                let result = chunked.decode(input);
                match &result {
                    Ok(decoded) if decoded.done => self.state = State::Done,
                    Ok(_) => {}
                    Err(error) => self.state = State::Failed(*error),
                }
                result
            }
        }
    }

    /// Whether the body is complete without another byte.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Tells that the connection has ended.
    ///
    /// # Errors
    /// [`BodyError::CutShort`] when the body declared more than came; the error of
    /// [`decode`](Self::decode) when that failed before.
    pub fn end(&self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => Ok(()),
            State::Chunked(_) | State::Length(_) => Err(BodyError::CutShort),
            State::Failed(error) => Err(error),
        }
    }
}

/// What one call to [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded<'a> {
    /// Bytes of the input that are used up.
    pub consumed: usize,
    /// Body bytes, a part of the input; may be empty.
    pub data: &'a [u8],
    /// Whether the body is complete.
    pub done: bool,
}

/// Why a body was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// A chunk's extension has a control character, or a quote that its line does not close.
    #[error("a chunk extension has a control character or an open quote")]
    ChunkExtension,
    /// A chunk's data is not followed by CRLF.
    #[error("the data of a chunk is not followed by CRLF")]
    ChunkEnd,
    /// A chunk's size is not one to sixteen hexadecimal digits.
    #[error("a chunk size is not one to sixteen hexadecimal digits and a line end")]
    ChunkSize,
    /// A transfer coding other than `chunked` alone.
    #[error("the transfer coding is not \"chunked\" alone")]
    Coding,
    /// A transfer coding in an HTTP/1.0 message.
    #[error("an HTTP/1.0 message has a transfer coding")]
    CodingOnHttp10,
    /// The connection ended before the body did.
    #[error("the connection ended before the body did")]
    CutShort,
    /// `Content-Length` is not a number of digits alone that fits 64 bits.
    #[error("Content-Length is not a decimal number")]
    Length,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("the message has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Chunk size lines far larger than the data they frame.
    #[error("the chunk sizes and extensions are far larger than the data they frame")]
    Overhead,
    /// More than one `Content-Length` line.
    #[error("the message has more than one Content-Length")]
    SeveralLengths,
    /// A trailer line that is no header field.
    #[error("a trailer line is not a header field")]
    Trailer,
    /// More trailer bytes than are tolerated.
    #[error("the trailers are too long")]
    TrailersTooLong,
}

impl BodyError {
    /// The status of the response that a server gives before it closes the connection.
    pub fn status(&self) -> u16 {
        match self {
            Self::Coding => 501,
            Self::TrailersTooLong => 431,
            Self::ChunkEnd
            | Self::ChunkExtension
            | Self::ChunkSize
            | Self::CodingOnHttp10
            | Self::CutShort
            | Self::Length
            | Self::LengthAndCoding
            | Self::Overhead
            | Self::SeveralLengths
            | Self::Trailer => 400,
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    Chunked(Chunked),
    Done,
    Failed(BodyError),
    Length(u64),
    UntilClose,
}

/// The chunked coding (RFC 9112 section 7.1), one byte of framing at a time.
#[derive(Clone, Debug, Default)]
struct Chunked {
    at: At,
    /// The size being read, then the data bytes left.
    left: u64,
    /// Digits or extension bytes of the current size line; bytes of all trailers.
    line: usize,
    /// Framing bytes beyond what the data so far excuses.
    excess: u64,
}

/// Where in the coding the next byte belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Extension,
    Quoted,
    Escaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the begin of a trailer line, or of the empty line that ends the body.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

impl Chunked {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, BodyError> {
        for (index, &byte) in input.iter().enumerate() {
            if self.at == At::Data {
                let rest = input.get(index..).unwrap_or_default();
                let data = take(rest, &mut self.left);
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                return Ok(Decoded {
                    consumed: index + data.len(),
                    data,
                    done: false,
                });
            }
            if self.at == At::EndLf && byte == b'\n' {
                return Ok(Decoded {
                    consumed: index + 1,
                    data: &[],
                    done: true,
                });
            }
            self.at = self.after(byte)?;
        }
        Ok(Decoded {
            consumed: input.len(),
            data: &[],
            done: false,
        })
    }

    /// The place after one byte of framing.
    fn after(&mut self, byte: u8) -> Result<At, BodyError> {
        match self.at {
            At::Size => self.size(byte),
            At::Extension | At::Quoted | At::Escaped => self.extension(byte),
            At::SizeLf => self.size_ended(byte),
            At::DataCr if byte == b'\r' => Ok(At::DataLf),
            At::DataLf if byte == b'\n' => {
                self.line = 0;
                Ok(At::Size)
            }
            At::DataCr | At::DataLf | At::Data => Err(BodyError::ChunkEnd),
            At::Trailer | At::TrailerName | At::TrailerValue | At::TrailerLf | At::EndLf => {
                self.trailer(byte)
            }
        }
    }

    fn size(&mut self, byte: u8) -> Result<At, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.line > 0 => return Ok(At::SizeLf),
            b';' if self.line > 0 => return Ok(At::Extension),
            _ => return Err(BodyError::ChunkSize),
        };
        if self.line == MAX_SIZE_DIGITS {
            return Err(BodyError::ChunkSize);
        }
        self.line += 1;
        self.left = (self.left << 4) | u64::from(digit);
        Ok(At::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<At, BodyError> {
        self.line += 1;
        if self.line > MAX_SIZE_LINE {
            return Err(BodyError::Overhead);
        }
        match (self.at, byte) {
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (_, 0..=0x1f | 0x7f..) => Err(BodyError::ChunkExtension),
            (At::Extension, b'"') => Ok(At::Quoted),
            (At::Quoted, b'"') => Ok(At::Extension),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Escaped, _) => Ok(At::Quoted),
            (same, _) => Ok(same),
        }
    }

    /// Takes the LF of a size line. The framing of many small chunks may not cost more than a fixed
    /// sum beyond what ordinary chunks of their sizes would.
    fn size_ended(&mut self, byte: u8) -> Result<At, BodyError> {
        if byte != b'\n' {
            return Err(BodyError::ChunkSize);
        }
        let excused = self.left.saturating_mul(2).saturating_add(16);
        self.excess = (self.excess + self.line as u64 + 4).saturating_sub(excused);
        if self.excess > MAX_EXCESS {
            return Err(BodyError::Overhead);
        }
        self.line = 0;
        Ok(if self.left == 0 {
            At::Trailer
        } else {
            At::Data
        })
    }

    /// Takes a byte of the trailers, which are dropped: RFC 9110 section 6.5.1 lets no trailer be
    /// merged into the headers.
    fn trailer(&mut self, byte: u8) -> Result<At, BodyError> {
        self.line += 1;
        if self.line > MAX_TRAILER_BYTES {
            return Err(BodyError::TrailersTooLong);
        }
        match (self.at, byte) {
            (At::Trailer, b'\r') => Ok(At::EndLf),
            (At::Trailer | At::TrailerName, _) if is_token_byte(byte) => Ok(At::TrailerName),
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, b'\t' | 0x20..=0x7e | 0x80..) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::Trailer),
            _ => Err(BodyError::Trailer),
        }
    }
}

/// Cuts at most `left` bytes from the input and counts them off.
fn take<'a>(input: &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(input.len());
    *left -= count as u64;
    input.get(..count).unwrap_or_default()
}

/// RFC 9110 section 8.6: `Content-Length = 1*DIGIT`.
fn parse_length(value: &[u8]) -> Result<u64, BodyError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BodyError::Length);
    }
    let digits = std::str::from_utf8(value).map_err(|_| BodyError::Length)?;
    digits.parse().map_err(|_| BodyError::Length)
}

/// Digits of the largest 64-bit chunk size.
const MAX_SIZE_DIGITS: usize = 16;

/// Bytes of one chunk's size and extensions.
const MAX_SIZE_LINE: usize = 512;

/// Bytes of framing that a body may have beyond what its data excuses.
const MAX_EXCESS: u64 = 16 * 1024;

/// Bytes of all trailers together.
const MAX_TRAILER_BYTES: usize = 8 * 1024;
