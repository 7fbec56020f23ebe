//! Callbacks that are about no connection: timers of their own, and wakes.

use crate::context::Context;
use crate::id::TimerTag;
use crate::inner::Owner;
use crate::wsi::Cx;

/// What is told to those who own no connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Timer(TimerTag),
    Wake,
}

impl Context {
    pub(super) fn on_wake(&mut self) {
        if self.cancel.take() {
            self.turn.waking = self.parts.owners();
        }
        while let Some(owner) = self.turn.waking.pop() {
            self.tell_owner(owner, Told::Wake);
        }
    }

    /// A callback that is about no connection.
    pub(super) fn tell_owner(&mut self, owner: Owner, told: Told) {
        let mut cx = Cx::new(&mut self.inner, owner);
        let parts = &mut self.parts;
        match (owner, told) {
            (Owner::Observer, Told::Timer(tag)) => parts.observer.on_timer(&mut cx, tag),
            (Owner::Observer, Told::Wake) => {}
            (Owner::Protocol(index), told) => {
                if let Some(slot) = parts.protocols.get_mut(index as usize) {
                    match told {
                        Told::Timer(tag) => slot.dispatch.free_timer(&mut cx, tag),
                        Told::Wake => slot.dispatch.wake(&mut cx),
                    }
                }
            }
            (Owner::Handler(index), told) => {
                if let Some(slot) = parts.handlers.get_mut(index as usize) {
                    match told {
                        Told::Timer(tag) => slot.dispatch.free_timer(&mut cx, tag),
                        Told::Wake => slot.dispatch.wake(&mut cx),
                    }
                }
            }
            (Owner::HttpClient(index), told) => {
                if let Some(slot) = parts.http_clients.get_mut(index as usize) {
                    match told {
                        Told::Timer(tag) => slot.dispatch.handler().on_free_timer(&mut cx, tag),
                        Told::Wake => slot.dispatch.handler().on_wake(&mut cx),
                    }
                }
            }
            (Owner::Hook(place), told) => {
                if let Some(hook) = parts.hook_at(place) {
                    match told {
                        Told::Timer(tag) => hook.on_timer(&mut cx, tag),
                        Told::Wake => hook.on_wake(&mut cx),
                    }
                }
            }
        }
    }
}
