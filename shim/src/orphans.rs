//! Reaping of children that no task waits for.
//!
//! The shim is a subreaper, so processes a container leaves behind in the host's PID namespace become its children. A
//! watched process is reaped by its watcher through its pidfd; all others are reaped here. An ended child is first looked
//! at without reaping it (`WNOWAIT`). If it is watched, the reaper stops: the watcher reaps it and calls again. If not, it
//! is reaped by its pid, which cannot be reused before that. While a creation is under way nothing is reaped here, because
//! a stage process or a child not yet registered would be taken for an orphan; the end of the creation calls again.

use crate::sys::child::ended_child;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Watched pids, and the number of creations under way.
#[derive(Debug, Default)]
pub struct Orphans {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watched: HashSet<u32>,
    creations: usize,
}

/// Guard of a creation under way.
#[derive(Debug)]
pub struct Creation(Arc<Orphans>);

impl Orphans {
    /// Suspends reaping. Hold the guard from before a child is made until it is registered with [`Orphans::watch`].
    pub fn creation(self: &Arc<Self>) -> Creation {
        self.state().creations += 1;
        Creation(Arc::clone(self))
    }

    /// Leaves this child to its watcher.
    pub fn watch(&self, pid: u32) {
        self.state().watched.insert(pid);
    }

    /// Ends the watch: the child is reaped already, or is reaped here.
    pub fn unwatch(&self, pid: u32) {
        self.state().watched.remove(&pid);
        self.reap();
    }

    /// Reaps every ended child that is not watched.
    pub fn reap(&self) {
        let state = self.state();
        if state.creations > 0 {
            return;
        }
        while let Ok(Some(pid)) = ended_child() {
            if state.watched.contains(&pid) || !reap_one(pid) {
                return;
            }
        }
    }

    /// An instance that reaps nothing: all tests of a binary are one process, and their children are no orphans.
    #[cfg(test)]
    pub(crate) fn of_a_test() -> Arc<Self> {
        let orphans = Arc::<Self>::default();
        std::mem::forget(orphans.creation());
        orphans
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        self.0.state().creations -= 1;
        self.0.reap();
    }
}

fn reap_one(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).is_ok()
}
