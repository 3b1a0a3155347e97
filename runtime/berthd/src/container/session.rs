//! Someone at the streams of a process: of a command run for them, or of a container that runs anyway.

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

/// Which streams someone wants to be at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What they write is what the process reads.
    pub stdin: bool,
    /// They read what it prints.
    pub stdout: bool,
    /// They read its errors. A process with a terminal has none: all it prints is `stdout`.
    pub stderr: bool,
    /// A command gets a terminal. Whether a container has one was decided when it was created.
    pub tty: bool,
}

/// The streams that were wanted and that there are, and a hand on the process behind them.
#[derive(Debug)]
pub struct Session {
    /// Dropping it ends a command's input once everything that was written has been passed on, unless it has a
    /// terminal: that goes on, and ends input by a character (^D). A write fails when the process reads no more.
    pub stdin: Option<pipe::Sender>,
    /// Ends when the process has printed its last byte. A command waits for whoever does not read.
    pub stdout: Option<pipe::Receiver>,
    /// The same for errors.
    pub stderr: Option<pipe::Receiver>,
    /// The process.
    pub control: Control,
}

/// A hand on the process of a session. Dropped, it ends a command that still runs; a container goes on.
#[derive(Debug)]
pub struct Control(pub(super) Process);

/// Whose streams they are.
pub(super) enum Process {
    /// A command's, which ends with the session.
    Command {
        exec: Exec,
        /// How it ended, once it has.
        end: watch::Receiver<Option<Result<i32>>>,
        /// Dropped, it ends the command.
        _wanted: DropGuard,
    },
    /// A container's.
    Container { shared: Arc<Shared>, entry: Arc<Entry<Container>> },
}

impl Control {
    /// Sets the size of the terminal in characters. One that is about to go has no size any more, which is fine.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let resized = match &self.0 {
            Process::Command { exec, .. } => exec.resize(width, height).await,
            Process::Container { shared, entry } => {
                let container = entry.get();
                shared.shim_of(&container.pod_id).await?.resize(&container.id, width, height).await
            }
        };
        match resized {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::FailedPrecondition) => Ok(()),
            resized => resized,
        }
    }

    /// Waits for the process's end and returns its exit code. What it printed is in the streams by then; whoever
    /// wants all of it reads them to their end first.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the shim died, so that nobody knows.
    pub async fn ended(&self) -> Result<i32> {
        match &self.0 {
            Process::Command { end, .. } => {
                let mut end = end.clone();
                match end.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(end)) => end.clone(),
                    _ => Err(Error::new(Kind::Internal, "wait for a command: nobody watches it")),
                }
            }
            Process::Container { entry, .. } => {
                let ended = entry.when(|container| container.state.is_exited()).await;
                match ended.state {
                    ContainerState::Exited { code, .. } => Ok(code),
                    _ => Err(Error::new(Kind::Internal, "wait for a container: nobody watches it")),
                }
            }
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Command { .. } => "Command",
            Self::Container { .. } => "Container",
        })
    }
}
