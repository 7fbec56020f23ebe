//! Instructions per message, counted: `python3 benches/icounts/gate.py` runs this under callgrind,
//! which counts inside `counted` only, and holds the result against `table.txt`.
//!
//! `cargo bench --bench icounts -- SCENARIO` runs one scenario and prints how many units it did.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures and prints"
)]

#[path = "../pair/mod.rs"]
mod pair;

use std::hint::black_box;
use std::time::Duration;

use pair::{Pair, Turns, Vhosts};
use wsloop::ws::{Delivery, Recv, RecvLimits, RecvPool};
use wsloop::{Context, ContextConfig, ListenConfig, Side};

/// What callgrind counts.
#[inline(never)]
fn counted<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    match arguments.next() {
        None => SCENARIOS.iter().for_each(|(name, _)| println!("{name}")),
        Some(name) => {
            let (_, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name).unwrap();
            println!("units: {}", scenario());
        }
    }
}

/// Names, and what is done; it gives the number of its units.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("decode-20B", || decode(20, 4096)),
    ("decode-1KiB", || decode(1024, 1024)),
    ("decode-16KiB", || decode(16 * 1024, 128)),
    ("handshake", handshake),
    ("echo-20B-d1", || echo(false, 20, 1)),
    ("echo-20B-d16", || echo(false, 20, 16)),
    ("echo-1KiB-d1", || echo(false, 1024, 1)),
    ("echo-1KiB-d16", || echo(false, 1024, 16)),
    ("echo-16KiB-d1", || echo(false, 16 * 1024, 1)),
    ("echo-16KiB-d16", || echo(false, 16 * 1024, 16)),
    #[cfg(feature = "aws-lc-rs")]
    ("tls-echo-20B-d1", || echo(true, 20, 1)),
    #[cfg(feature = "aws-lc-rs")]
    ("tls-echo-20B-d16", || echo(true, 20, 16)),
    #[cfg(feature = "aws-lc-rs")]
    ("tls-echo-16KiB-d1", || echo(true, 16 * 1024, 1)),
];

type Scenario = fn() -> usize;

const CONNECTIONS: usize = 20;
const ROUNDS: usize = 20;

/// Whole frames, as they lie in a receive buffer.
fn decode(len: usize, messages: usize) -> usize {
    let mut wire = Vec::new();
    for _ in 0..messages {
        match u8::try_from(len).ok().filter(|len| *len <= 125) {
            Some(short) => wire.extend([0x82, 0x80 | short]),
            None => {
                wire.extend([0x82, 0xfe]);
                wire.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        wire.extend([1, 2, 3, 4]);
        wire.extend(vec![7; len]);
    }
    let (mut recv, mut pool) = (Recv::default(), RecvPool::default());
    let limits = RecvLimits::default();
    let given = counted(|| {
        let side = Side::Server;
        let mut feed = recv.feed(side, Delivery::Messages, &limits, &mut pool, &mut wire);
        let mut given = 0;
        while let Ok(Some(item)) = feed.next() {
            black_box(item);
            given += 1;
        }
        given
    });
    assert_eq!(given, messages);
    messages
}

/// Upgrades, accepted and answered. The units are connections.
fn handshake() -> usize {
    let mut pair = pair(false);
    for _ in 0..ROUNDS {
        pair.connect(CONNECTIONS);
    }
    ROUNDS * CONNECTIONS
}

/// Echoes: all connections have `depth` messages on their way at once.
fn echo(tls: bool, len: usize, depth: usize) -> usize {
    let mut pair = pair(tls);
    COUNTING.with(|counting| counting.set(false));
    pair.connect(CONNECTIONS);
    let payload = vec![b'x'; len];
    pair.round(&payload, depth);
    COUNTING.with(|counting| counting.set(true));
    for _ in 0..ROUNDS {
        pair.round(&payload, depth);
    }
    ROUNDS * CONNECTIONS * depth
}

thread_local! {
    /// Whether the server's turns belong to what is measured.
    static COUNTING: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

fn pair(tls: bool) -> Pair {
    let scheme = if tls { "wss" } else { "ws" };
    let config = ContextConfig::new().receive_buffer(512 * 1024);
    let turns = Turns {
        client: 4,
        server: serve,
    };
    Pair::new(config, scheme, |vhosts, at| listen(vhosts, at, tls), turns)
}

/// A turn of the server, counted or not; those of the client are not.
fn serve(server: &mut Context) {
    if COUNTING.with(std::cell::Cell::get) {
        counted(|| server.service(Some(Duration::ZERO))).unwrap();
    } else {
        server.service(Some(Duration::ZERO)).unwrap();
    }
}

#[cfg(feature = "aws-lc-rs")]
fn listen((server, client): Vhosts, listen: ListenConfig, tls: bool) -> Vhosts {
    use wsloop::PlaintextPolicy;
    use wsloop::tls::{ClientTls, Identity, Roots, ServerTls};

    if !tls {
        return (server.listen(listen), client);
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server_tls = ServerTls::new(Identity::from_pem(&cert, &key).unwrap());
    let client_tls = ClientTls::new(Roots::from_pem(&cert).unwrap());
    let server = server
        .listen(listen.tls(PlaintextPolicy::Reject))
        .server_tls(server_tls);
    (server, client.client_tls(client_tls))
}

#[cfg(not(feature = "aws-lc-rs"))]
fn listen((server, client): Vhosts, listen: ListenConfig, _: bool) -> Vhosts {
    (server.listen(listen), client)
}
