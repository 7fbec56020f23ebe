//! Ten thousand connections at once, or as many as the system lets a process have.
//!
//! `cargo test --test scale -- --nocapture` tells how many they were and what one costs.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::alloc::System;
use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

use real::{CHILD, child, descriptors, loopback, resident};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, Cx, Established,
    ListenConfig, Message, Protocol, ProtocolHandle, Timeouts, VhostConfig, VhostId, Wsi, WsiId,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NAME: &str = "ten_thousand_connections_come_are_served_and_leave_nothing_behind";
const MOST: usize = 10_000;
/// Dialled and not established yet, at most: the listener's backlog holds them.
const UNDER_WAY: usize = 256;
const ADDRESS: &str = "WSLOOP_TEST_ADDRESS";
const COUNT: &str = "WSLOOP_TEST_COUNT";
const PAYLOAD: &str = "twenty bytes of text";

#[test]
fn ten_thousand_connections_come_are_served_and_leave_nothing_behind() {
    if std::env::var_os(CHILD).is_some() {
        return dial_them();
    }
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap() as usize;
    let count = MOST.min(limit - 200);
    let mut server = Server::new();
    // The first round leaves what a loop keeps: tables that have grown, spare buffers. From the
    // second on nothing may be added. What the system counts is no measure of that: how much the
    // allocator holds back depends on the order in which connections happened to end.
    server.round(count);
    let (memory, fds) = (live(), descriptors());
    let held = server.round(count);
    eprintln!(
        "{count} connections: {} bytes each by the library's account, {} by the system's",
        held.accounted / count,
        held.resident / count
    );
    assert_eq!(descriptors(), fds);
    assert_eq!(server.context.memory(), 0);
    let grown = live().saturating_sub(memory);
    eprintln!("{grown} bytes are held in addition");
    assert!(grown < count * 16, "{grown} bytes more than before");
    assert!(
        held.accounted / count <= 1024,
        "an idle connection costs more than a KiB"
    );
}

/// Bytes that are allocated now.
fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Ten thousand of them on a busy machine take longer than any one connection should.
fn patient() -> Timeouts {
    let long = Duration::from_secs(600);
    let mut timeouts = Timeouts::default();
    (timeouts.tcp, timeouts.response, timeouts.connect) = (long, long, long);
    (timeouts.head, timeouts.write, timeouts.close) = (long, long, long);
    timeouts
}

/// What the connections held when all were open and idle.
struct Held {
    accounted: usize,
    resident: usize,
}

struct Server {
    context: Context,
    vhost: VhostId,
    crowd: ProtocolHandle<Crowd>,
    base: usize,
}

impl Server {
    fn new() -> Self {
        let base = resident();
        let mut context = Context::new(ContextConfig::new()).unwrap();
        let config = VhostConfig::new("localhost").timeouts(patient());
        let mut config = config.listen(ListenConfig::new(loopback()));
        let crowd = config.add_protocol("crowd", Crowd::default());
        let vhost = context.create_vhost(config).unwrap();
        Self {
            context,
            vhost,
            crowd,
            base,
        }
    }

    /// All of them come, say something, are answered, and go.
    fn round(&mut self, count: usize) -> Held {
        let addr = self.context.listen_addrs(self.vhost)[0];
        let mut command = child(NAME);
        command
            .env(ADDRESS, addr.to_string())
            .env(COUNT, count.to_string());
        let mut child = command.spawn().unwrap();
        self.until(&mut child, |crowd| crowd.open == count);
        let held = Held {
            accounted: self.context.memory(),
            resident: resident().saturating_sub(self.base),
        };
        assert_eq!(self.context.connections(), count);

        self.say(PAYLOAD, count);
        self.until(&mut child, |crowd| crowd.answers == count);
        self.say(GOODBYE, count);
        self.until(&mut child, |crowd| crowd.clean == count);
        while self.context.connections() > 0 {
            self.context.service(Some(TURN)).unwrap();
        }
        assert!(child.wait().unwrap().success());
        *self.crowd() = Crowd::default();
        held
    }

    fn say(&mut self, text: &str, count: usize) {
        let sent = self.context.with_protocol(self.crowd, |_, cx| {
            cx.broadcast(Message::Text(text), |_| true)
        });
        assert_eq!(sent.unwrap().queued, count);
    }

    fn crowd(&mut self) -> &mut Crowd {
        self.context.protocol(self.crowd).unwrap()
    }

    /// Turns until that is so; not for ever if nothing moves.
    fn until(&mut self, child: &mut Child, done: impl Fn(&Crowd) -> bool) {
        let (mut before, mut idle) = (Crowd::default(), 0);
        while !done(self.crowd()) {
            self.context.service(Some(TURN)).unwrap();
            let now = *self.crowd();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
            // Once it has had all of our goodbyes it may end before we have looked.
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none_or(|status| status.success()),
                "the other side has ended: {ended:?}, {now:?}"
            );
            assert!(idle < IDLE, "nothing moves any more: {now:?}");
        }
    }
}

const TURN: Duration = Duration::from_millis(100);
/// Turns without progress; those that wait are some twenty seconds.
const IDLE: usize = 20_000;
const GOODBYE: &str = "goodbye";

/// The server's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Crowd {
    open: usize,
    answers: usize,
    clean: usize,
}

impl Protocol for Crowd {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.open += 1;
        Ok(())
    }

    fn on_message(
        &mut self,
        _: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        assert_eq!(message, Message::Text(PAYLOAD));
        self.answers += 1;
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        assert!(cause.is_clean(), "{cause}");
        self.clean += 1;
    }
}

/// The other process.
fn dial_them() {
    let addr: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let count: usize = std::env::var(COUNT).unwrap().parse().unwrap();
    let mut context = Context::new(ContextConfig::new()).unwrap();
    let mut config = VhostConfig::new("client").timeouts(patient());
    let dialler = config.add_protocol("crowd", Dialler::default());
    let vhost = context.create_vhost(config).unwrap();
    let info = ClientConnectInfo::from_url(&format!("ws://{addr}/")).unwrap();
    let (mut dialled, mut idle) = (0, 0);
    loop {
        let (open, closed) = {
            let state = context.protocol(dialler).unwrap();
            (state.open, state.closed)
        };
        while dialled < count && dialled - open < UNDER_WAY {
            context.client_connect(vhost, info.clone()).unwrap();
            dialled += 1;
        }
        if closed == count {
            return;
        }
        let before = (open, closed);
        context.service(Some(TURN)).unwrap();
        let state = context.protocol(dialler).unwrap();
        idle = if before == (state.open, state.closed) {
            idle + 1
        } else {
            0
        };
        assert!(idle < IDLE, "nothing moves any more: {before:?} of {count}");
    }
}

#[derive(Default)]
struct Dialler {
    open: usize,
    closed: usize,
}

impl Protocol for Dialler {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.open += 1;
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        if message == Message::Text(GOODBYE) {
            return Err(Close::normal());
        }
        Ok(wsi.send(message).map(drop)?)
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        assert!(cause.is_clean(), "{cause}");
        self.closed += 1;
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        panic!("{error}");
    }
}
