//! The two contexts and the network between them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wsloop::hook::Webhook;
use wsloop::http::client::PoolMetrics;
use wsloop::sim::Net;
use wsloop::tls::{ClientTls, ServerTls};
use wsloop::{
    Context, ContextConfig, Cx, DeflateConfig, HandlerHandle, HookChain, HookConfig, HookHandle,
    HttpClientHandle, Limits, ListenConfig, Mount, PlaintextPolicy, ProtocolHandle, RetryPolicy,
    Takeover, Timeouts, VhostConfig, VhostId,
};

use super::app::App;
use super::judge::{self, Judge, Trust};
use super::model::{Model, Node, Rng, Shared};
use super::tricks;
use super::web::{Client, Doorman, Handler, Watcher};
use crate::simpki::Pki;

/// One of the contexts, and what reaches into it from outside.
pub(crate) struct Site {
    pub(crate) context: Context,
    pub(crate) vhost: VhostId,
    pub(crate) app: ProtocolHandle<App>,
    pub(crate) chunks: ProtocolHandle<App>,
    pub(crate) handler: HandlerHandle<Handler>,
    pub(crate) client: HttpClientHandle<Client>,
    pub(crate) webhook: Option<HookHandle<Webhook>>,
}

impl Site {
    pub(crate) fn new(net: &Net, shared: &Shared, node: Node) -> Self {
        let mut model = shared.lock();
        let watcher = Watcher {
            node,
            shared: shared.clone(),
        };
        let config = context_config(&mut model).observer(watcher);
        let mut context = Context::simulated(net, config).unwrap();
        let mut config = vhost_config(&mut model, &format!("n{node}.test"));
        config = config.listen(plain(node)).listen(six(plain(node)));
        if model.tls {
            let listener = ListenConfig::new(secure(node)).tls(PlaintextPolicy::Serve);
            config = config
                .listen(listener)
                .listen(ListenConfig::new(six(secure(node))).tls(PlaintextPolicy::Serve))
                .server_tls(ServerTls::new(Pki::get().identity(0)))
                .client_tls(ClientTls::new(Pki::get().roots()));
        }
        let hooked = model.rng.once_in(2);
        let parts = || (node, shared.clone());
        let (mut trust, mut webhook) = (None, None);
        if hooked {
            let (node, shared) = parts();
            let chain;
            let doorman = Doorman { node, shared };
            (chain, trust, webhook) = hooks(&mut model, doorman);
            config = config.hooks(chain);
        }
        let app = |(node, shared)| App {
            node,
            shared,
            trust,
        };
        let (whole, pieces) = (app(parts()), app(parts()));
        let app = config.add_protocol("p", whole);
        let chunks = config.add_chunk_protocol("c", pieces);
        let (node, shared) = parts();
        let client = config.add_http_client(Client { node, shared });
        let (node, shared) = parts();
        let judge = Mount::handler("/judge", Judge { node, shared });
        let (node, shared) = parts();
        let handler = Handler {
            node,
            shared,
            trust,
        };
        let (mount, handler) = Mount::handler_with("/h", handler);
        let mount = if hooked { mount.hooked() } else { mount };
        let config = config.default_protocol("p").mount(mount).mount(judge);
        let vhost = context.create_vhost(config).unwrap();
        model.vhosts.push((node, vhost));
        Self {
            context,
            vhost,
            app,
            chunks,
            handler,
            client,
            webhook,
        }
    }

    /// Runs `f` as a callback of this or that.
    pub(crate) fn with_cx(&mut self, which: usize, f: impl FnOnce(&mut Cx<'_>)) {
        let context = &mut self.context;
        let _ = match which {
            0 => context.with_protocol(self.app, |_, cx| f(cx)),
            1 => context.with_protocol(self.chunks, |_, cx| f(cx)),
            2 => context.with_handler(self.handler, |_, cx| f(cx)),
            _ => context.with_http_client(self.client, |_, cx| f(cx)),
        };
    }

    /// What its webhook says about itself adds up.
    pub(crate) fn check_webhook(&mut self) {
        let Some(hook) = self.webhook.and_then(|hook| self.context.hook(hook)) else {
            return;
        };
        let metrics = hook.metrics();
        let known = metrics.cache_hits + metrics.failures + metrics.pending as u64;
        assert!(metrics.questions >= known, "{metrics:?}");
        assert!(metrics.cached <= 1024 && metrics.cached_bytes <= 1024 * 1024);
    }

    /// Questions of its webhook that have no answer.
    pub(crate) fn waits(&mut self) -> usize {
        let hook = self.webhook.and_then(|hook| self.context.hook(hook));
        hook.map_or(0, |hook| hook.metrics().pending)
    }

    pub(crate) fn pool(&self) -> PoolMetrics {
        self.context
            .http_pool_metrics(self.vhost)
            .unwrap_or_default()
    }
}

/// Who is asked about requests, in which order.
fn hooks(model: &mut Model, doorman: Doorman) -> (HookChain, Option<Trust>, Asker) {
    let node = doorman.node;
    let doorman = HookConfig::new("doorman", doorman).deadline(Duration::from_secs(1));
    let chain = HookChain::new().otherwise_allow();
    if model.rng.once_in(3) {
        return (chain.with(doorman), None, None);
    }
    let (hook, handle, trust) = judge::webhook(model, node);
    match model.rng.once_in(3) {
        true => (
            chain.with(doorman).with(hook),
            Some(Trust::Loose),
            Some(handle),
        ),
        false => (chain.with(hook).with(doorman), Some(trust), Some(handle)),
    }
}

type Asker = Option<HookHandle<Webhook>>;

fn context_config(model: &mut Model) -> ContextConfig {
    let gentle = model.gentle;
    let rng = &mut model.rng;
    let mut config = ContextConfig::new()
        .receive_buffer(rng.pick(&[1024, 4096, 65_536]))
        .turn_budget(rng.pick(&[1024, 16_384, 1024 * 1024]))
        .max_context_takeovers(rng.pick(&[0, 2, 100]));
    if !gentle {
        config = config.max_inflaters(rng.pick(&[1, 2, 100]));
        config = config
            .max_connections(rng.pick(&[8, 16, 1000]))
            .max_tls_handshakes(rng.pick(&[1, 2, 100]));
        if rng.once_in(3) {
            config = config.max_connections_per_ip(rng.pick(&[3, 10]));
        }
    }
    config
}

fn vhost_config(model: &mut Model, name: &str) -> VhostConfig {
    let (gentle, fair) = (model.gentle, model.fair);
    let rng = &mut model.rng;
    let mut limits = Limits::default()
        .with_message_bytes(model.longest)
        .with_output_bytes(model.output_bytes);
    limits.output_low_water = rng.pick(&[0, 1000, 8 * 1024]);
    limits.output_rate = if gentle { 0 } else { rng.pick(&[0, 256]) };
    // Nothing is late when nobody does harm.
    let secs = |n| Duration::from_secs(if gentle { 1000 } else { n });
    let mut timeouts = Timeouts::default();
    timeouts.head = secs(2);
    timeouts.respond = secs(4);
    timeouts.keep_alive = secs(4);
    timeouts.write = secs(4);
    timeouts.message = secs(5);
    timeouts.close = secs(1);
    timeouts.tls = secs(2);
    timeouts.tcp = secs(2);
    timeouts.dns = secs(1);
    let policy = RetryPolicy::builder()
        .ping_after(Duration::from_secs(1))
        .hang_up_after(secs(9));
    let mut config = VhostConfig::new(name)
        .limits(limits)
        .timeouts(timeouts)
        .retry_and_idle_policy(policy.build().unwrap())
        .http_pool(tricks::pool());
    if rng.once_in(if fair { 6 } else { 2 }) {
        let deflate = DeflateConfig::new();
        config = config.deflate(match rng.once_in(2) {
            true => deflate.context_takeover(Takeover::None),
            false => deflate,
        });
    }
    config
}

/// A vhost that comes while everything goes on, on the listener that is there.
pub(crate) fn another_vhost(shared: &Shared, model: &mut Model, node: Node) -> VhostConfig {
    let shared = shared.clone();
    vhost_config(model, "x.test").listen(plain(node)).protocol(
        "p",
        App {
            node,
            shared,
            trust: None,
        },
    )
}

/// Where a context listens.
pub(crate) fn plain(node: Node) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + node as u8], 80))
}

pub(crate) fn secure(node: Node) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + node as u8], 443))
}

/// The same place by IPv6.
pub(crate) fn six(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Where a stranger listens.
pub(crate) fn strange() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 9], 80))
}

/// What everybody's names lead to.
pub(crate) fn name_all(net: &Net, rng: &mut Rng) {
    for node in 0..2 {
        let (four, six) = (plain(node).ip(), six(plain(node)).ip());
        let known = rng.pick(&[[four, four], [six, six], [six, four]]);
        net.name(&format!("n{node}.test"), known);
    }
    net.name("x.test", [plain(rng.below(2)).ip()]);
    net.name("slow.test", [plain(0).ip()]);
    net.name_delay("slow.test", Duration::from_millis(700));
    let nobody = SocketAddr::from(([10, 0, 0, 8], 80));
    net.name("several.test", [nobody.ip(), strange().ip(), plain(1).ip()]);
    if rng.once_in(2) {
        net.connect_delay(nobody, None);
    }
    net.connect_delay(plain(0), Duration::from_millis(rng.pick(&[1, 30])));
}

/// Bytes of a body, from an offset on.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len)
        .map(|at| (at.wrapping_mul(7) ^ (at >> 8)) as u8)
        .collect()
}
