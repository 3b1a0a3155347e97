//! Processes that were killed and have not ended, because they hang in the kernel: nobody waits for them, and the shim stays
//! until they are gone, to bury them and to remove their groups.

use super::{Cgroup, Child};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// How often a group is looked at that cannot be removed yet.
const LOOK: Duration = Duration::from_millis(500);
/// What was killed takes so long to be gone, unless it hangs.
const MOMENT: Duration = Duration::from_millis(5);
/// How often a group is looked at once nobody hangs any more: what keeps it then is not ours.
const LAST_LOOKS: u32 = 10;

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

/// Whether a process was killed that has not ended.
pub(super) fn any() -> bool {
    LEFT.load(Ordering::Relaxed) > 0
}

/// Waits until everything that was left behind is gone.
pub async fn gone() {
    while any() {
        sleep(LOOK).await;
    }
}

/// Kills what a creation had on its way, and removes its group, empty for none, once they are dead. Returns at once.
pub(super) fn leave(stage: Child, first_process: Option<Child>, group: String) {
    let left = Left::behind();
    tokio::spawn(async move {
        let first_process = async {
            if let Some(process) = first_process {
                process.kill().await;
            }
        };
        // A stage that hangs is in no group: that need not wait for it.
        tokio::join!(stage.kill(), first_process, remove(&group));
        remove(&group).await;
        drop(left);
    });
}

/// Ends what is in a group, and removes it once that has ended.
async fn remove(group: &str) {
    if group.is_empty() {
        return;
    }
    let group = Cgroup::open(group);
    loop {
        // There may be one in it that the stage had no time to tell of.
        let _ = group.kill();
        sleep(MOMENT).await;
        if group.remove().is_ok() {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Removes a group once those are gone that hang in it or below.
pub(super) fn remove_later(group: Cgroup) {
    let left = Left::behind();
    tokio::spawn(async move {
        let mut looks = 0;
        while group.remove().is_err() && looks < LAST_LOOKS {
            sleep(LOOK).await;
            looks = if LEFT.load(Ordering::Relaxed) > 1 { 0 } else { looks + 1 };
        }
        drop(left);
    });
}
