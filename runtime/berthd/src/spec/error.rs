//! Errors in a container's configuration.

/// Why no OCI runtime specification can be made for a container. Every variant names the field and its value; values of
/// environment variables are left out, because they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither the container nor its image names a command.
    #[error("no command: neither the container nor its image names one")]
    NoCommand,
    /// A value that is invalid on every host.
    #[error("{field} {value:?}: {reason}")]
    Invalid {
        /// The field as the caller knows it.
        field: &'static str,
        /// Its value.
        value: String,
        /// Why it is invalid.
        reason: String,
    },
    /// An environment variable that cannot be set.
    #[error("environment variable {name:?}: {reason}")]
    Environment {
        /// The variable's name.
        name: String,
        /// Why its name or value is invalid.
        reason: &'static str,
    },
    /// A user that the image does not have.
    #[error("user {0}: no matching entry in the image's /etc/passwd")]
    UnknownUser(String),
    /// A group that the image does not have.
    #[error("group {0}: no matching entry in the image's /etc/group")]
    UnknownGroup(String),
    /// A group asked for without the user it belongs to.
    #[error("group {0} is given without a user")]
    GroupWithoutUser(u32),
    /// A privileged container in a pod that may not hold one.
    #[error("privileged container {0:?} in a pod that is not privileged")]
    Unprivileged(String),
    /// Recursive read-only mounts that this host cannot make. The message begins with the word that kubelet looks for.
    #[error("RROUnsupported: mount {0:?}: this host cannot make recursive read-only mounts")]
    RecursiveReadonly(String),
    /// Another feature that this host lacks, although others may have it.
    #[error("{field} {value:?}: {reason}")]
    Unsupported {
        /// The field as the caller knows it.
        field: &'static str,
        /// Its value.
        value: String,
        /// The missing feature.
        reason: String,
    },
}

impl Error {
    /// Whether another host, or a different set-up of this one, could do it: a failed precondition, not an invalid
    /// argument.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::RecursiveReadonly(_) | Self::Unsupported { .. })
    }

    pub(crate) fn invalid(field: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.into(), reason: reason.into() }
    }
}

/// Refuses NUL bytes, which would end the C string early.
pub(crate) fn without_nul(field: &'static str, value: &str) -> Result<(), Error> {
    match value.contains('\0') {
        true => Err(Error::invalid(field, value, "holds a NUL byte")),
        false => Ok(()),
    }
}
