//! Statistics of containers and pods.

use berth_cri::v1::{
    ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ContainerStatsResponse,
    ListContainerStatsRequest, ListContainerStatsResponse, ListPodSandboxStatsRequest,
    ListPodSandboxStatsResponse, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatsRequest,
    PodSandboxStatsResponse,
};
use tonic::{Request, Response, Status};

use super::{
    Cri,
    call::answer,
    filter::{ContainerFilter, PodFilter},
    list::in_one_message,
    reply, request,
};
use crate::{error::Result, pod::PodState};

pub(super) async fn container_stats(
    cri: &Cri,
    request: Request<ContainerStatsRequest>,
) -> Result<Response<ContainerStatsResponse>, Status> {
    answer("ContainerStats", request, async |request| {
        let id = request::id("container_id", request.container_id)?;
        let stats = cri.runtime.stats.container(cri.runtime.containers.get(&id)?).await?;
        Ok(ContainerStatsResponse { stats: Some(reply::container_stats(&stats, &cri.container_fs())) })
    })
    .await
}

pub(super) async fn list_container_stats(
    cri: &Cri,
    request: Request<ListContainerStatsRequest>,
) -> Result<Response<ListContainerStatsResponse>, Status> {
    answer("ListContainerStats", request, async |request| {
        let stats = of_containers(cri, request.filter).await?;
        in_one_message(ListContainerStatsResponse { stats }, "StreamContainerStats")
    })
    .await
}

pub(super) async fn pod_sandbox_stats(
    cri: &Cri,
    request: Request<PodSandboxStatsRequest>,
) -> Result<Response<PodSandboxStatsResponse>, Status> {
    answer("PodSandboxStats", request, async |request| {
        let id = request::id("pod_sandbox_id", request.pod_sandbox_id)?;
        let stats = cri.runtime.stats.pod(cri.runtime.pods.get(&id)?).await?;
        Ok(PodSandboxStatsResponse { stats: Some(reply::pod_stats(&stats, &cri.container_fs())) })
    })
    .await
}

pub(super) async fn list_pod_sandbox_stats(
    cri: &Cri,
    request: Request<ListPodSandboxStatsRequest>,
) -> Result<Response<ListPodSandboxStatsResponse>, Status> {
    answer("ListPodSandboxStats", request, async |request| {
        let stats = of_pods(cri, request.filter).await?;
        in_one_message(ListPodSandboxStatsResponse { stats }, "StreamPodSandboxStats")
    })
    .await
}

/// Returns the statistics of the matching containers that have not ended, the newest first.
pub(super) async fn of_containers(
    cri: &Cri,
    filter: Option<ContainerStatsFilter>,
) -> Result<Vec<ContainerStats>> {
    let filter = ContainerFilter::of_stats(filter);
    let mut containers = cri.runtime.containers.list();
    containers.retain(|container| filter.wants(container));
    let all = cri.runtime.stats.containers(containers).await?;
    let mountpoint = cri.container_fs();
    Ok(all.iter().map(|stats| reply::container_stats(stats, &mountpoint)).collect())
}

/// Returns the statistics of the matching pods that are ready, the newest first.
pub(super) async fn of_pods(
    cri: &Cri,
    filter: Option<PodSandboxStatsFilter>,
) -> Result<Vec<PodSandboxStats>> {
    let filter = PodFilter::of_stats(filter);
    let mut pods = cri.runtime.pods.list();
    pods.retain(|pod| pod.state == PodState::Ready && filter.wants(pod));
    let all = cri.runtime.stats.pods(pods).await?;
    let mountpoint = cri.container_fs();
    Ok(all.iter().map(|stats| reply::pod_stats(stats, &mountpoint)).collect())
}

impl Cri {
    /// Returns the name of the file system of writable layers. When it is the image store's file system, it gets that
    /// one's name, because kubelet takes two names for two file systems.
    pub(super) fn container_fs(&self) -> String {
        let (images, writable_layers) =
            (self.daemon.config.image_root(), self.runtime.stats.writable_layers_directory());
        let device = |path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
        let shared = device(&images) == device(&writable_layers);
        if shared { images } else { writable_layers }.display().to_string()
    }
}
