//! The one hierarchy of v2: Documentation/admin-guide/cgroup-v2.rst of Linux.

use super::{
    super::usage::{Cpu, Details, DeviceIo, HugePages, Memory, Pressure, Swap, Throttling, Usage},
    Reader,
    parse::{device, field, fields, number, pressure},
};

pub(super) fn usage(reader: &mut Reader<'_>, group: &str) -> Usage {
    let cpu = read(reader, group, "cpu.stat").map(|text| field(text, "usage_usec") * 1000);
    let cpu_pressure = pressure_of(reader, group, "cpu.pressure");
    Usage {
        cpu: cpu.map(|usage| Cpu { usage, rate: None, pressure: cpu_pressure }),
        memory: memory(reader, group),
        swap: swap(reader, group),
        io_pressure: pressure_of(reader, group, "io.pressure"),
        ..Usage::default()
    }
}

fn read<'a>(reader: &'a mut Reader<'_>, group: &str, file: &str) -> Option<&'a [u8]> {
    reader.read("", group, file)
}

fn pressure_of(reader: &mut Reader<'_>, group: &str, file: &str) -> Option<Pressure> {
    read(reader, group, file).and_then(pressure)
}

fn memory(reader: &mut Reader<'_>, group: &str) -> Option<Memory> {
    let usage = read(reader, group, "memory.current").and_then(number)?;
    let memory = memory_stat(read(reader, group, "memory.stat")?);
    let limit = read(reader, group, "memory.max").and_then(number);
    Some(Memory { usage, limit, pressure: pressure_of(reader, group, "memory.pressure"), ..memory })
}

/// All values include descendants.
fn memory_stat(text: &[u8]) -> Memory {
    let mut memory = Memory::default();
    for (name, value) in fields(text) {
        match name {
            b"anon" => memory.rss = value,
            b"file" => memory.cache = value,
            b"file_mapped" => memory.mapped_file = value,
            b"inactive_file" => memory.inactive_file = value,
            b"pgfault" => (memory.page_faults, memory.own_page_faults) = (value, value),
            b"pgmajfault" => (memory.major_page_faults, memory.own_major_page_faults) = (value, value),
            _ => {}
        }
    }
    memory
}

fn swap(reader: &mut Reader<'_>, group: &str) -> Option<Swap> {
    let usage = read(reader, group, "memory.swap.current").and_then(number)?;
    Some(Swap { usage, limit: read(reader, group, "memory.swap.max").and_then(number) })
}

pub(super) fn details(reader: &mut Reader<'_>, group: &str) -> Details {
    let mut details = Details { tasks: reader.tasks(group), ..Details::default() };
    if let Some(text) = read(reader, group, "cpu.stat") {
        details.user = field(text, "user_usec") * 1000;
        details.system = field(text, "system_usec") * 1000;
        details.throttling = throttling(text);
    }
    if let Some(text) = read(reader, group, "memory.events") {
        (details.limit_hits, details.oom_kills) = (field(text, "max"), field(text, "oom_kill"));
    }
    let stat = read(reader, group, "memory.stat");
    details.kernel_memory =
        stat.and_then(|text| fields(text).find(|(name, _)| *name == b"kernel")).map(|(_, value)| value);
    details.max_usage = read(reader, group, "memory.peak").and_then(number);
    details.io = read(reader, group, "io.stat").map(io).unwrap_or_default();
    details.huge_pages = huge_pages(reader, group);
    details
}

fn throttling(text: &[u8]) -> Throttling {
    Throttling {
        periods: field(text, "nr_periods"),
        throttled_periods: field(text, "nr_throttled"),
        throttled: field(text, "throttled_usec") * 1000,
    }
}

/// Parses lines such as `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0`.
fn io(text: &[u8]) -> Vec<DeviceIo> {
    let mut devices = Vec::new();
    for (major, minor, pairs) in str::from_utf8(text).unwrap_or_default().lines().filter_map(device) {
        let found = DeviceIo::in_list(&mut devices, major, minor);
        for (name, value) in pairs.split_ascii_whitespace().filter_map(|pair| pair.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match name {
                "rbytes" => found.read = value,
                "wbytes" => found.written = value,
                "rios" => found.reads = value,
                "wios" => found.writes = value,
                _ => {}
            }
        }
    }
    devices
}

fn huge_pages(reader: &mut Reader<'_>, group: &str) -> Vec<HugePages> {
    let sizes = &reader.cgroups.huge_pages;
    let pages = |size: &String| {
        let usage = read(reader, group, &format!("hugetlb.{size}.current")).and_then(number)?;
        Some(HugePages { usage, max_usage: None, size: size.clone() })
    };
    sizes.iter().filter_map(pages).collect()
}
