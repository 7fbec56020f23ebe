//! Bodies of requests: their limits, their pace, and who waits for whom.

use std::time::Duration;

use wsloop::{HttpFailure, Limits, Mount, Response, Timeouts, VhostConfig};

use super::common::{Handler, bodies, get, post, post_chunked, read, statuses, vhost, world};
use crate::support::{Recorder, World, addr};

fn limited(bytes: u64) -> World {
    World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::handler("/h", Handler::new(log)).body_bytes(bytes))
            .mount(Mount::call("/hi", |request| {
                Response::text(200, format!("{} {}\n", request.method(), request.path()))
            }))
    })
}

#[test]
fn a_body_at_the_limit_is_taken_and_one_byte_more_is_413() {
    for limit in [1usize, 5, 1000] {
        for (length, fits) in [(limit, true), (limit + 1, false)] {
            let body = vec![b'b'; length];
            let chunk = format!("{length:x}\r\n");
            let chunked = [chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            for (head, body) in [
                (post("/h/echo", length), body),
                (post_chunked("/h/echo"), chunked),
            ] {
                let mut world = limited(limit as u64);
                let peer = world.dial();
                peer.write(&[head.as_slice(), &body, &get("/hi")].concat())
                    .unwrap();
                world.turn();
                let text = read(&peer);
                match fits {
                    true => assert_eq!(statuses(&text), [200, 200]),
                    false => assert_eq!(statuses(&text), [413]),
                }
                assert_eq!(peer.ended(), !fits);
            }
        }
    }
}

#[test]
fn a_declared_length_over_the_limit_is_413_before_anybody_asks_for_it() {
    let mut world = limited(10);
    let peer = world.dial();
    let head =
        "POST /h HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    peer.write(head.as_bytes()).unwrap();
    world.turn();
    assert_eq!(statuses(&read(&peer)), [413]);
    assert!(peer.ended());
    assert_eq!(world.log.take().len(), 0, "the handler is not asked");
}

#[test]
fn a_mount_without_bodies_refuses_every_one() {
    let mut world = limited(0);
    let peer = world.dial();
    let head =
        "POST /h HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    peer.write(head.as_bytes()).unwrap();
    world.turn();
    assert_eq!(statuses(&read(&peer)), [413]);
    let peer = world.dial();
    peer.write(&post("/h/echo", 0)).unwrap();
    world.turn();
    assert_eq!(statuses(&read(&peer)), [200]);
}

#[test]
fn the_limit_of_a_vhost_holds_where_the_mount_says_nothing() {
    let mut limits = Limits::default();
    limits.body_bytes = 4;
    let mut world = World::with(|log| vhost(log, Handler::new(log)).limits(limits));
    for (length, status) in [(4, 200), (5, 413)] {
        let peer = world.dial();
        peer.write(&[post("/h/echo", length), vec![b'x'; length]].concat())
            .unwrap();
        world.turn();
        assert_eq!(statuses(&read(&peer)), [status]);
    }
}

/// A body of so many pieces, one a second.
fn trickle(piece: usize, seconds: u64) -> (Vec<u16>, Vec<String>) {
    let mut world = World::with(|log| vhost(log, Handler::new(log)));
    let peer = world.dial();
    let length = piece * seconds as usize;
    peer.write(&post("/h/echo", length)).unwrap();
    let mut text = String::new();
    for _ in 0..seconds {
        world.pass(Duration::from_secs(1));
        text += &read(&peer);
        if peer.write(&vec![b'x'; piece]).is_err() {
            break;
        }
    }
    world.turn();
    text += &read(&peer);
    (statuses(&text), world.log.take())
}

#[test]
fn tm_02_a_body_at_the_lowest_rate_may_take_as_long_as_it_is() {
    let (statuses, log) = trickle(1024, 300);
    assert_eq!(statuses, [200]);
    assert!(
        log.iter().all(|line| !line.contains("Timeout")),
        "a body at 1024 bytes a second"
    );
}

#[test]
fn tm_02_a_body_below_the_lowest_rate_is_408() {
    let (statuses, log) = trickle(512, 300);
    assert_eq!(statuses, [408]);
    assert_eq!(
        log.iter()
            .filter(|line| line.starts_with("done Timeout"))
            .count(),
        1
    );
}

/// Chunks of a byte, and a chunk's size that never ends: a byte a second of either.
#[test]
fn tm_02_chunks_that_trickle_are_408_and_cost_no_memory() {
    let endless_size = [b"1;x=".as_slice(), &[b'y'; 1000]].concat();
    for stream in [b"1\r\nx\r\n".repeat(100), endless_size] {
        let mut world = World::with(|log| vhost(log, Handler::new(log)));
        let peer = world.dial();
        peer.write(&post_chunked("/h/echo")).unwrap();
        world.turn();
        let before = world.context.memory();
        let (mut most, mut seconds) = (0, 0);
        for byte in stream {
            peer.write(&[byte]).unwrap();
            world.pass(Duration::from_secs(1));
            seconds += 1;
            most = most.max(world.context.memory().saturating_sub(before));
            if world.log.count("done Timeout") == 1 {
                break;
            }
        }
        assert!((29..=32).contains(&seconds), "after {seconds} s");
        assert!(most < 4096, "{most} bytes for {seconds} received");
        assert_eq!(statuses(&read(&peer)), [408]);
        assert!(peer.ended());
    }
}

/// A response of which a byte a second is taken: it costs what it is long, and not for ever.
#[test]
fn tm_02_a_response_that_is_read_a_byte_a_second_ends_by_the_lowest_rate() {
    let long = "x".repeat(500_000);
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::call("/long", move |_| {
                Response::text(200, long.clone())
            }))
    });
    world.net.set_capacity(1000);
    let peer = world.dial();
    peer.write(&get("/long")).unwrap();
    world.turn();
    let before = world.context.memory();
    assert!(before < 600_000, "{before}");
    let mut seconds = 0;
    while world.context.connections() > 0 {
        assert_eq!(peer.read_up_to(1).len(), 1);
        world.pass(Duration::from_secs(1));
        assert!(world.context.memory() <= before);
        seconds += 1;
        assert!(seconds < 120, "it goes on for ever");
    }
    assert!(seconds >= 29, "after {seconds} s");
}

#[test]
fn a_handler_that_pauses_takes_the_body_at_its_own_pace() {
    let mut world = world(|log| Handler {
        body: Some(Box::new(|http| {
            http.pause_reading();
            http.set_timer(Duration::from_secs(8), wsloop::TimerTag(1));
            Ok(())
        })),
        timer: Some(Box::new(|http| {
            http.resume_reading();
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&post_chunked("/h/echo")).unwrap();
    for piece in [
        "1\r\na\r\n",
        "1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n1\r\ne\r\n",
        "0\r\n\r\n",
    ] {
        peer.write(piece.as_bytes()).unwrap();
        world.turn();
    }
    peer.write(&get("/hi")).unwrap();
    world.pass(Duration::from_secs(39));
    assert_eq!(world.log.count("timer"), 4, "one piece at a time");
    world.pass(Duration::from_secs(2));
    let text = read(&peer);
    assert_eq!(
        statuses(&text),
        [200, 200],
        "it is not the client who is slow: {text}"
    );
    assert!(world.log.lines().contains(&"body \"abcde\"".to_owned()));
}

#[test]
fn a_paused_body_is_not_read_ahead_without_end() {
    let mut world = world(|log| Handler {
        body: Some(Box::new(|http| {
            http.pause_reading();
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&post("/h", 1_000_000)).unwrap();
    for _ in 0..100 {
        peer.write(&[b'x'; 10_000]).unwrap();
        world.turn();
    }
    assert!(
        world.context.memory() < 200_000,
        "{}",
        world.context.memory()
    );
}

#[test]
fn ht_18_a_refusal_before_the_body_closes_unless_the_body_was_asked_for() {
    for (target, expect, want) in [
        ("/", "100-continue", 405),
        ("/hi", "100-continue", 200),
        ("/nowhere", "100-continue", 404),
        ("/hi", "something-else", 417),
    ] {
        let mut world = World::with(|log| vhost(log, Handler::new(log)));
        let peer = world.dial();
        let target = if target == "/nowhere" { "/%00" } else { target };
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 38\r\nExpect: {expect}\r\n\r\n"
        );
        peer.write(head.as_bytes()).unwrap();
        world.turn();
        let text = read(&peer);
        let want = if target == "/%00" { 404 } else { want };
        assert_eq!(statuses(&text), [want], "{target}");
        // RFC 9110 section 10.1.1: the client may send the body now, or leave it out.
        assert!(text.contains("Connection: close\r\n"), "{text}");
        let _ = peer.write(&get("/hi"));
        world.turn();
        assert_eq!(read(&peer), "");
        assert!(peer.ended());
    }
}

#[test]
fn ht_18_variants_of_expect() {
    for (head, before) in [
        (
            "POST /h/echo HTTP/1.1\r\nExpect: 100-CONTINUE\r\nContent-Length: 2\r\n",
            "100",
        ),
        (
            "POST /h/echo HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
            "100",
        ),
        (
            "POST /h/echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n",
            "200",
        ),
        ("GET /h/echo HTTP/1.1\r\nExpect: 100-continue\r\n", "200"),
        (
            "POST /h/echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n",
            "",
        ),
        (
            "POST /h/echo HTTP/1.1\r\nExpect:\r\nContent-Length: 2\r\n",
            "417",
        ),
        (
            "POST /h/echo HTTP/1.1\r\nExpect: 100-continue, x\r\nContent-Length: 2\r\n",
            "417",
        ),
        (
            "POST /h/echo HTTP/1.1\r\nExpect: 100-continue\r\nExpect: x\r\nContent-Length: 2\r\n",
            "417",
        ),
    ] {
        let mut world = world(Handler::new);
        let peer = world.dial();
        peer.write(format!("{head}Host: a.test\r\n\r\n").as_bytes())
            .unwrap();
        world.turn();
        let text = read(&peer);
        assert_eq!(text.get(9..12).unwrap_or_default(), before, "{head}");
        let body = if head.contains("chunked") {
            "2\r\nhi\r\n0\r\n\r\n"
        } else {
            "hi"
        };
        if matches!(before, "100" | "") {
            peer.write(body.as_bytes()).unwrap();
            world.turn();
            assert_eq!(statuses(&read(&peer)), [200], "{head}");
        }
    }
}

#[test]
fn a_response_leaves_although_the_rest_of_the_body_is_none() {
    for refused in [false, true] {
        let mut world = world(|log| Handler {
            request: refused.then(|| -> super::common::Act {
                Box::new(|_| Err(HttpFailure::respond(Response::text(403, "no\n"))))
            }),
            ..Handler::new(log)
        });
        let target = if refused { "/h" } else { "/" };
        let peer = world.dial();
        peer.write(&[post_chunked(target).as_slice(), b"1\r\nxyz\r\n"].concat())
            .unwrap();
        world.turn();
        let want = if refused { 403 } else { 405 };
        assert_eq!(statuses(&read(&peer)), [want]);
        assert!(peer.ended() && !peer.was_reset());
    }
}

#[test]
fn a_body_that_is_not_wanted_and_stops_coming_does_not_cut_the_response() {
    let long = "x".repeat(600_000);
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::response("/", Response::text(200, "y")))
            .mount(Mount::call("/long", move |_| {
                Response::text(403, long.clone())
            }))
    });
    let peer = world.dial();
    peer.write(&post("/long", 1000)).unwrap();
    let mut got = 0;
    for _ in 0..30 {
        world.pass(Duration::from_secs(1));
        got += peer.read_up_to(25_000).len();
    }
    assert!(got > 600_000, "{got}");
    world.pass(Duration::from_secs(1));
    assert!(peer.ended() && !peer.was_reset());
}

#[test]
fn tm_02_a_client_may_take_its_time_for_a_long_response() {
    for more in ["Connection: close\r\n", ""] {
        let long = "x".repeat(1_000_000);
        let mut world = World::with(|log| {
            VhostConfig::new("a.test")
                .listen(addr())
                .protocol("p", Recorder::echo(log))
                .mount(Mount::call("/long", move |_| {
                    Response::text(200, long.clone())
                }))
        });
        let peer = world.dial();
        peer.write(format!("GET /long HTTP/1.1\r\nHost: a.test\r\n{more}\r\n").as_bytes())
            .unwrap();
        let mut got = 0;
        for _ in 0..60 {
            world.pass(Duration::from_secs(1));
            got += peer.read_up_to(18_000).len();
        }
        assert!(got > 1_000_000, "{more:?}: {got}");
        world.pass(Duration::from_secs(20));
        assert_eq!(
            peer.ended(),
            !more.is_empty(),
            "the wait begins when the response has left"
        );
        world.pass(Duration::from_secs(5));
        assert!(peer.ended() && !peer.was_reset());
    }
}

#[test]
fn a_connection_on_which_nothing_is_asked_is_closed_without_a_word() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    peer.write(&get("/hi")).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&peer)), ["GET /hi\n"]);
    world.pass(Duration::from_secs(29));
    assert!(!peer.ended());
    world.pass(Duration::from_secs(2));
    assert_eq!(read(&peer), "");
    assert!(peer.ended() && !peer.was_reset());
    assert_eq!(world.log.count("refused"), 0);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn a_second_head_has_a_deadline_of_its_own() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    peer.write(&get("/hi")).unwrap();
    world.pass(Duration::from_secs(20));
    assert_eq!(bodies(&read(&peer)), ["GET /hi\n"]);
    for byte in b"GET /hi H" {
        peer.write(&[*byte]).unwrap();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(read(&peer), "");
    world.pass(Duration::from_secs(2));
    assert_eq!(statuses(&read(&peer)), [408]);
    assert!(peer.ended());
}

#[test]
fn ends_of_stream_within_a_head_or_a_body_are_no_requests() {
    for cut in [
        "G",
        "GET /hi HTTP/1.1\r\n",
        "POST /h HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nab",
    ] {
        for before in [false, true] {
            let mut world = world(Handler::new);
            let peer = world.dial();
            if before {
                peer.write(&get("/hi")).unwrap();
                world.turn();
                assert_eq!(bodies(&read(&peer)), ["GET /hi\n"]);
            }
            peer.write(cut.as_bytes()).unwrap();
            world.turn();
            peer.shutdown_write();
            world.turn();
            assert_eq!(read(&peer), "");
            assert!(peer.ended());
            assert_eq!(world.context.connections(), 0);
        }
    }
}

#[test]
fn deadlines_are_those_of_the_vhost() {
    let mut timeouts = Timeouts::default();
    timeouts.keep_alive = Duration::from_secs(3);
    timeouts.respond = Duration::from_secs(4);
    timeouts.body = Duration::from_secs(5);
    let mut world = World::with(|log| vhost(log, Handler::new(log)).timeouts(timeouts));
    for (request, seconds, status) in [
        (get("/hi"), 3, vec![200]),
        (get("/h"), 4, vec![503]),
        (post("/h", 1), 5, vec![408]),
    ] {
        let peer = world.dial();
        peer.write(&request).unwrap();
        world.turn();
        world.pass(Duration::from_millis(seconds * 1000 - 200));
        assert!(!peer.ended());
        world.pass(Duration::from_millis(400));
        assert_eq!(statuses(&read(&peer)), status);
        assert!(peer.ended());
    }
}

#[test]
fn tm_02_a_body_that_nobody_wants_may_not_trickle_on() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    peer.write(&post("/hi", 1000)).unwrap();
    world.turn();
    assert_eq!(statuses(&read(&peer)), [200]);
    for _ in 0..7 {
        let _ = peer.write(b"x");
        world.pass(Duration::from_secs(1));
    }
    assert!(peer.ended() || peer.was_reset());
}
