//! Limits of a container. In the CRI, 0 means that no limit was asked for.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use berth_cri::v1::{self, LinuxContainerResources};

use super::field::{check, each, invalid, required, unsupported};
use crate::{container::config::Resources, error::Result};

/// Returns the limits of a new container. Its oom_score_adj is always set, because 0 is a valid value.
pub(super) fn of_new(at: &str, resources: Option<LinuxContainerResources>) -> Result<Resources> {
    let Some(resources) = resources else { return Ok(Resources::default()) };
    let oom_score_adj = Some(resources.oom_score_adj);
    Ok(Resources { oom_score_adj, ..changed(at, resources)? })
}

/// Returns the limits to change on an existing container.
pub(crate) fn update(request: v1::UpdateContainerResourcesRequest) -> Result<Resources> {
    if let Some(windows) = request.windows {
        return Err(unsupported("windows", windows));
    }
    changed("linux", required("linux", request.linux)?)
}

/// Returns the pod's id, and its overhead and resources if they were sent.
pub(crate) fn pod_resources(
    request: v1::UpdatePodSandboxResourcesRequest,
) -> Result<(String, Option<Resources>, Option<Resources>)> {
    let id = super::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let overhead = request.overhead.map(|told| changed("overhead", told)).transpose()?;
    let resources = request.resources.map(|told| changed("resources", told)).transpose()?;
    check(
        overhead.is_some() || resources.is_some(),
        "resources",
        (),
        "neither overhead nor resources are told",
    )?;
    Ok((id, overhead, resources))
}

/// Returns the limits of a pod as a whole, or its overhead; empty when not sent.
pub(super) fn of_pod(at: &str, resources: Option<LinuxContainerResources>) -> Result<Resources> {
    resources.map_or_else(|| Ok(Resources::default()), |told| changed(at, told))
}

fn changed(at: &str, resources: LinuxContainerResources) -> Result<Resources> {
    let number = |name: &str, value, range| asked(&format!("{at}.{name}"), value, range);
    let period = number("cpu_period", resources.cpu_period, 1_000..=1_000_000)?;
    let shares = number("cpu_shares", resources.cpu_shares, 2..=262_144)?;
    let memory = number("memory_limit_in_bytes", resources.memory_limit_in_bytes, -1..=i64::MAX)?;
    let memory_and_swap =
        number("memory_swap_limit_in_bytes", resources.memory_swap_limit_in_bytes, -1..=i64::MAX)?;
    check_swap(at, memory, memory_and_swap)?;
    Ok(Resources {
        cpu_period: period.map(i64::cast_unsigned),
        cpu_quota: number("cpu_quota", resources.cpu_quota, -1..=i64::MAX)?,
        cpu_shares: shares.map(i64::cast_unsigned),
        cpuset_cpus: set(&format!("{at}.cpuset_cpus"), resources.cpuset_cpus)?,
        cpuset_mems: set(&format!("{at}.cpuset_mems"), resources.cpuset_mems)?,
        memory_limit: memory,
        memory_swap_limit: memory_and_swap,
        oom_score_adj: number("oom_score_adj", resources.oom_score_adj, -1000..=1000)?,
        hugepages: each(&format!("{at}.hugepage_limits"), resources.hugepage_limits, hugepage)?,
        unified: unified(&format!("{at}.unified"), resources.unified)?,
        ..Resources::default()
    })
}

fn asked(field: &str, value: i64, range: RangeInclusive<i64>) -> Result<Option<i64>> {
    match value {
        0 => Ok(None),
        _ if range.contains(&value) => Ok(Some(value)),
        _ => {
            let (lowest, highest) = (range.start(), range.end());
            Err(invalid(field, value, &format!("must be 0 or from {lowest} to {highest}")))
        }
    }
}

/// Refuses a limit on memory and swap together that is less than the limit on memory.
fn check_swap(at: &str, memory: Option<i64>, memory_and_swap: Option<i64>) -> Result<()> {
    match (memory, memory_and_swap) {
        (Some(memory), Some(both)) if both > 0 && both < memory => {
            let field = format!("{at}.memory_swap_limit_in_bytes");
            Err(invalid(&field, both, "is less than memory_limit_in_bytes, which it includes"))
        }
        _ => Ok(()),
    }
}

/// A list of numbers and ranges, such as `0-2,7`.
fn set(field: &str, list: String) -> Result<Option<String>> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('+'));
    let part = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(part).is_some(),
    };
    let valid = list.is_empty() || list.split(',').all(part);
    let list = check(valid, field, list, "must be a list such as 0-2,7")?;
    Ok(Some(list).filter(|list| !list.is_empty()))
}

/// A page size such as `2MB`, and a limit in bytes.
fn hugepage(field: &str, limit: v1::HugepageLimit) -> Result<(String, u64)> {
    let size = limit.page_size;
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    let valid = digits.is_some_and(|digits| !digits.starts_with('+') && digits.parse::<u32>().is_ok());
    let size = check(valid, &format!("{field}.page_size"), size, "must be a size such as 2MB")?;
    Ok((size, limit.limit))
}

/// Files of cgroup v2 with their values; only names within the container's own cgroup directory.
fn unified(
    field: &str,
    files: HashMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>> {
    let file = |(name, value): (String, String)| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        // Files named cgroup.* are not limits: they move, freeze or kill processes.
        let valid = plain && name.contains('.') && !name.starts_with('.') && !name.starts_with("cgroup.");
        let name = check(valid, field, name, "is no file of a cgroup controller")?;
        Ok((name, value))
    };
    files.into_iter().map(file).collect()
}
