//! The working directory: looked up below the container's root, never through magic links (CVE-2024-21626).

use super::error::At;
use super::inroot::{Create, InRoot};
use super::{Error, Step};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{fchdir, getcwd};
use std::path::Path;

/// Creates a missing working directory of a new container. An existing file of any type is left.
pub(super) fn create(root: InRoot<'_>, path: &str) -> Result<(), Error> {
    check_absolute(path)?;
    match root.reach(Path::new(path), Create::Directory) {
        // On a network file system the user may be permitted what root is not.
        Ok(_) | Err(Errno::ACCESS) => Ok(()),
        Err(cause) => Err(refused(format!("create {path:?}"), cause)),
    }
}

/// Enters it. False on EACCES: it must be tried again as the user.
pub(super) fn enter(root: InRoot<'_>, path: &str) -> Result<bool, Error> {
    check_absolute(path)?;
    let found = root.find(Path::new(path), OFlags::PATH | OFlags::DIRECTORY);
    match found.and_then(fchdir) {
        Err(Errno::ACCESS) => return Ok(false),
        other => other.map_err(|cause| refused(changing_to(path), cause))?,
    }
    verify(path)?;
    Ok(true)
}

/// Enters it as the user; now EACCES is an error.
pub(super) fn enter_as_user(root: InRoot<'_>, path: &str) -> Result<(), Error> {
    if enter(root, path)? {
        return Ok(());
    }
    Err(refused(changing_to(path), Errno::ACCESS))
}

fn changing_to(path: &str) -> String {
    format!("chdir to cwd ({path:?}) set in config.json failed")
}

/// A missing directory, or one not open to this user, is the caller's fault; anything else is the host's.
fn refused(what: String, cause: Errno) -> Error {
    match cause {
        Errno::NOTDIR | Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG => {
            Error::invalid(Step::Cwd, format!("{what}: {cause}"))
        }
        _ => Error::Os { step: Step::Cwd, what, cause: cause.into() },
    }
}

/// getcwd(2) marks a directory outside the root as "(unreachable)". This detects a lookup that was led astray.
fn verify(path: &str) -> Result<(), Error> {
    let reached = getcwd(Vec::new()).at(Step::Cwd, || format!("{path:?}"))?;
    if reached.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Error::invalid(Step::Cwd, format!("{path:?} is outside of the container's root")))
}

fn check_absolute(path: &str) -> Result<(), Error> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(Error::invalid(Step::Cwd, format!("cwd {path:?} is not an absolute path")))
}
