//! The root filesystem: mounted in the container's own mount namespace, never seen by the host, then made `/`.

use super::error::{At, Errno};
use super::inroot::{Create, InRoot};
use super::options::{self, Options};
use super::{Error, RootfsMount, Step, filesystem};
use crate::sys::{self, MountAttributes};
use rustix::fs::CWD;
use rustix::mount::{FsOpenFlags, MountPropagationFlags, UnmountFlags, fsopen, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Mounts the root filesystem over the bundle directory, which nothing needs any longer in this namespace.
pub(super) fn mount(mounts: &[RootfsMount], bundle: &Path, root_path: &str) -> Result<OwnedFd, Error> {
    let rslave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", rslave).at(Step::Rootfs, || "detach from the host's mounts".into())?;
    let Some((first, others)) = mounts.split_first() else {
        return bind_prepared(bundle, root_path);
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

fn bind_prepared(bundle: &Path, root_path: &str) -> Result<OwnedFd, Error> {
    let path = bundle.join(if root_path.is_empty() { "rootfs" } else { root_path });
    let what = || format!("root.path {}", path.display());
    let tree = filesystem::copy(&path, true).at(Step::Rootfs, what)?;
    filesystem::apply(tree.as_fd(), &Options::default()).at(Step::Rootfs, what)?;
    over(tree, bundle)
}

fn mount_first(mount: &RootfsMount, bundle: &Path) -> Result<OwnedFd, Error> {
    if mount.kind != "overlay" {
        return over(detached(mount)?, bundle);
    }
    let layers = Overlay::parse(mount)?;
    match layers.detached()? {
        Some(tree) => over(tree, bundle),
        None => layers.mount_classic(bundle),
    }
}

fn over(tree: OwnedFd, bundle: &Path) -> Result<OwnedFd, Error> {
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", CWD, bundle, flags)
        .at(Step::Rootfs, || format!("attach to {}", bundle.display()))?;
    Ok(tree)
}

/// A mount that is attached nowhere.
fn detached(mount: &RootfsMount) -> Result<OwnedFd, Error> {
    let options = Options::parse(&mount.options)?;
    if mount.kind == "overlay" {
        let overlay = Overlay::parse(mount)?.detached()?;
        return overlay
            .ok_or_else(|| Error::Unsupported("overlays beside the root on this kernel are".into()));
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

/// An overlay mount's options, taken apart.
#[derive(Debug)]
struct Overlay {
    lower: Vec<String>,
    options: Options,
}

impl Overlay {
    fn parse(mount: &RootfsMount) -> Result<Self, Error> {
        let mut options = Options::parse(&mount.options)?;
        let lower = options
            .parameter("lowerdir")
            .map(split_layers)
            .ok_or_else(|| Error::invalid(Step::Rootfs, "an overlay without lowerdir"))?;
        options.parameters.retain(|(name, _)| name != "lowerdir");
        Ok(Self { lower, options })
    }

    /// Layer by layer with the new mount API; `None` when the kernel (before 6.7) does not know `lowerdir+`, or a path is too
    /// long for it.
    fn detached(&self) -> Result<Option<OwnedFd>, Error> {
        const LONGEST_VALUE: usize = 255;
        if self.lower.iter().any(|layer| layer.len() > LONGEST_VALUE) {
            return Ok(None);
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Rootfs, || "overlay".into())?;
        let context = context.as_fd();
        filesystem::set(context, "source", Some("overlay"))?;
        for (index, layer) in self.lower.iter().enumerate() {
            match filesystem::set(context, "lowerdir+", Some(layer)) {
                Err(Error::Os { cause, .. }) if index == 0 && cause == Errno(libc::EINVAL) => {
                    return Ok(None);
                }
                other => other?,
            }
        }
        for (name, value) in &self.options.parameters {
            filesystem::set(context, name, value.as_deref())?;
        }
        filesystem::create(context, &self.options.attributes, || "overlay".into()).map(Some)
    }

    /// With mount(2): all options in one page, so that many layers fit only as paths relative to where they lie.
    fn mount_classic(&self, bundle: &Path) -> Result<OwnedFd, Error> {
        let base = common_directory(&self.lower);
        chdir(&base).at(Step::Rootfs, || format!("enter {}", base.display()))?;
        let lower: Vec<_> = self.lower.iter().map(|layer| escaped(layer, &base)).collect();
        let mut data = format!("lowerdir={}", lower.join(":"));
        for (name, value) in &self.options.parameters {
            data.push_str(&match value {
                Some(value) => format!(",{name}={value}"),
                None => format!(",{name}"),
            });
        }
        let what = || format!("overlay of {} layers", self.lower.len());
        nix::mount::mount(
            Some("overlay"),
            bundle,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(data.as_str()),
        )
        .at(Step::Rootfs, what)?;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let root = rustix::fs::open(bundle, flags, rustix::fs::Mode::empty()).at(Step::Rootfs, what)?;
        sys::mount_setattr(root.as_fd(), false, &self.options.attributes).at(Step::Rootfs, what)?;
        Ok(root)
    }
}

/// Layers are divided by colons; a colon within a path stands behind a backslash.
fn split_layers(list: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut rest = list.chars();
    while let Some(character) = rest.next() {
        match character {
            ':' => layers.push(String::new()),
            '\\' => layers.last_mut().into_iter().for_each(|layer| layer.extend(rest.next())),
            other => layers.last_mut().into_iter().for_each(|layer| layer.push(other)),
        }
    }
    layers
}

fn escaped(layer: &str, base: &Path) -> String {
    let relative = Path::new(layer).strip_prefix(base).unwrap_or(Path::new(layer));
    relative.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// The deepest directory above all layers.
fn common_directory(layers: &[String]) -> PathBuf {
    let mut common = layers.first().map(|layer| PathBuf::from(layer).join("..")).unwrap_or_default();
    common.pop();
    common.pop();
    while !layers.iter().all(|layer| Path::new(layer).starts_with(&common)) && common.pop() {}
    if common.as_os_str().is_empty() { PathBuf::from("/") } else { common }
}

/// Makes `root` the root directory and lets go of the host's.
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), Error> {
    fchdir(root).at(Step::Rootfs, || "enter".into())?;
    pivot_root(".", ".").at(Step::Rootfs, || "pivot_root".into())?;
    unmount(".", UnmountFlags::DETACH).at(Step::Rootfs, || "let go of the host's root".into())?;
    chdir("/").at(Step::Rootfs, || "enter /".into())
}

/// Gives `/` the propagation that the spec asks for; it is private as made.
pub(super) fn propagate(root: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    let (propagation, recursive) = options::propagation(name)
        .ok_or_else(|| Error::invalid(Step::Rootfs, format!("rootfsPropagation {name:?}")))?;
    let change = MountAttributes { propagation, ..Default::default() };
    sys::mount_setattr(root, recursive, &change).at(Step::Rootfs, || format!("rootfsPropagation {name:?}"))
}

/// Read-only, last of all.
pub(super) fn seal(root: BorrowedFd<'_>) -> Result<(), Error> {
    let set = u64::from(rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    let change = MountAttributes { set, ..Default::default() };
    sys::mount_setattr(root, false, &change).at(Step::Rootfs, || "make read-only".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn layers_are_divided_by_colons_that_no_backslash_precedes() {
        assert_eq!(split_layers("/a:/b"), strings(&["/a", "/b"]));
        assert_eq!(split_layers(r"/a\:b:/c\\d"), strings(&["/a:b", r"/c\d"]));
    }

    #[test]
    fn the_common_directory_is_above_every_layer() {
        let common = |list: &[&str]| common_directory(&strings(list));
        assert_eq!(common(&["/x/y/1/fs", "/x/y/2/fs"]), Path::new("/x/y"));
        assert_eq!(common(&["/x/y/1"]), Path::new("/x/y"));
        assert_eq!(common(&["/a/1", "/b/2"]), Path::new("/"));
        assert_eq!(common(&["/a", "/b"]), Path::new("/"));
    }

    #[test]
    fn relative_layers_are_escaped() {
        assert_eq!(escaped("/x/y/a:b,c", Path::new("/x/y")), r"a\:b\,c");
        assert_eq!(escaped("/other", Path::new("/x/y")), "/other");
    }

    #[test]
    fn an_overlay_without_layers_is_refused() {
        let mount = RootfsMount { kind: "overlay".into(), ..RootfsMount::default() };
        assert!(matches!(Overlay::parse(&mount), Err(Error::Invalid { step: Step::Rootfs, .. })));
    }

    /// What a kernel without `lowerdir+` gets: in a fork, because directory and mount namespace are the process's own.
    #[test]
    fn root_sixty_layers_fit_into_the_classic_mount_too() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
        let base = tempfile::tempdir().unwrap();
        let layers: Vec<_> = (0..60).map(|n| base.path().join(format!("{n:0>50}/fs"))).collect();
        for (number, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(number.to_string()), "").unwrap();
        }
        let bundle = base.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let lower: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let options = vec![format!("lowerdir={}", lower.join(":")), "ro".to_owned()];
        let mount = RootfsMount { kind: "overlay".into(), options, ..RootfsMount::default() };
        let child = sys::fork(|| {
            let mounted = || -> Result<usize, Error> {
                sys::unshare(libc::CLONE_NEWNS).at(Step::Rootfs, String::new)?;
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", private).at(Step::Rootfs, String::new)?;
                drop(Overlay::parse(&mount)?.mount_classic(&bundle)?);
                Ok(fs::read_dir(&bundle).at(Step::Rootfs, String::new)?.count())
            };
            mounted().map_or(255, |count| count as u8)
        });
        let child = rustix::process::Pid::from_raw(child.unwrap() as i32);
        let (_, status) =
            rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(60));
        assert_eq!(fs::read_dir(&bundle).unwrap().count(), 0, "seen by the host");
    }
}
