//! Making and unmaking vhosts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::{
    ListenConfig, NamePattern, NamePolicy, Page, PlaintextPolicy, Settings, VhostConfig,
};
use crate::context::{Keyed, ListenerSlot, ListenerState, Parts, listen_options};
use crate::error::VhostError;
use crate::fetch::{FetchDispatch, VhostPool};
use crate::hook::{ChainSlot, HookChain, Webhook};
use crate::http::client::PoolConfig;
use crate::http::{is_field_value, is_token};
use crate::id::{Token, VhostId};
use crate::inner::{Command, Inner, Owner, TimerKind, Vhost, VhostProtocol, VhostState};
use crate::mount::{Mount, Route, RouteTarget, Target};
use crate::net::listen::Listener;
#[cfg(feature = "tls")]
use crate::ws::Side;

/// Fills the announced vhost `id`. On an error nothing has changed.
pub(crate) fn create(
    inner: &mut Inner,
    parts: &mut Parts,
    id: VhostId,
    mut config: VhostConfig,
) -> Result<(), VhostError> {
    if inner.shutting_down {
        return Err(VhostError::Shutdown);
    }
    let clients = make_hook_clients(inner, parts, &mut config)?;
    let made = fill(inner, parts, id, config);
    match (&made, inner.vhost_mut(id)) {
        (Ok(()), Some(vhost)) => vhost.hook_clients = clients,
        _ => forget_clients(inner, &clients),
    }
    made
}

/// Makes the vhosts that hooks have for connections of their own.
fn make_hook_clients(
    inner: &mut Inner,
    parts: &mut Parts,
    config: &mut VhostConfig,
) -> Result<Vec<VhostId>, VhostError> {
    let mut made = Vec::new();
    let hooks = config
        .hooks
        .as_mut()
        .map(|chain| chain.hooks.as_mut_slice());
    for hook in hooks.unwrap_or_default() {
        let Some(webhook) = hook.dispatch.webhook() else {
            continue;
        };
        match make_hook_client(inner, parts, webhook, &hook.name) {
            Ok(client) => made.extend(client),
            Err(error) => {
                forget_clients(inner, &made);
                return Err(error);
            }
        }
    }
    Ok(made)
}

fn make_hook_client(
    inner: &mut Inner,
    parts: &mut Parts,
    webhook: &mut Webhook,
    name: &str,
) -> Result<Option<VhostId>, VhostError> {
    let Some(config) = webhook.client_config(name)? else {
        return Ok(None);
    };
    let id = inner.announce_vhost().ok_or(VhostError::TooMany)?;
    if let Err(error) = fill(inner, parts, id, config) {
        forget_clients(inner, &[id]);
        return Err(error);
    }
    webhook.set_client(id);
    Ok(Some(id))
}

/// They have no listeners, protocols or handlers that would have to go with them.
fn forget_clients(inner: &mut Inner, clients: &[VhostId]) {
    for client in clients {
        inner.vhosts.remove(client.index, client.generation);
    }
}

fn fill(
    inner: &mut Inner,
    parts: &mut Parts,
    id: VhostId,
    config: VhostConfig,
) -> Result<(), VhostError> {
    let names = config.names.iter().map(|name| NamePattern::parse(name));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    check_protocols(&config)?;
    check_pages(&config.pages)?;
    check_mounts(&config)?;
    check_hooks(&config)?;
    let tls = TlsCells::new(parts, &config)?;
    let asked = Asked {
        names: &names,
        default: config.default_vhost,
        tls: &tls,
    };
    let Found { shared, bound } = bind(inner, parts, &config.listen, config.inherited, &asked)?;
    let mut listeners = attach(parts, id, &shared, config.default_vhost);
    open(parts, id, bound, config.default_vhost, &mut listeners)?;
    let home = inner.home(id);
    let settings = Settings::new(home, config.limits, config.timeouts, config.retry);
    #[cfg(feature = "deflate")]
    let settings = settings.with_deflate(config.deflate);
    let (protocols, default_protocol) =
        take_protocols(parts, config.protocols, config.default_protocol);
    let routes = take_routes(parts, config.pages, config.mounts, &protocols);
    let hooks = take_hooks(parts, config.hooks, config.names.first());
    let http_clients = take_http_clients(parts, config.http_clients);
    let http_pool = tls.pool(config.http_pool);
    if let Some(vhost) = inner.vhost_mut(id) {
        *vhost = Vhost {
            names,
            protocols,
            default_protocol,
            routes,
            hooks,
            settings: Arc::new(settings),
            listeners,
            live: 0,
            http_clients,
            http_pool,
            state: VhostState::Active,
            #[cfg(feature = "tls")]
            server_tls: tls.server,
            #[cfg(feature = "tls")]
            client_tls: tls.client,
            #[cfg(feature = "tls")]
            traces_tls: config.traces_tls,
            ..Vhost::announced(home)
        };
    }
    #[cfg(feature = "tls")]
    announce_identities(inner, id);
    Ok(())
}

/// What a new vhost asks of its listeners.
struct Asked<'a> {
    names: &'a [NamePattern],
    default: bool,
    tls: &'a TlsCells,
}

/// The listeners of a new vhost.
struct Found {
    /// Those that are there already.
    shared: Vec<(u32, u64)>,
    bound: Vec<NewListener>,
}

/// Finds or opens listeners.
fn bind(
    inner: &Inner,
    parts: &Parts,
    listen: &[ListenConfig],
    inherited: Vec<TcpListener>,
    asked: &Asked<'_>,
) -> Result<Found, VhostError> {
    let mut bound = Vec::new();
    let mut shared = Vec::new();
    for listen in listen {
        let address = listen.address;
        match existing(parts, address) {
            Some(name) => {
                check_shared(inner, parts, name, asked.names, asked.default)?;
                asked
                    .tls
                    .check_listener(address, plaintext_of(parts, name))?;
                check_asked(parts, name, listen)?;
                shared.push(name);
            }
            None => {
                asked.tls.check_listener(address, listen.tls)?;
                let opened = parts.system.bind(address, listen_options(listen));
                let failed = |source| VhostError::Bind { address, source };
                let listener = opened.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                bound.push(NewListener {
                    listener,
                    address,
                    tls: listen.tls,
                    names: listen.names,
                });
            }
        }
    }
    for inherited in inherited {
        let inherited = take_over(inherited)?;
        asked.tls.check_listener(inherited.address, inherited.tls)?;
        bound.push(inherited);
    }
    let found = Found { shared, bound };
    asked.tls.check_use(parts, &found)?;
    Ok(found)
}

/// Has the loop look at the identities of a new vhost when no callback runs.
#[cfg(feature = "tls")]
fn announce_identities(inner: &mut Inner, id: VhostId) {
    for side in [Side::Server, Side::Client] {
        inner.commands.push_back(Command::NewIdentity(id, side));
    }
}

fn check_protocols(config: &VhostConfig) -> Result<(), VhostError> {
    let mut seen = BTreeSet::new();
    for protocol in &config.protocols {
        if !is_token(protocol.name.as_bytes()) {
            return Err(VhostError::ProtocolName(protocol.name.clone()));
        }
        if !seen.insert(protocol.name.as_str()) {
            return Err(VhostError::DuplicateProtocol(protocol.name.clone()));
        }
    }
    match &config.default_protocol {
        Some(name) if !seen.contains(name.as_str()) => {
            Err(VhostError::DefaultProtocol(name.clone()))
        }
        _ => Ok(()),
    }
}

fn check_pages(pages: &[Page]) -> Result<(), VhostError> {
    for page in pages {
        let problem = if !page.path.starts_with('/') {
            "the path must begin with a slash"
        } else if page.path.contains(['?', '#']) {
            "the path must have no query and no fragment"
        } else if !is_field_value(page.content_type.as_bytes()) || page.content_type.is_empty() {
            "the content type is not fit for a header"
        } else {
            continue;
        };
        let path = page.path.clone();
        return Err(VhostError::Page { path, problem });
    }
    Ok(())
}

fn check_mounts(config: &VhostConfig) -> Result<(), VhostError> {
    let mut seen = BTreeSet::new();
    for page in &config.pages {
        if !seen.insert((page.path.as_str(), true)) {
            let (path, problem) = (page.path.clone(), "there are two pages of that path");
            return Err(VhostError::Page { path, problem });
        }
    }
    for mount in &config.mounts {
        let prefix = mount.prefix.as_str();
        let knows = |name: &String| config.protocols.iter().any(|known| known.name == *name);
        let problem = match (&mount.target, mount.problem()) {
            (_, Some(problem)) => problem,
            (Target::Protocol(name), None) if !knows(name) => {
                "the vhost has no protocol of that name"
            }
            _ if !seen.insert((prefix, mount.options.exact)) => "the prefix is mounted twice",
            _ if mount.options.hooked && config.hooks.is_none() => {
                "it is hooked, and the vhost has no hooks; give it a chain"
            }
            _ => continue,
        };
        let prefix = prefix.to_owned();
        return Err(VhostError::Mount { prefix, problem });
    }
    Ok(())
}

fn check_hooks(config: &VhostConfig) -> Result<(), VhostError> {
    match config.hooks.as_ref().and_then(HookChain::problem) {
        Some((name, problem)) => Err(VhostError::Hook { name, problem }),
        None => Ok(()),
    }
}

fn take_hooks(parts: &mut Parts, chain: Option<HookChain>, name: Option<&String>) -> Option<u32> {
    let name = name.cloned().unwrap_or_default();
    let index = parts.hooks.insert(ChainSlot::new(name, chain?));
    // As many chains as a u32 counts do not fit into memory.
    Some(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Pages and mounts as routes; the handlers go to the loop.
fn take_routes(
    parts: &mut Parts,
    pages: Vec<Page>,
    mounts: Vec<Mount>,
    protocols: &[VhostProtocol],
) -> Vec<Route> {
    let pages = pages.into_iter().map(|page| {
        let response = crate::handler::page(&page.content_type, &page.body);
        Mount::response(page.path, response).exact()
    });
    let mut routes = Vec::new();
    for mount in pages.chain(mounts) {
        let target = match mount.target {
            Target::Response(response) => RouteTarget::Response(response.into()),
            Target::Handler { key, dispatch } => {
                let index = parts.handlers.insert(Keyed { key, dispatch });
                // As many handlers as a u32 counts do not fit into memory.
                RouteTarget::Handler(u32::try_from(index).unwrap_or(u32::MAX))
            }
            Target::Protocol(name) => {
                let found = protocols.iter().find(|protocol| protocol.name == name);
                let Some(protocol) = found else { continue };
                RouteTarget::Protocol(protocol.index)
            }
        };
        routes.push(Route {
            prefix: mount.prefix,
            target,
            options: mount.options,
        });
    }
    routes
}

/// The handlers go to the loop; what they are found by stays.
fn take_http_clients(parts: &mut Parts, clients: Vec<Keyed<dyn FetchDispatch>>) -> Vec<(u64, u32)> {
    let place = |client: Keyed<dyn FetchDispatch>| {
        let key = client.key;
        let index = parts.http_clients.insert(client);
        // As many handlers as a u32 counts do not fit into memory.
        (key, u32::try_from(index).unwrap_or(u32::MAX))
    };
    clients.into_iter().map(place).collect()
}

/// A listener that is open and not in the loop yet.
struct NewListener {
    listener: Listener,
    address: SocketAddr,
    tls: Option<PlaintextPolicy>,
    names: NamePolicy,
}

fn take_over(inherited: TcpListener) -> Result<NewListener, VhostError> {
    let address = inherited.local_addr();
    let address = address.map_err(|source| VhostError::Bind {
        address: NOWHERE,
        source,
    })?;
    let taken = Listener::from_std(inherited);
    let listener = taken.map_err(|source| VhostError::Bind { address, source })?;
    Ok(NewListener {
        listener,
        address,
        tls: None,
        names: NamePolicy::ServeDefault,
    })
}

/// Stands for the address of a socket that does not tell its own.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The listener that is there already; one of an unknown port never is.
fn existing(parts: &Parts, address: SocketAddr) -> Option<(u32, u64)> {
    let mut slots = parts.listeners.iter();
    let same = |slot: &ListenerSlot| address.port() != 0 && slot.address == address;
    let found = slots.find(|(_, _, slot)| same(slot))?;
    Some((found.0, found.1))
}

fn check_shared(
    inner: &Inner,
    parts: &Parts,
    (index, generation): (u32, u64),
    names: &[NamePattern],
    default: bool,
) -> Result<(), VhostError> {
    let Some(slot) = parts.listeners.get(index, generation) else {
        return Ok(());
    };
    let address = slot.address;
    if default && slot.explicit_default {
        return Err(VhostError::TwoDefaults { address });
    }
    for vhost in slot.vhosts.iter().filter_map(|id| inner.vhost(*id)) {
        if let Some(name) = names.iter().find(|name| vhost.names.contains(name)) {
            let name = name.to_string();
            return Err(VhostError::NameTaken { name, address });
        }
    }
    Ok(())
}

/// What is asked of a listener that is there already must not be more than it does: a vhost that
/// wants TLS would be served without.
fn check_asked(
    parts: &Parts,
    (index, generation): (u32, u64),
    asked: &ListenConfig,
) -> Result<(), VhostError> {
    let Some(slot) = parts.listeners.get(index, generation) else {
        return Ok(());
    };
    if asked.tls.is_some() && (asked.tls != slot.tls || asked.names > slot.names) {
        let address = slot.address;
        return Err(VhostError::ListenerDiffers { address });
    }
    Ok(())
}

fn attach(parts: &mut Parts, id: VhostId, shared: &[(u32, u64)], default: bool) -> Vec<(u32, u64)> {
    for &(index, generation) in shared {
        if let Some(slot) = parts.listeners.get_mut(index, generation) {
            slot.vhosts.push(id);
            if default {
                slot.default = id;
                slot.explicit_default = true;
            }
        }
    }
    shared.to_vec()
}

fn open(
    parts: &mut Parts,
    id: VhostId,
    bound: Vec<NewListener>,
    explicit_default: bool,
    listeners: &mut Vec<(u32, u64)>,
) -> Result<(), VhostError> {
    for new in bound {
        let NewListener {
            listener,
            address,
            tls,
            names,
        } = new;
        let name = parts.listeners.insert(|_, _| ListenerSlot {
            listener,
            address,
            vhosts: vec![id],
            default: id,
            explicit_default,
            state: ListenerState::Active,
            tls,
            names,
        });
        let Some((index, generation)) = name else {
            detach(parts, id, listeners);
            return Err(VhostError::TooMany);
        };
        listeners.push((index, generation));
        let Some(slot) = parts.listeners.get_mut(index, generation) else {
            continue;
        };
        let token = Token::Listener { index, generation }.pack();
        if let Err(source) = parts.poller.register_listener(&mut slot.listener, token) {
            detach(parts, id, listeners);
            return Err(VhostError::Bind { address, source });
        }
    }
    Ok(())
}

fn take_protocols(
    parts: &mut Parts,
    configs: Vec<crate::config::ProtocolConfig>,
    default: Option<String>,
) -> (Vec<VhostProtocol>, Option<u32>) {
    let mut protocols = Vec::with_capacity(configs.len());
    for config in configs {
        let index = parts.protocols.insert(Keyed {
            key: config.key,
            dispatch: config.dispatch,
        });
        // As many protocols as a u32 counts do not fit into memory.
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        protocols.push(VhostProtocol {
            name: config.name,
            index,
        });
    }
    let named = |name: &String| protocols.iter().find(|protocol| protocol.name == *name);
    let chosen = match &default {
        Some(name) => named(name),
        None => protocols.first(),
    };
    let chosen = chosen.map(|protocol| protocol.index);
    (protocols, chosen)
}

/// Takes a vhost off its listeners; one that nobody is left on closes.
pub(crate) fn detach(parts: &mut Parts, id: VhostId, listeners: &[(u32, u64)]) {
    for &(index, generation) in listeners {
        let Some(slot) = parts.listeners.get_mut(index, generation) else {
            continue;
        };
        slot.vhosts.retain(|other| *other != id);
        match slot.vhosts.first() {
            Some(first) if slot.default == id => {
                slot.default = *first;
                slot.explicit_default = false;
            }
            Some(_) => {}
            None => drop(parts.listeners.remove(index, generation)),
        }
    }
}

/// Forgets a destroyed vhost whose last connection has gone, and drops its protocols.
pub(crate) fn bury(inner: &mut Inner, parts: &mut Parts, id: VhostId) {
    let done = inner
        .vhost(id)
        .is_some_and(|vhost| vhost.is_deserted() && vhost.state == VhostState::Going);
    if !done {
        return;
    }
    let Some(vhost) = inner.vhosts.remove(id.index, id.generation) else {
        return;
    };
    #[cfg(feature = "tls")]
    if let Some(timer) = vhost.upkeep_timer {
        inner.out.timers.cancel(timer);
    }
    let gone: Vec<u32> = vhost
        .protocols
        .iter()
        .map(|protocol| protocol.index)
        .collect();
    let routes = vhost.routes.iter();
    let handlers = routes.filter_map(|route| match route.target {
        RouteTarget::Handler(index) => Some(index),
        RouteTarget::Protocol(_) | RouteTarget::Response(_) => None,
    });
    let handlers: Vec<u32> = handlers.collect();
    let clients = vhost.http_clients.iter();
    let clients: Vec<u32> = clients.map(|(_, index)| *index).collect();
    inner.out.timers.cancel_matching(|kind| match kind {
        TimerKind::Free(Owner::Protocol(index), _) => gone.contains(&index),
        TimerKind::Free(Owner::Handler(index), _) => handlers.contains(&index),
        TimerKind::Free(Owner::Hook(place), _) => vhost.hooks == Some(place.chain),
        TimerKind::Free(Owner::HttpClient(index), _) => clients.contains(&index),
        _ => false,
    });
    let clients_of_hooks = vhost.hook_clients.into_iter();
    inner
        .commands
        .extend(clients_of_hooks.map(Command::DestroyVhost));
    if let Some(index) = vhost.hooks {
        drop(parts.hooks.try_remove(index as usize));
    }
    for index in clients {
        drop(parts.http_clients.try_remove(index as usize));
    }
    for index in handlers {
        drop(parts.handlers.try_remove(index as usize));
    }
    for index in gone {
        drop(parts.protocols.try_remove(index as usize));
    }
}

impl Vhost {
    fn is_deserted(&self) -> bool {
        self.live == 0 && self.fetches == 0
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Under(dotted) => write!(f, "*{dotted}"),
        }
    }
}

/// The TLS settings of a vhost, checked and made into what handshakes use.
struct TlsCells {
    #[cfg(feature = "tls")]
    server: Option<crate::tls::ServerCell>,
    #[cfg(feature = "tls")]
    client: Option<crate::tls::ClientCell>,
}

#[cfg(feature = "tls")]
impl TlsCells {
    fn new(parts: &mut Parts, config: &VhostConfig) -> Result<Self, VhostError> {
        use crate::tls::{ClientCell, ServerCell, TlsConfigError};

        let failed = |error: TlsConfigError| VhostError::Tls(Box::new(error));
        let mut cells = Self {
            server: None,
            client: None,
        };
        if let Some(tls) = &config.server_tls {
            let env = parts.tls_env().map_err(failed)?;
            cells.server = Some(ServerCell::new(tls.clone(), &env).map_err(failed)?);
        }
        if let Some(tls) = &config.client_tls {
            let env = parts.tls_env().map_err(failed)?;
            cells.client = Some(ClientCell::new(tls.clone(), &env).map_err(failed)?);
        }
        Ok(cells)
    }

    /// A pool whose connections are made under these settings.
    fn pool(&self, config: PoolConfig) -> VhostPool {
        let mut pool = VhostPool::new(config);
        if let Some(client) = &self.client {
            pool.retire(client.generation().into());
        }
        pool
    }

    /// A certificate for servers that no listener shows is a mistake, and a silent one: everything
    /// would go in the clear.
    fn check_use(&self, parts: &Parts, found: &Found) -> Result<(), VhostError> {
        let shared = found.shared.iter().filter_map(|name| {
            let slot = parts.listeners.get(name.0, name.1)?;
            Some((slot.address, slot.tls))
        });
        let bound = found.bound.iter().map(|new| (new.address, new.tls));
        let mut all = shared.chain(bound).peekable();
        let first = all.peek().copied();
        match first {
            Some((address, _)) if self.server.is_some() && all.all(|(_, tls)| tls.is_none()) => {
                Err(VhostError::ServerTlsUnused { address })
            }
            _ => Ok(()),
        }
    }

    /// A TLS listener needs a certificate, and one that serves plaintext too cannot belong to a
    /// vhost where everybody has to show one.
    fn check_listener(
        &self,
        address: SocketAddr,
        tls: Option<PlaintextPolicy>,
    ) -> Result<(), VhostError> {
        match (&self.server, tls) {
            (None, Some(_)) => Err(VhostError::NoServerTls { address }),
            (Some(server), _) => check_plaintext(address, tls, server),
            (None, None) => Ok(()),
        }
    }
}

/// Plaintext and a required certificate exclude each other.
#[cfg(feature = "tls")]
pub(crate) fn check_plaintext(
    address: SocketAddr,
    tls: Option<PlaintextPolicy>,
    server: &crate::tls::ServerCell,
) -> Result<(), VhostError> {
    let serves_plaintext = matches!(tls, None | Some(PlaintextPolicy::Serve));
    if serves_plaintext && server.configs().requires_client_cert() {
        return Err(VhostError::PlaintextWithRequired { address });
    }
    Ok(())
}

#[cfg(not(feature = "tls"))]
impl TlsCells {
    fn new(_: &mut Parts, _: &VhostConfig) -> Result<Self, VhostError> {
        Ok(Self {})
    }

    fn pool(&self, config: PoolConfig) -> VhostPool {
        VhostPool::new(config)
    }

    fn check_use(&self, _: &Parts, _: &Found) -> Result<(), VhostError> {
        Ok(())
    }

    fn check_listener(
        &self,
        address: SocketAddr,
        tls: Option<PlaintextPolicy>,
    ) -> Result<(), VhostError> {
        match tls {
            Some(_) => Err(VhostError::NoServerTls { address }),
            None => Ok(()),
        }
    }
}

fn plaintext_of(parts: &Parts, (index, generation): (u32, u64)) -> Option<PlaintextPolicy> {
    parts.listeners.get(index, generation)?.tls
}
