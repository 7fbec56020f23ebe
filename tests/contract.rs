//! The contract of the `Protocol` trait, line by line, on a simulated network.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "contract/defaults.rs"]
mod defaults;
#[path = "contract/ends.rs"]
mod ends;
#[path = "contract/nesting.rs"]
mod nesting;
#[path = "contract/panics.rs"]
mod panics;
#[path = "contract/peers.rs"]
mod peers;
#[path = "contract/sends.rs"]
mod sends;
#[path = "contract/timers.rs"]
mod timers;
#[path = "contract/verdicts.rs"]
mod verdicts;
#[path = "contract/vhosts.rs"]
mod vhosts;
#[path = "contract/views.rs"]
mod views;

use std::sync::{Arc, Mutex};

use support::{Log, Recorder, World, addr, masked, plain};
use wsloop::{Cx, ProtocolHandle, VhostConfig, WsiId};

/// A world whose protocol can be reached from outside.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) handle: ProtocolHandle<Recorder>,
}

impl Site {
    pub(crate) fn new(make: impl FnOnce(&Log) -> Recorder) -> Self {
        Self::with(|config| config, make)
    }

    pub(crate) fn with(
        configure: impl FnOnce(VhostConfig) -> VhostConfig,
        make: impl FnOnce(&Log) -> Recorder,
    ) -> Self {
        let mut handle = None;
        let world = World::with(|log| {
            let mut config = configure(VhostConfig::new("a.test").listen(addr()));
            handle = Some(config.add_protocol("p", make(log)));
            config
        });
        let handle = handle.expect("World::with makes the vhost");
        Self { world, handle }
    }

    /// Acts as if in a callback of the protocol.
    pub(crate) fn act<R>(&mut self, f: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let done = self.world.context.with_protocol(self.handle, |_, cx| f(cx));
        done.unwrap()
    }

    /// The protocol's connections.
    pub(crate) fn ids(&mut self) -> Vec<WsiId> {
        self.act(|cx| {
            let mut ids = Vec::new();
            cx.for_each_peer(|peer| ids.push(peer.id()));
            ids
        })
    }

    /// The id of the only connection.
    pub(crate) fn id(&mut self) -> WsiId {
        let ids = self.ids();
        assert_eq!(ids.len(), 1);
        ids[0]
    }
}

/// Something that a callback leaves for the test to look at.
#[derive(Debug, Default)]
pub(crate) struct Slot<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn put(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn a_message_comes_back() {
    let mut world = World::new(Recorder::echo);
    let peer = world.open();
    peer.write(&masked(0x81, b"hello")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x81, b"hello"));
    assert_eq!(world.log.take(), ["text \"hello\""]);
}
