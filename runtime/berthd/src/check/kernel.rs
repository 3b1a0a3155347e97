//! Kernel objects: mounts, pinned network namespaces, cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Finding, Inventory, entries, remedy::Remedy};
use crate::{handlers, ids, pod::PodState};

/// Finds kernel objects that belong to no pod. The owner is told by name, because other daemons may share the
/// directories and cgroups. Objects of a shim that still runs are left to it.
pub(super) fn disagreements(inventory: &Inventory) -> Vec<Finding> {
    let mut findings = mounts(inventory);
    findings.extend(pins(inventory));
    findings.extend(groups(inventory));
    findings
}

/// Finds mounts in the directories of pods and containers. Berth's own shim mounts only inside of containers' mount
/// namespaces; shims of other handlers mount on the host, for pods that run. A mount over one of the parent directories
/// themselves is the administrator's.
fn mounts(inventory: &Inventory) -> Vec<Finding> {
    let layout = &inventory.layout;
    let ours = [layout.sandboxes(), layout.bundles(), layout.writable_layers()];
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter_map(|point| mount(inventory, &owner(&ours, &point)?, point)).collect()
}

/// Returns the id of the pod or container whose directory holds `path`.
fn owner(directories: &[PathBuf], path: &Path) -> Option<String> {
    let below = directories.iter().find_map(|directory| path.strip_prefix(directory).ok())?;
    Some(below.components().next()?.as_os_str().to_string_lossy().into_owned())
}

fn mount(inventory: &Inventory, id: &str, point: PathBuf) -> Option<Finding> {
    let (records, what) = (&inventory.records, format!("mounted on the host: {}", point.display()));
    let pod = records.containers.get(id).map_or(id, |container| container.pod_id.as_str());
    match records.pods.get(pod) {
        Some(pod) if !handlers::is_own(&pod.config.handler) => None,
        // It is not known which shim has mounted it.
        None if inventory.shims.has(pod) || records.has_pod(pod) || records.has_container(id) => {
            Some(Finding::new(what))
        }
        _ => Some(Finding::repairable(what, Remedy::Unmount(point))),
    }
}

fn pins(inventory: &Inventory) -> Vec<Finding> {
    let pods = || inventory.records.pods.values();
    let mut findings: Vec<_> = pods()
        .filter(|pod| pod.state == PodState::Ready)
        .filter_map(|pod| pod.netns.as_ref().filter(|pin| !pin.exists()).map(|pin| (pod, pin)))
        .map(|(pod, pin)| {
            Finding::new(format!("the network namespace of pod {} is missing: {}", pod.id, pin.display()))
        })
        .collect();
    for (name, path) in entries(&inventory.config.network.netns_dir) {
        let Some(id) = name.strip_prefix("berth-") else { continue };
        let is_known = pods().any(|pod| ids::short(&pod.id) == id);
        if !is_known && !inventory.shims.any_begins(id) {
            let what = format!("network namespace of a pod that is not on record: {}", path.display());
            findings.push(Finding::repairable(what, Remedy::Unpin(path)));
        }
    }
    findings
}

fn groups(inventory: &Inventory) -> Vec<Finding> {
    let own = inventory.config.pods.cgroup_root.trim_matches('/').to_owned();
    if own.is_empty() {
        return Vec::new();
    }
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = entries(&root).into_iter().map(|(_, hierarchy)| hierarchy).chain([root]);
    let below = hierarchies.flat_map(|hierarchy| entries(&hierarchy.join(&own)));
    let of_a_pod = |id: &str| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    below
        .filter(|(id, path)| {
            path.is_dir() && of_a_pod(id) && !inventory.records.has_pod(id) && !inventory.shims.has(id)
        })
        .map(|(id, path)| group(&id, path))
        .collect()
}

fn group(id: &str, path: PathBuf) -> Finding {
    match is_empty(&path) {
        true => {
            let what = format!("control group of pod {id}, which is not on record: {}", path.display());
            Finding::repairable(what, Remedy::RemoveGroup(path))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_over_a_whole_directory_is_nobodys_and_one_below_has_an_owner() {
        let ours = ["/run/berth/containers", "/var/lib/berth/containers"].map(PathBuf::from);
        let owner = |path| owner(&ours, Path::new(path));
        assert_eq!(owner("/run/berth/containers/c/rootfs").as_deref(), Some("c"));
        for path in ["/var/lib/berth/containers", "/var/lib/berth", "/run/berth/containers-2/c"] {
            assert_eq!(owner(path), None, "{path}");
        }
    }
}
