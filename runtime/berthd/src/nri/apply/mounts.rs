//! Mounts.

use berth_nri::nri;
use oci_spec::runtime::{Mount, Spec};

use super::{linux_of, removed};

/// Removes and adds mounts, then sorts outer destinations before inner ones, so that none is hidden.
pub(super) fn adjust(spec: &mut Spec, wanted: &[nri::Mount]) {
    if wanted.is_empty() {
        return;
    }
    let mounts = spec.mounts_mut().get_or_insert_default();
    for mount in wanted {
        let place = removed(&mount.destination).unwrap_or(&mount.destination);
        mounts.retain(|one| one.destination().as_os_str() != place);
    }
    let added: Vec<_> = wanted.iter().filter(|mount| removed(&mount.destination).is_none()).collect();
    mounts.extend(added.iter().map(|mount| described(mount)));
    mounts.sort_by_key(|mount| mount.destination().components().count());
    let asks = |option| added.iter().any(|mount| mount.options.iter().any(|one| one == option));
    let root = linux_of(spec);
    // A mount propagates only as far as the propagation of the rootfs allows.
    let propagation = root.rootfs_propagation().clone().unwrap_or_default();
    if asks("rshared") {
        root.set_rootfs_propagation(Some("rshared".into()));
    } else if asks("rslave") && propagation != "rshared" {
        root.set_rootfs_propagation(Some("rslave".into()));
    }
}

fn described(wanted: &nri::Mount) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(wanted.destination.clone().into())
        .set_typ(Some(wanted.type_.clone()).filter(|kind| !kind.is_empty()))
        .set_source(Some(wanted.source.clone().into()))
        .set_options(Some(wanted.options.clone()));
    mount
}
