//! Resource limits: their ranges, their merge on an update, and their form in the OCI runtime specification.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use super::{
    Error,
    host::{Cgroups, Host},
};
use crate::container::config::Resources;

/// Returns the limits after an update: those that it names replace the current ones. oom_score_adj stays, because it
/// belongs to processes and not to the cgroup that an update changes.
pub fn merge(current: &Resources, update: &Resources) -> Resources {
    let either = |new: &Option<String>, old: &Option<String>| new.as_ref().or(old.as_ref()).cloned();
    Resources {
        cpu_period: update.cpu_period.or(current.cpu_period),
        cpu_quota: update.cpu_quota.or(current.cpu_quota),
        cpu_shares: update.cpu_shares.or(current.cpu_shares),
        cpuset_cpus: either(&update.cpuset_cpus, &current.cpuset_cpus),
        cpuset_mems: either(&update.cpuset_mems, &current.cpuset_mems),
        memory_limit: update.memory_limit.or(current.memory_limit),
        memory_swap_limit: update.memory_swap_limit.or(current.memory_swap_limit),
        memory_reservation: update.memory_reservation.or(current.memory_reservation),
        memory_swappiness: update.memory_swappiness.or(current.memory_swappiness),
        disable_oom_killer: update.disable_oom_killer.or(current.disable_oom_killer),
        pids_limit: update.pids_limit.or(current.pids_limit),
        oom_score_adj: current.oom_score_adj,
        hugepages: by_page_size(current, update),
        unified: current.unified.clone().into_iter().chain(update.unified.clone()).collect(),
    }
}

fn by_page_size(current: &Resources, update: &Resources) -> Vec<(String, u64)> {
    let sizes: BTreeMap<_, _> = current.hugepages.iter().chain(&update.hugepages).cloned().collect();
    sizes.into_iter().collect()
}

/// Converts the limits to the OCI runtime specification, for a new container or for an update.
pub fn to_oci(resources: &Resources, host: &Host) -> Result<LinuxResources, Error> {
    let mut limits = LinuxResources::default();
    limits
        .set_cpu(cpu(resources)?)
        .set_memory(memory(resources, host)?)
        .set_pids(resources.pids_limit.map(pids))
        .set_hugepage_limits(hugepages(resources, host)?)
        .set_unified(unified(resources, host)?);
    Ok(limits)
}

fn cpu(resources: &Resources) -> Result<Option<LinuxCpu>, Error> {
    let mut cpu = LinuxCpu::default();
    let quota_range = |quota: i64| !(0..1000).contains(&quota);
    cpu.set_shares(within("cpu_shares", resources.cpu_shares, 2..=262_144)?)
        .set_period(within("cpu_period", resources.cpu_period, 1000..=1_000_000)?)
        .set_quota(checked(
            "cpu_quota",
            resources.cpu_quota,
            quota_range,
            "is not at least 1000, or -1 for no limit",
        )?)
        .set_cpus(list("cpuset_cpus", resources.cpuset_cpus.as_deref())?)
        .set_mems(list("cpuset_mems", resources.cpuset_mems.as_deref())?);
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

/// A list of numbers and ranges in the format of cpuset(7); `None` when empty.
fn list(field: &'static str, asked: Option<&str>) -> Result<Option<String>, Error> {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
    let is_range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        number(first).zip(number(last)).is_some_and(|(first, last)| first <= last)
    };
    match asked.unwrap_or_default() {
        "" => Ok(None),
        text if text.split(',').all(is_range) => Ok(Some(text.to_owned())),
        text => Err(Error::invalid(field, text, "is not a list such as 0-2,7")),
    }
}

/// Returns the memory limits. Without a limit of its own, swap is limited to none beyond the memory limit: a container
/// that may use 1 GiB must not use two. Where swap is not counted, no limit is written, since it could not be enforced.
fn memory(resources: &Resources, host: &Host) -> Result<Option<LinuxMemory>, Error> {
    let range = |bytes: i64| bytes == -1 || bytes > 0;
    let limit =
        checked("memory_limit", resources.memory_limit, range, "is not positive, or -1 for no limit")?;
    let swap = checked(
        "memory_swap_limit",
        resources.memory_swap_limit,
        range,
        "is not positive, or -1 for no limit",
    )?;
    if let Some(swap) = swap.filter(|bytes| *bytes > 0) {
        covers_memory(swap, limit)?;
    }
    let mut memory = LinuxMemory::default();
    let reservation = checked(
        "memory_reservation",
        resources.memory_reservation,
        range,
        "is not positive, or -1 for none",
    )?;
    memory
        .set_limit(limit)
        .set_reservation(reservation)
        .set_swap(swap.or(limit).filter(|_| host.swap))
        .set_swappiness(within("memory_swappiness", resources.memory_swappiness, 0..=100)?)
        .set_disable_oom_killer(resources.disable_oom_killer);
    on_v1_alone(&memory, host)?;
    Ok((memory != LinuxMemory::default()).then_some(memory))
}

/// Refuses settings that cgroup v2 does not have. `disable_oom_killer = false` is accepted: on v2 the kernel always
/// kills.
fn on_v1_alone(memory: &LinuxMemory, host: &Host) -> Result<(), Error> {
    let asked = [
        ("memory_swappiness", memory.swappiness().map(|value| value.to_string())),
        ("disable_oom_killer", memory.disable_oom_killer().filter(|disable| *disable).map(|_| "true".into())),
    ];
    match asked.into_iter().find_map(|(field, value)| Some((field, value?))) {
        Some((field, value)) if host.cgroups == Cgroups::V2 => {
            Err(Error::Unsupported { field, value, reason: "this host has cgroup v2".into() })
        }
        _ => Ok(()),
    }
}

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
}

fn covers_memory(swap: i64, memory: Option<i64>) -> Result<(), Error> {
    let conflict = |reason: String| Err(Error::invalid("memory_swap_limit", swap.to_string(), reason));
    match memory.filter(|bytes| *bytes > 0) {
        Some(memory) if swap < memory => {
            conflict(format!("is less than the memory_limit {memory} it includes"))
        }
        Some(_) => Ok(()),
        None => conflict("is set without a memory_limit".to_owned()),
    }
}

/// Ignored on a host without the hugetlb controller, because kubelet sends the limits regardless.
fn hugepages(resources: &Resources, host: &Host) -> Result<Option<Vec<LinuxHugepageLimit>>, Error> {
    if host.hugepages.is_empty() {
        return Ok(None);
    }
    let limits = resources.hugepages.iter().map(|(size, bytes)| hugepage(size, *bytes, host));
    let limits = limits.collect::<Result<Vec<_>, _>>()?;
    Ok((!limits.is_empty()).then_some(limits))
}

fn hugepage(size: &str, bytes: u64, host: &Host) -> Result<LinuxHugepageLimit, Error> {
    if !host.hugepages.contains(size) {
        let known: Vec<_> = host.hugepages.iter().map(String::as_str).collect();
        let reason = format!("this host has pages of {}", known.join(", "));
        return Err(Error::Unsupported {
            field: "hugepage_limits page size",
            value: size.to_owned(),
            reason,
        });
    }
    let bytes = i64::try_from(bytes)
        .map_err(|_| Error::invalid("hugepage_limits limit", bytes.to_string(), "is out of range"))?;
    let mut limit = LinuxHugepageLimit::default();
    limit.set_page_size(size.to_owned()).set_limit(bytes);
    Ok(limit)
}

type Unified = std::collections::HashMap<String, String>;

fn unified(resources: &Resources, host: &Host) -> Result<Option<Unified>, Error> {
    for name in resources.unified.keys() {
        if host.cgroups == Cgroups::V1 {
            let reason = "this host has cgroup v1".to_owned();
            return Err(Error::Unsupported { field: "unified", value: name.clone(), reason });
        }
        if name.contains(['/', '\0']) || !name.contains('.') || name.starts_with("cgroup.") {
            return Err(Error::invalid("unified", name, "is not a controller's file"));
        }
    }
    let written: Unified = resources.unified.clone().into_iter().collect();
    Ok((!written.is_empty()).then_some(written))
}

/// Returns the oom_score_adj of the first process, raised to the lowest value that the daemon may set.
pub(crate) fn oom_score_adj(resources: &Resources, host: &Host) -> Result<Option<i32>, Error> {
    let asked = resources.oom_score_adj;
    let asked =
        checked("oom_score_adj", asked, |score| (-1000..=1000).contains(&score), "is not in -1000..1000")?;
    let score = asked.map(|score| score.max(host.oom_score_adj_floor.unwrap_or(score)));
    Ok(score.and_then(|score| i32::try_from(score).ok()))
}

fn within(
    field: &'static str,
    asked: Option<u64>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, Error> {
    match asked.filter(|value| !range.contains(value)) {
        Some(value) => Err(Error::invalid(
            field,
            value.to_string(),
            format!("is not in {}..{}", range.start(), range.end()),
        )),
        None => Ok(asked),
    }
}

fn checked(
    field: &'static str,
    asked: Option<i64>,
    is_valid: impl Fn(i64) -> bool,
    reason: &str,
) -> Result<Option<i64>, Error> {
    match asked.filter(|value| !is_valid(*value)) {
        Some(value) => Err(Error::invalid(field, value.to_string(), reason)),
        None => Ok(asked),
    }
}

#[cfg(test)]
mod tests;
