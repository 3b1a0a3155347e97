#![allow(clippy::unwrap_used)]
use std::future::pending;

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{WaitRequest, WaitResponse},
    shim_async::{Task, create_task},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use ttrpc::asynchronous::TtrpcContext;

use super::*;
use crate::{
    cri::samples,
    pod::{Pod, PodState},
    shim::{ShimAddress, testing::serve},
};

/// A bundle whose process has `env`.
fn bundle(env: &[&str]) -> TempDir {
    let config = json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 1, "width": 2},
            "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
            "args": ["/init", "--now"],
            "env": env,
            "cwd": "/work",
            "capabilities": {"bounding": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}],
            "noNewPrivileges": true,
            "apparmorProfile": "tight",
        },
        "root": {"path": "rootfs"},
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

fn process(env: &[&str], tty: bool) -> Value {
    let json = process_of(bundle(env).path(), vec!["ps".into(), "-a".into()], tty).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn a_command_runs_as_the_container_does() {
    let process = process(&["A=1"], false);
    let expected = json!({
        "terminal": false,
        "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
        "args": ["ps", "-a"],
        "env": ["A=1"],
        "cwd": "/work",
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}],
        "noNewPrivileges": true,
        "apparmorProfile": "tight",
    });
    assert_eq!(process, expected);
}

#[test]
fn a_terminal_is_named_unless_the_container_names_its_own() {
    assert_eq!(process(&["A=1"], true)["env"], json!(["A=1", "TERM=xterm"]));
    assert_eq!(process(&["TERM=dumb"], true)["env"], json!(["TERM=dumb"]));
    assert_eq!(process(&[], true)["terminal"], json!(true));
}

/// Every process has ended with exit code 7.
struct EndedExecs;

#[async_trait]
impl Task for EndedExecs {
    async fn wait(&self, _: &TtrpcContext, _: WaitRequest) -> ttrpc::Result<WaitResponse> {
        Ok(WaitResponse { exit_status: 7, ..Default::default() })
    }
}

/// Breaks the first connection and serves the second.
async fn serve_the_second(listener: UnixListener) {
    drop(listener.accept().await.unwrap());
    let (second, _) = listener.accept().await.unwrap();
    let _server = serve(second, create_task(Arc::new(EndedExecs))).await;
    pending().await
}

#[tokio::test]
async fn a_connection_that_breaks_is_not_the_end_of_a_command() {
    let (runtime, directory) = samples::runtime().await;
    let shared = Arc::clone(&runtime.containers.shared);
    let socket = directory.path().join("shim.sock");
    tokio::spawn(serve_the_second(UnixListener::bind(&socket).unwrap()));
    let shim = Some(ShimAddress { socket: socket.display().to_string(), pid: 0 });
    shared.pods.insert("p", Pod { shim, ..samples::pod("p", PodState::Ready) });
    let exec = shared.shim_of("p").await.unwrap().exec("c", "x");
    let fifos = Fifos::existing(directory.path().join("x"));
    let mut command = Command { shared, pod: "p".into(), exec, fifos };
    assert_eq!(command.end(&CancellationToken::new()).await.unwrap(), 7);
}

#[test]
fn what_is_printed_is_cut_to_what_one_answer_carries() {
    let all = MAX_OUTPUT_BYTES;
    for (printed, kept) in [
        ((3, 5), (3, 5)),
        ((all, 0), (all, 0)),
        ((all + 9, 4), (all - 4, 4)),
        ((4, all + 9), (4, all - 4)),
        ((all, all), (all / 2, all - all / 2)),
    ] {
        let output = ExecOutput { stdout: vec![1; printed.0], stderr: vec![2; printed.1], code: 0 };
        let output = truncate_output(output);
        assert_eq!((output.stdout.len(), output.stderr.len()), kept, "{printed:?}");
    }
}
