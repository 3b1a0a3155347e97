//! Pods: the sandboxes that containers run in.
//!
//! ```text
//!             run                       stop, or its shim died
//!  Starting ------> Ready ------------------------------------> NotReady
//!     |  failed       |                                            |
//!     +--> (gone)     +-- remove (stops first) --> (gone) <--------+
//! ```
//! A pod is on record from its first step on, so that a daemon that was killed half-way can undo what it had
//! begun; only Ready and NotReady pods are shown.

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
    flights::to_its_end,
    layout::Layout,
    nri::events,
    runtime::Shared,
    shim::{Shim, ShimAddress},
    state::Record,
    table::Entry,
};
use berth_network::{Attachment, PodNetwork};

pub(crate) use {files::own, stop::undo};

/// What is known of a pod at one moment. Never changed: the next moment has a snapshot of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pod {
    /// 64 hex digits.
    pub id: String,
    /// What it was asked to be.
    pub config: PodConfig,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where in its life it is.
    pub state: PodState,
    /// Its network, once attached; `None` on the host's.
    pub attachment: Option<Attachment>,
    /// Where its network namespace is pinned; `None` on the host's.
    pub netns: Option<PathBuf>,
    /// Its shim, as long as it is wanted; on record before it is started.
    pub shim: Option<ShimAddress>,
    /// Path of its cgroup below each hierarchy's root.
    pub cgroup: String,
}

/// Where in its life a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodState {
    /// Being made; not shown to anyone.
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
    /// Its addresses, the primary one first.
    pub fn ips(&self) -> &[IpAddr] {
        self.attachment.as_ref().map_or(&[], |attachment| &attachment.ips)
    }

    /// A connection to its shim.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when it has none any more, `Unavailable` when the shim is dead.
    pub(crate) async fn shim(&self) -> Result<Shim> {
        match &self.shim {
            Some(address) => Shim::connect(&address.socket).await,
            None => Err(Error::new(Kind::FailedPrecondition, format!("pod {} is not running", self.id))),
        }
    }

    /// How the network knows it; `None` on the host's network.
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

/// Every pod of this daemon, and what can be done to them. Clones share them.
#[derive(Clone, Debug)]
pub struct Pods {
    pub(crate) shared: Arc<Shared>,
}

impl Pods {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the pod and returns its id once containers can run in it. The same metadata asked for again,
    /// at once or later, gives the same pod.
    ///
    /// # Errors
    ///
    /// What failed is undone before the error is returned.
    pub async fn run(&self, config: PodConfig) -> Result<String> {
        let shared = Arc::clone(&self.shared);
        let key = config.metadata.clone();
        self.shared.running.join(key, || run::run(shared, config)).await
    }

    /// Ends everything that runs in the pod and gives its network back. Fine when that was done before, or
    /// when there is no such pod.
    pub async fn stop(&self, id: &str) -> Result<()> {
        match self.shared.pods.find(id) {
            Ok(entry) => stop::stop(&self.shared, &entry).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stops the pod and removes it with all its containers. Fine when there is no such pod.
    pub async fn remove(&self, id: &str) -> Result<()> {
        match self.shared.pods.find(id) {
            Ok(entry) => stop::remove(&self.shared, &entry).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A connection to a TCP port that something in the pod listens on, at 127.0.0.1 or else ::1.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the pod is not ready, `Unavailable` when nothing listens there, `DeadlineExceeded`
    /// when nothing answers for 10 s.
    pub async fn dial(&self, id: &str, port: u16) -> Result<TcpStream> {
        dial::dial(&*self.get(id)?, port).await
    }

    /// Refuses a runtime handler that no pod could be run with.
    pub fn check_handler(&self, handler: &str) -> Result<()> {
        self.shared.handlers.features(handler).map(drop)
    }

    /// Remembers what the pod may take together, and what it takes besides its containers, where told, and tells
    /// plugins of it. Its cgroup is the caller's, who has changed it already.
    ///
    /// # Errors
    ///
    /// What a plugin has against it; nothing is remembered then.
    pub async fn update(
        &self,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let (shared, entry) = (Arc::clone(&self.shared), self.shared.pods.find(id)?);
        to_its_end(async move {
            let _turn = entry.turn().await;
            let pod = entry.get();
            // It may have been removed while another had the turn.
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

    /// The pod with this id, or the only one whose id begins with it.
    pub fn get(&self, id: &str) -> Result<Arc<Pod>> {
        self.shared.pods.find(id).map(|entry| entry.get())
    }

    /// Ids of pods of an earlier daemon whose shims have not answered yet. What is shown of them is what was recorded.
    pub fn not_taken_up(&self) -> Vec<String> {
        self.shared.pending.list()
    }

    /// All pods, the newest first.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.shared.pods.list();
        pods.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        pods
    }
}

/// The pod of this metadata that exists already.
fn existing(shared: &Shared, metadata: &PodMetadata) -> Option<Arc<Entry<Pod>>> {
    shared.pods.entries().into_iter().find(|entry| entry.get().config.metadata == *metadata)
}

/// The cgroup of a pod: the caller's, or one of its own below Berth's. Empty for the hierarchies' roots, which kubelet names when
/// it is to make no groups: the containers' groups are right below it then.
fn cgroup_of(config: &PodConfig, own_root: &str, id: &str) -> String {
    match config.cgroup_parent.as_deref() {
        Some("") | None => format!("/{}/{id}", own_root.trim_matches('/')),
        Some(parent) => match parent.trim_matches('/') {
            "" => String::new(),
            parent => format!("/{parent}"),
        },
    }
}

/// Names in the error which pod a step was for.
fn step(pod: &Pod, what: &str) -> String {
    let PodMetadata { name, namespace, .. } = &pod.config.metadata;
    format!("{what} pod {namespace}/{name}")
}

/// Paths of the files that every container of the pod sees in /etc.
pub(crate) fn files_of(layout: &Layout, id: &str) -> files::Files {
    files::Files::of(&layout.sandbox(id))
}

/// Sysctls as the shim takes them.
fn sysctls(config: &PodConfig) -> std::collections::HashMap<String, String> {
    let sysctls: &BTreeMap<_, _> = &config.sysctls;
    sysctls.clone().into_iter().collect()
}

#[cfg(test)]
mod tests;
