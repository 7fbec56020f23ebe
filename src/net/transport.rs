//! One connected transport with what is known of its readiness.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use super::poller::ReadyFlags;
use super::stream::{SHORT_READ_MEANS_DRAINED, Stream};
use crate::pool::BufferPool;
use crate::secure::Secure;
use crate::ws::send::{Lent, SLICES, TxQueue};

/// A stream, and the two ready bits that edge-triggered polling asks for: set by an event, cleared
/// when the system has no more to give or take.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) stream: Stream,
    pub(crate) peer: SocketAddr,
    ready: ReadyFlags,
    /// How reading ended, once it has.
    pub(crate) read_end: Option<ReadEnd>,
    /// Set when writing failed: nothing more is written then.
    pub(crate) write_error: Option<io::Error>,
    /// What makes it TLS.
    pub(crate) secure: Option<Box<Secure>>,
}

/// The end of what can be read.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The peer ended its stream.
    Eof,
    Failed(io::Error),
}

/// What flushing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing waits any more.
    All,
    /// Some went, more waits.
    Some,
    /// The system took nothing.
    Nothing,
}

impl Io {
    /// A fresh transport is tried for reading and writing without an event having said so.
    pub(crate) fn new(stream: Stream, peer: SocketAddr) -> Self {
        Self {
            stream,
            peer,
            ready: ReadyFlags::READABLE | ReadyFlags::WRITABLE,
            read_end: None,
            write_error: None,
            secure: None,
        }
    }

    /// An accepted transport: an event will say when there is something to read, and the first
    /// request is seldom there already.
    pub(crate) fn accepted(stream: Stream, peer: SocketAddr) -> Self {
        let mut io = Self::new(stream, peer);
        io.ready = ReadyFlags::WRITABLE;
        io
    }

    /// An event came.
    #[inline]
    pub(crate) fn note(&mut self, flags: ReadyFlags) {
        self.ready |= flags;
        if flags.intersects(ReadyFlags::ERROR | ReadyFlags::WRITE_CLOSED) {
            self.ready |= ReadyFlags::READABLE | ReadyFlags::WRITABLE;
        }
        if flags.contains(ReadyFlags::READ_CLOSED) {
            self.ready |= ReadyFlags::READABLE;
        }
    }

    /// Whether nothing has failed or ended, and no TLS lies between.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.read_end.is_none() && self.write_error.is_none() && self.secure.is_none()
    }

    /// Whether a read may give something.
    #[inline]
    pub(crate) fn is_readable(&self) -> bool {
        self.read_end.is_none() && self.ready.contains(ReadyFlags::READABLE)
    }

    /// Reads once. 0 says that there is nothing now, or that `read_end` says why there will be
    /// nothing any more.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        if !self.is_readable() {
            return 0;
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                self.read_end = Some(ReadEnd::Eof);
                0
            }
            Ok(n) => {
                if n < buffer.len() && self.short_read_drains() {
                    self.ready -= ReadyFlags::READABLE;
                }
                n
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready -= ReadyFlags::READABLE;
                0
            }
            Err(error) => {
                self.read_end = Some(ReadEnd::Failed(error));
                0
            }
        }
    }

    /// No second event announces the end of a stream, so after `READ_CLOSED` a read goes on until
    /// it has been seen.
    fn short_read_drains(&self) -> bool {
        let ending = ReadyFlags::READ_CLOSED | ReadyFlags::ERROR;
        let system = match self.stream {
            Stream::Tcp(_) => SHORT_READ_MEANS_DRAINED,
            #[cfg(feature = "sim")]
            Stream::Sim(_) => false,
        };
        system && !self.ready.intersects(ending)
    }

    /// Writes once what waits, if it lies together: what nearly always is enough. If something
    /// waits yet, [`Io::flush`] goes on.
    #[inline]
    pub(crate) fn flush_at_once(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) {
        let can = self.is_calm() && self.ready.contains(ReadyFlags::WRITABLE);
        let Some(bytes @ [_, ..]) = tx.as_single().filter(|_| can) else {
            return;
        };
        match self.stream.write(bytes) {
            Ok(0) => {}
            Ok(n) => tx.advance(n, pool),
            Err(error) => self.write_failed(error),
        }
    }

    #[cold]
    fn write_failed(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.ready -= ReadyFlags::WRITABLE;
        } else {
            // Whatever the peer said before is more interesting than our failure.
            self.ready |= ReadyFlags::READABLE | ReadyFlags::ERROR;
            self.write_error = Some(error);
        }
    }

    /// Writes what waits with what `lender` has lent; nothing is lent any more then.
    #[cold]
    #[inline(never)]
    pub(crate) fn flush_lent(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
        lent: &mut Vec<Lent>,
        lender: &[u8],
    ) {
        let drains = self.short_read_drains();
        tx.write_lent(pool, lent, lender, |slices| {
            if !self.is_calm() || !self.ready.contains(ReadyFlags::WRITABLE) {
                return None;
            }
            let offered = slices.iter().map(|slice| slice.len()).sum();
            match self.stream.write_vectored(slices) {
                Ok(0) => None,
                Ok(n) => {
                    if n < offered && drains {
                        self.ready -= ReadyFlags::WRITABLE;
                    }
                    Some(n)
                }
                Err(error) => {
                    self.write_failed(error);
                    None
                }
            }
        });
    }

    /// Writes what waits, as far as the system takes it.
    pub(crate) fn flush(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> Flushed {
        if self.secure.is_some() {
            return self.flush_records(tx, pool);
        }
        let mut progress = Flushed::Nothing;
        while !tx.is_empty() {
            if self.write_error.is_some() || !self.ready.contains(ReadyFlags::WRITABLE) {
                return progress;
            }
            match self.write(tx) {
                Ok(n) => {
                    tx.advance(n, pool);
                    progress = Flushed::Some;
                }
                Err(error) => self.write_failed(error),
            }
        }
        Flushed::All
    }

    /// The same through TLS.
    fn flush_records(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> Flushed {
        let drains = self.short_read_drains();
        let Self {
            stream,
            ready,
            secure,
            write_error,
            ..
        } = self;
        let Some(secure) = secure else {
            return Flushed::Nothing;
        };
        if write_error.is_some() {
            return Flushed::Nothing;
        }
        let flushed = secure.flush(tx, pool, |records| {
            if !ready.contains(ReadyFlags::WRITABLE) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let written = stream.write(records);
            match &written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) if *n < records.len() && drains => *ready -= ReadyFlags::WRITABLE,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *ready -= ReadyFlags::WRITABLE;
                }
                Err(_) => {}
            }
            written
        });
        flushed.unwrap_or_else(|error| {
            *ready |= ReadyFlags::READABLE | ReadyFlags::ERROR;
            *write_error = Some(error);
            Flushed::Nothing
        })
    }

    /// Whether everything that was queued for it has been handed to the system.
    #[inline]
    pub(crate) fn is_flushed(&self, tx: &TxQueue) -> bool {
        tx.is_empty()
            && self
                .secure
                .as_ref()
                .is_none_or(|secure| secure.is_flushed())
    }

    fn write(&mut self, tx: &TxQueue) -> io::Result<usize> {
        let (written, offered) = match tx.as_single() {
            Some(bytes) => (self.stream.write(bytes)?, bytes.len()),
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = tx.slices(&mut slices);
                let slices = slices.get(..filled).unwrap_or_default();
                let offered = slices.iter().map(|slice| slice.len()).sum();
                (self.stream.write_vectored(slices)?, offered)
            }
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if written < offered && self.short_read_drains() {
            self.ready -= ReadyFlags::WRITABLE;
        }
        Ok(written)
    }
}
