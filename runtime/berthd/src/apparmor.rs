//! Berth's AppArmor profile, for containers that ask for the runtime's default.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::spec::apparmor::Confinement;

const PROFILE_NAME: &str = "berth-default";
/// Time limit for loading the profile: the daemon serves no call before.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Denies writes to kernel settings, mounts, and ptrace of processes outside the profile. It guards against mistakes of
/// the kernel or the administrator more than against containers: their capabilities and read-only mounts already forbid
/// the same.
const PROFILE: &str = "\
profile berth-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=berth-default,
  ptrace (trace, read, tracedby, readby) peer=berth-default,

  deny mount,
  deny /proc/[^0-9]* wklx,
  deny /proc/sys/[^kn]*/** wklx,
  deny /proc/sys/kernel/[^sm]** wklx,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/mem rwklx,
  deny /proc/kmem rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Loads Berth's profile if the kernel has AppArmor enabled. If loading fails, a warning says why, and containers that
/// are to run with the profile are refused until it has been loaded by other means.
pub async fn set_up() -> Confinement {
    if !is_enabled(Path::new("/")) {
        return Confinement::Absent;
    }
    let late = |_| io::Error::other(format!("apparmor_parser: no end after {LOAD_TIMEOUT:?}"));
    let loaded = timeout(LOAD_TIMEOUT, load()).await.map_err(late).flatten();
    let lacking = loaded.err().map(|error| error.to_string());
    if let Some(error) = &lacking {
        tracing::warn!(%error, profile = PROFILE_NAME, "cannot be loaded: containers that are to run with it are refused");
    }
    Confinement::Enabled { own: PROFILE_NAME, lacking }
}

fn is_enabled(root: &Path) -> bool {
    let state = std::fs::read_to_string(root.join("sys/module/apparmor/parameters/enabled"));
    state.is_ok_and(|state| state.starts_with('Y'))
}

async fn load() -> io::Result<()> {
    let mut parser = Command::new("apparmor_parser");
    parser
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut parser = parser.spawn().map_err(|error| io::Error::other(format!("apparmor_parser: {error}")))?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(PROFILE.as_bytes()).await?;
    }
    let ended = parser.wait_with_output().await?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "apparmor_parser: {}: {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_enabled_only_where_the_kernel_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_enabled(root.path()));
        let file = root.path().join("sys/module/apparmor/parameters/enabled");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (state, expected) in [("Y\n", true), ("N\n", false), ("", false)] {
            std::fs::write(&file, state).unwrap();
            assert_eq!(is_enabled(root.path()), expected, "{state:?}");
        }
    }
}
