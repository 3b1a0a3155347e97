//! Work that blocks on a disk or on the kernel, moved to threads where it delays no other call.

use std::{sync::LazyLock, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::error::{Error, Kind, Result};
use berth_work::KeyedMutex;

/// Time limit for looking up a path that a caller chose: a lookup on a dead file system never returns.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Most threads that may hang on such paths. The other blocking threads stay free for the daemon's own disk work.
const MAX_HANGING_LOOKUPS: usize = 64;

/// One permit for each running lookup.
static LOOKUP_PERMITS: Semaphore = Semaphore::const_new(MAX_HANGING_LOOKUPS);
/// One lock per cause.
static CAUSE_LOCKS: LazyLock<KeyedMutex> = LazyLock::new(KeyedMutex::default);

/// Runs `work` on a blocking thread. `step` names it in the error if it panics.
pub(crate) async fn run<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|lost| Error::caused(Kind::Internal, step, lost))
}

/// Runs `work` on paths that a caller chose, at most once at a time for each `cause`. After the time limit the thread
/// keeps running, and only calls with the same cause wait for it: a path that hangs costs one thread however often it
/// is retried.
///
/// # Errors
///
/// `DeadlineExceeded` after 30 s.
pub(crate) async fn look_up<T: Send + 'static>(
    step: &'static str,
    cause: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let looking = async {
        let lock = CAUSE_LOCKS.lock(cause).await;
        let permit = LOOKUP_PERMITS.acquire().await;
        run(step, move || {
            let found = work();
            drop((lock, permit));
            found
        })
        .await
    };
    let late = |_| Error::new(Kind::DeadlineExceeded, format!("{step}, for {LOOKUP_TIMEOUT:?}"));
    timeout(LOOKUP_TIMEOUT, looking).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_not_waited_for() {
        let (answer, never) = mpsc::channel::<()>();
        let looking = tokio::spawn(look_up("look at a path", "a", move || never.recv().is_ok()));
        tokio::task::yield_now().await;
        tokio::time::advance(LOOKUP_TIMEOUT).await;
        let error = looking.await.unwrap().unwrap_err();
        drop(answer);
        assert_eq!(error.to_string(), "look at a path, for 30s");
        assert!(matches!(look_up("look at another", "b", || 7).await, Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_hangs_takes_one_thread_however_often_it_is_tried() {
        let (answer, never) = mpsc::channel::<()>();
        let begun = Arc::new(AtomicU32::new(0));
        let first = Arc::clone(&begun);
        let hanging = tokio::spawn(look_up("look", "dead", move || {
            first.fetch_add(1, Ordering::SeqCst);
            never.recv().is_ok()
        }));
        tokio::task::yield_now().await;
        let again = Arc::clone(&begun);
        let second = tokio::spawn(look_up("look", "dead", move || again.fetch_add(1, Ordering::SeqCst)));
        tokio::task::yield_now().await;
        tokio::time::advance(LOOKUP_TIMEOUT).await;
        assert_eq!(hanging.await.unwrap().unwrap_err().kind(), Kind::DeadlineExceeded);
        assert_eq!(second.await.unwrap().unwrap_err().kind(), Kind::DeadlineExceeded);
        assert!(matches!(look_up("look", "alive", || 7).await, Ok(7)));
        drop(answer);
        while look_up("look", "dead", || ()).await.is_err() {}
        assert_eq!(begun.load(Ordering::SeqCst), 1, "the second was given up before its turn came");
    }
}
