//! The metrics of a container. Times are whole seconds, because the CRI has only integer values.

use super::family::{Family, Value, known, one};
use crate::{
    container::{ContainerState, config::Resources},
    stats::{ContainerDetails, DeviceIo, DiskUsage, FileSystem, Memory, Pressure, Stall, Swap},
};

const NANOSECONDS: u64 = 1_000_000_000;
const MICROSECONDS: u64 = 1_000_000;
/// The kernel's defaults, reported where nothing else was asked for.
const CPU_PERIOD: u64 = 100_000;
const CPU_SHARES: u64 = 1024;

/// The measurements of a container.
pub(super) struct Measurements<'a> {
    pub(super) details: &'a ContainerDetails,
    /// File system of the writable layer.
    pub(super) file_system: &'a FileSystem,
    /// Time of the measurement, nanoseconds since the epoch.
    pub(super) at: i64,
}

type Extract = fn(&Measurements<'_>) -> Vec<Value>;

const NONE: &[&str] = &[];
const DEVICE: &[&str] = &["device"];
const PAGES: &[&str] = &["pagesize"];

pub(super) const FAMILIES: &[Family<Extract>] = &[
    // Processor.
    Family::counter(
        "container_cpu_usage_seconds_total",
        "Processor time used, in seconds.",
        &["cpu"],
        |seen| {
            let cpu = seen.details.stats.usage.as_ref().and_then(|usage| usage.cpu);
            cpu.into_iter().map(|cpu| Value::of(["total"], cpu.usage / NANOSECONDS)).collect()
        },
    ),
    Family::counter(
        "container_cpu_user_seconds_total",
        "Processor time used in user mode, in seconds.",
        NONE,
        |seen| one(seen.details.details.user / NANOSECONDS),
    ),
    Family::counter(
        "container_cpu_system_seconds_total",
        "Processor time used in the kernel, in seconds.",
        NONE,
        |seen| one(seen.details.details.system / NANOSECONDS),
    ),
    Family::counter(
        "container_cpu_cfs_periods_total",
        "Periods of the processor quota that have elapsed.",
        NONE,
        |seen| one(seen.details.details.throttling.periods),
    ),
    Family::counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the processor quota was used up.",
        NONE,
        |seen| one(seen.details.details.throttling.throttled_periods),
    ),
    Family::counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time for which the processor quota made the container wait, in seconds.",
        NONE,
        |seen| one(seen.details.details.throttling.throttled / NANOSECONDS),
    ),
    // Memory.
    Family::gauge("container_memory_usage_bytes", "Memory in use, with all caches.", NONE, |seen| {
        memory(seen, |memory| memory.usage)
    }),
    Family::gauge(
        "container_memory_working_set_bytes",
        "Memory in use that cannot easily be given back.",
        NONE,
        |seen| memory(seen, Memory::working_set),
    ),
    Family::gauge("container_memory_rss", "Anonymous memory, in bytes.", NONE, |seen| {
        memory(seen, |memory| memory.rss)
    }),
    Family::gauge("container_memory_cache", "Cached files, in bytes.", NONE, |seen| {
        memory(seen, |memory| memory.cache)
    }),
    Family::gauge("container_memory_mapped_file", "Files mapped into memory, in bytes.", NONE, |seen| {
        memory(seen, |memory| memory.mapped_file)
    }),
    Family::gauge("container_memory_swap", "Swap in use, in bytes.", NONE, |seen| {
        one(swap(seen).map_or(0, |swap| swap.usage))
    }),
    Family::gauge("container_memory_kernel_usage", "Kernel memory, in bytes.", NONE, |seen| {
        known(seen.details.details.kernel_memory)
    }),
    Family::gauge("container_memory_max_usage_bytes", "Most memory ever in use.", NONE, |seen| {
        known(seen.details.details.max_usage)
    }),
    Family::counter("container_memory_failcnt", "How often the limit of memory was reached.", NONE, |seen| {
        one(seen.details.details.limit_hits)
    }),
    Family::counter(
        "container_memory_failures_total",
        "Page faults, by whether they waited for the disk and whether groups below count.",
        &["failure_type", "scope"],
        page_faults,
    ),
    Family::counter("container_oom_events_total", "Processes killed for lack of memory.", NONE, |seen| {
        one(seen.details.details.oom_kills)
    }),
    Family::gauge("container_hugetlb_usage_bytes", "Huge pages in use, in bytes.", PAGES, |seen| {
        let pages = seen.details.details.huge_pages.iter();
        pages.map(|pages| Value::of([&pages.size], pages.usage)).collect()
    }),
    Family::gauge(
        "container_hugetlb_max_usage_bytes",
        "Most huge pages ever in use, in bytes.",
        PAGES,
        |seen| {
            let pages = seen.details.details.huge_pages.iter();
            pages.filter_map(|pages| Some(Value::of([&pages.size], pages.max_usage?))).collect()
        },
    ),
    // Disk.
    Family::gauge(
        "container_fs_usage_bytes",
        "What the container wrote over its image, in bytes.",
        DEVICE,
        |seen| {
            let value =
                |disk: DiskUsage| Value { at: disk.at, ..Value::of([&seen.file_system.device], disk.bytes) };
            seen.details.stats.disk.map(value).into_iter().collect()
        },
    ),
    Family::gauge("container_fs_limit_bytes", "Size of the container's file system.", DEVICE, |seen| {
        of_file_system(seen, seen.file_system.bytes)
    }),
    Family::gauge("container_fs_inodes_total", "Inodes of the container's file system.", DEVICE, |seen| {
        of_file_system(seen, seen.file_system.inodes)
    }),
    Family::gauge(
        "container_fs_inodes_free",
        "Free inodes of the container's file system.",
        DEVICE,
        |seen| of_file_system(seen, seen.file_system.inodes_free),
    ),
    Family::counter("container_fs_reads_bytes_total", "Bytes read from disk.", DEVICE, |seen| {
        each_device(seen, |io| io.read)
    }),
    Family::counter("container_fs_reads_total", "Reads from disk.", DEVICE, |seen| {
        each_device(seen, |io| io.reads)
    }),
    Family::counter("container_fs_writes_bytes_total", "Bytes written to disk.", DEVICE, |seen| {
        each_device(seen, |io| io.written)
    }),
    Family::counter("container_fs_writes_total", "Writes to disk.", DEVICE, |seen| {
        each_device(seen, |io| io.writes)
    }),
    Family::counter(
        "container_blkio_device_usage_total",
        "Bytes read from and written to each block device.",
        &["device", "major", "minor", "operation"],
        device_usage,
    ),
    // Processes.
    Family::gauge("container_processes", "Processes in the container.", NONE, |seen| {
        one(seen.details.processes.count)
    }),
    Family::gauge("container_threads", "Threads in the container.", NONE, |seen| {
        known(seen.details.details.tasks.map(|tasks| tasks.current))
    }),
    Family::gauge(
        "container_threads_max",
        "Threads that the container may have; 0 without a limit.",
        NONE,
        |seen| known(seen.details.details.tasks.map(|tasks| tasks.limit.unwrap_or(0))),
    ),
    Family::gauge("container_file_descriptors", "Open file descriptors.", NONE, |seen| {
        one(seen.details.processes.descriptors)
    }),
    Family::gauge("container_sockets", "Open sockets.", NONE, |seen| one(seen.details.processes.sockets)),
    Family::gauge(
        "container_ulimits_soft",
        "Soft limits of the container's first process.",
        &["ulimit"],
        |seen| {
            let limit = seen.details.processes.descriptor_limit.into_iter();
            limit.map(|limit| Value::of(["max_open_files"], limit)).collect()
        },
    ),
    // Pressure (PSI), cgroup v2 only.
    Family::counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time for which all processes waited for a processor, in seconds.",
        NONE,
        |seen| stalled(cpu_pressure(seen), |pressure| pressure.full),
    ),
    Family::counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time for which a process waited for a processor, in seconds.",
        NONE,
        |seen| stalled(cpu_pressure(seen), |pressure| pressure.some),
    ),
    Family::counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time for which all processes waited for memory, in seconds.",
        NONE,
        |seen| stalled(memory_pressure(seen), |pressure| pressure.full),
    ),
    Family::counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time for which a process waited for memory, in seconds.",
        NONE,
        |seen| stalled(memory_pressure(seen), |pressure| pressure.some),
    ),
    Family::counter(
        "container_pressure_io_stalled_seconds_total",
        "Time for which all processes waited for the disk, in seconds.",
        NONE,
        |seen| stalled(io_pressure(seen), |pressure| pressure.full),
    ),
    Family::counter(
        "container_pressure_io_waiting_seconds_total",
        "Time for which a process waited for the disk, in seconds.",
        NONE,
        |seen| stalled(io_pressure(seen), |pressure| pressure.some),
    ),
    // Requested resources.
    Family::gauge(
        "container_spec_cpu_period",
        "Period of the processor quota, in microseconds.",
        NONE,
        |seen| one(resources(seen).cpu_period.unwrap_or(CPU_PERIOD)),
    ),
    Family::gauge(
        "container_spec_cpu_quota",
        "Processor time in each period, in microseconds; absent without a quota.",
        NONE,
        |seen| known(resources(seen).cpu_quota.and_then(positive)),
    ),
    Family::gauge("container_spec_cpu_shares", "Share of the processors.", NONE, |seen| {
        one(resources(seen).cpu_shares.unwrap_or(CPU_SHARES))
    }),
    Family::gauge("container_spec_memory_limit_bytes", "Limit of memory; 0 without a limit.", NONE, |seen| {
        one(resources(seen).memory_limit.and_then(positive).unwrap_or(0))
    }),
    Family::gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that is kept when it becomes scarce; 0 when none is.",
        NONE,
        |seen| one(reservation(resources(seen))),
    ),
    Family::gauge(
        "container_spec_memory_swap_limit_bytes",
        "Limit of memory and swap together; 0 without a limit.",
        NONE,
        |seen| one(resources(seen).memory_swap_limit.and_then(positive).unwrap_or(0)),
    ),
    // The container itself.
    Family::gauge(
        "container_start_time_seconds",
        "When the container was started, in seconds since the epoch.",
        NONE,
        |seen| one(seconds(started_at(seen))),
    ),
    Family::gauge(
        "container_last_seen",
        "When the container was looked at last, in seconds since the epoch.",
        NONE,
        |seen| one(seconds(seen.at)),
    ),
];

fn memory(seen: &Measurements<'_>, what: fn(&Memory) -> u64) -> Vec<Value> {
    known(seen.details.stats.usage.as_ref().and_then(|usage| usage.memory.as_ref()).map(what))
}

fn swap(seen: &Measurements<'_>) -> Option<Swap> {
    seen.details.stats.usage.as_ref()?.swap
}

fn page_faults(seen: &Measurements<'_>) -> Vec<Value> {
    let Some(memory) = seen.details.stats.usage.as_ref().and_then(|usage| usage.memory) else {
        return Vec::new();
    };
    vec![
        Value::of(["pgfault", "container"], memory.own_page_faults),
        Value::of(["pgfault", "hierarchy"], memory.page_faults),
        Value::of(["pgmajfault", "container"], memory.own_major_page_faults),
        Value::of(["pgmajfault", "hierarchy"], memory.major_page_faults),
    ]
}

fn of_file_system(seen: &Measurements<'_>, value: u64) -> Vec<Value> {
    vec![Value::of([&seen.file_system.device], value)]
}

fn each_device(seen: &Measurements<'_>, what: fn(&DeviceIo) -> u64) -> Vec<Value> {
    seen.details.details.io.iter().map(|io| Value::of([&io.device], what(io))).collect()
}

fn device_usage(seen: &Measurements<'_>) -> Vec<Value> {
    let both = |io: &DeviceIo| {
        let (major, minor) = (io.major.to_string(), io.minor.to_string());
        [("Read", io.read), ("Write", io.written)]
            .map(|(operation, value)| Value::of([&io.device, &major, &minor, operation], value))
    };
    seen.details.details.io.iter().flat_map(both).collect()
}

fn cpu_pressure(seen: &Measurements<'_>) -> Option<Pressure> {
    seen.details.stats.usage.as_ref()?.cpu?.pressure
}

fn memory_pressure(seen: &Measurements<'_>) -> Option<Pressure> {
    seen.details.stats.usage.as_ref()?.memory?.pressure
}

fn io_pressure(seen: &Measurements<'_>) -> Option<Pressure> {
    seen.details.stats.usage.as_ref()?.io_pressure
}

fn stalled(pressure: Option<Pressure>, which: fn(Pressure) -> Stall) -> Vec<Value> {
    known(pressure.map(|pressure| which(pressure).total / MICROSECONDS))
}

fn resources<'a>(seen: &Measurements<'a>) -> &'a Resources {
    &seen.details.stats.container.config.resources
}

/// Returns `None` for 0 and negative values, which mean no limit.
fn positive(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn reservation(resources: &Resources) -> u64 {
    resources.unified.get("memory.min").and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Returns the time of the start; of the creation for a container that was not started yet.
fn started_at(seen: &Measurements<'_>) -> i64 {
    let container = &seen.details.stats.container;
    match container.state {
        ContainerState::Created { .. } => container.created_at,
        ContainerState::Running { .. } | ContainerState::Exited { .. } => container.state.started_at(),
    }
}

fn seconds(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds).unwrap_or(0) / NANOSECONDS
}
