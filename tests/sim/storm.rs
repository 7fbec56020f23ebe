//! The scheduler: who does what when, from a seed.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use wsloop::sim::{Call, Fault, Net, Selector, Sockets};

use super::model::{Life, MESSAGE_BYTES, Model, Node, Shared};
use super::strangers::Strangers;
use super::tricks::{self, Scripted};
use super::world::{Site, name_all};
use crate::manual;
use crate::simpki::Pki;

/// How much is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Everything,
    Nothing,
}

/// Plays one seed; what happened, line by line.
pub(crate) fn run(seed: u64, told: Told) -> Vec<String> {
    let shared = Shared::new(Model::new(seed, told == Told::Everything));
    let played = catch_unwind(AssertUnwindSafe(|| Storm::new(seed, &shared).play()));
    let mut model = shared.lock();
    if let Err(reason) = played {
        let log = &model.log;
        for line in &log[log.len().saturating_sub(25)..] {
            println!("{line}");
        }
        println!("step {} of SEED={seed}", model.step);
        resume_unwind(reason);
    }
    std::mem::take(&mut model.log)
}

struct Storm {
    net: Net,
    shared: Shared,
    sites: Vec<Site>,
    strangers: Strangers,
}

impl Storm {
    fn new(seed: u64, shared: &Shared) -> Self {
        let net = Net::new(seed);
        let strangers = Strangers::new(&net);
        let mut model = shared.lock();
        model.gentle = seed % 4 == 1;
        // Handshakes are the dear part.
        model.tls = seed % 8 < 3;
        model.faults = model.rng.pick(&[1, 2, 5, 20]);
        model.fair = !model.gentle && model.rng.once_in(3);
        if model.fair {
            (model.faults, model.budget) = (20, 2000);
        }
        model.longest = model.rng.pick(&[MESSAGE_BYTES, MESSAGE_BYTES, 300_000]);
        model.output_bytes = model.rng.pick(&[8 * 1024, 64 * 1024, 200_000]);
        net.set_selector(
            model
                .rng
                .pick(&[Selector::Epoll, Selector::Epoll, Selector::Poll]),
        );
        net.set_capacity(model.rng.pick(&[64 * 1024, 1 << 20]));
        name_all(&net, &mut model.rng);
        drop(model);
        let sites = (0..2).map(|node| Site::new(&net, shared, node)).collect();
        Self {
            net,
            shared: shared.clone(),
            sites,
            strangers,
        }
    }

    fn play(mut self) {
        self.open_some();
        for step in 0..STEPS {
            self.shared.lock().step = step;
            self.act();
            let (first, turns) = {
                let rng = &mut self.shared.lock().rng;
                (rng.below(2), 1 + rng.below(6))
            };
            for turn in first..first + turns {
                self.turn(turn % 2);
            }
        }
        self.settle();
        self.end();
    }

    /// So that there is something to disturb.
    fn open_some(&mut self) {
        for node in [0, 1, 0, 1] {
            let shared = self.shared.clone();
            self.sites[node].with_cx(0, |cx| tricks::connect(&mut shared.lock(), node, cx));
        }
        self.net.advance(Duration::from_millis(40));
        for turn in 0..10 {
            self.turn(turn % 2);
        }
    }

    /// Whatever happens outside of the contexts.
    fn act(&mut self) {
        let mut model = self.shared.lock();
        let (gentle, tls, faults) = (model.gentle, model.tls, model.faults);
        let node = model.rng.below(2);
        match model.rng.below(30) {
            24.. => {
                let which = model.rng.below(2);
                drop(model);
                let shared = self.shared.clone();
                self.sites[node].with_cx(which, |cx| tricks::talk(&shared, node, cx));
            }
            0..=7 => {
                let which = model.rng.below(4);
                drop(model);
                let shared = self.shared.clone();
                self.sites[node].with_cx(which, |cx| {
                    tricks::from_anywhere(&shared, node, cx);
                });
            }
            8..=13 if model.harms() => self.strangers.act(&self.net, &mut model),
            14 | 15 => {
                let millis = model.rng.pick(&[0, 1, 20]);
                self.net.advance(Duration::from_millis(millis));
            }
            16 if model.harms() => {
                let millis = model.rng.pick(&[100, 100, 100, 500, 1500, 5000]);
                self.net.advance(Duration::from_millis(millis));
            }
            17 if !gentle && model.rng.once_in(20) => {
                self.net.advance(Duration::from_secs(70));
            }
            18 | 19 if model.rng.once_in(faults) => self.spoil_calls(&mut model),
            20 if gentle || model.harms() => self.squeeze(&mut model),
            21 if tls => {
                let identity = Pki::get().identity(model.rng.below(2));
                drop(model);
                let site = &mut self.sites[node];
                let _ = site.context.set_server_identity(site.vhost, identity);
            }
            22 => self.sites[node]
                .context
                .cancel_service_handle()
                .cancel_service(),
            23 if !gentle && model.step > STEPS / 2 && model.rng.once_in(10) => {
                model.note(format!("{node} loses its first vhost"));
                let site = &mut self.sites[node];
                let _ = site.context.destroy_vhost(site.vhost);
            }
            _ => {}
        }
    }

    /// Some of the next calls fail.
    fn spoil_calls(&self, model: &mut Model) {
        let calls = match model.gentle {
            true => &[Call::Read, Call::Write, Call::Poll, Call::Accept][..],
            false => Call::ALL,
        };
        let call = model.rng.pick(calls);
        let harmless = [ErrorKind::Interrupted, ErrorKind::WouldBlock].map(Fault::from);
        let storm = model.rng.pick(&[1, 1, 1, 5]);
        let first = self.net.calls(call) + 1 + model.rng.below(12) as u64;
        for nth in first..first + storm {
            let faults = match call {
                Call::Poll => harmless[..1].to_vec(),
                Call::Accept | Call::Read | Call::Write if model.gentle || model.rng.once_in(2) => {
                    harmless.to_vec()
                }
                _ => manual::faults(call),
            };
            let fault = model.rng.pick(&faults);
            self.net.fail(call, nth, fault);
        }
    }

    /// Calls move little, streams hold little, or that is over.
    fn squeeze(&self, model: &mut Model) {
        let over = model.rng.once_in(2);
        let (most, room) = match over {
            true => (usize::MAX, model.rng.pick(&[64 * 1024, 1 << 20])),
            false => (
                model.rng.pick(&[1, 3, 100, 5000, usize::MAX]),
                model.rng.pick(&[1, 50, 3000, 64 * 1024]),
            ),
        };
        self.net.limit_io(most);
        self.net.set_capacity(room);
    }

    /// One turn of a context, until none of its callbacks panics; then a look at its books.
    fn turn(&mut self, node: Node) {
        let context = &mut self.sites[node].context;
        for _ in 0..1000 {
            let turned = catch_unwind(AssertUnwindSafe(|| context.service(Some(Duration::ZERO))));
            match turned {
                Ok(outcome) => {
                    outcome.expect("no poller fails here");
                    let wrong = context.check_invariants();
                    assert!(wrong.is_empty(), "context {node}: {wrong:#?}");
                    return self.sites[node].check_webhook();
                }
                Err(reason) if reason.is::<Scripted>() => self.shared.lock().bury_victims(),
                Err(reason) => resume_unwind(reason),
            }
        }
        panic!("context {node} panics without end");
    }

    fn calls(&self) -> Vec<u64> {
        Call::ALL.iter().map(|call| self.net.calls(*call)).collect()
    }

    /// The weather clears: what was sent arrives, and then nobody does anything any more.
    fn settle(&mut self) {
        self.net.forget_faults();
        self.net.limit_io(usize::MAX);
        self.net.set_capacity(64 * 1024);
        // With a segment for each event, what was cut to bytes would take a turn for each of them.
        self.net.set_selector(Selector::Poll);
        self.shared.lock().budget = 0;
        for node in 0..2 {
            self.set_right(node);
        }
        // Connects take some time, those that are about to begin, too, and those to whoever is
        // asked about them.
        for _ in 0..4 {
            for turn in 0..8 {
                self.turn(turn % 2);
            }
            self.net.advance(Duration::from_millis(100));
        }
        for _ in 0..MOST_TURNS {
            let before = self.calls();
            self.turn(0);
            self.turn(1);
            let mut idle = before;
            idle[Call::Poll as usize] += 2;
            if self.calls() == idle && self.nothing_is_due() {
                return self.all_has_come();
            }
        }
        panic!("it is never quiet: {:?}", self.calls());
    }

    fn nothing_is_due(&self) -> bool {
        let now = self.net.now();
        let mut deadlines = self.sites.iter().map(|site| site.context.next_deadline());
        deadlines.all(|deadline| deadline.is_none_or(|at| at > now))
    }

    /// Takes back what holds others up.
    fn set_right(&mut self, node: Node) {
        let shared = self.shared.clone();
        for which in 0..2 {
            self.sites[node].with_cx(which, |cx| {
                cx.for_each_peer(|mut peer| peer.resume_reading());
            });
        }
        self.sites[node].with_cx(0, |cx| {
            let mut model = shared.lock();
            tricks::answer_questions(&mut model, node, cx, usize::MAX);
            tricks::decide(&mut model, node, cx, usize::MAX);
        });
        self.sites[node].with_cx(2, |cx| {
            tricks::respond(&mut shared.lock(), node, cx, usize::MAX);
        });
    }

    /// Between contexts that kept a connection nothing is lost.
    fn all_has_come(&mut self) {
        let mut model = self.shared.lock();
        model.note("all is quiet".to_owned());
        let open = model.conns.iter().filter(|(_, conn)| {
            let whole = conn.life == Life::Open && !conn.closing;
            whole || conn.life == Life::Attempt
        });
        let open: Vec<_> = open.map(|(key, conn)| (*key, conn.out)).collect();
        if !model.gentle {
            return;
        }
        assert!(model.hearings.is_empty(), "{:?}", model.hearings);
        assert_eq!(self.sites.iter_mut().map(Site::waits).sum::<usize>(), 0);
        let over = model.conns.values().any(|conn| conn.life == Life::Over);
        assert!(!over, "a connection ended although nobody did harm");
        for ((node, id), out) in open {
            let (from, to) = out.unwrap_or_else(|| panic!("{node} {id} still dials"));
            model.nothing_waits(node, id, (to, from));
        }
    }

    /// Everything comes to its end, in one way or another.
    fn end(mut self) {
        let mut model = self.shared.lock();
        let (rests, shuts) = (model.rng.once_in(2), model.rng.below(3));
        model.note(format!("the end: rests {rests}, {shuts} shut down"));
        drop(model);
        self.strangers.leave();
        if rests {
            self.pass(|_| false, 100);
        }
        for node in 0..shuts {
            self.sites[node].context.shutdown(Duration::from_secs(2));
        }
        if shuts > 0 {
            self.pass(
                |sites| {
                    sites[..shuts]
                        .iter()
                        .all(|site| site.context.is_shut_down())
                },
                100,
            );
        }
        for (node, site) in self.sites[..shuts].iter_mut().enumerate() {
            assert_eq!(site.context.connections(), 0, "context {node}");
            let memory = site.context.memory();
            assert!(memory < 4 << 20, "context {node} keeps {memory} bytes");
            assert_eq!(site.pool().open, 0);
            assert_eq!(site.waits(), 0, "context {node}");
        }
        self.sites.clear();
        self.check_nothing_is_left();
    }

    /// Lets time pass until that is so, at most so many tenths of a second.
    fn pass(&mut self, done: impl Fn(&[Site]) -> bool, tenths: usize) {
        for _ in 0..tenths {
            for node in [0, 1, 0, 1] {
                self.turn(node);
            }
            if done(&self.sites) {
                return;
            }
            self.net.advance(Duration::from_millis(100));
        }
    }

    fn check_nothing_is_left(&self) {
        let model = self.shared.lock();
        for ((node, id), conn) in &model.conns {
            assert_eq!(conn.life, Life::Over, "{node} {id} had no final event");
        }
        assert!(model.fetches.is_empty(), "{:?}", model.fetches);
        assert!(model.exchanges.is_empty(), "{:?}", model.exchanges);
        assert!(model.hearings.is_empty(), "{:?}", model.hearings);
        assert_eq!(self.net.sockets(), Sockets::default());
    }
}

/// Of one seed.
const STEPS: usize = 300;
/// After so many turns without news it has to be quiet.
const MOST_TURNS: usize = 20_000;
