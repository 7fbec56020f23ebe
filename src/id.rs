//! Names for things that come and go: each is an index with a generation, so a stale one is an
//! error value and never somebody else.

use std::fmt;
use std::marker::PhantomData;

use crate::timer::TimerKey;

/// Names one connection, from the call or the accept that began it until its final event.
///
/// `Copy`, comparable and safe to keep: after the connection has ended every use of its id answers
/// with an error value (or `None`), and the id is never given to another connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WsiId {
    pub(crate) index: u32,
    pub(crate) generation: u64,
}

impl fmt::Debug for WsiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wsi#{}.{}", self.index, self.generation)
    }
}

impl fmt::Display for WsiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names one vhost of a context.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VhostId {
    pub(crate) index: u32,
    pub(crate) generation: u64,
}

impl fmt::Debug for VhostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vhost#{}.{}", self.index, self.generation)
    }
}

/// Names one upgrade request whose verdict is still open; see [`Accept::later`](crate::Accept::later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    pub(crate) wsi: WsiId,
}

/// Names one HTTP exchange on a server: a request and its response. After it has ended every use
/// of its id answers with an error value (or `None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    pub(crate) wsi: WsiId,
    /// Which request of the connection.
    pub(crate) number: u32,
}

/// Names one HTTP request of a client, from the call that began it until its
/// [`on_done`](crate::HttpClientHandler::on_done). After that every use of its id answers with an
/// error value, and the id is never given to another request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId {
    pub(crate) index: u32,
    pub(crate) generation: u64,
}

impl fmt::Debug for FetchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fetch#{}.{}", self.index, self.generation)
    }
}

/// Names one armed timer. It is spent when the timer has fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(pub(crate) TimerKey);

/// What the application wrote on a timer; given back by `on_timer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a number with a name; it will never hold more"
)]
pub struct TimerTag(pub u64);

/// Reaches a protocol object that was given to a vhost, with its type.
///
/// Made by [`VhostConfig::add_protocol`](crate::VhostConfig::add_protocol), used with
/// [`Context::protocol`](crate::Context::protocol).
pub struct ProtocolHandle<P> {
    pub(crate) key: u64,
    pub(crate) marker: PhantomData<fn() -> P>,
}

impl<P> Clone for ProtocolHandle<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for ProtocolHandle<P> {}

impl<P> fmt::Debug for ProtocolHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProtocolHandle({})", self.key)
    }
}

/// Reaches an HTTP handler that was given to a vhost, with its type.
///
/// Made by [`Mount::handler_with`](crate::Mount::handler_with), used with
/// [`Context::handler`](crate::Context::handler).
pub struct HandlerHandle<H> {
    pub(crate) key: u64,
    marker: PhantomData<fn() -> H>,
}

impl<H> HandlerHandle<H> {
    pub(crate) const fn new(key: u64) -> Self {
        Self {
            key,
            marker: PhantomData,
        }
    }
}

impl<H> Clone for HandlerHandle<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for HandlerHandle<H> {}

impl<H> fmt::Debug for HandlerHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerHandle({})", self.key)
    }
}

/// Names one question to a hook whose answer is still open; see
/// [`HookAnswer::Later`](crate::hook::HookAnswer::Later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookRequestId {
    pub(crate) wsi: WsiId,
    /// Which question about the connection.
    pub(crate) number: u32,
}

/// Reaches a hook that was given to a vhost, with its type.
///
/// Made by [`HookConfig::with_handle`](crate::hook::HookConfig::with_handle), used with
/// [`Context::hook`](crate::Context::hook).
pub struct HookHandle<H> {
    pub(crate) key: u64,
    marker: PhantomData<fn() -> H>,
}

impl<H> HookHandle<H> {
    pub(crate) const fn new(key: u64) -> Self {
        Self {
            key,
            marker: PhantomData,
        }
    }
}

impl<H> Clone for HookHandle<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for HookHandle<H> {}

impl<H> fmt::Debug for HookHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookHandle({})", self.key)
    }
}

/// What an event of the poller is about: the name of a transport, packed into a `usize`.
///
/// Two bits say the kind; the rest is shared between the index and as many low bits of the
/// generation as fit, so that an event of a closed transport is told from one of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Listener { index: u32, generation: u64 },
    Waker,
    Wsi { index: u32, generation: u64 },
}

impl Token {
    pub(crate) fn pack(self) -> usize {
        match self {
            Self::Wsi { index, generation } => pack(KIND_WSI, index, generation),
            Self::Listener { index, generation } => pack(KIND_LISTENER, index, generation),
            Self::Waker => KIND_WAKER << KIND_SHIFT,
        }
    }

    /// The generation that comes back has only the bits that fitted: compare with
    /// [`same_generation`].
    pub(crate) fn unpack(token: usize) -> Self {
        let index = (token & INDEX_MASK) as u32;
        let generation = ((token >> INDEX_BITS) & GENERATION_MASK) as u64;
        match token >> KIND_SHIFT {
            KIND_WSI => Self::Wsi { index, generation },
            KIND_LISTENER => Self::Listener { index, generation },
            _ => Self::Waker,
        }
    }
}

/// Whether the bits of a generation that travelled in a token belong to `generation`.
pub(crate) fn same_generation(from_token: u64, generation: u64) -> bool {
    from_token == generation & GENERATION_MASK as u64
}

fn pack(kind: usize, index: u32, generation: u64) -> usize {
    debug_assert!((index as usize) <= INDEX_MASK, "the arena caps its indexes");
    let generation = (generation & GENERATION_MASK as u64) as usize;
    kind << KIND_SHIFT | generation << INDEX_BITS | index as usize
}

const KIND_SHIFT: u32 = usize::BITS - 2;
const KIND_WSI: usize = 0;
const KIND_LISTENER: usize = 1;
const KIND_WAKER: usize = 2;
const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };
/// The largest index a token can carry.
pub(crate) const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: usize = (1 << (KIND_SHIFT - INDEX_BITS)) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for (index, generation) in [(0, 0), (7, 1), (INDEX_MASK as u32, 5)] {
            let wsi = Token::Wsi { index, generation };
            let listener = Token::Listener { index, generation };
            assert_eq!(Token::unpack(wsi.pack()), wsi);
            assert_eq!(Token::unpack(listener.pack()), listener);
        }
        assert_eq!(Token::unpack(Token::Waker.pack()), Token::Waker);
    }

    #[test]
    fn a_generation_that_does_not_fit_still_matches_its_own_token() {
        let generation = u64::MAX - 3;
        let Token::Wsi {
            generation: seen, ..
        } = Token::unpack(
            Token::Wsi {
                index: 1,
                generation,
            }
            .pack(),
        )
        else {
            panic!("a wsi token unpacks as one");
        };
        assert!(same_generation(seen, generation));
        assert!(!same_generation(seen, generation.wrapping_add(1)));
    }
}
