//! The stage process: reads the spec, makes the cgroup, opens what comes from the host, makes the process that becomes the
//! container, and is gone.

use super::channel::{self, Report};
use super::error::At;
use super::hooks::{LaterHooks, Runner, Subject};
use super::idmap::IdMappings;
use super::inroot::InRoot;
use super::mounts::{self, Prepared, Sources};
use super::namespaces::Namespaces;
use super::process::{self, Process};
use super::rootfs::Rootfs;
use super::{
    CreateRequest, Error, ExecProcess, ExecRequest, Moment, Step, cwd, devices, limits, masks, rootfs,
    security, sysctl, user, userns,
};
use crate::cgroup::{self, Cgroup, Door};
use crate::spec::{self, Spec};
use crate::sys;
use berth_failpoint::{failpoint, killpoint};
use rustix::system::{setdomainname, sethostname};
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The stage of a new container; gives the exit code.
pub(super) fn create(request: &CreateRequest<'_>, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || stage_create(request, socket))
}

/// The stage of an exec; gives the exit code.
pub(super) fn exec(request: &ExecRequest<'_>, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || stage_exec(request, socket))
}

/// The stage of hooks that are run later; gives the exit code.
pub(super) fn run_hooks(id: &str, bundle: &Path, moment: Moment, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || {
        process::begin()?;
        let spec = read_spec(bundle)?;
        let subject = Subject { id, bundle, spec: &spec };
        match moment {
            Moment::Poststart(pid) => subject.run("poststart", &spec.hooks.poststart, "running", pid),
            Moment::Poststop => subject.run("poststop", &spec.hooks.poststop, "stopped", 0),
        }
    })
}

/// The stage that makes what another runtime is to bind; gives the exit code.
pub(super) fn make_mount_sources(bundle: &Path, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || {
        process::begin()?;
        read_spec(bundle)?.mounts.iter().try_for_each(mounts::provide_source)
    })
}

/// Runs a part of the way and reports its failure.
fn reporting(socket: BorrowedFd<'_>, work: impl FnOnce() -> Result<(), Error>) -> u8 {
    match work() {
        Ok(()) => 0,
        Err(error) => {
            channel::fail(socket, error);
            1
        }
    }
}

fn read_spec(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    let bytes = std::fs::read(&path).at(Step::Config, || format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(Step::Config, format!("{}: {error}", path.display())))
}

fn stage_create(request: &CreateRequest<'_>, socket: BorrowedFd<'_>) -> Result<(), Error> {
    process::begin()?;
    let mut spec = read_spec(request.bundle)?;
    security::label_mounts(&mut spec);
    limits::set_oom_score(spec.process.oom_score_adj)?;
    let namespaces = Namespaces::plan(&spec.linux, request.pod)?;
    let users = namespaces.user.as_ref().map(|user| &user.mappings);
    let process = Process::prepare(&spec.process, request.terminal, &request.stdio, users)?
        .filtered(spec.linux.seccomp.as_deref())?;
    Cgroup::to_be_made(&spec.linux.cgroups_path)?;
    channel::send(socket, &Report::Group(spec.linux.cgroups_path.clone()), &[]);
    let cgroup = Cgroup::create(&spec.linux.cgroups_path, &spec.linux.resources)?;
    failpoint!(CGROUP_MADE)?;
    let container = Container { request, spec: &spec, namespaces: &namespaces };
    container.spawn(process, &cgroup, socket).inspect_err(|_| {
        let _ = cgroup.remove();
    })
}

/// A new container, as the stage and its first process see it.
struct Container<'a> {
    request: &'a CreateRequest<'a>,
    spec: &'a Spec,
    namespaces: &'a Namespaces,
}

/// What the stage gives the container's first process on its way.
struct Brought<'a> {
    mounts: Vec<Prepared<'a>>,
    root: Option<OwnedFd>,
    runner: Option<&'a Runner>,
}

impl Container<'_> {
    fn spawn(&self, process: Process<'_>, cgroup: &Cgroup, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let (pod, user, devices) =
            (self.request.pod, self.namespaces.user.as_ref(), &self.spec.linux.devices);
        let mounts = mounts::prepare(&self.spec.mounts, Sources { pod, cgroup, user, devices })?;
        let root = user.map(|user| self.rootfs().prepare(user)).transpose()?;
        failpoint!(MOUNTS_PREPARED)?;
        let door = cgroup.door()?;
        let runner = Runner::start(self.subject(), |hooks| reporting(socket, || hooks))?;
        self.namespaces.enter()?;
        let brought = Brought { mounts, root, runner: runner.as_ref() };
        let first_process = || self.become_container(process, brought, &door, socket);
        let pid = sys::clone_sibling(self.namespaces.new, door.directory(), first_process)
            .at(Step::Process, || "make the container's first process".into())?;
        killpoint!(CONTAINER_FORKED);
        channel::send(socket, &Report::Spawned { pid, later: self.subject().later() }, &[]);
        if let Some(runner) = runner {
            runner.finish(pid);
        }
        Ok(())
    }

    fn subject(&self) -> Subject<'_> {
        Subject { id: self.request.id, bundle: self.request.bundle, spec: self.spec }
    }

    fn rootfs(&self) -> Rootfs<'_> {
        let CreateRequest { rootfs: mounts, bundle, .. } = self.request;
        Rootfs { mounts, bundle, path: &self.spec.root.path }
    }

    /// The whole life of the container's first process up to execve.
    fn become_container(
        &self,
        mut process: Process<'_>,
        brought: Brought<'_>,
        door: &Door,
        socket: BorrowedFd<'_>,
    ) -> u8 {
        let code = reporting(socket, || {
            user::die_with_shim()?;
            self.enter_namespaces(door)?;
            failpoint!(CONTAINER_ENTERED)?;
            self.set_up(&mut process, brought, socket)
        });
        if code == 0 {
            last_steps(socket, &process, |socket| channel::wait_for_gate(socket) && self.may_start(socket));
        }
        code
    }

    /// Runs the hooks that come last, as the user that the container's command will run as.
    fn may_start(&self, socket: BorrowedFd<'_>) -> bool {
        let hooks = &self.spec.hooks.start_container;
        reporting(socket, || self.subject().run("startContainer", hooks, "created", own_pid())) == 0
    }

    fn enter_namespaces(&self, door: &Door) -> Result<(), Error> {
        door.enter()?;
        rustix::process::setsid().at(Step::Process, || "lead a session".into())?;
        if self.namespaces.new_cgroup {
            sys::unshare(libc::CLONE_NEWCGROUP).at(Step::Namespace, || "make Cgroup".into())?;
        }
        if self.namespaces.new & libc::CLONE_NEWUTS != 0 {
            name_host(&self.spec.hostname, &self.spec.domainname)?;
        }
        Ok(())
    }

    /// In a user namespace only the host's root finds the way to the bundle, and only its own root may do the rest.
    fn mount_root(&self, prepared: Option<OwnedFd>) -> Result<OwnedFd, Error> {
        let root = rootfs::mount(self.rootfs(), prepared)?;
        if self.namespaces.user.is_some() {
            user::become_root()?;
        }
        let parameters = self.spec.linux.sysctl.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        sysctl::write(parameters, self.namespaces.owned)?;
        Ok(root)
    }

    fn set_up(
        &self,
        process: &mut Process<'_>,
        brought: Brought<'_>,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let (spec, linux) = (self.spec, &self.spec.linux);
        let root = self.mount_root(brought.root)?;
        let label = process.label()?;
        rustix::process::umask(rustix::fs::Mode::empty());
        let inside = InRoot(root.as_fd());
        mounts::attach(brought.mounts, inside)?;
        if !mounts::binds_dev(&spec.mounts) {
            devices::make(inside, &linux.devices)?;
        }
        if let Some(runner) = brought.runner {
            runner.pass();
        }
        self.subject().run("createContainer", &spec.hooks.create_container, "creating", own_pid())?;
        rootfs::pivot(root.as_fd())?;
        rootfs::propagate(root.as_fd(), &linux.rootfs_propagation)?;
        let terminal = process.terminal()?;
        if let Some(terminal) = &terminal {
            terminal.bind_console()?;
        }
        cwd::create(&spec.process.cwd)?;
        masks::make_read_only(&linux.readonly_paths)?;
        masks::hide(&linux.masked_paths)?;
        if spec.root.readonly {
            rootfs::seal(root.as_fd())?;
        }
        process.settle(terminal, label, socket)
    }
}

/// As the process itself sees it.
fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().cast_unsigned()
}

fn name_host(host: &str, domain: &str) -> Result<(), Error> {
    if !host.is_empty() {
        sethostname(host.as_bytes()).at(Step::Hostname, || format!("set {host:?}"))?;
    }
    if !domain.is_empty() {
        setdomainname(domain.as_bytes()).at(Step::Hostname, || format!("set domain {domain:?}"))?;
    }
    Ok(())
}

/// Closes all but the socket, waits until `go` says so, and executes, or ends the process: what it holds descriptors for is
/// never dropped.
fn last_steps(socket: BorrowedFd<'_>, process: &Process<'_>, go: impl FnOnce(BorrowedFd<'_>) -> bool) -> ! {
    let socket = match sys::keep_only(socket).at(Step::Process, || "close descriptors".into()) {
        Ok(socket) => socket,
        Err(error) => sys::leave(reporting(socket, || Err(error))),
    };
    if go(socket.as_fd()) {
        reporting(socket.as_fd(), || process.execute().map(|never: Infallible| match never {}));
    }
    sys::leave(1)
}

fn stage_exec(request: &ExecRequest<'_>, socket: BorrowedFd<'_>) -> Result<(), Error> {
    process::begin()?;
    let (spec, seccomp) = exec_spec(request)?;
    limits::set_oom_score(spec.oom_score_adj)?;
    let place = Place::of(request)?;
    let mut process = Process::prepare(&spec, request.terminal, &request.stdio, place.users.as_ref())?
        .filtered(seccomp.as_deref())?;
    let door = request.cgroup.door()?;
    place.enter()?;
    let pid =
        make_exec(&mut process, &place, &door, socket).at(Step::Process, || "make the process".into())?;
    channel::send(socket, &Report::Spawned { pid, later: LaterHooks::default() }, &[]);
    Ok(())
}

/// The namespaces of the container that an exec goes to.
struct Place<'a> {
    container: BorrowedFd<'a>,
    pid: u32,
    users: Option<IdMappings>,
    own_cgroups: bool,
}

impl<'a> Place<'a> {
    /// What is read by pid holds once the process was joined by its descriptor: it was alive then, so the pid was its own.
    fn of(request: &ExecRequest<'a>) -> Result<Self, Error> {
        let (container, pid) = (request.container, request.container_pid);
        let users = userns::mappings_of(pid).at(Step::Namespace, || joining(pid))?;
        let own_cgroups = !userns::is_own(pid, "cgroup").at(Step::Namespace, || joining(pid))?;
        Ok(Self { container, pid, users, own_cgroups })
    }

    /// Joins all that can be joined before the process is in its cgroup.
    fn enter(&self) -> Result<(), Error> {
        let user = if self.users.is_some() { libc::CLONE_NEWUSER } else { 0 };
        let others = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        self.join(user | others | libc::CLONE_NEWPID)
    }

    fn enter_cgroups(&self) -> Result<(), Error> {
        if self.own_cgroups { self.join(libc::CLONE_NEWCGROUP) } else { Ok(()) }
    }

    fn join(&self, kinds: libc::c_int) -> Result<(), Error> {
        sys::setns(self.container, kinds).at(Step::Namespace, || joining(self.pid))
    }
}

fn joining(pid: u32) -> String {
    format!("join the container of process {pid}")
}

/// The process, and the container's filter, which holds for it as well.
fn exec_spec(request: &ExecRequest<'_>) -> Result<(spec::Process, Option<Box<RawValue>>), Error> {
    let Spec { process, linux, .. } = read_spec(request.bundle)?;
    let process = match request.process {
        ExecProcess::Spec(json) => serde_json::from_slice(json)
            .map_err(|error| Error::invalid(Step::Config, format!("process of the exec: {error}")))?,
        ExecProcess::Args(args) => spec::Process { args: args.to_vec(), ..process },
    };
    Ok((process, linux.seccomp))
}

/// Makes the process in its group, or beside one that has all the processes it may, to go in by itself: whoever looks into such
/// a container, or asks for its health, is let in as on v1.
fn make_exec(
    process: &mut Process<'_>,
    place: &Place<'_>,
    door: &Door,
    socket: BorrowedFd<'_>,
) -> io::Result<u32> {
    let inside = || become_exec(process, place, || door.enter(), socket);
    match sys::clone_sibling(0, door.directory(), inside) {
        Err(full) if door.directory().is_some() && full.raw_os_error() == Some(libc::EAGAIN) => {
            sys::clone_sibling(0, None, || become_exec(process, place, || door.move_in(), socket))
        }
        made => made,
    }
}

fn become_exec(
    process: &mut Process<'_>,
    place: &Place<'_>,
    enter_group: impl FnOnce() -> Result<(), cgroup::Error>,
    socket: BorrowedFd<'_>,
) -> u8 {
    let code = reporting(socket, || {
        user::die_with_shim()?;
        enter_group()?;
        place.enter_cgroups()?;
        if place.users.is_some() {
            user::become_root()?;
        }
        rustix::process::setsid().at(Step::Process, || "lead a session".into())?;
        let label = process.label()?;
        let terminal = process.terminal()?;
        process.settle(terminal, label, socket)
    });
    if code == 0 {
        last_steps(socket, process, channel::shim_lives);
    }
    code
}
