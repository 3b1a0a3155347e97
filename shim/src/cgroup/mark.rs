//! The mark on each group that Berth made: an extended attribute, in every hierarchy for itself. The kernel keeps it as long as
//! the group exists, so that it outlives shim and daemon.

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

/// Whether an id is random, as berthd's are, so that only its own container or pod has a group of that name. Foreign shims make
/// groups without a mark: with such an id the name counts in its place.
pub(super) fn is_random(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
