//! RFC 6455 without I/O: frames, masking, UTF-8, Close codes, and the receiving state machine.
//!
//! Everything here takes bytes and gives bytes or items. Nothing reads a socket, a clock or a
//! random number, so the same code serves a server, a client, a test and a fuzz target. [`Recv`]
//! turns received bytes into [`Item`]s; any split of the same bytes gives the same items.
//!
//! ```
//! use wsloop::ws::{Delivery, Item, Message, Recv, RecvLimits, RecvPool, Side};
//!
//! let mut recv = Recv::default();
//! let mut pool = RecvPool::default();
//! let limits = RecvLimits::default();
//! // RFC 6455 section 5.7: "Hello" in a single masked text frame.
//! let mut input = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
//! let mut feed = recv.feed(Side::Server, Delivery::Messages, &limits, &mut pool, &mut input);
//! assert!(matches!(feed.next()?, Some(Item::Message(Message::Text("Hello")))));
//! assert!(feed.next()?.is_none());
//! assert_eq!(feed.finish(), 11);
//! # Ok::<(), wsloop::ws::ProtocolError>(())
//! ```
#![warn(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm
)]

pub mod close;
#[cfg(feature = "deflate")]
pub mod deflate;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod recv;
pub(crate) mod send;
pub mod utf8;

pub use self::close::{Close, CloseCode, CloseFrame};
pub use self::error::ProtocolError;
pub use self::frame::{FrameHeader, MAX_HEADER_LEN, Opcode};
pub use self::recv::{Delivery, Feed, Item, Recv, RecvLimits, RecvPool};
pub use self::utf8::Utf8;
pub use crate::pool::BufferPool;

/// Which end of the connection we are.
///
/// RFC 6455 section 5.1: a client masks every frame it sends, a server masks none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum Side {
    /// We opened the connection: received frames are unmasked.
    Client,
    /// We accepted the connection: received frames are masked.
    Server,
}

/// The two kinds of data message (RFC 6455 section 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 defines two data opcodes")]
pub enum MessageKind {
    /// Arbitrary bytes.
    Binary,
    /// UTF-8 text.
    Text,
}

/// A whole data message, borrowed from the receive buffer or from the assembly buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 defines two data opcodes")]
pub enum Message<'a> {
    /// The payload of a binary message.
    Binary(&'a [u8]),
    /// The payload of a text message; it was checked to be valid UTF-8.
    Text(&'a str),
}

impl<'a> Message<'a> {
    /// Whether the message is binary or text.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Binary(_) => MessageKind::Binary,
            Self::Text(_) => MessageKind::Text,
        }
    }

    /// The payload, whatever its kind.
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Binary(data) => data,
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// Length of the payload in bytes.
    pub const fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty. Empty messages are legal and are delivered.
    pub const fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

/// A part of a data message, given out as it arrived ([`Delivery::Chunks`]).
///
/// Where a message is cut into chunks depends on the network and on the peer's fragments, and has
/// no meaning. The chunks of one message, joined, are the message. An empty message is one empty
/// chunk that is both first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Chunk<'a> {
    /// The kind of the message this is a part of.
    pub kind: MessageKind,
    /// The bytes, unmasked. Text was checked as UTF-8 up to its last byte, but a chunk may end
    /// inside a character.
    pub data: &'a [u8],
    /// Whether this chunk begins a message.
    pub first: bool,
    /// Whether this chunk ends its message.
    pub last: bool,
    /// Bytes of the current frame that have not arrived yet. If the frame is not the last of its
    /// message, more follow that nobody has announced. Of a compressed message they are the
    /// compressed bytes that have not been inflated yet.
    pub frame_remaining: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_knows_its_kind_and_length() {
        let text = Message::Text("h\u{e9}");
        assert_eq!(
            (text.kind(), text.len(), text.is_empty()),
            (MessageKind::Text, 3, false)
        );
        assert_eq!(text.as_bytes(), "h\u{e9}".as_bytes());
        let binary = Message::Binary(&[]);
        assert_eq!(
            (binary.kind(), binary.len(), binary.is_empty()),
            (MessageKind::Binary, 0, true)
        );
    }
}
