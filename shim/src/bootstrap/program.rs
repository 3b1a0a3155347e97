//! The program's file: a shim only runs from a copy that no container can change.

use super::{Error, failed};
use berth_sealed::{Sealed, is_sealed};
use std::env::{args_os, current_exe};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const RUNNING_PROGRAM: &str = "/proc/self/exe";

/// Returns if this process runs from a sealed copy. Otherwise executes the program again from a copy of its own.
pub(super) fn ensure_sealed() -> Result<(), Error> {
    let sealed = File::open(RUNNING_PROGRAM).and_then(is_sealed);
    if sealed.map_err(failed("look at", Path::new(RUNNING_PROGRAM)))? {
        return Ok(());
    }
    let original = current_exe().map_err(failed("find", Path::new(RUNNING_PROGRAM)))?;
    let copy =
        Sealed::copy_of(&original).map_err(|error| failed("seal", &original)(io::Error::other(error)))?;
    let refused = Command::new(copy.path()).arg0(&original).args(args_os().skip(1)).exec();
    Err(failed("execute the copy of", &original)(refused))
}

/// Path of the program on disk: the starter of a sealed copy passes it as the program's name.
pub(crate) fn on_disk() -> io::Result<PathBuf> {
    let named = args_os().next().map(PathBuf::from).filter(|name| name.is_absolute());
    named.map_or_else(current_exe, Ok)
}
