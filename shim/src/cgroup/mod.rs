//! A container's or a pod's control group, in cgroup v2 or in all the mounted v1 hierarchies at once.

mod device_program;
mod devices;
mod files;
mod hierarchy;
mod stats;
mod v1;
mod v2;
mod writes;

pub use stats::{CpuStats, MemoryStats, PidsStats, Stats};

use crate::spec::Resources;
use hierarchy::{Layout, layout};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use writes::Writes;

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct Error {
    /// `write "64" to`, `create`, ...
    pub action: String,
    /// Which file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: std::io::Error,
}

/// A group, known by its path below each hierarchy's root. Holds no descriptors; cheap to make and to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

/// The way into a group for a process of ours: made for it beforehand, used by the process itself.
#[derive(Debug)]
pub(crate) enum Door {
    /// To be made in it right away.
    Directory(OwnedFd),
    /// To be entered in each hierarchy. A thread that moves itself by `tasks` needs no lock of the whole system and no wait
    /// for RCU, unlike a pid written to `cgroup.procs`.
    Tasks(Vec<OwnedFd>),
}

/// The group's own directory in a hierarchy, to be mounted in a container.
#[derive(Debug)]
pub(crate) struct View {
    /// Directory name of the hierarchy; empty on v2.
    pub(crate) name: String,
    /// Other names for it.
    pub(crate) aliases: Vec<String>,
    /// A copy of the mount, attached nowhere.
    pub(crate) tree: OwnedFd,
}

/// Looks how the machine is set up, unless that is known: before forking, so that it is looked at once.
pub(crate) fn detect() {
    layout();
}

impl Cgroup {
    /// Makes the group (and its parents) and sets the limits. On failure it is removed again.
    pub fn create(path: &str, resources: &Resources) -> Result<Self, Error> {
        let group = Self::to_be_made(path)?;
        group.make().and_then(|()| group.apply(resources, &mut Writes::for_good())).inspect_err(|_| {
            let _ = group.remove();
        })?;
        Ok(group)
    }

    /// Names a group that may be made: nothing is touched.
    pub(crate) fn to_be_made(path: &str) -> Result<Self, Error> {
        let group = Self::open(path);
        let mut parts = group.path.components();
        if parts.all(|part| matches!(part, Component::Normal(_))) && !group.path.as_os_str().is_empty() {
            return Ok(group);
        }
        let source = ErrorKind::InvalidInput.into();
        Err(Error { action: "use as cgroupsPath".into(), path: path.into(), source })
    }

    /// Names a group that exists, or may exist: nothing is touched.
    pub fn open(path: &str) -> Self {
        Self { path: PathBuf::from(path.trim_start_matches('/')) }
    }

    fn make(&self) -> Result<(), Error> {
        match layout() {
            Layout::V1(_) => self.v1().create(),
            Layout::V2(root) => v2::create(root, &self.path),
        }
    }

    fn v1(&self) -> v1::Group<'_> {
        let hierarchies = match layout() {
            Layout::V1(hierarchies) => hierarchies.as_slice(),
            Layout::V2(_) => &[],
        };
        v1::Group { hierarchies, path: &self.path }
    }

    /// Its directory in every hierarchy.
    fn directories(&self) -> Vec<PathBuf> {
        match layout() {
            Layout::V1(all) => all.iter().map(|hierarchy| hierarchy.mount.join(&self.path)).collect(),
            Layout::V2(root) => vec![root.join(&self.path)],
        }
    }

    /// The directory where processes are listed and frozen.
    fn main(&self) -> Option<PathBuf> {
        match layout() {
            Layout::V1(_) => ["freezer", "pids", "memory"].iter().find_map(|name| self.v1().directory(name)),
            Layout::V2(root) => Some(root.join(&self.path)),
        }
    }

    /// Changes limits of a live group, all of them or none; what is absent stays. Device rules cannot be taken back.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        let mut writes = Writes::until_put_back();
        let Err(error) = self.apply(resources, &mut writes) else { return Ok(()) };
        match writes.put_back() {
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

    /// Opens the way in.
    pub(crate) fn door(&self) -> Result<Door, Error> {
        let open = |path: PathBuf, flags| {
            rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|error| Error {
                action: "open".into(),
                path,
                source: error.into(),
            })
        };
        match layout() {
            Layout::V2(root) => {
                open(root.join(&self.path), OFlags::PATH | OFlags::DIRECTORY).map(Door::Directory)
            }
            Layout::V1(_) => {
                let tasks = self
                    .directories()
                    .into_iter()
                    .map(|directory| open(directory.join("tasks"), OFlags::WRONLY));
                tasks.collect::<Result<_, _>>().map(Door::Tasks)
            }
        }
    }

    /// Copies of its directories, for a container to see.
    pub(crate) fn views(&self) -> Result<Vec<View>, rustix::io::Errno> {
        let copy = |path: PathBuf| {
            open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        };
        match layout() {
            Layout::V2(root) => Ok(vec![View {
                name: String::new(),
                aliases: Vec::new(),
                tree: copy(root.join(&self.path))?,
            }]),
            Layout::V1(all) => all
                .iter()
                .map(|hierarchy| {
                    let tree = copy(hierarchy.mount.join(&self.path))?;
                    Ok(View { name: hierarchy.name(), aliases: hierarchy.aliases(), tree })
                })
                .collect(),
        }
    }

    /// Kills every process in the group and the groups below it.
    pub fn kill(&self) -> Result<(), Error> {
        if let Layout::V2(root) = layout() {
            match files::write(&root.join(&self.path), "cgroup.kill", "1") {
                // Kernels before 5.14 have no such file.
                Err(error)
                    if error.source.kind() == ErrorKind::NotFound && root.join(&self.path).exists() => {}
                Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(()),
                other => return other,
            }
        }
        // Frozen, no process makes another one while the list is walked.
        let frozen = self.freeze();
        let killed = self.procs().map(|pids| {
            for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        match frozen {
            Ok(()) => killed.and(self.thaw()),
            Err(_) => killed,
        }
    }

    /// Host pids of the processes in the group and the groups below it; none when the group is gone.
    pub fn procs(&self) -> Result<Vec<u32>, Error> {
        self.main().map_or(Ok(Vec::new()), |directory| files::procs(&directory))
    }

    /// How many processes of the group the kernel killed for lack of memory so far.
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

    /// Stops all processes; returns once they stand still.
    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true).inspect_err(|_| {
            let _ = self.set_frozen(false);
        })
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        match layout() {
            Layout::V1(_) => {
                let missing = || Error {
                    action: "freeze without a freezer hierarchy".into(),
                    path: self.path.clone(),
                    source: ErrorKind::Unsupported.into(),
                };
                let directory = self.v1().directory("freezer").ok_or_else(missing)?;
                let state = if frozen { "FROZEN" } else { "THAWED" };
                files::write(&directory, "freezer.state", state)?;
                files::await_state(&directory, "freezer.state", &|is| is == state)
            }
            Layout::V2(root) => {
                let directory = root.join(&self.path);
                files::write(&directory, "cgroup.freeze", if frozen { "1" } else { "0" })?;
                files::await_state(&directory, "cgroup.events", &|text| {
                    files::field(text, "frozen") == u64::from(frozen)
                })
            }
        }
    }

    /// Removes the group and the groups below it; no error when it is gone already.
    pub fn remove(&self) -> Result<(), Error> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        self.directories().iter().try_for_each(|directory| files::remove(directory))
    }

    /// What it has used.
    pub fn stats(&self) -> Result<Stats, Error> {
        if let Some(main) = self.main().filter(|main| !main.exists()) {
            return Err(Error { action: "read".into(), path: main, source: ErrorKind::NotFound.into() });
        }
        Ok(match layout() {
            Layout::V1(_) => Stats::of_v1(&self.v1()),
            Layout::V2(root) => Stats::of_v2(&root.join(&self.path)),
        })
    }
}

impl Door {
    /// The directory in which a process is to be made, on v2.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Door::Directory(directory) => Some(directory.as_fd()),
            Door::Tasks(_) => None,
        }
    }

    /// The same way for a process that is made elsewhere and goes in by itself, without any privilege: it only writes to what is
    /// open. No limit on processes is asked.
    pub(crate) fn for_anyone(self) -> Result<Self, Error> {
        let Door::Directory(directory) = self else { return Ok(self) };
        let procs = openat(&directory, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        procs.map(|procs| Door::Tasks(vec![procs])).map_err(|error| Error {
            action: "open".into(),
            path: Path::new("cgroup.procs").into(),
            source: error.into(),
        })
    }

    /// All that it is made of.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Door::Directory(directory) => vec![directory.as_fd()],
            Door::Tasks(tasks) => tasks.iter().map(AsFd::as_fd).collect(),
        }
    }

    /// Takes the calling process, which must have one thread, into the group where it was not made in it.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let Door::Tasks(tasks) = self else { return Ok(()) };
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
