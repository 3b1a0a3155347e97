//! Addresses and interfaces.

use std::path::{Path, PathBuf};

use super::{Finding, Inventory, entries};
use berth_network::Provider;

use crate::{config::Config, pod::PodState};

/// Finds leases of pods without a record, ready pods without a lease, and interfaces without a lease. The daemon
/// releases such leases, with their interfaces and rules, at its next start.
pub(super) fn disagreements(inventory: &Inventory) -> Vec<Finding> {
    let leases = leases(&records(&inventory.config));
    let unknown = leases.iter().filter(|pod| !inventory.records.has_pod(pod));
    let mut findings: Vec<_> =
        unknown.map(|pod| Finding::new(format!("pod {pod} has addresses and is not on record"))).collect();
    if inventory.config.network.provider == Provider::Bridge {
        let attached =
            inventory.records.pods.values().filter(|pod| pod.state == PodState::Ready && pod.netns.is_some());
        let lacking = attached.filter(|pod| !leases.contains(&pod.id));
        findings
            .extend(lacking.map(|pod| Finding::new(format!("pod {} is ready and has no address", pod.id))));
        findings.extend(interfaces(&inventory.config));
    }
    findings
}

/// Returns the directory of the network's own records, one file per pod.
fn records(config: &Config) -> PathBuf {
    let network = &config.network;
    match network.provider {
        Provider::Bridge => config.root.join("network").join(&network.bridge.name),
        Provider::Cni => network.cni.cache_dir(&config.root),
    }
}

fn leases(directory: &Path) -> Vec<String> {
    let names =
        entries(directory).into_iter().filter_map(|(name, _)| Some(name.strip_suffix(".json")?.to_owned()));
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Finds ports of the bridge that have a name of ours but no lease, be it of a pod or of one that is being detached.
fn interfaces(config: &Config) -> Vec<Finding> {
    let directory = records(config);
    let known: String = entries(&directory)
        .into_iter()
        .chain(entries(&directory.join("leaving")))
        .filter_map(|(_, path)| std::fs::read_to_string(path).ok())
        .collect();
    let ports = entries(&Path::new("/sys/class/net").join(&config.network.bridge.name).join("brif"));
    ports
        .into_iter()
        .filter(|(name, _)| is_ours(name) && !known.contains(&format!("\"{name}\"")))
        .map(|(name, _)| {
            Finding::new(format!("interface {name} is on {} without a lease", config.network.bridge.name))
        })
        .collect()
}

/// Whether a name has the form of ours: `b`, eight hex digits of the pod's id, `-` and four hex digits.
fn is_ours(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = name.strip_prefix('b').and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(pod, number)| pod.len() == 8 && number.len() == 4 && hex(pod) && hex(number))
}
