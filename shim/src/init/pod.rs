//! The namespaces that the containers of a pod share. No process stays to hold them: a fork makes them, passes them to
//! the shim by descriptor and ends. Only a shared PID namespace needs a first process, which sleeps for ever.

use super::channel::{self, DescriptorKind, Received, Report};
use super::child::{self, Child, pidfd_of};
use super::error::At;
use super::hooks::LaterHooks;
use super::idmap::IdMappings;
use super::options::Options;
use super::sysctl::{self, Owned};
use super::userns::{NamespaceHolder, UserNamespace};
use super::{Error, Step, filesystem, process, rootfs, user};
use crate::cgroup::Cgroup;
use crate::sys;
use berth_failpoint::failpoint;
use rustix::fs::{CWD, Mode, OFlags, fstatfs, open, openat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit for each report of the fork that makes the namespaces. The shim blocks meanwhile, but nothing else runs
/// in the pod yet.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// `f_type` of nsfs, the file system of a pinned namespace.
pub(crate) const NSFS: i64 = 0x6e73_6673;
/// Default size of a pod's `/dev/shm` in bytes.
pub const DEFAULT_SHM: u64 = 64 * 1024 * 1024;

/// Options of a pod.
#[derive(Debug, Clone, Default)]
pub struct PodOptions {
    /// Host name; empty leaves the host's.
    pub hostname: String,
    /// Path where the network namespace is pinned. If it is a network namespace already, that is joined. Required
    /// unless `host_network`.
    pub netns_path: Option<PathBuf>,
    /// The host's network and UTS namespaces.
    pub host_network: bool,
    /// The host's IPC namespace and `/dev/shm`.
    pub host_ipc: bool,
    /// One PID namespace for all containers, whose first process the shim provides.
    pub shared_pid: bool,
    /// The pod's id. A cgroup of this name belongs to the pod alone.
    pub id: String,
    /// Kernel parameters: name, dotted or slashed, and value.
    pub sysctls: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes; 0 means 64 MiB.
    pub shm_size: u64,
    /// The pod's cgroup below each hierarchy's root. Created when missing; removed with the pod only if Berth created
    /// it and nothing else is below it. Empty: no cgroup.
    pub cgroup_path: String,
    /// A user namespace that owns the pod's other namespaces; `None`: the host's.
    pub users: Option<IdMappings>,
    /// Whether missing sources of bind mounts are created as directories.
    pub create_mount_sources: bool,
}

/// A pod's namespaces, held by descriptors. Dropping it leaves the pin: call [`PodNamespaces::destroy`].
#[derive(Debug, Default)]
pub struct PodNamespaces {
    pub(super) net: Option<OwnedFd>,
    pub(super) ipc: Option<OwnedFd>,
    pub(super) uts: Option<OwnedFd>,
    pub(super) user: Option<UserNamespace>,
    /// A mount namespace whose root is the pod's `/dev/shm`.
    pub(super) shm: Option<OwnedFd>,
    init: Option<PodInit>,
    pub(super) creates_mount_sources: bool,
    /// The pin's path, if this pod made the namespace.
    pinned: Option<PathBuf>,
    cgroup: Option<Cgroup>,
}

/// The first process of a shared PID namespace.
#[derive(Debug)]
struct PodInit {
    pid: u32,
    pidfd: OwnedFd,
}

impl PodNamespaces {
    /// Creates the namespaces, pins the network namespace, brings `lo` up, sets host name and sysctls, creates the
    /// pod's cgroup. On failure nothing is left behind. Blocks.
    pub fn create(options: &PodOptions) -> Result<Self, Error> {
        let mut pod = Self::default();
        match pod.fill(options) {
            Ok(()) => Ok(pod),
            Err(error) => {
                let _ = pod.destroy();
                Err(error)
            }
        }
    }

    /// The host's own namespaces: a container without a sandbox.
    pub fn host() -> Self {
        Self::default()
    }

    /// Host pid of the first process of a shared PID namespace. It is a child of the caller, and a wait for "any child"
    /// may return it.
    pub fn init_pid(&self) -> Option<u32> {
        self.init.as_ref().map(|init| init.pid)
    }

    /// Pid and pidfd of the first process of a shared PID namespace.
    pub(super) fn init(&self) -> Option<(u32, BorrowedFd<'_>)> {
        self.init.as_ref().map(|init| (init.pid, init.pidfd.as_fd()))
    }

    /// Descriptors of all namespaces.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let user = self.user.as_ref().map(|user| &user.file);
        let init = self.init.as_ref().map(|init| &init.pidfd);
        let all = [self.net.as_ref(), self.ipc.as_ref(), self.uts.as_ref(), self.shm.as_ref(), user, init];
        all.into_iter().flatten().map(AsFd::as_fd).collect()
    }

    fn fill(&mut self, options: &PodOptions) -> Result<(), Error> {
        self.creates_mount_sources = options.create_mount_sources;
        let netns = if options.host_network { None } else { Some(NetworkPlan::of(options)?) };
        if let Some(NetworkPlan::New(path)) = &netns {
            self.pinned = Some(path.clone());
        }
        if !options.cgroup_path.is_empty() {
            self.cgroup = Some(Cgroup::of_pod(&options.cgroup_path, &options.id));
            Cgroup::ensure(&options.cgroup_path, &options.id)?;
            failpoint!(SANDBOX_CGROUP_MADE)?;
        }
        let (ours, theirs) = channel::pair()?;
        let maker = Child::fork(|| NamespaceMaker { options, netns: &netns, socket: theirs.as_fd() }.run())?;
        drop(theirs);
        let maker = maker.release().ok_or(Error::Died { step: Step::Pod })?;
        set_socket_timeout(&ours, Timeout::Recv, Some(REPORT_TIMEOUT))
            .at(Step::Pod, || "set a deadline".into())?;
        let result = self.receive_reports(ours.as_fd(), options);
        match &result {
            Ok(()) => child::wait(maker.as_fd()),
            Err(_) => child::kill_and_wait(maker.as_fd()),
        }
        result
    }

    fn receive_reports(&mut self, socket: BorrowedFd<'_>, options: &PodOptions) -> Result<(), Error> {
        let (mut ready, mut failure) = (false, None);
        loop {
            match channel::receive(socket).at(Step::Pod, || "receive a report".into())? {
                Some(Received { report: Report::Spawned { pid, .. }, .. }) => {
                    self.init = Some(PodInit { pid, pidfd: pidfd_of(pid)? })
                }
                Some(Received { report: Report::Failed(error), .. }) => failure = Some(error),
                Some(Received { report: Report::Ready { attached }, attached: descriptors, .. }) => {
                    ready = true;
                    attached
                        .into_iter()
                        .zip(descriptors)
                        .for_each(|(what, fd)| self.store(what, fd, options));
                }
                Some(_) => {}
                None => break,
            }
        }
        match failure {
            Some(error) => Err(error),
            None if ready => Ok(()),
            None => Err(Error::Died { step: Step::Pod }),
        }
    }

    fn store(&mut self, what: DescriptorKind, descriptor: OwnedFd, options: &PodOptions) {
        match what {
            DescriptorKind::Net => self.net = Some(descriptor),
            DescriptorKind::Ipc => self.ipc = Some(descriptor),
            DescriptorKind::Uts => self.uts = Some(descriptor),
            DescriptorKind::User => {
                let mappings = options.users.clone().unwrap_or_default();
                self.user = Some(UserNamespace { file: descriptor, mappings });
            }
            DescriptorKind::Shm => self.shm = Some(descriptor),
            DescriptorKind::Console => {}
        }
    }

    /// Kills the pod's first process and waits at most `time_limit` for its end: it ends after all others of its
    /// namespace, one of which may hang in the kernel. Afterwards the reaper of orphans reaps it.
    pub async fn end_init(&mut self, time_limit: Duration) {
        if let Some(init) = self.init.take() {
            child::end(init.pidfd, time_limit).await;
        }
    }

    /// Leaves the removal of the pod's cgroup to the caller.
    pub fn release_cgroup(&mut self) {
        self.cgroup = None;
    }

    /// Kills the pod's first process, unpins the network namespace, removes the pod's cgroup. Repeatable.
    pub fn destroy(&mut self) -> Result<(), Error> {
        if let Some(init) = self.init.take() {
            child::kill_and_wait(init.pidfd.as_fd());
        }
        (self.net, self.ipc, self.uts, self.user, self.shm) = (None, None, None, None, None);
        if let Some(path) = &self.pinned {
            unpin(path)?;
            failpoint!(SANDBOX_UNPINNED)?;
            self.pinned = None;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove()?;
        }
        self.cgroup = None;
        Ok(())
    }
}

/// Source of the network namespace.
#[derive(Debug)]
enum NetworkPlan {
    /// To be created and pinned at this path.
    New(PathBuf),
    /// An existing one; whoever created it also unpins it.
    Join(OwnedFd),
}

impl NetworkPlan {
    fn of(options: &PodOptions) -> Result<Self, Error> {
        let path = options.netns_path.clone().filter(|path| path.is_absolute()).ok_or_else(|| {
            Error::invalid(Step::Pod, format!("netns_path {:?} is not an absolute path", options.netns_path))
        })?;
        match open(&path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
            Err(Errno::NOENT) => Ok(Self::New(path)),
            Err(error) => Err(error).at(Step::Pod, || format!("open {}", path.display())),
            Ok(file) if fstatfs(&file).is_ok_and(|fs| fs.f_type == NSFS) => Ok(Self::Join(file)),
            Ok(_) => Ok(Self::New(path)),
        }
    }
}

fn unpin(path: &Path) -> Result<(), Error> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error).at(Step::Pod, || format!("unmount {}", path.display())),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).at(Step::Pod, || format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The fork that makes the namespaces.
struct NamespaceMaker<'a> {
    options: &'a PodOptions,
    netns: &'a Option<NetworkPlan>,
    socket: BorrowedFd<'a>,
}

impl NamespaceMaker<'_> {
    fn run(&self) -> u8 {
        match self.make() {
            Ok(()) => 0,
            Err(error) => {
                channel::fail(self.socket, error);
                1
            }
        }
    }

    fn make(&self) -> Result<(), Error> {
        let joined = match self.netns {
            Some(NetworkPlan::Join(file)) => file.as_fd(),
            _ => self.socket,
        };
        process::begin(&[self.socket, joined])?;
        let own =
            Owned { net: self.netns.is_some(), ipc: !self.options.host_ipc, uts: !self.options.host_network };
        let user = self.enter_namespaces(own)?;
        failpoint!(SANDBOX_PINNED)?;
        self.configure(own)?;
        let mut made = Vec::new();
        if let Some(user) = user {
            user.enter()?;
            user::become_root()?;
            made.push((DescriptorKind::User, user.file));
        }
        // After entering the user namespace: parameters of the IPC namespace belong to that one's root.
        let parameters = self.options.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        sysctl::write(parameters, own)?;
        for (kind, wanted) in
            [(DescriptorKind::Net, own.net), (DescriptorKind::Ipc, own.ipc), (DescriptorKind::Uts, own.uts)]
        {
            if wanted {
                made.push((kind, namespace_file(kind)?));
            }
        }
        if own.ipc {
            made.push((DescriptorKind::Shm, self.shared_memory()?));
        } else if self.options.shared_pid {
            // No memory to share here, but pivoting hides the host's files from the first process.
            self.shared_memory()?;
        }
        if self.options.shared_pid {
            self.spawn_init()?;
        }
        let attached = made.iter().map(|(kind, _)| *kind).collect();
        let descriptors: Vec<_> = made.iter().map(|(_, fd)| fd.as_fd()).collect();
        channel::send(self.socket, &Report::Ready { attached }, &descriptors);
        Ok(())
    }

    /// Creates the new namespaces and joins the existing one. The user namespace is created but not entered.
    fn enter_namespaces(&self, own: Owned) -> Result<Option<UserNamespace>, Error> {
        let mut kinds = 0;
        if let Some(NetworkPlan::New(_)) = self.netns {
            kinds |= libc::CLONE_NEWNET;
        }
        if own.ipc {
            kinds |= libc::CLONE_NEWIPC;
        }
        if own.uts {
            kinds |= libc::CLONE_NEWUTS;
        }
        let user = self.unshare_from_host(kinds)?;
        failpoint!(SANDBOX_UNSHARED)?;
        match self.netns {
            Some(NetworkPlan::New(path)) => pin(path)?,
            Some(NetworkPlan::Join(file)) => {
                sys::setns(file.as_fd(), libc::CLONE_NEWNET)
                    .at(Step::Pod, || "join the network namespace".into())?;
            }
            None => {}
        }
        Ok(user)
    }

    fn unshare_from_host(&self, kinds: libc::c_int) -> Result<Option<UserNamespace>, Error> {
        let Some(mappings) = &self.options.users else {
            sys::unshare(kinds).at(Step::Pod, || "unshare".into())?;
            return Ok(None);
        };
        let holder = NamespaceHolder::create(mappings, kinds)?;
        holder.join(kinds)?;
        holder.user_namespace().map(Some)
    }

    fn configure(&self, own: Owned) -> Result<(), Error> {
        if own.net {
            sys::bring_up("lo").at(Step::Pod, || "bring lo up".into())?;
        }
        if own.uts && !self.options.hostname.is_empty() {
            let name = &self.options.hostname;
            rustix::system::sethostname(name.as_bytes()).at(Step::Hostname, || format!("set {name:?}"))?;
        }
        Ok(())
    }

    /// A mount namespace that contains only a tmpfs; containers enter it to copy that mount. It never appears in the
    /// host's mount table. Afterwards the process cannot reach the host's files.
    fn shared_memory(&self) -> Result<OwnedFd, Error> {
        let what = || "make the pod's /dev/shm".to_owned();
        let size = if self.options.shm_size == 0 { DEFAULT_SHM } else { self.options.shm_size };
        let options = Options::parse(&["nosuid", "nodev", "noexec", "mode=1777", &format!("size={size}")])?;
        sys::unshare(libc::CLONE_NEWNS).at(Step::Pod, what)?;
        let shm = filesystem::mount("tmpfs", "shm", &options)?;
        let namespace =
            open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Pod, what)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::Pod, what)?;
        let target =
            openat(CWD, "/dev/shm", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Step::Pod, what)?;
        filesystem::attach(shm.as_fd(), target.as_fd()).at(Step::Pod, what)?;
        rootfs::pivot(shm.as_fd())?;
        Ok(namespace)
    }

    /// The first process of a shared PID namespace only has to exist and to ignore SIGCHLD, so that orphans are reaped.
    /// A container with CAP_SYS_PTRACE may take it over, so it has no privileges and, like its creator by now, no
    /// access to the host's files.
    fn spawn_init(&self) -> Result<(), Error> {
        let pid = sys::clone_sibling(libc::CLONE_NEWPID, None, || {
            let _ = user::die_with_shim();
            sys::exit_quietly_on_children();
            let alive = sys::keep_only(self.socket).is_ok_and(|socket| channel::shim_lives(socket.as_fd()));
            if !alive || user::give_up_capabilities().is_err() {
                return 1;
            }
            sys::close_all();
            sys::sleep_without_heap()
        })
        .at(Step::Pod, || "make the first process".into())?;
        channel::send(self.socket, &Report::Spawned { pid, later: LaterHooks::default() }, &[]);
        Ok(())
    }
}

fn namespace_file(kind: DescriptorKind) -> Result<OwnedFd, Error> {
    let name = match kind {
        DescriptorKind::Net => "net",
        DescriptorKind::Ipc => "ipc",
        _ => "uts",
    };
    open(format!("/proc/self/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Pod, || format!("open the {name} namespace"))
}

fn pin(path: &Path) -> Result<(), Error> {
    let what = || format!("pin the network namespace at {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).at(Step::Pod, what)?;
    }
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    open(path, flags, Mode::from_raw_mode(0o444)).at(Step::Pod, what)?;
    mount_bind("/proc/self/ns/net", path).at(Step::Pod, what)
}
