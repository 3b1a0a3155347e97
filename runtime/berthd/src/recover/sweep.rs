//! Removal of leftovers without a record, and of pods that were never reported to a caller.

use std::{collections::HashSet, fs, sync::Arc};

use berth_failpoint::killpoint;
use futures::future::join_all;
use oci_spec::runtime::Spec;

use crate::{
    container::{Container, container_of, remove_traces},
    pod::{self, Pod, PodState},
    runtime::{Shared, names_in},
    spec::annotations::SANDBOX_UID,
    table::Entry,
    watch,
};

/// Leftovers that existed before calls could make new objects.
pub(super) struct Leftovers {
    /// Ids of containers that have files or leases but no record.
    containers: Vec<String>,
    /// Ids of pods that only the network has a record of.
    attached: Vec<String>,
}

impl Leftovers {
    /// Looks for leftovers. Pods in `starting` have a record but are not in the table.
    pub(super) async fn find(shared: &Shared, starting: &[Pod]) -> Self {
        let mut attached = shared.network.recorded_pods().await.unwrap_or_else(|error| {
            let error = error.chain();
            tracing::error!(error, "what is attached to the network is not known");
            Vec::new()
        });
        attached.retain(|pod| !shared.pods.has(pod) && !starting.iter().any(|starting| starting.id == *pod));
        Self { containers: containers(shared), attached }
    }
}

fn containers(shared: &Shared) -> Vec<String> {
    let layout = &shared.layout;
    let held = names_in(&layout.bundles())
        .into_iter()
        .chain(names_in(&layout.writable_layers()))
        .chain(shared.images.leases().into_iter().map(|holder| container_of(&holder).to_owned()));
    let held: HashSet<_> = held.filter(|id| !shared.containers.has(id)).collect();
    held.into_iter().collect()
}

/// Removes the leftovers, and undoes the pods that were `starting`.
pub(super) async fn sweep(shared: Arc<Shared>, starting: Vec<Pod>, leftovers: Leftovers) {
    // A CNI plugin that still runs could add what is removed here.
    let undone = starting.iter().map(|pod| pod.id.clone()).chain(leftovers.attached.iter().cloned());
    shared.network.kill_plugins_of(undone.collect()).await;
    killpoint!(RECOVERY_TAKEN_UP);
    let undone = join_all(starting.into_iter().map(|pod| pod::undo(&shared, pod)));
    let removed = join_all(leftovers.containers.into_iter().map(|id| remove_container(&shared, id)));
    let ended = join_all(orphaned_containers(&shared).into_iter().map(|entry| end_orphaned(&shared, entry)));
    let attached: Vec<_> = shared.pods.list().iter().filter_map(|pod| pod.attachment.clone()).collect();
    let released = shared.network.release_gone(leftovers.attached, &attached);
    tokio::join!(undone, removed, ended, released);
    killpoint!(RECOVERY_SWEPT);
    // One run of each plugin for every pod, so the start does not wait for it.
    tokio::spawn(async move { warn_of_changed_networks(&shared).await });
}

/// Only logs networks that were changed while no daemon ran. Repairing them could cut connections that still work.
async fn warn_of_changed_networks(shared: &Shared) {
    for pod in shared.pods.list().iter().filter(|pod| pod.state == PodState::Ready) {
        let (Some(network), Some(attachment)) = (pod.network(), &pod.attachment) else { continue };
        if let Err(error) = shared.network.check(&network, attachment).await
            // A pod that is stopped meanwhile loses its network first.
            && !is_going(shared, &pod.id)
        {
            let error = error.chain();
            tracing::warn!(pod = pod.id, error, "the network of the pod is not as it was set up");
        }
    }
}

/// Whether the pod is gone, not ready, or an operation such as its stop is under way.
fn is_going(shared: &Shared, pod: &str) -> bool {
    let entry = shared.pods.find(pod);
    entry.map_or(true, |entry| entry.get().state != PodState::Ready || entry.is_locked())
}

/// Returns containers whose pod is lost for good. They are recorded as ended, and stay for callers that ask how they
/// ended.
fn orphaned_containers(shared: &Shared) -> Vec<Arc<Entry<Container>>> {
    let mut entries = shared.containers.entries();
    entries.retain(|entry| !entry.get().state.is_exited() && !shared.pods.has(&entry.get().pod_id));
    entries
}

async fn end_orphaned(shared: &Arc<Shared>, entry: Arc<Entry<Container>>) {
    watch::end_without_shim(shared, &entry).await;
}

/// Waits until the container's pod is recovered, so that no files are removed below a container that the shim still
/// has: recovery makes the shim discard it.
async fn remove_container(shared: &Shared, id: String) {
    for pod in pods_of(shared, &id) {
        shared.pending.wait(&pod).await;
    }
    if let Err(error) = remove_traces(shared, &id).await {
        tracing::warn!(container = id, %error, "could not remove what has no record");
    }
}

/// Returns the pods that a container without a record may be in, by the pod uid in its specification. Without a
/// specification no shim knows of it.
fn pods_of(shared: &Shared, id: &str) -> Vec<String> {
    let description = fs::read(shared.layout.bundle(id).join("config.json")).unwrap_or_default();
    let spec = serde_json::from_slice::<Spec>(&description).unwrap_or_default();
    let uid = spec.annotations().as_ref().and_then(|annotations| annotations.get(SANDBOX_UID).cloned());
    let pods = shared.pods.list().into_iter().filter(|pod| Some(&pod.config.metadata.uid) == uid.as_ref());
    pods.map(|pod| pod.id.clone()).collect()
}
