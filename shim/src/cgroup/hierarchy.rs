//! The cgroup mounts of this machine.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names of v1 controllers; other words in the mount options are flags.
const CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// The machine's cgroup layout.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Hierarchies of v1; a v2 one beside them has no controllers and is left alone.
    V1(Vec<Hierarchy>),
    /// The one hierarchy of v2, mounted here.
    V2(PathBuf),
}

/// A v1 hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// `cpu`, `name=systemd`, ...
    pub(super) controllers: Vec<String>,
}

impl Hierarchy {
    /// Whether it has this controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|have| have == controller)
    }

    /// Name of its directory.
    pub(super) fn name(&self) -> String {
        self.mount.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Controllers by whose names it is known besides its directory's name.
    pub(super) fn aliases(&self) -> Vec<String> {
        let name = self.name();
        self.controllers.iter().filter(|c| **c != name && !c.contains('=')).cloned().collect()
    }
}

/// Detected once: a machine does not change its layout while containers run.
pub(super) fn layout() -> &'static Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    LAYOUT.get_or_init(|| parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
}

fn parse(mountinfo: &str) -> Layout {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let Some((mount, kind, options)) = fields(line) else { continue };
        if kind == "cgroup2" {
            unified.get_or_insert_with(|| mount.to_owned());
        } else if kind == "cgroup" {
            let wanted = |option: &&str| CONTROLLERS.contains(option) || option.starts_with("name=");
            let controllers: Vec<_> = options.split(',').filter(wanted).map(str::to_owned).collect();
            if !hierarchies.iter().any(|have| have.controllers == controllers) {
                hierarchies.push(Hierarchy { mount: mount.to_owned(), controllers });
            }
        }
    }
    let controls = |h: &Hierarchy| h.controllers.iter().any(|controller| !controller.contains('='));
    match unified {
        Some(root) if !hierarchies.iter().any(controls) => Layout::V2(root),
        _ => Layout::V1(hierarchies),
    }
}

/// Mount point, type and superblock options of a line of mountinfo.
fn fields(line: &str) -> Option<(&Path, &str, &str)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options = filesystem.nth(1)?;
    Some((Path::new(mount.split(' ').nth(4)?), kind, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_mount_without_v1_controllers_is_v2() {
        let unified = "24 1 0:5 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse(unified), Layout::V2("/sys/fs/cgroup".into()));
    }

    #[test]
    fn v1_controllers_win_over_an_empty_v2() {
        let hybrid = "30 1 0:6 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 1 0:7 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      32 1 0:8 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 1 0:6 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n";
        let Layout::V1(found) = parse(hybrid) else { unreachable!("v1 was mounted") };
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[0].aliases(), ["cpu", "cpuacct"]);
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert!(found[1].aliases().is_empty());
    }
}
