//! When to try again, and when to doubt that the peer is still there.
//!
//! Pure functions of a policy, of times, and of a random number that the caller brings.

use std::time::{Duration, Instant};

use thiserror::Error;

/// How a client backs off between attempts, and how the silence of a connection is judged.
///
/// A policy is a table of delays. Attempt after attempt moves down the table and stays at its last
/// entry; each delay is lengthened by a random share of itself, since clients that all lost their
/// server at the same moment must not all come back at the same moment (RFC 6455, section 7.2.3).
///
/// | Field | Default |
/// |---|---|
/// | delays | 1 s, 2 s, 4 s, 8 s, 15 s, 30 s |
/// | jitter | up to 30 % on top |
/// | retries before giving up | as many as there are delays |
/// | ping after silence of | 30 s |
/// | hang up after silence of | 45 s |
/// | a connection is stable after | 10 s |
///
/// Silence is the time since the last byte of any kind came in: data, a pong or half a frame all
/// show that the peer is there. A peer that sends data and never answers a ping is not hung up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    delays: Vec<Duration>,
    jitter_percent: u8,
    conceal_count: u32,
    ping_after: Option<Duration>,
    hang_up_after: Option<Duration>,
    stable_after: Duration,
}

impl RetryPolicy {
    /// Starts from the defaults.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder::default()
    }

    /// The delays before jitter, in the order they are used; the last one repeats.
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// The largest share of a delay that is added to it at random, in percent.
    pub fn jitter_percent(&self) -> u8 {
        self.jitter_percent
    }

    /// How many times the client tries again after an attempt that failed, before it gives up;
    /// `u32::MAX` means it never does.
    pub fn conceal_count(&self) -> u32 {
        self.conceal_count
    }

    /// The silence after which a ping is sent.
    pub fn ping_after(&self) -> Option<Duration> {
        self.ping_after
    }

    /// The silence after which the connection is given up.
    pub fn hang_up_after(&self) -> Option<Duration> {
        self.hang_up_after
    }

    /// How long a connection has to stay up for the back-off to begin anew after it.
    pub fn stable_after(&self) -> Duration {
        self.stable_after
    }

    /// What the silence since `last_received` (the arrival of the last byte of any kind) asks for
    /// at `now`. The caller forgets an outstanding ping as soon as anything arrives.
    pub(crate) fn validity(
        &self,
        last_received: Instant,
        now: Instant,
        ping: PingState,
    ) -> Validity {
        let due = |after: Option<Duration>| after.and_then(|d| last_received.checked_add(d));
        let hang_up = due(self.hang_up_after);
        let ping_at = match ping {
            PingState::Outstanding => None,
            PingState::None => due(self.ping_after),
        };
        if hang_up.is_some_and(|at| at <= now) {
            return Validity::HangUp;
        }
        if ping_at.is_some_and(|at| at <= now) {
            return Validity::SendPing;
        }
        Validity::Wait(ping_at.or(hang_up))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            delays: [1, 2, 4, 8, 15, 30].map(Duration::from_secs).to_vec(),
            jitter_percent: 30,
            conceal_count: 6,
            ping_after: Some(Duration::from_secs(30)),
            hang_up_after: Some(Duration::from_secs(45)),
            stable_after: Duration::from_secs(10),
        }
    }
}

/// Builds a [`RetryPolicy`]; what is not set keeps its default.
///
/// ```
/// # use std::time::Duration;
/// use wsloop::RetryPolicy;
///
/// let policy = RetryPolicy::builder()
///     .delays([Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(60)])
///     .forever()
///     .build()?;
/// # Ok::<(), wsloop::RetryPolicyError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct RetryPolicyBuilder {
    policy: RetryPolicy,
    conceal_count: Option<u32>,
}

impl RetryPolicyBuilder {
    /// The delays, first attempt first; the last one repeats. None may be zero.
    pub fn delays(mut self, delays: impl Into<Vec<Duration>>) -> Self {
        self.policy.delays = delays.into();
        self
    }

    /// The largest share of a delay, 0 to 100 percent, that is added to it at random.
    pub fn jitter_percent(mut self, percent: u8) -> Self {
        self.policy.jitter_percent = percent;
        self
    }

    /// How many times the client tries again before it gives up, not counting the first attempt:
    /// so many failures are concealed, and the next one is reported. Default: as many as there are
    /// delays. Zero means that the first failure is reported at once.
    pub fn conceal_count(mut self, retries: u32) -> Self {
        self.conceal_count = Some(retries);
        self
    }

    /// Never gives up; the last delay repeats.
    ///
    /// Tried again are failures that pass
    /// ([`ConnectError::is_retryable`](crate::ConnectError::is_retryable)), and with such a policy
    /// also certificates that are not accepted, the server's or our own, each time after the last
    /// delay of the table: one that expired is exchanged some time, and then the client is back.
    /// Everything else ends the attempts at once: a refusal with another status than 408, 425, 429
    /// or 5xx, a response that breaks the protocol, TLS versions or suites without one in common,
    /// `on_established` that refuses.
    pub fn forever(self) -> Self {
        self.conceal_count(u32::MAX)
    }

    /// After how much silence a ping is sent; `None` sends none.
    pub fn ping_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.policy.ping_after = silence.into();
        self
    }

    /// After how much silence the connection is given up; `None` waits for ever. With a ping it
    /// has to be later than the ping, or no answer could ever count.
    pub fn hang_up_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.policy.hang_up_after = silence.into();
        self
    }

    /// How long a connection has to stay up for the back-off to begin anew after it. A server that
    /// accepts and drops at once is thus still backed off from.
    pub fn stable_after(mut self, time: Duration) -> Self {
        self.policy.stable_after = time;
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    ///
    /// [`RetryPolicyError`] names the field that cannot be.
    pub fn build(self) -> Result<RetryPolicy, RetryPolicyError> {
        let mut policy = self.policy;
        if policy.delays.is_empty() {
            return Err(RetryPolicyError::NoDelays);
        }
        if let Some(index) = policy.delays.iter().position(Duration::is_zero) {
            return Err(RetryPolicyError::ZeroDelay { index });
        }
        if policy.jitter_percent > 100 {
            return Err(RetryPolicyError::JitterOver100 {
                percent: policy.jitter_percent,
            });
        }
        check_validity(policy.ping_after, policy.hang_up_after)?;
        let table_len = u32::try_from(policy.delays.len()).unwrap_or(u32::MAX);
        policy.conceal_count = self.conceal_count.unwrap_or(table_len);
        Ok(policy)
    }
}

/// Why a [`RetryPolicy`] was not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RetryPolicyError {
    /// The hang-up does not come after the ping.
    #[error(
        "hang_up_after ({hang_up:?}) must be longer than ping_after ({ping:?}), \
         so that the answer to the ping has time to arrive"
    )]
    HangUpNotAfterPing {
        /// The silence after which a ping is sent.
        ping: Duration,
        /// The silence after which the connection is given up.
        hang_up: Duration,
    },
    /// The random share is more than the delay itself.
    #[error("jitter_percent is {percent}; it must be between 0 and 100")]
    JitterOver100 {
        /// The share that was asked for.
        percent: u8,
    },
    /// The table of delays is empty.
    #[error("the table of delays is empty; for no retries use conceal_count(0)")]
    NoDelays,
    /// A delay is zero, which would hammer a server that is down.
    #[error("delay number {index} is zero; a retry needs some delay (RFC 6455, section 7.2.3)")]
    ZeroDelay {
        /// Its place in the table, from 0.
        index: usize,
    },
    /// A ping or hang-up after no silence at all.
    #[error("ping_after and hang_up_after must not be zero; to switch one off pass None")]
    ZeroSilence,
}

/// Where one client stands in its [`RetryPolicy`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RetryState {
    attempts: u32,
}

impl RetryState {
    /// Nothing has failed yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// How long to wait before the next attempt, or `None` when it is time to give up. Each call
    /// counts as an attempt. `random` is any 64 bits that differ from client to client.
    pub(crate) fn next_delay(&mut self, policy: &RetryPolicy, random: u64) -> Option<Duration> {
        let forever = policy.conceal_count == u32::MAX;
        if !forever && self.attempts >= policy.conceal_count {
            return None;
        }
        let index = usize::try_from(self.attempts).unwrap_or(usize::MAX);
        let delay = *policy.delays.get(index).or_else(|| policy.delays.last())?;
        self.attempts = self.attempts.saturating_add(1);
        Some(delay.saturating_add(jitter(delay, policy.jitter_percent, random)))
    }

    /// The same for a failure that takes its time to be mended: the last delay of the table, and
    /// only by a policy that never gives up.
    pub(crate) fn last_delay(&mut self, policy: &RetryPolicy, random: u64) -> Option<Duration> {
        if policy.conceal_count != u32::MAX {
            return None;
        }
        let delay = *policy.delays.last()?;
        self.attempts = self.attempts.saturating_add(1);
        Some(delay.saturating_add(jitter(delay, policy.jitter_percent, random)))
    }

    /// Tells that a connection was established and stayed up for `lasted`. Only one that lasted
    /// [`RetryPolicy::stable_after`] lets the back-off begin anew.
    pub(crate) fn succeeded(&mut self, policy: &RetryPolicy, lasted: Duration) {
        if lasted >= policy.stable_after {
            self.reset();
        }
    }

    /// Begins anew: the next delay is the first of the table.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many delays were given out since the beginning or the last reset.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Whether a ping was sent and nothing has been received since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingState {
    /// No ping waits for a sign of life.
    None,
    /// A ping was sent, and nothing has arrived since.
    Outstanding,
}

/// What the silence of a connection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    /// The peer has been silent for too long: close the connection.
    HangUp,
    /// Ask the peer for a sign of life, and ask again here with `PingState::Outstanding`.
    SendPing,
    /// Nothing until then; `None` is nothing at all.
    Wait(Option<Instant>),
}

fn check_validity(
    ping: Option<Duration>,
    hang_up: Option<Duration>,
) -> Result<(), RetryPolicyError> {
    if [ping, hang_up].contains(&Some(Duration::ZERO)) {
        return Err(RetryPolicyError::ZeroSilence);
    }
    match (ping, hang_up) {
        (Some(ping), Some(hang_up)) if hang_up <= ping => {
            Err(RetryPolicyError::HangUpNotAfterPing { ping, hang_up })
        }
        _ => Ok(()),
    }
}

/// Between nothing and `percent` of `delay`, as `random` goes from 0 to its maximum.
fn jitter(delay: Duration, percent: u8, random: u64) -> Duration {
    let most = (delay / 100).saturating_mul(u32::from(percent)).as_nanos();
    let most = most.min(u128::from(u64::MAX));
    let nanos = (most * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn delays_follow_the_table_and_then_the_client_gives_up() {
        let policy = RetryPolicy::builder()
            .delays([secs(1), secs(3)])
            .build()
            .unwrap();
        let mut state = RetryState::new();
        assert_eq!(state.next_delay(&policy, 0), Some(secs(1)));
        assert_eq!(state.next_delay(&policy, 0), Some(secs(3)));
        assert_eq!(state.next_delay(&policy, 0), None);
        assert_eq!(state.attempts(), 2, "giving up is not an attempt");
    }

    #[test]
    fn a_client_that_never_gives_up_repeats_the_last_delay() {
        let policy = RetryPolicy::builder()
            .delays([secs(1), secs(3)])
            .forever()
            .build()
            .unwrap();
        let mut state = RetryState {
            attempts: u32::MAX - 1,
        };
        for _ in 0..3 {
            assert_eq!(state.next_delay(&policy, 0), Some(secs(3)));
        }
    }

    #[test]
    fn conceal_count_may_be_shorter_or_longer_than_the_table() {
        let table = [secs(1), secs(3)];
        for (count, expected) in [(0, 0), (1, 1), (5, 5)] {
            let policy = RetryPolicy::builder()
                .delays(table)
                .conceal_count(count)
                .build()
                .unwrap();
            let mut state = RetryState::new();
            let given = std::iter::from_fn(|| state.next_delay(&policy, 0)).count();
            assert_eq!(given, expected);
        }
    }

    #[test]
    fn rc_01_jitter_adds_between_nothing_and_its_percentage() {
        let policy = RetryPolicy::builder()
            .delays([secs(10)])
            .jitter_percent(30)
            .build()
            .unwrap();
        let delay = |random| RetryState::new().next_delay(&policy, random).unwrap();
        assert_eq!(delay(0), secs(10));
        assert_eq!(delay(u64::MAX / 2).as_millis(), 11_499);
        assert_eq!(delay(u64::MAX).as_millis(), 12_999);
        let none = RetryPolicy::builder()
            .delays([secs(10)])
            .jitter_percent(0)
            .build()
            .unwrap();
        assert_eq!(
            RetryState::new().next_delay(&none, u64::MAX),
            Some(secs(10))
        );
    }

    #[test]
    fn rc_01_ten_thousand_clients_of_one_server_come_back_spread_over_the_jitter() {
        let policy = RetryPolicy::default();
        let mut buckets = [0_u32; 10];
        let mut rng = 0x2545_f491_4f6c_dd1d_u64;
        println!("seed {rng:#x}");
        for _ in 0..10_000 {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            let delay = RetryState::new().next_delay(&policy, rng).unwrap();
            buckets[(delay - secs(1)).as_millis() as usize / 30] += 1;
        }
        assert!(
            buckets.iter().all(|&n| (800..1200).contains(&n)),
            "{buckets:?}"
        );
    }

    #[test]
    fn tm_08_the_longest_delay_does_not_overflow() {
        let policy = RetryPolicy::builder()
            .delays([Duration::MAX])
            .jitter_percent(100)
            .stable_after(Duration::MAX)
            .ping_after(Duration::MAX)
            .hang_up_after(None)
            .build()
            .unwrap();
        assert_eq!(
            RetryState::new().next_delay(&policy, u64::MAX),
            Some(Duration::MAX)
        );
        let now = Instant::now();
        assert_eq!(
            policy.validity(now, now, PingState::None),
            Validity::Wait(None)
        );
    }

    #[test]
    fn rc_02_a_flapping_server_does_not_reset_the_back_off() {
        let policy = RetryPolicy::builder()
            .jitter_percent(0)
            .forever()
            .build()
            .unwrap();
        let mut state = RetryState::new();
        let mut delays = Vec::new();
        for _ in 0..4 {
            delays.extend(state.next_delay(&policy, 0));
            state.succeeded(&policy, secs(9));
        }
        assert_eq!(delays, [1, 2, 4, 8].map(secs));
        state.succeeded(&policy, secs(10));
        assert_eq!(state.attempts(), 0);
        assert_eq!(state.next_delay(&policy, 0), Some(secs(1)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let build = |builder: RetryPolicyBuilder| builder.build().unwrap_err();
        let new = RetryPolicy::builder;
        assert_eq!(build(new().delays([])), RetryPolicyError::NoDelays);
        let zero = build(new().delays([secs(1), Duration::ZERO]));
        assert_eq!(zero, RetryPolicyError::ZeroDelay { index: 1 });
        let jitter = build(new().jitter_percent(101));
        assert_eq!(jitter, RetryPolicyError::JitterOver100 { percent: 101 });
        let equal = build(new().ping_after(secs(45)));
        assert_eq!(
            equal,
            RetryPolicyError::HangUpNotAfterPing {
                ping: secs(45),
                hang_up: secs(45)
            }
        );
        assert_eq!(
            build(new().ping_after(Duration::ZERO)),
            RetryPolicyError::ZeroSilence
        );
        assert_eq!(
            build(new().hang_up_after(Duration::ZERO)),
            RetryPolicyError::ZeroSilence
        );
    }

    #[test]
    fn an_untouched_builder_gives_the_defaults_of_the_table_in_the_docs() {
        let policy = RetryPolicy::builder().build().unwrap();
        assert_eq!(policy, RetryPolicy::default());
        assert_eq!(policy.delays().len(), policy.conceal_count() as usize);
        assert_eq!(
            (policy.ping_after(), policy.hang_up_after()),
            (Some(secs(30)), Some(secs(45)))
        );
        assert_eq!(
            (policy.jitter_percent(), policy.stable_after()),
            (30, secs(10))
        );
    }

    #[test]
    fn silence_is_answered_by_a_ping_and_then_by_hanging_up() {
        let policy = RetryPolicy::default();
        let t0 = Instant::now();
        let ask = |at, ping| policy.validity(t0, t0 + secs(at), ping);
        assert_eq!(ask(0, PingState::None), Validity::Wait(Some(t0 + secs(30))));
        assert_eq!(
            ask(29, PingState::None),
            Validity::Wait(Some(t0 + secs(30)))
        );
        assert_eq!(ask(30, PingState::None), Validity::SendPing);
        assert_eq!(
            ask(30, PingState::Outstanding),
            Validity::Wait(Some(t0 + secs(45)))
        );
        assert_eq!(ask(45, PingState::Outstanding), Validity::HangUp);
        assert_eq!(
            ask(500, PingState::None),
            Validity::HangUp,
            "after a long sleep of the host"
        );
    }

    #[test]
    fn tm_04_a_peer_that_sends_data_but_never_pongs_is_kept() {
        let policy = RetryPolicy::default();
        let t0 = Instant::now();
        let mut last = t0;
        for second in 1..1000 {
            let now = t0 + secs(second);
            let asked = policy.validity(last, now, PingState::Outstanding);
            assert_ne!(asked, Validity::HangUp);
            if second % 40 == 0 {
                last = now;
            }
        }
    }

    #[test]
    fn without_a_ping_the_hang_up_still_comes_and_without_both_nothing_does() {
        let t0 = Instant::now();
        let idle = RetryPolicy::builder().ping_after(None).build().unwrap();
        let asked = idle.validity(t0, t0, PingState::None);
        assert_eq!(asked, Validity::Wait(Some(t0 + secs(45))));
        let patient = RetryPolicy::builder().hang_up_after(None).build().unwrap();
        let asked = patient.validity(t0, t0 + secs(31), PingState::Outstanding);
        assert_eq!(asked, Validity::Wait(None));
        let off = RetryPolicy::builder()
            .ping_after(None)
            .hang_up_after(None)
            .build()
            .unwrap();
        let asked = off.validity(t0, t0 + secs(9999), PingState::None);
        assert_eq!(asked, Validity::Wait(None));
    }

    #[test]
    fn what_takes_long_to_mend_is_tried_at_the_last_pace_or_not_at_all() {
        let delays = [secs(1), secs(60)];
        let forever = RetryPolicy::builder().delays(delays).jitter_percent(0);
        let policy = forever.forever().build().unwrap();
        let mut state = RetryState::new();
        assert_eq!(state.last_delay(&policy, 7), Some(secs(60)));
        // It counted as an attempt.
        assert_eq!(state.next_delay(&policy, 7), Some(secs(60)));
        let policy = RetryPolicy::builder().delays(delays).build().unwrap();
        assert_eq!(RetryState::new().last_delay(&policy, 7), None);
    }
}
