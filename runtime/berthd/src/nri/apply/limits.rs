//! Resource limits. They are stored in the container's configuration, so that a later update builds on them.

use berth_nri::nri::LinuxResources;
use oci_spec::runtime::Spec;

use super::{devices, linux_of};
use crate::{
    container::config::Resources,
    error::{Result, spec_error},
    nri::convert,
    spec::{self, Host},
};

/// Merges `wanted` into `limits` and writes the result to the OCI spec.
pub(super) fn adjust(
    wanted: &LinuxResources,
    host: &Host,
    limits: &mut Resources,
    spec: &mut Spec,
) -> Result<()> {
    let change = convert::limits(wanted)?;
    if change.memory_limit.is_some() {
        // The old limit on memory and swap together may be below the new memory limit.
        limits.memory_swap_limit = None;
    }
    *limits = spec::resources::merge(limits, &change);
    let described = spec::resources::to_oci(limits, host).map_err(spec_error)?;
    let before = linux_of(spec).resources_mut().get_or_insert_default();
    before
        .set_cpu(described.cpu().clone())
        .set_memory(*described.memory())
        .set_hugepage_limits(described.hugepage_limits().clone())
        .set_unified(described.unified().clone());
    if change.pids_limit.is_some() {
        before.set_pids(*described.pids());
    }
    devices::add_rules(spec, &wanted.devices)
}
