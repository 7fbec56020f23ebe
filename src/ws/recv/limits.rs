//! What receiving may cost, and what it borrows.

use crate::pool::BufferPool;
#[cfg(feature = "deflate")]
use crate::ws::deflate::InflaterPool;

/// What a peer may make us receive. A header that announces more is refused before any of its
/// payload is read; exactly the limit is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvLimits {
    /// Longest payload of one frame, in bytes. Default 1 MiB.
    pub frame_bytes: u64,
    /// Longest message, in bytes, over all its frames. Default 1 MiB. It holds for
    /// [`Delivery::Chunks`](super::Delivery::Chunks) too: raise it there, since chunks are not kept.
    pub message_bytes: usize,
    /// Most frames of one fragmented message. Default 1024.
    pub fragments: u32,
}

impl RecvLimits {
    /// Sets [`frame_bytes`](Self::frame_bytes).
    pub const fn with_frame_bytes(mut self, frame_bytes: u64) -> Self {
        self.frame_bytes = frame_bytes;
        self
    }

    /// Sets [`message_bytes`](Self::message_bytes).
    pub const fn with_message_bytes(mut self, message_bytes: usize) -> Self {
        self.message_bytes = message_bytes;
        self
    }

    /// Sets [`fragments`](Self::fragments).
    pub const fn with_fragments(mut self, fragments: u32) -> Self {
        self.fragments = fragments;
        self
    }
}

impl Default for RecvLimits {
    fn default() -> Self {
        Self {
            frame_bytes: 1 << 20,
            message_bytes: 1 << 20,
            fragments: 1024,
        }
    }
}

/// What the connections of a loop share for receiving.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RecvPool {
    /// For messages that come in more than one piece.
    pub buffers: BufferPool,
    /// For messages that come compressed.
    #[cfg(feature = "deflate")]
    pub inflaters: InflaterPool,
}

impl RecvPool {
    /// With these buffers, and the default of everything else.
    pub fn new(buffers: BufferPool) -> Self {
        Self {
            buffers,
            #[cfg(feature = "deflate")]
            inflaters: InflaterPool::default(),
        }
    }
}
