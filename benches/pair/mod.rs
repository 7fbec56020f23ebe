//! A server that sends back and a client that counts what comes, over loopback and in one thread.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a part of several benches, which measure"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wsloop::{
    ClientConnectInfo, Close, Context, ContextConfig, Established, ListenConfig, Message, Protocol,
    ProtocolHandle, Side, VhostConfig, VhostId, Wsi,
};

/// The two vhosts, the server's first.
pub type Vhosts = (VhostConfig, VhostConfig);

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

pub struct Pair {
    server: Context,
    client: Context,
    vhost: VhostId,
    echo: ProtocolHandle<Echo>,
    url: String,
    connections: usize,
    turns: Turns,
}

/// Who has how many turns. The client has all of its own before the server has one, so that the
/// server finds the work together.
pub struct Turns {
    pub client: usize,
    /// Gives the server one.
    pub server: fn(&mut Context),
}

impl Pair {
    /// `scheme` is that of the client's URL; `listen` has the server listen there.
    pub fn new(
        server: ContextConfig,
        scheme: &str,
        listen: impl FnOnce(Vhosts, ListenConfig) -> Vhosts,
        turns: Turns,
    ) -> Self {
        let mut server = Context::new(server).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server_vhost = VhostConfig::new("localhost").protocol("echo", Echo::default());
        let mut client_vhost = VhostConfig::new("client");
        let echo = client_vhost.add_protocol("echo", Echo::default());
        let (server_vhost, client_vhost) = listen((server_vhost, client_vhost), address.into());
        let vhost = server.create_vhost(server_vhost).unwrap();
        let port = server.listen_addrs(vhost)[0].port();
        let mut client = Context::new(ContextConfig::new()).unwrap();
        let vhost = client.create_vhost(client_vhost).unwrap();
        Self {
            server,
            client,
            vhost,
            echo,
            url: format!("{scheme}://localhost:{port}/"),
            connections: 0,
            turns,
        }
    }

    /// So many connections more.
    pub fn connect(&mut self, connections: usize) {
        for _ in 0..connections {
            let info = ClientConnectInfo::from_url(&self.url).unwrap();
            let info = info.address("127.0.0.1").unwrap();
            self.client.client_connect(self.vhost, info).unwrap();
        }
        self.connections += connections;
        let wanted = self.connections;
        self.turn_until(|echo| echo.established == wanted);
    }

    /// All connections have `depth` messages on their way at once, and get them back.
    pub fn round(&mut self, payload: &[u8], depth: usize) {
        self.client.with_protocol(self.echo, |echo, cx| {
            echo.answers = 0;
            for _ in 0..depth {
                cx.broadcast(Message::Binary(payload), |_| true);
            }
        });
        let wanted = depth * self.connections;
        self.turn_until(|echo| echo.answers == wanted);
    }

    fn turn_until(&mut self, done: impl Fn(&Echo) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for _ in 0..self.turns.client {
                self.client.service(Some(Duration::ZERO)).unwrap();
            }
            if self
                .client
                .protocol(self.echo)
                .is_some_and(|echo| done(echo))
            {
                return;
            }
            assert!(Instant::now() < deadline, "no progress");
            (self.turns.server)(&mut self.server);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
