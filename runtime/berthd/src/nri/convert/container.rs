//! Containers: identity and state, and the content of their OCI spec.

use std::fs;

use berth_nri::nri::{self, CDIDevice, ContainerState as NriState, Image};
use oci_spec::runtime::Spec;

use super::{hooks, linux, process};
use crate::{
    cdi::DeviceName,
    container::{Container, ContainerState},
    runtime::Shared,
};

/// Converts a container with the OCI spec `spec`. Its state is unknown as long as its first process has no pid.
pub(in crate::nri) fn container(container: &Container, spec: &Spec) -> nri::Container {
    let config = &container.config;
    let mut seen = nri::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.pod_id.clone(),
        name: config.metadata.name.clone(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: annotations(container, spec),
        mounts: spec.mounts().iter().flatten().map(mount).collect(),
        hooks: spec.hooks().as_ref().map(hooks::hooks).into(),
        linux: Some(linux::linux(container, spec)).into(),
        CDI_devices: config.cdi_devices.iter().map(cdi_device).collect(),
        image: Some(image(container)).into(),
        created_at: container.created_at,
        started_at: container.state.started_at(),
        pid: container.state.pid().unwrap_or_default(),
        ..Default::default()
    };
    process::fill(&mut seen, spec);
    set_state(&mut seen, &container.state);
    seen
}

/// Converts a container whose OCI spec is in its bundle; an unreadable one counts as empty.
pub(in crate::nri) fn stored_container(shared: &Shared, one: &Container) -> nri::Container {
    let path = shared.layout.bundle(&one.id).join("config.json");
    let spec = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let mut seen = container(one, &spec.unwrap_or_else(empty));
    // Limits may have changed since the spec was written.
    linux::overlay_limits(&mut seen, &one.config.resources, &shared.host);
    seen
}

/// An empty spec. `Spec::default()` is not empty.
fn empty() -> Spec {
    let mut spec = Spec::default();
    spec.set_process(None).set_mounts(None).set_linux(None).set_root(None).set_annotations(None);
    spec
}

/// Returns the annotations of the caller, and those that were added to the spec.
fn annotations(container: &Container, spec: &Spec) -> std::collections::HashMap<String, String> {
    let asked = container.config.annotations.clone().into_iter();
    asked.chain(spec.annotations().clone().unwrap_or_default()).collect()
}

fn mount(mount: &oci_spec::runtime::Mount) -> nri::Mount {
    nri::Mount {
        destination: mount.destination().display().to_string(),
        type_: mount.typ().clone().unwrap_or_default(),
        source: mount.source().as_ref().map(|source| source.display().to_string()).unwrap_or_default(),
        options: mount.options().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn cdi_device(name: &DeviceName) -> CDIDevice {
    CDIDevice { name: name.to_string(), ..Default::default() }
}

fn image(container: &Container) -> Image {
    let digest = container.image_ref.split_once('@').map(|(_, digest)| digest.to_owned());
    Image {
        name: container.config.image.clone(),
        digest: digest.unwrap_or_default(),
        config_digest: container.image_id.clone(),
        ..Default::default()
    }
}

fn set_state(seen: &mut nri::Container, state: &ContainerState) {
    let known = match state {
        ContainerState::Created { pid: 0 } => NriState::CONTAINER_UNKNOWN,
        ContainerState::Created { .. } => NriState::CONTAINER_CREATED,
        ContainerState::Running { .. } => NriState::CONTAINER_RUNNING,
        ContainerState::Exited { finished_at, code, reason, message, .. } => {
            seen.finished_at = *finished_at;
            seen.exit_code = *code;
            seen.status_reason.clone_from(reason);
            seen.status_message.clone_from(message);
            NriState::CONTAINER_STOPPED
        }
    };
    seen.state = known.into();
}
