//! What can be wrong with a description of what to dial.

use thiserror::Error;

use super::MAX_TARGET;
use crate::http::client::RequestProblem;
use crate::http::{HeaderProblem, excerpt};

/// An argument that cannot be used, which one, why, and what to do instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field} \"{value}\": {problem}")]
#[non_exhaustive]
pub struct ArgumentError {
    /// The argument or the setter that it was given to.
    pub field: &'static str,
    /// What was given: printable, cut to a readable length, without a password or a query.
    pub value: String,
    /// What is wrong with it.
    pub problem: ArgumentProblem,
}

impl ArgumentError {
    pub(crate) fn new(field: &'static str, value: &str, problem: ArgumentProblem) -> Self {
        let value = excerpt(without_secrets(value).as_bytes());
        Self {
            field,
            value,
            problem,
        }
    }
}

/// What is wrong with an argument; its text says what to do instead.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentProblem {
    /// A byte that no host may have.
    #[error("has a byte that no host name has; give a plain name or IP address")]
    BadHost,
    /// A port that is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535; correct or leave it out")]
    BadPort,
    /// The same element twice.
    #[error("is there twice; offer each subprotocol once")]
    Duplicate,
    /// Nothing.
    #[error("is empty; leave the call out or give a value")]
    Empty,
    /// A name with nothing between two dots.
    #[error("has an empty label; remove the extra dot")]
    EmptyLabel,
    /// A URL with a fragment.
    #[error("has a fragment, which WebSocket URLs may not have; write \"#\" as \"%23\"")]
    Fragment,
    /// A path where a host is wanted.
    #[error(
        "has a path; give the host alone and call path(..), or use ClientConnectInfo::from_url"
    )]
    HasPath,
    /// A port where a host alone is wanted.
    #[error("has a port; give the host alone and the port as the separate argument")]
    HasPort,
    /// A user name or password.
    #[error("has a user or password; send it with header(\"Authorization\", ..)")]
    HasUserinfo,
    /// A header field that cannot be sent.
    #[error("{0}")]
    Header(HeaderProblem),
    /// An HTTP URL.
    #[error("is for plain HTTP; write ws:// or wss:// for WebSocket, or call FetchInfo::get")]
    HttpScheme,
    /// A URL where a host is wanted.
    #[error("is a URL; call ClientConnectInfo::from_url instead")]
    IsUrl,
    /// A label over 63 bytes.
    #[error("has a label of more than 63 bytes, which no DNS name has; correct the name")]
    LabelTooLong,
    /// Something like an IPv4 address that systems read differently.
    #[error("looks like an IPv4 address but is not four decimal numbers; write it as 192.0.2.1")]
    LooksLikeIpv4,
    /// A URL without scheme.
    #[error(
        "has no scheme; begin with ws:// or wss:// (to fetch, http:// or https://), or call \
         ClientConnectInfo::new"
    )]
    MissingScheme,
    /// A path without its slash.
    #[error("does not begin with \"/\"; add it")]
    MissingSlash,
    /// A name over 253 bytes.
    #[error("is longer than 253 bytes, as no DNS name is; correct the name")]
    NameTooLong,
    /// A name outside ASCII.
    #[error("is not ASCII; give the name in its punycode form (xn--...)")]
    NotAscii,
    /// A URL without a host.
    #[error("names no host; write scheme://host/path, and an IPv6 address in brackets")]
    NoHost,
    /// Not a token.
    #[error("is not a token; use letters, digits and \"-._\"")]
    NotAToken,
    /// Brackets around something that is no IPv6 address, or a bracket alone.
    #[error("is not an IPv6 address in brackets; write it as [2001:db8::1]")]
    NotIpv6,
    /// Not an origin.
    #[error("is not an origin; write scheme://host or scheme://host:port without a path, or null")]
    NotAnOrigin,
    /// Port 0.
    #[error("port 0 cannot be dialled; give a port from 1 to 65535")]
    PortZero,
    /// A request that cannot be sent.
    #[error("{0}")]
    Request(RequestProblem),
    /// A field that the library sends itself.
    #[error("is sent by the library: {0}")]
    ReservedHeader(&'static str),
    /// A scheme other than `ws` and `wss`, or `http` and `https` to fetch.
    #[error("has an unknown scheme; write ws:// or wss://, or to fetch http:// or https://")]
    Scheme,
    /// A target over [`MAX_TARGET`] bytes.
    #[error("is longer than {MAX_TARGET} bytes; send large data in a message")]
    TargetTooLong,
    /// More elements than are possible.
    #[error("is more than can be used; give fewer")]
    TooMany,
    /// Bytes in a target that need encoding.
    #[error("has a blank, a control character or a non-ASCII character; percent-encode it")]
    UnencodedTarget,
    /// A zone in an IPv6 address.
    #[error("has an IPv6 zone; call addresses(..) with a SocketAddrV6 and its scope id")]
    Zone,
    /// A star that is not the whole first label.
    #[error("\"*\" may only be the first of several labels; for all names call default_vhost")]
    Wildcard,
    /// A WebSocket URL where a request is to be made.
    #[error("is for WebSocket; write http:// or https:// to fetch, or call client_connect")]
    WebSocketScheme,
    /// A deadline of zero.
    #[error("is a deadline that has always passed; give a longer one, or None for the default")]
    ZeroTimeout,
}

/// What was given, without the password and the query of a URL, which may be secrets.
fn without_secrets(value: &str) -> String {
    let (scheme, rest) = match value.find("://") {
        Some(colon) => value.split_at(colon + 3),
        None => ("", value),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?..."),
        None => (rest, ""),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("...@", rest),
        None => ("", rest),
    };
    format!("{scheme}{user}{rest}{query}")
}
