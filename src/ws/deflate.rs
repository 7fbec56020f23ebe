//! permessage-deflate (RFC 7692): what is wanted, what was agreed, and both directions of it.
//!
//! [`DeflateConfig`] says what the application wants. [`answer_offers`] is the server's part of
//! the negotiation, [`offer`] and [`check_answer`] are the client's; what they agree on are
//! [`DeflateParams`]. Received messages are inflated by [`Recv`](super::Recv), with an
//! [`InflaterPool`] that all connections of a loop share.

pub(crate) mod compress;
pub(crate) mod inflate;
mod negotiate;

use thiserror::Error;

pub use self::compress::{Compressing, Compression, CompressorPool, Payload, SendOptions};
pub use self::inflate::InflaterPool;
pub use self::negotiate::{ExtensionError, answer_offers, check_answer, offer};

/// What an application wants of permessage-deflate.
///
/// The default costs a connection next to nothing between its messages: no side keeps its window
/// from one message to the next, so that all connections of a loop share their compressors and
/// inflaters.
///
/// ```
/// use wsloop::ws::deflate::{DeflateConfig, Takeover};
///
/// let shared = DeflateConfig::new();
/// let dense = DeflateConfig::new().context_takeover(Takeover::Both).level(6)?;
/// # Ok::<(), wsloop::ws::deflate::DeflateConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct DeflateConfig {
    pub(crate) takeover: Takeover,
    pub(crate) server_bits: u8,
    pub(crate) client_bits: u8,
    pub(crate) kept_bits: u8,
    pub(crate) level: u8,
    pub(crate) threshold: usize,
    pub(crate) ratio_limit: Option<u32>,
}

/// Whose messages may refer to the messages before them (RFC 7692 section 7.1.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Takeover {
    /// Both sides'. Each connection then owns a compressor and an inflater from its first
    /// compressed message on.
    Both,
    /// The client's only.
    Client,
    /// Nobody's: every message is compressed by itself.
    #[default]
    None,
    /// The server's only.
    Server,
}

impl Takeover {
    pub(crate) const fn of_server(self) -> bool {
        matches!(self, Self::Both | Self::Server)
    }

    pub(crate) const fn of_client(self) -> bool {
        matches!(self, Self::Both | Self::Client)
    }
}

impl DeflateConfig {
    /// The defaults: no context takeover, windows of 15 bits, level 2, a threshold of 128 bytes,
    /// no ratio limit.
    pub const fn new() -> Self {
        Self {
            takeover: Takeover::None,
            server_bits: MAX_BITS,
            client_bits: MAX_BITS,
            kept_bits: DEFAULT_KEPT_BITS,
            level: DEFAULT_LEVEL,
            threshold: DEFAULT_THRESHOLD,
            ratio_limit: None,
        }
    }

    /// Whose messages may refer to earlier ones: small, similar messages then compress much
    /// better, at the price of a compressor (167 KiB; see
    /// [`kept_window_bits`](Self::kept_window_bits)) and an inflater (47 KiB) for each connection. A side that is left out is
    /// told not to (`server_no_context_takeover`, `client_no_context_takeover`). Default: nobody's.
    pub const fn context_takeover(mut self, takeover: Takeover) -> Self {
        self.takeover = takeover;
        self
    }

    /// The largest window that the server compresses with, as a power of two: 8 to 15. Default 15.
    ///
    /// # Errors
    ///
    /// [`DeflateConfigError::WindowBits`] for anything else.
    pub const fn server_max_window_bits(mut self, bits: u8) -> Result<Self, DeflateConfigError> {
        match check_bits(bits) {
            Ok(bits) => self.server_bits = bits,
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// The largest window that the client compresses with, as a power of two: 8 to 15. Default 15.
    /// A server cannot ask it of a client that does not offer `client_max_window_bits`, and
    /// inflates what comes all the same.
    ///
    /// # Errors
    ///
    /// [`DeflateConfigError::WindowBits`] for anything else.
    pub const fn client_max_window_bits(mut self, bits: u8) -> Result<Self, DeflateConfigError> {
        match check_bits(bits) {
            Ok(bits) => self.client_bits = bits,
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// The window that this side compresses with where it keeps it from message to message, as a
    /// power of two: 8 to 15, and at most what was agreed on. Default 11: it holds the last 2 KiB,
    /// which is most of what small messages gain, and many connections' windows and tables stay
    /// in the processor's caches. Larger ones are for large messages that resemble each other:
    /// they take four times their size in memory, and, with many connections, CPU time.
    ///
    /// # Errors
    ///
    /// [`DeflateConfigError::WindowBits`] for anything else.
    pub const fn kept_window_bits(mut self, bits: u8) -> Result<Self, DeflateConfigError> {
        match check_bits(bits) {
            Ok(bits) => self.kept_bits = bits,
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// How hard to compress: 1 (fast) to 9 (small). Default 2, which takes a quarter off what
    /// level 1 makes of JSON of 1 KiB.
    ///
    /// # Errors
    ///
    /// [`DeflateConfigError::Level`] for anything else.
    pub const fn level(mut self, level: u8) -> Result<Self, DeflateConfigError> {
        if level < 1 || level > 9 {
            return Err(DeflateConfigError::Level(level));
        }
        self.level = level;
        Ok(self)
    }

    /// Messages of fewer bytes are sent as they are: they would save little or nothing, and cost
    /// microseconds. Default 128; 0 compresses all.
    pub const fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// How many times its compressed size a received message may inflate to, once it has come to
    /// 64 KiB; more fails the connection with 1008. DEFLATE goes up to 1032. The message limit
    /// holds with or without it. Default: no such limit.
    ///
    /// # Errors
    ///
    /// [`DeflateConfigError::RatioLimit`] for 0.
    pub const fn ratio_limit(mut self, times: u32) -> Result<Self, DeflateConfigError> {
        if times == 0 {
            return Err(DeflateConfigError::RatioLimit);
        }
        self.ratio_limit = Some(times);
        Ok(self)
    }
}

impl Default for DeflateConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A value that permessage-deflate does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeflateConfigError {
    /// A compression level that does not exist.
    #[error("level {0} is not one of 1 to 9")]
    Level(u8),
    /// A ratio that nothing can keep.
    #[error("a ratio limit of 0 would refuse everything; use 1 to 1032, or leave it out")]
    RatioLimit,
    /// A window size that RFC 7692 does not have.
    #[error("{0} window bits are not within 8 to 15")]
    WindowBits(u8),
}

/// What both sides agreed on (RFC 7692 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DeflateParams {
    /// Every message of the server is compressed by itself.
    pub server_no_context_takeover: bool,
    /// Every message of the client is compressed by itself.
    pub client_no_context_takeover: bool,
    /// The server's window, as a power of two: 8 to 15.
    pub server_max_window_bits: u8,
    /// The client's window, as a power of two: 8 to 15.
    pub client_max_window_bits: u8,
}

impl DeflateParams {
    /// What a negotiation without parameters comes to: context takeover on both sides, windows of
    /// 15 bits.
    pub const fn new() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: MAX_BITS,
            client_max_window_bits: MAX_BITS,
        }
    }
}

impl Default for DeflateParams {
    fn default() -> Self {
        Self::new()
    }
}

const fn check_bits(bits: u8) -> Result<u8, DeflateConfigError> {
    if bits < MIN_BITS || bits > MAX_BITS {
        return Err(DeflateConfigError::WindowBits(bits));
    }
    Ok(bits)
}

/// RFC 7692 section 7.1.2: the smallest and the largest window.
const MIN_BITS: u8 = 8;
const MAX_BITS: u8 = 15;
/// What a compressed message lacks at its end (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// By CPU time and size, on texts of 1 KiB; see `benches/README.md`.
const DEFAULT_LEVEL: u8 = 2;
/// By the same.
const DEFAULT_KEPT_BITS: u8 = 11;
const DEFAULT_THRESHOLD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deflate_does_not_have_is_an_error() {
        let config = DeflateConfig::new();
        for bits in [0, 7, 16, 255] {
            let error = Err(DeflateConfigError::WindowBits(bits));
            assert_eq!(config.server_max_window_bits(bits), error);
            assert_eq!(config.client_max_window_bits(bits), error);
            assert_eq!(config.kept_window_bits(bits), error);
        }
        for bits in 8..=15 {
            assert_eq!(
                config.server_max_window_bits(bits).unwrap().server_bits,
                bits
            );
            assert_eq!(
                config.client_max_window_bits(bits).unwrap().client_bits,
                bits
            );
        }
        assert_eq!(config.kept_window_bits(8).unwrap().kept_bits, 8);
        for level in [0, 10] {
            assert_eq!(config.level(level), Err(DeflateConfigError::Level(level)));
        }
        assert_eq!(config.level(9).unwrap().level, 9);
        assert_eq!(config.ratio_limit(0), Err(DeflateConfigError::RatioLimit));
        assert_eq!(config.ratio_limit(100).unwrap().ratio_limit, Some(100));
    }

    #[test]
    fn defaults_are_those_that_new_gives() {
        assert_eq!(DeflateConfig::default(), DeflateConfig::new());
        assert_eq!(DeflateParams::default(), DeflateParams::new());
        assert_eq!(DeflateConfig::new().threshold(0).threshold, 0);
    }
}
