//! Reads cgroups of either version.
//!
//! The directories of the hierarchies are opened once. Reading a file is then one lookup relative to its hierarchy, one
//! read into a reused buffer, and a parser that copies nothing. docs/decisions/stats.md has the measurements.

mod hierarchies;
mod parse;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::{fmt::Write, os::fd::OwnedFd};

use rustix::{
    fs::{Dir, FileType, Mode, OFlags, openat},
    io::Errno,
};

use self::hierarchies::Hierarchies;
use super::usage::{Details, Tasks, Usage};
use crate::clock;

/// Initial size of the buffer; it grows for larger files.
const BUFFER_BYTES: usize = 16 << 10;

/// The cgroups of this machine.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Hierarchies,
    /// Sizes of huge pages as they appear in file names: `2MB`.
    huge_pages: Vec<String>,
}

impl Cgroups {
    /// Finds the mounts once: they do not change while containers run.
    pub(super) fn find() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { hierarchies: Hierarchies::open(&mounts), huge_pages: hierarchies::huge_page_sizes() }
    }

    /// Returns a reader with a buffer of its own.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { cgroups: self, path: String::new(), text: Vec::with_capacity(BUFFER_BYTES) }
    }
}

/// Reads cgroups one after the other. A cgroup is named by its path below the root of each hierarchy.
pub(super) struct Reader<'a> {
    cgroups: &'a Cgroups,
    path: String,
    text: Vec<u8>,
}

impl Reader<'_> {
    /// Returns the usage of a cgroup; `None` when it does not exist.
    pub(super) fn usage(&mut self, group: &str) -> Option<Usage> {
        let mut usage = match self.cgroups.hierarchies {
            Hierarchies::V1(_) => v1::usage(self, group),
            Hierarchies::V2(_) => v2::usage(self, group),
        };
        usage.at = clock::now();
        Some(usage).filter(|usage| usage.cpu.is_some() || usage.memory.is_some())
    }

    /// Returns the values of a cgroup that only metrics report.
    pub(super) fn details(&mut self, group: &str) -> Details {
        match self.cgroups.hierarchies {
            Hierarchies::V1(_) => v1::details(self, group),
            Hierarchies::V2(_) => v2::details(self, group),
        }
    }

    /// Returns the tasks in the cgroup and its descendants; `None` without the pids controller.
    pub(super) fn tasks(&mut self, group: &str) -> Option<Tasks> {
        let current = parse::number(self.read("pids", group, "pids.current")?)?;
        let limit = self.read("pids", group, "pids.max").and_then(parse::number);
        Some(Tasks { current, limit })
    }

    /// Returns the pids in the cgroup and its descendants.
    pub(super) fn processes(&mut self, group: &str) -> Vec<u32> {
        const CONTROLLER: &str = "pids";
        let mut pids = Vec::new();
        let mut groups = vec![group.to_owned()];
        while let Some(group) = groups.pop() {
            let list = self.read(CONTROLLER, &group, "cgroup.procs");
            pids.extend(list.into_iter().flat_map(parse::numbers).filter_map(|pid| u32::try_from(pid).ok()));
            groups.extend(self.below(CONTROLLER, &group));
        }
        pids
    }

    fn below(&self, controller: &str, group: &str) -> Vec<String> {
        let Ok(directory) = self.open(controller, group, OFlags::DIRECTORY) else { return Vec::new() };
        let entries = Dir::read_from(directory).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type() == FileType::Directory);
        let names = groups.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        names.filter(|name| name != "." && name != "..").map(|name| format!("{group}/{name}")).collect()
    }

    /// Returns the contents of a control file; `None` when the file, cgroup or controller does not exist.
    fn read(&mut self, controller: &str, group: &str, file: &str) -> Option<&[u8]> {
        self.path.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.path, "{group}/{file}");
        let file = self.open(controller, &self.path, OFlags::empty()).ok()?;
        self.text.clear();
        while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut self.text)).ok()? > 0 {
            self.text.reserve(BUFFER_BYTES / 2);
        }
        Some(&self.text)
    }

    fn open(&self, controller: &str, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.cgroups.hierarchies.of(controller).ok_or(Errno::NOENT)?;
        let relative = path.trim_start_matches('/');
        openat(root, relative, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())
    }
}
