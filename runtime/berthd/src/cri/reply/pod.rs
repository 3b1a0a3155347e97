//! Pods.

use berth_cri::v1::{self, NamespaceMode, PodSandboxState};

use crate::pod::{
    Pod, PodState,
    config::{IdRange, Namespaces, PidMode, PodMetadata, Users},
};

/// A pod in a list.
pub(crate) fn pod_sandbox(pod: &Pod) -> v1::PodSandbox {
    let config = &pod.config;
    v1::PodSandbox {
        id: pod.id.clone(),
        metadata: Some(metadata(&config.metadata)),
        state: state(pod.state).into(),
        created_at: pod.created_at,
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        runtime_handler: config.handler.clone(),
    }
}

/// Returns the full status of a pod.
pub(crate) fn pod_sandbox_status(pod: &Pod) -> v1::PodSandboxStatus {
    let config = &pod.config;
    v1::PodSandboxStatus {
        id: pod.id.clone(),
        metadata: Some(metadata(&config.metadata)),
        state: state(pod.state).into(),
        created_at: pod.created_at,
        network: Some(network(pod)),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: Some(namespaces(&config.namespaces)) }),
        }),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        runtime_handler: config.handler.clone(),
    }
}

pub(super) fn metadata(metadata: &PodMetadata) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
    }
}

/// Converts the state to the CRI's; a pod that is being made is not ready.
pub(in crate::cri) fn state(state: PodState) -> PodSandboxState {
    match state {
        PodState::Ready => PodSandboxState::SandboxReady,
        PodState::Starting | PodState::NotReady => PodSandboxState::SandboxNotready,
    }
}

/// Empty for a pod on the host's network: kubelet fills in the node's addresses.
fn network(pod: &Pod) -> v1::PodSandboxNetworkStatus {
    let mut ips = pod.ips().iter().map(ToString::to_string);
    v1::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
    }
}

fn namespaces(namespaces: &Namespaces) -> v1::NamespaceOption {
    let host = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    let (pid, target_id) = match &namespaces.pid {
        PidMode::Pod => (NamespaceMode::Pod, String::new()),
        PidMode::Container => (NamespaceMode::Container, String::new()),
        PidMode::Node => (NamespaceMode::Node, String::new()),
        PidMode::Target(id) => (NamespaceMode::Target, id.clone()),
    };
    v1::NamespaceOption {
        network: host(namespaces.host_network).into(),
        pid: pid.into(),
        ipc: host(namespaces.host_ipc).into(),
        target_id,
        userns_options: namespaces.users.map(users),
    }
}

fn users(users: Users) -> v1::UserNamespace {
    v1::UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: vec![mapping(users.uids)],
        gids: vec![mapping(users.gids)],
    }
}

/// Converts a range of ids that begins at 0 in the container.
pub(super) fn mapping(range: IdRange) -> v1::IdMapping {
    v1::IdMapping { host_id: range.host(), container_id: 0, length: range.length() }
}
