//! The subject of a call in the log: ids and names, never a secret.

use berth_cri::v1::*;

/// A request or an answer that the log can name.
pub(super) trait LogSubject {
    /// Whether a successful call is logged at the usual level (info).
    const AT_INFO: bool = false;

    /// Identifies the object of the call; may be empty.
    fn log_subject(&self) -> String {
        String::new()
    }
}

/// Requests and answers that are logged at info level, each with the field that names the object.
macro_rules! info_level {
    ($($message:ident . $field:ident),+ $(,)?) => {
        $(impl LogSubject for $message {
            const AT_INFO: bool = true;

            fn log_subject(&self) -> String {
                self.$field.clone()
            }
        })+
    };
}

info_level! {
    StopPodSandboxRequest.pod_sandbox_id,
    RemovePodSandboxRequest.pod_sandbox_id,
    StartContainerRequest.container_id,
    StopContainerRequest.container_id,
    RemoveContainerRequest.container_id,
    ReopenContainerLogRequest.container_id,
    UpdateContainerResourcesRequest.container_id,
    ExecRequest.container_id,
    AttachRequest.container_id,
    PortForwardRequest.pod_sandbox_id,
    RunPodSandboxResponse.pod_sandbox_id,
    CreateContainerResponse.container_id,
    PullImageResponse.image_ref,
    UpdatePodSandboxResourcesRequest.pod_sandbox_id,
    CheckpointContainerRequest.container_id,
    CheckpointPodRequest.pod_sandbox_id,
    RestorePodRequest.checkpoint_path,
    RestorePodResponse.pod_sandbox_id,
}

/// Frequent read-only requests, and answers, logged at debug level; with the field that names the object.
macro_rules! debug_level {
    ($($message:ident $(. $field:ident)?),+ $(,)?) => {
        $(impl LogSubject for $message {
            $(fn log_subject(&self) -> String {
                self.$field.clone()
            })?
        })+
    };
}

debug_level! {
    PodSandboxStatusRequest.pod_sandbox_id,
    ContainerStatusRequest.container_id,
    ExecSyncRequest.container_id,
    VersionRequest,
    VersionResponse,
    StatusRequest,
    StatusResponse,
    RuntimeConfigRequest,
    RuntimeConfigResponse,
    ListPodSandboxRequest,
    ListPodSandboxResponse,
    ListContainersRequest,
    ListContainersResponse,
    StreamPodSandboxesRequest,
    StreamContainersRequest,
    StreamImagesRequest,
    StreamContainerStatsRequest,
    StreamPodSandboxStatsRequest,
    StreamPodSandboxMetricsRequest,
    GetEventsRequest,
    ListImagesRequest,
    ListImagesResponse,
    ImageFsInfoRequest,
    ImageFsInfoResponse,
    ContainerStatsRequest.container_id,
    ContainerStatsResponse,
    ListContainerStatsRequest,
    ListContainerStatsResponse,
    PodSandboxStatsRequest.pod_sandbox_id,
    PodSandboxStatsResponse,
    ListPodSandboxStatsRequest,
    ListPodSandboxStatsResponse,
    ListMetricDescriptorsRequest,
    ListMetricDescriptorsResponse,
    ListPodSandboxMetricsRequest,
    ListPodSandboxMetricsResponse,
    PodSandboxStatusResponse,
    ContainerStatusResponse,
    ImageStatusResponse,
    ExecSyncResponse,
    StopPodSandboxResponse,
    RemovePodSandboxResponse,
    StartContainerResponse,
    StopContainerResponse,
    RemoveContainerResponse,
    ReopenContainerLogResponse,
    UpdateContainerResourcesResponse,
    RemoveImageResponse,
    ExecResponse,
    AttachResponse,
    PortForwardResponse,
    UpdateRuntimeConfigResponse,
    UpdatePodSandboxResourcesResponse,
    CheckpointContainerResponse,
    CheckpointPodResponse,
}

impl LogSubject for RunPodSandboxRequest {
    const AT_INFO: bool = true;

    fn log_subject(&self) -> String {
        let metadata = self.config.as_ref().and_then(|config| config.metadata.as_ref());
        metadata.map_or_else(String::new, |m| format!("{}/{} attempt {}", m.namespace, m.name, m.attempt))
    }
}

impl LogSubject for CreateContainerRequest {
    const AT_INFO: bool = true;

    fn log_subject(&self) -> String {
        let metadata = self.config.as_ref().and_then(|config| config.metadata.as_ref());
        let name = metadata.map_or_else(String::new, |m| format!("{} attempt {}", m.name, m.attempt));
        format!("{name} in {}", self.pod_sandbox_id)
    }
}

impl LogSubject for UpdateRuntimeConfigRequest {
    const AT_INFO: bool = true;

    fn log_subject(&self) -> String {
        let network = self.runtime_config.as_ref().and_then(|config| config.network_config.as_ref());
        network.map(|network| network.pod_cidr.clone()).unwrap_or_default()
    }
}

impl LogSubject for PullImageRequest {
    const AT_INFO: bool = true;

    fn log_subject(&self) -> String {
        named(self.image.as_ref())
    }
}

impl LogSubject for RemoveImageRequest {
    const AT_INFO: bool = true;

    fn log_subject(&self) -> String {
        named(self.image.as_ref())
    }
}

impl LogSubject for ImageStatusRequest {
    fn log_subject(&self) -> String {
        named(self.image.as_ref())
    }
}

fn named(image: Option<&ImageSpec>) -> String {
    image.map(|image| image.image.clone()).unwrap_or_default()
}
