//! The built-in network: one bridge, a veth pair per pod, IPv4.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::config::BridgeConfig;
use super::error::{Error, NotReady};
use super::pod::{Attachment, PodNetwork};
use super::record;

/// The built-in bridge network.
#[derive(Debug)]
pub(super) struct Bridge {
    config: BridgeConfig,
}

impl Bridge {
    pub(super) async fn open(config: BridgeConfig, root: &Path) -> Result<Arc<Bridge>, Error> {
        record::make_directory(&root.join("network").join(&config.name))?;
        Ok(Arc::new(Bridge { config }))
    }

    pub(super) async fn attach(&self, _pod: &PodNetwork) -> Result<Attachment, Error> {
        let message = "the built-in bridge is not built yet".to_owned();
        Err(Error::NotReady(NotReady { reason: "NetworkPluginNotReady", message }))
    }

    pub(super) async fn detach(&self, _pod: &str) -> Result<(), Error> {
        Ok(())
    }

    pub(super) async fn check(&self, _pod: &PodNetwork) -> Result<(), Error> {
        Ok(())
    }

    pub(super) async fn retain(&self, _live: &HashSet<String>) -> Result<(), Error> {
        Ok(())
    }

    pub(super) async fn teardown(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "provider": "bridge", "config": self.config })
    }
}
