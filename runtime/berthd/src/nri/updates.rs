//! Updates and evictions of containers that plugins ask for.

use std::sync::Arc;

use berth_nri::nri::{ContainerEviction, ContainerUpdate};

use super::convert;
use crate::{container, error::Result, runtime::Shared};

/// Makes the updates one after the other, and returns those that failed without `ignore_failure`.
pub(super) async fn apply(shared: &Arc<Shared>, updates: Vec<ContainerUpdate>) -> Vec<ContainerUpdate> {
    let mut failed = Vec::new();
    for update in updates {
        match make(shared, &update).await {
            Err(error) if !update.ignore_failure => {
                tracing::warn!(container = update.container_id, %error, "could not update as an NRI plugin asked");
                failed.push(update);
            }
            _ => {}
        }
    }
    failed
}

async fn make(shared: &Arc<Shared>, update: &ContainerUpdate) -> Result<()> {
    let wanted = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let Some(wanted) = wanted else { return Ok(()) };
    let limits = convert::changed_limits(wanted)?;
    let entry = shared.containers.find(&update.container_id)?;
    container::set_limits(shared, entry, limits).await
}

/// Kills the containers. Those that do not exist are skipped; failures are logged.
pub(super) async fn evict(shared: &Arc<Shared>, evictions: Vec<ContainerEviction>) {
    for eviction in evictions {
        let Ok(entry) = shared.containers.find(&eviction.container_id) else { continue };
        let (container, reason) = (&eviction.container_id, &eviction.reason);
        tracing::info!(container, reason, "an NRI plugin evicts the container");
        if let Err(error) = container::kill(shared, entry).await {
            tracing::warn!(container, %error, "could not evict as an NRI plugin asked");
        }
    }
}
