//! The mounts of a container besides its root file system.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use berth_image::Part;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use super::{Error, Host, ImageVolume, Inputs, error::without_nul};
use crate::{
    container::config::{self, Propagation},
    pod::config::{IdRange, Namespaces, Users},
};

/// Returns the default mounts, then everything bound from the host, outer mount points before inner ones, so that none of
/// the bound mounts hides another.
///
/// A requested mount replaces a default mount or a pod's file with the same destination. One at /dev replaces the
/// default mounts below it too, but not /dev/shm.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Vec<Mount>, Error> {
    let mut bound = inputs
        .container
        .mounts
        .iter()
        .map(|mount| bind(mount, inputs.host))
        .collect::<Result<Vec<_>, _>>()?;
    let users = inputs.pod.namespaces.users;
    bound.extend(inputs.volumes.iter().map(|image| volume(image, users)).collect::<Result<Vec<_>, _>>()?);
    let taken: BTreeSet<_> = bound.iter().map(|mount| mount.destination().clone()).collect();
    let mut own = pod_files(inputs);
    own.push(shared_memory(inputs));
    bound.extend(own.into_iter().filter(|mount| !taken.contains(mount.destination())));
    bound.sort_by_key(|mount| mount.destination().components().count());
    let mut mounts = defaults(inputs);
    mounts.retain(|mount| !is_replaced(mount.destination(), &taken));
    mounts.append(&mut bound);
    Ok(mounts)
}

fn is_replaced(destination: &Path, taken: &BTreeSet<PathBuf>) -> bool {
    let below_dev = destination.starts_with("/dev") && taken.contains(Path::new("/dev"));
    below_dev || taken.contains(destination)
}

/// Returns the mounts on which runtimes agree. /sys is read-only except in a privileged container.
fn defaults(inputs: &Inputs<'_>) -> Vec<Mount> {
    let sys = if inputs.container.security.privileged { "rw" } else { "ro" };
    vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        sysfs(&inputs.pod.namespaces, sys),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]),
    ]
}

/// Returns the mount of /sys. A sysfs shows the network devices of the network namespace in which it is mounted, and a
/// user namespace may not mount one for the host's: such a pod gets a bind mount of the host's /sys.
fn sysfs(namespaces: &Namespaces, access: &str) -> Mount {
    let throughout = if access == "ro" { "rro" } else { access };
    match namespaces.users {
        Some(_) if namespaces.host_network => {
            mount("bind", "/sys", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", throughout])
        }
        _ => mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", access]),
    }
}

/// Returns the mount of /dev/shm: the pod's, which its shim made, or the host's when the pod shares the host's IPC.
fn shared_memory(inputs: &Inputs<'_>) -> Mount {
    match inputs.pod.namespaces.host_ipc {
        true => mount("bind", "/dev/shm", "/dev/shm", &["rbind", "rprivate", "rw"]),
        false => mount("pod-shm", "shm", "/dev/shm", &["nosuid", "noexec", "nodev"]),
    }
}

/// Returns the pod's files. They are read-only only if the root is: programs such as resolvconf write to them.
fn pod_files(inputs: &Inputs<'_>) -> Vec<Mount> {
    let files = inputs.files;
    let access = if inputs.container.security.readonly_rootfs { "ro" } else { "rw" };
    let places = [
        (&files.hostname, "/etc/hostname"),
        (&files.hosts, "/etc/hosts"),
        (&files.resolv_conf, "/etc/resolv.conf"),
    ];
    let bound = places.into_iter().filter_map(|(file, place)| Some((file.as_ref()?, place)));
    bound.map(|(file, place)| mount("bind", file, place, &["rbind", "rprivate", access])).collect()
}

/// Returns an overlay of the image's layers without an upper layer, or a bind mount for a file. File owners are mapped
/// like the pod's users.
fn volume(volume: &ImageVolume, users: Option<Users>) -> Result<Mount, Error> {
    let destination = destination(&volume.mount.container_path)?;
    let mut options = vec!["ro".to_owned()];
    options.extend(volume.mount.noexec.then(|| "noexec".to_owned()));
    Ok(match &volume.part {
        Part::File(path) => {
            options.extend(["bind".to_owned(), "rprivate".to_owned()]);
            let mut file = mount("bind", path, &destination, &options);
            users.map_or(Ok(()), |users| map_owners(&mut file, users))?;
            file
        }
        Part::Directory(layers) => {
            let escaped = layers.iter().map(|layer| escaped(layer)).collect::<Vec<_>>();
            options.push(format!("lowerdir={}", escaped.join(":")));
            options.extend(users.into_iter().flat_map(Users::overlay_options));
            mount("overlay", "overlay", &destination, &options)
        }
    })
}

/// Escapes a path for `lowerdir`, in which colons separate layers.
fn escaped(layer: &Path) -> String {
    layer.display().to_string().replace('\\', "\\\\").replace(':', "\\:")
}

fn destination(container_path: &str) -> Result<String, Error> {
    let destination = clean("mount container_path", container_path)?;
    match destination.as_str() {
        "/" => Err(Error::invalid("mount container_path", container_path, "is the root itself")),
        _ => Ok(destination),
    }
}

fn bind(asked: &config::Mount, host: &Host) -> Result<Mount, Error> {
    let destination = destination(&asked.container_path)?;
    without_nul("mount host_path", &asked.host_path)?;
    if !asked.host_path.starts_with('/') {
        return Err(Error::invalid("mount host_path", &asked.host_path, "is not an absolute path"));
    }
    let mut options = vec!["rbind", propagation(asked.propagation), access(asked, host)?];
    let flags = [(asked.noexec, "noexec"), (asked.nodev, "nodev"), (asked.nosuid, "nosuid")];
    options.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, option)| option));
    let mut mount = mount("bind", &asked.host_path, &destination, &options);
    if let Some(owners) = asked.owners {
        show_owners(&mut mount, owners, host)?;
    }
    Ok(mount)
}

/// Maps the owners of the mount and of mounts below it (ridmap), since a volume may contain mounts.
fn show_owners(mount: &mut Mount, owners: Users, host: &Host) -> Result<(), Error> {
    if !host.features.user_namespaces {
        let reason = "this host cannot map the owners of files".to_owned();
        let value = mount.destination().display().to_string();
        return Err(Error::Unsupported { field: "mount uidMappings", value, reason });
    }
    map_owners(mount, owners)
}

fn map_owners(mount: &mut Mount, owners: Users) -> Result<(), Error> {
    mount.options_mut().get_or_insert_default().push("ridmap".to_owned());
    mount.set_uid_mappings(Some(vec![mapping(owners.uids)?]));
    mount.set_gid_mappings(Some(vec![mapping(owners.gids)?]));
    Ok(())
}

fn mapping(range: IdRange) -> Result<LinuxIdMapping, Error> {
    let (host, length) = (range.host(), range.length());
    let mapping = LinuxIdMappingBuilder::default().container_id(0u32).host_id(host).size(length).build();
    mapping.map_err(|error| Error::invalid("mount uidMappings", format!("{range:?}"), error.to_string()))
}

fn propagation(asked: Propagation) -> &'static str {
    match asked {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    }
}

fn access(asked: &config::Mount, host: &Host) -> Result<&'static str, Error> {
    let conflict = |reason| Err(Error::invalid("mount recursive_read_only", &asked.container_path, reason));
    match (asked.readonly, asked.recursive_readonly) {
        (false, false) => Ok("rw"),
        (true, false) => Ok("ro"),
        (false, true) => conflict("is asked for a mount that is not read-only"),
        (true, true) if asked.propagation != Propagation::Private => {
            conflict("is asked for a mount whose propagation is not private")
        }
        (true, true) if !host.features.recursive_readonly => {
            Err(Error::RecursiveReadonly(asked.container_path.clone()))
        }
        (true, true) => Ok("rro"),
    }
}

/// Returns the propagation of the container's root, at least that of its mounts; `None` is the default, private.
pub(crate) fn root_propagation(mounts: &[config::Mount]) -> Option<&'static str> {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    [Propagation::Bidirectional, Propagation::HostToContainer]
        .into_iter()
        .find(|kind| any(*kind))
        .map(propagation)
}

/// Returns `path` without `.`, `..` and double slashes, by its text only; `..` at the root stays at the root.
pub(crate) fn clean(field: &'static str, path: &str) -> Result<String, Error> {
    without_nul(field, path)?;
    if !path.starts_with('/') {
        return Err(Error::invalid(field, path, "is not an absolute path"));
    }
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn mount<O: AsRef<str>>(kind: &str, source: impl AsRef<Path>, destination: &str, options: &[O]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.as_ref().to_owned()))
        .set_destination(destination.into())
        .set_options(Some(options.iter().map(|option| option.as_ref().to_owned()).collect()));
    mount
}

#[cfg(test)]
mod tests;
