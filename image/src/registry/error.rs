//! What can go wrong between us and a registry, told so that an operator can act on it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::auth::NONE_GIVEN;
use crate::digest::Digest;

/// A failed request to a registry.
///
/// Messages name the host and what was asked for; a registry's own words are cut to a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry answered that it has no such manifest or blob.
    #[error("{what} not found at {host}{}", Because(.reason))]
    NotFound {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// The registry's own words, if any.
        reason: String,
    },
    /// No credentials were accepted, or none were given where some are needed.
    #[error("not authorized at {host} for {what}{}", Because(.reason))]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Who refused: the registry or its token service.
        host: String,
        /// The registry's own words, if any.
        reason: String,
    },
    /// The credentials are known and do not suffice.
    #[error("{host} denies access to {what}{}", Because(.reason))]
    Denied {
        /// What was asked for.
        what: String,
        /// Who refused.
        host: String,
        /// The registry's own words, if any.
        reason: String,
    },
    /// The registry limits the rate of requests.
    #[error("{host} has had too many requests, asked for {what}{}", Because(.reason))]
    TooManyRequests {
        /// What was asked for.
        what: String,
        /// Who refused.
        host: String,
        /// How long to wait, if the registry said so.
        retry_after: Option<Duration>,
        /// The registry's own words, if any.
        reason: String,
    },
    /// The registry is there but cannot serve now (5xx, 408).
    #[error("{host} failed with status {status} on {what}{}", Because(.reason))]
    ServerFailure {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
        /// How long to wait, if it said so.
        retry_after: Option<Duration>,
        /// The registry's own words, if any.
        reason: String,
    },
    /// No answer: name not resolved, connection refused or broken, TLS refused, time-out.
    #[error("cannot reach {host} for {what}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// Who did not answer.
        host: String,
        /// Why.
        #[source]
        source: Box<reqwest::Error>,
    },
    /// The answer breaks the protocol.
    #[error("bad response from {host} for {what}: {reason}")]
    BadResponse {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is not what its digest promises.
    #[error("{what} from {host} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        what: String,
        /// Who sent it.
        host: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is larger than promised or allowed.
    #[error("{what} from {host} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// Who sent it.
        host: String,
        /// The promised size or the limit.
        limit: u64,
    },
    /// The content ended before its promised size.
    #[error("{what} from {host} ended after {received} of {expected} bytes")]
    Truncated {
        /// What was asked for.
        what: String,
        /// Who sent it.
        host: String,
        /// How many bytes came.
        received: u64,
        /// How many were promised.
        expected: u64,
        /// How the connection broke, if it did not end by itself.
        #[source]
        source: Option<Box<reqwest::Error>>,
    },
    /// The content comes, but so slowly that it never will.
    #[error(
        "{what} from {host} comes too slowly: {received} bytes so far, hardly any in the last {within:?}"
    )]
    TooSlow {
        /// What was asked for.
        what: String,
        /// Who sent it.
        host: String,
        /// How many bytes came.
        received: u64,
        /// In which time it brought too little.
        within: Duration,
    },
    /// The content has another size than promised.
    #[error("{what} at {host} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// What was asked for.
        what: String,
        /// Who offers it.
        host: String,
        /// The promised size.
        expected: u64,
        /// The size that the host states.
        actual: u64,
    },
    /// Every host that the configuration names was tried.
    #[error("{}", Tries { what, tries })]
    AllFailed {
        /// What was asked for.
        what: String,
        /// What each host answered, in the order asked. The last one, the registry itself, decides [`Error::kind`].
        tries: Vec<Error>,
    },
    /// A hosts.toml, or a file that it names, cannot be used.
    #[error("registry configuration {}: {reason}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No HTTP client could be made of the settings for a host; for TLS often because this machine has no CA certificates.
    #[error("cannot set up connections to {host}")]
    Setup {
        /// The host the settings are for.
        host: String,
        /// Why.
        #[source]
        source: Box<reqwest::Error>,
    },
}

/// What a caller can do about an [`Error`]; named like the gRPC codes they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such content.
    NotFound,
    /// Give (other) credentials.
    Unauthenticated,
    /// These credentials will not do.
    PermissionDenied,
    /// Come back later.
    ResourceExhausted,
    /// The registry cannot be reached or is out of order; another try may help.
    Unavailable,
    /// The configuration of this machine must be changed first.
    FailedPrecondition,
    /// Content came damaged or cut.
    DataLoss,
    /// The peer does not speak the protocol.
    Internal,
}

impl Error {
    /// What a caller can do about it.
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

    /// Whether the same request may succeed in a moment. A host that cannot be connected to, or that stays silent, is
    /// not waited for: other hosts and the caller's own retries come first.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::ServerFailure { .. } | Self::TooManyRequests { .. } => true,
            Self::Truncated { .. } | Self::TooSlow { .. } => true,
            Self::Unreachable { source, .. } => !source.is_connect() && !source.is_timeout(),
            Self::AllFailed { tries, .. } => tries.last().is_some_and(Self::may_pass),
            _ => false,
        }
    }

    /// Says, of a refusal, that the credentials of the image were not shown: they were given for `registry` alone.
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

    /// How long the registry asked us to wait.
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

/// `: reason`, or nothing.
struct Because<'a>(&'a str);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            reason => write!(f, ": {reason}"),
        }
    }
}

/// Each try with its causes, since `source()` can only follow one of them.
struct Tries<'a> {
    what: &'a str,
    tries: &'a [Error],
}

impl fmt::Display for Tries<'_> {
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
