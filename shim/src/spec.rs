//! The part of the OCI runtime specification 1.3 that the shim acts on, as it stands in a bundle's `config.json`.
//!
//! Own structs instead of a library's, because only what is read here is worth parsing: unknown members are skipped. Those that ask
//! for something nobody here does are known by name, see [`Asked`].

mod asked;

pub use asked::Asked;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A whole `config.json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification, told to hooks.
    pub oci_version: String,
    /// Where the root filesystem is, when no rootfs mount is given, and whether it ends up read-only.
    pub root: Root,
    /// The first process. Required by `create`.
    pub process: Process,
    /// Host name for a container with a UTS namespace of its own; empty leaves it.
    pub hostname: String,
    /// NIS domain name, likewise.
    pub domainname: String,
    /// In the order in which they are made.
    pub mounts: Vec<Mount>,
    /// What only Linux has.
    pub linux: Linux,
    /// Free-form; the shim reads none that change what a container may do.
    pub annotations: BTreeMap<String, String>,
    /// Programs that are run at certain moments.
    pub hooks: Hooks,
}

/// Programs by the moment when they are run, each list in order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// The older name of `create_runtime`, and run before it.
    pub prestart: Vec<Hook>,
    /// In the host's namespaces, when everything is mounted and nothing is hidden yet.
    pub create_runtime: Vec<Hook>,
    /// Likewise in the container's namespaces; its path is still one of the host's.
    pub create_container: Vec<Hook>,
    /// Inside the container, as its user, just before its command.
    pub start_container: Vec<Hook>,
    /// In the host's namespaces, once the command runs.
    pub poststart: Vec<Hook>,
    /// In the host's namespaces, once it has ended.
    pub poststop: Vec<Hook>,
}

/// A program.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// With its own name first; empty: only that.
    pub args: Vec<String>,
    /// `NAME=value` each; nothing is inherited.
    pub env: Vec<String>,
    /// Seconds; absent or 0: as long as it takes.
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

/// A process to run in a container: of `config.json`, or of an exec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
    /// First size of that terminal.
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    pub user: User,
    /// Command and arguments, not empty.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// Absent: none at all.
    pub capabilities: Option<Capabilities>,
    /// Resource limits to set.
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
    /// Not built.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Asked,
}

/// A process's place among those that read and write, ioprio_set(2).
#[derive(Debug, Clone, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    pub class: String,
    /// 0, the most important, to 7.
    #[serde(default)]
    pub priority: i32,
}

/// A process's place among those that run, sched_setattr(2).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_OTHER`, `SCHED_FIFO` and so on.
    pub policy: String,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
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
    /// Absent leaves the shim's.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, by names such as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What the process and its descendants can ever gain.
    pub bounding: Vec<String>,
    /// What is in force.
    pub effective: Vec<String>,
    /// What survives execve of a file with inheritable capabilities.
    pub inheritable: Vec<String>,
    /// What may be put in force.
    pub permitted: Vec<String>,
    /// What survives any execve.
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Debug, Clone, Deserialize)]
pub struct Rlimit {
    /// For instance `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The ceiling.
    pub hard: u64,
    /// What is enforced.
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
    /// What is bound, or the name shown in the mount table.
    pub source: String,
    /// As `mount -o` knows them, and those of the OCI specification.
    pub options: Vec<String>,
    /// A bind mount whose files show other owners than they have; only together with `gid_mappings`.
    #[serde(rename = "uidMappings")]
    pub uid_mappings: Vec<IdMapping>,
    /// Likewise for groups.
    #[serde(rename = "gidMappings")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Ids on the host, or on disk to the left of a mapped mount, that stand for as many ids inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct IdMapping {
    /// The first one inside, or on disk.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The one on the host that stands for it.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// The `linux` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// Namespaces that are not the pod's; see the crate's contract in [`crate::init`].
    pub namespaces: Vec<Namespace>,
    /// Users of a user namespace that is listed in `namespaces`.
    pub uid_mappings: Vec<IdMapping>,
    /// Its groups.
    pub gid_mappings: Vec<IdMapping>,
    /// Device nodes beside the default ones.
    pub devices: Vec<Device>,
    /// Path below each hierarchy's root.
    pub cgroups_path: String,
    /// Limits.
    pub resources: Resources,
    /// Propagation of `/`: `private`, `slave`, `shared`, their `r` forms, or empty for `rprivate`.
    pub rootfs_propagation: String,
    /// System call filter: parsed only where it has not been compiled before.
    pub seccomp: Option<Box<RawValue>>,
    /// Kernel parameters of the container's own namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// Hidden: files under `/dev/null`, directories under an empty tmpfs.
    pub masked_paths: Vec<String>,
    /// Made read-only.
    pub readonly_paths: Vec<String>,
    /// SELinux label of the mounts.
    pub mount_label: String,
    /// What kind of system the process believes itself on; absent leaves the shim's own.
    pub personality: Option<Personality>,
    /// Not built.
    pub time_offsets: Asked,
    /// Not built.
    pub memory_policy: Asked,
    /// Not built.
    pub intel_rdt: Asked,
    /// Not built.
    pub net_devices: Asked,
}

/// An execution domain, personality(2).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// The specification knows none.
    pub flags: Vec<String>,
}

/// A namespace asked for.
#[derive(Debug, Clone, Deserialize)]
pub struct Namespace {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// Join this one; empty: make a new one.
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
    /// Device access rules, the last match deciding.
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
    /// cgroup v2 files by name.
    pub unified: BTreeMap<String, String>,
    /// Not built.
    pub rdma: Asked,
    /// Not built.
    pub network: Asked,
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
    /// Of `rwm`; empty means all.
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
    /// v1 only.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Not built, and no longer a part of the kernel.
    pub kernel: Asked,
    /// Not built.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Asked,
    /// Not built.
    pub check_before_update: Asked,
}

/// Processor limits.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    /// Relative weight, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds per period, -1 for no limit.
    pub quota: Option<i64>,
    /// Microseconds that may be used beyond the quota.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Processors, as `0-2,7`; empty leaves them.
    pub cpus: String,
    /// Memory nodes, likewise.
    pub mems: String,
    /// 1 makes the group idle.
    pub idle: Option<i64>,
    /// Not built.
    pub realtime_runtime: Asked,
    /// Not built.
    pub realtime_period: Asked,
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
    /// Such as `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Block input and output.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Not built, and no longer a part of the kernel.
    pub leaf_weight: Asked,
    /// Not built.
    pub weight_device: Asked,
    /// Not built.
    pub throttle_read_bps_device: Asked,
    /// Not built.
    pub throttle_write_bps_device: Asked,
    /// Not built.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Asked,
    /// Not built.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Asked,
}
