//! Detection of the host's features.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Capabilities, Capability};

use super::{
    apparmor::Confinement,
    host::{Cgroups, Host, HostFeatures},
};
use crate::config::Restrict;

/// All capabilities in the order of their numbers, linux/capability.h.
const CAPABILITIES_BY_NUMBER: [Capability; 41] = {
    use Capability::*;
    [
        Chown,
        DacOverride,
        DacReadSearch,
        Fowner,
        Fsetid,
        Kill,
        Setgid,
        Setuid,
        Setpcap,
        LinuxImmutable,
        NetBindService,
        NetBroadcast,
        NetAdmin,
        NetRaw,
        IpcLock,
        IpcOwner,
        SysModule,
        SysRawio,
        SysChroot,
        SysPtrace,
        SysPacct,
        SysAdmin,
        SysBoot,
        SysNice,
        SysResource,
        SysTime,
        SysTtyConfig,
        Mknod,
        Lease,
        AuditWrite,
        AuditControl,
        Setfcap,
        MacOverride,
        MacAdmin,
        Syslog,
        WakeAlarm,
        BlockSuspend,
        AuditRead,
        Perfmon,
        Bpf,
        CheckpointRestore,
    ]
};

/// First kernel with mount_setattr(2), which makes mounts read-only recursively.
const MOUNT_SETATTR_KERNEL: (u32, u32) = (5, 12);
/// First kernel with id-mapped mounts of tmpfs, which holds secrets and the like; the newest feature that user
/// namespaces need.
const IDMAPPED_TMPFS_KERNEL: (u32, u32) = (6, 3);

/// A file under /proc or /sys that could not be read or understood.
#[derive(Debug, thiserror::Error)]
#[error("find out what the host can do: {}", path.display())]
pub struct ProbeError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Host {
    /// Probes the host under `root`, which is `/` except in tests. `restrict` says whether containers may get a lower
    /// oom_score_adj than the daemon's own.
    pub fn probe(root: &Path, restrict: Restrict) -> Result<Self, ProbeError> {
        let capabilities = capabilities(&root.join("proc/self/status"))?;
        let may_lower = match restrict {
            Restrict::Auto => capabilities.contains(&Capability::SysResource),
            Restrict::Always => false,
            Restrict::Never => true,
        };
        let own_score = || number(&root.join("proc/self/oom_score_adj"));
        let cgroups = cgroups(root);
        let kernel = kernel(&root.join("proc/sys/kernel/osrelease"))?;
        Ok(Self {
            kernel,
            cgroups,
            swap: counts_swap(root, cgroups),
            hugepages: hugepages(root, cgroups),
            features: features(root, kernel),
            // Set once the daemon has tried to load its profile.
            apparmor: Confinement::Absent,
            selinux: root.join("sys/fs/selinux/enforce").exists(),
            oom_score_adj_floor: (!may_lower).then(own_score).transpose()?,
            capabilities,
        })
    }
}

fn features(root: &Path, kernel: (u32, u32)) -> HostFeatures {
    // The file is missing in a kernel without user namespaces, and 0 where they are disabled.
    let most = number(&root.join("proc/sys/user/max_user_namespaces")).unwrap_or(0);
    HostFeatures {
        recursive_readonly: kernel >= MOUNT_SETATTR_KERNEL,
        user_namespaces: kernel >= IDMAPPED_TMPFS_KERNEL && most > 0,
    }
}

fn read<T>(path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<T, ProbeError> {
    let text = fs::read_to_string(path).map_err(|source| ProbeError { path: path.to_owned(), source })?;
    parse(&text).ok_or_else(|| ProbeError {
        path: path.to_owned(),
        source: io::Error::new(
            io::ErrorKind::InvalidData,
            format!("cannot be understood: {:?}", text.trim()),
        ),
    })
}

fn number(path: &Path) -> Result<i64, ProbeError> {
    read(path, |text| text.trim().parse().ok())
}

/// Returns the capabilities that the daemon has and can pass on: those in its effective and its bounding set.
fn capabilities(status: &Path) -> Result<Capabilities, ProbeError> {
    let mask = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
    };
    let both = read(status, |text| Some(mask(text, "CapEff:")? & mask(text, "CapBnd:")?))?;
    let known = CAPABILITIES_BY_NUMBER.into_iter().enumerate();
    Ok(known.filter(|(number, _)| both >> number & 1 == 1).map(|(_, capability)| capability).collect())
}

/// A v2 hierarchy mounted beside v1 ones does not count: each controller is in only one hierarchy.
fn cgroups(root: &Path) -> Cgroups {
    match root.join("sys/fs/cgroup/cgroup.controllers").exists() {
        true => Cgroups::V2,
        false => Cgroups::V1,
    }
}

/// Whether the memory controller counts swap: only then do its limit files exist. On v2 the root cgroup has none, so
/// the daemon's own cgroup is tested.
fn counts_swap(root: &Path, cgroups: Cgroups) -> bool {
    let mounted = root.join("sys/fs/cgroup");
    match cgroups {
        Cgroups::V1 => mounted.join("memory/memory.memsw.limit_in_bytes").exists(),
        Cgroups::V2 => {
            let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
            let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
            mounted.join(path).join("memory.swap.max").exists()
        }
    }
}

fn hugepages(root: &Path, cgroups: Cgroups) -> BTreeSet<String> {
    let mounted = root.join("sys/fs/cgroup");
    let controllers = fs::read_to_string(mounted.join("cgroup.controllers")).unwrap_or_default();
    let limited = match cgroups {
        Cgroups::V1 => mounted.join("hugetlb").is_dir(),
        Cgroups::V2 => controllers.split_whitespace().any(|name| name == "hugetlb"),
    };
    let Ok(sizes) = fs::read_dir(root.join("sys/kernel/mm/hugepages")) else { return BTreeSet::new() };
    let sizes = sizes.flatten().filter(|_| limited);
    sizes.filter_map(|size| page_size(size.file_name().to_str()?)).collect()
}

/// Converts `hugepages-2048kB` to `2MB`, the name in the hugetlb controller.
fn page_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let units = [(1 << 20, "GB"), (1 << 10, "MB"), (1, "KB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| kilobytes >= *unit)?;
    Some(format!("{}{name}", kilobytes / unit))
}

/// Parses `6.18.1-foo` to (6, 18).
fn kernel(release: &Path) -> Result<(u32, u32), ProbeError> {
    read(release, |text| {
        let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests;
