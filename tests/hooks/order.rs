//! Who is asked, in what order, and what the answers do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::hook::{AllowPeers, Attributes, DenyAll, Grant, HookPurpose, OnFailure};
use wsloop::{
    Accept, Close, HeaderList, HookAnswer, HookChain, HookConfig, HookError, Mount, Refuse,
    RequestId, TimerTag, VhostConfig, VhostError, Wsi,
};

use crate::support::{Recorder, World, addr, masked, plain, request, request_with};
use crate::{Answer, Site, Told, says, status, text};

type Slot = Arc<Mutex<Vec<RequestId>>>;

fn next() -> Answer {
    Ok(HookAnswer::Next)
}

fn allow() -> Answer {
    Ok(HookAnswer::allow())
}

fn fail() -> Answer {
    Err(HookError::new("out of order"))
}

fn headers(fields: &[(&str, &str)]) -> HeaderList {
    let mut list = HeaderList::new();
    for (name, value) in fields {
        list.push(*name, *value).unwrap();
    }
    list
}

/// Sends back which user the hooks found.
fn says_who(wsi: &mut Wsi<'_>) -> Result<(), Close> {
    let user = wsi.attributes().get("user").unwrap_or("nobody").to_owned();
    wsi.send_text(&user)?;
    Ok(())
}

#[test]
fn hooks_are_asked_by_priority_then_in_the_order_of_adding_until_one_decides() {
    let mut site = Site::new(|log| {
        let hook = |name, answer: fn() -> Answer| {
            HookConfig::new(name, Told::new(name, log, move |_, _| answer()))
        };
        HookChain::new()
            .with(hook("never asked", fail).priority(9))
            .with(hook("c", next))
            .with(hook("d", next))
            .with(hook("e", allow).priority(8))
            .with(hook("a", next).priority(-5))
            .with(hook("b", next).priority(-5))
    });
    let (_, answer) = site.send(&request("/x"));
    assert_eq!(status(&answer), 101);
    assert_eq!(
        site.lines(),
        [
            "a asked /x",
            "b asked /x",
            "c asked /x",
            "d asked /x",
            "e asked /x",
            "filter /x",
            "established /x None"
        ]
    );
}

#[test]
fn a_chain_without_a_verdict_denies_unless_it_is_told_otherwise() {
    let chains: [(HookChain, u16, &str); 5] = [
        (HookChain::new(), 403, "refused no hook decided: status 403"),
        (
            HookChain::new().hook("n", says(next)),
            403,
            "refused no hook decided: status 403",
        ),
        (
            HookChain::new().otherwise_deny(Refuse::new(401)),
            401,
            "refused no hook decided: status 401",
        ),
        (
            HookChain::new().hook("n", says(next)).otherwise_allow(),
            101,
            "filter /",
        ),
        (
            HookChain::new().hook("end", DenyAll::new(Refuse::new(410))),
            410,
            "refused the hook \"end\" refused with status 410",
        ),
    ];
    for (chain, expected, line) in chains {
        let mut site = Site::new(|_| chain);
        let (_, answer) = site.send(&request("/"));
        assert_eq!(status(&answer), expected);
        assert_eq!(site.lines()[0], line);
    }
}

#[test]
fn a_denial_is_the_hooks_response_and_the_protocol_never_hears_of_it() {
    let deny = || {
        let fields = headers(&[("WWW-Authenticate", "Bearer")]);
        Ok(HookAnswer::Deny(
            Refuse::new(401).headers(fields).body("who are you"),
        ))
    };
    let mut site = Site::new(|_| HookChain::new().hook("token", says(deny)));
    let (peer, answer) = site.send(&request("/"));
    assert_eq!(
        answer,
        "HTTP/1.1 401 Unauthorized\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         WWW-Authenticate: Bearer\r\nContent-Length: 11\r\n\
         Connection: close\r\n\r\nwho are you"
    );
    assert!(peer.ended());
    assert_eq!(
        site.lines(),
        ["refused the hook \"token\" refused with status 401"]
    );
}

#[test]
fn a_failing_hook_refuses_unless_its_policy_is_to_go_on_and_the_observer_is_told() {
    for (policy, expected) in [(OnFailure::Refuse, 503), (OnFailure::Next, 101)] {
        let mut site = Site::new(|_| {
            HookChain::new()
                .with(HookConfig::new("broken", says(fail)).on_failure(policy))
                .hook("all", says(allow))
        });
        let (_, answer) = site.send(&request("/"));
        assert_eq!(status(&answer), expected);
        let lines = site.lines();
        assert_eq!(lines[0], "hook error broken: out of order");
        if policy == OnFailure::Refuse {
            let refused = "refused the hook \"broken\" failed (out of order): status 503";
            assert_eq!(lines[1..], [refused]);
        }
    }
}

#[test]
fn a_failing_last_hook_whose_policy_is_to_go_on_leaves_the_chains_default() {
    let mut site = Site::new(|_| {
        let broken = HookConfig::new("broken", says(fail)).on_failure(OnFailure::Next);
        HookChain::new().with(broken)
    });
    assert_eq!(status(&site.send(&request("/")).1), 403);
}

#[test]
fn a_grant_gives_headers_and_attributes_that_filter_and_session_see() {
    let grant = || {
        let mut attributes = Attributes::new();
        attributes.set("user", "ada")?;
        let fields = headers(&[
            ("X-User", "ada"),
            ("Sec-WebSocket-Accept", "forged"),
            ("Content-Length", "5"),
        ]);
        Ok(HookAnswer::Allow(
            Grant::new().attributes(attributes).headers(fields),
        ))
    };
    let mut world = World::with(|log| {
        let (filter_log, session_log) = (log.clone(), log.clone());
        let recorder = Recorder {
            filter: Some(Box::new(move |_, request| {
                let user = request.attributes().get("user");
                filter_log.push(format!("filter sees {user:?}"));
                Ok(Accept::new().headers(headers(&[("X-Filter", "yes")])))
            })),
            established: Some(Box::new(move |wsi| {
                session_log.push(format!("session sees {:?}", wsi.attributes().get("user")));
                Ok(())
            })),
            message: Some(Box::new(|wsi, _| says_who(wsi))),
            ..Recorder::new(log)
        };
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", recorder)
            .hooks(HookChain::new().hook("h", says(grant)))
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    let answer = text(&peer);
    assert!(
        answer.ends_with("\r\nX-User: ada\r\nX-Filter: yes\r\n\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("forged") && !answer.contains("Length"));
    peer.write(&masked(0x81, b"who am I")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x81, b"ada"));
    let lines = world.log.take();
    assert_eq!(lines[1], "filter sees Some(\"ada\")");
    assert_eq!(lines[3], "session sees Some(\"ada\")");
}

#[test]
fn what_a_hook_gave_is_still_there_when_the_protocol_decides_later() {
    let grant = || {
        let mut attributes = Attributes::new();
        attributes.set("user", "ada")?;
        let grant = Grant::new().attributes(attributes);
        let grant = grant.headers(headers(&[("X-User", "ada")]));
        Ok(HookAnswer::Allow(grant.subprotocol("other")))
    };
    let mut world = World::with(|log| {
        let ids = Slot::default();
        let seen = Arc::clone(&ids);
        let recorder = Recorder {
            filter: Some(Box::new(move |cx, request| {
                seen.lock().unwrap().push(request.id());
                cx.set_timer(Duration::from_secs(1), TimerTag(0));
                Ok(Accept::later())
            })),
            free_timer: Some(Box::new(move |cx, _| {
                let id = ids.lock().unwrap().remove(0);
                let accept = Accept::new().headers(headers(&[("X-Late", "yes")]));
                cx.decide(id, Ok(accept)).unwrap();
            })),
            message: Some(Box::new(|wsi, _| says_who(wsi))),
            ..Recorder::new(log)
        };
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", recorder)
            .hooks(HookChain::new().hook("h", says(grant)))
    });
    let peer = world.dial();
    let offer = "Sec-WebSocket-Protocol: p, other\r\n";
    peer.write(&request_with("/", offer)).unwrap();
    world.turn();
    assert_eq!(text(&peer), "");
    world.pass(Duration::from_secs(1));
    let answer = text(&peer);
    let end = "\r\nSec-WebSocket-Protocol: other\r\nX-User: ada\r\nX-Late: yes\r\n\r\n";
    assert!(answer.ends_with(end), "{answer}");
    peer.write(&masked(0x81, b"?")).unwrap();
    world.turn();
    assert_eq!(peer.read(), plain(0x81, b"ada"));
}

#[test]
fn a_hook_chooses_among_the_subprotocols_on_offer_and_their_protocols() {
    // The offer, the hook's choice, the status, the answer's subprotocol, who serves.
    let cases = [
        ("first, second", None, 101, Some("first"), "first"),
        (
            "first, second",
            Some("second"),
            101,
            Some("second"),
            "second",
        ),
        ("first, other", Some("other"), 101, Some("other"), "first"),
        ("first", Some("second"), 503, None, ""),
        ("", Some("first"), 503, None, ""),
    ];
    for (offer, choice, expected, answered, owner) in cases {
        let mut world = World::with(|log| {
            let mut config = VhostConfig::new("a.test").listen(addr());
            for name in ["first", "second"] {
                let seen = log.clone();
                let recorder = Recorder {
                    filter: Some(Box::new(move |_, request| {
                        seen.push(format!("{name} {:?}", request.selected_subprotocol()));
                        Ok(Accept::new())
                    })),
                    ..Recorder::new(log)
                };
                config = config.protocol(name, recorder);
            }
            let says_it = move || {
                let grant = Grant::new();
                Ok(HookAnswer::Allow(match choice {
                    Some(name) => grant.subprotocol(name),
                    None => grant,
                }))
            };
            config.hooks(HookChain::new().hook("h", says(says_it)))
        });
        let more = match offer {
            "" => String::new(),
            offer => format!("Sec-WebSocket-Protocol: {offer}\r\n"),
        };
        let peer = world.dial();
        peer.write(&request_with("/", &more)).unwrap();
        world.turn();
        let answer = text(&peer);
        assert_eq!(status(&answer), expected, "{offer} {choice:?}");
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line, answered);
        let lines = world.log.take();
        match answered {
            Some(_) => assert_eq!(lines[1], format!("{owner} {answered:?}")),
            None => assert!(lines[0].contains("does not offer"), "{lines:?}"),
        }
    }
}

#[test]
fn the_protocols_own_filter_still_refuses_what_the_hooks_allowed() {
    let mut world = World::with(|log| {
        let recorder = Recorder {
            filter: Some(Box::new(|_, _| Err(Refuse::new(418)))),
            ..Recorder::new(log)
        };
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", recorder)
            .hooks(HookChain::new().hook("all", says(allow)))
    });
    let peer = world.dial();
    peer.write(&request("/")).unwrap();
    world.turn();
    assert_eq!(status(&text(&peer)), 418);
}

#[test]
fn a_hook_sees_the_request_and_is_not_asked_about_what_cannot_be_served() {
    let mut site = Site::with(
        |config| config.mount(Mount::protocol("/ws", "p")),
        |log| {
            let seen = log.clone();
            let hook = Told::new("h", log, move |_, request| {
                seen.push(format!(
                    "{} {} {:?} {:?} {:?} {:?} {}",
                    request.vhost_name(),
                    request.path(),
                    request.query(),
                    request.purpose() == HookPurpose::Upgrade,
                    request.header("x-token").map(String::from_utf8_lossy),
                    request.subprotocols().collect::<Vec<_>>(),
                    request.peer_addr().ip(),
                ));
                allow()
            });
            HookChain::new().hook("h", hook)
        },
    );
    assert_eq!(status(&site.send(&request("/elsewhere")).1), 404);
    let bad = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert_eq!(status(&site.send(bad).1), 400);
    assert_eq!(site.world.log.count("h asked"), 0);
    site.lines();
    let more = "X-Token: 7\r\nSec-WebSocket-Protocol: a, p\r\n";
    assert_eq!(status(&site.send(&request_with("/ws?a=b", more)).1), 101);
    let line = &site.lines()[1];
    let expected = "a.test /ws Some(\"a=b\") true Some(\"7\") [\"a\", \"p\"] ";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn addresses_decide_before_the_others_are_asked() {
    let site = |ranges: [&'static str; 2]| {
        Site::new(move |_| HookChain::new().hook("local", AllowPeers::new(ranges).unwrap()))
    };
    let everybody = ["0.0.0.0/0", "::/0"];
    assert_eq!(status(&site(everybody).send(&request("/")).1), 101);
    let nobody = ["192.0.2.1", "2001:db8::/32"];
    assert_eq!(status(&site(nobody).send(&request("/")).1), 403);
}

#[test]
fn re_07_a_panic_in_a_hook_costs_its_connection_and_nothing_else() {
    let mut site = Site::new(|log| {
        let hook = Told::new("h", log, |_, request| match &*request.path() {
            "/panic" => panic!("in a hook"),
            _ => allow(),
        });
        HookChain::new().hook("h", hook)
    });
    let (fine, answer) = site.send(&request("/"));
    assert_eq!(status(&answer), 101);
    let peer = site.world.net.dial(addr()).unwrap();
    peer.write(&request("/panic")).unwrap();
    let context = &mut site.world.context;
    let mut panicked = 0;
    for _ in 0..8 {
        let turn = AssertUnwindSafe(|| context.service(Some(Duration::ZERO)).unwrap());
        panicked += usize::from(catch_unwind(turn).is_err());
    }
    assert_eq!(panicked, 1);
    site.world.turn();
    assert!(peer.ended());
    assert_eq!(site.world.context.connections(), 1);
    fine.write(&masked(0x81, b"still here")).unwrap();
    site.world.turn();
    assert_eq!(fine.read(), plain(0x81, b"still here"));
    assert_eq!(status(&site.send(&request("/")).1), 101, "asked as before");
}

#[test]
fn a_chain_that_cannot_be_told_apart_and_a_hooked_mount_without_one_are_refused() {
    let twice = HookChain::new().hook("a", says(next)).hook("a", says(next));
    let nameless = HookChain::new().hook("", says(next));
    for (chain, problem) in [(twice, "two hooks"), (nameless, "needs a name")] {
        let mut world = World::new(Recorder::echo);
        let config = VhostConfig::new("b.test").hooks(chain);
        let error = world.context.create_vhost(config).unwrap_err();
        assert!(matches!(error, VhostError::Hook { .. }));
        assert!(error.to_string().contains(problem), "{error}");
    }
    let mut world = World::new(Recorder::echo);
    let page = Mount::response("/", wsloop::Response::text(200, "hi"));
    let config = VhostConfig::new("b.test").mount(page.hooked());
    let error = world.context.create_vhost(config).unwrap_err();
    assert!(error.to_string().contains("no hooks"), "{error}");
}

#[test]
fn an_attribute_that_cannot_be_set_fails_the_hook_with_the_reason() {
    let chain = |name: &'static str| {
        let hook = says(move || {
            let mut attributes = Attributes::new();
            attributes.set(name, "x")?;
            Ok(HookAnswer::Allow(Grant::new().attributes(attributes)))
        });
        HookChain::new().hook("named", hook)
    };
    let mut site = Site::new(|_| chain("user"));
    assert_eq!(status(&site.send(&request("/")).1), 101);
    let mut site = Site::new(|_| chain(""));
    assert_eq!(status(&site.send(&request("/")).1), 503);
    let lines = site.lines();
    assert!(
        lines[0].starts_with("hook error named: ") && lines[0].contains("name"),
        "{lines:?}"
    );
}
