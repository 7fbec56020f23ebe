//! Redirects: where they lead, what they take along, and what becomes of the connection.

use wsloop::http::client::{Method, PoolConfig, RedirectError};
use wsloop::{FetchFailure, FetchInfo, FetchStage, RedirectPolicy};

use crate::common::{OK, Site, URL, get, read, response};

fn redirect(status: u16, location: &str) -> Vec<u8> {
    response(
        &format!("{status} Moved"),
        &format!("Location: {location}\r\n"),
        "gone",
    )
}

fn following() -> FetchInfo {
    get().redirects(RedirectPolicy::new())
}

fn refusal(site: &Site) -> RedirectError {
    let error = site.keeper.error();
    assert_eq!(error.stage(), FetchStage::Redirect);
    match error.failure() {
        FetchFailure::Redirect(why) => *why,
        other => panic!("{other}"),
    }
}

#[test]
fn hc_12_without_a_policy_a_redirect_is_a_response() {
    let mut site = Site::new();
    site.get();
    let peer = site.accept();
    site.answer(&peer, &redirect(302, "/b"));
    let done = site.keeper.fetched();
    assert_eq!(
        (done.status, done.body.as_slice()),
        (302, b"gone".as_slice())
    );
    assert_eq!(done.header("location"), Some(b"/b".as_slice()));
}

#[test]
fn a_redirect_is_followed_over_the_same_connection_and_not_shown() {
    let mut site = Site::new();
    site.fetch(following());
    let peer = site.accept();
    site.answer(&peer, &redirect(301, "../b?c#d"));
    let request = site.answer(&peer, OK);
    assert!(
        request.starts_with("GET /b?c HTTP/1.1\r\nHost: 10.0.0.7\r\n"),
        "{request}"
    );
    let done = site.keeper.fetched();
    assert_eq!((done.status, done.redirects), (200, 1));
    assert_eq!(done.url, "http://10.0.0.7/b?c");
    assert_eq!((site.metrics().opened, site.counts()), (1, (1, 1, 0)));
}

/// Nothing more comes that could say that the response is over.
#[test]
fn a_redirect_without_a_body_gives_the_connection_back_at_once() {
    let bare = "HTTP/1.1 302 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n";
    let head = "HTTP/1.1 302 Moved\r\nLocation: /b\r\nContent-Length: 9\r\n\r\n";
    for (method, redirect) in [(Method::GET, bare), (Method::HEAD, head)] {
        let mut site = Site::with(PoolConfig::new().per_origin(1));
        let info = FetchInfo::new(method, URL).unwrap();
        site.fetch(info.redirects(RedirectPolicy::new()));
        let peer = site.accept();
        site.answer(&peer, redirect.as_bytes());
        let request = site.answer(&peer, b"HTTP/1.1 204 No Content\r\n\r\n");
        assert!(request.contains(" /b HTTP/1.1\r\n"), "{request}");
        assert_eq!(site.keeper.fetched().redirects, 1);
        assert_eq!((site.metrics().opened, site.counts()), (1, (1, 1, 0)));
    }
}

#[test]
fn the_body_of_a_redirect_is_read_away_up_to_a_point() {
    let mut site = Site::new();
    site.fetch(following());
    let peer = site.accept();
    site.answer(
        &peer,
        b"HTTP/1.1 302 Moved\r\nLocation: /b\r\nContent-Length: 70000\r\n\r\n",
    );
    let next = site.accept();
    site.answer(&next, OK);
    assert!(site.keeper.fetched().is_success());
    for _ in 0..7 {
        if peer.write(&[b'x'; 10_000]).is_ok() {
            site.turn();
        }
    }
    assert!(peer.ended() || peer.was_reset(), "nobody reads on for ever");
    assert_eq!(site.counts(), (1, 1, 0));
}

#[test]
fn a_post_becomes_a_get_or_stays_what_it_is() {
    for (status, begin, end) in [
        (303, "GET /b ", "\r\n\r\n"),
        (302, "GET /b ", "\r\n\r\n"),
        (307, "POST /b ", "Content-Length: 5\r\n\r\nmoney"),
        (308, "POST /b ", "Content-Length: 5\r\n\r\nmoney"),
    ] {
        let mut site = Site::new();
        let post = FetchInfo::post(URL, "money").unwrap();
        let post = post.header("Content-Type", "text/plain").unwrap();
        site.fetch(post.redirects(RedirectPolicy::new()));
        let peer = site.accept();
        site.answer(&peer, &redirect(status, "/b"));
        let request = site.answer(&peer, OK);
        assert!(
            request.starts_with(begin) && request.ends_with(end),
            "{status}: {request}"
        );
        let keeps = status > 303;
        assert_eq!(request.contains("Content-Type"), keeps);
        assert!(site.keeper.fetched().is_success());
    }
}

#[test]
fn hc_12_credentials_and_the_callers_names_stay_with_their_origin() {
    let mut site = Site::new();
    let other = site.net.listen("10.0.0.8:80".parse().unwrap()).unwrap();
    let info = FetchInfo::get("http://first.test/a").unwrap();
    let info = info
        .address("10.0.0.7")
        .unwrap()
        .host("inner.test")
        .unwrap();
    let info = info.header("Authorization", "Bearer x").unwrap();
    let info = info
        .header("Cookie", "a=b")
        .unwrap()
        .header("Accept", "*/*")
        .unwrap();
    site.fetch(info.redirects(RedirectPolicy::new()));
    let peer = site.accept();
    let request = site.answer(&peer, &redirect(302, "/here"));
    assert!(request.contains("Host: inner.test\r\n"), "{request}");
    let request = site.answer(&peer, &redirect(302, "http://10.0.0.8/there"));
    assert!(
        request.contains("Host: inner.test\r\n") && request.contains("Bearer"),
        "{request}"
    );
    let next = other.accept().unwrap();
    let request = site.answer(&next, OK);
    assert_eq!(
        request,
        "GET /there HTTP/1.1\r\nHost: 10.0.0.8\r\nAccept: */*\r\n\r\n"
    );
    assert_eq!(site.keeper.fetched().redirects, 2);
}

#[test]
fn hc_12_circles_chains_and_bad_locations_end() {
    let mut site = Site::new();
    site.fetch(following());
    let peer = site.accept();
    site.answer(&peer, &redirect(302, "/b"));
    site.answer(&peer, &redirect(302, "/a"));
    assert_eq!(refusal(&site), RedirectError::Loop);

    let mut site = Site::new();
    site.fetch(get().redirects(RedirectPolicy::new().max(3)));
    let peer = site.accept();
    for hop in 0..4 {
        site.answer(&peer, &redirect(302, &format!("/{hop}")));
    }
    assert_eq!(refusal(&site), RedirectError::TooMany { max: 3 });

    let mut site = Site::new();
    site.fetch(following());
    let peer = site.accept();
    site.answer(&peer, &redirect(302, "javascript:alert(1)"));
    assert!(matches!(refusal(&site), RedirectError::Location(_)));
    assert_eq!(site.context.connections(), 0);
}

#[test]
fn a_streamed_body_cannot_be_sent_again() {
    let mut site = Site::new();
    let info = FetchInfo::new(Method::POST, URL)
        .unwrap()
        .streamed_body(Some(2));
    let id = site.fetch(info.redirects(RedirectPolicy::new()));
    let peer = site.accept();
    site.cx(|cx| {
        cx.fetch_write(id, b"ab").unwrap();
        cx.fetch_finish(id).unwrap();
    });
    site.answer(&peer, &redirect(307, "/b"));
    assert_eq!(refusal(&site), RedirectError::BodyNotReplayable);
    let info = FetchInfo::new(Method::POST, URL)
        .unwrap()
        .streamed_body(None);
    site.fetch(info.redirects(RedirectPolicy::new()));
    let peer = site.accept();
    read(&peer);
    peer.write(&redirect(303, "/b")).unwrap();
    let next = site.accept();
    let request = site.answer(&next, OK);
    assert!(
        request.starts_with("GET /b "),
        "the upload was not complete: {request}"
    );
    assert!(site.keeper.fetched().is_success());
}

#[test]
fn a_redirect_to_https_without_client_tls_is_an_error() {
    let mut site = Site::new();
    site.fetch(following());
    let peer = site.accept();
    site.answer(&peer, &redirect(308, "https://10.0.0.7/a"));
    let error = site.keeper.error();
    assert!(error.to_string().contains("no client TLS"), "{error}");
    assert_eq!(site.counts().2, 0);
}

#[test]
fn a_redirect_without_a_body_gives_its_connection_back_at_once() {
    for head in [
        "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 307 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut site = Site::with(PoolConfig::new().per_origin(1));
        site.fetch(following());
        let peer = site.accept();
        site.answer(&peer, head.as_bytes());
        let request = site.answer(&peer, OK);
        assert!(request.starts_with("GET /b HTTP/1.1\r\n"), "{request}");
        assert_eq!(site.keeper.fetched().redirects, 1);
        assert_eq!((site.metrics().opened, site.counts()), (1, (1, 1, 0)));
    }
}

#[test]
fn the_limit_of_the_body_is_not_about_that_of_a_redirect() {
    let mut site = Site::new();
    site.fetch(following().max_body(3));
    let peer = site.accept();
    site.answer(&peer, &redirect(302, "/b"));
    let next = site.accept();
    site.answer(&next, OK);
    assert_eq!(site.keeper.fetched().redirects, 1);
}
