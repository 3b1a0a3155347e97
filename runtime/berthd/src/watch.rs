//! Watching pods and containers: one pending call to the shim for each of them, no polling.

use std::{path::Path, sync::Arc, time::Duration};

use berth_failpoint::killpoint;
use futures::future::join_all;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::{
    clock,
    container::{Container, ContainerState},
    error::{Error, Kind, Result},
    nri::events,
    pod::{Pod, PodState},
    runtime::Shared,
    shim::{self, Exit, Shim},
    table::Entry,
};

/// Exit code of a container whose end no shim reported.
const UNKNOWN_EXIT_CODE: i32 = 255;
/// Pause before the next attempt to connect to a shim, after a failure of the daemon's own, such as EMFILE.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// How long the ends of a pod's containers may take to arrive, after the pod's own end.
const ENDS_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches a pod until it is stopped: records when its first process ends or its shim dies.
pub(crate) fn pod(shared: &Arc<Shared>, entry: Arc<Entry<Pod>>, shim: Shim) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let id = entry.get().id.clone();
        match wait_for_pod_end(&shared, &id, shim).await {
            Ok(()) => pod_has_ended(&shared, &entry).await,
            Err(error) if error.kind() == Kind::Unavailable => pod_is_lost(&shared, &entry, error).await,
            // The pod was stopped or removed meanwhile.
            Err(error) if matches!(error.kind(), Kind::FailedPrecondition | Kind::NotFound) => {}
            Err(error) => tracing::error!(pod = id, %error, "cannot be watched"),
        }
    });
}

/// Waits for the pod's end. Reconnects when the connection breaks while the shim lives.
async fn wait_for_pod_end(shared: &Shared, id: &str, mut shim: Shim) -> Result<()> {
    loop {
        match shim.wait_sandbox(id).await {
            Err(error) if error.kind() == Kind::Unavailable => shim = reconnect(shared, id).await?,
            end => return end,
        }
    }
}

/// Records that the pod's first process has ended, unless the pod was stopped meanwhile. Its containers ended before;
/// their ends are awaited, so that no container is on record as running in a pod that has ended.
async fn pod_has_ended(shared: &Arc<Shared>, entry: &Entry<Pod>) {
    let _lock = entry.lock().await;
    let pod = entry.get();
    if pod.state != PodState::Ready {
        return;
    }
    tracing::error!(pod = pod.id, "the pod's first process has ended");
    let containers = shared.containers_of(&pod.id);
    let ends = containers.iter().map(|one| one.wait_for(|container: &Container| container.state.is_exited()));
    if timeout(ENDS_TIMEOUT, join_all(ends)).await.is_err() {
        tracing::error!(pod = pod.id, "the ends of its containers did not arrive within 10 s");
    }
    not_ready(shared, entry).await;
}

/// Records that the pod's shim died, unless the pod was stopped meanwhile. `error` is logged.
pub(crate) async fn pod_is_lost(shared: &Arc<Shared>, entry: &Entry<Pod>, error: Error) {
    let _lock = entry.lock().await;
    let pod = entry.get();
    if pod.state == PodState::Ready {
        tracing::error!(pod = pod.id, %error, "the pod's shim died");
        shim_died(shared, entry).await;
    }
}

/// Watches a container and records its end.
pub(crate) fn container(shared: &Arc<Shared>, entry: Arc<Entry<Container>>, shim: Shim) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let container = entry.get();
        match wait_for_end(&shared, &container, shim).await {
            Ok(exit) => {
                // A start in progress holds the lock. Waiting for it keeps the end from being reported before the
                // start.
                let starting = matches!(entry.get().state, ContainerState::Created { .. });
                let lock = if starting { Some(entry.lock().await) } else { None };
                record_end(&shared, &entry, exit).await;
                // Plugins are notified under a lock of their own.
                drop(lock);
                events::container_stopped(&shared, &entry).await;
            }
            // The shim is dead: the pod's watch handles all its containers.
            Err(error) if error.kind() == Kind::Unavailable => {}
            // The pod was stopped while the container was being created, and its shim has exited.
            Err(error) if error.kind() == Kind::FailedPrecondition => end_without_shim(&shared, &entry).await,
            Err(error) => tracing::error!(container = container.id, %error, "cannot be watched"),
        }
    });
}

/// Records the end of a container whose pod has ended, so that no watch of the pod handles a dead shim.
pub(crate) async fn record_end_after_pod(shared: Arc<Shared>, entry: Arc<Entry<Container>>, shim: Shim) {
    match wait_for_end(&shared, &entry.get(), shim).await {
        Ok(exit) => {
            record_end(&shared, &entry, exit).await;
            events::container_stopped(&shared, &entry).await;
        }
        Err(_) => end_without_shim(&shared, &entry).await,
    }
}

/// Waits for the container's end. Reconnects when the connection breaks while the shim lives.
async fn wait_for_end(shared: &Shared, container: &Container, mut shim: Shim) -> Result<Exit> {
    loop {
        match shim.wait(&container.id).await {
            Err(error) if error.kind() == Kind::Unavailable => {
                shim = reconnect(shared, &container.pod_id).await?;
            }
            end => return end,
        }
    }
}

/// Reconnects to a pod's shim after a connection broke. A broken connection does not mean a dead shim; only a socket
/// without a listener does. Failures of the daemon's own, such as EMFILE, are retried until they pass.
///
/// # Errors
///
/// `Unavailable` when the shim is dead, `FailedPrecondition` or `NotFound` when the pod was stopped or removed.
pub(crate) async fn reconnect(shared: &Shared, pod_id: &str) -> Result<Shim> {
    loop {
        match shared.connect_unrecovered(pod_id).await {
            Err(error)
                if !matches!(error.kind(), Kind::Unavailable | Kind::FailedPrecondition | Kind::NotFound) =>
            {
                tracing::warn!(pod = pod_id, %error, "the pod's shim is not reached for now");
                sleep(RECONNECT_DELAY).await;
            }
            reached => return reached,
        }
    }
}

/// Cleans up after a dead shim, and records the ends of its containers. The caller holds the pod's lock.
pub(crate) async fn shim_died(shared: &Arc<Shared>, entry: &Entry<Pod>) {
    let pod = entry.get();
    end_all_without_shim(shared, &pod.id).await;
    not_ready(shared, entry).await;
}

async fn not_ready(shared: &Shared, entry: &Entry<Pod>) {
    let recorded = entry.change(&shared.state, |pod| Pod { state: PodState::NotReady, ..pod.clone() }).await;
    if let Err(error) = recorded {
        tracing::error!(pod = entry.get().id, %error, "could not record that the pod is over");
    }
}

/// Handles all containers of a pod without a shim that have not ended by their records.
pub(crate) async fn end_all_without_shim(shared: &Arc<Shared>, pod_id: &str) {
    let mut containers = shared.containers_of(pod_id);
    containers.retain(|entry| !entry.get().state.is_exited());
    join_all(containers.iter().map(|entry| end_without_shim(shared, entry))).await;
}

/// Handles a container without a shim: kills what is left of it, and records its end as far as known.
pub(crate) async fn end_without_shim(shared: &Arc<Shared>, entry: &Entry<Container>) {
    let container = entry.get();
    let bundle = shared.layout.bundle(&container.id);
    // Read before the clean-up, which may write an exit record of its own.
    let exit = read_exit(&bundle);
    if let Err(error) = shim::cleanup_after(&shared.launcher, &container.id, &bundle).await {
        tracing::error!(container = container.id, %error, "could not clean up after a dead shim");
    }
    record_end(shared, entry, exit.unwrap_or_else(unknown_exit)).await;
    events::container_stopped(shared, entry).await;
}

/// Records an end, unless one is on record already.
async fn record_end(shared: &Shared, entry: &Entry<Container>, exit: Exit) {
    killpoint!(END_HEARD);
    events::container_ends(shared, &entry.get().id);
    let recorded = entry.change(&shared.state, |container| container.ended(exit)).await;
    killpoint!(END_RECORDED);
    if let Err(error) = recorded {
        // The shim's exit record is on disk, so the next daemon will find it.
        tracing::error!(container = entry.get().id, %error, "could not record the container's end");
    }
}

fn unknown_exit() -> Exit {
    Exit {
        code: UNKNOWN_EXIT_CODE,
        finished_at: clock::now(),
        oom_killed: false,
        message: "its shim died, and with it the container: how it ended is not known".into(),
    }
}

/// Returns the exit record that the shim wrote to the bundle before it reported the end.
fn read_exit(bundle: &Path) -> Option<Exit> {
    #[derive(Deserialize)]
    struct Record {
        code: u32,
        finished_at: i64,
        #[serde(default)]
        oom_killed: bool,
        #[serde(default)]
        message: String,
    }
    let bytes = std::fs::read(bundle.join("exit.json")).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    Some(Exit {
        code: i32::try_from(record.code).unwrap_or(UNKNOWN_EXIT_CODE),
        finished_at: record.finished_at,
        oom_killed: record.oom_killed,
        message: record.message,
    })
}
