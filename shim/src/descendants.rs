//! Killing a process and its descendants when it has no cgroup of its own.
//!
//! Descendants are the processes of its session and process group, their children, and so on. All found are stopped
//! first, in rounds until no new ones appear, so that none escapes by forking; then all are killed. A process that
//! became a daemon earlier (own session, parent gone) is not found; it ends with the container.

use crate::process::{KILL, signal_listed};
use std::collections::HashSet;
use std::fs;
use std::io;

/// Rounds of the search. A further round is needed only if a process forked before it was stopped.
const MAX_ROUNDS: usize = 32;

/// Ancestry of a process, from /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ancestry {
    pid: u32,
    parent: u32,
    group: u32,
    session: u32,
}

/// Kills `root` and its descendants. `candidates` lists the pids that may be signalled: those of the container.
pub fn kill_with_descendants(root: u32, candidates: &dyn Fn() -> io::Result<Vec<u32>>) -> io::Result<()> {
    let (mut found, mut new) = (HashSet::new(), HashSet::from([root]));
    for _ in 0..MAX_ROUNDS {
        // A process that cannot be stopped is killed all the same.
        let _ = signal_listed(candidates, &|pid| new.contains(&pid), libc::SIGSTOP);
        found.extend(new);
        let ancestry: Vec<Ancestry> = candidates()?.into_iter().filter_map(ancestry).collect();
        new = descendants(root, &ancestry, &found);
        if new.is_empty() {
            break;
        }
    }
    found.extend(new);
    signal_listed(candidates, &|pid| found.contains(&pid), KILL)
}

/// Returns the processes that belong to `root` and are not in `found`.
fn descendants(root: u32, ancestry: &[Ancestry], found: &HashSet<u32>) -> HashSet<u32> {
    let mut new = HashSet::new();
    loop {
        let known = |pid: u32| pid == root || found.contains(&pid) || new.contains(&pid);
        let belongs = |ancestry: &&Ancestry| {
            !known(ancestry.pid)
                && (ancestry.session == root || ancestry.group == root || known(ancestry.parent))
        };
        let next: Vec<u32> = ancestry.iter().filter(belongs).map(|ancestry| ancestry.pid).collect();
        if next.is_empty() {
            return new;
        }
        new.extend(next);
    }
}

fn ancestry(pid: u32) -> Option<Ancestry> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses `pid (name) state parent group session ...`. The name may contain parentheses, so the last one ends it.
fn parse(pid: u32, stat: &str) -> Option<Ancestry> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let mut next = || fields.next()?.parse().ok();
    Some(Ancestry { pid, parent: next()?, group: next()?, session: next()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::zombie_processes)]
    use super::*;
    use crate::orphans::Orphans;
    use crate::process::ChildProcess;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::cell::{Cell, RefCell};
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    fn ancestry(pid: u32, parent: u32, group: u32, session: u32) -> Ancestry {
        Ancestry { pid, parent, group, session }
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_name_holds() {
        let line = "7 (a) b 1 2 (c) S 3 4 5 0 -1";
        assert_eq!(parse(7, line), Some(ancestry(7, 3, 4, 5)));
        for line in ["", "7 (a", "7 (a) S", "7 (a) S x 4 5"] {
            assert_eq!(parse(7, line), None, "{line}");
        }
    }

    #[test]
    fn children_and_the_session_belong_and_strangers_do_not() {
        let all = [
            ancestry(10, 1, 10, 10),
            ancestry(11, 10, 10, 10),
            ancestry(12, 11, 12, 12),
            ancestry(13, 1, 13, 10),
            ancestry(14, 1, 14, 14),
            ancestry(1, 0, 1, 1),
        ];
        assert_eq!(descendants(10, &all, &HashSet::new()), HashSet::from([11, 12, 13]));
    }

    /// Starts a shell that runs `script`, in a session of its own.
    fn shell(script: &str) -> (ChildProcess, Child) {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (ChildProcess::new(child.id(), pidfd, &Orphans::of_a_test()).unwrap(), child)
    }

    fn line(child: &mut Child) -> String {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn everyone() -> io::Result<Vec<u32>> {
        let pids = fs::read_dir("/proc").unwrap();
        Ok(pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    fn pidfd(pid: u32) -> Option<OwnedFd> {
        pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()
    }

    async fn ended(pidfd: OwnedFd) {
        let watched = crate::sys::watched(pidfd).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), watched.readable()).await;
        ended.expect("it lives").unwrap().retain_ready();
    }

    #[tokio::test]
    async fn everything_that_was_started_ends() {
        let script = "sleep 1000 & setsid sleep 1000 & wait";
        let (process, mut child) = shell(&format!("{script} & echo ready; wait"));
        line(&mut child);
        let all: Vec<_> = everyone().unwrap().into_iter().filter_map(super::ancestry).collect();
        let family = descendants(process.pid(), &all, &HashSet::new());
        let family: Vec<_> = family.into_iter().filter_map(pidfd).collect();
        kill_with_descendants(process.pid(), &everyone).unwrap();
        assert_eq!(process.reap().await.code, 137);
        for pidfd in family {
            ended(pidfd).await;
        }
    }

    #[tokio::test]
    async fn what_is_started_while_the_processes_are_listed_ends_too() {
        let (process, child) = shell("read go; setsid sleep 1000 & echo $!; wait");
        let (child, late) = (RefCell::new(child), Cell::new(None));
        let listed = || {
            let before = everyone();
            let go = child.borrow_mut().stdin.take();
            if let Some(mut go) = go {
                go.write_all(b"\n").unwrap();
                late.set(pidfd(line(&mut child.borrow_mut()).trim().parse().unwrap()));
            }
            before
        };
        kill_with_descendants(process.pid(), &listed).unwrap();
        assert_eq!(process.reap().await.code, 137);
        ended(late.take().unwrap()).await;
    }
}
