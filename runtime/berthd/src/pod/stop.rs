//! Stopping and removing a pod, and undoing one that could not be run. Every step can be repeated.

use std::{path::Path, sync::Arc, time::Duration};

use berth_failpoint::{failpoint, killpoint};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{Pod, PodState, step};
use crate::{
    container::{self, Container},
    error::{Error, Kind, Result, of_network},
    layout::remove_directory,
    nri::events,
    runtime::Shared,
    shim::{self, Shim},
    single_flight::run_to_completion,
    table::Entry,
    watch,
};
use berth_work::progress;
use berth_work::retry_delays;

/// How long a failed run waits for the first attempt at undoing it.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// Stops the pod: processes first, then the network, then the namespaces, so that no process runs in a detached pod.
pub(super) async fn stop(shared: &Arc<Shared>, entry: &Arc<Entry<Pod>>) -> Result<()> {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    run_to_completion(async move {
        let _lock = entry.lock().await;
        stop_locked(&shared, &entry).await
    })
    .await
}

/// Stops the pod and removes it with its containers, record and files.
pub(super) async fn remove(shared: &Arc<Shared>, entry: &Arc<Entry<Pod>>) -> Result<()> {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    run_to_completion(async move {
        let _lock = entry.lock().await;
        stop_locked(&shared, &entry).await?;
        let pod = entry.get();
        for container in shared.containers_of(&pod.id) {
            container::remove_entry(&shared, &container).await?;
        }
        failpoint!(POD_CLEARED)?;
        remove_directory(&shared.layout.sandbox(&pod.id))?;
        failpoint!(POD_DIRECTORY_REMOVED)?;
        events::pod_removed(&shared, &pod).await;
        shared.pods.remove(&pod.id, &shared.state).await?;
        events::forget(&shared, &pod.id);
        Ok(())
    })
    .await
}

async fn stop_locked(shared: &Arc<Shared>, entry: &Entry<Pod>) -> Result<()> {
    let pod = entry.get();
    if pod.shim.is_none() {
        return Ok(());
    }
    shared.wait_until_recovered(&pod.id).await?;
    let stopped = tear_down(shared, &pod).await;
    stopped.map_err(|error| error.during(step(&pod, "stop")))?;
    let stopped = |pod: &Pod| Pod { state: PodState::NotReady, shim: None, attachment: None, ..pod.clone() };
    entry.change(&shared.state, stopped).await?;
    failpoint!(STOP_RECORDED)?;
    // Containers that were being created while the pod was stopped.
    watch::end_all_without_shim(shared, &pod.id).await;
    Ok(())
}

async fn tear_down(shared: &Arc<Shared>, pod: &Pod) -> Result<()> {
    match pod.shim().await {
        Ok(shim) => {
            progress::at("end its containers");
            let stuck = kill_containers(shared, pod, &shim).await?;
            failpoint!(POD_EMPTIED)?;
            events::pod_stopped(shared, pod).await;
            detach(shared, pod).await?;
            failpoint!(POD_DETACHED)?;
            progress::at("take its namespaces down");
            shim.stop_sandbox(&pod.id).await?;
            failpoint!(SANDBOX_STOPPED)?;
            if let Some((_, error)) = wait_for_ends(shared, stuck).await.pop() {
                return Err(error);
            }
            shim.shutdown(&pod.id).await?;
            shared.launcher.remove_socket(&pod.id)?;
            Ok(failpoint!(SHIM_LEFT)?)
        }
        Err(error) if error.kind() == Kind::Unavailable => {
            watch::end_all_without_shim(shared, &pod.id).await;
            events::pod_stopped(shared, pod).await;
            detach(shared, pod).await?;
            shim::cleanup_after(&shared.launcher, &pod.id, &shared.layout.sandbox(&pod.id)).await
        }
        Err(error) => Err(error),
    }
}

/// Kills the containers and returns those that do not end, because they are stuck in the kernel. They are given up: the
/// shim takes down the namespaces regardless.
async fn kill_containers(shared: &Arc<Shared>, pod: &Pod, shim: &Shim) -> Result<Vec<Arc<Entry<Container>>>> {
    let running: Vec<_> =
        shared.containers_of(&pod.id).into_iter().filter(|entry| !entry.get().state.is_exited()).collect();
    for entry in &running {
        shim.kill(&entry.get().id).await?;
    }
    let stuck = wait_for_ends(shared, running).await.into_iter();
    Ok(stuck
        .map(|(entry, error)| {
            tracing::warn!(pod = pod.id, %error, "a container is given up");
            entry
        })
        .collect())
}

/// Waits for the ends of killed containers. Returns those that have not ended, each with its error.
async fn wait_for_ends(
    shared: &Arc<Shared>,
    killed: Vec<Arc<Entry<Container>>>,
) -> Vec<(Arc<Entry<Container>>, Error)> {
    let ends = killed.into_iter().map(async |entry| (container::wait_until_killed(&entry).await, entry));
    let mut without = Vec::new();
    for (end, entry) in futures::future::join_all(ends).await {
        match end {
            Ok(()) => events::settle_end(shared, &entry).await,
            Err(error) => without.push((entry, error)),
        }
    }
    without
}

async fn detach(shared: &Shared, pod: &Pod) -> Result<()> {
    let Some(network) = pod.network() else { return Ok(()) };
    progress::at("detach from the network");
    let detached = shared.network.detach(&network, pod.attachment.as_ref()).await;
    detached.map_err(|error| of_network("detach from the network", error))
}

/// Removes everything that was made of a pod that did not become ready. Returns after the first attempt or after 10 s;
/// further attempts go on in the background until one succeeds. The record is deleted last, so that a later daemon can
/// continue.
pub(crate) async fn undo(shared: &Arc<Shared>, pod: Pod) {
    let shared = Arc::clone(shared);
    let (attempted, first) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut attempted = Some(attempted);
        for pause in retry_delays() {
            let undone = undo_once(&shared, &pod).await;
            attempted.take();
            match undone {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(pod = pod.id, %error, "could not undo a pod that failed to run; trying again in {pause:?}");
                }
            }
            sleep(pause).await;
        }
    });
    // The result is not needed: the caller has its own error to return.
    let _ = timeout(UNDO_TIMEOUT, first).await;
}

/// Makes one attempt. Waits first for the process that starts the shim, so that nothing is added to the pod meanwhile.
/// If its network cannot be released now, the network's own record causes later attempts.
async fn undo_once(shared: &Arc<Shared>, pod: &Pod) -> Result<()> {
    let bundle = shared.layout.sandbox(&pod.id);
    shim::wait_until_started(&bundle).await?;
    if let Some(network) = pod.network()
        && let Err(error) = shared.network.release(&network).await
    {
        let error = of_network("detach from the network", error);
        tracing::warn!(pod = pod.id, %error, "its addresses are given back later");
    }
    killpoint!(UNDO_DETACHED);
    end_shim(shared, pod, &bundle).await?;
    failpoint!(UNDO_SHIM_ENDED)?;
    remove_directory(&bundle)?;
    failpoint!(UNDO_DIRECTORY_REMOVED)?;
    shared.state.delete::<Pod>(&pod.id).await
}

async fn end_shim(shared: &Shared, pod: &Pod, bundle: &Path) -> Result<()> {
    match pod.shim().await {
        Ok(shim) => {
            let stopped = shim.stop_sandbox(&pod.id).await;
            shim.shutdown(&pod.id).await?;
            shared.launcher.remove_socket(&pod.id)?;
            stopped.or_else(ignore_not_found)
        }
        Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::FailedPrecondition) => {
            shim::cleanup_after(&shared.launcher, &pod.id, bundle).await
        }
        Err(error) => Err(error),
    }
}

/// A sandbox that was never made counts as stopped.
fn ignore_not_found(error: Error) -> Result<()> {
    match error.kind() {
        Kind::NotFound => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests;
