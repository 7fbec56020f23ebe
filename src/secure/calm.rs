//! The short way of a visit over TLS: see [`Lift::visit_calmly`].

use std::mem;
use std::ops::ControlFlow::{Break, Continue};

use crate::conn::{Conn, Flags, Role, STASHED_HEADER};
use crate::context::ready_plain;
use crate::lift::Lift;
use crate::tls::TlsFailure;
use crate::tls::session::Received;
use crate::ws::Side;
use crate::wsi::Wsi;

impl Lift<'_> {
    /// [`Lift::visit_calmly`] for a connection over TLS.
    #[inline(never)]
    pub(crate) fn visit_records_calmly(&mut self, is_writable: bool) -> Option<usize> {
        let Self { conn, inner, parts } = self;
        let Conn { io, role, send, .. } = &mut **conn;
        let (Some(io), Role::Ws(ws)) = (io, role) else {
            return Some(0);
        };
        let Some(room @ [_, ..]) = parts.buffer.get_mut(STASHED_HEADER..) else {
            return Some(0);
        };
        let input = io.read_calmly(is_writable, room);
        let (Some(secure), n @ 1..) = (&mut io.secure, input.len()) else {
            return Some(0);
        };
        send.last_received = inner.out.moment;
        let plain = ready_plain(&mut parts.plain);
        if let Some(outcome) = secure.receive_calmly(input, plain) {
            return self.opened_oddly(n, outcome);
        }
        let input = plain.get_mut(STASHED_HEADER..).unwrap_or_default();
        let bound = parts.protocols.get_mut(send.protocol as usize);
        let (Some(bound), Side::Server) = (bound, send.side) else {
            return self.give_rest(n, 0);
        };
        let open_to = send.settings.open_to;
        send.tx.open_calmly(&mut inner.out.pool, open_to);
        let mut wsi = Wsi::new(inner, send, Some(io));
        let (Continue(left) | Break(left)) =
            bound.dispatch.drive_calmly(input, &mut wsi, ws.session);
        if left > 0 || send.flags != Flags::CALM_VISIT {
            let used = input.len().saturating_sub(left);
            return self.give_rest(n, used);
        }
        if let Some(taken) = io.flush_open_records(&mut send.tx, &mut inner.out.pool) {
            send.note_output(inner.out.now, taken, io);
            return Some(n);
        }
        // With everything opened, and everything written, TLS has nothing to say or to finish.
        io.is_readable().then_some(n)
    }

    /// More than application data has come, or not all of a record.
    #[cold]
    #[inline(never)]
    fn opened_oddly(&mut self, n: usize, outcome: Result<Received, TlsFailure>) -> Option<usize> {
        self.conn.send.flags -= Flags::CALM | Flags::SENDS;
        let plain = mem::take(&mut self.parts.plain);
        self.records_opened(plain, outcome);
        Some(n)
    }

    /// The same for what is no whole message, and after anything out of the ordinary. Of what was
    /// opened `used` bytes are done.
    #[inline(never)]
    fn give_rest(&mut self, n: usize, used: usize) -> Option<usize> {
        self.conn.send.flags -= Flags::CALM | Flags::SENDS;
        let mut plain = mem::take(&mut self.parts.plain);
        if let Some(input @ [_, ..]) = plain.get_mut(STASHED_HEADER + used..) {
            self.give_aside(input);
        }
        self.parts.put_plain(plain);
        let Conn { io, send, .. } = &mut *self.conn;
        if let (Some(io), false) = (io, send.flags.contains(Flags::ABORT)) {
            let pool = &mut self.inner.out.pool;
            if send.tx.is_empty() {
                send.tx.give_back(pool);
            } else if send.is_open() && io.is_calm() {
                let taken = io.flush_records_at_once(&mut send.tx, pool);
                if !io.is_flushed(&send.tx) {
                    send.note_output(self.inner.out.now, taken, io);
                }
            }
        }
        (!self.conn.is_calm()).then_some(n)
    }
}
