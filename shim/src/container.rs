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
//! Whoever changes the state holds the container's turn, so changes of one container happen one after the other and those of
//! different containers side by side. Signals and questions need no turn. The way to Stopped is the watcher's alone:
//! it reaps, kills what is left, closes the log, writes the exit record, and only then tells anyone.

mod end;

use crate::cgroup::{self, Cgroup};
use crate::error::{Error, error_line};
use crate::events::Events;
use crate::exec::Exec;
use crate::exit::{Exit, now};
use crate::init::{self, Created, LaterHooks, Moment, StartGate};
use crate::orphans::Orphans;
use crate::process::{KILL, Process};
use crate::shim_log::note;
use crate::spec::Resources;
use crate::stdio::cri_log::CriLog;
use crate::stdio::{Outside, Pumps};
use berth_failpoint::killpoint;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long processes may take to stand still: one that waits for a dead file system takes for ever.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// What a container or an exec was asked to be, for those who ask back.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Names {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// What everything in a shim shares.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Surroundings {
    pub orphans: Arc<Orphans>,
    pub events: Events,
}

/// Where in its life a container is, for those who ask.
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
    /// The gate is taken when starting begins.
    Created(Option<StartGate>),
    Running,
    Paused,
    Stopped(Exit),
}

/// What a container was asked to be.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Identity {
    pub id: String,
    pub bundle: PathBuf,
    pub names: Names,
}

/// A container that was created and not yet deleted.
#[derive(Debug)]
pub struct Container {
    identity: Identity,
    process: Process,
    cgroup: Cgroup,
    hooks: LaterHooks,
    surroundings: Surroundings,
    turn: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    given_up: watch::Sender<bool>,
    /// Whether somebody waits already for the group to be left.
    leaving: AtomicBool,
    /// Whether it was told that something in it was killed for lack of memory.
    oom_told: AtomicBool,
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
    /// Takes over what [`crate::init::create`] made, and watches it from now on.
    pub fn adopt(
        identity: Identity,
        outside: Outside,
        created: Created,
        surroundings: Surroundings,
    ) -> io::Result<Arc<Self>> {
        let pumps = outside.start(created.console)?;
        let inner = Inner {
            state: State::Created(Some(created.gate)),
            started_at: 0,
            start_failure: String::new(),
            log: pumps.log(),
            pumps: Some(pumps),
            execs: HashMap::new(),
        };
        let container = Arc::new(Self {
            identity,
            process: Process::new(created.pid, created.pidfd, &surroundings.orphans)?,
            cgroup: created.cgroup,
            hooks: created.later,
            surroundings,
            turn: tokio::sync::Mutex::default(),
            inner: Mutex::new(inner),
            given_up: watch::Sender::new(false),
            leaving: AtomicBool::new(false),
            oom_told: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        });
        tokio::spawn(Arc::clone(&container).watch());
        container.listen_for_oom();
        Ok(container)
    }

    /// What it was asked to be.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.identity.id
    }

    /// Host pid of its first process; a number to show.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its first process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its control group.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// What it shares with the rest of the shim.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// When execve happened, in nanoseconds since the Unix epoch; 0 before.
    pub fn started_at(&self) -> i64 {
        self.inner().started_at
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        match &self.inner().state {
            State::Created(_) => Phase::Created,
            State::Running => Phase::Running,
            State::Paused => Phase::Paused,
            State::Stopped(exit) => Phase::Stopped(exit.clone()),
        }
    }

    /// Waits for its end: everything is dead, logged and recorded then.
    pub async fn wait(&self) -> Exit {
        wait_for(&self.ended).await
    }

    /// Lets execve happen.
    pub async fn start(&self) -> Result<u32, Error> {
        let _turn = self.turn.lock().await;
        let gate = self.take_gate()?;
        // Whoever gives the container up needs the turn, however long the command's file system does not answer.
        let started = tokio::select! {
            started = gate.start() => started,
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

    /// A container whose hooks fail has not been started, though it runs. With the container end hooks that have no end.
    async fn poststart(&self) -> Result<(), Error> {
        let moment = Moment::Poststart(self.pid());
        let run = tokio::select! {
            run = init::run_hooks(self.id(), &self.identity.bundle, moment) => run,
            () = self.process.end() => return Ok(()),
            () = self.until_given_up() => return Ok(()),
        };
        let Err(source) = run else { return Ok(()) };
        self.inner().start_failure = error_line(&source);
        if let Err(error) = self.kill(KILL, true) {
            note(format_args!("end {} after its hook failed: {}", self.id(), error_line(&error)));
        }
        Err(Error::Init { doing: "start", id: self.id().to_owned(), source })
    }

    fn take_gate(&self) -> Result<StartGate, Error> {
        let gate = match &mut self.inner().state {
            State::Created(gate) => gate.take(),
            _ => None,
        };
        gate.ok_or_else(|| self.refuse("start"))
    }

    /// Signals its first process, or with `all` every process in its cgroup.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        if let Phase::Stopped(_) = self.phase() {
            return Err(Error::NotFound { what: "process of container", id: self.id().to_owned() });
        }
        let others = if all { self.kill_all(signal) } else { Ok(()) };
        // Itself however it goes with the others: a PID namespace ends with its first process.
        self.process.signal(signal).map_err(|source| self.io("signal", source))?;
        if signal == KILL && self.phase() == Phase::Paused {
            // The v1 freezer holds even the dead.
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

    /// Host pids of its processes.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        self.cgroup.procs().map_err(|source| self.cgroup_error("list processes of", source))
    }

    /// Stops all its processes where they are.
    pub async fn pause(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        if self.phase() != Phase::Running {
            return Err(self.refuse("pause"));
        }
        self.cgroup.freeze(FREEZE_PATIENCE).await.map_err(|source| self.cgroup_error("pause", source))?;
        self.inner().state = State::Paused;
        Ok(())
    }

    /// Lets them go on.
    pub async fn resume(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        if self.phase() != Phase::Paused {
            return Err(self.refuse("resume"));
        }
        self.cgroup.thaw().map_err(|source| self.cgroup_error("resume", source))?;
        self.inner().state = State::Running;
        Ok(())
    }

    /// Changes its limits, all of them or none; what is absent stays.
    pub async fn update(&self, resources: &Resources) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        if let Phase::Stopped(_) = self.phase() {
            return Err(self.refuse("update"));
        }
        let changed = init::update(&self.cgroup, resources).await;
        changed.map_err(|source| Error::Init { doing: "update", id: self.id().to_owned(), source })
    }

    /// Opens its log file anew; one that is no CRI log has nothing to open.
    pub fn reopen_log(&self) -> Result<(), Error> {
        let Some(log) = self.inner().log.clone() else {
            return Err(self.wrong_time("reopen the log of", "without one, or stopped"));
        };
        log.reopen().map_err(|source| self.io("reopen the log of", source))
    }

    /// Passes on what it prints from now on to FIFOs that have readers, for as long as it runs and they read; empty for none.
    pub fn attach(&self, stdout: &str, stderr: &str) -> Result<(), Error> {
        self.must_run("attach to")?;
        let inner = self.inner();
        let Some(pumps) = &inner.pumps else {
            return Err(self.wrong_time("attach to", "stopped"));
        };
        let attached = pumps.attach(stdout, stderr);
        attached.map_err(|source| Error::Streams { id: self.id().to_owned(), source })
    }

    /// Ends its input.
    pub fn close_stdin(&self) {
        if let Some(pumps) = &self.inner().pumps {
            pumps.close_stdin();
        }
    }

    /// Sets the size of its terminal.
    pub fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        let resized = self.inner().pumps.as_ref().map(|pumps| pumps.resize(width, height));
        resized.ok_or_else(|| self.refuse("resize"))?.map_err(|source| self.io("resize", source))
    }

    /// Everything that may run only in a running container asks here first.
    pub fn must_run(&self, doing: &'static str) -> Result<(), Error> {
        if self.phase() == Phase::Running { Ok(()) } else { Err(self.refuse(doing)) }
    }

    /// Registers an exec under its id.
    pub fn add_exec(&self, exec: Exec) -> Result<(), Error> {
        let id = exec.id().to_owned();
        let execs = &mut self.inner().execs;
        if execs.contains_key(&id) {
            return Err(Error::AlreadyExists { what: "exec", id });
        }
        execs.insert(id, Arc::new(exec));
        Ok(())
    }

    /// The exec of that id.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        self.inner().execs.get(id).cloned().ok_or_else(|| Error::no_exec(id))
    }

    /// Forgets an exec.
    pub fn remove_exec(&self, id: &str) {
        self.inner().execs.remove(id);
    }

    /// Ends a container that was never started, and refuses to be deleted while it runs. Gives how it ended.
    pub async fn prepare_delete(&self) -> Result<Exit, Error> {
        let exit = match self.phase() {
            Phase::Stopped(exit) => exit,
            // Its output is still being passed on.
            _ if self.process.has_ended() => self.wait().await,
            Phase::Created => {
                self.kill(KILL, true)?;
                self.wait().await
            }
            Phase::Running | Phase::Paused => return Err(self.refuse("delete")),
        };
        // The hooks that follow the end need what is deleted next.
        let _turn = self.turn.lock().await;
        Ok(exit)
    }

    fn refuse(&self, doing: &'static str) -> Error {
        let state = match self.phase() {
            Phase::Created => "created, or failed to start",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Stopped(_) => "stopped",
        };
        self.wrong_time(doing, state)
    }

    fn wrong_time(&self, doing: &'static str, state: &'static str) -> Error {
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

/// Waits until a process has ended and that may be told.
pub(crate) async fn wait_for(ended: &watch::Sender<Option<Exit>>) -> Exit {
    let mut ended = ended.subscribe();
    match ended.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or_default(),
        Err(_) => Exit::default(),
    }
}
