//! A client's HTTP connection at work: one request and its response at a time, and what becomes of
//! the connection in between.

use super::error::{FetchFailure, FetchStage};
use super::info::FetchInfo;
use super::table;
use crate::client::ArgumentError;
use crate::conn::{Conn, Flags, Role};
use crate::error::{ConnectError, ConnectFailure};
use crate::http::client::{BodyWriter, Method, ResponseReader, ResponseTo};
use crate::id::FetchId;
use crate::lift::Lift;
use crate::timer::saturating_add;

/// An established client connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct HttpClientRole {
    /// Whether a pool has it on its account.
    pub(super) pooled: bool,
    /// Requests that it has served.
    pub(super) served: u64,
    /// Bytes came that nobody asked for: where the next response begins is anybody's guess.
    pub(super) spoiled: bool,
    /// Over TLS the stream ended without the peer's word for it.
    pub(super) truncated: bool,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
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
pub(super) struct Exchange {
    pub(super) fetch: FetchId,
    pub(super) reader: ResponseReader,
    pub(super) body: BodyWriter,
    /// Bytes in the queue when the request was put there.
    pub(super) queued: usize,
    /// What was received was put aside because the application does not want it now.
    pub(super) held: bool,
    pub(super) failure: Option<(FetchStage, FetchFailure)>,
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

    /// Whether nothing shows yet that the peer takes us: a server says that it does not like our
    /// certificate after we think that it does (TLS 1.3).
    #[cfg(feature = "tls")]
    pub(crate) fn may_be_rejected(&self) -> bool {
        let unanswered = match &self.state {
            State::Busy(exchange) => !exchange.reader.began(),
            State::Assigned(_) => true,
            State::Draining(..) | State::Idle | State::Over => false,
        };
        self.served == 0 && unanswered
    }

    pub(crate) fn wants_stash(&self) -> bool {
        matches!(&self.state, State::Busy(exchange) if exchange.held)
    }

    #[cfg(feature = "tls")]
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

    pub(super) fn exchange(&mut self) -> Option<&mut Exchange> {
        match &mut self.state {
            State::Busy(exchange) => Some(exchange),
            State::Assigned(_) | State::Draining(..) | State::Idle | State::Over => None,
        }
    }
}

impl Exchange {
    pub(super) fn stage(&self) -> FetchStage {
        if self.reader.has_head() {
            FetchStage::Body
        } else if self.body.is_done() {
            FetchStage::Response
        } else {
            FetchStage::Request
        }
    }

    pub(super) fn fail(&mut self, failure: FetchFailure) {
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
        let vhost = self.inner.vhost_mut(self.conn.send.vhost());
        if let (Some(vhost), Some(generation)) = (vhost, generation) {
            vhost.http_pool.set_generation(id, generation.into());
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
        let pooled = http.pooled;
        let fetch = self.inner.fetches.get_mut(id);
        let Some(fetch) = fetch.filter(|fetch| !fetch.cancelled) else {
            self.give_back(pooled);
            let failed = (FetchStage::PoolWait, FetchFailure::Aborted);
            return table::end(self.inner, self.parts, id, Some(failed));
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
        let written = write_request(&mut self.conn.send, &mut self.inner.out, &fetch.info);
        let body = match written {
            Ok(body) => body,
            Err(error) => {
                http.state = State::Over;
                let failed = (FetchStage::Argument, error.into());
                return table::end(self.inner, self.parts, id, Some(failed));
            }
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

    pub(super) fn transport_failed(&self) -> bool {
        let io = self.conn.io.as_ref();
        io.is_none_or(|io| io.read_end().is_some() || io.write_error().is_some())
    }

    /// The whole request is queued: the response's time begins.
    fn request_complete(&mut self) {
        let now = self.inner.out.now;
        let limit = self.response_limit();
        self.conn.send.deadlines.stage = saturating_add(now, limit);
    }

    pub(super) fn own_fetch(&self) -> Option<FetchId> {
        match &self.conn.role {
            Role::HttpClient(http) => http.fetch(),
            Role::Client(_) | Role::Http(_) | Role::Linger | Role::Ws(_) => None,
        }
    }

    pub(super) fn response_limit(&self) -> std::time::Duration {
        let own = self.own_fetch().and_then(|id| self.inner.fetches.get(id));
        let own = own.and_then(|fetch| fetch.info.own_timeouts().response);
        own.unwrap_or(self.conn.send.settings.timeouts.response)
    }

    pub(super) fn body_limit(&self) -> std::time::Duration {
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
        let fetch = fetch.filter(|fetch| !fetch.cancelled);
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
    pub(super) fn heed(&mut self, told: Option<Result<(), super::FetchAbort>>) {
        if told.is_none_or(|told| told.is_err()) {
            self.fail_own_fetch(FetchFailure::Aborted);
        }
    }

    pub(super) fn fail_own_fetch(&mut self, failure: FetchFailure) {
        if let Role::HttpClient(http) = &mut self.conn.role {
            if let Some(exchange) = http.exchange() {
                exchange.fail(failure);
            }
        }
    }
}

/// Queues a request, and its body if that is here.
fn write_request(
    send: &mut crate::conn::SendHalf,
    out: &mut crate::inner::Out,
    info: &FetchInfo,
) -> Result<BodyWriter, ArgumentError> {
    let host = info.connect().host_header();
    let request = info.outgoing(&host)?;
    let mut body = BodyWriter::none();
    send.tx
        .append(&mut out.pool, |tail| body = request.write(tail));
    if let Some(bytes) = info.body_bytes() {
        // The length that was declared is that of these bytes.
        body = BodyWriter::none();
        send.tx.append_shared(&mut out.pool, bytes);
    }
    Ok(body)
}
