//! What the loop does to a connection while it gives received messages.

use std::ops::Range;
use std::time::Duration;

use super::{Cx, Wsi};
use crate::conn::Flags;
use crate::ws::{CloseFrame, Message, ProtocolError};

impl Wsi<'_> {
    pub(crate) fn message_ended(&mut self) {
        self.parts().0.deadlines.no_message();
    }

    pub(crate) fn answer_ping(&mut self, payload: &[u8]) {
        let (send, out) = self.parts();
        send.push_pong(out, payload);
    }

    pub(crate) fn match_pong(&mut self, payload: &[u8]) -> Option<Duration> {
        let (send, out) = self.parts();
        send.match_pong(out.now, payload)
    }

    pub(crate) fn peer_closed(&mut self, frame: Option<CloseFrame<'_>>) -> bool {
        let (send, out) = self.parts();
        send.peer_closed(out, frame)
    }

    /// More lies behind the peer's Close frame.
    pub(crate) fn peer_talks_on(&mut self) {
        self.parts().0.flags |= Flags::TALKS_ON;
    }

    pub(crate) fn fail(&mut self, error: ProtocolError) {
        let (send, out) = self.parts();
        send.fail(out, error);
    }

    /// For the time of one callback: what it sends of `message`, which lies in a buffer of its own,
    /// goes out from there. Gives what [`Wsi::end_lending`] takes.
    pub(crate) fn lend(&mut self, message: Message<'_>) -> Option<Range<usize>> {
        let is_plain = self.io().is_some_and(|io| io.secure.is_none());
        let through_tls = self.lends_records(message);
        let out = &mut self.cx.inner.out;
        let in_the_clear =
            is_plain && !out.lender.is_empty() && message.len() >= LEND_ASSEMBLED_FROM;
        let lends = through_tls || in_the_clear;
        let lends = lends && out.lent.is_empty();
        let addresses = message.as_bytes().as_ptr_range();
        let lender = addresses.start.addr()..addresses.end.addr();
        lends.then(|| std::mem::replace(&mut out.lender, lender))
    }

    /// Whether it can be encrypted from where it lies. When an unsent ping leaves has to be seen
    /// where all else is written.
    #[cfg(feature = "tls")]
    fn lends_records(&self, message: Message<'_>) -> bool {
        let send = self.send_half();
        let lends = send.sends_plain() && !send.flags.contains(Flags::PING_SENT);
        lends && self.io().is_some_and(|io| io.lends_records(message.len()))
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "the signature is that with the feature")]
    const fn lends_records(&self, _: Message<'_>) -> bool {
        false
    }

    /// Sends what was lent.
    pub(crate) fn end_lending(&mut self, lender: Option<Range<usize>>, message: Message<'_>) {
        let Some(lender) = lender else { return };
        let Cx { current, inner, .. } = &mut self.cx;
        inner.out.lender = lender;
        if let (Some(current), false) = (current, inner.out.lent.is_empty()) {
            let io = current.io.as_deref_mut();
            current
                .send
                .flush_lent(&mut inner.out, io, message.as_bytes());
        }
    }
}

/// From which length on a copy costs more than a write of its own: what is not copied leaves before
/// the next message is assembled.
const LEND_ASSEMBLED_FROM: usize = 32 * 1024;
