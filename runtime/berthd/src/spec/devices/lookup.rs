//! Looks up device nodes on the host.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::{Error, FoundDevice};
use crate::container::config::{ContainerConfig, Device};

/// Directories below /dev that hold no devices, or that each container has of its own.
const SKIPPED_DIRECTORIES: [&str; 8] =
    ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];

/// The device nodes for a container, as they are on the host now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// Requested nodes.
    pub asked: Vec<FoundDevice>,
    /// All nodes of the host, for a privileged container; otherwise empty.
    pub of_host: Vec<LinuxDevice>,
}

/// Looks up the container's devices. Symlinks are followed; a directory stands for all nodes below it.
///
/// May block on paths that the caller chose, so it must not run on an async thread.
pub fn find(container: &ContainerConfig) -> Result<Devices, Error> {
    let mut asked = Vec::new();
    for device in &container.devices {
        let permissions = &device.permissions;
        let found = lookup(device).map_err(|reason| {
            Error::invalid("device host_path", device.host_path.to_string_lossy(), reason.to_string())
        })?;
        asked.extend(found.into_iter().map(|node| FoundDevice { node, permissions: permissions.clone() }));
    }
    let of_host = if container.security.privileged { of_host()? } else { Vec::new() };
    Ok(Devices { asked, of_host })
}

fn of_host() -> Result<Vec<LinuxDevice>, Error> {
    let mut nodes = Vec::new();
    let dev = Path::new("/dev");
    collect(dev, dev, &mut nodes).map_err(|reason| Error::Unsupported {
        field: "privileged",
        value: "/dev".to_owned(),
        reason: reason.to_string(),
    })?;
    Ok(nodes)
}

fn lookup(device: &Device) -> io::Result<Vec<LinuxDevice>> {
    let source = fs::canonicalize(&device.host_path)?;
    let place = match device.container_path.as_str() {
        "" => device.host_path.as_path(),
        path => Path::new(path),
    };
    if !source.is_dir() {
        let node = node(&source, place)?.ok_or_else(|| io::Error::other("is no device"))?;
        return Ok(vec![node]);
    }
    let mut nodes = Vec::new();
    collect(&source, place, &mut nodes)?;
    Ok(nodes)
}

/// Adds all devices below `source`, with their paths below `place`. FIFOs in a directory are skipped.
fn collect(source: &Path, place: &Path, nodes: &mut Vec<LinuxDevice>) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if SKIPPED_DIRECTORIES.iter().any(|known| name == *known) {
            continue;
        }
        let found = match entry.file_type()?.is_dir() {
            true => collect(&path, &place.join(&name), nodes).map(|()| None),
            false => node(&path, &place.join(&name)),
        };
        match found {
            Ok(node) => nodes.extend(node.filter(|node| node.typ() != LinuxDeviceType::P)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the node at `path`, to be made at `place`; `None` for other files.
fn node(path: &Path, place: &Path) -> io::Result<Option<LinuxDevice>> {
    let found = fs::symlink_metadata(path)?;
    let kind = match found.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_fifo() => LinuxDeviceType::P,
        _ => return Ok(None),
    };
    let mut node = LinuxDevice::default();
    node.set_path(place.to_owned())
        .set_typ(kind)
        .set_major(rustix::fs::major(found.rdev()).into())
        .set_minor(rustix::fs::minor(found.rdev()).into())
        .set_file_mode(Some(found.mode() & 0o7777))
        .set_uid(Some(found.uid()))
        .set_gid(Some(found.gid()));
    Ok(Some(node))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asking(host_path: &Path, container_path: &str) -> ContainerConfig {
        let device = Device {
            host_path: host_path.to_owned(),
            container_path: container_path.to_owned(),
            permissions: "rw".to_owned(),
        };
        ContainerConfig { devices: vec![device], ..Default::default() }
    }

    fn shown(node: &LinuxDevice) -> (String, LinuxDeviceType, i64, i64) {
        (node.path().display().to_string(), node.typ(), node.major(), node.minor())
    }

    #[test]
    fn a_node_is_found_and_placed_where_asked() {
        let found = find(&asking(Path::new("/dev/null"), "/dev/nothing")).unwrap();
        assert_eq!(shown(&found.asked[0].node), ("/dev/nothing".to_owned(), LinuxDeviceType::C, 1, 3));
        assert_eq!(found.asked[0].permissions, "rw");
        assert_eq!(found.of_host, []);
        let found = find(&asking(Path::new("/dev/null"), "")).unwrap();
        assert_eq!(found.asked[0].node.path(), Path::new("/dev/null"));
    }

    #[test]
    fn a_symbolic_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let found = find(&asking(&link, "/dev/z")).unwrap();
        assert_eq!(shown(&found.asked[0].node), ("/dev/z".to_owned(), LinuxDeviceType::C, 1, 5));
    }

    #[test]
    fn a_directory_stands_for_all_nodes_below_it_but_those_each_container_has() {
        let nodes = find(&asking(Path::new("/dev"), "/d")).unwrap().asked;
        let paths: Vec<_> = nodes.iter().map(|found| found.node.path().as_path()).collect();
        assert!(paths.contains(&Path::new("/d/null")) && paths.contains(&Path::new("/d/full")));
        assert!(!paths.iter().any(|path| path.starts_with("/d/pts") || path.starts_with("/d/console")));
    }

    #[test]
    fn a_directory_without_nodes_gives_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/zero", directory.path().join("link")).unwrap();
        assert_eq!(find(&asking(directory.path(), "/d")), Ok(Devices::default()));
    }

    #[test]
    fn what_is_no_device_or_not_there_is_refused_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let missing = directory.path().join("missing");
        for (path, reason) in [(&file, "is no device"), (&missing, "No such file or directory (os error 2)")]
        {
            let expected = Error::invalid("device host_path", path.to_string_lossy(), reason);
            assert_eq!(find(&asking(path, "/dev/x")), Err(expected));
        }
    }

    #[test]
    fn a_privileged_container_gets_what_is_below_dev() {
        let mut container = ContainerConfig::default();
        container.security.privileged = true;
        let nodes = find(&container).unwrap().of_host;
        assert!(nodes.iter().any(|node| shown(node) == ("/dev/null".to_owned(), LinuxDeviceType::C, 1, 3)));
    }

    #[test]
    fn root_a_node_below_a_directory_keeps_its_place_mode_and_owner() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berthd root_");
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let path = directory.path().join("sub/disk");
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        let numbers = rustix::fs::makedev(7, 200);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::BlockDevice, mode, numbers)
            .unwrap();
        std::os::unix::fs::chown(&path, Some(3), Some(6)).unwrap();
        let found = find(&asking(directory.path(), "/dev/x")).unwrap();
        let node = &found.asked[0].node;
        assert_eq!(shown(node), ("/dev/x/sub/disk".to_owned(), LinuxDeviceType::B, 7, 200));
        assert_eq!((node.file_mode(), node.uid(), node.gid()), (Some(0o640), Some(3), Some(6)));
    }
}
