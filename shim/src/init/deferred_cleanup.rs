//! Killed processes that hang in the kernel. Calls do not wait for them, but the shim stays until they are gone, reaps
//! them and removes their cgroups.

use super::{Cgroup, Child};
use crate::shim_log::note;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Interval between attempts to remove a cgroup.
const REMOVE_INTERVAL: Duration = Duration::from_millis(500);
/// Time for killed processes to be gone unless they hang.
const REMOVE_TIMEOUT: Duration = Duration::from_millis(200);

static PENDING: AtomicUsize = AtomicUsize::new(0);

/// Guard of a cleanup that goes on in the background.
struct DeferredCleanup;

impl DeferredCleanup {
    fn begin() -> Self {
        PENDING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for DeferredCleanup {
    fn drop(&mut self) {
        PENDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until every such cleanup is done.
pub async fn cleanup_finished() {
    while PENDING.load(Ordering::Relaxed) > 0 {
        sleep(REMOVE_INTERVAL).await;
    }
}

/// Kills the processes of a creation and removes its cgroup (empty: none). Does not wait for processes that hang.
pub(super) async fn kill_and_remove(processes: impl IntoIterator<Item = Child>, group: String) {
    for process in processes {
        let (pending, group) = (DeferredCleanup::begin(), group.clone());
        tokio::spawn(async move {
            process.kill().await;
            // The process may have created the cgroup with its last system call. By now the path may belong to another
            // creation, so remove it only if empty and kill nothing in it.
            let _ = Cgroup::unchecked(&group).remove_now();
            drop(pending);
        });
    }
    if remove(&group, REMOVE_TIMEOUT).await {
        return;
    }
    let pending = DeferredCleanup::begin();
    tokio::spawn(async move {
        while !remove(&group, REMOVE_INTERVAL).await {}
        drop(pending);
    });
}

/// Kills all in the cgroup and removes it; false when a process hangs in it.
async fn remove(group: &str, time_limit: Duration) -> bool {
    group.is_empty() || Cgroup::unchecked(group).kill_and_remove(time_limit).await.is_ok()
}

/// Kills all in a cgroup and removes it in the background, however long a process hangs in it.
pub fn remove_cgroup_later(group: Cgroup, of: String) {
    let pending = DeferredCleanup::begin();
    tokio::spawn(async move {
        match group.kill_and_remove(Duration::MAX).await {
            Ok(()) => note(format_args!("the cgroup of {of} is removed at last")),
            Err(error) => note(format_args!("remove the cgroup of {of}: {error}")),
        }
        drop(pending);
    });
}
