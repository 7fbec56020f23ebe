//! Connections that are used again, those who wait for one, and what is not safe to repeat.

use std::time::Duration;

use wsloop::http::client::Method;
use wsloop::sim::{Call, Fault};
use wsloop::{FetchFailure, FetchInfo, FetchStage, PoolConfig};

use crate::common::{OK, Site, URL, get, read, response, secs};

#[test]
fn one_connection_serves_one_request_after_the_other() {
    let mut site = Site::new();
    site.get();
    let peer = site.accept();
    let request = site.answer(&peer, OK);
    assert_eq!(request, "GET /a HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n");
    let first = site.keeper.fetched();
    assert_eq!(
        (first.status, first.body.as_slice()),
        (200, b"ok".as_slice())
    );
    assert!(!first.reused && first.is_success());
    assert_eq!(first.url, URL);
    assert_eq!(site.counts(), (1, 1, 0));
    for _ in 0..3 {
        site.get();
        site.answer(&peer, OK);
        let next = site.keeper.fetched();
        assert!(next.reused);
        assert_eq!(next.attempts, 1);
    }
    site.nobody_dials();
    assert_eq!(site.metrics().reused, 3);
    assert_eq!(site.metrics().opened, 1);
}

#[test]
fn nothing_runs_inside_the_call_that_begins_it() {
    let mut site = Site::new();
    site.context.fetch(site.vhost, get()).unwrap();
    assert!(site.keeper.take().is_empty());
    assert_eq!(site.context.connections(), 0);
    site.nobody_dials_before_a_turn();
}

impl Site {
    fn nobody_dials_before_a_turn(&self) {
        assert!(self.there.accept().is_none());
    }
}

#[test]
fn connections_that_may_not_be_used_again_are_closed() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".as_slice(),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 smuggled\r\n\r\n",
    ] {
        let mut site = Site::new();
        site.get();
        let peer = site.accept();
        site.answer(&peer, answer);
        assert!(site.keeper.fetched().is_success());
        assert!(peer.ended(), "{}", answer.escape_ascii());
        assert_eq!((site.context.connections(), site.counts()), (0, (0, 0, 0)));
        site.get();
        let next = site.accept();
        site.answer(&next, OK);
        assert!(!site.keeper.fetched().reused);
    }
}

#[test]
fn a_request_without_a_pool_says_so_and_has_a_connection_of_its_own() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    let idle = site.idle();
    site.fetch(get().no_pool());
    let peer = site.accept();
    let request = site.answer(&peer, OK);
    assert!(request.contains("Connection: close\r\n"), "{request}");
    assert!(site.keeper.fetched().is_success());
    assert!(peer.ended() && !idle.ended());
    assert_eq!(site.counts(), (1, 1, 0));
}

#[test]
fn ht_20_what_comes_to_an_idle_connection_ends_it() {
    let mut site = Site::new();
    let peer = site.idle();
    peer.write(b"HTTP/1.1 408 Too Slow\r\n\r\n").unwrap();
    site.turn();
    assert!(peer.ended());
    assert_eq!((site.context.connections(), site.counts()), (0, (0, 0, 0)));
    let peer = site.idle();
    peer.shutdown_write();
    site.turn();
    assert_eq!((site.context.connections(), site.counts()), (0, (0, 0, 0)));
    let peer = site.idle();
    peer.reset();
    site.turn();
    assert_eq!((site.context.connections(), site.counts()), (0, (0, 0, 0)));
    assert!(site.keeper.take().is_empty());
}

#[test]
fn ht_20_a_connection_that_went_stale_unseen_is_replaced_before_anything_is_sent() {
    for method in [Method::GET, Method::POST] {
        for word in ["fin", "bytes"] {
            let mut site = Site::new();
            let peer = site.idle();
            // In one turn: the event has not been seen when the request is given a connection.
            let info = FetchInfo::new(method.clone(), URL).unwrap();
            site.context.fetch(site.vhost, info).unwrap();
            match word {
                "fin" => peer.shutdown_write(),
                _ => peer
                    .write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .unwrap(),
            }
            let next = site.accept();
            assert_eq!(read(&peer), "", "{word}");
            site.answer(&next, OK);
            let done = site.keeper.fetched();
            assert_eq!((done.body.as_slice(), done.attempts), (b"ok".as_slice(), 1));
        }
    }
}

/// Gives an idle connection a request, and ends it when the request is there.
fn lose_with(method: Method, body: Option<&'static str>, lose: fn(wsloop::sim::SimPeer)) -> Site {
    let mut site = Site::new();
    let peer = site.idle();
    let mut info = FetchInfo::new(method, URL).unwrap();
    if let Some(body) = body {
        info = info.body(body);
    }
    site.fetch(info);
    assert!(!read(&peer).is_empty());
    lose(peer);
    site.turn();
    site
}

#[test]
fn rc_04_an_idempotent_request_that_met_a_dying_connection_is_sent_once_more() {
    for lose in [
        drop as fn(wsloop::sim::SimPeer),
        wsloop::sim::SimPeer::reset,
    ] {
        for (method, body) in [(Method::GET, None), (Method::PUT, Some("whole"))] {
            let mut site = lose_with(method, body, lose);
            let next = site.accept();
            let request = site.answer(&next, OK);
            assert!(request.ends_with(body.unwrap_or("\r\n\r\n")), "{request}");
            let done = site.keeper.fetched();
            assert_eq!((done.attempts, done.reused), (2, false));
        }
    }
}

#[test]
fn rc_04_the_second_attempt_is_the_last_one() {
    let mut site = lose_with(Method::GET, None, drop);
    let next = site.accept();
    drop(next);
    site.turn();
    let error = site.keeper.error();
    assert_eq!((error.attempts(), error.stage()), (2, FetchStage::Response));
    assert!(error.is_retryable());
    site.nobody_dials();
    assert_eq!(site.context.connections(), 0);
}

#[test]
fn rc_04_a_post_that_may_have_arrived_is_not_sent_again() {
    let mut site = lose_with(Method::POST, Some("money"), drop);
    let error = site.keeper.error();
    assert_eq!((error.attempts(), error.stage()), (1, FetchStage::Response));
    site.nobody_dials();
}

#[test]
fn rc_04_a_request_that_was_answered_in_part_is_not_sent_again() {
    let mut site = Site::new();
    let peer = site.idle();
    site.get();
    peer.write(b"HTTP/1.1 2").unwrap();
    site.turn();
    drop(peer);
    site.turn();
    assert_eq!(site.keeper.error().stage(), FetchStage::Response);
    site.nobody_dials();
}

#[test]
fn rc_04_a_post_of_which_nothing_left_is_sent_again() {
    let mut site = Site::new();
    let peer = site.idle();
    let next = site.net.calls(Call::Write) + 1;
    let fault = Fault::from(std::io::ErrorKind::BrokenPipe);
    site.net.fail(Call::Write, next, fault);
    site.fetch(FetchInfo::post(URL, "money").unwrap());
    assert_eq!(read(&peer), "");
    let next = site.accept();
    let request = site.answer(&next, OK);
    assert!(request.ends_with("money"));
    assert_eq!(site.keeper.fetched().attempts, 2);
}

/// Of a request that is cut the server has seen a part: only what is safe to repeat is.
#[test]
fn rc_04_half_a_request_is_sent_again_only_if_that_is_safe() {
    for (method, again) in [
        (Method::GET, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::POST, false),
        (Method::PATCH, false),
    ] {
        let mut site = Site::new();
        let peer = site.idle();
        site.net.limit_io(20);
        let writes = site.net.calls(Call::Write);
        let fault = Fault::from(std::io::ErrorKind::BrokenPipe);
        site.net.fail(Call::Write, writes + 2, fault);
        let info = FetchInfo::new(method.clone(), URL).unwrap();
        site.fetch(info.body("to be or not to be"));
        assert_eq!(read(&peer).len(), 20, "{method}");
        site.net.limit_io(usize::MAX);
        if again {
            let next = site.accept();
            let request = site.answer(&next, OK);
            assert!(request.ends_with("to be or not to be"), "{request}");
            assert_eq!(site.keeper.fetched().attempts, 2, "{method}");
        } else {
            let error = site.keeper.error();
            assert_eq!(error.attempts(), 1, "{method} {error}");
        }
        site.nobody_dials();
        drop(peer);
        site.pass(secs(31));
        assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
    }
}

#[test]
fn a_first_connection_that_ends_is_an_error_and_no_reason_to_try_again() {
    let mut site = Site::new();
    site.get();
    drop(site.accept());
    site.turn();
    let error = site.keeper.error();
    assert_eq!((error.attempts(), error.stage()), (1, FetchStage::Response));
    site.nobody_dials();
}

#[test]
fn rc_06_those_who_wait_have_their_turn_in_order() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    for n in 0..4 {
        site.fetch(FetchInfo::get(&format!("http://10.0.0.7/{n}")).unwrap());
    }
    assert_eq!(site.counts(), (1, 0, 3));
    let peer = site.accept();
    site.nobody_dials();
    for n in 0..4 {
        let request = site.answer(&peer, OK);
        assert!(request.starts_with(&format!("GET /{n} ")), "{request}");
        assert_eq!(site.keeper.fetched().reused, n > 0);
    }
    assert_eq!(site.counts(), (1, 1, 0));
}

/// A thousand behind one connection: one is cancelled, one loses patience, the others are served in
/// order.
#[test]
fn rc_06_a_thousand_wait_in_order_and_who_leaves_is_not_in_the_way() {
    let mut site = Site::with(PoolConfig::new().per_origin(1).waiting(1000));
    let target = |n: usize| FetchInfo::get(&format!("http://10.0.0.7/{n}")).unwrap();
    let mut hasty = wsloop::FetchTimeouts::default();
    hasty.pool = Some(secs(2));
    let ids: Vec<_> = (0..=1000)
        .map(|n| {
            let info = target(n);
            let info = match n {
                700 => info.timeouts(hasty).unwrap(),
                _ => info,
            };
            site.context.fetch(site.vhost, info).unwrap()
        })
        .collect();
    site.turn();
    assert_eq!(site.counts(), (1, 0, 1000));
    site.get();
    let error = site.keeper.error();
    assert!(
        matches!(error.failure(), FetchFailure::QueueFull(1000)),
        "{error}"
    );

    site.cx(|cx| cx.cancel_fetch(ids[300])).unwrap();
    assert!(matches!(
        site.keeper.error().failure(),
        FetchFailure::Aborted
    ));
    site.pass(secs(2));
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), error.is_timeout()),
        (FetchStage::PoolWait, true)
    );
    assert_eq!(site.counts(), (1, 0, 998));

    let peer = site.accept();
    for n in (0..=1000).filter(|n| ![300, 700].contains(n)) {
        let request = read(&peer);
        assert!(request.starts_with(&format!("GET /{n} ")), "{n}: {request}");
        peer.write(OK).unwrap();
        for _ in 0..4 {
            site.context.service(Some(Duration::ZERO)).unwrap();
        }
    }
    assert_eq!(site.keeper.outcomes().len(), 999);
    site.nobody_dials();
    site.pass(secs(31));
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
    assert!(site.context.next_deadline().is_none(), "no timer is left");
}

#[test]
fn a_connection_that_ends_makes_room_for_who_waits() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    site.get();
    site.get();
    let peer = site.accept();
    site.answer(
        &peer,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(site.keeper.fetched().is_success());
    let next = site.accept();
    site.answer(&next, OK);
    assert!(site.keeper.fetched().is_success());
}

#[test]
fn a_failed_dial_makes_room_for_who_waits() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    let refused = FetchInfo::get("http://10.0.0.9/").unwrap();
    site.fetch(refused.clone());
    site.fetch(refused);
    let errors = site.keeper.outcomes();
    assert_eq!(errors.len(), 2);
    for error in errors {
        assert_eq!(error.unwrap_err().stage(), FetchStage::Tcp);
    }
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}

#[test]
fn rc_06_the_wait_has_a_deadline_and_the_queue_an_end() {
    let pool = PoolConfig::new()
        .per_origin(1)
        .waiting(2)
        .queue_timeout(secs(3));
    let mut site = Site::with(pool);
    for _ in 0..4 {
        site.get();
    }
    let error = site.keeper.error();
    assert!(
        matches!(error.failure(), FetchFailure::QueueFull(2)),
        "{error}"
    );
    assert!(error.is_retryable());
    let peer = site.accept();
    site.pass(secs(3));
    let errors = site.keeper.outcomes();
    assert_eq!(errors.len(), 2);
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(
            (error.stage(), error.is_timeout()),
            (FetchStage::PoolWait, true)
        );
        assert_eq!(error.elapsed(), secs(3));
    }
    assert_eq!(site.counts(), (1, 0, 0));
    site.answer(&peer, OK);
    assert!(site.keeper.fetched().is_success());
    assert_eq!(site.metrics().turned_away, 1);
}

#[test]
fn idle_connections_are_closed_when_their_time_is_over() {
    let mut site = Site::with(PoolConfig::new().idle_lifetime(secs(5)));
    let peer = site.idle();
    site.pass(secs(4));
    assert!(!peer.ended());
    site.pass(secs(2));
    assert!(peer.ended());
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}

#[test]
fn the_total_is_shared_between_origins_and_idle_ones_make_room() {
    let mut site = Site::with(PoolConfig::new().total(1));
    let peer = site.idle();
    let other = site.net.listen("10.0.0.8:80".parse().unwrap()).unwrap();
    site.fetch(FetchInfo::get("http://10.0.0.8/").unwrap());
    assert!(peer.ended(), "it made room");
    let next = other.accept().unwrap();
    site.answer(&next, OK);
    assert!(site.keeper.fetched().is_success());
    assert_eq!(site.counts(), (1, 1, 0));
}

#[test]
fn a_request_from_inside_on_done_uses_the_connection_that_just_served() {
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    let (vhost, mut left) = (site.vhost, 3);
    site.keeper.set(|acts| {
        acts.done = Some(Box::new(move |cx, _| {
            if left > 0 {
                left -= 1;
                cx.fetch(vhost, get()).unwrap();
            }
            Ok(())
        }));
    });
    site.get();
    let peer = site.accept();
    for _ in 0..4 {
        site.answer(&peer, OK);
    }
    assert_eq!(site.keeper.outcomes().len(), 4);
    assert_eq!(site.metrics().opened, 1);
}

#[test]
fn different_names_and_ports_have_different_connections() {
    let mut site = Site::new();
    let _idle = site.idle();
    let other = FetchInfo::get("http://elsewhere.test/")
        .unwrap()
        .address("10.0.0.7")
        .unwrap();
    site.fetch(other);
    let peer = site.accept();
    let request = site.answer(&peer, OK);
    assert!(request.contains("Host: elsewhere.test\r\n"), "{request}");
    assert!(!site.keeper.fetched().reused);
}

#[test]
fn a_hundred_requests_go_over_eight_connections_and_none_is_lost() {
    let mut site = Site::new();
    for _ in 0..100 {
        site.context.fetch(site.vhost, get()).unwrap();
    }
    site.turn();
    let mut peers = Vec::new();
    while let Some(peer) = site.there.accept() {
        peers.push(peer);
    }
    assert_eq!((peers.len(), site.counts()), (8, (8, 0, 92)));
    for round in 0..20 {
        for peer in &peers {
            if !read(peer).is_empty() {
                peer.write(&response("200 OK", "", &format!("{round}")))
                    .unwrap();
            }
        }
        site.turn();
    }
    let done = site.keeper.outcomes();
    assert_eq!(done.len(), 100);
    assert!(
        done.iter()
            .all(|outcome| outcome.as_ref().unwrap().status == 200)
    );
    assert_eq!((site.counts(), site.metrics().reused), ((8, 8, 0), 92));
    site.pass(Duration::from_secs(31));
    assert_eq!(site.context.connections(), 0);
}
