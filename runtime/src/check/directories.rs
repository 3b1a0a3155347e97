//! Bundles and writable layers.

use std::path::Path;

use super::{Finding, Scene, entries, remedy::Remedy};
use crate::pod::PodState;

/// Directories that nobody has, and pods and containers that lack theirs.
pub(super) fn disagreements(scene: &Scene) -> Vec<Finding> {
    let (layout, records) = (&scene.layout, &scene.records);
    let has_pod = |id: &str| records.has_pod(id) || scene.shims.has(id);
    let has_container = |id: &str| records.has_container(id);
    let mut findings = nobodys("bundle of pod", &layout.sandboxes(), has_pod);
    findings.extend(nobodys("bundle of container", &layout.bundles(), has_container));
    findings.extend(nobodys("writable layer of container", &layout.writables(), has_container));
    for pod in records.pods.values().filter(|pod| pod.state == PodState::Ready) {
        findings.extend(missing("bundle of pod", &layout.sandbox(&pod.id)));
    }
    for container in records.containers.values().filter(|container| !container.state.is_exited()) {
        findings.extend(missing("bundle of container", &layout.bundle(&container.id)));
        findings.extend(missing("writable layer of container", &layout.writable(&container.id)));
    }
    findings
}

fn nobodys(what: &str, directory: &Path, known: impl Fn(&str) -> bool) -> Vec<Finding> {
    let unknown = entries(directory).into_iter().filter(|(id, _)| !known(id));
    unknown
        .map(|(id, path)| {
            Finding::mended_by(
                format!("{what} {id} without a record: {}", path.display()),
                Remedy::RemoveDirectory(path),
            )
        })
        .collect()
}

fn missing(what: &str, directory: &Path) -> Option<Finding> {
    (!directory.is_dir()).then(|| Finding::new(format!("{what} is missing: {}", directory.display())))
}
