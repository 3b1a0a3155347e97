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

pub use session::{Control, Session, Wanted};

pub(crate) use exec::end_forsaken;
pub(crate) use image_volume::container_of;
pub(crate) use life::{kill, killed, remove_entry, remove_traces, set_limits};
pub(crate) use settle::settle_stopped;

/// What is known of a container at one moment. Never changed: the next moment has a snapshot of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// The pod it belongs to.
    pub pod_id: String,
    /// What it was asked to be, with its resources as they are now.
    pub config: ContainerConfig,
    /// Digest of the image's configuration, `sha256:` and 64 hex digits.
    pub image_id: String,
    /// A name of the image that can be pulled, with its digest where known.
    pub image_ref: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where in its life it is.
    pub state: ContainerState,
    /// Where its output is logged.
    pub log_path: Option<PathBuf>,
    /// Who its first process runs as.
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
        /// First process, waiting to be started, as the host sees it.
        pid: u32,
    },
    /// Its first process runs.
    Running {
        /// First process, as the host sees it.
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
        /// More than the word says; mostly empty.
        message: String,
    },
}

impl ContainerState {
    /// It has ended.
    pub fn is_exited(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }

    /// When it was started; 0 if it never was.
    pub fn started_at(&self) -> i64 {
        match self {
            Self::Created { .. } => 0,
            Self::Running { started_at, .. } | Self::Exited { started_at, .. } => *started_at,
        }
    }

    /// Its first process, unless it has ended.
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
    /// The same container, started. One that was so quick that its end came first stays ended.
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

    /// The same container, ended by `exit`, unless it had ended before.
    pub(crate) fn ended(&self, exit: Exit) -> Self {
        let reason = match (&exit.message, exit.oom_killed, exit.code) {
            (message, ..) if !message.is_empty() => "Unknown",
            (_, true, _) => "OOMKilled",
            (.., 0) => "Completed",
            _ => "Error",
        };
        self.exited(exit.code, exit.finished_at, reason, exit.message)
    }

    /// The same container, ended as described, unless it had ended before.
    pub(crate) fn exited(&self, code: i32, finished_at: i64, reason: &str, message: String) -> Self {
        if self.state.is_exited() {
            return self.clone();
        }
        let started_at = self.state.started_at();
        let state = ContainerState::Exited { started_at, finished_at, code, reason: reason.into(), message };
        Self { state, ..self.clone() }
    }
}

/// Every container of this daemon, and what can be done to them. Clones share them.
#[derive(Clone, Debug)]
pub struct Containers {
    pub(crate) shared: Arc<Shared>,
}

impl Containers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sets a container up in a pod and returns its id. The same metadata in the same pod asked for again, at
    /// once or later, gives the same container.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such pod or image, `FailedPrecondition` when the pod is not ready. What
    /// failed is undone before the error is returned.
    pub async fn create(&self, pod_id: &str, config: ContainerConfig) -> Result<String> {
        let pod = self.shared.pods.find(pod_id)?;
        let shared = Arc::clone(&self.shared);
        let key = (pod.get().id.clone(), config.metadata.clone());
        self.shared.creating.join(key, || create::create(shared, pod, config)).await
    }

    /// Lets a created container run. Asked again at once or later, while it runs, this is the same start.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when it has ended.
    pub async fn start(&self, id: &str) -> Result<()> {
        let (shared, entry) = (Arc::clone(&self.shared), self.shared.containers.find(id)?);
        let id = entry.get().id.clone();
        self.shared.starting.join(id, || life::start(shared, entry)).await
    }

    /// Asks the container to end, and ends it when it has not after `grace`; at once when that is zero. Fine when
    /// it has ended, or when there is no such container.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        match self.shared.containers.find(id) {
            Ok(entry) => life::stop(&self.shared, entry, grace).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the container, ending it first if need be. Fine when there is no such container.
    pub async fn remove(&self, id: &str) -> Result<()> {
        match self.shared.containers.find(id) {
            Ok(entry) => life::remove_entry(&self.shared, &entry).await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs a command in a running container and gathers what it prints, almost 16 MiB of both streams together: what one answer
    /// carries.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when it was killed after `limit`.
    pub async fn exec_sync(
        &self,
        id: &str,
        args: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput> {
        exec::exec_sync(&self.shared, &*self.shared.containers.find(id)?, args, limit).await
    }

    /// Runs a command in a running container, with the caller at its streams.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container does not run, `InvalidArgument` when there is no such command in it.
    pub async fn exec(&self, id: &str, args: Vec<String>, wanted: Wanted) -> Result<Session> {
        exec::exec(&self.shared, &*self.shared.containers.find(id)?, args, wanted).await
    }

    /// Whether [`Containers::exec`] could run a command in the container now.
    ///
    /// # Errors
    ///
    /// Those of `exec`.
    pub fn check_exec(&self, id: &str) -> Result<()> {
        must_run(&*self.get(id)?)
    }

    /// Puts the caller at the streams of a running container, beside whoever else is there. What it prints from now on
    /// comes as it is printed; a caller that does not keep up misses some of it, which is in the log all the same.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container does not run, or when its input is wanted and it has none or no more.
    pub async fn attach(&self, id: &str, wanted: Wanted) -> Result<Session> {
        attach::attach(&self.shared, self.shared.containers.find(id)?, wanted).await
    }

    /// Goes on with the container's log in a new file of the same name.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        log::reopen(&self.shared, &*self.shared.containers.find(id)?).await
    }

    /// Changes the container's limits, all of them or none; what `resources` leaves out stays as it is.
    pub async fn update(&self, id: &str, resources: Resources) -> Result<()> {
        life::update(&self.shared, self.shared.containers.find(id)?, resources).await
    }

    /// Where the description lies that the shim of the container with this whole id was given.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.shared.layout.bundle(id)
    }

    /// The container with this id, or the only one whose id begins with it.
    pub fn get(&self, id: &str) -> Result<Arc<Container>> {
        self.shared.containers.find(id).map(|entry| entry.get())
    }

    /// The containers of one pod, in no order.
    pub fn of_pod(&self, pod_id: &str) -> Vec<Arc<Container>> {
        self.shared.containers_of(pod_id).iter().map(|entry| entry.get()).collect()
    }

    /// All containers, the newest first.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let mut containers = self.shared.containers.list();
        containers.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        containers
    }
}

/// Refuses what needs a running process.
pub(crate) fn must_run(container: &Container) -> Result<()> {
    match container.state {
        ContainerState::Running { .. } => Ok(()),
        _ => Err(Error::new(Kind::FailedPrecondition, format!("container {} is not running", container.id))),
    }
}
