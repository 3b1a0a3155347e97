//! Between a request and execve: how a container, or another process in it, comes to be.
//!
//! ```text
//! shim --fork--> stage (parses config.json, makes the cgroup, opens mount sources)
//!                  `--clone3, CLONE_PARENT--> the container's first process, a child of the shim
//!                                              namespaces, rootfs, mounts, devices, user ... gate ... execve
//! ```
//! The shim has one thread, so fork leaves no lock behind and everything parsed after it is gone at execve.
//!
//! What the caller must know:
//! - Call everything from the one thread that lives as long as the shim: its end kills the containers (`PR_SET_PDEATHSIG`).
//! - Containers and execs are children of the caller. Wait for each by its pidfd, not for "any child": that would steal
//!   the stage processes, which are reaped here.
//! - Namespaces: `network`, `ipc` and `uts` absent from `linux.namespaces` mean the pod's, which are the host's where the
//!   pod has none; with a path that one; without a path a new one. `pid` absent means the host's. Mount is always new.
//! - The path of a PID namespace may be `container:ID`, that of a neighbour. A `/proc/PID/ns/pid` of the pod's own processes is joined by
//!   their descriptors too: the number may be somebody else's by now.
//! - A user namespace, the pod's or the container's, owns all namespaces made for the container. Its first process is in it from
//!   birth, so whatever needs the host's privileges is done by the stage: the rootfs, what is bound from the host, `/dev`.
//! - Dropping the future of [`create`] or [`exec`], or a [`Created`] whose gate was never opened, ends the process that was being set up.

mod capabilities;
mod channel;
mod child;
mod command;
mod cwd;
mod devices;
mod error;
mod filesystem;
mod hooks;
mod idmap;
mod inroot;
mod keyring;
mod left;
mod limits;
mod masks;
mod mounts;
mod namespaces;
mod options;
mod overlay;
mod personality;
mod pod;
mod priority;
mod proc;
mod process;
mod rootfs;
mod security;
mod slate;
mod stage;
mod sysctl;
mod terminal;
mod user;
mod userns;

pub use capabilities::capability_names;
pub use error::{Errno, Error, Step, Unrunnable};
pub use hooks::LaterHooks;
pub use idmap::IdMappings;
pub use left::{end_later, gone};
pub use namespaces::CONTAINER;
pub use options::mount_options;
pub(crate) use pod::NSFS;
pub use pod::{DEFAULT_SHM, PodNamespaces, PodOptions};
pub use slate::Slate;

use crate::cgroup::{self, Cgroup};
use crate::process::DEATH_PATIENCE;
use crate::spec::Resources;
use channel::{Received, Report, Reports};
use child::Child;
use stage::Entry;
use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long hooks may take that come after the end: nothing else could end them.
pub(crate) const POSTSTOP_PATIENCE: Duration = Duration::from_secs(30);
/// What a process that was killed needs to be gone, unless it hangs in the kernel.
const LAST_WORD: Duration = Duration::from_millis(50);

/// A mount of the root filesystem, as containerd's Mount message has it.
#[derive(Debug, Clone, Default)]
pub struct RootfsMount {
    /// `overlay`, `bind`, or another filesystem type.
    pub kind: String,
    /// Device or directory.
    pub source: String,
    /// Path below the root filesystem for all but the first; usually empty.
    pub target: String,
    /// As for mount(8).
    pub options: Vec<String>,
}

/// The process's ends of its standard streams; `None` is `/dev/null`. With a terminal all of them are ignored.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Stdio {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Stdio {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten().map(AsFd::as_fd).collect()
    }
}

/// A container to make.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Names its session keyring, too.
    pub id: &'a str,
    /// Holds `config.json`.
    pub bundle: &'a Path,
    /// Mounted in the container's own mount namespace only; empty when `root.path` is ready.
    pub rootfs: &'a [RootfsMount],
    /// A terminal is made whatever `process.terminal` says.
    pub terminal: bool,
    /// Streams without a terminal.
    pub stdio: Stdio,
    /// Whose namespaces it joins.
    pub pod: &'a PodNamespaces,
    /// Whose PID namespace it may join.
    pub neighbours: &'a [Neighbour<'a>],
}

/// Another container of the pod, which may have ended.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    /// Its id.
    pub id: &'a str,
    /// Host pid of its first process.
    pub pid: u32,
    /// The same process, for sure.
    pub process: BorrowedFd<'a>,
}

impl CreateRequest<'_> {
    /// All that the stage needs of the shim's.
    fn descriptors<'a>(&'a self, socket: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let mut all = self.stdio.descriptors();
        all.extend(self.pod.descriptors());
        all.extend(self.neighbours.iter().map(|neighbour| neighbour.process));
        all.push(socket);
        all
    }
}

/// A container set up completely and waiting before execve.
#[derive(Debug)]
pub struct Created {
    /// Host pid of its first process.
    pub pid: u32,
    /// The same process, for sure.
    pub pidfd: OwnedFd,
    /// Master end of the terminal.
    pub console: Option<OwnedFd>,
    /// Opens the way to execve.
    pub gate: StartGate,
    /// Its cgroup; removing it is the caller's work once the processes are gone.
    pub cgroup: Cgroup,
    /// What the caller has to run later; see [`run_hooks`].
    pub later: LaterHooks,
}

/// Sets a container up to the point just before execve. On failure no process, mount or cgroup is left.
pub async fn create(request: CreateRequest<'_>) -> Result<Created, Error> {
    create_until(request, &Slate::new()?, pending()).await
}

/// The same, given up when `stop` is done: then what was on its way is killed, and left to die where it hangs in the kernel.
/// What it is at is on `slate` all the time.
pub async fn create_until(
    request: CreateRequest<'_>,
    slate: &Slate,
    stop: impl Future<Output = ()>,
) -> Result<Created, Error> {
    detect()?;
    let (ours, theirs) = channel::pair()?;
    let stage = Child::fork(|| {
        slate.take_up();
        stage::create(&request, theirs.as_fd())
    })?;
    let (id, bundle) = (request.id.to_owned(), request.bundle.to_owned());
    drop((theirs, request));
    let reports = Reports::new(ours)?;
    let mut arrival = Arrival::of(&stage, Until::Ready);
    let result = tokio::select! {
        result = arrival.wait(&reports, &stage) => result,
        () = stop => {
            let what = slate.read();
            arrival.abandon(stage, &reports).await;
            return Err(Error::Stuck { what });
        }
    };
    if let Err(error) = result {
        drop(reports);
        arrival.undo(stage).await;
        if arrival.later.poststop {
            // What failed first is what is told.
            let _ = timeout(POSTSTOP_PATIENCE, run_hooks(&id, &bundle, Moment::Poststop)).await;
        }
        return Err(error);
    }
    stage.reaped().await;
    let (pid, pidfd) = arrival.hand_over()?;
    let (cgroup, later) = (Cgroup::open(&arrival.cgroup), arrival.later);
    Ok(Created { pid, pidfd, console: arrival.console, gate: StartGate { reports }, cgroup, later })
}

/// When hooks are run that the stage left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// execve has happened in the first process, which has this pid.
    Poststart(u32),
    /// The container has ended.
    Poststop,
}

/// Runs the hooks of `bundle` for this moment, in a process that ends with them. The first that fails is the error.
pub async fn run_hooks(id: &str, bundle: &Path, moment: Moment) -> Result<(), Error> {
    in_stage(|socket| stage::run_hooks(id, bundle, moment, socket)).await
}

/// Changes limits of a live group, all of them or none; what is absent stays. In a process that ends with it: the kernel may
/// first have to take memory from the container, and is told to give up after 10 s.
pub async fn update(cgroup: &Cgroup, resources: &Resources) -> Result<(), Error> {
    cgroup::detect();
    in_stage(|socket| stage::update(cgroup, resources, socket)).await
}

/// Makes a directory in the place of each source of a bind mount that `bundle` names and that is not there, for a container
/// that another runtime makes. In a process that ends with it: a source may be on a file system that hangs.
pub async fn make_mount_sources(bundle: &Path) -> Result<(), Error> {
    in_stage(|socket| stage::make_mount_sources(bundle, socket)).await
}

/// Runs `work` in a stage of its own, to its end.
async fn in_stage(work: impl FnOnce(BorrowedFd<'_>) -> u8) -> Result<(), Error> {
    let (ours, theirs) = channel::pair()?;
    let stage = Child::fork(|| work(theirs.as_fd()))?;
    drop(theirs);
    let heard = Reports::new(ours)?.next().await;
    stage.reaped().await;
    match heard? {
        Some(Received { report: Report::Failed(error), .. }) => Err(error),
        _ => Ok(()),
    }
}

/// Holds a created container back from execve; dropped unopened, the process ends with code 1.
#[derive(Debug)]
pub struct StartGate {
    reports: Reports,
}

impl StartGate {
    /// Lets execve happen and tells whether it worked. After an error the process is gone (reap it by its pidfd).
    pub async fn start(self) -> Result<(), Error> {
        self.reports.open_gate()?;
        match self.reports.next().await? {
            Some(Received { report: Report::Failed(error), .. }) => Err(error),
            _ => Ok(()),
        }
    }
}

/// What an exec runs.
#[derive(Debug, Clone, Copy)]
pub enum ExecProcess<'a> {
    /// JSON of an OCI process, as shim v2's Exec carries it.
    Spec(&'a [u8]),
    /// These arguments, everything else as the process in the bundle's `config.json`.
    Args(&'a [String]),
}

/// Another process for a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The container's bundle.
    pub bundle: &'a Path,
    /// pidfd of the container's first process.
    pub container: BorrowedFd<'a>,
    /// Its host pid, for messages.
    pub container_pid: u32,
    /// What to run.
    pub process: ExecProcess<'a>,
    /// As for [`CreateRequest::terminal`].
    pub terminal: bool,
    /// Streams without a terminal.
    pub stdio: Stdio,
    /// The container's.
    pub cgroup: &'a Cgroup,
}

impl ExecRequest<'_> {
    /// All that the stage needs of the shim's.
    fn descriptors<'a>(&'a self, socket: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let mut all = self.stdio.descriptors();
        all.extend([self.container, socket]);
        all
    }
}

/// A process that has passed its execve.
#[derive(Debug)]
pub struct Execed {
    /// Host pid.
    pub pid: u32,
    /// The same process, for sure.
    pub pidfd: OwnedFd,
    /// Master end of the terminal.
    pub console: Option<OwnedFd>,
}

/// Starts another process in a container; returns once its execve has worked.
pub async fn exec(request: ExecRequest<'_>) -> Result<Execed, Error> {
    detect()?;
    match enter(&request, Entry::Birth).await {
        Err(Error::Os { step: Step::Process, cause: Errno(libc::EAGAIN), .. }) => {
            enter(&request, Entry::OnFoot).await
        }
        other => other,
    }
}

async fn enter(request: &ExecRequest<'_>, entry: Entry) -> Result<Execed, Error> {
    let (ours, theirs) = channel::pair()?;
    let stage = Child::fork(|| stage::exec(request, entry, theirs.as_fd()))?;
    drop(theirs);
    let reports = Reports::new(ours)?;
    let mut arrival = Arrival::of(&stage, Until::Executed);
    let result = arrival.wait(&reports, &stage).await;
    if let Err(error) = result {
        drop(reports);
        arrival.undo(stage).await;
        return Err(error);
    }
    stage.reaped().await;
    if let Some(helper) = arrival.helper.take() {
        helper.reaped().await;
    }
    let (pid, pidfd) = arrival.hand_over()?;
    Ok(Execed { pid, pidfd, console: arrival.console })
}

/// What is looked at once, before anything is forked.
fn detect() -> Result<(), Error> {
    cgroup::detect();
    devices::hold_null().map(drop)
}

/// How far a process must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Ready,
    Executed,
}

/// What has been heard of a process on its way.
#[derive(Debug)]
struct Arrival {
    until: Until,
    /// Pid of the stage.
    stage: u32,
    helper: Option<Child>,
    child: Option<Child>,
    cgroup: String,
    later: LaterHooks,
    console: Option<OwnedFd>,
    ready: bool,
    failure: Option<Error>,
}

impl Arrival {
    fn of(stage: &Child, until: Until) -> Self {
        Self {
            until,
            stage: stage.pid,
            helper: None,
            child: None,
            cgroup: String::new(),
            later: LaterHooks::default(),
            console: None,
            ready: false,
            failure: None,
        }
    }

    /// Follows the reports. The stage and the process it makes report in any order; after a failure both end, so that
    /// listening to the end tells all there is. But where the stage was killed before it could tell of the process, that one waits
    /// for ever.
    async fn wait(&mut self, reports: &Reports, stage: &Child) -> Result<(), Error> {
        let (stage_ended, mut stage_lives) = (stage.ended(), true);
        tokio::pin!(stage_ended);
        while !(self.until == Until::Ready && self.ready && self.child.is_some()) {
            tokio::select! {
                report = reports.next() => match report? {
                    Some(received) => self.hear(received)?,
                    None => return self.at_end(),
                },
                () = &mut stage_ended, if stage_lives => {
                    stage_lives = false;
                    self.hear_rest(reports)?;
                }
            }
        }
        Ok(())
    }

    /// All that the stage has said is there, now that it has ended.
    fn hear_rest(&mut self, reports: &Reports) -> Result<(), Error> {
        while let Some(received) = reports.there()? {
            self.hear(received)?;
        }
        if self.child.is_some() { Ok(()) } else { self.at_end() }
    }

    fn hear(&mut self, received: Received) -> Result<(), Error> {
        let Received { report, attached, sender } = received;
        if !self.may_say(&report) && !self.is_ours(sender) {
            let reason = format!("process {sender} of the container speaks for the stage");
            return Err(Error::invalid(Step::Process, reason));
        }
        match report {
            Report::Failed(error) => self.failure = Some(error),
            Report::Ready { .. } => {
                self.ready = true;
                self.console = attached.into_iter().next();
            }
            Report::Group(path) => self.cgroup = path,
            Report::Helper { pid } => self.helper = Some(Child::adopt(pid)?),
            Report::Spawned { pid, later } => {
                self.later = later;
                self.child = Some(Child::adopt(pid)?);
            }
        }
        Ok(())
    }

    /// What a process in the container may say of itself: nothing that names what is killed or removed then.
    fn may_say(&self, report: &Report) -> bool {
        match report {
            Report::Failed(_) => true,
            Report::Ready { .. } => self.until == Until::Ready,
            Report::Group(_) | Report::Helper { .. } | Report::Spawned { .. } => false,
        }
    }

    fn is_ours(&self, sender: u32) -> bool {
        sender == self.stage || self.helper.as_ref().is_some_and(|helper| helper.pid == sender)
    }

    fn at_end(&mut self) -> Result<(), Error> {
        match self.failure.take() {
            Some(error) => Err(error),
            None if self.ready && self.child.is_some() => Ok(()),
            None => Err(Error::Died { step: Step::Process }),
        }
    }

    /// Ends all that was made so far. What hangs in the kernel is left behind, and nobody waits for it.
    async fn undo(&mut self, stage: Child) {
        for process in [Some(stage), self.helper.take(), self.child.take()].into_iter().flatten() {
            // Later the orphans' reaper buries it.
            let _ = timeout(DEATH_PATIENCE, process.kill()).await;
        }
        if self.cgroup.is_empty() {
            return;
        }
        // There may be one in it that nobody has told of.
        let group = Cgroup::open(&self.cgroup);
        if group.end(DEATH_PATIENCE).await.is_err() {
            end_later(group, "a creation that failed".into());
        }
    }

    /// Kills all that is on its way, when the stage has had its last word: a process or a group that it made goes unheard else.
    async fn abandon(mut self, stage: Child, reports: &Reports) {
        stage.stop(LAST_WORD).await;
        let _ = self.hear_rest(reports);
        let processes = [Some(stage), self.helper.take(), self.child.take()];
        left::leave(processes.into_iter().flatten(), self.cgroup).await;
    }

    fn hand_over(&mut self) -> Result<(u32, OwnedFd), Error> {
        let died = || Error::Died { step: Step::Process };
        let child = self.child.take().ok_or_else(died)?;
        let pid = child.pid;
        Ok((pid, child.release().ok_or_else(died)?))
    }
}
