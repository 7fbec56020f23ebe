//! The rooms that touch the operating system: poller, sockets, resolver threads, clock, randomness.
//!
//! Each is an enum with one variant for the system and, under the feature `sim`, a second one for
//! a simulated network. Without the feature the second variant does not exist and costs nothing.

pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod listen;
pub(crate) mod poller;
pub(crate) mod random;
pub(crate) mod resolve;
#[cfg(feature = "sim")]
pub mod sim;
pub(crate) mod stream;
pub(crate) mod transport;

use std::io;
use std::net::SocketAddr;

use clock::Clock;
use listen::{ListenOptions, Listener};
use poller::{Poller, WakeHandle};
use random::Random;
use resolve::Resolver;
use stream::Stream;

/// Where a context's sockets, time, names and randomness come from: the one choice from which all
/// the others follow.
#[derive(Debug, Clone)]
pub(crate) enum System {
    /// The operating system.
    Os,
    /// A simulated network.
    #[cfg(feature = "sim")]
    Sim(sim::Net),
}

impl System {
    /// See [`Clock`].
    pub(crate) fn clock(&self) -> Clock {
        match self {
            Self::Os => Clock::Os,
            #[cfg(feature = "sim")]
            Self::Sim(net) => Clock::Sim(net.clone()),
        }
    }

    /// See [`Poller::new`].
    pub(crate) fn poller(&self, capacity: usize) -> io::Result<Poller> {
        match self {
            Self::Os => Poller::new(capacity),
            #[cfg(feature = "sim")]
            Self::Sim(net) => Ok(Poller::simulated(net, capacity)),
        }
    }

    /// See [`Random::new`].
    pub(crate) fn random(&self) -> io::Result<Random> {
        match self {
            Self::Os => Random::new(),
            #[cfg(feature = "sim")]
            Self::Sim(net) => Ok(net.random()),
        }
    }

    /// See [`Resolver::new`].
    pub(crate) fn resolver(&self, wake: WakeHandle) -> Resolver {
        match self {
            Self::Os => Resolver::new(wake),
            #[cfg(feature = "sim")]
            Self::Sim(net) => Resolver::Sim(net.resolver(wake)),
        }
    }

    /// See [`Stream::connect`].
    pub(crate) fn connect(&self, addr: SocketAddr, bind: Option<SocketAddr>) -> io::Result<Stream> {
        match self {
            Self::Os => Stream::connect(addr, bind),
            #[cfg(feature = "sim")]
            Self::Sim(net) => net.connect(addr, bind).map(Stream::Sim),
        }
    }

    /// See [`Listener::bind`].
    pub(crate) fn bind(&self, addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        match self {
            Self::Os => Listener::bind(addr, options),
            #[cfg(feature = "sim")]
            Self::Sim(net) => net.bind(addr, options).map(Listener::Sim),
        }
    }
}

/// Numbers of system errors that `std::io::ErrorKind` has no stable name for.
pub(crate) mod errno {
    /// Not an open descriptor.
    pub(crate) const EBADF: i32 = if cfg!(windows) { 10009 } else { 9 };
    /// The table of descriptors of the system is full.
    pub(crate) const ENFILE: i32 = if cfg!(windows) { i32::MIN } else { 23 };
    /// The process has as many descriptors as it may.
    pub(crate) const EMFILE: i32 = if cfg!(windows) { 10024 } else { 24 };
    /// A non-blocking connect is under way.
    pub(crate) const EINPROGRESS: i32 = by_family(Numbers {
        linux: 115,
        linux_mips: 150,
        bsd: 36,
        solaris: 150,
        windows: 10036,
    });
    /// The kernel has no buffers left for sockets.
    pub(crate) const ENOBUFS: i32 = by_family(Numbers {
        linux: 105,
        linux_mips: 132,
        bsd: 55,
        solaris: 132,
        windows: 10055,
    });
    /// The descriptor is something other than a socket.
    pub(crate) const ENOTSOCK: i32 = by_family(Numbers {
        linux: 88,
        linux_mips: 95,
        bsd: 38,
        solaris: 95,
        windows: 10038,
    });

    struct Numbers {
        linux: i32,
        linux_mips: i32,
        bsd: i32,
        solaris: i32,
        windows: i32,
    }

    const fn by_family(of: Numbers) -> i32 {
        if cfg!(windows) {
            of.windows
        } else if cfg!(any(target_os = "solaris", target_os = "illumos")) {
            of.solaris
        } else if cfg!(any(target_os = "linux", target_os = "android")) {
            if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
                of.linux_mips
            } else if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
                // Linux on SPARC took the numbers of SunOS 4, which are those of BSD.
                of.bsd
            } else {
                of.linux
            }
        } else {
            of.bsd
        }
    }
}

/// Real sockets for the tests of this room.
#[cfg(test)]
pub(crate) mod testing {
    use std::process::Command;
    use std::time::Duration;

    use super::listen::AcceptError;
    #[cfg(feature = "sim")]
    use super::poller::Ready;
    use super::poller::ReadyFlags;
    use super::*;

    pub(crate) const CLIENT: usize = 1;
    pub(crate) const SERVER: usize = 2;
    pub(crate) const LISTENER: usize = 3;

    /// A poller with a connected pair of registered streams.
    #[derive(Debug)]
    pub(crate) struct Loop {
        pub(crate) poller: Poller,
        pub(crate) listener: Listener,
        pub(crate) client: Stream,
        pub(crate) server: Stream,
    }

    impl Loop {
        pub(crate) fn new() -> Self {
            Self::on(&System::Os, "127.0.0.1:0")
        }

        pub(crate) fn on(system: &System, addr: &str) -> Self {
            let mut poller = system.poller(16).unwrap();
            let mut listener = system
                .bind(addr.parse().unwrap(), ListenOptions::default())
                .unwrap();
            poller.register_listener(&mut listener, LISTENER).unwrap();
            let mut client = system
                .connect(listener.local_addr().unwrap(), None)
                .unwrap();
            poller.register_stream(&mut client, CLIENT).unwrap();
            while !client.connected().unwrap() {
                wait(&mut poller, CLIENT, ReadyFlags::WRITABLE);
            }
            let mut server = accept(&mut poller, &listener);
            poller.register_stream(&mut server, SERVER).unwrap();
            let mut this = Self {
                poller,
                listener,
                client,
                server,
            };
            this.quiet();
            this
        }

        /// Waits until `token` has these flags and tells all that it had.
        pub(crate) fn wait(&mut self, token: usize, flags: ReadyFlags) -> ReadyFlags {
            wait(&mut self.poller, token, flags)
        }

        /// Takes all events that are there.
        pub(crate) fn quiet(&mut self) {
            let mut out = Vec::new();
            for _ in 0..100 {
                self.poller.poll(Some(Duration::ZERO), &mut out).unwrap();
                if out.is_empty() {
                    return;
                }
            }
            panic!("events without end: {out:?}");
        }

        /// What is ready at once.
        #[cfg(feature = "sim")]
        pub(crate) fn now(&mut self) -> Vec<Ready> {
            let mut out = Vec::new();
            self.poller.poll(Some(Duration::ZERO), &mut out).unwrap();
            out
        }
    }

    pub(crate) fn wait(poller: &mut Poller, token: usize, flags: ReadyFlags) -> ReadyFlags {
        let (mut out, mut seen) = (Vec::new(), ReadyFlags::empty());
        for _ in 0..100 {
            poller
                .poll(Some(Duration::from_millis(100)), &mut out)
                .unwrap();
            for ready in out.iter().filter(|ready| ready.token == token) {
                seen |= ready.flags;
            }
            if seen.contains(flags) {
                return seen;
            }
        }
        panic!("token {token} never had {flags:?}, only {seen:?}");
    }

    pub(crate) fn accept(poller: &mut Poller, listener: &Listener) -> Stream {
        for _ in 0..100 {
            match listener.accept() {
                Ok((stream, _)) => return stream,
                Err(AcceptError::WouldBlock) => {
                    wait(poller, LISTENER, ReadyFlags::READABLE);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("nobody connected");
    }

    /// The socket inside a stream that is known to have one.
    pub(crate) fn tcp(stream: &mut Stream) -> &mut mio::net::TcpStream {
        match stream {
            Stream::Tcp(socket) => socket,
            #[cfg(feature = "sim")]
            Stream::Sim(_) => panic!("not a real socket"),
        }
    }

    /// Runs one test again in a child process that a launcher has prepared. False in the parent,
    /// once the child has succeeded, or if there is no such launcher here; true in the child.
    pub(crate) fn in_child(test: &str, launcher: &[&str]) -> bool {
        const MARK: &str = "WSLOOP_TEST_CHILD";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let output = Command::new(launcher[0])
            .args(&launcher[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--test-threads=1", "--nocapture"])
            .env(MARK, "1")
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(said.contains("1 passed"), "the test was not found: {said}");
            }
            Ok(output) if output.status.code() == Some(125) => println!("skipped: {output:?}"),
            Ok(output) => panic!("{output:?}"),
            Err(error) => println!("skipped: {error}"),
        }
        false
    }
}
