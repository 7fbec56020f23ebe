//! What the storms and the torture loops have found, one test each.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use wsloop::sim::{Call, Net};
use wsloop::tls::{ClientTls, ServerTls};
use wsloop::{Context, ContextConfig, ListenConfig, PlaintextPolicy, TimerTag, VhostConfig};

use crate::simpki::Pki;
use crate::support::{Log, Observer, Recorder, World, addr, masked};

/// The keys of its timers went with the connection, and they waited on for nobody.
#[test]
fn a_connection_whose_callback_panicked_leaves_no_timer() {
    let mut world = World::new(|log| Recorder {
        established: Some(Box::new(|wsi| {
            wsi.set_timer(Duration::from_secs(3600), TimerTag(1));
            Ok(())
        })),
        message: Some(Box::new(|_, _| resume_unwind(Box::new("a bug")))),
        ..Recorder::new(log)
    });
    let peer = world.open();
    peer.write(&masked(0x81, b"x")).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| world.turn()));
    assert!(panicked.is_err());
    world.turn();
    assert_eq!(world.context.check_invariants(), [""; 0]);
    assert_eq!(world.context.next_deadline(), None);
}

/// The timer that looks after certificates stayed when their vhost had gone.
#[test]
fn a_destroyed_vhost_leaves_no_timer() {
    let net = Net::new(1);
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let listener = ListenConfig::new(addr()).tls(PlaintextPolicy::Reject);
    let config = VhostConfig::new("n0.test")
        .listen(listener)
        .server_tls(ServerTls::new(Pki::get().identity(0)))
        .client_tls(ClientTls::new(Pki::get().roots()))
        .protocol("p", Recorder::default());
    let vhost = context.create_vhost(config).unwrap();
    context.service(Some(Duration::ZERO)).unwrap();
    context.destroy_vhost(vhost).unwrap();
    context.service(Some(Duration::ZERO)).unwrap();
    assert_eq!(context.check_invariants(), [""; 0]);
    assert_eq!(context.next_deadline(), None);
}

/// It was dropped, and nobody was told.
#[test]
fn rs_08_an_accepted_connection_that_cannot_be_watched_is_refused_with_the_reason() {
    let net = Net::new(1);
    let log = Log::default();
    let config = ContextConfig::new().observer(Observer(log.clone()));
    let mut context = Context::simulated(&net, config).unwrap();
    let config = VhostConfig::new("a.test")
        .listen(addr())
        .protocol("p", Recorder::new(&log));
    context.create_vhost(config).unwrap();
    net.fail(Call::Register, net.calls(Call::Register) + 1, ENOSPC);
    let peer = net.dial(addr()).unwrap();
    for _ in 0..3 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("refused No space left"), "{lines:?}");
    assert!(peer.ended());
    assert_eq!((context.connections(), net.sockets().streams), (0, 0));
}

const ENOSPC: i32 = 28;
