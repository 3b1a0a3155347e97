//! Lists that are answered in parts, for those that would not fit one message.

use berth_cri::v1::{
    StreamContainerStatsRequest, StreamContainerStatsResponse, StreamContainersRequest,
    StreamContainersResponse, StreamImagesRequest, StreamImagesResponse, StreamPodSandboxMetricsRequest,
    StreamPodSandboxMetricsResponse, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse,
    StreamPodSandboxesRequest, StreamPodSandboxesResponse,
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{Cri, call::not_built};

pub(super) async fn stream_pod_sandboxes(
    _: &Cri,
    _: Request<StreamPodSandboxesRequest>,
) -> Result<Response<BoxStream<StreamPodSandboxesResponse>>, Status> {
    not_built("StreamPodSandboxes")
}

pub(super) async fn stream_containers(
    _: &Cri,
    _: Request<StreamContainersRequest>,
) -> Result<Response<BoxStream<StreamContainersResponse>>, Status> {
    not_built("StreamContainers")
}

pub(super) async fn stream_container_stats(
    _: &Cri,
    _: Request<StreamContainerStatsRequest>,
) -> Result<Response<BoxStream<StreamContainerStatsResponse>>, Status> {
    not_built("StreamContainerStats")
}

pub(super) async fn stream_pod_sandbox_stats(
    _: &Cri,
    _: Request<StreamPodSandboxStatsRequest>,
) -> Result<Response<BoxStream<StreamPodSandboxStatsResponse>>, Status> {
    not_built("StreamPodSandboxStats")
}

pub(super) async fn stream_pod_sandbox_metrics(
    _: &Cri,
    _: Request<StreamPodSandboxMetricsRequest>,
) -> Result<Response<BoxStream<StreamPodSandboxMetricsResponse>>, Status> {
    not_built("StreamPodSandboxMetrics")
}

pub(super) async fn stream_images(
    _: &Cri,
    _: Request<StreamImagesRequest>,
) -> Result<Response<BoxStream<StreamImagesResponse>>, Status> {
    not_built("StreamImages")
}
