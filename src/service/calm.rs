//! An event of a transport, whose connection is calm nearly always.

use crate::conn::{Conn, Flags};
use crate::context::Context;
use crate::id::same_generation;
use crate::inner::LiftMark;
use crate::lift::Lift;
use crate::net::poller::ReadyFlags;

impl Context {
    #[inline(always)]
    pub(super) fn on_transport(&mut self, index: u32, generation: u64, flags: ReadyFlags) {
        // An event of a transport that ended earlier in this batch is about nobody.
        let fits = |known| same_generation(generation, known);
        let Some(conn) = self.inner.conns.lift_any(index, fits) else {
            return;
        };
        if let Some((conn, spent)) = self.visit_calmly(conn, index, flags) {
            self.visit_fully(conn, flags, spent);
        }
    }

    /// What a calm visit, in which `spent` bytes were read, has not done.
    #[cold]
    #[inline(never)]
    fn visit_fully(&mut self, conn: Box<Conn>, flags: ReadyFlags, spent: usize) {
        self.visit(conn, |lift| {
            // A calm visit that has read something has noted it.
            if let (Some(io), 0) = (&mut lift.conn.io, spent) {
                io.note(flags);
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
        flags: ReadyFlags,
    ) -> Option<(Box<Conn>, usize)> {
        let is_usual = flags - ReadyFlags::WRITABLE == ReadyFlags::READABLE;
        if !is_usual || conn.send.flags != Flags::CALM {
            return Some((conn, 0));
        }
        conn.send.flags = Flags::CALM_VISIT;
        let mut air = Air {
            conn: Some(conn),
            fallen: &mut self.fallen,
        };
        let conn = air.conn.as_deref_mut()?;
        let mut lift = Lift {
            conn,
            inner: &mut self.inner,
            parts: &mut self.parts,
        };
        debug_assert!(lift.is_calm(), "something has happened to it");
        let spent = lift.visit_calmly(flags);
        let conn = air.conn.take();
        // Only a panic asks for what it would do.
        std::mem::forget(air);
        let mut conn = conn?;
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
        let taken = io.flush_calmly(&mut send.tx, &mut out.pool);
        if !io.is_flushed(&send.tx) {
            send.note_output(out.now, taken, io);
            return Some(conn);
        }
        send.flags = Flags::CALM;
        let id = send.id;
        self.inner.conns.restore(id.index, id.generation, conn);
        None
    }
}

/// A calm connection in the air. If its callback panics, it is noted whose slot, session and
/// accounts are left; nothing has to be written down before.
struct Air<'a> {
    conn: Option<Box<Conn>>,
    fallen: &'a mut Option<LiftMark>,
}

impl Drop for Air<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            *self.fallen = Some(LiftMark::of(&conn));
        }
    }
}
