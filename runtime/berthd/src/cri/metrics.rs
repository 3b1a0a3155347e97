//! Metrics of containers and pods, under cAdvisor's names, which dashboards know.

mod container;
mod family;
mod interface;
#[cfg(test)]
mod tests;

use berth_cri::v1::{
    ContainerMetrics, ListMetricDescriptorsRequest, ListMetricDescriptorsResponse,
    ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse, PodSandboxMetrics,
};
use tonic::{Request, Response, Status};

use self::{container::Measurements, family::Family};
use super::{Cri, call::answer, list::in_one_message};
use crate::{
    clock,
    error::Result,
    pod::Pod,
    stats::{ContainerDetails, FileSystem, PodDetails},
};

pub(super) async fn list_metric_descriptors(
    _: &Cri,
    request: Request<ListMetricDescriptorsRequest>,
) -> Result<Response<ListMetricDescriptorsResponse>, Status> {
    answer("ListMetricDescriptors", request, async |_| {
        let containers = container::FAMILIES.iter().map(Family::descriptor);
        let interfaces = interface::FAMILIES.iter().map(Family::descriptor);
        Ok(ListMetricDescriptorsResponse { descriptors: containers.chain(interfaces).collect() })
    })
    .await
}

pub(super) async fn list_pod_sandbox_metrics(
    cri: &Cri,
    request: Request<ListPodSandboxMetricsRequest>,
) -> Result<Response<ListPodSandboxMetricsResponse>, Status> {
    answer("ListPodSandboxMetrics", request, async |_| {
        let pod_metrics = of_pods(cri).await?;
        in_one_message(ListPodSandboxMetricsResponse { pod_metrics }, "StreamPodSandboxMetrics")
    })
    .await
}

/// Returns the metrics of all ready pods, with their containers that have not ended.
pub(super) async fn of_pods(cri: &Cri) -> Result<Vec<PodSandboxMetrics>> {
    let file_system = cri.runtime.stats.file_system().await?;
    let pods = cri.runtime.stats.details().await?;
    Ok(pods.iter().map(|pod| of_pod(pod, &file_system)).collect())
}

/// Returns the metrics of one pod: interfaces belong to the pod, everything else to its containers.
fn of_pod(details: &PodDetails, file_system: &FileSystem) -> PodSandboxMetrics {
    let pod = &details.pod;
    let labels = labels(pod, &pod.id, "", "");
    let interfaces = details.interfaces.iter();
    let metrics =
        interfaces.flat_map(|one| interface::FAMILIES.iter().flat_map(|family| family.metrics(&labels, one)));
    PodSandboxMetrics {
        pod_sandbox_id: pod.id.clone(),
        metrics: metrics.collect(),
        container_metrics: details.containers.iter().map(|one| of_container(pod, one, file_system)).collect(),
    }
}

fn of_container(pod: &Pod, details: &ContainerDetails, file_system: &FileSystem) -> ContainerMetrics {
    let container = &details.stats.container;
    let config = &container.config;
    let image = Some(&config.user_specified_image).filter(|name| !name.is_empty()).unwrap_or(&config.image);
    let labels = labels(pod, &container.id, &config.metadata.name, image);
    let seen = Measurements { details, file_system, at: clock::now() };
    ContainerMetrics {
        container_id: container.id.clone(),
        metrics: container::FAMILIES.iter().flat_map(|family| family.metrics(&labels, &seen)).collect(),
    }
}

/// Returns the values of [`family::LABELS`].
fn labels(pod: &Pod, id: &str, container: &str, image: &str) -> [String; family::LABELS.len()] {
    let metadata = &pod.config.metadata;
    [id, image, &metadata.namespace, &metadata.name, container].map(str::to_owned)
}
