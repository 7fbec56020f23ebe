//! An event of a transport, whose connection is calm nearly always.

use crate::conn::{Conn, Flags};
use crate::context::Context;
use crate::id::same_generation;
use crate::lift::Lift;
use crate::net::poller::Event;

impl Context {
    #[inline(always)]
    pub(super) fn on_transport(&mut self, index: u32, generation: u64, event: Event<'_>) {
        // An event of a transport that ended earlier in this batch is about nobody.
        let fits = |known| same_generation(generation, known);
        let Some(conn) = self.inner.conns.lift_any(index, fits) else {
            return;
        };
        if let Some((conn, spent)) = self.visit_calmly(conn, index, event) {
            self.visit_fully(conn, event, spent);
        }
    }

    /// What a calm visit, in which `spent` bytes were read, has not done.
    #[cold]
    #[inline(never)]
    fn visit_fully(&mut self, conn: Box<Conn>, event: Event<'_>, spent: usize) {
        self.visit(conn, |lift| {
            // A calm visit that has read something has noted it.
            if let (Some(io), 0) = (&mut lift.conn.io, spent) {
                io.note(event.flags());
            }
            lift.pump_all(spent)
        });
    }

    /// Visits a calm connection and puts it back, if nothing else is to be done; gives it back if
    /// there is, with how many bytes were read.
    #[inline(always)]
    fn visit_calmly(
        &mut self,
        mut conn: Box<Conn>,
        index: u32,
        event: Event<'_>,
    ) -> Option<(Box<Conn>, usize)> {
        if conn.send.flags != Flags::CALM || !event.is_plain() {
            return Some((conn, 0));
        }
        conn.send.flags = Flags::CALM_VISIT;
        // Here a panic of its callback leaves it.
        let conn = &mut **self.air.get_or_insert(conn);
        let Self { inner, parts, .. } = self;
        #[cfg(debug_assertions)]
        assert!(
            Lift { conn, inner, parts }.is_calm(),
            "something has happened to it"
        );
        let spent = Lift::visit_calmly(conn, inner, parts, event.is_writable());
        let mut conn = self.air.take()?;
        if let Some(spent) = spent {
            return Some((conn, spent));
        }
        conn.send.flags = Flags::CALM;
        // No callback can have removed it.
        self.inner.conns.put_back(index, conn);
        None
    }

    /// Writes the messages of a calm connection to which nothing else has happened, and puts it
    /// back; gives it back if there is more to do. No callback is called.
    #[inline]
    pub(super) fn write_calmly(&mut self, mut conn: Box<Conn>) -> Option<Box<Conn>> {
        if !conn.send.flags.is_calm_output() {
            return Some(conn);
        }
        let Conn { io, send, .. } = &mut *conn;
        let Some(io) = io else { return Some(conn) };
        let out = &mut self.inner.out;
        let waits = if io.secure.is_none() && send.tx.is_flat() {
            io.flush_open(&mut send.tx, &mut out.pool)
        } else {
            let taken = io.flush_calmly(&mut send.tx, &mut out.pool);
            (!io.is_flushed(&send.tx)).then_some(taken)
        };
        if let Some(taken) = waits {
            send.note_output(out.now, taken, io);
            return Some(conn);
        }
        send.flags = Flags::CALM;
        let index = send.id.index;
        self.inner.conns.put_back(index, conn);
        None
    }
}
