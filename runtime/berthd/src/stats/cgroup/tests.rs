#![allow(clippy::unwrap_used)]
use std::{fs, path::Path};

use rustix::fs::{CWD, Mode, OFlags, openat};
use tempfile::TempDir;

use super::{
    super::usage::{Cpu, DeviceIo, HugePages, Memory, Pressure, Stall, Swap, Tasks, Throttling},
    *,
};

const GROUP: &str = "/pod/container";

/// A cgroup with these files, in each hierarchy.
struct Group {
    directory: TempDir,
    cgroups: Cgroups,
}

impl Group {
    fn new(hierarchies: impl Fn(&Path) -> Hierarchies, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join(&GROUP[1..]);
        fs::create_dir_all(&group).unwrap();
        for (name, text) in files {
            fs::write(group.join(name), text).unwrap();
        }
        let cgroups = Cgroups {
            hierarchies: hierarchies(directory.path()),
            huge_pages: vec!["2MB".into(), "1GB".into()],
        };
        Self { directory, cgroups }
    }

    fn v1(files: &[(&str, &str)]) -> Self {
        let controllers = ["blkio", "cpu", "cpuacct", "hugetlb", "memory", "pids"];
        Self::new(|root| Hierarchies::V1(controllers.map(|name| (name, open(root))).into()), files)
    }

    fn v2(files: &[(&str, &str)]) -> Self {
        Self::new(|root| Hierarchies::V2(open(root)), files)
    }

    fn reader(&self) -> Reader<'_> {
        self.cgroups.reader()
    }
}

fn open(root: &Path) -> OwnedFd {
    openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

const V1_MEMORY_STAT: &str = "\
cache 8192
rss 53248
mapped_file 4096
swap 0
pgfault 61
pgmajfault 3
inactive_file 1
hierarchical_memory_limit 67108864
hierarchical_memsw_limit 134217728
total_cache 16384
total_rss 106496
total_mapped_file 8192
total_swap 12288
total_pgfault 122
total_pgmajfault 6
total_inactive_file 4096
total_active_file 8192
";

#[test]
fn v1_is_read_from_its_files() {
    let group = Group::v1(&[
        ("cpuacct.usage", "123456789\n"),
        ("memory.usage_in_bytes", "180224\n"),
        ("memory.stat", V1_MEMORY_STAT),
    ]);
    let usage = group.reader().usage(GROUP).unwrap();
    let memory = Memory {
        usage: 180_224,
        limit: Some(64 << 20),
        rss: 106_496,
        cache: 16_384,
        mapped_file: 8192,
        inactive_file: 4096,
        page_faults: 122,
        major_page_faults: 6,
        own_page_faults: 61,
        own_major_page_faults: 3,
        pressure: None,
    };
    assert_eq!(usage.cpu, Some(Cpu { usage: 123_456_789, rate: None, pressure: None }));
    assert_eq!(usage.memory, Some(memory));
    assert_eq!(usage.swap, Some(Swap { usage: 12_288, limit: Some(64 << 20) }));
    assert_eq!((memory.working_set(), memory.available()), (176_128, Some((64 << 20) - 176_128)));
    assert!(usage.at > 0);
}

#[test]
fn v1_without_limits_or_swap_accounting_has_none() {
    let stat = "rss 0\nhierarchical_memory_limit 9223372036854771712\ntotal_rss 4096\n";
    let group = Group::v1(&[("memory.usage_in_bytes", "4096\n"), ("memory.stat", stat)]);
    let usage = group.reader().usage(GROUP).unwrap();
    assert_eq!((usage.cpu, usage.swap), (None, None));
    assert_eq!(usage.memory.unwrap().limit, None);
    // With pages of 64 KiB, the value for no limit is rounded down further.
    let stat = "hierarchical_memory_limit 9223372036854710272\ntotal_swap 0\n";
    let group = Group::v1(&[("memory.usage_in_bytes", "0\n"), ("memory.stat", stat)]);
    let usage = group.reader().usage(GROUP).unwrap();
    assert_eq!((usage.memory.unwrap().limit, usage.swap), (None, Some(Swap { usage: 0, limit: None })));
}

#[test]
fn v1_details_are_read_from_their_files() {
    let io = |read, write| {
        format!(
            "253:0 Read {read}\n253:0 Write {write}\n253:0 Sync 9\n253:0 Async 9\n253:0 Total 99\nTotal 99\n"
        )
    };
    let group = Group::v1(&[
        ("cpuacct.usage_user", "20\n"),
        ("cpuacct.usage_sys", "30\n"),
        ("cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 5000\n"),
        ("memory.max_usage_in_bytes", "99\n"),
        ("memory.kmem.usage_in_bytes", "88\n"),
        ("memory.failcnt", "4\n"),
        ("memory.memsw.failcnt", "3\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("pids.current", "3\n"),
        ("pids.max", "1024\n"),
        ("blkio.throttle.io_service_bytes_recursive", &io(4096, 8192)),
        ("blkio.throttle.io_serviced_recursive", &io(1, 2)),
        ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "4194304\n"),
    ]);
    let details = group.reader().details(GROUP);
    assert_eq!((details.user, details.system), (20, 30));
    assert_eq!(details.throttling, Throttling { periods: 10, throttled_periods: 4, throttled: 5000 });
    assert_eq!((details.max_usage, details.kernel_memory), (Some(99), Some(88)));
    assert_eq!((details.limit_hits, details.oom_kills), (7, 2));
    assert_eq!(details.tasks, Some(Tasks { current: 3, limit: Some(1024) }));
    let huge = HugePages { size: "2MB".into(), usage: 2 << 20, max_usage: Some(4 << 20) };
    assert_eq!(details.huge_pages, [huge]);
    let DeviceIo { major, minor, read, written, reads, writes, .. } = details.io[0];
    assert_eq!((major, minor, read, written, reads, writes), (253, 0, 4096, 8192, 1, 2));
    assert_eq!(details.io.len(), 1);
}

const PRESSURE: &str = "\
some avg10=1.53 avg60=0.87 avg300=0.10 total=123456
full avg10=0.50 avg60=0.25 avg300=0.05 total=65432
";

fn expected_pressure() -> Option<Pressure> {
    Some(Pressure {
        some: Stall { total: 123_456, avg10: 1.53, avg60: 0.87, avg300: 0.10 },
        full: Stall { total: 65_432, avg10: 0.50, avg60: 0.25, avg300: 0.05 },
    })
}

#[test]
fn v2_is_read_from_its_files() {
    let group = Group::v2(&[
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n"),
        ("cpu.pressure", PRESSURE),
        ("memory.current", "1048576\n"),
        ("memory.max", "max\n"),
        (
            "memory.stat",
            "anon 4096\nfile 8192\nkernel 512\nfile_mapped 64\ninactive_file 2097152\npgfault 5\npgmajfault 1\n",
        ),
        ("memory.pressure", PRESSURE),
        ("memory.swap.current", "4096\n"),
        ("memory.swap.max", "8192\n"),
        ("io.pressure", PRESSURE),
    ]);
    let usage = group.reader().usage(GROUP).unwrap();
    let memory = usage.memory.unwrap();
    assert_eq!(usage.cpu, Some(Cpu { usage: 1_500_000, rate: None, pressure: expected_pressure() }));
    assert_eq!((memory.usage, memory.rss, memory.cache, memory.mapped_file), (1 << 20, 4096, 8192, 64));
    assert_eq!((memory.page_faults, memory.own_page_faults, memory.own_major_page_faults), (5, 5, 1));
    assert_eq!((memory.limit, memory.pressure), (None, expected_pressure()));
    assert_eq!(memory.working_set(), 0, "never negative");
    assert_eq!(usage.swap, Some(Swap { usage: 4096, limit: Some(8192) }));
    assert_eq!(usage.io_pressure, expected_pressure());
}

#[test]
fn v2_details_are_read_from_their_files() {
    let group = Group::v2(&[
        (
            "cpu.stat",
            "usage_usec 15\nuser_usec 10\nsystem_usec 5\nnr_periods 9\nnr_throttled 2\nthrottled_usec 77\n",
        ),
        ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\noom_group_kill 0\n"),
        ("memory.peak", "555\n"),
        ("memory.stat", "anon 1\nkernel 512\nkernel_stack 16\n"),
        ("pids.current", "4\n"),
        ("pids.max", "max\n"),
        ("io.stat", "253:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n"),
        ("hugetlb.1GB.current", "0\n"),
    ]);
    let details = group.reader().details(GROUP);
    assert_eq!((details.user, details.system), (10_000, 5000));
    assert_eq!(details.throttling, Throttling { periods: 9, throttled_periods: 2, throttled: 77_000 });
    assert_eq!((details.limit_hits, details.oom_kills), (6, 1));
    assert_eq!((details.max_usage, details.kernel_memory), (Some(555), Some(512)));
    assert_eq!(details.tasks, Some(Tasks { current: 4, limit: None }));
    assert_eq!(details.huge_pages, [HugePages { size: "1GB".into(), usage: 0, max_usage: None }]);
    let DeviceIo { read, written, reads, writes, .. } = details.io[0];
    assert_eq!((read, written, reads, writes), (1, 2, 3, 4));
}

#[test]
fn a_group_that_is_gone_uses_nothing() {
    for group in [Group::v1(&[]), Group::v2(&[])] {
        assert_eq!(group.reader().usage(GROUP), None);
        assert_eq!(group.reader().usage("/absent"), None);
        assert_eq!(group.reader().details("/absent"), Details::default());
        assert_eq!(group.reader().tasks("/absent"), None);
        assert!(group.reader().processes("/absent").is_empty());
    }
}

#[test]
fn garbage_is_left_out() {
    let garbage = "\u{0}\n total_rss\ntotal_rss x\n99999999999999999999999 1\nsome\nfull avg10\n1:x Read 3\n";
    let files = [
        "cpuacct.usage",
        "cpu.stat",
        "cpu.pressure",
        "memory.usage_in_bytes",
        "memory.current",
        "memory.stat",
        "io.stat",
        "io.pressure",
        "memory.max",
        "memory.events",
        "pids.current",
        "cgroup.procs",
        "blkio.throttle.io_service_bytes_recursive",
    ];
    let files = files.map(|name| (name, garbage));
    let v1 = Group::v1(&files);
    assert_eq!(v1.reader().usage(GROUP), None);
    assert_eq!(v1.reader().details(GROUP), Details::default());
    let v2 = Group::v2(&files);
    assert_eq!(
        v2.reader().usage(GROUP).map(|usage| (usage.cpu, usage.memory)),
        Some((Some(Cpu::default()), None))
    );
    assert_eq!(v2.reader().details(GROUP), Details::default());
    assert!(v2.reader().processes(GROUP).is_empty());
}

#[test]
fn old_kernels_tell_no_full_pressure_of_the_processor() {
    let group = Group::v2(&[("cpu.stat", "usage_usec 1\n"), ("cpu.pressure", &PRESSURE[..52])]);
    let pressure = group.reader().usage(GROUP).unwrap().cpu.unwrap().pressure.unwrap();
    assert_eq!((pressure.some.total, pressure.full), (123_456, Stall::default()));
}

#[test]
fn processes_of_groups_below_count_too() {
    let group = Group::v2(&[("cgroup.procs", "12\n345\n")]);
    let below = group.directory.path().join("pod/container/init/deeper");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("cgroup.procs"), "6\n").unwrap();
    assert_eq!(group.reader().processes(GROUP), [12, 345, 6]);
}

#[test]
fn a_file_that_is_larger_than_the_buffer_is_read_to_its_end() {
    let pids: String = (1..=20_000).map(|pid| format!("{pid}\n")).collect();
    let group = Group::v1(&[("cgroup.procs", &pids)]);
    assert_eq!(group.reader().processes(GROUP).last(), Some(&20_000));
}

/// A v2 hierarchy beside v1 has no controllers, but it counts processor time and pressure.
#[test]
fn the_files_of_this_kernel_are_understood() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let hierarchies = Hierarchies::V2(open(Path::new(line.split(' ').nth(1).unwrap())));
    let cgroups = Cgroups { hierarchies, huge_pages: Vec::new() };
    let root = cgroups.reader().usage("").unwrap();
    assert!(root.cpu.unwrap().usage > 0);
    if Path::new("/proc/pressure").exists() {
        assert!(root.io_pressure.is_some());
    }
    let own = Cgroups::find();
    assert!(own.reader().usage("").is_some(), "the root of what is mounted here");
    assert!(!own.reader().processes("").is_empty());
}
