//! The floor: bytes back on mio, without WebSocket. PORT.

use std::io::{ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);

struct Peer {
    stream: TcpStream,
    /// What the socket has not taken.
    rest: Vec<u8>,
}

fn main() {
    let port: u16 = std::env::args()
        .nth(1)
        .expect("PORT")
        .parse()
        .expect("a port");
    let mut poll = Poll::new().expect("a poll loop");
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into()).expect("a free port");
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .expect("registered");
    let mut peers = Slab::new();
    let mut buffer = vec![0; 512 * 1024];
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut peers);
            } else if let Some(peer) = peers.get_mut(event.token().0) {
                if !echo(peer, &mut buffer) {
                    peers.remove(event.token().0);
                }
            }
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, peers: &mut Slab<Peer>) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).expect("a TCP socket");
        let entry = peers.vacant_entry();
        poll.registry()
            .register(
                &mut stream,
                Token(entry.key()),
                Interest::READABLE | Interest::WRITABLE,
            )
            .expect("registered");
        let rest = Vec::new();
        entry.insert(Peer { stream, rest });
    }
}

/// Whether the connection goes on.
fn echo(peer: &mut Peer, buffer: &mut [u8]) -> bool {
    loop {
        while !peer.rest.is_empty() {
            match peer.stream.write(&peer.rest) {
                Ok(n) => drop(peer.rest.drain(..n)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        let n = match peer.stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let written = match peer.stream.write(&buffer[..n]) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        peer.rest.extend_from_slice(&buffer[written..n]);
        if n < buffer.len() && written == n {
            // A short read has drained the socket: the next bytes raise the next event.
            return true;
        }
    }
}
