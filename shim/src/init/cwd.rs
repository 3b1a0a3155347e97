//! The working directory: looked up below the container's root, by no link that leads out of a path (CVE-2024-21626).

use super::error::At;
use super::inroot::{Create, InRoot};
use super::{Error, Step};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{fchdir, getcwd};
use std::path::Path;

/// Makes a missing working directory of a new container; what is there already, whatever it is, is left.
pub(super) fn create(root: InRoot<'_>, path: &str) -> Result<(), Error> {
    check_absolute(path)?;
    match root.reach(Path::new(path), Create::Directory) {
        // The user himself may be allowed what root on another machine's file system is not.
        Ok(_) | Err(Errno::ACCESS) => Ok(()),
        Err(cause) => Err(refused(format!("create {path:?}"), cause)),
    }
}

/// Enters it; false when only the user himself might be allowed to, who has yet to try.
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

/// Enters it as the user, the last chance.
pub(super) fn enter_as_user(root: InRoot<'_>, path: &str) -> Result<(), Error> {
    if enter(root, path)? {
        return Ok(());
    }
    Err(refused(changing_to(path), Errno::ACCESS))
}

fn changing_to(path: &str) -> String {
    format!("chdir to cwd ({path:?}) set in config.json failed")
}

/// A directory that is none, or not for this user, is the caller's fault; anything else is the host's.
fn refused(what: String, cause: Errno) -> Error {
    match cause {
        Errno::NOTDIR | Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG => {
            Error::invalid(Step::Cwd, format!("{what}: {cause}"))
        }
        _ => Error::Os { step: Step::Cwd, what, cause: cause.into() },
    }
}

/// The kernel calls a place unreachable that is not below the root: seen here should the lookup ever be led astray.
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
