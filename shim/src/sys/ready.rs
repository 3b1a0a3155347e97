//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current runtime until it is dropped.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stands for the same open descriptor as long as it lives, and AsyncFd deregisters it first.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// The same for what is only ever told of errors, so that nothing else wakes anyone up.
pub(crate) fn watched_for_errors(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::ERROR) }?)
}

/// The same for a file of the kernel's that tells its readers of changes.
pub(crate) fn watched_for_priority(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::PRIORITY) }?)
}
