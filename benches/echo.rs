//! Echo round trips over loopback sockets, both contexts in one thread:
//! `cargo bench --bench echo`.

#[path = "pair/mod.rs"]
mod pair;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pair::{Pair, Turns, Vhosts};
use wsloop::ContextConfig;

criterion_group!(benches, echo);
criterion_main!(benches);

fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    for len in [20, 1024, 16 * 1024] {
        for depth in [1, 16] {
            let mut pair = pair();
            let payload = vec![b'x'; len];
            group.throughput(Throughput::Elements(depth as u64));
            group.bench_function(BenchmarkId::new(format!("depth {depth}"), len), |b| {
                b.iter(|| pair.round(&payload, depth));
            });
        }
    }
    group.finish();
}

fn pair() -> Pair {
    let turns = Turns {
        client: 1,
        server: |server| server.service(Some(Duration::ZERO)).expect("a turn"),
    };
    let listen = |(server, client): Vhosts, at| (server.listen(at), client);
    let mut pair = Pair::new(ContextConfig::new(), "ws", listen, turns);
    pair.connect(1);
    pair
}
