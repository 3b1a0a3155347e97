//! Further processes in a running container, by containerd's two calls: Exec registers one, Start starts it.
//!
//! ```text
//! exec            start                      ended            read to the end
//! -----> Added ----------> Starting --> Running ----> Ended -----------------> Stopped
//!          ^                  | failed
//!          +------------------+
//! ```

use crate::container::{Container, StdioConfig, wait_for_exit};
use crate::descendants::kill_with_descendants;
use crate::error::Error;
use crate::exit::Exit;
use crate::init::{self, ExecProcess, ExecRequest, Execed, Stdio};
use crate::process::{ChildProcess, KILL};
use crate::stdio::{Pumps, ReaderPolicy, Streams, connect};
use berth_failpoint::failpoint;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// No wait: the exec's own output is in the pipe by its end, and output of children it left behind is not awaited.
const STREAM_DRAIN_TIMEOUT: Duration = Duration::ZERO;

/// An exec: registered, running or ended.
#[derive(Debug)]
pub struct Exec {
    id: String,
    stdio_config: StdioConfig,
    streams: Streams,
    spec: Vec<u8>,
    inner: Mutex<Inner>,
    ended: watch::Sender<Option<Exit>>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    pumps: Option<Pumps>,
    /// Width and height set before the terminal existed.
    size: Option<(u16, u16)>,
}

#[derive(Debug)]
enum State {
    Added,
    Starting,
    Running(Arc<ChildProcess>),
    /// The process has ended; its last output is still being copied.
    Ended {
        pid: u32,
    },
    Stopped {
        pid: u32,
        exit: Exit,
    },
}

/// State of an exec, for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Added,
    /// `pid` is 0 while it is being started.
    Running {
        pid: u32,
    },
    Stopped {
        pid: u32,
        exit: Exit,
    },
}

impl Exec {
    /// Registers an exec; `spec` is the JSON of an OCI process. Fails if the stream URIs are malformed.
    pub fn new(id: String, stdio_config: StdioConfig, spec: Vec<u8>) -> Result<Self, Error> {
        let streams = Streams::parse(
            &stdio_config.stdin,
            &stdio_config.stdout,
            &stdio_config.stderr,
            stdio_config.terminal,
        )?;
        let streams = streams.with_reader_policy(ReaderPolicy::BreakPipe);
        let inner = Mutex::new(Inner { state: State::Added, pumps: None, size: None });
        Ok(Self { id, stdio_config, streams, spec, inner, ended: watch::Sender::new(None) })
    }

    /// Id, unique in its container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Stream paths and terminal flag.
    pub fn stdio_config(&self) -> &StdioConfig {
        &self.stdio_config
    }

    /// The current state.
    pub fn phase(&self) -> Phase {
        match &self.inner().state {
            State::Added => Phase::Added,
            State::Starting => Phase::Running { pid: 0 },
            State::Running(process) => Phase::Running { pid: process.pid() },
            State::Ended { pid } => Phase::Running { pid: *pid },
            State::Stopped { pid, exit } => Phase::Stopped { pid: *pid, exit: exit.clone() },
        }
    }

    /// Waits for the end, also of an exec that is not started yet.
    pub async fn wait(&self) -> Exit {
        wait_for_exit(&self.ended).await
    }

    /// Starts it in its container. Returns its host pid.
    pub async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<u32, Error> {
        container.must_run("exec in")?;
        self.begin()?;
        match self.spawn(container).await {
            Ok(process) => {
                let pid = process.pid();
                tokio::spawn(Arc::clone(self).watch(process, Arc::clone(container)));
                Ok(pid)
            }
            Err(error) => {
                self.inner().state = State::Added;
                Err(error)
            }
        }
    }

    fn begin(&self) -> Result<(), Error> {
        let state = &mut self.inner().state;
        if !matches!(state, State::Added) {
            return Err(Error::Precondition {
                doing: "start",
                id: self.id.clone(),
                state: "started already",
            });
        }
        *state = State::Starting;
        Ok(())
    }

    async fn spawn(&self, container: &Container) -> Result<Arc<ChildProcess>, Error> {
        let (stdio, shim_stdio) =
            connect(&self.streams).map_err(|source| Error::Streams { id: self.id.clone(), source })?;
        let what = ExecProcess::Spec(&self.spec);
        let (process, console) = spawn(container, what, self.stdio_config.terminal, stdio).await?;
        let pumps = shim_stdio.start(console).map_err(|source| self.io("pump the streams of", source));
        if pumps.is_err() {
            process.signal(KILL).map_err(|source| self.io("signal", source))?;
        }
        let process = Arc::new(process);
        let mut inner = self.inner();
        inner.state = State::Running(Arc::clone(&process));
        inner.pumps = pumps.ok();
        if let (Some(pumps), Some((width, height))) = (&inner.pumps, inner.size) {
            // A wrong terminal size is no reason to fail.
            drop(pumps.resize(width, height));
        }
        Ok(process)
    }

    async fn watch(self: Arc<Self>, process: Arc<ChildProcess>, container: Arc<Container>) {
        let exit = process.reap().await;
        let pid = process.pid();
        let context = container.context();
        let pumps = {
            let mut inner = self.inner();
            inner.state = State::Ended { pid };
            inner.pumps.take()
        };
        if let Some(pumps) = pumps {
            pumps.finish(STREAM_DRAIN_TIMEOUT).await;
        }
        self.inner().state = State::Stopped { pid, exit: exit.clone() };
        context.events.exit(container.id(), &self.id, pid, &exit);
        self.ended.send_replace(Some(exit));
    }

    /// Signals it; SIGKILL with `all` also kills its descendants.
    pub fn kill(&self, container: &Container, signal: i32, all: bool) -> Result<(), Error> {
        let signalled = |result: io::Result<()>| result.map_err(|source| self.io("signal", source));
        match &self.inner().state {
            State::Running(process) if all && signal == KILL => signalled(kill(container, process)),
            State::Running(process) => signalled(process.signal(signal)),
            State::Ended { .. } | State::Stopped { .. } => {
                Err(Error::NotFound { what: "process of exec", id: self.id.clone() })
            }
            State::Added | State::Starting => {
                Err(Error::Precondition { doing: "kill", id: self.id.clone(), state: "not started" })
            }
        }
    }

    /// Closes stdin.
    pub fn close_stdin(&self) {
        if let Some(pumps) = &self.inner().pumps {
            pumps.close_stdin();
        }
    }

    /// Sets the size of the terminal; before start, the size is kept for later.
    pub fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        let mut inner = self.inner();
        inner.size = Some((width, height));
        match &inner.pumps {
            Some(pumps) => pumps.resize(width, height).map_err(|source| self.io("resize", source)),
            None => Ok(()),
        }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Io { doing, id: self.id.clone(), source }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a process in a container and keeps the reaper of orphans away from it. The caller waits for its end.
pub(crate) async fn spawn(
    container: &Container,
    process: ExecProcess<'_>,
    terminal: bool,
    stdio: Stdio,
) -> Result<(ChildProcess, Option<std::os::fd::OwnedFd>), Error> {
    let _creation = container.context().orphans.creation();
    let request = ExecRequest {
        id: container.id(),
        bundle: &container.identity().bundle,
        container: container.process().as_fd(),
        container_pid: container.pid(),
        process,
        terminal,
        stdio,
        cgroup: container.cgroup(),
    };
    let fail = |source| Error::Init { doing: "exec in", id: container.id().to_owned(), source };
    let Execed { pid, pidfd, console } = init::exec(request).await.map_err(fail)?;
    failpoint!(EXEC_SPAWNED)?;
    let process = ChildProcess::new(pid, pidfd, &container.context().orphans);
    let process = process.map_err(|source| Error::Io {
        doing: "watch a process of",
        id: container.id().to_owned(),
        source,
    })?;
    Ok((process, console))
}

/// Kills a process made by [`spawn`], and its descendants.
pub(crate) fn kill(container: &Container, process: &ChildProcess) -> io::Result<()> {
    let pids = || container.cgroup().procs().map_err(|error| error.source);
    let others = kill_with_descendants(process.pid(), &pids);
    // The process itself is killed even if the cgroup could not be listed.
    process.signal(KILL).and(others)
}
