//! Masked and read-only paths: looked up below the container's root and covered by mounts from the host. No source of
//! such a mount can be chosen by an image or a volume (CVE-2025-31133).

use super::error::At;
use super::inroot::{InRoot, is_directory};
use super::options::Options;
use super::{Error, Step, devices, filesystem};
use crate::sys::{MountAttributes, mount_setattr};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Mounts that cover masked paths: the host's null device for files, one empty read-only tmpfs for directories.
#[derive(Debug)]
pub(super) struct MaskMounts {
    null: MaskMount,
    empty: Option<MaskMount>,
}

impl MaskMounts {
    /// Opens the null device of the host, whose root must be the caller's. `None` when nothing is to be masked.
    pub(super) fn prepare(hidden: &[String]) -> Result<Option<Self>, Error> {
        if hidden.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { null: MaskMount::of(devices::null_mount()?), empty: None }))
    }

    /// Masks `paths`; missing ones are skipped.
    pub(super) fn hide(&mut self, root: InRoot<'_>, paths: &[String]) -> Result<(), Error> {
        paths.iter().try_for_each(|path| self.hide_one(root, path))
    }

    fn hide_one(&mut self, root: InRoot<'_>, path: &str) -> Result<(), Error> {
        let Some(target) = find(root, path)? else { return Ok(()) };
        let mask = match is_directory(target.as_fd()).at(Step::Mask, || path.to_owned())? {
            true => self.empty()?,
            false => &mut self.null,
        };
        mask.attach_over(target.as_fd()).at(Step::Mask, || format!("hide {path}"))
    }

    fn empty(&mut self) -> Result<&mut MaskMount, Error> {
        let empty = match self.empty.take() {
            Some(empty) => empty,
            None => {
                let options = Options::parse(&["ro", "nr_inodes=2"])?;
                MaskMount::of(filesystem::mount("tmpfs", "tmpfs", &options)?)
            }
        };
        Ok(self.empty.insert(empty))
    }
}

impl AsFd for MaskMounts {
    /// The mount from the host.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.null.mount.as_fd()
    }
}

/// A mount that is put over any number of places.
#[derive(Debug)]
struct MaskMount {
    mount: OwnedFd,
    /// Kernels before 6.15 copy only attached mounts: the first place gets the mount itself, the others copies.
    attached: bool,
}

impl MaskMount {
    fn of(mount: OwnedFd) -> Self {
        Self { mount, attached: false }
    }

    fn attach_over(&mut self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.attached {
            return filesystem::attach(filesystem::copy_of(self.mount.as_fd(), false)?.as_fd(), target);
        }
        filesystem::attach(self.mount.as_fd(), target)?;
        self.attached = true;
        Ok(())
    }
}

/// Makes paths read-only, with all mounts below them. Missing ones are skipped.
pub(super) fn make_read_only(root: InRoot<'_>, paths: &[String]) -> Result<(), Error> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    let read_only = MountAttributes { set, ..Default::default() };
    for path in paths {
        let what = || format!("make {path} read-only");
        let Some(target) = find(root, path)? else { continue };
        let copy = filesystem::copy_of(target.as_fd(), true).at(Step::Mask, what)?;
        mount_setattr(copy.as_fd(), true, &read_only).at(Step::Mask, what)?;
        filesystem::attach(copy.as_fd(), target.as_fd()).at(Step::Mask, what)?;
    }
    Ok(())
}

/// Looks up a path; `None` when it does not exist. Any other failure is an error.
fn find(root: InRoot<'_>, path: &str) -> Result<Option<OwnedFd>, Error> {
    match root.find(Path::new(path), OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some).at(Step::Mask, || format!("find {path}")),
    }
}
