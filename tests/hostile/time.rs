//! Slow peers, silent peers, and the clock.

use std::time::Duration;

use wsloop::{Limits, Side, TimerTag, VhostConfig};

use super::common::{SIDES, Session, final_event, frames_of, join};
use crate::support::{Log, Recorder, World, addr, masked, request};

#[test]
fn tm_01_a_head_that_trickles_in_ends_at_its_total_deadline() {
    let mut world = World::new(Recorder::echo);
    let slow: Vec<_> = (0..100).map(|_| world.net.dial(addr()).unwrap()).collect();
    world.turn();
    let well = join(&mut world);
    world.log.take();
    let head = request("/");
    for byte in head.iter().take(11) {
        for peer in &slow {
            peer.write(&[*byte]).unwrap();
        }
        well.write(&masked(0x81, b"x")).unwrap();
        world.pass(Duration::from_millis(900));
        assert_eq!(well.read(), [0x81, 1, b'x'], "others are served meanwhile");
    }
    assert_eq!(world.log.count("refused"), 0, "9.9 s are not 10");
    for peer in &slow {
        peer.write(b"x").unwrap();
    }
    world.pass(Duration::from_millis(200));
    let told = "refused the request head took longer than 10s";
    assert_eq!(world.log.count(told), slow.len());
    for peer in &slow {
        assert!(peer.read().starts_with(b"HTTP/1.1 408 "));
        assert!(peer.ended());
    }
    world.pass(Duration::from_secs(6));
    assert_eq!(world.context.connections(), 1, "only the good one is left");
}

#[test]
fn tm_01_a_peer_that_says_nothing_ends_at_the_deadline_too() {
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    world.pass(Duration::from_millis(10_100));
    assert_eq!(
        final_event(&world.log),
        "refused the request head took longer than 10s"
    );
    assert!(peer.read().starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn tm_04_a_peer_that_sends_but_never_pongs_stays() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        for _ in 0..20 {
            session.world.pass(Duration::from_secs(40));
            session.send(0x82, b"");
        }
        let frames = session.frames();
        assert_eq!(frames.len(), 20, "one ping in each silence");
        assert!(frames.iter().all(|(first, _)| *first == 0x89));
        assert_eq!(session.world.log.count("closed"), 0, "{side:?}");
    }
}

#[test]
fn tm_04_a_peer_that_only_pongs_stays() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        for _ in 0..20 {
            session.world.pass(Duration::from_secs(31));
            for (first, payload) in session.frames() {
                assert_eq!(first, 0x89);
                session.send(0x8a, &payload);
            }
        }
        assert_eq!(session.world.log.count("closed"), 0, "{side:?}");
        assert_eq!(session.world.log.count("pong"), 20, "{side:?}");
    }
}

#[test]
fn tm_04_a_peer_in_a_black_hole_is_given_up_in_bounded_time() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.world.pass(Duration::from_millis(44_900));
        assert_eq!(session.world.log.count("closed"), 0, "{side:?}");
        session.world.pass(Duration::from_millis(300));
        let told = "closed Local the peer's silence took longer than 45s, code 1006, not clean";
        assert_eq!(session.final_event(), told, "{side:?}");
        assert_eq!(session.world.context.connections(), 0);
        let frames = session.frames();
        assert_eq!(frames.len(), 1, "one ping");
    }
}

#[test]
fn tm_04_output_of_which_nothing_is_taken_has_a_deadline() {
    for side in SIDES {
        let mut session = Session::open(side, |log| Recorder {
            message: Some(Box::new(|wsi, _| {
                wsi.send_binary(&[7; 10_000])?;
                Ok(())
            })),
            ..Recorder::new(log)
        });
        session.world.net.set_capacity(1000);
        session.send(0x81, b"go");
        for _ in 0..29 {
            // It talks, but does not read.
            session.send(0x8a, b"");
            session.world.pass(Duration::from_secs(1));
        }
        assert_eq!(session.world.log.count("closed"), 0, "{side:?}");
        session.world.pass(Duration::from_millis(1200));
        let told = session.final_event();
        let expected = "closed Local writing without progress took longer than 30s, code 1006, \
                        not clean, ";
        assert!(told.starts_with(expected), "{side:?} {told}");
    }
}

/// A message of that length is on its way to a peer who takes `piece` bytes every `pause`; how many
/// came in `time`.
fn sip(session: &mut Session, piece: usize, pause: Duration, time: Duration) -> usize {
    let begin = session.world.net.elapsed();
    let mut came = 0;
    while session.world.net.elapsed() - begin < time && session.world.log.count("closed") == 0 {
        session.world.pass(pause);
        came += session.peer.read_up_to(piece).len();
        // It lives.
        let _ = session.peer.write(&session.frame(0x8a, b""));
        session.world.turn();
    }
    came
}

/// Answers every message with one of that length.
fn sending(log: &Log, len: usize) -> Recorder {
    Recorder {
        message: Some(Box::new(move |wsi, _| {
            wsi.send_binary(&vec![7; len])?;
            Ok(())
        })),
        ..Recorder::new(log)
    }
}

const TOO_SLOW: &str = "closed Local the lag behind the lowest rate of output took longer than 30s, code 1006, \
     not clean, ";

#[test]
fn tm_04_who_takes_a_byte_now_and_then_does_not_keep_the_queue() {
    for side in SIDES {
        let mut session = Session::open(side, |log| sending(log, 1_000_000));
        session.world.net.set_capacity(1000);
        session.send(0x81, b"go");
        let hour = Duration::from_secs(3600);
        let came = sip(&mut session, 1, Duration::from_secs(20), hour);
        let told = session.final_event();
        assert!(told.starts_with(TOO_SLOW), "{side:?} {told}");
        assert!((1..=3).contains(&came), "{side:?}: {came} times 20 s");
    }
}

#[test]
fn tm_04_who_is_merely_slow_gets_everything() {
    for side in SIDES {
        for (piece, pause) in [(8192, 1000), (400, 1000), (7500, 25_000)] {
            let len = 120 * piece;
            let mut session = Session::open(side, move |log| sending(log, len));
            session.world.net.set_capacity(8192);
            session.send(0x81, b"go");
            let pause = Duration::from_millis(pause);
            let came = sip(&mut session, piece, pause, 300 * pause);
            assert!(came >= len, "{side:?} {piece}: {came} of {len}");
            assert_eq!(session.world.log.count("closed"), 0, "{side:?} {piece}");
        }
    }
}

/// What was taken fast is no credit for ever, where the queue is never empty.
#[test]
fn tm_04_who_was_fast_once_is_not_waited_for_any_longer() {
    for side in SIDES {
        let mut limits = Limits::default();
        limits.output_low_water = 1000;
        let mut session = Session::tuned(
            side,
            |config| config.limits(limits),
            |log| Recorder {
                message: Some(Box::new(|wsi, _| {
                    wsi.request_writable();
                    Ok(())
                })),
                writable: Some(Box::new(|wsi| {
                    wsi.send_binary(&[7; 10_000])?;
                    wsi.request_writable();
                    Ok(())
                })),
                ..Recorder::new(log)
            },
        );
        session.world.net.set_capacity(1000);
        session.send(0x81, b"go");
        let mut fast = 0;
        while fast < 500_000 {
            fast += session.peer.read().len();
            session.world.turn();
        }
        let hour = Duration::from_secs(3600);
        let came = sip(&mut session, 1, Duration::from_secs(20), hour);
        let told = session.final_event();
        assert!(told.starts_with(TOO_SLOW), "{side:?} {told}");
        assert!((1..=5).contains(&came), "{side:?}: {came} times 20 s");
    }
}

#[test]
fn tm_04_a_lowest_rate_of_zero_is_none() {
    for side in SIDES {
        let mut limits = Limits::default();
        limits.output_rate = 0;
        let mut session = Session::tuned(
            side,
            |config| config.limits(limits),
            |log| sending(log, 10_000),
        );
        session.world.net.set_capacity(1000);
        session.send(0x81, b"go");
        let ten = Duration::from_secs(600);
        let came = sip(&mut session, 1, Duration::from_secs(20), ten);
        assert_eq!((came, session.world.log.count("closed")), (30, 0));
    }
}

#[test]
fn tm_06_a_leap_of_fifty_years_fires_each_timer_once() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.cx().set_timer(Duration::from_secs(1), TimerTag(1));
            wsi.cx().set_timer(Duration::from_secs(3600), TimerTag(2));
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    world.net.advance(Duration::from_secs(50 * 365 * 24 * 3600));
    world.turn();
    assert_eq!(world.log.count("free_timer 1"), 1);
    assert_eq!(world.log.count("free_timer 2"), 1);
    assert_eq!(
        world
            .log
            .count("closed Local the peer's silence took longer"),
        1
    );
    world.turn();
    assert_eq!(world.log.count("free_timer"), 2);
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn tm_08_a_hundred_thousand_timers_of_one_tick_fire_once_each() {
    let mut world = World::new(Recorder::new);
    let mut cancelled = 0;
    for n in 0..100_000_u64 {
        let timer = world
            .context
            .set_timer(Duration::from_millis(50), TimerTag(n))
            .unwrap();
        if n % 10 == 0 {
            assert!(world.context.cancel_timer(timer));
            cancelled += 1;
        }
    }
    world.net.advance(Duration::from_millis(49));
    world.turn();
    assert!(world.log.take().is_empty(), "not early");
    world.net.advance(Duration::from_millis(2));
    world.turn();
    assert_eq!(world.log.take().len(), 100_000 - cancelled);
    world.pass(Duration::from_secs(1));
    assert!(world.log.take().is_empty());
}

#[test]
fn tm_08_a_timer_that_arms_itself_in_the_past_starves_nobody() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.set_timer(Duration::ZERO, TimerTag(1));
            Ok(())
        })),
        timer: Some(Box::new(|wsi, tag| {
            wsi.set_timer(Duration::ZERO, tag);
            Ok(())
        })),
        ..Recorder::echo(log)
    });
    let peer = world.open();
    peer.write(&masked(0x81, b"hello")).unwrap();
    let before = world.log.count("timer");
    world.context.service(Some(Duration::ZERO)).unwrap();
    world.context.service(Some(Duration::ZERO)).unwrap();
    assert!(
        world.log.count("timer") <= before + 2,
        "at most once a turn"
    );
    assert_eq!(peer.read(), crate::support::plain(0x81, b"hello"));
}

#[test]
fn tm_08_a_timer_beyond_all_time_is_none() {
    let mut world = World::new(Recorder::new);
    assert!(
        world
            .context
            .set_timer(Duration::MAX, TimerTag(1))
            .is_none()
    );
    assert!(
        world
            .context
            .set_timer(Duration::from_secs(u64::MAX), TimerTag(2))
            .is_none()
    );
    let far = world
        .context
        .set_timer(Duration::from_secs(u64::from(u32::MAX)), TimerTag(3));
    assert!(far.is_some());
    world.pass(Duration::from_secs(100));
    assert!(world.log.take().is_empty());
}

#[test]
fn tm_08_a_timer_may_cancel_another_of_the_same_tick() {
    let first = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let timers = first.clone();
    let mut world = World::new(|log| Recorder {
        free_timer: Some(Box::new(move |cx, _| {
            for timer in first.lock().unwrap().drain(..) {
                cx.cancel_timer(timer);
            }
        })),
        established: Some(Box::new(move |wsi| {
            for n in 0..2 {
                let timer = wsi.cx().set_timer(Duration::from_secs(1), TimerTag(n));
                timers.lock().unwrap().extend(timer);
            }
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let _peer = world.open();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.log.count("free_timer"), 1);
}

#[test]
fn tm_09_the_deadline_of_the_head_ends_with_the_upgrade() {
    let mut session = Session::open(Side::Server, Recorder::echo);
    for _ in 0..100 {
        session.world.pass(Duration::from_secs(20));
        session.send(0x81, b"still here");
    }
    assert_eq!(session.frames().len(), 100);
    assert_eq!(session.world.log.count("closed"), 0);
}

/// The cap on unsent pongs is about unsent ones: a stream that always has something queued goes on
/// answering pings after any number of them.
#[test]
fn a_busy_stream_answers_pings_for_ever() {
    use wsloop::Limits;

    let mut limits = Limits::default();
    limits.output_low_water = 64 * 1024;
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .limits(limits)
            .protocol(
                "p",
                Recorder {
                    established: Some(Box::new(|wsi| {
                        wsi.request_writable();
                        Ok(())
                    })),
                    writable: Some(Box::new(|wsi| {
                        wsi.send_binary(&[7; 1000])?;
                        wsi.request_writable();
                        Ok(())
                    })),
                    ..Recorder::new(log)
                },
            )
    });
    world.net.set_capacity(20_000);
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    let mut wire = peer.read();
    let end = wire
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    wire.drain(..end + 4);
    let mut asked = 0_u32;
    let mut answered = 0_u32;
    for round in 0..3000 {
        if round % 10 == 0 {
            asked += 1;
            peer.write(&masked(0x89, &[9; 100])).unwrap();
        }
        for _ in 0..20 {
            world.context.service(Some(Duration::ZERO)).unwrap();
        }
        wire.extend(peer.read());
        let (frames, rest) = frames_of(Side::Server, &wire);
        answered += frames.iter().filter(|(first, _)| *first == 0x8a).count() as u32;
        wire = rest.to_vec();
    }
    // Some may be on their way yet.
    assert!(
        answered + 20 > asked,
        "{answered} of {asked} pings answered"
    );
}

/// Our ping waits behind what we queued ourselves; a peer that takes all of it at its own pace and
/// answers the ping as soon as it sees it is not silent.
#[test]
fn tm_04_a_slow_reader_is_not_hung_up_on_before_our_ping_could_reach_it() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.set_timer(Duration::from_secs(1), TimerTag(1));
            Ok(())
        })),
        timer: Some(Box::new(|wsi, _| {
            while wsi.send_binary(&[7; 10_000]).is_ok() {}
            wsi.set_timer(Duration::from_secs(1), TimerTag(1));
            Ok(())
        })),
        ..Recorder::new(log)
    });
    world.net.set_capacity(16_000);
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    let mut wire = peer.read();
    let end = wire.windows(4).position(|four| four == b"\r\n\r\n");
    wire.drain(..end.unwrap() + 4);
    let mut taken = 0;
    // 40 KB a second for two minutes: the queue of 1 MiB takes 26 s.
    for _ in 0..300 {
        world.pass(Duration::from_millis(400));
        let came = peer.read();
        taken += came.len();
        wire.extend(came);
        let (frames, rest) = frames_of(Side::Server, &wire);
        for (_, payload) in frames.iter().filter(|(first, _)| *first == 0x89) {
            let _ = peer.write(&masked(0x8a, payload));
        }
        wire = rest.to_vec();
        assert_eq!(
            world.log.count("closed"),
            0,
            "after {taken} bytes: {:?}",
            world.log.lines().last()
        );
    }
}

/// The deadline of the closing handshake is not one for sending a page to somebody who takes it
/// steadily.
#[test]
fn a_page_arrives_whole_at_a_peer_that_takes_it_in_eight_seconds() {
    let body = vec![b'x'; 800_000];
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .page("/", "text/plain", body)
            .protocol("p", Recorder::new(log))
    });
    world.net.set_capacity(10_000);
    let peer = world.dial();
    peer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    let mut came = 0;
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        came += peer.read().len();
    }
    assert!(came > 800_000, "{came} bytes came");
}
