//! Locks by key: work for one key is serialized, work for different keys runs concurrently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// One lock per key that is in use.
#[derive(Debug, Default)]
pub struct KeyedMutex(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl KeyedMutex {
    /// Waits for the lock of `key`, which is released when the guard is dropped.
    pub async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        self.mutex_of(key).lock_owned().await
    }

    fn mutex_of(&self, key: &str) -> Arc<AsyncMutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mutex) = locks.get(key).and_then(Weak::upgrade) {
            return mutex;
        }
        locks.retain(|_, mutex| mutex.strong_count() > 0);
        let mutex = Arc::new(AsyncMutex::new(()));
        locks.insert(key.to_owned(), Arc::downgrade(&mutex));
        mutex
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn one_key_waits_for_itself_and_never_for_another() {
        let mutex = KeyedMutex::default();
        let first = mutex.lock("a").await;
        assert!(mutex.lock("a").now_or_never().is_none());
        assert!(mutex.lock("b").now_or_never().is_some());
        drop(first);
        assert!(mutex.lock("a").now_or_never().is_some());
    }

    #[tokio::test]
    async fn queues_nobody_is_in_are_forgotten() {
        let mutex = KeyedMutex::default();
        for key in 0..100 {
            drop(mutex.lock(&key.to_string()).await);
        }
        assert!(mutex.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= 1);
    }
}
