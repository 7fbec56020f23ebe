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
