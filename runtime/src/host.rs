//! Looking at the machine: what it can do, and the device nodes it has.

use std::{
    collections::BTreeSet,
    fs,
    io::{Error as IoError, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Capabilities, Capability, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use crate::{
    container::config::Device,
    error::{During, Error, Kind, Result},
    spec::{Cgroups, FoundDevice, Host},
};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Directories below /dev that are file systems of their own, or that a container gets its own of.
const NOT_DEVICES: [&str; 5] = ["pts", "shm", "fd", "mqueue", ".lxc"];

/// Finds out what the machine can do. `lower_oom` says whether oom_score_adj may be lowered below the daemon's own;
/// `None` decides by capability.
pub fn probe(lower_oom: Option<bool>) -> Result<Host> {
    let capabilities = own_capabilities()?;
    let may_lower = lower_oom.unwrap_or_else(|| capabilities.contains(&Capability::SysResource));
    Ok(Host {
        cgroups: cgroups(),
        swap: ["memory/memory.memsw.limit_in_bytes", "memory.swap.max"].iter().any(|file| in_cgroup(file)),
        hugepages: hugepages(),
        recursive_readonly: kernel_at_least(5, 12),
        oom_score_adj_floor: if may_lower { None } else { Some(own_oom_score_adj()?) },
        devices: devices_below(Path::new("/dev")).unwrap_or_default(),
        capabilities,
    })
}

fn in_cgroup(file: &str) -> bool {
    Path::new(CGROUP_ROOT).join(file).exists()
}

fn cgroups() -> Cgroups {
    if in_cgroup("cgroup.controllers") { Cgroups::V2 } else { Cgroups::V1 }
}

fn own_capabilities() -> Result<Capabilities> {
    let status = fs::read_to_string("/proc/self/status").during(|| "read /proc/self/status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or("0");
    let bits = u64::from_str_radix(bounding.trim(), 16)
        .map_err(|error| Error::caused(Kind::Internal, "read CapBnd of /proc/self/status", error))?;
    Ok(CAPABILITIES
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, cap)| cap)
        .collect())
}

fn own_oom_score_adj() -> Result<i64> {
    let text = fs::read_to_string("/proc/self/oom_score_adj").during(|| "read /proc/self/oom_score_adj")?;
    text.trim().parse().map_err(|error| Error::caused(Kind::Internal, "read /proc/self/oom_score_adj", error))
}

/// Sizes as the OCI specification writes them, `2MB`, when there is a controller that can limit them.
fn hugepages() -> BTreeSet<String> {
    if !in_cgroup("hugetlb") && !in_cgroup("hugetlb.2MB.max") {
        return BTreeSet::new();
    }
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else { return BTreeSet::new() };
    sizes.flatten().filter_map(|size| hugepage_size(size.file_name().to_str()?)).collect()
}

/// `hugepages-2048kB` is `2MB`.
fn hugepage_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    })
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_string_lossy().into_owned();
    numbers.retain(|c| c.is_ascii_digit() || c == '.');
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

/// The nodes that a container's devices name: the node itself, or every one below a directory.
///
/// # Errors
///
/// `InvalidArgument` when there is no such path, or it is no device.
pub(crate) fn find_devices(asked: &[Device]) -> Result<Vec<FoundDevice>> {
    let mut found = Vec::new();
    for device in asked {
        let nodes = nodes_of(&device.host_path).map_err(|error| {
            Error::caused(Kind::InvalidArgument, format!("device {}", device.host_path.display()), error)
        })?;
        for mut node in nodes {
            let below =
                node.path().strip_prefix(&device.host_path).map(Path::to_path_buf).unwrap_or_default();
            let inside = Path::new(&device.container_path);
            node.set_path(if below.as_os_str().is_empty() { inside.into() } else { inside.join(below) });
            found.push(FoundDevice { node, permissions: device.permissions.clone() });
        }
    }
    Ok(found)
}

fn nodes_of(path: &Path) -> std::io::Result<Vec<LinuxDevice>> {
    let path = fs::canonicalize(path)?;
    if path.is_dir() {
        return devices_below(&path);
    }
    node_at(&path)?
        .map(|node| vec![node])
        .ok_or_else(|| IoError::new(ErrorKind::InvalidInput, "is not a device"))
}

fn devices_below(directory: &Path) -> std::io::Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path: PathBuf = entry.path();
        if entry.file_type()?.is_dir() {
            if !NOT_DEVICES.iter().any(|name| entry.file_name() == *name) {
                found.extend(devices_below(&path)?);
            }
        } else {
            found.extend(node_at(&path)?);
        }
    }
    Ok(found)
}

fn node_at(path: &Path) -> std::io::Result<Option<LinuxDevice>> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return Ok(None),
    };
    let number = metadata.rdev();
    let node = LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build();
    node.map(Some).map_err(IoError::other)
}

/// In the order of their bits, linux/capability.h.
const CAPABILITIES: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn device(host_path: &str) -> Device {
        Device { container_path: "/dev/x".into(), host_path: host_path.into(), permissions: "rw".into() }
    }

    #[test]
    fn a_device_is_found_by_its_numbers_and_placed_where_the_container_wants_it() {
        let found = find_devices(&[device("/dev/null")]).unwrap();
        let node = &found[0].node;
        assert_eq!((node.path().as_path(), node.major(), node.minor()), (Path::new("/dev/x"), 1, 3));
    }

    #[test]
    fn what_is_no_device_or_is_not_there_is_refused_by_name() {
        for path in ["/etc/passwd", "/dev/no-such-device"] {
            let error = find_devices(&[device(path)]).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn hugepage_sizes_are_written_as_the_specification_does() {
        let size = |directory| hugepage_size(directory).unwrap();
        assert_eq!(
            [size("hugepages-2048kB"), size("hugepages-1048576kB"), size("hugepages-64kB")],
            ["2MB", "1GB", "64KB"]
        );
        assert_eq!(hugepage_size("something"), None);
    }

    #[test]
    fn the_machine_has_capabilities_and_devices() {
        let host = probe(None).unwrap();
        assert!(host.devices.iter().any(|node| node.path() == Path::new("/dev/null")));
    }
}
