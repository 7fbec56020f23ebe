//! The turn: the only caller of the clock, and the only place that lifts connections.

mod accept;
mod calm;
#[cfg(feature = "sim")]
mod invariants;
mod told;

use std::io;
use std::time::Duration;

use crate::arena::Arena;
use crate::conn::{Conn, Flags, Phase, Role, SendHalf};
use crate::context::{Context, ListenerState};
use crate::error::{CloseKind, ConnectFailure};
use crate::fetch::FetchFailure;
use crate::id::{FetchId, Token, VhostId, WsiId, same_generation};
use crate::inner::{Command, Inner, LiftMark, Out, Owner, TimerKind, VhostState};
use crate::lift::{Fate, Lift};
use crate::net::poller::{Event, Events, Found};
use crate::net::resolve::Resolved;
use crate::timer::{Alarm, Round, saturating_add};
use crate::vhost;
use crate::ws::{Close, CloseCode, Side};
use told::Told;

/// How far the current turn is. It is kept between calls, so that a turn that a panic interrupted
/// goes on with the next one.
#[derive(Debug)]
pub(crate) struct Turn {
    events: Found,
    /// How many of them have had their turn.
    events_done: usize,
    /// The poller had more events than fitted.
    more_events: bool,
    /// Connections whose budget was spent: others come first, so they wait for the next turn.
    ready: Vec<WsiId>,
    /// Those of the turn before.
    going_on: Vec<WsiId>,
    settling: Vec<WsiId>,
    /// Listeners that have more to accept, each of them once.
    accepting: Vec<(u32, u64)>,
    /// How many of them are of the turn before.
    to_accept: usize,
    /// What the resolver found out.
    answers: Vec<Resolved>,
    /// Who waits for an `on_wake`.
    waking: Vec<Owner>,
    /// The alarms of connections that are due, the earliest last.
    due: Vec<Alarm>,
    /// Some listener waits for connections to end.
    full: bool,
    /// Some listener waits for TLS handshakes to end.
    crowded: bool,
    max_per_ip: Option<u32>,
}

impl Turn {
    pub(crate) const fn new(events: Found, max_per_ip: Option<u32>) -> Self {
        Self {
            events,
            events_done: 0,
            more_events: false,
            ready: Vec::new(),
            going_on: Vec::new(),
            settling: Vec::new(),
            accepting: Vec::new(),
            to_accept: 0,
            answers: Vec::new(),
            waking: Vec::new(),
            due: Vec::new(),
            full: false,
            crowded: false,
            max_per_ip,
        }
    }

    /// What the turn before left over has its share in this one; what this one leaves over waits.
    fn take_left_over(&mut self) {
        std::mem::swap(&mut self.going_on, &mut self.ready);
        self.to_accept = self.accepting.len();
    }

    fn is_accepting(&self, index: u32, generation: u64) -> bool {
        self.accepting.contains(&(index, generation))
    }

    fn is_interrupted(&self) -> bool {
        self.events_done < self.events.len()
            || !self.going_on.is_empty()
            || !self.settling.is_empty()
            || !self.answers.is_empty()
            || !self.waking.is_empty()
            || !self.due.is_empty()
    }
}

impl Context {
    /// One turn of the loop: waits until something happens, at most `timeout` (`None`: as long as
    /// it takes), and deals with it. Callbacks run inside this call only.
    ///
    /// # Errors
    ///
    /// The poller's, which no peer can cause.
    ///
    /// # Panics
    ///
    /// When a callback does. The connection that it was about is dropped without `on_closed`; the
    /// next call goes on with the rest.
    ///
    /// # Nesting
    ///
    /// Turns do not nest: a callback has a [`Cx`](crate::Cx), which leads to everything but the
    /// context, and whoever runs one holds the context already. This does not compile, and would
    /// without the line inside the closure:
    ///
    /// ```compile_fail,E0499
    /// // RE-12
    /// # use wsloop::{Close, Context, ContextConfig, Established, Protocol, VhostConfig, Wsi};
    /// # struct P;
    /// # impl Protocol for P {
    /// #     type Session = ();
    /// #     fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// let mut context = Context::new(ContextConfig::new()).unwrap();
    /// let mut vhost = VhostConfig::new("localhost");
    /// let handle = vhost.add_protocol("p", P);
    /// context.create_vhost(vhost).unwrap();
    /// context.with_protocol(handle, |_, cx| {
    ///     context.service(None).unwrap();
    ///     cx.now();
    /// });
    /// ```
    pub fn service(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.recover();
        if !self.turn.is_interrupted() {
            self.wait(timeout)?;
            self.turn.take_left_over();
        }
        self.on_events();
        self.on_answers();
        self.on_left_over();
        self.on_timers();
        self.on_wake();
        self.on_commands();
        self.on_fetches();
        self.settle();
        if self.inner.out.alarms.has_stale() {
            let Inner { conns, out, .. } = &mut self.inner;
            out.alarms.tidy(|alarm| is_set(conns, alarm));
        }
        Ok(())
    }

    /// Turns until a [`shutdown`](Context::shutdown) has come to its end.
    ///
    /// # Errors
    ///
    /// The poller's, which no peer can cause.
    ///
    /// # Panics
    ///
    /// As [`Context::service`].
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_shut_down() {
            self.service(None)?;
        }
        Ok(())
    }

    /// Begins a graceful shutdown: listeners close, every WebSocket gets a Close frame with 1001,
    /// requests are answered with 503, client attempts end. What is left after `grace` is
    /// aborted. Every connection gets its final event from the turns that follow;
    /// [`Context::run`] then returns. A message that is on its way to a connection of this same
    /// context is not delivered any more: that connection is closing, too.
    ///
    /// On a signal: a thread that waits for it sets a flag and calls
    /// [`CancelService::cancel_service`](crate::CancelService::cancel_service), and
    /// [`on_wake`](crate::Protocol::on_wake) calls [`Cx::shutdown`](crate::Cx::shutdown).
    pub fn shutdown(&mut self, grace: Duration) {
        self.inner.shutting_down = true;
        self.close_listeners();
        self.inner.commands.push_back(Command::Shutdown(grace));
    }

    /// Whether a shutdown has come to its end: no connection is left.
    pub fn is_shut_down(&self) -> bool {
        self.inner.shutting_down && self.inner.conns.len() == 0
    }

    pub(crate) fn read_clock(&mut self) {
        let out = &mut self.inner.out;
        out.now = self.clock.now();
        out.moment = out.epoch.moment(out.now);
        if out.redate_at.is_none_or(|at| out.now >= at) {
            self.clock.http_date(&mut out.date);
            out.redate_at = saturating_add(out.now, DATE_PRECISION);
        }
    }

    /// Whether there is something to do that no event announces.
    pub(crate) fn has_work(&self) -> bool {
        let turn = &self.turn;
        turn.more_events
            || turn.is_interrupted()
            || !turn.ready.is_empty()
            || !turn.accepting.is_empty()
            || !self.inner.out.dirty.is_empty()
            || !self.inner.commands.is_empty()
            || !self.inner.fetches.is_quiet()
            || self.inner.lifted.is_some()
            || self.air.is_some()
            || self.cancel.is_called()
            || self.can_reopen()
    }

    /// A listener waits for connections or handshakes to end, and one has: no event will tell it
    /// again.
    fn can_reopen(&self) -> bool {
        self.turn.full && self.inner.conns.len() < self.inner.max_connections
            || self.turn.crowded && self.inner.handshakes < self.inner.max_handshakes
    }

    /// Cleans up after a callback that panicked: its connection went with the unwinding, its slot
    /// and its session did not.
    #[inline]
    fn recover(&mut self) {
        if self.inner.lifted.is_some() || self.air.is_some() {
            self.bury_fallen();
        }
    }

    #[cold]
    fn bury_fallen(&mut self) {
        let fallen = self.air.take().map(|conn| LiftMark::of(&conn));
        let Some(mark) = self.inner.lifted.take().or(fallen) else {
            return;
        };
        self.inner.out.lent.clear();
        self.inner.out.lender = 0..0;
        if let (Some(session), Some(slot)) = (
            mark.session,
            self.parts.protocols.get_mut(mark.protocol as usize),
        ) {
            slot.dispatch.forget(session);
        }
        if let Some((handler, place)) = mark.exchange {
            if let Some(slot) = self.parts.handlers.get_mut(handler as usize) {
                slot.dispatch.forget(place);
            }
        }
        if let Some(id) = mark.fetch {
            drop(self.inner.remove_fetch(id));
        }
        // Their keys went with the connection.
        self.inner
            .out
            .timers
            .cancel_matching(|kind| matches!(kind, TimerKind::Wsi(id, _) if id == mark.id));
        self.release(&mark);
        let Inner { conns, out, .. } = &mut self.inner;
        out.alarms.sweep(|alarm| is_set(conns, alarm));
        self.lend_inflaters();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.inner.conns.recycle();
        self.inner.vhosts.recycle();
        self.inner.fetches.recycle();
        self.parts.listeners.recycle();
        let timeout = if self.has_work() {
            Some(Duration::ZERO)
        } else {
            self.until_deadline(timeout)
        };
        self.turn.events_done = 0;
        self.turn.more_events = self.parts.poller.wait(timeout, &mut self.turn.events)?;
        self.read_clock();
        Ok(())
    }

    fn until_deadline(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let Some(deadline) = self.inner.out.next_deadline() else {
            return timeout;
        };
        if timeout == Some(Duration::ZERO) {
            return timeout;
        }
        self.read_clock();
        let left = deadline.since(self.inner.out.moment);
        Some(timeout.map_or(left, |timeout| timeout.min(left)))
    }

    /// Deals with what the poller found, where it lies. What a panic leaves is for the next turn.
    #[inline(never)]
    fn on_events(&mut self) {
        let events = std::mem::replace(&mut self.turn.events, Found::nothing());
        let lent = LentEvents {
            context: self,
            events,
        };
        lent.each();
    }

    /// Deals with an event, and with those that follow it if that is the shortest way. Gives the
    /// next one, if it has taken one that is not dealt with.
    fn on_event<'e>(&mut self, event: Event<'e>, events: &mut Events<'e>) -> Option<Event<'e>> {
        match Token::unpack(event.token()) {
            Token::Wsi { index, generation } => {
                return self.on_transport(index, generation, event, events);
            }
            Token::Listener { index, generation } => self.on_listener(index, generation),
            // What it woke us for is asked for in every turn.
            Token::Waker => {}
        }
        None
    }

    #[cold]
    fn on_listener(&mut self, index: u32, generation: u64) {
        let known = self.parts.listeners.generation(index);
        if let Some(known) = known.filter(|known| same_generation(generation, *known)) {
            if !self.turn.is_accepting(index, known) {
                self.accept(index, known);
            }
        }
    }

    /// What the resolver found out.
    fn on_answers(&mut self) {
        if self.parts.lookups.is_empty() {
            self.turn.answers.clear();
            return;
        }
        if self.turn.answers.is_empty() {
            self.turn.answers = self.parts.resolver.drain();
            // They are taken from the end.
            self.turn.answers.reverse();
        }
        while let Some(answer) = self.turn.answers.pop() {
            if let Some(id) = self.parts.lookups.remove(&answer.id) {
                self.lift(id, |lift| {
                    lift.on_resolved(answer.id, answer.result);
                    lift.pump()
                });
            }
        }
    }

    /// Connections whose budget was spent last turn, and listeners likewise.
    fn on_left_over(&mut self) {
        while let Some(id) = self.turn.going_on.pop() {
            self.lift(id, |lift| {
                lift.conn.send.flags -= Flags::READY;
                lift.pump()
            });
        }
        for _ in 0..std::mem::take(&mut self.turn.to_accept) {
            let (index, generation) = self.turn.accepting.remove(0);
            self.accept(index, generation);
        }
        if self.can_reopen() {
            self.reopen();
        }
    }

    fn on_timers(&mut self) {
        let Out {
            timers,
            alarms,
            now,
            moment,
            ..
        } = &mut self.inner.out;
        let round = timers.begin_round(*now);
        if self.turn.due.is_empty() {
            alarms.take_due(*moment, &mut self.turn.due);
        }
        loop {
            self.on_alarms(round);
            let Some((key, kind)) = self.inner.out.timers.pop_due(round) else {
                return;
            };
            match kind {
                TimerKind::Wsi(id, tag) => self.lift(id, |lift| {
                    lift.on_timer(key, tag);
                    lift.pump()
                }),
                TimerKind::Fetch(id) => self.on_fetch_timer(id),
                TimerKind::Free(owner, tag) => self.tell_owner(owner, Told::Timer(tag)),
                TimerKind::Listener { index, generation } => {
                    if let Some(slot) = self.parts.listeners.get_mut(index, generation) {
                        slot.state = ListenerState::Active;
                        self.accept(index, generation);
                    }
                }
                TimerKind::Shutdown => self.force_shutdown(),
                #[cfg(feature = "tls")]
                TimerKind::Upkeep(id) => self.on_upkeep(id),
            }
        }
    }

    /// The alarms that come before the next timer of the round.
    fn on_alarms(&mut self, round: Round) {
        while let Some(alarm) = self.turn.due.last().copied() {
            let Out { timers, epoch, .. } = &self.inner.out;
            let timer = timers.next_due(round);
            if timer.is_some_and(|timer| epoch.moment(timer) < alarm.at()) {
                return;
            }
            self.turn.due.pop();
            let conn = self.inner.conns.at(alarm.index());
            match conn.filter(|conn| conn.send.armed == Some(alarm.at())) {
                None => self.inner.out.alarms.was_stale(),
                Some(conn) => self.lift(conn.send.id, |lift| {
                    lift.on_deadline();
                    lift.pump()
                }),
            }
        }
    }

    /// What callbacks asked for. Only what is in the list now, as in [`Context::settle`].
    fn on_commands(&mut self) {
        for _ in 0..self.inner.commands.len() {
            let Some(command) = self.inner.commands.pop_front() else {
                return;
            };
            match command {
                Command::CreateVhost(id, config) => {
                    let made = vhost::create(&mut self.inner, &mut self.parts, id, *config);
                    if let Err(error) = made {
                        self.inner.vhosts.remove(id.index, id.generation);
                        let mut cx = Self::bare_cx(&mut self.inner);
                        self.parts.observer.on_vhost_error(&mut cx, id, &error);
                    }
                }
                Command::DestroyVhost(id) => {
                    self.close_vhost(id);
                    self.wind_down_vhost(id);
                }
                #[cfg(feature = "tls")]
                Command::NewIdentity(id, side) => self.on_new_identity(id, side),
                #[cfg(feature = "tls")]
                Command::SetTls(id, new) => self.set_tls_as_asked(id, *new),
                #[cfg(feature = "tls")]
                Command::DrainOldIdentity(id) => {
                    self.drain_old_identity(id);
                }
                Command::Shutdown(grace) => self.begin_shutdown(grace),
            }
        }
    }

    /// Delivers what callbacks did to connections. Only what is in the list now: what this causes
    /// in turn waits for the next turn, so that no ring of callbacks keeps the loop from polling.
    fn settle(&mut self) {
        // They are taken from the end, and belong in the order in which they came.
        self.inner.out.dirty.reverse();
        // What a panic left comes first.
        let left = &mut self.turn.settling;
        self.inner.out.dirty.append(left);
        std::mem::swap(left, &mut self.inner.out.dirty);
        while let Some(id) = self.turn.settling.pop() {
            let conn = self.inner.conns.lift(id.index, id.generation);
            if let Some(conn) = conn.and_then(|conn| self.write_calmly(conn)) {
                self.visit(conn, |lift| {
                    lift.conn.send.flags -= Flags::DIRTY;
                    lift.pump()
                });
            }
        }
        // Of the two lists one need be as long as there are connections, not by turns both.
        if self.inner.out.dirty.is_empty() {
            std::mem::swap(&mut self.turn.settling, &mut self.inner.out.dirty);
        }
    }

    /// Takes a connection out of its slot, works on it, and puts it back or ends it. Nothing but
    /// [`Context::on_transport`] and its runs do that beside it.
    fn lift(&mut self, id: WsiId, work: impl FnOnce(&mut Lift<'_>) -> Fate) {
        if let Some(conn) = self.inner.conns.lift(id.index, id.generation) {
            self.visit(conn, work);
        }
    }

    /// Works on a connection that was taken out of its slot.
    fn visit(&mut self, mut conn: Box<Conn>, work: impl FnOnce(&mut Lift<'_>) -> Fate) {
        let id = conn.send.id;
        conn.send.flags |= Flags::LIFTED;
        conn.send.flags -= Flags::CALM | Flags::SENDS;
        let mut lift = Lift {
            conn: &mut conn,
            inner: &mut self.inner,
            parts: &mut self.parts,
        };
        lift.mark_lifted();
        let fate = work(&mut lift);
        self.inner.lifted = None;
        if fate == Fate::Drop {
            self.end(conn);
            return self.lend_inflaters();
        }
        let send = &mut conn.send;
        send.flags -= Flags::LIFTED | Flags::SENDS;
        if fate == Fate::KeepReady && !send.flags.contains(Flags::READY) {
            send.flags |= Flags::READY;
            self.turn.ready.push(id);
        }
        if send.wants_visit() {
            send.mark(&mut self.inner.out);
        }
        self.inner.conns.restore(id.index, id.generation, conn);
        self.lend_inflaters();
    }

    fn end(&mut self, mut conn: Box<Conn>) {
        if conn.send.armed.is_some() {
            self.inner.out.alarms.forget();
        }
        let mark = LiftMark::of(&conn);
        conn.send.tx.clear(&mut self.inner.out.pool);
        drop(conn);
        self.release(&mark);
    }

    /// Frees the slot of a connection and takes it off all accounts.
    fn release(&mut self, mark: &LiftMark) {
        self.inner.conns.remove(mark.id.index, mark.id.generation);
        if let Some(ip) = mark.ip() {
            self.uncount(ip);
        }
        self.inner.handshakes -= usize::from(mark.handshaking);
        if let Some(vhost) = self.inner.vhost_mut(mark.vhost) {
            vhost.live -= 1;
            if mark.side == Side::Client {
                vhost.http_pool.removed(mark.id);
                if vhost.http_pool.wants_service() {
                    self.inner.fetches.note_change(mark.vhost);
                }
            }
        }
        vhost::bury(&mut self.inner, &mut self.parts, mark.vhost);
    }

    /// Takes a vhost off its listeners, so that nothing new comes to it.
    pub(crate) fn close_vhost(&mut self, id: VhostId) {
        if let Some(vhost) = self.inner.vhost_mut(id) {
            vhost.state = VhostState::Going;
            let listeners = std::mem::take(&mut vhost.listeners);
            vhost::detach(&mut self.parts, id, &listeners);
        }
    }

    fn wind_down_vhost(&mut self, id: VhostId) {
        for conn in self.ids(|conn| conn.send.vhost() == id) {
            self.lift(conn, |lift| {
                lift.wind_down(|| CloseKind::VhostDestroyed, ConnectFailure::VhostDestroyed);
                // Its callbacks come next turn: none of them can keep the others from going.
                Fate::KeepReady
            });
        }
        self.end_waiting(Some(id), || FetchFailure::VhostDestroyed);
        vhost::bury(&mut self.inner, &mut self.parts, id);
    }

    fn begin_shutdown(&mut self, grace: Duration) {
        self.inner.shutting_down = true;
        self.close_listeners();
        for id in self.ids(|_| true) {
            self.lift(id, |lift| {
                lift.wind_down(|| CloseKind::Shutdown, ConnectFailure::Shutdown);
                Fate::KeepReady
            });
        }
        self.end_waiting(None, || FetchFailure::Shutdown);
        self.inner.arm(grace, TimerKind::Shutdown);
    }

    fn close_listeners(&mut self) {
        let listeners = self.parts.listeners.iter();
        let names: Vec<_> = listeners
            .map(|(index, generation, _)| (index, generation))
            .collect();
        for (index, generation) in names {
            self.parts.listeners.remove(index, generation);
        }
    }

    fn force_shutdown(&mut self) {
        for id in self.ids(|_| true) {
            self.lift(id, |lift| {
                lift.conn
                    .send
                    .abort(&mut lift.inner.out, CloseKind::Shutdown);
                lift.end_now();
                Fate::KeepReady
            });
        }
    }

    /// Ends a request on its connection.
    pub(crate) fn fail_on(&mut self, conn: WsiId, id: FetchId, failure: FetchFailure) {
        self.lift(conn, |lift| {
            lift.fail_fetch(id, failure);
            lift.pump()
        });
    }

    fn ids(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<WsiId> {
        let all = self.inner.conns.iter().filter(|(_, _, conn)| wanted(conn));
        all.map(|(index, generation, _)| WsiId { index, generation })
            .collect()
    }
}

/// Whether that is the alarm that a connection has set, and set last.
fn is_set(conns: &Arena<Box<Conn>>, alarm: Alarm) -> bool {
    let conn = conns.at(alarm.index());
    conn.is_some_and(|conn| conn.send.armed == Some(alarm.at()))
}

/// The events of a turn while they are dealt with. They go back where they came from, whatever
/// happens.
struct LentEvents<'a> {
    context: &'a mut Context,
    events: Found,
}

impl LentEvents<'_> {
    #[inline(always)]
    fn each(mut self) {
        let Self { context, events } = &mut self;
        let mut events = events.iter(context.turn.events_done);
        while let Some(event) = events.next() {
            context.turn.events_done += 1;
            let mut event = Some(event);
            while let Some(this) = event {
                event = context.on_event(this, &mut events);
            }
        }
    }
}

impl Drop for LentEvents<'_> {
    fn drop(&mut self) {
        self.context.turn.events = std::mem::replace(&mut self.events, Found::nothing());
    }
}

impl Drop for Context {
    /// Gives every connection its final event, unless this is part of a panic.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.recover();
        self.read_clock();
        self.inner.shutting_down = true;
        self.close_listeners();
        for id in self.ids(|_| true) {
            self.lift(id, |lift| {
                lift.conn
                    .send
                    .abort(&mut lift.inner.out, CloseKind::ContextDropped);
                lift.end_now();
                lift.pump()
            });
        }
        self.end_waiting(None, || FetchFailure::ContextDropped);
    }
}

impl Lift<'_> {
    /// The vhost or the whole context goes: says so to the peer, as the role allows.
    fn wind_down(&mut self, kind: impl FnOnce() -> CloseKind, failure: ConnectFailure) {
        match &self.conn.role {
            Role::Client(_) => self.stop_dialling(failure),
            Role::Http(_) => self.turn_away(),
            Role::HttpClient(_) => self.wind_down_fetch(match failure {
                ConnectFailure::VhostDestroyed => FetchFailure::VhostDestroyed,
                _ => FetchFailure::Shutdown,
            }),
            Role::Linger => {}
            Role::Ws(_) => {
                let close = Close::from(CloseCode::GOING_AWAY);
                self.conn.send.close(&mut self.inner.out, &close, kind());
            }
        }
    }
}

impl SendHalf {
    /// Whether there is more to do that no event announces: `on_writable` was asked for again.
    #[inline]
    fn wants_visit(&self) -> bool {
        let low = self.settings.limits.output_low_water;
        // Before a connection is established only HTTP handlers can ask for it.
        self.flags.contains(Flags::WANT_WRITABLE)
            && matches!(self.phase, Phase::Open | Phase::Opening)
            && self.tx.len() <= low
    }
}

/// A `Date` has whole seconds.
const DATE_PRECISION: Duration = Duration::from_secs(1);
