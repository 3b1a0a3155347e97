//! The mounts of the spec. Sources on the host are opened by the stage before it enters any namespace; new file systems
//! are made in the container's namespaces. Both are attached below the rootfs by descriptor.

use super::error::At;
use super::idmap::IdMappings;
use super::inroot::{Create, InRoot, is_directory};
use super::options::Options;
use super::userns::UserNamespace;
use super::{Error, PodNamespaces, Step, devices, filesystem, overlay, step_file};
use crate::cgroup::{Cgroup, HierarchyMount};
use crate::spec;
use crate::sys;
use rustix::fs::{fstat, stat};
use rustix::io::Errno;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// A mount ready to be attached, or all that is needed to make it.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    mount: &'a spec::Mount,
    options: Options,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Bind mount from the host or the pod, or a tree made by the stage.
    Tree(OwnedFd),
    /// New file system of the spec's type.
    Filesystem,
    /// The container's own cgroup in each v1 hierarchy.
    Hierarchies(Vec<HierarchyMount>),
}

impl Prepared<'_> {
    fn what(&self) -> String {
        format!("{:?} at {:?}", self.mount.source, self.mount.destination)
    }
}

/// Sources of mounts, besides the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) pod: &'a PodNamespaces,
    pub(super) cgroup: &'a Cgroup,
    /// The container's user namespace, unless it is the host's.
    pub(super) user: Option<&'a UserNamespace>,
    pub(super) devices: &'a [spec::Device],
}

/// Opens what the spec's mounts need from the host.
pub(super) fn prepare<'a>(
    mounts: &'a [spec::Mount],
    sources: Sources<'_>,
) -> Result<Vec<Prepared<'a>>, Error> {
    mounts.iter().map(|mount| prepare_one(mount, sources)).collect()
}

fn prepare_one<'a>(mount: &'a spec::Mount, sources: Sources<'_>) -> Result<Prepared<'a>, Error> {
    if !mount.destination.starts_with('/') || mount.destination.trim_matches('/').is_empty() {
        let reason = format!("destination {:?} is not an absolute path below /", mount.destination);
        return Err(Error::invalid(Step::Mount, reason));
    }
    let options = Options::parse(&mount.options)?;
    let content = match mount.kind.as_str() {
        "pod-shm" => Content::Tree(bound(pod_shm(mount, sources.pod)?, mount, &options)?),
        "cgroup" | "cgroup2" => cgroups(mount, &options, sources.cgroup)?,
        "overlay" => Content::Tree(overlay::overlay(&mount.options, sources.user)?),
        _ if options.bind.is_some() || matches!(mount.kind.as_str(), "bind" | "") => {
            Content::Tree(bind(mount, &options, sources)?)
        }
        _ if options.idmap.is_some() || has_mappings(mount) => {
            let reason = format!("ids of {:?} at {:?} mapped", mount.kind, mount.destination);
            return Err(Error::Unsupported(reason));
        }
        "tmpfs" if is_dev(mount) => match sources.user {
            Some(user) => Content::Tree(dev(mount, sources.devices, &user.mappings)?),
            None => Content::Filesystem,
        },
        _ => Content::Filesystem,
    };
    Ok(Prepared { mount, options, content })
}

fn bind(mount: &spec::Mount, options: &Options, sources: Sources<'_>) -> Result<OwnedFd, Error> {
    step_file::record(|| format!("open {:?}, to be mounted at {:?}", mount.source, mount.destination));
    let copy = || filesystem::copy(Path::new(&mount.source), options.bind.unwrap_or(true));
    let tree = match copy() {
        Err(Errno::NOENT) if sources.pod.creates_mount_sources => {
            make_source(mount)?;
            copy()
        }
        other => other,
    };
    let tree = bound(tree.map_err(|cause| no_source(mount, cause))?, mount, options)?;
    if options.idmap.is_some() || has_mappings(mount) {
        map_ids(&tree, mount, options.idmap.unwrap_or(false), sources.user)?;
    }
    Ok(tree)
}

/// Creates the source of a bind mount if it is missing.
pub(super) fn provide_source(mount: &spec::Mount) -> Result<(), Error> {
    let binds =
        mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind");
    match binds && matches!(stat(&mount.source), Err(Errno::NOENT)) {
        true => make_source(mount),
        false => Ok(()),
    }
}

/// Creates a directory and its parents. Called in the stage, where a file system that hangs blocks only this container.
fn make_source(mount: &spec::Mount) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&mount.source);
    made.map_err(|cause| match Errno::from_io_error(&cause) {
        Some(cause) => no_source(mount, cause),
        None => Error::invalid(Step::Mount, format!("source {:?}: {cause}", mount.source)),
    })
}

fn has_mappings(mount: &spec::Mount) -> bool {
    !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty()
}

/// Maps ids by the mount's own mappings, or by those of the container's user namespace.
fn map_ids(
    tree: &OwnedFd,
    mount: &spec::Mount,
    recursive: bool,
    user: Option<&UserNamespace>,
) -> Result<(), Error> {
    let what = || format!("map the ids of {:?} at {:?}", mount.source, mount.destination);
    let own = IdMappings { uids: mount.uid_mappings.clone(), gids: mount.gid_mappings.clone() };
    let mappings = match user {
        Some(user) if own.is_empty() => &user.mappings,
        _ => &own,
    };
    let namespace = UserNamespace::that_maps(mappings, user)?;
    match filesystem::map_ids(tree.as_fd(), recursive, &namespace) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let reason = format!("{}: its file system, or one mounted below it, cannot do that", what());
            Err(Error::invalid(Step::Mount, reason))
        }
        other => other.at(Step::Mount, what),
    }
}

fn is_dev(mount: &spec::Mount) -> bool {
    mount.destination.trim_end_matches('/') == "/dev"
}

/// A complete `/dev` for a container in a user namespace, which cannot make nodes itself.
fn dev(mount: &spec::Mount, nodes: &[spec::Device], users: &IdMappings) -> Result<OwnedFd, Error> {
    devices::filled(&mount.source, Options::parse(&mount.options)?, nodes, users)
}

/// A missing source is the caller's fault; anything else is the host's.
fn no_source(mount: &spec::Mount, cause: Errno) -> Error {
    let what = format!("source {:?} of {:?}", mount.source, mount.destination);
    match cause {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Error::invalid(Step::Mount, format!("{what}: {cause}")),
        _ => Error::Os { step: Step::Mount, what, cause: cause.into() },
    }
}

fn bound(tree: OwnedFd, mount: &spec::Mount, options: &Options) -> Result<OwnedFd, Error> {
    filesystem::apply(tree.as_fd(), options)
        .at(Step::Mount, || format!("options {:?} of {:?}", mount.options, mount.destination))?;
    Ok(tree)
}

/// A copy of the pod's `/dev/shm`, which is in a mount namespace of its own: enter, copy, return. Without one, the host's.
fn pod_shm(mount: &spec::Mount, pod: &PodNamespaces) -> Result<OwnedFd, Error> {
    let what = || format!("the pod's shared memory at {:?}", mount.destination);
    let Some(namespace) = &pod.shm else {
        return filesystem::copy(Path::new("/dev/shm"), false).at(Step::Mount, what);
    };
    let own = std::fs::File::open("/proc/self/ns/mnt").at(Step::Mount, what)?;
    sys::setns(namespace.as_fd(), libc::CLONE_NEWNS).at(Step::Mount, what)?;
    let tree = filesystem::copy(Path::new("/"), false).at(Step::Mount, what);
    sys::setns(own.as_fd(), libc::CLONE_NEWNS).at(Step::Mount, what)?;
    tree
}

fn cgroups(mount: &spec::Mount, options: &Options, cgroup: &Cgroup) -> Result<Content, Error> {
    let what = || format!("cgroups at {:?}", mount.destination);
    let mut hierarchies = cgroup.clone_mounts().at(Step::Mount, what)?;
    for hierarchy in &hierarchies {
        filesystem::apply_single(hierarchy.tree.as_fd(), options).at(Step::Mount, what)?;
    }
    match hierarchies.pop() {
        Some(hierarchy) if hierarchy.name.is_empty() => Ok(Content::Tree(hierarchy.tree)),
        Some(hierarchy) => {
            hierarchies.push(hierarchy);
            Ok(Content::Hierarchies(hierarchies))
        }
        None => Err(Error::invalid(Step::Mount, "no cgroup hierarchy is mounted on this host")),
    }
}

/// Attaches the mounts, in order.
pub(super) fn attach(mounts: Vec<Prepared<'_>>, root: InRoot<'_>) -> Result<(), Error> {
    for mount in mounts {
        step_file::record(|| format!("mount {}", mount.what()));
        attach_one(&mount, root)?;
    }
    Ok(())
}

fn attach_one(prepared: &Prepared<'_>, root: InRoot<'_>) -> Result<(), Error> {
    let what = || prepared.what();
    let destination = Path::new(&prepared.mount.destination);
    match &prepared.content {
        Content::Tree(tree) => {
            let kind = if is_directory(tree.as_fd()).at(Step::Mount, what)? {
                Create::Directory
            } else {
                Create::File
            };
            let target = root.find_or_create(destination, kind)?;
            if is_directory(target.as_fd()).at(Step::Mount, what)? != (kind == Create::Directory) {
                let hint = "is it a directory onto a file, or a file onto a directory?";
                return Err(Error::invalid(Step::Mount, format!("{}: {hint}", what())));
            }
            filesystem::attach(tree.as_fd(), target.as_fd()).at(Step::Mount, what)
        }
        Content::Filesystem => attach_filesystem(prepared, root),
        Content::Hierarchies(hierarchies) => attach_hierarchies(prepared, hierarchies, root),
    }
}

fn attach_filesystem(prepared: &Prepared<'_>, root: InRoot<'_>) -> Result<(), Error> {
    let mount = prepared.mount;
    let target = target_directory(mount, root)?;
    let mut options = Options::parse(&mount.options)?;
    if mount.kind == "tmpfs" && options.parameter("mode").is_none() {
        let covered = fstat(&target).at(Step::Mount, || prepared.what())?.st_mode & 0o7777;
        options.parameters.push(("mode".into(), Some(format!("{covered:o}"))));
    }
    let made = filesystem::mount(&mount.kind, &mount.source, &options)?;
    if let Some((propagation, _)) = prepared.options.propagation {
        let change = sys::MountAttributes { propagation, ..Default::default() };
        sys::mount_setattr(made.as_fd(), false, &change).at(Step::Mount, || prepared.what())?;
    }
    filesystem::attach(made.as_fd(), target.as_fd()).at(Step::Mount, || prepared.what())
}

/// The directory to mount a filesystem on. For proc and sysfs no symlink of the image may lead elsewhere: their masks
/// are applied by path.
fn target_directory(mount: &spec::Mount, root: InRoot<'_>) -> Result<OwnedFd, Error> {
    let destination = Path::new(&mount.destination);
    let target = root.find_or_create(destination, Create::Directory)?;
    if !matches!(mount.kind.as_str(), "proc" | "sysfs") {
        return Ok(target);
    }
    root.find_without_links(destination)
        .at(Step::Mount, || format!("{} at {:?}, which a symlink leads to", mount.kind, mount.destination))
}

/// A tmpfs with a directory for each v1 hierarchy.
fn attach_hierarchies(
    prepared: &Prepared<'_>,
    hierarchies: &[HierarchyMount],
    root: InRoot<'_>,
) -> Result<(), Error> {
    let what = || prepared.what();
    let target = root.find_or_create(Path::new(&prepared.mount.destination), Create::Directory)?;
    let options = Options::parse(&["nosuid", "nodev", "noexec", "mode=755"])?;
    let base = filesystem::mount("tmpfs", "tmpfs", &options)?;
    filesystem::attach(base.as_fd(), target.as_fd()).at(Step::Mount, what)?;
    let inside = InRoot(base.as_fd());
    for hierarchy in hierarchies {
        let directory = inside.find_or_create(Path::new(&hierarchy.name), Create::Directory)?;
        filesystem::attach(hierarchy.tree.as_fd(), directory.as_fd()).at(Step::Mount, what)?;
        for alias in &hierarchy.aliases {
            rustix::fs::symlinkat(&hierarchy.name, &base, alias).at(Step::Mount, what)?;
        }
    }
    let mut change = prepared.options.attributes;
    change.propagation = 0;
    sys::mount_setattr(base.as_fd(), false, &change).at(Step::Mount, what)
}

/// Whether `/dev` is bind-mounted: then no device is made in it.
pub(super) fn binds_dev(mounts: &[spec::Mount]) -> bool {
    mounts.iter().any(|mount| {
        let bind = mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind");
        bind && is_dev(mount)
    })
}
