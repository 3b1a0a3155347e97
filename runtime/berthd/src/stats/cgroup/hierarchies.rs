//! The mounts of cgroup hierarchies.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Controllers of v1 that are read.
const CONTROLLERS: &[&str] = &["blkio", "cpu", "cpuacct", "hugetlb", "memory", "pids"];

/// Directories of the hierarchies' roots.
#[derive(Debug)]
pub(super) enum Hierarchies {
    /// One per controller. A v2 hierarchy beside them has no controllers and is not used.
    V1(HashMap<&'static str, OwnedFd>),
    /// A single one for all controllers.
    V2(OwnedFd),
}

impl Hierarchies {
    /// Opens the mounts in `mountinfo` (proc_pid_mountinfo(5)). A controller whose mount cannot be opened counts as
    /// missing.
    pub(super) fn open(mountinfo: &str) -> Self {
        let found = mounts(mountinfo);
        if let (None, Some(root)) = (found.v1.first(), found.v2.and_then(open)) {
            return Self::V2(root);
        }
        let roots = found.v1.into_iter().filter_map(|(name, mount)| Some((name, open(mount)?)));
        Self::V1(roots.collect())
    }

    /// Returns the root of the hierarchy with this controller.
    pub(super) fn of(&self, controller: &str) -> Option<BorrowedFd<'_>> {
        match self {
            Self::V1(roots) => roots.get(controller).map(AsFd::as_fd),
            Self::V2(root) => Some(root.as_fd()),
        }
    }
}

fn open(mount: &str) -> Option<OwnedFd> {
    openat(CWD, mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts<'a> {
    v1: Vec<(&'static str, &'a str)>,
    v2: Option<&'a str>,
}

/// Returns the first mount of each controller.
fn mounts(mountinfo: &str) -> Mounts<'_> {
    let mut mounts = Mounts::default();
    for (mount, kind, options) in mountinfo.lines().filter_map(fields) {
        match kind {
            "cgroup2" => drop(mounts.v2.get_or_insert(mount)),
            "cgroup" => {
                let has = |controller: &str| options.split(',').any(|option| option == controller);
                let known = |name: &str| mounts.v1.iter().any(|(known, _)| *known == name);
                let new: Vec<_> =
                    CONTROLLERS.iter().copied().filter(|name| has(name) && !known(name)).collect();
                mounts.v1.extend(new.into_iter().map(|name| (name, mount)));
            }
            _ => {}
        }
    }
    mounts
}

/// Returns mount point, file system type and super options of a line.
fn fields(line: &str) -> Option<(&str, &str, &str)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    Some((mount.split(' ').nth(4)?, kind, filesystem.nth(1)?))
}

/// Returns the sizes of huge pages in ascending order: `2MB` for `/sys/kernel/mm/hugepages/hugepages-2048kB`.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries.filter_map(|entry| kibibytes(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(size).collect()
}

fn kibibytes(name: &str) -> Option<u64> {
    name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
}

/// Formats a size as in the file names of the hugetlb controller.
fn size(kibibytes: u64) -> String {
    match kibibytes {
        0..1024 => format!("{kibibytes}KB"),
        1024..0x10_0000 => format!("{}MB", kibibytes >> 10),
        _ => format!("{}GB", kibibytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 1 0:5 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "\
30 1 0:6 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 1 0:7 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 1 0:8 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 1 0:6 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
34 1 0:9 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
35 1 0:10 / /proc rw - proc proc rw
";

    #[test]
    fn v2_alone_has_every_controller_under_one_root() {
        assert_eq!(mounts(V2), Mounts { v1: vec![], v2: Some("/sys/fs/cgroup") });
    }

    #[test]
    fn each_controller_of_v1_is_where_it_was_mounted_first() {
        let both = "/sys/fs/cgroup/cpu,cpuacct";
        let v1 = vec![("cpu", both), ("cpuacct", both), ("memory", "/sys/fs/cgroup/memory")];
        assert_eq!(mounts(HYBRID), Mounts { v1, v2: Some("/sys/fs/cgroup/unified") });
    }

    #[test]
    fn what_is_no_mountinfo_has_no_mounts() {
        for text in ["", "\n\n", " - cgroup", "1 2 3 4 5 6 - cgroup2", "garbage - - -"] {
            assert_eq!(mounts(text), Mounts::default(), "{text:?}");
        }
    }

    #[test]
    fn huge_pages_are_named_in_the_largest_unit() {
        let names = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "other"];
        let sizes: Vec<_> = names.iter().filter_map(|name| kibibytes(name)).map(size).collect();
        assert_eq!(sizes, ["64KB", "2MB", "1GB"]);
    }
}
