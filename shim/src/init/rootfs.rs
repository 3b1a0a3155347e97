//! The root filesystem: mounted in the container's own mount namespace, invisible to the host, then made `/`.

use super::error::At;
use super::inroot::{Create, InRoot};
use super::options::{self, Options};
use super::overlay::{Overlay, overlay};
use super::userns::UserNamespace;
use super::{Error, RootfsMount, Step, filesystem};
use crate::sys::{self, MountAttributes};
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{chdir, fchdir, pivot_root};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A container's root filesystem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rootfs<'a> {
    pub(super) mounts: &'a [RootfsMount],
    pub(super) bundle: &'a Path,
    /// Path used when there are no mounts.
    pub(super) path: &'a str,
}

impl Rootfs<'_> {
    /// Mounts it detached, with the host's privileges, for a container in a user namespace.
    pub(super) fn prepare(&self, user: &UserNamespace) -> Result<OwnedFd, Error> {
        match self.mounts {
            [] => copy_ready(self.bundle, self.path),
            [mount] if mount.kind == "overlay" => Overlay::parse(&mount.options)?.prepare(self.bundle, user),
            [mount] => detached(mount),
            _ => Err(Error::Unsupported("several rootfs mounts in a user namespace are".into())),
        }
    }
}

/// Mounts the root filesystem, prepared or not, over the bundle directory, which is not needed any more in this namespace.
pub(super) fn mount(rootfs: Rootfs<'_>, prepared: Option<OwnedFd>) -> Result<OwnedFd, Error> {
    let rslave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", rslave).at(Step::Rootfs, || "detach from the host's mounts".into())?;
    let bundle = rootfs.bundle;
    if let Some(prepared) = prepared {
        return over(prepared, bundle);
    }
    let Some((first, others)) = rootfs.mounts.split_first() else {
        return over(copy_ready(bundle, rootfs.path)?, bundle);
    };
    let root = mount_first(first, bundle)?;
    for mount in others {
        let target = InRoot(root.as_fd()).find_or_create(Path::new(&mount.target), Create::Directory)?;
        let made = detached(mount)?;
        filesystem::attach(made.as_fd(), target.as_fd()).at(Step::Rootfs, || describe(mount))?;
    }
    Ok(root)
}

fn describe(mount: &RootfsMount) -> String {
    format!("{} from {:?} with {:?}", mount.kind, mount.source, mount.options)
}

fn copy_ready(bundle: &Path, root_path: &str) -> Result<OwnedFd, Error> {
    let path = bundle.join(if root_path.is_empty() { "rootfs" } else { root_path });
    let what = || format!("root.path {}", path.display());
    let tree = filesystem::copy(&path, true).at(Step::Rootfs, what)?;
    filesystem::apply(tree.as_fd(), &Options::default()).at(Step::Rootfs, what)?;
    Ok(tree)
}

fn mount_first(mount: &RootfsMount, bundle: &Path) -> Result<OwnedFd, Error> {
    if mount.kind != "overlay" {
        return over(detached(mount)?, bundle);
    }
    let layers = Overlay::parse(&mount.options)?.unmapped()?;
    match layers.detached(None)? {
        Some(tree) => over(tree, bundle),
        None => layers.mount_classic(bundle),
    }
}

fn over(tree: OwnedFd, bundle: &Path) -> Result<OwnedFd, Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, bundle, flags)
        .at(Step::Rootfs, || format!("attach to {}", bundle.display()))?;
    Ok(tree)
}

/// Makes a detached mount.
fn detached(mount: &RootfsMount) -> Result<OwnedFd, Error> {
    let options = Options::parse(&mount.options)?;
    if mount.kind == "overlay" {
        return overlay(&mount.options, None);
    }
    if mount.kind != "bind" && options.bind.is_none() {
        return filesystem::mount(&mount.kind, &mount.source, &options);
    }
    let what = || describe(mount);
    let tree =
        filesystem::copy(Path::new(&mount.source), options.bind.unwrap_or(true)).at(Step::Rootfs, what)?;
    filesystem::apply(tree.as_fd(), &options).at(Step::Rootfs, what)?;
    Ok(tree)
}

/// Makes `root` the root directory and unmounts the host's.
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), Error> {
    fchdir(root).at(Step::Rootfs, || "enter".into())?;
    pivot_root(".", ".").at(Step::Rootfs, || "pivot_root".into())?;
    unmount(".", UnmountFlags::DETACH).at(Step::Rootfs, || "let go of the host's root".into())?;
    chdir("/").at(Step::Rootfs, || "enter /".into())
}

/// Sets the propagation of `/` that the spec asks for; it is private by default.
pub(super) fn propagate(root: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    let (propagation, recursive) = options::propagation(name)
        .ok_or_else(|| Error::invalid(Step::Rootfs, format!("rootfsPropagation {name:?}")))?;
    let change = MountAttributes { propagation, ..Default::default() };
    sys::mount_setattr(root, recursive, &change).at(Step::Rootfs, || format!("rootfsPropagation {name:?}"))
}

/// Makes the root read-only, as the last step.
pub(super) fn seal(root: BorrowedFd<'_>) -> Result<(), Error> {
    let set = u64::from(rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    let change = MountAttributes { set, ..Default::default() };
    sys::mount_setattr(root, false, &change).at(Step::Rootfs, || "make read-only".into())
}
