//! CheckpointContainer, CheckpointPod and RestorePod.

use std::collections::{HashMap, HashSet};

use berth_cri::v1;

use super::{
    field::{absolute, check, each, invalid, name, required, seconds},
    id, run_pod_sandbox,
};
use crate::{error::Result, pod::config::PodConfig};

/// Validates CheckpointContainer. Returns the container's id.
pub(crate) fn checkpoint_container(request: v1::CheckpointContainerRequest) -> Result<String> {
    absolute("location", request.location)?;
    seconds("timeout", request.timeout)?;
    id("container_id", request.container_id)
}

/// Validates CheckpointPod. Returns the pod's id, and those of the containers to checkpoint.
pub(crate) fn checkpoint_pod(request: v1::CheckpointPodRequest) -> Result<(String, Vec<String>)> {
    absolute("output_path", request.output_path)?;
    no_options(&request.options)?;
    let containers = each("container_ids", request.container_ids, id)?;
    distinct("container_ids", &containers)?;
    Ok((id("pod_sandbox_id", request.pod_sandbox_id)?, containers))
}

/// Validates RestorePod. Returns the configuration of the pod to restore.
pub(crate) fn restore_pod(request: v1::RestorePodRequest) -> Result<PodConfig> {
    absolute("checkpoint_path", request.checkpoint_path)?;
    no_options(&request.options)?;
    let names = each("container_configs", request.container_configs, |field, config| {
        let metadata = required(&format!("{field}.metadata"), config.metadata)?;
        name(&format!("{field}.metadata.name"), metadata.name)
    })?;
    distinct("container_configs", &names)?;
    let (config, runtime_handler) = (request.config, request.runtime_handler);
    run_pod_sandbox(v1::RunPodSandboxRequest { config, runtime_handler })
}

/// Refuses all options, since none are defined yet.
fn no_options(options: &HashMap<String, String>) -> Result<()> {
    match options.keys().min() {
        Some(key) => Err(invalid("options", key, "no such option")),
        None => Ok(()),
    }
}

fn distinct(field: &str, names: &[String]) -> Result<()> {
    check(!names.is_empty(), field, (), "must not be empty")?;
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(invalid(field, twice, "is there twice")),
        None => Ok(()),
    }
}
