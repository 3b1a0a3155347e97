//! Reaping the children nobody waits for.
//!
//! The shim is a subreaper, so what a container leaves behind in the host's PID namespace becomes its child. Processes
//! that somebody watches are reaped through their pidfd and by nobody else; the rest is reaped here. The scheme:
//! look at an ended child without reaping it; if it is watched, stop, because its watcher will reap it and call again;
//! if it is not, reap it by its pid, which cannot be reused before that. While something is being created, nothing is reaped
//! here, because a stage process or a child that is not registered yet would be taken for an orphan; the end of
//! the creation calls again.

use crate::sys::child::ended_child;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is watched, and whether someone is being created.
#[derive(Debug, Default)]
pub struct Orphans {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watched: HashSet<u32>,
    creations: usize,
}

/// As long as it lives, a creation is under way.
#[derive(Debug)]
pub struct Creation(Arc<Orphans>);

impl Orphans {
    /// To be held from before a child is made until it is registered with [`Orphans::watch`].
    pub fn creation(self: &Arc<Self>) -> Creation {
        self.state().creations += 1;
        Creation(Arc::clone(self))
    }

    /// Leaves this child to its watcher.
    pub fn watch(&self, pid: u32) {
        self.state().watched.insert(pid);
    }

    /// The watcher has reaped it, or will not: then it is reaped here.
    pub fn unwatch(&self, pid: u32) {
        self.state().watched.remove(&pid);
        self.reap();
    }

    /// Reaps every ended child that nobody watches.
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

    /// Reaps nothing: all tests of a binary are one process, and their children not orphans.
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
