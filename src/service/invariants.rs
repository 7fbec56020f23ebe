//! What has to be true of the loop's bookkeeping between two turns, whatever peers, networks and
//! applications did: asked by tests on a simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::conn::{Conn, Flags, Phase, Role};
use crate::context::{Context, ListenerState};
use crate::fetch::Place;
use crate::id::WsiId;
use crate::inner::{Owner, TimerKind, Vhost, VhostState};
use crate::timer::{Alarm, TimerKey};
use crate::upgrade::NO_SESSION;
use crate::ws::Side;

use super::{Turn, is_set};

impl Context {
    /// What in the loop's own bookkeeping contradicts itself, one line each; empty if all is well,
    /// as it always should be. For tests, between two calls of [`Context::service`], of which the
    /// latest has not panicked. Looks at everything, so it is slow.
    pub fn check_invariants(&self) -> Vec<String> {
        let mut check = Check::default();
        if self.inner.lifted.is_some() {
            return check.found;
        }
        self.check_tables(&mut check);
        self.check_conns(&mut check);
        self.check_lists(&mut check);
        self.check_accounts(&mut check);
        self.check_vhosts(&mut check);
        self.check_listeners(&mut check);
        self.check_timers(&mut check);
        self.check_fetches(&mut check);
        check.found
    }

    fn check_tables(&self, check: &mut Check) {
        let parts = &self.parts;
        check.none("connections", self.inner.conns.contradiction());
        check.none("vhosts", self.inner.vhosts.contradiction());
        check.none("listeners", parts.listeners.contradiction());
        check.none("requests", self.inner.fetches.contradiction());
        check.that(self.inner.out.pool.is_sound(), "output buffers", "account");
        check.that(parts.pool.buffers.is_sound(), "input buffers", "account");
        let lent = self.inner.out.lent.is_empty() && self.inner.out.lender.is_empty();
        check.that(lent, "output", "something is lent between visits");
    }

    fn check_conns(&self, check: &mut Check) {
        let out = &self.inner.out;
        let alarms: BTreeSet<_> = out
            .alarms
            .iter()
            .chain(self.turn.due.iter().copied())
            .collect();
        for (id, conn) in self.all() {
            let send = &conn.send;
            let mut that = |holds, what| check.that(holds, id, what);
            that(send.id == id, "has another's id");
            that(!send.flags.contains(Flags::LIFTED), "is still lifted");
            that(send.tx.is_sound(), "its queue's account is wrong");
            that(self.inner.vhost(send.vhost()).is_some(), "has no vhost");
            let is_due = send.flags.intersects(Flags::DIRTY | Flags::READY);
            let is_there = |at| alarms.contains(&Alarm::new(at, id.index));
            that(send.armed.is_none_or(is_there), "its alarm is gone");
            let due = conn.next_deadline().map(|due| out.epoch.moment(due));
            let is_filed = due.is_none_or(|due| send.armed.is_some_and(|at| at <= due));
            that(is_due || is_filed, "its alarm is later than its deadline");
            let Some(io) = &conn.io else { continue };
            let ends = io.write_error().is_some() || send.flags.contains(Flags::ABORT);
            let is_watched = io.is_flushed(&send.tx) || !send.has_no_output_deadline();
            that(
                is_due || ends || is_watched,
                "output waits without a deadline",
            );
            let over = matches!(&conn.role, Role::Ws(_)) && send.phase == Phase::Ended;
            that(is_due || !over, "has ended and is still here");
        }
    }

    /// Who is to be visited is in a list, once, and knows it.
    fn check_lists(&self, check: &mut Check) {
        let Turn {
            ready,
            going_on,
            settling,
            accepting,
            ..
        } = &self.turn;
        let lists = [
            (Flags::DIRTY, [&self.inner.out.dirty, settling]),
            (Flags::READY, [ready, going_on]),
        ];
        for (flag, listed) in lists {
            let mut seen = BTreeSet::new();
            for id in listed.into_iter().flatten() {
                check.that(seen.insert(*id), id, "is twice in a list");
            }
            for (id, conn) in self.all() {
                let knows = conn.send.flags.contains(flag);
                let is_listed = seen.contains(&id);
                check.that(knows == is_listed, id, "is in no list, or does not know it");
            }
        }
        for id in &self.inner.out.dirty {
            let known = self.inner.conns.get(id.index, id.generation);
            check.that(known.is_some(), id, "has gone and is to be settled");
        }
        let listeners: BTreeSet<_> = accepting.iter().collect();
        let once = listeners.len() == accepting.len();
        check.that(once, "listeners", "one is twice in a list");
    }

    fn check_accounts(&self, check: &mut Check) {
        let (inner, parts) = (&self.inner, &self.parts);
        let of = |is: &dyn Fn(&Conn) -> bool| self.all().filter(|(_, conn)| is(conn)).count();
        let handshakes = of(&|conn| conn.send.flags.contains(Flags::HANDSHAKING));
        check.equal("TLS handshakes", inner.handshakes, handshakes);
        check.that(handshakes <= inner.max_handshakes, "TLS handshakes", "cap");
        // A client's replacement takes the place of a lost one whose last words still leave.
        let conns = of(&|conn| !conn.is_told());
        check.that(conns <= inner.max_connections, "connections", "cap");
        let mut per_ip = BTreeMap::new();
        for (_, conn) in self
            .all()
            .filter(|(_, conn)| conn.send.side == Side::Server)
        {
            if let (Some(io), Some(_)) = (&conn.io, self.turn.max_per_ip) {
                *per_ip.entry(io.peer().ip()).or_insert(0) += 1;
            }
        }
        check.that(per_ip == inner.per_ip, "connections per address", "account");
        for (index, slot) in &parts.protocols {
            let owned = of(&|conn| {
                let own = conn.send.protocol as usize == index;
                own && matches!(&conn.role, Role::Ws(ws) if ws.session != NO_SESSION)
            });
            check.equal("sessions", slot.dispatch.sessions(), owned);
        }
        for (index, slot) in &parts.handlers {
            let owned = of(&|conn| match &conn.role {
                Role::Http(http) => http
                    .exchange_place()
                    .is_some_and(|(own, _)| own as usize == index),
                _ => false,
            });
            check.equal("exchanges", slot.dispatch.exchanges(), owned);
        }
        #[cfg(feature = "deflate")]
        self.check_inflaters(check);
    }

    /// Who waits for an inflater is in the queue, and nobody waits while one is free.
    #[cfg(feature = "deflate")]
    fn check_inflaters(&self, check: &mut Check) {
        let pool = &self.parts.pool.inflaters;
        for (id, _) in self.all().filter(|(_, conn)| conn.is_waiting()) {
            check.that(pool.queue.contains(&id), id, "waits outside the queue");
            check.that(!pool.has_free(), id, "waits although an inflater is free");
        }
        let queued: BTreeSet<_> = pool.queue.iter().collect();
        let once = queued.len() == pool.queue.len();
        check.that(once, "queue for inflaters", "one is there twice");
    }

    fn check_vhosts(&self, check: &mut Check) {
        for (index, generation, vhost) in self.inner.vhosts.iter() {
            let id = crate::id::VhostId { index, generation };
            let conns = self.all().filter(|(_, conn)| conn.send.vhost() == id);
            check.equal(id, vhost.live, conns.count());
            let fetches = self.inner.fetches.all();
            let fetches = fetches.filter(|(_, fetch)| fetch.vhost == id);
            check.equal(id, vhost.fetches, fetches.count());
            let going = vhost.state == VhostState::Going && self.inner.commands.is_empty();
            let deserted = vhost.live == 0 && vhost.fetches == 0;
            check.that(!(going && deserted), id, "is not buried");
            for name in &vhost.listeners {
                let slot = self.parts.listeners.get(name.0, name.1);
                let knows = slot.is_none_or(|slot| slot.vhosts.contains(&id));
                check.that(knows, id, "its listener does not know it");
            }
            self.check_pool(check, id, vhost);
        }
    }

    fn check_pool(&self, check: &mut Check, id: crate::id::VhostId, vhost: &Vhost) {
        let pool = &vhost.http_pool;
        check.none(id, pool.contradiction());
        let looked_at = self.inner.fetches.has_changed(id);
        let stuck = pool.could_grant() && !looked_at;
        check.that(!stuck, id, "somebody waits in the pool whose turn it is");
        for conn in pool.conns() {
            let known = self.inner.conns.get(conn.index, conn.generation);
            check.that(known.is_some(), conn, "is in the pool and has gone");
        }
        for fetch in pool.waiters() {
            let known = self.inner.fetches.get(fetch);
            let waits = known.is_some_and(|fetch| fetch.place == Place::Waiting);
            check.that(waits, fetch, "is in the pool's queue and does not wait");
        }
    }

    fn check_listeners(&self, check: &mut Check) {
        for (index, generation, slot) in self.parts.listeners.iter() {
            let resting = TimerKind::Listener { index, generation };
            let has_timer = || {
                let all = self.inner.out.timers.all().unwrap_or_default();
                all.iter().any(|(_, _, kind)| *kind == resting)
            };
            let comes_back = match slot.state {
                ListenerState::Active => true,
                ListenerState::Crowded => self.turn.crowded,
                ListenerState::Full => self.turn.full,
                ListenerState::Resting => has_timer(),
            };
            check.that(comes_back, slot.address, "never accepts again");
            let owned = slot.vhosts.iter().all(|id| self.inner.vhost(*id).is_some());
            check.that(owned, slot.address, "belongs to a vhost that has gone");
        }
    }

    /// Every timer belongs to something that knows it, and few alarms belong to nobody.
    fn check_timers(&self, check: &mut Check) {
        let conns = &self.inner.conns;
        let alarms = &self.inner.out.alarms;
        let set = alarms.iter().filter(|alarm| is_set(conns, *alarm));
        let set = set.collect::<BTreeSet<_>>().len();
        let few = alarms.iter().count() <= 2 * set + 65;
        check.that(few, "alarms", "most are nobody's");
        let Some(all) = self.inner.out.timers.all() else {
            return check.that(false, "timers", "the heap is broken");
        };
        for (key, _, kind) in all {
            check.that(self.has_owner(key, kind), kind, "is armed for nobody");
        }
    }

    fn has_owner(&self, key: TimerKey, kind: TimerKind) -> bool {
        let (inner, parts) = (&self.inner, &self.parts);
        let conn = |id: WsiId| inner.conns.get(id.index, id.generation);
        match kind {
            TimerKind::Wsi(id, _) => conn(id).is_some_and(|conn| {
                let rare = conn.send.rare.as_ref();
                rare.is_some_and(|rare| rare.timers.contains(&key))
            }),
            TimerKind::Fetch(id) => inner.fetches.get(id).is_some_and(|fetch| {
                let armed = fetch.armed();
                armed.is_some_and(|(_, own)| own == key)
            }),
            TimerKind::Free(owner, _) => match owner {
                Owner::Handler(index) => parts.handlers.contains(index as usize),
                Owner::Hook(place) => parts.hooks.contains(place.chain as usize),
                Owner::HttpClient(index) => parts.http_clients.contains(index as usize),
                Owner::Observer => true,
                Owner::Protocol(index) => parts.protocols.contains(index as usize),
            },
            TimerKind::Listener { .. } => true,
            TimerKind::Shutdown => inner.shutting_down,
            #[cfg(feature = "tls")]
            TimerKind::Upkeep(id) => inner
                .vhost(id)
                .is_some_and(|vhost| vhost.upkeep_timer == Some(key)),
        }
    }

    fn check_fetches(&self, check: &mut Check) {
        let fetches = &self.inner.fetches;
        for (id, fetch) in fetches.all() {
            let vhost = self.inner.vhost(fetch.vhost);
            let is_placed = match fetch.place {
                Place::On(conn) => self.works_for(conn) == Some(id),
                Place::Queued => fetches.is_queued(id),
                Place::Waiting => {
                    vhost.is_some_and(|vhost| vhost.http_pool.waiters().any(|own| own == id))
                }
            };
            check.that(is_placed, id, "is not where it thinks it is");
            let at = fetch.armed().map(|(at, _)| at);
            let is_filed = |due| at.is_some_and(|at| at <= due);
            let filed = fetch.due().is_none_or(is_filed);
            check.that(filed, id, "its timer is later than its deadline");
        }
        for (id, _) in self.all() {
            let Some(fetch) = self.works_for(id) else {
                continue;
            };
            let place = fetches.get(fetch).map(|fetch| fetch.place);
            check.that(place == Some(Place::On(id)), id, "works for nobody");
        }
    }

    /// The request that a connection works for.
    fn works_for(&self, id: WsiId) -> Option<crate::id::FetchId> {
        match &self.inner.conns.get(id.index, id.generation)?.role {
            Role::Client(client) => client.fetch(),
            Role::HttpClient(http) => http.fetch(),
            Role::Http(_) | Role::Linger | Role::Ws(_) => None,
        }
    }

    fn all(&self) -> impl Iterator<Item = (WsiId, &Conn)> {
        let all = self.inner.conns.iter();
        all.map(|(index, generation, conn)| (WsiId { index, generation }, &**conn))
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Check {
    found: Vec<String>,
}

impl Check {
    fn that(&mut self, holds: bool, who: impl fmt::Debug, what: &str) {
        if !holds {
            self.found.push(format!("{who:?}: {what}"));
        }
    }

    fn none(&mut self, who: impl fmt::Debug, contradiction: Option<impl fmt::Display>) {
        if let Some(what) = contradiction {
            self.found.push(format!("{who:?}: {what}"));
        }
    }

    fn equal(&mut self, who: impl fmt::Debug, counted: usize, there: usize) {
        if counted != there {
            self.found
                .push(format!("{who:?}: counted {counted}, there {there}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Check;

    #[test]
    fn what_is_wrong_is_told_with_who_it_is_about_and_what_holds_is_not() {
        let mut check = Check::default();
        check.that(true, 1, "fine");
        check.none(2, None::<&str>);
        check.equal(3, 4, 4);
        assert!(check.found.is_empty());
        check.that(false, 1, "lost");
        check.none(2, Some("twice there"));
        check.equal(3, 4, 5);
        assert_eq!(
            check.found,
            ["1: lost", "2: twice there", "3: counted 4, there 5"]
        );
    }
}
