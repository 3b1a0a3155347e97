//! The hierarchies of v1: Documentation/admin-guide/cgroup-v1 of Linux.

use super::{
    super::usage::{Cpu, Details, DeviceIo, HugePages, Memory, Swap, Throttling, Usage},
    Reader,
    parse::{device, field, fields, number},
};

/// The kernel reports "no limit" as i64::MAX rounded down to a multiple of the page size, here of up to 64 KiB.
const UNLIMITED: u64 = i64::MAX as u64 & !0xffff;

pub(super) fn usage(reader: &mut Reader<'_>, group: &str) -> Usage {
    let cpu = reader.read("cpuacct", group, "cpuacct.usage").and_then(number);
    let stat = reader.read("memory", group, "memory.stat").map(memory_stat);
    let used = reader.read("memory", group, "memory.usage_in_bytes").and_then(number);
    let (memory, swap) = match (stat, used) {
        (Some((memory, swap)), Some(usage)) => (Some(Memory { usage, ..memory }), swap),
        _ => (None, None),
    };
    Usage { cpu: cpu.map(|usage| Cpu { usage, ..Cpu::default() }), memory, swap, ..Usage::default() }
}

/// Lines that begin with `total_` include descendants, the others count the cgroup alone.
fn memory_stat(text: &[u8]) -> (Memory, Option<Swap>) {
    let (mut memory, mut swapped, mut together) = (Memory::default(), None, None);
    for (name, value) in fields(text) {
        let limit = Some(value).filter(|value| *value < UNLIMITED);
        match name {
            b"hierarchical_memory_limit" => memory.limit = limit,
            b"hierarchical_memsw_limit" => together = limit,
            b"total_rss" => memory.rss = value,
            b"total_cache" => memory.cache = value,
            b"total_mapped_file" => memory.mapped_file = value,
            b"total_inactive_file" => memory.inactive_file = value,
            b"total_pgfault" => memory.page_faults = value,
            b"total_pgmajfault" => memory.major_page_faults = value,
            b"pgfault" => memory.own_page_faults = value,
            b"pgmajfault" => memory.own_major_page_faults = value,
            b"total_swap" => swapped = Some(value),
            _ => {}
        }
    }
    // The memsw limit covers memory and swap together; swap gets what the memory limit leaves of it.
    let limit = together.zip(memory.limit).map(|(together, memory)| together.saturating_sub(memory));
    (memory, swapped.map(|usage| Swap { usage, limit }))
}

pub(super) fn details(reader: &mut Reader<'_>, group: &str) -> Details {
    let mut alone = |controller, file| reader.read(controller, group, file).and_then(number);
    Details {
        user: alone("cpuacct", "cpuacct.usage_user").unwrap_or(0),
        system: alone("cpuacct", "cpuacct.usage_sys").unwrap_or(0),
        max_usage: alone("memory", "memory.max_usage_in_bytes"),
        kernel_memory: alone("memory", "memory.kmem.usage_in_bytes"),
        // When memory and swap together reach their limit, only memsw.failcnt counts it.
        limit_hits: ["memory.failcnt", "memory.memsw.failcnt"]
            .into_iter()
            .filter_map(|file| alone("memory", file))
            .sum(),
        oom_kills: reader
            .read("memory", group, "memory.oom_control")
            .map_or(0, |text| field(text, "oom_kill")),
        throttling: reader.read("cpu", group, "cpu.stat").map(throttling).unwrap_or_default(),
        tasks: reader.tasks(group),
        io: io(reader, group),
        huge_pages: huge_pages(reader, group),
    }
}

fn throttling(text: &[u8]) -> Throttling {
    Throttling {
        periods: field(text, "nr_periods"),
        throttled_periods: field(text, "nr_throttled"),
        throttled: field(text, "throttled_time"),
    }
}

fn io(reader: &mut Reader<'_>, group: &str) -> Vec<DeviceIo> {
    let mut devices = Vec::new();
    if let Some(text) = reader.read("blkio", group, "blkio.throttle.io_service_bytes_recursive") {
        each_operation(text, &mut devices, |device, is_read, value| {
            *(if is_read { &mut device.read } else { &mut device.written }) = value;
        });
    }
    if let Some(text) = reader.read("blkio", group, "blkio.throttle.io_serviced_recursive") {
        each_operation(text, &mut devices, |device, is_read, value| {
            *(if is_read { &mut device.reads } else { &mut device.writes }) = value;
        });
    }
    devices
}

/// Parses lines such as `8:16 Read 4096`. Other operations are skipped: they are sums of these, or transfer no data.
fn each_operation(text: &[u8], devices: &mut Vec<DeviceIo>, note: impl Fn(&mut DeviceIo, bool, u64)) {
    for line in str::from_utf8(text).unwrap_or_default().lines() {
        let Some((major, minor, rest)) = device(line) else { continue };
        let Some((operation @ ("Read" | "Write"), value)) = rest.split_once(' ') else { continue };
        let Ok(value) = value.parse() else { continue };
        note(DeviceIo::in_list(devices, major, minor), operation == "Read", value);
    }
}

fn huge_pages(reader: &mut Reader<'_>, group: &str) -> Vec<HugePages> {
    let sizes = &reader.cgroups.huge_pages;
    let pages = |size: &String| {
        let mut of =
            |what| reader.read("hugetlb", group, &format!("hugetlb.{size}.{what}_in_bytes")).and_then(number);
        Some(HugePages { usage: of("usage")?, max_usage: of("max_usage"), size: size.clone() })
    };
    sizes.iter().filter_map(pages).collect()
}
