//! Watches the configuration directory and reads it again whenever it changes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchMask};
use tokio::sync::watch;
use tokio::time::sleep;

use super::chain;
use super::conf::{Loaded, NetworkConf};
use super::plugin::Plugins;

/// Age at which the answers of STATUS are refreshed.
const MAX_STATUS_AGE: Duration = Duration::from_secs(10);
/// Pause before another attempt when the directory cannot be watched.
const WATCH_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The configuration as last read, with the plugins' answers to STATUS. Replaced as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(super) loaded: Loaded,
    /// Errors of STATUS by network, for the networks in use whose version has it.
    pub(super) ailing: BTreeMap<String, String>,
    /// Whether STATUS was answered, or no network in use has it.
    answered: bool,
    asked: Instant,
}

#[cfg(test)]
impl Snapshot {
    /// Whether the directory held nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.loaded == Loaded::default()
    }
}

/// The current snapshot of a directory.
#[derive(Debug)]
pub(super) struct Watched {
    directory: PathBuf,
    plugins: Plugins,
    in_use: usize,
    snapshot: watch::Sender<Arc<Snapshot>>,
}

impl Watched {
    /// Reads `directory`, of which the first `in_use` networks are used. [`Watched::follow`] asks for their STATUS.
    pub(super) fn new(directory: PathBuf, plugins: Plugins, in_use: usize) -> Watched {
        let loaded = load(&directory);
        let can_tell =
            loaded.networks.iter().take(in_use).filter(|network| network.version.has_status_and_gc());
        let silent = |network: &NetworkConf| {
            (
                network.name.clone(),
                format!("network {:?}: its plugins have not told yet whether they can work", network.name),
            )
        };
        let ailing: BTreeMap<_, _> = can_tell.map(silent).collect();
        let snapshot = Snapshot { answered: ailing.is_empty(), loaded, ailing, asked: Instant::now() };
        Watched { directory, plugins, in_use, snapshot: watch::Sender::new(Arc::new(snapshot)) }
    }

    /// Returns once STATUS was answered for the first time; at once when no network in use has it.
    pub(super) async fn settled(&self) {
        // The sender lives as long as self.
        let _ = self.snapshot.subscribe().wait_for(|snapshot| snapshot.answered).await;
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Subscribes to new snapshots.
    #[cfg(test)]
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Reads the directory again; the old snapshot stays until STATUS is answered.
    pub(super) async fn reload(&self) {
        self.publish(load(&self.directory)).await;
    }

    async fn publish(&self, loaded: Loaded) {
        let ailing = self.ask(&loaded.networks).await;
        let snapshot = Arc::new(Snapshot { loaded, ailing, answered: true, asked: Instant::now() });
        self.snapshot.send_replace(snapshot);
    }

    async fn ask(&self, networks: &[NetworkConf]) -> BTreeMap<String, String> {
        let mut ailing = BTreeMap::new();
        for network in networks.iter().take(self.in_use) {
            if let Err(error) = chain::status(&self.plugins, network).await {
                ailing.insert(network.name.clone(), error.chain());
            }
        }
        ailing
    }

    /// Whether any network in use has STATUS.
    fn can_ask(&self) -> bool {
        let snapshot = self.snapshot();
        snapshot.loaded.networks.iter().take(self.in_use).any(|network| network.version.has_status_and_gc())
    }

    /// Watches the directory for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            if let Err(error) = self.follow_once().await {
                let directory = self.directory.display();
                tracing::warn!(%directory, %error, "network configuration is not watched; trying again");
                sleep(WATCH_RETRY_DELAY).await;
            }
            self.reload().await;
        }
    }

    /// Watches until the directory itself is gone or cannot be watched.
    async fn follow_once(&self) -> io::Result<()> {
        let mut events = watch_directory(&self.directory)?.into_event_stream([0; 4096])?;
        self.reload().await;
        loop {
            let age = self.snapshot().asked.elapsed();
            tokio::select! {
                first = events.next() => {
                    if gone(first)? || gone_meanwhile(&mut events)? {
                        return Ok(());
                    }
                    self.reload().await;
                }
                () = sleep(MAX_STATUS_AGE.saturating_sub(age)), if self.can_ask() => {
                    self.publish(self.snapshot().loaded.clone()).await;
                }
            }
        }
    }
}

fn load(directory: &Path) -> Loaded {
    let loaded = Loaded::from_directory(directory);
    for (path, why) in &loaded.broken {
        tracing::warn!(path = %path.display(), why, "network configuration cannot be used");
    }
    loaded
}

/// Creates `directory` if absent and watches it. A file read half-written, on CREATE, is read again on CLOSE_WRITE.
fn watch_directory(directory: &Path) -> io::Result<Inotify> {
    fs::create_dir_all(directory)?;
    let inotify = Inotify::init()?;
    let changes = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    inotify.watches().add(directory, changes)?;
    Ok(inotify)
}

/// Whether an event says that the directory was deleted, moved or is no longer watched.
fn gone(event: Option<io::Result<Event<OsString>>>) -> io::Result<bool> {
    let lost = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED;
    event.transpose().map(|event| event.is_none_or(|event| event.mask.intersects(lost)))
}

/// Drains the pending events, so that many changes cause one reload. Returns whether the directory is gone.
fn gone_meanwhile(events: &mut EventStream<[u8; 4096]>) -> io::Result<bool> {
    while let Some(event) = events.next().now_or_never() {
        if gone(event)? {
            return Ok(true);
        }
    }
    Ok(false)
}
