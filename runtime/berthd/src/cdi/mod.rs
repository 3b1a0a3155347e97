//! Devices that their vendors describe in files: the Container Device Interface, version 1.1.
//!
//! A file names devices, and for each the changes to the OCI specification of a container that is given it. Files are
//! read for each container that asks for a device, so that changes take effect without notification.

mod edits;
mod error;
mod file;
mod find;
mod name;

use std::path::PathBuf;

use oci_spec::runtime::Spec;

pub use self::{
    edits::Edits,
    error::Error,
    file::{Format, SpecFile},
    find::find,
    name::DeviceName,
};
use crate::{
    blocking,
    error::{Error as CallError, Kind, Result},
};

/// Gives the container of `spec` the devices. Where a file system hangs, the lookup holds up no other call.
///
/// # Errors
///
/// `NotFound` for an unknown device, `FailedPrecondition` for one whose description conflicts, is unsupported or does
/// not fit this host, `DeadlineExceeded` when a file system hangs. The specification is unchanged then.
pub(crate) async fn inject(directories: &[PathBuf], names: &[DeviceName], spec: &mut Spec) -> Result<()> {
    const STEP: &str = "look CDI devices up";
    if names.is_empty() {
        return Ok(());
    }
    let (directories, names) = (directories.to_vec(), names.to_vec());
    let found = blocking::look_up(STEP, &format!("{names:?}"), move || find(&directories, &names)).await?;
    found.map_err(|error| CallError::caused(kind(&error), STEP, error))?.apply(spec);
    Ok(())
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Unknown { .. } => Kind::NotFound,
        Error::Conflict { .. } | Error::Unsupported { .. } | Error::Host { .. } => Kind::FailedPrecondition,
    }
}
