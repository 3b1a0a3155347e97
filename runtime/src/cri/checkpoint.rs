//! Checkpoints of containers and pods.

use berth_cri::v1::{
    CheckpointContainerRequest, CheckpointContainerResponse, CheckpointPodRequest, CheckpointPodResponse,
    RestorePodRequest, RestorePodResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::not_built};

pub(super) async fn checkpoint_container(
    _: &Cri,
    _: Request<CheckpointContainerRequest>,
) -> Result<Response<CheckpointContainerResponse>, Status> {
    not_built("CheckpointContainer")
}

pub(super) async fn checkpoint_pod(
    _: &Cri,
    _: Request<CheckpointPodRequest>,
) -> Result<Response<CheckpointPodResponse>, Status> {
    not_built("CheckpointPod")
}

pub(super) async fn restore_pod(
    _: &Cri,
    _: Request<RestorePodRequest>,
) -> Result<Response<RestorePodResponse>, Status> {
    not_built("RestorePod")
}
