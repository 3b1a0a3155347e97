//! Which foreign shim runs a pod, and where it answers: two files in the pod's bundle.

use crate::record;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// What the daemon asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handler {
    /// The shim's binary.
    pub shim: PathBuf,
    /// For the shim; what they mean is between it and whoever configured it.
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

    /// Of a pod's bundle; nothing when the pod is Berth's own.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(Self::FILE_NAME))
    }

    /// The options as they travel.
    pub(super) fn any(&self) -> Option<Any> {
        let Options { type_url, value } = self.options.clone()?;
        Some(Any { type_url, value, ..Default::default() })
    }
}

/// Where a foreign shim answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    /// As `unix:///path`.
    pub(super) address: String,
    /// Of containerd's task service: 2 or 3.
    pub(super) version: i32,
}

impl Address {
    const FILE_NAME: &str = "foreign.json";

    /// Of a pod's bundle, if its shim was started.
    pub(super) fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(Self::FILE_NAME))
    }

    /// For whoever comes after this process.
    pub(super) fn write(&self, bundle: &Path) -> io::Result<()> {
        record::write(&bundle.join(Self::FILE_NAME), self)
    }
}
