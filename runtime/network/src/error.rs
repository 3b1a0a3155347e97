//! What can go wrong with a pod's network, with enough in it to act on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A failed network operation. `kind` says how a caller may react.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network is configured yet.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A configuration value cannot be used.
    #[error("configuration key {key} = {value:?}: {why}")]
    InvalidConfig {
        /// The key, with its section.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value of the pod cannot be used.
    #[error("pod's {field} {value:?}: {why}")]
    InvalidPod {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A CNI plugin did not do what was asked of it.
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
        /// What it did instead.
        #[source]
        failure: Box<PluginFailure>,
    },
    /// A result of one CNI version has no form in another.
    #[error("network {network:?}: the result of plugin {plugin:?} for pod {pod}: {why}")]
    Result {
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// The pod's id.
        pod: String,
        /// What is wrong with it.
        why: String,
    },
    /// Attaching failed, and so did undoing it; the record is kept and `detach` tries again.
    #[error("attaching failed; undoing that failed too and is left to detach ({})", undo.chain())]
    Undo {
        /// Why the pod was not attached.
        #[source]
        attach: Box<Error>,
        /// Why that could not be undone.
        undo: Box<Error>,
    },
    /// The template of a network configuration makes no network.
    #[error("template {} of a network configuration: {why}", path.display())]
    Template {
        /// The template.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file or directory of the network's own could not be used.
    #[error("{step} {path:?}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step of the built-in network.
    #[error("{step} {object:?}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// On which interface, namespace or address.
        object: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program of the host's did not do what it was run for.
    #[error("{program} ({purpose}): {message}")]
    Program {
        /// The program with its arguments.
        program: String,
        /// What it was run for.
        purpose: &'static str,
        /// What it said.
        message: String,
    },
    /// A program of the host's hung and was killed.
    #[error("{program} ({purpose}) did not end within {limit:?} and was killed")]
    Hung {
        /// The program with its arguments.
        program: String,
        /// What it was run for.
        purpose: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The pods' subnet is somebody else's already.
    #[error(
        "network.bridge.subnet {subnet} overlaps with {network} of interface {interface}: \
         configure another one, or none to have a free one chosen"
    )]
    Overlap {
        /// The subnet of the pods.
        subnet: String,
        /// The other network.
        network: String,
        /// Through which the host reaches the other network.
        interface: String,
    },
    /// No subnet is configured and none that may be chosen is free.
    #[error("network.bridge.subnet is not configured and none of {tried} is free")]
    NoSubnet {
        /// The subnets that may be chosen.
        tried: String,
    },
    /// What all pods share could not be made, for another pod that asked first.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// A host port is taken.
    #[error("host port {mapping} of pod {pod} is taken by {holder}")]
    PortTaken {
        /// The pod that asked.
        pod: String,
        /// The mapping, as text.
        mapping: String,
        /// Who has it.
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
        /// What is not as attached.
        what: String,
    },
    /// A thread or task of the network ended without an answer.
    #[error("{step} ended without an answer")]
    Lost {
        /// What was running.
        step: &'static str,
    },
}

/// What a CNI plugin did instead of answering rightly.
#[derive(Debug, thiserror::Error)]
pub enum PluginFailure {
    /// No such binary.
    #[error("not found in {searched:?}")]
    Missing {
        /// The directories searched.
        searched: Vec<PathBuf>,
    },
    /// It could not be started.
    #[error("cannot be started")]
    Spawn(#[source] io::Error),
    /// It said what went wrong, in CNI's way.
    #[error("failed with code {code}: {message}{}{}", separated(details), separated(stderr))]
    Reported {
        /// CNI's error code.
        code: u64,
        /// What went wrong.
        message: String,
        /// More of it; may be empty.
        details: String,
        /// What it wrote to its standard error; may be empty.
        stderr: String,
    },
    /// It ended badly without saying why.
    #[error("ended with {status} and no CNI error{}{}", separated(stdout), separated(stderr))]
    Ended {
        /// Its exit status.
        status: String,
        /// The beginning of its standard output; may be empty.
        stdout: String,
        /// What it wrote to its standard error; may be empty.
        stderr: String,
    },
    /// It ended well but answered with something that is no CNI result.
    #[error("answered with what is no CNI result ({why}): {stdout:?}{}", separated(stderr))]
    Garbage {
        /// What is wrong with it.
        why: String,
        /// The beginning of its standard output.
        stdout: String,
        /// What it wrote to its standard error; may be empty.
        stderr: String,
    },
    /// It did not end in time and was killed.
    #[error("did not end within {limit:?} and was killed{}", separated(stderr))]
    TimedOut {
        /// The time it had.
        limit: Duration,
        /// What it wrote to its standard error until then; may be empty.
        stderr: String,
    },
    /// It did not end in time, nor when it was killed: the kernel holds it.
    #[error("did not end within {limit:?} and cannot be killed{}", separated(stderr))]
    Stuck {
        /// The time it had.
        limit: Duration,
        /// What it wrote to its standard error until then; may be empty.
        stderr: String,
    },
}

fn separated(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        text => format!("; {text}"),
    }
}

/// Why no pod can be attached now, or what those that are suffer from, for the runtime's status.
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
    /// What was asked for is wrong; asking again will not help.
    Invalid,
    /// Something else holds what was asked for, or something else has to be put right first.
    Conflict,
    /// Nothing is left to hand out.
    Exhausted,
    /// The node has no usable network now.
    NotReady,
    /// Something took too long.
    TimedOut,
    /// A plugin or the kernel failed.
    Internal,
}

impl Error {
    /// The error with all its causes, on one line.
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// How a caller may react.
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
    /// How a caller may react: code 11 is CNI's "try again later".
    fn kind(&self) -> Kind {
        match self {
            PluginFailure::Missing { .. } => Kind::NotReady,
            PluginFailure::Reported { code: 11, .. } => Kind::NotReady,
            PluginFailure::TimedOut { .. } | PluginFailure::Stuck { .. } => Kind::TimedOut,
            _ => Kind::Internal,
        }
    }
}
