//! Execs in a running container.

use crate::fixture::*;
use berth_shim_proto::berth_shim::ExecSyncRequest;
use berth_shim_proto::berth_shim_ttrpc::ShimClient;
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim_async::Client;
use serde_json::json;
use std::time::Duration;
use ttrpc::Code;

const NONE: Duration = Duration::ZERO;

async fn running() -> Shim {
    let mut shim = Shim::start().await;
    shim.run("c", "echo ready; while :; do sleep 1000; done").await;
    shim.logged("c", "ready").await;
    shim
}

async fn end(shim: Shim) {
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
    shim.shutdown().await;
}

#[tokio::test]
async fn root_output_and_code_of_a_command_come_back() {
    let shim = running().await;
    let told = shim.exec("c", "echo out; echo err >&2; echo $GREETING; exit 3", NONE).await;
    assert_eq!(told, ("out\nhello\n".into(), "err\n".into(), 3, false));
    let (stdout, _, code, _) = shim.exec("c", "seq 100000", NONE).await;
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(stdout == expected && code == 0);
    end(shim).await;
}

#[tokio::test]
async fn root_a_command_that_cannot_run_is_the_callers_mistake() {
    let shim = running().await;
    let error = shim.exec_args("c", &["nosuch"], NONE).await.unwrap_err();
    assert!(error.to_string().contains("nosuch"), "{error}");
    assert_eq!(code(error), Code::INVALID_ARGUMENT);
    assert_eq!(code(shim.exec_args("c", &[], NONE).await.unwrap_err()), Code::INVALID_ARGUMENT);
    assert_eq!(shim.exec("c", "exit 0", NONE).await.2, 0);
    end(shim).await;
}

#[tokio::test]
async fn root_a_timeout_ends_the_command_and_all_it_started() {
    let shim = running().await;
    let script = "echo begun; sleep 3456789 & (sleep 3456789; true) & setsid sleep 3456789 & wait";
    let (stdout, _, _, timed_out) = shim.exec("c", script, Duration::from_millis(300)).await;
    assert!(timed_out);
    assert_eq!(stdout, "begun\n");
    until(|| processes_with("sleep 3456789").is_empty()).await;
    end(shim).await;
}

#[tokio::test]
async fn root_a_caller_that_goes_away_ends_the_command() {
    let shim = running().await;
    let client = ShimClient::new(Client::connect(&shim.address).await.unwrap());
    let request = ExecSyncRequest {
        container_id: "c".into(),
        args: ["/bin/sh", "-c", "sleep 4567890; true"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let stream = client.exec_sync(soon(), &request).await.unwrap();
    until(|| processes_with("sleep 4567890").len() == 1).await;
    drop(stream);
    drop(client);
    until(|| processes_with("sleep 4567890").is_empty()).await;
    end(shim).await;
}

#[tokio::test]
async fn root_a_child_left_behind_does_not_keep_the_caller_waiting() {
    let shim = running().await;
    let told = shim.exec("c", "sleep 5678901 & echo done", NONE).await;
    assert_eq!(told, ("done\n".into(), String::new(), 0, false));
    until(|| processes_with("sleep 5678901").len() == 1).await;
    end(shim).await;
    until(|| processes_with("sleep 5678901").is_empty()).await;
}

/// A frozen process dies only when it is thawed, long after the shim has given up on it.
#[tokio::test]
async fn root_a_command_that_dies_late_is_reaped_all_the_same() {
    let shim = running().await;
    let pausing = async {
        until(|| processes_with("sleep 6789013").len() == 1).await;
        let pause = PauseRequest { id: "c".into(), ..Default::default() };
        shim.task.pause(soon(), &pause).await.unwrap();
    };
    let command = shim.exec("c", "exec sleep 6789013", Duration::from_millis(500));
    let ((.., timed_out), ()) = tokio::join!(command, pausing);
    assert!(timed_out);
    shim.task.resume(soon(), &ResumeRequest { id: "c".into(), ..Default::default() }).await.unwrap();
    until(|| shim.children().len() == 1).await;
    end(shim).await;
}

#[tokio::test]
async fn root_many_commands_leave_nothing_behind() {
    let shim = running().await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", shim.pid)).unwrap().count();
    shim.exec("c", "exit 0", NONE).await;
    let before = descriptors();
    for _ in 0..50 {
        assert_eq!(shim.exec("c", "exit 1", NONE).await.2, 1);
    }
    until(|| descriptors() <= before).await;
    assert_eq!(shim.children().len(), 1);
    end(shim).await;
}

#[tokio::test]
async fn root_containerds_exec_is_added_started_waited_for_and_deleted() {
    let shim = running().await;
    let out = shim.path("exec.out");
    let spec = json!({"args": ["/bin/sh", "-c", "echo $WHO; exit 6"], "env": ["WHO=me", "PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let request = ExecProcessRequest {
        id: "c".into(),
        exec_id: "e".into(),
        stdout: format!("file://{}", out.display()),
        spec: MessageField::some(Any { value: spec.to_string().into_bytes(), ..Default::default() }),
        ..Default::default()
    };
    shim.task.exec(soon(), &request).await.unwrap();
    assert_eq!(code(shim.task.exec(soon(), &request).await.unwrap_err()), Code::ALREADY_EXISTS);
    let wait = WaitRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    let start = StartRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    let (waited, started) = tokio::join!(shim.task.wait(soon(), &wait), shim.task.start(soon(), &start));
    let pid = started.unwrap().pid;
    assert_eq!(waited.unwrap().exit_status, 6);
    assert_eq!(std::fs::read(&out).unwrap(), b"me\n");
    let state = StateRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    let state = shim.task.state(soon(), &state).await.unwrap();
    assert_eq!((state.status.unwrap(), state.exit_status, state.pid), (Status::STOPPED, 6, pid));
    assert_eq!(code(shim.task.start(soon(), &start).await.unwrap_err()), Code::FAILED_PRECONDITION);
    let delete = DeleteRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    assert_eq!(shim.task.delete(soon(), &delete).await.unwrap().exit_status, 6);
    assert_eq!(code(shim.task.delete(soon(), &delete).await.unwrap_err()), Code::NOT_FOUND);
    end(shim).await;
}
