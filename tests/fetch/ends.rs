//! Ends: given up, shut down, destroyed, dropped, panicked; and what began nothing at all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use wsloop::{FetchError, FetchFailure, FetchInfo, Fetched, PoolConfig, TimerTag, VhostConfig};

use crate::common::{Keeper, OK, Site, Told, get, read, secs};

fn failure(outcome: Result<Fetched, FetchError>) -> String {
    outcome.unwrap_err().failure().to_string()
}

#[test]
fn a_request_can_be_given_up_wherever_it_is() {
    // Just begun, dialling, sent, receiving, waiting.
    for place in 0..5 {
        let mut site = Site::with(PoolConfig::new().per_origin(1));
        if place == 1 {
            site.net
                .connect_delay(crate::common::THERE.parse().unwrap(), None);
        }
        let first = (place == 4).then(|| site.get());
        let id = site.context.fetch(site.vhost, get()).unwrap();
        if place > 0 {
            site.turn();
        }
        let peer = (place > 1).then(|| site.accept());
        if place == 3 {
            site.answer(peer.as_ref().unwrap(), b"HTTP/1.1 200 OK\r\n\r\nx");
        }
        site.cx(|cx| {
            cx.cancel_fetch(id).unwrap();
            assert!(cx.cancel_fetch(id).is_err());
        });
        let error = site.keeper.error();
        assert!(
            matches!(error.failure(), FetchFailure::Aborted),
            "{place}: {error}"
        );
        match first {
            None => assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0)),
            Some(_) => {
                site.answer(&peer.unwrap(), OK);
                assert!(site.keeper.fetched().is_success());
            }
        }
    }
}

#[test]
fn after_it_was_given_up_in_a_callback_nothing_more_comes_but_the_end() {
    for act in ["response", "body", "writable"] {
        let mut site = Site::new();
        site.keeper.set(|acts| {
            let place = match act {
                "response" => &mut acts.response,
                "body" => &mut acts.body,
                _ => &mut acts.writable,
            };
            *place = Some(Box::new(|cx, id| {
                cx.cancel_fetch(id).unwrap();
                Ok(())
            }));
        });
        let info = FetchInfo::post(crate::common::URL, "x").unwrap().streamed();
        let streams = act == "writable";
        site.fetch(if streams {
            info.streamed_body(None)
        } else {
            info
        });
        if !streams {
            let peer = site.accept();
            let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n";
            site.answer(&peer, answer);
        }
        let told = site.keeper.take();
        let expected = if act == "body" { 3 } else { 2 };
        assert_eq!(told.len(), expected, "{act}: {told:?}");
        let Some(Told::Done(Err(error))) = told.last() else {
            panic!("{act}: {told:?}");
        };
        assert!(matches!(error.failure(), FetchFailure::Aborted), "{error}");
        assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
    }
}

#[test]
fn what_cannot_be_fetched_is_refused_by_the_call() {
    let mut site = Site::new();
    let tls = FetchInfo::get("https://10.0.0.7/").unwrap();
    let error = site.context.fetch(site.vhost, tls).unwrap_err();
    assert_eq!(error.url(), "https://10.0.0.7/");
    assert!(
        matches!(error.failure(), FetchFailure::NoClientTls),
        "{error}"
    );
    let without = site
        .context
        .create_vhost(VhostConfig::new("other"))
        .unwrap();
    let error = site.context.fetch(without, get()).unwrap_err();
    assert!(
        matches!(error.failure(), FetchFailure::UnknownHandler),
        "{error}"
    );
    let mut config = VhostConfig::new("third");
    let foreign = config.add_http_client(Keeper::default());
    let error = site
        .context
        .fetch(site.vhost, get().handled_by(foreign))
        .unwrap_err();
    assert!(
        matches!(error.failure(), FetchFailure::UnknownHandler),
        "{error}"
    );
    site.turn();
    assert!(site.keeper.take().is_empty());
}

#[test]
fn the_handler_that_is_named_is_told() {
    let (first, second) = (Keeper::default(), Keeper::default());
    let mut handle = None;
    let keeper = second.clone();
    let mut site = Site::shaped(|config| {
        let mut config = config.http_client(first);
        handle = Some(config.add_http_client(keeper));
        config
    });
    site.fetch(get().handled_by(handle.unwrap()));
    let peer = site.accept();
    site.answer(&peer, OK);
    assert!(second.fetched().is_success());
    assert!(site.keeper.take().is_empty());
}

#[test]
fn a_shutdown_closes_what_is_idle_and_lets_what_is_at_work_finish() {
    let mut site = Site::with(PoolConfig::new().per_origin(2));
    site.get();
    let busy = site.accept();
    let idle = site.idle();
    site.get();
    read(&idle);
    idle.write(OK).unwrap();
    site.turn();
    assert!(site.keeper.fetched().is_success());
    site.context.shutdown(secs(10));
    site.turn();
    assert!(idle.ended() && !busy.ended());
    assert!(site.context.fetch(site.vhost, get()).is_err());
    site.answer(&busy, OK);
    assert!(site.keeper.fetched().is_success());
    assert!(site.context.is_shut_down());
}

#[test]
fn a_shutdown_ends_what_waits_at_once_and_the_rest_after_its_grace() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    site.get();
    site.get();
    site.context.shutdown(secs(2));
    site.turn();
    assert_eq!(
        failure(site.keeper.outcomes().remove(0)),
        "the context is shutting down"
    );
    site.pass(secs(2));
    assert_eq!(
        failure(site.keeper.outcomes().remove(0)),
        "the context is shutting down"
    );
    assert!(site.context.is_shut_down());
}

#[test]
fn a_vhost_that_is_destroyed_ends_its_requests_and_then_goes() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    site.get();
    site.get();
    site.context.destroy_vhost(site.vhost).unwrap();
    site.turn();
    let outcomes = site.keeper.outcomes();
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert_eq!(failure(outcome), "its vhost was destroyed");
    }
    assert!(site.context.http_pool_metrics(site.vhost).is_err());
    assert!(site.context.http_client(site.handle).is_none());
    assert_eq!(site.context.connections(), 0);
}

#[test]
fn dropping_the_context_ends_every_request() {
    let mut site = Site::with(PoolConfig::new().per_origin(2));
    let _idle = site.idle();
    site.get();
    site.get();
    site.get();
    site.context.fetch(site.vhost, get()).unwrap();
    let keeper = site.keeper.clone();
    drop(site);
    let outcomes = keeper.outcomes();
    assert_eq!(outcomes.len(), 4);
    for outcome in outcomes {
        assert_eq!(failure(outcome), "the context was dropped");
    }
}

#[test]
fn re_07_a_panic_costs_its_request_and_its_connection_and_nothing_else() {
    for place in ["response", "body", "done"] {
        let mut site = Site::with(PoolConfig::new().per_origin(1));
        site.keeper.set(|acts| {
            let act = match place {
                "response" => &mut acts.response,
                "body" => &mut acts.body,
                _ => &mut acts.done,
            };
            let mut calm = false;
            *act = Some(Box::new(move |_, _| {
                assert!(std::mem::replace(&mut calm, true), "on purpose");
                Ok(())
            }));
        });
        site.fetch(get().streamed());
        site.fetch(get().streamed());
        let peer = site.accept();
        read(&peer);
        peer.write(OK).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| site.turn()));
        assert!(panicked.is_err(), "{place}");
        // The mutex of the test is poisoned with it.
        site.keeper = site.keeper.recovered();
        site.turn();
        let next = site.accept();
        site.answer(&next, OK);
        let outcomes = site.keeper.outcomes();
        assert!(outcomes.last().unwrap().is_ok(), "{place}: {outcomes:?}");
        assert_eq!((site.counts(), site.context.connections()), ((1, 1, 0), 1));
        site.context.destroy_vhost(site.vhost).unwrap();
        site.turn();
        assert!(
            site.context.http_pool_metrics(site.vhost).is_err(),
            "nothing holds it"
        );
    }
}

#[test]
fn timers_and_wakes_reach_the_handler() {
    let mut site = Site::new();
    let vhost = site.vhost;
    site.cx(|cx| cx.set_timer(secs(1), TimerTag(7)));
    site.pass(secs(1));
    let told = site.keeper.take();
    assert!(matches!(told[..], [Told::Timer(7)]), "{told:?}");
    site.keeper.set(|acts| {
        acts.wake = Some(Box::new(move |cx| {
            cx.fetch(vhost, get()).unwrap();
        }));
    });
    let handle = site.context.cancel_service_handle();
    std::thread::spawn(move || handle.cancel_service())
        .join()
        .unwrap();
    let peer = site.accept();
    site.answer(&peer, OK);
    let told = site.keeper.take();
    assert!(
        matches!(told[..], [Told::Wake, Told::Head(200), Told::Done(Ok(_))]),
        "{told:?}"
    );
}

#[test]
fn a_request_over_the_cap_of_connections_is_an_error() {
    let mut limits = wsloop::Limits::default();
    limits.connections = 1;
    let mut site = Site::shaped(|config| config.limits(limits));
    site.get();
    site.get();
    let error = site.keeper.error();
    assert!(
        matches!(error.failure(), FetchFailure::TooManyConnections(1)),
        "{error}"
    );
    let peer = site.accept();
    site.answer(&peer, OK);
    assert!(site.keeper.fetched().is_success());
}

#[test]
fn nothing_is_left_behind_by_a_thousand_requests() {
    let mut site = Site::new();
    let peer = site.idle();
    let before = (
        site.context.memory(),
        site.context.next_deadline().is_some(),
    );
    for _ in 0..1000 {
        site.context.fetch(site.vhost, get()).unwrap();
        for _ in 0..4 {
            site.context.service(Some(Duration::ZERO)).unwrap();
        }
        read(&peer);
        peer.write(OK).unwrap();
        for _ in 0..4 {
            site.context.service(Some(Duration::ZERO)).unwrap();
        }
    }
    assert_eq!(site.keeper.outcomes().len(), 1000);
    let after = (
        site.context.memory(),
        site.context.next_deadline().is_some(),
    );
    assert_eq!(before, after);
    assert_eq!(site.counts(), (1, 1, 0));
}
