//! Applications that implement only what they must: everything else is ignored, and nothing is lost.

use std::time::Duration;

use wsloop::hook::{Hook, HookAnswer, HookChain, HookConfig, HookError, HookRequest};
use wsloop::sim::{Call, Net, SimPeer};
use wsloop::{
    Close, Context, ContextConfig, Cx, Established, ExchangeId, FetchError, FetchId, FetchInfo,
    Fetched, Http, HttpClientHandler, HttpFailure, HttpHandler, HttpRequest, ListenConfig, Mount,
    Protocol, Response, TimerTag, VhostConfig, Wsi,
};

use crate::Slot;
use crate::support::{addr, close_payload, masked, plain, request, request_with};

const SECOND: Duration = Duration::from_secs(1);

/// Asks for everything that there is a callback for, and has none of them.
struct Greets;

impl Protocol for Greets {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        wsi.set_timer(SECOND, TimerTag(1));
        wsi.request_writable();
        wsi.cx().set_timer(SECOND, TimerTag(2));
        wsi.send_ping(b"you?")?;
        Ok(())
    }
}

struct Site {
    net: Net,
    context: Context,
}

impl Site {
    fn new(config: VhostConfig) -> Self {
        let net = Net::new(0);
        let mut context = Context::simulated(&net, ContextConfig::default()).unwrap();
        context.create_vhost(config.listen(addr())).unwrap();
        Self { net, context }
    }

    fn turn(&mut self) {
        for _ in 0..10 {
            self.context.service(Some(Duration::ZERO)).unwrap();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.net.advance(time);
        self.turn();
    }

    fn say(&mut self, bytes: &[u8]) -> SimPeer {
        let peer = self.net.dial(addr()).unwrap();
        peer.write(bytes).unwrap();
        self.turn();
        peer
    }
}

#[test]
fn a_protocol_that_only_greets_ignores_the_rest_and_closes_in_order() {
    let mut config = VhostConfig::new("a.test").protocol("p", Greets);
    let _ = config.add_chunk_protocol("chunks", Greets);
    let mut site = Site::new(config);
    for upgrade in [
        request("/"),
        request_with("/", "Sec-WebSocket-Protocol: chunks\r\n"),
    ] {
        let peer = site.say(&upgrade);
        assert!(peer.read().ends_with(&plain(0x89, b"you?")));
        for frame in [
            masked(0x8a, b"you?"),
            masked(0x81, b"text"),
            masked(0x02, b"begin"),
            masked(0x80, b"end"),
            masked(0x89, b"me?"),
        ] {
            peer.write(&frame).unwrap();
        }
        site.pass(2 * SECOND);
        site.context.cancel_service_handle().cancel_service();
        site.turn();
        assert_eq!(peer.read(), plain(0x8a, b"me?"));
        peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
        site.turn();
        assert_eq!(peer.read(), plain(0x88, &close_payload(1000, "")));
        drop(peer);
        site.turn();
        assert_eq!(site.context.connections(), 0);
    }
}

/// Answers nothing by itself.
struct Takes(Slot<ExchangeId>);

impl HttpHandler for Takes {
    type Exchange = ();

    fn on_request(&mut self, http: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<(), HttpFailure> {
        http.set_timer(SECOND, TimerTag(1));
        http.request_writable();
        http.cx().set_timer(SECOND, TimerTag(2));
        self.0.put(http.id());
        Ok(())
    }
}

#[test]
fn a_handler_that_only_takes_requests_drops_bodies_and_can_be_answered_for() {
    let ids = Slot::new();
    let (mount, handle) = Mount::handler_with("/h", Takes(ids.clone()));
    let mut site = Site::new(
        VhostConfig::new("a.test")
            .protocol("p", Greets)
            .mount(mount),
    );
    let peer = site.say(b"POST /h HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc");
    site.pass(2 * SECOND);
    site.context.cancel_service_handle().cancel_service();
    site.turn();
    assert!(peer.read().is_empty());
    assert_eq!(site.context.handler(handle).unwrap().0.len(), 1);
    let id = ids.take()[0];
    let answered = site.context.with_handler(handle, |_, cx| {
        let mut responder = cx.exchange(id)?;
        assert_eq!(responder.buffered_out(), 0);
        responder.respond(Response::text(200, "late\n")).ok()
    });
    assert!(answered.flatten().is_some());
    site.turn();
    assert!(peer.read().ends_with(b"\r\n\r\nlate\n"));
}

#[test]
fn a_client_that_leaves_before_the_answer_ends_the_exchange() {
    let ids = Slot::new();
    let config = VhostConfig::new("a.test").protocol("p", Greets);
    let mut site = Site::new(config.mount(Mount::handler("/h", Takes(ids.clone()))));
    let peer = site.say(b"GET /h HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(ids.len(), 1);
    peer.shutdown_write();
    site.turn();
    assert_eq!(site.context.connections(), 0);
}

/// Wants to know the outcome and nothing else.
struct Waits(Slot<Result<Fetched, FetchError>>);

impl HttpClientHandler for Waits {
    fn on_done(&mut self, _: &mut Cx<'_>, _: FetchId, outcome: Result<Fetched, FetchError>) {
        self.0.put(outcome);
    }
}

#[test]
fn a_client_that_only_waits_for_the_outcome_gets_it() {
    let outcomes = Slot::new();
    let net = Net::new(0);
    let there = net.listen("10.0.0.7:80".parse().unwrap()).unwrap();
    let mut context = Context::simulated(&net, ContextConfig::default()).unwrap();
    let mut config = VhostConfig::new("client");
    let handle = config.add_http_client(Waits(outcomes.clone()));
    let vhost = context.create_vhost(config).unwrap();
    let info = FetchInfo::post("http://10.0.0.7/up?token=secret", "").unwrap();
    let info = info.streamed_body(Some(2)).streamed();
    let id = context.fetch(vhost, info).unwrap();
    let turn = |context: &mut Context| {
        for _ in 0..10 {
            context.service(Some(Duration::ZERO)).unwrap();
        }
    };
    turn(&mut context);
    context.with_http_client(handle, |_, cx| {
        cx.set_timer(SECOND, TimerTag(1));
        cx.fetch_write(id, b"ab").unwrap();
        cx.request_fetch_writable(id).unwrap_or_default();
        cx.fetch_finish(id).unwrap();
    });
    net.advance(2 * SECOND);
    context.cancel_service_handle().cancel_service();
    turn(&mut context);
    let peer = there.accept().unwrap();
    assert!(peer.read().ends_with(b"\r\n\r\nab"));
    peer.write(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
        .unwrap();
    turn(&mut context);
    assert_eq!(context.http_client(handle).unwrap().0.len(), 1);
    let fetched = outcomes.take().remove(0).unwrap();
    assert_eq!((fetched.status, fetched.body.len()), (200, 0));
    let debug = format!("{fetched:?}");
    assert!(debug.contains("http://10.0.0.7/up"), "{debug}");
    assert!(!debug.contains("secret"), "{debug}");
}

/// Never makes up its mind.
struct Ponders;

impl Hook for Ponders {
    fn ask(&mut self, cx: &mut Cx<'_>, _: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        cx.set_timer(SECOND, TimerTag(1));
        Ok(HookAnswer::Later)
    }
}

#[test]
fn a_hook_that_never_answers_leaves_the_request_to_its_deadline() {
    let (hook, handle) = HookConfig::with_handle("ponders", Ponders);
    let chain = HookChain::default().with(hook.deadline(3 * SECOND));
    let config = VhostConfig::new("a.test").protocol("p", Greets);
    let mut site = Site::new(config.hooks(chain));
    let peer = site.say(&request("/"));
    site.pass(2 * SECOND);
    site.context.cancel_service_handle().cancel_service();
    site.turn();
    assert!(peer.read().is_empty());
    assert!(site.context.hook(handle).is_some());
    site.pass(2 * SECOND);
    assert!(peer.read().starts_with(b"HTTP/1.1 503 "));
}

#[test]
fn a_context_without_an_observer_takes_trouble_in_silence() {
    let mut site = Site::new(VhostConfig::new("a.test").protocol("p", Greets));
    // Nobody is told of a refused request, of a timer of the context, of a listener that cannot
    // accept, or of a vhost that cannot be made.
    let refused = site.say(b"nonsense\r\n\r\n");
    assert!(refused.read().starts_with(b"HTTP/1.1 400 "));
    site.context.set_timer(SECOND, TimerTag(1)).unwrap();
    site.net
        .fail(Call::Accept, site.net.calls(Call::Accept) + 1, EMFILE);
    let shed = site.say(&request("/"));
    assert!(shed.read().is_empty());
    let handle = {
        let mut other = VhostConfig::new("b.test");
        let handle = other.add_protocol("p", Greets);
        site.context.create_vhost(other).unwrap();
        handle
    };
    let taken = site.context.with_protocol(handle, |_, cx| {
        let listen = ListenConfig::new(addr()).backlog(7).dual_stack();
        cx.create_vhost(
            VhostConfig::new("a.test")
                .listen(listen)
                .protocol("p", Greets),
        )
    });
    assert!(taken.flatten().is_some(), "it is refused later");
    site.pass(2 * SECOND);
    let served = site.say(&request("/"));
    assert!(served.read().starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn a_failed_response_or_header_becomes_what_the_client_may_see() {
    let config = VhostConfig::new("a.test").protocol("p", Greets);
    let config = config
        .mount(Mount::handler("/twice", Twice))
        .mount(Mount::handler("/bad", BadHeader));
    let mut site = Site::new(config);
    let peer = site.say(b"GET /twice HTTP/1.1\r\nHost: a.test\r\n\r\n");
    // Half a response must not look like a whole one.
    assert!(!peer.read().ends_with(b"\r\n\r\n"));
    assert!(peer.ended() || peer.was_reset());
    let peer = site.say(b"GET /bad HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(peer.read().starts_with(b"HTTP/1.1 500 "));
}

/// Begins two responses, which is a mistake of the application.
struct Twice;

impl HttpHandler for Twice {
    type Exchange = ();

    fn on_request(&mut self, http: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<(), HttpFailure> {
        let length = wsloop::BodyLength::Known(5);
        http.start(200, &Default::default(), length)?;
        assert!(http.is_started());
        http.start(200, &Default::default(), length)?;
        Ok(())
    }
}

/// Would split the response.
struct BadHeader;

impl HttpHandler for BadHeader {
    type Exchange = ();

    fn on_request(&mut self, http: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<(), HttpFailure> {
        let mut headers = wsloop::HeaderList::new();
        headers.push("X-A", "a\r\nb: c")?;
        http.respond(Response::new(200).headers(headers))?;
        Ok(())
    }
}

const EMFILE: i32 = 24;
