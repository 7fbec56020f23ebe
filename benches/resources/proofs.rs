//! The attacks. Each prints what it did, what the server spent on it, and how those fared who were
//! connected beside it.

pub(crate) mod churn;
pub(crate) mod flood;
pub(crate) mod half_open;
pub(crate) mod idle;
pub(crate) mod slow;

use std::error::Error;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::crowd::{Crowd, Latencies};
use crate::server::{Figures, Server};

pub(crate) fn run(proof: &str, words: &[&str]) -> Outcome {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (settings, numbers): (Vec<&str>, Vec<&str>) =
        words.iter().copied().partition(|word| word.contains('='));
    let count = numbers.first().map(|number| number.parse()).transpose()?;
    match proof {
        "slowloris" => slow::heads(count.unwrap_or(5000), &settings),
        "readers" => slow::readers(count.unwrap_or(200), &settings),
        "pings" => flood::pings(count.unwrap_or(1_000_000), &settings),
        "half-open" => half_open::silent(count.unwrap_or(5000), &settings),
        "descriptors" => half_open::descriptors(count.unwrap_or(3000), &settings),
        "churn" => churn::churn(count.unwrap_or(1_000_000), &settings),
        "flood" => flood::beside(count.unwrap_or(1000), &settings),
        "idle" => idle::idle(count, &settings),
        other => Err(format!("{other} is no proof").into()),
    }
}

/// A server with some who behave, and how they fare while nothing happens.
struct Scene {
    server: Server,
    crowd: Crowd,
    quiet: Latencies,
    /// Before the attack.
    idle: Figures,
}

impl Scene {
    /// A hundred connections that speak ten times a second each.
    fn set(settings: &[&str]) -> Result<Self, Box<dyn Error>> {
        Self::with(settings, 100, WELL_EVERY)
    }

    fn with(settings: &[&str], count: usize, every: Duration) -> Result<Self, Box<dyn Error>> {
        let mut server = Server::start(settings)?;
        let mut crowd = Crowd::open(server.address, count)?;
        crowd.talk_for(Duration::from_secs(1), every)?;
        let (before, begin) = (server.figures()?, Instant::now());
        let quiet = crowd.talk_for(QUIET, every)?;
        let idle = server.figures()?;
        spent("in peace", &before, &idle, begin);
        Ok(Self {
            server,
            crowd,
            quiet,
            idle,
        })
    }
}

/// How often each of those who behave speaks.
const WELL_EVERY: Duration = Duration::from_millis(100);
/// How long it is looked how they fare in peace.
const QUIET: Duration = Duration::from_secs(5);

/// What the server spent since `before` was measured.
fn spent(what: &str, before: &Figures, now: &Figures, begin: Instant) {
    let time = begin.elapsed();
    let processor = now.processor.saturating_sub(before.processor);
    println!(
        "{what}: {:.2} s of processor in {:.2} s ({:.1} %), {} turns",
        processor.as_secs_f64(),
        time.as_secs_f64(),
        100.0 * processor.as_secs_f64() / time.as_secs_f64(),
        now.turns - before.turns,
    );
}

/// What `count` connections hold.
fn held(what: &str, count: usize, idle: &Figures, now: &Figures) {
    let each = |now: usize, idle: usize| now.saturating_sub(idle) / count.max(1);
    println!(
        "{what}: {} bytes each by the library's account, {} by the allocator's, {} by the system's",
        each(now.memory, idle.memory),
        each(now.live, idle.live),
        each(now.resident, idle.resident),
    );
}

fn fared(quiet: &Latencies, during: &Latencies) {
    println!("the others in peace: {quiet}");
    println!(
        "the others meanwhile: {during}; p99 times {:.2}",
        during.times(quiet)
    );
}
