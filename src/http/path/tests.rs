use super::*;
use crate::http::test_support::Rng;

/// What a refused path is answered with; `None` when it is not refused.
fn status(path: &str) -> Option<u16> {
    SafePath::parse(path).err().map(|error| error.status())
}

fn joined(path: &str) -> String {
    SafePath::parse(path).unwrap().as_str().to_owned()
}

#[test]
fn ordinary_paths_keep_their_names() {
    for (path, expected) in [
        ("/", ""),
        ("/a", "a"),
        ("/a/", "a"),
        ("/a/b.html", "a/b.html"),
        ("/a%20b/c+d", "a b/c+d"),
        ("/%61%2D%7E", "a-~"),
        ("/na%C3%AFve.txt", "na\u{ef}ve.txt"),
        ("/.well-known/x", ".well-known/x"),
        ("/jquery..min.js", "jquery..min.js"),
        ("/..a/b..c", "..a/b..c"),
        ("/a;v=1/b", "a;v=1/b"),
        ("/backup~", "backup~"),
        ("/~user/x", "~user/x"),
        (
            "/console/auxiliary/nullable/com/lpt/com10",
            "console/auxiliary/nullable/com/lpt/com10",
        ),
        ("/what%3F%23%25", "what?#%"),
        (
            "/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB.png",
            "\u{1f469}\u{200d}\u{1f4bb}.png",
        ),
    ] {
        assert_eq!(joined(path), expected, "{path}");
    }
}

#[test]
fn parent_directories_are_refused_in_every_form() {
    for path in [
        "/..",
        "/../",
        "/../etc/passwd",
        "/a/../b",
        "/a/..",
        "/a/b/../../../c",
        "/%2e%2e",
        "/%2E%2E/",
        "/.%2e/x",
        "/%2e./x",
        "/%2e%2E/etc/passwd",
        "/a/%2e%2e/b",
        "/.",
        "/./a",
        "/a/.",
        "/%2e",
        "/a/%2e/b",
        "/%61/..",
        "/..%5c",
        "/..%5c..%5cwindows",
        "/..\\..\\boot.ini",
        "/a\\..\\b",
        "/%5c",
        "/\\",
        "/\\\\server\\share",
        "/%5c%5cserver/share",
        "/..%00",
        "/..%00/x",
        "/%00",
        "/a%00.html",
        "/a%0a",
        "/a%0d%0aSet-Cookie:x",
        "/a%7f",
        "/a%09b",
        "/%1b",
        "/a%c2%85",
        // Overlong forms of '.', '/' and NUL, a lone continuation, a cut sequence, surrogates.
        "/%c0%ae%c0%ae/",
        "/%c0%ae./",
        "/%e0%80%ae%e0%80%ae/",
        "/%f0%80%80%ae/x",
        "/%c0%af",
        "/..%c0%af..",
        "/%e0%80%af",
        "/%c1%9c",
        "/%c0%80",
        "/%80",
        "/%bf%2e",
        "/%e2%82",
        "/%ff%fe",
        "/%ed%a0%80",
        "/%f4%90%80%80",
        "/%fc%80%80%80%80%ae",
        // Broken escapes, the %u form of old servers among them.
        "/%",
        "/%2",
        "/%zz",
        "/a%",
        "/%2g",
        "/%-1",
        "/%+2",
        "/%u002e%u002e/",
        "/%%32%65",
        "/%0x2e",
        "/% 2e",
        // Dots with characters between them that HFS+ does not see.
        "/.%e2%80%8c./x",
        "/%ef%bb%bf../x",
        "/..%e2%80%8d",
        // No path at all.
        "",
        "*",
        "a",
        "../a",
        "http://h/",
        "C:/x",
        "?x",
        "%2f",
    ] {
        assert_eq!(status(path), Some(400), "{path}");
    }
}

#[test]
fn names_that_cannot_be_are_not_found() {
    for path in [
        "//",
        "///",
        "//etc/passwd",
        "//host/share",
        "/a//b",
        "/a//",
        "/http://h/x",
        "/%2f",
        "/%2fetc%2fpasswd",
        "/a%2fb",
        "/..%2f",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e%2fetc%2fpasswd",
        "/a%2f%2e%2e%2fb",
        "/%2F%2F",
        "/C:",
        "/C:/windows/win.ini",
        "/c:boot.ini",
        "/C%3a/x",
        "/index.html::$DATA",
        "/a.txt:stream",
        "/a%3A%3A%24INDEX_ALLOCATION/b",
        "/file://x",
        "/con",
        "/CON",
        "/Con.txt",
        "/aux.js",
        "/nul",
        "/NUL.tar.gz",
        "/prn.",
        "/com1",
        "/COM9.log",
        "/lpt1/x",
        "/com%C2%B9",
        "/conin$",
        "/CONOUT$",
        "/nul%20.txt",
        "/a/con/b",
        "/clock$",
        "/...",
        "/..../x",
        "/.../etc",
        "/a.",
        "/a.%20",
        "/a%20",
        "/index.html.",
        "/%20",
        "/..%20",
        "/..%20/etc",
        "/a%2e",
        "/git~1/config",
        "/PROGRA~1",
        "/a~12.txt",
    ] {
        assert_eq!(status(path), Some(404), "{path}");
    }
    assert_eq!(status(&format!("/{}", "a".repeat(255))), None);
    assert_eq!(status(&format!("/{}", "a".repeat(256))), Some(404));
}

#[test]
fn look_alikes_and_doubly_encoded_forms_are_names_like_others() {
    for (path, expected) in [
        ("/%252e%252e/%252fetc", "%2e%2e/%2fetc"),
        ("/%25%32%65", "%2e"),
        ("/%2525", "%25"),
        ("/%25c0%25ae", "%c0%ae"),
        ("/%EF%BC%8E%EF%BC%8E/x", "\u{ff0e}\u{ff0e}/x"),
        ("/%E2%80%A5/x", "\u{2025}/x"),
        ("/a%EF%BC%8Fb", "a\u{ff0f}b"),
        ("/a%E2%88%95b", "a\u{2215}b"),
        ("/..;/x", "..;/x"),
        ("/..%3b/x", "..;/x"),
        ("/%3C%22%3E", "<\">"),
    ] {
        assert_eq!(joined(path), expected, "{path}");
    }
}

#[test]
fn a_trailing_slash_is_known() {
    for (path, trailing) in [("/", true), ("/a/", true), ("/a", false), ("/a/b/", true)] {
        assert_eq!(
            SafePath::parse(path).unwrap().has_trailing_slash(),
            trailing,
            "{path}"
        );
    }
}

#[test]
fn dotfiles_are_seen_in_every_place_and_form() {
    for path in [
        "/.git/config",
        "/a/.env",
        "/%2eenv",
        "/..a",
        "/%e2%80%8c.env",
        "/.%E2%80%8Da",
    ] {
        assert!(SafePath::parse(path).unwrap().is_hidden(), "{path}");
    }
    for path in ["/", "/a.b", "/a/b.", "/a~"] {
        assert!(
            !SafePath::parse(path).is_ok_and(|path| path.is_hidden()),
            "{path}"
        );
    }
}

#[test]
fn a_prefix_ends_at_a_segment() {
    let below = |path: &str, prefix: &str| {
        let prefix = SafePath::parse(prefix).unwrap();
        let path = SafePath::parse(path).unwrap();
        path.below(&prefix)
            .map(|rest| (rest.as_str().to_owned(), rest.has_trailing_slash()))
    };
    let is = |text: &str, trailing| Some((text.to_owned(), trailing));
    assert_eq!(below("/a/b", "/a"), is("b", false));
    assert_eq!(below("/a/b/", "/a/"), is("b", true));
    assert_eq!(below("/%61/b", "/a"), is("b", false));
    assert_eq!(below("/a", "/a"), is("", false));
    assert_eq!(below("/a/", "/a"), is("", true));
    assert_eq!(below("/ab", "/a"), None);
    assert_eq!(below("/b", "/a"), None);
    assert_eq!(below("/", "/a"), None);
    assert_eq!(below("/a/b", "/"), is("a/b", false));
    assert_eq!(below("/", "/"), is("", true));
}

#[test]
fn an_extension_is_what_stands_behind_the_last_dot() {
    for (path, extension) in [
        ("/a.b/c.tar.gz", Some("gz")),
        ("/a.b/c", None),
        ("/.profile", None),
        ("/.a.b", Some("b")),
        ("/", None),
    ] {
        assert_eq!(
            SafePath::parse(path).unwrap().extension(),
            extension,
            "{path}"
        );
    }
}

#[test]
fn whatever_is_accepted_stays_below_its_root() {
    let seed = 0x7061_7468;
    let mut rng = Rng::new(seed);
    let pieces = [
        "/",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "\\",
        "%00",
        "%c0%ae",
        "a",
        "b",
        "%25",
        ":",
        "~1",
        " ",
        "%20",
        "con",
        "%e2%80%8d",
        "%",
        "2e",
        "\u{e9}",
        "%ff",
    ];
    let mut accepted = 0;
    for _ in 0..50_000 {
        let mut path = String::from("/");
        for _ in 0..rng.below(8) {
            path.push_str(pieces[rng.below(pieces.len())]);
        }
        let Ok(safe) = SafePath::parse(&path) else {
            continue;
        };
        accepted += 1;
        let native = std::path::Path::new(safe.as_str());
        // A component that is not a name is an empty one here.
        let names = native.components().map(|component| match component {
            std::path::Component::Normal(name) => name.to_str().unwrap_or_default(),
            std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::CurDir
            | std::path::Component::ParentDir => "",
        });
        assert!(names.eq(safe.segments()), "{path} (seed {seed:#x})");
        assert!(
            !safe.as_str().contains(['\\', ':', '\0']),
            "{path} (seed {seed:#x})"
        );
    }
    assert!(accepted > 500, "{accepted}");
}
