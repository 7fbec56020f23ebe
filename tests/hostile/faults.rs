//! Calls to the system that fail, take part of what they are given, or are not ready: each at
//! every place of a whole session.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use wsloop::sim::{Call, Fault, Net, SimPeer};
use wsloop::{
    ClientConnectInfo, Context, ContextConfig, ContextObserver, Cx, ListenerTrouble, ServerRefusal,
    Side, VhostConfig,
};

use super::common::{SIDES, Session, finals, frames_of, response};
use crate::support::{Log, Recorder, addr, close_payload, masked, plain, request};

/// What a session came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    told: Vec<String>,
    /// What the peer was sent.
    sent: Vec<u8>,
    reads: u64,
    writes: u64,
}

/// An echo session of that role, from the first call to the last, on a network that the script
/// has spoilt. Every step tolerates that the connection is gone.
fn play(side: Side, script: impl FnOnce(&Net)) -> Run {
    let net = Net::new(3);
    script(&net);
    let log = Log::default();
    let mut context = context(&net, &log);
    let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
    let mut sent = Vec::new();
    let mut told = Vec::new();
    if let Some(peer) = meet(side, &net, &mut context, config, &mut sent) {
        for bytes in speech(side) {
            let _ = peer.write(&bytes);
            turn(&mut context);
            sent.extend(peer.read());
        }
        peer.shutdown_write();
        turn(&mut context);
        sent.extend(peer.read());
        drop(peer);
        turn(&mut context);
        assert_eq!(
            finals(&log),
            1,
            "one final event at once, no deadline needed: {log:?}"
        );
        told = log.take();
    }
    // Whatever still waits for a deadline.
    for _ in 0..120 {
        net.advance(Duration::from_secs(1));
        turn(&mut context);
    }
    told.extend(log.take());
    assert_eq!(context.connections(), 0, "nothing is left: {told:?}");
    let ends = ["closed ", "connect_error ", "refused "];
    let finals = told
        .iter()
        .filter(|line| ends.iter().any(|end| line.starts_with(end)));
    assert_eq!(finals.count(), 1, "one final event: {told:?}");
    Run {
        told,
        sent,
        reads: net.calls(Call::Read),
        writes: net.calls(Call::Write),
    }
}

fn context(net: &Net, log: &Log) -> Context {
    Context::simulated(net, ContextConfig::new().observer(Watcher(log.clone()))).unwrap()
}

fn turn(context: &mut Context) {
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
}

/// The stranger at the other end, its handshake done; `None` if the client's attempt failed.
fn meet(
    side: Side,
    net: &Net,
    context: &mut Context,
    config: VhostConfig,
    sent: &mut Vec<u8>,
) -> Option<SimPeer> {
    match side {
        Side::Client => {
            let listener = net.listen(addr()).unwrap();
            let vhost = context.create_vhost(config).unwrap();
            let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
            context.client_connect(vhost, info).unwrap();
            turn(context);
            let peer = listener.accept()?;
            let request = peer.read();
            if request.ends_with(b"\r\n\r\n") {
                let _ = peer.write(&response(std::str::from_utf8(&request).unwrap()));
            }
            sent.extend(request);
            turn(context);
            Some(peer)
        }
        Side::Server => {
            context.create_vhost(config.listen(addr())).unwrap();
            let peer = net.dial(addr()).unwrap();
            turn(context);
            let _ = peer.write(&request("/"));
            turn(context);
            sent.extend(peer.read());
            Some(peer)
        }
    }
}

/// What the peer says in turn.
fn speech(side: Side) -> Vec<Vec<u8>> {
    let frame = |first, payload: &[u8]| match side {
        Side::Server => masked(first, payload),
        Side::Client => plain(first, payload),
    };
    vec![
        frame(0x81, b"hello"),
        frame(0x89, b"ping"),
        [frame(0x02, &[1; 300]), frame(0x80, &[2; 300])].concat(),
        frame(0x88, &close_payload(1000, "")),
    ]
}

/// Writes down refusals and listeners in trouble.
struct Watcher(Log);

impl ContextObserver for Watcher {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        self.0.push(format!("refused {}", refusal.reason));
    }

    fn on_listener_trouble(&mut self, _: &mut Cx<'_>, trouble: &ListenerTrouble) {
        let again = trouble.resumes_after;
        self.0
            .push(format!("trouble {:?} {again:?}", trouble.error.kind()));
    }
}

const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };

#[test]
fn rs_08_a_read_or_write_that_fails_for_good_ends_the_connection_once_wherever_it_is() {
    let faults = [
        Fault::from(ErrorKind::ConnectionReset),
        Fault::from(ErrorKind::BrokenPipe),
        Fault::from(ErrorKind::TimedOut),
        Fault::from(ErrorKind::HostUnreachable),
        Fault::from(ENOBUFS),
    ];
    for side in SIDES {
        let golden = play(side, |_| {});
        for fault in faults {
            for (call, count) in [(Call::Read, golden.reads), (Call::Write, golden.writes)] {
                for nth in 1..=count {
                    let run = play(side, |net| net.fail(call, nth, fault));
                    let how = format!("{side:?} {call:?} {nth} {fault:?}");
                    assert!(
                        golden.sent.starts_with(&run.sent),
                        "{how}: other bytes were sent"
                    );
                    assert!(run.told.len() <= golden.told.len(), "{how}: {:?}", run.told);
                }
            }
        }
    }
}

#[test]
fn rs_08_a_read_or_write_that_is_interrupted_or_not_ready_changes_nothing() {
    for side in SIDES {
        let golden = play(side, |_| {});
        for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
            for (call, count) in [(Call::Read, golden.reads), (Call::Write, golden.writes)] {
                for nth in 1..=count {
                    let run = play(side, |net| net.fail(call, nth, kind));
                    let how = format!("{side:?} {call:?} {nth} {kind:?}");
                    assert_eq!(run.told, golden.told, "{how}");
                    assert_eq!(run.sent, golden.sent, "{how}");
                }
            }
        }
    }
}

/// A read that gives nothing, wherever it is: the peer ends its stream after every byte.
#[test]
fn rs_08_an_end_of_stream_after_every_byte_ends_the_connection_once() {
    for side in SIDES {
        let total = speech(side).concat().len();
        for end in 0..=total {
            let (net, log) = (Net::new(3), Log::default());
            let mut context = context(&net, &log);
            let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
            let peer = meet(side, &net, &mut context, config, &mut Vec::new()).unwrap();
            peer.write(&speech(side).concat()[..end]).unwrap();
            peer.shutdown_write();
            turn(&mut context);
            let told = super::common::final_event(&log);
            let clean = told.ends_with(", clean");
            assert_eq!(clean, end == total, "{side:?} {end} of {total}: {told}");
            drop(peer);
            turn(&mut context);
            assert_eq!(context.connections(), 0, "{side:?} {end}");
            assert_eq!(finals(&log), 1, "{side:?} {end}");
        }
    }
}

/// The same before the handshake is complete.
#[test]
fn rs_08_an_end_of_stream_inside_a_request_is_refused_once() {
    let whole = request("/");
    for end in 0..whole.len() {
        let (net, log) = (Net::new(3), Log::default());
        let mut context = context(&net, &log);
        let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
        context.create_vhost(config.listen(addr())).unwrap();
        let peer = net.dial(addr()).unwrap();
        peer.write(&whole[..end]).unwrap();
        peer.shutdown_write();
        turn(&mut context);
        assert!(log.lines().iter().all(|line| line.starts_with("refused ")));
        assert_eq!(finals(&log), 1, "{end}: {log:?}");
        drop(peer);
        turn(&mut context);
        assert_eq!((context.connections(), finals(&log)), (0, 1), "{end}");
    }
}

#[test]
fn rs_08_a_connect_that_fails_at_once_ends_the_attempt() {
    for kind in [
        ErrorKind::AddrNotAvailable,
        ErrorKind::NetworkUnreachable,
        ErrorKind::TimedOut,
    ] {
        let run = play(Side::Client, |net| net.fail(Call::Connect, 1, kind));
        assert_eq!(run.told.len(), 1);
        assert!(run.told[0].starts_with("connect_error "), "{:?}", run.told);
        assert!(run.sent.is_empty());
    }
}

#[test]
fn io_03_a_reset_after_every_byte_ends_the_connection_once() {
    for side in SIDES {
        let golden = play(side, |net| net.limit_io(1));
        for (call, count) in [(Call::Read, golden.reads), (Call::Write, golden.writes)] {
            // The long message in the middle is sampled, the rest is every byte.
            let sampled = |nth: &u64| *nth < 400 || *nth + 60 > count || nth % 7 == 0;
            for nth in (1..=count).filter(sampled) {
                let run = play(side, |net| {
                    net.limit_io(1);
                    net.fail(call, nth, ErrorKind::ConnectionReset);
                });
                let how = format!("{side:?} {call:?} {nth}");
                assert!(
                    golden.sent.starts_with(&run.sent),
                    "{how}: other bytes were sent"
                );
                if call == Call::Write {
                    assert_eq!(run.sent.len() as u64, nth - 1, "{how}");
                }
            }
        }
    }
}

#[test]
fn io_03_what_the_system_did_not_take_is_counted() {
    let total = 101 * 102;
    for nth in 1..=30 {
        let mut session = Session::open(Side::Server, |log| Recorder {
            message: Some(Box::new(|wsi, _| {
                for _ in 0..101 {
                    wsi.send_binary(&[0; 100])?;
                }
                Ok(())
            })),
            ..Recorder::new(log)
        });
        let net = session.world.net.clone();
        net.limit_io(350);
        net.fail(
            Call::Write,
            net.calls(Call::Write) + nth,
            ErrorKind::BrokenPipe,
        );
        session.send(0x81, b"go");
        let sent = session.peer.read().len();
        let told = session.final_event();
        let count = format!(
            ", code 1006, not clean, {} bytes not delivered",
            total - sent
        );
        if sent == total {
            panic!("the fault never happened: {told}");
        }
        assert!(told.starts_with("closed Peer transport error: "), "{told}");
        assert!(told.ends_with(&count), "{nth}: {told}, {sent} sent");
    }
}

#[test]
fn io_03_a_close_frame_that_lies_there_is_the_reason_not_the_write_that_failed() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::echo);
        let net = session.world.net.clone();
        net.fail(
            Call::Write,
            net.calls(Call::Write) + 1,
            ErrorKind::BrokenPipe,
        );
        let mut bytes = session.frame(0x81, b"hello");
        bytes.extend(session.frame(0x88, &close_payload(1001, "gone")));
        session.write(&bytes);
        let told = session.final_event();
        let expected = "closed Peer closed by the peer, code 1001 \"gone\", not clean, ";
        assert!(told.starts_with(expected), "{side:?} {told}");
        assert_eq!(session.world.context.connections(), 0);
    }
}

#[test]
fn io_03_a_close_frame_that_was_not_read_yet_is_still_the_reason() {
    let net = Net::new(3);
    let log = Log::default();
    // One read exhausts the budget, so that the failing write comes before the next.
    let config = ContextConfig::new().turn_budget(4096);
    let mut context = Context::simulated(&net, config).unwrap();
    let vhost = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
    let mut sent = Vec::new();
    let peer = meet(Side::Server, &net, &mut context, vhost, &mut sent).unwrap();
    net.fail(
        Call::Write,
        net.calls(Call::Write) + 1,
        ErrorKind::BrokenPipe,
    );
    peer.write(&masked(0x82, &[0; 5000])).unwrap();
    peer.write(&masked(0x88, &close_payload(1001, "gone")))
        .unwrap();
    turn(&mut context);
    let told = super::common::final_event(&log);
    let expected = "closed Peer closed by the peer, code 1001 \"gone\", not clean, ";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(context.connections(), 0);
}

#[test]
fn io_02_output_in_pieces_of_any_size_is_the_same_output() {
    for side in SIDES {
        let golden = play(side, |_| {});
        for size in (1..=40).chain([125, 126, 127, 300, 599, 600, 1000]) {
            let run = play(side, |net| net.limit_io(size));
            assert_eq!(run.sent, golden.sent, "{side:?} {size}");
            assert_eq!(run.told, golden.told, "{side:?} {size}");
        }
    }
}

#[test]
fn io_05_a_storm_of_would_block_costs_no_more_calls_than_it_has_events() {
    for side in SIDES {
        let golden = play(side, |net| net.limit_io(16));
        let storm = |net: &Net| {
            net.limit_io(16);
            // A hundred refusals before each call that gets through.
            for nth in (1..=20_000).filter(|nth| nth % 101 != 0) {
                net.fail(Call::Read, nth, ErrorKind::WouldBlock);
            }
        };
        let net = Net::new(3);
        storm(&net);
        let log = Log::default();
        let mut context = context(&net, &log);
        let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
        let mut sent = Vec::new();
        let peer = meet(side, &net, &mut context, config, &mut sent).unwrap();
        for bytes in speech(side) {
            peer.write(&bytes).unwrap();
        }
        peer.shutdown_write();
        let mut most = 0;
        for _ in 0..20_000 {
            let before = net.calls(Call::Read);
            context.service(Some(Duration::ZERO)).unwrap();
            most = most.max(net.calls(Call::Read) - before);
        }
        sent.extend(peer.read());
        assert!(
            most <= 3,
            "{most} reads in one turn, of which one got through"
        );
        assert_eq!(sent, golden.sent, "{side:?}");
        assert_eq!(log.take(), golden.told, "{side:?}");
        assert_eq!(context.connections(), 0);
    }
}

#[test]
fn io_07_a_write_of_several_slices_that_ends_inside_one_goes_on_there() {
    let big: Vec<u8> = (0..9000).map(|n| (n % 251) as u8).collect();
    for capacity in [1, 3, 4, 5, 100, 4999, 5000, 9003, 9004, 9005, 9010] {
        let mut session = Session::open(Side::Server, |log| {
            let owned = Bytes::from(big.clone());
            Recorder {
                message: Some(Box::new(move |wsi, _| {
                    // Header and payload are slices of their own, three times over.
                    wsi.send_text("before")?;
                    wsi.send_bytes(owned.clone())?;
                    wsi.send_text("between")?;
                    wsi.send_bytes(owned.clone())?;
                    wsi.send_text("behind")?;
                    Ok(())
                })),
                ..Recorder::new(log)
            }
        });
        session.world.net.set_capacity(capacity);
        session.send(0x81, b"go");
        let mut sent = Vec::new();
        while session.world.log.count("closed") == 0 {
            let got = session.peer.read();
            if got.is_empty() {
                break;
            }
            sent.extend(got);
            session.world.context.service(Some(Duration::ZERO)).unwrap();
        }
        let (frames, rest) = frames_of(Side::Server, &sent);
        let expected = [
            (0x81, b"before".to_vec()),
            (0x82, big.clone()),
            (0x81, b"between".to_vec()),
            (0x82, big.clone()),
            (0x81, b"behind".to_vec()),
        ];
        assert!(rest.is_empty() && frames == expected, "capacity {capacity}");
    }
}

/// An errno by Linux's number; the classes are the same elsewhere.
#[cfg(target_os = "linux")]
mod accept {
    use super::*;

    const RETRIED: [i32; 7] = [4, 1, 71, 100, 103, 104, 113];
    const EXHAUSTED: [i32; 4] = [12, 23, 24, ENOBUFS];
    const FATAL: [i32; 3] = [9, 22, 88];

    /// Two strangers meet a listener whose `nth` accept fails; then a third comes.
    fn meet_three(nth: u64, errno: i32) -> (Vec<String>, usize, Context) {
        let net = Net::new(3);
        net.fail(Call::Accept, nth, errno);
        let log = Log::default();
        let mut context = context(&net, &log);
        let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
        context.create_vhost(config.listen(addr())).unwrap();
        let mut peers: Vec<_> = (0..2).map(|_| net.dial(addr()).unwrap()).collect();
        turn(&mut context);
        net.advance(Duration::from_millis(150));
        turn(&mut context);
        peers.extend(net.dial(addr()));
        turn(&mut context);
        for peer in &peers {
            let _ = peer.write(&request("/"));
        }
        turn(&mut context);
        let served = peers
            .iter()
            .filter(|peer| peer.read().starts_with(b"HTTP/1.1 101 "));
        let served = served.count();
        drop(peers);
        turn(&mut context);
        assert_eq!(context.connections(), 0, "{nth} {errno}");
        let told = log.take();
        let established = told
            .iter()
            .filter(|line| line.starts_with("established"))
            .count();
        let closed = told
            .iter()
            .filter(|line| line.starts_with("closed"))
            .count();
        assert_eq!((established, closed), (served, served), "{nth} {errno}");
        (told, served, context)
    }

    #[test]
    fn rs_02_an_accept_that_comes_to_nothing_is_followed_by_the_next() {
        for errno in RETRIED {
            for nth in 1..=4 {
                let (told, served, _) = meet_three(nth, errno);
                assert_eq!(served, 3, "{errno} at {nth}");
                assert!(
                    !told.iter().any(|line| line.starts_with("trouble")),
                    "{told:?}"
                );
            }
        }
    }

    #[test]
    fn rs_01_a_listener_out_of_descriptors_rests_sheds_and_recovers() {
        for errno in EXHAUSTED {
            for nth in 1..=3 {
                let (told, served, _) = meet_three(nth, errno);
                assert!(
                    served >= 1,
                    "{errno} at {nth}: whoever comes later is served"
                );
                let trouble: Vec<_> = told
                    .iter()
                    .filter(|line| line.starts_with("trouble"))
                    .collect();
                assert_eq!(trouble.len(), 1, "said once: {trouble:?}");
                assert!(trouble[0].contains("Some("), "and comes back: {trouble:?}");
            }
        }
    }

    #[test]
    fn rs_01_a_resting_listener_does_not_spin() {
        let net = Net::new(3);
        for nth in 1..=10_000 {
            net.fail(Call::Accept, nth, 24);
        }
        let log = Log::default();
        let mut context = context(&net, &log);
        let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
        context.create_vhost(config.listen(addr())).unwrap();
        let mut peers = Vec::new();
        for _ in 0..1000 {
            // Each one is an event of the listener.
            peers.extend(net.dial(addr()));
            net.advance(Duration::from_millis(10));
            context.service(Some(Duration::ZERO)).unwrap();
        }
        let calls = net.calls(Call::Accept);
        assert!(
            (10..=250).contains(&calls),
            "{calls} accepts in ten seconds"
        );
    }

    #[test]
    fn rs_02_a_listener_that_is_broken_is_given_up_and_the_rest_goes_on() {
        for errno in FATAL {
            let (told, served, mut context) = meet_three(2, errno);
            assert_eq!(served, 1, "{errno}: whoever was accepted before");
            let trouble: Vec<_> = told
                .iter()
                .filter(|line| line.starts_with("trouble"))
                .collect();
            assert_eq!(trouble.len(), 1, "{errno} {trouble:?}");
            assert!(
                trouble[0].ends_with("None"),
                "it never comes back: {trouble:?}"
            );
            turn(&mut context);
        }
    }
}
