//! One container of a foreign shim.
//!
//! ```text
//!   create             start                its task ends
//! ----------> Created --------> Running ---------------------> Stopped
//!                |  killed                                        ^
//!                +------------------------------------------------+
//! ```
//! Only the watcher task moves it to Stopped: it waits for the end, drains the output, writes the exit record, and only
//! then announces the end.

use super::client::{LONG_TIMEOUT, NO_TIMEOUT, failed};
use super::launch::ForeignShim;
use crate::cgroup::Cgroup;
use crate::container::{Phase, StdioConfig, wait_for_exit};
use crate::error::Error;
use crate::exit::{Exit, now};
use crate::init::Stdio;
use crate::shim_log::note;
use crate::spec::Spec;
use crate::stdio::cri_log::CriLog;
use crate::stdio::{Pumps, ShimStdio, Streams, connect};
use containerd_shim_protos::api::*;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Time for the foreign shim to deliver the last output.
const STREAM_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A container that was created and not yet deleted.
pub(super) struct ForeignContainer {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// As the foreign shim reports it; with a virtual machine, not the container's own.
    pub(super) pid: u32,
    shim: Arc<ForeignShim>,
    cgroup: Cgroup,
    oom: AtomicBool,
    inner: Mutex<Inner>,
    ended: watch::Sender<Option<Exit>>,
}

struct Inner {
    phase: Phase,
    started_at: i64,
    log: Option<Arc<CriLog>>,
    pumps: Option<Pumps>,
}

impl ForeignContainer {
    /// Has the foreign shim create a container, with streams that lead to this process.
    pub(super) async fn create(
        shim: Arc<ForeignShim>,
        request: CreateTaskRequest,
    ) -> Result<Arc<Self>, Error> {
        let id = request.id.clone();
        let stdio_config = stdio_config(&request);
        // The foreign shim has the terminal and copies it to a pipe.
        let streams = Streams::parse(&stdio_config.stdin, &stdio_config.stdout, &stdio_config.stderr, false)?;
        let (stdio, shim_stdio) =
            connect(&streams).map_err(|source| Error::Streams { id: id.clone(), source })?;
        let bundle = PathBuf::from(&request.bundle);
        let request = CreateTaskRequest {
            stdin: path_of(&stdio.stdin),
            stdout: path_of(&stdio.stdout),
            stderr: path_of(&stdio.stderr),
            ..request
        };
        let made: ttrpc::Result<CreateTaskResponse> = shim.tasks.call("Create", &request, LONG_TIMEOUT).await;
        let made = made.map_err(|source| failed("create container", &id, source))?;
        let container = Self::adopt(shim, &id, bundle, made.pid, shim_stdio);
        drop::<Stdio>(stdio);
        container.map_err(|source| Error::Io { doing: "watch", id, source })
    }

    fn adopt(
        shim: Arc<ForeignShim>,
        id: &str,
        bundle: PathBuf,
        pid: u32,
        shim_stdio: ShimStdio,
    ) -> io::Result<Arc<Self>> {
        let cgroup = Cgroup::unchecked(&cgroup_of(&bundle)?);
        let pumps = shim_stdio.start(None)?;
        let input = pumps.input_ended();
        let inner = Inner { phase: Phase::Created, started_at: 0, log: pumps.log(), pumps: Some(pumps) };
        let container = Arc::new(Self {
            id: id.to_owned(),
            bundle,
            pid,
            shim,
            cgroup,
            oom: AtomicBool::new(false),
            inner: Mutex::new(inner),
            ended: watch::Sender::new(None),
        });
        tokio::spawn(Arc::clone(&container).watch());
        if let Some(ended) = input {
            tokio::spawn(Arc::clone(&container).pass_end_of_input(ended));
        }
        Ok(container)
    }

    /// The foreign shim holds the write end of stdin itself, so it must be told to close it.
    async fn pass_end_of_input(self: Arc<Self>, mut ended: watch::Receiver<bool>) {
        if ended.wait_for(|ended| *ended).await.is_ok() {
            let request = CloseIORequest { id: self.id.clone(), stdin: true, ..Default::default() };
            if let Err(error) = self.shim.tasks.call::<Empty>("CloseIO", &request, LONG_TIMEOUT).await {
                note(format_args!("close the input of {}: {error}", self.id));
            }
        }
    }

    /// Starts it. Returns its pid.
    pub(super) async fn start(&self) -> Result<u32, Error> {
        let request = StartRequest { id: self.id.clone(), ..Default::default() };
        let started: ttrpc::Result<StartResponse> =
            self.shim.tasks.call("Start", &request, LONG_TIMEOUT).await;
        let started = started.map_err(|source| failed("start container", &self.id, source))?;
        let mut inner = self.inner();
        inner.started_at = now();
        if inner.phase == Phase::Created {
            inner.phase = Phase::Running;
        }
        Ok(started.pid)
    }

    /// The current state; foreign containers are never paused.
    pub(super) fn phase(&self) -> Phase {
        self.inner().phase.clone()
    }

    /// Time of the start in nanoseconds since the Unix epoch; 0 before.
    pub(super) fn started_at(&self) -> i64 {
        self.inner().started_at
    }

    /// Waits for the end: the output is logged and the exit record is written.
    pub(super) async fn wait(&self) -> Exit {
        wait_for_exit(&self.ended).await
    }

    /// Records that the foreign shim has reported an OOM kill.
    pub(super) fn oom_killed(&self) {
        self.oom.store(true, Ordering::Relaxed);
    }

    /// Deletes it in the foreign shim; kills it first if it was never started. Fails while it runs.
    pub(super) async fn delete(&self) -> Result<Exit, Error> {
        match self.phase() {
            Phase::Running | Phase::Paused => {
                Err(Error::Precondition { doing: "delete", id: self.id.clone(), state: "running" })
            }
            Phase::Created => {
                self.shim.tasks.kill(&self.id).await?;
                self.forget().await
            }
            Phase::Stopped(_) => self.forget().await,
        }
    }

    async fn forget(&self) -> Result<Exit, Error> {
        let exit = self.wait().await;
        self.shim.tasks.delete(&self.id).await?;
        Ok(exit)
    }

    /// Reopens the log file. Fails for a container without a CRI log.
    pub(super) fn reopen_log(&self) -> Result<(), Error> {
        let Some(log) = self.inner().log.clone() else {
            let (doing, state) = ("reopen the log of", "without one, or stopped");
            return Err(Error::Precondition { doing, id: self.id.clone(), state });
        };
        log.reopen().map_err(|source| Error::Io { doing: "reopen the log of", id: self.id.clone(), source })
    }

    /// Copies output from now on to FIFOs, which must have readers; empty for none.
    pub(super) fn attach(&self, stdout: &str, stderr: &str) -> Result<(), Error> {
        let inner = self.inner();
        let Some(pumps) = inner.pumps.as_ref().filter(|_| inner.phase == Phase::Running) else {
            let (doing, state) = ("attach to", "not running");
            return Err(Error::Precondition { doing, id: self.id.clone(), state });
        };
        let attached = pumps.attach(stdout, stderr);
        attached.map_err(|source| Error::Streams { id: self.id.clone(), source })
    }

    /// Closes stdin.
    pub(super) fn close_stdin(&self) {
        if let Some(pumps) = &self.inner().pumps {
            pumps.close_stdin();
        }
    }

    async fn watch(self: Arc<Self>) {
        let exit = match self.shim.tasks.wait(&self.id, NO_TIMEOUT).await {
            Ok(end) => Exit { code: end.exit_status, finished_at: finished_at(&end), ..Default::default() },
            Err(error) => {
                self.shim.clean_up_after(&self.id, &self.bundle).await;
                Exit::now(137, format!("its shim died: {error}"))
            }
        };
        let exit = self.complete_exit(exit).await;
        self.inner().phase = Phase::Stopped(exit.clone());
        self.ended.send_replace(Some(exit));
    }

    /// Drains the streams and writes the exit record: all that must precede the announcement of the end.
    async fn complete_exit(&self, mut exit: Exit) -> Exit {
        let (pumps, log) = {
            let mut inner = self.inner();
            (inner.pumps.take(), inner.log.take())
        };
        if let Some(pumps) = pumps {
            pumps.finish(STREAM_DRAIN_TIMEOUT).await;
        }
        drop(log);
        exit.oom_killed = self.oom.load(Ordering::Relaxed) || self.cgroup.oom_kills() > 0;
        if let Err(error) = exit.write(&self.bundle) {
            note(format_args!("write the exit record of {}: {error}", self.id));
        }
        exit
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A terminal has no separate stderr.
fn stdio_config(request: &CreateTaskRequest) -> StdioConfig {
    let stderr = if request.terminal { String::new() } else { request.stderr.clone() };
    StdioConfig {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr,
        terminal: request.terminal,
    }
}

/// A path by which any process on this host can open a pipe's end like a FIFO, while it is open here.
pub(super) fn path_of(end: &Option<OwnedFd>) -> String {
    let path = |end: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), end.as_raw_fd());
    end.as_ref().map(path).unwrap_or_default()
}

fn finished_at(end: &WaitResponse) -> i64 {
    end.exited_at.as_ref().map_or_else(now, |at| at.seconds * 1_000_000_000 + i64::from(at.nanos))
}

fn cgroup_of(bundle: &Path) -> io::Result<String> {
    let spec: Spec = serde_json::from_slice(&std::fs::read(bundle.join("config.json"))?)?;
    Ok(spec.linux.cgroups_path)
}
