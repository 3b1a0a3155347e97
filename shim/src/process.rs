//! A child process of the shim, held by its pidfd.

use crate::exit::Exit;
use crate::orphans::Orphans;
use crate::sys::child::pidfd_signal;
use crate::sys::watched;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// `SIGKILL`.
pub const KILL: i32 = libc::SIGKILL;
/// Pidfds that [`signal_listed`] holds at once: few lists, and far below the shim's descriptor limit.
const MAX_OPEN_PIDFDS: usize = 128;
/// Time for a killed process to be gone; one that waits for a dead file system may never be.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A child of the shim. The pid is only displayed; signals and waits use the pidfd, so a process that reuses the pid is
/// never touched. Dropped before the child's end, the child is left to the reaper of orphans.
#[derive(Debug)]
pub struct ChildProcess {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    orphans: Arc<Orphans>,
    released: AtomicBool,
}

impl ChildProcess {
    /// Takes over a child that was just made. A [`crate::orphans::Creation`] must be held, or it may be reaped as an orphan.
    pub fn new(pid: u32, pidfd: OwnedFd, orphans: &Arc<Orphans>) -> io::Result<Self> {
        let pidfd = watched(pidfd)?;
        orphans.watch(pid);
        Ok(Self { pid, pidfd, orphans: Arc::clone(orphans), released: AtomicBool::new(false) })
    }

    /// The same for a child that is already exempt from other reapers. Opens the pidfd by pid.
    pub fn of_child(pid: u32, orphans: &Arc<Orphans>) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Self::new(pid, pidfd_open(number, PidfdFlags::empty())?, orphans)
    }

    /// Host pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; no error if the process has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        ignore_gone(pidfd_signal(self.as_fd(), signal))
    }

    /// Whether it has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        let mut asked = [PollFd::new(self, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the end without reaping.
    pub async fn ended(&self) {
        match self.pidfd.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            // Pending for ever: this happens only while the runtime shuts down.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the end and reaps. Only one task may await it.
    pub async fn reap(&self) -> Exit {
        let waited = self.wait().await;
        self.release();
        match waited {
            Ok(code) => Exit::now(code, ""),
            Err(error) => Exit::now(255, format!("the exit code is lost: {error}")),
        }
    }

    async fn wait(&self) -> io::Result<u32> {
        loop {
            let mut ready = self.pidfd.readable().await?;
            let id = WaitId::PidFd(self.as_fd());
            if let Some(status) = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)? {
                return Ok(code(status.exit_status(), status.terminating_signal()));
            }
            ready.clear_ready();
        }
    }

    /// Leaves it to the reaper of orphans. Only once: afterwards the pid may be reused.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.orphans.unwatch(self.pid);
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.release();
    }
}

impl AsFd for ChildProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.get_ref().as_fd()
    }
}

fn code(exited: Option<i32>, signalled: Option<i32>) -> u32 {
    let code = exited.unwrap_or_else(|| 128 + signalled.unwrap_or(0));
    code.unsigned_abs() & 0xff
}

/// Signals those processes of a changing list that `wanted` selects. They need not be children of the shim, so pids may
/// be reused meanwhile: a pidfd is opened for each, the list is read again, and only pids still on it are signalled.
/// Tries all and returns the first failure.
pub fn signal_listed(
    list: &dyn Fn() -> io::Result<Vec<u32>>,
    wanted: &dyn Fn(u32) -> bool,
    signal: i32,
) -> io::Result<()> {
    let meant: Vec<u32> = list()?.into_iter().filter(|pid| wanted(*pid)).collect();
    let mut result = Ok(());
    for some in meant.chunks(MAX_OPEN_PIDFDS) {
        let pidfds = some.iter().map(|&pid| open_pidfd(pid)).collect::<io::Result<Vec<_>>>()?;
        let still: HashSet<u32> = list()?.into_iter().collect();
        for (pid, pidfd) in some.iter().zip(pidfds).filter(|(pid, _)| still.contains(pid)) {
            let Some(pidfd) = pidfd else { continue };
            let sent = ignore_gone(pidfd_signal(pidfd.as_fd(), signal));
            result =
                result.and(sent.map_err(|error| io::Error::new(error.kind(), format!("{pid}: {error}"))));
        }
    }
    result
}

/// `None` when the process is gone.
fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(raw, PidfdFlags::empty()) {
        // EINVAL, or since Linux 6.15 ENOENT: the number was reused for a thread; no process can be signalled by it.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn ignore_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::zombie_processes)]
    use super::*;

    #[test]
    fn a_number_that_is_a_threads_is_no_process() {
        let thread =
            std::thread::spawn(|| open_pidfd(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()));
        assert!(thread.join().unwrap().unwrap().is_none());
    }

    fn child(script: &str) -> ChildProcess {
        let child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        ChildProcess::new(child.id(), pidfd_open(pid, PidfdFlags::empty()).unwrap(), &Orphans::of_a_test())
            .unwrap()
    }

    #[tokio::test]
    async fn codes_and_signals_are_told_as_a_shell_tells_them() {
        for (script, expected) in [("exit 0", 0), ("exit 42", 42), ("kill -15 $$", 143), ("kill -37 $$", 165)]
        {
            assert_eq!(child(script).reap().await.code, expected, "{script}");
        }
    }

    #[tokio::test]
    async fn a_signal_after_the_end_reaches_nobody_and_is_no_error() {
        let process = child("exit 0");
        process.reap().await;
        process.signal(KILL).unwrap();
    }

    #[tokio::test]
    async fn a_process_that_has_left_the_list_is_not_signalled() {
        let process = child("exec sleep 1000");
        let lists = std::cell::Cell::new(0);
        let leaves = || {
            lists.set(lists.get() + 1);
            Ok(if lists.get() == 1 { vec![process.pid()] } else { Vec::new() })
        };
        signal_listed(&leaves, &|_| true, KILL).unwrap();
        let stays = || Ok(vec![process.pid()]);
        signal_listed(&stays, &|_| false, KILL).unwrap();
        signal_listed(&stays, &|_| true, 34).unwrap();
        assert_eq!(process.reap().await.code, 128 + 34);
    }

    #[test]
    fn many_are_listed_seldom() {
        let lists = std::cell::Cell::new(0);
        let list = || {
            lists.set(lists.get() + 1);
            Ok((0..1000).map(|n| 4_194_304 + n).collect())
        };
        signal_listed(&list, &|_| true, KILL).unwrap();
        assert_eq!(lists.get(), 9);
    }
}
