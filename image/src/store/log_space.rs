//! Reserves disk space for SQLite's write-ahead log, so that on a full disk removals can still be recorded.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// Reserved bytes: somewhat more than the 1000 pages after which SQLite by default checkpoints the log and restarts it.
const LOG_SPACE_BYTES: u64 = 5 << 20;

/// Allocates the blocks of the write-ahead log of the open database at `database` in advance. Removing an image, a
/// container or a pod changes a database too: without these blocks it fails on a full disk, which then stays full.
///
/// # Errors
///
/// When the disk is full already, or the log does not exist. A file system without fallocate(2) is no error.
pub fn reserve_log(database: &Path) -> io::Result<()> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log = File::options().write(true).open(log)?;
    match fallocate(log, FallocateFlags::KEEP_SIZE, 0, LOG_SPACE_BYTES) {
        Err(error) if error != rustix::io::Errno::OPNOTSUPP => Err(error.into()),
        _ => Ok(()),
    }
}
