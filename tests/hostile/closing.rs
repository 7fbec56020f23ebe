//! The closing handshake, in both roles (RFC 6455 section 7).

use std::time::Duration;

use wsloop::ws::ProtocolError;
use wsloop::{
    ClientConnectInfo, Close, CloseCode, Context, ContextConfig, Side, Timeouts, VhostConfig,
};

use super::common::{SIDES, Session, closes_on, final_event, frames_of, settle};
use crate::support::{Log, Recorder, World, close_payload, masked};

fn close(code: u16, reason: &str) -> Close {
    Close::new(CloseCode::new(code).unwrap(), reason.to_owned())
}

/// The server ends its stream, a client waits for that; only then is a client's end told.
fn assert_server_ends_first(session: &mut Session) {
    match session.side {
        Side::Server => {
            session.final_event();
            assert!(session.peer.ended(), "a server ends its stream first");
        }
        Side::Client => {
            assert_eq!(
                session.world.log.count("closed"),
                0,
                "a client waits for the end"
            );
            assert!(
                !session.peer.ended(),
                "a client leaves the end to the server"
            );
        }
    }
    session.end();
}

#[test]
fn cl_01_a_close_frame_is_answered_with_its_code_whatever_its_length() {
    for side in SIDES {
        for len in 2..=125 {
            let reason = "x".repeat(len - 2);
            let payload = close_payload(1000, &reason);
            let mut session = Session::open(side, Recorder::new);
            session.send(0x88, &payload);
            assert_eq!(session.frames(), [(0x88, payload)], "{side:?} {len}");
            assert_server_ends_first(&mut session);
            let told = match len {
                2 => "closed Peer closed by the peer, code 1000, clean".to_owned(),
                _ => format!("closed Peer closed by the peer, code 1000 {reason:?}, clean"),
            };
            assert_eq!(session.final_event(), told, "{side:?} {len}");
            assert_eq!(
                session.world.log.count("peer_close Some(\"1000"),
                1,
                "{side:?} {len}"
            );
        }
    }
}

#[test]
fn cl_01_a_close_frame_without_a_code_is_answered_in_kind_and_told_as_1005() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.send(0x88, b"");
        assert_eq!(session.frames(), [(0x88, Vec::new())], "{side:?}");
        assert_server_ends_first(&mut session);
        assert_eq!(
            session.final_event(),
            "closed Peer closed by the peer, code 1005, clean"
        );
    }
}

#[test]
fn cl_01_a_close_frame_of_one_byte_fails_the_connection() {
    for side in SIDES {
        fails(side, &[0x03], ProtocolError::InvalidCloseLength);
    }
}

/// A Close payload that is none.
fn fails(side: Side, payload: &[u8], error: ProtocolError) {
    let mut session = Session::open(side, Recorder::new);
    session.send(0x88, payload);
    let code = error.close_code().value();
    let reason = error.to_string();
    assert_eq!(
        session.frames(),
        [(0x88, close_payload(code, &reason))],
        "{side:?} {payload:?}"
    );
    assert!(session.peer.ended(), "whoever fails the connection ends it");
    let told = format!("closed Local protocol error: {error}, code {code}, not clean");
    assert_eq!(
        session.world.log.lines(),
        [told],
        "no peer_close either: {side:?} {payload:?}"
    );
    session.end();
}

#[test]
fn cl_02_codes_that_must_not_be_sent_fail_the_connection() {
    for side in SIDES {
        for code in [
            0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
        ] {
            fails(
                side,
                &close_payload(code, ""),
                ProtocolError::InvalidCloseCode(code),
            );
        }
    }
}

#[test]
fn cl_02_codes_that_may_be_sent_come_back() {
    let registered = (1000..=1003).chain(1007..=1014);
    for code in registered.chain([3000, 3001, 3999, 4000, 4001, 4999]) {
        for side in SIDES {
            let mut session = Session::open(side, Recorder::new);
            session.send(0x88, &close_payload(code, ""));
            assert_eq!(
                session.frames(),
                [(0x88, close_payload(code, ""))],
                "{side:?} {code}"
            );
            assert_server_ends_first(&mut session);
            let told = format!("closed Peer closed by the peer, code {code}, clean");
            assert_eq!(session.final_event(), told, "{side:?}");
        }
    }
}

#[test]
fn cl_03_close_frames_that_cross_close_cleanly() {
    for side in SIDES {
        let mut session = Session::open(side, closes_on("bye", close(3000, "ours")));
        // The peer's Close is under way before it has seen ours.
        let mut bytes = session.frame(0x81, b"bye");
        bytes.extend(session.frame(0x88, &close_payload(3001, "theirs")));
        session.write(&bytes);
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(3000, "ours"))],
            "{side:?}"
        );
        assert_server_ends_first(&mut session);
        let told = "closed Local closed by the application, code 3000 \"ours\", clean";
        assert_eq!(session.final_event(), told, "{side:?}");
        assert_eq!(
            session.world.log.count("peer_close"),
            0,
            "it was we who began"
        );
    }
}

#[test]
fn cl_03_two_contexts_that_close_at_once_both_close_cleanly() {
    let mut server = World::new(Recorder::new);
    let theirs = Log::default();
    let mut client = Context::simulated(&server.net, ContextConfig::new()).unwrap();
    let mut config = VhostConfig::new("c.test");
    let handle = config.add_protocol("p", Recorder::new(&theirs));
    let vhost = client.create_vhost(config).unwrap();
    client
        .client_connect(vhost, ClientConnectInfo::new("10.0.0.1", 80).unwrap())
        .unwrap();
    settle(&server.net, &mut [&mut server.context, &mut client]);
    assert_eq!(theirs.take(), ["established 101 None"]);

    // The server's protocol has no handle here: a shutdown closes as well.
    client.with_protocol(handle, |_, cx| {
        cx.for_each_peer(|mut peer| peer.close(close(3000, "")));
    });
    server.context.shutdown(Duration::from_secs(60));
    settle(&server.net, &mut [&mut server.context, &mut client]);
    let told = "closed Local closed by the application, code 3000, clean";
    assert_eq!(theirs.take(), [told]);
    let told = "closed Local the context is shutting down, code 1001, clean";
    assert_eq!(final_event(&server.log), told);
    assert_eq!((server.context.connections(), client.connections()), (0, 0));
}

#[test]
fn cl_04_an_unanswered_close_ends_at_its_deadline() {
    for side in SIDES {
        for chatty in [false, true] {
            let mut session = Session::open(side, closes_on("bye", Close::normal()));
            session.send(0x81, b"bye");
            assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
            for _ in 0..49 {
                // Whatever else the peer says does not extend the deadline.
                if chatty {
                    session.send(0x81, b"never mind");
                }
                session.world.pass(Duration::from_millis(100));
            }
            assert_eq!(
                session.world.log.count("closed"),
                0,
                "{side:?}: 4.9 s are not 5"
            );
            session.world.pass(Duration::from_millis(200));
            let told =
                "closed Local the closing handshake took longer than 5s, code 1006, not clean";
            assert_eq!(session.final_event(), told, "{side:?} {chatty}");
            assert_eq!(
                session.world.log.count("text"),
                1,
                "nothing after the close"
            );
            assert_eq!(session.world.context.connections(), 0);
            assert!(session.peer.ended() || session.peer.was_reset());
        }
    }
}

#[test]
fn cl_05_a_server_closes_first_and_does_not_wait_for_ever_for_the_peer_s_end() {
    let mut session = Session::open(Side::Server, closes_on("bye", Close::normal()));
    session.send(0x81, b"bye");
    let close = masked(0x88, &close_payload(1000, ""));
    session.write(&[&close[..], b"more"].concat());
    assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
    assert!(session.peer.ended());
    let told = "closed Local closed by the application, code 1000, clean";
    assert_eq!(session.final_event(), told);
    session.world.pass(Duration::from_millis(4900));
    assert_eq!(session.world.context.connections(), 1, "it lingers");
    session.world.pass(Duration::from_millis(200));
    assert_eq!(session.world.context.connections(), 0);
    assert_eq!(session.final_event(), told);
}

#[test]
fn cl_05_a_client_waits_for_the_server_s_end_but_not_for_ever() {
    let mut session = Session::open(Side::Client, closes_on("bye", Close::normal()));
    session.send(0x81, b"bye");
    session.send(0x88, &close_payload(1000, ""));
    assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
    session.world.pass(Duration::from_millis(4900));
    assert!(!session.peer.ended());
    assert_eq!(session.world.log.count("closed"), 0);
    session.world.pass(Duration::from_millis(200));
    let told = "closed Local closed by the application, code 1000, clean";
    assert_eq!(session.final_event(), told, "both Close frames were there");
    assert!(session.peer.ended());
    assert_eq!(session.world.context.connections(), 0);
}

#[test]
fn cl_04_a_message_that_comes_during_the_close_has_the_close_s_deadline_only() {
    for side in SIDES {
        let tune = |config: VhostConfig| {
            let mut timeouts = Timeouts::default();
            timeouts.message = Duration::from_secs(1);
            config.timeouts(timeouts)
        };
        let mut session = Session::tuned(side, tune, closes_on("bye", Close::normal()));
        session.send(0x81, b"bye");
        session.send(0x01, b"begun too late");
        session.world.pass(Duration::from_secs(3));
        session.send(0x88, &close_payload(1000, ""));
        assert_eq!(session.end(), [(0x88, close_payload(1000, ""))], "{side:?}");
        let told = "closed Local closed by the application, code 1000, clean";
        assert_eq!(session.final_event(), told, "{side:?}");
    }
}

#[test]
fn cl_05_a_message_that_the_close_frame_cut_off_has_no_deadline_any_more() {
    let tune = |config: VhostConfig| {
        let mut timeouts = Timeouts::default();
        timeouts.message = Duration::from_secs(1);
        config.timeouts(timeouts)
    };
    let mut session = Session::tuned(Side::Client, tune, Recorder::new);
    let mut bytes = session.frame(0x01, b"never finished");
    bytes.extend(session.frame(0x88, &close_payload(1000, "")));
    session.write(&bytes);
    session.world.pass(Duration::from_secs(3));
    assert_eq!(session.end(), [(0x88, close_payload(1000, ""))]);
    let told = "closed Peer closed by the peer, code 1000, clean";
    assert_eq!(session.final_event(), told);
}

/// An application that answers "go" with much more than the peer takes, and a Close.
fn blocked(side: Side) -> Session {
    let make = |log: &Log| Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.send_binary(&[7; 10_000])?;
            Err(Close::normal())
        })),
        ..Recorder::new(log)
    };
    let mut session = Session::open(side, make);
    session.world.net.set_capacity(1000);
    session.send(0x81, b"go");
    session
}

/// Frame headers of a message of 10 000 bytes and a Close with a code, from that side.
fn blocked_total(side: Side) -> usize {
    let mask = if side == Side::Client { 4 } else { 0 };
    4 + mask + 10_000 + 2 + mask + 2
}

#[test]
fn cl_07_output_that_nobody_takes_is_dropped_at_the_deadline_and_counted() {
    for side in SIDES {
        let mut session = blocked(side);
        session.world.pass(Duration::from_millis(4900));
        assert_eq!(session.world.log.count("closed"), 0);
        session.world.pass(Duration::from_millis(200));
        let left = blocked_total(side) - 1000;
        let told = format!(
            "closed Local the closing handshake took longer than 5s, code 1006, not clean, \
             {left} bytes not delivered"
        );
        assert_eq!(session.final_event(), told, "{side:?}");
        assert_eq!(session.world.context.connections(), 0);
        assert_eq!(
            session.peer.read().len(),
            1000,
            "what was written still arrives"
        );
    }
}

#[test]
fn cl_07_output_that_is_taken_late_closes_cleanly() {
    for side in SIDES {
        let mut session = blocked(side);
        session.world.pass(Duration::from_secs(4));
        let mut sent = Vec::new();
        for _ in 0..100 {
            sent.extend(session.peer.read_up_to(700));
            session.world.turn();
        }
        let (frames, rest) = frames_of(side, &sent);
        assert!(rest.is_empty());
        assert_eq!(
            frames,
            [(0x82, vec![7; 10_000]), (0x88, close_payload(1000, ""))]
        );
        session.send(0x88, &close_payload(1000, ""));
        session.end();
        let told = "closed Local closed by the application, code 1000, clean";
        assert_eq!(session.final_event(), told, "{side:?}");
    }
}

#[test]
fn cl_08_a_close_never_cuts_into_a_frame_that_is_half_written() {
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
        session.send(0x88, &close_payload(1001, "leaving"));
        assert_eq!(
            session.world.log.count("closed"),
            0,
            "the answer has not left"
        );
        let mut sent = Vec::new();
        for _ in 0..100 {
            sent.extend(session.peer.read_up_to(300));
            session.world.turn();
        }
        let (frames, rest) = frames_of(side, &sent);
        assert!(rest.is_empty());
        let expected = [
            (0x82, vec![7; 10_000]),
            (0x88, close_payload(1001, "leaving")),
        ];
        assert_eq!(frames, expected, "{side:?}");
        assert_server_ends_first(&mut session);
        let told = "closed Peer closed by the peer, code 1001 \"leaving\", clean";
        assert_eq!(session.final_event(), told, "{side:?}");
    }
}

#[test]
fn cl_08_an_answer_that_cannot_leave_is_given_up_at_the_deadline() {
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
        session.send(0x88, &close_payload(1001, ""));
        session.world.pass(Duration::from_millis(5100));
        let left = blocked_total(side) - 1000;
        let told = format!(
            "closed Peer closed by the peer, code 1001, not clean, {left} bytes not delivered"
        );
        assert_eq!(session.final_event(), told, "{side:?}");
        assert_eq!(session.world.context.connections(), 0);
    }
}

#[test]
fn cl_10_an_end_of_stream_without_close_is_told_as_that() {
    for side in SIDES {
        for inside in [&b""[..], &[0x81][..], &[0x81, 0x85, 1, 2, 3][..]] {
            let mut session = Session::open(side, Recorder::new);
            if side == Side::Server {
                session.write(inside);
            }
            session.end();
            let told = "closed Peer the peer ended the stream without a Close frame, code 1006, \
                        not clean";
            assert_eq!(session.world.log.lines(), [told], "{side:?} {inside:?}");
        }
    }
}

#[test]
fn cl_10_what_was_answered_before_an_end_of_stream_without_close_is_sent() {
    for side in SIDES {
        let mut session = Session::open(side, closes_on("bye", Close::normal()));
        // All in one batch: the peer may well be reading after it has said its last.
        session
            .peer
            .write(&session.frame(0x81, b"question"))
            .unwrap();
        session.peer.write(&session.frame(0x81, b"bye")).unwrap();
        let expected = [
            (0x81, b"question".to_vec()),
            (0x88, close_payload(1000, "")),
        ];
        assert_eq!(session.end(), expected, "{side:?}");
        let told = session.final_event();
        assert!(told.ends_with(", code 1006, not clean"), "{side:?} {told}");
    }
}

#[test]
fn cl_10_a_reset_without_close_is_told_as_a_transport_error() {
    for side in SIDES {
        let Session {
            mut world, peer, ..
        } = Session::open(side, Recorder::new);
        peer.reset();
        world.turn();
        let told = final_event(&world.log);
        assert!(told.starts_with("closed Peer transport error: "), "{told}");
        assert!(told.contains("reset"), "{told}");
        assert!(told.ends_with(", code 1006, not clean"), "{told}");
        assert_eq!(world.context.connections(), 0);
    }
}

#[test]
fn cl_10_an_end_of_stream_right_behind_the_close_frame_is_clean() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        let bytes = session.frame(0x88, &close_payload(1000, ""));
        session.peer.write(&bytes).unwrap();
        assert_eq!(session.end(), [(0x88, close_payload(1000, ""))], "{side:?}");
        let told = "closed Peer closed by the peer, code 1000, clean";
        assert_eq!(session.final_event(), told, "{side:?}");
    }
}

#[test]
fn cl_10_an_end_of_stream_instead_of_the_answer_to_our_close_is_not_clean() {
    for side in SIDES {
        let mut session = Session::open(side, closes_on("bye", Close::normal()));
        session.send(0x81, b"bye");
        assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
        session.end();
        // RFC 6455 section 7.1.5: without the peer's Close frame the code is 1006.
        let told = session.final_event();
        assert!(told.ends_with(", code 1006, not clean"), "{side:?} {told}");
    }
}

#[test]
fn cl_12_the_answer_to_a_close_leaves_in_the_same_turn() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        let bytes = session.frame(0x88, &close_payload(1000, ""));
        session.peer.write(&bytes).unwrap();
        session.world.context.service(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1000, ""))],
            "{side:?}"
        );
    }
}

#[test]
fn cl_12_messages_that_were_queued_before_the_peer_s_close_leave_before_the_answer() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::echo);
        let mut bytes = session.frame(0x81, b"one");
        bytes.extend(session.frame(0x88, &close_payload(1000, "")));
        session.write(&bytes);
        let expected = [(0x81, b"one".to_vec()), (0x88, close_payload(1000, ""))];
        assert_eq!(session.frames(), expected, "{side:?}");
        session.end();
    }
}
