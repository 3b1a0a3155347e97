//! The working directory.

use super::error::At;
use super::{Error, Step};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::process::{chdir, getcwd};
use std::path::Path;

/// Makes a missing working directory of a new container; what is there already, whatever it is, is left.
pub(super) fn create(path: &str) -> Result<(), Error> {
    check_absolute(path)?;
    let mut directories: Vec<_> = Path::new(path).ancestors().collect();
    directories.pop();
    let start = directories.iter().position(|directory| directory.exists()).unwrap_or(directories.len());
    for directory in directories[..start].iter().rev() {
        match mkdirat(CWD, *directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(cause) => return Err(refused(format!("create {path:?}"), cause)),
        }
    }
    Ok(())
}

/// Enters it; false when only the user himself might be allowed to, who has yet to try.
pub(super) fn enter(path: &str) -> Result<bool, Error> {
    check_absolute(path)?;
    match chdir(path) {
        Err(Errno::ACCESS) => return Ok(false),
        other => other.map_err(|cause| refused(changing_to(path), cause))?,
    }
    verify(path)?;
    Ok(true)
}

/// Enters it as the user, the last chance.
pub(super) fn enter_as_user(path: &str) -> Result<(), Error> {
    if enter(path)? {
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

/// A descriptor of the host that leaked would let `/proc/self/fd/7` lead out of the container: the kernel then calls the
/// place unreachable (CVE-2024-21626).
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
