//! Errors between a request and the container's execve; serialised to travel up a socket.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Maximum length in characters of a text in an error that travels.
const MAX_TEXT_CHARS: usize = 2000;

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Step {
    Config,
    Process,
    Pod,
    Cgroup,
    Namespace,
    Rootfs,
    Mount,
    Device,
    Mask,
    Sysctl,
    Hostname,
    Keyring,
    Terminal,
    OomScore,
    Priority,
    Rlimit,
    Cwd,
    User,
    Capabilities,
    Seccomp,
    Security,
    Hook,
    Exec,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Config => "config",
            Step::Process => "process",
            Step::Pod => "pod namespaces",
            Step::Cgroup => "cgroup",
            Step::Namespace => "namespace",
            Step::Rootfs => "rootfs",
            Step::Mount => "mount",
            Step::Device => "device",
            Step::Mask => "masked paths",
            Step::Sysctl => "sysctl",
            Step::Hostname => "hostname",
            Step::Keyring => "keyring",
            Step::Terminal => "terminal",
            Step::OomScore => "oom_score_adj",
            Step::Priority => "priority",
            Step::Rlimit => "rlimit",
            Step::Cwd => "working directory",
            Step::User => "user",
            Step::Capabilities => "capabilities",
            Step::Seccomp => "seccomp",
            Step::Security => "security",
            Step::Hook => "hook",
            Step::Exec => "exec",
        })
    }
}

/// An errno that can be serialised; displayed as the C library describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl std::error::Error for Errno {}

/// Why a command cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unrunnable {
    /// No such name in any directory of `$PATH`.
    NotInPath,
    /// No file at that path.
    NotFound,
    /// The file is there, but not the interpreter or loader it names.
    NoInterpreter,
    /// The user may not execute the file.
    PermissionDenied,
    /// A directory.
    IsDirectory,
    /// Neither a binary of this machine nor a script.
    ExecFormat,
}

impl fmt::Display for Unrunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unrunnable::NotInPath => "executable file not found in $PATH",
            Unrunnable::NotFound => "no such file or directory",
            Unrunnable::NoInterpreter => "no such file or directory (the interpreter it names is missing)",
            Unrunnable::PermissionDenied => "permission denied",
            Unrunnable::IsDirectory => "is a directory",
            Unrunnable::ExecFormat => "exec format error",
        })
    }
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Self::Invalid { step: Step::Process, reason: injected.to_string() }
    }
}

/// Why a container, an exec or a pod could not be made. `source()` is the errno where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// A value that can never work: the caller's fault.
    #[error("{step}: {reason}")]
    Invalid {
        /// The step that found it.
        step: Step,
        /// Field, value and reason.
        reason: String,
    },
    /// A feature that is not implemented; never ignored silently.
    #[error("{0} not supported yet")]
    Unsupported(String),
    /// A system call failed.
    #[error("{step}: {what}: {cause}")]
    Os {
        /// The step it belongs to.
        step: Step,
        /// The attempted action, with its arguments.
        what: String,
        /// Its errno.
        #[source]
        cause: Errno,
    },
    /// The command cannot be run.
    #[error("exec: {command:?}: {problem}")]
    Command {
        /// The first argument.
        command: String,
        /// Why.
        problem: Unrunnable,
    },
    /// A hook failed, and with it the operation it belongs to.
    #[error("{when} hook {path}: {problem}")]
    Hook {
        /// The moment, as the OCI specification calls it.
        when: String,
        /// The program.
        path: String,
        /// How it ended and what it printed, or why it could not be run.
        problem: String,
    },
    /// The operation was given up, and its processes were killed.
    #[error("given up while it waited to {what}")]
    Stuck {
        /// The step at that time, a verb phrase with its arguments.
        what: String,
    },
    /// The process that was setting things up died without a report.
    #[error("{step}: the init process died without a word")]
    Died {
        /// The step it was to do.
        step: Step,
    },
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        Errno(error.raw_os_error())
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Errno(error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error()))
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(error: nix::errno::Errno) -> Self {
        Errno(error as i32)
    }
}

impl From<crate::cgroup::Error> for Error {
    fn from(error: crate::cgroup::Error) -> Self {
        Error::Os {
            step: Step::Cgroup,
            what: format!("{} {}", error.action, error.path.display()),
            cause: error.source.into(),
        }
    }
}

impl From<crate::seccomp::Error> for Error {
    fn from(error: crate::seccomp::Error) -> Self {
        Error::invalid(Step::Seccomp, error.to_string())
    }
}

impl Error {
    /// Shortens the quoted values so that the error fits into a report: a bundle may contain values of any length.
    pub(super) fn shortened(mut self) -> Self {
        match &mut self {
            Error::Invalid { reason: text, .. }
            | Error::Unsupported(text)
            | Error::Os { what: text, .. }
            | Error::Command { command: text, .. }
            | Error::Stuck { what: text } => shorten(text),
            Error::Hook { path, problem, .. } => [path, problem].into_iter().for_each(shorten),
            Error::Died { .. } => {}
        }
        self
    }

    /// A value that can never work.
    pub(super) fn invalid(step: Step, reason: impl Into<String>) -> Self {
        Error::Invalid { step, reason: reason.into() }
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
        text.truncate(end);
        text.push_str(" ...");
    }
}

/// Adds the step and the attempted action to a kernel error.
pub(super) trait At<T> {
    /// `what` is evaluated only on error.
    fn at(self, step: Step, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<Errno>> At<T> for Result<T, E> {
    fn at(self, step: Step, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Os { step, what: what(), cause: error.into() })
    }
}
