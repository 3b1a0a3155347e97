//! What the machine under the containers can do, as far as it changes a container's description.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capabilities, PosixRlimit};

use super::apparmor::Confinement;

/// What the host, its kernel and the shim of the runtime handler can do. Found out by [`Host::probe`] when the
/// daemon starts.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Capabilities of the daemon itself; no container gets others.
    pub capabilities: Capabilities,
    /// Version of the kernel, as (6, 18).
    pub kernel: (u32, u32),
    /// Version of the cgroup hierarchies that limits are set in.
    pub cgroups: Cgroups,
    /// Whether the memory controller counts swap.
    pub swap: bool,
    /// Sizes of huge pages that can be limited, such as `2MB`; none when there is no controller for them.
    pub hugepages: BTreeSet<String>,
    /// What else pods can have, as clients are told too.
    pub features: HostFeatures,
    /// AppArmor, and Berth's own profile.
    pub apparmor: Confinement,
    /// Whether files and processes have labels of SELinux.
    pub selinux: bool,
    /// The least oom_score_adj a container may get; `None` when the daemon may lower it as far as the kernel goes.
    pub oom_score_adj_floor: Option<i64>,
}

/// What not every kernel can do.
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

/// What the daemon's configuration gives to every container that does not ask otherwise.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Most tasks at a time; `None` is no limit.
    pub pids_limit: Option<i64>,
    /// Limits of the first process; those not named are inherited from the shim.
    pub rlimits: Vec<PosixRlimit>,
}
