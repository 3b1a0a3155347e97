//! Converts the limits that a plugin asks for. Unsupported ones are refused rather than left out.

use berth_nri::nri::{
    LinuxCPU, LinuxMemory, LinuxResources, OptionalBool, OptionalInt64, OptionalString, OptionalUInt64,
};

use super::Optional;
use crate::{
    container::config::Resources,
    error::{Error, Kind, Result},
};

/// As [`limits`], for an existing container, whose device rules cannot change.
pub(in crate::nri) fn changed_limits(asked: &LinuxResources) -> Result<Resources> {
    refuse("device rules for a container that is there already", !asked.devices.is_empty())?;
    limits(asked)
}

/// Converts `asked`; a value that is absent stays absent. Values are not validated here.
///
/// # Errors
///
/// `Unimplemented` for a limit that Berth does not support.
pub(in crate::nri) fn limits(asked: &LinuxResources) -> Result<Resources> {
    refuse("blockio_class", named(&asked.blockio_class))?;
    refuse("rdt_class", named(&asked.rdt_class))?;
    let mut limits = Resources {
        hugepages: asked.hugepage_limits.iter().map(|one| (one.page_size.clone(), one.limit)).collect(),
        unified: asked.unified.clone().into_iter().collect(),
        pids_limit: asked.pids.as_ref().map(|pids| pids.limit),
        ..Resources::default()
    };
    if let Some(memory) = asked.memory.as_ref() {
        take_memory(&mut limits, memory)?;
    }
    if let Some(cpu) = asked.cpu.as_ref() {
        take_cpu(&mut limits, cpu)?;
    }
    Ok(limits)
}

fn take_memory(limits: &mut Resources, memory: &LinuxMemory) -> Result<()> {
    refuse("memory.kernel", OptionalInt64::get(&memory.kernel).is_some())?;
    refuse("memory.kernel_tcp", OptionalInt64::get(&memory.kernel_tcp).is_some())?;
    // Kernels no longer allow it to be turned off.
    refuse("memory.use_hierarchy = false", OptionalBool::get(&memory.use_hierarchy) == Some(false))?;
    limits.memory_limit = OptionalInt64::get(&memory.limit);
    limits.memory_reservation = OptionalInt64::get(&memory.reservation);
    limits.memory_swap_limit = OptionalInt64::get(&memory.swap);
    limits.memory_swappiness = OptionalUInt64::get(&memory.swappiness);
    limits.disable_oom_killer = OptionalBool::get(&memory.disable_oom_killer);
    Ok(())
}

fn take_cpu(limits: &mut Resources, cpu: &LinuxCPU) -> Result<()> {
    refuse("cpu.realtime_runtime", OptionalInt64::get(&cpu.realtime_runtime).is_some())?;
    refuse("cpu.realtime_period", OptionalUInt64::get(&cpu.realtime_period).is_some())?;
    limits.cpu_shares = OptionalUInt64::get(&cpu.shares);
    limits.cpu_quota = OptionalInt64::get(&cpu.quota);
    limits.cpu_period = OptionalUInt64::get(&cpu.period);
    limits.cpuset_cpus = Some(cpu.cpus.clone()).filter(|list| !list.is_empty());
    limits.cpuset_mems = Some(cpu.mems.clone()).filter(|list| !list.is_empty());
    Ok(())
}

/// Whether a class is set. An empty one removes a class, and there is none to be removed.
fn named(class: &protobuf::MessageField<OptionalString>) -> bool {
    OptionalString::get(class).is_some_and(|class| !class.is_empty())
}

fn refuse(what: &str, asked: bool) -> Result<()> {
    match asked {
        false => Ok(()),
        true => {
            Err(Error::new(Kind::Unimplemented, format!("an NRI plugin asks for {what}, which Berth lacks")))
        }
    }
}
