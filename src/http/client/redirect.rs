//! Where a redirect leads, and what may be said there.

use std::fmt;

use thiserror::Error;

use super::request::Method;
use crate::http::start_line::Authority;
use crate::http::{HeaderList, trim_blanks};

/// Which redirects are followed, and what they may change. Without one none is.
///
/// ```
/// use wsloop::http::client::RedirectPolicy;
/// let policy = RedirectPolicy::new().max(3).same_origin();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RedirectPolicy {
    max: u32,
    downgrade: bool,
    other_origins: bool,
    body_elsewhere: bool,
    secret: Vec<String>,
}

impl RedirectPolicy {
    /// Follows at most 10 redirects, also to other origins, never from `https` to `http`, and
    /// takes a body to no other origin.
    pub const fn new() -> Self {
        Self {
            max: 10,
            downgrade: false,
            other_origins: true,
            body_elsewhere: false,
            secret: Vec::new(),
        }
    }

    /// How many redirects are followed. Default 10.
    pub const fn max(mut self, redirects: u32) -> Self {
        self.max = redirects;
        self
    }

    /// Follows no redirect to another scheme, host or port. Worth it where a vhost has a client
    /// certificate, which it shows to every server that asks, and where a server must not be able to
    /// make this program ask others.
    pub const fn same_origin(mut self) -> Self {
        self.other_origins = false;
        self
    }

    /// Follows a redirect from `https` to `http`, too: what was asked for in private is then asked
    /// for, and answered, in the clear.
    pub const fn danger_allow_downgrade(mut self) -> Self {
        self.downgrade = true;
        self
    }

    /// Sends the body again when a 307 or 308 leads to another origin. Default: that is an error,
    /// since bodies hold credentials as often as headers do.
    pub const fn send_body_elsewhere(mut self) -> Self {
        self.body_elsewhere = true;
        self
    }

    /// A header, beside `Authorization`, `Cookie` and `Proxy-Authorization`, that is not sent to
    /// another origin.
    pub fn secret_header(mut self, name: impl Into<String>) -> Self {
        self.secret.push(name.into());
        self
    }

    /// The caller's fields as they may be sent to the next hop.
    pub fn headers_for(&self, hop: &NextHop, headers: &HeaderList) -> HeaderList {
        let secret = |name: &str| {
            let own = self.secret.iter().map(String::as_str);
            let mut all = SECRET.into_iter().chain(own);
            !hop.same_origin && all.any(|other| other.eq_ignore_ascii_case(name))
        };
        let of_body = |name: &str| {
            let mut all = OF_BODY.into_iter();
            !hop.keeps_body && all.any(|other| other.eq_ignore_ascii_case(name))
        };
        let mut kept = HeaderList::new();
        for (name, value) in headers.iter() {
            if !secret(name) && !of_body(name) {
                // What was checked once is fit to be sent again.
                kept.push(name, value).unwrap_or_default();
            }
        }
        kept
    }
}

impl Default for RedirectPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a request's body can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth kind of body")]
pub enum BodyReplay {
    /// There is none.
    NoBody,
    /// It came from somewhere that cannot be rewound.
    Streamed,
    /// It is still here.
    Whole,
}

/// The redirects of one request, so far.
#[derive(Clone, Debug)]
pub struct Redirects {
    policy: RedirectPolicy,
    /// All that was asked, the first request included.
    asked: Vec<(Method, AbsoluteUrl)>,
}

/// What to ask for next, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextHop {
    /// The method of the next request.
    pub method: Method,
    /// Where it goes.
    pub url: AbsoluteUrl,
    /// Whether the body goes with it.
    pub keeps_body: bool,
    /// Whether scheme, host and port stay: only then do credentials and the caller's own `Host`
    /// go with it.
    pub same_origin: bool,
}

impl Redirects {
    /// Nothing was followed yet.
    pub const fn new(policy: RedirectPolicy) -> Self {
        Self {
            policy,
            asked: Vec::new(),
        }
    }

    /// The policy.
    pub const fn policy(&self) -> &RedirectPolicy {
        &self.policy
    }

    /// How many were followed.
    pub fn count(&self) -> usize {
        self.asked.len().saturating_sub(1)
    }

    /// Judges the final response to a request, given the values of its `Location` fields. `None`:
    /// it is not a redirect, or one without `Location`, and stands as it is (RFC 9110 section 15.4).
    ///
    /// # Errors
    /// [`RedirectError`] when it must not be followed.
    pub fn follow<'v>(
        &mut self,
        method: &Method,
        url: &AbsoluteUrl,
        body: BodyReplay,
        status: u16,
        mut locations: impl Iterator<Item = &'v [u8]>,
    ) -> Result<Option<NextHop>, RedirectError> {
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = match (locations.next(), locations.next()) {
            (None, _) => return Ok(None),
            (Some(location), None) => location,
            (Some(_), Some(_)) => return Err(LocationError::Several.into()),
        };
        let next = url.join(location)?;
        let (method_there, takes_body) = redirected(method, status);
        let hop = NextHop {
            method: method_there,
            same_origin: next.has_origin_of(url),
            url: next,
            keeps_body: takes_body && body != BodyReplay::NoBody,
        };
        if self.asked.is_empty() {
            self.asked.push((method.clone(), url.clone()));
        }
        self.check(url, &hop, body)?;
        self.asked.push((hop.method.clone(), hop.url.clone()));
        Ok(Some(hop))
    }

    fn check(
        &self,
        from: &AbsoluteUrl,
        hop: &NextHop,
        body: BodyReplay,
    ) -> Result<(), RedirectError> {
        let policy = &self.policy;
        let asked =
            |(method, url): &(Method, AbsoluteUrl)| *method == hop.method && *url == hop.url;
        if self.asked.iter().any(asked) {
            return Err(RedirectError::Loop);
        }
        if self.count() >= usize::try_from(policy.max).unwrap_or(usize::MAX) {
            return Err(RedirectError::TooMany { max: policy.max });
        }
        if from.scheme == Scheme::Https && hop.url.scheme == Scheme::Http && !policy.downgrade {
            return Err(RedirectError::Downgrade);
        }
        if !hop.same_origin && !policy.other_origins {
            return Err(RedirectError::OtherOrigin);
        }
        if hop.keeps_body && body == BodyReplay::Streamed {
            return Err(RedirectError::BodyNotReplayable);
        }
        if hop.keeps_body && !hop.same_origin && !policy.body_elsewhere {
            return Err(RedirectError::BodyElsewhere);
        }
        Ok(())
    }
}

/// The method of the next request, and whether it takes the body along. RFC 9110 sections 15.4.2
/// to 15.4.4, with what all user agents do: a POST becomes a GET on 301 and 302, and everything but
/// HEAD does on 303.
fn redirected(method: &Method, status: u16) -> (Method, bool) {
    match status {
        301 | 302 if *method == Method::POST => (Method::GET, false),
        303 if *method == Method::HEAD => (Method::HEAD, false),
        303 => (Method::GET, false),
        _ => (method.clone(), true),
    }
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "there is no third scheme of HTTP")]
pub enum Scheme {
    /// In the clear, port 80.
    Http,
    /// Over TLS, port 443.
    Https,
}

impl Scheme {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| scheme.as_str().eq_ignore_ascii_case(text))
    }
}

/// An `http` or `https` URL, without user and fragment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AbsoluteUrl {
    scheme: Scheme,
    /// Lower case.
    host: String,
    port: u16,
    target: String,
}

impl AbsoluteUrl {
    /// Parses an absolute URL. A fragment is dropped, and what needs percent-encoding in path and
    /// query is encoded.
    ///
    /// # Errors
    /// [`LocationError`] when it is relative or not one that can be asked for.
    pub fn parse(url: &str) -> Result<Self, LocationError> {
        let text = clean(url.as_bytes())?;
        let (scheme, rest) = split_scheme(&text).ok_or(LocationError::Relative)?;
        let scheme = scheme?;
        Self::with_authority(scheme, rest.strip_prefix("//").ok_or(LocationError::Form)?)
    }

    /// Resolves a reference, such as the value of `Location`, against this URL (RFC 3986 section 5).
    ///
    /// # Errors
    /// [`LocationError`] when it leads nowhere that can be asked.
    pub fn join(&self, reference: &[u8]) -> Result<Self, LocationError> {
        let text = clean(reference)?;
        if let Some((scheme, rest)) = split_scheme(&text) {
            let scheme = scheme?;
            let rest = rest.strip_prefix("//").ok_or(LocationError::Form)?;
            return Self::with_authority(scheme, rest);
        }
        if let Some(rest) = text.strip_prefix("//") {
            return Self::with_authority(self.scheme, rest);
        }
        let (path, query) = split_query(&text);
        let (base, base_query) = split_query(&self.target);
        let target = match (path, query) {
            ("", None) => with_query(base, base_query),
            ("", query) => with_query(base, query),
            (path, query) if path.starts_with('/') => with_query(&without_dots(path), query),
            (path, query) => {
                let folder = base
                    .rfind('/')
                    .map_or("/", |slash| base.get(..=slash).unwrap_or("/"));
                with_query(&without_dots(&format!("{folder}{path}")), query)
            }
        };
        Ok(Self {
            target,
            ..self.clone()
        })
    }

    /// The scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's where none was written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as they are asked for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether scheme, host and port are the same (RFC 6454 section 5).
    pub fn has_origin_of(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// What begins with an authority, behind the two slashes.
    fn with_authority(scheme: Scheme, rest: &str) -> Result<Self, LocationError> {
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(LocationError::Userinfo);
        }
        let authority = Authority::parse(authority.as_bytes()).map_err(|_| LocationError::Host)?;
        if authority.port == Some(0) || authority.host.contains('%') {
            return Err(LocationError::Host);
        }
        let (path, query) = split_query(target);
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            scheme,
            host: authority.host.to_ascii_lowercase(),
            port: authority.port.unwrap_or_else(|| scheme.default_port()),
            target: with_query(&without_dots(path), query),
        })
    }
}

impl fmt::Display for AbsoluteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.target)
    }
}

impl fmt::Debug for AbsoluteUrl {
    /// Leaves out the query, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = split_query(&self.target);
        let query = query.map_or("", |_| "?...");
        write!(
            f,
            "{}://{}:{}{path}{query}",
            self.scheme.as_str(),
            self.host,
            self.port
        )
    }
}

/// The text without what is around it and behind `#`, with everything encoded that servers send
/// unencoded and browsers take.
fn clean(reference: &[u8]) -> Result<String, LocationError> {
    let reference = trim_blanks(reference);
    if reference.len() > MAX_LOCATION {
        return Err(LocationError::TooLong);
    }
    let mut text = String::with_capacity(reference.len());
    for &byte in reference.iter().take_while(|&&byte| byte != b'#') {
        match byte {
            // Browsers read it as a slash, others do not: nobody agrees where it leads.
            b'\\' => return Err(LocationError::Backslash),
            0..=0x1f | 0x7f => return Err(LocationError::Control),
            b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                text.push_str(&format!("%{byte:02X}"));
            }
            byte => text.push(char::from(byte)),
        }
    }
    Ok(text)
}

/// The scheme, if there is one, and what is behind its colon.
fn split_scheme(text: &str) -> Option<(Result<Scheme, LocationError>, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let is_scheme = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then(|| (Scheme::parse(scheme).ok_or(LocationError::Scheme), rest))
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() { "/".to_owned() } else { out }
}

/// Why a `Location` leads nowhere.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocationError {
    /// A backslash, which some read as a slash.
    #[error("it has a backslash")]
    Backslash,
    /// A control character.
    #[error("it has a control character")]
    Control,
    /// A scheme without `//`.
    #[error("it has a scheme without \"//\" behind it")]
    Form,
    /// The host or the port is not one.
    #[error("its host or port is not one")]
    Host,
    /// No scheme where one is needed.
    #[error("it is relative, where an absolute URL is needed")]
    Relative,
    /// A scheme other than `http` and `https`.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// More than one `Location`.
    #[error("there is more than one")]
    Several,
    /// Longer than any that is read.
    #[error("it is longer than {MAX_LOCATION} bytes")]
    TooLong,
    /// A user or password.
    #[error("it has a user or password")]
    Userinfo,
}

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectError {
    /// The body would go to another origin.
    #[error(
        "the redirect takes the body to another origin; allow it with \
         RedirectPolicy::send_body_elsewhere"
    )]
    BodyElsewhere,
    /// The body was streamed and cannot be sent again.
    #[error("the redirect wants the body again, which was streamed; give it as bytes")]
    BodyNotReplayable,
    /// From `https` to `http`.
    #[error("the redirect leads from https to http")]
    Downgrade,
    /// `Location` leads nowhere.
    #[error("the Location of the redirect cannot be followed: {0}")]
    Location(#[from] LocationError),
    /// The same request again.
    #[error("the redirects lead in a circle")]
    Loop,
    /// Another origin, which the policy does not allow.
    #[error("the redirect leads to another origin, which the policy does not allow")]
    OtherOrigin,
    /// More than the policy allows.
    #[error("more than {max} redirects")]
    TooMany {
        /// The limit in force.
        max: u32,
    },
}

/// Bytes of the longest `Location` that is read.
const MAX_LOCATION: usize = 8192;

/// Fields that are for one origin only.
const SECRET: [&str; 4] = ["Authorization", "Cookie", "Cookie2", "Proxy-Authorization"];

/// Fields that describe a body (RFC 9110 section 15.4, "Remove ... if the request method has been
/// changed to GET or HEAD").
const OF_BODY: [&str; 7] = [
    "Content-Digest",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-Type",
    "Digest",
    "Last-Modified",
];

#[cfg(test)]
mod tests;
