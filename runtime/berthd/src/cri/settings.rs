//! Settings of the node and of pods that kubelet sends.

use berth_cri::v1::{
    UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::complete, request};
use crate::error::of_network;

/// Succeeds without effect when no address ranges are sent.
pub(super) async fn update_runtime_config(
    cri: &Cri,
    request: Request<UpdateRuntimeConfigRequest>,
) -> Result<Response<UpdateRuntimeConfigResponse>, Status> {
    let network = cri.runtime.network.clone();
    complete("UpdateRuntimeConfig", request, async move |request| {
        let ranges = request::pod_ranges(request)?;
        if !ranges.is_empty() {
            let used = network.use_ranges(&ranges).await;
            used.map_err(|error| of_network("make the network's configuration", error))?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    })
    .await
}

/// Kubelet has already changed the pod's cgroup; the values are only recorded, and plugins are notified.
pub(super) async fn update_pod_sandbox_resources(
    cri: &Cri,
    request: Request<UpdatePodSandboxResourcesRequest>,
) -> Result<Response<UpdatePodSandboxResourcesResponse>, Status> {
    let pods = cri.runtime.pods.clone();
    complete("UpdatePodSandboxResources", request, async move |request| {
        let (id, overhead, resources) = request::pod_resources(request)?;
        pods.update(&id, overhead, resources).await?;
        Ok(UpdatePodSandboxResourcesResponse {})
    })
    .await
}
