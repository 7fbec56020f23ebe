//! The server side of the opening handshake: from request bytes to a vhost, a protocol, a verdict
//! and an established connection.

use std::borrow::Cow;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use crate::config::Timeouts;
use crate::config::{Page, PlaintextPolicy};
use crate::conn::{NO_PROTOCOL, Phase, Role, WsRole};
use crate::error::{Deadline, DeadlineStage, NotPending, RefusalReason, ServerRefusal};
use crate::http::HeaderList;
use crate::http::body::Framing;
use crate::http::head::{HeadLimits, HeadScanner, RequestHead};
use crate::http::write_response;
use crate::id::{RequestId, VhostId};
use crate::inner::VhostState;
use crate::lift::Lift;
use crate::protocol::{Accept, Established, Handshake, Refuse, Request, Subprotocol};
use crate::timer::saturating_add;
use crate::ws::Close;
use crate::ws::handshake::{
    UpgradeError, UpgradeRequest, check_request, write_accept, write_refusal,
};
use crate::ws::recv::Recv;
use crate::wsi::{Cx, Wsi};

/// A server connection before it is upgraded.
#[derive(Debug)]
pub(crate) struct HttpRole {
    /// The listener it came through, whose vhosts it may reach.
    pub(crate) listener: (u32, u64),
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "TLS listeners only"))]
    accepted: Instant,
    scanner: HeadScanner,
    state: State,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "TLS listeners only"))]
    /// The first byte has not come, which says what a connection to a TLS listener is.
    pub(crate) sniffs: Option<PlaintextPolicy>,
    /// A plain connection to a TLS listener that wants to say so.
    pub(crate) rejects: bool,
    /// A plain connection to a TLS listener that sends its clients to `https`.
    pub(crate) redirects: bool,
    /// Why it ends, once that is known; told when the response has left.
    pub(crate) refused: Option<RefusalReason>,
}

#[derive(Debug)]
enum State {
    /// The application said what is to be done with the request.
    Decided(Box<Pending>, Box<Result<Accept, Refuse>>),
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
}

impl HttpRole {
    pub(crate) fn new(
        listener: (u32, u64),
        sniffs: Option<PlaintextPolicy>,
        accepted: Instant,
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
        }
    }

    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.state, State::Head | State::Responding)
    }

    /// When a stage of the handshake that begins now has to be over: none makes the whole, from the
    /// accept to the request head, longer than the head's and the TLS handshake's time together.
    #[cfg(feature = "tls")]
    pub(crate) fn stage_ends(
        &self,
        now: Instant,
        limit: Duration,
        timeouts: &Timeouts,
    ) -> Option<Instant> {
        let whole = timeouts.head.saturating_add(timeouts.tls);
        let whole = saturating_add(self.accepted, whole);
        let stage = saturating_add(now, limit);
        [whole, stage].into_iter().flatten().min()
    }

    pub(crate) fn is_responding(&self) -> bool {
        matches!(self.state, State::Responding)
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
        let limits = self.conn.send.settings.limits.head;
        let Role::Http(http) = &mut self.conn.role else {
            return 0;
        };
        match http.state {
            State::Head => {}
            State::Responding => return input.len(),
            State::Waiting(_) | State::Decided(..) => return 0,
        }
        match http.scanner.scan(input, &limits) {
            Ok(None) => 0,
            Ok(Some(len)) => {
                self.on_request(input.get(..len).unwrap_or_default());
                len
            }
            Err(error) => {
                let body = format!("{error}\n");
                self.respond(error.status(), &[], body.as_bytes());
                self.refused(RefusalReason::Head(error));
                input.len()
            }
        }
    }

    fn on_request(&mut self, bytes: &[u8]) {
        let limits = self.conn.send.settings.limits.head;
        let head = match RequestHead::parse(bytes, &limits) {
            Ok(head) => head,
            Err(error) => {
                let body = format!("{error}\n");
                self.respond(error.status(), &[], body.as_bytes());
                return self.refused(RefusalReason::Head(error));
            }
        };
        if let Role::Http(http) = &self.conn.role {
            if http.rejects {
                self.respond(400, &[], b"this port speaks TLS: use https or wss\n");
                return self.refused(RefusalReason::Plaintext);
            }
            if http.redirects {
                return self.redirect(&head);
            }
        }
        if !self.choose_vhost(head.host()) {
            // RFC 9110 section 15.5.20.
            self.respond(421, &[], b"this connection was made for another host\n");
            return self.refused(RefusalReason::Misdirected);
        }
        let upgrade = match check_request(&head) {
            Ok(upgrade) => upgrade,
            Err(UpgradeError::NotAnUpgrade) => return self.answer_plain(&head),
            Err(error) => {
                let tx = &mut self.conn.send.tx;
                tx.append(&mut self.inner.out.pool, |tail| write_refusal(tail, &error));
                return self.refused(RefusalReason::Upgrade(error));
            }
        };
        if self.is_full() {
            self.respond(503, &[], b"too many connections\n");
            return self.refused(RefusalReason::TooManyConnections);
        }
        let Some(choice) = self.choose_protocol(&upgrade) else {
            self.respond(404, &[], b"no WebSocket protocol is served here\n");
            return self.refused(RefusalReason::PlainHttp(404));
        };
        let verdict = self.filter(&head, &upgrade, &choice);
        match verdict {
            Ok(accept) if accept.later.is_some() => self.wait(bytes, limits, choice, &accept),
            verdict => self.answer_upgrade(&head, &upgrade, &choice, verdict),
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
        let (Some(host), Some(slot)) = (host, self.parts.listeners.get(index, generation)) else {
            return true;
        };
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let Some((chosen, _)) = slot.best_vhost(&self.inner.vhosts, host) else {
            return true;
        };
        if self.conn.io.as_ref().is_some_and(|io| io.secure.is_some()) {
            return chosen == self.conn.send.vhost;
        }
        self.move_to_vhost(chosen);
        true
    }

    /// Makes it a connection of another vhost, with that one's limits.
    pub(crate) fn move_to_vhost(&mut self, chosen: VhostId) {
        let send = &mut self.conn.send;
        if chosen == send.vhost {
            return;
        }
        if let Some(old) = self.inner.vhost_mut(send.vhost) {
            old.live -= 1;
        }
        if let Some(new) = self.inner.vhost_mut(chosen) {
            new.live += 1;
            send.settings = std::sync::Arc::clone(&new.settings);
            send.vhost = chosen;
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
        self.refused(RefusalReason::Plaintext);
    }

    fn is_full(&self) -> bool {
        let Some(vhost) = self.inner.vhost(self.conn.send.vhost) else {
            return true;
        };
        vhost.state != VhostState::Active
            || self.inner.shutting_down
            || vhost.live > vhost.settings.limits.connections
    }

    /// The first protocol of the vhost that the client offers, else the default one.
    fn choose_protocol(&self, upgrade: &UpgradeRequest<'_>) -> Option<Choice> {
        let vhost = self.inner.vhost(self.conn.send.vhost)?;
        let mine = vhost.protocols.iter();
        let found = mine
            .filter(|protocol| upgrade.offered().any(|name| name == protocol.name))
            .map(|protocol| Choice {
                protocol: protocol.index,
                selected: Some(protocol.name.clone()),
            })
            .next();
        found.or_else(|| {
            let protocol = vhost.default_protocol?;
            Some(Choice {
                protocol,
                selected: None,
            })
        })
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
            vhost: self.conn.send.vhost,
            peer: io.peer,
            head,
            upgrade,
            selected: choice.selected.as_deref(),
            io,
        };
        let mut cx = Cx::new(self.inner, choice.protocol);
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
        self.answer_upgrade(&head, &upgrade, &pending.choice, *verdict);
    }

    fn answer_upgrade(
        &mut self,
        head: &RequestHead<'_>,
        upgrade: &UpgradeRequest<'_>,
        choice: &Choice,
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
            Subprotocol::Named(_) => return self.refuse(&Refuse::new(500)),
        };
        let tx = &mut self.conn.send.tx;
        tx.append(&mut self.inner.out.pool, |tail| {
            write_accept(tail, &upgrade.accept, subprotocol, &accept.headers);
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
        if let Some(name) = subprotocol {
            send.rare().subprotocol = Some(name.into());
        }
        let bound = self.parts.protocols.get_mut(protocol as usize)?;
        let how = Established { head, subprotocol };
        let mut wsi = Wsi::new(self.inner, send, self.conn.io.as_mut());
        match bound.dispatch.established(&mut wsi, &how) {
            Ok(session) => {
                self.conn.role = Role::Ws(WsRole {
                    recv: Recv::default(),
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

    fn refuse(&mut self, refuse: &Refuse) {
        self.respond_with(refuse.status, &refuse.headers, &refuse.body);
        self.refused(RefusalReason::Protocol(refuse.status));
    }

    /// A plain HTTP request: a page of the vhost, or the word that this is a WebSocket server.
    fn answer_plain(&mut self, head: &RequestHead<'_>) {
        let send = &mut self.conn.send;
        let vhost = self
            .inner
            .vhosts
            .get(send.vhost.index, send.vhost.generation);
        let pages: &[Page] = vhost.map_or(&[], |vhost| &vhost.pages);
        let plain = PlainAnswer::to(head, pages);
        let status = plain.status;
        let is_head = head.method() == "HEAD";
        send.tx
            .append(&mut self.inner.out.pool, |tail| plain.write(tail, is_head));
        self.refused(RefusalReason::PlainHttp(status));
    }

    fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let kind = [("Content-Type", TEXT)];
        let all = kind.iter().chain(headers).copied();
        let tx = &mut self.conn.send.tx;
        tx.append(&mut self.inner.out.pool, |tail| {
            write_response(tail, status, all, body)
        });
    }

    fn respond_with(&mut self, status: u16, headers: &HeaderList, body: &[u8]) {
        let tx = &mut self.conn.send.tx;
        tx.append(&mut self.inner.out.pool, |tail| {
            write_response(tail, status, headers.iter(), body);
        });
    }

    /// The response is queued; the connection ends when it has left.
    pub(crate) fn refused(&mut self, reason: RefusalReason) {
        self.arm_last_words();
        if let Role::Http(http) = &mut self.conn.role {
            http.state = State::Responding;
            http.refused = Some(reason);
        }
    }

    /// What is queued is the last: the peer has the time of a close to take it, and for a long
    /// response what that takes at the lowest rate.
    fn arm_last_words(&mut self) {
        let send = &mut self.conn.send;
        let earned = Duration::from_secs((send.tx.len() / SLOWEST_READER) as u64);
        let limit = send.settings.timeouts.close.saturating_add(earned);
        send.deadlines.stage = saturating_add(self.inner.out.now, limit);
    }

    /// The head, the verdict or the response took too long.
    pub(crate) fn time_out_request(&mut self) {
        let Role::Http(http) = &self.conn.role else {
            return;
        };
        let timeouts = &self.conn.send.settings.timeouts;
        if self.is_in_tls_handshake() && !http.is_responding() {
            let deadline = Deadline::new(DeadlineStage::Tls, timeouts.tls);
            return self.end_unanswered(RefusalReason::Timeout(deadline));
        }
        let (status, deadline) = match &http.state {
            State::Head => (408, Deadline::new(DeadlineStage::Head, timeouts.head)),
            State::Waiting(pending) | State::Decided(pending, _) => {
                (503, Deadline::new(DeadlineStage::Verdict, pending.deadline))
            }
            State::Responding => {
                self.end_now();
                return;
            }
        };
        self.respond(status, &[], b"");
        self.refused(RefusalReason::Timeout(deadline));
    }

    /// A shutdown or the end of the vhost meets a request.
    pub(crate) fn turn_away(&mut self) {
        let Role::Http(http) = &self.conn.role else {
            return;
        };
        if http.is_responding() {
            return;
        }
        if self.is_in_tls_handshake() {
            return self.end_unanswered(RefusalReason::Shutdown);
        }
        self.respond(503, &[], b"the server is shutting down\n");
        self.refused(RefusalReason::Shutdown);
    }

    /// Ends a connection that cannot be answered, for its TLS handshake is not complete.
    fn end_unanswered(&mut self, reason: RefusalReason) {
        self.refused(reason);
        self.end_now();
    }

    /// Tells the observer about a connection that no protocol owned.
    pub(crate) fn report_refusal(&mut self) {
        let (Role::Http(http), Some(io)) = (&mut self.conn.role, &self.conn.io) else {
            return;
        };
        let Some(reason) = http.refused.take() else {
            return;
        };
        if matches!(reason, RefusalReason::PlainHttp(200)) {
            return;
        }
        let refusal = ServerRefusal {
            id: self.conn.send.id,
            peer: io.peer,
            vhost: Some(self.conn.send.vhost),
            reason,
        };
        let mut cx = Cx::new(self.inner, NO_PROTOCOL);
        self.parts.observer.on_refused(&mut cx, &refusal);
    }
}

/// The answer to a request that is not an upgrade.
struct PlainAnswer<'a> {
    status: u16,
    headers: &'a [(&'a str, &'a str)],
    content_type: &'a str,
    body: Cow<'a, [u8]>,
}

impl<'a> PlainAnswer<'a> {
    fn to(head: &RequestHead<'_>, pages: &'a [Page]) -> Self {
        if let Err(error) = Framing::of_request(head) {
            return Self::text(error.status(), &[], format!("{error}\n"));
        }
        let page = pages.iter().find(|page| page.path == head.path());
        match (page, head.method()) {
            (Some(page), "GET" | "HEAD") => Self {
                status: 200,
                headers: &[],
                content_type: &page.content_type,
                body: Cow::Borrowed(&page.body),
            },
            (Some(_), _) => {
                Self::text(405, &[("Allow", "GET, HEAD")], "GET and HEAD only\n".into())
            }
            (None, _) if pages.is_empty() => {
                let error = UpgradeError::NotAnUpgrade;
                Self::text(error.status(), error.headers(), format!("{error}\n"))
            }
            (None, _) => Self::text(404, &[], "not found\n".into()),
        }
    }

    fn text(status: u16, headers: &'a [(&'a str, &'a str)], body: String) -> Self {
        Self {
            status,
            headers,
            content_type: TEXT,
            body: Cow::Owned(body.into_bytes()),
        }
    }

    /// RFC 9110 section 9.3.2: the answer to HEAD has the header of the one to GET and no body.
    fn write(&self, out: &mut Vec<u8>, is_head: bool) {
        let kind = [("Content-Type", self.content_type)];
        let headers = kind.iter().chain(self.headers).copied();
        write_response(out, self.status, headers, &self.body);
        if is_head {
            out.truncate(out.len() - self.body.len());
        }
    }
}

/// Bytes a second at which a last response has to be taken, at least.
const SLOWEST_READER: usize = 4096;
const TEXT: &str = "text/plain; charset=utf-8";
/// A place where no protocol keeps a session.
pub(crate) const NO_SESSION: usize = usize::MAX;
