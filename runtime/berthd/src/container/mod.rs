//! Containers.
//!
//! ```text
//!          create              start                its process ends
//! (nothing) ----> Created ---------------> Running -----------------> Exited
//!                    |  could not be started, or was killed             |
//!                    +------------------------------------------------->+
//!           remove from anywhere (kills first) --> (nothing)
//! ```

mod attach;
pub mod config;
mod create;
mod exec;
mod fifos;
mod image_volume;
mod life;
mod log;
mod session;
mod settle;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use self::config::{ContainerConfig, Resources};
use crate::{
    error::{Error, Kind, Result},
    runtime::Shared,
    shim::{ExecOutput, Exit},
    spec::user::ResolvedUser,
    state::Record,
};

pub use session::{Control, RequestedStreams, Session};

pub(crate) use exec::end_orphaned_execs;
pub(crate) use image_volume::container_of;
pub(crate) use life::{kill, remove_entry, remove_traces, set_limits, wait_until_killed};
pub(crate) use settle::record_ends_of_stopped;

/// State and configuration of a container at one moment. Immutable: every change makes a new snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Id of its pod.
    pub pod_id: String,
    /// The requested configuration, with the current resources.
    pub config: ContainerConfig,
    /// Digest of the image's configuration, `sha256:` and 64 hex digits.
    pub image_id: String,
    /// A name of the image that can be pulled, with its digest where known.
    pub image_ref: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where in its life the container is.
    pub state: ContainerState,
    /// Path of its log file; `None` when nothing is logged.
    pub log_path: Option<PathBuf>,
    /// User and groups of its first process.
    pub user: ResolvedUser,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
    /// Path of its cgroup below each hierarchy's root.
    pub cgroup: String,
}

/// Where in its life a container is. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Set up, not started.
    Created {
        /// Pid of its first process, which waits to be started, in the host's PID namespace.
        pid: u32,
    },
    /// Its first process runs.
    Running {
        /// Pid of its first process in the host's PID namespace.
        pid: u32,
        /// When it was started.
        started_at: i64,
    },
    /// Its first process has ended.
    Exited {
        /// When it was started; 0 if it never was.
        started_at: i64,
        /// When it ended.
        finished_at: i64,
        /// 0 to 255; 128 + signal when a signal ended it.
        code: i32,
        /// One word: Completed, Error, OOMKilled, StartError, Unknown.
        reason: String,
        /// Details; mostly empty.
        message: String,
    },
}

impl ContainerState {
    /// Whether it has ended.
    pub fn is_exited(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }

    /// Returns when it was started; 0 if it never was.
    pub fn started_at(&self) -> i64 {
        match self {
            Self::Created { .. } => 0,
            Self::Running { started_at, .. } | Self::Exited { started_at, .. } => *started_at,
        }
    }

    /// Returns the pid of its first process, unless it has ended.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Created { pid } | Self::Running { pid, .. } => Some(*pid),
            Self::Exited { .. } => None,
        }
    }
}

impl Record for Container {
    const TABLE: &'static str = "container";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Container {
    /// Returns the container as started. If its end was recorded first, it stays ended.
    pub(crate) fn started(&self, pid: u32, at: i64) -> Self {
        let state = match self.state.clone() {
            ContainerState::Created { .. } | ContainerState::Running { .. } => {
                ContainerState::Running { pid, started_at: at }
            }
            ContainerState::Exited { finished_at, code, reason, message, .. } => {
                ContainerState::Exited { started_at: at.min(finished_at), finished_at, code, reason, message }
            }
        };
        Self { state, ..self.clone() }
    }

    /// Returns the container as ended with `exit`, unless it had ended before.
    pub(crate) fn ended(&self, exit: Exit) -> Self {
        let reason = match (&exit.message, exit.oom_killed, exit.code) {
            (message, ..) if !message.is_empty() => "Unknown",
            (_, true, _) => "OOMKilled",
            (.., 0) => "Completed",
            _ => "Error",
        };
        self.exited(exit.code, exit.finished_at, reason, exit.message)
    }

    /// Returns the container as ended with these values, unless it had ended before.
    pub(crate) fn exited(&self, code: i32, finished_at: i64, reason: &str, message: String) -> Self {
        if self.state.is_exited() {
            return self.clone();
        }
        let started_at = self.state.started_at();
        let state = ContainerState::Exited { started_at, finished_at, code, reason: reason.into(), message };
        Self { state, ..self.clone() }
    }
}

/// All containers of this daemon, and the operations on them. Clones share them.
#[derive(Clone, Debug)]
pub struct Containers {
    pub(crate) shared: Arc<Shared>,
}

impl Containers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sets a container up in a pod and returns its id. A call with the same metadata for the same pod, concurrent or
    /// later, returns the same container.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such pod or image, `FailedPrecondition` when the pod is not ready. Before an error
    /// is returned, what was made is removed as far as possible.
    pub async fn create(&self, pod_id: &str, config: ContainerConfig) -> Result<String> {
        let pod = self.shared.pods.find(pod_id)?;
        let shared = Arc::clone(&self.shared);
        let key = (pod.get().id.clone(), config.metadata.clone());
        self.shared.creating.join(key, || create::create(shared, pod, config)).await
    }

    /// Starts a created container. A concurrent call joins the first, and one for a running container succeeds.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container has ended.
    pub async fn start(&self, id: &str) -> Result<()> {
        let (shared, entry) = (Arc::clone(&self.shared), self.shared.containers.find(id)?);
        let id = entry.get().id.clone();
        self.shared.starting.join(id, || life::start(shared, entry)).await
    }

    /// Sends the stop signal and kills the container if it has not ended after `grace`; a `grace` of zero kills at
    /// once. Succeeds when it has ended or does not exist.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        match self.shared.containers.find(id) {
            Ok(entry) => life::stop(&self.shared, entry, grace).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the container, killing it first if need be. Succeeds when it does not exist.
    pub async fn remove(&self, id: &str) -> Result<()> {
        match self.shared.containers.find(id) {
            Ok(entry) => life::remove_entry(&self.shared, &entry).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs a command in a running container and returns its output: of both streams together at most what fits one
    /// answer, almost 16 MiB.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container does not run, `DeadlineExceeded` when the command was killed after
    /// `limit`.
    pub async fn exec_sync(
        &self,
        id: &str,
        args: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput> {
        exec::exec_sync(&self.shared, &*self.shared.containers.find(id)?, args, limit).await
    }

    /// Runs a command in a running container, with its streams connected to the caller.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container does not run, `InvalidArgument` when there is no such command in it.
    pub async fn exec(&self, id: &str, args: Vec<String>, wanted: RequestedStreams) -> Result<Session> {
        exec::exec(&self.shared, &*self.shared.containers.find(id)?, args, wanted).await
    }

    /// Checks that a command could be run in the container now.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such container, `FailedPrecondition` when it does not run.
    pub fn check_exec(&self, id: &str) -> Result<()> {
        must_run(&*self.get(id)?)
    }

    /// Connects the caller to the streams of a running container, beside other clients. Output arrives as it is
    /// printed; a caller that reads too slowly misses some of it, which is still in the log.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container does not run, or when its input is wanted and it has none or has closed
    /// it.
    pub async fn attach(&self, id: &str, wanted: RequestedStreams) -> Result<Session> {
        attach::attach(&self.shared, self.shared.containers.find(id)?, wanted).await
    }

    /// Continues the container's log in a new file of the same name.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        log::reopen(&self.shared, &*self.shared.containers.find(id)?).await
    }

    /// Changes the container's limits, all of them or none. Limits that `resources` leaves out stay as they are.
    pub async fn update(&self, id: &str, resources: Resources) -> Result<()> {
        life::update(&self.shared, self.shared.containers.find(id)?, resources).await
    }

    /// Returns the path of the container's bundle. `id` must be complete.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.shared.layout.bundle(id)
    }

    /// Returns the container with this id, or the only one whose id begins with it.
    pub fn get(&self, id: &str) -> Result<Arc<Container>> {
        self.shared.containers.find(id).map(|entry| entry.get())
    }

    /// Returns the containers of one pod, in no order.
    pub fn of_pod(&self, pod_id: &str) -> Vec<Arc<Container>> {
        self.shared.containers_of(pod_id).iter().map(|entry| entry.get()).collect()
    }

    /// Returns all containers, the newest first.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let mut containers = self.shared.containers.list();
        containers.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        containers
    }
}

/// Fails with `FailedPrecondition` unless the container runs.
pub(crate) fn must_run(container: &Container) -> Result<()> {
    match container.state {
        ContainerState::Running { .. } => Ok(()),
        _ => Err(Error::new(Kind::FailedPrecondition, format!("container {} is not running", container.id))),
    }
}
