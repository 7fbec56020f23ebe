//! Responses that come from somewhere else, and vhosts that share a listener.

use std::time::Duration;

use wsloop::{BodyLength, Limits, Mount, RespondError, Response, TimerTag, VhostConfig};

use super::common::{Handler, Kept, bodies, get, post, read, statuses, vhost, world};
use crate::support::{Recorder, World, addr};

#[test]
fn a_response_may_come_from_a_wake_up() {
    let kept = Kept::default();
    let id = kept.clone();
    let mut world = world(|log| Handler {
        request: kept.keeper(),
        wake: Some(Box::new(move |cx| {
            let mut responder = cx.exchange(id.id()).unwrap();
            responder.respond(Response::text(200, "woken\n")).unwrap();
            let again = responder.respond(Response::text(200, "again\n"));
            assert_eq!(again, Err(RespondError::Finished));
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&[get("/h"), get("/hi")].concat()).unwrap();
    world.turn();
    assert_eq!(read(&peer), "");
    world.context.cancel_service_handle().cancel_service();
    world.turn();
    assert_eq!(bodies(&read(&peer)), ["woken\n", "GET /hi\n"]);
    assert_eq!(world.log.count("done Responded(200)"), 1);
}

#[test]
fn a_response_may_come_from_a_timer_of_the_handler_in_pieces() {
    let kept = Kept::default();
    let id = kept.clone();
    let mut keep = kept.keeper().unwrap();
    let mut left = 3;
    let mut world = world(|log| Handler {
        request: Some(Box::new(move |http| {
            http.cx().set_timer(Duration::from_secs(1), TimerTag(1));
            keep(http)
        })),
        free_timer: Some(Box::new(move |cx| {
            let mut responder = cx.exchange(id.id()).unwrap();
            match left {
                3 => responder
                    .start(200, &Default::default(), BodyLength::Unknown)
                    .map(drop)
                    .unwrap(),
                0 => responder.finish().map(drop).unwrap(),
                _ => responder.write(b"piece").map(drop).unwrap(),
            }
            if left > 0 {
                left -= 1;
                cx.set_timer(Duration::from_secs(1), TimerTag(1));
            }
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    world.pass(Duration::from_secs(6));
    let text = read(&peer);
    assert!(
        text.ends_with("\r\n\r\n5\r\npiece\r\n5\r\npiece\r\n0\r\n\r\n"),
        "{text}"
    );
    assert_eq!(world.log.count("done Responded(200)"), 1);
}

#[test]
fn one_request_may_answer_others_and_stale_ids_answer_nobody() {
    let kept = Kept::default();
    let ids = kept.clone();
    let mut keep = kept.keeper().unwrap();
    let mut world = world(|log| Handler {
        request: Some(Box::new(move |http| {
            keep(http)?;
            let all = ids.all();
            let own = http.id();
            if all.len() < 3 {
                return Ok(());
            }
            for id in all {
                let text = format!(
                    "answered by {}\n",
                    if id == own { "itself" } else { "another" }
                );
                if let Some(mut responder) = http.cx().exchange(id) {
                    responder.respond(Response::text(200, text)).unwrap();
                }
            }
            Ok(())
        })),
        ..Handler::new(log)
    });
    let peers = [world.dial(), world.dial(), world.dial()];
    for peer in &peers {
        peer.write(&get("/h")).unwrap();
        world.turn();
    }
    let got = peers.each_ref().map(|peer| bodies(&read(peer)).concat());
    assert_eq!(
        got,
        [
            "answered by another\n",
            "answered by another\n",
            "answered by itself\n"
        ]
    );
    // The next request of the first connection: the id of the one before is nobody's.
    peers[0].write(&get("/h")).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&peers[0])), ["answered by itself\n"]);
    assert_eq!(world.log.count("done Responded(200)"), 4);
}

#[test]
fn a_stale_id_reaches_neither_the_next_exchange_nor_the_next_connection() {
    let kept = Kept::default();
    let ids = kept.clone();
    let mut keep = kept.keeper().unwrap();
    let mut count = 0;
    let mut world = world(|log| Handler {
        request: Some(Box::new(move |http| {
            keep(http)?;
            count += 1;
            if count == 1 {
                http.respond(Response::text(200, "first\n"))?;
            }
            Ok(())
        })),
        wake: Some(Box::new(move |cx| {
            assert!(cx.exchange(ids.all()[0]).is_none());
        })),
        ..Handler::new(log)
    });
    let peer = world.dial();
    peer.write(&[get("/h"), get("/h")].concat()).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&peer)), ["first\n"]);
    world.context.cancel_service_handle().cancel_service();
    world.turn();
    assert_eq!(world.log.count("handler wakes"), 1);
    drop(peer);
    world.turn();
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    world.context.cancel_service_handle().cancel_service();
    world.turn();
    assert_eq!(world.log.count("handler wakes"), 2);
    assert_eq!(read(&peer), "");
}

/// Two more vhosts behind the same address.
fn with_others(limits: Limits) -> World {
    let mut world = World::with(|log| vhost(log, Handler::new(log)));
    for name in ["b.test", "c.test"] {
        let say = move |_: &wsloop::HttpRequest<'_>| Response::text(200, format!("{name}\n"));
        let log = world.log.clone();
        let config = VhostConfig::new(name)
            .listen(addr())
            .limits(limits.clone())
            .protocol("p", Recorder::echo(&log))
            .mount(Mount::call("/hi", say))
            .mount(Mount::handler("/h", Handler::new(&log)));
        world.context.create_vhost(config).unwrap();
    }
    world
}

fn to(host: &str, request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(request.to_vec()).unwrap();
    text.replace("Host: a.test", &format!("Host: {host}"))
        .into_bytes()
}

#[test]
fn each_request_of_a_plain_connection_goes_to_the_vhost_that_it_names() {
    let mut world = with_others(Limits::default());
    let peer = world.dial();
    let hosts = ["b.test", "a.test", "B.TEST:80", "c.test", "nobody.test"];
    for host in hosts {
        peer.write(&to(host, &get("/hi"))).unwrap();
    }
    world.turn();
    let want = ["b.test\n", "GET /hi\n", "b.test\n", "c.test\n", "GET /hi\n"];
    assert_eq!(bodies(&read(&peer)), want);
}

#[test]
fn limits_are_those_of_the_vhost_that_a_request_names() {
    let mut limits = Limits::default();
    limits.body_bytes = 3;
    limits.connections = 1;
    let mut world = with_others(limits);
    let peer = world.dial();
    for (host, status) in [("a.test", 200), ("b.test", 413)] {
        peer.write(&[to(host, &post("/h/echo", 4)).as_slice(), b"body"].concat())
            .unwrap();
        world.turn();
        assert_eq!(statuses(&read(&peer)), [status], "{host}");
    }
    world.pass(Duration::from_secs(6));
    let (first, second) = (world.dial(), world.dial());
    first.write(&to("b.test", &get("/hi"))).unwrap();
    world.turn();
    second.write(&to("b.test", &get("/hi"))).unwrap();
    world.turn();
    assert_eq!(statuses(&read(&first)), [200]);
    assert_eq!(statuses(&read(&second)), [503]);
    // A connection counts where its latest request went.
    first.write(&to("a.test", &get("/hi"))).unwrap();
    world.turn();
    let third = world.dial();
    world.pass(Duration::from_secs(6));
    third.write(&to("b.test", &get("/hi"))).unwrap();
    world.turn();
    assert_eq!(statuses(&read(&third)), [200]);
}

#[test]
fn a_destroyed_vhost_takes_its_idle_connections_along_and_no_others() {
    let mut world = with_others(Limits::default());
    let (here, moved) = (world.dial(), world.dial());
    here.write(&get("/hi")).unwrap();
    moved.write(&to("b.test", &get("/hi"))).unwrap();
    world.turn();
    read(&here);
    read(&moved);
    world.context.destroy_vhost(world.vhost).unwrap();
    world.turn();
    assert_eq!(read(&here), "");
    assert!(here.ended() && !here.was_reset());
    moved.write(&to("c.test", &get("/hi"))).unwrap();
    world.turn();
    assert_eq!(bodies(&read(&moved)), ["c.test\n"]);
}

#[test]
fn a_request_may_destroy_the_vhost_that_serves_it() {
    let mut world = world(|log| Handler {
        request: Some(Box::new(|http| {
            let vhost = VHOST.with(|vhost| vhost.get()).unwrap();
            http.cx().destroy_vhost(vhost).unwrap();
            http.respond(Response::text(200, "the last\n"))?;
            Ok(())
        })),
        ..Handler::new(log)
    });
    VHOST.with(|vhost| vhost.set(Some(world.vhost)));
    let peer = world.dial();
    peer.write(&get("/h")).unwrap();
    world.turn();
    assert!(read(&peer).ends_with("the last\n"));
    let _ = peer.write(&get("/h"));
    world.turn();
    assert_eq!(read(&peer), "");
    assert_eq!(world.log.count("done Responded(200)"), 1);
    world.pass(Duration::from_secs(6));
    assert!(peer.ended());
    assert_eq!(world.context.connections(), 0);
}

thread_local! {
    static VHOST: std::cell::Cell<Option<wsloop::VhostId>> = const { std::cell::Cell::new(None) };
}

#[test]
fn an_old_request_without_a_host_goes_to_the_default_vhost() {
    let mut world = with_others(Limits::default());
    let peer = world.dial();
    peer.write(&to("b.test", &get("/hi"))).unwrap();
    peer.write(b"GET /hi HTTP/1.0\r\n\r\n").unwrap();
    world.turn();
    assert_eq!(bodies(&read(&peer)), ["b.test\n", "GET /hi\n"]);
}
