//! What the kubelet tells the runtime of the node and of its pods.

use berth_cri::v1::{
    UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::not_built};

pub(super) async fn update_runtime_config(
    _: &Cri,
    _: Request<UpdateRuntimeConfigRequest>,
) -> Result<Response<UpdateRuntimeConfigResponse>, Status> {
    not_built("UpdateRuntimeConfig")
}

pub(super) async fn update_pod_sandbox_resources(
    _: &Cri,
    _: Request<UpdatePodSandboxResourcesRequest>,
) -> Result<Response<UpdatePodSandboxResourcesResponse>, Status> {
    not_built("UpdatePodSandboxResources")
}
