//! How a whole message gets into the queue.

use bytes::Bytes;

use super::{Flags, Queued, SendHalf};
use crate::error::SendError;
use crate::inner::Out;
use crate::net::transport::Io;
use crate::ws::send::{Fin, LEND_FROM, opcode};
use crate::ws::{Message, MessageKind, Side};

impl SendHalf {
    #[inline(always)]
    pub(crate) fn send_message(
        &mut self,
        out: &mut Out,
        message: Message<'_>,
    ) -> Result<Queued, SendError> {
        // In parts, which need no place in memory.
        let (kind, payload) = (message.kind(), message.as_bytes());
        // Where compression was agreed on that is never so.
        if self.flags.contains(Flags::SENDS) {
            if let Some(buffered) = self.tx.append_open(opcode(kind), payload) {
                return Ok(Queued { buffered });
            }
        }
        self.send_any(out, kind, payload)
    }

    /// Whether messages may be appended to the open queue of a server's connection that nobody
    /// visits and to which nothing but that happens. It is to be written then.
    #[inline]
    pub(super) fn opens_calmly(&mut self, out: &mut Out, payload: usize) -> bool {
        if self.flags != Flags::CALM {
            return self.flags.is_calm_output();
        }
        let open_to = self.settings.open_to;
        if payload >= LEND_FROM || open_to == 0 || self.side != Side::Server {
            return false;
        }
        // Calm, it is open, and has nothing queued.
        self.tx.open_calmly(&mut out.pool, open_to);
        self.flags |= Flags::DIRTY;
        out.dirty.push(self.id);
        true
    }

    /// The first message of a visit that is not calm, a long one, one that may be compressed, or one
    /// that cannot be sent.
    #[cold]
    #[inline(never)]
    fn send_any(
        &mut self,
        out: &mut Out,
        kind: MessageKind,
        payload: &[u8],
    ) -> Result<Queued, SendError> {
        #[cfg(feature = "deflate")]
        if !self.sends_plain() {
            return self.send_payload_with(out, kind, payload, Default::default());
        }
        if self.opens_calmly(out, payload.len()) {
            if let Some(buffered) = self.tx.append_open(opcode(kind), payload) {
                return Ok(Queued { buffered });
            }
        }
        self.admit(payload.len())?;
        if self.side == Side::Server && self.flags.contains(Flags::LIFTED) {
            if payload.len() >= LEND_FROM && self.lend(out, kind, payload) {
                return Ok(self.queued());
            }
            if self.tx.open(&mut out.pool, self.settings.open_to) {
                self.flags |= Flags::SENDS;
                if let Some(buffered) = self.tx.append_open(opcode(kind), payload) {
                    return Ok(Queued { buffered });
                }
            }
        }
        self.push_plain(out, Fin::Last, opcode(kind), payload);
        Ok(self.queued())
    }

    /// Queues a frame that was encoded for many peers.
    #[inline]
    pub(crate) fn send_encoded(
        &mut self,
        out: &mut Out,
        frame: &Bytes,
        payload: usize,
    ) -> Result<Queued, SendError> {
        if self.flags.contains(Flags::SENDS) || self.opens_calmly(out, payload) {
            if let Some(buffered) = self.tx.append_encoded(frame) {
                return Ok(Queued { buffered });
            }
        }
        self.send_any_encoded(out, frame, payload)
    }

    #[inline(never)]
    fn send_any_encoded(
        &mut self,
        out: &mut Out,
        frame: &Bytes,
        payload: usize,
    ) -> Result<Queued, SendError> {
        self.admit(payload)?;
        self.tx.append_shared(&mut out.pool, frame.clone());
        self.mark_message(out);
        Ok(self.queued())
    }

    /// Queues a message that lies among the received bytes of this visit without copying it.
    /// Whether it does. Addresses say where it lies; that they are those of the received bytes
    /// cannot be a coincidence, since both are borrowed now.
    fn lend(&mut self, out: &mut Out, kind: MessageKind, payload: &[u8]) -> bool {
        let begin = payload.as_ptr().addr();
        let lies_there = out.lender.start <= begin && begin + payload.len() <= out.lender.end;
        let start = begin.wrapping_sub(out.lender.start);
        let place = start..start.wrapping_add(payload.len());
        lies_there && {
            self.tx
                .append_lent(&mut out.pool, &mut out.lent, opcode(kind), place)
        }
    }

    /// As [`SendHalf::flush_lent`] in a calm visit: who sends one message back needs no vectored
    /// write.
    #[inline(never)]
    pub(crate) fn flush_lent_calmly(&mut self, out: &mut Out, io: &mut Io, lender: &mut [u8]) {
        let place = match self.flags.is_calm_visit() {
            true => self.tx.frame_in_place(&out.lent, lender),
            false => None,
        };
        let Some(place) = place else {
            return self.flush_lent(out, Some(io), lender);
        };
        let frame = lender.get(place).unwrap_or_default();
        out.lent.clear();
        let n = io.write_calmly(frame);
        let rest = frame.get(n..).unwrap_or_default();
        self.tx.wrote_in_place(n, rest, &mut out.pool);
        if !rest.is_empty() {
            self.note_output(out.now, n, io);
        }
    }

    /// Sends what was lent from `lender`, before that is used for something else.
    #[inline(never)]
    pub(crate) fn flush_lent(&mut self, out: &mut Out, io: Option<&mut Io>, lender: &[u8]) {
        let Out { pool, lent, .. } = out;
        match io {
            Some(io) if !self.flags.contains(Flags::ABORT) => {
                let taken = io.flush_lent(&mut self.tx, pool, lent, lender);
                self.note_output(out.now, taken, io);
            }
            _ => self.tx.write_lent(pool, lent, lender, |_| None),
        }
    }
}
