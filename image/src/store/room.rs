//! Room on the disk for SQLite's log, so that what frees the disk can still be recorded when it is full.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// What the log takes until SQLite brings it into the database, after a thousand pages, and begins it anew; in bytes.
const ROOM: u64 = 5 << 20;

/// Gives the write-ahead log of the database at `database`, which is open, its blocks in advance. Removing an image, a container or
/// a pod is a change as any other: on a full disk it would fail, and with it all that makes room.
///
/// # Errors
///
/// When the disk is full already. A file system that gives no blocks in advance is no error.
pub fn reserve_log(database: &Path) -> io::Result<()> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log = File::options().write(true).open(log)?;
    match fallocate(log, FallocateFlags::KEEP_SIZE, 0, ROOM) {
        Err(error) if error != rustix::io::Errno::OPNOTSUPP => Err(error.into()),
        _ => Ok(()),
    }
}
