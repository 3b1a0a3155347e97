//! Errors of image operations, with the step that failed and its object.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::pull::LayerError;
use crate::registry;

/// A failed operation on images. The chain of sources ends at the first cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request to a registry failed.
    #[error("{step} of image {image}")]
    Registry {
        /// Step that failed.
        step: &'static str,
        /// Normalized reference of the image.
        image: String,
        #[source]
        /// Error of the registry client.
        source: Box<registry::Error>,
    },
    /// A document from a registry cannot be used as an image for this machine.
    #[error("read {what} {digest} of image {image}")]
    Manifest {
        /// Kind of document: manifest, index or configuration.
        what: &'static str,
        /// Digest of the document.
        digest: Digest,
        /// Normalized reference of the image.
        image: String,
        #[source]
        /// Cause.
        source: Box<ManifestError>,
    },
    /// A layer could not be pulled.
    #[error("pull layer {digest} of image {image}")]
    Layer {
        /// Digest of the layer's blob.
        digest: Digest,
        /// Normalized reference of the image.
        image: String,
        #[source]
        /// Cause; shared by all pulls that waited for this layer.
        source: Arc<LayerError>,
    },
    /// The store has no such image.
    #[error("image {image} is not in the store")]
    Unknown {
        /// The name or id asked for.
        image: String,
    },
    /// A layer of an image is gone from the disk. The image is no longer listed; pulling it again repairs it.
    #[error("image {image} is damaged: the directory of layer {layer} is missing; pull it again")]
    Damaged {
        /// Id of the image.
        image: String,
        /// Key of the missing layer.
        layer: Digest,
    },
    /// A file operation of the store failed.
    #[error("{step} {path:?}")]
    Store {
        /// Step that failed.
        step: &'static str,
        /// Path it failed on.
        path: PathBuf,
        #[source]
        /// Error of the system call.
        source: io::Error,
    },
    /// SQLite failed on the image index.
    #[error("{step} the image index")]
    Index {
        /// Step that failed.
        step: &'static str,
        #[source]
        /// Error of SQLite.
        source: rusqlite::Error,
    },
    /// The index was written by an unknown version of this program.
    #[error("the image index has version {found}, this program knows {known}")]
    IndexVersion {
        /// Schema version of the index.
        found: i64,
        /// Schema version of this program.
        known: i64,
    },
    /// A background task panicked, or the runtime was shut down.
    #[error("{step} was interrupted")]
    Interrupted {
        /// Step the task was doing.
        step: &'static str,
    },
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Error::Store { step: "let fail", path: PathBuf::new(), source: injected.into() }
    }
}

/// Category of an [`Error`], from which a caller derives the gRPC status of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// There is no such image, or none for this platform.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// The registry denies access, with these credentials or without any.
    PermissionDenied,
    /// The registry failed or cannot be reached; retry later.
    Unavailable,
    /// The registry limits the rate of requests.
    ResourceExhausted,
    /// The image has an unsupported form, or the configuration of this machine must be changed first.
    FailedPrecondition,
    /// Content does not match its digest, or is damaged.
    DataLoss,
    /// The disk or a quota is full.
    NoSpace,
    /// Anything else.
    Internal,
}

impl Error {
    /// Returns the category of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Registry { source, .. } => registry_kind(source),
            Error::Manifest { source, .. } => manifest_kind(source),
            Error::Layer { source, .. } => source.kind(),
            Error::Unknown { .. } => Kind::NotFound,
            Error::Damaged { .. } => Kind::FailedPrecondition,
            Error::Store { source, .. } => io_kind(source),
            Error::Index { source, .. } if is_full(source) => Kind::NoSpace,
            Error::Index { .. } | Error::IndexVersion { .. } | Error::Interrupted { .. } => Kind::Internal,
        }
    }
}

fn manifest_kind(error: &ManifestError) -> Kind {
    match error {
        ManifestError::Platform { .. } => Kind::NotFound,
        ManifestError::Json { .. } | ManifestError::LayerCount { .. } => Kind::DataLoss,
        _ => Kind::FailedPrecondition,
    }
}

pub(crate) fn registry_kind(error: &registry::Error) -> Kind {
    match error.kind() {
        registry::Kind::NotFound => Kind::NotFound,
        registry::Kind::Unauthenticated => Kind::Unauthenticated,
        registry::Kind::PermissionDenied => Kind::PermissionDenied,
        registry::Kind::ResourceExhausted => Kind::ResourceExhausted,
        registry::Kind::Unavailable => Kind::Unavailable,
        registry::Kind::FailedPrecondition => Kind::FailedPrecondition,
        registry::Kind::DataLoss => Kind::DataLoss,
        registry::Kind::Internal => Kind::Internal,
    }
}

pub(crate) fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        // An image exceeds a limit of ours or of the file system (EFBIG).
        io::ErrorKind::FileTooLarge => Kind::FailedPrecondition,
        _ => Kind::Internal,
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
