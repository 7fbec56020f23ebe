//! Files, from a directory and from the program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wsloop::sim::SimPeer;
use wsloop::{EmbeddedFiles, Limits, Mount, StaticFiles, VhostConfig};

use super::common::{get, read};
use crate::support::{World, addr};

/// A directory with files, beside a secret; removed at the end.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Self {
        let site = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{name}")));
        let _ = fs::remove_dir_all(&site.0);
        for (path, text) in [
            ("secret.txt", "SECRET"),
            ("rootless/secret.txt", "SECRET"),
            ("root/index.html", "<p>index"),
            ("root/a.txt", "0123456789"),
            ("root/empty.css", ""),
            ("root/a b/na\u{ef}ve.json", "{}"),
            ("root/sub/index.html", "<p>sub"),
            ("root/bare/x.bin", "x"),
            ("root/.env", "SECRET"),
            ("root/.git/config", "SECRET"),
            ("root/sub/.well-known/x", "SECRET"),
            ("root/.well-known/x", "known"),
        ] {
            site.write(path, text.as_bytes());
        }
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Writes a file that was modified 1000 s after 1970.
    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        touch(&path, 1000);
    }

    fn files(&self) -> StaticFiles {
        StaticFiles::new(self.path("root")).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn touch(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap();
}

/// A vhost with one mount, an hour after 1970.
fn world(mount: Mount) -> World {
    world_with(mount, Limits::default())
}

fn world_with(mount: Mount, limits: Limits) -> World {
    let vhost = VhostConfig::new("a.test").listen(addr());
    let mut world = World::with(|_| vhost.limits(limits).mount(mount));
    world.net.advance(Duration::from_secs(3600));
    world.turn();
    world
}

fn files(site: &Site) -> World {
    world(Mount::handler("/", site.files()))
}

/// Sends a request on a connection of its own and gives head and body of the response.
fn ask(world: &mut World, method: &str, target: &str, fields: &str) -> (String, Vec<u8>) {
    let peer = world.dial();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    peer.write(request.as_bytes()).unwrap();
    world.turn();
    split(&peer.read())
}

fn split(bytes: &[u8]) -> (String, Vec<u8>) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("a response has a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    (head, bytes[end..].to_vec())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Status and body as text.
fn page(world: &mut World, target: &str) -> (u16, String) {
    let (head, body) = ask(world, "GET", target, "");
    (status(&head), String::from_utf8(body).unwrap())
}

#[test]
fn a_file_comes_with_its_type_length_and_validators() {
    let site = Site::new("plain");
    let mut world = files(&site);
    let (head, body) = ask(&mut world, "GET", "/a.txt", "");
    assert_eq!(
        (status(&head), body.as_slice()),
        (200, b"0123456789".as_slice())
    );
    for (name, value) in [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", "10"),
        ("Accept-Ranges", "bytes"),
        ("Last-Modified", "Thu, 01 Jan 1970 00:16:40 GMT"),
        ("X-Content-Type-Options", "nosniff"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    assert!(field(&head, "ETag").unwrap().starts_with('"'), "{head}");
    let (head, body) = ask(&mut world, "GET", "/a%20b/na%c3%afve.json?x=1", "");
    assert_eq!(field(&head, "Content-Type"), Some("application/json"));
    assert_eq!(body, b"{}");
    let (head, body) = ask(&mut world, "GET", "/empty.css", "");
    assert_eq!((field(&head, "Content-Length"), body.len()), (Some("0"), 0));
}

#[test]
fn head_is_get_without_the_body() {
    let site = Site::new("head");
    let mut world = files(&site);
    for target in ["/a.txt", "/", "/sub", "/nothing", "/empty.css"] {
        let (get, _) = ask(&mut world, "GET", target, "");
        let (head, body) = ask(&mut world, "HEAD", target, "");
        assert_eq!(head, get);
        assert_eq!(body, b"");
    }
    // A range is GET's alone.
    let (head, _) = ask(&mut world, "HEAD", "/a.txt", "Range: bytes=0-1\r\n");
    assert_eq!(
        (status(&head), field(&head, "Content-Length")),
        (200, Some("10"))
    );
}

#[test]
fn one_connection_asks_for_file_after_file() {
    let site = Site::new("keep");
    let mut world = files(&site);
    let peer = world.dial();
    peer.write(b"HEAD /a.txt HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    world.turn();
    assert!(read(&peer).ends_with("\r\n\r\n"));
    let many = ["/a.txt", "/nothing", "/sub/", "/empty.css", "/bare/x.bin"];
    peer.write(&many.map(get).concat()).unwrap();
    world.turn();
    let want = ["0123456789", "not found\n", "<p>sub", "", "x"];
    assert_eq!(super::common::bodies(&read(&peer)), want);
    assert!(!peer.ended());
}

#[test]
fn a_client_that_has_the_file_is_told_so() {
    let site = Site::new("conditional");
    let files = site.files().cache_control("max-age=60").unwrap();
    let mut world = world(Mount::handler("/", files));
    let (head, _) = ask(&mut world, "GET", "/a.txt", "");
    let etag = field(&head, "ETag").unwrap().to_owned();
    assert_eq!(field(&head, "Cache-Control"), Some("max-age=60"));
    let date = "Thu, 01 Jan 1970 00:16:40 GMT";
    for (fields, expected) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{etag}\r\n"), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (
            "If-Modified-Since: Thu, 01 Jan 1970 00:16:39 GMT\r\n".to_owned(),
            200,
        ),
        (
            format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"),
            200,
        ),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        (format!("If-Match: {etag}\r\n"), 200),
        (
            "If-Unmodified-Since: Thu, 01 Jan 1970 00:16:39 GMT\r\n".to_owned(),
            412,
        ),
    ] {
        let (head, body) = ask(&mut world, "GET", "/a.txt", &fields);
        assert_eq!(status(&head), expected, "{fields}");
        if expected == 304 {
            assert_eq!(body, b"");
            assert_eq!(field(&head, "ETag"), Some(etag.as_str()));
            assert_eq!(field(&head, "Last-Modified"), Some(date));
            assert_eq!(field(&head, "Cache-Control"), Some("max-age=60"));
            assert_eq!(field(&head, "Content-Length"), None);
        }
    }
    site.write("root/a.txt", b"9876543210");
    touch(&site.path("root/a.txt"), 1001);
    let (head, _) = ask(
        &mut world,
        "GET",
        "/a.txt",
        &format!("If-None-Match: {etag}\r\n"),
    );
    assert_eq!(status(&head), 200);
}

#[test]
fn parts_of_a_file_come_as_ranges() {
    let site = Site::new("ranges");
    let embedded = EmbeddedFiles::new()
        .file("a.txt", b"0123456789".as_slice())
        .unwrap();
    for mount in [
        Mount::handler("/", site.files()),
        Mount::handler("/", embedded),
    ] {
        let mut world = world(mount);
        for (range, expected, content_range, body) in [
            ("bytes=0-3", 206, Some("bytes 0-3/10"), "0123"),
            ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
            ("bytes=4-", 206, Some("bytes 4-9/10"), "456789"),
            ("bytes=0-99", 206, Some("bytes 0-9/10"), "0123456789"),
            (
                "bytes=10-",
                416,
                Some("bytes */10"),
                "there is nothing in this range\n",
            ),
            ("bytes=3-1", 200, None, "0123456789"),
            ("bytes=5-6,0-1", 200, None, "0123456789"),
            ("lines=1-2", 200, None, "0123456789"),
        ] {
            let fields = format!("Range: {range}\r\n");
            let (head, found) = ask(&mut world, "GET", "/a.txt", &fields);
            assert_eq!(status(&head), expected, "{range}");
            assert_eq!(field(&head, "Content-Range"), content_range, "{range}");
            assert_eq!(String::from_utf8(found).unwrap(), body, "{range}");
        }
        let (head, _) = ask(&mut world, "GET", "/a.txt", "");
        let etag = field(&head, "ETag").unwrap();
        for (tag, expected) in [(etag, 206), ("\"x\"", 200)] {
            let fields = format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n");
            let (head, _) = ask(&mut world, "GET", "/a.txt", &fields);
            assert_eq!(status(&head), expected);
        }
    }
}

#[test]
fn several_ranges_come_as_one_multipart_body() {
    let site = Site::new("multipart");
    let mut world = files(&site);
    let (head, body) = ask(&mut world, "GET", "/a.txt", "Range: bytes=0-1,5-6,-1\r\n");
    assert_eq!(status(&head), 206);
    assert_eq!(
        field(&head, "Content-Length"),
        Some(body.len().to_string().as_str())
    );
    let kind = field(&head, "Content-Type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let body = String::from_utf8(body).unwrap();
    let part = |range: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Range: bytes {range}/10\r\n\r\n{text}\r\n"
        )
    };
    let parts = [part("0-1", "01"), part("5-6", "56"), part("9-9", "9")].concat();
    assert_eq!(body, format!("{parts}--{boundary}--\r\n"));
}

#[test]
fn only_reading_methods_are_served() {
    let site = Site::new("methods");
    let mut world = files(&site);
    for (method, expected) in [
        ("OPTIONS", 204),
        ("POST", 405),
        ("DELETE", 405),
        ("get", 405),
    ] {
        let (head, _) = ask(&mut world, method, "/a.txt", "Content-Length: 0\r\n");
        assert_eq!(status(&head), expected);
        assert_eq!(field(&head, "Allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[test]
fn a_directory_is_its_index_behind_a_slash() {
    let site = Site::new("index");
    let embedded = EmbeddedFiles::new()
        .file("index.html", b"<p>index".as_slice())
        .unwrap()
        .file("sub/index.html", b"<p>sub".as_slice())
        .unwrap()
        .file("bare/x.bin", b"x".as_slice())
        .unwrap();
    for (prefix, mount) in [
        ("", Mount::handler("/", site.files())),
        ("/m", Mount::handler("/m", site.files())),
        ("/m", Mount::handler("/m", embedded)),
    ] {
        let mut world = world(mount);
        for (target, expected) in [
            ("/", (200, "<p>index")),
            ("/index.html", (200, "<p>index")),
            ("/index.html/", (404, "not found\n")),
            ("/sub/", (200, "<p>sub")),
            ("/bare/", (404, "not found\n")),
            ("/bare/x.bin/y", (404, "not found\n")),
        ] {
            let found = page(&mut world, &format!("{prefix}{target}"));
            assert_eq!((found.0, found.1.as_str()), expected, "{target}");
        }
        let (head, _) = ask(&mut world, "GET", &format!("{prefix}/sub?a=/b"), "");
        let location = format!("{prefix}/sub/?a=/b");
        assert_eq!(
            (status(&head), field(&head, "Location")),
            (301, Some(location.as_str()))
        );
        if !prefix.is_empty() {
            let (head, _) = ask(&mut world, "GET", prefix, "");
            assert_eq!(
                (status(&head), field(&head, "Location")),
                (301, Some("/m/"))
            );
        }
        // What could name another server is not sent back as a location.
        for target in ["//sub", "//evil.test/sub", "/%5cevil.test", "/sub//"] {
            assert!(matches!(
                page(&mut world, &format!("{prefix}{target}")).0,
                400 | 404
            ));
        }
    }
}

#[test]
fn another_file_can_be_the_index() {
    let site = Site::new("index");
    let files = site.files().index("a.txt").unwrap();
    let mut world = world(Mount::handler("/", files));
    assert_eq!(page(&mut world, "/"), (200, "0123456789".to_owned()));
    assert_eq!(page(&mut world, "/sub/").0, 404);
}

#[test]
fn pages_that_route_themselves_have_a_fallback() {
    let site = Site::new("fallback");
    let files = site.files().fallback("index.html").unwrap();
    let mut world = world(Mount::handler("/", files));
    for (target, expected) in [
        ("/users/7", (200, "<p>index")),
        ("/users/7/", (200, "<p>index")),
        ("/a.txt", (200, "0123456789")),
        ("/missing.js", (404, "not found\n")),
    ] {
        let found = page(&mut world, target);
        assert_eq!((found.0, found.1.as_str()), expected, "{target}");
    }
}

#[test]
fn dotfiles_are_hidden_unless_they_are_asked_for() {
    let site = Site::new("dotfiles");
    let mut hidden = files(&site);
    for target in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/.git",
        "/sub/.well-known/x",
    ] {
        assert_eq!(
            page(&mut hidden, target),
            (404, "not found\n".to_owned()),
            "{target}"
        );
    }
    assert_eq!(page(&mut hidden, "/.well-known/x").1, "known");
    let mut served = world(Mount::handler("/", site.files().serve_dotfiles()));
    assert_eq!(page(&mut served, "/.env").1, "SECRET");
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_not_there_unless_they_stay_inside() {
    use std::os::unix::fs::symlink;

    let site = Site::new("links");
    for (target, link) in [
        ("../secret.txt", "root/out.txt"),
        ("../rootless", "root/outdir"),
        ("/", "root/slash"),
        ("a.txt", "root/in.txt"),
        ("sub", "root/indir"),
        (".env", "root/env.txt"),
        ("loop", "root/loop"),
        ("gone", "root/gone"),
        ("../secret.txt", "root/bare/index.html"),
    ] {
        symlink(target, site.path(link)).unwrap();
    }
    let absolute = site.path("secret.txt");
    symlink(&absolute, site.path("root/absolute.txt")).unwrap();
    let etc = format!("/slash{}", absolute.display());
    let outside = [
        "/out.txt",
        "/outdir/secret.txt",
        "/outdir/",
        "/outdir",
        "/absolute.txt",
        "/env.txt",
        "/loop",
        "/gone",
        "/bare/",
        "/slash/",
        etc.as_str(),
    ];
    let mut refused = files(&site);
    let mut followed = world(Mount::handler("/", site.files().follow_symlinks()));
    for target in outside {
        assert_eq!(
            page(&mut refused, target),
            (404, "not found\n".to_owned()),
            "{target}"
        );
        assert_eq!(
            page(&mut followed, target),
            (404, "not found\n".to_owned()),
            "{target}"
        );
    }
    for (target, body) in [("/in.txt", "0123456789"), ("/indir/", "<p>sub")] {
        assert_eq!(page(&mut refused, target).0, 404, "{target}");
        assert_eq!(
            page(&mut followed, target),
            (200, body.to_owned()),
            "{target}"
        );
    }
    // The root itself may be a link, as of a release that is switched.
    symlink(site.path("root"), site.path("current")).unwrap();
    let current = StaticFiles::new(site.path("current")).unwrap();
    let mut world = world(Mount::handler("/", current));
    assert_eq!(page(&mut world, "/a.txt").0, 200);
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_file_is_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let site = Site::new("special");
    let pipe = site.path("root/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.path("root/socket")).unwrap();
    let mut world = files(&site);
    assert_eq!(page(&mut world, "/pipe").0, 404);
    assert_eq!(page(&mut world, "/socket").0, 404);
}

#[test]
fn no_byte_outside_the_root_is_served() {
    let site = Site::new("traversal");
    let ups = [
        "..",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "%c0%2e%c0%2e",
        "%e0%80%ae%e0%80%ae",
        "%uff0e%uff0e",
        "%ef%bc%8e%ef%bc%8e",
        "..%00",
        "..%20",
        "...",
        "....",
        "..;",
        "%2e%2e;",
        ".%00.",
        ".%e2%80%8d.",
        "..%c0%af..",
        "sub/..",
        "sub/%2e%2e/..",
        "bare/x.bin/..",
        "nothing/../..",
        "..%0d",
        "%%32%65%%32%65",
        "0x2e0x2e",
        "..%5c",
        "..\\",
        "\\..",
        "%5c..",
        "%2f..",
        "..%2f",
        "..%2f..",
        "..%252f",
        "..%c1%9c",
        "..%u2215",
    ];
    let slashes = [
        "/", "//", "%2f", "%2F", "%252f", "%5c", "\\", "%c0%af", "/./", "%00/",
    ];
    for (prefix, mount) in [
        ("/", Mount::handler("/", site.files().serve_dotfiles())),
        (
            "/m/",
            Mount::handler("/m", site.files().serve_dotfiles().follow_symlinks()),
        ),
        ("/m", Mount::handler("/m", site.files().serve_dotfiles())),
    ] {
        let mut world = world(mount);
        for up in ups {
            for slash in slashes {
                for target in [
                    format!("{prefix}{up}{slash}secret.txt"),
                    format!("{prefix}{up}less/secret.txt"),
                    format!("{prefix}sub{slash}{up}{slash}{up}{slash}secret.txt"),
                    format!("{prefix}{slash}{up}{slash}secret.txt"),
                ] {
                    refuses(&mut world, &target);
                }
            }
        }
        let secret = site.path("secret.txt").display().to_string();
        for target in [
            format!("{prefix}{secret}"),
            format!("{prefix}/{secret}"),
            format!("{prefix}file://{secret}"),
            format!("http://a.test{prefix}..{secret}"),
            format!("http://a.test/../{secret}"),
            format!("{prefix}%2f{}", secret.replace('/', "%2f")),
        ] {
            refuses(&mut world, &target);
        }
    }
}

/// Asks for a path, of which nothing but a refusal may come.
fn refuses(world: &mut World, target: &str) {
    let peer = world.net.dial(addr()).unwrap();
    peer.write(&get(target)).unwrap();
    for _ in 0..4 {
        world.context.service(Some(Duration::ZERO)).unwrap();
    }
    let text = read(&peer);
    assert!(!text.contains("SECRET"), "{target} gave {text}");
    assert!(matches!(status(&text), 400 | 404), "{target} gave {text}");
}

/// Reads until nothing more comes.
fn drain(world: &mut World, peer: &SimPeer) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        world.turn();
        let piece = peer.read();
        if piece.is_empty() {
            return all;
        }
        all.extend(piece);
    }
}

/// Bytes of which none is where its neighbours would be.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_large_file_is_sent_whole_to_a_client_that_reads_slowly() {
    let site = Site::new("large");
    let large = pattern(5_000_003);
    site.write("root/large.bin", &large);
    let embedded = EmbeddedFiles::new()
        .file("large.bin", large.clone())
        .unwrap();
    for mount in [
        Mount::handler("/", site.files()),
        Mount::handler("/", embedded),
    ] {
        // A cap that no two pieces fit under: had more of the file been read, it could not be kept.
        let mut limits = Limits::default();
        limits.output_bytes = 100_000;
        limits.output_low_water = 60_000;
        let mut world = world_with(mount, limits);
        world.net.set_capacity(10_000);
        let peer = world.dial();
        let request =
            |range: &str| format!("GET /large.bin HTTP/1.1\r\nHost: a.test\r\n{range}\r\n");
        peer.write(request("").as_bytes()).unwrap();
        peer.write(request("Range: bytes=100000-400000,500000-\r\n").as_bytes())
            .unwrap();
        let bytes = drain(&mut world, &peer);
        let (head, rest) = split(&bytes);
        assert_eq!(field(&head, "Content-Length"), Some("5000003"));
        assert!(rest[..large.len()] == large, "the file is as it was");
        let (head, body) = split(&rest[large.len()..]);
        assert_eq!(
            field(&head, "Content-Length"),
            Some(body.len().to_string().as_str())
        );
        let holds = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
        assert!(holds(&large[100_000..400_001]) && holds(&large[500_000..]));
    }
}

#[test]
fn a_sparse_file_larger_than_memory_is_served_by_range() {
    let site = Site::new("sparse");
    let path = site.path("root/sparse.bin");
    File::create(&path).unwrap().set_len(1 << 33).unwrap();
    let mut world = files(&site);
    let (head, body) = ask(&mut world, "GET", "/sparse.bin", "Range: bytes=-50000\r\n");
    assert_eq!(
        field(&head, "Content-Range"),
        Some("bytes 8589884592-8589934591/8589934592")
    );
    assert_eq!(body.len(), 50_000);
    // HEAD reads nothing of it: the next request is answered at once.
    let peer = world.dial();
    let head = "HEAD /sparse.bin HTTP/1.1\r\nHost: a.test\r\n\r\n";
    peer.write(&[head.as_bytes(), &get("/a.txt")].concat())
        .unwrap();
    world.turn();
    let text = read(&peer);
    assert_eq!(field(&text, "Content-Length"), Some("8589934592"));
    assert!(text.ends_with("\r\n\r\n0123456789"), "{text}");
}

type Change = fn(&Path);

#[test]
fn a_file_that_changes_meanwhile_ends_the_connection() {
    let changes: [(&str, Change); 3] = [
        ("truncated", |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(100_000)
                .unwrap();
        }),
        ("rewritten", |path| {
            fs::write(path, vec![b'!'; 1_000_000]).unwrap();
            touch(path, 2000);
        }),
        ("grown", |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(2_000_000)
                .unwrap();
        }),
    ];
    for (name, change) in changes {
        let site = Site::new(name);
        site.write("root/large.bin", &pattern(1_000_000));
        let mut world = files(&site);
        world.net.set_capacity(10_000);
        let peer = world.dial();
        peer.write(&get("/large.bin")).unwrap();
        world.turn();
        change(&site.path("root/large.bin"));
        let (_, body) = split(&drain(&mut world, &peer));
        assert!(
            body.len() < 1_000_000 && pattern(body.len()) == body,
            "{name}: {}",
            body.len()
        );
        assert!(peer.ended() || peer.was_reset(), "{name}");
    }
}

#[test]
fn a_file_that_is_replaced_or_removed_meanwhile_is_sent_as_it_was() {
    let site = Site::new("replaced");
    let path = site.path("root/large.bin");
    site.write("root/large.bin", &pattern(1_000_000));
    let mut world = files(&site);
    world.net.set_capacity(10_000);
    let (first, second) = (world.dial(), world.dial());
    for peer in [&first, &second] {
        peer.write(&get("/large.bin")).unwrap();
    }
    world.turn();
    fs::write(site.path("root/new.bin"), b"new").unwrap();
    fs::rename(site.path("root/new.bin"), &path).unwrap();
    assert!(split(&drain(&mut world, &first)).1 == pattern(1_000_000));
    fs::remove_file(&path).unwrap();
    assert!(split(&drain(&mut world, &second)).1 == pattern(1_000_000));
}

#[test]
fn a_client_that_has_nothing_more_to_say_gets_its_file() {
    let site = Site::new("halfclose");
    site.write("root/large.bin", &pattern(1_000_000));
    let mut world = files(&site);
    world.net.set_capacity(10_000);
    let peer = world.dial();
    peer.write(&get("/large.bin")).unwrap();
    peer.shutdown_write();
    assert!(split(&drain(&mut world, &peer)).1 == pattern(1_000_000));
}

#[test]
fn a_client_that_leaves_is_let_go() {
    let site = Site::new("leaves");
    site.write("root/large.bin", &pattern(1_000_000));
    let mut world = files(&site);
    world.net.set_capacity(10_000);
    let peer = world.dial();
    peer.write(&get("/large.bin")).unwrap();
    world.turn();
    assert_eq!(world.context.connections(), 1);
    peer.reset();
    world.turn();
    assert_eq!(world.context.connections(), 0);
}

#[test]
fn embedded_files_have_validators_of_their_bytes() {
    let files = |text: &'static str| {
        let files = EmbeddedFiles::new().file("a.js", text.as_bytes()).unwrap();
        world(Mount::handler("/m", files.header("X-A", "b").unwrap()))
    };
    let mut one = files("one");
    let (head, body) = ask(&mut one, "GET", "/m/a.js", "");
    assert_eq!((status(&head), body.as_slice()), (200, b"one".as_slice()));
    assert_eq!(
        field(&head, "Content-Type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(
        (field(&head, "X-A"), field(&head, "Last-Modified")),
        (Some("b"), None)
    );
    let condition = format!("If-None-Match: {}\r\n", field(&head, "ETag").unwrap());
    assert_eq!(status(&ask(&mut one, "GET", "/m/a.js", &condition).0), 304);
    assert_eq!(
        status(&ask(&mut files("two"), "GET", "/m/a.js", &condition).0),
        200
    );
    assert_eq!(page(&mut one, "/m/a.j").0, 404);
    assert_eq!(page(&mut one, "/m/%2e%2e/m/a.js").0, 400);
}

#[test]
fn files_that_could_not_be_served_are_refused_when_they_are_given() {
    let site = Site::new("config");
    for path in ["nothing", "secret.txt"] {
        let error = StaticFiles::new(site.path(path)).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
    for name in ["", "/a", "a/", "a//b", "../a", "a\\b", "con"] {
        assert!(
            EmbeddedFiles::new().file(name, b"".as_slice()).is_err(),
            "{name:?}"
        );
        assert!(site.files().index(name).is_err(), "{name:?}");
        assert!(site.files().fallback(name).is_err(), "{name:?}");
    }
    assert!(
        EmbeddedFiles::new()
            .file("100%.txt", b"".as_slice())
            .is_ok()
    );
    assert!(site.files().cache_control("a\r\nb: c").is_err());
}
