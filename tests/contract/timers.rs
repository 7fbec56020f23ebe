//! Timers of connections, of protocols and of nobody.

use std::time::Duration;

use wsloop::{Close, TimerTag, VhostConfig};

use crate::support::{Recorder, World, addr, masked};
use crate::{Site, Slot};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn timers_fire_when_due_once_each_and_in_order() {
    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(|wsi, _| {
            for n in [3, 1, 2] {
                wsi.set_timer(secs(n), TimerTag(n)).unwrap();
            }
            wsi.cx().set_timer(secs(2), TimerTag(20)).unwrap();
            assert!(wsi.set_timer(Duration::MAX, TimerTag(0)).is_none());
            assert!(wsi.cx().set_timer(Duration::MAX, TimerTag(0)).is_none());
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    peer.write(&masked(0x81, b"go")).unwrap();
    world.turn();
    world.log.take();
    world.pass(Duration::from_millis(900));
    assert_eq!(world.log.take(), [""; 0]);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.log.take(), ["timer 1"]);
    world.pass(secs(2));
    assert_eq!(world.log.take(), ["timer 2", "free_timer 20", "timer 3"]);
    world.pass(secs(20));
    assert_eq!(world.log.take(), [""; 0]);
}

#[test]
fn a_cancelled_timer_does_not_fire_and_a_spent_one_cannot_be_cancelled() {
    let mut site = Site::new(Recorder::new);
    let _peer = site.world.open();
    let (keep, drop_it) = site.act(|cx| {
        let a = cx.set_timer(secs(1), TimerTag(1)).unwrap();
        let b = cx.set_timer(secs(1), TimerTag(2)).unwrap();
        (a, b)
    });
    site.act(|cx| {
        assert!(cx.cancel_timer(drop_it));
        assert!(!cx.cancel_timer(drop_it));
    });
    site.world.pass(secs(2));
    assert_eq!(site.world.log.take(), ["free_timer 1"]);
    site.act(|cx| assert!(!cx.cancel_timer(keep)));
}

#[test]
fn the_timer_of_an_ended_or_closing_connection_never_fires() {
    for abort in [true, false] {
        let mut site = Site::new(|log| Recorder {
            established: Some(Box::new(|wsi| {
                wsi.set_timer(secs(1), TimerTag(1));
                wsi.set_timer(secs(7), TimerTag(2));
                Ok(())
            })),
            ..Recorder::new(log)
        });
        let _peer = site.world.open();
        let id = site.id();
        site.act(|cx| {
            if abort {
                cx.abort(id).unwrap();
            } else {
                cx.close(id, Close::normal()).unwrap();
            }
        });
        site.world.pass(secs(10));
        let lines = site.world.log.take();
        assert_eq!(lines.len(), 1, "abort {abort}: {lines:?}");
    }
}

#[test]
fn a_timer_armed_for_now_in_its_own_callback_waits_for_the_next_turn() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.set_timer(Duration::ZERO, TimerTag(1));
            Ok(())
        })),
        timer: Some(Box::new(|wsi, tag| {
            wsi.set_timer(Duration::ZERO, tag);
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let _peer = world.open();
    for _ in 0..10 {
        world.log.take();
        world.context.service(Some(Duration::ZERO)).unwrap();
        assert!(world.log.count("timer") <= 1, "{:?}", world.log.lines());
    }
}

#[test]
fn a_timer_set_from_outside_counts_from_the_time_of_the_call() {
    let mut site = Site::new(Recorder::new);
    site.world.turn();
    // The program was busy elsewhere for a while.
    site.world.net.advance(secs(10));
    site.act(|cx| cx.set_timer(secs(5), TimerTag(1)).unwrap());
    site.world.context.set_timer(secs(5), TimerTag(2)).unwrap();
    site.world.pass(Duration::from_millis(4900));
    assert_eq!(site.world.log.take(), [""; 0]);
    site.world.pass(Duration::from_millis(200));
    assert_eq!(site.world.log.take(), ["free_timer 1", "observer timer 2"]);
}

#[test]
fn a_vhost_destroyed_after_a_pause_still_gives_its_connections_time_to_close() {
    let mut site = Site::new(Recorder::new);
    let peer = site.world.open();
    site.world.net.advance(secs(10));
    let vhost = site.world.vhost;
    site.world.context.destroy_vhost(vhost).unwrap();
    site.world.turn();
    peer.write(&masked(0x88, &[0x03, 0xe9])).unwrap();
    site.world.turn();
    assert_eq!(
        site.world.log.take(),
        ["closed Local its vhost was destroyed, code 1001, clean"]
    );
}

#[test]
fn free_timers_go_with_their_vhost() {
    let mut handle = None;
    let mut world = World::new(Recorder::new);
    let mut config = VhostConfig::new("b.test");
    handle.replace(config.add_protocol("q", Recorder::new(&world.log)));
    let vhost = world.context.create_vhost(config).unwrap();
    let handle = handle.unwrap();
    world
        .context
        .with_protocol(handle, |_, cx| cx.set_timer(secs(1), TimerTag(5)));
    world.context.destroy_vhost(vhost).unwrap();
    // Its place is taken by another protocol, which knows nothing of that timer.
    let config = VhostConfig::new("c.test").listen(addr());
    drop(config);
    let config = VhostConfig::new("c.test").protocol("r", Recorder::new(&world.log));
    world.context.create_vhost(config).unwrap();
    world.pass(secs(3));
    assert_eq!(world.log.take(), [""; 0]);
}

#[test]
fn setting_and_cancelling_timers_for_ever_does_not_grow_the_connection() {
    let sizes = Slot::new();
    let mut last = None;
    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(move |wsi, _| {
            for _ in 0..100 {
                if let Some(old) = last.take() {
                    wsi.cx().cancel_timer(old);
                }
                last = wsi.set_timer(secs(60), TimerTag(1));
            }
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    for _ in 0..100 {
        peer.write(&masked(0x81, b"go")).unwrap();
        world.turn();
        sizes.put(world.context.memory());
    }
    let sizes = sizes.take();
    assert!(
        sizes[99] <= sizes[0] + 1024,
        "from {} to {}",
        sizes[0],
        sizes[99]
    );
    world.log.take();
    for _ in 0..7 {
        // Signs of life, or the peer would be hung up on.
        world.pass(secs(10));
        peer.write(&masked(0x8a, b"")).unwrap();
    }
    assert_eq!(world.log.count("timer"), 1, "the last one is armed still");
}
