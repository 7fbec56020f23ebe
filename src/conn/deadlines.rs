//! When somebody must look at a connection again, and why it ends.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::error::CloseCause;

/// The times at which somebody must look at a connection again, and why it ends. Most have none,
/// and own nothing then but room for a pointer.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Option<Box<Times>>);

#[derive(Debug)]
pub(crate) struct Times {
    /// Of the stage it is in: head, verdict, dialling, closing, lingering.
    pub(crate) stage: Option<Instant>,
    /// Of the message that has begun.
    pub(crate) message: Option<Instant>,
    /// Of output that makes no progress.
    pub(crate) write: Option<Instant>,
    /// Of output at the lowest rate; progress moves it.
    pub(crate) rate: Option<Instant>,
    /// Why the connection ends: set once, by whatever ends it first.
    pub(crate) cause: Option<Box<CloseCause>>,
}

impl Times {
    const NONE: Self = Self {
        stage: None,
        message: None,
        write: None,
        rate: None,
        cause: None,
    };
}

impl Deadlines {
    #[inline]
    pub(crate) fn no_message(&mut self) {
        if let Some(times) = &mut self.0 {
            times.message = None;
        }
    }

    #[inline]
    pub(crate) fn no_output(&mut self) {
        if let Some(times) = &mut self.0 {
            times.write = None;
            times.rate = None;
        }
    }

    /// Gives the memory back, if there are none.
    pub(crate) fn trim(&mut self) {
        let all = [self.stage, self.message, self.write, self.rate];
        if all.iter().all(Option::is_none) && self.cause.is_none() {
            self.0 = None;
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |times| size_of_val(&**times))
    }
}

impl Deref for Deadlines {
    type Target = Times;

    #[inline]
    fn deref(&self) -> &Times {
        self.0.as_deref().unwrap_or(&Times::NONE)
    }
}

impl DerefMut for Deadlines {
    #[inline]
    fn deref_mut(&mut self) -> &mut Times {
        self.0.get_or_insert_with(|| Box::new(Times::NONE))
    }
}
