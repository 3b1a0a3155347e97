//! Detached mounts, made with the new mount API: of a new file system, or copied from existing mounts.

use super::error::{At, Errno};
use super::options::Options;
use super::userns::UserNamespace;
use super::{Error, Step};
use crate::sys::{MountAttributes, mount_setattr};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A new mount of a filesystem of type `kind`.
pub(super) fn mount(kind: &str, source: &str, options: &Options) -> Result<OwnedFd, Error> {
    let what = || format!("{source:?} of type {kind:?}");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, what)?;
    if !source.is_empty() {
        set(context.as_fd(), "source", Some(source))?;
    }
    for (name, value) in &options.parameters {
        set(context.as_fd(), name, value.as_deref())?;
    }
    create(context.as_fd(), &options.attributes, what)
}

/// Turns a configured context into a mount.
pub(super) fn create(
    context: BorrowedFd<'_>,
    attributes: &MountAttributes,
    what: impl Fn() -> String,
) -> Result<OwnedFd, Error> {
    fsconfig_create(context).map_err(|error| explained(context, error, what()))?;
    let flags = MountAttrFlags::from_bits_retain(attributes.set as u32);
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags).at(Step::Mount, what)
}

/// Sets a parameter of a file system context.
pub(super) fn set(context: BorrowedFd<'_>, name: &str, value: Option<&str>) -> Result<(), Error> {
    let done = match value {
        Some(value) => fsconfig_set_string(context, name, value),
        None => fsconfig_set_flag(context, name),
    };
    done.map_err(|error| {
        let value = value.map(|value| format!("={value}")).unwrap_or_default();
        explained(context, error, format!("option {name}{value}"))
    })
}

/// Sets a parameter to the object behind a descriptor, which may lie in a detached mount.
pub(super) fn set_to(context: BorrowedFd<'_>, name: &str, mount: BorrowedFd<'_>) -> Result<(), Error> {
    let done = fsconfig_set_fd(context, name, mount);
    done.map_err(|error| explained(context, error, format!("option {name} by descriptor")))
}

/// Adds the message that the kernel leaves on the context's descriptor, fsopen(2).
fn explained(context: BorrowedFd<'_>, error: rustix::io::Errno, what: String) -> Error {
    let mut text = [0u8; 256];
    let length = rustix::io::read(context, &mut text).unwrap_or(0);
    let said = String::from_utf8_lossy(&text[..length]);
    let said = said.trim_end().trim_start_matches("e ");
    let what = if said.is_empty() { what } else { format!("{what}: {said}") };
    Error::Os { step: Step::Mount, what, cause: Errno::from(error) }
}

/// Copies the mount at `path`; with `recursive` also the mounts below it.
pub(super) fn copy(path: &Path, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    open_tree(CWD, path, copy_flags(recursive))
}

/// Copies the mount that `fd` is open on.
pub(super) fn copy_of(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    open_tree(fd, "", copy_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn copy_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches a detached `mount` at the place that `target` is open on.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Applies the options of a bind mount; without a propagation it becomes private.
pub(super) fn apply(mount: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    let (kind, below) = options.propagation.unwrap_or((libc::MS_PRIVATE, true));
    let mut one = options.attributes;
    let mut all = options.recursive;
    *(if below { &mut all.propagation } else { &mut one.propagation }) = kind;
    if all != MountAttributes::default() {
        mount_setattr(mount, true, &all)?;
    }
    if one != MountAttributes::default() {
        mount_setattr(mount, false, &one)?;
    }
    Ok(())
}

/// Maps the ids of a detached mount, with `recursive` also of those below it, through `namespace`. EINVAL if a file
/// system does not support it.
pub(super) fn map_ids(
    mount: BorrowedFd<'_>,
    recursive: bool,
    namespace: &UserNamespace,
) -> std::io::Result<()> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
    let userns = namespace.file.as_raw_fd() as u64;
    mount_setattr(mount, recursive, &MountAttributes { set, userns, ..MountAttributes::default() })
}

/// [`apply`] in one call, for a mount with nothing below it.
pub(super) fn apply_single(mount: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    let propagation = options.propagation.map_or(libc::MS_PRIVATE, |(kind, _)| kind);
    mount_setattr(mount, false, &MountAttributes { propagation, ..options.attributes })
}
