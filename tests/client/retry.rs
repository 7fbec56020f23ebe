//! Trying again: concealed failures, growing delays, reconnecting.

use std::time::Duration;

use wsloop::sim::Call;
use wsloop::{ProtocolHandle, RetryPolicy, Timeouts, VhostConfig, VhostId, WsiId};

use crate::support::{Recorder, World, plain};
use crate::{Caller, Site, Told, there};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// 1 s, 2 s, 4 s and no jitter, so that times are exact.
fn policy() -> RetryPolicy {
    RetryPolicy::builder()
        .delays([secs(1), secs(2), secs(4)])
        .jitter_percent(0)
        .build()
        .unwrap()
}

/// When strangers were dialled in the next `time`, in tenths of a second; each is refused.
fn dialled(site: &mut Site, time: Duration) -> Vec<u128> {
    let begin = site.world.net.elapsed();
    let mut at = Vec::new();
    site.world.turn();
    while site.world.net.elapsed() - begin <= time {
        if let Some(peer) = site.there.accept() {
            at.push((site.world.net.elapsed() - begin).as_millis() / 100);
            drop(peer);
        }
        site.world.pass(Duration::from_millis(100));
    }
    at
}

fn abort(world: &mut World, handle: ProtocolHandle<Caller>, id: WsiId) {
    world
        .context
        .with_protocol(handle, |_, cx| cx.abort(id))
        .unwrap()
        .unwrap();
}

/// A client vhost whose protocol can be reached.
fn reachable(site: &mut Site) -> (VhostId, ProtocolHandle<Caller>) {
    let mut config = VhostConfig::new("client");
    let handle = config.add_protocol("c", site.caller.clone());
    (site.world.context.create_vhost(config).unwrap(), handle)
}

#[test]
fn failures_are_concealed_until_the_table_is_used_up() {
    let mut site = Site::new();
    let id = site.connect(there().reconnect(policy()));
    let at = dialled(&mut site, secs(20));
    // The peer's end is seen a turn later, so each step may take a tenth more.
    assert_eq!(at.len(), 4, "{at:?}");
    for (pair, delay) in at.windows(2).zip([10, 20, 40]) {
        let step = pair[1] - pair[0];
        assert!((delay..=delay + 1).contains(&step), "{at:?}");
    }
    let error = site.caller.error();
    assert_eq!((error.id, error.attempts), (id, 4));
    assert_eq!(error.stage, "response");
    assert_eq!(site.world.context.connections(), 0);
}

#[test]
fn the_policy_of_a_connection_rules_its_silence() {
    let policy = RetryPolicy::builder()
        .ping_after(secs(5))
        .hang_up_after(secs(8))
        .build()
        .unwrap();
    let mut site = Site::new();
    let peer = site.open(there().reconnect(policy));
    peer.read();
    site.world.pass(secs(6));
    assert_eq!(peer.read().first(), Some(&0x89), "a ping");
    site.world.pass(secs(3));
    let told = site.caller.take();
    assert!(
        matches!(told[..], [Told::Closed(..)]),
        "hung up by its own policy, not after 45 s: {told:?}"
    );
}

#[test]
fn an_error_that_cannot_get_better_is_not_tried_again() {
    let mut site = Site::new();
    let (peer, _) = site.dial(there().reconnect(policy()));
    peer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    site.world.turn();
    let error = site.caller.error();
    assert_eq!(error.attempts, 1);
    assert_eq!(dialled(&mut site, secs(20)), [0; 0]);
}

#[test]
fn dn_07_each_attempt_looks_the_name_up_again() {
    let mut site = Site::new();
    let info = wsloop::ClientConnectInfo::from_url("ws://host.test/").unwrap();
    site.connect(info.reconnect(policy()));
    site.world.turn();
    assert!(site.caller.take().is_empty(), "not found, and concealed");
    site.world
        .net
        .name("host.test", ["10.0.0.7".parse().unwrap()]);
    site.world.pass(secs(1));
    let (peer, request) = site.accept();
    site.welcome(&peer, &request);
}

#[test]
fn a_lost_connection_is_dialled_again_and_told_as_reconnect() {
    type Lose = fn(&mut Site, wsloop::sim::SimPeer);
    let close: Lose = |site, peer| {
        peer.write(&plain(0x88, &[0x03, 0xe8])).unwrap();
        site.world.turn();
        peer.read();
        drop(peer);
    };
    let end: Lose = |_, peer| peer.shutdown_write();
    let reset: Lose = |_, peer| peer.reset();
    let silence: Lose = |site, peer| {
        site.world.pass(secs(46));
        drop(peer);
    };
    for (name, lose) in [
        ("close", close),
        ("end", end),
        ("reset", reset),
        ("silence", silence),
    ] {
        let mut site = Site::new();
        let peer = site.open(there().reconnect(policy()));
        lose(&mut site, peer);
        site.world.turn();
        let told = site.caller.take();
        let [Told::Closed(_, Some(next))] = told[..] else {
            panic!("{name}: {told:?}")
        };
        site.world.pass(Duration::from_millis(1100));
        let (peer, request) = site.accept();
        site.welcome(&peer, &request);
        // The new id is the connection's.
        let (_, handle) = reachable(&mut site);
        abort(&mut site.world, handle, next);
        site.world.turn();
        let told = site.caller.take();
        assert!(
            matches!(&told[..], [Told::Closed(_, None)]),
            "{name}: {told:?}"
        );
        assert_eq!(
            dialled(&mut site, secs(20)),
            [0; 0],
            "{name}: aborted, so it stays so"
        );
    }
}

#[test]
fn a_waiting_attempt_can_be_aborted() {
    let mut site = Site::new();
    let (vhost, handle) = reachable(&mut site);
    let info = there().reconnect(policy());
    let id = site.world.context.client_connect(vhost, info).unwrap();
    site.world.turn();
    drop(site.there.accept().unwrap());
    site.world.turn();
    assert!(site.caller.take().is_empty());
    abort(&mut site.world, handle, id);
    site.world.turn();
    let error = site.caller.error();
    assert_eq!(
        (error.id, error.failure.as_str()),
        (id, "aborted by the application")
    );
    assert_eq!(error.attempts, 1, "the second one was not made");
    assert_eq!(dialled(&mut site, secs(20)), [0; 0]);
    assert_eq!(site.world.context.connections(), 0);
}

#[test]
fn a_connection_that_the_application_closed_stays_closed() {
    for how in ["close", "abort", "err"] {
        let mut world = World::new(Recorder::new);
        let recorder = Recorder {
            message: Some(Box::new(move |wsi, _| {
                match how {
                    "close" => wsi.close(wsloop::Close::normal()),
                    "abort" => wsi.abort(),
                    _ => return Err(wsloop::Close::normal()),
                }
                Ok(())
            })),
            closed: Some(Box::new(|cx, _| {
                assert_eq!(cx.connections(), 1, "only this one")
            })),
            ..Recorder::new(&world.log)
        };
        let config = VhostConfig::new("client").protocol("c", recorder);
        let vhost = world.context.create_vhost(config).unwrap();
        let listener = world.net.listen(crate::THERE.parse().unwrap()).unwrap();
        world
            .context
            .client_connect(vhost, there().reconnect(policy()))
            .unwrap();
        world.turn();
        let peer = listener.accept().unwrap();
        let request = String::from_utf8(peer.read()).unwrap();
        peer.write(&crate::switching(&request, "")).unwrap();
        peer.write(&plain(0x81, b"go")).unwrap();
        world.turn();
        drop(peer);
        world.pass(secs(30));
        assert_eq!(world.log.count("closed"), 1, "{how}");
        assert!(listener.accept().is_none(), "{how}");
        assert_eq!(world.context.connections(), 0, "{how}");
    }
}

/// RC-02: accepted and dropped at once, again and again.
#[test]
fn rc_02_a_flapping_server_is_backed_off_from_and_given_up() {
    let mut site = Site::new();
    let mut peer = site.open(there().reconnect(policy()));
    for delay in [1, 2, 4] {
        drop(peer);
        site.world.turn();
        let told = site.caller.take();
        assert!(matches!(told[..], [Told::Closed(_, Some(_))]), "{told:?}");
        site.world.pass(secs(delay) - Duration::from_millis(100));
        assert!(site.there.accept().is_none(), "before {delay} s");
        site.world.pass(Duration::from_millis(200));
        let (next, request) = site.accept();
        site.welcome(&next, &request);
        peer = next;
    }
    drop(peer);
    site.world.turn();
    let told = site.caller.take();
    assert!(
        matches!(told[..], [Told::Closed(_, None)]),
        "given up: {told:?}"
    );
    assert_eq!(dialled(&mut site, secs(30)), [0; 0]);
}

#[test]
fn rc_02_a_connection_that_was_stable_begins_the_table_anew() {
    let mut site = Site::new();
    let mut peer = site.open(there().reconnect(policy()));
    for _ in 0..6 {
        site.world.pass(secs(11));
        drop(peer);
        site.world.turn();
        let told = site.caller.take();
        assert!(matches!(told[..], [Told::Closed(_, Some(_))]), "{told:?}");
        site.world.pass(Duration::from_millis(1100));
        let (next, request) = site.accept();
        site.welcome(&next, &request);
        peer = next;
    }
}

#[test]
fn rc_01_with_jitter_two_clients_do_not_come_back_at_the_same_time() {
    let mut times = Vec::new();
    let mut site = Site::new();
    let policy = RetryPolicy::builder()
        .delays([secs(10)])
        .jitter_percent(100)
        .forever()
        .build()
        .unwrap();
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(site.open(there().reconnect(policy.clone())));
    }
    drop(peers);
    site.world.turn();
    for tenth in 0..=200 {
        site.world.pass(Duration::from_millis(100));
        while let Some(_peer) = site.there.accept() {
            times.push(tenth);
        }
    }
    assert!(times.len() >= 20, "all have come back: {times:?}");
    assert!(
        times.iter().all(|tenth| (98..=201).contains(tenth)),
        "{times:?}"
    );
    times.dedup();
    assert!(times.len() > 10, "spread: {times:?}");
}

/// A server with ten thousand clients restarts: it is down for five seconds.
#[test]
fn rc_01_ten_thousand_clients_come_back_one_by_one_and_each_once() {
    const CLIENTS: usize = 10_000;
    let policy = RetryPolicy::builder()
        .delays([secs(1), secs(2), secs(4)])
        .jitter_percent(30)
        .forever()
        .build()
        .unwrap();
    let mut site = Site::new();
    site.world.net.set_capacity(4096);
    let mut peers = Vec::new();
    while peers.len() < CLIENTS {
        for _ in 0..500 {
            site.connect(there().reconnect(policy.clone()));
        }
        peers.extend(welcome_all(&mut site));
    }
    assert_eq!(site.caller.take().len(), CLIENTS);
    let address = site.there.local_addr();
    let elsewhere = site.world.net.listen("10.0.0.99:80".parse().unwrap());
    drop(std::mem::replace(&mut site.there, elsewhere.unwrap()));
    let before = site.world.net.calls(Call::Connect);
    drop(peers);
    site.world.turn();

    let mut attempts = vec![before];
    let mut back = Vec::new();
    for tenth in 1..=120 {
        if tenth == 50 {
            site.there = site.world.net.listen(address).unwrap();
        }
        site.world.net.advance(Duration::from_millis(100));
        back.extend(welcome_all(&mut site));
        attempts.push(site.world.net.calls(Call::Connect));
    }
    assert_eq!(back.len(), CLIENTS, "everybody is back");
    let dialled = attempts.last().unwrap() - before;
    assert_eq!(dialled, 3 * CLIENTS as u64, "after 1, 3 and 7 s, each once");
    let rate: Vec<u64> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    // The first wave is spread over 0.3 s, the second over 0.9 s, the third over 2.1 s.
    let most = |tenths: std::ops::Range<usize>| rate[tenths].iter().max().copied();
    assert!(most(0..25) < Some(4000), "{rate:?}");
    assert!(most(25..60) < Some(2000), "{rate:?}");
    assert!(most(60..120) < Some(1200), "{rate:?}");
    assert_eq!(site.world.context.connections(), CLIENTS);
}

/// Answers everybody who has dialled.
fn welcome_all(site: &mut Site) -> Vec<wsloop::sim::SimPeer> {
    let mut peers = Vec::new();
    for _ in 0..8 {
        site.world.context.service(Some(Duration::ZERO)).unwrap();
        while let Some(peer) = site.there.accept() {
            peers.push((peer, false));
        }
        for (peer, welcomed) in &mut peers {
            let request = if *welcomed { Vec::new() } else { peer.read() };
            if !request.is_empty() {
                let request = String::from_utf8(request).unwrap();
                peer.write(&crate::switching(&request, "")).unwrap();
                *welcomed = true;
            }
        }
    }
    assert!(peers.iter().all(|(_, welcomed)| *welcomed));
    peers.into_iter().map(|(peer, _)| peer).collect()
}

#[test]
fn nothing_is_dialled_again_when_the_vhost_goes_or_the_context_shuts_down() {
    for shutdown in [false, true] {
        let mut site = Site::new();
        let (vhost, _) = reachable(&mut site);
        let info = || there().reconnect(policy());
        // One that is closing, by the peer's wish, one that is open, and one that waits.
        let mut peers = Vec::new();
        for _ in 0..2 {
            site.world.context.client_connect(vhost, info()).unwrap();
            let (peer, request) = site.accept();
            site.welcome(&peer, &request);
            peers.push(peer);
        }
        peers[0].write(&plain(0x88, &[0x03, 0xe8])).unwrap();
        site.world.context.client_connect(vhost, info()).unwrap();
        site.world.turn();
        drop(site.there.accept().unwrap());
        site.world.turn();
        if shutdown {
            site.world.context.shutdown(secs(30));
        } else {
            site.world.context.destroy_vhost(vhost).unwrap();
        }
        site.world.turn();
        for peer in peers {
            peer.read();
            let _ = peer.write(&plain(0x88, &[0x03, 0xe9]));
            site.world.turn();
            peer.shutdown_write();
        }
        site.world.turn();
        let told = site.caller.take();
        assert_eq!(told.len(), 3, "shutdown {shutdown}: {told:#?}");
        for told in told {
            assert!(
                !matches!(told, Told::Closed(_, Some(_))),
                "shutdown {shutdown}: {told:?}"
            );
        }
        assert_eq!(dialled(&mut site, secs(20)), [0; 0], "shutdown {shutdown}");
        assert_eq!(site.world.context.connections(), 0);
    }
}

#[test]
fn re_04_a_server_that_drops_everybody_at_once_is_not_hammered() {
    let mut site = Site::new();
    for _ in 0..50 {
        site.connect(there().reconnect(policy()));
    }
    let at = dialled(&mut site, secs(60));
    assert!(at.len() <= 50 * 4, "{} attempts", at.len());
}

/// A client whose request nobody takes: the output has its deadline before the response has.
fn unread(site: &mut Site) -> (VhostId, ProtocolHandle<Caller>) {
    let mut timeouts = Timeouts::default();
    timeouts.write = secs(3);
    let mut config = VhostConfig::new("client").timeouts(timeouts);
    let handle = config.add_protocol("c", site.caller.clone());
    site.world.net.set_capacity(10);
    (site.world.context.create_vhost(config).unwrap(), handle)
}

#[test]
fn a_request_that_the_server_does_not_take_is_a_timeout_and_tried_again() {
    let mut site = Site::new();
    let (vhost, _) = unread(&mut site);
    let context = &mut site.world.context;
    context.client_connect(vhost, there()).unwrap();
    site.world.turn();
    let peer = site.there.accept().unwrap();
    site.world.pass(secs(4));
    let error = site.caller.error();
    assert!(error.timeout && error.retryable, "{error:?}");
    assert_eq!(error.stage, "response");
    assert!(error.failure.contains("writing"), "{error:?}");
    drop(peer);

    let context = &mut site.world.context;
    let info = there().reconnect(policy());
    context.client_connect(vhost, info).unwrap();
    site.world.turn();
    let first = site.there.accept().unwrap();
    site.world.pass(Duration::from_millis(3500));
    site.world.net.set_capacity(64 * 1024);
    site.world.pass(secs(1));
    let (second, request) = site.accept();
    site.welcome(&second, &request);
    drop(first);
}

#[test]
fn an_attempt_that_is_aborted_in_the_turn_of_its_deadline_is_not_tried_again() {
    let mut site = Site::new();
    let (vhost, handle) = reachable(&mut site);
    let info = there().reconnect(policy());
    let id = site.world.context.client_connect(vhost, info).unwrap();
    site.world.turn();
    let peer = site.there.accept().unwrap();
    abort(&mut site.world, handle, id);
    site.world.net.advance(secs(16));
    site.world.turn();
    assert!(!site.caller.error().retryable);
    assert_eq!(dialled(&mut site, secs(20)), [0; 0]);
    drop(peer);
}

/// Tells of each retry, and stops at the second.
#[derive(Clone, Default)]
struct Impatient(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl wsloop::Protocol for Impatient {
    type Session = ();

    fn on_established(
        &mut self,
        _: &mut wsloop::Wsi<'_>,
        _: &wsloop::Established<'_>,
    ) -> Result<(), wsloop::Close> {
        Ok(())
    }

    fn on_retry(
        &mut self,
        cx: &mut wsloop::Cx<'_>,
        id: WsiId,
        error: &wsloop::ConnectError,
        next_delay: Duration,
    ) {
        let attempts = error.attempts();
        let told = format!("retry {attempts}, {} stage, {next_delay:?}", error.stage());
        self.0.lock().unwrap().push(told);
        if attempts == 2 {
            cx.abort(id).unwrap();
        }
    }

    fn on_connect_error(&mut self, _: &mut wsloop::Cx<'_>, _: WsiId, error: &wsloop::ConnectError) {
        self.0.lock().unwrap().push(error.failure().to_string());
    }
}

#[test]
fn each_retry_is_told_with_its_reason_and_its_delay_and_can_be_stopped() {
    let mut site = Site::new();
    let told = Impatient::default();
    let config = VhostConfig::new("impatient").protocol("c", told.clone());
    site.vhost = site.world.context.create_vhost(config).unwrap();
    site.connect(there().reconnect(policy()));
    assert_eq!(dialled(&mut site, secs(20)).len(), 2);
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            "retry 1, response stage, 1s",
            "retry 2, response stage, 2s",
            "aborted by the application"
        ]
    );
    assert_eq!(site.world.context.connections(), 0);
}
