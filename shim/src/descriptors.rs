//! How many descriptors the shim may have open: as many as the host allows, since its containers' streams need them. What it
//! executes gets the limit back that the shim was started with, because programs size tables, and loops, by it.

use crate::shim_log::note;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the shim's own limit, once.
pub fn raise() {
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    let most = Rlimit { current: given.maximum, ..given };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        note(format_args!("raise the limit of descriptors: {error}"));
    }
}

/// Puts the limit back in a process that is about to execute something.
pub(crate) fn put_back() {
    if let Some(given) = GIVEN.get() {
        // Lowering it is always allowed.
        let _ = setrlimit(Resource::Nofile, *given);
    }
}
