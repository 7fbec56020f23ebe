//! A hook that asks an endpoint: what it asks, what its answers do, how it fails, what it keeps.

use std::io::ErrorKind;
use std::time::Duration;

use wsloop::hook::{OnFailure, Webhook, WebhookMetrics};
use wsloop::sim::{Call, SimPeer, SimPeerListener};
use wsloop::{
    Context, HookChain, HookConfig, HookHandle, Mount, PoolConfig, Response, RetryPolicy,
    VhostConfig, VhostError,
};

use crate::support::{Endpoint, Log, Recorder, World, addr, request, request_with};
use crate::{says, status, text};

const ENDPOINT: &str = "10.0.0.2:80";
const URL: &str = "http://10.0.0.2/ask";
const SECOND: Duration = Duration::from_secs(1);

/// What the endpoint answers to a question; `None` hangs.
fn endpoint(
    questions: &Log,
    mut answer: impl FnMut(&str) -> Option<Response> + Send + 'static,
) -> VhostConfig {
    let log = questions.clone();
    let endpoint = Endpoint::asked(move |question| {
        let answer = answer(&question);
        log.push(question);
        answer
    });
    let endpoint = endpoint.begun(|request| {
        assert_eq!((request.method(), request.path()), ("POST", "/ask"));
        let json = Some(b"application/json".as_slice());
        assert_eq!(request.header("content-type"), json);
    });
    VhostConfig::new("endpoint.test")
        .listen(ENDPOINT.parse::<std::net::SocketAddr>().unwrap())
        .mount(Mount::handler("/ask", endpoint))
}

/// A vhost with a webhook, and the endpoint in the same context.
struct Site {
    world: World,
    webhook: HookHandle<Webhook>,
    questions: Log,
}

impl Site {
    fn new(answer: impl FnMut(&str) -> Option<Response> + Send + 'static) -> Self {
        Self::with(|hook| hook, |chain| chain, answer)
    }

    fn with(
        configure: impl FnOnce(Webhook) -> Webhook,
        chain: impl FnOnce(HookConfig) -> HookConfig,
        answer: impl FnMut(&str) -> Option<Response> + Send + 'static,
    ) -> Self {
        let mut site = Self::alone(configure, chain);
        let config = endpoint(&site.questions, answer);
        site.world.context.create_vhost(config).unwrap();
        site
    }

    /// Without an endpoint.
    fn alone(
        configure: impl FnOnce(Webhook) -> Webhook,
        chain: impl FnOnce(HookConfig) -> HookConfig,
    ) -> Self {
        let mut handle = None;
        let world = World::with(|log| {
            let webhook = configure(Webhook::new(URL).unwrap());
            let (hook, made) = HookConfig::with_handle("auth", webhook);
            handle = Some(made);
            let end = says(|| Ok(wsloop::HookAnswer::deny(410)));
            let hooks = HookChain::new().with(chain(hook)).hook("end", end);
            VhostConfig::new("a.test")
                .listen(addr())
                .protocol("p", Recorder::echo(log))
                .hooks(hooks)
        });
        Self {
            world,
            webhook: handle.unwrap(),
            questions: Log::default(),
        }
    }

    fn send(&mut self, request: &[u8]) -> (SimPeer, u16) {
        let peer = self.world.dial();
        peer.write(request).unwrap();
        self.world.turn();
        let status = status(&text(&peer));
        (peer, status)
    }

    fn metrics(&mut self) -> WebhookMetrics {
        let handle = self.webhook;
        self.context().hook(handle).unwrap().metrics()
    }

    fn context(&mut self) -> &mut Context {
        &mut self.world.context
    }

    fn errors(&self) -> Vec<String> {
        let mut lines = self.world.log.take();
        lines.retain(|line| line.starts_with("hook error"));
        lines
    }
}

fn json(body: &'static str) -> Option<Response> {
    Some(Response::json(200, body))
}

fn kept(body: &'static str, seconds: u32) -> Option<Response> {
    let age = format!("max-age={seconds}");
    Some(
        Response::json(200, body)
            .header("Cache-Control", age)
            .unwrap(),
    )
}

#[test]
fn the_endpoint_is_told_what_was_chosen_and_decides() {
    let mut site = Site::with(
        |hook| hook.include_header("X-Token").include_header("cookie"),
        |hook| hook,
        |question| match question.contains("\"good\"") {
            true => json(
                r#"{"result":"allow","headers":{"X-User":"ada"},"subprotocol":"p",
                    "attributes":{"user":"ada"}}"#,
            ),
            false => json(r#"{"result":"deny","status":401,"body":"who?"}"#),
        },
    );
    let more = "X-Token: good\r\nX-Other: secret\r\nCookie: a=b\r\nCookie: c=\"d\"\r\n\
                Sec-WebSocket-Protocol: x, p\r\n";
    let peer = site.world.dial();
    peer.write(&request_with("/room?id=\"7\"", more)).unwrap();
    site.world.turn();
    let answer = text(&peer);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: p\r\n"));
    assert!(answer.contains("\r\nX-User: ada\r\n"));
    let question = &site.questions.take()[0];
    let address = peer.local_addr().ip();
    let expected = format!(
        "{{\"purpose\":\"upgrade\",\"peer\":{{\"address\":\"{address}\"}},\"tls\":null,\
         \"vhost\":\"a.test\",\"method\":\"GET\",\"path\":\"/room\",\"query\":\"id=\\\"7\\\"\",\
         \"headers\":{{\"x-token\":\"good\",\"cookie\":\"a=b; c=\\\"d\\\"\"}},\
         \"subprotocols\":[\"x\",\"p\"]}}"
    );
    assert_eq!(*question, expected);
    assert_eq!(site.send(&request("/")).1, 401);
}

#[test]
fn next_leaves_the_decision_to_the_chain() {
    let mut site = Site::new(|_| json(r#"{"result":"next"}"#));
    assert_eq!(site.send(&request("/")).1, 410);
}

#[test]
fn a_refusal_to_answer_properly_is_a_failure() {
    type Give = fn() -> Response;
    let answers: [(Give, &str); 7] = [
        (|| Response::json(200, ""), "ends early"),
        (|| Response::html(200, "<p>welcome"), "not JSON"),
        (|| Response::json(200, r#"{"result":"maybe"}"#), "result"),
        (
            || Response::json(201, r#"{"result":"allow"}"#),
            "status 201",
        ),
        (
            || Response::json(302, r#"{"result":"allow"}"#),
            "status 302",
        ),
        (
            || Response::json(500, r#"{"result":"allow"}"#),
            "status 500",
        ),
        (
            || Response::json(200, r#"{"result":"allow","subprotocol":"nope"}"#),
            "does not offer",
        ),
    ];
    for (answer, problem) in answers {
        for (policy, expected) in [(OnFailure::Refuse, 503), (OnFailure::Next, 410)] {
            let chain = |hook: HookConfig| hook.on_failure(policy);
            let mut site = Site::with(|hook| hook, chain, move |_| Some(answer()));
            assert_eq!(site.send(&request("/")).1, expected);
            let errors = site.errors();
            assert!(errors[0].contains(problem), "{errors:?}");
        }
    }
}

#[test]
fn an_answer_that_is_too_long_is_a_failure() {
    let long = format!(r#"{{"result":"allow","more":"{}"}}"#, "x".repeat(70_000));
    let mut site = Site::new(move |_| Some(Response::json(200, long.clone())));
    assert_eq!(site.send(&request("/")).1, 503);
}

#[test]
fn an_endpoint_that_is_not_there_is_a_failure() {
    let mut site = Site::alone(|hook| hook, |hook| hook);
    let (peer, _) = site.send(&request("/"));
    site.world.pass(SECOND * 5);
    let _ = text(&peer);
    assert_eq!(site.metrics().failures, 1);
    assert_eq!(site.metrics().pending, 0);
    let lines = site.errors();
    assert!(lines[0].contains("http://10.0.0.2/ask"), "{lines:?}");
}

#[test]
fn an_endpoint_that_hangs_is_given_up_at_the_hooks_deadline_and_its_connection_closed() {
    let chain = |hook: HookConfig| hook.deadline(SECOND * 3);
    let mut site = Site::with(|hook| hook, chain, |_| None);
    let (peer, answer) = site.send(&request("/"));
    assert_eq!(answer, 0);
    let id = site.world.context.hook(site.webhook).unwrap();
    let client = id.client_vhost().unwrap();
    assert_eq!(site.context().http_pool_metrics(client).unwrap().open, 1);
    site.world.pass(SECOND * 3);
    assert_eq!(status(&text(&peer)), 503);
    site.world.turn();
    let metrics = site.context().http_pool_metrics(client).unwrap();
    assert_eq!((metrics.open, metrics.waiting), (0, 0));
    assert_eq!(site.metrics().pending, 0);
}

#[test]
fn the_same_question_is_answered_from_the_cache_as_long_as_the_endpoint_allows() {
    let mut site = Site::new(|question| match question.contains("/short") {
        true => kept(r#"{"result":"deny","status":402}"#, 10),
        false => json(r#"{"result":"deny","status":403}"#),
    });
    for _ in 0..3 {
        assert_eq!(site.send(&request("/short")).1, 402);
        assert_eq!(site.send(&request("/never")).1, 403);
    }
    assert_eq!(site.questions.count("{"), 4);
    assert_eq!(site.metrics().cache_hits, 2);
    assert_eq!(
        site.send(&request("/short?another")).1,
        402,
        "another question"
    );
    assert_eq!(site.questions.count("{"), 5);
    assert_eq!(site.metrics().cached, 2);
    site.world.pass(SECOND * 10);
    assert_eq!(site.send(&request("/short")).1, 402);
    assert_eq!(site.questions.count("{"), 6);
    let handle = site.webhook;
    site.context().hook(handle).unwrap().clear_cache();
    assert_eq!(site.send(&request("/short")).1, 402);
    assert_eq!(site.questions.count("{"), 7);
}

#[test]
fn a_cache_can_be_switched_off_and_the_port_makes_every_question_another() {
    let answer = |_: &str| kept(r#"{"result":"deny"}"#, 60);
    let off = |hook: Webhook| hook.cache(0, 0);
    let port = |hook: Webhook| hook.include_peer_port();
    for configure in [off as fn(Webhook) -> Webhook, port] {
        let mut site = Site::with(configure, |hook| hook, answer);
        for _ in 0..3 {
            assert_eq!(site.send(&request("/")).1, 403);
        }
        assert_eq!(site.questions.count("{"), 3);
    }
}

#[test]
fn attempts_that_may_succeed_later_are_repeated_as_the_policy_says() {
    // The statuses that the endpoint gives, how many questions it gets, the outcome.
    let cases: [(&[u16], usize, u16); 5] = [
        (&[503, 200], 2, 403),
        (&[429, 502, 504, 200], 4, 403),
        (&[503, 503, 503, 503, 503], 4, 503),
        (&[500, 200], 1, 503),
        (&[404, 200], 1, 503),
    ];
    for (statuses, asked, outcome) in cases {
        let mut left = statuses.iter();
        let mut site = Site::with(
            |hook| hook.retry(policy(3)),
            |hook| hook,
            move |_| {
                let status = *left.next().unwrap();
                Some(Response::json(status, r#"{"result":"deny"}"#))
            },
        );
        let (peer, first) = site.send(&request("/"));
        site.world.pass(SECOND * 4);
        let later = status(&text(&peer));
        assert_eq!(first.max(later), outcome, "{statuses:?}");
        assert_eq!(site.questions.count("{"), asked, "{statuses:?}");
        assert_eq!(site.metrics().retries as usize, asked - 1);
    }
}

#[test]
fn the_deadline_of_the_hook_ends_the_attempts() {
    let mut site = Site::with(
        |hook| hook.retry(policy(99)),
        |hook| hook.deadline(SECOND * 5 / 2),
        |_| Some(Response::json(503, "")),
    );
    let (peer, _) = site.send(&request("/"));
    site.world.pass(SECOND * 60);
    assert_eq!(status(&text(&peer)), 503);
    assert_eq!(site.questions.count("{"), 3, "at 0, 1 and 2 seconds");
    assert_eq!(site.metrics().pending, 0);
}

/// So many further attempts, a second apart.
fn policy(attempts: u32) -> RetryPolicy {
    let builder = RetryPolicy::builder().delays([SECOND]).jitter_percent(0);
    builder.conceal_count(attempts).build().unwrap()
}

/// An endpoint that speaks raw bytes.
struct Raw {
    listener: SimPeerListener,
    peer: Option<SimPeer>,
}

impl Raw {
    fn next(&mut self, site: &mut Site) -> &SimPeer {
        site.world.turn();
        if let Some(peer) = self.listener.accept() {
            self.peer = Some(peer);
            site.world.turn();
        }
        self.peer.as_ref().unwrap()
    }

    fn answer(&mut self, site: &mut Site, body: &str) {
        let peer = self.next(site);
        assert!(text(peer).starts_with("POST /ask HTTP/1.1\r\n"));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        peer.write(head.as_bytes()).unwrap();
        peer.write(body.as_bytes()).unwrap();
        site.world.turn();
    }
}

#[test]
fn a_question_that_met_a_closed_connection_is_asked_again_once() {
    let mut site = Site::alone(|hook| hook, |hook| hook);
    let listener = site.world.net.listen(ENDPOINT.parse().unwrap()).unwrap();
    let mut raw = Raw {
        listener,
        peer: None,
    };
    let (first, _) = site.send(&request("/1"));
    raw.answer(&mut site, r#"{"result":"allow"}"#);
    assert_eq!(status(&text(&first)), 101);
    let (second, _) = site.send(&request("/2"));
    raw.next(&mut site);
    // It has read the question, and goes.
    let old = raw.peer.take().unwrap();
    assert!(text(&old).contains("/2"));
    old.close();
    raw.answer(&mut site, r#"{"result":"allow"}"#);
    assert_eq!(status(&text(&second)), 101);
    assert_eq!(site.metrics().retries, 1);

    let (third, _) = site.send(&request("/3"));
    for _ in 0..2 {
        raw.next(&mut site);
        raw.peer.take().unwrap().close();
        site.world.turn();
    }
    assert_eq!(status(&text(&third)), 503, "twice is enough");
    assert_eq!(site.metrics().pending, 0);
}

#[test]
fn many_questions_share_the_pool_and_are_answered() {
    let mut site = Site::with(
        |hook| hook.pool(PoolConfig::new().per_origin(4).waiting(1000)),
        |hook| hook,
        |question| match question.contains("7\"") {
            true => json(r#"{"result":"deny"}"#),
            false => json(r#"{"result":"allow"}"#),
        },
    );
    let peers: Vec<_> = (0..300)
        .map(|number| {
            let peer = site.world.net.dial(addr()).unwrap();
            peer.write(&request(&format!("/{number}"))).unwrap();
            peer
        })
        .collect();
    for _ in 0..20 {
        site.world.turn();
    }
    for (number, peer) in peers.iter().enumerate() {
        let expected = if number % 10 == 7 { 403 } else { 101 };
        assert_eq!(status(&text(peer)), expected, "{number}");
    }
    let hook = site.world.context.hook(site.webhook).unwrap();
    let client = hook.client_vhost().unwrap();
    let metrics = site.context().http_pool_metrics(client).unwrap();
    assert_eq!((metrics.open, metrics.opened, metrics.waiting), (4, 4, 0));
    assert_eq!(metrics.reused, 296);
}

#[test]
fn a_full_queue_is_a_failure_at_once() {
    let mut site = Site::with(
        |hook| hook.pool(PoolConfig::new().per_origin(1).waiting(1)),
        |hook| hook,
        |_| None,
    );
    let peers: Vec<_> = (0..5).map(|_| site.send(&request("/"))).collect();
    let refused = peers.iter().filter(|(_, status)| *status == 503).count();
    assert_eq!(refused, 3);
}

#[test]
fn the_vhost_takes_its_webhooks_connections_along() {
    for hangs in [true, false] {
        let mut site = Site::new(move |_| match hangs {
            true => None,
            false => json(r#"{"result":"next"}"#),
        });
        let (peer, _) = site.send(&request("/"));
        let hook = site.world.context.hook(site.webhook).unwrap();
        let client = hook.client_vhost().unwrap();
        let vhost = site.world.vhost;
        site.context().destroy_vhost(vhost).unwrap();
        site.world.turn();
        drop(peer);
        site.world.pass(SECOND * 6);
        let handle = site.webhook;
        assert!(site.context().hook(handle).is_none());
        let gone = site.context().http_pool_metrics(client);
        assert!(matches!(gone, Err(VhostError::Gone)));
        assert_eq!(site.world.context.connections(), 0);
    }
}

#[test]
fn a_shutdown_answers_those_who_wait_and_ends() {
    let mut site = Site::new(|_| None);
    let (peer, _) = site.send(&request("/"));
    site.context().shutdown(SECOND);
    site.world.turn();
    assert_eq!(status(&text(&peer)), 503);
    drop(peer);
    site.world.pass(SECOND * 7);
    assert!(site.world.context.is_shut_down());
}

#[test]
fn a_webhook_can_use_the_connections_of_a_vhost_of_the_application() {
    let mut world = World::new(Recorder::echo);
    let client = VhostConfig::new("client.test").http_pool(PoolConfig::new().per_origin(2));
    let client = world.context.create_vhost(client).unwrap();
    let webhook = Webhook::new(URL).unwrap().on_vhost(client);
    let config = VhostConfig::new("b.test")
        .listen(addr())
        .protocol("p", Recorder::new(&world.log))
        .hooks(HookChain::new().hook("auth", webhook));
    world.context.create_vhost(config).unwrap();
    let config = endpoint(&Log::default(), |_| json(r#"{"result":"allow"}"#));
    world.context.create_vhost(config).unwrap();
    let peer = world.dial();
    let request = String::from_utf8(request("/")).unwrap();
    peer.write(request.replace("a.test", "b.test").as_bytes())
        .unwrap();
    world.turn();
    assert_eq!(status(&text(&peer)), 101);
    assert_eq!(world.context.http_pool_metrics(client).unwrap().opened, 1);
}

#[test]
fn an_https_endpoint_without_trust_is_refused_when_the_vhost_is_made() {
    let mut world = World::new(Recorder::echo);
    let before = Webhook::new("http://10.0.0.2/").unwrap();
    let after = Webhook::new("https://10.0.0.2/").unwrap();
    let chain = HookChain::new().hook("fine", before).hook("https", after);
    let config = VhostConfig::new("b.test").hooks(chain);
    let refused = world.context.create_vhost(config);
    #[cfg(not(feature = "native-certs"))]
    {
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("\"https\"") && error.contains("https endpoint"),
            "{error}"
        );
    }
    #[cfg(feature = "native-certs")]
    drop(refused);
}

/// Three clients through one connection to the endpoint, with retries: what they got, and how
/// often each call was made.
fn three_clients(fail: impl FnOnce(&World)) -> (Vec<u16>, [u64; 4]) {
    let mut site = Site::with(
        |hook| hook.pool(PoolConfig::new().per_origin(1)).retry(policy(2)),
        |hook| hook,
        |_| json(r#"{"result":"allow"}"#),
    );
    fail(&site.world);
    let peers: Vec<_> = (0..3)
        .map(|number| {
            let peer = site.world.net.dial(addr()).unwrap();
            let _ = peer.write(&request(&format!("/{number}")));
            peer
        })
        .collect();
    site.world.pass(SECOND * 8);
    assert_eq!(site.metrics().pending, 0);
    let outcomes = peers.iter().map(|peer| {
        let status = status(&text(peer));
        let over = peer.ended() || peer.was_reset();
        assert!(status > 0 || over, "neither an answer nor an end");
        status
    });
    let outcomes = outcomes.collect();
    drop(peers);
    site.world.pass(SECOND * 50);
    assert_eq!(site.world.context.connections(), 0);
    (outcomes, CALLS.map(|call| site.world.net.calls(call)))
}

const CALLS: [Call; 4] = [Call::Accept, Call::Connect, Call::Read, Call::Write];

#[test]
fn whatever_call_fails_every_client_has_one_outcome_and_nothing_stays_behind() {
    let (outcomes, calls) = three_clients(|_| {});
    assert_eq!(outcomes, [101; 3]);
    for (call, made) in CALLS.into_iter().zip(calls) {
        assert!(made > 0);
        for nth in 1..=made {
            for kind in [ErrorKind::ConnectionReset, ErrorKind::WouldBlock] {
                let (outcomes, _) = three_clients(|world| world.net.fail(call, nth, kind));
                let known = |status: &u16| matches!(status, 0 | 101 | 503);
                assert!(outcomes.iter().all(known), "{call:?} {nth}: {outcomes:?}");
            }
        }
    }
}

#[test]
fn no_spelling_of_a_path_is_another_question() {
    let mut site = Site::new(|question| match question.contains("\"path\":\"/admin!\"") {
        true => kept(r#"{"result":"deny","status":402}"#, 10),
        false => kept(r#"{"result":"allow"}"#, 10),
    });
    for target in ["/admin!", "/%61dmin!", "/%61%64%6d%69%6E%21"] {
        assert_eq!(site.send(&request(target)).1, 402, "{target}");
    }
    assert_eq!(site.questions.count("{"), 1);
    // What would be another path, or none, stays as it is.
    for (target, told) in [
        ("/a%2fb", "/a%2Fb"),
        ("/a%3fb%23%25%20%c3%A9", "/a%3Fb%23%25%20%C3%A9"),
        ("/%zz%", "/%zz%"),
    ] {
        let (_, _) = site.send(&request(target));
        let question = site.questions.take().pop().unwrap();
        assert!(
            question.contains(&format!("\"path\":\"{told}\"")),
            "{question}"
        );
    }
}

#[test]
fn headers_of_any_bytes_reach_the_endpoint_as_text() {
    let mut site = Site::with(
        |hook| hook.include_header("x-token"),
        |hook| hook,
        |_| json(r#"{"result":"deny"}"#),
    );
    let told: [(&[u8], &str); 4] = [
        // What is no UTF-8 is taken for ISO 8859-1.
        (b"caf\xe9", "caf\u{e9}"),
        ("caf\u{e9}".as_bytes(), "caf\u{e9}"),
        // They end lines in what once was JavaScript.
        ("a\u{2028}b\u{2029}".as_bytes(), "a\\u2028b\\u2029"),
        (b"\\\t\"", "\\\\\\t\\\""),
    ];
    for (value, text) in told {
        let mut sent = request_with("/", "X-Token: ");
        sent.truncate(sent.len() - 2);
        sent.extend_from_slice(value);
        sent.extend_from_slice(b"\r\n\r\n");
        assert_eq!(site.send(&sent).1, 403, "{text}");
        let question = site.questions.take().pop().unwrap();
        let expected = format!("\"headers\":{{\"x-token\":\"{text}\"}}");
        assert!(question.contains(&expected), "{question}");
    }
}

#[test]
fn a_request_to_a_hooked_mount_is_told_as_one_and_gets_what_was_said() {
    let questions = Log::default();
    let mut world = World::with(|log| {
        let user = Mount::call("/user", |request| {
            let user = request.attributes().get("user").unwrap_or("nobody");
            Response::text(200, user.to_owned())
        });
        let webhook = Webhook::new(URL).unwrap();
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(user.hooked())
            .hooks(HookChain::new().hook("auth", webhook))
    });
    let endpoint = endpoint(&questions, |question| match question.contains("/denied") {
        true => json(r#"{"result":"deny","status":402}"#),
        false => json(r#"{"result":"allow","attributes":{"user":"ada"}}"#),
    });
    world.context.create_vhost(endpoint).unwrap();
    let peer = world.dial();
    for (target, expected, body) in [("/user", 200, "ada"), ("/user/denied", 402, "")] {
        let asked = format!("PUT {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        peer.write(asked.as_bytes()).unwrap();
        world.turn();
        let answer = text(&peer);
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        let question = questions.take().pop().unwrap();
        assert!(question.starts_with("{\"purpose\":\"http\","), "{question}");
        let what = format!("\"method\":\"PUT\",\"path\":\"{target}\",\"query\":null");
        assert!(question.contains(&what), "{question}");
        assert!(question.ends_with("\"subprotocols\":[]}"), "{question}");
    }
}
