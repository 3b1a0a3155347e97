//! Child processes during setup, held by pidfd so that dropping one never leaves it running or unreaped.

use super::error::At;
use super::{Error, Step};
use crate::sys;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal, waitid,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A child of the shim that is still being set up. Dropped, it is killed and reaped.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: u32,
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Runs `work` in a fork.
    pub(super) fn fork(work: impl FnOnce() -> u8) -> Result<Self, Error> {
        // A child without a pidfd could not be killed or reaped: make sure beforehand that a descriptor is free.
        let room = eventfd(0, EventfdFlags::CLOEXEC).at(Step::Process, || "have a descriptor".into())?;
        let pid = sys::fork(work).at(Step::Process, || "fork".into())?;
        drop(room);
        Self::adopt(pid)
    }

    /// Takes on a child that the stage made as its sibling. It is unreaped, so its pid cannot have been reused. If no
    /// pidfd can be opened it is killed.
    pub(super) fn adopt(pid: u32) -> Result<Self, Error> {
        let pidfd = pidfd_of(pid).inspect_err(|_| {
            let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, Signal::KILL));
        })?;
        Ok(Self { pid, pidfd: Some(pidfd) })
    }

    /// Hands the process over: from now on the caller reaps it.
    pub(super) fn release(mut self) -> Option<OwnedFd> {
        self.pidfd.take()
    }

    /// Waits for its end without reaping.
    pub(super) async fn ended(&self) {
        let watched = self.pidfd.as_ref().map(|pidfd| pidfd.try_clone().and_then(sys::watched));
        match watched {
            Some(Ok(pidfd)) => drop(pidfd.readable().await),
            _ => std::future::pending().await,
        }
    }

    /// Waits for its end and reaps it.
    pub(super) async fn reaped(mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            reap(pidfd).await;
        }
    }

    /// Kills it and waits at most `time_limit` for its end, without reaping.
    pub(super) async fn stop(&self, time_limit: Duration) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        let _ = tokio::time::timeout(time_limit, self.ended()).await;
    }

    /// Kills it, waits for its end and reaps it.
    pub(super) async fn kill(mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            reap(pidfd).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        if !try_reap(pidfd.as_fd())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(reap(pidfd));
        }
    }
}

/// Opens the pidfd of an unreaped child.
pub(super) fn pidfd_of(pid: u32) -> Result<OwnedFd, Error> {
    let number =
        Pid::from_raw(pid as i32).ok_or_else(|| Error::invalid(Step::Process, "pid 0 was reported"))?;
    pidfd_open(number, PidfdFlags::empty()).at(Step::Process, || format!("open the pidfd of {pid}"))
}

/// True when the child is reaped, by this call or another.
fn try_reap(pidfd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::PidFd(pidfd), options), Ok(None) | Err(Errno::INTR))
}

async fn reap(pidfd: OwnedFd) {
    if try_reap(pidfd.as_fd()) {
        return;
    }
    let Ok(pidfd) = sys::watched(pidfd) else { return };
    loop {
        let Ok(mut ready) = pidfd.readable().await else { return };
        if try_reap(pidfd.get_ref().as_fd()) {
            return;
        }
        ready.clear_ready();
    }
}

/// Kills a child and waits for it at most `time_limit`.
pub(super) async fn end(pidfd: OwnedFd, time_limit: Duration) {
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let _ = tokio::time::timeout(time_limit, reap(pidfd)).await;
}

/// Kills a child and reaps it, without a runtime. Waits for one second at most, since a process that hangs in the
/// kernel does not die before its wait is over.
pub(super) fn kill_and_wait(pidfd: BorrowedFd<'_>) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let moment = Timespec { tv_sec: 1, tv_nsec: 0 };
    let ended = retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&moment)));
    if ended.is_ok_and(|ended| ended > 0) {
        wait(pidfd);
    }
}

/// Waits for a child and reaps it, without a runtime.
pub(super) fn wait(pidfd: BorrowedFd<'_>) {
    while matches!(waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED), Err(Errno::INTR)) {}
}
