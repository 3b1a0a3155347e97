//! What containers and pods use, as metrics with names and labels.

use berth_cri::v1::{
    ListMetricDescriptorsRequest, ListMetricDescriptorsResponse, ListPodSandboxMetricsRequest,
    ListPodSandboxMetricsResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::not_built};

pub(super) async fn list_metric_descriptors(
    _: &Cri,
    _: Request<ListMetricDescriptorsRequest>,
) -> Result<Response<ListMetricDescriptorsResponse>, Status> {
    not_built("ListMetricDescriptors")
}

pub(super) async fn list_pod_sandbox_metrics(
    _: &Cri,
    _: Request<ListPodSandboxMetricsRequest>,
) -> Result<Response<ListPodSandboxMetricsResponse>, Status> {
    not_built("ListPodSandboxMetrics")
}
