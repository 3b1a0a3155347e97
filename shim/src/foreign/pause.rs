//! The first process of a sandbox: it only has to be there, and to let orphans vanish.

use crate::sys;

/// Never returns; ended by a signal that nothing keeps out.
pub fn pause() -> ! {
    sys::exit_quietly_on_children();
    sys::sleep_without_heap()
}
