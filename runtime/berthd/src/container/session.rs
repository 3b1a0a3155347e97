//! A client's session with a process: with a command that was run for it, or with a container.

use std::sync::Arc;

use tokio::{net::unix::pipe, sync::watch};
use tokio_util::sync::DropGuard;

use super::{Container, ContainerState};
use crate::{
    error::{Error, Kind, Result},
    runtime::Shared,
    shim::Exec,
    table::Entry,
};

/// The streams that a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedStreams {
    /// The client writes the process's input.
    pub stdin: bool,
    /// The client reads the process's output.
    pub stdout: bool,
    /// The client reads the process's errors. With a terminal there are none: all output is `stdout`.
    pub stderr: bool,
    /// A command gets a terminal. Whether a container has one was decided when it was created.
    pub tty: bool,
}

/// The streams that were asked for and exist, and the control of their process.
#[derive(Debug)]
pub struct Session {
    /// Input of the process. Dropping it ends a command's input once everything written has been passed on, except with
    /// a terminal, where ^D ends input. A write fails when the process has closed its input.
    pub stdin: Option<pipe::Sender>,
    /// Ends when the process has printed its last byte. A command blocks while the client does not read.
    pub stdout: Option<pipe::Receiver>,
    /// Errors of the process, likewise.
    pub stderr: Option<pipe::Receiver>,
    /// Control of the process.
    pub control: Control,
}

/// Control of the process of a session. Dropping it kills a command that still runs; a container runs on.
#[derive(Debug)]
pub struct Control(pub(super) SessionProcess);

/// The process that a session is connected to.
pub(super) enum SessionProcess {
    /// A command, which ends with the session.
    Command {
        exec: Exec,
        /// Result of the command, once it has ended.
        end: watch::Receiver<Option<Result<i32>>>,
        /// Kills the command when dropped.
        _wanted: DropGuard,
    },
    /// A container.
    Container { shared: Arc<Shared>, entry: Arc<Entry<Container>> },
}

impl Control {
    /// Sets the size of the terminal in characters. Succeeds when the process has just ended.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let resized = match &self.0 {
            SessionProcess::Command { exec, .. } => exec.resize(width, height).await,
            SessionProcess::Container { shared, entry } => {
                let container = entry.get();
                shared.shim_of(&container.pod_id).await?.resize(&container.id, width, height).await
            }
        };
        match resized {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::FailedPrecondition) => Ok(()),
            resized => resized,
        }
    }

    /// Waits for the process's end and returns its exit code. All its output is in the streams by then; a caller that
    /// needs all of it reads them to their end first.
    ///
    /// # Errors
    ///
    /// For a command: `Unavailable` when the shim died, so that its end is unknown.
    pub async fn ended(&self) -> Result<i32> {
        match &self.0 {
            SessionProcess::Command { end, .. } => {
                let mut end = end.clone();
                match end.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(end)) => end.clone(),
                    _ => Err(Error::new(Kind::Internal, "wait for a command: nobody watches it")),
                }
            }
            SessionProcess::Container { entry, .. } => {
                let ended = entry.wait_for(|container| container.state.is_exited()).await;
                match ended.state {
                    ContainerState::Exited { code, .. } => Ok(code),
                    _ => Err(Error::new(Kind::Internal, "wait for a container: nobody watches it")),
                }
            }
        }
    }
}

impl std::fmt::Debug for SessionProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Command { .. } => "Command",
            Self::Container { .. } => "Container",
        })
    }
}
