//! The fast path of a server: messages that lie whole in what was received.

use std::ops::ControlFlow;

use super::{Delivery, Feed, MAX_SHORT, Phase};
use crate::ws::error::ProtocolError;
use crate::ws::{Message, Side, mask, utf8};

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
        let takes_short = self.fast_len >= u64::from(MAX_SHORT);
        if self.recv.phase != Phase::Idle || !wanted || !takes_short {
            return Ok(());
        }
        while let Some(rest) = self.input.get_mut(self.at..) {
            let Some((first, start, len)) = masked_whole(rest, self.fast_len) else {
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
            let message = match first {
                WHOLE_TEXT => match utf8::validate(payload) {
                    Ok(text) => Message::Text(text),
                    Err(error) => return Err(self.recv.fail(error)),
                },
                _ => Message::Binary(payload),
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
/// `longest` bytes (at least as long as short ones, see [`has_front`]), until who takes them says to
/// stop: that is a break. How many bytes follow them, which are as they came, for [`Feed::next`] to
/// judge.
#[inline(always)]
pub(crate) fn give_front(
    input: &mut [u8],
    longest: u16,
    mut to: impl Take,
) -> ControlFlow<usize, usize> {
    debug_assert!(
        has_front(longest),
        "a short frame is not asked for its length"
    );
    let (mut left, mut input) = (input.len(), input);
    while let Some((first, start, len)) = masked_whole(input, u64::from(longest)) {
        // The header is there, so one look says whether the rest is.
        let Some((frame, rest)) = input.split_at_mut_checked(start + len) else {
            break;
        };
        let Some((header, payload)) = frame.split_at_mut_checked(start) else {
            break;
        };
        let Some(key) = header.last_chunk() else {
            break;
        };
        mask::apply(*key, 0, payload);
        let message = match first {
            WHOLE_TEXT => match utf8::validate(payload) {
                Ok(text) => Message::Text(text),
                Err(_) => {
                    mask::apply(*key, 0, payload);
                    break;
                }
            },
            _ => Message::Binary(payload),
        };
        left = rest.len();
        input = rest;
        if to.take(message).is_break() {
            return ControlFlow::Break(left);
        }
    }
    ControlFlow::Continue(left)
}

/// Whether [`give_front`] can be asked where messages of up to that many bytes are taken.
pub(crate) const fn has_front(longest: u16) -> bool {
    longest >= MAX_SHORT as u16
}

/// Who gets messages one after the other.
pub(crate) trait Take {
    /// Whether it wants another one.
    fn take(&mut self, message: Message<'_>) -> ControlFlow<()>;
}

/// The header of an unfragmented, masked data frame without extensions: its first byte, its own length
/// and that of the payload, if there is nothing about it that [`Feed::next`] has to look at. The
/// limit is at least that of a short frame.
#[inline(always)]
fn masked_whole(rest: &[u8], limit: u64) -> Option<(u8, usize, usize)> {
    let (&[first, second, high, low], _) = rest.split_first_chunk()?;
    if !matches!(first, WHOLE_TEXT | WHOLE_BINARY) {
        return None;
    }
    let short = second ^ 0x80;
    let (start, len) = if short <= MAX_SHORT {
        (6, u16::from(short))
    } else {
        let len = u16::from_be_bytes([high, low]);
        // RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length".
        if short != 126 || len <= u16::from(MAX_SHORT) || u64::from(len) > limit {
            return None;
        }
        (8, len)
    };
    Some((first, start, usize::from(len)))
}

/// The first byte of a message in one frame.
const WHOLE_TEXT: u8 = 0x81;
const WHOLE_BINARY: u8 = 0x82;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match u8::try_from(payload.len()).ok().filter(|len| *len <= 125) {
            Some(len) => frame.push(0x80 | len),
            None => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        frame.extend(KEY);
        mask::copy(KEY, payload, &mut frame);
        frame
    }

    struct Takes<'a> {
        taken: &'a mut Vec<Vec<u8>>,
        goes_on: ControlFlow<()>,
    }

    impl Take for Takes<'_> {
        fn take(&mut self, message: Message<'_>) -> ControlFlow<()> {
            self.taken.push(message.as_bytes().to_vec());
            self.goes_on
        }
    }

    fn given(input: &mut [u8], longest: u16, goes_on: ControlFlow<()>) -> (Vec<Vec<u8>>, usize) {
        let taken = &mut Vec::new();
        let (ControlFlow::Continue(left) | ControlFlow::Break(left)) =
            give_front(input, longest, Takes { taken, goes_on });
        (std::mem::take(taken), input.len() - left)
    }

    #[test]
    fn what_is_no_whole_valid_message_is_left_as_it_came() {
        let good: [(u8, Vec<u8>); 4] = [
            (0x81, b"text".to_vec()),
            (0x82, Vec::new()),
            (0x82, vec![0xff; 125]),
            (0x81, vec![b'x'; 126]),
        ];
        let whole = good.clone().map(|(first, payload)| frame(first, &payload));
        let cut = frame(0x82, &[1; 20]);
        let not_minimal = [[0x82, 0xfe, 0, 125].as_slice(), &KEY, &[0; 125]].concat();
        let unmasked = [[0x82, 4].as_slice(), &[0; 20]].concat();
        for bad in [
            frame(0x81, b"no \xff text"),
            frame(0x81, &[0xe2; 200]),
            frame(0x89, b"ping"),
            frame(0x88, &[3, 232]),
            frame(0x01, b"fragment"),
            frame(0x80, b"continuation"),
            frame(0xc2, b"rsv1"),
            frame(0x83, b"reserved"),
            frame(0x82, &[0; 1001]),
            cut.split_at(cut.len() - 1).0.to_vec(),
            cut.split_at(5).0.to_vec(),
            not_minimal,
            unmasked,
            Vec::new(),
        ] {
            let mut input = [whole.concat(), bad.clone()].concat();
            let (given, used) = given(&mut input, 1000, ControlFlow::Continue(()));
            assert_eq!(given, good.clone().map(|(_, payload)| payload));
            assert_eq!(input.split_off(used), bad);
        }
    }

    #[test]
    fn who_says_stop_gets_no_more() {
        let mut input = [frame(0x82, b"one"), frame(0x82, b"two")].concat();
        let (first, used) = given(&mut input, 1000, ControlFlow::Break(()));
        assert_eq!((first, used), (vec![b"one".to_vec()], 9));
        let (second, _) = given(&mut input[used..], 1000, ControlFlow::Break(()));
        assert_eq!(second, [b"two"]);
    }
}
