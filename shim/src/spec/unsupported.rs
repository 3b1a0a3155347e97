//! Members of a config.json that the shim does not implement. A request for one is refused by its name, because a limit
//! that is silently ignored is worse than an error.

use super::{BlockIo, Cpu, Linux, Memory, Process, Resources, Spec};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Whether a member that the shim does not implement is set: to a number other than 0, `true`, or anything non-empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnsupportedMember(pub bool);

impl<'de> Deserialize<'de> for UnsupportedMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(is_set(&value)))
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(wanted) => *wanted,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => members.values().any(is_set),
    }
}

fn first_set(members: &[(UnsupportedMember, &'static str)]) -> Option<&'static str> {
    members.iter().find(|(member, _)| member.0).map(|(_, name)| *name)
}

impl Spec {
    /// Path of the first member that asks for something not implemented.
    pub fn unsupported(&self) -> Option<&'static str> {
        self.process.unsupported().or_else(|| self.linux.unsupported())
    }
}

impl Process {
    /// See [`Spec::unsupported`].
    pub fn unsupported(&self) -> Option<&'static str> {
        first_set(&[(self.exec_cpu_affinity, "process.execCPUAffinity")])
    }
}

impl Linux {
    fn unsupported(&self) -> Option<&'static str> {
        let own = first_set(&[
            (self.time_offsets, "linux.timeOffsets"),
            (self.memory_policy, "linux.memoryPolicy"),
            (self.intel_rdt, "linux.intelRdt"),
            (self.net_devices, "linux.netDevices"),
        ]);
        own.or_else(|| self.resources.unsupported())
    }
}

impl Resources {
    /// See [`Spec::unsupported`].
    pub fn unsupported(&self) -> Option<&'static str> {
        let own = [(self.rdma, "linux.resources.rdma"), (self.network, "linux.resources.network")];
        first_set(&own)
            .or_else(|| self.memory.as_ref().and_then(Memory::unsupported))
            .or_else(|| self.cpu.as_ref().and_then(Cpu::unsupported))
            .or_else(|| self.block_io.as_ref().and_then(BlockIo::unsupported))
    }
}

impl Memory {
    fn unsupported(&self) -> Option<&'static str> {
        first_set(&[
            (self.kernel, "linux.resources.memory.kernel"),
            (self.kernel_tcp, "linux.resources.memory.kernelTCP"),
            (self.check_before_update, "linux.resources.memory.checkBeforeUpdate"),
        ])
    }
}

impl Cpu {
    fn unsupported(&self) -> Option<&'static str> {
        first_set(&[
            (self.realtime_runtime, "linux.resources.cpu.realtimeRuntime"),
            (self.realtime_period, "linux.resources.cpu.realtimePeriod"),
        ])
    }
}

impl BlockIo {
    fn unsupported(&self) -> Option<&'static str> {
        first_set(&[
            (self.leaf_weight, "linux.resources.blockIO.leafWeight"),
            (self.weight_device, "linux.resources.blockIO.weightDevice"),
            (self.throttle_read_bps_device, "linux.resources.blockIO.throttleReadBpsDevice"),
            (self.throttle_write_bps_device, "linux.resources.blockIO.throttleWriteBpsDevice"),
            (self.throttle_read_iops_device, "linux.resources.blockIO.throttleReadIOPSDevice"),
            (self.throttle_write_iops_device, "linux.resources.blockIO.throttleWriteIOPSDevice"),
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A config.json with `value` at this path.
    fn with(path: &str, value: Value) -> Spec {
        let nest = |inner: Value, name: &str| json!({ name: inner });
        let whole = path.rsplit('.').fold(value, nest);
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn what_is_not_built_is_refused_by_its_path() {
        let throttle = json!([{ "major": 8, "minor": 0, "rate": 1 }]);
        let cases = [
            ("process.execCPUAffinity", json!({ "initial": "0-1" })),
            ("linux.timeOffsets", json!({ "monotonic": { "secs": 1 } })),
            ("linux.memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0" })),
            ("linux.intelRdt", json!({ "closID": "x" })),
            ("linux.netDevices", json!({ "eth1": { "name": "eth0" } })),
            ("linux.resources.rdma", json!({ "mlx5_1": { "hcaHandles": 3 } })),
            ("linux.resources.network", json!({ "classID": 1 })),
            ("linux.resources.memory.kernel", json!(4096)),
            ("linux.resources.memory.kernelTCP", json!(-1)),
            ("linux.resources.memory.checkBeforeUpdate", json!(true)),
            ("linux.resources.cpu.realtimeRuntime", json!(950_000)),
            ("linux.resources.cpu.realtimePeriod", json!(1_000_000)),
            ("linux.resources.blockIO.leafWeight", json!(10)),
            ("linux.resources.blockIO.weightDevice", json!([{ "major": 8, "minor": 0, "weight": 10 }])),
            ("linux.resources.blockIO.throttleReadBpsDevice", throttle.clone()),
            ("linux.resources.blockIO.throttleWriteBpsDevice", throttle.clone()),
            ("linux.resources.blockIO.throttleReadIOPSDevice", throttle.clone()),
            ("linux.resources.blockIO.throttleWriteIOPSDevice", throttle),
        ];
        for (path, value) in cases {
            assert_eq!(with(path, value).unsupported(), Some(path));
        }
    }

    #[test]
    fn what_asks_for_nothing_is_let_pass() {
        assert_eq!(with("linux.timeOffsets", Value::Null).unsupported(), None);
        assert_eq!(with("linux.netDevices", json!({})).unsupported(), None);
        assert_eq!(with("linux.resources.blockIO.throttleReadBpsDevice", json!([])).unsupported(), None);
        assert_eq!(with("linux.resources.cpu.realtimeRuntime", json!(0)).unsupported(), None);
        assert_eq!(with("linux.resources.memory.checkBeforeUpdate", json!(false)).unsupported(), None);
        assert_eq!(with("linux.resources.network", json!({ "priorities": [] })).unsupported(), None);
        assert_eq!(with("linux.resources.memory.limit", json!(1)).unsupported(), None);
    }
}
