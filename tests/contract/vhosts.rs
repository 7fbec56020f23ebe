//! Vhosts: chosen by `Host`, sharing listeners, made and destroyed at any time.

use std::time::Duration;

use wsloop::{
    ClientConnectInfo, ConnectFailure, ContextConfig, ContextObserver, Cx, Limits, VhostConfig,
    VhostError, VhostId,
};

use crate::Slot;
use crate::support::{Log, Recorder, World, addr, masked, plain};

/// A vhost whose protocol greets with its name.
fn greeting(log: &Log, name: &'static str) -> VhostConfig {
    let recorder = Recorder {
        established: Some(Box::new(move |wsi| {
            wsi.send_text(name)?;
            Ok(())
        })),
        ..Recorder::new(log)
    };
    VhostConfig::new(name).protocol("p", recorder)
}

/// Who answers a request with this target and `Host`.
fn who(world: &World, at: &str, target: &str, host: &str) -> wsloop::sim::SimPeer {
    let peer = world.net.dial(at.parse().unwrap()).unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    peer.write(request.as_bytes()).unwrap();
    peer
}

fn greeted(world: &mut World, at: &str, target: &str, host: &str) -> String {
    let peer = who(world, at, target, host);
    world.turn();
    let answer = peer.read();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    match answer.get(end..) {
        Some([0x81, _, text @ ..]) => String::from_utf8(text.to_vec()).unwrap(),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

const AT: &str = "10.0.0.1:80";

#[test]
fn the_host_chooses_among_the_vhosts_of_a_listener() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    for config in [
        greeting(&log, "b.test").name("b2.test").listen(addr()),
        greeting(&log, "*.b.test").listen(addr()),
        greeting(&log, "*.x.b.test").listen(addr()),
        greeting(&log, "10.0.0.1").listen(addr()),
        greeting(&log, "2001:db8::1").listen(addr()),
    ] {
        world.context.create_vhost(config).unwrap();
    }
    for (target, host, expected) in [
        ("/", "a.test", "a.test"),
        ("/", "B.Test", "b.test"),
        ("/", "b.test.", "b.test"),
        ("/", "b.test:8080", "b.test"),
        ("/", "b2.test", "b.test"),
        ("/", "c.b.test", "*.b.test"),
        ("/", "c.x.b.test:1", "*.x.b.test"),
        ("/", "x.b.test", "*.b.test"),
        ("/", "10.0.0.1", "10.0.0.1"),
        ("/", "[2001:db8::1]", "2001:db8::1"),
        ("/", "[2001:db8::1]:80", "2001:db8::1"),
        ("/", "nobody.test", "a.test"),
        ("/", "bb.test", "a.test"),
        // HS-23: the absolute form wins over Host (RFC 9112 section 3.2.2).
        ("http://b.test/chat", "a.test", "b.test"),
        ("http://c.b.test:80/chat", "b.test", "*.b.test"),
    ] {
        assert_eq!(
            greeted(&mut world, AT, target, host),
            expected,
            "{target} at {host}"
        );
    }
}

#[test]
fn a_default_vhost_serves_unknown_hosts_although_another_was_there_first() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    let second = greeting(&log, "b.test").listen(addr()).default_vhost();
    let second = world.context.create_vhost(second).unwrap();
    assert_eq!(greeted(&mut world, AT, "/", "who.test"), "b.test");
    assert_eq!(greeted(&mut world, AT, "/", "a.test"), "a.test");
    let third = greeting(&log, "c.test").listen(addr()).default_vhost();
    let refused = world.context.create_vhost(third);
    assert!(matches!(refused, Err(VhostError::TwoDefaults { address }) if address == addr()));
    // Without it the first one is the default again, and another may claim the place.
    world.context.destroy_vhost(second).unwrap();
    world.turn();
    assert_eq!(greeted(&mut world, AT, "/", "who.test"), "a.test");
    let third = greeting(&log, "c.test").listen(addr()).default_vhost();
    world.context.create_vhost(third).unwrap();
    assert_eq!(greeted(&mut world, AT, "/", "who.test"), "c.test");
}

#[test]
fn a_vhost_listens_on_several_addresses_and_only_its_own() {
    let other = "10.0.0.2:81";
    let mut world = World::with(|log| {
        greeting(log, "a.test")
            .listen(addr())
            .listen(other.parse::<std::net::SocketAddr>().unwrap())
    });
    let log = world.log.clone();
    let b = greeting(&log, "b.test").listen(other.parse::<std::net::SocketAddr>().unwrap());
    let b = world.context.create_vhost(b).unwrap();
    assert_eq!(greeted(&mut world, AT, "/", "a.test"), "a.test");
    assert_eq!(greeted(&mut world, other, "/", "a.test"), "a.test");
    assert_eq!(greeted(&mut world, other, "/", "b.test"), "b.test");
    assert_eq!(
        greeted(&mut world, AT, "/", "b.test"),
        "a.test",
        "b does not listen there"
    );
    let a = world.vhost;
    let expected: Vec<std::net::SocketAddr> = vec![AT.parse().unwrap(), other.parse().unwrap()];
    assert_eq!(world.context.listen_addrs(a), expected);
    assert_eq!(world.context.listen_addrs(b), expected[1..]);
    world.context.destroy_vhost(a).unwrap();
    world.turn();
    assert!(
        world.net.dial(addr()).is_err(),
        "the last vhost of a listener closes it"
    );
    assert_eq!(
        greeted(&mut world, other, "/", "a.test"),
        "b.test",
        "the listener is b's now"
    );
    assert_eq!(world.context.listen_addrs(a), []);
}

#[test]
fn port_zero_is_chosen_by_the_system_and_told() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    let any: std::net::SocketAddr = "10.0.0.1:0".parse().unwrap();
    let b = greeting(&log, "b.test").listen(any).listen(any);
    let b = world.context.create_vhost(b).unwrap();
    let addrs = world.context.listen_addrs(b);
    assert_eq!(addrs.len(), 2);
    assert_ne!(addrs[0].port(), 0);
    assert_ne!(addrs[0], addrs[1]);
    assert_eq!(
        greeted(&mut world, &addrs[1].to_string(), "/", "b.test"),
        "b.test"
    );
}

#[test]
fn every_mistake_in_a_vhost_has_its_error_and_changes_nothing() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    let taken = world.net.listen("10.0.0.9:80".parse().unwrap()).unwrap();
    let free: std::net::SocketAddr = "10.0.0.8:80".parse().unwrap();
    let p = || Recorder::new(&log);
    let cases: Vec<(VhostConfig, &str)> = vec![
        (VhostConfig::new("").listen(free), "Name"),
        (VhostConfig::new("a.test:80").listen(free), "Name"),
        (VhostConfig::new("ok").name("http://x").listen(free), "Name"),
        (VhostConfig::new("*").listen(free), "Name"),
        (
            VhostConfig::new("b")
                .listen(free)
                .listen(taken.local_addr()),
            "Bind",
        ),
        (
            VhostConfig::new("A.TEST").listen(free).listen(addr()),
            "NameTaken",
        ),
        (
            VhostConfig::new("b").listen(free).protocol("x y", p()),
            "ProtocolName",
        ),
        (
            VhostConfig::new("b").listen(free).protocol("", p()),
            "ProtocolName",
        ),
        (
            VhostConfig::new("b")
                .listen(free)
                .protocol("x", p())
                .protocol("x", p()),
            "DuplicateProtocol",
        ),
        (
            VhostConfig::new("b")
                .listen(free)
                .protocol("x", p())
                .default_protocol("y"),
            "DefaultProtocol",
        ),
        (
            VhostConfig::new("b")
                .listen(free)
                .page("x", "text/html", ""),
            "Page",
        ),
        (
            VhostConfig::new("b")
                .listen(free)
                .page("/x?y", "text/html", ""),
            "Page",
        ),
        (
            VhostConfig::new("b").listen(free).page("/x", "a\r\nb", ""),
            "Page",
        ),
    ];
    for (config, expected) in cases {
        let error = world.context.create_vhost(config).unwrap_err();
        let kind = format!("{error:?}");
        assert!(kind.starts_with(expected), "{expected}: {kind}");
        assert!(!error.to_string().is_empty());
        world.turn();
        assert!(world.net.dial(free).is_err(), "{expected}: nothing listens");
    }
    assert_eq!(greeted(&mut world, AT, "/", "a.test"), "a.test");
    world.context.shutdown(Duration::ZERO);
    let late = world
        .context
        .create_vhost(VhostConfig::new("b").listen(free));
    assert!(matches!(late, Err(VhostError::Shutdown)));
}

struct Complaints(Log);

impl ContextObserver for Complaints {
    fn on_vhost_error(&mut self, cx: &mut Cx<'_>, id: VhostId, error: &VhostError) {
        assert!(cx.destroy_vhost(id).is_err(), "the id is stale");
        self.0.push(format!("vhost error {error}"));
    }
}

#[test]
fn a_vhost_that_cannot_be_made_in_a_callback_is_told_to_the_observer() {
    let net = wsloop::sim::Net::new(5);
    let log = Log::default();
    let config = ContextConfig::new().observer(Complaints(log.clone()));
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let mut config = greeting(&log, "a.test").listen(addr());
    let handle = config.add_protocol("outer", Recorder::new(&log));
    context.create_vhost(config).unwrap();
    context.with_protocol(handle, |_, cx| {
        cx.create_vhost(VhostConfig::new("a.test").listen(addr()))
            .unwrap();
        // Made and taken back in one callback.
        let id = cx
            .create_vhost(VhostConfig::new("z.test").listen(addr()))
            .unwrap();
        cx.destroy_vhost(id).unwrap();
    });
    assert_eq!(log.take(), [""; 0]);
    for _ in 0..4 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("vhost error another vhost on 10.0.0.1:80"),
        "{lines:?}"
    );
    // The name of the second one is free again.
    context
        .create_vhost(VhostConfig::new("z.test").listen(addr()))
        .unwrap();
}

#[test]
fn a_destroyed_vhost_takes_no_new_work_and_its_others_go_on() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    let b = greeting(&log, "b.test").listen(addr());
    let b = world.context.create_vhost(b).unwrap();
    let of_a = who(&world, AT, "/", "a.test");
    let of_b = who(&world, AT, "/", "b.test");
    let half = world.net.dial(addr()).unwrap();
    half.write(b"GET / HTTP/1.1\r\nHost: b.test\r\n").unwrap();
    world.turn();
    of_a.read();
    of_b.read();
    world.context.destroy_vhost(b).unwrap();
    world.turn();
    assert_eq!(of_b.read(), plain(0x88, &[0x03, 0xe9]));
    assert_eq!(of_a.read(), b"");
    let info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
    let refused = world.context.client_connect(b, info).unwrap_err();
    assert!(matches!(refused.failure(), ConnectFailure::UnknownProtocol));
    // Its name goes to the default now, also for a request that had begun before.
    assert_eq!(greeted(&mut world, AT, "/", "b.test"), "a.test");
    of_b.write(&masked(0x88, &[0x03, 0xe9])).unwrap();
    world.turn();
    drop(of_b);
    world.pass(Duration::from_secs(6));
    assert!(
        world.context.destroy_vhost(b).is_err(),
        "gone with its last connection"
    );
    of_a.write(&masked(0x89, b"?")).unwrap();
    world.turn();
    assert_eq!(of_a.read(), plain(0x8a, b"?"));
    // And the name can be taken again.
    let again = greeting(&log, "b.test").listen(addr());
    world.context.create_vhost(again).unwrap();
    assert_eq!(greeted(&mut world, AT, "/", "b.test"), "b.test");
}

#[test]
fn vhosts_come_and_go_a_thousand_times_without_a_trace() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    let mut seen = Slot::<VhostId>::new().take();
    for round in 0..1000 {
        let id = world
            .context
            .create_vhost(greeting(&log, "b.test").listen(addr()))
            .unwrap();
        assert!(!seen.contains(&id), "an id is never given twice");
        seen.push(id);
        if round % 100 == 0 {
            assert_eq!(greeted(&mut world, AT, "/", "b.test"), "b.test");
        }
        world.context.destroy_vhost(id).unwrap();
        world.context.service(Some(Duration::ZERO)).unwrap();
    }
    world.pass(Duration::from_secs(6));
    assert_eq!(world.context.connections(), 0);
}

/// What is asked for in `on_vhost_error` waits for the next turn, as everything that callbacks
/// cause in one another does: else a vhost that cannot be made keeps the loop from polling.
#[test]
fn a_vhost_that_is_tried_again_in_its_error_callback_does_not_hold_the_turn() {
    struct Again(Slot<()>);
    impl ContextObserver for Again {
        fn on_vhost_error(&mut self, cx: &mut Cx<'_>, _: VhostId, _: &VhostError) {
            self.0.put(());
            // A loop that never polls would not come to an end by itself.
            assert!(self.0.len() < 1000, "all in one turn");
            cx.create_vhost(VhostConfig::new("not a name"));
        }
    }
    let net = wsloop::sim::Net::new(1);
    let tries = Slot::new();
    let config = ContextConfig::new().observer(Again(tries.clone()));
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let log = Log::default();
    let mut config = VhostConfig::new("a.test");
    let handle = config.add_protocol("p", Recorder::new(&log));
    context.create_vhost(config).unwrap();
    context
        .with_protocol(handle, |_, cx| {
            cx.create_vhost(VhostConfig::new("not a name"))
        })
        .unwrap();
    context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(tries.take().len(), 1, "one try a turn");
    context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(tries.take().len(), 1, "and it goes on");
}

/// The limits of the listener's default vhost hold until `Host` is known, those of the vhost that
/// it names from then on.
#[test]
fn the_head_limits_of_the_named_vhost_are_enforced() {
    let mut world = World::with(|log| greeting(log, "a.test").listen(addr()));
    let log = world.log.clone();
    let tight = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    for (name, limits) in [
        ("bytes.test", tight(|limits| limits.head.bytes = 200)),
        ("headers.test", tight(|limits| limits.head.headers = 5)),
        ("target.test", tight(|limits| limits.head.target = 10)),
    ] {
        let config = greeting(&log, name).listen(addr()).limits(limits);
        world.context.create_vhost(config).unwrap();
    }
    let long = format!("/{}", "x".repeat(100));
    for (target, more, host, status) in [
        (&*long, 0, "a.test", "101"),
        ("/", 0, "bytes.test", "101"),
        (&*long, 0, "bytes.test", "431"),
        ("/", 0, "headers.test", "101"),
        ("/", 1, "headers.test", "431"),
        ("/", 1, "target.test", "101"),
        (&*long, 0, "target.test", "414"),
    ] {
        world.log.take();
        let peer = world.dial();
        let more = "X-More: y\r\n".repeat(more);
        let request = crate::support::request_with(target, &more);
        let request = String::from_utf8(request).unwrap();
        let request = request.replace("Host: a.test", &format!("Host: {host}"));
        peer.write(request.as_bytes()).unwrap();
        world.turn();
        let answer = String::from_utf8_lossy(&peer.read()).into_owned();
        let case = format!("{target} {host}: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{case}");
        let told = world.log.count("filter");
        assert_eq!(told, usize::from(status == "101"), "{case}");
    }
}

/// Every address that tried would be remembered for ever.
#[test]
fn rs_05_who_may_have_no_connection_is_not_accounted_for() {
    let net = wsloop::sim::Net::new(1);
    let config = ContextConfig::new().max_connections_per_ip(0);
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let config = VhostConfig::new("a.test").listen(addr());
    context
        .create_vhost(config.protocol("p", Recorder::default()))
        .unwrap();
    let peer = net.dial(addr()).unwrap();
    crate::support::turn(&mut context, 3);
    assert!(peer.ended());
    assert_eq!(context.connections(), 0);
}
