//! A daemon for one test, with directories, cgroup, bridge and subnet that no other test uses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use berth_cri::v1::{
    self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::registry::Registry;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A running daemon. Dropping it removes its pods and ends the daemon.
pub struct Berth {
    directory: TempDir,
    child: Child,
    pub registry: Registry,
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
}

impl Berth {
    /// Starts a daemon with the built-in network, and an open registry. Returns once the daemon has answered a call.
    pub async fn start() -> Self {
        Self::with_network(&own_bridge()).await
    }

    /// Like [`Self::start`], with more sections of the configuration.
    pub async fn start_with(sections: &str) -> Self {
        Self::with_network(&format!("{}{sections}", own_bridge())).await
    }

    /// Like [`Self::start`], with these keys in the section `[pods]`.
    pub async fn start_with_pods(keys: &str) -> Self {
        Self::configured(&own_bridge(), None, keys).await
    }

    /// Like [`Self::start`], with this socket for NRI plugins.
    pub async fn with_nri_socket(socket: &Path) -> Self {
        Self::configured(&own_bridge(), Some(socket), "").await
    }

    /// Like [`Self::start`], with containerd's runc shim as the runtime handler `runc`.
    pub async fn with_runc() -> Self {
        Self::with_runc_and("").await
    }

    /// Like [`Self::with_runc`], with more sections of the configuration.
    pub async fn with_runc_and(sections: &str) -> Self {
        let binary = |name| crate::peer(name);
        let (shim, runc) = (binary("containerd-shim-runc-v2"), binary("runc"));
        Self::with_network(&format!(
            "{}[handlers.runc]\nshim = {shim:?}\n[handlers.runc.options]\nBinaryName = {runc:?}\n{sections}",
            own_bridge()
        ))
        .await
    }

    /// Starts a daemon with CNI plugins and their configurations from these directories, each plugin limited to 1 s.
    pub async fn with_cni(configurations: &Path, plugins: &Path) -> Self {
        Self::with_network(&format!(
            "provider = \"cni\"\n[network.cni]\nconf_dir = {configurations:?}\nbin_dirs = [{plugins:?}]\nplugin_timeout_seconds = 1\n",
        ))
        .await
    }

    /// Starts a daemon with this text as the `[network]` section.
    pub async fn with_network(network: &str) -> Self {
        Self::configured(network, None, "").await
    }

    async fn configured(network: &str, nri: Option<&Path>, pods: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run hack/test as root");
        let directory = tempfile::Builder::new().prefix("berth-test").tempdir().unwrap();
        let configuration = configuration(directory.path(), network, nri, pods);
        fs::write(directory.path().join("berth.toml"), configuration).unwrap();
        let registry = Registry::start().await;
        let child = launch(directory.path());
        let channel = answering(directory.path()).await;
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            directory,
            child,
            registry,
        }
    }

    /// Opens one more connection to the daemon.
    pub async fn connect(&self) -> Channel {
        connect(self.path().join("berth.sock")).await
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Output of `berthd check` on the daemon's directories, by line.
    pub fn check(&self, flags: &[&str]) -> Vec<String> {
        let mut check = Command::new(crate::program("BERTH_TEST_BIN").join("berthd"));
        let said = check.args(["check", "--config"]).arg(self.path().join("berth.toml")).args(flags).output();
        let said = said.expect("run berthd check");
        let said = [said.stdout, said.stderr].concat();
        String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()
    }

    /// The daemon's log so far, over all its restarts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap()
    }

    /// Ends the daemon with SIGKILL, as a crash would; its pods run on.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether the daemon has ended; reaps it.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Starts the daemon again on the same directories. Returns false if it ends before it answers.
    pub async fn try_restart(&mut self) -> bool {
        self.child = launch(self.path());
        let begun = Instant::now();
        while !self.has_ended() {
            assert!(begun.elapsed() < Duration::from_secs(60), "berthd does not answer");
            if let Some(channel) = answer(self.path()).await {
                self.runtime = RuntimeServiceClient::new(channel.clone());
                self.images = ImageServiceClient::new(channel);
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Ends the daemon with SIGTERM, as a service manager does, and waits for it.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Starts the daemon again on the same directories. Returns how long it took to answer.
    pub async fn restart(&mut self) -> Duration {
        let begun = Instant::now();
        self.child = launch(self.path());
        let channel = answering(self.path()).await;
        self.runtime = RuntimeServiceClient::new(channel.clone());
        self.images = ImageServiceClient::new(channel);
        begun.elapsed()
    }

    /// Pulls `reference` and returns the image's id.
    pub async fn pull(&mut self, reference: &str) -> Result<String, tonic::Status> {
        let image = Some(v1::ImageSpec { image: reference.into(), ..Default::default() });
        let request = v1::PullImageRequest { image, ..Default::default() };
        Ok(self.images.pull_image(request).await?.into_inner().image_ref)
    }

    /// Pushes busybox to the registry and pulls it.
    pub async fn busybox(&mut self) -> String {
        let reference = self.registry.push("busybox:1", &crate::image::Image::busybox()).await;
        self.pull(&reference).await.unwrap()
    }

    /// Removes every pod.
    pub async fn remove_all_pods(&mut self) {
        let pods = self.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
        for pod in pods.into_inner().items {
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id };
            self.runtime.remove_pod_sandbox(request).await.unwrap();
        }
    }
}

/// Removes the pods also when a test fails half-way. Calls crictl, because drop cannot await a gRPC call.
impl Drop for Berth {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            self.child = launch(self.directory.path());
            listening(self.directory.path());
        }
        let endpoint = format!("unix://{}", self.path().join("berth.sock").display());
        let _ = Command::new(crate::program("BERTH_TEST_CRICTL"))
            .args(["--runtime-endpoint", &endpoint, "--timeout", "30s", "rmp", "-fa"])
            .output();
        // On SIGTERM the daemon finishes its deletions in the background before it exits.
        self.terminate();
        remove_cgroup(self.path());
        if std::thread::panicking() {
            eprintln!("--- log of berthd\n{}", self.log());
        }
    }
}

/// Blocks until a daemon that was just started listens, for up to 10 s.
fn listening(directory: &Path) {
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(directory.join("berth.sock")).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Configuration of the built-in network, with a bridge and a subnet of this process and call.
fn own_bridge() -> String {
    let number = COUNTER.fetch_add(1, Ordering::SeqCst);
    let own = (std::process::id() % 200) + 1;
    let third = 40 + own;
    format!(
        "provider = \"bridge\"\n[network.bridge]\nname = \"bt{own}x{number}\"\nsubnet = \"10.{third}.{number}.0/24\"\nremove_when_empty = true\n",
    )
}

fn configuration(directory: &Path, network: &str, nri: Option<&Path>, pods: &str) -> String {
    let path = |name| directory.join(name);
    format!(
        "root = {root:?}\nstate = {state:?}\n[socket]\npath = {socket:?}\n[pods]\ncgroup_root = \"/{cgroup}\"\n{pods}\
         [nri]\nsocket = {nri:?}\nplugin_dir = {plugins:?}\nplugin_config_dir = {configs:?}\n\
         [network]\nnetns_dir = {netns:?}\n{network}",
        netns = path("netns"),
        root = path("root"),
        state = path("run"),
        socket = path("berth.sock"),
        cgroup = cgroup(directory),
        nri = nri.map_or(path("nri.sock"), Path::to_owned),
        plugins = path("nri/plugins"),
        configs = path("nri/conf.d"),
    )
}

/// Name of the cgroup of the daemon's pods, below the root of each hierarchy: unique because the directory's name is.
fn cgroup(directory: &Path) -> &str {
    directory.file_name().unwrap().to_str().unwrap()
}

/// Removes the daemon's cgroup from every hierarchy. One that is not empty stays, for hack/leaks to find.
fn remove_cgroup(directory: &Path) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let _ = fs::remove_dir(hierarchy.join(cgroup(directory)));
    }
}

fn launch(directory: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    Command::new(crate::program("BERTH_TEST_BIN").join("berthd"))
        .arg("--config")
        .arg(directory.join("berth.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("start berthd")
}

/// Connects to a daemon that was just started. Panics if it does not answer a call.
async fn answering(directory: &Path) -> Channel {
    let channel = connect(directory.join("berth.sock")).await;
    RuntimeServiceClient::new(channel.clone()).version(v1::VersionRequest::default()).await.unwrap();
    channel
}

/// Connects to a daemon that may end before it answers; tries once.
async fn answer(directory: &Path) -> Option<Channel> {
    let channel = try_connect(&directory.join("berth.sock")).await.ok()?;
    let version = RuntimeServiceClient::new(channel.clone()).version(v1::VersionRequest::default()).await;
    version.is_ok().then_some(channel)
}

async fn connect(socket: PathBuf) -> Channel {
    for _ in 0..500 {
        if let Ok(channel) = try_connect(&socket).await {
            return channel;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("berthd does not answer on {}", socket.display());
}

async fn try_connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}
