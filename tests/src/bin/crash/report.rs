//! Counts and failures of the whole run.

use std::collections::BTreeSet;

use crate::{Failure, life::Outcome};

/// Counts of cases, kills and errors.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Names of the points that acted.
    pub(crate) points: BTreeSet<&'static str>,
    daemon_kills: usize,
    shim_kills: usize,
    errors: usize,
    retries: usize,
    leaks: usize,
}

impl Report {
    /// Counts a case; prints it if it failed.
    pub(crate) fn case(&mut self, name: &str, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => {
                self.failed += 1;
                println!("FAILED {name}: {why}");
            }
        }
    }

    /// Adds the counts of one life.
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        self.daemon_kills += outcome.daemon_kills;
        self.shim_kills += outcome.shim_kills;
        self.errors += outcome.errors.len();
        self.retries += outcome.retries;
    }

    /// Counts a life that left something behind.
    pub(crate) fn leak(&mut self) {
        self.leaks += 1;
    }

    /// Prints all counts. hack/test reads the last line.
    pub(crate) fn print(&self) {
        println!("failpoints that acted: {}", self.points.len());
        println!("kills: {} of berthd, {} of a shim or its stages", self.daemon_kills, self.shim_kills);
        println!("errors answered: {}", self.errors);
        println!("retries: {}", self.retries);
        println!("leaks: {}", self.leaks);
        println!("{} passed, {} failed", self.passed, self.failed);
    }
}
