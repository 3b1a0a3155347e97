//! Errors of the services, and the code each one has on the wire.

use crate::{cgroup, init, stdio};
use std::io;
use ttrpc::{Code, get_status};

/// Why a request failed. Codes: see [`Error::code`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `what` names the kind of object: `container`, `process of exec` and so on.
    #[error("{what} {id} not found")]
    #[allow(missing_docs)]
    NotFound { what: &'static str, id: String },
    /// The id is taken.
    #[error("{what} {id} already exists")]
    #[allow(missing_docs)]
    AlreadyExists { what: &'static str, id: String },
    /// The request does not fit the current state.
    #[error("cannot {doing} {id}: it is {state}")]
    #[allow(missing_docs)]
    Precondition { doing: &'static str, id: String, state: &'static str },
    /// A value that can never work.
    #[error("{field}: {reason}")]
    #[allow(missing_docs)]
    Invalid { field: &'static str, reason: String },
    /// Not implemented.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A step on the way to execve failed.
    #[error("{doing} {id}: {source}")]
    #[allow(missing_docs)]
    Init { doing: &'static str, id: String, source: init::Error },
    /// A cgroup operation failed.
    #[error("{doing} {id}: {source}")]
    #[allow(missing_docs)]
    Cgroup { doing: &'static str, id: String, source: cgroup::Error },
    /// A stream could not be opened.
    #[error("streams of {id}: {source}")]
    #[allow(missing_docs)]
    Streams { id: String, source: stdio::OpenError },
    /// Another system call failed.
    #[error("{doing} {id}: {source}")]
    #[allow(missing_docs)]
    Io { doing: &'static str, id: String, source: io::Error },
    /// A foreign shim answered with an error.
    #[error("{doing} {id}: {}", said(answer))]
    #[allow(missing_docs)]
    Foreign { doing: &'static str, id: String, answer: ttrpc::Error },
    /// The handler of a foreign shim cannot be used.
    #[error("{0}")]
    Handler(String),
    /// A time limit was exceeded.
    #[error("{0} takes too long")]
    TooLong(String),
    /// The shim is exiting.
    #[error("the shim is shutting down")]
    Closing,
}

impl Error {
    /// No container of that id.
    pub fn no_container(id: &str) -> Self {
        Self::NotFound { what: "container", id: id.to_owned() }
    }

    /// No process of that exec id.
    pub fn no_exec(id: &str) -> Self {
        Self::NotFound { what: "exec", id: id.to_owned() }
    }

    /// The code on the wire.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NOT_FOUND,
            Self::AlreadyExists { .. } => Code::ALREADY_EXISTS,
            Self::Precondition { .. } => Code::FAILED_PRECONDITION,
            Self::Invalid { .. } => Code::INVALID_ARGUMENT,
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            Self::Init { source, .. } => init_code(source),
            Self::Streams { source, .. } => io_code(source.kind()),
            Self::Foreign { answer, .. } => crate::foreign::code(answer),
            Self::Io { source, .. } => os_code(source.raw_os_error()),
            Self::Cgroup { source, .. } => os_code(source.source.raw_os_error()),
            Self::Handler(_) => Code::INTERNAL,
            Self::TooLong(_) => Code::DEADLINE_EXCEEDED,
            Self::Closing => Code::UNAVAILABLE,
        }
    }
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Self::Io { doing: "let fail", id: String::new(), source: injected.into() }
    }
}

/// The message of another shim's answer, without the text that ttrpc adds.
fn said(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn init_code(error: &init::Error) -> Code {
    match error {
        init::Error::Invalid { .. } | init::Error::Command { .. } => Code::INVALID_ARGUMENT,
        init::Error::Unsupported(_) => Code::UNIMPLEMENTED,
        init::Error::Stuck { .. } => Code::DEADLINE_EXCEEDED,
        init::Error::Os { cause, .. } => os_code(Some(cause.0)),
        _ => Code::INTERNAL,
    }
}

/// Exhausted resources have a code of their own: the same request may succeed later.
fn os_code(errno: Option<i32>) -> Code {
    match errno {
        Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
            Code::RESOURCE_EXHAUSTED
        }
        _ => Code::INTERNAL,
    }
}

fn io_code(kind: io::ErrorKind) -> Code {
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => {
            Code::INVALID_ARGUMENT
        }
        _ => Code::INTERNAL,
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(get_status(error.code(), error_line(&error)))
    }
}

impl From<stdio::uri::Invalid> for Error {
    fn from(invalid: stdio::uri::Invalid) -> Self {
        Self::Invalid { field: "stdio", reason: invalid.to_string() }
    }
}

/// Formats an error with its causes, each once.
pub fn error_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_names_the_thing_and_has_its_code() {
        let id = || "c1".to_owned();
        let command = init::Error::Command { command: "nosuch".into(), problem: init::Unrunnable::NotInPath };
        for (error, code) in [
            (Error::no_container("c1"), Code::NOT_FOUND),
            (Error::AlreadyExists { what: "exec", id: id() }, Code::ALREADY_EXISTS),
            (Error::Precondition { doing: "start", id: id(), state: "running" }, Code::FAILED_PRECONDITION),
            (Error::Init { doing: "start", id: id(), source: command }, Code::INVALID_ARGUMENT),
            (Error::Io { doing: "signal", id: id(), source: io::ErrorKind::Other.into() }, Code::INTERNAL),
            (
                Error::Io { doing: "watch", id: id(), source: io::Error::from_raw_os_error(libc::ENOSPC) },
                Code::RESOURCE_EXHAUSTED,
            ),
        ] {
            let text = error.to_string();
            assert!(text.contains("c1"), "{text}");
            assert_eq!(error.code(), code, "{text}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        let text = cause.to_string();
        let line = error_line(&Error::Io { doing: "write", id: "c1".into(), source: cause });
        assert_eq!(line.matches(&text).count(), 1, "{line}");
    }

    #[test]
    fn what_a_foreign_shim_answers_is_told_once_and_without_the_protocols_words() {
        let answer = ttrpc::Error::RpcStatus(get_status(Code::UNKNOWN, "runc failed"));
        let line = error_line(&Error::Foreign { doing: "start container", id: "c1".into(), answer });
        assert_eq!(line, "start container c1: runc failed");
    }
}
