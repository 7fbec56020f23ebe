//! Callbacks that close, abort, send everywhere or panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::sim::SimPeer;
use wsloop::{Close, Context, ContextConfig, TimerTag, VhostConfig, Wsi};

use super::common::{final_event, finals, frames, join};
use crate::support::{Log, Recorder, World, addr, close_payload, masked, request};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Established,
    Message,
    PeerClose,
    Pong,
    Timer,
    Writable,
}

const EVERYWHERE: [Where; 6] = [
    Where::Established,
    Where::Message,
    Where::PeerClose,
    Where::Pong,
    Where::Timer,
    Where::Writable,
];

type Act = fn(&mut Wsi<'_>) -> Result<(), Close>;

/// Does `act` in that callback, and sees to it that each callback is called.
fn acting(log: &Log, place: Where, act: Act) -> Recorder {
    let at = move |here| move |wsi: &mut Wsi<'_>| if place == here { act(wsi) } else { Ok(()) };
    let message = at(Where::Message);
    let timer = at(Where::Timer);
    let established = at(Where::Established);
    Recorder {
        established: Some(Box::new(move |wsi| {
            wsi.set_timer(Duration::from_secs(1), TimerTag(1));
            wsi.request_writable();
            established(wsi)
        })),
        message: Some(Box::new(move |wsi, _| message(wsi))),
        peer_close: Some(Box::new(at(Where::PeerClose))),
        pong: Some(Box::new(at(Where::Pong))),
        timer: Some(Box::new(move |wsi, _| timer(wsi))),
        writable: Some(Box::new(at(Where::Writable))),
        ..Recorder::new(log)
    }
}

/// A session that leads through every callback.
fn lead(world: &mut World) -> SimPeer {
    let peer = world.dial();
    let _ = peer.write(&request("/"));
    world.turn();
    // Several in one read: what comes behind the act must not be delivered.
    let both = [
        masked(0x81, b"one"),
        masked(0x81, b"two"),
        masked(0x8a, b"pong"),
    ]
    .concat();
    let _ = peer.write(&both);
    world.turn();
    world.pass(Duration::from_millis(1100));
    let _ = peer.write(&masked(0x88, &close_payload(1000, "")));
    world.turn();
    peer
}

#[test]
fn re_01_a_connection_may_close_or_abort_itself_in_any_callback() {
    let acts: [(&str, Act); 4] = [
        ("Err", |_| Err(Close::normal())),
        ("close", |wsi| {
            wsi.close(Close::normal());
            wsi.close(Close::normal());
            Ok(())
        }),
        ("abort", |wsi| {
            wsi.abort();
            Ok(())
        }),
        ("close by id, then abort, then Err", |wsi| {
            let id = wsi.id();
            let _ = wsi.cx().close(id, Close::normal());
            let _ = wsi.cx().abort(id);
            Err(Close::normal())
        }),
    ];
    for place in EVERYWHERE {
        for (name, act) in acts {
            let mut world = World::new(|log| acting(log, place, act));
            let peer = lead(&mut world);
            drop(peer);
            world.turn();
            let how = format!("{place:?} {name}: {:?}", world.log.lines());
            assert_eq!(world.context.connections(), 0, "{how}");
            let refuses = place == Where::Established && name.ends_with("Err");
            if refuses {
                assert_eq!(finals(&world.log), 0, "there was no session: {how}");
            } else {
                final_event(&world.log);
            }
            if place == Where::Message {
                assert_eq!(world.log.count("text"), 1, "nothing behind it: {how}");
                assert_eq!(world.log.count("timer"), 0, "{how}");
            }
        }
    }
}

#[test]
fn re_01_nothing_can_be_done_to_a_connection_in_its_own_final_event() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let results = Arc::clone(&seen);
    let mut world = World::new(|log| Recorder {
        closed: Some(Box::new(move |cx, id| {
            let mut results = results.lock().unwrap();
            results.push(cx.close(id, Close::normal()).is_err());
            results.push(cx.abort(id).is_err());
            results.push(cx.peer(id).is_none());
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    drop(peer);
    world.turn();
    assert_eq!(*seen.lock().unwrap(), [true; 3]);
    final_event(&world.log);
}

#[test]
fn re_02_a_connection_that_another_aborts_in_the_same_batch_hears_no_more() {
    for aborted_first in [false, true] {
        let mut world = World::new(|log| Recorder {
            message: Some(Box::new(|wsi, _| {
                let me = wsi.id();
                wsi.cx().for_each_peer(|mut peer| {
                    if peer.id() != me {
                        peer.abort();
                    }
                });
                Ok(())
            })),
            ..Recorder::new(log)
        });
        let first = join(&mut world);
        let second = join(&mut world);
        world.log.take();
        let order = if aborted_first {
            [&second, &first]
        } else {
            [&first, &second]
        };
        for peer in order {
            peer.write(&masked(0x81, b"me")).unwrap();
        }
        world.turn();
        let lines = world.log.lines();
        assert_eq!(world.log.count("text"), 1, "{lines:?}");
        assert_eq!(world.log.count("closed Local aborted"), 1, "{lines:?}");
        assert_eq!(world.context.connections(), 1);
    }
}

#[test]
fn re_05_an_echo_storm_is_bounded_and_in_order() {
    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(|wsi, message| {
            wsi.cx().broadcast(message, |_| true);
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peers: Vec<_> = (0..20).map(|_| join(&mut world)).collect();
    for round in 0..5_u8 {
        for (n, peer) in peers.iter().enumerate() {
            peer.write(&masked(0x82, &[n as u8, round])).unwrap();
        }
        world.turn();
    }
    let all: Vec<_> = peers
        .iter()
        .map(|peer| frames(wsloop::Side::Server, &peer.read()))
        .collect();
    for received in &all {
        assert_eq!(received.len(), 100);
        assert_eq!(received, &all[0], "everybody sees the same order");
        for n in 0..20 {
            let of_one = received.iter().filter(|(_, payload)| payload[0] == n);
            let rounds: Vec<u8> = of_one.map(|(_, payload)| payload[1]).collect();
            assert_eq!(rounds, [0, 1, 2, 3, 4]);
        }
    }
}

#[test]
fn re_07_a_panic_in_any_callback_ends_its_connection_only() {
    for place in EVERYWHERE {
        let mut world = World::new(|log| {
            acting(log, place, |wsi| {
                let armed = wsi
                    .peer_addr()
                    .is_some_and(|peer| peer.port() == PANICS.with(|p| p.get()));
                assert!(!armed, "as the test wants it");
                Ok(())
            })
        });
        PANICS.with(|port| port.set(0));
        let good = join(&mut world);
        let bad = world.dial();
        PANICS.with(|port| port.set(bad.local_addr().port()));
        let mut panics = 0;
        let script = [
            request("/"),
            masked(0x81, b"one"),
            masked(0x8a, b"pong"),
            Vec::new(),
            masked(0x88, &close_payload(1000, "")),
        ];
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        for bytes in script {
            let _ = bad.write(&bytes);
            world.net.advance(Duration::from_millis(600));
            for _ in 0..10 {
                let turned = catch_unwind(AssertUnwindSafe(|| {
                    world.context.service(Some(Duration::ZERO)).unwrap();
                }));
                panics += usize::from(turned.is_err());
            }
        }
        std::panic::set_hook(hook);
        assert_eq!(panics, 1, "{place:?}");
        assert_eq!(
            world.context.connections(),
            1,
            "{place:?}: the good one is left"
        );
        assert_eq!(
            world.log.count("closed"),
            0,
            "{place:?}: no on_closed after a panic"
        );
        world.log.take();
        good.write(&masked(0x81, b"still")).unwrap();
        world.turn();
        assert_eq!(world.log.count("text \"still\""), 1, "{place:?}");
        drop(good);
        world.turn();
        assert_eq!(finals(&world.log), 1, "{place:?}");
        assert_eq!(world.context.connections(), 0, "{place:?}");
    }
}

thread_local! {
    /// The port of the peer whose callbacks panic.
    static PANICS: std::cell::Cell<u16> = const { std::cell::Cell::new(0) };
}

#[test]
fn re_07_a_panic_in_the_final_event_does_not_abort_the_program() {
    let mut world = World::new(|log| Recorder {
        closed: Some(Box::new(|_, _| panic!("as the test wants it"))),
        ..Recorder::echo(log)
    });
    let bad = join(&mut world);
    let good = join(&mut world);
    drop(bad);
    let turned = catch_unwind(AssertUnwindSafe(|| world.turn()));
    assert!(turned.is_err());
    world.turn();
    assert_eq!(world.context.connections(), 1);
    good.write(&masked(0x81, b"still")).unwrap();
    world.turn();
    assert_eq!(
        frames(wsloop::Side::Server, &good.read()),
        [(0x81, b"still".to_vec())]
    );
    let turned = catch_unwind(AssertUnwindSafe(|| drop(world)));
    assert!(
        turned.is_err(),
        "dropping the context gives the final event"
    );
}

#[test]
fn re_10_threads_may_wake_the_loop_while_connections_come_and_go() {
    let log = Log::default();
    let net = wsloop::sim::Net::new(1);
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let config = VhostConfig::new("a.test")
        .listen(addr())
        .protocol("p", Recorder::echo(&log));
    context.create_vhost(config).unwrap();
    let wake = context.cancel_service_handle();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (wake, stop) = (wake.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    wake.cancel_service();
                    std::thread::yield_now();
                }
                wake.cancel_service();
            })
        })
        .collect();
    for _ in 0..200 {
        let peer = net.dial(addr()).unwrap();
        peer.write(&request("/")).unwrap();
        for _ in 0..4 {
            context.service(Some(Duration::ZERO)).unwrap();
        }
        drop(peer);
        context.service(Some(Duration::ZERO)).unwrap();
    }
    stop.store(true, Ordering::Release);
    for thread in threads {
        thread.join().unwrap();
    }
    let lines = log.take();
    let closed = lines
        .iter()
        .filter(|line| line.starts_with("closed"))
        .count();
    assert_eq!(closed, 200);
    // The last call came after everything: its wake is not lost.
    context.service(Some(Duration::ZERO)).unwrap();
    assert!(log.count("wake") >= 1);
    log.take();
    context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(log.count("wake"), 0);
    drop(context);
    wake.cancel_service();
}
