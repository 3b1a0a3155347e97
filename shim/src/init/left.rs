//! Processes that were killed and have not ended, because they hang in the kernel: nobody waits for them, and the shim stays
//! until they are gone, to bury them and to remove their groups.

use super::{Cgroup, Child};
use crate::shim_log::note;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// How often a group is looked at that cannot be removed yet.
const LOOK: Duration = Duration::from_millis(500);
/// What was killed is gone sooner, unless it hangs.
const MOMENT: Duration = Duration::from_millis(200);

static LEFT: AtomicUsize = AtomicUsize::new(0);

/// As long as it lives, something is left behind.
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

/// Kills what a creation had on its way, and removes its group, empty for none. Whoever hangs is not waited for.
pub(super) async fn leave(processes: impl IntoIterator<Item = Child>, group: String) {
    for process in processes {
        let (left, group) = (Left::behind(), group.clone());
        tokio::spawn(async move {
            process.kill().await;
            // It may have made the group with its last call. By now the path may be another creation's: nobody is killed there.
            let _ = Cgroup::open(&group).remove_now();
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

/// Ends what is in the group, and removes it; false when somebody hangs in it.
async fn remove(group: &str, patience: Duration) -> bool {
    group.is_empty() || Cgroup::open(group).end(patience).await.is_ok()
}

/// Ends what is in a group and removes it, however long somebody hangs in it. Nobody waits for that.
pub fn end_later(group: Cgroup, of: String) {
    let left = Left::behind();
    tokio::spawn(async move {
        match group.end(Duration::MAX).await {
            Ok(()) => note(format_args!("the cgroup of {of} is removed at last")),
            Err(error) => note(format_args!("remove the cgroup of {of}: {error}")),
        }
        drop(left);
    });
}
