//! The one place that reads the clock.

use std::fmt::Write;
use std::time::{Instant, SystemTime};

/// Where `now` comes from: the system's monotonic clock, or a simulated network's.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The system's monotonic clock; steps of the wall clock do not touch it.
    Os,
    /// The virtual clock of a simulated network.
    #[cfg(feature = "sim")]
    Sim(super::sim::Net),
}

impl Clock {
    /// The time now. The loop asks once a turn and passes the answer on.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the clock"
    )]
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::Os => Instant::now(),
            #[cfg(feature = "sim")]
            Self::Sim(net) => net.now(),
        }
    }

    /// Writes the date and time of day as HTTP has it (RFC 9110 section 5.6.7) over what is in
    /// `date`, without allocating when there is room.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the clock"
    )]
    pub(crate) fn http_date(&self, date: &mut String) {
        let wall = match self {
            Self::Os => SystemTime::now(),
            #[cfg(feature = "sim")]
            Self::Sim(net) => SystemTime::UNIX_EPOCH + net.elapsed(),
        };
        date.clear();
        let written = write!(date, "{}", httpdate::HttpDate::from(wall));
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}
