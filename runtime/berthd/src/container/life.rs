//! A container's life from created to removed. Start, update and removal of one container run one after the other.

use std::{sync::Arc, time::Duration};

use berth_failpoint::{failpoint, killpoint};
use tokio::time::timeout;

use super::{Container, ContainerState, config::Resources, image_volume};
use crate::{
    blocking, clock,
    error::{During, Error, Kind, Result, of_image, spec_error},
    layout::remove_directory,
    nri::events,
    runtime::Shared,
    shim::{self, KILL_TIMEOUT, Shim},
    single_flight::run_to_completion,
    spec,
    table::Entry,
    watch,
};
use berth_work::progress;

/// Exit code of a container that could not be started; containerd reports the same.
const START_ERROR_CODE: i32 = 128;

/// Starts the container. Succeeds if it already runs: the answer to an earlier call may have been lost.
pub(super) async fn start(shared: Arc<Shared>, entry: Arc<Entry<Container>>) -> Result<()> {
    let _lock = entry.lock().await;
    let container = entry.get();
    match &container.state {
        ContainerState::Created { .. } => start_created(&shared, &entry, &container).await,
        ContainerState::Running { .. } => Ok(()),
        ContainerState::Exited { message, .. } => {
            let text = format!("container {} was started before and has ended", container.id);
            let why = if message.is_empty() { text } else { format!("{text}: {message}") };
            Err(Error::new(Kind::FailedPrecondition, why))
        }
    }
}

async fn start_created(shared: &Arc<Shared>, entry: &Entry<Container>, container: &Container) -> Result<()> {
    let shim = shared.shim_of(&container.pod_id).await?;
    progress::at("ask the NRI plugins");
    if let Err(refused) = events::start_container(shared, container).await {
        return Err(refuse_start(shared, entry, &shim, refused).await);
    }
    progress::at("execute its command");
    match shim.start(&container.id).await {
        Ok(pid) => {
            killpoint!(CONTAINER_STARTED);
            let at = clock::now();
            let started = entry.change(&shared.state, |container| container.started(pid, at)).await?;
            killpoint!(START_RECORDED);
            events::container_started(shared, &started).await;
            Ok(())
        }
        Err(error) => Err(refuse_start(shared, entry, &shim, error).await),
    }
}

/// Records a container whose start failed or was refused by a plugin as ended, and kills it: a shim that was too slow
/// to answer may still start it.
async fn refuse_start(shared: &Shared, entry: &Entry<Container>, shim: &Shim, refused: Error) -> Error {
    events::container_ends(shared, &entry.get().id);
    let refused = record_failed_start(shared, entry, refused).await;
    match shim.kill(&entry.get().id).await {
        Ok(()) => refused,
        Err(error) => error.during(refused.to_string()),
    }
}

/// Records that the container ended with a start error, whose message is also the error of the call.
async fn record_failed_start(shared: &Shared, entry: &Entry<Container>, error: Error) -> Error {
    let message = error.to_string();
    let ended = |container: &Container| {
        container.exited(START_ERROR_CODE, clock::now(), "StartError", message.clone())
    };
    match entry.change(&shared.state, ended).await {
        Ok(_) => error,
        Err(unrecorded) => unrecorded.during(message),
    }
}

/// Kills the container and waits for its end.
pub(crate) async fn kill(shared: &Arc<Shared>, entry: Arc<Entry<Container>>) -> Result<()> {
    stop(shared, entry, Duration::ZERO).await
}

pub(super) async fn stop(shared: &Arc<Shared>, entry: Arc<Entry<Container>>, grace: Duration) -> Result<()> {
    let shared = Arc::clone(shared);
    run_to_completion(async move { end(&shared, &entry, grace).await }).await
}

/// Sends the stop signal, waits for `grace`, then kills. Takes no lock: a stop must not wait for another operation.
async fn end(shared: &Arc<Shared>, entry: &Entry<Container>, grace: Duration) -> Result<()> {
    let container = entry.get();
    if container.state.is_exited() {
        events::settle_end(shared, entry).await;
        return Ok(());
    }
    let shim = match shared.shim_of(&container.pod_id).await {
        // Its shim is dead, or its pod was stopped or removed.
        Err(error)
            if matches!(error.kind(), Kind::Unavailable | Kind::FailedPrecondition | Kind::NotFound) =>
        {
            watch::end_without_shim(shared, entry).await;
            return Ok(());
        }
        shim => shim?,
    };
    progress::at("wait for it to end");
    let asked = !grace.is_zero() && matches!(container.state, ContainerState::Running { .. });
    if asked && stop_gracefully(&shim, entry, grace).await? {
        events::settle_end(shared, entry).await;
        return Ok(());
    }
    shim.kill(&container.id).await?;
    failpoint!(CONTAINER_KILLED)?;
    wait_until_killed(entry).await?;
    events::settle_end(shared, entry).await;
    Ok(())
}

/// Waits for the end of a container that was just killed.
///
/// # Errors
///
/// `DeadlineExceeded` when it has not ended after 10 s.
pub(crate) async fn wait_until_killed(entry: &Entry<Container>) -> Result<()> {
    if ended_within(entry, KILL_TIMEOUT).await {
        return Ok(());
    }
    let text = format!("container {} was killed 10 s ago and has not ended", entry.get().id);
    Err(Error::new(Kind::DeadlineExceeded, text))
}

async fn stop_gracefully(shim: &Shim, entry: &Entry<Container>, grace: Duration) -> Result<bool> {
    let container = entry.get();
    shim.signal(&container.id, u32::try_from(container.stop_signal).unwrap_or(15)).await?;
    Ok(ended_within(entry, grace).await)
}

async fn ended_within(entry: &Entry<Container>, limit: Duration) -> bool {
    timeout(limit, entry.wait_for(|container| container.state.is_exited())).await.is_ok()
}

/// Kills the container, then removes it with its record and files.
pub(crate) async fn remove_entry(shared: &Arc<Shared>, entry: &Arc<Entry<Container>>) -> Result<()> {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    run_to_completion(async move {
        end(&shared, &entry, Duration::ZERO).await?;
        let _lock = entry.lock().await;
        let container = entry.get();
        events::container_removed(&shared, &container).await;
        progress::at("remove what it left");
        delete_task(&shared, &container).await?;
        failpoint!(TASK_DELETED)?;
        remove_traces(&shared, &container.id).await?;
        failpoint!(TRACES_REMOVED)?;
        shared.containers.remove(&container.id, &shared.state).await?;
        events::forget(&shared, &container.id);
        Ok(())
    })
    .await
}

/// Deletes the container in its shim. A dead shim is cleaned up after instead.
async fn delete_task(shared: &Shared, container: &Container) -> Result<()> {
    let deleted = match shared.shim_of(&container.pod_id).await {
        Ok(shim) => match shim.delete(&container.id).await {
            // Ended by our record but not in the shim: its start was answered too late.
            Err(error) if error.kind() == Kind::FailedPrecondition => shim.discard(&container.id).await,
            deleted => deleted,
        },
        Err(error) if error.kind() == Kind::Unavailable => {
            shim::cleanup_after(&shared.launcher, &container.id, &shared.layout.bundle(&container.id)).await
        }
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::FailedPrecondition) => Err(error),
        _ => Ok(()),
    }
}

/// Removes what is on disk for a container without a task: bundle, writable layer, leases of its images.
pub(crate) async fn remove_traces(shared: &Shared, id: &str) -> Result<()> {
    let (bundle, writable) = (shared.layout.bundle(id), shared.layout.writable(id));
    let removed = blocking::run("remove directories", move || {
        remove_directory(&bundle)?;
        failpoint!(BUNDLE_REMOVED)?;
        remove_directory(&writable)
    });
    removed.await??;
    failpoint!(WRITABLE_REMOVED)?;
    image_volume::release(shared, id).await?;
    let released = shared.images.release(id).await;
    released.map_err(|error| of_image(format!("release the image of {id}"), error))
}

pub(super) async fn update(
    shared: &Arc<Shared>,
    entry: Arc<Entry<Container>>,
    change: Resources,
) -> Result<()> {
    let shared = Arc::clone(shared);
    run_to_completion(async move {
        let container = entry.get();
        must_not_have_ended(&container)?;
        let change = events::update_container(&shared, &container, change).await?;
        set_limits(&shared, Arc::clone(&entry), change).await?;
        events::container_updated(&shared, &entry.get()).await;
        Ok(())
    })
    .await
}

fn must_not_have_ended(container: &Container) -> Result<()> {
    if container.state.is_exited() {
        let text = format!("container {} has ended: its limits cannot change", container.id);
        return Err(Error::new(Kind::FailedPrecondition, text));
    }
    Ok(())
}

/// Changes the limits without asking plugins.
pub(crate) async fn set_limits(
    shared: &Arc<Shared>,
    entry: Arc<Entry<Container>>,
    change: Resources,
) -> Result<()> {
    let shared = Arc::clone(shared);
    run_to_completion(async move {
        let _lock = entry.lock().await;
        let container = entry.get();
        must_not_have_ended(&container)?;
        let merged = spec::resources::merge(&container.config.resources, &change);
        let wanted = spec::resources::to_oci(&merged, &shared.host).map_err(spec_error)?;
        let json = serde_json::to_vec(&wanted).during(|| "encode the limits")?;
        shared.shim_of(&container.pod_id).await?.update(&container.id, json).await?;
        failpoint!(LIMITS_SET)?;
        let updated = |container: &Container| {
            let mut container = container.clone();
            container.config.resources = merged;
            container
        };
        entry.change(&shared.state, updated).await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests;
