//! The fast path of a server: messages that lie whole in what was received.

use std::ops::ControlFlow;

use super::{Delivery, Feed, MAX_SHORT, Phase};
use crate::ws::error::ProtocolError;
use crate::ws::{Message, MessageKind, Side, mask, utf8};

impl Feed<'_> {
    /// The fast path of a server that wants whole messages: gives those that lie here whole, in
    /// frames of at most 65 535 bytes, outside any message, until `give` says to stop. Anything
    /// else, and anything wrong with a header, is left to [`Feed::next`].
    ///
    /// # Errors
    ///
    /// A text that is not UTF-8, as [`Feed::next`].
    #[inline]
    pub(crate) fn each_whole(
        &mut self,
        mut give: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), ProtocolError> {
        let wanted = (self.side, self.delivery) == (Side::Server, Delivery::Messages);
        if self.recv.phase != Phase::Idle || !wanted {
            return Ok(());
        }
        while let Some(rest) = self.input.get_mut(self.at..) {
            let Some((kind, start, len)) = masked_whole(rest, self.fast_len) else {
                break;
            };
            let Some((header, payload)) = rest.split_at_mut_checked(start) else {
                break;
            };
            let (Some(key), Some(payload)) = (header.last_chunk(), payload.get_mut(..len)) else {
                break;
            };
            self.at += start + len;
            mask::apply(*key, 0, payload);
            let message = match kind {
                MessageKind::Binary => Message::Binary(payload),
                MessageKind::Text => match utf8::validate(payload) {
                    Ok(text) => Message::Text(text),
                    Err(error) => return Err(self.recv.fail(error)),
                },
            };
            if give(message).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The shortest way of all: gives the messages that lie whole at the front of what a server has
/// received, while nothing has begun of which the receiving half must know, in frames of at most
/// `longest` bytes, until `give` says to stop. How many bytes they took; what follows them, be it
/// a message, is as it came, for [`Feed::next`] to judge.
#[inline]
pub(crate) fn give_front(
    input: &mut [u8],
    longest: u16,
    mut give: impl FnMut(Message<'_>) -> ControlFlow<()>,
) -> usize {
    let mut at = 0;
    while let Some(rest) = input.get_mut(at..) {
        let Some((kind, start, len)) = masked_whole(rest, u64::from(longest)) else {
            break;
        };
        let Some((header, payload)) = rest.split_at_mut_checked(start) else {
            break;
        };
        let (Some(key), Some(payload)) = (header.last_chunk(), payload.get_mut(..len)) else {
            break;
        };
        mask::apply(*key, 0, payload);
        let message = match kind {
            MessageKind::Binary => Message::Binary(payload),
            MessageKind::Text => match utf8::validate(payload) {
                Ok(text) => Message::Text(text),
                Err(_) => {
                    mask::apply(*key, 0, payload);
                    break;
                }
            },
        };
        at += start + len;
        if give(message).is_break() {
            break;
        }
    }
    at
}

/// The header of an unfragmented, masked data frame without extensions: its kind, its own length
/// and that of the payload, if there is nothing about it that [`Feed::next`] has to look at.
#[inline]
fn masked_whole(rest: &[u8], limit: u64) -> Option<(MessageKind, usize, usize)> {
    let (&[first, second, high, low], _) = rest.split_first_chunk()?;
    let kind = match first {
        0x81 => MessageKind::Text,
        0x82 => MessageKind::Binary,
        _ => return None,
    };
    let short = second ^ 0x80;
    let (start, len) = if short <= MAX_SHORT {
        (6, u16::from(short))
    } else {
        let len = u16::from_be_bytes([high, low]);
        // RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length".
        if short != 126 || len <= u16::from(MAX_SHORT) {
            return None;
        }
        (8, len)
    };
    (u64::from(len) <= limit).then_some((kind, start, usize::from(len)))
}
