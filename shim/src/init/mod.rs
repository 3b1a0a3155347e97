//! Everything from a request to execve: how a container, or another process in it, is created.
//!
//! ```text
//! shim --fork--> stage (parses config.json, makes the cgroup, opens mount sources)
//!                  `--clone3, CLONE_PARENT--> the container's first process, a child of the shim
//!                                              namespaces, rootfs, mounts, devices, user ... barrier ... execve
//! ```
//! The shim has one thread, so no other thread can hold a lock across fork. Memory that the forks use is freed at execve.
//!
//! What the caller must know:
//! - Call everything from the one thread that lives as long as the shim: its end kills the containers (`PR_SET_PDEATHSIG`).
//! - Containers and execs are children of the caller. Wait for each by its pidfd, not for "any child": that would reap
//!   the stage processes, which are reaped here.
//! - Namespaces: without an entry in `linux.namespaces`, `network`, `ipc` and `uts` are the pod's, or the host's where
//!   the pod has none. With a path that namespace is joined; without a path a new one is made. `pid` without an entry
//!   is the host's. The mount namespace is always new.
//! - The path of a PID namespace may be `container:ID`, that of a neighbour. A `/proc/PID/ns/pid` of the pod's own
//!   processes is joined by their pidfd: the pid may have been reused.
//! - A user namespace, the pod's or the container's, owns all namespaces made for the container. The first process is
//!   created in it, so the stage does whatever needs the host's privileges: the rootfs, bind mounts from the host, `/dev`.
//! - Dropping the future of [`create`] or [`exec`], or a [`Created`] with an unopened barrier, kills the process being set up.

mod capabilities;
mod channel;
mod child;
mod command;
mod cwd;
mod deferred_cleanup;
mod devices;
mod error;
mod filesystem;
mod hooks;
mod idmap;
mod inroot;
mod keyring;
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
mod stage;
mod step_file;
mod sysctl;
mod terminal;
mod user;
mod userns;

pub use capabilities::capability_names;
pub use deferred_cleanup::{cleanup_finished, remove_cgroup_later};
pub use error::{Errno, Error, Step, Unrunnable};
pub use hooks::LaterHooks;
pub use idmap::IdMappings;
pub use namespaces::CONTAINER_PREFIX;
pub use options::mount_options;
pub(crate) use pod::NSFS;
pub use pod::{DEFAULT_SHM, PodNamespaces, PodOptions};
pub use step_file::StepFile;

use crate::cgroup::{self, Cgroup};
use crate::process::KILL_TIMEOUT;
use crate::spec::Resources;
use channel::{Received, Report, Reports};
use child::Child;
use stage::CgroupEntry;
use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for poststop hooks, which nothing else would end.
pub(crate) const POSTSTOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a killed process to be gone, unless it hangs in the kernel.
const STAGE_KILL_TIMEOUT: Duration = Duration::from_millis(50);

/// A mount of the root filesystem, like containerd's Mount message.
#[derive(Debug, Clone, Default)]
pub struct RootfsMount {
    /// `overlay`, `bind`, or another filesystem type.
    pub kind: String,
    /// Device or directory.
    pub source: String,
    /// Path below the root filesystem; ignored for the first mount, and usually empty.
    pub target: String,
    /// As for mount(8).
    pub options: Vec<String>,
}

/// The process's ends of its standard streams; `None` is `/dev/null`. With a terminal they are ignored.
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

/// A container to create.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id; part of the name of its session keyring.
    pub id: &'a str,
    /// Holds `config.json`.
    pub bundle: &'a Path,
    /// Mounted in the container's own mount namespace only; empty when `root.path` is already mounted.
    pub rootfs: &'a [RootfsMount],
    /// Whether a terminal is made; `process.terminal` is ignored.
    pub terminal: bool,
    /// Streams of a process without a terminal.
    pub stdio: Stdio,
    /// The pod whose namespaces it joins.
    pub pod: &'a PodNamespaces,
    /// The containers whose PID namespace it may join.
    pub neighbours: &'a [Neighbour<'a>],
}

/// Another container of the pod; it may have ended.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    /// The id.
    pub id: &'a str,
    /// Host pid of its first process.
    pub pid: u32,
    /// Its pidfd; unlike the pid, never another process.
    pub process: BorrowedFd<'a>,
}

impl CreateRequest<'_> {
    /// The shim's descriptors that the stage keeps.
    fn descriptors<'a>(&'a self, socket: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let mut all = self.stdio.descriptors();
        all.extend(self.pod.descriptors());
        all.extend(self.neighbours.iter().map(|neighbour| neighbour.process));
        all.push(socket);
        all
    }
}

/// A container that is set up and waits before execve.
#[derive(Debug)]
pub struct Created {
    /// Host pid of its first process.
    pub pid: u32,
    /// Its pidfd; unlike the pid, never another process.
    pub pidfd: OwnedFd,
    /// Master end of the terminal.
    pub console: Option<OwnedFd>,
    /// Lets execve happen.
    pub barrier: StartBarrier,
    /// The cgroup; the caller removes it once the processes are gone.
    pub cgroup: Cgroup,
    /// The hooks that the caller runs later, see [`run_hooks`].
    pub later_hooks: LaterHooks,
}

/// Sets a container up to the point before execve. On failure no process, mount or cgroup is left. A future that is dropped
/// before its end kills the processes, and leaves the cgroup.
pub async fn create(request: CreateRequest<'_>) -> Result<Created, Error> {
    create_until(request, &StepFile::new()?, pending()).await
}

/// The same, given up when `stop` completes: its processes are killed, and those that hang in the kernel are not waited
/// for. `step_file` shows the current step.
pub async fn create_until(
    request: CreateRequest<'_>,
    step_file: &StepFile,
    stop: impl Future<Output = ()>,
) -> Result<Created, Error> {
    detect()?;
    let (ours, theirs) = channel::pair()?;
    let stage = Child::fork(|| {
        step_file.install();
        stage::create(&request, theirs.as_fd())
    })?;
    let (id, bundle) = (request.id.to_owned(), request.bundle.to_owned());
    drop((theirs, request));
    let reports = Reports::new(ours)?;
    let mut setup = ProcessSetup::of(&stage, SetupGoal::Ready);
    let result = tokio::select! {
        result = setup.wait(&reports, &stage) => result,
        () = stop => {
            let what = step_file.read();
            setup.abort(stage, &reports).await;
            return Err(Error::Stuck { what });
        }
    };
    if let Err(error) = result {
        drop(reports);
        setup.roll_back(stage).await;
        if setup.later_hooks.poststop {
            // The first failure is reported.
            let _ = timeout(POSTSTOP_TIMEOUT, run_hooks(&id, &bundle, Moment::Poststop)).await;
        }
        return Err(error);
    }
    stage.reaped().await;
    let (pid, pidfd) = setup.take_process()?;
    let (cgroup, later_hooks) = (Cgroup::unchecked(&setup.cgroup), setup.later_hooks);
    Ok(Created { pid, pidfd, console: setup.console, barrier: StartBarrier { reports }, cgroup, later_hooks })
}

/// Moments of hooks that run after the stage has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After execve of the first process, which has this host pid.
    Poststart(u32),
    /// After the end of the container.
    Poststop,
}

/// Runs the hooks of `bundle` for this moment, in a process of their own. Fails with the first hook that fails.
pub async fn run_hooks(id: &str, bundle: &Path, moment: Moment) -> Result<(), Error> {
    in_stage(|socket| stage::run_hooks(id, bundle, moment, socket)).await
}

/// Changes limits of a live cgroup, all of them or none; absent ones stay. Works in a process of its own: the kernel
/// may first have to reclaim memory from the container, which is interrupted after 10 s.
pub async fn update(cgroup: &Cgroup, resources: &Resources) -> Result<(), Error> {
    cgroup::detect();
    in_stage(|socket| stage::update(cgroup, resources, socket)).await
}

/// Creates a directory for each missing bind mount source in `bundle`, for a container that another runtime will make.
/// Works in a process of its own: a source may be on a file system that hangs.
pub async fn make_mount_sources(bundle: &Path) -> Result<(), Error> {
    in_stage(|socket| stage::make_mount_sources(bundle, socket)).await
}

/// Runs `work` in a stage and waits for its end.
async fn in_stage(work: impl FnOnce(BorrowedFd<'_>) -> u8) -> Result<(), Error> {
    let (ours, theirs) = channel::pair()?;
    let stage = Child::fork(|| work(theirs.as_fd()))?;
    drop(theirs);
    let received = Reports::new(ours)?.next().await;
    stage.reaped().await;
    match received? {
        Some(Received { report: Report::Failed(error), .. }) => Err(error),
        _ => Ok(()),
    }
}

/// Holds a container back from execve. Dropped unopened, the process exits with code 1.
#[derive(Debug)]
pub struct StartBarrier {
    reports: Reports,
}

impl StartBarrier {
    /// Lets execve happen and reports whether it worked. After an error the process is gone (reap it by its pidfd).
    pub async fn start(self) -> Result<(), Error> {
        self.reports.release_barrier()?;
        match self.reports.next().await? {
            Some(Received { report: Report::Failed(error), .. }) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Command of an exec.
#[derive(Debug, Clone, Copy)]
pub enum ExecProcess<'a> {
    /// JSON of an OCI process, as shim v2's Exec carries it.
    Spec(&'a [u8]),
    /// These arguments; everything else from the process in the bundle's `config.json`.
    Args(&'a [String]),
}

/// Another process to start in a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The container's bundle.
    pub bundle: &'a Path,
    /// pidfd of the container's first process.
    pub container: BorrowedFd<'a>,
    /// Host pid of that process, for messages.
    pub container_pid: u32,
    /// The command.
    pub process: ExecProcess<'a>,
    /// As for [`CreateRequest::terminal`].
    pub terminal: bool,
    /// Streams of a process without a terminal.
    pub stdio: Stdio,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
}

impl ExecRequest<'_> {
    /// The shim's descriptors that the stage keeps.
    fn descriptors<'a>(&'a self, socket: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let mut all = self.stdio.descriptors();
        all.extend([self.container, socket]);
        all
    }
}

/// An exec after its execve.
#[derive(Debug)]
pub struct Execed {
    /// Host pid.
    pub pid: u32,
    /// Its pidfd; unlike the pid, never another process.
    pub pidfd: OwnedFd,
    /// Master end of the terminal.
    pub console: Option<OwnedFd>,
}

/// Starts another process in a container; returns after its execve.
pub async fn exec(request: ExecRequest<'_>) -> Result<Execed, Error> {
    detect()?;
    match enter(&request, CgroupEntry::AtCreation).await {
        Err(Error::Os { step: Step::Process, cause: Errno(libc::EAGAIN), .. }) => {
            enter(&request, CgroupEntry::AfterCreation).await
        }
        other => other,
    }
}

async fn enter(request: &ExecRequest<'_>, entry: CgroupEntry) -> Result<Execed, Error> {
    let (ours, theirs) = channel::pair()?;
    let stage = Child::fork(|| stage::exec(request, entry, theirs.as_fd()))?;
    drop(theirs);
    let reports = Reports::new(ours)?;
    let mut setup = ProcessSetup::of(&stage, SetupGoal::Executed);
    let result = setup.wait(&reports, &stage).await;
    if let Err(error) = result {
        drop(reports);
        setup.roll_back(stage).await;
        return Err(error);
    }
    stage.reaped().await;
    if let Some(helper) = setup.helper.take() {
        helper.reaped().await;
    }
    let (pid, pidfd) = setup.take_process()?;
    Ok(Execed { pid, pidfd, console: setup.console })
}

/// Detects once, before any fork, what forks would have to detect each time.
fn detect() -> Result<(), Error> {
    cgroup::detect();
    devices::hold_null().map(drop)
}

/// The point at which a setup is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetupGoal {
    Ready,
    Executed,
}

/// A process being set up, as far as the reports received tell.
#[derive(Debug)]
struct ProcessSetup {
    goal: SetupGoal,
    /// Pid of the stage.
    stage: u32,
    helper: Option<Child>,
    child: Option<Child>,
    cgroup: String,
    later_hooks: LaterHooks,
    console: Option<OwnedFd>,
    ready: bool,
    failure: Option<Error>,
}

impl ProcessSetup {
    fn of(stage: &Child, goal: SetupGoal) -> Self {
        Self {
            goal,
            stage: stage.pid,
            helper: None,
            child: None,
            cgroup: String::new(),
            later_hooks: LaterHooks::default(),
            console: None,
            ready: false,
            failure: None,
        }
    }

    /// Follows the reports, which the stage and the process it makes send in any order. After a failure both end, so
    /// end-of-file completes them. But if the stage is killed before it reports the process, that one would wait for
    /// ever: hence `stage_ended`.
    async fn wait(&mut self, reports: &Reports, stage: &Child) -> Result<(), Error> {
        let (stage_ended, mut stage_lives) = (stage.ended(), true);
        tokio::pin!(stage_ended);
        while !(self.goal == SetupGoal::Ready && self.ready && self.child.is_some()) {
            tokio::select! {
                report = reports.next() => match report? {
                    Some(received) => self.handle(received)?,
                    None => return self.result_at_eof(),
                },
                () = &mut stage_ended, if stage_lives => {
                    stage_lives = false;
                    self.handle_rest(reports)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the remaining reports of a stage that has ended: all have arrived.
    fn handle_rest(&mut self, reports: &Reports) -> Result<(), Error> {
        while let Some(received) = reports.try_next()? {
            self.handle(received)?;
        }
        if self.child.is_some() { Ok(()) } else { self.result_at_eof() }
    }

    fn handle(&mut self, received: Received) -> Result<(), Error> {
        let Received { report, attached, sender } = received;
        if !self.may_send(&report) && !self.is_from_stage(sender) {
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
                self.later_hooks = later;
                self.child = Some(Child::adopt(pid)?);
            }
        }
        Ok(())
    }

    /// Whether any process may send this report. Processes of the container may not name what would be killed or removed.
    fn may_send(&self, report: &Report) -> bool {
        match report {
            Report::Failed(_) => true,
            Report::Ready { .. } => self.goal == SetupGoal::Ready,
            Report::Group(_) | Report::Helper { .. } | Report::Spawned { .. } => false,
        }
    }

    fn is_from_stage(&self, sender: u32) -> bool {
        sender == self.stage || self.helper.as_ref().is_some_and(|helper| helper.pid == sender)
    }

    fn result_at_eof(&mut self) -> Result<(), Error> {
        match self.failure.take() {
            Some(error) => Err(error),
            None if self.ready && self.child.is_some() => Ok(()),
            None => Err(Error::Died { step: Step::Process }),
        }
    }

    /// Kills all processes made so far and removes the cgroup. A process that hangs in the kernel is left behind.
    async fn roll_back(&mut self, stage: Child) {
        for process in [Some(stage), self.helper.take(), self.child.take()].into_iter().flatten() {
            // If this times out, the reaper of orphans reaps it later.
            let _ = timeout(KILL_TIMEOUT, process.kill()).await;
        }
        if self.cgroup.is_empty() {
            return;
        }
        // The cgroup may contain a process that was never reported.
        let group = Cgroup::unchecked(&self.cgroup);
        if group.kill_and_remove(KILL_TIMEOUT).await.is_err() {
            remove_cgroup_later(group, "a creation that failed".into());
        }
    }

    /// Kills all processes of the setup. The stage goes first, so that the last reports name every process and cgroup it made.
    async fn abort(mut self, stage: Child, reports: &Reports) {
        stage.stop(STAGE_KILL_TIMEOUT).await;
        let _ = self.handle_rest(reports);
        let processes = [Some(stage), self.helper.take(), self.child.take()];
        deferred_cleanup::kill_and_remove(processes.into_iter().flatten(), self.cgroup).await;
    }

    fn take_process(&mut self) -> Result<(u32, OwnedFd), Error> {
        let died = || Error::Died { step: Step::Process };
        let child = self.child.take().ok_or_else(died)?;
        let pid = child.pid;
        Ok((pid, child.release().ok_or_else(died)?))
    }
}
