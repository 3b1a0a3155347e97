//! The five capability sets, capabilities(7), each limited to what the shim itself has.

use super::error::At;
use super::{Error, Step};
use crate::spec;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

/// Names by capability number.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All known capabilities, spelled as in a spec.
pub fn capability_names() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The capability sets of a process, as bit masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sets {
    bounding: CapabilitySet,
    sets: CapabilitySets,
    ambient: CapabilitySet,
}

impl Sets {
    /// Parses the names; fails for an unknown one. `None` means no capabilities.
    pub(super) fn parse(wanted: Option<&spec::Capabilities>) -> Result<Self, Error> {
        let none = spec::Capabilities::default();
        let wanted = wanted.unwrap_or(&none);
        Ok(Self {
            bounding: parse(&wanted.bounding)?,
            sets: CapabilitySets {
                effective: parse(&wanted.effective)?,
                permitted: parse(&wanted.permitted)?,
                inheritable: parse(&wanted.inheritable)?,
            },
            ambient: parse(&wanted.ambient)?,
        })
    }

    /// Removes what `host`, the shim's permitted set, lacks: the shim cannot grant it.
    pub(super) fn cut_to(mut self, host: CapabilitySet) -> Self {
        self.sets.permitted &= host;
        self.sets.effective &= self.sets.permitted;
        self.sets.inheritable &= host;
        self.ambient &= self.sets.permitted & self.sets.inheritable;
        self
    }

    /// The same sets with `others` permitted too, so that they can be raised later.
    pub(super) fn holding(&self, others: CapabilitySet) -> Self {
        let mut sets = self.clone();
        sets.sets.permitted |= others;
        sets
    }

    /// Makes capabilities effective that [`Self::holding`] kept permitted.
    pub(super) fn raise(&self, others: CapabilitySet) -> Result<(), Error> {
        if others.is_empty() {
            return Ok(());
        }
        let mut sets = self.holding(others).sets;
        sets.effective |= others;
        set_capabilities(None, sets).at(Step::Capabilities, || format!("raise {others:?}"))
    }

    /// Gives those up again, with a single system call.
    pub(super) fn lower(&self, others: CapabilitySet) -> Result<(), Error> {
        if others.is_empty() {
            return Ok(());
        }
        set_capabilities(None, self.sets).at(Step::Capabilities, || format!("give up {others:?}"))
    }

    /// Drops the other capabilities from the bounding set. Call before the user changes.
    pub(super) fn bound(&self) -> Result<(), Error> {
        for (number, name) in NAMES.iter().enumerate() {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                // Unknown to this kernel, so no process has it.
                Err(Errno::INVAL) => {}
                other => {
                    other.at(Step::Capabilities, || format!("drop CAP_{name} from the bounding set"))?;
                }
            }
        }
        Ok(())
    }

    /// Applies the other sets. Call after the user has changed.
    pub(super) fn enforce(&self) -> Result<(), Error> {
        clear_ambient_capability_set().at(Step::Capabilities, || "clear the ambient set".into())?;
        set_capabilities(None, self.sets).at(Step::Capabilities, || format!("set {:?}", self.sets))?;
        for number in 0..NAMES.len() {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.ambient.contains(capability) {
                configure_capability_in_ambient_set(capability, true)
                    .at(Step::Capabilities, || format!("raise {capability:?}"))?;
            }
        }
        Ok(())
    }
}

/// The shim's permitted set.
pub(super) fn of_host() -> Result<CapabilitySet, Error> {
    capabilities(None).map(|sets| sets.permitted).at(Step::Capabilities, || "read the shim's own".into())
}

fn parse(names: &[String]) -> Result<CapabilitySet, Error> {
    let mut set = CapabilitySet::empty();
    for name in names {
        let number = name
            .strip_prefix("CAP_")
            .and_then(|name| NAMES.iter().position(|known| *known == name))
            .ok_or_else(|| Error::invalid(Step::Capabilities, format!("unknown name {name:?}")))?;
        set |= CapabilitySet::from_bits_retain(1 << number);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn names_stand_for_the_kernels_numbers() {
        let set = parse(&of(&["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"])).unwrap();
        assert_eq!(set.bits(), 1 | 1 << 21 | 1 << 40);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        for name in ["CAP_FLY", "CHOWN", "cap_chown", ""] {
            assert!(parse(&of(&[name])).is_err(), "{name}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_left_out_of_every_set() {
        let names = of(&["CAP_CHOWN", "CAP_SYS_RESOURCE"]);
        let wanted = spec::Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            inheritable: names.clone(),
            permitted: names.clone(),
            ambient: names,
        };
        let sets = Sets::parse(Some(&wanted)).unwrap().cut_to(CapabilitySet::CHOWN);
        assert_eq!(sets.sets.effective, CapabilitySet::CHOWN);
        assert_eq!(sets.sets.permitted, CapabilitySet::CHOWN);
        assert_eq!(sets.sets.inheritable, CapabilitySet::CHOWN);
        assert_eq!(sets.ambient, CapabilitySet::CHOWN);
    }

    #[test]
    fn nothing_is_effective_or_ambient_that_is_not_permitted() {
        let wanted = spec::Capabilities {
            effective: of(&["CAP_CHOWN"]),
            ambient: of(&["CAP_CHOWN"]),
            ..Default::default()
        };
        let sets = Sets::parse(Some(&wanted)).unwrap().cut_to(CapabilitySet::all());
        assert!(sets.sets.effective.is_empty() && sets.ambient.is_empty());
    }
}
