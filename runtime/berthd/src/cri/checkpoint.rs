//! Checkpoints of containers and pods. None can be made or restored yet: requests are validated in full, then refused
//! for the lack of CRIU. No file is touched.

use berth_cri::v1::{
    CheckpointContainerRequest, CheckpointContainerResponse, CheckpointPodRequest, CheckpointPodResponse,
    RestorePodRequest, RestorePodResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::answer, request};
use crate::{
    container::must_run,
    error::{Error, Kind, Result},
};

pub(super) async fn checkpoint_container(
    cri: &Cri,
    request: Request<CheckpointContainerRequest>,
) -> Result<Response<CheckpointContainerResponse>, Status> {
    answer("CheckpointContainer", request, async |request| {
        let id = request::checkpoint_container(request)?;
        must_run(&*cri.runtime.containers.get(&id)?)?;
        Err(no_criu())
    })
    .await
}

pub(super) async fn checkpoint_pod(
    cri: &Cri,
    request: Request<CheckpointPodRequest>,
) -> Result<Response<CheckpointPodResponse>, Status> {
    answer("CheckpointPod", request, async |request| {
        let (id, containers) = request::checkpoint_pod(request)?;
        let pod = cri.runtime.pods.get(&id)?;
        for id in containers {
            let container = cri.runtime.containers.get(&id)?;
            if container.pod_id != pod.id {
                let text = format!("container {id:?} is not of pod {}", pod.id);
                return Err(Error::new(Kind::InvalidArgument, text));
            }
            must_run(&container)?;
        }
        Err(no_criu())
    })
    .await
}

pub(super) async fn restore_pod(
    cri: &Cri,
    request: Request<RestorePodRequest>,
) -> Result<Response<RestorePodResponse>, Status> {
    answer("RestorePod", request, async |request| {
        cri.runtime.pods.check_handler(&request::restore_pod(request)?.handler)?;
        Err(no_criu())
    })
    .await
}

fn no_criu() -> Error {
    let text = "checkpoints are made and restored with CRIU, which this build of Berth has no support for";
    Error::new(Kind::FailedPrecondition, text)
}
