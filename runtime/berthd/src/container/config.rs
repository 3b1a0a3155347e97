//! A container's configuration: parsed once at the border, never changed afterwards except for resources.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    cdi::DeviceName,
    pod::config::{PidMode, Users},
};

/// The caller's identity for a container, unique within its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Name of the container within its pod.
    pub name: String,
    /// How many containers of that name the caller made before.
    pub attempt: u32,
}

/// A container's configuration as the caller asked for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's identity within its pod.
    pub metadata: ContainerMetadata,
    /// The image as the caller names it: an id, or any of its names.
    pub image: String,
    /// The image name as the user wrote it; empty when unknown.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint, and its arguments too; empty keeps the entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's arguments; empty keeps them unless `command` is given.
    pub args: Vec<String>,
    /// Replaces the image's working directory; empty keeps it.
    pub working_dir: String,
    /// Added to the image's environment, later entries winning. Values are bytes.
    pub env: Vec<(String, Vec<u8>)>,
    /// Mounts besides the defaults.
    pub mounts: Vec<Mount>,
    /// Images mounted as volumes.
    #[serde(default)]
    pub image_mounts: Vec<ImageMount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// CDI devices, without duplicates.
    #[serde(default)]
    pub cdi_devices: Vec<DeviceName>,
    /// Matched by filters.
    pub labels: BTreeMap<String, String>,
    /// Stored and returned as they are; the CDI devices that they name are in `cdi_devices` too.
    pub annotations: BTreeMap<String, String>,
    /// Log file, relative to the pod's log directory; empty writes no log.
    pub log_path: String,
    /// The input pipe is kept open for attach.
    pub stdin: bool,
    /// The input ends when the first attached client disconnects.
    pub stdin_once: bool,
    /// The process gets a terminal.
    pub tty: bool,
    /// Signal that asks the container to stop, by name or number; `None` takes the image's, then SIGTERM.
    pub stop_signal: Option<String>,
    /// Limits; the only part that may change after creation.
    pub resources: Resources,
    /// Privileges and confinement of the processes.
    pub security: Security,
}

/// A mount from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: String,
    /// Absolute path on the host.
    pub host_path: String,
    /// The mount is read-only.
    pub readonly: bool,
    /// Mounts below it are read-only too.
    pub recursive_readonly: bool,
    /// Mount propagation between host and container.
    pub propagation: Propagation,
    /// Mounted noexec.
    pub noexec: bool,
    /// Mounted nodev.
    pub nodev: bool,
    /// Mounted nosuid.
    pub nosuid: bool,
    /// Id mapping of the mount: owners stored on disk as ids from 0 on appear as these host ids. `None` maps nothing.
    pub owners: Option<Users>,
    /// All files in it are relabelled with the container's SELinux label.
    #[serde(default)]
    pub selinux_relabel: bool,
}

/// An image, or a part of one, mounted read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Absolute path in the container.
    pub container_path: String,
    /// The image as the caller names it.
    pub image: String,
    /// The image name as the user wrote it; empty when unknown.
    pub user_specified_image: String,
    /// Id that the name stood for when the container was created; empty before.
    pub image_id: String,
    /// Path within the image; empty is all of it.
    pub sub_path: String,
    /// Mounted noexec.
    pub noexec: bool,
}

/// Mount propagation, mount_namespaces(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Mounts propagate neither way (rprivate).
    #[default]
    Private,
    /// From the host to the container (rslave).
    HostToContainer,
    /// Both ways (rshared).
    Bidirectional,
}

/// A device node of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path in the container.
    pub container_path: String,
    /// Path on the host.
    pub host_path: PathBuf,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

/// Limits of a container. `None` means not asked for; an update leaves such a limit as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Length of a CPU period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPU time per period in microseconds; negative is no limit.
    pub cpu_quota: Option<i64>,
    /// Relative share, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CPUs it may use, as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use.
    pub cpuset_mems: Option<String>,
    /// Memory in bytes; -1 is no limit.
    pub memory_limit: Option<i64>,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap_limit: Option<i64>,
    /// Bytes that the container keeps when memory is short.
    pub memory_reservation: Option<i64>,
    /// How readily the kernel swaps its memory out, 0 to 100; cgroup v1 only.
    pub memory_swappiness: Option<u64>,
    /// Whether processes wait instead of being killed when the memory limit is reached; cgroup v1 only.
    pub disable_oom_killer: Option<bool>,
    /// Processes and threads; 0 or less is no limit.
    pub pids_limit: Option<i64>,
    /// Adjustment of the OOM score, -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// Page sizes such as `2MB`, each with its limit in bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2 and the values to write to them.
    pub unified: BTreeMap<String, String>,
}

/// Privileges and confinement of a container's processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities of the daemon, all devices, nothing masked.
    pub privileged: bool,
    /// Where the PID namespace comes from.
    pub pid: PidMode,
    /// Capabilities added to the default set, without `CAP_`; `ALL` is all of them.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped from the default set, without `CAP_`; `ALL` is all of them.
    pub drop_capabilities: Vec<String>,
    /// Capabilities added to the ambient set as well.
    pub add_ambient_capabilities: Vec<String>,
    /// User; `None` takes the image's.
    pub user: Option<UserName>,
    /// Group of the first process; only with `user`.
    pub group: Option<u32>,
    /// Additional groups.
    pub supplemental_groups: Vec<u32>,
    /// Whether the groups that the image's /etc/group lists for the user are left out.
    pub strict_groups: bool,
    /// The root file system is read-only.
    pub readonly_rootfs: bool,
    /// Sets no_new_privs, so that execve(2) grants no privileges.
    pub no_new_privs: bool,
    /// Paths that are masked.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only.
    pub readonly_paths: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// AppArmor profile.
    #[serde(default)]
    pub apparmor: Apparmor,
    /// SELinux label, if one is asked for.
    #[serde(default)]
    pub selinux: Option<Selinux>,
}

/// Source of the AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Apparmor {
    /// Berth's own profile, where the host has AppArmor.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A profile of this name that the host has loaded.
    Localhost(String),
}

/// The parts of an SELinux label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selinux {
    /// SELinux user, such as `system_u`.
    pub user: String,
    /// Role, such as `system_r`.
    pub role: String,
    /// Type, such as `container_t`.
    pub kind: String,
    /// Level, such as `s0:c1,c2`.
    pub level: String,
}

/// A user as the caller names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserName {
    /// By number.
    Id(u32),
    /// By name, looked up in the image's /etc/passwd.
    Name(String),
}

/// Source of the system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// No filter.
    #[default]
    Unconfined,
    /// Berth's own profile.
    RuntimeDefault,
    /// A profile in this file of the host.
    Localhost(PathBuf),
}
