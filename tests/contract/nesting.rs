//! Callbacks never nest: what one does to others reaches them after it has returned.

use std::time::Duration;

use wsloop::{ClientConnectInfo, Close, CloseCode, Cx, Message, TimerTag, VhostConfig, WsiId};

use crate::support::{Log, Recorder, World, addr, masked, plain, request};
use crate::{Site, Slot};

fn others(cx: &mut Cx<'_>, me: WsiId) -> Vec<WsiId> {
    let mut ids = Vec::new();
    cx.for_each_peer(|peer| ids.push(peer.id()));
    ids.retain(|id| *id != me);
    ids
}

/// A recorder that notes where its `on_message` begins and ends, and acts in between.
fn framed(log: &Log, act: impl Fn(&mut Cx<'_>, WsiId) + Send + 'static) -> Recorder {
    let seen = log.clone();
    Recorder {
        message: Some(Box::new(move |wsi, message| {
            if message == Message::Text("go") {
                seen.push("begin");
                let me = wsi.id();
                act(wsi.cx(), me);
                seen.push("end");
            }
            Ok(())
        })),
        ..Recorder::new(log)
    }
}

#[test]
fn what_a_callback_does_to_another_connection_comes_after_it_has_returned() {
    type Act = fn(&mut Cx<'_>, WsiId);
    let cases: [(&str, Act, &str); 5] = [
        (
            "close",
            |cx, id| cx.close(id, Close::normal()).unwrap(),
            "closed Local closed by",
        ),
        (
            "abort",
            |cx, id| cx.abort(id).unwrap(),
            "closed Local aborted",
        ),
        (
            "writable",
            |cx, id| cx.peer(id).unwrap().request_writable(),
            "writable",
        ),
        (
            "peer abort",
            |cx, id| cx.peer(id).unwrap().abort(),
            "closed Local aborted",
        ),
        (
            "peer close",
            |cx, id| {
                cx.peer(id)
                    .unwrap()
                    .close(Close::from(CloseCode::GOING_AWAY))
            },
            "closed Local closed by",
        ),
    ];
    for (name, act, expected) in cases {
        let mut site = Site::new(|log| {
            framed(log, move |cx, me| {
                let other = others(cx, me)[0];
                act(cx, other);
            })
        });
        let target = site.world.open();
        let actor = site.world.open();
        actor.write(&masked(0x81, b"go")).unwrap();
        site.world.turn();
        let close = target.read();
        if let [0x88, _, payload @ ..] = close.as_slice() {
            target.write(&masked(0x88, payload)).unwrap();
        }
        site.world.turn();
        let lines = site.world.log.take();
        assert_eq!(lines[..3], ["text \"go\"", "begin", "end"], "{name}");
        assert!(lines[3].starts_with(expected), "{name}: {lines:?}");
        assert_eq!(lines.len(), 4, "{name}: {lines:?}");
        actor.write(&masked(0x81, b"fine")).unwrap();
        site.world.turn();
        assert_eq!(site.world.log.take(), ["text \"fine\""], "{name}");
    }
}

#[test]
fn connecting_waking_timers_and_vhosts_wait_for_the_callback_to_return() {
    let vhost = Slot::new();
    let home = vhost.clone();
    let mut world = World::new(|log| {
        let inner_log = log.clone();
        let seen = log.clone();
        framed(log, move |cx, _| {
            let own = home.take()[0];
            let info = ClientConnectInfo::new("10.0.0.66", 80).unwrap();
            cx.client_connect(own, info).unwrap();
            cx.set_timer(Duration::ZERO, TimerTag(4)).unwrap();
            let config = VhostConfig::new("b.test")
                .listen(addr())
                .protocol("q", Recorder::new(&inner_log));
            let made = cx.create_vhost(config).unwrap();
            let info = ClientConnectInfo::new("10.0.0.66", 80).unwrap();
            if let Err(error) = cx.client_connect(made, info) {
                seen.push(format!("too early: {}", error.failure()));
            }
        })
    });
    vhost.put(world.vhost);
    let peer = world.open();
    peer.write(&masked(0x81, b"go")).unwrap();
    world.turn();
    let lines = world.log.take();
    assert_eq!(lines[..2], ["text \"go\"", "begin"]);
    let end = lines.iter().position(|line| line == "end").unwrap();
    let after = &lines[end + 1..];
    assert!(
        after
            .iter()
            .any(|line| line.starts_with("connect_error 10.0.0.66:80: tcp")),
        "{lines:?}"
    );
    assert!(after.iter().any(|line| line == "free_timer 4"), "{lines:?}");
    assert!(
        lines[2..end]
            .iter()
            .all(|line| line.starts_with("too early")),
        "{lines:?}"
    );
    // The new vhost is there.
    let text = String::from_utf8(request("/b"))
        .unwrap()
        .replace("a.test", "b.test");
    let peer = world.net.dial(addr()).unwrap();
    peer.write(text.as_bytes()).unwrap();
    world.turn();
    assert_eq!(world.log.take(), ["filter /b", "established /b None"]);
}

#[test]
fn a_vhost_can_destroy_itself_and_others_in_a_callback() {
    let ids = Slot::new();
    let wanted = ids.clone();
    let mut world = World::new(|log| {
        framed(log, move |cx, _| {
            for id in wanted.take() {
                cx.destroy_vhost(id).unwrap();
                cx.destroy_vhost(id).unwrap();
            }
        })
    });
    ids.put(world.vhost);
    let peer = world.open();
    peer.write(&masked(0x81, b"go")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x88, &[0x03, 0xe9]));
    assert!(world.net.dial(addr()).is_err(), "nobody listens any more");
    peer.write(&masked(0x88, &[0x03, 0xe9])).unwrap();
    world.turn();
    let lines = world.log.take();
    assert_eq!(lines[1..3], ["begin", "end"]);
    assert_eq!(
        lines[3..],
        ["closed Local its vhost was destroyed, code 1001, clean"]
    );
    let gone = world.vhost;
    drop(peer);
    world.pass(Duration::from_secs(6));
    assert!(
        world.context.destroy_vhost(gone).is_err(),
        "the id is stale"
    );
}

#[test]
fn nothing_runs_inside_client_connect_shutdown_or_destroy() {
    let mut world = World::new(Recorder::new);
    let vhost = world.vhost;
    let info = || ClientConnectInfo::new("10.0.0.66", 80).unwrap();
    world.context.client_connect(vhost, info()).unwrap();
    assert_eq!(world.log.take(), [""; 0]);
    world.turn();
    assert_eq!(world.log.count("connect_error"), 1);
    world.log.take();

    let silent = world.net.listen("10.0.0.7:80".parse().unwrap()).unwrap();
    let info = ClientConnectInfo::new("10.0.0.7", 80).unwrap();
    world.context.client_connect(vhost, info).unwrap();
    let second = VhostConfig::new("c.test").protocol("c", Recorder::new(&world.log));
    let second = world.context.create_vhost(second).unwrap();
    let info = ClientConnectInfo::new("10.0.0.7", 80).unwrap();
    world.context.client_connect(second, info).unwrap();
    world.turn();
    world.context.destroy_vhost(second).unwrap();
    assert_eq!(world.log.take(), [""; 0], "callbacks run in service only");
    world.turn();
    assert_eq!(
        world.log.take(),
        ["connect_error 10.0.0.7:80: response stage: its vhost was destroyed"]
    );
    world.context.shutdown(Duration::from_secs(1));
    assert_eq!(world.log.take(), [""; 0], "callbacks run in service only");
    world.turn();
    assert_eq!(
        world.log.take(),
        ["connect_error 10.0.0.7:80: response stage: the context is shutting down"]
    );
    drop(silent);
}

/// RE-02: the other one has bytes waiting in the same batch of events.
#[test]
fn re_02_who_is_aborted_gets_none_of_the_events_that_wait_in_the_same_batch() {
    // The network shuffles events by its seed: whoever comes first ends the other.
    for _ in 0..8 {
        let mut site = Site::new(|log| Recorder {
            established: Some(Box::new(|wsi| {
                wsi.set_timer(Duration::from_secs(1), TimerTag(1));
                Ok(())
            })),
            ..framed(log, |cx, me| {
                for other in others(cx, me) {
                    cx.abort(other).unwrap();
                }
            })
        });
        let peers = [site.world.open(), site.world.open(), site.world.open()];
        for peer in &peers {
            peer.write(&masked(0x81, b"go")).unwrap();
        }
        // Their timers are due in the same turn as well.
        site.world.net.advance(Duration::from_secs(1));
        site.world.turn();
        let lines = site.world.log.take();
        assert_eq!(
            lines.iter().filter(|line| *line == "text \"go\"").count(),
            1,
            "{lines:?}"
        );
        assert_eq!(
            lines.iter().filter(|line| *line == "timer 1").count(),
            1,
            "{lines:?}"
        );
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with("closed"))
                .count(),
            2
        );
        assert_eq!(site.ids().len(), 1);
    }
}

#[test]
fn re_02_who_is_aborted_gets_neither_its_timer_nor_its_writable_of_the_same_turn() {
    let mut site = Site::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.set_timer(Duration::from_secs(1), TimerTag(1));
            Ok(())
        })),
        ..framed(log, |cx, me| {
            for other in others(cx, me) {
                let mut other = cx.peer(other).unwrap();
                other.request_writable();
                other.abort();
            }
        })
    });
    let _victims = [site.world.open(), site.world.open()];
    let actor = site.world.open();
    actor.write(&masked(0x81, b"go")).unwrap();
    site.world.net.advance(Duration::from_secs(1));
    site.world.turn();
    let lines = site.world.log.take();
    assert_eq!(
        lines.iter().filter(|line| *line == "timer 1").count(),
        1,
        "{lines:?}"
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("closed"))
            .count(),
        2,
        "{lines:?}"
    );
    assert_eq!(
        lines.iter().filter(|line| *line == "writable").count(),
        0,
        "{lines:?}"
    );
}

/// RE-01 for the callbacks that have no connection of their own.
#[test]
fn re_01_others_can_be_ended_in_every_callback_that_has_only_the_loop() {
    for place in ["filter", "closed", "connect_error", "free_timer", "wake"] {
        let mut site = Site::new(|log| {
            let end = |cx: &mut Cx<'_>| {
                let mut ids = Vec::new();
                cx.for_each_peer(|peer| ids.push(peer.id()));
                for id in ids {
                    cx.abort(id).unwrap();
                    cx.close(id, Close::normal()).unwrap();
                }
            };
            let mut recorder = Recorder::new(log);
            match place {
                "filter" => {
                    recorder.filter = Some(Box::new(move |cx, request| {
                        if request.path() == "/go" {
                            end(cx);
                        }
                        Ok(wsloop::Accept::new())
                    }));
                }
                "closed" => recorder.closed = Some(Box::new(move |cx, _| end(cx))),
                "connect_error" => recorder.connect_error = Some(Box::new(move |cx, _| end(cx))),
                "free_timer" => recorder.free_timer = Some(Box::new(move |cx, _| end(cx))),
                _ => recorder.wake = Some(Box::new(end)),
            }
            recorder
        });
        let mut peers = vec![site.world.open(), site.world.open(), site.world.open()];
        let vhost = site.world.vhost;
        match place {
            "filter" => {
                let last = site.world.dial();
                last.write(&request("/go")).unwrap();
                peers.push(last);
            }
            "closed" => drop(peers.pop()),
            "connect_error" => {
                let info = ClientConnectInfo::new("10.0.0.66", 80).unwrap();
                site.world.context.client_connect(vhost, info).unwrap();
            }
            "free_timer" => drop(site.act(|cx| cx.set_timer(Duration::ZERO, TimerTag(1)))),
            _ => site.world.context.cancel_service_handle().cancel_service(),
        }
        site.world.turn();
        let lines = site.world.log.take();
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with("closed"))
                .count(),
            3,
            "{lines:?}"
        );
        assert_eq!(
            site.ids().len(),
            usize::from(place == "filter"),
            "{place}: {lines:?}"
        );
    }
}

#[test]
fn re_02_who_is_closed_gets_none_of_the_messages_that_wait_in_the_same_batch() {
    let mut site = Site::new(|log| {
        framed(log, |cx, me| {
            for other in others(cx, me) {
                cx.close(other, Close::normal()).unwrap();
            }
        })
    });
    let peers = [site.world.open(), site.world.open(), site.world.open()];
    for peer in &peers {
        peer.write(&masked(0x81, b"go")).unwrap();
    }
    site.world.turn();
    for peer in &peers {
        if peer.read() == plain(0x88, &[0x03, 0xe8]) {
            peer.write(&masked(0x88, &[0x03, 0xe8])).unwrap();
        }
    }
    site.world.turn();
    let lines = site.world.log.take();
    assert_eq!(
        lines.iter().filter(|line| *line == "text \"go\"").count(),
        1,
        "{lines:?}"
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("closed"))
            .count(),
        2,
        "{lines:?}"
    );
}

#[test]
fn re_04_connecting_in_on_closed_and_on_connect_error_does_not_recurse() {
    let vhost = Slot::new();
    let home = vhost.clone();
    let mut left = 1000;
    let mut world = World::new(|log| Recorder {
        connect_error: Some(Box::new(move |cx, _| {
            if left > 0 {
                left -= 1;
                let own = home.take()[0];
                home.put(own);
                let info = ClientConnectInfo::new("10.0.0.66", 80).unwrap();
                cx.client_connect(own, info).unwrap();
            }
        })),
        ..Recorder::new(log)
    });
    vhost.put(world.vhost);
    let info = ClientConnectInfo::new("10.0.0.66", 80).unwrap();
    let own = world.vhost;
    world.context.client_connect(own, info).unwrap();
    for turn in 0..5000 {
        let before = world.log.count("connect_error");
        world.context.service(Some(Duration::ZERO)).unwrap();
        let now = world.log.count("connect_error");
        assert!(
            now - before <= 2,
            "turn {turn} had {} failures",
            now - before
        );
    }
    assert_eq!(world.log.count("connect_error"), 1001);
    assert_eq!(world.context.connections(), 0);
}

/// A reconnect loop without patience.
#[test]
fn re_04_a_final_event_may_open_a_thousand_connections() {
    let vhost = Slot::new();
    let home = vhost.clone();
    let mut left = 1;
    let mut world = World::new(|log| Recorder {
        closed: Some(Box::new(move |cx, _| {
            if left > 0 {
                left -= 1;
                let own = home.take()[0];
                home.put(own);
                for _ in 0..1000 {
                    let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
                    cx.client_connect(own, info).unwrap();
                }
            }
        })),
        ..Recorder::new(log)
    });
    vhost.put(world.vhost);
    drop(world.open());
    for _ in 0..64 {
        world.turn();
    }
    // Both ends of each are here.
    assert_eq!(world.log.count("established"), 2000);
    assert_eq!(world.context.connections(), 2000);
    world.log.take();
    world.context.destroy_vhost(world.vhost).unwrap();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.context.connections(), 0);
    assert_eq!(world.log.count("closed"), 2000);
}

#[test]
fn re_05_an_echo_to_everybody_keeps_the_order_and_comes_to_an_end() {
    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(|wsi, message| {
            wsi.cx().broadcast(message, |_| true);
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peers: Vec<_> = (0..5).map(|_| world.open()).collect();
    for n in 0..20u8 {
        peers[0].write(&masked(0x82, &[n])).unwrap();
    }
    world.turn();
    let expected: Vec<u8> = (0..20u8).flat_map(|n| plain(0x82, &[n])).collect();
    for peer in &peers {
        assert_eq!(peer.read(), expected);
    }
}
