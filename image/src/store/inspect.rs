//! Checks from outside whether index and directories of a store agree, with or without a running daemon.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::entries;
use crate::error::Error;

/// Result of [`inspect`].
#[derive(Debug, Default)]
pub struct Inspection {
    /// Faults that removing something cannot repair, one sentence each.
    pub broken: Vec<String>,
    /// Directories that the index does not know: staged, in the trash, or left by an interrupted commit.
    pub unknown: Vec<PathBuf>,
    /// All holders of leases.
    pub holders: BTreeSet<String>,
    /// Ids of images that have at least one layer, so that a container of them must hold a lease.
    pub layered: BTreeSet<String>,
}

/// Compares index and directories of the store at `root`, changing neither. A store that does not exist is in order.
///
/// # Errors
///
/// When the index or a directory cannot be read.
pub fn inspect(root: &Path) -> Result<Inspection, Error> {
    let index = root.join("index.db");
    if !index.exists() {
        return Ok(Inspection::default());
    }
    let read = |source| Error::Index { step: "read", source };
    let index = Connection::open_with_flags(index, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(read)?;
    let sound = texts(&index, "PRAGMA quick_check").map_err(read)?;
    let layers = texts(&index, "SELECT key FROM layers").map_err(read)?;
    let needed =
        texts(&index, "SELECT layer FROM image_layers UNION SELECT layer FROM leases").map_err(read)?;
    let holders = texts(&index, "SELECT DISTINCT holder FROM leases").map_err(read)?;
    let layered = texts(&index, "SELECT DISTINCT image FROM image_layers").map_err(read)?;

    let mut found = Inspection { holders, layered, ..Inspection::default() };
    found
        .broken
        .extend(sound.into_iter().filter(|line| line != "ok").map(|line| format!("the image index: {line}")));
    let lacking = needed.difference(&layers);
    found.broken.extend(lacking.map(|layer| format!("layer {layer} is needed and not in the index")));
    let hex = |key: &String| key.rsplit(':').next().unwrap_or_default().to_owned();
    let directory = root.join("layers");
    let missing = layers.iter().filter(|key| !directory.join(hex(key)).is_dir());
    found.broken.extend(missing.map(|key| format!("layer {key} is in the index and has no directory")));
    let known: BTreeSet<PathBuf> = layers.iter().map(|key| directory.join(hex(key))).collect();
    for name in ["layers", "staging", "trash"] {
        found.unknown.extend(entries(&root.join(name))?.into_iter().filter(|path| !known.contains(path)));
    }
    Ok(found)
}

fn texts(index: &Connection, query: &str) -> rusqlite::Result<BTreeSet<String>> {
    index.prepare(query)?.query_map([], |row| row.get(0))?.collect()
}
