//! What a client dials, verifies and says: pure data, checked before any I/O.

mod argument;
mod host;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::http::{HeaderList, check_header, is_token};
use crate::retry::RetryPolicy;
#[cfg(feature = "deflate")]
use crate::ws::deflate::{DeflateConfig, offer};
use crate::ws::handshake::{ClientRequest, reserved_in_request};

pub use argument::{ArgumentError, ArgumentProblem};
pub(crate) use host::check_name;
use host::{parse_host, parse_port, split_port, without_root};

/// Everything that one client connection needs to know.
///
/// Made from a URL or from an address and a port. Where to dial, what to send as `Host` and which
/// name the connection is for are separate, with checked defaults: [`address`](Self::address) and
/// [`port`](Self::port) change only where to dial. Every setter checks its argument at once, and
/// [`Cx::client_connect`](crate::Cx::client_connect) the names for TLS, so that a mistake shows
/// before any name is looked up.
///
/// ```
/// # use wsloop::client::{ArgumentError, ClientConnectInfo};
/// let info = ClientConnectInfo::from_url("ws://example.com/chat?room=1")?
///     .subprotocols(["chat.v2", "chat.v1"])?
///     .header("Authorization", "Bearer abc")?;
/// assert_eq!(info.host_header(), "example.com");
/// # Ok::<(), ArgumentError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientConnectInfo {
    security: Security,
    name: Address,
    port: u16,
    dial_address: Option<Address>,
    dial_addresses: Vec<SocketAddr>,
    dial_port: Option<u16>,
    host: Option<String>,
    target: String,
    origin: Option<String>,
    subprotocols: Vec<String>,
    headers: HeaderList,
    local_protocol: Option<String>,
    timeouts: ClientTimeouts,
    retry: Option<RetryPolicy>,
    #[cfg(feature = "deflate")]
    deflate: Option<Option<DeflateConfig>>,
    #[cfg(feature = "tls")]
    sni: Option<crate::tls::Sni>,
    #[cfg(feature = "tls")]
    verify_name: Option<String>,
}

#[cfg(feature = "tls")]
impl ClientConnectInfo {
    /// The name to send as SNI. Default: what the vhost's [`ClientTls`](crate::tls::ClientTls)
    /// says, and that is by default the URL's host, none if it is an IP address. A name that
    /// cannot be sent is refused by [`Cx::client_connect`](crate::Cx::client_connect).
    pub fn sni(mut self, sni: crate::tls::Sni) -> Self {
        self.sni = Some(sni);
        self
    }

    /// The host name or IP address that the server's certificate has to be for. Default: what
    /// the vhost's [`ClientTls`](crate::tls::ClientTls) says, and that is by default the URL's
    /// host. What is neither is refused by [`Cx::client_connect`](crate::Cx::client_connect).
    pub fn verify_name(mut self, name: impl Into<String>) -> Self {
        self.verify_name = Some(name.into());
        self
    }

    /// The SNI of [`sni`](Self::sni), if it was set.
    pub const fn sni_choice(&self) -> Option<&crate::tls::Sni> {
        self.sni.as_ref()
    }

    /// The name of [`verify_name`](Self::verify_name), if it was set.
    pub fn verified_name(&self) -> Option<&str> {
        self.verify_name.as_deref()
    }
}

impl ClientConnectInfo {
    /// From a `ws://` or `wss://` URL (RFC 6455 section 3). The host is an ASCII name, an IPv4
    /// address or an IPv6 address in brackets; the port defaults to 80 or 443; path and query are
    /// sent as they are.
    ///
    /// # Errors
    /// [`ArgumentError`] with the field `url`, and what to do instead.
    pub fn from_url(url: &str) -> Result<Self, ArgumentError> {
        Self::from_url_of(&WEB_SOCKET, url)
    }

    /// The same from an `http://` or `https://` URL, whose fragment is nobody's business but the
    /// caller's.
    pub(crate) fn from_http_url(url: &str) -> Result<Self, ArgumentError> {
        let (url, _) = url.split_once('#').unwrap_or((url, ""));
        Self::from_url_of(&HTTP, url)
    }

    fn from_url_of(schemes: &Schemes, url: &str) -> Result<Self, ArgumentError> {
        let parts = UrlParts::parse(schemes, url);
        let parts = parts.map_err(|problem| ArgumentError::new("url", url, problem))?;
        Ok(Self::with(
            parts.security,
            parts.name,
            parts.port,
            parts.target,
        ))
    }

    /// From a host name or IP address and a port, without TLS, for the target `/`.
    ///
    /// # Errors
    /// [`ArgumentError`] when the address is anything else (a URL, `host:port`, ...) or the port is 0.
    pub fn new(address: &str, port: u16) -> Result<Self, ArgumentError> {
        let name = parse_address("address", address)?;
        check_port(port)?;
        Ok(Self::with(Security::Plain, name, port, "/".to_owned()))
    }

    fn with(security: Security, name: Address, port: u16, target: String) -> Self {
        Self {
            security,
            name,
            port,
            dial_address: None,
            dial_addresses: Vec::new(),
            dial_port: None,
            host: None,
            target,
            origin: None,
            subprotocols: Vec::new(),
            headers: HeaderList::new(),
            local_protocol: None,
            timeouts: ClientTimeouts::default(),
            retry: None,
            #[cfg(feature = "deflate")]
            deflate: None,
            #[cfg(feature = "tls")]
            sni: None,
            #[cfg(feature = "tls")]
            verify_name: None,
        }
    }

    /// Dials this name or IP address instead of the one given at first, which stays in `Host`.
    ///
    /// # Errors
    /// As [`ClientConnectInfo::new`].
    pub fn address(mut self, address: &str) -> Result<Self, ArgumentError> {
        self.dial_address = Some(parse_address("address", address)?);
        Ok(self)
    }

    /// Dials these addresses instead, in this order of preference, and looks up no name.
    ///
    /// # Errors
    /// [`ArgumentError`] when there is none, more than [`MAX_ADDRESSES`], or one has port 0.
    pub fn addresses(mut self, addresses: Vec<SocketAddr>) -> Result<Self, ArgumentError> {
        let error = |value: &str, problem| Err(ArgumentError::new("addresses", value, problem));
        if addresses.is_empty() {
            return error("", ArgumentProblem::Empty);
        }
        if addresses.len() > MAX_ADDRESSES {
            return error(&addresses.len().to_string(), ArgumentProblem::TooMany);
        }
        if let Some(bad) = addresses.iter().find(|address| address.port() == 0) {
            return error(&bad.to_string(), ArgumentProblem::PortZero);
        }
        self.dial_addresses = addresses;
        Ok(self)
    }

    /// Dials this port instead of the one given at first, which stays in `Host`.
    ///
    /// # Errors
    /// [`ArgumentError`] when it is 0.
    pub fn port(mut self, port: u16) -> Result<Self, ArgumentError> {
        check_port(port)?;
        self.dial_port = Some(port);
        Ok(self)
    }

    /// Sends this as `Host`, verbatim. Default: the host of the URL, with its port unless that is
    /// the scheme's default.
    ///
    /// # Errors
    /// [`ArgumentError`] when it is not a host with an optional port.
    pub fn host(mut self, host: impl Into<String>) -> Result<Self, ArgumentError> {
        let host = host.into();
        check_host_header(&host).map_err(|problem| ArgumentError::new("host", &host, problem))?;
        self.host = Some(host);
        Ok(self)
    }

    /// Sends this `Origin`, as a browser would: `scheme://host[:port]` or `null`. Default: none.
    ///
    /// # Errors
    /// [`ArgumentError`] when it is neither.
    pub fn origin(mut self, origin: impl Into<String>) -> Result<Self, ArgumentError> {
        let origin = origin.into();
        if !is_origin(&origin) {
            return Err(ArgumentError::new(
                "origin",
                &origin,
                ArgumentProblem::NotAnOrigin,
            ));
        }
        self.origin = Some(origin);
        Ok(self)
    }

    /// Asks for this target (path and query). Default: that of the URL, else `/`.
    ///
    /// # Errors
    /// [`ArgumentError`] when it does not begin with `/`, has a fragment, has bytes that need
    /// percent-encoding, or is longer than [`MAX_TARGET`].
    pub fn path(mut self, path: impl Into<String>) -> Result<Self, ArgumentError> {
        let path = path.into();
        check_target(&path).map_err(|problem| ArgumentError::new("path", &path, problem))?;
        self.target = path;
        Ok(self)
    }

    /// Offers these subprotocols in order of preference, instead of those offered before.
    ///
    /// # Errors
    /// [`ArgumentError`] when one is not a token or is there twice (RFC 6455 section 4.1), or there
    /// are more than [`MAX_SUBPROTOCOLS`].
    pub fn subprotocols<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self, ArgumentError> {
        let mut list: Vec<String> = Vec::new();
        for name in names {
            let name = name.into();
            let problem = if name.is_empty() {
                ArgumentProblem::Empty
            } else if !is_token(name.as_bytes()) {
                ArgumentProblem::NotAToken
            } else if list.contains(&name) {
                ArgumentProblem::Duplicate
            } else if list.len() == MAX_SUBPROTOCOLS {
                ArgumentProblem::TooMany
            } else {
                list.push(name);
                continue;
            };
            return Err(ArgumentError::new("subprotocols", &name, problem));
        }
        self.subprotocols = list;
        Ok(self)
    }

    /// Adds a header field to the request.
    ///
    /// # Errors
    /// [`ArgumentError`] when the name is not a token, the value has a control character, or the
    /// field is one that the library sends itself; the error says what to call instead.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Result<Self, ArgumentError> {
        let error = |problem| ArgumentError::new("header", name, problem);
        if let Some(instead) = reserved_in_request(name) {
            return Err(error(ArgumentProblem::ReservedHeader(instead)));
        }
        self.headers
            .push(name, value)
            .map_err(|refused| error(ArgumentProblem::Header(refused.problem)))?;
        Ok(self)
    }

    /// Binds the connection to the protocol of this name in its vhost. Default: the vhost's
    /// default protocol, whatever subprotocol the server chooses.
    ///
    /// # Errors
    /// [`ArgumentError`] when it is empty.
    pub fn local_protocol(mut self, name: impl Into<String>) -> Result<Self, ArgumentError> {
        let name = name.into();
        if name.is_empty() {
            return Err(ArgumentError::new(
                "local_protocol",
                &name,
                ArgumentProblem::Empty,
            ));
        }
        self.local_protocol = Some(name);
        Ok(self)
    }

    /// Dials again when an attempt fails or an established connection is lost, until the policy's
    /// retries are used up, and judges the connection's silence by it in place of the vhost's.
    /// Retries are told by [`Protocol::on_retry`](crate::Protocol::on_retry);
    /// [`forever`](crate::RetryPolicyBuilder::forever) says which failures are tried again. What
    /// the application itself closed stays closed. Without this, every attempt is the only one.
    pub fn reconnect(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Offers to compress messages (permessage-deflate, RFC 7692), in place of what its vhost says.
    #[cfg(feature = "deflate")]
    pub fn deflate(mut self, config: DeflateConfig) -> Self {
        self.deflate = Some(Some(config));
        self
    }

    /// Does not offer compression although its vhost does.
    #[cfg(feature = "deflate")]
    pub fn no_deflate(mut self) -> Self {
        self.deflate = Some(None);
        self
    }

    /// What [`deflate`](Self::deflate) or [`no_deflate`](Self::no_deflate) said last; `None` when
    /// the vhost decides.
    #[cfg(feature = "deflate")]
    pub const fn deflate_choice(&self) -> Option<&Option<DeflateConfig>> {
        self.deflate.as_ref()
    }

    /// Uses its own deadlines in place of the vhost's.
    ///
    /// # Errors
    /// [`ArgumentError`] when one is zero.
    pub fn timeouts(mut self, timeouts: ClientTimeouts) -> Result<Self, ArgumentError> {
        let ClientTimeouts {
            dns,
            tcp,
            tls,
            handshake,
            total,
        } = timeouts;
        for (field, timeout) in [
            ("dns", dns),
            ("tcp", tcp),
            ("tls", tls),
            ("handshake", handshake),
            ("total", total),
        ] {
            if timeout == Some(Duration::ZERO) {
                return Err(ArgumentError::new(
                    field,
                    "0s",
                    ArgumentProblem::ZeroTimeout,
                ));
            }
        }
        self.timeouts = timeouts;
        Ok(self)
    }

    /// When it is dialled again.
    pub fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref()
    }

    /// Whether the connection is to be made over TLS: the URL says `wss`.
    pub fn is_tls(&self) -> bool {
        self.security == Security::Tls
    }

    /// The host that the connection is for: of the URL, or the address given at first. It is what a
    /// certificate has to be for.
    pub fn name(&self) -> &Address {
        &self.name
    }

    /// What to look up and dial when [`dial_addresses`](Self::dial_addresses) is empty.
    pub fn dial_address(&self) -> &Address {
        self.dial_address.as_ref().unwrap_or(&self.name)
    }

    /// The addresses to dial without a look-up; empty when a name is to be looked up.
    pub fn dial_addresses(&self) -> &[SocketAddr] {
        &self.dial_addresses
    }

    /// The port to dial.
    pub fn dial_port(&self) -> u16 {
        self.dial_port.unwrap_or(self.port)
    }

    /// Whom it dials, for people.
    pub(crate) fn dial_target(&self) -> String {
        match (self.dial_addresses(), self.dial_address()) {
            ([first, ..], _) => first.to_string(),
            ([], Address::Ip(ip)) => SocketAddr::new(*ip, self.dial_port()).to_string(),
            ([], Address::Name(name)) => format!("{name}:{}", self.dial_port()),
        }
    }

    /// The value of `Host`.
    pub fn host_header(&self) -> Cow<'_, str> {
        let default_port = self.security.default_port();
        match (&self.host, &self.name) {
            (Some(host), _) => Cow::Borrowed(host),
            (None, Address::Name(name)) if self.port == default_port => {
                Cow::Borrowed(without_root(name))
            }
            (None, Address::Name(name)) => {
                Cow::Owned(format!("{}:{}", without_root(name), self.port))
            }
            (None, Address::Ip(ip)) if self.port == default_port => Cow::Owned(bracketed(ip)),
            (None, Address::Ip(ip)) => Cow::Owned(format!("{}:{}", bracketed(ip), self.port)),
        }
    }

    /// The port that the connection is for: of the URL, or the one given at first.
    pub(crate) fn named_port(&self) -> u16 {
        self.port
    }

    /// The request target: path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The value of `Origin`.
    pub fn origin_header(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The subprotocols to offer.
    pub fn offered_subprotocols(&self) -> &[String] {
        &self.subprotocols
    }

    /// The application's own header fields.
    pub fn extra_headers(&self) -> &HeaderList {
        &self.headers
    }

    /// The name of the protocol that the connection is bound to.
    pub fn local_protocol_name(&self) -> Option<&str> {
        self.local_protocol.as_deref()
    }

    /// Deadlines that replace those of the vhost.
    pub fn timeout_overrides(&self) -> &ClientTimeouts {
        &self.timeouts
    }

    /// Appends the upgrade request and returns its key; see [`ClientRequest::write`].
    pub fn write_request(&self, out: &mut Vec<u8>, nonce: [u8; 16]) -> [u8; 24] {
        #[cfg(feature = "deflate")]
        let extensions = self.deflate.flatten().map(|config| offer(&config));
        #[cfg(not(feature = "deflate"))]
        let extensions: Option<String> = None;
        self.write_request_with(out, nonce, extensions.as_deref())
    }

    /// As [`ClientConnectInfo::write_request`], with that value of `Sec-WebSocket-Extensions`.
    pub(crate) fn write_request_with(
        &self,
        out: &mut Vec<u8>,
        nonce: [u8; 16],
        extensions: Option<&str>,
    ) -> [u8; 24] {
        let request = ClientRequest {
            host: &self.host_header(),
            target: &self.target,
            origin: self.origin.as_deref(),
            subprotocols: &self.subprotocols,
            extensions,
            headers: Some(&self.headers),
        };
        request.write(out, nonce)
    }
}

impl fmt::Debug for ClientConnectInfo {
    /// Leaves out the query and header values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        f.debug_struct("ClientConnectInfo")
            .field("security", &self.security)
            .field("address", self.dial_address())
            .field("addresses", &self.dial_addresses)
            .field("port", &self.dial_port())
            .field("host", &self.host_header())
            .field("path", &path)
            .field("origin", &self.origin)
            .field("subprotocols", &self.subprotocols)
            .field("headers", &self.headers)
            .field("local_protocol", &self.local_protocol)
            .field("timeouts", &self.timeouts)
            .finish()
    }
}

/// A host: a name to look up, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address, which needs no look-up.
    Ip(IpAddr),
    /// A host name as it was given, at most 254 bytes of ASCII. A dot at its end keeps the search
    /// domains out of its look-up.
    Name(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Deadlines of one client connection; `None` leaves the vhost's ([`Timeouts`](crate::Timeouts)) in
/// force. Each is a total that slow bytes do not extend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTimeouts {
    /// For the name's look-up.
    pub dns: Option<Duration>,
    /// For the connections to all its addresses.
    pub tcp: Option<Duration>,
    /// For the TLS handshake.
    pub tls: Option<Duration>,
    /// From the connection to the end of the opening handshake; on the vhost it is called
    /// [`response`](crate::Timeouts::response).
    pub handshake: Option<Duration>,
    /// From the begin of the attempt to the end of the opening handshake; on the vhost it is called
    /// [`connect`](crate::Timeouts::connect).
    pub total: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Plain,
    Tls,
}

impl Security {
    fn default_port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Tls => 443,
        }
    }
}

struct UrlParts {
    security: Security,
    name: Address,
    port: u16,
    target: String,
}

/// The schemes of one kind of URL, without and with TLS, and what to say to the other kind.
struct Schemes {
    plain: &'static str,
    tls: &'static str,
    others: [&'static str; 2],
    problem: ArgumentProblem,
}

/// RFC 6455 section 3.
const WEB_SOCKET: Schemes = Schemes {
    plain: "ws",
    tls: "wss",
    others: ["http", "https"],
    problem: ArgumentProblem::HttpScheme,
};

/// RFC 9110 section 4.2.
const HTTP: Schemes = Schemes {
    plain: "http",
    tls: "https",
    others: ["ws", "wss"],
    problem: ArgumentProblem::WebSocketScheme,
};

impl UrlParts {
    fn parse(schemes: &Schemes, url: &str) -> Result<Self, ArgumentProblem> {
        if url.is_empty() {
            return Err(ArgumentProblem::Empty);
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or(ArgumentProblem::MissingScheme)?;
        let security = match scheme.to_ascii_lowercase().as_str() {
            scheme if scheme == schemes.plain => Security::Plain,
            scheme if scheme == schemes.tls => Security::Tls,
            scheme if schemes.others.contains(&scheme) => return Err(schemes.problem),
            _ => return Err(ArgumentProblem::Scheme),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(ArgumentProblem::HasUserinfo);
        }
        let target = match target {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        if target.starts_with('#') {
            return Err(ArgumentProblem::Fragment);
        }
        check_target(&target)?;
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(ArgumentProblem::NoHost);
        }
        let name = parse_host(host)?;
        let port = match port {
            None | Some("") => security.default_port(),
            Some(port) => parse_port(port)?,
        };
        Ok(Self {
            security,
            name,
            port,
            target,
        })
    }
}

/// Parses a host alone, and recognises what people write in its place.
fn parse_address(field: &'static str, address: &str) -> Result<Address, ArgumentError> {
    let problem = if address.contains("://") {
        ArgumentProblem::IsUrl
    } else if address.contains('@') {
        ArgumentProblem::HasUserinfo
    } else if address.contains(['/', '?', '#']) {
        ArgumentProblem::HasPath
    } else {
        let host = match address.parse::<Ipv6Addr>() {
            Ok(ip) => return Ok(Address::Ip(ip.into())),
            Err(_) if address.contains('%') && address.contains(':') => Err(ArgumentProblem::Zone),
            Err(_) => match split_port(address) {
                Ok((host, None)) => parse_host(host),
                Ok((_, Some(_))) => Err(ArgumentProblem::HasPort),
                Err(problem) => Err(problem),
            },
        };
        match host {
            Ok(host) => return Ok(host),
            Err(problem) => problem,
        }
    };
    Err(ArgumentError::new(field, address, problem))
}

fn check_port(port: u16) -> Result<(), ArgumentError> {
    match port {
        0 => Err(ArgumentError::new("port", "0", ArgumentProblem::PortZero)),
        _ => Ok(()),
    }
}

fn check_target(target: &str) -> Result<(), ArgumentProblem> {
    if !target.starts_with('/') {
        return Err(ArgumentProblem::MissingSlash);
    }
    if target.contains('#') {
        return Err(ArgumentProblem::Fragment);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ArgumentProblem::UnencodedTarget);
    }
    if target.len() > MAX_TARGET {
        return Err(ArgumentProblem::TargetTooLong);
    }
    Ok(())
}

fn check_host_header(host: &str) -> Result<(), ArgumentProblem> {
    if host.contains("://") {
        return Err(ArgumentProblem::IsUrl);
    }
    if host.contains('@') {
        return Err(ArgumentProblem::HasUserinfo);
    }
    if host.contains(['/', '?', '#']) {
        return Err(ArgumentProblem::HasPath);
    }
    check_header("Host", host.as_bytes())
        .map_err(|error| ArgumentProblem::Header(error.problem))?;
    let (name, port) = split_port(host)?;
    parse_host(name)?;
    port.map_or(Ok(0), parse_port).map(drop)
}

fn is_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return origin == "null";
    };
    is_token(scheme.as_bytes())
        && !authority.is_empty()
        && authority
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/?#@\\,".contains(&b))
}

fn bracketed(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The longest request target that can be asked for, in bytes.
pub const MAX_TARGET: usize = 8192;

/// The most addresses that can be dialled for one connection.
pub const MAX_ADDRESSES: usize = 64;

/// The most subprotocols that can be offered.
pub const MAX_SUBPROTOCOLS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeaderProblem;

    use ArgumentProblem as Problem;

    fn url(url: &str) -> Result<ClientConnectInfo, Problem> {
        ClientConnectInfo::from_url(url).map_err(|error| {
            assert_eq!(error.field, "url");
            error.problem
        })
    }

    fn address(address: &str) -> Result<Address, Problem> {
        let new = ClientConnectInfo::new(address, 80);
        let set = ClientConnectInfo::new("h", 80).unwrap().address(address);
        match (new, set) {
            (Ok(new), Ok(set)) => {
                assert_eq!(new.name(), set.dial_address());
                Ok(new.name().clone())
            }
            (Err(new), Err(set)) => {
                assert_eq!((new.field, &new), ("address", &set));
                Err(new.problem)
            }
            (new, set) => panic!("{address:?}: {new:?} {set:?}"),
        }
    }

    fn info() -> ClientConnectInfo {
        ClientConnectInfo::new("h", 80).unwrap()
    }

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    #[test]
    fn a_url_says_what_to_dial_and_what_to_say() {
        for (text, tls, name, port, host, target) in [
            ("ws://h", false, "h", 80, "h", "/"),
            (
                "WSS://Example.com/chat?x=/?",
                true,
                "Example.com",
                443,
                "Example.com",
                "/chat?x=/?",
            ),
            ("ws://h:443?x", false, "h", 443, "h:443", "/?x"),
            ("wss://h:443/", true, "h", 443, "h", "/"),
            ("wss://h:80/", true, "h", 80, "h:80", "/"),
            ("ws://h:/", false, "h", 80, "h", "/"),
            ("ws://[::1]/", false, "::1", 80, "[::1]", "/"),
            (
                "ws://[2001:DB8::1]:81",
                false,
                "2001:db8::1",
                81,
                "[2001:db8::1]:81",
                "/",
            ),
            (
                "ws://1.2.3.4:8080",
                false,
                "1.2.3.4",
                8080,
                "1.2.3.4:8080",
                "/",
            ),
            (
                "ws://xn--bcher-kva.example/%C3%A9",
                false,
                "xn--bcher-kva.example",
                80,
                "xn--bcher-kva.example",
                "/%C3%A9",
            ),
            (
                "ws://h.example.:81/",
                false,
                "h.example.",
                81,
                "h.example:81",
                "/",
            ),
            (
                "ws://my_service/a@b",
                false,
                "my_service",
                80,
                "my_service",
                "/a@b",
            ),
        ] {
            let info = url(text).unwrap();
            assert_eq!(info.is_tls(), tls, "{text}");
            assert_eq!(info.dial_address().to_string(), name, "{text}");
            assert_eq!(info.name(), info.dial_address(), "{text}");
            assert_eq!((info.dial_port(), info.target()), (port, target), "{text}");
            assert_eq!(info.host_header(), host, "{text}");
        }
    }

    #[test]
    fn hc_15_urls_that_cannot_be_dialled_are_refused() {
        for (text, problem) in [
            ("", Problem::Empty),
            ("h/p", Problem::MissingScheme),
            ("ws:/h", Problem::MissingScheme),
            ("http://h/", Problem::HttpScheme),
            ("HTTPS://h/", Problem::HttpScheme),
            ("ftp://h/", Problem::Scheme),
            ("://h/", Problem::Scheme),
            (" ws://h/", Problem::Scheme),
            ("ws://", Problem::NoHost),
            ("ws:///p", Problem::NoHost),
            ("ws://:80/", Problem::NoHost),
            ("ws://u:p@h/", Problem::HasUserinfo),
            ("ws://u@h/", Problem::HasUserinfo),
            ("ws://@h/", Problem::HasUserinfo),
            ("ws://h/#f", Problem::Fragment),
            ("ws://h#f", Problem::Fragment),
            ("ws://h?x#", Problem::Fragment),
            ("ws://h/a b", Problem::UnencodedTarget),
            ("ws://h/\r\nX: y", Problem::UnencodedTarget),
            ("ws://h/\u{e9}", Problem::UnencodedTarget),
            ("ws://h:0/", Problem::PortZero),
            ("ws://h:65536/", Problem::BadPort),
            ("ws://h:+80/", Problem::BadPort),
            ("ws://h:8 0/", Problem::BadPort),
            ("ws://h:80:80/", Problem::BadPort),
            ("ws://[::1/", Problem::NotIpv6),
            ("ws://[::1]x/", Problem::NotIpv6),
            ("ws://[h]/", Problem::NotIpv6),
            ("ws://[]/", Problem::NotIpv6),
            ("ws://[1.2.3.4]/", Problem::NotIpv6),
            ("ws://[fe80::1%25eth0]/", Problem::Zone),
            ("ws://::1/", Problem::NoHost),
            ("ws://h\\@evil/", Problem::HasUserinfo),
            ("ws://h\\evil/", Problem::BadHost),
            ("ws://b\u{fc}cher.example/", Problem::NotAscii),
            ("ws://1.2.3.4.5/", Problem::LooksLikeIpv4),
        ] {
            assert_eq!(url(text).map(drop), Err(problem), "{text:?}");
        }
        let long = format!("ws://h/{}", "x".repeat(MAX_TARGET));
        assert_eq!(url(&long).map(drop), Err(Problem::TargetTooLong));
    }

    #[test]
    fn hc_15_addresses_that_are_something_else_are_refused() {
        for (text, problem) in [
            ("wss://h/p", Problem::IsUrl),
            ("h/p", Problem::HasPath),
            ("h?x", Problem::HasPath),
            ("user@h", Problem::HasUserinfo),
            ("h:443", Problem::HasPort),
            ("h:", Problem::HasPort),
            ("1.2.3.4:80", Problem::HasPort),
            ("[::1]:80", Problem::HasPort),
            ("[::1", Problem::NotIpv6),
            ("[::1]x", Problem::NotIpv6),
            ("fe80::1%eth0", Problem::Zone),
            ("[fe80::1%eth0]", Problem::Zone),
            ("", Problem::Empty),
            (".", Problem::EmptyLabel),
            ("..", Problem::EmptyLabel),
            ("a..b", Problem::EmptyLabel),
            (".a", Problem::EmptyLabel),
            ("a b", Problem::BadHost),
            (" h", Problem::BadHost),
            ("h ", Problem::BadHost),
            ("h\0", Problem::BadHost),
            ("h\r\n", Problem::BadHost),
            ("h%41", Problem::BadHost),
            ("b\u{fc}cher.example", Problem::NotAscii),
            ("\u{ff11}.2.3.4", Problem::NotAscii),
        ] {
            assert_eq!(address(text), Err(problem), "{text:?}");
        }
    }

    #[test]
    fn hc_15_old_forms_of_ipv4_never_reach_a_resolver() {
        for text in [
            "1.2.3.4.5",
            "0x7f.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F.0.0.1",
            "01.2.3.4",
            "1.2.3.256",
            "1.2.3.4.",
            "h.example.0x1",
            "h.1",
        ] {
            assert_eq!(address(text), Err(Problem::LooksLikeIpv4), "{text:?}");
        }
        assert_eq!(address("1.2.3.4"), Ok(ip("1.2.3.4")));
        assert_eq!(
            address("1.example"),
            Ok(Address::Name("1.example".to_owned()))
        );
        assert_eq!(address("0xg"), Ok(Address::Name("0xg".to_owned())));
    }

    #[test]
    fn hc_15_names_are_as_long_as_dns_allows() {
        let label = |length: usize| "a".repeat(length);
        assert_eq!(address(&label(300)), Err(Problem::LabelTooLong));
        assert_eq!(address(&label(64)), Err(Problem::LabelTooLong));
        assert!(address(&label(63)).is_ok());
        let name = format!("{0}.{0}.{0}.{1}", label(63), label(61));
        assert_eq!(name.len(), 253);
        assert!(address(&name).is_ok());
        assert!(address(&format!("{name}.")).is_ok());
        assert_eq!(address(&format!("{name}a")), Err(Problem::NameTooLong));
    }

    #[test]
    fn ipv6_addresses_are_taken_with_and_without_brackets() {
        assert_eq!(address("::1"), Ok(ip("::1")));
        assert_eq!(address("[::1]"), Ok(ip("::1")));
        assert_eq!(
            ClientConnectInfo::new("::1", 81).unwrap().host_header(),
            "[::1]:81"
        );
    }

    #[test]
    fn hc_15_port_0_is_refused_everywhere() {
        let error = ClientConnectInfo::new("h", 0).unwrap_err();
        assert_eq!((error.field, error.problem), ("port", Problem::PortZero));
        assert_eq!(info().port(0).unwrap_err().problem, Problem::PortZero);
        let addresses = vec!["1.2.3.4:80".parse().unwrap(), "1.2.3.4:0".parse().unwrap()];
        assert_eq!(
            info().addresses(addresses).unwrap_err().problem,
            Problem::PortZero
        );
    }

    #[test]
    fn hc_15_an_argument_error_reads_as_advice() {
        let error = ClientConnectInfo::new("wss://h/p", 80).unwrap_err();
        let expected = "address \"wss://h/p\": is a URL; call ClientConnectInfo::from_url instead";
        assert_eq!(error.to_string(), expected);
        let error = info().header("Host", "x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "header \"Host\": is sent by the library: call host(..) instead"
        );
        let long = ClientConnectInfo::new(&"a\n".repeat(1000), 80).unwrap_err();
        assert!(long.to_string().len() < 400, "{long}");
        assert!(!long.to_string().contains('\n'));
    }

    #[test]
    fn errors_and_debug_keep_secrets() {
        for text in [
            "ws://user:secret@h/",
            "http://user:secret@h/",
            "ws://user:sec/secret@h/",
            "ws://h/?token=secret#x",
            "user:secret@h",
        ] {
            let error = ClientConnectInfo::from_url(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let info = url("ws://h/p?token=secret")
            .unwrap()
            .header("Authorization", "secret")
            .unwrap();
        let shown = format!("{info:?}");
        assert!(shown.contains("/p") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_dialled_is_apart_from_what_is_said() {
        let info = url("ws://h:8080/")
            .unwrap()
            .address("10.0.0.1")
            .unwrap()
            .port(9000)
            .unwrap();
        assert_eq!(
            (info.dial_address(), info.dial_port()),
            (&ip("10.0.0.1"), 9000)
        );
        assert_eq!(info.host_header(), "h:8080");
        assert_eq!(info.name(), &Address::Name("h".to_owned()));
        let list: Vec<SocketAddr> = vec!["[::1]:1".parse().unwrap(), "1.2.3.4:2".parse().unwrap()];
        let info = info
            .addresses(list.clone())
            .unwrap()
            .host("other:1")
            .unwrap();
        assert_eq!(info.dial_addresses(), list);
        assert_eq!(info.host_header(), "other:1");
        assert_eq!(
            info.clone().addresses(vec![]).unwrap_err().problem,
            Problem::Empty
        );
        assert_eq!(
            info.addresses(vec![list[0]; 65]).unwrap_err().problem,
            Problem::TooMany
        );
    }

    #[test]
    fn hosts_origins_and_paths_are_checked() {
        for (host, problem) in [
            ("", Problem::Empty),
            ("ws://h", Problem::IsUrl),
            ("u@h", Problem::HasUserinfo),
            ("h/p", Problem::HasPath),
            ("h\r\nX: y", Problem::Header(HeaderProblem::Value)),
            ("h:0", Problem::PortZero),
            ("h:x", Problem::BadPort),
            ("h h", Problem::BadHost),
        ] {
            assert_eq!(info().host(host).unwrap_err().problem, problem, "{host:?}");
        }
        assert_eq!(info().host("[::1]:80").unwrap().host_header(), "[::1]:80");
        for origin in [
            "",
            "h",
            "http://",
            "http://h/",
            "http://a b",
            "http://h\r\n",
            "http://u@h",
            "a:b",
        ] {
            assert_eq!(
                info().origin(origin).unwrap_err().problem,
                Problem::NotAnOrigin,
                "{origin:?}"
            );
        }
        for origin in ["null", "https://h:8080", "chrome-extension://abc"] {
            assert_eq!(info().origin(origin).unwrap().origin_header(), Some(origin));
        }
        for (path, problem) in [
            ("", Problem::MissingSlash),
            ("chat", Problem::MissingSlash),
            ("/#x", Problem::Fragment),
            ("/ x", Problem::UnencodedTarget),
            ("/\0", Problem::UnencodedTarget),
        ] {
            assert_eq!(info().path(path).unwrap_err().problem, problem, "{path:?}");
        }
        assert_eq!(info().path("/a?b").unwrap().target(), "/a?b");
    }

    #[test]
    fn subprotocols_are_distinct_tokens() {
        let offer = |names: &[&str]| {
            let offered = info().subprotocols(names.iter().copied());
            offered
                .map(|info| info.offered_subprotocols().to_vec())
                .map_err(|error| error.problem)
        };
        assert_eq!(offer(&["b", "a"]), Ok(vec!["b".to_owned(), "a".to_owned()]));
        assert_eq!(offer(&["a", "a"]), Err(Problem::Duplicate));
        assert_eq!(offer(&["a, b"]), Err(Problem::NotAToken));
        assert_eq!(offer(&["a\r\n"]), Err(Problem::NotAToken));
        assert_eq!(offer(&[""]), Err(Problem::Empty));
        let many = (0..65).map(|n| format!("p{n}"));
        assert_eq!(
            info().subprotocols(many).unwrap_err().problem,
            Problem::TooMany
        );
    }

    #[test]
    fn hc_14_header_fields_are_checked_before_anything_is_dialled() {
        for (name, value, problem) in [
            ("X-A", "a\r\nb", HeaderProblem::Value),
            ("X-A", "a\0", HeaderProblem::Value),
            ("X A", "a", HeaderProblem::Name),
            ("", "a", HeaderProblem::EmptyName),
        ] {
            let error = info().header(name, value).unwrap_err();
            assert_eq!(
                (error.field, error.problem),
                ("header", Problem::Header(problem))
            );
        }
        for name in [
            "host",
            "Upgrade",
            "CONNECTION",
            "Sec-WebSocket-Key",
            "sec-websocket-version",
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Extensions",
            "Content-Length",
            "Transfer-Encoding",
            "Origin",
        ] {
            let error = info().header(name, "x").unwrap_err();
            assert!(
                matches!(error.problem, Problem::ReservedHeader(_)),
                "{name}"
            );
        }
        let info = info().header("X-Latin", b"\xe9".as_slice()).unwrap();
        assert_eq!(
            info.extra_headers().get("x-latin"),
            Some(b"\xe9".as_slice())
        );
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        let second = Some(Duration::from_secs(1));
        let good = ClientTimeouts {
            tcp: second,
            ..ClientTimeouts::default()
        };
        assert_eq!(
            info().timeouts(good).unwrap().timeout_overrides().tcp,
            second
        );
        let bad = ClientTimeouts {
            total: Some(Duration::ZERO),
            ..good
        };
        let error = info().timeouts(bad).unwrap_err();
        assert_eq!(
            (error.field, error.problem),
            ("total", Problem::ZeroTimeout)
        );
    }

    #[test]
    fn the_request_says_what_was_set() {
        let info = url("ws://[::1]:81/chat?x=1")
            .unwrap()
            .origin("http://h")
            .and_then(|info| info.subprotocols(["a", "b"]))
            .and_then(|info| info.header("X-A", "y"))
            .and_then(|info| info.local_protocol("chat"))
            .unwrap();
        assert_eq!(info.local_protocol_name(), Some("chat"));
        let mut out = Vec::new();
        let key = info.write_request(&mut out, *b"the sample nonce");
        assert_eq!(&key, b"dGhlIHNhbXBsZSBub25jZQ==");
        let expected = "GET /chat?x=1 HTTP/1.1\r\nHost: [::1]:81\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nOrigin: http://h\r\nSec-WebSocket-Protocol: a, b\r\n\
            X-A: y\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_protocol_of_ones_own_without_a_name_is_refused() {
        let info = ClientConnectInfo::new("a.test", 80).unwrap();
        let error = info.local_protocol("").unwrap_err();
        assert_eq!(
            (error.field, error.problem),
            ("local_protocol", Problem::Empty)
        );
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn what_was_said_last_about_compression_holds() {
        let info = ClientConnectInfo::new("a.test", 80).unwrap();
        assert_eq!(info.deflate_choice(), None);
        let info = info.deflate(DeflateConfig::new()).no_deflate();
        assert_eq!(info.deflate_choice(), Some(&None));
    }
}
