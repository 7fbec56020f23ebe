//! HTTP requests as a client over TLS: who is shown what, and what rotation does to the pool.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::http::body::BodyError;
use wsloop::http::client::ResponseReadError;
use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, Identity, ServerTls, Sni};
use wsloop::{
    Cx, FetchError, FetchFailure, FetchId, FetchInfo, FetchStage, Fetched, HttpClientHandler,
    ListenConfig, Mount, PlaintextPolicy, RedirectPolicy, Response, VhostConfig, VhostId,
};

use crate::lab::{Lab, TlsStranger, identity, roots, rustls_server, socket};
use crate::support::addr;
use crate::testpki::Pki;

type Outcome = Result<Fetched, FetchError>;

#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Outcome>>>);

impl HttpClientHandler for Keeper {
    fn on_done(&mut self, _: &mut Cx<'_>, _: FetchId, outcome: Outcome) {
        self.0.lock().unwrap().push(outcome);
    }
}

struct Site {
    lab: Lab,
    pki: Pki,
    client: VhostId,
    keeper: Keeper,
}

fn named(pki: &Pki, common_name: &str) -> Identity {
    identity(&pki.leaf(&["a.test"]).common_name(common_name).issue())
}

impl Site {
    /// A server that answers with the name of who asks, and a client `client 1`.
    fn new(shape: impl FnOnce(ServerTls, &Pki) -> ServerTls) -> Self {
        let pki = Pki::new("ca");
        let mut lab = Lab::new();
        let tls = shape(ServerTls::new(named(&pki, "server 1")), &pki);
        lab.net.name("a.test", [addr().ip()]);
        let who = Mount::call("/who", |request| {
            let peer = request.peer_identity();
            let name = peer.as_ref().and_then(|peer| peer.common_name());
            Response::text(200, name.unwrap_or("nobody"))
        });
        let config = VhostConfig::new("a.test")
            .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
            .server_tls(tls)
            .mount(who);
        lab.add(config);
        let keeper = Keeper::default();
        let tls = ClientTls::new(roots(&pki)).identity(named(&pki, "client 1"));
        let config = VhostConfig::new("client")
            .client_tls(tls)
            .http_client(keeper.clone());
        let client = lab.add(config);
        Self {
            lab,
            pki,
            client,
            keeper,
        }
    }

    fn fetch(&mut self, info: FetchInfo) -> Outcome {
        self.lab.context.fetch(self.client, info).unwrap();
        self.lab.turn();
        let mut outcomes = self.keeper.0.lock().unwrap();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        outcomes.remove(0)
    }

    fn get(&mut self) -> Outcome {
        self.fetch(who())
    }

    /// Whom the server has seen, and whether the connection was used before.
    fn seen(&mut self) -> (String, bool) {
        let done = self.get().unwrap();
        (String::from_utf8(done.body).unwrap(), done.reused)
    }

    fn open_and_idle(&self) -> (usize, usize) {
        let metrics = self.lab.context.http_pool_metrics(self.client).unwrap();
        (metrics.open, metrics.idle)
    }
}

fn who() -> FetchInfo {
    FetchInfo::get("https://a.test:80/who").unwrap()
}

fn required(tls: ServerTls, pki: &Pki) -> ServerTls {
    tls.client_auth(ClientAuth::Required(ClientTrust::new(roots(pki))))
}

#[test]
fn a_request_over_mutual_tls_shows_the_vhosts_certificate() {
    let mut site = Site::new(required);
    assert_eq!(site.seen(), ("client 1".to_owned(), false));
    assert_eq!(site.seen(), ("client 1".to_owned(), true));
    assert_eq!(site.open_and_idle(), (1, 1));
}

#[test]
fn a_new_identity_retires_the_pooled_connections() {
    let mut site = Site::new(required);
    site.seen();
    let next = named(&site.pki, "client 2");
    site.lab
        .context
        .set_client_identity(site.client, next)
        .unwrap();
    site.lab.turn();
    assert_eq!(site.open_and_idle(), (0, 0));
    assert_eq!(site.seen(), ("client 2".to_owned(), false));
    assert_eq!(site.seen(), ("client 2".to_owned(), true));
}

#[test]
fn new_trust_retires_the_pooled_connections_too() {
    let mut site = Site::new(|tls, _| tls);
    site.seen();
    let other = Pki::new("another ca");
    let tls = ClientTls::new(roots(&other));
    site.lab.context.set_client_tls(site.client, tls).unwrap();
    let error = site.get().unwrap_err();
    assert_eq!(error.stage(), FetchStage::Tls);
    assert_eq!(site.open_and_idle(), (0, 0));
}

#[test]
fn a_connection_that_is_dialled_while_the_identity_changes_is_not_kept_as_an_old_one() {
    let mut site = Site::new(required);
    site.lab.context.fetch(site.client, who()).unwrap();
    site.lab.context.service(Some(Duration::ZERO)).unwrap();
    let next = named(&site.pki, "client 2");
    site.lab
        .context
        .set_client_identity(site.client, next)
        .unwrap();
    site.lab.turn();
    let done = site.keeper.0.lock().unwrap().remove(0).unwrap();
    let kept = site.open_and_idle().1;
    let expected = if done.body == b"client 2" { 1 } else { 0 };
    assert_eq!(kept, expected, "{done:?}");
    assert_eq!(site.seen().0, "client 2");
}

#[test]
fn a_server_that_wants_another_certificate_is_an_error_of_tls() {
    let strangers = Pki::new("strangers");
    let trust = roots(&strangers);
    let mut site =
        Site::new(|tls, _| tls.client_auth(ClientAuth::Required(ClientTrust::new(trust))));
    let error = site.get().unwrap_err();
    assert_eq!(error.stage(), FetchStage::Tls, "{error}");
    assert!(matches!(error.failure(), FetchFailure::Tls(_)), "{error:?}");
    assert!(!error.is_retryable());
    assert_eq!(
        (site.open_and_idle(), site.lab.context.connections()),
        ((0, 0), 0)
    );
}

#[test]
fn names_are_verified_and_each_name_has_its_own_connection() {
    let mut site = Site::new(|tls, _| tls);
    site.seen();
    let by_address = FetchInfo::get("https://10.0.0.1:80/who").unwrap();
    let error = site.fetch(by_address.clone()).unwrap_err();
    assert_eq!(error.stage(), FetchStage::Tls, "{error}");
    let done = site
        .fetch(by_address.clone().verify_name("a.test"))
        .unwrap();
    assert!(!done.reused);
    let done = site
        .fetch(by_address.clone().verify_name("a.test"))
        .unwrap();
    assert!(done.reused);
    assert!(
        site.fetch(by_address.verify_name("b.test")).is_err(),
        "not that connection"
    );
    let done = site.fetch(who().sni(Sni::None)).unwrap();
    assert!(!done.reused, "it was made without a name");
}

#[test]
fn a_redirect_from_https_to_http_is_not_followed() {
    let mut site = Site::new(|tls, _| tls);
    let tls = ServerTls::new(identity(&site.pki.leaf(&["b.test"]).issue()));
    let listen = ListenConfig::new(socket("10.0.0.9:443"));
    let config = VhostConfig::new("b.test")
        .listen(listen.tls(PlaintextPolicy::Reject))
        .server_tls(tls)
        .mount(Mount::redirect("/", 302, "http://a.test/"));
    site.lab.net.name("b.test", [socket("10.0.0.9:443").ip()]);
    site.lab.add(config);
    let info = FetchInfo::get("https://b.test/").unwrap();
    let error = site
        .fetch(info.redirects(RedirectPolicy::new()))
        .unwrap_err();
    assert_eq!(error.stage(), FetchStage::Redirect, "{error}");
}

/// A response without a length, ended with and without the peer's word for it.
fn ended(with_notify: bool) -> Outcome {
    let mut site = Site::new(|tls, _| tls);
    let there = site.lab.net.listen(socket("10.0.0.7:443")).unwrap();
    let info = FetchInfo::get("https://a.test/")
        .unwrap()
        .address("10.0.0.7")
        .unwrap();
    site.lab.context.fetch(site.client, info).unwrap();
    site.lab.turn();
    let leaf = site.pki.leaf(&["a.test"]).issue();
    let config = rustls_server(&leaf, &[&rustls::version::TLS13]);
    let mut server = TlsStranger::server(there.accept().unwrap(), config);
    server.exchange(&mut site.lab).unwrap();
    assert!(server.heard().starts_with(b"GET / HTTP/1.1\r\n"));
    server.say(b"HTTP/1.1 200 OK\r\n\r\nall of it?");
    server.exchange(&mut site.lab).unwrap();
    if with_notify {
        server.tls.send_close_notify();
        server.exchange(&mut site.lab).unwrap();
    }
    server.peer.shutdown_write();
    site.lab.turn();
    site.keeper.0.lock().unwrap().remove(0)
}

#[test]
fn ht_22_over_tls_a_body_that_ends_with_the_connection_needs_a_close_notify() {
    assert_eq!(ended(true).unwrap().body, b"all of it?");
    let error = ended(false).unwrap_err();
    let cut = ResponseReadError::Body(BodyError::CutShort);
    assert!(
        matches!(error.failure(), FetchFailure::Response(why) if *why == cut),
        "{error:?}"
    );
}
