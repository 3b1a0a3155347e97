//! Records that outlive a shim: small JSON files in bundles, replaced atomically by rename. Nothing is synced here.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a record to `path`, replacing any. A writer that is killed leaves the old record. Needs no disk space where
/// it was [`reserve`]d.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let staging = staging(path);
    let json = serde_json::to_vec(record)?;
    // Not truncated at open: that would free the reserved space. The rest is cut off after the write.
    // 0600: a config.json holds secrets.
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&staging)?;
    file.write_all(&json)?;
    file.set_len(json.len() as u64)?;
    fs::rename(&staging, path)
}

/// Reserves disk space for a record of at most `size` bytes at `path`, for [`write()`] or [`release_space`].
pub(crate) fn reserve(path: &Path, size: u64) -> io::Result<()> {
    let staging = staging(path);
    let reserved = File::create(&staging).and_then(|file| {
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // The file system cannot reserve.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    });
    reserved.inspect_err(|_| release_space(path))
}

/// Frees reserved space, if any.
pub(crate) fn release_space(path: &Path) {
    // Fails if there is none, or on a read-only file system.
    let _ = fs::remove_file(staging(path));
}

fn staging(path: &Path) -> PathBuf {
    let mut staging = path.to_owned();
    staging.as_mut_os_string().push(".new");
    staging
}

/// Reads the record at `path`; `None` when there is none, an error when it is damaged.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
