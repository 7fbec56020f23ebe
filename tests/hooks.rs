//! Who may connect: the hooks of a vhost, on a simulated network.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "hooks/later.rs"]
mod later;
#[path = "hooks/order.rs"]
mod order;
#[path = "hooks/plain.rs"]
mod plain;
#[path = "hooks/ready.rs"]
mod ready;
#[path = "hooks/webhook.rs"]
mod webhook;

use std::sync::{Arc, Mutex};

use support::{Log, Recorder, World, addr};
use wsloop::hook::{FnHook, HookRequestId};
use wsloop::sim::SimPeer;
use wsloop::{
    Cx, Hook, HookAnswer, HookChain, HookConfig, HookError, HookRequest, ProtocolHandle, TimerTag,
    VhostConfig,
};

type Answer = Result<HookAnswer, HookError>;
type Ask = Box<dyn FnMut(&mut Cx<'_>, &HookRequest<'_>) -> Answer + Send>;

/// Writes down what it is asked and told, and answers as the test says.
pub(crate) struct Told {
    name: &'static str,
    log: Log,
    ids: Ids,
    answer: Ask,
}

/// The questions that were asked, in order.
#[derive(Clone, Default)]
pub(crate) struct Ids(Arc<Mutex<Vec<HookRequestId>>>);

impl Ids {
    pub(crate) fn take(&self) -> Vec<HookRequestId> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub(crate) fn one(&self) -> HookRequestId {
        let ids = self.take();
        assert_eq!(ids.len(), 1);
        ids[0]
    }
}

impl Told {
    pub(crate) fn new(
        name: &'static str,
        log: &Log,
        answer: impl FnMut(&mut Cx<'_>, &HookRequest<'_>) -> Answer + Send + 'static,
    ) -> Self {
        Self {
            name,
            log: log.clone(),
            ids: Ids::default(),
            answer: Box::new(answer),
        }
    }

    pub(crate) fn later(name: &'static str, log: &Log, ids: &Ids) -> Self {
        Self {
            ids: ids.clone(),
            ..Self::new(name, log, |_, _| Ok(HookAnswer::Later))
        }
    }
}

impl Hook for Told {
    fn ask(&mut self, cx: &mut Cx<'_>, request: &HookRequest<'_>) -> Answer {
        self.log
            .push(format!("{} asked {}", self.name, request.head().target()));
        self.ids.0.lock().unwrap().push(request.id());
        (self.answer)(cx, request)
    }

    fn on_abandoned(&mut self, _: &mut Cx<'_>, _: HookRequestId) {
        self.log.push(format!("{} abandoned", self.name));
    }

    fn on_timer(&mut self, _: &mut Cx<'_>, tag: TimerTag) {
        self.log.push(format!("{} timer {}", self.name, tag.0));
    }

    fn on_wake(&mut self, _: &mut Cx<'_>) {
        self.log.push(format!("{} wake", self.name));
    }
}

/// A world whose only vhost has hooks, and whose protocol can be reached from outside.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) protocol: ProtocolHandle<Recorder>,
}

impl Site {
    pub(crate) fn new(chain: impl FnOnce(&Log) -> HookChain) -> Self {
        Self::with(|config| config, chain)
    }

    pub(crate) fn with(
        configure: impl FnOnce(VhostConfig) -> VhostConfig,
        chain: impl FnOnce(&Log) -> HookChain,
    ) -> Self {
        let mut protocol = None;
        let world = World::with(|log| {
            let mut config = configure(VhostConfig::new("a.test").listen(addr()));
            protocol = Some(config.add_protocol("p", Recorder::echo(log)));
            config.hooks(chain(log))
        });
        let protocol = protocol.expect("World::with makes the vhost");
        Self { world, protocol }
    }

    /// A vhost with one hook that answers later.
    pub(crate) fn later(ids: &Ids, configure: impl FnOnce(HookConfig) -> HookConfig) -> Self {
        Self::new(|log| {
            let hook = HookConfig::new("slow", Told::later("slow", log, ids));
            HookChain::new().with(configure(hook))
        })
    }

    pub(crate) fn answer(&mut self, id: HookRequestId, answer: Answer) -> bool {
        let done = self
            .world
            .context
            .with_protocol(self.protocol, |_, cx| cx.answer_hook(id, answer));
        self.world.turn();
        done.unwrap().is_ok()
    }

    /// Sends a request and gives what comes back at once.
    pub(crate) fn send(&mut self, request: &[u8]) -> (SimPeer, String) {
        let peer = self.world.dial();
        peer.write(request).unwrap();
        self.world.turn();
        let answer = text(&peer);
        (peer, answer)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.world.log.take()
    }
}

pub(crate) fn text(peer: &SimPeer) -> String {
    String::from_utf8(peer.read()).unwrap()
}

/// The status of a response; 0 for none.
pub(crate) fn status(answer: &str) -> u16 {
    let code = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    code.map_or(0, |code| code.parse().unwrap())
}

/// A hook that always says this.
pub(crate) fn says(answer: impl Fn() -> Answer + Send + 'static) -> impl Hook {
    FnHook::new(move |_: &mut Cx<'_>, _: &HookRequest<'_>| answer())
}
