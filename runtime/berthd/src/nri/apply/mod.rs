//! Applies the adjustments of plugins to a container's OCI spec. What Berth does not support is refused by name, so
//! that nothing requested is silently left out.

mod devices;
mod hooks;
mod limits;
mod linux;
mod mounts;
mod process;
mod seccomp;

use std::collections::HashMap;

use berth_nri::nri::ContainerAdjustment;
use oci_spec::runtime::{Linux, Process, Spec};
use serde::de::DeserializeOwned;

use crate::{
    container::Container,
    error::{Error, Kind, Result},
    spec::Host,
};

/// Adjusts a container that is not created yet. Returns the names of the CDI devices that it gets in addition.
///
/// # Errors
///
/// `InvalidArgument` for an invalid value, `Unimplemented` for what Berth does not support.
pub(super) fn apply(
    wanted: &ContainerAdjustment,
    host: &Host,
    container: &mut Container,
    spec: &mut Spec,
) -> Result<Vec<String>> {
    let annotations = spec.annotations_mut().get_or_insert_default();
    change_map(annotations, &wanted.annotations);
    process::adjust(process_of(spec), wanted)?;
    mounts::adjust(spec, &wanted.mounts);
    hooks::add(spec, &wanted.hooks);
    if let Some(linux) = wanted.linux.as_ref() {
        linux::adjust(linux, host, container, spec)?;
    }
    Ok(wanted.CDI_devices.iter().map(|device| device.name.clone()).collect())
}

fn process_of(spec: &mut Spec) -> &mut Process {
    spec.process_mut().get_or_insert_default()
}

fn linux_of(spec: &mut Spec) -> &mut Linux {
    spec.linux_mut().get_or_insert_default()
}

/// Returns the name of an entry that is to be removed.
fn removed(name: &str) -> Option<&str> {
    name.strip_prefix('-')
}

/// Removes first, then sets: a plugin may do both with one name.
fn change_map(map: &mut HashMap<String, String>, wanted: &HashMap<String, String>) {
    for name in wanted.keys().filter_map(|name| removed(name)) {
        map.remove(name);
    }
    let set = wanted.iter().filter(|(name, _)| removed(name).is_none());
    map.extend(set.map(|(name, value)| (name.clone(), value.clone())));
}

/// Parses an OCI value from its JSON string.
fn parse<T: DeserializeOwned>(field: &str, word: &str) -> Result<T> {
    serde_json::from_value(word.into()).map_err(|error| {
        Error::caused(Kind::InvalidArgument, format!("an NRI plugin sets {field} to {word:?}"), error)
    })
}

fn refuse(what: &str, asked: bool) -> Result<()> {
    match asked {
        false => Ok(()),
        true => {
            Err(Error::new(Kind::Unimplemented, format!("an NRI plugin asks for {what}, which Berth lacks")))
        }
    }
}

#[cfg(test)]
mod tests;
