//! Requests for pods and containers, and their calls.

use std::{collections::HashMap, path::PathBuf};

use berth_cri::v1;
use tonic::Status;

use crate::{berth::Berth, waiting::eventually};

/// Config of an ordinary pod, for a test to change.
pub fn pod(berth: &Berth, name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "tests".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: berth.path().join("logs").join(name).display().to_string(),
        labels: HashMap::from([("name".into(), name.into())]),
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

/// Config of an ordinary container.
pub fn container(name: &str, image: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
        command: command.iter().map(|&word| word.into()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

/// Config of a container that runs `script` in a shell.
pub fn shell(name: &str, image: &str, script: &str) -> v1::ContainerConfig {
    container(name, image, &["sh", "-c", script])
}

impl Berth {
    pub async fn run(&mut self, config: &v1::PodSandboxConfig) -> Result<String, Status> {
        self.run_in("", config).await
    }

    /// Runs the pod in a runtime handler.
    pub async fn run_in(&mut self, handler: &str, config: &v1::PodSandboxConfig) -> Result<String, Status> {
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub async fn create(
        &mut self,
        pod: &str,
        sandbox: &v1::PodSandboxConfig,
        config: v1::ContainerConfig,
    ) -> Result<String, Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), Status> {
        let request = v1::StartContainerRequest { container_id: id.into() };
        self.runtime.start_container(request).await.map(drop)
    }

    pub async fn stop_container(&mut self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = v1::StopContainerRequest { container_id: id.into(), timeout };
        self.runtime.stop_container(request).await.map(drop)
    }

    pub async fn remove_container(&mut self, id: &str) -> Result<(), Status> {
        let request = v1::RemoveContainerRequest { container_id: id.into() };
        self.runtime.remove_container(request).await.map(drop)
    }

    pub async fn stop_pod(&mut self, id: &str) -> Result<(), Status> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.stop_pod_sandbox(request).await.map(drop)
    }

    pub async fn remove_pod(&mut self, id: &str) -> Result<(), Status> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.remove_pod_sandbox(request).await.map(drop)
    }

    pub async fn status(&mut self, id: &str) -> Result<v1::ContainerStatus, Status> {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        Ok(self.runtime.container_status(request).await?.into_inner().status.unwrap())
    }

    pub async fn pod_status(&mut self, id: &str) -> Result<v1::PodSandboxStatus, Status> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        Ok(self.runtime.pod_sandbox_status(request).await?.into_inner().status.unwrap())
    }

    pub async fn exec(&mut self, id: &str, args: &[&str]) -> Result<v1::ExecSyncResponse, Status> {
        let request = v1::ExecSyncRequest {
            container_id: id.into(),
            cmd: args.iter().map(|&word| word.into()).collect(),
            timeout: 10,
        };
        Ok(self.runtime.exec_sync(request).await?.into_inner())
    }

    /// Runs a shell script in a running container and returns what it printed on both streams.
    pub async fn shell(&mut self, id: &str, script: &str) -> String {
        let said = self.exec(id, &["sh", "-c", script]).await.unwrap();
        String::from_utf8([said.stdout, said.stderr].concat()).unwrap()
    }

    /// Creates and starts a container in a pod of its own. Returns the ids of pod and container.
    pub async fn run_alone(&mut self, name: &str, image: &str, script: &str) -> (String, String) {
        let sandbox = pod(self, name);
        let pod = self.run(&sandbox).await.unwrap();
        let id = self.create(&pod, &sandbox, shell(name, image, script)).await.unwrap();
        self.start_container(&id).await.unwrap();
        (pod, id)
    }

    /// Waits until the container has ended and returns its status.
    pub async fn ended(&mut self, id: &str) -> v1::ContainerStatus {
        let status = async || self.status(id).await.unwrap();
        eventually(status, |status| status.state() == v1::ContainerState::ContainerExited).await
    }

    /// The lines of a container's log, as (stream, text), with split lines joined.
    pub fn log_of(&self, pod: &str, container: &str) -> Vec<(String, String)> {
        let path: PathBuf = self.path().join("logs").join(pod).join(format!("{container}.log"));
        parse_log(&std::fs::read_to_string(path).unwrap_or_default())
    }
}

/// Parses the CRI log format to (stream, text), with split lines joined.
pub fn parse_log(text: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut begun: HashMap<&str, String> = HashMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ');
        let (_time, stream, tag) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        *begun.entry(stream).or_default() += fields.next().unwrap_or_default();
        if tag == "F" {
            lines.push((stream.to_owned(), begun.remove(stream).unwrap_or_default()));
        }
    }
    // Last lines without their end.
    lines.extend(begun.into_iter().map(|(stream, text)| (stream.to_owned(), text)));
    lines
}
