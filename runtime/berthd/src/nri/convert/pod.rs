//! Pods.

use berth_nri::nri::{LinuxNamespace, LinuxPodSandbox, PodSandbox};

use super::resources;
use crate::pod::Pod;

/// Converts a pod, also one that is being created or has stopped.
pub(in crate::nri) fn pod(pod: &Pod) -> PodSandbox {
    let config = &pod.config;
    PodSandbox {
        id: pod.id.clone(),
        name: config.metadata.name.clone(),
        uid: config.metadata.uid.clone(),
        namespace: config.metadata.namespace.clone(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        runtime_handler: config.handler.clone(),
        linux: Some(linux(pod)).into(),
        pid: pod.shim.as_ref().map_or(0, |shim| shim.pid),
        ips: pod.ips().iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn linux(pod: &Pod) -> LinuxPodSandbox {
    LinuxPodSandbox {
        pod_overhead: Some(resources::asked(&pod.config.overhead)).into(),
        pod_resources: Some(resources::asked(&pod.config.resources)).into(),
        cgroup_parent: pod.config.cgroup_parent.clone().unwrap_or_default(),
        cgroups_path: pod.cgroup.clone(),
        namespaces: network(pod).into_iter().collect(),
        ..Default::default()
    }
}

/// Returns the pod's network namespace, as long as it is pinned.
fn network(pod: &Pod) -> Option<LinuxNamespace> {
    let path = pod.netns.as_ref().filter(|path| path.exists())?;
    Some(LinuxNamespace { type_: "network".into(), path: path.display().to_string(), ..Default::default() })
}
