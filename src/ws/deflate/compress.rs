//! Compressing.
