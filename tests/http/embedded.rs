//! Files in the program are served as those of a directory are.

use wsloop::{EmbeddedFiles, Mount, VhostConfig};

use super::common::{get, read};
use crate::support::{World, addr};

fn answer(world: &mut World, target: &str) -> String {
    let peer = world.dial();
    peer.write(&get(target)).unwrap();
    world.turn();
    read(&peer)
}

#[test]
fn an_embedded_site_has_its_own_index_fallback_and_caching() {
    let files = EmbeddedFiles::default()
        .file("start.html", "<p>start")
        .and_then(|files| files.file("app/start.html", "<p>app"))
        .and_then(|files| files.index("start.html"))
        .and_then(|files| files.fallback("start.html"))
        .unwrap();
    let files = files.cache_control("max-age=60").unwrap();
    let mut world = World::with(|_| {
        VhostConfig::new("a.test")
            .listen(addr())
            .mount(Mount::handler("/", files))
    });
    for (target, body) in [
        ("/", "<p>start"),
        ("/app/", "<p>app"),
        ("/users/7", "<p>start"),
    ] {
        let response = answer(&mut world, target);
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(
            response.contains("\r\nCache-Control: max-age=60\r\n"),
            "{response}"
        );
        assert!(response.ends_with(body), "{target}: {response}");
    }
    assert!(answer(&mut world, "/missing.js").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_name_or_a_header_that_cannot_be_is_refused_when_it_is_given() {
    for name in ["", ".", "..", "a\0b"] {
        assert!(EmbeddedFiles::new().index(name).is_err(), "{name:?}");
        assert!(EmbeddedFiles::new().fallback(name).is_err(), "{name:?}");
    }
    assert!(EmbeddedFiles::new().cache_control("a\r\nb: c").is_err());
}

#[test]
fn a_client_that_half_closes_still_gets_the_file() {
    let files = EmbeddedFiles::new()
        .file("a.txt", vec![b'x'; 300_000])
        .unwrap();
    let mut world = World::with(|_| {
        VhostConfig::new("a.test")
            .listen(addr())
            .mount(Mount::handler("/", files))
    });
    let peer = world.dial();
    peer.write(&get("/a.txt")).unwrap();
    peer.shutdown_write();
    let mut got = Vec::new();
    for _ in 0..20 {
        world.turn();
        got.extend(peer.read());
    }
    assert!(got.len() > 300_000, "{}", got.len());
}

#[test]
fn a_prefix_that_no_path_has_is_refused() {
    for prefix in ["/a//b", "/./a", "/a/.."] {
        let net = wsloop::sim::Net::new(0);
        let mut context = wsloop::Context::simulated(&net, Default::default()).unwrap();
        let mount = Mount::response(prefix, wsloop::Response::text(200, "x"));
        let made = context.create_vhost(VhostConfig::new("a.test").listen(addr()).mount(mount));
        assert!(made.is_err(), "{prefix}");
    }
}

#[test]
fn pages_and_routes_that_exclude_each_other_are_refused() {
    let net = wsloop::sim::Net::new(0);
    let mut context = wsloop::Context::simulated(&net, Default::default()).unwrap();
    let twice = VhostConfig::new("a.test")
        .page("/a", "text/plain", "1")
        .page("/a", "text/plain", "2");
    let error = context.create_vhost(twice).unwrap_err();
    assert!(error.to_string().contains("two pages"), "{error}");
    let nobodys = VhostConfig::new("a.test").mount(Mount::protocol("/p", "nobody"));
    let error = context.create_vhost(nobodys).unwrap_err();
    assert!(error.to_string().contains("no protocol"), "{error}");
}
