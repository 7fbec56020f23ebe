//! One connected transport with what is known of its readiness.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::poller::ReadyFlags;
use super::stream::{SHORT_READ_MEANS_DRAINED, Stream};
use crate::dial::clone_error;
use crate::pool::BufferPool;
use crate::secure::Secure;
use crate::ws::send::{Held, Lent, SLICES, TxQueue};

/// A stream, and the two ready bits that edge-triggered polling asks for: set by an event, cleared
/// when the system has no more to give or take.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) stream: Stream,
    /// The address of the other end, unless [`Ends`] has one.
    peer: SocketAddrV4,
    ready: ReadyFlags,
    /// What has ended or failed, once something has.
    ends: Option<Box<Ends>>,
    /// What makes it TLS.
    pub(crate) secure: Option<Box<Secure>>,
}

/// What few transports have.
#[derive(Debug, Default)]
struct Ends {
    /// An address that does not fit where those of most are.
    peer: Option<SocketAddrV6>,
    /// How reading ended, once it has.
    read: Option<ReadEnd>,
    /// See [`Io::loss`].
    lost: Option<io::Error>,
    /// Set when writing failed: nothing more is written then.
    write: Option<io::Error>,
}

impl Ends {
    fn of(peer: SocketAddrV6) -> Self {
        Self {
            peer: Some(peer),
            ..Self::default()
        }
    }

    /// Whether nothing has ended or failed.
    const fn is_calm(&self) -> bool {
        self.read.is_none() && self.lost.is_none() && self.write.is_none()
    }
}

/// Where [`Ends`] has the address.
const NO_PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

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
        let (peer, ends) = match peer {
            SocketAddr::V4(peer) => (peer, None),
            SocketAddr::V6(peer) => (NO_PEER, Some(Box::new(Ends::of(peer)))),
        };
        Self {
            stream,
            peer,
            ready: ReadyFlags::READABLE | ReadyFlags::WRITABLE,
            ends,
            secure: None,
        }
    }

    /// The address of the other end.
    pub(crate) const fn peer(&self) -> SocketAddr {
        match &self.ends {
            Some(ends) => match ends.peer {
                Some(peer) => SocketAddr::V6(peer),
                None => SocketAddr::V4(self.peer),
            },
            None => SocketAddr::V4(self.peer),
        }
    }

    /// How reading ended, once it has.
    pub(crate) fn read_end(&self) -> Option<&ReadEnd> {
        self.ends.as_ref()?.read.as_ref()
    }

    /// Nothing more is read.
    pub(crate) fn end_reading(&mut self, end: ReadEnd) {
        self.ends().read = Some(end);
    }

    /// Why writing failed, if it has: nothing more is written then.
    pub(crate) fn write_error(&self) -> Option<&io::Error> {
        self.ends.as_ref()?.write.as_ref()
    }

    fn ends(&mut self) -> &mut Ends {
        self.ends.get_or_insert_default()
    }

    /// Bytes of the heap that it owns, without TLS.
    pub(crate) fn memory(&self) -> usize {
        self.ends.as_ref().map_or(0, |ends| size_of_val(&**ends))
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

    /// Whether the peer is gone, and not only done with sending: what lies here is all that comes.
    /// This side ends its own half only when it wants nothing more.
    pub(crate) fn is_broken(&self) -> bool {
        let closed = ReadyFlags::READ_CLOSED | ReadyFlags::WRITE_CLOSED;
        self.ready.contains(ReadyFlags::ERROR) || self.ready.contains(closed)
    }

    /// Why the peer is gone, once it is; `None` also if that was no error of this connection. The
    /// system tells it once: afterwards it gives what the peer has sent, and the end is an error
    /// all the same.
    pub(crate) fn loss(&mut self) -> Option<&io::Error> {
        let lost = self.ends.as_ref().and_then(|ends| ends.lost.as_ref());
        if lost.is_none() && self.is_broken() {
            let waits = self.stream.take_error().unwrap_or_else(Some);
            let lost = waits.or_else(|| self.write_error().map(clone_error));
            if lost.is_some() {
                self.ends().lost = lost;
            }
        }
        self.ends.as_ref()?.lost.as_ref()
    }

    /// Has the next read ask the system although no event came.
    pub(crate) fn try_reading(&mut self) {
        self.ready |= ReadyFlags::READABLE;
    }

    /// As [`Io::read`] after an event of a calm transport, if something can be read. Gives what came.
    #[inline(always)]
    pub(crate) fn read_calmly<'b>(
        &mut self,
        is_writable: bool,
        buffer: &'b mut [u8],
    ) -> &'b mut [u8] {
        if is_writable {
            self.ready |= ReadyFlags::WRITABLE;
        }
        let read = self.stream.read_once(buffer);
        if let Ok(n @ 1..) = read {
            if let Some((came, rest)) = buffer.split_at_mut_checked(n) {
                // A calm transport was not readable before the event.
                if rest.is_empty() || !self.is_drained_when_short() {
                    self.ready |= ReadyFlags::READABLE;
                }
                return came;
            }
        }
        self.ready |= ReadyFlags::READABLE;
        self.note_end(read);
        &mut []
    }

    /// What a read has come to that gave no bytes.
    #[cold]
    fn note_end(&mut self, read: io::Result<usize>) -> usize {
        match read {
            Ok(_) => {
                let lost = self.ends().lost.take();
                self.end_reading(lost.map_or(ReadEnd::Eof, ReadEnd::Failed));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready -= ReadyFlags::READABLE;
            }
            // The other way of a visit reads again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.end_reading(ReadEnd::Failed(error)),
        }
        0
    }

    /// Whether nothing has failed or ended, the peer is not gone and sends nothing urgent, and TLS,
    /// if it lies between, has nothing to say or to finish.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        let secure = self.secure.as_ref();
        let is_usual = !self.is_broken() && !self.ready.contains(ReadyFlags::URGENT);
        is_usual
            && self.ends.as_ref().is_none_or(|ends| ends.is_calm())
            && secure.is_none_or(|secure| secure.is_calm())
    }

    /// Whether a read may give something.
    #[inline]
    pub(crate) fn is_readable(&self) -> bool {
        self.ready.contains(ReadyFlags::READABLE) && self.read_end().is_none()
    }

    /// Reads once. 0 says that there is nothing now, or that `read_end` says why there will be
    /// nothing any more.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let offered = buffer.len();
        self.read_by(offered, |stream| stream.read(buffer))
    }

    /// The same into two places: the second gets what the first has no room for.
    pub(crate) fn read_vectored(&mut self, first: &mut [u8], second: &mut [u8]) -> usize {
        let offered = first.len() + second.len();
        self.read_by(offered, |stream| stream.read_vectored(first, second))
    }

    #[inline]
    fn read_by(
        &mut self,
        offered: usize,
        read: impl FnOnce(&mut Stream) -> io::Result<usize>,
    ) -> usize {
        if !self.is_readable() {
            return 0;
        }
        match read(&mut self.stream) {
            Ok(n) if n > 0 => {
                if n < offered && self.short_read_drains() {
                    self.ready -= ReadyFlags::READABLE;
                }
                n
            }
            other => self.note_end(other),
        }
    }

    /// No second event announces the end of a stream, so after `READ_CLOSED` a read goes on until
    /// it has been seen. Where urgent data is, reads come back short before it; who has sent such
    /// once costs one more read per event from then on.
    fn short_read_drains(&self) -> bool {
        let telling = ReadyFlags::READ_CLOSED | ReadyFlags::ERROR | ReadyFlags::URGENT;
        self.is_drained_when_short() && !self.ready.intersects(telling)
    }

    /// The same for a transport of which no event has told anything but that it is ready.
    #[inline]
    fn is_drained_when_short(&self) -> bool {
        match &self.stream {
            Stream::Tcp(_) => SHORT_READ_MEANS_DRAINED,
            #[cfg(feature = "sim")]
            Stream::Sim(stream) => stream.is_done_when_short(),
        }
    }

    /// Writes once what waits, if it lies together: what nearly always is enough. If something
    /// waits yet, [`Io::flush`] goes on. How many bytes went.
    #[inline(always)]
    pub(crate) fn flush_at_once(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> usize {
        let Some(bytes @ [_, ..]) = tx.as_single() else {
            return 0;
        };
        let n = self.write_calmly(bytes);
        if n == bytes.len() {
            tx.wrote_all(pool);
        } else if n > 0 {
            tx.advance(n, pool);
        }
        n
    }

    /// Writes once what an open queue holds, and gives the queue back if that was all; if not, how
    /// many bytes went.
    #[inline(always)]
    pub(crate) fn flush_open(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> Option<usize> {
        let bytes = tx.opened();
        if !bytes.is_empty() {
            let n = self.write_calmly(bytes);
            if n != bytes.len() {
                tx.advance(n, pool);
                return Some(n);
            }
        }
        tx.close(pool);
        None
    }

    /// Writes once what an open queue holds that is no connection's now; how many bytes went, if
    /// that was not all.
    #[inline(always)]
    pub(crate) fn write_open(&mut self, queue: &mut Held) -> Option<usize> {
        let bytes = queue.opened();
        if !bytes.is_empty() {
            let n = self.write_calmly(bytes);
            if n != bytes.len() {
                return Some(n);
            }
        }
        queue.empty();
        None
    }

    /// Writes once, to a calm transport.
    #[inline(always)]
    pub(crate) fn write_calmly(&mut self, bytes: &[u8]) -> usize {
        if !self.ready.contains(ReadyFlags::WRITABLE) {
            return 0;
        }
        match self.stream.write_once(bytes) {
            Ok(n) if n == bytes.len() => n,
            Ok(n) => {
                if self.is_drained_when_short() {
                    self.ready -= ReadyFlags::WRITABLE;
                }
                n
            }
            Err(error) => {
                self.write_failed(error);
                0
            }
        }
    }

    #[cold]
    fn write_failed(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.ready -= ReadyFlags::WRITABLE;
        } else if error.kind() != io::ErrorKind::Interrupted {
            // Whatever the peer said before is more interesting than our failure.
            self.ready |= ReadyFlags::READABLE | ReadyFlags::ERROR;
            self.ends().write = Some(error);
        }
    }

    /// Writes what waits with what `lender` has lent; nothing is lent any more then. How many bytes
    /// went.
    #[cold]
    #[inline(never)]
    pub(crate) fn flush_lent(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
        lent: &mut Vec<Lent>,
        lender: &[u8],
    ) -> usize {
        #[cfg(feature = "tls")]
        if self.secure.is_some() {
            return self.flush_lent_records(tx, pool, lent, lender);
        }
        let waited = tx.len();
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
        waited - tx.len()
    }

    /// The same through TLS.
    #[cfg(feature = "tls")]
    fn flush_lent_records(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
        lent: &mut Vec<Lent>,
        lender: &[u8],
    ) -> usize {
        let drains = self.short_read_drains();
        let mut room = Secure::take_room(pool);
        let mut taken = 0;
        tx.write_lent(pool, lent, lender, |slices| {
            if !self.is_sending_records() {
                return None;
            }
            let (stream, ready) = (&mut self.stream, &mut self.ready);
            let secure = self.secure.as_mut()?;
            let (sealed, result) = secure.write_slices(slices, &mut room, |records| {
                let written = write_records(stream, ready, drains, records);
                taken += written.as_ref().map_or(0, |n| *n);
                written
            });
            if let Err(error) = result {
                self.write_failed(error);
            }
            Some(sealed)
        });
        pool.put_records(room);
        taken
    }

    /// Whether an assembled message of `len` bytes may be lent to be sent through TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn lends_records(&self, len: usize) -> bool {
        len >= LEND_RECORDS_FROM && self.is_sending_records()
    }

    /// Whether plaintext may become records now: nothing is in the way of them.
    #[cfg(feature = "tls")]
    fn is_sending_records(&self) -> bool {
        let secure = self.secure.as_ref();
        let is_whole = self.ends.as_ref().is_none_or(|ends| ends.is_calm()) && !self.is_broken();
        is_whole && secure.is_some_and(|secure| secure.may_seal())
    }

    /// Writes what waits, as far as the system takes it; and how many bytes that were.
    pub(crate) fn flush(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> (Flushed, usize) {
        if self.secure.is_some() {
            return self.flush_records(tx, pool);
        }
        let (mut progress, mut taken) = (Flushed::Nothing, 0);
        while !tx.is_empty() {
            if self.write_error().is_some() || !self.ready.contains(ReadyFlags::WRITABLE) {
                return (progress, taken);
            }
            match self.write(tx) {
                Ok(n) => {
                    tx.advance(n, pool);
                    progress = Flushed::Some;
                    taken += n;
                }
                Err(error) => self.write_failed(error),
            }
        }
        (Flushed::All, taken)
    }

    /// The same through TLS.
    fn flush_records(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> (Flushed, usize) {
        let drains = self.short_read_drains();
        let Self {
            stream,
            ready,
            secure,
            ends,
            ..
        } = self;
        let Some(secure) = secure else {
            return (Flushed::Nothing, 0);
        };
        if ends.as_ref().is_some_and(|ends| ends.write.is_some()) {
            return (Flushed::Nothing, 0);
        }
        let mut taken = 0;
        let flushed = secure.flush(tx, pool, |records| {
            let written = write_records(stream, ready, drains, records);
            taken += written.as_ref().map_or(0, |n| *n);
            written
        });
        let flushed = flushed.unwrap_or_else(|error| {
            *ready |= ReadyFlags::READABLE | ReadyFlags::ERROR;
            ends.get_or_insert_default().write = Some(error);
            Flushed::Nothing
        });
        (flushed, taken)
    }

    /// Writes once what waits, to a calm transport: what nearly always is enough. How many bytes
    /// the system took.
    #[inline]
    pub(crate) fn flush_calmly(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> usize {
        #[cfg(feature = "tls")]
        if self.secure.is_some() {
            return self.flush_records_at_once(tx, pool);
        }
        self.flush_at_once(tx, pool)
    }

    /// [`Io::flush_at_once`] through TLS.
    #[cfg(feature = "tls")]
    #[inline]
    pub(crate) fn flush_records_at_once(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
    ) -> usize {
        let drains = self.short_read_drains();
        let (stream, ready) = (&mut self.stream, &mut self.ready);
        let Some(secure) = &mut self.secure else {
            return 0;
        };
        if !ready.contains(ReadyFlags::WRITABLE) {
            return 0;
        }
        let written = secure.flush_at_once(tx, pool, |records| {
            write_records(stream, ready, drains, records)
        });
        written.unwrap_or_else(|error| {
            self.write_failed(error);
            0
        })
    }

    /// [`Io::flush_open`] through TLS.
    #[cfg(feature = "tls")]
    #[inline(always)]
    pub(crate) fn flush_open_records(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
    ) -> Option<usize> {
        let plain = tx.opened();
        if !plain.is_empty() {
            let secure = self.secure.as_mut();
            let is_writable = self.ready.contains(ReadyFlags::WRITABLE);
            let Some(secure) = secure.filter(|_| is_writable) else {
                return Some(0);
            };
            let Some(records) = secure.seal_calmly(plain, pool) else {
                return Some(0);
            };
            let (len, plain) = (records.len(), plain.len());
            let written = self.write_calmly(records);
            if written != len {
                if let Some(secure) = &mut self.secure {
                    secure.keep_rest(len, plain, written, pool);
                }
                tx.advance(plain, pool);
                return Some(written);
            }
        }
        tx.close(pool);
        None
    }

    /// How many bytes have been queued for it and not been handed to the system, about.
    pub(crate) fn waiting(&self, tx: &TxQueue) -> usize {
        tx.len() + self.secure.as_ref().map_or(0, |secure| secure.waiting())
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

/// From which length on a copy costs more than a record by itself for the header of the frame.
#[cfg(feature = "tls")]
const LEND_RECORDS_FROM: usize = 64 * 1024;

/// Writes records once; what that says about the readiness of the stream.
#[inline]
fn write_records(
    stream: &mut Stream,
    ready: &mut ReadyFlags,
    drains: bool,
    records: &[u8],
) -> io::Result<usize> {
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
}
