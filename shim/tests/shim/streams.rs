//! Destinations of output and sources of input.

use crate::fixture::*;
use berth_shim_proto::berth_shim::ReopenLogRequest;
use containerd_shim_protos::api::*;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use ttrpc::Code;

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

#[tokio::test]
async fn root_both_streams_and_the_last_piece_of_a_line_are_in_the_log() {
    let mut shim = Shim::start().await;
    shim.run("c", "echo one; echo two >&2; printf three").await;
    assert_eq!(shim.wait("c").await, 0);
    let mut log = shim.log("c");
    log.sort();
    assert_eq!(log, ["stderr F two", "stdout F one", "stdout P three"]);
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_lot_of_output_is_complete_across_rotations() {
    const LINES: usize = 200_000;
    let mut shim = Shim::start().await;
    shim.run("c", &format!("seq {LINES}")).await;
    let request = ReopenLogRequest { id: "c".into(), ..Default::default() };
    let mut rotated = Vec::new();
    while shim.status("c").await == Status::RUNNING {
        let old = shim.path(&format!("old{}", rotated.len()));
        fs::rename(shim.log_path("c"), &old).unwrap();
        rotated.push(old);
        match shim.berth.reopen_log(soon(), &request).await {
            Ok(_) => assert!(shim.log_path("c").exists()),
            Err(error) => {
                assert_eq!(code(error), Code::FAILED_PRECONDITION);
                break;
            }
        }
    }
    assert_eq!(shim.wait("c").await, 0);
    rotated.push(shim.log_path("c"));
    let records: Vec<String> = rotated.iter().flat_map(|log| records(log)).collect();
    assert_eq!(records.len(), LINES);
    assert!(records.iter().zip(1..).all(|(record, n)| *record == format!("stdout F {n}")));
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_fifos_carry_input_and_output() {
    let mut shim = Shim::start().await;
    let (stdin, stdout) = (shim.path("in"), shim.path("out"));
    fifo(&stdin);
    fifo(&stdout);
    let (input, output) = (format!("{}?once=1", stdin.display()), stdout.display().to_string());
    shim.try_create("c", "cat; echo end", |request| {
        request.stdin = input;
        request.stdout = output;
    })
    .await
    .unwrap();
    shim.start_task("c").await.unwrap();
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        fs::File::open(stdout).unwrap().read_to_string(&mut text).unwrap();
        text
    });
    OpenOptions::new().write(true).open(&stdin).unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(shim.wait("c").await, 0);
    assert_eq!(reader.await.unwrap(), "hello\nend\n");
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_container_that_has_just_ended_is_deleted_once_its_output_is_passed_on() {
    let mut shim = Shim::start().await;
    let stdout = shim.path("out");
    fifo(&stdout);
    let output = stdout.display().to_string();
    let pid = shim.try_create("c", "echo last words", |request| request.stdout = output).await.unwrap();
    let process = pidfd(pid);
    shim.start_task("c").await.unwrap();
    gone(&process).await;
    assert_eq!(shim.status("c").await, Status::RUNNING, "the shim waits for a reader");
    let reader = tokio::task::spawn_blocking(move || fs::read_to_string(stdout).unwrap());
    assert_eq!(shim.delete("c").await.unwrap().exit_status, 0);
    assert_eq!(reader.await.unwrap(), "last words\n");
}

#[tokio::test]
async fn root_closing_the_input_ends_it() {
    let mut shim = Shim::start().await;
    let stdin = shim.path("in");
    fifo(&stdin);
    let (input, log) = (stdin.display().to_string(), shim.log_uri("c"));
    shim.try_create("c", "cat", |request| {
        request.stdin = input;
        request.stdout = log;
    })
    .await
    .unwrap();
    shim.start_task("c").await.unwrap();
    for text in ["first\n", "second\n"] {
        OpenOptions::new().write(true).open(&stdin).unwrap().write_all(text.as_bytes()).unwrap();
        shim.logged("c", text.trim()).await;
    }
    let close = CloseIORequest { id: "c".into(), stdin: true, ..Default::default() };
    shim.task.close_io(soon(), &close).await.unwrap();
    assert_eq!(shim.wait("c").await, 0);
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_terminal_has_a_size_and_its_output_is_logged() {
    let mut shim = Shim::start().await;
    let log = shim.log_uri("c");
    shim.try_create(
        "c",
        "trap 'stty size; exit 2' WINCH; echo ready; while :; do sleep 0.01; done",
        |request| {
            request.terminal = true;
            request.stdout = log;
        },
    )
    .await
    .unwrap();
    shim.start_task("c").await.unwrap();
    shim.logged("c", "ready").await;
    let resize = ResizePtyRequest { id: "c".into(), width: 101, height: 33, ..Default::default() };
    shim.task.resize_pty(soon(), &resize).await.unwrap();
    assert_eq!(shim.wait("c").await, 2);
    assert!(shim.log("c").iter().any(|record| record.contains("33 101")), "{:?}", shim.log("c"));
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_container_without_streams_reads_nothing_and_prints_nowhere() {
    let mut shim = Shim::start().await;
    shim.try_create("c", "cat; echo gone", |_| {}).await.unwrap();
    shim.start_task("c").await.unwrap();
    assert_eq!(shim.wait("c").await, 0);
    let request = ReopenLogRequest { id: "c".into(), ..Default::default() };
    assert_eq!(code(shim.berth.reopen_log(soon(), &request).await.unwrap_err()), Code::FAILED_PRECONDITION);
    shim.delete("c").await.unwrap();
}
