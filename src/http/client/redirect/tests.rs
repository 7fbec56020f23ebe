use super::*;

fn url(text: &str) -> AbsoluteUrl {
    AbsoluteUrl::parse(text).unwrap()
}

fn follow_with(
    policy: RedirectPolicy,
    method: &Method,
    from: &str,
    body: BodyReplay,
    status: u16,
    location: &str,
) -> Result<Option<NextHop>, RedirectError> {
    let locations = std::iter::once(location.as_bytes());
    Redirects::new(policy).follow(method, &url(from), body, status, locations)
}

fn follow(
    method: &Method,
    from: &str,
    body: BodyReplay,
    status: u16,
    location: &str,
) -> Result<Option<NextHop>, RedirectError> {
    follow_with(RedirectPolicy::new(), method, from, body, status, location)
}

fn get(from: &str, location: &str) -> Result<NextHop, RedirectError> {
    let hop = follow(&Method::GET, from, BodyReplay::NoBody, 302, location)?;
    Ok(hop.unwrap())
}

#[test]
fn references_are_resolved_as_rfc_3986_section_5_4_says() {
    for (reference, expected) in [
        ("//g", "http://g/"),
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q"),
        ("g#s", "http://a/b/c/g"),
        ("g?y#s", "http://a/b/c/g?y"),
        (";x", "http://a/b/c/;x"),
        ("g;x", "http://a/b/c/g;x"),
        ("g;x?y#s", "http://a/b/c/g;x?y"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../", "http://a/"),
        ("../../g", "http://a/g"),
        ("../../../g", "http://a/g"),
        ("../../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        (".g", "http://a/b/c/.g"),
        ("g..", "http://a/b/c/g.."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/./x", "http://a/b/c/g?y/./x"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
    ] {
        let joined = url("http://a/b/c/d;p?q").join(reference.as_bytes());
        assert_eq!(joined.unwrap().to_string(), expected, "{reference:?}");
    }
}

#[test]
fn references_that_servers_send_are_understood() {
    for (base, reference, expected) in [
        ("https://h", "x", "https://h/x"),
        ("https://h?q", "?r", "https://h/?r"),
        ("https://h:8443/a", "/b", "https://h:8443/b"),
        (
            "https://h/a",
            "HTTPS://H.Example:443/B",
            "https://h.example/B",
        ),
        ("https://h/a", "https://h:", "https://h/"),
        (
            "https://h/a",
            "https://[2001:DB8::1]:8443/x",
            "https://[2001:db8::1]:8443/x",
        ),
        ("https://h/a", "  /b  ", "https://h/b"),
        (
            "https://h/a",
            "/a b/\u{fc}?\u{e9}",
            "https://h/a%20b/%C3%BC?%C3%A9",
        ),
        ("https://h/a", "/%2e%2e/b", "https://h/%2e%2e/b"),
        ("https://h/a", "//h//b", "https://h//b"),
        ("https://h/a/", "b:c", "scheme"),
        ("https://h/a/", "./b:c", "https://h/a/b:c"),
        (
            "https://h/a",
            "/b?u=https://x/#f",
            "https://h/b?u=https://x/",
        ),
    ] {
        match url(base).join(reference.as_bytes()) {
            Ok(joined) => assert_eq!(joined.to_string(), expected, "{reference:?}"),
            Err(error) => assert_eq!((error, expected), (LocationError::Scheme, "scheme")),
        }
    }
}

#[test]
fn hc_12_locations_that_lead_astray_are_refused() {
    use LocationError as L;
    for (reference, problem) in [
        ("javascript:alert(1)", L::Scheme),
        ("data:text/html,x", L::Scheme),
        ("file:///etc/passwd", L::Scheme),
        ("ws://h/", L::Scheme),
        ("https:/x", L::Form),
        ("https:x", L::Form),
        ("https://u:p@h/", L::Userinfo),
        ("//good@evil/", L::Userinfo),
        ("https://good\\@evil/", L::Backslash),
        ("\\\\evil/", L::Backslash),
        ("/\\evil/", L::Backslash),
        ("https://", L::Host),
        ("https:///x", L::Host),
        ("//", L::Host),
        ("https://h:0/", L::Host),
        ("https://h:65536/", L::Host),
        ("https://h:80:80/", L::Host),
        ("https://h:a/", L::Host),
        ("https://h%2fx/", L::Host),
        ("https://[::1/", L::Host),
        ("https://h /", L::Host),
        ("https://b\u{fc}cher/", L::Host),
        ("/a\tb", L::Control),
        ("/a\u{7f}b", L::Control),
    ] {
        let error = get("https://h/a", reference).unwrap_err();
        assert_eq!(error, RedirectError::Location(problem), "{reference:?}");
    }
    let long = format!("/{}", "x".repeat(9000));
    assert_eq!(
        get("https://h/", &long),
        Err(RedirectError::Location(L::TooLong))
    );
    let two = [b"/a".as_slice(), b"/b"];
    let mut redirects = Redirects::new(RedirectPolicy::new());
    let error = redirects.follow(
        &Method::GET,
        &url("http://h/"),
        BodyReplay::NoBody,
        302,
        two.into_iter(),
    );
    assert_eq!(error, Err(RedirectError::Location(L::Several)));
}

#[test]
fn methods_and_bodies_change_as_user_agents_do_it() {
    let patch = Method::PATCH;
    for (status, method, there, keeps_body) in [
        (301, &Method::GET, &Method::GET, true),
        (301, &Method::POST, &Method::GET, false),
        (301, &patch, &patch, true),
        (302, &Method::POST, &Method::GET, false),
        (302, &Method::PUT, &Method::PUT, true),
        (302, &Method::HEAD, &Method::HEAD, true),
        (303, &Method::POST, &Method::GET, false),
        (303, &Method::PUT, &Method::GET, false),
        (303, &Method::HEAD, &Method::HEAD, false),
        (303, &Method::GET, &Method::GET, false),
        (307, &Method::POST, &Method::POST, true),
        (308, &patch, &patch, true),
    ] {
        let hop = follow(method, "http://h/a", BodyReplay::Whole, status, "/b");
        let hop = hop.unwrap().unwrap();
        assert_eq!(
            (&hop.method, hop.keeps_body),
            (there, keeps_body),
            "{status} {method}"
        );
        let bare = follow(method, "http://h/a", BodyReplay::NoBody, status, "/b");
        assert!(!bare.unwrap().unwrap().keeps_body);
    }
    for status in [200, 201, 300, 304, 305, 306, 309, 404] {
        let hop = follow(&Method::GET, "http://h/a", BodyReplay::NoBody, status, "/b");
        assert_eq!(hop, Ok(None), "{status}");
    }
    let mut redirects = Redirects::new(RedirectPolicy::new());
    let none = redirects.follow(
        &Method::GET,
        &url("http://h/"),
        BodyReplay::NoBody,
        302,
        std::iter::empty(),
    );
    assert_eq!(none, Ok(None), "without Location it stands as it is");
}

#[test]
fn hc_12_circles_and_long_chains_end() {
    let mut redirects = Redirects::new(RedirectPolicy::new());
    let mut at = url("https://h/0");
    for step in 1..=50 {
        let location = format!("/{step}");
        let hop = redirects.follow(
            &Method::GET,
            &at,
            BodyReplay::NoBody,
            302,
            std::iter::once(location.as_bytes()),
        );
        match hop {
            Ok(hop) => at = hop.unwrap().url,
            Err(error) => {
                assert_eq!((step, error), (11, RedirectError::TooMany { max: 10 }));
                assert_eq!(redirects.count(), 10);
                break;
            }
        }
    }
    assert_eq!(get("https://h/a", "/a"), Err(RedirectError::Loop));
    assert_eq!(get("https://h/a", ""), Err(RedirectError::Loop));
    let mut redirects = Redirects::new(RedirectPolicy::new());
    let mut ask = |method: &Method, from: &str, to: &str| {
        let location = std::iter::once(to.as_bytes());
        redirects.follow(method, &url(from), BodyReplay::NoBody, 302, location)
    };
    assert!(
        ask(&Method::POST, "http://h/a", "/a").is_ok(),
        "now as a GET"
    );
    assert!(ask(&Method::GET, "http://h/a", "/b").is_ok());
    assert_eq!(
        ask(&Method::GET, "http://h/b", "/a"),
        Err(RedirectError::Loop)
    );
    let none = RedirectPolicy::new().max(0);
    let error = follow_with(
        none,
        &Method::GET,
        "http://h/",
        BodyReplay::NoBody,
        302,
        "/b",
    );
    assert_eq!(error, Err(RedirectError::TooMany { max: 0 }));
}

#[test]
fn hc_12_no_redirect_leads_out_of_tls_unless_it_is_allowed() {
    assert_eq!(
        get("https://h/", "http://h/"),
        Err(RedirectError::Downgrade)
    );
    assert!(get("http://h/", "https://h/").is_ok());
    let policy = RedirectPolicy::new().danger_allow_downgrade();
    let hop = follow_with(
        policy,
        &Method::GET,
        "https://h/",
        BodyReplay::NoBody,
        301,
        "http://h/",
    );
    assert!(!hop.unwrap().unwrap().same_origin);
}

#[test]
fn hc_12_credentials_stay_with_their_origin() {
    let mut headers = HeaderList::new();
    for name in [
        "authorization",
        "Cookie",
        "Proxy-Authorization",
        "X-Key",
        "Accept",
        "Content-Type",
    ] {
        headers.push(name, "v").unwrap();
    }
    let names = |list: &HeaderList| -> Vec<String> {
        list.iter().map(|(name, _)| name.to_owned()).collect()
    };
    let policy = RedirectPolicy::new().secret_header("x-key");
    let same = follow(&Method::POST, "https://h/", BodyReplay::Whole, 307, "/b");
    let same = same.unwrap().unwrap();
    assert!(same.same_origin && same.keeps_body);
    assert_eq!(names(&policy.headers_for(&same, &headers)).len(), 6);
    for elsewhere in ["https://h:444/", "https://www.h/", "https://h.evil/"] {
        let hop = get("https://h/", elsewhere).unwrap();
        assert!(!hop.same_origin, "{elsewhere}");
        assert_eq!(names(&policy.headers_for(&hop, &headers)), ["Accept"]);
    }
    let same = get("https://h/", "https://H:443/x").unwrap();
    assert!(same.same_origin);
}

#[test]
fn bodies_go_elsewhere_only_when_that_is_allowed_and_never_when_they_are_gone() {
    let post = |policy: RedirectPolicy, body, location| {
        follow_with(policy, &Method::POST, "https://h/", body, 307, location)
    };
    let new = RedirectPolicy::new;
    let elsewhere = post(new(), BodyReplay::Whole, "https://x/");
    assert_eq!(elsewhere, Err(RedirectError::BodyElsewhere));
    assert!(post(new().send_body_elsewhere(), BodyReplay::Whole, "https://x/").is_ok());
    assert!(post(new(), BodyReplay::NoBody, "https://x/").is_ok());
    assert_eq!(
        post(new(), BodyReplay::Streamed, "/x"),
        Err(RedirectError::BodyNotReplayable)
    );
    let other = post(new().same_origin(), BodyReplay::NoBody, "https://x/");
    assert_eq!(other, Err(RedirectError::OtherOrigin));
    assert!(post(new().same_origin(), BodyReplay::Whole, "/x").is_ok());
}

#[test]
fn a_url_shows_its_parts_and_its_debug_form_no_query() {
    let url = url("https://Example.COM:8443/a/b?token=secret");
    assert_eq!(
        (url.scheme(), url.host(), url.port(), url.target()),
        (Scheme::Https, "example.com", 8443, "/a/b?token=secret")
    );
    let debug = format!("{url:?}");
    assert_eq!(debug, "https://example.com:8443/a/b?...");
    assert_eq!(
        format!("{:?}", AbsoluteUrl::parse("http://a/").unwrap()),
        "http://a:80/"
    );
}

#[test]
fn redirects_are_followed_by_the_policy_that_they_were_made_with() {
    let redirects = Redirects::new(RedirectPolicy::default().max(3));
    assert_eq!(redirects.policy().clone(), RedirectPolicy::new().max(3));
}
