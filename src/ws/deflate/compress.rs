//! Compressing what is sent: the compressors that a loop shares, and the one that a connection
//! owns with context takeover.

use std::fmt;
use std::sync::Arc;

use zlib_rs::{Deflate, DeflateFlush};

use super::{DeflateConfig, DeflateParams, TAIL};
use crate::ws::Side;

/// How one message is to be sent, where it is not to be as the connection's
/// [`DeflateConfig`] says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct SendOptions {
    pub(crate) compression: Compression,
}

impl SendOptions {
    /// As the connection's configuration says.
    pub const fn new() -> Self {
        Self {
            compression: Compression::Auto,
        }
    }

    /// Whether to compress it.
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }
}

/// Whether a message is compressed, on a connection that has agreed on permessage-deflate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Although it is below the threshold.
    Always,
    /// From the threshold on.
    #[default]
    Auto,
    /// Not at all. For what holds a secret beside something that a stranger chose: the length of
    /// their common compressed form tells about the secret (RFC 7692 section 8). And for what is
    /// compressed already.
    Never,
}

/// What a compressor is made for. Those that are made for the same can do each other's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Make {
    bits: u8,
    level: u8,
}

/// A compressor with its window.
pub(crate) struct Compressor {
    deflate: Deflate,
    make: Make,
}

impl Compressor {
    fn new(make: Make) -> Self {
        // A window of 8 bits is compressed for with one of 9: with that one no distance is over
        // 250 (512 less the longest match and its look-ahead), so 8 bits read it.
        let bits = make.bits.max(9);
        let config = zlib_rs::DeflateConfig {
            level: make.level.into(),
            // Negative for DEFLATE without a header of zlib's.
            window_bits: -i32::from(bits),
            mem_level: mem_level(make.level),
            ..zlib_rs::DeflateConfig::default()
        };
        Self {
            deflate: Deflate::new_with_config(config),
            make,
        }
    }

    /// Compresses a piece of a message behind the `filled` bytes of `out`, up to a byte boundary;
    /// the new length. `None` only if the backend cannot, which leaves the compressor of no use.
    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, mut filled: usize) -> Option<usize> {
        let mut rest = input;
        loop {
            let wanted = filled + (rest.len() / 2).clamp(MIN_ROOM, MAX_ROOM);
            if out.len() < wanted {
                out.resize(wanted, 0);
            }
            let room = out.get_mut(filled..)?;
            let len = room.len();
            let before = (self.deflate.total_in(), self.deflate.total_out());
            let flush = DeflateFlush::SyncFlush;
            self.deflate.compress(rest, room, flush).ok()?;
            let read = usize::try_from(self.deflate.total_in() - before.0).ok()?;
            let written = usize::try_from(self.deflate.total_out() - before.1).ok()?;
            rest = rest.get(read..)?;
            filled += written;
            // A flush is complete when there was room left.
            if written < len {
                return rest.is_empty().then_some(filled);
            }
        }
    }

    /// Bytes of heap that it takes, measured.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + compressor_bytes(self.make)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("make", &self.make)
            .finish_non_exhaustive()
    }
}

/// The compressors that the connections of a loop share, one for each window size and level, and
/// the buffer that all of them write to.
#[derive(Debug, Default)]
pub struct CompressorPool {
    shared: Vec<Compressor>,
    /// Where compressed payloads are written to.
    scratch: Vec<u8>,
}

impl CompressorPool {
    /// Bytes of heap that the compressors and the buffer hold.
    pub fn memory(&self) -> usize {
        let shared = self.shared.iter().map(|compressor| compressor.memory());
        shared.sum::<usize>() + self.scratch.capacity()
    }

    /// Compresses a message by itself. The payload, in the pool's buffer, if it is shorter.
    pub(crate) fn compress_alone(&mut self, make: Make, message: &[u8]) -> Option<Payload> {
        let mut scratch = self.take_scratch();
        let at = self.shared.iter().position(|shared| shared.make == make);
        let mut compressor = match at {
            Some(at) => self.shared.remove(at),
            None => Compressor::new(make),
        };
        compressor.deflate.reset();
        let len = compressor.run(message, &mut scratch, 0);
        if len.is_some() {
            // The one that was used last is the last to go.
            if self.shared.len() >= MAX_SHARED {
                self.shared.remove(0);
            }
            self.shared.push(compressor);
        }
        let payload = Payload::new(scratch, len?.checked_sub(TAIL.len())?);
        if payload.len < message.len() {
            return Some(payload);
        }
        self.put_back(payload);
        None
    }

    /// Takes the buffer back. Without that the next payload gets a new one.
    pub fn put_back(&mut self, payload: Payload) {
        if payload.scratch.len() <= MAX_SCRATCH {
            self.scratch = payload.scratch;
        }
    }

    fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }
}

/// A compressed payload, in a buffer that goes back to its pool.
#[derive(Debug)]
#[must_use]
pub struct Payload {
    scratch: Vec<u8>,
    len: usize,
}

impl Payload {
    const fn new(scratch: Vec<u8>, len: usize) -> Self {
        Self { scratch, len }
    }

    /// What goes into the frame.
    pub fn as_slice(&self) -> &[u8] {
        self.scratch.get(..self.len).unwrap_or_default()
    }
}

/// The sending half's part of permessage-deflate: makes the payloads of one connection.
///
/// ```
/// use wsloop::Side;
/// use wsloop::ws::deflate::{Compressing, CompressorPool, DeflateConfig, DeflateParams, SendOptions};
///
/// let mut pool = CompressorPool::default();
/// let mut sender = Compressing::new(Side::Server, DeflateParams::new(), DeflateConfig::new());
/// let message = "said ".repeat(100);
/// if let Some(payload) = sender.compress(&mut pool, message.as_bytes(), SendOptions::new()) {
///     assert!(payload.as_slice().len() < 50); // of a frame with RSV1
///     pool.put_back(payload);
/// }
/// ```
#[derive(Debug)]
pub struct Compressing {
    pub(crate) params: DeflateParams,
    pub(crate) config: DeflateConfig,
    /// What the receiving half owns of memory, in bytes.
    pub(crate) received: usize,
    /// Its part in the account of those who keep windows.
    pub(crate) lease: Option<Arc<()>>,
    make: Make,
    /// Later messages may refer to earlier ones.
    takeover: bool,
    /// With context takeover, from the first compressed message on.
    own: Option<Box<Compressor>>,
    /// The open fragmented message is a compressed one.
    fragments: bool,
}

impl Compressing {
    /// For one side of a connection that has agreed on these parameters.
    pub fn new(side: Side, params: DeflateParams, config: DeflateConfig) -> Self {
        let (bits, alone) = match side {
            Side::Client => (
                params.client_max_window_bits,
                params.client_no_context_takeover,
            ),
            Side::Server => (
                params.server_max_window_bits,
                params.server_no_context_takeover,
            ),
        };
        // A smaller window than what was agreed on is anybody's right.
        let bits = if alone {
            bits
        } else {
            bits.min(config.kept_bits)
        };
        Self {
            params,
            config,
            received: 0,
            lease: None,
            make: Make {
                bits,
                level: config.level,
            },
            takeover: !alone,
            own: None,
            fragments: false,
        }
    }

    /// Bytes of heap that the connection owns, this included.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.own.as_ref().map_or(0, |own| own.memory())
    }

    /// What a message of `len` bytes is compressed with if it can be done once for many
    /// connections.
    pub(crate) fn common_make(&self, len: usize) -> Option<Make> {
        (!self.takeover && len >= self.config.threshold).then_some(self.make)
    }

    /// Compresses a whole message; `None` if it is to be sent as it is: because the options say so,
    /// because it is short, or because it would not get shorter. (With context takeover it is sent
    /// even so, since the peer's window has to be the same.)
    pub fn compress(
        &mut self,
        pool: &mut CompressorPool,
        message: &[u8],
        options: SendOptions,
    ) -> Option<Payload> {
        let wanted = match options.compression {
            Compression::Always => true,
            Compression::Auto => message.len() >= self.config.threshold,
            Compression::Never => false,
        };
        if !wanted {
            return None;
        }
        if message.is_empty() {
            return Some(Self::empty(pool));
        }
        if !self.takeover {
            return pool.compress_alone(self.make, message);
        }
        // What the compressor has seen must be sent, or the peer's window is another one.
        self.run_own(pool, message, TAIL.len())
    }

    /// Compresses a fragment of a message whose first one was, or which is the first. Without
    /// context takeover there is no compressor that could be kept until the message ends, and
    /// fragments go as they are: `None`, for all of a message or none.
    pub fn compress_fragment(
        &mut self,
        pool: &mut CompressorPool,
        fragment: &[u8],
        first: bool,
        last: bool,
    ) -> Option<Payload> {
        if first {
            self.fragments = self.takeover;
        }
        if !self.fragments {
            return None;
        }
        if last {
            self.fragments = false;
        }
        match (fragment.is_empty(), last) {
            // Flushing twice gives nothing: an empty last fragment is an empty block by hand.
            (true, true) => Some(Self::empty(pool)),
            (true, false) => Some(Payload::new(pool.take_scratch(), 0)),
            (false, _) => self.run_own(pool, fragment, if last { TAIL.len() } else { 0 }),
        }
    }

    /// RFC 7692 section 7.2.3.6: the payload of an empty message is one byte.
    fn empty(pool: &mut CompressorPool) -> Payload {
        let mut scratch = pool.take_scratch();
        if scratch.is_empty() {
            scratch.resize(MIN_ROOM, 0);
        }
        if let Some(first) = scratch.first_mut() {
            *first = 0;
        }
        Payload::new(scratch, 1)
    }

    fn run_own(&mut self, pool: &mut CompressorPool, piece: &[u8], tail: usize) -> Option<Payload> {
        let make = self.make;
        let own = self
            .own
            .get_or_insert_with(|| Box::new(Compressor::new(make)));
        let mut scratch = pool.take_scratch();
        let len = own.run(piece, &mut scratch, 0);
        let len = len.and_then(|len| len.checked_sub(tail));
        let len = len.unwrap_or_else(|| {
            // A new compressor refers to nothing before it; stored blocks to nothing at all.
            self.own = None;
            store(piece, tail, &mut scratch)
        });
        Some(Payload::new(scratch, len))
    }
}

/// Writes a piece as stored blocks (RFC 1951 section 3.2.4) with an empty one at the end, but for
/// its last `tail` bytes; their length.
fn store(piece: &[u8], tail: usize, out: &mut Vec<u8>) -> usize {
    out.clear();
    for block in piece.chunks(usize::from(u16::MAX)) {
        // A chunk is no longer than that.
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.push(0);
    out.extend_from_slice(&TAIL);
    out.len().saturating_sub(tail)
}

/// How much of a block a compressor can put off, as a power of two less 6. Level 1 writes at once
/// and needs next to nothing; for the others a block is up to 4096 symbols.
const fn mem_level(level: u8) -> i32 {
    if level == 1 { 4 } else { 6 }
}

/// What a compressor takes, measured.
const fn compressor_bytes(make: Make) -> usize {
    let window = 1 << if make.bits < 9 { 9 } else { make.bits };
    let block = 1 << (mem_level(make.level) + 6);
    134_300 + 7 * block + 4 * window
}

/// The least room that is given to the backend at once: a flush must never find none.
const MIN_ROOM: usize = 4096;
/// The most room that is added at once.
const MAX_ROOM: usize = 1 << 20;
/// A larger buffer is not kept.
const MAX_SCRATCH: usize = 1 << 20;
/// Makes of compressors that are kept; a loop seldom has more than one.
const MAX_SHARED: usize = 4;

#[cfg(test)]
mod tests;
