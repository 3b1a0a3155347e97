//! Environment, arguments, process limits, I/O priority and scheduler.

use berth_nri::nri::{
    ContainerAdjustment, IOPrioClass, KeyValue, LinuxIOPriority, LinuxScheduler, LinuxSchedulerPolicy,
    POSIXRlimit,
};
use oci_spec::runtime::{self as oci, Process};
use serde_json::json;

use super::{parse, removed};
use crate::error::{Error, Kind, Result};

/// Applies the process adjustments that are not in NRI's Linux part.
pub(super) fn adjust(process: &mut Process, wanted: &ContainerAdjustment) -> Result<()> {
    environment(process.env_mut().get_or_insert_default(), &wanted.env);
    if !wanted.args.is_empty() {
        process.set_args(Some(wanted.args.clone()));
    }
    for limit in &wanted.rlimits {
        set_rlimit(process, limit)?;
    }
    Ok(())
}

/// Removes and sets variables. One that is set again keeps its place.
fn environment(variables: &mut Vec<String>, wanted: &[KeyValue]) {
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let is_set = |name: &str| wanted.iter().any(|one| one.key == name);
    for name in wanted.iter().filter_map(|one| removed(&one.key)).filter(|name| !is_set(name)) {
        variables.retain(|variable| name_of(variable) != name);
    }
    for one in wanted.iter().filter(|one| removed(&one.key).is_none()) {
        let text = format!("{}={}", one.key, one.value);
        match variables.iter_mut().find(|variable| name_of(variable) == one.key) {
            Some(variable) => *variable = text,
            None => variables.push(text),
        }
    }
}

fn set_rlimit(process: &mut Process, wanted: &POSIXRlimit) -> Result<()> {
    let kind: oci::PosixRlimitType = parse("an rlimit's type", &wanted.type_)?;
    if wanted.soft > wanted.hard {
        let text = format!("an NRI plugin sets {} to {}, above its hard limit", wanted.type_, wanted.soft);
        return Err(Error::new(Kind::InvalidArgument, text));
    }
    let limit = oci::PosixRlimitBuilder::default().typ(kind).hard(wanted.hard).soft(wanted.soft).build();
    let limit = limit.map_err(|error| Error::caused(Kind::Internal, "describe an rlimit", error))?;
    let mut limits = process.rlimits().clone().unwrap_or_default();
    limits.retain(|one| one.typ() != kind);
    limits.push(limit);
    process.set_rlimits(Some(limits));
    Ok(())
}

/// Sets the I/O priority; `IOPRIO_CLASS_NONE` removes it.
pub(super) fn set_io_priority(process: &mut Process, wanted: &LinuxIOPriority) -> Result<()> {
    let class = wanted.class.enum_value_or_default();
    if class == IOPrioClass::IOPRIO_CLASS_NONE {
        process.set_io_priority(None);
        return Ok(());
    }
    let class: oci::IOPriorityClass = parse("io_priority.class", &format!("{class:?}"))?;
    let priority = oci::LinuxIOPriorityBuilder::default().class(class).priority(wanted.priority).build();
    let priority =
        priority.map_err(|error| Error::caused(Kind::Internal, "describe an I/O priority", error))?;
    process.set_io_priority(Some(priority));
    Ok(())
}

/// Sets the scheduling policy; `SCHED_NONE` removes it.
pub(super) fn set_scheduler(process: &mut Process, wanted: &LinuxScheduler) -> Result<()> {
    let policy = wanted.policy.enum_value_or_default();
    if policy == LinuxSchedulerPolicy::SCHED_NONE {
        process.set_scheduler(None);
        return Ok(());
    }
    let flags: Vec<_> =
        wanted.flags.iter().map(|flag| format!("{:?}", flag.enum_value_or_default())).collect();
    let scheduler = json!({
        "policy": format!("{policy:?}"),
        "nice": wanted.nice,
        "priority": wanted.priority,
        "flags": flags,
        "runtime": wanted.runtime,
        "deadline": wanted.deadline,
        "period": wanted.period,
    });
    let scheduler = serde_json::from_value(scheduler).map_err(|error| {
        Error::caused(Kind::InvalidArgument, "an NRI plugin sets a scheduler that cannot be", error)
    })?;
    process.set_scheduler(Some(scheduler));
    Ok(())
}
