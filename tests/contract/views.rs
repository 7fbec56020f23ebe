//! What a callback can learn about what it is called for, and what an error says about itself.

use std::error::Error;
use std::time::Duration;

use wsloop::{
    BodyLength, ClientConnectInfo, Close, CloseCode, ConnectError, Context, ContextConfig,
    DeadlineStage, Http, HttpFailure, HttpHandler, HttpRequest, Limits, Message, Mount, Response,
    RetryPolicy, SendError, Side, VhostConfig, VhostId,
};

use crate::support::{Recorder, World, addr, close_payload, masked, plain, request};
use crate::{Site, Slot};

#[test]
fn a_connection_knows_where_it_is_from_and_when_it_is() {
    let seen = Slot::new();
    let mut site = Site::new(|log| Recorder {
        message: Some(Box::new({
            let seen = seen.clone();
            move |wsi, _| {
                let id = wsi.id();
                assert_eq!(wsi.cx().peer(id).unwrap().side(), Side::Server);
                seen.put((wsi.now(), wsi.vhost(), wsi.peer_addr(), wsi.round_trip()));
                assert_eq!(wsi.local_addr().unwrap(), addr());
                assert!(!wsi.is_tls());
                wsi.send_ping(b"rtt")?;
                Ok(())
            }
        })),
        ..Recorder::new(log)
    });
    let peer = site.world.open();
    let vhost = site.world.vhost;
    peer.write(&masked(0x81, b"a")).unwrap();
    site.world.turn();
    let now = site.world.net.now();
    assert_eq!(seen.take(), [(now, vhost, Some(peer.local_addr()), None)]);
    assert_eq!(peer.read(), plain(0x89, b"rtt"));
    site.world.net.advance(Duration::from_millis(70));
    peer.write(&masked(0x8a, b"rtt")).unwrap();
    peer.write(&masked(0x81, b"b")).unwrap();
    site.world.turn();
    let round_trip = Some(Duration::from_millis(70));
    let now = site.world.net.now();
    assert_eq!(
        seen.take(),
        [(now, vhost, Some(peer.local_addr()), round_trip)]
    );
}

#[test]
fn an_ipv6_connection_knows_where_it_is_from_and_counts_the_longer_address() {
    let six: std::net::SocketAddr = "[fd00::1]:80".parse().unwrap();
    let seen = Slot::new();
    let mut world = World::with(|log| {
        let recorder = Recorder {
            established: Some(Box::new({
                let seen = seen.clone();
                move |wsi| {
                    seen.put((wsi.local_addr().unwrap(), wsi.peer_addr().unwrap()));
                    Ok(())
                }
            })),
            ..Recorder::new(log)
        };
        let config = VhostConfig::new("a.test").listen(addr()).listen(six);
        config.protocol("p", recorder)
    });
    let mut memory = [0; 2];
    let mut peers = Vec::new();
    for (memory, at) in memory.iter_mut().zip([addr(), six]) {
        // The second one of each, when all tables are there.
        for _ in 0..2 {
            let before = world.context.memory();
            let peer = world.net.dial(at).unwrap();
            peer.write(&request("/")).unwrap();
            world.turn();
            assert_eq!(seen.take(), [(at, peer.local_addr())]);
            *memory = world.context.memory() - before;
            peers.push(peer);
        }
    }
    let [four, six] = memory;
    // In a box of its own, so that the many others need no room for it.
    assert!(six > four && six < four + 100, "{four} {six}");
}

#[test]
fn a_request_names_its_vhost_and_its_sender_to_the_filter() {
    let seen = Slot::new();
    let mut world = World::new(|log| Recorder {
        filter: Some(Box::new({
            let seen = seen.clone();
            move |_, request| {
                seen.put((request.vhost(), request.peer_addr(), request.is_tls()));
                assert!(matches!(
                    request.transport(),
                    wsloop::http::origin::Transport::Plain
                ));
                #[cfg(feature = "tls")]
                assert!(request.tls().is_none() && request.peer_identity().is_none());
                Ok(wsloop::Accept::new())
            }
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    assert_eq!(seen.take(), [(world.vhost, peer.local_addr(), false)]);
}

/// Looks at everything, and answers in two pieces.
struct Looks(Slot<(VhostId, Option<u64>)>);

impl HttpHandler for Looks {
    type Exchange = ();

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<(), HttpFailure> {
        assert_eq!(http.id(), request.id());
        assert_eq!(http.peer_addr(), Some(request.peer_addr()));
        assert!(!http.is_tls() && !request.is_tls());
        #[cfg(feature = "tls")]
        {
            assert!(http.tls().is_none() && http.peer_identity().is_none());
            assert!(request.tls().is_none() && request.peer_identity().is_none());
        }
        assert_eq!(http.now(), http.cx().now());
        // Nobody's connections: a handler has none.
        let id = request.id();
        http.cx()
            .for_each_peer(|_| panic!("a handler has no peers"));
        assert!(http.cx().peer(id.wsi()).is_none());
        self.0.put((request.vhost(), request.body_len()));
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, (): &mut ()) -> Result<(), HttpFailure> {
        assert!(!http.is_started());
        http.close_after();
        http.start(200, &Default::default(), BodyLength::Known(2))?;
        assert!(http.is_started());
        http.write(b"ok")?;
        http.finish()?;
        Ok(())
    }
}

#[test]
fn a_handler_knows_who_asks_and_how_long_the_body_is() {
    let seen = Slot::new();
    let mut world = World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::new(log))
            .mount(Mount::handler("/h", Looks(seen.clone())))
    });
    for (request, length) in [
        ("GET /h HTTP/1.1\r\nHost: a.test\r\n\r\n", Some(0)),
        (
            "POST /h HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
            Some(3),
        ),
        (
            "POST /h HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            None,
        ),
    ] {
        let peer = world.dial();
        peer.write(request.as_bytes()).unwrap();
        world.turn();
        assert_eq!(seen.take(), [(world.vhost, length)]);
        let response = String::from_utf8(peer.read()).unwrap();
        assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nok") && peer.ended());
    }
}

#[test]
fn ids_and_handles_can_be_copied_and_tell_apart_what_they_name() {
    let mut site = Site::new(Recorder::new);
    let _peer = site.world.open();
    let handle = site.handle;
    let vhost = format!("{:?}", site.world.vhost);
    assert!(vhost.starts_with("vhost#"), "{vhost}");
    assert_eq!(format!("{handle:?}"), format!("{:?}", site.handle));
    let (_, handler) = Mount::handler_with("/h", Looks(Slot::new()));
    let (_, other) = Mount::handler_with("/h", Looks(Slot::new()));
    assert_ne!(format!("{handler:?}"), format!("{other:?}"));
    assert_ne!(format!("{:?}", site.id()), "");
}

#[test]
fn a_broadcast_counts_those_whose_limit_it_is_over() {
    let limits = Limits::default().with_message_bytes(10).with_fragments(2);
    let mut site = Site::with(|config| config.limits(limits), Recorder::new);
    let peer = site.world.open();
    let outcome = site.act(|cx| cx.broadcast(Message::Text("far more than ten"), |_| true));
    assert_eq!((outcome.queued, outcome.too_large), (0, 1));
    site.world.turn();
    assert!(peer.read().is_empty());
    // And the limit for fragments is another one.
    for first in [0x01, 0x00, 0x00] {
        peer.write(&masked(first, b"x")).unwrap();
    }
    site.world.turn();
    assert_eq!(site.world.log.count("closed"), 1);
}

#[test]
fn the_reason_that_a_peer_gives_is_the_one_that_is_told() {
    let seen = Slot::new();
    let mut world = World::new(|log| Recorder {
        peer_close: Some(Box::new({
            let seen = seen.clone();
            move |wsi| {
                // It is too late for both.
                seen.put(wsi.send_text("x").unwrap_err());
                wsi.close(Close::normal());
                Ok(())
            }
        })),
        ..Recorder::new(log)
    });
    let peer = world.open();
    peer.write(&masked(0x88, &close_payload(4000, "enough")))
        .unwrap();
    world.turn();
    assert!(matches!(seen.take()[..], [SendError::Closing]));
    let told = world.log.take();
    assert!(told.iter().any(|line| line.contains("enough")), "{told:?}");
    assert_eq!(Close::from(SendError::Closing).code(), CloseCode::NORMAL);
}

#[test]
fn a_failed_attempt_says_what_was_asked_for_what_was_tried_and_how_often() {
    let net = wsloop::sim::Net::new(0);
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let errors = Slot::new();
    let vhost = VhostConfig::new("client").protocol("p", Fails(errors.clone()));
    let vhost = context.create_vhost(vhost).unwrap();
    net.name(
        "many.test",
        ["10.0.0.3", "10.0.0.4"].map(|address| address.parse().unwrap()),
    );
    let policy = RetryPolicy::builder()
        .delays([Duration::from_secs(1)])
        .conceal_count(1);
    let info = ClientConnectInfo::from_url("ws://many.test/path").unwrap();
    let info = info.reconnect(policy.build().unwrap());
    context.client_connect(vhost, info).unwrap();
    for _ in 0..50 {
        context.service(Some(Duration::ZERO)).unwrap();
        net.advance(Duration::from_millis(100));
    }
    let (target, text, source) = errors.take().remove(0);
    assert!(target.contains("many.test"), "{target}");
    assert!(text.contains("(after 2 attempts)"), "{text}");
    assert!(
        text.contains("10.0.0.3:80") && text.contains("10.0.0.4:80"),
        "{text}"
    );
    assert!(!source.is_empty());
}

/// Keeps the words of the error.
struct Fails(Slot<(String, String, String)>);

impl wsloop::Protocol for Fails {
    type Session = ();

    fn on_established(
        &mut self,
        _: &mut wsloop::Wsi<'_>,
        _: &wsloop::Established<'_>,
    ) -> Result<(), Close> {
        Ok(())
    }

    fn on_connect_error(&mut self, _: &mut wsloop::Cx<'_>, _: wsloop::WsiId, error: &ConnectError) {
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        self.0
            .put((error.target().to_owned(), error.to_string(), source));
    }
}

#[test]
fn every_deadline_has_a_name_of_its_own() {
    let stages = [
        DeadlineStage::Body,
        DeadlineStage::Close,
        DeadlineStage::Connect,
        DeadlineStage::Dns,
        DeadlineStage::Fetch,
        DeadlineStage::FetchBody,
        DeadlineStage::FetchResponse,
        DeadlineStage::Head,
        DeadlineStage::Hook,
        DeadlineStage::Hooks,
        DeadlineStage::Message,
        DeadlineStage::OutputRate,
        DeadlineStage::PoolWait,
        DeadlineStage::Respond,
        DeadlineStage::Response,
        DeadlineStage::Silence,
        DeadlineStage::Tcp,
        DeadlineStage::Tls,
        DeadlineStage::Verdict,
        DeadlineStage::Write,
    ];
    let mut names: Vec<String> = stages.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), stages.len());
    assert!(names.iter().all(|name| !name.is_empty()));
}

#[test]
fn an_upgrade_and_an_answer_are_told_apart_by_their_ids() {
    let ids = Slot::new();
    let mut site = Site::with(
        |config| {
            let ids = ids.clone();
            config.mount(Mount::call("/ids", move |request| {
                ids.put(request.id());
                Response::text(200, "ok\n")
            }))
        },
        Recorder::new,
    );
    let peer = site.world.dial();
    peer.write(b"GET /ids HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    site.world.turn();
    peer.write(&request("/")).unwrap();
    site.world.turn();
    // The connection is a WebSocket now: the exchange is over.
    let id = ids.take()[0];
    assert!(site.act(|cx| cx.exchange(id).is_none()));
    assert_eq!(site.id(), id.wsi());
}

#[test]
fn a_vhost_has_its_own_idea_of_silence() {
    let policy = RetryPolicy::builder()
        .ping_after(Duration::from_secs(2))
        .hang_up_after(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut site = Site::with(|config| config.retry_and_idle_policy(policy), Recorder::new);
    let peer = site.world.open();
    site.world.pass(Duration::from_millis(1900));
    assert!(peer.read().is_empty());
    site.world.pass(Duration::from_millis(200));
    assert_eq!(peer.read().first(), Some(&0x89), "a ping");
    site.world.pass(Duration::from_secs(3));
    assert_eq!(site.world.log.count("closed"), 1);
}

#[test]
fn an_attempt_under_way_ends_with_its_vhost_or_its_context() {
    for shuts_down in [false, true] {
        let errors = Slot::new();
        let net = wsloop::sim::Net::new(0);
        net.connect_delay("10.0.0.9:80".parse().unwrap(), None);
        let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
        let config = VhostConfig::new("client").protocol("p", Fails(errors.clone()));
        let vhost = context.create_vhost(config).unwrap();
        let info = ClientConnectInfo::from_url("ws://10.0.0.9/").unwrap();
        context.client_connect(vhost, info).unwrap();
        context.service(Some(Duration::ZERO)).unwrap();
        if shuts_down {
            context.shutdown(Duration::from_secs(1));
        } else {
            context.destroy_vhost(vhost).unwrap();
        }
        for _ in 0..5 {
            context.service(Some(Duration::ZERO)).unwrap();
        }
        let (_, text, _) = errors.take().remove(0);
        let expected = if shuts_down { "shut" } else { "vhost" };
        assert!(text.contains(expected), "{text}");
        assert_eq!(context.connections(), 0);
    }
}

#[test]
fn a_vhost_that_serves_only_websockets_says_so_to_others() {
    let mut world = World::new(Recorder::new);
    for (request, body) in [
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", true),
        ("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n", false),
    ] {
        let peer = world.dial();
        peer.write(request.as_bytes()).unwrap();
        world.turn();
        let response = String::from_utf8(peer.read()).unwrap();
        assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
        assert!(
            response.contains("\r\nUpgrade: websocket\r\n"),
            "{response}"
        );
        assert_eq!(!response.ends_with("\r\n\r\n"), body, "{response}");
        assert!(peer.ended());
    }
    let peer = world.dial();
    peer.write(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n")
        .unwrap();
    world.turn();
    assert!(peer.read().starts_with(b"HTTP/1.1 "));
    assert!(peer.ended());
}

/// A context that dials itself; what its client says when it is there arrives.
fn says_to_itself(
    configure: impl Fn(VhostConfig) -> VhostConfig,
    say: impl FnMut(&mut wsloop::Wsi<'_>) -> Result<(), Close> + Send + 'static,
) -> Vec<String> {
    let mut world = World::with(|log| {
        let vhost = VhostConfig::new("a.test").listen(addr());
        configure(vhost).protocol("p", Recorder::new(log))
    });
    let client = Recorder {
        established: Some(Box::new(say)),
        ..Recorder::default()
    };
    let config = configure(VhostConfig::new("client")).protocol("c", client);
    let vhost = world.context.create_vhost(config).unwrap();
    let info = ClientConnectInfo::from_url("ws://10.0.0.1/").unwrap();
    world.context.client_connect(vhost, info).unwrap();
    world.turn();
    let mut lines = world.log.take();
    lines.retain(|line| !line.starts_with("filter") && !line.starts_with("established"));
    lines
}

#[test]
fn a_client_sends_what_it_owns_as_well() {
    let say = |wsi: &mut wsloop::Wsi<'_>| {
        let text = "t".repeat(5000);
        wsi.send_bytes(vec![7; 3].into()).map_err(|e| e.error)?;
        wsi.send_string(text).map_err(|e| e.error)?;
        Ok(())
    };
    let expected = [
        "binary [07, 07, 07]".to_owned(),
        format!("text {:?}", "t".repeat(5000)),
    ];
    assert_eq!(says_to_itself(|config| config, say), expected);
    #[cfg(feature = "deflate")]
    {
        let deflate = wsloop::DeflateConfig::new().threshold(0);
        assert_eq!(
            says_to_itself(|config| config.deflate(deflate), say),
            expected
        );
    }
}

#[cfg(feature = "deflate")]
#[test]
fn a_server_compresses_what_it_owns_as_well() {
    let mut world = World::with(|log| {
        let server = Recorder {
            established: Some(Box::new(|wsi| {
                wsi.send_bytes(vec![7; 9000].into()).map_err(|e| e.error)?;
                Ok(())
            })),
            ..Recorder::new(log)
        };
        let vhost = VhostConfig::new("a.test").listen(addr());
        let vhost = vhost.deflate(wsloop::DeflateConfig::new());
        vhost.protocol("p", server)
    });
    let config = VhostConfig::new("client").deflate(wsloop::DeflateConfig::new());
    let config = config.protocol("c", Recorder::new(&world.log));
    let vhost = world.context.create_vhost(config).unwrap();
    let info = ClientConnectInfo::from_url("ws://10.0.0.1/").unwrap();
    world.context.client_connect(vhost, info).unwrap();
    world.turn();
    let expected = format!("binary {:02x?}", vec![7; 9000]);
    assert_eq!(
        world
            .log
            .lines()
            .iter()
            .filter(|line| **line == expected)
            .count(),
        1
    );
}
