//! The stage: a short-lived process that reads the spec, makes the cgroup, opens sources on the host and makes the
//! process that becomes the container.

mod enter;

pub(super) use enter::CgroupEntry;

use super::channel::{self, DescriptorKind, Report};
use super::error::At;
use super::hooks::{HookContext, HookRunner};
use super::inroot::InRoot;
use super::keyring::Keyring;
use super::masks::{self, MaskMounts};
use super::mounts::{self, Prepared, Sources};
use super::namespaces::Namespaces;
use super::process::{self, PreparedProcess};
use super::rootfs::Rootfs;
use super::terminal::Terminal;
use super::{
    CreateRequest, Error, ExecRequest, Moment, Step, cwd, devices, limits, rootfs, security, step_file,
    sysctl, user,
};
use crate::cgroup::{Cgroup, CgroupFd};
use crate::spec::{Resources, Spec};
use crate::sys;
use berth_failpoint::{failpoint, killpoint};
use rustix::system::{setdomainname, sethostname};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Seconds that the kernel may take to reclaim memory for a lower limit.
const UPDATE_TIMEOUT_SECONDS: u32 = 10;

/// Stage of a new container; returns the exit code.
pub(super) fn create(request: &CreateRequest<'_>, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || stage_create(request, socket))
}

/// Stage of an exec; returns the exit code.
pub(super) fn exec(request: &ExecRequest<'_>, entry: CgroupEntry, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || enter::stage(request, entry, socket))
}

/// Stage that runs poststart or poststop hooks; returns the exit code.
pub(super) fn run_hooks(id: &str, bundle: &Path, moment: Moment, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || {
        process::begin(&[socket])?;
        let spec = read_spec(bundle)?;
        let hook_context = HookContext { id, bundle, spec: &spec };
        match moment {
            Moment::Poststart(pid) => hook_context.run("poststart", &spec.hooks.poststart, "running", pid),
            Moment::Poststop => hook_context.run("poststop", &spec.hooks.poststop, "stopped", 0),
        }
    })
}

/// Stage of a change of limits; returns the exit code.
pub(super) fn update(cgroup: &Cgroup, resources: &Resources, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || {
        process::begin(&[socket])?;
        sys::interrupt_after(UPDATE_TIMEOUT_SECONDS);
        Ok(cgroup.update(resources)?)
    })
}

/// Stage that creates bind mount sources for another runtime; returns the exit code.
pub(super) fn make_mount_sources(bundle: &Path, socket: BorrowedFd<'_>) -> u8 {
    reporting(socket, || {
        process::begin(&[socket])?;
        read_spec(bundle)?.mounts.iter().try_for_each(mounts::provide_source)
    })
}

/// Runs `work` and reports its failure. Returns the exit code.
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
    let spec: Spec = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(Step::Config, format!("{}: {error}", path.display())))?;
    match spec.unsupported() {
        Some(member) => Err(unsupported(member)),
        None => Ok(spec),
    }
}

fn unsupported(member: &str) -> Error {
    Error::Unsupported(format!("{member} is"))
}

fn stage_create(request: &CreateRequest<'_>, socket: BorrowedFd<'_>) -> Result<(), Error> {
    process::begin(&request.descriptors(socket))?;
    let mut spec = read_spec(request.bundle)?;
    security::label_mounts(&mut spec);
    limits::set_oom_score(spec.process.oom_score_adj)?;
    let namespaces = Namespaces::plan(&spec.linux, request.pod, request.neighbours)?;
    let users = namespaces.user.as_ref().map(|user| &user.mappings);
    let process = PreparedProcess::prepare(&spec.process, request.terminal, &request.stdio, users)?
        .with_settings_of(&spec.linux)?;
    let keyring = Keyring::of(request.id, request.bundle)?;
    Cgroup::for_creation(&spec.linux.cgroups_path)?;
    channel::send(socket, &Report::Group(spec.linux.cgroups_path.clone()), &[]);
    let cgroup = Cgroup::create(&spec.linux.cgroups_path, request.id, &spec.linux.resources)?;
    failpoint!(CGROUP_MADE)?;
    let container = Container { request, spec: &spec, namespaces: &namespaces, keyring };
    container.spawn(process, &cgroup, socket).inspect_err(|_| {
        let _ = cgroup.remove();
    })
}

/// A new container, as the stage and its first process see it.
struct Container<'a> {
    request: &'a CreateRequest<'a>,
    spec: &'a Spec,
    namespaces: &'a Namespaces,
    keyring: Keyring,
}

/// Resources that the stage prepared for the container's first process.
struct StageResources<'a> {
    mounts: Vec<Prepared<'a>>,
    root: Option<OwnedFd>,
    mask_mounts: Option<MaskMounts>,
    runner: Option<&'a HookRunner>,
}

impl Container<'_> {
    fn spawn(
        &self,
        process: PreparedProcess<'_>,
        cgroup: &Cgroup,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let (pod, user, devices) =
            (self.request.pod, self.namespaces.user.as_ref(), &self.spec.linux.devices);
        let mounts = mounts::prepare(&self.spec.mounts, Sources { pod, cgroup, user, devices })?;
        let root = user.map(|user| self.rootfs().prepare(user)).transpose()?;
        let mask_mounts = MaskMounts::prepare(&self.spec.linux.masked_paths)?;
        failpoint!(MOUNTS_PREPARED)?;
        let cgroup_fd = cgroup.open_fd()?;
        let runner = HookRunner::start(self.hook_context(), |hooks| reporting(socket, || hooks))?;
        self.namespaces.enter()?;
        let prepared = StageResources { mounts, root, mask_mounts, runner: runner.as_ref() };
        let first_process = || self.become_container(process, prepared, &cgroup_fd, socket);
        let pid = sys::clone_sibling(self.namespaces.new, cgroup_fd.directory(), first_process)
            .at(Step::Process, || "make the container's first process".into())?;
        killpoint!(CONTAINER_FORKED);
        channel::send(socket, &Report::Spawned { pid, later: self.hook_context().later_hooks() }, &[]);
        if let Some(runner) = runner {
            runner.run_for(pid);
        }
        Ok(())
    }

    fn hook_context(&self) -> HookContext<'_> {
        HookContext { id: self.request.id, bundle: self.request.bundle, spec: self.spec }
    }

    fn rootfs(&self) -> Rootfs<'_> {
        let CreateRequest { rootfs: mounts, bundle, .. } = self.request;
        Rootfs { mounts, bundle, path: &self.spec.root.path }
    }

    /// The whole life of the container's first process up to execve.
    fn become_container(
        &self,
        mut process: PreparedProcess<'_>,
        prepared: StageResources<'_>,
        cgroup_fd: &CgroupFd,
        socket: BorrowedFd<'_>,
    ) -> u8 {
        let code = reporting(socket, || {
            user::die_with_shim()?;
            self.enter_namespaces(cgroup_fd)?;
            failpoint!(CONTAINER_ENTERED)?;
            self.set_up(&mut process, prepared, socket)
        });
        if code == 0 {
            wait_and_execute(socket, &process, |socket| {
                channel::wait_at_barrier(socket) && self.run_start_container_hooks(socket)
            });
        }
        code
    }

    /// Runs the startContainer hooks, as the user that the container's command will run as.
    fn run_start_container_hooks(&self, socket: BorrowedFd<'_>) -> bool {
        let hooks = &self.spec.hooks.start_container;
        reporting(socket, || self.hook_context().run("startContainer", hooks, "created", own_pid())) == 0
    }

    fn enter_namespaces(&self, cgroup_fd: &CgroupFd) -> Result<(), Error> {
        cgroup_fd.enter()?;
        rustix::process::setsid().at(Step::Process, || "lead a session".into())?;
        if self.namespaces.new_cgroup {
            sys::unshare(libc::CLONE_NEWCGROUP).at(Step::Namespace, || "make Cgroup".into())?;
        }
        if self.namespaces.new & libc::CLONE_NEWUTS != 0 {
            set_host_name(&self.spec.hostname, &self.spec.domainname)?;
        }
        Ok(())
    }

    /// The host's root is needed to reach the bundle; all further steps need the root of the user namespace, if there is one.
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
        process: &mut PreparedProcess<'_>,
        prepared: StageResources<'_>,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let StageResources { mounts, root, mut mask_mounts, runner } = prepared;
        step_file::record(|| "mount the root file system".into());
        let root = self.mount_root(root)?;
        let inside = InRoot(root.as_fd());
        self.fill_root(inside, mounts, runner)?;
        security::label_self(&self.spec.process)?;
        self.close_host_descriptors(process, inside, mask_mounts.as_ref(), socket)?;
        rootfs::pivot(inside.0)?;
        rootfs::propagate(inside.0, &self.spec.linux.rootfs_propagation)?;
        let terminal = self.finish_root(process, inside, mask_mounts.as_mut())?;
        self.keyring.make()?;
        process.set_up_stdio_and_cwd(inside, terminal.as_ref())?;
        process.control_terminal()?;
        process.set_rlimits()?;
        process.drop_privileges(inside)?;
        process.reset_priority_of_children()?;
        ready(socket, terminal.as_ref());
        Ok(())
    }

    /// Mounts and creates all that needs the host's file systems in sight.
    fn fill_root(
        &self,
        root: InRoot<'_>,
        mounts: Vec<Prepared<'_>>,
        runner: Option<&HookRunner>,
    ) -> Result<(), Error> {
        rustix::process::umask(rustix::fs::Mode::empty());
        mounts::attach(mounts, root)?;
        if !mounts::binds_dev(&self.spec.mounts) {
            devices::make(root, &self.spec.linux.devices)?;
        }
        step_file::record(|| "run the hooks of its creation".into());
        if let Some(runner) = runner {
            runner.wait_for_hooks();
        }
        self.hook_context().run("createContainer", &self.spec.hooks.create_container, "creating", own_pid())
    }

    /// Closes all descriptors that lead to the host. No value dropped later owns one of them.
    fn close_host_descriptors(
        &self,
        process: &PreparedProcess<'_>,
        root: InRoot<'_>,
        mask_mounts: Option<&MaskMounts>,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let mut kept = process.descriptors();
        kept.extend([socket, root.0]);
        kept.extend(mask_mounts.map(AsFd::as_fd));
        kept.extend(step_file::descriptor());
        sys::close_others(&kept).at(Step::Process, || "close descriptors".into())
    }

    /// The last changes to the root filesystem, by paths that the image or a volume may have prepared.
    fn finish_root(
        &self,
        process: &PreparedProcess<'_>,
        root: InRoot<'_>,
        mask_mounts: Option<&mut MaskMounts>,
    ) -> Result<Option<Terminal>, Error> {
        let linux = &self.spec.linux;
        let terminal = process.terminal(root)?;
        if let Some(terminal) = &terminal {
            terminal.bind_console(root)?;
        }
        step_file::record(|| format!("make the working directory {:?}", self.spec.process.cwd));
        cwd::create(root, &self.spec.process.cwd)?;
        masks::make_read_only(root, &linux.readonly_paths)?;
        if let Some(mask_mounts) = mask_mounts {
            mask_mounts.hide(root, &linux.masked_paths)?;
        }
        if self.spec.root.readonly {
            rootfs::seal(root.0)?;
        }
        Ok(terminal)
    }
}

/// Reports that setup is complete, and passes the terminal's master.
fn ready(socket: BorrowedFd<'_>, terminal: Option<&Terminal>) {
    let attached = terminal.iter().map(|_| DescriptorKind::Console).collect();
    let masters: Vec<_> = terminal.iter().map(|terminal| terminal.master.as_fd()).collect();
    channel::send(socket, &Report::Ready { attached }, &masters);
}

/// The process's own pid, in its PID namespace.
fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().cast_unsigned()
}

fn set_host_name(host: &str, domain: &str) -> Result<(), Error> {
    if !host.is_empty() {
        sethostname(host.as_bytes()).at(Step::Hostname, || format!("set {host:?}"))?;
    }
    if !domain.is_empty() {
        setdomainname(domain.as_bytes()).at(Step::Hostname, || format!("set domain {domain:?}"))?;
    }
    Ok(())
}

/// Closes all but the socket, waits for `go` and executes the command, or exits. Nothing is dropped: values may own
/// descriptors that are closed by now.
fn wait_and_execute(
    socket: BorrowedFd<'_>,
    process: &PreparedProcess<'_>,
    go: impl FnOnce(BorrowedFd<'_>) -> bool,
) -> ! {
    let socket = match sys::keep_only(socket).at(Step::Process, || "close descriptors".into()) {
        Ok(socket) => socket,
        Err(error) => sys::leave(reporting(socket, || Err(error))),
    };
    if go(socket.as_fd()) {
        reporting(socket.as_fd(), || process.execute().map(|never: Infallible| match never {}));
    }
    sys::leave(1)
}
