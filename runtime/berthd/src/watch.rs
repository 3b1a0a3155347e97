//! Watching what runs: one waiting call to the shim for each pod and each container, nothing that polls.

use std::{path::Path, sync::Arc, time::Duration};

use berth_failpoint::killpoint;
use futures::future::join_all;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::{
    container::{Container, ContainerState},
    error::{Error, Kind, Result},
    identity,
    nri::events,
    pod::{Pod, PodState},
    runtime::Shared,
    shim::{self, Exit, Shim},
    table::Entry,
};

/// What is shown of a container whose end nobody saw.
const UNSEEN_EXIT_CODE: i32 = 255;
/// Before another attempt to connect to a shim, when what is lacking is the daemon's.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the ends of containers may take to arrive that came before the end of their pod.
const ENDS_TIMEOUT: Duration = Duration::from_secs(10);

/// Notices when the pod ends by itself or its shim dies, for as long as the pod is up.
pub(crate) fn pod(shared: &Arc<Shared>, entry: Arc<Entry<Pod>>, shim: Shim) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let id = entry.get().id.clone();
        match end_of_pod(&shared, &id, shim).await {
            Ok(()) => pod_has_ended(&shared, &entry).await,
            Err(error) if error.kind() == Kind::Unavailable => pod_is_lost(&shared, &entry, error).await,
            // It was stopped or removed meanwhile.
            Err(error) if matches!(error.kind(), Kind::FailedPrecondition | Kind::NotFound) => {}
            Err(error) => tracing::error!(pod = id, %error, "cannot be watched"),
        }
    });
}

/// Waits for the pod's end, over a new connection should one break whose shim still lives.
async fn end_of_pod(shared: &Shared, id: &str, mut shim: Shim) -> Result<()> {
    loop {
        match shim.wait_sandbox(id).await {
            Err(error) if error.kind() == Kind::Unavailable => shim = reconnect(shared, id).await?,
            end => return end,
        }
    }
}

/// Notes that the pod's first process has ended, unless the pod was stopped meanwhile. Its containers ended before, and their
/// ends are awaited, so that none is on record as running in a pod that is over.
async fn pod_has_ended(shared: &Arc<Shared>, entry: &Entry<Pod>) {
    let _turn = entry.turn().await;
    let pod = entry.get();
    if pod.state != PodState::Ready {
        return;
    }
    tracing::error!(pod = pod.id, "the pod's first process has ended");
    let containers = shared.containers_of(&pod.id);
    let ends = containers.iter().map(|one| one.when(|container: &Container| container.state.is_exited()));
    if timeout(ENDS_TIMEOUT, join_all(ends)).await.is_err() {
        tracing::error!(pod = pod.id, "the ends of its containers did not arrive within 10 s");
    }
    not_ready(shared, entry).await;
}

/// Notes that the pod's shim died, for which `error` stands, unless the pod was stopped meanwhile.
pub(crate) async fn pod_is_lost(shared: &Arc<Shared>, entry: &Entry<Pod>, error: Error) {
    let _turn = entry.turn().await;
    let pod = entry.get();
    if pod.state == PodState::Ready {
        tracing::error!(pod = pod.id, %error, "the pod's shim died");
        shim_died(shared, entry).await;
    }
}

/// Records the container's end when it comes.
pub(crate) fn container(shared: &Arc<Shared>, entry: Arc<Entry<Container>>, shim: Shim) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let container = entry.get();
        match end_of(&shared, &container, shim).await {
            Ok(exit) => {
                // The end of one that is just being started is told after its start.
                let starting = matches!(entry.get().state, ContainerState::Created { .. });
                let turn = if starting { Some(entry.turn().await) } else { None };
                record_end(&shared, &entry, exit).await;
                // Plugins are told in a turn of its own.
                drop(turn);
                events::container_stopped(&shared, &entry).await;
            }
            // Its pod's watch speaks for all containers of a dead shim.
            Err(error) if error.kind() == Kind::Unavailable => {}
            // Its pod was stopped while it was made, and its shim has left with it.
            Err(error) if error.kind() == Kind::FailedPrecondition => abandoned(&shared, &entry).await,
            Err(error) => tracing::error!(container = container.id, %error, "cannot be watched"),
        }
    });
}

/// Records the end of a container when it comes, of which no pod's watch speaks: its pod is over.
pub(crate) async fn last_end(shared: Arc<Shared>, entry: Arc<Entry<Container>>, shim: Shim) {
    match end_of(&shared, &entry.get(), shim).await {
        Ok(exit) => {
            record_end(&shared, &entry, exit).await;
            events::container_stopped(&shared, &entry).await;
        }
        Err(_) => abandoned(&shared, &entry).await,
    }
}

/// Waits for the container's end, over a new connection should one break whose shim still lives.
async fn end_of(shared: &Shared, container: &Container, mut shim: Shim) -> Result<Exit> {
    loop {
        match shim.wait(&container.id).await {
            Err(error) if error.kind() == Kind::Unavailable => {
                shim = reconnect(shared, &container.pod_id).await?;
            }
            end => return end,
        }
    }
}

/// A new connection to a pod's shim after one that broke: that is not yet a dead shim, only a socket that nobody listens on
/// is. Other reasons for not getting one, as that there are no descriptors left, are waited out.
///
/// # Errors
///
/// `Unavailable` when the shim is dead, `FailedPrecondition` or `NotFound` when the pod was stopped or removed.
pub(crate) async fn reconnect(shared: &Shared, pod_id: &str) -> Result<Shim> {
    loop {
        match shared.reach(pod_id).await {
            Err(error)
                if !matches!(error.kind(), Kind::Unavailable | Kind::FailedPrecondition | Kind::NotFound) =>
            {
                tracing::warn!(pod = pod_id, %error, "the pod's shim is not reached for now");
                sleep(PAUSE).await;
            }
            reached => return reached,
        }
    }
}

/// Ends what a dead shim has left behind, and records how its containers ended. The caller has the pod's turn.
pub(crate) async fn shim_died(shared: &Arc<Shared>, entry: &Entry<Pod>) {
    let pod = entry.get();
    abandoned_all(shared, &pod.id).await;
    not_ready(shared, entry).await;
}

async fn not_ready(shared: &Shared, entry: &Entry<Pod>) {
    let recorded = entry.change(&shared.state, |pod| Pod { state: PodState::NotReady, ..pod.clone() }).await;
    if let Err(error) = recorded {
        tracing::error!(pod = entry.get().id, %error, "could not record that the pod is over");
    }
}

/// All containers of a pod without a shim that have not ended as far as anyone knows.
pub(crate) async fn abandoned_all(shared: &Arc<Shared>, pod_id: &str) {
    let mut containers = shared.containers_of(pod_id);
    containers.retain(|entry| !entry.get().state.is_exited());
    join_all(containers.iter().map(|entry| abandoned(shared, entry))).await;
}

/// A container without a shim: what is left of it is killed, what is known of its end is recorded.
pub(crate) async fn abandoned(shared: &Arc<Shared>, entry: &Entry<Container>) {
    let container = entry.get();
    let bundle = shared.layout.bundle(&container.id);
    // Read before the clean-up, which may write its own.
    let exit = read_exit(&bundle);
    if let Err(error) = shim::cleanup_after(&shared.launcher, &container.id, &bundle).await {
        tracing::error!(container = container.id, %error, "could not clean up after a dead shim");
    }
    record_end(shared, entry, exit.unwrap_or_else(unseen)).await;
    events::container_stopped(shared, entry).await;
}

/// Records an end, unless one is on record already.
async fn record_end(shared: &Shared, entry: &Entry<Container>, exit: Exit) {
    killpoint!(END_HEARD);
    events::container_ends(shared, &entry.get().id);
    let recorded = entry.change(&shared.state, |container| container.ended(exit)).await;
    killpoint!(END_RECORDED);
    if let Err(error) = recorded {
        // The shim's exit record is on disk, so a restart will find it.
        tracing::error!(container = entry.get().id, %error, "could not record the container's end");
    }
}

fn unseen() -> Exit {
    Exit {
        code: UNSEEN_EXIT_CODE,
        finished_at: identity::now(),
        oom_killed: false,
        message: "its shim died, and with it the container: how it ended is not known".into(),
    }
}

/// What a shim wrote beside the container before it told anyone.
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
        code: i32::try_from(record.code).unwrap_or(UNSEEN_EXIT_CODE),
        finished_at: record.finished_at,
        oom_killed: record.oom_killed,
        message: record.message,
    })
}
