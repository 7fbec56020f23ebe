//! What a context holds of a simulated network: streams, listeners, poller, resolver.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::poller::Ready;
use super::super::resolve::{Resolved, literal};
use super::world::{Action, PollerState, Watch};
use super::{Call, Net, Selector};

/// A context's end of a connection.
#[derive(Debug)]
pub(crate) struct SimStream {
    pub(super) net: Net,
    pub(super) id: u64,
}

impl SimStream {
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut world = self.net.lock();
        world.begin_stream_call(Call::Read, self.id)?;
        let max = buf.len().min(world.io_max);
        let taken = world.take_incoming(self.id, max);
        let end = world.end(self.id);
        if taken.is_empty() && max > 0 {
            let over = end.fin || end.dead;
            return if over {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        if taken.len() < buf.len() && !end.incoming.is_empty() {
            // A short read says that all was taken, so what is left arrives just now.
            world.notify_end(self.id);
        }
        buf[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }

    pub(crate) fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut world = self.net.lock();
        world.begin_stream_call(Call::Write, self.id)?;
        world.check_writable(self.id)?;
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        let room = world.room(self.id);
        let n = offered.min(room).min(world.io_max);
        if n < offered {
            world.end_mut(self.id).blocked = true;
        }
        if n == 0 && offered > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if n < offered && n < room {
            // Cut short by `limit_io`, not for want of room: nobody else will say so.
            world.notify_end(self.id);
        }
        if n > 0 {
            let taken = bufs.iter().flat_map(|buf| buf.iter().copied()).take(n);
            world.deliver(self.id, taken.collect());
        }
        Ok(n)
    }

    /// Whether a read or write that came back short has emptied or filled it.
    pub(crate) fn is_done_when_short(&self) -> bool {
        self.net.lock().selector == Selector::Epoll
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        let mut world = self.net.lock();
        world.begin_call(Call::Shutdown)?;
        if !world.end(self.id).is_connected() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        world.shutdown_write(self.id);
        Ok(())
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.net
            .lock()
            .end_mut(self.id)
            .error
            .take()
            .map(io::Error::from)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        let world = self.net.lock();
        let end = world.end(self.id);
        if end.is_connected() {
            Ok(end.remote)
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.net.lock().end(self.id).local
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.net.lock().close(self.id);
    }
}

/// A context's listener.
#[derive(Debug)]
pub(crate) struct SimListener {
    pub(super) net: Net,
    pub(super) id: u64,
    pub(super) addr: SocketAddr,
}

impl SimListener {
    pub(crate) fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let mut world = self.net.lock();
        if let Err(error) = world.begin_call(Call::Accept) {
            if error.kind() == io::ErrorKind::WouldBlock {
                world.notify_listener(self.id);
            }
            return Err(error);
        }
        let next = world.listener_mut(self.id).queue.pop_front();
        let id = next.ok_or(io::ErrorKind::WouldBlock)?;
        let end = world.end_mut(id);
        end.held = true;
        let remote = end.remote;
        drop(world);
        Ok((
            SimStream {
                net: self.net.clone(),
                id,
            },
            remote,
        ))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = self.net.lock();
        let socket = world.listeners.remove(&self.id);
        for id in socket.into_iter().flat_map(|socket| socket.queue) {
            let peer = world.end(id).peer;
            world.reset(peer);
            world.ends.remove(&id);
        }
    }
}

/// A context's poller.
#[derive(Debug)]
pub(crate) struct SimPoller {
    pub(super) net: Net,
    pub(super) id: u64,
    pub(super) capacity: usize,
}

impl SimPoller {
    pub(crate) fn new(net: &Net, capacity: usize) -> Self {
        let mut world = net.lock();
        let id = world.fresh_id();
        world.pollers.insert(id, PollerState::default());
        drop(world);
        Self {
            net: net.clone(),
            id,
            capacity,
        }
    }

    pub(crate) fn poll(&self, timeout: Option<Duration>, out: &mut Vec<Ready>) -> io::Result<bool> {
        let mut world = self.net.lock();
        if let Err(error) = world.begin_call(Call::Poll) {
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            };
        }
        let until = timeout.and_then(|timeout| world.now.checked_add(timeout));
        loop {
            world.take_ready(self.id, self.capacity, out);
            if !out.is_empty() || until.is_some_and(|until| until <= world.now) {
                return Ok(out.len() >= self.capacity);
            }
            let scheduled = world.later.keys().next().map(|key| key.0);
            let Some(next) = scheduled.into_iter().chain(until).min() else {
                return Ok(false);
            };
            world.advance_to(next);
        }
    }

    pub(crate) fn register_stream(&self, stream: &SimStream, token: usize) -> io::Result<()> {
        let mut world = self.net.lock();
        world.begin_call(Call::Register)?;
        world.end_mut(stream.id).watch = Some(Watch {
            poller: self.id,
            token,
            queued: false,
        });
        world.notify_end(stream.id);
        Ok(())
    }

    pub(crate) fn register_listener(&self, listener: &SimListener, token: usize) -> io::Result<()> {
        let mut world = self.net.lock();
        world.begin_call(Call::Register)?;
        let watch = Watch {
            poller: self.id,
            token,
            queued: false,
        };
        world.listener_mut(listener.id).watch = Some(watch);
        world.notify_listener(listener.id);
        Ok(())
    }

    pub(crate) fn waker(&self, token: usize) -> SimWaker {
        if let Some(poller) = self.net.lock().pollers.get_mut(&self.id) {
            poller.waker = Some(token);
        }
        SimWaker {
            net: self.net.clone(),
            poller: self.id,
        }
    }
}

impl Drop for SimPoller {
    fn drop(&mut self) {
        self.net.lock().pollers.remove(&self.id);
    }
}

/// Ends a poll.
#[derive(Debug, Clone)]
pub(crate) struct SimWaker {
    pub(super) net: Net,
    pub(super) poller: u64,
}

impl SimWaker {
    pub(crate) fn wake(&self) {
        self.net.lock().wake(self.poller);
    }
}

/// Answers from the name table.
#[derive(Debug)]
pub(crate) struct SimResolver {
    pub(super) net: Net,
    pub(super) id: u64,
}

impl SimResolver {
    pub(crate) fn start(&self, id: u64, host: &str, port: u16) {
        let mut world = self.net.lock();
        let (delay, result) = match (literal(host, port), world.names.get(host)) {
            (Some(addr), _) => (Some(Duration::ZERO), Ok(vec![addr.ip()])),
            (None, Some(name)) => (name.delay, name.answer.clone()),
            (None, None) => (Some(Duration::ZERO), Err(io::ErrorKind::NotFound.into())),
        };
        let answer = Action::Answer {
            resolver: self.id,
            id,
            port,
            result,
        };
        match delay {
            Some(Duration::ZERO) => world.run(answer),
            Some(delay) => world.schedule(delay, answer),
            None => {}
        }
    }

    pub(crate) fn drain(&self) -> Vec<Resolved> {
        let mut world = self.net.lock();
        world
            .resolvers
            .get_mut(&self.id)
            .map(|r| std::mem::take(&mut r.answers))
            .unwrap_or_default()
    }
}

impl Drop for SimResolver {
    fn drop(&mut self) {
        self.net.lock().resolvers.remove(&self.id);
    }
}
