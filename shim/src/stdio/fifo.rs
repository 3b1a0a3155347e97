//! Named pipes that someone else made. Nothing here ever waits for the other side to come.

use super::asynchronous;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

/// How long a reader that has not come yet is waited for at the end.
const ARRIVAL: Duration = Duration::from_secs(1);
/// The kernel tells nobody that a reader has come.
const LOOK: Duration = Duration::from_millis(5);

/// For writing. The reading side is held open too, so a reader may come late, leave and come back.
pub(super) fn open_writer(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    asynchronous(open_fifo(path, OFlags::RDWR)?)
}

/// For writing to a reader that is there, and only as long as it is: ENXIO when there is none.
pub(super) fn open_for_reader(path: &Path) -> io::Result<OwnedFd> {
    open_fifo(path, OFlags::WRONLY)
}

/// Closes the writing side, once somebody reads: a pipe that is closed before its reader has opened it takes what it holds
/// with it, and leaves the reader waiting for a writer for ever.
pub(super) async fn close_writer(fifo: AsyncFd<OwnedFd>) -> io::Result<()> {
    let itself = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    let writer = open(itself, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    // What counts as a reader too.
    drop(fifo);
    let deadline = Instant::now() + ARRIVAL;
    while !has_reader(&writer)? && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    Ok(())
}

fn has_reader(writer: &OwnedFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(writer, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec::default()))?;
    Ok(!asked[0].revents().contains(PollFlags::ERR))
}

/// For reading: ends whenever the last writer leaves.
pub(super) fn open_reader(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    asynchronous(open_fifo(path, OFlags::RDONLY)?)
}

fn open_fifo(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let fd = open(path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    Ok(fd)
}
