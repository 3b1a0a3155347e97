use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::pod,
    waiting::{eventually, until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::restart::{processes_with, shim_of};

/// Leftovers of a daemon that was killed while it ran a pod. The next daemon must remove them all.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leftovers {
    shims: usize,
    pins: Vec<String>,
    bundles: Vec<String>,
    sockets: usize,
}

impl Leftovers {
    fn of(berth: &Berth) -> Self {
        let bundles = berth.path().join("run/sandboxes");
        Self {
            shims: processes_with(&bundles.display().to_string()),
            pins: pins(berth.path()),
            bundles: names(&bundles),
            sockets: names(&berth.path().join("run/s")).len(),
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files in the daemon's netns directory: pinned network namespaces, and the files of unmounted ones.
fn pins(directory: &Path) -> Vec<String> {
    names(&directory.join("netns"))
}

async fn nothing_is_left(berth: &Berth) {
    eventually(async || Leftovers::of(berth), |left| *left == Leftovers::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_killed_at_any_instant_of_running_a_pod_leaves_nothing_of_it() {
    let mut berth = Berth::start().await;
    let bystander = berth.run(&pod(&berth, "bystander")).await.unwrap();
    let shim = shim_of(&bystander);
    let before = Leftovers::of(&berth);
    for round in 0..12_u64 {
        let sandbox = pod(&berth, &format!("killed{round}"));
        let request =
            v1::RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
        let mut client = berth.runtime.clone();
        let running = tokio::spawn(async move { client.run_pod_sandbox(request).await });
        // The instants are spread over the duration of RunPodSandbox.
        tokio::time::sleep(Duration::from_micros(1500 * round)).await;
        berth.kill();
        let answered = running.await.unwrap().is_ok();
        berth.restart().await;
        let again = berth.run(&sandbox).await.unwrap();
        if answered {
            assert_eq!(berth.pod_status(&again).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
        }
        berth.remove_pod(&again).await.unwrap();
        eventually(async || Leftovers::of(&berth), |left| *left == before).await;
    }
    assert_eq!(shim_of(&bystander), shim, "another pod is untouched");
    berth.remove_pod(&bystander).await.unwrap();
    nothing_is_left(&berth).await;
}

/// Writes a shim script that waits at a gate: before the real shim is started, or when it serves but has not answered.
/// At the gate it makes a file `waits`, and it goes on when there is a file `go`.
fn gated_shim(directory: &Path, before: bool) -> PathBuf {
    let real = berth_tests::program("BERTH_TEST_BIN").join("containerd-shim-berth-v1");
    let gate = format!("touch {0}/waits; while [ ! -e {0}/go ]; do sleep 0.01; done", directory.display());
    let (early, late) = if before { (gate.as_str(), "") } else { ("", gate.as_str()) };
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\n[ $last = start ] || exec {real} \"$@\"\n{early}\nout=$({real} \"$@\") || exit\n{late}\n\
         printf %s \"$out\"\n",
        real = real.display()
    );
    let path = directory.join("shim");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn killed_while_its_shim_is_at_the_gate(before: bool) {
    let directory = tempfile::tempdir().unwrap();
    let gate = |name| directory.path().join(name);
    let shim = gated_shim(directory.path(), before);
    let mut berth = Berth::start_with_pods(&format!("shim = {shim:?}\n")).await;
    let request =
        v1::RunPodSandboxRequest { config: Some(pod(&berth, "gated")), runtime_handler: String::new() };
    let mut client = berth.runtime.clone();
    let running = tokio::spawn(async move { client.run_pod_sandbox(request).await });
    until("the shim is at the gate", || gate("waits").exists()).await;
    berth.kill();
    running.await.unwrap().unwrap_err();
    berth.restart().await;
    fs::write(gate("go"), "").unwrap();
    nothing_is_left(&berth).await;
    let pods = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    assert!(pods.into_inner().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_shim_that_comes_to_life_after_its_daemon_was_killed_is_ended() {
    killed_while_its_shim_is_at_the_gate(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_shim_that_its_killed_daemon_never_heard_of_is_ended() {
    killed_while_its_shim_is_at_the_gate(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_records_that_cannot_be_read_are_made_again_of_bundles_and_shims() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("lost", &image, "exec sleep 1000").await;
    let (other, untouched) = berth.run_alone("kept", &image, "exec sleep 1000").await;
    let (gone, ended) = berth.run_alone("dead", &image, "exec sleep 1000").await;
    let before = berth.pod_status(&pod).await.unwrap();
    berth.kill();
    kill(shim_of(&gone), Signal::SIGKILL).unwrap();
    let damage = format!(
        "UPDATE pod SET record = substr(record, 1, 20) WHERE id != '{other}';
         UPDATE container SET record = 'nothing' WHERE id != '{untouched}';"
    );
    let state = rusqlite::Connection::open(berth.path().join("root/state.db")).unwrap();
    state.execute_batch(&damage).unwrap();
    drop(state);
    berth.restart().await;
    assert_eq!(berth.pod_status(&pod).await.unwrap(), before);
    let state = async || berth.status(&id).await.unwrap().state();
    eventually(state, |state| *state == v1::ContainerState::ContainerRunning).await;
    assert_eq!(berth.shell(&id, "echo alive").await, "alive\n");
    let status = async || berth.status(&ended).await.unwrap().state();
    eventually(status, |state| *state == v1::ContainerState::ContainerExited).await;
    let state = async || berth.pod_status(&gone).await.unwrap().state();
    eventually(state, |state| *state == v1::PodSandboxState::SandboxNotready).await;
    berth.stop_container(&id, 0).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 137);
    assert!(berth.log().contains("set aside"), "{}", berth.log());
    berth.remove_all_pods().await;
    nothing_is_left(&berth).await;
}

/// A daemon that is killed after it has recorded that a start failed, and before it has killed the container, leaves this.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_runs_though_its_start_is_recorded_as_failed_is_killed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("refused", &image, "exec sleep 1000").await;
    berth.kill();
    let failed = r#"{"Exited": {"started_at": 0, "finished_at": 1, "code": 128, "reason": "StartError", "message": ""}}"#;
    let state = rusqlite::Connection::open(berth.path().join("root/state.db")).unwrap();
    let pid = "SELECT json_extract(record, '$.state.Running.pid') FROM container WHERE id = ?1";
    let pid: u32 = state.query_row(pid, [&id], |row| row.get(0)).unwrap();
    let fail = "UPDATE container SET record = json_set(record, '$.state', json(?2)) WHERE id = ?1";
    assert_eq!(state.execute(fail, [&id, failed]).unwrap(), 1);
    drop(state);
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    berth.restart().await;
    until("its process is gone", || !fs::exists(format!("/proc/{pid}")).unwrap()).await;
    let status = berth.status(&id).await.unwrap();
    assert_eq!((status.state(), status.reason.as_str()), (v1::ContainerState::ContainerExited, "StartError"));
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left(&berth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_that_lost_its_whole_state_finds_its_pods_again() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("found", &image, "exec sleep 1000").await;
    berth.kill();
    let state = berth.path().join("root/state.db");
    // The write-ahead log would restore the database.
    fs::remove_file(state.with_extension("db-wal")).unwrap();
    fs::write(state, "this is not a database, and longer than its header".repeat(4)).unwrap();
    berth.restart().await;
    assert_eq!(berth.shell(&id, "echo alive").await, "alive\n");
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left(&berth).await;
}

/// A process stopped by SIGSTOP. Dropping it continues the process, also when the test fails.
pub(super) struct Frozen(Pid);

impl Frozen {
    /// Stops the process, so that it answers no call.
    pub(super) fn freeze(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
