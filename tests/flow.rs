//! Backpressure, pausing, pongs, shutdown, fairness.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use support::{Log, Recorder, World, addr, close_payload, masked, plain, request};
use wsloop::sim::{Call, Selector, SimPeer};
use wsloop::{
    Accept, ClientConnectInfo, Close, CloseCode, ContextConfig, Cx, Fin, Limits, MessageKind, Peer,
    ProtocolHandle, SendError, VhostConfig, WsiId,
};

struct Site {
    world: World,
    handle: ProtocolHandle<Recorder>,
}

impl Site {
    fn new(make: impl FnOnce(&Log) -> Recorder) -> Self {
        Self::with(Limits::default(), make)
    }

    fn with(limits: Limits, make: impl FnOnce(&Log) -> Recorder) -> Self {
        let mut handle = None;
        let world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr()).limits(limits);
            handle = Some(config.add_protocol("p", make(log)));
            config
        });
        Self {
            world,
            handle: handle.expect("World::with makes the vhost"),
        }
    }

    fn act<R>(&mut self, f: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        self.world
            .context
            .with_protocol(self.handle, |_, cx| f(cx))
            .unwrap()
    }

    fn id(&mut self) -> WsiId {
        let mut ids = Vec::new();
        self.act(|cx| cx.for_each_peer(|peer| ids.push(peer.id())));
        assert_eq!(ids.len(), 1);
        ids[0]
    }

    /// Acts on the only connection.
    fn peer<R>(&mut self, f: impl FnOnce(&mut Peer<'_>) -> R) -> R {
        let id = self.id();
        self.act(|cx| f(&mut cx.peer(id).unwrap()))
    }
}

/// Reads everything that comes, in pieces.
fn drain(world: &mut World, peer: &SimPeer, piece: usize) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        world.turn();
        let new = peer.read_up_to(piece);
        if new.is_empty() {
            return got;
        }
        got.extend(new);
    }
}

#[test]
fn a_slow_reader_fills_the_queue_and_gets_what_was_accepted_in_order() {
    let mut site = Site::with(Limits::default().with_output_bytes(10_000), Recorder::new);
    site.world.net.set_capacity(2000);
    let peer = site.world.open();
    let mut accepted = Vec::new();
    for n in 0..100u8 {
        match site.peer(|peer| peer.send_binary(&[n; 500])) {
            Ok(queued) => {
                assert!(queued.buffered <= 10_004);
                accepted.extend(plain(0x82, &[n; 500]));
            }
            Err(SendError::Full { buffered, limit }) => {
                assert!(buffered + 500 > limit && limit == 10_000);
            }
            Err(other) => panic!("{other}"),
        }
        site.world.turn();
    }
    let got = drain(&mut site.world, &peer, 333);
    assert!(got == accepted, "{} of {} bytes", got.len(), accepted.len());
    assert!(got.len() > 11_000 && got.len() < 13_000);
}

#[test]
fn on_writable_comes_once_per_request_at_the_low_water_mark() {
    let mut limits = Limits::default();
    limits.output_low_water = 1000;
    let mut site = Site::with(limits, Recorder::new);
    site.world.net.set_capacity(1000);
    let peer = site.world.open();
    site.peer(|peer| {
        peer.send_binary(&[1; 4996]).unwrap();
        peer.request_writable();
        peer.request_writable();
    });
    site.world.turn();
    let mut came_at = None;
    for read in 1..=50 {
        let before = site.peer(|peer| peer.buffered_out());
        assert_eq!(
            site.world.log.count("writable") > 0,
            before <= 1000,
            "{before} bytes wait"
        );
        if before <= 1000 && came_at.is_none() {
            came_at = Some(read);
        }
        peer.read_up_to(100);
        site.world.turn();
    }
    assert!(came_at.is_some_and(|read| read > 25), "{came_at:?}");
    assert_eq!(site.world.log.take(), ["writable"], "once");
    // At once if little waits, and again only when asked again.
    site.peer(|peer| peer.request_writable());
    assert_eq!(site.world.log.take(), [""; 0]);
    site.world.turn();
    assert_eq!(site.world.log.take(), ["writable"]);
}

#[test]
fn on_writable_that_sends_and_asks_again_writes_a_long_stream_with_little_memory() {
    let mut left = 200u8;
    let mut limits = Limits::default();
    limits.output_low_water = 1000;
    let limits = limits.with_output_bytes(8000);
    let mut site = Site::with(limits, |log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.request_writable();
            Ok(())
        })),
        writable: Some(Box::new(move |wsi| {
            while left > 0 {
                match wsi.send_binary(&[left; 3000]) {
                    Ok(_) => left -= 1,
                    Err(SendError::Full { .. }) => {
                        wsi.request_writable();
                        return Ok(());
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            wsi.close(Close::normal());
            Ok(())
        })),
        ..Recorder::new(log)
    });
    site.world.net.set_capacity(1500);
    let peer = site.world.dial();
    peer.write(&request("/")).unwrap();
    let mut got = Vec::new();
    let mut most = 0;
    loop {
        site.world.turn();
        most = most.max(site.world.context.memory());
        let new = peer.read_up_to(700);
        if new.is_empty() {
            break;
        }
        got.extend(new);
    }
    let frames: Vec<u8> = (1..=200u8)
        .rev()
        .flat_map(|n| plain(0x82, &[n; 3000]))
        .collect();
    let tail = [frames, plain(0x88, &close_payload(1000, ""))].concat();
    assert!(got.ends_with(&tail), "{} bytes", got.len());
    assert!(most < 40_000, "{most} bytes held");
}

#[test]
fn a_writable_that_always_asks_again_does_not_keep_the_loop_busy() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.request_writable();
            Ok(())
        })),
        writable: Some(Box::new(|wsi| {
            wsi.request_writable();
            Ok(())
        })),
        ..Recorder::echo(log)
    });
    let _busy = world.open();
    for _ in 0..20 {
        world.log.take();
        world.context.service(Some(Duration::ZERO)).unwrap();
        assert!(world.log.count("writable") <= 2, "{:?}", world.log.lines());
    }
    let other = world.open();
    other.write(&masked(0x81, b"hi")).unwrap();
    world.turn();
    assert_eq!(other.read(), plain(0x81, b"hi"));
}

/// A recorder that pauses at the message "pause".
fn pausing(log: &Log) -> Recorder {
    Recorder {
        message: Some(Box::new(|wsi, message| {
            if message.as_bytes() == b"pause" {
                wsi.pause_reading();
            }
            Ok(())
        })),
        ..Recorder::new(log)
    }
}

#[test]
fn while_paused_nothing_is_delivered_and_afterwards_everything_in_order() {
    // Frames behind the pause in the same segment, short and long, whole and half.
    let short = masked(0x81, b"a");
    let long = masked(0x81, &[b'b'; 300]);
    let half = long[..150].to_vec();
    let begun = short[..3].to_vec();
    for (name, behind) in [
        ("nothing", Vec::new()),
        ("short", short.clone()),
        ("two short", [short.clone(), short.clone()].concat()),
        ("long", long.clone()),
        ("half a header", begun),
        ("half a frame", half),
        (
            "mixed",
            [short.clone(), long.clone(), short.clone()].concat(),
        ),
    ] {
        let mut site = Site::new(pausing);
        let peer = site.world.open();
        let mut bytes = masked(0x81, b"pause");
        bytes.extend(&behind);
        let all = [
            short.clone(),
            long.clone(),
            short.clone(),
            masked(0x89, b"?"),
        ]
        .concat();
        // What follows completes what is half.
        let rest = match name {
            "half a header" => [&short[3..], &all[..]].concat(),
            "half a frame" => [&long[150..], &all[..]].concat(),
            _ => all.clone(),
        };
        peer.write(&bytes).unwrap();
        site.world.turn();
        peer.write(&rest).unwrap();
        site.world.pass(Duration::from_secs(100));
        assert_eq!(site.world.log.take(), ["text \"pause\""], "{name}");
        assert_eq!(peer.read(), b"", "{name}: not even a ping is answered");
        site.peer(|peer| peer.resume_reading());
        site.world.turn();
        let mut expected = Vec::new();
        let a = "text \"a\"".to_owned();
        let b = format!("text {:?}", "b".repeat(300));
        match name {
            "nothing" => {}
            "short" | "half a header" => expected.push(a.clone()),
            "two short" => expected.extend([a.clone(), a.clone()]),
            "long" | "half a frame" => expected.push(b.clone()),
            _ => expected.extend([a.clone(), b.clone(), a.clone()]),
        }
        expected.extend([a.clone(), b, a]);
        assert_eq!(site.world.log.take(), expected, "{name}");
        assert_eq!(peer.read(), plain(0x8a, b"?"), "{name}");
    }
}

#[test]
fn what_lies_aside_is_delivered_on_resuming_without_anything_new() {
    for payload in [&b"a"[..], &[b'b'; 7], &[b'c'; 8], &[b'd'; 200]] {
        let mut site = Site::new(pausing);
        let peer = site.world.open();
        let bytes = [masked(0x81, b"pause"), masked(0x81, payload)].concat();
        peer.write(&bytes).unwrap();
        site.world.turn();
        site.world.log.take();
        site.peer(|peer| peer.resume_reading());
        site.world.turn();
        assert_eq!(site.world.log.count("text"), 1, "{} bytes", payload.len());
    }
}

#[test]
fn pausing_and_resuming_for_every_message_keeps_them_all() {
    let mut site = Site::new(|log| Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.pause_reading();
            wsi.request_writable();
            Ok(())
        })),
        writable: Some(Box::new(|wsi| {
            wsi.resume_reading();
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = site.world.open();
    let mut bytes = Vec::new();
    for n in 0..100u8 {
        bytes.extend(masked(0x82, &[n]));
    }
    bytes.extend(masked(0x88, &close_payload(1000, "")));
    peer.write(&bytes).unwrap();
    for _ in 0..20 {
        site.world.turn();
    }
    let lines = site.world.log.take();
    let data: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("binary"))
        .cloned()
        .collect();
    let expected: Vec<_> = (0..100u8).map(|n| format!("binary [{n:02x}]")).collect();
    assert_eq!(data, expected);
    assert_eq!(
        lines.last().unwrap(),
        "closed Peer closed by the peer, code 1000, clean"
    );
}

#[test]
fn a_paused_connection_is_not_read_so_the_peer_has_to_wait() {
    let mut site = Site::new(pausing);
    let peer = site.world.open();
    peer.write(&masked(0x81, b"pause")).unwrap();
    site.world.turn();
    let before = site.world.context.memory();
    for _ in 0..100 {
        peer.write(&masked(0x82, &[0; 10_000])).unwrap();
        site.world.turn();
    }
    assert!(site.world.context.memory() - before < 1000);
    site.peer(|peer| peer.resume_reading());
    site.world.turn();
    assert_eq!(site.world.log.count("binary"), 100);
}

#[test]
fn the_peers_close_during_a_pause_is_seen_after_what_came_before_it() {
    for in_one_segment in [true, false] {
        let mut site = Site::new(pausing);
        let peer = site.world.open();
        let mut bytes = masked(0x81, b"pause");
        let behind = [
            masked(0x81, b"last"),
            masked(0x88, &close_payload(1000, "")),
        ]
        .concat();
        if in_one_segment {
            bytes.extend(behind);
            peer.write(&bytes).unwrap();
        } else {
            peer.write(&bytes).unwrap();
            site.world.turn();
            peer.write(&behind).unwrap();
        }
        peer.shutdown_write();
        site.world.pass(Duration::from_secs(50));
        assert_eq!(site.world.log.take(), ["text \"pause\""]);
        site.peer(|peer| peer.resume_reading());
        site.world.turn();
        assert_eq!(
            site.world.log.take(),
            [
                "text \"last\"",
                "peer_close Some(\"1000 \\\"\\\"\")",
                "closed Peer closed by the peer, code 1000, clean"
            ]
        );
        assert_eq!(peer.read(), plain(0x88, &close_payload(1000, "")));
    }
}

/// Says something that the system refuses to take.
fn write_in_vain(site: &mut Site) {
    let net = site.world.net.clone();
    net.fail(
        Call::Write,
        net.calls(Call::Write) + 1,
        ErrorKind::BrokenPipe,
    );
    site.peer(|peer| peer.send_text("are you there").unwrap());
    site.world.turn();
}

/// A paused connection whose peer has said something more, and a goodbye.
fn paused_with_more(in_one_segment: bool) -> (Site, SimPeer) {
    let mut site = Site::new(pausing);
    let peer = site.world.open();
    let bytes = masked(0x81, b"pause");
    let more = [
        masked(0x81, b"last"),
        masked(0x88, &close_payload(3000, "bye")),
    ]
    .concat();
    if in_one_segment {
        peer.write(&[bytes, more].concat()).unwrap();
    } else {
        peer.write(&bytes).unwrap();
        site.world.turn();
        peer.write(&more).unwrap();
    }
    site.world.turn();
    assert_eq!(site.world.log.take(), ["text \"pause\""]);
    (site, peer)
}

#[test]
fn a_write_that_fails_during_a_pause_does_not_lose_what_the_peer_said_before() {
    for in_one_segment in [true, false] {
        let (mut site, peer) = paused_with_more(in_one_segment);
        write_in_vain(&mut site);
        site.world.pass(Duration::from_secs(20));
        assert_eq!(site.world.log.take(), [""; 0], "it waits");
        site.peer(|peer| peer.resume_reading());
        site.world.turn();
        let lines = site.world.log.take();
        assert_eq!(
            lines[..2],
            ["text \"last\"", "peer_close Some(\"3000 \\\"bye\\\"\")"]
        );
        let end = "closed Peer closed by the peer, code 3000 \"bye\", not clean, ";
        assert!(lines[2].starts_with(end) && lines.len() == 3, "{lines:?}");
        assert_eq!(site.world.context.connections(), 0);
        drop(peer);
    }
}

#[test]
fn who_does_not_resume_hears_of_a_failed_write_at_the_deadline_of_output() {
    for in_one_segment in [true, false] {
        let (mut site, peer) = paused_with_more(in_one_segment);
        write_in_vain(&mut site);
        site.world.pass(Duration::from_secs(29));
        assert_eq!(site.world.log.take(), [""; 0]);
        site.world.pass(Duration::from_secs(2));
        let lines = site.world.log.take();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let expected = "closed Peer transport error: broken pipe, code 1006, not clean, ";
        assert!(lines[0].starts_with(expected), "{lines:?}");
        assert_eq!(site.world.context.connections(), 0);
        drop(peer);
    }
}

#[test]
fn a_write_that_fails_during_a_pause_with_nothing_left_to_hear_ends_at_once() {
    let mut site = Site::new(pausing);
    let peer = site.world.open();
    peer.write(&masked(0x81, b"pause")).unwrap();
    site.world.turn();
    site.world.log.take();
    write_in_vain(&mut site);
    let lines = site.world.log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = "closed Peer transport error: broken pipe, code 1006, not clean, ";
    assert!(lines[0].starts_with(expected), "{lines:?}");
    drop(peer);
}

#[test]
fn what_a_lost_peer_has_left_is_delivered_message_by_message_in_one_time_for_all() {
    let mut site = Site::new(|log| Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.pause_reading();
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = site.world.open();
    for n in 0..5u8 {
        peer.write(&masked(0x82, &[n; 40])).unwrap();
    }
    site.world.turn();
    write_in_vain(&mut site);
    for _ in 0..3 {
        site.world.pass(Duration::from_secs(9));
        site.peer(|peer| peer.resume_reading());
    }
    site.world.pass(Duration::from_secs(4));
    let lines = site.world.log.take();
    assert_eq!(lines.len(), 5, "four messages and the end: {lines:?}");
    assert!(lines[4].starts_with("closed Peer transport error: broken pipe"));
    drop(peer);
}

#[test]
fn a_reset_during_a_pause_is_told_at_once() {
    let mut site = Site::new(pausing);
    let peer = site.world.open();
    peer.write(&masked(0x81, b"pause")).unwrap();
    site.world.turn();
    site.world.log.take();
    peer.reset();
    site.world.turn();
    let lines = site.world.log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = "closed Peer transport error: connection reset, code 1006, not clean";
    assert_eq!(lines, [expected]);
    assert_eq!(site.world.context.connections(), 0);
}

#[test]
fn what_came_with_the_pause_is_delivered_after_a_reset_too() {
    for resumes in [true, false] {
        let (mut site, peer) = paused_with_more(true);
        peer.reset();
        site.world.pass(Duration::from_secs(29));
        assert_eq!(site.world.log.take(), [""; 0]);
        if resumes {
            site.peer(|peer| peer.resume_reading());
            site.world.turn();
            let lines = site.world.log.take();
            assert_eq!(lines[0], "text \"last\"", "{lines:?}");
            let end = "closed Peer closed by the peer, code 3000 \"bye\"";
            assert!(lines[2].starts_with(end), "{lines:?}");
        } else {
            site.world.pass(Duration::from_secs(2));
            let lines = site.world.log.take();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].starts_with("closed Peer transport error: "));
        }
        assert_eq!(site.world.context.connections(), 0);
    }
}

#[test]
fn closing_while_paused_completes_the_handshake_and_delivers_nothing_more() {
    let mut site = Site::new(pausing);
    let peer = site.world.open();
    peer.write(&[masked(0x81, b"pause"), masked(0x81, b"no")].concat())
        .unwrap();
    site.world.turn();
    peer.write(&masked(0x81, &[b'n'; 200])).unwrap();
    site.peer(|peer| peer.close(Close::normal()));
    site.world.turn();
    peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
    site.world.turn();
    assert_eq!(
        site.world.log.take(),
        [
            "text \"pause\"",
            "closed Local closed by the application, code 1000, clean"
        ]
    );
}

#[test]
fn every_ping_is_answered_in_order_while_the_peer_reads() {
    let mut world = World::new(Recorder::new);
    let peer = world.open();
    let mut pings = Vec::new();
    let mut pongs = Vec::new();
    for n in 0..200u8 {
        pings.extend(masked(0x89, &[n]));
        pongs.extend(plain(0x8a, &[n]));
    }
    peer.write(&pings).unwrap();
    world.turn();
    assert_eq!(peer.read(), pongs);
}

/// What has come of a control frame is kept, and what comes next is the rest of it.
#[test]
fn p6_a_control_frame_cut_anywhere_is_one_though_its_rest_looks_like_a_message() {
    let inner = masked(0x82, b"no message");
    let mut ping = vec![0x89, 0x80 | inner.len() as u8, 0, 0, 0, 0];
    ping.extend(&inner);
    for selector in [Selector::Epoll, Selector::Poll] {
        for cut in 1..ping.len() {
            let mut site = Site::new(Recorder::echo);
            site.world.net.set_selector(selector);
            let peer = site.world.open();
            let (begin, rest) = ping.split_at(cut);
            for piece in [begin, rest, &masked(0x81, b"a message")] {
                peer.write(piece).unwrap();
                site.world.turn();
            }
            let told = site.world.log.take();
            assert_eq!(told, ["text \"a message\""], "cut at {cut}");
            let expected = [plain(0x8a, &inner), plain(0x81, b"a message")].concat();
            assert_eq!(peer.read(), expected, "cut at {cut}");
        }
    }
}

#[test]
fn unsent_pongs_are_bounded_and_past_the_cap_only_the_latest_ping_is_answered() {
    let mut world = World::new(Recorder::new);
    let peer = world.open();
    world.net.set_capacity(10);
    let before = world.context.memory();
    for n in 0..5000u32 {
        let mut payload = vec![0; 100];
        payload[..4].copy_from_slice(&n.to_be_bytes());
        peer.write(&masked(0x89, &payload)).unwrap();
        world.context.service(Some(Duration::ZERO)).unwrap();
    }
    let grown = world.context.memory() - before;
    assert!(grown < 20_000, "{grown} bytes for pongs");
    world.net.set_capacity(64 * 1024);
    let mut got = drain(&mut world, &peer, 4096);
    let mut numbers = Vec::new();
    while let [0x8a, 100, rest @ ..] = got.as_slice() {
        numbers.push(u32::from_be_bytes(rest[..4].try_into().unwrap()));
        got = rest[100..].to_vec();
    }
    assert!(got.is_empty());
    assert!(numbers.len() > 10 && numbers.len() < 60, "{numbers:?}");
    let first: Vec<u32> = (0..numbers.len() as u32 - 1).collect();
    assert_eq!(numbers[..numbers.len() - 1], first, "in order");
    assert_eq!(numbers.last(), Some(&4999), "and then the latest");
    // And after that as before.
    peer.write(&masked(0x89, b"again")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x8a, b"again"));
}

#[test]
fn fr_09_pings_are_answered_between_the_fragments_that_we_send() {
    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(|wsi, message| {
            let fin = if message.as_bytes() == b"end" {
                Fin::Last
            } else {
                Fin::More
            };
            wsi.send_fragment(MessageKind::Text, message.as_bytes(), fin)?;
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    for (opcode, payload) in [
        (0x81, &b"one"[..]),
        (0x89, b"?"),
        (0x81, b"two"),
        (0x89, b"!"),
        (0x81, b"end"),
    ] {
        peer.write(&masked(opcode, payload)).unwrap();
    }
    world.turn();
    let expected = [
        plain(0x01, b"one"),
        plain(0x8a, b"?"),
        plain(0x00, b"two"),
        plain(0x8a, b"!"),
        plain(0x80, b"end"),
    ];
    assert_eq!(peer.read(), expected.concat());
}

#[test]
fn large_owned_messages_keep_their_place_among_small_ones_and_are_not_copied() {
    let large = Bytes::from(vec![0xaa; 300_000]);
    let text = "t".repeat(200_000);
    let (sent, words) = (large.clone(), text.clone());
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(move |wsi| {
            wsi.send_text("1")?;
            wsi.send_bytes(sent.clone())?;
            wsi.send_binary(b"2")?;
            wsi.send_string(words.clone())?;
            wsi.send_ping(b"3")?;
            assert!(wsi.memory() < 50_000, "by reference: {}", wsi.memory());
            wsi.send_bytes(Bytes::from_static(b"4"))?;
            wsi.send_string("5".to_owned())?;
            Ok(())
        })),
        ..Recorder::new(log)
    });
    world.net.limit_io(7777);
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    let got = drain(&mut world, &peer, 10_000);
    let expected = [
        plain(0x81, b"1"),
        plain(0x82, &large),
        plain(0x82, b"2"),
        plain(0x81, text.as_bytes()),
        plain(0x89, b"3"),
        plain(0x82, b"4"),
        plain(0x81, b"5"),
    ]
    .concat();
    let start = got.len() - expected.len();
    assert!(got[start..] == expected);
    assert!(got[..start].ends_with(b"\r\n\r\n"));
}

#[test]
fn cl_08_a_close_never_cuts_into_a_frame_that_is_on_its_way() {
    let mut site = Site::new(Recorder::new);
    site.world.net.set_capacity(1000);
    let peer = site.world.open();
    site.peer(|peer| {
        peer.send_binary(&[5; 8000]).unwrap();
    });
    site.world.turn();
    peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
    let got = drain(&mut site.world, &peer, 900);
    let expected = [
        plain(0x82, &[5; 8000]),
        plain(0x88, &close_payload(1000, "")),
    ]
    .concat();
    assert!(got == expected);
    let end = "closed Peer closed by the peer, code 1000, clean";
    assert_eq!(site.world.log.lines().last().unwrap(), end);
}

#[test]
fn cl_07_a_close_behind_blocked_output_gives_up_at_the_deadline_and_counts() {
    let mut site = Site::new(Recorder::new);
    site.world.net.set_capacity(1000);
    let peer = site.world.open();
    site.peer(|peer| {
        peer.send_binary(&[5; 8000]).unwrap();
        peer.close(Close::normal());
    });
    site.world.turn();
    site.world.pass(Duration::from_secs(5));
    site.world.turn();
    let lines = site.world.log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected =
        "closed Local the closing handshake took longer than 5s, code 1006, not clean, 70";
    assert!(lines[0].starts_with(expected), "{lines:?}");
    assert!(lines[0].ends_with(" bytes not delivered"), "{lines:?}");
    drop(peer);
}

#[test]
fn output_of_which_the_peer_takes_nothing_has_a_deadline() {
    let mut limits = Limits::default();
    limits.output_rate = 10;
    let mut site = Site::with(limits, Recorder::new);
    site.world.net.set_capacity(1000);
    let peer = site.world.open();
    site.peer(|peer| {
        peer.send_binary(&[5; 20_000]).unwrap();
    });
    site.world.turn();
    for _ in 0..5 {
        // As long as it takes something and shows that it lives, it stays.
        site.world.pass(Duration::from_secs(20));
        assert!(!peer.read_up_to(500).is_empty());
        peer.write(&masked(0x8a, b"")).unwrap();
        site.world.turn();
    }
    assert_eq!(site.world.log.count("closed"), 0);
    for _ in 0..3 {
        site.world.pass(Duration::from_secs(11));
        peer.write(&masked(0x8a, b"")).unwrap_or_default();
    }
    let lines = site.world.log.take();
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("closed Local writing without progress took longer than 30s"),
        "{last}"
    );
    assert!(last.ends_with(" bytes not delivered"), "{last}");
}

/// RC-08: everybody is told, by the rules of what they are.
#[test]
fn rc_08_a_shutdown_ends_everything_and_run_returns() {
    let mut site = Site::new(|log| Recorder {
        filter: Some(Box::new(|_, request| {
            if request.path() == "/later" {
                return Ok(Accept::later());
            }
            Ok(Accept::new())
        })),
        ..Recorder::new(log)
    });
    site.world
        .net
        .name("slow.test", ["10.0.0.7".parse().unwrap()]);
    site.world.net.name_delay("slow.test", None);
    let silent = site
        .world
        .net
        .listen("10.0.0.7:80".parse().unwrap())
        .unwrap();
    let polite = site.world.open();
    let deaf = site.world.open();
    let waiting = site.world.dial();
    waiting.write(&request("/later")).unwrap();
    let half = site.world.dial();
    half.write(b"GET / HT").unwrap();
    let vhost = site.world.vhost;
    for url in ["ws://slow.test/", "ws://10.0.0.7/"] {
        let info = ClientConnectInfo::from_url(url).unwrap();
        site.world.context.client_connect(vhost, info).unwrap();
    }
    site.world.turn();
    site.world.log.take();
    site.world.context.shutdown(Duration::from_secs(3));
    assert!(
        site.world.net.dial(addr()).is_err(),
        "nobody listens any more"
    );
    site.world.turn();
    assert!(!site.world.context.is_shut_down());
    assert_eq!(polite.read(), plain(0x88, &close_payload(1001, "")));
    polite
        .write(&masked(0x88, &close_payload(1001, "")))
        .unwrap();
    for peer in [&waiting, &half] {
        let answer = String::from_utf8(peer.read()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let begin = site.world.net.elapsed();
    site.world.context.run().unwrap();
    assert!(site.world.context.is_shut_down());
    assert_eq!(
        site.world.net.elapsed() - begin,
        Duration::from_secs(3),
        "the deaf one took it all"
    );
    assert_eq!(deaf.read(), plain(0x88, &close_payload(1001, "")));
    let mut lines = site.world.log.take();
    lines.sort();
    assert_eq!(
        lines,
        [
            "closed Local the context is shutting down, code 1001, clean",
            "closed Local the context is shutting down, code 1001, not clean",
            "connect_error 10.0.0.7:80: response stage: the context is shutting down",
            "connect_error slow.test:80: dns stage: the context is shutting down",
            "refused the context is shutting down or the vhost was destroyed",
            "refused the context is shutting down or the vhost was destroyed",
        ]
    );
    drop(silent);
}

#[test]
fn a_shutdown_of_an_idle_context_is_over_at_once_and_one_from_a_callback_works() {
    let mut world = World::new(Recorder::new);
    world.context.shutdown(Duration::from_secs(60));
    world.context.run().unwrap();
    assert_eq!(world.net.elapsed(), Duration::ZERO);

    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.cx().shutdown(Duration::from_secs(2));
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    peer.write(&masked(0x81, b"stop")).unwrap();
    world.context.run().unwrap();
    assert_eq!(
        world
            .log
            .count("closed Local the context is shutting down, code 1001"),
        1
    );
    assert_eq!(peer.read(), plain(0x88, &close_payload(1001, "")));
}

/// RS-12: who floods does not keep others from their turn.
#[test]
fn rs_12_a_flood_is_cut_at_the_budget_and_others_are_served_in_the_same_turn() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let net = wsloop::sim::Net::new(9);
    let config = ContextConfig::new()
        .turn_budget(10_000)
        .receive_buffer(4096);
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let log = Log::default();
    let recorder = Recorder {
        message: Some(Box::new(move |wsi, message| {
            seen.lock().unwrap().push(message.len());
            wsi.send_text("ok").map(drop).map_err(Close::from)
        })),
        ..Recorder::new(&log)
    };
    context
        .create_vhost(
            VhostConfig::new("a.test")
                .listen(addr())
                .protocol("p", recorder),
        )
        .unwrap();
    let mut peers = Vec::new();
    for _ in 0..4 {
        let peer = net.dial(addr()).unwrap();
        peer.write(&request("/")).unwrap();
        peers.push(peer);
    }
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    let flood: Vec<u8> = (0..1000).flat_map(|_| masked(0x82, &[0; 992])).collect();
    peers[0].write(&flood).unwrap();
    for turn in 0..50 {
        for peer in &peers[1..] {
            peer.read();
            peer.write(&masked(0x82, b"small")).unwrap();
        }
        order.lock().unwrap().clear();
        context.service(Some(Duration::ZERO)).unwrap();
        let order = std::mem::take(&mut *order.lock().unwrap());
        let (large, small): (Vec<_>, Vec<_>) = order.into_iter().partition(|len| *len == 992);
        assert_eq!(small.len(), 3, "turn {turn}: everybody is served");
        assert!(
            (1..=30).contains(&large.len()),
            "turn {turn}: {} of the flood",
            large.len()
        );
        for peer in &peers[1..] {
            assert_eq!(peer.read(), plain(0x81, b"ok"), "turn {turn}");
        }
    }
    for _ in 0..200 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(
        log.count("binary [00, "),
        1000,
        "and nothing of the flood is lost"
    );
}

/// Large payloads leave from where they were received; nobody can tell.
#[test]
fn messages_sent_back_keep_their_order_among_others_whatever_the_system_takes() {
    let lens = [20, 4_096, 5_000, 60_000, 70_000, 300_000, 16_384, 0];
    for capacity in [1_000, 7_001, 100_000, 10_000_000] {
        let limits = Limits::default().with_output_bytes(10_000_000);
        let mut site = Site::with(limits, |_| Recorder {
            message: Some(Box::new(|wsi, message| {
                let payload = message.as_bytes();
                wsi.send_text("before")?;
                wsi.send(message)?;
                wsi.send_binary(&payload[payload.len() / 3..])?;
                wsi.send_text("after")?;
                wsi.send_binary(payload)?;
                Ok(())
            })),
            ..Recorder::default()
        });
        site.world.net.set_capacity(capacity);
        let peer = site.world.open();
        let (mut output, mut expected) = (Vec::new(), Vec::new());
        for (n, len) in lens.into_iter().enumerate() {
            let payload: Vec<u8> = (0..len).map(|at| (at * 7 + n) as u8).collect();
            output.extend(masked(0x82, &payload));
            expected.extend(plain(0x81, b"before"));
            expected.extend(plain(0x82, &payload));
            expected.extend(plain(0x82, &payload[len / 3..]));
            expected.extend(plain(0x81, b"after"));
            expected.extend(plain(0x82, &payload));
        }
        peer.write(&output).unwrap();
        let got = drain(&mut site.world, &peer, 50_000);
        assert!(got == expected, "{} of {}", got.len(), expected.len());
    }
}

#[test]
fn what_was_sent_back_leaves_before_a_close_and_not_after_an_abort() {
    for (abort, len) in [
        (false, 5_000),
        (true, 5_000),
        (false, 300_000),
        (true, 300_000),
    ] {
        let mut site = Site::new(|log| Recorder {
            message: Some(Box::new(move |wsi, message| {
                wsi.send(message)?;
                if abort {
                    wsi.abort();
                } else {
                    wsi.close(CloseCode::NORMAL.into());
                }
                Ok(())
            })),
            ..Recorder::new(log)
        });
        site.world.net.set_capacity(1_000_000);
        let peer = site.world.open();
        let payload = vec![7; len];
        peer.write(&masked(0x82, &payload)).unwrap();
        let got = drain(&mut site.world, &peer, usize::MAX);
        let mut expected = plain(0x82, &payload);
        expected.extend(plain(0x88, &close_payload(1000, "")));
        if abort {
            expected.clear();
        }
        assert!(got == expected, "{} of {}", got.len(), expected.len());
    }
}

/// How an answer gets out must not count for how long it may take.
#[test]
fn every_way_to_send_back_is_held_to_the_same_output_rate() {
    let seconds = |len: usize, cut: usize, copies: bool| {
        let mut limits = Limits::default().with_output_bytes(10_000_000);
        limits.output_rate = 500;
        let mut site = Site::with(limits, move |log| Recorder {
            message: Some(Box::new(move |wsi, message| {
                if copies {
                    wsi.send_fragment(MessageKind::Binary, message.as_bytes(), Fin::Last)?;
                } else {
                    wsi.send(message)?;
                }
                Ok(())
            })),
            ..Recorder::new(log)
        });
        let peer = site.world.open();
        site.world.net.set_capacity(len / 3);
        let frame = masked(0x82, &vec![7; len]);
        let (first, second) = frame.split_at(cut);
        peer.write(first).unwrap();
        site.world.turn();
        peer.write(second).unwrap();
        site.world.turn();
        let mut seconds = 0;
        while site.world.log.count("closed") == 0 && seconds < 1_000 {
            site.world.pass(Duration::from_secs(1));
            peer.read_up_to((len / 200).clamp(1, 250));
            peer.write(&masked(0x8a, b"")).unwrap_or_default();
            site.world.turn();
            seconds += 1;
        }
        let end = site.world.log.take().pop().unwrap();
        assert!(end.contains("took longer than"), "{len}: {end}");
        seconds
    };
    for len in [120, 3_000, 30_000, 200_000] {
        let expected = seconds(len, 20, true);
        for (cut, copies) in [(20, false), (0, true), (0, false)] {
            assert_eq!(seconds(len, cut, copies), expected, "{len}: {cut} {copies}");
        }
    }
}
