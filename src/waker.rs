//! The only call that may come from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::poller::WakeHandle;

/// Wakes a context's loop from any thread; [`on_wake`](crate::Protocol::on_wake) follows on every
/// protocol.
///
/// Made by [`Context::cancel_service_handle`](crate::Context::cancel_service_handle). Cheap to
/// clone. What is to be done travels by a channel of the application's own, which the protocol
/// holds and drains in `on_wake`.
#[derive(Clone, Debug)]
pub struct CancelService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    called: AtomicBool,
    wake: WakeHandle,
}

impl CancelService {
    pub(crate) fn new(wake: WakeHandle) -> Self {
        Self {
            shared: Arc::new(Shared {
                called: AtomicBool::new(false),
                wake,
            }),
        }
    }

    /// Ends the wait of the loop, now or, if it does not wait, the next one. Never blocks.
    ///
    /// Calls merge: at least one `on_wake` begins after the last of them. After the context is
    /// gone the call does nothing.
    pub fn cancel_service(&self) {
        if !self.shared.called.swap(true, Ordering::AcqRel) {
            // The poller's descriptor outlives the context in this handle, so the one failure
            // left is a full counter, which means that the loop is being woken already.
            let _ = self.shared.wake.wake();
        }
    }

    /// Whether somebody called since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.shared.called.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody called and was not heard yet.
    pub(crate) fn is_called(&self) -> bool {
        self.shared.called.load(Ordering::Acquire)
    }
}
