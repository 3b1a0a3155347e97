//! Stopping and removing a pod, and undoing one that could not be run. Every step is fine to do again.

use std::sync::Arc;

use super::{Pod, PodState, step};
use crate::{
    container,
    error::{Kind, Result, of_network},
    flights::to_its_end,
    layout::remove_directory,
    nri::events,
    progress,
    runtime::Shared,
    shim::{self, Shim},
    table::Entry,
    watch,
};
use berth_failpoint::{failpoint, killpoint};

/// Stops the pod: processes, then network, then namespaces, so that nothing runs in a network that is gone.
pub(super) async fn stop(shared: &Arc<Shared>, entry: &Arc<Entry<Pod>>) -> Result<()> {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    to_its_end(async move {
        let _turn = entry.turn().await;
        stop_in_turn(&shared, &entry).await
    })
    .await
}

/// Stops the pod, removes its containers and then every trace of it.
pub(super) async fn remove(shared: &Arc<Shared>, entry: &Arc<Entry<Pod>>) -> Result<()> {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    to_its_end(async move {
        let _turn = entry.turn().await;
        stop_in_turn(&shared, &entry).await?;
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

async fn stop_in_turn(shared: &Arc<Shared>, entry: &Entry<Pod>) -> Result<()> {
    let pod = entry.get();
    if pod.shim.is_none() {
        return Ok(());
    }
    let stopped = tear_down(shared, &pod).await;
    stopped.map_err(|error| error.during(step(&pod, "stop")))?;
    let stopped = |pod: &Pod| Pod { state: PodState::NotReady, shim: None, attachment: None, ..pod.clone() };
    entry.change(&shared.state, stopped).await?;
    failpoint!(STOP_RECORDED)?;
    // Those that were just being made.
    watch::abandoned_all(shared, &pod.id).await;
    Ok(())
}

async fn tear_down(shared: &Arc<Shared>, pod: &Pod) -> Result<()> {
    match pod.shim().await {
        Ok(shim) => {
            progress::at("end its containers");
            kill_containers(shared, pod, &shim).await?;
            failpoint!(POD_EMPTIED)?;
            events::pod_stopped(shared, pod).await;
            detach(shared, pod).await?;
            failpoint!(POD_DETACHED)?;
            progress::at("take its namespaces down");
            shim.stop_sandbox(&pod.id).await?;
            failpoint!(SANDBOX_STOPPED)?;
            shim.shutdown(&pod.id).await?;
            Ok(failpoint!(SHIM_LEFT)?)
        }
        Err(error) if error.kind() == Kind::Unavailable => {
            watch::abandoned_all(shared, &pod.id).await;
            events::pod_stopped(shared, pod).await;
            detach(shared, pod).await?;
            shim::cleanup_after(&shared.launcher, &pod.id, &shared.layout.sandbox(&pod.id)).await
        }
        Err(error) => Err(error),
    }
}

async fn kill_containers(shared: &Arc<Shared>, pod: &Pod, shim: &Shim) -> Result<()> {
    let running: Vec<_> =
        shared.containers_of(&pod.id).into_iter().filter(|entry| !entry.get().state.is_exited()).collect();
    for entry in &running {
        shim.kill(&entry.get().id).await?;
    }
    let killed = running.iter().map(|entry| container::killed(entry));
    futures::future::join_all(killed).await.into_iter().collect::<Result<()>>()?;
    for entry in &running {
        events::settle_end(shared, entry).await;
    }
    Ok(())
}

async fn detach(shared: &Shared, pod: &Pod) -> Result<()> {
    let Some(network) = pod.network() else { return Ok(()) };
    progress::at("detach from the network");
    let detached = shared.network.detach(&network, pod.attachment.as_ref()).await;
    detached.map_err(|error| of_network("detach from the network", error))
}

/// Takes back whatever was made of a pod that did not become ready, as far as it can be. A shim that could not be ended
/// is left, with bundle and record of the pod, to the next daemon; of what is left of a network that has its own record.
pub(crate) async fn undo(shared: &Shared, pod: &Pod) {
    let detached = detach(shared, pod).await;
    killpoint!(UNDO_DETACHED);
    let ended = async {
        end_shim(shared, pod).await?;
        failpoint!(UNDO_SHIM_ENDED)?;
        remove_directory(&shared.layout.sandbox(&pod.id))?;
        failpoint!(UNDO_DIRECTORY_REMOVED)?;
        shared.state.delete::<Pod>(&pod.id).await
    };
    for error in [detached, ended.await].into_iter().filter_map(Result::err) {
        tracing::warn!(pod = pod.id, %error, "could not undo all of a pod that failed to run");
    }
}

async fn end_shim(shared: &Shared, pod: &Pod) -> Result<()> {
    let bundle = shared.layout.sandbox(&pod.id);
    let Ok(shim) = pod.shim().await else {
        return shim::cleanup_after(&shared.launcher, &pod.id, &bundle).await;
    };
    let stopped = shim.stop_sandbox(&pod.id).await;
    shim.shutdown(&pod.id).await?;
    match stopped {
        Err(error) if error.kind() != Kind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
