#![allow(clippy::unwrap_used)]
use std::{collections::HashSet, sync::Arc};

use berth_cri::v1::Metric;

use super::*;
use crate::{
    container::{Container, ContainerState},
    cri::samples,
    pod::PodState,
    stats::{
        ContainerStats, Cpu, Details, DeviceIo, DiskUsage, HugePages, Interface, Memory, Pressure, Processes,
        Stall, Swap, Tasks, Throttling, Traffic, Usage,
    },
};

/// Every name that critest requires a descriptor for.
const NAMES: &str = "
container_blkio_device_usage_total container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total
container_cpu_cfs_throttled_seconds_total container_cpu_system_seconds_total container_cpu_usage_seconds_total
container_cpu_user_seconds_total container_file_descriptors container_fs_inodes_free container_fs_inodes_total
container_fs_limit_bytes container_fs_reads_bytes_total container_fs_reads_total container_fs_usage_bytes
container_fs_writes_bytes_total container_fs_writes_total container_hugetlb_max_usage_bytes
container_hugetlb_usage_bytes container_last_seen container_memory_cache container_memory_failcnt
container_memory_failures_total container_memory_kernel_usage container_memory_mapped_file
container_memory_max_usage_bytes container_memory_rss container_memory_swap container_memory_usage_bytes
container_memory_working_set_bytes container_network_receive_bytes_total container_network_receive_errors_total
container_network_receive_packets_dropped_total container_network_receive_packets_total
container_network_transmit_bytes_total container_network_transmit_errors_total
container_network_transmit_packets_dropped_total container_network_transmit_packets_total
container_oom_events_total container_pressure_cpu_stalled_seconds_total
container_pressure_cpu_waiting_seconds_total container_pressure_io_stalled_seconds_total
container_pressure_io_waiting_seconds_total container_pressure_memory_stalled_seconds_total
container_pressure_memory_waiting_seconds_total container_processes container_sockets container_spec_cpu_period
container_spec_cpu_quota container_spec_cpu_shares container_spec_memory_limit_bytes
container_spec_memory_reservation_limit_bytes container_spec_memory_swap_limit_bytes
container_start_time_seconds container_threads container_threads_max container_ulimits_soft";

fn pressure() -> Option<Pressure> {
    let stall = |seconds: u64| Stall { total: seconds * 1_000_000 + 999_999, ..Stall::default() };
    Some(Pressure { some: stall(7), full: stall(3) })
}

fn container() -> Container {
    let state = ContainerState::Running { pid: 7, started_at: 1_700_000_000_999_999_999 };
    let mut container = samples::container("c1", "p1", state);
    container.config.metadata.name = "main".into();
    container.config.resources.cpu_quota = Some(20_000);
    container.config.resources.memory_limit = Some(64 << 20);
    container.config.resources.memory_swap_limit = Some(-1);
    container
}

fn usage() -> Usage {
    let memory = Memory { usage: 100, inactive_file: 30, rss: 40, pressure: pressure(), ..Memory::default() };
    Usage {
        at: 1,
        cpu: Some(Cpu { usage: 12_999_999_999, rate: None, pressure: pressure() }),
        memory: Some(memory),
        swap: Some(Swap { usage: 5, limit: None }),
        io_pressure: pressure(),
    }
}

fn details() -> Details {
    Details {
        user: 2_000_000_000,
        system: 1_999_999_999,
        throttling: Throttling { periods: 3, throttled_periods: 2, throttled: 4_000_000_000 },
        max_usage: Some(1),
        kernel_memory: Some(2),
        limit_hits: 3,
        oom_kills: 4,
        tasks: Some(Tasks { current: 5, limit: None }),
        io: vec![DeviceIo {
            device: "/dev/vda".into(),
            major: 253,
            minor: 0,
            read: 1,
            written: 2,
            ..DeviceIo::default()
        }],
        huge_pages: vec![HugePages { size: "2MB".into(), usage: 6, max_usage: Some(7) }],
    }
}

/// Returns the metrics of a pod with all values known.
fn metrics() -> PodSandboxMetrics {
    let disk = DiskUsage { at: 99, bytes: 4096, inodes: 1 };
    let stats = ContainerStats { container: Arc::new(container()), usage: Some(usage()), disk: Some(disk) };
    let processes = Processes { count: 1, descriptors: 4, sockets: 1, descriptor_limit: Some(1024) };
    let traffic = |bytes| Traffic { bytes, packets: 2, errors: 3, dropped: 4 };
    let interface = Interface { name: "eth0".into(), received: traffic(1), sent: traffic(10) };
    let pod = PodDetails {
        pod: Arc::new(samples::pod("p1", PodState::Ready)),
        interfaces: vec![interface],
        containers: vec![ContainerDetails { stats, details: details(), processes }],
    };
    let file_system = FileSystem { device: "/dev/vda".into(), bytes: 1000, inodes: 100, inodes_free: 90 };
    of_pod(&pod, &file_system)
}

fn descriptors() -> Vec<berth_cri::v1::MetricDescriptor> {
    let containers = container::FAMILIES.iter().map(Family::descriptor);
    containers.chain(interface::FAMILIES.iter().map(Family::descriptor)).collect()
}

#[test]
fn every_name_is_described_once_and_no_other() {
    let descriptors = descriptors();
    let names: HashSet<&str> = descriptors.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, NAMES.split_whitespace().collect());
    assert_eq!((names.len(), descriptors.len()), (56, 56));
    assert!(descriptors.iter().all(|one| one.help.ends_with('.') && one.help.len() > 10));
}

#[test]
fn every_metric_has_the_labels_of_its_description() {
    let metrics = metrics();
    let all: Vec<&Metric> = metrics.metrics.iter().chain(&metrics.container_metrics[0].metrics).collect();
    for descriptor in descriptors() {
        let values: Vec<_> = all.iter().filter(|metric| metric.name == descriptor.name).collect();
        assert!(!values.is_empty(), "{}", descriptor.name);
        assert!(values.iter().all(|one| one.label_values.len() == descriptor.label_keys.len()), "{values:?}");
    }
}

#[test]
fn values_have_the_units_of_their_names() {
    let metrics = metrics();
    let value = |name: &str| {
        let all = metrics.metrics.iter().chain(&metrics.container_metrics[0].metrics);
        all.filter(|metric| metric.name == name).map(|metric| metric.value.unwrap().value).collect::<Vec<_>>()
    };
    for (name, expected) in [
        ("container_cpu_usage_seconds_total", 12),
        ("container_cpu_user_seconds_total", 2),
        ("container_cpu_system_seconds_total", 1),
        ("container_cpu_cfs_throttled_seconds_total", 4),
        ("container_memory_working_set_bytes", 70),
        ("container_pressure_io_waiting_seconds_total", 7),
        ("container_pressure_cpu_stalled_seconds_total", 3),
        ("container_start_time_seconds", 1_700_000_000),
        ("container_spec_cpu_period", 100_000),
        ("container_spec_cpu_quota", 20_000),
        ("container_spec_memory_limit_bytes", 64 << 20),
        ("container_spec_memory_swap_limit_bytes", 0),
        ("container_threads_max", 0),
        ("container_network_receive_bytes_total", 1),
        ("container_network_transmit_packets_dropped_total", 4),
    ] {
        assert_eq!(value(name), [expected], "{name}");
    }
    assert_eq!(value("container_blkio_device_usage_total"), [1, 2]);
}

#[test]
fn only_what_was_found_out_before_has_a_time() {
    let metrics = metrics();
    let timed = metrics.container_metrics[0].metrics.iter().filter(|metric| metric.timestamp != 0);
    let timed: Vec<_> = timed.map(|metric| (metric.name.as_str(), metric.timestamp)).collect();
    assert_eq!(timed, [("container_fs_usage_bytes", 99)]);
}

#[test]
fn labels_name_the_container_and_its_pod() {
    let metrics = metrics();
    let of_container = &metrics.container_metrics[0].metrics[0].label_values;
    assert_eq!(of_container[..], ["c1", "busybox", "default", "web", "main", "total"]);
    assert_eq!(metrics.metrics[0].label_values, ["p1", "", "default", "web", "", "eth0"]);
}
