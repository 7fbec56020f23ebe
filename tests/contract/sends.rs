//! What `send_*` answers, and how messages arrive.

use bytes::Bytes;
use wsloop::{Close, Fin, Limits, Message, MessageKind, Queued, SendError, VhostConfig, Wsi};

use crate::support::{Log, Recorder, World, addr, close_payload, masked, plain, request};
use crate::{Site, Slot};

/// A world whose protocol does `act` on its first message.
fn on_first(limits: Limits, act: impl FnOnce(&mut Wsi<'_>) + Send + 'static) -> World {
    let mut act = Some(act);
    World::with(|log| {
        let recorder = Recorder {
            message: Some(Box::new(move |wsi, _| {
                if let Some(act) = act.take() {
                    act(wsi);
                }
                Ok(())
            })),
            ..Recorder::new(log)
        };
        VhostConfig::new("a.test")
            .listen(addr())
            .limits(limits)
            .protocol("p", recorder)
    })
}

/// Runs `act` inside `on_message`; what the peer gets.
fn wire_of(limits: Limits, act: impl FnOnce(&mut Wsi<'_>) + Send + 'static) -> Vec<u8> {
    let mut world = on_first(limits, act);
    let peer = world.open();
    peer.write(&masked(0x81, b"go")).unwrap();
    world.turn();
    assert_eq!(
        world.log.take(),
        ["text \"go\""],
        "the callback ran to its end"
    );
    peer.read()
}

#[test]
fn fr_18_an_accepted_send_says_how_much_waits_and_lengths_are_minimal() {
    for len in [0usize, 1, 125, 126, 65_535, 65_536] {
        let header = match len {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        let wire = wire_of(Limits::default(), move |wsi| {
            let queued: Queued = wsi.send_binary(&vec![3; len]).unwrap();
            assert_eq!(queued.buffered, header + len);
            assert_eq!(wsi.buffered_out(), header + len);
        });
        // The simulated system holds 64 KiB; what was beyond that follows.
        assert_eq!(
            wire[..1.max(header)],
            plain(0x82, &vec![3; len])[..header],
            "{len}"
        );
    }
}

#[test]
fn a_full_queue_refuses_and_hands_an_owned_message_back() {
    let limits = Limits::default().with_output_bytes(100);
    let wire = wire_of(limits, |wsi| {
        wsi.send_binary(&[1; 80]).unwrap();
        let full = SendError::Full {
            buffered: 82,
            limit: 100,
        };
        assert_eq!(wsi.send_binary(&[2; 19]), Err(full));
        assert_eq!(wsi.send_text(&"x".repeat(19)), Err(full));
        assert_eq!(wsi.send(Message::Binary(&[2; 19])), Err(full));
        assert_eq!(wsi.send_ping(&[0; 19]), Err(full));
        assert_eq!(
            wsi.send_fragment(MessageKind::Text, &[b'x'; 19], Fin::More),
            Err(full)
        );
        let bytes = Bytes::from(vec![9; 19]);
        let unsent = wsi.send_bytes(bytes.clone()).unwrap_err();
        assert_eq!((unsent.error, unsent.message), (full, bytes));
        for len in [19, 50_000] {
            let text = "y".repeat(len);
            let unsent = wsi.send_string(text.clone()).unwrap_err();
            assert_eq!((unsent.error, unsent.message), (full, text));
        }
        // What still fits is taken.
        assert_eq!(wsi.send_binary(&[3; 18]).unwrap().buffered, 102);
    });
    let mut expected = plain(0x82, &[1; 80]);
    expected.extend(plain(0x82, &[3; 18]));
    assert_eq!(wire, expected, "nothing of a refused message was sent");
}

/// Whether it was copied must not count.
#[test]
fn what_was_sent_back_fills_the_queue_like_any_other_message() {
    let taken = |pieces: usize, copies: bool| {
        let (tell, told) = std::sync::mpsc::channel();
        let mut world = World::with(|log| {
            let limits = Limits::default().with_output_bytes(60_000);
            let recorder = Recorder {
                message: Some(Box::new(move |wsi, message| {
                    let copy = message.as_bytes().to_vec();
                    wsi.send(if copies {
                        Message::Binary(&copy)
                    } else {
                        message
                    })?;
                    let mut queued = 0;
                    let full = loop {
                        match wsi.send_binary(&[7; 99]) {
                            Ok(_) => queued += 1,
                            Err(error) => break error,
                        }
                    };
                    tell.send((queued, full)).unwrap();
                    Ok(())
                })),
                ..Recorder::new(log)
            };
            let config = VhostConfig::new("a.test").listen(addr());
            config.limits(limits).protocol("p", recorder)
        });
        let peer = world.open();
        let frame = masked(0x82, &[1; 50_000]);
        for piece in frame.chunks(frame.len().div_ceil(pieces)) {
            peer.write(piece).unwrap();
            world.turn();
        }
        told.recv().unwrap()
    };
    for pieces in [1, 3] {
        let copied = taken(pieces, true);
        let full = SendError::Full {
            buffered: 50_004 + 98 * 101,
            limit: 60_000,
        };
        assert_eq!(copied, (98, full));
        assert_eq!(taken(pieces, false), copied, "{pieces} pieces");
    }
}

#[test]
fn fr_18_an_empty_queue_accepts_any_message_within_the_message_limit() {
    let limits = Limits::default()
        .with_output_bytes(10)
        .with_message_bytes(5000);
    let wire = wire_of(limits, |wsi| {
        let too_large = SendError::TooLarge {
            len: 5001,
            limit: 5000,
        };
        assert_eq!(wsi.send_binary(&[0; 5001]), Err(too_large));
        let bytes = Bytes::from(vec![0; 5001]);
        assert_eq!(wsi.send_bytes(bytes).unwrap_err().error, too_large);
        let unsent = wsi.send_string("z".repeat(5001)).unwrap_err();
        assert_eq!((unsent.error, unsent.message.len()), (too_large, 5001));
        wsi.send_binary(&[4; 5000]).unwrap();
        assert!(matches!(wsi.send_binary(&[5]), Err(SendError::Full { .. })));
    });
    assert_eq!(wire, plain(0x82, &[4; 5000]));
}

#[test]
fn after_a_close_or_abort_every_send_answers_closing() {
    for abort in [false, true] {
        let mut world = on_first(Limits::default(), move |wsi| {
            if abort {
                wsi.abort();
            } else {
                wsi.close(Close::normal());
            }
            assert_eq!(wsi.send_text("x"), Err(SendError::Closing));
            assert_eq!(wsi.send_binary(b"x"), Err(SendError::Closing));
            assert_eq!(wsi.send_ping(b"x"), Err(SendError::Closing));
            let unsent = wsi.send_bytes(Bytes::from_static(b"x")).unwrap_err();
            assert_eq!(
                (unsent.error, &*unsent.message),
                (SendError::Closing, &b"x"[..])
            );
            let unsent = wsi.send_string("x".to_owned()).unwrap_err();
            assert_eq!((unsent.error, &*unsent.message), (SendError::Closing, "x"));
            let part = wsi.send_fragment(MessageKind::Text, b"x", Fin::Last);
            assert_eq!(part, Err(SendError::Closing));
        });
        let peer = world.open();
        peer.write(&masked(0x81, b"go")).unwrap();
        world.turn();
        let expected = if abort {
            Vec::new()
        } else {
            plain(0x88, &close_payload(1000, ""))
        };
        assert_eq!(peer.read(), expected, "abort: {abort}");
    }
}

#[test]
fn after_the_peers_close_sends_answer_closing() {
    let answers = Slot::new();
    let seen = answers.clone();
    let mut world = World::new(|log| Recorder {
        peer_close: Some(Box::new(move |wsi| {
            seen.put(wsi.send_text("x"));
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
    world.turn();
    assert_eq!(answers.take(), [Err(SendError::Closing)]);
    assert_eq!(peer.read(), plain(0x88, &close_payload(1000, "")));
}

#[test]
fn an_open_fragmented_message_keeps_others_out_but_not_pings() {
    let wire = wire_of(Limits::default(), |wsi| {
        wsi.send_fragment(MessageKind::Text, b"on", Fin::More)
            .unwrap();
        assert_eq!(wsi.send_text("x"), Err(SendError::FragmentOpen));
        assert_eq!(wsi.send_binary(b"x"), Err(SendError::FragmentOpen));
        let unsent = wsi.send_bytes(Bytes::from_static(b"x")).unwrap_err();
        assert_eq!(unsent.error, SendError::FragmentOpen);
        let other = wsi.send_fragment(MessageKind::Binary, b"x", Fin::Last);
        assert_eq!(other, Err(SendError::FragmentOpen));
        wsi.send_ping(b"p").unwrap();
        wsi.send_fragment(MessageKind::Text, b"e", Fin::More)
            .unwrap();
        wsi.send_fragment(MessageKind::Text, b"", Fin::Last)
            .unwrap();
        wsi.send_text("two").unwrap();
    });
    let expected = [
        plain(0x01, b"on"),
        plain(0x89, b"p"),
        plain(0x00, b"e"),
        plain(0x80, b""),
        plain(0x81, b"two"),
    ];
    assert_eq!(wire, expected.concat());
}

#[test]
fn a_ping_payload_is_at_most_125_bytes() {
    let wire = wire_of(Limits::default(), |wsi| {
        let refused = wsi.send_ping(&[0; 126]);
        assert_eq!(refused, Err(SendError::ControlTooLong { len: 126 }));
        wsi.send_ping(&[1; 125]).unwrap();
    });
    assert_eq!(wire, plain(0x89, &[1; 125]));
}

#[test]
fn a_pong_to_our_ping_brings_the_round_trip_and_others_do_not() {
    let mut world = on_first(Limits::default(), |wsi| {
        wsi.send_ping(b"abc").unwrap();
    });
    let peer = world.open();
    peer.write(&masked(0x81, b"go")).unwrap();
    world.turn();
    world.net.advance(std::time::Duration::from_millis(30));
    peer.write(&masked(0x8a, b"other")).unwrap();
    peer.write(&masked(0x8a, b"abc")).unwrap();
    peer.write(&masked(0x8a, b"abc")).unwrap();
    world.turn();
    assert_eq!(
        world.log.take()[1..],
        [
            "pong [6f, 74, 68, 65, 72] None",
            "pong [61, 62, 63] Some(30ms)",
            "pong [61, 62, 63] None",
        ]
    );
}

#[test]
fn a_stale_id_reaches_nobody() {
    let mut site = Site::new(Recorder::new);
    let peer = site.world.open();
    let id = site.id();
    drop(peer);
    site.world.turn();
    // The slot is in use again, by somebody else.
    let other = site.world.open();
    assert_ne!(site.id(), id);
    site.act(|cx| {
        assert!(cx.peer(id).is_none());
        assert!(cx.close(id, Close::normal()).is_err());
        assert!(cx.abort(id).is_err());
    });
    site.world.turn();
    assert_eq!(other.read(), b"");
    assert_eq!(site.ids().len(), 1);
}

#[test]
fn a_question_mark_on_a_failed_send_closes_with_a_code_that_fits() {
    type Act = fn(&mut Wsi<'_>) -> Result<(), Close>;
    let full: Act = |wsi| {
        for _ in 0..3 {
            wsi.send_binary(&[0; 60])?;
        }
        Ok(())
    };
    let owned: Act = |wsi| {
        for _ in 0..3 {
            wsi.send_bytes(Bytes::from_static(&[0; 60]))?;
        }
        Ok(())
    };
    let too_large: Act = |wsi| {
        wsi.send_binary(&[0; 2000])?;
        Ok(())
    };
    for (name, act, code) in [
        ("full", full, 1013),
        ("owned", owned, 1013),
        ("large", too_large, 1011),
    ] {
        let limits = Limits::default()
            .with_output_bytes(100)
            .with_message_bytes(1000);
        let mut world = World::with(|log| {
            let recorder = Recorder {
                message: Some(Box::new(move |wsi, _| act(wsi))),
                ..Recorder::new(log)
            };
            VhostConfig::new("a.test")
                .listen(addr())
                .limits(limits)
                .protocol("p", recorder)
        });
        let peer = world.open();
        peer.write(&masked(0x81, b"go")).unwrap();
        world.turn();
        peer.read();
        peer.write(&masked(0x88, &close_payload(code, ""))).unwrap();
        world.turn();
        let lines = world.log.take();
        let expected = format!("closed Local closed by the application, code {code} ");
        assert!(lines[1].starts_with(&expected), "{name}: {lines:?}");
        assert!(lines[1].ends_with(", clean"), "{name}: {lines:?}");
    }
}

fn chunk_world() -> World {
    World::with(|log: &Log| {
        let mut config = VhostConfig::new("a.test").listen(addr());
        config.add_chunk_protocol("p", Recorder::new(log));
        config
    })
}

#[test]
fn a_chunk_protocol_gets_pieces_as_they_arrive() {
    let mut world = chunk_world();
    let peer = world.open();
    let mut bytes = masked(0x02, &[1, 2, 3]);
    bytes.extend(masked(0x89, b"?"));
    bytes.extend(masked(0x80, &[4]));
    let (a, b) = bytes.split_at(7);
    peer.write(a).unwrap();
    world.turn();
    peer.write(b).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x8a, b"?"));
    let lines = world.log.take();
    assert_eq!(
        lines,
        [
            "chunk Binary first=true last=false [01]",
            "chunk Binary first=false last=false [02, 03]",
            "chunk Binary first=false last=true [04]",
        ]
    );
    peer.write(&masked(0x81, b"")).unwrap();
    world.turn();
    assert_eq!(world.log.take(), ["chunk Text first=true last=true []"]);
    peer.write(&masked(0x01, b"ok")).unwrap();
    peer.write(&masked(0x80, &[0xff])).unwrap();
    world.turn();
    let lines = world.log.take();
    assert_eq!(lines[0], "chunk Text first=true last=false [6f, 6b]");
    assert!(
        lines[1].starts_with("closed Local protocol error: invalid UTF-8"),
        "{lines:?}"
    );
}

#[test]
fn a_message_over_the_limit_closes_with_1009_in_either_delivery() {
    for chunks in [false, true] {
        let limits = Limits::default().with_message_bytes(10);
        let mut world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr()).limits(limits);
            if chunks {
                config.add_chunk_protocol("p", Recorder::new(log));
            } else {
                config.add_protocol("p", Recorder::new(log));
            }
            config
        });
        let peer = world.dial();
        peer.write(&request("/")).unwrap();
        peer.write(&masked(0x02, &[0; 6])).unwrap();
        peer.write(&masked(0x80, &[0; 5])).unwrap();
        world.turn();
        let lines = world.log.take();
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with("binary"))
                .count(),
            0
        );
        let end = lines.last().unwrap();
        assert!(end.contains("code 1009"), "chunks {chunks}: {lines:?}");
    }
}
