//! Memory and processor time of a runtime's processes, from /proc.

use std::{fs, path::Path};

use crate::Result;

/// Proportional set size of a process in bytes: a page shared by N processes counts 1/N.
pub(crate) fn pss(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss in smaps_rollup")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// Processor seconds used by a process and by the children it has reaped.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let times = fields(pid)?;
    let ticks: u64 = times.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    // USER_HZ has been 100 on every architecture Linux runs containers on.
    Ok(ticks as f64 / 100.0)
}

/// The processes that a pod needs beside its workload: its shims, and their children named `pause`.
pub(crate) fn of_pod(sandbox: &str) -> Result<Vec<u32>> {
    let all = all()?;
    let shims: Vec<u32> = all.iter().copied().filter(|pid| names(*pid, sandbox)).collect();
    let pauses = all.iter().copied().filter(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.trim() == "pause" && parent(*pid).is_some_and(|parent| shims.contains(&parent))
    });
    Ok(shims.iter().copied().chain(pauses).collect())
}

/// Whether a process has ended and released its files and locks, reaped or not. Its main thread may be a zombie while
/// other threads still hold them.
pub(crate) fn ended(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads <= 1 && fields(pid).map_or(true, |fields| fields.first().is_none_or(|state| state == "Z"))
}

fn all() -> Result<Vec<u32>> {
    let entries = fs::read_dir(Path::new("/proc"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether a process is a shim of this pod: it has `-id SANDBOX` among its arguments.
fn names(pid: u32, sandbox: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| pair == [b"-id", sandbox.as_bytes()])
}

fn parent(pid: u32) -> Option<u32> {
    fields(pid).ok()?.get(1)?.parse().ok()
}

/// The fields of /proc/PID/stat from the third one, the state, on: proc_pid_stat(5).
fn fields(pid: u32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("no command in /proc/PID/stat")?;
    Ok(rest.split(' ').map(str::to_owned).collect())
}
