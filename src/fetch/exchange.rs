//! A client's HTTP connection at work: one request and its response at a time, and what becomes of
//! the connection in between.

use std::io;

use super::error::{FetchFailure, FetchStage};
use super::info::FetchInfo;
use super::table;
use crate::conn::{Conn, Flags, Phase, Role, Stash};
use crate::dial::clone_error;
use crate::error::{CloseKind, ConnectError, ConnectFailure, Deadline, DeadlineStage};
use crate::http::client::{
    Attempt, BodyWriter, Eof, Freshness, Method, NextHop, Released, ResponseItem,
    ResponseReadError, ResponseReader, ResponseTo, Reusable,
};
use crate::http::head::ResponseHead;
use crate::http::{HeaderList, body::BodyError};
use crate::id::FetchId;
use crate::inner::VhostState;
use crate::lift::Lift;
use crate::net::transport::ReadEnd;
use crate::timer::saturating_add;

/// An established client connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct HttpClientRole {
    /// Whether a pool has it on its account.
    pooled: bool,
    /// Requests that it has served.
    served: u64,
    /// Bytes came that nobody asked for: where the next response begins is anybody's guess.
    spoiled: bool,
    /// Over TLS the stream ended without the peer's word for it.
    truncated: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A request was given to it and has not begun.
    Assigned(FetchId),
    Busy(Box<Exchange>),
    /// The request went on without it (a redirect); the rest of the response is read away, at most
    /// so many bytes.
    Draining(Box<ResponseReader>, usize),
    Idle,
    /// To be closed.
    Over,
}

/// A request that was sent, or is being sent, and its response.
#[derive(Debug)]
struct Exchange {
    fetch: FetchId,
    reader: ResponseReader,
    body: BodyWriter,
    /// Bytes in the queue when the request was put there.
    queued: usize,
    /// What was received was put aside because the application does not want it now.
    held: bool,
    failure: Option<(FetchStage, FetchFailure)>,
}

impl HttpClientRole {
    pub(crate) fn new(fetch: FetchId, pooled: bool) -> Self {
        Self {
            pooled,
            served: 0,
            spoiled: false,
            truncated: false,
            state: State::Assigned(fetch),
        }
    }

    /// The request that it works for.
    pub(crate) fn fetch(&self) -> Option<FetchId> {
        match &self.state {
            State::Assigned(id) => Some(*id),
            State::Busy(exchange) => Some(exchange.fetch),
            State::Draining(..) | State::Idle | State::Over => None,
        }
    }

    /// Takes a request if it is idle.
    pub(crate) fn assign(&mut self, fetch: FetchId) -> bool {
        let idle = matches!(self.state, State::Idle);
        if idle {
            self.state = State::Assigned(fetch);
        }
        idle
    }

    /// The pool has given it up while it was idle.
    pub(crate) fn retire(&mut self) {
        if matches!(self.state, State::Idle) {
            self.state = State::Over;
        }
    }

    pub(crate) fn wants_stash(&self) -> bool {
        matches!(&self.state, State::Busy(exchange) if exchange.held)
    }

    pub(crate) fn note_truncation(&mut self) {
        self.truncated = true;
    }

    pub(crate) fn memory(&self) -> usize {
        let state = match &self.state {
            State::Busy(exchange) => size_of_val(&**exchange),
            State::Draining(reader, _) => size_of_val(&**reader),
            State::Assigned(_) | State::Idle | State::Over => 0,
        };
        size_of::<Self>() + state
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        match &mut self.state {
            State::Busy(exchange) => Some(exchange),
            State::Assigned(_) | State::Draining(..) | State::Idle | State::Over => None,
        }
    }
}

impl Exchange {
    fn stage(&self) -> FetchStage {
        if self.reader.has_head() {
            FetchStage::Body
        } else if self.body.is_done() {
            FetchStage::Response
        } else {
            FetchStage::Request
        }
    }

    fn fail(&mut self, failure: FetchFailure) {
        if self.failure.is_none() {
            self.failure = Some((self.stage(), failure));
        }
    }
}

impl Lift<'_> {
    /// The connection that was dialled for a request is there.
    pub(crate) fn become_http_client(&mut self, fetch: FetchId) {
        let Some(known) = self.inner.fetches.get(fetch) else {
            return self.end_now();
        };
        let pooled = known.info.is_pooled();
        self.conn.send.deadlines.stage = None;
        self.conn.role = Role::HttpClient(Box::new(HttpClientRole::new(fetch, pooled)));
        #[cfg(feature = "tls")]
        self.note_generation();
        self.begin_fetch();
    }

    /// No connection came about for a request.
    pub(crate) fn fetch_not_connected(&mut self, id: FetchId, error: ConnectError) {
        let stage = error.stage().into();
        let failure = match error.failure() {
            ConnectFailure::Aborted => FetchFailure::Aborted,
            ConnectFailure::ContextDropped => FetchFailure::ContextDropped,
            ConnectFailure::Shutdown => FetchFailure::Shutdown,
            ConnectFailure::VhostDestroyed => FetchFailure::VhostDestroyed,
            _ => FetchFailure::Connect(error),
        };
        table::end(self.inner, self.parts, id, Some((stage, failure)));
    }

    /// The settings under which it was made may be newer than when it was dialled.
    #[cfg(feature = "tls")]
    fn note_generation(&mut self) {
        let secure = self.conn.io.as_ref().and_then(|io| io.secure.as_ref());
        let generation = secure.map(|secure| secure.generation);
        let id = self.conn.send.id;
        let vhost = self.inner.vhost_mut(self.conn.send.vhost);
        if let (Some(vhost), Some(generation)) = (vhost, generation) {
            vhost.http_pool.set_generation(id, generation);
        }
    }

    /// An idle connection that was given a request is tried before it is used: what the peer has
    /// sent or ended since may wait unseen.
    pub(crate) fn probe_idle(&mut self) {
        let Conn { role, io, .. } = &mut *self.conn;
        if let (Role::HttpClient(http), Some(io)) = (role, io) {
            if matches!(http.state, State::Assigned(_)) {
                io.try_reading();
            }
        }
    }

    /// Writes the request that was given to the connection.
    pub(crate) fn begin_fetch(&mut self) {
        let ended = self.transport_failed() || self.conn.send.flags.contains(Flags::ABORT);
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        let State::Assigned(id) = http.state else {
            return;
        };
        let reused = http.served > 0;
        if reused && (ended || http.spoiled) {
            http.state = State::Over;
            return self.inner.fetches.requeue_first(id);
        }
        let Some(fetch) = self.inner.fetches.get_mut(id) else {
            http.state = State::Over;
            return;
        };
        fetch.reused = reused;
        fetch.attempts += u32::from(reused);
        let settings = &self.conn.send.settings;
        let to = match fetch.info.method() == &Method::HEAD {
            true => ResponseTo::Head,
            false => ResponseTo::Other,
        };
        let max_body = fetch.info.body_limit(settings.limits.body_bytes);
        let reader = ResponseReader::new(to, settings.limits.head, max_body);
        let streams = fetch.upload.is_some();
        let Some(body) = write_request(&mut self.conn.send, &mut self.inner.out, &fetch.info)
        else {
            http.state = State::Over;
            let failed = (FetchStage::Argument, FetchFailure::UnknownHandler);
            return table::end(self.inner, self.parts, id, Some(failed));
        };
        http.state = State::Busy(Box::new(Exchange {
            fetch: id,
            reader,
            body,
            queued: self.conn.send.tx.len(),
            held: false,
            failure: None,
        }));
        self.conn.send.deadlines.stage = None;
        if streams {
            self.pull_upload();
        } else {
            self.request_complete();
        }
    }

    fn transport_failed(&self) -> bool {
        let io = self.conn.io.as_ref();
        io.is_none_or(|io| io.read_end.is_some() || io.write_error.is_some())
    }

    /// The whole request is queued: the response's time begins.
    fn request_complete(&mut self) {
        let now = self.inner.out.now;
        let limit = self.response_limit();
        self.conn.send.deadlines.stage = saturating_add(now, limit);
    }

    fn own_fetch(&self) -> Option<FetchId> {
        match &self.conn.role {
            Role::HttpClient(http) => http.fetch(),
            Role::Client(_) | Role::Http(_) | Role::Linger | Role::Ws(_) => None,
        }
    }

    fn response_limit(&self) -> std::time::Duration {
        let own = self.own_fetch().and_then(|id| self.inner.fetches.get(id));
        let own = own.and_then(|fetch| fetch.info.own_timeouts().response);
        own.unwrap_or(self.conn.send.settings.timeouts.response)
    }

    fn body_limit(&self) -> std::time::Duration {
        let Some(fetch) = self.own_fetch().and_then(|id| self.inner.fetches.get(id)) else {
            return std::time::Duration::MAX;
        };
        let default = if fetch.info.is_streamed() {
            std::time::Duration::MAX
        } else {
            self.conn.send.settings.timeouts.message
        };
        fetch.info.own_timeouts().body.unwrap_or(default)
    }

    /// Moves what the application has written of a request's body into the queue.
    pub(crate) fn pull_upload(&mut self) {
        let Conn { role, send, .. } = &mut *self.conn;
        let Role::HttpClient(http) = role else { return };
        let Some(exchange) = http.exchange() else {
            return;
        };
        let fetch = self.inner.fetches.get_mut(exchange.fetch);
        let Some(upload) = fetch.and_then(|fetch| fetch.upload.as_mut()) else {
            return;
        };
        if exchange.body.is_done() || upload.refused {
            upload.in_flight = send.tx.len();
            return;
        }
        let Exchange { body, failure, .. } = exchange;
        let mut written = Ok(());
        send.tx.append(&mut self.inner.out.pool, |tail| {
            written = body.write(&upload.pending, tail);
            if written.is_ok() && upload.finished {
                written = body.finish(tail);
            }
        });
        upload.pending = Vec::new();
        upload.in_flight = send.tx.len();
        if upload.wants_writable {
            send.flags |= Flags::WANT_WRITABLE;
        }
        if written.is_err() && failure.is_none() {
            // The application was held to the length before; nothing else can be wrong here.
            *failure = Some((FetchStage::Request, FetchFailure::Aborted));
        }
        if exchange.body.is_done() && !exchange.reader.has_head() {
            self.request_complete();
        }
    }

    /// There is room for more of the request's body.
    pub(crate) fn on_fetch_writable(&mut self) {
        self.conn.send.flags -= Flags::WANT_WRITABLE;
        let Some(id) = self.own_fetch() else { return };
        let fetch = self.inner.fetches.get_mut(id);
        let Some(upload) = fetch.and_then(|fetch| fetch.upload.as_mut()) else {
            return;
        };
        upload.in_flight = self.conn.send.tx.len();
        if !std::mem::take(&mut upload.wants_writable) || upload.finished || upload.refused {
            return;
        }
        let told = table::tell(self.inner, self.parts, id, |handler, cx| {
            handler.on_writable(cx, id)
        });
        self.heed(told);
        self.pull_upload();
    }

    /// What a callback has answered.
    fn heed(&mut self, told: Option<Result<(), super::FetchAbort>>) {
        if told.is_none_or(|told| told.is_err()) {
            self.fail_own_fetch(FetchFailure::Aborted);
        }
    }

    fn fail_own_fetch(&mut self, failure: FetchFailure) {
        if let Role::HttpClient(http) = &mut self.conn.role {
            if let Some(exchange) = http.exchange() {
                exchange.fail(failure);
            }
        }
    }

    /// Whether bytes are wanted now.
    pub(crate) fn is_fetch_reading(&self) -> bool {
        let Role::HttpClient(http) = &self.conn.role else {
            return false;
        };
        match &http.state {
            State::Busy(exchange) => exchange.failure.is_none() && !self.is_paused(exchange.fetch),
            State::Assigned(_) | State::Draining(..) | State::Idle => true,
            State::Over => false,
        }
    }

    fn is_paused(&self, id: FetchId) -> bool {
        let fetch = self.inner.fetches.get(id);
        fetch.is_some_and(|fetch| fetch.paused && !fetch.cancelled)
    }

    /// Bytes of a response; how many are done.
    pub(crate) fn on_fetch_bytes(&mut self, input: &[u8]) -> usize {
        let Role::HttpClient(http) = &mut self.conn.role else {
            return 0;
        };
        match &mut http.state {
            State::Assigned(_) | State::Idle => {
                http.spoiled = true;
                input.len()
            }
            State::Over => input.len(),
            State::Draining(..) => self.drain_response(input),
            State::Busy(_) => self.read_response(input),
        }
    }

    fn read_response(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let Some(id) = self.own_fetch() else { break };
            let paused = self.is_paused(id);
            let Role::HttpClient(http) = &mut self.conn.role else {
                break;
            };
            let Some(exchange) = http.exchange() else {
                break;
            };
            if exchange.failure.is_some() {
                return input.len();
            }
            exchange.held = paused && used < input.len();
            if paused {
                break;
            }
            let rest = input.get(used..).unwrap_or_default();
            let progress = match exchange.reader.next(rest) {
                Ok(progress) => progress,
                Err(error) => {
                    exchange.fail(FetchFailure::Response(error));
                    return input.len();
                }
            };
            used += progress.consumed;
            match progress.item {
                None => break,
                Some(ResponseItem::Interim(head)) => self.on_interim(id, &head),
                Some(ResponseItem::Head(head)) => self.on_fetch_head(id, &head),
                Some(ResponseItem::Data(data)) => self.on_fetch_data(id, data),
                Some(ResponseItem::End) => {
                    if used < input.len() {
                        self.spoil();
                    }
                    self.response_complete();
                    return input.len();
                }
            }
        }
        used
    }

    fn spoil(&mut self) {
        if let Role::HttpClient(http) = &mut self.conn.role {
            http.spoiled = true;
        }
    }

    fn on_interim(&mut self, id: FetchId, head: &ResponseHead<'_>) {
        let told = table::tell(self.inner, self.parts, id, |handler, cx| {
            handler.on_interim(cx, id, head)
        });
        self.heed(told);
    }

    fn on_fetch_head(&mut self, id: FetchId, head: &ResponseHead<'_>) {
        let now = self.inner.out.now;
        self.conn.send.deadlines.stage = saturating_add(now, self.body_limit());
        match self.judge_redirect(id, head) {
            Ok(None) => {}
            Ok(Some(next)) => return self.follow(id, next),
            Err(failure) => {
                if let Role::HttpClient(http) = &mut self.conn.role {
                    if let Some(exchange) = http.exchange() {
                        exchange.failure = Some((FetchStage::Redirect, failure));
                    }
                }
                return;
            }
        }
        if !matches!(head.status(), 200..=299) {
            self.stop_upload(id);
        }
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            fetch.status = head.status();
            fetch.headers = HeaderList::from(head.fields());
        }
        let told = table::tell(self.inner, self.parts, id, |handler, cx| {
            handler.on_response(cx, id, head)
        });
        self.heed(told);
    }

    /// The request that a redirect asks for, if it is one that is followed.
    fn judge_redirect(
        &mut self,
        id: FetchId,
        head: &ResponseHead<'_>,
    ) -> Result<Option<(FetchInfo, NextHop)>, FetchFailure> {
        let Some(fetch) = self.inner.fetches.get_mut(id) else {
            return Ok(None);
        };
        let (Some(redirects), Some(url)) = (&mut fetch.redirects, fetch.info.absolute_url()) else {
            return Ok(None);
        };
        let locations = head.header_values("location");
        let method = fetch.info.method();
        let hop = redirects.follow(method, &url, fetch.info.replay(), head.status(), locations);
        match hop.map_err(FetchFailure::Redirect)? {
            None => Ok(None),
            Some(hop) => Ok(Some((fetch.info.redirected(&hop)?, hop))),
        }
    }

    /// Lets the request go on to where the redirect leads; the connection reads the rest of the
    /// response away and can then be used again.
    fn follow(&mut self, id: FetchId, (info, hop): (FetchInfo, NextHop)) {
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            fetch.key = info.pool_key();
            fetch.info = info;
            if !hop.keeps_body {
                fetch.upload = None;
            }
        }
        self.inner.fetches.requeue(id);
        if let Some(mark) = &mut self.inner.lifted {
            mark.fetch = None;
        }
        let sent = self.conn.send.tx.is_empty();
        let now = self.inner.out.now;
        let send = &mut self.conn.send;
        send.flags -= Flags::WANT_WRITABLE;
        send.deadlines.stage = saturating_add(now, send.settings.timeouts.close);
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        let state = std::mem::replace(&mut http.state, State::Over);
        if let State::Busy(exchange) = state {
            let Exchange { reader, body, .. } = *exchange;
            if sent && body.is_done() && !reader.ends_with_connection() {
                http.served += 1;
                http.state = State::Draining(Box::new(reader), MAX_DRAINED);
            }
        }
    }

    fn drain_response(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let Role::HttpClient(http) = &mut self.conn.role else {
                break;
            };
            let State::Draining(reader, left) = &mut http.state else {
                break;
            };
            let rest = input.get(used..).unwrap_or_default();
            let progress = reader.next(rest);
            let consumed = progress.as_ref().map_or(0, |progress| progress.consumed);
            used += consumed;
            let within = left.checked_sub(consumed);
            match (progress.map(|progress| progress.item), within) {
                (Ok(Some(ResponseItem::End)), _) => {
                    http.spoiled |= used < input.len();
                    let keeps = reader.keeps_connection() && !http.spoiled;
                    self.give_back(keeps);
                    return input.len();
                }
                (Ok(None), Some(within)) => {
                    *left = within;
                    break;
                }
                (Ok(_), Some(within)) => *left = within,
                (Err(_), _) | (_, None) => {
                    http.state = State::Over;
                    return input.len();
                }
            }
        }
        used
    }

    /// RFC 9112 section 9.5: a refusal that comes while the body is being sent is a reason to stop
    /// sending it; the connection is of no use afterwards.
    fn stop_upload(&mut self, id: FetchId) {
        let Conn { role, send, .. } = &mut *self.conn;
        let Role::HttpClient(http) = role else { return };
        let Some(exchange) = http.exchange() else {
            return;
        };
        if exchange.body.is_done() {
            return;
        }
        let fetch = self.inner.fetches.get_mut(id);
        if let Some(upload) = fetch.and_then(|fetch| fetch.upload.as_mut()) {
            upload.refused = true;
            upload.pending = Vec::new();
        }
        send.flags -= Flags::WANT_WRITABLE;
        send.tx.clear(&mut self.inner.out.pool);
        send.deadlines.write = None;
    }

    fn on_fetch_data(&mut self, id: FetchId, data: &[u8]) {
        let Some(fetch) = self.inner.fetches.get_mut(id) else {
            return;
        };
        if !fetch.info.is_streamed() {
            return fetch.body.extend_from_slice(data);
        }
        let told = table::tell(self.inner, self.parts, id, |handler, cx| {
            handler.on_body(cx, id, data)
        });
        self.heed(told);
    }

    /// The response is whole: the connection goes back, the owner hears of it.
    fn response_complete(&mut self) {
        let conn = &mut *self.conn;
        let flushed = conn
            .io
            .as_ref()
            .is_some_and(|io| io.is_flushed(&conn.send.tx));
        let Role::HttpClient(http) = &mut conn.role else {
            return;
        };
        let state = std::mem::replace(&mut http.state, State::Over);
        let State::Busy(exchange) = state else { return };
        if let Some(failure) = exchange.failure {
            return table::end(self.inner, self.parts, exchange.fetch, Some(failure));
        }
        let keeps = exchange.reader.keeps_connection() && exchange.body.is_done() && flushed;
        http.served += 1;
        let keeps = keeps && http.pooled && !http.spoiled;
        self.give_back(keeps);
        table::end(self.inner, self.parts, exchange.fetch, None);
    }

    /// Gives the connection back to its pool, or to its end.
    fn give_back(&mut self, keeps: bool) {
        let now = self.inner.out.now;
        let stopping = self.inner.shutting_down || self.transport_failed();
        let send = &mut self.conn.send;
        send.flags -= Flags::WANT_WRITABLE;
        send.deadlines.stage = None;
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        http.state = State::Over;
        let vhost = self
            .inner
            .vhosts
            .get_mut(send.vhost.index, send.vhost.generation);
        let Some(vhost) =
            vhost.filter(|vhost| keeps && !stopping && vhost.state == VhostState::Active)
        else {
            return;
        };
        let lifetime = vhost.http_pool.config().idle_limit();
        if vhost.http_pool.release(send.id, Reusable::Yes, now) == Released::Idle {
            http.state = State::Idle;
            send.deadlines.stage = saturating_add(now, lifetime);
            self.inner.fetches.note_change(send.vhost);
        }
    }

    /// The stream has ended: what that is to the request.
    pub(crate) fn fetch_stream_ended(&mut self) {
        let Conn {
            io, role, stash, ..
        } = &mut *self.conn;
        let Some(end) = io.as_ref().and_then(|io| io.read_end.as_ref()) else {
            return;
        };
        let Role::HttpClient(http) = role else { return };
        let eof = match (end, http.truncated) {
            (ReadEnd::Eof, false) => Eof::Orderly,
            (ReadEnd::Eof, true) | (ReadEnd::Failed(_), _) => Eof::Truncated,
        };
        let failed = match end {
            ReadEnd::Eof => None,
            ReadEnd::Failed(error) => Some(clone_error(error)),
        };
        match &mut http.state {
            // What came before the end has not been looked at.
            State::Busy(exchange) if exchange.held && stash.len() > 0 => {}
            State::Busy(exchange) => match exchange.reader.end(eof) {
                Ok(()) if exchange.failure.is_none() => self.response_complete(),
                Ok(()) => {}
                Err(error) => exchange.fail(end_failure(error, failed)),
            },
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Assigned(_) | State::Over => {}
        }
    }

    /// Nothing can be sent any more, and what the peer had said before was read. A response that
    /// has begun is worth waiting for.
    pub(crate) fn fetch_write_failed(&mut self, error: io::Error) {
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        match &mut http.state {
            State::Busy(exchange) if exchange.reader.has_head() => {}
            State::Busy(exchange) => exchange.fail(FetchFailure::Io(error)),
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Assigned(_) | State::Over => {}
        }
    }

    /// The TLS session has failed.
    #[cfg(feature = "tls")]
    pub(crate) fn fetch_tls_failed(&mut self, error: crate::error::TlsError) {
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        let first = http.served == 0;
        match &mut http.state {
            State::Busy(exchange) => {
                // A server says that it does not like our certificate after we think that it does
                // (TLS 1.3).
                let early = first && !exchange.reader.began();
                let stage = if early {
                    FetchStage::Tls
                } else {
                    exchange.stage()
                };
                let failure = FetchFailure::Tls(Box::new(error));
                exchange.failure.get_or_insert((stage, failure));
            }
            State::Assigned(_) => http.spoiled = true,
            State::Draining(..) | State::Idle | State::Over => http.state = State::Over,
        }
    }

    /// Ends a request from outside of its connection: its time is over.
    pub(crate) fn fail_fetch(&mut self, id: FetchId, failure: FetchFailure) {
        if self.own_fetch() == Some(id) {
            return self.fail_own_fetch(failure);
        }
        // It is being dialled for.
        if let Role::Client(client) = &self.conn.role {
            let stage = client.fetch_stage();
            table::end(self.inner, self.parts, id, Some((stage, failure)));
            self.end_now();
        }
    }

    /// The stage took too long, or the connection was idle for too long.
    pub(crate) fn time_out_fetch(&mut self) {
        let now = self.inner.out.now;
        let (response, body) = (self.response_limit(), self.body_limit());
        let paused = self.own_fetch().is_some_and(|id| self.is_paused(id));
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        match &mut http.state {
            State::Busy(exchange) if exchange.reader.has_head() && paused => {
                // It is we who do not take it.
                self.conn.send.deadlines.stage = saturating_add(now, body);
            }
            State::Busy(exchange) => {
                let limit = match exchange.reader.has_head() {
                    true => Deadline::new(DeadlineStage::FetchBody, body),
                    false => Deadline::new(DeadlineStage::FetchResponse, response),
                };
                exchange.fail(FetchFailure::Timeout(limit));
            }
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Assigned(_) | State::Over => {}
        }
    }

    /// The vhost or the context goes: what is idle ends now; what is at work ends with the vhost,
    /// and has the grace of a shutdown.
    pub(crate) fn wind_down_fetch(&mut self, failure: FetchFailure) {
        let shutdown = matches!(failure, FetchFailure::Shutdown);
        let Role::HttpClient(http) = &mut self.conn.role else {
            return;
        };
        match &mut http.state {
            State::Busy(_) if shutdown => {}
            State::Busy(exchange) => exchange.fail(failure),
            State::Assigned(id) => {
                let id = *id;
                http.state = State::Over;
                let failed = Some((FetchStage::PoolWait, failure));
                table::end(self.inner, self.parts, id, failed);
            }
            State::Draining(..) | State::Idle => http.state = State::Over,
            State::Over => {}
        }
    }

    /// Whether the connection is over; the request that it had has then gone on or ended.
    pub(crate) fn conclude_fetch(&mut self) -> bool {
        let aborted = self.conn.send.flags.contains(Flags::ABORT);
        let cancelled = self.own_fetch().is_some_and(|id| {
            let fetch = self.inner.fetches.get(id);
            fetch.is_none_or(|fetch| fetch.cancelled)
        });
        let cause = aborted.then(|| self.abort_failure());
        let Role::HttpClient(http) = &mut self.conn.role else {
            return false;
        };
        if let Some(exchange) = http.exchange() {
            if cancelled {
                exchange.failure = Some((exchange.stage(), FetchFailure::Aborted));
            } else if let Some(cause) = cause {
                exchange.fail(cause);
            }
            return exchange.failure.is_some() && self.end_own_fetch();
        }
        match http.state {
            State::Assigned(id) => {
                http.state = State::Over;
                let failure = cause.unwrap_or(FetchFailure::Aborted);
                let failed = Some((FetchStage::PoolWait, failure));
                table::end(self.inner, self.parts, id, failed);
            }
            State::Idle if http.spoiled => {}
            State::Idle | State::Draining(..) if !aborted => return false,
            _ => {}
        }
        self.leave();
        true
    }

    fn abort_failure(&self) -> FetchFailure {
        match self.conn.send.cause.as_ref().map(|cause| &cause.kind) {
            Some(CloseKind::ContextDropped) => FetchFailure::ContextDropped,
            Some(CloseKind::Shutdown) => FetchFailure::Shutdown,
            Some(CloseKind::Timeout(deadline)) => FetchFailure::Timeout(*deadline),
            Some(CloseKind::VhostDestroyed) => FetchFailure::VhostDestroyed,
            _ => FetchFailure::Aborted,
        }
    }

    /// The request has failed on this connection: it begins again if that is provably safe, or it
    /// is over. The connection is.
    fn end_own_fetch(&mut self) -> bool {
        let waits = self.conn.send.tx.len();
        let Role::HttpClient(http) = &mut self.conn.role else {
            return true;
        };
        let reused = http.served > 0;
        let State::Busy(exchange) = std::mem::replace(&mut http.state, State::Over) else {
            return true;
        };
        let id = exchange.fetch;
        let Some(failed) = exchange.failure else {
            return true;
        };
        self.leave();
        let stopping = self.inner.shutting_down;
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            let attempt = Attempt {
                reused,
                answered: exchange.reader.began(),
                sent: waits < exchange.queued,
                idempotent: fetch.info.method().is_idempotent(),
                replayable: fetch.upload.is_none(),
                repeated: fetch.repeated,
            };
            if is_lost_connection(&failed.1) && attempt.may_be_repeated() && !stopping {
                fetch.repeated = true;
                fetch.freshness = Freshness::New;
                self.inner.fetches.requeue_first(id);
                return true;
            }
        }
        table::end(self.inner, self.parts, id, Some(failed));
        true
    }

    /// Says goodbye where that is the custom, and waits for nothing.
    fn leave(&mut self) {
        self.conn.send.phase = Phase::Ended;
        self.conn.stash = Stash::Empty;
        if !self.conn.send.flags.contains(Flags::ABORT) {
            self.conn.send.tx.clear(&mut self.inner.out.pool);
            self.is_all_said();
        }
    }
}

/// Queues a request, and its body if that is here.
fn write_request(
    send: &mut crate::conn::SendHalf,
    out: &mut crate::inner::Out,
    info: &FetchInfo,
) -> Option<BodyWriter> {
    let host = info.connect().host_header();
    // It was checked when the fetch began, or when the redirect was followed.
    let request = info.outgoing(&host).ok()?;
    let mut body = None;
    send.tx
        .append(&mut out.pool, |tail| body = Some(request.write(tail)));
    if let Some(bytes) = info.body_bytes() {
        body.as_mut()?.written_elsewhere(bytes.len() as u64).ok()?;
        send.tx.append_shared(&mut out.pool, bytes);
    }
    body
}

/// What the end of a stream was to a response; the system's reason where there is one.
fn end_failure(error: ResponseReadError, failed: Option<io::Error>) -> FetchFailure {
    match (error, failed) {
        (
            ResponseReadError::Closed | ResponseReadError::Body(BodyError::CutShort),
            Some(failed),
        ) => FetchFailure::Io(failed),
        (error, _) => FetchFailure::Response(error),
    }
}

/// Whether the connection went away, rather than the request being wrong.
fn is_lost_connection(failure: &FetchFailure) -> bool {
    matches!(
        failure,
        FetchFailure::Io(_) | FetchFailure::Response(ResponseReadError::Closed)
    )
}

/// Bytes of a redirect's body that are read for the sake of the connection.
const MAX_DRAINED: usize = 64 * 1024;
