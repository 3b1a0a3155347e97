//! Lists and maps of named entries: mounts, devices, variables and so on.

use std::collections::{BTreeSet, HashMap};

use berth_nri::nri::{Field, KeyValue, LinuxDevice, LinuxNamespace, Mount};

use super::owners::Claims;
use crate::error::Result;

/// An entry with a name, which begins with `-` when the entry is to be removed.
pub(super) trait Entry {
    fn name(&self) -> &str;
}

impl Entry for Mount {
    fn name(&self) -> &str {
        &self.destination
    }
}

impl Entry for LinuxDevice {
    fn name(&self) -> &str {
        &self.path
    }
}

impl Entry for KeyValue {
    fn name(&self) -> &str {
        &self.key
    }
}

impl Entry for LinuxNamespace {
    fn name(&self) -> &str {
        &self.type_
    }
}

/// An entry of a map.
impl<V> Entry for (String, V) {
    fn name(&self) -> &str {
        &self.0
    }
}

/// Changes that one plugin requests for a list: names that are removed or replaced, and the new entries.
pub(super) struct ListChanges<T> {
    replaced: BTreeSet<String>,
    added: Vec<T>,
}

impl<T: Entry + Clone> ListChanges<T> {
    /// Claims each entry of `asked` and merges it into `collected`, which holds the changes of all plugins so far.
    pub fn collect(
        field: Field,
        asked: impl IntoIterator<Item = T>,
        claims: &mut Claims<'_>,
        collected: &mut Vec<T>,
    ) -> Result<Self> {
        let (removed, added): (Vec<T>, Vec<T>) =
            asked.into_iter().partition(|entry| entry.name().starts_with('-'));
        for entry in &removed {
            claims.clear(field, bare(entry));
            collected.retain(|one| bare(one) != bare(entry));
        }
        collected.extend(removed.iter().cloned());
        for entry in &added {
            claims.claim(field, entry.name())?;
            collected.push(entry.clone());
        }
        let replaced = removed.iter().chain(&added).map(|entry| bare(entry).to_owned()).collect();
        Ok(Self { replaced, added })
    }

    /// Applies the changes to `seen`, the list that the next plugin sees.
    pub fn show(self, seen: &mut Vec<T>) {
        seen.retain(|entry| !self.replaced.contains(entry.name()));
        seen.extend(self.added);
    }
}

fn bare(entry: &impl Entry) -> &str {
    entry.name().strip_prefix('-').unwrap_or(entry.name())
}

/// Claims and merges the entries of a map, as [`ListChanges::collect`] and [`ListChanges::show`] do for a list.
pub(super) fn collect_map<V: Clone>(
    field: Field,
    asked: HashMap<String, V>,
    claims: &mut Claims<'_>,
    collected: &mut HashMap<String, V>,
    seen: &mut HashMap<String, V>,
) -> Result<()> {
    let mut so_far = collected.drain().collect();
    let wanted = ListChanges::collect(field, asked, claims, &mut so_far);
    collected.extend(so_far);
    let mut shown = seen.drain().collect();
    wanted?.show(&mut shown);
    seen.extend(shown);
    Ok(())
}

/// Applies the changes to the environment that the next plugin sees, in the form `NAME=value`.
pub(super) fn show_environment(wanted: ListChanges<KeyValue>, seen: &mut Vec<String>) {
    seen.retain(|one| !wanted.replaced.contains(one.split('=').next().unwrap_or_default()));
    seen.extend(wanted.added.iter().map(|one| format!("{}={}", one.key, one.value)));
}
