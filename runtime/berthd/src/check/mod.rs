//! `berthd check`: compares records, directories, processes, mounts, cgroups, the network and images.
//!
//! It reads the disk and the kernel and calls neither daemon nor shims. A repair is refused while a daemon runs on the
//! root, and no daemon starts during a repair. Beside a running daemon, operations in progress may show up as findings.

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

/// One repair may expose the next: directories lose their owner when a record is removed.
const MAX_ROUNDS: usize = 3;

/// A disagreement between two of the things compared.
#[derive(Debug)]
pub struct Finding {
    /// A sentence that names both sides.
    what: String,
    /// A repair that harms nothing that is on record or runs; `None` when there is none.
    remedy: Option<Remedy>,
}

impl Finding {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None }
    }

    fn repairable(what: impl Into<String>, remedy: Remedy) -> Self {
        Self { what: what.into(), remedy: Some(remedy) }
    }
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One line per finding, in the order of the checks.
    pub lines: Vec<String>,
    /// Whether findings remain, after the repair if one was asked for.
    pub wrong: bool,
}

/// Everything that the checks compare.
struct Inventory {
    layout: Layout,
    config: Config,
    records: Records,
    shims: shims::Shims,
}

impl Inventory {
    fn gather(config: &Config) -> Result<(Self, Vec<Finding>)> {
        let layout = Layout::of(&config.root, &config.state, &config.network.netns_dir);
        let (records, unreadable) = Records::read(&layout.database())?;
        let inventory = Self { layout, config: config.clone(), records, shims: shims::Shims::running() };
        Ok((inventory, unreadable))
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

/// Checks the daemon's directories that the configuration names, and with `repair` makes the safe repairs.
///
/// # Errors
///
/// `NotFound` when the root directory does not exist, `FailedPrecondition` when a repair is asked for while a daemon
/// runs; also when the database or the image index cannot be read at all.
pub async fn check(config: &Config, repair: bool) -> Result<Outcome> {
    if !config.root.is_dir() {
        return Err(Error::not_found("root directory", &config.root.display().to_string()));
    }
    // A check without repair takes no lock, so it keeps no daemon from starting.
    let _lock = match repair {
        true => {
            Some(Lock::take(&config.root, Duration::ZERO).await.map_err(|error| lock_failed(config, error))?)
        }
        false => None,
    };
    let mut outcome = Outcome::default();
    for _ in 0..MAX_ROUNDS {
        let (inventory, mut findings) = Inventory::gather(config)?;
        findings.extend(inventory.findings()?);
        if !outcome.report(&inventory, findings, repair) {
            break;
        }
    }
    Ok(outcome)
}

fn lock_failed(config: &Config, error: LockError) -> Error {
    match error {
        LockError::Held { holder, .. } => {
            let text = format!("repair {}: berthd runs there, process {holder}", config.root.display());
            Error::new(Kind::FailedPrecondition, text)
        }
        error => Error::caused(Kind::Internal, "check that no daemon runs", error),
    }
}

impl Outcome {
    /// Takes the findings of one round. Returns whether any was repaired, which may expose others.
    fn report(&mut self, inventory: &Inventory, findings: Vec<Finding>, repair: bool) -> bool {
        let mut mended = false;
        self.wrong = false;
        for Finding { what, remedy } in findings {
            let line = match remedy.filter(|_| repair).map(|remedy| remedy.apply(&inventory.layout)) {
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

/// Returns names and paths of a directory's entries, sorted; none when it cannot be read.
fn entries(directory: &std::path::Path) -> Vec<(String, PathBuf)> {
    let names = crate::runtime::names_in(directory).into_iter();
    let mut entries: Vec<_> = names.map(|name| (name.clone(), directory.join(name))).collect();
    entries.sort();
    entries
}
