//! The calm visits of one protocol's connections, one after another.
//!
//! The type of the protocol is known here, so that nothing has to be looked up and called for each
//! visit, and all of them share the receive buffer and one queue of output.

use std::mem;
use std::ops::ControlFlow;

use super::calm::end_lending;
use crate::conn::{Conn, Flags, NO_PROTOCOL, Role};
use crate::id::{Token, same_generation};
use crate::inner::Inner;
use crate::net::poller::{Event, Events};
use crate::protocol::Dispatch;
use crate::ws::send::{Held, LEND_FROM};
use crate::wsi::Wsi;

/// Events of a batch, of which at least the first is about a calm connection of the protocol that
/// gets them, with all of the loop that their visits need.
#[derive(Debug)]
pub(crate) struct Run<'a, 'e> {
    pub(crate) first: Event<'e>,
    pub(crate) events: &'a mut Events<'e>,
    /// How many events of the batch have had their turn.
    pub(crate) done: &'a mut usize,
    pub(crate) protocol: u32,
    pub(crate) inner: &'a mut Inner,
    /// Where a connection is while it is visited, so that a panic of its callback leaves it there.
    pub(crate) air: &'a mut Option<Box<Conn>>,
    /// The receive buffer, behind the room for a stashed header.
    pub(crate) room: &'a mut [u8],
}

/// How a run has ended.
#[derive(Debug)]
pub(crate) enum Stop<'e> {
    /// All events have had their turn.
    Done,
    /// This one is not about a calm connection of the protocol. Nothing was done about it.
    Event(Event<'e>),
    /// The visit for this one, in which `n` bytes were read, has more to do than a calm one. Its
    /// connection is in the air.
    Visit { event: Event<'e>, n: usize },
    /// The same when the last `left` bytes of them have not been processed, or a callback has done
    /// something out of the ordinary.
    Rest {
        event: Event<'e>,
        n: usize,
        left: usize,
    },
}

impl Conn {
    /// Whether an event is dealt with in a [`Run`].
    pub(crate) fn is_for_run(&self, event: Event<'_>) -> bool {
        let is_established = self.io.is_some() && matches!(self.role, Role::Ws(_));
        let has_runs = is_established && self.send.runs_with != NO_PROTOCOL;
        has_runs && is_calm_one_of(self, self.send.runs_with) && event.is_plain()
    }
}

impl<'e> Run<'_, 'e> {
    /// Visits one connection of that protocol after the other.
    #[inline(always)]
    pub(crate) fn each(mut self, bound: &mut impl Dispatch) -> Stop<'e> {
        let mut queue = Some(self.inner.out.pool.take_queue());
        let mut event = self.first;
        let stop = loop {
            if let Err(stop) = self.visit(event, &mut queue, bound) {
                break stop;
            }
            match self.events.next() {
                Some(next) => event = next,
                None => break Stop::Done,
            }
            *self.done += 1;
        };
        self.inner.out.pool.take_lent_queue(&mut queue);
        stop
    }

    /// A visit: one read, the callbacks, one write.
    #[inline(always)]
    fn visit(
        &mut self,
        event: Event<'e>,
        queue: &mut Option<Box<Held>>,
        bound: &mut impl Dispatch,
    ) -> Result<(), Stop<'e>> {
        let index = self.lift(event)?;
        let Self {
            inner, air, room, ..
        } = self;
        let Some(Conn {
            io: Some(io),
            role: Role::Ws(ws),
            send,
            ..
        }) = air.as_deref_mut()
        else {
            self.put_back(index);
            return Err(Stop::Event(event));
        };
        send.flags = Flags::CALM_VISIT;
        let input = io.read_calmly(event.is_writable(), room);
        let n = input.len();
        if n == 0 {
            return Err(Stop::Visit { event, n });
        }
        send.last_received = inner.out.moment;
        let open_to = send.settings.open_to;
        send.tx.open_lent(queue, &mut inner.out.pool, open_to);
        // No shorter message is lent.
        let lends = n >= LEND_FROM;
        if lends {
            let addresses = input.as_ptr_range();
            inner.out.lender = addresses.start.addr()..addresses.end.addr();
        }
        let mut wsi = Wsi::new(inner, send, Some(io));
        let driven = bound.drive_calmly(input, &mut wsi, ws.session);
        let waits = lends && end_lending(&mut inner.out, send, io, input);
        match driven {
            ControlFlow::Continue(0) if !waits => {}
            ControlFlow::Continue(left) | ControlFlow::Break(left) => {
                return Err(Stop::Rest { event, n, left });
            }
        }
        debug_assert!(send.flags == Flags::CALM_VISIT, "what ends it is a break");
        send.tx.exchange(queue);
        if let Some(taken) = queue.as_deref_mut().and_then(|queue| io.write_open(queue)) {
            // The rest is the connection's.
            send.tx.exchange(queue);
            send.tx.advance(taken, &mut inner.out.pool);
            send.note_output(inner.out.now, taken, io);
            return Err(Stop::Visit { event, n });
        }
        if io.is_readable() {
            return Err(Stop::Visit { event, n });
        }
        send.flags = Flags::CALM;
        let index = send.id.index;
        self.put_back(index);
        Ok(())
    }

    /// Takes the connection that an event is about out of its slot, if its visit is one of this run.
    #[inline(always)]
    fn lift(&mut self, event: Event<'e>) -> Result<u32, Stop<'e>> {
        let Token::Wsi { index, generation } = Token::unpack(event.token()) else {
            return Err(Stop::Event(event));
        };
        let fits = |known| same_generation(generation, known);
        match self.inner.conns.place_any(index, fits) {
            Some(place @ Some(_)) if event.is_plain() => {
                let conn = place.as_deref();
                if !conn.is_some_and(|conn| is_calm_one_of(conn, self.protocol)) {
                    return Err(Stop::Event(event));
                }
                debug_assert!(
                    conn.is_some_and(Conn::is_calm),
                    "something has happened to it"
                );
                mem::swap(place, self.air);
                Ok(index)
            }
            _ => Err(Stop::Event(event)),
        }
    }

    /// Puts it back, which no callback can have removed.
    #[inline(always)]
    fn put_back(&mut self, index: u32) {
        if let Some(place) = self.inner.conns.place_of_lifted(index) {
            mem::swap(place, self.air);
        }
    }
}

/// Whether it is calm, and the runs of that protocol are those it has part in.
#[inline(always)]
fn is_calm_one_of(conn: &Conn, protocol: u32) -> bool {
    conn.send.flags == Flags::CALM && conn.send.runs_with == protocol
}
