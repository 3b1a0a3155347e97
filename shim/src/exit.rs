//! How a process ended, and the record of it that outlives the shim.

use crate::record;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the record in a container's bundle.
pub const FILE_NAME: &str = "exit.json";

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// 0 to 255; 128 + signal when a signal ended it.
    pub code: u32,
    /// Nanoseconds since the Unix epoch.
    pub finished_at: i64,
    /// The kernel's OOM killer struck in the container's cgroup.
    pub oom_killed: bool,
    /// Why the shim could not run or watch the process; else empty.
    pub message: String,
}

impl Exit {
    /// A process that has ended just now.
    pub fn now(code: u32, message: impl Into<String>) -> Self {
        Self { code, finished_at: now(), oom_killed: false, message: message.into() }
    }

    /// Puts the record into the bundle; nobody ever sees half of it.
    pub fn write(&self, bundle: &Path) -> io::Result<()> {
        record::write(&bundle.join(FILE_NAME), self)
    }

    /// The record of a bundle, if its container has ended.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(FILE_NAME))
    }
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn a_record_is_read_back_as_written_and_leaves_no_staging_file() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Exit::read(bundle.path()).unwrap(), None);
        let exit = Exit { code: 137, finished_at: 5, oom_killed: true, message: "why".into() };
        exit.write(bundle.path()).unwrap();
        assert_eq!(Exit::read(bundle.path()).unwrap(), Some(exit));
        assert_eq!(fs::read_dir(bundle.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_a_success() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join(FILE_NAME), b"{\"code\":").unwrap();
        assert!(Exit::read(bundle.path()).is_err());
    }
}
