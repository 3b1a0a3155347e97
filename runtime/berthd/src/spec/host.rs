//! Features of the host that change a container's OCI runtime specification.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capabilities, PosixRlimit};

use super::apparmor::Confinement;

/// Features of the host, its kernel and the runtime handler's shim. [`Host::probe`] finds them when the daemon starts.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Capabilities of the daemon, which bound those of containers.
    pub capabilities: Capabilities,
    /// Version of the kernel, such as (6, 18).
    pub kernel: (u32, u32),
    /// Version of the cgroup hierarchies that limits are set in.
    pub cgroups: Cgroups,
    /// Whether the memory controller counts swap.
    pub swap: bool,
    /// Sizes of huge pages that can be limited, such as `2MB`; empty without the hugetlb controller.
    pub hugepages: BTreeSet<String>,
    /// Features that are also reported to clients.
    pub features: HostFeatures,
    /// AppArmor, and whether Berth's profile is loaded.
    pub apparmor: Confinement,
    /// Whether SELinux is enabled.
    pub selinux: bool,
    /// Lowest oom_score_adj of a container; `None` when the daemon may set any value.
    pub oom_score_adj_floor: Option<i64>,
}

/// Features that not every kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFeatures {
    /// Whether a bind mount can be made read-only with all that is mounted below it (Linux 5.12).
    pub recursive_readonly: bool,
    /// Whether pods can have user namespaces, with files whose owners are mapped into them (Linux 6.3, for tmpfs).
    pub user_namespaces: bool,
}

/// Version of the cgroup hierarchies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// One hierarchy per controller.
    #[default]
    V1,
    /// One hierarchy for all.
    V2,
}

/// Defaults of the configuration for containers that do not ask otherwise.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Limit of tasks (processes and threads); `None` is no limit.
    pub pids_limit: Option<i64>,
    /// Limits of the first process; those not named are inherited from the shim.
    pub rlimits: Vec<PosixRlimit>,
}
