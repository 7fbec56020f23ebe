//! What makes a transport TLS: the session, and the records that the socket has not taken yet.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Deadline;
use crate::net::transport::Flushed;
use crate::pool::BufferPool;
use crate::tls::client::ClientHandshake;
use crate::tls::server::ServerConfigs;
use crate::tls::session::{Name, Received, Selection, Session};
use crate::tls::trace::TlsHandshake;
use crate::tls::unbuffered::{Odd, Place};
use crate::tls::verify::take_unverified;
use crate::tls::{ClientHello, PeerIdentity, TlsEnv, TlsFailure, TlsInfo, TlsTrace};
use crate::ws::send::TxQueue;

/// The TLS of one connection.
///
/// Plaintext becomes records when the socket has room for them and not before, so that a full
/// socket holds back one batch of records and the rest stays what it was.
#[derive(Debug)]
pub(crate) struct Secure {
    pub(super) session: Session,
    /// What an idle connection does not have.
    unsent: Option<Box<Unsent>>,
    /// Which settings of the vhost it was made with.
    pub(crate) generation: u32,
    /// Whether the peer's certificate was verified: by our own rules, for those of a configuration
    /// of rustls are not known, and not let pass by a `danger_` option.
    pub(super) verified: bool,
    /// Nothing follows what waits: `close_notify` goes along with it.
    ends: bool,
}

/// Records that wait for the socket; there are some.
#[derive(Debug, Default)]
struct Unsent {
    records: Vec<u8>,
    /// How much of them is gone.
    written: usize,
    /// Plaintext in them, and in which of them.
    sealed: usize,
    place: Range<usize>,
}

/// What was encrypted: so much plaintext to records of so many bytes, and where what follows them
/// ends.
#[derive(Clone, Copy, Debug, Default)]
struct Sealed {
    plain: usize,
    len: usize,
    end: usize,
}

impl Secure {
    pub(crate) fn server(now: Instant) -> Self {
        Self::new(Session::server(now))
    }

    /// Queues the ClientHello.
    pub(crate) fn client(
        handshake: ClientHandshake,
        generation: u32,
        now: Instant,
    ) -> Result<Self, TlsFailure> {
        let mut records = Vec::new();
        let ClientHandshake {
            config,
            name,
            verifies,
        } = handshake;
        let session = Session::client(config, name, now, &mut records)?;
        let mut secure = Self::new(session);
        secure.verified = verifies;
        secure.generation = generation;
        secure.queue(records);
        Ok(secure)
    }

    fn new(session: Session) -> Self {
        Self {
            session,
            unsent: None,
            generation: 0,
            verified: false,
            ends: false,
        }
    }

    /// See [`Session::receive`]; what it answers the peer is queued here.
    pub(crate) fn receive(
        &mut self,
        input: &mut [u8],
        place: &mut Place<'_>,
        plain: &mut Vec<u8>,
        pool: &mut BufferPool,
        now: Instant,
        select: &mut dyn FnMut(&ClientHello) -> Selection,
    ) -> Result<Received, TlsFailure> {
        let handshaking = self.session.is_handshaking();
        let received = self.append(pool, |session, out| {
            session.receive(input, place, plain, out, now, select)
        });
        if handshaking && take_unverified() {
            self.verified = false;
        }
        received
    }

    /// The same for a calm connection: what came of it, unless it is still calm.
    #[inline(always)]
    pub(super) fn receive_calmly(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Option<Result<Received, TlsFailure>> {
        let place = &mut Place::default();
        let received = self.session.receive_calmly(input, place, plain);
        received.err().map(|odd| self.received_oddly(odd, input))
    }

    #[cold]
    #[inline(never)]
    #[expect(clippy::boxed_local, reason = "it is a box until here")]
    fn received_oddly(&mut self, odd: Box<Odd>, input: &[u8]) -> Result<Received, TlsFailure> {
        let mut records = Vec::new();
        let received = self.session.received_oddly(*odd, input, &mut records);
        if !records.is_empty() {
            self.queue(records);
        }
        received
    }

    /// Keeps its session's name together with the last one.
    pub(super) fn share_name(&mut self, last: &mut Option<Arc<Name>>) {
        self.session.share_name(last);
    }

    /// Whether received application data are all that can give work.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.unsent.is_none() && self.session.is_calm()
    }

    /// The transport's stream has ended; what that means.
    pub(crate) fn eof(&mut self, now: Instant) -> Result<(), TlsFailure> {
        self.session.eof(now)
    }

    /// See [`Session::lost`].
    pub(crate) fn lost(&mut self, now: Instant, kind: io::ErrorKind) -> Result<(), TlsFailure> {
        self.session.lost(now, kind)
    }

    /// See [`Session::time_out`].
    pub(super) fn time_out(&mut self, now: Instant, deadline: Deadline) -> TlsFailure {
        self.session.time_out(now, deadline)
    }

    /// Queues the alert to a client that is refused after a handshake that was in order.
    pub(super) fn refuse(&mut self, failure: &TlsFailure, pool: &mut BufferPool, now: Instant) {
        self.append(pool, |session, out| session.refuse(failure, out, now));
    }

    /// Queues `close_notify`, once.
    pub(crate) fn say_goodbye(&mut self, pool: &mut BufferPool) {
        self.append(pool, Session::close);
    }

    /// What waits is the last: `close_notify` need not wait until it is gone.
    pub(super) fn end_after_this(&mut self) {
        self.ends = true;
    }

    /// Whether every record has been written.
    pub(crate) const fn is_flushed(&self) -> bool {
        self.unsent.is_none()
    }

    /// Whether what is encrypted now is the next to be written.
    pub(crate) fn may_seal(&self) -> bool {
        self.is_flushed() && self.session.can_send()
    }

    /// Bytes of records that have not been written.
    pub(crate) fn waiting(&self) -> usize {
        self.unsent.as_ref().map_or(0, |unsent| unsent.rest().len())
    }

    /// Plaintext in records that were not wholly written.
    pub(crate) fn undelivered(&self) -> usize {
        let unsent = self.unsent.as_ref();
        unsent.map_or(0, |unsent| unsent.undelivered())
    }

    /// Encrypts and writes what waits, as far as `write` takes it.
    pub(crate) fn flush(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Flushed> {
        let mut progress = Flushed::Nothing;
        loop {
            if self.unsent.is_some() {
                self.join(tx, pool)?;
            }
            while let Some(unsent) = &mut self.unsent {
                match write(unsent.rest()) {
                    Ok(n) => {
                        unsent.written += n;
                        progress = Flushed::Some;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(progress),
                    Err(error) => return Err(error),
                }
                if unsent.rest().is_empty() {
                    pool.put(std::mem::take(&mut unsent.records));
                    self.unsent = None;
                }
            }
            if tx.is_empty() || !self.session.can_send() {
                return Ok(Flushed::All);
            }
            let mut room = pool.take_records(RECORDS_ROOM);
            let written = match self.seal(tx, pool, &mut room) {
                Ok(sealed) => self.write_through(&room, sealed, pool, &mut write),
                Err(error) => Err(error),
            };
            pool.put_records(room);
            if written? > 0 {
                progress = Flushed::Some;
            }
        }
    }

    /// Encrypts `plain` for one write of a calm connection: the records, if that could be done
    /// so. What there was is for [`Secure::keep_rest`] then, if it is not written whole.
    #[inline(always)]
    pub(crate) fn seal_calmly<'p>(
        &mut self,
        plain: &[u8],
        pool: &'p mut BufferPool,
    ) -> Option<&'p [u8]> {
        if plain.len() > SEAL_AT_ONCE {
            return None;
        }
        let room = pool.records(RECORDS_ROOM);
        let len = self.session.seal_calmly(plain, room)?;
        room.get(..len)
    }

    /// Of the `len` bytes of records that `plain` bytes were encrypted to, `written` are gone.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep_rest(
        &mut self,
        len: usize,
        plain: usize,
        written: usize,
        pool: &mut BufferPool,
    ) {
        let mut records = pool.take();
        let room = pool.records(RECORDS_ROOM);
        records.extend_from_slice(room.get(..len).unwrap_or_default());
        let place = 0..len;
        let unsent = Unsent {
            records,
            written,
            sealed: plain,
            place,
        };
        self.unsent = Some(Box::new(unsent));
    }

    /// Encrypts and writes what waits, if it lies together and goes into one write: what nearly
    /// always is enough. What is left is for [`Secure::flush`]. The answer is that of `write`.
    #[inline]
    pub(crate) fn flush_at_once(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(front) = tx.as_single().filter(|front| front.len() <= SEAL_AT_ONCE) else {
            return Ok(0);
        };
        let plain = front.len();
        let mut room = pool.take_records(RECORDS_ROOM);
        let written = match self.session.seal_into(front, &mut room) {
            Ok(Some(len)) => {
                tx.advance(plain, pool);
                let end = len;
                self.write_through(&room, Sealed { plain, len, end }, pool, write)
            }
            // The other way finds out why not.
            Ok(None) | Err(_) => Ok(0),
        };
        pool.put_records(room);
        written
    }

    /// Writes fresh records, which begin the `room`, once, and keeps what the socket does not
    /// take; how many bytes it took.
    #[inline]
    fn write_through(
        &mut self,
        room: &[u8],
        sealed: Sealed,
        pool: &mut BufferPool,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(records @ [_, ..]) = room.get(..sealed.end) else {
            return Ok(0);
        };
        let result = write(records);
        match result {
            Ok(n) if n == records.len() => Ok(n),
            result => self.keep_unwritten(records, sealed, pool.take(), result),
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_unwritten(
        &mut self,
        fresh: &[u8],
        sealed: Sealed,
        mut records: Vec<u8>,
        result: io::Result<usize>,
    ) -> io::Result<usize> {
        records.extend_from_slice(fresh);
        self.unsent = Some(Box::new(Unsent {
            records,
            written: result.as_ref().map_or(0, |n| *n),
            sealed: sealed.plain,
            place: 0..sealed.len,
        }));
        match result {
            // The next write says so again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Where records are made, for the time of some writes.
    pub(crate) fn take_room(pool: &mut BufferPool) -> Vec<u8> {
        pool.take_records(RECORDS_ROOM)
    }

    /// Encrypts and writes what lies in `slices` in place of a queue, while nothing else waits, as
    /// far as `write` takes it: how many bytes of it were encrypted, and how that ended. What
    /// `write` does not take of them is kept; the others are for the queue.
    pub(crate) fn write_slices(
        &mut self,
        slices: &[IoSlice<'_>],
        room: &mut [u8],
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> (usize, io::Result<()>) {
        let mut all = 0;
        let mut slices = slices.iter().map(|slice| &**slice);
        let mut front = slices.next();
        while self.may_seal() {
            let mut sealed = Sealed::default();
            while let Some(left) = front.filter(|_| sealed.plain < SEAL_AT_ONCE) {
                let most = SEAL_AT_ONCE - sealed.plain;
                let now = left.get(..most).unwrap_or(left);
                let room = room.get_mut(sealed.len..).unwrap_or_default();
                // What keeps it from being encrypted is found out by who works off the queue.
                let Ok(Some(len)) = self.session.seal_into(now, room) else {
                    break;
                };
                sealed.len += len;
                sealed.plain += now.len();
                front = match left.get(now.len()..) {
                    Some(behind @ [_, ..]) => Some(behind),
                    _ => slices.next(),
                };
            }
            let Some(records @ [_, ..]) = room.get(..sealed.len) else {
                break;
            };
            all += sealed.plain;
            let result = match write(records) {
                Ok(n) if n == records.len() => continue,
                result => self.keep_unwritten(records, sealed, Vec::new(), result),
            };
            return (all, result.map(|_| ()));
        }
        (all, Ok(()))
    }

    /// Turns the front of the queue into records, at the begin of `room`. What does not go that way
    /// is queued instead.
    fn seal(
        &mut self,
        tx: &mut TxQueue,
        pool: &mut BufferPool,
        room: &mut [u8],
    ) -> io::Result<Sealed> {
        let mut sealed = Sealed::default();
        // A last bit does not get a write of its own.
        let limit = match tx.len() {
            waiting if waiting <= SEAL_AT_ONCE + SEAL_MORE => waiting,
            _ => SEAL_AT_ONCE,
        };
        while sealed.plain < limit {
            let front = tx.front();
            let front = front.get(..limit - sealed.plain).unwrap_or(front);
            let room = room.get_mut(sealed.len..).unwrap_or_default();
            if front.is_empty() {
                break;
            }
            let plain = front.len();
            match self.session.seal_into(front, room) {
                Ok(Some(len)) => sealed.len += len,
                Ok(None) if sealed.len > 0 => break,
                Ok(None) => {
                    self.seal_apart(front, pool)?;
                    tx.advance(plain, pool);
                    break;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
            sealed.plain += plain;
            tx.advance(plain, pool);
        }
        sealed.end = sealed.len;
        if self.ends && sealed.len > 0 && tx.is_empty() {
            let mut goodbye = Vec::new();
            self.session.close(&mut goodbye);
            let room = room.get_mut(sealed.len..sealed.len + goodbye.len());
            debug_assert!(room.is_some(), "the room is for more than that");
            if let Some(room) = room {
                room.copy_from_slice(&goodbye);
                sealed.end += goodbye.len();
            }
        }
        Ok(sealed)
    }

    /// Lets a little that waits go along with records that wait, such as tickets.
    #[inline(never)]
    fn join(&mut self, tx: &mut TxQueue, pool: &mut BufferPool) -> io::Result<()> {
        let is_alone = self
            .unsent
            .as_ref()
            .is_some_and(|unsent| unsent.sealed == 0);
        let front = tx.front();
        let is_all = front.len() == tx.len() && (1..=SEAL_MORE).contains(&front.len());
        if is_alone && is_all && self.session.can_send() {
            let plain = front.len();
            self.seal_apart(front, pool)?;
            tx.advance(plain, pool);
            if self.ends {
                self.append(pool, Session::close);
            }
        }
        Ok(())
    }

    fn seal_apart(&mut self, plain: &[u8], pool: &mut BufferPool) -> io::Result<()> {
        let begin = self
            .unsent
            .as_ref()
            .map_or(0, |unsent| unsent.records.len());
        let sealed = self.append(pool, |session, out| session.seal(plain, out));
        if let (Ok(()), Some(unsent)) = (sealed, &mut self.unsent) {
            unsent.sealed = plain.len();
            unsent.place = begin..unsent.records.len();
        }
        sealed.map_err(io::Error::other)
    }

    /// Lets the session append to what waits.
    fn append<R>(
        &mut self,
        pool: &mut BufferPool,
        write: impl FnOnce(&mut Session, &mut Vec<u8>) -> R,
    ) -> R {
        if let Some(unsent) = &mut self.unsent {
            return write(&mut self.session, &mut unsent.records);
        }
        let mut records = pool.take();
        let result = write(&mut self.session, &mut records);
        if records.is_empty() {
            pool.put(records);
        } else {
            self.queue(records);
        }
        result
    }

    /// Records are all that waits.
    fn queue(&mut self, records: Vec<u8>) {
        self.unsent = Some(Box::new(Unsent {
            records,
            ..Unsent::default()
        }));
    }

    /// The handshake is complete: verifies again who comes with a ticket. `configs` are those of the vhost, for a server.
    pub(super) fn established(
        &self,
        configs: Option<(&ServerConfigs, &TlsEnv)>,
    ) -> Result<(), TlsFailure> {
        let resumed = self.session.handshake_kind() == Some(TlsHandshake::Resumed);
        match configs {
            Some((configs, env)) if resumed => configs
                .verify_resumed(self.session.peer_certificates(), env)
                .map_err(TlsFailure::of_resumption),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether nothing that comes is of use any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.session.has_failed()
    }

    /// The certificates that the peer has shown.
    pub(crate) fn peer_identity(&self) -> Option<PeerIdentity> {
        let (leaf, rest) = self.session.peer_certificates().split_first()?;
        Some(PeerIdentity::from_handshake(leaf, rest, self.verified))
    }

    /// The name that the client asked for (SNI), once its hello has come.
    pub(crate) fn server_name(&self) -> Option<String> {
        self.session.server_name().map(str::to_owned)
    }

    /// Whether the handshake has come so far that a vhost was chosen by its name, or its lack.
    pub(crate) fn chose_vhost(&self) -> bool {
        self.session.server_name().is_some() || self.info().is_some()
    }

    pub(crate) fn info(&self) -> Option<TlsInfo> {
        TlsInfo::of(&self.session)
    }

    pub(crate) fn trace(&self) -> TlsTrace {
        self.session.trace()
    }

    pub(crate) fn take_trace(&mut self) -> Option<TlsTrace> {
        self.session.take_trace()
    }

    pub(crate) fn memory(&self) -> usize {
        let unsent = self.unsent.as_ref();
        self.session.memory() + unsent.map_or(0, |unsent| unsent.records.capacity())
    }
}

impl Unsent {
    fn rest(&self) -> &[u8] {
        self.records.get(self.written..).unwrap_or_default()
    }

    fn undelivered(&self) -> usize {
        let records = self.records.get(self.place.clone()).unwrap_or_default();
        let count = record_lens(records).count();
        // What a record has beside its plaintext is the same for all of a session.
        let beside = records.len().saturating_sub(self.sealed) / count.max(1);
        let ends = record_lens(records).scan(0, |end, len| {
            *end += len;
            Some((*end, len))
        });
        let begin = self.place.start;
        let delivered = ends.take_while(|&(end, _)| begin + end <= self.written);
        let delivered = delivered.map(|(_, len)| len.saturating_sub(beside));
        self.sealed.saturating_sub(delivered.sum())
    }
}

/// The lengths of records, headers included.
fn record_lens(mut records: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let &[_, _, _, high, low, ..] = records else {
            return None;
        };
        let len = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
        records = records.get(len..).unwrap_or_default();
        Some(len)
    })
}

/// RFC 8446 section 5.1: type, version, length.
const RECORD_HEADER: usize = 5;
/// Plaintext that is encrypted before the socket is asked to take it.
const SEAL_AT_ONCE: usize = 128 * 1024;
/// Plaintext over that that goes along if it is the last.
const SEAL_MORE: usize = 16 * 1024;
/// Room for that in records, and more: a session whose records are shorter than they may be is
/// given room as it needs it.
const RECORDS_ROOM: usize = SEAL_AT_ONCE + SEAL_MORE + 1024;
