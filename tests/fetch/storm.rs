//! Random requests against random strangers: every request ends once, nothing is left behind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::http::client::Method;
use wsloop::sim::SimPeer;
use wsloop::{FetchId, FetchInfo, FetchTimeouts, PoolConfig, RedirectPolicy};

use crate::common::{Site, read, secs};

/// A xorshift generator; its `Debug` form is the seed to replay from.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

struct Storm {
    site: Site,
    rng: Rng,
    peers: Vec<SimPeer>,
    /// Begun and not ended.
    open: BTreeSet<FetchId>,
    /// What ended since.
    ended: Arc<Mutex<Vec<FetchId>>>,
}

impl Storm {
    fn begin(&mut self) {
        let target = ["/a", "/b", "/c?d"][self.rng.below(3)];
        let method =
            [Method::GET, Method::POST, Method::PUT, Method::HEAD][self.rng.below(4)].clone();
        let info = FetchInfo::new(method, &format!("http://10.0.0.7{target}")).unwrap();
        let mut timeouts = FetchTimeouts::default();
        timeouts.total = Some(secs(60));
        let mut info = info.timeouts(timeouts).unwrap();
        match self.rng.below(4) {
            0 => info = info.body(vec![b'x'; self.rng.below(5000)]),
            1 => info = info.streamed_body([None, Some(100)][self.rng.below(2)]),
            _ => {}
        }
        if self.rng.below(2) == 0 {
            info = info.streamed();
        }
        if self.rng.below(2) == 0 {
            info = info.redirects(RedirectPolicy::new().max(3));
        }
        if self.rng.below(8) == 0 {
            info = info.no_pool();
        }
        let id = self.site.context.fetch(self.site.vhost, info).unwrap();
        assert!(self.open.insert(id), "an id is never given twice");
    }

    fn touch(&mut self) {
        let count = self.open.len();
        if count == 0 {
            return;
        }
        let nth = self.rng.below(count);
        let id = *self.open.iter().nth(nth).unwrap();
        let what = self.rng.below(6);
        let handle = self.site.handle;
        self.site
            .context
            .with_http_client(handle, |_, cx| match what {
                0 => drop(cx.cancel_fetch(id)),
                1 => drop(cx.pause_fetch(id)),
                2 => drop(cx.resume_fetch(id)),
                3 => drop(cx.fetch_write(id, &[b'y'; 50])),
                4 => drop(cx.fetch_finish(id)),
                _ => drop(cx.request_fetch_writable(id)),
            });
    }

    fn answer(&mut self) {
        let pieces: [&[u8]; 14] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 302 Moved\r\nLocation: /b\r\nContent-Length: 4\r\n\r\ngone",
            b"HTTP/1.1 307 Moved\r\nLocation: /a\r\nContent-Length: 4\r\n\r\ngo",
            b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nuntil",
            b"HTTP/1.1 2",
            b"c\r\n0\r\n\r\n",
            b"\x15\x03\x01",
        ];
        if self.peers.is_empty() {
            return;
        }
        let at = self.rng.below(self.peers.len());
        match self.rng.below(12) {
            0 => drop(self.peers.remove(at)),
            1 => self.peers.remove(at).reset(),
            2 => self.peers[at].shutdown_write(),
            _ => {
                let request = read(&self.peers[at]);
                // Mostly somebody who was asked.
                if !request.is_empty() || self.rng.below(10) == 0 {
                    let piece = pieces[self.rng.below(pieces.len())];
                    let _ = self.peers[at].write(piece);
                }
            }
        }
    }

    fn turn(&mut self) {
        self.site.context.service(Some(Duration::ZERO)).unwrap();
        while let Some(peer) = self.site.there.accept() {
            self.peers.push(peer);
        }
        self.site.keeper.take();
        for id in std::mem::take(&mut *self.ended.lock().unwrap()) {
            assert!(self.open.remove(&id), "{id:?} ended twice: {:?}", self.rng);
        }
        let metrics = self.site.metrics();
        assert!(metrics.open <= 4 && metrics.idle <= metrics.open);
    }
}

#[test]
fn every_request_ends_once_whatever_the_strangers_do() {
    for seed in 1..=60 {
        println!("seed {seed}");
        let pool = PoolConfig::new().total(4).per_origin(3).waiting(10);
        let mut storm = Storm {
            site: Site::with(pool),
            rng: Rng(seed * 0x9e37_79b9),
            peers: Vec::new(),
            open: BTreeSet::new(),
            ended: Arc::default(),
        };
        let ended = Arc::clone(&storm.ended);
        storm.site.keeper.set(|acts| {
            acts.done = Some(Box::new(move |_, id| {
                ended.lock().unwrap().push(id);
                Ok(())
            }));
        });
        for _ in 0..400 {
            match storm.rng.below(10) {
                0 | 1 => storm.begin(),
                2 | 3 => storm.touch(),
                4..=7 => storm.answer(),
                8 => storm.site.net.advance(Duration::from_millis(300)),
                _ => {}
            }
            storm.turn();
        }
        for _ in 0..2000 {
            storm.site.net.advance(Duration::from_millis(100));
            storm.turn();
        }
        assert!(storm.open.is_empty(), "{:?}", storm.open);
        let site = &storm.site;
        assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
        assert!(site.context.next_deadline().is_none(), "no timer is left");
    }
}
