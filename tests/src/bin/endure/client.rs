//! Calls to one daemon, from any number of tasks. The connection is made again after the daemon was killed.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use berth_cri::v1::{self, runtime_service_client::RuntimeServiceClient};
use berth_tests::berth::Berth;
use tonic::{Status, transport::Channel};

/// How long a container may take to end on a busy machine.
const CONTAINER_END_TIMEOUT: Duration = Duration::from_secs(120);

/// Client of one daemon. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) cri: RuntimeServiceClient<Channel>,
    logs: PathBuf,
    image: String,
}

/// A running pod.
pub(crate) struct Pod {
    pub(crate) id: String,
    config: v1::PodSandboxConfig,
}

impl Client {
    pub(crate) async fn new(berth: &mut Berth) -> Self {
        let image = berth.busybox().await;
        Self { cri: berth.runtime.clone(), logs: berth.path().join("logs"), image }
    }

    /// Path of the log of the container `main` of the pod with this name.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name).join("main.log")
    }

    pub(crate) async fn run_pod(&mut self, name: &str, host_network: bool) -> Result<Pod, Status> {
        let network = if host_network { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: name.into(),
                namespace: "endure".into(),
                attempt: 0,
            }),
            log_directory: self.logs.join(name).display().to_string(),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        network: network.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = self.cri.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        Ok(Pod { id, config })
    }

    /// Creates and starts a container `main` that runs `script` in a shell. Returns its id.
    pub(crate) async fn shell(&mut self, pod: &Pod, script: &str) -> Result<String, Status> {
        self.start(pod, &["sh", "-c", script], Vec::new()).await
    }

    pub(crate) async fn start(
        &mut self,
        pod: &Pod,
        command: &[&str],
        mounts: Vec<v1::Mount>,
    ) -> Result<String, Status> {
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: command.iter().map(|&word| word.into()).collect(),
            log_path: "main.log".into(),
            mounts,
            linux: Some(v1::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.cri.create_container(request).await?.into_inner().container_id;
        self.cri.start_container(v1::StartContainerRequest { container_id: id.clone() }).await?;
        Ok(id)
    }

    /// Waits until the container has ended, and returns its exit code.
    pub(crate) async fn ended(&mut self, id: &str) -> Result<i32, Status> {
        let begun = Instant::now();
        while begun.elapsed() < CONTAINER_END_TIMEOUT {
            let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
            let status = self.cri.container_status(request).await?.into_inner().status.unwrap();
            if status.state() == v1::ContainerState::ContainerExited {
                return Ok(status.exit_code);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Status::deadline_exceeded(format!("container {id} has not ended after {CONTAINER_END_TIMEOUT:?}")))
    }

    pub(crate) async fn exec(&mut self, id: &str, script: &str) -> Result<v1::ExecSyncResponse, Status> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.into(), cmd, timeout: 60 };
        Ok(self.cri.exec_sync(request).await?.into_inner())
    }

    /// Removes the pod, and then its logs as kubelet does.
    pub(crate) async fn remove(&mut self, pod: &Pod) -> Result<(), Status> {
        let id = pod.id.clone();
        self.cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
        self.cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
        std::fs::remove_dir_all(&pod.config.log_directory)?;
        Ok(())
    }

    /// Number of running containers.
    pub(crate) async fn running(&mut self) -> Result<usize, Status> {
        let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() };
        let filter = v1::ContainerFilter { state: Some(state), ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(self.cri.list_containers(request).await?.into_inner().containers.len())
    }
}
