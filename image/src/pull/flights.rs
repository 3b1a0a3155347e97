//! Shares work that several callers want at the same time: it runs once for each key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::OwnedMutexGuard;
use tokio::task::AbortHandle;

use crate::digest::Digest;

/// Registry name, and digest of what is pulled. The registry is part of the key so that a pull never waits for another
/// registry, which may be slow or send wrong content.
pub(crate) type Key = (String, Digest);

/// Future of work under way, shared by all who wait for it. Dropping its last clone aborts the work.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// Work under way, by key.
pub(crate) struct Flights<T: Clone> {
    under_way: Mutex<HashMap<Key, WeakShared<BoxFuture<'static, T>>>>,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub(crate) fn new() -> Self {
        Flights { under_way: Mutex::default() }
    }

    /// Returns the work under way for `key` and true, or spawns `work` as a task and returns it and false. `lost` is
    /// the outcome if the task panics.
    pub(crate) fn join<W>(&self, key: &Key, work: impl FnOnce() -> W, lost: T) -> (Flight<T>, bool)
    where
        W: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, flight| flight.upgrade().is_some_and(|flight| flight.peek().is_none()));
        if let Some(flight) = under_way.get(key).and_then(WeakShared::upgrade) {
            return (flight, true);
        }
        let flight = start(work(), lost);
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key.clone(), weak);
        }
        (flight, false)
    }
}

fn start<T: Clone + Send + Sync + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    lost: T,
) -> Flight<T> {
    let task = tokio::spawn(work);
    let stop = StopOnDrop(task.abort_handle());
    let outcome = async move {
        let _stop = stop;
        task.await.unwrap_or(lost)
    };
    outcome.boxed().shared()
}

struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One lock for each key in use.
#[derive(Default)]
pub(crate) struct KeyedLocks {
    locks: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
}

impl KeyedLocks {
    pub(crate) async fn lock(&self, key: &Key) -> OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    fn of(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}
