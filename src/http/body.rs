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
        Self::of_declaration(head)
    }

    /// What a response declares about its body, whether or not its status lets it have one.
    pub(crate) fn of_declaration(head: &ResponseHead<'_>) -> Result<Self, BodyError> {
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
            Only::One(value) => Some(value),
            Only::Several => None,
        };
        if version < HttpVersion::Http11 {
            return Err(BodyError::CodingOnHttp10);
        }
        if length.is_some() {
            return Err(BodyError::LengthAndCoding);
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        if coding.is_some_and(is_chunked) {
            return Ok(Some(Self::Chunked));
        }
        // RFC 9112 section 6.3: where chunked is not the final coding of a request "the server MUST
        // respond with the 400 (Bad Request) status code and then close the connection".
        if headers
            .elements("transfer-encoding")
            .last()
            .is_some_and(is_chunked)
        {
            Err(BodyError::Coding)
        } else {
            Err(BodyError::NotChunked)
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
    /// Other transfer codings before `chunked`.
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
    /// The last transfer coding is not `chunked`, so that nothing tells where the body ends.
    #[error("the last transfer coding is not \"chunked\"")]
    NotChunked,
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
            | Self::NotChunked
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::HeadLimits;
    use crate::http::test_support::Rng;

    /// The body, the bytes it took, and whether it was complete; or the error.
    type Outcome = Result<(Vec<u8>, usize, bool), BodyError>;

    /// Decodes pieces that end at the cuts.
    fn decode_cut(
        framing: Framing,
        input: &[u8],
        cuts: impl IntoIterator<Item = usize>,
    ) -> Outcome {
        let mut decoder = BodyDecoder::new(framing);
        let (mut body, mut at) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([input.len()]) {
            while at < cut && !decoder.is_done() {
                let decoded = decoder.decode(&input[at..cut])?;
                assert!(decoded.consumed > 0, "no progress");
                body.extend_from_slice(decoded.data);
                at += decoded.consumed;
                assert_eq!(decoded.done, decoder.is_done());
            }
        }
        Ok((body, at, decoder.is_done()))
    }

    fn decode(framing: Framing, input: &[u8]) -> Outcome {
        let whole = decode_cut(framing, input, []);
        let single = decode_cut(framing, input, 0..input.len());
        assert_eq!(whole, single, "{}", input.escape_ascii());
        for cut in 0..input.len().min(200) {
            assert_eq!(
                whole,
                decode_cut(framing, input, [cut]),
                "{}",
                input.escape_ascii()
            );
        }
        whole
    }

    fn chunked(input: &[u8]) -> Outcome {
        decode(Framing::Chunked, input)
    }

    fn of_request(version: &str, fields: &str) -> Result<Framing, BodyError> {
        let text = format!("POST / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default()).unwrap();
        Framing::of_request(&head)
    }

    fn of_response(status: u16, fields: &str) -> Result<Framing, BodyError> {
        let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let head = ResponseHead::parse(text.as_bytes(), &HeadLimits::default()).unwrap();
        Framing::of_response(&head)
    }

    #[test]
    fn ht_01_length_and_coding_together_are_refused() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: CHUNKED\r\ncontent-length: 0\r\n",
            "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 3\r\n",
        ] {
            assert_eq!(
                of_request("1.1", fields),
                Err(BodyError::LengthAndCoding),
                "{fields:?}"
            );
            assert_eq!(
                of_response(200, fields),
                Err(BodyError::LengthAndCoding),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn ht_02_two_lengths_are_refused_even_when_equal() {
        for (fields, error) in [
            (
                "Content-Length: 3\r\nContent-Length: 4\r\n",
                BodyError::SeveralLengths,
            ),
            (
                "Content-Length: 3\r\ncontent-length: 3\r\n",
                BodyError::SeveralLengths,
            ),
            ("Content-Length: 3, 3\r\n", BodyError::Length),
            ("Content-Length: 3,4\r\n", BodyError::Length),
        ] {
            assert_eq!(of_request("1.1", fields), Err(error), "{fields:?}");
            assert_eq!(of_response(200, fields), Err(error), "{fields:?}");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn ht_03_only_plain_decimal_lengths_are_read() {
        for value in [
            "",
            "+3",
            "-1",
            "0x3",
            "3 3",
            "1_0",
            "18446744073709551616",
            "\u{663}",
            "3;",
            "1e3",
        ] {
            let fields = format!("Content-Length: {value}\r\n");
            assert_eq!(
                of_request("1.1", &fields),
                Err(BodyError::Length),
                "{value:?}"
            );
        }
        for (value, length) in [
            ("3", 3),
            ("  3", 3),
            ("3\t ", 3),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            let fields = format!("Content-Length:{value}\r\n");
            assert_eq!(
                of_request("1.1", &fields),
                Ok(Framing::Length(length)),
                "{value:?}"
            );
        }
        assert_eq!(of_request("1.1", ""), Ok(Framing::Length(0)));
        assert_eq!(of_response(200, ""), Ok(Framing::UntilClose));
    }

    #[test]
    fn ht_04_codings_other_than_chunked_alone_are_refused() {
        for (values, error, status) in [
            ("xchunked", BodyError::NotChunked, 400),
            ("chunked, chunked", BodyError::Coding, 501),
            ("chunked, gzip", BodyError::NotChunked, 400),
            ("gzip, chunked", BodyError::Coding, 501),
            ("identity", BodyError::NotChunked, 400),
            ("\"chunked\"", BodyError::NotChunked, 400),
            ("chunked;q=1", BodyError::NotChunked, 400),
            ("\u{e9}chunked", BodyError::NotChunked, 400),
            ("", BodyError::NotChunked, 400),
            (",chunked", BodyError::Coding, 501),
            ("chunked|chunked", BodyError::Coding, 501),
            ("chunked|identity", BodyError::NotChunked, 400),
        ] {
            let lines = values.split('|');
            let fields = lines.map(|value| format!("Transfer-Encoding: {value}\r\n"));
            let found = of_request("1.1", &fields.collect::<String>()).unwrap_err();
            assert_eq!((found, found.status()), (error, status), "{values:?}");
        }
        assert_eq!(
            of_request("1.1", "Transfer-Encoding:\tChunked \r\n"),
            Ok(Framing::Chunked)
        );
    }

    #[test]
    fn ht_05_a_coding_in_http_1_0_is_refused() {
        let found = of_request("1.0", "Transfer-Encoding: chunked\r\n");
        assert_eq!(found, Err(BodyError::CodingOnHttp10));
    }

    #[test]
    fn some_statuses_never_have_a_body() {
        for status in [103, 204, 304] {
            assert_eq!(
                of_response(status, "Content-Length: 5\r\n"),
                Ok(Framing::Length(0))
            );
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        let input = b"3\r\nabc\r\n00A;x=\"y\\\"\"\r\n0123456789\r\n0\r\n\r\nGET /";
        let end = input.len() - 5;
        assert_eq!(chunked(input), Ok((b"abc0123456789".to_vec(), end, true)));
        assert_eq!(chunked(b"0\r\n\r\n"), Ok((vec![], 5, true)));
    }

    #[test]
    fn ht_06_chunk_sizes_are_hexadecimal_digits_and_nothing_else() {
        for size in [
            "0x5\r\n",
            "5 \r\n",
            "5 ;x\r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "5_0\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "00000000000000005\r\n",
            "\r\n",
            ";x\r\n",
            "5\n",
            "5\rx",
            "5\r\r\n",
            "g\r\n",
        ] {
            let input = format!("{size}hello\r\n0\r\n\r\n");
            assert_eq!(
                chunked(input.as_bytes()),
                Err(BodyError::ChunkSize),
                "{size:?}"
            );
        }
        assert_eq!(chunked(b"3\r\nabc\r\n\r\n\r\n"), Err(BodyError::ChunkSize));
        for input in [
            b"3\r\nabcd\r\n".as_slice(),
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\rx",
        ] {
            assert_eq!(chunked(input), Err(BodyError::ChunkEnd));
        }
        let (_, _, done) = chunked(b"FFFFFFFFFFFFFFFF\r\nabc").unwrap();
        assert!(!done);
    }

    #[test]
    fn ht_07_chunk_extensions_are_capped_and_have_no_control_character() {
        for extension in [
            "a\nb", "a\0b", "a\tb", "a=\"\n\"", "a=\"b", "a=\"b\\", "a\u{7f}", "\u{e9}",
        ] {
            let input = format!("1;{extension}\r\nx\r\n0\r\n\r\n");
            assert_eq!(
                chunked(input.as_bytes()),
                Err(BodyError::ChunkExtension),
                "{extension:?}"
            );
        }
        assert_eq!(
            chunked(b"1;a\rb\r\nx\r\n0\r\n\r\n"),
            Err(BodyError::ChunkSize)
        );
        let huge = format!("1;{}\r\n", "a".repeat(1 << 20));
        assert_eq!(
            decode_cut(Framing::Chunked, huge.as_bytes(), []),
            Err(BodyError::Overhead)
        );
        let fits = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(500));
        assert!(chunked(fits.as_bytes()).is_ok());
    }

    #[test]
    fn ht_07_many_small_extensions_are_capped_together() {
        let chunk = format!("1;{}\r\nx\r\n", "a".repeat(400));
        let input = chunk.repeat(100);
        assert_eq!(
            decode_cut(Framing::Chunked, input.as_bytes(), []),
            Err(BodyError::Overhead)
        );
        let plain = "1\r\nx\r\n".repeat(100_000);
        assert!(decode_cut(Framing::Chunked, plain.as_bytes(), []).is_ok());
        let signed = format!(
            "400;chunk-signature={}\r\n{}\r\n",
            "0".repeat(64),
            "x".repeat(1024)
        );
        let input = signed.repeat(1000);
        assert!(decode_cut(Framing::Chunked, input.as_bytes(), []).is_ok());
    }

    #[test]
    fn ht_09_trailers_are_dropped_and_capped() {
        let input = b"1\r\nx\r\n0\r\nContent-Length: 5\r\nHost: evil\r\nA:\xff\t\r\n\r\nmore";
        assert_eq!(chunked(input), Ok((b"x".to_vec(), input.len() - 4, true)));
        let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(10_000));
        let found = decode_cut(Framing::Chunked, many.as_bytes(), []);
        assert_eq!(found, Err(BodyError::TrailersTooLong));
        for trailer in [
            " A: b\r\n",
            "A : b\r\n",
            ": b\r\n",
            "A\r\n",
            "A: b\n\r\n",
            "A: b\rc\r\n",
            "A: \0\r\n",
            "\n",
        ] {
            let input = format!("0\r\n{trailer}\r\n");
            assert_eq!(
                chunked(input.as_bytes()),
                Err(BodyError::Trailer),
                "{trailer:?}"
            );
        }
    }

    #[test]
    fn ht_22_a_body_that_ends_early_is_an_error() {
        let end = |framing, input: &[u8]| {
            let mut decoder = BodyDecoder::new(framing);
            let mut rest = input;
            while !rest.is_empty() && !decoder.is_done() {
                rest = &rest[decoder
                    .decode(rest)
                    .map_or(rest.len(), |decoded| decoded.consumed)..];
            }
            decoder.end()
        };
        assert_eq!(end(Framing::Length(4), b"abc"), Err(BodyError::CutShort));
        assert_eq!(end(Framing::Length(3), b"abc"), Ok(()));
        assert_eq!(
            end(Framing::Chunked, b"3\r\nabc\r\n"),
            Err(BodyError::CutShort)
        );
        assert_eq!(
            end(Framing::Chunked, b"3\r\nabc\r\n0\r\n\r"),
            Err(BodyError::CutShort)
        );
        assert_eq!(end(Framing::Chunked, b"0\r\n\r\n"), Ok(()));
        assert_eq!(end(Framing::Chunked, b"x"), Err(BodyError::ChunkSize));
        assert_eq!(end(Framing::UntilClose, b"abc"), Ok(()));
    }

    #[test]
    fn a_failed_decoder_stays_failed() {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        assert_eq!(decoder.decode(b"x"), Err(BodyError::ChunkSize));
        assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(BodyError::ChunkSize));
    }

    #[test]
    fn a_length_takes_its_bytes_and_no_more() {
        assert_eq!(
            decode(Framing::Length(3), b"abcdef"),
            Ok((b"abc".to_vec(), 3, true))
        );
        assert_eq!(decode(Framing::Length(0), b"abc"), Ok((vec![], 0, true)));
        assert_eq!(
            decode(Framing::UntilClose, b"abc"),
            Ok((b"abc".to_vec(), 3, false))
        );
    }

    /// Reads complete chunked bodies with one regular grammar, all at once.
    fn naive(mut input: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (all, mut body) = (input.len(), Vec::new());
        loop {
            let end = input.windows(2).position(|pair| pair == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&input[..end]).ok()?, 16).ok()?;
            input = &input[end + 2..];
            if size == 0 {
                let rest = input.strip_prefix(b"\r\n")?;
                return Some((body, all - rest.len()));
            }
            body.extend_from_slice(input.get(..size)?);
            input = input.get(size..)?.strip_prefix(b"\r\n")?;
        }
    }

    #[test]
    fn mangled_bodies_give_the_naive_answer_in_random_splits() {
        let mut rng = Rng::new(0x5eed_0002);
        for _ in 0..4000 {
            let mut input = b"3\r\nabc\r\n0b\r\nhello world\r\n0\r\n\r\nrest".to_vec();
            for _ in 0..rng.below(3) {
                let at = rng.below(input.len());
                match rng.below(3) {
                    0 => input[at] = b"\r\n0123abx"[rng.below(9)],
                    1 => drop(input.remove(at)),
                    _ => input.insert(at, b"\r\n0123abx"[rng.below(9)]),
                }
            }
            let mut cuts: Vec<_> = (0..4).map(|_| rng.below(input.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = decode(Framing::Chunked, &input);
            assert_eq!(whole, decode_cut(Framing::Chunked, &input, cuts), "{rng:?}");
            if let Some((body, length)) = naive(&input) {
                assert_eq!(
                    whole,
                    Ok((body, length, true)),
                    "{rng:?} {}",
                    input.escape_ascii()
                );
            } else {
                assert!(
                    !matches!(whole, Ok((_, _, true))),
                    "{rng:?} {}",
                    input.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn a_body_that_is_complete_takes_nothing_more() {
        for (framing, body) in [
            (Framing::Length(2), "ok".as_bytes()),
            (Framing::Chunked, b"2\r\nok\r\n0\r\n\r\n"),
        ] {
            let mut decoder = BodyDecoder::new(framing);
            let mut at = 0;
            while !decoder.is_done() {
                at += decoder.decode(&body[at..]).unwrap().consumed;
            }
            assert_eq!(at, body.len());
            let after = decoder.decode(b"GET / HTTP/1.1").unwrap();
            assert_eq!((after.consumed, after.data, after.done), (0, &[][..], true));
        }
    }

    #[test]
    fn bodies_that_cannot_be_read_are_answered_by_what_is_wrong_with_them() {
        assert_eq!(BodyError::Coding.status(), 501);
        assert_eq!(BodyError::TrailersTooLong.status(), 431);
        assert_eq!(BodyError::CutShort.status(), 400);
    }
}
