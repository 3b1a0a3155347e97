//! Background retries that detach pods which are gone. Each pod keeps its record until it is detached, so that a later
//! daemon can continue.

use std::collections::BTreeMap;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Backend;
use super::error::Error;
use berth_work::{KeyedMutex, retry_delays};

/// Limit of concurrent detaches, so that a full node does not start hundreds of plugins at once.
const MAX_CONCURRENT_DETACHES: usize = 8;

/// The releases under way. Dropping the last reference ends them.
#[derive(Debug)]
pub(super) struct Releases {
    backend: Backend,
    pod_locks: Arc<KeyedMutex>,
    slots: Semaphore,
    /// The last failure, by pod id.
    failed: Mutex<BTreeMap<String, FailedRelease>>,
    tasks: Mutex<JoinSet<()>>,
    this: Weak<Releases>,
}

#[derive(Debug, Default)]
struct FailedRelease {
    attempts: u32,
    error: String,
}

impl Releases {
    pub(super) fn new(backend: Backend, pod_locks: Arc<KeyedMutex>) -> Arc<Releases> {
        Arc::new_cyclic(|this| Releases {
            backend,
            pod_locks,
            slots: Semaphore::new(MAX_CONCURRENT_DETACHES),
            failed: Mutex::default(),
            tasks: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Detaches `pod` in the background, with retries; returns after the first attempt.
    pub(super) async fn begin(&self, pod: String) {
        let (attempted, first) = oneshot::channel();
        self.spawn(pod, iter::once(Duration::ZERO).chain(retry_delays()), Some(attempted));
        // The sender is dropped, without a value, after the first attempt.
        let _ = first.await;
    }

    /// Retries in the background after a first attempt has failed with `error`.
    pub(super) fn retry(&self, pod: &str, error: &Error) {
        if self.record_failure(pod, error) == 1 {
            self.spawn(pod.to_owned(), retry_delays(), None);
        }
    }

    fn spawn(
        &self,
        pod: String,
        delays: impl Iterator<Item = Duration> + Send + 'static,
        mut attempted: Option<oneshot::Sender<()>>,
    ) {
        let releases = self.this.clone();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            for pause in delays {
                sleep(pause).await;
                let Some(releases) = releases.upgrade() else { return };
                let done = releases.attempt(&pod).await;
                attempted.take();
                if done {
                    return;
                }
            }
        });
    }

    async fn attempt(&self, pod: &str) -> bool {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let _lock = self.pod_locks.lock(pod).await;
        match self.backend.detach(pod, None).await {
            Ok(()) => {
                self.failed().remove(pod);
                true
            }
            Err(error) => {
                let (attempts, error) = (self.record_failure(pod, &error), error.chain());
                tracing::warn!(pod, attempts, error, "could not give back the network of a pod that is gone");
                false
            }
        }
    }

    /// Records a failed attempt. Returns the number of failures so far.
    fn record_failure(&self, pod: &str, error: &Error) -> u32 {
        let mut failed = self.failed();
        let failed = failed.entry(pod.to_owned()).or_default();
        failed.attempts += 1;
        failed.error = error.chain();
        failed.attempts
    }

    fn failed(&self) -> MutexGuard<'_, BTreeMap<String, FailedRelease>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the failed releases, for the verbose status.
    pub(super) fn describe(&self) -> Value {
        let failed = self.failed();
        let shown = failed
            .iter()
            .map(|(pod, failed)| json!({ "pod": pod, "attempts": failed.attempts, "error": failed.error }));
        shown.collect()
    }
}
