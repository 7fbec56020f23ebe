//! Which pages may connect: the `Origin` of an upgrade (RFC 6454, RFC 6455 section 10.2).
//!
//! A browser lets every page open a WebSocket to every server, with the user's cookies. What it
//! offers instead of the same-origin rule is the `Origin` field, which a page cannot forge. Other
//! clients send what they like or nothing: an origin says nothing about who *they* are.

use std::fmt;

use thiserror::Error;

use super::excerpt;
use super::head::{Headers, RequestHead};

/// Decides by its `Origin` whether a request may be served.
///
/// ```
/// use wsloop::http::origin::OriginPolicy;
/// # fn main() -> Result<(), wsloop::http::origin::OriginParseError> {
/// let policy = OriginPolicy::list(["https://app.example.com", "https://*.example.org"])?;
/// # let _ = policy; Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct OriginPolicy {
    rule: Rule,
    missing: Missing,
}

impl OriginPolicy {
    /// Every page may connect, and every other client. Fit when nothing that the connection may do
    /// depends on cookies, on the client's certificate or on where it is.
    pub const fn any() -> Self {
        Self {
            rule: Rule::Any,
            missing: Missing::Allowed,
        }
    }

    /// Pages of the host and port that the request's `Host` names may connect. Over TLS they must
    /// have come over TLS themselves.
    pub const fn same_host() -> Self {
        Self {
            rule: Rule::SameHost,
            missing: Missing::Allowed,
        }
    }

    /// Pages of these origins may connect.
    ///
    /// Each is written as browsers send it: `https://example.com`, with the port only when it is not
    /// the scheme's. `https://*.example.com` stands for every name below `example.com`, but not for
    /// `example.com` itself. `null` stands for all the pages that have no origin: files, sandboxed
    /// frames, and thereby any page of an attacker.
    ///
    /// # Errors
    /// [`OriginParseError`] when an entry is not an origin.
    pub fn list<T: AsRef<str>>(
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, OriginParseError> {
        let entries = origins
            .into_iter()
            .map(|origin| Entry::parse(origin.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            rule: Rule::List(entries),
            missing: Missing::Allowed,
        })
    }

    /// Refuses requests without an `Origin`, too. By default they are let through: browsers always
    /// send it with an upgrade, so whoever does not is no page.
    pub const fn require_origin(mut self) -> Self {
        self.missing = Missing::Refused;
        self
    }

    /// Judges a request that came over TLS or not.
    ///
    /// # Errors
    /// [`OriginError`], to be answered with its [`status`](OriginError::status).
    pub fn check(&self, head: &RequestHead<'_>, transport: Transport) -> Result<(), OriginError> {
        let Some(field) = sent_origin(head.fields())? else {
            return match self.missing {
                Missing::Allowed => Ok(()),
                Missing::Refused => Err(OriginError::Missing),
            };
        };
        let allowed = match &self.rule {
            Rule::Any => return Ok(()),
            Rule::SameHost => parse_sent(field)?
                .is_some_and(|origin| origin.is_page_of(head.host(), head.port(), transport)),
            Rule::List(entries) => {
                let origin = parse_sent(field)?;
                entries.iter().any(|entry| entry.covers(origin.as_ref()))
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(OriginError::Foreign(excerpt(field)))
        }
    }
}

/// What a request came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Nothing but TCP, perhaps from a proxy that took TLS off.
    Plain,
    /// TLS.
    Tls,
}

/// Why a request may not be served.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginError {
    /// Pages of this origin may not connect.
    #[error("pages of the origin \"{0}\" may not connect")]
    Foreign(String),
    /// The field is not an origin.
    #[error("the Origin field \"{0}\" is not an origin")]
    Malformed(String),
    /// There is no `Origin`, and it is required.
    #[error("the request has no Origin field, which is required here")]
    Missing,
    /// There is more than one `Origin` field.
    #[error("the request has more than one Origin field")]
    Several,
}

impl OriginError {
    /// The status to answer with, 403 (RFC 6455 section 4.2.2).
    pub const fn status(&self) -> u16 {
        403
    }
}

/// An entry of a list that is not an origin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is not an origin; write \"https://example.com\", without a path")]
pub struct OriginParseError(String);

#[derive(Clone, Debug)]
enum Rule {
    Any,
    SameHost,
    List(Vec<Entry>),
}

#[derive(Clone, Copy, Debug)]
enum Missing {
    Allowed,
    Refused,
}

/// A line of the application's list.
#[derive(Clone, Debug)]
enum Entry {
    Below(Origin),
    Null,
    Same(Origin),
}

impl Entry {
    fn parse(text: &str) -> Result<Self, OriginParseError> {
        let bad = || OriginParseError(excerpt(text.as_bytes()));
        if text == "null" {
            return Ok(Self::Null);
        }
        match text.split_once("://*.") {
            None => Origin::parse(text).map(Self::Same).ok_or_else(bad),
            Some((scheme, rest)) => Origin::parse(&format!("{scheme}://{rest}"))
                .filter(|origin| !origin.host.starts_with('['))
                .map(Self::Below)
                .ok_or_else(bad),
        }
    }

    /// Whether the origin is of this entry; `None` is `null`.
    fn covers(&self, origin: Option<&Origin>) -> bool {
        match (self, origin) {
            (Self::Null, None) => true,
            (Self::Same(entry), Some(origin)) => entry == origin,
            (Self::Below(entry), Some(origin)) => {
                let below = origin
                    .host
                    .strip_suffix(entry.host.as_str())
                    .and_then(|rest| rest.strip_suffix('.'));
                entry.scheme == origin.scheme
                    && entry.port == origin.port
                    && below.is_some_and(|name| !name.is_empty())
            }
            (Self::Null, Some(_)) | (Self::Same(_) | Self::Below(_), None) => false,
        }
    }
}

/// A scheme, a host and a port, in lower case.
#[derive(Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    /// The scheme's own when none was given; `None` when the scheme has none.
    port: Option<u16>,
}

impl Origin {
    /// Parses `scheme "://" host [ ":" port ]` (RFC 6454 section 6.2), and nothing around it.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let end = rest.find(']').map_or_else(
            || rest.find(':').unwrap_or(rest.len()),
            |bracket| bracket + 1,
        );
        let (host, port) = rest.split_at_checked(end)?;
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => default_port(&scheme),
            None => return None,
            Some(digits) => Some(port_number(digits)?),
        };
        (is_scheme(&scheme) && is_host(host)).then(|| Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// Whether it is the origin of pages that the host of a request serves itself.
    fn is_page_of(&self, host: Option<&str>, port: Option<u16>, transport: Transport) -> bool {
        let scheme_fits = match transport {
            // A proxy may have taken TLS off, so both are possible.
            Transport::Plain => matches!(self.scheme.as_str(), "http" | "https"),
            // A page that came without TLS may have been anybody's on the way.
            Transport::Tls => self.scheme == "https",
        };
        scheme_fits
            && host.is_some_and(|host| host.eq_ignore_ascii_case(&self.host))
            && port.or_else(|| default_port(&self.scheme)) == self.port
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The field as it came, if it came.
fn sent_origin<'a>(headers: &Headers<'a>) -> Result<Option<&'a [u8]>, OriginError> {
    let mut fields = headers.all("Origin");
    match (fields.next(), fields.next()) {
        (field, None) => Ok(field),
        (_, Some(_)) => Err(OriginError::Several),
    }
}

/// The origin that a client sent; `None` for `null`.
fn parse_sent(field: &[u8]) -> Result<Option<Origin>, OriginError> {
    if field == b"null" {
        return Ok(None);
    }
    std::str::from_utf8(field)
        .ok()
        .and_then(Origin::parse)
        .map(Some)
        .ok_or_else(|| OriginError::Malformed(excerpt(field)))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn is_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[') {
        let literal = inside.strip_suffix(']').unwrap_or_default();
        return literal.contains(':')
            && literal
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn port_number(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadLimits;
    use super::*;

    fn check(
        policy: &OriginPolicy,
        host: &str,
        origins: &[&str],
        transport: Transport,
    ) -> Result<(), OriginError> {
        let mut text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n");
        for origin in origins {
            text.push_str(&format!("Origin: {origin}\r\n"));
        }
        text.push_str("\r\n");
        let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default()).unwrap();
        policy.check(&head, transport)
    }

    #[test]
    fn hs_20_pages_of_the_same_host_may_connect() {
        let policy = OriginPolicy::same_host();
        for (host, origin, plain, tls) in [
            ("example.com", "https://example.com", true, true),
            ("example.com", "http://example.com", true, false),
            ("EXAMPLE.com", "https://Example.COM", true, true),
            ("example.com:443", "https://example.com", true, true),
            ("example.com:80", "http://example.com", true, false),
            ("example.com:8443", "https://example.com:8443", true, true),
            ("example.com", "https://example.com:443", true, true),
            ("[::1]:8080", "http://[::1]:8080", true, false),
            ("127.0.0.1:9001", "http://127.0.0.1:9001", true, false),
            ("example.com:8443", "https://example.com", false, false),
            ("example.com", "https://example.com:8443", false, false),
            ("example.com:80", "https://example.com", false, false),
            ("example.com", "https://www.example.com", false, false),
            ("example.com", "https://example.com.evil.net", false, false),
            ("example.com", "https://evilexample.com", false, false),
            ("example.com", "https://evil.net", false, false),
            ("example.com", "ftp://example.com", false, false),
            ("example.com", "wss://example.com", false, false),
            ("example.com", "null", false, false),
            ("null", "null", false, false),
        ] {
            let found = [Transport::Plain, Transport::Tls]
                .map(|transport| check(&policy, host, &[origin], transport).is_ok());
            assert_eq!(found, [plain, tls], "{origin} at {host}");
        }
    }

    #[test]
    fn hs_20_only_listed_origins_may_connect() {
        let policy = OriginPolicy::list([
            "https://a.example",
            "HTTP://B.example:8080",
            "https://*.c.example",
            "chrome-extension://abcdef",
        ])
        .unwrap();
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://A.EXAMPLE:443", true),
            ("http://a.example", false),
            ("https://a.example:444", false),
            ("https://x.a.example", false),
            ("http://b.example:8080", true),
            ("http://b.example", false),
            ("https://x.c.example", true),
            ("https://x.y.c.example", true),
            ("https://c.example", false),
            ("https://.c.example", false),
            ("https://xc.example", false),
            ("https://x.c.example.evil.net", false),
            ("http://x.c.example", false),
            ("https://x.c.example:8443", false),
            ("chrome-extension://abcdef", true),
            ("chrome-extension://abcdeg", false),
            ("null", false),
        ] {
            let found = check(&policy, "h", &[origin], Transport::Tls);
            assert_eq!(found.is_ok(), allowed, "{origin}: {found:?}");
        }
    }

    #[test]
    fn hs_20_null_is_allowed_only_by_its_name() {
        let policy = OriginPolicy::list(["null"]).unwrap();
        assert_eq!(check(&policy, "h", &["null"], Transport::Tls), Ok(()));
        assert!(check(&policy, "h", &["Null"], Transport::Tls).is_err());
        assert!(check(&policy, "h", &["https://h"], Transport::Tls).is_err());
    }

    #[test]
    fn what_is_not_one_origin_is_refused() {
        let policy = OriginPolicy::same_host();
        for origin in [
            "",
            "h",
            "//h",
            "https:h",
            "https://",
            "https://h/",
            "https://h/x",
            "https://h?x",
            "https://h#x",
            "https://u@h",
            "https://h:",
            "https://h:x",
            "https://h:99999",
            "https://h:+443",
            "https://h https://h",
            "https://h, https://h",
            "https://[h]",
            "https://[::1",
            "https://[::1]x",
            "://h",
            "1https://h",
            "https://h\\x",
            "https://h%2e",
            "https://h\u{e9}",
        ] {
            let found = check(&policy, "h", &[origin], Transport::Tls);
            assert!(
                matches!(found, Err(OriginError::Malformed(_))),
                "{origin}: {found:?}"
            );
            assert_eq!(found.map_err(|error| error.status()), Err(403));
        }
        let twice = check(&policy, "h", &["https://h", "https://h"], Transport::Tls);
        assert_eq!(twice, Err(OriginError::Several));
    }

    #[test]
    fn hs_20_clients_that_are_no_pages_may_connect_unless_told_otherwise() {
        for policy in [
            OriginPolicy::any(),
            OriginPolicy::same_host(),
            OriginPolicy::list(["https://a"]).unwrap(),
        ] {
            assert_eq!(check(&policy, "h", &[], Transport::Tls), Ok(()));
            let strict = policy.require_origin();
            assert_eq!(
                check(&strict, "h", &[], Transport::Tls),
                Err(OriginError::Missing)
            );
        }
    }

    #[test]
    fn any_is_any() {
        for origin in ["https://x", "null", "nonsense"] {
            assert_eq!(
                check(&OriginPolicy::any(), "h", &[origin], Transport::Plain),
                Ok(())
            );
        }
    }

    #[test]
    fn a_list_of_what_are_no_origins_is_refused_when_it_is_made() {
        for entry in [
            "",
            "*",
            "example.com",
            "https://a/",
            "https://*",
            "https://*.",
            "https://a*.b",
            "*://a",
            "https://*.[::1]",
            "https://a:b",
            "https://*.*.a",
        ] {
            assert!(OriginPolicy::list([entry]).is_err(), "{entry}");
        }
    }
}
