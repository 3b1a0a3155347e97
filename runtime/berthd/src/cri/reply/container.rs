//! Containers.

use std::path::Path;

use berth_cri::v1::{self, MountPropagation};
use berth_image::Image;

use super::resources::resources;
use crate::{
    container::{
        Container, ContainerState,
        config::{ContainerConfig, ContainerMetadata, ImageMount, Mount, Propagation},
    },
    spec::{ResolvedUser, Signal},
};

/// A container in a list.
pub(crate) fn container(container: &Container) -> v1::Container {
    let config = &container.config;
    v1::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.pod_id.clone(),
        metadata: Some(metadata(&config.metadata)),
        image: Some(shown_image(config, None)),
        image_ref: container.image_id.clone(),
        state: state(&container.state).into(),
        created_at: container.created_at,
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        image_id: container.image_id.clone(),
    }
}

/// Log path of a container without a log, in its bundle. With an empty path kubelet would expand `*` in its own working
/// directory as the container's logs, and remove them.
const NO_LOG_NAME: &str = "no-log";

/// Returns the full status of a container. `image` is `None` when the image was removed.
pub(crate) fn container_status(
    container: &Container,
    image: Option<&Image>,
    bundle: &Path,
) -> v1::ContainerStatus {
    let config = &container.config;
    let end = End::of(&container.state);
    v1::ContainerStatus {
        id: container.id.clone(),
        metadata: Some(metadata(&config.metadata)),
        state: state(&container.state).into(),
        created_at: container.created_at,
        started_at: container.state.started_at(),
        finished_at: end.finished_at,
        exit_code: end.code,
        image: Some(shown_image(config, image)),
        image_ref: container.image_ref.clone(),
        reason: end.reason.to_owned(),
        message: end.message.to_owned(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        mounts: config.mounts.iter().map(mount).chain(config.image_mounts.iter().map(image_mount)).collect(),
        log_path: container
            .log_path
            .clone()
            .unwrap_or_else(|| bundle.join(NO_LOG_NAME))
            .display()
            .to_string(),
        resources: Some(v1::ContainerResources { linux: Some(resources(&config.resources)), windows: None }),
        image_id: container.image_id.clone(),
        user: Some(v1::ContainerUser { linux: Some(user(&container.user)) }),
        stop_signal: signal(container.stop_signal).into(),
    }
}

/// The fields of an ended container; zero or empty for the others.
#[derive(Default)]
struct End<'a> {
    finished_at: i64,
    code: i32,
    reason: &'a str,
    message: &'a str,
}

impl<'a> End<'a> {
    fn of(state: &'a ContainerState) -> Self {
        match state {
            ContainerState::Created { .. } | ContainerState::Running { .. } => Self::default(),
            ContainerState::Exited { finished_at, code, reason, message, .. } => {
                Self { finished_at: *finished_at, code: *code, reason, message }
            }
        }
    }
}

pub(super) fn metadata(metadata: &ContainerMetadata) -> v1::ContainerMetadata {
    v1::ContainerMetadata { name: metadata.name.clone(), attempt: metadata.attempt }
}

/// Returns a tag or digest of the image if it has one, rather than the id that kubelet asked with.
fn shown_image(config: &ContainerConfig, image: Option<&Image>) -> v1::ImageSpec {
    let named = image.and_then(|image| image.tags.first().or(image.digests.first()));
    v1::ImageSpec {
        image: named.unwrap_or(&config.image).clone(),
        user_specified_image: config.user_specified_image.clone(),
        ..Default::default()
    }
}

/// Converts the state to the CRI's.
pub(in crate::cri) fn state(state: &ContainerState) -> v1::ContainerState {
    match state {
        ContainerState::Created { .. } => v1::ContainerState::ContainerCreated,
        ContainerState::Running { .. } => v1::ContainerState::ContainerRunning,
        ContainerState::Exited { .. } => v1::ContainerState::ContainerExited,
    }
}

fn mount(mount: &Mount) -> v1::Mount {
    let options = [(mount.noexec, "noexec"), (mount.nodev, "nodev"), (mount.nosuid, "nosuid")];
    let mappings = |range| vec![super::pod::mapping(range)];
    v1::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_readonly,
        propagation: propagation(mount.propagation).into(),
        mount_options: options.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()).collect(),
        uid_mappings: mount.owners.map(|owners| mappings(owners.uids)).unwrap_or_default(),
        gid_mappings: mount.owners.map(|owners| mappings(owners.gids)).unwrap_or_default(),
        ..Default::default()
    }
}

fn image_mount(mount: &ImageMount) -> v1::Mount {
    let image = v1::ImageSpec {
        image: mount.image.clone(),
        user_specified_image: mount.user_specified_image.clone(),
        image_ref: mount.image_id.clone(),
        ..Default::default()
    };
    v1::Mount {
        container_path: mount.container_path.clone(),
        readonly: true,
        image: Some(image),
        image_sub_path: mount.sub_path.clone(),
        mount_options: mount.noexec.then(|| "noexec".to_owned()).into_iter().collect(),
        ..Default::default()
    }
}

fn propagation(propagation: Propagation) -> MountPropagation {
    match propagation {
        Propagation::Private => MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => MountPropagation::PropagationBidirectional,
    }
}

fn user(user: &ResolvedUser) -> v1::LinuxContainerUser {
    v1::LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.additional_gids.iter().map(|gid| i64::from(*gid)).collect(),
    }
}

/// Returns the first of the CRI's names for a signal number.
pub(super) fn signal(number: i32) -> v1::Signal {
    let named = |name: &str| name.strip_prefix("SIGNAL_")?.parse::<Signal>().ok();
    let mut signals = (1..).map_while(|value| v1::Signal::try_from(value).ok());
    signals
        .find(|signal| named(signal.as_str_name()).is_some_and(|named| named.number() == number))
        .unwrap_or(v1::Signal::RuntimeDefault)
}
