//! The Node Resource Interface: plugins that watch pods and containers, and adjust containers as they are created.
//!
//! ```text
//! pod/, container/ --events--> a turn --one plugin after the other--> plugins
//!                                 '- adjust/: what they want, together   '- mux: two ttrpc connections on one socket
//!                                 '- apply/: into the container's OCI spec
//! ```
//! One event is delivered at a time, to all plugins in the order of their index: plugins rely on that. While no plugin
//! is connected, nothing is converted, and an event costs an atomic load (creation: a draft under a lock).

mod adjust;
mod apply;
mod backlog;
pub mod config;
mod connection;
mod convert;
mod drafts;
pub(crate) mod events;
mod joining;
mod launch;
mod listen;
mod mux;
mod notify;
mod once;
mod plugin;
mod turn;
mod updates;

use std::{
    fmt,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

pub use config::Config;
pub(crate) use drafts::Announced;
use drafts::{Draft, Drafts, Known};
use once::Once;
use plugin::Plugin;
use tokio::sync::{Mutex, RwLock};
use turn::Turn;

use crate::{error::Result, runtime::Shared};

/// The plugins of this daemon. Clones share them.
#[derive(Clone)]
pub struct Nri(Arc<Inner>);

struct Inner {
    config: Config,
    /// Copy of `listeners` in `drafts`, readable without its lock; only a hint.
    listeners: AtomicBool,
    drafts: Drafts,
    /// Whether the socket is this daemon's.
    listening: AtomicBool,
    /// In the order in which they are called. Locked while an event is delivered.
    plugins: Arc<Mutex<Vec<Arc<Plugin>>>>,
    told: Once,
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
            listeners: AtomicBool::new(false),
            drafts: Drafts::default(),
            listening: AtomicBool::new(false),
            plugins: Arc::default(),
            told: Once::default(),
            launching: Arc::default(),
        }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Sends all plugins a shutdown, disconnects them, and removes the socket.
    pub async fn close(&self) {
        if let Some(mut turn) = self.turn().await {
            turn.dismiss().await;
        }
        if self.0.listening.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.0.config.socket)
        {
            tracing::warn!(%error, "could not remove the socket of NRI plugins");
        }
    }

    /// Returns once the plugins that the daemon starts take part, or have failed to.
    pub(crate) async fn launched(&self) {
        drop(self.0.launching.read().await);
    }

    /// Whether there may be a plugin.
    pub(crate) fn has_listeners(&self) -> bool {
        self.0.listeners.load(Ordering::Acquire)
    }

    /// Waits for the turn to deliver an event; `None` when there are no plugins.
    async fn turn(&self) -> Option<Turn> {
        if !self.has_listeners() {
            return None;
        }
        Some(self.turn_anyway().await)
    }

    async fn turn_anyway(&self) -> Turn {
        Turn::new(self, Arc::clone(&self.0.plugins).lock_owned().await)
    }

    /// Waits for a turn in which a plugin is admitted. From here on, creation waits for the end of that turn.
    async fn turn_of_newcomer(&self) -> Turn {
        let turn = self.turn_anyway().await;
        self.set_listeners(true);
        turn
    }

    fn set_listeners(&self, listeners: bool) {
        self.known().listeners = listeners;
        self.0.listeners.store(listeners, Ordering::Release);
    }

    fn set_listening(&self) {
        self.0.listening.store(true, Ordering::Release);
    }

    /// Drops the plugins whose connection has ended.
    async fn forget_closed(&self) {
        drop(self.turn().await);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.drafts.lock()
    }

    fn drafts(&self) -> Vec<Draft> {
        self.known().by_id.values().cloned().collect()
    }

    fn told(&self) -> &Once {
        &self.0.told
    }
}

impl fmt::Debug for Nri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nri").field("config", &self.0.config).finish_non_exhaustive()
    }
}
