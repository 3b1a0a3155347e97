//! Errors of the pod network.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A failed network operation. `kind` says how a caller may react.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable network is configured yet.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A configuration value cannot be used.
    #[error("configuration key {key} = {value:?}: {why}")]
    InvalidConfig {
        /// The key, with its section.
        key: &'static str,
        /// Its value.
        value: String,
        /// The reason.
        why: &'static str,
    },
    /// A value of the pod cannot be used.
    #[error("pod's {field} {value:?}: {why}")]
    InvalidPod {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The reason.
        why: &'static str,
    },
    /// A CNI plugin failed or gave no usable answer.
    #[error("network {network:?}: plugin {plugin:?} {command} for pod {pod}")]
    Plugin {
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// The CNI command.
        command: &'static str,
        /// The pod's id.
        pod: String,
        /// How it failed.
        #[source]
        failure: Box<PluginFailure>,
    },
    /// The result of a plugin cannot be used, or not be converted to the version of the chain.
    #[error("network {network:?}: the result of plugin {plugin:?} for pod {pod}: {why}")]
    Result {
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// The pod's id.
        pod: String,
        /// The reason.
        why: String,
    },
    /// Attaching failed, and so did undoing it; the record is kept and `detach` tries again.
    #[error("attaching failed; undoing that failed too and is left to detach ({})", undo.chain())]
    Undo {
        /// Why the pod was not attached.
        #[source]
        attach: Box<Error>,
        /// Why the attempt could not be undone.
        undo: Box<Error>,
    },
    /// The template does not yield a valid network configuration.
    #[error("template {} of a network configuration: {why}", path.display())]
    Template {
        /// Path of the template.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A file or directory that the network uses could not be read or written.
    #[error("{step} {path:?}")]
    File {
        /// The operation.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step of the built-in network.
    #[error("{step} {object:?}")]
    Kernel {
        /// The operation.
        step: &'static str,
        /// The interface, namespace or address.
        object: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A host program such as `nft` could not be run, or failed.
    #[error("{program} ({purpose}): {message}")]
    Program {
        /// The program with its arguments.
        program: String,
        /// Purpose of the run.
        purpose: &'static str,
        /// Its standard error or status, or why it could not be run.
        message: String,
    },
    /// A host program hung and was killed.
    #[error("{program} ({purpose}) did not end within {limit:?} and was killed")]
    Hung {
        /// The program with its arguments.
        program: String,
        /// Purpose of the run.
        purpose: &'static str,
        /// Its time limit.
        limit: Duration,
    },
    /// The pods' subnet overlaps with another network of the host.
    #[error(
        "network.bridge.subnet {subnet} overlaps with {network} of interface {interface}: \
         configure another one, or none to have a free one chosen"
    )]
    Overlap {
        /// The subnet of the pods.
        subnet: String,
        /// The other network.
        network: String,
        /// The interface through which the host reaches the other network.
        interface: String,
    },
    /// No subnet is configured and no candidate is free.
    #[error("network.bridge.subnet is not configured and none of {tried} is free")]
    NoSubnet {
        /// The first and the last candidate.
        tried: String,
    },
    /// The bridge or its nftables table could not be made. All pods that waited for one attempt share its error.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// A host port is taken.
    #[error("host port {mapping} of pod {pod} is taken by {holder}")]
    PortTaken {
        /// The pod that asked for it.
        pod: String,
        /// The mapping, as text.
        mapping: String,
        /// The pod or process that holds it.
        holder: String,
    },
    /// The subnet has no free address.
    #[error("subnet {subnet} has no free address for pod {pod}: all {capacity} are leased")]
    Exhausted {
        /// The subnet.
        subnet: String,
        /// How many addresses it has.
        capacity: u32,
        /// The pod that asked.
        pod: String,
    },
    /// `check` found something missing or different.
    #[error("pod {pod}: {what}")]
    Drift {
        /// The pod's id.
        pod: String,
        /// The difference.
        what: String,
    },
    /// A thread or task of the network panicked or was cancelled.
    #[error("{step} ended without an answer")]
    Lost {
        /// The step that was running.
        step: &'static str,
    },
}

/// How a run of a CNI plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginFailure {
    /// The binary was not found.
    #[error("not found in {searched:?}")]
    Missing {
        /// The directories searched.
        searched: Vec<PathBuf>,
    },
    /// The plugin could not be started or waited for.
    #[error("cannot be started")]
    Spawn(#[source] io::Error),
    /// The plugin returned a CNI error object.
    #[error("failed with code {code}: {message}{}{}", separated(details), separated(stderr))]
    Reported {
        /// CNI's error code.
        code: u64,
        /// The error message.
        message: String,
        /// Details of the error; may be empty.
        details: String,
        /// Its standard error, cut to 16 KiB; may be empty.
        stderr: String,
    },
    /// The plugin failed without a CNI error object.
    #[error("ended with {status} and no CNI error{}{}", separated(stdout), separated(stderr))]
    Ended {
        /// Its exit status.
        status: String,
        /// The beginning of its standard output; may be empty.
        stdout: String,
        /// Its standard error, cut to 16 KiB; may be empty.
        stderr: String,
    },
    /// The plugin succeeded, but its output is not valid JSON.
    #[error("answered with what is no CNI result ({why}): {stdout:?}{}", separated(stderr))]
    Garbage {
        /// The reason.
        why: String,
        /// The beginning of its standard output.
        stdout: String,
        /// Its standard error, cut to 16 KiB; may be empty.
        stderr: String,
    },
    /// The plugin did not end in time and was killed.
    #[error("did not end within {limit:?} and was killed{}", separated(stderr))]
    TimedOut {
        /// Its time limit.
        limit: Duration,
        /// Its standard error until then; may be empty.
        stderr: String,
    },
    /// The plugin did not end in time, and SIGKILL did not end it either: it sleeps uninterruptibly or is frozen.
    #[error("did not end within {limit:?} and cannot be killed{}", separated(stderr))]
    Stuck {
        /// Its time limit.
        limit: Duration,
        /// Its standard error until then; may be empty.
        stderr: String,
    },
}

fn separated(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        text => format!("; {text}"),
    }
}

/// Why no pod can be attached now, or what disturbs attached pods, for the runtime's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network is not ready: {message}")]
pub struct NotReady {
    /// One word for programs, such as `NetworkPluginNotReady`.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Error::Kernel { step: "let fail", object: "a test".into(), source: injected.into() }
    }
}

/// How a caller may react to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong; retrying does not help.
    Invalid,
    /// Something else holds the resource, or something else must be fixed first.
    Conflict,
    /// No address is left.
    Exhausted,
    /// The node has no usable network now.
    NotReady,
    /// A plugin or program took too long.
    TimedOut,
    /// A plugin or the kernel failed.
    Internal,
}

impl Error {
    /// Returns the error with all its causes, on one line.
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// Returns how a caller may react.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotReady(_) => Kind::NotReady,
            Error::InvalidConfig { .. } | Error::InvalidPod { .. } => Kind::Invalid,
            Error::PortTaken { .. } | Error::Template { .. } => Kind::Conflict,
            Error::Overlap { .. } | Error::NoSubnet { .. } => Kind::Conflict,
            Error::Hung { .. } => Kind::TimedOut,
            Error::Shared(error) => error.kind(),
            Error::Exhausted { .. } => Kind::Exhausted,
            Error::Plugin { failure, .. } => failure.kind(),
            Error::Undo { attach, .. } => attach.kind(),
            _ => Kind::Internal,
        }
    }
}

impl PluginFailure {
    /// Returns how a caller may react. Code 11 is CNI's "try again later".
    fn kind(&self) -> Kind {
        match self {
            PluginFailure::Missing { .. } => Kind::NotReady,
            PluginFailure::Reported { code: 11, .. } => Kind::NotReady,
            PluginFailure::TimedOut { .. } | PluginFailure::Stuck { .. } => Kind::TimedOut,
            _ => Kind::Internal,
        }
    }
}
