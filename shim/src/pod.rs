//! Everything one shim holds: at most one sandbox, and containers.

use crate::container::{Container, Identity, Phase, Surroundings};
use crate::creations::Creations;
use crate::error::Error;
use crate::exit::{Exit, Room};
use crate::init::{
    self, CreateRequest, Created, Neighbour, PodNamespaces, PodOptions, RootfsMount, Slate, Stdio,
};
use crate::process::{DEATH_PATIENCE, KILL, Process};
use crate::sandbox::{self, Sandbox};
use crate::shim_log::note;
use crate::slots::Slots;
use crate::stdio::{Outside, Streams, connect};
use crate::sys::heap;
use berth_failpoint::{failpoint, killpoint};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the last output of a container that was given up may take: two FIFOs that nobody reads take 13 s.
const BURIAL_PATIENCE: Duration = Duration::from_secs(15);
/// How long a container that is being created may take when the pod is stopped.
const CREATION_PATIENCE: Duration = Duration::from_secs(1);
/// How often a shim looks whether it holds nothing any more, and whether its bundle is still there.
const LOOK: Duration = Duration::from_secs(30);

/// The state of a shim.
#[derive(Debug)]
pub struct Pod {
    id: String,
    bundle: PathBuf,
    socket: PathBuf,
    surroundings: Surroundings,
    sandbox: Sandbox,
    containers: Arc<Slots<Container>>,
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
    /// A shim that holds nothing yet and listens on `socket`.
    pub fn new(id: String, bundle: PathBuf, socket: PathBuf, surroundings: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            id,
            bundle,
            socket,
            surroundings,
            sandbox: Sandbox::default(),
            containers: Slots::empty(),
            creations: Creations::default(),
            emptied: Notify::new(),
            closing: watch::Sender::new(false),
        })
    }

    /// The id it was started with: the sandbox's.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pod itself.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What everything in it shares.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The container of that id; one that is still being created is not there yet.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        self.containers.get(id)
    }

    /// All containers, by id.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.all()
    }

    /// The containers that are being created, each with what that is at.
    pub fn creations(&self) -> Vec<(String, String)> {
        self.creations.all()
    }

    /// Makes a container up to the point where only execve is missing, or fails when that takes longer than `limit` or the
    /// pod is stopped meanwhile.
    pub async fn create(&self, new: NewContainer, limit: Duration) -> Result<Arc<Container>, Error> {
        let deadline = Instant::now() + limit;
        let id = new.identity.id.clone();
        let reservation = self.containers.reserve(&id)?;
        let namespaces = self.sandbox.enter(&self.id).await?;
        let names = &new.identity.names;
        let streams = Streams::parse(&names.stdin, &names.stdout, &names.stderr, names.terminal)?;
        let (stdio, outside) =
            connect(&streams).map_err(|source| Error::Streams { id: id.clone(), source })?;
        failpoint!(STREAMS_OPENED)?;
        let room = Room::reserve(&new.identity.bundle).map_err(|source| Error::Io {
            doing: "make room for the exit record of",
            id: id.clone(),
            source,
        })?;
        let _creation = self.surroundings.orphans.creation();
        let created = self.set_up(&new, &namespaces, stdio, deadline).await;
        let created = created.map_err(|source| Error::Init { doing: "create", id: id.clone(), source })?;
        let container = self.adopt(new.identity, outside, created).await?;
        room.keep();
        killpoint!(CONTAINER_ADOPTED);
        reservation.fill(&container);
        heap::trim();
        Ok(container)
    }

    /// What init does of it, given up at the deadline or when the pod is stopped.
    async fn set_up(
        &self,
        new: &NewContainer,
        pod: &PodNamespaces,
        stdio: Stdio,
        deadline: Instant,
    ) -> Result<Created, init::Error> {
        let Identity { id, bundle, names } = &new.identity;
        let containers = self.containers();
        let neighbours: Vec<_> = containers.iter().map(|container| neighbour(container)).collect();
        let (rootfs, terminal, neighbours) = (&new.rootfs, names.terminal, &neighbours);
        let request = CreateRequest { id, bundle, rootfs, terminal, stdio, pod, neighbours };
        let slate = Arc::new(Slate::new()?);
        let noted = self.creations.note(id, &slate);
        init::create_until(request, &slate, noted.stop(deadline)).await
    }

    async fn adopt(
        &self,
        identity: Identity,
        outside: Outside,
        created: Created,
    ) -> Result<Arc<Container>, Error> {
        let (id, group) = (identity.id.clone(), created.cgroup.clone());
        match Container::adopt(identity, outside, created, self.surroundings.clone()) {
            Ok(container) => Ok(container),
            Err(source) => {
                let _ = group.end(DEATH_PATIENCE).await;
                Err(Error::Io { doing: "watch", id, source })
            }
        }
    }

    /// Forgets a container that has ended or never started; tells how it ended.
    pub async fn delete(&self, id: &str) -> Result<(Arc<Container>, Exit), Error> {
        let container = self.container(id)?;
        let exit = container.prepare_delete().await?;
        // An exec that was on its way when the container ended may have come into the group since.
        container.leave_cgroup().await;
        failpoint!(TASK_CLEARED)?;
        self.containers.remove(id);
        self.emptied.notify_one();
        heap::trim();
        Ok((container, exit))
    }

    /// Makes the pod's namespaces.
    pub async fn create_sandbox(self: &Arc<Self>, options: &PodOptions) -> Result<(), Error> {
        self.sandbox.create(&self.id, &self.bundle, options).await?;
        heap::trim();
        match self.sandbox.init_pid() {
            Some(pid) => self.watch_init(pid),
            None => Ok(()),
        }
    }

    /// Nothing in a PID namespace outlives its first process, and nothing more can be made in it: that one's end is the pod's.
    fn watch_init(self: &Arc<Self>, pid: u32) -> Result<(), Error> {
        let watched = Process::of_child(pid, &self.surroundings.orphans);
        let init = watched.map_err(|source| Error::Io { doing: "watch", id: self.id.clone(), source })?;
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            init.ended().await;
            pod.init_ended().await;
        });
        Ok(())
    }

    /// Also those containers end that have a PID namespace of their own. What else is the pod's is there until it is stopped.
    async fn init_ended(&self) {
        if matches!(self.sandbox.phase(), sandbox::Phase::Stopped { .. }) {
            return;
        }
        note("the first process of the pod has ended");
        if let Err(error) = self.end_containers(DEATH_PATIENCE).await {
            note(format_args!("end the pod after its first process: {error}"));
        }
        self.sandbox.tell_end();
    }

    /// Kills every container, waits for their ends to be recorded, undoes the namespaces. Repeatable. Containers that are being
    /// created and those that end have `patience` together; one that cannot die is given up then.
    pub async fn stop_sandbox(&self, patience: Duration) -> Result<(), Error> {
        self.end_containers(patience).await?;
        failpoint!(SANDBOX_EMPTIED)?;
        self.sandbox.destroy(&self.id).await?;
        self.emptied.notify_one();
        heap::trim();
        Ok(())
    }

    /// Lets no more containers come, kills those there are, and waits for their ends to be recorded.
    async fn end_containers(&self, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
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
                let told = timeout(BURIAL_PATIENCE, container.wait()).await;
                told.map_err(|_| Error::TooLong(format!("the end of container {}", container.id())))?;
            }
        }
        Ok(())
    }

    /// Lets those containers come that are about to, and gives up those that take longer.
    async fn close_sandbox(&self) {
        if timeout(CREATION_PATIENCE, self.sandbox.close()).await.is_err() {
            self.creations.stop();
            self.sandbox.close().await;
        }
    }

    /// Whether nothing would be lost if the shim left: no container is known, no sandbox is up.
    pub fn is_empty(&self) -> bool {
        let no_sandbox =
            matches!(self.sandbox.phase(), sandbox::Phase::Absent | sandbox::Phase::Stopped { .. });
        no_sandbox && self.containers.is_empty()
    }

    /// Makes the shim leave once the requests under way are answered. The socket goes at once: who has the answer may
    /// start another shim.
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

    /// Closes a shim that holds nothing any more and whose bundle is gone: nobody will ever ask for it again. A shim with
    /// containers stays whatever happens to its directory, because ending somebody's work is not its decision.
    pub async fn close_when_forgotten(&self) {
        while !self.is_idle() || self.bundle.exists() {
            // Nobody tells of the end of a container, of a creation that fails, of a bundle that goes.
            let _ = timeout(LOOK, self.emptied.notified()).await;
        }
        note("the bundle is gone and nothing runs: leaving");
        self.close();
    }

    /// Whether nothing runs; ended containers may still be known.
    fn is_idle(&self) -> bool {
        let up = matches!(self.sandbox.phase(), sandbox::Phase::Created | sandbox::Phase::Ready { .. });
        !up && self.containers.none_is(is_alive)
    }
}

fn is_alive(container: &Container) -> bool {
    !matches!(container.phase(), Phase::Stopped(_))
}

fn neighbour(container: &Container) -> Neighbour<'_> {
    Neighbour { id: container.id(), pid: container.pid(), process: container.process().as_fd() }
}
