//! Behaviour when the host runs out of a resource.

use crate::fixture::*;
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim_async::{Client, TaskClient};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Sets the shim's limit of open descriptors.
fn allow_descriptors(shim: &Shim, count: u64) {
    let limit = Rlimit { current: Some(count), maximum: Some(20_000) };
    prlimit(Pid::from_raw(shim.pid as i32), Resource::Nofile, limit).unwrap();
}

fn descriptors(shim: &Shim) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", shim.pid)).unwrap().count() as u64
}

/// User and system time of the shim in clock ticks.
fn processor_time(shim: &Shim) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", shim.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn root_without_descriptors_connections_wait_and_nothing_spins() {
    let shim = Shim::start().await;
    allow_descriptors(&shim, descriptors(&shim));
    let path = shim.address.strip_prefix("unix://").unwrap();
    let waiting = UnixStream::connect(path).unwrap();
    let before = processor_time(&shim);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(processor_time(&shim) - before < 10, "it spins");
    allow_descriptors(&shim, 1000);
    drop(waiting);
    let task = TaskClient::new(Client::connect(&shim.address).await.unwrap());
    assert_eq!(task.connect(soon(), &ConnectRequest::default()).await.unwrap().shim_pid, shim.pid);
}

/// Runs out at every point, from the first descriptor that a creation needs to the last.
#[tokio::test]
async fn root_a_creation_that_runs_out_of_descriptors_leaves_nothing() {
    let mut shim = Shim::start().await;
    shim.run("bystander", "exec sleep 1000").await;
    let (idle, mut made) = (descriptors(&shim), 0);
    for spare in 0..40 {
        let id = format!("c{spare}");
        let log = shim.log_uri(&id);
        let bundle = shim.bundle(&id, "exec sleep 1000", |_| {});
        allow_descriptors(&shim, idle + spare);
        let created = shim.create_in(&id, &bundle, |request| request.stdout = log).await;
        let started = if created.is_ok() { shim.start_task(&id).await.is_ok() } else { false };
        allow_descriptors(&shim, 1000);
        if created.is_ok() {
            made += u32::from(started);
            shim.kill(&id, 9).await.unwrap();
            shim.wait(&id).await;
            shim.delete(&id).await.unwrap();
        }
        until(|| shim.children().len() == 1 && descriptors(&shim) == idle).await;
        assert!(shim.cgroups().iter().all(|group| !group.join(&id).exists()), "{spare} spare");
        assert!(!bundle.join("exit.json.new").exists(), "{spare} spare");
    }
    assert!(made > 5 && made < 40, "{made} were made");
    assert_eq!(shim.exec("bystander", "exit 7", Duration::from_secs(60)).await.2, 7);
}

#[tokio::test]
async fn root_an_exec_that_runs_out_of_descriptors_leaves_nothing() {
    let mut shim = Shim::start().await;
    shim.run("c", "exec sleep 1000").await;
    // Each exec also needs one for its connection.
    let idle = descriptors(&shim);
    let (mut done, args) = (0, ["/bin/sh", "-c", "exit 7"]);
    for spare in 1..25 {
        allow_descriptors(&shim, idle + spare);
        let answer = shim.exec_args("c", &args, Duration::from_secs(60)).await;
        done += u32::from(answer.is_ok_and(|(_, _, code, _)| code == 7));
        allow_descriptors(&shim, 1000);
        until(|| shim.children().len() == 1 && descriptors(&shim) == idle).await;
    }
    assert!(done > 5 && done < 24, "{done} were done");
}

#[tokio::test]
async fn root_the_shim_may_have_all_descriptors_and_its_containers_what_it_was_given() {
    let mut shim = Shim::start_limited(1000, 4000).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", shim.pid)).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["4000", "4000"]);
    shim.run("given", "ulimit -Sn; ulimit -Hn; exec sleep 1000").await;
    shim.logged("given", "4000").await;
    assert_eq!(shim.log("given"), ["stdout F 1000", "stdout F 4000"]);
    assert_eq!(shim.exec("given", "ulimit -Sn", Duration::from_secs(60)).await.0, "1000\n");
    let bundle = shim.bundle("asked", "ulimit -Sn", |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 2000, "hard": 3000}]);
    });
    let log = shim.log_uri("asked");
    shim.create_in("asked", &bundle, |request| request.stdout = log).await.unwrap();
    shim.start_task("asked").await.unwrap();
    shim.wait("asked").await;
    assert_eq!(shim.log("asked"), ["stdout F 2000"]);
}

/// A hook without a timeout ends with its container.
#[tokio::test]
async fn root_a_hook_without_end_does_not_keep_its_container() {
    let mut shim = Shim::start().await;
    let bundle = shim.bundle("c", "exec sleep 1000", |config| {
        config["hooks"] = json!({"poststart": [{"path": "/bin/sleep", "args": ["sleep", "5554443"]}]});
    });
    shim.create_in("c", &bundle, |_| {}).await.unwrap();
    let task = shim.task.clone();
    let request = StartRequest { id: "c".into(), ..Default::default() };
    let starting = tokio::spawn(async move { task.start(soon(), &request).await });
    until(|| !processes_with("sleep 5554443").is_empty()).await;
    shim.kill("c", 9).await.unwrap();
    assert_eq!(shim.wait("c").await, 137);
    starting.await.unwrap().unwrap();
    until(|| processes_with("sleep 5554443").is_empty()).await;
    shim.delete("c").await.unwrap();
}

/// A process in a frozen cgroup, which no signal ends, stands for one that waits for a dead file system.
#[tokio::test]
async fn root_who_cannot_die_in_a_shared_pid_namespace_keeps_nobody_waiting() {
    let Some(frozen) = Frozen::new() else { return };
    let shim = Shim::with_sandbox(|options| options.shared_pid = true).await;
    let containers = shim.berth.containers(soon(), &Default::default()).await.unwrap();
    let join = format!("--target={}", containers.pod_init_pid);
    let mut stuck = std::process::Command::new("nsenter")
        .args([&join, "--pid", "sh", "-c", "echo; exec sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(stuck.stdout.as_mut().unwrap()),
        &mut String::new(),
    )
    .unwrap();
    frozen.take(stuck.id());
    let stopping = {
        let (sandbox, id) = (shim.sandbox.clone(), shim.id.clone());
        let request =
            containerd_shim_protos::sandbox_api::StopSandboxRequest { sandbox_id: id, ..Default::default() };
        tokio::spawn(async move { sandbox.stop_sandbox(soon(), &request).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The shim answers other calls meanwhile.
    shim.task
        .connect(ttrpc::context::with_duration(Duration::from_secs(5)), &ConnectRequest::default())
        .await
        .unwrap();
    stopping.await.unwrap().unwrap();
    drop(frozen);
    stuck.wait().unwrap();
    until(|| shim.children().is_empty()).await;
}

/// A container that does not die must not keep its pod.
#[tokio::test]
async fn root_a_pod_is_stopped_whose_container_cannot_die() {
    let Some(frozen) = Frozen::new() else { return };
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let pid = shim.run("c", "exec sleep 1000").await;
    frozen.take(pid);
    let request = containerd_shim_protos::sandbox_api::StopSandboxRequest {
        sandbox_id: shim.id.clone(),
        timeout_secs: 1,
        ..Default::default()
    };
    shim.sandbox.stop_sandbox(soon(), &request).await.unwrap();
    assert_eq!(shim.wait("c").await, 137);
    let record = fs::read_to_string(shim.path("c/exit.json")).unwrap();
    assert!(record.contains("does not die"), "{record}");
    shim.delete("c").await.unwrap();
    drop(frozen);
    until(|| shim.children().is_empty()).await;
    until(|| shim.cgroups().iter().all(|group| !group.join("c").exists())).await;
}

/// Nor may one whose execve hangs in a file system that does not answer.
#[tokio::test]
async fn root_a_pod_is_stopped_whose_container_hangs_in_its_start() {
    let Some(frozen) = Frozen::new() else { return };
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let pid = shim.create("c", "exec sleep 1000").await;
    frozen.take(pid);
    let task = shim.task.clone();
    let request = StartRequest { id: "c".into(), ..Default::default() };
    let starting = tokio::spawn(async move { task.start(soon(), &request).await });
    let request = containerd_shim_protos::sandbox_api::StopSandboxRequest {
        sandbox_id: shim.id.clone(),
        timeout_secs: 1,
        ..Default::default()
    };
    shim.sandbox.stop_sandbox(soon(), &request).await.unwrap();
    let error = starting.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("given up while it waited to execute its command"), "{error}");
    assert_eq!(shim.wait("c").await, 137);
    drop(frozen);
    // Even before its container is deleted.
    until(|| shim.children().is_empty()).await;
    shim.delete("c").await.unwrap();
}

/// A tmpfs, unmounted when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: std::path::PathBuf, size: usize) -> Self {
        fs::create_dir_all(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("disk", &path, "tmpfs", flags, Some(options.as_c_str())).unwrap();
        Self(path)
    }

    fn fill(&self) {
        let full = fs::write(self.0.join("filler"), vec![1; 16 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn root_a_full_disk_stops_no_container_and_loses_no_end() {
    let mut shim = Shim::start().await;
    let disk = Disk::mount(shim.path("c"), 8 << 20);
    let bundle = shim.bundle("c", "read go; seq 100000; exit 3", |_| {});
    let (log, input) = (format!("cri-log://{}", bundle.join("log").display()), bundle.join("in"));
    rustix::fs::mknodat(rustix::fs::CWD, &input, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    shim.create_in("c", &bundle, |request| {
        request.stdout = log;
        request.stdin = format!("{}?once=1", input.display());
    })
    .await
    .unwrap();
    shim.start_task("c").await.unwrap();
    disk.fill();
    fs::write(&input, "go\n").unwrap();
    assert_eq!(shim.wait("c").await, 3);
    assert!(fs::read_to_string(bundle.join("exit.json")).unwrap().contains("\"code\":3"));
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_creation_on_a_full_disk_says_so_and_leaves_nothing() {
    let mut shim = Shim::start().await;
    let disk = Disk::mount(shim.path("c"), 8 << 20);
    let bundle = shim.bundle("c", "true", |_| {});
    disk.fill();
    let error = shim.create_in("c", &bundle, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("exit record of c: No space left"), "{error}");
    assert!(shim.children().is_empty() && shim.cgroups().is_empty());
    fs::remove_file(bundle.join("filler")).unwrap();
    shim.create_in("c", &bundle, |_| {}).await.unwrap();
    shim.start_task("c").await.unwrap();
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
}

/// As on a host, or in a cgroup of the daemon, at its limit of processes.
#[tokio::test]
async fn root_without_room_for_a_process_a_call_fails_and_leaves_nothing() {
    let mut shim = Shim::start().await;
    shim.run("c", "exec sleep 1000").await;
    let group =
        std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/berth-test-full-{}", std::process::id()));
    if fs::create_dir(&group).is_err() {
        return;
    }
    fs::write(group.join("cgroup.procs"), shim.pid.to_string()).unwrap();
    fs::write(group.join("pids.max"), "1").unwrap();
    let idle = descriptors(&shim);
    let error = shim.try_create("d", "true", |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("Resource temporarily unavailable"), "{error}");
    assert!(shim.exec_args("c", &["true"], Duration::from_secs(60)).await.is_err());
    until(|| descriptors(&shim) == idle && shim.children().len() == 1).await;
    assert!(shim.cgroups().iter().all(|group| !group.join("d").exists()));
    fs::write(group.join("pids.max"), "max").unwrap();
    assert_eq!(shim.exec("c", "exit 7", Duration::from_secs(60)).await.2, 7);
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await;
    shim.kill_shim().await;
    until(|| fs::remove_dir(&group).is_ok()).await;
}

/// A frozen v1 cgroup, in which even killed processes do not die; one per test.
struct Frozen(std::path::PathBuf);

impl Frozen {
    fn new() -> Option<Self> {
        must_be_root();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let hierarchy = std::path::Path::new("/sys/fs/cgroup/freezer");
        if !hierarchy.exists() {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = hierarchy.join(format!("berth-test-frozen-{}-{number}", std::process::id()));
        fs::create_dir(&group).unwrap();
        Some(Self(group))
    }

    /// Moves the process and its children into the cgroup and freezes it.
    fn take(&self, pid: u32) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        for pid in children.split_whitespace().chain([pid.to_string().as_str()]) {
            fs::write(self.0.join("cgroup.procs"), pid).unwrap();
        }
        fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
