//! However the records of a session are cut into reads, the application is told the same and the
//! peer is sent the same, in both roles.

use std::io::Cursor;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use wsloop::sim::Net;
use wsloop::tls::ClientTls;
use wsloop::ws::handshake::accept_key;
use wsloop::{ClientConnectInfo, Context, ContextConfig, Side, VhostConfig};

use crate::lab::{TlsStranger, roots, rustls_client, rustls_server, server_tls, url};
use crate::support::{Log, Recorder, addr, masked, plain, request_with, thirty_frames};
use crate::testpki::{Leaf, Pki};

/// Both ends' certificates, made once.
struct Papers {
    pki: Pki,
    leaf: Leaf,
    server: wsloop::tls::ServerTls,
}

impl Papers {
    fn new() -> Self {
        let pki = Pki::new("Root");
        Self {
            leaf: pki.leaf(&["a.test"]).issue(),
            server: server_tls(&pki, &["a.test"]),
            pki,
        }
    }

    fn client_config(&self) -> ClientConfig {
        rustls_client(&self.pki, None, &[&rustls::version::TLS13])
    }

    fn server_config(&self) -> ServerConfig {
        rustls_server(&self.leaf, &[&rustls::version::TLS13])
    }
}

/// What came of a session: what the application was told, and the plaintext that the peer got.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    told: Vec<String>,
    heard: Vec<u8>,
    /// How many bytes the peer sent.
    sent: usize,
}

/// Plays a session with a stranger whose bytes are cut at these offsets of his whole stream.
struct Play<'a> {
    context: Context,
    stranger: TlsStranger,
    cuts: &'a [usize],
    sent: usize,
    heard: Vec<u8>,
}

impl Play<'_> {
    /// Sends what waits, piece by piece, and takes what comes, until both are silent.
    fn exchange(&mut self) {
        for _ in 0..6 {
            let flight = self.stranger.flight();
            let mut from = 0;
            let ends = self
                .cuts
                .iter()
                .filter_map(|cut| cut.checked_sub(self.sent));
            let ends: Vec<usize> = ends.filter(|end| *end < flight.len()).collect();
            for end in ends.into_iter().chain([flight.len()]) {
                let _ = self.stranger.peer.write(&flight[from..end]);
                from = end;
                for _ in 0..3 {
                    self.context.service(Some(Duration::ZERO)).unwrap();
                }
            }
            self.sent += flight.len();
            self.take();
        }
    }

    fn take(&mut self) {
        let mut bytes = Cursor::new(self.stranger.peer.read());
        while self.stranger.tls.read_tls(&mut bytes).unwrap() > 0 {
            self.stranger.tls.process_new_packets().unwrap();
            let heard = self.stranger.heard();
            self.heard.extend(heard);
        }
    }
}

fn play(papers: &Papers, side: Side, cuts: &[usize]) -> Outcome {
    let net = Net::new(5);
    let log = Log::default();
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let config = VhostConfig::new("a.test").protocol("p", Recorder::echo(&log));
    #[cfg(feature = "deflate")]
    let config = config.deflate(wsloop::DeflateConfig::new());
    let stranger = match side {
        Side::Server => {
            let config = config
                .listen(wsloop::ListenConfig::new(addr()).tls(wsloop::PlaintextPolicy::Reject));
            context
                .create_vhost(config.server_tls(papers.server.clone()))
                .unwrap();
            TlsStranger::new(net.dial(addr()).unwrap(), papers.client_config(), "a.test")
        }
        Side::Client => {
            net.name("a.test", [addr().ip()]);
            let listener = net.listen(addr()).unwrap();
            let config = config.client_tls(ClientTls::new(roots(&papers.pki)));
            let vhost = context.create_vhost(config).unwrap();
            let info = ClientConnectInfo::from_url(&url("a.test")).unwrap();
            context.client_connect(vhost, info).unwrap();
            for _ in 0..4 {
                context.service(Some(Duration::ZERO)).unwrap();
            }
            TlsStranger::server(listener.accept().unwrap(), papers.server_config())
        }
    };
    let mut play = Play {
        context,
        stranger,
        cuts,
        sent: 0,
        heard: Vec::new(),
    };
    play.take();
    play.exchange();
    open(&mut play, side);
    play.exchange();
    for (first, payload) in thirty_frames(COMPRESSED) {
        play.stranger.say(&match side {
            Side::Server => masked(first, &payload),
            Side::Client => plain(first, &payload),
        });
    }
    play.exchange();
    play.stranger.tls.send_close_notify();
    play.exchange();
    play.stranger.peer.shutdown_write();
    play.exchange();
    assert_eq!(play.context.connections(), 0, "{side:?} {cuts:?}");
    Outcome {
        told: log.take(),
        heard: play.heard,
        sent: play.sent,
    }
}

/// The stranger's part of the opening handshake.
fn open(play: &mut Play<'_>, side: Side) {
    let opening = match side {
        Side::Server => request_with("/", EXTENSION),
        Side::Client => {
            let request = String::from_utf8(play.heard.clone()).unwrap();
            let key = request
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
                .unwrap();
            let accept = accept_key(key.as_bytes());
            let accept = std::str::from_utf8(&accept).unwrap();
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{EXTENSION}\r\n"
            )
            .into_bytes()
        }
    };
    play.stranger.say(&opening);
}

const COMPRESSED: bool = cfg!(feature = "deflate");

/// What the peer offers or answers.
const EXTENSION: &str = if COMPRESSED {
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
     client_no_context_takeover\r\n"
} else {
    ""
};

fn golden(papers: &Papers, side: Side) -> Outcome {
    let outcome = play(papers, side, &[]);
    let hello = outcome.told.iter().filter(|line| *line == "text \"Hello\"");
    assert_eq!(hello.count(), 3, "{:?}", outcome.told);
    let end = "closed Peer closed by the peer, code 1000 \"bye\", clean";
    assert_eq!(outcome.told.last().unwrap(), end);
    outcome
}

fn check(papers: &Papers, side: Side, golden: &Outcome, cuts: &[usize]) {
    let outcome = play(papers, side, cuts);
    assert_eq!(outcome.told, golden.told, "{side:?} cut at {cuts:?}");
    assert!(
        outcome.heard == golden.heard,
        "other bytes were sent: {side:?} cut at {cuts:?}"
    );
}

fn every_cut_in_two(side: Side) {
    let papers = Papers::new();
    let golden = golden(&papers, side);
    for cut in 1..golden.sent {
        check(&papers, side, &golden, &[cut]);
    }
}

#[test]
fn io_01_every_cut_in_two_of_a_server_s_tls_session_is_the_same_session() {
    every_cut_in_two(Side::Server);
}

#[test]
fn io_01_every_cut_in_two_of_a_client_s_tls_session_is_the_same_session() {
    every_cut_in_two(Side::Client);
}

#[test]
fn io_01_random_cuts_of_a_tls_session_are_the_same_session() {
    const SEED: u64 = 0x5eed_0017;
    eprintln!("seed {SEED:#x}");
    let mut random = SEED;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % n
    };
    let papers = Papers::new();
    for side in [Side::Server, Side::Client] {
        let golden = golden(&papers, side);
        for _ in 0..200 {
            let count = 2 + below(30);
            let mut cuts: Vec<usize> = (0..count).map(|_| 1 + below(golden.sent)).collect();
            cuts.sort_unstable();
            cuts.dedup();
            check(&papers, side, &golden, &cuts);
        }
    }
}
