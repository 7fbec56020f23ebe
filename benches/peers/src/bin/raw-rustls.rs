//! The floor under TLS: plaintext back on mio and rustls' unbuffered connections, without
//! WebSocket. PORT --tls CERT KEY.
//!
//! All buffers belong to the loop: a connection has rustls' state, and what it waits for.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const RECEIVE_BUFFER: usize = 512 * 1024;
/// Plaintext that is encrypted for one write.
const SEAL_AT_ONCE: usize = 128 * 1024;
const RECORD_MAX: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 32;

struct Peer {
    stream: TcpStream,
    tls: UnbufferedServerConnection,
    /// The begin of a record.
    stash: Vec<u8>,
    /// Records that the socket has not taken.
    rest: Vec<u8>,
    /// Plaintext that is not encrypted, since the socket is full.
    waiting: Vec<u8>,
}

/// What all connections share.
struct Shared {
    incoming: Vec<u8>,
    plain: Vec<u8>,
    /// Zeroed once; rustls wants room that is initialised.
    records: Vec<u8>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let port: u16 = arguments[1].parse().expect("a port");
    let config = wsloop_peers::server_config(&arguments[3], &arguments[4]);
    let mut poll = Poll::new().expect("a poll loop");
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into()).expect("a free port");
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .expect("registered");
    let mut peers = Slab::new();
    let mut shared = Shared {
        incoming: vec![0; RECEIVE_BUFFER],
        plain: Vec::new(),
        records: vec![0; SEAL_AT_ONCE + (SEAL_AT_ONCE / RECORD_MAX + 1) * RECORD_OVERHEAD],
    };
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut peers, &config);
            } else if let Some(peer) = peers.get_mut(event.token().0) {
                if !echo(peer, &mut shared) {
                    peers.remove(event.token().0);
                }
            }
        }
    }
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    peers: &mut Slab<Box<Peer>>,
    config: &Arc<ServerConfig>,
) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).expect("a TCP socket");
        let tls = UnbufferedServerConnection::new(Arc::clone(config)).expect("a configuration");
        let entry = peers.vacant_entry();
        poll.registry()
            .register(
                &mut stream,
                Token(entry.key()),
                Interest::READABLE | Interest::WRITABLE,
            )
            .expect("registered");
        entry.insert(Box::new(Peer {
            stream,
            tls,
            stash: Vec::new(),
            rest: Vec::new(),
            waiting: Vec::new(),
        }));
    }
}

/// Whether the connection goes on.
fn echo(peer: &mut Peer, shared: &mut Shared) -> bool {
    loop {
        if !flush(peer, shared) {
            return false;
        }
        if !peer.rest.is_empty() {
            return true;
        }
        let n = match peer.stream.read(&mut shared.incoming) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        shared.plain.clear();
        if !open(peer, shared, n) {
            return false;
        }
        let plain = std::mem::take(&mut shared.plain);
        let goes_on = send(peer, &plain, shared);
        shared.plain = plain;
        if !goes_on {
            return false;
        }
        if n < shared.incoming.len() && peer.rest.is_empty() {
            // A short read has drained the socket: the next bytes raise the next event.
            return true;
        }
    }
}

/// Decrypts what has come to `shared.plain`.
fn open(peer: &mut Peer, shared: &mut Shared, n: usize) -> bool {
    let mut joined = std::mem::take(&mut peer.stash);
    if joined.is_empty() {
        let Some(used) = process(peer, &mut shared.incoming[..n], &mut shared.plain) else {
            return false;
        };
        peer.stash.extend_from_slice(&shared.incoming[used..n]);
    } else {
        joined.extend_from_slice(&shared.incoming[..n]);
        let Some(used) = process(peer, &mut joined, &mut shared.plain) else {
            return false;
        };
        if used < joined.len() {
            joined.drain(..used);
            peer.stash = joined;
        }
    }
    true
}

/// How many of the bytes are done with; `None` ends the connection.
fn process(peer: &mut Peer, bytes: &mut [u8], plain: &mut Vec<u8>) -> Option<usize> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } =
            peer.tls.process_tls_records(&mut bytes[used..]);
        let blocked = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                false
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let begin = peer.rest.len();
                if let Err(EncodeError::InsufficientSize(short)) = data.encode(&mut []) {
                    peer.rest.resize(begin + short.required_size, 0);
                    data.encode(&mut peer.rest[begin..]).ok()?;
                }
                false
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                false
            }
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => true,
            _ => return None,
        };
        used += discard;
        if blocked {
            return Some(used);
        }
    }
}

/// Encrypts and writes, until the socket takes no more.
fn send(peer: &mut Peer, mut plain: &[u8], shared: &mut Shared) -> bool {
    while !plain.is_empty() {
        if !peer.rest.is_empty() && !write_rest(peer) {
            return false;
        }
        if !peer.rest.is_empty() {
            peer.waiting.extend_from_slice(plain);
            return true;
        }
        let (now, later) = plain.split_at(plain.len().min(SEAL_AT_ONCE));
        let status = peer.tls.process_tls_records(&mut []);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
            return false;
        };
        let Ok(n) = traffic.encrypt(now, &mut shared.records) else {
            return false;
        };
        let written = match peer.stream.write(&shared.records[..n]) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        peer.rest.extend_from_slice(&shared.records[written..n]);
        plain = later;
    }
    true
}

/// Writes what waits.
fn flush(peer: &mut Peer, shared: &mut Shared) -> bool {
    if !write_rest(peer) {
        return false;
    }
    if peer.rest.is_empty() && !peer.waiting.is_empty() {
        let waiting = std::mem::take(&mut peer.waiting);
        return send(peer, &waiting, shared);
    }
    true
}

fn write_rest(peer: &mut Peer) -> bool {
    while !peer.rest.is_empty() {
        match peer.stream.write(&peer.rest) {
            Ok(n) if n == peer.rest.len() => peer.rest = Vec::new(),
            Ok(n) => drop(peer.rest.drain(..n)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}
