//! Names, addresses and deadlines.

use std::net::IpAddr;
use std::time::Duration;

use wsloop::sim::Call;
use wsloop::{ClientConnectInfo, ClientTimeouts, ConnectFailure, VhostConfig};

use crate::{Site, Told, there};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn named() -> ClientConnectInfo {
    ClientConnectInfo::from_url("ws://host.test/").unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn dn_01_each_failed_look_up_has_its_reason() {
    let mut site = Site::new();
    site.connect(named());
    site.world.turn();
    let error = site.caller.error();
    assert_eq!((error.stage.as_str(), error.retryable), ("dns", true));
    assert!(
        error.failure.starts_with("name resolution failed"),
        "{error:?}"
    );

    site.world.net.name("host.test", []);
    site.connect(named());
    site.world.turn();
    let error = site.caller.error();
    assert_eq!(
        (error.stage.as_str(), error.failure.as_str()),
        ("dns", "the name has no address")
    );

    site.world
        .net
        .name_fails("host.test", std::io::ErrorKind::Other);
    site.connect(named());
    site.world.turn();
    assert!(
        site.caller
            .error()
            .failure
            .starts_with("name resolution failed")
    );
}

#[test]
fn dn_01_of_a_thousand_addresses_some_are_tried_and_told() {
    let mut site = Site::new();
    let many = (0..1000u32).map(|n| IpAddr::from([10, 9, (n >> 8) as u8, n as u8]));
    site.world.net.name("host.test", many);
    site.connect(named());
    site.world.turn();
    let error = site.caller.error();
    assert_eq!((error.stage.as_str(), error.tried.len()), ("tcp", 16));
    assert_eq!(error.tried[0], "10.9.0.0:80");
    assert!(error.retryable);
}

#[test]
fn dn_06_all_refused_is_one_error_with_everybody_tried() {
    let mut site = Site::new();
    site.world
        .net
        .name("host.test", ["10.1.0.1", "10.1.0.2", "2001:db8::1"].map(ip));
    let id = site.connect(named());
    site.world.turn();
    let error = site.caller.error();
    assert_eq!(error.id, id);
    // Families in turn (RFC 8305 section 4).
    assert_eq!(
        error.tried,
        ["10.1.0.1:80", "[2001:db8::1]:80", "10.1.0.2:80"]
    );
    assert_eq!(
        error.elapsed,
        Duration::ZERO,
        "a refusal starts the next at once"
    );
}

/// Also one for IPv6 alone where there is none (`NetworkUnreachable`).
#[test]
fn dn_01_dn_06_each_way_in_which_an_address_fails_is_told_by_its_kind() {
    use std::io::ErrorKind as K;
    for kind in [
        K::ConnectionRefused,
        K::TimedOut,
        K::AddrNotAvailable,
        K::NetworkUnreachable,
        K::HostUnreachable,
        K::PermissionDenied,
    ] {
        let mut site = Site::new();
        site.world.net.name("host.test", ["2001:db8::1"].map(ip));
        site.world.net.fail(Call::Connect, 1, kind);
        site.connect(named());
        site.world.turn();
        let error = site.caller.error();
        assert_eq!(error.stage, "tcp", "{kind:?}");
        assert_eq!(error.tried, ["[2001:db8::1]:80"], "{kind:?}");
        let words = std::io::Error::from(kind).to_string();
        assert!(
            error.failure.contains(&words),
            "{kind:?}: {}",
            error.failure
        );
        assert_eq!(site.world.context.connections(), 0);
    }
}

/// Refused at once or never answered: the other family has its turn, and who comes first wins.
#[test]
fn dn_04_whatever_v6_does_the_first_success_is_the_only_event() {
    let [v6, v4] = ["[2001:db8::1]:80", "10.0.0.7:80"];
    for (v6_after, v4_after, begun) in [
        // Refused: nobody listens there.
        (Some(0), Some(0), 0),
        // Both slow.
        (Some(5000), Some(3000), 3400),
        (None, Some(8000), 8400),
    ] {
        let mut site = Site::new();
        let addresses = ["2001:db8::1", "10.0.0.7"].map(ip);
        site.world.net.name("host.test", addresses);
        for (address, after) in [(v6, v6_after), (v4, v4_after)] {
            if after != Some(0) {
                let after = after.map(Duration::from_millis);
                site.world
                    .net
                    .connect_delay(address.parse().unwrap(), after);
            }
        }
        site.connect(named());
        site.world.turn();
        site.world.pass(Duration::from_millis(begun));
        let (peer, request) = site.accept();
        site.welcome(&peer, &request);
        site.world.pass(secs(30));
        let more = site.caller.take();
        assert!(more.is_empty(), "one event: {more:?}");
        assert!(site.there.accept().is_none());
        assert_eq!(site.world.context.connections(), 1);
    }
}

#[test]
fn dn_04_a_dead_v6_address_does_not_hold_up_a_good_v4_one() {
    let mut site = Site::new();
    site.world
        .net
        .name("host.test", ["2001:db8::1", "10.0.0.7"].map(ip));
    site.world
        .net
        .connect_delay("[2001:db8::1]:80".parse().unwrap(), None);
    site.connect(named());
    site.world.turn();
    site.world.pass(Duration::from_millis(200));
    assert!(
        site.there.accept().is_none(),
        "the first one has a head start"
    );
    site.world.pass(Duration::from_millis(100));
    let (peer, request) = site.accept();
    site.welcome(&peer, &request);
    site.world.pass(secs(20));
    assert!(
        site.caller.take().is_empty(),
        "one event, and no deadline of the dialling is left"
    );
}

#[test]
fn dn_04_the_first_success_wins_and_the_losers_are_closed() {
    let mut site = Site::new();
    let second = site
        .world
        .net
        .listen("10.0.0.8:80".parse().unwrap())
        .unwrap();
    site.world
        .net
        .name("host.test", ["10.0.0.7", "10.0.0.8"].map(ip));
    site.world
        .net
        .connect_delay("10.0.0.7:80".parse().unwrap(), secs(1));
    site.world
        .net
        .connect_delay("10.0.0.8:80".parse().unwrap(), Duration::from_millis(100));
    site.connect(named());
    site.world.turn();
    site.world.pass(Duration::from_millis(400));
    let winner = second.accept().unwrap();
    assert!(winner.read().starts_with(b"GET "));
    site.world.pass(secs(2));
    if let Some(loser) = site.there.accept() {
        assert_eq!(loser.read(), b"", "one request only");
        assert!(loser.ended() || loser.was_reset());
    }
    assert_eq!(site.world.context.connections(), 1);
}

#[test]
fn an_error_at_the_call_of_connect_is_an_address_that_failed() {
    let mut site = Site::new();
    site.world
        .net
        .name("host.test", ["10.0.0.9", "10.0.0.7"].map(ip));
    site.world
        .net
        .fail(Call::Connect, 1, std::io::ErrorKind::AddrNotAvailable);
    site.connect(named());
    let (peer, request) = site.accept();
    site.welcome(&peer, &request);
}

/// Every deadline: what holds it up, where it says it was, after how long.
#[test]
fn dn_01_dn_02_each_stage_has_its_deadline_and_tells_so() {
    type Arrange = fn(&Site);
    let slow_name: Arrange = |site| {
        site.world.net.name("host.test", [ip("10.0.0.7")]);
        site.world.net.name_delay("host.test", None);
    };
    let slow_tcp: Arrange = |site| {
        site.world
            .net
            .name("host.test", [ip("10.0.0.9"), ip("10.0.0.10")]);
        for there in ["10.0.0.9:80", "10.0.0.10:80"] {
            site.world.net.connect_delay(there.parse().unwrap(), None);
        }
    };
    let silent: Arrange = |site| site.world.net.name("host.test", [ip("10.0.0.7")]);
    for (arrange, stage, limit, text, tried) in [
        (slow_name, "dns", 5, "name resolution", 0),
        (slow_tcp, "tcp", 10, "the TCP connect", 2),
        (
            silent,
            "response",
            15,
            "the response to the opening handshake",
            0,
        ),
    ] {
        let mut site = Site::new();
        arrange(&site);
        site.connect(named());
        site.world.turn();
        site.world.pass(secs(limit) - Duration::from_millis(100));
        assert!(site.caller.take().is_empty(), "{stage}");
        site.world.pass(Duration::from_millis(100));
        let error = site.caller.error();
        assert_eq!(error.stage, stage);
        assert_eq!(error.failure, format!("{text} took longer than {limit}s"));
        assert_eq!(
            (error.elapsed, error.tried.len()),
            (secs(limit), tried),
            "{stage}"
        );
        assert!(error.timeout && error.retryable, "{stage}");
        assert_eq!(site.world.context.connections(), 0);
    }
}

#[test]
fn a_client_may_have_deadlines_of_its_own_and_one_for_all_together() {
    let mut overrides = ClientTimeouts::default();
    overrides.dns = Some(secs(2));
    overrides.total = Some(secs(3));
    let mut site = Site::new();
    site.world.net.name("host.test", [ip("10.0.0.7")]);
    site.world
        .net
        .name_delay("host.test", Duration::from_millis(1500));
    site.connect(named().timeouts(overrides).unwrap());
    site.world.turn();
    site.world.pass(Duration::from_millis(2900));
    assert!(site.caller.take().is_empty());
    let (peer, _) = site.accept();
    // Slow bytes do not extend it.
    peer.write(b"HTTP/1.1 101 ").unwrap();
    site.world.pass(Duration::from_millis(100));
    let error = site.caller.error();
    assert_eq!(
        error.failure,
        "the whole connection attempt took longer than 3s"
    );
    assert_eq!((error.stage.as_str(), error.elapsed), ("response", secs(3)));

    site.world.net.name_delay("host.test", None);
    site.connect(named().timeouts(overrides).unwrap());
    site.world.turn();
    site.world.pass(secs(2));
    assert_eq!(
        site.caller.error().failure,
        "name resolution took longer than 2s"
    );
}

#[test]
fn dn_02_a_late_answer_after_an_abort_is_for_nobody() {
    let mut site = Site::new();
    site.world.net.name("host.test", [ip("10.0.0.7")]);
    site.world.net.name_delay("host.test", secs(2));
    let id = site.connect(named());
    site.world.turn();
    site.world.pass(secs(1));
    let mut config = VhostConfig::new("tool");
    let handle = config.add_protocol("t", crate::Caller::default());
    site.world.context.create_vhost(config).unwrap();
    site.world
        .context
        .with_protocol(handle, |_, cx| cx.abort(id))
        .unwrap()
        .unwrap();
    site.world.turn();
    let error = site.caller.error();
    assert_eq!(
        (error.stage.as_str(), error.failure.as_str()),
        ("dns", "aborted by the application")
    );
    // Another attempt, in the slot of the first, whose name never resolves.
    site.world.net.name("other.test", [ip("10.0.0.7")]);
    site.world.net.name_delay("other.test", None);
    let next = site.connect(ClientConnectInfo::from_url("ws://other.test/").unwrap());
    assert_ne!(next, id);
    site.world.pass(secs(3));
    assert!(
        site.there.accept().is_none(),
        "the answer was not taken for the other's"
    );
    assert!(site.caller.take().is_empty());
}

#[test]
fn an_attempt_that_is_aborted_at_once_dials_nobody() {
    let mut site = Site::new();
    let mut config = VhostConfig::new("tool");
    let caller = crate::Caller::default();
    let handle = config.add_protocol("t", caller.clone());
    let vhost = site.world.context.create_vhost(config).unwrap();
    let done = site.world.context.with_protocol(handle, |_, cx| {
        let id = cx.client_connect(vhost, there()).unwrap();
        cx.close(id, wsloop::Close::normal()).unwrap();
        let id = cx.client_connect(vhost, there()).unwrap();
        cx.abort(id).unwrap();
    });
    done.unwrap();
    assert!(caller.take().is_empty());
    site.world.turn();
    let told = caller.take();
    assert!(
        matches!(&told[..], [Told::Error(a), Told::Error(b)]
        if a.failure == "aborted by the application" && b.failure == a.failure),
        "{told:?}"
    );
    assert!(site.there.accept().is_none());
}

#[test]
fn what_cannot_be_dialled_at_all_is_refused_by_the_call() {
    let net = wsloop::sim::Net::new(1);
    let config = wsloop::ContextConfig::new().max_connections(1);
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let bare = context.create_vhost(VhostConfig::new("bare")).unwrap();
    let refused = context.client_connect(bare, there()).unwrap_err();
    assert!(matches!(refused.failure(), ConnectFailure::UnknownProtocol));
    let caller = crate::Caller::default();
    let config = VhostConfig::new("client").protocol("c", caller.clone());
    let vhost = context.create_vhost(config).unwrap();
    context.client_connect(vhost, there()).unwrap();
    let refused = context.client_connect(vhost, there()).unwrap_err();
    assert!(matches!(
        refused.failure(),
        ConnectFailure::TooManyConnections(1)
    ));
    assert!(refused.is_retryable());
    assert_eq!(refused.stage(), wsloop::ConnectStage::Argument);
    context.shutdown(Duration::ZERO);
    let refused = context.client_connect(vhost, there()).unwrap_err();
    assert!(matches!(refused.failure(), ConnectFailure::Shutdown));
    context.run().unwrap();
    assert_eq!(caller.take().len(), 1, "the refused calls have no callback");
}

#[test]
fn an_address_that_was_dialled_is_told_as_one_writes_it() {
    let mut site = Site::new();
    let info = ClientConnectInfo::from_url("ws://[2001:db8::1]:81/").unwrap();
    site.connect(info.clone());
    site.world.turn();
    assert_eq!(site.caller.error().target, "[2001:db8::1]:81");
    site.connect(info.address("host.test").unwrap());
    site.world.turn();
    assert_eq!(site.caller.error().target, "host.test:81");
}

#[test]
fn what_can_be_done_is_told_with_the_reason() {
    let mut site = Site::new();
    site.connect(named());
    site.world.turn();
    let text = site.caller.error().text;
    assert!(text.contains("is the name right?"), "{text}");
    site.connect(ClientConnectInfo::from_url("ws://10.0.0.9:81/").unwrap());
    site.world.turn();
    let text = site.caller.error().text;
    assert!(text.contains("is the server running"), "{text}");
}
