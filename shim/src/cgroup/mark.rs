//! The owner's mark on each cgroup that Berth creates: an extended attribute, set in every hierarchy. The kernel keeps
//! it as long as the cgroup exists, so it outlives shim and daemon.

use super::Error;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::path::Path;

/// `trusted.*` needs CAP_SYS_ADMIN on the host, xattr(7).
const XATTR_NAME: &str = "trusted.berth";
/// Longer than any id.
const MAX_OWNER_BYTES: usize = 256;

/// Marks a new cgroup with its owner's id, or as a shared parent (empty).
pub(super) fn write(directory: &Path, owner: &[u8]) -> Result<(), Error> {
    setxattr(directory, XATTR_NAME, owner, XattrFlags::empty()).map_err(|error| Error {
        action: "mark as Berth's".into(),
        path: directory.into(),
        source: error.into(),
    })
}

/// The mark of a cgroup; `None` when Berth did not create it, or it is gone.
pub(super) fn read(directory: &Path) -> Option<Vec<u8>> {
    let mut owner = [0; MAX_OWNER_BYTES];
    let length = getxattr(directory, XATTR_NAME, &mut owner[..]).ok()?;
    Some(owner[..length].to_vec())
}

/// Whether an id is random, like berthd's, so that only its own container or pod can have a cgroup of that name.
/// Foreign runtimes set no mark: for such an id the name serves in its place.
pub(super) fn is_random(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
