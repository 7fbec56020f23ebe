//! The server side of the opening handshake: from request bytes to a vhost, a protocol, a verdict
//! and an established connection.

mod answers;

use std::time::Duration;
#[cfg(feature = "tls")]
use std::time::Instant;

use crate::config::PlaintextPolicy;
#[cfg(feature = "tls")]
use crate::config::Settings;
use crate::conn::{Flags, NO_PROTOCOL, Phase, Role, SendHalf, WsRole};
use crate::error::{NotPending, RefusalReason};
use crate::exchange::Exchange;
use crate::hook::{Asking, Grant, HookPurpose};
use crate::http::HeaderList;
use crate::http::head::{HeadError, HeadLimits, HeadScanner, RequestHead};
use crate::http::response::Response;
use crate::id::{RequestId, VhostId};
use crate::inner::{Owner, VhostProtocol, VhostState};
use crate::lift::Lift;
use crate::mount::{RouteTarget, route};
use crate::protocol::{Accept, Established, Handshake, Refuse, Request, Subprotocol};
use crate::timer::{Moment, saturating_add};
use crate::ws::Close;
use crate::ws::handshake::{UpgradeError, UpgradeRequest, check_request, write_accept_with};
use crate::ws::recv::Recv;
use crate::wsi::{Cx, Wsi};

/// A server connection before it is upgraded.
#[derive(Debug)]
pub(crate) struct HttpRole {
    /// The listener it came through, whose vhosts it may reach.
    pub(crate) listener: (u32, u64),
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "TLS listeners only"))]
    accepted: Moment,
    scanner: HeadScanner,
    state: State,
    /// The first byte has not come, which says what a connection to a TLS listener is.
    pub(crate) sniffs: Option<PlaintextPolicy>,
    /// A plain connection to a TLS listener that wants to say so.
    pub(crate) rejects: bool,
    /// A plain connection to a TLS listener that sends its clients to `https`.
    pub(crate) redirects: bool,
    /// Why it ends, once that is known; told when the response has left.
    pub(crate) refused: Option<RefusalReason>,
    /// How many requests have been served, and whether the next one has begun.
    served: u32,
    /// How many questions to hooks there have been.
    asked: u32,
    is_idle: bool,
    /// Bytes were put aside that nobody has looked at as a request.
    unseen: bool,
}

#[derive(Debug)]
enum State {
    /// A hook thinks about the request.
    Asking(Box<Asking>),
    /// The application said what is to be done with the request.
    Decided(Box<Pending>, Box<Result<Accept, Refuse>>),
    /// A plain request is being served.
    Exchange(Box<Exchange>),
    /// The head is not complete.
    Head,
    /// A response is on its way; what the peer still sends is dropped.
    Responding,
    /// The application thinks about the request.
    Waiting(Box<Pending>),
}

/// An upgrade request that waits for a verdict.
#[derive(Debug)]
struct Pending {
    /// The request head, to be parsed again.
    head: Vec<u8>,
    /// What it was parsed with: the connection may have moved to a vhost that has others.
    limits: HeadLimits,
    choice: Choice,
    deadline: Duration,
}

/// What the subprotocols on offer selected.
#[derive(Debug)]
struct Choice {
    protocol: u32,
    selected: Option<String>,
    /// Headers that a hook gave to the response.
    headers: HeaderList,
}

impl HttpRole {
    pub(crate) fn new(
        listener: (u32, u64),
        sniffs: Option<PlaintextPolicy>,
        accepted: Moment,
    ) -> Self {
        Self {
            listener,
            accepted,
            scanner: HeadScanner::request(),
            state: State::Head,
            sniffs,
            rejects: false,
            redirects: false,
            refused: None,
            served: 0,
            asked: 0,
            is_idle: false,
            unseen: false,
        }
    }

    /// Whether it takes bytes. Ahead of its turn a request may come as far as a head goes: reading
    /// on is how a lost client is noticed.
    pub(crate) fn is_reading(&self, send: &SendHalf, aside: usize) -> bool {
        match &self.state {
            State::Head => send.tx.len() <= send.settings.limits.output_bytes,
            State::Responding => true,
            State::Exchange(exchange) if exchange.wants_body() => {
                !send.flags.contains(Flags::PAUSED)
            }
            State::Exchange(_) => aside < send.settings.limits.head.bytes,
            State::Asking(_) | State::Waiting(_) | State::Decided(..) => false,
        }
    }

    /// Whether bytes that were put aside are to be looked at now.
    pub(crate) fn wants_stash(&self) -> bool {
        match &self.state {
            State::Head => self.unseen,
            State::Exchange(exchange) => exchange.wants_body(),
            State::Responding => true,
            State::Asking(_) | State::Waiting(_) | State::Decided(..) => false,
        }
    }

    pub(crate) fn next_number(&mut self) -> u32 {
        self.served = self.served.wrapping_add(1);
        self.served
    }

    pub(crate) fn begin(&mut self, exchange: Exchange) {
        self.state = State::Exchange(Box::new(exchange));
    }

    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        match &mut self.state {
            State::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }

    pub(crate) fn exchange_place(&self) -> Option<(u32, usize)> {
        match &self.state {
            State::Exchange(exchange) => exchange.place(),
            _ => None,
        }
    }

    pub(crate) fn next_question(&mut self) -> u32 {
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// Waits for a hook.
    pub(crate) fn ask(&mut self, asking: Asking) {
        self.state = State::Asking(Box::new(asking));
    }

    pub(crate) fn asking_mut(&mut self) -> Option<&mut Asking> {
        match &mut self.state {
            State::Asking(asking) => Some(asking),
            _ => None,
        }
    }

    /// Ends the waiting; what comes of the request is decided next.
    pub(crate) fn take_asking(&mut self) -> Option<Box<Asking>> {
        self.asking_mut()?;
        match std::mem::replace(&mut self.state, State::Responding) {
            State::Asking(asking) => Some(asking),
            _ => None,
        }
    }

    /// A hook thinks about a request that is not for an upgrade.
    pub(crate) fn is_plain_asked(&self) -> bool {
        matches!(&self.state, State::Asking(asking) if asking.is_plain())
    }

    /// The next request may come.
    pub(crate) fn await_request(&mut self) {
        self.state = State::Head;
        self.scanner = HeadScanner::request();
        self.is_idle = true;
        self.unseen = true;
    }

    /// What is queued is the last.
    pub(crate) fn close(&mut self) {
        self.state = State::Responding;
    }

    /// Between two requests, of which the second has not begun.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle && matches!(self.state, State::Head)
    }

    pub(crate) fn has_served(&self) -> bool {
        self.served > 0
    }

    pub(crate) fn has_exchange(&self) -> bool {
        matches!(self.state, State::Exchange(_))
    }

    /// When a stage of the handshake that begins now has to be over: none makes the whole, from the
    /// accept to the request head, longer than the head's and the TLS handshake's time together.
    #[cfg(feature = "tls")]
    pub(crate) fn stage_ends(
        &self,
        now: Instant,
        limit: Duration,
        settings: &Settings,
    ) -> Option<Instant> {
        let Settings { home, timeouts, .. } = settings;
        let whole = timeouts.head.saturating_add(timeouts.tls);
        let accepted = home.epoch.instant(self.accepted);
        let whole = accepted.and_then(|accepted| saturating_add(accepted, whole));
        let stage = saturating_add(now, limit);
        [whole, stage].into_iter().flatten().min()
    }

    pub(crate) fn is_responding(&self) -> bool {
        matches!(self.state, State::Responding)
    }

    /// Whether the application thinks about the request, and nothing is read meanwhile.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Asking(_) | State::Waiting(_))
    }

    pub(crate) fn decide(&mut self, verdict: Result<Accept, Refuse>) -> Result<(), NotPending> {
        if !matches!(self.state, State::Waiting(_)) {
            return Err(NotPending);
        }
        if let State::Waiting(pending) = std::mem::replace(&mut self.state, State::Responding) {
            self.state = State::Decided(pending, Box::new(verdict));
        }
        Ok(())
    }
}

impl Lift<'_> {
    /// Bytes of a request; how many are done.
    pub(crate) fn on_request_bytes(&mut self, input: &[u8]) -> usize {
        let send = &mut self.conn.send;
        let limits = send.settings.limits.head;
        let Role::Http(http) = &mut self.conn.role else {
            return 0;
        };
        match &http.state {
            State::Head => {}
            State::Responding => return input.len(),
            State::Exchange(exchange) if exchange.wants_body() => return self.on_body_bytes(input),
            State::Asking(_) | State::Exchange(_) | State::Waiting(_) | State::Decided(..) => {
                return 0;
            }
        }
        http.unseen = send.tx.len() > send.settings.limits.output_bytes;
        if http.unseen {
            // The answers to the requests before this one come first.
            return 0;
        }
        if std::mem::take(&mut http.is_idle) {
            let limit = send.settings.timeouts.head;
            send.deadlines.stage = saturating_add(self.inner.out.now, limit);
        }
        let rejects = http.rejects;
        if rejects && self.is_foreign(input) {
            return input.len();
        }
        let Role::Http(http) = &mut self.conn.role else {
            return 0;
        };
        match http.scanner.scan_to_parse(input, &limits) {
            Ok(None) => 0,
            Ok(Some(len)) => {
                self.on_request(input.get(..len).unwrap_or_default());
                len
            }
            Err(error) => {
                if rejects {
                    self.reject_plaintext();
                } else {
                    self.refuse_head(error);
                }
                input.len()
            }
        }
    }

    /// Says to somebody who speaks HTTP that this port speaks TLS.
    fn reject_plaintext(&mut self) {
        self.respond(400, &[], b"this port speaks TLS: use https or wss\n");
        self.refused(RefusalReason::Plaintext);
    }

    fn refuse_head(&mut self, error: HeadError) {
        let body = format!("{error}\n");
        self.respond(error.status(), &[], body.as_bytes());
        self.refused(RefusalReason::Head(error));
    }

    fn on_request(&mut self, bytes: &[u8]) {
        let limits = self.conn.send.settings.limits.head;
        if matches!(&self.conn.role, Role::Http(http) if http.rejects) {
            return self.reject_plaintext();
        }
        let head = match RequestHead::parse(bytes, &limits) {
            Ok(head) => head,
            Err(error) => return self.refuse_head(error),
        };
        if let Role::Http(http) = &self.conn.role {
            if http.redirects {
                return self.redirect(&head);
            }
        }
        if !self.choose_vhost(head.host()) {
            // RFC 9110 section 15.5.20.
            self.respond(421, &[], b"this connection was made for another host\n");
            return self.refused(RefusalReason::Misdirected);
        }
        let own = self.conn.send.settings.limits.head;
        if own != limits {
            // The default vhost may have let pass what the one that is named does not.
            if let Err(error) = RequestHead::parse(bytes, &own) {
                return self.refuse_head(error);
            }
        }
        let upgrade = match check_request(&head) {
            Ok(upgrade) => upgrade,
            Err(UpgradeError::NotAnUpgrade) if self.has_routes() => {
                return self.on_plain_request(bytes, limits, &head);
            }
            Err(UpgradeError::NotAnUpgrade) => return self.answer_plain(&head),
            Err(error) => {
                let text = format!("{error}\n");
                self.respond(error.status(), error.headers(), text.as_bytes());
                return self.refused(RefusalReason::Upgrade(error));
            }
        };
        if self.is_full() {
            self.respond(503, &[], b"too many connections\n");
            return self.refused(RefusalReason::TooManyConnections);
        }
        let Some(choice) = self.choose_protocol(&upgrade, head.path(), None) else {
            self.respond(404, &[], b"no WebSocket protocol is served here\n");
            return self.refused(RefusalReason::PlainHttp(404));
        };
        if let Err(response) = self.admit(&head) {
            self.refuse(&Refuse::from(*response));
            return;
        }
        let vhost = self.inner.vhost(self.conn.send.vhost());
        match vhost.and_then(|vhost| vhost.hooks) {
            Some(chain) => self.ask_hooks(chain, bytes, limits, &head, HookPurpose::Upgrade),
            None => self.ask_protocol(bytes, limits, &upgrade, choice),
        }
    }

    /// An upgrade that the hooks have allowed: the protocol decides.
    pub(crate) fn upgrade_allowed(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
        head: &RequestHead<'_>,
        grant: Grant,
    ) {
        // Both were checked before any hook was asked.
        let Ok(upgrade) = check_request(head) else {
            return;
        };
        let chosen = grant.subprotocol.as_deref();
        let Some(mut choice) = self.choose_protocol(&upgrade, head.path(), chosen) else {
            return;
        };
        choice.headers = grant.headers;
        if !grant.attributes.is_empty() {
            self.conn.send.rare().attributes = grant.attributes;
        }
        self.ask_protocol(bytes, limits, &upgrade, choice);
    }

    fn ask_protocol(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
        upgrade: &UpgradeRequest<'_>,
        choice: Choice,
    ) {
        let head = upgrade.head();
        match self.filter(head, upgrade, &choice) {
            Ok(accept) if accept.later.is_some() => self.wait(bytes, limits, choice, &accept),
            verdict => self.answer_upgrade(head, upgrade, choice, verdict),
        }
    }

    /// RFC 9110 section 7.2: the host that the request is for chooses among the vhosts of the
    /// listener; one that nobody is named for goes to the default. Over TLS the choice was made by
    /// the handshake: whether the request is for somebody else.
    fn choose_vhost(&mut self, host: Option<&str>) -> bool {
        let Role::Http(http) = &self.conn.role else {
            return true;
        };
        let (index, generation) = http.listener;
        let Some(slot) = self.parts.listeners.get(index, generation) else {
            return true;
        };
        let host = host.map(|host| {
            let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            inner.unwrap_or(host)
        });
        let named = host.and_then(|host| slot.best_vhost(&self.inner.vhosts, host));
        let named = named.map(|(vhost, _)| vhost);
        if self.conn.io.as_ref().is_some_and(|io| io.secure.is_some()) {
            return named.is_none_or(|named| named == self.conn.send.vhost());
        }
        // Also when a request before this one has been for another one.
        self.move_to_vhost(named.unwrap_or(slot.default));
        true
    }

    /// Makes it a connection of another vhost, with that one's limits.
    pub(crate) fn move_to_vhost(&mut self, chosen: VhostId) {
        let send = &mut self.conn.send;
        if chosen == send.vhost() {
            return;
        }
        if let Some(old) = self.inner.vhost_mut(send.vhost()) {
            old.live -= 1;
        }
        if let Some(new) = self.inner.vhost_mut(chosen) {
            new.live += 1;
            send.settings = std::sync::Arc::clone(&new.settings);
        }
        self.mark_lifted();
    }

    /// Sends a plain request to the same place over TLS, on the same port.
    fn redirect(&mut self, head: &RequestHead<'_>) {
        let port = self
            .conn
            .io
            .as_ref()
            .and_then(|io| io.stream.local_addr().ok());
        let port = port.map_or(443, |address| address.port());
        let host = head.host().unwrap_or("localhost");
        let target = if head.target().starts_with('/') {
            head.target()
        } else {
            "/"
        };
        let location = match port {
            443 => format!("https://{host}{target}"),
            _ => format!("https://{host}:{port}{target}"),
        };
        self.respond(308, &[("Location", &location)], b"");
        // What the listener is there for has happened: nothing was refused.
        self.arm_last_words();
        if let Role::Http(http) = &mut self.conn.role {
            http.state = State::Responding;
        }
    }

    fn is_full(&self) -> bool {
        let Some(vhost) = self.inner.vhost(self.conn.send.vhost()) else {
            return true;
        };
        vhost.state != VhostState::Active
            || self.inner.shutting_down
            || vhost.live > vhost.settings.limits.connections
    }

    /// The protocol that is mounted on the path, if any is mounted; else the first one of the
    /// vhost that the client offers, else the default one. A hook may have `chosen` one of the
    /// offers.
    fn choose_protocol(
        &self,
        upgrade: &UpgradeRequest<'_>,
        path: &str,
        chosen: Option<&str>,
    ) -> Option<Choice> {
        let vhost = self.inner.vhost(self.conn.send.vhost())?;
        let offers = |name: &str| match chosen {
            Some(chosen) => chosen == name,
            None => upgrade.offered().any(|offer| offer == name),
        };
        let choice = |protocol: &VhostProtocol| {
            let own = offers(&protocol.name).then_some(protocol.name.as_str());
            Choice {
                protocol: protocol.index,
                selected: chosen.or(own).map(str::to_owned),
                headers: HeaderList::new(),
            }
        };
        let mut mine = vhost.protocols.iter();
        if vhost.has_protocol_routes() {
            let (route, _) = route(&vhost.routes, path)?;
            let RouteTarget::Protocol(index) = route.target else {
                return None;
            };
            return mine.find(|protocol| protocol.index == index).map(choice);
        }
        let found = mine.find(|protocol| offers(&protocol.name)).map(choice);
        found.or_else(|| {
            let protocol = vhost.default_protocol?;
            Some(Choice {
                protocol,
                selected: chosen.map(str::to_owned),
                headers: HeaderList::new(),
            })
        })
    }

    /// Whether the mount of the protocol, if it has one, lets the request in.
    fn admit(&self, head: &RequestHead<'_>) -> Result<(), Box<Response>> {
        match self.inner.vhost(self.conn.send.vhost()) {
            Some(vhost) if vhost.has_protocol_routes() => {
                let found = route(&vhost.routes, head.path());
                found.map_or(Ok(()), |(route, _)| {
                    route.options.admit(head, self.transport())
                })
            }
            _ => Ok(()),
        }
    }

    fn has_routes(&self) -> bool {
        let vhost = self.inner.vhost(self.conn.send.vhost());
        vhost.is_some_and(|vhost| !vhost.routes.is_empty())
    }

    fn filter(
        &mut self,
        head: &RequestHead<'_>,
        upgrade: &UpgradeRequest<'_>,
        choice: &Choice,
    ) -> Result<Accept, Refuse> {
        let (Some(io), Some(protocol)) = (
            &self.conn.io,
            self.parts.protocols.get_mut(choice.protocol as usize),
        ) else {
            return Err(Refuse::new(503));
        };
        let request = Request {
            id: RequestId {
                wsi: self.conn.send.id,
            },
            vhost: self.conn.send.vhost(),
            peer: io.peer(),
            head,
            upgrade,
            selected: choice.selected.as_deref(),
            attributes: self.conn.send.attributes(),
            io,
        };
        let mut cx = Cx::new(self.inner, Owner::Protocol(choice.protocol));
        protocol.dispatch.filter(&mut cx, &request)
    }

    fn wait(&mut self, head: &[u8], limits: HeadLimits, choice: Choice, accept: &Accept) {
        let default = self.conn.send.settings.timeouts.verdict;
        let deadline = accept.later.flatten().unwrap_or(default);
        self.conn.send.deadlines.stage = saturating_add(self.inner.out.now, deadline);
        if let Role::Http(http) = &mut self.conn.role {
            http.state = State::Waiting(Box::new(Pending {
                head: head.to_vec(),
                limits,
                choice,
                deadline,
            }));
        }
    }

    /// Carries out a verdict that came later.
    pub(crate) fn apply_verdict(&mut self) {
        let Role::Http(http) = &mut self.conn.role else {
            return;
        };
        if !matches!(http.state, State::Decided(..)) {
            return;
        }
        let decided = std::mem::replace(&mut http.state, State::Responding);
        let State::Decided(mut pending, verdict) = decided else {
            return;
        };
        if let Some(deadline) = verdict
            .as_ref()
            .as_ref()
            .ok()
            .and_then(|accept| accept.later)
        {
            pending.deadline = deadline.unwrap_or(self.conn.send.settings.timeouts.verdict);
            self.conn.send.deadlines.stage = saturating_add(self.inner.out.now, pending.deadline);
            http.state = State::Waiting(pending);
            return;
        }
        // The head was parsed and checked before; it is the same bytes.
        let Ok(head) = RequestHead::parse(&pending.head, &pending.limits) else {
            return;
        };
        let Ok(upgrade) = check_request(&head) else {
            return;
        };
        self.answer_upgrade(&head, &upgrade, pending.choice, *verdict);
    }

    fn answer_upgrade(
        &mut self,
        head: &RequestHead<'_>,
        upgrade: &UpgradeRequest<'_>,
        choice: Choice,
        verdict: Result<Accept, Refuse>,
    ) {
        let accept = match verdict {
            Ok(accept) => accept,
            Err(refuse) => return self.refuse(&refuse),
        };
        let subprotocol = match &accept.subprotocol {
            Subprotocol::None => None,
            Subprotocol::Selected => choice.selected.as_deref(),
            Subprotocol::Named(name) if upgrade.offered().any(|offer| offer == name) => {
                Some(name.as_str())
            }
            // RFC 6455 section 4.2.2: the server can only choose what the client offered.
            Subprotocol::Named(name) => return self.refuse_subprotocol(name),
        };
        let extensions = self.agree_on_extensions(head, &accept);
        let extensions = extensions.as_deref();
        let mut headers = choice.headers;
        headers.extend(&accept.headers);
        let tx = &mut self.conn.send.tx;
        tx.append(&mut self.inner.out.pool, |tail| {
            write_accept_with(tail, &upgrade.accept, subprotocol, extensions, &headers);
        });
        let refused = self.establish(choice.protocol, Handshake::Request(head), subprotocol);
        if let Some(close) = refused {
            self.send_last_words(&close);
        }
    }

    /// Makes the connection a WebSocket and tells its protocol; what that answers if it does not
    /// want it.
    pub(crate) fn establish(
        &mut self,
        protocol: u32,
        head: Handshake<'_>,
        subprotocol: Option<&str>,
    ) -> Option<Close> {
        let send = &mut self.conn.send;
        send.protocol = protocol;
        send.phase = Phase::Open;
        send.deadlines.stage = None;
        // While a verdict was awaited nothing was read: the silence was ours.
        send.last_received = self.inner.out.moment;
        if let Some(name) = subprotocol {
            send.rare().subprotocol = Some(name.into());
        }
        let bound = self.parts.protocols.get_mut(protocol as usize)?;
        let attributes = send.attributes().clone();
        let how = Established {
            head,
            subprotocol,
            attributes: &attributes,
            #[cfg(feature = "deflate")]
            deflate: send.deflate(),
        };
        let mut wsi = Wsi::new(self.inner, send, self.conn.io.as_mut());
        match bound.dispatch.established(&mut wsi, &how) {
            Ok(session) => {
                self.conn.role = Role::Ws(WsRole {
                    recv: self.conn.send.receiver(),
                    session,
                });
                self.mark_lifted();
                None
            }
            Err(close) => Some(close),
        }
    }

    /// Sends a Close frame to a peer that nobody wants, and expects nothing more of it.
    pub(crate) fn send_last_words(&mut self, close: &Close) {
        let send = &mut self.conn.send;
        send.close(
            &mut self.inner.out,
            close,
            crate::error::CloseKind::Application,
        );
        send.phase = Phase::Failed;
        send.protocol = NO_PROTOCOL;
        self.conn.role = Role::Ws(WsRole {
            recv: Recv::default(),
            session: NO_SESSION,
        });
    }
}

/// A place where no protocol keeps a session.
pub(crate) const NO_SESSION: usize = usize::MAX;
