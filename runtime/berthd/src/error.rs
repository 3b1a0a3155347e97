//! The daemon's error: the failed step, its cause, and its kind, which determines the gRPC code.

use std::{error::Error as StdError, fmt, sync::Arc};

use berth_image::Kind as ImageKind;
use rustix::io::Errno;

/// The class of an error, by what a caller can do about it. One kind maps to one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is invalid in any state.
    InvalidArgument,
    /// The object of the request does not exist.
    NotFound,
    /// The object to be made exists already and differs.
    AlreadyExists,
    /// Not possible in this state; another call must come first.
    FailedPrecondition,
    /// The caller is known and not permitted to do it.
    PermissionDenied,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// No space, addresses or processes left.
    ResourceExhausted,
    /// It took longer than allowed.
    DeadlineExceeded,
    /// Not possible now; the same call may succeed later.
    Unavailable,
    /// Not supported.
    Unimplemented,
    /// Stored or fetched bytes are damaged.
    DataLoss,
    /// None of these: a fault of the daemon or of the machine.
    Internal,
}

/// A failed step. Cheap to clone, because all calls that joined the same work get its error.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    step: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Result of the daemon's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a deeper cause. `step` says what failed, with its arguments.
    pub fn new(kind: Kind, step: impl Into<String>) -> Self {
        Self { kind, step: step.into(), source: None }
    }

    /// An error that `source` caused during `step`.
    pub fn caused(
        kind: Kind,
        step: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, step: step.into(), source: Some(Arc::from(source.into())) }
    }

    /// A `NotFound` error for a `what` (kind of object) with this `id`.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("{what} {id:?} does not exist"))
    }

    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Wraps the error in a larger `step`; the kind stays.
    pub fn during(self, step: impl Into<String>) -> Self {
        Self { kind: self.kind, step: step.into(), source: Some(Arc::new(self)) }
    }
}

/// Prints the step and all its causes in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)?;
        let mut next = self.source();
        while let Some(cause) = next {
            // An `Error` prints its own causes.
            write!(f, ": {cause}")?;
            next = if cause.is::<Error>() { None } else { cause.source() };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Self::caused(Kind::Internal, "a step that tests let fail", injected)
    }
}

/// Adds the failed step to an error of another library.
pub trait During<T> {
    /// Wraps the error. Its kind is `Internal`, or `ResourceExhausted` when disk space, memory or descriptors ran out.
    fn during<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::caused(kind_of_io(&error), step(), error))
    }
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| {
            let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
            let kind = if full { Kind::ResourceExhausted } else { Kind::Internal };
            Error::caused(kind, step(), error)
        })
    }
}

impl<T> During<T> for serde_json::Result<T> {
    fn during<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::caused(Kind::Internal, step(), error))
    }
}

/// Converts the error of a request for which no OCI runtime specification or pod file can be made.
pub(crate) fn spec_error(error: crate::spec::Error) -> Error {
    let kind = if error.is_unsupported() { Kind::FailedPrecondition } else { Kind::InvalidArgument };
    Error::caused(kind, "describe it to the shim", error)
}

/// Converts an error of the image library; `step` is what it was asked for.
pub(crate) fn of_image(step: impl Into<String>, error: berth_image::Error) -> Error {
    let kind = match error.kind() {
        ImageKind::NotFound => Kind::NotFound,
        ImageKind::Unauthenticated => Kind::Unauthenticated,
        ImageKind::PermissionDenied => Kind::PermissionDenied,
        ImageKind::Unavailable => Kind::Unavailable,
        ImageKind::ResourceExhausted | ImageKind::NoSpace => Kind::ResourceExhausted,
        ImageKind::FailedPrecondition => Kind::FailedPrecondition,
        ImageKind::DataLoss => Kind::DataLoss,
        _ => Kind::Internal,
    };
    Error::caused(kind, step, error)
}

/// Converts an error of the network; `step` is what it was asked for.
pub(crate) fn of_network(step: impl Into<String>, error: berth_network::Error) -> Error {
    let kind = match error.kind() {
        berth_network::Kind::Invalid => Kind::InvalidArgument,
        berth_network::Kind::Conflict => Kind::FailedPrecondition,
        berth_network::Kind::Exhausted => Kind::ResourceExhausted,
        berth_network::Kind::TimedOut => Kind::DeadlineExceeded,
        berth_network::Kind::NotReady => Kind::Unavailable,
        berth_network::Kind::Internal => Kind::Internal,
    };
    Error::caused(kind, step, error)
}

fn kind_of_io(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
    // EMFILE and ENFILE have no `ErrorKind` of their own.
    let descriptors = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
    match error.kind() {
        StorageFull | QuotaExceeded | OutOfMemory | WouldBlock => Kind::ResourceExhausted,
        _ if descriptors => Kind::ResourceExhausted,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_every_cause_once() {
        let io = std::io::Error::other("no such device");
        let inner = Error::caused(Kind::Internal, "mount the overlay", io);
        let outer = inner.during("create container web");
        assert_eq!(outer.to_string(), "create container web: mount the overlay: no such device");
        assert_eq!(outer.kind(), Kind::Internal);
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_fault() {
        let full: std::io::Result<()> = Err(std::io::ErrorKind::StorageFull.into());
        assert_eq!(full.during(|| "write").map_err(|e| e.kind()), Err(Kind::ResourceExhausted));
    }
}
