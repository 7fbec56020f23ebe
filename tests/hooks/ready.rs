//! The hooks that come with the library, and what a webhook can be told about its endpoint.

use std::time::Duration;

use wsloop::hook::{AllowAll, DenyAll, HookError, Webhook};
use wsloop::{FetchTimeouts, HookAnswer, HookChain, HookConfig, Refuse, Response};

use crate::support::{request, request_with};
use crate::{Site, Told, says, status};

#[test]
fn who_allows_all_decides_for_all() {
    let mut site = Site::new(|_| {
        HookChain::new()
            .hook("all", AllowAll::new())
            .hook("none", DenyAll::new(Refuse::new(403)))
    });
    assert_eq!(status(&site.send(&request("/")).1), 101);
}

#[test]
fn a_hook_sees_the_vhost_by_id_and_by_name() {
    let mut site = Site::new(|log| {
        HookChain::new().hook(
            "sees",
            Told::new("sees", log, |_, request| {
                assert_eq!(request.vhost_name(), "a.test");
                let mut refuse = wsloop::HeaderList::new();
                refuse.push("X-Vhost", format!("{:?}", request.vhost()))?;
                Ok(HookAnswer::Deny(Refuse::new(403).headers(refuse)))
            }),
        )
    });
    let vhost = format!("\r\nX-Vhost: {:?}\r\n", site.world.vhost);
    let (_, answer) = site.send(&request("/"));
    assert!(answer.contains(&vhost), "{answer}");
}

#[test]
fn a_header_that_cannot_be_sent_is_a_failure_of_the_hook() {
    let mut site = Site::new(|_| {
        let broken = says(|| {
            let mut headers = wsloop::HeaderList::new();
            headers.push("X-A", "a\r\nb: c")?;
            Ok(HookAnswer::allow())
        });
        HookChain::new().hook("broken", broken)
    });
    assert_eq!(status(&site.send(&request("/")).1), 503);
    let lines = site.lines();
    let told = lines
        .iter()
        .find(|line| line.starts_with("hook error broken"));
    assert!(told.is_some(), "{lines:?}");
    let error = HookError::new("why");
    assert_eq!(error.to_string(), "why");
}

/// A chain whose webhook goes to a name that nobody has, but for the address that it is told.
fn chain(configure: impl FnOnce(Webhook) -> Webhook) -> HookChain {
    let webhook = Webhook::new("http://auth.test/ask").unwrap();
    HookChain::new().with(HookConfig::new("auth", configure(webhook)))
}

#[test]
fn a_webhook_goes_where_it_is_told_with_the_headers_that_it_is_given() {
    for several in [false, true] {
        let mut site = Site::new(|_| {
            chain(|hook| {
                let hook = hook.header("X-Key", "42").unwrap();
                let hook = match several {
                    true => hook.addresses(vec!["10.0.0.2:80".parse().unwrap()]),
                    false => hook.address("10.0.0.2"),
                };
                let debug = format!("{:?}", hook.as_ref().unwrap());
                assert!(debug.contains("auth.test"), "{debug}");
                hook.unwrap()
            })
        });
        let endpoint = site
            .world
            .net
            .listen("10.0.0.2:80".parse().unwrap())
            .unwrap();
        let peer = site.world.dial();
        peer.write(&request("/")).unwrap();
        site.world.turn();
        let asked = endpoint.accept().unwrap();
        let question = String::from_utf8(asked.read()).unwrap();
        assert!(question.contains("\r\nHost: auth.test\r\n"), "{question}");
        assert!(question.contains("\r\nX-Key: 42\r\n"), "{question}");
        let answer = br#"{"result":"allow"}"#;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        asked.write(head.as_bytes()).unwrap();
        asked.write(answer).unwrap();
        site.world.turn();
        assert_eq!(status(&crate::text(&peer)), 101);
    }
}

#[test]
fn a_webhook_gives_up_when_it_is_told_to() {
    let mut timeouts = FetchTimeouts::default();
    timeouts.total = Some(Duration::from_secs(2));
    let mut site = Site::new(|_| {
        chain(|hook| {
            let hook = hook.address("10.0.0.2").unwrap();
            hook.timeouts(timeouts).unwrap()
        })
    });
    let address = "10.0.0.2:80".parse().unwrap();
    let _endpoint = site.world.net.listen(address).unwrap();
    let peer = site.world.dial();
    peer.write(&request_with("/", "")).unwrap();
    site.world.pass(Duration::from_millis(1900));
    assert!(peer.read().is_empty());
    site.world.pass(Duration::from_millis(200));
    assert_eq!(status(&crate::text(&peer)), 503);
}

#[test]
fn answers_are_kept_no_longer_than_the_cache_allows() {
    let mut site = Site::new(|_| {
        chain(|hook| {
            let hook = hook.address("10.0.0.2").unwrap().cache(10, 10_000);
            hook.cache_age(Duration::from_secs(5))
        })
    });
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let mount = wsloop::Mount::call("/ask", move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Response::json(200, r#"{"result":"allow"}"#)
            .header("Cache-Control", "max-age=3600")
            .unwrap()
    });
    let address: std::net::SocketAddr = "10.0.0.2:80".parse().unwrap();
    let endpoint = wsloop::VhostConfig::new("auth.test")
        .listen(address)
        .mount(mount);
    site.world.context.create_vhost(endpoint).unwrap();
    for (wait, times) in [(0, 1), (4, 1), (2, 2)] {
        site.world.pass(Duration::from_secs(wait));
        // Who asks is part of the question: it is the same address and port each time.
        assert_eq!(status(&site.send(&request("/")).1), 101);
        let seen = asked.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(seen, times, "after {wait} s more");
    }
}
