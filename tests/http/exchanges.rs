//! Requests and responses, one after the other.

use std::time::Duration;

use wsloop::{
    BodyLength, Http, HttpFailure, HttpHandler, HttpRequest, Mount, RespondError, Response,
    VhostConfig,
};

use super::common::{Handler, bodies, get, read, world};
use crate::support::{Recorder, World, addr, request};

#[test]
fn requests_follow_each_other_on_one_connection() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    for n in 0..3 {
        peer.write(&get(&format!("/hi/{n}"))).unwrap();
        world.turn();
        let text = read(&peer);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{text}");
        assert_eq!(bodies(&text), [format!("GET /hi/{n}\n")]);
    }
    assert_eq!(world.context.connections(), 1);
}

#[test]
fn ht_23_pipelined_requests_are_answered_in_order() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    let many: Vec<u8> = (0..300).flat_map(|n| get(&format!("/hi/{n}"))).collect();
    peer.write(&many).unwrap();
    world.turn();
    let want: Vec<String> = (0..300).map(|n| format!("GET /hi/{n}\n")).collect();
    assert_eq!(bodies(&read(&peer)), want);
}

#[test]
fn a_body_reaches_the_handler_and_its_response_is_chunked() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    peer.write(b"POST /h/echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    world.turn();
    peer.write(b"3\r\nabc\r\n4\r\ndefg\r\n").unwrap();
    world.turn();
    peer.write(b"0\r\nX-Trailer: dropped\r\n\r\n").unwrap();
    world.turn();
    let text = read(&peer);
    assert!(
        text.ends_with("\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n"),
        "{text}"
    );
    let want = [
        "request POST /h/echo below \"/echo\"",
        "body \"abcdefg\"",
        "done Responded(200)",
    ];
    assert_eq!(world.log.take(), want);
    peer.write(&get("/hi")).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&peer)), ["GET /hi\n"]);
}

#[test]
fn ht_18_a_client_that_waits_for_it_gets_100_once() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    let head = "POST /h/echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
    peer.write(head.as_bytes()).unwrap();
    world.turn();
    assert_eq!(read(&peer), "HTTP/1.1 100 Continue\r\n\r\n");
    peer.write(b"hi").unwrap();
    world.turn();
    assert!(read(&peer).starts_with("HTTP/1.1 200 OK\r\n"));
    let other = head.replace("100-Continue", "200-ok");
    let peer = world.dial();
    peer.write(other.as_bytes()).unwrap();
    world.turn();
    assert!(read(&peer).starts_with("HTTP/1.1 417 "));
}

#[test]
fn a_response_that_does_not_begin_in_time_is_503() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    peer.write(&[get("/h/late"), get("/hi")].concat()).unwrap();
    world.turn();
    assert_eq!(read(&peer), "");
    world.pass(Duration::from_secs(61));
    let text = read(&peer);
    assert!(
        text.starts_with("HTTP/1.1 503 ") && text.contains("Connection: close"),
        "{text}"
    );
    let log = world.log.take();
    assert!(log.last().unwrap().contains("Timeout"), "{log:?}");
}

#[test]
fn an_upgrade_may_follow_plain_requests_and_share_the_route_table() {
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::protocol("/ws", "p"))
            .mount(Mount::response("/", Response::text(200, "root\n")))
    });
    let peer = world.dial();
    peer.write(&get("/")).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&peer)), ["root\n"]);
    peer.write(&request("/ws/room")).unwrap();
    world.turn();
    assert!(read(&peer).starts_with("HTTP/1.1 101 "));
    let peer = world.dial();
    peer.write(&request("/elsewhere")).unwrap();
    world.turn();
    assert!(read(&peer).starts_with("HTTP/1.1 404 "));
    let peer = world.dial();
    peer.write(&get("/ws")).unwrap();
    world.turn();
    assert!(read(&peer).starts_with("HTTP/1.1 426 "));
}

#[test]
fn a_long_response_is_written_as_the_client_reads() {
    let mut left = 64;
    let mut world = world(move |log| Handler {
        request: Some(Box::new(|http| {
            http.start(200, &Default::default(), BodyLength::Known(64 * 65_536))?;
            http.request_writable();
            Ok(())
        })),
        writable: Some(Box::new(move |http| {
            assert!(http.buffered_out() <= 65_536, "it waits for room");
            http.write(&[b'x'; 65_536])?;
            left -= 1;
            match left {
                0 => http.finish().map(drop)?,
                _ => http.request_writable(),
            }
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    let mut got = 0;
    for _ in 0..200 {
        world.turn();
        got += peer.read().len();
    }
    assert!(got > 64 * 65_536);
    assert!(world.log.take().contains(&"done Responded(200)".to_owned()));
}

#[test]
fn ht_17_what_a_handler_does_not_read_is_never_taken_for_a_request() {
    let mut world = world(|log| Handler {
        request: Some(Box::new(|_| Err(Response::text(403, "no\n").into()))),
        ..Handler::new(log)
    });
    for (len, persists) in [(100, true), (1_000_000, false)] {
        let peer = world.dial();
        let head = format!("POST /h HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len}\r\n\r\n");
        peer.write(head.as_bytes()).unwrap();
        let body = get("/hi").repeat(len / get("/hi").len() + 1);
        for piece in body[..len].chunks(16_384) {
            let _ = peer.write(piece);
            world.turn();
        }
        let _ = peer.write(&get("/hi/after"));
        world.turn();
        let text = read(&peer);
        assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
        assert_eq!(text.contains("GET /hi/after"), persists, "{text}");
        assert!(!text.contains("GET /hi\n"), "{text}");
    }
}

#[test]
fn a_client_that_is_gone_ends_its_exchange_once() {
    let mut world = world(Handler::new);
    let peer = world.dial();
    peer.write(&get("/h/never")).unwrap();
    world.turn();
    peer.shutdown_write();
    world.turn();
    let want = [
        "request GET /h/never below \"/never\"",
        "body \"\"",
        "read closed",
        "done Aborted",
    ];
    assert_eq!(world.log.take(), want);
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn a_handler_that_goes_on_can_answer_a_client_that_half_closed() {
    let mut world = world(|log| Handler {
        read_closed: Some(Box::new(|http| {
            http.respond(Response::text(200, "still here\n"))?;
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&get("/h/late")).unwrap();
    world.turn();
    peer.shutdown_write();
    world.turn();
    assert!(read(&peer).ends_with("still here\n"));
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn a_failure_after_the_begin_drops_the_connection() {
    let mut world = world(|log| Handler {
        request: Some(Box::new(|http| {
            http.start(200, &Default::default(), BodyLength::Unknown)?;
            http.write(b"half")?;
            Err(HttpFailure::abort())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    world.turn();
    assert_eq!(world.context.connections(), 0);
    assert!(
        !read(&peer).contains("0\r\n\r\n"),
        "a cut body must not look whole"
    );
}

/// A body with a status that has none, and a length of one's own: nothing of them can be sent, and
/// a connection that just ends would tell nobody why.
#[test]
fn a_response_that_cannot_be_sent_is_answered_with_500() {
    let odd = || {
        [
            Response::text(204, "a body"),
            Response::text(304, "a body"),
            Response::text(200, "")
                .header("Content-Length", "3")
                .unwrap(),
        ]
    };
    let mut world = World::with(|log| {
        let mut config = VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::new(log));
        for (n, response) in odd().into_iter().enumerate() {
            let failing = response.clone();
            config = config
                .mount(Mount::call(format!("/call{n}"), move |_| response.clone()))
                .mount(Mount::handler(format!("/fail{n}"), Failing(failing)));
        }
        config
    });
    for target in ["/call0", "/call1", "/call2", "/fail0", "/fail1", "/fail2"] {
        let peer = world.dial();
        peer.write(&get(target)).unwrap();
        world.turn();
        let text = read(&peer);
        assert!(text.starts_with("HTTP/1.1 500 "), "{target}: {text:?}");
    }
}

/// Gives up with a response.
struct Failing(Response);

impl HttpHandler for Failing {
    type Exchange = ();

    fn on_request(&mut self, _: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<(), HttpFailure> {
        Err(HttpFailure::respond(self.0.clone()))
    }
}

/// `Full` would have the handler wait for an `on_writable` that never comes.
#[test]
fn nothing_follows_a_complete_response_however_much_of_it_waits() {
    let mut world = world(|log| Handler {
        request: Some(Box::new(|http| {
            http.respond(Response::text(200, "x".repeat(3 << 20)))?;
            assert_eq!(http.write(b"more"), Err(RespondError::Finished));
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    world.turn();
    assert!(read(&peer).starts_with("HTTP/1.1 200 "));
}
