//! Named pipes that someone else made. Nothing here ever waits for the other side to come.

use super::asynchronous;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// For writing. The reading side is held open too, so a reader may come late, leave and come back.
pub(super) fn open_writer(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    open_fifo(path, OFlags::RDWR)
}

/// For reading: ends whenever the last writer leaves.
pub(super) fn open_reader(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    open_fifo(path, OFlags::RDONLY)
}

fn open_fifo(path: &Path, access: OFlags) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = open(path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    asynchronous(fd)
}
