//! Established first, exactly one `on_closed` last, in whatever way a connection ends.

use std::time::Duration;

use wsloop::sim::SimPeer;
use wsloop::{Close, CloseCode, Limits, TimerTag, VhostConfig};

use crate::Site;
use crate::support::{
    Log, Observer, Recorder, World, addr, close_payload, masked, plain, request, request_with,
};

/// One way to end a connection. Gives the world back unless that went with it.
type How = fn(Site, SimPeer) -> Option<(Site, SimPeer)>;

/// What they are called, how they come about, and the final event.
type Ends = Vec<(&'static str, How, &'static str)>;

fn ends_by_word() -> Ends {
    vec![
        (
            "peer close",
            |site, peer| {
                peer.write(&masked(0x88, &close_payload(1000, "bye")))
                    .unwrap();
                Some((site, peer))
            },
            "closed Peer closed by the peer, code 1000 \"bye\", clean",
        ),
        (
            "peer close without a code",
            |site, peer| {
                peer.write(&masked(0x88, b"")).unwrap();
                Some((site, peer))
            },
            "closed Peer closed by the peer, code 1005, clean",
        ),
        (
            "local close",
            |mut site, peer| {
                let id = site.id();
                let close = Close::new(CloseCode::POLICY_VIOLATION, "enough");
                site.act(|cx| cx.close(id, close)).unwrap();
                site.world.turn();
                assert_eq!(peer.read(), plain(0x88, &close_payload(1008, "enough")));
                assert_eq!(site.world.log.count("closed"), 0, "the answer is awaited");
                peer.write(&masked(0x88, &close_payload(1008, ""))).unwrap();
                Some((site, peer))
            },
            "closed Local closed by the application, code 1008 \"enough\", clean",
        ),
        (
            "cl_04 no answer to our Close",
            |mut site, peer| {
                let id = site.id();
                site.act(|cx| cx.close(id, Close::normal())).unwrap();
                site.world.turn();
                site.world.pass(Duration::from_millis(4900));
                assert_eq!(site.world.log.count("closed"), 0, "the deadline is 5 s");
                site.world.pass(Duration::from_millis(200));
                Some((site, peer))
            },
            "closed Local the closing handshake took longer than 5s, code 1006, not clean",
        ),
    ]
}

fn ends_without_word() -> Ends {
    vec![
        (
            "protocol error",
            |site, peer| {
                peer.write(&plain(0x81, b"not masked")).unwrap();
                Some((site, peer))
            },
            "closed Local protocol error: unmasked frame from the client, code 1002, not clean",
        ),
        (
            "cl_10 end of stream without a Close",
            |site, peer| {
                peer.shutdown_write();
                Some((site, peer))
            },
            "closed Peer the peer ended the stream without a Close frame, code 1006, not clean",
        ),
        (
            "end of stream while our Close is on its way",
            |mut site, peer| {
                let id = site.id();
                site.act(|cx| cx.close(id, Close::normal())).unwrap();
                site.world.turn();
                peer.shutdown_write();
                Some((site, peer))
            },
            "closed Peer the peer ended the stream without a Close frame, code 1006, not clean",
        ),
        (
            "abort",
            |mut site, peer| {
                let id = site.id();
                site.act(|cx| cx.abort(id)).unwrap();
                Some((site, peer))
            },
            "closed Local aborted by the application, code 1006, not clean",
        ),
        (
            "a message that takes too long",
            |mut site, peer| {
                peer.write(&masked(0x01, b"half")).unwrap();
                for _ in 0..62 {
                    site.world.pass(Duration::from_secs(1));
                    // Bytes keep trickling in; the deadline is a total.
                    peer.write(&masked(0x00, b".")).unwrap_or_default();
                }
                Some((site, peer))
            },
            "closed Local one message took longer than 60s, code 1008 \
             \"the message took too long\", not clean",
        ),
        (
            "tm_04 silence",
            |mut site, peer| {
                site.world.pass(Duration::from_secs(46));
                Some((site, peer))
            },
            "closed Local the peer's silence took longer than 45s, code 1006, not clean",
        ),
    ]
}

fn ends_from_above() -> Ends {
    vec![
        (
            "vhost destroyed",
            |mut site, peer| {
                let vhost = site.world.vhost;
                site.world.context.destroy_vhost(vhost).unwrap();
                site.world.turn();
                assert_eq!(peer.read(), plain(0x88, &close_payload(1001, "")));
                peer.write(&masked(0x88, &close_payload(1001, ""))).unwrap();
                Some((site, peer))
            },
            "closed Local its vhost was destroyed, code 1001, clean",
        ),
        (
            "shutdown",
            |mut site, peer| {
                site.world.context.shutdown(Duration::from_secs(3));
                site.world.turn();
                assert_eq!(peer.read(), plain(0x88, &close_payload(1001, "")));
                peer.write(&masked(0x88, &close_payload(1001, ""))).unwrap();
                Some((site, peer))
            },
            "closed Local the context is shutting down, code 1001, clean",
        ),
        (
            "context dropped",
            |site, _peer| {
                drop(site);
                None
            },
            "closed Local the context was dropped, code 1006, not clean",
        ),
    ]
}

#[test]
fn whatever_ends_a_connection_there_is_one_final_event_and_nothing_after_it() {
    for (name, how, expected) in [ends_by_word(), ends_without_word(), ends_from_above()].concat() {
        let mut site = Site::new(|log| Recorder {
            established: Some(Box::new(|wsi| {
                wsi.set_timer(Duration::from_secs(300), TimerTag(9));
                Ok(())
            })),
            ..Recorder::echo(log)
        });
        let peer = site.world.open();
        let log = site.world.log.clone();
        if let Some((mut site, peer)) = how(site, peer) {
            site.world.turn();
            peer.write(&masked(0x81, b"too late")).unwrap_or_default();
            site.world.turn();
            drop(peer);
            site.world.pass(Duration::from_secs(310));
            assert_eq!(site.world.context.connections(), 0, "{name}");
        }
        let lines = log.lines();
        assert_eq!(
            lines.last().map(String::as_str),
            Some(expected),
            "{name}: {lines:#?}"
        );
        assert_eq!(log.count("closed"), 1, "{name}: {lines:#?}");
        assert_eq!(log.count("text \"too late\""), 0, "{name}: {lines:#?}");
    }
}

#[test]
fn cl_10_a_reset_is_one_final_event_with_its_own_reason() {
    let mut world = World::new(Recorder::echo);
    let peer = world.open();
    peer.reset();
    world.turn();
    let lines = world.log.take();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].starts_with("closed Peer transport error"),
        "{lines:#?}"
    );
    assert!(lines[0].ends_with("code 1006, not clean"), "{lines:#?}");
}

#[test]
fn cl_03_both_sides_closing_at_once_is_one_clean_end() {
    let mut site = Site::new(Recorder::new);
    let peer = site.world.open();
    let id = site.id();
    site.act(|cx| cx.close(id, Close::normal())).unwrap();
    peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
    site.world.turn();
    let lines = site.world.log.take();
    let ends: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("closed"))
        .collect();
    assert!(
        ends.len() == 1 && ends[0].ends_with(", code 1000, clean"),
        "{lines:?}"
    );
    assert_eq!(
        peer.read(),
        plain(0x88, &close_payload(1000, "")),
        "one Close frame, no more"
    );
}

#[test]
fn cl_12_a_close_is_answered_in_the_same_turn_and_told_before_the_end() {
    let mut world = World::new(Recorder::echo);
    let peer = world.open();
    peer.write(&masked(0x88, &close_payload(3001, "why")))
        .unwrap();
    world.context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(peer.read(), plain(0x88, &close_payload(3001, "why")));
    assert!(
        peer.ended(),
        "the server ends the stream first (RFC 6455 section 7.1.1)"
    );
    assert_eq!(
        world.log.take(),
        [
            "peer_close Some(\"3001 \\\"why\\\"\")",
            "closed Peer closed by the peer, code 3001 \"why\", clean",
        ]
    );
}

#[test]
fn established_comes_before_data_that_came_with_the_request() {
    let mut world = World::new(Recorder::echo);
    let peer = world.dial();
    let mut bytes = request("/x");
    bytes.extend(masked(0x81, b"early"));
    bytes.extend(masked(0x88, &close_payload(1000, "")));
    peer.write(&bytes).unwrap();
    world.turn();
    let lines = world.log.take();
    assert_eq!(
        lines[..3],
        ["filter /x", "established /x None", "text \"early\""]
    );
    assert!(lines[4].starts_with("closed"), "{lines:?}");
    assert_eq!(lines.len(), 5, "{lines:?}");
}

/// It is looked at for the peer's Close frame and for nothing else, whoever began to close.
#[test]
fn after_a_local_close_what_the_peer_still_sends_is_neither_judged_nor_kept() {
    for (closer, inside) in [(0, false), (1, false), (1, true), (2, false), (2, true)] {
        let mut world = World::with(|log| {
            let recorder = Recorder {
                established: Some(Box::new(move |wsi| {
                    if closer == 1 {
                        wsi.set_timer(Duration::from_secs(1), TimerTag(1));
                    }
                    Ok(())
                })),
                message: Some(Box::new(move |wsi, _| {
                    if closer == 0 {
                        wsi.close(Close::normal());
                    }
                    Ok(())
                })),
                timer: Some(Box::new(|wsi, _| {
                    wsi.close(Close::normal());
                    Ok(())
                })),
                ..Recorder::new(log)
            };
            let limits = Limits::default().with_message_bytes(200_000);
            let mut config = VhostConfig::new("a.test").listen(addr()).limits(limits);
            config.add_protocol("p", recorder);
            config
        });
        let peer = world.open();
        let long = masked(0x82, &[7; 200_000]);
        let (begin, rest) = long.split_at(if inside { 1_000 } else { 0 });
        let first = if closer == 0 {
            masked(0x81, b"go")
        } else {
            begin.to_vec()
        };
        peer.write(&first).unwrap();
        world.turn();
        if closer == 2 {
            world.context.shutdown(Duration::from_secs(60));
        } else {
            world.pass(Duration::from_secs(1));
        }
        world.turn();
        world.log.take();
        let before = world.context.memory();
        // All but its last bytes: what would be kept is most of it.
        let (most, last) = rest.split_at(rest.len() - 10);
        peer.write(most).unwrap();
        world.turn();
        let kept = world.context.memory().saturating_sub(before);
        assert!(kept < 1_000, "{closer} {inside}: {kept} bytes are kept");
        peer.write(last).unwrap();
        peer.write(&masked(0x81, b"\xff")).unwrap();
        peer.write(&masked(0x82, &[7; 200_001])).unwrap();
        peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
        world.turn();
        let end = world.log.take().pop().unwrap();
        assert!(
            end.ends_with("clean") && !end.contains("not clean"),
            "{closer}: {end}"
        );
    }
}

#[test]
fn after_a_local_close_what_the_peer_still_sends_is_not_delivered() {
    let mut world = World::new(|log| Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.close(Close::normal());
            Ok(())
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    let mut bytes = masked(0x81, b"one");
    for _ in 0..3 {
        bytes.extend(masked(0x81, b"two"));
        bytes.extend(masked(0x8a, b"pong"));
    }
    bytes.extend(masked(0x01, b"half"));
    peer.write(&bytes).unwrap();
    world.turn();
    peer.write(&masked(0x80, b"rest")).unwrap();
    peer.write(&masked(0x82, b"three")).unwrap();
    peer.write(&masked(0x88, &close_payload(1000, ""))).unwrap();
    world.turn();
    assert_eq!(
        world.log.take(),
        [
            "text \"one\"",
            "closed Local closed by the application, code 1000, clean"
        ]
    );
}

#[test]
fn fr_20_bytes_behind_the_peers_close_are_ignored() {
    let mut world = World::new(Recorder::echo);
    let peer = world.open();
    let mut bytes = masked(0x88, &close_payload(1000, ""));
    bytes.extend(masked(0x81, b"more"));
    bytes.extend(plain(0xff, b"rubbish"));
    peer.write(&bytes).unwrap();
    world.turn();
    assert_eq!(world.log.count("text"), 0);
    assert_eq!(
        world
            .log
            .count("closed Peer closed by the peer, code 1000, clean"),
        1
    );
}

#[test]
fn the_close_for_a_protocol_error_reaches_a_peer_that_has_sent_its_last() {
    let mut world = World::new(Recorder::echo);
    let peer = world.open();
    peer.write(&plain(0x81, b"not masked")).unwrap();
    peer.shutdown_write();
    world.turn();
    let got = peer.read();
    assert_eq!(
        got.get(..4),
        Some(&[0x88, got[1], 0x03, 0xea][..]),
        "{got:02x?}"
    );
    assert_eq!(
        world.log.count("closed Local protocol error"),
        1,
        "{:?}",
        world.log.lines()
    );
}

#[test]
fn on_established_that_refuses_gets_no_on_closed() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.set_timer(Duration::from_millis(1), TimerTag(1));
            wsi.request_writable();
            Err(Close::new(CloseCode::TRY_AGAIN_LATER, "full"))
        })),
        ..Recorder::new(log)
    });
    let peer = world.dial();
    let mut bytes = request("/");
    bytes.extend(masked(0x81, b"early"));
    peer.write(&bytes).unwrap();
    world.turn();
    let answer = peer.read();
    let close = plain(0x88, &close_payload(1013, "full"));
    assert!(
        answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(&close),
        "{answer:02x?}"
    );
    drop(peer);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.log.take(), ["filter /", "established / None"]);
    assert_eq!(world.context.connections(), 0);
}

/// `Err(Close)` from every callback that can return it.
#[test]
fn an_err_from_a_callback_closes_with_its_code_and_reason() {
    let close = || Err(Close::new(CloseCode::new(4001).unwrap(), "mine"));
    type Make = Box<dyn FnOnce(&Log) -> Recorder>;
    let cases: Vec<(&str, bool, Vec<u8>, Make)> = vec![
        (
            "text",
            false,
            masked(0x81, b"x"),
            Box::new(move |log| Recorder {
                message: Some(Box::new(move |_, _| close())),
                ..Recorder::new(log)
            }),
        ),
        (
            "chunk",
            true,
            masked(0x81, b"x"),
            Box::new(move |log| Recorder {
                chunk: Some(Box::new(move |_| close())),
                ..Recorder::new(log)
            }),
        ),
        (
            "pong",
            false,
            masked(0x8a, b"x"),
            Box::new(move |log| Recorder {
                pong: Some(Box::new(move |_| close())),
                ..Recorder::new(log)
            }),
        ),
        (
            "writable",
            false,
            Vec::new(),
            Box::new(move |log| Recorder {
                established: Some(Box::new(|wsi| {
                    wsi.request_writable();
                    Ok(())
                })),
                writable: Some(Box::new(move |_| close())),
                ..Recorder::new(log)
            }),
        ),
        (
            "timer",
            false,
            Vec::new(),
            Box::new(move |log| Recorder {
                established: Some(Box::new(|wsi| {
                    wsi.set_timer(Duration::ZERO, TimerTag(7));
                    Ok(())
                })),
                timer: Some(Box::new(move |_, _| close())),
                ..Recorder::new(log)
            }),
        ),
    ];
    for (name, chunks, bytes, make) in cases {
        let mut world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr());
            if chunks {
                config.add_chunk_protocol("p", make(log));
            } else {
                config.add_protocol("p", make(log));
            }
            config
        });
        let peer = world.dial();
        peer.write(&request("/")).unwrap();
        peer.write(&bytes).unwrap();
        world.turn();
        let got = peer.read();
        assert!(
            got.ends_with(&plain(0x88, &close_payload(4001, "mine"))),
            "{name}: {got:02x?}"
        );
        peer.write(&masked(0x88, &close_payload(4001, ""))).unwrap();
        world.turn();
        let lines = world.log.take();
        assert!(
            lines.iter().any(|line| line.starts_with(name)),
            "{name}: {lines:?}"
        );
        assert_eq!(
            lines.last().unwrap(),
            "closed Local closed by the application, code 4001 \"mine\", clean",
            "{name}"
        );
    }
}

/// In the middle of a message that comes in pieces, too.
#[test]
fn re_01_close_and_abort_of_self_are_legal_within_a_message() {
    type Act = fn(&mut wsloop::Wsi<'_>) -> Result<(), Close>;
    let acts: [(&str, Act); 3] = [
        ("close", |wsi| {
            wsi.close(Close::normal());
            Ok(())
        }),
        ("abort", |wsi| {
            wsi.abort();
            Ok(())
        }),
        ("Err", |_| Err(Close::normal())),
    ];
    for (what, act) in acts {
        let mut world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr());
            let recorder = Recorder {
                chunk: Some(Box::new(act)),
                ..Recorder::new(log)
            };
            config.add_chunk_protocol("p", recorder);
            config
        });
        let peer = world.open();
        let bytes = [masked(0x01, b"a"), masked(0x00, b"b"), masked(0x80, b"c")];
        peer.write(&bytes.concat()).unwrap();
        peer.write(&masked(0x88, &close_payload(1000, "")))
            .unwrap_or_default();
        world.turn();
        drop(peer);
        world.pass(Duration::from_secs(12));
        let lines = world.log.take();
        assert_eq!(lines.len(), 2, "{what}: {lines:?}");
        assert!(lines[0].starts_with("chunk "), "{what}: {lines:?}");
        assert!(lines[1].starts_with("closed Local "), "{what}: {lines:?}");
        assert_eq!(world.context.connections(), 0, "{what}");
    }
}

/// RE-01: closing or aborting oneself, in every callback that has a `Wsi`.
#[test]
fn re_01_close_and_abort_of_self_are_legal_everywhere_and_nothing_follows() {
    type Act = fn(&mut wsloop::Wsi<'_>);
    let close: Act = |wsi| {
        wsi.request_writable();
        wsi.set_timer(Duration::ZERO, TimerTag(2));
        wsi.close(Close::normal());
        wsi.close(Close::from(CloseCode::GOING_AWAY));
    };
    let abort: Act = |wsi| {
        wsi.request_writable();
        wsi.set_timer(Duration::ZERO, TimerTag(2));
        wsi.abort();
        wsi.abort();
    };
    let both: Act = |wsi| {
        wsi.abort();
        wsi.request_writable();
        wsi.close(Close::normal());
    };
    for (what, act) in [("close", close), ("abort", abort), ("abort, close", both)] {
        for place in [
            "established",
            "text",
            "pong",
            "writable",
            "timer 1",
            "peer_close",
        ] {
            let mut world = World::new(|log| {
                let mut recorder = Recorder::new(log);
                let act = move |wsi: &mut wsloop::Wsi<'_>| {
                    act(wsi);
                    Ok(())
                };
                match place {
                    "established" => recorder.established = Some(Box::new(act)),
                    "text" => recorder.message = Some(Box::new(move |wsi, _| act(wsi))),
                    "pong" => recorder.pong = Some(Box::new(act)),
                    "peer_close" => recorder.peer_close = Some(Box::new(act)),
                    "writable" => {
                        recorder.established = Some(Box::new(|wsi| {
                            wsi.request_writable();
                            Ok(())
                        }));
                        recorder.writable = Some(Box::new(act));
                    }
                    _ => {
                        recorder.established = Some(Box::new(|wsi| {
                            wsi.set_timer(Duration::ZERO, TimerTag(1));
                            Ok(())
                        }));
                        recorder.timer = Some(Box::new(move |wsi, _| act(wsi)));
                    }
                }
                recorder
            });
            let peer = world.dial();
            let mut bytes = request("/");
            match place {
                "text" => bytes.extend(masked(0x81, b"1")),
                "pong" => bytes.extend(masked(0x8a, b"1")),
                "peer_close" => bytes.extend(masked(0x88, &close_payload(1000, ""))),
                _ => {}
            }
            bytes.extend(masked(0x81, b"behind"));
            let late = place == "writable" || place == "timer 1";
            if late {
                peer.write(&request("/")).unwrap();
                world.turn();
                peer.write(&masked(0x81, b"behind")).unwrap_or_default();
            } else {
                peer.write(&bytes).unwrap();
            }
            world.turn();
            peer.write(&masked(0x88, &close_payload(1000, "")))
                .unwrap_or_default();
            world.turn();
            drop(peer);
            world.pass(Duration::from_secs(12));
            let lines = world.log.take();
            let case = format!("{what} in {place}: {lines:#?}");
            let at = lines
                .iter()
                .position(|line| line.starts_with(place))
                .expect(&case);
            assert_eq!(lines.len(), at + 2, "{case}");
            assert!(lines[at + 1].starts_with("closed"), "{case}");
            assert_eq!(world.context.connections(), 0, "{case}");
        }
    }
}

#[test]
fn cl_07_an_abort_counts_what_was_not_delivered() {
    let mut site = Site::new(Recorder::new);
    site.world.net.set_capacity(1000);
    let peer = site.world.open();
    let id = site.id();
    site.act(|cx| {
        cx.peer(id).unwrap().send_binary(&[7; 5000]).unwrap();
    });
    site.world.turn();
    site.act(|cx| cx.abort(id)).unwrap();
    site.world.turn();
    // 4 bytes of header, 5000 of payload, 1000 of them with the system.
    assert_eq!(
        site.world.log.take(),
        ["closed Local aborted by the application, code 1006, not clean, 4004 bytes not delivered"]
    );
    drop(peer);
}

#[test]
fn dropping_the_context_ends_everything_once_and_lets_nothing_begin() {
    let log = Log::default();
    let net = wsloop::sim::Net::new(3);
    let config = wsloop::ContextConfig::new().observer(Observer(log.clone()));
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let mut recorder = Recorder::new(&log);
    let seen = log.clone();
    let home = crate::Slot::new();
    let vhosts = home.clone();
    recorder.closed = Some(Box::new(move |cx, id| {
        assert!(
            cx.abort(id).is_err(),
            "the id is stale in its own on_closed"
        );
        let info = wsloop::ClientConnectInfo::new("10.0.0.9", 80).unwrap();
        let vhost = vhosts.take()[0];
        let refused = cx.client_connect(vhost, info).unwrap_err();
        seen.push(format!("no more: {}", refused.failure()));
    }));
    let vhost = VhostConfig::new("a.test")
        .listen(addr())
        .protocol("p", recorder);
    let vhost = context.create_vhost(vhost).unwrap();
    home.put(vhost);
    let silent = net.listen("10.0.0.7:80".parse().unwrap()).unwrap();
    let info = wsloop::ClientConnectInfo::new("10.0.0.7", 80).unwrap();
    context.client_connect(vhost, info).unwrap();
    let peer = net.dial(addr()).unwrap();
    peer.write(&request_with("/", "")).unwrap();
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    log.take();
    drop(context);
    let mut lines = log.take();
    lines.sort();
    assert_eq!(
        lines,
        [
            "closed Local the context was dropped, code 1006, not clean",
            "connect_error 10.0.0.7:80: response stage: the context was dropped",
            "no more: the context is shutting down",
        ]
    );
    drop(silent);
}
