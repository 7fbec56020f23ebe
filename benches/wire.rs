//! What the wire rooms cost, without any I/O: `cargo bench --bench wire`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wsloop::ws::{
    Delivery, FrameHeader, Item, MAX_HEADER_LEN, Opcode, Recv, RecvLimits, RecvPool, Side, Utf8,
    mask, utf8,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 3] = [20, 1024, 65_536];

criterion_group!(benches, frame, masking, text, recv);
criterion_main!(benches);

fn frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for len in [20, 1024, 65_536] {
        let mut header = FrameHeader::new(Opcode::Binary, len);
        header.mask = Some(KEY);
        let mut bytes = [0; MAX_HEADER_LEN];
        group.bench_function(BenchmarkId::new("encode", len), |b| {
            b.iter(|| black_box(&header).encode(black_box(&mut bytes)));
        });
        header.encode(&mut bytes);
        group.bench_function(BenchmarkId::new("decode", len), |b| {
            b.iter(|| FrameHeader::decode(black_box(&bytes)));
        });
    }
    group.finish();
}

fn masking(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for len in SIZES {
        let mut data = vec![0x55; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("apply", len), |b| {
            b.iter(|| mask::apply(black_box(KEY), 0, black_box(&mut data)));
        });
        group.bench_function(BenchmarkId::new("naive", len), |b| {
            b.iter(|| naive_mask(black_box(KEY), black_box(&mut data)));
        });
        let mut out = Vec::with_capacity(len);
        group.bench_function(BenchmarkId::new("copy", len), |b| {
            b.iter(|| {
                out.clear();
                mask::copy(black_box(KEY), black_box(&data), &mut out);
            });
        });
    }
    group.finish();
}

/// RFC 6455 section 5.3, byte by byte: what `mask::apply` is measured against.
fn naive_mask(key: [u8; 4], data: &mut [u8]) {
    for (i, byte) in data.iter_mut().enumerate() {
        *byte ^= key[i & 3];
    }
}

fn text(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf8");
    for (name, sample) in [
        ("ascii", "plain text "),
        ("greek", "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5} "),
    ] {
        for len in SIZES {
            let text = repeated(sample, len);
            let data = text.as_bytes();
            group.throughput(Throughput::Bytes(data.len() as u64));
            group.bench_function(BenchmarkId::new(format!("validate/{name}"), len), |b| {
                b.iter(|| utf8::validate(black_box(data)).is_ok());
            });
            let mut out = String::with_capacity(data.len());
            group.bench_function(BenchmarkId::new(format!("push/{name}"), len), |b| {
                b.iter(|| {
                    out.clear();
                    Utf8::new().push(black_box(data), &mut out)
                });
            });
        }
    }
    group.finish();
}

/// As many characters of `sample`, over and over, as fit in `len` bytes.
fn repeated(sample: &str, len: usize) -> String {
    let mut text = sample.repeat(len / sample.len() + 1);
    while text.len() > len {
        text.pop();
    }
    text
}

/// Receiving as a server: the frames are masked. Each turn decodes a copy of the input, since
/// decoding unmasks it in place; `copy` shows what that copy costs.
fn recv(c: &mut Criterion) {
    let mut group = c.benchmark_group("recv");
    for (opcode, name) in [(Opcode::Binary, "binary"), (Opcode::Text, "text")] {
        for (len, count) in [(20, 64), (1024, 16), (65_536, 1)] {
            let input = frames(opcode, len, count);
            group.throughput(Throughput::Elements(count as u64));
            let mut session = Session::new(input.len());
            group.bench_function(BenchmarkId::new(format!("whole/{name}"), len), |b| {
                b.iter(|| session.receive(black_box(&input)));
            });
        }
        // What a read of 16 KiB makes of a large message: it is assembled.
        let input = frames(opcode, 65_536, 1);
        group.throughput(Throughput::Elements(1));
        let mut session = Session::new(input.len());
        group.bench_function(BenchmarkId::new(format!("assembled/{name}"), 65_536), |b| {
            b.iter(|| {
                input
                    .chunks(16_384)
                    .map(|read| session.receive(read))
                    .sum::<usize>()
            });
        });
    }
    let input = frames(Opcode::Binary, 20, 64);
    let mut scratch = vec![0; input.len()];
    group.throughput(Throughput::Elements(64));
    group.bench_function(BenchmarkId::new("copy", 20), |b| {
        b.iter(|| black_box(&mut scratch).copy_from_slice(black_box(&input)));
    });
    group.finish();
}

fn frames(opcode: Opcode, len: usize, count: usize) -> Vec<u8> {
    let mut header = FrameHeader::new(opcode, len as u64);
    header.mask = Some(KEY);
    let mut bytes = [0; MAX_HEADER_LEN];
    let header_len = header.encode(&mut bytes);
    let mut out = Vec::new();
    for _ in 0..count {
        out.extend_from_slice(&bytes[..header_len]);
        mask::copy(KEY, &vec![b'x'; len], &mut out);
    }
    out
}

struct Session {
    recv: Recv,
    limits: RecvLimits,
    pool: RecvPool,
    buffer: Vec<u8>,
}

impl Session {
    fn new(buffer_len: usize) -> Self {
        Self {
            recv: Recv::default(),
            limits: RecvLimits::default(),
            pool: RecvPool::default(),
            buffer: vec![0; buffer_len],
        }
    }

    /// Receives whole frames or reads that cut no header; gives the payload bytes delivered.
    fn receive(&mut self, bytes: &[u8]) -> usize {
        let input = &mut self.buffer[..bytes.len()];
        input.copy_from_slice(bytes);
        let Self {
            recv, limits, pool, ..
        } = self;
        let mut feed = recv.feed(Side::Server, Delivery::Messages, limits, pool, input);
        let mut delivered = 0;
        while let Ok(Some(item)) = feed.next() {
            if let Item::Message(message) = item {
                delivered += black_box(message.as_bytes()).len();
            }
        }
        delivered
    }
}
