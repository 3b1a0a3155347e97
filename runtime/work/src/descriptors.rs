//! How many descriptors the daemon may have open: as many as it is allowed. Containers get what the daemon was given.

use std::{io, sync::OnceLock};

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::process::Child;

/// The limit that the daemon was started with.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one, and returns the limit of before. A program that waits with select(2), or closes
/// all descriptors that there may be, wants the low soft limit of old, so that a container is not to inherit the high one.
pub fn raise_limit() -> io::Result<PosixRlimit> {
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: given.maximum, ..given }) {
        tracing::warn!(%error, "the limit of descriptors stays as it was given");
    }
    as_oci(given)
}

/// Puts the limit back for a program that was just started, and what that starts: nothing can be set between fork and exec
/// without unsafe code. A shim is none of these, it raises its own.
pub fn put_back(child: &Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    if let (Some(given), Some(pid)) = (GIVEN.get(), pid) {
        // One that has ended already needs no limit.
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

    // One test: the limit is the process's, and what was given is kept once.
    #[tokio::test]
    async fn the_soft_limit_becomes_the_hard_one_and_programs_get_the_former_back() {
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum: hard }).unwrap();
        let former = raise_limit().unwrap();
        assert_eq!((former.soft(), former.hard()), (1000, hard.unwrap_or(u64::MAX)));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);

        let mut sleep = tokio::process::Command::new("sleep");
        let child = sleep.arg("1000").kill_on_drop(true).spawn().inspect(put_back).unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().nth(3), Some("1000"));
    }
}
