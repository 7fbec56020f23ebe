//! Inflating received messages: the inflaters that a loop shares, and where one message is.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

use super::{DeflateConfig, DeflateParams, MAX_BITS, TAIL};
use crate::id::WsiId;
use crate::ws::{ProtocolError, Side};

/// The inflaters that the connections of a loop share, the buffer that they write to, and how
/// much they may do before others have their turn.
///
/// A connection without context takeover borrows an inflater for the time of one message. At the
/// cap it has to wait: its feed ends without consuming the message's first frame. Connections with
/// context takeover own theirs, which the cap does not count.
#[derive(Debug)]
pub struct InflaterPool {
    #[expect(clippy::vec_box, reason = "connections hold pointers to them")]
    idle: Vec<Box<Inflater>>,
    /// Each inflater that is out holds one of these, so that one that is dropped with its
    /// connection counts no more.
    lease: Arc<()>,
    cap: usize,
    scratch: Vec<u8>,
    /// Bytes that may still be inflated before others have their turn.
    allowance: usize,
    /// Connections that wait for an inflater, in the order in which they came.
    pub(crate) queue: VecDeque<WsiId>,
}

impl InflaterPool {
    /// An empty pool that lends at most `cap` inflaters, each of about 48 KB, at a time.
    pub fn new(cap: usize) -> Self {
        Self {
            idle: Vec::new(),
            lease: Arc::new(()),
            cap: cap.max(1),
            scratch: Vec::new(),
            allowance: usize::MAX,
            queue: VecDeque::new(),
        }
    }

    /// Allows feeds to inflate so many bytes from here on, and up to 64 KiB more; then they end
    /// early with [`Recv::is_suspended`](crate::ws::Recv::is_suspended). Default: no such limit.
    pub fn allow(&mut self, bytes: usize) {
        self.allowance = bytes;
    }

    /// Inflaters that are lent now.
    pub fn lent(&self) -> usize {
        Arc::strong_count(&self.lease) - 1
    }

    /// Bytes of heap that the idle inflaters, the buffer and the queue of those who wait hold.
    pub fn memory(&self) -> usize {
        let queue = self.queue.capacity() * size_of::<WsiId>();
        self.idle.len() * INFLATER_BYTES + self.scratch.capacity() + queue
    }

    /// Whether one could be lent to who waits longest.
    pub(crate) fn has_free(&self) -> bool {
        self.lent() < self.cap
    }

    /// Lends an inflater, past everybody who waits.
    pub(crate) fn lend(&mut self) -> Box<Inflater> {
        let mut inflater = self.idle.pop().unwrap_or_else(Inflater::boxed);
        inflater.lease = Some(Arc::clone(&self.lease));
        inflater
    }

    /// Lends an inflater, unless the cap is reached or others wait already.
    fn checkout(&mut self) -> Option<Box<Inflater>> {
        (self.has_free() && self.queue.is_empty()).then(|| self.lend())
    }

    fn put(&mut self, mut inflater: Box<Inflater>) {
        if inflater.lease.take().is_some() && self.idle.len() < MAX_IDLE {
            inflater.reset();
            self.idle.push(inflater);
        }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.allowance == 0
    }

    /// The buffer, made when it is first needed.
    fn scratch(&mut self) -> &mut [u8] {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH];
        }
        &mut self.scratch
    }

    /// The first bytes of the buffer, where the last step wrote to.
    pub(crate) fn output(&self, len: usize) -> &[u8] {
        self.scratch.get(..len).unwrap_or_default()
    }
}

impl Default for InflaterPool {
    /// A pool that lends 256 inflaters.
    fn default() -> Self {
        Self::new(DEFAULT_CAP)
    }
}

/// An inflater and, while it is lent, its part in the pool's account.
pub(crate) struct Inflater {
    inflate: Inflate,
    lease: Option<Arc<()>>,
}

impl Inflater {
    fn boxed() -> Box<Self> {
        Box::new(Self {
            // Whatever window was agreed on: a larger one reads it, too.
            inflate: Inflate::new(false, MAX_BITS),
            lease: None,
        })
    }

    /// Forgets the window: what it held is out of reach for what comes next.
    fn reset(&mut self) {
        self.inflate.reset(false);
    }

    /// One call; how many bytes were read and written.
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        flush: InflateFlush,
    ) -> Result<(usize, usize, Status), ProtocolError> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = match self.inflate.decompress(input, output, flush) {
            Ok(status) => status,
            Err(InflateError::MemError) => return Err(ProtocolError::DeflateMemory),
            Err(_) => return Err(ProtocolError::DeflateData),
        };
        let read = self.inflate.total_in() - before.0;
        let written = self.inflate.total_out() - before.1;
        // Both are at most the lengths of slices.
        let len = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Ok((len(read), len(written), status))
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("lent", &self.lease.is_some())
            .finish_non_exhaustive()
    }
}

/// The receiving half's part of permessage-deflate.
#[derive(Debug)]
pub(crate) struct Inflating {
    inflater: Option<Box<Inflater>>,
    /// What the open message has come to, compressed and inflated, in bytes.
    compressed: u64,
    inflated: u64,
    ratio_limit: Option<u32>,
    /// The peer may refer to earlier messages.
    takeover: bool,
    /// The open message is a compressed one.
    open: bool,
    /// The message's final block was there.
    finished: bool,
    /// Behind that a zero was there.
    padded: bool,
    /// The first byte of the next input has been inflated already: there may be more of what it
    /// gives, and while it is not consumed somebody comes back for that.
    pub(crate) held: bool,
    /// A compressed message waits for an inflater.
    pub(crate) waiting: bool,
    /// ... and is in the queue for it.
    pub(crate) queued: bool,
    /// The pool's allowance was spent before the input was.
    pub(crate) suspended: bool,
}

/// What came of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inflated {
    /// Bytes read.
    pub(crate) used: usize,
    /// Bytes written.
    pub(crate) written: usize,
}

impl Inflating {
    pub(crate) fn new(side: Side, params: &DeflateParams, config: &DeflateConfig) -> Self {
        let alone = match side {
            Side::Client => params.server_no_context_takeover,
            Side::Server => params.client_no_context_takeover,
        };
        Self {
            inflater: None,
            compressed: 0,
            inflated: 0,
            ratio_limit: config.ratio_limit,
            takeover: !alone,
            open: false,
            finished: false,
            padded: false,
            held: false,
            waiting: false,
            queued: false,
            suspended: false,
        }
    }

    /// Bytes of heap that the connection owns, this included.
    pub(crate) fn memory(&self) -> usize {
        let window = self.inflater.as_ref().map_or(0, |_| INFLATER_BYTES);
        size_of::<Self>() + window
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Takes an inflater that the pool has lent out of turn.
    pub(crate) fn grant(&mut self, inflater: Box<Inflater>) {
        self.inflater = Some(inflater);
        self.queued = false;
        self.waiting = false;
    }

    /// A compressed message begins, if there is an inflater for it.
    pub(crate) fn begin(&mut self, pool: &mut InflaterPool) -> bool {
        if self.inflater.is_none() {
            self.inflater = if self.takeover {
                Some(Inflater::boxed())
            } else {
                pool.checkout()
            };
        }
        self.open = self.inflater.is_some();
        self.waiting = !self.open;
        self.compressed = 0;
        self.inflated = 0;
        self.finished = false;
        self.padded = false;
        self.held = false;
        self.open
    }

    /// The message is over, or nobody wants the rest of it.
    pub(crate) fn end(&mut self, pool: &mut InflaterPool) {
        self.close();
        if !self.takeover {
            if let Some(inflater) = self.inflater.take() {
                pool.put(inflater);
            }
        } else if let Some(inflater) = self.inflater.as_mut().filter(|_| self.finished) {
            // Who sends a final block begins anew after it.
            inflater.reset();
        }
    }

    /// As [`Inflating::end`], for ever and without a pool at hand.
    pub(crate) fn give_up(&mut self) {
        self.close();
        self.inflater = None;
    }

    fn close(&mut self) {
        self.open = false;
        self.held = false;
        self.suspended = false;
        self.waiting = false;
    }

    /// Inflates a piece of a payload behind the `filled` first bytes of the pool's buffer, whose
    /// last part is kept free for the end of the message. No more than one byte over `limit` is
    /// written for the whole message.
    pub(crate) fn step(
        &mut self,
        pool: &mut InflaterPool,
        input: &[u8],
        filled: usize,
        limit: usize,
    ) -> Result<Inflated, ProtocolError> {
        self.compressed += input.len() as u64;
        if self.finished {
            return self.pad(input);
        }
        let Some(inflater) = &mut self.inflater else {
            return Err(ProtocolError::DeflateData);
        };
        let left = (limit as u64 + 1).saturating_sub(self.inflated);
        let room = FULL.saturating_sub(filled);
        let room = usize::try_from(left).map_or(room, |left| left.min(room));
        let output = pool.scratch().get_mut(filled..filled + room);
        let output = output.unwrap_or_default();
        let (used, written, status) = inflater.run(input, output, InflateFlush::SyncFlush)?;
        self.compressed -= (input.len() - used) as u64;
        self.count(written, limit)?;
        pool.allowance = pool.allowance.saturating_sub(written.max(1));
        self.finished = status == Status::StreamEnd;
        if used == 0 && written == 0 && !input.is_empty() && !self.finished {
            // It wants neither input nor room, which no valid stream does.
            return Err(ProtocolError::DeflateData);
        }
        Ok(Inflated { used, written })
    }

    /// The end of the message's payload: what the sender left out is put back. How many more
    /// bytes that gave.
    pub(crate) fn finish(
        &mut self,
        pool: &mut InflaterPool,
        filled: usize,
        limit: usize,
    ) -> Result<usize, ProtocolError> {
        // RFC 7692 section 7.2.3.6: an empty message is one byte; one without any is empty, too.
        if self.finished || self.compressed == 0 {
            return Ok(0);
        }
        let Some(inflater) = &mut self.inflater else {
            return Err(ProtocolError::DeflateData);
        };
        let output = pool.scratch().get_mut(filled..).unwrap_or_default();
        // RFC 7692 section 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end". They
        // are the end of a block, where the inflater stops before it reads the fifth.
        let [a, b, c, d] = TAIL;
        let probe = [a, b, c, d, 0];
        let (used, written, status) = inflater.run(&probe, output, InflateFlush::Block)?;
        if used != TAIL.len() || status == Status::StreamEnd {
            return Err(ProtocolError::DeflateUnfinished);
        }
        self.count(written, limit)?;
        Ok(written)
    }

    /// RFC 7692 section 7.2.3.4: a final block is followed by a zero, which with the four bytes
    /// that are put back is an empty block.
    fn pad(&mut self, input: &[u8]) -> Result<Inflated, ProtocolError> {
        match input {
            [] => {}
            [0] if !self.padded => self.padded = true,
            _ => return Err(ProtocolError::DeflateTrailing),
        }
        Ok(Inflated {
            used: input.len(),
            written: 0,
        })
    }

    /// Holds what was written against the limits.
    fn count(&mut self, written: usize, limit: usize) -> Result<(), ProtocolError> {
        self.inflated += written as u64;
        if self.inflated > limit as u64 {
            return Err(ProtocolError::MessageTooLarge { limit });
        }
        match self.ratio_limit {
            Some(times)
                if self.inflated > RATIO_FROM
                    && self.inflated > self.compressed.saturating_mul(times.into()) =>
            {
                Err(ProtocolError::DeflateRatio { limit: times })
            }
            _ => Ok(()),
        }
    }
}

/// The longest compressed form that a message of `len` bytes may have: fixed Huffman codes take
/// up to nine bits for a byte, and blocks and flushes have headers.
pub(crate) const fn compressed_bound(len: u64) -> u64 {
    len.saturating_add(len / 4).saturating_add(64)
}

/// The pool's buffer: the most that one item takes from it.
pub(crate) const SCRATCH: usize = 64 * 1024;
/// How far it is filled before the end of a message. The four bytes that are put back there, with
/// what the inflater has not used of the bytes before, give at most 258 bytes for every two bits.
pub(crate) const FULL: usize = 48 * 1024;
/// What an inflater takes, measured: its state and a window of 15 bits.
pub(crate) const INFLATER_BYTES: usize = 47_700;
/// Waiting inflaters that are kept.
const MAX_IDLE: usize = 16;
const DEFAULT_CAP: usize = 256;
/// From this size on a message's ratio says something.
const RATIO_FROM: u64 = 64 * 1024;
