//! Who may use a mount, and what it says with every response.

use wsloop::http::auth::BasicRealm;
use wsloop::http::origin::OriginPolicy;
use wsloop::{EmbeddedFiles, Mount, Response, VhostConfig};

use super::common::{get, read};
use crate::support::{Recorder, World, addr, request_with};

/// `admin:secret`.
const RIGHT: &str = "Authorization: Basic YWRtaW46c2VjcmV0\r\n";
/// `admin:Secret`.
const WRONG: &str = "Authorization: Basic YWRtaW46U2VjcmV0\r\n";

fn realm() -> BasicRealm {
    BasicRealm::new("the \"back\" room")
        .unwrap()
        .user("admin", "secret")
        .unwrap()
}

fn world(mount: Mount) -> World {
    let page = EmbeddedFiles::new()
        .file("admin/x", b"PRIVATE".as_slice())
        .unwrap();
    World::with(|log| {
        VhostConfig::new("a.test")
            .listen(addr())
            .protocol("p", Recorder::echo(log))
            .mount(Mount::handler("/", page))
            .mount(mount)
    })
}

fn ask(world: &mut World, request: &[u8]) -> String {
    let peer = world.dial();
    peer.write(request).unwrap();
    world.turn();
    read(&peer)
}

fn with(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

#[test]
fn only_who_knows_the_password_is_served() {
    let page = Response::text(200, "PRIVATE");
    let mut world = world(Mount::response("/admin", page).basic_auth(realm()));
    for fields in [
        "",
        WRONG,
        "Authorization: Basic\r\n",
        "Authorization: Bearer x\r\n",
    ] {
        let text = ask(&mut world, &with("/admin", fields));
        assert!(
            text.starts_with("HTTP/1.1 401 ") && !text.contains("PRIVATE"),
            "{text}"
        );
        let challenge =
            "\r\nWWW-Authenticate: Basic realm=\"the \\\"back\\\" room\", charset=\"UTF-8\"\r\n";
        assert!(text.contains(challenge), "{text}");
    }
    let twice = ask(&mut world, &with("/admin", &format!("{WRONG}{RIGHT}")));
    assert!(twice.starts_with("HTTP/1.1 400 "), "{twice}");
    let text = ask(&mut world, &with("/admin", RIGHT));
    assert!(text.ends_with("PRIVATE"), "{text}");
}

#[test]
fn no_spelling_of_a_path_goes_around_the_password() {
    let page = Response::text(200, "PRIVATE");
    let mut world = world(Mount::response("/admin", page).basic_auth(realm()));
    for target in [
        "/admin/x",
        "/%61dmin/x",
        "/adm%69n/%78",
        "/%61%64%6d%69%6e/x",
        "//admin/x",
        "/./admin/x",
        "/x/../admin/x",
        "/admin%2fx",
        "/%2fadmin/x",
        "/admin/",
        "/admin//x",
        "/admin/%2e/x",
        "http://a.test/admin/x",
        "http://a.test/%61dmin/x",
        "/ADMIN/x",
        "/admin%20/x",
        "/admin./x",
        "/admin\\x",
        "/admin%5cx",
        "/%2561dmin/x",
        "/admin;/x",
        "/%c1%a1dmin/x",
    ] {
        let text = ask(&mut world, &get(target));
        assert!(!text.contains("PRIVATE"), "{target} gave {text}");
    }
}

#[test]
fn a_refusal_leaves_the_connection_for_the_next_try() {
    let page = Response::text(200, "PRIVATE");
    let mut world = world(Mount::response("/admin", page).basic_auth(realm()));
    let peer = world.dial();
    peer.write(&[with("/admin", ""), with("/admin", RIGHT)].concat())
        .unwrap();
    world.turn();
    let text = read(&peer);
    assert!(
        text.starts_with("HTTP/1.1 401 ") && text.ends_with("PRIVATE"),
        "{text}"
    );
}

#[test]
fn upgrades_need_the_password_of_their_mount() {
    let mut world = world(Mount::protocol("/ws", "p").basic_auth(realm()));
    let text = ask(&mut world, &request_with("/ws", WRONG));
    assert!(
        text.starts_with("HTTP/1.1 401 ") && text.contains("WWW-Authenticate"),
        "{text}"
    );
    assert_eq!(world.log.count("filter"), 0);
    for target in ["/ws", "/%77s"] {
        let text = ask(&mut world, &request_with(target, RIGHT));
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        let text = ask(&mut world, &request_with(target, ""));
        assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
    }
}

#[test]
fn pages_of_other_origins_cannot_connect() {
    let mut world = world(Mount::protocol("/ws", "p").origin(OriginPolicy::same_host()));
    for (origin, expected) in [
        ("Origin: http://a.test\r\n", 101),
        ("Origin: https://a.test\r\n", 101),
        ("", 101),
        ("Origin: http://b.test\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: http://a.test\r\nOrigin: http://a.test\r\n", 403),
    ] {
        let text = ask(&mut world, &request_with("/ws", origin));
        assert!(
            text.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{origin}: {text}"
        );
    }
}

#[test]
fn a_protocol_can_ask_a_policy_itself() {
    let policy = OriginPolicy::list(["https://b.test"]).unwrap();
    let mut world = World::new(|log| Recorder {
        filter: Some(Box::new(move |_, request| {
            policy.check(request.head(), request.transport())?;
            Ok(wsloop::Accept::new())
        })),
        ..Recorder::new(log)
    });
    let text = ask(&mut world, &request_with("/", "Origin: https://a.test\r\n"));
    assert!(
        text.starts_with("HTTP/1.1 403 ") && text.contains("https://a.test"),
        "{text}"
    );
    let text = ask(&mut world, &request_with("/", "Origin: https://b.test\r\n"));
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
}

#[test]
fn the_headers_of_a_mount_are_in_all_its_responses() {
    let page = Response::text(200, "x").header("X-Own", "mine").unwrap();
    let mount = Mount::response("/admin", page)
        .basic_auth(realm())
        .header("X-Frame-Options", "DENY")
        .unwrap()
        .header("x-own", "other")
        .unwrap();
    let mut world = world(mount);
    let text = ask(&mut world, &with("/admin", RIGHT));
    assert!(text.contains("\r\nX-Frame-Options: DENY\r\n"), "{text}");
    assert!(
        text.contains("\r\nX-Own: mine\r\n") && !text.contains("other"),
        "{text}"
    );
    let text = ask(&mut world, &with("/admin", ""));
    assert!(
        text.starts_with("HTTP/1.1 401 ") && text.contains("X-Frame-Options"),
        "{text}"
    );
    let text = ask(&mut world, &get("/admin-not"));
    assert!(!text.contains("X-Frame-Options"), "{text}");
}

#[test]
fn a_mount_has_no_framing_headers() {
    let mount = Mount::response("/a", Response::new(204));
    let mount = mount.header("Transfer-Encoding", "chunked").unwrap();
    let net = wsloop::sim::Net::new(1);
    let config = wsloop::ContextConfig::new();
    let mut context = wsloop::Context::simulated(&net, config).unwrap();
    let vhost = VhostConfig::new("a.test").listen(addr()).mount(mount);
    let error = context.create_vhost(vhost).unwrap_err();
    assert!(error.to_string().contains("only the library"), "{error}");
}
