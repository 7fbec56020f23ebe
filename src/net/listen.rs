//! Listening sockets, and what to make of an `accept` that fails.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::errno;
#[cfg(feature = "sim")]
use super::sim::SimListener;
use super::stream::Stream;

/// A non-blocking listening socket. Dropping it closes it.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A TCP socket of the system.
    Tcp(mio::net::TcpListener),
    /// A listener of a simulated network.
    #[cfg(feature = "sim")]
    Sim(SimListener),
}

/// What to ask of the system for a new [`Listener`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenOptions {
    /// How many connections may wait to be accepted. Default 1024; the system may allow fewer.
    pub(crate) backlog: i32,
    /// Several sockets on one port, among which the system spreads the connections (on Linux).
    /// Default false.
    pub(crate) reuse_port: bool,
    /// Whether an IPv6 listener refuses IPv4 peers; `None` leaves it to the system. Default true,
    /// so that `[::]:p` and `0.0.0.0:p` go side by side everywhere.
    pub(crate) only_v6: Option<bool>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            reuse_port: false,
            only_v6: Some(true),
        }
    }
}

impl Listener {
    /// Listens on `addr`; port 0 lets the system choose one.
    pub(crate) fn bind(addr: SocketAddr, options: ListenOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // On Windows this option would let any program take the port over.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            set_reuse_port(&socket)?;
        }
        if let (true, Some(only_v6)) = (addr.is_ipv6(), options.only_v6) {
            socket.set_only_v6(only_v6)?;
        }
        socket.set_tcp_nodelay(true)?;
        socket.bind(&addr.into())?;
        socket.listen(options.backlog)?;
        Ok(Self::Tcp(mio::net::TcpListener::from_std(socket.into())))
    }

    /// Takes over a socket that listens already, for instance one inherited from a supervisor.
    pub(crate) fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let socket = SockRef::from(&listener);
        socket.set_tcp_nodelay(true)?;
        #[cfg(target_vendor = "apple")]
        socket.set_nosigpipe(true)?;
        Ok(Self::Tcp(mio::net::TcpListener::from_std(listener)))
    }

    /// The address it listens on, with the port the system chose.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            Self::Sim(listener) => Ok(listener.local_addr()),
        }
    }

    /// Takes one connection. Go on until [`AcceptError::WouldBlock`], or, having stopped earlier
    /// to give others their turn, come back without waiting for an event.
    pub(crate) fn accept(&self) -> Result<(Stream, SocketAddr), AcceptError> {
        let (stream, peer) = match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().map_err(AcceptError::classify)?;
                (Stream::Tcp(stream), peer)
            }
            #[cfg(feature = "sim")]
            Self::Sim(listener) => {
                let (stream, peer) = listener.accept().map_err(AcceptError::classify)?;
                (Stream::Sim(stream), peer)
            }
        };
        if !ACCEPTED_INHERIT_NODELAY {
            // A peer that is gone already shows when it is read from.
            let _ = stream.set_nodelay(true);
        }
        Ok((stream, peer))
    }
}

/// Why `accept` gave no connection, by what to do about it (accept(2), "Error handling").
#[derive(Debug, Error)]
pub(crate) enum AcceptError {
    /// Nobody waits. An event tells when somebody does.
    #[error("no connection waits to be accepted")]
    WouldBlock,
    /// This one connection came to nothing (the peer gave up, a network error of the new socket,
    /// a firewall): accept the next one. Count it against the turn's budget, since a firewall may
    /// refuse for ever.
    #[error("a connection failed before it was accepted")]
    Retry(#[source] io::Error),
    /// Descriptors or memory have run out. The connection still waits, and no event will come
    /// for it: shed it with a [`SpareDescriptor`], or pause and come back by a timer.
    #[error("no descriptor or memory left to accept a connection; raise the limit (ulimit -n)")]
    Exhausted(#[source] io::Error),
    /// The listener itself is of no use.
    #[error("the listening socket is broken")]
    Fatal(#[source] io::Error),
}

impl AcceptError {
    fn classify(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => return Self::WouldBlock,
            io::ErrorKind::InvalidInput => return Self::Fatal(error),
            io::ErrorKind::OutOfMemory => return Self::Exhausted(error),
            _ => {}
        }
        match error.raw_os_error() {
            Some(errno::EMFILE | errno::ENFILE | errno::ENOBUFS) => Self::Exhausted(error),
            Some(errno::EBADF | errno::ENOTSOCK) => Self::Fatal(error),
            _ => Self::Retry(error),
        }
    }
}

/// One descriptor kept for the day when there are none left: given up, it lets a waiting
/// connection be accepted and closed, so that the peer learns at once instead of hanging in the
/// backlog.
#[derive(Debug)]
pub(crate) struct SpareDescriptor {
    spare: Option<Socket>,
}

impl SpareDescriptor {
    /// Reserves one. Without any to reserve it works all the same, but sheds nobody.
    pub(crate) fn new() -> Self {
        Self { spare: reserve() }
    }

    /// Accepts and closes up to `limit` of the connections that wait, and says how many.
    pub(crate) fn shed(&mut self, listener: &Listener, limit: usize) -> usize {
        let mut shed = 0;
        for _ in 0..limit {
            self.spare = None;
            let accepted = listener.accept();
            match accepted {
                Ok(stream_and_peer) => {
                    drop(stream_and_peer);
                    shed += 1;
                }
                Err(AcceptError::Retry(_)) => {}
                Err(_) => break,
            }
        }
        self.refill();
        shed
    }

    /// Takes a new descriptor if the old one is gone; false as long as none can be had.
    pub(crate) fn refill(&mut self) -> bool {
        if self.spare.is_none() {
            self.spare = reserve();
        }
        self.spare.is_some()
    }
}

fn reserve() -> Option<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, None))
        .ok()
}

#[cfg(all(
    unix,
    not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))
))]
fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(
    unix,
    not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))
)))]
fn set_reuse_port(_: &Socket) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "no SO_REUSEPORT on this platform",
    ))
}

/// Linux copies TCP_NODELAY from the listener to what it accepts, which saves a system call for
/// each connection.
const ACCEPTED_INHERIT_NODELAY: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::poller::{Poller, ReadyFlags};
    use super::super::testing::{CLIENT, LISTENER, accept, in_child, tcp};
    use super::*;

    #[cfg(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    #[test]
    fn rs_02_each_error_of_accept_asks_for_the_right_thing() {
        let class = |errno| match AcceptError::classify(io::Error::from_raw_os_error(errno)) {
            AcceptError::WouldBlock => "wait",
            AcceptError::Retry(_) => "retry",
            AcceptError::Exhausted(_) => "exhausted",
            AcceptError::Fatal(_) => "fatal",
        };
        // EPERM, EINTR, ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN, ENETUNREACH,
        // ECONNABORTED, EHOSTDOWN, EHOSTUNREACH; and one that no system has
        for errno in [1, 4, 64, 71, 92, 95, 100, 101, 103, 112, 113, 9999] {
            assert_eq!(class(errno), "retry", "{errno}");
        }
        // ENOMEM, ENFILE, EMFILE, ENOBUFS
        for errno in [12, 23, 24, 105] {
            assert_eq!(class(errno), "exhausted", "{errno}");
        }
        // EBADF, EINVAL, ENOTSOCK
        for errno in [9, 22, 88] {
            assert_eq!(class(errno), "fatal", "{errno}");
        }
        assert_eq!(class(11), "wait", "EAGAIN");
    }

    #[test]
    fn v4_and_v6_listen_side_by_side_on_one_port() {
        let Ok(v6) = bind("[::]:0", ListenOptions::default()) else {
            return;
        };
        let port = v6.local_addr().unwrap().port();
        bind(&format!("0.0.0.0:{port}"), ListenOptions::default()).unwrap();
    }

    #[test]
    fn a_port_is_shared_only_by_those_who_ask_for_it() {
        let shared = ListenOptions {
            reuse_port: true,
            ..ListenOptions::default()
        };
        let first = bind("127.0.0.1:0", shared).unwrap();
        let addr = first.local_addr().unwrap().to_string();
        bind(&addr, shared).unwrap();
        let error = bind(&addr, ListenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_inherited_listener_serves_like_one_of_ours() {
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listener = Listener::from_std(inherited).unwrap();
        let mut poller = Poller::new(8).unwrap();
        poller.register_listener(&mut listener, LISTENER).unwrap();
        assert!(matches!(listener.accept(), Err(AcceptError::WouldBlock)));
        let _client = Stream::connect(listener.local_addr().unwrap(), None).unwrap();
        let mut stream = accept(&mut poller, &listener);
        assert!(tcp(&mut stream).nodelay().unwrap());
    }

    /// In a child process with few descriptors, since the limit is the process's.
    #[cfg(unix)]
    #[test]
    fn rs_01_without_descriptors_the_backlog_is_shed_and_service_resumes() {
        let name = "net::listen::tests::rs_01_without_descriptors_the_backlog_is_shed_and_\
                    service_resumes";
        if !in_child(name, &["sh", "-c", r#"ulimit -n 64 && exec "$0" "$@""#]) {
            return;
        }
        let mut poller = Poller::new(8).unwrap();
        let mut listener = bind("127.0.0.1:0", ListenOptions::default()).unwrap();
        poller.register_listener(&mut listener, LISTENER).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut spare = SpareDescriptor::new();
        let mut clients: Vec<_> = (0..5)
            .map(|_| std::net::TcpStream::connect(addr).unwrap())
            .collect();
        let hoard: Vec<_> = std::iter::from_fn(reserve).collect();

        assert!(matches!(listener.accept(), Err(AcceptError::Exhausted(_))));
        assert_eq!(spare.shed(&listener, 2), 2, "no more than was asked for");
        assert_eq!(spare.shed(&listener, 100), 3, "and then all the others");
        for client in &mut clients {
            let got = io::Read::read(client, &mut [0; 1]).unwrap();
            assert_eq!(got, 0, "closed, not left hanging");
        }
        drop(clients.pop());
        drop(hoard);
        let mut client = Stream::connect(addr, None).unwrap();
        poller.register_stream(&mut client, CLIENT).unwrap();
        accept(&mut poller, &listener);
        assert!(spare.refill());
    }

    #[test]
    fn shedding_nobody_ends_at_once() {
        let listener = bind("127.0.0.1:0", ListenOptions::default()).unwrap();
        assert_eq!(SpareDescriptor::new().shed(&listener, usize::MAX), 0);
    }

    #[test]
    fn a_connection_that_waited_before_the_listener_was_registered_is_reported() {
        let mut listener = bind("127.0.0.1:0", ListenOptions::default()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut poller = Poller::new(8).unwrap();
        poller.register_listener(&mut listener, LISTENER).unwrap();
        let mut out = Vec::new();
        poller
            .poll(Some(Duration::from_secs(10)), &mut out)
            .unwrap();
        assert_eq!(out.len(), 1);
        assert!(out[0].flags.contains(ReadyFlags::READABLE));
    }

    fn bind(addr: &str, options: ListenOptions) -> io::Result<Listener> {
        Listener::bind(addr.parse().unwrap(), options)
    }
}
