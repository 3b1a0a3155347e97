//! One container: its first process, its execs, its cgroup and its streams.
//!
//! ```text
//!   create            start (execve)            pause
//! ----------> Created --------------> Running <-------> Paused
//!                | killed, or           |       resume     |
//!                | execve failed        | ended            | killed
//!                v                      v                  v
//!             Stopped <-----------------+------------------+
//!                | delete
//!                v
//!             (forgotten)
//! ```
//! State changes of a container are serialised by its `transition_lock`; those of different containers run side by side.
//! Signals and queries do not take it. Only the watcher task moves a container to Stopped: it reaps the first process,
//! kills the remaining ones, closes the log, writes the exit record, and only then announces the end.

mod end;

use crate::cgroup::{self, Cgroup};
use crate::error::{Error, error_line};
use crate::events::Events;
use crate::exec::Exec;
use crate::exit::{Exit, now};
use crate::init::{self, Created, LaterHooks, Moment, StartBarrier};
use crate::orphans::Orphans;
use crate::process::{ChildProcess, KILL};
use crate::shim_log::note;
use crate::spec::Resources;
use crate::stdio::cri_log::CriLog;
use crate::stdio::{Pumps, ShimStdio};
use berth_failpoint::killpoint;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Time for the cgroup freezer: a process that waits in the kernel for a dead file system never freezes.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2);

/// Stream paths and terminal flag of a container or an exec, kept for State calls.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct StdioConfig {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// State shared by everything in a shim.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ShimContext {
    pub orphans: Arc<Orphans>,
    pub events: Events,
}

/// State of a container, for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Created,
    Running,
    Paused,
    Stopped(Exit),
}

#[derive(Debug)]
enum State {
    /// `None` once starting has begun.
    Created(Option<StartBarrier>),
    Running,
    Paused,
    Stopped(Exit),
}

/// Id, bundle and streams of a container.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Identity {
    pub id: String,
    pub bundle: PathBuf,
    pub stdio_config: StdioConfig,
}

/// A container that was created and not yet deleted.
#[derive(Debug)]
pub struct Container {
    identity: Identity,
    process: ChildProcess,
    cgroup: Cgroup,
    hooks: LaterHooks,
    context: ShimContext,
    transition_lock: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    given_up: watch::Sender<bool>,
    /// Whether a task is already waiting to remove the cgroup.
    cgroup_removal_queued: AtomicBool,
    /// Whether an OOM kill was announced.
    oom_announced: AtomicBool,
    ended: watch::Sender<Option<Exit>>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    started_at: i64,
    start_failure: String,
    log: Option<Arc<CriLog>>,
    pumps: Option<Pumps>,
    execs: HashMap<String, Arc<Exec>>,
}

impl Container {
    /// Takes over the result of [`crate::init::create`] and watches it from now on.
    pub fn adopt(
        identity: Identity,
        shim_stdio: ShimStdio,
        created: Created,
        context: ShimContext,
    ) -> io::Result<Arc<Self>> {
        let pumps = shim_stdio.start(created.console)?;
        let inner = Inner {
            state: State::Created(Some(created.barrier)),
            started_at: 0,
            start_failure: String::new(),
            log: pumps.log(),
            pumps: Some(pumps),
            execs: HashMap::new(),
        };
        let container = Arc::new(Self {
            identity,
            process: ChildProcess::new(created.pid, created.pidfd, &context.orphans)?,
            cgroup: created.cgroup,
            hooks: created.later_hooks,
            context,
            transition_lock: tokio::sync::Mutex::default(),
            inner: Mutex::new(inner),
            given_up: watch::Sender::new(false),
            cgroup_removal_queued: AtomicBool::new(false),
            oom_announced: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        });
        tokio::spawn(Arc::clone(&container).watch());
        container.watch_oom();
        Ok(container)
    }

    /// Id, bundle and streams.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.identity.id
    }

    /// Host pid of the first process, for display only.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The first process.
    pub fn process(&self) -> &ChildProcess {
        &self.process
    }

    /// The control group.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// State shared with the rest of the shim.
    pub fn context(&self) -> &ShimContext {
        &self.context
    }

    /// Time of execve in nanoseconds since the Unix epoch; 0 before.
    pub fn started_at(&self) -> i64 {
        self.inner().started_at
    }

    /// The current state.
    pub fn phase(&self) -> Phase {
        match &self.inner().state {
            State::Created(_) => Phase::Created,
            State::Running => Phase::Running,
            State::Paused => Phase::Paused,
            State::Stopped(exit) => Phase::Stopped(exit.clone()),
        }
    }

    /// Waits for the end: all processes are dead (unless given up), the log is closed, the exit record is written.
    pub async fn wait(&self) -> Exit {
        wait_for_exit(&self.ended).await
    }

    /// Lets the first process execute its command. Returns its host pid.
    pub async fn start(&self) -> Result<u32, Error> {
        let _transition = self.transition_lock.lock().await;
        let barrier = self.take_start_barrier()?;
        // Giving up must stop this wait: execve may hang on a file system that does not answer, and the watcher needs
        // the lock.
        let started = tokio::select! {
            started = barrier.start() => started,
            () = self.until_given_up() => Err(init::Error::Stuck { what: "execute its command".into() }),
        };
        if let Err(source) = started {
            self.inner().start_failure = error_line(&source);
            return Err(Error::Init { doing: "start", id: self.id().to_owned(), source });
        }
        killpoint!(CONTAINER_EXECUTED);
        {
            let mut inner = self.inner();
            inner.state = State::Running;
            inner.started_at = now();
        }
        if self.hooks.poststart {
            self.poststart().await?;
        }
        Ok(self.pid())
    }

    /// Runs the poststart hooks. If one fails, the container is killed and start fails. The end of the container also
    /// ends the wait for a hook that never returns.
    async fn poststart(&self) -> Result<(), Error> {
        let moment = Moment::Poststart(self.pid());
        let run = tokio::select! {
            run = init::run_hooks(self.id(), &self.identity.bundle, moment) => run,
            () = self.process.ended() => return Ok(()),
            () = self.until_given_up() => return Ok(()),
        };
        let Err(source) = run else { return Ok(()) };
        self.inner().start_failure = error_line(&source);
        if let Err(error) = self.kill(KILL, true) {
            note(format_args!("end {} after its hook failed: {}", self.id(), error_line(&error)));
        }
        Err(Error::Init { doing: "start", id: self.id().to_owned(), source })
    }

    fn take_start_barrier(&self) -> Result<StartBarrier, Error> {
        let barrier = match &mut self.inner().state {
            State::Created(barrier) => barrier.take(),
            _ => None,
        };
        barrier.ok_or_else(|| self.wrong_state("start"))
    }

    /// Signals the first process, or with `all` every process in the cgroup.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        if let Phase::Stopped(_) = self.phase() {
            return Err(Error::NotFound { what: "process of container", id: self.id().to_owned() });
        }
        let others = if all { self.kill_all(signal) } else { Ok(()) };
        // Always, even if signalling the others failed: a PID namespace ends with its first process.
        self.process.signal(signal).map_err(|source| self.io("signal", source))?;
        if signal == KILL && self.phase() == Phase::Paused {
            // The v1 freezer does not let a frozen process die, even of SIGKILL.
            self.cgroup.thaw().map_err(|source| self.cgroup_error("thaw", source))?;
        }
        others
    }

    fn kill_all(&self, signal: i32) -> Result<(), Error> {
        if signal == KILL {
            return self.cgroup.kill().map_err(|source| self.cgroup_error("kill", source));
        }
        let others = |pid| pid != self.pid();
        self.cgroup.signal(signal, &others).map_err(|source| self.cgroup_error("signal", source))
    }

    /// Host pids of all processes in the cgroup.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        self.cgroup.procs().map_err(|source| self.cgroup_error("list processes of", source))
    }

    /// Freezes all processes. Fails unless the container runs.
    pub async fn pause(&self) -> Result<(), Error> {
        let _transition = self.transition_lock.lock().await;
        if self.phase() != Phase::Running {
            return Err(self.wrong_state("pause"));
        }
        self.cgroup.freeze(FREEZE_TIMEOUT).await.map_err(|source| self.cgroup_error("pause", source))?;
        self.inner().state = State::Paused;
        Ok(())
    }

    /// Thaws all processes. Fails unless the container is paused.
    pub async fn resume(&self) -> Result<(), Error> {
        let _transition = self.transition_lock.lock().await;
        if self.phase() != Phase::Paused {
            return Err(self.wrong_state("resume"));
        }
        self.cgroup.thaw().map_err(|source| self.cgroup_error("resume", source))?;
        self.inner().state = State::Running;
        Ok(())
    }

    /// Changes the limits, all of them or none; absent ones stay.
    pub async fn update(&self, resources: &Resources) -> Result<(), Error> {
        let _transition = self.transition_lock.lock().await;
        if let Phase::Stopped(_) = self.phase() {
            return Err(self.wrong_state("update"));
        }
        let changed = init::update(&self.cgroup, resources).await;
        changed.map_err(|source| Error::Init { doing: "update", id: self.id().to_owned(), source })
    }

    /// Reopens the log file. Fails for a container without a CRI log.
    pub fn reopen_log(&self) -> Result<(), Error> {
        let Some(log) = self.inner().log.clone() else {
            return Err(self.precondition_error("reopen the log of", "without one, or stopped"));
        };
        log.reopen().map_err(|source| self.io("reopen the log of", source))
    }

    /// Copies output from now on to FIFOs, which must have readers, until the container ends or a reader closes. An
    /// empty path means no copy.
    pub fn attach(&self, stdout: &str, stderr: &str) -> Result<(), Error> {
        self.must_run("attach to")?;
        let inner = self.inner();
        let Some(pumps) = &inner.pumps else {
            return Err(self.precondition_error("attach to", "stopped"));
        };
        let attached = pumps.attach(stdout, stderr);
        attached.map_err(|source| Error::Streams { id: self.id().to_owned(), source })
    }

    /// Closes stdin.
    pub fn close_stdin(&self) {
        if let Some(pumps) = &self.inner().pumps {
            pumps.close_stdin();
        }
    }

    /// Sets the size of the terminal in characters.
    pub fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        let resized = self.inner().pumps.as_ref().map(|pumps| pumps.resize(width, height));
        resized.ok_or_else(|| self.wrong_state("resize"))?.map_err(|source| self.io("resize", source))
    }

    /// Fails unless the container runs.
    pub fn must_run(&self, doing: &'static str) -> Result<(), Error> {
        if self.phase() == Phase::Running { Ok(()) } else { Err(self.wrong_state(doing)) }
    }

    /// Registers an exec. Fails if its id is taken.
    pub fn add_exec(&self, exec: Exec) -> Result<(), Error> {
        let id = exec.id().to_owned();
        let execs = &mut self.inner().execs;
        if execs.contains_key(&id) {
            return Err(Error::AlreadyExists { what: "exec", id });
        }
        execs.insert(id, Arc::new(exec));
        Ok(())
    }

    /// Returns an exec by id.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        self.inner().execs.get(id).cloned().ok_or_else(|| Error::no_exec(id))
    }

    /// Forgets an exec.
    pub fn remove_exec(&self, id: &str) {
        self.inner().execs.remove(id);
    }

    /// Prepares deletion: kills a container that was never started, and fails for one that runs. Returns how it ended.
    pub async fn prepare_delete(&self) -> Result<Exit, Error> {
        let exit = match self.phase() {
            Phase::Stopped(exit) => exit,
            // The process has ended, but its output is still being copied.
            _ if self.process.has_ended() => self.wait().await,
            Phase::Created => {
                self.kill(KILL, true)?;
                self.wait().await
            }
            Phase::Running | Phase::Paused => return Err(self.wrong_state("delete")),
        };
        // The poststop hooks run under this lock and need the bundle, which is deleted next.
        let _transition = self.transition_lock.lock().await;
        Ok(exit)
    }

    fn wrong_state(&self, doing: &'static str) -> Error {
        let state = match self.phase() {
            Phase::Created => "created, or failed to start",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Stopped(_) => "stopped",
        };
        self.precondition_error(doing, state)
    }

    fn precondition_error(&self, doing: &'static str, state: &'static str) -> Error {
        Error::Precondition { doing, id: self.id().to_owned(), state }
    }

    fn cgroup_error(&self, doing: &'static str, source: cgroup::Error) -> Error {
        Error::Cgroup { doing, id: self.id().to_owned(), source }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Io { doing, id: self.id().to_owned(), source }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a process to be announced.
pub(crate) async fn wait_for_exit(ended: &watch::Sender<Option<Exit>>) -> Exit {
    let mut ended = ended.subscribe();
    match ended.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or_default(),
        Err(_) => Exit::default(),
    }
}
