//! Resources of the host that a daemon and its pods hold, counted from outside.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::node::Node;

/// Counts at one moment. With the same pods at another moment, none may be higher by more than its slack below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceUsage {
    /// Resident anonymous memory of the daemon, in KiB.
    memory: u64,
    descriptors: usize,
    threads: usize,
    shims: usize,
    mounts: usize,
    pins: usize,
    cgroups: usize,
    entries: usize,
    database: u64,
}

/// Divisor and constant: memory may grow by memory / `.0`, for what the allocator keeps, plus `.1` KiB.
const MEMORY_SLACK: (u64, u64) = (4, 4096);
/// In bytes. SQLite's write-ahead log grows to a thousand pages before it is checkpointed.
const DATABASE_SLACK: u64 = 5 << 20;
/// Connections of clients and threads of the blocking pool come and go.
const POOL_SLACK: usize = 24;

impl ResourceUsage {
    pub(crate) fn of(node: &Node) -> Self {
        let (pid, directory) = (node.berth.pid(), node.berth.path());
        Self {
            memory: memory(pid),
            descriptors: entries_of(&format!("/proc/{pid}/fd")),
            threads: entries_of(&format!("/proc/{pid}/task")),
            shims: shims(directory),
            mounts: mounts_below(directory),
            pins: entries_of(&node.pins().display().to_string()),
            cgroups: cgroups(directory),
            entries: entries_below(&directory.join("root/containers"))
                + entries_below(&directory.join("run"))
                + entries_below(&directory.join("logs")),
            database: size(&directory.join("root/state.db")) + size(&directory.join("root/state.db-wal")),
        }
    }

    /// These counts with the memory and database of `other`, so that those are not compared: the allocator and SQLite keep
    /// what a thousand pods have needed.
    pub(crate) fn with_room_of(self, other: &Self) -> Self {
        Self { memory: other.memory, database: other.database, ..self }
    }

    /// Both counts, if any has grown since `before` by more than its slack.
    pub(crate) fn grown_since(&self, before: &Self) -> Option<String> {
        let (part, constant) = MEMORY_SLACK;
        let most = Self {
            memory: before.memory + before.memory / part + constant,
            descriptors: before.descriptors + POOL_SLACK,
            threads: before.threads + POOL_SLACK,
            database: before.database + DATABASE_SLACK,
            ..*before
        };
        let grown = self.memory > most.memory
            || self.descriptors > most.descriptors
            || self.threads > most.threads
            || self.shims > most.shims
            || self.mounts > most.mounts
            || self.pins > most.pins
            || self.cgroups > most.cgroups
            || self.entries > most.entries
            || self.database > most.database;
        grown.then(|| format!("before: {before}; now: {self}"))
    }
}

impl fmt::Display for ResourceUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, descriptors, threads, shims, mounts, pins, cgroups, entries, database } = self;
        write!(
            f,
            "memory {memory} KiB, {descriptors} descriptors, {threads} threads, {shims} shims, {mounts} mounts, \
             {pins} network namespaces, {cgroups} cgroups, {entries} files, database {database} bytes"
        )
    }
}

fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn entries_of(directory: &str) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// Number of shims with the daemon's state directory among their arguments.
fn shims(directory: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    let state = directory.join("run").display().to_string();
    lines.filter(|line| line.contains("containerd-shim-berth") && line.contains(&state)).count()
}

fn mounts_below(directory: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(directory.to_str().unwrap())).count()
}

fn cgroups(directory: &Path) -> usize {
    let name = directory.file_name().unwrap();
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().join(name));
    hierarchies.map(|group| directories_below(&group)).sum()
}

fn directories_below(path: &Path) -> usize {
    children(path).iter().filter(|child| child.is_dir()).map(|child| 1 + directories_below(child)).sum()
}

fn entries_below(path: &Path) -> usize {
    children(path).iter().map(|child| 1 + if child.is_dir() { entries_below(child) } else { 0 }).sum()
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_symlink()).collect()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}
