//! Named pipes created by others. Opening one never waits for the other end.

use super::asynchronous;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

/// Time to wait at the end for a reader that has not come yet.
const READER_ARRIVAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Polling interval: the kernel has no event for a new reader.
const READER_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Opens for writing. The read end is held open too (O_RDWR), so that a reader may come late, leave and come back.
pub(super) fn open_writer(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    asynchronous(open_fifo(path, OFlags::RDWR)?)
}

/// Opens for writing to a reader that is there: ENXIO when there is none, EPIPE when it leaves.
pub(super) fn open_for_reader(path: &Path) -> io::Result<OwnedFd> {
    open_fifo(path, OFlags::WRONLY)
}

/// Closes the write end once there is a reader, or after [`READER_ARRIVAL_TIMEOUT`]. If it were closed before the
/// reader opens the FIFO, its contents would be lost, and the reader would wait for a writer for ever.
pub(super) async fn close_writer(fifo: AsyncFd<OwnedFd>) -> io::Result<()> {
    let itself = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    let writer = open(itself, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    // This descriptor, opened O_RDWR, counts as a reader, too.
    drop(fifo);
    let deadline = Instant::now() + READER_ARRIVAL_TIMEOUT;
    while !has_reader(&writer)? && Instant::now() < deadline {
        sleep(READER_POLL_INTERVAL).await;
    }
    Ok(())
}

fn has_reader(writer: &OwnedFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(writer, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec::default()))?;
    Ok(!asked[0].revents().contains(PollFlags::ERR))
}

/// Opens for reading: end-of-file whenever the last writer leaves.
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
