//! What a container is asked to be: parsed once at the border, never changed afterwards (resources apart).

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    cdi::DeviceName,
    pod::config::{PidMode, Users},
};

/// Who the container is to its caller, within its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Name of the container within its pod.
    pub name: String,
    /// How many containers of that name the caller made before.
    pub attempt: u32,
}

/// Everything that is known of a container before it is created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Who the container is.
    pub metadata: ContainerMetadata,
    /// The image as the caller names it now: an id, or any of its names.
    pub image: String,
    /// The image as the user of the caller once wrote it; empty when unknown.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint, and its arguments too; empty keeps the entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's arguments; empty keeps them unless `command` is given.
    pub args: Vec<String>,
    /// Replaces the image's working directory; empty keeps it.
    pub working_dir: String,
    /// Added to the image's environment, later ones winning.
    pub env: Vec<(String, Vec<u8>)>,
    /// What is mounted besides the defaults.
    pub mounts: Vec<Mount>,
    /// Images that are mounted as volumes.
    #[serde(default)]
    pub image_mounts: Vec<ImageMount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Devices that their vendors describe; each once.
    #[serde(default)]
    pub cdi_devices: Vec<DeviceName>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// For whoever reads them.
    pub annotations: BTreeMap<String, String>,
    /// Log file, relative to the pod's log directory; empty writes no log.
    pub log_path: String,
    /// A pipe is kept open for attach.
    pub stdin: bool,
    /// The pipe closes with the first client that leaves.
    pub stdin_once: bool,
    /// The process gets a terminal.
    pub tty: bool,
    /// Signal that asks it to stop, by name or number; `None` takes the image's, then SIGTERM.
    pub stop_signal: Option<String>,
    /// Limits; the only part that may change later.
    pub resources: Resources,
    /// What the process may do.
    pub security: Security,
}

/// A mount from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: String,
    /// Absolute path on the host.
    pub host_path: String,
    /// No writes.
    pub readonly: bool,
    /// No writes in mounts below it either.
    pub recursive_readonly: bool,
    /// How mounts made on one side show on the other.
    pub propagation: Propagation,
    /// No program of it may be executed.
    pub noexec: bool,
    /// No device node of it may be opened.
    pub nodev: bool,
    /// Set-uid bits of it are without effect.
    pub nosuid: bool,
    /// Who the owners of its files are shown as: those on disk, counted from 0, are these of the host. `None` shows them as they are.
    pub owners: Option<Users>,
    /// All that is in it gets the container's label of SELinux.
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
    /// The image as the user of the caller once wrote it; empty when unknown.
    pub user_specified_image: String,
    /// Which image that was when the container was created; empty before.
    pub image_id: String,
    /// Path within the image; empty is all of it.
    pub sub_path: String,
    /// No program of it may be executed.
    pub noexec: bool,
}

/// How mounts made on one side show on the other, mount_namespaces(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all.
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

/// Limits of a container. `None` means not asked for: on an update it stays as it is.
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
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap_limit: Option<i64>,
    /// Bytes that the container keeps when memory is short.
    pub memory_reservation: Option<i64>,
    /// How readily the kernel swaps its memory out, 0 to 100; cgroup v1 alone has it.
    pub memory_swappiness: Option<u64>,
    /// Whether processes that want more memory than there is wait instead of being killed; cgroup v1 alone has it.
    pub disable_oom_killer: Option<bool>,
    /// Processes and threads; 0 or less is no limit.
    pub pids_limit: Option<i64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// Page size as `2MB`, and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2 and what is written to them.
    pub unified: BTreeMap<String, String>,
}

/// What a container's processes may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    /// Everything the daemon may: all capabilities, all devices, nothing masked.
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
    /// Groups besides.
    pub supplemental_groups: Vec<u32>,
    /// Whether the image's /etc/group adds to them.
    pub strict_groups: bool,
    /// The root file system refuses writes.
    pub readonly_rootfs: bool,
    /// No gain of privileges through execve.
    pub no_new_privs: bool,
    /// Paths that show nothing.
    pub masked_paths: Vec<String>,
    /// Paths that refuse writes.
    pub readonly_paths: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Profile of AppArmor.
    #[serde(default)]
    pub apparmor: Apparmor,
    /// Label of SELinux, if one is asked for.
    #[serde(default)]
    pub selinux: Option<Selinux>,
}

/// Where the profile of AppArmor comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Apparmor {
    /// Berth's own, where the host has AppArmor.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One of this name that the host has loaded.
    Localhost(String),
}

/// The parts of a label of SELinux.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selinux {
    /// As `system_u`.
    pub user: String,
    /// As `system_r`.
    pub role: String,
    /// As `container_t`.
    pub kind: String,
    /// As `s0:c1,c2`.
    pub level: String,
}

/// A user as the caller names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserName {
    /// By number.
    Id(u32),
    /// By name in the image's /etc/passwd.
    Name(String),
}

/// Where the system call filter comes from.
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
