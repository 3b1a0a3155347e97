//! The `[nri]` section of the daemon's configuration.

use std::{path::PathBuf, time::Duration};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config;

/// The `[nri]` section: plugins that watch and adjust pods and containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether NRI plugins are used at all.
    pub enabled: bool,
    /// Whether plugins may connect to the socket; those in `plugin_dir` are started in any case.
    pub external_plugins: bool,
    /// Socket that plugins connect to, for root only. When another daemon serves it, this one goes on without one.
    pub socket: PathBuf,
    /// Directory of plugins that the daemon starts: executables named `NN-name`, called in the order of their two
    /// digits.
    pub plugin_dir: PathBuf,
    /// Directory of configurations for the plugins of `plugin_dir`: `NN-name.conf`, or else `name.conf`.
    pub plugin_config_dir: PathBuf,
    /// Time limit for a plugin that has connected to register; then it is disconnected.
    pub registration_timeout_seconds: u64,
    /// Time limit for a plugin to answer a request. Then it is disconnected, unless it asked to be kept, and the
    /// request goes on without it, unless it asked for the request to fail.
    pub request_timeout_seconds: u64,
    /// Time limit for a new plugin to take in the existing pods and containers; then it is disconnected. Requests wait
    /// for it no longer than for any request: events that follow are queued for it.
    pub synchronization_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            external_plugins: true,
            socket: "/var/run/nri/nri.sock".into(),
            plugin_dir: "/opt/nri/plugins".into(),
            plugin_config_dir: "/etc/nri/conf.d".into(),
            registration_timeout_seconds: 5,
            request_timeout_seconds: 2,
            synchronization_timeout_seconds: 30,
        }
    }
}

impl Config {
    /// Fails on a value out of range.
    pub(crate) fn check(&self) -> Result<(), config::Error> {
        for (key, seconds) in [
            ("nri.registration_timeout_seconds", self.registration_timeout_seconds),
            ("nri.request_timeout_seconds", self.request_timeout_seconds),
            ("nri.synchronization_timeout_seconds", self.synchronization_timeout_seconds),
        ] {
            config::require((1..=3600).contains(&seconds), key, seconds, "must be from 1 to 3600")?;
        }
        Ok(())
    }

    /// How long a plugin may take to register.
    pub fn registration_timeout(&self) -> Duration {
        Duration::from_secs(self.registration_timeout_seconds)
    }

    /// How long a plugin may take for one request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// How long a plugin may take to take in the state.
    pub fn synchronization_timeout(&self) -> Duration {
        Duration::from_secs(self.synchronization_timeout_seconds)
    }
}
