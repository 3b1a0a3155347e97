//! The contents of one shim: at most one sandbox, and containers.

use crate::container::{Container, Identity, Phase, ShimContext};
use crate::container_map::ContainerMap;
use crate::creations::Creations;
use crate::error::Error;
use crate::exit::{Exit, RecordSpace};
use crate::init::{
    self, CreateRequest, Created, Neighbour, PodNamespaces, PodOptions, RootfsMount, Stdio, StepFile,
};
use crate::process::{ChildProcess, KILL, KILL_TIMEOUT};
use crate::sandbox::{self, Sandbox};
use crate::shim_log::note;
use crate::stdio::{ShimStdio, Streams, connect};
use crate::sys::heap;
use berth_failpoint::{failpoint, killpoint};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Time for the last output of a container that was given up: two FIFOs without readers take 13 s.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a stop leaves to containers still being created before their creations are given up.
const PENDING_CREATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval at which a shim checks whether it is idle and its bundle still exists.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The state of a shim.
#[derive(Debug)]
pub struct Pod {
    id: String,
    bundle: PathBuf,
    socket: PathBuf,
    context: ShimContext,
    sandbox: Sandbox,
    containers: Arc<ContainerMap<Container>>,
    creations: Creations,
    emptied: Notify,
    closing: watch::Sender<bool>,
}

/// A container to make, as its caller describes it.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct NewContainer {
    pub identity: Identity,
    pub rootfs: Vec<RootfsMount>,
}

impl Pod {
    /// A shim without sandbox or containers that listens on `socket`.
    pub fn new(id: String, bundle: PathBuf, socket: PathBuf, context: ShimContext) -> Arc<Self> {
        Arc::new(Self {
            id,
            bundle,
            socket,
            context,
            sandbox: Sandbox::default(),
            containers: ContainerMap::empty(),
            creations: Creations::default(),
            emptied: Notify::new(),
            closing: watch::Sender::new(false),
        })
    }

    /// The id the shim was started with: the sandbox's.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// State shared by everything in the shim.
    pub fn context(&self) -> &ShimContext {
        &self.context
    }

    /// Returns the container of that id. Fails while it is still being created.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        self.containers.get(id)
    }

    /// All containers, by id.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.all()
    }

    /// Ids of the containers being created, each with its current step.
    pub fn creations(&self) -> Vec<(String, String)> {
        self.creations.steps()
    }

    /// Creates a container up to the point before execve. Fails when that takes longer than `limit` or the pod is
    /// stopped meanwhile.
    pub async fn create(&self, new: NewContainer, limit: Duration) -> Result<Arc<Container>, Error> {
        let deadline = Instant::now() + limit;
        let id = new.identity.id.clone();
        let reservation = self.containers.reserve(&id)?;
        let namespaces = self.sandbox.enter(&self.id).await?;
        let stdio_config = &new.identity.stdio_config;
        let streams = Streams::parse(
            &stdio_config.stdin,
            &stdio_config.stdout,
            &stdio_config.stderr,
            stdio_config.terminal,
        )?;
        let (stdio, shim_stdio) =
            connect(&streams).map_err(|source| Error::Streams { id: id.clone(), source })?;
        failpoint!(STREAMS_OPENED)?;
        let record_space = RecordSpace::reserve(&new.identity.bundle).map_err(|source| Error::Io {
            doing: "make room for the exit record of",
            id: id.clone(),
            source,
        })?;
        let _creation = self.context.orphans.creation();
        let created = self.set_up(&new, &namespaces, stdio, deadline).await;
        let created = created.map_err(|source| Error::Init { doing: "create", id: id.clone(), source })?;
        let container = self.adopt(new.identity, shim_stdio, created).await?;
        record_space.keep();
        killpoint!(CONTAINER_ADOPTED);
        reservation.fill(&container);
        heap::trim();
        Ok(container)
    }

    /// Runs [`init::create_until`], which is given up at the deadline or when the pod is stopped.
    async fn set_up(
        &self,
        new: &NewContainer,
        pod: &PodNamespaces,
        stdio: Stdio,
        deadline: Instant,
    ) -> Result<Created, init::Error> {
        let Identity { id, bundle, stdio_config } = &new.identity;
        let containers = self.containers();
        let neighbours: Vec<_> = containers.iter().map(|container| neighbour(container)).collect();
        let (rootfs, terminal, neighbours) = (&new.rootfs, stdio_config.terminal, &neighbours);
        let request = CreateRequest { id, bundle, rootfs, terminal, stdio, pod, neighbours };
        let step_file = Arc::new(StepFile::new()?);
        let registration = self.creations.register(id, &step_file);
        init::create_until(request, &step_file, registration.cancelled(deadline)).await
    }

    async fn adopt(
        &self,
        identity: Identity,
        shim_stdio: ShimStdio,
        created: Created,
    ) -> Result<Arc<Container>, Error> {
        let (id, group) = (identity.id.clone(), created.cgroup.clone());
        match Container::adopt(identity, shim_stdio, created, self.context.clone()) {
            Ok(container) => Ok(container),
            Err(source) => {
                let _ = group.kill_and_remove(KILL_TIMEOUT).await;
                Err(Error::Io { doing: "watch", id, source })
            }
        }
    }

    /// Removes a container that has ended or was never started. Returns it with its exit.
    pub async fn delete(&self, id: &str) -> Result<(Arc<Container>, Exit), Error> {
        let container = self.container(id)?;
        let exit = container.prepare_delete().await?;
        // An exec that was being started when the container ended may have entered the cgroup since.
        container.remove_cgroup().await;
        failpoint!(TASK_CLEARED)?;
        self.containers.remove(id);
        self.emptied.notify_one();
        heap::trim();
        Ok((container, exit))
    }

    /// Creates the pod's namespaces.
    pub async fn create_sandbox(self: &Arc<Self>, options: &PodOptions) -> Result<(), Error> {
        self.sandbox.create(&self.id, &self.bundle, options).await?;
        heap::trim();
        match self.sandbox.init_pid() {
            Some(pid) => self.watch_init(pid),
            None => Ok(()),
        }
    }

    /// The end of the first process of a shared PID namespace ends the pod: the kernel kills the other processes in the
    /// namespace and no new ones can be made in it, pid_namespaces(7).
    fn watch_init(self: &Arc<Self>, pid: u32) -> Result<(), Error> {
        let watched = ChildProcess::of_child(pid, &self.context.orphans);
        let init = watched.map_err(|source| Error::Io { doing: "watch", id: self.id.clone(), source })?;
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            init.reap().await;
            pod.init_ended().await;
        });
        Ok(())
    }

    /// Also kills the containers that have a PID namespace of their own. The other namespaces stay until the pod is stopped.
    async fn init_ended(&self) {
        if matches!(self.sandbox.phase(), sandbox::Phase::Stopped { .. }) {
            return;
        }
        note("the first process of the pod has ended");
        if let Err(error) = self.end_containers(KILL_TIMEOUT).await {
            note(format_args!("end the pod after its first process: {error}"));
        }
        self.sandbox.announce_end();
    }

    /// Kills every container, waits for their exit records, undoes the namespaces. Repeatable. Creations and ends share
    /// `time_limit`; a container that does not die by then is given up.
    pub async fn stop_sandbox(&self, time_limit: Duration) -> Result<(), Error> {
        self.end_containers(time_limit).await?;
        failpoint!(SANDBOX_EMPTIED)?;
        self.sandbox.destroy(&self.id).await?;
        self.emptied.notify_one();
        heap::trim();
        Ok(())
    }

    /// Refuses new containers, kills the present ones and waits for their exit records.
    async fn end_containers(&self, time_limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + time_limit;
        let closed = timeout_at(deadline, self.close_sandbox()).await;
        closed.map_err(|_| Error::TooLong("the creation of a container".into()))?;
        let containers = self.containers();
        for container in containers.iter().filter(|container| is_alive(container)) {
            if let Err(error) = container.kill(KILL, true) {
                note(format_args!("stop sandbox: {error}"));
            }
        }
        for container in &containers {
            if timeout_at(deadline, container.wait()).await.is_err() {
                note(format_args!("container {} does not die, and is given up", container.id()));
                container.give_up();
                let ended = timeout(LAST_OUTPUT_TIMEOUT, container.wait()).await;
                ended.map_err(|_| Error::TooLong(format!("the end of container {}", container.id())))?;
            }
        }
        Ok(())
    }

    /// Refuses new containers. Creations under way get a moment to finish and are then given up.
    async fn close_sandbox(&self) {
        if timeout(PENDING_CREATION_TIMEOUT, self.sandbox.close()).await.is_err() {
            self.creations.cancel_all();
            self.sandbox.close().await;
        }
    }

    /// Whether the shim can leave without loss: it has no container and no running sandbox.
    pub fn is_empty(&self) -> bool {
        let no_sandbox =
            matches!(self.sandbox.phase(), sandbox::Phase::Absent | sandbox::Phase::Stopped { .. });
        no_sandbox && self.containers.is_empty()
    }

    /// Makes the shim exit once requests under way are answered. The socket is removed at once, because the caller may
    /// start another shim as soon as it has the answer.
    pub fn close(&self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            note(format_args!("remove {}: {error}", self.socket.display()));
        }
        killpoint!(SOCKET_REMOVED);
        self.closing.send_replace(true);
    }

    /// Waits for [`Pod::close`].
    pub async fn closed(&self) {
        // The sender lives as long as self.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Closes the shim once nothing runs in it and its bundle is gone: no request can come for it any more. While
    /// containers run the shim stays, even without its bundle: it must not end their work.
    pub async fn close_when_unused(&self) {
        while !self.is_idle() || self.bundle.exists() {
            // `emptied` does not announce container ends, failed creations or the removal of the bundle, so poll for them.
            let _ = timeout(IDLE_CHECK_INTERVAL, self.emptied.notified()).await;
        }
        note("the bundle is gone and nothing runs: leaving");
        self.close();
    }

    /// Whether nothing runs or is being created; ended containers may still be known.
    fn is_idle(&self) -> bool {
        let up = matches!(self.sandbox.phase(), sandbox::Phase::Created | sandbox::Phase::Ready { .. });
        !up && self.containers.none_matches(is_alive)
    }
}

fn is_alive(container: &Container) -> bool {
    !matches!(container.phase(), Phase::Stopped(_))
}

fn neighbour(container: &Container) -> Neighbour<'_> {
    Neighbour { id: container.id(), pid: container.pid(), process: container.process().as_fd() }
}
