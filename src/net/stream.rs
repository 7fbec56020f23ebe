//! Connected TCP streams.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::errno;
#[cfg(feature = "sim")]
use super::sim::SimStream;

/// A non-blocking byte stream. Dropping it closes it.
#[derive(Debug)]
pub(crate) enum Stream {
    /// A TCP socket of the system.
    Tcp(mio::net::TcpStream),
    /// A stream of a simulated network.
    #[cfg(feature = "sim")]
    Sim(SimStream),
}

/// On these platforms a read that came back short has emptied the socket: what arrives later
/// raises a new event, so the `read` that would only say `WouldBlock` can be saved.
///
/// epoll and kqueue raise an edge for each arrival (epoll(7), question 9, says so for streams).
/// Other selectors, and poll(2) under mio's edge emulation, re-arm only after `WouldBlock`. It
/// never holds for an event that said `READ_CLOSED`: the end of the stream has no edge of its own.
pub(crate) const SHORT_READ_MEANS_DRAINED: bool = cfg!(all(
    not(mio_unsupported_force_poll_poll),
    any(
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "ios",
        target_os = "linux",
        target_os = "macos",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "tvos",
        target_os = "visionos",
        target_os = "watchos",
    )
));

impl Stream {
    /// Starts to connect to `addr`, from `bind` if given. Register the stream, wait until it is
    /// writable, and ask [`connected`](Self::connected).
    pub(crate) fn connect(addr: SocketAddr, bind: Option<SocketAddr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(local) = bind {
            socket.bind(&local.into())?;
        }
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if is_under_way(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(Self::Tcp(mio::net::TcpStream::from_std(socket.into())))
    }

    /// Whether a connect has succeeded, to be asked after a writable event; false says to wait for
    /// another one.
    ///
    /// # Errors
    ///
    /// The reason why it failed. A socket that has connected to itself, which happens when nobody
    /// listens on a port of the ephemeral range, has failed with [`SelfConnected`] inside a
    /// `ConnectionRefused`.
    pub(crate) fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self.peer_addr() {
            Ok(peer) if peer == self.local_addr()? => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                SelfConnected { addr: peer },
            )),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) if is_under_way(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads what is there, up to the length of `buf`; 0 is the end of the stream.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Tcp(stream) => stream.read(buf),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.read(buf),
        })
    }

    /// Writes as much of `buf` as there is room for. Never raises SIGPIPE.
    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            // std sends with MSG_NOSIGNAL, or sets SO_NOSIGPIPE where there is no such flag.
            Self::Tcp(stream) => stream.write(buf),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.write(&[IoSlice::new(buf)]),
        })
    }

    /// Writes as much of the slices as there is room for, possibly ending inside any of them (see
    /// [`IoSlice::advance_slices`]). Never raises SIGPIPE.
    pub(crate) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = &bufs[..bufs.len().min(SLICES_MAX)];
        retry_interrupted(|| match self {
            Self::Tcp(stream) => send_vectored(stream, bufs),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.write(bufs),
        })
    }

    /// Tells the peer that no more will be sent, after what was written.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.shutdown_write(),
        }
    }

    /// Takes the error that waits on the socket.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => Ok(stream.take_error()),
        }
    }

    /// The address of the other end.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr(),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.peer_addr(),
        }
    }

    /// The address of this end.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => Ok(stream.local_addr()),
        }
    }

    /// Sends small segments at once. Streams from [`connect`](Self::connect) and from a listener
    /// do so already; one that was adopted may not.
    pub(crate) fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(on),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Ok(()),
        }
    }
}

/// A connect reached the very socket that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the socket connected to itself on {addr}: nobody listens there")]
pub(crate) struct SelfConnected {
    /// The address of both ends.
    pub(crate) addr: SocketAddr,
}

fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(errno::EINPROGRESS)
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// std writes slices with writev(2), which raises SIGPIPE in a program that has not ignored it;
/// sendmsg(2) can be told not to.
fn send_vectored(stream: &mut mio::net::TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let Some(flags) = NO_SIGNAL else {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        return stream.write(first.map_or(&[], |buf| buf));
    };
    stream.try_io(|| SockRef::from(&*stream).send_vectored_with_flags(bufs, flags))
}

/// The flag of sendmsg(2) that keeps SIGPIPE away: 0 where the socket itself was told
/// (SO_NOSIGPIPE, which socket2 and std set) or where there are no signals, `None` where we know
/// of no way.
const NO_SIGNAL: Option<i32> = if cfg!(any(target_os = "linux", target_os = "android")) {
    Some(0x4000)
} else if cfg!(target_os = "freebsd") {
    Some(0x2_0000)
} else if cfg!(any(
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)) {
    Some(0x400)
} else if cfg!(any(target_os = "illumos", target_os = "solaris")) {
    Some(0x200)
} else if cfg!(any(windows, target_vendor = "apple")) {
    Some(0)
} else {
    None
};

/// The smallest IOV_MAX of the platforms we know; more slices fail with EMSGSIZE.
const SLICES_MAX: usize = 1024;
