//! The adjustment that one plugin requests for a container being created.

use berth_nri::nri::{Container, ContainerAdjustment, Field, LinuxContainer, LinuxContainerAdjustment};

use super::{
    entries::{ListChanges, collect_map, show_environment},
    fields,
    owners::Claims,
    resources,
};
use crate::error::Result;

/// Merges `wanted` into `collected` and into `seen`, the container as the next plugin sees it. Fails on a conflict.
pub(super) fn adjust(
    wanted: ContainerAdjustment,
    claims: &mut Claims<'_>,
    collected: &mut ContainerAdjustment,
    seen: &mut Container,
) -> Result<()> {
    let annotations = (&mut collected.annotations, &mut seen.annotations);
    collect_map(Field::Annotations, wanted.annotations, claims, annotations.0, annotations.1)?;
    ListChanges::collect(Field::Mounts, wanted.mounts, claims, &mut collected.mounts)?.show(&mut seen.mounts);
    let environment = ListChanges::collect(Field::Env, wanted.env, claims, &mut collected.env)?;
    show_environment(environment, &mut seen.env);
    fields::args(wanted.args, claims, &mut collected.args, &mut seen.args)?;
    if let Some(hooks) = wanted.hooks.into_option() {
        claims.share(Field::OciHooks);
        fields::add_hooks(collected.hooks.mut_or_insert_default(), &hooks);
        fields::add_hooks(seen.hooks.mut_or_insert_default(), &hooks);
    }
    if let Some(linux) = wanted.linux.into_option() {
        let collected = collected.linux.mut_or_insert_default();
        adjust_linux(linux, claims, collected, seen.linux.mut_or_insert_default())?;
    }
    fields::rlimits(wanted.rlimits, claims, &mut collected.rlimits, &mut seen.rlimits)?;
    for device in wanted.CDI_devices {
        claims.claim(Field::CdiDevices, &device.name)?;
        collected.CDI_devices.push(device);
    }
    Ok(())
}

fn adjust_linux(
    wanted: LinuxContainerAdjustment,
    claims: &mut Claims<'_>,
    collected: &mut LinuxContainerAdjustment,
    seen: &mut LinuxContainer,
) -> Result<()> {
    ListChanges::collect(Field::Devices, wanted.devices, claims, &mut collected.devices)?
        .show(&mut seen.devices);
    let namespaces =
        ListChanges::collect(Field::Namespace, wanted.namespaces, claims, &mut collected.namespaces)?;
    namespaces.show(&mut seen.namespaces);
    collect_map(Field::Sysctl, wanted.sysctl, claims, &mut collected.sysctl, &mut seen.sysctl)?;
    let net_devices = (&mut collected.net_devices, &mut seen.net_devices);
    collect_map(Field::LinuxNetDevices, wanted.net_devices, claims, net_devices.0, net_devices.1)?;
    if let Some(asked) = wanted.resources.as_ref() {
        resources::claim(asked, claims)?;
        resources::overlay(collected.resources.mut_or_insert_default(), asked);
        resources::overlay(seen.resources.mut_or_insert_default(), asked);
    }
    if !wanted.cgroups_path.is_empty() {
        claims.claim(Field::CgroupsPath, "")?;
        collected.cgroups_path.clone_from(&wanted.cgroups_path);
        seen.cgroups_path = wanted.cgroups_path;
    }
    macro_rules! single {
        ($($field:ident: $claim:ident),*) => {$(
            if wanted.$field.is_some() {
                claims.claim(Field::$claim, "")?;
                collected.$field.clone_from(&wanted.$field);
                seen.$field = wanted.$field;
            }
        )*};
    }
    single!(oom_score_adj: OomScoreAdj, io_priority: IoPriority, seccomp_policy: SeccompPolicy, scheduler: LinuxSched);
    fields::rdt_and_memory_policy(wanted.rdt, wanted.memory_policy, claims, collected)
}
