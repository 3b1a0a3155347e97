//! Overlay mounts: by the new mount API where the kernel supports it, layer by layer and by descriptor, else by mount(2).

use super::error::{At, Errno};
use super::idmap::IdMappings;
use super::options::Options;
use super::userns::UserNamespace;
use super::{Error, Step, filesystem};
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, stat};
use rustix::mount::{FsOpenFlags, MountPropagationFlags, MoveMountFlags, fsopen, mount_change, move_mount};
use rustix::process::chdir;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes a detached overlay for a mount other than the root, its ids mapped for the container's user namespace.
pub(super) fn overlay(options: &[String], user: Option<&UserNamespace>) -> Result<OwnedFd, Error> {
    let overlay = Overlay::parse(options)?;
    let mounted = match user {
        Some(user) => overlay.detached(overlay.mapped(&overlay.namespace(user)?)?.as_ref())?,
        None => overlay.unmapped()?.detached(None)?,
    };
    mounted.ok_or_else(|| Error::Unsupported("overlays beside the root on this kernel are".into()))
}

/// The parsed options of an overlay mount.
#[derive(Debug)]
pub(super) struct Overlay {
    lower: Vec<String>,
    options: Options,
    /// Id mapping of the lower layers. `upperdir` is not mapped.
    ids: IdMappings,
}

impl Overlay {
    pub(super) fn parse(options: &[String]) -> Result<Self, Error> {
        let mut options = Options::parse(options)?;
        let lower = options
            .parameter("lowerdir")
            .map(split_layers)
            .ok_or_else(|| Error::invalid(Step::Rootfs, "an overlay without lowerdir"))?;
        let ids = match (options.parameter("uidmap"), options.parameter("gidmap")) {
            (None, None) => IdMappings::default(),
            (uids, gids) => IdMappings::parse(uids.unwrap_or_default(), gids.unwrap_or_default())?,
        };
        options.parameters.retain(|(name, _)| !["lowerdir", "uidmap", "gidmap"].contains(&name.as_str()));
        Ok(Self { lower, options, ids })
    }

    /// Refuses mapped layers without a user namespace, in which alone the mapped ids have a meaning.
    pub(super) fn unmapped(self) -> Result<Self, Error> {
        match self.ids.is_empty() {
            true => Ok(self),
            false => Err(Error::invalid(Step::Rootfs, "uidmap of an overlay without a user namespace")),
        }
    }

    /// Makes a detached overlay for a container in `user`, with the layers' ids mapped if asked for.
    pub(super) fn prepare(&self, bundle: &Path, user: &UserNamespace) -> Result<OwnedFd, Error> {
        let namespace = self.namespace(user)?;
        match self.detached(self.mapped(&namespace)?.as_ref())? {
            Some(tree) => Ok(tree),
            None => self.prepare_by_path(bundle, &namespace),
        }
    }

    /// A user namespace that maps the layers' ids.
    fn namespace(&self, user: &UserNamespace) -> Result<UserNamespace, Error> {
        if self.ids.is_empty() { user.try_clone() } else { UserNamespace::that_maps(&self.ids, Some(user)) }
    }

    fn mapped(&self, namespace: &UserNamespace) -> Result<Option<Mapped>, Error> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let base = common_directory(&self.lower);
        let view = mapped_view(&base, namespace)?;
        let layer = |layer: &String| layer_in(view.as_fd(), &base, layer);
        let layers = self.lower.iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Some(Mapped { layers, _view: view }))
    }

    /// For kernels that take layers by path only: puts a mapped mount over each layer, in a private mount namespace.
    /// Covers only the layers, because `upperdir` may be beside them.
    fn prepare_by_path(&self, bundle: &Path, namespace: &UserNamespace) -> Result<OwnedFd, Error> {
        let what = || "mount its layers in private".to_owned();
        sys::unshare(libc::CLONE_NEWNS).at(Step::Rootfs, what)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).at(Step::Rootfs, what)?;
        for layer in self.lower.iter().filter(|_| !self.ids.is_empty()) {
            let view = mapped_view(Path::new(layer), namespace)?;
            move_mount(view, "", CWD, layer.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .at(Step::Rootfs, what)?;
        }
        match self.detached(None)? {
            Some(tree) => Ok(tree),
            None => {
                let root = self.mount_classic(bundle)?;
                filesystem::copy_of(root.as_fd(), false).at(Step::Rootfs, what)
            }
        }
    }

    /// Makes a detached overlay with the new mount API: layers by descriptor if mapped, else by path. `None` when the
    /// kernel lacks `lowerdir+` (before 6.7) or does not take descriptors for it (before 6.15), or when a path is too long.
    pub(super) fn detached(&self, mapped: Option<&Mapped>) -> Result<Option<OwnedFd>, Error> {
        const MAX_OPTION_BYTES: usize = 255;
        if mapped.is_none() && self.lower.iter().any(|layer| layer.len() > MAX_OPTION_BYTES) {
            return Ok(None);
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Rootfs, || "overlay".into())?;
        let context = context.as_fd();
        // Before 6.5 overlayfs accepts any option here and fails only when mounted. A layer without a name, which is
        // always invalid, detects that.
        if filesystem::set(context, "lowerdir+", None).is_ok() {
            return Ok(None);
        }
        filesystem::set(context, "source", Some("overlay"))?;
        for (index, layer) in self.lower.iter().enumerate() {
            let added = match mapped {
                Some(mapped) => filesystem::set_to(context, "lowerdir+", mapped.layers[index].as_fd()),
                None => filesystem::set(context, "lowerdir+", Some(layer)),
            };
            match added {
                Err(Error::Os { cause: Errno(libc::EINVAL | libc::EBADF), .. }) if index == 0 => {
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

    /// Mounts with mount(2), whose options must fit into one page. Layers are named by descriptor number, relative to
    /// `/proc/self/fd`, so that as many fit as the kernel takes.
    pub(super) fn mount_classic(&self, bundle: &Path) -> Result<OwnedFd, Error> {
        let what = || format!("overlay of {} layers with mount(2)", self.lower.len());
        let layers = self.lower.iter().map(|layer| opened(layer)).collect::<Result<Vec<_>, _>>()?;
        let data = self.classic_options(&layers);
        chdir(DESCRIPTORS).at(Step::Rootfs, || format!("enter {DESCRIPTORS}"))?;
        let flags = nix::mount::MsFlags::empty();
        let mounted = nix::mount::mount(Some("overlay"), bundle, Some("overlay"), flags, Some(data.as_str()));
        chdir("/").at(Step::Rootfs, || "enter /".into())?;
        mounted.at(Step::Rootfs, || format!("{}: {data:?}", what()))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, bundle, flags, Mode::empty()).at(Step::Rootfs, what)?;
        sys::mount_setattr(root.as_fd(), false, &self.options.attributes).at(Step::Rootfs, what)?;
        Ok(root)
    }

    fn classic_options(&self, layers: &[OwnedFd]) -> String {
        let lower: Vec<_> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let mut data = format!("lowerdir={}", lower.join(":"));
        for (name, value) in &self.options.parameters {
            data.push_str(&match value {
                Some(value) => format!(",{name}={value}"),
                None => format!(",{name}"),
            });
        }
        data
    }
}

/// Directory of the calling process's own descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Opens a layer in the caller's mount namespace: overlayfs takes none from another.
fn opened(layer: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, layer, flags, Mode::empty()).at(Step::Rootfs, || format!("open layer {layer:?}"))
}

/// Layers seen through one mount of their common directory. With a mount for each layer, the kernel would wait for an
/// RCU grace period at the end of each.
pub(super) struct Mapped {
    layers: Vec<OwnedFd>,
    /// Keeps the mount: it is detached when this is closed, even if descriptors below it are open.
    _view: OwnedFd,
}

/// A detached mount of a directory with its ids mapped.
fn mapped_view(directory: &Path, namespace: &UserNamespace) -> Result<OwnedFd, Error> {
    let what =
        || format!("map the ids of the layers in {}, as not every file system can", directory.display());
    let view = filesystem::copy(directory, false).at(Step::Rootfs, what)?;
    filesystem::map_ids(view.as_fd(), false, namespace).at(Step::Rootfs, what)?;
    Ok(view)
}

/// Opens a layer through `view`, a mapped mount of `base`.
fn layer_in(view: BorrowedFd<'_>, base: &Path, layer: &str) -> Result<OwnedFd, Error> {
    let what = || format!("find layer {layer:?}");
    let below = Path::new(layer).strip_prefix(base).unwrap_or(Path::new(layer));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let seen = openat(view, below, flags, Mode::empty()).at(Step::Rootfs, what)?;
    let (shown, real) = (fstat(&seen).at(Step::Rootfs, what)?, stat(layer).at(Step::Rootfs, what)?);
    if (shown.st_dev, shown.st_ino) != (real.st_dev, real.st_ino) {
        return Err(Error::Unsupported(format!("mapped layers on several mounts, as {layer:?} is,")));
    }
    Ok(seen)
}

/// Splits at colons; a backslash escapes the next character.
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

/// The deepest directory above all layers.
fn common_directory(layers: &[String]) -> PathBuf {
    let mut common = layers.first().map(|layer| PathBuf::from(layer).join("..")).unwrap_or_default();
    common.pop();
    common.pop();
    while !layers.iter().all(|layer| Path::new(layer).starts_with(&common)) && common.pop() {}
    if common.as_os_str().is_empty() { PathBuf::from("/") } else { common }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::RootfsMount;
    use super::*;
    use rustix::fs::AtFlags;
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
    fn an_overlay_without_layers_is_refused() {
        let mount = RootfsMount { kind: "overlay".into(), ..RootfsMount::default() };
        assert!(matches!(Overlay::parse(&mount.options), Err(Error::Invalid { step: Step::Rootfs, .. })));
    }

    fn need_root() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
    }

    /// Runs `work` in a fork, since working directory, mounts and namespaces are per process. Returns the exit code,
    /// 255 for an error.
    fn in_fork(work: impl FnOnce() -> Result<u8, Error>) -> i32 {
        let child = sys::fork(|| work().unwrap_or(255)).unwrap();
        let child = rustix::process::Pid::from_raw(child as i32);
        let (_, status) =
            rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        status.exit_status().unwrap()
    }

    /// The fallback for kernels that take layers by path only. Ids are read through the tree, which is detached.
    #[test]
    fn root_mapped_layers_may_lie_over_their_paths_in_private() {
        need_root();
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name).display().to_string();
        for name in ["one", "two", "upper", "work", "bundle"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(base.path().join("two/file"), "").unwrap();
        let options = vec![
            format!("lowerdir={}:{}", path("one"), path("two")),
            format!("upperdir={}", path("upper")),
            format!("workdir={}", path("work")),
            "uidmap=0:100:10".to_owned(),
            "gidmap=0:50:10".to_owned(),
        ];
        let mount = RootfsMount { kind: "overlay".into(), options, ..RootfsMount::default() };
        let owner = |by_path: bool| -> Result<u8, Error> {
            let overlay = Overlay::parse(&mount.options)?;
            let user = UserNamespace::create(&overlay.ids)?;
            let tree = if by_path {
                overlay.prepare_by_path(&base.path().join("bundle"), &user)?
            } else {
                overlay.prepare(&base.path().join("bundle"), &user)?
            };
            let found = rustix::fs::statat(&tree, "file", AtFlags::empty());
            let found = found.at(Step::Rootfs, String::new)?;
            let name = if by_path { "by path" } else { "by descriptor" };
            let new = OFlags::CREATE | OFlags::WRONLY;
            openat(&tree, name, new, Mode::empty()).at(Step::Rootfs, String::new)?;
            Ok((found.st_uid + found.st_gid) as u8)
        };
        assert_eq!(in_fork(|| owner(false)), 150);
        assert_eq!(in_fork(|| owner(true)), 150);
        for name in ["by path", "by descriptor"] {
            let written = stat(base.path().join("upper").join(name)).unwrap();
            assert_eq!((written.st_uid, written.st_gid), (0, 0), "the upper layer is taken as it is");
        }
        let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounted.contains(base.path().to_str().unwrap()), "seen by the host");
    }

    /// Directories with one file each, as image layers, and an overlay of them for `bundle`.
    fn overlay_of(count: usize, base: &Path) -> (Overlay, PathBuf) {
        let layers: Vec<_> = (0..count).map(|n| base.join(format!("{n:0>60},:\\/fs"))).collect();
        for (number, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(number.to_string()), "").unwrap();
        }
        for name in ["bundle", "upper", "work"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        let escaped = |layer: &PathBuf| layer.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
        let lower: Vec<_> = layers.iter().map(escaped).collect();
        let options = vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", base.join("upper").display()),
            format!("workdir={}", base.join("work").display()),
        ];
        (Overlay::parse(&options).unwrap(), base.join("bundle"))
    }

    /// Mounts the overlay by the new API or (`classic`) by mount(2). Returns 1 if it shows all layers.
    fn seen(count: usize, classic: bool) -> i32 {
        need_root();
        let base = tempfile::tempdir().unwrap();
        let (overlay, bundle) = overlay_of(count, base.path());
        let seen = in_fork(|| {
            let what = || "show all layers".to_owned();
            sys::unshare(libc::CLONE_NEWNS).at(Step::Rootfs, what)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).at(Step::Rootfs, what)?;
            let tree = match classic {
                true => overlay.mount_classic(&bundle)?,
                false => overlay.detached(None)?.ok_or_else(|| Error::Unsupported("this kernel".into()))?,
            };
            openat(&tree, "written", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).at(Step::Rootfs, what)?;
            let names =
                (0..count).filter(|n| rustix::fs::statat(&tree, n.to_string(), AtFlags::empty()).is_ok());
            Ok(if names.count() == count { 1 } else { 2 })
        });
        assert!(base.path().join("upper/written").exists());
        assert_eq!(fs::read_dir(&bundle).unwrap().count(), 0, "seen by the host");
        seen
    }

    #[test]
    fn root_as_many_layers_as_images_have_are_mounted_in_every_way() {
        for count in [1, 60, 127] {
            assert_eq!((seen(count, false), seen(count, true)), (1, 1), "{count} layers");
        }
    }

    #[test]
    fn root_as_many_layers_as_the_kernel_takes_fit_into_the_classic_mount() {
        assert_eq!(seen(500, true), 1);
    }
}
