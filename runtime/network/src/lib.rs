//! Pods' networks: CNI plugins, or a built-in bridge for a machine without them.
//!
//! ```text
//!            attach                      detach
//!   (nothing) ----> intent on disk ----> attached ----> (nothing)
//!                     | failing undoes      ^  record on disk until all is undone
//!                     +---------------------+
//! ```
//! A record is on disk before anything is made and until everything is undone, so `detach` works
//! after any crash. Calls for one pod run one after the other, calls for different pods in parallel;
//! a call whose future is dropped still runs to its end. What a pod that is gone could not give back is given back later.

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

use berth_work::Turns;

/// Entry points for tests/fuzz: each takes any bytes, and panics when something does not hold that must.
#[cfg(feature = "fuzz")]
pub use cni::fuzz;

/// The node's pod network. Clones share it; the last one dropped ends its background work.
#[derive(Debug, Clone)]
pub struct Network {
    backend: Backend,
    turns: Arc<Turns>,
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
    /// Opens the network `config` names; its records live below `root`. Must be called inside tokio.
    ///
    /// A CNI directory without a usable file is no error here: `ready` tells, and the directory is watched.
    pub async fn open(config: Config, root: &Path) -> Result<Network, Error> {
        let backend = match config.provider {
            Provider::Cni => Backend::Cni(Cni::open(config.cni, root).await?),
            Provider::Bridge => Backend::Bridge(Bridge::open(config.bridge, root).await?),
        };
        let turns = Arc::new(Turns::default());
        let releases = Releases::new(backend.clone(), Arc::clone(&turns));
        Ok(Network { backend, turns, releases })
    }

    /// Returns when the plugins have told for the first time whether they can work. Until then the network is not ready.
    pub async fn settled(&self) {
        match &self.backend {
            Backend::Cni(cni) => cni.settled().await,
            Backend::Bridge(_) => {}
        }
    }

    /// Whether pods can be attached now. Answers from memory.
    pub fn ready(&self) -> Result<(), NotReady> {
        match &self.backend {
            Backend::Cni(cni) => cni.ready(),
            Backend::Bridge(bridge) => bridge.ready(),
        }
    }

    /// What keeps pods that are attached from reaching others, as far as it is known; it is no reason to attach no more.
    /// Answers from memory.
    pub fn disturbance(&self) -> Option<NotReady> {
        match &self.backend {
            Backend::Cni(_) => None,
            Backend::Bridge(bridge) => bridge.disturbance(),
        }
    }

    /// Gives the pod its interfaces and addresses; what a failing attempt made is undone first.
    ///
    /// Attaching a pod that is attached answers with what it has, unless a check finds that it has lost it.
    pub async fn attach(&self, pod: &PodNetwork) -> Result<Attachment, Error> {
        pod.validate()?;
        pod.bandwidth()?;
        let (network, pod) = (self.clone(), pod.clone());
        to_its_end("attach", async move {
            let _turn = network.turns.take(&pod.id).await;
            match &network.backend {
                Backend::Cni(cni) => cni.attach(&pod).await,
                Backend::Bridge(bridge) => bridge.attach(&pod).await,
            }
        })
        .await
    }

    /// Undoes `attach`, also when that failed half-way, happened before a restart, or the network
    /// namespace is gone. Detaching what is not attached succeeds. After an error, call it again.
    /// The built-in network deletes the interface after it has answered; the address is free only then.
    ///
    /// `attachment` is only used when the network's own record was lost.
    pub async fn detach(&self, pod: &PodNetwork, attachment: Option<&Attachment>) -> Result<(), Error> {
        pod.validate()?;
        let (network, pod, attachment) = (self.clone(), pod.clone(), attachment.cloned());
        to_its_end("detach", async move {
            let _turn = network.turns.take(&pod.id).await;
            network.backend.detach(&pod.id, attachment.as_ref()).await
        })
        .await
    }

    /// Detaches a pod that nobody will ask for again. After an error it goes on by itself, with growing pauses, until it is
    /// done; so does the next daemon.
    pub async fn release(&self, pod: &PodNetwork) -> Result<(), Error> {
        let detached = self.detach(pod, None).await;
        if let Err(error) = &detached {
            self.releases.try_again(&pod.id, error);
        }
        detached
    }

    /// Whether the pod's network still is as `attach` left it.
    pub async fn check(&self, pod: &PodNetwork, attachment: &Attachment) -> Result<(), Error> {
        pod.validate()?;
        let _turn = self.turns.take(&pod.id).await;
        match &self.backend {
            Backend::Cni(cni) => cni.check(&pod.id, attachment).await,
            Backend::Bridge(bridge) => bridge.check(pod).await,
        }
    }

    /// The pods on record, attached or not. For the start of the daemon, before the first `attach`.
    pub async fn on_record(&self) -> Result<Vec<String>, Error> {
        match &self.backend {
            Backend::Cni(cni) => cni.pods().await,
            Backend::Bridge(bridge) => Ok(bridge.pods()),
        }
    }

    /// Ends the plugins that a daemon before this one has started for `pods`, which are going to be detached, and that still run.
    pub async fn end_plugins_of(&self, pods: HashSet<String>) {
        if let Backend::Cni(_) = &self.backend {
            cni::orphans::end(pods).await;
        }
    }

    /// Detaches pods that are gone, some of them at once and each until it is done, then lets plugins that know GC collect
    /// what has no record and is none of `attached`. Returns after the first attempt.
    pub async fn give_back(&self, gone: Vec<String>, attached: &[Attachment]) {
        let first = gone.into_iter().map(|pod| self.releases.begin(pod));
        futures::future::join_all(first).await;
        if let Backend::Cni(cni) = &self.backend
            && let Err(error) = cni.collect(attached).await
        {
            let error = error.chain();
            tracing::warn!(error, "plugins could not collect what has no record");
        }
    }

    /// Waits until what detached pods left to be deleted in the background is gone. For the daemon's
    /// graceful stop; what is still there after a kill is deleted at the next start.
    pub async fn close(&self) {
        if let Backend::Bridge(bridge) = &self.backend {
            bridge.close().await;
        }
    }

    /// As `close`, then removes what pods share and the daemon made (bridge, nftables table), unless a
    /// pod still uses it. With CNI there is nothing to do. `bridge.remove_when_empty` has the same done
    /// after each last detach.
    pub async fn teardown(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Cni(_) => Ok(()),
            Backend::Bridge(bridge) => bridge.teardown().await,
        }
    }

    /// Takes the ranges of addresses that the node's pods have, the main one first. With CNI they are given to plugins
    /// that ask for them, from now on and after a restart, and fill in the configured template, unless there is a network
    /// already; the built-in network keeps the subnet it has.
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

    /// The network's configuration and state, for the verbose status.
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
async fn to_its_end<T, F>(step: &'static str, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or(Err(Error::Lost { step }))
}
