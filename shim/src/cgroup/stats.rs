//! Resource usage of a cgroup, from the files of either version.

use super::files::{field, number, read};
use super::v1::Group;
use std::path::Path;

/// Resource usage of one cgroup. Counters the kernel does not provide are 0, unset limits are `u64::MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CpuStats {
    pub usage: u64,
    pub user: u64,
    pub system: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MemoryStats {
    pub usage: u64,
    pub max_usage: u64,
    pub limit: u64,
    /// Memory and swap limit together on v1, swap alone on v2.
    pub swap_limit: u64,
    /// Swap alone.
    pub swap: u64,
    pub anon: u64,
    pub file: u64,
    pub inactive_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

/// Number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PidsStats {
    pub current: u64,
    pub limit: u64,
}

/// v1 reports "no limit" as the largest number of whole pages.
const V1_UNLIMITED: u64 = i64::MAX as u64 & !0xfff;

impl Stats {
    pub(super) fn of_v1(group: &Group<'_>) -> Self {
        Self {
            cpu: CpuStats::of_v1(group),
            memory: group.directory("memory").map(|d| MemoryStats::of_v1(&d)).unwrap_or_default(),
            pids: group.directory("pids").map(|d| PidsStats::read(&d)).unwrap_or_default(),
        }
    }

    pub(super) fn of_v2(group: &Path) -> Self {
        Self { cpu: CpuStats::of_v2(group), memory: MemoryStats::of_v2(group), pids: PidsStats::read(group) }
    }
}

impl CpuStats {
    fn of_v1(group: &Group<'_>) -> Self {
        let read_usage =
            |file| group.directory("cpuacct").and_then(|directory| number(&directory, file)).unwrap_or(0);
        let throttling = group
            .directory("cpu")
            .and_then(|directory| read(&directory, "cpu.stat").ok())
            .unwrap_or_default();
        Self {
            usage: read_usage("cpuacct.usage"),
            user: read_usage("cpuacct.usage_user"),
            system: read_usage("cpuacct.usage_sys"),
            periods: field(&throttling, "nr_periods"),
            throttled_periods: field(&throttling, "nr_throttled"),
            throttled: field(&throttling, "throttled_time"),
        }
    }

    fn of_v2(group: &Path) -> Self {
        let stat = read(group, "cpu.stat").unwrap_or_default();
        Self {
            usage: field(&stat, "usage_usec") * 1000,
            user: field(&stat, "user_usec") * 1000,
            system: field(&stat, "system_usec") * 1000,
            periods: field(&stat, "nr_periods"),
            throttled_periods: field(&stat, "nr_throttled"),
            throttled: field(&stat, "throttled_usec") * 1000,
        }
    }
}

impl MemoryStats {
    fn of_v1(directory: &Path) -> Self {
        let stat = read(directory, "memory.stat").unwrap_or_default();
        let limit = |file| number(directory, file).filter(|limit| *limit < V1_UNLIMITED).unwrap_or(u64::MAX);
        let usage = number(directory, "memory.usage_in_bytes").unwrap_or(0);
        let together = number(directory, "memory.memsw.usage_in_bytes").unwrap_or(usage);
        Self {
            usage,
            max_usage: number(directory, "memory.max_usage_in_bytes").unwrap_or(0),
            limit: limit("memory.limit_in_bytes"),
            swap_limit: limit("memory.memsw.limit_in_bytes"),
            swap: together.saturating_sub(usage),
            anon: field(&stat, "total_rss"),
            file: field(&stat, "total_cache"),
            inactive_file: field(&stat, "total_inactive_file"),
            page_faults: field(&stat, "total_pgfault"),
            major_page_faults: field(&stat, "total_pgmajfault"),
        }
    }

    fn of_v2(group: &Path) -> Self {
        let stat = read(group, "memory.stat").unwrap_or_default();
        Self {
            usage: number(group, "memory.current").unwrap_or(0),
            max_usage: number(group, "memory.peak").unwrap_or(0),
            limit: number(group, "memory.max").unwrap_or(u64::MAX),
            swap_limit: number(group, "memory.swap.max").unwrap_or(u64::MAX),
            swap: number(group, "memory.swap.current").unwrap_or(0),
            anon: field(&stat, "anon"),
            file: field(&stat, "file"),
            inactive_file: field(&stat, "inactive_file"),
            page_faults: field(&stat, "pgfault"),
            major_page_faults: field(&stat, "pgmajfault"),
        }
    }
}

impl PidsStats {
    fn read(directory: &Path) -> Self {
        Self {
            current: number(directory, "pids.current").unwrap_or(0),
            limit: number(directory, "pids.max").unwrap_or(u64::MAX),
        }
    }
}
