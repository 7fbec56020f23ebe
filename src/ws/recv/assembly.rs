//! The buffer of a message that came in more than one piece.

use std::fmt;

use crate::pool::BufferPool;
use crate::ws::MessageKind;
use crate::ws::error::ProtocolError;
use crate::ws::utf8::Utf8;

/// What has arrived of a message. Text is kept as a `String`, so that the whole needs no second
/// validation.
pub(super) enum Assembly {
    Binary(Bytes),
    Text(String),
}

/// Bytes at the front of a buffer of which more may be initialised, as it may have been in use
/// before.
#[derive(Default)]
pub(super) struct Bytes {
    buffer: Vec<u8>,
    len: usize,
}

impl Assembly {
    /// Begins a message in a buffer of the pool.
    pub(super) fn new(kind: MessageKind, pool: &mut BufferPool) -> Self {
        match kind {
            MessageKind::Binary => Self::Binary(Bytes {
                buffer: pool.take_used(),
                len: 0,
            }),
            // Empty is valid UTF-8: this keeps the buffer's capacity.
            MessageKind::Text => Self::Text(String::from_utf8(pool.take()).unwrap_or_default()),
        }
    }

    /// Appends the next piece. `bound` is the most the message can come to, in bytes.
    pub(super) fn append(
        &mut self,
        piece: &[u8],
        bound: usize,
        utf8: &mut Utf8,
    ) -> Result<(), ProtocolError> {
        let need = self.len().saturating_add(piece.len());
        if need > self.capacity() {
            self.grow(need, bound);
        }
        match self {
            Self::Binary(bytes) => {
                bytes.append(piece);
                Ok(())
            }
            Self::Text(text) => utf8.push(piece, text),
        }
    }

    /// Gives the buffer up for its next use.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Binary(bytes) => bytes.buffer,
            Self::Text(text) => text.into_bytes(),
        }
    }

    /// Heap bytes held.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.buffer.capacity(),
            Self::Text(text) => text.capacity(),
        }
    }

    /// Bytes that have arrived.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len,
            Self::Text(text) => text.len(),
        }
    }

    /// Room for up to `most` bytes behind what has arrived, if it may be anything. There is not
    /// much more of it than has arrived, unless the buffer has it already. `bound` as in
    /// [`Assembly::append`].
    pub(super) fn room(&mut self, most: usize, bound: usize) -> &mut [u8] {
        let len = self.len();
        // Half of what is here is enough, so that growing does not copy it all each time.
        if self.capacity() - len < most.min(len / 2) {
            self.grow(len, bound);
        }
        let end = len.saturating_add(most).min(self.capacity());
        match self {
            Self::Binary(bytes) => {
                if bytes.buffer.len() < end {
                    bytes.buffer.resize(end, 0);
                }
                bytes.buffer.get_mut(len..end).unwrap_or_default()
            }
            Self::Text(_) => &mut [],
        }
    }

    /// The first `n` bytes of the room were filled: gives them, if there were so many.
    pub(super) fn filled(&mut self, n: usize) -> &mut [u8] {
        match self {
            Self::Binary(bytes) => {
                let begin = bytes.len;
                bytes.len = begin.saturating_add(n).min(bytes.buffer.len());
                bytes.buffer.get_mut(begin..bytes.len).unwrap_or_default()
            }
            Self::Text(_) => &mut [],
        }
    }

    /// Makes room for `need` bytes, nearly all of which are here. The capacity at least doubles,
    /// so that many small pieces cost little, but it passes `bound` only if what is here does.
    fn grow(&mut self, need: usize, bound: usize) {
        let capacity = need
            .saturating_mul(2)
            .max(MIN_CAPACITY)
            .min(bound)
            .max(need);
        match self {
            Self::Binary(bytes) => {
                let initialised = bytes.buffer.len();
                bytes
                    .buffer
                    .reserve_exact(capacity.saturating_sub(initialised));
            }
            Self::Text(text) => text.reserve_exact(capacity - text.len()),
        }
    }
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    fn append(&mut self, piece: &[u8]) {
        let initialised = self.buffer.get_mut(self.len..).unwrap_or_default();
        let (over, behind) = piece
            .split_at_checked(initialised.len())
            .unwrap_or((piece, &[]));
        if let Some(place) = initialised.get_mut(..over.len()) {
            place.copy_from_slice(over);
        }
        self.buffer.extend_from_slice(behind);
        self.len += piece.len();
    }
}

impl Default for Assembly {
    fn default() -> Self {
        Self::Binary(Bytes::default())
    }
}

impl fmt::Debug for Assembly {
    /// Shows how much there is, not what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// The least capacity a buffer gets, unless its message is known to be shorter.
const MIN_CAPACITY: usize = 4096;
