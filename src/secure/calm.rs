//! The short way of a visit over TLS: see [`Lift::visit_calmly`].

use crate::conn::{Conn, Flags, Role, STASHED_HEADER};
use crate::lift::Lift;
use crate::tls::session::Received;
use crate::ws::Side;
use crate::wsi::Wsi;

impl Lift<'_> {
    /// [`Lift::visit_calmly`] for a connection over TLS.
    #[inline(never)]
    pub(crate) fn visit_records_calmly(&mut self, is_writable: bool) -> Option<usize> {
        let mut plain = self.parts.take_plain();
        let Self { conn, inner, parts } = self;
        let (Some(io), Some(room @ [_, ..])) =
            (&mut conn.io, parts.buffer.get_mut(STASHED_HEADER..))
        else {
            parts.put_plain(plain);
            return Some(0);
        };
        let n = io.read_calmly(is_writable, room);
        let (Some(secure), Some(input @ [_, ..])) = (&mut io.secure, room.get_mut(..n)) else {
            parts.put_plain(plain);
            return Some(0);
        };
        conn.send.last_received = inner.out.moment;
        let outcome = secure.receive_calmly(input, &mut plain);
        // What is to be answered has its number among the records already.
        let is_usual = matches!(&outcome, Ok(received) if *received == Received::default());
        if !is_usual || !secure.is_flushed() {
            conn.send.flags -= Flags::CALM | Flags::SENDS;
            self.records_opened(plain, outcome);
            return Some(n);
        }
        let is_calm = self.give_calmly(plain.get_mut(STASHED_HEADER..).unwrap_or_default());
        self.parts.put_plain(plain);
        (!is_calm).then_some(n)
    }

    /// Gives opened data to the protocol and sends what that led to. Whether it is calm then.
    #[inline]
    fn give_calmly(&mut self, input: &mut [u8]) -> bool {
        let Self { conn, inner, parts } = self;
        let Conn { io, role, send, .. } = &mut **conn;
        let (Some(io), Role::Ws(ws)) = (io, role) else {
            return false;
        };
        let bound = parts.protocols.get_mut(send.protocol as usize);
        let (Some(bound), Side::Server) = (bound, send.side) else {
            return self.give_rest(input);
        };
        send.tx
            .open_calmly(&mut inner.out.pool, send.settings.open_to);
        let mut wsi = Wsi::new(inner, send, Some(io));
        let used = bound.dispatch.drive_calmly(input, &mut wsi, ws.session);
        let rest = input.get_mut(used..).unwrap_or_default();
        if !rest.is_empty() || send.flags != Flags::CALM_VISIT {
            return self.give_rest(rest);
        }
        let pool = &mut inner.out.pool;
        if send.tx.is_empty() {
            send.tx.give_back(pool);
        } else {
            let taken = io.flush_records_at_once(&mut send.tx, pool);
            if !io.is_flushed(&send.tx) {
                send.note_output(inner.out.now, taken, io);
                return false;
            }
        }
        io.is_quiet()
    }

    /// The same for what is no whole message, and after anything out of the ordinary.
    #[inline(never)]
    fn give_rest(&mut self, input: &mut [u8]) -> bool {
        self.conn.send.flags -= Flags::CALM | Flags::SENDS;
        if !input.is_empty() {
            self.give_aside(input);
        }
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
        self.is_calm()
    }
}
