//! Every stage has a deadline, and all of them together.

use std::time::Duration;

use wsloop::http::client::Method;
use wsloop::{
    DeadlineStage, FetchError, FetchFailure, FetchInfo, FetchStage, FetchTimeouts, PoolConfig,
};

use crate::common::{OK, Site, URL, get, secs};

fn with(set: impl FnOnce(&mut FetchTimeouts)) -> FetchInfo {
    let mut timeouts = FetchTimeouts::default();
    set(&mut timeouts);
    get().timeouts(timeouts).unwrap()
}

fn stage(error: &FetchError) -> DeadlineStage {
    assert!(error.is_timeout() && error.is_retryable(), "{error}");
    match error.failure() {
        FetchFailure::Timeout(deadline) => deadline.stage,
        FetchFailure::Connect(error) => match error.failure() {
            wsloop::ConnectFailure::Timeout(deadline) => deadline.stage,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

#[test]
fn dialling_has_its_deadlines() {
    let mut site = Site::new();
    site.net
        .connect_delay(crate::common::THERE.parse().unwrap(), None);
    site.fetch(with(|timeouts| timeouts.tcp = Some(secs(2))));
    site.pass(secs(2));
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::Tcp, DeadlineStage::Tcp)
    );
    site.net.name_delay("slow.test", None);
    site.fetch(FetchInfo::get("http://slow.test/").unwrap());
    site.pass(secs(5));
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::Dns, DeadlineStage::Dns)
    );
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}

#[test]
fn a_response_has_a_deadline_that_slow_bytes_do_not_extend() {
    let mut site = Site::new();
    site.fetch(with(|timeouts| timeouts.response = Some(secs(3))));
    let peer = site.accept();
    for byte in b"HTTP/1.1 200 OK\r\nX: y" {
        if peer.write(&[*byte]).is_err() {
            break;
        }
        site.pass(Duration::from_millis(200));
    }
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::Response, DeadlineStage::FetchResponse)
    );
    assert_eq!(error.elapsed(), secs(3));
    assert_eq!(site.context.connections(), 0);
}

#[test]
fn a_body_has_a_deadline_of_its_own() {
    let mut site = Site::new();
    site.fetch(with(|timeouts| timeouts.body = Some(secs(3))));
    let peer = site.accept();
    site.pass(secs(2));
    site.answer(&peer, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    for _ in 0..20 {
        if peer.write(b"x").is_err() {
            break;
        }
        site.pass(Duration::from_millis(200));
    }
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::Body, DeadlineStage::FetchBody)
    );
    assert_eq!(error.elapsed(), secs(5));
}

#[test]
fn a_streamed_response_may_take_for_ever() {
    let mut site = Site::new();
    site.fetch(get().streamed());
    let peer = site.accept();
    site.answer(&peer, b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n");
    site.pass(secs(600));
    assert!(site.keeper.outcomes().is_empty());
    peer.shutdown_write();
    site.turn();
    assert!(site.keeper.fetched().is_success());
}

#[test]
fn the_total_bounds_all_stages_together() {
    let total = |timeouts: &mut FetchTimeouts| timeouts.total = Some(secs(4));
    // Waiting.
    let mut site = Site::with(PoolConfig::new().per_origin(1));
    site.get();
    let peer = site.accept();
    site.fetch(with(total));
    site.pass(secs(4));
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::PoolWait, DeadlineStage::Fetch)
    );
    site.answer(&peer, OK);
    assert!(site.keeper.fetched().is_success());
    drop(peer);
    site.turn();
    // Receiving.
    site.fetch(with(total));
    let peer = site.accept();
    site.pass(secs(2));
    site.answer(&peer, b"HTTP/1.1 200 OK\r\n\r\nx");
    site.pass(secs(2));
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::Body, DeadlineStage::Fetch)
    );
    assert_eq!(error.elapsed(), secs(4));
    // Dialling.
    site.net
        .connect_delay(crate::common::THERE.parse().unwrap(), None);
    site.fetch(with(total));
    site.pass(secs(4));
    let error = site.keeper.error();
    assert_eq!(
        (error.stage(), stage(&error)),
        (FetchStage::Tcp, DeadlineStage::Fetch)
    );
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}

#[test]
fn an_upload_that_nobody_takes_ends() {
    let mut site = Site::new();
    site.net.set_capacity(1000);
    site.fetch(FetchInfo::post(URL, vec![b'x'; 100_000]).unwrap());
    let _peer = site.accept();
    site.pass(secs(31));
    let error = site.keeper.error();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(site.context.connections(), 0);
}

#[test]
fn an_upload_that_goes_on_is_not_late_for_its_response() {
    let mut site = Site::new();
    let info = FetchInfo::new(Method::POST, URL)
        .unwrap()
        .streamed_body(None);
    let id = site.fetch(info);
    let peer = site.accept();
    for _ in 0..10 {
        site.cx(|cx| cx.fetch_write(id, b"x")).unwrap();
        site.pass(secs(5));
    }
    assert!(site.keeper.outcomes().is_empty());
    site.cx(|cx| cx.fetch_finish(id)).unwrap();
    site.pass(secs(10));
    site.answer(&peer, OK);
    assert!(site.keeper.fetched().is_success());
}
