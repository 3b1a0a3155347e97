//! Updates that plugins request for containers other than the one that the request is about.

use std::collections::BTreeMap;

use berth_nri::nri::{ContainerUpdate, OwningPlugins};

use super::{
    owners::{Claims, Owners},
    resources,
};
use crate::error::Result;

/// Updates by container id.
#[derive(Default)]
pub(in crate::nri) struct Changes {
    owners: Owners,
    updates: BTreeMap<String, ContainerUpdate>,
}

impl Changes {
    /// Adds the updates of one plugin. An update with `ignore_failure` is left out on a conflict, any other one fails.
    pub fn collect(&mut self, updates: Vec<ContainerUpdate>, plugin: &str) -> Result<()> {
        for update in updates {
            let ignorable = update.ignore_failure;
            match self.add(update, plugin) {
                Err(error) if !ignorable => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, update: ContainerUpdate, plugin: &str) -> Result<()> {
        let Some(asked) = super::resources_of(&update) else { return Ok(()) };
        resources::claim(asked, &mut Claims::new(&mut self.owners, &update.container_id, plugin))?;
        match self.updates.get_mut(&update.container_id) {
            Some(before) => {
                before.ignore_failure &= update.ignore_failure;
                let linux = before.linux.mut_or_insert_default();
                resources::overlay(linux.resources.mut_or_insert_default(), asked);
            }
            None => drop(self.updates.insert(update.container_id.clone(), update)),
        }
        Ok(())
    }

    /// Returns one update for each container.
    pub fn updates(&self) -> Vec<ContainerUpdate> {
        self.updates.values().cloned().collect()
    }

    /// Returns which plugin set which field.
    pub fn owners(&self) -> OwningPlugins {
        self.owners.to_message()
    }

    pub(super) fn owners_mut(&mut self) -> &mut Owners {
        &mut self.owners
    }
}
