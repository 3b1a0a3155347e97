//! Records that are lost, be it one that cannot be read or all of them: made again from the copies in the bundles.

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

/// Adds to what was loaded the pods and containers whose records are lost. What their shims know is not taken into account
/// yet, as with any other record. A pod without a copy is one that nobody was told of, or is ended as if it were.
pub(super) async fn make_again(
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
        // One whose record was never written is one that nobody was told of.
        if containers.damaged.contains(&id) || lost.contains_key(&container.pod_id) {
            containers.records.push(made_again(shared, container).await?);
        }
    }
    // After their containers: by a pod on record the next daemon would take it that those are, too.
    for (id, copy) in lost {
        pods.records.push(match copy {
            Some(pod) => made_again(shared, pod).await?,
            None => unknown(shared, id),
        });
    }
    Ok(())
}

fn copy<R: Record>(path: &Path, id: &str) -> Option<R> {
    let copy: R = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (copy.id() == id).then_some(copy)
}

async fn made_again<R: Record>(shared: &Shared, record: R) -> Result<R> {
    tracing::error!(id = record.id(), "the lost record of a {} was made again from its bundle", R::TABLE);
    shared.state.put(&record).await?;
    Ok(record)
}

/// A pod of which only the directory is left: enough to undo it.
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
