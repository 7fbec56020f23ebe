//! A bounded pool of byte buffers, so that steady traffic allocates nothing.

/// Buffers that were given back and wait for their next use.
///
/// At most `max_buffers` of at most `max_capacity` bytes each are kept; what is over is freed.
/// Share one pool among all connections of a loop.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    max_buffers: usize,
    max_capacity: usize,
}

impl BufferPool {
    /// Makes an empty pool that keeps up to `max_buffers` buffers of up to `max_capacity` bytes.
    /// With zero buffers nothing is ever kept.
    pub const fn new(max_buffers: usize, max_capacity: usize) -> Self {
        Self {
            free: Vec::new(),
            max_buffers,
            max_capacity,
        }
    }

    /// An empty buffer, with capacity if one was given back before.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Gives a buffer back. Its contents are dropped.
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        let worth_keeping = buffer.capacity() > 0 && buffer.capacity() <= self.max_capacity;
        if worth_keeping && self.free.len() < self.max_buffers {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Bytes of heap that the waiting buffers hold.
    pub fn memory(&self) -> usize {
        self.free.iter().map(Vec::capacity).sum()
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
    }
}
