//! Detection of idle connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Time of the last read or write on one connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    limit: Duration,
    opened: Instant,
    /// Milliseconds after `opened`.
    last: Arc<AtomicU64>,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, opened: Instant::now(), last: Arc::default() }
    }

    /// Records that something happened just now.
    pub(super) fn touch(&self) {
        let passed = self.opened.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// Returns once nothing has happened for as long as the limit.
    pub(super) async fn expired(&self) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let due = self.opened + last + self.limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_expires_after_the_limit_and_later_when_something_happens() {
        let idle = Idle::new(Duration::from_secs(10));
        let begun = Instant::now();
        let touched = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            idle.touch();
        };
        tokio::join!(idle.expired(), touched);
        assert_eq!(begun.elapsed().as_secs(), 17);
    }
}
