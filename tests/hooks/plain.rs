//! Plain HTTP requests to mounts that are hooked.

use std::time::Duration;

use wsloop::hook::{Attributes, Grant};
use wsloop::{HeaderList, HookAnswer, HookChain, Mount, Refuse, Response};

use crate::support::Endpoint;
use crate::{Ids, Site, Told, says, status, text};

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").into_bytes()
}

fn mounts(config: wsloop::VhostConfig) -> wsloop::VhostConfig {
    let user = Mount::call("/user", |request| {
        let user = request.attributes().get("user").unwrap_or("nobody");
        Response::text(200, format!("{user}\n"))
    });
    let open = Mount::call("/open", |request| {
        Response::text(200, format!("{}\n", request.attributes().is_empty()))
    });
    config.mount(user.hooked()).mount(open)
}

/// Lets `/user` in, denies `/user/denied`, thinks about `/user/later`.
fn site(ids: &Ids) -> Site {
    let ids = ids.clone();
    Site::with(mounts, |log| {
        let hook = Told::new("h", log, |_, request| match &*request.path() {
            "/user/later" => Ok(HookAnswer::Later),
            "/user/denied" => {
                let mut headers = HeaderList::new();
                headers.push("WWW-Authenticate", "Basic")?;
                headers.push("Content-Length", "99")?;
                let refuse = Refuse::new(401).headers(headers).body("no\n");
                Ok(HookAnswer::Deny(refuse))
            }
            _ => Ok(HookAnswer::Allow(grant()?)),
        });
        HookChain::new().hook("h", Told { ids, ..hook })
    })
}

fn grant() -> Result<Grant, wsloop::HookError> {
    let mut attributes = Attributes::new();
    attributes.set("user", "ada")?;
    let mut headers = HeaderList::new();
    headers.push("X-User", "ada")?;
    Ok(Grant::new().attributes(attributes).headers(headers))
}

#[test]
fn a_hook_that_decides_by_the_path_meets_every_spelling_of_it() {
    let mut site = site(&Ids::default());
    for target in ["/user/denied", "/us%65r/denied", "/user/%64%65nied"] {
        let (_, answer) = site.send(&get(target));
        assert!(answer.starts_with("HTTP/1.1 401 "), "{target}: {answer}");
    }
}

#[test]
fn a_hooked_mount_asks_and_the_others_do_not() {
    let mut site = site(&Ids::default());
    let (_, answer) = site.send(&get("/user"));
    assert!(answer.contains("\r\nX-User: ada\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nada\n"), "{answer}");
    let (_, answer) = site.send(&get("/open"));
    assert!(answer.ends_with("\r\n\r\ntrue\n"), "{answer}");
    assert_eq!(site.lines(), ["h asked /user"]);
}

#[test]
fn a_denied_request_keeps_its_connection_and_its_body_is_dropped() {
    let mut site = site(&Ids::default());
    let post = b"POST /user/denied HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
    let (peer, answer) = site.send(post);
    assert_eq!(status(&answer), 401);
    assert!(answer.contains("\r\nWWW-Authenticate: Basic\r\n"));
    assert!(answer.contains("\r\nContent-Length: 3\r\n"));
    assert!(!answer.contains("99"));
    peer.write(&get("/user")).unwrap();
    site.world.turn();
    assert!(text(&peer).ends_with("\r\n\r\nada\n"));
}

#[test]
fn a_response_keeps_its_own_headers_and_a_denial_without_a_body_has_none() {
    let grant = || {
        let mut headers = HeaderList::new();
        for (name, value) in [
            ("content-type", "text/html"),
            ("Set-Cookie", "a=b"),
            ("Date", "today"),
            ("X-User", "ada"),
        ] {
            headers.push(name, value)?;
        }
        Ok(HookAnswer::Allow(Grant::new().headers(headers)))
    };
    let page = Response::text(200, "x")
        .header("Set-Cookie", "c=d")
        .unwrap();
    let mut site = Site::with(
        |config| config.mount(Mount::response("/", page).hooked()),
        |_| HookChain::new().hook("h", says(grant)),
    );
    let (_, answer) = site.send(&get("/"));
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head
        .lines()
        .filter(|line| !line.starts_with("Date:"))
        .collect();
    lines.sort_unstable();
    assert_eq!(head.matches("Date:").count(), 1);
    assert_eq!(
        lines,
        [
            "Content-Length: 1",
            "Content-Type: text/plain; charset=utf-8",
            "HTTP/1.1 200 OK",
            "Set-Cookie: c=d",
            "X-User: ada"
        ]
    );
    let deny = || Ok(HookAnswer::Deny(Refuse::new(304).body("none")));
    let mut site = Site::with(
        |config| config.mount(Mount::response("/", Response::new(200)).hooked()),
        |_| HookChain::new().hook("h", says(deny)),
    );
    let (_, answer) = site.send(&get("/"));
    assert!(
        answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[test]
fn pipelined_requests_wait_for_the_answer_and_come_in_their_order() {
    let ids = Ids::default();
    let mut site = site(&ids);
    let three = [get("/user/later"), get("/user/denied"), get("/open")].concat();
    let (peer, answer) = site.send(&three);
    assert_eq!(answer, "");
    assert!(site.answer(ids.one(), Ok(HookAnswer::allow())));
    let answers = text(&peer);
    let codes: Vec<_> = answers
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1.1 "))
        .map(|rest| rest.get(..3).unwrap())
        .collect();
    assert_eq!(codes, ["200", "401", "200"]);
}

#[test]
fn a_body_that_came_while_a_hook_thought_is_the_handlers() {
    let ids = Ids::default();
    let echo = Endpoint::new(|http, body| {
        http.respond(Response::new(200).body(body))?;
        Ok(())
    });
    let mut site = Site::with(
        |config| config.mount(Mount::handler("/echo", echo).hooked()),
        |log| HookChain::new().hook("h", Told::later("h", log, &ids)),
    );
    let post = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhel";
    let (peer, _) = site.send(post);
    peer.write(b"lo").unwrap();
    site.world.pass(Duration::from_secs(1));
    assert_eq!(text(&peer), "");
    assert!(site.answer(ids.one(), Ok(HookAnswer::allow())));
    assert!(text(&peer).ends_with("\r\n\r\nhello"));
}

#[test]
fn a_client_that_has_shut_its_writing_side_still_gets_its_answer() {
    let ids = Ids::default();
    let mut site = site(&ids);
    let (peer, _) = site.send(&get("/user/later"));
    peer.shutdown_write();
    site.world.pass(Duration::from_secs(1));
    assert!(site.answer(ids.one(), Ok(HookAnswer::allow())));
    assert_eq!(status(&text(&peer)), 200);
}

#[test]
fn a_plain_request_that_waits_too_long_is_answered_and_the_next_one_served() {
    let ids = Ids::default();
    let mut site = site(&ids);
    let (peer, _) = site.send(&get("/user/later"));
    site.world.pass(Duration::from_secs(5));
    assert_eq!(status(&text(&peer)), 503);
    assert!(!site.answer(ids.one(), Ok(HookAnswer::allow())));
    peer.write(&get("/user")).unwrap();
    site.world.turn();
    assert_eq!(status(&text(&peer)), 200);
}

#[test]
fn a_client_that_gives_up_its_body_still_gets_the_answer_that_did_not_need_it() {
    for (target, want) in [("/nope", 404), ("/user/denied", 401)] {
        let mut site = site(&Ids::default());
        let peer = site.world.dial();
        let head = format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhe");
        peer.write(head.as_bytes()).unwrap();
        peer.shutdown_write();
        site.world.turn();
        assert_eq!(status(&text(&peer)), want, "{target}");
        site.world.pass(Duration::from_secs(10));
        assert_eq!(site.world.context.connections(), 0);
    }
}
