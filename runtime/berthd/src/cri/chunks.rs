//! Lists that are answered as a stream of parts, for lists that would not fit into one message. A part is made when the
//! client takes it: a client that stops reading holds the snapshots of the start and nothing else.

use std::iter;

use berth_cri::v1::{
    StreamContainerStatsRequest, StreamContainerStatsResponse, StreamContainersRequest,
    StreamContainersResponse, StreamImagesRequest, StreamImagesResponse, StreamPodSandboxMetricsRequest,
    StreamPodSandboxMetricsResponse, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse,
    StreamPodSandboxesRequest, StreamPodSandboxesResponse,
};
use futures::stream::{self, Stream};
use prost::Message;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{Cri, call::answer_stream, metrics, stats};
use crate::error::Result;

/// Encoded size of the items, in bytes, from which on a part is full. A single item may be longer.
const MIN_PART_BYTES: usize = 1 << 20;

pub(super) async fn stream_pod_sandboxes(
    cri: &Cri,
    request: Request<StreamPodSandboxesRequest>,
) -> Result<Response<BoxStream<StreamPodSandboxesResponse>>, Status> {
    answer_stream("StreamPodSandboxes", request, async |request| {
        Ok(parts(cri.pods(request.filter)?, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
    })
    .await
}

pub(super) async fn stream_containers(
    cri: &Cri,
    request: Request<StreamContainersRequest>,
) -> Result<Response<BoxStream<StreamContainersResponse>>, Status> {
    answer_stream("StreamContainers", request, async |request| {
        Ok(parts(cri.containers(request.filter)?, |containers| StreamContainersResponse { containers }))
    })
    .await
}

pub(super) async fn stream_images(
    cri: &Cri,
    request: Request<StreamImagesRequest>,
) -> Result<Response<BoxStream<StreamImagesResponse>>, Status> {
    answer_stream("StreamImages", request, async |request| {
        Ok(parts(cri.images(request.filter), |images| StreamImagesResponse { images }))
    })
    .await
}

pub(super) async fn stream_container_stats(
    cri: &Cri,
    request: Request<StreamContainerStatsRequest>,
) -> Result<Response<BoxStream<StreamContainerStatsResponse>>, Status> {
    answer_stream("StreamContainerStats", request, async |request| {
        let all = stats::of_containers(cri, request.filter).await?;
        Ok(parts(all.into_iter(), |container_stats| StreamContainerStatsResponse { container_stats }))
    })
    .await
}

pub(super) async fn stream_pod_sandbox_stats(
    cri: &Cri,
    request: Request<StreamPodSandboxStatsRequest>,
) -> Result<Response<BoxStream<StreamPodSandboxStatsResponse>>, Status> {
    answer_stream("StreamPodSandboxStats", request, async |request| {
        let all = stats::of_pods(cri, request.filter).await?;
        Ok(parts(all.into_iter(), |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    })
    .await
}

pub(super) async fn stream_pod_sandbox_metrics(
    cri: &Cri,
    request: Request<StreamPodSandboxMetricsRequest>,
) -> Result<Response<BoxStream<StreamPodSandboxMetricsResponse>>, Status> {
    answer_stream("StreamPodSandboxMetrics", request, async |_| {
        let all = metrics::of_pods(cri).await?;
        Ok(parts(all.into_iter(), |pod_sandbox_metrics| StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        }))
    })
    .await
}

/// Returns messages that hold each of `items` once and in order, at least one item each; none when there are no items.
fn parts<T: Message, M>(
    mut items: impl Iterator<Item = T>,
    message: impl Fn(Vec<T>) -> M,
) -> impl Stream<Item = Result<M>> {
    let next = move || {
        let mut size = 0;
        let mut part = Vec::new();
        while size < MIN_PART_BYTES
            && let Some(item) = items.next()
        {
            size += item.encoded_len();
            part.push(item);
        }
        (!part.is_empty()).then(|| Ok(message(part)))
    };
    stream::iter(iter::from_fn(next))
}

#[cfg(test)]
mod tests;
