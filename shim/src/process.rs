//! A child process of the shim, known by its pidfd.

use crate::exit::Exit;
use crate::orphans::Orphans;
use crate::sys::child::pidfd_signal;
use crate::sys::watched;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// `SIGKILL`.
pub const KILL: i32 = libc::SIGKILL;
/// How long what was killed may take to be gone; who waits for a dead file system takes for ever.
pub const DEATH_PATIENCE: Duration = Duration::from_secs(10);

/// A child of the shim. Its pid is only ever shown; signals and waiting go through the pidfd, so a stranger that
/// got the number later is never touched. Whoever drops it before its end leaves it to the orphans.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    orphans: Arc<Orphans>,
    let_go: AtomicBool,
}

impl Process {
    /// Takes over a child that was just made, while a [`crate::orphans::Creation`] keeps it from being taken for an orphan.
    pub fn new(pid: u32, pidfd: OwnedFd, orphans: &Arc<Orphans>) -> io::Result<Self> {
        let pidfd = watched(pidfd)?;
        orphans.watch(pid);
        Ok(Self { pid, pidfd, orphans: Arc::clone(orphans), let_go: AtomicBool::new(false) })
    }

    /// The same for a child of the shim that nobody else reaps.
    pub fn of_child(pid: u32, orphans: &Arc<Orphans>) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Self::new(pid, pidfd_open(number, PidfdFlags::empty())?, orphans)
    }

    /// Its host pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; no error when the process has ended already.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        ignore_gone(pidfd_signal(self.as_fd(), signal))
    }

    /// Whether it has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        let mut asked = [PollFd::new(self, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits for its end and reaps it. To be awaited by one owner only.
    pub async fn ended(&self) -> Exit {
        let waited = self.wait().await;
        self.let_go();
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

    /// Once: later its number may be somebody else's.
    fn let_go(&self) {
        if !self.let_go.swap(true, Ordering::Relaxed) {
            self.orphans.unwatch(self.pid);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.get_ref().as_fd()
    }
}

fn code(exited: Option<i32>, signalled: Option<i32>) -> u32 {
    let code = exited.unwrap_or_else(|| 128 + signalled.unwrap_or(0));
    code.unsigned_abs() & 0xff
}

/// Signals a process that is not a child, if `belongs` still says so once its identity is pinned.
pub fn signal_if(pid: u32, signal: i32, belongs: impl FnOnce() -> bool) -> io::Result<()> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) if belongs() => ignore_gone(pidfd_signal(pidfd.as_fd(), signal)),
        Ok(_) => Ok(()),
        Err(error) => ignore_gone(Err(error.into())),
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

    fn child(script: &str) -> Process {
        let child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        Process::new(child.id(), pidfd_open(pid, PidfdFlags::empty()).unwrap(), &Orphans::of_a_test())
            .unwrap()
    }

    #[tokio::test]
    async fn codes_and_signals_are_told_as_a_shell_tells_them() {
        for (script, expected) in [("exit 0", 0), ("exit 42", 42), ("kill -15 $$", 143), ("kill -37 $$", 165)]
        {
            assert_eq!(child(script).ended().await.code, expected, "{script}");
        }
    }

    #[tokio::test]
    async fn a_signal_after_the_end_reaches_nobody_and_is_no_error() {
        let process = child("exit 0");
        process.ended().await;
        process.signal(KILL).unwrap();
    }

    #[tokio::test]
    async fn a_process_that_no_longer_belongs_is_not_signalled() {
        let process = child("exec sleep 1000");
        signal_if(process.pid(), KILL, || false).unwrap();
        signal_if(process.pid(), 34, || true).unwrap();
        assert_eq!(process.ended().await.code, 128 + 34);
    }
}
