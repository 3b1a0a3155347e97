//! The transition of a container to Stopped.

use super::{Container, Phase, State};
use crate::cgroup::{self, OomWatch};
use crate::error::error_line;
use crate::exit::{Exit, sync_later};
use crate::init::{self, Moment};
use crate::shim_log::note;
use crate::sys::heap;
use berth_failpoint::killpoint;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// How long a process outside the cgroup may hold the container's streams open once the container has ended.
const STREAM_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for killed processes to leave the cgroup before the end is announced.
const CGROUP_EMPTY_TIMEOUT: Duration = Duration::from_secs(1);
/// Exit message of a container that was given up.
const GIVEN_UP_MESSAGE: &str = "it was killed and does not die: it waits in the kernel, for a file system that does not answer or the like";

impl Container {
    /// Waits for the end of the first process, then completes the transition to Stopped and runs the poststop hooks.
    pub(super) async fn watch(self: Arc<Self>) {
        let exit = tokio::select! {
            exit = self.process.reap() => exit,
            () = self.until_given_up() => {
                // If it stayed watched, its zombie would later block the reaper of orphans.
                self.process.release();
                Exit::now(137, GIVEN_UP_MESSAGE)
            }
        };
        let _transition = self.transition_lock.lock().await;
        let exit = self.complete_exit(exit).await;
        self.inner().state = State::Stopped(exit.clone());
        self.publish_exit(&exit);
        self.ended.send_replace(Some(exit));
        killpoint!(END_TOLD);
        if self.hooks.poststop {
            self.poststop().await;
        }
        heap::trim();
    }

    async fn poststop(&self) {
        let hooks = init::run_hooks(self.id(), &self.identity.bundle, Moment::Poststop);
        match timeout(init::POSTSTOP_TIMEOUT, hooks).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                note(format_args!("after the end of {}: {}", self.id(), error_line(&error)));
            }
            Err(_) => note(format_args!("the hooks after the end of {} were ended", self.id())),
        }
    }

    /// Declares a container ended that SIGKILL could not end. It waits in the kernel, never returns to user mode, and
    /// dies once that wait is over.
    pub fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    /// Waits for [`Self::give_up`].
    pub(super) async fn until_given_up(&self) {
        // The sender lives as long as self.
        let _ = self.given_up.subscribe().wait_for(|given_up| *given_up).await;
    }

    /// Announces OOM kills as they happen. Where the kernel has no notification, one is announced at the container's end.
    pub(super) fn watch_oom(self: &Arc<Self>) {
        match OomWatch::of(&self.cgroup) {
            Ok(Some(watch)) => drop(tokio::spawn(Arc::clone(self).announce_oom_kills(watch))),
            Ok(None) => {}
            Err(error) => self.log_failure("listen for a lack of memory in", Err(error)),
        }
    }

    async fn announce_oom_kills(self: Arc<Self>, mut watch: OomWatch) {
        loop {
            tokio::select! {
                killed = watch.next_kill() => match killed {
                    true => self.announce_oom(),
                    false => return,
                },
                _ = self.wait() => return,
            }
        }
    }

    fn announce_oom(&self) {
        self.oom_announced.store(true, Ordering::Relaxed);
        self.context.events.oom(self.id());
        note(format_args!("a process of {} was killed for lack of memory", self.id()));
    }

    /// Kills what is left, drains the streams and writes the exit record: all that must precede the announcement of the end.
    async fn complete_exit(&self, mut exit: Exit) -> Exit {
        if self.phase() == Phase::Paused {
            self.log_failure("thaw", self.cgroup.thaw());
        }
        self.log_failure("kill the rest of", self.cgroup.kill());
        killpoint!(END_KILLED);
        let (pumps, log) = {
            let mut inner = self.inner();
            if !inner.start_failure.is_empty() {
                exit.message = std::mem::take(&mut inner.start_failure);
            }
            (inner.pumps.take(), inner.log.take())
        };
        if let Some(pumps) = pumps {
            pumps.finish(STREAM_DRAIN_TIMEOUT).await;
        }
        drop(log);
        killpoint!(END_LOGGED);
        exit.oom_killed = self.cgroup.oom_kills() > 0;
        match exit.write(&self.identity.bundle) {
            Ok(()) => drop(tokio::spawn(sync_later(self.identity.bundle.clone()))),
            Err(error) => note(format_args!("write the exit record of {}: {error}", self.id())),
        }
        killpoint!(END_WRITTEN);
        self.remove_cgroup().await;
        killpoint!(END_CGROUP_REMOVED);
        exit
    }

    /// Kills what is in the cgroup and removes it. If a process hangs in the kernel, a background task removes the
    /// group later and this call returns.
    pub async fn remove_cgroup(&self) {
        let Err(error) = self.cgroup.kill_and_remove(CGROUP_EMPTY_TIMEOUT).await else { return };
        self.log_failure("remove the cgroup of", Err(error));
        // Only one such task: a second one could outlive the group and kill a later container of the same cgroup path.
        if !self.cgroup_removal_queued.swap(true, Ordering::Relaxed) {
            init::remove_cgroup_later(self.cgroup.clone(), format!("container {}", self.id()));
        }
    }

    fn publish_exit(&self, exit: &Exit) {
        let events = &self.context.events;
        if exit.oom_killed && !self.oom_announced.load(Ordering::Relaxed) {
            self.announce_oom();
        }
        events.exit(self.id(), self.id(), self.pid(), exit);
    }

    fn log_failure(&self, doing: &str, result: Result<(), cgroup::Error>) {
        if let Err(error) = result {
            note(format_args!("{doing} {}: {}", self.id(), error_line(&error)));
        }
    }
}
