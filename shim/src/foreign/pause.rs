//! The first process of a sandbox: it only has to exist, and to ignore SIGCHLD so that orphans are reaped.

use crate::sys;

/// Sleeps until a signal ends the process.
pub fn pause() -> ! {
    sys::exit_quietly_on_children();
    sys::sleep_without_heap()
}
