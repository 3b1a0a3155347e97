//! Errors of the registry client, worded so that an operator can act on them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::auth::NONE_GIVEN;
use crate::digest::Digest;

/// A failed request to a registry.
///
/// Messages name the host and the content; a registry's own words are cut to one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry answered that it has no such manifest or blob.
    #[error("{what} not found at {host}{}", ReasonSuffix(.reason))]
    NotFound {
        /// Description of the content.
        what: String,
        /// Host that answered.
        host: String,
        /// The registry's own words, if any.
        reason: String,
    },
    /// No credentials were accepted, or none were given where some are needed.
    #[error("not authorized at {host} for {what}{}", ReasonSuffix(.reason))]
    Unauthorized {
        /// Description of the content.
        what: String,
        /// Host that refused: the registry or its token service.
        host: String,
        /// The registry's own words, if any.
        reason: String,
    },
    /// The registry denies access, with these credentials or without any (403).
    #[error("{host} denies access to {what}{}", ReasonSuffix(.reason))]
    Denied {
        /// Description of the content.
        what: String,
        /// Host that refused.
        host: String,
        /// The registry's own words, if any.
        reason: String,
    },
    /// The registry limits the rate of requests.
    #[error("{host} has had too many requests, asked for {what}{}", ReasonSuffix(.reason))]
    TooManyRequests {
        /// Description of the content.
        what: String,
        /// Host that refused.
        host: String,
        /// How long to wait, if the registry says so.
        retry_after: Option<Duration>,
        /// The registry's own words, if any.
        reason: String,
    },
    /// The registry is there but cannot serve now (5xx, 408).
    #[error("{host} failed with status {status} on {what}{}", ReasonSuffix(.reason))]
    ServerFailure {
        /// Description of the content.
        what: String,
        /// Host that answered.
        host: String,
        /// The HTTP status.
        status: u16,
        /// How long to wait, if the registry says so.
        retry_after: Option<Duration>,
        /// The registry's own words, if any.
        reason: String,
    },
    /// No answer: name not resolved, connection refused or broken, TLS failed, time-out.
    #[error("cannot reach {host} for {what}")]
    Unreachable {
        /// Description of the content.
        what: String,
        /// Host that did not answer.
        host: String,
        /// Cause.
        #[source]
        source: Box<reqwest::Error>,
    },
    /// The answer violates the protocol.
    #[error("bad response from {host} for {what}: {reason}")]
    BadResponse {
        /// Description of the content.
        what: String,
        /// Host that answered.
        host: String,
        /// The violation.
        reason: String,
    },
    /// The content does not have the expected digest.
    #[error("{what} from {host} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// Description of the content.
        what: String,
        /// Host that sent it.
        host: String,
        /// Digest expected.
        expected: Digest,
        /// Digest received.
        actual: Digest,
    },
    /// The content is larger than promised or allowed.
    #[error("{what} from {host} is larger than {limit} bytes")]
    TooLarge {
        /// Description of the content.
        what: String,
        /// Host that sent it.
        host: String,
        /// The promised size or the limit, in bytes.
        limit: u64,
    },
    /// The content ended before its promised size.
    #[error("{what} from {host} ended after {received} of {expected} bytes")]
    Truncated {
        /// Description of the content.
        what: String,
        /// Host that sent it.
        host: String,
        /// Bytes received.
        received: u64,
        /// Bytes promised.
        expected: u64,
        /// Cause of the break; absent if the connection was closed without an error.
        #[source]
        source: Option<Box<reqwest::Error>>,
    },
    /// The content arrives more slowly than [`Progress`](super::Progress) demands.
    #[error(
        "{what} from {host} comes too slowly: {received} bytes so far, hardly any in the last {within:?}"
    )]
    TooSlow {
        /// Description of the content.
        what: String,
        /// Host that sent it.
        host: String,
        /// Bytes received.
        received: u64,
        /// Time in which too few bytes arrived.
        within: Duration,
    },
    /// The host states another size than promised.
    #[error("{what} at {host} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// Description of the content.
        what: String,
        /// Host that offers it.
        host: String,
        /// Size promised, in bytes.
        expected: u64,
        /// Size stated by the host, in bytes.
        actual: u64,
    },
    /// All hosts that may be asked have failed, or the configuration allows none.
    #[error("{}", AllFailures { what, tries })]
    AllFailed {
        /// Description of the content.
        what: String,
        /// Failure of each host, in the order of the configuration. The last host, the registry itself, decides
        /// [`Error::kind`].
        tries: Vec<Error>,
    },
    /// A hosts.toml, or a file named in it, cannot be used.
    #[error("registry configuration {}: {reason}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        reason: String,
    },
    /// No HTTP client could be made for a host; with TLS often because this machine has no CA certificates.
    #[error("cannot set up connections to {host}")]
    Setup {
        /// The host the settings are for.
        host: String,
        /// Cause.
        #[source]
        source: Box<reqwest::Error>,
    },
}

/// Category of an [`Error`] by what a caller can do about it; named like the gRPC code it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such content.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// The registry denies access, with these credentials or without any.
    PermissionDenied,
    /// The registry limits the rate of requests; retry later.
    ResourceExhausted,
    /// The registry cannot be reached or fails; a retry may help.
    Unavailable,
    /// The configuration of this machine must be changed first.
    FailedPrecondition,
    /// Content arrived damaged or incomplete.
    DataLoss,
    /// The registry violates the protocol.
    Internal,
}

impl Error {
    /// Returns the category of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Unauthorized { .. } => Kind::Unauthenticated,
            Self::Denied { .. } => Kind::PermissionDenied,
            Self::TooManyRequests { .. } => Kind::ResourceExhausted,
            Self::ServerFailure { .. } | Self::Unreachable { .. } | Self::TooSlow { .. } => Kind::Unavailable,
            Self::BadResponse { .. } => Kind::Internal,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::TooLarge { .. }
            | Self::Truncated { .. } => Kind::DataLoss,
            Self::AllFailed { tries, .. } => tries.last().map_or(Kind::FailedPrecondition, Self::kind),
            Self::Config { .. } | Self::Setup { .. } => Kind::FailedPrecondition,
        }
    }

    /// Whether the same request may succeed in a moment. A host that cannot be connected to, or stays silent, is not
    /// retried here: other hosts and the caller's own retries come first.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::ServerFailure { .. } | Self::TooManyRequests { .. } => true,
            Self::Truncated { .. } | Self::TooSlow { .. } => true,
            Self::Unreachable { source, .. } => !source.is_connect() && !source.is_timeout(),
            Self::AllFailed { tries, .. } => tries.last().is_some_and(Self::may_pass),
            _ => false,
        }
    }

    /// Adds to a refusal that the image's credentials were not sent to the host, as they belong to `registry`.
    pub(super) fn without_credentials_of(mut self, registry: &str) -> Self {
        if let Self::Unauthorized { reason, .. } | Self::Denied { reason, .. } = &mut self {
            let hint = format!("the credentials given are for {registry} and were not shown to it");
            *reason = match reason.as_str() {
                "" | NONE_GIVEN => hint,
                said => format!("{said}; {hint}"),
            };
        }
        self
    }

    /// Returns how long the registry asked to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::ServerFailure { retry_after, .. } => {
                *retry_after
            }
            Self::AllFailed { tries, .. } => tries.last().and_then(Self::retry_after),
            _ => None,
        }
    }
}

/// Displays `: reason`, or nothing.
struct ReasonSuffix<'a>(&'a str);

impl fmt::Display for ReasonSuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            reason => write!(f, ": {reason}"),
        }
    }
}

/// Displays each try with its causes, since `source()` can follow only one of them.
struct AllFailures<'a> {
    what: &'a str,
    tries: &'a [Error],
}

impl fmt::Display for AllFailures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tries.is_empty() {
            return write!(f, "the registry configuration lets no host be asked for {}", self.what);
        }
        for (position, error) in self.tries.iter().enumerate() {
            if position > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}
