//! Work that waits for a disk or for the kernel, on threads where that holds up no other call.

use std::time::Duration;

use tokio::{task::spawn_blocking, time::timeout};

use crate::error::{Error, Kind, Result};

/// How long a path that somebody else has named may take to be looked up: one on a dead file system never answers.
const LIMIT: Duration = Duration::from_secs(30);

/// What `work` returns; `step` says what it is.
pub(crate) async fn run<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|lost| Error::caused(Kind::Internal, step, lost))
}

/// The same for work on paths that somebody else has named. When it takes too long it goes on, and nobody waits for it.
///
/// # Errors
///
/// `DeadlineExceeded` after half a minute.
pub(crate) async fn look_up<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let late = |_| Error::new(Kind::DeadlineExceeded, format!("{step}, for {LIMIT:?}"));
    timeout(LIMIT, run(step, work)).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_not_waited_for() {
        let (answer, never) = mpsc::channel::<()>();
        let looking = tokio::spawn(look_up("look at a path", move || never.recv().is_ok()));
        tokio::task::yield_now().await;
        tokio::time::advance(LIMIT).await;
        let error = looking.await.unwrap().unwrap_err();
        drop(answer);
        assert_eq!(error.to_string(), "look at a path, for 30s");
        assert!(matches!(look_up("look at another", || 7).await, Ok(7)));
    }
}
