//! Crash tests: a kill and an error at every step that changes the host, and a search for leftovers after each.
//! `hack/crash` builds berthd and its shim with failpoints, and runs this.
//!
//! `crash [--sample] [--only NAME] [--random N] [--seed S]`: the last line is `N passed, N failed`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failpoints;
mod host_state;
mod life;
mod matrix;
mod random;
mod report;
mod world;

use std::{env, process::ExitCode};

use report::Report;
use world::TestNode;

/// Why a case failed, as a sentence.
type Failure = String;

/// The command line.
struct Arguments {
    /// Whether each point acts at its first pass only.
    sample: bool,
    /// Part of the names of the points to run; all points if `None`.
    only: Option<String>,
    /// Number of kills at random instants.
    random: u64,
    /// Seed of all random choices. The instants also depend on how fast the machine is.
    seed: u64,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, Failure> {
    let mut parsed = Arguments { sample: false, only: None, random: 3000, seed: 1 };
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is no number"));
        match argument.as_str() {
            "--sample" => (parsed.sample, parsed.random) = (true, 100),
            "--only" => (parsed.only, parsed.random) = (Some(value()?), 0),
            "--random" => parsed.random = number(value()?)?,
            "--seed" => parsed.seed = number(value()?)?,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(parsed)
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("crash: {wrong}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    let mut world = TestNode::start().await;
    matrix::run(&mut world, &arguments, &mut report).await;
    random::run(&mut world, &arguments, &mut report).await;
    report.case("the bystander's log has every line once", world.bystander_printed_all());
    world.end(&mut report).await;
    report.print();
    if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
