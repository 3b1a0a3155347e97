//! Network namespaces pinned in the file system, and threads that enter them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use rustix::fs::statfs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Magic number of nsfs, the file system of namespace files.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Whether a namespace is pinned at `path`, rather than a plain file left over from a pin.
pub(super) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.f_type as u64 == NSFS_MAGIC)
}

/// Runs `work` inside `netns`, on a thread of its own, so that no other work ever runs in the namespace.
pub(super) fn inside<T: Send>(netns: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let entered = || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, entered)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}
