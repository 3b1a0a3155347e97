//! Invariants of every call, with arbitrary bytes as its message.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use berth_cri::v1;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tempfile::TempDir;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
};

use super::{Cri, request, samples};
use crate::{
    container::{ContainerState, config::ContainerConfig},
    pod::{PodState, config::PodConfig},
    runtime::names_in,
    server::Services,
    spec::{self, Accounts, Defaults, Host, HostFeatures, ImageDefaults, Inputs, PidNamespace, PodFiles},
};

/// Ids of the pod and the container that exist before every call.
const POD: &str = "a1b2";
const CONTAINER: &str = "c3d4";
/// A shim that cannot be started, and has nothing to clean up.
const SHIM: &str = "#!/bin/sh\nfor action; do :; done; [ $action = delete ]";

/// Both services of a daemon in a temporary directory. It has a pod without a shim and a container that has ended, but
/// no image, no network, and no shim that starts.
pub struct Daemon {
    cri: Cri,
    directory: TempDir,
}

impl Daemon {
    /// Opens the daemon in a directory below `TMPDIR`.
    pub async fn open() -> Self {
        let (cri, directory) = samples::cri().await;
        let shim = directory.path().join("no-shim");
        std::fs::write(&shim, SHIM).unwrap();
        std::fs::set_permissions(&shim, Permissions::from_mode(0o755)).unwrap();
        Self { cri, directory }
    }

    /// Calls the method with this path, such as `/runtime.v1.RuntimeService/Version`. `message` is the encoded request.
    /// The status must be one that the caller can act on, and the call must leave nothing behind.
    pub async fn call(&self, path: &str, message: &[u8]) {
        self.restore();
        let status = self.status(path, message).await;
        let fine = match status.code() {
            Code::Unknown => false,
            Code::Internal => {
                let (message, runs) = (status.message(), path.ends_with("/RunPodSandbox"));
                message.contains("failed to decode Protobuf") || (runs && message.contains("no-shim"))
            }
            _ => true,
        };
        assert!(fine, "{path}: {status:?}");
        self.check_nothing_left();
    }

    async fn status(&self, path: &str, message: &[u8]) -> Status {
        let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
        let call = http::Request::post(path).header("content-type", "application/grpc");
        let call = call.body(Body::new(Full::new(Bytes::from(frame)))).unwrap();
        let answer = Services::new(self.cri.clone()).call(call).await.unwrap();
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return status;
        }
        if path.ends_with("/GetContainerEvents") {
            return Status::ok("events never end");
        }
        let body = answer.into_body().collect().await.unwrap();
        Status::from_header_map(body.trailers().unwrap()).unwrap()
    }

    fn restore(&self) {
        let (pods, containers) = (&self.cri.runtime.pods, &self.cri.runtime.containers);
        let ended = ContainerState::Exited {
            started_at: 43,
            finished_at: 44,
            code: 1,
            reason: "Error".into(),
            message: String::new(),
        };
        if !pods.get(POD).is_ok_and(|pod| pod.state == PodState::Ready) {
            pods.shared.pods.insert(POD, samples::pod(POD, PodState::Ready));
        }
        if containers.get(CONTAINER).is_err() {
            containers.shared.containers.insert(CONTAINER, samples::container(CONTAINER, POD, ended));
        }
    }

    fn check_nothing_left(&self) {
        let pods = self.cri.runtime.pods.list();
        assert!(pods.iter().all(|pod| pod.id == POD), "{pods:?}");
        let containers = self.cri.runtime.containers.list();
        assert!(containers.iter().all(|container| container.id == CONTAINER), "{containers:?}");
        for empty in ["root/containers", "state/s", "state/sandboxes", "state/containers", "netns"] {
            assert_eq!(names_in(&self.directory.path().join(empty)), [""; 0], "{empty}");
        }
    }
}

/// Returns the `config.json` of the container in a CreateContainer request, or why the request is refused.
pub fn container_spec(message: &[u8]) -> Result<Vec<u8>, String> {
    let mut wanted = v1::CreateContainerRequest::decode(message).map_err(|error| error.to_string())?;
    let config = wanted.sandbox_config.take();
    let pod = v1::RunPodSandboxRequest { config, ..Default::default() };
    let pod = request::run_pod_sandbox(pod).unwrap_or_default();
    let container = request::create_container(wanted, &pod).map_err(|error| error.to_string())?;
    check_record(&pod, &container);
    let user = spec::user::resolve(&container.security, "", &Accounts::default());
    let user = user.map_err(|error| error.to_string())?;
    let features = HostFeatures { recursive_readonly: true, user_namespaces: true };
    let inputs = Inputs {
        container: &container,
        pod: &pod,
        image: &ImageDefaults::default(),
        user: &user,
        host: &Host { features, ..Host::default() },
        defaults: &Defaults::default(),
        hostname: "web-0",
        files: &PodFiles::default(),
        volumes: &[],
        devices: &Default::default(),
        seccomp: None,
        cgroup_path: "/berth/pod/abc",
        pid: PidNamespace::default(),
    };
    let spec = spec::build(&inputs).map_err(|error| error.to_string())?;
    Ok(serde_json::to_vec(&spec).unwrap())
}

/// The record of a configuration must parse to the same configuration.
fn check_record(pod: &PodConfig, container: &ContainerConfig) {
    let record = serde_json::to_string(pod).unwrap();
    assert_eq!(&serde_json::from_str::<PodConfig>(&record).unwrap(), pod);
    let record = serde_json::to_string(container).unwrap();
    assert_eq!(&serde_json::from_str::<ContainerConfig>(&record).unwrap(), container);
}
