//! What is answered to a request that becomes no connection, and how that ends.

use std::time::Duration;

use super::State;
use crate::config::PlaintextPolicy;
use crate::conn::Role;
use crate::error::{Deadline, DeadlineStage, RefusalReason, ServerRefusal};
use crate::http::body::Framing;
use crate::http::head::RequestHead;
use crate::http::response::is_framing_field;
use crate::http::{HeaderList, write_response};
use crate::inner::{Out, Owner};
use crate::lift::Lift;
use crate::protocol::Refuse;
use crate::timer::saturating_add;
use crate::ws::handshake::UpgradeError;
use crate::wsi::Cx;

impl Lift<'_> {
    pub(super) fn refuse(&mut self, refuse: &Refuse) {
        self.respond_with(refuse.status, &refuse.headers, &refuse.body);
        self.refused(RefusalReason::Protocol(refuse.status));
    }

    /// The application's mistake: the client would have to fail the connection.
    pub(super) fn refuse_subprotocol(&mut self, name: &str) {
        self.respond_text(500, "internal error\n");
        self.refused(RefusalReason::SubprotocolNotOffered(name.to_owned()));
    }

    /// A plain HTTP request to a vhost that serves none.
    pub(super) fn answer_plain(&mut self, head: &RequestHead<'_>) {
        let (status, headers, text) = match Framing::of_request(head) {
            Err(error) => (error.status(), [].as_slice(), format!("{error}\n")),
            Ok(_) => {
                let error = UpgradeError::NotAnUpgrade;
                (error.status(), error.headers(), format!("{error}\n"))
            }
        };
        let body = if head.method() == "HEAD" { "" } else { &text };
        self.respond(status, headers, body.as_bytes());
        self.refused(RefusalReason::PlainHttp(status));
    }

    pub(crate) fn respond_text(&mut self, status: u16, text: &str) {
        self.respond(status, &[], text.as_bytes());
    }

    pub(super) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let Out { pool, date, .. } = &mut self.inner.out;
        let own = [("Date", date.as_str()), ("Content-Type", TEXT)];
        let all = own.iter().chain(headers).copied();
        let tx = &mut self.conn.send.tx;
        tx.append(pool, |tail| write_response(tail, status, all, body));
    }

    pub(crate) fn respond_with(&mut self, status: u16, headers: &HeaderList, body: &[u8]) {
        let Out { pool, date, .. } = &mut self.inner.out;
        let own = headers
            .get("date")
            .is_none()
            .then_some(("Date", date.as_bytes()));
        // A 426 names what to upgrade to (RFC 9110 section 15.5.22); the rest frames the response.
        let fit = |name: &str| !is_framing_field(name) || name.eq_ignore_ascii_case("upgrade");
        let fields = headers.iter().filter(|(name, _)| fit(name));
        let all = own.into_iter().chain(fields);
        let tx = &mut self.conn.send.tx;
        tx.append(pool, |tail| write_response(tail, status, all, body));
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
    pub(crate) fn arm_last_words(&mut self) {
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
        let tls = match self.is_in_tls_handshake() {
            true => Deadline::new(DeadlineStage::Tls, timeouts.tls),
            false => Deadline::new(DeadlineStage::Head, timeouts.head),
        };
        if !http.is_responding() && self.time_out_handshake(tls) {
            return;
        }
        let Role::Http(http) = &self.conn.role else {
            return;
        };
        if http.is_idle() {
            return self.close_http();
        }
        let timeouts = &self.conn.send.settings.timeouts;
        let (status, deadline) = match &http.state {
            State::Asking(_) => return self.time_out_hooks(),
            State::Exchange(_) => return self.time_out_exchange(),
            State::Head => (408, Deadline::new(DeadlineStage::Head, timeouts.head)),
            State::Waiting(pending) | State::Decided(pending, _) => {
                (503, Deadline::new(DeadlineStage::Verdict, pending.deadline))
            }
            // How long answers take to leave is the write deadline's business.
            State::Responding if http.has_served() && !self.is_flushed() => return,
            State::Responding => return self.end_now(),
        };
        self.respond(status, &[], b"");
        self.refused(RefusalReason::Timeout(deadline));
    }

    /// A shutdown or the end of the vhost meets a request.
    pub(crate) fn turn_away(&mut self) {
        let Role::Http(http) = &mut self.conn.role else {
            return;
        };
        if let Some(exchange) = http.exchange_mut() {
            // It may be finished; no other one follows.
            return exchange.close_after();
        }
        if http.is_idle() {
            return self.close_http();
        }
        if http.is_responding() {
            return;
        }
        // Silence on a port that speaks nothing else may yet become a handshake.
        let awaits_tls = http.sniffs == Some(PlaintextPolicy::Reject);
        if awaits_tls || self.is_in_tls_handshake() {
            return self.end_unanswered(RefusalReason::Shutdown);
        }
        self.abandon_hooks();
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
        let (index, generation) = http.listener;
        let listener = self.parts.listeners.get(index, generation);
        let shared = listener.is_some_and(|slot| slot.vhosts.len() > 1);
        #[cfg(feature = "tls")]
        let secure = io.secure.as_ref();
        #[cfg(feature = "tls")]
        let by_name = secure.is_some_and(|secure| secure.chose_vhost());
        #[cfg(not(feature = "tls"))]
        let by_name = false;
        let known = !shared || by_name || reason.knows_vhost();
        let refusal = ServerRefusal {
            id: self.conn.send.id,
            peer: io.peer(),
            vhost: known.then_some(self.conn.send.vhost()),
            reason,
            #[cfg(feature = "tls")]
            server_name: secure.and_then(|secure| secure.server_name()),
            #[cfg(feature = "tls")]
            tls: secure.and_then(|secure| secure.info()),
            #[cfg(feature = "tls")]
            peer_identity: secure.and_then(|secure| secure.peer_identity()),
        };
        let mut cx = Cx::new(self.inner, Owner::Observer);
        self.parts.observer.on_refused(&mut cx, &refusal);
    }
}

/// Bytes a second at which a last response has to be taken, at least.
const SLOWEST_READER: usize = 4096;
const TEXT: &str = "text/plain; charset=utf-8";
