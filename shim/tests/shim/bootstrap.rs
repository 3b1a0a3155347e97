//! Starting a shim, finding it, and its exit.

use crate::fixture::*;
use containerd_shim_protos::api::*;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use ttrpc::Code;

#[tokio::test]
async fn root_a_second_start_finds_the_first_shim() {
    let shim = Shim::start().await;
    assert_eq!(start(shim.directory.path(), &shim.path(&shim.id), &shim.id), shim.address);
    shim.shutdown().await;
}

#[tokio::test]
async fn root_a_container_of_a_pod_is_answered_by_the_pods_shim() {
    let shim = Shim::start().await;
    let bundle = shim.path("member");
    fs::create_dir(&bundle).unwrap();
    let config = json!({"annotations": {"io.kubernetes.cri.sandbox-id": shim.id}});
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    assert_eq!(start(shim.directory.path(), &bundle, "member"), shim.address);
    fs::remove_file(bundle.join("config.json")).unwrap();
    shim.shutdown().await;
}

#[tokio::test]
async fn root_the_socket_of_a_dead_shim_is_replaced() {
    let shim = Shim::start().await;
    shim.kill_shim().await;
    let address = start(shim.directory.path(), &shim.path(&shim.id), &shim.id);
    assert_eq!(address, shim.address);
    let client = containerd_shim_protos::shim_async::Client::connect(&address).await.unwrap();
    let task = containerd_shim_protos::shim_async::TaskClient::new(client);
    let pid = task.connect(soon(), &ConnectRequest::default()).await.unwrap().shim_pid;
    let ended = pidfd(pid);
    task.shutdown(soon(), &ShutdownRequest::default()).await.unwrap();
    gone(&ended).await;
}

#[tokio::test]
async fn root_containerd_2_3_is_answered_in_protobuf_and_may_place_the_socket() {
    let shim = Shim::start().await;
    let sockets = shim.path("sockets");
    let params = BootstrapParams {
        instance_id: "other".into(),
        namespace: "berth-test".into(),
        socket_dir: Some(sockets.display().to_string()),
        ..Default::default()
    };
    let mut starting = command(shim.directory.path(), shim.directory.path(), "other")
        .arg("start")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    starting.stdin.take().unwrap().write_all(&params.write_to_bytes().unwrap()).unwrap();
    let output = starting.wait_with_output().unwrap();
    let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    assert!(result.address.starts_with(&format!("unix://{}", sockets.display())), "{}", result.address);
    let client = containerd_shim_protos::shim_async::Client::connect(&result.address).await.unwrap();
    let task = containerd_shim_protos::shim_async::TaskClient::new(client);
    let ended = pidfd(task.connect(soon(), &ConnectRequest::default()).await.unwrap().shim_pid);
    task.shutdown(soon(), &ShutdownRequest::default()).await.unwrap();
    gone(&ended).await;
    shim.shutdown().await;
}

#[tokio::test]
async fn root_a_shim_that_leaves_takes_its_socket_along() {
    let shim = Shim::start().await;
    let socket = shim.address.strip_prefix("unix://").unwrap().to_owned();
    assert!(Path::new(&socket).exists());
    shim.task.shutdown(soon(), &ShutdownRequest::default()).await.unwrap();
    assert!(!Path::new(&socket).exists());
}

#[tokio::test]
async fn root_those_who_wait_are_told_when_the_shim_leaves() {
    let shim = Shim::with_sandbox(|options| options.host_network = true).await;
    let request = WaitSandboxRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let (waited, ()) = tokio::join!(shim.sandbox.wait_sandbox(soon(), &request), shim.shutdown());
    // The pod ended, or the shim exited first: either answer is right.
    assert!(waited.is_ok() || code(waited.unwrap_err()) == Code::UNAVAILABLE);
}

#[tokio::test]
async fn root_what_is_unknown_is_not_found_and_what_is_wrong_is_refused() {
    let shim = Shim::start().await;
    let not_found = [
        code(
            shim.task
                .state(soon(), &StateRequest { id: "x".into(), ..Default::default() })
                .await
                .unwrap_err(),
        ),
        code(
            shim.task.wait(soon(), &WaitRequest { id: "x".into(), ..Default::default() }).await.unwrap_err(),
        ),
        code(shim.kill("x", 9).await.unwrap_err()),
        code(shim.delete("x").await.unwrap_err()),
        code(shim.start_task("x").await.unwrap_err()),
        code(shim.exec_args("x", &["true"], std::time::Duration::ZERO).await.unwrap_err()),
    ];
    assert_eq!(not_found, [Code::NOT_FOUND; 6]);
    let ping = PingRequest { sandbox_id: "another".into(), ..Default::default() };
    assert_eq!(code(shim.sandbox.ping_sandbox(soon(), &ping).await.unwrap_err()), Code::NOT_FOUND);
    assert_eq!(code(shim.kill("x", 0).await.unwrap_err()), Code::INVALID_ARGUMENT);
    assert_eq!(code(shim.kill("x", 65).await.unwrap_err()), Code::INVALID_ARGUMENT);
    let checkpoint = shim.task.checkpoint(soon(), &CheckpointTaskRequest::default()).await;
    assert_eq!(code(checkpoint.unwrap_err()), Code::UNIMPLEMENTED);
    shim.shutdown().await;
}

#[test]
fn root_a_command_line_that_makes_no_sense_fails_with_one_line() {
    must_be_root();
    let directory = tempfile::tempdir().unwrap();
    for arguments in
        [&["-id", "x", "start"][..], &["-namespace", "n", "-id", "x", "start"], &["-colour", "red"]]
    {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_containerd-shim-berth-v1"))
            .args(arguments)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{arguments:?}");
    }
}

#[test]
fn the_shim_says_what_it_can_do_as_an_oci_runtime() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_containerd-shim-berth-v1"))
        .arg("-info")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.berth.v1");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(features["mountOptions"].as_array().unwrap().contains(&"rro".into()));
}
