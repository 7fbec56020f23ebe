use super::*;
use crate::http::test_support::Rng;

type TestPool = Pool<&'static str, u32, u32>;

#[expect(clippy::disallowed_methods, reason = "any time will do to begin with")]
fn start() -> Instant {
    Instant::now()
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn acquire(pool: &mut TestPool, key: &'static str, who: u32, now: Instant) -> Acquired<u32> {
    pool.acquire(&key, who, Freshness::Any, now)
}

/// Opens a connection for a request that must be told to.
fn open(pool: &mut TestPool, key: &'static str, conn: u32, now: Instant) {
    assert_eq!(acquire(pool, key, conn, now), Acquired::Dial);
    pool.opened(&key, conn);
}

fn give_back(pool: &mut TestPool, conn: u32, now: Instant) -> Released {
    pool.release(conn, Reusable::Yes, now)
}

#[test]
fn the_connection_that_was_used_last_is_used_next() {
    let (mut pool, now) = (TestPool::new(PoolConfig::new()), start());
    for conn in 1..=3 {
        open(&mut pool, "a", conn, now);
    }
    for conn in [2, 3, 1] {
        assert_eq!(give_back(&mut pool, conn, now), Released::Idle);
    }
    for conn in [1, 3, 2] {
        assert_eq!(acquire(&mut pool, "a", 9, now), Acquired::Reuse(conn));
    }
    assert_eq!(acquire(&mut pool, "a", 9, now), Acquired::Dial);
    let metrics = pool.metrics();
    assert_eq!(
        (metrics.open, metrics.idle, metrics.reused, metrics.opened),
        (3, 0, 3, 3)
    );
}

#[test]
fn connections_of_different_keys_are_never_exchanged() {
    let (mut pool, now) = (TestPool::new(PoolConfig::new()), start());
    open(&mut pool, "a", 1, now);
    give_back(&mut pool, 1, now);
    assert_eq!(acquire(&mut pool, "b", 9, now), Acquired::Dial);
    assert_eq!(acquire(&mut pool, "a", 9, now), Acquired::Reuse(1));
}

#[test]
fn those_who_wait_are_served_in_order_and_nobody_overtakes() {
    let config = PoolConfig::new().per_origin(1);
    let (mut pool, now) = (TestPool::new(config), start());
    open(&mut pool, "a", 1, now);
    for who in 10..13 {
        assert_eq!(acquire(&mut pool, "a", who, now), Acquired::Wait);
    }
    give_back(&mut pool, 1, now);
    assert_eq!(
        acquire(&mut pool, "a", 13, now),
        Acquired::Wait,
        "behind the others"
    );
    assert!(pool.remove_waiter(11));
    assert!(!pool.remove_waiter(11));
    for who in [10, 12, 13] {
        let grant = pool.next_grant(now).unwrap();
        assert_eq!((grant.who, grant.kind), (who, GrantKind::Reuse(1)));
        assert_eq!(pool.next_grant(now), None);
        give_back(&mut pool, 1, now);
    }
    assert_eq!(pool.next_grant(now), None);
}

#[test]
fn a_connection_that_ends_makes_room_for_who_waits() {
    let config = PoolConfig::new().per_origin(1);
    let (mut pool, now) = (TestPool::new(config), start());
    open(&mut pool, "a", 1, now);
    assert_eq!(acquire(&mut pool, "a", 10, now), Acquired::Wait);
    pool.removed(1);
    pool.removed(1);
    let grant = pool.next_grant(now).unwrap();
    assert_eq!((grant.who, grant.kind), (10, GrantKind::Dial));
    pool.opened(&"a", 2);
    assert_eq!(pool.release(2, Reusable::No, now), Released::Close);
    assert_eq!(pool.metrics().open, 0);
}

#[test]
fn the_total_is_shared_and_idle_connections_make_room() {
    let config = PoolConfig::new().total(2).per_origin(2);
    let (mut pool, now) = (TestPool::new(config), start());
    open(&mut pool, "a", 1, now);
    open(&mut pool, "b", 2, now);
    assert_eq!(acquire(&mut pool, "c", 10, now), Acquired::Wait);
    give_back(&mut pool, 1, now);
    let grant = pool.next_grant(now).unwrap();
    assert_eq!((grant.who, grant.kind), (10, GrantKind::Dial));
    assert_eq!(pool.take_closing(), [1]);
    pool.opened(&"c", 3);
    assert_eq!(pool.metrics().open, 2);
}

#[test]
fn a_full_queue_turns_away() {
    let config = PoolConfig::new().per_origin(1).waiting(2);
    let (mut pool, now) = (TestPool::new(config), start());
    open(&mut pool, "a", 1, now);
    assert_eq!(acquire(&mut pool, "a", 10, now), Acquired::Wait);
    assert_eq!(acquire(&mut pool, "a", 11, now), Acquired::Wait);
    assert_eq!(acquire(&mut pool, "a", 12, now), Acquired::QueueFull);
    assert_eq!(
        acquire(&mut pool, "b", 13, now),
        Acquired::Dial,
        "needs no place"
    );
    let metrics = pool.metrics();
    assert_eq!((metrics.waiting, metrics.turned_away), (2, 1));
}

#[test]
fn idle_connections_grow_old_and_are_not_used_any_more() {
    let config = PoolConfig::new().idle_lifetime(secs(30));
    let (mut pool, now) = (TestPool::new(config), start());
    open(&mut pool, "a", 1, now);
    open(&mut pool, "a", 2, now);
    give_back(&mut pool, 1, now);
    give_back(&mut pool, 2, now + secs(10));
    assert_eq!(pool.next_expiry(), Some(now + secs(30)));
    pool.expire(now + secs(29));
    assert_eq!(pool.take_closing(), [0; 0]);
    pool.expire(now + secs(30));
    assert_eq!(pool.take_closing(), [1]);
    assert_eq!(acquire(&mut pool, "a", 9, now + secs(40)), Acquired::Dial);
    assert_eq!(pool.take_closing(), [2]);
}

#[test]
fn past_the_cap_the_longest_idle_goes() {
    let (mut pool, now) = (TestPool::new(PoolConfig::new().idle(2)), start());
    for conn in 1..=3 {
        open(&mut pool, "a", conn, now);
    }
    for conn in 1..=3 {
        assert_eq!(give_back(&mut pool, conn, now), Released::Idle);
    }
    assert_eq!(pool.take_closing(), [1]);
    let (mut none, now) = (TestPool::new(PoolConfig::new().idle(0)), start());
    open(&mut none, "a", 1, now);
    assert_eq!(give_back(&mut none, 1, now), Released::Close);
    assert_eq!(none.metrics().open, 0);
}

#[test]
fn new_settings_retire_idle_connections_now_and_busy_ones_when_they_come_back() {
    let (mut pool, now) = (TestPool::new(PoolConfig::new()), start());
    open(&mut pool, "a", 1, now);
    open(&mut pool, "a", 2, now);
    give_back(&mut pool, 1, now);
    pool.retire(1);
    assert_eq!(pool.take_closing(), [1]);
    assert_eq!(give_back(&mut pool, 2, now), Released::Close);
    open(&mut pool, "a", 3, now);
    pool.set_generation(3, 0);
    assert!(pool.is_outdated(3), "its handshake was made before");
    open(&mut pool, "a", 4, now);
    assert_eq!(give_back(&mut pool, 4, now), Released::Idle);
    pool.retire(1);
    assert_eq!(pool.take_closing(), [0; 0]);
}

#[test]
fn who_was_failed_by_an_old_connection_gets_a_new_one() {
    let config = PoolConfig::new().per_origin(2);
    let (mut pool, now) = (TestPool::new(config), start());
    open(&mut pool, "a", 1, now);
    open(&mut pool, "a", 2, now);
    give_back(&mut pool, 1, now);
    give_back(&mut pool, 2, now);
    let fresh = pool.acquire(&"a", 9, Freshness::New, now);
    assert_eq!(fresh, Acquired::Dial);
    assert_eq!(pool.take_closing(), [1], "an old one makes room");
    pool.opened(&"a", 3);
    assert_eq!(acquire(&mut pool, "a", 9, now), Acquired::Reuse(2));
}

#[test]
fn a_request_is_repeated_only_when_that_is_provably_safe() {
    let mut safe = 0;
    for bits in 0_u8..64 {
        let is = |bit: u8| bits & (1 << bit) != 0;
        let attempt = Attempt {
            reused: is(0),
            answered: is(1),
            sent: is(2),
            idempotent: is(3),
            replayable: is(4),
            repeated: is(5),
        };
        let barred = !attempt.reused || attempt.answered || attempt.repeated;
        let twice = attempt.idempotent || !attempt.sent;
        let expected = attempt.replayable && twice && !barred;
        assert_eq!(attempt.may_be_repeated(), expected, "{attempt:?}");
        safe += u32::from(expected);
    }
    assert_eq!(safe, 3);
}

/// What a pool has to be, computed the slow way.
#[derive(Default)]
struct Model {
    /// connection, key, idle since, generation
    conns: Vec<(u32, &'static str, Option<Instant>, u64)>,
    /// request, key
    waiting: Vec<(u32, &'static str)>,
    generation: u64,
}

struct Run {
    pool: TestPool,
    model: Model,
    now: Instant,
    next_conn: u32,
    next_request: u32,
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const TOTAL: usize = 6;
const PER_ORIGIN: usize = 3;
const IDLE: usize = 4;
const WAITING: usize = 5;

impl Run {
    fn opened(&mut self, key: &'static str) {
        self.next_conn += 1;
        self.pool.opened(&key, self.next_conn);
        let generation = self.model.generation;
        self.model
            .conns
            .push((self.next_conn, key, None, generation));
    }

    fn reuse(&mut self, conn: u32, key: &'static str) {
        let member = self.model.conns.iter_mut().find(|member| member.0 == conn);
        let member = member.expect("only a connection that exists is given away");
        assert_eq!(member.1, key);
        assert_eq!(member.3, self.model.generation);
        let since = member
            .2
            .take()
            .expect("only an idle connection is given away");
        assert!(self.now < since + secs(30), "too old");
    }

    fn ask(&mut self, key: &'static str) {
        self.next_request += 1;
        let who = self.next_request;
        let waits = self.model.waiting.iter().any(|waiter| waiter.1 == key);
        match self.pool.acquire(&key, who, Freshness::Any, self.now) {
            Acquired::Dial => {
                assert!(!waits, "nobody overtakes");
                self.close_what_must_go();
                self.opened(key);
            }
            Acquired::Reuse(conn) => {
                assert!(!waits, "nobody overtakes");
                self.close_what_must_go();
                self.reuse(conn, key);
            }
            Acquired::Wait => self.model.waiting.push((who, key)),
            Acquired::QueueFull => assert_eq!(self.model.waiting.len(), WAITING),
        }
    }

    /// Drops what the pool has closed, all of which has to have been idle.
    fn close_what_must_go(&mut self) {
        for conn in self.pool.take_closing() {
            let at = self.model.conns.iter().position(|member| member.0 == conn);
            let member = self.model.conns.remove(at.unwrap());
            assert!(member.2.is_some(), "only idle ones are closed");
        }
    }

    fn serve(&mut self) {
        while let Some(grant) = self.pool.next_grant(self.now) {
            self.close_what_must_go();
            let at = self
                .model
                .waiting
                .iter()
                .position(|waiter| waiter.0 == grant.who);
            let (_, key) = self.model.waiting.remove(at.unwrap());
            let earlier = &self.model.waiting[..at.unwrap()];
            assert!(
                !earlier.iter().any(|waiter| waiter.1 == key),
                "first come, first served"
            );
            match grant.kind {
                GrantKind::Dial => self.opened(key),
                GrantKind::Reuse(conn) => self.reuse(conn, key),
            }
        }
    }

    fn pick(&self, rng: &mut Rng, idle: bool) -> Option<usize> {
        let fitting = |member: &&(u32, &str, Option<Instant>, u64)| member.2.is_some() == idle;
        let count = self.model.conns.iter().filter(fitting).count();
        let chosen = (count > 0).then(|| rng.below(count))?;
        let all = self.model.conns.iter().enumerate();
        let mut all = all.filter(|(_, member)| fitting(member)).map(|(at, _)| at);
        all.nth(chosen)
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.below(12) {
            0..=4 => self.ask(KEYS[rng.below(4)]),
            5..=7 => {
                if let Some(at) = self.pick(rng, false) {
                    let (conn, _, _, generation) = self.model.conns[at];
                    let released = self.pool.release(conn, Reusable::Yes, self.now);
                    let kept = generation == self.model.generation;
                    assert_eq!(released == Released::Idle, kept);
                    if kept {
                        self.model.conns[at].2 = Some(self.now);
                    } else {
                        self.model.conns.remove(at);
                    }
                }
            }
            8 => {
                let idle = rng.below(2) == 0;
                if let Some(at) = self.pick(rng, idle) {
                    self.pool.removed(self.model.conns.remove(at).0);
                }
            }
            9 => self.now += secs(rng.below(20) as u64),
            10 if !self.model.waiting.is_empty() => {
                let at = rng.below(self.model.waiting.len());
                assert!(self.pool.remove_waiter(self.model.waiting.remove(at).0));
            }
            11 if rng.below(10) == 0 => {
                self.model.generation += 1;
                self.pool.retire(self.model.generation);
                self.close_what_must_go();
                let idle = |member: &(u32, &str, Option<Instant>, u64)| member.2.is_some();
                assert!(!self.model.conns.iter().any(idle));
            }
            _ => self.serve(),
        }
        self.close_what_must_go();
    }

    fn check(&self) {
        let metrics = self.pool.metrics();
        let idle = self.model.conns.iter().filter(|member| member.2.is_some());
        assert_eq!(metrics.open, self.model.conns.len());
        assert_eq!(metrics.idle, idle.count());
        assert!(metrics.open <= TOTAL && metrics.idle <= IDLE);
        assert!(
            self.pool
                .waiters()
                .eq(self.model.waiting.iter().map(|waiter| waiter.0))
        );
        for key in KEYS {
            let open = self.model.conns.iter().filter(|member| member.1 == key);
            assert!(open.count() <= PER_ORIGIN);
        }
    }

    /// Nobody waits while there is something to be had.
    fn check_nobody_starves(&mut self) {
        self.serve();
        let all_busy = self.model.conns.iter().all(|member| member.2.is_none());
        for (_, key) in &self.model.waiting {
            let here = self.model.conns.iter().filter(|member| member.1 == *key);
            assert!(here.clone().all(|member| member.2.is_none()));
            let full = self.model.conns.len() == TOTAL && all_busy;
            assert!(here.count() == PER_ORIGIN || full, "{key} starves");
        }
    }
}

#[test]
fn the_pool_behaves_like_its_model() {
    for seed in 1..=60 {
        let config = PoolConfig::new()
            .total(TOTAL)
            .per_origin(PER_ORIGIN)
            .idle(IDLE)
            .waiting(WAITING)
            .idle_lifetime(secs(30));
        let mut run = Run {
            pool: TestPool::new(config),
            model: Model::default(),
            now: start(),
            next_conn: 0,
            next_request: 0,
        };
        let mut rng = Rng::new(seed * 0x9e37_79b9);
        println!("seed {seed}");
        for _ in 0..500 {
            run.step(&mut rng);
            run.check();
            if rng.below(5) == 0 {
                run.check_nobody_starves();
            }
        }
        for conn in run.model.conns.drain(..) {
            run.pool.removed(conn.0);
        }
        run.serve();
    }
}

#[test]
fn closing_the_idle_ones_leaves_those_in_use() {
    let (mut pool, now) = (TestPool::new(PoolConfig::default()), start());
    for conn in 1..=3 {
        open(&mut pool, "a", conn, now);
    }
    assert_eq!(give_back(&mut pool, 1, now), Released::Idle);
    assert_eq!(give_back(&mut pool, 3, now), Released::Idle);
    pool.close_idle();
    let mut closed: Vec<u32> = pool.take_closing();
    closed.sort_unstable();
    assert_eq!(closed, [1, 3]);
    assert_eq!(give_back(&mut pool, 2, now), Released::Idle);
}
