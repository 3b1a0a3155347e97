//! Why a layer could not be unpacked, with the step and the entry.

use std::io;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive's framing is broken, or reading it failed.
    #[error("read the archive at or after {after:?}")]
    Archive {
        /// The last entry read, empty at the start.
        after: String,
        #[source]
        /// What was wrong.
        source: io::Error,
    },
    /// An entry names something outside the layer.
    #[error("entry {path:?} leaves the layer's root through `..`")]
    Escape {
        /// The name as the archive has it.
        path: String,
    },
    /// An entry's whiteout name removes nothing that could exist.
    #[error("entry {path:?} is not a valid whiteout")]
    Whiteout {
        /// The name as the archive has it.
        path: String,
    },
    /// An entry could not be made.
    #[error("{step} {path:?}")]
    Entry {
        /// What was being done.
        step: &'static str,
        /// The entry's name.
        path: String,
        #[source]
        /// The failed call's error.
        source: io::Error,
    },
    /// A hard link's target is in neither this layer nor those below.
    #[error("hard link {path:?}: its target {target:?} is not in the image")]
    LinkTarget {
        /// The link.
        path: String,
        /// What it should link to.
        target: String,
    },
    /// More than [`Limits`](super::Limits) allow.
    #[error("layer holds more than {limit} {what}")]
    Limit {
        /// The limit exceeded.
        limit: u64,
        /// Its unit.
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
        // The archive's own errors come up through what reads from it.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            Error::Archive { after: lossy(path), source }
        }
        _ => Error::Entry { step, path: lossy(path), source },
    }
}

pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
