//! Errors of unpacking a layer, with the step and the entry.

use std::io;

/// Reasons why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive's framing is broken, or reading it failed.
    #[error("read the archive at or after {after:?}")]
    Archive {
        /// The last entry read, empty at the start.
        after: String,
        #[source]
        /// Cause.
        source: io::Error,
    },
    /// An entry names something outside the layer.
    #[error("entry {path:?} leaves the layer's root through `..`")]
    Escape {
        /// Name in the archive.
        path: String,
    },
    /// The name in a whiteout is empty, `.` or `..`.
    #[error("entry {path:?} is not a valid whiteout")]
    Whiteout {
        /// Name in the archive.
        path: String,
    },
    /// An entry could not be made.
    #[error("{step} {path:?}")]
    Entry {
        /// Step that failed.
        step: &'static str,
        /// Name of the entry.
        path: String,
        #[source]
        /// Error of the system call.
        source: io::Error,
    },
    /// There is no file at the target of a hard link, in this layer or in those below.
    #[error("hard link {path:?}: its target {target:?} is not in the image")]
    LinkTarget {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
    /// The layer exceeds [`Limits`](super::Limits) or a fixed limit.
    #[error("layer holds more than {limit} {what}")]
    Limit {
        /// The limit exceeded.
        limit: u64,
        /// Unit of the limit.
        what: &'static str,
    },
}

pub(super) fn broken(after: &[u8]) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Archive { after: lossy(after), source }
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

pub(super) fn failed(step: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        // Errors of the archive itself, raised while a step was reading it.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            Error::Archive { after: lossy(path), source }
        }
        _ => Error::Entry { step, path: lossy(path), source },
    }
}

pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
