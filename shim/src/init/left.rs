//! Killed processes that hang in the kernel. Calls do not wait for them, but the shim stays until they are gone, reaps
//! them and removes their cgroups.

use super::{Cgroup, Child};
use crate::shim_log::note;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Interval between attempts to remove a cgroup.
const LOOK: Duration = Duration::from_millis(500);
/// Time for killed processes to be gone unless they hang.
const MOMENT: Duration = Duration::from_millis(200);

static LEFT: AtomicUsize = AtomicUsize::new(0);

/// Guard of something left behind.
struct Left;

impl Left {
    fn behind() -> Self {
        LEFT.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        LEFT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until everything that was left behind is gone.
pub async fn gone() {
    while LEFT.load(Ordering::Relaxed) > 0 {
        sleep(LOOK).await;
    }
}

/// Kills the processes of a creation and removes its cgroup (empty: none). Does not wait for processes that hang.
pub(super) async fn leave(processes: impl IntoIterator<Item = Child>, group: String) {
    for process in processes {
        let (left, group) = (Left::behind(), group.clone());
        tokio::spawn(async move {
            process.kill().await;
            // The process may have created the cgroup with its last system call. By now the path may belong to another
            // creation, so remove it only if empty and kill nothing in it.
            let _ = Cgroup::unchecked(&group).remove_now();
            drop(left);
        });
    }
    if remove(&group, MOMENT).await {
        return;
    }
    let left = Left::behind();
    tokio::spawn(async move {
        while !remove(&group, LOOK).await {}
        drop(left);
    });
}

/// Kills all in the cgroup and removes it; false when a process hangs in it.
async fn remove(group: &str, time_limit: Duration) -> bool {
    group.is_empty() || Cgroup::unchecked(group).kill_and_remove(time_limit).await.is_ok()
}

/// Kills all in a cgroup and removes it in the background, however long a process hangs in it.
pub fn end_later(group: Cgroup, of: String) {
    let left = Left::behind();
    tokio::spawn(async move {
        match group.kill_and_remove(Duration::MAX).await {
            Ok(()) => note(format_args!("the cgroup of {of} is removed at last")),
            Err(error) => note(format_args!("remove the cgroup of {of}: {error}")),
        }
        drop(left);
    });
}
