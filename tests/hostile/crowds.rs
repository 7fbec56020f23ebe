//! Many connections: at the cap of the context all at once, and one after the other without end.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::sim::{Net, SimPeer};
use wsloop::{
    ClientConnectInfo, ConnectFailure, Context, ContextConfig, Limits, VhostConfig, VhostId,
};

use super::common::{Session, join};
use crate::support::{Log, Recorder, World, addr, close_payload, masked, request};

const CROWD: usize = 1000;
const MESSAGE: usize = 64 * 1024;

/// A context for no more than [`CROWD`] connections, each of which may keep [`MESSAGE`] bytes.
fn full(net: &Net, log: &Log) -> (Context, VhostId) {
    let config = ContextConfig::new().max_connections(CROWD);
    let mut context = Context::simulated(net, config).unwrap();
    let limits = Limits::default().with_message_bytes(MESSAGE);
    let config = VhostConfig::new("a.test").listen(addr()).limits(limits);
    let vhost = context.create_vhost(config.protocol("p", Recorder::echo(log)));
    (context, vhost.unwrap())
}

fn turn(context: &mut Context) {
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
}

/// There is no cap on memory as such: it is that on connections times that of each. Who comes above
/// it waits, and nobody who is served is sent away for it.
#[test]
fn rs_06_a_full_house_of_full_connections_is_bounded_and_recovers() {
    let (net, log) = (Net::new(1), Log::default());
    net.set_capacity(1 << 20);
    let (mut context, vhost) = full(&net, &log);
    let mut peers = Vec::new();
    for _ in 0..CROWD {
        let peer = net.dial(addr()).unwrap();
        peer.write(&request("/")).unwrap();
        context.service(Some(Duration::ZERO)).unwrap();
        peers.push(peer);
    }
    turn(&mut context);
    assert_eq!(log.count("established"), CROWD);
    let idle = context.memory();

    // Each sends all of a message at its limit but the last byte.
    let message = masked(0x82, &vec![7; MESSAGE]);
    let (most, rest) = message.split_at(message.len() - 1);
    for peer in &peers {
        assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
        peer.write(most).unwrap();
    }
    turn(&mut context);
    let held = context.memory() - idle;
    assert!(held >= CROWD * (MESSAGE - 1), "{held}");
    assert!(held <= CROWD * (MESSAGE + 4096), "{held}");

    // New work waits or is refused, both ways.
    let late = net.dial(addr()).unwrap();
    late.write(&request("/")).unwrap();
    turn(&mut context);
    assert_eq!(late.read(), b"", "it waits in the backlog");
    let info = ClientConnectInfo::new("10.0.0.9", 80).unwrap();
    let error = context.client_connect(vhost, info).unwrap_err();
    assert!(
        matches!(error.failure(), ConnectFailure::TooManyConnections(CROWD)),
        "{error}"
    );

    // Those who are here are served, and who leaves makes room.
    peers[0].write(rest).unwrap();
    turn(&mut context);
    assert_eq!(peers[0].read().len(), 10 + MESSAGE);
    drop(peers.pop());
    turn(&mut context);
    assert!(late.read().starts_with(b"HTTP/1.1 101 "));
    drop((peers, late));
    turn(&mut context);
    assert_eq!(context.connections(), 0);
    assert_eq!(log.count("closed"), CROWD + 1);
    assert!(context.memory() < 1 << 20, "{} kept", context.memory());
}

/// How a connection may end.
fn end(number: usize, peer: SimPeer) -> Option<SimPeer> {
    match number % 4 {
        0 => drop(peer),
        1 => peer.reset(),
        2 => {
            peer.shutdown_write();
            return Some(peer);
        }
        _ => {
            let _ = peer.write(&masked(0x88, &close_payload(1000, "")));
            peer.shutdown_write();
            return Some(peer);
        }
    }
    None
}

#[test]
fn rs_14_connections_that_come_and_go_leave_no_memory_and_share_no_name() {
    let ids = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&ids);
    let mut world = World::new(|log| Recorder {
        closed: Some(Box::new(move |_, id| {
            assert!(seen.lock().unwrap().insert(id), "{id:?} was given twice");
        })),
        ..Recorder::echo(log)
    });
    let mut after = Vec::new();
    for _ in 0..200 {
        let peers: Vec<_> = (0..100)
            .map(|_| {
                let peer = world.net.dial(addr()).unwrap();
                peer.write(&[request("/"), masked(0x81, b"hello")].concat())
                    .unwrap();
                peer
            })
            .collect();
        turn(&mut world.context);
        assert_eq!(world.log.count("text"), 100);
        let ending = peers.into_iter().enumerate();
        let ending: Vec<_> = ending.filter_map(|(n, peer)| end(n, peer)).collect();
        turn(&mut world.context);
        drop(ending);
        turn(&mut world.context);
        assert_eq!(world.context.connections(), 0);
        assert_eq!(
            world
                .log
                .take()
                .iter()
                .filter(|l| l.starts_with("closed "))
                .count(),
            100
        );
        after.push(world.context.memory());
    }
    assert_eq!(ids.lock().unwrap().len(), 200 * 100);
    assert!(
        after.iter().all(|memory| *memory <= after[0]),
        "it grows: {after:?}"
    );
    assert_eq!(world.context.next_deadline(), None, "no timer is left");
}

/// The same with attempts that never become connections.
#[test]
fn rs_14_attempts_that_fail_leave_nothing_either() {
    let mut session = Session::open(wsloop::Side::Server, Recorder::new);
    let (vhost, world) = (session.world.vhost, &mut session.world);
    let mut after = Vec::new();
    for _ in 0..100 {
        for _ in 0..20 {
            let info = ClientConnectInfo::new("10.0.0.66", 80).unwrap();
            world.context.client_connect(vhost, info).unwrap();
        }
        turn(&mut world.context);
        assert_eq!(world.log.take().len(), 20);
        after.push((world.context.memory(), world.context.connections()));
    }
    assert!(after.iter().all(|held| *held == after[0]), "{after:?}");
    let other = join(world);
    drop(other);
}
