//! Our client against our server, in one context and in two.

use std::time::Duration;

use wsloop::http::HeaderList;
use wsloop::http::client::Method;
use wsloop::{
    BodyLength, Context, ContextConfig, FetchInfo, Mount, RedirectPolicy, Response, VhostConfig,
};

use crate::common::Site;
use crate::support::{Endpoint, addr};

/// Sends a request's body back, in pieces of an unknown number.
fn echo() -> Endpoint {
    Endpoint::new(|http, body| {
        http.start(200, &HeaderList::new(), BodyLength::Unknown)?;
        for piece in body.chunks(1000) {
            http.write(piece)?;
        }
        http.finish()?;
        Ok(())
    })
}

fn server() -> VhostConfig {
    VhostConfig::new("a.test")
        .listen(addr())
        .mount(Mount::handler("/echo", echo()))
        .mount(Mount::call("/hi", |request| {
            Response::text(200, format!("{} {}\n", request.method(), request.path()))
        }))
        .mount(Mount::redirect("/old", 308, "/echo"))
}

fn at(path: &str) -> String {
    format!("http://10.0.0.1{path}")
}

#[test]
fn one_context_can_ask_itself() {
    let mut site = Site::new();
    site.context.create_vhost(server()).unwrap();
    site.fetch(FetchInfo::get(&at("/hi/there")).unwrap());
    let done = site.keeper.fetched();
    assert_eq!(
        (done.status, done.body.as_slice()),
        (200, b"GET /hi/there\n".as_slice())
    );
    site.fetch(FetchInfo::new(Method::HEAD, &at("/hi")).unwrap());
    let done = site.keeper.fetched();
    assert_eq!((done.body.len(), done.reused), (0, true));
    site.fetch(FetchInfo::get(&at("/nowhere")).unwrap());
    assert_eq!(site.keeper.fetched().status, 404);
}

#[test]
fn bodies_of_all_sizes_go_there_and_back() {
    let mut site = Site::new();
    let mut other = Context::simulated(&site.net, ContextConfig::new()).unwrap();
    other.create_vhost(server()).unwrap();
    let sizes = [0, 1, 999, 5_000, 300_000];
    let direct = sizes.map(|len| (len, false)).into_iter();
    for (len, redirected) in direct.chain(sizes.map(|len| (len, true))) {
        if !redirected {
            assert!(site.metrics().opened <= 1, "one connection serves them all");
        }
        let body: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let ways = match redirected {
            true => &[("/old", false)][..],
            false => &[("/echo", false), ("/echo", true)],
        };
        for &(path, chunked) in ways {
            let info = FetchInfo::new(Method::POST, &at(path)).unwrap();
            let info = info.redirects(RedirectPolicy::new());
            if chunked {
                let vhost = site.vhost;
                let piece = body.clone();
                site.cx(|cx| {
                    let id = cx.fetch(vhost, info.streamed_body(None)).unwrap();
                    cx.fetch_write(id, &piece).unwrap();
                    cx.fetch_finish(id).unwrap();
                });
            } else {
                site.fetch(info.body(body.clone()));
            }
            for _ in 0..200 {
                other.service(Some(Duration::ZERO)).unwrap();
                site.context.service(Some(Duration::ZERO)).unwrap();
            }
            let done = site.keeper.fetched();
            assert_eq!(done.status, 200, "{len} {path}");
            assert!(done.body == body, "{len} {path}: {} bytes", done.body.len());
        }
    }
}
