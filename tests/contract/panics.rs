//! A panic in a callback ends its own connection and nothing else (RE-07).

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::sim::{Call, Net, SimPeer};
use wsloop::{
    Accept, Chunk, ClientConnectInfo, Close, CloseCause, CloseFrame, ConnectError, Context,
    ContextConfig, ContextObserver, Cx, Established, ListenerTrouble, Message, Protocol,
    ProtocolHandle, Refuse, Request, ServerRefusal, TimerTag, VhostConfig, Wsi, WsiId,
};

use crate::support::{Log, Recorder, World, addr, close_payload, masked, plain, request};

/// A session that is counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Echoes; panics in one kind of callback, once.
struct Grumpy {
    place: Option<&'static str>,
    live: Arc<AtomicUsize>,
    log: Log,
}

impl Grumpy {
    fn at(&mut self, place: &'static str) {
        self.log.push(place);
        if self.place == Some(place) {
            self.place = None;
            panic!("a panic that the test wants, in {place}");
        }
    }
}

impl Protocol for Grumpy {
    type Session = Counted;

    fn filter_upgrade(&mut self, _: &mut Cx<'_>, _: &Request<'_>) -> Result<Accept, Refuse> {
        self.at("filter");
        Ok(Accept::new())
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<Counted, Close> {
        self.live.fetch_add(1, Ordering::Relaxed);
        let session = Counted(Arc::clone(&self.live));
        wsi.set_timer(Duration::from_secs(600), TimerTag(1));
        self.at("established");
        Ok(session)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut Counted,
        message: Message<'_>,
    ) -> Result<(), Close> {
        match message.as_bytes() {
            b"timer" => drop(wsi.set_timer(Duration::ZERO, TimerTag(2))),
            b"free" => drop(wsi.cx().set_timer(Duration::ZERO, TimerTag(2))),
            b"writable" => wsi.request_writable(),
            b"message" => self.at("message"),
            _ => {
                wsi.send(message)?;
            }
        }
        Ok(())
    }

    fn on_chunk(&mut self, _: &mut Wsi<'_>, _: &mut Counted, _: Chunk<'_>) -> Result<(), Close> {
        self.at("chunk");
        Ok(())
    }

    fn on_writable(&mut self, _: &mut Wsi<'_>, _: &mut Counted) -> Result<(), Close> {
        self.at("writable");
        Ok(())
    }

    fn on_pong(
        &mut self,
        _: &mut Wsi<'_>,
        _: &mut Counted,
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<(), Close> {
        self.at("pong");
        Ok(())
    }

    fn on_peer_close(&mut self, _: &mut Wsi<'_>, _: &mut Counted, _: Option<CloseFrame<'_>>) {
        self.at("peer_close");
    }

    fn on_timer(&mut self, _: &mut Wsi<'_>, _: &mut Counted, _: TimerTag) -> Result<(), Close> {
        self.at("timer");
        Ok(())
    }

    fn on_free_timer(&mut self, _: &mut Cx<'_>, _: TimerTag) {
        self.at("free");
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, session: Counted, _: &CloseCause) {
        self.at("closed");
        drop(session);
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, _: &ConnectError) {
        self.at("connect_error");
    }

    fn on_wake(&mut self, _: &mut Cx<'_>) {
        self.at("wake");
    }
}

struct Stage {
    world: World,
    handle: ProtocolHandle<Grumpy>,
    live: Arc<AtomicUsize>,
}

impl Stage {
    fn new() -> Self {
        let live = Arc::new(AtomicUsize::new(0));
        let mut handle = None;
        let world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr());
            let grumpy = || Grumpy {
                place: None,
                live: Arc::clone(&live),
                log: log.clone(),
            };
            handle = Some(config.add_protocol("p", grumpy()));
            config
        });
        Self {
            world,
            handle: handle.expect("just set"),
            live,
        }
    }

    fn arm(&mut self, place: &'static str) {
        self.world.context.protocol(self.handle).unwrap().place = Some(place);
    }

    /// Serves like somebody who catches panics; how many there were.
    fn turn(&mut self) -> usize {
        let mut panics = 0;
        for _ in 0..64 {
            let context = &mut self.world.context;
            let served = catch_unwind(AssertUnwindSafe(|| {
                context.service(Some(Duration::ZERO)).unwrap();
            }));
            panics += usize::from(served.is_err());
        }
        panics
    }

    fn echoes(&mut self, peer: &SimPeer) -> bool {
        peer.write(&masked(0x81, b"still there?")).unwrap();
        self.turn();
        peer.read() == plain(0x81, b"still there?")
    }
}

#[test]
fn re_07_a_panic_ends_its_own_connection_only() {
    // What provokes it, and how many of the victim's connections that costs.
    let cases: [(&'static str, &[u8], usize); 9] = [
        ("filter", b"", 1),
        ("established", b"", 1),
        ("message", b"message", 1),
        ("writable", b"writable", 1),
        ("timer", b"timer", 1),
        ("free", b"free", 0),
        ("pong", b"", 1),
        ("peer_close", b"", 1),
        ("closed", b"", 1),
    ];
    for (place, message, lost) in cases {
        let mut stage = Stage::new();
        let before = stage.world.open();
        let opened_late = matches!(place, "filter" | "established");
        let victim = if opened_late {
            stage.world.dial()
        } else {
            stage.world.open()
        };
        let after = stage.world.open();
        stage.arm(place);
        // Everybody has something to say in the same batch of events.
        before.write(&masked(0x81, b"1")).unwrap();
        let close = masked(0x88, &close_payload(1000, ""));
        match place {
            "filter" | "established" => victim.write(&request("/")).unwrap(),
            "pong" => victim.write(&masked(0x8a, b"")).unwrap(),
            "peer_close" | "closed" => victim.write(&close).unwrap(),
            _ => victim.write(&masked(0x81, message)).unwrap(),
        }
        after.write(&masked(0x81, b"2")).unwrap();
        let panics = stage.turn();
        assert_eq!(panics, 1, "{place}");
        assert_eq!(
            stage.world.log.count(place),
            1,
            "{place}: {:?}",
            stage.world.log.lines()
        );
        let told = usize::from(place == "closed");
        assert_eq!(
            stage.world.log.count("closed"),
            told,
            "{place}: no on_closed"
        );
        assert_eq!(before.read(), plain(0x81, b"1"), "{place}");
        assert_eq!(after.read(), plain(0x81, b"2"), "{place}");
        assert_eq!(stage.world.context.connections(), 3 - lost, "{place}");
        assert_eq!(
            stage.live.load(Ordering::Relaxed),
            3 - lost,
            "{place}: sessions"
        );
        assert!(stage.echoes(&before) && stage.echoes(&after), "{place}");
        if lost == 1 {
            victim.read();
            assert!(
                victim.ended() || victim.was_reset(),
                "{place}: the peer sees the end"
            );
        }
        // The slot and the accounts are free for the next one.
        let next = stage.world.open();
        assert!(stage.echoes(&next), "{place}");
        drop((before, victim, after, next));
        stage.turn();
        assert_eq!(stage.live.load(Ordering::Relaxed), 0, "{place}: sessions");
        assert_eq!(stage.world.context.connections(), 0, "{place}");
    }
}

#[test]
fn re_07_a_panic_in_on_chunk_ends_its_own_connection_only() {
    let live = Arc::new(AtomicUsize::new(0));
    let mut world = World::with(|log| {
        let mut config = VhostConfig::new("a.test").listen(addr());
        let grumpy = Grumpy {
            place: Some("chunk"),
            live: Arc::clone(&live),
            log: log.clone(),
        };
        config.add_chunk_protocol("p", grumpy);
        config
    });
    let victim = world.open();
    let other = world.open();
    victim.write(&masked(0x01, b"x")).unwrap();
    let context = &mut world.context;
    let served = catch_unwind(AssertUnwindSafe(|| {
        context.service(Some(Duration::ZERO)).unwrap()
    }));
    assert!(served.is_err());
    other.write(&masked(0x01, b"y")).unwrap();
    world.turn();
    assert_eq!(world.log.take(), ["chunk", "chunk"]);
    assert_eq!(live.load(Ordering::Relaxed), 1);
}

/// Panics once in each of its callbacks.
struct GrumpyObserver {
    done: BTreeSet<String>,
    log: Log,
}

impl GrumpyObserver {
    fn at(&mut self, place: &str) {
        self.log.push(format!("observer {place}"));
        let first = self.done.insert(place.to_owned());
        assert!(!first, "a panic that the test wants, in {place}");
    }
}

impl ContextObserver for GrumpyObserver {
    fn on_refused(&mut self, _: &mut Cx<'_>, _: &ServerRefusal) {
        self.at("refused");
    }

    fn on_listener_trouble(&mut self, _: &mut Cx<'_>, _: &ListenerTrouble) {
        self.at("trouble");
    }

    fn on_timer(&mut self, _: &mut Cx<'_>, tag: TimerTag) {
        self.at(&format!("timer {}", tag.0));
    }
}

#[test]
fn re_07_a_panic_in_the_observer_is_told_once_and_loses_nobody() {
    let net = Net::new(1);
    let log = Log::default();
    let observer = GrumpyObserver {
        done: BTreeSet::new(),
        log: log.clone(),
    };
    let config = ContextConfig::new().observer(observer);
    let mut context = Context::simulated(&net, config).unwrap();
    let config = VhostConfig::new("a.test").listen(addr());
    let config = config.protocol("p", Recorder::echo(&log));
    context.create_vhost(config).unwrap();
    let good = net.dial(addr()).unwrap();
    good.write(&request("/")).unwrap();
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    assert!(good.read().starts_with(b"HTTP/1.1 101 "));
    log.take();

    let mut bad: Vec<_> = (0..3).map(|_| net.dial(addr()).unwrap()).collect();
    for peer in &bad {
        peer.write(b"no HTTP\r\n\r\n").unwrap();
    }
    for tag in [1, 2] {
        context.set_timer(Duration::ZERO, TimerTag(tag));
    }
    let emfile = if cfg!(windows) { 10_024 } else { 24 };
    net.fail(Call::Accept, net.calls(Call::Accept) + 5, emfile);
    let mut panics = 0;
    for turn in 0..64 {
        if turn == 32 {
            // The accept that fails.
            bad.push(net.dial(addr()).unwrap());
        }
        good.write(&masked(0x81, b"still there?")).unwrap();
        let served = catch_unwind(AssertUnwindSafe(|| {
            context.service(Some(Duration::ZERO)).unwrap();
        }));
        panics += usize::from(served.is_err());
    }
    assert_eq!(log.count("observer refused"), 3, "{log:?}");
    assert_eq!(log.count("observer timer"), 2, "{log:?}");
    assert_eq!(log.count("observer trouble"), 1, "{log:?}");
    assert_eq!(panics, 4, "each kind once, timers by their tags");
    context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(log.count("text"), 64, "nobody else has noticed");
    assert_eq!(good.read(), plain(0x81, b"still there?").repeat(64));
    drop(bad);
    net.advance(Duration::from_secs(1));
    for _ in 0..8 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(context.connections(), 1);
}

#[test]
fn re_07_a_panic_in_on_wake_lets_the_other_protocols_wake() {
    let mut stage = Stage::new();
    let log = stage.world.log.clone();
    for name in ["b.test", "c.test"] {
        let config = VhostConfig::new(name).protocol("r", Recorder::new(&log));
        stage.world.context.create_vhost(config).unwrap();
    }
    stage.arm("wake");
    stage.world.context.cancel_service_handle().cancel_service();
    assert_eq!(stage.turn(), 1);
    assert_eq!(log.count("wake"), 3);
}

#[test]
fn re_07_a_panic_in_on_connect_error_loses_no_other_attempts_answer() {
    let mut stage = Stage::new();
    let vhost = stage.world.vhost;
    stage.arm("connect_error");
    // No such names: the resolver's answers come together.
    for n in 0..4 {
        let info = ClientConnectInfo::new(&format!("none{n}.test"), 80).unwrap();
        stage.world.context.client_connect(vhost, info).unwrap();
    }
    assert_eq!(stage.turn(), 1);
    assert_eq!(
        stage.world.log.count("connect_error"),
        4,
        "no time has passed"
    );
    assert_eq!(stage.world.context.connections(), 0);
}

#[test]
fn re_07_a_panic_while_a_vhost_goes_or_the_context_shuts_down_does_not_stop_that() {
    for shutdown in [false, true] {
        let mut stage = Stage::new();
        let silent = stage
            .world
            .net
            .listen("10.0.0.7:80".parse().unwrap())
            .unwrap();
        let vhost = stage.world.vhost;
        let before = stage.world.open();
        for _ in 0..2 {
            let info = ClientConnectInfo::new("10.0.0.7", 80).unwrap();
            stage.world.context.client_connect(vhost, info).unwrap();
        }
        stage.turn();
        let after = stage.world.open();
        stage.arm("connect_error");
        let context = &mut stage.world.context;
        let begun = catch_unwind(AssertUnwindSafe(|| {
            if shutdown {
                context.shutdown(Duration::from_secs(3));
            } else {
                context.destroy_vhost(vhost).unwrap();
            }
        }));
        let panics = usize::from(begun.is_err()) + stage.turn();
        assert_eq!(panics, 1, "shutdown {shutdown}");
        assert_eq!(
            stage.world.log.count("connect_error"),
            2,
            "shutdown {shutdown}"
        );
        for peer in [&before, &after] {
            assert_eq!(
                peer.read(),
                plain(0x88, &close_payload(1001, "")),
                "shutdown {shutdown}"
            );
        }
        for _ in 0..70 {
            stage.world.net.advance(Duration::from_millis(100));
            stage.turn();
        }
        drop((before, after, silent));
        stage.turn();
        assert_eq!(stage.world.context.connections(), 0, "shutdown {shutdown}");
        assert_eq!(stage.world.context.is_shut_down(), shutdown);
        assert_eq!(stage.live.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn re_07_a_context_that_is_dropped_by_a_panic_calls_nobody() {
    let mut stage = Stage::new();
    let peer = stage.world.open();
    let other = stage.world.open();
    stage.arm("message");
    peer.write(&masked(0x81, b"message")).unwrap();
    let log = stage.world.log.clone();
    let live = Arc::clone(&stage.live);
    log.take();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let mut stage = stage;
        for _ in 0..8 {
            stage.world.context.service(Some(Duration::ZERO)).unwrap();
        }
    }));
    assert!(unwound.is_err());
    assert_eq!(log.count("closed"), 0);
    assert_eq!(live.load(Ordering::Relaxed), 0, "the sessions are dropped");
    drop(other);
}

/// Timers that are due end each other's connections while a panic has left others to be settled.
#[test]
fn re_07_what_a_panic_leaves_to_settle_is_settled_with_what_comes_next() {
    const SECOND: Duration = Duration::from_secs(1);
    let ids: Arc<Mutex<Vec<WsiId>>> = Arc::default();
    let peer_of = |ids: &Arc<Mutex<Vec<WsiId>>>| {
        let ids = Arc::clone(ids);
        move |n: usize| ids.lock().unwrap()[n]
    };
    let (named_by_text, named_by_tag) = (peer_of(&ids), peer_of(&ids));
    let mut to_panic = true;
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(move |wsi| {
            ids.lock().unwrap().push(wsi.id());
            Ok(())
        })),
        message: Some(Box::new(move |wsi, message| {
            match message {
                Message::Text("end 1 and 2") => {
                    wsi.cx().abort(named_by_text(1)).unwrap();
                    wsi.cx().abort(named_by_text(2)).unwrap();
                }
                Message::Text("later end 4") => drop(wsi.set_timer(SECOND, TimerTag(4))),
                _ => drop(wsi.set_timer(SECOND, TimerTag(3))),
            }
            Ok(())
        })),
        timer: Some(Box::new(move |wsi, tag| {
            let other = usize::try_from(tag.0).unwrap();
            wsi.cx().abort(named_by_tag(other)).unwrap();
            Ok(())
        })),
        closed: Some(Box::new(move |_, _| {
            assert!(
                !std::mem::take(&mut to_panic),
                "a panic that the test wants"
            );
        })),
        ..Recorder::new(log)
    });
    let peers: Vec<SimPeer> = (0..5).map(|_| world.open()).collect();
    peers[3].write(&masked(0x81, b"later end 4")).unwrap();
    peers[4].write(&masked(0x81, b"later end 3")).unwrap();
    world.turn();
    peers[0].write(&masked(0x81, b"end 1 and 2")).unwrap();
    let turn = AssertUnwindSafe(|| world.turn());
    assert!(catch_unwind(turn).is_err());
    world.net.advance(SECOND);
    // Reads the clock, so that the turn that only goes on sees that the timers are due.
    world.context.set_timer(SECOND, TimerTag(0));
    for _ in 0..3 {
        world.context.service(Some(Duration::ZERO)).unwrap();
        let wrong = world.context.check_invariants();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    // The second timer went with its connection.
    assert_eq!(world.context.connections(), 2);
}
