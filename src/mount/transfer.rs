//! Sends what was found, whole or in part, a piece at a time.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::open::OpenFile;
use crate::handler::{Http, HttpFailure, HttpRequest};
use crate::http::conditional::{ETag, Judgement, Ranges, Validators};
use crate::http::date::{format_date, parse_date};
use crate::http::range::{self, ByteRange, RangeAnswer};
use crate::http::response::{BodyLength, RespondError, Response};
use crate::http::{HeaderError, HeaderList};

/// What a path names, and what is to be said about it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) length: u64,
    pub(super) etag: ETag,
    /// Seconds since 1970.
    pub(super) modified: Option<u64>,
    pub(super) content_type: String,
}

#[derive(Debug)]
pub(super) enum Source {
    Bytes(Bytes),
    File(OpenFile),
}

/// The response of a file that is being sent.
///
/// The exchange of [`StaticFiles`](crate::StaticFiles) and [`EmbeddedFiles`](crate::EmbeddedFiles);
/// it holds the file open, and no part of it in memory.
#[derive(Debug)]
pub struct FileTransfer {
    source: Source,
    parts: VecDeque<Part>,
}

enum Part {
    /// A head or the end of a multipart body.
    Text(Vec<u8>),
    Range(ByteRange),
}

impl Found {
    /// Answers a GET or HEAD with it: begins the response, of which the rest leaves by
    /// [`FileTransfer::pump`].
    ///
    /// # Errors
    /// [`HttpFailure`] holds the answer when it is a short one.
    pub(super) fn answer(
        self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
        extra: &HeaderList,
    ) -> Result<FileTransfer, HttpFailure> {
        let fields = request.head().fields();
        let validators = Validators::new(Some(&self.etag), self.modified);
        let ranges = match validators.judge(request.method(), fields) {
            Judgement::Failed => {
                return Err(Response::text(412, "the precondition does not hold\n").into());
            }
            Judgement::NotModified => {
                let headers = self.validator_headers(http, extra)?;
                return Err(Response::new(304).headers(headers).into());
            }
            Judgement::Serve(Ranges::Allowed) => range::answer(fields.all("Range"), self.length),
            Judgement::Serve(Ranges::Ignored) => RangeAnswer::Whole,
        };
        let is_head = request.method() == "HEAD";
        let (status, headers, parts) = self.plan(http, ranges, extra)?;
        let length = parts.iter().map(Part::length).sum();
        http.start(status, &headers, BodyLength::Known(length))?;
        Ok(FileTransfer {
            source: self.source,
            parts: if is_head { VecDeque::new() } else { parts },
        })
    }

    /// Status, fields and body.
    fn plan(
        &self,
        http: &Http<'_>,
        ranges: RangeAnswer,
        extra: &HeaderList,
    ) -> Result<(u16, HeaderList, VecDeque<Part>), HttpFailure> {
        let mut headers = self.validator_headers(http, extra)?;
        headers.push("X-Content-Type-Options", "nosniff")?;
        let content_type = self.content_type.as_str();
        match ranges {
            RangeAnswer::Whole => {
                headers.push("Content-Type", content_type)?;
                headers.push("Accept-Ranges", "bytes")?;
                let end = self.length;
                let whole = (end > 0).then_some(Part::Range(ByteRange { start: 0, end }));
                Ok((200, headers, whole.into_iter().collect()))
            }
            RangeAnswer::One(range) => {
                headers.push("Content-Type", content_type)?;
                headers.push("Content-Range", range.content_range(self.length))?;
                Ok((206, headers, VecDeque::from([Part::Range(range)])))
            }
            RangeAnswer::Several(ranges) => {
                let boundary = self.boundary(&ranges);
                let kind = format!("multipart/byteranges; boundary={boundary}");
                headers.push("Content-Type", kind)?;
                Ok((206, headers, self.multipart(&ranges, &boundary)))
            }
            RangeAnswer::Unsatisfiable => {
                let unsatisfied = range::unsatisfied(self.length);
                let response = Response::text(416, "there is nothing in this range\n");
                Err(response.header("Content-Range", unsatisfied)?.into())
            }
        }
    }

    /// What a 304 says, too (RFC 9110 section 15.4.5).
    fn validator_headers(
        &self,
        http: &Http<'_>,
        extra: &HeaderList,
    ) -> Result<HeaderList, HeaderError> {
        let mut headers = extra.clone();
        headers.push("ETag", self.etag.as_str())?;
        if let Some(modified) = self.modified {
            // RFC 9110 section 8.8.2.1: never later than Date.
            let now = parse_date(http.date().as_bytes()).unwrap_or(u64::MAX);
            headers.push("Last-Modified", format_date(modified.min(now)))?;
        }
        Ok(headers)
    }

    /// `multipart/byteranges` (RFC 9110 section 14.6).
    fn multipart(&self, ranges: &[ByteRange], boundary: &str) -> VecDeque<Part> {
        let mut parts = VecDeque::with_capacity(ranges.len() * 2 + 1);
        for range in ranges {
            let lead = if parts.is_empty() { "" } else { "\r\n" };
            let head = format!(
                "{lead}--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                self.content_type,
                range.content_range(self.length)
            );
            parts.extend([Part::Text(head.into_bytes()), Part::Range(*range)]);
        }
        parts.push_back(Part::Text(format!("\r\n--{boundary}--\r\n").into_bytes()));
        parts
    }

    /// A line that the file does not have, short of its author knowing the tag and the ranges.
    fn boundary(&self, ranges: &[ByteRange]) -> String {
        let digest = Sha1::digest(format!("{:?}{ranges:?}", self.etag));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FileTransfer {
    /// Sends one piece, and asks to be called again or ends the response.
    ///
    /// # Errors
    /// [`HttpFailure`] drops the connection when the file is not any more what was announced: it is
    /// the only way to say that the body is not complete.
    pub(super) fn pump(
        &mut self,
        http: &mut Http<'_>,
        buffer: &mut [u8],
    ) -> Result<(), HttpFailure> {
        if let Some(part) = self.parts.front_mut() {
            if part.send(http, &mut self.source, buffer)? == Sent::All {
                self.parts.pop_front();
            }
        }
        if self.parts.is_empty() {
            http.finish()?;
        } else {
            http.request_writable();
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    Some,
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Self::Range(range) => range.length(),
            Self::Text(text) => text.len() as u64,
        }
    }

    fn send(
        &mut self,
        http: &mut Http<'_>,
        source: &mut Source,
        buffer: &mut [u8],
    ) -> Result<Sent, HttpFailure> {
        match self {
            Self::Text(text) => {
                let sent = write_some(http, text)?;
                text.drain(..sent.min(text.len()));
            }
            Self::Range(range) => {
                let data = source.read(*range, buffer)?;
                range.start += write_some(http, data)? as u64;
            }
        }
        Ok(match self.length() {
            0 => Sent::All,
            _ => Sent::Some,
        })
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(f, "{}..{}", range.start, range.end),
            Self::Text(text) => write!(f, "{} bytes of text", text.len()),
        }
    }
}

impl Source {
    /// The first bytes of the range, as many as the buffer holds.
    fn read<'a>(
        &'a mut self,
        range: ByteRange,
        buffer: &'a mut [u8],
    ) -> Result<&'a [u8], HttpFailure> {
        let length = usize::try_from(range.length()).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        match self {
            Self::Bytes(bytes) => usize::try_from(range.start)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(length)?))
                .ok_or_else(HttpFailure::abort),
            Self::File(file) => {
                let piece = buffer.get_mut(..length).unwrap_or_default();
                file.read_exact_at(piece, range.start)
                    .map_err(|_| HttpFailure::abort())?;
                Ok(piece)
            }
        }
    }
}

/// Writes as much as the queue takes.
fn write_some(http: &mut Http<'_>, data: &[u8]) -> Result<usize, RespondError> {
    match http.write(data) {
        Err(RespondError::Full { buffered, limit }) => {
            let room = limit.saturating_sub(buffered);
            match data.get(..room) {
                Some(fits) if !fits.is_empty() => http.write(fits).map(|_| room),
                _ => Ok(0),
            }
        }
        other => other.map(|_| data.len()),
    }
}
