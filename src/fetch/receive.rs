//! What a client's HTTP connection receives: responses, redirects, and what nobody asked for.

use std::io;

use super::error::{FetchFailure, FetchStage};
use super::exchange::{Exchange, State};
use super::info::FetchInfo;
use super::table;
use crate::conn::{Conn, Flags, Role};
use crate::dial::clone_error;
use crate::http::client::{Eof, NextHop, Released, ResponseItem, ResponseReadError, Reusable};
use crate::http::head::ResponseHead;
use crate::http::{HeaderList, body::BodyError};
use crate::id::FetchId;
use crate::inner::{Vhost, VhostState};
use crate::lift::Lift;
use crate::net::transport::ReadEnd;
use crate::timer::saturating_add;

impl Lift<'_> {
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

    pub(super) fn is_paused(&self, id: FetchId) -> bool {
        let fetch = self.inner.fetches.get(id);
        fetch.is_some_and(|fetch| fetch.paused && !fetch.cancelled)
    }

    pub(super) fn is_cancelled(&self, id: FetchId) -> bool {
        let fetch = self.inner.fetches.get(id);
        fetch.is_none_or(|fetch| fetch.cancelled)
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
        while let Some(id) = self.own_fetch() {
            let (paused, cancelled) = (self.is_paused(id), self.is_cancelled(id));
            let Role::HttpClient(http) = &mut self.conn.role else {
                break;
            };
            let Some(exchange) = http.exchange() else {
                break;
            };
            if cancelled {
                exchange.fail(FetchFailure::Aborted);
            }
            if exchange.failure.is_some() {
                return input.len();
            }
            let rest = input.get(used..).unwrap_or_default();
            exchange.held = paused && !rest.is_empty();
            // With nothing left to hold back, all that may come of it is that the response is
            // complete; no byte would follow that brings somebody back for that.
            if exchange.held {
                break;
            }
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
        // A redirect was followed. Nothing more may come that could say that this response is over.
        let rest = input.get(used..).unwrap_or_default();
        used + self.drain_response(rest)
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
            Some(hop) => {
                let info = fetch.info.redirected(&hop)?;
                let vhost = self.inner.vhost(self.conn.send.vhost());
                if info.connect().is_tls() && !vhost.is_some_and(Vhost::has_client_tls) {
                    return Err(FetchFailure::NoClientTls);
                }
                Ok(Some((info, hop)))
            }
        }
    }

    /// Lets the request go on to where the redirect leads; the connection reads the rest of the
    /// response away and can then be used again.
    fn follow(&mut self, id: FetchId, (info, hop): (FetchInfo, NextHop)) {
        if let Some(fetch) = self.inner.fetches.get_mut(id) {
            fetch.key = info.pool_key();
            fetch.info = info;
            fetch.attempts = 0;
            fetch.repeated = false;
            if !hop.keeps_body {
                fetch.upload = None;
            }
        }
        self.inner.fetches.requeue(id);
        if let Some(mark) = &mut self.inner.lifted {
            mark.fetch = None;
        }
        let Conn { io, send, .. } = &*self.conn;
        let sent = io.as_ref().is_some_and(|io| io.is_flushed(&send.tx));
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
                // Nothing more may come: the response is complete if it has no body.
                self.drain_response(&[]);
            }
        }
    }

    fn drain_response(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while let Role::HttpClient(http) = &mut self.conn.role {
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
        if exchange.body.is_done() && send.tx.is_empty() {
            return;
        }
        let fetch = self.inner.fetches.get_mut(id);
        if let Some(upload) = fetch.and_then(|fetch| fetch.upload.as_mut()) {
            upload.refused = true;
            upload.pending = Vec::new();
        }
        // The peer still waits for the rest of this request: another one would be taken for it.
        http.spoiled = true;
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
    pub(super) fn give_back(&mut self, keeps: bool) {
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
            .get_mut(send.vhost().index, send.vhost().generation);
        let Some(vhost) =
            vhost.filter(|vhost| keeps && !stopping && vhost.state == VhostState::Active)
        else {
            return;
        };
        let lifetime = vhost.http_pool.config().idle_limit();
        if vhost.http_pool.release(send.id, Reusable::Yes, now) == Released::Idle {
            http.state = State::Idle;
            send.deadlines.stage = saturating_add(now, lifetime);
        }
        if vhost.http_pool.wants_service() {
            self.inner.fetches.note_change(send.vhost());
        }
    }

    /// The stream has ended: what that is to the request.
    pub(crate) fn fetch_stream_ended(&mut self) {
        let Conn {
            io, role, stash, ..
        } = &mut *self.conn;
        let Some(end) = io.as_ref().and_then(|io| io.read_end()) else {
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

/// Bytes of a redirect's body that are read for the sake of the connection.
const MAX_DRAINED: usize = 64 * 1024;
