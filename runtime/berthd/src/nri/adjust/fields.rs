//! Arguments, hooks, process limits, and adjustments that other plugins are not shown.

use berth_nri::nri::{Field, Hooks, LinuxContainerAdjustment, LinuxMemoryPolicy, LinuxRdt, POSIXRlimit};
use protobuf::MessageField;

use super::owners::Claims;
use crate::error::Result;

/// Merges arguments. An empty first argument removes those of an earlier plugin; the others, if any, replace them.
pub(super) fn args(
    mut wanted: Vec<String>,
    claims: &mut Claims<'_>,
    collected: &mut Vec<String>,
    seen: &mut Vec<String>,
) -> Result<()> {
    let cleared = wanted.first().is_some_and(String::is_empty);
    if cleared {
        claims.clear(Field::Args, "");
        wanted.remove(0);
    }
    if wanted.is_empty() && !cleared {
        return Ok(());
    }
    claims.claim(Field::Args, "")?;
    collected.clone_from(&wanted);
    *seen = wanted;
    Ok(())
}

/// Appends hooks: those of all plugins run, in the order of the plugins.
pub(super) fn add_hooks(hooks: &mut Hooks, more: &Hooks) {
    hooks.prestart.extend_from_slice(&more.prestart);
    hooks.create_runtime.extend_from_slice(&more.create_runtime);
    hooks.create_container.extend_from_slice(&more.create_container);
    hooks.start_container.extend_from_slice(&more.start_container);
    hooks.poststart.extend_from_slice(&more.poststart);
    hooks.poststop.extend_from_slice(&more.poststop);
}

/// Merges process limits, of which each type may be set once.
pub(super) fn rlimits(
    wanted: Vec<POSIXRlimit>,
    claims: &mut Claims<'_>,
    collected: &mut Vec<POSIXRlimit>,
    seen: &mut Vec<POSIXRlimit>,
) -> Result<()> {
    for limit in wanted {
        claims.claim(Field::Rlimits, &limit.type_)?;
        seen.retain(|one| one.type_ != limit.type_);
        seen.push(limit.clone());
        collected.push(limit);
    }
    Ok(())
}

/// Merges RDT classes and memory policies. Berth has neither: they are refused when they are applied.
pub(super) fn rdt_and_memory_policy(
    rdt: MessageField<LinuxRdt>,
    memory_policy: MessageField<LinuxMemoryPolicy>,
    claims: &mut Claims<'_>,
    collected: &mut LinuxContainerAdjustment,
) -> Result<()> {
    if rdt.is_some() {
        claims.claim(Field::RdtClosID, "")?;
        collected.rdt = rdt;
    }
    if memory_policy.is_some() {
        claims.claim(Field::MemoryPolicy, "")?;
        collected.memory_policy = memory_policy;
    }
    Ok(())
}
