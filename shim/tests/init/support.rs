//! A directory with a small root filesystem, and containers on it.

use berth_shim::cgroup::Cgroup;
use berth_shim::init::{
    self, Created, Error, ExecProcess, ExecRequest, Execed, IdMappings, Neighbour, PodNamespaces, PodOptions,
    RootfsMount, Stdio,
};
use berth_shim::spec::IdMapping;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const APPLETS: &[&str] = &[
    "sh", "true", "false", "sleep", "cat", "ls", "id", "stat", "mount", "tty", "hostname", "env", "pwd",
    "kill", "ps", "touch", "grep", "readlink", "ulimit", "wc", "stty", "head", "echo", "test", "sort",
    "umount", "ip", "dd",
];

/// Runs a future on a runtime like the shim's.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "needs root: sudo -E cargo test -p berth-shim root_ (and apt-get install busybox-static)"
    );
}

/// A directory, a pod and its cgroup; all removed when dropped.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub pod: PodNamespaces,
    pub name: String,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PodOptions)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        need_root();
        let dir = tempfile::Builder::new().prefix("berth-init-").tempdir().unwrap();
        let name = format!("berth-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut options = PodOptions {
            hostname: "pod-host".into(),
            netns_path: Some(dir.path().join("netns")),
            cgroup_path: format!("/{name}"),
            ..PodOptions::default()
        };
        change(&mut options);
        let pod = PodNamespaces::create(&options).unwrap();
        build_rootfs(&dir.path().join("image"));
        Self { dir, pod, name }
    }

    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn cgroup_path(&self, id: &str) -> String {
        format!("/{}/{id}", self.name)
    }

    /// An overlay on the image, with the container's own upper directory.
    pub fn overlay(&self, id: &str, lower: &[PathBuf]) -> Vec<RootfsMount> {
        let (upper, work) = (self.path(&format!("{id}-upper")), self.path(&format!("{id}-work")));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
        vec![RootfsMount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec![
                format!("lowerdir={}", lower.join(":")),
                format!("upperdir={}", upper.display()),
                format!("workdir={}", work.display()),
            ],
        }]
    }

    /// Writes the usual config.json, as `change` alters it.
    pub fn bundle(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.path(id);
        fs::create_dir_all(&bundle).unwrap();
        let mut spec = default_spec(args, &self.cgroup_path(id));
        change(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    pub async fn create(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Container, Error> {
        self.create_beside(&[], id, args, change).await
    }

    /// Creates a container in a pod with other containers.
    pub async fn create_beside(
        &self,
        neighbours: &[&Running],
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Container, Error> {
        let rootfs = self.overlay(id, &[self.image()]);
        self.create_with(neighbours, id, &rootfs, args, change).await
    }

    pub async fn create_on(
        &self,
        id: &str,
        rootfs: &[RootfsMount],
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Container, Error> {
        self.create_with(&[], id, rootfs, args, change).await
    }

    async fn create_with(
        &self,
        neighbours: &[&Running],
        id: &str,
        rootfs: &[RootfsMount],
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Container, Error> {
        let bundle = self.bundle(id, args, change);
        let (output, write) = pipe();
        let stdio = Stdio { stdin: None, stderr: Some(write.try_clone().unwrap()), stdout: Some(write) };
        let neighbours: Vec<_> = neighbours.iter().map(|running| running.as_neighbour()).collect();
        let (pod, neighbours, terminal) = (&self.pod, neighbours.as_slice(), false);
        let request = init::CreateRequest { id, bundle: &bundle, rootfs, terminal, stdio, pod, neighbours };
        let created = init::create(request).await?;
        Ok(Container { created, output, bundle, id: id.to_owned() })
    }

    /// Creates a container with a terminal in the place of its streams.
    pub async fn create_on_terminal(
        &self,
        rootfs: &[RootfsMount],
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Result<Created, Error> {
        let bundle = self.bundle("c1", args, change);
        let (id, bundle, stdio, pod) = ("c1", bundle.as_path(), Stdio::default(), &self.pod);
        let request = init::CreateRequest { id, bundle, rootfs, terminal: true, stdio, pod, neighbours: &[] };
        init::create(request).await
    }

    /// Runs a shell script to its end; returns exit code and output.
    pub fn run(&self, script: &str, change: impl FnOnce(&mut Value)) -> (i32, String) {
        block_on(async {
            let container = self.create("c1", &["/bin/sh", "-c", script], change).await.unwrap();
            container.finish().await.unwrap()
        })
    }

    /// Returns the error of a request that must fail, and checks that nothing is left.
    pub fn fail(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> Error {
        block_on(async {
            let error = match self.create("c1", args, change).await {
                Ok(container) => container.finish().await.unwrap_err(),
                Err(error) => error,
            };
            assert!(
                self.cgroup_of("c1").is_empty() && !self.has_cgroup("c1"),
                "something is left after {error}"
            );
            error
        })
    }

    pub fn cgroup_of(&self, id: &str) -> Vec<u32> {
        Cgroup::unchecked(&self.cgroup_path(id)).procs().unwrap()
    }

    pub fn has_cgroup(&self, id: &str) -> bool {
        Cgroup::unchecked(&self.cgroup_path(id)).stats().is_ok()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Contains processes only after a failed test.
        let _ = Cgroup::unchecked(&format!("/{}", self.name)).kill();
        let left = self.pod.destroy();
        if !std::thread::panicking() {
            left.unwrap();
        }
    }
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// A container with its output.
pub struct Container {
    pub created: Created,
    pub output: OwnedFd,
    pub bundle: PathBuf,
    pub id: String,
}

impl Container {
    /// Starts it, waits for its end, removes its cgroup.
    pub async fn finish(self) -> Result<(i32, String), Error> {
        let Created { pidfd, barrier, cgroup, .. } = self.created;
        let started = barrier.start().await;
        let mut text = String::new();
        fs::File::from(self.output).read_to_string(&mut text).unwrap();
        let code = wait(pidfd.as_fd());
        cgroup.remove().unwrap();
        started.map(|()| (code, text))
    }

    /// Starts it and returns the running container.
    pub async fn start(self) -> Running {
        let Created { pid, pidfd, barrier, cgroup, .. } = self.created;
        barrier.start().await.unwrap();
        Running { pid, pidfd, cgroup, bundle: self.bundle, id: self.id, _output: self.output }
    }
}

pub struct Running {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub bundle: PathBuf,
    pub id: String,
    _output: OwnedFd,
}

impl Running {
    fn as_neighbour(&self) -> Neighbour<'_> {
        Neighbour { id: &self.id, pid: self.pid, process: self.pidfd.as_fd() }
    }

    pub async fn exec(&self, process: ExecProcess<'_>) -> Result<(Execed, OwnedFd), Error> {
        let (output, write) = pipe();
        let stdio = Stdio { stdin: None, stderr: Some(write.try_clone().unwrap()), stdout: Some(write) };
        let request = self.request(process, false, stdio);
        Ok((init::exec(request).await?, output))
    }

    pub fn request<'a>(&'a self, process: ExecProcess<'a>, terminal: bool, stdio: Stdio) -> ExecRequest<'a> {
        ExecRequest {
            id: &self.id,
            bundle: &self.bundle,
            container: self.pidfd.as_fd(),
            container_pid: self.pid,
            process,
            terminal,
            stdio,
            cgroup: &self.cgroup,
        }
    }

    /// Runs a shell script in it; returns exit code and output.
    pub async fn sh(&self, script: &str) -> (i32, String) {
        let args: Vec<String> = ["/bin/sh", "-c", script].map(String::from).to_vec();
        let (execed, output) = self.exec(ExecProcess::Args(&args)).await.unwrap();
        let mut text = String::new();
        fs::File::from(output).read_to_string(&mut text).unwrap();
        (wait(execed.pidfd.as_fd()), text)
    }

    /// Runs a script on the host in its mount namespace, for changes that the container itself may not make.
    pub fn change_mounts(&self, script: &str) {
        let mut enter = std::process::Command::new("nsenter");
        let status = enter.args(["-m", "-t", &self.pid.to_string(), "/bin/sh", "-c", script]).status();
        assert!(status.unwrap().success());
    }

    pub fn end(self) -> i32 {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let code = wait(self.pidfd.as_fd());
        self.cgroup.remove().unwrap();
        code
    }
}

/// Reads the terminal until its last process is gone, which the reader sees as an error.
pub fn shown(console: Option<OwnedFd>) -> String {
    let mut text = Vec::new();
    let _ = fs::File::from(console.unwrap()).read_to_end(&mut text);
    String::from_utf8(text).unwrap().replace('\r', "")
}

pub fn wait(pidfd: BorrowedFd<'_>) -> i32 {
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

pub fn build_rootfs(root: &Path) {
    for directory in ["bin", "etc", "proc", "dev", "sys", "tmp", "root", "home/me"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/usr/bin/busybox", root.join("bin/busybox"))
        .or_else(|_| fs::copy("/bin/busybox", root.join("bin/busybox")))
        .expect("apt-get install busybox-static");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n")
        .unwrap();
}

fn default_spec(args: &[&str], cgroup: &str) -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs" },
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
            "user": { "uid": 0, "gid": 0 }, "noNewPrivileges": true,
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES }
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
            { "destination": "/dev/shm", "type": "pod-shm", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"] }
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "cgroup" }],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// First host id of a test's user namespace.
pub const HOST: u32 = 200_000;
/// Number of ids.
pub const LENGTH: u32 = 65_536;

pub fn ids(host: u32) -> IdMappings {
    let range = vec![IdMapping { container_id: 0, host_id: host, size: LENGTH }];
    IdMappings { uids: range.clone(), gids: range }
}

/// Unchanged layers, idmapped for the pod, with an upper directory that belongs to the pod's root.
pub fn mapped_overlay(fixture: &Fixture, id: &str, layers: &[PathBuf]) -> Vec<RootfsMount> {
    let mut rootfs = fixture.overlay(id, layers);
    let ids = format!("0:{HOST}:{LENGTH}");
    rootfs[0].options.extend([format!("uidmap={ids}"), format!("gidmap={ids}")]);
    chown(fixture.path(&format!("{id}-upper")), Some(HOST), Some(HOST)).unwrap();
    rootfs
}
