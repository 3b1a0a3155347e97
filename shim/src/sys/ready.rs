//! Descriptors registered with the tokio runtime.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current runtime until it is dropped.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stands for the same open descriptor as long as it lives, and AsyncFd deregisters it first.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// The same for error events only: no others wake the task.
pub(crate) fn watched_for_errors(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::ERROR) }?)
}

/// The same for priority events (EPOLLPRI), by which the kernel announces changes of its own files.
pub(crate) fn watched_for_priority(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::PRIORITY) }?)
}
