//! A real shim in a directory of its own, and bundles with busybox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use berth_shim_proto::berth_shim::exec_sync_output::What;
use berth_shim_proto::berth_shim::{ExecSyncRequest, SandboxOptions};
use berth_shim_proto::berth_shim_ttrpc::ShimClient;
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::sandbox_async::SandboxClient;
use containerd_shim_protos::shim_async::{Client, TaskClient};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use ttrpc::context::{Context, with_duration};

const NAMESPACE: &str = "berth-test";

/// A deadline long enough for a machine under load, short enough to notice a hang.
pub fn soon() -> Context {
    with_duration(Duration::from_secs(60))
}

pub fn must_be_root() {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "needs root: sudo -E $(which cargo) test -p berth-shim root_");
}

/// A shim, its clients and its directory.
pub struct Shim {
    pub directory: TempDir,
    pub id: String,
    pub address: String,
    pub task: TaskClient,
    pub sandbox: SandboxClient,
    pub berth: ShimClient,
    pub pid: u32,
    pidfd: OwnedFd,
    containers: Vec<String>,
}

impl Shim {
    /// Starts a shim without a sandbox.
    pub async fn start() -> Self {
        Self::start_with_events("").await
    }

    /// Starts a shim with these limits of open descriptors.
    pub async fn start_limited(soft: u64, hard: u64) -> Self {
        let limit = format!("--nofile={soft}:{hard}");
        Self::start_by(|shim| {
            let mut command = Command::new("prlimit");
            command.arg(&limit).arg(shim.get_program()).args(shim.get_args());
            command.current_dir(shim.get_current_dir().unwrap()).stdin(Stdio::null());
            command
        })
        .await
    }

    /// Starts a shim that forwards events to a ttrpc socket.
    pub async fn start_with_events(events: &str) -> Self {
        let events = events.to_owned();
        Self::start_by(|mut shim| {
            shim.env("TTRPC_ADDRESS", events);
            shim
        })
        .await
    }

    async fn start_by(starting: impl FnOnce(Command) -> Command) -> Self {
        must_be_root();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join(&id);
        fs::create_dir(&bundle).unwrap();
        let address = answer(&mut starting(command(directory.path(), &bundle, &id)));
        let client = Client::connect(&address).await.unwrap();
        let task = TaskClient::new(client.clone());
        let pid = task.connect(soon(), &ConnectRequest::default()).await.unwrap().shim_pid;
        let pidfd = pidfd(pid);
        let (sandbox, berth) = (SandboxClient::new(client.clone()), ShimClient::new(client));
        Self { directory, id, address, task, sandbox, berth, pid, pidfd, containers: Vec::new() }
    }

    /// Starts a shim with a sandbox that has its own network namespace.
    pub async fn with_sandbox(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let shim = Self::start().await;
        let mut options =
            SandboxOptions { cgroup_path: shim.cgroup(), hostname: "pod".into(), ..Default::default() };
        change(&mut options);
        let value = options.write_to_bytes().unwrap();
        let any = Any { type_url: "berth.shim.v1.SandboxOptions".into(), value, ..Default::default() };
        let netns_path =
            if options.host_network { String::new() } else { shim.netns().display().to_string() };
        let sandbox_id = shim.id.clone();
        let create = CreateSandboxRequest {
            sandbox_id,
            netns_path,
            options: MessageField::some(any),
            ..Default::default()
        };
        shim.sandbox.create_sandbox(soon(), &create).await.unwrap();
        let start = StartSandboxRequest { sandbox_id: shim.id.clone(), ..Default::default() };
        shim.sandbox.start_sandbox(soon(), &start).await.unwrap();
        shim
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn netns(&self) -> PathBuf {
        self.path("netns")
    }

    /// Cgroup path of the pod, below each hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("/berth-test-{}", self.id)
    }

    /// Existing directories of the pod's cgroup.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let below = |root: &Path| root.join(self.cgroup().trim_start_matches('/'));
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()));
        roots.iter().map(|root| below(root)).filter(|path| path.exists()).collect()
    }

    /// Makes a bundle whose process runs a shell script.
    pub fn bundle(&mut self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.path(id);
        rootfs(&bundle.join("rootfs"));
        let mut config = json!({
            "ociVersion": "1.3.0",
            "process": {
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin", "GREETING=hello"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
            ],
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "pid"}],
                "cgroupsPath": format!("{}/{id}", self.cgroup()),
            },
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        self.containers.push(id.to_owned());
        bundle
    }

    /// Creates a container whose output goes to its log.
    pub async fn create(&mut self, id: &str, script: &str) -> u32 {
        let log = self.log_uri(id);
        self.try_create(id, script, |request| {
            request.stdout = log.clone();
            request.stderr = log;
        })
        .await
        .unwrap()
    }

    pub async fn try_create(
        &mut self,
        id: &str,
        script: &str,
        change: impl FnOnce(&mut CreateTaskRequest),
    ) -> ttrpc::Result<u32> {
        let bundle = self.bundle(id, script, |_| {});
        self.create_in(id, &bundle, change).await
    }

    pub async fn create_in(
        &self,
        id: &str,
        bundle: &Path,
        change: impl FnOnce(&mut CreateTaskRequest),
    ) -> ttrpc::Result<u32> {
        let mut request =
            CreateTaskRequest { id: id.into(), bundle: bundle.display().to_string(), ..Default::default() };
        change(&mut request);
        Ok(self.task.create(soon(), &request).await?.pid)
    }

    pub async fn start_task(&self, id: &str) -> ttrpc::Result<u32> {
        let request = StartRequest { id: id.into(), ..Default::default() };
        Ok(self.task.start(soon(), &request).await?.pid)
    }

    /// Creates and starts a container. Returns its pid.
    pub async fn run(&mut self, id: &str, script: &str) -> u32 {
        self.create(id, script).await;
        self.start_task(id).await.unwrap()
    }

    pub async fn wait(&self, id: &str) -> u32 {
        let request = WaitRequest { id: id.into(), ..Default::default() };
        self.task.wait(soon(), &request).await.unwrap().exit_status
    }

    pub async fn kill(&self, id: &str, signal: u32) -> ttrpc::Result<Empty> {
        let request = KillRequest { id: id.into(), signal, ..Default::default() };
        self.task.kill(soon(), &request).await
    }

    pub async fn delete(&self, id: &str) -> ttrpc::Result<DeleteResponse> {
        self.task.delete(soon(), &DeleteRequest { id: id.into(), ..Default::default() }).await
    }

    pub async fn status(&self, id: &str) -> Status {
        let request = StateRequest { id: id.into(), ..Default::default() };
        self.task.state(soon(), &request).await.unwrap().status.unwrap()
    }

    pub async fn stop_sandbox(&self) {
        let request = StopSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.stop_sandbox(soon(), &request).await.unwrap();
    }

    /// Shuts the shim down and waits for its exit.
    pub async fn shutdown(&self) {
        let request = ShutdownSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.shutdown_sandbox(soon(), &request).await.unwrap();
        gone(&self.pidfd).await;
    }

    /// Kills the shim with SIGKILL and waits for its exit.
    pub async fn kill_shim(&self) {
        pidfd_send_signal(&self.pidfd, Signal::KILL).unwrap();
        gone(&self.pidfd).await;
    }

    /// Runs the `delete` action for a bundle.
    pub fn clean_up(&self, id: &str) -> DeleteResponse {
        DeleteResponse::parse_from_bytes(&self.try_clean_up(id).unwrap()).unwrap()
    }

    /// Standard output of the `delete` action; on failure its standard error.
    pub fn try_clean_up(&self, id: &str) -> Result<Vec<u8>, String> {
        let output = command(self.directory.path(), &self.path(id), id).arg("delete").output().unwrap();
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Pids of its children, including zombies.
    pub fn children(&self) -> Vec<u32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    pub fn log_uri(&self, id: &str) -> String {
        format!("cri-log://{}?max-line=16384", self.log_path(id).display())
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.path(&format!("{id}.log"))
    }

    /// Records of a container's log, without timestamps.
    pub fn log(&self, id: &str) -> Vec<String> {
        records(&self.log_path(id))
    }

    /// Waits until the log has a record with this end.
    pub async fn logged(&self, id: &str, end: &str) {
        until(|| records(&self.log_path(id)).iter().any(|record| record.ends_with(end))).await;
    }

    /// Runs a shell script by ExecSync: stdout, stderr, code, whether it timed out.
    pub async fn exec(&self, id: &str, script: &str, timeout: Duration) -> (String, String, u32, bool) {
        self.exec_args(id, &["/bin/sh", "-c", script], timeout).await.unwrap()
    }

    pub async fn exec_args(
        &self,
        id: &str,
        args: &[&str],
        timeout: Duration,
    ) -> ttrpc::Result<(String, String, u32, bool)> {
        let client = ShimClient::new(Client::connect(&self.address).await?);
        let request = ExecSyncRequest {
            container_id: id.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            timeout_ns: timeout.as_nanos() as i64,
            ..Default::default()
        };
        let mut stream = client.exec_sync(soon(), &request).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(message) = stream.recv().await? {
            match message.what {
                Some(What::Stdout(bytes)) => stdout.extend(bytes),
                Some(What::Stderr(bytes)) => stderr.extend(bytes),
                Some(What::End(end)) => {
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return Ok((text(stdout), text(stderr), end.code, end.timed_out));
                }
                _ => {}
            }
        }
        panic!("the stream ended without an end");
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // Leftovers of a failed test.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        for id in self.containers.iter().chain([&self.id]) {
            if self.path(id).exists() {
                let _ = command(self.directory.path(), &self.path(id), id)
                    .arg("delete")
                    .stdout(Stdio::null())
                    .status();
            }
        }
        for group in self.cgroups() {
            let _ = fs::remove_dir(group);
        }
    }
}

pub fn command(directory: &Path, bundle: &Path, id: &str) -> Command {
    // Measurements set BERTH_SHIM to the release binary.
    let binary = std::env::var("BERTH_SHIM").unwrap_or(env!("CARGO_BIN_EXE_containerd-shim-berth-v1").into());
    let mut command = Command::new(binary);
    let address = directory.join("daemon.sock").display().to_string();
    command.current_dir(bundle).args(["-namespace", NAMESPACE, "-id", id, "-address", &address]);
    command.stdin(Stdio::null());
    command
}

/// Runs the `start` action; returns the address it prints.
pub fn start(directory: &Path, bundle: &Path, id: &str) -> String {
    answer(&mut command(directory, bundle, id))
}

fn answer(command: &mut Command) -> String {
    let output = command.arg("start").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["version"], &answer["protocol"]), (&json!(3), &json!("ttrpc")));
    answer["address"].as_str().unwrap().to_owned()
}

fn rootfs(rootfs: &Path) {
    for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "sleep", "cat", "true", "ps", "echo", "setsid", "hostname", "seq", "dd", "stty", "kill", "yes",
        "head",
    ] {
        fs::hard_link(rootfs.join("bin/busybox"), rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
}

pub fn records(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

pub fn pidfd(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Waits for the end of a process.
pub async fn gone(pidfd: &OwnedFd) {
    let ended = || {
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec::default()),
        )
        .unwrap()
            == 1
    };
    until(ended).await;
}

/// Polls until the condition holds; fails after 60 s.
pub async fn until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it never happens");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Command lines of living processes that equal `command`.
pub fn processes_with(command: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.trim_end() == command)
        .collect()
}

pub fn code(error: ttrpc::Error) -> ttrpc::Code {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("not a status: {other}"),
    }
}
