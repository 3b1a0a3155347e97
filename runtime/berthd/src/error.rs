//! The daemon's error: what went wrong, at which step, and of which kind, for the one place that maps it to gRPC.

use std::{error::Error as StdError, fmt, sync::Arc};

use berth_image::Kind as ImageKind;
use rustix::io::Errno;

/// What a caller can do about an error. One kind maps to one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong, whatever the state.
    InvalidArgument,
    /// What the request names does not exist.
    NotFound,
    /// What the request wants to make exists already and differs.
    AlreadyExists,
    /// Not in this state; another call must come first.
    FailedPrecondition,
    /// Known, and not allowed.
    PermissionDenied,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// No space, addresses or processes left.
    ResourceExhausted,
    /// It took longer than allowed.
    DeadlineExceeded,
    /// Not now; the same call may go through later.
    Unavailable,
    /// Not built.
    Unimplemented,
    /// Stored or fetched bytes are damaged.
    DataLoss,
    /// None of these: a fault of ours or of the machine.
    Internal,
}

/// A failed step. Cheap to clone, because calls that joined one in flight all get its error.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    step: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What every fallible function of the daemon returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a deeper cause. `step` says what was wrong, with its arguments.
    pub fn new(kind: Kind, step: impl Into<String>) -> Self {
        Self { kind, step: step.into(), source: None }
    }

    /// An error that `source` caused while doing `step`.
    pub fn caused(
        kind: Kind,
        step: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, step: step.into(), source: Some(Arc::from(source.into())) }
    }

    /// Names the `kind` of thing and the `id` that do not exist.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("{what} {id:?} does not exist"))
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error as part of a larger `step`.
    pub fn during(self, step: impl Into<String>) -> Self {
        Self { kind: self.kind, step: step.into(), source: Some(Arc::new(self)) }
    }
}

/// The step and all its causes, in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)?;
        let mut next = self.source();
        while let Some(cause) = next {
            // An error of ours prints its own causes.
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

/// Adds to a foreign error the step that met it.
pub trait During<T> {
    /// The error of a step of ours on this machine: kind `Internal`, or what the errno says.
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

/// What is wrong with a request that the OCI runtime spec, or a file of the pod, cannot be made of.
pub(crate) fn spec_error(error: crate::spec::Error) -> Error {
    let kind = if error.is_unsupported() { Kind::FailedPrecondition } else { Kind::InvalidArgument };
    Error::caused(kind, "describe it to the shim", error)
}

/// What the image library could not do; `step` is what it was asked for.
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

/// What the network could not do; `step` is what it was asked for.
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
    // What has no word of its own: no descriptors left.
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
