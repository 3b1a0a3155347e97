//! What tells Berth's groups from everybody else's: an extended attribute that the kernel keeps with the group. It is there
//! whoever died since, in every hierarchy for itself, and goes with the group.

use super::Error;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::path::Path;

/// Only the host's root can set it.
const NAME: &str = "trusted.berth";
/// More than any id.
const LENGTH: usize = 256;

/// Marks a group that was just made.
pub(super) fn write(directory: &Path, owner: &[u8]) -> Result<(), Error> {
    setxattr(directory, NAME, owner, XattrFlags::empty()).map_err(|error| Error {
        action: "mark as Berth's".into(),
        path: directory.into(),
        source: error.into(),
    })
}

/// The mark of a group; `None` when somebody else made it, or it is gone.
pub(super) fn read(directory: &Path) -> Option<Vec<u8>> {
    let mut owner = [0; LENGTH];
    let length = getxattr(directory, NAME, &mut owner[..]).ok()?;
    Some(owner[..length].to_vec())
}

/// Whether an id is one that nobody makes a second time, as berthd's are: a group of that name is its even without a mark. A
/// foreign shim leaves none.
pub(super) fn is_random(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
