//! The Linux part of an adjustment.

use berth_nri::nri::{self, LinuxContainerAdjustment, OptionalInt};
use oci_spec::runtime::{LinuxNamespace, Spec};

use super::{change_map, devices, limits, linux_of, parse, process, process_of, refuse, removed, seccomp};
use crate::{
    container::Container,
    error::{Error, Kind, Result, spec_error},
    nri::convert::Optional,
    spec::{self, Host},
};

/// Applies the Linux part; fails on what Berth does not support.
pub(super) fn adjust(
    wanted: &LinuxContainerAdjustment,
    host: &Host,
    container: &mut Container,
    spec: &mut Spec,
) -> Result<()> {
    refuse("network devices", !wanted.net_devices.is_empty())?;
    refuse("a memory policy", wanted.memory_policy.is_some())?;
    refuse("a cache class (rdt)", wanted.rdt.as_ref().is_some_and(|rdt| !rdt.remove))?;
    devices::adjust(spec, &wanted.devices)?;
    if let Some(wanted) = wanted.resources.as_ref() {
        limits::adjust(wanted, host, &mut container.config.resources, spec)?;
    }
    set_cgroup(&wanted.cgroups_path, container, spec)?;
    set_oom_score(OptionalInt::get(&wanted.oom_score_adj), host, container, spec)?;
    if let Some(wanted) = wanted.io_priority.as_ref() {
        process::set_io_priority(process_of(spec), wanted)?;
    }
    if let Some(wanted) = wanted.scheduler.as_ref() {
        process::set_scheduler(process_of(spec), wanted)?;
    }
    if let Some(wanted) = wanted.seccomp_policy.as_ref() {
        linux_of(spec).set_seccomp(Some(seccomp::filter(wanted)?));
    }
    change_namespaces(spec, &wanted.namespaces)?;
    change_map(linux_of(spec).sysctl_mut().get_or_insert_default(), &wanted.sysctl);
    Ok(())
}

fn set_cgroup(path: &str, container: &mut Container, spec: &mut Spec) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let clean = path.len() > 1 && path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if !clean {
        let text = format!("an NRI plugin sets cgroups_path to {path:?}, which is no path below the root");
        return Err(Error::new(Kind::InvalidArgument, text));
    }
    linux_of(spec).set_cgroups_path(Some(path.into()));
    container.cgroup = path.to_owned();
    Ok(())
}

fn set_oom_score(score: Option<i64>, host: &Host, container: &mut Container, spec: &mut Spec) -> Result<()> {
    if score.is_none() {
        return Ok(());
    }
    let limits = &mut container.config.resources;
    limits.oom_score_adj = score;
    let score = spec::resources::oom_score_adj(limits, host).map_err(spec_error)?;
    process_of(spec).set_oom_score_adj(score);
    Ok(())
}

fn change_namespaces(spec: &mut Spec, wanted: &[nri::LinuxNamespace]) -> Result<()> {
    let namespaces = linux_of(spec).namespaces_mut().get_or_insert_default();
    for one in wanted {
        let kind = parse("a namespace's type", removed(&one.type_).unwrap_or(&one.type_))?;
        namespaces.retain(|namespace| namespace.typ() != kind);
        if removed(&one.type_).is_none() {
            let mut namespace = LinuxNamespace::default();
            let path = Some(one.path.clone()).filter(|path| !path.is_empty());
            namespace.set_typ(kind).set_path(path.map(Into::into));
            namespaces.push(namespace);
        }
    }
    Ok(())
}
