//! The host's `/proc`, verified to be procfs. Writes to it set kernel parameters and labels. If a mount or a symlink
//! had come in between, they would do nothing, or something else (CVE-2019-16884, CVE-2025-52881).

use super::error::At;
use super::inroot::open_at;
use super::{Error, Step};
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// `PROC_SUPER_MAGIC`.
const PROC: i64 = 0x9fa0;
/// `PROC_ROOT_INO`.
const ROOT: u64 = 1;

/// The root directory of a procfs.
#[derive(Debug)]
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// Opens `/proc` of the calling process's root, on behalf of `step`.
    pub(super) fn open(step: Step) -> Result<Self, Error> {
        Self::at(Path::new("/proc"), step)
    }

    fn at(path: &Path, step: Step) -> Result<Self, Error> {
        let what = || format!("open {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty()).at(step, what)?;
        let is_proc = fstatfs(&root).at(step, what)?.f_type == PROC;
        match is_proc && fstat(&root).at(step, what)?.st_ino == ROOT {
            true => Ok(Self(root)),
            false => Err(Error::invalid(step, format!("{} is not a procfs", path.display()))),
        }
    }

    /// Opens a file in it for writing. `EXDEV` when a mount covers the way.
    pub(super) fn write_to(&self, path: &Path) -> Result<File, Errno> {
        open_at(self.0.as_fd(), path, OFlags::WRONLY).map(File::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys;
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

    #[test]
    fn only_the_root_of_a_procfs_is_taken_for_one() {
        assert!(Proc::open(Step::Sysctl).is_ok());
        for path in ["/tmp", "/proc/sys", "/sys"] {
            let error = Proc::at(Path::new(path), Step::Sysctl).map(drop).unwrap_err();
            assert_eq!(error.to_string(), format!("sysctl: {path} is not a procfs"));
        }
    }

    #[test]
    fn a_label_goes_to_the_process_itself() {
        let proc = Proc::open(Step::Security).unwrap();
        assert!(proc.write_to(Path::new("self/comm")).is_ok());
        assert_eq!(proc.write_to(Path::new("self/fd/0")).unwrap_err(), Errno::LOOP);
        assert_eq!(proc.write_to(Path::new("../proc/self/comm")).unwrap_err(), Errno::XDEV);
    }

    #[test]
    fn root_what_covers_a_file_is_not_written() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
        let base = tempfile::tempdir().unwrap();
        let fake = base.path().join("fake");
        std::fs::write(&fake, "").unwrap();
        let refused = || {
            sys::unshare(libc::CLONE_NEWNS).ok()?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).ok()?;
            mount_bind(&fake, "/proc/sys/kernel/shmmax").ok()?;
            let path = Path::new("sys/kernel/shmmax");
            Some(Proc::open(Step::Sysctl).ok()?.write_to(path).err()? == Errno::XDEV)
        };
        let child = sys::fork(|| u8::from(refused() != Some(true))).unwrap();
        let child = rustix::process::Pid::from_raw(child as i32);
        let waited = rustix::process::waitpid(child, rustix::process::WaitOptions::empty());
        assert_eq!(waited.unwrap().unwrap().1.exit_status(), Some(0));
    }
}
