//! What a container finds in its file system besides its image.

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

/// The default mounts, then everything that is bound from the host, outer places before inner ones so that none is hidden
/// by one that comes later.
///
/// A mount that is asked for takes the place of a default one or of the pod's file there; one at
/// /dev takes the place of all that is below it.
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

/// Every runtime's defaults. A privileged container may write to /sys, which the others only see.
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

/// Shows the devices of the pod's network. Those of the host's are not for a user namespace to mount: it sees the host's own /sys.
fn sysfs(namespaces: &Namespaces, access: &str) -> Mount {
    let throughout = if access == "ro" { "rro" } else { access };
    match namespaces.users {
        Some(_) if namespaces.host_network => {
            mount("bind", "/sys", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", throughout])
        }
        _ => mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", access]),
    }
}

/// The pod's /dev/shm, which its shim made, or the host's when the pod shares its IPC.
fn shared_memory(inputs: &Inputs<'_>) -> Mount {
    match inputs.pod.namespaces.host_ipc {
        true => mount("bind", "/dev/shm", "/dev/shm", &["rbind", "rprivate", "rw"]),
        false => mount("pod-shm", "shm", "/dev/shm", &["nosuid", "noexec", "nodev"]),
    }
}

/// Read-only only where the whole root is: programs such as resolvconf write to them.
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

/// An overlay of the image's layers without one to write to. Its owners are those that the pod's users are.
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

/// As a part of `lowerdir`, whose colons divide.
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

/// Below the mount too: a volume is one thing to those who use it.
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

/// Propagation of the container's root: at least what its mounts need to reach through it; `None` is the private default.
pub(crate) fn root_propagation(mounts: &[config::Mount]) -> Option<&'static str> {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    [Propagation::Bidirectional, Propagation::HostToContainer]
        .into_iter()
        .find(|kind| any(*kind))
        .map(propagation)
}

/// `path` without `.`, `..` and double slashes, by its text alone. Nothing is above the root.
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
