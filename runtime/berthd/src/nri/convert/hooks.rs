//! OCI hooks: programs that run at certain points of a container's life.

use berth_nri::nri::{Hook, Hooks, OptionalInt};
use oci_spec::runtime as oci;

use super::Optional;

/// Converts all hooks.
pub(super) fn hooks(hooks: &oci::Hooks) -> Hooks {
    #[allow(deprecated)]
    let prestart = list(hooks.prestart());
    Hooks {
        prestart,
        create_runtime: list(hooks.create_runtime()),
        create_container: list(hooks.create_container()),
        start_container: list(hooks.start_container()),
        poststart: list(hooks.poststart()),
        poststop: list(hooks.poststop()),
        ..Default::default()
    }
}

fn list(hooks: &Option<Vec<oci::Hook>>) -> Vec<Hook> {
    hooks.iter().flatten().map(hook).collect()
}

fn hook(hook: &oci::Hook) -> Hook {
    Hook {
        path: hook.path().display().to_string(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: OptionalInt::of(hook.timeout()),
        ..Default::default()
    }
}
