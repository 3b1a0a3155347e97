//! Which plugin has set what.

use std::collections::HashMap;

use berth_nri::nri::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins};
use protobuf::Enum;

use crate::error::{Error, Kind, Result};

/// A thing that can be set: of a container, a field, and an entry of it where it has several.
type Thing = (String, Field, String);

/// Who set what, over all containers that one request changes.
#[derive(Default)]
pub(in crate::nri) struct Owners(HashMap<Thing, Owner>);

enum Owner {
    /// Set by this plugin.
    Set(String),
    /// Taken away by this plugin, which may set it anew.
    Cleared(String),
}

/// What one plugin claims of one container.
pub(super) struct Claims<'a> {
    owners: &'a mut Owners,
    container: &'a str,
    plugin: &'a str,
}

impl<'a> Claims<'a> {
    pub fn new(owners: &'a mut Owners, container: &'a str, plugin: &'a str) -> Self {
        Self { owners, container, plugin }
    }

    /// Takes a field for the plugin; `entry` is empty where the field has none.
    ///
    /// # Errors
    ///
    /// When another plugin has it.
    pub fn claim(&mut self, field: Field, entry: &str) -> Result<()> {
        let thing = (self.container.to_owned(), field, entry.to_owned());
        match self.owners.0.get(&thing) {
            None => {}
            Some(Owner::Cleared(own)) if own == self.plugin => {}
            Some(Owner::Set(other) | Owner::Cleared(other)) => {
                return Err(conflict(self.plugin, other, field, entry));
            }
        }
        self.owners.0.insert(thing, Owner::Set(self.plugin.to_owned()));
        Ok(())
    }

    /// Takes it away from whoever has it.
    pub fn clear(&mut self, field: Field, entry: &str) {
        let thing = (self.container.to_owned(), field, entry.to_owned());
        self.owners.0.insert(thing, Owner::Cleared(self.plugin.to_owned()));
    }

    /// Shares a field that several plugins may add to.
    pub fn share(&mut self, field: Field) {
        let thing = (self.container.to_owned(), field, String::new());
        let others = match self.owners.0.get(&thing) {
            Some(Owner::Set(others)) => format!("{others},"),
            _ => String::new(),
        };
        self.owners.0.insert(thing, Owner::Set(others + self.plugin));
    }
}

fn conflict(plugin: &str, other: &str, field: Field, entry: &str) -> Error {
    let text = format!("NRI plugins {plugin} and {other} both tried to set {field:?} {entry}");
    Error::new(Kind::FailedPrecondition, text.trim_end())
}

impl Owners {
    /// As validators are told.
    pub fn told(&self) -> OwningPlugins {
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
