//! Waiting for what comes in its own time, and giving up when it does not come.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// Until `holds`; `what` is what a test says that waits in vain.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    eventually(async || (what, holds()), |(_, held)| *held).await;
}

/// Looks until what is there `holds`, and returns it; a test that waits in vain shows what was there at last.
pub async fn eventually<T: Debug>(mut look: impl AsyncFnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let there = look().await;
        if holds(&there) {
            return there;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain; at last {there:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
