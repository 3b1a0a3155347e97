//! Resource limits: each value has one owner.

use berth_nri::nri::{Field, LinuxCPU, LinuxMemory, LinuxResources};

use super::owners::Claims;
use crate::error::Result;

/// Claims every value that `asked` sets.
pub(super) fn claim(asked: &LinuxResources, claims: &mut Claims<'_>) -> Result<()> {
    let mut set = vec![
        (Field::BlockioClass, asked.blockio_class.is_some()),
        (Field::RdtClass, asked.rdt_class.is_some()),
        (Field::PidsLimit, asked.pids.is_some()),
    ];
    set.extend(asked.memory.iter().flat_map(memory_fields));
    set.extend(asked.cpu.iter().flat_map(cpu_fields));
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        claims.claim(field, "")?;
    }
    for limit in &asked.hugepage_limits {
        claims.claim(Field::HugepageLimits, &limit.page_size)?;
    }
    for file in asked.unified.keys() {
        claims.claim(Field::CgroupsUnified, file)?;
    }
    Ok(())
}

fn memory_fields(memory: &LinuxMemory) -> [(Field, bool); 8] {
    [
        (Field::MemLimit, memory.limit.is_some()),
        (Field::MemReservation, memory.reservation.is_some()),
        (Field::MemSwapLimit, memory.swap.is_some()),
        (Field::MemKernelLimit, memory.kernel.is_some()),
        (Field::MemTCPLimit, memory.kernel_tcp.is_some()),
        (Field::MemSwappiness, memory.swappiness.is_some()),
        (Field::MemDisableOomKiller, memory.disable_oom_killer.is_some()),
        (Field::MemUseHierarchy, memory.use_hierarchy.is_some()),
    ]
}

fn cpu_fields(cpu: &LinuxCPU) -> [(Field, bool); 7] {
    [
        (Field::CPUShares, cpu.shares.is_some()),
        (Field::CPUQuota, cpu.quota.is_some()),
        (Field::CPUPeriod, cpu.period.is_some()),
        (Field::CPURealtimeRuntime, cpu.realtime_runtime.is_some()),
        (Field::CPURealtimePeriod, cpu.realtime_period.is_some()),
        (Field::CPUSetCPUs, !cpu.cpus.is_empty()),
        (Field::CPUSetMems, !cpu.mems.is_empty()),
    ]
}

/// Overwrites in `limits` what `asked` sets.
pub(super) fn overlay(limits: &mut LinuxResources, asked: &LinuxResources) {
    macro_rules! set {
        ($into:expr, $from:expr, $($field:ident),*) => {
            $(if $from.$field.is_some() {
                $into.$field.clone_from(&$from.$field);
            })*
        };
    }
    set!(limits, asked, blockio_class, rdt_class, pids);
    if let Some(from) = asked.memory.as_ref() {
        let into = limits.memory.mut_or_insert_default();
        set!(into, from, limit, reservation, swap, kernel, kernel_tcp, swappiness);
        set!(into, from, disable_oom_killer, use_hierarchy);
    }
    if let Some(from) = asked.cpu.as_ref() {
        let into = limits.cpu.mut_or_insert_default();
        set!(into, from, shares, quota, period, realtime_runtime, realtime_period);
        for (into, from) in [(&mut into.cpus, &from.cpus), (&mut into.mems, &from.mems)] {
            if !from.is_empty() {
                into.clone_from(from);
            }
        }
    }
    for limit in &asked.hugepage_limits {
        limits.hugepage_limits.retain(|one| one.page_size != limit.page_size);
        limits.hugepage_limits.push(limit.clone());
    }
    limits.unified.extend(asked.unified.clone());
    limits.devices.extend_from_slice(&asked.devices);
}
