//! GetContainerEvents: events of pods and containers as they happen.

use berth_cri::v1::{ContainerEventResponse, ContainerEventType, GetEventsRequest};
use futures::stream::{self, StreamExt};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{Cri, call::answer_stream, reply};
use crate::events::{Event, EventKind, Listener};

/// The stream carries every event after the response headers were sent.
pub(super) async fn get_container_events(
    cri: &Cri,
    request: Request<GetEventsRequest>,
) -> Result<Response<BoxStream<ContainerEventResponse>>, Status> {
    answer_stream("GetContainerEvents", request, async |_| {
        let next = async |mut listener: Listener| Some((listener.next().await, listener));
        let events = stream::unfold(cri.runtime.events.listen()?, next);
        let cri = cri.clone();
        Ok(events.map(move |event| Ok(cri.event(&*event?))))
    })
    .await
}

impl Cri {
    fn event(&self, event: &Event) -> ContainerEventResponse {
        let what = match event.kind {
            EventKind::Created => ContainerEventType::ContainerCreatedEvent,
            EventKind::Started => ContainerEventType::ContainerStartedEvent,
            EventKind::Stopped => ContainerEventType::ContainerStoppedEvent,
            EventKind::Deleted => ContainerEventType::ContainerDeletedEvent,
        };
        ContainerEventResponse {
            container_id: event.id.clone(),
            container_event_type: what.into(),
            created_at: event.at,
            pod_sandbox_status: event.pod.as_ref().map(|pod| reply::pod_sandbox_status(pod)),
            containers_statuses: self.statuses(&event.containers),
        }
    }
}
