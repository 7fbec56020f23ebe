//! What a callback may do about HTTP requests.

use super::error::{FetchError, FetchWriteError};
use super::info::FetchInfo;
use crate::conn::Queued;
use crate::error::Gone;
use crate::id::{FetchId, VhostId};
use crate::wsi::Cx;

impl Cx<'_> {
    /// Begins an HTTP request as a client of a vhost. Nothing happens inside this call but checks;
    /// the outcome comes to the [`HttpClientHandler`](crate::HttpClientHandler) that the
    /// description names, by default the vhost's first one, as exactly one `on_done`.
    ///
    /// # Errors
    ///
    /// If nothing can be fetched at all: unknown vhost or handler, no client TLS or a name that TLS
    /// cannot use, shutdown. No callback follows then.
    pub fn fetch(&mut self, vhost: VhostId, info: FetchInfo) -> Result<FetchId, FetchError> {
        self.inner.fetch(vhost, info)
    }

    /// Gives a request up: [`on_done`](crate::HttpClientHandler::on_done) follows, and nothing else.
    ///
    /// # Errors
    ///
    /// [`Gone`] if it is over, or given up already.
    pub fn cancel_fetch(&mut self, id: FetchId) -> Result<(), Gone> {
        self.inner.cancel_fetch(id)
    }

    /// Queues a piece of a request's body that is
    /// [streamed](crate::FetchInfo::streamed_body). It may be called before there is a connection.
    ///
    /// # Errors
    ///
    /// [`FetchWriteError::Full`] at the cap ([`Limits::output_bytes`](crate::Limits::output_bytes)),
    /// with nothing queued; the others say what is wrong.
    pub fn fetch_write(&mut self, id: FetchId, data: &[u8]) -> Result<Queued, FetchWriteError> {
        self.inner.write_fetch(id, data)
    }

    /// Ends a request's body that is streamed.
    ///
    /// # Errors
    ///
    /// [`FetchWriteError::Body`] when less was written than declared.
    pub fn fetch_finish(&mut self, id: FetchId) -> Result<(), FetchWriteError> {
        self.inner.finish_fetch(id)
    }

    /// Asks for one [`on_writable`](crate::HttpClientHandler::on_writable) of a request whose body
    /// is streamed, when at most
    /// [`Limits::output_low_water`](crate::Limits::output_low_water) bytes wait.
    ///
    /// # Errors
    ///
    /// [`FetchWriteError`] when nothing can be written any more.
    pub fn request_fetch_writable(&mut self, id: FetchId) -> Result<(), FetchWriteError> {
        self.inner.request_fetch_writable(id)
    }

    /// Takes nothing more of a request's response until [`Cx::resume_fetch`]: once the system's
    /// buffers are full the peer cannot send. Its end may come all the same, once nothing of it is
    /// held back.
    ///
    /// # Errors
    ///
    /// [`Gone`] if it is over.
    pub fn pause_fetch(&mut self, id: FetchId) -> Result<(), Gone> {
        self.inner.pause_fetch(id, true)
    }

    /// Undoes [`Cx::pause_fetch`].
    ///
    /// # Errors
    ///
    /// [`Gone`] if it is over.
    pub fn resume_fetch(&mut self, id: FetchId) -> Result<(), Gone> {
        self.inner.pause_fetch(id, false)
    }
}
