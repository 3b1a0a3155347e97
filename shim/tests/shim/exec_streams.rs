//! Execs by shim v2's calls, with streams that the caller holds.

use crate::fifos::*;
use crate::fixture::*;
use crate::measure::ticks;
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::json;
use std::io::Write;
use std::time::Instant;

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

/// Adds the exec "e".
async fn add(shim: &Shim, script: &str, change: impl FnOnce(&mut ExecProcessRequest)) {
    let process = json!({
        "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0},
    });
    let spec = Any { value: process.to_string().into_bytes(), ..Default::default() };
    let mut request = ExecProcessRequest {
        id: "c".into(),
        exec_id: "e".into(),
        spec: MessageField::some(spec),
        ..Default::default()
    };
    change(&mut request);
    shim.task.exec(soon(), &request).await.unwrap();
}

async fn start(shim: &Shim) {
    let request = StartRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    shim.task.start(soon(), &request).await.unwrap();
}

async fn wait(shim: &Shim) -> u32 {
    let request = WaitRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    shim.task.wait(soon(), &request).await.unwrap().exit_status
}

async fn kill(shim: &Shim) {
    let request =
        KillRequest { id: "c".into(), exec_id: "e".into(), signal: 9, all: true, ..Default::default() };
    shim.task.kill(soon(), &request).await.unwrap();
}

#[tokio::test]
async fn root_a_reader_that_takes_its_time_gets_the_last_byte_too() {
    const BYTES: usize = 300_000;
    let shim = running().await;
    let (reader, stdout) = fifo(&shim, "out");
    add(&shim, &format!("head -c {BYTES} /dev/zero"), |request| request.stdout = stdout).await;
    start(&shim).await;
    // Longer than the shim waits for a reader of a container's FIFO.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(all_of(reader).await.unwrap().len(), BYTES);
    assert_eq!(wait(&shim).await, 0);
    end(shim).await;
}

#[tokio::test]
async fn root_a_reader_that_leaves_breaks_the_pipe_of_the_command() {
    let shim = running().await;
    let (reader, stdout) = fifo(&shim, "out");
    add(&shim, "exec yes", |request| request.stdout = stdout).await;
    start(&shim).await;
    drop(reader);
    assert_eq!(wait(&shim).await, 128 + 13);
    end(shim).await;
}

#[tokio::test]
async fn root_a_child_that_goes_on_printing_does_not_keep_the_end_back() {
    let shim = running().await;
    let (reader, stdout) = fifo(&shim, "out");
    add(&shim, "yes 9876543 & exit 3", |request| request.stdout = stdout).await;
    start(&shim).await;
    let printed = all_of(reader);
    assert_eq!(wait(&shim).await, 3);
    printed.await.unwrap();
    end(shim).await;
    until(|| processes_with("yes 9876543").is_empty()).await;
}

#[tokio::test]
async fn root_an_input_that_is_closed_ends_and_the_output_goes_on() {
    let shim = running().await;
    let (reader, stdout) = fifo(&shim, "out");
    let (input, stdin) = fifo(&shim, "in");
    add(&shim, "cat; echo after", |request| (request.stdin, request.stdout) = (stdin.clone(), stdout)).await;
    start(&shim).await;
    let printed = all_of(reader);
    drop(input);
    writer(&stdin).write_all(b"before\n").unwrap();
    let request = CloseIORequest { id: "c".into(), exec_id: "e".into(), stdin: true, ..Default::default() };
    shim.task.close_io(soon(), &request).await.unwrap();
    assert_eq!(wait(&shim).await, 0);
    assert_eq!(printed.await.unwrap(), "before\nafter\n");
    end(shim).await;
}

#[tokio::test]
async fn root_killing_all_of_a_command_ends_what_it_started() {
    let shim = running().await;
    let (reader, stdout) = fifo(&shim, "out");
    add(&shim, "setsid sleep 6789012 & sleep 6789012; true", |request| request.stdout = stdout).await;
    start(&shim).await;
    until(|| processes_with("sleep 6789012").len() == 2).await;
    kill(&shim).await;
    assert_eq!(wait(&shim).await, 137);
    until(|| processes_with("sleep 6789012").is_empty()).await;
    drop(reader);
    end(shim).await;
}

#[tokio::test]
async fn root_a_terminal_has_the_size_that_was_asked_for_before_it_was_made() {
    let shim = running().await;
    let (reader, stdout) = fifo(&shim, "out");
    add(&shim, "while [ -z \"$(stty size 2>/dev/null)\" ]; do :; done; stty size", |request| {
        (request.terminal, request.stdout) = (true, stdout);
    })
    .await;
    let size = ResizePtyRequest {
        id: "c".into(),
        exec_id: "e".into(),
        width: 101,
        height: 33,
        ..Default::default()
    };
    shim.task.resize_pty(soon(), &size).await.unwrap();
    start(&shim).await;
    let printed = all_of(reader);
    assert_eq!(wait(&shim).await, 0);
    assert_eq!(printed.await.unwrap(), "33 101\r\n");
    end(shim).await;
}

async fn delete(shim: &Shim) {
    let request = DeleteRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    shim.task.delete(soon(), &request).await.unwrap();
}

/// For the release binary, like those in `measure.rs`.
#[tokio::test]
#[ignore = "prints figures"]
async fn root_measure_exec_streams() {
    let shim = running().await;
    let mut times = Vec::new();
    for n in 0..200 {
        let (_reader, stdout) = fifo(&shim, &format!("out{n}"));
        let began = Instant::now();
        add(&shim, "exit 0", |request| request.stdout = stdout).await;
        start(&shim).await;
        wait(&shim).await;
        times.push(began.elapsed());
        delete(&shim).await;
    }
    times.sort();
    println!("exec to exit: median {:?}, p90 {:?}", times[100], times[180]);
    const BLOCKS: usize = 8000;
    let (reader, stdout) = fifo(&shim, "out");
    rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20).unwrap();
    let script = format!("exec dd if=/dev/zero bs=64k count={BLOCKS} 2>&-");
    add(&shim, &script, |request| request.stdout = stdout).await;
    let began = Instant::now();
    start(&shim).await;
    let before = ticks(&shim);
    let mut sink = std::process::Command::new("dd");
    sink.args(["of=/dev/null", "bs=256k"]).stdin(blocking(reader)).stderr(std::process::Stdio::null());
    assert!(sink.status().unwrap().success());
    let (bytes, cpu) = ((BLOCKS << 16) as f64, (ticks(&shim) - before) * 10);
    println!("output: {:.0} MB/s, {cpu} ms of the shim", bytes / 1e6 / began.elapsed().as_secs_f64());
    end(shim).await;
}
