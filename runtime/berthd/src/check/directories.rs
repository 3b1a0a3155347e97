//! Bundles and writable layers.

use std::{fs, path::Path};

use super::{Finding, Inventory, entries, remedy::Remedy};
use crate::{container::Container, pod::PodState};

/// Finds directories without a record, and pods and containers without their directories.
pub(super) fn disagreements(inventory: &Inventory) -> Vec<Finding> {
    let (layout, records) = (&inventory.layout, &inventory.records);
    let has_pod = |id: &str| records.has_pod(id) || inventory.shims.has(id);
    let has_container = |id: &str| records.has_container(id);
    let mut findings = unowned("bundle of pod", &layout.sandboxes(), has_pod, |_| false);
    let has_shim = |id: &str| has_shim(inventory, id);
    findings.extend(unowned("bundle of container", &layout.bundles(), has_container, has_shim));
    findings.extend(unowned(
        "writable layer of container",
        &layout.writable_layers(),
        has_container,
        has_shim,
    ));
    for pod in records.pods.values().filter(|pod| pod.state == PodState::Ready) {
        findings.extend(missing("bundle of pod", &layout.sandbox(&pod.id)));
    }
    for container in records.containers.values().filter(|container| !container.state.is_exited()) {
        findings.extend(missing("bundle of container", &layout.bundle(&container.id)));
        findings.extend(missing("writable layer of container", &layout.writable(&container.id)));
    }
    findings
}

/// Whether the shim of the container's pod runs; the pod's id comes from the copy of the record in the bundle. The next
/// daemon restores that record, or has the shim discard the container.
fn has_shim(inventory: &Inventory, container: &str) -> bool {
    let copy = fs::read(inventory.layout.container_copy(container)).unwrap_or_default();
    serde_json::from_slice::<Container>(&copy).is_ok_and(|container| inventory.shims.has(&container.pod_id))
}

fn unowned(
    what: &str,
    directory: &Path,
    known: impl Fn(&str) -> bool,
    in_use: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let unknown = entries(directory).into_iter().filter(|(id, _)| !known(id));
    unknown
        .map(|(id, path)| {
            let what = format!("{what} {id} without a record: {}", path.display());
            match in_use(&id) {
                true => Finding::new(what),
                false => Finding::repairable(what, Remedy::RemoveDirectory(path)),
            }
        })
        .collect()
}

fn missing(what: &str, directory: &Path) -> Option<Finding> {
    (!directory.is_dir()).then(|| Finding::new(format!("{what} is missing: {}", directory.display())))
}
