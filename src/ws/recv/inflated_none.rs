//! Without the feature `deflate` no message is compressed, and the compiler knows.

use super::{Feed, Recv};
use crate::ws::ProtocolError;
use crate::ws::frame::FrameHeader;

impl Recv {
    pub(super) const fn is_inflating(&self) -> bool {
        false
    }

    pub(crate) const fn inflating_memory(&self) -> usize {
        0
    }

    pub(crate) const fn is_suspended(&self) -> bool {
        false
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        false
    }
}

impl Feed<'_> {
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "the signature is that with the feature"
    )]
    pub(super) fn begin_compressed(&mut self, _: &FrameHeader) -> Result<bool, ProtocolError> {
        Err(ProtocolError::ReservedBit(1))
    }
}

pub(super) const fn compressed_bound(len: u64) -> u64 {
    len
}
