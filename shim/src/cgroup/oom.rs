//! Notification of OOM kills in a cgroup.

use super::hierarchy::{Layout, layout};
use super::{Cgroup, Error};
use crate::sys::{watched, watched_for_priority};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// v1 notifies before the OOM killer has chosen a process: how many times, and at which interval, the counter is read then.
const MAX_COUNTER_READS: u32 = 20;
const COUNTER_READ_INTERVAL: Duration = Duration::from_millis(50);

/// Waits for OOM kills in one cgroup.
#[derive(Debug)]
pub struct OomWatch {
    group: Cgroup,
    seen: u64,
    /// How often the counter is still to be read because of the last notification.
    reads_left: u32,
    notifier: OomNotifier,
}

#[derive(Debug)]
enum OomNotifier {
    /// v1: an eventfd registered with `cgroup.event_control`.
    Eventfd(AsyncFd<OwnedFd>),
    /// v2: `memory.events`, polled for EPOLLPRI. Descriptors have no limit of their own, unlike inotify instances.
    Events(AsyncFd<OwnedFd>),
}

impl OomWatch {
    /// Starts listening; `None` without a memory controller.
    pub fn of(group: &Cgroup) -> Result<Option<Self>, Error> {
        let notifier = match layout() {
            Layout::V1(_) => group.v1().directory("memory").map(|directory| OomNotifier::of_v1(&directory)),
            Layout::V2(root) => Some(OomNotifier::of_v2(&root.join(&group.path).join("memory.events"))),
        };
        Ok(notifier.transpose()?.map(|notifier| Self {
            group: group.clone(),
            seen: 0,
            reads_left: 0,
            notifier,
        }))
    }

    /// Waits for the next kill; `false` once the cgroup is gone.
    pub async fn next_kill(&mut self) -> bool {
        loop {
            let kills = self.group.oom_kills();
            if kills > self.seen {
                self.seen = kills;
                return true;
            }
            if self.reads_left > 0 && self.notifier.counter_lags() {
                self.reads_left -= 1;
                sleep(COUNTER_READ_INTERVAL).await;
                continue;
            }
            if !self.notifier.notified().await || !self.group.exists() {
                return false;
            }
            self.reads_left = MAX_COUNTER_READS;
        }
    }
}

impl OomNotifier {
    fn of_v1(directory: &Path) -> Result<Self, Error> {
        let control = directory.join("memory.oom_control");
        let made = || -> io::Result<AsyncFd<OwnedFd>> {
            let notifier = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let watched_file = open(&control, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let order = format!("{} {}", notifier.as_raw_fd(), watched_file.as_raw_fd());
            std::fs::write(directory.join("cgroup.event_control"), order)?;
            watched(notifier)
        };
        made().map(Self::Eventfd).map_err(|source| listen_failed(&control, source))
    }

    fn of_v2(file: &Path) -> Result<Self, Error> {
        let opened = open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let watched = opened.map_err(io::Error::from).and_then(watched_for_priority);
        watched.map(Self::Events).map_err(|source| listen_failed(file, source))
    }

    fn counter_lags(&self) -> bool {
        matches!(self, Self::Eventfd(_))
    }

    async fn notified(&self) -> bool {
        match self {
            Self::Eventfd(notifier) => {
                let taken = |notifier: &OwnedFd| Ok(rustix::io::read(notifier, &mut [0; 8])?);
                notifier.async_io(Interest::READABLE, taken).await.is_ok()
            }
            Self::Events(file) => changed(file).await.is_ok(),
        }
    }
}

/// Waits until the file changes. The kernel notifies of changes since the last read from offset 0.
async fn changed(file: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut ready = file.ready(Interest::PRIORITY).await?;
    rustix::io::pread(file.get_ref(), &mut [0; 512], 0)?;
    ready.clear_ready();
    Ok(())
}

fn listen_failed(path: &Path, source: io::Error) -> Error {
    Error { action: "listen to".into(), path: path.into(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Uses `cgroup.events`, which is notified in the same way: on a machine with v1, v2 has no memory controller.
    #[tokio::test]
    async fn root_a_change_of_a_file_of_v2_is_heard() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let root = Path::new(root.split(' ').nth(1).unwrap());
        let group = root.join(format!("berth-test-events-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let OomNotifier::Events(events) = OomNotifier::of_v2(&group.join("cgroup.events")).unwrap() else {
            unreachable!()
        };
        rustix::io::pread(events.get_ref(), &mut [0; 512], 0).unwrap();
        let quiet = tokio::time::timeout(COUNTER_READ_INTERVAL, changed(&events)).await;
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(60), changed(&events)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_dir(&group).unwrap();
        assert!(quiet.is_err() && heard.is_ok_and(|heard| heard.is_ok()));
    }
}
