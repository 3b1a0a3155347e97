//! The Node Resource Interface: plugins that watch pods and containers, and adjust containers as they are created.
//!
//! ```text
//! pod/, container/ --events--> dispatch --one plugin after the other--> plugins
//!                                 '- adjust/: what they want, together   '- mux: two ttrpc connections on one socket
//!                                 '- apply/: into the container's OCI spec
//! ```
//! One event is delivered at a time, to all plugins in the order of their index: plugins rely on that. While no plugin
//! is connected, nothing is converted, and an event costs an atomic load (creation: a map under a lock).

mod adjust;
mod apply;
mod backlog;
pub mod config;
mod connection;
mod convert;
mod dispatch;
pub(crate) mod events;
mod launch;
mod listen;
mod mux;
mod notify;
mod plugin;
mod reported_ends;
mod synchronization;
mod unpublished;
mod updates;

use std::{
    fmt,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

pub use config::Config;
use dispatch::Dispatch;
use plugin::Plugin;
use reported_ends::ReportedEnds;
use tokio::sync::{Mutex, RwLock};
pub(crate) use unpublished::Announcement;
use unpublished::{UnpublishedObject, UnpublishedObjects, UnpublishedState};

use crate::{error::Result, runtime::Shared};

/// The plugins of this daemon. Clones share them.
#[derive(Clone)]
pub struct Nri(Arc<Inner>);

struct Inner {
    config: Config,
    /// Copy of `has_plugins` in `unpublished`, readable without its lock; only a hint.
    has_plugins: AtomicBool,
    unpublished: UnpublishedObjects,
    /// Whether the socket is this daemon's.
    listening: AtomicBool,
    /// In the order in which they are called. Locked while an event is delivered.
    plugins: Arc<Mutex<Vec<Arc<Plugin>>>>,
    reported_ends: ReportedEnds,
    /// Held for writing while plugins are being started.
    launching: Arc<RwLock<()>>,
}

/// Listens for plugins and starts those of `plugin_dir`; done when these take part or have failed to. Until then
/// creation waits, so that they are asked. Pods and containers of before must be in their tables when this is called.
pub(crate) fn open(shared: &Arc<Shared>) -> Result<impl Future<Output = ()> + use<>> {
    let config = shared.nri.config();
    if config.enabled && config.external_plugins {
        listen::listen(shared)?;
    }
    let programs = if config.enabled { launch::find(&config.plugin_dir)? } else { Vec::new() };
    // Never fails: nothing else holds the lock yet.
    let launching = Arc::clone(&shared.nri.0.launching).try_write_owned();
    let shared = Arc::clone(shared);
    let launched = tokio::spawn(async move {
        let _launching = launching;
        launch::launch_all(&shared, programs).await;
    });
    Ok(async move { drop(launched.await) })
}

impl Nri {
    /// Creates the interface, without plugins.
    pub(crate) fn new(config: Config) -> Self {
        Self(Arc::new(Inner {
            config,
            has_plugins: AtomicBool::new(false),
            unpublished: UnpublishedObjects::default(),
            listening: AtomicBool::new(false),
            plugins: Arc::default(),
            reported_ends: ReportedEnds::default(),
            launching: Arc::default(),
        }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Sends all plugins a shutdown, disconnects them, and removes the socket.
    pub async fn close(&self) {
        if let Some(mut dispatch) = self.dispatch().await {
            dispatch.shut_down_plugins().await;
        }
        if self.0.listening.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.0.config.socket)
        {
            tracing::warn!(%error, "could not remove the socket of NRI plugins");
        }
    }

    /// Returns once the plugins that the daemon starts take part, or have failed to.
    pub(crate) async fn wait_until_launched(&self) {
        drop(self.0.launching.read().await);
    }

    /// Whether there may be a plugin.
    pub(crate) fn has_plugins(&self) -> bool {
        self.0.has_plugins.load(Ordering::Acquire)
    }

    /// Waits until an event can be delivered; `None` when there are no plugins.
    async fn dispatch(&self) -> Option<Dispatch> {
        if !self.has_plugins() {
            return None;
        }
        Some(self.lock_plugins().await)
    }

    async fn lock_plugins(&self) -> Dispatch {
        Dispatch::new(self, Arc::clone(&self.0.plugins).lock_owned().await)
    }

    /// Locks the plugins to add one. From here on, creation waits for the end of the lock.
    async fn lock_plugins_to_add(&self) -> Dispatch {
        let dispatch = self.lock_plugins().await;
        self.set_has_plugins(true);
        dispatch
    }

    fn set_has_plugins(&self, has_plugins: bool) {
        self.unpublished_state().has_plugins = has_plugins;
        self.0.has_plugins.store(has_plugins, Ordering::Release);
    }

    fn set_listening(&self) {
        self.0.listening.store(true, Ordering::Release);
    }

    /// Drops the plugins whose connection has ended.
    async fn forget_closed(&self) {
        drop(self.dispatch().await);
    }

    fn unpublished_state(&self) -> MutexGuard<'_, UnpublishedState> {
        self.0.unpublished.lock()
    }

    fn unpublished(&self) -> Vec<UnpublishedObject> {
        self.unpublished_state().by_id.values().cloned().collect()
    }

    fn reported_ends(&self) -> &ReportedEnds {
        &self.0.reported_ends
    }
}

impl fmt::Debug for Nri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nri").field("config", &self.0.config).finish_non_exhaustive()
    }
}
