//! Records which plugin set which field.

use std::collections::HashMap;

use berth_nri::nri::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins};
use protobuf::Enum;

use crate::error::{Error, Kind, Result};

/// Key of a value: container id, field, and entry, which is empty for a field that has no entries.
type ValueKey = (String, Field, String);

/// Owners of values, over all containers that one request changes.
#[derive(Default)]
pub(in crate::nri) struct Owners(HashMap<ValueKey, Owner>);

enum Owner {
    /// Set by this plugin, or by several plugins, separated by commas.
    Set(String),
    /// Removed by this plugin, which may set it anew.
    Cleared(String),
}

/// The claims of one plugin on one container.
pub(super) struct Claims<'a> {
    owners: &'a mut Owners,
    container: &'a str,
    plugin: &'a str,
}

impl<'a> Claims<'a> {
    pub fn new(owners: &'a mut Owners, container: &'a str, plugin: &'a str) -> Self {
        Self { owners, container, plugin }
    }

    /// Claims a field for the plugin; `entry` is empty for a field that has no entries.
    ///
    /// # Errors
    ///
    /// When the field was set before, even by the same plugin, or was removed by another one.
    pub fn claim(&mut self, field: Field, entry: &str) -> Result<()> {
        let key = (self.container.to_owned(), field, entry.to_owned());
        match self.owners.0.get(&key) {
            None => {}
            Some(Owner::Cleared(own)) if own == self.plugin => {}
            Some(Owner::Set(other) | Owner::Cleared(other)) => {
                return Err(conflict(self.plugin, other, field, entry));
            }
        }
        self.owners.0.insert(key, Owner::Set(self.plugin.to_owned()));
        Ok(())
    }

    /// Removes a field, whoever has set it; only this plugin may then set it.
    pub fn clear(&mut self, field: Field, entry: &str) {
        let key = (self.container.to_owned(), field, entry.to_owned());
        self.owners.0.insert(key, Owner::Cleared(self.plugin.to_owned()));
    }

    /// Adds the plugin to the owners of a field that several plugins may add to.
    pub fn share(&mut self, field: Field) {
        let key = (self.container.to_owned(), field, String::new());
        let others = match self.owners.0.get(&key) {
            Some(Owner::Set(others)) => format!("{others},"),
            _ => String::new(),
        };
        self.owners.0.insert(key, Owner::Set(others + self.plugin));
    }
}

fn conflict(plugin: &str, other: &str, field: Field, entry: &str) -> Error {
    let text = format!("NRI plugins {plugin} and {other} both tried to set {field:?} {entry}");
    Error::new(Kind::FailedPrecondition, text.trim_end())
}

impl Owners {
    /// Returns the owners in the form that validators get.
    pub fn to_message(&self) -> OwningPlugins {
        let mut all: HashMap<String, FieldOwners> = HashMap::new();
        for ((container, field, entry), owner) in &self.0 {
            let of_container = all.entry(container.clone()).or_default();
            let owner = match owner {
                Owner::Set(plugin) => plugin.clone(),
                Owner::Cleared(plugin) => format!("-{plugin}"),
            };
            if entry.is_empty() {
                of_container.simple.insert(field.value(), owner);
            } else {
                let entries: &mut CompoundFieldOwners =
                    of_container.compound.entry(field.value()).or_default();
                entries.owners.insert(entry.clone(), owner);
            }
        }
        OwningPlugins { owners: all, ..Default::default() }
    }
}
