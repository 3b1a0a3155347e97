//! The Linux part of a container: namespaces, devices, sysctls, limits.

use berth_nri::nri::{
    self, LinuxContainer, LinuxDevice, LinuxNamespace, LinuxResources, OptionalFileMode, OptionalInt,
    OptionalUInt32, SecurityProfile, security_profile::ProfileType,
};
use oci_spec::runtime::{self as oci, Spec};

use super::{Optional, process, resources, seccomp, serialized_name};
use crate::{
    container::{
        Container,
        config::{Resources, Seccomp},
    },
    spec::{self, Host},
};

/// Converts the Linux part of a container.
pub(super) fn linux(container: &Container, spec: &Spec) -> LinuxContainer {
    let mut seen = LinuxContainer {
        cgroups_path: container.cgroup.clone(),
        seccomp_profile: Some(profile(&container.config.security.seccomp)).into(),
        ..Default::default()
    };
    if let Some(process) = spec.process() {
        seen.oom_score_adj = OptionalInt::of(process.oom_score_adj());
        seen.io_priority = process::io_priority(process).into();
        seen.scheduler = process::scheduler(process).into();
    }
    if let Some(linux) = spec.linux() {
        seen.namespaces = linux.namespaces().iter().flatten().map(namespace).collect();
        seen.devices = linux.devices().iter().flatten().map(device).collect();
        seen.resources = linux.resources().as_ref().map(resources::resources).into();
        seen.sysctl = linux.sysctl().clone().unwrap_or_default();
        seen.seccomp_policy = linux.seccomp().as_ref().map(seccomp::policy).into();
    }
    seen
}

/// Replaces the CPU, memory, huge page, unified and pids limits with the current ones.
pub(super) fn overlay_limits(seen: &mut nri::Container, now: &Resources, host: &Host) {
    let Ok(now) = spec::resources::to_oci(now, host) else { return };
    let now = resources::resources(&now);
    let linux = seen.linux.mut_or_insert_default();
    let shown: &mut LinuxResources = linux.resources.mut_or_insert_default();
    shown.cpu = now.cpu;
    shown.memory = now.memory;
    shown.hugepage_limits = now.hugepage_limits;
    shown.unified = now.unified;
    if now.pids.is_some() {
        shown.pids = now.pids;
    }
}

fn namespace(namespace: &oci::LinuxNamespace) -> LinuxNamespace {
    LinuxNamespace {
        type_: serialized_name(&namespace.typ()),
        path: namespace.path().as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        ..Default::default()
    }
}

fn device(device: &oci::LinuxDevice) -> LinuxDevice {
    LinuxDevice {
        path: device.path().display().to_string(),
        type_: serialized_name(&device.typ()),
        major: device.major(),
        minor: device.minor(),
        file_mode: OptionalFileMode::of(device.file_mode()),
        uid: OptionalUInt32::of(device.uid()),
        gid: OptionalUInt32::of(device.gid()),
        ..Default::default()
    }
}

fn profile(seccomp: &Seccomp) -> SecurityProfile {
    let (kind, file) = match seccomp {
        Seccomp::Unconfined => (ProfileType::UNCONFINED, String::new()),
        Seccomp::RuntimeDefault => (ProfileType::RUNTIME_DEFAULT, String::new()),
        Seccomp::Localhost(path) => (ProfileType::LOCALHOST, path.display().to_string()),
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref: file, ..Default::default() }
}
