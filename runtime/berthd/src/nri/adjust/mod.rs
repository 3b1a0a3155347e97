//! Merges what plugins want changed: each plugin sees the result of the ones before it. Two plugins that set the same
//! thing are in conflict, unless the later one removes the earlier value first (a name with a leading `-`).

mod changes;
mod container;
mod entries;
mod fields;
mod owners;
mod resources;

use berth_nri::nri::{
    ContainerAdjustment, ContainerEviction, CreateContainerRequest, CreateContainerResponse, LinuxResources,
    UpdateContainerRequest, UpdateContainerResponse,
};

pub(super) use self::changes::Changes;
use self::owners::Claims;
use crate::error::{Error, Kind, Result};

/// A container being created, as the plugins asked so far have left it.
pub(super) struct Creation {
    /// The request to the next plugin.
    pub request: CreateContainerRequest,
    /// The merged adjustment of the container.
    pub adjustment: ContainerAdjustment,
    /// Updates of other containers.
    pub changes: Changes,
    /// Containers to be evicted.
    pub evictions: Vec<ContainerEviction>,
}

impl Creation {
    /// Starts without adjustments.
    pub fn new(request: CreateContainerRequest) -> Self {
        Self {
            request,
            adjustment: ContainerAdjustment::new(),
            changes: Changes::default(),
            evictions: Vec::new(),
        }
    }

    /// Merges the answer of one plugin.
    ///
    /// # Errors
    ///
    /// When a field was set before (naming both plugins and the field), or the container itself is to be updated.
    pub fn collect(&mut self, answer: CreateContainerResponse, plugin: &str) -> Result<()> {
        let id = self.request.container.id.clone();
        if answer.update.iter().any(|update| update.container_id == id) {
            let text =
                format!("NRI plugin {plugin} wants to update container {id} while it is being created");
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        if let Some(wanted) = answer.adjust.into_option() {
            let claims = &mut Claims::new(self.changes.owners_mut(), &id, plugin);
            let seen = self.request.container.mut_or_insert_default();
            container::adjust(wanted, claims, &mut self.adjustment, seen)?;
        }
        self.evictions.extend(answer.evict);
        self.changes.collect(answer.update, plugin)
    }
}

/// A container being updated, as the plugins asked so far have left it.
pub(super) struct Update {
    /// The request to the next plugin; in the end, the update to make.
    pub request: UpdateContainerRequest,
    /// Updates of other containers.
    pub changes: Changes,
    /// Containers to be evicted.
    pub evictions: Vec<ContainerEviction>,
}

impl Update {
    /// Starts with the update that the caller wants.
    pub fn new(request: UpdateContainerRequest) -> Self {
        Self { request, changes: Changes::default(), evictions: Vec::new() }
    }

    /// Merges the answer of one plugin; fails on a conflict.
    pub fn collect(&mut self, answer: UpdateContainerResponse, plugin: &str) -> Result<()> {
        let id = self.request.container.id.clone();
        let (own, others): (Vec<_>, Vec<_>) =
            answer.update.into_iter().partition(|update| update.container_id == id);
        for update in own {
            let Some(asked) = resources_of(&update) else { continue };
            let claims = &mut Claims::new(self.changes.owners_mut(), &id, plugin);
            match resources::claim(asked, claims) {
                Ok(()) => resources::overlay(self.request.linux_resources.mut_or_insert_default(), asked),
                Err(error) if !update.ignore_failure => return Err(error),
                Err(_) => {}
            }
        }
        self.evictions.extend(answer.evict);
        self.changes.collect(others, plugin)
    }
}

fn resources_of(update: &berth_nri::nri::ContainerUpdate) -> Option<&LinuxResources> {
    update.linux.as_ref()?.resources.as_ref()
}

#[cfg(test)]
mod tests;
