//! The shim's limit of open descriptors (RLIMIT_NOFILE): raised to the host's hard limit, since the containers' streams
//! need them. Programs it executes get the original limit back, because some size tables, or loop, by it.

use crate::shim_log::note;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

static ORIGINAL_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Raises the shim's soft limit to its hard limit.
pub fn raise() {
    let original = *ORIGINAL_LIMIT.get_or_init(|| getrlimit(Resource::Nofile));
    let most = Rlimit { current: original.maximum, ..original };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        note(format_args!("raise the limit of descriptors: {error}"));
    }
}

/// Restores the original limit in a process that is about to execute a program.
pub(crate) fn restore() {
    if let Some(original) = ORIGINAL_LIMIT.get() {
        // Lowering it is always allowed.
        let _ = setrlimit(Resource::Nofile, *original);
    }
}
