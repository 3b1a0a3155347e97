//! `/dev`: the default devices and symlinks, and the devices of the spec.

use super::error::At;
use super::idmap::IdMappings;
use super::inroot::{Create, InRoot, remove_file};
use super::options::Options;
use super::{Error, Step, filesystem};
use crate::spec::Device;
use crate::sys::{MountAttributes, mount_setattr};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

const DEFAULTS: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes the default devices, the symlinks and `devices`. The caller's umask must be 0.
pub(super) fn make(root: InRoot<'_>, devices: &[Device]) -> Result<(), Error> {
    let dev = root.find_or_create(Path::new("/dev"), Create::Directory)?;
    for device in defaults() {
        place(root, &device)?;
    }
    for (target, name) in LINKS {
        remove_file(dev.as_fd(), name).at(Step::Device, || format!("replace /dev/{name}"))?;
        symlinkat(*target, &dev, *name).at(Step::Device, || format!("link /dev/{name}"))?;
    }
    devices.iter().try_for_each(|device| place(root, device))
}

fn defaults() -> impl Iterator<Item = Device> {
    DEFAULTS.iter().map(|(name, major, minor)| Device {
        path: format!("/dev/{name}"),
        kind: "c".into(),
        major: *major,
        minor: *minor,
        ..Device::default()
    })
}

/// Makes a tmpfs for `/dev` with the device nodes in it, because mknod(2) fails in a user namespace. Its root, and
/// nodes without an owner of their own, belong to the namespace's root.
pub(super) fn filled(
    source: &str,
    mut options: Options,
    devices: &[Device],
    users: &IdMappings,
) -> Result<OwnedFd, Error> {
    let (uid, gid) = (users.host_uid(0)?, users.host_gid(0)?);
    options
        .parameters
        .extend([("uid", uid), ("gid", gid)].map(|(name, id)| (name.into(), Some(id.to_string()))));
    let made = filesystem::mount("tmpfs", source, &options)?;
    let umask = rustix::process::umask(Mode::empty());
    for device in defaults().chain(devices.iter().cloned()) {
        let Some(below) = device.path.strip_prefix("/dev/") else { continue };
        let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        let (uid, gid) = (Some(users.host_uid(uid)?), Some(users.host_gid(gid)?));
        place(InRoot(made.as_fd()), &Device { path: format!("/{below}"), uid, gid, ..device })?;
    }
    rustix::process::umask(umask);
    Ok(made)
}

fn place(root: InRoot<'_>, device: &Device) -> Result<(), Error> {
    let path = Path::new(&device.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::invalid(Step::Device, format!("path {:?}", device.path)));
    };
    let directory = root.find_or_create(parent, Create::Directory)?;
    node(directory.as_fd(), name, device)
}

fn node(directory: BorrowedFd<'_>, name: &str, device: &Device) -> Result<(), Error> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => {
            let reason = format!("type {other:?} of {}", device.path);
            return Err(Error::invalid(Step::Device, reason));
        }
    };
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let what = || format!("make {} ({} {}:{})", device.path, device.kind, device.major, device.minor);
    match mknodat(directory, name, kind, mode, makedev(device.major, device.minor)) {
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::PERM) => return bind(directory, name, device),
        other => other.at(Step::Device, what)?,
    }
    own(directory, name, device).at(Step::Device, what)
}

/// A container that shares the directory may have replaced the name by a symlink: it is not followed.
fn own(directory: BorrowedFd<'_>, name: &str, device: &Device) -> Result<(), Errno> {
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Bind-mounts the host's device where mknod(2) is not permitted.
fn bind(directory: BorrowedFd<'_>, name: &str, device: &Device) -> Result<(), Error> {
    let what = || format!("bind {}", device.path);
    let host = filesystem::copy(Path::new(&device.path), false).at(Step::Device, what)?;
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    let target =
        rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).at(Step::Device, what)?;
    filesystem::attach(host.as_fd(), target.as_fd()).at(Step::Device, what)
}

/// One mount of the host's null device for unused streams, kept for the shim's life: at the end of each mount the
/// kernel waits for an RCU grace period.
static NULL: OnceLock<OwnedFd> = OnceLock::new();

/// Opens [`NULL`] once, before forking processes that call [`null`].
pub(super) fn hold_null() -> Result<BorrowedFd<'static>, Error> {
    if let Some(held) = held_null() {
        return Ok(held);
    }
    let mount = null_mount()?;
    Ok(NULL.get_or_init(|| mount).as_fd())
}

/// The mount that [`hold_null`] opened.
pub(super) fn held_null() -> Option<BorrowedFd<'static>> {
    NULL.get().map(AsFd::as_fd)
}

/// Opens the host's null device. The host's `/proc` must be in sight.
pub(super) fn null() -> Result<OwnedFd, Error> {
    let mount = hold_null()?.as_raw_fd();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, format!("/proc/self/fd/{mount}"), flags, Mode::empty())
        .at(Step::Device, || "open /dev/null".into())
}

/// A detached read-only mount of the host's null device. Reads and writes go to the device all the same, but its mode
/// and owner cannot be changed through this mount.
pub(super) fn null_mount() -> Result<OwnedFd, Error> {
    let what = || "take the host's /dev/null".to_owned();
    let mount = filesystem::copy(Path::new("/dev/null"), false).at(Step::Device, what)?;
    let found = fstat(&mount).at(Step::Device, what)?;
    let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    if !is_device || found.st_rdev != makedev(1, 3) {
        return Err(Error::invalid(Step::Device, "/dev/null of the host is not the null device"));
    }
    let set = Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC;
    let change = MountAttributes { set: u64::from(set.bits()), ..MountAttributes::default() };
    mount_setattr(mount.as_fd(), false, &change).at(Step::Device, what)?;
    Ok(mount)
}
