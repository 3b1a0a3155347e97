//! The built-in network: one bridge, a veth pair per pod, IPv4.
//!
//! ```text
//! attach: lease on disk -> veth pair (one end on the bridge, one in the pod) -> address, route -> ports
//! detach: ports -> lease retired -> | answered | -> veth pair -> address free
//! ```
//! Deleting a veth pair waits for RCU grace periods, ten times as long as everything else, so it is done in the
//! background. Pairs left over when the daemon is killed are deleted at the next start.

mod disturbance;
mod forward;
mod host_networks;
mod lease;
mod limit;
mod link;
mod nft;
mod port;
mod program;
mod steps;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::json;
use tokio::sync::{RwLock, RwLockReadGuard, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use berth_work::retry_delays;

use super::config::BridgeConfig;
use super::error::Error;
use super::pod::{Attachment, PodNetwork};
use disturbance::DisturbanceCache;
use link::is;
use steps::{Core, NEW_PAIR_STEP};

/// Limit of concurrent deletions: the kernel does them under one lock (RTNL), and each blocks a thread.
const MAX_DELETIONS: usize = 8;
/// How long opening waits for the repair of bridge and table; a longer repair goes on in the background.
const REPAIR_TIMEOUT: Duration = Duration::from_millis(500);

/// The built-in bridge network.
#[derive(Debug)]
pub(super) struct Bridge {
    core: Arc<Core>,
    /// Held for reading while a pod is attached or detached.
    bridge_state: RwLock<BridgeState>,
    /// Interfaces being deleted.
    deletions: Mutex<JoinSet<()>>,
    /// One permit for each running deletion.
    deleting: Semaphore,
    /// Cancelled when failed deletions are not to be retried any more.
    closing: CancellationToken,
    disturbance: DisturbanceCache,
}

/// State that all pods share: the bridge and its table.
#[derive(Debug, Default)]
struct BridgeState {
    /// The bridge's interface index, once it was made or found.
    bridge: Option<u32>,
    /// When the last attempt to make it ended, and why it failed.
    failure: Option<(Instant, Arc<Error>)>,
}

impl Bridge {
    /// Opens the leases below `root`. With pods on record, the bridge and its table are checked and repaired; a repair
    /// that takes longer than `REPAIR_TIMEOUT` goes on in the background, and a failed one is tried again with the next
    /// pod.
    pub(super) async fn open(config: BridgeConfig, root: &Path) -> Result<Arc<Bridge>, Error> {
        refuse_unusable(&config)?;
        let directory = root.join("network").join(&config.name);
        let core = blocking("open the network", move || Core::open(config, &directory)).await?;
        let in_use = !core.leases().is_empty();
        let retired = core.leases().retired();
        let bridge = Arc::new(Bridge {
            core: Arc::new(core),
            bridge_state: RwLock::default(),
            deletions: Mutex::default(),
            deleting: Semaphore::new(MAX_DELETIONS),
            closing: CancellationToken::new(),
            disturbance: DisturbanceCache::default(),
        });
        bridge.refresh_disturbance();
        let repair = tokio::spawn(bridge.clone().repair(in_use));
        if in_use {
            // After the time limit the repair goes on, and its failure is logged as any other.
            let _ = timeout(REPAIR_TIMEOUT, repair).await;
        }
        retired.into_iter().for_each(|interface| bridge.delete_later(interface));
        Ok(bridge)
    }

    /// Restores the bridge and its table as they were before the restart or, without leases, withdraws leftover ports.
    async fn repair(self: Arc<Self>, in_use: bool) {
        let repaired = match in_use {
            true => self.ensure_bridge().await.map(drop),
            false => {
                let _made_meanwhile = self.bridge_state.write().await;
                self.blocking("take back ports", Core::clear).await
            }
        };
        if let Err(error) = repaired {
            tracing::warn!(error = error.chain(), "the built-in network is not as it should be");
        }
    }

    pub(super) async fn attach(self: &Arc<Self>, pod: &PodNetwork) -> Result<Attachment, Error> {
        let lease = self.core.leases().get(&pod.id);
        if let Some(lease) = lease {
            if lease.netns == pod.netns && self.check(pod).await.is_ok() {
                return Ok(self.core.attachment(&lease));
            }
            self.detach(&pod.id).await?;
        }
        match self.attach_once(pod).await {
            // EINVAL means that the bridge was removed: make it again, once.
            Err(Error::Kernel { step: NEW_PAIR_STEP, source, .. }) if is(&source, Errno::INVAL) => {
                self.bridge_state.write().await.bridge = None;
                self.attach_once(pod).await
            }
            outcome => outcome,
        }
    }

    async fn attach_once(&self, pod: &PodNetwork) -> Result<Attachment, Error> {
        let bridge_state = self.ensure_bridge().await?;
        let (index, pod) = (bridge_state.bridge.unwrap_or_default(), pod.clone());
        self.blocking("attach", move |core| core.attach(&pod, index)).await
    }

    pub(super) async fn detach(self: &Arc<Self>, pod: &str) -> Result<(), Error> {
        let pod = pod.to_owned();
        // The lock keeps the table from being made meanwhile, with the ports that are withdrawn here.
        let _bridge_state = self.bridge_state.read().await;
        let retired = self.blocking("detach", move |core| core.release(&pod)).await?;
        retired.into_iter().for_each(|interface| self.delete_later(interface));
        Ok(())
    }

    /// Deletes the interface of a retired lease in the background, and the bridge after the last one if so configured.
    fn delete_later(self: &Arc<Self>, interface: String) {
        let bridge = self.clone();
        let mut deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
        while deletions.try_join_next().is_some() {}
        deletions.spawn(async move {
            for pause in retry_delays() {
                let Err(error) = bridge.delete(&interface).await else { return };
                let error = error.chain();
                tracing::warn!(
                    interface,
                    error,
                    "left over on the built-in network; tried again in {pause:?}"
                );
                // The next daemon deletes it.
                if timeout(pause, bridge.closing.cancelled()).await.is_ok() {
                    return;
                }
            }
        });
    }

    async fn delete(&self, interface: &str) -> Result<(), Error> {
        let name = interface.to_owned();
        // The semaphore is never closed.
        let _deleting = self.deleting.acquire().await;
        self.blocking("delete", move |core| core.delete(&name)).await?;
        match self.core.config.remove_when_empty {
            true => self.remove_if_empty().await,
            false => Ok(()),
        }
    }

    pub(super) async fn check(&self, pod: &PodNetwork) -> Result<(), Error> {
        let pod = pod.clone();
        self.blocking("check", move |core| core.check(&pod)).await
    }

    /// Returns the ids of the pods that hold a lease.
    pub(super) fn pods(&self) -> Vec<String> {
        self.core.leases().all().map(|lease| lease.pod.clone()).collect()
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        let deletions = std::mem::take(&mut *self.deletions.lock().unwrap_or_else(PoisonError::into_inner));
        deletions.join_all().await;
    }

    pub(super) async fn teardown(&self) -> Result<(), Error> {
        self.close().await;
        self.remove_if_empty().await
    }

    async fn remove_if_empty(&self) -> Result<(), Error> {
        let mut bridge_state = self.bridge_state.write().await;
        if self.core.leases().is_empty() {
            bridge_state.bridge = None;
            self.blocking("teardown", Core::teardown).await?;
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> serde_json::Value {
        let (leases, subnet) = (self.core.leases().all().count(), self.core.subnet);
        json!({ "provider": "bridge", "config": self.core.config, "subnet": subnet, "leases": leases })
    }

    /// Returns the bridge and its table, which are made at first use.
    async fn ensure_bridge(&self) -> Result<RwLockReadGuard<'_, BridgeState>, Error> {
        let asked = Instant::now();
        let bridge_state = self.bridge_state.read().await;
        if bridge_state.bridge.is_some() {
            return Ok(bridge_state);
        }
        drop(bridge_state);
        let mut bridge_state = self.bridge_state.write().await;
        if bridge_state.bridge.is_none() {
            bridge_state.failed_since(asked)?;
            let made = self.blocking("make the bridge", Core::make_bridge).await.map_err(Arc::new);
            bridge_state.failure = made.as_ref().err().map(|error| (Instant::now(), error.clone()));
            bridge_state.bridge = Some(made.map_err(Error::Shared)?);
        }
        Ok(bridge_state.downgrade())
    }

    /// Waits until bridge and table exist, even if opening did not wait for them.
    #[cfg(test)]
    pub(super) async fn wait_until_made(&self) -> Result<(), Error> {
        self.ensure_bridge().await.map(drop)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Core) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let core = self.core.clone();
        blocking(step, move || work(&core)).await
    }
}

impl BridgeState {
    /// Fails with the error of an attempt that ended after `asked`: callers that queued behind it must not wait for the
    /// same hang one after the other.
    fn failed_since(&self, asked: Instant) -> Result<(), Error> {
        match &self.failure {
            Some((when, error)) if *when > asked => Err(Error::Shared(error.clone())),
            _ => Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Lost { step }))
}

fn refuse_unusable(config: &BridgeConfig) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let name = &config.name;
    match (1..=15).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-') {
        true => Ok(()),
        false => Err(Error::InvalidConfig {
            key: "network.bridge.name",
            value: name.clone(),
            why: "must be 1 to 15 of A-Z a-z 0-9 - _ and not start with a dash",
        }),
    }
}

fn refused(step: &'static str, object: impl ToString) -> impl FnOnce(io::Error) -> Error {
    let object = object.to_string();
    move |source| Error::Kernel { step, object, source }
}
