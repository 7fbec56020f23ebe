//! A bounded pool of byte buffers, so that steady traffic allocates nothing.

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
        let buffer = self.free.pop().unwrap_or_default();
        self.held -= buffer.capacity();
        buffer
    }

    /// Gives a buffer back. Its contents are dropped.
    #[inline]
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        let worth_keeping = buffer.capacity() > 0 && buffer.capacity() <= self.max_capacity;
        let held = self.held.saturating_add(buffer.capacity());
        if worth_keeping && self.free.len() < self.max_buffers && held <= self.max_total {
            self.held = held;
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Whether the account is right and within its bounds; see `Context::check_invariants`.
    #[cfg(feature = "sim")]
    pub(crate) fn is_sound(&self) -> bool {
        let held: usize = self.free.iter().map(Vec::capacity).sum();
        let buffers = self.free.len() <= self.max_buffers;
        buffers && held == self.held && held <= self.max_total
    }

    /// Bytes of heap that the waiting buffers hold.
    pub const fn memory(&self) -> usize {
        self.held
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
