//! What permessage-deflate costs, without any I/O: `cargo bench --bench deflate`.
//!
//! JSON-like text, in both directions, with and without context takeover. The receiving numbers
//! include reading and unmasking the frame.

mod readings;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use readings::{MESSAGES, messages};
use wsloop::ws::deflate::{Compressing, CompressorPool, SendOptions};
use wsloop::ws::{
    Delivery, FrameHeader, Item, MAX_HEADER_LEN, Opcode, Recv, RecvLimits, RecvPool, Side, mask,
};
use wsloop::{Compression, DeflateConfig, DeflateParams, Takeover};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 3] = [64, 1024, 65_536];
const TAKEOVERS: [(&str, Takeover); 2] = [("alone", Takeover::None), ("takeover", Takeover::Both)];

criterion_group!(benches, compress, levels, inflate);
criterion_main!(benches);

fn compress(c: &mut Criterion) {
    let mut group = c.benchmark_group("compress");
    for (name, takeover) in TAKEOVERS {
        for len in SIZES {
            let messages = messages(len);
            let (mut pool, mut sender) = sender(Side::Server, takeover, 1);
            group.throughput(Throughput::Bytes(len as u64));
            let mut at = 0;
            group.bench_function(BenchmarkId::new(name, len), |b| {
                b.iter(|| {
                    at = (at + 1) % MESSAGES;
                    shrink(&mut sender, &mut pool, black_box(&messages[at]))
                });
            });
        }
    }
    group.finish();
}

/// The levels on 1 KiB; their ratios are printed.
fn levels(c: &mut Criterion) {
    let mut group = c.benchmark_group("level");
    let messages = messages(1024);
    for (name, takeover) in TAKEOVERS {
        for level in [1, 2, 3, 4, 5, 6, 9] {
            let (mut pool, mut sender) = sender(Side::Server, takeover, level);
            let sizes = messages
                .iter()
                .map(|message| shrink(&mut sender, &mut pool, message));
            let total: usize = sizes.sum();
            eprintln!("{name} level {level}: 1024 to {}", total / MESSAGES);
            let mut at = 0;
            group.bench_function(BenchmarkId::new(name, level), |b| {
                b.iter(|| {
                    at = (at + 1) % MESSAGES;
                    shrink(&mut sender, &mut pool, black_box(&messages[at]))
                });
            });
        }
    }
    group.finish();
}

fn inflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("inflate");
    for (name, takeover) in TAKEOVERS {
        for len in SIZES {
            let (mut pool, mut sender) = sender(Side::Client, takeover, 6);
            let frames: Vec<_> = messages(len)
                .iter()
                .map(|message| frame(&mut sender, &mut pool, message))
                .collect();
            let longest = frames.iter().map(Vec::len).max().unwrap_or_default();
            let mut buffer = vec![0; longest];
            let mut pool = RecvPool::default();
            let limits = RecvLimits::default();
            let mut recv = receiver(takeover);
            let mut at = 0;
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new(name, len), |b| {
                b.iter(|| {
                    if at == MESSAGES {
                        // The first one refers to nothing before it.
                        at = 0;
                        recv = receiver(takeover);
                    }
                    let frame = &frames[at];
                    at += 1;
                    let input = &mut buffer[..frame.len()];
                    input.copy_from_slice(frame);
                    let mut feed =
                        recv.feed(Side::Server, Delivery::Messages, &limits, &mut pool, input);
                    match feed.next() {
                        Ok(Some(Item::Message(message))) => assert_eq!(message.len(), len),
                        other => panic!("{other:?}"),
                    }
                });
            });
        }
    }
    group.finish();
}

fn params(takeover: Takeover) -> DeflateParams {
    let mut params = DeflateParams::new();
    params.server_no_context_takeover = takeover == Takeover::None;
    params.client_no_context_takeover = takeover == Takeover::None;
    params
}

fn sender(side: Side, takeover: Takeover, level: u8) -> (CompressorPool, Compressing) {
    let config = DeflateConfig::new()
        .level(level)
        .expect("a level that exists");
    let sender = Compressing::new(side, params(takeover), config);
    (CompressorPool::default(), sender)
}

fn receiver(takeover: Takeover) -> Recv {
    Recv::with_deflate(Side::Server, &params(takeover), &DeflateConfig::new())
}

/// Compresses a message although it may be short; the length of what goes out.
fn shrink(sender: &mut Compressing, pool: &mut CompressorPool, message: &[u8]) -> usize {
    let options = SendOptions::new().compression(Compression::Always);
    match sender.compress(pool, message, options) {
        Some(payload) => {
            let len = payload.as_slice().len();
            pool.put_back(payload);
            len
        }
        None => message.len(),
    }
}

/// A client's frame with a message that is compressed if it gets shorter.
fn frame(sender: &mut Compressing, pool: &mut CompressorPool, message: &[u8]) -> Vec<u8> {
    let options = SendOptions::new().compression(Compression::Always);
    let payload = sender.compress(pool, message, options);
    let bytes = payload
        .as_ref()
        .map_or(message, |payload| payload.as_slice());
    let mut header = FrameHeader::new(Opcode::Text, bytes.len() as u64);
    header.rsv1 = payload.is_some();
    header.mask = Some(KEY);
    let mut frame = vec![0; MAX_HEADER_LEN];
    let mut place = [0; MAX_HEADER_LEN];
    let header_len = header.encode(&mut place);
    frame.clear();
    frame.extend_from_slice(&place[..header_len]);
    mask::copy(KEY, bytes, &mut frame);
    frame
}
