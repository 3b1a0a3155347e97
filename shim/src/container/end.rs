//! The way of a container to Stopped.

use super::{Container, Phase, State};
use crate::cgroup::{self, OomWatch};
use crate::error::error_line;
use crate::exit::{Exit, settle};
use crate::init::{self, Moment};
use crate::process::DEATH_PATIENCE;
use crate::shim_log::note;
use crate::sys::heap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// How long a process outside the cgroup may hold the container's streams open once the container has ended.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);

/// How long hooks may take that come after the end: nothing else could end them.
const HOOKS_PATIENCE: Duration = Duration::from_secs(30);

impl Container {
    /// Waits for the end, and sees to all that follows it.
    pub(super) async fn watch(self: Arc<Self>) {
        let exit = self.process.ended().await;
        let _turn = self.turn.lock().await;
        let exit = self.bury(exit).await;
        self.inner().state = State::Stopped(exit.clone());
        self.publish_exit(&exit);
        self.ended.send_replace(Some(exit));
        if self.hooks.poststop {
            self.poststop().await;
        }
        heap::trim();
    }

    async fn poststop(&self) {
        let hooks = init::run_hooks(self.id(), &self.identity.bundle, Moment::Poststop);
        match timeout(HOOKS_PATIENCE, hooks).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                note(format_args!("after the end of {}: {}", self.id(), error_line(&error)));
            }
            Err(_) => note(format_args!("the hooks after the end of {} were ended", self.id())),
        }
    }

    /// Tells of it when something in the container is killed for lack of memory. Where that cannot be heard it is told at the end.
    pub(super) fn listen_for_oom(self: &Arc<Self>) {
        match OomWatch::of(&self.cgroup) {
            Ok(Some(watch)) => drop(tokio::spawn(Arc::clone(self).tell_of_oom(watch))),
            Ok(None) => {}
            Err(error) => self.complain("listen for a lack of memory in", Err(error)),
        }
    }

    async fn tell_of_oom(self: Arc<Self>, mut watch: OomWatch) {
        loop {
            tokio::select! {
                struck = watch.struck() => match struck {
                    true => self.tell_oom(),
                    false => return,
                },
                _ = self.wait() => return,
            }
        }
    }

    fn tell_oom(&self) {
        self.oom_told.store(true, Ordering::Relaxed);
        self.surroundings.events.oom(self.id());
        note(format_args!("a process of {} was killed for lack of memory", self.id()));
    }

    /// Everything that must be done before the end is told.
    async fn bury(&self, mut exit: Exit) -> Exit {
        if self.phase() == Phase::Paused {
            self.complain("thaw", self.cgroup.thaw());
        }
        self.complain("kill the rest of", self.cgroup.kill());
        let (pumps, log) = {
            let mut inner = self.inner();
            exit.message = std::mem::take(&mut inner.start_failure);
            (inner.pumps.take(), inner.log.take())
        };
        if let Some(pumps) = pumps {
            pumps.finish(STREAM_PATIENCE).await;
        }
        drop(log);
        exit.oom_killed = self.cgroup.oom_kills() > 0;
        match exit.write(&self.identity.bundle) {
            Ok(()) => drop(tokio::spawn(settle(self.identity.bundle.clone()))),
            Err(error) => note(format_args!("write the exit record of {}: {error}", self.id())),
        }
        self.complain("remove the cgroup of", self.cgroup.end(DEATH_PATIENCE).await);
        exit
    }

    fn publish_exit(&self, exit: &Exit) {
        let events = &self.surroundings.events;
        if exit.oom_killed && !self.oom_told.load(Ordering::Relaxed) {
            self.tell_oom();
        }
        events.exit(self.id(), self.id(), self.pid(), exit);
    }

    fn complain(&self, doing: &str, result: Result<(), cgroup::Error>) {
        if let Err(error) = result {
            note(format_args!("{doing} {}: {}", self.id(), error_line(&error)));
        }
    }
}
