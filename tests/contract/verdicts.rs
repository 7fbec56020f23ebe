//! The verdict on an upgrade: at once, later, never; subprotocols and headers.

use std::time::Duration;

use wsloop::{
    Accept, ClientConnectInfo, ConnectFailure, Cx, HeaderList, Limits, Refuse, Request, RequestId,
    VhostConfig,
};

use crate::support::{
    Log, Recorder, World, addr, close_payload, masked, plain, request, request_with,
};
use crate::{Site, Slot};

type Verdict = Result<Accept, Refuse>;

fn filtering(filter: impl FnMut(&mut Cx<'_>, &Request<'_>) -> Verdict + Send + 'static) -> World {
    World::new(|log| Recorder {
        filter: Some(Box::new(filter)),
        ..Recorder::echo(log)
    })
}

fn headers(fields: &[(&str, &str)]) -> HeaderList {
    let mut list = HeaderList::new();
    for (name, value) in fields {
        list.push(*name, *value).unwrap();
    }
    list
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A site that defers every verdict, and the ids of the requests that wait.
fn deferring(accept: fn() -> Accept) -> (Site, Slot<RequestId>) {
    deferring_to(Recorder::echo, accept)
}

fn deferring_to(recorder: fn(&Log) -> Recorder, accept: fn() -> Accept) -> (Site, Slot<RequestId>) {
    let ids = Slot::new();
    let seen = ids.clone();
    let site = Site::new(|log| Recorder {
        filter: Some(Box::new(move |_, request| {
            seen.put(request.id());
            Ok(accept())
        })),
        ..recorder(log)
    });
    (site, ids)
}

#[test]
fn the_headers_of_a_verdict_are_in_the_101_but_not_those_of_the_library() {
    let mut world = filtering(|_, _| {
        Ok(Accept::new().headers(headers(&[
            ("X-Served-By", "me"),
            ("Set-Cookie", "a=b"),
            ("Set-Cookie", "c=d"),
            ("Sec-WebSocket-Accept", "forged"),
            ("Content-Length", "5"),
        ])))
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    assert_eq!(
        text(peer.read()),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Served-By: me\r\n\
         Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"
    );
}

#[test]
fn a_refusal_is_an_http_response_with_status_headers_and_body() {
    for (status, sent) in [
        (401, 401),
        (302, 302),
        (599, 599),
        (200, 403),
        (101, 403),
        (999, 403),
    ] {
        let mut world = filtering(move |_, _| {
            let fields = headers(&[("WWW-Authenticate", "Basic")]);
            Err(Refuse::new(status).headers(fields).body("go away"))
        });
        let peer = world.dial();
        peer.write(&request("/")).unwrap();
        peer.write(&masked(0x81, b"never seen")).unwrap();
        world.turn();
        let answer = text(peer.read());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {sent} ")),
            "{status}: {answer}"
        );
        assert!(
            answer.contains("\r\nWWW-Authenticate: Basic\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nContent-Length: 7\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ngo away"), "{answer}");
        assert!(peer.ended(), "and the connection ends");
        let expected = format!("refused the protocol refused the upgrade with status {sent}");
        assert_eq!(world.log.take(), ["filter /".to_owned(), expected]);
    }
}

#[test]
fn a_refusals_headers_cannot_frame_its_response() {
    let mut world = filtering(|_, _| {
        let fields = headers(&[
            ("Content-Length", "3"),
            ("transfer-encoding", "chunked"),
            ("Connection", "keep-alive"),
            ("Upgrade", "websocket"),
            ("X-Why", "no"),
        ]);
        Err(Refuse::new(426).headers(fields).body("go away"))
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    assert_eq!(
        text(peer.read()),
        "HTTP/1.1 426 Upgrade Required\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         Upgrade: websocket\r\nX-Why: no\r\nContent-Length: 7\r\nConnection: close\r\n\r\n\
         go away"
    );
}

#[test]
fn a_connection_is_not_silent_for_as_long_as_its_verdict_took() {
    let (mut site, ids) = deferring(|| Accept::later_within(Duration::from_secs(600)));
    let peer = site.world.dial();
    peer.write(&request("/")).unwrap();
    site.world.pass(Duration::from_secs(300));
    let id = ids.take()[0];
    site.act(|cx| cx.decide(id, Ok(Accept::new()))).unwrap();
    site.world.turn();
    assert!(text(peer.read()).starts_with("HTTP/1.1 101 "));
    site.world.pass(Duration::from_secs(20));
    peer.write(&masked(0x81, b"here")).unwrap();
    site.world.turn();
    assert_eq!(peer.read(), plain(0x81, b"here"));
}

#[test]
fn the_filter_sees_the_request() {
    let lines = Slot::new();
    let seen = lines.clone();
    let mut world = filtering(move |_, request| {
        seen.put(format!(
            "{} {:?} {:?} {:?} {:?}",
            request.path(),
            request.query(),
            request.header("x-Token").map(String::from_utf8_lossy),
            request.subprotocols().collect::<Vec<_>>(),
            request.selected_subprotocol(),
        ));
        Ok(Accept::new())
    });
    let peer = world.dial();
    let more = "X-Token: abc\r\nSec-WebSocket-Protocol: z, p\r\n";
    peer.write(&request_with("/room?id=7", more)).unwrap();
    world.turn();
    assert_eq!(
        lines.take(),
        ["/room Some(\"id=7\") Some(\"abc\") [\"z\", \"p\"] Some(\"p\")"]
    );
    assert_eq!(world.log.take()[1], "established /room?id=7 Some(\"p\")");
}

#[test]
fn the_vhosts_order_chooses_the_subprotocol_and_a_verdict_may_change_it() {
    type Filter = fn() -> Accept;
    // The offer, the verdict, what the response says, whose `on_established` it is.
    let cases: [(&str, Filter, Option<&str>, &str); 8] = [
        ("", Accept::new, None, "first"),
        ("second", Accept::new, Some("second"), "second"),
        ("second, first", Accept::new, Some("first"), "first"),
        ("other", Accept::new, None, "first"),
        ("First", Accept::new, None, "first"),
        ("second", || Accept::new().no_subprotocol(), None, "second"),
        (
            "x, second",
            || Accept::new().subprotocol("x"),
            Some("x"),
            "second",
        ),
        (
            "second",
            || Accept::new().subprotocol("second"),
            Some("second"),
            "second",
        ),
    ];
    for (offer, verdict, answered, owner) in cases {
        let who = Slot::new();
        let mut world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr());
            for name in ["first", "second"] {
                let seen = who.clone();
                config.add_protocol(
                    name,
                    Recorder {
                        filter: Some(Box::new(move |_, _| Ok(verdict()))),
                        established: Some(Box::new(move |wsi| {
                            seen.put((name, wsi.subprotocol().map(str::to_owned)));
                            Ok(())
                        })),
                        ..Recorder::new(log)
                    },
                );
            }
            config
        });
        let more = match offer {
            "" => String::new(),
            offer => format!("Sec-WebSocket-Protocol: {offer}\r\n"),
        };
        let peer = world.dial();
        peer.write(&request_with("/", &more)).unwrap();
        world.turn();
        let answer = text(peer.read());
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line, answered, "{offer}");
        assert_eq!(
            who.take(),
            [(owner, answered.map(str::to_owned))],
            "{offer}"
        );
    }
}

#[test]
fn a_subprotocol_that_was_not_offered_is_refused_with_500() {
    let mut world = filtering(|_, _| Ok(Accept::new().subprotocol("surprise")));
    let peer = world.dial();
    peer.write(&request_with("/", "Sec-WebSocket-Protocol: p\r\n"))
        .unwrap();
    world.turn();
    assert!(text(peer.read()).starts_with("HTTP/1.1 500 "));
    assert_eq!(world.log.count("established"), 0);
    // It was no refusal of the protocol's, and whoever wrote it has to find it.
    let told = world.log.take();
    let told = told.iter().find(|line| line.starts_with("refused "));
    let told = told.expect("the observer is told");
    assert!(
        told.contains("\"surprise\"") && told.contains("offer"),
        "{told}"
    );
}

#[test]
fn a_default_protocol_serves_those_who_offer_nothing_known() {
    let mut world = World::with(|log| {
        let second = Recorder {
            established: Some(Box::new(|wsi| {
                wsi.send_text("second")?;
                Ok(())
            })),
            ..Recorder::new(log)
        };
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("first", Recorder::new(log))
            .protocol("second", second)
            .default_protocol("second")
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    assert!(peer.read().ends_with(&plain(0x81, b"second")));
}

#[test]
fn a_verdict_can_come_later_and_frames_that_came_before_it_are_delivered_after_it() {
    // A frame of few bytes and one of many take different ways through the buffers.
    let small = masked(0x81, b"hi");
    let large = masked(0x82, &[9; 600]);
    let both = [small.clone(), large.clone(), small.clone()].concat();
    for (name, frames) in [("small", small), ("large", large), ("both", both)] {
        for in_one_segment in [true, false] {
            let (mut site, ids) = deferring(Accept::later);
            let peer = site.world.dial();
            let mut bytes = request("/");
            if in_one_segment {
                bytes.extend(&frames);
                peer.write(&bytes).unwrap();
            } else {
                peer.write(&bytes).unwrap();
                site.world.turn();
                peer.write(&frames).unwrap();
            }
            site.world.turn();
            site.world.pass(Duration::from_secs(5));
            assert_eq!(site.world.log.take(), ["filter /"], "{name}");
            assert_eq!(peer.read(), b"");
            let id = ids.take()[0];
            let accept = Accept::new().headers(headers(&[("X-Late", "yes")]));
            site.act(|cx| cx.decide(id, Ok(accept))).unwrap();
            site.world.turn();
            let answer = peer.read();
            let end = answer
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .unwrap()
                + 4;
            let head = text(answer[..end].to_vec());
            assert!(
                head.starts_with("HTTP/1.1 101 ") && head.contains("X-Late: yes"),
                "{head}"
            );
            let lines = site.world.log.take();
            assert_eq!(lines[0], "established / None", "{name} {in_one_segment}");
            let sent = if name == "both" { 3 } else { 1 };
            assert_eq!(lines.len(), 1 + sent, "{name} {in_one_segment}: {lines:?}");
            assert!(answer.len() > end, "{name}: they are echoed");
        }
    }
}

#[test]
fn a_late_refusal_is_a_response_like_any_other() {
    let (mut site, ids) = deferring(Accept::later);
    let peer = site.world.dial();
    peer.write(&request("/")).unwrap();
    site.world.turn();
    let id = ids.take()[0];
    site.act(|cx| cx.decide(id, Err(Refuse::new(403).body("no"))))
        .unwrap();
    site.world.turn();
    let answer = text(peer.read());
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nno"),
        "{answer}"
    );
    assert_eq!(site.world.log.count("established"), 0);
    assert_eq!(
        site.world
            .log
            .count("refused the protocol refused the upgrade with status 403"),
        1
    );
}

#[test]
fn a_verdict_that_does_not_come_is_a_503_at_its_deadline() {
    let own: fn() -> Accept = || Accept::later_within(Duration::from_secs(2));
    for (accept, limit) in [(Accept::later as fn() -> Accept, 15), (own, 2)] {
        let (mut site, ids) = deferring(accept);
        let peer = site.world.dial();
        peer.write(&request("/")).unwrap();
        site.world.turn();
        site.world
            .pass(Duration::from_secs(limit) - Duration::from_millis(100));
        assert_eq!(peer.read(), b"");
        site.world.pass(Duration::from_millis(200));
        assert!(text(peer.read()).starts_with("HTTP/1.1 503 "));
        assert!(peer.ended());
        let id = ids.take()[0];
        assert!(
            site.act(|cx| cx.decide(id, Ok(Accept::new()))).is_err(),
            "too late"
        );
        site.world.turn();
        let expected =
            format!("refused the verdict on an upgrade request took longer than {limit}s");
        assert_eq!(site.world.log.take(), ["filter /".to_owned(), expected]);
    }
}

#[test]
fn a_verdict_is_given_once() {
    let (mut site, ids) = deferring(Accept::later);
    let peer = site.world.dial();
    peer.write(&request("/")).unwrap();
    site.world.turn();
    let id = ids.take()[0];
    site.act(|cx| {
        cx.decide(id, Ok(Accept::new())).unwrap();
        assert!(
            cx.decide(id, Err(Refuse::new(403))).is_err(),
            "twice in one callback"
        );
    });
    site.world.turn();
    assert!(text(peer.read()).starts_with("HTTP/1.1 101 "));
    assert!(
        site.act(|cx| cx.decide(id, Err(Refuse::new(403)))).is_err(),
        "established by now"
    );
    drop(peer);
    site.world.turn();
    assert!(
        site.act(|cx| cx.decide(id, Ok(Accept::new()))).is_err(),
        "gone by now"
    );
    // Somebody else has the slot.
    let _next = site.world.dial();
    assert!(site.act(|cx| cx.decide(id, Ok(Accept::new()))).is_err());
}

#[test]
fn a_verdict_given_inside_the_filter_is_for_nobody_yet() {
    let answers = Slot::new();
    let seen = answers.clone();
    let mut world = filtering(move |cx, request| {
        seen.put(cx.decide(request.id(), Ok(Accept::new())).is_err());
        Ok(Accept::later_within(Duration::from_secs(1)))
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    assert_eq!(answers.take(), [true]);
    world.pass(Duration::from_millis(1100));
    assert!(text(peer.read()).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_connection_lost_while_waiting_ends_in_one_event_whatever_the_verdict() {
    for accepted in [true, false] {
        for reset in [true, false] {
            let (mut site, ids) = deferring(Accept::later);
            let peer = site.world.dial();
            peer.write(&request("/")).unwrap();
            site.world.turn();
            if reset {
                peer.reset();
            } else {
                peer.close();
            }
            site.world.turn();
            let id = ids.take()[0];
            let verdict = if accepted {
                Ok(Accept::new())
            } else {
                Err(Refuse::new(403))
            };
            let _ = site.act(|cx| cx.decide(id, verdict));
            site.world.pass(Duration::from_secs(20));
            let lines = site.world.log.take();
            let case = format!("accepted {accepted} reset {reset}: {lines:?}");
            let begun = lines
                .iter()
                .filter(|line| line.starts_with("established"))
                .count();
            let closed = lines
                .iter()
                .filter(|line| line.starts_with("closed"))
                .count();
            let refused = lines
                .iter()
                .filter(|line| line.starts_with("refused"))
                .count();
            assert_eq!(begun, closed, "{case}");
            assert_eq!(closed + refused, 1, "{case}");
            assert_eq!(site.world.context.connections(), 0, "{case}");
        }
    }
}

#[test]
fn a_reset_while_a_verdict_is_open_is_told_at_once_and_half_a_close_is_none() {
    for with_more in [false, true] {
        let (mut site, ids) = deferring(Accept::later);
        let peer = site.world.dial();
        peer.write(&request("/")).unwrap();
        site.world.turn();
        let half = site.world.dial();
        half.write(&request("/")).unwrap();
        half.shutdown_write();
        if with_more {
            peer.write(&masked(0x81, b"more")).unwrap();
        }
        site.world.turn();
        site.world.log.take();
        peer.reset();
        site.world.turn();
        assert_eq!(site.world.log.take(), ["refused connection reset"]);
        assert_eq!(site.world.context.connections(), 1);
        let id = ids.take()[0];
        let late = site.act(|cx| cx.decide(id, Ok(Accept::new())));
        assert!(late.is_err());
        site.world.pass(Duration::from_secs(16));
        assert!(half.read().starts_with(b"HTTP/1.1 503 "));
    }
}

#[test]
fn the_other_side_of_a_deferred_request_is_not_read_without_bound() {
    let (mut site, ids) = deferring_to(Recorder::new, Accept::later);
    let peer = site.world.dial();
    peer.write(&request("/")).unwrap();
    site.world.turn();
    let before = site.world.context.memory();
    for _ in 0..50 {
        peer.write(&masked(0x82, &[1; 60_000])).unwrap();
        site.world.turn();
    }
    let grown = site.world.context.memory() - before;
    assert!(grown < 100_000, "{grown} bytes");
    let id = ids.take()[0];
    site.act(|cx| cx.decide(id, Ok(Accept::new()))).unwrap();
    for _ in 0..50 {
        site.world.turn();
        peer.read();
    }
    assert_eq!(site.world.log.count("binary"), 50);
    peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
    site.world.turn();
    assert_eq!(site.world.log.count("closed"), 1);
}

#[test]
fn a_verdict_can_be_put_off_again_with_a_new_deadline() {
    let (mut site, ids) = deferring(|| Accept::later_within(Duration::from_secs(2)));
    let peer = site.world.dial();
    peer.write(&request("/")).unwrap();
    site.world.turn();
    site.world.pass(Duration::from_secs(1));
    let id = ids.take()[0];
    let longer = Accept::later_within(Duration::from_secs(9));
    site.act(|cx| cx.decide(id, Ok(longer))).unwrap();
    site.world.pass(Duration::from_secs(8));
    assert!(
        peer.read().is_empty(),
        "the deadline counts from the second verdict"
    );
    site.act(|cx| cx.decide(id, Ok(Accept::new()))).unwrap();
    site.world.turn();
    assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn a_client_is_refused_at_once_when_its_vhost_is_full() {
    let limits = {
        let mut limits = Limits::default();
        limits.connections = 1;
        limits
    };
    let mut world = World::with(|log| {
        VhostConfig::new("c")
            .limits(limits)
            .protocol("p", Recorder::new(log))
    });
    let info = || ClientConnectInfo::from_url("ws://10.9.9.9/").unwrap();
    world.context.client_connect(world.vhost, info()).unwrap();
    let error = world
        .context
        .client_connect(world.vhost, info())
        .unwrap_err();
    assert!(
        matches!(error.failure(), ConnectFailure::TooManyConnections(1)),
        "{error}"
    );
}
