//! The server side of plain HTTP: one exchange after the other on a connection that persists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conn::{Conn, Flags, Role, SendHalf};
use crate::error::{CloseKind, Deadline, DeadlineStage, RefusalReason};
use crate::handler::{ExchangeOutcome, Http, HttpDispatch, HttpFailure, HttpRequest, Responder};
use crate::hook::{Attributes, Grant, HookPurpose};
use crate::http::HeaderList;
use crate::http::body::{BodyDecoder, BodyError, Framing};
use crate::http::head::{HeadLimits, HttpVersion, RequestHead};
use crate::http::origin::Transport;
use crate::http::response::{CONTINUE, Response, ResponseHalf, is_framing_field};
use crate::id::{ExchangeId, TimerTag};
use crate::inner::{Owner, VhostState};
use crate::lift::Lift;
use crate::mount::{Route, RouteTarget, route};
use crate::net::transport::ReadEnd;
use crate::protocol::Refuse;
use crate::timer::saturating_add;
use crate::upgrade::HttpRole;
use crate::ws::handshake::UpgradeError;
use crate::wsi::Cx;

/// A request whose response is not complete, or whose body is not.
#[derive(Debug)]
pub(crate) struct Exchange {
    id: ExchangeId,
    /// Index of the handler, and where it keeps its state; `None` when no handler is to be called
    /// (any more).
    place: Option<(u32, usize)>,
    response: ResponseHalf,
    body: BodyDecoder,
    body_limit: u64,
    /// Bytes of the body so far.
    seen: u64,
    /// Bytes of the body that came after the response was complete.
    drained: usize,
    is_draining: bool,
    /// When the body began to be waited for, later by all the time that nobody wanted it.
    began: Instant,
    paused: Option<Instant>,
    read_closed: bool,
    /// Why it ended, where that is not the end of the connection.
    outcome: Option<ExchangeOutcome>,
}

impl Exchange {
    pub(crate) const fn place(&self) -> Option<(u32, usize)> {
        self.place
    }

    pub(crate) fn response_of(&mut self, id: ExchangeId) -> Option<&mut ResponseHalf> {
        let is_open = self.id == id && self.place.is_some() && !self.response.is_done();
        is_open.then_some(&mut self.response)
    }

    /// Whether bytes that come now belong to it.
    pub(crate) fn wants_body(&self) -> bool {
        !self.body.is_done()
    }

    pub(crate) fn close_after(&mut self) {
        self.response.close_after();
    }

    /// While the handler does not want the body, its sender is not slow.
    fn note_pause(&mut self, send: &mut SendHalf, now: Instant) {
        let is_paused = send.flags.contains(Flags::PAUSED);
        match self.paused {
            None if is_paused => {
                self.paused = Some(now);
                send.deadlines.stage = None;
            }
            Some(since) if !is_paused => {
                self.paused = None;
                let waited = now.saturating_duration_since(since);
                self.began = saturating_add(self.began, waited).unwrap_or(now);
                // The next look at it is then; what has come meanwhile counts.
                send.deadlines.stage = saturating_add(self.began, send.settings.timeouts.body);
            }
            None | Some(_) => {}
        }
    }
}

/// What serves a request.
struct Found {
    target: RouteTarget,
    /// Length of the mount's prefix in the path.
    prefix: usize,
    body_limit: u64,
    /// What the mount adds to all responses.
    headers: Arc<HeaderList>,
    /// The hooks decide about it.
    hooked: bool,
}

impl Found {
    fn refusal(response: Response) -> Self {
        Self {
            target: RouteTarget::Response(response.into()),
            prefix: 0,
            body_limit: u64::MAX,
            headers: Arc::default(),
            hooked: false,
        }
    }
}

impl Lift<'_> {
    /// A request that is not for an upgrade.
    pub(crate) fn on_plain_request(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
        head: &RequestHead<'_>,
    ) {
        let framing = match Framing::of_request(head) {
            Ok(framing) => framing,
            Err(error) => {
                self.respond_text(error.status(), &format!("{error}\n"));
                return self.refused(RefusalReason::Body(error));
            }
        };
        if !self.is_serving() {
            self.respond_text(503, "too many connections\n");
            return self.refused(RefusalReason::TooManyConnections);
        }
        let found = self.find_route(head);
        let vhost = self.inner.vhost(self.conn.send.vhost());
        let hooks = vhost.and_then(|vhost| vhost.hooks);
        match hooks.filter(|_| found.hooked) {
            Some(chain) => self.ask_hooks(chain, bytes, limits, head, HookPurpose::Http),
            None => self.serve(head, framing, found, &Grant::new()),
        }
    }

    /// Serves a request that the hooks have allowed.
    pub(crate) fn serve_plain(&mut self, head: &RequestHead<'_>, grant: &Grant) {
        // It was checked before any hook was asked.
        let Ok(framing) = Framing::of_request(head) else {
            return;
        };
        let found = self.find_route(head);
        self.serve(head, framing, found, grant);
    }

    fn serve(&mut self, head: &RequestHead<'_>, framing: Framing, found: Found, grant: &Grant) {
        let Found {
            target,
            prefix,
            body_limit,
            headers,
            ..
        } = found;
        self.begin_exchange(
            head,
            framing,
            body_limit,
            with_fields(headers, &grant.headers),
        );
        if matches!(framing, Framing::Length(len) if len > body_limit) {
            return self.body_too_large();
        }
        match target {
            RouteTarget::Handler(handler) => {
                self.ask_handler(handler, head, framing, prefix, &grant.attributes);
            }
            RouteTarget::Response(response) => self.answer(&response),
            RouteTarget::Protocol(_) => self.answer(&websocket_only()),
        }
        self.settle_exchange();
    }

    /// Answers a request that the hooks have denied.
    pub(crate) fn deny_plain(&mut self, head: &RequestHead<'_>, refuse: &Refuse) {
        let Ok(framing) = Framing::of_request(head) else {
            return;
        };
        let found = self.find_route(head);
        let headers = with_fields(found.headers, &refuse.headers);
        self.begin_exchange(head, framing, u64::MAX, headers);
        // RFC 9110 section 15.4.5: it has none.
        let body = match refuse.status {
            304 => Vec::new(),
            _ => refuse.body.clone(),
        };
        self.answer(&Response::new(refuse.status).body(body));
        self.settle_exchange();
    }

    /// Whether the vhost takes another connection that is not a WebSocket's.
    fn is_serving(&self) -> bool {
        let vhost = self.inner.vhost(self.conn.send.vhost());
        vhost.is_some_and(|vhost| {
            vhost.state == VhostState::Active && vhost.live <= vhost.settings.limits.connections
        })
    }

    /// What serves a request, refusals included.
    fn find_route(&self, head: &RequestHead<'_>) -> Found {
        if head.method() == "OPTIONS" && head.target() == "*" {
            return Found::refusal(Response::new(204));
        }
        if matches!(head.method(), "CONNECT" | "TRACE") {
            return Found::refusal(Response::text(501, "this method is not served\n"));
        }
        let mut expects = head.header_values("expect");
        if expects.any(|expects| !expects.eq_ignore_ascii_case(b"100-continue")) {
            // RFC 9110 section 10.1.1.
            let text = "the only expectation is 100-continue\n";
            return Found::refusal(Response::text(417, text));
        }
        let vhost = self.inner.vhost(self.conn.send.vhost());
        let routes: &[Route] = vhost.map_or(&[], |vhost| &vhost.routes);
        let Some((route, prefix)) = route(routes, head.path()) else {
            return Found::refusal(Response::text(404, "not found\n"));
        };
        let headers = Arc::clone(&route.options.headers);
        if let Err(response) = route.options.admit(head, self.transport()) {
            return Found {
                headers,
                ..Found::refusal(*response)
            };
        }
        let limit = self.conn.send.settings.limits.body_bytes;
        let body_limit = route.options.body_bytes.unwrap_or(limit);
        let target = match &route.target {
            RouteTarget::Response(response) => {
                RouteTarget::Response(for_method(response, head.method()))
            }
            other => other.clone(),
        };
        Found {
            target,
            prefix,
            body_limit,
            headers,
            hooked: route.options.hooked,
        }
    }

    /// What requests come over.
    pub(crate) fn transport(&self) -> Transport {
        match self.conn.io.as_ref().is_some_and(|io| io.secure.is_some()) {
            true => Transport::Tls,
            false => Transport::Plain,
        }
    }

    fn begin_exchange(
        &mut self,
        head: &RequestHead<'_>,
        framing: Framing,
        body_limit: u64,
        headers: Arc<HeaderList>,
    ) {
        let now = self.inner.out.now;
        let send = &mut self.conn.send;
        let Role::Http(http) = &mut self.conn.role else {
            return;
        };
        let id = ExchangeId {
            wsi: send.id,
            number: http.next_number(),
        };
        let mut exchange = Exchange {
            id,
            place: None,
            response: ResponseHalf::to(head).always(headers),
            body: BodyDecoder::new(framing),
            body_limit,
            seen: 0,
            drained: 0,
            is_draining: false,
            began: now,
            paused: None,
            read_closed: false,
            outcome: None,
        };
        let expects = head.version() >= HttpVersion::Http11 && head.header("expect").is_some();
        let awaits = expects && exchange.wants_body();
        exchange.response.set_awaits_continue(awaits);
        let timeouts = &send.settings.timeouts;
        let limit = match exchange.wants_body() {
            true => timeouts.body,
            false => timeouts.respond,
        };
        send.deadlines.stage = saturating_add(now, limit);
        http.begin(exchange);
    }

    fn ask_handler(
        &mut self,
        handler: u32,
        head: &RequestHead<'_>,
        framing: Framing,
        prefix: usize,
        attributes: &Attributes,
    ) {
        let Conn { io, role, send, .. } = &mut *self.conn;
        let (Some(io), Some(slot), Some(exchange)) = (
            &*io,
            self.parts.handlers.get_mut(handler as usize),
            role.exchange_mut(),
        ) else {
            return;
        };
        let request = HttpRequest {
            id: exchange.id,
            vhost: send.vhost(),
            head,
            framing,
            prefix,
            attributes,
            io,
        };
        let response = &mut exchange.response;
        let mut view = Http::new(self.inner, handler, request.id, send, Some(io), response);
        match slot.dispatch.request(&mut view, &request) {
            Ok(place) => {
                exchange.place = Some((handler, place));
                self.mark_lifted();
                self.invite_body();
                self.body_ended();
            }
            Err(failure) => {
                // What it asked for before must not reach the next one.
                self.conn.send.flags -= Flags::WANT_WRITABLE;
                self.cancel_timers();
                self.fail_exchange(failure);
            }
        }
    }

    /// RFC 9110 section 10.1.1: a client that waits for it is told to send the body.
    fn invite_body(&mut self) {
        let Conn { role, send, .. } = &mut *self.conn;
        let Some(exchange) = role.exchange_mut() else {
            return;
        };
        if exchange.response.awaits_continue() && !exchange.response.is_started() {
            exchange.response.set_awaits_continue(false);
            let pool = &mut self.inner.out.pool;
            send.tx
                .append(pool, |tail| tail.extend_from_slice(CONTINUE));
        }
    }

    /// Bytes of a request's body; how many are done.
    pub(crate) fn on_body_bytes(&mut self, input: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = input.get(done..) {
            let Conn { role, send, .. } = &mut *self.conn;
            let Some(exchange) = role.exchange_mut() else {
                break;
            };
            if send.flags.contains(Flags::ABORT) {
                return input.len();
            }
            if !exchange.wants_body() || send.flags.contains(Flags::PAUSED) {
                break;
            }
            match exchange.body.decode(rest) {
                Err(error) => {
                    self.bad_body(error);
                    return input.len();
                }
                Ok(piece) if piece.consumed == 0 && !piece.done => break,
                Ok(piece) => {
                    done += piece.consumed;
                    if !self.on_body_piece(piece.data) {
                        return input.len();
                    }
                }
            }
        }
        self.body_ended();
        self.settle_exchange();
        done
    }

    /// Whether more of the body is wanted.
    fn on_body_piece(&mut self, data: &[u8]) -> bool {
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return false;
        };
        exchange.seen = exchange.seen.saturating_add(data.len() as u64);
        if exchange.place.is_none() || exchange.response.is_done() {
            exchange.drained = exchange.drained.saturating_add(data.len());
            if exchange.drained > DRAINED_BODY {
                self.close_http();
                return false;
            }
            return true;
        }
        if exchange.seen > exchange.body_limit {
            self.body_too_large();
            return false;
        }
        if !data.is_empty() {
            self.handle(|handler, http, place| handler.body(http, place, data));
        }
        true
    }

    /// Tells the handler, once, when the body is complete.
    fn body_ended(&mut self) {
        let timeout = self.conn.send.settings.timeouts.respond;
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return;
        };
        if exchange.wants_body() || exchange.response.is_done() {
            return;
        }
        self.conn.send.deadlines.stage = saturating_add(self.inner.out.now, timeout);
        self.handle(|handler, http, place| handler.body_end(http, place));
    }

    /// Calls the handler of the exchange, if it has one that is still to be called.
    fn handle(
        &mut self,
        call: impl FnOnce(&mut dyn HttpDispatch, &mut Http<'_>, usize) -> Result<(), HttpFailure>,
    ) {
        let Conn { io, role, send, .. } = &mut *self.conn;
        let Some(exchange) = role.exchange_mut() else {
            return;
        };
        let Some((handler, place)) = exchange.place() else {
            return;
        };
        let Some(slot) = self.parts.handlers.get_mut(handler as usize) else {
            return;
        };
        let (id, response) = (exchange.id, &mut exchange.response);
        let mut view = Http::new(self.inner, handler, id, send, io.as_ref(), response);
        if let Err(failure) = call(&mut *slot.dispatch, &mut view, place) {
            self.fail_exchange(failure);
        }
    }

    pub(crate) fn on_http_writable(&mut self) {
        self.conn.send.flags -= Flags::WANT_WRITABLE;
        self.handle(|handler, http, place| handler.writable(http, place));
        self.settle_exchange();
    }

    pub(crate) fn on_http_timer(&mut self, tag: TimerTag) {
        self.handle(|handler, http, place| handler.timer(http, place, tag));
        self.settle_exchange();
    }

    /// Answers with a whole response and closes afterwards if the request is not complete; drops
    /// the connection if another response has begun.
    fn fail_exchange(&mut self, failure: HttpFailure) {
        match failure.response {
            Some(response) if response.can_be_sent() => self.answer(&response),
            Some(_) => self.answer(&Response::text(500, "internal error\n")),
            None => {
                self.set_outcome(ExchangeOutcome::Aborted);
                self.end_now();
            }
        }
    }

    /// Answers the exchange with a whole response, or drops the connection if that cannot be.
    fn answer(&mut self, response: &Response) {
        let Conn { role, send, .. } = &mut *self.conn;
        let Some(exchange) = role.exchange_mut() else {
            return;
        };
        let mut responder = Responder {
            send,
            out: &mut self.inner.out,
            response: &mut exchange.response,
        };
        if responder.answer(response).is_err() {
            self.set_outcome(ExchangeOutcome::Aborted);
            self.end_now();
        }
    }

    /// Answers with a status and closes: what follows on the connection cannot be told from the
    /// body that was refused.
    fn refuse_exchange(&mut self, status: u16, text: &str, outcome: ExchangeOutcome) {
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return;
        };
        if exchange.response.is_done() {
            // It leaves all the same.
            return self.close_http();
        }
        exchange.outcome.get_or_insert(outcome);
        exchange.close_after();
        if exchange.response.is_started() {
            return self.end_now();
        }
        self.answer(&Response::text(status, text));
        self.close_http();
    }

    fn bad_body(&mut self, error: BodyError) {
        let text = format!("{error}\n");
        self.refuse_exchange(error.status(), &text, ExchangeOutcome::Body(error));
    }

    fn body_too_large(&mut self) {
        let exchange = self.conn.role.exchange_mut();
        let limit = exchange.map_or(0, |exchange| exchange.body_limit);
        let text = format!("the body is longer than the {limit} bytes that are allowed here\n");
        self.refuse_exchange(413, &text, ExchangeOutcome::BodyTooLarge { limit });
    }

    pub(crate) fn set_outcome(&mut self, outcome: ExchangeOutcome) {
        if let Some(exchange) = self.conn.role.exchange_mut() {
            exchange.outcome.get_or_insert(outcome);
        }
    }

    /// Goes on to the next request when this one is over.
    pub(crate) fn settle_exchange(&mut self) {
        let Conn { role, send, .. } = &mut *self.conn;
        let Some(exchange) = role.exchange_mut() else {
            return;
        };
        if !exchange.response.is_done() {
            if exchange.wants_body() {
                exchange.note_pause(send, self.inner.out.now);
            } else if exchange.response.is_started() {
                // How long it takes now is the handler's business, and the write deadline's.
                send.deadlines.stage = None;
            }
            return;
        }
        let (persists, wants_body) = (exchange.response.persists(), exchange.wants_body());
        self.end_exchange(ExchangeOutcome::Disconnected);
        if wants_body && persists {
            return self.drain_body();
        }
        if persists && !self.inner.shutting_down && self.is_serving() {
            return self.await_request();
        }
        self.close_http();
    }

    /// What is left of the body is dropped, for a while, so that the connection can go on.
    fn drain_body(&mut self) {
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return;
        };
        if std::mem::replace(&mut exchange.is_draining, true) {
            return;
        }
        let send = &mut self.conn.send;
        send.flags -= Flags::PAUSED;
        send.deadlines.stage = saturating_add(self.inner.out.now, send.settings.timeouts.close);
    }

    fn await_request(&mut self) {
        let send = &mut self.conn.send;
        send.flags -= Flags::PAUSED;
        send.deadlines.stage = None;
        if let Role::Http(http) = &mut self.conn.role {
            http.await_request();
        }
    }

    /// The wait for the next request begins when the response has left; until then there is the
    /// write deadline.
    pub(crate) fn begin_idling(&mut self) {
        let is_idle = matches!(&self.conn.role, Role::Http(http) if http.is_idle());
        if !is_idle || self.conn.send.deadlines.stage.is_some() || !self.is_flushed() {
            return;
        }
        let send = &mut self.conn.send;
        let limit = send.settings.timeouts.keep_alive;
        send.deadlines.stage = saturating_add(self.inner.out.now, limit);
    }

    /// Closes the connection when what is queued has left.
    pub(crate) fn close_http(&mut self) {
        self.end_exchange(ExchangeOutcome::Disconnected);
        self.arm_last_words();
        if let Role::Http(http) = &mut self.conn.role {
            http.close();
        }
    }

    /// The final event of an exchange, once.
    pub(crate) fn end_exchange(&mut self, outcome: ExchangeOutcome) {
        self.conn.send.flags -= Flags::WANT_WRITABLE;
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return;
        };
        let Some((handler, place)) = exchange.place.take() else {
            return;
        };
        let id = exchange.id;
        let response = &exchange.response;
        let outcome = match exchange.outcome.take() {
            Some(outcome) => outcome,
            None if response.is_done() => ExchangeOutcome::Responded(response.status()),
            None => outcome,
        };
        self.cancel_timers();
        // From here on a panic must not end the exchange again.
        self.mark_lifted();
        if let Some(slot) = self.parts.handlers.get_mut(handler as usize) {
            let mut cx = Cx::new(self.inner, Owner::Handler(handler));
            slot.dispatch.done(&mut cx, id, place, &outcome);
        }
    }

    /// The peer's stream has ended, or failed, while an exchange runs.
    pub(crate) fn exchange_ended(&mut self) {
        let end = self.conn.io.as_ref().and_then(|io| io.read_end());
        let failed = match end {
            None => return,
            Some(ReadEnd::Eof) => None,
            Some(ReadEnd::Failed(error)) => Some(crate::dial::clone_error(error)),
        };
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return;
        };
        if let Some(error) = failed {
            exchange.outcome.get_or_insert(ExchangeOutcome::Io(error));
            return self.end_now();
        }
        if exchange.wants_body() {
            // RFC 9112 section 8: the request is incomplete. What it was answered all the same is
            // worth reading.
            return match exchange.response.is_done() {
                true => self.close_http(),
                false => self.end_now(),
            };
        }
        if !std::mem::replace(&mut exchange.read_closed, true) {
            exchange.close_after();
            self.handle(|handler, http, place| handler.read_closed(http, place));
            self.settle_exchange();
        }
    }

    /// A deadline of the exchange passed.
    pub(crate) fn time_out_exchange(&mut self) {
        let settings = &self.conn.send.settings;
        let (body, respond) = (settings.timeouts.body, settings.timeouts.respond);
        let rate = settings.limits.body_rate;
        let now = self.inner.out.now;
        let Some(exchange) = self.conn.role.exchange_mut() else {
            return;
        };
        if exchange.place.is_none() {
            return self.close_http();
        }
        if exchange.wants_body() {
            let until = body_deadline(exchange.began, body, exchange.seen, rate);
            if until.is_none_or(|until| until > now) {
                self.conn.send.deadlines.stage = until;
                return;
            }
            let deadline = Deadline::new(DeadlineStage::Body, body);
            let outcome = ExchangeOutcome::Timeout(deadline);
            return self.refuse_exchange(408, "the body came too slowly\n", outcome);
        }
        let outcome = ExchangeOutcome::Timeout(Deadline::new(DeadlineStage::Respond, respond));
        self.refuse_exchange(503, "no answer in time\n", outcome);
    }

    /// The connection is over: so is its exchange.
    pub(crate) fn abandon_exchange(&mut self) {
        let cause = self
            .conn
            .send
            .deadlines
            .cause
            .as_ref()
            .map(|cause| &cause.kind);
        let outcome = match cause {
            Some(CloseKind::Aborted | CloseKind::Application) => ExchangeOutcome::Aborted,
            Some(CloseKind::Timeout(deadline)) => ExchangeOutcome::Timeout(*deadline),
            _ if self.inner.shutting_down => ExchangeOutcome::Shutdown,
            _ => ExchangeOutcome::Disconnected,
        };
        self.end_exchange(outcome);
    }
}

impl Role {
    /// The exchange that runs, if one does.
    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        match self {
            Self::Http(http) => http.exchange_mut(),
            Self::Client(_) | Self::HttpClient(_) | Self::Linger | Self::Ws(_) => None,
        }
    }
}

impl HttpRole {
    pub(crate) fn response_of(&mut self, id: ExchangeId) -> Option<&mut ResponseHalf> {
        self.exchange_mut()?.response_of(id)
    }
}

/// RFC 9110 section 15.5.22: what has to be upgraded to.
fn websocket_only() -> Response {
    let error = UpgradeError::NotAnUpgrade;
    let mut response = Response::text(error.status(), format!("{error}\n"));
    let headers = error.headers().iter();
    // Those of the connection are written with every 426.
    for (name, value) in headers.filter(|(name, _)| !is_framing_field(name)) {
        let pushed = response.headers.push(*name, *value);
        debug_assert!(pushed.is_ok(), "a constant is fit to be sent");
    }
    response
}

/// What a mount adds to its responses, with what a hook adds to one of them; what only the library
/// writes is left out.
fn with_fields(mut headers: Arc<HeaderList>, more: &HeaderList) -> Arc<HeaderList> {
    let is_own = |name: &str| is_framing_field(name) || name.eq_ignore_ascii_case("date");
    for (name, value) in more.iter().filter(|(name, _)| !is_own(name)) {
        let pushed = Arc::make_mut(&mut headers).push(name, value);
        debug_assert!(pushed.is_ok(), "what comes out of a list fits into one");
    }
    headers
}

/// A page is for reading; a redirect is for every method.
fn for_method(response: &Arc<Response>, method: &str) -> Arc<Response> {
    let reads = matches!(method, "GET" | "HEAD");
    let options = method == "OPTIONS";
    if reads || matches!(response.status, 300..=399) {
        return Arc::clone(response);
    }
    let mut headers = HeaderList::new();
    let pushed = headers.push("Allow", "GET, HEAD, OPTIONS");
    debug_assert!(pushed.is_ok(), "a constant is fit to be sent");
    match options {
        true => Response::new(204).headers(headers).into(),
        false => {
            let text = Response::text(405, "GET and HEAD only\n");
            Response { headers, ..text }.into()
        }
    }
}

/// When a body has to be complete: the time that every body has, and what its length takes at the
/// lowest rate.
fn body_deadline(began: Instant, base: Duration, seen: u64, rate: u32) -> Option<Instant> {
    let earned = Duration::from_secs(seen / u64::from(rate.max(1)));
    saturating_add(began, base.saturating_add(earned))
}

/// How much of a body is read and dropped after its response, so that the connection can go on.
const DRAINED_BODY: usize = 64 * 1024;
