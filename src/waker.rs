//! The only call that may come from another thread.

use std::io;
use std::sync::Arc;

#[cfg(all(test, wsloop_loom))]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(all(test, wsloop_loom)))]
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::poller::WakeHandle;

/// Wakes a context's loop from any thread; [`on_wake`](crate::Protocol::on_wake) follows on every
/// protocol.
///
/// Made by [`Context::cancel_service_handle`](crate::Context::cancel_service_handle). Cheap to
/// clone. What is to be done travels by a channel of the application's own, which the protocol
/// holds and drains in `on_wake`.
#[derive(Clone, Debug)]
pub struct CancelService {
    shared: Arc<Signal<WakeHandle>>,
}

impl CancelService {
    pub(crate) fn new(wake: WakeHandle) -> Self {
        Self {
            shared: Arc::new(Signal::new(wake)),
        }
    }

    /// Ends the wait of the loop, now or, if it does not wait, the next one. Never blocks.
    ///
    /// Calls merge: at least one `on_wake` begins after the last of them. After the context is
    /// gone the call does nothing.
    pub fn cancel_service(&self) {
        self.shared.call();
    }

    /// Whether somebody called since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.shared.take()
    }

    /// Whether somebody called and was not heard yet.
    pub(crate) fn is_called(&self) -> bool {
        self.shared.is_called()
    }
}

/// What ends a wait: the poller's handle, or that of the model in the tests.
trait Wake {
    fn wake(&self) -> io::Result<()>;
}

impl Wake for WakeHandle {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

/// The flag that callers raise and the loop takes down, and what they wake it with.
#[derive(Debug)]
struct Signal<W> {
    called: AtomicBool,
    wake: W,
}

impl<W: Wake> Signal<W> {
    fn new(wake: W) -> Self {
        Self {
            called: AtomicBool::new(false),
            wake,
        }
    }

    fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            // The poller's descriptor outlives the context in this handle, so the one failure
            // left is a full counter, which means that the loop is being woken already.
            let _ = self.wake.wake();
        }
    }

    fn take(&self) -> bool {
        self.called.swap(false, Ordering::AcqRel)
    }

    fn is_called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }
}

/// The flag and the waker in every interleaving of a few threads, by loom. The poller is a model:
/// something that is set and that a wait takes back. The loop does what `Context::service` does: it
/// asks whether it may sleep, polls, and takes the flag.
///
/// `RUSTFLAGS="--cfg wsloop_loom" cargo test --lib --no-default-features waker::`
#[cfg(test)]
#[cfg(wsloop_loom)]
mod model {
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// An eventfd in a selector.
    #[derive(Clone)]
    struct Poller(Arc<(Mutex<bool>, Condvar)>);

    impl Poller {
        fn new() -> Self {
            Self(Arc::new((Mutex::new(false), Condvar::new())))
        }

        /// Waits for an event and takes it; loom reports a deadlock if none comes any more.
        fn wait(&self) {
            let (event, news) = &*self.0;
            let mut event = event.lock().unwrap();
            while !*event {
                event = news.wait(event).unwrap();
            }
            *event = false;
        }

        /// A poll that does not wait.
        fn look(&self) {
            *self.0.0.lock().unwrap() = false;
        }
    }

    impl Wake for Poller {
        fn wake(&self) -> io::Result<()> {
            let (event, news) = &*self.0;
            *event.lock().unwrap() = true;
            news.notify_one();
            Ok(())
        }
    }

    /// The loop turns until its `on_wake` has seen `all` jobs; gives how often it was called.
    fn turn_until(signal: &Signal<Poller>, jobs: &AtomicUsize, all: usize) -> usize {
        let (mut wakes, mut seen) = (0, 0);
        while seen < all {
            if signal.is_called() {
                signal.wake.look();
            } else {
                signal.wake.wait();
            }
            if signal.take() {
                wakes += 1;
                // Relaxed: it is the flag that makes visible what was done before a call.
                seen = jobs.load(Ordering::Relaxed);
            }
        }
        wakes
    }

    /// With so many preemptions of a thread that could go on at most; loom's authors found that two
    /// or three show what there is to be found.
    fn callers(threads: usize, calls: usize, preemptions: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = preemptions;
        model.check(move || {
            let signal = Arc::new(Signal::new(Poller::new()));
            let jobs = Arc::new(AtomicUsize::new(0));
            let call = |_| {
                let (signal, jobs) = (Arc::clone(&signal), Arc::clone(&jobs));
                thread::spawn(move || {
                    for _ in 0..calls {
                        jobs.fetch_add(1, Ordering::Relaxed);
                        signal.call();
                    }
                })
            };
            let threads: Vec<_> = (0..threads).map(call).collect();
            let all = threads.len() * calls;
            let wakes = turn_until(&signal, &jobs, all);
            assert!((1..=all).contains(&wakes), "calls merge, none is made up");
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn re_10_two_callers_lose_no_call_and_nobody_blocks() {
        callers(2, 1, Some(3));
    }

    #[test]
    fn re_10_no_interleaving_of_one_caller_who_calls_again_loses_a_call() {
        callers(1, 2, None);
    }

    #[test]
    fn re_10_several_callers_who_call_again_lose_no_call() {
        callers(2, 2, Some(2));
    }

    #[test]
    fn re_10_a_heard_call_lets_the_loop_sleep() {
        loom::model(|| {
            let signal = Arc::new(Signal::new(Poller::new()));
            let jobs = Arc::new(AtomicUsize::new(0));
            let caller = {
                let (signal, jobs) = (Arc::clone(&signal), Arc::clone(&jobs));
                thread::spawn(move || {
                    jobs.fetch_add(1, Ordering::Relaxed);
                    signal.call();
                })
            };
            assert_eq!(turn_until(&signal, &jobs, 1), 1);
            caller.join().unwrap();
            assert!(!signal.is_called());
            assert!(!signal.take(), "one call, one on_wake");
        });
    }

    /// The loop goes while somebody calls: its poller is dropped, the callers' handle stays.
    #[test]
    fn re_10_calls_while_the_loop_goes_and_afterwards_are_harmless() {
        loom::model(|| {
            let poller = Poller::new();
            let signal = Arc::new(Signal::new(poller.clone()));
            let caller = {
                let signal = Arc::clone(&signal);
                thread::spawn(move || {
                    signal.call();
                    signal.call();
                })
            };
            if signal.take() {
                poller.look();
            }
            drop((signal, poller));
            caller.join().unwrap();
        });
    }
}
