//! Paths hidden from the container and paths it may not write: found below its root, covered by what the host has. Nothing that an
//! image or a volume can decide is a source here (CVE-2025-31133).

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

/// What hides: the host's null device for files, one empty read-only tmpfs for directories.
#[derive(Debug)]
pub(super) struct Covers {
    null: Cover,
    empty: Option<Cover>,
}

impl Covers {
    /// Takes the null device from the host, whose root must be the caller's. `None` when nothing is to be hidden.
    pub(super) fn prepare(hidden: &[String]) -> Result<Option<Self>, Error> {
        if hidden.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { null: Cover::of(devices::null_mount()?), empty: None }))
    }

    /// Hides `paths`. What is not there needs no hiding.
    pub(super) fn hide(&mut self, root: InRoot<'_>, paths: &[String]) -> Result<(), Error> {
        paths.iter().try_for_each(|path| self.hide_one(root, path))
    }

    fn hide_one(&mut self, root: InRoot<'_>, path: &str) -> Result<(), Error> {
        let Some(target) = find(root, path)? else { return Ok(()) };
        let cover = match is_directory(target.as_fd()).at(Step::Mask, || path.to_owned())? {
            true => self.empty()?,
            false => &mut self.null,
        };
        cover.lay_over(target.as_fd()).at(Step::Mask, || format!("hide {path}"))
    }

    fn empty(&mut self) -> Result<&mut Cover, Error> {
        let empty = match self.empty.take() {
            Some(empty) => empty,
            None => {
                let options = Options::parse(&["ro", "nr_inodes=2"])?;
                Cover::of(filesystem::mount("tmpfs", "tmpfs", &options)?)
            }
        };
        Ok(self.empty.insert(empty))
    }
}

impl AsFd for Covers {
    /// What was taken from the host.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.null.mount.as_fd()
    }
}

/// A mount that goes over any number of places.
#[derive(Debug)]
struct Cover {
    mount: OwnedFd,
    /// Kernels before 6.15 copy only what is attached: the first place gets the mount itself.
    attached: bool,
}

impl Cover {
    fn of(mount: OwnedFd) -> Self {
        Self { mount, attached: false }
    }

    fn lay_over(&mut self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.attached {
            return filesystem::attach(filesystem::copy_of(self.mount.as_fd(), false)?.as_fd(), target);
        }
        filesystem::attach(self.mount.as_fd(), target)?;
        self.attached = true;
        Ok(())
    }
}

/// Makes paths read-only, with what is mounted below. What is not there is left out.
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

/// What a path leads to; `None` when it is not there, which is the only failure that is none.
fn find(root: InRoot<'_>, path: &str) -> Result<Option<OwnedFd>, Error> {
    match root.find(Path::new(path), OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some).at(Step::Mask, || format!("find {path}")),
    }
}
