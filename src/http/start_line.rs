//! The first line of a head, and the host that a request names.

use super::head::{HeadError, HeadLimits, HttpVersion};
use super::{is_field_value, is_token};

/// `method SP request-target SP HTTP-version` (RFC 9112 section 3), the target cut to its parts.
#[derive(Debug)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) authority: Option<&'a str>,
    pub(super) version: HttpVersion,
}

impl<'a> RequestLine<'a> {
    pub(super) fn parse(line: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(long_or(line, limits, HeadError::BadRequestLine));
        };
        if method.len() > MAX_METHOD || !is_token(method) {
            return Err(long_or(line, limits, HeadError::BadMethod));
        }
        if target.len() > limits.target {
            return Err(HeadError::TargetTooLong);
        }
        let version = HttpVersion::parse(version).ok_or(HeadError::BadVersion)??;
        let method = std::str::from_utf8(method).map_err(|_| HeadError::BadMethod)?;
        Self::with_target(method, target, version)
    }

    fn with_target(
        method: &'a str,
        target: &'a [u8],
        version: HttpVersion,
    ) -> Result<Self, HeadError> {
        if target.is_empty() {
            return Err(HeadError::BadRequestLine);
        }
        if !target
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'#')
        {
            let is_cut = target.contains(&b'#');
            return Err(match is_cut {
                true => HeadError::FragmentInTarget,
                false => HeadError::BadTarget,
            });
        }
        let target = std::str::from_utf8(target).map_err(|_| HeadError::BadTarget)?;
        let (authority, rest) = split_target(method, target)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = match authority {
            Some(_) if path.is_empty() && method != "CONNECT" => "/",
            _ => path,
        };
        Ok(Self {
            method,
            target,
            path,
            query,
            authority,
            version,
        })
    }
}

/// Cuts the target into authority and what follows it, by the four forms of RFC 9112 section 3.2.
fn split_target<'a>(
    method: &str,
    target: &'a str,
) -> Result<(Option<&'a str>, &'a str), HeadError> {
    if method == "CONNECT" {
        return Ok((Some(target), ""));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(HeadError::BadTarget)?;
    if !["http", "https", "ws", "wss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(HeadError::BadTarget);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Ok((Some(authority), rest))
}

/// The error of a request line that cannot be cut up: its length comes first.
fn long_or(line: &[u8], limits: &HeadLimits, error: HeadError) -> HeadError {
    if line.len() > limits.target.saturating_add(START_LINE_REST) {
        HeadError::TargetTooLong
    } else {
        error
    }
}

/// `HTTP-version SP status-code [ SP reason-phrase ]` (RFC 9112 section 4). The space before a
/// missing reason is not insisted on: many servers leave it out.
#[derive(Debug)]
pub(super) struct StatusLine<'a> {
    pub(super) version: HttpVersion,
    pub(super) status: u16,
    pub(super) reason: &'a str,
}

impl<'a> StatusLine<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, HeadError> {
        let (version, rest) = line.split_at_checked(8).ok_or(HeadError::BadStatusLine)?;
        let version = HttpVersion::parse(version).ok_or(HeadError::BadStatusLine)??;
        let (digits, reason) = match rest {
            [b' ', a, b, c] => ([*a, *b, *c], [].as_slice()),
            [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
            _ => return Err(HeadError::BadStatusLine),
        };
        if !is_field_value(reason) || !digits.iter().all(u8::is_ascii_digit) {
            return Err(HeadError::BadStatusLine);
        }
        let status = digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        if !(100..600).contains(&status) {
            return Err(HeadError::BadStatusLine);
        }
        Ok(Self {
            version,
            status,
            reason: std::str::from_utf8(reason).unwrap_or_default(),
        })
    }
}

/// A host and its port, as in `Host`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `uri-host [ ":" port ]` (RFC 9110 section 7.2), which is never empty here.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, HeadError> {
        let text = std::str::from_utf8(bytes).map_err(|_| HeadError::BadHost)?;
        let position = |wanted| bytes.iter().position(|&byte| byte == wanted);
        let end = match position(b']') {
            Some(bracket) => bracket + 1,
            None => position(b':').unwrap_or(bytes.len()),
        };
        let (host, port) = text.split_at(end);
        if !is_host(host) {
            return Err(HeadError::BadHost);
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(HeadError::BadHost),
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| HeadError::BadHost)?)
            }
            Some(_) => return Err(HeadError::BadHost),
        };
        Ok(Self { host, port })
    }
}

/// Whether the text is a reg-name or a bracketed IPv6 literal (RFC 3986 section 3.2.2).
fn is_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[') {
        let literal = inside.strip_suffix(']').unwrap_or_default();
        return literal.contains(':')
            && literal
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    !host.is_empty()
        && host.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&')
                || matches!(byte, b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
        })
}

/// Bytes of the longest method.
const MAX_METHOD: usize = 32;

/// Bytes of a request line beside its target: method, two spaces, version.
pub(super) const START_LINE_REST: usize = MAX_METHOD + 10;
