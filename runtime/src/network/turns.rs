//! Calls for one pod wait for each other; calls for different pods do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// One queue per pod, gone when nobody is in it.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Turn<()>>>>);

impl Turns {
    /// Waits until no other call for `pod` holds its turn.
    pub(super) async fn take(&self, pod: &str) -> OwnedMutexGuard<()> {
        self.queue(pod).lock_owned().await
    }

    fn queue(&self, pod: &str) -> Arc<Turn<()>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pod).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Turn::new(()));
        queues.insert(pod.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn one_pod_waits_for_itself_and_never_for_another() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(turns.take("a").now_or_never().is_none());
        assert!(turns.take("b").now_or_never().is_some());
        drop(first);
        assert!(turns.take("a").now_or_never().is_some());
    }

    #[tokio::test]
    async fn queues_nobody_is_in_are_forgotten() {
        let turns = Turns::default();
        for pod in 0..100 {
            drop(turns.take(&pod.to_string()).await);
        }
        assert!(turns.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= 1);
    }
}
