//! What hostile peers cost on real sockets: time, processor, memory, descriptors. The attacks are those
//! of `tests/resources.rs`, which asserts what can be counted; what can only be measured is printed
//! here, and stands in docs/promises-figures.md.
//!
//!     cargo bench --bench resources -- PROOF [COUNT] [KEY=VALUE...]
//!
//! `PROOF` is one of: slowloris, readers, pings, half-open, descriptors, churn, flood, idle. Each
//! starts a server in a process of its own, listens on 127.0.0.1 only, and ends by itself. `COUNT` is how
//! many connections there are; what comes behind is told to the server (`budget`: bytes read from a
//! connection in a turn; `output`: the cap on a connection's output; `connections`: how many it takes;
//! `descriptors`: as `ulimit -n`; `silence=ever`: nobody is pinged).
//! Nothing without such words, so that it may be run with all benches. Linux only.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    reason = "an attack lasts as long as it is told to"
)]

#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
mod proofs;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod system;

use std::error::Error;

type Outcome = Result<(), Box<dyn Error>>;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

#[cfg(target_os = "linux")]
fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // Cargo says that it is a bench.
    let words: Vec<&str> = words
        .into_iter()
        .filter(|word| *word != "--bench")
        .collect();
    match words[..] {
        ["server", ref settings @ ..] => server::serve(settings),
        ["flooder", address, kind] => proofs::flood::flooder(address.parse()?, kind),
        ["hold", address, count, place] => {
            proofs::idle::hold(address.parse()?, count.parse()?, place.parse()?)
        }
        [proof, ref rest @ ..] if !proof.starts_with('-') => proofs::run(proof, rest),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> Outcome {
    Ok(())
}
