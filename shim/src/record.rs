//! What outlives a shim: small JSON files in bundles, each of them whole or not there.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Puts a record at `path`, in the place of one that is there. Whoever is killed on the way leaves what was there before.
/// Where room was [`reserve`]d none is needed, on however full a disk.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let staging = staging(path);
    let json = serde_json::to_vec(record)?;
    // What is reserved must not be given back before it is used: the rest is cut off at the end.
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&staging)?;
    file.write_all(&json)?;
    file.set_len(json.len() as u64)?;
    fs::rename(&staging, path)
}

/// Sets aside room for a record of at most `size` bytes that is to be at `path`, for [`write()`] or [`give_back`].
pub(crate) fn reserve(path: &Path, size: u64) -> io::Result<()> {
    let staging = staging(path);
    let reserved = File::create(&staging).and_then(|file| {
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // A file system that promises nothing.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    });
    reserved.inspect_err(|_| give_back(path))
}

/// Frees what was reserved, if it was.
pub(crate) fn give_back(path: &Path) {
    // Nothing there, or a file system that lets nothing be changed.
    let _ = fs::remove_file(staging(path));
}

fn staging(path: &Path) -> PathBuf {
    let mut staging = path.to_owned();
    staging.as_mut_os_string().push(".new");
    staging
}

/// The record at `path`; nothing when there is none. One that is damaged is an error.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
