//! The buffer of a message that came in more than one piece.

use std::fmt;

use crate::ws::MessageKind;
use crate::ws::error::ProtocolError;
use crate::ws::utf8::Utf8;

/// What has arrived of a message. Text is kept as a `String`, so that the whole needs no second
/// validation.
pub(super) enum Assembly {
    Binary(Vec<u8>),
    Text(String),
}

impl Assembly {
    /// Begins a message in `buffer`, which is empty.
    pub(super) fn new(kind: MessageKind, buffer: Vec<u8>) -> Self {
        match kind {
            MessageKind::Binary => Self::Binary(buffer),
            // Empty is valid UTF-8: this keeps the buffer's capacity.
            MessageKind::Text => Self::Text(String::from_utf8(buffer).unwrap_or_default()),
        }
    }

    /// Appends the next piece. `bound` is the most the message can come to, in bytes.
    pub(super) fn append(
        &mut self,
        piece: &[u8],
        bound: usize,
        utf8: &mut Utf8,
    ) -> Result<(), ProtocolError> {
        self.make_room(piece.len(), bound);
        match self {
            Self::Binary(data) => {
                data.extend_from_slice(piece);
                Ok(())
            }
            Self::Text(text) => utf8.push(piece, text),
        }
    }

    /// Gives the buffer up for its next use.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Binary(data) => data,
            Self::Text(text) => text.into_bytes(),
        }
    }

    /// Heap bytes held.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Binary(data) => data.capacity(),
            Self::Text(text) => text.capacity(),
        }
    }

    /// Makes room for `len` bytes that are here. The capacity at least doubles, so that many
    /// small pieces cost little, but it passes `bound` only if what is here does.
    fn make_room(&mut self, len: usize, bound: usize) {
        let have = match self {
            Self::Binary(data) => data.len(),
            Self::Text(text) => text.len(),
        };
        let need = have.saturating_add(len);
        if need <= self.capacity() {
            return;
        }
        let capacity = need
            .saturating_mul(2)
            .max(MIN_CAPACITY)
            .min(bound)
            .max(need);
        match self {
            Self::Binary(data) => data.reserve_exact(capacity - have),
            Self::Text(text) => text.reserve_exact(capacity - have),
        }
    }
}

impl Default for Assembly {
    fn default() -> Self {
        Self::Binary(Vec::new())
    }
}

impl fmt::Debug for Assembly {
    /// Shows how much there is, not what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(data) => write!(f, "Binary({} bytes)", data.len()),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// The least capacity a buffer gets, unless its message is known to be shorter.
const MIN_CAPACITY: usize = 4096;
