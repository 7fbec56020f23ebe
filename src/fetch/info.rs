//! What to fetch and how: pure data, checked before any I/O.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::handler::HttpClientHandle;
use crate::client::{ArgumentError, ArgumentProblem, ClientConnectInfo, ClientTimeouts};
use crate::http::HeaderList;
use crate::http::client::{
    AbsoluteUrl, BodyLength, BodyReplay, Method, NextHop, OutgoingRequest, RedirectPolicy,
    reserved_in_request,
};

/// Everything that one HTTP request needs to know.
///
/// Made from a URL; what to dial, what to send as `Host`, as SNI, and which name the certificate
/// has to be for follow from it and can each be set apart, as in [`ClientConnectInfo`]. Every setter
/// checks its argument at once, and [`Cx::fetch`](crate::Cx::fetch) the names for TLS. Nothing is
/// sent that is not asked for: no `User-Agent`, no `Accept`.
///
/// ```
/// # use wsloop::{ArgumentError, FetchInfo};
/// let info = FetchInfo::post("https://auth.example/check", r#"{"peer":"192.0.2.7"}"#)?
///     .header("Content-Type", "application/json")?
///     .address("10.0.0.7")?;
/// assert_eq!(info.method().as_str(), "POST");
/// # Ok::<(), ArgumentError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct FetchInfo {
    method: Method,
    connect: ClientConnectInfo,
    headers: HeaderList,
    body: Body,
    delivery: Delivery,
    max_body: Option<u64>,
    timeouts: FetchTimeouts,
    redirects: Option<RedirectPolicy>,
    pooled: bool,
    handler: Option<u64>,
}

#[derive(Clone, Debug)]
enum Body {
    Bytes(Bytes),
    None,
    /// Of that length, if it is known.
    Streamed(Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Collected,
    Streamed,
}

/// Deadlines of one request; `None` leaves the default in force. Each is a total that slow bytes do
/// not extend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchTimeouts {
    /// From the call to the end, with redirects and the wait for a connection. Default: none, for
    /// all stages have theirs.
    pub total: Option<Duration>,
    /// For a connection of the pool. Default:
    /// [`PoolConfig::queue_timeout`](crate::http::client::PoolConfig::queue_timeout).
    pub pool: Option<Duration>,
    /// For the name's look-up. Default: [`Timeouts::dns`](crate::Timeouts::dns).
    pub dns: Option<Duration>,
    /// For the connections to all its addresses. Default: [`Timeouts::tcp`](crate::Timeouts::tcp).
    pub tcp: Option<Duration>,
    /// For the TLS handshake. Default: [`Timeouts::tls`](crate::Timeouts::tls).
    pub tls: Option<Duration>,
    /// From the complete request to the head of the response. Default:
    /// [`Timeouts::response`](crate::Timeouts::response).
    pub response: Option<Duration>,
    /// From the head of the response to its end. Default: [`Timeouts::message`](crate::Timeouts::message)
    /// for a body that is collected, none for one that is streamed.
    pub body: Option<Duration>,
}

impl FetchInfo {
    /// A `GET`.
    ///
    /// # Errors
    /// [`ArgumentError`] with the field `url`, and what to do instead.
    pub fn get(url: &str) -> Result<Self, ArgumentError> {
        Self::new(Method::GET, url)
    }

    /// A `POST` with a body.
    ///
    /// # Errors
    /// As [`FetchInfo::get`].
    pub fn post(url: &str, body: impl Into<Bytes>) -> Result<Self, ArgumentError> {
        Ok(Self::new(Method::POST, url)?.body(body))
    }

    /// A request with any method, for an `http://` or `https://` URL. The host is an ASCII name, an
    /// IPv4 address or an IPv6 address in brackets; path and query are sent as they are; a
    /// fragment is dropped.
    ///
    /// # Errors
    /// As [`FetchInfo::get`].
    pub fn new(method: Method, url: &str) -> Result<Self, ArgumentError> {
        Ok(Self {
            method,
            connect: ClientConnectInfo::from_http_url(url)?,
            headers: HeaderList::new(),
            body: Body::None,
            delivery: Delivery::Collected,
            max_body: None,
            timeouts: FetchTimeouts::default(),
            redirects: None,
            pooled: true,
            handler: None,
        })
    }

    /// Sends this body, with its length.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// Sends a body that comes in pieces: [`Cx::fetch_write`](crate::Cx::fetch_write), then
    /// [`Cx::fetch_finish`](crate::Cx::fetch_finish). With a length it is declared and kept to;
    /// without one the body is chunked. Such a request is never repeated, and no redirect that
    /// wants its body again is followed.
    pub fn streamed_body(mut self, length: Option<u64>) -> Self {
        self.body = Body::Streamed(length);
        self
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// [`ArgumentError`] when the name is not a token, the value has a control character, or the
    /// field is one that frames the message; the error says what to do instead.
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

    /// Gives the response's body to [`on_body`](crate::HttpClientHandler::on_body) as it arrives,
    /// instead of collecting it.
    pub fn streamed(mut self) -> Self {
        self.delivery = Delivery::Streamed;
        self
    }

    /// The longest body that the response may have, in bytes; a longer one is an error. Default:
    /// [`Limits::body_bytes`](crate::Limits::body_bytes) when it is collected, no limit when it is
    /// streamed.
    pub const fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// Follows redirects as the policy says. Default: a redirect is a response like any other.
    pub fn redirects(mut self, policy: RedirectPolicy) -> Self {
        self.redirects = Some(policy);
        self
    }

    /// Uses a connection of its own, which is closed afterwards.
    pub const fn no_pool(mut self) -> Self {
        self.pooled = false;
        self
    }

    /// Uses its own deadlines.
    ///
    /// # Errors
    /// [`ArgumentError`] when one is zero.
    pub fn timeouts(mut self, timeouts: FetchTimeouts) -> Result<Self, ArgumentError> {
        let FetchTimeouts {
            total,
            pool,
            dns,
            tcp,
            tls,
            response,
            body,
        } = timeouts;
        let own = [
            ("total", total),
            ("pool", pool),
            ("response", response),
            ("body", body),
        ];
        let zero =
            |(_, timeout): &(&'static str, Option<Duration>)| *timeout == Some(Duration::ZERO);
        if let Some((field, _)) = own.into_iter().find(zero) {
            let problem = ArgumentProblem::ZeroTimeout;
            return Err(ArgumentError::new(field, "0s", problem));
        }
        self.connect = self.connect.timeouts(ClientTimeouts {
            dns,
            tcp,
            tls,
            ..ClientTimeouts::default()
        })?;
        self.timeouts = timeouts;
        Ok(self)
    }

    /// Tells this handler about it. Default: the first one of the vhost.
    pub fn handled_by<H>(mut self, handle: HttpClientHandle<H>) -> Self {
        self.handler = Some(handle.key);
        self
    }

    /// Dials this name or IP address instead of the URL's host, which stays in `Host`.
    ///
    /// # Errors
    /// As [`ClientConnectInfo::address`].
    pub fn address(mut self, address: &str) -> Result<Self, ArgumentError> {
        self.connect = self.connect.address(address)?;
        Ok(self)
    }

    /// Dials these addresses instead, in this order of preference, and looks up no name.
    ///
    /// # Errors
    /// As [`ClientConnectInfo::addresses`].
    pub fn addresses(mut self, addresses: Vec<SocketAddr>) -> Result<Self, ArgumentError> {
        self.connect = self.connect.addresses(addresses)?;
        Ok(self)
    }

    /// Dials this port instead of the URL's, which stays in `Host`.
    ///
    /// # Errors
    /// As [`ClientConnectInfo::port`].
    pub fn port(mut self, port: u16) -> Result<Self, ArgumentError> {
        self.connect = self.connect.port(port)?;
        Ok(self)
    }

    /// Sends this as `Host`, verbatim. It goes to the origin of the URL only, not where a redirect
    /// leads.
    ///
    /// # Errors
    /// As [`ClientConnectInfo::host`].
    pub fn host(mut self, host: impl Into<String>) -> Result<Self, ArgumentError> {
        self.connect = self.connect.host(host)?;
        Ok(self)
    }

    /// The method.
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The URL that is asked for.
    pub fn url(&self) -> String {
        let scheme = if self.connect.is_tls() {
            "https"
        } else {
            "http"
        };
        let name = match self.connect.name().to_string() {
            name if name.contains(':') => format!("[{name}]"),
            name => name,
        };
        let port = self.connect.named_port();
        let target = self.connect.target();
        match (self.connect.is_tls(), port) {
            (true, 443) | (false, 80) => format!("{scheme}://{name}{target}"),
            _ => format!("{scheme}://{name}:{port}{target}"),
        }
    }
}

#[cfg(feature = "tls")]
impl FetchInfo {
    /// The name to send as SNI; see [`ClientConnectInfo::sni`].
    pub fn sni(mut self, sni: crate::tls::Sni) -> Self {
        self.connect = self.connect.sni(sni);
        self
    }

    /// The host name or IP address that the server's certificate has to be for; see
    /// [`ClientConnectInfo::verify_name`].
    pub fn verify_name(mut self, name: impl Into<String>) -> Self {
        self.connect = self.connect.verify_name(name);
        self
    }
}

impl FetchInfo {
    pub(crate) const fn connect(&self) -> &ClientConnectInfo {
        &self.connect
    }

    pub(crate) const fn own_timeouts(&self) -> &FetchTimeouts {
        &self.timeouts
    }

    pub(crate) const fn is_pooled(&self) -> bool {
        self.pooled
    }

    pub(crate) const fn handler_key(&self) -> Option<u64> {
        self.handler
    }

    pub(crate) const fn redirect_policy(&self) -> Option<&RedirectPolicy> {
        self.redirects.as_ref()
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.delivery == Delivery::Streamed
    }

    pub(crate) fn body_limit(&self, collected: u64) -> u64 {
        let default = if self.is_streamed() {
            u64::MAX
        } else {
            collected
        };
        self.max_body.unwrap_or(default)
    }

    /// What is left to be written of a body that comes in pieces; `None` for any other body.
    pub(crate) const fn streams_body(&self) -> Option<Option<u64>> {
        match self.body {
            Body::Streamed(length) => Some(length),
            Body::Bytes(_) | Body::None => None,
        }
    }

    /// The body that is sent with the head.
    pub(crate) fn body_bytes(&self) -> Option<Bytes> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes.clone()),
            Body::None | Body::Streamed(_) => None,
        }
    }

    pub(crate) const fn replay(&self) -> BodyReplay {
        match self.body {
            Body::Bytes(_) => BodyReplay::Whole,
            Body::None => BodyReplay::NoBody,
            Body::Streamed(_) => BodyReplay::Streamed,
        }
    }

    /// The head, ready to be written.
    pub(crate) fn outgoing<'a>(
        &'a self,
        host: &'a str,
    ) -> Result<OutgoingRequest<'a>, ArgumentError> {
        let length = match &self.body {
            Body::Bytes(bytes) => BodyLength::Known(bytes.len() as u64),
            Body::None if self.method.expects_body() => BodyLength::Known(0),
            Body::None => BodyLength::None,
            Body::Streamed(Some(length)) => BodyLength::Known(*length),
            Body::Streamed(None) => BodyLength::Chunked,
        };
        let request = OutgoingRequest::new(&self.method, self.connect.target(), host);
        let request = request.and_then(|request| request.headers(&self.headers));
        let request = request.map_err(|problem| {
            ArgumentError::new(
                "request",
                self.method.as_str(),
                ArgumentProblem::Request(problem),
            )
        })?;
        let request = request.body(length);
        Ok(if self.pooled {
            request
        } else {
            request.closing()
        })
    }

    /// The same request as a redirect wants it. To another origin only what is meant for anybody
    /// goes: no credentials, no `Host`, address or names of the first one.
    pub(crate) fn redirected(&self, hop: &NextHop) -> Result<Self, ArgumentError> {
        let policy = self.redirects.clone().unwrap_or_default();
        let mut next = Self {
            method: hop.method.clone(),
            headers: policy.headers_for(hop, &self.headers),
            ..self.clone()
        };
        if hop.same_origin {
            next.connect = next.connect.path(hop.url.target())?;
        } else {
            let timeouts = *self.connect.timeout_overrides();
            let connect = ClientConnectInfo::from_http_url(&hop.url.to_string())?;
            next.connect = connect.timeouts(timeouts)?;
        }
        if !hop.keeps_body {
            next.body = Body::None;
        }
        Ok(next)
    }

    pub(crate) fn absolute_url(&self) -> Option<AbsoluteUrl> {
        AbsoluteUrl::parse(&self.url()).ok()
    }

    /// The URL without its query, which may be a secret.
    pub(crate) fn shown_url(&self) -> String {
        let url = self.url();
        match url.split_once('?') {
            Some((url, _)) => format!("{url}?..."),
            None => url,
        }
    }

    pub(crate) fn pool_key(&self) -> Arc<PoolKey> {
        let connect = &self.connect;
        Arc::new(PoolKey {
            tls: connect.is_tls(),
            name: connect.name().to_string().to_ascii_lowercase(),
            port: connect.named_port(),
            dial_address: connect.dial_address().to_string().to_ascii_lowercase(),
            dial_addresses: connect.dial_addresses().to_vec(),
            dial_port: connect.dial_port(),
            #[cfg(feature = "tls")]
            sni: connect.sni_choice().map(|sni| format!("{sni:?}")),
            #[cfg(feature = "tls")]
            verify_name: connect.verified_name().map(str::to_ascii_lowercase),
        })
    }
}

impl fmt::Debug for FetchInfo {
    /// Leaves out the query, header values and the body, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchInfo")
            .field("method", &self.method)
            .field("url", &self.shown_url())
            .field("headers", &self.headers)
            .field("streamed", &self.is_streamed())
            .field("max_body", &self.max_body)
            .field("timeouts", &self.timeouts)
            .field("redirects", &self.redirects)
            .field("pooled", &self.pooled)
            .finish_non_exhaustive()
    }
}

/// What makes two connections of a vhost different, but for the generation of its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    tls: bool,
    name: String,
    port: u16,
    dial_address: String,
    dial_addresses: Vec<SocketAddr>,
    dial_port: u16,
    #[cfg(feature = "tls")]
    sni: Option<String>,
    #[cfg(feature = "tls")]
    verify_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> FetchInfo {
        FetchInfo::get(url).unwrap()
    }

    fn written(info: &FetchInfo) -> String {
        let mut out = Vec::new();
        let host = info.connect().host_header();
        let _ = info.outgoing(&host).unwrap().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hc_15_urls_that_cannot_be_fetched_are_refused_with_advice() {
        for (url, advice) in [
            ("ws://h/", "client_connect"),
            ("h/p", "http:// or https://"),
            ("ftp://h/", "http:// or https://"),
            ("http://u:p@h/", "Authorization"),
            ("http://h:0/", "port"),
            ("http://h/a b", "percent-encode"),
            ("http://h/\r\nX: y", "percent-encode"),
            ("http://1.2.3.4.5/", "192.0.2.1"),
            ("http:///p", "names no host"),
        ] {
            let error = FetchInfo::get(url).unwrap_err();
            assert_eq!(error.field, "url");
            assert!(error.to_string().contains(advice), "{error}");
        }
    }

    #[test]
    fn a_url_is_shown_as_it_was_given() {
        for (given, url) in [
            ("http://h", "http://h/"),
            ("HTTP://h:80/a#frag", "http://h/a"),
            ("https://h:8443/a?b", "https://h:8443/a?b"),
            ("https://[::1]:443/", "https://[::1]/"),
            ("http://h?x#y?z", "http://h/?x"),
        ] {
            assert_eq!(get(given).url(), url);
            assert_eq!(get(given).absolute_url().unwrap().to_string(), url);
        }
        let secret = format!("{:?}", get("http://h/?token=hidden"));
        assert!(!secret.contains("hidden"), "{secret}");
    }

    #[test]
    fn a_request_without_a_body_says_so_where_one_is_expected() {
        assert_eq!(
            written(&get("http://h/a")),
            "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        let post = FetchInfo::new(Method::POST, "http://h/a").unwrap();
        assert!(written(&post).contains("Content-Length: 0\r\n"));
        let streamed = post.clone().streamed_body(None);
        assert!(written(&streamed).contains("Transfer-Encoding: chunked\r\n"));
        let streamed = post.streamed_body(Some(7)).no_pool();
        let text = written(&streamed);
        assert!(
            text.contains("Connection: close\r\nContent-Length: 7\r\n"),
            "{text}"
        );
    }

    #[test]
    fn ht_25_framing_headers_are_refused_when_they_are_set() {
        for name in ["Content-Length", "transfer-encoding", "Host", "Connection"] {
            let error = get("http://h/").header(name, "1").unwrap_err();
            assert!(matches!(error.problem, ArgumentProblem::ReservedHeader(_)));
        }
        let error = get("http://h/").header("X", "a\r\nb: c").unwrap_err();
        assert!(matches!(error.problem, ArgumentProblem::Header(_)));
    }

    #[test]
    fn connections_differ_in_all_that_makes_them_different() {
        let base = || get("https://h/a");
        let key = base().pool_key();
        assert_eq!(key, get("https://H:443/b").host("x").unwrap().pool_key());
        let addresses = vec!["10.0.0.1:443".parse().unwrap()];
        let others = [
            get("http://h:443/a"),
            get("https://h:444/a"),
            get("https://g/a"),
            base().address("10.0.0.1").unwrap(),
            base().addresses(addresses).unwrap(),
            base().port(444).unwrap(),
        ];
        let mut keys: Vec<_> = others.iter().map(FetchInfo::pool_key).collect();
        #[cfg(feature = "tls")]
        keys.extend([
            base().sni(crate::tls::Sni::None).pool_key(),
            base().sni(crate::tls::Sni::Name("g".to_owned())).pool_key(),
            base().verify_name("g").pool_key(),
        ]);
        keys.push(key);
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn deadlines_of_zero_are_refused() {
        for change in [
            |timeouts: &mut FetchTimeouts| timeouts.total = Some(Duration::ZERO),
            |timeouts: &mut FetchTimeouts| timeouts.tls = Some(Duration::ZERO),
            |timeouts: &mut FetchTimeouts| timeouts.pool = Some(Duration::ZERO),
        ] {
            let mut timeouts = FetchTimeouts::default();
            change(&mut timeouts);
            let error = get("http://h/").timeouts(timeouts).unwrap_err();
            assert_eq!(error.problem, ArgumentProblem::ZeroTimeout);
        }
    }
}
