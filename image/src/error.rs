//! What can go wrong with images, with the step and what it was about.

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
    /// A registry did not give what was asked for.
    #[error("{step} of image {image}")]
    Registry {
        /// What was asked for.
        step: &'static str,
        /// The reference.
        image: String,
        #[source]
        /// What the registry client says.
        source: Box<registry::Error>,
    },
    /// What a registry gave is no image for this machine.
    #[error("read {what} {digest} of image {image}")]
    Manifest {
        /// Manifest, index or configuration.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// The reference.
        image: String,
        #[source]
        /// What is wrong with it.
        source: Box<ManifestError>,
    },
    /// A layer could not be pulled.
    #[error("pull layer {digest} of image {image}")]
    Layer {
        /// The blob.
        digest: Digest,
        /// The reference.
        image: String,
        #[source]
        /// Why; shared by all pulls that waited for it.
        source: Arc<LayerError>,
    },
    /// There is no such image here.
    #[error("image {image} is not in the store")]
    Unknown {
        /// The name or id asked for.
        image: String,
    },
    /// A layer of an image is gone from the disk. The image is no longer listed; pulling it again repairs it.
    #[error("image {image} is damaged: the directory of layer {layer} is missing; pull it again")]
    Damaged {
        /// The image's id.
        image: String,
        /// The layer.
        layer: Digest,
    },
    /// The disk failed us.
    #[error("{step} {path:?}")]
    Store {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        #[source]
        /// The system's error.
        source: io::Error,
    },
    /// The index failed us.
    #[error("{step} the image index")]
    Index {
        /// What was tried.
        step: &'static str,
        #[source]
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The index was written by another version of this program.
    #[error("the image index has version {found}, this program knows {known}")]
    IndexVersion {
        /// The index's version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A task of ours died.
    #[error("{step} was interrupted")]
    Interrupted {
        /// What it did.
        step: &'static str,
    },
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Error::Store { step: "let fail", path: PathBuf::new(), source: injected.into() }
    }
}

/// Who has to act, in the terms a remote caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// There is no such image.
    NotFound,
    /// Credentials are needed, or other ones.
    Unauthenticated,
    /// These credentials are not allowed to.
    PermissionDenied,
    /// Worth another try later.
    Unavailable,
    /// Limits of the registry were hit.
    ResourceExhausted,
    /// The image is of a form or for a machine that is not supported, or something must be set right here first.
    FailedPrecondition,
    /// Content is not what its digest says.
    DataLoss,
    /// The disk is full.
    NoSpace,
    /// Anything else.
    Internal,
}

impl Error {
    /// What sort of failure this is.
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
        // An image asks for more than there may be.
        io::ErrorKind::FileTooLarge => Kind::FailedPrecondition,
        _ => Kind::Internal,
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
