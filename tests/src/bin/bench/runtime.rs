//! A runtime under measurement: its two CRI services, and the benchmark's pods and containers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use berth_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxPodSandboxConfig, Mount, PodSandboxConfig, PodSandboxMetadata, PullImageRequest,
    RemoveContainerRequest, RemoveImageRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{IMAGE, Result};

/// One runtime and the connection to it. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Runtime {
    /// Name in the report.
    pub(crate) name: String,
    /// Directory made by `hack/start`, with `runtime.sock` and `daemon.pid`. Logs are written below it.
    pub(crate) dir: PathBuf,
    channel: Channel,
}

/// A running pod.
pub(crate) struct Pod {
    pub(crate) id: String,
    config: PodSandboxConfig,
}

impl Runtime {
    /// Connects to the socket in the directory.
    pub(crate) async fn connect(name: &str, dir: &Path) -> Result<Self> {
        let socket = dir.join("runtime.sock");
        let connector = service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
        Ok(Self { name: name.into(), dir: dir.into(), channel })
    }

    pub(crate) fn cri(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    /// The daemon's pid.
    pub(crate) fn daemon(&self) -> Result<u32> {
        Ok(fs::read_to_string(self.dir.join("daemon.pid"))?.trim().parse()?)
    }

    pub(crate) async fn pull(&self, image: &str) -> Result<()> {
        let request = PullImageRequest { image: Some(spec(image)), ..Default::default() };
        self.images().pull_image(request).await?;
        Ok(())
    }

    pub(crate) async fn remove_image(&self, image: &str) -> Result<()> {
        self.images().remove_image(RemoveImageRequest { image: Some(spec(image)) }).await?;
        Ok(())
    }

    /// Runs a pod with a new name.
    pub(crate) async fn run_pod(&self) -> Result<Pod> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let logs = self.dir.join("logs").join(&name);
        fs::create_dir_all(&logs)?;
        let metadata = PodSandboxMetadata { uid: name.clone(), namespace: "bench".into(), name, attempt: 0 };
        let linux = LinuxPodSandboxConfig { cgroup_parent: "/berth-bench".into(), ..Default::default() };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: logs.display().to_string(),
            linux: Some(linux),
            ..Default::default()
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let id = self.cri().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        Ok(Pod { id, config })
    }

    /// Creates and starts a container in the pod, with the file `lines`, if any, mounted at `/lines`.
    pub(crate) async fn start_container(
        &self,
        pod: &Pod,
        name: &str,
        command: &[&str],
        lines: Option<&Path>,
    ) -> Result<String> {
        let mounts = lines.map(|path| Mount {
            container_path: "/lines".into(),
            host_path: path.display().to_string(),
            readonly: true,
            ..Default::default()
        });
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(spec(IMAGE)),
            command: command.iter().map(ToString::to_string).collect(),
            mounts: mounts.into_iter().collect(),
            log_path: format!("{name}.log"),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.cri().create_container(request).await?.into_inner().container_id;
        self.cri().start_container(StartContainerRequest { container_id: id.clone() }).await?;
        Ok(id)
    }

    /// Runs `true` in a container. Fails unless it exits with 0.
    pub(crate) async fn exec_true(&self, container: &str) -> Result<()> {
        let request =
            ExecSyncRequest { container_id: container.into(), cmd: vec!["true".into()], timeout: 10 };
        match self.cri().exec_sync(request).await?.into_inner().exit_code {
            0 => Ok(()),
            code => Err(format!("{}: `true` exited with {code}", self.name).into()),
        }
    }

    /// Stops a container without a grace period and removes it.
    pub(crate) async fn remove_container(&self, container: &str) -> Result<()> {
        let container_id = container.to_owned();
        self.cri()
            .stop_container(StopContainerRequest { container_id: container_id.clone(), timeout: 0 })
            .await?;
        self.cri().remove_container(RemoveContainerRequest { container_id }).await?;
        Ok(())
    }

    pub(crate) async fn remove_pod(&self, pod: &Pod) -> Result<()> {
        let pod_sandbox_id = pod.id.clone();
        self.cri().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
        self.cri().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await?;
        Ok(())
    }
}

impl Pod {
    /// Path of the log of the pod's container `main`.
    pub(crate) fn log(&self) -> PathBuf {
        Path::new(&self.config.log_directory).join("main.log")
    }
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.into(), ..Default::default() }
}
