//! Two contexts on one network: a server and a client.

use std::net::SocketAddr;
use std::time::Duration;

use wsloop::sim::{Call, Net};
use wsloop::{
    ClientConnectInfo, ConnectError, Context, ContextConfig, FetchInfo, VhostConfig, VhostId,
};

use super::parts::{Asker, Told, Watcher};

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// How an echo is played.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) url: &'static str,
    pub(crate) tls: bool,
    pub(crate) deflate: bool,
}

impl Setting {
    pub(crate) const fn new(url: &'static str) -> Self {
        Self {
            url,
            tls: false,
            deflate: false,
        }
    }

    pub(crate) const fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    pub(crate) const fn deflate(mut self) -> Self {
        self.deflate = true;
        self
    }
}

pub(crate) struct Rack {
    pub(crate) net: Net,
    pub(crate) contexts: [Context; 2],
    pub(crate) told: Told,
    client: Option<VhostId>,
}

pub(crate) fn plain() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}

pub(crate) fn secure() -> SocketAddr {
    "10.0.0.2:443".parse().unwrap()
}

impl Rack {
    pub(crate) fn new(net: &Net) -> Self {
        let told = Told::default();
        let (refuses, silent) = ([10, 0, 0, 7], [10, 0, 0, 8]);
        net.name("n1.test", [plain().ip()]);
        net.name("endpoint.test", [Self::endpoint().ip()]);
        net.name(
            "several.test",
            [refuses.into(), silent.into(), plain().ip()],
        );
        net.connect_delay((silent, 80).into(), None);
        let context = || {
            let config = ContextConfig::new().observer(Watcher(told.clone()));
            Context::simulated(net, config).unwrap()
        };
        Self {
            net: net.clone(),
            contexts: [context(), context()],
            told,
            client: None,
        }
    }

    /// Where the client's context answers webhooks.
    pub(crate) fn endpoint() -> SocketAddr {
        "10.0.0.1:8080".parse().unwrap()
    }

    pub(crate) fn serve(&mut self, config: VhostConfig) {
        if let Err(error) = self.contexts[SERVER].create_vhost(config) {
            self.told.trouble(&with_causes(&error));
        }
    }

    pub(crate) fn serve_client(&mut self, config: VhostConfig) {
        let config = config.http_client(Asker(self.told.clone()));
        match self.contexts[CLIENT].create_vhost(config) {
            Ok(id) => self.client = Some(id),
            Err(error) => self.told.trouble(&with_causes(&error)),
        }
    }

    pub(crate) fn dial(&mut self, config: VhostConfig, url: &str) {
        self.serve_client(config);
        if let Some(vhost) = self.client {
            let info = ClientConnectInfo::from_url(url).unwrap();
            self.contexts[CLIENT].client_connect(vhost, info).unwrap();
            self.told.begun("connection");
        }
        self.turn(40);
    }

    pub(crate) fn fetch(&mut self, info: FetchInfo) {
        if let Some(vhost) = self.client {
            self.contexts[CLIENT].fetch(vhost, info).unwrap();
            self.told.begun("fetch");
        }
    }

    pub(crate) fn turn(&mut self, times: usize) {
        for _ in 0..times {
            for context in &mut self.contexts {
                context.service(Some(Duration::ZERO)).unwrap();
                let wrong = context.check_invariants();
                assert!(wrong.is_empty(), "{wrong:#?}");
            }
        }
    }

    /// Lets everything come to its end: at once what can, at its deadline what has to wait.
    pub(crate) fn wind_up(&mut self) {
        for _ in 0..MOST_DEADLINES {
            self.be_quiet();
            if self
                .contexts
                .iter()
                .all(|context| context.connections() == 0)
            {
                self.told.check_all_ended();
                let left = self.net.sockets();
                assert_eq!(left.streams, 0, "{left:?}");
                return;
            }
            let deadlines = self.contexts.iter();
            let next = deadlines.filter_map(Context::next_deadline).min();
            let next = next.expect("somebody is there, so there is a deadline");
            let wait = next.saturating_duration_since(self.net.now());
            self.net.advance(wait.max(Duration::from_millis(1)));
        }
        panic!("it hangs: {:?}", self.told);
    }

    /// Turns until nothing happens any more. A poll that is interrupted finds nothing; the next does.
    fn be_quiet(&mut self) {
        for _ in 0..MOST_TURNS {
            let mut before: Vec<u64> = self.calls();
            self.turn(2);
            before[Call::Poll as usize] += 4;
            if before == self.calls() {
                return;
            }
        }
        panic!("it is never quiet");
    }

    fn calls(&self) -> Vec<u64> {
        Call::ALL.iter().map(|call| self.net.calls(*call)).collect()
    }
}

/// An error with its causes, and with what became of the other addresses.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = Some(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            let tried = error.tried().iter().map(|(_, error)| error.to_string());
            let tried: Vec<_> = tried.collect();
            text = format!("{text}, tried {}", tried.join(", "));
        }
        cause = error.source();
    }
    text
}

const MOST_TURNS: usize = 1000;
const MOST_DEADLINES: usize = 200;
