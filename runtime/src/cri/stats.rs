//! What containers and pods use, as numbers.

use berth_cri::v1::{
    ContainerStatsRequest, ContainerStatsResponse, ListContainerStatsRequest, ListContainerStatsResponse,
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxStatsRequest, PodSandboxStatsResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::not_built};

pub(super) async fn container_stats(
    _: &Cri,
    _: Request<ContainerStatsRequest>,
) -> Result<Response<ContainerStatsResponse>, Status> {
    not_built("ContainerStats")
}

pub(super) async fn list_container_stats(
    _: &Cri,
    _: Request<ListContainerStatsRequest>,
) -> Result<Response<ListContainerStatsResponse>, Status> {
    not_built("ListContainerStats")
}

pub(super) async fn pod_sandbox_stats(
    _: &Cri,
    _: Request<PodSandboxStatsRequest>,
) -> Result<Response<PodSandboxStatsResponse>, Status> {
    not_built("PodSandboxStats")
}

pub(super) async fn list_pod_sandbox_stats(
    _: &Cri,
    _: Request<ListPodSandboxStatsRequest>,
) -> Result<Response<ListPodSandboxStatsResponse>, Status> {
    not_built("ListPodSandboxStats")
}
