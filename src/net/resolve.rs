//! Turning names into addresses without stopping the loop.
//!
//! The system's resolver blocks, so it is called on threads: few, started when there is work and
//! ended when there has been none for a while.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::poller::WakeHandle;
#[cfg(feature = "sim")]
use super::sim::SimResolver;

/// Looks names up and wakes the loop when there are answers.
///
/// Dropping it waits for nobody: a thread in the middle of a look-up ends after it.
#[derive(Debug)]
pub(crate) enum Resolver {
    /// The system's resolver, on threads.
    Threads(Threads),
    /// The name table of a simulated network.
    #[cfg(feature = "sim")]
    Sim(SimResolver),
}

/// The answer to one [`Resolver::start`].
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The id given to `start`. The caller may have lost interest in the meantime.
    pub(crate) id: u64,
    /// The addresses in the order of the system's preference (RFC 6724), or the system's reason.
    pub(crate) result: io::Result<Vec<SocketAddr>>,
}

/// Why a look-up was not begun.
#[derive(Debug, Error)]
pub(crate) enum ResolveRefused {
    /// As many look-ups as allowed wait for a thread.
    #[error("{QUEUE_MAX} name look-ups are waiting already")]
    Busy,
    /// No thread could be started, and there was none.
    #[error("no thread for name look-ups could be started")]
    NoThread(#[source] io::Error),
}

impl Resolver {
    /// A resolver that tells about answers through `wake`. Starts no thread yet.
    pub(crate) fn new(wake: WakeHandle) -> Self {
        Self::Threads(Threads::new(wake, Arc::new(system_lookup)))
    }

    /// Begins to look `host` up. A literal address, with or without brackets, is answered without
    /// the system, by the next [`drain`](Self::drain).
    pub(crate) fn start(&mut self, id: u64, host: &str, port: u16) -> Result<(), ResolveRefused> {
        match self {
            Self::Threads(threads) => threads.start(id, host, port),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => {
                sim.start(id, host, port);
                Ok(())
            }
        }
    }

    /// Takes the answers that have come.
    pub(crate) fn drain(&mut self) -> Vec<Resolved> {
        match self {
            Self::Threads(threads) => threads.drain(),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => sim.drain(),
        }
    }
}

/// The loop's end of a small pool of threads.
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

impl Threads {
    fn new(wake: WakeHandle, lookup: Arc<Lookup>) -> Self {
        let shared = Shared {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            wake,
            lookup,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn start(&self, id: u64, host: &str, port: u16) -> Result<(), ResolveRefused> {
        if let Some(addr) = literal(host, port) {
            self.shared.answer(Resolved {
                id,
                result: Ok(vec![addr]),
            });
            return Ok(());
        }
        let mut state = self.shared.lock();
        if state.jobs.len() >= QUEUE_MAX {
            return Err(ResolveRefused::Busy);
        }
        if state.jobs.len() >= state.idle && state.threads < THREADS_MAX {
            match spawn(Arc::clone(&self.shared)) {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(ResolveRefused::NoThread(error)),
                Err(_) => {}
            }
        }
        state.jobs.push_back(Job {
            id,
            host: host.to_owned(),
            port,
        });
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    fn drain(&self) -> Vec<Resolved> {
        std::mem::take(&mut self.shared.lock().answers)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.shared.work.notify_all();
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("state", &*self.shared.lock())
            .finish_non_exhaustive()
    }
}

type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    wake: WakeHandle,
    lookup: Arc<Lookup>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    answers: Vec<Resolved>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    id: u64,
    host: String,
    port: u16,
}

impl Shared {
    /// No code that runs under the lock leaves the state half changed, so a panic elsewhere in
    /// the program that poisons it is no reason to stop.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, resolved: Resolved) {
        self.lock().answers.push(resolved);
        // The loop that cannot be woken finds the answer when its deadline for it is over.
        let _ = self.wake.wake();
    }

    /// The next job; `None` when it is time for the thread to end.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                break;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            let (guard, timeout) = self
                .work
                .wait_timeout(state, IDLE_THREAD_KEPT)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        None
    }
}

fn spawn(shared: Arc<Shared>) -> io::Result<()> {
    let work = move || {
        while let Some(job) = shared.next_job() {
            let result = (shared.lookup)(&job.host, job.port);
            shared.answer(Resolved { id: job.id, result });
        }
    };
    // The handle is dropped: nobody ever waits for these threads.
    thread::Builder::new()
        .name("wsloop-resolver".to_owned())
        .stack_size(STACK_LEN)
        .spawn(work)
        .map(drop)
}

/// getaddrinfo(3) on every platform, so that the hosts file, multicast DNS and the like count.
fn system_lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

/// The address that `host` is, if it is one: `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`.
pub(crate) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse::<IpAddr>()
        .ok()
        .map(|ip| SocketAddr::new(ip, port))
}

/// How many look-ups run at a time.
const THREADS_MAX: usize = 4;

/// How many look-ups may wait for a thread.
const QUEUE_MAX: usize = 1024;

/// How long a thread without work stays.
const IDLE_THREAD_KEPT: Duration = Duration::from_secs(30);

/// getaddrinfo(3) and the modules it loads have a right to some room, but not to the default
/// eight megabytes.
const STACK_LEN: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::super::poller::Poller;
    use super::*;

    #[test]
    fn the_systems_resolver_knows_the_local_host_and_wakes_the_loop() {
        let (mut poller, wake) = poller();
        let mut resolver = Resolver::new(wake);
        resolver.start(7, "localhost", 80).unwrap();
        let answers = wait(&mut poller, &mut resolver, 1);
        assert_eq!(answers[0].id, 7);
        let addrs = answers[0].result.as_ref().unwrap();
        assert!(
            addrs
                .iter()
                .all(|addr| addr.ip().is_loopback() && addr.port() == 80)
        );
        assert!(!addrs.is_empty());
    }

    #[test]
    fn literal_addresses_are_answered_without_a_thread() {
        let (mut poller, wake) = poller();
        let mut resolver = with_lookup(wake, |_, _| panic!("not to be asked"));
        for (id, host) in (0..).zip(["192.0.2.1", "2001:db8::1", "[2001:db8::1]"]) {
            resolver.start(id, host, 443).unwrap();
        }
        let answers = wait(&mut poller, &mut resolver, 3);
        let addrs: Vec<_> = answers
            .into_iter()
            .flat_map(|answer| answer.result.unwrap())
            .collect();
        let expected = ["192.0.2.1:443", "[2001:db8::1]:443", "[2001:db8::1]:443"];
        assert_eq!(addrs, expected.map(|addr| addr.parse().unwrap()));
        assert_eq!(threads(&resolver).shared.lock().threads, 0);
    }

    #[test]
    fn dn_01_a_failure_and_an_empty_answer_are_told_apart() {
        let (mut poller, wake) = poller();
        let mut resolver = with_lookup(wake, |host, _| match host {
            "empty" => Ok(Vec::new()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        resolver.start(1, "empty", 1).unwrap();
        resolver.start(2, "unknown", 1).unwrap();
        let mut answers = wait(&mut poller, &mut resolver, 2);
        answers.sort_by_key(|answer| answer.id);
        assert!(answers[0].result.as_ref().unwrap().is_empty());
        assert_eq!(
            answers[1].result.as_ref().unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn dn_02_a_look_up_that_hangs_stops_neither_the_loop_nor_the_end() {
        let (mut poller, wake) = poller();
        let (release, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let mut resolver = with_lookup(wake, move |host, _| {
            if host == "hangs" {
                let _ = hang.lock().unwrap().recv();
            }
            Ok(Vec::new())
        });
        resolver.start(1, "hangs", 1).unwrap();
        resolver.start(2, "quick", 1).unwrap();
        let answers = wait(&mut poller, &mut resolver, 1);
        assert_eq!(answers[0].id, 2, "another thread answers meanwhile");

        let shared = Arc::downgrade(&threads(&resolver).shared);
        drop(resolver);
        assert!(shared.upgrade().is_some(), "the look-up still runs");
        drop(release);
        while shared.upgrade().is_some() {
            thread::yield_now();
        }
    }

    #[test]
    fn look_ups_run_four_at_a_time_and_beyond_the_queue_they_are_refused() {
        let (mut poller, wake) = poller();
        let (release, hang) = mpsc::channel::<()>();
        let (hang, running) = (Mutex::new(hang), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&running);
        let mut resolver = with_lookup(wake, move |_, _| {
            seen.fetch_add(1, Ordering::SeqCst);
            let _ = hang.lock().unwrap().recv();
            Ok(Vec::new())
        });
        let total = THREADS_MAX + QUEUE_MAX;
        for id in 0..THREADS_MAX {
            resolver.start(id as u64, "host", 1).unwrap();
        }
        while running.load(Ordering::SeqCst) < THREADS_MAX {
            thread::yield_now();
        }
        for id in THREADS_MAX..total {
            resolver.start(id as u64, "host", 1).unwrap();
        }
        assert!(matches!(
            resolver.start(9999, "host", 1),
            Err(ResolveRefused::Busy)
        ));
        assert_eq!(threads(&resolver).shared.lock().threads, THREADS_MAX);
        assert_eq!(running.load(Ordering::SeqCst), THREADS_MAX);
        drop(release);
        let mut ids: Vec<_> = wait(&mut poller, &mut resolver, total)
            .into_iter()
            .map(|answer| answer.id)
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..total as u64).collect::<Vec<_>>());
    }

    #[test]
    fn a_poisoned_lock_does_not_spread() {
        let (mut poller, wake) = poller();
        let mut resolver = with_lookup(wake, |_, _| Ok(Vec::new()));
        let shared = Arc::clone(&threads(&resolver).shared);
        let poisoner = thread::spawn(move || {
            let _guard = shared.state.lock().unwrap();
            panic!("on purpose");
        });
        assert!(poisoner.join().is_err());
        resolver.start(1, "host", 1).unwrap();
        assert_eq!(wait(&mut poller, &mut resolver, 1)[0].id, 1);
    }

    fn with_lookup(
        wake: WakeHandle,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        Resolver::Threads(Threads::new(wake, Arc::new(lookup)))
    }

    fn threads(resolver: &Resolver) -> &Threads {
        match resolver {
            Resolver::Threads(threads) => threads,
            #[cfg(feature = "sim")]
            Resolver::Sim(_) => panic!("it was made of threads"),
        }
    }

    fn poller() -> (Poller, WakeHandle) {
        let poller = Poller::new(8).unwrap();
        let wake = poller.waker(1).unwrap();
        (poller, wake)
    }

    fn wait(poller: &mut Poller, resolver: &mut Resolver, count: usize) -> Vec<Resolved> {
        let (mut out, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            answers.extend(resolver.drain());
            if answers.len() >= count {
                return answers;
            }
            poller
                .poll(Some(Duration::from_millis(100)), &mut out)
                .unwrap();
        }
        panic!("only {} answers of {count}", answers.len());
    }
}
