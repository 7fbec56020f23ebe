//! Unpredictable bytes: mask keys, handshake nonces, jitter.
//!
//! RFC 6455, section 10.3: "The masking key needs to be unpredictable; thus, the masking key MUST
//! be derived from a strong source of entropy." So there is no generator of our own here, only a
//! pool filled by the operating system, because one call per mask would cost more than the mask.

use std::fmt;
use std::io;

/// A pool of random bytes. Bytes that were given out are wiped from it.
pub(crate) struct Random {
    pool: Box<[u8; POOL_LEN]>,
    used: usize,
    source: Source,
}

impl Random {
    /// Fills the pool from the operating system.
    ///
    /// # Errors
    ///
    /// The system has no random source that works (an early-boot or sandbox problem). Whoever gets
    /// a `Random` has seen the source work once; [`fill`](getrandom::fill) has no way to fail
    /// after that short of a system call being forbidden later, which then panics rather than
    /// sends predictable masks.
    pub(crate) fn new() -> io::Result<Self> {
        let mut pool = Box::new([0; POOL_LEN]);
        getrandom::fill(pool.as_mut_slice()).map_err(to_io_error)?;
        Ok(Self {
            pool,
            used: 0,
            source: Source::Os,
        })
    }

    /// Predictable bytes from a seed, for simulations that are to be repeated.
    #[cfg(feature = "sim")]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            pool: Box::new([0; POOL_LEN]),
            used: POOL_LEN,
            source: Source::Seeded(seed),
        }
    }

    /// A fresh mask key for one frame.
    pub(crate) fn mask(&mut self) -> [u8; 4] {
        self.take()
    }

    /// The sixteen bytes of a `Sec-WebSocket-Key` (RFC 6455, section 4.1).
    pub(crate) fn nonce(&mut self) -> [u8; 16] {
        self.take()
    }

    /// Sixty-four random bits, for jitter.
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= POOL_LEN) };
        if POOL_LEN - self.used < N {
            self.refill();
        }
        let mut out = [0; N];
        let bytes = &mut self.pool[self.used..self.used + N];
        out.copy_from_slice(bytes);
        bytes.fill(0);
        self.used += N;
        out
    }

    #[cold]
    fn refill(&mut self) {
        self.used = 0;
        match &mut self.source {
            Source::Os => getrandom::fill(self.pool.as_mut_slice())
                .expect("the system's random source worked when this pool was made"),
            #[cfg(feature = "sim")]
            Source::Seeded(state) => {
                for chunk in self.pool.chunks_exact_mut(8) {
                    chunk.copy_from_slice(&super::sim::split_mix(state).to_le_bytes());
                }
            }
        }
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Source {
    Os,
    #[cfg(feature = "sim")]
    Seeded(u64),
}

fn to_io_error(error: getrandom::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    }
}

/// A page's quarter: one system call for 256 masks.
const POOL_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fr_17_hc_17_masks_and_nonces_do_not_repeat() {
        let mut random = Random::new().unwrap();
        let nonces: HashSet<_> = (0..100_000).map(|_| random.nonce()).collect();
        assert_eq!(nonces.len(), 100_000);
        let masks: HashSet<_> = (0..1000).map(|_| random.mask()).collect();
        assert!(
            masks.len() > 990,
            "a thousand of 2^32 hardly ever meet: {}",
            masks.len()
        );
    }

    #[test]
    fn what_was_given_out_is_wiped_and_never_given_again() {
        let mut random = Random::new().unwrap();
        for _ in 0..1000 {
            // Lengths that do not divide the pool reach its end in every way.
            let (mask, nonce) = (random.mask(), random.nonce());
            assert_ne!(nonce, [0; 16], "the wiped part must not be given out");
            assert!(random.pool[..random.used].iter().all(|&byte| byte == 0));
            assert!(
                !random.pool.windows(16).any(|window| window == nonce),
                "{mask:?}"
            );
        }
    }

    #[test]
    fn fr_17_every_bit_of_a_mask_is_set_about_half_the_time() {
        let mut random = Random::new().unwrap();
        let mut counts = [0_u32; 32];
        for _ in 0..4096 {
            let mask = u32::from_ne_bytes(random.mask());
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += (mask >> bit) & 1;
            }
        }
        // Ten standard deviations: 10 * sqrt(4096) / 2.
        assert!(
            counts
                .iter()
                .all(|count| (2048 - 320..2048 + 320).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn debug_output_does_not_show_the_pool() {
        let random = Random::new().unwrap();
        assert_eq!(format!("{random:?}"), "Random { source: Os, .. }");
    }

    #[cfg(feature = "sim")]
    #[test]
    fn a_seed_gives_the_same_bytes_again_and_another_seed_others() {
        let draw = |seed| {
            let mut random = Random::seeded(seed);
            (0..500).map(|_| random.u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
