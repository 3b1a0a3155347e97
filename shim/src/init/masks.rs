//! Paths hidden from the container and paths it may not write. Done when the container's root is `/`: whatever a path leads
//! to is the container's own.

use super::error::At;
use super::{Error, Step};
use crate::sys::{MountAttributes, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, mount, mount_bind, mount_bind_recursive};
use std::os::fd::AsFd;

/// Hides files under `/dev/null` and directories under one empty read-only tmpfs. What is not there needs no hiding.
pub(super) fn hide(paths: &[String]) -> Result<(), Error> {
    let mut empty: Option<&str> = None;
    for path in paths {
        match mount_bind("/dev/null", path.as_str()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR) if !is_directory(path) => continue,
            Err(Errno::NOTDIR) => {}
            Err(error) => return Err(error).at(Step::Mask, || path.clone()),
        }
        match empty {
            Some(covered) => mount_bind(covered, path.as_str()),
            None => mount("tmpfs", path.as_str(), "tmpfs", MountFlags::RDONLY, c"nr_inodes=2"),
        }
        .at(Step::Mask, || path.clone())?;
        empty.get_or_insert(path);
    }
    Ok(())
}

fn is_directory(path: &str) -> bool {
    rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty())
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Makes paths read-only, with what is mounted below. What is not there is left out.
pub(super) fn make_read_only(paths: &[String]) -> Result<(), Error> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    for path in paths {
        match mount_bind_recursive(path.as_str(), path.as_str()) {
            Err(Errno::NOENT) => continue,
            other => other.at(Step::Mask, || format!("bind {path}"))?,
        }
        let what = || format!("make {path} read-only");
        let covered =
            open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Step::Mask, what)?;
        mount_setattr(covered.as_fd(), true, &MountAttributes { set, ..Default::default() })
            .at(Step::Mask, what)?;
    }
    Ok(())
}
