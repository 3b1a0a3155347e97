//! The runtime side of the Container Network Interface, version 1.1.0.

mod cache;
mod chain;
mod conf;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub(super) mod orphans;
mod plugin;
mod ranges;
mod request;
mod result;
mod template;
mod version;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::config::CniConfig;
use super::error::{Error, NotReady};
use super::netns;
use super::pod::{Attachment, PodNetwork};
use cache::{Cache, JoinedNetwork, Record};
use chain::Chain;
use plugin::Plugins;
use ranges::Ranges;
use watch::Watched;

/// Networks made by CNI plugins.
#[derive(Debug)]
pub(super) struct Cni {
    config: CniConfig,
    plugins: Plugins,
    cache: Cache,
    watched: Arc<Watched>,
    ranges: Ranges,
    follower: AbortHandle,
    /// Held for reading while a pod is being attached.
    attaching: RwLock<()>,
}

/// Time limit of one plugin's GC, during which no pod can be attached.
const GC_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts to find a moment in which no pod is being attached.
const QUIET_POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Drop for Cni {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Cni {
    pub(super) async fn open(config: CniConfig, root: &Path) -> Result<Arc<Cni>, Error> {
        if config.plugin_timeout_seconds == 0 || config.max_conf_num == 0 {
            return Err(Error::InvalidConfig {
                key: "network.cni.plugin_timeout_seconds and network.cni.max_conf_num",
                value: format!("{}, {}", config.plugin_timeout_seconds, config.max_conf_num),
                why: "both must be at least 1",
            });
        }
        let plugins = Plugins::new(config.bin_dirs.clone(), config.plugin_timeout());
        let directory = config.cache_dir(root);
        let cache = Cache::open(directory.clone())?;
        let ranges = Ranges::open(&directory)?;
        let watched = Watched::new(config.conf_dir.clone(), plugins.clone(), config.max_conf_num);
        let watched = Arc::new(watched);
        let follower = tokio::spawn(watched.clone().follow()).abort_handle();
        Ok(Arc::new(Cni { config, plugins, cache, watched, ranges, follower, attaching: RwLock::default() }))
    }

    /// Subscribes to changes of the configuration.
    #[cfg(test)]
    pub(super) fn changes(&self) -> tokio::sync::watch::Receiver<Arc<watch::Snapshot>> {
        self.watched.subscribe()
    }

    pub(super) async fn settled(&self) {
        self.watched.settled().await;
    }

    pub(super) fn ready(&self) -> Result<(), NotReady> {
        let snapshot = self.watched.snapshot();
        let directory = self.config.conf_dir.display();
        let message = if snapshot.loaded.networks.is_empty() {
            let broken = snapshot.loaded.broken.iter();
            let broken = broken.map(|(path, why)| format!("; {}: {why}", path.display()));
            format!(
                "cni config uninitialized: no usable network in {directory}{}",
                broken.collect::<String>()
            )
        } else if snapshot.ailing.is_empty() {
            return Ok(());
        } else {
            let ailing = snapshot.ailing.values().map(String::as_str);
            ailing.collect::<Vec<_>>().join("; ")
        };
        Err(NotReady { reason: "NetworkPluginNotReady", message })
    }

    pub(super) async fn attach(&self, pod: &PodNetwork) -> Result<Attachment, Error> {
        let _attaching = self.attaching.read().await;
        if let Some(record) = self.cache.read(&pod.id).await? {
            if record.is_complete() && record.netns == pod.netns {
                match self.check_record(&record).await {
                    Ok(()) => return attachment(&record),
                    Err(error) => {
                        let error = error.chain();
                        tracing::warn!(
                            pod = pod.id,
                            error,
                            "its network is not as it was: attaching it anew"
                        );
                    }
                }
            }
            self.undo(&record).await?;
        }
        let mut record = self.intend(pod)?;
        self.cache.write(&record).await?;
        // The intent is synced while the plugins run, so that its durability adds no latency.
        let (added, durable) = tokio::join!(self.add_all(&mut record), self.cache.sync(&pod.id));
        let settled = match added.and(durable) {
            Ok(()) => self.cache.write(&record).await.and_then(|()| attachment(&record)),
            Err(error) => Err(error),
        };
        match settled {
            Ok(attachment) => Ok(attachment),
            Err(attach) => match self.undo(&record).await {
                Ok(()) => Err(attach),
                Err(undo) => Err(Error::Undo { attach: Box::new(attach), undo: Box::new(undo) }),
            },
        }
    }

    /// Builds the intent for `pod`: every network in use, without results. Fails when no network is usable.
    fn intend(&self, pod: &PodNetwork) -> Result<Record, Error> {
        let snapshot = self.watched.snapshot();
        if snapshot.loaded.networks.is_empty() {
            self.ready()?;
        }
        let networks = snapshot.loaded.networks.iter().take(self.config.max_conf_num).enumerate();
        let join = |(index, conf): (usize, &conf::NetworkConf)| JoinedNetwork {
            conf: conf.clone(),
            interface: format!("eth{index}"),
            result: None,
        };
        Ok(Record {
            pod: pod.id.clone(),
            netns: pod.netns.clone(),
            arguments: request::arguments(pod),
            capability_args: request::capability_args(pod, &self.ranges.get())?,
            networks: networks.map(join).collect(),
        })
    }

    async fn add_all(&self, record: &mut Record) -> Result<(), Error> {
        let netns = record.netns.to_string_lossy().into_owned();
        for index in 0..record.networks.len() {
            let result = Chain::of(&self.plugins, record, &record.networks[index], &netns).add().await?;
            record.networks[index].result = Some(result);
        }
        Ok(())
    }

    /// Runs DEL of every network, last first, and removes the record when all succeeded.
    async fn undo(&self, record: &Record) -> Result<(), Error> {
        // An empty CNI_NETNS says that the namespace is gone; plugins still release addresses and the like.
        let netns = match netns::is_pinned(&record.netns) {
            true => record.netns.to_string_lossy(),
            false => "".into(),
        };
        let mut outcome = Ok(());
        for joined in record.networks.iter().rev() {
            let chain = Chain::of(&self.plugins, record, joined, &netns);
            outcome = outcome.and(chain.del(joined.result.as_ref()).await);
        }
        outcome?;
        self.cache.remove(&record.pod).await
    }

    pub(super) async fn detach(&self, pod: &str, attachment: Option<&Attachment>) -> Result<(), Error> {
        match self.cache.read(pod).await?.or_else(|| record_in(attachment?)) {
            Some(record) => self.undo(&record).await,
            None => Ok(()),
        }
    }

    pub(super) async fn check(&self, pod: &str, attachment: &Attachment) -> Result<(), Error> {
        let missing = || Error::Drift { pod: pod.to_owned(), what: "it has no network record".into() };
        let record = self.cache.read(pod).await?.or_else(|| record_in(attachment));
        self.check_record(&record.ok_or_else(missing)?).await
    }

    async fn check_record(&self, record: &Record) -> Result<(), Error> {
        let missing =
            || Error::Drift { pod: record.pod.clone(), what: "it was never attached to the end".into() };
        let netns = record.netns.to_string_lossy();
        for joined in &record.networks {
            let result = joined.result.as_ref().ok_or_else(missing)?;
            Chain::of(&self.plugins, record, joined, &netns).check(result).await?;
        }
        Ok(())
    }

    /// Returns the ids of the pods on record.
    pub(super) async fn pods(&self) -> Result<Vec<String>, Error> {
        self.cache.pods().await
    }

    /// Has plugins that support GC remove every attachment that is neither on record nor in `attached`, where pods keep
    /// a copy in case the record is lost. No pod is attached meanwhile: its attachment would not be on the list yet.
    pub(super) async fn collect(&self, attached: &[Attachment]) -> Result<(), Error> {
        let _blocked = self.block_attaching().await;
        let mut kept: Vec<Record> = attached.iter().filter_map(record_in).collect();
        for pod in self.cache.pods().await? {
            kept.extend(self.cache.read(&pod).await?);
        }
        let (plugins, mut outcome) = (self.plugins.within(GC_TIMEOUT), Ok(()));
        for network in self.watched.snapshot().loaded.networks.iter().take(self.config.max_conf_num) {
            let valid = attachments_to(&network.name, &kept);
            outcome = outcome.and(chain::collect(&plugins, network, &valid).await);
        }
        outcome
    }

    /// Returns a guard that keeps pods from being attached. Polls, since a queued writer would block new readers.
    async fn block_attaching(&self) -> RwLockWriteGuard<'_, ()> {
        loop {
            if let Ok(guard) = self.attaching.try_write() {
                return guard;
            }
            sleep(QUIET_POLL_INTERVAL).await;
        }
    }

    /// Returns the state in containerd's form, which tools that read the verbose status expect.
    pub(super) fn describe(&self) -> Value {
        let snapshot = self.watched.snapshot();
        let networks = snapshot.loaded.networks.iter().take(self.config.max_conf_num).enumerate();
        let broken = snapshot.loaded.broken.iter();
        json!({
            "provider": "cni",
            "cniconfig": {
                "PluginDirs": self.config.bin_dirs,
                "PluginConfDir": self.config.conf_dir,
                "PluginMaxConfNum": self.config.max_conf_num,
                "Prefix": "eth",
                "Networks": networks.map(describe).collect::<Vec<_>>(),
            },
            "lastCNILoadStatus": self.ready().err().map_or("OK".to_owned(), |why| why.message),
            "broken": broken.map(|(path, why)| json!({"path": path, "error": why})).collect::<Vec<_>>(),
        })
    }
}

fn describe((index, network): (usize, &conf::NetworkConf)) -> Value {
    let plugins = network.plugins.iter().map(|plugin| json!({ "Network": plugin.body() }));
    json!({
        "Config": {
            "Name": network.name,
            "CNIVersion": network.version,
            "Plugins": plugins.collect::<Vec<_>>(),
            "Source": network.source,
        },
        "IFName": format!("eth{index}"),
    })
}

/// Decodes the record stored in an attachment.
fn record_in(attachment: &Attachment) -> Option<Record> {
    serde_json::from_value(attachment.record.clone()).ok()
}

/// Lists the attachments to `network` that GC must keep.
fn attachments_to(network: &str, records: &[Record]) -> Vec<Value> {
    let of = |record: &Record| {
        let joined = record.networks.iter().filter(|joined| joined.conf.name == network);
        let named = joined.map(|joined| json!({"containerID": record.pod, "ifname": joined.interface}));
        named.collect::<Vec<_>>()
    };
    records.iter().flat_map(of).collect()
}

/// Builds the attachment from the results on record. Fails when no plugin gave an address.
fn attachment(record: &Record) -> Result<Attachment, Error> {
    let unusable =
        |why: String| Error::Drift { pod: record.pod.clone(), what: format!("its network record: {why}") };
    let (mut ips, mut interfaces) = (Vec::new(), Vec::new());
    for result in record.networks.iter().filter_map(|joined| joined.result.as_ref()) {
        ips.extend(result::addresses(result).map_err(unusable)?);
        interfaces.extend(result::interfaces(result));
    }
    if ips.is_empty() {
        return Err(unusable("no plugin gave the pod an address".into()));
    }
    let record = serde_json::to_value(record).map_err(|error| unusable(error.to_string()))?;
    Ok(Attachment { ips, interfaces, record })
}
