//! The `[streaming]` section.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// The server that clients of exec, attach and port-forward are sent to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Streaming {
    /// Address to listen on. Port 0 takes any free one; clients are told which. kubelet connects from this machine.
    pub address: SocketAddr,
    /// Certificate chain in PEM for TLS. Unset, together with `tls_key`: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Seconds without traffic in either direction after which a connection is closed.
    pub idle_timeout_seconds: u64,
}

impl Streaming {
    /// Returns the time without traffic after which a connection is closed.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            tls_certificate: None,
            tls_key: None,
            idle_timeout_seconds: 4 * 60 * 60,
        }
    }
}
