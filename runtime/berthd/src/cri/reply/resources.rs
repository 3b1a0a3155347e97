//! Limits of a container; the CRI writes 0 for no limit.

use berth_cri::v1;

use crate::container::config::Resources;

/// Returns a container's current limits.
pub(super) fn resources(resources: &Resources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: resources.cpu_period.map_or(0, u64::cast_signed),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpu_shares: resources.cpu_shares.map_or(0, u64::cast_signed),
        memory_limit_in_bytes: resources.memory_limit.unwrap_or(0),
        oom_score_adj: resources.oom_score_adj.unwrap_or(0),
        cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: resources.hugepages.iter().map(hugepage).collect(),
        unified: resources.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit.unwrap_or(0),
    }
}

fn hugepage((page_size, limit): &(String, u64)) -> v1::HugepageLimit {
    v1::HugepageLimit { page_size: page_size.clone(), limit: *limit }
}
