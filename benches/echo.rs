//! Echo round trips over loopback sockets, both contexts in one thread:
//! `cargo bench --bench echo`.

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wsloop::{
    ClientConnectInfo, Close, Context, ContextConfig, Established, Message, Protocol,
    ProtocolHandle, Side, VhostConfig, Wsi,
};

criterion_group!(benches, echo);
criterion_main!(benches);

fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    for len in [20, 1024, 16 * 1024] {
        for depth in [1, 16] {
            let mut pair = Pair::new();
            let payload = vec![b'x'; len];
            group.throughput(Throughput::Elements(depth as u64));
            group.bench_function(BenchmarkId::new(format!("depth {depth}"), len), |b| {
                b.iter(|| pair.round_trip(&payload, depth));
            });
        }
    }
    group.finish();
}

/// The server sends back, the client counts.
#[derive(Default)]
struct Echo {
    established: usize,
    answers: usize,
}

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        self.established += 1;
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        match wsi.side() {
            Side::Server => drop(wsi.send(message)?),
            Side::Client => self.answers += 1,
        }
        Ok(())
    }
}

struct Pair {
    server: Context,
    client: Context,
    echo: ProtocolHandle<Echo>,
}

impl Pair {
    fn new() -> Self {
        let mut server = Context::new(ContextConfig::new()).expect("a poll loop");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = VhostConfig::new("localhost")
            .listen(address)
            .protocol("echo", Echo::default());
        let vhost = server.create_vhost(config).expect("a free port");
        let port = server.listen_addrs(vhost)[0].port();
        let mut client = Context::new(ContextConfig::new()).expect("a poll loop");
        let mut config = VhostConfig::new("client");
        let echo = config.add_protocol("echo", Echo::default());
        let vhost = client
            .create_vhost(config)
            .expect("a vhost without listener");
        let info = ClientConnectInfo::new("127.0.0.1", port).expect("an address");
        client.client_connect(vhost, info).expect("one connection");
        let mut pair = Self {
            server,
            client,
            echo,
        };
        pair.turn_until(|echo| echo.established == 1);
        pair
    }

    fn round_trip(&mut self, payload: &[u8], depth: usize) {
        self.client.with_protocol(self.echo, |echo, cx| {
            echo.answers = 0;
            for _ in 0..depth {
                cx.broadcast(Message::Binary(payload), |_| true);
            }
        });
        self.turn_until(|echo| echo.answers == depth);
    }

    fn turn_until(&mut self, done: impl Fn(&Echo) -> bool) {
        while !self
            .client
            .protocol(self.echo)
            .is_some_and(|echo| done(echo))
        {
            self.client.service(Some(Duration::ZERO)).expect("a turn");
            self.server.service(Some(Duration::ZERO)).expect("a turn");
        }
    }
}
