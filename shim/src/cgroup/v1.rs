//! Limits in the hierarchies of v1.

use super::files::{make, number, read, write};
use super::hierarchy::Hierarchy;
use super::writes::Writes;
use super::{Error, devices};
use crate::spec::{Cpu, DeviceRule, Memory, Resources};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The group's directory in each hierarchy.
pub(super) struct Group<'a> {
    pub(super) hierarchies: &'a [Hierarchy],
    pub(super) path: &'a Path,
}

impl Group<'_> {
    pub(super) fn create(&self, mark: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
        for hierarchy in self.hierarchies {
            let is_cpuset = hierarchy.has("cpuset");
            make(&hierarchy.mount.join(self.path), &mut |made| {
                mark(made)?;
                if is_cpuset { inherit_cpuset(made) } else { Ok(()) }
            })?;
        }
        Ok(())
    }

    /// The directory by which a controller is set.
    pub(super) fn directory(&self, controller: &str) -> Option<PathBuf> {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.has(controller))?;
        Some(hierarchy.mount.join(self.path))
    }

    /// Fails if no hierarchy has the controller: a limit must not be ignored silently.
    fn required(&self, controller: &str) -> Result<PathBuf, Error> {
        self.directory(controller).ok_or_else(|| Error {
            action: format!("limit {controller}, which no hierarchy of this host controls, of"),
            path: self.path.to_owned(),
            source: ErrorKind::NotFound.into(),
        })
    }

    pub(super) fn apply(&self, resources: &Resources, writes: &mut Writes) -> Result<(), Error> {
        if !resources.devices.is_empty() {
            allow_devices(&self.required("devices")?, &resources.devices)?;
        }
        if let Some(memory) = &resources.memory {
            limit_memory(&self.required("memory")?, memory, writes)?;
        }
        if let Some(cpu) = &resources.cpu {
            self.limit_cpu(cpu, writes)?;
        }
        if let Some(pids) = &resources.pids {
            let limit = if pids.limit > 0 { pids.limit.to_string() } else { "max".into() };
            writes.write(&self.required("pids")?, "pids.max", &limit)?;
        }
        self.limit_others(resources, writes)
    }

    fn limit_cpu(&self, cpu: &Cpu, writes: &mut Writes) -> Result<(), Error> {
        for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if !value.is_empty() {
                writes.write(&self.required("cpuset")?, file, value)?;
            }
        }
        let time = [
            cpu.shares.is_some(),
            cpu.quota.is_some(),
            cpu.period.is_some(),
            cpu.burst.is_some(),
            cpu.idle.is_some(),
        ];
        if time.contains(&true) { limit_cpu_time(&self.required("cpu")?, cpu, writes) } else { Ok(()) }
    }

    fn limit_others(&self, resources: &Resources, writes: &mut Writes) -> Result<(), Error> {
        for limit in &resources.hugepage_limits {
            // Without the controller no huge pages are accounted; a limit of 0 can then be skipped.
            if limit.limit == 0 && self.directory("hugetlb").is_none() {
                continue;
            }
            let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size);
            writes.write(&self.required("hugetlb")?, &file, &limit.limit.to_string())?;
        }
        if let Some(weight) =
            resources.block_io.as_ref().and_then(|io| io.weight).filter(|weight| *weight > 0)
        {
            let directory = self.required("blkio")?;
            let weight = weight.to_string();
            let own = writes.write(&directory, "blkio.weight", &weight);
            own.or_else(|_| writes.write(&directory, "blkio.bfq.weight", &weight))?;
        }
        if let Some(file) = resources.unified.keys().next() {
            let source = ErrorKind::Unsupported.into();
            return Err(Error { action: "on cgroup v1, set unified".into(), path: file.into(), source });
        }
        Ok(())
    }
}

/// Copies the parent's values into a new cpuset, which starts empty and cannot hold processes before that.
fn inherit_cpuset(directory: &Path) -> Result<(), Error> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = read(parent, file)?;
        if value.is_empty() {
            inherit_cpuset(parent)?;
            value = read(parent, file)?;
        }
        write(directory, file, &value)?;
    }
    Ok(())
}

/// Memory alone must never exceed memory and swap together, so the order of the two writes depends on the direction.
fn limit_memory(directory: &Path, memory: &Memory, writes: &mut Writes) -> Result<(), Error> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const TOGETHER: &str = "memory.memsw.limit_in_bytes";
    let together = number(directory, TOGETHER);
    let raised_with_limit = memory.limit.filter(|limit| above(*limit, together));
    // Without swap accounting there is no such file, and swap cannot be limited.
    let swap = memory.swap.filter(|swap| *swap != 0).or(raised_with_limit).filter(|_| together.is_some());
    let raise = swap.is_some_and(|swap| above(swap, together));
    let mut values = vec![(LIMIT, memory.limit.filter(|limit| *limit != 0)), (TOGETHER, swap)];
    if raise {
        values.reverse();
    }
    values.push(("memory.soft_limit_in_bytes", memory.reservation.filter(|limit| *limit != 0)));
    values.push(("memory.swappiness", memory.swappiness.map(|value| value as i64)));
    values.push(("memory.oom_control", memory.disable_oom_killer.map(i64::from)));
    for (file, value) in values {
        if let Some(value) = value {
            writes.write(directory, file, &value.to_string())?;
        }
    }
    Ok(())
}

fn above(limit: i64, current: Option<u64>) -> bool {
    current.is_some_and(|current| u64::try_from(limit).unwrap_or(u64::MAX) > current)
}

fn limit_cpu_time(directory: &Path, cpu: &Cpu, writes: &mut Writes) -> Result<(), Error> {
    let mut set = |file: &str, value: Option<i64>| match value {
        Some(value) => writes.write(directory, file, &value.to_string()),
        None => Ok(()),
    };
    set("cpu.idle", cpu.idle)?;
    if cpu.idle != Some(1) {
        set("cpu.shares", cpu.shares.filter(|shares| *shares > 0).map(|shares| shares as i64))?;
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0).map(|period| period as i64);
    // The kernel may refuse the new period together with the old quota: then set the quota first.
    if set("cpu.cfs_period_us", period).is_err() {
        set("cpu.cfs_quota_us", quota)?;
        set("cpu.cfs_period_us", period)?;
    }
    set("cpu.cfs_quota_us", quota)?;
    set("cpu.cfs_burst_us", cpu.burst.map(|burst| burst as i64))
}

fn allow_devices(directory: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    for rule in devices::complete(rules) {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        write(directory, file, &device_rule(&rule))?;
    }
    Ok(())
}

fn device_rule(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".into(),
    };
    let kind = if rule.kind.is_empty() { "a" } else { &rule.kind };
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}
