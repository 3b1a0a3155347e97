//! The foreign shim of a pod and its address, in two files of the pod's bundle.

use crate::record;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The foreign shim that the daemon requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handler {
    /// Path of the shim's binary.
    pub shim: PathBuf,
    /// Options for the shim, passed through unread.
    #[serde(default)]
    pub options: Option<Options>,
}

/// A protobuf message in an `Any`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Options {
    pub type_url: String,
    pub value: Vec<u8>,
}

impl Handler {
    const FILE_NAME: &str = "handler.json";

    /// Reads it from a pod's bundle; `None` for Berth's own pods.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(Self::FILE_NAME))
    }

    /// The options as a protobuf `Any`.
    pub(super) fn any(&self) -> Option<Any> {
        let Options { type_url, value } = self.options.clone()?;
        Some(Any { type_url, value, ..Default::default() })
    }
}

/// The address of a foreign shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    /// As `unix:///path`.
    pub(super) address: String,
    /// Version of containerd's task service: 2 or 3.
    pub(super) version: i32,
}

impl Address {
    const FILE_NAME: &str = "foreign.json";

    /// Reads it from a pod's bundle; `None` if the shim was not started.
    pub(super) fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(Self::FILE_NAME))
    }

    /// Writes it to the bundle, for the cleanup after this process.
    pub(super) fn write(&self, bundle: &Path) -> io::Result<()> {
        record::write(&bundle.join(Self::FILE_NAME), self)
    }
}
