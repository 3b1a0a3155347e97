//! Lost records, be it a single unreadable one or the whole database: restored from the copies in the bundles.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::Arc,
};

use crate::{
    container::Container,
    error::Result,
    pod::{Pod, PodState},
    runtime::{Shared, names_in},
    shim::ShimAddress,
    state::{Loaded, Record},
};

/// Adds the pods and containers whose records are lost. They are reconciled with their shims afterwards, like any other
/// record. A pod without a copy never became ready, or is undone as if it had not.
pub(super) async fn restore(
    shared: &Arc<Shared>,
    pods: &mut Loaded<Pod>,
    containers: &mut Loaded<Container>,
) -> Result<()> {
    let known: HashSet<String> = pods.records.iter().map(|pod| pod.id.clone()).collect();
    let lost = names_in(&shared.layout.sandboxes()).into_iter().filter(|id| !known.contains(id));
    let with_copy = |id: String| {
        let copy = copy::<Pod>(&shared.layout.pod_copy(&id), &id);
        (id, copy)
    };
    let lost: HashMap<String, Option<Pod>> = lost.map(with_copy).collect();
    let known: HashSet<String> = containers.records.iter().map(|one| one.id.clone()).collect();
    for id in names_in(&shared.layout.bundles()).into_iter().filter(|id| !known.contains(id)) {
        let Some(container) = copy::<Container>(&shared.layout.container_copy(&id), &id) else { continue };
        // A container whose record was never written was not reported to any caller.
        if containers.damaged.contains(&id) || lost.contains_key(&container.pod_id) {
            containers.records.push(restored(shared, container).await?);
        }
    }
    // Pods are recorded after their containers: once a pod is on record, the next daemon assumes that its containers
    // are, too.
    for (id, copy) in lost {
        pods.records.push(match copy {
            Some(pod) => restored(shared, pod).await?,
            None => unknown(shared, id),
        });
    }
    Ok(())
}

fn copy<R: Record>(path: &Path, id: &str) -> Option<R> {
    let copy: R = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (copy.id() == id).then_some(copy)
}

async fn restored<R: Record>(shared: &Shared, record: R) -> Result<R> {
    tracing::error!(id = record.id(), "the lost record of a {} was made again from its bundle", R::TABLE);
    shared.state.put(&record).await?;
    Ok(record)
}

/// Makes a record for a pod of which only the directory is left: enough to undo it.
fn unknown(shared: &Shared, id: String) -> Pod {
    tracing::error!(pod = id, "nothing but a directory is known of it: what is left of it is removed");
    Pod {
        config: Default::default(),
        created_at: 0,
        state: PodState::Starting,
        attachment: None,
        netns: Some(shared.layout.netns(&id)),
        shim: Some(ShimAddress { socket: shared.launcher.socket(&id), pid: 0 }),
        cgroup: String::new(),
        id,
    }
}
