//! Several requests at once: their order, their bounds, and how they are cut.

use std::time::Duration;

use wsloop::sim::Call;
use wsloop::{BodyLength, Mount, Response, TimerTag, VhostConfig};

use super::common::{Handler, bodies, get, post, post_chunked, read, statuses, vhost, world};
use crate::support::{Recorder, World, addr, request};

#[test]
fn a_request_behind_chunks_and_trailers_is_the_next_one() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    let body = b"3;a=\"b;c\"\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 500\r\n\r\n".to_vec();
    let all = [
        post_chunked("/h/echo"),
        body,
        get("/hi/2"),
        post("/h/echo", 2),
        b"ok".to_vec(),
    ];
    peer.write(&all.concat()).unwrap();
    world.turn();
    let text = read(&peer);
    assert_eq!(statuses(&text), [200; 3]);
    assert!(
        text.contains("GET /hi/2\n") && text.ends_with("2\r\nok\r\n0\r\n\r\n"),
        "{text}"
    );
}

/// What a session of two requests, bodies and an upgrade gets.
fn session() -> Vec<u8> {
    [
        post_chunked("/h/echo").as_slice(),
        b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nA: b\r\n\r\n",
        &post("/h/echo", 4),
        b"body",
    ]
    .concat()
}

#[test]
fn io_01_every_cut_of_a_session_gets_the_same_responses() {
    let bytes = session();
    let run = |cut: usize, size: usize| {
        let mut world = world(Handler::new);
        let peer = world.dial();
        let (first, second) = bytes.split_at(cut);
        for piece in first.chunks(size).chain(second.chunks(size)) {
            peer.write(piece).unwrap();
            world.turn();
        }
        (read(&peer), world.log.take())
    };
    let whole = run(0, usize::MAX);
    assert_eq!(statuses(&whole.0), [200, 200]);
    assert_eq!(run(0, 1), whole);
    for cut in 1..bytes.len() {
        assert_eq!(run(cut, usize::MAX), whole, "cut at {cut}");
    }
}

#[test]
fn io_01_reads_and_writes_of_one_byte_change_nothing() {
    let mut responses = Vec::new();
    for limit in [usize::MAX, 1, 7] {
        let mut world = world(Handler::new);
        world.net.limit_io(limit);
        let peer = world.dial();
        peer.write(&[session(), get("/hi")].concat()).unwrap();
        for _ in 0..40 {
            world.turn();
        }
        responses.push(read(&peer));
    }
    assert_eq!(statuses(&responses[0]), [200; 3]);
    assert_eq!(responses[0], responses[1]);
    assert_eq!(responses[0], responses[2]);
}

#[test]
fn ht_23_behind_a_deferred_response_little_is_read_ahead() {
    let mut world = world(|log| Handler {
        request: Some(Box::new(|http| {
            http.set_timer(Duration::from_secs(5), TimerTag(1));
            Ok(())
        })),
        timer: Some(Box::new(|http| {
            http.respond(Response::text(200, "late\n"))?;
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    let count = 1024 * 1024 / get("/hi/1234").len();
    for n in 0..count {
        peer.write(&get(&format!("/hi/{}", 1000 + n % 9000)))
            .unwrap();
    }
    world.turn();
    assert!(
        world.context.memory() < 200_000,
        "{}",
        world.context.memory()
    );
    world.pass(Duration::from_secs(6));
    let mut text = read(&peer);
    for _ in 0..200 {
        world.turn();
        text += &read(&peer);
    }
    let bodies = bodies(&text);
    assert_eq!(bodies.len(), count + 1);
    assert_eq!(bodies[0], "late\n");
    assert_eq!(bodies[9001], "GET /hi/1000\n");
}

/// A server whose every response has a body of that length.
fn world_of_pages(len: usize) -> World {
    let page = "p".repeat(len);
    World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::call("/", move |_| Response::text(200, page.clone())))
    })
}

#[test]
fn a_client_that_does_not_read_stops_being_read() {
    let mut world = world_of_pages(1000);
    let peer = world.dial();
    for _ in 0..10 {
        peer.write(&get("/").repeat(1000)).unwrap();
        world.turn();
    }
    let limit = 1024 * 1024 + 400_000;
    assert!(
        world.context.memory() < 2 * limit,
        "{}",
        world.context.memory()
    );
    let calls = (world.net.calls(Call::Read), world.net.calls(Call::Write));
    world.pass(Duration::from_secs(10));
    let after = (world.net.calls(Call::Read), world.net.calls(Call::Write));
    assert_eq!(calls, after, "nothing to do is nothing done");
    assert_eq!(
        world
            .context
            .service(Some(Duration::ZERO))
            .err()
            .map(|e| e.kind()),
        None
    );
    let mut responses = 0;
    for _ in 0..400 {
        responses += statuses(&read(&peer)).len();
        world.turn();
    }
    assert_eq!(responses, 10_000);
}

#[test]
fn long_responses_to_pipelined_requests_are_all_given() {
    let mut world = world_of_pages(100_000);
    let peer = world.dial();
    peer.write(&get("/").repeat(40)).unwrap();
    world.turn();
    assert!(
        world.context.memory() < 1_400_000,
        "{}",
        world.context.memory()
    );
    let mut got = 0;
    for _ in 0..200 {
        world.turn();
        got += peer.read().len();
    }
    assert!(got > 40 * 100_000, "{got}");
    assert!(!peer.ended());
}

#[test]
fn a_connection_that_never_ends_at_a_request_keeps_only_what_is_open() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    let request = get("/hi");
    let cycle = request.repeat(3);
    // Each piece ends in the middle of a request.
    peer.write(&request[..10]).unwrap();
    world.turn();
    let piece: Vec<u8> = cycle
        .iter()
        .cycle()
        .skip(10)
        .take(request.len() * 50)
        .copied()
        .collect();
    let mut most = 0;
    for _ in 0..2000 {
        peer.write(&piece).unwrap();
        world.context.service(Some(Duration::ZERO)).unwrap();
        world.context.service(Some(Duration::ZERO)).unwrap();
        peer.read();
        most = most.max(world.context.memory());
    }
    assert!(most < 300_000, "{most}");
}

#[test]
fn all_requests_before_the_end_of_the_stream_are_answered() {
    let mut world = world_of_pages(50_000);
    let peer = world.dial();
    peer.write(&get("/").repeat(100)).unwrap();
    peer.shutdown_write();
    let mut responses = 0;
    for _ in 0..200 {
        world.turn();
        responses += statuses(&read(&peer)).len();
    }
    assert_eq!(responses, 100);
    assert!(peer.ended() && !peer.was_reset());
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn an_upgrade_behind_plain_requests_takes_its_place() {
    let mut world = World::with(|log| vhost(log, Handler::new(log)));
    let peer = world.dial();
    let hello = crate::support::masked(0x81, b"hello");
    let all = [
        get("/hi"),
        post("/h/echo", 1),
        b"x".to_vec(),
        request("/"),
        hello,
    ];
    peer.write(&all.concat()).unwrap();
    world.turn();
    let got = peer.read();
    let text = String::from_utf8_lossy(&got);
    assert_eq!(statuses(&text), [200, 200, 101]);
    assert!(got.ends_with(b"\x81\x05hello"), "{text}");
    // The deadlines of plain HTTP are over.
    world.pass(Duration::from_secs(40));
    assert!(!peer.ended());
    assert_eq!(world.log.count("closed"), 0);
}

#[test]
fn what_follows_a_request_to_close_is_not_answered() {
    let mut world = world(Handler::new);
    for first in [
        "GET /hi HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        "GET /hi HTTP/1.1\r\nHost: a.test\r\nConnection: foo, CLOSE\r\n\r\n",
        "GET /hi HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        "GET /hi HTTP/1.0\r\nHost: a.test\r\n\r\n",
    ] {
        let peer = world.dial();
        peer.write(&[first.as_bytes(), &get("/hi")].concat())
            .unwrap();
        world.turn();
        assert_eq!(statuses(&read(&peer)), [200], "{first}");
        assert!(peer.ended() && !peer.was_reset());
    }
    let peer = world.dial();
    let first = "GET /hi HTTP/1.0\r\nHost: a.test\r\nConnection: Keep-Alive\r\n\r\n";
    peer.write(&[first.as_bytes(), &get("/hi")].concat())
        .unwrap();
    world.turn();
    let text = read(&peer);
    assert_eq!(statuses(&text), [200, 200]);
    assert!(text.contains("Connection: keep-alive\r\n"), "{text}");
}

#[test]
fn a_client_of_1_0_gets_no_chunks() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    let head =
        "POST /h/echo HTTP/1.0\r\nContent-Length: 8\r\nConnection: keep-alive\r\n\r\n12345678";
    peer.write(head.as_bytes()).unwrap();
    world.turn();
    let text = read(&peer);
    assert!(
        text.ends_with("\r\n\r\n12345678") && !text.contains("chunked"),
        "{text}"
    );
    assert!(peer.ended() && !peer.was_reset());
}

#[test]
fn head_gets_a_head_from_every_way_to_respond() {
    let mut ways = [Some(BodyLength::Known(5)), Some(BodyLength::Unknown), None].into_iter();
    let mut world = world(|log| Handler {
        request: Some(Box::new(move |http| {
            match ways.next().unwrap() {
                Some(length) => {
                    http.start(200, &Default::default(), length)?;
                    http.write(b"hello")?;
                    http.finish()?;
                }
                None => {
                    http.respond(Response::text(200, "hello"))?;
                }
            }
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    for (target, line) in [
        ("/h", "Content-Length: 5\r\n"),
        ("/h", "Transfer-Encoding: chunked\r\n"),
        ("/h", "Content-Length: 5\r\n"),
        ("/hi", "Content-Length: 9\r\n"),
        ("/", "Content-Length: 7\r\n"),
        ("/old", "Location: /new\r\n"),
        ("/%00", "Content-Length: 10\r\n"),
    ] {
        peer.write(format!("HEAD {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes())
            .unwrap();
        world.turn();
        let text = read(&peer);
        assert!(text.contains(line), "{target}: {text}");
        assert!(
            text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1,
            "{target}: {text}"
        );
    }
    assert!(!peer.ended());
}

#[test]
fn routes_answer_by_their_own_rules() {
    let mut world =
        World::with(|log| vhost(log, Handler::new(log)).mount(Mount::protocol("/ws", "p")));
    let peer = world.dial();
    for (line, status, says) in [
        ("OPTIONS *", 204, ""),
        ("OPTIONS /", 204, "Allow: GET, HEAD, OPTIONS\r\n"),
        ("PUT /", 405, "Allow: GET, HEAD, OPTIONS\r\n"),
        ("DELETE /old", 308, "Location: /new\r\n"),
        ("GET /older", 404, ""),
        ("GET /old/x?y", 308, "Location: /new\r\n"),
        ("GET /ws", 426, "Upgrade: websocket\r\n"),
        ("POST /ws/x", 426, "Upgrade: websocket\r\n"),
        ("GET http://a.test/hi?q", 200, ""),
    ] {
        peer.write(format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes())
            .unwrap();
        world.turn();
        let text = read(&peer);
        assert_eq!(statuses(&text), [status], "{line}");
        assert!(text.contains(says), "{line}: {text}");
        if status == 426 {
            // RFC 9110 section 7.8: a sender of Upgrade lists it in Connection, too.
            let connection = text.lines().find(|line| line.starts_with("Connection: "));
            assert!(
                connection.is_some_and(|line| line.contains("pgrade")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_handler_that_only_asks_for_room_does_not_stop_the_loop() {
    let mut world = world(|log| Handler {
        request: Some(Box::new(|http| {
            http.request_writable();
            Ok(())
        })),
        writable: Some(Box::new(|http| {
            http.request_writable();
            Ok(())
        })),
        ..Handler::new(log)
    });
    let (peer, other) = (world.dial(), world.dial());
    peer.write(&get("/h")).unwrap();
    for _ in 0..10 {
        world.context.service(Some(Duration::ZERO)).unwrap();
    }
    assert!(
        (1..=20).contains(&world.log.count("writable")),
        "{}",
        world.log.count("writable")
    );
    other.write(&get("/hi")).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&other)), ["GET /hi\n"]);
}

#[test]
fn a_client_that_never_reads_is_given_up_and_one_that_breaks_off_is_noticed() {
    for breaks_off in [false, true] {
        let mut world = world_of_pages(50_000);
        let peer = world.dial();
        peer.write(&get("/").repeat(100)).unwrap();
        world.turn();
        assert_eq!(world.context.connections(), 1);
        if breaks_off {
            peer.reset();
            world.turn();
        } else {
            world.pass(Duration::from_secs(29));
            assert_eq!(world.context.connections(), 1);
            world.pass(Duration::from_secs(2));
        }
        assert_eq!(world.context.connections(), 0);
        assert_eq!(world.log.count("refused"), 0);
    }
}
