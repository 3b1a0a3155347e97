//! The runtime service.

use berth_cri::v1::{runtime_service_server::RuntimeService, *};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    Cri,
    call::{answer, complete},
    checkpoint, chunks, events, info,
    list::in_one_message,
    metrics, reply, request, settings, stats, streaming,
};
use crate::clock;

#[tonic::async_trait]
impl RuntimeService for Cri {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        answer("Version", request, async |_| Ok(reply::version())).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        answer("Status", request, async |request| {
            let network = self.runtime.network.ready().err();
            let disturbance = self.runtime.network.disturbance();
            let verbose = || {
                let (network, pending) = (self.runtime.network.describe(), self.runtime.pods.not_recovered());
                info::daemon(&self.daemon.config, &network, &pending)
            };
            Ok(StatusResponse {
                status: Some(reply::runtime_status(network, disturbance)),
                info: if request.verbose { verbose() } else { Default::default() },
                runtime_handlers: reply::handlers(self.runtime.handlers.list()),
                features: Some(reply::features(self.daemon.host)),
            })
        })
        .await
    }

    async fn runtime_config(
        &self,
        request: Request<RuntimeConfigRequest>,
    ) -> Result<Response<RuntimeConfigResponse>, Status> {
        answer("RuntimeConfig", request, async |_| Ok(reply::runtime_config())).await
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Result<Response<RunPodSandboxResponse>, Status> {
        let pods = self.runtime.pods.clone();
        complete("RunPodSandbox", request, async move |request| {
            let pod_sandbox_id = pods.run(request::run_pod_sandbox(request)?).await?;
            Ok(RunPodSandboxResponse { pod_sandbox_id })
        })
        .await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Result<Response<StopPodSandboxResponse>, Status> {
        let pods = self.runtime.pods.clone();
        complete("StopPodSandbox", request, async move |request: StopPodSandboxRequest| {
            pods.stop(&request::id("pod_sandbox_id", request.pod_sandbox_id)?).await?;
            Ok(StopPodSandboxResponse {})
        })
        .await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Result<Response<RemovePodSandboxResponse>, Status> {
        let pods = self.runtime.pods.clone();
        complete("RemovePodSandbox", request, async move |request: RemovePodSandboxRequest| {
            pods.remove(&request::id("pod_sandbox_id", request.pod_sandbox_id)?).await?;
            Ok(RemovePodSandboxResponse {})
        })
        .await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        answer("PodSandboxStatus", request, async |request| {
            let pod = self.runtime.pods.get(&request::id("pod_sandbox_id", request.pod_sandbox_id)?)?;
            let timestamp = clock::now();
            Ok(PodSandboxStatusResponse {
                status: Some(reply::pod_sandbox_status(&pod)),
                info: if request.verbose { info::pod(&pod) } else { Default::default() },
                containers_statuses: self.statuses(&self.runtime.containers.of_pod(&pod.id)),
                timestamp,
            })
        })
        .await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        answer("ListPodSandbox", request, async |request| {
            let items = self.pods(request.filter)?.collect();
            in_one_message(ListPodSandboxResponse { items }, "StreamPodSandboxes")
        })
        .await
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let runtime = self.runtime.clone();
        complete("CreateContainer", request, async move |mut request: CreateContainerRequest| {
            let pod_id = std::mem::take(&mut request.pod_sandbox_id);
            let pod = runtime.pods.get(&request::id("pod_sandbox_id", pod_id)?)?;
            let config = request::create_container(request, &pod.config)?;
            let container_id = runtime.containers.create(&pod.id, config).await?;
            Ok(CreateContainerResponse { container_id })
        })
        .await
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        let containers = self.runtime.containers.clone();
        complete("StartContainer", request, async move |request: StartContainerRequest| {
            containers.start(&request::id("container_id", request.container_id)?).await?;
            Ok(StartContainerResponse {})
        })
        .await
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        let containers = self.runtime.containers.clone();
        complete("StopContainer", request, async move |request: StopContainerRequest| {
            let grace = request::grace(request.timeout)?;
            containers.stop(&request::id("container_id", request.container_id)?, grace).await?;
            Ok(StopContainerResponse {})
        })
        .await
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        let containers = self.runtime.containers.clone();
        complete("RemoveContainer", request, async move |request: RemoveContainerRequest| {
            containers.remove(&request::id("container_id", request.container_id)?).await?;
            Ok(RemoveContainerResponse {})
        })
        .await
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        answer("ListContainers", request, async |request| {
            let containers = self.containers(request.filter)?.collect();
            in_one_message(ListContainersResponse { containers }, "StreamContainers")
        })
        .await
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        answer("ContainerStatus", request, async |request| {
            let container =
                self.runtime.containers.get(&request::id("container_id", request.container_id)?)?;
            let image = self.runtime.images.get(&container.image_id);
            let bundle = self.runtime.containers.bundle(&container.id);
            Ok(ContainerStatusResponse {
                status: Some(reply::container_status(&container, image.as_deref(), &bundle)),
                info: match request.verbose {
                    true => info::container(&container, &bundle).await,
                    false => Default::default(),
                },
            })
        })
        .await
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Result<Response<UpdateContainerResourcesResponse>, Status> {
        let containers = self.runtime.containers.clone();
        complete(
            "UpdateContainerResources",
            request,
            async move |mut request: UpdateContainerResourcesRequest| {
                let id = request::id("container_id", std::mem::take(&mut request.container_id))?;
                containers.update(&id, request::update(request)?).await?;
                Ok(UpdateContainerResourcesResponse {})
            },
        )
        .await
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Result<Response<ReopenContainerLogResponse>, Status> {
        let containers = self.runtime.containers.clone();
        complete("ReopenContainerLog", request, async move |request: ReopenContainerLogRequest| {
            containers.reopen_log(&request::id("container_id", request.container_id)?).await?;
            Ok(ReopenContainerLogResponse {})
        })
        .await
    }

    async fn exec_sync(
        &self,
        request: Request<ExecSyncRequest>,
    ) -> Result<Response<ExecSyncResponse>, Status> {
        let containers = self.runtime.containers.clone();
        // Cancelled when its caller disconnects, which kills the command.
        answer("ExecSync", request, async move |request| {
            let (id, command, limit) = request::exec_sync(request)?;
            let end = containers.exec_sync(&id, command, limit).await?;
            Ok(ExecSyncResponse { stdout: end.stdout, stderr: end.stderr, exit_code: end.code })
        })
        .await
    }

    type StreamPodSandboxesStream = BoxStream<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        chunks::stream_pod_sandboxes(self, request).await
    }

    type StreamContainersStream = BoxStream<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        chunks::stream_containers(self, request).await
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Result<Response<ExecResponse>, Status> {
        streaming::exec(self, request).await
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        streaming::attach(self, request).await
    }

    async fn port_forward(
        &self,
        request: Request<PortForwardRequest>,
    ) -> Result<Response<PortForwardResponse>, Status> {
        streaming::port_forward(self, request).await
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Result<Response<ContainerStatsResponse>, Status> {
        stats::container_stats(self, request).await
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Result<Response<ListContainerStatsResponse>, Status> {
        stats::list_container_stats(self, request).await
    }

    type StreamContainerStatsStream = BoxStream<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        chunks::stream_container_stats(self, request).await
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Result<Response<PodSandboxStatsResponse>, Status> {
        stats::pod_sandbox_stats(self, request).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Result<Response<ListPodSandboxStatsResponse>, Status> {
        stats::list_pod_sandbox_stats(self, request).await
    }

    type StreamPodSandboxStatsStream = BoxStream<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        chunks::stream_pod_sandbox_stats(self, request).await
    }

    type StreamPodSandboxMetricsStream = BoxStream<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        request: Request<StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        chunks::stream_pod_sandbox_metrics(self, request).await
    }

    async fn list_metric_descriptors(
        &self,
        request: Request<ListMetricDescriptorsRequest>,
    ) -> Result<Response<ListMetricDescriptorsResponse>, Status> {
        metrics::list_metric_descriptors(self, request).await
    }

    async fn list_pod_sandbox_metrics(
        &self,
        request: Request<ListPodSandboxMetricsRequest>,
    ) -> Result<Response<ListPodSandboxMetricsResponse>, Status> {
        metrics::list_pod_sandbox_metrics(self, request).await
    }

    type GetContainerEventsStream = BoxStream<ContainerEventResponse>;

    async fn get_container_events(
        &self,
        request: Request<GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        events::get_container_events(self, request).await
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Result<Response<UpdateRuntimeConfigResponse>, Status> {
        settings::update_runtime_config(self, request).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<UpdatePodSandboxResourcesResponse>, Status> {
        settings::update_pod_sandbox_resources(self, request).await
    }

    async fn checkpoint_container(
        &self,
        request: Request<CheckpointContainerRequest>,
    ) -> Result<Response<CheckpointContainerResponse>, Status> {
        checkpoint::checkpoint_container(self, request).await
    }

    async fn checkpoint_pod(
        &self,
        request: Request<CheckpointPodRequest>,
    ) -> Result<Response<CheckpointPodResponse>, Status> {
        checkpoint::checkpoint_pod(self, request).await
    }

    async fn restore_pod(
        &self,
        request: Request<RestorePodRequest>,
    ) -> Result<Response<RestorePodResponse>, Status> {
        checkpoint::restore_pod(self, request).await
    }
}
