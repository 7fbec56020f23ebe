//! Every exchange ends once, and says how.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use wsloop::sim::SimPeer;
use wsloop::{
    BodyLength, Cx, ExchangeId, ExchangeOutcome, Http, HttpFailure, HttpHandler, HttpRequest,
    Mount, Response, TimerTag, VhostConfig,
};

use super::common::{Act, Handler, Kept, get, post, post_chunked, read, world};
use crate::support::{Recorder, World, addr};

/// The one outcome in the log.
fn outcome(world: &World) -> String {
    let log = world.log.take();
    let mut done = log.iter().filter_map(|line| line.strip_prefix("done "));
    let first = done.next().unwrap_or_else(|| panic!("no end: {log:?}"));
    assert_eq!(done.next(), None, "a second end: {log:?}");
    first.to_owned()
}

fn begun(make: impl FnOnce(Handler) -> Handler, request: &[u8]) -> (World, SimPeer) {
    let mut world = world(|log| make(Handler::new(log)));
    let peer = world.dial();
    peer.write(request).unwrap();
    world.turn();
    (world, peer)
}

fn same(handler: Handler) -> Handler {
    handler
}

fn acts(act: impl FnMut(&mut Http<'_>) -> Result<(), HttpFailure> + Send + 'static) -> Option<Act> {
    Some(Box::new(act))
}

/// Begins a long response and writes of it what it may.
fn flood(http: &mut Http<'_>) -> Result<(), HttpFailure> {
    http.start(200, &Default::default(), BodyLength::Unknown)?;
    http.write(&[b'x'; 300_000])?;
    Ok(())
}

#[test]
fn a_client_that_leaves_within_a_body_ends_the_exchange() {
    for request in [post("/h", 10), post_chunked("/h")] {
        let (mut world, peer) = begun(same, &request);
        peer.shutdown_write();
        world.turn();
        assert_eq!(outcome(&world), "Disconnected");
        assert_eq!(world.context.connections(), 0);
    }
}

#[test]
fn a_reset_ends_the_exchange_with_its_error() {
    for request in [get("/h"), post("/h", 10)] {
        let (mut world, peer) = begun(same, &request);
        peer.reset();
        world.turn();
        let outcome = outcome(&world);
        assert!(outcome.starts_with("Io("), "{outcome}");
        assert_eq!(world.context.connections(), 0);
    }
}

#[test]
fn a_reset_while_a_response_waits_ends_the_exchange_with_its_error() {
    let make = |handler| Handler {
        request: acts(flood),
        ..handler
    };
    let (mut world, peer) = begun(make, &get("/h"));
    peer.reset();
    world.turn();
    let outcome = outcome(&world);
    assert!(outcome.starts_with("Io("), "{outcome}");
}

#[test]
fn rc_08_a_shutdown_lets_an_exchange_finish_within_its_grace() {
    let make = |handler| Handler {
        timer: acts(|http| {
            http.respond(Response::text(200, "late\n"))?;
            Ok(())
        }),
        request: acts(|http| {
            http.set_timer(Duration::from_secs(2), TimerTag(1));
            Ok(())
        }),
        ..handler
    };
    let (mut world, peer) = begun(make, &get("/h"));
    world.context.shutdown(Duration::from_secs(5));
    world.pass(Duration::from_secs(3));
    let text = read(&peer);
    assert!(
        text.ends_with("late\n") && text.contains("Connection: close\r\n"),
        "{text}"
    );
    assert_eq!(outcome(&world), "Responded(200)");
}

#[test]
fn rc_08_the_end_of_a_shutdowns_grace_ends_the_exchange() {
    let (mut world, _peer) = begun(same, &get("/h"));
    world.context.shutdown(Duration::from_secs(5));
    world.pass(Duration::from_secs(4));
    assert_eq!(world.log.count("done"), 0);
    world.pass(Duration::from_secs(2));
    assert_eq!(outcome(&world), "Shutdown");
    assert!(world.context.is_shut_down());
}

#[test]
fn a_destroyed_vhost_waits_for_its_exchanges_and_closes_their_connections() {
    let make = |handler| Handler {
        request: acts(|http| {
            http.set_timer(Duration::from_secs(2), TimerTag(1));
            Ok(())
        }),
        timer: acts(|http| {
            http.respond(Response::text(200, "late\n"))?;
            Ok(())
        }),
        ..handler
    };
    let (mut world, peer) = begun(make, &get("/h"));
    world.context.destroy_vhost(world.vhost).unwrap();
    world.pass(Duration::from_secs(3));
    let text = read(&peer);
    assert!(
        text.ends_with("late\n") && text.contains("Connection: close\r\n"),
        "{text}"
    );
    assert_eq!(outcome(&world), "Responded(200)");
    assert!(peer.ended());
}

/// A handler that only counts those of its exchanges that are alive.
struct Counts(Arc<()>);

impl HttpHandler for Counts {
    type Exchange = Arc<()>;

    fn on_request(
        &mut self,
        _: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Arc<()>, HttpFailure> {
        assert_ne!(request.query(), Some("request"));
        Ok(Arc::clone(&self.0))
    }

    fn on_done(&mut self, _: &mut Cx<'_>, _: ExchangeId, _: Arc<()>, _: &ExchangeOutcome) {}
}

#[test]
fn a_dropped_context_drops_what_its_exchanges_keep() {
    let alive = Arc::new(());
    let counts = Counts(Arc::clone(&alive));
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::handler("/", counts))
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    world.turn();
    assert_eq!(Arc::strong_count(&alive), 3);
    drop(world);
    assert_eq!(Arc::strong_count(&alive), 1);
    assert!(peer.ended() || peer.was_reset());
}

#[test]
fn a_body_that_stops_coming_is_408() {
    let (mut world, peer) = begun(same, &post("/h", 10));
    world.pass(Duration::from_secs(29));
    assert_eq!(read(&peer), "");
    world.pass(Duration::from_secs(2));
    let text = read(&peer);
    assert!(
        text.starts_with("HTTP/1.1 408 ") && text.contains("Connection: close\r\n"),
        "{text}"
    );
    let outcome = outcome(&world);
    assert!(
        outcome.contains("Timeout(") && outcome.contains("Body"),
        "{outcome}"
    );
    assert!(peer.ended());
}

#[test]
fn a_client_that_reads_nothing_is_given_up_with_the_write_deadline() {
    let make = |handler| Handler {
        request: acts(flood),
        ..handler
    };
    let (mut world, _peer) = begun(make, &get("/h"));
    world.pass(Duration::from_secs(29));
    assert_eq!(world.log.count("done"), 0);
    world.pass(Duration::from_secs(2));
    let outcome = outcome(&world);
    assert!(
        outcome.contains("Timeout(") && outcome.contains("Write"),
        "{outcome}"
    );
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn re_01_an_abort_of_the_handler_is_told_as_that() {
    let make = |handler| Handler {
        request: acts(|http| {
            http.abort();
            Ok(())
        }),
        ..handler
    };
    let (world, peer) = begun(make, &get("/h"));
    assert_eq!(outcome(&world), "Aborted");
    assert!(peer.ended() || peer.was_reset());
    let make = |handler| Handler {
        body_end: acts(|_| Err(HttpFailure::abort())),
        ..handler
    };
    let (world, _peer) = begun(make, &get("/h"));
    assert_eq!(outcome(&world), "Aborted");
}

#[test]
fn re_01_an_abort_from_elsewhere_is_told_as_that() {
    for by_wsi in [false, true] {
        let place = Kept::default();
        let kept = place.clone();
        let mut world = world(|log| Handler {
            request: place.keeper(),
            wake: Some(Box::new(move |cx| {
                let id = kept.id();
                match by_wsi {
                    true => cx.abort(id.wsi()).unwrap(),
                    false => cx.exchange(id).unwrap().abort(),
                }
            })),
            ..Handler::new(log)
        });
        let peer = world.dial();
        peer.write(&get("/h")).unwrap();
        world.turn();
        world.context.cancel_service_handle().cancel_service();
        world.turn();
        assert_eq!(outcome(&world), "Aborted");
    }
}

#[test]
fn bodies_that_are_none_end_the_exchange_with_the_reason() {
    for (request, body, want) in [
        (post_chunked("/h"), "x\r\n", "Body(ChunkSize)"),
        (post_chunked("/h"), "1\r\nabc", "Body(ChunkEnd)"),
        (
            post_chunked("/h"),
            "200000\r\n",
            "BodyTooLarge { limit: 1048576 }",
        ),
    ] {
        let (mut world, peer) = begun(same, &request);
        peer.write(body.as_bytes()).unwrap();
        for _ in 0..40 {
            let _ = peer.write(&[b'x'; 65_536]);
            world.turn();
        }
        assert_eq!(outcome(&world), want);
        let text = read(&peer);
        assert!(
            text.starts_with("HTTP/1.1 4") && text.contains("Connection: close\r\n"),
            "{text}"
        );
    }
}

fn failing(
    place: &str,
    handler: Handler,
    fail: fn(&mut Http<'_>) -> Result<(), HttpFailure>,
) -> Handler {
    let wakes = |http: &mut Http<'_>| {
        http.set_timer(Duration::from_secs(1), TimerTag(1));
        http.request_writable();
        Ok(())
    };
    match place {
        "request" => Handler {
            request: acts(fail),
            ..handler
        },
        "body" => Handler {
            body: acts(fail),
            ..handler
        },
        "body_end" => Handler {
            body_end: acts(fail),
            ..handler
        },
        "writable" => Handler {
            writable: acts(fail),
            body_end: acts(wakes),
            ..handler
        },
        "timer" => Handler {
            timer: acts(fail),
            body_end: acts(wakes),
            ..handler
        },
        "read_closed" => Handler {
            read_closed: acts(fail),
            ..handler
        },
        other => panic!("no callback {other}"),
    }
}

const PLACES: [&str; 6] = [
    "request",
    "body",
    "body_end",
    "writable",
    "timer",
    "read_closed",
];

#[test]
fn a_failure_in_any_callback_answers_once() {
    for place in PLACES {
        let fail = |_: &mut Http<'_>| Err(HttpFailure::respond(Response::text(500, "sorry\n")));
        let mut world = world(|log| failing(place, Handler::new(log), fail));
        let peer = world.dial();
        peer.write(&[post("/h", 3).as_slice(), b"abc"].concat())
            .unwrap();
        world.pass(Duration::from_secs(2));
        if place == "read_closed" {
            peer.shutdown_write();
            world.turn();
        } else {
            peer.write(&get("/hi/next")).unwrap();
            world.turn();
        }
        let text = read(&peer);
        assert!(text.starts_with("HTTP/1.1 500 "), "{place}: {text}");
        assert_eq!(
            text.contains("GET /hi/next"),
            place != "read_closed",
            "{place}: {text}"
        );
        match place {
            // It has not come about.
            "request" => assert_eq!(world.log.count("done"), 0),
            _ => assert_eq!(outcome(&world), "Responded(500)", "{place}"),
        }
    }
}

#[test]
fn re_07_a_panic_in_any_callback_costs_one_connection_and_leaks_nothing() {
    for place in PLACES.into_iter().chain(["done"]) {
        let mut world = world(|log| match place {
            "done" => Handler {
                body_end: acts(|http| {
                    http.respond(Response::text(200, "fine\n"))?;
                    Ok(())
                }),
                done: Some(Box::new(|_| panic!("of the test"))),
                ..Handler::new(log)
            },
            _ => failing(place, Handler::new(log), |_| panic!("of the test")),
        });
        let (other, peer) = (world.dial(), world.dial());
        peer.write(&[post("/h", 3).as_slice(), b"abc"].concat())
            .unwrap();
        let mut panics = 0;
        for _ in 0..40 {
            world.net.advance(Duration::from_millis(100));
            if place == "read_closed" {
                peer.shutdown_write();
            }
            let turn = || world.context.service(Some(Duration::ZERO)).unwrap();
            panics += usize::from(catch_unwind(AssertUnwindSafe(turn)).is_err());
        }
        assert_eq!(panics, 1, "{place}");
        let twice = usize::from(place == "done");
        assert_eq!(world.log.count("done"), twice, "{place}");
        other.write(&get("/hi")).unwrap();
        world.turn();
        assert!(read(&other).ends_with("GET /hi\n"), "{place}");
        assert_eq!(world.context.connections(), 1, "{place}");
    }
}

#[test]
fn re_07_a_panic_drops_what_the_exchange_kept() {
    let alive = Arc::new(());
    struct Panics(Counts);
    impl HttpHandler for Panics {
        type Exchange = Arc<()>;

        fn on_request(
            &mut self,
            http: &mut Http<'_>,
            request: &HttpRequest<'_>,
        ) -> Result<Arc<()>, HttpFailure> {
            self.0.on_request(http, request)
        }

        fn on_body_end(&mut self, _: &mut Http<'_>, _: &mut Arc<()>) -> Result<(), HttpFailure> {
            panic!("of the test")
        }
    }
    let handler = Panics(Counts(Arc::clone(&alive)));
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::handler("/", handler))
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    let turn = || world.context.service(Some(Duration::ZERO)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(turn)).is_err());
    world.turn();
    assert_eq!(Arc::strong_count(&alive), 2);
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn timers_of_a_refused_request_do_not_ring_for_the_next_one() {
    let mut first = true;
    let make = |handler| Handler {
        request: acts(move |http| {
            if std::mem::take(&mut first) {
                http.set_timer(Duration::from_secs(1), TimerTag(7));
                http.request_writable();
                http.pause_reading();
                return Err(Response::text(403, "no\n").into());
            }
            Ok(())
        }),
        ..handler
    };
    let (mut world, peer) = begun(make, &[get("/h/1"), get("/h/2")].concat());
    assert!(read(&peer).starts_with("HTTP/1.1 403 "));
    world.pass(Duration::from_secs(2));
    let log = world.log.take();
    assert!(!log.iter().any(|line| line.starts_with("timer")), "{log:?}");
    assert!(!log.contains(&"writable".to_owned()), "{log:?}");
}

#[test]
fn timers_end_with_their_exchange() {
    let mut first = true;
    let make = |handler| Handler {
        request: acts(move |http| {
            if std::mem::take(&mut first) {
                http.set_timer(Duration::from_secs(1), TimerTag(7));
                http.respond(Response::text(200, "done\n"))?;
            }
            Ok(())
        }),
        ..handler
    };
    let (mut world, _peer) = begun(make, &[get("/h/1"), get("/h/2")].concat());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.log.count("timer"), 0);
    assert_eq!(world.log.count("request"), 2);
}
