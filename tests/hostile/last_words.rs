//! Lingering close: what a connection says last arrives although the peer goes on sending, and the
//! wait for its end is bounded. The simulated network resets a connection that is closed with
//! bytes unread, and a reset destroys what the peer has not read.

use std::time::Duration;

use wsloop::ws::ProtocolError;
use wsloop::{Close, Side};

use super::common::{SIDES, Session, closes_on, final_event};
use crate::support::{Recorder, World, close_payload, masked, request_with};

const STEP: Duration = Duration::from_millis(100);

#[test]
fn the_close_frame_of_a_violation_arrives_although_the_peer_keeps_sending() {
    for side in SIDES {
        let mut session = Session::open(side, Recorder::new);
        session.send(0x83, b"reserved opcode");
        for _ in 0..40 {
            session.send(0x82, &[0; 5000]);
            session.world.pass(STEP);
        }
        assert!(!session.peer.was_reset(), "{side:?}");
        let reason = ProtocolError::ReservedOpcode(3).to_string();
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1002, &reason))],
            "{side:?}"
        );
        assert!(session.peer.ended(), "{side:?}");
        assert_eq!(session.world.context.connections(), 1, "{side:?}");
        for _ in 0..11 {
            let _ = session.peer.write(&[0; 5000]);
            session.world.pass(STEP);
        }
        assert_eq!(
            session.world.context.connections(),
            0,
            "{side:?}: bounded by the deadline"
        );
        session.final_event();
    }
}

#[test]
fn the_answer_to_a_close_arrives_although_the_peer_keeps_sending() {
    let mut session = Session::open(Side::Server, Recorder::new);
    let close = masked(0x88, &close_payload(1000, ""));
    session.write(&[&close[..], &[0xff; 5000]].concat());
    for _ in 0..40 {
        session.write(&[0xff; 5000]);
        session.world.pass(STEP);
    }
    assert!(!session.peer.was_reset());
    assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
    assert!(session.peer.ended());
    session.end();
    assert_eq!(
        session.final_event(),
        "closed Peer closed by the peer, code 1000, clean"
    );
}

/// RFC 6455 section 5.5.1: nothing follows a Close frame, so there is nothing to wait for.
#[test]
fn a_server_is_done_at_once_with_a_peer_whose_last_word_was_its_close_frame() {
    let mut session = Session::open(Side::Server, Recorder::new);
    session.send(0x88, &close_payload(1000, ""));
    assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
    assert!(session.peer.ended() && !session.peer.was_reset());
    assert_eq!(session.world.context.connections(), 0);
    assert_eq!(
        session.final_event(),
        "closed Peer closed by the peer, code 1000, clean"
    );
}

/// What came before it is no reason to wait, and not all of a Close frame is none yet.
#[test]
fn a_close_frame_behind_messages_and_in_pieces_is_a_last_word_too() {
    let mut session = Session::open(Side::Server, Recorder::new);
    let close = masked(0x88, &close_payload(1000, "bye"));
    let (begin, end) = close.split_at(4);
    session.write(&[&masked(0x81, b"one")[..], begin].concat());
    assert_eq!(session.world.context.connections(), 1);
    session.write(end);
    assert_eq!(session.frames(), [(0x88, close_payload(1000, "bye"))]);
    assert!(session.peer.ended() && !session.peer.was_reset());
    assert_eq!(session.world.context.connections(), 0);
}

/// RFC 6455 section 5.5.2: who has not received our Close yet still answers our ping.
#[test]
fn the_pong_to_a_ping_that_crossed_the_peer_s_close_frame_is_waited_for() {
    let mut session = Session::open(Side::Server, |log| Recorder {
        message: Some(Box::new(|wsi, _| {
            wsi.send_ping(b"there?")?;
            Ok(())
        })),
        ..Recorder::new(log)
    });
    session.send(0x81, b"ping me");
    session.send(0x88, &close_payload(1000, ""));
    session.send(0x8a, b"there?");
    session.world.pass(STEP);
    assert!(!session.peer.was_reset());
    let said = [(0x89, b"there?".to_vec()), (0x88, close_payload(1000, ""))];
    assert_eq!(session.frames(), said);
    session.end();
}

#[test]
fn what_follows_a_close_frame_before_the_answer_has_left_is_waited_for_too() {
    let mut session = Session::open(Side::Server, Recorder::new);
    session.world.net.set_capacity(1);
    session.send(0x88, &close_payload(1000, ""));
    session.write(&[0xff; 5000]);
    session.world.net.set_capacity(100_000);
    for _ in 0..10 {
        session.write(&[0xff; 5000]);
        session.world.pass(STEP);
    }
    assert!(!session.peer.was_reset());
    assert_eq!(session.frames(), [(0x88, close_payload(1000, ""))]);
    assert_eq!(session.world.context.connections(), 1, "it lingers");
    session.end();
}

#[test]
fn the_close_frame_of_the_application_arrives_although_the_peer_keeps_sending() {
    for side in SIDES {
        let mut session = Session::open(side, closes_on("bye", Close::normal()));
        session.send(0x81, b"bye");
        for _ in 0..40 {
            session.send(0x82, &[0; 5000]);
            session.world.pass(STEP);
        }
        assert_eq!(
            session.frames(),
            [(0x88, close_payload(1000, ""))],
            "{side:?}"
        );
        session.send(0x88, &close_payload(1000, ""));
        session.end();
        let told = "closed Local closed by the application, code 1000, clean";
        assert_eq!(session.final_event(), told, "{side:?}");
    }
}

#[test]
fn an_error_response_arrives_although_the_peer_keeps_uploading() {
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    peer.write(&request_with("/", "Content-Length: 100000000\r\n"))
        .unwrap();
    for _ in 0..40 {
        peer.write(&[b'x'; 20_000]).unwrap();
        world.pass(STEP);
    }
    assert!(!peer.was_reset());
    assert!(peer.read().starts_with(b"HTTP/1.1 400 "));
    assert!(peer.ended());
    assert_eq!(world.context.connections(), 1);
    for _ in 0..20 {
        let _ = peer.write(&[b'x'; 20_000]);
        world.pass(STEP);
    }
    assert_eq!(world.context.connections(), 0, "bounded by the deadline");
    assert!(final_event(&world.log).starts_with("refused "));
}

#[test]
fn an_error_response_that_nobody_reads_is_given_up_at_the_deadline() {
    let mut world = World::new(Recorder::new);
    let peer = world.dial();
    world.net.set_capacity(10);
    peer.write(b"nonsense\r\n\r\n").unwrap();
    world.pass(Duration::from_millis(5200));
    assert_eq!(world.context.connections(), 0);
    assert!(final_event(&world.log).starts_with("refused "));
    assert_eq!(peer.read().len(), 10);
}

#[test]
fn a_connection_that_nobody_wants_says_so_and_lingers_too() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|_| Err(Close::normal()))),
        ..Recorder::new(log)
    });
    let peer = world.dial();
    peer.write(&request_with("/", "")).unwrap();
    peer.write(&masked(0x81, b"hello")).unwrap();
    world.turn();
    world.pass(Duration::from_secs(1));
    let sent = peer.read();
    let end = sent
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert_eq!(
        sent[end..],
        crate::support::plain(0x88, &close_payload(1000, ""))
    );
    assert!(peer.ended() && !peer.was_reset());
    world.pass(Duration::from_secs(5));
    assert_eq!(world.context.connections(), 0);
    assert_eq!(world.log.count("closed"), 0, "there was no session");
    assert_eq!(world.log.count("text"), 0);
}
