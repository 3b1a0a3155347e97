//! The first process of a container.

use berth_nri::nri::{
    self, IOPrioClass, LinuxIOPriority, LinuxScheduler, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    POSIXRlimit, User,
};
use oci_spec::runtime::{self as oci, Spec};
use protobuf::{Enum, EnumOrUnknown};

use super::serialized_name;

/// Fills in arguments, environment, limits and user.
pub(super) fn fill(seen: &mut nri::Container, spec: &Spec) {
    let Some(process) = spec.process() else { return };
    seen.args = process.args().clone().unwrap_or_default();
    seen.env = process.env().clone().unwrap_or_default();
    seen.rlimits = process.rlimits().iter().flatten().map(rlimit).collect();
    seen.user = Some(user(process.user())).into();
}

fn rlimit(limit: &oci::PosixRlimit) -> POSIXRlimit {
    POSIXRlimit {
        type_: serialized_name(&limit.typ()),
        hard: limit.hard(),
        soft: limit.soft(),
        ..Default::default()
    }
}

fn user(user: &oci::User) -> User {
    User {
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        ..Default::default()
    }
}

/// Converts the I/O priority.
pub(super) fn io_priority(process: &oci::Process) -> Option<LinuxIOPriority> {
    let priority = process.io_priority().as_ref()?;
    Some(LinuxIOPriority {
        class: named::<IOPrioClass>(&priority.class()),
        priority: i32::try_from(priority.priority()).unwrap_or_default(),
        ..Default::default()
    })
}

/// Converts the scheduling policy.
pub(super) fn scheduler(process: &oci::Process) -> Option<LinuxScheduler> {
    let scheduler = process.scheduler().as_ref()?;
    Some(LinuxScheduler {
        policy: named::<LinuxSchedulerPolicy>(scheduler.policy()),
        nice: scheduler.nice().unwrap_or_default(),
        priority: scheduler.priority().unwrap_or_default(),
        flags: scheduler.flags().iter().flatten().map(named::<LinuxSchedulerFlag>).collect(),
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
        ..Default::default()
    })
}

/// Returns NRI's enum value with the name of the OCI value; the default if there is none.
fn named<E: Enum>(value: &impl serde::Serialize) -> EnumOrUnknown<E> {
    E::from_str(&serialized_name(value)).unwrap_or_default().into()
}
