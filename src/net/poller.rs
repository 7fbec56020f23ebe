//! Waiting for sockets to become ready.

use std::io;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;
use mio::{Interest, Token};

use super::listen::Listener;
#[cfg(feature = "sim")]
use super::sim::{Net, SimPoller, SimWaker};
use super::stream::Stream;

/// Tells which of the registered sockets are ready.
///
/// Events are edge-triggered: an event says that something has changed, once. Sockets are
/// registered for reading and writing when they are made and never again; dropping a socket
/// removes it.
#[derive(Debug)]
pub(crate) enum Poller {
    /// The system's epoll, kqueue, event ports or poll(2).
    Os {
        /// The selector.
        poll: mio::Poll,
        /// The most events of one turn.
        capacity: usize,
    },
    /// A simulated network.
    #[cfg(feature = "sim")]
    Sim(SimPoller),
}

impl Poller {
    /// A selector that gives at most `capacity` events at a time.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self::Os {
            poll: mio::Poll::new()?,
            capacity: capacity.max(1),
        })
    }

    /// The same over a simulated network.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(net: &Net, capacity: usize) -> Self {
        Self::Sim(SimPoller::new(net, capacity.max(1)))
    }

    /// Room for what a poll finds.
    pub(crate) fn room(&self) -> Found {
        match self {
            Self::Os { capacity, .. } => Found::Os(mio::Events::with_capacity(*capacity)),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Found::Sim(Vec::new()),
        }
    }

    /// Waits until something is ready or `timeout` is over (`None` waits for ever) and puts what
    /// is ready into `out`, which came from [`room`](Self::room), in place of its contents. May
    /// return early with nothing: after a signal, and once a day.
    ///
    /// True says that as many events came as fit, so that there may be more: do not sleep next.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, out: &mut Found) -> io::Result<bool> {
        match (self, out) {
            (Self::Os { poll, .. }, Found::Os(events)) => {
                events.clear();
                match poll.poll(events, timeout.map(|t| t.min(LONGEST_SLEEP))) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
                    Err(error) => return Err(error),
                }
                Ok(events.iter().count() >= events.capacity())
            }
            #[cfg(feature = "sim")]
            (Self::Sim(sim), Found::Sim(found)) => {
                found.clear();
                sim.poll(timeout, found)
            }
            #[cfg(feature = "sim")]
            _ => Err(other_network()),
        }
    }

    /// Watches `stream` for reading and writing under `token`. What is ready already is reported
    /// by the next poll.
    pub(crate) fn register_stream(&self, stream: &mut Stream, token: usize) -> io::Result<()> {
        match (self, stream) {
            (Self::Os { poll, .. }, Stream::Tcp(stream)) => {
                poll.registry().register(stream, Token(token), INTEREST)
            }
            #[cfg(feature = "sim")]
            (Self::Sim(sim), Stream::Sim(stream)) => sim.register_stream(stream, token),
            #[cfg(feature = "sim")]
            _ => Err(other_network()),
        }
    }

    /// Watches `listener` for connections under `token`.
    pub(crate) fn register_listener(
        &self,
        listener: &mut Listener,
        token: usize,
    ) -> io::Result<()> {
        match (self, listener) {
            (Self::Os { poll, .. }, Listener::Tcp(listener)) => {
                poll.registry()
                    .register(listener, Token(token), Interest::READABLE)
            }
            #[cfg(feature = "sim")]
            (Self::Sim(sim), Listener::Sim(listener)) => sim.register_listener(listener, token),
            #[cfg(feature = "sim")]
            _ => Err(other_network()),
        }
    }

    /// The handle that ends a [`wait`](Self::wait) from any thread; its events carry `token` and
    /// are readable. To be made once for a poller, whose owner keeps a clone: a wake is lost with
    /// the last handle.
    pub(crate) fn waker(&self, token: usize) -> io::Result<WakeHandle> {
        match self {
            Self::Os { poll, .. } => {
                let waker = mio::Waker::new(poll.registry(), Token(token))?;
                Ok(WakeHandle::Os(Arc::new(waker)))
            }
            #[cfg(feature = "sim")]
            Self::Sim(sim) => Ok(WakeHandle::Sim(sim.waker(token))),
        }
    }

    /// The selector's own descriptor, readable when a [`wait`](Self::wait) would find something,
    /// to be watched (level-triggered) by somebody else's loop. A simulated network has none, and
    /// neither has poll(2).
    #[cfg(unix)]
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Os { poll, .. } => selector_fd(poll.registry()),
            #[cfg(feature = "sim")]
            Self::Sim(_) => None,
        }
    }
}

/// Ends a poll from any thread. Several wakes before the next poll are one.
#[derive(Debug, Clone)]
pub(crate) enum WakeHandle {
    /// The system's eventfd, kqueue event or pipe.
    Os(Arc<mio::Waker>),
    /// A simulated network's.
    #[cfg(feature = "sim")]
    Sim(SimWaker),
}

impl WakeHandle {
    /// Ends the poll that runs now, or else the next one. Harmless after the poller is gone.
    pub(crate) fn wake(&self) -> io::Result<()> {
        match self {
            Self::Os(waker) => waker.wake(),
            #[cfg(feature = "sim")]
            Self::Sim(waker) => {
                waker.wake();
                Ok(())
            }
        }
    }
}

/// What a poll has found, where the selector has written it.
#[derive(Debug)]
pub(crate) enum Found {
    /// The system's.
    Os(mio::Events),
    /// A simulated network's.
    #[cfg(feature = "sim")]
    Sim(Vec<Ready>),
}

impl Found {
    /// No events, and no room for any.
    pub(crate) fn nothing() -> Self {
        Self::Os(mio::Events::with_capacity(0))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Os(events) => events.iter().count(),
            #[cfg(feature = "sim")]
            Self::Sim(found) => found.len(),
        }
    }

    /// Each but the first `done`.
    #[inline(always)]
    pub(crate) fn iter(&self, done: usize) -> Events<'_> {
        match self {
            Self::Os(events) => {
                let mut events = events.iter();
                for _ in 0..done {
                    events.next();
                }
                Events::Os(events)
            }
            #[cfg(feature = "sim")]
            Self::Sim(found) => Events::Sim(found.get(done..).unwrap_or_default().iter()),
        }
    }
}

/// What a poll has found, one after the other.
#[derive(Debug)]
pub(crate) enum Events<'a> {
    /// The system's.
    Os(mio::event::Iter<'a>),
    /// A simulated network's.
    #[cfg(feature = "sim")]
    Sim(std::slice::Iter<'a, Ready>),
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Event<'a>> {
        match self {
            Self::Os(events) => events.next().map(Event::Os),
            #[cfg(feature = "sim")]
            Self::Sim(found) => found.next().copied().map(Event::Sim),
        }
    }
}

/// One thing that a poll has found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// The system's.
    Os(&'a mio::event::Event),
    /// A simulated network's.
    #[cfg(feature = "sim")]
    Sim(Ready),
}

impl Event<'_> {
    /// The token given when it was registered.
    #[inline(always)]
    pub(crate) fn token(self) -> usize {
        match self {
            Self::Os(event) => event.token().0,
            #[cfg(feature = "sim")]
            Self::Sim(ready) => ready.token,
        }
    }

    /// Whether it says nothing but that there is something to read, and perhaps room to write.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        match self {
            Self::Os(event) => {
                event.is_readable()
                    && !event.is_priority()
                    && !event.is_error()
                    && !event.is_read_closed()
                    && !event.is_write_closed()
            }
            #[cfg(feature = "sim")]
            Self::Sim(ready) => ready.flags - ReadyFlags::WRITABLE == ReadyFlags::READABLE,
        }
    }

    /// Whether there is room to write.
    #[inline(always)]
    pub(crate) fn is_writable(self) -> bool {
        match self {
            Self::Os(event) => event.is_writable(),
            #[cfg(feature = "sim")]
            Self::Sim(ready) => ready.flags.contains(ReadyFlags::WRITABLE),
        }
    }

    /// All that may be tried now.
    pub(crate) fn flags(self) -> ReadyFlags {
        let event = match self {
            Self::Os(event) => event,
            #[cfg(feature = "sim")]
            Self::Sim(ready) => return ready.flags,
        };
        let mut flags = ReadyFlags::empty();
        flags.set(ReadyFlags::READABLE, event.is_readable());
        flags.set(ReadyFlags::WRITABLE, event.is_writable());
        flags.set(ReadyFlags::READ_CLOSED, event.is_read_closed());
        flags.set(ReadyFlags::WRITE_CLOSED, event.is_write_closed());
        flags.set(ReadyFlags::ERROR, event.is_error());
        flags.set(ReadyFlags::URGENT, event.is_priority());
        flags
    }
}

/// What is ready, and under which token it was registered.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The token given when it was registered.
    pub(crate) token: usize,
    /// What may be tried now.
    pub(crate) flags: ReadyFlags,
}

bitflags! {
    /// What may be tried on a socket. A flag is a hint: trying may still give `WouldBlock`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct ReadyFlags: u8 {
        /// There is something to read or to accept, the end of the stream included.
        const READABLE = 1;
        /// There is room to write, or a connect has ended.
        const WRITABLE = 1 << 1;
        /// The peer will send no more. No second event announces the end of the stream, so read
        /// until it is reached.
        const READ_CLOSED = 1 << 2;
        /// Nothing can be written any more.
        const WRITE_CLOSED = 1 << 3;
        /// An error waits on the socket.
        const ERROR = 1 << 4;
        /// There is urgent data, at which reads end, however much follows it.
        const URGENT = 1 << 5;
    }
}

#[cfg(feature = "sim")]
fn other_network() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a socket of the system and a simulated network do not meet",
    )
}

#[cfg(all(
    unix,
    not(mio_unsupported_force_poll_poll),
    any(
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "illumos",
        target_os = "ios",
        target_os = "linux",
        target_os = "macos",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "solaris",
        target_os = "tvos",
        target_os = "visionos",
        target_os = "watchos",
    )
))]
fn selector_fd(registry: &mio::Registry) -> Option<BorrowedFd<'_>> {
    Some(std::os::fd::AsFd::as_fd(registry))
}

#[cfg(all(
    unix,
    not(all(
        not(mio_unsupported_force_poll_poll),
        any(
            target_os = "android",
            target_os = "dragonfly",
            target_os = "freebsd",
            target_os = "illumos",
            target_os = "ios",
            target_os = "linux",
            target_os = "macos",
            target_os = "netbsd",
            target_os = "openbsd",
            target_os = "solaris",
            target_os = "tvos",
            target_os = "visionos",
            target_os = "watchos",
        )
    ))
))]
fn selector_fd(_: &mio::Registry) -> Option<BorrowedFd<'_>> {
    None
}

/// What streams are watched for. Only epoll tells of urgent data.
#[cfg(any(target_os = "android", target_os = "linux"))]
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);
#[cfg(not(any(target_os = "android", target_os = "linux")))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Some selectors count milliseconds in 32 bits; a loop that wakes once a day is asleep all the
/// same.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

#[cfg(test)]
impl Poller {
    /// [`Poller::wait`], with what it found by itself.
    pub(crate) fn poll(
        &mut self,
        timeout: Option<Duration>,
        out: &mut Vec<Ready>,
    ) -> io::Result<bool> {
        let mut found = self.room();
        let is_full = self.wait(timeout, &mut found);
        out.clear();
        out.extend(found.iter(0).map(|event| Ready {
            token: event.token(),
            flags: event.flags(),
        }));
        assert_eq!(found.len(), out.len());
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::super::listen::ListenOptions;
    use super::super::testing::{LISTENER, Loop, SERVER};
    use super::*;

    const WAKER: usize = 9;

    #[test]
    fn a_wake_from_another_thread_ends_a_poll_that_would_never_end() {
        let mut poller = Poller::new(8).unwrap();
        let wake = poller.waker(WAKER).unwrap();
        let elsewhere = wake.clone();
        let thread = std::thread::spawn(move || elsewhere.wake().unwrap());
        let mut out = Vec::new();
        while out.is_empty() {
            poller.poll(Some(Duration::MAX), &mut out).unwrap();
        }
        assert_eq!(
            out,
            [Ready {
                token: WAKER,
                flags: ReadyFlags::READABLE
            }]
        );
        thread.join().unwrap();
        // Not before: with its last handle a wake is lost.
        drop(wake);
    }

    #[test]
    fn many_wakes_are_one_and_none_is_left_over() {
        let mut poller = Poller::new(8).unwrap();
        let wake = poller.waker(WAKER).unwrap();
        let mut out = vec![Ready {
            token: 77,
            flags: ReadyFlags::ERROR,
        }];
        for _ in 0..1000 {
            wake.wake().unwrap();
        }
        poller.poll(None, &mut out).unwrap();
        assert_eq!(out.len(), 1, "and what was in the vector is gone");
        poller.poll(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
        wake.wake().unwrap();
        poller.poll(None, &mut out).unwrap();
        assert_eq!(out.len(), 1, "a wake after a poll counts anew");
    }

    #[test]
    fn a_wake_after_the_poller_is_gone_is_harmless() {
        let poller = Poller::new(8).unwrap();
        let wake = poller.waker(WAKER).unwrap();
        drop(poller);
        let _ = wake.wake();
    }

    #[test]
    fn a_full_event_buffer_is_reported_and_nothing_is_lost() {
        let mut poller = Poller::new(1).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut listener = Listener::bind(any, ListenOptions::default()).unwrap();
        poller.register_listener(&mut listener, LISTENER).unwrap();
        let mut client = Stream::connect(listener.local_addr().unwrap(), None).unwrap();
        poller.register_stream(&mut client, SERVER).unwrap();
        let (mut out, mut seen) = (Vec::new(), Vec::new());
        while !(seen.contains(&LISTENER) && seen.contains(&SERVER)) {
            let full = poller
                .poll(Some(Duration::from_secs(10)), &mut out)
                .unwrap();
            // poll(2) makes its buffer larger instead.
            assert!(full || out.len() > 1, "one event fills a buffer for one");
            seen.extend(out.iter().map(|ready| ready.token));
        }
    }

    #[test]
    fn rs_10_a_dropped_stream_has_no_more_events() {
        let mut pair = Loop::new();
        pair.client.write(b"x").unwrap();
        pair.wait(SERVER, ReadyFlags::READABLE);
        pair.client.write(b"y").unwrap();
        let Loop {
            mut poller, server, ..
        } = pair;
        drop(server);
        let mut out = Vec::new();
        poller.poll(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.iter().all(|ready| ready.token != SERVER), "{out:?}");
    }

    #[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
    #[test]
    fn the_poller_has_a_descriptor_for_somebody_elses_loop() {
        let poller = Poller::new(8).unwrap();
        assert!(poller.as_fd().is_some());
    }
}
