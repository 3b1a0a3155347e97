//! Resource usage in containerd's format.

use crate::cgroup::Stats;
use crate::events;
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

/// Always the v2 message, even on cgroup v1: containerd's clients take either, and this one has a field for everything.
pub(super) fn pack(stats: &Stats) -> Any {
    let mut metrics = Metrics::default();
    let cpu = metrics.cpu.mut_or_insert_default();
    cpu.usage_usec = stats.cpu.usage / 1_000;
    cpu.user_usec = stats.cpu.user / 1_000;
    cpu.system_usec = stats.cpu.system / 1_000;
    cpu.nr_periods = stats.cpu.periods;
    cpu.nr_throttled = stats.cpu.throttled_periods;
    cpu.throttled_usec = stats.cpu.throttled / 1_000;
    let memory = metrics.memory.mut_or_insert_default();
    memory.usage = stats.memory.usage;
    memory.max_usage = stats.memory.max_usage;
    memory.usage_limit = stats.memory.limit;
    memory.swap_usage = stats.memory.swap;
    memory.anon = stats.memory.anon;
    memory.file = stats.memory.file;
    memory.inactive_file = stats.memory.inactive_file;
    memory.pgfault = stats.memory.page_faults;
    memory.pgmajfault = stats.memory.major_page_faults;
    let pids = metrics.pids.mut_or_insert_default();
    pids.current = stats.pids.current;
    pids.limit = stats.pids.limit;
    events::pack("io.containerd.cgroups.v2.Metrics", &metrics)
}
