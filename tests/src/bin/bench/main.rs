//! Benchmark: the same CRI calls to several container runtimes in turn. `hack/bench` starts the runtimes and this client;
//! DIR is the directory that `hack/start` made for a runtime.
//!
//! `bench [--rounds N] [--only PART] [--json FILE] [--pull IMAGE] NAME=DIR...`: the other runtimes are compared with the
//! last one.

#![forbid(unsafe_code)]

mod density;
mod lifecycle;
mod logs;
mod process;
mod pull;
mod report;
mod runtime;
mod stats;

use std::{env, path::PathBuf};

use report::Report;
use runtime::Runtime;

/// Result of a measurement. Errors are only printed, so they need no type of their own.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Values of `--only`.
const PARTS: [&str; 5] = ["lifecycle", "logs", "pull", "density", "stats"];

/// Image of every container of the benchmark. (`--pull` names another one, which is only pulled.)
const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";

struct Arguments {
    rounds: usize,
    only: Option<String>,
    json: Option<PathBuf>,
    pull: Option<String>,
    runtimes: Vec<(String, PathBuf)>,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut parsed = Arguments { rounds: 15, only: None, json: None, pull: None, runtimes: Vec::new() };
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--rounds" => parsed.rounds = value()?.parse()?,
            "--only" => parsed.only = Some(part(value()?)?),
            "--json" => parsed.json = Some(value()?.into()),
            "--pull" => parsed.pull = Some(value()?),
            other => {
                let (name, dir) = other.split_once('=').ok_or(format!("{other:?} is not NAME=DIR"))?;
                parsed.runtimes.push((name.into(), dir.into()));
            }
        }
    }
    match parsed.runtimes.is_empty() {
        true => Err("no runtime to measure".into()),
        false => Ok(parsed),
    }
}

fn part(name: String) -> Result<String> {
    match PARTS.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(format!("{name:?} is none of {PARTS:?}").into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = arguments(env::args().skip(1))?;
    let mut runtimes = Vec::new();
    for (name, dir) in &arguments.runtimes {
        let runtime = Runtime::connect(name, dir).await?;
        runtime.pull(IMAGE).await?;
        runtimes.push(runtime);
    }
    let mut report = Report::new(&runtimes);
    let wanted = |part| arguments.only.as_deref().is_none_or(|only| only == part);
    if wanted("lifecycle") {
        lifecycle::measure(&runtimes, arguments.rounds, &mut report).await?;
    }
    if wanted("logs") {
        logs::measure(&runtimes, &mut report).await?;
    }
    if let Some(image) = arguments.pull.as_ref().filter(|_| wanted("pull")) {
        pull::measure(&runtimes, image, &mut report).await?;
    }
    if wanted("density") {
        density::measure(&mut runtimes, &mut report).await?;
    }
    if wanted("stats") {
        stats::measure(&runtimes, &mut report).await?;
    }
    print!("{}", report.table());
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report.json())?)?;
    }
    Ok(())
}
