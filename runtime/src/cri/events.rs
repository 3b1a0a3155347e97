//! What happens to containers, told as it happens.

use berth_cri::v1::{ContainerEventResponse, GetEventsRequest};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{Cri, call::not_built};

pub(super) async fn get_container_events(
    _: &Cri,
    _: Request<GetEventsRequest>,
) -> Result<Response<BoxStream<ContainerEventResponse>>, Status> {
    not_built("GetContainerEvents")
}
