//! Whole contexts under a seeded storm: two of them talk to each other over a simulated network, to
//! strangers who break rules, through calls that fail, while applications do whatever they may at
//! any place, panics included. After every turn the loop's own bookkeeping is checked
//! (`Context::check_invariants`), and with every callback a model of the contract.
//!
//! `SEED=n` replays one seed and prints what happened, `SEEDS=from..to` runs a range.
#![cfg(all(
    feature = "sim",
    feature = "deflate",
    any(feature = "aws-lc-rs", feature = "ring")
))]
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says where it is, and fails by panicking"
)]

#[path = "support/manual.rs"]
mod manual;
#[path = "support/simpki.rs"]
mod simpki;
mod support;

mod sim {
    pub(crate) mod app;
    pub(crate) mod judge;
    pub(crate) mod model;
    mod regressions;
    pub(crate) mod storm;
    pub(crate) mod strangers;
    pub(crate) mod tricks;
    pub(crate) mod web;
    pub(crate) mod world;
}

use std::ops::Range;

use sim::storm::{Told, run};

/// So many seeds are run by default.
const SEEDS: u64 = 256;

#[test]
fn p1_p2_p3_p7_p8_random_storms_first_quarter() {
    quarter(0);
}

#[test]
fn p1_p2_p3_p7_p8_random_storms_second_quarter() {
    quarter(1);
}

#[test]
fn p1_p2_p3_p7_p8_random_storms_third_quarter() {
    quarter(2);
}

#[test]
fn p1_p2_p3_p7_p8_random_storms_last_quarter() {
    quarter(3);
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_last_line() {
    for seed in [3, 4, 5, 6] {
        let (one, other) = (run(seed, Told::Nothing), run(seed, Told::Nothing));
        assert!(one.len() > 100, "seed {seed} did nothing");
        for (line, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {line}");
        }
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}

fn quarter(quarter: u64) {
    let (seeds, told) = chosen();
    let mut done = 0;
    for seed in seeds.filter(|seed| seed % 4 == quarter) {
        run(seed, told);
        done += 1;
        if done % 1000 == 0 {
            println!("{done} seeds of this quarter, the last one {seed}");
        }
    }
}

fn chosen() -> (Range<u64>, Told) {
    let number = |text: &str| text.trim().parse().expect("a seed is a number");
    if let Ok(seed) = std::env::var("SEED") {
        let seed = number(&seed);
        return (seed..seed + 1, Told::Everything);
    }
    let Ok(range) = std::env::var("SEEDS") else {
        return (0..SEEDS, Told::Nothing);
    };
    let (from, to) = range.split_once("..").expect("SEEDS is a range: from..to");
    (number(from)..number(to), Told::Nothing)
}
