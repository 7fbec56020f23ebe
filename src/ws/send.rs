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
/// its place by reference. An empty queue owns no memory.
#[derive(Debug, Default)]
pub(crate) struct TxQueue {
    /// What goes first; its first `written` bytes are gone already.
    flat: Vec<u8>,
    written: usize,
    /// What follows, once a payload was queued by reference. Boxed: few connections have it.
    #[expect(
        clippy::box_collection,
        reason = "every connection pays for this field"
    )]
    rest: Option<Box<VecDeque<Segment>>>,
    /// Bytes in `rest`, and those that are lent.
    rest_len: usize,
    /// Bytes that were written, ever.
    gone: u64,
    /// Up to which length of `flat` short messages may be appended without asking again whether
    /// they may: see [`TxQueue::open`].
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
    pub(crate) fn len(&self) -> usize {
        self.flat.len() - self.written + self.rest_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes will have been written when all that waits now has been.
    pub(crate) fn end(&self) -> u64 {
        self.gone + self.len() as u64
    }

    /// Whether what was queued when [`TxQueue::end`] said so has been written.
    pub(crate) fn is_past(&self, end: u64) -> bool {
        self.gone >= end
    }

    /// Whether the account is right while nobody works on the connection: nothing is lent, and no
    /// shortcut is open. See `Context::check_invariants`.
    #[cfg(feature = "sim")]
    pub(crate) fn is_sound(&self) -> bool {
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        let rest: usize = rest.map(|segment| segment.as_slice().len()).sum();
        let frees = !self.is_empty() || self.memory() == 0;
        rest == self.rest_len && self.written <= self.flat.len() && self.open_to == 0 && frees
    }

    /// Heap bytes held.
    pub(crate) fn memory(&self) -> usize {
        let rest = self.rest.as_deref().map_or(0, |rest| {
            let held: usize = rest.iter().map(Segment::capacity).sum();
            held + rest.capacity() * size_of::<Segment>() + size_of::<VecDeque<Segment>>()
        });
        self.flat.capacity() + rest
    }

    /// Appends bytes through `write`.
    pub(crate) fn append(&mut self, pool: &mut BufferPool, write: impl FnOnce(&mut Vec<u8>)) {
        self.shut();
        let Some(rest) = &mut self.rest else {
            if self.flat.capacity() == 0 {
                self.flat = take_roomy(pool);
            } else if self.written >= COMPACT_AT && self.written * 2 >= self.flat.len() {
                self.flat.drain(..self.written);
                self.written = 0;
            }
            write(&mut self.flat);
            if self.flat.is_empty() {
                pool.put(std::mem::take(&mut self.flat));
            }
            return;
        };
        if !matches!(rest.back(), Some(Segment::Flat(_))) {
            rest.push_back(Segment::Flat(pool.take()));
        }
        if let Some(Segment::Flat(tail)) = rest.back_mut() {
            let before = tail.len();
            write(tail);
            self.rest_len += tail.len() - before;
        }
    }

    /// A message may be sent, as all of these: by a server, now, by whoever will flush it. As long
    /// as nothing but such messages is queued and less than `limit` bytes wait, that stays so for
    /// messages of up to [`MAX_SHORT`] bytes, and [`TxQueue::append_short`] takes them.
    #[inline]
    pub(crate) fn open(&mut self, pool: &mut BufferPool, limit: usize) {
        if self.rest.is_none() {
            if self.flat.capacity() == 0 {
                self.flat = take_roomy(pool);
            }
            self.open_to = self.written.saturating_add(limit);
        }
    }

    /// Takes [`TxQueue::open`] back. Whatever else is queued does so too.
    #[inline]
    pub(crate) fn shut(&mut self) {
        self.open_to = 0;
    }

    /// Appends a whole short frame without a mask, if the queue is open and has room. Whether it
    /// was, and had.
    #[inline]
    pub(crate) fn append_short(&mut self, opcode: Opcode, payload: &[u8]) -> bool {
        let len = 2 + payload.len();
        let has_room = len <= self.flat.capacity() - self.flat.len();
        let Ok(short) = u8::try_from(payload.len()) else {
            return false;
        };
        if payload.len() > MAX_SHORT || self.flat.len() + len > self.open_to || !has_room {
            return false;
        }
        let header = [FIN | opcode.bits(), short];
        self.flat.extend_from_slice(&header);
        self.flat.extend_from_slice(payload);
        true
    }

    /// Appends bytes that are owned elsewhere: by reference if that is worth it.
    pub(crate) fn append_shared(&mut self, pool: &mut BufferPool, bytes: Bytes) {
        if bytes.len() < SHARE_FROM {
            return self.append(pool, |tail| tail.extend_from_slice(&bytes));
        }
        self.shut();
        self.rest_len += bytes.len();
        let rest = self.rest.get_or_insert_default();
        rest.push_back(Segment::Shared(bytes));
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
        if self.rest.is_some() {
            return false;
        }
        let mut header = [0; FrameHeader::MAX_LEN];
        let used = encode_header(
            &mut header,
            Fin::Last,
            opcode,
            Coding::Plain,
            None,
            place.len(),
        );
        let header = header.get(..used).unwrap_or_default();
        self.append(pool, |tail| tail.extend_from_slice(header));
        self.rest_len += place.len();
        let behind = self.flat.len();
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
        mut write: impl FnMut(&[IoSlice<'_>]) -> Option<usize>,
    ) {
        let mut done = 0;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (filled, offered) = self.fill(done, lent, lender, &mut slices);
            let slices = slices.get(..filled).unwrap_or_default();
            if filled == 0 {
                break;
            }
            match write(slices) {
                Some(n) if n == offered => done += n,
                Some(n) => {
                    done += n;
                    break;
                }
                None => break,
            }
        }
        let mut flat = Vec::new();
        let mut copied = done;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (filled, offered) = self.fill(copied, lent, lender, &mut slices);
            if filled == 0 {
                break;
            }
            if flat.capacity() == 0 {
                flat = pool.take();
            }
            slices.iter().for_each(|part| flat.extend_from_slice(part));
            copied += offered;
        }
        pool.put(std::mem::replace(&mut self.flat, flat));
        self.written = 0;
        self.gone += done as u64;
        self.rest_len -= lent.drain(..).map(|lent| lent.place.len()).sum::<usize>();
        self.shut();
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

    /// The front of the queue as slices for one write; how many were filled in.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let flat = self.flat.get(self.written..).unwrap_or_default();
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        let parts = std::iter::once(flat).chain(rest.map(Segment::as_slice));
        let mut filled = 0;
        for (slot, part) in out.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    /// Whether everything lies in one slice.
    pub(crate) fn as_single(&self) -> Option<&[u8]> {
        match self.rest {
            None => self.flat.get(self.written..),
            Some(_) => None,
        }
    }

    /// The first bytes that wait, as far as they lie together.
    #[cfg(feature = "tls")]
    pub(crate) fn front(&self) -> &[u8] {
        match self.flat.get(self.written..) {
            Some(flat @ [_, ..]) => flat,
            _ => {
                let rest = self.rest.iter().flat_map(|rest| rest.iter());
                let mut parts = rest.map(Segment::as_slice);
                parts.find(|part| !part.is_empty()).unwrap_or_default()
            }
        }
    }

    /// Drops `n` bytes that were written; an emptied queue gives its memory back.
    #[inline]
    pub(crate) fn advance(&mut self, n: usize, pool: &mut BufferPool) {
        debug_assert!(n <= self.len(), "cannot write more than there is");
        self.shut();
        self.gone += n as u64;
        if self.rest.is_none() && n == self.flat.len() - self.written {
            self.written = 0;
            pool.put(std::mem::take(&mut self.flat));
        } else {
            self.drop_front(n, pool);
        }
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
        let Some(rest) = &mut self.rest else {
            return false;
        };
        match rest.pop_front() {
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
                    rest.push_front(Segment::Shared(bytes));
                    return false;
                }
            }
            None => {
                self.rest = None;
                return false;
            }
        }
        true
    }

    /// Drops everything; how many bytes that were.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) -> usize {
        let dropped = self.len();
        pool.put(std::mem::take(&mut self.flat));
        *self = Self::default();
        dropped
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

/// A buffer for output that need not grow with the first few messages.
#[inline]
fn take_roomy(pool: &mut BufferPool) -> Vec<u8> {
    let mut buffer = pool.take();
    if buffer.capacity() < ROOM {
        buffer.reserve_exact(ROOM);
    }
    buffer
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
pub(crate) const MAX_SHORT: usize = 125;
/// From this size on a payload is worth lending: below, a copy is cheaper than another slice.
pub(crate) const LEND_FROM: usize = 4096;
/// Slices of one vectored write.
pub(crate) const SLICES: usize = 64;
/// The least capacity of a buffer for output.
const ROOM: usize = 1024;
/// The bit of a frame that ends its message.
const FIN: u8 = 0x80;
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
                let end = queue.end();
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
                assert!(queue.is_past(end));
                assert_eq!(queue.memory(), 0);
            }
        }
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
