//! Payloads that are read to where their message is assembled, past the receive buffer.

use super::{Assembly, MessageKind, Phase, Recv, RecvLimits};
use crate::ws::{Side, mask};

impl Recv {
    /// Where the next payload bytes of a binary message that is being assembled may be put, in
    /// place of offering them to a [`Feed`](super::Feed): as many of them as
    /// [`filled`](Self::filled) is told then. What does not go there is offered as ever, behind it.
    ///
    /// It is never room for all of a frame, so that it is always a feed that gives the message. How
    /// much there is goes by how much has come, not by what a header says. It is empty where not
    /// more than `least` bytes are to come, and where bytes have to be looked at first; it is not
    /// longer than `most`.
    pub fn room(&mut self, limits: &RecvLimits, least: usize, most: usize) -> &mut [u8] {
        let to_come = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let is_binary = self.phase == Phase::Data(MessageKind::Binary);
        if !is_binary || to_come <= least || self.untouched || self.is_inflating() {
            return &mut [];
        }
        let bound = self.bound(limits);
        match self.more.as_mut().map(|more| &mut more.assembly) {
            // Nothing is assembled of a message that is given in chunks.
            Some(assembly) if assembly.len() > 0 => {
                assembly.room(to_come.saturating_sub(1).min(most), bound)
            }
            _ => &mut [],
        }
    }

    /// The first `n` bytes of the [`room`](Self::room) were filled with what has come.
    pub fn filled(&mut self, side: Side, n: usize) {
        let Some(more) = &mut self.more else { return };
        let piece = more.assembly.filled(n);
        if side == Side::Server {
            mask::apply(self.key, 0, piece);
            self.key = mask::rotate(self.key, piece.len());
        }
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
    }

    /// Whether a binary message of more than `least` bytes is likely to begin, or has begun of
    /// which nothing is here: who reads a little of it first has [`room`](Self::room) for the rest.
    pub(crate) fn expects_bulk(&self, least: usize) -> bool {
        match self.phase {
            Phase::Idle | Phase::Header => self.bulky,
            Phase::Data(MessageKind::Binary) => self.untouched && self.remaining > least as u64,
            Phase::Closed
            | Phase::Control(_)
            | Phase::Data(MessageKind::Text)
            | Phase::Discard
            | Phase::Lent => false,
        }
    }

    /// Whether the last message was large, and nothing has come since.
    pub(crate) const fn was_bulky(&self) -> bool {
        self.bulky
    }

    /// Something has come: what comes next is as likely small.
    pub(crate) const fn forget_bulk(&mut self) {
        self.bulky = false;
    }

    /// The most that the open message can come to, in bytes.
    pub(super) fn bound(&self, limits: &RecvLimits) -> usize {
        match usize::try_from(self.announced) {
            Ok(announced) if self.fin => announced,
            _ => limits.message_bytes,
        }
    }
}

impl Assembly {
    /// Whether the next message is likely to be worth reading to its place.
    pub(super) fn is_bulky(&self) -> bool {
        matches!(self, Self::Binary(_)) && self.len() >= BULK
    }
}

/// A message that is followed by such as is read to its place.
const BULK: usize = 128 * 1024;
