//! The Node Resource Interface: plugins that are told of pods and containers, and adjust containers as they are created.
//!
//! ```text
//! pod/, container/ --events--> a turn --one plugin after the other--> plugins
//!                                 '- adjust/: what they want, together   '- mux: two ttrpc connections on one socket
//!                                 '- apply/: into the container's OCI description
//! ```
//! One event is told at a time, to all plugins in the order of their index: plugins count on it. While no plugin is
//! connected an event costs one atomic load and nothing is converted.

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
    /// The same as in `drafts`, for those who need no more than a hint.
    listeners: AtomicBool,
    drafts: Drafts,
    /// The socket is this daemon's.
    listening: AtomicBool,
    /// In the order in which they are called. Locked while an event is told.
    plugins: Arc<Mutex<Vec<Arc<Plugin>>>>,
    told: Once,
    /// Held for writing while plugins are started.
    launching: Arc<RwLock<()>>,
}

/// Begins to start the plugins there are, and lets others come; done when those that were started take part or have failed to.
/// Until then nothing is made that they would not be asked about. Pods and containers of before must be known by then.
pub(crate) fn open(shared: &Arc<Shared>) -> Result<impl Future<Output = ()> + use<>> {
    let config = shared.nri.config();
    if config.enabled && config.external_plugins {
        listen::listen(shared)?;
    }
    let programs = if config.enabled { launch::find(&config.plugin_dir)? } else { Vec::new() };
    // Nobody else has it yet.
    let launching = Arc::clone(&shared.nri.0.launching).try_write_owned();
    let shared = Arc::clone(shared);
    let launched = tokio::spawn(async move {
        let _launching = launching;
        launch::launch_all(&shared, programs).await;
    });
    Ok(async move { drop(launched.await) })
}

impl Nri {
    /// No plugins yet.
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

    /// Tells the plugins that the daemon leaves, and lets no more come.
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

    /// Returns when the plugins that the daemon starts take part, or have failed to.
    pub(crate) async fn launched(&self) {
        drop(self.0.launching.read().await);
    }

    /// Whether there may be anyone to tell.
    pub(crate) fn has_listeners(&self) -> bool {
        self.0.listeners.load(Ordering::Acquire)
    }

    /// Waits for the turn to tell plugins something; `None` when there are none.
    async fn turn(&self) -> Option<Turn> {
        if !self.has_listeners() {
            return None;
        }
        Some(self.turn_anyway().await)
    }

    async fn turn_anyway(&self) -> Turn {
        Turn::new(self, Arc::clone(&self.0.plugins).lock_owned().await)
    }

    /// The same for a plugin that is about to come: from here on, whoever makes something waits for its end.
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
