//! Arms failpoints and reads their passes, through the files described in `berth_failpoint`.

use std::{fs, path::PathBuf};

use berth_failpoint::{Point, VARIABLE};

/// Action of an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Kills the process that passes the point.
    Kill,
    /// Makes the step return an error although it was done.
    Error,
}

/// Directory of the failpoints' files. The daemon and its shims inherit its path in their environment.
pub(crate) struct Failpoints(PathBuf);

impl Failpoints {
    /// Takes the directory that hack/crash made, and disarms every point.
    pub(crate) fn given() -> Self {
        let failpoints = Self(berth_tests::program(VARIABLE));
        failpoints.disarm();
        failpoints
    }

    /// Disarms every point and resets all counts.
    pub(crate) fn disarm(&self) {
        for name in ["armed", "fired", "passed"] {
            let directory = self.0.join(name);
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
        }
    }

    /// Arms a point for `action` at this pass, counted from 1 since the last [`Self::disarm`].
    pub(crate) fn arm(&self, point: &Point, action: Action, pass: u64) {
        let word = if action == Action::Kill { "kill" } else { "error" };
        fs::write(self.0.join("armed").join(point.name), format!("{word} {pass}")).unwrap();
    }

    /// How often the point was passed since the last [`Self::disarm`].
    pub(crate) fn passes(&self, point: &Point) -> u64 {
        fs::metadata(self.0.join("passed").join(point.name)).map_or(0, |passed| passed.len())
    }

    /// Whether the point has acted.
    pub(crate) fn has_fired(&self, point: &Point) -> bool {
        self.0.join("fired").join(point.name).exists()
    }
}
