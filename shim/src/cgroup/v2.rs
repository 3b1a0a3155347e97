//! Limits in the one hierarchy of v2.

use super::files::{make, read, write};
use super::writes::Writes;
use super::{Error, device_program, devices};
use crate::spec::{Cpu, DeviceRule, Memory, Resources};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;

/// Creates the cgroup and enables every available controller in its ancestors.
pub(super) fn create(
    root: &Path,
    path: &Path,
    mark: &dyn Fn(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    make(&root.join(path), &mut |made| mark(made))?;
    let mut ancestors: Vec<_> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    ancestors.into_iter().try_for_each(|ancestor| pass_controllers_on(&root.join(ancestor)))
}

fn pass_controllers_on(group: &Path) -> Result<(), Error> {
    let passed = read(group, "cgroup.subtree_control")?;
    let available = read(group, "cgroup.controllers")?;
    let missing = available.split(' ').filter(|have| !passed.split(' ').any(|passed| passed == *have));
    for controller in missing.filter(|name| !name.is_empty()) {
        // A controller that cannot be enabled (cpu beside realtime processes) is an error only when its limit is set.
        let _ = write(group, "cgroup.subtree_control", &format!("+{controller}"));
    }
    Ok(())
}

/// Sets the limits.
pub(super) fn apply(group: &Path, resources: &Resources, writes: &mut Writes) -> Result<(), Error> {
    if !resources.devices.is_empty() {
        allow_devices(group, &resources.devices)?;
    }
    let mut values = Vec::new();
    if let Some(memory) = &resources.memory {
        refuse_what_v1_alone_has(memory, group)?;
        memory_limits(group, memory, &mut values);
    }
    if let Some(cpu) = &resources.cpu {
        cpu_limits(group, cpu, &mut values);
    }
    if let Some(pids) = &resources.pids {
        values.push(("pids.max".into(), limit(if pids.limit > 0 { pids.limit } else { -1 })));
    }
    for huge in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.max", huge.page_size);
        if huge.limit > 0 || group.join(&file).exists() {
            values.push((file, huge.limit.to_string()));
        }
    }
    values.extend(resources.unified.iter().map(|(file, value)| (file.clone(), value.clone())));
    for (file, value) in values {
        if file.contains('/') {
            let source = ErrorKind::InvalidInput.into();
            return Err(Error { action: "set unified".into(), path: file.into(), source });
        }
        writes.write(group, &file, &value)?;
    }
    set_io_weight(group, resources, writes)
}

fn allow_devices(group: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    let directory = File::open(group);
    let enforced =
        directory.and_then(|directory| device_program::enforce(directory.as_fd(), &devices::complete(rules)));
    enforced.map_err(|source| Error { action: "set the device rules of".into(), path: group.into(), source })
}

fn limit(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// Refuses settings that only v1 has: a request must not be ignored silently.
fn refuse_what_v1_alone_has(memory: &Memory, group: &Path) -> Result<(), Error> {
    let setting = match memory {
        Memory { swappiness: Some(_), .. } => "memory.swappiness",
        Memory { disable_oom_killer: Some(true), .. } => "memory.disableOOMKiller",
        _ => return Ok(()),
    };
    let source = ErrorKind::Unsupported.into();
    Err(Error { action: format!("on cgroup v2, set {setting} of"), path: group.into(), source })
}

fn memory_limits(group: &Path, memory: &Memory, writes: &mut Vec<(String, String)>) {
    const SWAP: &str = "memory.swap.max";
    let hard = memory.limit.filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
        let alone = if swap < 0 { -1 } else { (swap - hard.unwrap_or(0).max(0)).max(0) };
        // Without swap accounting the file is missing; that is an error only if an amount of swap is asked for.
        if alone > 0 || group.join(SWAP).exists() {
            writes.push((SWAP.into(), limit(alone)));
        }
    }
    if let Some(hard) = hard {
        writes.push(("memory.max".into(), limit(hard)));
    }
    if let Some(soft) = memory.reservation.filter(|limit| *limit != 0) {
        writes.push(("memory.low".into(), limit(soft)));
    }
}

fn cpu_limits(group: &Path, cpu: &Cpu, writes: &mut Vec<(String, String)>) {
    let mut push = |file: &str, value: String| writes.push((file.into(), value));
    if let Some(idle) = cpu.idle {
        push("cpu.idle", idle.to_string());
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0 && cpu.idle != Some(1)) {
        push("cpu.weight", weight(shares).to_string());
    }
    if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period != 0) {
        push("cpu.max", bandwidth(group, cpu));
    }
    if let Some(burst) = cpu.burst {
        push("cpu.max.burst", burst.to_string());
    }
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            push(file, value.clone());
        }
    }
}

/// Quota and period in one line; what is absent keeps its value.
fn bandwidth(group: &Path, cpu: &Cpu) -> String {
    let current = read(group, "cpu.max").unwrap_or_default();
    let (quota, period) = current.split_once(' ').unwrap_or(("max", "100000"));
    let quota = cpu.quota.filter(|quota| *quota != 0).map_or(quota.to_owned(), limit);
    let period =
        cpu.period.filter(|period| *period != 0).map_or(period.to_owned(), |period| period.to_string());
    format!("{quota} {period}")
}

/// Maps v1's range 2 to 262144 to 1 to 10000, with the formula that runc uses.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn set_io_weight(group: &Path, resources: &Resources, writes: &mut Writes) -> Result<(), Error> {
    let Some(weight) = resources.block_io.as_ref().and_then(|io| io.weight).filter(|weight| *weight > 0)
    else {
        return Ok(());
    };
    if writes.write(group, "io.bfq.weight", &weight.to_string()).is_ok() {
        return Ok(());
    }
    let scaled = 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
    writes.write(group, "io.weight", &scaled.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::files::write as write_file;
    use super::*;
    use crate::sys;

    #[test]
    fn shares_span_the_whole_range_of_weights() {
        assert_eq!((weight(0), weight(2), weight(1024), weight(262_144)), (1, 1, 39, 10_000));
    }

    #[test]
    fn swap_is_counted_without_memory() {
        let mut writes = Vec::new();
        let group = group(&["memory.max", "memory.swap.max"]);
        for (limit, swap) in [(100, 150), (-1, -1)] {
            let memory = Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() };
            memory_limits(group.path(), &memory, &mut writes);
        }
        let expected = [
            ("memory.swap.max", "50"),
            ("memory.max", "100"),
            ("memory.swap.max", "max"),
            ("memory.max", "max"),
        ];
        assert_eq!(writes, expected.map(|(file, value)| (file.to_owned(), value.to_owned())));
    }

    /// A directory that contains these files.
    fn group(files: &[&str]) -> tempfile::TempDir {
        let group = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(group.path().join(file), "").unwrap();
        }
        group
    }

    #[test]
    fn where_swap_is_not_counted_only_an_amount_of_it_cannot_be_had() {
        let group = group(&["memory.max"]);
        let set = |swap| {
            let memory = Some(Memory { limit: Some(100), swap: Some(swap), ..Memory::default() });
            apply(group.path(), &Resources { memory, ..Resources::default() }, &mut Writes::permanent())
        };
        set(100).unwrap();
        set(-1).unwrap();
        assert_eq!(std::fs::read(group.path().join("memory.max")).unwrap(), b"100");
        assert!(set(150).unwrap_err().to_string().contains("memory.swap.max"));
    }

    #[test]
    fn root_processes_in_a_threaded_group_are_listed_once() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
        let group = mounted().join(format!("berth-test-threads-{}", std::process::id()));
        let threads = group.join("threads");
        std::fs::create_dir_all(&threads).unwrap();
        write_file(&threads, "cgroup.type", "threaded").unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        write_file(&group, "cgroup.procs", &child.id().to_string()).unwrap();
        write_file(&threads, "cgroup.threads", &child.id().to_string()).unwrap();
        let listed = super::super::files::procs(&group);
        child.kill().unwrap();
        child.wait().unwrap();
        super::super::files::remove(&group).unwrap();
        assert_eq!(listed.unwrap(), [child.id()]);
    }

    /// The mount of v2, which every machine has, if only beside v1 and without controllers.
    fn mounted() -> std::path::PathBuf {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        line.split(' ').nth(1).unwrap().into()
    }

    #[test]
    fn root_a_process_is_made_right_in_its_group_and_killed_with_it() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
        let (root, path) = (mounted(), format!("berth-test-v2-{}/c", std::process::id()));
        create(&root, Path::new(&path), &|_| Ok(())).unwrap();
        let group = root.join(&path);
        let directory = std::fs::File::open(&group).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let stage = sys::fork(|| {
            let sleeper = || sys::sleep_without_heap();
            let pid = sys::clone_sibling(0, Some(directory.as_fd()), sleeper).unwrap_or(0);
            u8::from(rustix::io::write(&write, &pid.to_ne_bytes()).is_err())
        });
        let mut pid = [0; 4];
        rustix::io::read(&read, &mut pid).unwrap();
        let pid = u32::from_ne_bytes(pid);
        assert_eq!(super::super::files::read(&group, "cgroup.procs").unwrap(), pid.to_string());
        write_file(&group, "cgroup.kill", "1").unwrap();
        for (pid, signal) in [(stage.unwrap(), None), (pid, Some(9))] {
            let pid = rustix::process::Pid::from_raw(pid as i32);
            let (_, status) =
                rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.terminating_signal(), signal);
        }
        super::super::files::remove(group.parent().unwrap()).unwrap();
        assert!(!group.exists());
    }
}
