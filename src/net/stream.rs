//! Connected TCP streams.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
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
/// Nor does it for one that said `URGENT`: a read ends at urgent data. Only epoll says that; with
/// kqueue what follows urgent data is read when more arrives.
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
    #[inline]
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| self.read_once(buf))
    }

    /// The same, or `Interrupted`.
    #[inline(always)]
    pub(crate) fn read_once(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => receive(stream, buf),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.read(buf),
        }
    }

    /// The same into two places: the second gets what the first has no room for.
    pub(crate) fn read_vectored(
        &mut self,
        first: &mut [u8],
        second: &mut [u8],
    ) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Tcp(stream) => {
                let slices = &mut [IoSliceMut::new(first), IoSliceMut::new(second)];
                stream.read_vectored(slices)
            }
            #[cfg(feature = "sim")]
            Self::Sim(stream) => {
                let mut both = vec![0; first.len() + second.len()];
                let n = stream.read(&mut both)?;
                let (here, there) = both.split_at(first.len());
                first.copy_from_slice(here);
                second.copy_from_slice(there);
                Ok(n)
            }
        })
    }

    /// Writes as much of `buf` as there is room for. Never raises SIGPIPE.
    #[inline]
    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| self.write_once(buf))
    }

    /// The same, or `Interrupted`.
    #[inline(always)]
    pub(crate) fn write_once(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => send(stream, buf),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.write(&[IoSlice::new(buf)]),
        }
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

/// The system call alone: std and mio add nothing to it here, and would take as many instructions
/// again. Where mio emulates edges it has to see each call.
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
#[inline(always)]
fn receive(stream: &mio::net::TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let (_, n) = rustix::net::recv(stream, buf, rustix::net::RecvFlags::empty())?;
    Ok(n)
}

#[cfg(not(all(target_os = "linux", not(mio_unsupported_force_poll_poll))))]
fn receive(mut stream: &mio::net::TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut stream, buf)
}

/// As [`receive`]. Never raises SIGPIPE.
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
#[inline(always)]
fn send(stream: &mio::net::TcpStream, buf: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(
        stream,
        buf,
        rustix::net::SendFlags::NOSIGNAL,
    )?)
}

/// std sends with MSG_NOSIGNAL, or sets SO_NOSIGPIPE where there is no such flag.
#[cfg(not(all(target_os = "linux", not(mio_unsupported_force_poll_poll))))]
fn send(mut stream: &mio::net::TcpStream, buf: &[u8]) -> io::Result<usize> {
    stream.write(buf)
}

#[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::super::poller::ReadyFlags;
    use super::super::testing::{CLIENT, LISTENER, Loop, SERVER, in_child, tcp, wait};
    use super::super::{ListenOptions, Listener, Poller};
    use super::*;

    #[test]
    fn a_connect_is_done_after_a_writable_event_and_both_ends_agree_on_the_addresses() {
        let pair = Loop::new();
        assert_eq!(
            pair.client.peer_addr().unwrap(),
            pair.listener.local_addr().unwrap()
        );
        assert_eq!(
            pair.client.local_addr().unwrap(),
            pair.server.peer_addr().unwrap()
        );
    }

    #[test]
    fn dn_06_a_port_where_nobody_listens_refuses() {
        let mut poller = Poller::new(8).unwrap();
        let listener = Listener::bind(loopback(), ListenOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = match Stream::connect(addr, None) {
            Ok(mut stream) => {
                poller.register_stream(&mut stream, CLIENT).unwrap();
                wait(&mut poller, CLIENT, ReadyFlags::WRITE_CLOSED);
                stream.connected().unwrap_err()
            }
            Err(error) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn dn_06_an_address_that_is_not_ours_cannot_be_connected_from() {
        let error = Stream::connect(loopback(), Some("192.0.2.1:0".parse().unwrap())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn dn_06_a_socket_that_connected_to_itself_has_failed() {
        let mut poller = Poller::new(8).unwrap();
        // An address of its own, so that no other test takes the port in between.
        let free = "127.0.0.77:0".parse().unwrap();
        let listener = Listener::bind(free, ListenOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let mut stream = Stream::connect(addr, Some(addr)).unwrap();
        poller.register_stream(&mut stream, CLIENT).unwrap();
        wait(&mut poller, CLIENT, ReadyFlags::WRITABLE);
        let error = stream.connected().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), SelfConnected { addr }.to_string());
    }

    #[test]
    fn a_connect_under_way_is_not_connected_and_not_failed() {
        // A socket nobody has connected yet looks the same.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let stream = Stream::Tcp(mio::net::TcpStream::from_std(socket.into()));
        assert!(!stream.connected().unwrap());
    }

    #[test]
    fn after_a_short_read_new_bytes_raise_a_new_event() {
        if !SHORT_READ_MEANS_DRAINED {
            return;
        }
        let mut pair = Loop::new();
        let mut buf = [0; 100];
        for round in 0..10 {
            pair.client.write(b"0123456789").unwrap();
            pair.wait(SERVER, ReadyFlags::READABLE);
            assert_eq!(pair.server.read(&mut buf).unwrap(), 10, "round {round}");
        }
    }

    #[test]
    fn after_a_short_read_the_end_raises_a_new_event() {
        if !SHORT_READ_MEANS_DRAINED {
            return;
        }
        let mut pair = Loop::new();
        let mut buf = [0; 100];
        pair.client.write(b"bye").unwrap();
        pair.wait(SERVER, ReadyFlags::READABLE);
        assert_eq!(pair.server.read(&mut buf).unwrap(), 3);
        pair.client.shutdown_write().unwrap();
        pair.wait(SERVER, ReadyFlags::READ_CLOSED);
        assert_eq!(pair.server.read(&mut buf).unwrap(), 0);
    }

    #[test]
    fn after_a_short_write_new_room_raises_a_new_event() {
        if !SHORT_READ_MEANS_DRAINED {
            return;
        }
        let mut pair = Loop::new();
        let block = vec![7; 1 << 20];
        let mut written = 0;
        // As the loop does: no write after a short one until an event says so.
        while let Ok(n) = pair.server.write(&block) {
            written += n;
            if n < block.len() {
                break;
            }
        }
        pair.quiet();
        let (mut read, mut buf) = (0, vec![0; 1 << 20]);
        while read < written {
            match pair.client.read(&mut buf) {
                Ok(n) => read += n,
                Err(_) => drop(pair.wait(CLIENT, ReadyFlags::READABLE)),
            }
        }
        pair.wait(SERVER, ReadyFlags::WRITABLE);
        assert!(pair.server.write(&block).unwrap() > 0);
    }

    #[test]
    fn the_event_for_the_last_bytes_says_that_the_end_comes_with_them() {
        let mut pair = Loop::new();
        pair.client.write(b"bye").unwrap();
        pair.client.shutdown_write().unwrap();
        pair.wait(SERVER, ReadyFlags::READABLE | ReadyFlags::READ_CLOSED);
        let mut buf = [0; 100];
        assert_eq!(pair.server.read(&mut buf).unwrap(), 3);
        assert_eq!(pair.server.read(&mut buf).unwrap(), 0);
        pair.server.write(b"still open this way").unwrap();
        pair.wait(CLIENT, ReadyFlags::READABLE);
        assert_eq!(pair.client.read(&mut buf).unwrap(), 19);
    }

    #[test]
    fn an_urgent_byte_neither_ends_the_stream_nor_hides_what_follows() {
        let mut pair = Loop::new();
        SockRef::from(&*tcp(&mut pair.client))
            .send_out_of_band(b"!")
            .unwrap();
        pair.client.write(b"plain").unwrap();
        let (mut got, mut buf) = (Vec::new(), [0; 100]);
        while got.len() < 5 {
            pair.wait(SERVER, ReadyFlags::READABLE);
            match pair.server.read(&mut buf) {
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(got, b"plain");
    }

    #[test]
    fn io_07_a_vectored_write_that_ends_inside_the_second_slice_goes_on_there() {
        let mut pair = Loop::new();
        let big: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
        let parts = [&b"head"[..], &big[..], &b"tail"[..]];
        let expected = parts.concat();
        let mut slices = parts.map(IoSlice::new);
        let (mut left, mut got, mut buf) = (&mut slices[..], Vec::new(), vec![0; 1 << 16]);
        let mut cut_inside = false;
        while got.len() < expected.len() {
            if !left.is_empty() {
                match pair.client.write_vectored(left) {
                    Ok(n) => {
                        IoSlice::advance_slices(&mut left, n);
                        cut_inside |= left.len() == 2 && left[0].len() < big.len();
                    }
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            match pair.server.read(&mut buf) {
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(cut_inside, "eight megabytes do not fit at once");
        assert!(got == expected);
    }

    #[test]
    fn a_write_of_more_slices_than_the_system_takes_is_cut_not_refused() {
        let mut pair = Loop::new();
        let bytes = [7_u8; 5000];
        let slices: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
        assert_eq!(pair.client.write_vectored(&slices).unwrap(), SLICES_MAX);
        assert_eq!(pair.client.write_vectored(&[]).unwrap(), 0);
    }

    #[test]
    fn both_ends_send_small_segments_at_once() {
        let mut pair = Loop::new();
        for stream in [&mut pair.client, &mut pair.server] {
            assert!(tcp(stream).nodelay().unwrap());
        }
    }

    /// The signal is blocked in the child, so that it stays pending if it was ever raised: a
    /// blocked signal is kept even where it is ignored, as std ignores this one.
    #[cfg(target_os = "linux")]
    #[test]
    fn rs_09_no_write_raises_sigpipe() {
        let name = "net::stream::tests::rs_09_no_write_raises_sigpipe";
        if !in_child(name, &["env", "--block-signal=PIPE"]) {
            return;
        }
        let mut pair = broken_pair();
        for _ in 0..3 {
            let slices = [IoSlice::new(b"a"), IoSlice::new(b"b")];
            assert_eq!(
                pair.write(b"ab").unwrap_err().kind(),
                io::ErrorKind::BrokenPipe
            );
            let error = pair.write_vectored(&slices).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
        assert!(!sigpipe_is_pending());
        // And if one were raised it would show.
        let _ = tcp(&mut pair).write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")]);
        assert!(sigpipe_is_pending());
    }

    #[cfg(target_os = "linux")]
    fn broken_pair() -> Stream {
        let Loop {
            mut poller,
            mut client,
            mut server,
            ..
        } = Loop::new();
        SockRef::from(&*tcp(&mut client))
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        wait(&mut poller, SERVER, ReadyFlags::WRITE_CLOSED);
        let error = server.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        server
    }

    #[cfg(target_os = "linux")]
    fn sigpipe_is_pending() -> bool {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let pending = ["SigPnd:", "ShdPnd:"].into_iter().filter_map(|field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
        let sigpipe = 13;
        pending.fold(0, |all, set| all | set) >> (sigpipe - 1) & 1 == 1
    }

    #[test]
    fn a_listener_event_comes_once_for_each_arrival() {
        if !SHORT_READ_MEANS_DRAINED {
            return;
        }
        let mut pair = Loop::new();
        let addr = pair.listener.local_addr().unwrap();
        let _first = Stream::connect(addr, None).unwrap();
        pair.wait(LISTENER, ReadyFlags::READABLE);
        let _second = Stream::connect(addr, None).unwrap();
        pair.wait(LISTENER, ReadyFlags::READABLE);
        assert!(pair.listener.accept().is_ok());
        assert!(pair.listener.accept().is_ok());
    }

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }
}
