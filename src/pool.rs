//! A bounded pool of byte buffers, so that steady traffic allocates nothing.

use crate::ws::send::{Held, ROOM};

/// Buffers that were given back and wait for their next use.
///
/// At most `max_buffers` of at most `max_capacity` bytes each are kept, and no more than a total
/// that [`BufferPool::with_max_total`] sets; what is over is freed.
/// Share one pool among all connections of a loop.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    max_buffers: usize,
    max_capacity: usize,
    max_total: usize,
    /// Bytes of capacity in `free`.
    held: usize,
    /// Where records are encrypted to, zeroed once. Made by the first that asks for it.
    #[cfg(feature = "tls")]
    records: Vec<u8>,
    /// Its bytes.
    records_room: usize,
    /// The queue that one connection after the other fills and empties, with its buffer.
    queue: Option<Box<Held>>,
    /// More of them: what a message to many connections fills and empties.
    #[expect(clippy::vec_box, reason = "they are lent as boxes")]
    ready: Vec<Box<Held>>,
    /// Queues without buffers.
    #[expect(clippy::vec_box, reason = "they are lent as boxes")]
    queues: Vec<Box<Held>>,
}

impl BufferPool {
    /// Makes an empty pool that keeps up to `max_buffers` buffers of up to `max_capacity` bytes.
    /// With zero buffers nothing is ever kept.
    pub const fn new(max_buffers: usize, max_capacity: usize) -> Self {
        Self {
            free: Vec::new(),
            max_buffers,
            max_capacity,
            max_total: usize::MAX,
            held: 0,
            #[cfg(feature = "tls")]
            records: Vec::new(),
            records_room: 0,
            queue: None,
            ready: Vec::new(),
            queues: Vec::new(),
        }
    }

    /// Keeps at most so many bytes in all the waiting buffers together. Default: no such limit.
    #[must_use]
    pub const fn with_max_total(mut self, bytes: usize) -> Self {
        self.max_total = bytes;
        self
    }

    /// An empty buffer, with capacity if one was given back before.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut buffer = self.take_used();
        buffer.clear();
        buffer
    }

    /// A buffer as it was given back: what it holds is anybody's, and only its length is of use.
    #[inline]
    pub(crate) fn take_used(&mut self) -> Vec<u8> {
        match self.free.pop() {
            Some(buffer) => {
                self.held -= buffer.capacity();
                buffer
            }
            None => self.take_from_queue(),
        }
    }

    /// The buffer of a queue that waits, or a new one.
    #[cold]
    fn take_from_queue(&mut self) -> Vec<u8> {
        let Some(mut queue) = self.take_ready() else {
            return Vec::new();
        };
        let buffer = std::mem::take(queue.buffer());
        self.put_bare(queue);
        buffer
    }

    #[inline]
    fn take_ready(&mut self) -> Option<Box<Held>> {
        let mut queue = self.ready.pop()?;
        self.held -= queue.buffer().capacity();
        Some(queue)
    }

    /// Gives a buffer back.
    #[inline]
    pub(crate) fn put(&mut self, buffer: Vec<u8>) {
        let worth_keeping = buffer.capacity() > 0 && buffer.capacity() <= self.max_capacity;
        let held = self.held.saturating_add(buffer.capacity());
        if worth_keeping && self.free.len() < self.max_buffers && held <= self.max_total {
            self.held = held;
            self.free.push(buffer);
        }
    }

    /// The room for `len` bytes of records, for the time of one write. It has been used before.
    #[cfg(feature = "tls")]
    #[inline]
    pub(crate) fn take_records(&mut self, len: usize) -> Vec<u8> {
        let records = std::mem::take(&mut self.records);
        if records.len() < len {
            // The system's zeroes: what is not used takes no memory.
            self.records_room = len;
            return vec![0; len];
        }
        records
    }

    /// The same without taking it, as it was used last.
    #[cfg(feature = "tls")]
    #[inline(always)]
    pub(crate) fn records(&mut self, len: usize) -> &mut [u8] {
        if self.records.len() < len {
            self.records = self.take_records(len);
        }
        &mut self.records
    }

    /// Gives it back.
    #[cfg(feature = "tls")]
    #[inline]
    pub(crate) fn put_records(&mut self, records: Vec<u8>) {
        self.records = records;
    }

    /// A buffer for output that need not grow with the first few messages.
    pub(crate) fn take_roomy(&mut self) -> Vec<u8> {
        let mut buffer = self.take();
        if buffer.capacity() < ROOM {
            buffer.reserve_exact(ROOM);
        }
        buffer
    }

    /// An empty queue with a buffer.
    #[inline]
    pub(crate) fn take_queue(&mut self) -> Box<Held> {
        match self.queue.take() {
            Some(queue) => queue,
            None => self.next_queue(),
        }
    }

    #[inline]
    fn next_queue(&mut self) -> Box<Held> {
        match self.take_ready() {
            Some(queue) => queue,
            None => self.make_queue(),
        }
    }

    #[cold]
    #[inline(never)]
    fn make_queue(&mut self) -> Box<Held> {
        let buffer = self.take_roomy();
        match self.queues.pop() {
            Some(mut queue) => {
                *queue.buffer() = buffer;
                queue
            }
            None => Box::new(Held::over(buffer)),
        }
    }

    /// Gives an empty queue back.
    #[inline(always)]
    pub(crate) fn put_queue(&mut self, mut queue: Box<Held>) {
        let is_fit = (ROOM..=self.max_capacity).contains(&queue.buffer().capacity());
        if self.queue.is_none() && is_fit && !queue.is_bulky() {
            self.queue = Some(queue);
        } else {
            self.put_ready(queue, is_fit);
        }
    }

    /// Keeps one more queue, with its buffer if that `is_fit`.
    #[inline(never)]
    fn put_ready(&mut self, mut queue: Box<Held>, is_fit: bool) {
        let held = self.held.saturating_add(queue.buffer().capacity());
        let has_room = self.ready.len() < self.max_buffers && held <= self.max_total;
        if is_fit && has_room && !queue.is_bulky() {
            self.held = held;
            self.ready.push(queue);
        } else {
            self.put_away(queue);
        }
    }

    /// As [`BufferPool::take_queue`], to where there is none.
    #[inline(always)]
    pub(crate) fn lend_queue<'q>(&mut self, place: &'q mut Option<Box<Held>>) -> &'q mut Held {
        debug_assert!(place.is_none(), "an empty queue owns nothing");
        std::mem::swap(&mut self.queue, place);
        place.get_or_insert_with(|| self.next_queue())
    }

    /// Takes back an emptied queue that was lent and in which nothing but its buffer was used.
    #[inline(always)]
    pub(crate) fn take_lent_queue(&mut self, place: &mut Option<Box<Held>>) {
        if let Some(queue) = place {
            queue.shut();
        }
        let max = self.max_capacity;
        let is_fit = |queue: &mut Box<Held>| queue.buffer().capacity() <= max;
        if self.queue.is_none() && place.as_mut().is_some_and(is_fit) {
            std::mem::swap(&mut self.queue, place);
        } else if let Some(mut queue) = place.take() {
            let is_fit = is_fit(&mut queue);
            self.put_ready(queue, is_fit);
        }
    }

    #[cold]
    #[inline(never)]
    fn put_away(&mut self, mut queue: Box<Held>) {
        self.put(std::mem::take(queue.buffer()));
        self.put_bare(queue);
    }

    fn put_bare(&mut self, mut queue: Box<Held>) {
        if self.queues.len() < self.max_buffers {
            queue.slim();
            self.queues.push(queue);
        }
    }

    /// Whether the account is right and within its bounds; see `Context::check_invariants`.
    #[cfg(feature = "sim")]
    pub(crate) fn is_sound(&self) -> bool {
        let free: usize = self.free.iter().map(Vec::capacity).sum();
        let ready: usize = self.ready.iter().map(|queue| queue.capacity()).sum();
        let held = free + ready;
        let most = self.free.len().max(self.ready.len());
        most <= self.max_buffers && held == self.held && held <= self.max_total
    }

    /// Bytes of heap that the waiting buffers hold.
    pub const fn memory(&self) -> usize {
        self.held + self.records_room
    }
}

impl Default for BufferPool {
    /// 16 buffers of at most 1 MiB each.
    fn default() -> Self {
        Self::new(16, 1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_with_its_capacity() {
        let mut pool = BufferPool::new(1, 100);
        let mut buffer = pool.take();
        assert_eq!(buffer.capacity(), 0);
        buffer.reserve_exact(64);
        buffer.extend_from_slice(b"secret");
        pool.put(buffer);
        let again = pool.take();
        assert!(again.is_empty());
        assert_eq!(again.capacity(), 64);
    }

    #[test]
    fn queues_wait_with_their_buffers_within_the_limits() {
        let mut pool = BufferPool::new(2, 1 << 20).with_max_total(2 * ROOM);
        let mut places: [Option<Box<Held>>; 4] = Default::default();
        for place in &mut places {
            let queue = pool.lend_queue(place);
            assert!(queue.buffer().capacity() >= ROOM);
            assert!(queue.buffer().is_empty());
        }
        for place in &mut places {
            pool.take_lent_queue(place);
            assert!(place.is_none());
        }
        // One beside the account, two in it; of the last only the box is kept.
        assert_eq!(pool.memory(), 2 * ROOM);
        assert_eq!((pool.ready.len(), pool.queues.len()), (2, 1));
        // Who needs a buffer and finds none gets that of a queue.
        assert!(pool.take().capacity() >= ROOM);
        assert_eq!(pool.memory(), ROOM);
        for place in &mut places {
            pool.lend_queue(place);
        }
        assert_eq!(pool.memory(), 0);
        let mut large = places[0].take();
        if let Some(queue) = &mut large {
            queue.buffer().reserve_exact(2 << 20);
        }
        pool.take_lent_queue(&mut large);
        assert_eq!(pool.memory(), 0);
        assert!(pool.queue.is_none(), "it is too large to be kept");
    }

    #[test]
    fn the_pool_holds_no_more_than_its_limits() {
        let mut pool = BufferPool::new(2, 100);
        pool.put(Vec::with_capacity(101));
        pool.put(Vec::new());
        assert_eq!(pool.memory(), 0);
        for _ in 0..5 {
            pool.put(Vec::with_capacity(100));
        }
        assert_eq!(pool.memory(), 200);
        let mut none = BufferPool::new(0, 100);
        none.put(Vec::with_capacity(1));
        assert_eq!(none.memory(), 0);
        let mut total = BufferPool::new(5, 100).with_max_total(250);
        for _ in 0..5 {
            total.put(Vec::with_capacity(100));
        }
        assert_eq!(total.memory(), 200);
        drop(total.take());
        assert_eq!(total.memory(), 100);
    }
}
