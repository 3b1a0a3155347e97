//! Leaving the starter behind.

use std::io;

/// Runs `child` in a copy of the calling process, which ends with the code it gives.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> io::Result<u32> {
    // SAFETY: the starter has one thread, so no lock is held by someone who is missing in the copy, which never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => std::process::exit(child().into()),
        pid => Ok(pid as u32),
    }
}
