//! An event of a transport, whose connection is calm nearly always.

use crate::conn::{Conn, Flags, STASHED_HEADER};
use crate::context::{Context, Parts};
use crate::id::same_generation;
use crate::lift::{Lift, Run, Stop};
use crate::net::poller::{Event, Events};

impl Context {
    /// As [`Context::on_event`].
    pub(super) fn on_transport<'e>(
        &mut self,
        index: u32,
        generation: u64,
        event: Event<'e>,
        events: &mut Events<'e>,
    ) -> Option<Event<'e>> {
        // An event of a transport that ended earlier in this batch is about nobody.
        let fits = |known| same_generation(generation, known);
        let place = self.inner.conns.place_any(index, fits)?;
        let conn = place.as_deref()?;
        // A buffer that a panic lost is made by the other path.
        if conn.is_for_run(event) && !self.parts.buffer.is_empty() {
            let protocol = conn.send.protocol;
            return self.visit_run(protocol, event, events);
        }
        let conn = place.take()?;
        if conn.send.flags == Flags::CALM && event.is_plain() {
            self.visit_calmly(conn, event);
        } else {
            self.visit_fully(conn, event, 0);
        }
        None
    }

    /// Visits the calm connections of a protocol that events are about, of which this is the first,
    /// up to one that is about something else, which it gives.
    fn visit_run<'e>(
        &mut self,
        protocol: u32,
        first: Event<'e>,
        events: &mut Events<'e>,
    ) -> Option<Event<'e>> {
        let Parts {
            protocols, buffer, ..
        } = &mut self.parts;
        let run = Run {
            first,
            events,
            done: &mut self.turn.events_done,
            protocol,
            inner: &mut self.inner,
            air: &mut self.air,
            room: buffer.get_mut(STASHED_HEADER..)?,
        };
        let bound = protocols.get_mut(protocol as usize)?;
        match bound.dispatch.visit_calmly(run) {
            Stop::Done => {}
            Stop::Event(event) => return Some(event),
            Stop::Visit { event, n } => self.end_visit(event, Some(n)),
            Stop::Rest { event, n, left } => {
                let Self { inner, parts, .. } = self;
                let conn = self.air.as_deref_mut()?;
                let spent = Lift { conn, inner, parts }.go_on_calmly(n, n.saturating_sub(left));
                self.end_visit(event, spent);
            }
        }
        None
    }

    /// Visits a calm connection by itself.
    fn visit_calmly(&mut self, mut conn: Box<Conn>, event: Event<'_>) {
        debug_assert!(conn.is_calm(), "something has happened to it");
        conn.send.flags = Flags::CALM_VISIT;
        // Here a panic of its callback leaves it.
        let conn = &mut **self.air.get_or_insert(conn);
        let Self { inner, parts, .. } = self;
        let spent = Lift { conn, inner, parts }.visit_calmly(event.is_writable());
        self.end_visit(event, spent);
    }

    /// Puts the connection of a calm visit back, if nothing else is to be done. If there is, it has
    /// read `spent` bytes.
    fn end_visit(&mut self, event: Event<'_>, spent: Option<usize>) {
        let Some(mut conn) = self.air.take() else {
            return;
        };
        if let Some(spent) = spent {
            return self.visit_fully(conn, event, spent);
        }
        conn.send.flags = Flags::CALM;
        // No callback can have removed it.
        let index = conn.send.id.index;
        self.inner.conns.put_back(index, conn);
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
