//! Resource usage of a cgroup, independent of the cgroup version. Sizes are bytes, durations nanoseconds unless said
//! otherwise.

/// The values for statistics, read from as few files as possible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Time of the reading in nanoseconds since the epoch.
    pub at: i64,
    /// `None` without the controller.
    pub cpu: Option<Cpu>,
    /// `None` without the controller.
    pub memory: Option<Memory>,
    /// `None` where the kernel does not count swap.
    pub swap: Option<Swap>,
    /// Pressure of block I/O; cgroup v2 only.
    pub io_pressure: Option<Pressure>,
}

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Total time on all processors since the cgroup was made.
    pub usage: u64,
    /// Average use since the previous reading, in billionths of a processor; `None` at the first reading.
    pub rate: Option<u64>,
    /// Pressure of processor time; cgroup v2 only.
    pub pressure: Option<Pressure>,
}

/// Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// All memory charged to the cgroup, including caches.
    pub usage: u64,
    /// Lowest limit of the cgroup and, where the kernel reports it, of its ancestors; `None` without one.
    pub limit: Option<u64>,
    /// Anonymous memory.
    pub rss: u64,
    /// Cached files.
    pub cache: u64,
    /// Files mapped into an address space.
    pub mapped_file: u64,
    /// Cached files on the inactive list, the first to be reclaimed.
    pub inactive_file: u64,
    /// Page faults of the cgroup and its descendants.
    pub page_faults: u64,
    /// Page faults that had to wait for the disk, likewise.
    pub major_page_faults: u64,
    /// Page faults of the cgroup itself; on v2 with descendants too.
    pub own_page_faults: u64,
    /// Major page faults of the cgroup itself; on v2 with descendants too.
    pub own_major_page_faults: u64,
    /// Pressure of memory; cgroup v2 only.
    pub pressure: Option<Pressure>,
}

impl Memory {
    /// Returns the memory in use that cannot be reclaimed easily.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }

    /// Returns the memory that may still be used; `None` without a limit.
    pub fn available(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.working_set()))
    }
}

/// Swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// Swap in use.
    pub usage: u64,
    /// Limit of swap alone; `None` without one.
    pub limit: Option<u64>,
}

/// Pressure stall information, Documentation/accounting/psi.rst of Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Stalls of at least one process.
    pub some: Stall,
    /// Stalls of all processes at the same time.
    pub full: Stall,
}

/// Time for which processes were stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Total in microseconds, since the cgroup was made.
    pub total: u64,
    /// Share of the last 10 s, in percent.
    pub avg10: f64,
    /// Share of the last 60 s, in percent.
    pub avg60: f64,
    /// Share of the last 300 s, in percent.
    pub avg300: f64,
}

/// The values that only metrics report. Values that the kernel does not provide are `None` or 0, as each field says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Processor time in user mode.
    pub user: u64,
    /// Processor time in the kernel.
    pub system: u64,
    /// Zero without a quota.
    pub throttling: Throttling,
    /// Peak memory usage; `None` on v2 with kernels before 5.19.
    pub max_usage: Option<u64>,
    /// Kernel memory; `None` on v2 with kernels before 5.18.
    pub kernel_memory: Option<u64>,
    /// How often the memory limit was reached.
    pub limit_hits: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// `None` without the pids controller.
    pub tasks: Option<Tasks>,
    /// One entry per block device that was read or written.
    pub io: Vec<DeviceIo>,
    /// One entry per size that the kernel counts.
    pub huge_pages: Vec<HugePages>,
}

/// Enforcement of the quota of processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which there was something to run.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Total time for which processes were throttled.
    pub throttled: u64,
}

/// Processes and their threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// Current number.
    pub current: u64,
    /// `None` without a limit.
    pub limit: Option<u64>,
}

/// I/O of a cgroup on one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Name such as `/dev/vda`, or `MAJOR:MINOR` for a device without a name.
    pub device: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
}

impl DeviceIo {
    /// Returns the entry of a device in `list`; adds one if there is none.
    pub(super) fn in_list(list: &mut Vec<Self>, major: u32, minor: u32) -> &mut Self {
        let known = list.iter().position(|one| (one.major, one.minor) == (major, minor));
        let at = known.unwrap_or_else(|| {
            list.push(Self { device: device_name(major, minor), major, minor, ..Self::default() });
            list.len() - 1
        });
        &mut list[at]
    }
}

/// Returns `/dev/vda` or the like, or `MAJOR:MINOR` for a device without a name.
pub(super) fn device_name(major: u32, minor: u32) -> String {
    let numbers = format!("{major}:{minor}");
    let link = std::fs::read_link(format!("/sys/dev/block/{numbers}")).unwrap_or_default();
    link.file_name().map_or(numbers, |name| format!("/dev/{}", name.to_string_lossy()))
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Size as in the kernel's file names: `2MB`, `1GB`.
    pub size: String,
    /// Bytes in use.
    pub usage: u64,
    /// Peak usage in bytes; cgroup v1 only.
    pub max_usage: Option<u64>,
}
