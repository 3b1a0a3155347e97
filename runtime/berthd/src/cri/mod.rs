//! The Container Runtime Interface v1. This is the only part that knows its types: each call is converted, handed on,
//! and its answer converted back.

mod call;
mod checkpoint;
mod chunks;
mod events;
mod filter;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod image_service;
mod info;
mod list;
mod log_subject;
mod metrics;
mod reply;
mod request;
mod runtime_service;
#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod samples;
mod settings;
mod stats;
mod status;
mod streaming;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use list::MAX_MESSAGE_BYTES;

use crate::{config::Config, runtime::Runtime, spec::HostFeatures, streaming::Tokens};

/// Both services of the CRI over one runtime. Clones share it.
#[derive(Clone)]
pub struct Cri {
    runtime: Runtime,
    daemon: Arc<Daemon>,
    tokens: Tokens,
}

/// Configuration and host features, reported by the services.
struct Daemon {
    config: Config,
    host: HostFeatures,
}

impl Cri {
    /// `config` is shown by verbose calls, `host` is reported to clients as features, `tokens` admit clients to
    /// streams.
    pub fn new(runtime: Runtime, config: Config, host: HostFeatures, tokens: Tokens) -> Self {
        Self { runtime, daemon: Arc::new(Daemon { config, host }), tokens }
    }
}
