//! The opening handshake of RFC 6455 section 4, both sides, without I/O.
//!
//! A server gives a parsed request to [`check_request`] and answers with [`write_accept`] or
//! [`write_refusal`]. A client writes a [`ClientRequest`], finds the response with
//! [`ResponseScanner`], checks it with [`check_response`], and keeps what a refusing server says
//! with a [`RefusalCollector`].

mod client;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use thiserror::Error;

pub use self::client::{
    ClientRequest, Refusal, RefusalCollector, ResponseError, ResponseScanner, check_response,
    reserved_in_request,
};
#[cfg(feature = "deflate")]
pub use self::client::{Welcome, check_response_with};
use crate::http::body::Framing;
use crate::http::head::{HttpVersion, Only, RequestHead};
use crate::http::{
    HeaderList, is_field_value, is_token, write_field, write_headers, write_response,
};

/// Checks a request for a WebSocket upgrade (RFC 6455 section 4.2.1). Extensions that it offers are
/// left aside, which declines them.
///
/// # Errors
/// [`UpgradeError::NotAnUpgrade`] for a plain HTTP request, else the first rule that it breaks.
pub fn check_request<'h>(head: &'h RequestHead<'_>) -> Result<UpgradeRequest<'h>, UpgradeError> {
    check_intent(head)?;
    check_no_body(head)?;
    check_version(head)?;
    let key = match head.fields().only("sec-websocket-key") {
        Only::Missing => return Err(UpgradeError::MissingKey),
        Only::Several => return Err(UpgradeError::SeveralKeys),
        Only::One(key) if is_key(key) => key,
        Only::One(_) => return Err(UpgradeError::BadKey),
    };
    let mut offers = 0;
    for name in head.fields().elements(PROTOCOL) {
        offers += 1;
        if offers > MAX_SUBPROTOCOLS {
            return Err(UpgradeError::TooManySubprotocols);
        }
        if !is_token(name) {
            return Err(UpgradeError::BadSubprotocol);
        }
    }
    Ok(UpgradeRequest {
        accept: accept_key(key),
        head,
    })
}

/// A valid request for a WebSocket upgrade.
#[derive(Debug)]
#[non_exhaustive]
pub struct UpgradeRequest<'h> {
    /// The value of `Sec-WebSocket-Accept` that answers the request's key.
    pub accept: [u8; 28],
    head: &'h RequestHead<'h>,
}

impl<'h> UpgradeRequest<'h> {
    /// The subprotocols that the client offers, in its order of preference, each once.
    pub fn offered(&self) -> impl Iterator<Item = &'h str> + use<'h> {
        let names = |head: &'h RequestHead<'h>| head.fields().elements(PROTOCOL);
        let head = self.head;
        names(head)
            .enumerate()
            .filter(move |&(index, name)| names(head).take(index).all(|earlier| earlier != name))
            .filter_map(|(_, name)| std::str::from_utf8(name).ok())
    }

    /// The head that asks for the upgrade.
    pub fn head(&self) -> &'h RequestHead<'h> {
        self.head
    }
}

/// Why a request is not, or not a valid, WebSocket upgrade.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeError {
    /// `Sec-WebSocket-Key` is not the base64 form of 16 bytes.
    #[error("Sec-WebSocket-Key is not 16 bytes in base64")]
    BadKey,
    /// A subprotocol name is not a token.
    #[error("an element of Sec-WebSocket-Protocol is not a token")]
    BadSubprotocol,
    /// `Sec-WebSocket-Version` is not one number.
    #[error("Sec-WebSocket-Version is not one number from 0 to 255")]
    BadVersion,
    /// The request has a body.
    #[error("the upgrade request has a body (Content-Length or Transfer-Encoding)")]
    Body,
    /// HTTP/1.0 cannot upgrade. A server of pages may treat the request as a plain one
    /// (RFC 9110 section 7.8).
    #[error("the upgrade request is HTTP/1.0; a proxy in between must speak HTTP/1.1")]
    Http10,
    /// The method is not `GET`.
    #[error("the method of the upgrade request is not GET")]
    Method,
    /// A WebSocket request whose `Connection` lacks `upgrade`.
    #[error("Connection does not list \"upgrade\"; a proxy in between must pass it on")]
    MissingConnection,
    /// `Sec-WebSocket-Key` is missing.
    #[error("Sec-WebSocket-Key is missing")]
    MissingKey,
    /// A WebSocket request whose `Upgrade` lacks `websocket`.
    #[error("Upgrade does not list \"websocket\"; a proxy in between must pass it on")]
    MissingUpgrade,
    /// `Sec-WebSocket-Version` is missing.
    #[error("Sec-WebSocket-Version is missing; this server speaks version 13")]
    MissingVersion,
    /// A plain HTTP request, to be answered as one.
    #[error("the request does not ask for a WebSocket upgrade")]
    NotAnUpgrade,
    /// More than one `Sec-WebSocket-Key`.
    #[error("the request has more than one Sec-WebSocket-Key")]
    SeveralKeys,
    /// More subprotocols than are tolerated.
    #[error("the request offers more than {MAX_SUBPROTOCOLS} subprotocols")]
    TooManySubprotocols,
    /// A version of the WebSocket protocol other than 13.
    #[error("Sec-WebSocket-Version is not 13, the only version spoken here")]
    Version,
}

impl UpgradeError {
    /// The status of the response that refuses the request.
    pub fn status(&self) -> u16 {
        match self {
            Self::Method => 405,
            Self::MissingVersion | Self::NotAnUpgrade | Self::Version => 426,
            Self::BadKey
            | Self::BadSubprotocol
            | Self::BadVersion
            | Self::Body
            | Self::Http10
            | Self::MissingConnection
            | Self::MissingKey
            | Self::MissingUpgrade
            | Self::SeveralKeys
            | Self::TooManySubprotocols => 400,
        }
    }

    /// The fields that the status asks for: 405 says which method is allowed, 426 what to upgrade to.
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self.status() {
            405 => &[("Allow", "GET")],
            // RFC 9110 section 15.5.22: "The server MUST send an Upgrade header field in a 426
            // response"; RFC 6455 section 4.4: the version that the server understands.
            426 => &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
            ],
            _ => &[],
        }
    }
}

/// Appends the response that accepts an upgrade: 101, the accept value, the chosen subprotocol and
/// the application's own fields, of which those that [`reserved_in_response`] names and those that
/// [`check_header`](crate::http::check_header) refuses are left out.
pub fn write_accept(
    out: &mut Vec<u8>,
    accept: &[u8; 28],
    subprotocol: Option<&str>,
    extra: &HeaderList,
) {
    write_accept_with(out, accept, subprotocol, None, extra);
}

/// As [`write_accept`], with a value of `Sec-WebSocket-Extensions`: what
/// `ws::deflate::answer_offers` answers.
pub fn write_accept_with(
    out: &mut Vec<u8>,
    accept: &[u8; 28],
    subprotocol: Option<&str>,
    extensions: Option<&str>,
    extra: &HeaderList,
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n");
    if let Some(name) = subprotocol.filter(|name| is_token(name.as_bytes())) {
        write_field(out, "Sec-WebSocket-Protocol", name.as_bytes());
    }
    if let Some(value) = extensions.filter(|value| is_field_value(value.as_bytes())) {
        write_field(out, "Sec-WebSocket-Extensions", value.as_bytes());
    }
    write_headers(
        out,
        extra
            .iter()
            .filter(|(name, _)| reserved_in_response(name).is_none()),
    );
    out.extend_from_slice(b"\r\n");
}

/// Appends the response that refuses an upgrade, with the error's text as its body.
pub fn write_refusal(out: &mut Vec<u8>, error: &UpgradeError) {
    let body = format!("{error}\n");
    let kind = [("Content-Type", "text/plain; charset=utf-8")];
    write_response(
        out,
        error.status(),
        kind.iter().chain(error.headers()).copied(),
        body.as_bytes(),
    );
}

/// The value of `Sec-WebSocket-Accept` for a key: base64 of the SHA-1 of the key and the GUID of
/// RFC 6455 section 4.2.2.
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    STANDARD
        .encode_slice(digest, &mut accept)
        .expect("20 bytes are 28 in base64");
    accept
}

/// Whether an `Origin` is the allowed one (RFC 6454): scheme and host compare case aside, the port
/// exactly, with the scheme's default (80 or 443) equal to no port. `null` and anything that is not
/// `scheme://host[:port]` match nothing.
pub fn origin_matches(origin: &str, allowed: &str) -> bool {
    match (Origin::parse(origin), Origin::parse(allowed)) {
        (Some(origin), Some(allowed)) => {
            origin.scheme.eq_ignore_ascii_case(allowed.scheme)
                && origin.host.eq_ignore_ascii_case(allowed.host)
                && origin.port == allowed.port
        }
        _ => false,
    }
}

/// Why the application may not set a field in the response to an upgrade, or `None` when it may.
pub fn reserved_in_response(name: &str) -> Option<&'static str> {
    reserved(
        name,
        &[
            ("Connection", "it is always Upgrade"),
            ("Content-Length", "a 101 response has no body"),
            ("Sec-WebSocket-Accept", "it is computed from the request"),
            (
                "Sec-WebSocket-Extensions",
                "extensions are negotiated by the library",
            ),
            ("Sec-WebSocket-Protocol", "choose the subprotocol instead"),
            ("Transfer-Encoding", "a 101 response has no body"),
            ("Upgrade", "it is always websocket"),
        ],
    )
}

/// Tells an upgrade from a plain request.
fn check_intent(head: &RequestHead<'_>) -> Result<(), UpgradeError> {
    let upgrade = head.has_token("upgrade", "websocket");
    let connection = head.has_token("connection", "upgrade");
    // Only a client that means it sends a key; what is missing beside it was lost in a proxy.
    let is_meant = head.header("sec-websocket-key").is_some();
    match (upgrade, connection) {
        (true, true) => {}
        (false, _) if is_meant => return Err(UpgradeError::MissingUpgrade),
        (true, false) if is_meant => return Err(UpgradeError::MissingConnection),
        (false, _) | (_, false) => return Err(UpgradeError::NotAnUpgrade),
    }
    if head.method() != "GET" {
        return Err(UpgradeError::Method);
    }
    if head.version() != HttpVersion::Http11 {
        return Err(UpgradeError::Http10);
    }
    Ok(())
}

/// A body before the frames is where two readers of the same bytes part ways: RFC 9112 section 11.2.
fn check_no_body(head: &RequestHead<'_>) -> Result<(), UpgradeError> {
    match Framing::of_request(head) {
        Ok(Framing::Length(0)) => Ok(()),
        Ok(_) | Err(_) => Err(UpgradeError::Body),
    }
}

/// RFC 6455 section 4.2.2: a version that the server does not understand gets 426.
fn check_version(head: &RequestHead<'_>) -> Result<(), UpgradeError> {
    let value = match head.fields().only("sec-websocket-version") {
        Only::Missing => return Err(UpgradeError::MissingVersion),
        Only::Several => return Err(UpgradeError::BadVersion),
        Only::One(value) => value,
    };
    match value {
        b"13" => Ok(()),
        [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'] | [b'1', b'0'..=b'9', b'0'..=b'9'] => {
            Err(UpgradeError::Version)
        }
        [b'2', b'0'..=b'4', b'0'..=b'9'] | [b'2', b'5', b'0'..=b'5'] => Err(UpgradeError::Version),
        _ => Err(UpgradeError::BadVersion),
    }
}

/// Whether the value is 16 bytes in base64. Bits that the last digit leaves over are not looked at.
fn is_key(key: &[u8]) -> bool {
    match key.strip_suffix(b"==") {
        Some(digits) => {
            digits.len() == 22
                && digits
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        }
        None => false,
    }
}

fn reserved(name: &str, table: &[(&str, &'static str)]) -> Option<&'static str> {
    table
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, reason)| *reason)
}

/// The three parts of an origin, its default port filled in.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let end = match authority.find(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, port) = authority.split_at(end);
        let foreign = |byte: u8| !byte.is_ascii_graphic() || b"/?#@\\".contains(&byte);
        if scheme.is_empty() || host.is_empty() || host.bytes().any(foreign) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if port.is_empty() => default_port(scheme),
            _ => return None,
        };
        Some(Self { scheme, host, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// The field of the subprotocols.
const PROTOCOL: &str = "sec-websocket-protocol";

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Subprotocols that a client may offer.
const MAX_SUBPROTOCOLS: usize = 64;

#[cfg(test)]
mod tests;
