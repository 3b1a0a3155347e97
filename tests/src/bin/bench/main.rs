//! The same calls to several container runtimes in turn, and what each of them takes. `hack/bench` starts the runtimes
//! and this client; a runtime is known by the directory `hack/start` made for it.
//!
//! `bench [--rounds N] [--only PART] [--json FILE] [--pull IMAGE] NAME=DIR...`: the last one is what the others are compared
//! with.

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

/// What a measurement ends in; a benchmark that fails just says why.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What `--only` takes.
const PARTS: [&str; 5] = ["lifecycle", "logs", "pull", "density", "stats"];

/// Every container of the benchmark but the pulled image runs this.
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
