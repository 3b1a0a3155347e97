//! Why a container cannot be given a device.

use std::path::PathBuf;

use super::DeviceName;

/// Every variant names the device and the file that it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file describes it.
    #[error("CDI device {name} is not described by any file in {directories:?}{}", also(broken))]
    Unknown {
        /// The device.
        name: DeviceName,
        /// Where it was looked for.
        directories: Vec<PathBuf>,
        /// Files that may describe it and cannot be used, and why.
        broken: Vec<String>,
    },
    /// Two files of one directory describe it.
    #[error("CDI device {name} is described by both {} and {}", one.display(), other.display())]
    Conflict {
        /// The device.
        name: DeviceName,
        /// One of the files.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// It needs something that containers cannot be given.
    #[error("CDI device {name} of {} needs {what}, which is not supported", path.display())]
    Unsupported {
        /// The device.
        name: DeviceName,
        /// The file.
        path: PathBuf,
        /// The field of the file.
        what: &'static str,
    },
    /// What it refers to is not on this host as described.
    #[error("CDI device {name} of {}: {what}: {why}", path.display())]
    Host {
        /// The device.
        name: DeviceName,
        /// The file.
        path: PathBuf,
        /// What it refers to.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

fn also(broken: &[String]) -> String {
    match broken {
        [] => String::new(),
        _ => format!("; files that cannot be used: {}", broken.join("; ")),
    }
}
