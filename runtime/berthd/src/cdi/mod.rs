//! Devices that their vendors describe in files: the Container Device Interface, version 1.1.
//!
//! A file says which devices there are, and for each how a container's OCI specification changes when it is given the
//! device. Files are read anew with each container that asks for one, so that nothing has to be told of a change.

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

/// Gives the container of `spec` the devices, looked for where a file system that hangs holds up no other call.
///
/// # Errors
///
/// `NotFound` when there is no such device, `FailedPrecondition` when it is described in a way that cannot be followed
/// here. The specification is untouched then.
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
