//! Reading large messages: not through the receive buffer but to where they are assembled.

use super::Lift;
use crate::conn::{Conn, Role, SendHalf, Stash};

impl Lift<'_> {
    /// Reads once: to where a message is assembled, if much of it is to come, and to `room` what
    /// does not belong there. How many bytes came to each, to the former not more than `budget`.
    pub(super) fn read_to_place(&mut self, room: &mut [u8], budget: usize) -> (usize, usize) {
        let Conn {
            io,
            role,
            send,
            stash,
        } = &mut *self.conn;
        let Some(io) = io else { return (0, 0) };
        let is_secure = io.secure.is_some();
        if !is_secure {
            let place = place_of_payload(role, send, stash, budget);
            if !place.is_empty() {
                let n = io.read_vectored(place, front(room, BEHIND));
                let direct = n.min(place.len());
                if let Role::Ws(ws) = role {
                    ws.recv.filled(send.side, direct);
                }
                return (direct, n - direct);
            }
        }
        let Role::Ws(ws) = role else {
            return (0, io.read(room));
        };
        let n = match (ws.recv.expects_bulk(DIRECT_FROM), is_secure) {
            (false, _) => io.read(room),
            (true, false) => io.read(front(room, FIRST)),
            (true, true) => io.read(front(room, FIRST_RECORD)),
        };
        if n > 0 {
            ws.recv.forget_bulk();
        }
        (0, n)
    }

    /// Whether the next message is likely to be worth reading to its place, which a calm visit does
    /// not do.
    pub(super) fn was_bulky(&self) -> bool {
        matches!(&self.conn.role, Role::Ws(ws) if ws.recv.was_bulky())
    }
}

/// Where up to `most` bytes of what comes next belong, if they are payload of a large message that
/// is being assembled.
pub(crate) fn place_of_payload<'r>(
    role: &'r mut Role,
    send: &SendHalf,
    stash: &Stash,
    most: usize,
) -> &'r mut [u8] {
    match role {
        // What was put aside comes first, and what comes to one that closes is not kept.
        Role::Ws(ws) if send.is_giving() && matches!(stash, Stash::Empty) => {
            ws.recv.room(&send.settings.recv, DIRECT_FROM, most)
        }
        _ => &mut [],
    }
}

fn front(room: &mut [u8], len: usize) -> &mut [u8] {
    let len = len.min(room.len());
    room.get_mut(..len).unwrap_or_default()
}

/// Payload that is to come for which the way to its place is worth it.
const DIRECT_FROM: usize = 32 * 1024;
/// What is read together with a payload and is behind it.
const BEHIND: usize = 16 * 1024;
/// What is read of a message that is likely to be large.
const FIRST: usize = 16 * 1024;
/// The same in a record of TLS 1.3 (RFC 8446 section 5.2): its header, and the type and the tag
/// that are encrypted with its data.
const FIRST_RECORD: usize = 5 + FIRST + 1 + 16;
