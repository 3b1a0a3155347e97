//! Statistics of containers and pods. Unknown values are left out.

use berth_cri::v1::{self, UInt64Value};

use super::{container, pod};
use crate::stats::{
    ContainerStats, Cpu, DiskUsage, Interface, Memory, PodStats, Pressure, Stall, Swap, Usage,
};

/// Converts a container's statistics; `mountpoint` names the file system of its writable layer.
pub(crate) fn container_stats(stats: &ContainerStats, mountpoint: &str) -> v1::ContainerStats {
    let config = &stats.container.config;
    let usage = stats.usage.as_ref();
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: stats.container.id.clone(),
            metadata: Some(container::metadata(&config.metadata)),
            labels: config.labels.clone().into_iter().collect(),
            annotations: config.annotations.clone().into_iter().collect(),
        }),
        cpu: usage.and_then(cpu),
        memory: usage.and_then(memory),
        writable_layer: stats.disk.map(|usage| filesystem(usage, mountpoint)),
        swap: usage.and_then(swap),
        io: usage.and_then(io),
    }
}

/// Converts a pod's statistics, including those of its containers.
pub(crate) fn pod_stats(stats: &PodStats, mountpoint: &str) -> v1::PodSandboxStats {
    let config = &stats.pod.config;
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: stats.pod.id.clone(),
            metadata: Some(pod::metadata(&config.metadata)),
            labels: config.labels.clone().into_iter().collect(),
            annotations: config.annotations.clone().into_iter().collect(),
        }),
        linux: Some(linux(stats, mountpoint)),
        windows: None,
    }
}

fn linux(stats: &PodStats, mountpoint: &str) -> v1::LinuxPodSandboxStats {
    let usage = stats.usage.as_ref();
    let timestamp = usage.map_or(0, |usage| usage.at);
    v1::LinuxPodSandboxStats {
        cpu: usage.and_then(cpu),
        memory: usage.and_then(memory),
        network: network(&stats.interfaces, timestamp),
        process: stats.tasks.map(|count| v1::ProcessUsage { timestamp, process_count: known(count) }),
        containers: stats.containers.iter().map(|one| container_stats(one, mountpoint)).collect(),
        io: usage.and_then(io),
    }
}

/// Converts disk usage on the file system `mountpoint`.
pub(crate) fn filesystem(usage: DiskUsage, mountpoint: &str) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: usage.at,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
        used_bytes: known(usage.bytes),
        inodes_used: known(usage.inodes),
    }
}

fn cpu(usage: &Usage) -> Option<v1::CpuUsage> {
    usage.cpu.map(|Cpu { usage: total, rate, pressure }| v1::CpuUsage {
        timestamp: usage.at,
        usage_core_nano_seconds: known(total),
        usage_nano_cores: rate.and_then(known),
        psi: pressure.map(psi),
    })
}

fn memory(usage: &Usage) -> Option<v1::MemoryUsage> {
    usage.memory.map(|memory: Memory| v1::MemoryUsage {
        timestamp: usage.at,
        working_set_bytes: known(memory.working_set()),
        available_bytes: memory.available().and_then(known),
        usage_bytes: known(memory.usage),
        rss_bytes: known(memory.rss),
        page_faults: known(memory.page_faults),
        major_page_faults: known(memory.major_page_faults),
        psi: memory.pressure.map(psi),
    })
}

fn swap(usage: &Usage) -> Option<v1::SwapUsage> {
    usage.swap.map(|Swap { usage: used, limit }| v1::SwapUsage {
        timestamp: usage.at,
        swap_available_bytes: limit.and_then(|limit| known(limit.saturating_sub(used))),
        swap_usage_bytes: known(used),
    })
}

fn io(usage: &Usage) -> Option<v1::IoUsage> {
    usage.io_pressure.map(|pressure| v1::IoUsage { timestamp: usage.at, psi: Some(psi(pressure)) })
}

fn psi(pressure: Pressure) -> v1::PsiStats {
    let stall = |stall: Stall| {
        Some(v1::PsiData { total: stall.total, avg10: stall.avg10, avg60: stall.avg60, avg300: stall.avg300 })
    };
    v1::PsiStats { full: stall(pressure.full), some: stall(pressure.some) }
}

/// Returns `None` without an interface, since kubelet expects the default interface to be present.
fn network(interfaces: &[Interface], timestamp: i64) -> Option<v1::NetworkUsage> {
    let default = interfaces.iter().find(|one| one.name == "eth0").or(interfaces.first())?;
    Some(v1::NetworkUsage {
        timestamp,
        default_interface: Some(interface(default)),
        interfaces: interfaces.iter().map(interface).collect(),
    })
}

fn interface(interface: &Interface) -> v1::NetworkInterfaceUsage {
    v1::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: known(interface.received.bytes),
        rx_errors: known(interface.received.errors),
        tx_bytes: known(interface.sent.bytes),
        tx_errors: known(interface.sent.errors),
    }
}

fn known(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}
