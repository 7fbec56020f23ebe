//! Without the feature `deflate` nothing is compressed, and the compiler knows.
#![expect(
    clippy::needless_pass_by_ref_mut,
    clippy::unused_self,
    reason = "the signatures are those of compression.rs"
)]

use bytes::Bytes;

use crate::conn::{Role, SendHalf};
use crate::context::Context;
use crate::dial::ClientRole;
use crate::http::head::{RequestHead, ResponseHead};
use crate::inner::Out;
use crate::lift::Lift;
use crate::protocol::Accept;
use crate::ws::Message;
use crate::ws::handshake::{ResponseError, check_response};
use crate::ws::recv::Recv;
use crate::ws::send::{Coding, Fin, append_frame, opcode};

pub(crate) type Agreed = ();

impl SendHalf {
    pub(crate) const fn sends_plain(&self) -> bool {
        true
    }

    pub(crate) fn receiver(&self) -> Recv {
        Recv::default()
    }

    pub(crate) const fn compression_memory(&self) -> usize {
        0
    }

    pub(crate) const fn window_memory(&self) -> usize {
        0
    }

    pub(crate) const fn note_window(&mut self, _: &Recv) {}
}

#[derive(Debug)]
pub(crate) struct Encoded<'m> {
    message: Message<'m>,
    plain: Option<Bytes>,
}

impl<'m> Encoded<'m> {
    pub(crate) const fn new(message: Message<'m>) -> Self {
        Self {
            message,
            plain: None,
        }
    }

    pub(crate) fn for_peer(&mut self, _: &SendHalf, _: &mut Out) -> &Bytes {
        let message = self.message;
        self.plain.get_or_insert_with(|| {
            let mut frame = Vec::with_capacity(message.len() + 10);
            let (opcode, payload) = (opcode(message.kind()), message.as_bytes());
            append_frame(&mut frame, Fin::Last, opcode, Coding::Plain, None, payload);
            Bytes::from(frame)
        })
    }
}

impl ClientRole {
    pub(crate) const fn offered_extensions(&self, _: &SendHalf) -> Option<String> {
        None
    }
}

impl Lift<'_> {
    pub(crate) fn agree_on_extensions(
        &mut self,
        _: &RequestHead<'_>,
        _: &Accept,
    ) -> Option<String> {
        None
    }

    pub(crate) fn judge_response<'h>(
        &mut self,
        head: &ResponseHead<'h>,
        key: &[u8; 24],
    ) -> Result<Option<&'h str>, ResponseError> {
        let Role::Client(client) = &self.conn.role else {
            return Err(ResponseError::Upgrade);
        };
        check_response(head, key, client.info.offered_subprotocols())
    }

    pub(crate) fn allow_inflating(&mut self) {}
}

impl Context {
    pub(crate) const fn lend_inflaters(&mut self) {}

    pub(crate) const fn compression_memory(&self) -> usize {
        0
    }
}
