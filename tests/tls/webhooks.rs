//! A webhook whose endpoint is behind mutual TLS: a crowd through a small pool, an endpoint that
//! dies and comes back, one that hangs, identities on both sides.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::hook::{AllowIdentity, Webhook};
use wsloop::sim::SimPeer;
use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, ServerTls};
use wsloop::{
    Close, Context, ContextConfig, Cx, Established, Hook, HookAnswer, HookChain, HookConfig,
    HookError, HookHandle, HookRequest, HookRequestId, ListenConfig, Mount, PlaintextPolicy,
    PoolConfig, PoolMetrics, Protocol, Response, RetryPolicy, VhostConfig, Wsi,
};

use crate::lab::{Lab, TlsStranger, identity, roots, rustls_client};
use crate::support::{Endpoint, Recorder, World, addr, masked, plain, request};
use crate::testpki::{Leaf, Pki, TempDir};

const SECOND: Duration = Duration::from_secs(1);
const URL: &str = "https://auth.test:4430/ask";

fn endpoint_addr() -> SocketAddr {
    "10.0.0.2:4430".parse().unwrap()
}

/// What an endpoint heard that says yes; it hangs while it is told to.
#[derive(Clone, Default)]
struct Heard {
    hangs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    askers: Arc<Mutex<Vec<String>>>,
    questions: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    fn endpoint(&self) -> Endpoint {
        let (heard, begun) = (self.clone(), self.clone());
        let endpoint = Endpoint::asked(move |question| {
            heard.asked.fetch_add(1, Ordering::Relaxed);
            heard.questions.lock().unwrap().push(question);
            let answers = !heard.hangs.load(Ordering::Relaxed);
            answers.then(|| Response::json(200, r#"{"result":"allow"}"#))
        });
        endpoint.begun(move |request| {
            let peer = request.peer_identity().unwrap();
            assert!(peer.is_verified());
            let name = peer.common_name().unwrap().to_owned();
            let mut askers = begun.askers.lock().unwrap();
            if !askers.contains(&name) {
                askers.push(name);
            }
        })
    }
}

/// A WebSocket server with a webhook, and the endpoint in a context of its own.
struct Site {
    world: World,
    remote: Option<Context>,
    heard: Heard,
    webhook: HookHandle<Webhook>,
    pki: Pki,
    server: Leaf,
    /// The most connections that the pool has had at once.
    most_open: usize,
    _files: TempDir,
}

impl Site {
    fn new(
        configure: impl FnOnce(Webhook) -> Webhook,
        chain: impl FnOnce(HookConfig) -> HookConfig,
    ) -> Self {
        let pki = Pki::new("ca");
        let files = TempDir::new("webhook");
        let client = pki.leaf(&["client.test"]).common_name("asker").issue();
        let (cert, key) = (
            files.write("client.pem", &client.chain_pem()),
            files.write("client.key", &client.key_pem()),
        );
        let ca = files.write("ca.pem", &pki.ca_pem());
        let mut handle = None;
        let world = World::with(|log| {
            let webhook = Webhook::new(URL).unwrap().cafile(ca).certfile(cert);
            let webhook = configure(webhook.keyfile(key));
            let (hook, made) = HookConfig::with_handle("auth", webhook);
            handle = Some(made);
            VhostConfig::new("a.test")
                .listen(addr())
                .protocol("p", Recorder::echo(log))
                .hooks(HookChain::new().deadline(SECOND * 120).with(chain(hook)))
        });
        world.net.name("auth.test", [endpoint_addr().ip()]);
        let server = pki.leaf(&["auth.test"]).issue();
        let mut site = Self {
            world,
            remote: None,
            heard: Heard::default(),
            webhook: handle.unwrap(),
            pki,
            server,
            most_open: 0,
            _files: files,
        };
        site.start();
        site
    }

    fn start(&mut self) {
        let mut remote = Context::simulated(&self.world.net, ContextConfig::new()).unwrap();
        let trust = ClientTrust::new(roots(&self.pki));
        let tls = ServerTls::new(identity(&self.server)).client_auth(ClientAuth::Required(trust));
        let config = VhostConfig::new("auth.test")
            .listen(ListenConfig::new(endpoint_addr()).tls(PlaintextPolicy::Reject))
            .server_tls(tls)
            .mount(Mount::handler("/ask", self.heard.endpoint()));
        remote.create_vhost(config).unwrap();
        self.remote = Some(remote);
    }

    fn kill(&mut self) {
        self.remote = None;
    }

    fn turn(&mut self, turns: usize) {
        for _ in 0..turns {
            self.world.context.service(Some(Duration::ZERO)).unwrap();
            if let Some(remote) = &mut self.remote {
                remote.service(Some(Duration::ZERO)).unwrap();
            }
            self.most_open = self.most_open.max(self.pool().open);
        }
    }

    fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(100);
        for _ in 0..time.as_millis() / step.as_millis() {
            self.world.net.advance(step);
            self.turn(8);
        }
    }

    fn pool(&mut self) -> PoolMetrics {
        let hook = self.world.context.hook(self.webhook).unwrap();
        let client = hook.client_vhost().unwrap();
        self.world.context.http_pool_metrics(client).unwrap()
    }

    fn pending(&mut self) -> usize {
        let hook = self.world.context.hook(self.webhook).unwrap();
        hook.metrics().pending
    }

    fn dial(&self, count: usize) -> Vec<Client> {
        (0..count)
            .map(|number| {
                let peer = self.world.net.dial(addr()).unwrap();
                peer.write(&request(&format!("/{number}"))).unwrap();
                Client { peer, status: 0 }
            })
            .collect()
    }

    /// Whether all of them get their messages back, with no time passing.
    fn echo(&mut self, clients: &[Client]) -> bool {
        for client in clients.iter() {
            client.peer.write(&masked(0x81, b"alive")).unwrap();
        }
        self.turn(4);
        let answer = plain(0x81, b"alive");
        clients.iter().all(|client| client.peer.read() == answer)
    }
}

struct Client {
    peer: SimPeer,
    /// 0 while there is no answer.
    status: u16,
}

/// How many have which status.
fn count(clients: &mut [Client], status: u16) -> usize {
    for client in clients.iter_mut().filter(|client| client.status == 0) {
        let answer = client.peer.read();
        let text = String::from_utf8_lossy(&answer);
        client.status = crate::webhooks::status(&text);
    }
    clients
        .iter()
        .filter(|client| client.status == status)
        .count()
}

fn status(answer: &str) -> u16 {
    let code = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    code.map_or(0, |code| code.parse().unwrap())
}

fn pool_of_eight(webhook: Webhook) -> Webhook {
    webhook.pool(PoolConfig::new().total(8).per_origin(8).waiting(2000))
}

fn retrying(webhook: Webhook) -> Webhook {
    let retry = RetryPolicy::builder()
        .delays([SECOND / 2])
        .conceal_count(60);
    pool_of_eight(webhook).retry(retry.build().unwrap())
}

/// Everything is over and nobody is left.
fn assert_empty(mut site: Site, clients: Vec<Client>) {
    assert_eq!(site.pending(), 0);
    assert_eq!(site.pool().waiting, 0);
    drop(clients);
    site.pass(SECOND * 40);
    assert_eq!(site.pool().open, 0, "idle ones have gone");
    assert_eq!(site.world.context.connections(), 0);
    assert_eq!(site.remote.as_ref().unwrap().connections(), 0);
}

#[test]
fn a_thousand_clients_pass_through_a_pool_of_eight() {
    let mut site = Site::new(pool_of_eight, |hook| hook);
    let mut clients = site.dial(1000);
    site.turn(600);
    assert_eq!(count(&mut clients, 101), 1000);
    let pool = site.pool();
    assert_eq!((site.most_open, pool.opened, pool.reused), (8, 8, 992));
    assert_eq!(*site.heard.askers.lock().unwrap(), ["asker"]);
    assert!(site.echo(&clients));
    assert_empty(site, clients);
}

#[test]
fn an_endpoint_that_dies_and_comes_back_loses_no_client_when_attempts_are_repeated() {
    let mut site = Site::new(retrying, |hook| hook.deadline(SECOND * 60));
    let mut clients = site.dial(1000);
    while count(&mut clients, 101) < 300 {
        site.turn(1);
    }
    site.kill();
    site.pass(SECOND * 3);
    let before = count(&mut clients, 101);
    assert!(
        (300..1000).contains(&before),
        "killed in the middle: {before}"
    );
    let (mut allowed, mut rest): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|client| client.status == 101);
    assert!(site.echo(&allowed), "nobody who was allowed is lost");
    assert_eq!(count(&mut rest, 0), rest.len());
    site.start();
    site.pass(SECOND * 10);
    assert_eq!(count(&mut rest, 101), rest.len());
    assert!(site.most_open <= 8);
    assert!(site.echo(&allowed) && site.echo(&rest));
    allowed.append(&mut rest);
    assert_empty(site, allowed);
}

#[test]
fn an_endpoint_that_dies_and_comes_back_refuses_meanwhile_without_further_attempts() {
    let mut site = Site::new(pool_of_eight, |hook| hook);
    let mut clients = site.dial(1000);
    while count(&mut clients, 101) < 300 {
        site.turn(1);
    }
    site.kill();
    site.pass(SECOND * 6);
    let (allowed, refused) = (count(&mut clients, 101), count(&mut clients, 503));
    assert_eq!(allowed + refused, 1000);
    assert!(refused > 0);
    let (mut allowed, refused): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|client| client.status == 101);
    assert!(refused.iter().all(|client| client.peer.ended()));
    site.start();
    let mut late = site.dial(50);
    site.pass(SECOND);
    assert_eq!(count(&mut late, 101), 50);
    assert!(site.echo(&allowed) && site.echo(&late));
    allowed.append(&mut late);
    drop(refused);
    assert_empty(site, allowed);
}

#[test]
fn an_endpoint_that_hangs_for_a_minute_stalls_nobody_who_is_connected() {
    let mut site = Site::new(pool_of_eight, |hook| hook);
    let mut clients = site.dial(20);
    site.turn(100);
    assert_eq!(count(&mut clients, 101), 20);
    site.heard.hangs.store(true, Ordering::Relaxed);
    let mut waiting = site.dial(100);
    for second in 0..60 {
        assert!(site.echo(&clients), "in second {second}");
        site.pass(SECOND);
        if second == 10 {
            waiting.append(&mut site.dial(10));
        }
    }
    assert_eq!(count(&mut waiting, 503), 110);
    assert!(site.most_open <= 8);
    site.heard.hangs.store(false, Ordering::Relaxed);
    let mut late = site.dial(20);
    site.pass(SECOND);
    assert_eq!(count(&mut late, 101), 20);
    assert!(site.echo(&clients) && site.echo(&late));
    clients.append(&mut late);
    drop(waiting);
    assert_empty(site, clients);
}

#[test]
fn a_new_identity_of_the_webhook_is_shown_from_then_on() {
    let mut site = Site::new(|hook| hook, |hook| hook);
    let mut clients = site.dial(1);
    site.turn(60);
    assert_eq!(count(&mut clients, 101), 1);
    let hook = site.world.context.hook(site.webhook).unwrap();
    let client = hook.client_vhost().unwrap();
    let next = site
        .pki
        .leaf(&["client.test"])
        .common_name("asker 2")
        .issue();
    let next = identity(&next);
    site.world
        .context
        .set_client_identity(client, next)
        .unwrap();
    let mut clients = site.dial(1);
    site.turn(60);
    assert_eq!(count(&mut clients, 101), 1);
    assert_eq!(*site.heard.askers.lock().unwrap(), ["asker", "asker 2"]);
}

#[test]
fn an_endpoint_that_nobody_trusts_is_never_asked() {
    let other = Pki::new("another ca");
    let tls = ClientTls::new(roots(&other));
    let mut site = Site::new(|hook| hook.client_tls(tls), |hook| hook);
    let mut clients = site.dial(1);
    site.pass(SECOND);
    assert_eq!(count(&mut clients, 503), 1);
    assert_eq!(site.heard.asked.load(Ordering::Relaxed), 0);
    let lines = site.world.log.take();
    assert!(lines[0].starts_with("hook error auth: "), "{lines:?}");
}

#[test]
fn files_that_are_not_fit_spoil_the_vhost_when_it_is_made() {
    let dir = TempDir::new("webhook-files");
    let pki = Pki::new("ca");
    let ca = dir.write("ca.pem", &pki.ca_pem());
    let leaf = pki.leaf(&["c"]).issue();
    let cert = dir.write("cert.pem", &leaf.chain_pem());
    let make = |webhook: Webhook| {
        let mut world = World::new(Recorder::echo);
        let config = VhostConfig::new("b.test").hooks(HookChain::new().hook("auth", webhook));
        world.context.create_vhost(config).unwrap_err().to_string()
    };
    let webhook = || Webhook::new(URL).unwrap();
    let error = make(webhook().cafile(dir.path("missing.pem")));
    assert!(error.contains("missing.pem"), "{error}");
    let error = make(webhook().cafile(&ca).certfile(&cert).keyfile(&ca));
    assert!(error.contains("key"), "{error}");
    let error = make(webhook().cafile(&ca).certfile(&cert));
    assert!(error.contains("cert.pem"), "{error}");
    let error = make(webhook().cafile(&ca).keyfile(&cert));
    assert!(error.contains("no certfile"), "{error}");
}

/// Greets nobody and stays.
struct Stay;

impl Protocol for Stay {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }
}

#[test]
fn the_endpoint_is_told_who_the_client_is_and_identities_decide_before_it() {
    let pki = Pki::new("ca");
    let mut lab = Lab::new();
    let heard = Heard::default();
    let questions = Arc::clone(&heard.questions);
    let trust = ClientTrust::new(roots(&pki));
    let leaf = |name: &str| identity(&pki.leaf(&[name]).common_name(name).issue());
    let tls = ServerTls::new(leaf("auth.test")).client_auth(ClientAuth::Required(trust));
    lab.net.name("auth.test", [endpoint_addr().ip()]);
    lab.add(
        VhostConfig::new("auth.test")
            .listen(ListenConfig::new(endpoint_addr()).tls(PlaintextPolicy::Reject))
            .server_tls(tls)
            .mount(Mount::handler("/ask", heard.endpoint())),
    );
    let webhook = Webhook::new(URL).unwrap();
    let webhook = webhook.client_tls(ClientTls::new(roots(&pki)).identity(leaf("asker")));
    let known = AllowIdentity::new().common_name("known");
    let tls = ServerTls::new(leaf("a.test"));
    let tls = tls.client_auth(ClientAuth::Optional(ClientTrust::new(roots(&pki))));
    lab.net.name("a.test", [addr().ip()]);
    lab.add(
        VhostConfig::new("a.test")
            .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
            .server_tls(tls)
            .protocol("p", Stay)
            .hooks(HookChain::new().hook("known", known).hook("auth", webhook)),
    );
    for (name, common_name) in [("known", "known"), ("device", "device \"7\"")] {
        let tls = ClientTls::new(roots(&pki));
        let shown = identity(
            &pki.leaf(&["d.test"])
                .common_name(common_name)
                .uri("spiffe://d/7")
                .issue(),
        );
        let client = lab.client(name, tls.identity(shown));
        lab.dial(client, "wss://a.test:80/");
        lab.turn();
        assert!(lab.journal.open(name).is_some(), "{name}");
    }
    let nobody = lab.client("nobody", ClientTls::new(roots(&pki)));
    lab.dial(nobody, "wss://a.test:80/");
    lab.turn();
    assert!(lab.journal.open("nobody").is_some());
    let questions = questions.lock().unwrap();
    assert_eq!(questions.len(), 2, "{questions:?}");
    let told = "\"tls\":{\"identity\":{\"verified\":true,\"common_name\":\"device \\\"7\\\"\",\
                \"dns_names\":[\"d.test\"],\"uris\":[\"spiffe://d/7\"],\"sha256\":\"";
    assert!(questions[0].contains(told), "{}", questions[0]);
    assert!(
        questions[1].contains("\"tls\":{\"identity\":null}"),
        "{}",
        questions[1]
    );
}

/// Answers when it is told to.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Vec<HookRequestId>>>);

impl Hook for Slow {
    fn ask(&mut self, _: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        self.0.lock().unwrap().push(request.id());
        Ok(HookAnswer::Later)
    }
}

#[test]
fn a_client_that_ends_its_stream_with_its_request_gets_the_answer_to_a_plain_one_only() {
    let pki = Pki::new("ca");
    for (target, answered) in [("/page", true), ("/ws", false)] {
        let mut lab = Lab::new();
        let slow = Slow::default();
        let leaf = pki.leaf(&["a.test"]).issue();
        let (hook, handle) = HookConfig::with_handle("slow", slow.clone());
        let page = Mount::response("/page", Response::text(200, "page"));
        lab.add(
            VhostConfig::new("a.test")
                .listen(ListenConfig::new(addr()).tls(PlaintextPolicy::Reject))
                .server_tls(ServerTls::new(identity(&leaf)))
                .protocol("p", Stay)
                .mount(page.hooked())
                .mount(Mount::protocol("/ws", "p"))
                .hooks(HookChain::new().with(hook)),
        );
        let config = rustls_client(&pki, None, &[&rustls::version::TLS13]);
        let mut stranger = TlsStranger::new(lab.stranger(), config, "a.test");
        stranger.exchange(&mut lab).unwrap();
        match answered {
            true => stranger.say(b"GET /page HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            false => stranger.say(&request(target)),
        }
        stranger.tls.send_close_notify();
        let flight = stranger.flight();
        stranger.peer.write(&flight).unwrap();
        stranger.peer.shutdown_write();
        lab.turn();
        let id = slow.0.lock().unwrap().remove(0);
        let allow = |_: &mut Slow, cx: &mut Cx<'_>| cx.answer_hook(id, Ok(HookAnswer::allow()));
        let known = lab.context.with_hook(handle, allow).unwrap().is_ok();
        lab.turn();
        stranger.take().unwrap();
        let heard = String::from_utf8(stranger.heard()).unwrap();
        assert_eq!(
            heard.starts_with("HTTP/1.1 200 OK\r\n"),
            answered,
            "{heard}"
        );
        assert_eq!(known, answered);
        lab.pass(SECOND * 10);
        assert_eq!(lab.context.connections(), 0);
    }
}
