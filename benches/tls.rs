//! What the TLS session costs with rustls' unbuffered connections, next to rustls' buffered ones:
//! time and allocations per record, and the memory of an idle connection. Prints a table.
//!
//! The room that drives rustls is not public, so its source is compiled in.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures and prints, with rooms of which it uses a part"
)]

#[path = "../src/tls/alert.rs"]
mod alert;
#[path = "../src/tls/tap.rs"]
mod tap;
#[path = "../src/tls/unbuffered.rs"]
mod unbuffered;

use std::alloc::System;
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::UnbufferedServerConnection;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use unbuffered::{Buffers, Place, Unbuffered};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let configs = Configs::new();
    println!("per record, TLS 1.3:");
    for len in [125, 16_384] {
        ours(&configs, len);
        buffered(&configs, len);
    }
    println!("bytes on the heap per idle connection, its configuration not counted:");
    let client = || Box::new(unbuffered_pair(&configs).0);
    left_on_the_heap("unbuffered client", client);
    let server = || Box::new(unbuffered_pair(&configs).1);
    left_on_the_heap("unbuffered server", server);
    left_on_the_heap("buffered client", || Box::new(buffered_pair(&configs).0));
    left_on_the_heap("buffered server", || Box::new(buffered_pair(&configs).1));
}

fn ours(configs: &Configs, len: usize) {
    let (mut client, mut server) = unbuffered_pair(configs);
    let data = vec![7; len];
    let (mut wire, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut seal = Best::new("unbuffered seal", len);
    let mut open = Best::new("unbuffered open", len);
    for _ in 0..BATCHES {
        wire.clear();
        seal.measure(|| {
            for _ in 0..BATCH {
                unbuffered::seal(&mut client, &mut [], black_box(&data), &mut wire).unwrap();
            }
        });
        let record = wire.len() / BATCH;
        open.measure(|| {
            for record in wire.chunks_mut(record) {
                plain.clear();
                let buffers = &mut Buffers {
                    place: &mut Place::default(),
                    plain: &mut plain,
                    out: &mut out,
                };
                let turn = unbuffered::run(&mut server, record, None, buffers);
                assert_eq!(black_box(turn).used, record.len());
            }
        });
    }
    seal.print();
    open.print();
}

fn buffered(configs: &Configs, len: usize) {
    let (mut client, mut server) = buffered_pair(configs);
    client.set_buffer_limit(None);
    let data = vec![7; len];
    let (mut wire, mut plain) = (Vec::new(), vec![0; len]);
    let mut seal = Best::new("buffered seal", len);
    let mut open = Best::new("buffered open", len);
    for _ in 0..BATCHES {
        wire.clear();
        seal.measure(|| {
            for _ in 0..BATCH {
                client.writer().write_all(black_box(&data)).unwrap();
                client.write_tls(&mut wire).unwrap();
            }
        });
        let record = wire.len() / BATCH;
        open.measure(|| {
            for mut record in wire.chunks(record) {
                while !record.is_empty() {
                    server.read_tls(&mut record).unwrap();
                    server.process_new_packets().unwrap();
                }
                server.reader().read_exact(&mut plain).unwrap();
            }
        });
    }
    seal.print();
    open.print();
}

fn unbuffered_pair(configs: &Configs) -> (UnbufferedClientConnection, UnbufferedServerConnection) {
    let name = "a.test".try_into().unwrap();
    let mut client = UnbufferedClientConnection::new(configs.client.clone(), name).unwrap();
    let mut server = UnbufferedServerConnection::new(configs.server.clone()).unwrap();
    let mut to_client = Vec::new();
    for _ in 0..4 {
        let mut to_server = turn(&mut client, &mut to_client);
        to_client = turn(&mut server, &mut to_server);
    }
    assert!(!client.common().is_handshaking() && !server.common().is_handshaking());
    (client, server)
}

fn turn<U: Unbuffered>(connection: &mut U, input: &mut [u8]) -> Vec<u8> {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let buffers = &mut Buffers {
        place: &mut Place::default(),
        plain: &mut plain,
        out: &mut out,
    };
    let turn = unbuffered::run(connection, input, None, buffers);
    assert!(turn.error.is_none() && turn.used == input.len());
    out
}

fn buffered_pair(configs: &Configs) -> (Connection, Connection) {
    let name = "a.test".try_into().unwrap();
    let client = ClientConnection::new(configs.client.clone(), name).unwrap();
    let server = ServerConnection::new(configs.server.clone()).unwrap();
    let (mut client, mut server) = (Connection::from(client), Connection::from(server));
    for _ in 0..4 {
        carry(&mut client, &mut server);
        carry(&mut server, &mut client);
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    (client, server)
}

fn carry(from: &mut Connection, to: &mut Connection) {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = &wire[..];
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets().unwrap();
    }
}

/// A client and a server with throw-away certificates.
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Configs {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &ca).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone());
        let client = client.with_protocol_versions(&[&TLS13]).unwrap();
        let client = client.with_root_certificates(roots);
        let server = ServerConfig::builder_with_provider(provider);
        let server = server.with_protocol_versions(&[&TLS13]).unwrap();
        let server = server.with_no_client_auth();
        let server = server.with_single_cert(vec![leaf.der().clone()], key.into());
        Self {
            client: Arc::new(client.with_no_client_auth()),
            server: Arc::new(server.unwrap()),
        }
    }
}

/// Prints what each of many leaves on the heap. What a C library allocates does not count.
fn left_on_the_heap<T>(name: &str, make: impl Fn() -> T) {
    drop(make());
    let region = Region::new(ALLOCATOR);
    let kept: Vec<T> = (0..CONNECTIONS).map(|_| make()).collect();
    let change = region.change();
    let bytes = change.bytes_allocated - change.bytes_deallocated;
    println!("  {name:18} {:6}", bytes / CONNECTIONS);
    drop(kept);
}

/// The shortest of many batches.
struct Best {
    name: &'static str,
    len: usize,
    time: Duration,
    allocations: usize,
}

impl Best {
    const fn new(name: &'static str, len: usize) -> Self {
        Self {
            name,
            len,
            time: Duration::MAX,
            allocations: 0,
        }
    }

    fn measure(&mut self, batch: impl FnOnce()) {
        let region = Region::new(ALLOCATOR);
        let start = Instant::now();
        batch();
        self.time = self.time.min(start.elapsed());
        let change = region.change();
        self.allocations = change.allocations + change.reallocations;
    }

    fn print(&self) {
        let per = |count: f64| count / BATCH as f64;
        println!(
            "  {:16} {:6} B {:7.0} ns {:5.2} allocations",
            self.name,
            self.len,
            per(self.time.as_nanos() as f64),
            per(self.allocations as f64)
        );
    }
}

const BATCH: usize = 64;
const BATCHES: usize = 400;
const CONNECTIONS: usize = 100;
