//! `berthd check`: whether records, directories, processes, mounts, control groups, the network and images agree.
//!
//! Nothing is asked of a daemon or a shim: what is on the disk and in the kernel is compared. On the root of a daemon that runs
//! nothing is mended, and what it is just doing may be found half done. No daemon starts while one is being mended.

mod directories;
mod images;
mod kernel;
mod network;
mod records;
mod remedy;
mod shims;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use crate::{
    config::Config,
    error::{Error, Kind, Result},
    layout::Layout,
    server::{Lock, LockError},
};
use records::Records;
use remedy::Remedy;

/// One mending may bring the next to light: directories lose their owner when a record goes.
const ROUNDS: usize = 3;

/// What does not agree with the rest.
#[derive(Debug)]
pub struct Finding {
    /// A sentence that names both sides.
    what: String,
    /// What sets it right without harm to anything that is on record or runs.
    remedy: Option<Remedy>,
}

impl Finding {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None }
    }

    fn mended_by(what: impl Into<String>, remedy: Remedy) -> Self {
        Self { what: what.into(), remedy: Some(remedy) }
    }
}

/// What a check came to: a line for each finding, and whether any is still there.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order in which things were looked at.
    pub lines: Vec<String>,
    /// Something does not agree, also after repairing.
    pub wrong: bool,
}

/// Everything that is compared.
struct Scene {
    layout: Layout,
    config: Config,
    records: Records,
    shims: shims::Shims,
}

impl Scene {
    fn look(config: &Config) -> Result<(Self, Vec<Finding>)> {
        let layout = Layout::of(&config.root, &config.state, &config.network.netns_dir);
        let (records, unreadable) = Records::read(&layout.database())?;
        let scene = Self { layout, config: config.clone(), records, shims: shims::Shims::running() };
        Ok((scene, unreadable))
    }

    fn findings(&self) -> Result<Vec<Finding>> {
        let mut findings = self.records.disagreements();
        findings.extend(directories::disagreements(self));
        findings.extend(shims::disagreements(self));
        findings.extend(kernel::disagreements(self));
        findings.extend(network::disagreements(self));
        findings.extend(images::disagreements(self)?);
        Ok(findings)
    }
}

/// Looks at the daemon's directories that the configuration names, and with `repair` sets right what is safe.
///
/// # Errors
///
/// `FailedPrecondition` when a repair is asked for while a daemon runs; what keeps the records from being read at all.
pub async fn check(config: &Config, repair: bool) -> Result<Outcome> {
    if !config.root.is_dir() {
        return Err(Error::not_found("root directory", &config.root.display().to_string()));
    }
    // Whoever only looks keeps no daemon from starting.
    let _lock = match repair {
        true => {
            Some(Lock::take(&config.root, Duration::ZERO).await.map_err(|error| not_alone(config, error))?)
        }
        false => None,
    };
    let mut outcome = Outcome::default();
    for _ in 0..ROUNDS {
        let (scene, mut findings) = Scene::look(config)?;
        findings.extend(scene.findings()?);
        if !outcome.report(&scene, findings, repair) {
            break;
        }
    }
    Ok(outcome)
}

fn not_alone(config: &Config, error: LockError) -> Error {
    match error {
        LockError::Held { holder, .. } => {
            let text = format!("repair {}: berthd runs there, process {holder}", config.root.display());
            Error::new(Kind::FailedPrecondition, text)
        }
        error => Error::caused(Kind::Internal, "check that no daemon runs", error),
    }
}

impl Outcome {
    /// Takes the findings of one round; whether any was mended, so that there may be others now.
    fn report(&mut self, scene: &Scene, findings: Vec<Finding>, repair: bool) -> bool {
        let mut mended = false;
        self.wrong = false;
        for Finding { what, remedy } in findings {
            let line = match remedy.filter(|_| repair).map(|remedy| remedy.apply(&scene.layout)) {
                Some(Ok(())) => {
                    mended = true;
                    format!("{what} (mended)")
                }
                Some(Err(error)) => format!("{what} (could not be mended: {error})"),
                None => what,
            };
            self.wrong |= !line.ends_with("(mended)");
            if !self.lines.contains(&line) {
                self.lines.push(line);
            }
        }
        mended
    }
}

/// The entries of a directory, by name; none when it is not there.
fn entries(directory: &std::path::Path) -> Vec<(String, PathBuf)> {
    let names = crate::runtime::names_in(directory).into_iter();
    let mut entries: Vec<_> = names.map(|name| (name.clone(), directory.join(name))).collect();
    entries.sort();
    entries
}
