//! Polls for a condition, and panics when it does not come.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `holds` returns true. Panics with `what` after 30 s.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    eventually(async || (what, holds()), |(_, held)| *held).await;
}

/// Calls `look` until its result `holds`, and returns that result. Panics with the last result after 30 s.
pub async fn eventually<T: Debug>(mut look: impl AsyncFnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let there = look().await;
        if holds(&there) {
            return there;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "waited in vain; at last {there:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
