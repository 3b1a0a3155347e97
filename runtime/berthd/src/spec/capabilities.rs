//! The capabilities of a container's processes, capabilities(7).

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::Error;
use crate::container::config::Security;

/// Capabilities of a container that asks for none: the set on which runtimes agree.
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Returns the five sets of the first process. `host` bounds them all, since the daemon cannot grant what it lacks; a
/// container that asks for such a capability gets the others.
///
/// `ALL` is applied first, so that adding `ALL` and dropping one leaves all but one. Dropping wins over adding. The
/// inheritable set holds only the ambient capabilities, so that no executable gains a capability that its process was
/// not given (CVE-2022-24769).
pub(crate) fn build(security: &Security, host: &Capabilities) -> Result<LinuxCapabilities, Error> {
    let add = CapabilityList::parse("add_capabilities", &security.add_capabilities)?;
    let drop = CapabilityList::parse("drop_capabilities", &security.drop_capabilities)?;
    let ambient = CapabilityList::parse("add_ambient_capabilities", &security.add_ambient_capabilities)?;
    if security.privileged {
        return Ok(sets(host.clone(), ambient.of(host)));
    }
    let mut granted: Capabilities = if add.all { host.clone() } else { DEFAULT_CAPABILITIES.into() };
    if drop.all {
        granted.clear();
    }
    let ambient: Capabilities = ambient.of(host).difference(&drop.named).copied().collect();
    granted.extend(add.named);
    granted.extend(&ambient);
    granted.retain(|capability| host.contains(capability) && !drop.named.contains(capability));
    Ok(sets(granted, ambient))
}

fn sets(granted: Capabilities, ambient: Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(granted.clone()))
        .set_effective(Some(granted.clone()))
        .set_permitted(Some(granted))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    sets
}

/// A list of capabilities, with `ALL` separate.
struct CapabilityList {
    all: bool,
    named: Capabilities,
}

impl CapabilityList {
    fn parse(field: &'static str, names: &[String]) -> Result<Self, Error> {
        let (all, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.eq_ignore_ascii_case("ALL"));
        let named = others.into_iter().map(|name| capability(field, name)).collect::<Result<_, _>>()?;
        Ok(Self { all: !all.is_empty(), named })
    }

    /// Returns the listed capabilities that the host has.
    fn of(&self, host: &Capabilities) -> Capabilities {
        host.iter().filter(|capability| self.all || self.named.contains(capability)).copied().collect()
    }
}

/// Parses a name with or without `CAP_`, in upper or lower case.
fn capability(field: &'static str, name: &str) -> Result<Capability, Error> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    Capability::from_str(short).map_err(|_| Error::invalid(field, name, "no such capability"))
}

#[cfg(test)]
mod tests;
