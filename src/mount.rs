//! Which part of a vhost's paths is served by what: [`Mount`].

mod files;
mod open;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::handler::{BoundHandler, FnHandler, HttpDispatch, HttpHandler, HttpRequest};
use crate::http::auth::BasicRealm;
use crate::http::head::RequestHead;
use crate::http::origin::{OriginPolicy, Transport};
use crate::http::path::decoded_prefix;
use crate::http::response::{Response, has_no_body, is_framing_field};
use crate::http::{HeaderError, HeaderList};
use crate::id::HandlerHandle;
pub use files::{EmbeddedFiles, FilesError, StaticFiles};
pub use transfer::FileTransfer;

/// Serves the paths of a vhost below a prefix.
///
/// A prefix ends at a segment: `/api` serves `/api` and `/api/users`, and not `/apis`. Of several
/// that fit, the longest serves. Paths are compared with their percent-encoding undone, so that
/// `/%61pi` is nobody else's than `/api`; an encoded slash ends no segment.
///
/// ```
/// use wsloop::{Mount, Response, VhostConfig};
///
/// let config = VhostConfig::new("localhost")
///     .mount(Mount::call("/health", |_| Response::text(200, "ok\n")))
///     .mount(Mount::redirect("/old", 308, "/new"));
/// ```
#[derive(Debug)]
#[must_use]
pub struct Mount {
    pub(crate) prefix: String,
    pub(crate) target: Target,
    pub(crate) options: MountOptions,
}

/// What serves a mount.
#[derive(Debug)]
pub(crate) enum Target {
    Handler {
        key: u64,
        dispatch: Box<dyn HttpDispatch>,
    },
    /// The name of a protocol of the vhost.
    Protocol(String),
    Response(Response),
}

/// What holds for all requests of a mount.
#[derive(Clone, Debug, Default)]
pub(crate) struct MountOptions {
    /// Only the prefix itself, nothing below.
    pub(crate) exact: bool,
    /// Bytes of a request's body, where not the vhost's limit.
    pub(crate) body_bytes: Option<u64>,
    /// The vhost's hooks decide about requests.
    pub(crate) hooked: bool,
    /// Who may come.
    basic: Option<BasicRealm>,
    origin: Option<OriginPolicy>,
    /// What all its responses say.
    pub(crate) headers: Arc<HeaderList>,
}

impl MountOptions {
    /// Whether a request may be served here.
    ///
    /// # Errors
    /// The response that refuses it.
    pub(crate) fn admit(
        &self,
        head: &RequestHead<'_>,
        transport: Transport,
    ) -> Result<(), Box<Response>> {
        if let Some(policy) = &self.origin {
            policy
                .check(head, transport)
                .map_err(|error| Box::new(Response::text(error.status(), format!("{error}\n"))))?;
        }
        match &self.basic {
            Some(realm) => match realm.authenticate(head.fields()) {
                Ok(_) => Ok(()),
                Err(error) => Err(Box::new(challenge(realm, error.status()))),
            },
            None => Ok(()),
        }
    }
}

fn challenge(realm: &BasicRealm, status: u16) -> Response {
    let refusal = Response::text(status, "the right user name and password are needed here\n");
    // A realm cannot be made of what does not fit into a header.
    match refusal.header("WWW-Authenticate", realm.challenge()) {
        Ok(response) => response,
        Err(_) => Response::new(status),
    }
}

impl Mount {
    fn new(prefix: impl Into<String>, target: Target) -> Self {
        Self {
            prefix: prefix.into(),
            target,
            options: MountOptions::default(),
        }
    }

    /// Serves with a handler of one's own.
    pub fn handler<H: HttpHandler>(prefix: impl Into<String>, handler: H) -> Self {
        Self::handler_with(prefix, handler).0
    }

    /// As [`Mount::handler`], with the handle that reaches the handler later.
    pub fn handler_with<H: HttpHandler>(
        prefix: impl Into<String>,
        handler: H,
    ) -> (Self, HandlerHandle<H>) {
        let key = NEXT_HANDLER.fetch_add(1, Ordering::Relaxed);
        let dispatch = Box::new(BoundHandler::new(handler));
        let mount = Self::new(prefix, Target::Handler { key, dispatch });
        (mount, HandlerHandle::new(key))
    }

    /// Serves with a function from request to response; request bodies are dropped.
    pub fn call<F>(prefix: impl Into<String>, respond: F) -> Self
    where
        F: FnMut(&HttpRequest<'_>) -> Response + Send + 'static,
    {
        Self::handler(prefix, FnHandler(respond))
    }

    /// Answers every request with the same response.
    pub fn response(prefix: impl Into<String>, response: Response) -> Self {
        Self::new(prefix, Target::Response(response))
    }

    /// Answers with a redirect: 301, 302, 303, 307 or 308, any other becomes 308. The location is
    /// sent as it is; one that cannot be sent makes the vhost fail.
    pub fn redirect(prefix: impl Into<String>, status: u16, location: &str) -> Self {
        let status = match status {
            301 | 302 | 303 | 307 => status,
            _ => 308,
        };
        let mut headers = HeaderList::new();
        let response = match headers.push("Location", location) {
            Ok(()) => Response::new(status).headers(headers),
            // Noticed when the vhost is made: a redirect without a Location.
            Err(_) => Response::new(status),
        };
        Self::response(prefix, response)
    }

    /// Upgrades to WebSocket with the protocol that the vhost has under this name. Once a vhost
    /// has such a mount, upgrades elsewhere are refused with 404.
    pub fn protocol(prefix: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(prefix, Target::Protocol(name.into()))
    }

    /// Serves the prefix itself and nothing below it.
    pub const fn exact(mut self) -> Self {
        self.options.exact = true;
        self
    }

    /// The longest request body, in bytes, instead of
    /// [`Limits::body_bytes`](crate::Limits::body_bytes); a longer one is refused with 413.
    pub const fn body_bytes(mut self, bytes: u64) -> Self {
        self.options.body_bytes = Some(bytes);
        self
    }

    /// Asks the vhost's hooks ([`VhostConfig::hooks`](crate::VhostConfig::hooks)) about every
    /// request before it is served. A vhost without hooks then cannot be made.
    pub const fn hooked(mut self) -> Self {
        self.options.hooked = true;
        self
    }

    /// Serves only whom the realm knows by name and password; others get 401. Over plain HTTP the
    /// password can be read on the way.
    ///
    /// On a mount of a [`protocol`](Mount::protocol) it decides about upgrades, before
    /// [`filter_upgrade`](crate::Protocol::filter_upgrade).
    pub fn basic_auth(mut self, realm: BasicRealm) -> Self {
        self.options.basic = Some(realm);
        self
    }

    /// Serves only requests whose `Origin` the policy allows; others get 403.
    ///
    /// On a mount of a [`protocol`](Mount::protocol) it decides which pages may connect, before
    /// [`filter_upgrade`](crate::Protocol::filter_upgrade).
    pub fn origin(mut self, policy: OriginPolicy) -> Self {
        self.options.origin = Some(policy);
        self
    }

    /// Adds a header to all responses of the mount, refusals among them, that do not have one of
    /// this name themselves. Upgrades are not concerned.
    ///
    /// # Errors
    /// [`HeaderError`] for a name or a value that must not be sent.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        Arc::make_mut(&mut self.options.headers).push(name, value)?;
        Ok(self)
    }

    /// What is wrong with it, if something is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if !self.prefix.starts_with('/') {
            return Some("the prefix must begin with a slash");
        }
        if self.prefix.contains(['?', '#']) {
            return Some("the prefix must have no query and no fragment");
        }
        if self.prefix.len() > 1 && self.prefix.ends_with('/') {
            return Some("the prefix must not end with a slash; \"/a\" serves \"/a/\" too");
        }
        if self.prefix.len() > 1
            && self
                .prefix
                .split('/')
                .skip(1)
                .any(|name| matches!(name, "" | "." | ".."))
        {
            return Some("the prefix has an empty or a dot segment, which no request's path has");
        }
        if has_framing_field(&self.options.headers) {
            return Some(FRAMING_PROBLEM);
        }
        match &self.target {
            Target::Response(response) => response_problem(response),
            Target::Handler { .. } | Target::Protocol(_) => None,
        }
    }
}

fn response_problem(response: &Response) -> Option<&'static str> {
    if matches!(response.status, 301..=303 | 307 | 308)
        && response.headers.get("location").is_none()
    {
        return Some("a redirect needs a Location that can be sent in a header");
    }
    if !response.body.is_empty() && has_no_body(response.status) {
        return Some("a response with status 204 or 304 has no body");
    }
    has_framing_field(&response.headers).then_some(FRAMING_PROBLEM)
}

fn has_framing_field(headers: &HeaderList) -> bool {
    headers.iter().any(|(name, _)| is_framing_field(name))
}

const FRAMING_PROBLEM: &str = "it has a header that only the library writes";

/// A mount as a vhost keeps it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) prefix: String,
    pub(crate) target: RouteTarget,
    pub(crate) options: MountOptions,
}

#[derive(Clone, Debug)]
pub(crate) enum RouteTarget {
    Handler(u32),
    Protocol(u32),
    Response(Arc<Response>),
}

impl Route {
    /// The length of its prefix in the path, if it serves that.
    pub(crate) fn fit(&self, path: &str) -> Option<usize> {
        if self.prefix == "/" && !self.options.exact {
            return Some(0);
        }
        let length = decoded_prefix(path, &self.prefix)?;
        let below = path.get(length..)?;
        let fits = below.is_empty() || (!self.options.exact && below.starts_with('/'));
        fits.then_some(length)
    }
}

/// The route that serves a path: the longest that fits.
pub(crate) fn route<'r>(routes: &'r [Route], path: &str) -> Option<(&'r Route, usize)> {
    let fits = routes
        .iter()
        .filter_map(|route| Some((route, route.fit(path)?)));
    fits.max_by_key(|(route, _)| (route.prefix.len(), route.options.exact))
}

static NEXT_HANDLER: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(prefixes: &[(&str, bool)]) -> Vec<Route> {
        let route = |&(prefix, exact): &(&str, bool)| Route {
            prefix: prefix.to_owned(),
            target: RouteTarget::Response(Arc::new(Response::new(200))),
            options: MountOptions {
                exact,
                ..MountOptions::default()
            },
        };
        prefixes.iter().map(route).collect()
    }

    #[test]
    fn the_longest_prefix_that_ends_at_a_segment_serves() {
        let routes = routes(&[
            ("/", false),
            ("/api", false),
            ("/api/v1", false),
            ("/x", true),
        ]);
        for (path, prefix, below) in [
            ("/", "/", 0),
            ("/apis", "/", 0),
            ("/api", "/api", 4),
            ("/api/", "/api", 4),
            ("/api/v1/users", "/api/v1", 7),
            ("/api/v10", "/api", 4),
            ("/x", "/x", 2),
            ("/x/y", "/", 0),
            ("/%61pi", "/api", 6),
            ("/%61%70%69/v%31/x", "/api/v1", 15),
            ("/api%2Fv1", "/", 0),
            ("/api/v1%2fx", "/api", 4),
            ("/api%", "/", 0),
            ("/%", "/", 0),
        ] {
            let (found, len) = route(&routes, path).unwrap();
            assert_eq!((found.prefix.as_str(), len), (prefix, below), "{path}");
        }
    }

    #[test]
    fn without_a_root_some_paths_are_nobodys() {
        assert!(route(&routes(&[("/a", false)]), "/b").is_none());
        assert!(route(&routes(&[("/", true)]), "/b").is_none());
        assert!(route(&routes(&[("/", true)]), "/").is_some());
    }

    #[test]
    fn a_mount_that_cannot_work_says_why() {
        let page = || Response::text(200, "x");
        for (mount, problem) in [
            (Mount::response("a", page()), "begin with a slash"),
            (Mount::response("/a?b", page()), "no query"),
            (Mount::response("/a/", page()), "not end with a slash"),
            (Mount::redirect("/a", 308, "/b\r\nX: y"), "Location"),
            (Mount::response("/a", Response::text(204, "x")), "no body"),
            (
                Mount::response("/a", page().header("Content-Length", "3").unwrap()),
                "only the library",
            ),
        ] {
            assert!(mount.problem().unwrap().contains(problem), "{mount:?}");
        }
        assert_eq!(Mount::redirect("/a", 302, "/b").problem(), None);
    }
}
