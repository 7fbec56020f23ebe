//! What was received, to the callbacks that it is for.

use std::ops::ControlFlow;

use super::Protocol;
use crate::conn::{Flags, Phase};
use crate::ws::Message;
use crate::ws::recv::{Feed, Item, Take, give_front};
use crate::wsi::Wsi;

/// Gives the next item, whatever it is. Whether there was one, and another may follow.
#[inline(never)]
pub(super) fn give_next<P: Protocol>(
    protocol: &mut P,
    wsi: &mut Wsi<'_>,
    session: &mut P::Session,
    feed: &mut Feed<'_>,
) -> bool {
    let open = wsi.send_half().phase == Phase::Open;
    let done = match feed.next() {
        Ok(None) => return false,
        Ok(Some(Item::Message(message))) if open => {
            wsi.message_ended();
            let lender = wsi.lend(message);
            let done = protocol.on_message(wsi, session, message);
            wsi.end_lending(lender, message);
            done
        }
        Ok(Some(Item::Chunk(chunk))) if open => {
            if chunk.last {
                wsi.message_ended();
            }
            protocol.on_chunk(wsi, session, chunk)
        }
        Ok(Some(Item::Ping(payload))) => {
            wsi.answer_ping(payload);
            Ok(())
        }
        Ok(Some(Item::Pong(payload))) if open => {
            let round_trip = wsi.match_pong(payload);
            protocol.on_pong(wsi, session, payload, round_trip)
        }
        Ok(Some(Item::Close(frame))) => {
            if wsi.peer_closed(frame) {
                protocol.on_peer_close(wsi, session, frame);
            }
            Ok(())
        }
        Ok(Some(_)) => Ok(()),
        Err(error) => {
            wsi.fail(error);
            return false;
        }
    };
    if let Err(close) = done {
        wsi.close(close);
    }
    if wsi.send_half().phase == Phase::CloseDone && !feed.is_at_end() {
        wsi.peer_talks_on();
    }
    if open && wsi.send_half().phase != Phase::Open {
        feed.discard_data();
    }
    true
}

/// The shortest path, of a calm visit of a server's connection: gives the messages that lie whole at
/// the front, until it is not calm any more: that is a break. How many bytes are left.
#[inline(always)]
pub(super) fn give_calmly<P: Protocol>(
    protocol: &mut P,
    wsi: &mut Wsi<'_>,
    session: &mut P::Session,
    input: &mut [u8],
) -> ControlFlow<usize, usize> {
    let longest = wsi.send_half().settings.short_way;
    let to = Calmly {
        protocol,
        wsi,
        session,
    };
    give_front(input, longest, to)
}

/// Who gets the messages of a calm visit. (A closure could not be told to be inlined in both places
/// that have such visits.)
struct Calmly<'m, 'w, P: Protocol> {
    protocol: &'m mut P,
    wsi: &'m mut Wsi<'w>,
    session: &'m mut P::Session,
}

impl<P: Protocol> Take for Calmly<'_, '_, P> {
    #[inline(always)]
    fn take(&mut self, message: Message<'_>) -> ControlFlow<()> {
        let done = self.protocol.on_message(self.wsi, self.session, message);
        if let Err(close) = done {
            self.wsi.close(close);
        }
        if self.wsi.send_half().flags == Flags::CALM_VISIT {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// The fast path of an open connection: gives the messages that lie whole at the front of what
/// was received. Whether it is still open, and reading, when that was all.
#[inline]
pub(super) fn give_whole<P: Protocol>(
    protocol: &mut P,
    wsi: &mut Wsi<'_>,
    session: &mut P::Session,
    feed: &mut Feed<'_>,
) -> bool {
    let mut goes_on = true;
    let given = feed.each_whole(|message| {
        wsi.message_ended();
        if let Err(close) = protocol.on_message(wsi, session, message) {
            wsi.close(close);
        }
        goes_on = wsi.send_half().is_giving();
        if goes_on {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    if let Err(error) = given {
        wsi.fail(error);
        goes_on = false;
    }
    if !goes_on && wsi.send_half().phase != Phase::Open {
        feed.discard_data();
    }
    goes_on
}
