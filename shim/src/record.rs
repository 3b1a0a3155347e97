//! What outlives a shim: small JSON files in bundles, each of them whole or not there.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::Path;

/// Puts a record at `path`, in the place of one that is there. Whoever is killed on the way leaves what was there before.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let mut staging = path.to_owned();
    staging.as_mut_os_string().push(".new");
    fs::write(&staging, serde_json::to_vec(record)?)?;
    fs::rename(&staging, path)
}

/// The record at `path`; nothing when there is none. One that is damaged is an error.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
