//! Calls that ask for the same thing at the same time share one execution.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use tokio::task::JoinError;

use crate::error::{Error, Kind, Result};
use berth_work::progress::Progress;

/// Work under way: its future result, and the step it is at.
type Flight<V> = (Shared<BoxFuture<'static, Result<V>>>, Progress);

/// Work under way, by key. It goes on when its caller disconnects, and a repeated call joins it.
#[derive(Debug)]
pub struct SingleFlight<K, V: Clone> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
}

impl<K, V: Clone> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { flights: Arc::default() }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns the result of the work for `key`: joins the work under way, or starts `work`.
    pub async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights.entry(key.clone()).or_insert_with(|| self.start(key, work())).clone()
        };
        let (result, progress) = flight;
        Progress::current().follow(&progress);
        result.await
    }

    fn start<F>(&self, key: K, work: F) -> Flight<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let guard = FlightGuard { flights: Arc::clone(&self.flights), key };
        let progress = Progress::default();
        let task = tokio::spawn(progress.clone().scope(async move {
            // The guard also runs when the work panics, so that the next call starts anew.
            let _guard = guard;
            work.await
        }));
        let result = task
            .map(|joined| {
                joined.unwrap_or_else(|error| {
                    Err(Error::caused(Kind::Internal, "run in the background", error))
                })
            })
            .boxed()
            .shared();
        (result, progress)
    }
}

/// Removes a flight when its work has ended or panicked.
struct FlightGuard<K: Eq + Hash, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for FlightGuard<K, V> {
    fn drop(&mut self) {
        // Bound to a variable, so that it is dropped after the lock guard: its drop may run other destructors.
        let _flight = self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Runs `work` to its end even when the caller disconnects.
pub(crate) async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let joined = detached(work).await;
    joined.unwrap_or_else(|error| Err(Error::caused(Kind::Internal, "run in the background", error)))
}

/// The same for work with any result; returns a `JoinError` when it panicked.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> std::result::Result<T, JoinError> {
    tokio::spawn(Progress::current().scope(work)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn two_calls_for_one_key_run_once_and_get_the_same() {
        let flights = SingleFlight::<&str, u32>::default();
        let runs = Arc::new(AtomicU32::new(0));
        let go = Arc::new(Notify::new());
        let work = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            move || async move {
                go.notified().await;
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            }
        };
        let (first, second, ()) =
            tokio::join!(flights.join("a", work()), flights.join("a", work()), async { go.notify_one() });
        assert_eq!((first.unwrap(), second.unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn a_flight_goes_on_when_its_caller_leaves_and_the_next_call_joins_it() {
        let flights = SingleFlight::<&str, u32>::default();
        let go = Arc::new(Notify::new());
        let started = Arc::clone(&go);
        {
            let left = flights.join("a", || async move {
                started.notified().await;
                Ok(7)
            });
            // One poll starts it; dropping the future is what a disconnected client does.
            assert!(futures::poll!(Box::pin(left)).is_pending());
        }
        let second = flights.join("a", || async { Ok(8) });
        go.notify_one();
        assert_eq!(second.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_finished_flight_is_forgotten() {
        let flights = SingleFlight::<&str, u32>::default();
        assert_eq!(flights.join("a", || async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(flights.join("a", || async { Ok(2) }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_flight_that_panics_is_an_error_for_those_in_it_and_forgotten() {
        let flights = SingleFlight::<&str, u32>::default();
        let crashed = flights.join("a", || async { panic!("a fault of ours") }).await;
        assert_eq!(crashed.unwrap_err().kind(), Kind::Internal);
        assert_eq!(flights.join("a", || async { Ok(2) }).await.unwrap(), 2);
    }
}
