//! The stage of an exec. It enters the container as far as it can without being visible there, takes on all attributes
//! of the exec's process, and only then creates that process. So container processes with CAP_SYS_PTRACE never see one
//! that has more than they have.
//!
//! ```text
//! shim --fork--> stage: spec, filter, label ... cgroup (v1), namespaces, streams, directory, user
//!                  |`-- v2: all from the cgroup on in a helper that is made in the cgroup: moving there takes too long
//!                  `--clone, CLONE_PARENT--> the process, in the container's PID namespace ... execve
//! ```

use super::super::child;
use super::super::hooks::LaterHooks;
use super::super::idmap::IdMappings;
use super::super::inroot::InRoot;
use super::super::process::PreparedProcess;
use super::super::{Error, ExecProcess, ExecRequest, Step, priority, userns};
use super::*;
use crate::cgroup::CgroupFd;
use crate::spec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::retry_on_intr;
use rustix::net::SendFlags;

/// How the process gets into the container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum CgroupEntry {
    /// It is created there, by CLONE_INTO_CGROUP.
    AtCreation,
    /// It is created outside and enters by itself, through files opened for that: the way into a cgroup that is at its
    /// pids limit, so that probes and debugging work there, too.
    AfterCreation,
}

/// The whole life of the stage.
pub(super) fn stage(
    request: &ExecRequest<'_>,
    entry: CgroupEntry,
    socket: BorrowedFd<'_>,
) -> Result<(), Error> {
    process::begin(&request.descriptors(socket))?;
    let (spec, linux) = read(request)?;
    limits::set_oom_score(spec.oom_score_adj)?;
    limits::raise(&spec.rlimits)?;
    let container_namespaces = ContainerNamespaces::of(request)?;
    let process = PreparedProcess::prepare(
        &spec,
        request.terminal,
        &request.stdio,
        container_namespaces.users.as_ref(),
    )?
    .with_settings_of(&linux)?;
    security::label_self(&spec)?;
    let keyring = Keyring::of(request.id, request.bundle)?;
    let cgroup_fd = request.cgroup.open_fd()?;
    let creator = ExecCreator { container_namespaces, process, keyring, socket };
    match (entry, cgroup_fd.directory()) {
        (CgroupEntry::AfterCreation, _) => creator.make(Some(&cgroup_fd.for_unprivileged_entry()?)),
        (CgroupEntry::AtCreation, None) => {
            cgroup_fd.enter()?;
            creator.make(None)
        }
        (CgroupEntry::AtCreation, Some(directory)) => make_inside(creator, directory),
    }
}

/// Lets a helper, which is created in the cgroup, make the process.
fn make_inside(creator: ExecCreator<'_>, group: BorrowedFd<'_>) -> Result<(), Error> {
    let socket = creator.socket;
    let (ours, theirs) = channel::pair()?;
    let mut ours = Some(ours);
    let inside = || {
        // Only the stage must hold this end, so that it closes when the stage dies.
        drop(ours.take());
        reporting(socket, || {
            user::die_with_shim()?;
            // The shim rejects reports of a sender it has not been told about, so wait until the stage has reported this helper.
            match channel::wait_at_barrier(theirs.as_fd()) {
                true => creator.make(None),
                false => Ok(()),
            }
        })
    };
    let pid = sys::clone_sibling(0, Some(group), inside).at(Step::Process, || MAKE_PROCESS.into())?;
    channel::send(socket, &Report::Helper { pid }, &[]);
    let helper = child::pidfd_of(pid)?;
    let sent = ours.map(|ours| rustix::net::send(ours, b"g", SendFlags::NOSIGNAL)).transpose();
    sent.map(drop).at(Step::Process, || MAKE_PROCESS.into())?;
    let waited = retry_on_intr(|| poll(&mut [PollFd::new(&helper, PollFlags::IN)], None));
    waited.map(drop).at(Step::Process, || "wait for the process that makes it".into())
}

const MAKE_PROCESS: &str = "make the process";

/// The process to run, and the `linux` section, which applies to it as well.
fn read(request: &ExecRequest<'_>) -> Result<(spec::Process, spec::Linux), Error> {
    let Spec { process, linux, .. } = read_spec(request.bundle)?;
    let process = match request.process {
        ExecProcess::Spec(json) => serde_json::from_slice(json)
            .map_err(|error| Error::invalid(Step::Config, format!("process of the exec: {error}")))?,
        ExecProcess::Args(args) => spec::Process { args: args.to_vec(), ..process },
    };
    priority::must_be_inherited(&process)?;
    match process.unsupported() {
        Some(member) => Err(unsupported(member)),
        None => Ok((process, linux)),
    }
}

/// The namespaces of the container that an exec enters.
struct ContainerNamespaces<'a> {
    container: BorrowedFd<'a>,
    pid: u32,
    users: Option<IdMappings>,
    own_cgroups: bool,
}

impl<'a> ContainerNamespaces<'a> {
    /// Reads under /proc/PID before the join by pidfd. If the join succeeds the process was alive all the time, so the
    /// pid was its own.
    fn of(request: &ExecRequest<'a>) -> Result<Self, Error> {
        let (container, pid) = (request.container, request.container_pid);
        let users = userns::mappings_of(pid).at(Step::Namespace, || joining(pid))?;
        let own_cgroups = !userns::is_own(pid, "cgroup").at(Step::Namespace, || joining(pid))?;
        Ok(Self { container, pid, users, own_cgroups })
    }

    /// Enters all namespaces. A new PID namespace applies only to children made afterwards, setns(2).
    fn enter(&self) -> Result<(), Error> {
        let user = if self.users.is_some() { libc::CLONE_NEWUSER } else { 0 };
        let cgroups = if self.own_cgroups { libc::CLONE_NEWCGROUP } else { 0 };
        let others = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        sys::setns(self.container, user | cgroups | others | libc::CLONE_NEWPID)
            .at(Step::Namespace, || joining(self.pid))?;
        if self.users.is_some() { user::become_root() } else { Ok(()) }
    }
}

fn joining(pid: u32) -> String {
    format!("join the container of process {pid}")
}

/// The process that makes the exec's process and then ends.
struct ExecCreator<'a> {
    container_namespaces: ContainerNamespaces<'a>,
    process: PreparedProcess<'a>,
    keyring: Keyring,
    socket: BorrowedFd<'a>,
}

impl ExecCreator<'_> {
    /// Takes on the attributes of the process and makes it. `cgroup_fd` is set if that one has yet to enter the cgroup.
    fn make(mut self, cgroup_fd: Option<&CgroupFd>) -> Result<(), Error> {
        self.assume_attributes()?;
        let mut kept = vec![self.socket];
        kept.extend(cgroup_fd.map(CgroupFd::descriptors).unwrap_or_default());
        sys::close_others(&kept).at(Step::Process, || "close descriptors".into())?;
        // Leave without dropping anything: values may own descriptors that are closed by now.
        sys::leave(reporting(self.socket, || {
            self.process.load_filter_early()?;
            let pid = sys::legacy_clone_sibling(|| self.become_exec(cgroup_fd))
                .at(Step::Process, || MAKE_PROCESS.into())?;
            channel::send(self.socket, &Report::Spawned { pid, later: LaterHooks::default() }, &[]);
            Ok(())
        }))
    }

    fn assume_attributes(&mut self) -> Result<(), Error> {
        self.container_namespaces.enter()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open("/", flags, Mode::empty()).at(Step::Namespace, || "open the root".into())?;
        let inside = InRoot(root.as_fd());
        let terminal = self.process.terminal(inside)?;
        self.keyring.join()?;
        self.process.set_up_stdio_and_cwd(inside, terminal.as_ref())?;
        self.process.drop_privileges(inside)?;
        ready(self.socket, terminal.as_ref());
        Ok(())
    }

    /// In the new process: the steps that it must do for itself.
    fn become_exec(&self, cgroup_fd: Option<&CgroupFd>) -> u8 {
        reporting(self.socket, || {
            user::die_with_shim()?;
            cgroup_fd.map_or(Ok(()), CgroupFd::enter)?;
            rustix::process::setsid().at(Step::Process, || "lead a session".into())?;
            self.process.control_terminal()?;
            self.process.set_rlimits()?;
            self.process.reset_priority_of_children()?;
            match channel::shim_lives(self.socket) {
                true => self.process.execute().map(|never: Infallible| match never {}),
                false => Ok(()),
            }
        });
        1
    }
}
