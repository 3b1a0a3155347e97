//! Pods: the sandboxes that containers run in.
//!
//! ```text
//!             run                       stop, or its shim died
//!  Starting ------> Ready ------------------------------------> NotReady
//!     |  failed       |                                            |
//!     +--> (gone)     +-- remove (stops first) --> (gone) <--------+
//! ```
//! A pod is on record from its first step on, so that the next daemon can undo a pod whose making was interrupted. Only
//! Ready and NotReady pods are shown.

pub mod config;
mod dial;
mod files;
mod run;
mod stop;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use self::config::{PodConfig, PodMetadata};
use crate::{
    container::config::Resources,
    error::{Error, Kind, Result},
    layout::Layout,
    nri::events,
    runtime::Shared,
    shim::{Shim, ShimAddress},
    single_flight::run_to_completion,
    state::Record,
    table::Entry,
};
use berth_network::{Attachment, PodNetwork};

pub(crate) use {files::own, stop::undo};

/// State and configuration of a pod at one moment. Immutable: every change makes a new snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pod {
    /// 64 hex digits.
    pub id: String,
    /// The requested configuration, with resources and overhead as last sent.
    pub config: PodConfig,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where in its life the pod is.
    pub state: PodState,
    /// Result of attaching it to the network; `None` before, and on the host's network.
    pub attachment: Option<Attachment>,
    /// Path at which its network namespace is pinned; `None` on the host's network.
    pub netns: Option<PathBuf>,
    /// Address of its shim; recorded before the shim is started, `None` after the pod was stopped.
    pub shim: Option<ShimAddress>,
    /// Path of its cgroup below each hierarchy's root.
    pub cgroup: String,
}

/// Where in its life a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodState {
    /// Being made; not shown to callers.
    Starting,
    /// Containers can run in it.
    Ready,
    /// Stopped, or its shim died.
    NotReady,
}

impl Record for Pod {
    const TABLE: &'static str = "pod";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Pod {
    /// Returns its addresses, the primary one first.
    pub fn ips(&self) -> &[IpAddr] {
        self.attachment.as_ref().map_or(&[], |attachment| &attachment.ips)
    }

    /// Connects to its shim.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the pod was stopped, `Unavailable` when the shim is dead.
    pub(crate) async fn shim(&self) -> Result<Shim> {
        match &self.shim {
            Some(address) => Shim::connect(&address.socket).await,
            None => Err(Error::new(Kind::FailedPrecondition, format!("pod {} is not running", self.id))),
        }
    }

    /// Returns the pod as the network knows it; `None` on the host's network.
    pub(crate) fn network(&self) -> Option<PodNetwork> {
        let config = &self.config;
        Some(PodNetwork {
            id: self.id.clone(),
            name: config.metadata.name.clone(),
            namespace: config.metadata.namespace.clone(),
            uid: config.metadata.uid.clone(),
            netns: self.netns.clone()?,
            annotations: config.annotations.clone(),
            port_mappings: config.ports.iter().filter(|port| port.host_port != 0).cloned().collect(),
            dns: config.dns.clone().unwrap_or_default(),
            cgroup_parent: config.cgroup_parent.clone().unwrap_or_default(),
        })
    }
}

/// All pods of this daemon, and the operations on them. Clones share them.
#[derive(Clone, Debug)]
pub struct Pods {
    pub(crate) shared: Arc<Shared>,
}

impl Pods {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the pod and returns its id once containers can run in it. A call with the same metadata, concurrent or
    /// later, returns the same pod.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when a pod of the same metadata was stopped, `Unavailable` when the network is not ready. A pod
    /// that failed is undone: the error is returned after the first attempt, or after 10 s, and the rest goes on in the
    /// background.
    pub async fn run(&self, config: PodConfig) -> Result<String> {
        let shared = Arc::clone(&self.shared);
        let key = config.metadata.clone();
        self.shared.running.join(key, || run::run(shared, config)).await
    }

    /// Ends all processes of the pod and detaches it from its network. Succeeds when the pod was stopped before or does
    /// not exist.
    pub async fn stop(&self, id: &str) -> Result<()> {
        match self.shared.pods.find(id) {
            Ok(entry) => stop::stop(&self.shared, &entry).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stops the pod and removes it with all its containers. Succeeds when it does not exist.
    pub async fn remove(&self, id: &str) -> Result<()> {
        match self.shared.pods.find(id) {
            Ok(entry) => stop::remove(&self.shared, &entry).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Connects to a TCP port inside the pod, at 127.0.0.1 or else ::1.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the pod is not ready, `Unavailable` when nothing listens there, `DeadlineExceeded`
    /// when nothing answers for 10 s.
    pub async fn dial(&self, id: &str, port: u16) -> Result<TcpStream> {
        dial::dial(&*self.get(id)?, port).await
    }

    /// Fails for a runtime handler that does not exist or cannot be used.
    pub fn check_handler(&self, handler: &str) -> Result<()> {
        self.shared.handlers.features(handler).map(drop)
    }

    /// Records the pod's resources and its overhead, as far as given, and notifies plugins. The caller has already
    /// changed the pod's cgroup.
    ///
    /// # Errors
    ///
    /// The error of a plugin that refuses the change; nothing is recorded then.
    pub async fn update(
        &self,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let (shared, entry) = (Arc::clone(&self.shared), self.shared.pods.find(id)?);
        run_to_completion(async move {
            let _lock = entry.lock().await;
            let pod = entry.get();
            // The pod may have been removed while this call waited for the lock.
            shared.pods.find(&pod.id)?;
            let overhead = overhead.unwrap_or_else(|| pod.config.overhead.clone());
            let resources = resources.unwrap_or_else(|| pod.config.resources.clone());
            events::update_pod(&shared, &pod, &overhead, &resources).await?;
            let told = |pod: &Pod| {
                let config = PodConfig { overhead, resources, ..pod.config.clone() };
                Pod { config, ..pod.clone() }
            };
            let pod = entry.change(&shared.state, told).await?;
            events::pod_updated(&shared, &pod).await;
            Ok(())
        })
        .await
    }

    /// Returns the pod with this id, or the only one whose id begins with it.
    pub fn get(&self, id: &str) -> Result<Arc<Pod>> {
        self.shared.pods.find(id).map(|entry| entry.get())
    }

    /// Returns the ids of pods of an earlier daemon whose shims have not answered yet. What is shown of them is as it
    /// was recorded.
    pub fn not_recovered(&self) -> Vec<String> {
        self.shared.pending.list()
    }

    /// Returns all pods, the newest first.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.shared.pods.list();
        pods.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        pods
    }
}

/// Returns the existing pod with this metadata.
fn existing(shared: &Shared, metadata: &PodMetadata) -> Option<Arc<Entry<Pod>>> {
    shared.pods.entries().into_iter().find(|entry| entry.get().config.metadata == *metadata)
}

/// Returns the pod's cgroup: the caller's, or one below Berth's. Empty for the root of the hierarchies, which kubelet
/// names when it makes no cgroups itself: the containers' cgroups are then directly below the root.
fn cgroup_of(config: &PodConfig, own_root: &str, id: &str) -> String {
    match config.cgroup_parent.as_deref() {
        Some("") | None => format!("/{}/{id}", own_root.trim_matches('/')),
        Some(parent) => match parent.trim_matches('/') {
            "" => String::new(),
            parent => format!("/{parent}"),
        },
    }
}

/// Returns a step's description with the pod's name, for errors.
fn step(pod: &Pod, what: &str) -> String {
    let PodMetadata { name, namespace, .. } = &pod.config.metadata;
    format!("{what} pod {namespace}/{name}")
}

/// Returns the paths of the files that every container of the pod sees in /etc.
pub(crate) fn files_of(layout: &Layout, id: &str) -> files::Files {
    files::Files::of(&layout.sandbox(id))
}

/// Returns the sysctls as the shim takes them.
fn sysctls(config: &PodConfig) -> std::collections::HashMap<String, String> {
    let sysctls: &BTreeMap<_, _> = &config.sysctls;
    sysctls.clone().into_iter().collect()
}

#[cfg(test)]
mod tests;
