//! Pods' networks: CNI plugins, or a built-in bridge for a machine without them.
//!
//! ```text
//!            attach                      detach
//!   (nothing) ----> intent on disk ----> attached ----> (nothing)
//!                     | failing undoes      ^  record on disk until all is undone
//!                     +---------------------+
//! ```
//! The record is on disk before anything is made and until everything is undone, so `detach` works after any crash.
//! Calls for one pod run one after the other, calls for different pods in parallel; a call whose future is dropped
//! still runs to its end. Detaching a pod that is gone is retried in the background until it succeeds.

mod bandwidth;
mod bridge;
mod cidr;
mod cni;
mod config;
mod dial;
mod error;
mod netns;
mod pod;
mod record;
mod releases;
mod subnet;
#[cfg(test)]
mod testing;

use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

pub use bandwidth::Bandwidth;
pub use cidr::Cidr;
pub use config::{BridgeConfig, CniConfig, Config, Provider};
pub use dial::dial;
pub use error::{Error, Kind, NotReady, PluginFailure};
pub use pod::{Attachment, Dns, Interface, PodNetwork, PortMapping, Protocol};
pub use subnet::{InvalidSubnet, Subnet};

use bridge::Bridge;
use cni::Cni;
use releases::Releases;

use berth_work::KeyedMutex;

/// Entry points for tests/fuzz: each takes any bytes, and panics when something does not hold that must.
#[cfg(feature = "fuzz")]
pub use cni::fuzz;

/// The node's pod network. Clones share it. Dropping the last one stops retried releases and the CNI watcher.
#[derive(Debug, Clone)]
pub struct Network {
    backend: Backend,
    pod_locks: Arc<KeyedMutex>,
    releases: Arc<Releases>,
}

#[derive(Debug, Clone)]
enum Backend {
    Cni(Arc<Cni>),
    Bridge(Arc<Bridge>),
}

impl Backend {
    async fn detach(&self, pod: &str, attachment: Option<&Attachment>) -> Result<(), Error> {
        match self {
            Backend::Cni(cni) => cni.detach(pod, attachment).await,
            Backend::Bridge(bridge) => bridge.detach(pod).await,
        }
    }
}

impl Network {
    /// Opens the network that `config` selects; its records live below `root`, or in `cni.cache_dir` if that is set.
    /// Must be called inside a tokio runtime.
    ///
    /// A CNI directory without a usable file is not an error here: `ready` reports it, and the directory is watched.
    pub async fn open(config: Config, root: &Path) -> Result<Network, Error> {
        let backend = match config.provider {
            Provider::Cni => Backend::Cni(Cni::open(config.cni, root).await?),
            Provider::Bridge => Backend::Bridge(Bridge::open(config.bridge, root).await?),
        };
        let pod_locks = Arc::new(KeyedMutex::default());
        let releases = Releases::new(backend.clone(), Arc::clone(&pod_locks));
        Ok(Network { backend, pod_locks, releases })
    }

    /// Returns once the CNI plugins have answered STATUS for the first time. Until then the network is not ready.
    pub async fn settled(&self) {
        match &self.backend {
            Backend::Cni(cni) => cni.settled().await,
            Backend::Bridge(_) => {}
        }
    }

    /// Fails when no pod can be attached now. Answers from memory.
    pub fn ready(&self) -> Result<(), NotReady> {
        match &self.backend {
            Backend::Cni(cni) => cni.ready(),
            Backend::Bridge(bridge) => bridge.ready(),
        }
    }

    /// Reports what disturbs attached pods, as far as is known: an overlapping network or a blocking firewall. It does
    /// not keep new pods from being attached. Answers from memory.
    pub fn disturbance(&self) -> Option<NotReady> {
        match &self.backend {
            Backend::Cni(_) => None,
            Backend::Bridge(bridge) => bridge.disturbance(),
        }
    }

    /// Gives the pod its interfaces and addresses. On failure, everything that the attempt made is undone first.
    ///
    /// For a pod that is attached already, returns the existing attachment, unless a check of it fails: then it is
    /// attached anew.
    pub async fn attach(&self, pod: &PodNetwork) -> Result<Attachment, Error> {
        pod.validate()?;
        pod.bandwidth()?;
        let (network, pod) = (self.clone(), pod.clone());
        run_to_completion("attach", async move {
            let _lock = network.pod_locks.lock(&pod.id).await;
            match &network.backend {
                Backend::Cni(cni) => cni.attach(&pod).await,
                Backend::Bridge(bridge) => bridge.attach(&pod).await,
            }
        })
        .await
    }

    /// Undoes `attach`, also after a partial failure, a restart, or the loss of the network namespace. Detaching a pod
    /// that is not attached succeeds. After an error, call it again. The built-in network deletes the interface in the
    /// background after returning; the address stays taken until then.
    ///
    /// `attachment` is used only by CNI, when its own record was lost.
    pub async fn detach(&self, pod: &PodNetwork, attachment: Option<&Attachment>) -> Result<(), Error> {
        pod.validate()?;
        let (network, pod, attachment) = (self.clone(), pod.clone(), attachment.cloned());
        run_to_completion("detach", async move {
            let _lock = network.pod_locks.lock(&pod.id).await;
            network.backend.detach(&pod.id, attachment.as_ref()).await
        })
        .await
    }

    /// Detaches a pod that is removed for good. After an error the release is retried in the background, and by the
    /// next daemon, with growing pauses until it succeeds.
    pub async fn release(&self, pod: &PodNetwork) -> Result<(), Error> {
        let detached = self.detach(pod, None).await;
        if let Err(error) = &detached {
            self.releases.retry(&pod.id, error);
        }
        detached
    }

    /// Fails when the pod's network differs from what `attach` made.
    pub async fn check(&self, pod: &PodNetwork, attachment: &Attachment) -> Result<(), Error> {
        pod.validate()?;
        let _lock = self.pod_locks.lock(&pod.id).await;
        match &self.backend {
            Backend::Cni(cni) => cni.check(&pod.id, attachment).await,
            Backend::Bridge(bridge) => bridge.check(pod).await,
        }
    }

    /// Returns the ids of the pods on record, attached or not. For the start of the daemon, before the first `attach`.
    pub async fn recorded_pods(&self) -> Result<Vec<String>, Error> {
        match &self.backend {
            Backend::Cni(cni) => cni.pods().await,
            Backend::Bridge(bridge) => Ok(bridge.pods()),
        }
    }

    /// Kills CNI plugins that an earlier daemon started for `pods`, which are about to be detached, and that still run.
    pub async fn kill_plugins_of(&self, pods: HashSet<String>) {
        if let Backend::Cni(_) = &self.backend {
            cni::orphans::kill_plugins(pods).await;
        }
    }

    /// Detaches pods that are gone, a few at a time and each until it succeeds, then has plugins that support GC remove
    /// every attachment that is neither on record nor in `attached`. Returns after the first attempt for each pod.
    pub async fn release_gone(&self, gone: Vec<String>, attached: &[Attachment]) {
        let first = gone.into_iter().map(|pod| self.releases.begin(pod));
        futures::future::join_all(first).await;
        if let Backend::Cni(cni) = &self.backend
            && let Err(error) = cni.collect(attached).await
        {
            let error = error.chain();
            tracing::warn!(error, "plugins could not collect what has no record");
        }
    }

    /// Waits for the background deletion of detached pods' interfaces, for the daemon's graceful stop. Failed deletions
    /// are not retried any more; interfaces left over are deleted at the next start.
    pub async fn close(&self) {
        if let Backend::Bridge(bridge) = &self.backend {
            bridge.close().await;
        }
    }

    /// Does what `close` does, then removes the bridge and its nftables table unless a pod still uses them. Does
    /// nothing with CNI. `bridge.remove_when_empty` does the same after each last detach.
    pub async fn teardown(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Cni(_) => Ok(()),
            Backend::Bridge(bridge) => bridge.teardown().await,
        }
    }

    /// Sets the node's pod address ranges, the main one first. CNI plugins that declare `ipRanges` get them from now on
    /// and after a restart, and they fill in the configured template unless a network is configured already. The
    /// built-in network ignores them and keeps its subnet.
    pub async fn use_ranges(&self, ranges: &[Cidr]) -> Result<(), Error> {
        match &self.backend {
            Backend::Cni(cni) => cni.use_ranges(ranges).await,
            Backend::Bridge(_) => {
                tracing::info!(
                    "the built-in network keeps its subnet: the node's pod addresses are not used"
                );
                Ok(())
            }
        }
    }

    /// Returns the network's configuration and state, for the verbose status.
    pub fn describe(&self) -> serde_json::Value {
        let mut described = match &self.backend {
            Backend::Cni(cni) => cni.describe(),
            Backend::Bridge(bridge) => bridge.describe(),
        };
        described["failedReleases"] = self.releases.describe();
        described
    }
}

/// Runs `work` to its end even when the caller's future is dropped.
async fn run_to_completion<T, F>(step: &'static str, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or(Err(Error::Lost { step }))
}
