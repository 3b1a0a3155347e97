//! Seccomp filters.

use berth_nri::nri::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, OptionalUInt32};
use oci_spec::runtime as oci;

use super::{Optional, serialized_name};

/// Converts a filter with all its rules.
pub(super) fn policy(seccomp: &oci::LinuxSeccomp) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: serialized_name(&seccomp.default_action()),
        default_errno: OptionalUInt32::of(seccomp.default_errno_ret()),
        architectures: seccomp.architectures().iter().flatten().map(serialized_name).collect(),
        flags: seccomp.flags().iter().flatten().map(serialized_name).collect(),
        listener_path: seccomp
            .listener_path()
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        listener_metadata: seccomp.listener_metadata().clone().unwrap_or_default(),
        syscalls: seccomp.syscalls().iter().flatten().map(syscall).collect(),
        ..Default::default()
    }
}

fn syscall(rule: &oci::LinuxSyscall) -> LinuxSyscall {
    LinuxSyscall {
        names: rule.names().clone(),
        action: serialized_name(&rule.action()),
        errno_ret: OptionalUInt32::of(rule.errno_ret()),
        args: rule.args().iter().flatten().map(argument).collect(),
        ..Default::default()
    }
}

fn argument(argument: &oci::LinuxSeccompArg) -> LinuxSeccompArg {
    LinuxSeccompArg {
        index: u32::try_from(argument.index()).unwrap_or(u32::MAX),
        value: argument.value(),
        value_two: argument.value_two().unwrap_or_default(),
        op: serialized_name(&argument.op()),
        ..Default::default()
    }
}
