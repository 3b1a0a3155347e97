//! The files by which failpoints are armed, and tell that they were passed; see `berth_failpoint`.

use std::{fs, path::PathBuf};

use berth_failpoint::{Point, VARIABLE};

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The process that passes is killed.
    Kill,
    /// The step fails though it was done.
    Error,
}

/// The directory that the daemon, by inheritance its shims too, looks into.
pub(crate) struct Failpoints(PathBuf);

impl Failpoints {
    /// The one that hack/crash made.
    pub(crate) fn given() -> Self {
        let failpoints = Self(berth_tests::program(VARIABLE));
        failpoints.disarm();
        failpoints
    }

    /// Nothing happens anywhere, and nothing was passed yet.
    pub(crate) fn disarm(&self) {
        for name in ["armed", "fired", "passed"] {
            let directory = self.0.join(name);
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
        }
    }

    /// Has `action` happen at the pass of this number, counted from the last time everything was disarmed.
    pub(crate) fn arm(&self, point: &Point, action: Action, pass: u64) {
        let word = if action == Action::Kill { "kill" } else { "error" };
        fs::write(self.0.join("armed").join(point.name), format!("{word} {pass}")).unwrap();
    }

    /// How often the point was passed.
    pub(crate) fn passes(&self, point: &Point) -> u64 {
        fs::metadata(self.0.join("passed").join(point.name)).map_or(0, |passed| passed.len())
    }

    /// Whether it has acted.
    pub(crate) fn has_fired(&self, point: &Point) -> bool {
        self.0.join("fired").join(point.name).exists()
    }
}
