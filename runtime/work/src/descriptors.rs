//! The daemon's limit of open files: its soft limit is raised to the hard one, and programs and containers get the
//! original.

use std::{io, sync::OnceLock};

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::process::Child;

/// The limit that the daemon was started with.
static ORIGINAL_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one. Returns the original limit, for containers: programs that use select(2), or
/// that close all possible descriptors, need a low soft limit.
pub fn raise_limit() -> io::Result<PosixRlimit> {
    let given = *ORIGINAL_LIMIT.get_or_init(|| getrlimit(Resource::Nofile));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: given.maximum, ..given }) {
        tracing::warn!(%error, "the limit of descriptors stays as it was given");
    }
    as_oci(given)
}

/// Sets the original limit on a program that was just started; children that it starts from then on inherit it. It
/// cannot be set between fork and exec without unsafe code. Not for shims, which raise their own limit.
pub fn restore_limit(child: &Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    if let (Some(given), Some(pid)) = (ORIGINAL_LIMIT.get(), pid) {
        // Fails for a process that has already ended.
        let _ = prlimit(Some(pid), Resource::Nofile, *given);
    }
}

fn as_oci(limit: Rlimit) -> io::Result<PosixRlimit> {
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(limit.current.unwrap_or(u64::MAX))
        .hard(limit.maximum.unwrap_or(u64::MAX))
        .build()
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // A single test, because the limit belongs to the whole process and the original is stored once.
    #[tokio::test]
    async fn the_soft_limit_becomes_the_hard_one_and_programs_get_the_former_back() {
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum: hard }).unwrap();
        let former = raise_limit().unwrap();
        assert_eq!((former.soft(), former.hard()), (1000, hard.unwrap_or(u64::MAX)));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);

        let mut sleep = tokio::process::Command::new("sleep");
        let child = sleep.arg("1000").kill_on_drop(true).spawn().inspect(restore_limit).unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().nth(3), Some("1000"));
    }
}
