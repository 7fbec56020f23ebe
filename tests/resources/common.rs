//! A server whose protocol counts what it is told instead of writing it down, and its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use wsloop::sim::{Call, Net, SimPeer};
use wsloop::{
    Close, CloseCause, CloseKind, ConnectError, ConnectFailure, Context, ContextConfig,
    ContextObserver, Cx, Established, ListenConfig, ListenerTrouble, Message, Protocol,
    RefusalReason, SendError, ServerRefusal, VhostConfig, Wsi, WsiId,
};

use crate::support::{addr, masked, plain, request};

/// What was told, by kind.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) established: usize,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// How often each reason ended something, with the first and the last time.
    pub(crate) ends: BTreeMap<String, End>,
    pub(crate) troubles: usize,
    /// Everybody who was established or refused.
    pub(crate) ids: Vec<WsiId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) count: usize,
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

impl Told {
    fn end(&mut self, reason: String, at: Duration) {
        let end = self.ends.entry(reason).or_insert(End {
            count: 0,
            first: at,
            last: at,
        });
        end.count += 1;
        end.last = at;
    }

    pub(crate) fn ended(&self) -> usize {
        self.ends.values().map(|end| end.count).sum()
    }

    /// The one reason that ended everything that ended.
    pub(crate) fn only_end(&self) -> (&str, End) {
        assert_eq!(self.ends.len(), 1, "{:?}", self.ends);
        let (reason, end) = self.ends.iter().next().unwrap();
        (reason, *end)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tally {
    net: Net,
    told: Arc<Mutex<Told>>,
}

impl Tally {
    pub(crate) fn new(net: &Net) -> Self {
        Self {
            net: net.clone(),
            told: Arc::default(),
        }
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }
}

/// Sends back what comes; asked for [`MORE`] it sends until the queue is full.
pub(crate) struct Echo(pub(crate) Tally);

/// Has [`Echo`] fill its queue.
pub(crate) const MORE: &[u8] = b"more";
/// With messages of this length.
pub(crate) const PIECE: usize = 1000;

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        let mut told = self.0.told();
        told.established += 1;
        told.ids.push(wsi.id());
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        {
            let mut told = self.0.told();
            told.messages += 1;
            told.bytes += message.len();
        }
        if message.as_bytes() != MORE {
            return Ok(wsi.send(message).map(drop)?);
        }
        loop {
            match wsi.send_binary(&[7; PIECE]) {
                Ok(_) => {}
                Err(SendError::Full { .. }) => return Ok(()),
                Err(other) => return Err(other.into()),
            }
        }
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, (): (), cause: &CloseCause) {
        let reason = match cause.kind() {
            CloseKind::Timeout(deadline) => format!("timeout {:?}", deadline.stage),
            other => other.to_string(),
        };
        self.0.told().end(reason, self.0.net.elapsed());
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        let reason = reason_of(error.failure());
        self.0.told().end(reason, self.0.net.elapsed());
    }
}

fn reason_of(failure: &ConnectFailure) -> String {
    match failure {
        ConnectFailure::Timeout(deadline) => format!("timeout {:?}", deadline.stage),
        other => other.to_string(),
    }
}

impl ContextObserver for Tally {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        let reason = match &refusal.reason {
            RefusalReason::Timeout(deadline) => format!("timeout {:?}", deadline.stage),
            other => other.to_string(),
        };
        let at = self.net.elapsed();
        let mut told = self.told();
        told.end(reason, at);
        told.ids.push(refusal.id);
    }

    fn on_listener_trouble(&mut self, _: &mut Cx<'_>, _: &ListenerTrouble) {
        self.told().troubles += 1;
    }
}

/// A context with one listening vhost.
pub(crate) struct Site {
    pub(crate) net: Net,
    pub(crate) context: Context,
    pub(crate) tally: Tally,
    /// Turns so far.
    pub(crate) turns: usize,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(ContextConfig::new(), |vhost| vhost)
    }

    pub(crate) fn with(
        config: ContextConfig,
        tune: impl FnOnce(VhostConfig) -> VhostConfig,
    ) -> Self {
        let net = Net::new(11);
        let tally = Tally::new(&net);
        let config = config.observer(tally.clone());
        let mut context = Context::simulated(&net, config).unwrap();
        // As many strangers as a test likes dial between two turns.
        let listen = ListenConfig::new(addr()).backlog(100_000);
        let vhost = VhostConfig::new("a.test").listen(listen);
        let vhost = tune(vhost).protocol("echo", Echo(tally.clone()));
        context.create_vhost(vhost).unwrap();
        Self {
            net,
            context,
            tally,
            turns: 0,
        }
    }

    /// One turn.
    pub(crate) fn turn(&mut self) {
        self.context.service(Some(Duration::ZERO)).unwrap();
        self.turns += 1;
    }

    /// Turns until the context says that it has nothing to do; how many those were.
    pub(crate) fn settle(&mut self) -> usize {
        let before = self.turns;
        loop {
            self.turn();
            let reads = self.calls();
            let due = self.context.next_deadline();
            if due.is_none_or(|at| at > self.net.now()) {
                self.turn();
                if self.calls() == reads {
                    return self.turns - before;
                }
            }
            assert!(self.turns - before < 100_000, "it never comes to rest");
        }
    }

    /// Calls to the system of all kinds.
    pub(crate) fn calls(&self) -> u64 {
        [Call::Accept, Call::Connect, Call::Read, Call::Write]
            .map(|call| self.net.calls(call))
            .iter()
            .sum()
    }

    /// Lets time pass in such steps, with as many turns after each as there is work for.
    pub(crate) fn pass(&mut self, time: Duration, step: Duration) {
        let until = self.net.elapsed() + time;
        while self.net.elapsed() < until {
            self.net.advance(step.min(until - self.net.elapsed()));
            self.settle();
        }
    }

    /// Strangers who have been accepted.
    pub(crate) fn dial(&mut self, count: usize) -> Vec<SimPeer> {
        let peers = dial(&self.net, addr(), count);
        self.settle();
        peers
    }

    /// Strangers with a WebSocket.
    pub(crate) fn open(&mut self, count: usize) -> Vec<SimPeer> {
        let peers = self.dial(count);
        for peer in &peers {
            peer.write(&request("/")).unwrap();
        }
        self.settle();
        for peer in &peers {
            assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
        }
        peers
    }

    /// Everybody says something; within how many turns all had their answers.
    pub(crate) fn round(&mut self, peers: &[SimPeer]) -> usize {
        for peer in peers {
            peer.write(&masked(0x81, b"hello")).unwrap();
        }
        let answer = plain(0x81, b"hello");
        let mut waiting: Vec<&SimPeer> = peers.iter().collect();
        let mut turns = 0;
        while !waiting.is_empty() {
            assert!(turns < 1000, "{} are not served", waiting.len());
            self.turn();
            turns += 1;
            waiting.retain(|peer| match peer.read() {
                nothing if nothing.is_empty() => true,
                bytes => {
                    assert_eq!(bytes, answer);
                    false
                }
            });
        }
        turns
    }
}

pub(crate) fn dial(net: &Net, to: SocketAddr, count: usize) -> Vec<SimPeer> {
    (0..count).map(|_| net.dial(to).unwrap()).collect()
}

/// Events that one poll takes, so within how many turns everybody has a turn when so many are ready.
pub(crate) fn batches(ready: usize) -> usize {
    ready.div_ceil(1024)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
