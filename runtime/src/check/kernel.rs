//! What the kernel has: mounts, pinned network namespaces, control groups.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Finding, Scene, entries, remedy::Remedy};
use crate::{identity, pod::PodState};

/// Those that no pod has. Names tell whose a thing is: other daemons may share directories and groups with ours, and what
/// belongs to a shim that lives is left to it.
pub(super) fn disagreements(scene: &Scene) -> Vec<Finding> {
    let mut findings = mounts(scene);
    findings.extend(pins(scene));
    findings.extend(groups(scene));
    findings
}

/// Root file systems are mounted inside of containers only.
fn mounts(scene: &Scene) -> Vec<Finding> {
    let layout = &scene.layout;
    let ours = [layout.sandboxes(), layout.bundles(), layout.writables()];
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points
        .filter(|point| ours.iter().any(|directory| point.starts_with(directory)))
        .map(|point| {
            Finding::mended_by(format!("mounted on the host: {}", point.display()), Remedy::Unmount(point))
        })
        .collect()
}

fn pins(scene: &Scene) -> Vec<Finding> {
    let pods = || scene.records.pods.values();
    let mut findings: Vec<_> = pods()
        .filter(|pod| pod.state == PodState::Ready)
        .filter_map(|pod| pod.netns.as_ref().filter(|pin| !pin.exists()).map(|pin| (pod, pin)))
        .map(|(pod, pin)| {
            Finding::new(format!("the network namespace of pod {} is missing: {}", pod.id, pin.display()))
        })
        .collect();
    for (name, path) in entries(&scene.config.network.netns_dir) {
        let Some(id) = name.strip_prefix("berth-") else { continue };
        let is_known = pods().any(|pod| identity::short(&pod.id) == id);
        if !is_known && !scene.shims.any_begins(id) {
            let what = format!("network namespace of a pod that is not on record: {}", path.display());
            findings.push(Finding::mended_by(what, Remedy::Unpin(path)));
        }
    }
    findings
}

fn groups(scene: &Scene) -> Vec<Finding> {
    let own = scene.config.pods.cgroup_root.trim_matches('/').to_owned();
    if own.is_empty() {
        return Vec::new();
    }
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = entries(&root).into_iter().map(|(_, hierarchy)| hierarchy).chain([root]);
    let below = hierarchies.flat_map(|hierarchy| entries(&hierarchy.join(&own)));
    let of_a_pod = |id: &str| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    below
        .filter(|(id, path)| {
            path.is_dir() && of_a_pod(id) && !scene.records.has_pod(id) && !scene.shims.has(id)
        })
        .map(|(id, path)| group(&id, path))
        .collect()
}

fn group(id: &str, path: PathBuf) -> Finding {
    match is_empty(&path) {
        true => {
            let what = format!("control group of pod {id}, which is not on record: {}", path.display());
            Finding::mended_by(what, Remedy::RemoveGroup(path))
        }
        false => {
            Finding::new(format!("processes of pod {id}, which is not on record, run in {}", path.display()))
        }
    }
}

fn is_empty(group: &Path) -> bool {
    let procs = fs::read(group.join("cgroup.procs")).unwrap_or_default();
    let mut below = entries(group).into_iter().filter(|(_, path)| path.is_dir());
    procs.is_empty() && below.all(|(_, path)| is_empty(&path))
}
