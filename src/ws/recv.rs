//! The receiving state machine: bytes in, messages and control frames out.

mod assembly;
mod direct;
#[cfg(feature = "deflate")]
mod inflated;
#[cfg(not(feature = "deflate"))]
#[path = "recv/inflated_none.rs"]
mod inflated;
mod limits;
mod whole;

use std::fmt;
use std::mem;

use self::assembly::Assembly;
#[cfg(not(feature = "deflate"))]
use self::inflated::compressed_bound;
pub use self::limits::{RecvLimits, RecvPool};
pub(crate) use self::whole::{Take, give_front, has_front};
use super::close::{CloseFrame, MAX_PAYLOAD_LEN};
use super::error::ProtocolError;
use super::frame::{FrameHeader, Opcode};
use super::utf8::{self, Utf8};
use super::{Chunk, Message, MessageKind, Side, mask};
#[cfg(feature = "deflate")]
use crate::ws::deflate::inflate::{Inflating, compressed_bound};

/// How data messages are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// As they arrive, in [`Item::Chunk`]s; nothing is assembled or kept.
    Chunks,
    /// Whole and valid, in [`Item::Message`]s.
    Messages,
}

/// What the peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A part of a data message ([`Delivery::Chunks`]).
    Chunk(Chunk<'a>),
    /// A Close frame; `None` if it carried no code. It is the last item of the connection.
    Close(Option<CloseFrame<'a>>),
    /// A whole data message ([`Delivery::Messages`]).
    Message(Message<'a>),
    /// A Ping; answer with a Pong of the same payload (RFC 6455 section 5.5.2).
    Ping(&'a [u8]),
    /// A Pong, asked for or not.
    Pong(&'a [u8]),
}

/// The receiving half of a connection.
///
/// It owns no read buffer. While no message is half received it owns nothing on the heap but a
/// small box, and that only once a message or a control frame came in more than one piece.
#[derive(Debug, Default)]
pub struct Recv {
    /// Payload bytes of the current frame that have not arrived.
    remaining: u64,
    /// What the frames of the open message announced so far, in bytes.
    announced: u64,
    /// What few connections need, made when first needed.
    more: Option<Box<More>>,
    /// Only where permessage-deflate was agreed on.
    #[cfg(feature = "deflate")]
    inflating: Option<Box<Inflating>>,
    /// The current frame's mask key, as it applies to the next payload byte.
    key: [u8; 4],
    /// Frames of the open message, if it is fragmented.
    fragments: u32,
    /// The unfinished character of the open text message.
    utf8: Utf8,
    phase: Phase,
    /// The kind of the message that has begun and not ended.
    open: Option<MessageKind>,
    /// Whether the current data frame ends its message.
    fin: bool,
    /// Whether nothing of the open message has been given out or assembled yet.
    untouched: bool,
    /// Whether data is dropped.
    discarding: bool,
    /// Whether the last message was large.
    bulky: bool,
}

/// Where in the stream of frames we are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// After the peer's Close, or after a violation if `More::error` says so.
    Closed,
    /// In the payload of a control frame.
    Control(Control),
    /// In the payload of a data frame of a message of this kind.
    Data(MessageKind),
    /// In the payload of a data frame that is dropped.
    Discard,
    /// Before a header, inside a message or discarding.
    Header,
    /// Before a header, outside any message: what the fast path asks for.
    #[default]
    Idle,
    /// The last item lies in `More`, which is emptied before the next one.
    Lent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Close,
    Ping,
    Pong,
}

#[derive(Debug, Default)]
struct More {
    /// The part of the open message that came before this read.
    assembly: Assembly,
    /// The part of a control frame that came before this read.
    control: Vec<u8>,
    error: Option<ProtocolError>,
}

impl Recv {
    /// Offers received bytes: what the last [`Feed`] left unconsumed, then what came since. The
    /// payloads in `input` are unmasked in place.
    ///
    /// `side`, `delivery` and `limits` must be the same for the whole connection, or at least
    /// between the start and the end of a message. `pool` lends assembly buffers and inflaters; it
    /// is borrowed for as long as the feed lives, so a loop that takes send buffers meanwhile has
    /// two pools.
    #[inline]
    pub fn feed<'a>(
        &'a mut self,
        side: Side,
        delivery: Delivery,
        limits: &'a RecvLimits,
        pool: &'a mut RecvPool,
        input: &'a mut [u8],
    ) -> Feed<'a> {
        let fast_len = limits.frame_bytes.min(limits.message_bytes as u64);
        let fast_len = fast_len.min(u64::from(u16::MAX));
        Feed {
            recv: self,
            input,
            at: 0,
            fast_len,
            side,
            delivery,
            limits,
            pool,
            #[cfg(feature = "deflate")]
            filled: 0,
        }
    }

    /// From now on checks data frames' headers but drops their payloads, unlimited and
    /// unvalidated, and frees what was assembled. Control frames are still given out. For the
    /// time between our Close and the peer's.
    pub fn discard_data(&mut self) {
        self.discarding = true;
        // What is lent outside a message is the assembled message: `release` takes it.
        if self.phase != Phase::Lent || self.open.is_some() {
            self.take_assembly();
        }
        #[cfg(feature = "deflate")]
        if let Some(inflating) = &mut self.inflating {
            inflating.give_up();
        }
        self.phase = match self.phase {
            Phase::Data(_) => Phase::Discard,
            Phase::Idle => Phase::Header,
            other @ (Phase::Closed
            | Phase::Control(_)
            | Phase::Discard
            | Phase::Header
            | Phase::Lent) => other,
        };
    }

    /// Whether a data message has begun and not ended; its deadline runs.
    pub const fn is_inside_message(&self) -> bool {
        self.open.is_some()
    }

    /// Whether nothing has begun that goes on with what comes next, be it a control frame.
    pub(crate) const fn is_between_messages(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Heap memory this connection holds, in bytes.
    pub fn memory(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| {
            size_of::<More>() + more.assembly.capacity() + more.control.capacity()
        });
        more + self.inflating_memory()
    }

    /// The phase between two frames.
    fn between_frames(&self) -> Phase {
        if self.open.is_none() && !self.discarding {
            Phase::Idle
        } else {
            Phase::Header
        }
    }

    #[cold]
    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        self.phase = Phase::Closed;
        self.open = None;
        #[cfg(feature = "deflate")]
        if let Some(inflating) = &mut self.inflating {
            inflating.give_up();
        }
        self.more = Some(Box::new(More {
            error: Some(error),
            ..More::default()
        }));
        error
    }

    /// Opens or continues a message with a data frame; `kind` is `None` for a continuation.
    fn begin_data(
        &mut self,
        header: &FrameHeader,
        kind: Option<MessageKind>,
        limits: &RecvLimits,
    ) -> Result<Phase, ProtocolError> {
        let kind = match (self.open, kind) {
            (Some(open), None) => open,
            (None, Some(kind)) => {
                self.begin_message(kind);
                kind
            }
            // Section 5.4: the frames of a message are one with an opcode other than 0, then
            // continuations; "The fragments of one message MUST NOT be interleaved between the
            // fragments of another message".
            (None, None) => return Err(ProtocolError::ContinuationWithoutStart),
            (Some(_), Some(_)) => return Err(ProtocolError::DataInsideMessage),
        };
        self.fin = header.fin;
        if self.discarding {
            return Ok(Phase::Discard);
        }
        self.count_frame(header, limits)?;
        Ok(Phase::Data(kind))
    }

    fn begin_message(&mut self, kind: MessageKind) {
        self.open = Some(kind);
        self.untouched = true;
        self.announced = 0;
        self.fragments = 0;
        self.utf8 = Utf8::new();
    }

    /// Holds a data frame against the limits.
    fn count_frame(
        &mut self,
        header: &FrameHeader,
        limits: &RecvLimits,
    ) -> Result<(), ProtocolError> {
        let limit = limits.frame_bytes;
        let longest = limits.message_bytes as u64;
        // The limit of a message holds for what it inflates to.
        let (most, longest) = if !self.is_inflating() {
            (limit, longest)
        } else if limit < longest {
            (limit, compressed_bound(longest))
        } else {
            (compressed_bound(limit), compressed_bound(longest))
        };
        if header.len > most && limits.message_bytes as u64 <= limit {
            // The limit that it is refused by is that of messages.
            return Err(ProtocolError::MessageTooLarge {
                limit: limits.message_bytes,
            });
        }
        if header.len > most {
            return Err(ProtocolError::FrameTooLarge {
                len: header.len,
                limit,
            });
        }
        self.announced = self.announced.saturating_add(header.len);
        if self.announced > longest {
            return Err(ProtocolError::MessageTooLarge {
                limit: limits.message_bytes,
            });
        }
        if self.fragments > 0 || !header.fin {
            self.fragments = self.fragments.saturating_add(1);
        }
        if self.fragments > limits.fragments {
            return Err(ProtocolError::TooManyFragments {
                limit: limits.fragments,
            });
        }
        Ok(())
    }

    /// Leaves a data frame, and its message if it was the last one.
    fn end_frame(&mut self) {
        if self.fin {
            self.open = None;
        }
        self.phase = self.between_frames();
    }

    /// Takes out the buffer of the message that is or was being assembled.
    fn take_assembly(&mut self) -> Vec<u8> {
        let assembly = self.more.as_mut().map(|more| mem::take(&mut more.assembly));
        assembly.unwrap_or_default().into_buffer()
    }

    /// Moves a piece of a control frame's payload out of the read buffer.
    fn keep_control(&mut self, piece: &[u8]) {
        let more = self.more.get_or_insert_default();
        if more.control.is_empty() {
            more.control.reserve_exact(MAX_PAYLOAD_LEN);
        }
        more.control.extend_from_slice(piece);
    }

    fn kept_control(&self) -> &[u8] {
        self.more.as_ref().map_or(&[], |more| &more.control)
    }
}

/// An iterator over the items in one piece of input. See [`Recv::feed`].
pub struct Feed<'a> {
    recv: &'a mut Recv,
    input: &'a mut [u8],
    at: usize,
    /// The longest payload that the fast paths may accept.
    fast_len: u64,
    side: Side,
    delivery: Delivery,
    limits: &'a RecvLimits,
    pool: &'a mut RecvPool,
    /// How much of the open message lies in the inflaters' buffer.
    #[cfg(feature = "deflate")]
    filled: usize,
}

impl Feed<'_> {
    /// The next item, or `None` when there is none until more bytes arrive. Then all input is
    /// consumed but for the incomplete header of a frame, if there is one; the caller keeps those
    /// bytes (fewer than [`MAX_HEADER_LEN`](super::MAX_HEADER_LEN)) and offers them again, in
    /// front of the next ones.
    ///
    /// After a Close frame there are no more items, and all further bytes are consumed unread.
    ///
    /// # Errors
    ///
    /// What the peer did wrong. The same error is returned from then on.
    #[expect(
        clippy::should_implement_trait,
        reason = "the items borrow from the iterator"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ProtocolError> {
        match self.small_frame() {
            Some((kind, start, end)) => self.give_whole(kind, start, end).map(Some),
            None if self.is_drained() => Ok(None),
            None => self.next_slow(),
        }
    }

    /// How many bytes of the input are done. The rest must be offered again. After an error or a
    /// Close all are.
    #[inline]
    pub fn consumed(&self) -> usize {
        if self.recv.phase == Phase::Closed {
            return self.input.len();
        }
        self.at
    }

    /// Whether nothing lies behind the latest item.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.at >= self.input.len()
    }

    /// Ends the feed, early or not, and gives [`consumed`](Self::consumed).
    #[inline]
    pub fn finish(self) -> usize {
        self.consumed()
    }

    /// See [`Recv::discard_data`].
    pub fn discard_data(&mut self) {
        #[cfg(feature = "deflate")]
        self.return_inflater();
        self.recv.discard_data();
    }

    /// The fast path: an unfragmented frame of at most 125 bytes, all of it here, outside any
    /// message. Unmasks it and gives its place. Anything else, and anything wrong, is left alone.
    #[inline]
    fn small_frame(&mut self) -> Option<(MessageKind, usize, usize)> {
        if self.recv.phase != Phase::Idle {
            return None;
        }
        let (&mut [first, second], rest) =
            self.input.get_mut(self.at..)?.split_first_chunk_mut()?;
        let kind = match first {
            0x81 => MessageKind::Text,
            0x82 => MessageKind::Binary,
            _ => return None,
        };
        let len = match self.side {
            Side::Client => second,
            Side::Server => second ^ 0x80,
        };
        if len > MAX_SHORT || u64::from(len) > self.fast_len {
            return None;
        }
        let len = usize::from(len);
        let start = match self.side {
            Side::Client => {
                rest.get(..len)?;
                self.at + 2
            }
            Side::Server => {
                let (key, payload) = rest.split_first_chunk_mut()?;
                mask::apply(*key, 0, payload.get_mut(..len)?);
                self.at + 6
            }
        };
        self.at = start + len;
        Some((kind, start, self.at))
    }

    /// Whether there is nothing to do, as at the end of nearly every read.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.recv.phase == Phase::Idle && self.at == self.input.len()
    }

    #[cold]
    #[inline(never)]
    fn next_slow(&mut self) -> Result<Option<Item<'_>>, ProtocolError> {
        match self.step() {
            Ok(step) => self.give(step),
            Err(error) => Err(self.recv.fail(error)),
        }
    }

    /// Advances to the next item and says where it lies. (Returning the item itself from inside
    /// the loop would keep `self` borrowed for its other turns.)
    fn step(&mut self) -> Result<Step, ProtocolError> {
        loop {
            let step = match self.recv.phase {
                Phase::Closed => match self.recv.more.as_ref().and_then(|more| more.error) {
                    Some(error) => return Err(error),
                    None => Some(Step::Starve),
                },
                Phase::Control(control) => Some(self.control(control)?),
                Phase::Data(kind) => self.data(kind)?,
                Phase::Discard => self.discard(),
                Phase::Header | Phase::Idle => self.header()?,
                Phase::Lent => {
                    self.release();
                    None
                }
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Reads a frame's header and decides what its payload is for.
    fn header(&mut self) -> Result<Option<Step>, ProtocolError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some((header, header_len)) = FrameHeader::decode(rest)? else {
            return Ok(Some(Step::Starve));
        };
        if header.rsv1 && !self.begin_compressed(&header)? {
            return Ok(Some(Step::Starve));
        }
        self.at += header_len;
        // Section 5.1: "a client MUST mask all frames that it sends to the server"; "A server
        // MUST NOT mask any frames that it sends to the client."
        match (self.side, header.mask) {
            (Side::Server, Some(key)) => self.recv.key = key,
            (Side::Client, None) => {}
            (Side::Server, None) => return Err(ProtocolError::UnmaskedByClient),
            (Side::Client, Some(_)) => return Err(ProtocolError::MaskedByServer),
        }
        let phase = match header.opcode {
            Opcode::Close => Phase::Control(Control::Close),
            Opcode::Ping => Phase::Control(Control::Ping),
            Opcode::Pong => Phase::Control(Control::Pong),
            Opcode::Continuation => self.recv.begin_data(&header, None, self.limits)?,
            Opcode::Text => self
                .recv
                .begin_data(&header, Some(MessageKind::Text), self.limits)?,
            Opcode::Binary => {
                self.recv
                    .begin_data(&header, Some(MessageKind::Binary), self.limits)?
            }
        };
        self.recv.phase = phase;
        self.recv.remaining = header.len;
        Ok(None)
    }

    /// Takes what is here of a control frame's payload; gives it once it is whole.
    fn control(&mut self, control: Control) -> Result<Step, ProtocolError> {
        let (start, end) = self.take_payload();
        self.unmask(start, end);
        let piece = self.input.get(start..end).unwrap_or_default();
        let whole = self.recv.remaining == 0;
        let kept = !self.recv.kept_control().is_empty();
        if (kept || !whole) && !piece.is_empty() {
            self.recv.keep_control(piece);
        }
        if !whole {
            return Ok(Step::Starve);
        }
        if control == Control::Close {
            CloseFrame::parse(if kept {
                self.recv.kept_control()
            } else {
                piece
            })?;
            self.recv.phase = Phase::Closed;
            self.recv.open = None;
            self.pool.buffers.put(self.recv.take_assembly());
        } else if kept {
            self.recv.phase = Phase::Lent;
        } else {
            self.recv.phase = self.recv.between_frames();
        }
        Ok(if kept {
            Step::KeptControl(control)
        } else {
            Step::Control(control, start, end)
        })
    }

    /// Takes what is here of a data frame's payload.
    fn data(&mut self, kind: MessageKind) -> Result<Option<Step>, ProtocolError> {
        #[cfg(feature = "deflate")]
        if self.recv.is_inflating() {
            return self.inflate(kind);
        }
        let (start, end) = self.take_payload();
        let frame_ends = self.recv.remaining == 0;
        let last = frame_ends && self.recv.fin;
        if frame_ends {
            self.recv.end_frame();
        }
        if start == end && !last {
            // Nothing is here, or the fragment is empty.
            return Ok((!frame_ends).then_some(Step::Starve));
        }
        self.unmask(start, end);
        let first = mem::take(&mut self.recv.untouched);
        match self.delivery {
            Delivery::Chunks => {
                self.check_text(kind, start, end, last)?;
                Ok(Some(Step::Chunk(kind, start, end, first, last)))
            }
            Delivery::Messages if first && last => Ok(Some(Step::Whole(kind, start, end))),
            Delivery::Messages => {
                self.assemble(kind, start, end, first)?;
                if !last {
                    return Ok((!frame_ends).then_some(Step::Starve));
                }
                self.recv.utf8.finish()?;
                self.recv.phase = Phase::Lent;
                Ok(Some(Step::Assembled))
            }
        }
    }

    /// Drops what is here of a data frame's payload.
    fn discard(&mut self) -> Option<Step> {
        self.take_payload();
        if self.recv.remaining > 0 {
            return Some(Step::Starve);
        }
        self.recv.end_frame();
        None
    }

    /// Moves past the payload bytes that are here and gives their place.
    fn take_payload(&mut self) -> (usize, usize) {
        let start = self.at;
        let here = self.input.len() - start;
        let len =
            usize::try_from(self.recv.remaining).map_or(here, |remaining| remaining.min(here));
        self.at += len;
        self.recv.remaining -= len as u64;
        (start, self.at)
    }

    /// Unmasks payload bytes in place and turns the key on by as many.
    fn unmask(&mut self, start: usize, end: usize) {
        if self.side == Side::Server {
            mask::apply(
                self.recv.key,
                0,
                self.input.get_mut(start..end).unwrap_or_default(),
            );
            self.recv.key = mask::rotate(self.recv.key, end - start);
        }
    }

    fn check_text(
        &mut self,
        kind: MessageKind,
        start: usize,
        end: usize,
        last: bool,
    ) -> Result<(), ProtocolError> {
        if kind == MessageKind::Text {
            self.recv
                .utf8
                .check(self.input.get(start..end).unwrap_or_default())?;
        }
        if last {
            self.recv.utf8.finish()
        } else {
            Ok(())
        }
    }

    /// Appends payload bytes to the message that is being assembled.
    fn assemble(
        &mut self,
        kind: MessageKind,
        start: usize,
        end: usize,
        first: bool,
    ) -> Result<(), ProtocolError> {
        let piece = self.input.get(start..end).unwrap_or_default();
        let bound = self.recv.bound(self.limits);
        let more = self.recv.more.get_or_insert_default();
        if first {
            more.assembly = Assembly::new(kind, &mut self.pool.buffers);
        }
        more.assembly.append(piece, bound, &mut self.recv.utf8)
    }

    /// Turns a place into the item that lies there.
    fn give(&mut self, step: Step) -> Result<Option<Item<'_>>, ProtocolError> {
        let item = match step {
            Step::Assembled => match self.recv.more.as_ref().map(|more| &more.assembly) {
                Some(Assembly::Binary(bytes)) => Item::Message(Message::Binary(bytes.as_slice())),
                Some(Assembly::Text(text)) => Item::Message(Message::Text(text)),
                None => return Ok(None),
            },
            Step::Chunk(kind, start, end, first, last) => {
                let data = self.input.get(start..end).unwrap_or_default();
                let frame_remaining = self.recv.remaining;
                Item::Chunk(Chunk {
                    kind,
                    data,
                    first,
                    last,
                    frame_remaining,
                })
            }
            Step::Control(control, start, end) => {
                give_control(control, self.input.get(start..end).unwrap_or_default())?
            }
            Step::KeptControl(control) => give_control(control, self.recv.kept_control())?,
            #[cfg(feature = "deflate")]
            Step::Inflated(kind, first, last) => {
                return self.give_inflated(kind, first, last).map(Some);
            }
            Step::Starve => return Ok(None),
            Step::Whole(kind, start, end) => self.give_whole(kind, start, end)?,
        };
        Ok(Some(item))
    }

    /// Gives a message that lies whole in the input.
    #[inline]
    fn give_whole(
        &mut self,
        kind: MessageKind,
        start: usize,
        end: usize,
    ) -> Result<Item<'_>, ProtocolError> {
        let data = self.input.get(start..end).unwrap_or_default();
        let message = match kind {
            MessageKind::Binary => Message::Binary(data),
            MessageKind::Text => match utf8::validate(data) {
                Ok(text) => Message::Text(text),
                Err(error) => return Err(self.recv.fail(error)),
            },
        };
        Ok(match self.delivery {
            Delivery::Chunks => Item::Chunk(Chunk {
                kind,
                data,
                first: true,
                last: true,
                frame_remaining: 0,
            }),
            Delivery::Messages => Item::Message(message),
        })
    }

    /// Takes back what the last item lay in.
    #[cold]
    fn release(&mut self) {
        if self.recv.kept_control().is_empty() {
            let assembly = self.recv.more.as_ref().map(|more| &more.assembly);
            self.recv.bulky = assembly.is_some_and(Assembly::is_bulky);
            self.pool.buffers.put(self.recv.take_assembly());
        } else if let Some(more) = self.recv.more.as_mut() {
            more.control = Vec::new();
        }
        self.recv.phase = self.recv.between_frames();
    }
}

impl Drop for Feed<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.recv.phase == Phase::Lent {
            self.release();
        }
    }
}

impl fmt::Debug for Feed<'_> {
    /// Shows the state, not the input.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("recv", &self.recv)
            .field("at", &self.at)
            .field("input_len", &self.input.len())
            .finish_non_exhaustive()
    }
}

/// Where the next item lies; positions are in the input.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The assembled message.
    Assembled,
    /// Kind, start, end, first, last.
    Chunk(MessageKind, usize, usize, bool, bool),
    Control(Control, usize, usize),
    /// Kind, first, last; in the inflaters' buffer.
    #[cfg(feature = "deflate")]
    Inflated(MessageKind, bool, bool),
    /// In `More::control`.
    KeptControl(Control),
    /// There is none until more bytes arrive.
    Starve,
    Whole(MessageKind, usize, usize),
}

/// The longest payload whose length is in the second byte of its frame.
const MAX_SHORT: u8 = 125;

/// Makes the item of a control frame; the payload of a Close has been checked.
fn give_control(control: Control, payload: &[u8]) -> Result<Item<'_>, ProtocolError> {
    Ok(match control {
        Control::Close => Item::Close(CloseFrame::parse(payload)?),
        Control::Ping => Item::Ping(payload),
        Control::Pong => Item::Pong(payload),
    })
}

#[cfg(test)]
mod tests;
