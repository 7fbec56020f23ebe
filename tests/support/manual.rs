//! What the manual pages say that a call may fail with.
#![allow(unreachable_pub, reason = "each test binary includes it")]

use std::io::ErrorKind;

use wsloop::sim::{Call, Fault};

/// Those that end something; `EINTR` and `EAGAIN` only delay.
pub fn faults(call: Call) -> Vec<Fault> {
    let (kinds, numbers): (&[ErrorKind], &[i32]) = match call {
        // accept(2): errors of the new socket come out here; descriptors and memory run out.
        Call::Accept => (
            &[ErrorKind::ConnectionAborted, ErrorKind::PermissionDenied],
            &[EMFILE, ENFILE, ENOBUFS, ENOMEM],
        ),
        // socket(2), bind(2), listen(2)
        Call::Bind => (
            &[
                ErrorKind::AddrInUse,
                ErrorKind::AddrNotAvailable,
                ErrorKind::PermissionDenied,
            ],
            &[EMFILE, ENFILE, ENOBUFS, ENOMEM],
        ),
        // socket(2), connect(2)
        Call::Connect => (
            &[
                ErrorKind::AddrNotAvailable,
                ErrorKind::ConnectionRefused,
                ErrorKind::NetworkUnreachable,
                ErrorKind::PermissionDenied,
            ],
            &[EMFILE, ENFILE, ENOBUFS, ENOMEM],
        ),
        // recv(2), tcp(7)
        Call::Read => (
            &[
                ErrorKind::ConnectionReset,
                ErrorKind::HostUnreachable,
                ErrorKind::TimedOut,
            ],
            &[ENOBUFS, ENOMEM],
        ),
        // epoll_ctl(2)
        Call::Register => (&[], &[ENOMEM, ENOSPC]),
        // shutdown(2)
        Call::Shutdown => (&[ErrorKind::NotConnected], &[ENOBUFS]),
        // send(2), tcp(7)
        Call::Write => (
            &[
                ErrorKind::BrokenPipe,
                ErrorKind::ConnectionReset,
                ErrorKind::HostUnreachable,
                ErrorKind::TimedOut,
            ],
            &[ENOBUFS, ENOMEM],
        ),
        // epoll_wait(2): nothing else, given a poller and room for its events.
        _ => (&[ErrorKind::Interrupted], &[]),
    };
    let kinds = kinds.iter().copied().map(Fault::from);
    kinds
        .chain(numbers.iter().copied().map(Fault::from))
        .collect()
}

const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
