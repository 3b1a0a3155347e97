//! Filters of lists: every condition that is set must hold. An id may be shortened to its beginning.

use std::collections::{BTreeMap, HashMap};

use berth_cri::v1;

use super::{reply, request::known};
use crate::{container::Container, error::Result, pod::Pod};

/// Filter for pods.
pub(super) struct PodFilter {
    id: String,
    state: Option<v1::PodSandboxState>,
    labels: HashMap<String, String>,
}

impl PodFilter {
    /// A missing filter matches all.
    pub(super) fn new(filter: Option<v1::PodSandboxFilter>) -> Result<Self> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|state| known("filter.state", state.state)).transpose()?;
        Ok(Self { id: filter.id, state, labels: filter.label_selector })
    }

    /// The filter of statistics, which has no state.
    pub(super) fn of_stats(filter: Option<v1::PodSandboxStatsFilter>) -> Self {
        let filter = filter.unwrap_or_default();
        Self { id: filter.id, state: None, labels: filter.label_selector }
    }

    /// Whether the filter matches the pod.
    pub(super) fn wants(&self, pod: &Pod) -> bool {
        pod.id.starts_with(&self.id)
            && self.state.is_none_or(|state| state == reply::pod_state(pod.state))
            && has_labels(&pod.config.labels, &self.labels)
    }
}

/// Filter for containers.
pub(super) struct ContainerFilter {
    id: String,
    pod_id: String,
    state: Option<v1::ContainerState>,
    labels: HashMap<String, String>,
}

impl ContainerFilter {
    /// A missing filter matches all.
    pub(super) fn new(filter: Option<v1::ContainerFilter>) -> Result<Self> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|state| known("filter.state", state.state)).transpose()?;
        Ok(Self { id: filter.id, pod_id: filter.pod_sandbox_id, state, labels: filter.label_selector })
    }

    /// The filter of statistics, which has no state.
    pub(super) fn of_stats(filter: Option<v1::ContainerStatsFilter>) -> Self {
        let filter = filter.unwrap_or_default();
        Self { id: filter.id, pod_id: filter.pod_sandbox_id, state: None, labels: filter.label_selector }
    }

    /// Whether the filter matches the container.
    pub(super) fn wants(&self, container: &Container) -> bool {
        container.id.starts_with(&self.id)
            && container.pod_id.starts_with(&self.pod_id)
            && self.state.is_none_or(|state| state == reply::container_state(&container.state))
            && has_labels(&container.config.labels, &self.labels)
    }
}

fn has_labels(labels: &BTreeMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests;
