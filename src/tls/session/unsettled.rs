//! What a session has that is not an established one, in order and between two records.

use super::handshake::Handshake;
use crate::tls::TlsInfo;
use crate::tls::failure::TlsFailure;
use crate::tls::tap::Boundary;
use crate::tls::trace::Recorder;

/// What an established session in order does not have between two records, so that idle
/// connections are without its memory.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// What rustls has left of the bytes so far: the begin of a record, behind the records of a
    /// handshake message that is not complete. rustls decrypts and joins in place, so the bytes
    /// come back to it exactly as it left them. Empty, and without memory, at most times.
    pub(super) stash: Vec<u8>,
    /// Where the bytes so far end between the records; during a handshake its tap knows.
    pub(super) incoming: Boundary,
    /// What only a handshake needs; gone when it is over.
    pub(super) handshake: Option<Box<Handshake>>,
    pub(super) recorder: Option<Box<Recorder>>,
    pub(super) failure: Option<Box<TlsFailure>>,
    /// Of a server that has refused its client after the handshake: what that had agreed on.
    pub(super) refused: Option<Box<TlsInfo>>,
    pub(super) closed_by_peer: bool,
    pub(super) closed_by_us: bool,
}

impl Unsettled {
    /// Whether there is nothing to it.
    pub(super) fn is_over(&self) -> bool {
        let is_past = self.handshake.is_none() && self.recorder.is_none();
        let is_open = !self.closed_by_peer && !self.closed_by_us && self.failure.is_none();
        // Without bytes that are kept it is between two records.
        is_past && is_open && self.stash.is_empty()
    }

    /// Whether neither a failure nor our own end has come.
    pub(super) const fn is_open(&self) -> bool {
        !self.closed_by_us && self.failure.is_none()
    }

    /// Takes note of where these bytes end.
    pub(super) fn feed(&mut self, wire: &[u8]) {
        match &mut self.handshake {
            Some(handshake) => handshake.incoming.feed(wire),
            None => self.incoming.feed(wire),
        }
    }

    /// How much completes the record that has begun, or its header.
    pub(super) fn missing(&self) -> usize {
        match &self.handshake {
            Some(handshake) => handshake.incoming.missing(),
            None => self.incoming.missing(),
        }
    }

    /// Bytes of the heap.
    pub(super) fn memory(&self) -> usize {
        let handshake = self.handshake.as_ref();
        let handshake = handshake.map(|state| size_of::<Handshake>() + state.early.capacity());
        let recorder = self.recorder.as_ref().map(|recorder| recorder.memory());
        let rest = handshake.unwrap_or_default() + recorder.unwrap_or_default();
        size_of::<Self>() + self.stash.capacity() + rest
    }
}
