//! Which connection may be used again, who has to wait for one, and who waited longest.
//!
//! Pure accounting: the caller opens, checks and closes the connections. Keys say what makes two
//! connections different (scheme, host, port, names); one more difference, the settings under which
//! a connection was made, is a generation, so that new settings retire the old connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Caps of a pool.
///
/// ```
/// # use std::time::Duration;
/// use wsloop::http::client::PoolConfig;
/// let pool = PoolConfig::new().per_origin(2).idle_lifetime(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PoolConfig {
    total: usize,
    per_origin: usize,
    idle: usize,
    waiting: usize,
    idle_lifetime: Duration,
    queue_timeout: Duration,
}

impl PoolConfig {
    /// 64 connections, 8 per origin, 32 of them idle, for 30 seconds; 1024 may wait for one, for
    /// 10 seconds each.
    pub const fn new() -> Self {
        Self {
            total: 64,
            per_origin: 8,
            idle: 32,
            waiting: 1024,
            idle_lifetime: Duration::from_secs(30),
            queue_timeout: Duration::from_secs(10),
        }
    }

    /// Connections in all, at least 1. Default 64.
    pub fn total(mut self, connections: usize) -> Self {
        self.total = connections.max(1);
        self
    }

    /// Connections of one key, at least 1. Default 8.
    pub fn per_origin(mut self, connections: usize) -> Self {
        self.per_origin = connections.max(1);
        self
    }

    /// Connections that may be idle at once; past that the one that was idle longest is closed. 0:
    /// none is used twice. Default 32.
    pub const fn idle(mut self, connections: usize) -> Self {
        self.idle = connections;
        self
    }

    /// Requests that may wait for a connection; past that they fail at once. Default 1024.
    pub const fn waiting(mut self, requests: usize) -> Self {
        self.waiting = requests;
        self
    }

    /// How long a connection may be idle. Below what servers allow (often 60 seconds, sometimes 5),
    /// or some requests meet a connection that the server is just closing. Default 30 seconds.
    pub const fn idle_lifetime(mut self, lifetime: Duration) -> Self {
        self.idle_lifetime = lifetime;
        self
    }

    /// How long a request may wait for a connection. Default 10 seconds.
    pub const fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = timeout;
        self
    }

    /// How long a connection may be idle.
    pub const fn idle_limit(&self) -> Duration {
        self.idle_lifetime
    }

    /// How long a request may wait.
    pub const fn queue_limit(&self) -> Duration {
        self.queue_timeout
    }

    /// How many requests may wait.
    pub const fn waiting_limit(&self) -> usize {
        self.waiting
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// The account of one pool: connections `C`, requests `W` that wait for one, keys `K`.
#[derive(Debug)]
pub struct Pool<K, C, W> {
    config: PoolConfig,
    generation: u64,
    members: BTreeMap<C, Member<K>>,
    origins: BTreeMap<K, Origin<C>>,
    /// Idle connections, the longest idle first.
    idle: BTreeMap<u64, C>,
    /// Requests, the longest waiting first.
    waiting: BTreeMap<u64, Waiter<K, W>>,
    /// Numbers what is put into `idle` and `waiting`.
    next: u64,
    closing: Vec<C>,
    counts: Counts,
}

#[derive(Debug)]
struct Member<K> {
    key: K,
    generation: u64,
    /// Its number in `idle` and since when, while it is idle.
    idle: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Origin<C> {
    open: usize,
    waiting: usize,
    /// The latest used last: that one is used next, so that the others grow old and go.
    idle: Vec<C>,
}

impl<C> Default for Origin<C> {
    fn default() -> Self {
        Self {
            open: 0,
            waiting: 0,
            idle: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Waiter<K, W> {
    key: K,
    who: W,
    freshness: Freshness,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    opened: u64,
    reused: u64,
    turned_away: u64,
}

/// Whether a request may go over a connection that was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a yes or no with names")]
pub enum Freshness {
    /// Any that fits.
    Any,
    /// A new one: a used one has failed it already.
    New,
}

/// What a request gets from [`Pool::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each answer has to be acted on")]
pub enum Acquired<C> {
    /// A new connection: open it and tell with [`Pool::opened`].
    Dial,
    /// Nothing, and no place in the queue.
    QueueFull,
    /// An idle connection, which is its own now.
    Reuse(C),
    /// A place in the queue; [`Pool::next_grant`] tells when it is its turn.
    Wait,
}

/// The turn of a request that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant<C, W> {
    /// The request.
    pub who: W,
    /// What it gets.
    pub kind: GrantKind<C>,
}

/// What a request that waited gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each answer has to be acted on")]
pub enum GrantKind<C> {
    /// A new connection: open it and tell with [`Pool::opened`].
    Dial,
    /// An idle connection, which is its own now.
    Reuse(C),
}

/// Whether a connection is fit for another request, as far as its user can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a yes or no with names")]
pub enum Reusable {
    /// No: it ends, or nobody can say where its next response would begin.
    No,
    /// Yes.
    Yes,
}

/// What becomes of a connection that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a yes or no with names")]
pub enum Released {
    /// It is of no more use, and off the account: close it.
    Close,
    /// It is idle and may be given to somebody else.
    Idle,
}

/// What a pool holds now, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// Connections, those that are being made included.
    pub open: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Connections that were opened since the beginning.
    pub opened: u64,
    /// Requests that got a connection that was used before.
    pub reused: u64,
    /// Requests that found the queue full.
    pub turned_away: u64,
}

impl<K: Ord + Clone, C: Ord + Copy, W: PartialEq + Copy> Pool<K, C, W> {
    /// An empty pool.
    pub const fn new(config: PoolConfig) -> Self {
        Self {
            config,
            generation: 0,
            members: BTreeMap::new(),
            origins: BTreeMap::new(),
            idle: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
            closing: Vec::new(),
            counts: Counts {
                opened: 0,
                reused: 0,
                turned_away: 0,
            },
        }
    }

    /// Its caps.
    pub const fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Asks for a connection. Nobody overtakes those who wait for the same key.
    pub fn acquire(&mut self, key: &K, who: W, freshness: Freshness, now: Instant) -> Acquired<C> {
        let nobody_waits = self
            .origins
            .get(key)
            .is_none_or(|origin| origin.waiting == 0);
        if nobody_waits {
            match self.grant(key, freshness, now) {
                Some(GrantKind::Reuse(conn)) => return Acquired::Reuse(conn),
                Some(GrantKind::Dial) => return Acquired::Dial,
                None => {}
            }
        }
        if self.waiting.len() >= self.config.waiting {
            self.counts.turned_away += 1;
            self.forget_if_empty(key);
            return Acquired::QueueFull;
        }
        let number = self.number();
        let waiter = Waiter {
            key: key.clone(),
            who,
            freshness,
        };
        self.waiting.insert(number, waiter);
        self.origins.entry(key.clone()).or_default().waiting += 1;
        Acquired::Wait
    }

    /// The next request whose turn it is. Ask until there is none, after anything was given back,
    /// removed or retired.
    pub fn next_grant(&mut self, now: Instant) -> Option<Grant<C, W>> {
        let (number, key, freshness) = self.waiting.iter().find_map(|(number, waiter)| {
            self.can_grant(&waiter.key, waiter.freshness)
                .then(|| (*number, waiter.key.clone(), waiter.freshness))
        })?;
        let kind = self.grant(&key, freshness, now)?;
        let waiter = self.take_waiter(number)?;
        Some(Grant {
            who: waiter.who,
            kind,
        })
    }

    /// A connection is being opened for the request that was told to dial; it is in use.
    pub fn opened(&mut self, key: &K, conn: C) {
        self.counts.opened += 1;
        self.origins.entry(key.clone()).or_default().open += 1;
        let member = Member {
            key: key.clone(),
            generation: self.generation,
            idle: None,
        };
        self.members.insert(conn, member);
    }

    /// The settings under which the connection was made after all.
    pub fn set_generation(&mut self, conn: C, generation: u64) {
        if let Some(member) = self.members.get_mut(&conn) {
            member.generation = generation;
        }
    }

    /// Whether the connection was made under settings that are no longer in force.
    pub fn is_outdated(&self, conn: C) -> bool {
        let member = self.members.get(&conn);
        member.is_some_and(|member| member.generation != self.generation)
    }

    /// A connection is given back by its user.
    pub fn release(&mut self, conn: C, reusable: Reusable, now: Instant) -> Released {
        let fit = reusable == Reusable::Yes && self.config.idle > 0 && !self.is_outdated(conn);
        if !fit {
            self.removed(conn);
            return Released::Close;
        }
        let number = self.number();
        let Some(member) = self.members.get_mut(&conn) else {
            return Released::Close;
        };
        member.idle = Some((number, now));
        self.idle.insert(number, conn);
        let key = member.key.clone();
        self.origins.entry(key).or_default().idle.push(conn);
        while self.idle.len() > self.config.idle {
            self.close_longest_idle();
        }
        Released::Idle
    }

    /// The connection has ended, or is about to. Does nothing for one that is not on the account.
    pub fn removed(&mut self, conn: C) {
        let Some(member) = self.members.remove(&conn) else {
            return;
        };
        if let Some((number, _)) = member.idle {
            self.idle.remove(&number);
        }
        if let Some(origin) = self.origins.get_mut(&member.key) {
            origin.open -= 1;
            origin.idle.retain(|other| *other != conn);
        }
        self.forget_if_empty(&member.key);
    }

    /// The request does not wait any more. Whether it did.
    pub fn remove_waiter(&mut self, who: W) -> bool {
        let found = self.waiting.iter().find(|(_, waiter)| waiter.who == who);
        let number = found.map(|(number, _)| *number);
        number.and_then(|number| self.take_waiter(number)).is_some()
    }

    /// Those who wait, the longest waiting first.
    pub fn waiters(&self) -> impl Iterator<Item = W> {
        self.waiting.values().map(|waiter| waiter.who)
    }

    /// New settings are in force: what was made under others is not used again.
    pub fn retire(&mut self, generation: u64) {
        self.generation = generation;
        let idle: Vec<C> = self.idle.values().copied().collect();
        for conn in idle {
            if self.is_outdated(conn) {
                self.close(conn);
            }
        }
    }

    /// Closes every idle connection.
    pub fn close_idle(&mut self) {
        while !self.idle.is_empty() {
            self.close_longest_idle();
        }
    }

    /// Closes what has been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        while let Some(at) = self.next_expiry() {
            if at > now {
                break;
            }
            self.close_longest_idle();
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        let (_, conn) = self.idle.first_key_value()?;
        let (_, since) = self.members.get(conn)?.idle?;
        since.checked_add(self.config.idle_lifetime)
    }

    /// Whether somebody waits, or something has to be closed: then a change is a reason to call
    /// [`next_grant`](Self::next_grant) and [`take_closing`](Self::take_closing).
    pub fn wants_service(&self) -> bool {
        !self.waiting.is_empty() || !self.closing.is_empty()
    }

    /// Idle connections that are off the account and have to be closed.
    pub fn take_closing(&mut self) -> Vec<C> {
        std::mem::take(&mut self.closing)
    }

    /// What it holds and did.
    pub fn metrics(&self) -> PoolMetrics {
        PoolMetrics {
            open: self.members.len(),
            idle: self.idle.len(),
            waiting: self.waiting.len(),
            opened: self.counts.opened,
            reused: self.counts.reused,
            turned_away: self.counts.turned_away,
        }
    }

    /// What contradicts itself or a cap; see `check_invariants` of the context.
    #[cfg(feature = "sim")]
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let idle_members = self.members.values().filter(|member| member.idle.is_some());
        let idle_known = self.idle.iter().all(|(number, conn)| {
            let member = self.members.get(conn);
            member.is_some_and(|member| member.idle.is_some_and(|(own, _)| own == *number))
        });
        let origin_is_right = |(key, origin): (&K, &Origin<C>)| {
            let members = self.members.values().filter(|member| member.key == *key);
            let waiters = self.waiting.values().filter(|waiter| waiter.key == *key);
            let is_idle = |conn: &C| {
                let member = self.members.get(conn);
                member.is_some_and(|member| member.key == *key && member.idle.is_some())
            };
            origin.open == members.count()
                && origin.waiting == waiters.count()
                && origin.idle.iter().all(is_idle)
                && origin.open + origin.waiting > 0
        };
        let config = &self.config;
        let caps = self.members.len() <= config.total
            && self.idle.len() <= config.idle
            && self.waiting.len() <= config.waiting
            && self
                .origins
                .values()
                .all(|origin| origin.open <= config.per_origin);
        let open: usize = self.origins.values().map(|origin| origin.open).sum();
        let idle: usize = self.origins.values().map(|origin| origin.idle.len()).sum();
        if !idle_known || idle_members.count() != self.idle.len() || idle != self.idle.len() {
            return Some("the idle connections are counted wrong");
        }
        if !self.origins.iter().all(origin_is_right) || open != self.members.len() {
            return Some("the origins are counted wrong");
        }
        (!caps).then_some("a cap is exceeded")
    }

    /// Whether somebody waits whose turn it is.
    #[cfg(feature = "sim")]
    pub(crate) fn could_grant(&self) -> bool {
        let mut waiters = self.waiting.values();
        waiters.any(|waiter| self.can_grant(&waiter.key, waiter.freshness))
    }

    /// Its connections.
    #[cfg(feature = "sim")]
    pub(crate) fn conns(&self) -> impl Iterator<Item = C> {
        self.members.keys().copied()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether [`grant`](Self::grant) would have something, but for what has been idle too long.
    fn can_grant(&self, key: &K, freshness: Freshness) -> bool {
        let origin = self.origins.get(key);
        let idle_here = origin.is_some_and(|origin| !origin.idle.is_empty());
        if idle_here && freshness == Freshness::Any {
            return true;
        }
        let open = origin.map_or(0, |origin| origin.open);
        let room_here = open < self.config.per_origin || idle_here;
        room_here && (self.members.len() < self.config.total || !self.idle.is_empty())
    }

    /// A connection for the key, or leave to open one; idle ones make room for it.
    fn grant(&mut self, key: &K, freshness: Freshness, now: Instant) -> Option<GrantKind<C>> {
        self.expire(now);
        let idle = self.origins.get(key).and_then(|origin| origin.idle.last());
        if let (Some(&conn), Freshness::Any) = (idle, freshness) {
            self.take_idle(conn);
            self.counts.reused += 1;
            return Some(GrantKind::Reuse(conn));
        }
        if !self.can_grant(key, freshness) {
            return None;
        }
        let origin = self.origins.get(key);
        if origin.is_some_and(|origin| origin.open >= self.config.per_origin) {
            let oldest = origin.and_then(|origin| origin.idle.first().copied());
            self.close(oldest?);
        } else if self.members.len() >= self.config.total {
            self.close_longest_idle();
        }
        Some(GrantKind::Dial)
    }

    fn take_idle(&mut self, conn: C) {
        let Some(member) = self.members.get_mut(&conn) else {
            return;
        };
        if let Some((number, _)) = member.idle.take() {
            self.idle.remove(&number);
        }
        if let Some(origin) = self.origins.get_mut(&member.key) {
            origin.idle.retain(|other| *other != conn);
        }
    }

    fn take_waiter(&mut self, number: u64) -> Option<Waiter<K, W>> {
        let waiter = self.waiting.remove(&number)?;
        if let Some(origin) = self.origins.get_mut(&waiter.key) {
            origin.waiting -= 1;
        }
        self.forget_if_empty(&waiter.key);
        Some(waiter)
    }

    fn close_longest_idle(&mut self) {
        if let Some((_, conn)) = self.idle.first_key_value() {
            self.close(*conn);
        }
    }

    fn close(&mut self, conn: C) {
        self.removed(conn);
        self.closing.push(conn);
    }

    fn forget_if_empty(&mut self, key: &K) {
        let empty = |origin: &Origin<C>| origin.open == 0 && origin.waiting == 0;
        if self.origins.get(key).is_some_and(empty) {
            self.origins.remove(key);
        }
    }
}

/// What is known of an attempt that its connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the rule below needs each of them"
)]
pub struct Attempt {
    /// The connection had served another request before.
    pub reused: bool,
    /// A byte of the response had come.
    pub answered: bool,
    /// A byte of the request had left.
    pub sent: bool,
    /// Sending the request twice has the effect of sending it once.
    pub idempotent: bool,
    /// The whole request is still here.
    pub replayable: bool,
    /// It is the second attempt already.
    pub repeated: bool,
}

impl Attempt {
    /// Whether the request may be sent again without the caller's leave (RFC 9112 section 9.3.1):
    /// once, when the connection was an old one that the peer has most likely closed while it was
    /// idle, when nothing of a response came, and when the peer either cannot have acted on the
    /// request or may act on it twice.
    pub const fn may_be_repeated(&self) -> bool {
        self.reused
            && !self.repeated
            && !self.answered
            && self.replayable
            && (self.idempotent || !self.sent)
    }
}

#[cfg(test)]
mod tests;
