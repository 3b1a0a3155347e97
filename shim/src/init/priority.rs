//! Scheduling policy and I/O priority of a process.

use super::error::At;
use super::{Error, Step};
use crate::spec::{self, IoPriority, Scheduler};
use crate::sys::{self, SchedAttr};

/// Number of bits below the class in an I/O priority.
const CLASS_SHIFT: i32 = 13;
/// `SCHED_DEADLINE`: never inherited, and cannot be set without privileges.
const DEADLINE: u32 = 6;
/// `SCHED_FLAG_RESET_ON_FORK`.
const RESET: u64 = 0x01;

/// Sets what the spec asks for; may need the shim's privileges. Children inherit it unless [`reset_on_fork`] is called.
pub(super) fn set(process: &spec::Process) -> Result<(), Error> {
    if let Some(priority) = &process.io_priority {
        let value = io_priority(priority)?;
        sys::ioprio_set(value).at(Step::Priority, || format!("set the I/O priority to {priority:?}"))?;
    }
    if let Some(scheduler) = &process.scheduler {
        let wanted = attributes(scheduler)?;
        let kept = if wanted.policy == DEADLINE { wanted.flags } else { wanted.flags & !RESET };
        schedule(scheduler, SchedAttr { flags: kept, ..wanted })?;
    }
    Ok(())
}

/// Sets SCHED_RESET_ON_FORK if the spec asks for it: children then start with the default policy.
pub(super) fn reset_on_fork(process: &spec::Process) -> Result<(), Error> {
    let Some(scheduler) = &process.scheduler else { return Ok(()) };
    let wanted = attributes(scheduler)?;
    match wanted.flags & RESET != 0 && wanted.policy != DEADLINE {
        true => schedule(scheduler, wanted),
        false => Ok(()),
    }
}

/// Refuses policies that the process of an exec could not inherit from its stage.
pub(super) fn must_be_inherited(process: &spec::Process) -> Result<(), Error> {
    match &process.scheduler {
        Some(scheduler) if scheduler.policy == "SCHED_DEADLINE" => {
            Err(Error::Unsupported("process.scheduler SCHED_DEADLINE of an exec is".into()))
        }
        _ => Ok(()),
    }
}

fn schedule(asked: &Scheduler, attributes: SchedAttr) -> Result<(), Error> {
    sys::sched_setattr(attributes).at(Step::Priority, || format!("set the scheduler to {asked:?}"))
}

fn io_priority(asked: &IoPriority) -> Result<i32, Error> {
    let class = match asked.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(unknown("ioPriority.class", other)),
    };
    if !(0..8).contains(&asked.priority) {
        return Err(unknown("ioPriority.priority", asked.priority));
    }
    Ok((class << CLASS_SHIFT) | asked.priority)
}

fn attributes(asked: &Scheduler) -> Result<SchedAttr, Error> {
    let policy = match asked.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => DEADLINE,
        other => return Err(unknown("scheduler.policy", other)),
    };
    Ok(SchedAttr {
        policy,
        flags: asked.flags.iter().try_fold(0, |all, name| Ok::<_, Error>(all | flag(name)?))?,
        nice: asked.nice,
        priority: asked.priority,
        runtime: asked.runtime,
        deadline: asked.deadline,
        period: asked.period,
        ..SchedAttr::default()
    })
}

fn flag(name: &str) -> Result<u64, Error> {
    Ok(match name {
        "SCHED_FLAG_RESET_ON_FORK" => RESET,
        "SCHED_FLAG_RECLAIM" => 0x02,
        "SCHED_FLAG_DL_OVERRUN" => 0x04,
        "SCHED_FLAG_KEEP_POLICY" => 0x08,
        "SCHED_FLAG_KEEP_PARAMS" => 0x10,
        "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
        "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
        other => return Err(unknown("scheduler.flags", other)),
    })
}

fn unknown(field: &str, value: impl std::fmt::Debug) -> Error {
    Error::invalid(Step::Priority, format!("process.{field} {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(class: &str, priority: i32) -> Result<i32, Error> {
        io_priority(&IoPriority { class: class.into(), priority })
    }

    #[test]
    fn an_io_priority_is_one_number() {
        assert_eq!(io("IOPRIO_CLASS_BE", 4), Ok((2 << 13) | 4));
        assert_eq!(io("IOPRIO_CLASS_IDLE", 0), Ok(3 << 13));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        assert!(io("IOPRIO_CLASS_FUN", 0).is_err_and(|error| error.to_string().contains("IOPRIO_CLASS_FUN")));
        assert!(io("IOPRIO_CLASS_RT", 8).is_err());
        let scheduler = Scheduler { policy: "SCHED_FUN".into(), ..Scheduler::default() };
        assert!(attributes(&scheduler).is_err_and(|error| error.to_string().contains("SCHED_FUN")));
    }
}
