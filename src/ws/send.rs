//! The sending half: frames into a queue of bytes, and the queue to whoever writes it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::pool::BufferPool;
use crate::ws::frame::{FrameHeader, Opcode};
use crate::ws::{MessageKind, mask};

/// Bytes that wait for the socket, in order.
///
/// Small payloads are copied behind each other and leave together; a large shared payload keeps
/// its place by reference. An empty queue owns nothing: the box is the pool's, which one
/// connection after the other borrows.
#[derive(Debug, Default)]
pub(crate) struct TxQueue {
    held: Option<Box<Held>>,
}

/// What waits in a queue that is not empty.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What goes first; its first `written` bytes are gone already.
    flat: Vec<u8>,
    written: usize,
    /// What follows, once a payload was queued by reference.
    rest: VecDeque<Segment>,
    /// Bytes in `rest`, and those that are lent.
    rest_len: usize,
    /// Bytes that were written through this box, ever.
    gone: u64,
    /// Where, counted as `gone` is, the latest pong and the latest ping end.
    pong_end: u64,
    ping_end: u64,
    /// Bytes of pongs queued since the last time that none was unsent.
    pong_bytes: u32,
    /// Up to which length of `flat` messages may be appended without asking whether they may: see
    /// [`TxQueue::open`]. Nothing in a queue that nobody has opened.
    open_to: usize,
}

/// A payload in somebody else's buffer, in a queue's order.
#[derive(Debug)]
pub(crate) struct Lent {
    /// What of the bytes that lie together comes first.
    behind: usize,
    place: Range<usize>,
}

#[derive(Debug)]
enum Segment {
    Flat(Vec<u8>),
    Shared(Bytes),
}

impl TxQueue {
    /// Bytes that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.len())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the account is right while nobody works on the connection: nothing is lent. See
    /// `Context::check_invariants`.
    #[cfg(feature = "sim")]
    pub(crate) fn is_sound(&self) -> bool {
        self.held.as_deref().is_none_or(Held::is_sound)
    }

    /// Heap bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.memory())
    }

    /// A pong of that many bytes, with its header, is the last that was queued.
    pub(crate) fn note_pong(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            let before = if held.pong_end > held.gone {
                held.pong_bytes
            } else {
                0
            };
            held.pong_bytes = before.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
            held.pong_end = held.end();
        }
    }

    /// Bytes of pongs queued since the last time that none was unsent; 0 if none is.
    pub(crate) fn pong_bytes(&self) -> usize {
        let held = self.held.as_ref();
        let unsent = held.filter(|held| held.pong_end > held.gone);
        unsent.map_or(0, |held| held.pong_bytes as usize)
    }

    /// A ping is the last that was queued.
    pub(crate) fn note_ping(&mut self) {
        if let Some(held) = &mut self.held {
            held.ping_end = held.end();
        }
    }

    /// Whether a ping is among what waits.
    pub(crate) fn holds_ping(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.ping_end > held.gone)
    }

    /// Appends bytes through `write`.
    pub(crate) fn append(&mut self, pool: &mut BufferPool, write: impl FnOnce(&mut Vec<u8>)) {
        self.hold(pool).append(pool, write);
        if self.is_empty() {
            self.give_back(pool);
        }
    }

    fn hold(&mut self, pool: &mut BufferPool) -> &mut Held {
        self.held.get_or_insert_with(|| pool.take_queue())
    }

    /// Messages of up to [`LEND_FROM`] bytes may be sent, as all of these: by a server, now, by
    /// whoever will flush them. [`TxQueue::append_open`] takes them as long as not more than
    /// `limit` bytes wait, for as long as the caller knows that nothing else is queued. Whether
    /// that can be.
    #[inline(always)]
    pub(crate) fn open(&mut self, pool: &mut BufferPool, limit: usize) -> bool {
        let held = self.held.get_or_insert_with(|| pool.take_queue());
        // What is lent waits, too.
        let room = limit.saturating_sub(held.rest_len);
        held.open_to = room.saturating_add(held.written).min(held.flat.capacity());
        held.rest.is_empty() && limit > 0
    }

    /// The same for a queue that owns nothing yet.
    #[inline(always)]
    pub(crate) fn open_calmly(&mut self, pool: &mut BufferPool, limit: usize) {
        pool.lend_queue(&mut self.held).open_to = limit;
    }

    /// The same with a queue that the caller has, if it has one, and takes back by
    /// [`TxQueue::exchange`].
    #[inline(always)]
    pub(crate) fn open_lent(
        &mut self,
        lent: &mut Option<Box<Held>>,
        pool: &mut BufferPool,
        limit: usize,
    ) {
        debug_assert!(self.held.is_none(), "an empty queue owns nothing");
        self.exchange(lent);
        let held = self.held.get_or_insert_with(|| pool.take_queue());
        held.open_to = limit;
    }

    /// Gives all that it holds in exchange for what the caller has.
    #[inline(always)]
    pub(crate) fn exchange(&mut self, lent: &mut Option<Box<Held>>) {
        std::mem::swap(&mut self.held, lent);
    }

    /// Whether all that waits lies together, and nothing of it has been written.
    #[inline]
    pub(crate) fn is_flat(&self) -> bool {
        let held = self.held.as_deref();
        held.is_none_or(|held| held.rest_len == 0 && held.written == 0)
    }

    /// What lies in a queue that was opened calmly, and to which nothing was appended but by
    /// [`TxQueue::append_open`].
    #[inline(always)]
    pub(crate) fn opened(&self) -> &[u8] {
        self.held.as_deref().map_or(&[], Held::opened)
    }

    /// Gives it back when all that it held has been written, if there was anything. What was
    /// counted in a queue before has left it before, so nothing need be counted here.
    #[inline(always)]
    pub(crate) fn close(&mut self, pool: &mut BufferPool) {
        if let Some(held) = &mut self.held {
            held.flat.clear();
            pool.take_lent_queue(&mut self.held);
        }
    }

    /// Appends a whole frame without a mask to an open queue, if it is not long and there is room.
    /// Gives how much waits then.
    #[inline(always)]
    pub(crate) fn append_open(&mut self, opcode: Opcode, payload: &[u8]) -> Option<usize> {
        let held = self.held.as_mut()?;
        let flat = &mut held.flat;
        let first = FIN | opcode.bits();
        let halves = (payload.first_chunk(), payload.last_chunk());
        match payload.len() {
            len @ HALF..=HALVES if flat.len() + (len + 2) <= held.open_to => {
                let short = u8::try_from(len).unwrap_or_default();
                append_halves(flat, [first, short], halves.0?, halves.1?);
                return Some(flat.len() - held.written + held.rest_len);
            }
            len @ 0..=MAX_SHORT if flat.len() + (len + 2) <= held.open_to => {
                let short = u8::try_from(len).unwrap_or_default();
                flat.extend_from_slice(&[first, short]);
            }
            len @ SHORTEST_MEDIUM..LEND_FROM if flat.len() + (len + 4) <= held.open_to => {
                let [high, low] = u16::try_from(len).unwrap_or_default().to_be_bytes();
                flat.extend_from_slice(&[first, 126, high, low]);
            }
            _ => return None,
        }
        flat.extend_from_slice(payload);
        Some(flat.len() - held.written + held.rest_len)
    }

    /// Appends a whole frame of a server, encoded, to an open queue, if there is room. Gives how
    /// much waits then.
    #[inline]
    pub(crate) fn append_encoded(&mut self, frame: &[u8]) -> Option<usize> {
        let held = self.held.as_mut()?;
        let flat = &mut held.flat;
        if frame.len() >= SHARE_FROM || flat.len() + frame.len() > held.open_to {
            return None;
        }
        flat.extend_from_slice(frame);
        Some(flat.len() - held.written + held.rest_len)
    }

    /// If what waits ends with a payload that was lent from `lender`, the only one, and there is
    /// room in front of it for its header and what else comes before it: puts that there and gives
    /// the place of it all.
    pub(crate) fn frame_in_place(&self, lent: &[Lent], lender: &mut [u8]) -> Option<Range<usize>> {
        let held = self.held.as_ref()?;
        let [Lent { behind, place }] = lent else {
            return None;
        };
        let header = held.flat.as_slice();
        if held.written > 0 || header.len() != *behind || held.rest_len != place.len() {
            return None;
        }
        let start = place.start.checked_sub(header.len())?;
        lender.get_mut(start..place.start)?.copy_from_slice(header);
        Some(start..place.end)
    }

    /// Of the frame that lies in place `n` bytes were written and `rest` was not; nothing is lent
    /// any more.
    pub(crate) fn wrote_in_place(&mut self, n: usize, rest: &[u8], pool: &mut BufferPool) {
        if let Some(held) = &mut self.held {
            held.flat.clear();
            held.flat.extend_from_slice(rest);
            held.rest_len = 0;
            held.gone += n as u64;
            if rest.is_empty() {
                self.give_back(pool);
            }
        }
    }

    /// Appends bytes that are owned elsewhere: by reference if that is worth it.
    pub(crate) fn append_shared(&mut self, pool: &mut BufferPool, bytes: Bytes) {
        if bytes.len() < SHARE_FROM {
            return self.append(pool, |tail| tail.extend_from_slice(&bytes));
        }
        let held = self.hold(pool);
        // What comes now belongs behind it.
        held.open_to = 0;
        held.rest_len += bytes.len();
        held.rest.push_back(Segment::Shared(bytes));
    }

    /// Appends a frame whose payload lies in a buffer that stays as it is until
    /// [`TxQueue::write_lent`], which is soon: `len` bytes from `start` on. Whether that can be.
    pub(crate) fn append_lent(
        &mut self,
        pool: &mut BufferPool,
        lent: &mut Vec<Lent>,
        opcode: Opcode,
        place: Range<usize>,
    ) -> bool {
        let held = self.hold(pool);
        if !held.rest.is_empty() {
            return false;
        }
        let mut header = [0; FrameHeader::MAX_LEN];
        let (fin, coding) = (Fin::Last, Coding::Plain);
        let used = encode_header(&mut header, fin, opcode, coding, None, place.len());
        let header = header.get(..used).unwrap_or_default();
        held.append(pool, |tail| tail.extend_from_slice(header));
        held.rest_len += place.len();
        held.open_to = held.open_to.saturating_sub(place.len());
        let behind = held.flat.len();
        lent.push(Lent { behind, place });
        true
    }

    /// Writes what lies together and what `lender` lent to go between, and takes into the queue
    /// what was not written. `write` says how much it took, and `None` if that is all for now.
    pub(crate) fn write_lent(
        &mut self,
        pool: &mut BufferPool,
        lent: &mut Vec<Lent>,
        lender: &[u8],
        write: impl FnMut(&[IoSlice<'_>]) -> Option<usize>,
    ) {
        if let Some(held) = &mut self.held {
            held.write_lent(pool, lent, lender, write);
        }
        lent.clear();
        if self.is_empty() {
            self.give_back(pool);
        }
    }

    /// The front of the queue as slices for one write; how many were filled in.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let Some(held) = &self.held else { return 0 };
        let flat = held.flat.get(held.written..).unwrap_or_default();
        let parts = std::iter::once(flat).chain(held.rest.iter().map(Segment::as_slice));
        let mut filled = 0;
        for (slot, part) in out.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    /// Whether everything lies in one slice.
    #[inline]
    pub(crate) fn as_single(&self) -> Option<&[u8]> {
        let Some(held) = &self.held else {
            return Some(&[]);
        };
        if held.rest_len == 0 {
            held.flat.get(held.written..)
        } else {
            None
        }
    }

    /// The first bytes that wait, as far as they lie together.
    #[cfg(feature = "tls")]
    pub(crate) fn front(&self) -> &[u8] {
        let Some(held) = &self.held else { return &[] };
        match held.flat.get(held.written..) {
            Some(flat @ [_, ..]) => flat,
            _ => {
                let mut parts = held.rest.iter().map(Segment::as_slice);
                parts.find(|part| !part.is_empty()).unwrap_or_default()
            }
        }
    }

    /// Drops `n` bytes that were written; an emptied queue gives its memory back.
    #[inline]
    pub(crate) fn advance(&mut self, n: usize, pool: &mut BufferPool) {
        debug_assert!(n <= self.len(), "cannot write more than there is");
        if let Some(held) = &mut self.held {
            held.gone += n as u64;
            if n == held.len() {
                self.give_back(pool);
            } else {
                held.drop_front(n, pool);
            }
        }
    }

    /// All that [`TxQueue::as_single`] gave has been written.
    #[inline(always)]
    pub(crate) fn wrote_all(&mut self, pool: &mut BufferPool) {
        if let Some(mut held) = self.held.take() {
            held.gone += (held.flat.len() - held.written) as u64;
            held.flat.clear();
            held.written = 0;
            held.open_to = 0;
            pool.put_queue(held);
        }
    }

    /// Gives the memory of an empty queue back, or of one that nobody wants.
    #[inline]
    pub(crate) fn give_back(&mut self, pool: &mut BufferPool) {
        if let Some(mut held) = self.held.take() {
            held.flat.clear();
            held.written = 0;
            held.rest_len = 0;
            held.open_to = 0;
            pool.put_queue(held);
        }
    }

    /// Drops everything; how many bytes that were.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) -> usize {
        let dropped = self.len();
        if let Some(held) = &mut self.held {
            held.gone = held.end();
            held.rest.clear();
        }
        self.give_back(pool);
        dropped
    }
}

impl Held {
    /// A queue over that buffer.
    pub(crate) fn over(flat: Vec<u8>) -> Self {
        Self {
            flat,
            ..Self::default()
        }
    }

    /// The buffer, which the caller may exchange for another empty one.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.flat
    }

    /// The buffer's.
    #[cfg(feature = "sim")]
    pub(crate) fn capacity(&self) -> usize {
        self.flat.capacity()
    }

    /// What lies in a queue that was opened calmly.
    #[inline(always)]
    pub(crate) fn opened(&self) -> &[u8] {
        debug_assert!(self.written == 0 && self.rest_len == 0, "it is flat");
        &self.flat
    }

    /// All of that has been written. It is still open.
    #[inline(always)]
    pub(crate) fn empty(&mut self) {
        self.flat.clear();
    }

    /// Nobody may append to it any more without asking.
    pub(crate) const fn shut(&mut self) {
        self.open_to = 0;
    }

    /// Whether it owns more than the buffer.
    #[inline]
    pub(crate) fn is_bulky(&self) -> bool {
        self.rest.capacity() > 0
    }

    /// Owns nothing but the buffer from now on.
    pub(crate) fn slim(&mut self) {
        self.rest = VecDeque::new();
    }

    fn len(&self) -> usize {
        self.flat.len() - self.written + self.rest_len
    }

    #[cfg(feature = "sim")]
    fn is_sound(&self) -> bool {
        let rest: usize = self.rest.iter().map(|it| it.as_slice().len()).sum();
        rest == self.rest_len && self.written <= self.flat.len() && self.len() > 0
    }

    /// How many bytes will have been written when all that waits now has been.
    fn end(&self) -> u64 {
        self.gone + self.len() as u64
    }

    fn memory(&self) -> usize {
        let held: usize = self.rest.iter().map(Segment::capacity).sum();
        let rest = held + self.rest.capacity() * size_of::<Segment>();
        size_of::<Self>() + self.flat.capacity() + rest
    }

    fn append(&mut self, pool: &mut BufferPool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.rest.is_empty() {
            if self.flat.capacity() == 0 {
                self.flat = pool.take_roomy();
            } else if self.written >= COMPACT_AT && self.written * 2 >= self.flat.len() {
                self.flat.drain(..self.written);
                self.written = 0;
                self.open_to = 0;
            }
            write(&mut self.flat);
            return;
        }
        if !matches!(self.rest.back(), Some(Segment::Flat(_))) {
            self.rest.push_back(Segment::Flat(pool.take()));
        }
        if let Some(Segment::Flat(tail)) = self.rest.back_mut() {
            let before = tail.len();
            write(tail);
            self.rest_len += tail.len() - before;
        }
    }

    fn write_lent(
        &mut self,
        pool: &mut BufferPool,
        lent: &[Lent],
        lender: &[u8],
        mut write: impl FnMut(&[IoSlice<'_>]) -> Option<usize>,
    ) {
        let lent_len = lent.iter().map(|lent| lent.place.len()).sum::<usize>();
        let waiting = self.flat.len() - self.written + lent_len;
        let mut done = 0;
        while done < waiting {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (filled, offered) = self.fill(done, lent, lender, &mut slices);
            match write(slices.get(..filled).unwrap_or_default()) {
                Some(n) if n == offered && n > 0 => done += n,
                Some(n) => {
                    done += n;
                    break;
                }
                None => break,
            }
        }
        if done < waiting {
            let mut flat = pool.take();
            let mut copied = done;
            while copied < waiting {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let (_, offered) = self.fill(copied, lent, lender, &mut slices);
                slices.iter().for_each(|part| flat.extend_from_slice(part));
                copied += offered;
            }
            pool.put(std::mem::replace(&mut self.flat, flat));
        } else {
            self.flat.clear();
        }
        self.written = 0;
        // It counted from what had been written.
        self.shut();
        self.gone += done as u64;
        self.rest_len -= lent_len;
    }

    /// What lies together and what was lent, in order, without the first `done` bytes, as slices
    /// for one write: how many were filled in, and how many bytes they are.
    fn fill<'a>(
        &'a self,
        mut done: usize,
        lent: &[Lent],
        lender: &'a [u8],
        slices: &mut [IoSlice<'a>],
    ) -> (usize, usize) {
        let mut slots = slices.iter_mut();
        let (mut filled, mut offered) = (0, 0);
        let mut add = |part: &'a [u8]| {
            let skipped = done.min(part.len());
            done -= skipped;
            let left = part.get(skipped..).unwrap_or_default();
            if !left.is_empty() {
                if let Some(slot) = slots.next() {
                    *slot = IoSlice::new(left);
                    filled += 1;
                    offered += left.len();
                }
            }
        };
        let mut begin = self.written;
        for Lent { behind, place } in lent {
            add(self.flat.get(begin..*behind).unwrap_or_default());
            add(lender.get(place.clone()).unwrap_or_default());
            begin = *behind;
        }
        add(self.flat.get(begin..).unwrap_or_default());
        (filled, offered)
    }

    fn drop_front(&mut self, mut n: usize, pool: &mut BufferPool) {
        loop {
            let here = n.min(self.flat.len() - self.written);
            self.written += here;
            n -= here;
            if self.written < self.flat.len() {
                return;
            }
            pool.put(std::mem::take(&mut self.flat));
            self.written = 0;
            if !self.pull_rest(&mut n) {
                return;
            }
        }
    }

    /// Moves the front of `rest` to where it is written from; `false` when there is none.
    fn pull_rest(&mut self, n: &mut usize) -> bool {
        match self.rest.pop_front() {
            Some(Segment::Flat(flat)) => {
                self.rest_len -= flat.len();
                self.flat = flat;
            }
            Some(Segment::Shared(mut bytes)) => {
                let here = bytes.len().min(*n);
                self.rest_len -= here;
                *n -= here;
                if here < bytes.len() {
                    bytes::Buf::advance(&mut bytes, here);
                    self.rest.push_front(Segment::Shared(bytes));
                    return false;
                }
            }
            None => return false,
        }
        true
    }
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Flat(flat) => flat,
            Self::Shared(bytes) => bytes,
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Flat(flat) => flat.capacity(),
            Self::Shared(_) => 0,
        }
    }
}

/// Appends a short header and a payload whose second half ends where it ends, and overlaps the first.
/// Pieces of a known size take no call, and here one question less whether there is room.
#[inline(always)]
fn append_halves(flat: &mut Vec<u8>, header: [u8; 2], head: &[u8; HALF], tail: &[u8; HALF]) {
    let end = flat.len() + header.len() + usize::from(header[1]);
    let mut begin = [0; 2 + HALF];
    begin[..2].copy_from_slice(&header);
    begin[2..].copy_from_slice(head);
    flat.extend_from_slice(&begin);
    flat.truncate(end - HALF);
    flat.extend_from_slice(tail);
}

/// Appends a whole frame. With a `mask` (a client's) the payload is masked on its way.
pub(crate) fn append_frame(
    tail: &mut Vec<u8>,
    fin: Fin,
    opcode: Opcode,
    coding: Coding,
    mask: Option<[u8; 4]>,
    payload: &[u8],
) {
    let mut header = [0; FrameHeader::MAX_LEN];
    let len = encode_header(&mut header, fin, opcode, coding, mask, payload.len());
    tail.extend_from_slice(header.get(..len).unwrap_or_default());
    match mask {
        Some(key) => mask::copy(key, payload, tail),
        None => tail.extend_from_slice(payload),
    }
}

/// Writes a frame header; how long it is.
pub(crate) fn encode_header(
    out: &mut [u8; FrameHeader::MAX_LEN],
    fin: Fin,
    opcode: Opcode,
    coding: Coding,
    mask: Option<[u8; 4]>,
    len: usize,
) -> usize {
    FrameHeader {
        fin: matches!(fin, Fin::Last),
        rsv1: coding != Coding::Plain,
        opcode,
        mask,
        len: len as u64,
    }
    .encode(out)
}

/// The opcode of a message's first frame.
pub(crate) const fn opcode(kind: MessageKind) -> Opcode {
    match kind {
        MessageKind::Binary => Opcode::Binary,
        MessageKind::Text => Opcode::Text,
    }
}

/// Whether a payload is compressed: the RSV1 bit of RFC 7692 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    #[cfg(feature = "deflate")]
    Compressed,
    Plain,
}

/// Whether a fragment ends its message: the FIN bit of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "one bit")]
pub enum Fin {
    /// The message ends with this fragment.
    Last,
    /// More fragments follow.
    More,
}

/// The longest payload whose length is in the second byte of its frame.
const MAX_SHORT: usize = 125;
/// The shortest one whose length is in two bytes more.
const SHORTEST_MEDIUM: usize = MAX_SHORT + 1;
/// From this size on a payload is worth lending: below, a copy is cheaper than another slice.
pub(crate) const LEND_FROM: usize = 4096;
/// Slices of one vectored write.
pub(crate) const SLICES: usize = 64;
/// The least capacity of a buffer for output.
pub(crate) const ROOM: usize = 1024;
/// The bit of a frame that ends its message.
const FIN: u8 = 0x80;
/// What is as long as that, up to twice as long, is copied in two pieces.
const HALF: usize = 16;
const HALVES: usize = 2 * HALF;
/// From this size on a shared payload is queued by reference: below, a copy is cheaper than
/// another slice of a vectored write.
const SHARE_FROM: usize = 4096;
/// Written bytes in front of the queue are moved away from this size on.
const COMPACT_AT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut TxQueue, pool: &mut BufferPool, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = queue.slices(&mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
            let n = step.min(bytes.len());
            out.extend_from_slice(&bytes[..n]);
            queue.advance(n, pool);
        }
        out
    }

    /// An upload of which nothing has come yet appends nothing at every visit.
    #[test]
    fn appending_nothing_leaves_an_empty_queue_without_memory() {
        let mut pool = BufferPool::new(4, 1 << 20);
        let mut queue = TxQueue::default();
        queue.append(&mut pool, |_| {});
        assert_eq!(queue.memory(), 0);
        queue.append(&mut pool, |tail| tail.push(1));
        queue.append(&mut pool, |_| {});
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn io_02_every_write_size_gives_the_same_bytes() {
        let shared = Bytes::from(vec![7_u8; 10_000]);
        let mut want = b"head".to_vec();
        want.extend_from_slice(&shared);
        want.extend_from_slice(b"middle");
        want.extend_from_slice(&shared);
        want.extend_from_slice(&shared);
        want.extend_from_slice(b"tail");
        for step in [1, 2, 3, 4, 5, 1_000, 9_999, 10_000, 10_001, 1 << 20] {
            let mut pool = BufferPool::new(4, 1 << 16);
            let mut queue = TxQueue::default();
            queue.append(&mut pool, |tail| tail.extend_from_slice(b"head"));
            queue.append_shared(&mut pool, shared.clone());
            queue.append(&mut pool, |tail| tail.extend_from_slice(b"middle"));
            queue.append_shared(&mut pool, shared.clone());
            queue.append_shared(&mut pool, shared.clone());
            queue.append_shared(&mut pool, Bytes::from_static(b"tail"));
            assert_eq!(queue.len(), want.len());
            assert_eq!(drain(&mut queue, &mut pool, step), want, "step {step}");
            assert_eq!(queue.memory(), 0, "an empty queue owns nothing");
        }
    }

    #[test]
    fn bytes_appended_between_partial_writes_keep_their_order() {
        let mut pool = BufferPool::new(4, 1 << 16);
        let mut queue = TxQueue::default();
        let mut want = Vec::new();
        let mut got = Vec::new();
        for round in 0..2_000_u32 {
            let piece = round.to_be_bytes().repeat(1 + round as usize % 20);
            want.extend_from_slice(&piece);
            queue.append(&mut pool, |tail| tail.extend_from_slice(&piece));
            let front = queue.as_single().unwrap();
            let n = front.len() * 2 / 3;
            got.extend_from_slice(&front[..n]);
            queue.advance(n, &mut pool);
        }
        got.extend(drain(&mut queue, &mut pool, usize::MAX));
        assert_eq!(got, want);
    }

    #[test]
    fn nothing_is_appended_in_front_of_what_was_queued_by_reference() {
        let mut pool = BufferPool::new(4, 1 << 16);
        let mut queue = TxQueue::default();
        queue.open_calmly(&mut pool, 20_000);
        assert_eq!(queue.append_encoded(b"\x82\x01a"), Some(3));
        assert_eq!(queue.append_open(Opcode::Binary, b"b"), Some(6));
        assert!(queue.is_flat());
        let shared = Bytes::from(vec![7; 5_000]);
        queue.append_shared(&mut pool, shared.clone());
        assert!(!queue.is_flat());
        assert_eq!(queue.append_encoded(b"\x82\x01c"), None);
        assert_eq!(queue.append_open(Opcode::Binary, b"c"), None);
        queue.append(&mut pool, |tail| tail.extend_from_slice(b"\x82\x01c"));
        let want = [b"\x82\x01a\x82\x01b", &shared[..], b"\x82\x01c"].concat();
        assert_eq!(drain(&mut queue, &mut pool, 1_000), want);
    }

    #[test]
    fn an_open_queue_takes_no_more_than_its_limit() {
        let mut pool = BufferPool::new(4, 1 << 16);
        let mut queue = TxQueue::default();
        queue.open_calmly(&mut pool, 5_000);
        assert_eq!(queue.append_open(Opcode::Text, &[b'x'; 2_000]), Some(2_004));
        assert_eq!(queue.append_encoded(&[0x82; 2_996]), Some(5_000));
        assert_eq!(queue.append_encoded(&[0x82; 1]), None);
        assert_eq!(queue.append_open(Opcode::Text, b""), None);
        assert_eq!(queue.opened().len(), 5_000);
        queue.close(&mut pool);
        assert_eq!(queue.append_encoded(b"1"), None, "it has no queue any more");
        queue.open_calmly(&mut pool, 2);
        assert_eq!(queue.opened(), b"");
        assert_eq!(queue.append_open(Opcode::Text, b""), Some(2));
    }

    #[test]
    fn lent_payloads_leave_in_order_whatever_is_written_at_a_time() {
        let lender: Vec<u8> = (0..200_u8).collect();
        for depth in [1, 3, 80] {
            for step in [0, 1, 2, 7, 50, 1_000, usize::MAX] {
                let mut pool = BufferPool::new(4, 1 << 16);
                let (mut queue, mut lent) = (TxQueue::default(), Vec::new());
                let (mut want, mut got) = (b"gone-first".to_vec(), Vec::new());
                queue.append(&mut pool, |tail| tail.extend_from_slice(b"gone-first"));
                got.extend_from_slice(&want[..5]);
                queue.advance(5, &mut pool);
                for n in 0..depth {
                    let place = n..n + 100;
                    want.extend([0x82, 100]);
                    want.extend_from_slice(&lender[place.clone()]);
                    assert!(queue.append_lent(&mut pool, &mut lent, Opcode::Binary, place));
                    queue.append(&mut pool, |tail| tail.extend_from_slice(b"between"));
                    want.extend_from_slice(b"between");
                }
                queue.note_ping();
                assert_eq!(queue.len(), want.len() - 5);
                queue.write_lent(&mut pool, &mut lent, &lender, |slices| {
                    let bytes: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
                    let n = step.min(bytes.len());
                    got.extend_from_slice(&bytes[..n]);
                    (n > 0).then_some(n)
                });
                assert!(lent.is_empty());
                got.extend(drain(&mut queue, &mut pool, 1_000));
                assert_eq!(got, want, "{depth} at {step}");
                assert!(!queue.holds_ping());
                assert_eq!(queue.memory(), 0);
            }
        }
    }

    #[test]
    fn an_open_queue_whose_front_is_gone_takes_no_more_once_what_was_lent_has_been_copied() {
        let lender = [7; 2_000];
        for waits in [[0; 150].as_slice(), &[]] {
            let mut pool = BufferPool::new(4, 1 << 16);
            let (mut queue, mut lent) = (TxQueue::default(), Vec::new());
            queue.append(&mut pool, |tail| tail.extend_from_slice(&[1; 3_000]));
            queue.advance(2_900, &mut pool);
            assert!(queue.open(&mut pool, 1_000));
            assert!(queue.append_lent(&mut pool, &mut lent, Opcode::Binary, 0..800));
            queue.append(&mut pool, |tail| tail.extend_from_slice(waits));
            queue.write_lent(&mut pool, &mut lent, &lender, |_| None);
            let mut before = queue.len();
            while let Some(now) = queue.append_open(Opcode::Binary, &[2; 40]) {
                assert_eq!(now, before + 42);
                before = now;
            }
            assert!(before <= 1_000 + waits.len(), "{before} bytes wait");
        }
    }

    #[test]
    fn one_lent_payload_is_framed_where_it_lies() {
        for (len, first, header) in [(20, 6, 2), (300, 8, 4), (70_000, 14, 10)] {
            let mut lender: Vec<u8> = (0..=255).cycle().take(first + len).collect();
            let payload = lender[first..].to_vec();
            let mut pool = BufferPool::new(4, 1 << 20);
            let (mut queue, mut lent) = (TxQueue::default(), Vec::new());
            let place = first..first + len;
            assert!(queue.append_lent(&mut pool, &mut lent, Opcode::Binary, place));
            let frame = queue.frame_in_place(&lent, &mut lender).unwrap();
            assert_eq!(frame, first - header..first + len);
            let (decoded, used) = FrameHeader::decode(&lender[frame.clone()])
                .unwrap()
                .unwrap();
            assert_eq!((decoded.len, used), (len as u64, header));
            assert_eq!(lender[frame.start + used..], payload);
            let whole = lender[frame].to_vec();
            for n in [0, 1, whole.len() - 1, whole.len()] {
                let mut queue = TxQueue::default();
                let mut lent = Vec::new();
                let place = first..first + len;
                queue.append_lent(&mut pool, &mut lent, Opcode::Binary, place);
                queue.note_ping();
                queue.wrote_in_place(n, &whole[n..], &mut pool);
                assert_eq!(queue.holds_ping(), n < whole.len());
                assert_eq!(drain(&mut queue, &mut pool, 1_000), whole[n..]);
                assert_eq!(queue.memory(), 0);
            }
        }
    }

    #[test]
    fn a_payload_with_company_or_without_room_is_not_framed_where_it_lies() {
        let mut lender = vec![7; 1_000];
        let mut pool = BufferPool::new(4, 1 << 20);
        let mut cases: [(TxQueue, Vec<Lent>); 4] = Default::default();
        let [(behind, a), (two, b), (begun, c), (tight, d)] = &mut cases;
        behind.append_lent(&mut pool, a, Opcode::Binary, 14..300);
        behind.append(&mut pool, |tail| tail.push(1));
        two.append_lent(&mut pool, b, Opcode::Binary, 14..300);
        two.append_lent(&mut pool, b, Opcode::Binary, 314..600);
        begun.append(&mut pool, |tail| tail.extend([1, 2]));
        begun.advance(1, &mut pool);
        begun.append_lent(&mut pool, c, Opcode::Binary, 14..300);
        tight.append_lent(&mut pool, d, Opcode::Binary, 3..300);
        for (queue, lent) in &cases {
            assert_eq!(queue.frame_in_place(lent, &mut lender), None);
        }
        assert_eq!(lender, [7; 1_000]);
        let (mut queue, mut lent) = (TxQueue::default(), Vec::new());
        queue.append(&mut pool, |tail| tail.extend([1, 2, 3]));
        queue.append_lent(&mut pool, &mut lent, Opcode::Binary, 14..300);
        assert_eq!(queue.frame_in_place(&lent, &mut lender), Some(7..300));
        assert_eq!(
            lender[..15],
            [7, 7, 7, 7, 7, 7, 7, 1, 2, 3, 0x82, 126, 1, 30, 7]
        );
    }

    #[test]
    fn fr_18_lengths_are_encoded_in_the_fewest_bytes() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut frame = Vec::new();
            append_frame(
                &mut frame,
                Fin::Last,
                Opcode::Binary,
                Coding::Plain,
                None,
                &vec![1; len],
            );
            assert_eq!(frame.len(), header + len, "payload of {len}");
            let (decoded, used) = FrameHeader::decode(&frame).unwrap().unwrap();
            assert_eq!((decoded.len, used), (len as u64, header));
        }
    }

    #[test]
    fn a_cleared_queue_says_what_it_dropped() {
        let mut pool = BufferPool::new(4, 1 << 16);
        let mut queue = TxQueue::default();
        queue.append(&mut pool, |tail| tail.extend_from_slice(b"abc"));
        queue.append_shared(&mut pool, Bytes::from(vec![0; 5_000]));
        queue.advance(1, &mut pool);
        assert_eq!(queue.clear(&mut pool), 5_002);
        assert!(queue.is_empty());
    }
}
