//! Reading cgroups, of either version.
//!
//! The hierarchies' directories are opened once; a file is then one lookup below its hierarchy, one read into a buffer
//! that is used again and again, and a parser that copies nothing. docs/decisions/stats.md has the measurements.

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
use crate::identity;

/// Most control files are much smaller; it grows for those that are not.
const BUFFER: usize = 16 << 10;

/// The cgroups of this machine.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Hierarchies,
    /// Sizes of huge pages, as they are part of file names: `2MB`.
    huge_pages: Vec<String>,
}

impl Cgroups {
    /// Looks where they are mounted: once, for a machine does not change that while containers run.
    pub(super) fn find() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { hierarchies: Hierarchies::open(&mounts), huge_pages: hierarchies::huge_page_sizes() }
    }

    /// Someone to read them, with a buffer of its own.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { cgroups: self, path: String::new(), text: Vec::with_capacity(BUFFER) }
    }
}

/// Reads cgroups one after the other. Groups are named by their path below each hierarchy's root.
pub(super) struct Reader<'a> {
    cgroups: &'a Cgroups,
    path: String,
    text: Vec<u8>,
}

impl Reader<'_> {
    /// What the group uses; `None` when it is gone.
    pub(super) fn usage(&mut self, group: &str) -> Option<Usage> {
        let mut usage = match self.cgroups.hierarchies {
            Hierarchies::V1(_) => v1::usage(self, group),
            Hierarchies::V2(_) => v2::usage(self, group),
        };
        usage.at = identity::now();
        Some(usage).filter(|usage| usage.cpu.is_some() || usage.memory.is_some())
    }

    /// What only metrics tell of the group.
    pub(super) fn details(&mut self, group: &str) -> Details {
        match self.cgroups.hierarchies {
            Hierarchies::V1(_) => v1::details(self, group),
            Hierarchies::V2(_) => v2::details(self, group),
        }
    }

    /// Tasks in the group and those below it; `None` without the controller.
    pub(super) fn tasks(&mut self, group: &str) -> Option<Tasks> {
        let current = parse::number(self.read("pids", group, "pids.current")?)?;
        let limit = self.read("pids", group, "pids.max").and_then(parse::number);
        Some(Tasks { current, limit })
    }

    /// Processes in the group and those below it.
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

    /// What a control file says; `None` when there is no such file, group or controller.
    fn read(&mut self, controller: &str, group: &str, file: &str) -> Option<&[u8]> {
        self.path.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.path, "{group}/{file}");
        let file = self.open(controller, &self.path, OFlags::empty()).ok()?;
        self.text.clear();
        while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut self.text)).ok()? > 0 {
            self.text.reserve(BUFFER / 2);
        }
        Some(&self.text)
    }

    fn open(&self, controller: &str, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.cgroups.hierarchies.of(controller).ok_or(Errno::NOENT)?;
        let relative = path.trim_start_matches('/');
        openat(root, relative, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())
    }
}
