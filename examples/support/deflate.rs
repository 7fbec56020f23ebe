//! `--deflate shared|takeover` of the examples, as settings.
#![allow(unreachable_pub, reason = "a part of several examples")]

use std::fmt::Display;
use std::num::ParseIntError;

use wsloop::ws::deflate::{DeflateConfig, Takeover};

/// With `shared` connections share their compressors; with `takeover` each keeps its own, and its
/// messages refer to those before. Every message is compressed, however short. A level may follow
/// (`shared:6`), and behind that the bits of the window that each keeps
/// (`takeover:2:12`).
pub fn config(said: Option<&str>) -> Result<Option<DeflateConfig>, String> {
    let Some(said) = said else {
        return Ok(None);
    };
    let mut config = DeflateConfig::new().threshold(0);
    let mut words = said.split(':');
    let mode = words.next().unwrap_or_default();
    let wrong = |what: &dyn Display| format!("--deflate {said}: {what}");
    if let Some(level) = words.next() {
        let level = level
            .parse()
            .map_err(|error: ParseIntError| wrong(&error))?;
        config = config.level(level).map_err(|error| wrong(&error))?;
    }
    if let Some(bits) = words.next() {
        let bits = bits.parse().map_err(|error: ParseIntError| wrong(&error))?;
        let kept = config.kept_window_bits(bits);
        config = kept.map_err(|error| wrong(&error))?;
    }
    match mode {
        "shared" => Ok(Some(config)),
        "takeover" => Ok(Some(config.context_takeover(Takeover::Both))),
        other => Err(format!("--deflate {other}: say shared or takeover")),
    }
}
