//! Every call of the system may fail, and every read and write may be short: each request ends
//! once, and nothing is left behind.

use std::io::ErrorKind;

use wsloop::sim::{Call, Fault, SimPeer};
use wsloop::{FetchInfo, PoolConfig, RedirectPolicy};

use crate::common::{Site, URL, get, response, secs};

/// A stranger's connection, which answers every whole request by its target.
struct Server {
    peer: SimPeer,
    received: String,
}

impl Server {
    fn serve(&mut self) {
        self.received
            .push_str(&String::from_utf8_lossy(&self.peer.read()));
        while let Some(end) = self.received.find("\r\n\r\n") {
            let head = &self.received[..end];
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let whole = end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap());
            if self.received.len() < whole {
                return;
            }
            let answer = match head.split(' ').nth(1) {
                Some("/old") => response("302 Moved", "Location: /new\r\n", "gone"),
                Some("/chunked") => {
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").into_bytes()
                }
                _ => response("200 OK", "", "fine"),
            };
            let _ = self.peer.write(&answer);
            self.received.drain(..whole);
        }
    }
}

/// Six requests in two rounds; what became of them, and how often each call was made.
fn scenario(prepare: impl FnOnce(&Site)) -> (Vec<String>, [u64; 3]) {
    let mut site = Site::with(PoolConfig::new().per_origin(2));
    prepare(&site);
    let mut servers: Vec<Server> = Vec::new();
    for _ in 0..2 {
        let old = FetchInfo::get("http://10.0.0.7/old").unwrap();
        let chunked = FetchInfo::get("http://10.0.0.7/chunked").unwrap();
        for info in [
            old.redirects(RedirectPolicy::new()),
            FetchInfo::post(URL, vec![b'x'; 5000]).unwrap(),
            chunked,
        ] {
            site.context.fetch(site.vhost, info).unwrap();
        }
        for _ in 0..400 {
            site.context
                .service(Some(std::time::Duration::ZERO))
                .unwrap();
            while let Some(peer) = site.there.accept() {
                servers.push(Server {
                    peer,
                    received: String::new(),
                });
            }
            servers.iter_mut().for_each(Server::serve);
        }
    }
    let calls = [Call::Connect, Call::Read, Call::Write].map(|call| site.net.calls(call));
    site.pass(secs(31));
    let outcomes = site
        .keeper
        .outcomes()
        .into_iter()
        .map(|outcome| match outcome {
            Ok(done) => format!("{} {}", done.status, String::from_utf8_lossy(&done.body)),
            Err(error) => format!("error {error}"),
        });
    let outcomes = outcomes.collect();
    assert_eq!(
        (site.counts(), site.context.connections()),
        ((0, 0, 0), 0),
        "{outcomes:?}"
    );
    (outcomes, calls)
}

#[test]
fn io_02_short_reads_and_writes_change_nothing() {
    let (whole, _) = scenario(|_| {});
    assert_eq!(whole.len(), 6);
    assert!(
        whole.iter().all(|outcome| outcome.starts_with("200 ")),
        "{whole:?}"
    );
    for bytes in [37, 100, 1000] {
        let (mut short, _) = scenario(|site| site.net.limit_io(bytes));
        let mut expected = whole.clone();
        expected.sort();
        short.sort();
        assert_eq!(short, expected, "{bytes} bytes at a time");
    }
}

#[test]
fn rs_08_every_call_that_fails_ends_at_most_one_request_and_leaves_nothing_behind() {
    let (_, calls) = scenario(|_| {});
    let kinds = [Call::Connect, Call::Read, Call::Write];
    for (kind, count) in kinds.into_iter().zip(calls) {
        assert!(count > 0);
        for nth in 1..=count {
            for error in [
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
                ErrorKind::WouldBlock,
            ] {
                if (kind, error) == (Call::Connect, ErrorKind::WouldBlock) {
                    continue;
                }
                let fault = Fault::from(error);
                let (outcomes, _) = scenario(|site| site.net.fail(kind, nth, fault));
                assert_eq!(outcomes.len(), 6, "{kind:?} {nth} {error}: {outcomes:?}");
                let failed = outcomes
                    .iter()
                    .filter(|outcome| outcome.starts_with("error"));
                let most = usize::from(error != ErrorKind::WouldBlock);
                assert!(
                    failed.count() <= most,
                    "{kind:?} {nth} {error}: {outcomes:?}"
                );
            }
        }
    }
}

#[test]
fn a_full_house_of_slow_servers_ends_by_its_deadlines() {
    let mut site = Site::with(PoolConfig::new().per_origin(2).queue_timeout(secs(5)));
    for _ in 0..10 {
        site.get();
    }
    site.fetch(get().no_pool());
    site.pass(secs(40));
    let outcomes = site.keeper.outcomes();
    assert_eq!(outcomes.len(), 11);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.as_ref().unwrap_err().is_timeout())
    );
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}
