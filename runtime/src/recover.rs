//! Taking up again, at start, what a daemon before this one has left: records, shims and directories.
//!
//! ```text
//! record of a pod   its shim       then
//! Starting          any            undone: nobody was told of it
//! Ready             answers        its containers are compared with what the shim knows, and watched
//! Ready             dead           NotReady; its containers ended, what is left of them is killed
//! Ready             is silent      as recorded, until its shim answers or is dead
//! NotReady          any            as it is, until someone stops or removes it
//! none              any            directories and holds without a record are removed
//! ```
//! Pods are taken up side by side, so that one shim that does not answer holds up no other.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use berth_failpoint::killpoint;
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    container::{Container, ContainerState, container_of, end_forsaken, remove_traces},
    error::{Error, Kind, Result},
    layout::remove_directory,
    pod::{self, Pod, PodState},
    runtime::{Shared, names_in},
    shim::{Shim, Task, TaskState},
    table::Entry,
    watch,
};

/// A shim answers from memory; one that takes longer is stuck, and nobody waits for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Brings the tables in line with what is there.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<()> {
    for container in shared.state.load::<Container>()? {
        shared.containers.insert(&container.id.clone(), container);
    }
    let pods = shared.state.load::<Pod>()?;
    killpoint!(RECOVERY_LOADED);
    join_all(pods.into_iter().map(|pod| take_up(shared, pod))).await;
    killpoint!(RECOVERY_TAKEN_UP);
    sweep(shared).await;
    killpoint!(RECOVERY_SWEPT);
    Ok(())
}

async fn take_up(shared: &Arc<Shared>, pod: Pod) {
    if pod.state == PodState::Starting {
        return pod::undo(shared, &pod).await;
    }
    let (id, state) = (pod.id.clone(), pod.state);
    let entry = shared.pods.insert(&id, pod);
    if state != PodState::Ready {
        return;
    }
    match ask(shared, &id).await {
        Ok((shim, tasks)) => compare(shared, entry, shim, tasks).await,
        Err(error) if error.kind() == Kind::Unavailable => watch::shim_died(shared, &entry).await,
        Err(error) => {
            tracing::error!(pod = id, %error, "its shim did not answer; left as it was recorded until it does");
            tokio::spawn(take_up_late(Arc::clone(shared), shared.containers_of(&id), entry));
        }
    }
}

/// Takes up a pod whose shim did not answer in time, with the containers that it had then. Others may have come by calls
/// since, and commands in any of them: they are left alone.
async fn take_up_late(shared: Arc<Shared>, containers: Vec<Arc<Entry<Container>>>, entry: Arc<Entry<Pod>>) {
    let id = entry.get().id.clone();
    let answer = loop {
        match ask(&shared, &id).await {
            Err(error) if error.kind() == Kind::DeadlineExceeded => {}
            answer => break answer,
        }
    };
    match answer {
        Ok((shim, tasks)) => {
            let mut tasks = by_id(tasks);
            for container in containers {
                settle(&shared, container, &shim, &mut tasks).await;
            }
            watch::pod(&shared, entry, shim);
        }
        Err(error) if error.kind() == Kind::Unavailable => watch::pod_is_lost(&shared, &entry, error).await,
        Err(error) => tracing::error!(pod = id, %error, "it is not followed"),
    }
}

async fn ask(shared: &Shared, pod_id: &str) -> Result<(Shim, Vec<Task>)> {
    let answer = async {
        let shim = watch::reconnect(shared, pod_id).await?;
        let tasks = shim.tasks().await?;
        Ok((shim, tasks))
    };
    let late = |_| Error::new(Kind::DeadlineExceeded, "the shim did not answer within 10 s");
    timeout(ANSWER_TIMEOUT, answer).await.map_err(late)?
}

/// The shim is the truth of what runs: records follow it.
async fn compare(shared: &Arc<Shared>, entry: Arc<Entry<Pod>>, shim: Shim, tasks: Vec<Task>) {
    let pod_id = entry.get().id.clone();
    let mut tasks = by_id(tasks);
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

fn by_id(tasks: Vec<Task>) -> HashMap<String, Task> {
    tasks.into_iter().map(|task| (task.id.clone(), task)).collect()
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

/// Removes what has no record: nobody will ever ask for it.
async fn sweep(shared: &Shared) {
    let pods: HashSet<String> = shared.pods.list().iter().map(|pod| pod.id.clone()).collect();
    let containers: HashSet<String> = shared.containers.list().iter().map(|c| c.id.clone()).collect();
    let layout = &shared.layout;
    let held = names_in(&layout.bundles())
        .into_iter()
        .chain(names_in(&layout.writables()))
        .chain(shared.images.leases().into_iter().map(|holder| container_of(&holder).to_owned()));
    for id in held.collect::<HashSet<_>>().difference(&containers) {
        if let Err(error) = remove_traces(shared, id).await {
            tracing::warn!(container = id, %error, "could not remove what has no record");
        }
    }
    for id in names_in(&layout.sandboxes()).into_iter().filter(|id| !pods.contains(id)) {
        if let Err(error) = remove_directory(&layout.sandbox(&id)) {
            tracing::warn!(pod = id, %error, "could not remove what has no record");
        }
    }
    if let Err(error) = shared.network.retain(&pods).await {
        tracing::warn!(%error, "could not detach pods that have no record");
    }
}
