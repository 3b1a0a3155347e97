//! What can be wrong with what a container is asked to be.

/// Why a container cannot be described to a shim. Every variant names the field and the value that is wrong; values of
/// environment variables are left out, since they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither the container nor its image says what to run.
    #[error("no command: neither the container nor its image names one")]
    NoCommand,
    /// A value that no host could honour.
    #[error("{field} {value:?}: {reason}")]
    Invalid {
        /// The field as a caller knows it.
        field: &'static str,
        /// What it held.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable that cannot be passed on.
    #[error("environment variable {name:?}: {reason}")]
    Environment {
        /// The variable.
        name: String,
        /// What is wrong with its name or its value.
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
    /// Recursive read-only mounts that this host cannot make. Starts with the word that the kubelet looks for.
    #[error("RROUnsupported: mount {0:?}: this host cannot make recursive read-only mounts")]
    RecursiveReadonly(String),
    /// Something else that this host cannot do, although others could.
    #[error("{field} {value:?}: {reason}")]
    Unsupported {
        /// The field as a caller knows it.
        field: &'static str,
        /// What it held.
        value: String,
        /// What the host lacks.
        reason: String,
    },
}

impl Error {
    /// Whether another host, or this one set up otherwise, could do it: a failed precondition and not a wrong argument.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::RecursiveReadonly(_) | Self::Unsupported { .. })
    }

    pub(crate) fn invalid(field: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.into(), reason: reason.into() }
    }
}

/// Refuses NUL bytes, which the kernel would take for the end of `value`.
pub(crate) fn without_nul(field: &'static str, value: &str) -> Result<(), Error> {
    match value.contains('\0') {
        true => Err(Error::invalid(field, value, "holds a NUL byte")),
        false => Ok(()),
    }
}
