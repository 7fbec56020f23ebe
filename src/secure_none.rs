//! Without the feature `tls` no transport is TLS, and the compiler knows.
#![expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the signatures are those of secure.rs"
)]

use std::io;
use std::time::Instant;

use crate::client::ClientConnectInfo;
use crate::error::{ConnectFailure, Deadline};
use crate::inner::Vhost;
use crate::lift::Lift;
use crate::net::transport::Flushed;
use crate::pool::BufferPool;
use crate::ws::send::TxQueue;

impl Vhost {
    #[expect(clippy::unused_self, reason = "the signature is that of secure.rs")]
    pub(crate) fn check_names(&self, _: &ClientConnectInfo) -> Result<(), ConnectFailure> {
        Ok(())
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) enum Secure {}

impl Secure {
    pub(crate) fn flush(
        &mut self,
        _: &mut TxQueue,
        _: &mut BufferPool,
        _: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Flushed> {
        match *self {}
    }

    pub(crate) fn is_calm(&self) -> bool {
        match *self {}
    }

    pub(crate) fn say_goodbye(&mut self, _: &mut BufferPool) {
        match *self {}
    }

    pub(crate) fn is_flushed(&self) -> bool {
        match *self {}
    }

    pub(crate) fn waiting(&self) -> usize {
        match *self {}
    }

    pub(crate) fn undelivered(&self) -> usize {
        match *self {}
    }

    pub(crate) fn memory(&self) -> usize {
        match *self {}
    }
}

impl Lift<'_> {
    pub(crate) fn is_secure_or_sniffing(&self) -> bool {
        false
    }

    pub(crate) fn is_in_tls_handshake(&self) -> bool {
        false
    }

    pub(crate) fn is_foreign(&mut self, _: &[u8]) -> bool {
        false
    }

    pub(crate) fn received_records(&mut self, _: &mut [u8], _: usize) {}

    pub(crate) fn visit_records_calmly(&mut self, _: bool) -> Option<usize> {
        Some(0)
    }

    pub(crate) fn announce_end(&mut self) {}

    pub(crate) fn records_ended(&mut self, _: Instant) {}

    pub(crate) fn truncation(&mut self) -> Option<crate::error::CloseCause> {
        None
    }

    pub(crate) fn time_out_handshake(&mut self, _: Deadline) -> bool {
        false
    }
}
