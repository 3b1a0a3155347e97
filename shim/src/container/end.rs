//! The way of a container to Stopped.

use super::{Container, Phase, State};
use crate::cgroup;
use crate::error::error_line;
use crate::exit::Exit;
use crate::init::{self, Moment};
use crate::shim_log::note;
use crate::sys::heap;
use berth_failpoint::killpoint;
use std::sync::Arc;
use std::time::Duration;

/// How long a process outside the cgroup may hold the container's streams open once the container has ended.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);

impl Container {
    /// Waits for the end, and sees to all that follows it.
    pub(super) async fn watch(self: Arc<Self>) {
        let exit = self.process.ended().await;
        let _turn = self.turn.lock().await;
        let exit = self.bury(exit).await;
        self.inner().state = State::Stopped(exit.clone());
        self.publish_exit(&exit);
        self.ended.send_replace(Some(exit));
        killpoint!(END_TOLD);
        if self.hooks.poststop {
            let done = init::run_hooks(self.id(), &self.identity.bundle, Moment::Poststop).await;
            if let Err(error) = done {
                note(format_args!("after the end of {}: {}", self.id(), error_line(&error)));
            }
        }
        heap::trim();
    }

    /// Everything that must be done before the end is told.
    async fn bury(&self, mut exit: Exit) -> Exit {
        if self.phase() == Phase::Paused {
            self.complain("thaw", self.cgroup.thaw());
        }
        self.complain("kill the rest of", self.cgroup.kill());
        killpoint!(END_KILLED);
        let (pumps, log) = {
            let mut inner = self.inner();
            exit.message = std::mem::take(&mut inner.start_failure);
            (inner.pumps.take(), inner.log.take())
        };
        if let Some(pumps) = pumps {
            pumps.finish(STREAM_PATIENCE).await;
        }
        drop(log);
        killpoint!(END_LOGGED);
        exit.oom_killed = self.cgroup.oom_kills() > 0;
        if let Err(error) = exit.write(&self.identity.bundle) {
            note(format_args!("write the exit record of {}: {error}", self.id()));
        }
        killpoint!(END_WRITTEN);
        self.complain("remove the cgroup of", self.cgroup.remove());
        killpoint!(END_CGROUP_REMOVED);
        exit
    }

    fn publish_exit(&self, exit: &Exit) {
        let events = &self.surroundings.events;
        if exit.oom_killed {
            events.oom(self.id());
        }
        events.exit(self.id(), self.id(), self.pid(), exit);
    }

    fn complain(&self, doing: &str, result: Result<(), cgroup::Error>) {
        if let Err(error) = result {
            note(format_args!("{doing} {}: {}", self.id(), error_line(&error)));
        }
    }
}
