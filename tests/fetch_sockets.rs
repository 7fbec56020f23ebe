//! HTTP requests as a client on real sockets: our server, and one of `std::net` that knows nothing
//! of this crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::{
    Context, ContextConfig, Cx, FetchError, FetchId, FetchInfo, Fetched, HttpClientHandler, Mount,
    PoolConfig, Response, VhostConfig, VhostId,
};

type Outcome = Result<Fetched, FetchError>;

#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Outcome>>>);

impl HttpClientHandler for Keeper {
    fn on_done(&mut self, _: &mut Cx<'_>, _: FetchId, outcome: Outcome) {
        self.0.lock().unwrap().push(outcome);
    }
}

struct Site {
    context: Context,
    vhost: VhostId,
    keeper: Keeper,
}

impl Site {
    fn new() -> Self {
        let mut context = Context::new(ContextConfig::new()).unwrap();
        let keeper = Keeper::default();
        let config = VhostConfig::new("client")
            .http_client(keeper.clone())
            .http_pool(PoolConfig::new().per_origin(4));
        let vhost = context.create_vhost(config).unwrap();
        Self {
            context,
            vhost,
            keeper,
        }
    }

    /// Makes the requests at once and waits for all that comes of them.
    fn fetch(&mut self, info: &FetchInfo, times: usize) -> Vec<Fetched> {
        for _ in 0..times {
            self.context.fetch(self.vhost, info.clone()).unwrap();
        }
        while self.keeper.0.lock().unwrap().len() < times {
            self.context.service(Some(Duration::from_secs(30))).unwrap();
        }
        let outcomes = std::mem::take(&mut *self.keeper.0.lock().unwrap());
        outcomes.into_iter().map(Result::unwrap).collect()
    }
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn two_hundred_requests_share_four_connections_to_our_server() {
    let mut site = Site::new();
    let hi = Mount::call("/hi", |request| Response::text(200, request.path()));
    let server = VhostConfig::new("localhost").listen(local()).mount(hi);
    let server = site.context.create_vhost(server).unwrap();
    let port = site.context.listen_addrs(server)[0].port();
    let info = FetchInfo::get(&format!("http://localhost:{port}/hi")).unwrap();
    let info = info.address("127.0.0.1").unwrap();
    let done = site.fetch(&info, 200);
    assert!(
        done.iter()
            .all(|done| done.status == 200 && done.body == b"/hi")
    );
    let pool = site.context.http_pool_metrics(site.vhost).unwrap();
    assert_eq!((pool.opened, pool.reused, pool.waiting), (4, 196, 0));
}

#[test]
fn a_stranger_gets_what_was_said_and_is_understood_byte_by_byte() {
    let listener = TcpListener::bind(local()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let stranger = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        writer.set_nodelay(true).unwrap();
        let mut heads = Vec::new();
        for _ in 0..2 {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            assert!(body.iter().all(|byte| *byte == b'x'));
            let answer =
                b"HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            for byte in answer {
                writer.write_all(&[*byte]).unwrap();
            }
            heads.push(head);
        }
        heads
    });
    let mut site = Site::new();
    let url = format!("http://127.0.0.1:{port}/a?b");
    let info = FetchInfo::post(&url, vec![b'x'; 1_000_000]).unwrap();
    for reused in [false, true] {
        let done = site.fetch(&info, 1).remove(0);
        assert_eq!(
            (done.status, done.body.as_slice()),
            (201, b"hello".as_slice())
        );
        assert_eq!(done.reused, reused);
    }
    let expected =
        format!("POST /a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(stranger.join().unwrap(), [expected.clone(), expected]);
}
