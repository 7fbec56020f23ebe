//! Doors for the fuzz targets; compiled with `--cfg fuzzing` only.
//!
//! Each function panics where a property does not hold.

use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::failure::TlsFailure;
use super::hello::{ClientHello, HelloError, HelloScan};
use super::session::{Chosen, Session};
use super::unbuffered::Place;

/// Scans `wire` as a ClientHello: whole, byte by byte, and cut as its own bytes say. All agree.
pub fn client_hello(wire: &[u8]) {
    let whole = HelloScan::default().scan(wire);
    assert_eq!(cut(wire, |_| 1), whole);
    assert_eq!(cut(wire, |byte| 1 + usize::from(byte) % 37), whole);
    if let Ok(Some(hello)) = &whole {
        assert!(hello.alpn().all(|name| !name.is_empty()));
        assert!(!hello.cipher_suites().is_empty());
        let name = hello.server_name().unwrap_or("a");
        assert!(ServerName::try_from(name).is_ok(), "rustls takes {name:?}");
        assert!(!name.ends_with('.') && name == name.to_ascii_lowercase());
    }
    if let Err(error) = &whole {
        assert!(!error.to_string().is_empty());
        let _ = error.alert();
    }
}

fn cut(wire: &[u8], size: impl Fn(u8) -> usize) -> Result<Option<ClientHello>, HelloError> {
    let mut scan = HelloScan::default();
    let mut end = 0;
    while let Some(&byte) = wire.get(end) {
        end = (end + size(byte)).min(wire.len());
        match scan.scan(wire.get(..end).unwrap_or_default()) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

/// Feeds arbitrary bytes to a server's session, whole and in pieces: it fails, or waits, the same
/// way, keeps no more than came, and establishes nothing.
pub fn server_session(config: &Arc<ServerConfig>, now: Instant, wire: &[u8]) {
    let whole = feed(config, now, wire, wire.len().max(1));
    for size in [1, 7, 300] {
        assert_eq!(feed(config, now, wire, size), whole);
    }
}

fn feed(config: &Arc<ServerConfig>, now: Instant, wire: &[u8], size: usize) -> Option<TlsFailure> {
    let mut end = End::new(Session::server(now), now);
    for piece in wire.chunks(size) {
        end.feed(config, piece);
    }
    assert!(end.plain.is_empty() && end.session.is_handshaking());
    assert!(end.failure.is_none() || end.session.memory() < 100_000);
    let failure = end.failure.take();
    let gone = end.session.eof(now);
    assert!(gone.is_err());
    failure
}

/// Lets two sessions talk while `script` damages what they say: each four bytes of it name a place
/// and a byte to put there; a place behind the end cuts the message off. Nothing but failures may
/// come of it.
pub fn conversation(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    now: Instant,
    script: &[u8],
) {
    let (Ok(name), mut out) = (ServerName::try_from("a.test"), Vec::new()) else {
        return;
    };
    let Ok(session) = Session::client(Arc::clone(client), name, now, &mut out) else {
        return;
    };
    let mut client = End::new(session, now);
    client.out = out;
    let mut host = End::new(Session::server(now), now);
    let mut edits = script.chunks_exact(4);
    for turn in 0..10 {
        let (from, to) = match turn % 2 {
            0 => (&mut client, &mut host),
            _ => (&mut host, &mut client),
        };
        let mut wire = std::mem::take(&mut from.out);
        let mut size = usize::MAX;
        if let Some(&[turns, high, low, byte]) = edits.clone().next() {
            if usize::from(turns % 10) == turn {
                edits.next();
                size = 1 + usize::from(turns);
                let at = usize::from(u16::from_be_bytes([high, low]));
                match wire.get_mut(at) {
                    Some(place) => *place = byte,
                    None => wire.truncate(at % (wire.len() + 1)),
                }
            }
        }
        for piece in wire.chunks(size) {
            to.feed(server, piece);
            // Whatever is pending must not disturb sending.
            let _ = to.session.seal(b"x", &mut to.out);
        }
    }
    for end in [&mut client, &mut host] {
        assert!(
            end.plain.iter().all(|&byte| byte == b'x'),
            "nothing is made up"
        );
        end.session.close(&mut end.out);
        let _ = end.session.eof(now);
    }
}

struct End {
    session: Session,
    plain: Vec<u8>,
    out: Vec<u8>,
    now: Instant,
    failure: Option<TlsFailure>,
}

impl End {
    fn new(session: Session, now: Instant) -> Self {
        Self {
            session,
            plain: Vec::new(),
            out: Vec::new(),
            now,
            failure: None,
        }
    }

    fn feed(&mut self, config: &Arc<ServerConfig>, piece: &[u8]) {
        let Self {
            session,
            plain,
            out,
            ..
        } = self;
        let mut select = |_: &ClientHello| {
            Ok(Chosen {
                config: Arc::clone(config),
                requests_certificate: true,
            })
        };
        let result = session.receive(
            &mut piece.to_vec(),
            &mut Place::default(),
            plain,
            out,
            self.now,
            &mut select,
        );
        if let Err(failure) = result {
            assert!(!failure.to_string().is_empty());
            assert!(
                self.failure
                    .as_ref()
                    .is_none_or(|before| *before == failure)
            );
            self.failure = Some(failure);
        }
    }
}
