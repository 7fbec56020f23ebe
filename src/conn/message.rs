//! How a whole message gets into the queue.

use super::{Flags, Queued, SendHalf};
use crate::error::SendError;
use crate::inner::Out;
use crate::net::transport::Io;
use crate::ws::send::{Fin, LEND_FROM, opcode};
use crate::ws::{Message, Side};

impl SendHalf {
    #[inline]
    pub(crate) fn send_message(
        &mut self,
        out: &mut Out,
        message: Message<'_>,
    ) -> Result<Queued, SendError> {
        // Where compression was agreed on that is never so.
        if self.flags.contains(Flags::SENDS) {
            let payload = message.as_bytes();
            if let Some(buffered) = self.tx.append_open(opcode(message.kind()), payload) {
                return Ok(Queued { buffered });
            }
        }
        self.send_any(out, message)
    }

    /// The first message of a visit that is not calm, a long one, one that may be compressed, or one
    /// that cannot be sent.
    #[inline(never)]
    fn send_any(&mut self, out: &mut Out, message: Message<'_>) -> Result<Queued, SendError> {
        #[cfg(feature = "deflate")]
        if !self.sends_plain() {
            return self.send_message_with(out, message, Default::default());
        }
        let payload = message.as_bytes();
        self.admit(payload.len())?;
        if self.side == Side::Server && self.flags.contains(Flags::LIFTED) {
            if payload.len() >= LEND_FROM && self.lend(out, message) {
                return Ok(self.queued());
            }
            if self.tx.open(&mut out.pool, self.settings.open_to) {
                self.flags |= Flags::SENDS;
                let code = opcode(message.kind());
                if let Some(buffered) = self.tx.append_open(code, payload) {
                    return Ok(Queued { buffered });
                }
            }
        }
        self.push_plain(out, Fin::Last, opcode(message.kind()), payload);
        Ok(self.queued())
    }

    /// Queues a message that lies among the received bytes of this visit without copying it.
    /// Whether it does. Addresses say where it lies; that they are those of the received bytes
    /// cannot be a coincidence, since both are borrowed now.
    fn lend(&mut self, out: &mut Out, message: Message<'_>) -> bool {
        let payload = message.as_bytes();
        let begin = payload.as_ptr().addr();
        let lies_there = out.lender.start <= begin && begin + payload.len() <= out.lender.end;
        let start = begin.wrapping_sub(out.lender.start);
        let place = start..start.wrapping_add(payload.len());
        lies_there && {
            let code = opcode(message.kind());
            self.tx
                .append_lent(&mut out.pool, &mut out.lent, code, place)
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
