//! Additional readers of a container's output, and writers of its input.

use crate::fifos::*;
use crate::fixture::*;
use berth_shim_proto::berth_shim::AttachRequest;
use containerd_shim_protos::api::*;
use std::fs::{self, File};
use std::io::Write;
use ttrpc::Code;

async fn try_attach(shim: &Shim, id: &str, stdout: &str, stderr: &str) -> ttrpc::Result<()> {
    let request =
        AttachRequest { id: id.into(), stdout: stdout.into(), stderr: stderr.into(), ..Default::default() };
    shim.berth.attach(soon(), &request).await.map(drop)
}

/// Attaches to stdout with a new FIFO of that name.
async fn attach(shim: &Shim, id: &str, name: &str) -> File {
    let (reader, path) = fifo(shim, name);
    try_attach(shim, id, &path, "").await.unwrap();
    reader
}

/// Runs a script with input (`once=1`) and a log.
async fn reading(shim: &mut Shim, script: &str, change: impl FnOnce(&mut CreateTaskRequest)) -> String {
    let input = shim.path("in");
    rustix::fs::mknodat(rustix::fs::CWD, &input, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let (stdin, log) = (format!("{}?once=1", input.display()), shim.log_uri("c"));
    shim.try_create("c", script, |request| {
        request.stdin = stdin;
        (request.stdout, request.stderr) = (log.clone(), log);
        change(request);
    })
    .await
    .unwrap();
    shim.start_task("c").await.unwrap();
    input.display().to_string()
}

fn descriptors(shim: &Shim) -> usize {
    fs::read_dir(format!("/proc/{}/fd", shim.pid)).unwrap().count()
}

#[tokio::test]
async fn root_each_reader_gets_what_is_printed_from_then_on_until_the_end() {
    let mut shim = Shim::start().await;
    let input = reading(&mut shim, "echo before; cat; echo error >&2; printf end", |_| {}).await;
    shim.logged("c", "before").await;
    let mut input = writer(&input);
    let first = all_of(attach(&shim, "c", "first").await);
    let (errors, errors_path) = fifo(&shim, "errors");
    try_attach(&shim, "c", "", &errors_path).await.unwrap();
    input.write_all(b"one\n").unwrap();
    shim.logged("c", "one").await;
    let second = all_of(attach(&shim, "c", "second").await);
    input.write_all(b"two\n").unwrap();
    drop(input);
    assert_eq!(shim.wait("c").await, 0);
    assert_eq!(first.await.unwrap(), "one\ntwo\nend");
    assert_eq!(second.await.unwrap(), "two\nend");
    assert_eq!(all_of(errors).await.unwrap(), "error\n");
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_reader_that_does_not_read_costs_nobody_anything() {
    let mut shim = Shim::start().await;
    // Ten times the capacity of the pipe, at a pace that the other reader keeps up with.
    let script = "read go; for n in $(seq 50); do seq 3000; sleep 0.01; done";
    let input = reading(&mut shim, script, |_| {}).await;
    let stuck = attach(&shim, "c", "stuck").await;
    let reader = attach(&shim, "c", "reader").await;
    rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20).unwrap();
    let read = all_of(reader);
    writer(&input).write_all(b"go\n").unwrap();
    assert_eq!(shim.wait("c").await, 0);
    let read = read.await.unwrap();
    assert_eq!(read.lines().count(), shim.log("c").len());
    let lost_the_rest = all_of(stuck).await.unwrap();
    assert!(read.starts_with(&lost_the_rest) && lost_the_rest.len() <= 64 << 10, "{}", lost_the_rest.len());
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_readers_that_leave_are_forgotten_though_nothing_is_printed() {
    let mut shim = Shim::start().await;
    shim.run("c", "echo ready; while :; do sleep 1000; done").await;
    shim.logged("c", "ready").await;
    let before = descriptors(&shim);
    let mut readers = Vec::new();
    for n in 0..20 {
        readers.push(attach(&shim, "c", &format!("reader{n}")).await);
    }
    assert_eq!(descriptors(&shim), before + 20);
    drop(readers);
    until(|| descriptors(&shim) == before).await;
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_an_input_given_once_ends_with_the_one_who_gave_it() {
    let mut shim = Shim::start().await;
    let input = reading(&mut shim, "cat; echo over", |_| {}).await;
    let reader = all_of(attach(&shim, "c", "reader").await);
    writer(&input).write_all(b"mine\n").unwrap();
    assert_eq!(shim.wait("c").await, 0);
    assert_eq!(reader.await.unwrap(), "mine\nover\n");
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_terminal_is_read_as_it_is_and_sized() {
    let mut shim = Shim::start().await;
    let script = "trap 'stty size; exit 2' WINCH; echo ready; while :; do sleep 0.01; done";
    reading(&mut shim, script, |request| request.terminal = true).await;
    shim.logged("c", "ready").await;
    let reader = all_of(attach(&shim, "c", "reader").await);
    let resize = ResizePtyRequest { id: "c".into(), width: 101, height: 33, ..Default::default() };
    shim.task.resize_pty(soon(), &resize).await.unwrap();
    assert_eq!(shim.wait("c").await, 2);
    assert_eq!(reader.await.unwrap(), "33 101\r\n");
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_output_that_nobody_keeps_can_be_read_and_a_closed_stream_has_ended() {
    let mut shim = Shim::start().await;
    let input = reading(&mut shim, "exec 2>&-; cat", |request| {
        (request.stdout, request.stderr) = ("discard://".into(), String::new());
    })
    .await;
    let reader = all_of(attach(&shim, "c", "reader").await);
    let (errors, path) = fifo(&shim, "errors");
    try_attach(&shim, "c", "", &path).await.unwrap();
    assert_eq!(all_of(errors).await.unwrap(), "");
    writer(&input).write_all(b"seen\n").unwrap();
    assert_eq!(shim.wait("c").await, 0);
    assert_eq!(reader.await.unwrap(), "seen\n");
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_only_a_running_container_can_be_attached_to() {
    let mut shim = Shim::start().await;
    let (_reader, path) = fifo(&shim, "out");
    let code_of = async |shim: &Shim| code(try_attach(shim, "c", &path, "").await.unwrap_err());
    assert_eq!(code_of(&shim).await, Code::NOT_FOUND);
    shim.create("c", "exit 0").await;
    assert_eq!(code_of(&shim).await, Code::FAILED_PRECONDITION);
    shim.start_task("c").await.unwrap();
    assert_eq!(shim.wait("c").await, 0);
    assert_eq!(code_of(&shim).await, Code::FAILED_PRECONDITION);
    shim.delete("c").await.unwrap();
}
