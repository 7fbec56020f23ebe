//! Close codes, Close frames, and the value a callback returns to close (RFC 6455 sections 5.5.1
//! and 7.4).

use std::borrow::Cow;
use std::fmt;

use super::error::ProtocolError;

/// The longest payload of a Close frame, in bytes (RFC 6455 section 5.5).
pub const MAX_PAYLOAD_LEN: usize = 125;

/// The longest reason that fits behind the code in a Close frame, in bytes.
pub const MAX_REASON_LEN: usize = MAX_PAYLOAD_LEN - 2;

/// A status code that may stand in a Close frame (RFC 6455 section 7.4).
///
/// 1005 (no status) and 1006 (abnormal closure) are no `CloseCode`s: they name the absence of a
/// code or of a Close frame and must never be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection has been fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: a server goes down, or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer violated the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data we cannot accept, such as binary where only text is understood.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: data that does not fit its kind, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a message against our policy, when no other code fits.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: a client needs an extension that the server did not negotiate.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: something unexpected prevents us from fulfilling the request.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts; a client may reconnect after a random delay.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: overload; try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: we are a gateway and the server behind us gave an invalid response.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The code `value`, if it may be sent: 1000 to 1003, 1007 to 1014, and 3000 to 4999.
    pub const fn new(value: u16) -> Option<Self> {
        match value {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(value)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.value()
    }
}

/// The code and reason of a received Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseFrame<'a> {
    code: CloseCode,
    reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads the unmasked payload of a Close frame. An empty payload gives `None`: the peer sent
    /// no code (what RFC 6455 section 7.1.5 calls 1005).
    ///
    /// # Errors
    ///
    /// [`InvalidCloseLength`](ProtocolError::InvalidCloseLength) for a single byte,
    /// [`InvalidCloseCode`](ProtocolError::InvalidCloseCode) for a code that must not be sent, and
    /// [`InvalidUtf8`](ProtocolError::InvalidUtf8) for a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let (value, reason) = match payload {
            [] => return Ok(None),
            // Section 5.5.1: "If there is a body, the first two bytes of the body MUST be a
            // 2-byte unsigned integer".
            [_] => return Err(ProtocolError::InvalidCloseLength),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        let code = CloseCode::new(value).ok_or(ProtocolError::InvalidCloseCode(value))?;
        let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        Ok(Some(Self { code, reason }))
    }

    /// Why the peer closes.
    pub const fn code(&self) -> CloseCode {
        self.code
    }

    /// The peer's words, for a log. Often empty; at most 123 bytes.
    pub const fn reason(&self) -> &'a str {
        self.reason
    }
}

/// How to close a connection: what a callback returns as its error.
///
/// ```
/// use wsloop::ws::{Close, CloseCode};
///
/// let close = Close::new(CloseCode::POLICY_VIOLATION, "no binary here");
/// assert_eq!(close.to_string(), "close 1008: no binary here");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Close {
    code: CloseCode,
    reason: Cow<'static, str>,
}

impl Close {
    /// Closes with `code` and `reason`. A reason over 123 bytes is cut in front of the character
    /// that would not fit.
    pub fn new(code: CloseCode, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = match reason.into() {
            Cow::Borrowed(reason) => Cow::Borrowed(fitting(reason)),
            Cow::Owned(mut reason) => {
                reason.truncate(fitting(&reason).len());
                Cow::Owned(reason)
            }
        };
        Self { code, reason }
    }

    /// Closes with 1000 and no reason.
    pub const fn normal() -> Self {
        Self {
            code: CloseCode::NORMAL,
            reason: Cow::Borrowed(""),
        }
    }

    /// The code the peer will see.
    pub const fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason the peer will see; at most 123 bytes.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<CloseCode> for Close {
    fn from(code: CloseCode) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(""),
        }
    }
}

impl From<ProtocolError> for Close {
    /// The Close that tells the peer what it did wrong.
    fn from(error: ProtocolError) -> Self {
        Self::new(error.close_code(), error.to_string())
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_ref() {
            "" => write!(f, "close {}", self.code),
            reason => write!(f, "close {}: {reason}", self.code),
        }
    }
}

impl std::error::Error for Close {}

/// Writes the payload of a Close frame into `out` and returns its length. A reason over 123 bytes
/// is cut in front of the character that would not fit.
pub fn write_close_payload(
    code: CloseCode,
    reason: &str,
    out: &mut [u8; MAX_PAYLOAD_LEN],
) -> usize {
    let reason = fitting(reason).as_bytes();
    let bytes = code
        .value()
        .to_be_bytes()
        .into_iter()
        .chain(reason.iter().copied());
    for (place, byte) in out.iter_mut().zip(bytes) {
        *place = byte;
    }
    2 + reason.len()
}

/// The longest prefix of `reason` that fits in a Close frame and ends at a character's end.
fn fitting(reason: &str) -> &str {
    let end = (0..=MAX_REASON_LEN)
        .rev()
        .find(|&end| reason.is_char_boundary(end));
    match end.and_then(|end| reason.split_at_checked(end)) {
        Some((head, _)) if reason.len() > MAX_REASON_LEN => head,
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl_02_only_codes_of_section_7_4_are_allowed() {
        for value in 0..=u16::MAX {
            let allowed = (1000..=1003).contains(&value)
                || (1007..=1014).contains(&value)
                || (3000..=4999).contains(&value);
            assert_eq!(
                CloseCode::new(value).map(CloseCode::value),
                allowed.then_some(value)
            );
            let parsed = CloseFrame::parse(&value.to_be_bytes())
                .map(|frame| frame.map(|f| f.code().value()));
            let expected = if allowed {
                Ok(Some(value))
            } else {
                Err(ProtocolError::InvalidCloseCode(value))
            };
            assert_eq!(parsed, expected);
        }
        for value in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(CloseCode::new(value), None);
        }
    }

    #[test]
    fn cl_01_payloads_of_zero_one_and_two_to_125_bytes() {
        assert_eq!(CloseFrame::parse(&[]), Ok(None));
        assert_eq!(
            CloseFrame::parse(&[3]),
            Err(ProtocolError::InvalidCloseLength)
        );
        for len in 0..=MAX_REASON_LEN {
            let reason = "r".repeat(len);
            let payload = [&1000_u16.to_be_bytes(), reason.as_bytes()].concat();
            let frame = CloseFrame::parse(&payload).unwrap().unwrap();
            assert_eq!(
                (frame.code(), frame.reason()),
                (CloseCode::NORMAL, reason.as_str())
            );
        }
    }

    #[test]
    fn u8_05_a_close_reason_cut_in_a_code_point_is_refused() {
        assert_eq!(
            CloseFrame::parse(b"\x03\xe8ok \xe2\x82"),
            Err(ProtocolError::InvalidUtf8)
        );
        assert_eq!(
            CloseFrame::parse(b"\x03\xe8\xff"),
            Err(ProtocolError::InvalidUtf8)
        );
        assert_eq!(ProtocolError::InvalidUtf8.close_code().value(), 1007);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = "x".repeat(122) + "\u{e9}tail";
        let owned = Close::new(CloseCode::NORMAL, long.clone());
        assert_eq!(owned.reason(), "x".repeat(122));
        let mut out = [0; MAX_PAYLOAD_LEN];
        let len = write_close_payload(CloseCode::NORMAL, &long, &mut out);
        assert_eq!(len, 124);
        assert_eq!(
            CloseFrame::parse(&out[..len]).unwrap().unwrap().reason(),
            "x".repeat(122)
        );
        let exact = "y".repeat(123);
        assert_eq!(Close::new(CloseCode::NORMAL, exact.clone()).reason(), exact);
        assert_eq!(
            write_close_payload(CloseCode::NORMAL, &exact, &mut out),
            125
        );
    }

    #[test]
    fn a_written_payload_reads_back() {
        let mut out = [0xaa; MAX_PAYLOAD_LEN];
        let len = write_close_payload(CloseCode::GOING_AWAY, "bye \u{1f44b}", &mut out);
        let frame = CloseFrame::parse(&out[..len]).unwrap().unwrap();
        assert_eq!(
            (frame.code(), frame.reason()),
            (CloseCode::GOING_AWAY, "bye \u{1f44b}")
        );
    }

    #[test]
    fn display_shows_code_and_reason() {
        assert_eq!(Close::normal().to_string(), "close 1000");
        assert_eq!(Close::from(CloseCode::GOING_AWAY).to_string(), "close 1001");
        let close = Close::from(ProtocolError::UnmaskedByClient);
        assert_eq!(
            close.to_string(),
            "close 1002: unmasked frame from the client"
        );
    }

    #[test]
    fn a_code_is_a_number_again() {
        assert_eq!(u16::from(CloseCode::GOING_AWAY), 1001);
    }
}
