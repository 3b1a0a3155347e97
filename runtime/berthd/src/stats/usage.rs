//! What a cgroup uses, however the kernel writes it down. Sizes are bytes, durations nanoseconds unless said otherwise.

/// What statistics tell, read with as few files as possible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// When it was read, nanoseconds since the epoch.
    pub at: i64,
    /// `None` without a controller for it.
    pub cpu: Option<Cpu>,
    /// `None` without a controller for it.
    pub memory: Option<Memory>,
    /// `None` where the kernel does not count swap.
    pub swap: Option<Swap>,
    /// Time that processes waited for the disk; cgroup v2 alone has it.
    pub io_pressure: Option<Pressure>,
}

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Summed over all processors, since the start.
    pub usage: u64,
    /// Billionths of a processor in use, on average since the reading before; `None` at the first one.
    pub rate: Option<u64>,
    /// Time that processes waited for a processor; cgroup v2 alone has it.
    pub pressure: Option<Pressure>,
}

/// Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// All that is charged to the group, caches too.
    pub usage: u64,
    /// Least of the group's limit and those above it, where the kernel tells; `None` without any.
    pub limit: Option<u64>,
    /// Anonymous memory.
    pub rss: u64,
    /// Cached files.
    pub cache: u64,
    /// Files mapped into an address space.
    pub mapped_file: u64,
    /// Cached files that were not used lately.
    pub inactive_file: u64,
    /// Of the group and those below it.
    pub page_faults: u64,
    /// Page faults that had to wait for the disk.
    pub major_page_faults: u64,
    /// Page faults of the group itself.
    pub own_page_faults: u64,
    /// Major page faults of the group itself.
    pub own_major_page_faults: u64,
    /// Time that processes waited for memory; cgroup v2 alone has it.
    pub pressure: Option<Pressure>,
}

impl Memory {
    /// What is in use and cannot easily be given back.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }

    /// What may still be used; `None` without a limit.
    pub fn available(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.working_set()))
    }
}

/// Memory that was moved to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// In use.
    pub usage: u64,
    /// `None` without a limit.
    pub limit: Option<u64>,
}

/// Pressure stall information, Documentation/accounting/psi.rst of Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one process waited.
    pub some: Stall,
    /// All processes waited.
    pub full: Stall,
}

/// How long processes waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Microseconds since the start.
    pub total: u64,
    /// Share of the last ten seconds, in percent.
    pub avg10: f64,
    /// Share of the last minute.
    pub avg60: f64,
    /// Share of the last five minutes.
    pub avg300: f64,
}

/// What only metrics tell. What the kernel does not count is `None` or 0 as its comment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Processor time in user mode.
    pub user: u64,
    /// Processor time in the kernel.
    pub system: u64,
    /// 0 without a quota.
    pub throttling: Throttling,
    /// Most memory that was ever used; `None` on kernels before 5.19 with v2.
    pub max_usage: Option<u64>,
    /// Kernel memory; `None` on kernels before 5.18 with v2.
    pub kernel_memory: Option<u64>,
    /// How often the limit of memory was reached.
    pub limit_hits: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// `None` without the controller.
    pub tasks: Option<Tasks>,
    /// One for each block device that was read or written.
    pub io: Vec<DeviceIo>,
    /// One for each size that the kernel counts.
    pub huge_pages: Vec<HugePages>,
}

/// How a quota of processor time was enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which there was something to run.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time for which processes had to wait.
    pub throttled: u64,
}

/// Processes and their threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// At the moment.
    pub current: u64,
    /// `None` without a limit.
    pub limit: Option<u64>,
}

/// What was read from and written to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// `/dev/vda`, or the two numbers when it has no name any more.
    pub device: String,
    /// The driver's number.
    pub major: u32,
    /// The device's number.
    pub minor: u32,
    /// Bytes.
    pub read: u64,
    /// Bytes.
    pub written: u64,
    /// Requests.
    pub reads: u64,
    /// Requests.
    pub writes: u64,
}

impl DeviceIo {
    /// The entry of a device in `list`, made when there is none.
    pub(super) fn in_list(list: &mut Vec<Self>, major: u32, minor: u32) -> &mut Self {
        let known = list.iter().position(|one| (one.major, one.minor) == (major, minor));
        let at = known.unwrap_or_else(|| {
            list.push(Self { device: device_name(major, minor), major, minor, ..Self::default() });
            list.len() - 1
        });
        &mut list[at]
    }
}

/// `/dev/vda`, or the two numbers when it has no name.
pub(super) fn device_name(major: u32, minor: u32) -> String {
    let numbers = format!("{major}:{minor}");
    let link = std::fs::read_link(format!("/sys/dev/block/{numbers}")).unwrap_or_default();
    link.file_name().map_or(numbers, |name| format!("/dev/{}", name.to_string_lossy()))
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// As the kernel names its files: `2MB`, `1GB`.
    pub size: String,
    /// Bytes in use.
    pub usage: u64,
    /// Most bytes that were ever in use; v1 alone counts it.
    pub max_usage: Option<u64>,
}
