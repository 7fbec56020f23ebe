//! Raw connections to the server.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// RFC 6455 section 1.2, with its key.
pub(crate) const REQUEST: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Connects from the `nth` place: an address of loopback and a port, which the system would search for
/// longer and longer. Places are not taken twice within millions.
pub(crate) fn connect(address: SocketAddr, nth: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let (block, port) = (nth / PORTS, FIRST_PORT + nth % PORTS);
    let source = Ipv4Addr::new(127, 1, (block / 250) as u8, (block % 250 + 1) as u8);
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(source), port as u16).into())?;
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Below those that the system gives to others.
const FIRST_PORT: usize = 20_000;
const PORTS: usize = 10_000;

/// From so many places.
pub(crate) fn connect_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count).map(|nth| connect(address, nth)).collect()
}

/// Upgrades a blocking connection.
pub(crate) fn upgrade(stream: &mut TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(REQUEST)?;
    let mut got = Vec::new();
    let mut buffer = [0; 1024];
    while !got.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Err("the server does not want it".into()),
            n => got.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    if got.starts_with(b"HTTP/1.1 101 ") {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&got).into())
    }
}

pub(crate) fn open(address: SocketAddr, nth: usize) -> Result<TcpStream, Box<dyn Error>> {
    let mut stream = connect(address, nth)?;
    upgrade(&mut stream)?;
    Ok(stream)
}

/// Closes with a reset, which leaves no port waiting.
pub(crate) fn reset(stream: TcpStream) -> io::Result<()> {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// A client's frame, masked with zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ ..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
