//! Resource limits.

use berth_nri::nri::{
    HugepageLimit, LinuxCPU, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, OptionalBool,
    OptionalInt64, OptionalUInt64,
};
use oci_spec::runtime as oci;

use super::{Optional, serialized_name};
use crate::container::config::Resources;

/// Converts the limits in an OCI spec.
pub(super) fn resources(limits: &oci::LinuxResources) -> LinuxResources {
    LinuxResources {
        memory: limits.memory().as_ref().map(memory).into(),
        cpu: limits.cpu().as_ref().map(cpu).into(),
        hugepage_limits: limits.hugepage_limits().iter().flatten().map(hugepages).collect(),
        unified: limits.unified().clone().unwrap_or_default(),
        devices: limits.devices().iter().flatten().map(rule).collect(),
        pids: limits.pids().as_ref().map(|pids| pids_of(pids.limit())).into(),
        ..Default::default()
    }
}

/// Converts the limits that a caller asks for; those not asked for are absent.
pub(in crate::nri) fn asked(limits: &Resources) -> LinuxResources {
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: OptionalInt64::of(limits.memory_limit),
            reservation: OptionalInt64::of(limits.memory_reservation),
            swap: OptionalInt64::of(limits.memory_swap_limit),
            swappiness: OptionalUInt64::of(limits.memory_swappiness),
            disable_oom_killer: OptionalBool::of(limits.disable_oom_killer),
            ..Default::default()
        })
        .into(),
        cpu: Some(LinuxCPU {
            shares: OptionalUInt64::of(limits.cpu_shares),
            quota: OptionalInt64::of(limits.cpu_quota),
            period: OptionalUInt64::of(limits.cpu_period),
            cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
            mems: limits.cpuset_mems.clone().unwrap_or_default(),
            ..Default::default()
        })
        .into(),
        hugepage_limits: limits.hugepages.iter().map(|(size, bytes)| pages(size, *bytes)).collect(),
        unified: limits.unified.clone().into_iter().collect(),
        pids: limits.pids_limit.map(pids_of).into(),
        ..Default::default()
    }
}

fn memory(memory: &oci::LinuxMemory) -> LinuxMemory {
    LinuxMemory {
        limit: OptionalInt64::of(memory.limit()),
        reservation: OptionalInt64::of(memory.reservation()),
        swap: OptionalInt64::of(memory.swap()),
        swappiness: OptionalUInt64::of(memory.swappiness()),
        disable_oom_killer: OptionalBool::of(memory.disable_oom_killer()),
        ..Default::default()
    }
}

fn cpu(cpu: &oci::LinuxCpu) -> LinuxCPU {
    LinuxCPU {
        shares: OptionalUInt64::of(cpu.shares()),
        quota: OptionalInt64::of(cpu.quota()),
        period: OptionalUInt64::of(cpu.period()),
        realtime_runtime: OptionalInt64::of(cpu.realtime_runtime()),
        realtime_period: OptionalUInt64::of(cpu.realtime_period()),
        cpus: cpu.cpus().clone().unwrap_or_default(),
        mems: cpu.mems().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn hugepages(limit: &oci::LinuxHugepageLimit) -> HugepageLimit {
    pages(limit.page_size(), u64::try_from(limit.limit()).unwrap_or_default())
}

fn pages(size: &str, bytes: u64) -> HugepageLimit {
    HugepageLimit { page_size: size.to_owned(), limit: bytes, ..Default::default() }
}

fn pids_of(limit: i64) -> LinuxPids {
    LinuxPids { limit, ..Default::default() }
}

fn rule(rule: &oci::LinuxDeviceCgroup) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        allow: rule.allow(),
        type_: rule.typ().map(|kind| serialized_name(&kind)).unwrap_or_default(),
        major: OptionalInt64::of(rule.major()),
        minor: OptionalInt64::of(rule.minor()),
        access: rule.access().clone().unwrap_or_default(),
        ..Default::default()
    }
}
