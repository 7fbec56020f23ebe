//! `--deflate shared|takeover` of the examples, as settings.
#![allow(unreachable_pub, reason = "a part of several examples")]

use wsloop::ws::deflate::{DeflateConfig, Takeover};

/// With `shared` connections share their compressors; with `takeover` each keeps its own, and its
/// messages refer to those before. Every message is compressed, however short.
pub fn config(said: Option<&str>) -> Result<Option<DeflateConfig>, String> {
    let config = DeflateConfig::new().threshold(0);
    match said {
        None => Ok(None),
        Some("shared") => Ok(Some(config)),
        Some("takeover") => Ok(Some(config.context_takeover(Takeover::Both))),
        Some(other) => Err(format!("--deflate {other}: say shared or takeover")),
    }
}
