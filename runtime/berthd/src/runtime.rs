//! The parts of the daemon behind its RPC services, as one value.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use berth_image::Images;
use tokio::time::timeout;

use crate::{
    container::{Container, Containers, config::ContainerMetadata},
    error::{Error, Kind, Result},
    events::{self, Events},
    handlers::{self, Handlers},
    layout::Layout,
    nri::{self, Nri},
    pod::{
        Pod, Pods,
        config::{PodConfig, PodMetadata},
    },
    recover::{self, PendingPods},
    shim::{Launcher, Shim},
    single_flight::SingleFlight,
    spec::{Defaults, Host},
    state::State,
    stats::Stats,
    table::{Entry, Table},
};
use berth_network::Network;
use berth_work::progress;

/// The part of the configuration that these use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory that outlives a reboot.
    pub root: PathBuf,
    /// Directory that a reboot clears.
    pub state: PathBuf,
    /// Directory in which network namespaces are pinned.
    pub netns: PathBuf,
    /// Path of the shim that is started for each pod.
    pub shim: PathBuf,
    /// Runtime handlers that run pods in other shims.
    pub handlers: BTreeMap<String, handlers::Config>,
    /// cgroup of the pods that name no parent.
    pub cgroup_root: String,
    /// Length in bytes at which a log line is split.
    pub max_log_line: usize,
    /// Directories of CDI specifications, later ones winning.
    pub cdi_dirs: Vec<PathBuf>,
    /// Features of the host.
    pub host: Host,
    /// Defaults for every container.
    pub defaults: Defaults,
    /// NRI plugins.
    pub nri: nri::Config,
}

/// Pods, containers, images and the network, open for calls.
#[derive(Clone)]
pub struct Runtime {
    /// The pods.
    pub pods: Pods,
    /// The containers in them.
    pub containers: Containers,
    /// The image store.
    pub images: Images,
    /// The network of pods.
    pub network: Network,
    /// Statistics of pods and containers.
    pub stats: Stats,
    /// Events of pods and containers.
    pub events: Events,
    /// NRI plugins, which are notified of changes and may adjust or refuse them.
    pub nri: Nri,
    /// The runtime handlers.
    pub handlers: Handlers,
}

/// State that pods, containers, recovery and the rest share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) host: Host,
    pub(crate) defaults: Defaults,
    pub(crate) layout: Layout,
    pub(crate) launcher: Launcher,
    pub(crate) handlers: Handlers,
    pub(crate) images: Images,
    pub(crate) nri: Nri,
    pub(crate) network: Network,
    pub(crate) state: State,
    pub(crate) pods: Table<Pod>,
    pub(crate) containers: Table<Container>,
    pub(crate) events: Events,
    pub(crate) running: SingleFlight<PodMetadata, String>,
    pub(crate) creating: SingleFlight<(String, ContainerMetadata), String>,
    pub(crate) starting: SingleFlight<String, ()>,
    pub(crate) pending: PendingPods,
}

/// How long the start waits for steps that are quick unless something hangs. They go on in the background.
const STARTUP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a call waits for its pod to be recovered.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);

impl Runtime {
    /// Opens the state below the configured directories, and starts to recover the pods that run.
    pub async fn open(options: Options, images: Images, network: Network) -> Result<Self> {
        let layout = Layout::create(&options.root, &options.state, &options.netns)?;
        let (handlers, asked) = Handlers::open(&options.handlers, options.host.features)?;
        let shared = Arc::new(Shared {
            host: options.host.clone(),
            defaults: options.defaults.clone(),
            handlers,
            launcher: Launcher::new(options.shim.clone(), layout.address()),
            state: State::open(&layout.database())?,
            images: images.clone(),
            nri: Nri::new(options.nri.clone()),
            network: network.clone(),
            pods: Table::new("pod"),
            containers: Table::new("container"),
            events: Events::default(),
            running: SingleFlight::default(),
            creating: SingleFlight::default(),
            starting: SingleFlight::default(),
            pending: PendingPods::default(),
            layout,
            options,
        });
        let recovered = recover::recover(&shared).await?;
        events::observe(&shared);
        let launcher = shared.launcher.clone();
        tokio::spawn(async move { launcher.prepare().await });
        let plugins = nri::open(&shared)?;
        let settled = async { tokio::join!(recovered, plugins, asked, network.settled()) };
        if timeout(STARTUP_TIMEOUT, settled).await.is_err() {
            tracing::warn!("something takes long at the start: it goes on while calls are answered");
        }
        Ok(Self {
            events: shared.events.clone(),
            nri: shared.nri.clone(),
            handlers: shared.handlers.clone(),
            pods: Pods::new(Arc::clone(&shared)),
            containers: Containers::new(Arc::clone(&shared)),
            stats: Stats::new(shared),
            images,
            network,
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// The containers of one pod, ended or not.
    pub(crate) fn containers_of(&self, pod_id: &str) -> Vec<Arc<Entry<Container>>> {
        self.containers.entries().into_iter().filter(|entry| entry.get().pod_id == pod_id).collect()
    }

    /// Connects to the shim of a pod, after the pod is recovered.
    pub(crate) async fn shim_of(&self, pod_id: &str) -> Result<Shim> {
        let pod = self.pods.find(pod_id)?.get();
        self.wait_until_recovered(&pod.id).await?;
        pod.shim().await
    }

    /// Connects to the shim of a pod that may not be recovered yet.
    pub(crate) async fn connect_unrecovered(&self, pod_id: &str) -> Result<Shim> {
        self.pods.find(pod_id)?.get().shim().await
    }

    /// Returns when a pod of an earlier daemon is recovered, so that calls may change it; at once for other pods.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when its shim has not answered for 10 s.
    pub(crate) async fn wait_until_recovered(&self, pod_id: &str) -> Result<()> {
        if !self.pending.has(pod_id) {
            return Ok(());
        }
        progress::at("take the pod up again after a restart of the daemon");
        let late = |_| {
            let text = format!("the shim of pod {pod_id} has not answered since the daemon was started");
            Error::new(Kind::DeadlineExceeded, text)
        };
        timeout(RECOVERY_TIMEOUT, self.pending.wait(pod_id)).await.map_err(late)
    }

    /// Returns the host name that a pod's processes see.
    pub(crate) fn hostname_of(&self, config: &PodConfig) -> String {
        match config.hostname.as_str() {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        }
    }
}

/// Returns the names of a directory's entries; none when it cannot be read.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
