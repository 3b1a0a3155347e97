//! Recovery at start: reconciles the records, shims and directories that an earlier daemon left.
//!
//! ```text
//! record of a pod   its shim       then
//! Starting          any            undone: it was never reported to a caller
//! Ready             answers        its containers are reconciled with what the shim knows, and watched
//! Ready             dead           NotReady; its containers are ended, remaining processes killed
//! Ready             is silent      as recorded, until its shim answers or dies
//! NotReady          any            unchanged, until a call stops or removes it
//! lost              any            restored from the copy in its bundle, then as above
//! none, no copy     any            undone; directories and leases without a record are removed
//! ```
//! Recorded pods and containers are shown at once. The rest runs concurrently in the background, so that a hanging shim
//! delays only its own pod: a call that needs the shim waits until the pod is recovered.

mod lost_records;
mod pending;
mod sweep;

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use berth_failpoint::killpoint;
use futures::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    container::{Container, ContainerState, end_orphaned_execs, record_ends_of_stopped},
    error::{Kind, Result},
    pod::{Pod, PodState},
    runtime::Shared,
    shim::{Shim, Task, TaskState},
    table::Entry,
    watch,
};
use sweep::Leftovers;

pub(crate) use pending::PendingPods;

/// Time after which a shim counts as stuck: it answers from memory.
const SHIM_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the next connection when a shim closed one.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Shows what is on record and starts to reconcile it. The returned future completes when that is done.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<impl Future<Output = ()> + use<>> {
    let mut containers = shared.state.load::<Container>()?;
    let mut pods = shared.state.load::<Pod>()?;
    lost_records::restore(shared, &mut pods, &mut containers).await?;
    for container in containers.records {
        shared.containers.insert(&container.id.clone(), container);
    }
    let (starting, pods): (Vec<_>, Vec<_>) =
        pods.records.into_iter().partition(|pod| pod.state == PodState::Starting);
    let entries: Vec<_> = pods.into_iter().map(|pod| shared.pods.insert(&pod.id.clone(), pod)).collect();
    killpoint!(RECOVERY_LOADED);
    // Must run before calls can make new containers or pods, which it would mistake for leftovers.
    let leftovers = Leftovers::find(shared, &starting).await;
    let under_way = begin(shared, starting, entries, leftovers);
    Ok(async move { drop(join_all(under_way).await) })
}

fn begin(
    shared: &Arc<Shared>,
    starting: Vec<Pod>,
    entries: Vec<Arc<Entry<Pod>>>,
    leftovers: Leftovers,
) -> Vec<JoinHandle<()>> {
    let ready = entries.iter().filter(|entry| entry.get().state == PodState::Ready);
    shared.pending.add(ready.map(|entry| entry.get().id.clone()));
    let recover_pod = |entry| tokio::spawn(recover_pod(Arc::clone(shared), entry));
    let mut under_way: Vec<_> = entries.into_iter().map(recover_pod).collect();
    under_way.push(tokio::spawn(sweep::sweep(Arc::clone(shared), starting, leftovers)));
    under_way
}

async fn recover_pod(shared: Arc<Shared>, entry: Arc<Entry<Pod>>) {
    let pod = entry.get();
    if pod.state != PodState::Ready {
        return record_ends_of_stopped(&shared, &pod.id).await;
    }
    let _guard = shared.pending.guard(&pod.id);
    match shim_tasks(&shared, &pod.id).await {
        Ok((shim, tasks)) => reconcile_pod(&shared, entry, shim, tasks).await,
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::error!(pod = pod.id, %error, "the pod's shim died while there was no daemon");
            watch::shim_died(&shared, &entry).await;
        }
        Err(error) => tracing::error!(pod = pod.id, %error, "it is not followed"),
    }
}

/// Returns the shim and its tasks. Logs an error after [`SHIM_ANSWER_TIMEOUT`], then keeps waiting.
async fn shim_tasks(shared: &Shared, pod_id: &str) -> Result<(Shim, Vec<Task>)> {
    let mut shim_tasks = pin!(ask(shared, pod_id));
    if let Ok(shim_tasks) = timeout(SHIM_ANSWER_TIMEOUT, &mut shim_tasks).await {
        return shim_tasks;
    }
    tracing::error!(
        pod = pod_id,
        "its shim did not answer within 10 s; left as it was recorded until it does"
    );
    shim_tasks.await
}

/// Keeps a single request on a single connection, so that a stuck shim has no backlog to work off when it continues.
async fn ask(shared: &Shared, pod_id: &str) -> Result<(Shim, Vec<Task>)> {
    loop {
        let shim = watch::reconnect(shared, pod_id).await?;
        match shim.tasks().await {
            // The connection broke. Reconnecting tells whether the shim is dead.
            Err(error) if error.kind() == Kind::Unavailable => sleep(RECONNECT_DELAY).await,
            tasks => return Ok((shim, tasks?)),
        }
    }
}

/// Reconciles a pod's records with its shim, which knows what runs.
async fn reconcile_pod(shared: &Arc<Shared>, entry: Arc<Entry<Pod>>, shim: Shim, tasks: Vec<Task>) {
    let pod_id = entry.get().id.clone();
    let mut tasks: HashMap<_, _> = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
    for container in shared.containers_of(&pod_id) {
        if tasks.contains_key(&container.get().id) {
            end_orphaned_execs(shared, &container.get(), &shim);
        }
        reconcile_container(shared, container, &shim, &mut tasks).await;
    }
    for id in tasks.into_keys() {
        forget(&shim, &id).await;
    }
    watch::pod(shared, entry, shim);
}

/// Reconciles one container with what its shim knows of it.
async fn reconcile_container(
    shared: &Arc<Shared>,
    container: Arc<Entry<Container>>,
    shim: &Shim,
    tasks: &mut HashMap<String, Task>,
) {
    match tasks.remove(&container.get().id) {
        Some(task) => follow(shared, container, shim, task).await,
        None if container.get().state.is_exited() => {}
        None => watch::end_without_shim(shared, &container).await,
    }
}

async fn follow(shared: &Arc<Shared>, entry: Arc<Entry<Container>>, shim: &Shim, task: Task) {
    if entry.get().state.is_exited() && !matches!(task.state, TaskState::Stopped(_)) {
        kill_refused(&entry.get().id, shim).await;
    }
    match task.state {
        TaskState::Stopped(exit) => {
            let started = |container: &Container| match task.started_at {
                0 => container.clone(),
                at => container.started(task.pid, at),
            };
            let ended = |container: &Container| started(container).ended(exit);
            report(entry.change(&shared.state, ended).await);
        }
        TaskState::Running => {
            let running = |container: &Container| container.started(task.pid, task.started_at);
            if !matches!(entry.get().state, ContainerState::Running { .. }) {
                report(entry.change(&shared.state, running).await);
            }
            watch::container(shared, entry, shim.clone());
        }
        TaskState::Created => watch::container(shared, entry, shim.clone()),
    }
}

/// Kills a container whose start was recorded as failed by a daemon that was killed before it could do so itself.
async fn kill_refused(id: &str, shim: &Shim) {
    if let Err(error) = shim.kill(id).await {
        tracing::error!(container = id, %error, "could not kill a container whose start has failed");
    }
}

fn report(recorded: Result<Arc<Container>>) {
    if let Err(error) = recorded {
        tracing::error!(%error, "could not record what a container did in the meantime");
    }
}

/// Discards a container whose creation was interrupted: it has no record, and no caller knows of it.
async fn forget(shim: &Shim, id: &str) {
    if let Err(error) = shim.discard(id).await {
        tracing::warn!(container = id, %error, "could not remove a container that was never recorded");
    }
}
