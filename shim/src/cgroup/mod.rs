//! A container's or a pod's cgroup, in cgroup v2 or in all mounted v1 hierarchies at once.

mod device_program;
mod devices;
mod files;
mod hierarchy;
mod mark;
mod oom;
mod stats;
mod v1;
mod v2;
mod writes;

pub use oom::OomWatch;
pub use stats::{CpuStats, MemoryStats, PidsStats, Stats};

use crate::process::{KILL, signal_listed};
use crate::spec::Resources;
use hierarchy::{Layout, layout};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use writes::Writes;

/// First and longest interval between checks whether processes have left a cgroup or are frozen.
const POLL_INTERVALS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(1)];

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct Error {
    /// `write "64" to`, `create`, ...
    pub action: String,
    /// The file or directory.
    pub path: PathBuf,
    /// The underlying error.
    pub source: std::io::Error,
}

/// A cgroup, known by its path below each hierarchy's root. Holds no descriptors; cheap to make and to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
    owner: Owner,
}

/// The mark that a cgroup's directory must have before its processes are killed and it is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    /// None: the caller has made the cgroup itself.
    Unchecked,
    /// The id of this container or pod.
    Id(Arc<str>),
    /// The empty mark of a parent that Berth made for several pods: it is removed when empty, and nothing in it is killed.
    SharedParent,
}

/// Open descriptors of a cgroup, by which a new process enters it: opened beforehand, used by the process itself.
#[derive(Debug)]
pub(crate) enum CgroupFd {
    /// v2: the process is created in this directory, by CLONE_INTO_CGROUP.
    Directory(OwnedFd),
    /// The process writes to these files, one per hierarchy. A thread that moves itself by `tasks` needs neither the
    /// system-wide threadgroup lock nor a wait for RCU, unlike a pid written to `cgroup.procs`.
    Tasks(Vec<OwnedFd>),
}

/// A cgroup's directory in one hierarchy, to be mounted in a container.
#[derive(Debug)]
pub(crate) struct HierarchyMount {
    /// Directory name of the hierarchy; empty on v2.
    pub(crate) name: String,
    /// Other names of the hierarchy.
    pub(crate) aliases: Vec<String>,
    /// A detached copy of the mount.
    pub(crate) tree: OwnedFd,
}

/// Detects the machine's cgroup layout once; called before forks so that they need not repeat it.
pub(crate) fn detect() {
    layout();
}

impl Cgroup {
    /// Creates the cgroup for the container `id`, with missing parents, and sets the limits. Fails if the cgroup
    /// exists, which then stays untouched. On failure what was created is removed.
    pub fn create(path: &str, id: &str, resources: &Resources) -> Result<Self, Error> {
        let group = Self::owned_by(id, Self::for_creation(path)?.path);
        group.make().and_then(|()| group.apply(resources, &mut Writes::permanent())).inspect_err(|_| {
            let _ = group.remove();
        })?;
        Ok(group)
    }

    /// Creates the cgroup of the pod `id` unless it exists. An existing one keeps its mark and thereby its owner.
    pub fn ensure(path: &str, id: &str) -> Result<Self, Error> {
        let group = Self::of_pod(path, id);
        if group.is_root() {
            return Ok(group);
        }
        Self::validated(path)?;
        group.make().inspect_err(|_| {
            let _ = group.remove();
        })?;
        Ok(group)
    }

    /// Names a cgroup that is to be created; fails if it exists. Changes nothing.
    pub(crate) fn for_creation(path: &str) -> Result<Self, Error> {
        let group = Self::validated(path)?;
        match group.directories().into_iter().find(|directory| directory.exists()) {
            Some(path) => {
                let source = std::io::Error::from_raw_os_error(libc::EEXIST);
                Err(Error { action: "make for a container alone".into(), path, source })
            }
            None => Ok(group),
        }
    }

    fn validated(path: &str) -> Result<Self, Error> {
        let group = Self::unchecked(path);
        let mut parts = group.path.components();
        if parts.all(|part| matches!(part, Component::Normal(_))) && !group.is_root() {
            return Ok(group);
        }
        let source = ErrorKind::InvalidInput.into();
        Err(Error { action: "use as cgroupsPath".into(), path: path.into(), source })
    }

    /// Names a cgroup that may exist, without an owner check. Changes nothing.
    pub fn unchecked(path: &str) -> Self {
        Self { path: PathBuf::from(path.trim_start_matches('/')), owner: Owner::Unchecked }
    }

    /// Names the cgroup of the container `id`: only one marked with this id is killed in or removed.
    pub fn of_container(path: &str, id: &str) -> Self {
        Self::owned_by(id, Self::unchecked(path).path)
    }

    /// Names the pod's cgroup: its own if the last component is the pod's id, otherwise a parent of several pods.
    pub fn of_pod(path: &str, id: &str) -> Self {
        let path = Self::unchecked(path).path;
        if path.file_name().is_some_and(|name| name == id) {
            return Self::owned_by(id, path);
        }
        Self { path, owner: Owner::SharedParent }
    }

    fn owned_by(id: &str, path: PathBuf) -> Self {
        Self { path, owner: Owner::Id(id.into()) }
    }

    fn is_root(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// Whether the mark of this directory permits to kill and remove there.
    fn owns(&self, directory: &Path) -> bool {
        match &self.owner {
            Owner::Unchecked => true,
            Owner::Id(id) => match mark::read(directory) {
                Some(mark) => mark == id.as_bytes(),
                None => directory.ends_with(&**id) && mark::is_random(id),
            },
            Owner::SharedParent => mark::read(directory).is_some_and(|mark| mark.is_empty()),
        }
    }

    /// Creates and marks the cgroup. Missing parents get the empty mark of a shared parent.
    fn make(&self) -> Result<(), Error> {
        let mark = |made: &Path| match &self.owner {
            Owner::Id(id) if made.ends_with(&self.path) => mark::write(made, id.as_bytes()),
            _ => mark::write(made, b""),
        };
        match layout() {
            Layout::V1(_) => self.v1().create(&mark),
            Layout::V2(root) => v2::create(root, &self.path, &mark),
        }
    }

    fn v1(&self) -> v1::Group<'_> {
        let hierarchies = match layout() {
            Layout::V1(hierarchies) => hierarchies.as_slice(),
            Layout::V2(_) => &[],
        };
        v1::Group { hierarchies, path: &self.path }
    }

    /// The cgroup's directory in every hierarchy.
    fn directories(&self) -> Vec<PathBuf> {
        match layout() {
            Layout::V1(all) => all.iter().map(|hierarchy| hierarchy.mount.join(&self.path)).collect(),
            Layout::V2(root) => vec![root.join(&self.path)],
        }
    }

    /// The directory by which processes are listed and frozen.
    fn primary_directory(&self) -> Option<PathBuf> {
        match layout() {
            Layout::V1(_) => ["freezer", "pids", "memory"].iter().find_map(|name| self.v1().directory(name)),
            Layout::V2(root) => Some(root.join(&self.path)),
        }
    }

    /// Changes limits of a live cgroup, all of them or none; absent ones stay. Device rules are not rolled back.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        let mut writes = Writes::reversible();
        let Err(error) = self.apply(resources, &mut writes) else { return Ok(()) };
        match writes.roll_back() {
            Ok(()) => Err(error),
            Err(left) => Err(Error { action: format!("{error}; and then {}", left.action), ..left }),
        }
    }

    fn apply(&self, resources: &Resources, writes: &mut Writes) -> Result<(), Error> {
        match layout() {
            Layout::V1(_) => self.v1().apply(resources, writes),
            Layout::V2(root) => v2::apply(&root.join(&self.path), resources, writes),
        }
    }

    /// Opens the way into the cgroup.
    pub(crate) fn open_fd(&self) -> Result<CgroupFd, Error> {
        let open = |path: PathBuf, flags| {
            rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|error| Error {
                action: "open".into(),
                path,
                source: error.into(),
            })
        };
        match layout() {
            Layout::V2(root) => {
                open(root.join(&self.path), OFlags::PATH | OFlags::DIRECTORY).map(CgroupFd::Directory)
            }
            Layout::V1(_) => {
                let tasks = self
                    .directories()
                    .into_iter()
                    .map(|directory| open(directory.join("tasks"), OFlags::WRONLY));
                tasks.collect::<Result<_, _>>().map(CgroupFd::Tasks)
            }
        }
    }

    /// Copies the mounts of its directories, for a container to see.
    pub(crate) fn clone_mounts(&self) -> Result<Vec<HierarchyMount>, rustix::io::Errno> {
        let copy = |path: PathBuf| {
            open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        };
        match layout() {
            Layout::V2(root) => Ok(vec![HierarchyMount {
                name: String::new(),
                aliases: Vec::new(),
                tree: copy(root.join(&self.path))?,
            }]),
            Layout::V1(all) => all
                .iter()
                .map(|hierarchy| {
                    let tree = copy(hierarchy.mount.join(&self.path))?;
                    Ok(HierarchyMount { name: hierarchy.name(), aliases: hierarchy.aliases(), tree })
                })
                .collect(),
        }
    }

    /// Kills every process in the cgroup and those below it, if the owner's mark is there. Does not wait for their
    /// ends. Where the kernel lacks `cgroup.kill`, processes being forked may escape: [`Self::kill_and_remove`] repeats
    /// it.
    pub fn kill(&self) -> Result<(), Error> {
        let ours = |directory: &PathBuf| self.owner != Owner::SharedParent && self.owns(directory);
        let Some(directory) = self.primary_directory().filter(ours) else { return Ok(()) };
        if let Layout::V2(_) = layout() {
            match files::write(&directory, "cgroup.kill", "1") {
                // Kernels before 5.14 have no such file.
                Err(error) if error.source.kind() == ErrorKind::NotFound && directory.exists() => {}
                Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(()),
                other => return other,
            }
        }
        if files::procs(&directory)?.is_empty() {
            return Ok(());
        }
        // Freeze first, so that processes cannot fork while the list is walked.
        let held = self.write_frozen(true);
        let killed = signal_in(&directory, KILL, &|_| true);
        match held {
            Ok(()) => killed.and(self.write_frozen(false)),
            Err(_) => killed,
        }
    }

    /// Signals the processes in the cgroup and those below it that `wanted` selects. Safe against pid reuse, see
    /// [`signal_listed`].
    pub fn signal(&self, signal: i32, wanted: &dyn Fn(u32) -> bool) -> Result<(), Error> {
        self.primary_directory().map_or(Ok(()), |directory| signal_in(&directory, signal, wanted))
    }

    /// Kills all processes until the cgroup is empty, and removes it. Fails after `time_limit`: a process that waits for
    /// a dead file system dies only when that answers.
    pub async fn kill_and_remove(&self, time_limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let [mut interval, longest] = POLL_INTERVALS;
        loop {
            let ended = self.kill().and_then(|()| self.remove_now());
            match ended {
                Err(error) if begun.elapsed() >= time_limit => return Err(error),
                Err(_) => sleep(interval).await,
                Ok(()) => return Ok(()),
            }
            interval = longest.min(interval * 2);
        }
    }

    /// Host pids of the processes in the cgroup and those below it; none when the cgroup is gone.
    pub fn procs(&self) -> Result<Vec<u32>, Error> {
        self.primary_directory().map_or(Ok(Vec::new()), |directory| files::procs(&directory))
    }

    /// Whether the cgroup exists.
    pub fn exists(&self) -> bool {
        self.primary_directory().is_some_and(|directory| directory.exists())
    }

    /// Number of processes in the cgroup that the OOM killer has killed.
    pub fn oom_kills(&self) -> u64 {
        let text = match layout() {
            Layout::V1(_) => self
                .v1()
                .directory("memory")
                .and_then(|memory| files::read(&memory, "memory.oom_control").ok()),
            Layout::V2(root) => files::read(&root.join(&self.path), "memory.events").ok(),
        };
        files::field(&text.unwrap_or_default(), "oom_kill")
    }

    /// Freezes all processes; returns once they are frozen. If that takes longer than `time_limit` it thaws them and
    /// fails.
    pub async fn freeze(&self, time_limit: Duration) -> Result<(), Error> {
        let frozen = self.set_frozen(true, time_limit).await;
        frozen.inspect_err(|_| {
            let _ = self.write_frozen(false);
        })
    }

    /// Thaws all processes.
    pub fn thaw(&self) -> Result<(), Error> {
        self.write_frozen(false)
    }

    async fn set_frozen(&self, frozen: bool, time_limit: Duration) -> Result<(), Error> {
        self.write_frozen(frozen)?;
        let deadline = Instant::now() + time_limit;
        let [interval, _] = POLL_INTERVALS;
        while !self.is_frozen()? {
            if Instant::now() >= deadline {
                let source = ErrorKind::TimedOut.into();
                return Err(Error { action: "freeze".into(), path: self.path.clone(), source });
            }
            sleep(interval).await;
        }
        Ok(())
    }

    /// Requests the state without waiting for it.
    fn write_frozen(&self, frozen: bool) -> Result<(), Error> {
        let directory = self.freezer()?;
        match layout() {
            Layout::V1(_) => {
                files::write(&directory, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
            }
            Layout::V2(_) => files::write(&directory, "cgroup.freeze", if frozen { "1" } else { "0" }),
        }
    }

    fn is_frozen(&self) -> Result<bool, Error> {
        let directory = self.freezer()?;
        Ok(match layout() {
            Layout::V1(_) => files::read(&directory, "freezer.state")? == "FROZEN",
            Layout::V2(_) => files::field(&files::read(&directory, "cgroup.events")?, "frozen") == 1,
        })
    }

    fn freezer(&self) -> Result<PathBuf, Error> {
        let directory = match layout() {
            Layout::V1(_) => self.v1().directory("freezer"),
            Layout::V2(root) => Some(root.join(&self.path)),
        };
        directory.ok_or_else(|| Error {
            action: "freeze without a freezer hierarchy".into(),
            path: self.path.clone(),
            source: ErrorKind::Unsupported.into(),
        })
    }

    /// Removes the cgroup and those below it, if the owner's mark is there, and waits a moment for ending processes; no
    /// error when it is gone already. Blocks: the shim itself uses [`Self::kill_and_remove`].
    pub fn remove(&self) -> Result<(), Error> {
        self.remove_with(&files::remove)
    }

    /// The same without waiting: fails if a process is in it.
    pub(crate) fn remove_now(&self) -> Result<(), Error> {
        self.remove_with(&files::remove_now)
    }

    fn remove_with(&self, remove: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
        if self.is_root() {
            return Ok(());
        }
        let directories = self.directories();
        directories.iter().filter(|directory| self.owns(directory)).try_for_each(|directory| {
            match self.owner {
                Owner::SharedParent => files::remove_empty(directory),
                _ => remove(directory),
            }
        })
    }

    /// Resource usage and limits. Fails if the cgroup is gone.
    pub fn stats(&self) -> Result<Stats, Error> {
        if let Some(directory) = self.primary_directory().filter(|directory| !directory.exists()) {
            return Err(Error { action: "read".into(), path: directory, source: ErrorKind::NotFound.into() });
        }
        Ok(match layout() {
            Layout::V1(_) => Stats::of_v1(&self.v1()),
            Layout::V2(root) => Stats::of_v2(&root.join(&self.path)),
        })
    }
}

fn signal_in(directory: &Path, signal: i32, wanted: &dyn Fn(u32) -> bool) -> Result<(), Error> {
    let list = || files::procs(directory).map_err(|error| error.source);
    signal_listed(&list, wanted, signal).map_err(|source| Error {
        action: format!("send signal {signal} to the processes of"),
        path: directory.into(),
        source,
    })
}

impl CgroupFd {
    /// The directory to create a process in, on v2.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        match self {
            CgroupFd::Directory(directory) => Some(directory.as_fd()),
            CgroupFd::Tasks(_) => None,
        }
    }

    /// The same way for a process that is created elsewhere and enters by itself without privileges: it only writes to
    /// an open file. The pids limit does not apply to such moves.
    pub(crate) fn for_unprivileged_entry(self) -> Result<Self, Error> {
        let CgroupFd::Directory(directory) = self else { return Ok(self) };
        let procs = openat(&directory, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        procs.map(|procs| CgroupFd::Tasks(vec![procs])).map_err(|error| Error {
            action: "open".into(),
            path: Path::new("cgroup.procs").into(),
            source: error.into(),
        })
    }

    /// Its descriptors.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            CgroupFd::Directory(directory) => vec![directory.as_fd()],
            CgroupFd::Tasks(tasks) => tasks.iter().map(AsFd::as_fd).collect(),
        }
    }

    /// Moves the calling process, which must have one thread, into the cgroup, unless it was created there.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let CgroupFd::Tasks(tasks) = self else { return Ok(()) };
        for tasks in tasks {
            rustix::io::write(tasks, b"0").map_err(|error| Error {
                action: "enter".into(),
                path: Path::new("tasks").into(),
                source: error.into(),
            })?;
        }
        Ok(())
    }
}
