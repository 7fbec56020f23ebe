//! Compressed messages (RFC 7692) on their way in.

use std::mem;

use super::{Assembly, Delivery, Feed, Item, Recv, Step};
use crate::ws::deflate::inflate::{FULL, Inflated, Inflater, Inflating};
use crate::ws::deflate::{DeflateConfig, DeflateParams};
use crate::ws::frame::{FrameHeader, Opcode};
use crate::ws::{Chunk, Message, MessageKind, ProtocolError, Side, mask, utf8};

impl Recv {
    /// The receiving half of a connection that has agreed on permessage-deflate.
    pub fn with_deflate(side: Side, params: &DeflateParams, config: &DeflateConfig) -> Self {
        Self {
            inflating: Some(Box::new(Inflating::new(side, params, config))),
            ..Self::default()
        }
    }

    /// Whether the last feed has ended early because the allowance of its
    /// [`InflaterPool`](crate::ws::deflate::InflaterPool) was spent. What it left unconsumed is to
    /// be offered again, with nothing new behind it, when there is a new allowance.
    pub fn is_suspended(&self) -> bool {
        let inflating = self.inflating.as_ref();
        inflating.is_some_and(|inflating| inflating.suspended)
    }

    /// Whether the last feed has ended before a compressed message because no inflater was free.
    /// What it left unconsumed is to be offered again when there is one.
    pub fn is_waiting(&self) -> bool {
        let inflating = self.inflating.as_ref();
        inflating.is_some_and(|inflating| inflating.waiting)
    }

    /// Whether the connection has to be put into the queue for an inflater: it waits, and is not
    /// there yet.
    pub(crate) fn enters_queue(&mut self) -> bool {
        let Some(inflating) = &mut self.inflating else {
            return false;
        };
        inflating.waiting && !mem::replace(&mut inflating.queued, true)
    }

    /// It has come to the front of the queue.
    pub(crate) fn grant(&mut self, inflater: Box<Inflater>) {
        if let Some(inflating) = &mut self.inflating {
            inflating.grant(inflater);
        }
    }

    pub(super) fn is_inflating(&self) -> bool {
        let inflating = self.inflating.as_ref();
        inflating.is_some_and(|inflating| inflating.is_open())
    }

    pub(crate) fn inflating_memory(&self) -> usize {
        let inflating = self.inflating.as_ref();
        inflating.map_or(0, |inflating| inflating.memory())
    }
}

impl Feed<'_> {
    /// RSV1 is set: whether that is right, and there is an inflater for the message.
    pub(super) fn begin_compressed(&mut self, header: &FrameHeader) -> Result<bool, ProtocolError> {
        let Some(inflating) = &mut self.recv.inflating else {
            return Err(ProtocolError::ReservedBit(1));
        };
        // RFC 7692 section 6.1: "This bit MUST be set ... only on the first fragment"; section
        // 6: "MUST NOT set the "Per-Message Compressed" bit of control frames".
        match header.opcode {
            Opcode::Binary | Opcode::Text => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                return Err(ProtocolError::CompressedControl);
            }
            Opcode::Continuation => return Err(ProtocolError::CompressedContinuation),
        }
        // Inside a message it is refused for that, and what is dropped is not inflated.
        if self.recv.open.is_some() || self.recv.discarding {
            inflating.waiting = false;
            return Ok(true);
        }
        Ok(inflating.begin(&mut self.pool.inflaters))
    }

    /// Inflates what is here of a compressed frame's payload.
    pub(super) fn inflate(&mut self, kind: MessageKind) -> Result<Option<Step>, ProtocolError> {
        loop {
            if self.recv.remaining == 0 {
                return self.end_compressed_frame(kind);
            }
            // Only what is not consumed brings the caller back.
            if self.at == self.input.len() {
                return self.pause(kind, false);
            }
            if self.pool.inflaters.is_spent() {
                return self.pause(kind, true);
            }
            if self.inflate_piece()? {
                if let Some(step) = self.set_aside(kind)? {
                    return Ok(Some(step));
                }
            }
        }
    }

    fn holds(&self) -> bool {
        let inflating = self.recv.inflating.as_ref();
        inflating.is_some_and(|inflating| inflating.held)
    }

    /// One step of the inflater; whether the buffer is full after it, so that there may be more
    /// to come of the same input. Then the last byte of what is here stays unconsumed.
    fn inflate_piece(&mut self) -> Result<bool, ProtocolError> {
        let limit = self.limits.message_bytes;
        let held = self.holds();
        let skip = usize::from(held);
        let here = self.input.len() - self.at;
        let here = usize::try_from(self.recv.remaining).map_or(here, |left| left.min(here));
        let here = here.min(PIECE + skip);
        self.mask_piece(skip, here);
        let Some(inflating) = &mut self.recv.inflating else {
            return Err(ProtocolError::ReservedBit(1));
        };
        let piece = self.input.get(self.at + skip..self.at + here);
        let pool = &mut self.pool.inflaters;
        let Inflated { used, written } =
            inflating.step(pool, piece.unwrap_or_default(), self.filled, limit)?;
        inflating.suspended = false;
        self.filled += written;
        let full = self.filled >= FULL;
        let mut taken = skip + used;
        inflating.held = full && taken == here && taken > 0;
        if inflating.held {
            taken -= 1;
        }
        // What it has not read is not unmasked either.
        self.mask_piece(skip + used, here);
        if self.side == Side::Server {
            self.recv.key = mask::rotate(self.recv.key, taken);
        }
        self.at += taken;
        self.recv.remaining -= taken as u64;
        Ok(full)
    }

    /// Applies the mask to the bytes from `from` to `to` behind the current one.
    fn mask_piece(&mut self, from: usize, to: usize) {
        if self.side == Side::Server {
            let piece = self.input.get_mut(self.at + from..self.at + to);
            mask::apply(
                mask::rotate(self.recv.key, from),
                0,
                piece.unwrap_or_default(),
            );
        }
    }

    /// Nothing more can be done now: because of the allowance, or because nothing more is here.
    fn pause(&mut self, kind: MessageKind, suspended: bool) -> Result<Option<Step>, ProtocolError> {
        if let Some(inflating) = &mut self.recv.inflating {
            inflating.suspended = suspended;
        }
        let step = self.set_aside(kind)?;
        Ok(Some(step.unwrap_or(Step::Starve)))
    }

    /// Takes what was inflated out of the buffer: into the message, or as a chunk.
    fn set_aside(&mut self, kind: MessageKind) -> Result<Option<Step>, ProtocolError> {
        if self.filled == 0 {
            return Ok(None);
        }
        let first = mem::take(&mut self.recv.untouched);
        match self.delivery {
            Delivery::Chunks => {
                self.check_inflated(kind, false)?;
                Ok(Some(Step::Inflated(kind, first, false)))
            }
            Delivery::Messages => {
                self.assemble_inflated(kind, first)?;
                Ok(None)
            }
        }
    }

    /// The frame is inflated, and with the last one the message.
    fn end_compressed_frame(&mut self, kind: MessageKind) -> Result<Option<Step>, ProtocolError> {
        if !self.recv.fin {
            self.recv.end_frame();
            return self.set_aside(kind);
        }
        let limit = self.limits.message_bytes;
        let pool = &mut self.pool.inflaters;
        if let Some(inflating) = &mut self.recv.inflating {
            self.filled += inflating.finish(pool, self.filled, limit)?;
            inflating.end(pool);
        }
        self.recv.end_frame();
        let first = mem::take(&mut self.recv.untouched);
        match self.delivery {
            Delivery::Chunks => {
                self.check_inflated(kind, true)?;
                Ok(Some(Step::Inflated(kind, first, true)))
            }
            Delivery::Messages if first => Ok(Some(Step::Inflated(kind, true, true))),
            Delivery::Messages => {
                self.assemble_inflated(kind, false)?;
                self.recv.utf8.finish()?;
                self.recv.phase = super::Phase::Lent;
                Ok(Some(Step::Assembled))
            }
        }
    }

    fn check_inflated(&mut self, kind: MessageKind, last: bool) -> Result<(), ProtocolError> {
        if kind == MessageKind::Text {
            let data = self.pool.inflaters.output(self.filled);
            self.recv.utf8.check(data)?;
        }
        if last {
            self.recv.utf8.finish()
        } else {
            Ok(())
        }
    }

    fn assemble_inflated(&mut self, kind: MessageKind, first: bool) -> Result<(), ProtocolError> {
        let piece = self.pool.inflaters.output(self.filled);
        let more = self.recv.more.get_or_insert_default();
        if first {
            more.assembly = Assembly::new(kind, &mut self.pool.buffers);
        }
        self.filled = 0;
        let bound = self.limits.message_bytes;
        more.assembly.append(piece, bound, &mut self.recv.utf8)
    }

    /// Gives what lies in the inflaters' buffer.
    pub(super) fn give_inflated(
        &mut self,
        kind: MessageKind,
        first: bool,
        last: bool,
    ) -> Result<Item<'_>, ProtocolError> {
        let data = self.pool.inflaters.output(mem::take(&mut self.filled));
        if self.delivery == Delivery::Chunks {
            return Ok(Item::Chunk(Chunk {
                kind,
                data,
                first,
                last,
                frame_remaining: self.recv.remaining,
            }));
        }
        Ok(Item::Message(match kind {
            MessageKind::Binary => Message::Binary(data),
            MessageKind::Text => match utf8::validate(data) {
                Ok(text) => Message::Text(text),
                Err(error) => return Err(self.recv.fail(error)),
            },
        }))
    }

    /// Nobody wants the rest of the message that is being inflated.
    pub(super) fn return_inflater(&mut self) {
        if let Some(inflating) = &mut self.recv.inflating {
            inflating.end(&mut self.pool.inflaters);
        }
    }
}

/// Payload that is unmasked and inflated at once.
const PIECE: usize = 8 * 1024;
