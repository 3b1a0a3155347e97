//! Reads a container's seccomp profile from its file.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{Error, Profile};
use crate::container::config::{ContainerConfig, Seccomp};

/// Largest profile in bytes: many times the size of the usual one.
const MAX_PROFILE_BYTES: u64 = 1 << 20;

/// Returns the profile if the container names one in a file; `None` for a privileged container.
///
/// May block on a path that the caller chose, so it must not run on an async thread.
pub fn read(container: &ContainerConfig) -> Result<Option<Profile>, Error> {
    let Seccomp::Localhost(path) = &container.security.seccomp else { return Ok(None) };
    if container.security.privileged {
        return Ok(None);
    }
    let invalid = |reason: String| Error::invalid("seccomp profile", path.to_string_lossy(), reason);
    let text = text_of(path).map_err(|error| invalid(error.to_string()))?;
    Profile::parse(&text).map_err(invalid).map(Some)
}

fn text_of(path: &Path) -> io::Result<String> {
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(without_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let mut text = String::new();
    match file.take(MAX_PROFILE_BYTES + 1).read_to_string(&mut text)? as u64 {
        fits if fits <= MAX_PROFILE_BYTES => Ok(text),
        _ => Err(io::Error::other("is larger than 1 MiB")),
    }
}
