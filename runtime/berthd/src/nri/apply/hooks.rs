//! OCI hooks: programs that run at certain points of a container's life.

use berth_nri::nri::{self, OptionalInt};
use oci_spec::runtime::{Hook, Hooks, Spec};
use protobuf::MessageField;

use crate::nri::convert::Optional;

/// Appends the hooks of a plugin.
pub(super) fn add(spec: &mut Spec, wanted: &MessageField<nri::Hooks>) {
    let Some(wanted) = wanted.as_ref() else { return };
    let hooks = spec.hooks_mut().get_or_insert_with(Hooks::default);
    #[allow(deprecated)]
    append(hooks.prestart_mut(), &wanted.prestart);
    append(hooks.create_runtime_mut(), &wanted.create_runtime);
    append(hooks.create_container_mut(), &wanted.create_container);
    append(hooks.start_container_mut(), &wanted.start_container);
    append(hooks.poststart_mut(), &wanted.poststart);
    append(hooks.poststop_mut(), &wanted.poststop);
}

fn append(hooks: &mut Option<Vec<Hook>>, wanted: &[nri::Hook]) {
    if !wanted.is_empty() {
        hooks.get_or_insert_default().extend(wanted.iter().map(described));
    }
}

fn described(wanted: &nri::Hook) -> Hook {
    let given = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
    let mut hook = Hook::default();
    hook.set_path(wanted.path.clone().into())
        .set_args(given(&wanted.args))
        .set_env(given(&wanted.env))
        .set_timeout(OptionalInt::get(&wanted.timeout));
    hook
}
