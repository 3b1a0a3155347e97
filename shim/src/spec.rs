//! The part of the OCI runtime specification 1.3 that the shim acts on, as it stands in a bundle's `config.json`.
//!
//! Only members that the shim reads are parsed, by structs of our own; unknown ones are skipped. Members it does not
//! implement but must not ignore are recognised by name, see [`UnsupportedMember`].

mod unsupported;

pub use unsupported::UnsupportedMember;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A complete `config.json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification, passed on to hooks.
    pub oci_version: String,
    /// Path of the root filesystem when no rootfs mount is given, and whether it ends up read-only.
    pub root: Root,
    /// The first process. Required by `create`.
    pub process: Process,
    /// Host name, set if the container has a new UTS namespace; empty leaves it.
    pub hostname: String,
    /// NIS domain name, likewise.
    pub domainname: String,
    /// In mount order.
    pub mounts: Vec<Mount>,
    /// Settings specific to Linux.
    pub linux: Linux,
    /// Arbitrary metadata; none of it changes what a container may do.
    pub annotations: BTreeMap<String, String>,
    /// Programs to run at certain moments.
    pub hooks: Hooks,
}

/// Hooks by moment, each list in order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// The older name of `create_runtime`, and run before it.
    pub prestart: Vec<Hook>,
    /// In the host's namespaces, after all mounts and before paths are masked.
    pub create_runtime: Vec<Hook>,
    /// Likewise, in the container's namespaces; the hook's path is still on the host.
    pub create_container: Vec<Hook>,
    /// Inside the container, as its user, just before its command.
    pub start_container: Vec<Hook>,
    /// In the host's namespaces, after the command has started.
    pub poststart: Vec<Hook>,
    /// In the host's namespaces, after the container has ended.
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path.
    pub path: String,
    /// Arguments, the program's name first; empty means the path alone.
    pub args: Vec<String>,
    /// `NAME=value` each; nothing is inherited.
    pub env: Vec<String>,
    /// Seconds; absent or 0 means no limit.
    pub timeout: Option<i64>,
}

/// The root filesystem.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute, or relative to the bundle; empty means `rootfs`.
    pub path: String,
    /// Remounted read-only once everything is in place.
    pub readonly: bool,
}

/// A process to run in a container: that of `config.json`, or an exec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Ignored: the request decides about a terminal.
    pub terminal: bool,
    /// Initial size of the terminal.
    pub console_size: Option<ConsoleSize>,
    /// Credentials.
    pub user: User,
    /// Command and arguments, not empty.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// Absent: no capabilities.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// AppArmor profile to change to at execve.
    pub apparmor_profile: String,
    /// SELinux label to change to at execve.
    pub selinux_label: String,
    /// Absent leaves the shim's own.
    pub oom_score_adj: Option<i32>,
    /// Absent leaves the shim's own.
    pub io_priority: Option<IoPriority>,
    /// Absent leaves the shim's own.
    pub scheduler: Option<Scheduler>,
    /// Not supported.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: UnsupportedMember,
}

/// I/O priority, ioprio_set(2).
#[derive(Debug, Clone, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    pub class: String,
    /// 0 (highest) to 7.
    #[serde(default)]
    pub priority: i32,
}

/// Scheduling policy and its parameters, sched_setattr(2).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_OTHER`, `SCHED_FIFO` and so on.
    pub policy: String,
    /// Nice value, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Static priority, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// `SCHED_FLAG_RESET_ON_FORK` and so on.
    pub flags: Vec<String>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, likewise.
    pub deadline: u64,
    /// Nanoseconds, likewise.
    pub period: u64,
}

/// Terminal size in characters.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Credentials by number.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// File mode creation mask; absent means 0022.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, by names such as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Upper limit of what execve can ever gain.
    pub bounding: Vec<String>,
    /// Capabilities in force.
    pub effective: Vec<String>,
    /// Kept across execve, and gained from a file that has them as inheritable.
    pub inheritable: Vec<String>,
    /// Capabilities that may be made effective.
    pub permitted: Vec<String>,
    /// Kept in force across execve of a program without setuid bit or file capabilities.
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Debug, Clone, Deserialize)]
pub struct Rlimit {
    /// For instance `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hard limit.
    pub hard: u64,
    /// Soft limit, which the kernel enforces.
    pub soft: u64,
}

/// One mount inside the container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: String,
    /// Filesystem type; `bind`, empty or anything with a bind option means a bind mount, `pod-shm` the pod's `/dev/shm`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Source of a bind mount, or the name shown in the mount table.
    pub source: String,
    /// Options of mount(8) and of the OCI specification.
    pub options: Vec<String>,
    /// Idmapped mount: user mappings, only together with `gid_mappings`.
    #[serde(rename = "uidMappings")]
    pub uid_mappings: Vec<IdMapping>,
    /// Likewise for groups.
    #[serde(rename = "gidMappings")]
    pub gid_mappings: Vec<IdMapping>,
}

/// A range of ids: in a user namespace and on the host, or on disk and in an idmapped mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct IdMapping {
    /// First id inside, or on disk.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id on the host, or in the mount.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// Number of ids.
    pub size: u32,
}

/// The `linux` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// Namespaces that are not the pod's; see the crate's contract in [`crate::init`].
    pub namespaces: Vec<Namespace>,
    /// User mappings of a user namespace listed in `namespaces`.
    pub uid_mappings: Vec<IdMapping>,
    /// Its group mappings.
    pub gid_mappings: Vec<IdMapping>,
    /// Device nodes beside the default ones.
    pub devices: Vec<Device>,
    /// Path below each hierarchy's root.
    pub cgroups_path: String,
    /// Limits of the cgroup.
    pub resources: Resources,
    /// Propagation of `/`: `private`, `slave`, `shared`, their `r` forms, or empty for `rprivate`.
    pub rootfs_propagation: String,
    /// seccomp filter in JSON; parsed only if it is not in the cache.
    pub seccomp: Option<Box<RawValue>>,
    /// Kernel parameters of the container's own namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// Paths to hide: files under `/dev/null`, directories under an empty tmpfs.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<String>,
    /// SELinux label of the mounts.
    pub mount_label: String,
    /// Execution domain; absent leaves the shim's own.
    pub personality: Option<Personality>,
    /// Not supported.
    pub time_offsets: UnsupportedMember,
    /// Not supported.
    pub memory_policy: UnsupportedMember,
    /// Not supported.
    pub intel_rdt: UnsupportedMember,
    /// Not supported.
    pub net_devices: UnsupportedMember,
}

/// An execution domain, personality(2).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// Must be empty: the specification defines none.
    pub flags: Vec<String>,
}

/// A namespace to join or create.
#[derive(Debug, Clone, Deserialize)]
pub struct Namespace {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// Path of a namespace to join; empty: create a new one.
    #[serde(default)]
    pub path: String,
}

/// Kinds of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// A device node to make.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// Absolute path in the container.
    pub path: String,
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions, 0666 when absent.
    pub file_mode: Option<u32>,
    /// Owner, 0 when absent.
    pub uid: Option<u32>,
    /// Group, 0 when absent.
    pub gid: Option<u32>,
}

/// Limits of a cgroup; also what shim v2's Update call carries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Device access rules; the last match decides.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processor time and placement.
    pub cpu: Option<Cpu>,
    /// Number of tasks.
    pub pids: Option<Pids>,
    /// Huge pages, per size.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Block input and output.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Files of cgroup v2 by name.
    pub unified: BTreeMap<String, String>,
    /// Not supported.
    pub rdma: UnsupportedMember,
    /// Not supported.
    pub network: UnsupportedMember,
}

/// One rule of the device controller.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `a`, `b` or `c`; empty means `a`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Absent or negative means all.
    pub major: Option<i64>,
    /// Absent or negative means all.
    pub minor: Option<i64>,
    /// Letters of `rwm`; empty means all.
    pub access: String,
}

/// Memory limits in bytes, -1 for none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Soft limit.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    /// 0 to 100, v1 only.
    pub swappiness: Option<u64>,
    /// Whether processes wait for memory instead of being killed; v1 only.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Not supported, and no longer in the kernel.
    pub kernel: UnsupportedMember,
    /// Not supported.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: UnsupportedMember,
    /// Not supported.
    pub check_before_update: UnsupportedMember,
}

/// Processor limits.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    /// Relative weight, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds of processor time per period; -1 for no limit.
    pub quota: Option<i64>,
    /// Microseconds that may be used beyond the quota.
    pub burst: Option<u64>,
    /// Length of a period in microseconds.
    pub period: Option<u64>,
    /// Processors, as `0-2,7`; empty leaves them unchanged.
    pub cpus: String,
    /// Memory nodes, likewise.
    pub mems: String,
    /// 1 makes the group idle.
    pub idle: Option<i64>,
    /// Not supported.
    pub realtime_runtime: UnsupportedMember,
    /// Not supported.
    pub realtime_period: UnsupportedMember,
}

/// Limit on the number of tasks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// 0 or less for no limit.
    pub limit: i64,
}

/// Huge page limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit {
    /// Page size, such as `2MB`.
    pub page_size: String,
    /// Limit in bytes.
    pub limit: u64,
}

/// Block input and output.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Not supported, and no longer in the kernel.
    pub leaf_weight: UnsupportedMember,
    /// Not supported.
    pub weight_device: UnsupportedMember,
    /// Not supported.
    pub throttle_read_bps_device: UnsupportedMember,
    /// Not supported.
    pub throttle_write_bps_device: UnsupportedMember,
    /// Not supported.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: UnsupportedMember,
    /// Not supported.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: UnsupportedMember,
}
