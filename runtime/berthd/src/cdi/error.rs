//! Why a container cannot be given a device.

use std::path::PathBuf;

use super::DeviceName;

/// Every variant names the device, and the files if there are any that describe it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file describes the device.
    #[error("CDI device {name} is not described by any file in {directories:?}{}", also(broken))]
    Unknown {
        /// The device.
        name: DeviceName,
        /// The directories searched.
        directories: Vec<PathBuf>,
        /// Files that cannot be used and may describe the device, and why.
        broken: Vec<String>,
    },
    /// Two files of one directory describe the device.
    #[error("CDI device {name} is described by both {} and {}", one.display(), other.display())]
    Conflict {
        /// The device.
        name: DeviceName,
        /// One of the files.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// The device needs something that Berth does not support.
    #[error("CDI device {name} of {} needs {what}, which is not supported", path.display())]
    Unsupported {
        /// The device.
        name: DeviceName,
        /// The file.
        path: PathBuf,
        /// The field of the file.
        what: &'static str,
    },
    /// A node or mount source of the device is missing on this host, or not as described.
    #[error("CDI device {name} of {}: {what}: {why}", path.display())]
    Host {
        /// The device.
        name: DeviceName,
        /// The file.
        path: PathBuf,
        /// The node or the mount source.
        what: String,
        /// The reason.
        why: String,
    },
}

fn also(broken: &[String]) -> String {
    match broken {
        [] => String::new(),
        _ => format!("; files that cannot be used: {}", broken.join("; ")),
    }
}
