//! The contract of the `Protocol` trait, line by line, on a simulated network.
#![cfg(feature = "sim")]

mod support;

use support::{Recorder, World, masked, plain};

#[test]
fn a_message_comes_back() {
    let mut world = World::new(Recorder::echo);
    let peer = world.open();
    peer.write(&masked(0x81, b"hello")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x81, b"hello"));
    assert_eq!(world.log.take(), ["text \"hello\""]);
}
