//! The first process of a sandbox: it only has to exist, and to ignore SIGCHLD so that orphans are reaped.

use crate::sys;

/// Sleeps until a signal ends the process.
pub fn pause() -> ! {
    // The handlers that Rust's runtime installs use the heap.
    sys::reset_signals();
    sys::exit_quietly_on_children();
    sys::sleep_without_heap()
}
