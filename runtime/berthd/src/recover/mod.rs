//! Taking up again, at start, what a daemon before this one has left: records, shims and directories.
//!
//! ```text
//! record of a pod   its shim       then
//! Starting          any            undone: nobody was told of it
//! Ready             answers        its containers are compared with what the shim knows, and watched
//! Ready             dead           NotReady; its containers ended, what is left of them is killed
//! Ready             is silent      as recorded, until its shim answers or is dead
//! NotReady          any            as it is, until someone stops or removes it
//! lost              any            made again from the copy in its bundle, then as above
//! none, no copy     any            undone; directories and holds without a record are removed
//! ```
//! What is on record is shown at once. Everything else goes on side by side and behind, so that what hangs holds up nothing
//! but itself: a call that needs the shim of a pod waits until that pod is taken up.

mod lost;
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
    container::{Container, ContainerState, end_forsaken, settle_stopped},
    error::{Kind, Result},
    pod::{Pod, PodState},
    runtime::Shared,
    shim::{Shim, Task, TaskState},
    table::Entry,
    watch,
};
use sweep::Left;

pub(crate) use pending::Pending;

/// A shim answers from memory; one that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the next connection to a shim that ended one.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows what is on record, and begins to bring it in line with what is there. Done when that is.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<impl Future<Output = ()> + use<>> {
    let mut containers = shared.state.load::<Container>()?;
    let mut pods = shared.state.load::<Pod>()?;
    lost::make_again(shared, &mut pods, &mut containers).await?;
    for container in containers.records {
        shared.containers.insert(&container.id.clone(), container);
    }
    let (starting, pods): (Vec<_>, Vec<_>) =
        pods.records.into_iter().partition(|pod| pod.state == PodState::Starting);
    let entries: Vec<_> = pods.into_iter().map(|pod| shared.pods.insert(&pod.id.clone(), pod)).collect();
    killpoint!(RECOVERY_LOADED);
    // Looked for before anyone can make new ones.
    let left = Left::look(shared, &starting).await;
    let under_way = begin(shared, starting, entries, left);
    Ok(async move { drop(join_all(under_way).await) })
}

fn begin(
    shared: &Arc<Shared>,
    starting: Vec<Pod>,
    entries: Vec<Arc<Entry<Pod>>>,
    left: Left,
) -> Vec<JoinHandle<()>> {
    let ready = entries.iter().filter(|entry| entry.get().state == PodState::Ready);
    shared.pending.begin(ready.map(|entry| entry.get().id.clone()));
    let take_up = |entry| tokio::spawn(take_up(Arc::clone(shared), entry));
    let mut under_way: Vec<_> = entries.into_iter().map(take_up).collect();
    under_way.push(tokio::spawn(sweep::sweep(Arc::clone(shared), starting, left)));
    under_way
}

async fn take_up(shared: Arc<Shared>, entry: Arc<Entry<Pod>>) {
    let pod = entry.get();
    if pod.state != PodState::Ready {
        return settle_stopped(&shared, &pod.id).await;
    }
    let _taken_up = shared.pending.taken_up(&pod.id);
    match answer(&shared, &pod.id).await {
        Ok((shim, tasks)) => compare(&shared, entry, shim, tasks).await,
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::error!(pod = pod.id, %error, "the pod's shim died while there was no daemon");
            watch::shim_died(&shared, &entry).await;
        }
        Err(error) => tracing::error!(pod = pod.id, %error, "it is not followed"),
    }
}

/// What the shim says, however long it takes.
async fn answer(shared: &Shared, pod_id: &str) -> Result<(Shim, Vec<Task>)> {
    let mut answer = pin!(ask(shared, pod_id));
    if let Ok(answer) = timeout(PATIENCE, &mut answer).await {
        return answer;
    }
    tracing::error!(
        pod = pod_id,
        "its shim did not answer within 10 s; left as it was recorded until it does"
    );
    answer.await
}

/// One question on one connection: a shim that is stuck finds no heap of them when it goes on.
async fn ask(shared: &Shared, pod_id: &str) -> Result<(Shim, Vec<Task>)> {
    loop {
        let shim = watch::reconnect(shared, pod_id).await?;
        match shim.tasks().await {
            // The connection broke: whether the shim is dead is what the next one says.
            Err(error) if error.kind() == Kind::Unavailable => sleep(PAUSE).await,
            tasks => return Ok((shim, tasks?)),
        }
    }
}

/// The shim is the truth of what runs: records follow it.
async fn compare(shared: &Arc<Shared>, entry: Arc<Entry<Pod>>, shim: Shim, tasks: Vec<Task>) {
    let pod_id = entry.get().id.clone();
    let mut tasks: HashMap<_, _> = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
    for container in shared.containers_of(&pod_id) {
        if tasks.contains_key(&container.get().id) {
            end_forsaken(shared, &container.get(), &shim);
        }
        settle(shared, container, &shim, &mut tasks).await;
    }
    for id in tasks.into_keys() {
        forget(&shim, &id).await;
    }
    watch::pod(shared, entry, shim);
}

/// Brings one container in line with what its shim knows of it, if anything.
async fn settle(
    shared: &Arc<Shared>,
    container: Arc<Entry<Container>>,
    shim: &Shim,
    tasks: &mut HashMap<String, Task>,
) {
    match tasks.remove(&container.get().id) {
        Some(task) => follow(shared, container, shim, task).await,
        None if container.get().state.is_exited() => {}
        None => watch::abandoned(shared, &container).await,
    }
}

async fn follow(shared: &Arc<Shared>, entry: Arc<Entry<Container>>, shim: &Shim, task: Task) {
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

fn report(recorded: Result<Arc<Container>>) {
    if let Err(error) = recorded {
        tracing::error!(%error, "could not record what a container did in the meantime");
    }
}

/// A container that was being created when the daemon was killed: nobody was told of it.
async fn forget(shim: &Shim, id: &str) {
    if let Err(error) = shim.discard(id).await {
        tracing::warn!(container = id, %error, "could not remove a container that was never recorded");
    }
}
