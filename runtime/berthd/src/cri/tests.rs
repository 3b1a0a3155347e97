//! The services over a real runtime in a temporary directory, without pods: those need root and a shim.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use berth_cri::v1::{image_service_server::ImageService, runtime_service_server::RuntimeService, *};
use tonic::{Code, Request, Response, Status};

use super::samples::cri;

fn code<T>(result: Result<Response<T>, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn request<T: Default>() -> Request<T> {
    Request::new(T::default())
}

fn named(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.into(), ..Default::default() })
}

#[tokio::test]
async fn the_runtime_says_who_it_is() {
    let (cri, _directory) = cri().await;
    let version = cri.version(Request::new(VersionRequest::default())).await.unwrap().into_inner();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("berth", "v1"));
    assert_eq!(version.runtime_version.split('.').count(), 3);
    let config = cri.runtime_config(Request::new(RuntimeConfigRequest {})).await.unwrap().into_inner();
    assert_eq!(config.linux.unwrap().cgroup_driver(), CgroupDriver::Cgroupfs);
}

#[tokio::test]
async fn the_status_tells_a_missing_network_and_when_asked_the_configuration() {
    let (cri, directory) = cri().await;
    let status = |verbose| cri.status(Request::new(StatusRequest { verbose }));
    let brief = status(false).await.unwrap().into_inner();
    let conditions = brief.status.unwrap().conditions;
    assert!(conditions[0].status && !conditions[1].status);
    assert!(!conditions[1].message.is_empty() && brief.info.is_empty());
    let info = status(true).await.unwrap().into_inner().info;
    let config: serde_json::Value = serde_json::from_str(&info["config"]).unwrap();
    assert_eq!(config["stateDir"], serde_json::json!(directory.path().join("state")));
    assert!(serde_json::from_str::<serde_json::Value>(&info["network"]).is_ok());
}

#[tokio::test]
async fn lists_of_nothing_are_empty() {
    let (cri, _directory) = cri().await;
    assert!(cri.list_pod_sandbox(request()).await.unwrap().into_inner().items.is_empty());
    assert!(cri.list_containers(request()).await.unwrap().into_inner().containers.is_empty());
    assert!(cri.list_images(request()).await.unwrap().into_inner().images.is_empty());
    let info = cri.image_fs_info(request()).await.unwrap().into_inner();
    let images = &info.image_filesystems[0];
    assert!(images.fs_id.as_ref().unwrap().mountpoint.ends_with("/root/images") && images.timestamp > 0);
}

#[tokio::test]
async fn stopping_and_removing_what_is_not_there_is_done() {
    let (cri, _directory) = cri().await;
    let pod_sandbox_id = "0".repeat(64);
    let container_id = "1".repeat(64);
    let stop_pod = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    assert_eq!(code(cri.stop_pod_sandbox(Request::new(stop_pod)).await), Code::Ok);
    let remove_pod = RemovePodSandboxRequest { pod_sandbox_id };
    assert_eq!(code(cri.remove_pod_sandbox(Request::new(remove_pod)).await), Code::Ok);
    let stop = StopContainerRequest { container_id: container_id.clone(), timeout: 1 };
    assert_eq!(code(cri.stop_container(Request::new(stop)).await), Code::Ok);
    let remove = RemoveContainerRequest { container_id };
    assert_eq!(code(cri.remove_container(Request::new(remove)).await), Code::Ok);
    let remove_image = RemoveImageRequest { image: named("busybox") };
    assert_eq!(code(cri.remove_image(Request::new(remove_image)).await), Code::Ok);
}

#[tokio::test]
async fn asking_for_what_is_not_there_is_told() {
    let (cri, _directory) = cri().await;
    let id = "0".repeat(64);
    let pod = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
    assert_eq!(code(cri.pod_sandbox_status(Request::new(pod)).await), Code::NotFound);
    let container = ContainerStatusRequest { container_id: id.clone(), verbose: false };
    assert_eq!(code(cri.container_status(Request::new(container)).await), Code::NotFound);
    let start = StartContainerRequest { container_id: id.clone() };
    assert_eq!(code(cri.start_container(Request::new(start)).await), Code::NotFound);
    let create = CreateContainerRequest { pod_sandbox_id: id.clone(), ..Default::default() };
    assert_eq!(code(cri.create_container(Request::new(create)).await), Code::NotFound);
    let exec = ExecSyncRequest { container_id: id, cmd: vec!["true".into()], timeout: 1 };
    assert_eq!(code(cri.exec_sync(Request::new(exec)).await), Code::NotFound);
    let image = ImageStatusRequest { image: named("busybox"), verbose: true };
    let status = cri.image_status(Request::new(image)).await.unwrap().into_inner();
    assert!(status.image.is_none() && status.info.is_empty());
}

#[tokio::test]
async fn requests_that_are_wrong_in_themselves_are_refused() {
    let (cri, _directory) = cri().await;
    assert_eq!(code(cri.run_pod_sandbox(request()).await), Code::InvalidArgument);
    assert_eq!(code(cri.stop_pod_sandbox(request()).await), Code::InvalidArgument);
    assert_eq!(code(cri.exec_sync(request()).await), Code::InvalidArgument);
    assert_eq!(code(cri.pull_image(request()).await), Code::InvalidArgument);
    assert_eq!(code(cri.image_status(request()).await), Code::InvalidArgument);
}

#[tokio::test]
async fn an_unknown_runtime_handler_is_refused() {
    let (cri, _directory) = cri().await;
    let metadata =
        PodSandboxMetadata { name: "a".into(), uid: "b".into(), namespace: "c".into(), attempt: 0 };
    let config = Some(PodSandboxConfig { metadata: Some(metadata), ..Default::default() });
    let request = RunPodSandboxRequest { config, runtime_handler: "kata".into() };
    let status = cri.run_pod_sandbox(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("\"kata\""), "{}", status.message());
}

#[tokio::test]
async fn streams_of_what_is_not_there_are_not_found() {
    let (cri, _directory) = cri().await;
    let container_id = "1".repeat(64);
    let exec = ExecRequest {
        container_id: container_id.clone(),
        cmd: vec!["true".into()],
        stdout: true,
        ..Default::default()
    };
    assert_eq!(code(cri.exec(Request::new(exec)).await), Code::NotFound);
    let attach = AttachRequest { container_id, stdout: true, ..Default::default() };
    assert_eq!(code(cri.attach(Request::new(attach)).await), Code::NotFound);
    let forward = PortForwardRequest { pod_sandbox_id: "1".repeat(64), port: vec![80] };
    assert_eq!(code(cri.port_forward(Request::new(forward)).await), Code::NotFound);
}

#[tokio::test]
async fn streams_that_make_no_sense_are_refused() {
    let (cri, _directory) = cri().await;
    let good = ExecRequest {
        container_id: "1".repeat(64),
        cmd: vec!["true".into()],
        stdout: true,
        ..Default::default()
    };
    for (wrong, field) in [
        (ExecRequest { container_id: String::new(), ..good.clone() }, "container_id"),
        (ExecRequest { cmd: Vec::new(), ..good.clone() }, "cmd"),
        (ExecRequest { cmd: vec!["a\0b".into()], ..good.clone() }, "cmd[0]"),
        (ExecRequest { tty: true, stderr: true, ..good.clone() }, "stderr"),
        (ExecRequest { stdout: false, ..good.clone() }, "stdout"),
    ] {
        let status = cri.exec(Request::new(wrong)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    for wrong in [
        AttachRequest { stdout: true, ..Default::default() },
        AttachRequest { container_id: good.container_id.clone(), ..Default::default() },
        AttachRequest { container_id: good.container_id, tty: true, stderr: true, ..Default::default() },
    ] {
        assert_eq!(code(cri.attach(Request::new(wrong)).await), Code::InvalidArgument);
    }
    assert_eq!(code(cri.port_forward(request()).await), Code::InvalidArgument);
}
