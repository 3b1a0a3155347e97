//! The system calls that a container's processes may make, seccomp(2): by Berth's own profile, by a file, or all.

mod default;
mod file;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod read;

use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

pub use self::read::read;
use super::{Error, Inputs, capabilities};
use crate::container::config::Seccomp;

/// A profile, with rules that may depend on the host and the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    action: LinuxSeccompAction,
    errno: Option<u32>,
    architectures: Vec<Arch>,
    flags: Vec<LinuxSeccompFilterFlag>,
    /// Path and metadata of the listener for `SCMP_ACT_NOTIFY`; empty for none.
    listener: (String, String),
    rules: Vec<Rule>,
}

/// A rule for some system calls, with its conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    calls: LinuxSyscall,
    /// Conditions that must all hold.
    only: Conditions,
    /// Conditions of which none may hold.
    unless: Conditions,
}

/// Conditions of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Conditions {
    capabilities: Capabilities,
    /// Architectures, with Go's names: `amd64`, `arm64`.
    architectures: Vec<String>,
    /// Lowest version of the kernel.
    kernel: Option<(u32, u32)>,
}

/// The properties by which rules are chosen.
struct Container {
    /// Its bounding set.
    capabilities: Capabilities,
    kernel: (u32, u32),
}

/// Returns the filter; `None` for an unconfined or a privileged container.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Option<LinuxSeccomp>, Error> {
    let security = &inputs.container.security;
    let own;
    let profile = match (&security.seccomp, inputs.seccomp) {
        _ if security.privileged => return Ok(None),
        (Seccomp::Unconfined, _) => return Ok(None),
        (Seccomp::RuntimeDefault, _) => {
            own = default::profile();
            &own
        }
        (Seccomp::Localhost(_), Some(profile)) => profile,
        (Seccomp::Localhost(path), None) => {
            return Err(Error::invalid("seccomp profile", path.to_string_lossy(), "was not read"));
        }
    };
    let sets = capabilities::build(security, &inputs.host.capabilities)?;
    let capabilities = sets.bounding().clone().unwrap_or_default();
    Ok(Some(profile.chosen_for(&Container { capabilities, kernel: inputs.host.kernel })))
}

impl Profile {
    /// Returns the rules that apply to this container, in the form for the shim.
    fn chosen_for(&self, container: &Container) -> LinuxSeccomp {
        let rules = self.rules.iter().filter(|rule| rule.holds_for(container));
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let mut filter = LinuxSeccomp::default();
        filter
            .set_default_action(self.action)
            .set_default_errno_ret(self.errno)
            .set_architectures(Some(self.architectures.clone()))
            .set_flags((!self.flags.is_empty()).then(|| self.flags.clone()))
            .set_listener_path(given(&self.listener.0).map(Into::into))
            .set_listener_metadata(given(&self.listener.1))
            .set_syscalls(Some(rules.map(|rule| rule.calls.clone()).collect()));
        filter
    }
}

impl Rule {
    fn new(names: Vec<String>, action: LinuxSeccompAction) -> Self {
        let mut rule = Self::default();
        rule.calls.set_names(names).set_action(action).set_errno_ret(None).set_args(None);
        rule
    }

    fn with(mut self, args: Vec<LinuxSeccompArg>) -> Self {
        self.calls.set_args((!args.is_empty()).then_some(args));
        self
    }

    fn holds_for(&self, container: &Container) -> bool {
        self.only.all_given(container) && !self.unless.any_given(container)
    }
}

impl Conditions {
    fn all_given(&self, container: &Container) -> bool {
        self.capabilities.is_subset(&container.capabilities)
            && (self.architectures.is_empty() || self.names_architecture())
            && self.kernel.is_none_or(|kernel| container.kernel >= kernel)
    }

    fn any_given(&self, container: &Container) -> bool {
        !self.capabilities.is_disjoint(&container.capabilities)
            || self.names_architecture()
            || self.kernel.is_some_and(|kernel| container.kernel >= kernel)
    }

    fn names_architecture(&self) -> bool {
        self.architectures.iter().any(|name| name == ARCHITECTURE)
    }
}

fn argument(index: usize, value: u64, second: Option<u64>, op: LinuxSeccompOperator) -> LinuxSeccompArg {
    let mut argument = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    if let Some(second) = second {
        argument = argument.value_two(second);
    }
    // Every member has a default, so building cannot fail.
    argument.build().unwrap_or_default()
}

/// This machine's architecture, with Go's name.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// This machine's architecture, with seccomp's name; `COMPAT_ARCHITECTURES` are those of its 32-bit and x32 programs.
const NATIVE_ARCHITECTURE: Arch =
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 };
const COMPAT_ARCHITECTURES: &[Arch] = if cfg!(target_arch = "aarch64") {
    &[Arch::ScmpArchArm]
} else {
    &[Arch::ScmpArchX86, Arch::ScmpArchX32]
};

#[cfg(test)]
mod tests;
