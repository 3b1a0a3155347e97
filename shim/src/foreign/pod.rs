//! A pod of a foreign shim: its sandbox task and its containers.
//!
//! ```text
//!           create            start                 stop
//! Absent ----------> Made ------------> Ready -----------------> Stopped
//!          network namespace,   shim and sandbox task |              ^
//!          pod's cgroup                               | sandbox dies |
//!                                                     +--------------+
//! ```

use super::bundle::{self, PodAttributes, SandboxBundle};
use super::client::{LONG_TIMEOUT, NO_TIMEOUT, failed};
use super::container::ForeignContainer;
use super::launch::{ForeignShim, Launcher};
use crate::container::Phase;
use crate::container_map::ContainerMap;
use crate::error::Error;
use crate::init::{self, PodNamespaces, PodOptions};
use crate::orphans::Orphans;
use crate::process::KILL_TIMEOUT;
use crate::sandbox::Record;
use crate::shim_log::note;
use crate::stdio;
use berth_shim_proto::berth_shim::SandboxOptions;
use containerd_shim_protos::api::*;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock, watch};
use tokio::time::timeout;

/// Interval at which a process without a pod checks whether its bundle still exists.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The state of a process that serves a foreign shim's pod.
pub(super) struct ForeignPod {
    pub(super) id: String,
    bundle: PathBuf,
    socket: PathBuf,
    launcher: Launcher,
    pub(super) orphans: Arc<Orphans>,
    /// Held while the pod is created or taken down.
    resources: AsyncMutex<PodResources>,
    state: Mutex<State>,
    containers: Arc<ContainerMap<ForeignContainer>>,
    /// Creating a container holds the read lock, taking the pod down takes the write lock: it waits for creations under way.
    creations: RwLock<()>,
    stopped: watch::Sender<bool>,
    changed: Notify,
    closing: watch::Sender<bool>,
}

/// Parts of the pod outside its sandbox task.
#[derive(Default)]
struct PodResources {
    namespaces: PodNamespaces,
    netns: String,
    options: SandboxOptions,
}

enum State {
    Absent,
    Made,
    Ready(Arc<RunningSandbox>),
    Stopped,
}

/// The running sandbox that containers join.
pub(super) struct RunningSandbox {
    pub(super) shim: Arc<ForeignShim>,
    /// First process of the sandbox, as the foreign shim reports it.
    pub(super) pid: u32,
    host_network: bool,
    host_ipc: bool,
    shared_pid: bool,
    creates_mount_sources: bool,
}

impl ForeignPod {
    pub(super) fn new(id: String, bundle: PathBuf, socket: PathBuf, launcher: Launcher) -> Arc<Self> {
        Arc::new(Self {
            id,
            bundle,
            socket,
            launcher,
            orphans: Arc::default(),
            resources: AsyncMutex::default(),
            state: Mutex::new(State::Absent),
            containers: ContainerMap::empty(),
            creations: RwLock::default(),
            stopped: watch::Sender::new(false),
            changed: Notify::new(),
            closing: watch::Sender::new(false),
        })
    }

    /// Creates the pod's network namespace, pinned at `netns` (empty: the host's), and its cgroup.
    pub(super) async fn create(&self, netns: &str, options: SandboxOptions) -> Result<(), Error> {
        if !options.uid_mappings.is_empty() {
            return Err(Error::Unsupported("a user namespace for a pod of another shim"));
        }
        let mut resources = self.resources.lock().await;
        if !matches!(*self.state(), State::Absent) {
            return Err(Error::AlreadyExists { what: "sandbox", id: self.id.clone() });
        }
        let wanted = PodOptions {
            id: self.id.clone(),
            netns_path: Some(netns).filter(|path| !path.is_empty()).map(Into::into),
            host_network: netns.is_empty(),
            host_ipc: true,
            cgroup_path: options.cgroup_path.clone(),
            ..Default::default()
        };
        let recorded = Record::new(&wanted).write(&self.bundle);
        recorded.map_err(|source| self.io("keep a record of sandbox", source))?;
        let namespaces = PodNamespaces::create(&wanted).map_err(|source| Error::Init {
            doing: "create sandbox",
            id: self.id.clone(),
            source,
        })?;
        *resources = PodResources { namespaces, netns: netns.to_owned(), options };
        *self.state() = State::Made;
        Ok(())
    }

    /// Starts the foreign shim and the sandbox in it. Returns the pid of the sandbox's first process.
    pub(super) async fn start(self: &Arc<Self>) -> Result<u32, Error> {
        let resources = self.resources.lock().await;
        match &*self.state() {
            State::Made => {}
            State::Ready(sandbox) => return Ok(sandbox.pid),
            State::Absent => return Err(Error::NotFound { what: "sandbox", id: self.id.clone() }),
            State::Stopped => return Err(self.refuse("start sandbox")),
        }
        let sandbox = self.start_sandbox(&resources).await?;
        let pid = sandbox.pid;
        *self.state() = State::Ready(Arc::clone(&sandbox));
        tokio::spawn(Arc::clone(self).watch(sandbox));
        Ok(pid)
    }

    async fn start_sandbox(&self, resources: &PodResources) -> Result<Arc<RunningSandbox>, Error> {
        let (options, bundle) = (&resources.options, &self.bundle);
        let sandbox = SandboxBundle { id: &self.id, bundle, netns: &resources.netns, options };
        sandbox.write().map_err(|source| self.io("write the bundle of", source))?;
        let log = stdio::copy(&bundle::log(bundle), &bundle.join("foreign.log"));
        log.map_err(|source| self.io("read the log of the shim of", source))?;
        let (launcher, orphans) = (self.launcher.clone(), Arc::clone(&self.orphans));
        let shim = ForeignShim::start(launcher, orphans, &self.id, bundle).await?;
        let pid = match self.start_task(&shim).await {
            Ok(pid) => pid,
            Err(error) => {
                self.end_sandbox(&shim, KILL_TIMEOUT).await;
                return Err(error);
            }
        };
        Ok(Arc::new(RunningSandbox {
            shim,
            pid,
            host_network: resources.netns.is_empty(),
            host_ipc: options.host_ipc,
            shared_pid: options.shared_pid,
            creates_mount_sources: options.create_mount_sources,
        }))
    }

    async fn start_task(&self, shim: &ForeignShim) -> Result<u32, Error> {
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            options: shim.launcher.handler.any().into(),
            ..Default::default()
        };
        let made: ttrpc::Result<CreateTaskResponse> = shim.tasks.call("Create", &request, LONG_TIMEOUT).await;
        let made = made.map_err(|source| failed("create the sandbox of pod", &self.id, source))?;
        let request = StartRequest { id: self.id.clone(), ..Default::default() };
        let started: ttrpc::Result<StartResponse> = shim.tasks.call("Start", &request, LONG_TIMEOUT).await;
        started.map_err(|source| failed("start the sandbox of pod", &self.id, source))?;
        Ok(made.pid)
    }

    /// A sandbox that ends by itself, or whose shim dies, ends the pod and this process; the daemon then sees a dead shim.
    async fn watch(self: Arc<Self>, sandbox: Arc<RunningSandbox>) {
        let end = sandbox.shim.tasks.wait(&self.id, NO_TIMEOUT).await;
        if !matches!(*self.state(), State::Ready(_)) {
            return;
        }
        note(format_args!("the sandbox of {} ended: {end:?}", self.id));
        if end.is_err() {
            sandbox.shim.clean_up_after(&self.id, &self.bundle).await;
        }
        log_failure("take down", &self.id, self.take_down(KILL_TIMEOUT).await);
        // Does not complete [`Self::wait`]: the daemon gets an error instead, since it did not request this end.
        self.close();
    }

    /// The sandbox. Fails unless it runs.
    pub(super) fn sandbox(&self) -> Result<Arc<RunningSandbox>, Error> {
        match &*self.state() {
            State::Ready(sandbox) => Ok(Arc::clone(sandbox)),
            State::Stopped => Err(self.refuse("create a container in sandbox")),
            State::Absent | State::Made => Err(Error::NotFound { what: "sandbox", id: self.id.clone() }),
        }
    }

    /// First process of the PID namespace that all containers share, if they share one.
    pub(super) fn init_pid(&self) -> Option<u32> {
        self.sandbox().ok().filter(|sandbox| sandbox.shared_pid).map(|sandbox| sandbox.pid)
    }

    /// Creates a container from a request of Berth's own protocol.
    pub(super) async fn create_container(
        &self,
        request: CreateTaskRequest,
    ) -> Result<Arc<ForeignContainer>, Error> {
        let _creation = self.creations.read().await;
        let sandbox = self.sandbox()?;
        let reservation = self.containers.reserve(&request.id)?;
        let target = self.target_of(&request)?;
        self.prepare(&sandbox, &request, target.as_deref()).await?;
        let options = sandbox.shim.launcher.handler.any().into();
        let container =
            ForeignContainer::create(Arc::clone(&sandbox.shim), CreateTaskRequest { options, ..request })
                .await?;
        // Its PID namespace was joined by pid. If it still runs, the pid was its own; otherwise it may have been reused.
        if target.is_some_and(|target| target.phase() != Phase::Running) {
            container.delete().await?;
            return Err(self.refuse("join a container that has ended in sandbox"));
        }
        reservation.fill(&container);
        Ok(container)
    }

    /// The container whose PID namespace the request joins.
    fn target_of(&self, request: &CreateTaskRequest) -> Result<Option<Arc<ForeignContainer>>, Error> {
        let named = bundle::target_of(Path::new(&request.bundle));
        let named = named.map_err(|source| self.io("read the bundle of a container of", source))?;
        named.map(|id| self.container(&id)).transpose()
    }

    /// Completes the bundle as the foreign shim needs it.
    async fn prepare(
        &self,
        sandbox: &RunningSandbox,
        request: &CreateTaskRequest,
        target: Option<&ForeignContainer>,
    ) -> Result<(), Error> {
        let (host_network, host_ipc) = (sandbox.host_network, sandbox.host_ipc);
        let target = target.map(|target| (target.id.as_str(), target.pid));
        let pod = PodAttributes {
            id: &self.id,
            bundle: &self.bundle,
            pid: sandbox.pid,
            host_network,
            host_ipc,
            target,
        };
        let (id, bundle) = (&request.id, Path::new(&request.bundle));
        let completed = pod.complete(bundle);
        completed.map_err(|source| Error::Io { doing: "complete the bundle of", id: id.clone(), source })?;
        if !sandbox.creates_mount_sources {
            return Ok(());
        }
        let _creation = self.orphans.creation();
        let made = init::make_mount_sources(bundle).await;
        made.map_err(|source| Error::Init { doing: "create", id: id.clone(), source })
    }

    /// Returns the container of that id. Fails while it is still being created.
    pub(super) fn container(&self, id: &str) -> Result<Arc<ForeignContainer>, Error> {
        self.containers.get(id)
    }

    /// All containers, by id.
    pub(super) fn containers(&self) -> Vec<Arc<ForeignContainer>> {
        self.containers.all()
    }

    /// Forgets a container.
    pub(super) fn remove(&self, id: &str) {
        self.containers.remove(id);
    }

    /// Takes the pod down by request. Repeatable.
    pub(super) async fn stop(&self, time_limit: Duration) -> Result<(), Error> {
        self.take_down(time_limit).await?;
        self.stopped.send_replace(true);
        self.changed.notify_one();
        Ok(())
    }

    /// Kills every container, waits for their exit records, undoes the sandbox, the namespaces and the cgroup.
    async fn take_down(&self, time_limit: Duration) -> Result<(), Error> {
        let mut resources = self.resources.lock().await;
        let state = std::mem::replace(&mut *self.state(), State::Stopped);
        if let State::Ready(sandbox) = state {
            if timeout(time_limit, self.creations.write()).await.is_err() {
                note("a container is still being created");
            }
            self.end_containers(&sandbox.shim, time_limit).await;
            self.end_sandbox(&sandbox.shim, time_limit).await;
        }
        bundle::unmount_all(&self.bundle);
        resources.namespaces.destroy().map_err(|source| Error::Init {
            doing: "stop sandbox",
            id: self.id.clone(),
            source,
        })?;
        bundle::remove_cgroup(&resources.options.cgroup_path, &self.id);
        Ok(())
    }

    /// Ends the containers as far as possible: the rest is left to the foreign shim and the daemon's cleanup.
    async fn end_containers(&self, shim: &ForeignShim, time_limit: Duration) {
        for container in self.containers() {
            if !matches!(container.phase(), Phase::Stopped(_)) {
                log_failure("kill", &container.id, shim.tasks.kill(&container.id).await);
            }
        }
        for container in self.containers() {
            match timeout(time_limit, container.wait()).await {
                Ok(_) => log_failure("delete", &container.id, shim.tasks.delete(&container.id).await),
                Err(_) => note(format_args!("container {} does not end", container.id)),
            }
        }
    }

    async fn end_sandbox(&self, shim: &ForeignShim, time_limit: Duration) {
        log_failure("kill", &self.id, shim.tasks.kill(&self.id).await);
        log_failure("end", &self.id, shim.tasks.wait(&self.id, time_limit).await.map(drop));
        log_failure("delete", &self.id, shim.tasks.delete(&self.id).await);
        shim.tasks.shutdown(&self.id).await;
    }

    /// Waits until the pod is stopped by request.
    pub(super) async fn wait(&self) {
        // The sender lives as long as self.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Makes this process exit once requests under way are answered.
    pub(super) fn close(&self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            note(format_args!("remove {}: {error}", self.socket.display()));
        }
        self.closing.send_replace(true);
    }

    /// Waits for [`ForeignPod::close`].
    pub(super) async fn closed(&self) {
        // The sender lives as long as self.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Closes a process without a running pod whose bundle is gone: no request can come for it any more.
    pub(super) async fn close_when_unused(&self) {
        while matches!(*self.state(), State::Ready(_)) || self.bundle.exists() {
            let _ = timeout(IDLE_CHECK_INTERVAL, self.changed.notified()).await;
        }
        note("the bundle is gone and there is no pod: leaving");
        self.close();
    }

    fn refuse(&self, doing: &'static str) -> Error {
        Error::Precondition { doing, id: self.id.clone(), state: "stopped" }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Io { doing, id: self.id.clone(), source }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_failure(doing: &str, id: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        note(format_args!("{doing} {id}: {error}"));
    }
}
