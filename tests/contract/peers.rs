//! Reaching other connections, and the protocol from outside.

use std::time::Duration;

use wsloop::{Broadcast, ClientConnectInfo, Close, Limits, Message, SendError, VhostConfig};

use crate::support::{Recorder, World, addr, masked, plain, request_with};
use crate::{Site, Slot};

fn tally(broadcast: Broadcast) -> (usize, usize, usize) {
    (broadcast.queued, broadcast.full, broadcast.closing)
}

#[test]
fn for_each_peer_reaches_all_of_its_own_protocol_and_nobody_else() {
    let counts = Slot::new();
    let seen = counts.clone();
    let mut world = World::with(|log| {
        let recorder = Recorder {
            message: Some(Box::new(move |wsi, _| {
                let mut ids = Vec::new();
                wsi.cx().for_each_peer(|peer| ids.push(peer.id()));
                assert!(ids.contains(&wsi.id()), "the current one is included");
                seen.put(ids.len());
                let outcome = wsi.cx().broadcast(Message::Text("all"), |_| true);
                assert_eq!(tally(outcome), (2, 0, 0));
                Ok(())
            })),
            ..Recorder::new(log)
        };
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", recorder)
            .protocol("q", Recorder::new(log))
    });
    let mine = [world.open(), world.open()];
    let other = world.dial();
    other
        .write(&request_with("/", "Sec-WebSocket-Protocol: q\r\n"))
        .unwrap();
    let half = world.dial();
    half.write(b"GET / HTTP/1.1\r\n").unwrap();
    world.turn();
    assert!(other.read().starts_with(b"HTTP/1.1 101"));
    mine[0].write(&masked(0x81, b"go")).unwrap();
    world.turn();
    assert_eq!(counts.take(), [2]);
    for peer in &mine {
        assert_eq!(peer.read(), plain(0x81, b"all"));
    }
    assert_eq!(other.read(), b"");
    assert_eq!(half.read(), b"");
}

#[test]
fn a_peer_of_another_protocol_cannot_be_sent_to_but_can_be_closed() {
    let mut handles = None;
    let mut world = World::with(|log| {
        let mut config = VhostConfig::new("a.test").listen(addr());
        let p = config.add_protocol("p", Recorder::new(log));
        let q = config.add_protocol("q", Recorder::new(log));
        handles = Some((p, q));
        config
    });
    let (p, q) = handles.unwrap();
    let _mine = world.open();
    let other = world.dial();
    other
        .write(&request_with("/", "Sec-WebSocket-Protocol: q\r\n"))
        .unwrap();
    world.turn();
    other.read();
    let id = world.context.with_protocol(q, |_, cx| {
        let mut ids = Vec::new();
        cx.for_each_peer(|peer| ids.push(peer.id()));
        ids[0]
    });
    let id = id.unwrap();
    world.context.with_protocol(p, |_, cx| {
        assert!(cx.peer(id).is_none());
        cx.close(id, Close::normal()).unwrap();
    });
    world.turn();
    assert_eq!(other.read(), plain(0x88, &[0x03, 0xe8]));
}

#[test]
fn a_broadcast_reaches_server_and_client_ends_and_says_who_could_not_be_reached() {
    let limits = Limits::default().with_output_bytes(50);
    let mut site = Site::with(|config| config.limits(limits), Recorder::new);
    let own = site.world.vhost;
    let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
    let client = site.world.context.client_connect(own, info).unwrap();
    site.world.turn();
    let stranger = site.world.open();
    let closing = site.world.open();
    let ids = site.ids();
    assert_eq!(
        ids.len(),
        4,
        "both ends of our own connection, and two strangers"
    );
    assert!(ids.contains(&client));
    let last = *ids.iter().max_by_key(|id| format!("{id}")).unwrap();
    let outcome = site.act(|cx| {
        cx.close(last, Close::normal()).unwrap();
        cx.broadcast(Message::Text("hey"), |_| true)
    });
    assert_eq!(tally(outcome), (3, 0, 1));
    let outcome = site.act(|cx| cx.broadcast(Message::Binary(&[0; 48]), |id| id != client));
    assert_eq!(
        tally(outcome),
        (0, 2, 1),
        "five bytes wait and the cap is 50"
    );
    site.world.turn();
    // Each end of our own connection got what the other one sent.
    assert_eq!(
        site.world.log.count("text \"hey\""),
        2,
        "{:?}",
        site.world.log.lines()
    );
    let got = [stranger.read(), closing.read()];
    assert!(got.contains(&plain(0x81, b"hey")), "{got:02x?}");
    assert!(got.contains(&plain(0x88, &[0x03, 0xe8])), "{got:02x?}");
}

#[test]
fn a_large_broadcast_arrives_whole_at_everybody_in_order() {
    let limits = Limits::default().with_message_bytes(300_000);
    let mut site = Site::with(|config| config.limits(limits), Recorder::new);
    let peers = [site.world.open(), site.world.open(), site.world.open()];
    let large = vec![0x5a; 200_000];
    let outcome = site.act(|cx| {
        cx.broadcast(Message::Text("before"), |_| true);
        let outcome = cx.broadcast(Message::Binary(&large), |_| true);
        cx.broadcast(Message::Text("after"), |_| true);
        outcome
    });
    assert_eq!(tally(outcome), (3, 0, 0));
    let expected = [
        plain(0x81, b"before"),
        plain(0x82, &large),
        plain(0x81, b"after"),
    ]
    .concat();
    let mut got = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..20 {
        site.world.turn();
        for (got, peer) in got.iter_mut().zip(&peers) {
            got.extend(peer.read_up_to(30_000));
        }
    }
    for got in got {
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }
}

#[test]
fn sending_to_a_peer_answers_like_sending_to_oneself() {
    let limits = Limits::default()
        .with_output_bytes(20)
        .with_message_bytes(100);
    let mut site = Site::with(|config| config.limits(limits), Recorder::new);
    let peer = site.world.open();
    let id = site.id();
    site.act(|cx| {
        let mut peer = cx.peer(id).unwrap();
        assert_eq!(peer.id(), id);
        assert_eq!(
            peer.send_ping(&[0; 126]),
            Err(SendError::ControlTooLong { len: 126 })
        );
        assert_eq!(peer.send_text("hi").unwrap().buffered, 4);
        assert_eq!(
            peer.send_binary(&[0; 17]),
            Err(SendError::Full {
                buffered: 4,
                limit: 20
            })
        );
        let too_large = SendError::TooLarge {
            len: 101,
            limit: 100,
        };
        assert_eq!(peer.send_binary(&[0; 101]), Err(too_large));
        assert_eq!(peer.buffered_out(), 4);
        peer.close(Close::normal());
        assert_eq!(peer.send_text("x"), Err(SendError::Closing));
    });
    site.world.turn();
    let expected = [plain(0x81, b"hi"), plain(0x88, &[0x03, 0xe8])].concat();
    assert_eq!(peer.read(), expected);
}

#[test]
fn a_protocol_is_reached_by_its_handle_until_its_vhost_is_gone() {
    let mut site = Site::new(Recorder::new);
    let handle = site.handle;
    site.world
        .context
        .protocol(handle)
        .unwrap()
        .log
        .push("through the handle");
    assert_eq!(site.world.log.take(), ["through the handle"]);
    let peer = site.world.open();
    let vhost = site.world.vhost;
    site.world.context.destroy_vhost(vhost).unwrap();
    site.world.turn();
    assert!(
        site.world.context.protocol(handle).is_some(),
        "its last connection is still there"
    );
    peer.write(&masked(0x88, &[0x03, 0xe9])).unwrap();
    site.world.turn();
    drop(peer);
    site.world.pass(Duration::from_secs(6));
    assert!(site.world.context.protocol(handle).is_none());
    assert!(
        site.world
            .context
            .with_protocol(handle, |_, _| ())
            .is_none()
    );
}

#[test]
fn a_wake_from_outside_reaches_every_protocol_and_calls_merge() {
    let mut site = Site::new(Recorder::new);
    let second = VhostConfig::new("b.test").protocol("q", Recorder::new(&site.world.log));
    site.world.context.create_vhost(second).unwrap();
    let cancel = site.world.context.cancel_service_handle();
    site.world.turn();
    assert_eq!(site.world.log.take(), [""; 0]);
    cancel.cancel_service();
    cancel.cancel_service();
    site.world.turn();
    assert_eq!(site.world.log.take(), ["wake", "wake"], "one each");
    cancel.cancel_service();
    // A wait without end is ended.
    site.world.context.service(None).unwrap();
    assert_eq!(site.world.log.take(), ["wake", "wake"]);
    drop(site);
    cancel.cancel_service();
}

#[test]
fn a_wake_asked_for_in_on_wake_comes_in_the_next_turn() {
    let cancel = Slot::<wsloop::CancelService>::new();
    let handle = cancel.clone();
    let mut left = 3;
    let mut world = World::new(|log| Recorder {
        wake: Some(Box::new(move |_| {
            left -= 1;
            if left > 0 {
                let cancel = handle.take().remove(0);
                cancel.cancel_service();
                handle.put(cancel);
            }
        })),
        ..Recorder::new(log)
    });
    let first = world.context.cancel_service_handle();
    cancel.put(first.clone());
    first.cancel_service();
    for expected in [1, 2, 3, 3] {
        world.context.service(Some(Duration::ZERO)).unwrap();
        assert_eq!(world.log.count("wake"), expected);
    }
}

#[test]
fn what_is_sent_from_outside_leaves_with_the_next_service() {
    let mut site = Site::new(Recorder::new);
    let peer = site.world.open();
    let id = site.id();
    site.act(|cx| {
        cx.peer(id).unwrap().send_text("now").unwrap();
    });
    assert_eq!(peer.read(), b"");
    site.world.context.service(None).unwrap();
    assert_eq!(peer.read(), plain(0x81, b"now"));
}
