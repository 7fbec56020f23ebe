//! What a peer can do wrong on an open WebSocket connection.

use super::close::CloseCode;

/// A violation of RFC 6455, or of one of our limits, by the peer.
///
/// It ends the connection: send a Close frame with [`close_code`](Self::close_code), then close
/// the transport (RFC 6455 section 7.1.7, "Fail the WebSocket Connection").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A continuation frame came while no message was open (section 5.4).
    #[error("continuation frame without a message to continue")]
    ContinuationWithoutStart,
    /// RSV1, which marks a compressed message, was set on a continuation (RFC 7692 section 6.1).
    #[error("RSV1 is set on a continuation; it belongs on the first frame of a message")]
    CompressedContinuation,
    /// RSV1, which marks a compressed message, was set on a control frame (RFC 7692 section 6.1).
    #[error("RSV1 is set on a control frame")]
    CompressedControl,
    /// A Close, Ping or Pong frame without FIN (section 5.5).
    #[error("fragmented control frame")]
    ControlFragmented,
    /// A Close, Ping or Pong frame announced more than 125 bytes (section 5.5).
    #[error("control frame with a payload over 125 bytes")]
    ControlTooLong,
    /// A text or binary frame came before the open message was finished (section 5.4).
    #[error("new data frame inside a fragmented message")]
    DataInsideMessage,
    /// A compressed message is not DEFLATE, or refers to what was before it although that was
    /// ruled out (RFC 7692 section 7.2.2).
    #[error("compressed message with invalid DEFLATE data")]
    DeflateData,
    /// There was no memory to inflate with.
    #[error("no memory to inflate a message")]
    DeflateMemory,
    /// A compressed message inflated to more than
    /// `DeflateConfig::ratio_limit` allows.
    #[error("message inflates to over {limit} times its size; raise ratio_limit to accept it")]
    DeflateRatio {
        /// The limit: how many times the compressed size.
        limit: u32,
    },
    /// Something followed the final block of a compressed message.
    #[error("compressed message goes on behind its final block")]
    DeflateTrailing,
    /// A compressed message ended inside a block.
    #[error("compressed message ends inside a DEFLATE block")]
    DeflateUnfinished,
    /// A frame announced more than [`RecvLimits::frame_bytes`](super::RecvLimits::frame_bytes),
    /// which is less than a message may have; else it is
    /// [`MessageTooLarge`](Self::MessageTooLarge).
    #[error("frame of {len} bytes is over the limit of {limit}; raise frame_bytes to accept it")]
    FrameTooLarge {
        /// What the frame's header announced, in bytes.
        len: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A Close frame carried a code that must not be sent (section 7.4).
    #[error("close code {0} is not allowed on the wire")]
    InvalidCloseCode(u16),
    /// A Close frame had a payload of one byte, too short for a code (section 5.5.1).
    #[error("close frame with a payload of one byte")]
    InvalidCloseLength,
    /// A text message or a Close reason was not valid UTF-8 (section 8.1).
    #[error("invalid UTF-8 in a text message or a close reason")]
    InvalidUtf8,
    /// A payload length was not written in the shortest of its three forms (section 5.2).
    #[error("payload length not in its shortest encoding")]
    LengthNotMinimal,
    /// A 64-bit payload length had its most significant bit set (section 5.2).
    #[error("64-bit payload length with its top bit set")]
    LengthTopBitSet,
    /// The server masked a frame (section 5.1).
    #[error("masked frame from the server")]
    MaskedByServer,
    /// The frames of a message announced more than
    /// [`RecvLimits::message_bytes`](super::RecvLimits::message_bytes) together.
    #[error("message is over the limit of {limit} bytes; raise message_bytes to accept it")]
    MessageTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// RSV1, RSV2 or RSV3 (the number says which) was set, and no negotiated extension gives it a
    /// meaning (section 5.2).
    #[error("reserved bit RSV{0} is set without an extension that defines it")]
    ReservedBit(u8),
    /// An opcode that RFC 6455 reserves: 3 to 7 or 11 to 15 (section 5.2).
    #[error("reserved opcode {0}")]
    ReservedOpcode(u8),
    /// A message came in more frames than
    /// [`RecvLimits::fragments`](super::RecvLimits::fragments).
    #[error("message in more than {limit} fragments; raise fragments to accept it")]
    TooManyFragments {
        /// The limit, in frames.
        limit: u32,
    },
    /// The client sent a frame without a mask (section 5.1).
    #[error("unmasked frame from the client")]
    UnmaskedByClient,
}

impl ProtocolError {
    /// The reason in the Close frame: what the peer did. What this side could do about it, which
    /// the error's own text tells, is not the peer's business.
    pub fn peer_reason(&self) -> String {
        match self {
            Self::DeflateRatio { limit } => {
                format!("message inflates to over {limit} times its size")
            }
            Self::FrameTooLarge { len, limit } => {
                format!("frame of {len} bytes is over the limit of {limit}")
            }
            Self::MessageTooLarge { limit } => {
                format!("message is over the limit of {limit} bytes")
            }
            Self::TooManyFragments { limit } => {
                format!("message in more than {limit} fragments")
            }
            Self::CompressedContinuation
            | Self::CompressedControl
            | Self::ContinuationWithoutStart
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::DataInsideMessage
            | Self::DeflateData
            | Self::DeflateMemory
            | Self::DeflateTrailing
            | Self::DeflateUnfinished
            | Self::InvalidCloseCode(_)
            | Self::InvalidCloseLength
            | Self::InvalidUtf8
            | Self::LengthNotMinimal
            | Self::LengthTopBitSet
            | Self::MaskedByServer
            | Self::ReservedBit(_)
            | Self::ReservedOpcode(_)
            | Self::UnmaskedByClient => self.to_string(),
        }
    }

    /// The code of the Close frame that tells the peer (section 7.4.1).
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::CompressedContinuation
            | Self::CompressedControl
            | Self::ContinuationWithoutStart
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::DataInsideMessage
            | Self::InvalidCloseCode(_)
            | Self::InvalidCloseLength
            | Self::LengthNotMinimal
            | Self::LengthTopBitSet
            | Self::MaskedByServer
            | Self::ReservedBit(_)
            | Self::ReservedOpcode(_)
            | Self::UnmaskedByClient => CloseCode::PROTOCOL_ERROR,
            Self::DeflateData
            | Self::DeflateTrailing
            | Self::DeflateUnfinished
            | Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::DeflateMemory => CloseCode::INTERNAL_ERROR,
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => CloseCode::MESSAGE_TOO_BIG,
            Self::DeflateRatio { .. } | Self::TooManyFragments { .. } => {
                CloseCode::POLICY_VIOLATION
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_code_follows_the_kind_of_violation() {
        for (error, code) in [
            (ProtocolError::UnmaskedByClient, 1002),
            (ProtocolError::InvalidUtf8, 1007),
            (ProtocolError::TooManyFragments { limit: 1 }, 1008),
            (ProtocolError::FrameTooLarge { len: 2, limit: 1 }, 1009),
            (ProtocolError::MessageTooLarge { limit: 1 }, 1009),
        ] {
            assert_eq!(error.close_code().value(), code, "{error}");
        }
    }

    #[test]
    fn the_peer_is_not_told_which_setting_to_raise() {
        for error in [
            ProtocolError::DeflateRatio { limit: 3 },
            ProtocolError::FrameTooLarge { len: 9, limit: 8 },
            ProtocolError::MessageTooLarge { limit: 8 },
            ProtocolError::TooManyFragments { limit: 8 },
        ] {
            let (ours, theirs) = (error.to_string(), error.peer_reason());
            assert!(ours.starts_with(&theirs), "{ours}");
            assert!(ours.contains("raise") && !theirs.contains('_'), "{theirs}");
        }
    }

    #[test]
    fn an_error_stays_small() {
        assert!(size_of::<ProtocolError>() <= 32);
    }

    #[test]
    fn a_limit_error_names_the_limit_to_raise() {
        let text = ProtocolError::FrameTooLarge { len: 9, limit: 8 }.to_string();
        assert!(
            text.contains('9') && text.contains('8') && text.contains("frame_bytes"),
            "{text}"
        );
    }
}
